"""What the controls keep: one strength at every size, and strokes as large as in the painting.

Two tables, on two free photos of 600 and 640 px (`pip install ".[pictures]"`) and the styles that
impasto ships, drawn anew at 768 px, so that none has to be enlarged:

- `sizes`: each photo at a third of its size, and whole, with the same settings. What is left of the
  style loss (over that of the photo itself) and what is lost of the content (over the energy of the
  photo's features), each at its own size; then the ratios, whole over third.
- `strokes`: each photo with `style_scale` from 0.5 to 1.4, and always compared with the painting as
  a whole, at the size of the result. Ratios over those of 1, the default.

    python -m benchmarks.control sizes|strokes [--steps 300] [--styles strokes woodcut ...]
"""

import argparse
import importlib
import platform
import statistics
import zlib

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import impasto
from impasto.encoder import Encoder
from impasto.images import Picture
from impasto.losses import content_loss, gram_matrix, style_loss
from impasto.pyramid import resample_picture
from impasto.settings import TransferSettings
from tools.make_samples import STYLES

Features = dict[str, Tensor]

DEFAULTS = TransferSettings()
MOMENTS = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
SCALES = (0.5, 0.7, 1.0, 1.4)


class Judge:
    """Losses as the default objective has them, and moments, each over its start.

    Args:
        encoder: the network that looks.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def __call__(self, result: Tensor, photo: Tensor, style: Tensor) -> tuple[float, float, float]:
        """How far a result is from photo and style.

        Args:
            result: `(1, 3, H, W)`, sRGB in [0, 1].
            photo: the same shape.
            style: `(1, 3, h, w)`, at the size that it is to be compared at.

        Returns:
            The content loss over the energy of the photo's features; the style loss over that of
            the photo; and the distance of moments (Huang & Belongie 2017, eq. 12) over that of the
            photo.
        """
        x, p, s = (self._look(picture) for picture in (result, photo, style))
        contents = [
            content_loss(x[name], p[name], "relative").item() for name in DEFAULTS.content_layers
        ]
        return (
            statistics.fmean(contents),
            gram_distance(x, s) / gram_distance(p, s),
            moments_distance(x, s) / moments_distance(p, s),
        )

    def _look(self, picture: Tensor) -> Features:
        with torch.no_grad():
            layers = {*DEFAULTS.content_layers, *DEFAULTS.style_layers, *MOMENTS}
            return self.encoder(picture, sorted(layers))


def gram_distance(x: Features, style: Features) -> float:
    """The default style loss: relative errors of Gram matrices, weighed by layer."""
    layers = DEFAULTS.style_layers
    errors = [
        weight * style_loss(gram_matrix(x[name]), gram_matrix(style[name]), 1, "relative").item()
        for name, weight in layers.items()
    ]
    return sum(errors) / sum(layers.values())


def moments_distance(x: Features, style: Features) -> float:
    """Distances of means and of deviations (Huang & Belongie 2017, eq. 12)."""
    pairs = [(x[name], style[name]) for name in MOMENTS]
    means = [(a.mean((2, 3)) - b.mean((2, 3))).norm().item() for a, b in pairs]
    deviations = [(a.std((2, 3)) - b.std((2, 3))).norm().item() for a, b in pairs]
    return float(sum(means) + sum(deviations))


def fitted(picture: Tensor, side: int) -> Tensor:
    """A picture with a long side of `side` px."""
    H, W = picture.shape[-2:]
    return resample_picture(picture, (round(W * side / max(H, W)), round(H * side / max(H, W))))


def compare_sizes(
    judge: Judge, photo: Tensor, style: Image.Image, sizes: tuple[int, int], **options: float
) -> tuple[list[float], list[float]]:
    """What `judge` says of a small and a large result, with the same options."""
    found = []
    for size in sizes:
        small = fitted(photo, size)
        result = impasto.transfer(small, style, size=size, **options)  # type: ignore[arg-type]
        painting = fitted(Picture.from_pil(style).tensor(), size)
        found.append(list(judge(result.image.tensor(), small, painting)))
    return found[0], found[1]


def compare_scales(
    judge: Judge, photo: Tensor, style: Image.Image, steps: int
) -> list[tuple[float, float, float]]:
    """What `judge` says of strokes of each size, always beside the painting as a whole.

    From the photo, so that it is the optimiser alone that is measured.
    """
    small = fitted(photo, 384)
    painting = fitted(Picture.from_pil(style).tensor(), 384)
    found = []
    for scale in SCALES:
        result = impasto.transfer(small, style, style_scale=scale, steps=steps, init="content")
        found.append(judge(result.image.tensor(), small, painting))
    return found


def line(values: list[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    content, gram, moments = values
    return f"content {content:.3f}, Gram {gram:.3f}, moments {moments:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", choices=["sizes", "strokes"])
    parser.add_argument("--steps", type=int, default=DEFAULTS.steps)
    parser.add_argument("--styles", nargs="+", choices=sorted(STYLES), default=sorted(STYLES))
    options = parser.parse_args()
    print(f"{platform.machine()}, torch {torch.__version__}, {options.steps} steps")
    judge = Judge(Encoder.load(DEFAULTS.encoder))
    pictures = importlib.import_module("skimage.data")
    rows = []
    for name in ("coffee", "rocket"):
        photo = Picture.from_pil(Image.fromarray(getattr(pictures, name)())).tensor()
        whole = max(photo.shape)
        for style in options.styles:
            painting = STYLES[style](np.random.default_rng(zlib.crc32(style.encode())), 768)
            if options.table == "sizes":
                sizes = (round(whole / 3), whole)
                found = compare_sizes(judge, photo, painting, sizes, steps=options.steps)
                row = [np.divide(found[1], found[0])]
                print(f"{name} in {style}, {sizes[0]} px: {line(found[0])}")
                print(f"{name} in {style}, {sizes[1]} px: {line(found[1])}; {line(row[0])} ×")
            else:
                scales = compare_scales(judge, photo, painting, options.steps)
                row = [np.divide(each, scales[SCALES.index(1.0)]) for each in scales]
                for scale, each in zip(SCALES, row, strict=True):
                    print(f"{name} in {style}, strokes of {scale:g}: {line(each)} ×")
            rows.append(row)
    heads = ["large over small"] if options.table == "sizes" else [f"{s:g} over 1" for s in SCALES]
    for head, column in zip(heads, np.median(rows, axis=0), strict=True):
        print(f"median of {len(rows)} pairs, {head}: {line(column)} ×")


if __name__ == "__main__":
    main()
