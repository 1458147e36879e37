"""From pictures to something to minimise: targets, computed once, and the weighted losses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from impasto.encoder import Encoder
from impasto.errors import SettingsError
from impasto.guides import guide, guided_gram
from impasto.losses import (
    content_loss,
    second_variation,
    style_loss,
    total_variation,
)
from impasto.optimize import Objective
from impasto.pyramid import SHORT_SIDE, Size, resample_picture
from impasto.settings import Layers, Settings

__all__ = ["ContentTerm", "Region", "StyleTerm", "Styles", "make_objective"]

COARSE: Final = 3
"""The block of the network from which on a layer sees strokes rather than their texture."""

KEPT = 24
"""How many sets of Gram matrices are kept: those of a few photo sizes, at every scale."""


class Styles:
    """Style pictures and their weights, with the Gram matrices that have been made of them.

    Args:
        pictures: `(1, 3, H, W)` each, of any size, sRGB in [0, 1].
        weights: one each, above 0; only their ratios matter.
        masks: where in each picture its style is taken from, `(1, 1, H, W)` of its size, 0 to 1;
            None for all of it.
        scale: how large the strokes are: 1 as in the original, relative to the picture.
        coarse: styles that the coarse strokes are taken from instead: the layers from `COARSE` on.
    """

    def __init__(
        self,
        pictures: Sequence[Tensor],
        weights: Sequence[float],
        *,
        masks: Sequence[Tensor | None] = (),
        scale: float = 1.0,
        coarse: "Styles | None" = None,
    ) -> None:
        self.pictures = list(pictures)
        self.weights = [weight / sum(weights) for weight in weights]
        self.masks = list(masks) or [None] * len(self.pictures)
        self.scale = scale
        self.coarse = coarse
        self._grams: dict[tuple[Encoder, int, int, tuple[str, ...]], dict[str, Tensor]] = {}

    def grams(
        self, encoder: Encoder, level: int, finest: int, layers: Sequence[str]
    ) -> dict[str, Tensor]:
        """The Gram matrices to aim at: those of the pictures, blended by weight.

        A style picture is shrunk until its long side is `scale` times that of the painting, so that
        its strokes have the size, relative to the picture, that was asked for; on a coarser scale
        it shrinks along. It is never enlarged: that would only teach the blur of enlarging.

        Args:
            encoder: the network that looks.
            level: long side of the painting at the scale at hand, px.
            finest: long side of the painting at the last scale, px.
            layers: where.

        Returns:
            `{layer: (1, C, C)}`, float32.
        """
        if self.coarse is None:
            return self._own(encoder, level, finest, layers)
        deep = [layer for layer in layers if _block(layer) >= COARSE]
        fine = [layer for layer in layers if layer not in deep]
        found = self._own(encoder, level, finest, fine) if fine else {}
        return found | (self.coarse.grams(encoder, level, finest, deep) if deep else {})

    def _own(
        self, encoder: Encoder, level: int, finest: int, layers: Sequence[str]
    ) -> dict[str, Tensor]:
        key = (encoder, level, finest, tuple(layers))
        if key not in self._grams:
            while len(self._grams) >= KEPT:
                del self._grams[next(iter(self._grams))]
            blend = {layer: torch.zeros((), device=encoder.device) for layer in layers}
            pairs = zip(self.pictures, self.weights, self.masks, strict=True)
            for picture, weight, mask in pairs:
                H, W = picture.shape[-2:]
                shrink = min(1.0, self.scale * finest / max(H, W)) * level / finest
                size = (max(SHORT_SIDE, round(W * shrink)), max(SHORT_SIDE, round(H * shrink)))
                with torch.no_grad():
                    features = encoder(resample_picture(picture, size), layers)
                for layer in layers:
                    where = None
                    if mask is not None:
                        where = guide(resample_picture(mask, size), encoder.plan, layer)
                        where = where.to(encoder.device)
                    blend[layer] = blend[layer] + weight * guided_gram(features[layer], where)
            self._grams[key] = blend
        return self._grams[key]


@dataclass(frozen=True)
class Region:
    """A part of the picture, and the styles that it is painted in.

    Attributes:
        styles: those styles, blended.
        mask: how much of each pixel belongs to the region, `(1, 1, H, W)`, 0 to 1, of the shape of
            the painting; None for the whole picture.
    """

    styles: Styles
    mask: Tensor | None = None


@dataclass(frozen=True)
class ContentTerm:
    """What is to be kept: a photo, the layers it is compared at, and the loss's weight."""

    photo: Tensor
    layers: Layers
    weight: float


