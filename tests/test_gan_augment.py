"""Differentiable augmentation against loops over NumPy numbers."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from impasto.errors import SettingsError
from impasto.gan.augment import Draws, augment, draw
from impasto.gan.settings import AUGMENTATIONS as POLICIES
from impasto.gan.settings import parse_augment

Array = NDArray[np.float64]
SIZES = pytest.mark.parametrize("size", [(8, 12), (7, 9), (16, 16), (5, 1)])


def pictures(N: int, H: int, W: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (N, 3, H, W))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def still(count: int, policy: tuple[str, ...] = POLICIES) -> Draws:
    """Draws that change nothing."""
    return Draws(
        policy=policy,
        brightness=torch.zeros(count),
        saturation=torch.ones(count),
        contrast=torch.ones(count),
        shift=torch.zeros(count, 2, dtype=torch.long),
        hole=torch.full((count, 2), -1000),
    )


def assert_equal(found: Draws, expected: Draws) -> None:
    assert found.policy == expected.policy
    for field in dataclasses.fields(Draws)[1:]:
        torch.testing.assert_close(
            getattr(found, field.name), getattr(expected, field.name), rtol=0, atol=0
        )


# Slow references


def slow_color(x: Array, draws: Draws) -> Array:
    y = x.copy()
    for n, picture in enumerate(y):
        picture += float(draws.brightness[n])
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                grey = sum(picture[:, i, j]) / 3
                for c in range(3):
                    picture[c, i, j] = grey + float(draws.saturation[n]) * (picture[c, i, j] - grey)
        mean = sum(picture.flat) / picture.size
        for place in np.ndindex(picture.shape):
            picture[place] = mean + float(draws.contrast[n]) * (picture[place] - mean)
    return y


def slow_translation(x: Array, draws: Draws) -> Array:
    y = np.zeros_like(x)
    for n, c, i, j in np.ndindex(x.shape):
        to_i, to_j = i + int(draws.shift[n, 0]), j + int(draws.shift[n, 1])
        if 0 <= to_i < x.shape[2] and 0 <= to_j < x.shape[3]:
            y[n, c, to_i, to_j] = x[n, c, i, j]
    return y


def slow_cutout(x: Array, draws: Draws) -> Array:
    H, W = x.shape[2:]
    height, width = int(H / 2 + 0.5), int(W / 2 + 0.5)
    y = x.copy()
    for n in range(len(x)):
        top, left = (int(v) for v in draws.hole[n])
        for i in range(top, top + height):
            for j in range(left, left + width):
                if 0 <= i < H and 0 <= j < W:
                    y[n, :, i, j] = 0
    return y


SLOW = {"color": slow_color, "translation": slow_translation, "cutout": slow_cutout}


# Each operation


@SIZES
@pytest.mark.parametrize("name", POLICIES)
def test_an_operation_is_its_definition(name: str, size: tuple[int, int]) -> None:
    x, draws = pictures(12, *size), draw(12, size, [name], seeded())
    expected = SLOW[name](x, draws)
    assert not np.allclose(expected, x)
    found = augment(torch.tensor(x), draws)
    assert found.shape == x.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("policy", [POLICIES, POLICIES[::-1], ("translation", "color")])
def test_a_policy_is_applied_in_order(policy: tuple[str, ...]) -> None:
    x, draws = pictures(6, 8, 10), draw(6, (8, 10), policy, seeded())
    expected = x
    for name in policy:
        expected = SLOW[name](expected, draws)
    found = augment(torch.tensor(x), draws)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_color_by_hand() -> None:
    x = torch.tensor([0.1, 0.4, 0.1]).view(1, 3, 1, 1).repeat(1, 1, 1, 2)
    x[..., 1] = -0.2  # a reddish pixel and a grey one
    draws = dataclasses.replace(still(1, ("color",)), brightness=torch.tensor([0.1]))
    found = augment(x, draws)[0, :, 0]
    torch.testing.assert_close(found, torch.tensor([[0.2, -0.1], [0.5, -0.1], [0.2, -0.1]]))
    draws = dataclasses.replace(still(1, ("color",)), saturation=torch.tensor([2.0]))
    found = augment(x, draws)[0, :, 0]
    torch.testing.assert_close(found, torch.tensor([[0.0, -0.2], [0.6, -0.2], [0.0, -0.2]]))
    draws = dataclasses.replace(still(1, ("color",)), contrast=torch.tensor([0.5]))
    found = augment(x, draws)[0, :, 0]  # about the mean, 0
    torch.testing.assert_close(found, torch.tensor([[0.05, -0.1], [0.2, -0.1], [0.05, -0.1]]))


def test_no_saturation_is_grey() -> None:
    x = torch.tensor(pictures(2, 4, 4))
    draws = dataclasses.replace(still(2, ("color",)), saturation=torch.zeros(2))
    torch.testing.assert_close(augment(x, draws), x.mean(1, keepdim=True).expand_as(x))


def test_translation_by_hand() -> None:
    x = torch.arange(1.0, 10.0).view(1, 1, 3, 3).repeat(2, 3, 1, 1)
    draws = dataclasses.replace(still(2, ("translation",)), shift=torch.tensor([[1, 0], [-1, 2]]))
    found = augment(x, draws)
    assert found[0, 1].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert found[1, 2].tolist() == [[0, 0, 4], [0, 0, 7], [0, 0, 0]]


def test_cutout_by_hand() -> None:
    draws = dataclasses.replace(still(2, ("cutout",)), hole=torch.tensor([[1, 2], [-1, 3]]))
    found = augment(torch.ones(2, 3, 4, 4), draws)
    assert found[0, 0].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert found[1, 2].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]


# Draws


def test_draws_that_change_nothing() -> None:
    x = torch.tensor(pictures(3, 6, 8), dtype=torch.float32)
    torch.testing.assert_close(augment(x, still(3)), x, rtol=0, atol=0)


def test_a_policy_of_nothing() -> None:
    x = torch.tensor(pictures(3, 6, 8))
    assert augment(x, draw(3, (6, 8), (), seeded())) is x


def test_equal_draws_give_equal_pictures() -> None:
    x = torch.tensor(pictures(5, 8, 8))
    first, again, other = (draw(5, 8, POLICIES, seeded(seed)) for seed in (3, 3, 4))
    assert_equal(first, again)
    torch.testing.assert_close(augment(x, first), augment(x, again), rtol=0, atol=0)
    assert not torch.allclose(augment(x, first), augment(x, other))


def test_torch_s_global_generator_is_used_if_there_is_no_other() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        found = draw(5, 8, POLICIES)
    assert_equal(found, draw(5, 8, POLICIES, seeded(3)))


def test_the_numbers_do_not_depend_on_the_policy() -> None:
    everything = draw(5, 8, POLICIES, seeded())
    for policy in ((), ("cutout",), ("translation", "color")):
        found = draw(5, 8, policy, seeded())
        assert_equal(found, dataclasses.replace(everything, policy=policy))


def test_pictures_are_changed_each_in_its_own_way() -> None:
    draws = draw(64, 64, POLICIES, seeded())
    for drawn in (draws.brightness, draws.saturation, draws.contrast, draws.shift, draws.hole):
        assert len(drawn) == 64
        assert len(np.unique(drawn.numpy(), axis=0)) > 30


def test_rows_of_draws_give_rows_of_the_result() -> None:
    x, draws = torch.tensor(pictures(7, 9, 12)), draw(7, (9, 12), POLICIES, seeded())
    whole = augment(x, draws)
    for start, stop in ((0, 7), (0, 3), (3, 7), (2, 3)):
        part = augment(x[start:stop], draws.rows(start, stop))
        torch.testing.assert_close(part, whole[start:stop], rtol=0, atol=0)


def test_draws_travel_to_a_device() -> None:
    draws = draw(2, 8, ("color",), seeded(), "meta")
    for field in dataclasses.fields(Draws)[1:]:
        assert getattr(draws, field.name).device.type == "meta"
    moved = draw(2, 8, ("color",), seeded()).to("meta")
    assert moved.policy == ("color",)
    assert moved.hole.device.type == "meta"


# Ranges


COUNT = 20_000


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("brightness", -0.5, 0.5), ("saturation", 0.0, 2.0), ("contrast", 0.5, 1.5)],
)
def test_colours_are_drawn_evenly_from_their_range(name: str, low: float, high: float) -> None:
    drawn: Tensor = getattr(draw(COUNT, 8, ("color",), seeded()), name)
    assert drawn.shape == (COUNT,)
    assert low <= float(drawn.min()) < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < float(drawn.max()) <= high
    counts = torch.histc(drawn, 10, low, high)
    assert (counts / COUNT - 0.1).abs().max() < 0.01  # five standard deviations


@pytest.mark.parametrize(
    ("side", "most"), [(32, (4, 4)), ((64, 20), (8, 3)), ((19, 11), (2, 1)), ((3, 12), (0, 2))]
)
def test_translations_are_drawn_evenly_up_to_an_eighth(
    side: tuple[int, int] | int, most: tuple[int, int]
) -> None:
    shift = draw(COUNT, side, ("translation",), seeded()).shift
    assert shift.shape == (COUNT, 2)
    for drawn, limit in zip(shift.T, most, strict=True):
        values, counts = drawn.unique(return_counts=True)
        assert values.tolist() == list(range(-limit, limit + 1))
        assert (counts / COUNT - 1 / len(values)).abs().max() < 0.02


@pytest.mark.parametrize("side", [8, (12, 7), (9, 16), (1, 2)])
def test_holes_are_drawn_evenly_around_every_place(side: tuple[int, int] | int) -> None:
    hole = draw(COUNT, side, ("cutout",), seeded()).hole
    assert hole.shape == (COUNT, 2)
    for drawn, length in zip(hole.T, (side, side) if isinstance(side, int) else side, strict=True):
        half = int(length / 2 + 0.5)
        centred = [c for c in range(-length, 2 * length) if 0 <= c + half / 2 <= length]
        values, counts = drawn.unique(return_counts=True)
        assert values.tolist() == centred
        assert (counts / COUNT - 1 / len(values)).abs().max() < 0.02


def test_rows_and_columns_are_drawn_apart() -> None:
    draws = draw(COUNT, 16, POLICIES, seeded())
    numbers = torch.cat(
        [
            torch.stack((draws.brightness, draws.saturation, draws.contrast), 1),
            draws.shift.float(),
            draws.hole.float(),
        ],
        1,
    )
    correlation = torch.corrcoef(numbers.T) - torch.eye(7)
    assert correlation.abs().max() < 0.03


# Gradients and precision


@pytest.mark.parametrize("policy", [("color",), ("translation",), ("cutout",), POLICIES])
def test_gradients_pass(policy: tuple[str, ...]) -> None:
    x = torch.tensor(pictures(2, 4, 5)).requires_grad_()
    draws = draw(2, (4, 5), policy, seeded(1))
    assert torch.autograd.gradcheck(lambda x: augment(x, draws), (x,))
    assert torch.autograd.gradgradcheck(lambda x: augment(x, draws).square(), (x,))


def test_no_gradient_comes_from_what_is_not_seen() -> None:
    x = torch.ones(1, 3, 4, 4, requires_grad=True)
    draws = dataclasses.replace(
        still(1),
        shift=torch.tensor([[1, 0]]),
        hole=torch.tensor([[2, 2]]),
    )
    augment(x, draws).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    # The last row has moved out, and what moved into the lower right quarter is cut out.
    assert x.grad[0, 0].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_pictures_keep_their_dtype(dtype: torch.dtype) -> None:
    x, draws = torch.tensor(pictures(6, 8, 8)).to(dtype), draw(6, 8, POLICIES, seeded())
    found = augment(x, draws)
    assert found.dtype is dtype
    # Colours are computed wider, so half precision rounds once: by half of eps at most.
    rounding, wider = torch.finfo(dtype).eps / 2, torch.promote_types(dtype, torch.float32)
    within = 8 * torch.finfo(wider).eps
    exact = augment(x.double(), draws)
    torch.testing.assert_close(found.double(), exact, rtol=rounding, atol=within)


def test_the_memory_layout_of_pictures_does_not_matter() -> None:
    x, draws = torch.tensor(pictures(4, 8, 6)), draw(4, (8, 6), POLICIES, seeded())
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(augment(last, draws), augment(x, draws))


# Policies


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("color,translation,cutout", ("color", "translation", "cutout")),
        ("cutout", ("cutout",)),
        (" cutout , color ", ("cutout", "color")),
        ("none", ()),
        ("", ()),
    ],
)
def test_a_policy_is_written_as_names(text: str, policy: tuple[str, ...]) -> None:
    assert parse_augment(text) == policy


@pytest.mark.parametrize("text", ["colour", "color,", "color,none", "Color", "color translation"])
def test_an_unknown_augmentation_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="there are color, translation, cutout"):
        parse_augment(text)


def test_an_augmentation_that_comes_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="twice"):
        parse_augment("color,cutout,color")


def test_draws_of_an_unknown_augmentation_are_refused() -> None:
    with pytest.raises(SettingsError, match="blur"):
        draw(2, 8, ("color", "blur"), seeded())
