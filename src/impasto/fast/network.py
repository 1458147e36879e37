"""The network that paints in one pass: encoder, transform, decoder.

    pixels ─ recolour ─ encoder ─┬─ relu2_1, 1/2 ─ transform ──────────────┐
                                 ├─ relu3_1, 1/4 ─ transform ─────┐        │
                                 └─ relu4_1, 1/8 ─ transform ─ decoder ─ decoder ─ decoder ─ pixels

- The pixels get the mean and covariance of the style's colours first, in closed form: so the whole
  palette arrives, and the network spends nothing on it. Blurred, they are what it adds to.
- The encoder is the one that the losses look with (`impasto.encoder`), frozen. At three depths the
  photo's features are whitened and coloured with the style's covariance (Li et al. 2017).
- The decoder's convolutions are modulated by a code of the style (Karras et al. 2020, section 2.2),
  which chooses among its filters, as the gains of conditional normalisation do (Dumoulin et al.
  2017), but without statistics of the photo. A little noise, as much as the style asks for, gives
  flat regions something to make strokes of.

All that depends on the whole photo are its statistics in four places. None of them depends on
another but through the recolouring; so they can be gathered in two passes over tiles, and every
pixel then depends on its own neighbourhood alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.encoder import Encoder
from impasto.fast.statistics import Statistics, blend, recolor_matrix, statistics, transfer_matrix

__all__ = ["DEPTHS", "STRIDE", "FastNetwork", "StyleCode"]

DEPTHS: Final = {"half": "relu2_1", "quarter": "relu3_1", "eighth": "relu4_1"}
"""Where features are transformed: their resolution, and the encoder's layer."""

STRIDE: Final = 16
"""Sides have to be multiples of it, px."""

NOISE: Final = 256
"""Side of the tile of noise, positions; it is repeated over larger pictures."""

CODE: Final = 256
"""Length of the code of a style."""


Shade = tuple[Tensor, Tensor | float]
"""A style's code, `(N, CODE)`, and how much it counts: everywhere, or `(1, 1, h, w)`."""


@dataclass(frozen=True)
class StyleCode:
    """All that the network knows of a style.

    Attributes:
        colors: of its pixels, 3 channels.
        depths: of its features, by depth.
        deep: the means of what `FastNetwork.look` sees, `(N, CODE)`.
    """

    colors: Statistics
    depths: Mapping[str, Statistics]
    deep: Tensor

    @classmethod
    def blended(cls, codes: Sequence["StyleCode"], weights: Sequence[float]) -> "StyleCode":
        """One style of several.

        Args:
            codes: at least one.
            weights: one each, above 0; only their ratios matter.
        """
        shares = [weight / sum(weights) for weight in weights]
        deep = torch.stack([s * code.deep for s, code in zip(shares, codes, strict=True)]).sum(0)
        depths = {name: blend([code.depths[name] for code in codes], weights) for name in DEPTHS}
        return cls(blend([code.colors for code in codes], weights), depths, deep)

    def with_coarse(self, coarse: "StyleCode") -> "StyleCode":
        """The fine texture and the colours of this style, with the strokes of another."""
        depths = {**coarse.depths, "half": self.depths["half"]}
        return StyleCode(self.colors, depths, coarse.deep)


class Convolution(nn.Module):
    """A 3×3 convolution that repeats the border, with a leaky ReLU after it, or without.

    Args:
        before, after: channels.
        stride: 1 or 2.
        active: whether a leaky ReLU of slope 0.2 follows.
    """

    def __init__(self, before: int, after: int, *, stride: int = 1, active: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride)
        nn.init.kaiming_normal_(self.conv.weight, 0.2 if active else 1.0)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.pad(x, (1, 1, 1, 1), mode="replicate"))
        return F.leaky_relu(x, 0.2) if self.active else x


