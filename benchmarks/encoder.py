"""Encoders side by side: what they know, how they see style, and what they do to a picture.

    python benchmarks/encoder.py --data FOLDER [--candidates FILE ...] [--only 2,3] [--sheets OUT]

FOLDER is that of training/README.md. Each encoder is used with the pooling that its file names, or
max pooling where it names none, and likewise with its padding or zeros. Random weights are
normalised like the others. An earlier network can be compared with `--baseline FILE`; the
repository's history has those that have left the package. Measure 1 reads Tiny-ImageNet in mosaics,
3 to 5 take photos of `photos/imagenet-samples`. The measures, by number:

1. Tiny-ImageNet top-1 of a linear classifier on the mean of the last layer, fitted alike for all.
2. Style retrieval: of the pictures in training/heldout.txt, the share whose left half finds its own
   right half by the nearest Gram matrices, relu1_1 ... relu5_1, each of length 1.
3. Ripple: in 32 px blocks where the photo is flat, the share of the result's spectral energy above
   0.35 cycles per px, beside the style's own share. Border: the mean change of the outer 16 px over
   that of the rest; beside it the same where there was no border, because the photo was painted
   within a larger one that continues it as a mirror. What they differ by is the border's doing: the
   outer part of a photo may well change more than the rest by itself.
   After transfers at one scale without any smoothing, as in Gatys et al. 2016.
   Style is what is left of the style loss under the encoder itself; judged, under one for all.
4. Inversion: PSNR of 8 photos from 60 steps on one layer, for 3 layers, dB.
5. Transfers with default settings, as a sheet for the eyes.
6. Milliseconds of a loss and its gradient, beside VGG-19's shape.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

import impasto
from impasto.compute import choose_dtype, keep_memory
from impasto.encoder import PLANS, Encoder, Plan
from impasto.images import Picture, open_image, save_image
from impasto.losses import gram_matrix
from impasto.pyramid import cover, resample_picture, working_size
from impasto.settings import Padding, Pooling
from impasto.sheet import contact_sheet
from impasto.sources import resolve
from impasto.weights import load_weights

HELD_OUT = Path(__file__).parents[1] / "training" / "heldout.txt"
STYLES = ("sample:strokes", "sample:inkwash", "sample:stainedglass")
SMOOTH_STYLES = ("sample:marbling", "sample:inkwash", "sample:stainedglass")
"""Styles with little fine detail of their own."""

RETRIEVAL = tuple(f"relu{block}_1" for block in range(1, 6))
INVERSION = ("relu2_1", "relu3_1", "relu4_1")
BLOCK, BORDER, MARGIN = 32, 16, 64  # px

BARE: dict[str, Any] = {
    "scales": 1,
    "style_weight": 30.0,
    "style_layers": ",".join(RETRIEVAL),
    "content_layers": "relu4_2",
    "tv_weight": 0.0,
    "ripple_weight": 0.0,
}
"""Settings that leave the picture to the encoder."""


@dataclass(frozen=True)
class Subject:
    """An encoder under test: what to call it, its file, and how it is used."""

    name: str
    path: Path
    pooling: Pooling
    padding: Padding

    def load(self, dtype: torch.dtype) -> Encoder:
        """The encoder itself."""
        return Encoder.load(self.path, pooling=self.pooling, padding=self.padding, dtype=dtype)

    @property
    def options(self) -> dict[str, Any]:
        """How the library's jobs are told to use it."""
        return {"encoder": str(self.path), "pooling": self.pooling, "padding": self.padding}


Row = dict[str, float]


# --- 1 -------------------------------------------------------------------------------------------


