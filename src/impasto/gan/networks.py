"""The classic networks: a generator and a discriminator of strided convolutions.

Radford, Metz & Chintala 2016 (arXiv:1511.06434), section 3 and figure 1, with the widths of the
well-known PyTorch tutorial; `docs/gan.md` says where each number comes from.
"""

import itertools
import math
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from impasto.errors import SettingsError

__all__ = ["Discriminator", "GeneratorNet", "Norm", "count_parameters"]

Norm = Literal["batch", "layer", "spectral", "none"]
"""How a discriminator keeps its activations in hand."""

SIDES: Final = (32, 64, 128, 256)
"""Sides of pictures that the classic can have, px."""

LEAK: Final = 0.2
SPREAD: Final = 0.02
"""Slope of leaky ReLU, and deviation of fresh weights (Radford et al. 2016, section 4)."""


class GeneratorNet(nn.Module):
    """Latents `(N, latent)` to pictures `(N, 3, side, side)` in [-1, 1].

    A transposed convolution to 4×4, then one for every doubling; batch norm and ReLU after each but
    the last, which ends in tanh.

    Args:
        side: of the pictures, px: a power of two from 32 to 256.
        latent: numbers in a latent vector.
        width: feature maps before the last layer; each layer before has twice as many.
    """

    def __init__(self, side: int, latent: int = 100, width: int = 64) -> None:
        super().__init__()
        doublings = _doublings(side)
        self.side, self.latent = side, latent
        channels = [width << i for i in reversed(range(doublings))]  # 512, 256, 128, 64 for 64 px
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent, channels[0], 4, 1, 0, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(inplace=True),
        ]
        for before, after in itertools.pairwise(channels):
            layers += [
                nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ConvTranspose2d(channels[-1], 3, 4, 2, 1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, z: Tensor) -> Tensor:
        """The pictures of latents `(N, latent)`."""
        pictures: Tensor = self.layers(z[:, :, None, None])
        return pictures


class Discriminator(nn.Module):
    """Pictures `(N, 3, side, side)` in [-1, 1] to logits `(N,)`: how real they look.

    A strided convolution for every halving down to 4×4, leaky ReLU after each, and one more to a
    single number. Between them, `norm`.

    Args:
        side: of the pictures, px.
        width: feature maps of the first layer; each layer after has twice as many.
        norm: `batch` (Radford et al. 2016); `layer` for a gradient penalty, which looks at each
            picture by itself (Gulrajani et al. 2017, section 4); `spectral` (Miyato et al. 2018,
            section 2.1); or `none`.
    """

    def __init__(self, side: int, width: int = 64, norm: Norm = "batch") -> None:
        super().__init__()
        channels = [width << i for i in range(_doublings(side))]  # 64, 128, 256, 512 for 64 px
        first = _convolution(3, channels[0], 2, 1, bias=norm != "batch")
        layers: list[nn.Module] = [first, nn.LeakyReLU(LEAK, inplace=True)]
        for before, after in itertools.pairwise(channels):
            layers.append(_convolution(before, after, 2, 1, bias=norm in ("spectral", "none")))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(after))
            elif norm == "layer":
                layers.append(nn.GroupNorm(1, after))
            layers.append(nn.LeakyReLU(LEAK, inplace=True))
        layers.append(_convolution(channels[-1], 1, 1, 0, bias=norm != "batch"))
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)
        if norm == "spectral":
            for layer in self.layers:
                if isinstance(layer, nn.Conv2d):
                    nn.init.orthogonal_(layer.weight)
                    spectral_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of pictures."""
        logits: Tensor = self.layers(x)
        return logits.flatten()


def count_parameters(module: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(parameter.numel() for parameter in module.parameters())


def _convolution(before: int, after: int, stride: int, padding: int, *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(before, after, 4, stride, padding, bias=bias)


def _doublings(side: int) -> int:
    """From 4×4 to `side`."""
    if side not in SIDES:
        told = ", ".join(map(str, SIDES))
        raise SettingsError(f"the size is {side!r}; the classic can have {told} px")
    return int(math.log2(side)) - 2


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """N(0, 0.02) for convolutions; N(1, 0.02) for the scales of batch norm."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, SPREAD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, SPREAD)
        nn.init.zeros_(module.bias)
