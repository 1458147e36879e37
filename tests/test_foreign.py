"""Other programs' files: read right to the last activation, or refused in one line."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from impasto.encoder import PLANS, Encoder
from impasto.errors import WeightsError
from impasto.foreign import (
    READERS,
    Weights,
    read_keras,
    read_torchvision,
    require_h5py,
    write_weights,
)
from layouts import (
    TINY,
    VGG16,
    VGG19,
    Array,
    Blocks,
    Naming,
    keras_activations,
    kernels,
    state_dict,
    torchvision_activations,
    write_keras,
    write_torchvision,
)

PLAN = "4,5,M,6,M,7,8,9"
CLOSE = 1e-5
"""Largest difference of an activation, over its layer's maximum."""


def picture(height: int = 40, width: int = 56) -> Tensor:
    """Noise (1, 3, H, W) in [0, 1] on a slope of light, so that the channels differ."""
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(5))
    slope = torch.linspace(0, 1, width)
    tint = torch.tensor([0.9, 0.5, 0.1])[:, None, None]
    return (0.5 * noise + 0.5 * slope * tint).double()


def compare(path: Path, expected: dict[str, Array], blocks: Blocks) -> None:
    """Every layer of the encoder, as loaded from a file, with what it should give."""
    encoder = Encoder.load(path, padding="zero", dtype=torch.float64)
    assert encoder.plan.blocks == tuple(tuple(block) for block in blocks)
    found = encoder(picture(), encoder.layers)
    assert found.keys() == expected.keys()
    for layer, values in expected.items():
        ours = found[layer][0].permute(1, 2, 0).numpy()
        assert ours.dtype == np.float64
        assert ours.shape == values.shape
        top = values.max()
        assert top > 0.1
        assert np.abs(ours - values).max() <= CLOSE * top, layer


# The real layouts, at their real size


@pytest.mark.parametrize("blocks", [VGG16, VGG19], ids=["vgg16", "vgg19"])
def test_every_activation_of_a_keras_vgg(tmp_path: Path, blocks: Blocks) -> None:
    weights = kernels(blocks)
    path = write_keras(tmp_path / "vgg.h5", weights)
    compare(path, keras_activations(picture(), weights), blocks)


@pytest.mark.parametrize("blocks", [VGG16, VGG19], ids=["vgg16", "vgg19"])
def test_every_activation_of_a_torchvision_vgg(tmp_path: Path, blocks: Blocks) -> None:
    state = state_dict(kernels(blocks))
    path = write_torchvision(tmp_path / "vgg.pth", state)
    compare(path, torchvision_activations(picture(), state), blocks)


def test_the_layouts_are_those_of_the_published_files() -> None:
    for name, blocks in (("vgg16", VGG16), ("vgg19", VGG19)):
        assert PLANS[name].blocks == tuple(tuple(block) for block in blocks)
    # The numbers of vgg16's and vgg19's convolutions in torchvision.
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert list(state_dict(kernels(TINY)))[:6:2] == [f"features.{n}.weight" for n in (0, 2, 5)]
    state = state_dict({name: (k[..., :1, :1], b[:1]) for name, (k, b) in kernels(VGG16).items()})
    found = [int(key.split(".")[1]) for key in state if key.startswith("f") and "weight" in key]
    assert found == numbers
    numbers = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    state = state_dict({name: (k[..., :1, :1], b[:1]) for name, (k, b) in kernels(VGG19).items()})
    found = [int(key.split(".")[1]) for key in state if key.startswith("f") and "weight" in key]
    assert found == numbers


# What differs from file to file


@pytest.mark.parametrize("naming", ["first", "later"])
@pytest.mark.parametrize("whole_model", [False, True])
@pytest.mark.parametrize("top", [False, True])
def test_every_way_keras_writes(
    tmp_path: Path, naming: Naming, whole_model: bool, top: bool
) -> None:
    weights = kernels(TINY)
    path = tmp_path / "vgg.hdf5"
    write_keras(path, weights, naming=naming, whole_model=whole_model, top=top)
    compare(path, keras_activations(picture(), weights), TINY)


