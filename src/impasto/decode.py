"""From a picture file's bytes to Pillow's image: everything that can go wrong in between.

`images` puts the pieces together, and `convert` goes on from here. Pillow is only let near a file
by `identify`, and only with the seven decoders named here. Where it is known to misread a file, or
to spend more time or memory than the file is worth, what it sees is mended first.
"""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from impasto.errors import ImageError
from impasto.files import os_reason
from impasto.metadata import Exif

if TYPE_CHECKING:
    from impasto.files import StrPath

    Warnings = list[warnings.WarningMessage]

__all__ = [
    "Decoded",
    "explained",
    "identify",
    "load",
    "pillow_guarded",
    "png_chunks",
    "regular_file",
]

_FORMATS_IN = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
_FIRST_BYTES = re.compile(
    rb"(\xff\xd8\xff|II\*\0|MM\0\*)|\x89PNG|GIF8|BM|RIFF....WEBP|....ftypavi[fs]", re.DOTALL
)
_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_PROFILE = 1 << 24  # bytes: the largest printer profiles have some 4 MB
_MAX_SCANS = 100  # of a JPEG: progressive ones have about ten
_HEAVY = ("WEBP", "AVIF")  # whose decoders hold a picture three or four times over
_BYTES_PER_PIXEL = 8  # 16-bit RGBA: no picture needs more

# What stands behind the numbers of a TIFF.
_TAGS = _BITS, _COMPRESSION, _PHOTOMETRIC, _PLANES, _PALETTE, _KIND, _SUBSAMPLING = (
    258, 259, 262, 284, 320, 339, 530,
)  # fmt: skip

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it tells of damage by itself


