"""The loop and its optimisers: known minima, books kept right, trouble survived, Adam as torch's.

The problems are small and smooth: their minima are known, or found by slow projected gradient
descent in NumPy.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import RunError
from impasto.jobs.run import Bench
from impasto.optimize import LBFGS, Iterate, Level, Objective, optimize
from impasto.pyramid import Size, resample
from impasto.settings import OptimizerName, Settings, TransferSettings, make_settings

SIZE: Size = (6, 4)
BOTH: tuple[OptimizerName, ...] = ("lbfgs", "adam")
ADAM = Settings(optimizer="adam")


def draw(seed: int, low: float = 0.0, high: float = 1.0, size: Size = SIZE) -> Tensor:
    """Numbers between `low` and `high`, `(1, 3, H, W)`."""
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand((1, 3, size[1], size[0]), generator=generator)


def parted(loss: Callable[[Tensor], Tensor]) -> Objective:
    """An objective with one part."""
    return lambda x: {"loss": loss(x)}


def distance(target: Tensor, scale: float = 1.0) -> Objective:
    """The squared distance to a picture."""
    return parted(lambda x: scale * (x - target).square().sum())


def bowl(seed: int = 0, size: Size = SIZE) -> tuple[Objective, Tensor, Tensor]:
    """(x−t)ᵀA(x−t), badly conditioned, t partly outside [0, 1]; A and t too."""
    n = 3 * size[0] * size[1]
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.normal(size=(n, n)))[0]
    A = torch.tensor(basis * np.geomspace(0.01, 1, n) @ basis.T, dtype=torch.float32)
    t = draw(seed, -0.6, 1.6, size)

    def loss(x: Tensor) -> Tensor:
        d = (x - t).flatten()
        return d @ A @ d

    return parted(loss), A, t


class Recorded:
    """An objective that remembers what it was asked: with a gradient, and without."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.trials: list[Tensor] = []
        self.losses: list[float] = []
        self.judged: list[Tensor] = []

    def __call__(self, x: Tensor) -> Mapping[str, Tensor]:
        parts = self.objective(x)
        if torch.is_grad_enabled():
            self.trials.append(x.detach().clone())
            self.losses.append(math.fsum(float(part.detach()) for part in parts.values()))
        else:
            self.judged.append(x.detach().clone())
        return parts


def value(objective: Objective, x: Tensor) -> float:
    with torch.no_grad():
        return float(sum(objective(x).values()))


def finish(levels: list[Level], x: Tensor, **options: Any) -> tuple[list[Iterate], Tensor]:
    """Runs the loop to its end; each level begins with the last one's result at its size."""

    def start(size: Size, coarser: Tensor | None) -> Tensor:
        return resample(x if coarser is None else coarser, size).clamp(0, 1)

    loop = optimize(levels, start, Settings(**options))
    iterates = []
    while True:
        try:
            iterates.append(next(loop))
        except StopIteration as stop:
            result: Tensor = stop.value[0]
            return iterates, result


def level(objective: Objective, steps: int, size: Size = SIZE, **more: Any) -> Level:
    return Level(size, steps, lambda: objective, **more)


# Minima


@pytest.mark.parametrize(("optimizer", "steps", "near"), [("lbfgs", 40, 1e-4), ("adam", 400, 2e-3)])
def test_a_picture_is_found_again(optimizer: OptimizerName, steps: int, near: float) -> None:
    target = draw(1)
    _, result = finish([level(distance(target), steps)], draw(2), optimizer=optimizer)
    torch.testing.assert_close(result, target, rtol=0, atol=near)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lbfgs_finds_the_least_within_the_box(seed: int) -> None:
    objective, A, t = bowl(seed)
    x, a, target = np.full(t.numel(), 0.5), A.double().numpy(), t.flatten().double().numpy()
    for _ in range(40_000):  # projected gradient descent; the largest curvature is 2
        x = (x - 0.5 * 2 * a @ (x - target)).clip(0, 1)
    least = float((x - target) @ a @ (x - target))
    at_the_border = (x == 0) | (x == 1)
    assert 0.2 < at_the_border.mean() < 0.9  # or the box does not matter
    iterates, result = finish([level(objective, 40)], torch.full((1, 3, 4, 6), 0.5))
    assert value(objective, result) <= least * 1.001
    assert value(objective, result) < 0.5 * iterates[0].loss
    at_the_same = (result == 0) | (result == 1)
    assert float((at_the_same.flatten().numpy() == at_the_border).mean()) > 0.85