class Frozen(nn.Module):
    """The first four blocks of an encoder as a module that can be exported; it has no parameters.

    Args:
        encoder: whose weights it takes; with average pooling and replicated borders.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.name, self.sha256 = encoder.name, encoder.sha256
        self.channels = {name: encoder.plan.channels[layer] for name, layer in DEPTHS.items()}
        self._layers: list[str] = []
        for layer, weight, bias in encoder.convolutions(DEPTHS["eighth"]):
            self._layers.append(layer)
            self.register_buffer(f"{layer}_weight", weight, persistent=False)
            self.register_buffer(f"{layer}_bias", bias, persistent=False)
        for name, values in (("mean", encoder.plan.mean), ("std", encoder.plan.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = (x - self.get_buffer("mean")) / self.get_buffer("std")
        found = {}
        for layer in self._layers:
            if layer.endswith("_1") and layer != self._layers[0]:
                x = F.avg_pool2d(x, 2)
            padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
            weight, bias = self.get_buffer(f"{layer}_weight"), self.get_buffer(f"{layer}_bias")
            x = F.conv2d(padded, weight, bias).relu_()
            found[layer] = x
        return {name: found[layer] for name, layer in DEPTHS.items()}


class Modulated(nn.Module):
    """Noise, and two 3×3 convolutions that the style modulates, beside their input.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(channels, channels, 3) for _ in range(2)]
        self.convs = nn.ModuleList(convs)
        self.gains = nn.ModuleList(nn.Linear(CODE, channels) for _ in range(2))
        self.shifts = nn.ModuleList(nn.Linear(CODE, channels) for _ in range(2))
        self.noise = nn.Linear(CODE, channels)
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, 0.2)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        for linear in (m for m in self.modules() if isinstance(m, nn.Linear)):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, styles: Sequence[Shade], noise: Tensor) -> Tensor:
        y: Tensor = _normed(x) + noise * _mixed(self.noise, styles)
        for conv, gain, shift in zip(self.convs, self.gains, self.shifts, strict=True):
            y = y * (1 + _mixed(gain, styles))
            y = conv(F.pad(y, (1, 1, 1, 1), mode="replicate"))
            y = F.leaky_relu(y + _mixed(shift, styles), 0.2)
        return x + y


def _normed(x: Tensor) -> Tensor:
    """Every position's features, of mean square 1 (Karras et al. 2018, section 4.2)."""
    return x * torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-4).to(x.dtype)


def _mixed(linear: nn.Module, styles: Sequence[Shade]) -> Tensor:
    """What a layer makes of the codes, each as much as it counts where it counts."""
    code, weight = styles[0]
    total: Tensor = linear(code)[..., None, None] * weight
    for code, weight in styles[1:]:
        total = total + linear(code)[..., None, None] * weight
    return total


