"""The network that paints in one pass: recolour, then two looks, at half the size and in full.

    photo ─┬─ ½ ────── look ─ step ─ what they changed, twice as large ─┐
           └─ recolour ──────────────────────────────────────────────── + ─ look ─ painted

    a look:  pixels ─ encoder ─┬─ relu2_1, 1/2 ─ transform ──────────────┐
                               ├─ relu3_1, 1/4 ─ transform ─────┐        │
                               └─ relu4_1, 1/8 ─ transform ─ decoder ─ decoder ─ decoder ─ pixels

- The pixels get the mean and covariance of the style's colours first, in closed form: so the whole
  palette arrives, and the network spends nothing on it.
- The first look sees the photo as it is: what is not yet painted has most of its content. It paints
  a draft at half the size, which is compared with the style at half of its own. A step along the
  objective's gradient corrects in the draft what could not be foreseen (`impasto.fast.descent`).
  What both changed of the recoloured photo is added to it; so the photo's fine contours are still
  there when the second look sees what the draft lacks of the style, and paints that.
- The encoder is the one that the losses look with (`impasto.encoder`), frozen. At three depths the
  features are whitened and coloured with the style's covariance (Li et al. 2017). What the decoder
  makes of them is added to the pixels that the look changes, blurred: the recoloured ones, then
  those with the draft's change.
- The decoders' convolutions are modulated by a code of the style (Karras et al. 2020, section 2.2),
  which chooses among their filters, as the gains of conditional normalisation do (Dumoulin et al.
  2017). Coloured features no longer say how much there was of what; so the code is fitted to the
  photo by the moments of what the first look saw, and of what this one sees. Gates, made of the
  encoder's features, let more or less of every channel through at each place. A little noise, as
  much as the style asks for and in proportion to the features, gives strokes a place to begin.

All that depends on the whole photo are its statistics: of its colours, and of the features of both
looks and of the draft. Once they are gathered, over tiles, every pixel depends on its own
neighbourhood alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.encoder import Encoder
from impasto.fast.decoder import CODE, Convolution, Decoder, doubled, enlarged
from impasto.fast.descent import KEPT, TAKEN, Descent, Seeds, energy, pulls
from impasto.fast.frozen import DEPTHS, Frozen
from impasto.fast.maps import Affine
from impasto.fast.statistics import Statistics, blend, statistics

__all__ = [
    "DEPTHS",
    "FORM",
    "LOOKS",
    "STRIDE",
    "FastNetwork",
    "Glance",
    "StyleCode",
    "padded",
]

LOOKS: Final = 2
"""How often a picture is looked at: at half the size, then in full."""

FORM: Final = "6"
"""What a file of weights says it is for. The first form looked once; of the second the first look
saw recoloured pixels; of the third a code was of the style alone, and features were
divided by nothing but their own size; in the fourth there were no gates, in the fifth drafts stayed
as they were painted."""

SIGHT: Final = 64
"""How many numbers tell how the moments of what a look sees compare with the style's."""

FAINT: Final = 0.1
"""Added to moments before they are compared, so that those far below count as equal: the encoder's
features are 1 on average."""

STRIDE: Final = 32
"""Sides have to be multiples of it, px: those of the draft are multiples of 16."""

