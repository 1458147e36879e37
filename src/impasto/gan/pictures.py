"""The pictures that a GAN learns from: decoded once, cut into squares, mapped into memory.

The cache is a folder of folders, one for each collection and way to cut it:

    CACHE/
      index.json      the SHA-256 of files that were read before, by path, length and time
      KEY/
        train.npy     uint8 (n, S, S, 3), squares to learn from
        held.npy      the same, of the paintings that are held out
        meta.json     which painting each square is from; which files could not be used
      KEY.part/       one that is being made
      KEY.lock        held by the process that makes it

`KEY` follows from the bytes of the files and from the settings, not from names or order, and so
does what the folder holds. A folder gets its name when all of it is on the disk.

Nothing here imports torch before a batch is asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, get_args

import numpy as np
from PIL import Image

from impasto.classics import weights_folder
from impasto.errors import ImageError, ImpastoError, SettingsError, one_line
from impasto.files import lock, os_reason, sha256_file, write_text_atomic
from impasto.gan.collection import (
    MIN_SIDE,
    Found,
    Skipped,
    find,
    in_order,
    look,
    paintings,
    reason,
    spread,
)
from impasto.gan.settings import Crop
from impasto.images import MAX_PIXELS, Picture

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from impasto.files import StrPath

    Squares = NDArray[np.uint8]
    Numbers = NDArray[np.int64]

__all__ = ["Box", "Pictures", "Progress", "Views", "all_squares", "boxes", "hold_out", "prepare"]

FORMAT: Final = 1
"""Of the cache. Another number makes all of it anew."""

SLACK: Final = 1.15
"""For random crops, squares are stored so many times as large as what is seen of them."""

SETTLED_NS: Final = 2 * 10**9
"""A file that was changed less than this ago could change again and keep its time, ns."""


class Box(NamedTuple):
    """A square part of a picture, px."""

    left: int
    top: int
    side: int


@dataclass(frozen=True)
class Views:
    """How pictures become squares.

    One square from the centre, unless `tile` or `crops` says otherwise.

    Attributes:
        size: Side of what is seen, px.
        crop: `centre` to see all of a square; `random` to store it somewhat larger, and see another
            part of it each time.
        tile: Whether a picture is cut into squares that cover all of it; see `boxes`.
        crops: Squares per picture, of several sizes, at random places; 0 for none of that.

    Raises:
        SettingsError: A value is out of range, or both `tile` and `crops` are given.
    """

    size: int
    crop: Crop = "centre"
    tile: bool = False
    crops: int = 0

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 4096:
            raise SettingsError(f"size is {self.size}; it is a number from 8 to 4096")
        if self.crop not in get_args(Crop):
            raise SettingsError(f"crop is {self.crop!r}; it can be {', '.join(get_args(Crop))}")
        if not 0 <= self.crops <= 10_000:
            raise SettingsError(f"crops is {self.crops}; it is a number from 0 to 10000")
        if self.tile and self.crops:
            raise SettingsError("tile and crops are two ways to cut pictures; choose one of them")

    @property
    def stored(self) -> int:
        """S, the side of a square in the cache, px."""
        return self.size if self.crop == "centre" else round(self.size * SLACK)


def boxes(picture: tuple[int, int], views: Views, seed: int) -> list[Box]:
    """Where a picture is cut.

    Tiles have the short side of the picture, in one row that overlaps evenly. With a short side of
    4 times `size` or more there are two rows, from 8 times on three, and one more for each
    doubling, so that the squares of a large picture still show much of it.

    Crops have between a quarter of the short side (but no less than is stored, so that nothing is
    enlarged) and all of it; every factor is as likely.

    Args:
        picture: (W, H), px.
        views: How to cut.
        seed: Of crops; it is at least 0.
    """
    width, height = picture
    short = min(picture)
    if views.crops:
        rng = np.random.default_rng(seed)
        least = min(short, max(views.stored, short // 4))
        cut = []
        for _ in range(views.crops):
            side = round(least * (short / least) ** rng.random())
            left, top = (int(rng.integers(length - side + 1)) for length in picture)
            cut.append(Box(left, top, side))
        return cut
    if views.tile:
        side = -(-short // max(1, (short // views.size).bit_length() - 1))
        return [
            Box(left, top, side) for top in _starts(height, side) for left in _starts(width, side)
        ]
    return [Box((width - short) // 2, (height - short) // 2, short)]


def _starts(length: int, side: int) -> list[int]:
    """Where pieces of `side` begin that cover `length` with even overlap."""
    gaps = -(-length // side) - 1
    return [round(i * (length - side) / gaps) for i in range(gaps + 1)] if gaps else [0]


def hold_out(digests: Sequence[str], share: float, seed: int) -> list[bool]:
    """Whether each painting is held out: about this share of them, at least one, and not all.

    Each is decided by itself, from its digest: what is added or removed does not move the others,
    but for those that are held out, or not, for want of another.

    Args:
        digests: One for each painting, all different; at least two.
        share: Between 0 and 1.
        seed: Of the choice.
    """
    places = [_draw(seed, "held out", digest) for digest in digests]
    last = max(places)
    return [place == min(places) or place < min(last, share * 2**64) for place in places]


def _draw(*what: object) -> int:
    """A number in [0, 2⁶⁴) that follows from these values, and looks like chance."""
    return int(hashlib.sha256("/".join(map(str, what)).encode()).hexdigest()[:16], 16)


@dataclass(frozen=True, eq=False)
class Pictures:
    """The squares of a collection.

    Attributes:
        train: Squares to learn from, uint8 (n, S, S, 3), mapped into memory.
        held: Those that are held out, likewise; no painting has squares in both.
        train_painting: Which painting each square to learn from is of, (n,).
        held_painting: The same of those that are held out.
        side: Side of what is seen of a square, px; at most S.
        key: What follows from the content and the settings: equal keys, equal squares.
        skipped: Files that could not be used.
    """

    train: Squares
    held: Squares
    train_painting: Numbers
    held_painting: Numbers
    side: int
    key: str
    skipped: tuple[Skipped, ...] = ()

    @property
    def slack(self) -> int:
        """By how much a square is larger than what is seen of it, px."""
        return int(self.train.shape[1]) - self.side

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws for `batch`: flips `(count,)`, bool, and offsets `(count, 2)`, int64.

        Processes that share a batch draw for all of it, from equal generators, and take their rows.
        """
        import torch

        flips = torch.rand(count, generator=generator) < 0.5
        return flips, torch.randint(self.slack + 1, (count, 2), generator=generator)

    def batch(
        self,
        indices: Tensor,
        *,
        flips: Tensor | None = None,
        offsets: Tensor | None = None,
        held: bool = False,
    ) -> Tensor:
        """Some pictures, float32 `(N, 3, side, side)`, sRGB in [-1, 1]: a level x is x / 127.5 - 1.

        Args:
            indices: Which squares, `(N,)`, integers.
            flips: Which of them are mirrored, `(N,)`, bool; None for none.
            offsets: Row and column where each is cut from its square, `(N, 2)`, integers in
                [0, S - side]; None for the middle.
            held: Whether they come from `held` and not from `train`.
        """
        import torch

        squares = self.held if held else self.train
        middle = (self.slack // 2, self.slack // 2)
        corners = [middle] * len(indices) if offsets is None else offsets.tolist()
        cut = [
            self._seen(squares[index], top, left)
            for index, (top, left) in zip(indices.tolist(), corners, strict=True)
        ]
        x = torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float()
        x = x.div_(127.5).sub_(1)
        return x if flips is None else torch.where(flips[:, None, None, None], x.flip(-1), x)

    def reference(self, count: int) -> tuple[Squares, Numbers]:
        """Pictures that are held out, to compare with: as training would see them, not mirrored.

        Squares that are larger than what is seen are seen in several places, where that is needed
        to come to `count`. Others are seen once, so there can be fewer.

        Args:
            count: How many, about; no more than squares and places give.

        Returns:
            Pictures, uint8 (n, side, side, 3), and which painting each is of, (n,).
        """
        places = spread(count, len(self.held))
        if self.slack:
            places = np.repeat(places, -(-count // len(places)))
        rng = np.random.default_rng(0)
        corners = rng.integers(self.slack + 1, size=(len(places), 2)).tolist()
        cut = [
            self._seen(self.held[place], top, left)
            for place, (top, left) in zip(places.tolist(), corners, strict=True)
        ]
        return np.stack(cut), self.held_painting[places]

    def _seen(self, square: Squares, top: int, left: int) -> Squares:
        return square[top : top + self.side, left : left + self.side]


class Progress(NamedTuple):
    """How far the preparation is.

    Attributes:
        stage: `checking` while files are recognised by their bytes, `reading` while they are
            decoded.
        done: Files of this stage that are done.
        total: Of how many.
        path: The file at hand.
        skipped: The file that has just turned out to be of no use; else None.
    """

    stage: str
    done: int
    total: int
    path: Path
    skipped: Skipped | None = None


def prepare(
    paths: Sequence[StrPath],
    views: Views,
    *,
    cache: StrPath | None = None,
    seed: int = 0,
    held_out: float = 0.2,
    max_pixels: int = MAX_PIXELS,
) -> Generator[Progress, None, Pictures]:
    """Decodes pictures and cuts them, unless that was done before.

    Pictures with the same pixels are used once. What is held out is chosen by painting: near
    duplicates are of one painting (see `impasto.gan.collection`). If another process makes the
    same, this one waits for it.

    Args:
        paths: Picture files, as `impasto.gan.collection.find` gives them, in any order.
        views: How to cut.
        cache: The folder that keeps the squares; None for the user's, or `gan-data` in the folder
            that `IMPASTO_CACHE` names.
        seed: Of what is held out, and of random crops.
        held_out: The share of the paintings that is held out, between 0 and 1.
        max_pixels: The most pixels of a picture; see `impasto.images.open_image`.

    Yields:
        Where it is, before each file that is recognised and after each that is decoded.

    Returns:
        The squares.

    Raises:
        SettingsError: `held_out` is out of range.
        ImpastoError: There are less than two paintings, a file was changed at the same time, or the
            cache cannot be written.
    """
    if not 0 < held_out < 1:
        raise SettingsError(f"held_out is {held_out}; it is a share between 0 and 1")
    root = weights_folder().with_name("gan-data") if cache is None else Path(cache)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImpastoError(f"cannot make the folder {root}: {os_reason(error)}") from error
    files, unreadable = yield from _recognise([Path(path) for path in paths], root)
    job = _Job(root, files, views, seed, held_out, max_pixels)
    made = job.open(unreadable)
    if made is None:
        _sweep(root)
        with lock(job.folder, timeout=None):
            made = job.open(unreadable)  # another process may have made it meanwhile
            if made is None:
                yield from job.make()
                made = job.open(unreadable)
    if made is None:
        raise ImpastoError(f"cannot read {job.folder}, which has just been written; try again")
    return made


def all_squares(
    folders: Sequence[StrPath], size: int, count: int, *, cache: StrPath | None = None
) -> tuple[Squares, Numbers]:
    """Centre squares of the pictures in folders, evenly spread, none held out.

    Args:
        folders: Where to look; see `impasto.gan.collection.find`.
        size: Side of the squares, px.
        count: The most that are taken.
        cache: As for `prepare`.

    Returns:
        Pictures, uint8 (n, size, size, 3), and which painting each is of, (n,).

    Raises:
        ImpastoError: As for `prepare`.
    """
    work = prepare(find(folders), Views(size), cache=cache)
    while True:
        try:
            next(work)
        except StopIteration as end:
            made: Pictures = end.value
            break
    painting = np.concatenate((made.train_painting, made.held_painting))
    places = spread(count, len(painting))
    known = len(made.train)
    cut = [made.train[i] if i < known else made.held[i - known] for i in places.tolist()]
    return np.stack(cut), painting[places]


# --- files by their bytes -------------------------------------------------------------------------


def _recognise(
    paths: Sequence[Path], root: Path
) -> Generator[Progress, None, tuple[dict[str, Path], list[Skipped]]]:
    """The files by the SHA-256 of their bytes, each content once; and those that cannot be read.

    `index.json` knows the files that have not changed since they were last read. It only saves
    time: it may be missing, be of another time, or be impossible to write.
    """
    index = _read_index(root / "index.json")
    news: dict[str, list[Any]] = {}
    files: dict[str, Path] = {}
    unreadable = []
    now = time.time_ns()
    for number, path in enumerate(paths):
        yield Progress("checking", number, len(paths), path)
        name = str(path.absolute())
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("it is not a regular file")
            stamp = [status.st_size, status.st_mtime_ns]
            known = index.get(name, [])
            digest = known[2] if known[:2] == stamp else sha256_file(path)
        except (OSError, ImpastoError) as error:
            why = os_reason(error) if isinstance(error, OSError) else reason(error, path)
            unreadable.append(Skipped(path, why))
            continue
        if known[:2] != stamp and status.st_mtime_ns < now - SETTLED_NS:
            news[name] = [*stamp, digest]
        files.setdefault(digest, path)
    if news:
        kept = {name: entry for name, entry in index.items() if os.path.lexists(name)}
        with suppress(ImpastoError):
            write_text_atomic(root / "index.json", json.dumps({**kept, **news}))
    return files, unreadable


def _read_index(path: Path) -> dict[str, list[Any]]:
    try:
        index = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(index, dict):
        return {}
    return {
        name: entry for name, entry in index.items() if isinstance(entry, list) and len(entry) == 3
    }


# --- one folder of the cache ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What is asked for, and the folder of the cache that answers it."""

    root: Path
    files: Mapping[str, Path]
    views: Views
    seed: int
    held_out: float
    max_pixels: int

    @property
    def key(self) -> str:
        """What follows from the content of the files and the settings, 32 hexadecimal digits."""
        asked = {
            "format": FORMAT,
            "views": dataclasses.asdict(self.views),
            "seed": self.seed,
            "held_out": self.held_out,
            "max_pixels": self.max_pixels,
            "min_side": MIN_SIDE,
            "files": sorted(self.files),
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def folder(self) -> Path:
        """Where the squares are kept."""
        return self.root / self.key

    def open(self, unreadable: Sequence[Skipped]) -> Pictures | None:
        """The squares, if they are there and whole."""
        folder = self.folder
        try:
            meta = json.loads((folder / "meta.json").read_text("utf-8"))
            made = Pictures(
                np.load(folder / "train.npy", mmap_mode="r"),
                np.load(folder / "held.npy", mmap_mode="r"),
                np.array(meta["train"], np.int64),
                np.array(meta["held"], np.int64),
                self.views.size,
                folder.name,
                (*unreadable, *(Skipped(self.files[sha], why) for sha, why in meta["skipped"])),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        whole = len(made.train) == len(made.train_painting)
        return made if whole and len(made.held) == len(made.held_painting) else None

    def make(self) -> Generator[Progress, None, None]:
        """Makes the folder. Whatever happens, it is there whole or not at all."""
        part = self.folder.with_suffix(".part")
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            yield from self._fill(part)
            shutil.rmtree(self.folder, ignore_errors=True)  # there, but not whole
            part.rename(self.folder)
        except OSError as error:
            raise ImpastoError(
                f"cannot write {part}: {os_reason(error)}; another folder can be chosen with "
                "--cache or IMPASTO_CACHE"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _fill(self, part: Path) -> Generator[Progress, None, None]:
        # 1. All squares in one file, in the order of reading: what is held out is not known yet.
        looked: dict[str, _Place] = {}
        skipped: list[tuple[str, str]] = []
        squares = 0
        work = sorted(self.files.items(), key=lambda item: item[1])
        with (part / "squares").open("wb") as file, closing(in_order(self._look, work)) as results:
            for done, ((sha, path), result) in enumerate(zip(work, results, strict=True), 1):
                if isinstance(result, Skipped):
                    skipped.append((sha, result.reason))
                    yield Progress("reading", done, len(work), path, result)
                    continue
                found, pixels = result
                if found.sha256 not in looked:
                    looked[found.sha256] = _Place(found, squares, len(pixels))
                    file.write(pixels.data)
                    squares += len(pixels)
                yield Progress("reading", done, len(work), path)

        # 2. Paintings, in the order of their pixels' digests; which of them are held out.
        places = [looked[digest] for digest in sorted(looked)]
        numbers = paintings([place.found for place in places]).tolist()
        first: dict[int, str] = {}
        for number, place in zip(numbers, places, strict=True):
            first.setdefault(number, place.found.sha256)
        if len(first) < 2:
            raise ImpastoError(
                f"{len(places)} of {len(work)} pictures can be used, and a GAN needs two that show "
                "different paintings; name more folders, or see what impasto gan data says"
            )
        held = hold_out(list(first.values()), self.held_out, self.seed)

        # 3. The squares again, those to learn from and those that are held out.
        meta: dict[str, Any] = {"format": FORMAT, "skipped": skipped}
        with (part / "squares").open("rb") as file:
            for name, side in (("train", False), ("held", True)):
                chosen = [
                    (number, place)
                    for number, place in zip(numbers, places, strict=True)
                    if held[number] == side
                ]
                meta[name] = [number for number, place in chosen for _ in range(place.count)]
                self._copy(file, [place for _, place in chosen], part / f"{name}.npy")
        (part / "squares").unlink()
        write_text_atomic(part / "meta.json", json.dumps(meta))

    def _look(self, item: tuple[str, Path]) -> tuple[Found, Squares] | Skipped:
        """A picture and its squares, (n, S, S, 3); or that it cannot be used."""
        sha, path = item
        try:
            picture, found = look(path, max_pixels=self.max_pixels)
        except ImageError as error:
            cause = error.__cause__
            if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno):
                raise  # this may go well another time, so it must not be remembered
            return Skipped(path, reason(error, path))
        if picture.sha256 != sha:
            raise ImpastoError(one_line(f"{path} was changed while it was read; start again"))
        cut = boxes(picture.size, self.views, _draw(self.seed, "crops", found.sha256))
        return found, _squares(picture, cut, self.views.stored)

    def _copy(self, file: BinaryIO, places: Sequence[_Place], path: Path) -> None:
        """Writes squares as an array file: by plain writes, as a map would crash on a full disk."""
        side = self.views.stored
        bytes_each = side * side * 3
        shape = (sum(place.count for place in places), side, side, 3)
        with path.open("wb") as array:
            np.lib.format.write_array_header_1_0(
                array, {"descr": "|u1", "fortran_order": False, "shape": shape}
            )
            for place in places:
                file.seek(place.start * bytes_each)
                array.write(file.read(place.count * bytes_each))
            array.flush()
            os.fsync(array.fileno())


@dataclass(frozen=True)
class _Place:
    """A picture, and which squares are its own: `count` from `start`."""

    found: Found
    start: int
    count: int


def _squares(picture: Picture, cut: Sequence[Box], side: int) -> Squares:
    """Parts of a picture, each brought to `side`, antialiased: (n, side, side, 3)."""
    image = Image.fromarray(picture.pixels)
    made = [
        image.resize(
            (side, side),
            Image.Resampling.LANCZOS,
            box=(box.left, box.top, box.left + box.side, box.top + box.side),
            reducing_gap=3.0,
        )
        for box in cut
    ]
    return np.stack([np.asarray(square) for square in made])


def _sweep(root: Path) -> None:
    """Removes what processes that died have left: folders in the making whose lock is free."""
    for part in root.glob("*.part"):
        with suppress(ImpastoError), lock(part.with_suffix("")):
            shutil.rmtree(part, ignore_errors=True)
