"""What all tests share: the number of threads, two drawn pictures, and the program to run."""

from pathlib import Path

import pytest
import torch

import pictures
from impasto.images import Picture

# The pictures here are so small that threads cost more than they bring, above all on busy cores.
torch.set_num_threads(1)


@pytest.fixture
def photo() -> Picture:
    """96×64 px, like a photo."""
    return Picture(pictures.photo(96, 64))


@pytest.fixture
def painting() -> Picture:
    """80×64 px, like a painting."""
    return Picture(pictures.painting(80, 64))


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> pictures.Program:
    """The program, in a folder that holds `photo.png` (40×32) and `style.png` (48×48)."""
    pictures.save(tmp_path / "photo.png", pictures.photo())
    pictures.save(tmp_path / "style.png", pictures.painting())
    return pictures.Program(tmp_path, monkeypatch, capsys)
