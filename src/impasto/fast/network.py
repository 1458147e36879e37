"""The network that paints in one pass: recolour, then two looks, at half the size and in full.

    photo ─┬─ recolour ─────────────────────────────────────────── + ─────────────┐
           └─ ½ ─┬─ look ─ draft ─┬─ what it changed, twice ───────┘              │
                 │                └─ encoder ─ what is seen of the draft, deep ─ look ─ painted
                 └─ encoder ────────────────── and of the photo, deep ────────────┘

    a look:  its pixels ─ encoder ─ shallow, 1/2 ─ transform ───────────────────┐
             deeper features, 1/4 ───────────────── transform ────────┐         │
             and 1/8 ────────────────────────────── transform ─ decoder ─ decoder ─ decoder ─ pixels

- The pixels get the mean and covariance of the style's colours first, in closed form: so the whole
  palette arrives, and the network spends nothing on it.
- The first look sees the photo as it is: what is not yet painted has most of its content. It paints
  a draft at half the size. What it changed of the recoloured photo is added to that; so the photo's
  fine contours are still there when the second look sees what is still missing, and paints that.
- The encoder is the one that the losses look with (`impasto.encoder`), frozen. Of what the second
  look changes the features of `WHOLE` are found in full; the deep ones, `DEEP`, are those of the
  draft, for which they have to be found as well: they say nearly the same at a quarter of the cost.
  At three depths the features get the style's second moments, which Gram matrices are made of, by
  the map that moves them least (`statistics.moving_matrix`). What the decoder makes of them is
  added to the pixels that the look changes, blurred: the recoloured ones, then those with the
  draft's change.
- The decoders' convolutions are modulated by a code of the style (Karras et al. 2020, section 2.2),
  which chooses among their filters, as the gains of conditional normalisation do (Dumoulin et al.
  2017). Features with the style's moments no longer say how much there was of what; so the code is
  fitted to the photo by the moments of photo and draft. Gates, made of the encoder's features, let
  more or less of every channel through at each place. The second look gets the photo's features
  beside the draft's, for its gates and for what it paints. A little noise, as much as the style
  asks for and in proportion to the features, gives strokes a place to begin.

All that depends on the whole photo are its statistics: of its colours, and of the features of both
looks and of the draft. Once they are gathered, over tiles, every pixel depends on its own
neighbourhood alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.encoder import Encoder
from impasto.fast.decoder import CODE, Convolution, Decoder, doubled, enlarged
from impasto.fast.frozen import DEPTHS, Frozen
from impasto.fast.maps import Affine
from impasto.fast.statistics import Statistics, blend, statistics

__all__ = [
    "BESIDE",
    "DEEP",
    "DEPTHS",
    "FORM",
    "HALF",
    "LOOKS",
    "MOMENTS",
    "PHOTO_SHARE",
    "STRIDE",
    "WHOLE",
    "FastNetwork",
    "StyleCode",
    "by_depth",
    "padded",
]

LOOKS: Final = 2
"""How often a picture is looked at: at half the size, then in full."""

FORM: Final = "10"
"""What a file of weights says it is for. The first form looked once; of the second the first look
saw recoloured pixels; of the third a code was of the style alone, and features were
divided by nothing but their own size; in the fourth there were no gates, in the fifth drafts stayed
as they were painted; of the sixth the second look encoded all that it saw in full; in the seventh
it saw nothing of the photo itself, and features were whitened and coloured; in the eighth it
transformed the draft's deep features alone; in the ninth a draft took a step along the objective's
gradient, and the second look saw less in full."""

WHOLE: Final = {"half": DEPTHS["half"], "quarter": DEPTHS["quarter"]}
"""What the second look sees in full, by depth of what it paints: the encoder's layer."""

DEEP: Final = {"eighth": "relu3_2"}
"""What it transforms of the draft and the photo, mixed, likewise: of half the size. Both are
encoded anyway, but in tiles once more."""

BESIDE: Final = {"quarter": "relu2_2", **DEEP}
"""What it gets of the photo by itself, likewise, of half the size: all that is mixed, and more."""

