"""What values of settings may be: each check raises a `SettingsError` that says what is wrong."""

from collections.abc import Mapping
from typing import Any, Final, get_args

from impasto.errors import SettingsError

__all__ = [
    "MAX_SIDE",
    "check_choice",
    "check_integer",
    "check_layers",
    "check_number",
    "check_scale",
    "check_size",
]

MAX_SIDE: Final = 65_535
"""The longest side that is worked at or put out, px: the most that a JPEG can hold."""


def check_choice(name: str, value: object, choices: Any) -> None:
    """A literal type's value."""
    if value not in get_args(choices):
        raise SettingsError(f"{name} is {value!r}; it can be {', '.join(get_args(choices))}")


def check_integer(name: str, value: object, low: int, high: int) -> None:
    """A whole number within limits."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingsError(f"{name} is {value!r}; it is a whole number from {low} to {high}")


def check_number(name: str, value: object, above: float | None = None) -> None:
    """A number that is 0 or more, or above a limit."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30
    if not good or value < 0 or (above is not None and value <= above):  # type: ignore[operator]
        kind = "positive" if above == 0 else "that is 0 or more"
        raise SettingsError(f"{name} is {value!r}; it is a number {kind}")


def check_scale(scale: object) -> None:
    """A scale of strokes."""
    check_number("style_scale", scale, above=0)
    if not 0.25 <= scale <= 4:  # type: ignore[operator]
        raise SettingsError(f"style_scale is {scale}; it goes from 0.25 to 4")


def check_size(size: object) -> None:
    """A long side in px, or `full`."""
    if size != "full":
        check_integer("size", size, 1, MAX_SIDE)


def check_layers(name: str, layers: Mapping[str, float]) -> None:
    """Layers and their weights."""
    if not isinstance(layers, Mapping):
        raise SettingsError(f"{name} is {layers!r}; it maps layers to weights")
    if not layers:
        raise SettingsError(f"{name} is empty; name at least one, such as relu4_2")
    for layer, weight in layers.items():
        check_number(f"the weight of {layer} in {name}", weight)
    if sum(layers.values()) <= 0:
        raise SettingsError(f"{name} needs at least one weight above 0")
