"""The training loop that all our networks share.

Time is counted in pictures seen. What is trained, on what, and with which losses comes in from
outside: `parts`, everything with a state to keep, and `step`, which trains on one batch. The loop
counts, logs, saves and goes on where a killed run ended.

A continued run repeats an uninterrupted one to the last bit, because nothing depends on what
happened before but the parts' states: rates and sizes follow from the pictures seen, and every
random draw from the run's seed and the pictures seen, which `step` gets as a `Moment`. So there is
no state of a random generator or of a data loader that could be lost.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from impasto.checkpoints import checkpoints, newest, pack, unpack, write_newest
from impasto.errors import ImpastoError, RunError
from impasto.files import lock, os_reason, sweep, write_text_atomic
from impasto.parallel import ALONE, World
from impasto.seeds import derive_seed

__all__ = ["Length", "Moment", "Part", "Report", "train"]

LOG: Final = "log.jsonl"

ATTEMPTS: Final = 5
"""How often a run goes back to the same checkpoint before it gives up."""


class Part(Protocol):
    """Something with a state: a module, an optimiser, an average."""

    def state_dict(self) -> dict[str, Any]:
        """The state, as `impasto.checkpoints` can store it."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Takes a state on."""


@dataclass(frozen=True)
class Length:
    """How long a run is, in pictures.

    Attributes:
        total: pictures to see in all; the last batch may go a little beyond.
        batch: pictures per step, over all processes.
        log_every: pictures between two lines of the log.
        save_every: pictures between two checkpoints; a save waits for the next line of the log.
        seed: of every random draw.
        fixed: whether `total` is part of what the run is, because rates follow from it; a run
            where nothing does may go on to another.
    """

    total: int
    batch: int
    log_every: int
    save_every: int
    seed: int = 0
    fixed: bool = True


@dataclass(frozen=True)
class Moment:
    """Where a run stands when a step begins.

    Attributes:
        seen: pictures seen so far.
        length: of the run.
        device: where to compute.
        dtype: of convolutions and matrix products.
        world: the processes that train together.
    """

    seen: int
    length: Length
    device: torch.device
    dtype: torch.dtype
    world: World = ALONE

    @property
    def done(self) -> float:
        """The share of the run that is behind, 0 to 1."""
        return min(1.0, self.seen / self.length.total)

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision (Micikevicius et al. 2018) for the forward pass; weights stay float32."""
        mixed = self.dtype in (torch.bfloat16, torch.float16)
        return torch.autocast(self.device.type, self.dtype, enabled=mixed)


@dataclass(frozen=True)
class Report:
    """What a run tells after each line of its log.

    Attributes:
        seen: pictures seen so far.
        total: of how many.
        metrics: the means of what the steps gave since the last report; empty in the first
            report of a run, which tells where it begins.
        seconds: spent on steps so far, over all continuations, s; not on what is done with reports.
        saved: whether this moment is in a checkpoint.
        regular: whether that is one of those that every run of this length has: the first, the
            last, and one every `length.save_every`; not one for having been stopped.
        notes: what a user should know, one line each.
    """

    seen: int
    total: int
    metrics: Mapping[str, float]
    seconds: float
    saved: bool = False
    regular: bool = False
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The numbers as plain JSON types: a line of the log."""
        return {"images": self.seen, **self.metrics, "seconds": round(self.seconds, 2)}


Step = Callable[[Moment], Mapping[str, Tensor | float]]
"""Trains on one batch; gives scalars for the log."""


