"""`transfer` in one pass: what `--method fast` does with a photo that is laid out."""

import functools
import time
from collections.abc import Callable, Generator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impasto.composition import Layout
from impasto.compute import choose_device, memory_errors, threads
from impasto.fast.network import StyleCode
from impasto.fast.painting import Part
from impasto.fast.style import FastStyle, PixelCanvas, amounts
from impasto.images import Picture
from impasto.objectives import Styles
from impasto.progress import Progress, Result
from impasto.records import Network
from impasto.settings import TransferSettings

__all__ = ["FastMethod"]

Pixels = NDArray[np.uint8]

KEPT: Final = 24
"""How many styles are kept as the network knows them: those of a few photo sizes."""


class FastMethod:
    """The network that paints in one pass, set up once for any number of photos.

    Attributes:
        network: its name and the SHA-256 of its file.
        start_network: None: it starts from the photo.

    Args:
        settings: what was asked.
        name: of the network, or the path of its file.
    """

    start_network: Network | None = None

    def __init__(self, settings: TransferSettings, name: str) -> None:
        self.settings = settings
        self._fast = FastStyle.load(name, device=choose_device(settings.device))
        self.network = (self._fast.name, self._fast.sha256)
        self._codes: dict[tuple[Styles, int], StyleCode] = {}

    def bench(self) -> dict[str, Any]:
        """What a record says of where it was painted."""
        count = self.settings.threads or torch.get_num_threads()
        return {"device": self._fast.device.type, "dtype": "float32", "threads": count}

    def paint(
        self, layout: Layout, finish: Callable[[Pixels], Picture], record: dict[str, Any]
    ) -> Generator[Progress, None, Result]:
        """Paints what was laid out; yields its progress and returns its result.

        Args:
            layout: the photo and its parts.
            finish: brings pixels, `(h, w, 3)`, to the size and form that the user gets.
            record: the settings record so far.
        """
        size = layout.size
        passes = amounts(self._strength)
        began = time.monotonic()
        before = layout.content_pixels
        painted = before.copy()

        def result(step: int, *, partial: bool) -> Result:
            ended = {"status": "partial" if partial else "complete", "working_size": list(size)}
            made = record | ended | self.bench() | {"steps": step, "loss": None}
            return Result(finish(painted), made, [], partial)

        with threads(self.settings.threads), memory_errors(f"{size[0]}×{size[1]} px"):
            parts = self._parts(layout)
            notes = "; ".join(layout.notes) or None
            step = 0
            for number, amount in enumerate(passes if parts else []):
                canvas = PixelCanvas(before, painted)
                for done in self._fast.paint(canvas, parts, amount):
                    share = (number + done.share) / len(passes)
                    step += 1
                    yield Progress(
                        job="transfer",
                        scale=1,
                        scales=1,
                        size=size,
                        step=step,
                        steps=step - done.step + done.steps * (len(passes) - number),
                        loss=None,
                        parts={},
                        done=share,
                        seconds=time.monotonic() - began,
                        note=notes,
                        _picture=lambda: Picture(painted.copy()),
                        _result=functools.partial(result, step, partial=True),
                    )
                    notes = None
                if number + 1 < len(passes):
                    before = painted.copy()
            return result(step, partial=False)

    def picture(self, layout: Layout) -> Tensor:
        """What was laid out, painted at once: `(1, 3, h, w)`; a start for the optimiser.

        It has as much of the style as the weights ask for, whatever set them.
        """
        with threads(self.settings.threads):
            return self._fast.painted(
                layout.content, self._parts(layout), self.settings.effective_strength
            )

    @property
    def _strength(self) -> float:
        return 0.5 if self.settings.strength is None else self.settings.strength

    def _parts(self, layout: Layout) -> list[Part]:
        """The styles as the network knows them, and where each is painted."""
        device = self._fast.device
        return [
            Part(
                self._code(r.styles, max(layout.size)),
                None if r.mask is None else r.mask.to(device),
            )
            for r in layout.regions
        ]

    def _code(self, styles: Styles, size: int) -> StyleCode:
        """What the network knows of styles for a photo whose long side has `size` px."""
        key = (styles, size)
        if key not in self._codes:
            while len(self._codes) >= KEPT:
                del self._codes[next(iter(self._codes))]
            side = max(1, round(styles.scale * size))
            codes = [
                self._fast.style(picture, size=side, mask=mask)
                for picture, mask in zip(styles.pictures, styles.masks, strict=True)
            ]
            code = StyleCode.blended(codes, styles.weights)
            if styles.coarse:
                code = code.with_coarse(self._code(styles.coarse, size))
            self._codes[key] = code
        return self._codes[key]
