"""Weight files: names and families, what a broken file comes to, checksums."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from impasto import weights as weights_module
from impasto.encoder import Encoder, Plan
from impasto.errors import WeightsError
from impasto.foreign import Weights, write_weights
from impasto.weights import (
    MODELS,
    SUFFIXES,
    bundled,
    check_sha256,
    load_weights,
    verify,
    weights_path,
)
from layouts import TINY, kernels, state_dict, write_keras, write_torchvision

PLAN = Plan(((2, 3), (4,)), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
METADATA = {"plan": "2,3,M,4", "mean": "0.1,0.2,0.3", "std": "0.4,0.5,0.6"}


def tensors(fill: float = 0.5) -> dict[str, Tensor]:
    return {
        "conv1_1.weight": torch.full((2, 3, 3, 3), fill),
        "conv1_1.bias": torch.zeros(2),
        "conv1_2.weight": torch.full((3, 2, 3, 3), fill),
        "conv1_2.bias": torch.zeros(3),
        "conv2_1.weight": torch.full((4, 3, 3, 3), fill),
        "conv2_1.bias": torch.zeros(4),
    }


def write(path: Path, **changes: str | None) -> Path:
    """A small, sound weight file, but for the changes to its metadata (None takes one out)."""
    metadata = {key: value for key, value in (METADATA | changes).items() if value is not None}
    save_file(tensors(), path, metadata)
    return path


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the package's networks."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(weights_module, "MODELS", folder)
    return folder


# Names


def test_a_family_means_its_newest_version(models: Path) -> None:
    for version, newest in [
        ("v0", "v0"),
        ("v3", "v3"),
        ("2", "2"),
        ("1", "2"),
        ("10", "10"),
        ("9", "10"),
    ]:
        write(models / f"tiny-{version}.safetensors")
        assert weights_path("tiny").stem == f"tiny-{newest}"
    assert list(bundled()) == [f"tiny-{version}" for version in ("v0", "v3", "1", "2", "9", "10")]


def test_families_do_not_mix(models: Path) -> None:
    for name in ("tiny-3", "tiny-large-7", "other-9"):
        write(models / f"{name}.safetensors")
    assert weights_path("tiny").stem == "tiny-3"
    assert weights_path("tiny-large").stem == "tiny-large-7"
    assert weights_path("other").stem == "other-9"


def test_a_full_name_means_that_version(models: Path) -> None:
    for version in ("v0", "1", "2"):
        write(models / f"tiny-{version}.safetensors")
    assert weights_path("tiny-1") == models / "tiny-1.safetensors"
    assert load_weights("tiny-v0").name == "tiny-v0"


def test_a_path_means_that_file(models: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.safetensors")
    assert weights_path(path) == path
    assert weights_path(str(path)) == path
    assert load_weights(path).name == "mine"


def test_a_file_in_the_working_folder_needs_only_its_name(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    assert weights_path("mine.safetensors").resolve() == tmp_path / "mine.safetensors"


def test_an_unknown_name_is_refused_with_the_names_there_are(models: Path) -> None:
    for name in ("tiny-1", "tiny-2", "other-1"):
        write(models / f"{name}.safetensors")
    with pytest.raises(WeightsError) as caught:
        weights_path("tin")
    message = str(caught.value)
    assert "no encoder 'tin'" in message
    assert "other, other-1, tiny, tiny-1, tiny-2" in message


@pytest.mark.parametrize("name", ["nothing.safetensors", "nowhere/nothing", "tiny-3", ""])
def test_what_is_not_there_is_refused(models: Path, name: str) -> None:
    write(models / "tiny-1.safetensors")
    with pytest.raises(WeightsError, match=r"there is no (weight file|encoder)"):
        load_weights(name)


def test_a_folder_is_no_weight_file(tmp_path: Path) -> None:
    (tmp_path / "odd.safetensors").mkdir()
    with pytest.raises(WeightsError):
        load_weights(tmp_path / "odd.safetensors")


def test_the_names_there_are(models: Path) -> None:
    write(models / "slim-v0.safetensors")
    with pytest.raises(WeightsError) as caught:
        weights_path("vgg")
    assert str(caught.value) == (
        "there is no encoder 'vgg'; there are slim, slim-v0, vgg16, vgg16-tv, vgg19, vgg19-tv, "
        "or give the path of a .safetensors, .pth or .h5 file"
    )


def test_names_are_found_without_torch() -> None:
    program = "import sys\nfrom impasto.weights import *\nweights_path('slim'), verify('slim')\n"
    done = subprocess.run(
        [sys.executable, "-c", program + "print('torch' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "False\n"


# Contents


def test_a_weight_file_says_all_there_is_to_know(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny-1.safetensors")
    file = load_weights(path)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.metadata["plan"] == "2,3,M,4"
    assert file.triple("mean") == (0.1, 0.2, 0.3)
    assert file.path == path
    assert file.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert torch.equal(file.tensors[name], tensor)


def test_half_precision_weights_are_read_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in tensors(0.3).items()}, path, METADATA)
    loaded = load_weights(path).tensors["conv1_1.weight"]
    assert loaded.dtype is torch.float32
    assert torch.equal(loaded, torch.full((2, 3, 3, 3), 0.3).bfloat16().float())


def test_an_encoder_takes_its_shape_from_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny-1.safetensors")
    encoder = Encoder.load(path)
    assert encoder.plan == PLAN
    assert encoder.name == "tiny-1"
    assert encoder.sha256 == load_weights(path).sha256
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = Encoder(PLAN, tensors())(x, ["relu2_1"])["relu2_1"]
    assert torch.equal(encoder(x, ["relu2_1"])["relu2_1"], expected)


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_damaged_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "tiny-1.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="cannot read the weight file") as caught:
        Encoder.load(path)
    assert str(path) in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_text("these are not weights\n" * 50)
    with pytest.raises(WeightsError, match="cannot read the weight file"):
        Encoder.load(path)


def test_a_file_without_a_plan_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny-1.safetensors", plan=None)
    with pytest.raises(WeightsError, match="is no encoder"):
        Encoder.load(path)
    save_file(tensors(), path)
    with pytest.raises(WeightsError, match="is no encoder"):
        Encoder.load(path)


@pytest.mark.parametrize("plan", ["", "2,3,M,x", "2,,3,M,4", "M"])
def test_a_plan_that_makes_no_sense_is_refused(tmp_path: Path, plan: str) -> None:
    path = write(tmp_path / "tiny-1.safetensors", plan=plan)
    with pytest.raises(WeightsError):
        Encoder.load(path)


@pytest.mark.parametrize("key", ["mean", "std"])
@pytest.mark.parametrize("value", [None, "", "0.1,0.2", "0.1,0.2,0.3,0.4", "a,b,c"])
def test_three_numbers_are_three_numbers(tmp_path: Path, key: str, value: str | None) -> None:
    path = write(tmp_path / "tiny-1.safetensors", **{key: value})
    with pytest.raises(WeightsError, match=f"does not say its '{key}' in three numbers"):
        Encoder.load(path)


@pytest.mark.parametrize("missing", ["conv1_1.weight", "conv1_2.bias", "conv2_1.weight"])
def test_a_file_that_lacks_a_tensor_of_its_plan_is_refused(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "tiny-1.safetensors"
    save_file({k: v for k, v in tensors().items() if k != missing}, path, METADATA)
    with pytest.raises(WeightsError, match=missing):
        Encoder.load(path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("conv1_1.weight", (2, 4, 3, 3)),
        ("conv1_2.weight", (4, 2, 3, 3)),
        ("conv2_1.weight", (4, 3, 5, 5)),
        ("conv2_1.weight", (4, 27)),
        ("conv1_2.bias", (4,)),
        ("conv2_1.bias", (4, 1)),
    ],
)
def test_a_file_whose_tensors_do_not_fit_its_plan_is_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "tiny-1.safetensors"
    save_file(tensors() | {name: torch.zeros(shape)}, path, METADATA)
    with pytest.raises(WeightsError, match=name):
        Encoder.load(path)


# Other programs' files


@pytest.mark.parametrize("name", ["net.h5", "net.hdf5", "net.H5", "net.pth", "net.pt", "net.PTH"])
def test_other_programs_files_are_read_by_their_path(tmp_path: Path, name: str) -> None:
    path, weights = tmp_path / name, kernels(TINY)
    if "h" in path.suffix.lower()[1]:
        write_keras(path, weights)
    else:
        write_torchvision(path, state_dict(weights))
    file = load_weights(path)
    assert (file.name, file.path) == ("net", path)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.triple("std")[0] == (0.229 if "p" in path.suffix.lower() else 1 / 255)
    encoder = Encoder.load(str(path))
    assert encoder.plan.blocks == TINY
    assert encoder.sha256 == file.sha256


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html>\n<title>404</title>", "it is a web page"),
        (b"\n <html>", "it is a web page"),
        (b"\0" * 100, ""),
        (b"weights, honestly\n" * 9, ""),
    ],
)
def test_what_is_no_weight_file_of_any_kind(
    tmp_path: Path, suffix: str, data: bytes, words: str
) -> None:
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="cannot read the weight file") as caught:
        Encoder.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["net.keras", "net.bin", "net"])
def test_a_file_of_no_known_kind_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"anything")
    with pytest.raises(WeightsError, match=r"none of \.safetensors, \.h5, \.hdf5, \.pth, \.pt"):
        load_weights(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_folders_are_no_weight_files(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"odd{suffix}").mkdir()
    with pytest.raises(WeightsError, match="it is a folder"):
        load_weights(tmp_path / f"odd{suffix}")


def test_a_sound_file_may_begin_like_a_web_page(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    weights = Weights(tensors(), METADATA)
    write_weights(path, weights)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    # A header of 15392 bytes: the file begins with a space and a "<".
    header = data[8 : 8 + length].ljust(15392)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    assert path.read_bytes().startswith(b" <")
    assert load_weights(path).metadata == METADATA


# Checksums


def test_the_bundled_networks_are_those_on_their_cards() -> None:
    for name, path in bundled().items():
        assert verify(name) == path
    assert verify("slim") == weights_path("slim")


@pytest.mark.parametrize("harm", ["weights", "card"])
def test_a_damaged_bundled_network_is_found(models: Path, harm: str) -> None:
    for path in MODELS.glob("slim-1.*"):
        shutil.copy(path, models)
    verify("slim-1")
    if harm == "weights":
        path = models / "slim-1.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    else:
        (models / "slim-1.md").unlink()
    with pytest.raises(WeightsError, match="install impasto again"):
        verify("slim")


def test_what_nothing_is_known_of_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing is known"):
        verify(str(write(tmp_path / "mine.safetensors")))


def test_the_right_weights_pass_the_check() -> None:
    check_sha256("the network", "ab" * 32, "ab" * 32)


def test_other_weights_are_refused_with_both_checksums() -> None:
    with pytest.raises(WeightsError) as caught:
        check_sha256("the picture out.png", "12" * 32, "ab" * 32)
    message = str(caught.value)
    assert message.startswith("the picture out.png was made with")
    assert "121212121212…" in message
    assert "abababababab…" in message
