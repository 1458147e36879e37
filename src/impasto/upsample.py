"""The painted picture at the photo's own size: contours from the photo, strokes from the paint.

A photo of 4000 px is painted at 512 px. Enlarging the paint alone leaves every contour a ramp of
eight pixels or more; adding the photo's fine detail brings its noise and its texture, and looks
like a photo behind glass. Here no value of the photo gets into the picture. It only says, for
each pixel, *where* in the paint to look:

1. The paint is enlarged to a canvas of up to four times its size, where its strokes are smoothed
   along their direction and sharpened across it, so that they have edges instead of pixels.
2. Each pixel of the photo compares its luminance with that of the shrunken photo around it, as
   joint bilateral upsampling does (Kopf et al. 2007, §3). But the weights average *places*, not
   colours: the step of a mean shift (Comaniciu & Meer 2002, eq. 17). Where the photo is even they
   cancel out; beside a contour they point away from it, further into the pixel's own side.
3. The colour is that of the canvas at that place. So both sides of a contour meet without a ramp,
   as in warp sharpening (Arad & Gotsman 1999), and without overshoot.
4. What the result, shrunk again, lacks of the painted picture is added to the canvas (iterative
   back-projection, Irani & Peleg 1991), and hence comes with contours too. The canvas keeps to
   the range of colours nearby, else lines would appear where paint and photo differ in a contour.

Only 2 and 3 work at the photo's size, a few rows at a time; 4 does with the canvas' size.

Letters: h, w are the painted picture's size, H, W the photo's; "working px" are the former's.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from impasto.pyramid import resample, resample_picture

__all__ = ["guided_upsample"]

Size = tuple[int, int]
"""Width and height in px."""

Rows = Callable[[int, int], Tensor]
"""Gives luminance `(1, 1, end - begin, W)`, [0, 1], of the rows from begin to end."""

_STRIP = 1 << 20  # px at once; with fewer, the cores wait for each other too often
_CANVAS = 4  # canvas px per working px, at most
_PASSES = 4  # of back-projection

_REACH = 2.0  # working px: how far a pixel looks around
_RINGS, _SPOKES = 3, 8  # where it looks
_SPREAD = 1.0  # working px: σ of the spatial weight
_TOLERANCE = 0.08  # σ of the luminance weight: above film noise, below a contour's contrast

_ORIENTATION = 1.5  # working px: σ over which the strokes' direction is averaged
_LENGTH = 1.5  # working px: σ of the smoothing along the strokes
_ACROSS = 0.4  # working px: how far the sharpening looks to either side


def guided_upsample(painted: Tensor, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The painted picture at the photo's size, its contours where the photo has them.

    Shrunk to the working size again it is the painted picture but for 0.3 to 2.6 parts in 255 on
    average; more only if the paint alternates between black and white from pixel to pixel, which
    no picture in [0, 1] shrinks to. Beyond photo and result, the memory needed grows with the
    working size, not with the photo's: about 0.5 GB at 512 px.

    Args:
        painted: `(1, 3, h, w)`, float32, sRGB in [0, 1]: the photo repainted at a smaller size.
        photo: `(H, W, 3)`, sRGB. Where it is smaller than `painted` in one direction there is
            nothing to guide, and the picture is resampled plainly.

    Returns:
        `(H, W, 3)`, sRGB.
    """
    H, W = photo.shape[:2]
    h, w = painted.shape[-2:]
    painted = painted.detach().cpu().float().clamp(0, 1)
    if h > H or w > W or (h, w) == (H, W):
        return _bytes(resample_picture(painted, (W, H)))

    times = min(_CANVAS, math.ceil(max(H / h, W / w)))
    reduced = _reduced_luminance(photo, (min(W, times * w), min(H, times * h)))
    blurred = resample(resample(reduced, (w, h)), (reduced.shape[3], reduced.shape[2]))
    canvas = _canvas(painted, reduced, blurred)

    out = np.empty((H, W, 3), np.uint8)
    for top, strip in _warped(canvas, blurred, lambda a, b: _luminance(photo[a:b]), (W, H), (w, h)):
        out[top : top + strip.shape[2]] = _bytes(strip)
    return out


