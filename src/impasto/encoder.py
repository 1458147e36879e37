"""The network that looks: image -> {"relu4_1": (N, C, h, w), ...}.

All encoders are VGG-shaped (Simonyan & Zisserman 2015): blocks of 3×3 convolutions, each followed
by a ReLU, with a 2×2 pooling between blocks. Layers carry the names of the style-transfer papers:
`relu4_2` is the second ReLU of the fourth block. A `Plan` says how many channels each convolution
has; the weights come from a file (see `weights`).

The weights are frozen: gradients flow to the picture only. `_Trunk` therefore writes its own
backward pass, which leaves out what autograd would do beside the convolutions' input gradients:
it masks and accumulates in place, on buffers that it owns.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from impasto.errors import SettingsError, WeightsError
from impasto.foreign import IMAGENET_MEAN, IMAGENET_STD
from impasto.settings import Padding, Pooling
from impasto.weights import load_weights

__all__ = ["PLANS", "Encoder", "Plan"]


@dataclass(frozen=True)
class Plan:
    """The shape of an encoder: the output channels of every convolution, block by block.

    Attributes:
        blocks: one tuple of channel counts per block; a 2×2 pooling stands between two blocks.
        mean: per-channel mean (R, G, B) subtracted from the sRGB picture in [0, 1].
        std: per-channel divisor, applied after the mean.
    """

    blocks: tuple[tuple[int, ...], ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of all layers, shallow to deep: `relu1_1`, `relu1_2`, ..."""
        return tuple(
            f"relu{b}_{i}" for b, block in enumerate(self.blocks, 1) for i, _ in enumerate(block, 1)
        )

    @property
    def channels(self) -> dict[str, int]:
        """The number of channels of each layer."""
        return dict(zip(self.layers, (c for block in self.blocks for c in block), strict=True))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight: `conv1_1.weight` (C, 3, 3, 3), `conv1_1.bias` (C,), ..."""
        shapes: dict[str, tuple[int, ...]] = {}
        before = 3
        for layer, channels in self.channels.items():
            name = layer.replace("relu", "conv")
            shapes[f"{name}.weight"] = (channels, before, 3, 3)
            shapes[f"{name}.bias"] = (channels,)
            before = channels
        return shapes

    def stride(self, layer: str) -> int:
        """How many picture pixels one position of `layer` advances: 1, 2, 4, ..."""
        return 1 << (int(layer.removeprefix("relu").split("_")[0]) - 1)

    @classmethod
    def parse(cls, text: str, **normalisation: tuple[float, float, float]) -> "Plan":
        """The plan written as `32,32,M,64,64,M,128`, M being a pooling."""
        try:
            blocks = tuple(
                tuple(int(channels) for channels in block.split(","))
                for block in text.replace(" ", "").replace(",M,", "M").split("M")
            )
        except ValueError:
            raise SettingsError(f"cannot understand the encoder plan {text!r}") from None
        return cls(blocks, **normalisation)


PLANS: Final[Mapping[str, Plan]] = {
    "slim": Plan(((32, 32), (64, 64), (128, 128), (256, 256), (256,))),
    "vgg16": Plan(((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)),
    "vgg19": Plan(((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)),
}
"""The shapes we know: ours, and configurations D and E of Simonyan & Zisserman 2015."""


class Encoder:
    """A frozen, VGG-shaped feature extractor.

    Calling it with a picture `x`, `float32 (N, 3, H, W)`, sRGB in [0, 1], and layer names gives
    `{layer: (N, C, h, w)}` in the encoder's dtype, h = H // stride and w = W // stride. It computes
    nothing deeper than the deepest layer asked for. Differentiable once, with respect to `x`.

    Args:
        plan: the shape.
        weights: `conv1_1.weight (C, 3, 3, 3)`, `conv1_1.bias (C,)`, ... for every convolution.
        name: what to call it in records and messages.
        sha256: of the weight file, for records; empty where there is none.
        pooling: `max`, as VGG was trained, or `avg`, as ours was, and as Gatys et al. 2015
            (section "Methods") use VGG.
        padding: how each convolution continues the picture beyond its border. `zero` is what
            the networks were trained with and draws a faint frame into optimised pictures.
        device: where the convolutions run.
        dtype: in which precision they run.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Mapping[str, Tensor],
        *,
        name: str = "unnamed",
        sha256: str = "",
        pooling: Pooling = "max",
        padding: Padding = "replicate",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.plan = plan
        self.name = name
        self.sha256 = sha256
        self.pooling: Pooling = pooling
        self.padding: Padding = padding
        self.device = torch.device(device)
        self.dtype = dtype
        full = torch.promote_types(dtype, torch.float32)  # of pixels: bfloat16 has 8 bits of them
        self._mean = torch.tensor(plan.mean, device=device, dtype=full).view(1, 3, 1, 1)
        self._std = torch.tensor(plan.std, device=device, dtype=full).view(1, 3, 1, 1)
        self._convolutions = [
            (
                weights[f"{layer}.weight"]
                .to(device, dtype)
                .contiguous(memory_format=torch.channels_last),
                weights[f"{layer}.bias"].to(device, dtype),
            )
            for layer in (name.replace("relu", "conv") for name in plan.layers)
        ]

    @classmethod
    def load(
        cls,
        name: str | Path = "slim",
        *,
        pooling: Pooling | None = None,
        padding: Padding = "replicate",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Encoder":
        """The encoder of this name (`slim`, `vgg19`, ...), or of this file; see `load_weights`.

        Args:
            name: the name or the path.
            pooling: `max` or `avg`; None for what the file says it was trained with, or `max`.
            padding: as for the class.
            device: where the convolutions run.
            dtype: in which precision they run.

        Raises:
            WeightsError: there is no such encoder, or its file is broken.
        """
        file = load_weights(name)
        if pooling is None:
            pooling = "avg" if file.metadata.get("pooling") == "avg" else "max"
        try:
            text = file.metadata["plan"]
            plan = Plan.parse(text, mean=file.triple("mean"), std=file.triple("std"))
        except SettingsError as error:
            raise WeightsError(f"{file.path} is no encoder: {error}") from None
        for key, shape in plan.shapes.items():
            if key not in file.tensors or tuple(file.tensors[key].shape) != shape:
                raise WeightsError(f"{file.path} is damaged: its {key} does not have shape {shape}")
        return cls(
            plan,
            file.tensors,
            name=file.name,
            sha256=file.sha256,
            pooling=pooling,
            padding=padding,
            device=device,
            dtype=dtype,
        )

    @classmethod
    def random(cls, plan: Plan | str, *, seed: int = 0, **options: Any) -> "Encoder":
        """An encoder with He-normal random weights, for tests and benchmarks.

        Args:
            plan: a plan or the name of one.
            seed: of the weights.
            **options: as for the class.
        """
        plan = PLANS[plan] if isinstance(plan, str) else plan
        generator = torch.Generator().manual_seed(seed)
        weights = {
            name: torch.randn(shape, generator=generator) * (2 / math.prod(shape[1:])) ** 0.5
            if name.endswith("weight")
            else torch.zeros(shape)
            for name, shape in plan.shapes.items()
        }
        return cls(plan, weights, **{"name": "random", **options})

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of all layers, shallow to deep."""
        return self.plan.layers

    def convolutions(self, last: str) -> list[tuple[str, Tensor, Tensor]]:
        """The layers up to `last`: name, weight `(C, B, 3, 3)` and bias `(C,)` of each."""
        count = 1 + self.layers.index(last)
        pairs = zip(self.layers[:count], self._convolutions, strict=False)
        return [(layer, weight, bias) for layer, (weight, bias) in pairs]

    def check_layers(self, names: Iterable[str]) -> None:
        """Raises SettingsError, which lists the layers there are, if one of `names` is none."""
        for name in names:
            if name not in self.layers:
                known = ", ".join(self.layers)
                raise SettingsError(f"{self.name} has no layer {name!r}; it has {known}")

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of `x` at `layers`; see the class.

        Raises:
            SettingsError: a layer is unknown, or the picture is too small for the deepest one.
        """
        self.check_layers(layers)
        if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
            raise SettingsError(
                f"a picture is floats (N, 3, H, W) in [0, 1], not {x.dtype} {tuple(x.shape)}"
            )
        if not layers:
            return {}
        depth = 1 + max(self.layers.index(name) for name in layers)
        smallest = self.plan.stride(self.layers[depth - 1])
        if min(x.shape[-2:]) < smallest:
            raise SettingsError(
                f"a picture of {x.shape[-1]}×{x.shape[-2]} px is too small for "
                f"{self.layers[depth - 1]}, which needs at least {smallest} px on each side"
            )
        x = (x.to(self.device) - self._mean) / self._std
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        wanted = tuple(name in layers for name in self.layers[:depth])
        outputs = _Trunk.apply(x, self, wanted, torch.is_grad_enabled() and x.requires_grad)  # type: ignore[no-untyped-call]
        names = [name for name in self.layers[:depth] if name in layers]
        found = dict(zip(names, outputs, strict=True))
        return {name: found[name] for name in layers}

    def _steps(self, depth: int) -> list[tuple[str, tuple[Tensor, Tensor] | None]]:
        """The first `depth` convolutions in order, each with the name of its layer.

        A pooling is an entry without weights.
        """
        steps: list[tuple[str, tuple[Tensor, Tensor] | None]] = []
        for layer, convolution in zip(self.layers[:depth], self._convolutions, strict=False):
            if layer.endswith("_1") and steps:
                steps.append(("pool", None))
            steps.append((layer, convolution))
        return steps


class _Trunk(torch.autograd.Function):
    """The whole stack as one function, so that the backward pass can own its buffers."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, encoder: Encoder, wanted: tuple[bool, ...], differentiable: bool
    ) -> Any:
        steps = encoder._steps(len(wanted))
        saved = [x]  # what every step gave, and of max pooling also where the maxima were
        outputs: list[Tensor] = []
        depth = 0
        for _, convolution in steps:
            if convolution is not None:
                x = _convolve(x, *convolution, encoder.padding).relu_()
                if wanted[depth]:
                    outputs.append(x)
                depth += 1
            elif encoder.pooling == "avg":
                x = F.avg_pool2d(x, 2)
            else:
                x, places = F.max_pool2d(x, 2, return_indices=True)
                if differentiable:
                    saved.append(places)
            if differentiable:
                saved.append(x)
        if differentiable:
            ctx.encoder, ctx.wanted, ctx.steps = encoder, wanted, steps
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*saved)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *seeds: Tensor | None) -> Any:
        saved: list[Tensor] = list(ctx.saved_tensors)
        encoder: Encoder = ctx.encoder
        pending = [seeds[sum(ctx.wanted[:i])] if w else None for i, w in enumerate(ctx.wanted)]
        gradient: Tensor | None = None  # with respect to the output of the step at hand; ours
        for _, convolution in reversed(ctx.steps):
            output = saved.pop()
            if convolution is None:
                places = saved.pop() if encoder.pooling == "max" else None
                if gradient is not None:
                    gradient = _pool_backward(gradient, saved[-1], places)
                continue
            seed = pending.pop()
            if gradient is None and seed is None:
                continue  # nothing that was used is as deep as this
            if gradient is None:
                assert seed is not None
                gradient = seed.clone(memory_format=torch.channels_last)
            elif seed is not None:
                gradient.add_(seed)
            torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)
            gradient = _convolve_backward(gradient, convolution[0], encoder.padding)
        return gradient, None, None, None


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, padding: Padding) -> Tensor:
    """A 3×3 convolution whose output is as large as its input."""
    if padding == "zero":
        return F.conv2d(x, weight, bias, padding=1)
    return F.conv2d(_pad(x, padding), weight, bias)


def _pad(x: Tensor, padding: Padding) -> Tensor:
    """`x` with one more row and column on each side; a side of one pixel can only be repeated."""
    mode = "replicate" if min(x.shape[-2:]) < 2 else padding
    return F.pad(x, (1, 1, 1, 1), mode=mode)


def _convolve_backward(gradient: Tensor, weight: Tensor, padding: Padding) -> Tensor:
    """The gradient of `_convolve` with respect to its input."""
    if padding == "zero":
        return F.conv_transpose2d(gradient, weight, padding=1)
    H, W = gradient.shape[-2:]
    g = F.conv_transpose2d(gradient, weight)
    # The pixel that a border row repeats: itself (replicate) or its inner neighbour (reflect).
    inner = 2 if padding == "reflect" and min(H, W) > 1 else 1
    g[..., inner, :] += g[..., 0, :]
    g[..., H + 1 - inner, :] += g[..., H + 1, :]
    g[..., inner] += g[..., 0]
    g[..., W + 1 - inner] += g[..., W + 1]
    return g[..., 1:-1, 1:-1].contiguous(memory_format=torch.channels_last)


def _pool_backward(gradient: Tensor, x: Tensor, places: Tensor | None) -> Tensor:
    """The gradient of a 2×2 pooling with respect to its input `x`.

    Args:
        gradient: with respect to its output; may be overwritten.
        x: its input.
        places: where the maxima were; None for average pooling.
    """
    result: Tensor
    H, W = x.shape[-2:]
    if places is not None:
        result = torch.ops.aten.max_pool2d_with_indices_backward(
            gradient, x, [2, 2], [2, 2], [0, 0], [1, 1], False, places
        )
    elif H % 2 == 0 and W % 2 == 0:
        # torch's own zeroes a buffer first and adds to it: twice the memory traffic.
        result = F.interpolate(gradient.mul_(0.25), scale_factor=2, mode="nearest")
    else:
        result = torch.ops.aten.avg_pool2d_backward(
            gradient, x, [2, 2], [2, 2], [0, 0], False, True, None
        )
    return result
