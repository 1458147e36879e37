"""What a draft changes of a photo, kept from one pass over its tiles to the next."""

from typing import Final

import torch
from torch import Tensor

from impasto.fast.decoder import doubled
from impasto.fast.tiles import Tile

__all__ = ["Draft"]

FINE: Final = 8192
"""Of how many parts of the range a draft's change is kept as a number of 16 bits, for a photo in
tiles: half the bytes of float32, and 0.02 of an 8-bit level."""

MOST: Final = 3 * FINE
"""The largest such number: what a draft changes by more than 3 is cut off."""


class Draft:
    """What a draft changes of the recoloured photo, at half the size; see `FINE`.

    Args:
        height: of the draft, px.
        width: likewise.
        exact: whether to keep it in float32, as it is.
    """

    def __init__(self, height: int, width: int, *, exact: bool) -> None:
        self._change = torch.empty(
            (1, 3, height, width), dtype=torch.float32 if exact else torch.int16
        )

    def put(self, tile: Tile, change: Tensor) -> None:
        """Keeps the change in a tile."""
        if self._change.dtype == torch.int16:
            change = (change * FINE).round().clamp(-MOST, MOST)
        self._change[..., tile.top : tile.bottom, tile.left : tile.right] = change

    def at(self, seen: tuple[int, int, int, int], device: torch.device) -> Tensor:
        """The change in this part, at its own size: `Tile.seen`."""
        top, left, bottom, right = seen
        part = self._change[..., top:bottom, left:right].to(device)
        return part.float() / FINE if part.dtype == torch.int16 else part

    def enlarged(self, seen: tuple[int, int, int, int], device: torch.device) -> Tensor:
        """The change in this part of the photo, at its full size: `Tile.seen`."""
        top, left, bottom, right = (edge // 2 for edge in seen)
        above, before = min(top, 1), min(left, 1)  # neighbours, between which is interpolated
        whole = doubled(self.at((top - above, left - before, bottom + 1, right + 1), device))
        rows, columns = slice(2 * above, 2 * (above + bottom - top)), 2 * before
        return whole[..., rows, columns : columns + 2 * (right - left)]
