"""The loop: pixels down the gradient, one loss-and-gradient evaluation at a time.

The optimisers only decide where to look next. They are asked for a trial picture and told its loss
and gradient; the loop in between counts, watches for trouble, keeps the best picture and the
average of all, and yields a record after every evaluation. So one loop serves every optimiser and
every job, and nothing in it knows about styles or photos.

All pictures here are `(1, 3, H, W)`, float32, sRGB in [0, 1]. By default every trial is clamped to
that range, so that the loss reported is the loss of a picture that can be saved; presets that
follow an article may clamp later, and then only the result's loss is.
"""

import functools
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from impasto.errors import RunError
from impasto.pyramid import Size, divide_steps, resample
from impasto.settings import Settings

__all__ = ["LBFGS", "Adam", "Iterate", "Level", "Objective", "optimize"]

Objective = Callable[[Tensor], Mapping[str, Tensor]]
"""The weighted parts of the loss of a picture, by name; the loss is their sum."""

EXPLODED = 100.0
"""A loss this many times the scale's first one counts as exploded."""


@dataclass(frozen=True)
class Level:
    """One scale of a run.

    Attributes:
        size: (W, H) of the picture, px.
        steps: how many evaluations.
        objective: makes the objective; called once, when the level begins.
        judge: makes the objective in float32 where `objective` computes in less; else None.
    """

    size: Size
    steps: int
    objective: Callable[[], Objective]
    judge: Callable[[], Objective] | None = None


@dataclass(frozen=True)
class Iterate:
    """What the loop yields after each evaluation.

    Attributes:
        level: index of the scale, from 0.
        step: evaluations so far over all scales, from 1.
        loss: of the picture just tried.
        parts: of that loss, weighted.
        best: the picture of the lowest loss so far at this scale; do not write to it.
        best_loss: its loss.
        note: what the user should hear about, in one line; else None.
        round: the number of the round that ends here, from 1, if there are several; else None.
    """

    level: int
    step: int
    loss: float
    parts: Mapping[str, float]
    best: Tensor
    best_loss: float
    note: str | None = None
    round: int | None = None


class Optimizer(Protocol):
    """What the loop needs of an optimiser.

    Attributes:
        x: the picture that it has accepted last.
    """

    x: Tensor

    def propose(self) -> Tensor:
        """The picture to try next; a new tensor."""

    def tell(self, trial: Tensor, loss: float, gradient: Tensor) -> None:
        """Reports what the trial came to. Both numbers are finite."""

    def retreat(self, x: Tensor, loss: float, gradient: Tensor) -> None:
        """Goes back to `x`, forgets the rest, and goes on in smaller steps."""