def train(
    parts: Mapping[str, Part],
    step: Step,
    length: Length,
    folder: Path,
    *,
    config: Mapping[str, Any],
    remember: Mapping[str, Any] | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    world: World = ALONE,
    stop: Callable[[], bool] = lambda: False,
    tame: Callable[[int], None] | None = None,
) -> Generator[Report, None, None]:
    """Trains until `length.total` pictures are seen.

    `folder` gets `log.jsonl`, one JSON object a line, and checkpoints, which hold everything that
    is needed to go on: one before the first picture, then every `length.save_every`; the last two
    are kept (see `impasto.checkpoints`). Whoever closes the generator, or lets `stop` say so, has
    the run saved where it is. torch's global generator is seeded before every step.

    With several processes, each runs this function with its `world`. The first reads and writes;
    the others get their states from it.

    Args:
        parts: everything that has a state, by name; on `device` already.
        step: trains on one batch and changes nothing but `parts`.
        length: how long, in pictures.
        folder: of this run; made if it is missing.
        config: what makes this run what it is, as JSON types; a continued run must have the same.
        remember: what else is kept in its checkpoints, likewise; it may be another when it goes on.
        resume: whether to go on with the run in `folder`; without one, it starts.
        device: where to compute.
        dtype: for `Moment.autocast`.
        world: the processes that train together.
        stop: asked after every step (of several processes, the first one's after every line of the
            log): whether to save and end here.
        tame: makes smaller steps; called with the number of the attempt after a loss was not
            finite and the parts have gone back to the last checkpoint. Without it, or after
            five attempts from one checkpoint, the run ends with an error.

    Yields:
        A `Report` of where it begins, one after each line of the log, and the last when all is
        saved.

    Raises:
        ImpastoError: another process trains in `folder`, or it cannot be written.
        RunError: there is a run in `folder` and `resume` is false; its configuration is another;
            no checkpoint of it can be read; a metric is not finite; or another process is gone.
    """
    run = _Run(parts, folder, {**config, **_identity(length)}, dict(remember or {}), world)
    with run.held():
        # 1. Begin, or go on where the last checkpoint was taken.
        notes = run.begin(resume)
        attempts = 0
        yield Report(
            run.seen, length.total, {}, run.seconds, saved=True, regular=run.regular, notes=notes
        )
        then = time.monotonic()

        while run.seen < length.total:
            # 2. One batch.
            torch.manual_seed(derive_seed(length.seed, "step", run.seen))
            at = Moment(run.seen, length, torch.device(device), dtype, world)
            run.add(step(at))
            earlier, run.seen = run.seen, run.seen + length.batch
            then, run.seconds = time.monotonic(), run.seconds + time.monotonic() - then
            finished = run.seen >= length.total
            if run.seen // length.log_every == earlier // length.log_every and not finished:
                if world.size == 1 and stop():
                    if run.trouble({}):
                        run.go_back()
                    else:
                        run.save()
                    yield Report(run.seen, length.total, {}, run.seconds, saved=True)
                    return
                continue

            # 3. Back to the last checkpoint, if a number is none.
            metrics = run.means()
            trouble = run.trouble(metrics)
            if world.agree(bool(trouble)):
                attempts += 1
                if tame is None or attempts > ATTEMPTS:
                    raise RunError(f"{trouble} after {run.seen} pictures; train more slowly")
                note = f"{trouble} after {run.seen} pictures: back to the last checkpoint"
                run.go_back()
                tame(attempts)
                yield Report(run.seen, length.total, {}, run.seconds, notes=(note,))
                then = time.monotonic()
                continue

            # 4. A line of the log, and a checkpoint if it is time.
            report = Report(run.seen, length.total, metrics, run.seconds)
            run.log(report)
            due = finished or run.seen // length.save_every > run.logged // length.save_every
            run.logged = run.seen
            stopping = world.agree(stop())
            if due or stopping:
                run.save(regular=due)
                attempts = 0
                report = dataclasses.replace(report, saved=True, regular=due)
            try:
                yield report
            except GeneratorExit:
                if run.saved != run.seen:
                    run.save()
                raise
            if stopping:
                return
            then = time.monotonic()


