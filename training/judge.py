"""What the one-pass network learns by: the optimiser's objective, for batches of pairs."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.encoder import Encoder
from impasto.losses import gram_matrix
from impasto.settings import TransferSettings

OBJECTIVE = TransferSettings()
"""Whose layers and weights are learnt."""

MOMENTS = ("relu3_1", "relu4_1", "relu5_1")
"""Where means and deviations are compared."""


def relative(error: Tensor, energy: Tensor, values: int) -> Tensor:
    """The error over the energy, per picture.

    Args:
        error: sums of squares, `(N,)`.
        energy: of what was to be reached, likewise.
        values: how many were summed. The encoder's features are 1 on average; a flat picture, whose
            features are nearly 0, is not taken for more than a hundred times as important.
    """
    return error / (energy + 0.01 * values)


class Judge:
    """The optimiser's default objective, for batches.

    Args:
        encoder: the network that looks.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.content, self.style = OBJECTIVE.content_layers, OBJECTIVE.style_layers
        self.layers = list(dict.fromkeys([*self.style, *self.content]))

    def look(self, x: Tensor) -> dict[str, Tensor]:
        """The features that losses compare."""
        return self.encoder(x, self.layers)

    def losses(
        self, x: Mapping[str, Tensor], photo: Mapping[str, Tensor], style: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """`content`, `style`, `moments`, and the style loss of the `photo` itself, `(N,)` each."""
        total = sum(self.content.values())
        content = torch.stack([
            share / total * relative(
                (x[name] - photo[name]).float().square().sum((1, 2, 3)),
                photo[name].float().square().sum((1, 2, 3)),
                photo[name][0].numel(),
            )
            for name, share in self.content.items()
        ]).sum(0)  # fmt: skip
        total = sum(self.style.values())
        grams: list[Tensor] = []
        photos: list[Tensor] = []
        moments: list[Tensor] = []
        for name, share in self.style.items():
            A = gram_matrix(style[name])
            energy = A.square().sum((1, 2))
            for features, found in ((x, grams), (photo, photos)):
                error = (gram_matrix(features[name]) - A).square().sum((1, 2))
                found.append(share / total * relative(error, energy, A[0].numel()))
            if name not in MOMENTS:
                continue
            (a, da), (b, db) = (_moments(each[name]) for each in (x, style))
            spread = (b.square() + db.square()).sum(1)
            ratio = relative(
                (a - b).square().sum(1) + (da - db).square().sum(1), spread, b.shape[1]
            )
            moments.append(2 * ((1 + ratio).sqrt() - 1))  # of what is far off only the root
        return {
            "content": content,
            "style": torch.stack(grams).sum(0),
            "moments": torch.stack(moments).mean(0),
            "photo": torch.stack(photos).sum(0),
        }


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    x = features.float()
    mean = x.mean((2, 3))
    return mean, ((x - mean[..., None, None]).square().mean((2, 3)) + 1e-6).sqrt()


@dataclass(frozen=True)
class Seen:
    """A batch of pictures, `(N, 3, H, W)`, and what the judge sees in them, whole and halved."""

    pictures: Tensor
    whole: Mapping[str, Tensor]
    half: Mapping[str, Tensor]

    def rolled(self, by: int) -> "Seen":
        """The same in another order."""
        if by == 0:
            return self
        whole, half = (
            {name: x.roll(by, 0) for name, x in each.items()} for each in (self.whole, self.half)
        )
        return Seen(self.pictures.roll(by, 0), whole, half)