def _canvas(painted: Tensor, reduced: Tensor, blurred: Tensor) -> Tensor:
    """The paint that the pixels choose from: steps 1 and 4.

    Args:
        painted: `(1, 3, h, w)`.
        reduced: `(1, 1, Hc, Wc)`, the photo's luminance at the canvas' size.
        blurred: `(1, 1, Hc, Wc)`, the same by way of the working size.

    Returns:
        `(1, 3, Hc, Wc)`, [0, 1].
    """
    (h, w), (H, W) = painted.shape[-2:], reduced.shape[-2:]
    canvas = _brushed(painted, (W, H))
    low, high = (
        F.interpolate(sign * F.max_pool2d(sign * painted, 3, 1, 1), (H, W), mode="bilinear")
        for sign in (-1, 1)
    )
    for _ in range(_PASSES):
        strips = _warped(canvas, blurred, lambda a, b: reduced[:, :, a:b], (W, H), (w, h))
        result = torch.cat([strip for _, strip in strips], 2)
        canvas += resample(painted - resample(result, (w, h)), (W, H))
        canvas = torch.clamp(canvas, low, high, out=canvas)
    return canvas


def _brushed(painted: Tensor, size: Size) -> Tensor:
    """`painted` enlarged, its strokes smoothed along and sharpened across their direction.

    The direction is that of the smoothed structure tensor, and the smoothing grows with its
    anisotropy, as in Kyprianidis & Kang 2011, §3. For their shock filter stands a sharpening that
    keeps between the values on either side, as shock filters do (Osher & Rudin 1990).

    Args:
        painted: `(1, 3, h, w)`.
        size: (W, H) of the result, px.
    """
    w, h = painted.shape[-1], painted.shape[-2]
    normal, anisotropy = _orientation(painted, size)
    x = resample(painted, size)
    x += resample(painted - resample(x, (w, h)), size)  # contrast that cubic enlarging lost
    total, weights = x.clone(), 1.0
    along = normal.flip(1) * torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1) * anisotropy
    for step in (0.6, 1.2, 1.8, 2.4):  # in σ, to either side
        weight = math.exp(-(step**2) / 2)
        for sign in (-1, 1):
            total.add_(_moved(x, sign * step * _LENGTH * along, (w, h)), alpha=weight)
        weights += 2 * weight
    x = total / weights
    for _ in range(2):
        one, other = (_moved(x, sign * _ACROSS * normal, (w, h)) for sign in (-1, 1))
        low, high = torch.minimum(one, other), torch.maximum(one, other)
        x = torch.clamp(3 * x - one - other, torch.minimum(low, x), torch.maximum(high, x))
    return x


