"""One step downhill for a draft, on what the optimiser minimises.

What a network paints of a photo has an error that only its own features tell: the gradient of
Gatys et al. 2016 (eqs. 3 and 6) comes back through the ReLUs that are open in what was painted, so
no network that sees the photo alone can foresee it. In full size it would cost as much as all the
rest; at half the size it costs a quarter of that, and one step takes a fifth off a draft.

The gradient is that of the default objective at some of its layers, per pixel, so that it does not
depend on the picture's size. Its coarse parts are made larger, as they are too small in any
gradient of pixels; how much larger, and how long a step is, the style's code says.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.fast.decoder import CODE, Shade, enlarged, mixed
from impasto.fast.maps import Affine, Share
from impasto.fast.statistics import Statistics, in_float32
from impasto.settings import STYLE_WEIGHT

__all__ = ["BANDS", "KEPT", "TAKEN", "Descent", "Seeds", "energy", "pulls", "stride_of"]

TAKEN: Final = {"relu1_2": 4 / 11, "relu2_2": 2 / 11, "relu3_2": 2 / 11, "relu4_1": 3 / 11}
"""Where style is compared, and how much each layer counts: one of each block, for all that the
default objective has there. With all nine layers a step brings little more, and costs more."""

KEPT: Final = ("relu3_2",)
"""Where content is compared, for all that it is compared with: with relu4_2 too, the same."""

BANDS: Final = {1: 2.0e-4, 4: 2.5e-4, 8: 3.5e-4}
"""The step as a multiple of the gradient's means over squares of so many px; the code multiplies
them. In sum about 1 / (f + 1/8) for f cycles per px."""

FARTHEST: Final = 0.15
"""Which change of a value no step exceeds: flat or foreign pictures have gradients without end."""

MOST: Final = 4.0
"""The logarithm of the most that a code multiplies or divides a length by."""


def stride_of(layer: str) -> int:
    """How many px a position of the layer, such as `relu3_2`, advances."""
    return int(2 ** (int(layer.removeprefix("relu").partition("_")[0]) - 1))


def energy(features: Tensor) -> Tensor:
    """The squares at each position, summed over channels: `(N, C, h, w)` to `(N, 1, h, w)`."""
    return features.float().square().sum(1, keepdim=True)


def pulls(own: Mapping[str, Statistics], aim: Mapping[str, Statistics]) -> dict[str, Affine]:
    """The maps that take features to the style loss's gradient there.

    Args:
        own: of the features of what was painted, by layer, for all of `TAKEN`.
        aim: of those of the style, likewise.

    Returns:
        F to 4 w (G − A) F / |A|² each (Gatys et al. 2016, eq. 6), per pixel.
    """
    found = {}
    for layer, share in TAKEN.items():
        G, A = _gram(own[layer]), _gram(aim[layer])
        whole = A.square().sum((1, 2), keepdim=True) + 0.01 * A.shape[1] ** 2
        matrix = 4 * STYLE_WEIGHT * share * stride_of(layer) ** 2 / whole * (G - A)
        found[layer] = Affine(
            matrix, torch.zeros_like(matrix[0, :1]), torch.zeros_like(matrix[0, :1])
        )
    return found


def _gram(each: Statistics) -> Tensor:
    with in_float32(each.mean):
        return each.covariance + each.mean[:, :, None] * each.mean[:, None]


class Seeds:
    """The objective's gradient with respect to features, per pixel, layer by layer.

    Args:
        kept: features of the photo, `(N, C, h, w)`, for all of `KEPT`.
        energies: of what `energy` gives of these.
        styles: what `pulls` gave, for each style.
        shares: how much of the objective is each style's, by layer; in sum at most 1.
    """

    def __init__(
        self,
        kept: Mapping[str, Tensor],
        energies: Mapping[str, Statistics],
        styles: Sequence[Mapping[str, Affine]],
        shares: Mapping[str, Sequence[Share]],
    ) -> None:
        self.kept, self.energies, self.styles, self.shares = kept, energies, styles, shares

    def __call__(self, layer: str, x: Tensor) -> Tensor | float:
        """For features of what was painted, `(N, C, h, w)`; 0 where nothing is compared."""
        terms = []
        if layer in TAKEN:
            pairs = zip(self.styles, self.shares[layer], strict=True)
            terms += [_shared(pull[layer](x), share) for pull, share in pairs]
        if layer in KEPT:
            mean = self.energies[layer].mean[..., None, None]
            scale = 2 / len(KEPT) * stride_of(layer) ** 2 / (mean + 0.01 * x.shape[1])
            missed = scale.to(x.dtype) * (x - self.kept[layer])
            where = sum(self.shares[layer][1:], self.shares[layer][0])
            terms.append(_shared(missed, where))
        return sum(terms[1:], terms[0]) if terms else 0.0


def _shared(x: Tensor, share: Share) -> Tensor:
    """The share of it; as it is where that is all."""
    return x if isinstance(share, float) and share == 1 else x * share


class Descent(nn.Module):
    """How long a step is, and of what: as a style's code, fitted to the photo, says."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths = nn.Linear(CODE, len(BANDS))
        nn.init.zeros_(self.lengths.weight)
        nn.init.zeros_(self.lengths.bias)

    def forward(self, gradient: Tensor, styles: Sequence[Shade]) -> Tensor:
        """The step.

        Args:
            gradient: with respect to pixels, `(N, 3, h, w)`, sides multiples of the largest band.
            styles: see `Shade`, at the pixels' size.
        """
        lengths = mixed(self.lengths, styles).clamp(-MOST, MOST).exp()
        total = torch.zeros((), device=gradient.device, dtype=gradient.dtype)
        for number, (side, usual) in enumerate(BANDS.items()):
            part = gradient
            if side > 1:
                part = enlarged(F.avg_pool2d(part, side), side)
            total = total - usual * lengths[:, number : number + 1] * part
        return FARTHEST * torch.tanh(total / FARTHEST)
