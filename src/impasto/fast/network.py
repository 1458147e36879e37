"""The network that paints in one pass: recolour, then two looks, at half the size and in full.

    photo ─┬─ ½ ────── look ─ what it changed, twice as large ─┐
           └─ recolour ─────────────────────────────────────── + ─ look ─ painted

    a look:  pixels ─ encoder ─┬─ relu2_1, 1/2 ─ transform ──────────────┐
                               ├─ relu3_1, 1/4 ─ transform ─────┐        │
                               └─ relu4_1, 1/8 ─ transform ─ decoder ─ decoder ─ decoder ─ pixels

- The pixels get the mean and covariance of the style's colours first, in closed form: so the whole
  palette arrives, and the network spends nothing on it.
- The first look sees the photo as it is: what is not yet painted has most of its content. It paints
  a draft at half the size, which is compared with the style at half of its own. What that changed
  of the recoloured photo is added to it; so the photo's fine contours are still there when the
  second look sees what the draft lacks of the style, and paints that.
- The encoder is the one that the losses look with (`impasto.encoder`), frozen. At three depths the
  features are whitened and coloured with the style's covariance (Li et al. 2017). What the decoder
  makes of them is added to the pixels that the look changes, blurred: the recoloured ones, then
  those with the draft's change.
- The decoders' convolutions are modulated by a code of the style (Karras et al. 2020, section 2.2),
  which chooses among their filters, as the gains of conditional normalisation do (Dumoulin et al.
  2017), but without statistics of the photo. A little noise, as much as the style asks for, gives
  flat regions something to make strokes of.

All that depends on the whole photo are its statistics: of its colours, and of the features of both
looks. Once they are gathered, over tiles, every pixel depends on its own neighbourhood alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.encoder import Encoder
from impasto.fast.statistics import (
    Statistics,
    blend,
    in_float32,
    recolor_matrix,
    statistics,
    transfer_matrix,
)

__all__ = [
    "DEPTHS",
    "FORM",
    "LOOKS",
    "STRIDE",
    "Affine",
    "FastNetwork",
    "Glance",
    "StyleCode",
    "padded",
]

DEPTHS: Final = {"half": "relu2_1", "quarter": "relu3_1", "eighth": "relu4_1"}
"""Where features are transformed: their resolution, and the encoder's layer."""

LOOKS: Final = 2
"""How often a picture is looked at: at half the size, then in full."""

FORM: Final = "3"
"""What a file of weights says it is for. The first form looked once; of the second the first look
saw recoloured pixels."""

STRIDE: Final = 32
"""Sides have to be multiples of it, px: those of the draft are multiples of 16."""

NOISE: Final = 256
"""Side of the tile of noise, positions; it is repeated over larger pictures."""

CODE: Final = 256
"""Length of the code of a style."""


Share = Tensor | float
"""How much something counts: everywhere as much, or `(1, 1, h, w)`."""

Shade = tuple[Tensor, Share]
"""A style's code, `(N, CODE)`, and how much it counts."""


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
        """What takes features of the one mean and covariance to the other."""
        return cls(transfer_matrix(own, aim), own.mean, aim.mean)

    @classmethod
    def recoloring(cls, own: Statistics, aim: Statistics) -> "Affine":
        """The same for pixels; see `recolor_matrix`."""
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
        if len(matrix) == len(offset) == 1:
            return F.linear(x.permute(0, 2, 3, 1), matrix[0], offset[0]).permute(0, 3, 1, 2)
        y = torch.einsum("nij,njhw->nihw", matrix.expand(len(x), -1, -1), x)
        return y + offset[..., None, None]


@dataclass(frozen=True)
class Glance:
    """What one look knows of a style.

    Attributes:
        depths: of its features, by depth.
        deep: the means of what `FastNetwork.deep` sees, `(N, CODE)`.
    """

    depths: Mapping[str, Statistics]
    deep: Tensor

    @classmethod
    def blended(cls, parts: Sequence["Glance"], weights: Sequence[float]) -> "Glance":
        """One of several; see `StyleCode.blended`."""
        shares = [weight / sum(weights) for weight in weights]
        deep = torch.stack([s * part.deep for s, part in zip(shares, parts, strict=True)]).sum(0)
        return cls(
            {name: blend([part.depths[name] for part in parts], weights) for name in DEPTHS}, deep
        )


