"""Weight files: names and families, what a broken file comes to, checksums."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from impasto import weights as weights_module
from impasto.encoder import Encoder, Plan
from impasto.errors import WeightsError
from impasto.weights import bundled, check_sha256, load_weights, weights_path

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


# Checksums


def test_the_right_weights_pass_the_check() -> None:
    check_sha256("the network", "ab" * 32, "ab" * 32)


def test_other_weights_are_refused_with_both_checksums() -> None:
    with pytest.raises(WeightsError) as caught:
        check_sha256("the picture out.png", "12" * 32, "ab" * 32)
    message = str(caught.value)
    assert message.startswith("the picture out.png was made with")
    assert "121212121212…" in message
    assert "abababababab…" in message
