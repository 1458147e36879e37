"""What painting reads and sees of a photo in one tile, and how it adds that to what is known."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from impasto.fast.statistics import Sums, statistics

__all__ = ["Seen", "View", "pooled", "take"]


@dataclass(frozen=True)
class View:
    """What is read for one tile of a look, at its scale: `Tile.seen`.

    Attributes:
        pixels: of the photo, `(1, 3, h, w)`, its border repeated beyond it.
        base: the same in the styles' colours if those were asked for, else the same.
        inside: the share of each pixel that lies in the tile and in the photo, `(1, 1, h, w)`; None
            where that is all of every pixel.
        masks: of the parts, `(1, 1, h, w)` or None.
    """

    pixels: Tensor
    base: Tensor
    inside: Tensor | None
    masks: list[Tensor | None]


@dataclass(frozen=True)
class Seen:
    """A tile as a look finds it.

    Attributes:
        view: what was read.
        base: the pixels that the look changes: in the styles' colours, and as the look before left
            them.
        features: of what it sees, by depth: the first look of the photo, the second of `base` those
            that it sees in full.
        photo_features: those of the photo that are needed later, by layer; none in the second look,
            nor in several tiles, where they are found once more.
    """

    view: View
    base: Tensor
    features: Mapping[str, Tensor]
    photo_features: Mapping[str, Tensor]


def pooled(mask: Tensor, depth: int) -> Tensor:
    """A mask of pixels at a depth of the network."""
    return F.avg_pool2d(mask, 1 << depth) if depth else mask


def take(sums: Sums, x: Tensor, view: View, mask: Tensor | None) -> None:
    """Adds a tile's pixels or features to what is known of a part."""
    given = [each for each in (view.inside, mask) if each is not None]
    if not given:
        sums.add(statistics(x), float(x[0, 0].numel()))
        return
    depth = (given[0].shape[-1] // x.shape[-1]).bit_length() - 1
    weight = pooled(given[0] * given[1] if len(given) > 1 else given[0], depth)
    count = float(weight.sum())
    if count > 0:
        sums.add(statistics(x, weight), count)
