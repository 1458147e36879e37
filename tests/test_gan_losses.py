"""The adversarial losses against numbers worked out by hand and what their papers state."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.gan.losses import LOSSES, gradient_penalty, zero_centred_penalty
from impasto.gan.settings import RECIPES

NAMES = tuple(LOSSES)
DTYPES = (torch.float32, torch.float64)
Penalty = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def logits(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def gradients(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves))


def nll(logit: float) -> float:
    """−log σ(logit)."""
    return math.log(1 + math.exp(-logit))


def test_there_is_a_recipe_for_every_loss() -> None:
    assert set(LOSSES) == set(RECIPES)
    for name, loss in LOSSES.items():
        assert loss.name == name
        assert loss.summary
        assert loss.source


# Values


REAL, FAKE = (2.0, -0.5, 0.25), (-3.0, 0.5, 1.5)

BY_HAND = {
    "bce": (
        (nll(2) + nll(-0.5) + nll(0.25)) / 3 + (nll(3) + nll(-0.5) + nll(-1.5)) / 3,
        (nll(-3) + nll(0.5) + nll(1.5)) / 3,
    ),
    "wgan-gp": (-1 / 3 - 1.75 / 3, 1 / 3),
    "hinge": ((0 + 1.5 + 0.75) / 3 + (0 + 1.5 + 2.5) / 3, 1 / 3),
    "relativistic": (
        (nll(5) + nll(-1) + nll(-1.25)) / 3,
        (nll(-5) + nll(1) + nll(1.25)) / 3,
    ),
}
"""The losses of the discriminator and of the generator for these logits."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_by_hand(name: str, dtype: torch.dtype) -> None:
    real, fake = logits(*REAL, dtype=dtype), logits(*FAKE, dtype=dtype)
    found = LOSSES[name].discriminator(real, fake), LOSSES[name].generator(fake, real)
    for loss, expected in zip(found, BY_HAND[name], strict=True):
        assert loss.shape == ()
        assert loss.dtype is dtype
        assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_bce_is_the_cross_entropy_of_the_labels() -> None:
    real, fake = numbers(50, seed=1) * 4, numbers(50, seed=2) * 4
    entropy = F.binary_cross_entropy_with_logits
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)
    found = LOSSES["bce"].discriminator(real, fake)
    torch.testing.assert_close(found, entropy(real, ones) + entropy(fake, zeros))
    torch.testing.assert_close(LOSSES["bce"].generator(fake), entropy(fake, ones))


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("bce", 2 * math.log(2), math.log(2)),  # Goodfellow et al. 2014, theorem 1: log 4
        ("wgan-gp", 0.0, 0.0),
        ("hinge", 2.0, 0.0),
        ("relativistic", math.log(2), math.log(2)),
    ],
)
def test_a_loss_when_the_discriminator_knows_nothing(
    name: str, discriminator: float, generator: float
) -> None:
    loss, nothing = LOSSES[name], torch.zeros(4)
    assert float(loss.discriminator(nothing, nothing)) == pytest.approx(discriminator)
    assert float(loss.generator(nothing, nothing)) == pytest.approx(generator)


@pytest.mark.parametrize("name", ["bce", "hinge"])
def test_a_discriminator_that_cannot_tell_does_best_to_know_nothing(name: str) -> None:
    """Goodfellow et al. 2014, proposition 1: ½, a logit of 0, where both are equally likely."""
    at = [logits(value) for value in (-3.0, -1.5, -0.1, 0.0, 0.1, 1.5, 3.0)]
    losses = [float(LOSSES[name].discriminator(same, same)) for same in at]
    assert min(losses) == losses[3]
    assert losses == sorted(losses[:4], reverse=True) + sorted(losses[4:])


