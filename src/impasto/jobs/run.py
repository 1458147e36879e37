"""One job from its settings to its result: what transfer, texture and reconstruct share."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from impasto.compute import choose_device, choose_dtype, memory_errors, threads
from impasto.encoder import Encoder
from impasto.images import Picture
from impasto.optimize import Iterate, Level, Objective, optimize
from impasto.progress import Progress, Result
from impasto.pyramid import Size, divide_steps, resample_picture, scale_sizes
from impasto.settings import Settings

__all__ = ["Bench", "Job", "run"]

SHARE = 0.6
"""Each finer scale gets this share of the steps of the one before: form is found on the cheap
scales, and too many steps on the finest one raise a ripple there."""


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
        self.encoder = self._load(choose_dtype(self.device, settings.precision))
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

    def levels(self, finest: Size, objective: Callable[[Encoder, Size], Objective]) -> list[Level]:
        """The scales of a run, coarse to fine.

        Args:
            finest: (W, H) of the last one, px.
            objective: makes the objective for a network and a size.
        """
        sizes = scale_sizes(finest, self.settings.scales)
        steps = divide_steps(self.settings.steps, [SHARE**i for i in range(len(sizes))])
        levels = []
        for size, count in zip(sizes, steps, strict=True):
            if count == 0:  # fewer steps than scales
                continue
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
    """

    name: str
    bench: Bench
    levels: list[Level]
    start: Callable[[Size, Tensor | None], Tensor]
    finish: Callable[[Tensor], Picture]
    record: dict[str, Any] = field(repr=False)


def run(job: Job) -> Generator[Progress, None, Result]:
    """Does the job. Yields its progress; returns its result.

    Raises:
        RunError: memory ran out, or the loss is not finite from the start.
    """
    settings = job.bench.settings
    began = time.monotonic()
    final = job.levels[-1].size
    work = [level.steps * level.size[0] * level.size[1] for level in job.levels]
    history: list[dict[str, Any]] = []

    def result(picture: Tensor, partial: bool) -> Result:
        record = job.record | {
            "status": "partial" if partial else "complete",
            "working_size": list(final),
            "device": job.bench.device.type,
            "dtype": str(job.bench.encoder.dtype).removeprefix("torch."),
            "threads": count,
            "steps": len(history),
            "loss": history[-1]["loss"] if history else None,
        }
        return Result(job.finish(picture.cpu()), record, list(history), partial)

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
            note=at.note,
            _picture=lambda: Picture.from_tensor(resample_picture(at.best, final)),
            _result=lambda: result(at.best, True),
        )

    with threads(settings.threads) as count, memory_errors(f"{final[0]}×{final[1]} px"):
        loop = optimize(
            job.levels,
            job.start,
            optimizer=settings.optimizer,
            memory=settings.memory,
            rate=settings.rate,
        )
        while True:
            try:
                now = progress(next(loop))
            except StopIteration as stop:
                return result(stop.value, partial=False)
            history.append(now.record())
            yield now
