"""What all tests share: the number of threads, and two drawn pictures."""

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
