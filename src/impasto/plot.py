"""The losses of a run as curves: the total and each part, over the steps, by scale.

A line search tries pictures that turn out worse, and one such spike would flatten all the rest.
So a curve shows, at each step, the best picture so far of its scale; the trials are faint dots.
"""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from impasto.decode import explained
from impasto.errors import ImageError, ImpastoError
from impasto.files import write_bytes_atomic
from impasto.film import no_other

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from impasto.files import StrPath

    Entry = Mapping[str, Any]
    Curve = NDArray[np.float64]

__all__ = ["PLOT_SUFFIXES", "check_plot", "draw_losses", "may_replace", "plot_losses"]

PLOT_SUFFIXES: Final = (".png", ".svg", ".pdf")
"""What a plot's name can end in."""

_INK, _FAINT = "#222222", "#8a8a8a"
_COLORS = {"content": "#0072b2", "style": "#d55e00", "tv": "#009e73", "ripple": "#b0609a"}
_OTHERS = ("#56b4e9", "#e69f00", "#777777")  # Okabe and Ito's, which the colour-blind tell apart
_LOWEST = 1e-4  # of the total: parts below do not stretch the axis
_CLOSE = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)  # ticks within a decade
_LINE = 0.052  # of the axes' height: what a label needs
_MARK = "impasto plot"
_STYLE: Final[Mapping[str, Any]] = {
    "svg.hashsalt": _MARK,  # else its names are drawn at random
    "text.parse_math": False,  # a title may hold dollars
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def check_plot(path: StrPath) -> None:
    """Finds out before the work begins whether a plot can be made.

    Raises:
        ImpastoError: the suffix is none of `PLOT_SUFFIXES`, or matplotlib is not installed.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in PLOT_SUFFIXES:
        what = f"{suffix} is not a suffix a plot can have" if suffix else "it has no suffix"
        raise ImageError(f"cannot write {path}: {what}; use one of {', '.join(PLOT_SUFFIXES)}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ImpastoError(
            'a plot needs matplotlib: pip install "impasto[plot]"; or write a log with --json'
        ) from None


def may_replace(path: Path) -> bool:
    """Whether there is no such file, or an empty one, or a plot of ours."""
    return no_other(path, _MARK)


def plot_losses(
    history: Sequence[Entry], path: StrPath, *, title: str = "", marked: bool = True
) -> None:
    """Writes the loss curves of a run, 1200×675 px or as vectors, in one step.

    Args:
        history: as in `Result.history`; an entry may name its `layer`, where several are
            reconstructed one after another. Without steps the axes are empty, and say so.
        path: the file; an existing one is replaced. See `PLOT_SUFFIXES`.
        title: one line above the curves, or none.
        marked: whether the file says that it is ours, so that a later run may replace it.

    Raises:
        ImpastoError: as `check_plot`, or the file cannot be written.
    """
    check_plot(path)
    from matplotlib import style

    suffix = Path(path).suffix.lower()
    buffer = io.BytesIO()
    with (
        explained(f"cannot write {path}", "the plot failed"),
        style.context(["default", dict(_STYLE)]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of letters that the typeface lacks
        figure = draw_losses(history, title=title)
        figure.savefig(buffer, format=suffix[1:], metadata=_metadata(suffix, marked))
    write_bytes_atomic(path, buffer.getvalue())


def _metadata(suffix: str, marked: bool) -> dict[str, str | None]:
    """What the file tells of its origin; no date, so that the same run writes the same bytes."""
    mark = _MARK if marked else None
    if suffix == ".png":
        return {"Software": mark}
    if suffix == ".svg":
        return {"Creator": mark, "Date": None}
    return {"Creator": mark, "Producer": None, "CreationDate": None}


def draw_losses(history: Sequence[Entry], *, title: str = "") -> Figure:
    """The figure of `plot_losses`, for other uses; needs matplotlib.

    Its lines have the labels `total` and the parts' names, one line per scale; its dots `trials`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("step")
    axes.set_ylabel("loss, best so far")
    if title:
        title = " ".join(title.encode("utf-8", "replace").decode().split())
        axes.set_title(title, loc="left", fontsize="medium", color=_INK)
    curves = _curves(history)
    if not curves:
        axes.set(xticks=[], yticks=[])
        text = "no step had a finite loss" if history else "no steps were taken"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=_FAINT)
        return figure
    _set_axes(axes, history, _limits(curves))
    _draw_scales(axes, history)
    _draw_curves(axes, history, curves)
    _label_curves(axes, curves)
    return figure


def _curves(history: Sequence[Entry]) -> dict[str, Curve]:
    """The total and every part of the best picture so far of each scale; NaN where there is none.

    What a logarithm cannot show is left out; empty if nothing remains.
    """
    best = list(history)
    for run in _scales(history):
        for i in run[1:]:
            if not _finite(best[i]["loss"]) <= _finite(best[i - 1]["loss"]):
                best[i] = best[i - 1]
    names = dict.fromkeys(itertools.chain.from_iterable(entry["parts"] for entry in history))
    values = {"total": [entry["loss"] for entry in best]}
    values |= {name: [entry["parts"].get(name, 0) for entry in best] for name in names}
    curves = {
        name: np.array([_finite(value, math.nan) for value in values[name]]) for name in values
    }
    return {name: curve for name, curve in curves.items() if np.isfinite(curve).any()}


