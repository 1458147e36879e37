"""What a look ends with: transformed features back to pixels, in the way that a style asks for."""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.fast.maps import Affine, Share, mapped

__all__ = [
    "CODE",
    "Convolution",
    "Decoder",
    "Modulated",
    "doubled",
    "enlarged",
]

CODE: Final = 256
"""Length of the code of a style."""

LEVEL_SHARE: Final = 0.7
"""Features are divided, before they are modulated, by the root of this share of a level that the
code says, and for the rest of their own mean square. By their own alone, as in Karras et al. 2018,
section 4.2, all places would be alike; so they keep some of their differences."""

LEAST_GATE: Final = 0.1
"""By how much a gate multiplies a channel at least."""

MOST_GATE: Final = 4.0
"""By how much at most."""

BAND: Final = 64
"""Rows at 1/2 of which the decoder's last layers are computed at a time; even."""

SEEN: Final = 6
"""How many rows at 1/2 beyond it a band depends on: one for two convolutions at full size, one for
interpolation, two for two convolutions at 1/2, two for interpolation from 1/4. Even as well."""

NARROW: Final = 48
"""Of how many mixes of their channels the gates at 1/8 are made: of all of them, up to 256, they
would be a twentieth of all weights."""

Shade = tuple[Tensor, Share]
"""A code, `(N, CODE)`, and how much it counts: of a style, fitted to a photo."""


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
        """`(N, before, h, w)` to `(N, after, h, w)`, or half as large."""
        x = self.conv(F.pad(x, (1, 1, 1, 1), mode="replicate"))
        return F.leaky_relu(x, 0.2) if self.active else x


class Modulated(nn.Module):
    """Noise, and two 3×3 convolutions that the style modulates, beside their input.

    Both get features of about the same size; see `LEVEL_SHARE`. After each, a gate multiplies every
    channel at every place, as the encoder's features there say: as a gradient that comes back
    through the encoder is multiplied by which of its ReLUs are open.

    Args:
        channels: in and out.
        seen: channels of what gates are made of.
    """

    def __init__(self, channels: int, seen: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(channels, channels, 3) for _ in range(2)]
        self.convs = nn.ModuleList(convs)
        self.gains = nn.ModuleList(nn.Linear(CODE, channels) for _ in range(2))
        self.shifts = nn.ModuleList(nn.Linear(CODE, channels) for _ in range(2))
        self.noise = nn.Linear(CODE, channels)
        self.level = nn.Linear(CODE, 1)
        self.gates = nn.ModuleList(nn.Conv2d(seen, channels, 1) for _ in range(2))
        for parameter in self.gates.parameters():
            nn.init.zeros_(parameter)
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, 0.2)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        for linear in (m for m in self.modules() if isinstance(m, nn.Linear)):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, seen: Tensor, styles: Sequence[Shade], noise: Tensor) -> Tensor:
        """What becomes of `x`.

        Args:
            x: `(N, channels, h, w)`.
            seen: what gates are made of, `(N, seen, h, w)`.
            styles: see `Shade`.
            noise: `(1, 1, h, w)`.

        Returns:
            The shape of `x`.
        """
        energy = x.float().square().mean(1, keepdim=True) + 1e-4
        level = mixed(self.level, styles).float().exp()
        scale = torch.rsqrt(LEVEL_SHARE * level + (1 - LEVEL_SHARE) * energy)
        noise = noise * (scale * energy.sqrt()).to(x.dtype)  # in proportion to the features
        y = torch.addcmul(x * scale.to(x.dtype), noise, mixed(self.noise, styles).to(x.dtype))
        for conv, gain, shift, gate in zip(
            self.convs, self.gains, self.shifts, self.gates, strict=True
        ):
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(gate, nn.Conv2d)
            y = _modulated(conv, y, 1 + mixed(gain, styles), mixed(shift, styles))
            y = _gated(gate, y, seen)
        return x + y if y.requires_grad else y.add_(x)


def _modulated(conv: nn.Conv2d, x: Tensor, gains: Tensor, shifts: Tensor) -> Tensor:
    """A convolution of `x` times the gains, plus the shifts, and its leaky ReLU."""
    if gains.numel() > gains.shape[1]:  # they differ from picture to picture, or place to place
        y = conv(F.pad(x * gains, (1, 1, 1, 1), mode="replicate")) + shifts
    else:
        assert conv.bias is not None
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")  # weights are cheaper to multiply
        y = F.conv2d(x, conv.weight * gains.to(x.dtype), conv.bias + shifts.flatten())
    return F.leaky_relu_(y, 0.2)


def _gated(gate: nn.Conv2d, x: Tensor, seen: Tensor) -> Tensor:
    """`x` times what the gate makes of what is seen; in its place, where nothing learns from it."""
    assert gate.bias is not None
    gates = F.conv2d(seen, gate.weight, 1 + gate.bias).clamp_(LEAST_GATE, MOST_GATE)
    return x * gates if x.requires_grad else x.mul_(gates)


