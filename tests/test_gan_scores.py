"""Scores of generated pictures against loops, closed forms, and pictures of known faults."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import pictures
from impasto.encoder import Encoder, Plan
from impasto.errors import RunError, SettingsError, WeightsError
from impasto.gan import features as module
from impasto.gan import scores
from impasto.gan.features import FeatureSpec, features, nearest
from impasto.gan.scores import Judge, density_and_coverage, kid, score

TINY = Plan(((6, 5), (6,), (7, 3)))
SPEC = FeatureSpec(("relu1_2", "relu3_2"), side=16, encoder="random")


def rows(count: int, width: int = 6, seed: int = 0) -> Tensor:
    """Standard normal features, `(count, width)`."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def crops_as_features(paintings: int, each: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of crops that are much alike within a painting, and the paintings."""
    own = rows(paintings, seed=seed).repeat_interleave(each, 0)
    features = 0.9 * own + (1 - 0.9**2) ** 0.5 * rows(paintings * each, seed=seed + 10**6)
    return features, torch.arange(paintings).repeat_interleave(each)


def drawn(count: int, side: int = 64, seed: int = 0) -> Tensor:
    """Pictures like paintings, half of them stripes and half of them shapes, in [0, 1]."""
    kinds = itertools.cycle((pictures.painting, pictures.photo))
    pixels = [next(kinds)(side, side, seed=seed + i) for i in range(count)]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


