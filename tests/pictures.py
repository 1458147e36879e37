"""Pictures that the tests draw for themselves, and a way to run the program in this process."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from impasto.cli import main
from impasto.images import Picture
from impasto.settings import Settings

Array = np.ndarray[Any, np.dtype[np.uint8]]


def photo(width: int = 40, height: int = 32, seed: int = 0) -> Array:
    """Smooth light with a dark disc and a bright bar, (H, W, 3): content with edges."""
    y, x = np.mgrid[0:height, 0:width]
    x, y = (x + 0.5) / width, (y + 0.5) / height
    rng = np.random.default_rng(seed)
    cx, cy, r = rng.uniform(0.3, 0.7, 3)
    pixels = np.stack((60 + 150 * x, 70 + 120 * y, 200 - 90 * x * y), axis=-1)
    pixels[(x - cx) ** 2 + (y - cy) ** 2 < (r / 2) ** 2] = (40, 30, 60)
    pixels[np.abs(x + y - 1.5) < 0.08] = (240, 220, 180)
    return np.asarray(np.rint(pixels), np.uint8)


def painting(width: int = 48, height: int = 48, seed: int = 0) -> Array:
    """Slanted stripes in three strong colours with some grain, (H, W, 3): a style."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    colors = rng.integers(0, 256, (3, 3))
    slant, pitch = rng.uniform(0.3, 1.5), rng.uniform(3, 6)
    pixels = colors[((x + slant * y) // pitch).astype(int) % 3]
    grain = rng.normal(0, 12, (height, width, 1))
    return np.asarray(np.clip(pixels + grain, 0, 255), np.uint8)


def transparency(width: int = 40, height: int = 32) -> Array:
    """An alpha channel with every kind of value, (H, W)."""
    return np.linspace(0, 255, width * height).astype(np.uint8).reshape(height, width)


def save(path: Path, pixels: Array, alpha: Array | None = None, **options: Any) -> Path:
    """Writes a picture with Pillow alone."""
    image = Image.fromarray(pixels if alpha is None else np.dstack((pixels, alpha)))
    image.save(path, **options)
    return path


def load(path: Path) -> Array:
    """Reads a picture with Pillow alone: (H, W, 3) or (H, W, 4)."""
    with Image.open(path) as image:
        image.load()
        return np.array(image)


def psnr(a: Array, b: Array) -> float:
    """How alike two pictures are, dB."""
    error = float(np.mean((a.astype(float) - b.astype(float)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def as_picture(pixels: Array, alpha: Array | None = None) -> Picture:
    return Picture(pixels, alpha)


class Run(NamedTuple):
    """What a run of the program came to."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that says what is wrong, for runs that have to fail with just that."""
        lines = [line for line in self.err.splitlines() if line != "getting ready"]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("impasto: ")
        return lines[0]


class Program:
    """Runs `impasto` in this process, in a folder of its own."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(folder)

    def __call__(self, *arguments: str | Path) -> Run:
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["impasto", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        code = stop.value.code
        assert isinstance(code, int)
        return Run(code, *self._capsys.readouterr())

    def good(self, *arguments: str | Path) -> Run:
        """As a call, for runs that have to succeed."""
        run = self(*arguments)
        assert run.code == 0, run.err
        return run

    def bad(self, *arguments: str | Path) -> str:
        """As a call, for runs that have to fail; gives the one line that says why."""
        run = self(*arguments)
        assert run.code == 2, run.err
        assert run.out == ""
        return run.complaint


UNSMOOTHED = {
    field.name: 0.0 for field in dataclasses.fields(Settings) if field.name.endswith("_weight")
}
"""Options that leave content and style alone in the loss."""

UNSMOOTHED_FLAGS = [text for name in UNSMOOTHED for text in (f"--{name.replace('_', '-')}", "0")]

SMALL: Sequence[str] = ("--size", "40", "--steps", "5", "--threads", "1")
"""Flags that make a job quick."""