def mixed(linear: nn.Module, styles: Sequence[Shade]) -> Tensor:
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
        beside: channels of features of the photo that it gets beside them, by depth; none at 1/2.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        widths: tuple[int, int, int, int],
        beside: Mapping[str, int],
    ) -> None:
        super().__init__()
        full, half, quarter, eighth = widths
        self.take_eighth = nn.Conv2d(channels["eighth"], eighth, 1)
        self.take_quarter = nn.Conv2d(channels["quarter"], quarter, 1)
        self.take_half = nn.Conv2d(channels["half"], half, 1)
        after = {"quarter": quarter, "eighth": eighth}
        self.take_beside = nn.ModuleDict({
            depth: nn.Conv2d(count, after[depth], 1, bias=False)
            for depth, count in beside.items()
        })  # fmt: skip
        for parameter in self.take_beside.parameters():
            nn.init.zeros_(parameter)
        self.narrow = nn.Conv2d(channels["eighth"] + beside.get("eighth", 0), NARROW, 1)
        self.at_eighth = nn.ModuleList(Modulated(eighth, NARROW) for _ in range(2))
        self.to_quarter = nn.Conv2d(eighth, quarter, 1)
        self.at_quarter = Modulated(quarter, channels["quarter"] + beside.get("quarter", 0))
        self.to_half = nn.Conv2d(quarter, half, 1)
        self.at_half = Modulated(half, channels["half"])
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
        features: Mapping[str, Tensor],
        styles: Mapping[str, Sequence[Shade]],
        noise: Mapping[str, Tensor],
        beside: Mapping[str, Tensor],
    ) -> Tensor:
        """The change, `(N, 3, H, W)`.

        Args:
            taken: what `take` made of the features, by depth.
            features: as the encoder gave them, by depth: gates are made of them.
            styles: shades, by depth.
            noise: `(1, 1, h, w)`, by depth.
            beside: features of the photo, by depth: gates are made of them too, and what 1×1
                convolutions make of them is added to what was taken.
        """
        x, seen = self._joined("eighth", taken, features, beside)
        seen = self.narrow(seen)
        for block in self.at_eighth:
            x = block(x, seen, styles["eighth"], noise["eighth"])
        more, seen = self._joined("quarter", taken, features, beside)
        x = doubled(self.to_quarter(x)) + more
        x = self.at_quarter(x, seen, styles["quarter"], noise["quarter"])
        more, seen = self._joined("half", taken, features, beside)
        change = self._shallow(self.to_half(x), more, seen, styles["half"], noise["half"])
        return 1.5 * torch.tanh(change / 1.5)

    def _shallow(
        self, x: Tensor, more: Tensor, seen: Tensor, styles: Sequence[Shade], noise: Tensor
    ) -> Tensor:
        """What becomes of features at 1/4 in the last layers, at 1/2 and at full size.

        Their maps are the largest: unless something learns, they are made band by band of rows, so
        that they stay in the processor's cache, and little memory is needed. What is wrong at an
        edge between two bands is cut off.
        """

        def made(low: int, high: int) -> Tensor:
            shades = [(code, _rows(share, low, high)) for code, share in styles]
            y = doubled(x[:, :, low // 2 : high // 2]) + more[:, :, low:high]
            y = self.at_half(y, seen[:, :, low:high], shades, noise[:, :, low:high])
            y = self.out(self.at_full(doubled(self.to_full(y))))
            assert isinstance(y, Tensor)
            return y

        height = more.shape[2]
        if torch.compiler.is_compiling() or more.requires_grad or height <= BAND:
            return made(0, height)
        parts = []
        for top in range(0, height, BAND):
            bottom = min(top + BAND, height)
            low, high = max(0, top - SEEN), min(bottom + SEEN, height)
            parts.append(made(low, high)[:, :, 2 * (top - low) : 2 * (bottom - low)])
        return torch.cat(parts, 2)

    def _joined(
        self,
        depth: str,
        taken: Mapping[str, Tensor],
        features: Mapping[str, Tensor],
        beside: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """What is taken at a depth and what gates see there, with the photo's where there are."""
        if depth not in beside:
            return taken[depth], features[depth]
        photo = beside[depth]
        more = taken[depth] + self.take_beside[depth](photo)
        return more, torch.cat((features[depth], photo), 1)


def _rows(share: Share, low: int, high: int) -> Share:
    """How much something counts in some rows."""
    return share[:, :, low:high] if isinstance(share, Tensor) else share


def doubled(x: Tensor) -> Tensor:
    """Twice as large, by linear interpolation."""
    return enlarged(x, 2)


def enlarged(x: Tensor, times: int) -> Tensor:
    """So many times as large, by linear interpolation."""
    if x.shape[1] == 3:
        x = x.contiguous()  # pixels: four times as fast as with the channels last
    return F.interpolate(x, scale_factor=float(times), mode="bilinear", align_corners=False)
