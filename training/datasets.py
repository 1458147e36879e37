"""The pictures that recipes train on, decoded once and mapped into memory.

They are read in our layouts and in those in which the sets are published; see training/README.md.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impasto.errors import ImpastoError
from impasto.files import atomic_path, write_text_atomic
from impasto.images import open_image
from impasto.pyramid import cover

__all__ = [
    "SIDE",
    "STYLE_SIDE",
    "Pictures",
    "cached",
    "chances",
    "style_pictures",
    "tiny_imagenet",
]

SIDE: Final = 64
"""Side of a Tiny-ImageNet picture, px."""

STYLE_SIDE: Final = 256
"""Side to which the other pictures are cut if nothing else is said, px."""

HELD_OUT: Final = Path(__file__).with_name("heldout.txt")
"""Pictures that are never trained on: `benchmarks/encoder.py` judges with them."""

Pixels = NDArray[np.uint8]
SUFFIXES: Final = {".jpeg", ".jpg", ".png", ".webp"}


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size and what they show.

    Attributes:
        pixels: `(count, H, W, 3)`, uint8, sRGB.
        labels: `(count,)`, int64.
        folders: where those with a label lay, relative to the data; none if labels are classes.
    """

    pixels: Pixels
    labels: NDArray[np.int64]
    folders: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Another for other pictures, labels or folders; of each picture 16 px are looked at."""
        step = max(1, self.pixels.shape[1] // 4)
        seen = (self.labels, self.pixels[:, ::step, ::step], np.array(self.folders))
        digest = hashlib.sha256()
        for part in seen:
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:16]

    def take(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Some of them, `(N, 3, H, W)` in [0, 1] and channels-last, with their labels `(N,)`."""
        places = indices.numpy()
        pixels = torch.from_numpy(self.pixels[places]).to(device)
        labels = torch.from_numpy(self.labels[places]).to(device)
        return pixels.permute(0, 3, 1, 2).float().div_(255), labels


def tiny_imagenet(data: Path, split: str, cache: Path) -> Pictures:
    """Tiny-ImageNet's `train` or `val`, decoded once into `cache` and mapped into memory.

    Raises:
        ImpastoError: `data` does not hold it.
    """
    public, mosaics = data / "tiny-imagenet-200", data / "tiny-imagenet"
    if public.is_dir():
        return cached(cache / split, lambda: _public_layout(public, split))
    if mosaics.is_dir():
        return cached(cache / split, lambda: _mosaic_layout(mosaics, split))
    raise ImpastoError(f"{data} has no tiny-imagenet-200; download Tiny-ImageNet and unpack it")


def _public_layout(folder: Path, split: str) -> tuple[list[Pixels], list[int]]:
    classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    if split == "train":
        files = [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((folder / "train" / name / "images").glob("*.JPEG"))
        ]
    else:
        lines = (folder / "val" / "val_annotations.txt").read_text("utf-8").splitlines()
        pairs = [line.split("\t")[:2] for line in lines]
        files = [(folder / "val" / "images" / name, classes.index(wnid)) for name, wnid in pairs]
    return [open_image(path).pixels for path, _ in files], [label for _, label in files]


def _mosaic_layout(folder: Path, split: str) -> tuple[list[Pixels], list[int]]:
    tiles: list[Pixels] = []
    labels: list[int] = []
    for label, path in enumerate(sorted((folder / split).iterdir())):
        mosaic = open_image(path).pixels
        h, w = mosaic.shape[0] // SIDE, mosaic.shape[1] // SIDE
        grid = mosaic.reshape(h, SIDE, w, SIDE, 3).swapaxes(1, 2)  # (h, w, SIDE, SIDE, 3)
        tiles.extend(grid.reshape(h * w, SIDE, SIDE, 3))
        labels.extend([label] * (h * w))
    return tiles, labels


