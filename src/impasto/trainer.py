"""The training loop that all our networks share.

Time is counted in pictures seen. What is trained, on what, and with which losses comes in from
outside: `parts`, everything with a state to keep, and `step`, which trains on one batch. The loop
counts, logs, saves and goes on where a killed run ended.

A continued run repeats an uninterrupted one to the last bit, because nothing depends on what
happened before but the parts' states: rates and sizes follow from the pictures seen, and every
random draw from the run's seed and the pictures seen, which `step` gets as a `Moment`. So there is
no state of a random generator or of a data loader that could be lost.
"""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

from impasto.checkpoints import load_checkpoint, save_checkpoint
from impasto.errors import ImpastoError, RunError
from impasto.files import lock, os_reason, write_text_atomic

__all__ = ["Average", "Length", "Moment", "Part", "Report", "Shuffle", "derive_seed", "train"]

CHECKPOINT: Final = "checkpoint.safetensors"
LOG: Final = "log.jsonl"


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
        batch: pictures per step.
        log_every: pictures between two lines of the log.
        save_every: pictures between two checkpoints; a save waits for the next line of the log.
        seed: of every random draw.
    """

    total: int
    batch: int
    log_every: int
    save_every: int
    seed: int = 0


@dataclass(frozen=True)
class Moment:
    """Where a run stands when a step begins.

    Attributes:
        seen: pictures seen so far.
        length: of the run.
        device: where to compute.
        dtype: of convolutions and matrix products.
    """

    seen: int
    length: Length
    device: torch.device
    dtype: torch.dtype

    @property
    def done(self) -> float:
        """The share of the run that is behind, 0 to 1."""
        return min(1.0, self.seen / self.length.total)

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision (Micikevicius et al. 2018) for the forward pass; weights stay float32."""
        mixed = self.dtype is not torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=mixed)


@dataclass(frozen=True)
class Report:
    """What a run tells after each line of its log.

    Attributes:
        seen: pictures seen so far.
        total: of how many.
        metrics: the means of what the steps gave since the last report.
        seconds: spent so far, over all continuations, s.
    """

    seen: int
    total: int
    metrics: Mapping[str, float]
    seconds: float

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
    resume: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Generator[Report, None, None]:
    """Trains until `length.total` pictures are seen.

    `folder` gets `log.jsonl`, one JSON object a line, and `checkpoint.safetensors`, which holds
    everything that is needed to go on. Whoever closes the generator has the run saved where it is.
    torch's global generator is seeded before every step.

    Args:
        parts: everything that has a state, by name; on `device` already.
        step: trains on one batch and changes nothing but `parts`.
        length: how long, in pictures.
        folder: of this run; made if it is missing.
        config: what makes this run what it is, as JSON types; a continued run must have the same.
        resume: whether to go on with the run in `folder`; without one, it starts.
        device: where to compute.
        dtype: for `Moment.autocast`.

    Yields:
        A `Report` after each line of the log, and the last when all is saved.

    Raises:
        ImpastoError: another process trains in `folder`, or it cannot be written.
        RunError: there is a run in `folder` and `resume` is false; its configuration is another;
            or a metric is not finite.
    """
    # 1. The folder is ours.
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImpastoError(f"cannot make the folder {folder}: {os_reason(error)}") from error
    with lock(folder / "run"):
        # 2. Begin, or go on where the last checkpoint was taken.
        saved = _take_on(folder, parts, config, length, resume)
        seen, before = saved["seen"], saved["seconds"]
        _cut_log(folder / LOG, seen)
        begin = time.monotonic()
        sums: dict[str, Tensor | float] = {}
        steps, last_saved = 0, seen

        while seen < length.total:
            # 3. One batch.
            torch.manual_seed(derive_seed(length.seed, "step", seen))
            for name, value in step(Moment(seen, length, torch.device(device), dtype)).items():
                number = value.detach() if isinstance(value, Tensor) else value
                sums[name] = sums.get(name, 0.0) + number
            earlier, seen, steps = seen, seen + length.batch, steps + 1
            finished = seen >= length.total
            if seen // length.log_every == earlier // length.log_every and not finished:
                continue

            # 4. A line of the log: the means since the line before.
            seconds = before + time.monotonic() - begin
            means = {name: float(total) / steps for name, total in sums.items()}
            report = Report(seen, length.total, means, seconds)
            for name, mean in means.items():
                if not math.isfinite(mean):
                    raise RunError(f"{name} is {mean} after {seen} pictures; train more slowly")
            with (folder / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(report.record()) + "\n")
            sums, steps = {}, 0

            # 5. A checkpoint, only ever right after a line of the log: no sum is half full then.
            if finished or seen - last_saved >= length.save_every:
                _save(folder, parts, config, length, seen, seconds)
                last_saved = seen
            try:
                yield report
            except GeneratorExit:
                if last_saved != seen:
                    _save(folder, parts, config, length, seen, seconds)
                raise


