"""The painted picture at the photo's size: contours, strokes, noise, strips, odd sizes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from impasto import upsample
from impasto.pyramid import resample, resample_picture
from impasto.upsample import guided_upsample

DARK, LIGHT = torch.tensor([0.2, 0.3, 0.6]), torch.tensor([0.9, 0.7, 0.3])


def photo_of(luminance: Tensor, noise: float = 0.0) -> NDArray[np.uint8]:
    """Grey `(H, W)` in [0, 1] with film noise of that σ, as a photo."""
    grain = torch.randn(luminance.shape, generator=torch.Generator().manual_seed(1))
    grey = (luminance + noise * grain).clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.repeat(grey.numpy()[..., None], 3, 2)


def strokes(h: int, w: int) -> Tensor:
    """A painting-like texture: curved strokes 2 to 4 px wide in changing colours."""
    y, x = torch.meshgrid(torch.arange(h) + 0.0, torch.arange(w) + 0.0, indexing="ij")
    phase = x * 1.3 + 8 * torch.sin(y / 17)
    waves = [torch.sin(phase), torch.sin(0.9 * phase + y / 5), torch.sin(y * 1.5 + x / 9)]
    return torch.stack(waves)[None] * 0.25 + 0.5


def step(contrast: float, times: int = 8, shape: tuple[int, int] = (48, 64)) -> Tensor:
    """Luminance `(H, W)`: dark, then light from a column between two working px."""
    H, W = (side * times for side in shape)
    grey = torch.full((H, W), 0.35)
    grey[:, W // 2 + 3 :] += contrast
    return grey


def painted_step(luminance: Tensor, contrast: float, times: int = 8) -> Tensor:
    """The step in two colours at the working size."""
    H, W = luminance.shape
    light = ((luminance - 0.35) / contrast)[None, None]
    colours = DARK.view(1, 3, 1, 1) * (1 - light) + LIGHT.view(1, 3, 1, 1) * light
    return F.interpolate(colours, (H // times, W // times), mode="area")


def shrunk(result: NDArray[np.uint8], painted: Tensor) -> Tensor:
    x = torch.tensor(result, dtype=torch.float32).permute(2, 0, 1)[None] / 255
    return resample(x, (painted.shape[3], painted.shape[2]))


def difference(result: NDArray[np.uint8], painted: Tensor) -> float:
    """Mean absolute difference at the working size, of 255."""
    return float((shrunk(result, painted) - painted).abs().mean() * 255)


def plain(painted: Tensor, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What bicubic enlarging gives."""
    H, W = photo.shape[:2]
    x = resample_picture(painted, (W, H))[0].mul(255).round().to(torch.uint8)
    return x.permute(1, 2, 0).numpy()


