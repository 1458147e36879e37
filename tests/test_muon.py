"""Muon: steps that move a layer equally far in all directions."""

import pytest
import torch
from torch import nn

from training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(24, 24), (8, 72), (72, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    U, S, V = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonal(U @ torch.diag(S**2) @ V)  # worse conditioned than a random one
    found = torch.linalg.svdvals(made)
    assert float(found.max()) < 1.3
    assert float(found[0.01 * float((S**2).max()) < S**2].min()) > 0.6
    assert float((made * (U @ V)).sum() / (made.norm() * (U @ V).norm())) > 0.95
    assert made.dtype == matrix.dtype


def test_a_step_is_as_long_as_one_of_adam() -> None:
    torch.manual_seed(1)
    weights = [nn.Parameter(torch.randn(32, 16, 3, 3)), nn.Parameter(torch.randn(40, 20))]
    weights[0].data = weights[0].data.contiguous(memory_format=torch.channels_last)
    before = [w.detach().clone() for w in weights]
    muon = Muon(weights, lr=0.01)
    for w in weights:
        w.grad = 1e3 * torch.randn_like(w)
    muon.step()
    for w, old in zip(weights, before, strict=True):
        moved = float((w.detach() - old).square().mean().sqrt())
        assert 0.6 * 0.2 * 0.01 < moved < 1.3 * 0.2 * 0.01
        assert float(((w.detach() - old) * w.grad).sum()) < 0  # type: ignore[operator]


def descend(optimizer: torch.optim.Optimizer, w: nn.Parameter, steps: int) -> float:
    """The largest weight of a badly scaled quadratic after steps whose rate falls to 0."""
    scales = torch.logspace(0, -1, 16)
    loss = torch.zeros(())
    for step in range(steps):
        loss = (scales[:, None] * w).square().sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.param_groups[0]["lr"] = 0.5 * (1 - step / steps)
        optimizer.step()
    return float((w.detach()).abs().max())


def test_weak_directions_are_not_left_behind() -> None:
    """Gradient descent hardly moves what has a hundredth of the curvature; Muon does."""
    torch.manual_seed(2)
    start = torch.randn(16, 16)
    with_muon, plain = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    assert descend(Muon([with_muon]), with_muon, 100) < 0.25 * float(start.abs().max())
    assert descend(torch.optim.SGD([plain], lr=0.5), plain, 100) > 0.5 * float(
        start[-1].abs().max()
    )


def test_it_goes_on_from_its_state() -> None:
    torch.manual_seed(3)
    grads = torch.randn(4, 6, 5)
    straight, first = nn.Parameter(torch.ones(6, 5)), nn.Parameter(torch.ones(6, 5))
    muon, early = Muon([straight], lr=0.1), Muon([first], lr=0.1)
    for grad in grads:
        straight.grad = grad.clone()
        muon.step()
    for grad in grads[:2]:
        first.grad = grad.clone()
        early.step()
    later = nn.Parameter(first.detach().clone())
    late = Muon([later], lr=0.7)
    late.load_state_dict(early.state_dict())
    for grad in grads[2:]:
        later.grad = grad.clone()
        late.step()
    assert torch.equal(straight, later)


def test_weights_without_a_gradient_stay() -> None:
    w = nn.Parameter(torch.ones(3, 3))
    Muon([w], lr=1.0).step()
    assert torch.equal(w.detach(), torch.ones(3, 3))