NOISE: Final = 256
"""Side of the tile of noise, positions; it is repeated over larger pictures."""


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
        aims: of the features that a draft's step compares, by layer, at half its size.
    """

    colors: Statistics
    glances: tuple[Glance, ...]
    aims: Mapping[str, Statistics]

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
            {name: blend([code.aims[name] for code in codes], weights) for name in TAKEN},
        )

    def with_coarse(self, coarse: "StyleCode") -> "StyleCode":
        """The fine texture and the colours of this style, with the strokes of another."""
        first, second = coarse.glances  # what the first one sees is all coarser than block 2
        fine = {"half": self.glances[1].depths["half"]}
        glances = (first, Glance({**second.depths, **fine}, second.deep))
        aims = {**coarse.aims, "relu1_2": self.aims["relu1_2"]}  # of half the size: like block 2
        return StyleCode(self.colors, glances, aims)


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
        self.descent = Descent()
        self.deep = nn.Sequential(
            Convolution(channels["eighth"], 192, stride=2), Convolution(192, CODE)
        )
        moments = 2 * sum(channels.values())
        self.code = nn.Sequential(
            nn.Linear(CODE + 6 + moments, CODE), nn.LeakyReLU(0.2), nn.Linear(CODE, CODE)
        )
        self.sight = nn.Linear(moments, SIGHT)
        self.fit = nn.Sequential(
            nn.Linear(CODE + 2 * SIGHT, CODE), nn.LeakyReLU(0.2), nn.Linear(CODE, CODE)
        )
        for parameter in self.fit[2].parameters():
            nn.init.zeros_(parameter)
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
        self,
        picture: Tensor,
        features: Mapping[str, Tensor],
        weight: Tensor | None = None,
        *,
        small: Mapping[str, Tensor] | None = None,
    ) -> StyleCode:
        """The same for a picture whose features are known, by depth.

        Args:
            picture: as for `style`.
            features: of it, by depth.
            weight: as for `style`.
            small: features at half its size, by the encoder's names: those of `DEPTHS` and `TAKEN`;
                None if they are to be found.
        """
        if small is None:
            small = self.encoder.layers(halved(picture), {*DEPTHS.values(), *TAKEN})
        coarse = {name: small[layer] for name, layer in DEPTHS.items()}
        return StyleCode(
            self._statistics(picture, weight),
            (self._glance(coarse, weight), self._glance(features, weight)),
            {name: self._statistics(small[name], weight) for name in TAKEN},
        )

    def _glance(self, features: Mapping[str, Tensor], weight: Tensor | None) -> Glance:
        found = {name: self._statistics(x, weight) for name, x in features.items()}
        deep = self.deep(features["eighth"])
        where = _at_size_of(weight, deep)
        pooled = (
            deep.mean((2, 3)) if where is None else (deep * where).sum((2, 3)) / where.sum((2, 3))
        )
        return Glance(found, pooled.float())

    def _statistics(self, x: Tensor, weight: Tensor | None) -> Statistics:
        """Of pixels or features, with the weight of the pixels."""
        return statistics(x, _at_size_of(weight, x), dtype=self.sums)

    def modulation(
        self,
        colors: Statistics,
        glance: Glance,
        first: Mapping[str, Statistics],
        seen: Mapping[str, Statistics],
    ) -> Tensor:
        """What modulates a look's decoder, `(N, CODE)`: the style's code, fitted to a photo.

        Args:
            colors: of the style.
            glance: of the style.
            first: of what the first look sees, by depth.
            seen: of what this look sees, likewise; the same in the first. Both are compared with
                `glance`, so in the second look `first` is of half the size.
        """
        aims = _moments(glance.depths[name] for name in DEPTHS)
        code = self.code(torch.cat((glance.deep, _moments([colors]), aims), 1))
        sights = []
        for found in (first, seen):
            own = _moments(found[name] for name in DEPTHS)
            sights.append(self.sight(((own + FAINT) / (aims + FAINT)).log()))
        code = code.expand(len(sights[0]), -1)  # one style for N photos
        fitted: Tensor = code + self.fit(torch.cat((code, *sights), 1))
        return fitted

    def forward(self, photo: Tensor, style: StyleCode, weight: Tensor | None = None) -> Tensor:
        """The photo in the style.

        Args:
            photo: `(N, 3, H, W)`, sRGB in [0, 1], sides multiples of `STRIDE`.
            style: as `style` gives it, of as many pictures, or of one.
            weight: how much each pixel counts in the photo's statistics, as for `style`.

        Returns:
            The same shape; values may be a little outside of [0, 1].
        """
        return self.looks(photo, style, weight)[1]

    def looks(
        self, photo: Tensor, style: StyleCode, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both looks: the draft, `(N, 3, H/2, W/2)`, and what `forward` gives.

        The draft is that after its step, and may be outside of [0, 1] as well. For the rest see
        `forward`.
        """
        own = self._statistics(photo, weight)
        base = Affine.recoloring(own, style.colors)(photo).clamp(0, 1)
        small = halved(base)
        found = self.encoder.layers(halved(photo), {*DEPTHS.values(), *KEPT})
        features = {name: found[layer] for name, layer in DEPTHS.items()}
        first = {name: self._statistics(x, weight) for name, x in features.items()}
        code = self.modulation(style.colors, style.glances[0], first, first)
        draft = self._painted(0, features, first, small, style, code)
        kept = {name: found[name] for name in KEPT}
        draft = draft + self._step(draft.detach(), kept, style, code, weight)
        second = base + doubled(draft - small)
        features = self.encoder(second)
        seen = {name: self._statistics(x, weight) for name, x in features.items()}
        code = self.modulation(style.colors, style.glances[1], first, seen)
        return draft, self._painted(1, features, seen, second, style, code)

    def _painted(
        self,
        look: int,
        features: Mapping[str, Tensor],
        seen: Mapping[str, Statistics],
        base: Tensor,
        style: StyleCode,
        code: Tensor,
    ) -> Tensor:
        """What a look makes of `base` with the features of what it sees."""
        glance, decoder = style.glances[look], self.decoder(look)
        taken = {}
        for name, x in features.items():
            turn = Affine.between(seen[name], glance.depths[name])
            taken[name] = decoder.take(name, x, [turn], [1.0])
        shades = {name: [(code, 1.0)] for name in DEPTHS}
        change: Tensor = decoder(taken, features, shades, self.noises(taken))
        return blurred(base) + change

    def _step(
        self,
        draft: Tensor,
        kept: Mapping[str, Tensor],
        style: StyleCode,
        code: Tensor,
        weight: Tensor | None,
    ) -> Tensor:
        """A step downhill from a draft; see `impasto.fast.descent`."""
        with torch.no_grad():  # it is used, and not learnt from
            found = self.encoder.everything(draft)
            own = {name: self._statistics(found[name], weight) for name in TAKEN}
            energies = {name: self._statistics(energy(x), weight) for name, x in kept.items()}
            shares = {name: [1.0] for name in TAKEN}
            seeds = Seeds(kept, energies, [pulls(own, style.aims)], shares)
            gradient = self.encoder.gradient(found, seeds)
        step: Tensor = self.descent(gradient.float(), [(code, 1.0)])
        return step

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


def blurred(x: Tensor) -> Tensor:
    """Pixels without what is smaller than about 8 px; sides multiples of 8."""
    return enlarged(F.avg_pool2d(x, 8), 8)


def _at_size_of(weight: Tensor | None, x: Tensor) -> Tensor | None:
    """A weight of pixels at the resolution of features."""
    return None if weight is None else F.adaptive_avg_pool2d(weight, (x.shape[-2], x.shape[-1]))


def _moments(parts: Iterable[Statistics]) -> Tensor:
    """Means and deviations, part by part, `(N, 2 C)`."""
    found = []
    for each in parts:
        variance = each.covariance.diagonal(dim1=1, dim2=2)
        found += [each.mean, (variance + 1e-6).sqrt()]
    return torch.cat(found, 1)
