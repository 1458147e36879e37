"""The layers of the style-based networks, all with equalised learning rates.

A weight is drawn from N(0, 1) and multiplied by its layer's gain / √fan-in at every use (Karras et
al. 2018, arXiv:1710.10196, section 4.1): Adam's steps, which have the same size whatever the
gradient's, then change every layer as much beside its own weights.
"""

import math
from contextlib import AbstractContextManager
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "GAIN",
    "Convolution",
    "Dense",
    "Modulated",
    "ToRGB",
    "active",
    "exact",
    "halved",
    "minibatch_deviation",
    "normalised",
    "upsampled",
]

LEAK: Final = 0.2
GAIN: Final = math.sqrt(2)
"""Slope of leaky ReLU, and what keeps a signal's variance through it (He et al. 2015)."""

PALE: Final = 0.3
"""Fresh colours, beside those of other weights: paintings are no sums of five glaring noises."""

EPSILON: Final = 1e-8


class Dense(nn.Module):
    """A fully connected layer, `(N, before)` to `(N, after)`.

    Args:
        before, after: numbers in and out.
        bias: what its bias begins with.
        rate: of its learning, beside other layers' (Karras et al. 2019, appendix C).
        gain: of its weights.
    """

    def __init__(
        self, before: int, after: int, *, bias: float = 0.0, rate: float = 1.0, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before) / rate)
        self.bias = nn.Parameter(torch.full((after,), bias / rate))
        self.rate, self.scale = rate, gain * rate / math.sqrt(before)

    def forward(self, x: Tensor) -> Tensor:
        """What it makes of x."""
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class Convolution(nn.Module):
    """A convolution that keeps the side, `(N, before, H, W)` to `(N, after, H, W)`.

    Args:
        before, after: channels.
        kernel: 1 or 3, px.
        bias: whether it has one.
        gain: of its weights.
    """

    def __init__(
        self, before: int, after: int, kernel: int = 3, *, bias: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after)) if bias else None
        self.scale = gain / math.sqrt(before * kernel * kernel)
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """What it makes of x."""
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class Modulated(nn.Module):
    """A 3×3 convolution whose input channels a style scales, then noise, bias and leaky ReLU.

    Karras et al. 2020 (arXiv:1912.04958), section 2.2: the output is divided by the deviation that
    the scaled weights would give it, so that a style cannot make a feature map large. We scale the
    maps, not the weights, which is the same and needs one convolution for the whole batch.

    Args:
        before, after: channels.
        style: numbers in w.
        up: whether the side is doubled, after the convolution and before the noise.
    """

    def __init__(self, before: int, after: int, style: int, *, up: bool = False) -> None:
        super().__init__()
        self.affine = Dense(style, before, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after, before, 3, 3))
        self.bias = nn.Parameter(torch.zeros(after))
        self.strength = nn.Parameter(torch.zeros(()))
        self.scale = 1 / math.sqrt(before * 9)
        self.up = up

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """Feature maps of a style.

        Args:
            x: `(N, before, H, W)`.
            w: `(N, style)`.
            noise: `(N or 1, 1, h, w)` of the output's side, from N(0, 1).

        Returns:
            `(N, after, h, w)`.
        """
        weight = self.weight * self.scale
        with exact(w):
            style = self.affine(w)
            energy = weight.square().sum((2, 3))  # (after, before)
            size = torch.rsqrt(F.linear(style.square(), energy) + EPSILON) * GAIN  # (N, after)
        y = F.conv2d(x * _maps(style, x), weight, padding=1)
        y = upsampled(y) if self.up else y
        y = torch.addcmul(self.bias.to(y.dtype).view(1, -1, 1, 1), y, _maps(size, y))
        y = y.add_((noise * self.strength).to(y.dtype))
        return active(y)


class ToRGB(nn.Module):
    """Feature maps to colours: a 1×1 convolution whose input channels a style scales.

    Karras et al. 2020, section 4.1 and appendix B: without demodulation.

    Args:
        before: channels.
        style: numbers in w.
    """

    def __init__(self, before: int, style: int) -> None:
        super().__init__()
        self.affine = Dense(style, before, bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, before) * PALE)
        self.bias = nn.Parameter(torch.zeros(3))
        self.scale = 1 / math.sqrt(before)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Colours `(N, 3, H, W)` of maps `(N, before, H, W)`, with w `(N, style)`."""
        N, C, H, W = x.shape
        with exact(w):
            mixed = self.affine(w)[:, None] * (self.weight * self.scale)  # (N, 3, C)
        pixels = x.permute(0, 2, 3, 1).reshape(N, H * W, C)
        rgb = torch.bmm(pixels, mixed.mT.to(x.dtype)).to(mixed.dtype) + self.bias
        return rgb.view(N, H, W, 3).permute(0, 3, 1, 2)


def exact(x: Tensor) -> AbstractContextManager[Any]:
    """While small sums are not rounded to bfloat16, where x is."""
    return torch.autocast(x.device.type, enabled=False)


def normalised(z: Tensor) -> Tensor:
    """Latents `(N, n)` of mean square 1 (Karras et al. 2018, section 4.2)."""
    return z * torch.rsqrt(z.square().mean(1, keepdim=True) + EPSILON)


def active(x: Tensor) -> Tensor:
    """Leaky ReLU, in place; weights before it have `GAIN`."""
    return F.leaky_relu_(x, LEAK)


def upsampled(x: Tensor) -> Tensor:
    """Twice the side, bilinear: zeros between the pixels, blurred with [1 3 3 1] either way."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def halved(x: Tensor) -> Tensor:
    """Half the side: means of 2 × 2."""
    return F.avg_pool2d(x, 2)


def minibatch_deviation(x: Tensor, group: int) -> Tensor:
    """Maps and one map more: how much the pictures of a group differ.

    Karras et al. 2018, section 3: the standard deviation over the group at every place of every
    map, and of those the mean. Groups are of neighbours, so that processes which share a batch see
    the same ones.

    Args:
        x: `(N, C, H, W)`.
        group: pictures that are compared with one another; N is a multiple of it.

    Returns:
        `(N, C + 1, H, W)`.
    """
    N, C, H, W = x.shape
    wide = x.reshape(N // group, group, C, H, W).to(torch.promote_types(x.dtype, torch.float32))
    deviation = (wide.var(1, correction=0) + EPSILON).sqrt().mean((1, 2, 3))  # (N / group,)
    extra = deviation.repeat_interleave(group).to(x.dtype)
    return torch.cat((x, extra.view(N, 1, 1, 1).expand(N, 1, H, W)), 1)


def _maps(factors: Tensor, x: Tensor) -> Tensor:
    """Factors `(N, C)` for maps `(N, C, H, W)`."""
    return factors[:, :, None, None].to(x.dtype)