@dataclass(frozen=True)
class StyleCode:
    """All that the network knows of a style.

    Attributes:
        colors: of its pixels, 3 channels.
        glances: of each look: of the style at half its size, and in full.
    """

    colors: Statistics
    glances: tuple[Glance, ...]

    @classmethod
    def blended(cls, codes: Sequence["StyleCode"], weights: Sequence[float]) -> "StyleCode":
        """One style of several.

        Args:
            codes: at least one.
            weights: one each, above 0; only their ratios matter.
        """
        looks = zip(*(code.glances for code in codes), strict=True)
        return cls(
            blend([code.colors for code in codes], weights),
            tuple(Glance.blended(parts, weights) for parts in looks),
        )

    def with_coarse(self, coarse: "StyleCode") -> "StyleCode":
        """The fine texture and the colours of this style, with the strokes of another."""
        first, second = coarse.glances  # what the first one sees is all coarser than block 2
        fine = {"half": self.glances[1].depths["half"]}
        return StyleCode(self.colors, (first, Glance({**second.depths, **fine}, second.deep)))


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
            x = F.pad(x, (1, 1, 1, 1), mode="replicate")
            weight, bias = self.get_buffer(f"{layer}_weight"), self.get_buffer(f"{layer}_bias")
            x = F.conv2d(x, weight, bias).relu_()
            for name, wanted in DEPTHS.items():
                if layer == wanted:
                    found[name] = x
        return found


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

    def take(
        self, depth: str, x: Tensor, maps: Sequence[Affine] = (), shares: Sequence[Share] = ()
    ) -> Tensor:
        """What `forward` gets of features at a depth, as far as the shares go mapped before."""
        conv = self.get_submodule(f"take_{depth}")
        assert isinstance(conv, nn.Conv2d)
        return mapped(x, [each.then(conv) for each in maps], shares, conv)

    def forward(
        self,
        taken: Mapping[str, Tensor],
        styles: Mapping[str, Sequence[Shade]],
        noise: Mapping[str, Tensor],
    ) -> Tensor:
        """The change, `(N, 3, H, W)`, from what was taken, shades and noise at each depth."""
        x = taken["eighth"]
        for block in self.at_eighth:
            x = block(x, styles["eighth"], noise["eighth"])
        x = doubled(self.to_quarter(x)) + taken["quarter"]
        x = self.at_quarter(x, styles["quarter"], noise["quarter"])
        x = doubled(self.to_half(x)) + taken["half"]
        x = self.at_half(x, styles["half"], noise["half"])
        change: Tensor = self.out(self.at_full(doubled(self.to_full(x))))
        return 1.5 * torch.tanh(change / 1.5)


