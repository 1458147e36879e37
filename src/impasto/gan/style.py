"""The style-based networks: small kin of StyleGAN2's generator and of its residual discriminator.

    z ─ mapping ─ w ─┬──────────┬───────────────────┬───────── ...
                     │          │                   │
           const 4×4 ─ block 4 ─ block 8: ×2, ×1 ─ block 16 ─ ...
                          │ rgb      │ rgb             │ rgb
                          └─── ×2 ─── + ────── ×2 ───── + ─── ... ─ picture

Karras et al. 2019 (arXiv:1812.04948) and 2020 (arXiv:1912.04958). What differs: the convolution of
a doubling is done before the pixels are interpolated, so it costs a quarter, and nothing is
transposed; the discriminator takes means of 2 × 2 before its second convolution.

Blocks are named by their side in px. So a network of 128 px has all the blocks of one of 64 px;
see `grow_generator` and `grow_discriminator`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from impasto.errors import RunError, SettingsError
from impasto.gan.layers import (
    GAIN,
    Convolution,
    Dense,
    Modulated,
    ToRGB,
    active,
    exact,
    halved,
    minibatch_deviation,
    normalised,
    upsampled,
)

__all__ = [
    "Noises",
    "StyleDiscriminator",
    "StyleGenerator",
    "grow_discriminator",
    "grow_generator",
    "sides",
]

GROUP: Final = 4
"""Pictures that the discriminator compares with one another."""

MAPPING_RATE: Final = 0.01
"""Of the mapping network's learning (Karras et al. 2019, appendix C)."""

Noises = Sequence[Tensor]
"""For each modulated convolution `(N or 1, 1, s, s)` of its output's side s."""


def sides(side: int) -> list[int]:
    """The sides of a network's blocks, px: 4, 8, ... up to `side`.

    Raises:
        SettingsError: it is no power of two from 8 on.
    """
    if side < 8 or side & (side - 1):
        raise SettingsError(f"the side is {side!r}; it is a power of two from 8 px on")
    return [1 << i for i in range(2, side.bit_length())]


class Mapping(nn.Module):
    """Latents z `(N, latent)` from N(0, 1) to styles w of the same size, and the mean of these.

    Args:
        latent: numbers in z and in w.
        depth: layers.
    """

    mean: Tensor

    def __init__(self, latent: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Dense(latent, latent, rate=MAPPING_RATE, gain=GAIN) for _ in range(depth)
        )
        self.register_buffer("mean", torch.zeros(latent))

    def forward(self, z: Tensor) -> Tensor:
        with exact(z):
            w = normalised(z)
            for layer in self.layers:
                w = active(layer(w))
        return w

    def truncated(self, w: Tensor, truncation: float) -> Tensor:
        """Styles nearer to their mean, or further: 1 leaves them, 0 gives the mean.

        Karras et al. 2019, appendix B.
        """
        return w if truncation == 1 else torch.lerp(self.mean.expand_as(w), w, truncation)


