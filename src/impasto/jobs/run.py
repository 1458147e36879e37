"""One job from its settings to its result: what transfer, texture and reconstruct share."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from impasto.compute import choose_device, choose_dtype, memory_errors, threads
from impasto.encoder import Encoder
from impasto.errors import SettingsError
from impasto.images import Picture
from impasto.inputs import as_picture
from impasto.optimize import Iterate, Level, Objective, optimize
from impasto.progress import Progress, Result
from impasto.pyramid import Size, divide_steps, noise, resample, resample_picture, scale_sizes
from impasto.settings import STARTS, Settings

__all__ = ["Bench", "Job", "Start", "opened_init", "run"]

SHARE = 0.6
"""Each finer scale gets this share of the steps of the one before: form is found on the cheap
scales, and too many steps on the finest one raise a ripple there."""


FEWEST = 5
"""Fewer steps than this a scale are not worth it: coarse scales are left out."""


class Bench:
    """The workbench: device, precision and network, set up once for any number of jobs.

    Attributes:
        settings: what was asked.
        device: where the network runs.
        encoder: the network in the precision that is fast here.
        judge: the network in float32; the same object where that is the fast one.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = choose_device(settings.device)
        exact = settings.precision == "auto" and not settings.tolerates_bfloat16
        precision = "float32" if exact else settings.precision
        self.encoder = self._load(choose_dtype(self.device, precision))
        full = self.encoder.dtype is torch.float32
        self.judge = self.encoder if full else self._load(torch.float32)

    def _load(self, dtype: torch.dtype) -> Encoder:
        return Encoder.load(
            self.settings.encoder,
            pooling=self.settings.pooling,
            padding=self.settings.padding,
            device=self.device,
            dtype=dtype,
        )

    def record(self, threads: int) -> dict[str, Any]:
        """What a settings record says of the bench."""
        dtype = str(self.encoder.dtype).removeprefix("torch.")
        return {"device": self.device.type, "dtype": dtype, "threads": threads}

    def levels(self, finest: Size, objective: Callable[[Encoder, Size], Objective]) -> list[Level]:
        """The scales of a run, coarse to fine.

        Args:
            finest: (W, H) of the last one, px.
            objective: makes the objective for a network and a size.
        """
        sizes = scale_sizes(finest, self.settings.scales)
        sizes = sizes[-max(1, self.settings.steps // FEWEST) :]  # few steps: the fine scales
        steps = divide_steps(self.settings.steps, [SHARE**i for i in range(len(sizes))])
        levels = []
        for size, count in zip(sizes, steps, strict=True):
            judged = self.judge is not self.encoder and size == finest
            levels.append(
                Level(
                    size,
                    count,
                    lambda size=size: objective(self.encoder, size),  # type: ignore[misc]
                    (lambda size=size: objective(self.judge, size)) if judged else None,  # type: ignore[misc]
                )
            )
        return levels


@dataclass(frozen=True)
class Start:
    """What a job starts from: a picture, or noise.

    From scale to scale, what has changed about a picture travels and its own fine detail stays;
    so what no scale touches comes out as it went in.

    Attributes:
        picture: `(1, 3, H, W)` at the finest size; None for noise.
        bench: whose settings say how noise is drawn, and where the picture is to be; noise is
            drawn on the CPU, so alike for all devices.
    """

    picture: Tensor | None
    bench: Bench

    def __call__(self, size: Size, coarser: Tensor | None) -> Tensor:
        """The start of a scale, as `optimize` asks for it."""
        if self.picture is None:
            if coarser is not None:
                return resample_picture(coarser, size)
            return self._noise(size).to(self.bench.device)
        picture = self.picture.to(self.bench.device)
        here = resample_picture(picture, size)
        if coarser is None:
            return here
        h, w = coarser.shape[-2:]
        change = coarser - resample(picture, (w, h))
        return (here + resample(change, size)).clamp_(0, 1)

    def _noise(self, size: Size) -> Tensor:
        settings = self.bench.settings
        drawn = noise(size, torch.Generator().manual_seed(settings.seed))
        if settings.noise == "uniform":
            return drawn
        zero = torch.tensor(self.bench.encoder.plan.mean).view(1, 3, 1, 1)
        if settings.noise == "faint":
            return zero + (2 * drawn - 1) * (0.025 / 255)
        drawn = zero + drawn - 128 / 255
        return drawn.clamp_(0, 1) if settings.clip == "step" else drawn


def opened_init(job: str, init: Any) -> Picture | None:
    """The picture of an `init` option, laid over white; None if it is a word that the job knows.

    Raises:
        SettingsError: it is a word of another job.
        ImageError: it cannot be read.
    """
    if isinstance(init, str) and init in STARTS["transfer"]:
        if init in STARTS[job]:
            return None
        here = ", ".join(STARTS[job])
        raise SettingsError(f"init is {init!r}; here it can be {here} or a picture")
    return as_picture(init).over_white()


@dataclass
class Job:
    """What `run` needs to know.

    Attributes:
        name: `transfer`, `texture` or `reconstruct`.
        bench: where the work is done.
        levels: the scales.
        start: as for `optimize`.
        finish: brings the tensor of the last scale to the size and form that the user gets.
        record: the settings record so far.
        notes: what the user should hear with the first step, one line each.
    """

    name: str
    bench: Bench
    levels: list[Level]
    start: Callable[[Size, Tensor | None], Tensor]
    finish: Callable[[Tensor], Picture]
    record: dict[str, Any] = field(repr=False)
    notes: Sequence[str] = ()


def run(job: Job) -> Generator[Progress, None, Result]:
    """Does the job. Yields its progress; returns its result.

    Raises:
        RunError: memory ran out, or the loss is not finite from the start.
    """
    settings = job.bench.settings
    began = round_began = time.monotonic()
    final = job.levels[-1].size
    work = [level.steps * level.size[0] * level.size[1] for level in job.levels]
    history: list[dict[str, Any]] = []

    def result(picture: Tensor, loss: float, step: int, partial: bool) -> Result:
        record = job.record | {
            "status": "partial" if partial else "complete",
            "working_size": list(final),
            **job.bench.record(count),
            "steps": step,
            "loss": loss,
        }
        return Result(job.finish(picture.cpu().clamp(0, 1)), record, history[:step], partial)

    def ended(at: Iterate) -> str | None:
        nonlocal round_began
        if at.round is None:
            return None
        seconds = time.monotonic() - round_began
        round_began += seconds
        return f"round {at.round}: loss {at.best_loss:.6g}, {seconds:.1f} s"

    def progress(at: Iterate) -> Progress:
        level = job.levels[at.level]
        before = sum(earlier.steps for earlier in job.levels[: at.level])
        here = work[at.level] * (at.step - before) / level.steps
        return Progress(
            job=job.name,
            scale=at.level + 1,
            scales=len(job.levels),
            size=level.size,
            step=at.step,
            steps=sum(each.steps for each in job.levels),
            loss=at.loss,
            parts=at.parts,
            done=(sum(work[: at.level]) + here) / sum(work),
            seconds=time.monotonic() - began,
            note=at.note or ended(at) or ("; ".join(job.notes) if at.step == 1 else "") or None,
            _picture=lambda: Picture.from_tensor(resample_picture(at.best, final)),
            _result=lambda: result(at.best, at.best_loss, at.step, True),
        )

    with threads(settings.threads) as count, memory_errors(f"{final[0]}×{final[1]} px"):
        loop = optimize(job.levels, job.start, settings)
        while True:
            try:
                now = progress(next(loop))
            except StopIteration as stop:
                picture, loss = stop.value
                return result(picture, loss, len(history), partial=False)
            history.append(now.record())
            yield now