class FastNetwork(nn.Module):
    """Any photo in any style, in one pass; see the module.

    Args:
        encoder: the network that looks.
        widths: channels of the decoder at full size, 1/2, 1/4 and 1/8.

    Attributes:
        sums: in which sums of covariances are added up; see `statistics`.
    """

    noise: Tensor
    sums: torch.dtype = torch.float64

    def __init__(
        self, encoder: Encoder, widths: tuple[int, int, int, int] = (16, 32, 64, 128)
    ) -> None:
        super().__init__()
        self.encoder = Frozen(encoder)
        channels = self.encoder.channels
        self.decoders = nn.ModuleList(Decoder(channels, widths) for _ in range(LOOKS))
        self.deep = nn.Sequential(
            Convolution(channels["eighth"], 192, stride=2), Convolution(192, CODE)
        )
        moments = 2 * (3 + sum(channels.values()))
        self.code = nn.Sequential(
            nn.Linear(CODE + moments, CODE), nn.LeakyReLU(0.2), nn.Linear(CODE, CODE)
        )
        tile = torch.randn(1, 1, NOISE, NOISE, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", tile)

    def decoder(self, look: int) -> Decoder:
        """What paints in a look, 0 or 1."""
        found = self.decoders[look]
        assert isinstance(found, Decoder)
        return found

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
        small = self._glance(self.encoder(halved(picture)), weight)
        return StyleCode(self._statistics(picture, weight), (small, self._glance(features, weight)))

    def _glance(self, features: Mapping[str, Tensor], weight: Tensor | None) -> Glance:
        found = {name: self._statistics(x, weight) for name, x in features.items()}
        deep = self.deep(features["eighth"])
        where = _fit(weight, deep)
        pooled = (
            deep.mean((2, 3)) if where is None else (deep * where).sum((2, 3)) / where.sum((2, 3))
        )
        return Glance(found, pooled.float())

    def _statistics(self, x: Tensor, weight: Tensor | None) -> Statistics:
        """Of pixels or features, with the weight of the pixels."""
        return statistics(x, _fit(weight, x), dtype=self.sums)

    def modulation(self, colors: Statistics, glance: Glance) -> Tensor:
        """What a style modulates a look's decoder with, `(N, CODE)`."""
        moments = [
            moment
            for each in (colors, *(glance.depths[name] for name in DEPTHS))
            for moment in (each.mean, _deviations(each))
        ]
        code: Tensor = self.code(torch.cat((glance.deep, *moments), 1))
        return code

    def forward(self, photo: Tensor, style: StyleCode, weight: Tensor | None = None) -> Tensor:
        """The photo in the style.

        Args:
            photo: `(N, 3, H, W)`, sRGB in [0, 1], sides multiples of `STRIDE`.
            style: as `style` gives it, of as many pictures, or of one.
            weight: how much each pixel counts in the photo's statistics, as for `style`.

        Returns:
            The same shape; values may be a little outside of [0, 1].
        """
        own = self._statistics(photo, weight)
        base = Affine.recoloring(own, style.colors)(photo).clamp(0, 1)
        small = halved(base)
        change = self._painted(0, halved(photo), small, style, weight) - small
        second = base + doubled(change)
        return self._painted(1, second, second, style, weight)

    def _painted(
        self, look: int, seen: Tensor, base: Tensor, style: StyleCode, weight: Tensor | None
    ) -> Tensor:
        """What a look that sees the one makes of the other: `base` is what it changes."""
        glance, decoder = style.glances[look], self.decoder(look)
        features = self.encoder(seen)
        taken = {}
        for name, x in features.items():
            turn = Affine.between(self._statistics(x, weight), glance.depths[name])
            taken[name] = decoder.take(name, x, [turn], [1.0])
        code = self.modulation(style.colors, glance)
        shades = {name: [(code, 1.0)] for name in DEPTHS}
        change: Tensor = decoder(taken, shades, self.noises(taken))
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


def padded(x: Tensor) -> tuple[Tensor, Tensor]:
    """A picture with sides that are multiples of `STRIDE`, and where it is.

    Args:
        x: `(N, C, H, W)`.

    Returns:
        `x`, its border repeated beyond it, and a weight `(N, 1, ...)`: 1 in it, 0 beyond.
    """
    H, W = ((side + STRIDE - 1) // STRIDE * STRIDE for side in x.shape[-2:])
    beyond = (0, W - x.shape[-1], 0, H - x.shape[-2])
    return F.pad(x, beyond, mode="replicate"), F.pad(torch.ones_like(x[:, :1]), beyond)


def halved(x: Tensor) -> Tensor:
    """Half as large: means of 2×2 px."""
    return F.avg_pool2d(x, 2)


def doubled(x: Tensor) -> Tensor:
    """Twice as large, by linear interpolation."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def blurred(x: Tensor) -> Tensor:
    """Pixels without what is smaller than about 8 px; sides multiples of 8."""
    small = F.avg_pool2d(x, 8)
    return F.interpolate(small, scale_factor=8.0, mode="bilinear", align_corners=False)


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


def _fit(weight: Tensor | None, x: Tensor) -> Tensor | None:
    """A weight of pixels at the resolution of features."""
    return None if weight is None else F.adaptive_avg_pool2d(weight, (x.shape[-2], x.shape[-1]))


def _deviations(each: Statistics) -> Tensor:
    return (each.covariance.diagonal(dim1=1, dim2=2) + 1e-6).sqrt()