@dataclass(frozen=True)
class StyleTerm:
    """What is to be taken on: regions, layers, weight; and the painting's finest size, px."""

    regions: Sequence[Region]
    layers: Layers
    weight: float
    finest: Size


def make_objective(
    encoder: Encoder,
    size: Size,
    *,
    content: ContentTerm | None = None,
    style: StyleTerm | None = None,
    settings: Settings,
    smoothing: float = 1.0,
) -> Objective:
    """The loss of a picture at one size: α·content + β·style (Gatys et al. 2016, eq. 7) + γ·TV.

    The weights of the layers are taken relative to each other: they are divided by their sum.
    A term whose weight is 0 is left out, and nothing is computed for it. The style losses of
    regions count by their areas, so that a pixel feels the same pull in a small one as in a large.

    Args:
        encoder: the network that looks.
        size: (W, H), px.
        content: what to keep; None for nothing.
        style: what to take on; None for nothing.
        settings: how content and style are normalised, and the weights and form of the total and
            the second variation.
        smoothing: what these two weights are multiplied by.

    Raises:
        SettingsError: a layer is unknown, or nothing is left to minimise.
    """
    content = content if content and content.weight > 0 else None
    style = style if style and style.weight > 0 else None
    keep = _shares(content.layers) if content else {}
    take = _shares(style.layers) if style else {}
    encoder.check_layers([*keep, *take])
    tv_weight = settings.tv_weight * smoothing
    ripple_weight = settings.ripple_weight * smoothing
    if not (content or style or tv_weight or ripple_weight):
        raise SettingsError("all weights are 0: there is nothing to do; give one of them")
    with torch.no_grad():
        kept = encoder(resample_picture(content.photo, size), list(keep)) if content else {}
    aims = _aims(encoder, size, style, list(take)) if style else []
    layers = list(dict.fromkeys([*keep, *take]))
    normalize, pixels = settings.normalize, size[0] * size[1]

    def objective(x: Tensor) -> dict[str, Tensor]:
        features = encoder(x, layers)
        parts: dict[str, Tensor] = {}
        if content:
            losses = [
                share * content_loss(features[layer], kept[layer], normalize)
                for layer, share in keep.items()
            ]
            parts["content"] = content.weight * torch.stack(losses).sum()
        if style:
            losses = [x.new_zeros(())] + [
                take[aim.layer]
                * aim.area
                * style_loss(
                    guided_gram(F := features[aim.layer], aim.guide),
                    aim.gram,
                    F[0, 0].numel(),
                    normalize,
                    pixels=pixels,
                )
                for aim in aims
            ]
            parts["style"] = style.weight * torch.stack(losses).sum()
        if tv_weight:
            parts["tv"] = tv_weight * total_variation(
                x,
                settings.tv_beta,
                reduction=settings.tv_reduction,
                pixel_range=settings.pixel_range,
            )
        if ripple_weight:
            parts["ripple"] = ripple_weight * second_variation(x)
        return parts

    return objective


@dataclass(frozen=True)
class _Aim:
    """The Gram matrix that a region is to have at a layer.

    Attributes:
        layer: the layer.
        gram: `(1, C, C)`.
        guide: where the region is, `(1, 1, h, w)`; None for everywhere.
        area: the region's share of the picture.
    """

    layer: str
    gram: Tensor
    guide: Tensor | None
    area: float


def _aims(encoder: Encoder, size: Size, style: StyleTerm, layers: Sequence[str]) -> list[_Aim]:
    """What every region is to look like at one size."""
    aims = []
    for region in style.regions:
        grams = region.styles.grams(encoder, max(size), max(style.finest), layers)
        if region.mask is None:
            aims += [_Aim(layer, grams[layer], None, 1.0) for layer in layers]
            continue
        mask = resample_picture(region.mask, size)
        area = mask.mean().item()
        for layer in layers:
            where = guide(mask, encoder.plan, layer)
            if where.sum() > 0:  # a speck may be gone from a coarse scale
                aims.append(_Aim(layer, grams[layer], where.to(encoder.device), area))
    return aims


def _shares(layers: Layers) -> dict[str, float]:
    """The layers with a weight above 0, their weights divided by their sum."""
    total = sum(layers.values())
    return {layer: weight / total for layer, weight in layers.items() if weight > 0}


def _block(layer: str) -> int:
    """The block of a layer: 4 of `relu4_2`."""
    return int(layer.removeprefix("relu").split("_")[0])
