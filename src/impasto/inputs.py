"""What a library call may be given as a picture, and what it becomes."""

from collections.abc import Sequence
from os import PathLike
from typing import TypeAlias

from PIL import Image
from torch import Tensor

from impasto.errors import SettingsError
from impasto.images import Picture, open_image
from impasto.sources import resolve

__all__ = ["PictureLike", "StyleLike", "as_picture", "as_styles"]

PictureLike: TypeAlias = str | PathLike[str] | Picture | Image.Image | Tensor
"""A path or `sample:NAME`, a `Picture`, a Pillow image, or a `(1, 3, H, W)` tensor in [0, 1]."""

StyleLike: TypeAlias = PictureLike | tuple[PictureLike, float]
"""A picture, or a picture and its weight (> 0)."""


def as_picture(given: PictureLike) -> Picture:
    """The picture that is meant.

    Raises:
        ImageError: it cannot be read.
        SettingsError: it is nothing that could be a picture.
    """
    match given:
        case Picture():
            return given
        case Image.Image():
            return Picture.from_pil(given)
        case Tensor():
            return Picture.from_tensor(given)
        case str():
            return resolve(given).open()
        case PathLike():
            return open_image(given)
        case _:
            raise SettingsError(
                f"a {type(given).__name__} is no picture; give a path, a Picture, "
                "a Pillow image or a tensor"
            )


def as_styles(given: StyleLike | Sequence[StyleLike]) -> list[tuple[Picture, float]]:
    """The style pictures that are meant, with their weights.

    Raises:
        ImageError: one cannot be read.
        SettingsError: there is none, or a weight is not above 0.
    """
    weighted = isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], int | float)
    alone = weighted or not isinstance(given, Sequence) or isinstance(given, str)
    styles: Sequence[StyleLike] = [given] if alone else given  # type: ignore[list-item, assignment]
    if not styles:
        raise SettingsError("there is no style picture; give at least one")
    found: list[tuple[Picture, float]] = []
    for style in styles:
        pair = style if isinstance(style, tuple) else (style, 1.0)
        if len(pair) != 2 or not isinstance(pair[1], int | float) or not 0 < pair[1] < 1e30:
            told = f", not {pair[1]!r}" if isinstance(pair[-1], int | float) else ""
            raise SettingsError(
                f"a style is a picture or (picture, weight), and a weight is above 0{told}"
            )
        picture, weight = pair
        found.append((as_picture(picture), float(weight)))
    return found
