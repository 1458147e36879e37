"""Averages of weights over a training run."""

import copy
from typing import Any

import torch
from torch import nn

__all__ = ["Average"]


class Average:
    """An exponential moving average of a module's weights and buffers.

    The weights that are worth keeping of a run whose rate is not at its end (Polyak & Juditsky
    1992; as used for generators, Karras et al. 2018, appendix A).

    Attributes:
        module: a copy of the module, in evaluation mode, that holds the average.

    Args:
        module: what to average.
        half_life: after so many pictures the old average counts half.
    """

    def __init__(self, module: nn.Module, half_life: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.half_life = half_life

    @torch.no_grad()
    def update(self, module: nn.Module, pictures: int) -> None:
        """Takes the module in as it is after another so many pictures."""
        share = 1 - 0.5 ** (pictures / self.half_life)
        theirs = module.state_dict()
        for name, mine in self.module.state_dict().items():
            if mine.is_floating_point():
                mine.lerp_(theirs[name], share)
            else:
                mine.copy_(theirs[name])

    def state_dict(self) -> dict[str, Any]:
        """The average."""
        return self.module.state_dict()

    def load_state_dict(self, state: Any, /) -> None:
        """Takes an average on."""
        self.module.load_state_dict(state)