@pytest.mark.parametrize("as_zip", [False, True])
def test_every_way_torch_writes(tmp_path: Path, as_zip: bool) -> None:
    state = state_dict(kernels(TINY))
    path = write_torchvision(tmp_path / "vgg.pt", state, as_zip=as_zip)
    compare(path, torchvision_activations(picture(), state), TINY)


def test_the_families_prepare_pictures_in_their_own_way(tmp_path: Path) -> None:
    weights = kernels(TINY)
    keras = read_keras(write_keras(tmp_path / "k.h5", weights))
    torchvision = read_torchvision(write_torchvision(tmp_path / "t.pth", state_dict(weights)))
    assert keras.metadata == {
        "plan": PLAN,
        "mean": f"{123.68 / 255!r},{116.779 / 255!r},{103.939 / 255!r}",
        "std": f"{1 / 255!r},{1 / 255!r},{1 / 255!r}",
    }
    assert torchvision.metadata == {
        "plan": PLAN,
        "mean": "0.485,0.456,0.406",
        "std": "0.229,0.224,0.225",
    }
    assert keras.tensors.keys() == torchvision.tensors.keys()
    for name, tensor in keras.tensors.items():
        other = torchvision.tensors[name]
        expected = other.flip(1) if name == "conv1_1.weight" else other
        assert torch.equal(tensor, expected)
        assert tensor.dtype is torch.float32
        assert tensor.is_contiguous()


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_keras_weights_of_another_precision(tmp_path: Path, dtype: Any) -> None:
    weights = {name: (k.astype(dtype), b.astype(dtype)) for name, (k, b) in kernels(TINY).items()}
    tensors = read_keras(write_keras(tmp_path / "k.h5", weights)).tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    bias = weights["block3_conv2"][1].astype(np.float32)
    assert torch.equal(tensors["conv3_2.bias"], torch.from_numpy(bias))


def test_torch_weights_of_half_precision(tmp_path: Path) -> None:
    state = {key: tensor.half() for key, tensor in state_dict(kernels(TINY)).items()}
    tensors = read_torchvision(write_torchvision(tmp_path / "t.pth", state)).tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert torch.equal(tensors["conv1_1.bias"], state["features.0.bias"].float())


def test_the_file_may_go_once_it_is_read(tmp_path: Path) -> None:
    state = state_dict(kernels(TINY))
    path = write_torchvision(tmp_path / "t.pth", state, as_zip=True)
    tensors = read_torchvision(path).tensors
    path.write_bytes(b"")
    assert torch.equal(tensors["conv3_3.bias"], state["features.12.bias"])