def blurred(x: Tensor, sigma: float) -> Tensor:
    """`x` under a Gaussian of `sigma` px."""
    radius = math.ceil(3 * sigma)
    kernel = torch.exp(-torch.arange(-radius, radius + 1.0).square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    x = F.pad(x, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(x, kernel, groups=3), kernel.mT, groups=3)


def noisy(x: Tensor, sigma: float) -> Tensor:
    """`x` with normal noise."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return (x + sigma * noise).clamp(0, 1)


@pytest.fixture(scope="module")
def slim() -> Judge:
    """The judge with the encoder in the package, on 60 pictures of 30 paintings."""
    return Judge(drawn(60), torch.arange(60) // 2)


@pytest.fixture
def tiny() -> Encoder:
    return Encoder.random(TINY)


# KID


def kernel(x: Tensor, y: Tensor) -> float:
    """Bińkowski et al. 2018, section 4."""
    return (sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3


def slow_kid(real: Tensor, fake: Tensor, painting: Tensor) -> float:
    """Term by term, in Python's own numbers."""
    across = [
        kernel(real[i], real[j])
        for i, j in itertools.product(range(len(real)), repeat=2)
        if painting[i] != painting[j]
    ]
    among = [kernel(x, y) for x, y in itertools.permutations(fake, 2)]
    between = [kernel(x, y) for x, y in itertools.product(real, fake)]
    return float(np.mean(across) + np.mean(among) - 2 * np.mean(between))


def test_kid_is_that_of_a_double_loop() -> None:
    real, fake = rows(9), 1.5 * rows(7, seed=1) + 0.3
    assert kid(real, fake) == pytest.approx(slow_kid(real, fake, torch.arange(9)), rel=1e-9)


def test_kid_leaves_pairs_within_a_painting_out() -> None:
    real, fake = rows(9), rows(7, seed=1)
    painting = torch.tensor([4, 4, -1, 4, 8, -1, 8, 8, 8])
    assert kid(real, fake, painting) == pytest.approx(slow_kid(real, fake, painting), rel=1e-9)


def test_kid_of_two_points_in_closed_form() -> None:
    """All real samples at 0 and all generated ones at c in every dimension: (c² + 1)³ − 1."""
    c = 0.7
    assert kid(torch.zeros(8, 5), torch.full((4, 5), c)) == pytest.approx((c**2 + 1) ** 3 - 1)


def test_kid_of_normal_distributions_in_closed_form() -> None:
    """In one dimension E(xy + 1)³ is a polynomial in the moments of x and of y.

    For N(0, 1) against N(0, s²): 3(1 − s²)², as only the second moments differ.
    """
    s = 1.5
    values = [kid(rows(300, 1, seed), s * rows(300, 1, seed + 999)) for seed in range(200)]
    error = float(np.std(values)) / 200**0.5
    assert np.mean(values) == pytest.approx(3 * (1 - s**2) ** 2, abs=3 * error)
    assert error < 0.3


def test_kid_of_one_distribution_is_zero_in_expectation() -> None:
    values = [kid(rows(40, seed=seed), rows(30, seed=seed + 10**6)) for seed in range(400)]
    error = np.std(values) / 20
    assert abs(np.mean(values)) < 3 * error
    assert error < 0.01


def test_crops_of_few_paintings_do_not_bias_kid() -> None:
    plain, across = [], []
    for seed in range(200):
        real, painting = crops_as_features(8, 6, seed)
        fake = rows(30, seed=seed + 2 * 10**6)
        plain.append(kid(real, fake))
        across.append(kid(real, fake, painting))
    error = np.std(across) / 200**0.5
    assert abs(np.mean(across)) < 3 * error
    assert np.mean(plain) > 10 * error  # what the usual estimator would say of a perfect generator


# Density and coverage


def slow_density_and_coverage(real: Tensor, fake: Tensor, painting: Tensor) -> tuple[float, float]:
    """Naeem et al. 2020, section 3.2."""
    k, inside = scores.NEIGHBOURS, np.zeros((len(real), len(fake)), bool)
    X, Y = real.double(), fake.double()
    for i, x in enumerate(X):
        others = sorted(
            float((x - X[j]).norm()) for j in range(len(X)) if painting[j] != painting[i]
        )
        for j, y in enumerate(Y):
            inside[i, j] = float((x - y).norm()) < others[k - 1]
    return inside.sum() / (k * len(fake)), inside.any(1).mean()


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("each", [1, 8])
def test_density_and_coverage_are_those_of_loops(scale: float, each: int) -> None:
    real, painting = crops_as_features(40 // each, each, 0)
    fake = scale * rows(25, seed=1)
    found = density_and_coverage(real, fake, painting)
    assert found == pytest.approx(slow_density_and_coverage(real, fake, painting), rel=1e-12)
    assert 0 < found[1] <= 1
    if each == 1:
        assert found == density_and_coverage(real, fake)


def test_a_set_scores_one_against_itself() -> None:
    real = rows(50)
    assert density_and_coverage(real, real.clone()) == (1.0, 1.0)


def test_density_of_one_distribution_is_about_one() -> None:
    densities = [density_and_coverage(rows(80, 3, s), rows(80, 3, s + 999))[0] for s in range(60)]
    assert np.mean(densities) == pytest.approx(1, abs=3 * np.std(densities) / 60**0.5)


def test_crops_of_one_painting_do_not_make_balls_small() -> None:
    plain, across = [], []
    for seed in range(60):
        real, painting = crops_as_features(30, 6, seed)
        fake = rows(180, seed=seed + 10**4)
        plain.append(density_and_coverage(real, fake)[0])
        across.append(density_and_coverage(real, fake, painting)[0])
    assert np.mean(across) == pytest.approx(1, abs=0.3)
    assert np.mean(plain) < np.mean(across) / 2


def test_a_collapsed_set_covers_next_to_nothing() -> None:
    real = rows(200)
    density, coverage = density_and_coverage(real, real[:1].expand(200, -1))
    assert density > 0
    assert 0 < coverage < 0.15


def test_a_far_set_has_neither() -> None:
    assert density_and_coverage(rows(50), rows(50, seed=1) + 100) == (0.0, 0.0)


# The interval


def test_an_interval_holds_its_estimate() -> None:
    for seed, shift in itertools.product(range(10), (0.0, 0.5)):
        real, painting = crops_as_features(12, 4, seed)
        found = score(real, painting, rows(40, seed=seed + 99) + shift, spec=SPEC, seed=seed)
        assert found.kid_low < found.kid < found.kid_high


def test_an_interval_is_that_of_resamples_that_are_written_out() -> None:
    """Reweighting gives what the estimator gives of rows that are really repeated."""
    real, fake = rows(12), rows(9, seed=1)
    painting = torch.arange(12) // 3
    products = scores._products(real), scores._products(real, fake), scores._products(fake)
    pairs = scores._Pairs.of(*products, painting)
    w, v = torch.tensor([2, 0, 1, 1]), torch.tensor([0, 3, 1, 0, 1, 1, 1, 0, 2])
    picked = torch.arange(12).repeat_interleave(w[painting])
    drawn = torch.arange(9).repeat_interleave(v)
    x, y = real[picked], fake[drawn]
    across = [kernel(x[i], x[j]) for i in range(12) for j in range(12)
              if painting[picked[i]] != painting[picked[j]]]  # fmt: skip
    among = [kernel(y[i], y[j]) for i in range(9) for j in range(9) if drawn[i] != drawn[j]]
    between = [kernel(a, b) for a, b in itertools.product(x, y)]
    expected = np.mean(across) + np.mean(among) - 2 * np.mean(between)
    assert pairs._weighted(w[None].double(), v[None].double()).item() == pytest.approx(expected)


def test_fewer_paintings_make_an_interval_wider() -> None:
    """As many crops each time, but of 40, 10 or 4 paintings."""
    widths = []
    for paintings in (40, 10, 4):
        runs = []
        for seed in range(8):
            real, painting = crops_as_features(paintings, 80 // paintings, seed)
            found = score(real, painting, rows(80, seed=seed + 99) + 0.3, spec=SPEC, seed=seed)
            runs.append(found.kid_high - found.kid_low)
        widths.append(np.mean(runs))
    assert widths[0] < widths[1] < widths[2]


def test_an_interval_is_about_as_wide_as_the_spread_of_kid() -> None:
    found, widths = [], []
    for seed in range(60):
        real, painting = crops_as_features(30, 3, seed)
        one = score(real, painting, rows(90, seed=seed + 10**4) + 0.4, spec=SPEC, seed=seed)
        found.append(one.kid)
        widths.append(one.kid_high - one.kid_low)
    low, high = np.quantile(found, scores.INTERVAL)
    assert np.mean(widths) == pytest.approx(high - low, rel=0.4)


def test_a_seed_decides_the_interval_and_nothing_else() -> None:
    real, painting = crops_as_features(12, 4, 0)
    fake = rows(40, seed=1)
    one = score(real, painting, fake, spec=SPEC, seed=3)
    assert one == score(real, painting, fake, spec=SPEC, seed=3)
    other = score(real, painting, fake, spec=SPEC, seed=4)
    assert (one.kid_low, one.kid_high) != (other.kid_low, other.kid_high)
    assert one == replace(other, kid_low=one.kid_low, kid_high=one.kid_high)


def test_two_paintings_are_enough() -> None:
    real, painting = crops_as_features(2, 10, 0)
    found = score(real, painting, rows(20, seed=1), spec=SPEC)
    assert all(map(math.isfinite, (found.kid, found.kid_low, found.kid_high)))
    assert (found.real, found.paintings, found.generated) == (20, 2, 20)


# Pictures


@pytest.mark.parametrize("fault", ["blur", "noise", "collapse"])
def test_kid_rises_with_a_fault(slim: Judge, fault: str) -> None:
    x = drawn(60, seed=100)
    if fault == "blur":
        worse = [x, *(blurred(x, sigma) for sigma in (0.5, 1.0, 2.0))]
    elif fault == "noise":
        worse = [x, *(noisy(x, sigma) for sigma in (0.05, 0.1, 0.2))]
    else:
        worse = [x, *(x[torch.arange(60) % modes] for modes in (16, 4, 1))]
    found = [slim.score(pictures) for pictures in worse]
    values = [one.kid for one in found]
    assert values == sorted(values)
    assert found[0].kid_low < 0 < found[0].kid_high
    assert found[1].kid_high < found[-1].kid_low
    assert found[-1].coverage < found[0].coverage


def test_one_picture_over_and_over_covers_little_and_noise_nothing(slim: Judge) -> None:
    x = drawn(60, seed=100)
    assert slim.score(x[:1].expand(60, -1, -1, -1)).coverage < slim.score(x).coverage / 2
    noise = slim.score(noisy(torch.full_like(x, 0.5), 0.3))
    assert (noise.density, noise.coverage) == (0.0, 0.0)


def test_features_are_standardised_over_the_reference(slim: Judge) -> None:
    reference = slim.reference.double()
    assert reference.shape == (60, 64 + 128 + 256 + 256)
    assert reference.mean(0).abs().max() < 1e-4
    std = reference.std(0, correction=0)
    assert std.max() < 1 + 1e-4
    assert std.median() == pytest.approx(1, abs=1e-4)  # the floor is under half of the median
    torch.testing.assert_close(slim.features(drawn(60)), slim.reference)


def test_features_are_the_statistics_of_the_layers(tiny: Encoder) -> None:
    x = drawn(5, 16)
    spec = replace(SPEC, statistics=("mean", "std"))
    maps = [f.flatten(2) for f in tiny(x, SPEC.layers).values()]
    expected = torch.cat([f.mean(2) for f in maps] + [f.std(2, correction=0) for f in maps], 1)
    torch.testing.assert_close(features(x, tiny, spec), expected)
    torch.testing.assert_close(features(x, tiny, SPEC), expected[:, :8])


def test_pictures_come_as_a_file_a_tensor_or_batches(tiny: Encoder, tmp_path: Path) -> None:
    x = drawn(70, 16)
    pixels = (x * 255).round().byte().permute(0, 2, 3, 1).numpy()
    np.save(tmp_path / "crops.npy", pixels)
    expected = features(x, tiny, SPEC)
    mapped = np.load(tmp_path / "crops.npy", mmap_mode="r")
    torch.testing.assert_close(features(mapped, tiny, SPEC), expected)
    torch.testing.assert_close(features(iter(torch.split(x, 9)), tiny, SPEC), expected)
    assert torch.equal(features(x, tiny, SPEC), expected)
    assert expected.dtype is torch.float32


def test_pictures_are_brought_to_one_side(tiny: Encoder) -> None:
    x = drawn(4, 16)
    large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert features(large, tiny, SPEC).shape == (4, 8)
    torch.testing.assert_close(
        features(torch.full((2, 3, 64, 64), 0.3), tiny, SPEC),
        features(torch.full((2, 3, 16, 16), 0.3), tiny, SPEC),
    )
    assert torch.equal(features(x + 5, tiny, SPEC), features(torch.ones_like(x), tiny, SPEC))


def test_a_channel_that_the_reference_never_excites_decides_nothing(tiny: Encoder) -> None:
    flat = torch.full((10, 3, 16, 16), 0.5)
    judge = Judge(flat, torch.arange(10), SPEC, tiny)
    assert judge.score(flat).kid == pytest.approx(0, abs=1e-9)
    raw = rows(40, 8, seed=2).abs()
    raw[:, 3] = 0
    raw[0, 3] = 1e-6  # one crop in forty, barely
    judge = Judge.from_features(raw, torch.arange(40), SPEC, tiny)
    assert judge.reference[:, 3].abs().max() < 1e-4


# The judge and its records


def test_a_judge_is_what_its_tensors_make_again(tiny: Encoder) -> None:
    spec = replace(SPEC, statistics=("mean", "std"))
    judge = Judge(drawn(20, 16), np.arange(20) // 4, spec, tiny)
    again = Judge.from_features(judge.raw, judge.painting, judge.spec, tiny)
    fake = drawn(15, 16, seed=50)
    assert again.score(fake, seed=5) == judge.score(fake, seed=5)
    assert again.spec == judge.spec


def test_a_judge_loads_the_encoder_that_its_spec_names(slim: Judge) -> None:
    assert slim.spec.encoder.startswith("slim-")
    assert slim.spec.sha256 == slim.encoder.sha256 != ""
    assert slim.spec.pooling == slim.encoder.pooling
    assert FeatureSpec(pooling="avg").load().pooling == "avg"
    again = Judge.from_features(slim.raw, slim.painting, slim.spec)
    assert torch.equal(again.reference, slim.reference)


def test_a_record_is_plain_json_and_holds_the_spec(slim: Judge) -> None:
    found = slim.score(drawn(10, seed=7))
    record = json.loads(json.dumps(found.record()))
    assert FeatureSpec.from_record(record["spec"]) == slim.spec
    assert record["kid"] == found.kid
    assert (record["real"], record["paintings"], record["generated"]) == (60, 30, 10)
    assert set(record) >= {"kid_low", "kid_high", "density", "coverage"}


def test_a_description_says_what_was_measured_on(slim: Judge) -> None:
    text = slim.spec.describe()
    for part in ("mean", "relu2_1", "slim-", "64×64 px", "pooling", slim.spec.sha256[:12]):
        assert part in text
    assert "\n" not in text


# Neighbours


def test_nearest_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, train, mirrored = rows(11), rows(57, seed=1), rows(57, seed=2)
    monkeypatch.setattr(module, "BLOCK", (4, 10))
    every = torch.cdist(fake.double(), train.double())
    distances, indices = every.sort(1)
    found = nearest(fake, train, 12)
    assert torch.equal(found[0], indices[:, :12])
    torch.testing.assert_close(found[1], distances[:, :12].float())
    every = torch.minimum(every, torch.cdist(fake.double(), mirrored.double()))
    found = nearest(fake, train, 3, mirrored=mirrored)
    assert torch.equal(found[0], every.argsort(1)[:, :3])
    assert nearest(fake, train, 57)[0].sort(1).values.equal(torch.arange(57).expand(11, -1))


def test_nearest_finds_copies_and_mirrored_copies(slim: Judge) -> None:
    train = drawn(40, seed=300)
    flipped = slim.features(train.flip(-1))
    learnt = torch.stack((train[7], train[12].flip(-1), drawn(1, seed=900)[0]))
    fake = slim.features(learnt)
    indices, distances = nearest(fake, slim.features(train), mirrored=flipped)
    assert indices[:2, 0].tolist() == [7, 12]
    assert distances[:2].max() < 1e-3 * distances[2]
    plain = nearest(fake, slim.features(train))[1]
    assert plain[1] > 100 * distances[1]


# Refusals


def test_too_little_is_refused() -> None:
    with pytest.raises(SettingsError, match="too few"):
        kid(rows(5), rows(9))
    with pytest.raises(SettingsError, match="too few"):
        kid(rows(9), rows(1))
    with pytest.raises(SettingsError, match="too few"):
        kid(rows(0), rows(9))
    with pytest.raises(SettingsError, match="0 from other paintings"):
        kid(rows(9), rows(9), torch.zeros(9, dtype=torch.long))
    with pytest.raises(SettingsError, match="not"):
        kid(rows(9), rows(9, 5))
    with pytest.raises(SettingsError, match="number of its painting"):
        kid(rows(9), rows(9), torch.arange(8))
    with pytest.raises(SettingsError, match="neighbours"):
        nearest(rows(3), rows(9), 10)
    with pytest.raises(SettingsError, match="differ"):
        nearest(rows(3), rows(9), mirrored=rows(8))


def test_what_is_not_finite_is_refused() -> None:
    fake = rows(9)
    fake[3, 2] = torch.nan
    with pytest.raises(RunError, match="generated"):
        density_and_coverage(rows(9), fake)


def test_what_is_no_picture_is_refused(tiny: Encoder) -> None:
    for bad in (
        torch.zeros(2, 3, 16, 12),
        torch.zeros(3, 16, 16),
        torch.zeros(2, 3, 16, 16).byte(),
    ):
        with pytest.raises(SettingsError, match="pictures to score"):
            features(bad, tiny, SPEC)
    with pytest.raises(SettingsError, match="array"):
        features(np.zeros((2, 16, 16), np.uint8), tiny, SPEC)
    with pytest.raises(SettingsError, match="no pictures"):
        features(iter(()), tiny, SPEC)


def test_another_encoder_is_refused(tiny: Encoder) -> None:
    x = torch.zeros(2, 3, 16, 16)
    with pytest.raises(SettingsError, match="no layer"):
        features(x, tiny, replace(SPEC, layers=("relu9_1",)))
    with pytest.raises(SettingsError, match="pooling"):
        features(x, tiny, replace(SPEC, pooling="avg"))
    with pytest.raises(SettingsError, match="padding"):
        features(x, tiny, replace(SPEC, padding="zero"))
    with pytest.raises(SettingsError, match="float32"):
        features(x, Encoder.random(TINY, dtype=torch.bfloat16), SPEC)
    with pytest.raises(WeightsError, match="SHA-256"):
        features(x, tiny, replace(SPEC, sha256="0" * 64))
    with pytest.raises(SettingsError, match="at least one layer"):
        FeatureSpec(())
    with pytest.raises(SettingsError, match="but"):
        Judge.from_features(rows(9, 7), torch.arange(9), SPEC, tiny)
