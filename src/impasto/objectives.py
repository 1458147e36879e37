"""From pictures to something to minimise: targets, computed once, and the weighted losses."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.encoder import Encoder
from impasto.errors import SettingsError
from impasto.losses import (
    content_loss,
    gram_matrix,
    second_variation,
    style_loss,
    total_variation,
)
from impasto.optimize import Objective
from impasto.pyramid import SHORT_SIDE, Size, resample_picture
from impasto.settings import Layers, Settings

__all__ = ["ContentTerm", "StyleTerm", "Styles", "make_objective"]

KEPT = 24
"""How many sets of Gram matrices are kept: those of a few photo sizes, at every scale."""


class Styles:
    """Style pictures and their weights, with the Gram matrices that have been made of them.

    Args:
        pictures: `(1, 3, H, W)` each, of any size, sRGB in [0, 1].
        weights: one each, above 0; only their ratios matter.
    """

    def __init__(self, pictures: Sequence[Tensor], weights: Sequence[float]) -> None:
        self.pictures = list(pictures)
        self.weights = [weight / sum(weights) for weight in weights]
        self._grams: dict[tuple[Encoder, int, int, tuple[str, ...]], dict[str, Tensor]] = {}

    def grams(
        self, encoder: Encoder, level: int, finest: int, layers: Sequence[str]
    ) -> dict[str, Tensor]:
        """The Gram matrices to aim at: those of the pictures, blended by weight.

        A style picture is shrunk until its long side is that of the painting, so that its strokes
        have the size, relative to the picture, that they have in the original; on a coarser scale
        it shrinks along. It is never enlarged: that would only teach the blur of enlarging.

        Args:
            encoder: the network that looks.
            level: long side of the painting at the scale at hand, px.
            finest: long side of the painting at the last scale, px.
            layers: where.

        Returns:
            `{layer: (1, C, C)}`, float32.
        """
        key = (encoder, level, finest, tuple(layers))
        if key not in self._grams:
            while len(self._grams) >= KEPT:
                del self._grams[next(iter(self._grams))]
            blend = {layer: torch.zeros((), device=encoder.device) for layer in layers}
            for picture, weight in zip(self.pictures, self.weights, strict=True):
                H, W = picture.shape[-2:]
                shrink = min(1.0, finest / max(H, W)) * level / finest
                size = (max(SHORT_SIDE, round(W * shrink)), max(SHORT_SIDE, round(H * shrink)))
                with torch.no_grad():
                    features = encoder(resample_picture(picture, size), layers)
                for layer in layers:
                    blend[layer] = blend[layer] + weight * gram_matrix(features[layer])
            self._grams[key] = blend
        return self._grams[key]


@dataclass(frozen=True)
class ContentTerm:
    """What is to be kept: a photo, the layers it is compared at, and the loss's weight."""

    photo: Tensor
    layers: Layers
    weight: float


@dataclass(frozen=True)
class StyleTerm:
    """What is to be taken on: styles, layers, weight; and the painting's finest size, px."""

    styles: Styles
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
    A term whose weight is 0 is left out, and nothing is computed for it.

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
    aim = style.styles.grams(encoder, max(size), max(style.finest), list(take)) if style else {}
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
            losses = [
                share
                * style_loss(
                    gram_matrix(F := features[layer]),
                    aim[layer],
                    F[0, 0].numel(),
                    normalize,
                    pixels=pixels,
                )
                for layer, share in take.items()
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


def _shares(layers: Layers) -> dict[str, float]:
    """The layers with a weight above 0, their weights divided by their sum."""
    total = sum(layers.values())
    return {layer: weight / total for layer, weight in layers.items() if weight > 0}