@dataclass
class _Run:
    """The state of a run and its files.

    Attributes:
        parts, folder, identity, remember, world: as in `train`.
        seen, seconds: so far.
        saved: how many pictures the newest checkpoint has seen.
        regular: whether that is one of those that every such run has.
        logged: how many pictures had been seen at the last line of the log.
    """

    parts: Mapping[str, Part]
    folder: Path
    identity: Mapping[str, Any]
    remember: Mapping[str, Any]
    world: World
    seen: int = 0
    seconds: float = 0.0
    saved: int = 0
    regular: bool = True
    logged: int = 0
    _sums: dict[str, Tensor | float] = field(default_factory=dict)
    _steps: int = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """While nobody else trains in the folder."""
        if not self.world.first:
            yield
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = os_reason(error)
            raise ImpastoError(f"cannot make the folder {self.folder}: {reason}") from error
        with lock(self.folder / "run"):
            sweep(self.folder)
            yield

    def begin(self, resume: bool) -> tuple[str, ...]:
        """Takes on the newest checkpoint, or writes the first; gives what is to be told."""
        notes: tuple[str, ...] = ()
        data = b""
        if self.world.first:
            if checkpoints(self.folder):
                if not resume:
                    raise RunError(
                        f"{self.folder} holds a run already; resume it, or give another folder"
                    )
                data, notes = newest(self.folder)
                self._check(unpack(data)["config"])
            elif self.world.size > 1:
                data = pack(self._state())  # all begin with the first one's random weights
        data = self.world.share(data)
        if data:
            self._take_on(unpack(data))
        if self.world.first:
            if not checkpoints(self.folder):
                self.save(regular=True)
            _cut_log(self.folder / LOG, self.seen)
        return notes

    def go_back(self) -> None:
        """To the newest checkpoint, but for the time that has passed."""
        data = newest(self.folder)[0] if self.world.first else b""
        seconds = self.seconds
        self._take_on(unpack(self.world.share(data)))
        self.seconds = seconds
        if self.world.first:
            _cut_log(self.folder / LOG, self.seen)

    def _take_on(self, state: Mapping[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.seen = self.saved = state["seen"]
        self.seconds = state["seconds"]
        self.regular, self.logged = state["regular"], state["logged"]
        self._sums, self._steps = state["sums"], state["steps"]

    def _check(self, theirs: Mapping[str, Any]) -> None:
        """That the configuration of the run in the folder is ours."""
        ours = json.loads(json.dumps(self.identity))
        for key in sorted(ours.keys() | theirs.keys(), key=lambda key: (key == "pictures", key)):
            there, here = theirs.get(key), ours.get(key)
            if there != here and key == "pictures":  # told by a hash, which says nothing to anyone
                raise RunError(
                    f"the run in {self.folder} learns from other pictures; name the same ones, "
                    "or give another folder"
                )
            if there != here:
                raise RunError(
                    f"the run in {self.folder} has {key} {there!r} and not {here!r}; "
                    "give another folder"
                )

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Takes in what a step gave."""
        for name, value in metrics.items():
            number = value.detach() if isinstance(value, Tensor) else value
            self._sums[name] = self._sums.get(name, 0.0) + number
        self._steps += 1

    def means(self) -> dict[str, float]:
        """The means over steps and processes since the last line of the log."""
        means = [float(total) / self._steps for total in self._sums.values()]
        names = list(self._sums)
        self._sums, self._steps = {}, 0
        return dict(zip(names, self.world.mean(means), strict=True))

    def trouble(self, metrics: Mapping[str, float]) -> str:
        """Which number is none, if any: among the metrics, or in a state to be saved."""
        for name, mean in metrics.items():
            if not math.isfinite(mean):
                return f"{name} is {mean}"
        for name, part in self.parts.items():
            if not all(bool(tensor.isfinite().all()) for tensor in _tensors(part.state_dict())):
                return f"a number in the {name} is not finite"
        return ""

    def log(self, report: Report) -> None:
        """Adds a line."""
        if not self.world.first:
            return
        path = self.folder / LOG
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(report.record()) + "\n")
        except OSError as error:
            raise ImpastoError(f"cannot write {path}: {os_reason(error)}") from error

    def save(self, *, regular: bool = False) -> None:
        """Writes a checkpoint."""
        self.saved, self.regular = self.seen, regular
        if self.world.first:
            write_newest(self.folder, self.seen, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "config": dict(self.identity),
            "remember": dict(self.remember),
            "seen": self.seen,
            "seconds": self.seconds,
            "sums": self._sums,
            "steps": self._steps,
            "logged": self.logged,
            "regular": self.regular,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }


def _identity(length: Length) -> dict[str, Any]:
    """What of a run's length must not change on the way."""
    names = ("total",) * length.fixed + ("batch", "log_every", "seed")
    return {name: getattr(length, name) for name in names}


def _tensors(state: Any) -> Iterator[Tensor]:
    """The floating-point tensors in a state."""
    if isinstance(state, Tensor):
        if state.is_floating_point():
            yield state
    elif isinstance(state, Mapping):
        for part in state.values():
            yield from _tensors(part)
    elif isinstance(state, list | tuple):
        for part in state:
            yield from _tensors(part)


def _cut_log(path: Path, seen: int) -> None:
    """Removes what was logged after the checkpoint, and a last line that was cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            if json.loads(line)["images"] <= seen:
                kept.append(line + "\n")
        except ValueError:
            break
    write_text_atomic(path, "".join(kept))
