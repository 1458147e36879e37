"""Random weights in the layouts of Keras's and torchvision's files, and what they compute.

The references know nothing of `impasto`: each prepares the picture in its family's own way and
goes through the network on the family's own arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
Blocks = Sequence[Sequence[int]]

TINY: Final[Blocks] = ((4, 5), (6,), (7, 8, 9))
VGG16: Final[Blocks] = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
VGG19: Final[Blocks] = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)


def kernels(blocks: Blocks, seed: int = 0) -> dict[str, tuple[Array, Array]]:
    """Kernels (height, width, in, out) and biases (out,), float32, by names as `block1_conv1`."""
    rng = np.random.default_rng(seed)
    made = {}
    before = 3
    for b, block in enumerate(blocks, 1):
        for i, channels in enumerate(block, 1):
            kernel = rng.standard_normal((3, 3, before, channels), np.float32)
            kernel *= np.float32((2 / 9 / before) ** 0.5)
            bias = rng.standard_normal(channels, np.float32) * np.float32(0.1)
            made[f"block{b}_conv{i}"] = kernel, bias
            before = channels
    return made


# Keras

Naming = Literal["first", "later"]


def write_keras(
    path: Path,
    weights: Mapping[str, tuple[Array, Array]],
    *,
    naming: Naming = "first",
    whole_model: bool = False,
    top: bool = False,
) -> Path:
    """A file as Keras writes it.

    Args:
        path: of the file.
        weights: as `kernels` makes them.
        naming: of the tensors; `first` is that of the published files, of Keras 1.
        whole_model: with the optimiser beside the weights, as `model.save` does it.
        top: with dense layers.
    """
    layers: dict[str, list[tuple[str, Array]]] = {"input_1": []}
    for layer, (kernel, bias) in weights.items():
        if layer.endswith("conv1") and len(layers) > 1:
            layers[f"block{int(layer[5]) - 1}_pool"] = []
        names = {
            "first": (f"{layer}_W_1:0", f"{layer}_b_1:0"),
            "later": (f"{layer}/kernel:0", f"{layer}/bias:0"),
        }[naming]
        layers[layer] = list(zip(names, (kernel, bias), strict=True))
    if top:
        dense = np.ones((7, 5), np.float32), np.ones(5, np.float32)
        layers |= {"flatten": [], "fc1": [("fc1_W_1:0", dense[0]), ("fc1_b_1:0", dense[1])]}
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        root.attrs["layer_names"] = [name.encode() for name in layers]
        root.attrs["backend"] = b"tensorflow"
        for layer, tensors in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name, _ in tensors]
            for name, values in tensors:
                group.create_dataset(name, data=values)
        if whole_model:
            for layer, (kernel, _) in weights.items():
                moment = f"optimizer_weights/training/Adam/{layer}/kernel/m:0"
                file.create_dataset(moment, data=np.zeros_like(kernel))
    return path


def keras_activations(x: Tensor, weights: Mapping[str, tuple[Array, Array]]) -> dict[str, Array]:
    """Every ReLU of a Keras VGG, (h, w, C) in float64, by names as `relu1_1`.

    Args:
        x: the picture, (1, 3, H, W), sRGB in [0, 1].
        weights: as they lie in the file.
    """
    rgb = x[0].permute(1, 2, 0).numpy().astype(np.float64) * 255
    values = rgb[..., ::-1] - np.array([103.939, 116.779, 123.68])
    found = {}
    for layer, (kernel, bias) in weights.items():
        block, number = layer.removeprefix("block").split("_conv")
        if number == "1" and block != "1":
            h, w, c = values.shape[0] // 2, values.shape[1] // 2, values.shape[2]
            values = values[: 2 * h, : 2 * w].reshape(h, 2, w, 2, c).max(axis=(1, 3))
        h, w, _ = values.shape
        padded = np.pad(values, ((1, 1), (1, 1), (0, 0)))
        total = np.zeros((h, w, kernel.shape[3])) + bias.astype(np.float64)
        for dy in range(3):
            for dx in range(3):
                total += padded[dy : dy + h, dx : dx + w] @ kernel[dy, dx].astype(np.float64)
        values = found[f"relu{block}_{number}"] = np.maximum(total, 0)
    return found


# torchvision


def state_dict(weights: Mapping[str, tuple[Array, Array]]) -> dict[str, Tensor]:
    """The same kernels as torchvision names and orders them, with a (small) classifier."""
    state = {}
    number = 0
    for layer, (kernel, bias) in weights.items():
        if layer.endswith("conv1") and number:
            number += 1
        state[f"features.{number}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        state[f"features.{number}.bias"] = torch.from_numpy(bias.copy())
        number += 2
    return state | {"classifier.0.weight": torch.ones(5, 7), "classifier.0.bias": torch.ones(5)}


def write_torchvision(path: Path, state: Mapping[str, Any], *, as_zip: bool = False) -> Path:
    """A file as torch writes it; that of the published VGGs is older than torch's zip files."""
    torch.save(dict(state), path, _use_new_zipfile_serialization=as_zip)
    return path


def torchvision_activations(x: Tensor, state: Mapping[str, Tensor]) -> dict[str, Array]:
    """Every ReLU of a torchvision VGG, (h, w, C) in float64, by names as `relu1_1`.

    Args:
        x: the picture, (1, 3, H, W), sRGB in [0, 1].
        state: as it lies in the file.
    """
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)
    values = (x.double() - mean[:, None, None]) / std[:, None, None]
    found = {}
    block, number, n = 1, 1, 0
    while any(key.startswith("features.") and int(key.split(".")[1]) >= n for key in state):
        if f"features.{n}.weight" in state:
            weight, bias = (state[f"features.{n}.{kind}"].double() for kind in ("weight", "bias"))
            values = F.relu(F.conv2d(values, weight, bias, padding=1))
            found[f"relu{block}_{number}"] = values[0].permute(1, 2, 0).numpy()
            number, n = number + 1, n + 2
        else:
            values = F.max_pool2d(values, kernel_size=2, stride=2)
            block, number, n = block + 1, 1, n + 1
    return found
