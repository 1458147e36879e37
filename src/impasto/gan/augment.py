"""Differentiable augmentation: the discriminator never sees a picture as it is, real or generated.

Zhao et al. 2020 (arXiv:2006.10738), section 3: since generated pictures are changed in the same
ways as real ones, and gradients pass through, a generator does not learn to paint the changes.
Three kinds can be combined, with the paper's ranges, for pictures in [-1, 1]:

- `color`: brightness, plus a number in [-0.5, 0.5]; saturation, the distance of each pixel from its
  own grey times one in [0, 2]; contrast, the distance from the picture's mean times one in
  [0.5, 1.5]. Nothing is clipped.
- `translation`: by up to 1/8 of the side either way, in whole pixels; what comes in is 0.
- `cutout`: 0 in a rectangle of half the sides, whose centre is anywhere in the picture.

Drawing is apart from applying, so that several processes can draw for a whole batch alike and each
apply its own rows.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from impasto.gan.settings import check_augment

__all__ = ["Draws", "augment", "draw"]


@dataclass(frozen=True)
class Draws:
    """What chance has chosen for each of N pictures.

    Attributes:
        policy: the kinds to apply, in order; the numbers of other kinds are not looked at.
        brightness: what is added, `(N,)` in [-0.5, 0.5]; 0 changes nothing.
        saturation: a factor, `(N,)` in [0, 2]; 1 changes nothing.
        contrast: a factor, `(N,)` in [0.5, 1.5]; 1 changes nothing.
        shift: how far down and to the right, `(N, 2)`, int64, px; 0 changes nothing.
        hole: upper left corner of what is cut out, row and column, `(N, 2)`, int64, px; it can lie
            outside, and a hole that does so altogether changes nothing.
    """

    policy: tuple[str, ...]
    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    shift: Tensor
    hole: Tensor

    def rows(self, start: int, stop: int) -> "Draws":
        """The draws of the pictures from `start` to before `stop`."""
        return self._each(lambda tensor: tensor[start:stop])

    def only(self, chosen: Tensor, side: int) -> "Draws":
        """The same for some pictures, and nothing for the others.

        Args:
            chosen: which of them, `(N,)`, bool.
            side: of the pictures, px.
        """
        return dataclasses.replace(
            self,
            brightness=torch.where(chosen, self.brightness, 0.0),
            saturation=torch.where(chosen, self.saturation, 1.0),
            contrast=torch.where(chosen, self.contrast, 1.0),
            shift=torch.where(chosen[:, None], self.shift, 0),
            hole=torch.where(chosen[:, None], self.hole, side),
        )

    def to(self, device: torch.device | str) -> "Draws":
        """The same draws on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Draws":
        return dataclasses.replace(
            self,
            brightness=change(self.brightness),
            saturation=change(self.saturation),
            contrast=change(self.contrast),
            shift=change(self.shift),
            hole=change(self.hole),
        )


def draw(
    count: int,
    side: tuple[int, int] | int,
    policy: Sequence[str],
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Draws:
    """Draws an augmentation for each picture of a batch.

    The numbers depend on the generator's state, `count` and `side` alone: not on the policy, and
    not on the device, because they are drawn where the generator is.

    Args:
        count: how many pictures.
        side: height and width of the pictures, px; one number for squares.
        policy: which of `POLICIES` to apply, in order.
        generator: where the numbers come from; torch's global one on the CPU if `None`.
        device: where the draws are to lie.

    Raises:
        SettingsError: the policy has an unknown name, or one twice.
    """
    check_augment(policy)
    height, width = (side, side) if isinstance(side, int) else side
    source = generator.device if generator else torch.device("cpu")

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, device=source)

    def whole(low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (count,), generator=generator, device=source)

    def shift(length: int) -> Tensor:
        most = (length + 4) // 8  # 1/8, rounded
        return whole(-most, most)

    def corner(length: int) -> Tensor:
        half = _half(length)  # the hole's centre is in the picture or on its border
        return whole(-(half // 2), length - (half + 1) // 2)

    return Draws(
        policy=tuple(policy),
        brightness=uniform(-0.5, 0.5),
        saturation=uniform(0, 2),
        contrast=uniform(0.5, 1.5),
        shift=torch.stack((shift(height), shift(width)), 1),
        hole=torch.stack((corner(height), corner(width)), 1),
    ).to(device)


def augment(x: Tensor, draws: Draws) -> Tensor:
    """Pictures, changed as drawn.

    Differentiable, and its gradient again. Colours are computed in at least float32.

    Args:
        x: pictures `(N, 3, H, W)` in [-1, 1].
        draws: for N pictures of this size, on the same device.

    Returns:
        The same shape and dtype. With `color` it can leave [-1, 1].
    """
    for name in draws.policy:
        x = _OPERATIONS[name](x, draws)
    return x


def _color(x: Tensor, draws: Draws) -> Tensor:
    """Brightness, saturation and contrast, in the order of the paper's program."""
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    brightness, saturation, contrast = (
        drawn.to(y.dtype)[:, None, None, None]
        for drawn in (draws.brightness, draws.saturation, draws.contrast)
    )
    y = y + brightness
    y = torch.lerp(y.mean(1, keepdim=True), y, saturation)
    y = torch.lerp(y.mean((1, 2, 3), keepdim=True), y, contrast)
    return y.to(x.dtype)


def _translation(x: Tensor, draws: Draws) -> Tensor:
    """Pixels move round, and those that come in on the other side are made 0."""
    N, C, H, W = x.shape
    row, column = _from(draws.shift, H, W)  # where each pixel comes from
    place = (row % H)[:, :, None] * W + (column % W)[:, None, :]
    moved = x.flatten(2).gather(2, place.view(N, 1, H * W).expand(-1, C, -1)).view(x.shape)
    return moved.masked_fill(~_inside(row, column, H, W), 0)


def _cutout(x: Tensor, draws: Draws) -> Tensor:
    H, W = x.shape[2:]
    row, column = _from(draws.hole, H, W)  # each pixel's place in the hole
    return x.masked_fill(_inside(row, column, _half(H), _half(W)), 0)


def _from(origin: Tensor, H: int, W: int) -> tuple[Tensor, Tensor]:
    """The rows `(N, H)` and columns `(N, W)` of a picture, counted from an origin `(N, 2)`."""
    row = torch.arange(H, device=origin.device) - origin[:, :1]
    column = torch.arange(W, device=origin.device) - origin[:, 1:]
    return row, column


def _inside(row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """Which pixels `(N, 1, H, W)` have their row in [0, height) and their column in [0, width)."""
    rows, columns = (row >= 0) & (row < height), (column >= 0) & (column < width)
    return rows[:, None, :, None] & columns[:, None, None, :]


def _half(length: int) -> int:
    """Half a side, rounded."""
    return (length + 1) // 2


_OPERATIONS: Final[Mapping[str, Callable[[Tensor, Draws], Tensor]]] = MappingProxyType(
    {"color": _color, "translation": _translation, "cutout": _cutout}
)