class LBFGS:
    """Limited-memory BFGS (Nocedal & Wright 2006, algorithm 7.4) within the box [0, 1].

    Pixels at the border of the box that the gradient pushes outward are held; the rest moves along
    the quasi-Newton direction and is clamped. A trial counts if it lowers the loss enough (Armijo);
    otherwise the step is shortened by the minimum of the parabola through what is known.

    Args:
        x: where to start.
        loss: there.
        gradient: there.
        memory: how many pairs of differences are remembered.
        first: mean absolute change of a pixel in the first step, in [0, 1] units.
        bounded: whether there is a box; without it pixels go where they want.
    """

    def __init__(
        self,
        x: Tensor,
        loss: float,
        gradient: Tensor,
        *,
        memory: int = 10,
        first: float = 0.01,
        bounded: bool = True,
    ) -> None:
        self.memory = memory
        self.first = first
        self._bounded = bounded
        self._pairs: list[tuple[Tensor, Tensor, float]] = []  # s, y, 1/(s·y)
        self._accept(x, loss, gradient)

    def propose(self) -> Tensor:
        """The next point along the current direction, clamped to the box."""
        trial = torch.add(self.x, self._direction, alpha=self._length)
        return trial.clamp_(0, 1) if self._bounded else trial

    def tell(self, trial: Tensor, loss: float, gradient: Tensor) -> None:
        """Moves to the trial if the loss fell enough; else shortens the step."""
        step = trial - self.x
        slope = _dot(step, self._gradient)
        if loss > self._loss + 1e-4 * min(slope, 0.0):
            self._shorten(loss, slope)
            return
        change = gradient - self._gradient
        curvature = _dot(step, change)
        squared = _dot(change, change)
        # Relative to |s||y|: whether a pair is kept must not depend on the unit of the loss.
        if 1e-30 < squared < 1e37 and curvature > 1e-6 * math.sqrt(squared * _dot(step, step)):
            self._pairs.append((step, change, 1 / curvature))
            del self._pairs[: -self.memory]
        self._accept(trial, loss, gradient)

    def retreat(self, x: Tensor, loss: float, gradient: Tensor) -> None:
        """Drops the history and starts again from `x` with a quarter of the first step."""
        self._pairs.clear()
        self.first /= 4
        self._accept(x, loss, gradient)

    def _accept(self, x: Tensor, loss: float, gradient: Tensor) -> None:
        self.x, self._loss, self._gradient = x, loss, gradient
        free = gradient
        if self._bounded:
            held = ((x <= 0) & (gradient > 0)) | ((x >= 1) & (gradient < 0))
            free = gradient.masked_fill(held, 0)
        direction = self._newton(free) if self._pairs else free.neg()
        if self._bounded:
            direction.masked_fill_(held, 0)
        if _dot(direction, free) >= 0:  # no descent: the history misleads
            self._pairs.clear()
            direction = free.neg()
        self._direction = direction
        mean = float(direction.abs().mean())
        self._length = 1.0 if self._pairs else min(self.first / max(mean, 1e-30), 1e30)

    def _newton(self, gradient: Tensor) -> Tensor:
        """The two-loop recursion: −H·gradient."""
        q = gradient.neg()
        alphas: list[float] = []
        for s, y, rho in reversed(self._pairs):
            alphas.append(rho * _dot(s, q))
            q.add_(y, alpha=-alphas[-1])
        _, y, rho = self._pairs[-1]
        q.mul_(1 / (rho * _dot(y, y)))
        for (s, y, rho), alpha in zip(self._pairs, reversed(alphas), strict=True):
            q.add_(s, alpha=alpha - rho * _dot(y, q))
        return q

    def _shorten(self, loss: float, slope: float) -> None:
        excess = loss - self._loss - slope
        ratio = -slope / (2 * excess) if excess > 0 and slope < 0 else 0.1
        self._length *= min(max(ratio, 0.1), 0.5)
        if self._length < 1e-6 and self._pairs:  # a hopeless direction: steepest descent instead
            self._pairs.clear()
            self._accept(self.x, self._loss, self._gradient)


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1), clamped to [0, 1].

    Args:
        x: where to start.
        loss: there (unused; as for the others).
        gradient: there.
        rate: step size, in [0, 1] units per step.
        betas: decays of the first and the second moment.
        epsilon: added to the root of the second moment, in loss per [0, 1] unit.
        moments: first and second moments to go on with, as `moments` gives them, or None.
        bounded: whether pixels stay in [0, 1].
    """

    def __init__(
        self,
        x: Tensor,
        loss: float,
        gradient: Tensor,
        *,
        rate: float = 0.02,
        betas: tuple[float, float] = (0.9, 0.99),
        epsilon: float = 1e-12,
        moments: tuple[Tensor, Tensor] | None = None,
        bounded: bool = True,
    ) -> None:
        del loss
        self.x = x
        self.rate = rate
        self._betas = betas
        self._epsilon = epsilon
        self._bounded = bounded
        self._m, self._v = moments or (torch.zeros_like(x), torch.zeros_like(x))
        # Resampled moments are already of full size: no bias left to correct.
        self._bias = (0.0, 0.0) if moments else (1.0, 1.0)
        self._learn(gradient)

    def propose(self) -> Tensor:
        """The next picture."""
        b1, b2 = self._bias
        m, v = self._m / (1 - b1), self._v / (1 - b2)
        trial = self.x - self.rate * m / (v.sqrt() + self._epsilon)
        return trial.clamp_(0, 1) if self._bounded else trial

    def tell(self, trial: Tensor, loss: float, gradient: Tensor) -> None:
        """Moves to the trial, whatever its loss."""
        del loss
        self.x = trial
        self._learn(gradient)

    def retreat(self, x: Tensor, loss: float, gradient: Tensor) -> None:
        """Forgets the moments and goes on from `x` at half the rate."""
        del loss
        self.x = x
        self.rate /= 2
        self._m.zero_()
        self._v.zero_()
        self._bias = (1.0, 1.0)
        self._learn(gradient)

    def moments(self, size: Size) -> tuple[Tensor, Tensor]:
        """Both moments at another size, for the next scale."""
        b1, b2 = self._bias
        return resample(self._m / (1 - b1), size), resample(self._v / (1 - b2), size).clamp_(min=0)

    def _learn(self, gradient: Tensor) -> None:
        b1, b2 = self._betas
        self._m = torch.lerp(gradient, self._m, b1)
        self._v = torch.lerp(gradient.square(), self._v, b2)
        self._bias = (self._bias[0] * b1, self._bias[1] * b2)


@dataclass
class _Average:
    """An exponential average of the iterates, corrected for its start."""

    decay: float = 0.9
    weight: float = 0.0
    total: Tensor | None = field(default=None, repr=False)

    def add(self, x: Tensor) -> None:
        self.total = (
            x * (1 - self.decay) if self.total is None else self.total.lerp(x, 1 - self.decay)
        )
        self.weight = self.weight * self.decay + (1 - self.decay)

    def picture(self) -> Tensor:
        assert self.total is not None
        return (self.total / self.weight).clamp_(0, 1)


Moments = tuple[Tensor, Tensor]


class Make(Protocol):
    """Makes an optimiser from where it starts, and for Adam the moments to go on with."""

    def __call__(
        self, x: Tensor, loss: float, gradient: Tensor, moments: Moments | None = None
    ) -> LBFGS | Adam: ...


def make_method(settings: Settings) -> Make:
    """What makes the optimiser that the settings ask for.

    Pixels are in [0, 1] here: what the settings say in units of `pixel_range` is converted.
    """
    bounded, unit = settings.clip == "step", settings.pixel_range

    def make(
        x: Tensor, loss: float, gradient: Tensor, moments: Moments | None = None
    ) -> LBFGS | Adam:
        if settings.optimizer == "lbfgs":
            return LBFGS(x, loss, gradient, memory=settings.memory, bounded=bounded)
        return Adam(
            x,
            loss,
            gradient,
            rate=settings.rate / unit,
            betas=(settings.beta1, settings.beta2),
            epsilon=settings.epsilon * unit,
            moments=moments,
            bounded=bounded,
        )

    return make


def optimize(
    levels: list[Level], start: Callable[[Size, Tensor | None], Tensor], settings: Settings
) -> Generator[Iterate, None, tuple[Tensor, float]]:
    """Minimises the levels' objectives in turn, coarse to fine.

    Args:
        levels: the scales; at least one.
        start: the picture with which a level begins, from its size and the last level's result;
            from None, that with which a run at this size would begin.
        settings: the optimiser and its figures; the rounds of a scale, each of which begins with
            an evaluation and an optimiser that remembers nothing; and when pixels are clamped. From
            scale to scale Adam's moments are resampled, and L-BFGS's history is dropped.

    Yields:
        An `Iterate` after every evaluation.

    Returns:
        A picture in [0, 1] and its loss in float32: of the last scale's best picture, the average
        of its iterates, its start, and the start of the whole run at that size, the one with the
        lowest.

    Raises:
        RunError: the loss of a scale's start is not finite.
    """
    picture: Tensor | None = None
    moments: Moments | None = None
    make = make_method(settings)
    done = 0
    for index, level in enumerate(levels):
        x = begin = start(level.size, picture)
        objective = level.objective()
        average = _Average()
        most = max(1, level.steps // 2)  # a round of one step would get nowhere
        rounds = divide_steps(level.steps, [1.0] * min(settings.rounds, most))
        for number, steps in enumerate(rounds, 1):
            first = make if number > 1 else functools.partial(make, moments=moments)
            descent = _descend(objective, x, steps, first, average)
            for step in range(1, steps + 1):
                tried = next(descent)
                done += 1
                note = f"step {done}: {tried.note}" if tried.note else None
                ended = number if step == steps and len(rounds) > 1 else None
                yield Iterate(
                    index, done, tried.loss, tried.parts, tried.best, tried.best_loss, note, ended
                )
            best, method = tried.best, tried.method
            x = best if settings.clip == "end" else best.clamp(0, 1)
        if isinstance(method, Adam):
            moments = method.moments(levels[min(index + 1, len(levels) - 1)].size)
        picture = best
    judge = level.judge() if level.judge else objective
    candidates = [best, begin, start(level.size, None)]
    if average.total is not None:
        candidates.append(average.picture())
    judged = [(_loss(judge, x), x) for x in (each.clamp(0, 1) for each in candidates)]
    lowest, picture = min(judged, key=lambda pair: pair[0])
    return picture, lowest


@dataclass(frozen=True)
class _Tried:
    """An evaluation: what it came to, the best so far, and the optimiser."""

    loss: float
    parts: Mapping[str, float]
    best: Tensor
    best_loss: float
    note: str | None
    method: LBFGS | Adam


def _descend(
    objective: Objective, x: Tensor, steps: int, make: Make, average: _Average
) -> Generator[_Tried, None, None]:
    """One round: `steps` evaluations from `x` on, the first of them at `x`."""
    parts, gradient = _evaluate(objective, x)
    loss = first = math.fsum(parts.values())
    if not (math.isfinite(loss) and bool(gradient.isfinite().all())):
        raise RunError(
            "the loss of the starting picture is not finite; use smaller weights "
            "or a float32 encoder"
        )
    method = make(x, loss, gradient)
    best, best_loss, best_gradient = x, loss, gradient
    yield _Tried(loss, parts, best, best_loss, None, method)
    for _ in range(steps - 1):
        x = method.propose()
        parts, gradient = _evaluate(objective, x)
        loss = math.fsum(parts.values())
        note = _trouble(loss, first, gradient)
        if note:
            method.retreat(best, best_loss, best_gradient)
        else:
            method.tell(x, loss, gradient)
            average.add(method.x)
            if loss < best_loss:
                best, best_loss, best_gradient = x, loss, gradient
        yield _Tried(loss, parts, best, best_loss, note, method)


def _evaluate(objective: Objective, x: Tensor) -> tuple[dict[str, float], Tensor]:
    """The loss's parts at `x` and the gradient of their sum."""
    leaf = x.detach().requires_grad_()
    parts = objective(leaf)
    (gradient,) = torch.autograd.grad(torch.stack(list(parts.values())).sum(), leaf)
    return {name: float(part.detach()) for name, part in parts.items()}, gradient


def _loss(objective: Objective, x: Tensor) -> float:
    """The loss at `x`, infinite where it is not a number."""
    with torch.no_grad():
        loss = math.fsum(float(part) for part in objective(x).values())
    return loss if math.isfinite(loss) else math.inf


def _trouble(loss: float, first: float, gradient: Tensor) -> str | None:
    """What is wrong with an evaluation, in words for the user; None if nothing is."""
    if not (math.isfinite(loss) and bool(gradient.isfinite().all())):
        return "the loss was not finite; back to the best picture, with a smaller step"
    if loss > EXPLODED * max(first, 1e-12):
        return "the loss exploded; back to the best picture, with a smaller step"
    return None


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.flatten(), b.flatten()))