def _take_on(
    folder: Path, parts: Mapping[str, Part], config: Mapping[str, Any], length: Length, resume: bool
) -> dict[str, Any]:
    """Loads the parts from the folder's checkpoint; says how far that run was."""
    path = folder / CHECKPOINT
    if not path.exists():
        return {"seen": 0, "seconds": 0.0}
    if not resume:
        raise RunError(f"{folder} holds a run already; resume it, or give another folder")
    state = load_checkpoint(path)
    ours = _identity(config, length)
    for key in ours.keys() | state["config"].keys():
        there, here = state["config"].get(key), ours.get(key)
        if there != here:
            raise RunError(
                f"the run in {folder} has {key} {there!r} and not {here!r}; give another folder"
            )
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    return {"seen": state["seen"], "seconds": state["seconds"]}


def _save(
    folder: Path,
    parts: Mapping[str, Part],
    config: Mapping[str, Any],
    length: Length,
    seen: int,
    seconds: float,
) -> None:
    state = {
        "config": _identity(config, length),
        "seen": seen,
        "seconds": seconds,
        "parts": {name: part.state_dict() for name, part in parts.items()},
    }
    save_checkpoint(folder / CHECKPOINT, state)


def _identity(config: Mapping[str, Any], length: Length) -> dict[str, Any]:
    """What two runs must share to be one, as JSON gives it back."""
    own = {"total": length.total, "batch": length.batch, "log_every": length.log_every}
    identity: dict[str, Any] = json.loads(json.dumps({**config, **own, "seed": length.seed}))
    return identity


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


class Average:
    """An exponential moving average of a module's weights and buffers.

    The weights that are worth keeping of a run whose rate is not at its end (Polyak & Juditsky
    1992; as used for generators, Karras et al. 2018, section 3).

    Attributes:
        module: a copy of the module, in evaluation mode, that holds the average.

    Args:
        module: what to average.
        half_life: after so many pictures the old average counts half.
    """

    def __init__(self, module: nn.Module, half_life: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.half_life = half_life

    @torch.no_grad()
    def update(self, module: nn.Module, pictures: int) -> None:
        """Takes the module in as it is after another so many pictures."""
        share = 1 - 0.5 ** (pictures / self.half_life)
        theirs = module.state_dict()
        for name, mine in self.module.state_dict().items():
            if mine.is_floating_point():
                mine.lerp_(theirs[name], share)
            else:
                mine.copy_(theirs[name])

    def state_dict(self) -> dict[str, Any]:
        """The average."""
        return self.module.state_dict()

    def load_state_dict(self, state: Any, /) -> None:
        """Takes an average on."""
        self.module.load_state_dict(state)


class Shuffle:
    """The order in which pictures are seen: every pass a new one, none twice within a pass.

    Args:
        count: how many pictures there are.
        seed: of the orders.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._pass, self._order = -1, torch.empty(0, dtype=torch.long)

    def indices(self, seen: int, batch: int) -> Tensor:
        """Which pictures come after `seen` of them: `(batch,)`, int64."""
        number, place = divmod(seen, self.count)
        if number != self._pass:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "pass", number))
            self._pass, self._order = number, torch.randperm(self.count, generator=generator)
        taken = self._order[place : place + batch]
        if len(taken) == batch:
            return taken
        return torch.cat((taken, self.indices(seen + len(taken), batch - len(taken))))


def derive_seed(*what: object) -> int:
    """A seed in [0, 2⁶³) that follows from these values, and looks unlike that of any others."""
    text = "/".join(map(str, what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
