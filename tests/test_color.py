"""Colours: OKLab by its published values, the gamut, luminance transfer, recolouring."""

import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from impasto import color
from impasto.color import (
    MAX_GAIN,
    Recoloring,
    from_oklab,
    histogram_recoloring,
    into_gamut,
    keep_chroma,
    linear_recoloring,
    luminance,
    luminance_recoloring,
    recolor,
    to_oklab,
    to_srgb,
    with_chroma_of,
)
from pictures import Array, painting, photo

Fit = Callable[[Array, Array], Recoloring]
FITS: list[Fit] = [linear_recoloring, histogram_recoloring]

PUBLISHED = {
    (1.0, 1.0, 1.0): (1.0, 0.0, 0.0),
    (1.0, 0.0, 0.0): (0.62796, 0.22486, 0.12585),
    (0.0, 1.0, 0.0): (0.86644, -0.23389, 0.17950),
    (0.0, 0.0, 1.0): (0.45201, -0.03246, -0.31153),
    (0.5, 0.5, 0.5): (0.59818, 0.0, 0.0),
    (0.0, 0.0, 0.0): (0.0, 0.0, 0.0),
}
"""sRGB and OKLab, as CSS Color 4 and Ottosson's own code have it."""


def tensor(pixels: Array, dtype: torch.dtype = torch.float32) -> Tensor:
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return torch.tensor(planes, dtype=dtype)[None] / 255


def colors(lab: Tensor) -> NDArray[np.float64]:
    """`(3, n)`."""
    return np.asarray(lab.double().transpose(0, 1).flatten(1).numpy())


def random_picture(seed: int, height: int = 24, width: int = 32) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mild(seed: int, size: tuple[int, int] = (60, 80)) -> Array:
    """Correlated colours well within the gamut, in any direction."""
    rng = np.random.default_rng(seed)
    mix = np.eye(3) + rng.uniform(-0.4, 0.4, (3, 3))
    noise = rng.normal(0, 12, (*size, 3)) @ mix + rng.uniform(110, 150, 3)
    return np.asarray(np.clip(np.rint(noise), 0, 255), np.uint8)


def flat(*rgb: int, size: tuple[int, int] = (6, 5)) -> Array:
    return np.full((*size, 3), rgb, np.uint8)


def grey(seed: int) -> Array:
    return np.repeat(random_picture(seed)[..., :1], 3, 2)


def one_red_pixel() -> Array:
    pixels = grey(5)
    pixels[3, 4] = 255, 0, 0
    return pixels


def wide(scale: float, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """OKLab of random colours, their chroma scaled and lightness beyond both ends."""
    generator = torch.Generator().manual_seed(seed)
    lab = to_oklab(torch.rand((2, 3, 20, 30), generator=generator, dtype=dtype))
    lab[:, 1:] *= scale
    lab[:, :1] = lab[:, :1] * 1.2 - 0.1
    return lab


DEGENERATE = {
    "one pixel": flat(200, 30, 90, size=(1, 1)),
    "black": flat(0, 0, 0),
    "white": flat(255, 255, 255),
    "flat": flat(10, 200, 60),
    "grey": grey(1),
    "two": np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8),
    "red in grey": one_red_pixel(),
    "noise": random_picture(2),
    "photo": photo(),
    "painting": painting(),
}


# OKLab


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_published_values(dtype: torch.dtype) -> None:
    for rgb, lab in PUBLISHED.items():
        x = torch.tensor(rgb, dtype=dtype).view(1, 3, 1, 1)
        found = to_oklab(x)
        assert found.dtype is dtype
        assert found.shape == (1, 3, 1, 1)
        assert found.flatten().tolist() == pytest.approx(lab, abs=6e-6)
        back = from_oklab(torch.tensor(lab, dtype=dtype).view(1, 3, 1, 1))
        assert back.flatten().tolist() == pytest.approx(rgb, abs=3e-4)  # of five decimals


