"""The adversarial losses of a GAN, by name, and the gradient penalties that go with them.

The discriminator D gives each picture a logit, a number without bounds that is larger for what
looks real; the literature on Wasserstein distances calls it a critic. In tensors, logits are
`(N,)` and pictures `(N, 3, H, W)`. Everything returns a scalar, in float32, or in float64 if that
is what the logits or gradients are: half precision is too coarse for sums of squares.

- `bce`: −log σ(D(real)) − log(1 − σ(D(fake))) for the discriminator (Goodfellow et al. 2014,
  eq. 1) and −log σ(D(fake)) for the generator (their section 3), which does not saturate where
  the discriminator is sure; DCGAN trains so. In logits −log σ(x) is softplus(−x).
- `wgan-gp`: D(fake) − D(real), and −D(fake) (Arjovsky et al. 2017, section 3). It means something
  only together with `gradient_penalty` (Gulrajani et al. 2017, eq. 3).
- `hinge`: max(0, 1 − D(real)) + max(0, 1 + D(fake)), and −D(fake) (Lim & Ye 2017; Miyato et al.
  2018, eq. 16 and 17).
- `relativistic`: softplus(D(fake) − D(real)) for pairs of a real picture and a generated one, and
  its mirror softplus(D(real) − D(fake)) (Jolicoeur-Martineau 2018; RpGAN in Huang et al. 2024, who
  train it with `zero_centred_penalty` at real and at generated pictures).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LOSSES", "GanLoss", "gradient_penalty", "zero_centred_penalty"]


@dataclass(frozen=True)
class GanLoss:
    """What the discriminator and the generator minimise.

    Attributes:
        name: as in `LOSSES`.
        summary: what it is, in a few words.
        source: the papers.
        pairs: whether the generator's loss looks at real logits as well.
    """

    name: str
    summary: str
    source: str
    pairs: bool
    _discriminator: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    _generator: Callable[..., Tensor] = field(repr=False)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss.

        Args:
            real: logits of real pictures, `(N,)`.
            fake: logits of generated pictures, `(N,)`.

        Returns:
            A scalar, the mean over pictures.
        """
        return self._discriminator(_widen(real), _widen(fake))

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """The generator's loss.

        Args:
            fake: logits of generated pictures, `(N,)`.
            real: logits of real pictures, `(N,)`; only a loss with `pairs` looks at them.

        Returns:
            A scalar, the mean over pictures.

        Raises:
            ValueError: a loss with `pairs` got no real logits.
        """
        if not self.pairs:
            return self._generator(_widen(fake))
        if real is None:
            raise ValueError(f"the {self.name} loss of a generator needs the real logits too")
        return self._generator(_widen(fake), _widen(real))


def _bce_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _bce_generator(fake: Tensor) -> Tensor:
    return F.softplus(-fake).mean()


def _wasserstein_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return fake.mean() - real.mean()


def _hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _linear_generator(fake: Tensor) -> Tensor:
    return -fake.mean()


def _relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(fake - real).mean()


def _relativistic_generator(fake: Tensor, real: Tensor) -> Tensor:
    return F.softplus(real - fake).mean()


LOSSES: Final[Mapping[str, GanLoss]] = MappingProxyType(
    {
        loss.name: loss
        for loss in (
            GanLoss(
                name="bce",
                summary="cross-entropy of real and generated, the non-saturating original",
                source="Goodfellow et al. 2014, eq. 1 and section 3; Radford et al. 2016",
                pairs=False,
                _discriminator=_bce_discriminator,
                _generator=_bce_generator,
            ),
            GanLoss(
                name="wgan-gp",
                summary="the Wasserstein distance, by a critic whose gradient is held at norm 1",
                source="Arjovsky et al. 2017, section 3; Gulrajani et al. 2017, eq. 3",
                pairs=False,
                _discriminator=_wasserstein_discriminator,
                _generator=_linear_generator,
            ),
            GanLoss(
                name="hinge",
                summary="a margin on either side, beyond which a picture does not count",
                source="Lim & Ye 2017; Miyato et al. 2018, eq. 16 and 17",
                pairs=False,
                _discriminator=_hinge_discriminator,
                _generator=_linear_generator,
            ),
            GanLoss(
                name="relativistic",
                summary="which of a pair is the real one, as R3GAN trains",
                source="Jolicoeur-Martineau 2018; Huang et al. 2024",
                pairs=True,
                _discriminator=_relativistic_discriminator,
                _generator=_relativistic_generator,
            ),
        )
    }
)
"""Every loss by its name."""


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor
) -> Tensor:
    """The mean of (‖∇D‖₂ − 1)² between real and generated pictures.

    Gulrajani et al. 2017, eq. 3 and algorithm 1, without the weight. The gradient is taken of each
    picture's logit by that picture alone, so the critic must not mix the pictures of a batch, as
    batch norm does (their section 4). No gradient flows to `real`, `fake` or `mix`.

    Args:
        critic: from pictures `(N, 3, H, W)` to logits `(N,)`.
        real: real pictures, `(N, 3, H, W)`.
        fake: generated pictures, the same shape.
        mix: the share of the real picture in each mixture, `(N,)`, uniform in [0, 1].

    Returns:
        A scalar, never negative, which can be differentiated by the critic's weights.
    """
    share = mix[:, None, None, None]
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    gradients = _gradients(critic(between), between)
    norms: Tensor = torch.linalg.vector_norm(gradients, dim=1)  # its gradient at 0 is 0, not NaN
    return (norms - 1).square().mean()


def zero_centred_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Half the mean of ‖∇D‖₂² at pictures: R1 at real ones and R2 at generated ones.

    Mescheder et al. 2018, eq. 9 and 10, without the weight γ.

    Args:
        logits: of these pictures, `(N,)`, with their graph.
        images: pictures `(N, 3, H, W)` that require a gradient.

    Returns:
        A scalar, never negative, which can be differentiated by the discriminator's weights.
    """
    return _gradients(logits, images).square().sum(1).mean() / 2


def _gradients(logits: Tensor, images: Tensor) -> Tensor:
    """The gradient of each logit by its own picture, flat: `(N, 3·H·W)`."""
    (gradients,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return _widen(gradients.flatten(1))


def _widen(x: Tensor) -> Tensor:
    """The same numbers in at least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