class StyleGenerator(nn.Module):
    """Latents `(N, latent)` to pictures `(N, 3, side, side)`, about [-1, 1] and not clipped.

    Args:
        side: of the pictures, px: a power of two from 8.
        latent: numbers in z and in w.
        channels: feature maps of each block from 4 px on.
        depth: layers of the mapping network.

    Attributes:
        sides: of the blocks, px.
        styles: how many w a picture takes, one for each modulated convolution.
        mapping: from z to w.
    """

    def __init__(
        self, side: int, latent: int = 128, channels: Sequence[int] = (), depth: int = 4
    ) -> None:
        super().__init__()
        self.side, self.latent, self.sides = side, latent, sides(side)
        channels = _checked(channels, self.sides)
        self.styles = 2 * len(self.sides) - 1
        self.mapping = Mapping(latent, depth)
        self.const = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.first = nn.ModuleDict()  # doubles the side
        self.second = nn.ModuleDict({"4": Modulated(channels[0], channels[0], latent)})
        self.rgb = nn.ModuleDict({"4": ToRGB(channels[0], latent)})
        for s, (before, after) in zip(self.sides[1:], itertools.pairwise(channels), strict=True):
            self.first[str(s)] = Modulated(before, after, latent, up=True)
            self.second[str(s)] = Modulated(after, after, latent)
            self.rgb[str(s)] = ToRGB(after, latent)
        source = torch.Generator().manual_seed(0)
        for i, s in enumerate(self.noise_sides):
            self.register_buffer(f"noise_{i}", torch.randn(1, 1, s, s, generator=source))

    @property
    def noise_sides(self) -> list[int]:
        """The side of each convolution's noise, px."""
        return [4] + [s for s in self.sides[1:] for _ in range(2)]

    def forward(self, z: Tensor) -> Tensor:
        """The pictures of latents, each of a single style, with the noise that is stored."""
        return self.synthesis(self.broadcast(self.mapping(z)))

    def broadcast(self, w: Tensor) -> Tensor:
        """The same style `(N, latent)` for every convolution: `(N, styles, latent)`."""
        return w[:, None].expand(-1, self.styles, -1)

    def synthesis(self, w: Tensor, noises: Noises | None = None) -> Tensor:
        """The pictures of styles.

        Args:
            w: `(N, styles, latent)`.
            noises: one each; by default those that are stored, the same for every picture.

        Returns:
            `(N, 3, side, side)`, float32.
        """
        if noises is None:
            noises = [self.get_buffer(f"noise_{i}") for i in range(self.styles)]
        x = self.const.expand(len(w), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        x = self.second["4"](x, w[:, 0], noises[0])
        rgb: Tensor = self.rgb["4"](x, w[:, 0])
        for number, s in enumerate(self.sides[1:]):
            i = 2 * number + 1
            x = self.first[str(s)](x, w[:, i], noises[i])
            x = self.second[str(s)](x, w[:, i + 1], noises[i + 1])
            rgb = upsampled(rgb) + self.rgb[str(s)](x, w[:, i + 1])
        return rgb


class Block(nn.Module):
    """A residual block that halves the side, `(N, before, H, W)` to `(N, after, H/2, W/2)`."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = Convolution(before, before, gain=GAIN)
        self.second = Convolution(before, after, gain=GAIN)
        self.skip = Convolution(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = active(self.second(halved(active(self.first(x)))))
        both: Tensor = (y + self.skip(halved(x))) * math.sqrt(0.5)
        return both


class StyleDiscriminator(nn.Module):
    """Pictures `(N, 3, side, side)` in [-1, 1] to logits `(N,)`: how real they look.

    Args:
        side: of the pictures, px: a power of two from 8.
        channels: feature maps of each block from 4 px on.
    """

    def __init__(self, side: int, channels: Sequence[int] = ()) -> None:
        super().__init__()
        self.side, self.sides = side, sides(side)
        channels = _checked(channels, self.sides)
        self.rgb = Convolution(3, channels[-1], 1)
        self.blocks = nn.ModuleDict()
        for s, (after, before) in zip(
            reversed(self.sides[1:]), itertools.pairwise(reversed(channels)), strict=True
        ):
            self.blocks[str(s)] = Block(after, before)
        self.last = Convolution(channels[0] + 1, channels[0], gain=GAIN)
        self.dense = Dense(channels[0] * 16, channels[0], gain=GAIN)
        self.logit = Dense(channels[0], 1)

    def forward(self, x: Tensor, group: int = 0) -> Tensor:
        """The logits of pictures.

        Args:
            x: the pictures.
            group: how many neighbours are compared with one another; 0 for up to four of them.
        """
        x = self.rgb(x)
        for block in self.blocks.values():
            x = block(x)
        x = minibatch_deviation(x, group or math.gcd(len(x), GROUP))
        x = active(self.last(x)).flatten(1)
        with exact(x):
            logits: Tensor = self.logit(active(self.dense(x.to(self.dense.weight.dtype))))
        return logits.flatten()


@torch.no_grad()
def grow_generator(large: StyleGenerator, small: StyleGenerator) -> None:
    """Gives a generator the weights of one of half its side or less.

    Until it learns more, it paints the same pictures, enlarged: new blocks add no colour.

    Raises:
        RunError: the networks do not fit.
    """
    _take(large, small)
    for s in large.sides[len(small.sides) :]:
        large.rgb[str(s)].get_parameter("weight").zero_()


@torch.no_grad()
def grow_discriminator(large: StyleDiscriminator, small: StyleDiscriminator) -> None:
    """Gives a discriminator the weights of one of half its side or less.

    Until it learns more, it judges the reduced pictures alike: new blocks begin with their skip
    alone, and the last of these turns what came of the colours into what the small one made of it.

    Raises:
        RunError: the networks do not fit.
    """
    _take(large, small, but=("rgb.",))
    new = [large.blocks[str(s)] for s in reversed(large.sides[len(small.sides) :])]
    if not new:
        large.rgb.load_state_dict(small.rgb.state_dict())
        return
    colours = large.rgb.weight.flatten(1).double() * large.rgb.scale  # (C, 3)
    for block in new:
        assert isinstance(block, Block)
        block.second.weight.zero_()
        skip = block.skip
        if block is new[-1]:  # what it is to give, from what it gets of each colour
            wanted = small.rgb.weight.flatten(1).double() * small.rgb.scale
            turned = wanted @ torch.linalg.pinv(colours) * math.sqrt(2) / skip.scale
            skip.weight.copy_(turned[:, :, None, None])
            assert skip.bias is not None
            assert small.rgb.bias is not None
            skip.bias.copy_(small.rgb.bias * math.sqrt(2))
        colours = skip.weight.flatten(1).double() * skip.scale @ colours * math.sqrt(0.5)


def _take(large: nn.Module, small: nn.Module, but: tuple[str, ...] = ()) -> None:
    """Copies what both have by name."""
    theirs = {name: t for name, t in small.state_dict().items() if not name.startswith(but)}
    ours = large.state_dict()
    for name, tensor in theirs.items():
        if name not in ours or ours[name].shape != tensor.shape:
            raise RunError(
                "the networks do not fit: to begin with another run, its --channels, --latent and "
                "--mapping have to be the same, and its size at most this one's"
            )
        ours[name].copy_(tensor)


def _checked(channels: Sequence[int], of: list[int]) -> tuple[int, ...]:
    """Channels, one number for each side."""
    if len(channels) != len(of):
        told = ", ".join(map(str, of))
        raise SettingsError(
            f"there are {len(channels)} numbers of channels; one each is needed for {told} px"
        )
    return tuple(channels)