def test_pixels_at_the_border_stay_while_the_gradient_pushes_outward_and_leave_when_it_turns() -> (
    None
):
    target = torch.full((1, 3, 4, 6), 0.5)
    target[:, 0], target[:, 1] = -3.0, 4.0
    x = target.clamp(0, 1)
    x[:, 2] = 0.1
    _, result = finish([level(distance(target), 30)], x)
    assert bool((result[:, 0] == 0).all())
    assert bool((result[:, 1] == 1).all())
    torch.testing.assert_close(result[:, 2], target[:, 2], rtol=0, atol=1e-4)
    _, back = finish([level(distance(draw(3, 0.2, 0.8)), 40)], result)
    torch.testing.assert_close(back, draw(3, 0.2, 0.8), rtol=0, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_lbfgs_needs_fewer_steps_than_adam(seed: int) -> None:
    objective, _, _ = bowl(seed)
    values = {
        optimizer: value(objective, finish([level(objective, 60)], draw(9), optimizer=optimizer)[1])
        for optimizer in BOTH
    }
    assert values["lbfgs"] <= values["adam"] * 1.001


@pytest.mark.parametrize(
    ("optimizer", "scale"),  # below, Adam's epsilon begins to count, as it is meant to
    [*[("lbfgs", 10.0**i) for i in (-12, -4, 4, 12)], *[("adam", 10.0**i) for i in (-4, 4, 12)]],
)
def test_the_unit_of_the_loss_does_not_matter(optimizer: OptimizerName, scale: float) -> None:
    objective, _, _ = bowl(5)
    scaled: Objective = lambda x: {"loss": scale * objective(x)["loss"]}  # noqa: E731
    start = draw(4)
    plain, same = (
        finish([level(each, 40)], start, optimizer=optimizer)[1] for each in (objective, scaled)
    )
    assert value(objective, same) == pytest.approx(value(objective, plain), rel=0.02)


@pytest.mark.parametrize("scale", [1e-36, 1e-28, 1e-20, 1e20, 1e28])
@pytest.mark.parametrize("optimizer", BOTH)
def test_losses_near_the_ends_of_float32_do_no_harm(optimizer: OptimizerName, scale: float) -> None:
    objective, _, _ = bowl(5)
    scaled: Objective = lambda x: {"loss": scale * objective(x)["loss"]}  # noqa: E731
    _, result = finish([level(scaled, 40)], draw(4), optimizer=optimizer)
    assert bool(result.isfinite().all())
    assert value(scaled, result) <= value(scaled, draw(4))


@pytest.mark.parametrize("optimizer", BOTH)
def test_nothing_happens_where_there_is_nothing_to_gain(optimizer: OptimizerName) -> None:
    x = draw(1)
    iterates, result = finish([level(distance(x), 10)], x, optimizer=optimizer)
    assert torch.equal(result, x)
    assert [each.loss for each in iterates] == [0.0] * 10
    assert not any(each.note for each in iterates)


def waves(x: Tensor) -> Tensor:
    """A bumpy loss with many minima."""
    return ((7 * x).sin() + (x.roll(1, -1) - x).square() + 2 * (x - 0.4).square()).sum()


@pytest.mark.parametrize("first", [0.01, 0.5])
def test_the_loss_of_what_lbfgs_accepts_never_rises(first: float) -> None:
    def both(x: Tensor) -> tuple[float, Tensor]:
        leaf = x.clone().requires_grad_()
        loss = waves(leaf)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return float(loss.detach()), gradient

    x = draw(6)
    method = LBFGS(x, *both(x), first=first)
    accepted, refused = [both(x)[0]], 0
    for _ in range(80):
        before, trial = method.x, method.propose()
        assert float(trial.min()) >= 0
        assert float(trial.max()) <= 1
        loss, gradient = both(trial)
        method.tell(trial, loss, gradient)
        if method.x is before:
            refused += 1
        else:
            assert method.x is trial
            accepted.append(loss)
    assert all(later <= earlier for earlier, later in itertools.pairwise(accepted))
    assert accepted[-1] < accepted[0] - 1
    assert len(accepted) > 10
    assert refused > 0  # or the rule was not needed


# Books


@pytest.mark.parametrize("optimizer", BOTH)
@pytest.mark.parametrize("steps", [[1], [7], [3, 4, 5], [1, 1, 1], [20, 1]])
def test_every_evaluation_is_one_step_and_one_record(
    optimizer: OptimizerName, steps: list[int]
) -> None:
    sizes: list[Size] = [(3 * 2**i, 2 * 2**i) for i in range(len(steps))]
    asked = [Recorded(distance(draw(i, size=size))) for i, size in enumerate(sizes)]
    levels = [level(*each) for each in zip(asked, steps, sizes, strict=True)]
    iterates, result = finish(levels, draw(8, size=sizes[0]), optimizer=optimizer)
    assert [len(each.trials) for each in asked] == steps
    assert [each.step for each in iterates] == list(range(1, sum(steps) + 1))
    assert [each.level for each in iterates] == [i for i, n in enumerate(steps) for _ in range(n)]
    assert [each.loss for each in iterates] == [loss for each in asked for loss in each.losses]
    assert result.shape == (1, 3, sizes[-1][1], sizes[-1][0])
    assert not any(each.judged for each in asked[:-1])


@pytest.mark.parametrize(("steps", "scales"), [(1, 1), (2, 1), (9, 1), (10, 2), (40, 3)])
def test_few_steps_go_to_the_fine_scales(steps: int, scales: int) -> None:
    options = {"steps": steps, "scales": 3, "device": "cpu", "precision": "float32"}
    bench = Bench(make_settings(TransferSettings, options))
    levels = bench.levels((160, 130), lambda encoder, size: distance(draw(0, size=size)))
    assert sum(each.steps for each in levels) == steps
    assert min(each.steps for each in levels) >= 1
    assert len(levels) == scales
    assert levels[-1].size == (160, 130)
    assert [each.size for each in levels] == sorted(each.size for each in levels)


@pytest.mark.parametrize("optimizer", BOTH)
def test_the_best_is_the_lowest_so_far_and_never_written_to(optimizer: OptimizerName) -> None:
    asked = Recorded(parted(waves))
    iterates, _ = finish([level(asked, 40)], draw(6), optimizer=optimizer, rate=0.2)
    assert len({each.loss for each in iterates}) > 10
    for number, each in enumerate(iterates):
        lowest = min(range(number + 1), key=asked.losses.__getitem__)
        assert torch.equal(each.best, asked.trials[lowest])


@pytest.mark.parametrize("optimizer", BOTH)
def test_the_parts_are_those_of_the_objective(optimizer: OptimizerName) -> None:
    def objective(x: Tensor) -> dict[str, Tensor]:
        return {"near": (x - 0.3).square().sum(), "far": 0.5 * (x - 0.9).square().sum()}

    asked = Recorded(objective)
    iterates, result = finish([level(asked, 60)], draw(6), optimizer=optimizer)
    for each, x in zip(iterates, asked.trials, strict=True):
        parts = {name: float(part) for name, part in objective(x).items()}
        assert each.parts == pytest.approx(parts)
        assert each.loss == pytest.approx(sum(parts.values()))
    assert float((result - 0.5).abs().max()) < 0.1  # the sum of both is what goes down


@pytest.mark.parametrize("optimizer", BOTH)
def test_the_start_is_left_as_it_was(optimizer: OptimizerName) -> None:
    x = draw(6)
    before = x.clone()
    finish([level(parted(waves), 15)], x, optimizer=optimizer)
    assert torch.equal(x, before)
    assert not x.requires_grad


def test_each_level_begins_with_the_best_of_the_last() -> None:
    small, large = Recorded(distance(draw(2))), Recorded(distance(draw(2, size=(12, 8))))
    given: list[tuple[Size, Tensor | None]] = []

    def start(size: Size, coarser: Tensor | None) -> Tensor:
        given.append((size, coarser))
        return draw(6, size=size)

    levels = [level(small, 9), level(large, 3, (12, 8))]
    iterates = list(optimize(levels, start, Settings(optimizer="adam", rate=0.3)))
    # The last call asks for what a run at the last size would have begun with.
    assert [size for size, _ in given] == [SIZE, (12, 8), (12, 8)]
    assert given[2][1] is None
    assert given[0][1] is None
    assert given[1][1] is iterates[8].best
    assert not torch.equal(iterates[8].best, small.trials[-1])  # the last was not the best


def test_an_objective_is_made_when_its_level_begins_and_once() -> None:
    made: list[str] = []

    def maker(name: str, size: Size) -> Callable[[], Objective]:
        def make() -> Objective:
            made.append(name)
            return distance(draw(0, size=size))

        return make

    levels = [
        Level(SIZE, 2, maker("small", SIZE), maker("never", SIZE)),
        Level((12, 8), 2, maker("large", (12, 8)), maker("judge", (12, 8))),
    ]
    loop = optimize(levels, lambda size, coarser: draw(1, size=size), Settings())
    seen = []
    for _ in loop:
        seen.append(list(made))
    assert seen == [["small"], ["small"], ["small", "large"], ["small", "large"]]
    assert made == ["small", "large", "judge"]


# Never worse


class WrongWay(torch.autograd.Function):
    """The identity with its gradient turned round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def uphill(x: Tensor) -> Tensor:
    turned: Tensor = WrongWay.apply(x)  # type: ignore[no-untyped-call]
    return (turned - 0.5).square().sum()


@pytest.mark.parametrize("optimizer", BOTH)
@pytest.mark.parametrize("loss", [uphill, waves], ids=["uphill", "waves"])
@pytest.mark.parametrize("steps", [1, 2, 60])
def test_the_result_is_never_worse_than_the_start(
    optimizer: OptimizerName, loss: Callable[[Tensor], Tensor], steps: int
) -> None:
    x = draw(7)
    asked = Recorded(parted(loss))
    iterates, result = finish([level(asked, steps)], x, optimizer=optimizer)
    assert value(parted(loss), result) <= value(parted(loss), x)
    assert len(iterates) == steps
    if loss is uphill and steps == 60 and optimizer == "adam":
        assert max(asked.losses) > asked.losses[0]  # it did go up on the way


@pytest.mark.parametrize("optimizer", BOTH)
def test_where_every_step_is_worse_the_start_comes_back(optimizer: OptimizerName) -> None:
    x, count = draw(7), iter(range(1000))
    slope = draw(3, -1, 1)

    def worse(y: Tensor) -> Tensor:
        return (y * slope).sum() * 1e-3 + next(count)

    iterates, result = finish([level(parted(worse), 30)], x, optimizer=optimizer)
    assert all(torch.equal(each.best, x) for each in iterates)
    assert bool(result.isfinite().all())


@pytest.mark.parametrize("optimizer", BOTH)
def test_the_result_is_not_worse_than_the_start_for_the_judge(optimizer: OptimizerName) -> None:
    """The objective of less precision may praise what float32 finds worse."""
    x = draw(7)
    levels = [level(distance(draw(1)), 20, judge=lambda: distance(x))]
    _, result = finish(levels, x, optimizer=optimizer)
    assert value(distance(x), result) <= value(distance(x), x)


# Trouble


def spoiled(x: Tensor, how: str) -> Tensor:
    """A term that is 0, but not finite or huge in the way named."""
    zero = (x * 0).sum()
    match how:
        case "nan":
            return zero + math.nan
        case "inf":
            return zero + math.inf
        case "-inf":
            return zero - math.inf
        case "exploded":
            return zero + 1e9
    bad = x * 0
    bad.register_hook(lambda gradient: gradient * float(how.removeprefix("gradient ")))  # type: ignore[no-untyped-call]
    return bad.sum()


WAYS = ["nan", "inf", "-inf", "exploded", "gradient nan", "gradient inf"]


class Spoiled:
    """A distance that is spoiled at some steps, counted from 1."""

    def __init__(self, how: str, when: set[int]) -> None:
        self.how, self.when, self.step = how, when, 0

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        loss = (x - draw(1, 0.2, 0.8)).square().sum()
        if torch.is_grad_enabled():
            self.step += 1
            if self.step in self.when:
                loss = loss + spoiled(x, self.how)
        return {"loss": loss}


@pytest.mark.parametrize("optimizer", BOTH)
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("when", [{2}, {5}, {4, 5, 6}, {20}], ids=str)
def test_trouble_leads_back_to_the_best_and_is_told(
    optimizer: OptimizerName, how: str, when: set[int]
) -> None:
    asked = Recorded(Spoiled(how, when))
    x = draw(2, 0.2, 0.8)
    iterates, result = finish([level(asked, 20)], x, optimizer=optimizer)
    assert len(iterates) == len(asked.trials) == 20
    for each in iterates:
        if each.step in when:
            assert each.note is not None
            assert each.note.startswith(f"step {each.step}: the loss ")
            assert ("exploded" if how == "exploded" else "not finite") in each.note
            assert each.note.count("\n") == 0
        else:
            assert each.note is None
        assert bool(each.best.isfinite().all())
    assert bool(result.isfinite().all())
    clean = distance(draw(1, 0.2, 0.8))
    assert value(clean, result) < 0.9 * value(clean, x) or when == {4, 5, 6}
    assert value(clean, result) < value(clean, x)
    for step in when - {20}:  # the next trial is near the best picture again
        best = iterates[step - 1].best
        assert float((asked.trials[step] - best).abs().mean()) < 0.021


@pytest.mark.parametrize(("optimizer", "ratio"), [("lbfgs", 1 / 4), ("adam", 1 / 2)])
def test_after_trouble_the_step_is_smaller(optimizer: OptimizerName, ratio: float) -> None:
    asked = Recorded(Spoiled("nan", {2, 3}))
    x = draw(2, 0.2, 0.8)
    finish([level(asked, 4)], x, optimizer=optimizer)
    steps = [float((trial - x).abs().mean()) for trial in asked.trials[1:]]
    assert steps[0] > 0.005
    assert steps[1] == pytest.approx(steps[0] * ratio, rel=1e-3)
    assert steps[2] == pytest.approx(steps[1] * ratio, rel=1e-3)


def test_after_trouble_lbfgs_forgets_what_it_knew() -> None:
    target, weights, steps = draw(1, 0.3, 0.7), draw(3, 0.01, 1), itertools.count(1)

    def loss(x: Tensor) -> Tensor:
        clean = (weights * (x - target).square()).sum()
        return clean * math.nan if next(steps) == 8 else clean

    asked = Recorded(parted(loss))
    iterates, _ = finish([level(asked, 9)], draw(2, 0.3, 0.7))
    best = iterates[7].best
    step = asked.trials[8] - best
    gradient = 2 * weights * (best - target)
    assert float(F.cosine_similarity(step.flatten(), -gradient.flatten(), dim=0)) > 0.9999
    assert float(step.abs().mean()) == pytest.approx(0.01 / 4, rel=1e-3)


@pytest.mark.parametrize("optimizer", BOTH)
@pytest.mark.parametrize("how", WAYS)
def test_trouble_without_end_gives_the_start_back(optimizer: OptimizerName, how: str) -> None:
    x = draw(2)
    iterates, result = finish([level(Spoiled(how, set(range(2, 99))), 50)], x, optimizer=optimizer)
    assert torch.equal(result, x)
    assert sum(each.note is not None for each in iterates) == 49


@pytest.mark.parametrize("optimizer", BOTH)
@pytest.mark.parametrize("how", [way for way in WAYS if way != "exploded"])
def test_a_start_that_is_not_finite_is_an_error(optimizer: OptimizerName, how: str) -> None:
    with pytest.raises(RunError, match="starting picture is not finite"):
        finish([level(Spoiled(how, {1}), 5)], draw(2), optimizer=optimizer)
    levels = [level(distance(draw(0)), 3), level(Spoiled(how, {1}), 5)]
    with pytest.raises(RunError, match="starting picture is not finite"):
        finish(levels, draw(2), optimizer=optimizer)


# Adam


def test_adam_is_torchs_adam() -> None:
    target, x = draw(1, 0.4, 0.6), draw(2, 0.3, 0.7)
    weights = draw(3, 0.01, 1)

    def loss(y: Tensor) -> Tensor:
        return (weights * (y - target).abs() ** 3).sum()

    theirs = x.clone().requires_grad_()
    torchs = torch.optim.Adam([theirs], lr=0.01, betas=(ADAM.beta1, ADAM.beta2), eps=ADAM.epsilon)
    asked = Recorded(parted(loss))
    finish([level(asked, 30)], x, optimizer="adam", rate=0.01)
    for trial in asked.trials:
        assert 0 < float(trial.min()) < float(trial.max()) < 1  # or the clamp would differ
        torch.testing.assert_close(trial, theirs.detach(), rtol=0, atol=2e-6)
        torchs.zero_grad()
        loss(theirs).backward()  # type: ignore[no-untyped-call]
        torchs.step()


def test_the_rate_is_the_first_step_of_adam() -> None:
    x = draw(2, 0.3, 0.7)
    for rate in (0.01, 0.05):
        asked = Recorded(parted(lambda y: (y * draw(5, 0.5, 2)).sum()))
        finish([level(asked, 2)], x, optimizer="adam", rate=rate)
        torch.testing.assert_close(asked.trials[1], x - rate, rtol=0, atol=1e-6)


def test_adam_stays_in_the_box() -> None:
    asked = Recorded(distance(draw(1, -5, 5)))
    _, result = finish([level(asked, 40)], draw(2), optimizer="adam", rate=0.1)
    for x in [*asked.trials, result]:
        assert float(x.min()) >= 0
        assert float(x.max()) <= 1
    torch.testing.assert_close(result, draw(1, -5, 5).clamp(0, 1), rtol=0, atol=0.1)


def test_adam_takes_its_moments_to_the_next_scale() -> None:
    size, rate = (12, 8), 0.02
    small, large = Recorded(distance(draw(1))), Recorded(distance(draw(1, size=size)))
    levels = [level(small, 8), level(large, 5, size)]
    finish(levels, draw(2), optimizer="adam", rate=rate)
    m = v = torch.zeros_like(draw(1))
    for x in small.trials:  # Kingma & Ba 2015, algorithm 1
        gradient = 2 * (x - draw(1))
        m = ADAM.beta1 * m + (1 - ADAM.beta1) * gradient
        v = ADAM.beta2 * v + (1 - ADAM.beta2) * gradient**2
    m, v = m / (1 - ADAM.beta1**8), v / (1 - ADAM.beta2**8)
    m, v = (F.interpolate(each, (8, 12), mode="bicubic", antialias=True) for each in (m, v))
    v = v.clamp(min=0)
    for x, after in itertools.pairwise(large.trials):
        gradient = 2 * (x - draw(1, size=size))
        m = ADAM.beta1 * m + (1 - ADAM.beta1) * gradient
        v = ADAM.beta2 * v + (1 - ADAM.beta2) * gradient**2
        expected = (x - rate * m / (v.sqrt() + ADAM.epsilon)).clamp(0, 1)
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-4)


def test_adam_survives_a_gradient_that_is_all_in_one_place() -> None:
    """Bicubic resampling undershoots beside a peak, and Adam takes a root."""

    def corner(x: Tensor) -> Tensor:
        return 100 * (x[..., :1, :1] - 0.3).square().sum() + 1e-6 * x.square().sum()

    sizes: list[Size] = [(6, 4), (12, 8), (24, 16)]
    asked = [Recorded(parted(corner)) for _ in sizes]
    levels = [level(each, 6, size) for each, size in zip(asked, sizes, strict=True)]
    iterates, result = finish(levels, draw(2, 0.5, 0.7), optimizer="adam")
    assert all(bool(x.isfinite().all()) for each in asked for x in each.trials)
    assert [each.note for each in iterates if each.note] == []
    assert bool(result.isfinite().all())


def test_lbfgs_begins_anew_at_the_next_scale() -> None:
    objective = parted(waves)
    size = (12, 8)
    second = Recorded(objective)
    finish([level(objective, 9), level(second, 6, size)], draw(6))
    alone = Recorded(objective)
    finish([level(alone, 6, size)], second.trials[0])
    for found, expected in zip(second.trials, alone.trials, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


# The average


def exponential(trials: list[Tensor], decay: float = 0.9) -> Tensor:
    """The average in which each picture counts `decay` times as much as the next."""
    weights = [decay ** (len(trials) - 1 - i) for i in range(len(trials))]
    total = torch.stack([w * x.double() for w, x in zip(weights, trials, strict=True)]).sum(0)
    return (total / sum(weights)).float()


@pytest.mark.parametrize("steps", [2, 5, 30])
def test_the_judge_decides_between_the_best_and_the_average(steps: int) -> None:
    asked = Recorded(distance(draw(1)))
    iterates, _ = finish([level(asked, steps)], draw(2), optimizer="adam")
    best, average = iterates[-1].best, exponential(asked.trials[1:])
    for favourite in (best, average):
        levels = [level(distance(draw(1)), steps, judge=lambda x=favourite: distance(x))]
        _, result = finish(levels, draw(2), optimizer="adam")
        torch.testing.assert_close(result, favourite, rtol=0, atol=1e-6)
    assert steps == 2 or float((best - average).abs().max()) > 1e-3


def test_where_the_gradient_is_noisy_the_average_is_better() -> None:
    target, generator = draw(1, 0.3, 0.7), torch.Generator().manual_seed(0)

    def noisy(x: Tensor) -> Tensor:
        push = torch.randn(x.shape, generator=generator)
        return (x - target).square().sum() + ((x - x.detach()) * push).sum()

    asked = Recorded(parted(noisy))
    _, result = finish([level(asked, 150)], draw(2), optimizer="adam", rate=0.03)
    assert value(distance(target), result) < min(asked.losses)
    torch.testing.assert_close(result, exponential(asked.trials[1:]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", BOTH)
def test_an_average_whose_loss_is_not_a_number_is_not_taken(optimizer: OptimizerName) -> None:
    target = draw(1)
    asked = Recorded(distance(target))
    iterates, _ = finish([level(asked, 10)], draw(2), optimizer=optimizer)
    best = iterates[-1].best

    def judge(x: Tensor) -> Tensor:
        known = torch.allclose(x, best, rtol=0, atol=1e-7)
        return (x - target).square().sum() * (1.0 if known else math.nan)

    levels = [level(distance(target), 10, judge=lambda: parted(judge))]
    _, result = finish(levels, draw(2), optimizer=optimizer)
    torch.testing.assert_close(result, best, rtol=0, atol=1e-7)


def test_a_single_step_gives_the_start() -> None:
    x = draw(2)
    iterates, result = finish([level(distance(draw(1)), 1)], x)
    assert torch.equal(result, x)
    assert len(iterates) == 1
    assert iterates[0].loss == pytest.approx(value(distance(draw(1)), x))


# Rounds, and pixels that are clamped late


def test_rounds_divide_the_steps_and_each_begins_where_the_last_was_best() -> None:
    objective = Recorded(parted(waves))
    iterates, result = finish([level(objective, 10)], draw(1), rounds=3)
    assert [each.step for each in iterates] == list(range(1, 11))
    assert [each.round for each in iterates] == [None, None, 1, None, None, None, 2, None, None, 3]
    for first, last in ((3, 2), (7, 6)):  # evaluated again: an optimiser that knows nothing
        assert torch.equal(objective.trials[first], iterates[last].best)
        change = (objective.trials[first + 1] - objective.trials[first]).abs().mean()
        assert float(change) <= 0.0101  # LBFGS.first: its first step, of steepest descent
    assert value(objective, result) <= iterates[-1].best_loss


def test_one_round_says_nothing_of_it() -> None:
    iterates, _ = finish([level(parted(waves), 4)], draw(1))
    assert {each.round for each in iterates} == {None}


def test_more_rounds_than_steps() -> None:
    iterates, _ = finish([level(parted(waves), 6)], draw(1), rounds=20)
    assert [each.round for each in iterates] == [None, 1, None, 2, None, 3]  # each gets somewhere
    iterates, _ = finish([level(parted(waves), 1)], draw(1), rounds=20)
    assert [each.round for each in iterates] == [None]


@pytest.mark.parametrize("optimizer", BOTH)
def test_pixels_clamped_only_at_the_end_leave_the_range_until_then(
    optimizer: OptimizerName,
) -> None:
    target = draw(3, -0.5, 1.5)
    objective = Recorded(distance(target))
    _, result = finish([level(objective, 60)], draw(1), optimizer=optimizer, rate=0.1, clip="end")
    assert float(objective.trials[-1].min()) < -0.2
    assert float(objective.trials[-1].max()) > 1.2
    torch.testing.assert_close(result, target.clamp(0, 1), rtol=0, atol=0.05)
    assert all(float(x.min()) >= 0 and float(x.max()) <= 1 for x in objective.judged)


@pytest.mark.parametrize("optimizer", BOTH)
def test_pixels_clamped_after_every_round(optimizer: OptimizerName) -> None:
    objective = Recorded(distance(draw(3, -0.5, 1.5)))
    options: dict[str, Any] = {"optimizer": optimizer, "rate": 0.1, "rounds": 3, "clip": "round"}
    iterates, _ = finish([level(objective, 30)], draw(1), **options)
    outside = [bool(((x < 0) | (x > 1)).any()) for x in objective.trials]
    assert not any(outside[i] for i in (0, 10, 20))
    assert all(outside[i] for i in (9, 19, 29))
    for i in (10, 20):
        assert torch.equal(objective.trials[i], iterates[i - 1].best.clamp(0, 1))


def test_adam_in_units_of_255() -> None:
    """Rate 5, β 0.99 and 0.999, ε 0.1, of pixels in 0..255, against torch's own."""
    target = draw(3) * 255
    pixels = (draw(1, 0.3, 0.7) * 255).requires_grad_()
    torchs = torch.optim.Adam([pixels], lr=5.0, betas=(0.99, 0.999), eps=0.1)
    ours = Recorded(parted(lambda x: 1e-4 * (x * 255 - target).square().sum()))
    options = {"rate": 5.0, "beta1": 0.99, "beta2": 0.999, "epsilon": 0.1, "pixel_range": 255}
    finish([level(ours, 12)], draw(1, 0.3, 0.7), optimizer="adam", **options)
    for trial in ours.trials:
        torch.testing.assert_close(trial * 255, pixels.detach(), rtol=0, atol=0.01)
        torchs.zero_grad()
        loss = 1e-4 * (pixels - target).square().sum()
        (pixels.grad,) = torch.autograd.grad(loss, pixels)
        torchs.step()
        with torch.no_grad():
            pixels.clamp_(0, 255)