_ORDERS = re.compile(r"[\0-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class _UnreadableError(Exception):
    """A reason in plain words, to be told as it is."""


@contextmanager
def explained(failure: str, otherwise: str) -> Iterator[None]:
    """Turns whatever the block raises into an ImageError of one line, ``failure: why``."""
    try:
        yield
    except ImageError:
        raise
    # Pillow raises nearly every built-in exception over a damaged file, from open, load, convert
    # and save alike; none of them may reach the user as a traceback.
    except Exception as error:
        text = f"{failure}: {_why(error, otherwise)}"
        # A name may hold a line break, or what a terminal takes for an order.
        text = _ORDERS.sub(lambda order: ascii(order[0])[1:-1], text)
        raise ImageError(text) from error


def _why(error: Exception, otherwise: str) -> str:
    """The reason in plain words; ``otherwise`` where only a library's own words are known."""
    if isinstance(error, _UnreadableError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\d+", str(error))
        millions = -(-int(pixels[0]) // 1_000_000) if pixels else 0
        return f"it has {millions} megapixels, more than allowed; {_raise_limit(millions)}"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.errno:
        return os_reason(error)
    return f"{otherwise} ({' '.join(str(error).split()) or type(error).__name__})"


def _raise_limit(millions: int) -> str:
    return f"--max-megapixels {millions} (library: max_pixels=) raises the limit"


_PILLOW_GLOBALS = threading.Lock()


@contextmanager
def pillow_guarded(max_pixels: int) -> Iterator[Warnings]:
    """Sets Pillow's size limit and collects its warnings, for one thread at a time.

    Both the limit and the warning filters belong to the whole process: hence the lock, and hence
    a limit that is put back. Conversions of what is loaded need neither.
    """
    with _PILLOW_GLOBALS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = Image.MAX_IMAGE_PIXELS
        # Pillow warns above this number and refuses above twice of it, before it allocates.
        Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)
        try:
            yield caught
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextmanager
def regular_file(path: StrPath, max_pixels: int | None = None) -> Iterator[io.BufferedReader]:
    """Opens a file that is one: opening a pipe would wait for its writer.

    Args:
        path: The file.
        max_pixels: If given, a file is refused that is longer than so many pixels could make it.
    """
    try:
        status = Path(path).stat()
    except ValueError:  # a zero byte
        raise _UnreadableError("no file can have this name") from None
    if stat.S_ISDIR(status.st_mode):
        raise _UnreadableError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise _UnreadableError("not a regular file")
    if status.st_size == 0:
        raise _UnreadableError("the file is empty")
    if max_pixels is not None and status.st_size > max(max_pixels, 1 << 20) * _BYTES_PER_PIXEL:
        millions = -(-status.st_size // (_BYTES_PER_PIXEL * 1_000_000))
        raise _UnreadableError(
            f"the file has {status.st_size / 1e9:.1f} GB, more than a picture of the allowed "
            f"size needs; {_raise_limit(millions)}"
        )
    with Path(path).open("rb") as file:
        yield file


def identify(file: BinaryIO, caught: Warnings, max_pixels: int) -> ImageFile.ImageFile:
    """The image by its header; no decoder but those of the seven formats is tried."""
    start = file.read(12)
    file.seek(0)
    if start.startswith(_PNG):
        return _identify_png(file)
    try:
        image = Image.open(file, formats=_FORMATS_IN)
    except UnidentifiedImageError:
        for warning in caught:
            if "support not installed" in str(warning.message):
                raise _UnreadableError(
                    f"this installation of Pillow lacks its format ({warning.message})"
                ) from None
        if known := _FIRST_BYTES.match(start):
            rare = ", or of a rare kind that is not supported" if known[1] else ""
            raise _UnreadableError(f"the file is truncated or damaged{rare}") from None
        raise _UnreadableError("not a JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF picture") from None
    if image.format in _HEAVY and 3 * image.width * image.height > 2 * max_pixels:
        millions = image.width * image.height / 1_000_000
        raise _UnreadableError(
            f"a {image.format} of {millions:.0f} megapixels takes more memory than allowed; "
            f"{_raise_limit(int(1.5 * millions) + 1)}"
        )
    if image.format in ("JPEG", "MPO"):
        _check_scans(file)
    return _identify_tiff(file, image) if image.format == "TIFF" else image


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The kind and the data of each chunk of a PNG that its checksum vouches for."""
    left = file.seek(0, os.SEEK_END) - file.seek(len(_PNG))
    while left >= 12:
        size, kind = struct.unpack(">L4s", file.read(8))
        left -= size + 12
        if left < 0:
            break
        data = file.read(size)
        if zlib.crc32(kind + data).to_bytes(4) != file.read(4):
            name = kind.decode("latin-1")
            raise _UnreadableError(f"the file is truncated or damaged (chunk {name})")
        yield kind, data
        if kind == b"IEND":
            break


_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"eXIf")
_PNG_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # may say what is up


def _identify_png(file: BinaryIO) -> ImageFile.ImageFile:
    """A PNG without all that is no part of its first picture: texts can be bombs, or mislead."""
    plain, profile = io.BytesIO(_PNG), None
    plain.seek(len(_PNG))
    seen: set[bytes] = set()
    for kind, data in png_chunks(file):
        name = data[: data.find(b"\0") + 1] if kind in (b"zTXt", b"tEXt", b"iTXt") else kind
        if kind == b"iCCP":
            with suppress(zlib.error):
                inflater = zlib.decompressobj()
                profile = inflater.decompress(data[data.find(b"\0") + 2 :], _MAX_PROFILE)
        elif kind in (b"IDAT", b"IEND") or (name in _PNG_CHUNKS + _PNG_TEXTS and name not in seen):
            plain.write(struct.pack(">L", len(data)) + kind + data)
            plain.write(zlib.crc32(kind + data).to_bytes(4))
        seen.add(name)
    plain.seek(0)
    try:
        image = Image.open(plain, formats=("PNG",))
    except UnidentifiedImageError:
        raise _UnreadableError("the file is truncated or damaged") from None
    if image.mode == "P" and b"PLTE" not in seen:
        raise _UnreadableError("the file is damaged: it has no palette")
    image.info["icc_profile"] = profile
    return image


_MARKER = re.compile(rb"\xff([^\0\xd0-\xd7\xff])")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


def _check_scans(file: BinaryIO) -> None:
    """Refuses a JPEG of so many scans that decoding them is an attack: each can be all zeros."""
    here = file.tell()
    file.seek(0)
    data, at, scans = file.read(), 2, 0
    while scans <= _MAX_SCANS and (marker := _MARKER.search(data, at)):
        if marker[1][0] == _END_OF_IMAGE:
            break
        scans += marker[1][0] == _START_OF_SCAN
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    if scans > _MAX_SCANS:
        raise _UnreadableError(f"it is stored in more than {_MAX_SCANS} scans")
    file.seek(here)


def _identify_tiff(file: BinaryIO, image: ImageFile.ImageFile) -> ImageFile.ImageFile:
    """A TIFF set up so that Pillow reads it right."""
    tags = _tags(image)
    planes_of_16_bit = tags.get(_PLANES) == 2 and max(tags.get(_BITS, (1,))) > 8
    coarse_colour = tags.get(_PHOTOMETRIC) == 6 and tags.get(_SUBSAMPLING, (1, 1)) != (1, 1)
    if tags.get(_COMPRESSION, 1) == 1 and (planes_of_16_bit or coarse_colour):
        TiffImagePlugin.READ_LIBTIFF = True  # Pillow's own reader takes them for something else
        try:
            file.seek(0)
            image = Image.open(file, formats=("TIFF",))
        finally:
            TiffImagePlugin.READ_LIBTIFF = False
    tile = image.tile[0] if image.tile else None
    if tile and tile.codec_name == "libtiff" and isinstance(tile.args, tuple):
        # libtiff turns big-endian numbers round, and Pillow would do it again.
        native = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
        mode, *rest = tile.args
        image.tile = [tile._replace(args=(native.get(mode, mode), *rest))]
    return image


def _tags(image: Image.Image) -> dict[int, Any]:
    """The tags of a TIFF that say how to read it; none of any other image."""
    tags = getattr(image, "tag_v2", {})
    return {tag: tags[tag] for tag in _TAGS if tag in tags}


@dataclass(frozen=True)
class Decoded:
    """Pillow's image, and what has to be known to read its numbers right.

    Attributes:
        image: Loaded.
        orientation: As in EXIF.
        exif: The EXIF block that can be taken along.
        key: The grey or the colour that is transparent, in the file's own numbers.
        low: The lower bytes of colours of 16 bit, if the key needs them.
        top: What white is among integers of more than 8 bit.
        numbers: The NumPy type that the numbers of a grey picture really have.
        inverted: Whether 0 is white.
    """

    image: Image.Image
    orientation: int = 1
    exif: bytes | None = None
    key: int | tuple[int, ...] | None = None
    low: Image.Image | None = None
    top: int = 65_535
    numbers: type[np.generic] | None = None
    inverted: bool = False


def load(image: Image.Image) -> Decoded:
    """Decodes ``image``, and finds out how to read it."""
    if 0 in image.size:
        raise _UnreadableError("it has no pixels")
    exif = _tiff_exif(image) if image.format == "TIFF" else None
    key, low = _key(image)
    with _silent_stderr() if image.format == "TIFF" else nullcontext():
        image.load()
    orientation = 1
    with suppress(Exception):  # damaged EXIF of whatever kind leaves a good picture
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    tags = _tags(image)
    bits, kind = tags.get(_BITS, (16,))[0], tags.get(_KIND, (1,))[0]
    numbers: dict[Any, type[np.generic]] = {("I", 32, 1): np.uint32, ("L", 8, 2): np.int8}
    return Decoded(
        _with_mended_colours(image, tags),
        orientation,
        exif or _exif(image),
        key,
        low,
        top=4095 if bits == 12 else 65_535,
        numbers=numbers.get((image.mode, bits, kind)),
        inverted=image.mode in ("I;16", "F") and tags.get(_PHOTOMETRIC) == 0,
    )


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keeps libtiff, a C library, from telling of damage by itself."""
    try:
        stderr = os.dup(2)
    except OSError:  # closed: nothing can be told
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _exif(image: Image.Image) -> bytes | None:
    """The EXIF block of ``image``; one that cannot be read, as it is."""
    block = image.info.get("exif")
    text = image.info.get("Raw profile type exif")  # as ImageMagick stores it in a PNG
    if block is None and isinstance(text, str):
        with suppress(ValueError):
            block = bytes.fromhex("".join(text.split("\n")[3:]))
    if not isinstance(block, bytes) or not block:
        return None
    try:
        exif = Exif.parse(block)
    except ValueError:
        return block
    return exif.tobytes() if exif else None


def _tiff_exif(image: Image.Image) -> bytes | None:
    """The tags of a TIFF that are also EXIF's, as a block."""
    file = getattr(image, "fp", None)
    if file is None:  # loaded already
        return None
    here = file.tell()
    try:
        exif = Exif.read(file)
    except ValueError:  # a BigTIFF
        return None
    finally:
        file.seek(here)
    return exif.tobytes() if exif else None


def _key(image: Image.Image) -> tuple[int | tuple[int, ...] | None, Image.Image | None]:
    """`Decoded.key` and `Decoded.low` of an image that is not loaded yet."""
    key, tile = image.info.get("transparency"), getattr(image, "tile", None)
    raw = str(tile[0].args) if tile and image.format == "PNG" else ""
    if isinstance(key, int):
        return {"L;2": (key & 3) * 85, "L;4": (key & 15) * 17, "L": key & 255}.get(raw, key), None
    if not isinstance(key, tuple):
        return None, None
    if raw != "RGB;16B":  # of colours that are cut to 8 bit already, the higher half counts
        return tuple(part & 255 if raw or part < 256 else part >> 8 for part in key), None
    file = image.fp  # type: ignore[attr-defined]
    here = file.tell()
    file.seek(0)
    low = Image.open(file, formats=("PNG",))
    # The decoder keeps the first byte of two; told that the second is the higher, it keeps that.
    low.tile = [low.tile[0]._replace(args="RGB;16L")]
    low.load()
    file.seek(here)
    return key, low


def _with_mended_colours(image: Image.Image, tags: dict[int, Any]) -> Image.Image:
    """``image`` with colours right where Pillow has them wrong."""
    if image.mode == "LAB" and tags.get(_PLANES) == 2:  # a* and b* are signed
        signed = [level ^ 128 for level in range(256)]
        light, a, b = image.split()
        mended = Image.merge("LAB", (light, a.point(signed), b.point(signed)))
        mended.info = image.info
        return mended
    palette = tags.get(_PALETTE, ())
    if image.mode in ("P", "PA") and palette and max(palette) < 256:  # of 8 bit, by an old program
        mended = image.copy()
        mended.putpalette(np.array(palette, np.uint8).reshape(3, -1).T.tobytes())
        return mended
    return image
