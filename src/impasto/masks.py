"""Masks, as pictures: what is light in them is meant."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from impasto.errors import SettingsError
from impasto.images import Picture
from impasto.pyramid import Size

__all__ = ["mask_of", "protected", "region_masks", "size_note"]

Pixels = NDArray[np.uint8]

FEATHER: Final = 0.01
"""How wide the soft edge around what is protected is, as a share of the long side."""

FINEST: Final = 1024
"""Long side at which soft edges are made, px."""

LIKE: Final = 60.0
"""Colours of a map that differ by less are the same, in levels of 255 (Euclidean)."""

SMALL: Final = 0.005
"""A colour on less of a map than this may be the edge between two others, and no region."""

EDGE: Final = 8.0
"""How far from the straight line between two colours that of their edge may be, levels of 255."""

FLAT: Final = 32
"""A map of no more colours than this is drawn in exactly these: none is noise, as in a JPEG."""


def mask_of(drawing: Picture) -> Tensor:
    """How much every pixel is meant: its luma (ITU-R BT.601); what is transparent is not.

    Returns:
        `(1, 1, H, W)`, float32, 0 to 1.

    Raises:
        SettingsError: nothing is.
    """
    light = np.array(Image.fromarray(drawing.pixels).convert("L"), np.float32)
    if drawing.alpha is not None:
        light *= drawing.alpha.astype(np.float32) / 255
    if light.max() < 1:
        raise SettingsError(f"{_name(drawing, 'mask')} is empty: what it means has to be white")
    return torch.from_numpy(light / 255)[None, None]


def size_note(drawing: Picture, of: Size, what: str = "the photo") -> str | None:
    """A warning where a mask or map has not the shape, (W, H), of what it belongs to."""
    if drawing.size == of:
        return None
    (w, h), (W, H) = drawing.size, of
    skewed = abs(w * H - W * h) > 0.01 * w * H
    how = "resized, its sides by different factors" if skewed else "resized"
    return f"warning: {_name(drawing, 'mask')} has {w}×{h} px, {what} {W}×{H}: {how}"


def protected(mask: Tensor, size: Size) -> NDArray[np.uint8]:
    """A mask with a soft edge on its outside; what is white in it stays so.

    Args:
        mask: `(1, 1, h, w)`, 0 to 1.
        size: (W, H), px.

    Returns:
        (H, W), 255 for what is protected.
    """
    scale = min(1.0, FINEST / max(size))
    W, H = (max(1, round(side * scale)) for side in size)
    small = F.adaptive_max_pool2d(mask, (H, W))
    width = max(1, round(FEATHER * max(W, H)))
    more = width + 1  # what is enlarged below takes one back
    grown = F.max_pool2d(small, 2 * more + 1, 1, more)
    padded = F.pad(grown, (width,) * 4, mode="replicate")
    soft = F.avg_pool2d(padded, 2 * width + 1, 1).clamp_(0, 1)
    levels = soft[0, 0].mul(255).round().to(torch.uint8).numpy()
    return np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BILINEAR))


def region_masks(
    photo: Picture | None, styles: Sequence[Picture | None]
) -> list[tuple[Tensor, list[Tensor | None]]]:
    """The regions of colour-coded maps: a colour means the same in the photo's and in a style's.

    Args:
        photo: the photo's map.
        styles: those of the styles.

    Returns:
        For each colour of the photo's map: its mask, and for each style its mask there, or None
        where that has no such colour. All `(1, 1, H, W)`, 0 or 1, of their map's size.

    Raises:
        SettingsError: a map is missing, or a colour of the photo's map is in none of a style.
    """
    if photo is None:
        raise SettingsError("a style has a map of regions and the photo has none; give --regions")
    if any(style is None for style in styles):
        raise SettingsError("the photo has a map of regions; give --style-regions for every style")
    colors = _main_colors(photo)
    if not colors:
        raise SettingsError(
            f"{_name(photo, 'the map')} is no map: paint every part of it in one flat colour"
        )
    own = _sorted_by(photo, colors, strict=False)
    theirs = [_sorted_by(style, colors, strict=True) for style in styles if style is not None]
    regions = []
    for i, color in enumerate(colors):
        covered = [float((places == i).mean()) for places in theirs]
        least = SMALL if max(covered) > SMALL else 0.0
        where = [
            _mask(places == i) if share > least else None
            for places, share in zip(theirs, covered, strict=True)
        ]
        if not any(mask is not None for mask in where):
            told = "#" + "".join(f"{level:02x}" for level in color)
            raise SettingsError(
                f"{_name(photo, 'the map')} has the colour {told}, and no style's map has it; "
                "paint it into one of them"
            )
        regions.append((_mask(own == i), where))
    return regions


def _main_colors(drawing: Picture) -> list[tuple[int, int, int]]:
    """The colours of a map, the most frequent first; not those of edges."""
    flat = drawing.over_white().pixels.reshape(-1, 3)
    exact, areas = np.unique(flat, axis=0, return_counts=True)
    if len(exact) <= FLAT:
        return _flat_colors(exact[np.argsort(-areas, kind="stable")], np.sort(areas)[::-1])
    bins, members, counts = np.unique(flat // 8, axis=0, return_inverse=True, return_counts=True)
    members = members.ravel()
    found: list[tuple[int, int, int]] = []
    for number in np.argsort(-counts, kind="stable")[:4096]:
        if counts[number] < SMALL * len(flat):
            break
        r, g, b = np.median(flat[members == number], axis=0).astype(int).tolist()
        if all(np.linalg.norm(np.subtract((r, g, b), other)) > LIKE for other in found):
            found.append((r, g, b))
    del bins
    return found


def _flat_colors(colors: Pixels, areas: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Those of a map without noise, `(n, 3)`: all but small ones that lie between two others."""
    found: list[tuple[int, int, int]] = []
    for color, area in zip(colors.astype(int), areas, strict=True):
        if area >= SMALL * areas.sum() or not any(
            _between(color, np.array(a), np.array(b))
            for i, a in enumerate(found)
            for b in found[:i]
        ):
            r, g, b = color.tolist()
            found.append((r, g, b))
    return found


def _between(color: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64]) -> bool:
    """Whether a colour is a mixture of two others, about."""
    t = float((color - a) @ (b - a)) / float((b - a) @ (b - a))
    return 0 < t < 1 and bool(np.linalg.norm(a + t * (b - a) - color) < EDGE)


def _sorted_by(
    drawing: Picture, colors: Sequence[tuple[int, int, int]], *, strict: bool
) -> NDArray[np.int64]:
    """Which of these colours each pixel has, (H, W).

    Args:
        drawing: the map.
        colors: what to look for.
        strict: whether a colour that is like none of them is none, -1, or the nearest.
    """
    pixels = drawing.over_white().pixels.astype(np.float32)
    nearest = np.full(pixels.shape[:2], -1)
    least = np.full(pixels.shape[:2], LIKE if strict else np.inf, np.float32)
    for i, color in enumerate(colors):
        distance = np.linalg.norm(pixels - np.array(color, np.float32), axis=2)
        closer = distance < least
        nearest[closer], least[closer] = i, distance[closer]
    return nearest


def _mask(where: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(where.astype(np.float32))[None, None]


def _name(drawing: Picture, what: str) -> str:
    return drawing.source or what