def test_the_optimal_discriminator_of_bce() -> None:
    """Goodfellow et al. 2014, proposition 1: p / (p + q) where real is p and generated q likely."""
    often, seldom = (logits(sign * math.log(3)).requires_grad_() for sign in (1, -1))
    real = torch.cat((often, often, often, seldom))  # 3/4 of what is real looks like this
    fake = torch.cat((often, seldom, seldom, seldom))
    loss = LOSSES["bce"].discriminator(real, fake)
    assert loss.item() == pytest.approx(-2 * (0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    for gradient in gradients(loss, often, seldom):
        assert float(gradient) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["bce", "hinge", "relativistic"])
def test_a_sure_discriminator_that_is_right_loses_nothing(name: str) -> None:
    found = LOSSES[name].discriminator(torch.full((3,), 60.0), torch.full((3,), -60.0))
    assert float(found) == pytest.approx(0, abs=1e-20)


def test_hinge_does_not_count_beyond_the_margin() -> None:
    hinge = LOSSES["hinge"]
    real, fake = logits(1.0001, 7.0).requires_grad_(), logits(-1.0001, -9.0).requires_grad_()
    loss = hinge.discriminator(real, fake)
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in gradients(loss, real, fake))
    within = hinge.discriminator(logits(0.9), logits(-0.8))
    assert float(within) == pytest.approx(0.3)


@pytest.mark.parametrize("name", NAMES)
def test_large_logits_give_finite_losses_and_gradients(name: str) -> None:
    for size in (1e2, 1e4, 1e8):
        for sign in (1.0, -1.0):
            real = torch.tensor([size * sign], requires_grad=True)
            fake = torch.tensor([-size * sign], requires_grad=True)
            for loss in (
                LOSSES[name].discriminator(real, fake),
                LOSSES[name].generator(fake, real) + 0 * real.sum(),
            ):
                assert loss.isfinite()
                assert all(gradient.isfinite().all() for gradient in gradients(loss, real, fake))


# What a loss depends on


@pytest.mark.parametrize("name", ["relativistic", "wgan-gp"])
def test_only_differences_count(name: str) -> None:
    real, fake, loss = numbers(6, seed=1), numbers(6, seed=2), LOSSES[name]
    shifted = loss.discriminator(real + 5, fake + 5)
    torch.testing.assert_close(shifted, loss.discriminator(real, fake))


def test_the_relativistic_generator_sees_differences_only() -> None:
    real, fake, loss = numbers(6, seed=1), numbers(6, seed=2), LOSSES["relativistic"]
    torch.testing.assert_close(loss.generator(fake - 7, real - 7), loss.generator(fake, real))


@pytest.mark.parametrize("name", ["bce", "hinge"])
def test_absolute_losses_are_not_blind_to_a_shift(name: str) -> None:
    real, fake, loss = numbers(6, seed=1), numbers(6, seed=2), LOSSES[name]
    shifted = loss.discriminator(real + 5, fake + 5)
    assert float(shifted) > float(loss.discriminator(real, fake)) + 1


def test_the_relativistic_losses_mirror_each_other() -> None:
    real, fake, loss = numbers(6, seed=1), numbers(6, seed=2), LOSSES["relativistic"]
    torch.testing.assert_close(loss.generator(fake, real), loss.discriminator(fake, real))
    difference = loss.generator(fake, real) - loss.discriminator(real, fake)
    torch.testing.assert_close(difference, (real - fake).mean())  # softplus(x) − softplus(−x) = x


@pytest.mark.parametrize("name", ["bce", "hinge", "wgan-gp"])
def test_real_and_generated_pictures_can_change_roles(name: str) -> None:
    real, fake, loss = numbers(6, seed=1), numbers(6, seed=2), LOSSES[name]
    exchanged = loss.discriminator(-fake, -real)
    torch.testing.assert_close(exchanged, loss.discriminator(real, fake))


def test_the_critic_s_loss_is_a_distance_with_a_sign() -> None:
    real, fake, loss = numbers(6, seed=1), numbers(6, seed=2), LOSSES["wgan-gp"]
    torch.testing.assert_close(loss.discriminator(fake, real), -loss.discriminator(real, fake))


@pytest.mark.parametrize("name", NAMES)
def test_pairs_are_what_only_a_relativistic_loss_sees(name: str) -> None:
    real, fake, loss = numbers(6, seed=1), numbers(6, seed=2), LOSSES[name]
    before, after = (float(loss.discriminator(real, f)) for f in (fake, fake.flip(0)))
    assert (before == pytest.approx(after)) == (not loss.pairs)


@pytest.mark.parametrize("name", NAMES)
def test_a_generator_s_loss_asks_for_real_logits_where_it_needs_them(name: str) -> None:
    fake, loss = numbers(6), LOSSES[name]
    if loss.pairs:
        with pytest.raises(ValueError, match="real logits"):
            loss.generator(fake)
        assert loss.generator(fake, fake + 1) > loss.generator(fake, fake)
    else:
        assert loss.generator(fake) == loss.generator(fake, fake + 1)


