"""Muon: steps that move a layer equally far in all directions."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from impasto.compute import choose_dtype

__all__ = ["Muon", "orthogonal"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that brings singular values near 1 in five steps (Jordan et al. 2024)."""


def orthogonal(matrix: Tensor) -> Tensor:
    """About U Vᵀ where `matrix` is U Σ Vᵀ: its singular values become 0.7 to 1.2.

    Args:
        matrix: `(rows, columns)`.
    """
    a, b, c = COEFFICIENTS
    X = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    X = X.to(choose_dtype(matrix.device, "auto"))  # emulated, it takes a third of a step
    X = X / (X.norm() + 1e-7)
    for _ in range(5):
        A = X @ X.mT
        X = torch.addmm(X, torch.addmm(A, A, A, beta=b, alpha=c), X, beta=a)
    X = X.to(matrix.dtype)
    made: Tensor = X.mT if matrix.shape[0] > matrix.shape[1] else X
    return made


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal (Jordan et al. 2024, Muon).

    A gradient of a convolution has a few strong directions, and steps along it leave the weak ones
    behind; Adam, which looks at single weights, does not even that out. `torch.optim.Muon` takes
    matrices only; here a filter bank is a matrix with a row for each filter.

    Args:
        params: weights of at least two dimensions, or groups of them.
        lr: the root mean square of a step, over 0.2: so rates are those of Adam (Liu et al. 2025,
            eq. 4).
        momentum: share of the old gradients that is kept.
    """

    def __init__(self, params: Iterable[Any], *, lr: float = 0.0, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                mean = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(mean, group["momentum"]).flatten(1)  # Nesterov
                step = orthogonal(ahead) * 0.2 * max(ahead.shape) ** 0.5
                p.sub_(step.view_as(p), alpha=group["lr"])
