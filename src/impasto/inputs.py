"""What a library call may be given as a picture, and what it becomes."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Final, TypeAlias

from PIL import Image
from torch import Tensor

from impasto.errors import SettingsError
from impasto.images import Picture, open_image
from impasto.sources import resolve

__all__ = ["OpenStyle", "PictureLike", "Style", "StyleLike", "as_picture", "as_styles"]

_WEIGHT: Final = "a style is a picture or (picture, weight), and a weight is above 0"

PictureLike: TypeAlias = str | PathLike[str] | Picture | Image.Image | Tensor
"""A path or `sample:NAME`, a `Picture`, a Pillow image, or a `(1, 3, H, W)` tensor in [0, 1]."""


@dataclass(frozen=True)
class Style:
    """A style, where it is more than a picture.

    Attributes:
        picture: the painting.
        weight: beside other styles; above 0.
        mask: what is light in it is painted in this style; None for all that no mask covers.
        regions: the painting's map of regions, beside the photo's; see `impasto.transfer`.
    """

    picture: PictureLike
    weight: float = 1.0
    mask: PictureLike | None = None
    regions: PictureLike | None = None


@dataclass(frozen=True)
class OpenStyle:
    """The same with every picture opened."""

    picture: Picture
    weight: float = 1.0
    mask: Picture | None = None
    regions: Picture | None = None


StyleLike: TypeAlias = PictureLike | tuple[PictureLike, float] | Style
"""A picture, a picture and its weight (> 0), or a `Style`."""


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


def as_styles(given: StyleLike | Sequence[StyleLike]) -> list[OpenStyle]:
    """The styles that are meant.

    Raises:
        ImageError: a picture cannot be read.
        SettingsError: there is none, or a weight is not above 0.
    """
    weighted = isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], int | float)
    alone = weighted or not isinstance(given, Sequence) or isinstance(given, str)
    styles: Sequence[StyleLike] = [given] if alone else given  # type: ignore[list-item, assignment]
    if not styles:
        raise SettingsError("there is no style picture; give at least one")
    return [_opened(style) for style in styles]


def _opened(given: StyleLike) -> OpenStyle:
    style: Any = given
    if isinstance(given, tuple):
        if len(given) != 2 or not isinstance(given[1], int | float):
            raise SettingsError(_WEIGHT)
        style = Style(*given)
    elif not isinstance(given, Style):
        style = Style(given)
    if not isinstance(style.weight, int | float) or not 0 < style.weight < 1e30:
        raise SettingsError(f"{_WEIGHT}, not {style.weight!r}")
    more = (style.mask, style.regions)
    return OpenStyle(
        as_picture(style.picture),
        float(style.weight),
        *(None if picture is None else as_picture(picture) for picture in more),
    )