def slow_from_oklab(L: float, a: float, b: float) -> list[float]:
    """Ottosson's `oklab_to_linear_srgb`, with his rounded inverses, and IEC 61966-2-1."""
    roots = (
        L + 0.3963377774 * a + 0.2158037573 * b,
        L - 0.1055613458 * a - 0.0638541728 * b,
        L - 0.0894841775 * a - 1.2914855480 * b,
    )
    one, two, three = (root**3 for root in roots)
    linear = (
        4.0767416621 * one - 3.3077115913 * two + 0.2309699292 * three,
        -1.2684380046 * one + 2.6097574011 * two - 0.3413193965 * three,
        -0.0041960863 * one - 0.7034186147 * two + 1.7076147010 * three,
    )
    return [12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in linear]


def test_the_way_back_is_the_published_one_out_of_gamut_too() -> None:
    lab = wide(2, dtype=torch.float64)[:1, :, :5]
    expected = [slow_from_oklab(*point) for point in lab[0].flatten(1).T.tolist()]
    found = from_oklab(lab)[0].flatten(1).T
    assert found.min() < 0
    assert found.max() > 1
    torch.testing.assert_close(found, torch.tensor(expected).to(found), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 1e-12)], ids=["single", "double"]
)
def test_there_and_back(dtype: torch.dtype, bound: float) -> None:
    """The faces of the cube of colours are the hard part: a channel is 0 or 1."""
    levels = torch.arange(256, dtype=dtype) / 255
    plane = torch.cartesian_prod(levels, levels)
    for channel in range(3):
        for level in (0.0, 0.5, 1.0):
            sides = list(plane.T)
            sides.insert(channel, torch.full_like(sides[0], level))
            x = torch.stack(sides)[None]
            assert float((from_oklab(to_oklab(x)) - x).abs().max()) < bound


def test_grey_has_no_chroma_and_linear_light_is_lightness_cubed() -> None:
    levels = torch.linspace(0, 1, 400, dtype=torch.float64)
    L, a, b = to_oklab(levels.expand(1, 3, -1))[0]
    assert float(torch.maximum(a.abs(), b.abs()).max()) < 1e-7
    linear = torch.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    torch.testing.assert_close(L**3, linear, rtol=0, atol=1e-7)
    assert bool((L.diff() > 0).all())


# The gamut


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_fits_stays_bit_by_bit(dtype: torch.dtype) -> None:
    for seed in range(5):
        pixels = random_picture(seed)
        pixels[0], pixels[1, :, 1], pixels[2, :, 2] = 255, 0, 255
        lab = to_oklab(tensor(pixels, dtype))
        assert torch.equal(into_gamut(lab), lab)
        beyond = wide(2, seed, dtype)
        unclamped = from_oklab(beyond)
        inside = ((unclamped >= 0) & (unclamped <= 1)).all(1)
        assert 0.05 < float(inside.float().mean()) < 0.9
        found = into_gamut(beyond.clone())
        assert torch.equal(found.movedim(1, -1)[inside], beyond.movedim(1, -1)[inside])
        assert found.dtype is dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.5, 4.0, 50.0])
def test_the_others_keep_lightness_and_hue_and_as_much_chroma_as_fits(
    scale: float, dtype: torch.dtype
) -> None:
    for seed in range(3):
        lab = wide(scale, seed, dtype)
        before = lab.clone()
        found = into_gamut(lab)
        assert torch.equal(lab, before)
        shown = from_oklab(found)
        assert float(shown.min()) > -1e-5
        assert float(shown.max()) < 1 + 1e-5
        assert torch.equal(found[:, 0], lab[:, 0].clamp(0, 1))
        (a, b), (p, q) = lab[:, 1:].unbind(1), found[:, 1:].unbind(1)
        assert float((a * q - b * p).abs().max()) < 1e-6 * scale  # parallel, …
        assert float((a * p + b * q).min()) >= 0  # … and not turned round
        share = torch.hypot(p, q) / torch.hypot(a, b)
        assert float(share.max()) <= 1 + 1e-6
        reduced = (share < 1 - 1e-6) & (lab[:, 0] > 0.02) & (lab[:, 0] < 0.98)
        assert bool(reduced.any())
        more = found.clone()
        more[:, 1:] += lab[:, 1:] * 2**-11
        missed = ((from_oklab(more) < 0) | (from_oklab(more) > 1)).any(1)
        assert bool(missed[reduced].all())