# What is refused


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        READERS[path.suffix](path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 160
    return message


@pytest.mark.parametrize("suffix", [".h5", ".pth"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<!DOCTYPE html><p>Not found",
        bytes(300),
        b"PK\x03\x04" + bytes(80),
        b"PK\x06\x07" + bytes(12) + b"\2\0\0\0PK\5\6" + bytes(18),  # a zip on two disks
    ],
)
def test_foreign_files(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(data)
    assert "cannot read the weight file" in refusal(path)


@pytest.mark.parametrize("kind", ["h5", "old.pth", "zip.pth"])
def test_truncated_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "h5":
        path = write_keras(tmp_path / "k.h5", kernels(TINY))
    else:
        write_torchvision(path, state_dict(kernels(TINY)), as_zip=kind == "zip.pth")
    data = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(data[: len(data) * tenth // 10])
        refusal(path)


def test_flipped_bytes_give_weights_or_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sources = [
        write_keras(tmp_path / "k.h5", kernels(TINY)),
        write_torchvision(tmp_path / "old.pth", state_dict(kernels(TINY))),
        write_torchvision(tmp_path / "zip.pth", state_dict(kernels(TINY)), as_zip=True),
    ]
    for path in sources:
        data = path.read_bytes()
        for _ in range(40):
            broken = bytearray(data)
            for place in rng.integers(0, min(len(data), 6000), 6):
                broken[place] = rng.integers(256)
            path.write_bytes(broken)
            with suppress(WeightsError):
                assert READERS[path.suffix](path).metadata["plan"]


class Program:
    """What a malicious file holds: the order to run something."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("how", ["old", "zip", "pickle"])
def test_a_program_in_the_file_is_not_run(tmp_path: Path, how: str) -> None:
    path = tmp_path / "evil.pth"
    state = {**state_dict(kernels(TINY)), "features.0.extra": Program(tmp_path / "mark")}
    if how == "pickle":
        path.write_bytes(pickle.dumps(state["features.0.extra"]))
    else:
        write_torchvision(path, state, as_zip=how == "zip")
    message = refusal(path)
    assert not (tmp_path / "mark").exists()
    if how != "pickle":
        assert "more than tensors" in message


def test_a_whole_module_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Conv2d(3, 4, 3), path)
    assert "state_dict()" in refusal(path)


@pytest.mark.parametrize("state", [[1, 2], {1: torch.ones(2)}, torch.ones(3)])
def test_what_is_no_state_dict(tmp_path: Path, state: Any) -> None:
    path = tmp_path / "odd.pth"
    torch.save(state, path)
    assert "no state_dict" in refusal(path)


def change(state: dict[str, Any], change: str) -> None:
    """Spoils a state_dict."""
    first, bias = state["features.0.weight"], state["features.2.bias"]
    changes: dict[str, dict[str, Any]] = {
        "batch normalisation": {"features.1.running_mean": torch.ones(4)},
        "features.0.weight": {key: None for key in state if key.startswith("features")},
        "features.2.bias is missing": {"features.2.bias": None},
        "features.2.bias is missing or": {"features.2.bias": bias.to_sparse()},
        "features.0.weight is missing or not made of floats": {"features.0.weight": first.int()},
        "features.0.weight is missing": {"features.0.weight": "a kernel"},
        "features.3 is not where": {"features.3.weight": first},
        "features.16 is not where": {"features.16.weight": first},
        "features.2 is not where": {"features.0.weight": None, "features.0.bias": None},
        "(4, 3, 5, 5)": {"features.0.weight": torch.ones(4, 3, 5, 5)},
        "(4, 4, 3, 3)": {"features.0.weight": torch.ones(4, 4, 3, 3)},
        "(4, 3, 3)": {"features.0.weight": torch.ones(4, 3, 3)},
        "shape ()": {"features.0.weight": torch.tensor(1.0)},
        "bias of shape (1,)": {"features.2.bias": torch.ones(1)},
        "(5000, 3, 3, 3)": {"features.0.weight": torch.ones(1).expand(5000, 3, 3, 3)},
    }
    state.update(changes[change])
    for key in [key for key, value in state.items() if value is None]:
        del state[key]


@pytest.mark.parametrize(
    "words",
    [
        "batch normalisation", "features.0.weight", "features.2.bias is missing",
        "features.2.bias is missing or", "features.0.weight is missing or not made of floats",
        "features.0.weight is missing", "features.3 is not where", "features.16 is not where",
        "features.2 is not where", "(4, 3, 5, 5)", "(4, 4, 3, 3)", "(4, 3, 3)", "shape ()",
        "bias of shape (1,)", "(5000, 3, 3, 3)",
    ],
)  # fmt: skip
def test_what_is_no_vgg_of_torchvision_s(tmp_path: Path, words: str) -> None:
    state: dict[str, Any] = dict(state_dict(kernels(TINY)))
    change(state, words)
    message = refusal(write_torchvision(tmp_path / "odd.pth", state, as_zip=True))
    assert "no VGG" in message
    assert words in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"block3_conv2": None}, "no convolution 2 in block 3"),
        ({"block1_conv1": None, "block1_conv2": None}, "no convolution 1 in block 1"),
        ({"block2_conv1": None}, "no convolution 3 in block 1"),
        ({"block1_conv1": ((3, 3, 4, 4), (4,))}, "(4, 4, 3, 3)"),
        ({"block1_conv1": ((4, 3, 3, 3), (4,))}, "(3, 3, 4, 3)"),  # Theano's order
        ({"block1_conv2": ((3, 3, 4, 5), (6,))}, "bias of shape (6,)"),
        ({"block3_conv3": ((5, 5, 8, 9), (9,))}, "(9, 8, 5, 5)"),
        ({"block3_conv3": ((3, 3, 8, 5000), (5000,))}, "(5000, 8, 3, 3)"),
        ({"block3_conv3": ((3, 3, 8), (9,))}, "strange block3_conv3/"),
        ({"block3_conv3": ((9,), (9,))}, "strange block3_conv3/"),
    ],
)
def test_what_is_no_vgg_of_keras_s(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    weights = kernels(TINY)
    for layer, shapes in change.items():
        del weights[layer]
        if shapes is not None:
            weights[layer] = np.zeros(shapes[0], np.float32), np.zeros(shapes[1], np.float32)
    message = refusal(write_keras(tmp_path / "odd.h5", weights))
    assert "no VGG" in message
    assert words in message


def test_hdf5_files_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        file["numbers"] = np.ones(3)
    assert "no block1_conv1" in refusal(path)
    with h5py.File(path, "w") as file:
        file["model_weights"] = np.ones(3)
    assert "cannot read" in refusal(path)
    with h5py.File(path, "w") as file:
        file["block1_conv1/kernel:0"] = np.ones((3, 3, 3, 4), np.float32)
    assert "lacks a kernel or a bias" in refusal(path)
    with h5py.File(path, "w") as file:
        file["block1_conv1/kernel:0"] = np.ones((3, 3, 3, 4), np.int32)
    assert "strange block1_conv1/kernel:0" in refusal(path)


def test_a_kernel_that_claims_terabytes_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        shape = (3, 3, 3, 10**11)
        file.create_dataset("block1_conv1/k", shape, np.float32, chunks=(3, 3, 3, 64))
        file["block1_conv1/b"] = np.ones(4, np.float32)
    assert path.stat().st_size < 100_000
    assert "no VGG" in refusal(path)


def test_without_h5py_the_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_keras(tmp_path / "k.h5", kernels(TINY))
    require_h5py("it")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install h5py" in refusal(path)


# Writing


def small() -> Weights:
    """Three tensors and some metadata, in no order."""
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1.5]), "c": torch.ones(2, 1)}
    return Weights(tensors, {"std": "1", "plan": "4", "mean": "ä", "source": "x", "more": '"'})


def test_what_is_written_is_what_safetensors_reads(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, small())
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == small().metadata
        assert set(file.keys()) == set(small().tensors)
        for name, tensor in small().tensors.items():
            assert torch.equal(file.get_tensor(name), tensor)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert length % 8 == 0
    assert list(json.loads(path.read_bytes()[8 : 8 + length])) == ["__metadata__", "a", "b", "c"]


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    write_weights(one, small())
    tensors, metadata = small()
    in_order = Weights(dict(sorted(tensors.items())), dict(sorted(metadata.items())))
    write_weights(other, in_order)
    assert one.read_bytes() == other.read_bytes()


def test_nothing_heavy_is_imported_before_a_file_is_read() -> None:
    program = "import sys, impasto.foreign; print({'torch', 'h5py', 'numpy'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_half_precision_is_written_as_it_is(tmp_path: Path) -> None:
    halves = {name: (tensor / 3).half() for name, tensor in small().tensors.items()}
    path = tmp_path / "half.safetensors"
    write_weights(path, Weights(halves, {"plan": PLAN}))
    found = load_file(path)
    assert found.keys() == halves.keys()
    for name, tensor in halves.items():
        assert found[name].dtype is torch.float16
        assert torch.equal(found[name], tensor)
