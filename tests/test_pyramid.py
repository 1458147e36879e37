"""Sizes and resampling: the rule for the working size, the scales, the steps, Pillow as oracle."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from impasto.images import Picture
from impasto.pyramid import (
    COARSEST,
    SHORT_SIDE,
    Size,
    cover,
    divide_steps,
    noise,
    resample,
    resample_picture,
    scale_sizes,
    shrink,
    working_size,
)

sides = st.integers(1, 100_000)


def pillow(plane: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """Pillow's antialiased bicubic of a `(H, W)` plane of floats."""
    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC))


# The working size


@pytest.mark.parametrize(
    ("photo", "size", "expected"),
    [
        ((4000, 3000), 512, (512, 384)),
        ((3000, 4000), 512, (384, 512)),
        ((4000, 3000), None, (4000, 3000)),
        ((512, 512), 512, (512, 512)),
        ((400, 300), 512, (400, 300)),  # never enlarged
        ((513, 100), 512, (512, 100)),
        ((1000, 667), 512, (512, 342)),
        ((12800, 512), 512, (800, 32)),  # a scroll keeps a short side of 32 px
        ((512, 12800), 512, (32, 800)),
        ((8000, 3), 512, (8000, 32)),  # what is thinner is widened
        ((100_000, 10), 512, (8192, 32)),  # and cut off at 512² px
        ((10, 100_000), 512, (32, 8192)),
        ((1, 1), 512, (32, 32)),
        ((20, 60), 512, (32, 60)),
        ((4000, 3000), 16, (43, 32)),
        ((8000, 3), None, (8000, 32)),
    ],
)
def test_the_working_size(photo: Size, size: int | None, expected: Size) -> None:
    w, h = working_size(photo, size)
    if size is not None and size < SHORT_SIDE:  # below the least there is only the least
        expected = (SHORT_SIDE, SHORT_SIDE)
    assert (w, h) == expected


@given(st.tuples(sides, sides), st.none() | st.integers(1, 10_000))
def test_any_working_size_keeps_the_rules(photo: Size, size: int | None) -> None:
    W, H = photo
    w, h = working_size(photo, size)
    assert min(w, h) >= SHORT_SIDE
    assert w <= max(W, SHORT_SIDE)  # never enlarged, but for the least
    assert h <= max(H, SHORT_SIDE)
    assert working_size((H, W), size) == (h, w)
    if size is None:
        assert (w, h) == (max(W, SHORT_SIDE), max(H, SHORT_SIDE))
        return
    assert w * h <= max(size, SHORT_SIDE) ** 2
    if min(w, h) > SHORT_SIDE:  # no strip: the shape is kept, and the long side is as asked
        assert max(w, h) == min(size, max(photo))
        scale = max(w, h) / max(photo)
        assert abs(w - W * scale) <= 0.51
        assert abs(h - H * scale) <= 0.51


# Scales


@pytest.mark.parametrize(
    ("finest", "scales", "expected"),
    [
        ((512, 384), 0, [(128, 96), (256, 192), (512, 384)]),
        ((512, 384), 1, [(512, 384)]),
        ((512, 384), 2, [(256, 192), (512, 384)]),
        ((512, 384), 9, [(64, 48), (128, 96), (256, 192), (512, 384)]),
        ((100, 80), 0, [(100, 80)]),
        ((800, 32), 0, [(800, 32)]),
        ((301, 203), 2, [(150, 102), (301, 203)]),
    ],
)
def test_the_scales(finest: Size, scales: int, expected: list[Size]) -> None:
    assert scale_sizes(finest, scales) == expected


@given(st.integers(SHORT_SIDE, 20_000), st.integers(SHORT_SIDE, 20_000), st.integers(0, 12))
def test_any_scales_halve_down_to_the_least(w: int, h: int, scales: int) -> None:
    sizes = scale_sizes((w, h), scales)
    assert sizes[-1] == (w, h)
    assert 1 <= len(sizes) <= (scales or 20)
    for number, size in enumerate(reversed(sizes)):
        assert min(size) >= SHORT_SIDE
        assert abs(size[0] - w / 2**number) <= 0.5
        assert abs(size[1] - h / 2**number) <= 0.5
    at_the_least = min(w, h) / 2 ** len(sizes) < SHORT_SIDE
    if scales:
        assert len(sizes) == scales or at_the_least
    else:
        assert max(sizes[0]) <= COARSEST * math.sqrt(2) + 1 or at_the_least
        assert max(sizes[0]) >= min(max(w, h), COARSEST / math.sqrt(2) - 1)


# Steps


@given(st.integers(0, 5000), st.lists(st.floats(0.01, 100), min_size=1, max_size=12))
def test_no_step_is_lost_or_owed(steps: int, shares: list[float]) -> None:
    parts = divide_steps(steps, shares)
    assert len(parts) == len(shares)
    assert sum(parts) == steps
    assert min(parts) >= (1 if steps >= len(shares) else 0)
    assert steps >= len(shares) or max(parts) <= 1


def test_the_steps_are_divided_as_asked() -> None:
    assert divide_steps(300, [1, 1, 1]) == [100, 100, 100]
    assert divide_steps(100, [3, 1]) == [75, 25]
    assert divide_steps(10, [1, 1000]) == [1, 9]
    assert divide_steps(3, [1, 1000, 1]) == [1, 1, 1]
    assert divide_steps(1, [5]) == [1]