def top1(subject: Subject, given: argparse.Namespace) -> Row:
    """Fits a linear classifier on the mean of the last layer (Adam, 30 passes, bare)."""
    encoder = subject.load(given.dtype)
    train, y = _means(encoder, _tiny(given.data, "train", given.tiny))
    judged, wanted = _means(encoder, _tiny(given.data, "val", 50))
    mean, std = train.mean(0), train.std(0) + 1e-6
    train, judged = (train - mean) / std, (judged - mean) / std
    torch.manual_seed(0)
    head = torch.nn.Linear(train.shape[1], 200)
    optimizer = torch.optim.Adam(head.parameters(), lr=2e-3)
    passes = 30
    for number in range(passes):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - number / passes)
        for chosen in torch.split(torch.randperm(len(y)), 500):
            loss = F.cross_entropy(head(train[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return {"top-1": float((head(judged).argmax(1) == wanted).float().mean())}


def _tiny(data: Path, split: str, count: int) -> list[tuple[NDArray[np.uint8], int]]:
    """Up to `count` pictures of every class, (n, 64, 64, 3) each, with the class's number."""
    mosaics = sorted((data / "tiny-imagenet" / split).glob("*.webp"))
    classes = []
    for number, path in enumerate(mosaics):
        pixels = open_image(path).pixels
        h, w = pixels.shape[0] // 64, pixels.shape[1] // 64
        tiles = pixels.reshape(h, 64, w, 64, 3).swapaxes(1, 2).reshape(-1, 64, 64, 3)
        classes.append((tiles[:count], number))
    if not classes:
        sys.exit(f"{data} has no tiny-imagenet/{split} in mosaics; leave out measure 1")
    return classes


@torch.no_grad()
def _means(encoder: Encoder, classes: list[tuple[NDArray[np.uint8], int]]) -> tuple[Tensor, Tensor]:
    """The last layer's mean over positions, (count, C), and the class of each picture."""
    last = encoder.layers[-1]
    means, labels = [], []
    for tiles, number in classes:
        x = torch.tensor(tiles).permute(0, 3, 1, 2).float() / 255
        means.append(encoder(x, [last])[last].float().mean((2, 3)))
        labels.append(torch.full((len(tiles),), number))
    return torch.cat(means), torch.cat(labels)


# --- 2 -------------------------------------------------------------------------------------------


@torch.no_grad()
def retrieval(subject: Subject, given: argparse.Namespace) -> Row:
    """The share of left halves that are nearest to their own right half."""
    encoder = subject.load(given.dtype)
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name in HELD_OUT.read_text("utf-8").split():
        x = open_image(given.data / name).tensor()
        half = x.shape[-1] // 2
        for side, part in zip(sides, (x[..., :half], x[..., half : 2 * half]), strict=True):
            features = encoder(part.contiguous(), RETRIEVAL)
            grams = [F.normalize(gram_matrix(f).flatten(), dim=0) for f in features.values()]
            side.append(torch.cat(grams))
    left, right = (torch.stack(side) for side in sides)
    found = (left @ right.T).argmax(1)
    return {"retrieval": float((found == torch.arange(len(found))).float().mean())}


# --- 3 -------------------------------------------------------------------------------------------


def artefacts(subject: Subject, given: argparse.Namespace) -> Row:
    """Ripple and border of transfers at one scale, without smoothing: the encoder on its own."""
    judge = Encoder.load(given.judge)
    bare = {**BARE, "precision": str(given.dtype).removeprefix("torch.")}
    own = subject.load(torch.float32)
    rows: list[Row] = []
    for photo in _photos(given, flat=True)[: given.pairs]:
        for style in SMOOTH_STYLES[: given.styles]:
            painting = _painting(style, given.size)
            image = _transfer(photo, painting, subject, given, **bare).image
            larger = _transfer(_continued(photo), painting, subject, given, **bare, size="full")
            inside = larger.image.pixels[MARGIN:-MARGIN, MARGIN:-MARGIN]
            before, after = (_luminance(picture) for picture in (photo, image))
            rows.append(
                {
                    "ripple": ripple(after, flat_blocks(before)),
                    "style's own": ripple(_luminance(painting)),
                    "border": border(photo.pixels, image.pixels),
                    "without one": border(photo.pixels, inside),
                    "style": style_distance(own, image, painting),
                    "judged": style_distance(judge, image, painting),
                }
            )
            if given.sheets:
                name = f"bare-{len(rows)}-{subject.name}.png"
                save_image(image, given.sheets / name)
    return {name: statistics.mean(row[name] for row in rows) for name in rows[0]}


def ripple(luminance: NDArray[np.float64], where: Sequence[tuple[int, int]] | None = None) -> float:
    """The share of spectral energy above 0.35 cycles per px, over all blocks or those at `where`.

    Each block is windowed (Hann) after its mean is taken away; energies are summed over blocks.
    """
    window = np.outer(np.hanning(BLOCK), np.hanning(BLOCK))
    rows, columns = np.meshgrid(np.fft.fftfreq(BLOCK), np.fft.fftfreq(BLOCK), indexing="ij")
    high = np.hypot(rows, columns) > 0.35
    total = above = 0.0
    for top, left in where if where is not None else _corners(luminance.shape):
        block = luminance[top : top + BLOCK, left : left + BLOCK]
        energy = np.abs(np.fft.fft2((block - block.mean()) * window)) ** 2
        total += float(energy.sum())
        above += float(energy[high].sum())
    return above / total if total else 0.0


def flat_blocks(luminance: NDArray[np.float64], spread: float = 0.03) -> list[tuple[int, int]]:
    """Top left corners of the blocks whose standard deviation is below `spread` ([0, 1] units)."""
    return [
        (top, left)
        for top, left in _corners(luminance.shape)
        if luminance[top : top + BLOCK, left : left + BLOCK].std() < spread
    ]


def border(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """The mean change of the outer 16 px over that of the interior."""
    change = np.abs(after.astype(float) - before).mean(2)
    inner = np.zeros(change.shape, bool)
    inner[BORDER:-BORDER, BORDER:-BORDER] = True
    return float(change[~inner].mean() / change[inner].mean())


def _corners(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """The corners of half-overlapping blocks that leave out the border."""
    return [
        (top, left)
        for top in range(BORDER, shape[0] - BORDER - BLOCK + 1, BLOCK // 2)
        for left in range(BORDER, shape[1] - BORDER - BLOCK + 1, BLOCK // 2)
    ]


def _luminance(picture: Picture) -> NDArray[np.float64]:
    weights = np.array([0.2126, 0.7152, 0.0722])
    return cast(NDArray[np.float64], picture.pixels @ weights / 255)


@torch.no_grad()
def style_distance(encoder: Encoder, image: Picture, painting: Picture) -> float:
    """The mean relative distance of the Gram matrices of relu1_1 ... relu5_1."""
    ours, theirs = (encoder(x.tensor(), RETRIEVAL) for x in (image, painting))
    distances = []
    for layer in RETRIEVAL:
        a, b = gram_matrix(ours[layer]), gram_matrix(theirs[layer])
        distances.append(float((a - b).square().sum() / b.square().sum()))
    return statistics.mean(distances)


def _painting(style: str, size: int) -> Picture:
    """A sample at the size at which a transfer looks at it."""
    return _shrunk(open_image(resolve(style).path), size)


def _transfer(
    photo: Picture,
    style: str | Picture,
    subject: Subject,
    given: argparse.Namespace,
    **options: Any,
) -> impasto.Result:
    options = {"size": given.size, **options}
    return impasto.transfer(
        photo, style, init="content", steps=given.steps, **subject.options, **options
    )


def _continued(photo: Picture) -> Picture:
    """The photo with a margin that continues it as a mirror."""
    edges = ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))
    return Picture(np.pad(photo.pixels, edges, mode="symmetric"))


def _photos(given: argparse.Namespace, flat: bool = False) -> list[Picture]:
    """Photos at working size: evenly spread, or those of 200 with the most flat blocks."""
    files = sorted((given.data / "photos" / "imagenet-samples").iterdir())
    chosen = files[:: max(1, len(files) // (200 if flat else 8))]
    pictures = [_shrunk(open_image(path), given.size) for path in chosen]
    if flat:
        pictures.sort(key=lambda picture: -len(flat_blocks(_luminance(picture))))
        return pictures
    return pictures


def _shrunk(picture: Picture, size: int) -> Picture:
    finest = working_size(picture.size, size)
    return Picture.from_tensor(resample_picture(picture.over_white().tensor(), finest))


# --- 4, 5, 6 -------------------------------------------------------------------------------------


def inversion(subject: Subject, given: argparse.Namespace) -> Row:
    """PSNR of photos reconstructed from one layer, dB."""
    results: dict[str, list[float]] = {layer: [] for layer in INVERSION}
    sheet = []
    for photo in _photos(given)[: given.inversions]:
        small = Picture.from_tensor(cover(photo.tensor(), (192, 192)))
        row = [small]
        for layer in INVERSION:
            made = impasto.reconstruct(
                small, layers=(layer,), steps=60, size=192, **subject.options
            ).image
            error = float(np.mean((made.pixels.astype(float) - small.pixels) ** 2))
            results[layer].append(10 * math.log10(255**2 / max(error, 1e-9)))
            row.append(made)
        sheet.append(row)
    if given.sheets:
        columns = ["photo", *INVERSION]
        path = given.sheets / f"invert-{subject.name}.png"
        save_image(contact_sheet(sheet, columns=columns), path)
    return {f"PSNR {layer}": statistics.mean(values) for layer, values in results.items()}


def transfers(subject: Subject, given: argparse.Namespace) -> Row:
    """Transfers with default settings, one file each; `main` makes a sheet of them."""
    if given.sheets:
        photos = [_painting("sample:astronaut", given.size)]
        photos += _photos(given)[1:8:2]
        for number, photo in enumerate(photos[:4]):
            for style in STYLES:
                made = _transfer(photo, style, subject, given).image
                name = f"{number}-{style.removeprefix('sample:')}-{subject.name}.png"
                save_image(made, given.sheets / name)
    return {}


def milliseconds(subject: Subject, given: argparse.Namespace) -> Row:
    """The median time of a loss and its gradient at 512 px, and how many times VGG-19's shape."""
    vgg = Encoder.random("vgg19", dtype=torch.float32)
    pairs = [(_time(subject.load(torch.float32)), _time(vgg)) for _ in range(given.runs)]
    return {
        "ms": 1000 * statistics.median(a for a, _ in pairs),
        "cheaper": statistics.median(b / a for a, b in pairs),
    }


def _time(encoder: Encoder) -> float:
    x = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)).requires_grad_()
    begin = time.perf_counter()
    loss = sum(gram_matrix(f).square().sum() for f in encoder(x, RETRIEVAL).values())
    torch.autograd.grad(cast(Tensor, loss), x)
    return time.perf_counter() - begin


MEASURES: dict[int, Callable[[Subject, argparse.Namespace], Row]] = {
    1: top1,
    2: retrieval,
    3: artefacts,
    4: inversion,
    5: transfers,
    6: milliseconds,
}


# --- Program -------------------------------------------------------------------------------------


def random_file(folder: Path, plan: Plan, text: str) -> Path:
    """A weight file with random weights, every layer scaled to mean activation 1 on noise."""
    encoder = Encoder.random(plan)
    weights = {}
    x = torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    means = {name: float(f.mean()) for name, f in encoder(x, plan.layers).items()}
    before = 1.0
    for layer, (weight, bias) in zip(plan.layers, encoder._convolutions, strict=True):
        name = layer.replace("relu", "conv")
        weights[f"{name}.weight"] = (weight * before / means[layer]).contiguous()
        weights[f"{name}.bias"] = bias
        before = means[layer]
    path = folder / "random.safetensors"
    triples = {"mean": plan.mean, "std": plan.std}
    save_file(
        weights, path, {"plan": text, **{k: ",".join(map(str, v)) for k, v in triples.items()}}
    )
    return path


def subjects(given: argparse.Namespace, folder: Path) -> list[Subject]:
    """The bundled encoder, random weights of its shape, and the candidates."""
    bundled = load_weights(given.baseline)
    paths = [bundled.path, random_file(folder, PLANS["slim"], bundled.metadata["plan"])]
    found = []
    for path in [*paths, *given.candidates]:
        metadata = load_weights(path).metadata
        pooling = given.pooling or metadata.get("pooling", "max")
        padding = given.padding or metadata.get("padding", "zero")
        found.append(Subject(path.stem, path, cast(Pooling, pooling), cast(Padding, padding)))
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--candidates", type=Path, nargs="*", default=[], help="weight files")
    parser.add_argument("--baseline", default="slim", help="name or file of the first row")
    parser.add_argument("--judge", default="slim", help="encoder that judges style for all")
    parser.add_argument("--only", default="1,2,3,4,5,6", help="measures, by number")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many first rows")
    parser.add_argument("--sheets", type=Path, help="folder for pictures")
    parser.add_argument("--pooling", choices=["max", "avg"], help="for all, whatever files say")
    parser.add_argument("--padding", choices=["zero", "replicate", "reflect"], help="likewise")
    parser.add_argument("--size", type=int, default=384, help="long side of transfers, px")
    parser.add_argument("--steps", type=int, default=150, help="of a transfer")
    parser.add_argument("--pairs", type=int, default=4, help="photos of measure 3")
    parser.add_argument("--styles", type=int, default=3, help="styles of measure 3")
    parser.add_argument("--inversions", type=int, default=8, help="photos of measure 4")
    parser.add_argument("--tiny", type=int, default=500, help="pictures a class of measure 1")
    parser.add_argument("--runs", type=int, default=7, help="of measure 6")
    return parser.parse_args()


def main() -> None:
    given = parse()
    keep_memory()
    given.dtype = choose_dtype(torch.device("cpu"), "auto")
    if given.sheets:
        given.sheets.mkdir(parents=True, exist_ok=True)
    chosen = [MEASURES[int(number)] for number in given.only.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        for subject in subjects(given, Path(folder))[given.skip :]:
            row: Row = {}
            for measure in chosen:
                row |= measure(subject, given)
            cells = "  ".join(f"{name} {value:.3f}" for name, value in row.items())
            print(f"{subject.name:24} {subject.pooling} {subject.padding:9} {cells}", flush=True)
            if given.sheets:
                path = given.sheets / f"{subject.name}.json"
                path.write_text(json.dumps(row), "utf-8")


if __name__ == "__main__":
    main()
