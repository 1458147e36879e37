"""Sizes, and how pictures travel between them."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.images import Picture

__all__ = [
    "COARSEST",
    "SHORT_SIDE",
    "Size",
    "cover",
    "divide_steps",
    "noise",
    "resample",
    "resample_picture",
    "scale_sizes",
    "shrink",
    "working_size",
]

COARSEST = 128
"""About the long side, in px, of the coarsest scale when their number is left open."""

SHORT_SIDE = 32
"""The smallest short side, in px, that is worked at: two positions of `relu5_1`."""

Size = tuple[int, int]
"""Width and height in px."""


def working_size(photo: Size, size: int | None) -> Size:
    """The size at which a photo is worked on.

    The long side becomes `size`, a smaller photo stays as it is. Scrolls and strips get more, so
    that their short side has at least `SHORT_SIDE` px; what is thinner than that to begin with is
    widened, and never do these have more than `size`² pixels.

    Args:
        photo: (W, H) of the photo, px.
        size: the long side asked for, px; None for the photo's own size.

    Returns:
        (W, H), px.
    """
    long, short = max(photo), min(photo)
    scale = 1.0 if size is None else min(1.0, max(size / long, SHORT_SIDE / short))
    w, h = (max(SHORT_SIDE, round(side * scale)) for side in photo)
    if size is not None and w * h > max(size, SHORT_SIDE) ** 2:
        limit = max(size, SHORT_SIDE) ** 2 // SHORT_SIDE
        w, h = (min(w, limit), h) if w >= h else (w, min(h, limit))
    return w, h


def scale_sizes(finest: Size, scales: int) -> list[Size]:
    """The sizes from coarse to fine, halving; fewer than `scales` where the short side forbids.

    Args:
        finest: (W, H) of the last one, px.
        scales: how many at most; 0 for as many as bring the long side to about `COARSEST`, so
            that a small and a large picture begin alike.
    """
    scales = scales or 1 + max(0, round(math.log2(max(finest) / COARSEST)))
    sizes = [finest]
    while len(sizes) < scales and min(finest) / 2 ** len(sizes) >= SHORT_SIDE:
        w, h = (round(side / 2 ** len(sizes)) for side in finest)
        sizes.insert(0, (w, h))
    return sizes


def divide_steps(steps: int, shares: Sequence[float]) -> list[int]:
    """`steps` divided as `shares` ask, at least one each where there are enough, none lost."""
    total = sum(shares)
    ends = [round(steps * sum(shares[: i + 1]) / total) for i in range(len(shares))]
    parts = [end - begin for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    for i, part in enumerate(parts):
        if part == 0 and max(parts) > 1:
            parts[parts.index(max(parts))] -= 1
            parts[i] = 1
    return parts


def resample(x: Tensor, size: Size) -> Tensor:
    """`x` at another size, antialiased bicubic; the same tensor if it has that size.

    Args:
        x: `(N, C, h, w)`, any range (values may overshoot by a few percent at edges).
        size: (W, H), px.

    Returns:
        `(N, C, H, W)`.
    """
    W, H = size
    if x.shape[-2:] == (H, W):
        return x
    return F.interpolate(x, (H, W), mode="bicubic", antialias=True, align_corners=False)


def resample_picture(x: Tensor, size: Size) -> Tensor:
    """As `resample`, for pictures: kept within [0, 1]."""
    resampled = resample(x, size)
    return resampled if resampled is x else resampled.clamp_(0, 1)


def shrink(picture: Picture, size: Size) -> Tensor:
    """A picture at its working size, `(1, 3, H, W)`; without a float copy of a huge original."""
    pixels = torch.tensor(picture.pixels).permute(2, 0, 1)[None]  # (1, 3, H, W), uint8
    return resample(pixels, size).float().div_(255).contiguous()


def cover(x: Tensor, size: Size) -> Tensor:
    """The middle of a picture, cut to the shape of `size` and resampled to it."""
    W, H = size
    h, w = x.shape[-2:]
    scale = min(w / W, h / H)
    cut_w, cut_h = max(1, round(W * scale)), max(1, round(H * scale))
    left, top = (w - cut_w) // 2, (h - cut_h) // 2
    return resample_picture(x[..., top : top + cut_h, left : left + cut_w], size)


def noise(size: Size, generator: torch.Generator) -> Tensor:
    """A picture of uniform noise in [0, 1], `(1, 3, H, W)`, drawn on the CPU from `generator`."""
    W, H = size
    return torch.rand((1, 3, H, W), generator=generator)
