"""The presets as text, for `impasto presets`."""

from collections.abc import Mapping
from typing import Any

from impasto.errors import SettingsError
from impasto.presets import PRESETS

__all__ = ["describe", "overview"]


def overview() -> str:
    """All presets, a line each, `default` first."""
    width = max(map(len, PRESETS)) + 2
    lines = [f"{name:{width}}{preset.summary}" for name, preset in PRESETS.items()]
    return "\n".join([*lines, "", "impasto presets NAME shows one with its figures."])


def describe(name: str) -> str:
    """A preset with every figure that it changes, and whose figure it is.

    Raises:
        SettingsError: there is no such preset.
    """
    if name not in PRESETS:
        raise SettingsError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    preset = PRESETS[name]
    lines = [f"{name}: {preset.summary}", f"source: {preset.source}"]
    if not preset.values:
        lines += ["", "Every setting has the default that --help shows."]
    lines += _figures("", preset.values, preset.ours)
    for job, values in preset.jobs.items():
        lines += _figures(f"{job} only:", values, preset.ours)
    lines += _figures("instead, with --encoder slim:", preset.slim, frozenset(preset.slim))
    if preset.film:
        lines += ["", "A film is kept beside the result."]
    if preset.values:
        lines += ["", "Figures marked * are ours: the source does not give them."]
    return "\n".join(lines)


def _figures(title: str, values: Mapping[str, Any], ours: frozenset[str]) -> list[str]:
    if not values:
        return []
    shown = [f"  {key:16}{_shown(value)}{' *' * (key in ours)}" for key, value in values.items()]
    return ["", title, *shown] if title else ["", *shown]


def _shown(value: Any) -> str:
    """A figure as the flag takes it."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
