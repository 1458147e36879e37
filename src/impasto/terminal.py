"""What the command line does with progress: a bar or plain lines, a preview file, a JSON log."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from impasto.errors import ImpastoError
from impasto.files import os_reason
from impasto.images import save_image
from impasto.progress import Progress

__all__ = ["JsonLog", "Preview", "Reporter"]

PREVIEW_EVERY = 1.5
"""Seconds between two previews."""

LINE_EVERY = 5.0
"""Seconds between two lines when the output is no terminal."""


class Reporter:
    """Tells a person on standard error how it goes; standard output gets the results' names.

    Args:
        quiet: whether to tell nothing but errors.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars: Bars | None = None
        self._bar: TaskID | None = None
        self._said = 0.0

    def begin(self, title: str) -> None:
        """A new job starts."""
        self.end()
        self._said = time.monotonic()
        if self.quiet:
            return
        if not self._console.is_terminal:
            self.say(title)
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
        if progress.note:
            self.say(progress.note)
        w, h = progress.size
        left = _duration(progress.seconds_left)
        state = (
            f"step {progress.step}/{progress.steps} · scale {progress.scale}/{progress.scales} "
            f"({w}×{h}) · loss {progress.loss:.4g} · {left} left"
        )
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, completed=progress.done, state=state)
        elif time.monotonic() - self._said >= LINE_EVERY:
            self._said = time.monotonic()
            self.say("  " + state)

    def end(self) -> None:
        """The job at hand is over; the bar goes."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = self._bar = None

    def say(self, text: str) -> None:
        """One line for the user."""
        if not self.quiet:
            self._console.print(text, markup=False, emoji=False)

    def error(self, message: object) -> None:
        """One line that is told even when quiet."""
        self.end()
        sys.stderr.write(f"impasto: {' '.join(str(message).split())}\n")

    def result(self, path: Path, text: str) -> None:
        """A result is written: its file name on standard output, the rest beside it."""
        self.end()
        if not self.quiet:
            line = f"{path}\n" if not text else f"{path}  {text}\n"
            coding = sys.stdout.encoding or "utf-8"
            sys.stdout.write(line.encode(coding, "replace").decode(coding))
            sys.stdout.flush()

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
    """Rewrites a picture file now and then with the best picture so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Shows a step, if it is time."""
        if time.monotonic() >= self._next:
            save_image(progress.picture(), self.path)
            self._next = time.monotonic() + PREVIEW_EVERY


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
        self._file.close()


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _duration(seconds: float) -> str:
    """`8 s`, `3:05 min` or `1:20 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
