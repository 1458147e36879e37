"""The order in which training pictures are seen."""

import torch
from torch import Tensor

from impasto.seeds import derive_seed

__all__ = ["Shuffle"]


class Shuffle:
    """The order in which pictures are seen: every pass a new one, none twice within a pass.

    Args:
        count: how many pictures there are.
        seed: of the orders.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._pass, self._order = -1, torch.empty(0, dtype=torch.long)

    def indices(self, seen: int, batch: int) -> Tensor:
        """Which pictures come after `seen` of them: `(batch,)`, int64."""
        parts = []
        while batch > 0:
            number, place = divmod(seen, self.count)
            if number != self._pass:
                generator = torch.Generator().manual_seed(derive_seed(self.seed, "pass", number))
                self._pass, self._order = number, torch.randperm(self.count, generator=generator)
            parts.append(self._order[place : place + batch])
            seen, batch = seen + len(parts[-1]), batch - len(parts[-1])
        return torch.cat(parts)
