"""Where in a picture a style holds: from masks to a weight for every position of a layer.

A mask says of every pixel how much it belongs to a region, 0 to 1. A guide is the same for the
positions of a layer, and weighs them in the Gram matrix (Gatys et al. 2017, "Controlling Perceptual
Factors in Neural Style Transfer", section 4). A position of a deep layer sees far beyond its own
place; so a guide is the mask less a border, or two styles would bleed into each other.
"""

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.encoder import Plan
from impasto.losses import gram_matrix
from impasto.pyramid import Size, resample_picture

__all__ = ["guide", "guided_gram", "reach", "shares"]

BORDER: Final = 0.5
"""The border that a guide leaves out, as a share of the layer's reach: what a position sees counts
less and less away from its middle (Luo et al. 2016, section 2)."""

LEAST: Final = 0.25
"""A guide keeps at least this share of its mask; a border that would leave less is halved."""


def reach(plan: Plan, layer: str) -> int:
    """How far from its own middle a position of a layer sees, px."""
    seen, stride = 1, 1
    for name in plan.layers:
        if name.endswith("_1") and name != plan.layers[0]:  # a pooling stands before
            seen += stride
            stride *= 2
        seen += 2 * stride
        if name == layer:
            break
    return seen // 2


def guide(mask: Tensor, plan: Plan, layer: str) -> Tensor:
    """A mask at the positions of a layer, less a border as wide as half of what one of them sees.

    The picture's own border is none of the mask's. What is too small for the border keeps more.

    Args:
        mask: `(1, 1, H, W)`, 0 to 1, at the size of the picture that the network sees.
        plan: the network's shape.
        layer: one of its layers.

    Returns:
        `(1, 1, h, w)`, 0 to 1, of the layer's size.
    """
    stride = plan.stride(layer)
    h, w = (side // stride for side in mask.shape[-2:])
    border = math.ceil(BORDER * reach(plan, layer))
    while True:
        # The layer's positions are squares of `stride` px; a rest at the end is seen by none.
        eroded = _eroded(mask, border)[..., : h * stride, : w * stride]
        found = F.avg_pool2d(eroded, stride) if stride > 1 else eroded
        if found.sum() * stride**2 >= LEAST * mask.sum():
            return found
        if border == 0:  # all of it, or most, is in that rest: then the nearest positions have it
            return F.adaptive_avg_pool2d(mask, (h, w))
        border //= 2


def _eroded(mask: Tensor, border: int) -> Tensor:
    """The least value within a square of `border` px to all sides."""
    if border == 0:
        return mask
    reach = 2 * border + 1
    low = F.max_pool2d(-mask, (reach, 1), 1, (border, 0))
    return -F.max_pool2d(low, (1, reach), 1, (0, border))


def guided_gram(features: Tensor, guide: Tensor | None) -> Tensor:
    """The Gram matrix of a region: Σ g f fᵀ / Σ g over the positions (Gatys et al. 2017, eq. 7).

    Args:
        features: `(1, N, h, w)`.
        guide: `(1, 1, h, w)`, of which something is above 0; None for all positions alike.

    Returns:
        `(1, N, N)`, float32.
    """
    if guide is None:
        return gram_matrix(features)
    return gram_matrix(features * (guide / guide.mean()).sqrt().to(features.dtype))


def shares(masks: list[Tensor | None], weights: list[float], size: Size) -> list[Tensor]:
    """What share of every pixel each of several styles has.

    Where masks overlap, styles share by weight times mask; a faint mask alone has no more than its
    own value. A style without a mask has what the others leave.

    Args:
        masks: `(1, 1, H, W)` each, 0 to 1, of any size; None for the rest of the picture. Styles
            that have none must be one.
        weights: above 0, one each.
        size: (W, H) of the result, px.

    Returns:
        `(1, 1, H, W)` each; their sum is at most 1.
    """
    W, H = size
    given = [None if mask is None else resample_picture(mask, size) for mask in masks]
    drawn = [mask for mask in given if mask is not None]
    covered = torch.stack(drawn).amax(0) if drawn else torch.zeros(1, 1, H, W)
    total = sum(
        (weight * mask for mask, weight in zip(given, weights, strict=True) if mask is not None),
        torch.zeros(1, 1, H, W),
    ).clamp_(min=1e-12)
    return [
        1 - covered if mask is None else covered * weight * mask / total
        for mask, weight in zip(given, weights, strict=True)
    ]
