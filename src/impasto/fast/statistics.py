"""Means and covariances of features, and the transform that gives features those of another."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

__all__ = [
    "SHRINK",
    "Statistics",
    "Sums",
    "blend",
    "in_float32",
    "moving_matrix",
    "recolor_matrix",
    "statistics",
    "transfer_matrix",
]

SHRINK: Final = 0.25
"""How far covariances are taken to their diagonal: at 0 flat regions are amplified to noise, at 1
strokes are lost, as they are by adaptive instance normalisation (Huang & Belongie 2017)."""

ROOM: Final = 0.02
"""What is added to the variances, as a share of their mean: how flat a direction may be."""

FLAT: Final = 1e-6
"""What is added to all variances beside that: it counts where both pictures are flat, as a single
position is. Exporters take 1e-8 for 0."""

LEAST: Final = 0.006
"""The least root of an eigenvalue, as a share of the norm, that is found exactly: of covariances of
256 channels the least there is, with half of `ROOM`; of second moments nearly so (0.004)."""


@dataclass(frozen=True)
class Statistics:
    """What is kept of feature maps.

    Attributes:
        mean: `(N, C)`, float32.
        covariance: `(N, C, C)`, float32.
    """

    mean: Tensor
    covariance: Tensor
    _roots: dict[tuple[float, float, bool], Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def root(self, room: float, shrink: float, *, centred: bool) -> Tensor:
        """The root of a style's moments: found once, as it serves many pictures.

        Args:
            room: see `transfer_matrix`.
            shrink: likewise.
            centred: whether of the covariance, or of the second moments; see `moving_matrix`.
        """
        key = room, shrink, centred
        found = self._roots.get(key)
        if found is None or (found.is_inference() and not torch.is_inference_mode_enabled()):
            S = _shrunk(self.covariance, shrink)
            extra = room * _spread(S)
            with in_float32(S):
                found, _ = _roots(_raised(S if centred else _uncentred(S, self.mean), extra))
            if not found.requires_grad:
                self._roots[key] = found
        return found


def statistics(
    features: Tensor, weight: Tensor | None = None, *, dtype: torch.dtype = torch.float64
) -> Statistics:
    """Mean and covariance over all positions.

    Args:
        features: `(N, C, h, w)`.
        weight: how much each position counts, `(N or 1, 1, h, w)`, not negative, its sum above 0;
            None for all alike.
        dtype: in which sums are added up; float32 is faster, and exact enough to train.
    """
    x = features.float().flatten(2)
    with in_float32(x):
        if weight is None:
            mean = x.mean(2)
            x = x - mean[..., None]
            return Statistics(mean, _products(x, x, dtype) / x.shape[2])
        share = weight.float().flatten(2)
        share = share / share.sum(2, keepdim=True)
        mean = (x * share).sum(2)
        x = x - mean[..., None]
        return Statistics(mean, _products(x * share, x, dtype))


def _products(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Products a bᵀ, `(N, C, C)`, of `(N, C, positions)`, as exact as its float32 can hold.

    What is nearly flat is amplified later, and its rounding with it. So some products of fewer
    positions are added up in float64; an exported network does all of it in float64.
    """
    if dtype == torch.float32:
        return a @ b.mT
    if torch.compiler.is_compiling():
        return (a.double() @ b.double().mT).float()
    parts = math.gcd(a.shape[2], 16)
    a, b = (x.view(*x.shape[:2], parts, -1).transpose(1, 2) for x in (a, b))
    return (a @ b.mT).double().sum(1).float()


class Sums:
    """Statistics of parts of a picture, put together (Chan, Golub & LeVeque 1979, eqs. 1.5)."""

    def __init__(self) -> None:
        self.count = 0.0
        self.mean = torch.zeros((), dtype=torch.float64)
        self.spread = torch.zeros((), dtype=torch.float64)  # count times covariance

    def add(self, part: Statistics, count: float) -> None:
        """Takes in the statistics of so many positions, for one picture."""
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


def blend(parts: Sequence[Statistics], weights: Sequence[float]) -> Statistics:
    """Weighted means of the means and of the covariances.

    Args:
        parts: of the same shapes, at least one.
        weights: one each, above 0; only their ratios matter.
    """
    shares = [weight / sum(weights) for weight in weights]
    mean = sum((s * part.mean for s, part in zip(shares, parts, strict=True)), torch.zeros(()))
    covariance = sum(
        (s * part.covariance for s, part in zip(shares, parts, strict=True)), torch.zeros(())
    )
    return Statistics(mean, covariance)


def transfer_matrix(
    content: Statistics,
    style: Statistics,
    *,
    room: float = ROOM,
    shrink: float = SHRINK,
) -> Tensor:
    """What whitens the one and colours it as the other (Li et al. 2017, eqs. 1 and 2).

    M = S^½ C^−½, where both covariances get a multiple of the unit matrix first. So a picture in
    its own style does not change, and a flat one, whose covariance has no inverse, is amplified at
    most about √(C / room) times beyond the style's own spread.

    Args:
        content: of the features to be changed.
        style: to be reached; of the same shapes.
        room: the multiple, as a share of the style's mean variance, and of the mean of both.
        shrink: how far both covariances are first taken to their diagonal, 0 to 1.

    Returns:
        `(N, C, C)`, float32: y = M (x − content.mean) + style.mean.
    """
    with in_float32(content.covariance):
        _, inverse, after = _both_roots(content, style, room, shrink, centred=True)
        return after @ inverse


