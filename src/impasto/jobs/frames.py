"""Painting an animation frame by frame, with a network and styles that are loaded once."""

import json
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from impasto.animation import Animation, save_animation
from impasto.images import Picture
from impasto.jobs.transfer import Painter
from impasto.progress import Progress, Result

if TYPE_CHECKING:
    from impasto.files import StrPath

__all__ = ["AnimatedResult", "iter_frames", "request"]


@dataclass(frozen=True, eq=False)
class AnimatedResult(Result):
    """What painting an animation made; its `image` is the first frame.

    Attributes:
        animation: the painted frames, with the size, durations and loops of those that were
            given; where it was stopped before its end, the frames that were done.
    """

    animation: Animation = field(kw_only=True)

    def save(self, path: "StrPath", *, metadata: bool = True, gps: bool = False) -> list[str]:
        """Writes the animation with its record; see `Result.save` and `save_animation`."""
        record = json.dumps(self.settings, ensure_ascii=False, allow_nan=False)
        return save_animation(self.animation, path, record=record, metadata=metadata, gps=gps)


def request(painter: Painter, animation: Animation) -> dict[str, Any]:
    """The record of painting this animation, as far as it is known before the work."""
    return painter.request(animation.first) | {"frames": len(animation.durations)}


def iter_frames(
    painter: Painter, animation: Animation
) -> Generator[Progress, None, AnimatedResult]:
    """Paints every frame of an animation as a photo of its own.

    Args:
        painter: who paints; with `method="fast"`, each frame in one pass.
        animation: what is painted; see `impasto.animation.open_animation`.

    Yields:
        The progress of the frame at hand; its steps, its share and its seconds count all frames.
        Its result has the frames that are done; before there is one, the first as it is by then.

    Returns:
        The painted frames. The record is that of a picture, and says how many `frames` there are.

    Raises:
        ImpastoError: a frame cannot be read, or not be painted.
    """
    began, count = time.monotonic(), len(animation.durations)
    painted: list[Picture] = []
    history: list[dict[str, Any]] = []
    steps = 0  # of the frames that are done
    noted: set[str | None] = set()

    def result(last: Result, frames: list[Picture], step: int, *, partial: bool) -> AnimatedResult:
        status = "partial" if partial else "complete"
        return AnimatedResult(
            frames[0],
            last.settings | {"status": status, "steps": step, "frames": len(frames)},
            history[:],
            partial,
            animation=Animation(frames, animation.durations[: len(frames)], animation.loops),
        )

    def of_all(progress: Progress) -> Progress:
        """The progress of a frame as that of all frames."""
        step, done = steps + progress.step, len(painted)

        def so_far() -> AnimatedResult:
            last = progress.result()
            counts = done == 0 or progress.done > 1 - 1e-6  # its last step: it is painted
            frames = painted[:done] + [last.image] * counts
            return result(last, frames, step, partial=True)

        return replace(
            progress,
            step=step,
            steps=steps + progress.steps * (count - done),
            done=(done + progress.done) / count,
            seconds=time.monotonic() - began,
            note=None if progress.note in noted else progress.note,
            frame=(done + 1, count),
            _result=so_far,
        )

    for frame in animation.frames:
        with closing(painter.iter(frame)) as job:
            while True:
                try:
                    progress = next(job)
                except StopIteration as end:
                    last: Result = end.value
                    break
                yield of_all(progress)
                noted.add(progress.note)
        painted.append(last.image)
        history += [{"frame": len(painted)} | entry for entry in last.history]
        steps += last.settings["steps"]
    return result(last, painted, steps, partial=False)
