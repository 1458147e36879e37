"""An encoder as it is trained: with batch norm and a classifier; and the way back to weights."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.encoder import Encoder, Plan
from impasto.settings import Padding, Pooling

__all__ = ["Classifier", "fold", "normalise", "statistics_kept", "warm_start"]


class Classifier(nn.Module):
    """The encoder with batch norm after every convolution, and a linear classifier on top."""

    mean: Tensor
    std: Tensor

    def __init__(self, plan: Plan, classes: int, pooling: Pooling, padding: Padding) -> None:
        super().__init__()
        self.plan, self.pooling = plan, pooling
        self.convolutions, self.norms = nn.ModuleDict(), nn.ModuleDict()
        mode = "zeros" if padding == "zero" else padding
        before = 3
        for layer, channels in plan.channels.items():
            conv = nn.Conv2d(before, channels, 3, padding=1, padding_mode=mode, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            self.convolutions[layer] = conv
            self.norms[layer] = nn.BatchNorm2d(channels)
            before = channels
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(before, classes)
        self.register_buffer("mean", torch.tensor(plan.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(plan.std).view(1, 3, 1, 1), persistent=False)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Every layer's output for pictures `(N, 3, H, W)` in [0, 1]."""
        found: dict[str, Tensor] = {}
        x = (x - self.mean) / self.std
        for layer in self.plan.layers:
            if layer.endswith("_1") and found:
                x = F.avg_pool2d(x, 2) if self.pooling == "avg" else F.max_pool2d(x, 2)
            x = found[layer] = F.relu(self.norms[layer](self.convolutions[layer](x)))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """The logits `(N, classes)` of pictures `(N, 3, H, W)` in [0, 1]."""
        last = self.features(x)[self.plan.layers[-1]]
        logits: Tensor = self.head(self.dropout(last.mean((2, 3))))
        return logits


def _layer(net: Classifier, layer: str) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """The convolution of a layer and its norm."""
    conv, norm = net.convolutions[layer], net.norms[layer]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return conv, norm


@contextmanager
def statistics_kept(net: nn.Module) -> Iterator[None]:
    """Batches seen meanwhile do not count for the running statistics of batch norm."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


@torch.no_grad()
def warm_start(net: Classifier, weights: Mapping[str, Tensor], x: Tensor) -> None:
    """Takes on the weights of an encoder: batch norm undoes itself on the pictures `x`.

    Filters and activations are scaled as if they were fresh, which leaves the features as they are
    but for one factor a layer, so that rate and decay mean what they mean for a run from scratch.
    """
    x = (x - net.mean) / net.std
    before = 1.0  # how many times larger activations are than those of the weight file
    for layer in net.plan.layers:
        if layer.endswith("_1") and layer != net.plan.layers[0]:
            x = F.avg_pool2d(x, 2) if net.pooling == "avg" else F.max_pool2d(x, 2)
        name = layer.replace("relu", "conv")
        weight, bias = weights[f"{name}.weight"].to(x.device), weights[f"{name}.bias"].to(x.device)
        conv, norm = _layer(net, layer)
        scale = float(math.sqrt(2 / weight[0].numel()) / weight.square().mean().sqrt())
        conv.weight.copy_(weight * scale)
        y = conv(x)
        variance, mean = torch.var_mean(y, (0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(variance)  # type: ignore[union-attr]
        spread = variance.mean().sqrt()
        after = float(scale * before / spread)
        norm.weight.copy_(variance.sqrt() / spread)
        norm.bias.copy_(mean / spread + bias * after)
        x, before = F.relu(y / spread + (bias * after).view(1, -1, 1, 1)), after


def fold(net: Classifier) -> dict[str, Tensor]:
    """The weights of the encoder: batch norm's scale and shift taken into the convolutions."""
    weights: dict[str, Tensor] = {}
    for layer in net.plan.layers:
        conv, norm = _layer(net, layer)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        name = layer.replace("relu", "conv")
        weights[f"{name}.weight"] = (conv.weight * scale.view(-1, 1, 1, 1)).detach().cpu()
        weights[f"{name}.bias"] = (norm.bias - norm.running_mean * scale).detach().cpu()
    return weights


@torch.no_grad()
def normalise(
    weights: Mapping[str, Tensor],
    plan: Plan,
    photos: Sequence[Tensor],
    pooling: Pooling,
    padding: Padding,
) -> dict[str, Tensor]:
    """The weights, scaled so that every layer has mean activation 1 over the photos.

    As Gatys et al. 2015 (section "Methods") do with VGG-19. ReLU and pooling commute with a
    positive factor, so the network computes the same but for the factors.
    """
    encoder = Encoder(plan, weights, pooling=pooling, padding=padding)
    sums = dict.fromkeys(plan.layers, 0.0)
    for photo in photos:
        for layer, features in encoder(photo, plan.layers).items():
            sums[layer] += float(features.mean())
    scaled: dict[str, Tensor] = {}
    before = 1.0
    for layer in plan.layers:
        mean = sums[layer] / len(photos)
        name = layer.replace("relu", "conv")
        scaled[f"{name}.weight"] = weights[f"{name}.weight"] * (before / mean)
        scaled[f"{name}.bias"] = weights[f"{name}.bias"] / mean
        before = mean
    return scaled