PHOTO_SHARE: Final = 0.4
"""How much of the photo is in what the second look transforms, before it learns. What is painted
comes out farther from the photo than that; the rest is the draft, whose marks it is to keep."""

MOMENTS: Final = tuple(DEPTHS.values())
"""Whose moments make codes and fit them: of a style at half the size and in full, of photo and
draft at half the size."""

HALF: Final = tuple(sorted({*MOMENTS, *DEEP.values()}))
"""Whose statistics are taken of a style, and what is found of a draft, at half the size."""

SIGHT: Final = 64
"""How many numbers tell how the moments of the photo, or of its draft, compare with the style's."""

FAINT: Final = 0.1
"""Added to moments before they are compared, so that those far below count as equal: the encoder's
features are 1 on average."""

STRIDE: Final = 32
"""Sides have to be multiples of it, px: those of the draft are multiples of 16."""

PLACES: Final = 176
"""Channels between the two layers that see what a style's code is made of."""

NOISE: Final = 256
"""Side of the tile of noise, positions; it is repeated over larger pictures."""


Found = TypeVar("Found")
"""Features, their statistics, or how many channels they have."""


@dataclass(frozen=True)
class StyleCode:
    """All that the network knows of a style.

    Attributes:
        colors: of its pixels, 3 channels.
        half: of its features at half its size, by the encoder's layer, for all of `HALF`.
        whole: of those at its full size, for all of `MOMENTS`.
        deep: the means of what `FastNetwork.deep` sees at half its size, `(N, CODE)`.
    """

    colors: Statistics
    half: Mapping[str, Statistics]
    whole: Mapping[str, Statistics]
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
        return cls(
            blend([code.colors for code in codes], weights),
            {name: blend([code.half[name] for code in codes], weights) for name in HALF},
            {name: blend([code.whole[name] for code in codes], weights) for name in MOMENTS},
            deep,
        )

    def with_coarse(self, coarse: "StyleCode") -> "StyleCode":
        """The fine texture and the colours of this style, with the strokes of another."""
        fine = DEPTHS["half"]
        whole = {**coarse.whole, fine: self.whole[fine]}
        return StyleCode(self.colors, coarse.half, whole, coarse.deep)

    def aims(self, look: int) -> dict[str, Statistics]:
        """What the features that a look transforms are brought to, by depth."""
        if look == 0:
            return by_depth(DEPTHS, self.half)
        return {**by_depth(WHOLE, self.whole), **by_depth(DEEP, self.half)}


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
        self.decoders = nn.ModuleList(
            (
                Decoder(by_depth(DEPTHS, channels), widths, {}),
                Decoder(by_depth(WHOLE | DEEP, channels), widths, by_depth(BESIDE, channels)),
            )
        )
        self.photo_shares = nn.ParameterDict({
            depth: nn.Parameter(torch.full((count,), PHOTO_SHARE))
            for depth, count in by_depth(DEEP, channels).items()
        })  # fmt: skip
        self.deep = nn.Sequential(
            Convolution(channels[DEPTHS["eighth"]], PLACES, stride=2), Convolution(PLACES, CODE)
        )
        moments = 2 * sum(channels[layer] for layer in MOMENTS)
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
        return self.describe(picture, self.encoder.layers(picture, MOMENTS), weight)

    def describe(
        self,
        picture: Tensor,
        features: Mapping[str, Tensor],
        weight: Tensor | None = None,
        *,
        small: Mapping[str, Tensor] | None = None,
    ) -> StyleCode:
        """The same for a picture whose features are known.

        Args:
            picture: as for `style`.
            features: of it, by the encoder's layer: all of `MOMENTS`.
            weight: as for `style`.
            small: features at half its size, likewise: all of `HALF`; None if they are to be found.
        """
        if small is None:
            small = self.encoder.layers(halved(picture), HALF)
        return StyleCode(
            self._statistics(picture, weight),
            {name: self._statistics(small[name], weight) for name in HALF},
            {name: self._statistics(features[name], weight) for name in MOMENTS},
            self._deep(small[DEPTHS["eighth"]], weight),
        )

    def _deep(self, features: Tensor, weight: Tensor | None) -> Tensor:
        deep = self.deep(features)
        where = _at_size_of(weight, deep)
        pooled: Tensor = (
            deep.mean((2, 3)) if where is None else (deep * where).sum((2, 3)) / where.sum((2, 3))
        )
        return pooled.float()

    def _statistics(self, x: Tensor, weight: Tensor | None) -> Statistics:
        """Of pixels or features, with the weight of the pixels."""
        return statistics(x, _at_size_of(weight, x), dtype=self.sums)

    def modulation(
        self,
        style: StyleCode,
        look: int,
        first: Mapping[str, Statistics],
        drafted: Mapping[str, Statistics],
    ) -> Tensor:
        """What modulates a look's decoder, `(N, CODE)`: the style's code, fitted to a photo.

        Args:
            style: of which the code is made, the moments being those of the look's own size.
            look: 0 or 1.
            first: of the photo's features at half its size, by the encoder's layer: all of
                `MOMENTS`. They are compared with the style's at half of its own.
            drafted: of the draft's, likewise; in the first look the photo's once more.
        """
        code = self.code(
            torch.cat((
                style.deep,
                _moments([style.colors]),
                _moments((style.half, style.whole)[look][name] for name in MOMENTS),
            ), 1)
        )  # fmt: skip
        aims = _moments(style.half[name] for name in MOMENTS) + FAINT
        sights = [
            self.sight(((_moments(found[name] for name in MOMENTS) + FAINT) / aims).log())
            for found in (first, drafted)
        ]
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

        The draft may be outside of [0, 1] as well. For the rest see `forward`.
        """
        own = self._statistics(photo, weight)
        base = Affine.recoloring(own, style.colors)(photo).clamp(0, 1)
        small = halved(base)
        found = self.encoder.layers(halved(photo), {*MOMENTS, *BESIDE.values()})
        first = {layer: self._statistics(found[layer], weight) for layer in MOMENTS}
        code = self.modulation(style, 0, first, first)
        features, seen = by_depth(DEPTHS, found), by_depth(DEPTHS, first)
        draft = self._painted(0, features, seen, small, style, code, {})
        drafted = self.encoder.layers(draft, HALF)
        with torch.no_grad():  # codes do not learn from it
            before = {name: self._statistics(drafted[name], weight) for name in MOMENTS}
        second = base + doubled(draft - small)
        deep = self.with_photo(by_depth(DEEP, drafted), by_depth(DEEP, found))
        features = {**self.seen_whole(second), **deep}
        seen = {name: self._statistics(x, weight) for name, x in features.items()}
        code = self.modulation(style, 1, first, before)
        beside = by_depth(BESIDE, found)
        return draft, self._painted(1, features, seen, second, style, code, beside)

    def with_photo(
        self, drafted: Mapping[str, Tensor], photo: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Features of the draft, by depth, mixed with those of the photo, channel by channel."""
        return {
            depth: x + self.photo_shares[depth].to(x.dtype)[:, None, None] * (photo[depth] - x)
            for depth, x in drafted.items()
        }

    def seen_whole(self, x: Tensor) -> dict[str, Tensor]:
        """What the second look sees of the pixels that it changes, by depth."""
        return by_depth(WHOLE, self.encoder.layers(x, WHOLE.values()))

    def _painted(
        self,
        look: int,
        features: Mapping[str, Tensor],
        seen: Mapping[str, Statistics],
        base: Tensor,
        style: StyleCode,
        code: Tensor,
        beside: Mapping[str, Tensor],
    ) -> Tensor:
        """What a look makes of `base` with some features, and the photo's beside them, by depth."""
        aims, decoder = style.aims(look), self.decoder(look)
        taken = {}
        for name, x in features.items():
            taken[name] = decoder.take(name, x, [Affine.between(seen[name], aims[name])], [1.0])
        shades = {name: [(code, 1.0)] for name in DEPTHS}
        change: Tensor = decoder(taken, features, shades, self.noises(taken), beside)
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


def by_depth(layers: Mapping[str, str], found: Mapping[str, Found]) -> dict[str, Found]:
    """What was found at some of the encoder's layers, by the depth at which it is used."""
    return {depth: found[layer] for depth, layer in layers.items()}


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
