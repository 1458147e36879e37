from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from impasto import terminal
from impasto.errors import ImpastoError
from impasto.images import Picture
from impasto.progress import Progress, Result
from impasto.terminal import LINE_EVERY, PREVIEW_EVERY, JsonLog, Preview, Reporter
from pictures import load, photo


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def unused() -> Result:
    raise AssertionError("nobody asked for the result")


def progress(
    step: int = 1,
    *,
    note: str | None = None,
    seconds: float = 4.0,
    picture: Callable[[], Picture] = lambda: Picture(photo()),
) -> Progress:
    return Progress(
        job="transfer",
        scale=2,
        scales=3,
        size=(256, 192),
        step=step,
        steps=10,
        loss=0.123456,
        parts={"content": 0.1, "style": 0.023456},
        done=step / 10,
        seconds=seconds,
        note=note,
        _picture=picture,
        _result=unused,
    )


# --- the reporter


def test_plain_lines_when_piped(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with Reporter() as reporter:
        reporter.begin("1/2 photo.png")
        reporter(progress(1))
        clock.now += LINE_EVERY + 0.1
        reporter(progress(2))
        reporter(progress(3))
        reporter.result(Path("out.png"), "(40×32 px, 4 s)")
    told = capsys.readouterr()
    assert told.out == "out.png  (40×32 px, 4 s)\n"
    title, line = told.err.splitlines()  # steps 1 and 3 come too soon
    assert title == "1/2 photo.png"
    for part in ("step 2/10", "scale 2/3", "256×192", "loss 0.1235", "16 s left"):
        assert part in line
    assert "\x1b" not in told.err


@pytest.mark.parametrize(
    ("seconds", "text"), [(9.0, "1 s"), (531.0, "59 s"), (540.0, "1:00 min"), (43200.0, "1:20 h")]
)
def test_time_left(
    seconds: float, text: str, capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    reporter = Reporter()
    clock.now += LINE_EVERY
    reporter(progress(9, seconds=seconds))
    assert capsys.readouterr().err.rstrip().endswith(f"· {text} left")


def test_notes_are_told_at_once(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    reporter = Reporter()
    reporter.begin("photo.png")
    reporter(progress(note="step 1: the loss was not finite"))
    assert capsys.readouterr().err == "photo.png\nstep 1: the loss was not finite\n"


def test_quiet_tells_nothing_but_errors(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with Reporter(quiet=True) as reporter:
        reporter.begin("photo.png")
        clock.now += 100
        reporter(progress(note="a note"))
        reporter.say("a line")
        reporter.result(Path("out.png"), "done")
        assert capsys.readouterr() == ("", "")
        reporter.error(ImpastoError("cannot read a.png:\n  no such file"))
    assert capsys.readouterr() == ("", "impasto: cannot read a.png: no such file\n")


@pytest.mark.parametrize(
    "text",
    [
        "[red]photo[/red].png is there",
        "album:art:7.png",
        "a line " * 40 + "of more than the width of any terminal",
        "1.5 of 'this' and http://that.example/3",
    ],
)
def test_names_are_told_as_they_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Reporter().say(text)
    assert capsys.readouterr().err == text + "\n"


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    reporter = Reporter()
    monkeypatch.setattr(
        reporter, "_console", Console(file=screen, force_terminal=True, width=120, highlight=False)
    )
    reporter.begin("[1] album:art:.png")
    reporter(progress(3))
    reporter.end()
    shown = screen.getvalue()
    assert "getting ready" in shown
    for part in ("[1] album:art:.png", "step 3/10", "scale 2/3", "loss 0.1235", "9 s left"):
        assert part in shown
    assert shown.count("\n") < 12  # redrawn in place
    reporter.end()
    assert screen.getvalue() == shown


# --- the preview


def test_preview_is_rewritten_now_and_then(tmp_path: Path, clock: Clock) -> None:
    drawn: list[int] = []

    def picture(step: int) -> Callable[[], Picture]:
        def draw() -> Picture:
            drawn.append(step)
            return Picture(photo(seed=step))

        return draw

    preview = Preview(tmp_path / "look.png")
    for step, later in ((1, 0), (2, 0.1), (3, PREVIEW_EVERY - 0.2), (4, 0.2), (5, 0.1)):
        clock.now += later
        preview(progress(step, picture=picture(step)))
    assert drawn == [1, 4]
    assert np.array_equal(load(tmp_path / "look.png"), photo(seed=4))
    assert [path.name for path in tmp_path.iterdir()] == ["look.png"]


def test_who_reads_the_preview_has_a_whole_picture(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "look.png"
    preview = Preview(path)
    preview(progress())
    first = path.read_bytes()
    with path.open("rb") as reader:
        assert reader.read(20) == first[:20]
        clock.now += 2 * PREVIEW_EVERY
        preview(progress(picture=lambda: Picture(photo(400, 300, seed=2))))
        assert reader.read() == first[20:]
    assert np.array_equal(load(path), photo(400, 300, seed=2))


def test_failed_preview_leaves_the_old_one(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "look.png"
    preview = Preview(path)
    preview(progress())
    first = path.read_bytes()

    def fail(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    clock.now += 2 * PREVIEW_EVERY
    with pytest.raises(ImpastoError, match="disk is full"):
        preview(progress(picture=lambda: Picture(photo(seed=9))))
    assert path.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["look.png"]


# --- the log


def test_log_is_one_object_a_line_as_it_happens(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = JsonLog(path)
    log(progress(1))
    log.event("error", photo="Öl\n.png", message="no")
    lines = [json.loads(line) for line in path.read_bytes().decode().splitlines()]  # before close
    log.close()
    assert lines == [
        {
            "event": "step",
            "step": 1,
            "scale": 2,
            "loss": 0.123456,
            "parts": {"content": 0.1, "style": 0.023456},
            "seconds": 4.0,
        },
        {"event": "error", "photo": "Öl\n.png", "message": "no"},
    ]
    assert "Öl" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["no/such/folder/log", "."])
def test_log_that_cannot_be_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImpastoError, match="cannot write"):
        JsonLog(tmp_path / name)


def test_log_on_a_full_disk(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    log = JsonLog(full)
    with pytest.raises(ImpastoError, match="disk is full"):
        log(progress())
    log.close()  # what is buffered is tried again; it was said already


def test_a_pipe_is_asked_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    assert JsonLog.may_replace(tmp_path / "log")


def test_log_takes_any_name(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "log")
    log.event("error", photo="caf\udce9.png")
    log.close()
    assert json.loads((tmp_path / "log").read_text(encoding="utf-8"))["event"] == "error"


def test_loss_that_is_not_finite_is_still_json(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "log")
    log.event("step", loss=float("nan"), parts={"style": float("inf")})
    log.close()

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no JSON")

    line = json.loads((tmp_path / "log").read_text(encoding="utf-8"), parse_constant=refuse)
    assert line["event"] == "step"