# Gradients of losses


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_a_loss(name: str) -> None:
    # hinge has kinks at 1 and −1: these logits are far enough from them
    real = logits(2.0, -0.5, 0.25, -4.0).requires_grad_()
    fake = logits(-3.0, 0.5, 1.5, -0.2).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name].discriminator, (real, fake))
    assert torch.autograd.gradcheck(lambda f: LOSSES[name].generator(f, real.detach()), (fake,))


@pytest.mark.parametrize("name", NAMES)
def test_where_the_players_want_the_logits(name: str) -> None:
    real, fake = (0.5 * numbers(8, seed=seed).tanh().requires_grad_() for seed in (1, 2))
    up, down = gradients(LOSSES[name].discriminator(real, fake), real, fake)
    assert (up < 0).all()  # real pictures to larger logits
    assert (down > 0).all()
    (forward,) = gradients(LOSSES[name].generator(fake, real), fake)
    assert (forward < 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_generator_learns_where_the_discriminator_is_sure(name: str) -> None:
    """Goodfellow et al. 2014, section 3: what does not saturate."""
    fake = torch.full((4,), -50.0, requires_grad=True)
    (gradient,) = gradients(LOSSES[name].generator(fake, torch.full((4,), 50.0)), fake)
    torch.testing.assert_close(gradient, torch.full((4,), -0.25))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_logits_give_a_float32_loss(name: str, dtype: torch.dtype) -> None:
    real, fake = numbers(301, seed=1).to(dtype), numbers(301, seed=2).to(dtype)
    loss = LOSSES[name]
    for found, expected in (
        (loss.discriminator(real, fake), loss.discriminator(real.double(), fake.double())),
        (loss.generator(fake, real), loss.generator(fake.double(), real.double())),
    ):
        assert found.dtype is torch.float32
        assert float(found) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)


# Penalties


