"""Painting a photo of any size: what depends on all of it first, then tile by tile.

What a pixel becomes depends on its neighbourhood, and on the whole photo only through statistics:
of its colours, and of the features of both looks and of the draft. So a photo is gone through for
its colours, then for each look two or three times, and between them once for the draft, each time
in tiles with a halo as wide as is seen; what the draft changes is kept, at half the size.
The result is that of one tile as large as the photo, but for rounding.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import SettingsError
from impasto.fast.drafts import Draft
from impasto.fast.maps import Affine, Share, mapped
from impasto.fast.network import (
    BESIDE,
    DEEP,
    DEPTHS,
    HALF,
    MOMENTS,
    STRIDE,
    FastNetwork,
    StyleCode,
    blurred,
    by_depth,
    halved,
)
from impasto.fast.statistics import Statistics, Sums
from impasto.fast.tiles import Tile, area, cut, tiles
from impasto.fast.views import Seen, View, pooled, take

__all__ = ["Done", "Part", "paint"]

FAINTEST: Final = 1e-6
"""A mask that is below it everywhere is taken for 0."""

COLORS: Final = 0.03
"""What it costs to gather colours, as a share of a pass of the network."""

SCALES: Final = (2, 1)
"""How many of the photo's pixels, on a side, are one of each look's."""

Read = Callable[[int, int, int, int], Tensor]
"""Gives the pixels of rows top to bottom and columns left to right: `(1, 3, h, w)`."""

Write = Callable[[int, int, Tensor], None]
"""Takes what was painted, `(1, 3, h, w)`, its first pixel at this row and column."""

_Deep = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
"""Features of draft and photo, mixed, which the second look transforms, and of the photo, which it
gets beside them, both by depth."""


@dataclass(frozen=True)
class Part:
    """A style, and where it holds.

    Attributes:
        style: as `FastNetwork.style` gives it.
        mask: how much, `(1, 1, H, W)` of the photo's size, 0 to 1; None for everywhere.
    """

    style: StyleCode
    mask: Tensor | None = None


class Done(NamedTuple):
    """How far the work is.

    Attributes:
        step: how many tiles have been gone through, in all passes.
        steps: of how many.
        share: of the work, 0 to 1.
    """

    step: int
    steps: int
    share: float


class _Work:
    """One photo being painted; see `paint`. A scale is one of `SCALES`."""

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
        whole = [-(-n // STRIDE) * STRIDE for n in size]
        self.tiles = list(tiles(*size, side))
        half = (whole[0] // 2, whole[1] // 2)
        self.half_tiles = list(tiles(*half, side, STRIDE // 2))
        self.draft = Draft(*half, exact=len(self.tiles) == 1)
        self.only: Seen | None = None  # what the first look saw, if in one tile
        self.deep: _Deep | None = None  # what the second sees at half the size, then

    def run(self, write: Write) -> Iterator[Done]:
        """Paints; yields how far it is."""
        passes = 3 if self._keeps_own() else 2
        looked = [*self.tiles, *self.half_tiles]
        steps = len(self.tiles) + passes * len(looked) + len(self.half_tiles)
        total = COLORS * sum(map(area, self.tiles)) + passes * sum(map(area, looked))
        total += sum(map(area, self.half_tiles))
        done = 0.0
        for step, work in enumerate(self._steps(write), 1):
            done += work
            yield Done(step, steps, min(done / total, 1.0))

    def _steps(self, write: Write) -> Iterator[float]:
        """Paints; yields after every tile of every pass how much work it was."""
        for tile in self._colors():
            yield COLORS * area(tile)
        for tile, made in self._look(0, self.half_tiles):
            if made is not None:
                base, painted = made
                self.draft.put(tile, cut(painted - base, tile))
            yield area(tile)
        for tile in self._look_at_draft():
            yield area(tile)
        for tile, made in self._look(1, self.tiles):
            if made is not None:
                write(tile.top, tile.left, cut(made[1], tile))
            yield area(tile)

    def _colors(self) -> Iterator[Tile]:
        """Gathers the photo's colours, and how its parts are to be recoloured."""
        everywhere, sums = Sums(), [Sums() for _ in self.parts]
        for tile in self.tiles:
            view = self._view(tile, 1)
            take(everywhere, view.pixels, view, None)
            for each, mask in zip(sums, view.masks, strict=True):
                take(each, view.pixels, view, mask)
            yield tile
        self.colors = everywhere.statistics()
        self.recolorings = [
            Affine.recoloring(own.statistics(), part.style.colors)
            for own, part in zip(sums, self.parts, strict=True)
        ]

    def _look(
        self, look: int, tiled: Sequence[Tile]
    ) -> Iterator[tuple[Tile, tuple[Tensor, Tensor] | None]]:
        """Looks at all tiles, then paints each.

        Yields:
            A tile, and None after it was looked at; after it was painted, the pixels that the look
            changes and what it made of them.
        """
        yield from self._find_own(look, tiled)
        sums: list[dict[str, Sums]] = [{} for _ in self.parts]
        seen = None
        for tile in tiled:
            seen = self._gather(look, tile, sums)
            if len(tiled) > 1:
                seen = None  # too large to be kept; one tile is not looked at twice
            yield tile, None
        if look == 0:
            self.only = seen
        self._aim(look, [_found(each) for each in sums])
        for tile in tiled:
            yield tile, self._painted(look, tile, seen or self._see(look, tile))

    def _look_at_draft(self) -> Iterator[Tile]:
        """Finds the draft's moments, and those of what the second look makes of it."""
        sums: list[dict[str, Sums]] = [{} for _ in self.parts]
        mixed: list[dict[str, Sums]] = [{} for _ in self.parts]
        for tile in self.half_tiles:
            if self.only:
                view, photo = self.only.view, self.only.photo_features
            else:
                view = self._view(tile, 2, self.recolorings)
                photo = self.net.encoder.layers(view.pixels, BESIDE.values())
            found = self._see_draft(tile.seen, view.base, HALF)
            _add(sums, {name: found[name] for name in MOMENTS}, view)
            deep = self._mixed(found, photo)
            _add(mixed, deep[0], view)
            if len(self.tiles) == 1:
                self.deep = deep
            del found, photo, deep
            yield tile
        self.only = None
        self.before = [_found(each) for each in sums]
        self.mixed = [_found(each) for each in mixed]

    def _find_own(self, look: int, tiled: Sequence[Tile]) -> Iterator[tuple[Tile, None]]:
        """Finds the code of the photo's own style for a look, where that counts; else None."""
        self.own = None
        if not self._keeps_own():
            return
        sums: dict[str, Sums] = {}
        deep = Sums()
        for tile in tiled:
            view = self._view(tile, SCALES[look])
            found = self.net.encoder.layers(view.pixels, MOMENTS)
            _add([sums], found, replace(view, masks=[None]))
            if look == 0:
                take(deep, self.net.deep(found[DEPTHS["eighth"]]), view, None)
            yield tile, None
        found_own = _found(sums)
        if look == 0:
            # Not a whole one, but all that `modulation` asks for.
            self.own_style = StyleCode(self.colors, found_own, {}, deep.statistics().mean)
        else:
            self.own_style = replace(self.own_style, whole=found_own)
        half = self.own_style.half
        self.own = self.net.modulation(self.own_style, look, half, half)

    def _gather(self, look: int, tile: Tile, sums: Sequence[dict[str, Sums]]) -> Seen:
        """Looks at a tile and adds its features to what is known of the parts."""
        seen = self._see(look, tile)
        _add(sums, seen.features, seen.view)
        return seen

    def _aim(self, look: int, found: Sequence[Mapping[str, Statistics]]) -> None:
        """Makes each part's maps and code of what a look has found in it, by depth."""
        if look == 0:
            self.first = [{DEPTHS[name]: own[name] for name in DEPTHS} for own in found]
            self.before = self.first
        else:
            found = [{**own, **mixed} for own, mixed in zip(found, self.mixed, strict=True)]
        aims = [part.style.aims(look) for part in self.parts]
        self.transfers = {
            name: [
                Affine.between(own[name], aim[name]) for own, aim in zip(found, aims, strict=True)
            ]
            for name in DEPTHS
        }
        self.codes = [
            self.net.modulation(part.style, look, first, before)
            for part, first, before in zip(self.parts, self.first, self.before, strict=True)
        ]

    def _keeps_own(self) -> bool:
        """Whether the photo's own style counts anywhere."""
        return self.amount < 1 or any(part.mask is not None for part in self.parts)

    def _view(self, tile: Tile, scale: int, recolorings: Sequence[Affine] = ()) -> View:
        top, left, bottom, right = (edge * scale for edge in tile.seen)
        low, far = min(bottom, self.height), min(right, self.width)
        beyond = (0, right - far, 0, bottom - low)
        pixels = F.pad(self.read(top, left, low, far), beyond, mode="replicate")
        inside = F.pad(torch.ones_like(pixels[:, :1, : low - top, : far - left]), beyond)
        masks = [
            None
            if part.mask is None
            else F.pad(part.mask[..., top:low, left:far], beyond, mode="replicate")
            for part in self.parts
        ]
        base = pixels
        if recolorings:
            base = mapped(pixels, recolorings, self._shares(masks, 0)).clamp(0, 1)
        if scale == 2:
            pixels, base, inside = halved(pixels), halved(base), halved(inside)
            masks = [None if mask is None else halved(mask) for mask in masks]
        own = torch.zeros_like(inside)
        cut(own, tile).copy_(cut(inside, tile))
        return View(pixels, base, None if bool((own == 1).all()) else own, masks)

    def _shares(self, masks: Sequence[Tensor | None], depth: int) -> list[Share]:
        """How much each part counts at a depth, at every position."""
        return [
            self.amount if mask is None else self.amount * pooled(mask, depth) for mask in masks
        ]

    def _see(self, look: int, tile: Tile) -> Seen:
        view = self._view(tile, SCALES[look], self.recolorings)
        if look == 0:
            later = BESIDE.values() if len(self.half_tiles) == 1 else ()  # or found once more
            found = self.net.encoder.layers(view.pixels, {*MOMENTS, *later})
            known = {name: found[name] for name in later}
            return Seen(view, view.base, by_depth(DEPTHS, found), known)
        base = view.base + self.draft.enlarged(tile.seen, view.base.device)
        return Seen(view, base, self.net.seen_whole(base), {})

    def _painted(self, look: int, tile: Tile, seen: Seen) -> tuple[Tensor, Tensor]:
        """The pixels that a look changes, and what it makes of them."""
        decoder, features = self.net.decoder(look), dict(seen.features)
        beside: Mapping[str, Tensor] = {}
        if look == 1:
            deep, beside = self.deep or self._see_deep(tile, seen.view)
            features |= deep
        taken, shades = {}, {}
        for depth, (name, x) in enumerate(features.items(), 1):
            shares = self._shares(seen.view.masks, depth)
            taken[name] = decoder.take(name, x, self.transfers[name], shares)
            shades[name] = [(code, share) for code, share in zip(self.codes, shares, strict=True)]
            if self.own is not None:
                shades[name].append((self.own, 1 - sum(shares)))
        noise = self.net.noises(taken, (tile.seen[0], tile.seen[1]))
        change: Tensor = decoder(taken, features, shades, noise, beside)
        painted = blurred(seen.base) + change
        if self.own is None:
            return seen.base, painted
        # What the look loses of the photo in its own style comes back as far as that holds: where
        # no style counts, the photo does not change.
        photo = seen.view.pixels
        if look == 1:
            features = {**self.net.seen_whole(photo), **{name: beside[name] for name in DEEP}}
        del taken  # as large as what follows
        taken = {name: decoder.take(name, x) for name, x in features.items()}
        own = {name: [(self.own, 1.0)] for name in DEPTHS}
        kept: Tensor = blurred(photo) + decoder(taken, features, own, noise, beside)
        left = 1 - sum(self._shares(seen.view.masks, 0))
        return seen.base, painted + left * (photo - kept)

    def _see_deep(self, tile: Tile, view: View) -> _Deep:
        """What the second look sees at half the size for a tile."""
        top, left, bottom, right = (edge // 2 for edge in tile.seen)
        small = (top, left, bottom, right)
        drafted = self._see_draft(small, halved(view.base), DEEP.values())
        return self._mixed(drafted, self.net.encoder.layers(halved(view.pixels), BESIDE.values()))

    def _see_draft(
        self, seen: tuple[int, int, int, int], base: Tensor, wanted: Collection[str]
    ) -> dict[str, Tensor]:
        """Features of the draft, of which `base` is the recoloured photo, where that was seen."""
        return self.net.encoder.layers(base + self.draft.at(seen, base.device), wanted)

    def _mixed(self, drafted: Mapping[str, Tensor], photo: Mapping[str, Tensor]) -> _Deep:
        """What the second look sees at half the size, of features by the encoder's layer."""
        deep = self.net.with_photo(by_depth(DEEP, drafted), by_depth(DEEP, photo))
        return deep, by_depth(BESIDE, photo)


def _add(sums: Sequence[dict[str, Sums]], features: Mapping[str, Tensor], view: View) -> None:
    """Adds what was seen in a tile to what is known of each part, by the features' names."""
    for known, mask in zip(sums, view.masks, strict=True):
        for name, x in features.items():
            take(known.setdefault(name, Sums()), x, view, mask)


def _found(sums: Mapping[str, Sums]) -> dict[str, Statistics]:
    return {name: each.statistics() for name, each in sums.items()}


def paint(
    net: FastNetwork,
    read: Read,
    write: Write,
    size: tuple[int, int],
    parts: Sequence[Part],
    *,
    amount: float = 1.0,
    side: int | None = None,
) -> Iterator[Done]:
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
        How far it is, after every tile of every pass.

    Raises:
        SettingsError: a mask is 0 everywhere.
    """
    if any(part.mask is not None and float(part.mask.max()) < FAINTEST for part in parts):
        raise SettingsError("a mask is 0 everywhere, so its style holds nowhere; leave it out")
    with torch.inference_mode():
        work = _Work(net, read, size, parts, amount, side).run(write)
    while True:
        with torch.inference_mode():  # never while the caller has its turn
            done = next(work, None)
        if done is None:
            return
        yield done
