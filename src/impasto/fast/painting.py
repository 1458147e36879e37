"""Painting a photo of any size: what depends on all of it first, then tile by tile.

What a pixel becomes depends on its neighbourhood, and on the whole photo only through statistics:
of its colours, and of its features at three depths. So a photo is gone through two or three times,
each time in tiles with a halo as wide as the network sees, and the result is that of one tile as
large as the photo, but for rounding. Statistics of tiles are put together as Chan, Golub & LeVeque
(1979, eqs. 1.5) put together those of samples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.fast.network import DEPTHS, STRIDE, FastNetwork, StyleCode, apply, blurred
from impasto.fast.statistics import Statistics, recolor_matrix, statistics, transfer_matrix

__all__ = ["HALO", "Part", "Tile", "paint", "tiles"]

HALO: Final = 96
"""How far the network sees, px, rounded up to a multiple of `STRIDE`."""

Read = Callable[[int, int, int, int], Tensor]
"""Gives the pixels of rows top to bottom and columns left to right: `(1, 3, h, w)`."""

Write = Callable[[int, int, Tensor], None]
"""Takes what was painted, `(1, 3, h, w)`, its first pixel at this row and column."""


@dataclass(frozen=True)
class Part:
    """A style, and where it holds.

    Attributes:
        style: as `FastNetwork.style` gives it.
        mask: how much, `(1, 1, H, W)` of the photo's size, 0 to 1; None for everywhere.
    """

    style: StyleCode
    mask: Tensor | None = None


@dataclass(frozen=True)
class Tile:
    """A rectangle of the photo, and what has to be looked at to paint it, px.

    Attributes:
        top, left, bottom, right: what is painted; inside of the photo.
        seen: top, left, bottom, right of what is read; multiples of `STRIDE` from the photo's
            corner, and maybe beyond its right and bottom border.
    """

    top: int
    left: int
    bottom: int
    right: int
    seen: tuple[int, int, int, int]


def tiles(height: int, width: int, side: int | None) -> Iterator[Tile]:
    """The tiles of a photo, row by row.

    Args:
        height: of the photo, px.
        width: likewise.
        side: of a tile without its halo, px, a multiple of `STRIDE`; None for one tile.
    """
    whole = [-(-n // STRIDE) * STRIDE for n in (height, width)]
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


class _Sums:
    """Statistics of tiles that are put together."""

    def __init__(self) -> None:
        self.count = 0.0
        self.mean = torch.zeros((), dtype=torch.float64)
        self.spread = torch.zeros((), dtype=torch.float64)  # count times covariance

    def add(self, part: Statistics, count: float) -> None:
        """Takes in the statistics of so many positions."""
        if count <= 0:
            return
        total = self.count + count
        step = part.mean.double() - self.mean
        outer = step[:, :, None] * step[:, None]
        self.spread = (
            self.spread + part.covariance.double() * count + outer * (self.count * count / total)
        )
        self.mean = self.mean + step * (count / total)
        self.count = total

    def statistics(self) -> Statistics:
        """Of all that came in."""
        return Statistics(self.mean.float(), (self.spread / self.count).float())


@dataclass(frozen=True)
class _View:
    """What is read for one tile.

    Attributes:
        pixels: `(1, 3, h, w)` of `Tile.seen`, the photo's border repeated beyond it.
        inside: 1 where the tile itself is, 0 in its halo and beyond the photo, `(1, 1, h, w)`.
        masks: of the parts, `(1, 1, h, w)` or None.
    """

    pixels: Tensor
    inside: Tensor
    masks: list[Tensor | None]


@dataclass(frozen=True)
class _Seen:
    """A tile in the styles' colours, and its features."""

    view: _View
    base: Tensor
    features: Mapping[str, Tensor]


