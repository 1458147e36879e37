"""How good generated pictures are, beside real ones that the generator has never seen.

Pictures are compared by features of the encoder in the package, so nothing is downloaded. The
scores have the names and formulas of the literature, but they are ours: the literature's KID,
density and coverage are measured on features of the Inception network, and no number given here
may stand beside one of those. Two scores compare only where the `FeatureSpec`, the reference
pictures and, for density and coverage, the numbers of pictures are the same.

The letters: X are n real pictures, cut from P paintings, Y are M generated ones, d is the number
of features. Crops of one painting resemble each other, so what is drawn independently of one
another are paintings and not crops. The scores are made for that:

- KID leaves pairs of crops of one painting out, as the unbiased estimator leaves out a picture's
  pair with itself. With them in, a perfect generator would not have 0 in expectation, but about
  1/P of the difference between pairs within a painting and pairs across.
- The balls of density and coverage reach to the kth nearest crop of another painting. To the kth
  nearest of all, they would be as small as a painting's crops are alike. Of 281 landscapes, six
  crops each, half scored a density of 0.25 and a coverage of 0.37 against the other half that way,
  and 1.12 and 0.85 this way: balls are a little large now, as a painting's own crops are missing.
- The bootstrap (Efron 1979) draws paintings with replacement, with all their crops, and generated
  pictures one by one. What was drawn w times weighs w. Copies do not pair with one another either,
  neither of a painting nor of a generated picture: they hold no news about the spread, and would
  lift every resample's KID above the estimate.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impasto.encoder import Encoder
from impasto.errors import RunError, SettingsError
from impasto.gan.features import FeatureSpec, Pictures, features, squared_distances

__all__ = [
    "Judge",
    "Scores",
    "density_and_coverage",
    "kid",
    "score",
]

NEIGHBOURS: Final = 5
"""k of density and coverage; Naeem et al. 2020 take 5."""

LEAST: Final = 5
"""The fewest paintings that pictures are scored by; features are no more spread over less."""

RESAMPLES: Final = 200
"""B, how often the bootstrap draws."""

INTERVAL: Final = (0.05, 0.95)
"""Which shares of the resamples lie below the ends of KID's interval."""


