"""Weight files of other programs, read as ours.

Two families of VGG (Simonyan & Zisserman 2015) are about, and each wants its pictures prepared in
its own way. Both come out as what `Encoder` computes with: RGB in [0, 1], minus `mean`, over `std`.

- Keras (`.h5`): the weights that Oxford published. They look at BGR in 0–255 minus the means of
  ImageNet. So the input channels of the first kernel are turned around, and the means and the 255
  become `mean` and `std`. Kernels are stored (height, width, in, out).
- torchvision (`.pth`): trained anew, on RGB in [0, 1] with ImageNet's mean and standard deviation.

torch and h5py are imported when a file is read, not before.
"""

import importlib.util
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from impasto.errors import WeightsError

if TYPE_CHECKING:
    import h5py
    from torch import Tensor

__all__ = ["READERS", "Weights", "read_keras", "read_torchvision", "require_h5py", "write_weights"]

Triple = tuple[float, float, float]

IMAGENET_MEAN: Final[Triple] = (0.485, 0.456, 0.406)
IMAGENET_STD: Final[Triple] = (0.229, 0.224, 0.225)

KERAS_MEAN: Final[Triple] = (123.68 / 255, 116.779 / 255, 103.939 / 255)
"""What `keras.applications.vgg19.preprocess_input` subtracts, as RGB in [0, 1]."""

KERAS_STD: Final[Triple] = (1 / 255, 1 / 255, 1 / 255)

MOST_CHANNELS: Final = 4096
"""More channels than this in one layer are not believed, nor is memory asked for them."""


class Weights(NamedTuple):
    """What an encoder is made of; see `weights.WeightFile`.

    Attributes:
        tensors: `conv1_1.weight (C, 3, 3, 3)`, `conv1_1.bias (C,)`, ..., float32 on the CPU.
        metadata: `plan`, `mean` and `std`, as our files hold them.
    """

    tensors: Mapping[str, "Tensor"]
    metadata: Mapping[str, str]


Place = tuple[int, int]
"""The number of a convolution's block, and its own in there; both from 1."""

Shape = tuple[int, ...]


def require_h5py(what: str) -> None:
    """Raises WeightsError, which says what to install, if HDF5 files cannot be read here.

    Args:
        what: the thing that is one, for the message.
    """
    if importlib.util.find_spec("h5py") is None:
        raise WeightsError(f"{what} is in HDF5, which needs h5py; get it with: pip install h5py")


# Keras


def read_keras(path: Path) -> Weights:
    """The convolutions of a VGG that Keras saved as `.h5`, with or without the dense layers.

    Raises:
        WeightsError: h5py is not installed, or the file is damaged or no such VGG.
    """
    require_h5py(str(path))
    import h5py

    try:
        with h5py.File(path, "r") as file:
            # A whole model has its optimiser's tensors beside its weights, under the same names.
            found = _keras_convolutions(path, file.get("model_weights", file))
            plan = _plan(path, {at: (_oihw(k.shape), b.shape) for at, (k, b) in found.items()})
            tensors: dict[str, Tensor] = {}
            for (block, number), (kernel, bias) in found.items():
                weight = _tensor(kernel).permute(3, 2, 0, 1)
                if (block, number) == (1, 1):
                    weight = weight.flip(1)  # BGR → RGB
                tensors[f"conv{block}_{number}.weight"] = weight.contiguous()
                tensors[f"conv{block}_{number}.bias"] = _tensor(bias)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError):
        raise _unreadable(path, "HDF5") from None
    return Weights(tensors, _metadata(plan, KERAS_MEAN, KERAS_STD))


def _keras_convolutions(
    path: Path, root: "h5py.Group"
) -> dict[Place, tuple["h5py.Dataset", "h5py.Dataset"]]:
    """The kernel and the bias of every layer `blockB_convN`.

    They are known by their layer's name and their dimensions: their own names have changed from
    one Keras to the next (`block1_conv1_W_1:0`, `block1_conv1/kernel:0`).
    """
    found: dict[Place, dict[int, h5py.Dataset]] = {}

    def visit(name: str, item: "h5py.Group | h5py.Dataset") -> None:
        match = re.search(r"(?:^|/)block(\d{1,2})_conv(\d{1,2})/", name)
        if match is None or not hasattr(item, "ndim"):
            return
        parts = found.setdefault((int(match[1]), int(match[2])), {})
        if item.ndim in parts or item.ndim not in (1, 4) or item.dtype.kind != "f":
            raise _foreign(path, f"it has a strange {name}")
        parts[item.ndim] = item

    root.visititems(visit)
    if not found:
        raise _foreign(path, "it has no block1_conv1")
    for (block, number), parts in found.items():
        if len(parts) < 2:
            raise _foreign(path, f"its block{block}_conv{number} lacks a kernel or a bias")
    return {place: (parts[4], parts[1]) for place, parts in sorted(found.items())}


def _oihw(shape: Shape) -> Shape:
    """The shape of a (height, width, in, out) kernel as (out, in, height, width)."""
    h, w, i, o = shape
    return o, i, h, w


def _tensor(dataset: "h5py.Dataset") -> "Tensor":
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(dataset[()], dtype=np.float32))


# torchvision