def style_pictures(data: Path, cache: Path, side: int = STYLE_SIDE) -> Pictures:
    """Every other picture under `data` that is not held out, its middle as a square.

    The label is that of its folder; there may be none at all.

    Args:
        data: the folder.
        cache: where the squares are kept, those of each side in files of their own.
        side: of the squares, px; what is smaller is enlarged.

    Raises:
        ImpastoError: the cache was made before it held folders.
    """
    held = set(HELD_OUT.read_text("utf-8").splitlines())
    files = [
        path
        for path in sorted(data.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and not path.relative_to(data).parts[0].startswith("tiny-imagenet")
        and path.relative_to(data).as_posix() not in held
    ]
    folders = sorted({path.parent for path in files})
    stem = "style" if side == STYLE_SIDE else f"style-{side}"

    def decode() -> tuple[list[Pixels], list[int]]:
        def square(path: Path) -> Pixels:
            x = cover(open_image(path).tensor(), (side, side))[0]
            cut: Pixels = (x.permute(1, 2, 0) * 255).round().byte().numpy()
            return cut

        pixels = [square(path) for path in files]
        cache.mkdir(parents=True, exist_ok=True)
        names = "".join(folder.relative_to(data).as_posix() + "\n" for folder in folders)
        write_text_atomic(cache / f"{stem}.folders.txt", names)
        return pixels, [folders.index(path.parent) for path in files]

    found = cached(cache / stem, decode)
    if not len(found.labels):
        return found
    try:
        names = (cache / f"{stem}.folders.txt").read_text("utf-8").splitlines()
    except FileNotFoundError:
        raise ImpastoError(
            f"the pictures in {cache} are without their folders; give another --cache"
        ) from None
    return replace(found, folders=tuple(names))


def chances(text: str, pictures: Pictures) -> tuple[Tensor, str]:
    """How often each picture comes, when folders have shares.

    Args:
        text: `photos=90,paintings=8,paintings/monet=2`: a folder has the pictures in it and below
            it, but for those of a longer name. Only ratios count.
        pictures: with their folders. Those that no name fits never come.

    Returns:
        `(count,)`, float32, not all 0; and what it comes to, in words.

    Raises:
        ImpastoError: the text cannot be read, or no picture would come.
    """
    shares = _shares(text)
    owners = [_owner(folder, shares) for folder in pictures.folders]
    found = torch.zeros(len(pictures.labels))
    for name, share in shares.items():
        its = torch.tensor([owner == name for owner in owners])[torch.from_numpy(pictures.labels)]
        if its.any():
            found[its] = share / int(its.sum())
    if not found.any():
        there = ", ".join(pictures.folders)
        raise ImpastoError(f"no picture lies in a folder of {text!r}; there are {there}")
    came = {name: share for name, share in shares.items() if share and name in owners}
    words = [f"{share / sum(came.values()):.0%} {name}" for name, share in came.items()]
    missing = [name for name in shares if name not in owners]
    never = [each for each, owner in zip(pictures.folders, owners, strict=True) if not owner]
    for what, names in (("not there", missing), ("left out", never)):
        if names:
            words.append(f"{what}: {' and '.join(names)}")
    return found, ", ".join(words)


def _shares(text: str) -> dict[str, float]:
    """Shares by the name of a folder."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = (piece.strip() for piece in part.partition("="))
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not name or not 0 <= value < math.inf or name.rstrip("/") in found:
            raise ImpastoError(
                f"cannot read {part!r} in {text!r}; write FOLDER=SHARE,FOLDER=SHARE, each folder "
                "once, such as paintings=2,textures=1"
            )
        found[name.rstrip("/")] = value
    return found


def _owner(folder: str, names: Iterable[str]) -> str:
    """The longest of the names that a folder has or lies under; empty if none."""
    return max((n for n in names if f"{folder}/".startswith(f"{n}/")), key=len, default="")


def cached(path: Path, decode: Callable[[], tuple[list[Pixels], list[int]]]) -> Pictures:
    """The pictures stored at `path`, or those that `decode` gives, which are stored."""
    pixels, labels = path.with_suffix(".npy"), path.with_suffix(".labels.npy")
    if not labels.exists():
        found, numbers = decode()
        if not found:  # nothing to keep: there may be some the next time
            return Pictures(
                np.empty((0, STYLE_SIDE, STYLE_SIDE, 3), np.uint8), np.empty(0, np.int64)
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(pixels) as temporary:
            np.save(temporary, np.stack(found))
        with atomic_path(labels) as temporary:  # the last: where it is, all is
            np.save(temporary, np.asarray(numbers, np.int64))
    return Pictures(np.load(pixels, mmap_mode="r"), np.load(labels))