@dataclass(frozen=True)
class Scores:
    """How generated pictures compare with real ones.

    Attributes:
        kid: squared MMD, unbiased: 0 in expectation for a perfect generator, so it may lie below.
        kid_low: the 5th percentile of its resamples.
        kid_high: the 95th.
        density: how many balls around real pictures a generated one lies in, over k; 1 or little
            more for a perfect generator, 0 if it paints something else; it can be large if it
            paints only the usual.
        coverage: the share of real pictures near which there is a generated one, 0 to 1.
        real: n, the number of real pictures.
        paintings: P, the number of paintings that they are cut from.
        generated: M, the number of generated pictures.
        spec: what was measured on.
    """

    kid: float
    kid_low: float
    kid_high: float
    density: float
    coverage: float
    real: int
    paintings: int
    generated: int
    spec: FeatureSpec

    def record(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return {**dataclasses.asdict(self), "spec": self.spec.record()}


class Judge:
    """Scores generated pictures against real ones that were held out of training.

    Attributes:
        spec: what is measured on, everything said.
        encoder: the encoder.
        raw: `(n, D)`, the reference's features before they are standardised; with `painting` and
            `spec` all that `from_features` needs.
        painting: `(n,)`, which painting each crop is from.
        reference: `(n, D)`, the reference's features, standardised.

    Args:
        pictures: the reference, as `features` takes it.
        painting: `(n,)`, which painting each crop is from; any whole numbers.
        spec: what to measure on.
        encoder: one that is as `spec` asks; loaded if there is none.

    Raises:
        SettingsError: they do not fit together.
        WeightsError: the encoder cannot be loaded, or is not the one that was asked for.
    """

    def __init__(
        self,
        pictures: Pictures,
        painting: Tensor | NDArray[np.integer[Any]],
        spec: FeatureSpec = FeatureSpec(),  # noqa: B008 — frozen
        encoder: Encoder | None = None,
    ) -> None:
        encoder = encoder or spec.load()
        self._set(features(pictures, encoder, spec), painting, spec, encoder)

    @classmethod
    def from_features(
        cls,
        raw: Tensor,
        painting: Tensor | NDArray[np.integer[Any]],
        spec: FeatureSpec,
        encoder: Encoder | None = None,
    ) -> Self:
        """One whose reference was seen before: `raw`, `painting` and `spec` of another.

        The encoder is loaded by the name in `spec`, so one that came from a file must be given.
        """
        judge = cls.__new__(cls)
        judge._set(raw, painting, spec, encoder or spec.load())
        return judge

    def _set(
        self,
        raw: Tensor,
        painting: Tensor | NDArray[np.integer[Any]],
        spec: FeatureSpec,
        encoder: Encoder,
    ) -> None:
        self.spec = spec.settled(encoder)
        self.encoder = encoder
        self.raw = raw
        self.painting = _numbers(painting, len(raw))
        held = len(set(self.painting.tolist()))
        if held < LEAST:
            raise SettingsError(f"{held} held-out paintings are too few to score by, {LEAST} do")
        channels = [encoder.plan.channels[layer] for layer in spec.layers] * len(spec.statistics)
        if raw.ndim != 2 or raw.shape[1] != sum(channels):
            raise SettingsError(
                f"these features are {tuple(raw.shape)}, but {spec.describe()} are {sum(channels)}"
            )
        # In float64: sums over many crops. The floor is that of a layer and statistic.
        wide = raw.double()
        std = wide.std(0, correction=0)
        floors = [s.median().mul(spec.floor).expand_as(s) for s in torch.split(std, channels)]
        self._mean = wide.mean(0)
        self._std = torch.maximum(std, torch.cat(floors)).clamp_min(1e-12)
        self.reference = self._standardised(raw)

    def features(self, pictures: Pictures) -> Tensor:
        """The features of pictures, standardised as the reference's are: `(N, D)`, float32."""
        return self._standardised(features(pictures, self.encoder, self.spec))

    def score(self, pictures: Pictures, *, seed: int = 0) -> Scores:
        """The scores of generated pictures; see `score`."""
        fake = self.features(pictures)
        return score(self.reference, self.painting, fake, spec=self.spec, seed=seed)

    def _standardised(self, raw: Tensor) -> Tensor:
        return ((raw.double() - self._mean) / self._std).float()


def score(
    real: Tensor,
    painting: Tensor | NDArray[np.integer[Any]],
    fake: Tensor,
    *,
    spec: FeatureSpec,
    seed: int = 0,
) -> Scores:
    """All scores, from features.

    Computed in float64, with matrices of n², nM and M² numbers in memory.

    Args:
        real: `(n, d)`, standardised already; of crops that were held out of training.
        painting: `(n,)`, which painting each crop is from; each has k crops of others beside it.
        fake: `(M, d)`, standardised in the same way, M at least 2.
        spec: what the features are, for the record.
        seed: of the resamples.

    Raises:
        SettingsError: there is too little, or the shapes do not fit.
        RunError: a feature is not finite.
    """
    painting = _check(real, fake, painting)
    real_real, real_fake, fake_fake = _products(real), _products(real, fake), _products(fake)
    density, coverage = _density_and_coverage(real_real, real_fake, fake_fake, painting)
    pairs = _Pairs.of(real_real, real_fake, fake_fake, painting)
    low, high = pairs.interval(seed)
    return Scores(
        pairs.estimate(),
        low,
        high,
        density,
        coverage,
        real=len(real),
        paintings=len(pairs.counts),
        generated=len(fake),
        spec=spec,
    )


def kid(
    real: Tensor, fake: Tensor, painting: Tensor | NDArray[np.integer[Any]] | None = None
) -> float:
    """The squared MMD with kernel (x·y/d + 1)³, unbiased, over all samples.

    The kernel is that of KID (Bińkowski et al. 2018, section 4), the estimator the U-statistic of
    Gretton et al. 2012, eq. 3, which leaves out pairs of a sample with itself. With `painting`,
    real samples of the same painting do not pair either; see the module.

    Args:
        real: `(n, d)`.
        fake: `(M, d)`.
        painting: `(n,)`, or None if every real sample is from another.

    Raises:
        SettingsError: there are no pairs, or the shapes do not fit.
        RunError: a feature is not finite.
    """
    painting = _check(real, fake, torch.arange(len(real)) if painting is None else painting)
    products = _products(real), _products(real, fake), _products(fake)
    return _Pairs.of(*products, painting).estimate()


def density_and_coverage(
    real: Tensor, fake: Tensor, painting: Tensor | NDArray[np.integer[Any]] | None = None
) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, section 3.2) with k = `NEIGHBOURS`.

    B(X_i) is the ball around X_i whose radius is the distance to its kth nearest neighbour among
    the other real samples; with `painting`, among those of other paintings.

        density = (1/(kM)) Σ_j Σ_i 1[Y_j ∈ B(X_i)],  coverage = (1/n) Σ_i 1[some Y_j ∈ B(X_i)]

    Balls are open, so that without `painting` a set scores 1 and 1 against itself. Coverage grows
    with M.

    Args:
        real: `(n, d)`.
        fake: `(M, d)`.
        painting: `(n,)`, or None if every real sample is from another.

    Raises:
        SettingsError: there is too little, or the shapes do not fit.
        RunError: a feature is not finite.
    """
    painting = _check(real, fake, torch.arange(len(real)) if painting is None else painting)
    products = _products(real), _products(real, fake), _products(fake)
    return _density_and_coverage(*products, painting)


@dataclass(frozen=True)
class _Pairs:
    """Sums of the kernel over all pairs that count; reweighted, they give every resample's KID.

    Attributes:
        real_real: `(P, P)`, summed over the crops of two paintings; 0 for a painting with itself.
        real_fake: `(P, M)`, summed over the crops of a painting.
        fake_fake: `(M, M)`; 0 for a picture with itself.
        counts: `(P,)`, the number of crops of each painting.
    """

    real_real: Tensor
    real_fake: Tensor
    fake_fake: Tensor
    counts: Tensor

    @classmethod
    def of(
        cls, real_real: Tensor, real_fake: Tensor, fake_fake: Tensor, painting: Tensor
    ) -> "_Pairs":
        """From x·y/d, which is overwritten, and paintings numbered from 0, `(n,)`."""
        for products in (real_real, real_fake, fake_fake):
            products.add_(1).pow_(3)
        P = int(painting.max()) + 1
        across = real_real.new_zeros(P, len(painting)).index_add_(0, painting, real_real)
        return cls(
            real_real.new_zeros(P, P).index_add_(1, painting, across).fill_diagonal_(0),
            real_real.new_zeros(P, real_fake.shape[1]).index_add_(0, painting, real_fake),
            fake_fake.fill_diagonal_(0),
            torch.bincount(painting, minlength=P).double(),
        )

    def estimate(self) -> float:
        """KID itself: everything weighs 1."""
        P, M = self.real_fake.shape
        ones = self.real_real.new_ones(1, P), self.real_real.new_ones(1, M)
        return float(self._weighted(*ones))

    def interval(self, seed: int) -> tuple[float, float]:
        """Two percentiles of KID over resamples of paintings and of generated pictures.

        A resample of a single painting has no pairs; it says nothing, and is left out.
        """
        generator = torch.Generator().manual_seed(seed)
        P, M = self.real_fake.shape
        resamples = self._weighted(_multiplicities(P, generator), _multiplicities(M, generator))
        ends = torch.tensor(INTERVAL, dtype=torch.float64)
        low, high = resamples[resamples.isfinite()].quantile(ends).tolist()
        return low, high

    def _weighted(self, w: Tensor, v: Tensor) -> Tensor:
        """KID with weights: `(B, P)` of the paintings, `(B, M)` of generated pictures, as `(B,)`.

        The weight of a pair is the product of two, and each mean is divided by the sum of its own.
        """
        crops = w * self.counts
        real_pairs = crops.sum(1).square() - crops.square().sum(1)
        fake_pairs = v.sum(1).square() - v.square().sum(1)
        return (
            (w @ self.real_real * w).sum(1) / real_pairs
            + (v @ self.fake_fake * v).sum(1) / fake_pairs
            - 2 * (w @ self.real_fake * v).sum(1) / (crops.sum(1) * v.sum(1))
        )


def _multiplicities(count: int, generator: torch.Generator) -> Tensor:
    """How often each of `count` was drawn in `count` draws, for each resample: `(B, count)`."""
    drawn = torch.randint(count, (RESAMPLES, count), generator=generator)
    ones = torch.ones(drawn.shape, dtype=torch.float64)
    return torch.zeros_like(ones).scatter_add_(1, drawn, ones)


def _density_and_coverage(
    real_real: Tensor, real_fake: Tensor, fake_fake: Tensor, painting: Tensor
) -> tuple[float, float]:
    """Both, from x·y/d and paintings `(n,)`."""
    real, fake = real_real.diagonal(), fake_fake.diagonal()
    others = squared_distances(real_real, real, real)
    others.masked_fill_(painting[:, None] == painting, torch.inf)
    radii = others.kthvalue(NEIGHBOURS, dim=1).values
    # What lies on the sphere is outside, whichever way it was rounded.
    inside = squared_distances(real_fake, real, fake) < radii[:, None] * (1 - 1e-9)
    density = inside.sum().item() / (NEIGHBOURS * len(fake))
    return density, inside.any(1).double().mean().item()


def _products(a: Tensor, b: Tensor | None = None) -> Tensor:
    """x·y/d for all pairs of rows, in float64."""
    a = a.double()
    return a @ (a if b is None else b.double()).mT / a.shape[1]


def _check(real: Tensor, fake: Tensor, painting: Tensor | NDArray[np.integer[Any]]) -> Tensor:
    """Refuses features that cannot be scored; gives the paintings, numbered from 0."""
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise SettingsError(
            f"features of real and generated pictures are (n, d) and (M, d), not "
            f"{tuple(real.shape)} and {tuple(fake.shape)}"
        )
    if len(real) == 0 or len(fake) < 2:
        raise SettingsError(f"{len(real)} real, {len(fake)} generated pictures: too few to score")
    for name, rows in (("real", real), ("generated", fake)):
        if not rows.isfinite().all():
            raise RunError(f"the features of the {name} pictures are not all finite")
    numbered: Tensor = torch.unique(_numbers(painting, len(real)), return_inverse=True)[1]
    others = len(real) - int(torch.bincount(numbered).max())
    if others < NEIGHBOURS:
        raise SettingsError(
            f"a real picture has {others} from other paintings beside it, too few to score; "
            f"it takes {NEIGHBOURS}"
        )
    return numbered


def _numbers(painting: Tensor | NDArray[np.integer[Any]], count: int) -> Tensor:
    """Which painting each of `count` crops is from, as int64."""
    numbers = torch.as_tensor(painting)
    if numbers.shape != (count,) or numbers.is_floating_point():
        raise SettingsError(f"each of {count} real pictures needs the number of its painting")
    return numbers.long()
