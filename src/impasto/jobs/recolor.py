"""`recolor`: a photo in a painting's colours, and nothing else of it."""

from dataclasses import replace
from typing import Any, Final

from impasto.color import histogram_recoloring, linear_recoloring
from impasto.color import recolor as applied
from impasto.compute import memory_errors
from impasto.errors import SettingsError
from impasto.images import Picture
from impasto.inputs import PictureLike, as_picture
from impasto.records import RECORD_VERSION, describe_input, versions

__all__ = ["describe", "recolor"]

FITS: Final = {"linear": linear_recoloring, "histogram": histogram_recoloring}


def recolor(photo: PictureLike, style: PictureLike, *, method: str = "linear") -> Picture:
    """Gives a photo the colours of another picture.

    Args:
        photo: what is recoloured.
        style: whose colours it gets.
        method: `linear` matches the mean and the covariance of colours (Pitié & Kokaram 2007),
            `histogram` the distribution of lightness and of either axis of chroma.

    Returns:
        A picture of the photo's size, with its transparency.

    Raises:
        SettingsError: there is no such method.
        ImpastoError: a picture cannot be read.
    """
    if method not in FITS:
        raise SettingsError(f"method is {method!r}; it can be {', '.join(FITS)}")
    with memory_errors("this photo"):
        source, target = as_picture(photo), as_picture(style).over_white()
        fit = FITS[method](source.over_white().pixels, target.pixels)
        return replace(source, pixels=applied(source.pixels, fit), source=None, sha256=None)


def describe(photo: Picture, style: Picture, method: str) -> dict[str, Any]:
    """What is stored in a recoloured picture."""
    return {
        "record": RECORD_VERSION,
        "job": "recolor",
        "settings": {"method": method},
        "inputs": [describe_input("content", photo), describe_input("style", style)],
        "versions": versions(),
    }
