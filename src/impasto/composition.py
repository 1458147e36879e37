"""What is painted where, in whose colours: from styles, masks and a photo to what a method needs.

A method, the optimiser or a network, asks a `Composition` about a photo and gets a `Layout`: the
picture to keep the content of, the regions with their styles, and what is done to the painted
picture afterwards. So masks and colours mean the same whatever paints.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from impasto.color import (
    histogram_recoloring,
    keep_chroma,
    linear_recoloring,
    luminance,
    luminance_recoloring,
    recolor,
)
from impasto.errors import SettingsError
from impasto.guides import shares
from impasto.images import Picture
from impasto.inputs import OpenStyle
from impasto.masks import mask_of, protected, region_masks, size_note
from impasto.objectives import Region, Styles
from impasto.pyramid import Size, shrink
from impasto.settings import Colors

__all__ = ["Composition", "Layout"]

Pixels = NDArray[np.uint8]
Part = tuple[Styles, Tensor | None, float]


@dataclass(frozen=True)
class Layout:
    """What is painted where in one photo.

    Attributes:
        size: (w, h) that it is painted at, px.
        regions: its parts, each with its styles.
        notes: what the user should hear, one line each.
    """

    size: Size
    regions: list[Region]
    notes: list[str]
    _photo: Picture = field(repr=False)
    _colors: Colors
    _kept: Pixels | None = field(repr=False)

    @cached_property
    def content(self) -> Tensor:
        """The picture whose content is kept, `(1, 3, h, w)`."""
        content = shrink(self._photo.over_white(), self.size)
        return luminance(content) if self._colors == "luminance" else content

    @cached_property
    def content_pixels(self) -> Pixels:
        """The same, `(h, w, 3)`; where nothing is changed, without a float copy."""
        if self._colors == "luminance" or self.size != self._photo.size:
            return Picture.from_tensor(self.content).pixels
        return self._photo.over_white().pixels

    def finish(self, painted: Pixels) -> Pixels:
        """What is shown of a painting at the photo's own size, (H, W, 3): colours, then masks."""
        photo = self._photo.pixels
        if self._colors in ("content", "luminance"):
            painted = keep_chroma(painted, photo)
        if self._kept is None:
            return painted
        return _laid_over(painted, photo, self._kept)


