"""What the command line does with progress: a bar or plain lines, a preview file, a JSON log."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from impasto.errors import ImpastoError, one_line
from impasto.files import os_reason
from impasto.images import Picture, save_image
from impasto.progress import Progress
from impasto.records import RECORD_VERSION

__all__ = ["PREVIEW_RECORD", "JsonLog", "Preview", "Reporter", "Snapshots", "duration"]

PREVIEW_EVERY = 1.5
"""Seconds between two previews."""

LINE_EVERY = 5.0
"""Seconds between two lines when the output is no terminal."""

PREVIEW_RECORD = json.dumps({"record": RECORD_VERSION, "status": "preview"})
"""What says that a picture is an unfinished one of ours, which a later run may replace."""


class Reporter:
    """Tells a person on standard error how it goes; standard output gets the results' names.

    Args:
        quiet: whether to tell nothing but errors.
        every: seconds between two lines of progress when the output is no terminal.
    """

    def __init__(self, quiet: bool = False, *, every: float = LINE_EVERY) -> None:
        self.quiet = quiet
        self.every = every
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars: Bars | None = None
        self._bar: TaskID | None = None
        self._said = 0.0
        self._title = ""

    def begin(self, title: str) -> None:
        """A new job starts."""
        self.end()
        self._said = time.monotonic()
        if self.quiet:
            return
        if not self._console.is_terminal:
            self._title = title  # said with the first step: an error before it comes alone
            return
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._bar = self._bars.add_task(title, total=1.0, state="getting ready")
        self._bars.start()

    def __call__(self, progress: Progress) -> None:
        """Shows a step."""
        self._say_title()
        if progress.note:
            self.say(progress.note)
        w, h = progress.size
        left = duration(progress.seconds_left) + " left"
        if progress.step == progress.steps:
            left = "finishing"
        state = f"{w}×{h} · {left}"
        if progress.frame is not None:
            state = f"frame {progress.frame[0]}/{progress.frame[1]} · {state}"
        if progress.loss is not None:
            state = (
                f"step {progress.step}/{progress.steps} · scale {progress.scale}/{progress.scales} "
                f"({w}×{h}) · loss {progress.loss:.4g} · {left}"
            )
        self.show(progress.done, state)

    def show(self, done: float, state: str) -> None:
        """Shows how far the job at hand is: a share of it, 0 to 1, and the same in words."""
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, completed=done, state=state)
        elif time.monotonic() - self._said >= self.every:
            self._say_title()
            self._said = time.monotonic()
            self.say("  " + state)

    def _say_title(self) -> None:
        if self._title:
            self.say(self._title)
            self._title = ""

    def end(self) -> None:
        """The job at hand is over; the bar goes."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = self._bar = None

    def say(self, text: str) -> None:
        """One line for the user."""
        if not self.quiet:
            indent = text[: len(text) - len(text.lstrip())]
            self._console.print(indent + one_line(text), markup=False, emoji=False)

    def error(self, message: object) -> None:
        """One line that is told even when quiet."""
        self.end()
        sys.stderr.write(f"impasto: {one_line(message)}\n")

    def result(self, path: Path, text: str) -> None:
        """A result is written: its file name on standard output, the rest beside it."""
        self.end()
        if not self.quiet:
            line = f"{path}\n" if not text else f"{path}  {text}\n"
            _tell(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


class Preview:
    """Rewrites a picture file now and then with the best picture so far.

    Args:
        path: the file.
        marked: whether it says that it is ours, so that a later run may replace it.
    """

    def __init__(self, path: Path, *, marked: bool = True) -> None:
        self.path = path
        self._mark = PREVIEW_RECORD if marked else None
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Shows a step, if it is time."""
        if time.monotonic() >= self._next:
            self.show(progress.picture())
            self._next = time.monotonic() + PREVIEW_EVERY

    def show(self, picture: Picture) -> None:
        """Writes a picture at once."""
        save_image(picture, self.path, record=self._mark, metadata=self._mark is not None)


class Snapshots:
    """Keeps the best picture so far as a file of its own, every so many steps.

    Args:
        out: the result's file; a snapshot is beside it, as `out-0050.png`.
        every: how many steps.
        marked: whether they say that they are ours, so that a later run may replace them.
    """

    def __init__(self, out: Path, every: int, *, marked: bool = True) -> None:
        self.out = out
        self.every = every
        self._mark = PREVIEW_RECORD if marked else None

    def paths(self, steps: int) -> list[Path]:
        """The files of a job of so many steps."""
        return [self._path(step) for step in range(self.every, steps + 1, self.every)]

    def __call__(self, progress: Progress) -> None:
        """Keeps a step, if it is one of them."""
        if progress.step % self.every == 0:
            save_image(progress.picture(), self._path(progress.step), record=self._mark)

    def _path(self, step: int) -> Path:
        return self.out.with_name(f"{self.out.stem}-{step:04}{self.out.suffix}")


class JsonLog:
    """One JSON object a line: `start`, `step`, `result` and `error` events of every picture.

    Raises:
        ImpastoError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: TextIO = path.open("w", encoding="utf-8", errors="replace")
        except OSError as error:
            raise ImpastoError(f"cannot write {path}: {os_reason(error)}") from None

    def __call__(self, progress: Progress) -> None:
        """Logs a step."""
        self.event("step", **progress.record())

    def event(self, name: str, **values: Any) -> None:
        """Logs anything else."""
        line: Mapping[str, Any] = {"event": name, **values}
        try:
            self._file.write(json.dumps(_finite(line), ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise ImpastoError(f"cannot write {self._path}: {os_reason(error)}") from None

    def close(self) -> None:
        """Closes the file."""
        with suppress(OSError):  # said already, when the line was written
            self._file.close()

    @staticmethod
    def may_replace(path: Path) -> bool:
        """Whether there is no such file, or an empty one, or a log of ours."""
        try:
            if path.exists() and not path.is_file():  # a pipe, a terminal: nothing is lost there
                return True
            with path.open("rb") as file:
                return file.read(9) in (b"", b'{"event":')
        except FileNotFoundError:
            return True
        except OSError:  # the writer will say what is wrong
            return not path.is_file()


def _tell(line: str) -> None:
    """Writes to standard output, if somebody reads it: the picture is saved in any case."""
    if sys.stdout is None:
        return
    coding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(line.encode(coding, "replace").decode(coding))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def duration(seconds: float) -> str:
    """`8 s`, `3:05 min` or `1:20 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
