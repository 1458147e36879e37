"""Picture files in and out: the only user of Pillow.

Inside impasto a picture is upright, 8 bit, sRGB, with its transparency kept aside. `open_image`
brings every file that it can read to that state; `save_image` writes it back, and can store with
it a record of what made it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import (
    ExifTags,
    Image,
    ImageCms,
    PngImagePlugin,
    TiffImagePlugin,
    TiffTags,
    UnidentifiedImageError,
)

from impasto._version import __version__
from impasto.errors import ImageError
from impasto.files import os_reason, write_bytes_atomic

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from impasto.files import StrPath

    Warnings = list[warnings.WarningMessage]

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES_OUT",
    "Picture",
    "check_output_path",
    "open_image",
    "pictures_in",
    "read_record",
    "save_image",
]

MAX_PIXELS = 178_956_970
"""The most pixels of a picture unless told otherwise: where Pillow itself suspects an attack."""

SUFFIXES_OUT = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""Suffixes that `save_image` can write, and their formats."""

_SUFFIXES_IN = {*SUFFIXES_OUT, ".jpe", ".jfif", ".bmp", ".gif", ".avif"}
_FORMATS_IN = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
_FIRST_BYTES = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|BM|II\*\0|MM\0\*|RIFF....WEBP|....ftypavi[fs]", re.DOTALL
)

_ENCODER: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 6},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
_MAX_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # libjpeg stops short of the format's 65,535 px
_MAX_JPEG_EXIF = 65_533  # bytes in one marker

_KEYWORD = "impasto"
_ASCII, _UNICODE = b"ASCII\0\0\0", b"UNICODE\0"  # how an EXIF UserComment says its encoding

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: upright, 8 bit, sRGB.

    Attributes:
        pixels: uint8, (H, W, 3), sRGB.
        alpha: uint8, (H, W), 255 is opaque; None if all of it is opaque.
        exif: The EXIF block of the file with its orientation set to 1 (``pixels`` are upright
            already) and without its thumbnail; None if it had none. The tags of a TIFF are not
            such a block.
        source: The path or name it was read from, as given.
        sha256: Of the bytes of that file, hexadecimal.

    Raises:
        ImageError: An array has another shape or type.
    """

    pixels: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None = None
    exif: bytes | None = None
    source: str | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.pixels)
        if len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ImageError(f"the pixels of a picture have the shape (H, W, 3), not {shape}")
        if self.alpha is not None and np.shape(self.alpha) != shape[:2]:
            raise ImageError(
                f"the alpha of this picture has the shape {shape[:2]}, not {np.shape(self.alpha)}"
            )
        for array in (self.pixels, self.alpha):
            if array is not None and getattr(array, "dtype", None) != np.uint8:
                raise ImageError("the pixels and the alpha of a picture are uint8 arrays")

    @property
    def width(self) -> int:
        """W, in px."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """H, in px."""
        return int(self.pixels.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """(W, H), in px."""
        return self.width, self.height

    def tensor(self, device: torch.device | str | None = None) -> torch.Tensor:
        """The pixels as float32, (1, 3, H, W), sRGB in [0, 1], on ``device`` (None: the CPU)."""
        import torch

        pixels = torch.tensor(self.pixels, device=device)
        return pixels.permute(2, 0, 1).unsqueeze(0).to(torch.float32).div_(255).contiguous()

    def pil(self) -> Image.Image:
        """The picture for Pillow: RGB, or RGBA if it has alpha."""
        if self.alpha is None:
            return Image.fromarray(self.pixels)
        return Image.fromarray(np.dstack((self.pixels, self.alpha)))

    @classmethod
    def from_tensor(cls, tensor: torch.Tensor, alpha: NDArray[np.uint8] | None = None) -> Picture:
        """The picture of a tensor: clamped to [0, 1], rounded to the nearest of 256 levels.

        Args:
            tensor: Floating point, (1, 3, H, W) or (3, H, W), sRGB; on any device.
            alpha: uint8, (H, W).

        Raises:
            ImageError: Another shape or type, or a value that is not finite.
        """
        import torch

        image = tensor.detach()
        if image.ndim == 4 and image.shape[0] == 1:
            image = image[0]
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise ImageError(
                "a picture is made of floats of the shape (1, 3, H, W) or (3, H, W), "
                f"not of {tensor.dtype} of the shape {tuple(tensor.shape)}"
            )
        image = image.to(torch.float32)
        if not bool(torch.isfinite(image).all()):
            raise ImageError("the picture has values that are not finite numbers (NaN or infinity)")
        levels = image.clamp(0, 1).mul(255).round().to(torch.uint8)
        return cls(levels.permute(1, 2, 0).contiguous().cpu().numpy(), alpha)

    @classmethod
    def from_pil(cls, image: Image.Image) -> Picture:
        """The picture of a Pillow image, through the same conversions as a file.

        Orientation, ICC profile and transparency are taken from the image; it stays unchanged.

        Raises:
            ImageError: It cannot be decoded or converted.
        """
        with _explained("cannot use the picture", "it is damaged"):
            with _pillow(sys.maxsize):
                orientation, exif = _load(image)
            return cls(*_convert(image, orientation), exif)


def open_image(path: StrPath, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Reads a picture file: JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF, told by its content.

    Its first frame is turned upright (EXIF), brought to sRGB (ICC profile, CMYK, LAB, greys,
    palettes; without a profile, or with a broken one, it is taken for sRGB) and to 8 bit
    (16-bit greys are scaled), and its transparency is kept aside.

    Args:
        path: A regular file.
        max_pixels: The most pixels, W × H. It is checked before anything is decoded.

    Raises:
        ImageError: The file cannot be read; one line that says why.
    """
    name = os.fspath(path)
    with _explained(f"cannot read {name}", "the file is truncated or damaged"):
        with _regular_file(path) as file:
            with _pillow(max_pixels) as caught:
                image = _identify(file, caught)
                orientation, exif = _load(image)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Picture(*_convert(image, orientation), exif, name, digest)


