"""Picture files in and out.

Inside impasto a picture is upright, 8 bit, sRGB, with its transparency kept aside. `open_image`
brings every file that it can read to that state; `save_image` writes it back, and can store with
it a record of what made it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from impasto.convert import convert
from impasto.decode import explained, identify, load, pillow_guarded, png_chunks, regular_file
from impasto.errors import ImageError
from impasto.files import os_reason, write_bytes_atomic
from impasto.metadata import SOFTWARE, Exif

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from impasto.files import StrPath

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES_OUT",
    "Picture",
    "check_output_path",
    "check_sides",
    "open_image",
    "pictures_in",
    "read_record",
    "save_image",
    "write_encoded",
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
_ENCODER: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 6},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
_MAX_SIDE = {
    "JPEG": 65_500,
    "WEBP": 16_383,
    "GIF": 65_535,
}  # libjpeg stops short of the format's 65,535 px
_MAX_JPEG_EXIF = 65_533  # bytes in one marker

_KEYWORD = "impasto"  # of the record in a PNG
_GIF_SOFTWARE = b"impasto "  # how the comment of a GIF with a record begins


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: upright, 8 bit, sRGB.

    Attributes:
        pixels: uint8, (H, W, 3), sRGB.
        alpha: uint8, (H, W), 255 is opaque; None if all of it is opaque.
        exif: The EXIF block of the file with its orientation set to 1 (``pixels`` are upright
            already), without its thumbnail, its maker's note and whatever else `save_image` does
            not take along; None if it had none. Of a TIFF, the tags that EXIF has too. A block
            that cannot be read stands as it was.
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

    def over_white(self) -> Picture:
        """The picture laid over white where it is transparent; itself if it is opaque."""
        if self.alpha is None:
            return self
        weight = self.alpha[..., None].astype(np.uint32)
        pixels = (self.pixels * weight + 255 * (255 - weight) + 127) // 255
        return replace(self, pixels=pixels.astype(np.uint8), alpha=None)

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
        with explained("cannot use the picture", "it is damaged"):
            with pillow_guarded(sys.maxsize):
                decoded = load(image)
            return cls(*convert(decoded), decoded.exif)


def open_image(path: StrPath, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Reads a picture file: JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF, told by its content.

    Its first frame is turned upright (EXIF), brought to sRGB (ICC profile, CMYK, LAB, greys,
    palettes; without a profile, or with a broken one, it is taken for sRGB) and to 8 bit
    (16-bit greys are scaled), and its transparency is kept aside.

    Args:
        path: A regular file.
        max_pixels: The most pixels, W × H; of a WebP or AVIF, which take more memory, two thirds
            of it. It is checked before anything is decoded, and so is that the file has at most
            8 bytes for each.

    Raises:
        ImageError: The file cannot be read; one line that says why.
    """
    name = os.fspath(path)
    with explained(f"cannot read {name}", "the file is truncated or damaged"):
        with regular_file(path, max_pixels) as file:
            with pillow_guarded(max_pixels) as caught:
                decoded = load(identify(file, caught, max_pixels))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Picture(*convert(decoded), decoded.exif, name, digest)


