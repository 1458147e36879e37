"""GIF: one palette for all frames, and every frame stored as what changes."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image
from PIL.GifImagePlugin import getdata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

__all__ = ["PALETTE", "encode_gif", "indexed"]

PALETTE: Final = 255
"""Colours of a palette; the 256th index means that a pixel stays as it was, or is transparent."""

TOLERANCE: Final = 14
"""Such a pixel stays until one of its channels is wrong by more, of 255: a third of the bytes."""

DITHER: Final = 8
"""Ordered dithering, of 255: enough for skies, and it stands still from frame to frame."""

_SAMPLED: Final = 32  # frames from which the palette is made
_OPAQUE: Final = 128  # the least alpha that is shown: a GIF has one bit of it
_FASTEST: Final = 2  # hundredths of a second: browsers take anything less for 10
_SLOWEST: Final = 65_535


def encode_gif(
    frames: Sequence[Image.Image],
    durations: Sequence[int],
    *,
    loops: int = 0,
    comment: bytes = b"",
) -> bytes:
    """The bytes of a GIF with just these frames.

    Args:
        frames: RGB or RGBA, all of one size; alpha below 128 is transparent, the rest opaque.
        durations: how long each stands, ms. A GIF counts 1/100 s: each frame ends at the nearest.
        loops: how often it is played; 0 is for ever.
        comment: what is written into the file beside the frames.
    """
    changes, refilled = indexed(frames)
    size = frames[0].size
    screen = struct.pack("<HHBBB", *size, 0xF7, 0, 0)  # a palette of 256 for all frames
    parts = [b"GIF89a", screen, bytes(changes[0].getpalette() or ())]
    if loops != 1:  # what is stored is how often it is played again
        again = struct.pack("<H", min(max(0, loops - 1), 65_535))
        parts.append(b"!\xff\x0bNETSCAPE2.0\x03\x01" + again + b"\0")
    if comment:
        blocks = (comment[i : i + 255] for i in range(0, len(comment), 255))
        parts += [b"!\xfe", *(bytes([len(block)]) + block for block in blocks), b"\0"]
    opaque = [255] * PALETTE + [0]
    disposal = 2 if refilled else 1  # cleared, or left as it is, before the next frame
    for number, (change, time) in enumerate(zip(changes, _hundredths(durations), strict=True)):
        box = change.point(opaque, "L").getbbox() or (0, 0, 1, 1)
        if number == 0:
            box = (0, 0, *size)
        told = {"duration": 10 * time, "disposal": disposal, "transparency": PALETTE}
        parts += getdata(change.crop(box), box[:2], **told)
    return b"".join(parts) + b";"


def _hundredths(durations: Sequence[int]) -> list[int]:
    """Durations in 1/100 s. What one is rounded by is made up for by the next."""
    ends = np.rint(np.cumsum(durations) / 10).astype(int)
    return [int(time) for time in np.clip(np.diff(ends, prepend=0), _FASTEST, _SLOWEST)]


def indexed(frames: Sequence[Image.Image]) -> tuple[list[Image.Image], bool]:
    """The frames in one palette, and as changes: index `PALETTE` where a pixel stays.

    A palette for each frame flickers, and error diffusion crawls; both make every pixel of every
    frame a new one. Here a pixel changes only when what it shows has become wrong. Frames that
    have few enough colours keep every one of them.

    Args:
        frames: RGB or RGBA, all of one size; alpha below 128 is transparent, the rest opaque.

    Returns:
        The frames, and whether they are whole ones: so they are where a pixel becomes transparent
        that was not, which no change can say. Then index `PALETTE` is transparent.
    """
    clear = [_clear(frame) for frame in frames]
    palette = _exact(frames, clear) or _close(frames, clear)
    whole = any(bool((gone & ~before).any()) for before, gone in pairwise(clear))
    shown = np.full(clear[0].shape, PALETTE, np.uint8)
    changes = []
    for frame, gone in zip(frames, clear, strict=True):
        pixels = np.asarray(frame.convert("RGB"))
        wrong = np.abs(palette.colors[shown] - pixels).max(-1) > palette.tolerance
        wrong |= shown == PALETTE
        now = np.where(wrong, palette.index(pixels), shown)
        now[gone] = PALETTE
        change = Image.fromarray(now if whole else np.where(now == shown, np.uint8(PALETTE), now))
        change.putpalette(palette.colors.astype(np.uint8).tobytes())
        changes.append(change)
        shown = now
    return changes, whole


def _clear(frame: Image.Image) -> NDArray[np.bool_]:
    """Where a frame is transparent, (H, W)."""
    if frame.mode != "RGBA":
        return np.zeros(frame.size[::-1], bool)
    return np.asarray(frame.getchannel("A")) < _OPAQUE


@dataclass(frozen=True, eq=False)
class _Palette:
    """The colours of all frames.

    Attributes:
        colors: int16, (256, 3); the last one is not used.
        tolerance: how wrong a pixel may be before it changes, of 255.
        index: from pixels, (H, W, 3), to their indices, (H, W).
    """

    colors: NDArray[np.int16]
    tolerance: int
    index: Callable[[Bytes], Bytes]


def _exact(frames: Sequence[Image.Image], clear: Sequence[NDArray[np.bool_]]) -> _Palette | None:
    """The palette of every colour there is; None if they are too many for one."""
    codes = np.zeros(0, np.uint32)
    for frame, gone in zip(frames, clear, strict=True):
        codes = np.union1d(codes, _codes(np.asarray(frame.convert("RGB"))[~gone]))
        if len(codes) > PALETTE:
            return None
    colors = np.zeros((PALETTE + 1, 3), np.int16)
    colors[: len(codes)] = codes[:, None] >> np.array([16, 8, 0], np.uint32) & 255

    def index(pixels: Bytes) -> Bytes:  # anything where it is transparent
        return np.minimum(np.searchsorted(codes, _codes(pixels)), PALETTE - 1).astype(np.uint8)

    return _Palette(colors, 0, index)


def _codes(pixels: Bytes) -> NDArray[np.uint32]:
    """Colours, (..., 3), as numbers."""
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), -1, 0)
    return np.asarray(red << 16 | green << 8 | blue, np.uint32)


def _close(frames: Sequence[Image.Image], clear: Sequence[NDArray[np.bool_]]) -> _Palette:
    """The palette of median cut and k-means on some of the frames' pixels."""
    spread = np.linspace(0, len(frames) - 1, min(_SAMPLED, len(frames)))
    some = [int(place) for place in spread.round()]
    w, h = frames[0].size
    every = math.ceil(math.sqrt(len(some) * w * h / 60_000))
    step = np.s_[::every, ::every]
    sampled = [np.asarray(frames[i].convert("RGB"))[step][~clear[i][step]] for i in some]
    pixels = np.concatenate(sampled)
    if not len(pixels):  # what is opaque lies between those looked at
        pixels = np.concatenate([np.asarray(frames[i].convert("RGB")).reshape(-1, 3) for i in some])
    found = Image.fromarray(pixels[None]).quantize(PALETTE, Image.Quantize.MEDIANCUT, kmeans=1)
    listed = bytes(found.getpalette() or ())
    palette = Image.new("P", (1, 1))
    palette.putpalette(listed + listed[:3] * (PALETTE - len(listed) // 3))
    colors = np.zeros((PALETTE + 1, 3), np.int16)
    colors[:PALETTE] = np.reshape(palette.getpalette() or [], (-1, 3))[:PALETTE]
    threshold = np.tile(_bayer(), (h // 8 + 1, w // 8 + 1))[:h, :w, None]

    def index(pixels: Bytes) -> Bytes:
        dithered = Image.fromarray(np.clip(pixels + threshold, 0, 255).astype(np.uint8))
        return np.array(dithered.quantize(palette=palette, dither=Image.Dither.NONE))

    return _Palette(colors, TOLERANCE, index)


def _bayer() -> NDArray[np.int16]:
    """The 8×8 thresholds of ordered dithering (Bayer 1973), -`DITHER`/2 to `DITHER`/2."""
    matrix = np.zeros((1, 1))
    for _ in range(3):
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return np.rint(((matrix + 0.5) / 64 - 0.5) * DITHER).astype(np.int16)