def read_torchvision(path: Path) -> Weights:
    """The convolutions of a VGG's `state_dict` as torchvision names them; its classifier is left.

    The file can hold tensors only: nothing in it is run.

    Raises:
        WeightsError: the file is damaged, holds more than tensors, or is no such VGG.
    """
    import torch

    state = _load_state(path)
    if any(key.endswith(".running_mean") for key in state):
        raise _foreign(path, "it has batch normalisation; the plain vgg16 and vgg19 have none")
    matches = (re.fullmatch(r"features\.(\d{1,3})\.weight", key) for key in state)
    numbers = sorted(int(match[1]) for match in matches if match)
    if not numbers:
        raise _foreign(path, "it has no features.0.weight")
    found = {
        place: tuple(_floats(path, state, f"features.{n}.{kind}") for kind in ("weight", "bias"))
        for n, place in zip(numbers, _places(path, numbers), strict=True)
    }
    plan = _plan(path, {at: (tuple(k.shape), tuple(b.shape)) for at, (k, b) in found.items()})
    tensors = {}
    for (block, number), pair in found.items():
        for kind, tensor in zip(("weight", "bias"), pair, strict=True):
            # A copy: the file may be mapped, and holds a classifier seven times as large.
            copy = tensor.detach().to(torch.float32, copy=True).contiguous()
            tensors[f"conv{block}_{number}.{kind}"] = copy
    return Weights(tensors, _metadata(plan, IMAGENET_MEAN, IMAGENET_STD))


def _load_state(path: Path) -> Mapping[str, Any]:
    """The dictionary that torch saved in a file."""
    import torch

    try:
        # Files of before torch 1.6, as torchvision's VGGs are, are no zip and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 — what damaged bytes can raise has no end
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            reason = "it holds more than tensors, perhaps a program; save its state_dict() alone"
            raise _foreign(path, reason) from None
        raise _unreadable(path, "torch") from None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise _foreign(path, "it is no state_dict")
    return state


def _floats(path: Path, state: Mapping[str, Any], key: str) -> "Tensor":
    """The tensor of this name, which must be dense, of floats, and hold its numbers."""
    import torch

    tensor = state.get(key)
    if (
        not isinstance(tensor, torch.Tensor)
        or tensor.layout is not torch.strided
        or tensor.device.type != "cpu"
        or not tensor.is_floating_point()
    ):
        raise _foreign(path, f"its {key} is missing or not made of floats")
    return tensor


def _places(path: Path, numbers: Sequence[int]) -> list[Place]:
    """The places of the convolutions with these numbers, ascending, in torchvision's `features`.

    A convolution and its ReLU take two numbers; a third one between two of them is a pooling.
    """
    places: list[Place] = []
    block, number, before = 1, 0, -2
    for here in numbers:
        if here - before not in (2, 3):
            raise _foreign(path, f"features.{here} is not where a VGG has a convolution")
        block, number = (block, number + 1) if here - before == 2 else (block + 1, 1)
        before = here
        places.append((block, number))
    return places


# Both


def _plan(path: Path, shapes: Mapping[Place, tuple[Shape, Shape]]) -> str:
    """The plan of the convolutions, as in `64,64,M,128,128`; they must follow from each other.

    Args:
        path: of their file, for the message.
        shapes: of each kernel, (out, in, height, width), and its bias.
    """
    words: list[str] = []
    last, inputs = (1, 0), 3
    for place in sorted(shapes):
        if words and place == (last[0] + 1, 1):
            words.append("M")
        elif place != (last[0], last[1] + 1):
            raise _foreign(path, f"it has no convolution {last[1] + 1} in block {last[0]}")
        kernel, bias = shapes[place]
        channels = kernel[0] if kernel else 0
        fits = kernel == (channels, inputs, 3, 3) and bias == (channels,)
        if not fits or not 0 < channels <= MOST_CHANNELS:
            where = f"convolution {place[1]} of block {place[0]}"
            raise _foreign(path, f"{where} has a kernel of shape {kernel}, a bias of shape {bias}")
        words.append(str(channels))
        last, inputs = place, channels
    return ",".join(words)


def _metadata(plan: str, mean: Triple, std: Triple) -> dict[str, str]:
    return {"plan": plan, "mean": ",".join(map(repr, mean)), "std": ",".join(map(repr, std))}


def _foreign(path: Path, reason: str) -> WeightsError:
    return WeightsError(f"{path} is no VGG that impasto can read: {reason}")


def _unreadable(path: Path, kind: str) -> WeightsError:
    return WeightsError(f"cannot read the weight file {path}: it is damaged or no {kind} file")


READERS: Final[Mapping[str, Callable[[Path], Weights]]] = {
    ".h5": read_keras,
    ".hdf5": read_keras,
    ".pth": read_torchvision,
    ".pt": read_torchvision,
}
"""Who reads which file, by its suffix."""


def write_weights(path: Path, weights: Weights) -> None:
    """Writes a safetensors file; equal weights give equal bytes.

    (The safetensors library writes its metadata in an order of chance.)

    Args:
        path: the file to write, in place.
        weights: its tensors are float32 or float16.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(weights.metadata.items()))}
    offset = 0
    for name, tensor in sorted(weights.tensors.items()):
        end = offset + tensor.numel() * tensor.element_size()
        kind = f"F{8 * tensor.element_size()}"
        shape = list(tensor.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in sorted(weights.tensors.items()):
            array = tensor.numpy()
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