def check_output_path(path: StrPath, suffixes: Mapping[str, str] = SUFFIXES_OUT) -> str:
    """The format that ``path`` will be written in, by its suffix: a key of Pillow's.

    Args:
        path: The file.
        suffixes: Those that it can have, and their formats.

    Raises:
        ImageError: It has another one.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in suffixes:
        what = f"{suffix} is not a suffix it can have" if suffix else "it has no suffix"
        known = ", ".join(suffixes)
        raise ImageError(f"cannot write {os.fspath(path)}: {what}; use one of {known}")
    return suffixes[suffix.lower()]


def save_image(
    picture: Picture,
    path: StrPath,
    *,
    record: str | None = None,
    metadata: bool = True,
    gps: bool = False,
) -> list[str]:
    """Writes a picture in the format of the path's suffix, in one step (see `atomic_path`).

    PNG: compression level 6. JPEG: quality 95, no chroma subsampling. WebP: quality 95, method 4.
    TIFF: deflate. All carry the sRGB profile; PNG, WebP and TIFF carry the alpha. Equal pictures
    and records give equal files.

    All carry the EXIF tags of ``picture.exif`` that say what was photographed, when, by whom and
    how, made true of this picture (upright, its size, sRGB). Left out are the place, unless
    ``gps`` says otherwise, and always: the thumbnail, the maker's note (it breaks when it is
    moved, and may hold the place or a serial number), XMP and IPTC, what describes how the photo
    was stored or printed, and a record of how the photo itself was made.

    Args:
        picture: What to write.
        path: The file; an existing one is replaced. See `SUFFIXES_OUT`.
        record: Text (JSON) that tells what made the picture, stored in the file together with
            the version of impasto; see `read_record`.
        metadata: False writes no metadata at all, but the profile.
        gps: Whether the place that ``picture.exif`` tells is written.

    Returns:
        What the reader of the file should know, one line each: what the format could not keep.

    Raises:
        ImageError: The suffix is unknown, or the picture does not fit the format.
        ImpastoError: The file cannot be written.
    """
    form = check_output_path(path)
    notes: list[str] = []
    if form == "JPEG" and picture.alpha is not None:
        picture = picture.over_white()
        notes.append("JPEG has no transparency: laid over white")
    return notes + write_encoded(picture, path, form, record=record, metadata=metadata, gps=gps)


def write_encoded(
    picture: Picture,
    path: StrPath,
    form: str,
    *,
    record: str | None,
    metadata: bool,
    gps: bool,
    **options: Any,
) -> list[str]:
    """What `save_image` and `save_animation` share: writes a picture in the format ``form``.

    Args:
        picture: What to write, or the first of the frames that ``options`` name.
        path: As for `save_image`.
        form: A key of Pillow's.
        record: As for `save_image`.
        metadata: As for `save_image`.
        gps: As for `save_image`.
        **options: More for Pillow's encoder.
    """
    check_sides(picture.size, path, form, ".png" if options else ".png or .tif")
    photo, notes = None, []
    if metadata and picture.exif is not None:
        try:
            photo = Exif.parse(picture.exif)
            photo.fit(picture.size, gps=gps)
        except ValueError:
            notes.append("the EXIF of the photo is damaged: left out")
    with explained(f"cannot write {os.fspath(path)}", "the encoder failed"):
        data, left_out = _encoded(picture, form, photo, record if metadata else None, options)
    write_bytes_atomic(path, data)
    return notes + left_out


def check_sides(size: tuple[int, int], path: StrPath, form: str, others: str) -> None:
    """Refuses a picture that is larger than its format can be.

    Raises:
        ImageError: It says that it can be written with one of the suffixes ``others``.
    """
    limit = _MAX_SIDE.get(form)
    if limit and max(size) > limit:
        raise ImageError(
            f"cannot write {os.fspath(path)}: the picture is {size[0]} × {size[1]} px and "
            f"{form} holds at most {limit} px a side; use {others}"
        )


def _encoded(
    picture: Picture, form: str, photo: Exif | None, record: str | None, more: Mapping[str, Any]
) -> tuple[bytes, list[str]]:
    """The bytes of the file, and what had to be left out of it."""
    options = {**_ENCODER[form], "icc_profile": _srgb_profile(), **more}
    notes: list[str] = []
    if record is not None:
        # A file name that is not UTF-8 reaches us as lone surrogates, which no format can hold.
        record = record.encode("utf-8", "replace").decode("utf-8")
    if form == "PNG" and record is not None:
        info = PngImagePlugin.PngInfo()
        info.add_text("Software", SOFTWARE)
        info.add_itxt(_KEYWORD, record)
        options["pnginfo"], record = info, None
    exif = _with_record(photo, record)
    if form == "JPEG" and len(exif.tobytes()) > _MAX_JPEG_EXIF:
        exif, notes = _short_enough(photo, record)
    if exif and form != "TIFF":
        block = exif.tobytes()
        options["exif"] = block.removeprefix(b"Exif\0\0") if form == "WEBP" else block
    buffer = io.BytesIO()
    picture.pil().save(buffer, format=form, **options)
    data = buffer.getvalue()
    return (exif.into_tiff(data) if exif and form == "TIFF" else data), notes


def _with_record(photo: Exif | None, record: str | None) -> Exif:
    """The tags of the photo, if any, with the record, if any."""
    exif = Exif() if photo is None else photo.copy()
    if record is not None:
        exif.record = record
    return exif


def _short_enough(photo: Exif | None, record: str | None) -> tuple[Exif, list[str]]:
    """As much as one marker of a JPEG holds: the record sooner than the photo's tags."""
    no_photo = "the EXIF of the photo is too long for a JPEG: left out"
    no_record = "the record is too long for a JPEG: left out"
    alone = _with_record(None, record)
    if record is not None and len(alone.tobytes()) <= _MAX_JPEG_EXIF:
        return alone, [no_photo]
    notes = [] if record is None else [no_record]
    if photo is None:
        return Exif(), notes
    if len(photo.tobytes()) <= _MAX_JPEG_EXIF:
        return photo, notes
    return Exif(), [no_photo, *notes]


def read_record(path: StrPath) -> str | None:
    """The record that `save_image` stored in a file; None if there is none that can be read.

    Raises:
        ImageError: There is no such file.
    """
    try:
        with (
            explained(f"cannot read {os.fspath(path)}", "the file is truncated or damaged"),
            regular_file(path) as file,
        ):
            return _find_record(file)
    except ImageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise
        return None


def _find_record(file: BinaryIO) -> str | None:
    """The record in a picture file, None if there is none of ours."""
    start = file.read(4)
    if start == b"\x89PNG":
        before = _KEYWORD.encode() + bytes(5)  # not compressed, no language, no translation
        for kind, data in png_chunks(file):
            if kind == b"iTXt" and data.startswith(before):
                return data[len(before) :].decode()
            if kind == b"IDAT":
                break
        return None
    if start == b"II*\0":
        return Exif.read(file).record
    file.seek(0)
    with pillow_guarded(sys.maxsize) as caught:
        info = identify(file, caught, sys.maxsize).info
    comment = info.get("comment")
    if start == b"GIF8" and isinstance(comment, bytes) and comment.startswith(_GIF_SOFTWARE):
        return comment.partition(b"\n")[2].decode() or None
    block = info.get("exif")
    return Exif.parse(block).record if isinstance(block, bytes) else None


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


@functools.cache
def _srgb_profile() -> bytes:
    """An sRGB profile whose bytes are the same on every day."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]  # the date of its creation, all zero