def linear(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """A critic whose gradient is `weight` everywhere."""
    return lambda x: (x * weight).flatten(1).sum(1) + 3


def curved(first: Tensor, second: Tensor) -> Callable[[Tensor], Tensor]:
    """A critic that is smooth, and different in every direction."""
    return lambda x: (x.flatten(1) @ first).tanh() @ second


def between(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient penalty at `x` itself: all of real, nothing of what is generated."""
    return gradient_penalty(critic, x, torch.zeros_like(x), x.new_ones(len(x)))


def at(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    return zero_centred_penalty(critic(leaf), leaf)


PENALTIES = pytest.mark.parametrize("penalty", [between, at])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_penalties_of_a_linear_critic(dtype: torch.dtype) -> None:
    weight = numbers(3, 4, 5, dtype=dtype)
    weight *= 1.7 / weight.norm()
    x = numbers(6, 3, 4, 5, seed=1, dtype=dtype)
    found = between(linear(weight), x), at(linear(weight), x)
    for penalty, expected in zip(found, (0.7**2, 1.7**2 / 2), strict=True):
        assert penalty.shape == ()
        assert penalty.dtype is dtype
        assert float(penalty) == pytest.approx(expected, rel=1e-5)
    assert float(between(linear(weight / 1.7), x)) == pytest.approx(0, abs=1e-10)
    assert float(between(linear(weight * 0), x)) == 1
    assert float(at(linear(weight * 0), x)) == 0


def test_a_penalty_is_a_mean_over_pictures_of_each_ones_own_norm() -> None:
    """½‖x‖² has the gradient x."""
    x = torch.zeros(3, 3, 2, 2)
    x[0, 0, 0, 0], x[1, 1, 1, 0], x[2, 0] = 3.0, -0.5, 1.0  # norms 3, 0.5 and 2

    def bowl(x: Tensor) -> Tensor:
        return x.square().flatten(1).sum(1) / 2

    assert between(bowl, x).item() == pytest.approx((2**2 + 0.5**2 + 1**2) / 3)
    assert at(bowl, x).item() == pytest.approx((3**2 + 0.5**2 + 2**2) / 3 / 2)


def test_the_gradient_penalty_looks_between_real_and_generated_pictures() -> None:
    seen: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x)
        return x.flatten(1).sum(1)

    real, fake = numbers(4, 3, 2, 2, seed=1), numbers(4, 3, 2, 2, seed=2)
    mix = logits(1.0, 0.0, 0.5, 0.2)
    gradient_penalty(critic, real, fake, mix)
    (x,) = seen
    torch.testing.assert_close(x[0], real[0])
    torch.testing.assert_close(x[1], fake[1])
    torch.testing.assert_close(x[2], (real[2] + fake[2]) / 2)
    torch.testing.assert_close(x[3], 0.2 * real[3] + 0.8 * fake[3])


def test_the_gradient_penalty_does_not_reach_the_pictures() -> None:
    pictures = [numbers(2, 3, 2, 2, seed=seed).requires_grad_() for seed in (1, 2)]
    mix = logits(0.3, 0.6).requires_grad_()
    weights = numbers(12, 4, seed=3).requires_grad_(), numbers(4, seed=4).requires_grad_()
    penalty = gradient_penalty(curved(*weights), pictures[0], pictures[1], mix)
    found = torch.autograd.grad(penalty, (*pictures, mix, *weights), allow_unused=True)
    assert [gradient is not None for gradient in found] == [False] * 3 + [True] * 2


@PENALTIES
def test_the_gradient_of_a_penalty_by_hand(penalty: Penalty) -> None:
    """Of (‖w‖ − 1)², and of ½‖w‖²."""
    weight = numbers(3, 2, 2).requires_grad_()
    (found,) = gradients(penalty(linear(weight), numbers(5, 3, 2, 2, seed=1)), weight)
    norm = weight.detach().norm()
    expected = 2 * (norm - 1) * weight / norm if penalty is between else weight
    torch.testing.assert_close(found, expected.detach())


@PENALTIES
def test_the_gradient_of_a_penalty_reaches_the_weights(penalty: Penalty) -> None:
    weights = tuple(numbers(*s, seed=i).requires_grad_() for i, s in enumerate([(12, 4), (4,)]))
    x = numbers(3, 3, 2, 2, seed=5) / 2
    assert torch.autograd.gradcheck(lambda *w: penalty(curved(*w), x), weights)


@PENALTIES
def test_a_penalty_trains_a_network_of_convolutions(penalty: Penalty) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.GroupNorm(1, 8), nn.Conv2d(8, 1, 4)
    )
    x = numbers(4, 3, 8, 8, dtype=torch.float32)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        value = penalty(lambda x: network(x).flatten(), x)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.2 * values[0]


def test_a_flat_critic_gives_a_gradient_that_is_a_number() -> None:
    weight = torch.zeros(3, 2, 2, requires_grad=True)  # where the norm has no gradient
    for penalty in (between, at):
        (gradient,) = gradients(penalty(linear(weight), torch.ones(2, 3, 2, 2)), weight)
        assert not gradient.any()


def test_the_zero_centred_penalty_goes_down_with_the_gradient_s_square() -> None:
    weight, x = numbers(3, 2, 2), numbers(2, 3, 2, 2, seed=1)
    sizes = [float(at(linear(weight * scale), x)) for scale in (1.0, 0.5, 0.25)]
    for larger, smaller in pairwise(sizes):
        assert larger == pytest.approx(4 * smaller)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_penalties_take_norms_in_float32(dtype: torch.dtype) -> None:
    """A square of 300 is beyond float16, and bfloat16 has three digits."""
    weight = (300 + numbers(3, 8, 8)).to(dtype)
    x = numbers(2, 3, 8, 8, seed=1).to(dtype)
    exact = float(weight.double().square().sum())
    for found, expected in (
        (at(lambda x: (x * weight).flatten(1).float().sum(1), x), exact / 2),
        (between(lambda x: (x * weight).flatten(1).float().sum(1), x), (exact**0.5 - 1) ** 2),
    ):
        assert found.dtype is torch.float32
        assert float(found) == pytest.approx(expected, rel=1e-5)


@PENALTIES
def test_penalties_under_autocast(penalty: Penalty) -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 16, 4, 2, 1)
    network = nn.Sequential(first, nn.Tanh(), nn.Conv2d(16, 1, 4))
    x = numbers(4, 3, 8, 8, dtype=torch.float32)

    def critic(x: Tensor) -> Tensor:
        found: Tensor = network(x).flatten()
        return found

    expected = penalty(critic, x)
    with torch.autocast("cpu", torch.bfloat16):
        found = penalty(critic, x)
    assert found.dtype is torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=0.02)
    (gradient,) = gradients(found, first.weight)
    (exact,) = gradients(expected, first.weight)
    assert float((gradient - exact).norm() / exact.norm()) < 0.05
