"""Which rectangles a photo is painted in, and how much around them has to be seen."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from impasto.fast.network import STRIDE

__all__ = ["HALO", "Tile", "area", "cut", "tiles"]

HALO: Final = 96
"""How far a look sees, px of its own, rounded up to a multiple of `STRIDE`."""


@dataclass(frozen=True)
class Tile:
    """A rectangle of the photo, and what has to be looked at to paint it, px.

    Attributes:
        top, left, bottom, right: what is painted; inside of the photo.
        seen: top, left, bottom, right of what is read; multiples of the stride from the photo's
            corner, and maybe beyond its right and bottom border.
    """

    top: int
    left: int
    bottom: int
    right: int
    seen: tuple[int, int, int, int]


def tiles(height: int, width: int, side: int | None, stride: int = STRIDE) -> Iterator[Tile]:
    """The tiles of a photo, row by row.

    Args:
        height: of the photo, px.
        width: likewise.
        side: of a tile without its halo, px, a multiple of the stride; None for one tile.
        stride: what sides and corners of what is seen are multiples of, px.
    """
    whole = [-(-n // stride) * stride for n in (height, width)]
    rows, columns = (n if side is None else side for n in whole)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            bottom, right = min(top + rows, height), min(left + columns, width)
            seen = (
                max(0, top - HALO),
                max(0, left - HALO),
                min(whole[0], top + rows + HALO),
                min(whole[1], left + columns + HALO),
            )
            yield Tile(top, left, bottom, right, seen)


def area(tile: Tile) -> int:
    """How many pixels are seen for a tile."""
    top, left, bottom, right = tile.seen
    return (bottom - top) * (right - left)


def cut(x: Tensor, tile: Tile) -> Tensor:
    """A tile of what was seen for it."""
    top, left = tile.seen[:2]
    return x[..., tile.top - top : tile.bottom - top, tile.left - left : tile.right - left]