def test_beyond_black_and_white() -> None:
    lab = torch.tensor([[-0.2, 0.1, 0.1], [1.3, -0.1, 0.2], [1.0, 0.3, 0.0], [0.0, 0.0, 0.4]])
    found = to_srgb(lab.T.reshape(1, 3, 2, 2))[0].flatten(1).T
    expected = torch.tensor([[0.0] * 3, [1.0] * 3, [1.0] * 3, [0.0] * 3])
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-4)


# Luminance transfer


def test_lightness_of_the_one_and_chroma_of_the_other() -> None:
    for seed in range(8):
        painted, other = tensor(random_picture(seed)), tensor(random_picture(seed + 50))
        found = with_chroma_of(painted, other)
        assert float(found.min()) >= 0
        assert float(found.max()) <= 1
        wanted = torch.cat([to_oklab(painted)[:, :1], to_oklab(other)[:, 1:]], 1)
        error = (to_oklab(found) - wanted).abs()
        assert float(error[:, 0].max()) < 1e-3
        unclamped = from_oklab(wanted)
        inside = ((unclamped >= 0) & (unclamped <= 1)).all(1)
        assert bool(inside.any())
        assert float(error.amax(1)[inside].max()) < 1e-5  # far below 1/255


def test_chroma_survives_8_bit_where_it_is_not_dark() -> None:
    for seed in range(4):
        painted, other = mild(seed), mild(seed + 50)
        before, after = (to_oklab(tensor(p)) for p in (other, keep_chroma(painted, other)))
        assert float((before - after)[:, 1:].abs().max()) < 1 / 255
        change = (to_oklab(tensor(painted)) - after)[:, 0]
        assert float(change.abs().max()) < 1 / 255


@pytest.mark.parametrize("name", DEGENERATE)
def test_a_picture_with_its_own_chroma_is_itself(name: str) -> None:
    pixels = DEGENERATE[name]
    found = keep_chroma(pixels, pixels)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)
    x = tensor(pixels)
    torch.testing.assert_close(with_chroma_of(x, x), x, rtol=0, atol=1e-5)


def test_pictures_of_one_size() -> None:
    with pytest.raises(ValueError, match="of one size"):
        keep_chroma(photo(40, 32), photo(32, 40))


def test_luminance_is_grey_and_as_light() -> None:
    x = torch.cat([tensor(random_picture(seed)) for seed in range(3)])
    found = luminance(x)
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[:, 0], found[:, 2])
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    torch.testing.assert_close(to_oklab(found)[:, 0], to_oklab(x)[:, 0], rtol=0, atol=1e-6)
    torch.testing.assert_close(luminance(found), found, rtol=0, atol=2e-6)


