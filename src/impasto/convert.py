"""From Pillow's image to upright pixels of 8-bit sRGB, and their transparency."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from impasto.decode import Decoded

    Bytes = NDArray[np.uint8]

__all__ = ["convert"]

_BAND = 1 << 22  # pixels that are converted at a time

_AS_STORED: dict[int, Callable[[Bytes], Bytes]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright[::-1].swapaxes(0, 1),
}
"""By EXIF orientation, the view of an upright picture in which the file's first row is first."""


def convert(decoded: Decoded) -> tuple[Bytes, Bytes | None]:
    """The pixels (H, W, 3) in sRGB, upright, and the alpha (H, W), None if all is opaque."""
    image, turn = decoded.image, _AS_STORED.get(decoded.orientation, _AS_STORED[1])
    shape = image.size if decoded.orientation in (5, 6, 7, 8) else image.size[::-1]
    pixels, alpha = np.empty((*shape, 3), np.uint8), np.empty(shape, np.uint8)
    pixels_stored, alpha_stored = turn(pixels), turn(alpha)
    span, to_srgb = _span(decoded), None
    for rows, band in _bands(image):
        band, alpha_stored[rows] = _split_alpha(band, rows, decoded)
        if _is_deep(decoded):
            band = Image.fromarray(_levels(_numbers(band, decoded), span, decoded.inverted))
        elif band.mode not in ("L", "RGB", "CMYK", "LAB"):  # those an ICC profile can be for
            band = band.convert("L" if band.mode == "1" else "RGB")
        to_srgb = to_srgb or _to_srgb(band.mode, image.info.get("icc_profile"))
        pixels_stored[rows] = np.asarray(to_srgb(band))
    return pixels, None if alpha.min() == 255 else alpha


def _bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """The rows of ``image``, some at a time: a large one is not copied as a whole."""
    step = max(1, _BAND // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        band = image.crop((0, top, image.width, bottom))
        if band.mode != "P":
            band.info.pop("transparency", None)  # `Decoded.key` says it right
        yield slice(top, bottom), band


def _split_alpha(
    band: Image.Image, rows: slice, decoded: Decoded
) -> tuple[Image.Image, Bytes | int]:
    """``band`` without its transparency, however it is stored, and that: (H, W), or for all."""
    key, low = decoded.key, decoded.low
    if band.mode == "RGB" and isinstance(key, tuple):
        if low is None:
            seen = np.asarray(band) == np.array(key)
        else:
            lower = np.asarray(low.crop((0, rows.start, low.width, rows.stop)))
            seen = np.asarray(band) * np.uint16(256) + lower == np.array(key)
        return band, np.where(seen.all(axis=-1), 0, 255)
    if band.mode in ("1", "L", "I;16", "I;16B") and isinstance(key, int):
        seen = np.asarray(band.convert("L") if band.mode == "1" else band) == key
        return band, np.where(seen, 0, 255)
    if band.mode in ("PA", "RGBa") or (band.mode == "P" and band.has_transparency_data):
        band = band.convert("RGBA")
    elif band.mode == "La":
        band = band.convert("LA")
    if band.mode in ("RGBA", "LA"):
        return band.convert(band.mode[:-1]), np.asarray(band.getchannel("A"))
    return band, 255


def _is_deep(decoded: Decoded) -> bool:
    """Whether it is grey in numbers that are not simply 0 to 255."""
    return decoded.image.mode[0] in "IF" or decoded.numbers is not None


def _numbers(band: Image.Image, decoded: Decoded) -> NDArray[Any]:
    values = np.asarray(band)
    return values if decoded.numbers is None else values.view(decoded.numbers)


def _span(decoded: Decoded) -> tuple[float, float]:
    """The numbers that become 0 and 255 in a deep grey picture: it is scaled, never clipped.

    Integers within 0..65535 are 16 bit, floats within 0..1 or 0..255 span just that; anything
    else is stretched from its least to its greatest value.
    """
    if decoded.numbers is np.int8:
        return -128, 127
    if not _is_deep(decoded) or decoded.image.mode.startswith("I;16"):
        return 0, decoded.top
    low, high = np.inf, -np.inf
    for _, band in _bands(decoded.image):
        values = _numbers(band, decoded)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        return 0, 1
    if decoded.image.mode != "F" and low >= 0 and high <= 65_535:
        return 0, decoded.top
    if decoded.image.mode == "F" and low >= 0 and high <= 255:
        return 0, 1 if high <= 1 else 255
    return low, high


def _levels(values: NDArray[Any], span: tuple[float, float], inverted: bool) -> Bytes:
    """Numbers brought from ``span`` to 0..255, (H, W). NaN becomes black."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return np.take(_levels(np.arange(65_536.0), span, inverted), values)
    low, high = span
    levels = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    levels = np.rint(np.clip((levels - low) * (255 / (high - low or 1)), 0, 255))
    return (255 - levels if inverted else levels).astype(np.uint8)


def _to_srgb(mode: str, profile: object) -> Callable[[Image.Image], Image.Image]:
    """What brings images of ``mode`` (L, RGB, CMYK or LAB) to sRGB, by the profile if that fits."""
    if profile and isinstance(profile, bytes):
        # A broken profile, or one for another colour space, is as good as none: LittleCMS
        # refuses both.
        with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            transform = ImageCms.buildTransform(
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                mode,
                "RGB",
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            return transform.apply
    return lambda image: image if image.mode == "RGB" else image.convert("RGB")
