from __future__ import annotations

import io
import itertools
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from impasto import ImpastoError
from impasto.plot import PLOT_SUFFIXES, check_plot, draw_losses, may_replace, plot_losses

every_kind = pytest.mark.parametrize("suffix", PLOT_SUFFIXES)
History = list[dict[str, Any]]


def entry(step: int, loss: float, scale: int = 1, **parts: float) -> dict[str, Any]:
    parts = parts or {"content": 0.25 * loss, "style": 0.75 * loss}
    return {"step": step, "scale": scale, "loss": loss, "parts": parts, "seconds": 0.1 * step}


def history(losses: Sequence[float], scale: int = 1, begin: int = 1) -> History:
    return [entry(begin + i, loss, scale) for i, loss in enumerate(losses)]


FALL = history([10 * 0.9**i for i in range(30)]) + history([5 * 0.9**i for i in range(20)], 2, 31)


def axes_of(history: History, title: str = "") -> Axes:
    (axes,) = draw_losses(history, title=title).axes
    return axes


def curves(axes: Axes, name: str) -> list[tuple[list[float], list[float]]]:
    """The steps and losses of the lines of a name, one for each scale."""
    return [
        (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist())
        for line in axes.get_lines()
        if line.get_label() == name
    ]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


# --- what is drawn


def test_total_and_every_part_over_the_steps() -> None:
    axes = axes_of(FALL, title="a × b")
    assert axes.get_yscale() == "log"
    assert axes.get_title(loc="left") == "a × b"
    for name, share in (("total", 1), ("content", 0.25), ("style", 0.75)):
        coarse, fine = curves(axes, name)
        assert coarse[0] == list(range(1, 31))
        assert fine[0] == list(range(31, 51))
        assert coarse[1] + fine[1] == pytest.approx([share * each["loss"] for each in FALL])


def test_scales_and_curves_are_named() -> None:
    axes = axes_of(FALL)
    assert set(texts(axes)) == {"scale 1", "scale 2", "total", "content", "style"}
    begins = [
        np.asarray(line.get_xdata())[0] for line in axes.get_lines() if line.get_zorder() == 1
    ]
    assert begins == [30.5]
    assert set(texts(axes_of(FALL[:30]))) == {"total", "content", "style"}


