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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impasto.encoder import Encoder
from impasto.errors import RunError, SettingsError
from impasto.pyramid import resample_picture
from impasto.settings import Padding, Pooling
from impasto.weights import check_sha256

__all__ = [
    "FeatureSpec",
    "Judge",
    "Pictures",
    "Scores",
    "density_and_coverage",
    "features",
    "kid",
    "nearest",
    "score",
]

BATCH: Final = 64
"""Pictures that the encoder sees at once."""

NEIGHBOURS: Final = 5
"""k of density and coverage; Naeem et al. 2020 take 5."""

LEAST: Final = 5
"""The fewest paintings that pictures are scored by; features are no more spread over less."""

RESAMPLES: Final = 200
"""B, how often the bootstrap draws."""

INTERVAL: Final = (0.05, 0.95)
"""Which shares of the resamples lie below the ends of KID's interval."""

BLOCK: Final = (1024, 4096)
"""Generated and training pictures that `nearest` compares at once."""

Pictures = NDArray[np.uint8] | Tensor | Iterable[Tensor]
"""Pictures of one size: `(n, s, s, 3)` of uint8, such as a file mapped into memory; or
`(n, 3, s, s)`, sRGB in [0, 1]; or batches of the latter."""

Statistic = Literal["mean", "std"]