class _Work:
    """One photo being painted; see `paint`."""

    def __init__(
        self,
        net: FastNetwork,
        read: Read,
        size: tuple[int, int],
        parts: Sequence[Part],
        amount: float,
        side: int | None,
    ) -> None:
        self.net, self.read, self.parts, self.amount = net, read, parts, amount
        self.height, self.width = size
        self.tiles = list(tiles(*size, side))

    def run(self, write: Write) -> Iterator[float]:
        """Paints; yields the share of the work that is done, 0 to 1."""
        passes = 3 if self._keeps_own() else 2
        steps = passes * len(self.tiles)
        done = 0
        colors = [_Sums() for _ in self.parts]
        look = _Looks()
        for tile in self.tiles:
            view = self._view(tile)
            for sums, mask in zip(colors, view.masks, strict=True):
                _take(sums, view.pixels, view.inside, mask)
            if self._keeps_own():
                look.take(self.net, view)
                done += 1
                yield done / steps
        self.recolorings = [
            (recolor_matrix(own, part.style.colors), own.mean, part.style.colors.mean)
            for own, part in zip((sums.statistics() for sums in colors), self.parts, strict=True)
        ]
        self.codes = [self.net.modulation(part.style) for part in self.parts]
        self.own = look.code(self.net) if self._keeps_own() else None

        depths = {name: [_Sums() for _ in self.parts] for name in DEPTHS}
        seen: _Seen | None = None
        for tile in self.tiles:
            view = self._view(tile)
            seen = self._look(view)
            for name, x in seen.features.items():
                for sums, mask in zip(depths[name], view.masks, strict=True):
                    _take(sums, x, view.inside, mask)
            done += 1
            yield done / steps
        self.transfers = {
            name: [
                (transfer_matrix(own, aim := part.style.depths[name]), own.mean, aim.mean)
                for own, part in zip((s.statistics() for s in all_sums), self.parts, strict=True)
            ]
            for name, all_sums in depths.items()
        }

        for tile in self.tiles:
            top, left = tile.seen[:2]
            if len(self.tiles) > 1 or seen is None:  # one tile is not looked at twice
                seen = self._look(self._view(tile))
            painted = self._painted(seen, (top, left))
            write(
                tile.top,
                tile.left,
                painted[
                    ..., tile.top - top : tile.bottom - top, tile.left - left : tile.right - left
                ],
            )
            done += 1
            yield done / steps

    def _keeps_own(self) -> bool:
        """Whether the photo's own style counts anywhere."""
        return self.amount < 1 or any(part.mask is not None for part in self.parts)

    def _view(self, tile: Tile) -> _View:
        top, left, bottom, right = tile.seen
        low, far = min(bottom, self.height), min(right, self.width)
        beyond = (0, right - far, 0, bottom - low)
        pixels = F.pad(self.read(top, left, low, far), beyond, mode="replicate")
        inside = torch.zeros_like(pixels[:, :1])
        inside[..., tile.top - top : tile.bottom - top, tile.left - left : tile.right - left] = 1
        masks = [
            None
            if part.mask is None
            else F.pad(part.mask[..., top:low, left:far], beyond, mode="replicate")
            for part in self.parts
        ]
        return _View(pixels, inside, masks)

    def _weights(self, view: _View, depth: int) -> list[Tensor | float]:
        """How much each part counts at a depth, at every position."""
        return [
            self.amount if mask is None else self.amount * _pooled(mask, depth)
            for mask in view.masks
        ]

    def _base(self, view: _View) -> Tensor:
        """The tile in the styles' colours."""
        return _mix(view.pixels, self.recolorings, self._weights(view, 0)).clamp(0, 1)

    def _look(self, view: _View) -> _Seen:
        base = self._base(view)
        return _Seen(view, base, self.net.encoder(base))

    def _painted(self, seen: _Seen, at: tuple[int, int]) -> Tensor:
        turned, shades = {}, {}
        for depth, (name, x) in enumerate(seen.features.items(), 1):
            weights = self._weights(seen.view, depth)
            turned[name] = _mix(x, self.transfers[name], weights)
            shades[name] = [
                (code, weight) for code, weight in zip(self.codes, weights, strict=True)
            ]
            if self.own is not None:
                shades[name].append((self.own, 1 - sum(weights)))
        noise = self.net.noises(seen.features, at)
        change: Tensor = self.net.decoder(turned, shades, noise)
        painted = blurred(seen.base) + change
        if self.own is None:
            return painted
        return painted + self._lost(seen.view.pixels, self._weights(seen.view, 0), noise)

    def _lost(
        self, photo: Tensor, weights: Sequence[Tensor | float], noise: Mapping[str, Tensor]
    ) -> Tensor:
        """What the network loses of a photo in its own style, as far as that holds.

        Where no style counts, it makes up for all of the loss: there the photo does not change.
        """
        own = {name: [(self.own, 1.0)] for name in DEPTHS}
        change: Tensor = self.net.decoder(self.net.encoder(photo), own, noise)
        return (1 - sum(weights)) * (photo - blurred(photo) - change)


