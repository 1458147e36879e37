"""Animated PNG, taken apart: every frame is a PNG of its own, read as any other.

Pillow shows animated PNGs too, but blends what is half transparent wrong, and reads transparent
colours of 16 bit in the first frame alone. See the PNG specification, third edition, section 11.3.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

import numpy as np
from PIL import Image

from impasto.convert import convert
from impasto.decode import identify, load, pillow_guarded, png_chunks

__all__ = ["Reel", "Scene", "compose", "is_animated", "take_apart"]

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_SHARED: Final = (b"PLTE", b"tRNS", b"iCCP")  # what each frame needs of the whole file
_CLEAR, _BACK, _OVER = 1, 2, 1


@dataclass(frozen=True)
class Scene:
    """One frame as it is stored.

    Attributes:
        png: a PNG file of the part that changes.
        box: left, top, right and bottom of that part, px.
        duration: how long it stands, ms; 0 if that is not said.
        over: whether it is laid over what was there, or replaces it.
        after: what becomes of that part before the next frame: 0 it stays, 1 it is cleared, 2 it
            is as it was before.
    """

    png: bytes = field(repr=False)
    box: tuple[int, int, int, int]
    duration: int
    over: bool = False
    after: int = 0


@dataclass(frozen=True)
class Reel:
    """What an animated PNG consists of; of any other PNG, one frame.

    Attributes:
        size: (W, H), px.
        loops: how often it is played; 0 is for ever.
        scenes: the frames, at least one.
    """

    size: tuple[int, int]
    loops: int
    scenes: list[Scene]


def is_animated(file: BinaryIO) -> bool:
    """Whether a PNG has more than one frame, by what stands before its first picture."""
    for kind, data in png_chunks(file):
        if kind == b"acTL":
            return int.from_bytes(data[:4]) > 1
        if kind == b"IDAT":
            break
    return False


def take_apart(file: BinaryIO) -> Reel:
    """The frames of a PNG, and the numbers that say how they follow.

    Raises:
        ValueError: They do not fit together, or some are missing.
    """
    size, header, count, loops = (0, 0), b"", 0, 1
    shared: list[tuple[bytes, bytes]] = []
    parts: list[tuple[bytes, list[bytes]]] = []
    order = 0  # fcTL and fdAT are numbered through
    for kind, data in png_chunks(file):
        if kind in (b"fcTL", b"fdAT"):
            if int.from_bytes(data[:4]) != order:
                raise ValueError("its frames are out of order")
            order += 1
        if kind == b"IHDR":
            size, header = struct.unpack(">LL", data[:8]), data[8:]
        elif kind == b"acTL":
            count, loops = struct.unpack(">LL", data)
        elif kind == b"fcTL":
            parts.append((data[4:], []))
        elif kind in (b"IDAT", b"fdAT") and parts:  # before it, a picture that is no frame
            parts[-1][1].append(data[4:] if kind == b"fdAT" else data)
        elif kind in _SHARED:
            shared.append((kind, data))
    if count == 0:  # not animated
        file.seek(0)
        return Reel(size, 1, [Scene(file.read(), (0, 0, *size), 0)])
    if len(parts) < count:
        raise ValueError(f"{count} frames are announced, {len(parts)} are there")
    return Reel(size, loops, [_scene(part, header, shared, size) for part in parts[:count]])


def _scene(
    part: tuple[bytes, list[bytes]],
    header: bytes,
    shared: Sequence[tuple[bytes, bytes]],
    size: tuple[int, int],
) -> Scene:
    control, pieces = part
    w, h, x, y, number, unit, after, blend = struct.unpack(">LLLLHHBB", control)
    if x + w > size[0] or y + h > size[1]:
        raise ValueError("a frame reaches beyond the picture")
    own = (b"IHDR", struct.pack(">LL", w, h) + header)
    chunks = (own, *shared, (b"IDAT", b"".join(pieces)), (b"IEND", b""))
    png = _SIGNATURE + b"".join(
        struct.pack(">L", len(data)) + kind + data + zlib.crc32(kind + data).to_bytes(4)
        for kind, data in chunks
    )
    duration = round(1000 * number / (unit or 100))
    return Scene(png, (x, y, x + w, y + h), duration, blend == _OVER, after)


def compose(reel: Reel, max_pixels: int) -> Iterator[Image.Image]:
    """The frames as they are seen, one after the other: RGBA, sRGB, each an image of its own."""
    canvas = Image.new("RGBA", reel.size)
    for scene in reel.scenes:
        part = _decoded(scene.png, max_pixels)
        before = canvas.crop(scene.box)
        if scene.over:
            canvas.alpha_composite(part, scene.box[:2])
        else:
            canvas.paste(part, scene.box)
        yield canvas.copy()
        if scene.after == _CLEAR:
            canvas.paste((0, 0, 0, 0), scene.box)
        elif scene.after == _BACK:
            canvas.paste(before, scene.box)


def _decoded(png: bytes, max_pixels: int) -> Image.Image:
    with pillow_guarded(max_pixels) as caught:
        decoded = load(identify(io.BytesIO(png), caught, max_pixels))
    pixels, alpha = convert(decoded)
    opaque = np.full(pixels.shape[:2], 255, np.uint8)
    return Image.fromarray(np.dstack((pixels, opaque if alpha is None else alpha)))