def _orientation(painted: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Across the strokes: unit vectors `(1, 2, H, W)` (x, y), and anisotropy `(1, 1, H, W)`.

    From the structure tensor of all three channels; the anisotropy is (λ₁-λ₂)/(λ₁+λ₂), [0, 1].
    """
    padded = F.pad(painted, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    tensor = torch.stack([(dx * dx).sum(1), (dx * dy).sum(1), (dy * dy).sum(1)], 1)
    radius = math.ceil(2.5 * _ORIENTATION)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * _ORIENTATION**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    tensor = F.conv2d(F.pad(tensor, (radius,) * 4, mode="replicate"), kernel, groups=3)
    tensor = F.conv2d(tensor, kernel.mT, groups=3)
    tensor = F.interpolate(tensor, (size[1], size[0]), mode="bilinear")  # keeps λ₂ ≥ 0
    xx, xy, yy = torch.split(tensor, 1, 1)
    angle = torch.atan2(2 * xy, xx - yy) / 2
    anisotropy = torch.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-4)
    return torch.cat([angle.cos(), angle.sin()], 1), anisotropy.clamp_(0, 1)


def _moved(x: Tensor, shift: Tensor, unit: Size, top: int = 0, height: int = 0) -> Tensor:
    """`x` at each pixel's place plus its shift, bilinear, edges continued.

    Args:
        x: `(1, C, Hc, Wc)`.
        shift: `(1, 2, rows, W)`, (x, y), in working px.
        unit: (w, h), the working size.
        top: the first row of `shift` in the picture.
        height: the picture's, px; 0 if `shift` is all of it.
    """
    rows, W = shift.shape[-2:]
    at_x = (torch.arange(W) + 0.5) * (2 / W) - 1
    at_y = (torch.arange(top, top + rows) + 0.5) * (2 / (height or rows)) - 1
    place_x = at_x + shift[:, 0] * (2 / unit[0])
    place_y = at_y[:, None] + shift[:, 1] * (2 / unit[1])
    grid = torch.stack([place_x, place_y], -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _warped(
    canvas: Tensor, blurred: Tensor, rows: Rows, size: Size, unit: Size
) -> Iterator[tuple[int, Tensor]]:
    """The canvas as the photo's contours bend it, strip by strip: steps 2 and 3.

    Args:
        canvas: `(1, 3, Hc, Wc)`.
        blurred: `(1, 1, Hc, Wc)`, the photo's luminance as the working size has it.
        rows: the photo's luminance.
        size: (W, H) of the photo, px.
        unit: (w, h), the working size.

    Yields:
        A strip's first row and the strip, `(1, 3, rows, W)`.
    """
    W, H = size
    scale = W / unit[0], H / unit[1]
    reach_x, reach_y = (math.ceil(_REACH * ratio) for ratio in scale)
    step = max(_STRIP // W, reach_y)
    for top in range(0, H, step):
        end = min(H, top + step)
        above, below = min(1, top), min(1, H - end)
        sharp = rows(top - above, end + below)
        sharp = _smoothed(F.pad(sharp, (1, 1, 1 - above, 1 - below), mode="replicate"))
        around = _rows_of(blurred, top - reach_y, end + reach_y, size)
        around = F.pad(around, (reach_x, reach_x, 0, 0), mode="replicate")
        yield top, _moved(canvas, _shift(sharp, around, scale), unit, top, H)


def _shift(sharp: Tensor, around: Tensor, scale: tuple[float, float]) -> Tensor:
    """Where the bilateral weights have their centre, `(1, 2, rows, W)`, (x, y), working px.

    Args:
        sharp: `(1, 1, rows, W)`, the photo's luminance.
        around: `(1, 1, rows + 2·margin, W + 2·margin)`, the blurred one, a margin on every side.
        scale: px per working px, (x, y).
    """
    rows, W = sharp.shape[-2:]
    margin_y, margin_x = (around.shape[-2] - rows) // 2, (around.shape[-1] - W) // 2
    total = torch.full_like(sharp, 1e-3)  # where the photo is like nothing around: stay
    shift = sharp.new_zeros((1, 2, rows, W))
    for ring in range(1, _RINGS + 1):
        radius = _REACH * ring / _RINGS
        spatial = radius * math.exp(-(radius**2) / (2 * _SPREAD**2))  # a ring stands for its area
        for spoke in range(_SPOKES):
            x = radius * math.cos(math.tau * spoke / _SPOKES)
            y = radius * math.sin(math.tau * spoke / _SPOKES)
            left, up = margin_x + round(x * scale[0]), margin_y + round(y * scale[1])
            weight = around[..., up : up + rows, left : left + W] - sharp
            weight.square_().mul_(-0.5 / _TOLERANCE**2).exp_().mul_(spatial)
            total += weight
            shift[:, :1].add_(weight, alpha=x)
            shift[:, 1:].add_(weight, alpha=y)
    return shift.div_(total)


def _smoothed(x: Tensor) -> Tensor:
    """`x` by (1, 2, 1)/4 in both directions, one px less on every side: against noise."""
    x = (x[..., :-2] + x[..., 2:]).add_(x[..., 1:-1], alpha=2)
    return (x[..., :-2, :] + x[..., 2:, :]).add_(x[..., 1:-1, :], alpha=2).div_(16)


def _rows_of(x: Tensor, begin: int, end: int, size: Size) -> Tensor:
    """Rows of `x` as if enlarged to `size`, bilinear; beyond its edges the nearest row.

    Args:
        x: `(1, 1, Hc, Wc)`.
        begin: the first row of `size`, may be negative.
        end: the row after the last, may be beyond.
        size: (W, H), px.
    """
    W, H = size
    last = x.shape[2] - 1
    place = ((torch.arange(begin, end) + 0.5) * (x.shape[2] / H) - 0.5).clamp_(0, last)
    upper = place.floor().long()
    first, final = int(upper[0]), min(int(upper[-1]) + 1, last)
    few = x[:, :, first : final + 1]
    few = F.interpolate(few, (few.shape[2], W), mode="bilinear", align_corners=False)
    upper -= first
    lower = (upper + 1).clamp_(max=final - first)
    return torch.lerp(few[:, :, upper], few[:, :, lower], (place - place.floor())[:, None])


def _reduced_luminance(photo: NDArray[np.uint8], size: Size) -> Tensor:
    """The photo's luminance at a smaller size, `(1, 1, h, w)`: first each strip's width."""
    H, W = photo.shape[:2]
    narrow = torch.empty((1, 1, H, size[0]))
    step = max(1, _STRIP // W)
    for top in range(0, H, step):
        strip = _luminance(photo[top : top + step])
        narrow[:, :, top : top + step] = resample(strip, (size[0], strip.shape[2]))
    return resample(narrow, size)


def _luminance(photo: NDArray[np.uint8]) -> Tensor:
    """Luma (Rec. 601) of `(H, W, 3)` as `(1, 1, H, W)`, [0, 1]."""
    weights = torch.tensor([0.299, 0.587, 0.114]) / 255
    return (torch.tensor(photo, dtype=torch.float32) @ weights)[None, None]


def _bytes(x: Tensor) -> NDArray[np.uint8]:
    """`(1, 3, H, W)` in [0, 1] as `(H, W, 3)`, 8 bit."""
    levels = x[0].clamp(0, 1).mul_(255).round_().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())