class Composition:
    """Styles, masks and colours, set up once for any number of photos.

    Args:
        styles: at least one.
        colors: whose colours the result has; see `impasto.settings.TransferSettings`.
        scale: how large the strokes are; see `Styles`.
        coarse: styles that the coarse strokes are taken from, or none.
        protect: a mask of what stays as it is, or none.
        regions: a picture whose colours say which part is which, as those of every style's own
            map do, or none.

    Raises:
        SettingsError: a mask is empty, or maps are missing or do not fit together.
    """

    def __init__(
        self,
        styles: Sequence[OpenStyle],
        *,
        colors: Colors = "style",
        scale: float = 1.0,
        coarse: Sequence[OpenStyle] = (),
        protect: Picture | None = None,
        regions: Picture | None = None,
    ) -> None:
        self.styles, self.colors, self.scale = list(styles), colors, scale
        self._coarse, self._protect = list(coarse), protect
        self._masks = [None if s.mask is None else mask_of(s.mask) for s in self.styles]
        self._kept = None if protect is None else mask_of(protect)
        maps = [style.regions for style in self.styles]
        self._map: list[tuple[Tensor, list[Tensor | None]]] = []
        if regions is not None or any(maps):
            self._map = region_masks(regions, maps)
            if any(mask is not None for mask in self._masks):
                raise SettingsError("regions come from masks or from a map; give one of them")
        self._drawings = [
            mask for mask in (*(s.mask for s in self.styles), protect, regions) if mask
        ]
        self._map_notes = [
            note
            for style in self.styles
            if style.regions
            and (note := size_note(style.regions, style.picture.size, "its painting"))
        ]
        self._pictures = [style.picture.over_white() for style in self.styles]
        self._coarse_pictures = [style.picture.over_white() for style in self._coarse]
        self._settled = self._parts(None) if colors in ("style", "content") else None

    @property
    def first(self) -> Tensor:
        """The first style's picture, `(1, 3, H, W)`."""
        return self._pictures[0].tensor()

    def layout(self, photo: Picture, size: Size) -> Layout:
        """What is painted where in a photo.

        Args:
            photo: any size.
            size: (w, h) that it is painted at, px.
        """
        opaque = photo.over_white()
        parts = self._settled or self._parts(opaque)
        notes = [note for drawing in self._drawings if (note := size_note(drawing, photo.size))]
        notes += self._map_notes
        kept = None if self._kept is None else protected(self._kept, photo.size)
        placed = _placed(parts, size)
        regions = [
            Region(styles, mask)
            for (styles, _, _), mask in zip(parts, placed, strict=True)
            if mask is None or mask.sum() > 0
        ]
        if len(regions) < len(placed):
            notes.append("warning: the masks leave nothing of the photo to one of the styles")
        return Layout(size, regions, notes, photo, self.colors, kept)

    def _parts(self, photo: Picture | None) -> list[Part]:
        """The styles that go together, the mask that they share, and their weight.

        Args:
            photo: whose colours they take on; None for their own.
        """
        pictures = [self._colored(picture, photo) for picture in self._pictures]
        weights = [style.weight for style in self.styles]
        coarse = None
        if self._coarse:
            coarse = Styles(
                [self._colored(picture, photo) for picture in self._coarse_pictures],
                [style.weight for style in self._coarse],
                scale=self.scale,
            )
        if self._map:
            return [
                (self._together(chosen, pictures, weights, coarse, where), mask, 1.0)
                for mask, where in self._map
                if (chosen := [i for i, w in enumerate(where) if w is not None])
            ]
        groups: dict[int | None, list[int]] = {}
        for i, mask in enumerate(self._masks):
            groups.setdefault(None if mask is None else i, []).append(i)
        return [
            (
                self._together(chosen, pictures, weights, coarse, [None] * len(pictures)),
                None if key is None else self._masks[key],
                sum(weights[i] for i in chosen),
            )
            for key, chosen in groups.items()
        ]

    def _together(
        self,
        chosen: Sequence[int],
        pictures: Sequence[Tensor],
        weights: Sequence[float],
        coarse: Styles | None,
        where: Sequence[Tensor | None],
    ) -> Styles:
        return Styles(
            [pictures[i] for i in chosen],
            [weights[i] for i in chosen],
            masks=[where[i] for i in chosen],
            scale=self.scale,
            coarse=coarse,
        )

    def _colored(self, picture: Picture, photo: Picture | None) -> Tensor:
        """A style's picture in the colours that it is painted with, `(1, 3, H, W)`."""
        if photo is None:
            return picture.tensor()
        match self.colors:
            case "luminance":
                fit = luminance_recoloring(picture.pixels, photo.pixels)
            case "histogram":
                fit = histogram_recoloring(picture.pixels, photo.pixels)
            case _:
                fit = linear_recoloring(picture.pixels, photo.pixels)
        return Picture(recolor(picture.pixels, fit)).tensor()


def _placed(parts: Sequence[Part], size: Size) -> list[Tensor | None]:
    """The parts' masks at one size, shared out where they overlap."""
    masks = [mask for _, mask, _ in parts]
    if all(mask is None for mask in masks):
        return masks
    return list(shares(masks, [weight for _, _, weight in parts], size))


def _laid_over(painted: Pixels, photo: Pixels, kept: Pixels) -> Pixels:
    """The photo where `kept`, (H, W), is 255, the painting where it is 0; a blend between them."""
    result = painted.copy()
    for row in np.flatnonzero(kept.any(axis=1)):
        share = kept[row, :, None] / np.float32(255)
        blend = painted[row] + share * (photo[row].astype(np.float32) - painted[row])
        result[row] = np.rint(blend).astype(np.uint8)
    return result
