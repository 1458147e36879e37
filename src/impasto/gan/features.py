"""Features of pictures, by the encoder in the package: what scores are measured on."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impasto.encoder import Encoder
from impasto.errors import SettingsError
from impasto.pyramid import resample_picture
from impasto.settings import Padding, Pooling
from impasto.weights import check_sha256

__all__ = ["FeatureSpec", "Pictures", "features", "nearest", "squared_distances"]

BATCH: Final = 64
"""Pictures that the encoder sees at once."""

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
                squared_distances(*_between(queries, copy[start : start + BLOCK[1]]))
                for copy in copies
            ]
            block = torch.stack(blocks).amin(0)
            here = torch.arange(start, start + block.shape[1]).expand_as(block)
            distances, indices = torch.cat((distances, block), 1), torch.cat((indices, here), 1)
            distances, order = distances.topk(min(count, distances.shape[1]), largest=False)
            indices = indices.gather(1, order)
        found.append((indices, distances.sqrt().float()))
    return torch.cat([pair[0] for pair in found]), torch.cat([pair[1] for pair in found])


def _between(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x·y for all pairs of rows, and x·x of either, in float64."""
    a, b = a.double(), b.double()
    return a @ b.mT, a.square().sum(1), b.square().sum(1)


def squared_distances(products: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """x·x + y·y − 2x·y, `(n, m)`; what may be rounding alone is 0."""
    both = a[:, None] + b
    squares = both - 2 * products
    return squares.masked_fill_(squares < 1e-12 * both, 0)


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