def rise(picture: NDArray[np.uint8]) -> int:
    """Columns between 10% and 90% of the red step."""
    row = picture[:, :, 0].mean(0)
    low, high = row[len(row) // 4], row[3 * len(row) // 4]
    level = (row - low) / (high - low)
    return int(((level > 0.1) & (level < 0.9)).sum())


def scene(H: int, W: int) -> Tensor:
    """Luminance `(H, W)` of a disc and a slanting line on a gradient."""
    y, x = torch.meshgrid(torch.arange(H) / H, torch.arange(W) / W, indexing="ij")
    grey = 0.3 + 0.2 * x
    grey = torch.where((x - 0.4) ** 2 + (y - 0.5) ** 2 < 0.09, 0.8, grey)
    return torch.where((y - 0.7 * x - 0.1).abs() < 0.01, 0.05, grey)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ((32, 43), (33, 43)),  # hardly larger
        ((32, 43), (47, 64)),
        ((48, 64), (301, 401)),
        ((37, 53), (370, 529)),
        ((32, 100), (40, 500)),  # stretched
        ((1, 7), (3, 50)),
        ((7, 1), (70, 1)),
        ((1, 1), (9, 5)),
        ((32, 32), (32, 95)),  # one side as it is
    ],
)
def test_size_range_and_type(small: tuple[int, int], large: tuple[int, int]) -> None:
    painted = torch.rand((1, 3, *small), generator=torch.Generator().manual_seed(0))
    result = guided_upsample(painted, photo_of(scene(*large), 0.03))
    assert result.shape == (*large, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous


def test_equal_size_is_the_painted_picture_rounded() -> None:
    painted = strokes(40, 50)
    before = painted.clone()
    result = guided_upsample(painted, photo_of(scene(40, 50)))
    expected = (painted[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(result, expected)
    assert torch.equal(painted, before)


def test_a_photo_thinner_than_the_working_size_is_resampled() -> None:
    painted = strokes(32, 8000)
    photo = photo_of(scene(3, 8000))
    np.testing.assert_array_equal(guided_upsample(painted, photo), plain(painted, photo))


def test_neither_argument_is_changed() -> None:
    painted, photo = strokes(32, 40), photo_of(scene(160, 200))
    before, seen = painted.clone(), photo.copy()
    photo.flags.writeable = False  # as Pillow gives it
    guided_upsample(painted, photo)
    assert torch.equal(painted, before)
    np.testing.assert_array_equal(photo, seen)


@pytest.mark.parametrize(("contrast", "columns"), [(0.15, 4), (0.3, 2), (0.6, 2)])
def test_contours_are_sharp(contrast: float, columns: int) -> None:
    luminance = step(contrast)
    painted, photo = painted_step(luminance, contrast), photo_of(luminance, 0.02)
    assert rise(plain(painted, photo)) >= 8
    assert rise(guided_upsample(painted, photo)) <= columns


def test_contours_are_where_the_photo_has_them() -> None:
    luminance = step(0.4)
    result = guided_upsample(painted_step(luminance, 0.4), photo_of(luminance, 0.02))
    light = result[..., 0] > 255 * float(DARK[0] + LIGHT[0]) / 2
    contour = light.shape[1] - light.sum(1)
    assert np.abs(contour - (light.shape[1] // 2 + 3)).max() <= 1


def test_no_overshoot_beside_contours() -> None:
    luminance = step(0.4)
    result = guided_upsample(painted_step(luminance, 0.4), photo_of(luminance, 0.02))
    for channel, ends in enumerate(zip(DARK, LIGHT, strict=True)):
        low, high = sorted(float(end) * 255 for end in ends)
        assert result[..., channel].min() >= low - 1
        assert result[..., channel].max() <= high + 1


def test_contours_do_not_depend_on_their_direction() -> None:
    luminance = scene(320, 320)
    painted = resample_picture(luminance.expand(1, 3, -1, -1), (40, 40))
    result = guided_upsample(painted, photo_of(luminance)).astype(int)
    turned = guided_upsample(painted.mT, photo_of(luminance.mT)).transpose(1, 0, 2).astype(int)
    assert np.abs(result - turned).max() <= 2


def test_shrunk_again_it_is_the_painted_picture() -> None:
    painted, photo = strokes(96, 128), photo_of(scene(600, 800), 0.03)
    assert difference(guided_upsample(painted, photo), painted) <= 1
    assert difference(plain(painted, photo), painted) > 2.5


def test_strokes_survive() -> None:
    painted, photo = strokes(96, 128), photo_of(scene(600, 800), 0.03)
    result = shrunk(guided_upsample(painted, photo), painted)
    fine, expected = (x - F.avg_pool2d(x, 5, 1, 2) for x in (result, painted))
    assert float((fine * expected).sum() / (fine.norm() * expected.norm())) > 0.98
    assert float(fine.norm() / expected.norm()) == pytest.approx(1, abs=0.05)


def test_strokes_have_edges_not_pixels() -> None:
    """A slanting stroke enlarged 8 times: steeper than bicubic, and straight."""
    y, x = torch.meshgrid(torch.arange(48) + 0.0, torch.arange(64) + 0.0, indexing="ij")
    light = (x - 0.4 * y - 22).abs() < 4
    painted = torch.where(light, 0.8, 0.2).expand(1, 3, -1, -1).contiguous()  # jagged
    photo = photo_of(torch.full((384, 512), 0.5))
    flank, straight = [], []
    for result in (guided_upsample(painted, photo), plain(painted, photo)):
        inner = result[64:-64, :, 0].astype(float)
        flank.append(((inner > 75) & (inner < 180)).sum(1).mean())
        first = (inner > 128).argmax(1)
        fit = np.polyval(np.polyfit(np.arange(len(first)), first, 1), np.arange(len(first)))
        straight.append(float(np.abs(first - fit).mean()))
    assert flank[0] < 0.7 * flank[1]
    assert straight[0] < 0.9 * straight[1]


def test_noise_and_texture_stay_in_the_photo() -> None:
    painted = torch.tensor([0.3, 0.5, 0.6]).view(1, 3, 1, 1).expand(1, 3, 48, 64)
    result = guided_upsample(painted, photo_of(torch.full((384, 512), 0.5), 0.08))
    assert np.ptp(result, (0, 1)).max() <= 1  # 76.5 may be rounded either way

    painted = strokes(48, 64)
    clean = guided_upsample(painted, photo_of(torch.full((384, 512), 0.5))).astype(float)
    grainy = guided_upsample(painted, photo_of(torch.full((384, 512), 0.5), 0.03))
    assert math.sqrt(np.square(grainy - clean).mean()) < 1.5


def test_strip_height_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    painted, photo = strokes(60, 80), photo_of(scene(307, 411), 0.03)
    results = []
    for pixels in (1, 20_000, 1 << 24):
        monkeypatch.setattr(upsample, "_STRIP", pixels)
        results.append(guided_upsample(painted, photo).astype(int))
    assert np.abs(results[0] - results[2]).max() <= 1
    assert np.abs(results[1] - results[2]).max() <= 1


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_photo_of_one_colour_leaves_the_paint_in_its_place(level: float) -> None:
    painted = strokes(40, 60)
    photo = photo_of(torch.full((200, 300), level))
    assert difference(guided_upsample(painted, photo), painted) <= 1


def test_a_tall_strip() -> None:
    painted = strokes(800, 32)
    result = guided_upsample(painted, photo_of(scene(2000, 32)))
    assert result.shape == (2000, 32, 3)
    assert difference(result, painted) <= 3


def test_rows_are_those_of_the_whole_enlarged() -> None:
    x = torch.rand((1, 1, 11, 7), generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(x, (47, 31), mode="bilinear", align_corners=False)
    rows = upsample._rows_of(x, -3, 50, (31, 47))
    torch.testing.assert_close(rows, F.pad(whole, (0, 0, 3, 3), mode="replicate"))


def test_shift_against_a_sum_over_places() -> None:
    generator = torch.Generator().manual_seed(0)
    sharp = torch.rand((1, 1, 5, 6), generator=generator) * 0.3
    around = torch.rand((1, 1, 5 + 8, 6 + 12), generator=generator) * 0.3
    shift = upsample._shift(sharp, around, (3.0, 2.0))
    for row, column in ((0, 0), (2, 3), (4, 5)):
        total, sums = 1e-3, [0.0, 0.0]
        for radius in (2 / 3, 4 / 3, 2.0):
            for turn in range(8):
                x, y = (radius * part(math.tau * turn / 8) for part in (math.cos, math.sin))
                there = around[0, 0, row + 4 + round(2 * y), column + 6 + round(3 * x)]
                unlike = float(there - sharp[0, 0, row, column]) / upsample._TOLERANCE
                weight = radius * math.exp(-(radius**2) / 2 - unlike**2 / 2)
                total, sums = total + weight, [sums[0] + weight * x, sums[1] + weight * y]
        for axis in (0, 1):
            assert float(shift[0, axis, row, column]) == pytest.approx(sums[axis] / total, abs=1e-5)
