"""`FastStyle`: any picture in any style, in one pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impasto.compute import choose_device
from impasto.encoder import Encoder
from impasto.errors import SettingsError, WeightsError
from impasto.fast.network import FORM, FastNetwork, StyleCode, padded
from impasto.fast.painting import Done, Part, paint
from impasto.images import Picture
from impasto.inputs import PictureLike, as_picture
from impasto.pyramid import resample_picture
from impasto.settings import DeviceName
from impasto.weights import bundled, check_sha256, read_weights, weights_path

__all__ = ["TILE", "WHOLE", "Canvas", "FastStyle", "PixelCanvas", "TensorCanvas", "amounts"]

WHOLE: Final = 2048
"""Longest side of a picture that is painted at once, px."""

TILE: Final = 768
"""Side of the tiles that larger pictures are painted in, px."""

Pixels = NDArray[np.uint8]


class FastStyle:
    """A network that paints any picture in any style in one pass.

    Args:
        network: the network, in evaluation mode.
        name: what to call it in records.
        sha256: of its weight file, for records; empty where there is none.
    """

    def __init__(self, network: FastNetwork, *, name: str = "unnamed", sha256: str = "") -> None:
        self.network = network.eval().requires_grad_(False)
        self.name, self.sha256 = name, sha256

    @classmethod
    def load(cls, name: str | Path = "fast", *, device: torch.device | str = "cpu") -> "FastStyle":
        """The network of this name, or in this file.

        Args:
            name: of a bundled network, or the path of a file that `training/fast.py` wrote.
            device: where it runs.

        Raises:
            WeightsError: the file is missing, damaged or of another kind.
            RunError: there is no such device here.
        """
        if name == "fast" and not any(stem.startswith("fast-") for stem in bundled()):
            raise WeightsError(
                "no network that paints in one pass comes with this version; give a file that "
                "training/fast.py made, with --encoder PATH"
            )
        file = read_weights(weights_path(name))
        if file.metadata.get("kind") != "fast":
            raise WeightsError(f"{file.path} holds no network that paints in one pass")
        if file.metadata.get("form") != FORM:
            raise WeightsError(
                f"{file.path} is of another version of impasto, whose network was built otherwise; "
                "only that version can use it"
            )
        try:
            full, half, quarter, eighth = map(int, file.metadata["widths"].split(","))
            encoder = Encoder.load(file.metadata["encoder"])
            check_sha256(str(file.path), file.metadata["encoder_sha256"], encoder.sha256)
            network = FastNetwork(encoder, (full, half, quarter, eighth))
            missing, unknown = network.load_state_dict(dict(file.tensors), strict=False)
        except (KeyError, ValueError, RuntimeError):
            raise WeightsError(f"{file.path} is damaged: its weights have other shapes") from None
        if unknown or set(missing) - {"noise"}:
            raise WeightsError(f"{file.path} is damaged: weights are missing, or too many")
        if not all(bool(tensor.isfinite().all()) for tensor in file.tensors.values()):
            raise WeightsError(f"{file.path} is damaged: some of its weights are no finite numbers")
        network = network.to(_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(network, name=file.name, sha256=file.sha256)

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.network.noise.device

    def style(
        self, picture: PictureLike, *, size: int = 512, mask: Tensor | None = None
    ) -> StyleCode:
        """All that is needed of a style, for any number of pictures.

        Args:
            picture: the painting.
            size: its long side is brought to this before it is looked at, px: as long as that of
                the picture to be painted gives strokes of their own size relative to it. It is
                never enlarged.
            mask: where in the painting the style is taken from, `(1, 1, H, W)`, 0 to 1, not all 0;
                of another size, it is resized; None for all of it.

        Raises:
            SettingsError: the size or the mask is not as it should be.
            ImageError: the picture cannot be read.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise SettingsError(f"size is {size!r}; it is a long side in px, 1 or more")
        x = as_picture(picture).over_white().tensor()
        H, W = x.shape[-2:]
        if mask is not None and (mask.shape[:2] != (1, 1) or not bool(mask.max() > 0)):
            raise SettingsError(
                f"a mask is (1, 1, {H}, {W}) and not all 0; this one is {tuple(mask.shape)}"
            )
        scale = min(1.0, size / max(H, W))
        w, h = (max(1, round(side * scale)) for side in (W, H))
        small, inside = padded(resample_picture(x, (w, h)).to(self.device))
        weight: Tensor | None = inside
        if mask is not None:
            weight = inside * padded(resample_picture(mask, (w, h)).to(self.device))[0]
        elif small.shape[-2:] == (h, w):
            weight = None  # every pixel counts
        with torch.inference_mode():
            return self.network.style(small, weight)

    @overload
    def stylize(  # type: ignore[overload-overlap]
        self, picture: Tensor, style: StyleCode, *, strength: float = ...
    ) -> Tensor: ...
    @overload
    def stylize(
        self, picture: PictureLike, style: StyleCode, *, strength: float = ...
    ) -> Picture: ...
    def stylize(
        self, picture: PictureLike, style: StyleCode, *, strength: float = 0.5
    ) -> Tensor | Picture:
        """A picture in a style.

        Args:
            picture: a tensor `(1, 3, H, W)`, sRGB in [0, 1], or any other picture.
            style: as `style` gives it.
            strength: 0 gives the picture back; at 0.5 its features are those of the style; beyond,
                the result is painted once more, as far as it says, up to 1.

        Returns:
            A tensor for a tensor, of the same shape, on the CPU; else a `Picture` of the same size.

        Raises:
            SettingsError: the strength, the style or the picture is not as it should be.
        """
        if not isinstance(style, StyleCode):
            raise SettingsError("the style is no StyleCode; make one with .style(picture), once")
        if isinstance(picture, Tensor):
            return self.painted(picture, [Part(style)], strength)
        given = as_picture(picture)
        return Picture(self._pixels(given.pixels, [Part(style)], strength), given.alpha, given.exif)

    def painted(self, x: Tensor, parts: Sequence[Part], strength: float) -> Tensor:
        """A tensor with its parts in their styles; as `stylize`."""
        if x.ndim != 4 or x.shape[:2] != (1, 3) or not x.is_floating_point() or not x.numel():
            raise SettingsError(
                f"a picture is floats (1, 3, H, W) in [0, 1], not {x.dtype} {tuple(x.shape)}"
            )
        if not bool((x.min() >= -0.5) & (x.max() <= 1.5)):  # also if it has a NaN
            raise SettingsError(
                f"a picture is in [0, 1]; this one goes from {float(x.min()):g} to "
                f"{float(x.max()):g}"
            )
        for amount in amounts(strength):
            result = torch.empty(x.shape)
            for _ in self.paint(TensorCanvas(x, result), parts, amount):
                pass
            x = result
        return x.detach().cpu().float().clone() if strength == 0 else x

    def _pixels(self, pixels: Pixels, parts: Sequence[Part], strength: float) -> Pixels:
        for amount in amounts(strength):
            result = np.empty_like(pixels)
            for _ in self.paint(PixelCanvas(pixels, result), parts, amount):
                pass
            pixels = result
        return pixels.copy() if strength == 0 else pixels

    def paint(self, canvas: "Canvas", parts: Sequence[Part], amount: float) -> Iterator[Done]:
        """Paints tile by tile; see `impasto.fast.painting.paint`."""
        height, width = canvas.size
        side = None if max(height, width) <= WHOLE else TILE

        def read(top: int, left: int, bottom: int, right: int) -> Tensor:
            return canvas.read(np.s_[top:bottom, left:right]).to(self.device)

        def write(top: int, left: int, part: Tensor) -> None:
            h, w = part.shape[-2:]
            canvas.write(np.s_[top : top + h, left : left + w], part.float().clamp(0, 1).cpu())

        yield from paint(
            self.network, read, write, (height, width), parts, amount=amount, side=side
        )


