"""Affine maps of pixels and features, the one form of all that is done to them in closed form."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.fast.statistics import Statistics, in_float32, moving_matrix, recolor_matrix

__all__ = ["Affine", "Share", "mapped"]

Share = Tensor | float
"""How much something counts: everywhere as much, or `(1, 1, h, w)`."""


class Affine(NamedTuple):
    """A map of pixels or features: M (x − before) + after.

    Attributes:
        matrix: M, `(N or 1, D, C)`.
        before: what is taken off first, `(N or 1, C)`.
        after: what is added then, `(N or 1, D)`.
    """

    matrix: Tensor
    before: Tensor
    after: Tensor

    @classmethod
    def between(cls, own: Statistics, aim: Statistics) -> "Affine":
        """What gives features the second moments of others; see `moving_matrix`."""
        none = torch.zeros_like(own.mean)
        return cls(moving_matrix(own, aim), none, none)

    @classmethod
    def recoloring(cls, own: Statistics, aim: Statistics) -> "Affine":
        """What gives pixels the mean and covariance of others; see `recolor_matrix`."""
        return cls(recolor_matrix(own, aim), own.mean, aim.mean)

    def then(self, conv: nn.Conv2d) -> "Affine":
        """This one and a 1×1 convolution after it, as one."""
        assert conv.bias is not None
        with in_float32(self.matrix):
            W = conv.weight[:, :, 0, 0].float()
            return Affine(W @ self.matrix, self.before, self.after @ W.mT + conv.bias.float())

    def __call__(self, x: Tensor) -> Tensor:
        """Of `(N, C, h, w)`, at every position: `(N, D, h, w)`."""
        offset = self.after - (self.matrix * self.before[:, None]).sum(2)
        matrix, offset = self.matrix.to(x.dtype), offset.to(x.dtype)
        if x.shape[1] == 3:  # pixels: quicker as planes
            planes = x.contiguous().flatten(2)
            matrix = matrix.expand(len(x), -1, -1)
            y = torch.baddbmm(offset[..., None], matrix, planes)
            return y.view(len(x), -1, *x.shape[2:])
        if len(matrix) == len(offset) == 1:
            return F.linear(x.permute(0, 2, 3, 1), matrix[0], offset[0]).permute(0, 3, 1, 2)
        y = torch.einsum("nij,njhw->nihw", matrix.expand(len(x), -1, -1), x)
        return y + offset[..., None, None]


def mapped(
    x: Tensor,
    maps: Sequence[Affine],
    shares: Sequence[Share],
    plain: nn.Module | None = None,
) -> Tensor:
    """What the maps make of `x`, each as much as it counts; what is left over stays.

    Args:
        x: `(N, C, h, w)`.
        maps: any number.
        shares: one each.
        plain: what becomes of what stays, which the maps have in them already; None if it stays as
            it is.
    """
    if len(maps) == 1 and isinstance(shares[0], float) and shares[0] == 1:
        return maps[0](x)
    kept: Tensor = x if plain is None else plain(x)
    total = kept
    for each, share in zip(maps, shares, strict=True):
        total = total + share * (each(x) - kept)
    return total