class Decoder(nn.Module):
    """Transformed features back to pixels, as a change of blurred ones.

    Args:
        channels: of the features, by depth.
        widths: its own channels at full size, 1/2, 1/4 and 1/8.
    """

    def __init__(self, channels: Mapping[str, int], widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        full, half, quarter, eighth = widths
        self.take_eighth = nn.Conv2d(channels["eighth"], eighth, 1)
        self.take_quarter = nn.Conv2d(channels["quarter"], quarter, 1)
        self.take_half = nn.Conv2d(channels["half"], half, 1)
        self.at_eighth = nn.ModuleList(Modulated(eighth) for _ in range(2))
        self.to_quarter = nn.Conv2d(eighth, quarter, 1)
        self.at_quarter = Modulated(quarter)
        self.to_half = nn.Conv2d(quarter, half, 1)
        self.at_half = Modulated(half)
        self.to_full = nn.Conv2d(half, full, 1)
        self.at_full = Convolution(full, full)
        self.out = Convolution(full, 3, active=False)
        nn.init.zeros_(self.out.conv.weight)

    def forward(
        self,
        features: Mapping[str, Tensor],
        styles: Mapping[str, Sequence[Shade]],
        noise: Mapping[str, Tensor],
    ) -> Tensor:
        """The change, `(N, 3, H, W)`, from features, shades and noise at each depth."""
        x = self.take_eighth(features["eighth"])
        for block in self.at_eighth:
            x = block(x, styles["eighth"], noise["eighth"])
        x = _up(self.to_quarter(x)) + self.take_quarter(features["quarter"])
        x = self.at_quarter(x, styles["quarter"], noise["quarter"])
        x = _up(self.to_half(x)) + self.take_half(features["half"])
        x = self.at_half(x, styles["half"], noise["half"])
        change: Tensor = self.out(self.at_full(_up(self.to_full(x))))
        return 1.5 * torch.tanh(change / 1.5)


class FastNetwork(nn.Module):
    """Any photo in any style, in one pass; see the module.

    Args:
        encoder: the network that looks.
        widths: channels of the decoder at full size, 1/2, 1/4 and 1/8.

    Attributes:
        roots: in which roots of covariances are taken; see `transfer_matrix`.
    """

    noise: Tensor
    roots: torch.dtype = torch.float64

    def __init__(
        self, encoder: Encoder, widths: tuple[int, int, int, int] = (16, 32, 64, 128)
    ) -> None:
        super().__init__()
        self.encoder = Frozen(encoder)
        channels = self.encoder.channels
        self.decoder = Decoder(channels, widths)
        self.look = nn.Sequential(
            Convolution(channels["eighth"], 192, stride=2), Convolution(192, CODE)
        )
        moments = 2 * (3 + sum(channels.values()))
        self.code = nn.Sequential(
            nn.Linear(CODE + moments, CODE), nn.LeakyReLU(0.2), nn.Linear(CODE, CODE)
        )
        tile = torch.randn(1, 1, NOISE, NOISE, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", tile)

    def style(self, picture: Tensor, weight: Tensor | None = None) -> StyleCode:
        """What there is to know of a style.

        Args:
            picture: `(N, 3, H, W)`, sRGB in [0, 1], sides multiples of `STRIDE`.
            weight: how much each pixel counts, `(N or 1, 1, H, W)`; None for all alike.
        """
        return self.describe(picture, self.encoder(picture), weight)

    def describe(
        self, picture: Tensor, features: Mapping[str, Tensor], weight: Tensor | None = None
    ) -> StyleCode:
        """The same for a picture whose features are known."""
        found = {name: statistics(x, _fit(weight, x)) for name, x in features.items()}
        colors = statistics(picture, weight)
        deep = self.look(features["eighth"])
        where = _fit(weight, deep)
        pooled = (
            deep.mean((2, 3)) if where is None else (deep * where).sum((2, 3)) / where.sum((2, 3))
        )
        return StyleCode(colors, found, pooled.float())

    def modulation(self, style: StyleCode) -> Tensor:
        """What a style modulates the decoder with, `(N, CODE)`."""
        moments = [
            moment
            for each in (style.colors, *(style.depths[name] for name in DEPTHS))
            for moment in (each.mean, _deviations(each))
        ]
        code: Tensor = self.code(torch.cat((style.deep, *moments), 1))
        return code

    def recolor(self, photo: Tensor, own: Statistics, style: StyleCode) -> Tensor:
        """The photo in the style's colours.

        Args:
            photo: `(N, 3, H, W)`.
            own: of the photo's pixels.
            style: as `style` gives it.
        """
        return apply(photo, recolor_matrix(own, style.colors), own.mean, style.colors.mean)

    def forward(self, photo: Tensor, style: StyleCode, weight: Tensor | None = None) -> Tensor:
        """The photo in the style.

        Args:
            photo: `(N, 3, H, W)`, sRGB in [0, 1], sides multiples of `STRIDE`.
            style: as `style` gives it, of as many pictures, or of one.
            weight: how much each pixel counts in the photo's statistics, as for `style`.

        Returns:
            The same shape; values may be a little outside of [0, 1].
        """
        base = self.recolor(photo, statistics(photo, weight), style).clamp(0, 1)
        features = self.encoder(base)
        turned = {}
        for name, x in features.items():
            own, aim = statistics(x, _fit(weight, x)), style.depths[name]
            matrix = transfer_matrix(own, aim, dtype=self.roots)
            turned[name] = apply(x, matrix, own.mean, aim.mean)
        code = self.modulation(style)
        shades = {name: [(code, 1.0)] for name in DEPTHS}
        change: Tensor = self.decoder(turned, shades, self.noises(features))
        return blurred(base) + change

    def noises(
        self, features: Mapping[str, Tensor], at: tuple[int, int] = (0, 0)
    ) -> dict[str, Tensor]:
        """The noise for features whose first position is that of the pixel `at` (row, column)."""
        found = {}
        for depth, (name, x) in enumerate(features.items(), 1):
            rows, columns = (
                (torch.arange(n, device=x.device) + (start >> depth)) % NOISE
                for n, start in zip(x.shape[-2:], at, strict=True)
            )
            found[name] = self.noise[:, :, rows][..., columns].to(x.dtype)
        return found


def blurred(x: Tensor) -> Tensor:
    """Pixels without what is smaller than about 8 px; sides multiples of 8."""
    small = F.avg_pool2d(x, 8)
    return F.interpolate(small, scale_factor=8.0, mode="bilinear", align_corners=False)


def apply(x: Tensor, matrix: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """M (x − before) + after at every position, as one 1×1 convolution each.

    Args:
        x: `(N, C, h, w)`.
        matrix: `(N or 1, C, C)`.
        before: `(N or 1, C)`.
        after: likewise.
    """
    offset = after - (matrix * before[:, None]).sum(2)
    matrix = matrix.to(x.dtype).expand(len(x), -1, -1)
    y = torch.einsum("nij,njhw->nihw", matrix, x)
    return y + offset.to(x.dtype)[..., None, None]


def _fit(weight: Tensor | None, x: Tensor) -> Tensor | None:
    """A weight of pixels at the resolution of features."""
    return None if weight is None else F.adaptive_avg_pool2d(weight, (x.shape[-2], x.shape[-1]))


def _deviations(each: Statistics) -> Tensor:
    return (each.covariance.diagonal(dim1=1, dim2=2) + 1e-6).sqrt()


def _up(x: Tensor) -> Tensor:
    """Twice as large."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