@given(st.integers(100, 5000), st.lists(st.floats(0.5, 1), min_size=1, max_size=8))
def test_every_part_is_near_its_share(steps: int, shares: list[float]) -> None:
    for part, share in zip(divide_steps(steps, shares), shares, strict=True):
        assert abs(part - steps * share / sum(shares)) <= 1.001


# Resampling


def test_a_picture_of_the_right_size_is_not_touched(photo: Picture) -> None:
    x = photo.tensor()
    assert resample(x, (96, 64)) is x
    assert resample_picture(x, (96, 64)) is x


@pytest.mark.parametrize("size", [(48, 32), (31, 50), (200, 130), (96, 20), (1, 1)])
def test_resampling_is_antialiased_bicubic_as_in_pillow(photo: Picture, size: Size) -> None:
    x = photo.tensor()
    found = resample(x, size)
    assert found.shape == (1, 3, size[1], size[0])
    for c in range(3):
        expected = pillow(x[0, c].numpy(), size)
        np.testing.assert_allclose(found[0, c].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("size", [(48, 32), (31, 50), (200, 130), (5, 7)])
def test_resampling_keeps_the_mean(photo: Picture, size: Size) -> None:
    x = photo.tensor()
    means = resample(x, size).mean((2, 3)) - x.mean((2, 3))
    assert float(means.abs().max()) < 0.006
    flat = torch.full((1, 3, 64, 96), 0.37)
    torch.testing.assert_close(
        resample(flat, size), torch.full((1, 3, size[1], size[0]), 0.37), rtol=0, atol=1e-6
    )


def test_only_pictures_are_kept_in_range() -> None:
    edge = torch.zeros(1, 3, 16, 16)
    edge[..., 8:] = 1
    raw, kept = resample(edge, (32, 32)), resample_picture(edge, (32, 32))
    assert float(raw.min()) < -0.01
    assert float(raw.max()) > 1.01
    torch.testing.assert_close(kept, raw.clamp(0, 1))


@pytest.mark.parametrize("size", [(48, 32), (33, 21), (96, 64), (50, 80)])
def test_shrinking_a_picture_is_resampling_its_pixels_as_in_pillow(
    photo: Picture, size: Size
) -> None:
    found = shrink(photo, size)
    assert found.shape == (1, 3, size[1], size[0])
    assert found.dtype is torch.float32
    assert found.is_contiguous()
    expected = np.asarray(photo.pil().resize(size, Image.Resampling.BICUBIC)) / 255
    difference = np.abs(found[0].permute(1, 2, 0).numpy() - expected)
    assert difference.max() < 2.01 / 255
    assert (difference > 1.01 / 255).mean() < 0.001  # seldom more than one level


@pytest.mark.parametrize("size", [(48, 32), (33, 21), (96, 64)])
def test_shrinking_costs_no_more_than_the_rounding(photo: Picture, size: Size) -> None:
    difference = shrink(photo, size) - resample(photo.tensor(), size).clamp(0, 1)
    assert float(difference.abs().max()) < 1.5 / 255  # rounded after each of two directions
    assert float(difference.mean().abs()) < 0.1 / 255  # up as often as down


def test_shrinking_leaves_the_original_alone(photo: Picture) -> None:
    before = photo.pixels.copy()
    shrink(photo, (96, 64)).zero_()
    shrink(photo, (20, 20)).zero_()
    assert np.array_equal(photo.pixels, before)


# Cover and noise


def stripes(*colors: float, width: int = 8, height: int = 8) -> Tensor:
    """Upright stripes of the given greys, `(1, 3, height, width · n)`."""
    row = torch.tensor(colors).repeat_interleave(width)
    return row.expand(1, 3, height, -1).clone()


def test_cover_takes_the_middle_of_a_wide_picture() -> None:
    x = stripes(0.1, 0.5, 0.9)  # 24×8
    torch.testing.assert_close(cover(x, (8, 8)), torch.full((1, 3, 8, 8), 0.5))
    torch.testing.assert_close(cover(x, (4, 4)), torch.full((1, 3, 4, 4), 0.5))


def test_cover_takes_the_middle_of_a_tall_picture() -> None:
    x = stripes(0.1, 0.5, 0.9).transpose(2, 3)  # 8×24
    torch.testing.assert_close(cover(x, (16, 16)), torch.full((1, 3, 16, 16), 0.5))


@pytest.mark.parametrize("size", [(96, 64), (48, 32), (192, 128)])
def test_cover_of_the_same_shape_cuts_nothing(photo: Picture, size: Size) -> None:
    torch.testing.assert_close(cover(photo.tensor(), size), resample_picture(photo.tensor(), size))


@given(*[st.integers(1, 40)] * 4)
def test_cover_fits_any_size(w: int, h: int, W: int, H: int) -> None:
    x = torch.full((1, 3, h, w), 0.25)
    torch.testing.assert_close(cover(x, (W, H)), torch.full((1, 3, H, W), 0.25))


def test_noise_is_uniform_and_depends_on_the_seed_alone() -> None:
    def draw(seed: int) -> Tensor:
        return noise((120, 80), torch.Generator().manual_seed(seed))

    x = draw(4)
    assert x.shape == (1, 3, 80, 120)
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    assert float(x.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(x.var()) == pytest.approx(1 / 12, abs=0.003)
    torch.manual_seed(99)
    assert torch.equal(x, draw(4))
    assert not torch.equal(x, draw(5))