def check_output_path(path: StrPath) -> str:
    """The format that ``path`` will be written in, by its suffix: a key of Pillow's.

    Raises:
        ImageError: `save_image` cannot write this suffix.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in SUFFIXES_OUT:
        what = f"{suffix} is not a suffix it can have" if suffix else "it has no suffix"
        known = ", ".join(SUFFIXES_OUT)
        raise ImageError(f"cannot write {os.fspath(path)}: {what}; use one of {known}")
    return SUFFIXES_OUT[suffix.lower()]


def save_image(picture: Picture, path: StrPath, *, record: str | None = None) -> list[str]:
    """Writes a picture in the format of the path's suffix, in one step (see `atomic_path`).

    PNG: compression level 6. JPEG: quality 95, no chroma subsampling. WebP: quality 95, method 4.
    TIFF: deflate. All carry the sRGB profile; PNG, WebP and TIFF carry the alpha. Equal pictures
    and records give equal files.

    Args:
        picture: What to write. Its ``exif`` is not written.
        path: The file; an existing one is replaced. See `SUFFIXES_OUT`.
        record: Text (JSON) that tells what made the picture, stored in the file together with
            the version of impasto; see `read_record`. Without it the file has no metadata.

    Returns:
        What the reader of the file should know, one line each: what the format could not keep.

    Raises:
        ImageError: The suffix is unknown, or the picture does not fit the format.
        ImpastoError: The file cannot be written.
    """
    name, form = os.fspath(path), check_output_path(path)
    limit = _MAX_SIDE.get(form)
    if limit and max(picture.size) > limit:
        raise ImageError(
            f"cannot write {name}: the picture is {picture.width} × {picture.height} px and "
            f"{form} holds at most {limit} px a side; use .png or .tif"
        )
    notes: list[str] = []
    options = {**_ENCODER[form], "icc_profile": _srgb_profile()}
    if form == "JPEG" and picture.alpha is not None:
        picture = Picture(_over_white(picture.pixels, picture.alpha))
        notes.append("JPEG has no transparency: laid over white")
    if record is not None:
        options |= _record_options(record, form)
        if form == "JPEG" and len(options["exif"]) > _MAX_JPEG_EXIF:
            del options["exif"]
            notes.append("the record is too long for a JPEG: left out")
    buffer = io.BytesIO()
    with _explained(f"cannot write {name}", "the encoder failed"):
        picture.pil().save(buffer, format=form, **options)
    write_bytes_atomic(path, buffer.getvalue())
    return notes


def read_record(path: StrPath) -> str | None:
    """The record that `save_image` stored in a file; None if there is none that can be read.

    Raises:
        ImageError: There is no such file.
    """
    try:
        with (
            _explained(f"cannot read {os.fspath(path)}", "the file is truncated or damaged"),
            _regular_file(path) as file,
            _pillow(sys.maxsize) as caught,
        ):
            return _find_record(_identify(file, caught))
    except ImageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise
        return None


def pictures_in(folder: StrPath) -> list[Path]:
    """The picture files directly in ``folder``, by their suffix, sorted by name; no hidden ones.

    Raises:
        ImageError: The folder cannot be read.
    """
    try:
        return sorted(
            path
            for path in Path(folder).iterdir()
            if path.suffix.lower() in _SUFFIXES_IN
            and not path.name.startswith(".")
            and path.is_file()
        )
    except OSError as error:
        raise ImageError(f"cannot read {os.fspath(folder)}: {os_reason(error)}") from error


class _UnreadableError(Exception):
    """A reason in plain words, to be told as it is."""


@contextmanager
def _explained(failure: str, otherwise: str) -> Iterator[None]:
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
def _pillow(max_pixels: int) -> Iterator[Warnings]:
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
def _regular_file(path: StrPath) -> Iterator[io.BufferedReader]:
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


def _identify(file: io.BufferedReader, caught: Warnings) -> Image.Image:
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


def _load(image: Image.Image) -> tuple[int, bytes | None]:
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


def _convert(
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


@functools.cache
def _srgb_profile() -> bytes:
    """An sRGB profile whose bytes are the same on every day."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]  # the date of its creation, all zero