def _finite(value: float | None, otherwise: float = math.inf) -> float:
    """The value if a logarithmic axis has a place for it."""
    return value if value is not None and 0 < value < math.inf else otherwise


def _sections(history: Sequence[Entry], *keys: str) -> list[range]:
    """Which entries in a row have the same values of these keys."""
    runs, begin = [], 0
    for _, entries in itertools.groupby(
        history, key=lambda entry: [entry.get(key) for key in keys]
    ):
        end = begin + len(list(entries))
        runs.append(range(begin, end))
        begin = end
    return runs


def _scales(history: Sequence[Entry]) -> list[range]:
    """Which entries belong to each scale in turn, and of which layer."""
    return _sections(history, "layer", "scale")


def _limits(curves: Mapping[str, Curve]) -> tuple[float, float]:
    """The range of the axis: all of the total, and of the parts what is not negligible."""
    everything = np.concatenate(list(curves.values()))
    everything = everything[np.isfinite(everything)]
    least = float(np.nanmin(curves["total"])) * _LOWEST if "total" in curves else 0.0
    low = max(float(np.quantile(everything, 0.01)), least)
    return low / 1.3, float(everything.max()) * 1.3


def _set_axes(axes: Axes, history: Sequence[Entry], limits: tuple[float, float]) -> None:
    """Steps across, a logarithm up, with numbers however few decades there are."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    axes.set_yscale("log")
    axes.set_ylim(*limits)
    subs = _CLOSE if limits[1] < 8 * limits[0] else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    axes.set_xlim(history[0]["step"] - 0.5, history[-1]["step"] + 0.5)
    axes.xaxis.set_major_locator(
        MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1)
    )


def _draw_scales(axes: Axes, history: Sequence[Entry]) -> None:
    """A light line where a scale begins, and the scale's or layer's name where there is room."""
    begins = [entry["step"] - 0.5 for entry in history]
    for run in _scales(history)[1:]:
        axes.axvline(begins[run[0]], color="#cccccc", linewidth=0.8, zorder=1)
    key = "layer" if history[0].get("layer") else "scale"
    runs = _sections(history, key)
    for run in runs:
        if len(runs) > 1 and len(run) >= 0.08 * len(history):
            name = history[run[0]][key]
            axes.annotate(
                f"scale {name}" if key == "scale" else name,
                (begins[run[0]], 1), (4, -2), xycoords=axes.get_xaxis_transform(),
                textcoords="offset points", va="top", color=_FAINT, fontsize="small",
            )  # fmt: skip


def _draw_curves(axes: Axes, history: Sequence[Entry], curves: Mapping[str, Curve]) -> None:
    steps = np.array([entry["step"] for entry in history])
    trials = np.array([_finite(entry["loss"], math.nan) for entry in history])
    axes.plot(steps, trials, ".", color=_FAINT, alpha=0.5, markersize=4, mew=0, label="trials")
    for run in _scales(history):
        part = slice(run.start, run.stop)
        for name, color in _colors(curves).items():
            width, order = (2.6, 3) if name == "total" else (1.4, 4)
            axes.plot(
                steps[part], curves[name][part], color=color, linewidth=width, zorder=order,
                label=name, solid_capstyle="round", marker="." if len(run) == 1 else "",
            )  # fmt: skip


def _colors(names: Mapping[str, object]) -> dict[str, str]:
    others = itertools.cycle(_OTHERS)
    known = {"total": _INK, **_COLORS}
    return {name: known.get(name) or next(others) for name in names}


def _label_curves(axes: Axes, curves: Mapping[str, Curve]) -> None:
    """Each curve's name at its right end, moved apart where they would touch."""
    low, high = np.log(axes.get_ylim())
    ends = {}
    for name, curve in curves.items():
        end = curve[np.isfinite(curve)][-1]
        ends[name] = float(np.clip((np.log(end) - low) / (high - low), 0, 1))
    places = _apart(ends, _LINE)
    for name, color in _colors(curves).items():
        axes.annotate(
            name, (1, places[name]), (5, 0), xycoords="axes fraction", textcoords="offset points",
            color=color, va="center", fontweight="bold" if name == "total" else "normal",
        )  # fmt: skip


def _apart(places: Mapping[str, float], gap: float) -> dict[str, float]:
    """The places in their order, at least `gap` from each other, moved as little as is easy."""
    names = sorted(places, key=lambda name: (places[name], name == "total"))
    moved = dict(places)
    for _ in range(100):
        for lower, upper in itertools.pairwise(names):
            short = gap - (moved[upper] - moved[lower])
            if short > 0:
                moved[lower] -= short / 2
                moved[upper] += short / 2
    return moved
