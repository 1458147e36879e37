"""What a running job tells: one record after every step, and the result at the end."""

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from impasto.images import Picture, save_image

if TYPE_CHECKING:
    from impasto.files import StrPath

__all__ = ["OnProgress", "Progress", "Result", "drive"]


@dataclass(frozen=True, eq=False)
class Result:
    """What a job made, and what made it.

    Attributes:
        image: the picture.
        settings: the record of the run as plain JSON types: every option, the seed, versions,
            precision, threads, the network's SHA-256, every input's name and SHA-256.
        history: one entry per step: `step`, `scale`, `loss`, `parts` (of the loss, weighted) and
            `seconds` since the start; where layers or frames are done one after the other, also
            `layer` or `frame`.
        partial: whether the job was stopped before its end.
    """

    image: Picture
    settings: dict[str, Any]
    history: list[dict[str, Any]] = field(repr=False)
    partial: bool = False

    def save(self, path: "StrPath", *, metadata: bool = True, gps: bool = False) -> list[str]:
        """Writes the picture with its record, so that it can be redone.

        Args:
            path: the file; its suffix says the format.
            metadata: False for a file with neither record nor EXIF.
            gps: whether the photo's EXIF keeps the place where it was taken.

        Returns:
            What the format could not keep, one line each.

        Raises:
            ImpastoError: the file cannot be written.
        """
        record = json.dumps(self.settings, ensure_ascii=False, allow_nan=False)
        return save_image(self.image, path, record=record, metadata=metadata, gps=gps)


@dataclass(frozen=True, eq=False)
class Progress:
    """Where a job is, after a step.

    Attributes:
        job: `transfer`, `texture` or `reconstruct`.
        scale: which scale, from 1.
        scales: how many there are.
        size: (W, H) of this scale, px.
        step: loss-and-gradient evaluations so far, over all scales.
        steps: of how many.
        loss: of the picture just tried; None where nothing is minimised.
        parts: of that loss, weighted, by name.
        done: share of the job's work that is done, 0 to 1; a step counts by its pixels.
        seconds: since the job began.
        note: what the user should hear about, in one line; else None.
        layer: the layer at hand, where a job does one after the other; else None.
        frame: the frame at hand of an animation, from 1, and how many there are; else None.
    """

    job: str
    scale: int
    scales: int
    size: tuple[int, int]
    step: int
    steps: int
    loss: float | None
    parts: Mapping[str, float]
    done: float
    seconds: float
    note: str | None
    _picture: Callable[[], Picture] = field(repr=False)
    _result: Callable[[], Result] = field(repr=False)
    layer: str | None = None
    frame: tuple[int, int] | None = None

    def picture(self) -> Picture:
        """The best picture so far, at the working size; valid until the next step."""
        return self._picture()

    def result(self) -> Result:
        """The best picture so far as a result of full size, marked partial."""
        return self._result()

    @property
    def seconds_left(self) -> float:
        """How long the rest will take if it goes on like this, s."""
        return self.seconds * (1 - self.done) / self.done

    def record(self) -> dict[str, Any]:
        """The numbers as plain JSON types, for `Result.history` and logs."""
        layer = {} if self.layer is None else {"layer": self.layer}
        frame = {} if self.frame is None else {"frame": self.frame[0]}
        return (
            layer
            | frame
            | {
                "step": self.step,
                "scale": self.scale,
                "loss": self.loss,
                "parts": dict(self.parts),
                "seconds": round(self.seconds, 3),
            }
        )


OnProgress = Callable[[Progress], object]
"""Called with every record; what it returns is ignored."""


def drive(job: Generator[Progress, None, Result], on_progress: OnProgress | None = None) -> Result:
    """Runs a job to its end."""
    try:
        while True:
            try:
                progress = next(job)
            except StopIteration as stop:
                result: Result = stop.value
                return result
            if on_progress is not None:
                on_progress(progress)
    finally:
        job.close()