def moving_matrix(
    content: Statistics,
    style: Statistics,
    *,
    room: float = ROOM,
    shrink: float = SHRINK,
) -> Tensor:
    """What gives features the second moments of another, and changes them least.

    A Gram matrix is of second moments, E[x xᵀ]: means are in it. Of all linear maps M with
    M C Mᵀ = S, M = C^−½ (C^½ S C^½)^½ C^−½ moves features least (Peyré & Cuturi 2019, remark 2.31,
    for Gaussians of mean 0); so style costs the least content. Where the photo is smooth, features
    are small and stay small; whitening and colouring (`transfer_matrix`) gives them the style's
    mean, which is full of marks. It is computed as S^½ U C^−½, where U is the orthogonal factor of
    S^½ C^½. What hardly differs from the mean, as all does in a flat picture, may become fainter.

    Args:
        content: of the features to be changed.
        style: to be reached; of the same shapes.
        room: see `transfer_matrix`.
        shrink: how far both covariances are first taken to their diagonal, 0 to 1.

    Returns:
        `(N, C, C)`, float32: y = M x.
    """
    with in_float32(content.covariance):
        before, inverse, after = _both_roots(content, style, room, shrink, centred=False)
        return after @ _polar(after @ before) @ inverse


def _both_roots(
    content: Statistics, style: Statistics, room: float, shrink: float, *, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """C^½, C^−½ and S^½ of covariances or of second moments; see `transfer_matrix`."""
    C = _shrunk(content.covariance, shrink)
    extra = room * (_spread(C) + _spread(style.covariance)) / 2
    moments = C if centred else _uncentred(C, content.mean)
    before, inverse = _roots(_raised(moments, extra))
    return before, inverse, style.root(room, shrink, centred=centred)


def _uncentred(covariance: Tensor, mean: Tensor) -> Tensor:
    """Second moments."""
    return covariance + mean[:, :, None] * mean[:, None]


def _spread(A: Tensor) -> Tensor:
    """The mean of the variances, `(N, 1)`."""
    return A.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)


def _raised(A: Tensor, room: Tensor) -> Tensor:
    """Covariances with so much more variance in all directions, `(N, 1)`; see `FLAT`."""
    return A + (room + FLAT)[..., None] * torch.eye(A.shape[-1], device=A.device)


def _shrunk(covariance: Tensor, share: float) -> Tensor:
    """Nearer to its diagonal: what a few hundred positions say of so many pairs is half chance."""
    diagonal = torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))
    return covariance + share * (diagonal - covariance)


def _roots(A: Tensor) -> tuple[Tensor, Tensor]:
    """A^½ and A^−½ of symmetric positive matrices (N, C, C), by a coupled Newton–Schulz iteration.

    Higham 2008, section 6.7: products alone, so that it runs in batches, has gradients where
    eigenvalues meet, and can be exported. Its steps are not Newton's but the quintics that bring
    all roots of the eigenvalues, which may be `LEAST` of the norm, nearest to 1 (Amsel et al. 2025,
    section 3). In float32 that is exact enough.
    """
    norm = A.square().sum((1, 2), keepdim=True).sqrt()
    eye = torch.eye(A.shape[-1], device=A.device)
    Y, Z = A / norm, eye
    for number, (a, b, c) in enumerate(QUINTICS):
        P = Y if number == 0 else times(Z, Y)
        T = a * eye + b * P + c * times(P, P)
        Y, Z = times(Y, T), T if number == 0 else times(T, Z)
    return Y * norm.sqrt(), Z / norm.sqrt()


def _polar(A: Tensor) -> Tensor:
    """The orthogonal factor U Vᵀ of matrices U Σ Vᵀ, `(N, C, C)`, by the same kind of iteration."""
    X = A / A.square().sum((1, 2), keepdim=True).sqrt()
    eye = torch.eye(A.shape[-1], device=A.device)
    for a, b, c in POLAR:
        P = times(X, X.mT)
        X = times(a * eye + b * P + c * times(P, P), X)
    return X


def times(a: Tensor, b: Tensor) -> Tensor:
    """The products of two batches of matrices."""
    return a @ b


QUINTICS: Final = (
    (8.256836694444967, -24.26527511839082, 17.958902644938963),
    (3.8549613305980444, -2.8784114912561867, 0.5543566934598583),
    (3.0425030178098247, -2.279525005122133, 0.48644553659713846),
    (2.108130589935297, -1.4900497023788422, 0.39970325167548804),
    (1.8782325330373728, -1.2535870320546576, 0.3753588839469091),
)
"""a, b and c of a x + b x³ + c x⁵, step by step: what is between `LEAST` and 1 comes within 1.1e-4
of 1."""

POLAR: Final = (
    (8.428252820008229, -24.53144357417952, 17.851299323334786),
    (4.211996568259302, -3.0652398684690323, 0.557790411617658),
    (4.20224529288828, -3.0586252429595153, 0.5570507883152227),
    (4.16135380839908, -3.030843388500125, 0.5539444138412888),
    (3.997876679613384, -2.919052622922061, 0.5414480186021335),
    (3.4550637846989076, -2.5380668270624405, 0.4989419885104095),
    (2.4471681301303136, -1.7650344249776306, 0.41398721030277963),
    (1.895551041025061, -1.2551954429594152, 0.3609370796420731),
    (1.8747357646729892, -1.249449186063456, 0.37471342887265735),
)
"""Likewise for products of two roots, all steps but the last made for what is 1.01 times as large:
what rounding brings above 1, as in matrices of nearly one direction, would grow without end
(likewise). What is between 4e-5 and 1 comes within 2e-5 of 1; what is below is moved less."""


def in_float32(x: Tensor) -> AbstractContextManager[Any]:
    """Where mixed precision would spoil sums and roots."""
    return torch.autocast(x.device.type, enabled=False)


def recolor_matrix(content: Statistics, style: Statistics) -> Tensor:
    """`transfer_matrix` for the channels of pixels: a grey style takes nearly all colour away."""
    return transfer_matrix(content, style, room=0.02, shrink=0.0)
