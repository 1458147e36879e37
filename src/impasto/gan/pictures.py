"""The pictures that a GAN learns from: how they are cut into squares, and put into batches.

Nothing here imports torch before a batch is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, get_args

import numpy as np

from impasto.errors import SettingsError
from impasto.gan.collection import Skipped, spread
from impasto.gan.settings import Crop
from impasto.seeds import derive_seed

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    Squares = NDArray[np.uint8]
    Numbers = NDArray[np.int64]

__all__ = ["Box", "Pictures", "Views", "boxes", "closer", "hold_out"]

SLACK: Final = 1.15
"""For random crops, squares are stored so many times as large as what is seen of them."""


class Box(NamedTuple):
    """A square part of a picture, px."""

    left: int
    top: int
    side: int


@dataclass(frozen=True)
class Views:
    """How pictures become squares.

    One square from the centre, unless `tile` or `crops` says otherwise.

    Attributes:
        size: Side of what is seen, px.
        crop: `centre` to see all of a square; `random` to store it somewhat larger, and see another
            part of it each time.
        tile: Whether a picture is cut into squares that cover all of it; see `boxes`.
        crops: Squares per picture, of several sizes, at random places; 0 for none of that.

    Raises:
        SettingsError: A value is out of range, or both `tile` and `crops` are given.
    """

    size: int
    crop: Crop = "centre"
    tile: bool = False
    crops: int = 0

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 4096:
            raise SettingsError(f"size is {self.size}; it is a number from 8 to 4096")
        if self.crop not in get_args(Crop):
            raise SettingsError(f"crop is {self.crop!r}; it can be {', '.join(get_args(Crop))}")
        if not 0 <= self.crops <= 10_000:
            raise SettingsError(f"crops is {self.crops}; it is a number from 0 to 10000")
        if self.tile and self.crops:
            raise SettingsError("tile and crops are two ways to cut pictures; choose one of them")

    @property
    def stored(self) -> int:
        """S, the side of a square in the cache, px."""
        return self.size if self.crop == "centre" else round(self.size * SLACK)


def boxes(picture: tuple[int, int], views: Views, seed: int) -> list[Box]:
    """Where a picture is cut.

    Tiles have the short side of the picture, in one row that overlaps evenly. With a short side of
    4 times `size` or more there are two rows, from 8 times on three, and one more for each
    doubling, so that the squares of a large picture still show much of it.

    Crops have between a quarter of the short side (but no less than is stored, so that nothing is
    enlarged) and all of it; every factor is as likely.

    Args:
        picture: (W, H), px.
        views: How to cut.
        seed: Of crops; it is at least 0.
    """
    width, height = picture
    short = min(picture)
    if views.crops:
        rng = np.random.default_rng(seed)
        least = min(short, max(views.stored, short // 4))
        cut = []
        for _ in range(views.crops):
            side = round(least * (short / least) ** rng.random())
            left, top = (int(rng.integers(length - side + 1)) for length in picture)
            cut.append(Box(left, top, side))
        return cut
    if views.tile:
        side = -(-short // max(1, (short // views.size).bit_length() - 1))
        return [
            Box(left, top, side) for top in _starts(height, side) for left in _starts(width, side)
        ]
    return [Box((width - short) // 2, (height - short) // 2, short)]


def _starts(length: int, side: int) -> list[int]:
    """Where pieces of `side` begin that cover `length` with even overlap."""
    gaps = -(-length // side) - 1
    return [round(i * (length - side) / gaps) for i in range(gaps + 1)] if gaps else [0]


def closer(box: Box, count: int, seed: int) -> list[Box]:
    """Squares within a square that show nearly as much of it, at random places.

    Their sides are down to 1/`SLACK` of its own.
    """
    rng = np.random.default_rng(seed)
    cut = []
    for _ in range(count):
        side = max(1, round(box.side / SLACK ** rng.random()))
        left, top = (int(rng.integers(box.side - side + 1)) for _ in range(2))
        cut.append(Box(box.left + left, box.top + top, side))
    return cut


def hold_out(digests: Sequence[str], share: float, seed: int) -> list[bool]:
    """Whether each painting is held out: about this share of them, at least one, and not all.

    With a share of 1 it is all of them.

    Each is decided by itself, from its digest: what is added or removed does not move the others,
    but for those that are held out, or not, for want of another.

    Args:
        digests: One for each painting, all different; at least two.
        share: Above 0, and at most 1.
        seed: Of the choice.
    """
    if share == 1:
        return [True] * len(digests)
    places = [derive_seed(seed, "held out", digest) for digest in digests]
    last = max(places)
    return [place == min(places) or place < min(last, share * 2**63) for place in places]


@dataclass(frozen=True, eq=False)
class Pictures:
    """The squares of a collection.

    Attributes:
        train: Squares to learn from, uint8 (n, S, S, 3), mapped into memory.
        held: Those that are held out, likewise; no painting has squares in both.
        train_painting: Which painting each square to learn from is of, (n,).
        held_painting: The same of those that are held out.
        side: Side of what is seen of a square, px; at most S.
        key: What follows from the content and the settings: equal keys, equal squares.
        skipped: Files that could not be used.
    """

    train: Squares
    held: Squares
    train_painting: Numbers
    held_painting: Numbers
    side: int
    key: str
    skipped: tuple[Skipped, ...] = ()

    @property
    def slack(self) -> int:
        """By how much a square is larger than what is seen of it, px."""
        return int(self.train.shape[1]) - self.side

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws for `batch`: flips `(count,)`, bool, and offsets `(count, 2)`, int64.

        Processes that share a batch draw for all of it, from equal generators, and take their rows.
        """
        import torch

        flips = torch.rand(count, generator=generator) < 0.5
        return flips, torch.randint(self.slack + 1, (count, 2), generator=generator)

    def batch(
        self,
        indices: Tensor,
        *,
        flips: Tensor | None = None,
        offsets: Tensor | None = None,
        held: bool = False,
    ) -> Tensor:
        """Some pictures, float32 `(N, 3, side, side)`, sRGB in [-1, 1]: a level x is x / 127.5 - 1.

        Args:
            indices: Which squares, `(N,)`, integers.
            flips: Which of them are mirrored, `(N,)`, bool; None for none.
            offsets: Row and column where each is cut from its square, `(N, 2)`, integers in
                [0, S - side]; None for the middle.
            held: Whether they come from `held` and not from `train`.
        """
        import torch

        squares = self.held if held else self.train
        middle = (self.slack // 2, self.slack // 2)
        corners = [middle] * len(indices) if offsets is None else offsets.tolist()
        cut = [
            self._seen(squares[index], top, left)
            for index, (top, left) in zip(indices.tolist(), corners, strict=True)
        ]
        x = torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float()
        x = x.div_(127.5).sub_(1)
        return x if flips is None else torch.where(flips[:, None, None, None], x.flip(-1), x)

    def reference(self, count: int) -> tuple[Squares, Numbers]:
        """Pictures that are held out, to compare with: as training would see them, not mirrored.

        Squares that are larger than what is seen are seen in several places, where that is needed
        to come to `count`. Others are seen once, so there can be fewer.

        Args:
            count: How many, about; no more than squares and places give.

        Returns:
            Pictures, uint8 (n, side, side, 3), and which painting each is of, (n,).
        """
        places = spread(count, len(self.held))
        if self.slack:
            places = np.repeat(places, -(-count // len(places)))
        rng = np.random.default_rng(0)
        corners = rng.integers(self.slack + 1, size=(len(places), 2)).tolist()
        cut = [
            self._seen(self.held[place], top, left)
            for place, (top, left) in zip(places.tolist(), corners, strict=True)
        ]
        return np.stack(cut), self.held_painting[places]

    def _seen(self, square: Squares, top: int, left: int) -> Squares:
        return square[top : top + self.side, left : left + self.side]