def spread(x: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of lightness."""
    L = to_oklab(x)[:, 0]
    return float(L.mean()), float(L.std(correction=0))


def test_a_style_with_the_luminance_of_the_photo() -> None:
    for seed in range(5):
        style, other = mild(seed, (30, 20)), mild(seed + 9)
        found = recolor(style, luminance_recoloring(style, other))
        assert found.shape == style.shape
        assert np.array_equal(found[..., 0], found[..., 1])
        assert np.array_equal(found[..., 0], found[..., 2])
        assert spread(tensor(found)) == pytest.approx(spread(tensor(other)), abs=1e-3)
        itself = recolor(style, luminance_recoloring(style, style))
        assert abs(tensor(itself) - luminance(tensor(style))).max() <= 0.5001 / 255


def test_luminance_of_flat_pictures() -> None:
    even, lively = flat(30, 90, 200), random_picture(0)

    def matched(source: Array, target: Array) -> tuple[float, float]:
        return spread(tensor(recolor(source, luminance_recoloring(source, target))))

    assert matched(even, lively) == pytest.approx((spread(tensor(lively))[0], 0), abs=2e-3)
    assert matched(lively, even) == pytest.approx(spread(tensor(even)), abs=2e-3)
    faint = np.asarray(126 + lively // 32, np.uint8)
    wanted = MAX_GAIN * spread(tensor(faint))[1]
    assert matched(faint, lively)[1] == pytest.approx(wanted, rel=2e-2)


# Recolouring, linear


def moments(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return values.mean(1), np.cov(values, bias=True)


def test_linear_gives_mean_and_covariance() -> None:
    for seed in range(10):
        source, target = mild(seed), mild(seed + 100, (31, 57))
        found = linear_recoloring(source, target)(to_oklab(tensor(source)))
        mean, covariance = moments(colors(found))
        wanted, aim = moments(colors(to_oklab(tensor(target))))
        np.testing.assert_allclose(mean, wanted, atol=1e-6)
        np.testing.assert_allclose(covariance, aim, atol=2e-6)


def matrix_of(recoloring: Recoloring) -> NDArray[np.float64]:
    """Of an affine map."""
    points = torch.cat([torch.zeros(3, 1), torch.eye(3)], 1).double()[None, :, :, None]
    images = recoloring(points)[0, :, :, 0].numpy()
    return np.asarray(images[:, 1:] - images[:, :1])


def test_linear_is_the_map_that_moves_colours_least() -> None:
    """Symmetric and positive, as only the Monge-Kantorovitch one is; others turn colours too."""
    for seed in range(10):
        T = matrix_of(linear_recoloring(mild(seed), mild(seed + 100)))
        np.testing.assert_allclose(T, T.T, atol=1e-12)
        gains = np.linalg.eigvalsh(T)
        assert gains.min() > 0
        assert gains.max() < MAX_GAIN * (1 + 1e-9)


def test_linear_limits_the_gain() -> None:
    rng = np.random.default_rng(0)
    nearly = np.clip(grey(3).astype(int) + rng.integers(-1, 2, (24, 32, 3)), 0, 255)
    nearly_grey = nearly.astype(np.uint8)
    recoloring = linear_recoloring(nearly_grey, painting())
    gains = np.linalg.eigvalsh(matrix_of(recoloring))
    assert gains[-1] == pytest.approx(MAX_GAIN)
    assert gains[0] > 0
    noisy, clean = (to_oklab(tensor(p)) for p in (nearly_grey, grey(3)))
    before, after = (noisy - clean).norm(dim=1), (recoloring(noisy) - recoloring(clean)).norm(dim=1)
    assert bool((after <= MAX_GAIN * before + 1e-6).all())


# Recolouring, by histograms


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Between distributions of numbers: the mean difference of their quantiles."""
    ranks = (np.arange(5000) + 0.5) / 5000
    return float(np.abs(np.quantile(one, ranks) - np.quantile(other, ranks)).mean())


def test_histogram_gives_the_distributions() -> None:
    for seed in range(10):
        source, target = mild(seed), mild(seed + 100, (31, 57))
        before, wanted = (to_oklab(tensor(p)) for p in (source, target))
        found = histogram_recoloring(source, target)(before)
        for x, y, z in zip(colors(before), colors(found), colors(wanted), strict=True):
            assert distance(y, z) < 3e-4
            assert distance(y, z) < 0.1 * distance(x, z)
            assert y.mean() == pytest.approx(z.mean(), abs=1e-5)


def test_histogram_by_hand() -> None:
    """As many pixels at as many levels: each level becomes the one of its rank."""
    rng = np.random.default_rng(0)
    levels, others = np.array([60, 100, 140, 180]), np.array([40, 110, 160, 170])
    source, target = (
        np.repeat(rng.permutation(np.repeat(values, 6)).reshape(4, 6, 1), 3, 2).astype(np.uint8)
        for values in (levels, others)
    )
    found = recolor(source, histogram_recoloring(source, target))
    np.testing.assert_array_equal(found, others[np.searchsorted(levels, source)])
    tiled = np.tile(target, (3, 2, 1))
    np.testing.assert_array_equal(recolor(source, histogram_recoloring(source, tiled)), found)


def greys(*levels: int) -> Array:
    return np.repeat(np.array(levels, np.uint8), 3).reshape(1, -1, 3)


def lightness(pixels: Array) -> list[float]:
    return [float(L) for L in to_oklab(tensor(pixels))[0, 0, 0]]


def test_histogram_takes_the_middle_rank_of_equal_values() -> None:
    source, target = greys(80, 80, 170, 170), greys(40, 110, 160, 170)
    found = histogram_recoloring(source, target)(to_oklab(tensor(source)))
    y = lightness(target)
    expected = [(y[0] + y[1]) / 2] * 2 + [(y[2] + y[3]) / 2] * 2
    assert found[0, 0, 0].tolist() == pytest.approx(expected, abs=2e-4)


def test_where_the_curve_is_too_steep_its_ends_meet_halfway() -> None:
    source, target = greys(60, 150, 165), greys(60, 100, 235)
    found = histogram_recoloring(source, target)(to_oklab(tensor(source)))
    x, y = lightness(source), lightness(target)
    excess = (y[2] - y[1]) - MAX_GAIN * (x[2] - x[1])
    assert excess > 0.1
    expected = [y[0], y[1] + excess / 2, y[2] - excess / 2]
    assert found[0, 0, 0].tolist() == pytest.approx(expected, abs=4e-4)


def test_histogram_curves_rise_and_never_too_steeply() -> None:
    ramp = torch.linspace(-0.5, 1.5, 20_001, dtype=torch.float64).expand(1, 3, 1, -1)
    for seed in range(5):
        for source, target in (
            (random_picture(seed), painting(seed=seed)),
            (painting(seed=seed), photo(seed=seed)),
            (grey(seed), random_picture(seed)),
            (one_red_pixel(), painting(seed=seed)),
        ):
            slopes = histogram_recoloring(source, target)(ramp).diff() / ramp.diff()
            assert float(slopes.min()) > -1e-6
            assert float(slopes.max()) < MAX_GAIN * (1 + 1e-6)


def test_noise_in_grey_does_not_become_colour() -> None:
    rng = np.random.default_rng(1)
    noisy = np.clip(grey(3).astype(int) // 2 + 90 + rng.integers(-1, 2, (24, 32, 3)), 0, 255)
    noisy[:3, :3] = 220, 40, 40  # and something with colour, so that it is not grey as a whole
    source = noisy.astype(np.uint8)
    lab = to_oklab(tensor(source))
    found = histogram_recoloring(source, random_picture(4))(lab)
    before, after = (x[:, 1:, 3:].std((2, 3)) for x in (lab, found))
    assert bool((after <= MAX_GAIN * before + 1e-6).all())


# Recolouring, both


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("name", DEGENERATE)
def test_a_picture_in_its_own_colours_is_itself(name: str, fit: Fit) -> None:
    pixels = DEGENERATE[name]
    recoloring = fit(pixels, pixels)
    np.testing.assert_array_equal(recolor(pixels, recoloring), pixels)
    x = tensor(pixels)
    assert float((to_srgb(recoloring(to_oklab(x))) - x).abs().max()) < 1e-4
    other = random_picture(9)  # nor are other pictures changed, whose colours it did not have
    change = recolor(other, recoloring).astype(int) - other
    assert np.abs(change).max() <= 1


@pytest.mark.parametrize("fit", FITS)
def test_whatever_the_pictures_are(fit: Fit) -> None:
    for source in DEGENERATE.values():
        for target in DEGENERATE.values():
            recoloring = fit(source, target)
            x = recoloring(to_oklab(tensor(source)))
            assert bool(torch.isfinite(x).all())
            shown = to_srgb(x)
            assert bool(((shown >= 0) & (shown <= 1)).all())
            assert recolor(source, recoloring).shape == source.shape


@pytest.mark.parametrize("fit", FITS)
def test_a_flat_picture_gets_the_mean_colour(fit: Fit) -> None:
    target = painting()
    found = fit(flat(10, 200, 60), target)(to_oklab(tensor(flat(10, 200, 60))))
    expected = colors(to_oklab(tensor(target))).mean(1)
    np.testing.assert_allclose(colors(found), expected[:, None].repeat(30, 1), atol=1e-4)


@pytest.mark.parametrize("fit", FITS)
def test_a_grey_picture_gets_a_tint(fit: Fit) -> None:
    target = mild(3)
    found = colors(fit(grey(0), target)(to_oklab(tensor(grey(0)))))
    wanted = colors(to_oklab(tensor(target)))
    np.testing.assert_allclose(found.mean(1), wanted.mean(1), atol=1e-4)
    lines = np.linalg.svd(found - found.mean(1, keepdims=True), compute_uv=False)
    assert lines[1] < 1e-4 * lines[0]  # colours on a straight line, as those of the grey picture
    assert np.ptp(found[1:], axis=1).max() < 0.05
    assert recolor(photo(), fit(photo(), grey(0))).std(2).max() < 8  # and the other way round


@pytest.mark.parametrize("fit", FITS)
def test_equal_colours_stay_equal_and_places_do_not_matter(fit: Fit) -> None:
    source, target = painting(seed=3) // 16 * 16, photo()
    found = recolor(source, fit(source, target))
    pairs = np.unique(np.dstack((source, found)).reshape(-1, 6), axis=0)
    assert len(pairs) == len(np.unique(source.reshape(-1, 3), axis=0))
    turned = fit(source[::-1].swapaxes(0, 1), np.ascontiguousarray(target[:, ::-1]))
    np.testing.assert_array_equal(recolor(source, turned), found)


# Large pictures


def ways(pixels: Array) -> Iterator[Array]:
    """All that these functions make of a picture."""
    other = painting(pixels.shape[1], pixels.shape[0])
    yield keep_chroma(other, pixels)
    for fit in FITS:
        yield recolor(pixels, fit(pixels, other))


@pytest.mark.parametrize("size", [(37, 29), (300, 1), (1, 300)])
@pytest.mark.parametrize("block", [1, 13, 64])
def test_blocks_equal_the_whole(
    size: tuple[int, int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = random_picture(0, *size)[: 300 // size[1]]
    whole = list(ways(pixels))
    monkeypatch.setattr(color, "_BLOCK", block)
    for found, expected in zip(ways(pixels), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_blocks_equal_the_tensor() -> None:
    pixels, other = random_picture(1, 400, 500), random_picture(2, 400, 500)
    found = with_chroma_of(tensor(other), tensor(pixels))
    expected = (found[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(keep_chroma(other, pixels), expected)


def test_a_large_picture_is_never_float_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spy(painted: Tensor, photo: Tensor) -> Tensor:
        seen.append(painted[0, 0].numel())
        return photo

    monkeypatch.setattr(color, "with_chroma_of", spy)
    for shape in ((3000, 2000, 3), (2, 3_000_000, 3)):
        pixels = np.broadcast_to(np.uint8(7), shape)
        seen.clear()
        tracemalloc.start()
        found = keep_chroma(pixels, pixels)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(seen) == shape[0] * shape[1]
        assert max(seen) <= color._BLOCK
        assert peak < found.nbytes + 4_000_000  # of NumPy; the tensors are those of `seen`
        assert found.min() == found.max() == 7


@pytest.mark.parametrize("fit", FITS)
def test_a_huge_picture_is_fitted_on_a_part_of_it(fit: Fit) -> None:
    """100 megapixels that take no memory themselves; their part has all of their colours."""
    column = mild(0, (10_000, 1))
    huge, target = np.broadcast_to(column, (10_000, 10_000, 3)), mild(1)
    tracemalloc.start()
    recoloring = fit(huge, target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150_000_000
    lab = to_oklab(tensor(mild(0)))
    alone = fit(column, target)(lab)
    torch.testing.assert_close(recoloring(lab), alone, rtol=0, atol=2e-3)


def test_what_order_the_memory_is_in_does_not_matter() -> None:
    pixels = random_picture(3, 40, 30)
    frozen = pixels.copy()
    frozen.flags.writeable = False
    expected = list(ways(pixels))
    for same in (np.asfortranarray(pixels), pixels[::-1].copy()[::-1], frozen):
        for found, wanted in zip(ways(same), expected, strict=True):
            assert found.flags.c_contiguous
            np.testing.assert_array_equal(found, wanted)