@dataclass(frozen=True)
class FeatureSpec:
    """What scores are measured on; it travels with every score.

    Two choices were made by measuring how many standard deviations of equal halves a fault lifts
    KID by. Means alone found blur, noise, missing pictures and wrong colours better than means with
    standard deviations, which only won on wrong layout. Rare channels, which few real crops excite,
    ruled the cube in the kernel; a `floor` of 0.5 cures that and costs a tenth of the sight for a
    slight blur or noise.

    Attributes:
        layers: of the encoder; their statistics stand side by side, one layer after another.
        statistics: what is taken of each channel over the positions of its map: `mean`, or `std`,
            the standard deviation, or both, `mean` of all layers first if so listed.
        side: to which pictures are brought first, px; antialiased bicubic, clamped to [0, 1].
        pooling: of the encoder; None for that which its file says it was trained with, or max.
        padding: of the encoder's convolutions.
        floor: every feature is standardised by the mean and standard deviation that it has over
            the real reference pictures, but divided by no less than `floor` times the median of the
            standard deviations of the same statistic and layer.
        encoder: its name; `slim` for the newest one in the package.
        sha256: of the encoder's file, empty as long as any will do.
    """

    layers: tuple[str, ...] = ("relu2_1", "relu3_1", "relu4_1", "relu5_1")
    statistics: tuple[Statistic, ...] = ("mean",)
    side: int = 64
    pooling: Pooling | None = None
    padding: Padding = "replicate"
    floor: float = 0.5
    encoder: str = "slim"
    sha256: str = ""

    def __post_init__(self) -> None:
        if (
            not self.layers
            or not self.statistics
            or not {"mean", "std"}.issuperset(self.statistics)
        ):
            raise SettingsError("features need at least one layer, and mean, std or both of it")

    def load(self, device: torch.device | str = "cpu") -> Encoder:
        """The encoder that is asked for.

        Raises:
            WeightsError: there is no such encoder, or it has another SHA-256.
        """
        encoder = Encoder.load(
            self.encoder, pooling=self.pooling, padding=self.padding, device=device
        )
        self.settled(encoder)
        return encoder

    def settled(self, encoder: Encoder) -> Self:
        """The same with everything said that had been left open, for this encoder.

        Raises:
            SettingsError: the encoder is not as asked for, or does not compute in float32.
            WeightsError: it has another SHA-256.
        """
        encoder.check_layers(self.layers)
        if self.sha256:
            check_sha256("the reference of the scores", self.sha256, encoder.sha256)
        if encoder.dtype is not torch.float32:
            raise SettingsError(f"scores are measured in float32, not in {encoder.dtype}")
        if self.pooling not in (None, encoder.pooling) or self.padding != encoder.padding:
            raise SettingsError(
                f"features with {self.pooling or 'any'} pooling and {self.padding} padding need "
                f"another encoder than one with {encoder.pooling} and {encoder.padding}"
            )
        return dataclasses.replace(
            self, pooling=encoder.pooling, encoder=encoder.name, sha256=encoder.sha256
        )

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{' and '.join(self.statistics)} of {', '.join(self.layers)} of {self.encoder} "
            f"({self.sha256[:12] or 'any version'}, {self.pooling or 'its own'} pooling, "
            f"{self.padding} padding) on {self.side}×{self.side} px, antialiased bicubic, "
            f"standardised over the reference (floor {self.floor:g})"
        )

    def record(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """What `record` gave."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in record.items()
        }
        return cls(**values)


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
        spec: FeatureSpec = FeatureSpec(),
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


@torch.no_grad()
def features(pictures: Pictures, encoder: Encoder, spec: FeatureSpec) -> Tensor:
    """The features of pictures, as the encoder gives them: not standardised yet.

    On a CPU with a given number of threads, equal pictures in equal batches give equal features.

    Args:
        pictures: at least one; all square.
        encoder: one that is as `spec` asks.
        spec: what to measure.

    Returns:
        `(N, D)`, float32, on the CPU: `spec.statistics` after one another, of each all
        `spec.layers`.

    Raises:
        SettingsError: these are no pictures, or the encoder is not as asked for.
    """
    spec.settled(encoder)
    rows = []
    for batch in _batches(pictures):
        if batch.ndim != 4 or batch.shape[1] != 3 or batch.shape[2] != batch.shape[3]:
            raise SettingsError(f"pictures to score are (N, 3, s, s), not {tuple(batch.shape)}")
        if not batch.is_floating_point():
            raise SettingsError(f"pictures to score are in [0, 1], not {batch.dtype}")
        x = batch.to(encoder.device, torch.float32)
        maps = encoder(resample_picture(x, (spec.side, spec.side)).clamp(0, 1), spec.layers)
        rows.append(
            torch.cat(
                [
                    f.mean((2, 3)) if statistic == "mean" else f.std((2, 3), correction=0)
                    for statistic in spec.statistics
                    for f in (maps[layer] for layer in spec.layers)
                ],
                dim=1,
            ).cpu()
        )
    if not rows:
        raise SettingsError("there are no pictures to score")
    return torch.cat(rows)


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


@torch.no_grad()
def nearest(
    fake: Tensor, train: Tensor, count: int = 1, *, mirrored: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The training pictures that are nearest to generated ones, to see what was merely learnt.

    Done in blocks, so that no matrix of all pairs is ever in memory.

    Args:
        fake: `(M, d)`, features.
        train: `(n, d)`, features of the training pictures, standardised alike.
        count: how many neighbours, 1 to n.
        mirrored: `(n, d)`, features of the training pictures flipped left to right, in the same
            order. A picture is as near as the nearer of the two.

    Returns:
        Indices into `train`, int64, and Euclidean distances, float32, the nearest first; both
        `(M, count)`.

    Raises:
        SettingsError: the shapes do not fit, or there are not so many.
    """
    copies = [train] if mirrored is None else [train, mirrored]
    if fake.ndim != 2 or any(copy.shape != (len(train), fake.shape[1]) for copy in copies):
        raise SettingsError("generated and training pictures differ in their features")
    if not 1 <= count <= len(train):
        raise SettingsError(f"there are {len(train)} training pictures, so not {count} neighbours")
    found = []
    for queries in torch.split(fake, BLOCK[0]):
        distances = torch.empty(len(queries), 0, dtype=torch.float64)
        indices = torch.empty(len(queries), 0, dtype=torch.long)
        for start in range(0, len(train), BLOCK[1]):
            blocks = [
                _squared_distances(*_between(queries, copy[start : start + BLOCK[1]]))
                for copy in copies
            ]
            block = torch.stack(blocks).amin(0)
            here = torch.arange(start, start + block.shape[1]).expand_as(block)
            distances, indices = torch.cat((distances, block), 1), torch.cat((indices, here), 1)
            distances, order = distances.topk(min(count, distances.shape[1]), largest=False)
            indices = indices.gather(1, order)
        found.append((indices, distances.sqrt().float()))
    return torch.cat([pair[0] for pair in found]), torch.cat([pair[1] for pair in found])


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
    others = _squared_distances(real_real, real, real)
    others.masked_fill_(painting[:, None] == painting, torch.inf)
    radii = others.kthvalue(NEIGHBOURS, dim=1).values
    # What lies on the sphere is outside, whichever way it was rounded.
    inside = _squared_distances(real_fake, real, fake) < radii[:, None] * (1 - 1e-9)
    density = inside.sum().item() / (NEIGHBOURS * len(fake))
    return density, inside.any(1).double().mean().item()


def _products(a: Tensor, b: Tensor | None = None) -> Tensor:
    """x·y/d for all pairs of rows, in float64."""
    a = a.double()
    return a @ (a if b is None else b.double()).mT / a.shape[1]


def _between(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x·y for all pairs of rows, and x·x of either, in float64."""
    a, b = a.double(), b.double()
    return a @ b.mT, a.square().sum(1), b.square().sum(1)


def _squared_distances(products: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """x·x + y·y − 2x·y, `(n, m)`; what may be rounding alone is 0."""
    both = a[:, None] + b
    squares = both - 2 * products
    return squares.masked_fill_(squares < 1e-12 * both, 0)


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


def _batches(pictures: Pictures) -> Iterator[Tensor]:
    """Pictures in batches of at most `BATCH`; arrays as `(N, 3, s, s)` in [0, 1]."""
    if isinstance(pictures, np.ndarray):
        if pictures.ndim != 4 or pictures.dtype != np.uint8:
            raise SettingsError(
                f"an array of pictures is uint8 (n, s, s, 3), not {pictures.dtype} {pictures.shape}"
            )
        for start in range(0, len(pictures), BATCH):
            pixels = torch.from_numpy(np.array(pictures[start : start + BATCH]))
            yield pixels.permute(0, 3, 1, 2).float().div_(255)
        return
    for batch in (pictures,) if isinstance(pictures, Tensor) else pictures:
        yield from torch.split(batch, BATCH)