Map = tuple[Tensor, Tensor, Tensor]
"""A matrix, the mean before and the mean after it."""


def _mix(x: Tensor, maps: Sequence[Map], weights: Sequence[Tensor | float]) -> Tensor:
    """`x`, as far as the weights go taken to where the maps take it."""
    if len(maps) == 1 and isinstance(weights[0], float) and weights[0] == 1:
        return apply(x, *maps[0])
    mixed = x
    for each, weight in zip(maps, weights, strict=True):
        mixed = mixed + weight * (apply(x, *each) - x)
    return mixed


def _pooled(mask: Tensor, depth: int) -> Tensor:
    """A mask of pixels at a depth of the network."""
    return F.avg_pool2d(mask, 1 << depth) if depth else mask


def _take(sums: _Sums, x: Tensor, inside: Tensor, mask: Tensor | None) -> None:
    """Adds a tile's features to what is known of a part."""
    weight = inside if mask is None else inside * mask
    depth = (weight.shape[-1] // x.shape[-1]).bit_length() - 1
    weight = _pooled(weight, depth)
    count = float(weight.sum())
    if count > 0:
        sums.add(statistics(x, weight), count)


class _Looks:
    """A photo's own code, from tiles."""

    def __init__(self) -> None:
        self.colors, self.deep = _Sums(), _Sums()
        self.depths = {name: _Sums() for name in DEPTHS}

    def take(self, net: FastNetwork, view: _View) -> None:
        """Takes in a tile."""
        features = net.encoder(view.pixels)
        _take(self.colors, view.pixels, view.inside, None)
        for name, x in features.items():
            _take(self.depths[name], x, view.inside, None)
        _take(self.deep, net.look(features["eighth"]), view.inside, None)

    def code(self, net: FastNetwork) -> Tensor:
        """`(1, CODE)`."""
        colors = self.colors.statistics()
        depths = {name: sums.statistics() for name, sums in self.depths.items()}
        return net.modulation(StyleCode(colors, depths, self.deep.statistics().mean))


def paint(
    net: FastNetwork,
    read: Read,
    write: Write,
    size: tuple[int, int],
    parts: Sequence[Part],
    *,
    amount: float = 1.0,
    side: int | None = None,
) -> Iterator[float]:
    """Paints a photo.

    Args:
        net: the network.
        read: gives pixels, sRGB in [0, 1].
        write: takes what was painted; values may be a little outside of [0, 1].
        size: (height, width) of the photo, px.
        parts: at least one; where masks leave something over, the photo stays as it is.
        amount: how far the features go to those of the styles, above 0 and up to 1.
        side: of the tiles, px, a multiple of `STRIDE`; None for the whole photo at once.

    Yields:
        The share of the work that is done, 0 to 1.
    """
    with torch.inference_mode():
        work = _Work(net, read, size, parts, amount, side).run(write)
    while True:
        with torch.inference_mode():  # never while the caller has its turn
            done = next(work, None)
        if done is None:
            return
        yield done