def _over_white(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``pixels`` (H, W, 3) laid over white where ``alpha`` (H, W) lets through."""
    weight = alpha[..., None].astype(np.uint32)
    return ((pixels * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def _record_options(record: str, form: str) -> dict[str, Any]:
    """What Pillow's encoder of ``form`` needs in order to store ``record`` and our version."""
    # A file name that is not UTF-8 reaches us as lone surrogates, which no format can hold.
    record = record.encode("utf-8", "replace").decode("utf-8")
    software = f"impasto {__version__}"
    if form == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("Software", software)
        info.add_itxt(_KEYWORD, record)
        return {"pnginfo": info}
    comment = _ASCII + record.encode() if record.isascii() else _UNICODE + record.encode("utf-16le")
    if form == "TIFF":
        # libtiff as Pillow drives it writes no EXIF directory: the tag stands in the main one.
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[ExifTags.Base.Software] = software
        tags[ExifTags.Base.UserComment] = comment
        tags.tagtype[ExifTags.Base.UserComment] = TiffTags.UNDEFINED
        return {"tiffinfo": tags}
    exif = Image.Exif()
    exif.endian = "<"  # readers expect the comment in the byte order of the block
    exif[ExifTags.Base.Software] = software
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return {"exif": exif.tobytes()}


def _find_record(image: Image.Image) -> str | None:
    """The record in the header of ``image``, None if there is none of ours."""
    if image.format == "PNG":
        text = image.info.get(_KEYWORD)
        return None if text is None else str(text)
    exif = image.getexif()
    if not str(exif.get(ExifTags.Base.Software)).startswith("impasto "):
        return None  # a camera's comment
    place = exif if image.format == "TIFF" else exif.get_ifd(ExifTags.IFD.Exif)
    comment = place[ExifTags.Base.UserComment]
    if comment[:8] == _ASCII:
        return str(comment[8:], "ascii")
    return str(comment[8:], "utf-16le") if comment[:8] == _UNICODE else None
