"""From a picture file's bytes to upright 8-bit sRGB: everything that can go wrong in between.

`images` puts the pieces together. Pillow is only let near a file by `identify`, and only with the
seven decoders named here.
"""

from __future__ import annotations

import io
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from impasto.errors import ImageError
from impasto.files import os_reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from impasto.files import StrPath

    Warnings = list[warnings.WarningMessage]

__all__ = ["convert", "explained", "identify", "load", "pillow_guarded", "regular_file"]

_FORMATS_IN = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
_FIRST_BYTES = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|BM|II\*\0|MM\0\*|RIFF....WEBP|....ftypavi[fs]", re.DOTALL
)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
        raise ImageError(f"{failure}: {_why(error, otherwise)}") from error


def _why(error: Exception, otherwise: str) -> str:
    """The reason in plain words; ``otherwise`` where only a library's own words are known."""
    if isinstance(error, _UnreadableError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\d+", str(error))
        millions = -(-int(pixels[0]) // 1_000_000) if pixels else 0
        return (
            f"it has {millions} megapixels, more than allowed; "
            f"--max-megapixels {millions} (library: max_pixels=) raises the limit"
        )
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.errno:
        return os_reason(error)
    return f"{otherwise} ({' '.join(str(error).split()) or type(error).__name__})"


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
def regular_file(path: StrPath) -> Iterator[io.BufferedReader]:
    """Opens a file that is one: opening a pipe would wait for its writer."""
    status = Path(path).stat()
    if stat.S_ISDIR(status.st_mode):
        raise _UnreadableError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise _UnreadableError("not a regular file")
    if status.st_size == 0:
        raise _UnreadableError("the file is empty")
    with Path(path).open("rb") as file:
        yield file


def identify(file: io.BufferedReader, caught: Warnings) -> Image.Image:
    """The image by its header; no decoder but those of the seven formats is tried."""
    try:
        return Image.open(file, formats=_FORMATS_IN)
    except UnidentifiedImageError:
        for warning in caught:
            if "support not installed" in str(warning.message):
                raise _UnreadableError(
                    f"this installation of Pillow lacks its format ({warning.message})"
                ) from None
        file.seek(0)
        if _FIRST_BYTES.match(file.read(12)):
            raise _UnreadableError("the file is truncated or damaged") from None
        raise _UnreadableError("not a JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF picture") from None


def load(image: Image.Image) -> tuple[int, bytes | None]:
    """Decodes ``image``; gives its EXIF orientation and its EXIF block with the orientation 1."""
    if 0 in image.size:
        raise _UnreadableError("it has no pixels")
    image.load()
    orientation, block = 1, None
    with suppress(Exception):  # damaged EXIF of whatever kind leaves a good picture
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if data := image.info.get("exif"):
            exif = Image.Exif()
            exif.load(data)
            if ExifTags.Base.Orientation in exif:
                exif[ExifTags.Base.Orientation] = 1
            block = exif.tobytes()
    return orientation, block


def convert(
    image: Image.Image, orientation: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """The pixels (H, W, 3) in sRGB, upright, and the alpha (H, W), None if all is opaque."""
    profile = image.info.get("icc_profile")
    image, alpha = _split_alpha(image)
    image = _to_srgb(_to_8_bit(image), profile)
    turn = _UPRIGHT.get(orientation)
    if turn is not None:
        image = image.transpose(turn)
        alpha = alpha and alpha.transpose(turn)
    opaque = alpha is None or alpha.getextrema() == (255, 255)
    return np.array(image), None if opaque else np.array(alpha)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """``image`` without its transparency, however it is stored, and that as an L image."""
    key = image.info.get("transparency")
    if image.mode.startswith("I;16") and isinstance(key, int):
        visible = np.asarray(image) != key  # Pillow would compare after cutting to 8 bit
        return image, Image.fromarray(visible.astype(np.uint8) * 255)
    if image.mode in ("PA", "RGBa") or (key is not None and image.mode in ("P", "RGB")):
        image = image.convert("RGBA")
    elif image.mode == "La" or (key is not None and image.mode in ("1", "L")):
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    return image, None


def _to_8_bit(image: Image.Image) -> Image.Image:
    """``image`` in one of the modes that an ICC profile can be for: L, RGB, CMYK, LAB."""
    if image.mode[0] in "IF":
        return Image.fromarray(_scaled(np.asarray(image)))
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _scaled(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Greys of more than 8 bit brought to 0..255, (H, W): scaled, never clipped.

    Integers within 0..65535 are 16 bit, floats within 0..1 or 0..255 span just that; anything
    else is stretched from its least to its greatest value. NaN becomes black.
    """
    is_float = values.dtype.kind == "f"
    finite = values[np.isfinite(values)] if is_float else values
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if not is_float and low >= 0 and high <= 65_535:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if is_float and low >= 0 and high <= 255:
        low, high = 0.0, 1.0 if high <= 1 else 255.0
    levels = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    levels = (levels - low) * (255 / (high - low or 1))
    return np.rint(levels).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """``image`` (L, RGB, CMYK or LAB) as RGB in sRGB, by its ICC profile if that fits it."""
    if profile:
        # A broken profile, or one for another colour space, is as good as none: LittleCMS
        # refuses both.
        with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = ImageCms.profileToProfile(
                image,
                io.BytesIO(profile),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            if converted is not None:
                return converted
    return image if image.mode == "RGB" else image.convert("RGB")