def _device(device: torch.device | str) -> torch.device:
    """A device that is here; instead of MPS, which has no float64, the CPU."""
    name = str(device).partition(":")[0]
    if name not in get_args(DeviceName):
        raise SettingsError(f"device is {name!r}; it can be {', '.join(get_args(DeviceName))}")
    found = choose_device(name)  # type: ignore[arg-type]
    if found.type == "mps":
        return torch.device("cpu")
    return torch.device(device) if name == found.type else found


def amounts(strength: float) -> list[float]:
    """How far the features go in each pass over the picture.

    Raises:
        SettingsError: the strength is not from 0 to 1.
    """
    if not isinstance(strength, int | float) or not 0 <= strength <= 1:
        raise SettingsError(f"strength is {strength}; it goes from 0 to 1")
    first, second = min(1.0, 2.0 * strength), max(0.0, 2.0 * strength - 1)
    return [amount for amount in (first, second) if amount > 0]


Window = tuple[slice, slice]
"""Rows and columns."""


class Canvas(Protocol):
    """A picture to be read and one to be written, window by window."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""

    def read(self, window: Window) -> Tensor:
        """What is there before, `(1, 3, h, w)`, sRGB in [0, 1]."""

    def write(self, window: Window, part: Tensor) -> None:
        """Takes what is there afterwards, likewise."""


@dataclass(frozen=True)
class TensorCanvas:
    """Tensors `(1, 3, H, W)`."""

    before: Tensor
    after: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.before.shape[-2], self.before.shape[-1]

    def read(self, window: Window) -> Tensor:
        """What is there before."""
        return self.before[(..., *window)].float()

    def write(self, window: Window, part: Tensor) -> None:
        """Takes what is there afterwards."""
        self.after[(..., *window)] = part


@dataclass(frozen=True)
class PixelCanvas:
    """Pixels of 8 bits, so that a large picture takes no more memory than it has to."""

    before: Pixels
    after: Pixels

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.before.shape[0], self.before.shape[1]

    def read(self, window: Window) -> Tensor:
        """What is there before."""
        part = torch.from_numpy(np.ascontiguousarray(self.before[window]))
        return part.permute(2, 0, 1)[None].float() / 255

    def write(self, window: Window, part: Tensor) -> None:
        """Takes what is there afterwards."""
        levels = part[0].mul(255).round().to(torch.uint8)
        self.after[window] = levels.permute(1, 2, 0).numpy()
