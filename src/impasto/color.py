"""Whose colours: the photo's in the style's paint, or one picture's by another's example.

All of it happens in OKLab (Ottosson 2020, "A perceptual color space for image processing"):
lightness L, 0 for black and 1 for white, and chroma along two axes, a from green to red and b from
blue to yellow, within ±0.33 for sRGB. Equal distances look about equally different, and a colour
can lose chroma without changing its lightness or its hue.

- *Luminance transfer* (Gatys et al. 2017, section 5): the lightness is painted, the chroma is the
  photo's. `luminance` and `luminance_recoloring` make the grey pictures that are painted from,
  `with_chroma_of` and `keep_chroma` put the chroma back.
- *Recolouring*: a map of colours that gives one picture the colours of another, fitted on both
  (`linear_recoloring`, `histogram_recoloring`), applied to any picture (`recolor`).

What sRGB cannot show loses chroma (`into_gamut`); clipped channels would change hue and lightness.

Sums are float64 even of float32 pictures: else the dark channel of a strong colour comes back from
OKLab wrong by 2e-5, so by 1e-6. (MPS has no float64; move pictures to the CPU.)
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "MAX_GAIN",
    "Recoloring",
    "from_oklab",
    "histogram_recoloring",
    "into_gamut",
    "keep_chroma",
    "linear_recoloring",
    "luminance",
    "luminance_recoloring",
    "recolor",
    "to_oklab",
    "to_srgb",
    "with_chroma_of",
]

Recoloring = Callable[[Tensor], Tensor]
"""A map of colours: OKLab `(N, 3, H, W)` to the same, which may leave the gamut (`to_srgb`)."""

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.float64]

MAX_GAIN = 4.0
"""How many times a difference of colours may grow. A photo that is nearly grey, or a smooth sky,
would otherwise get its noise and its 8-bit steps in all the colours of the example; it stays
calmer instead. At 8, both show."""

# Linear sRGB to the responses of cones, and their cube roots to L, a, b: Ottosson 2020, "Converting
# from linear sRGB to Oklab", the figures of 2021-01-25.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_CONES_BACK, _LAB_BACK = np.linalg.inv(_CONES), np.linalg.inv(_LAB)

_LOW, _HIGH = -5e-7, 1 + 1e-6  # linear sRGB that counts as within [0, 1], float32 being no better
_HALVINGS = 12  # of the chroma that is sought: 1/40 level in 8 bit are left

_BLOCK = 1 << 17  # px of a large picture that are worked on at a time, in 50 MB at most
_SAMPLE = 1 << 20  # px that a map is fitted on, at most
_GRAIN = 3e-4  # σ in L, a and b of a grain that every picture is taken to have: far below 8 bit
_BINS = 8192  # of histograms, per unit of L, a and b: some 20 per level in 8 bit


def to_oklab(x: Tensor) -> Tensor:
    """From sRGB to OKLab; the transfer function is that of IEC 61966-2-1.

    Args:
        x: `(N, 3, ...)`, float32 or float64, sRGB in [0, 1].

    Returns:
        The same shape and type: L in [0, 1], a, b. Of a grey, |a| and |b| are below 1e-7.
    """
    linear = torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    cones = _mixed(_CONES, linear.double())
    return _mixed(_LAB, torch.copysign(cones.abs().pow_(1 / 3), cones)).to(x.dtype)


def from_oklab(lab: Tensor) -> Tensor:
    """From OKLab to sRGB: the inverse of `to_oklab`, to 1e-6 in float32. Nothing is clamped.

    Args:
        lab: `(N, 3, ...)`, float32 or float64.

    Returns:
        The same shape and type; outside [0, 1] where sRGB does not have the colour.
    """
    return _encoded(_linear(lab))


def _linear(lab: Tensor) -> Tensor:
    """Linear sRGB."""
    return _mixed(_CONES_BACK, _mixed(_LAB_BACK, lab.double()) ** 3).to(lab.dtype)


def _encoded(linear: Tensor) -> Tensor:
    """Linear sRGB as sRGB; below 0 the transfer function goes on as a straight line."""
    curve = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, curve)


def _mixed(matrix: Numbers, x: Tensor) -> Tensor:
    """`matrix` times every colour of `(N, 3, ...)`, pixel by pixel alike whatever their number."""
    one, two, three = x.unbind(1)
    return torch.stack([p * one + q * two + r * three for p, q, r in matrix.tolist()], 1)


def into_gamut(lab: Tensor) -> Tensor:
    """Colours that sRGB has, and for the others those of the same lightness and hue.

    Chroma is reduced just until the colour fits, by bisection. Lightness outside [0, 1] becomes
    black or white. What fits already, to 1e-5 of sRGB, stays as it is, bit by bit.

    Args:
        lab: OKLab, `(N, 3, ...)`.

    Returns:
        The same shape and type.
    """

    def fits(lab: Tensor) -> Tensor:
        linear = _linear(lab)
        return ((linear >= _LOW) & (linear <= _HIGH)).all(1)

    outside = ~fits(lab)
    if not bool(outside.any()):
        return lab
    planes = lab.movedim(1, 0).clone()  # (3, N, ...)
    L, chroma = torch.split(planes[:, outside][None], [1, 2], 1)
    L, kept, half = L.clamp(0, 1), torch.zeros_like(L), 0.5
    for _ in range(_HALVINGS):
        kept += half * fits(torch.cat([L, (kept + half) * chroma], 1))[:, None]
        half /= 2
    planes[:, outside] = torch.cat([L, kept * chroma], 1)[0]
    return planes.movedim(0, 1).contiguous()


def to_srgb(lab: Tensor) -> Tensor:
    """From OKLab to sRGB by way of `into_gamut`: `(N, 3, ...)`, [0, 1]."""
    return from_oklab(into_gamut(lab)).clamp_(0, 1)


def with_chroma_of(painted: Tensor, photo: Tensor) -> Tensor:
    """The lightness of one picture with the chroma of another: Gatys et al. 2017, section 5.1.

    They do so in YIQ. Here hue is kept everywhere, and chroma wherever sRGB has so much of
    it at that lightness.

    Args:
        painted: `(N, 3, H, W)`, sRGB in [0, 1].
        photo: the same shape.

    Returns:
        The same shape, sRGB in [0, 1].
    """
    return to_srgb(torch.cat([to_oklab(painted)[:, :1], to_oklab(photo)[:, 1:]], 1))


def keep_chroma(painted: Bytes, photo: Bytes) -> Bytes:
    """As `with_chroma_of`, for 8-bit pictures of any size: a large one takes no float copy.

    Chroma is then kept to the rounding, which is below 1/255, but near black up to 5/255.

    Args:
        painted: `(H, W, 3)`, sRGB.
        photo: the same shape.

    Returns:
        The same shape; `photo` itself, byte by byte, if both are equal.

    Raises:
        ValueError: The pictures differ in size.
    """
    if painted.shape != photo.shape:
        raise ValueError(f"pictures of one size, not of {painted.shape} and {photo.shape}")
    return _in_blocks(with_chroma_of, painted, photo)


def luminance(x: Tensor) -> Tensor:
    """The grey picture with the OKLab lightness of `x`.

    Args:
        x: `(N, 3, H, W)`, sRGB in [0, 1].

    Returns:
        The same shape, sRGB in [0, 1], three equal channels.
    """
    return _grey(to_oklab(x)[:, :1])


def _grey(L: Tensor) -> Tensor:
    """Greys of that lightness, `(N, 1, H, W)` to `(N, 3, H, W)`: all cones respond with L³."""
    return torch.cat([_encoded(L.clamp(0, 1) ** 3).clamp_(0, 1)] * 3, 1)


def luminance_recoloring(source: Bytes, target: Bytes) -> Recoloring:
    """Grey, with the mean and the standard deviation of the target's lightness.

    L ← σ_target/σ_source · (L − μ_source) + μ_target: Hertzmann et al. 2001, section 3.4; Gatys et
    al. 2017, section 5.1. The quotient is at most `MAX_GAIN`; a flat picture gets the mean alone.

    Args:
        source: `(H, W, 3)`, sRGB.
        target: `(h, w, 3)`, sRGB.
    """
    (L, *_), (aim, *_) = _sample(source), _sample(target)
    mean, wanted = L.mean(), aim.mean()
    gain = min(MAX_GAIN, np.sqrt((aim.var() + _GRAIN**2) / (L.var() + _GRAIN**2)))

    def recoloring(lab: Tensor) -> Tensor:
        light = ((lab[:, :1] - mean) * gain + wanted).clamp_(0, 1)
        return F.pad(light, (0, 0) * (lab.ndim - 2) + (0, 2))

    return recoloring


def linear_recoloring(source: Bytes, target: Bytes) -> Recoloring:
    """The affine map that gives `source` the mean and the covariance of `target` in OKLab.

    Of all such maps the one that moves colours least, x ← T(x − μs) + μt with
    T = Σs^-½ (Σs^½ Σt Σs^½)^½ Σs^-½ (Pitié & Kokaram 2007, "The linear Monge-Kantorovitch linear
    colour mapping for example-based colour transfer"). Both pictures are taken to have a grain that
    is too fine to be seen: so T is there for grey and flat ones too, and the identity for equal
    ones. Along each of its axes T stretches at most by `MAX_GAIN`; where that is enough, the
    covariance is the target's to 2e-6.

    Args:
        source: `(H, W, 3)`, sRGB. Of pictures above a megapixel, 2²⁰ px that are evenly spaced in
            reading order count, here and in `target`.
        target: `(h, w, 3)`, sRGB.
    """
    (mean, S), (wanted, aim) = (_moments(_sample(picture)) for picture in (source, target))
    half, back = _power(S, 0.5), _power(S, -0.5)
    gains, axes = np.linalg.eigh(back @ _power(half @ aim @ half, 0.5) @ back)
    T = (axes * np.minimum(gains, MAX_GAIN)) @ axes.T
    offset = torch.from_numpy(wanted - T @ mean).view(3, 1, 1)
    return lambda lab: _mixed(T, lab) + offset.to(lab)


def _moments(colors: Numbers) -> tuple[Numbers, Numbers]:
    """Mean `(3,)` and covariance `(3, 3)` of `(3, n)`, with grain."""
    mean = colors.mean(1)
    centred = colors - mean[:, None]
    return mean, centred @ centred.T / colors.shape[1] + _GRAIN**2 * np.eye(3)


def _power(matrix: Numbers, exponent: float) -> Numbers:
    """A symmetric matrix without negative eigenvalues to the power ±½."""
    values, axes = np.linalg.eigh(matrix)
    power: Numbers = (axes * np.maximum(values, 1e-30) ** exponent) @ axes.T
    return power


def histogram_recoloring(source: Bytes, target: Bytes) -> Recoloring:
    """The map that gives L, a and b of `source` the distributions that they have in `target`.

    Each channel by a curve of its own, the exact one (quantile to quantile; equal values share
    their middle rank), except where it would rise more steeply than `MAX_GAIN`: of the curves that
    do not, it is the one nearest to it, moved to give the target's mean. Rotating the axes again
    and again matches the joint distribution as well (Pitié et al. 2007, "Automated colour grading
    using colour distribution transfer"), but draws contours into skies and faces.

    Args:
        source: `(H, W, 3)`, sRGB. Of pictures above a megapixel, 2²⁰ px that are evenly spaced in
            reading order count, here and in `target`.
        target: `(h, w, 3)`, sRGB.
    """
    curves = [_curve(s, t) for s, t in zip(_sample(source), _sample(target), strict=True)]

    def recoloring(lab: Tensor) -> Tensor:
        channels = zip(lab.unbind(1), curves, strict=True)
        return torch.stack([_along(x, *curve) for x, curve in channels], 1)

    return recoloring


def _curve(source: Numbers, target: Numbers) -> tuple[int, Tensor]:
    """Where the values of `source` go: the first bin, and the places of it and of all that follow.

    In bins, float64; there is one more at either end, from where the curve goes on 1 to 1.
    """
    (x, weights, p), (y, others, q) = (_distribution(values) for values in (source, target))
    steep = np.interp(p, q, y) - MAX_GAIN * x
    # Of the curves that rise at most so steeply, the greatest from below and the least from above.
    below, above = np.minimum.accumulate(steep), np.maximum.accumulate(steep[::-1])[::-1]
    places = MAX_GAIN * x + (below + above) / 2
    places += others @ y - weights @ places
    bins = np.arange(x[0] - 1, x[-1] + 2)
    curve = np.interp(bins, x, places)
    curve[[0, -1]] += -1, 1
    return int(bins[0]), torch.from_numpy(curve)


def _distribution(values: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The bins that occur, rising; the share of each; its middle rank, in [0, 1]."""
    bins, counts = np.unique(np.rint(values * _BINS), return_counts=True)
    shares = counts / values.size
    return bins, shares, np.cumsum(shares) - shares / 2


def _along(x: Tensor, first: int, curve: Tensor) -> Tensor:
    """The values of a curve, straight from bin to bin."""
    places, steps = curve.to(x), curve.diff().to(x)
    x = x * _BINS - first
    i = x.long().clamp_(0, len(steps) - 1)
    return (places[i] + steps[i] * (x - i)) / _BINS


def recolor(picture: Bytes, recoloring: Recoloring) -> Bytes:
    """A picture in other colours, those that sRGB lacks brought `into_gamut`.

    Args:
        picture: `(H, W, 3)`, sRGB, of any size: a large one takes no float copy.
        recoloring: what `linear_recoloring` or another of them gave, fitted on this picture
            or on another.

    Returns:
        The same shape, rounded to the nearest level.
    """
    return _in_blocks(lambda x: to_srgb(recoloring(to_oklab(x))), picture)


def _sample(picture: Bytes) -> Numbers:
    """The OKLab colours of a picture, `(3, n)`; of a large one, those of evenly spaced pixels."""
    H, W = picture.shape[:2]
    n = min(H * W, _SAMPLE)
    places = np.arange(n, dtype=np.int64) * (H * W) // n
    colors = to_oklab(_tensor(picture[places // W, places % W][None]))
    return colors.flatten(2)[0].double().numpy()


def _in_blocks(work: Callable[..., Tensor], *pictures: Bytes) -> Bytes:
    """What `work` makes of pictures of one size, a block at a time."""
    H, W = pictures[0].shape[:2]
    result = np.empty((H, W, 3), np.uint8)
    rows = max(1, _BLOCK // W)
    for top in range(0, H, rows):
        for left in range(0, W, _BLOCK):
            here = np.s_[top : top + rows, left : left + _BLOCK]
            levels = work(*(_tensor(picture[here]) for picture in pictures)).mul_(255).round_()
            result[here] = levels[0].permute(1, 2, 0).to(torch.uint8).numpy()
    return result


def _tensor(pixels: Bytes) -> Tensor:
    """`(H, W, 3)` as `(1, 3, H, W)`, float32 in [0, 1]."""
    planes = np.array(pixels.transpose(2, 0, 1), order="C")
    return torch.from_numpy(planes)[None].float().div_(255)
