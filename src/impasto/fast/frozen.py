"""The encoder as the one-pass network uses it: frozen, and exportable."""

from collections.abc import Collection
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.encoder import Encoder

__all__ = ["DEPTHS", "Frozen"]

DEPTHS: Final = {"half": "relu2_1", "quarter": "relu3_1", "eighth": "relu4_1"}
"""Where the first look transforms features, and whose moments codes are fitted by: their
resolution, as a share of what is seen, and the encoder's layer."""

DEEPEST: Final = "relu4_1"
"""The encoder's last layer that is looked at."""

BAND: Final = 128
"""Rows, px, of which the encoder's first block is made at a time."""


class Frozen(nn.Module):
    """An encoder up to `DEEPEST` as a module that can be exported; it has no parameters.

    Args:
        encoder: whose weights it takes; with average pooling and replicated borders.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.name, self.sha256 = encoder.name, encoder.sha256
        self.channels = encoder.plan.channels
        self._layers: list[str] = []
        for layer, weight, bias in encoder.convolutions(DEEPEST):
            self._layers.append(layer)
            self.register_buffer(f"{layer}_weight", weight, persistent=False)
            self.register_buffer(f"{layer}_bias", bias, persistent=False)
        for name, values in (("mean", encoder.plan.mean), ("std", encoder.plan.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def layers(self, x: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """The features at some layers, by the encoder's names, shallow to deep."""
        x = (x - self.get_buffer("mean")) / self.get_buffer("std")
        found, begun = {}, 0
        if not {"relu1_1", "relu1_2"}.intersection(wanted) and not torch.compiler.is_compiling():
            x, begun = self._first_block(x), 2
        for number, layer in enumerate(self._layers[begun:], begun):
            if layer.endswith("_1") and number > begun:
                x = F.avg_pool2d(x, 2)
            x = self._convolved(layer, x)
            if layer in wanted:
                found[layer] = x
            if len(found) == len(wanted):
                break
        return found

    def _first_block(self, x: Tensor) -> Tensor:
        """The first block and its pooling, band by band of rows.

        Its maps are the largest by far: all at once, they would leave the processor's cache. The
        height is even, and the block has two layers, as all of ours have.
        """
        height, parts = x.shape[2], []
        for top in range(0, height, BAND):
            bottom = min(top + BAND, height)
            above, below = int(top == 0), int(bottom == height)
            y = x[:, :, max(0, top - 2) : bottom + 2]
            for layer in ("relu1_1", "relu1_2"):
                y = self._convolved(layer, y, above, below)
            parts.append(F.avg_pool2d(y, 2))
        return torch.cat(parts, 2)

    def _convolved(self, layer: str, x: Tensor, above: int = 1, below: int = 1) -> Tensor:
        """What a layer makes of its input, so many of whose border rows are repeated."""
        x = F.pad(x, (1, 1, above, below), mode="replicate")
        weight, bias = self.get_buffer(f"{layer}_weight"), self.get_buffer(f"{layer}_bias")
        return F.conv2d(x, weight, bias).relu_()