def test_many_scales_are_not_named_over_each_other() -> None:
    entries = [entry(1 + i, 1.0, 1 + i // 4 % 3) for i in range(120)]
    assert not [text for text in texts(axes_of(entries)) if "scale" in text]


def test_layers_are_told_apart() -> None:
    entries = history([1, 0.1, 0.01]) + history([2, 1, 0.5], 1, 4) + history([0.7, 0.4], 2, 7)
    for each in entries:
        each["layer"] = "relu1_1" if each["step"] < 4 else "relu5_1"
    axes = axes_of(entries)
    drawn = [losses for _, losses in curves(axes, "total")]
    assert drawn == [[1, 0.1, 0.01], [2, 1, 0.5], [0.7, 0.4]]
    assert set(texts(axes)) == {"relu1_1", "relu5_1", "total", "content", "style"}


def test_spikes_neither_bend_the_curves_nor_stretch_the_axis() -> None:
    losses = [10 * 0.95**i for i in range(60)]
    calm = axes_of(history(losses))
    wild = losses.copy()
    wild[20], wild[40], wild[50] = 1e9, 40.0, math.nan
    axes = axes_of(history(wild))
    assert axes.get_ylim() == pytest.approx(calm.get_ylim(), rel=0.05)
    ((_, total),) = curves(axes, "total")
    assert total == sorted(total, reverse=True)
    assert total[20] == total[19]
    ((_, style),) = curves(axes, "style")
    assert style[40] == style[39]  # of the same picture
    ((_, trials),) = curves(axes, "trials")
    assert (trials[20], trials[40]) == (1e9, 40.0)
    assert math.isnan(trials[50])


def test_a_worse_start_of_a_scale_is_shown() -> None:
    axes = axes_of(history([3, 2, 1]) + history([8, 4], 2, 4))
    assert [losses for _, losses in curves(axes, "total")] == [[3, 2, 1], [8, 4]]


def test_what_a_logarithm_cannot_show_is_left_out() -> None:
    entries = [
        entry(1, 2.0, content=0.0, style=2.0, tv=0.0),
        entry(2, 1.0, content=0.4, style=0.6, tv=0.0),
        entry(3, 0.5, content=0.3, style=-0.2, tv=0.0),
    ]
    axes = axes_of(entries)
    assert "tv" not in texts(axes)
    assert "content" in texts(axes)
    ((_, content),) = curves(axes, "content")
    assert math.isnan(content[0])
    assert content[1:] == [0.4, 0.3]
    low, high = axes.get_ylim()
    assert 0 < low < high < math.inf


def test_negligible_parts_do_not_stretch_the_axis() -> None:
    entries = [entry(i, 1.0, style=1.0, tv=1e-12) for i in range(1, 30)]
    assert axes_of(entries).get_ylim()[0] > 1e-5
    entries = [entry(i, 1.0, content=1e-3 if i == 2 else 0.5) for i in range(1, 200)]
    assert axes_of(entries).get_ylim()[0] > 0.1


def test_parts_that_come_later() -> None:
    entries = [entry(1, 2.0, style=2.0), entry(2, 1.5, style=1.0, ripple=0.5)]
    ((_, ripple),) = curves(axes_of(entries), "ripple")
    assert math.isnan(ripple[0])
    assert ripple[1] == 0.5


def test_names_do_not_overlap() -> None:
    entries = [
        entry(i, 1.0, content=0.2, style=0.2001, tv=0.2002, ripple=0.1999, other=0.1998)
        for i in range(1, 9)
    ]
    figure = draw_losses(entries)
    figure.savefig(io.BytesIO(), format="png")
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    boxes.sort(key=lambda box: box.y0)
    assert len(boxes) == 6
    for below, above in itertools.pairwise(boxes):
        assert above.y0 >= below.y1 - 3  # px, of some 20


@pytest.mark.parametrize("losses", [[1.25], [1.3, 1.29], [2.2, 2.4], [9e-5, 8e-5], [3e7, 2e7, 5e2]])
def test_there_are_numbers_on_the_axis(losses: list[float]) -> None:
    figure = draw_losses(history(losses))
    figure.savefig(io.BytesIO(), format="png")
    low, high = figure.axes[0].get_ylim()
    ticks = [tick for tick in figure.axes[0].get_yticks() if low <= tick <= high]
    assert 2 <= len(ticks) <= 10
    assert not any(text.get_text() for text in figure.axes[0].get_yticklabels(minor=True))


@pytest.mark.parametrize(
    ("entries", "words"),
    [([], "no steps were taken"), (history([math.nan, math.inf]), "no step had a finite loss")],
)
def test_nothing_to_draw(entries: History, words: str, tmp_path: Path) -> None:
    assert texts(axes_of(entries)) == [words]
    plot_losses(entries, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


# --- the file


def test_a_picture_of_some_size_and_colours(tmp_path: Path) -> None:
    plot_losses(FALL, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.size == (1200, 675)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (pixels == 255).all(-1).mean() > 0.8
    for color in ((0x22,) * 3, (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (np.abs(pixels - color).max(-1) < 8).sum() > 300


@every_kind
def test_the_same_history_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"plot{suffix}"
    written = []
    for size in (8.0, 23.0):  # whatever the user has set for their own plots
        with mpl.rc_context({"font.size": size, "savefig.facecolor": "red"}):
            plot_losses(FALL, path, title="a × b")
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_no_traces_are_left_in_matplotlib(tmp_path: Path) -> None:
    before = mpl.rcParams.copy()
    plot_losses(FALL, tmp_path / "plot.svg")
    assert mpl.rcParams.copy() == before


@every_kind
def test_any_title(suffix: str, tmp_path: Path) -> None:
    title = "costs $\\frac{$ 写真 × 絵 caf\udce9 two\nlines <&>"
    plot_losses(FALL[:5], tmp_path / f"plot{suffix}", title=title)


@every_kind
def test_only_plots_of_ours_may_be_replaced(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"plot{suffix}"
    assert may_replace(path)
    path.write_bytes(b"%PDF and so on")
    assert not may_replace(path)
    for marked in (True, False):
        plot_losses(FALL, path, marked=marked)
        assert may_replace(path) == marked


def test_a_failing_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plot.png"
    path.write_bytes(b"old")

    def fail(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(ImpastoError, match="disk is full"):
        plot_losses(FALL, path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# --- before the job


@pytest.mark.parametrize("name", ["plot.gif", "plot", "plot.jpg"])
def test_unknown_suffixes(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImpastoError, match=r"cannot write .* use one of \.png, \.svg, \.pdf"):
        check_plot(tmp_path / name)
    with pytest.raises(ImpastoError, match="cannot write"):
        plot_losses(FALL, tmp_path / name)
    check_plot(tmp_path / "PLOT.PNG")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImpastoError, match=r'pip install "impasto\[plot\]"'):
        check_plot(tmp_path / "plot.png")


def test_what_is_imported_when(tmp_path: Path) -> None:
    code = (
        "import sys, impasto.film, impasto.plot\n"
        "assert not {'matplotlib', 'av', 'torch'} & set(sys.modules)\n"
        "impasto.plot.plot_losses([], sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules  # it holds windows and global state\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "plot.svg")], check=True)
