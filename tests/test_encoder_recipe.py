"""The encoder's recipe: a short run on drawn pictures that repeats a stored trace, and its parts.

`PYTHONPATH=. python tests/test_encoder_recipe.py` writes the trace anew.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import pictures
from impasto.encoder import Encoder, Plan
from impasto.errors import ImpastoError, SettingsError
from impasto.foreign import Weights
from impasto.settings import Padding, Pooling
from impasto.trainer import Length, Moment
from impasto.weights import load_weights
from training import blend, classifier, datasets
from training import encoder as recipe

GOLDEN = Path(__file__).with_name("golden") / "encoder_recipe.json"
CLASSES, EACH = 4, 6
SMALL = "8,8,M,12,M,16"
NONE = datasets.Pictures(np.empty((0, 64, 64, 3), np.uint8), np.empty(0, np.int64))


def draw_data(folder: Path) -> Path:
    """Tiny-ImageNet in mosaics (four classes), and three larger pictures, one of them held out."""
    for split, rows in (("train", 2), ("val", 1)):
        (folder / "tiny-imagenet" / split).mkdir(parents=True)
        for label in range(CLASSES):
            tiles = [[tile(label, 3 * row + column) for column in range(3)] for row in range(rows)]
            mosaic = np.concatenate([np.concatenate(row, 1) for row in tiles])
            pictures.save(folder / "tiny-imagenet" / split / f"n{label}.png", mosaic)
    (folder / "textures").mkdir()
    for number in range(3):
        pixels = pictures.painting(280, 260, seed=number)
        pictures.save(folder / "textures" / f"{number}.png", pixels)
    return folder


def tile(label: int, number: int) -> pictures.Array:
    """A 64 px picture of a class."""
    return (pictures.photo, pictures.painting)[label % 2](64, 64, seed=10 * (label // 2) + number)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heldout.txt").write_text("textures/1.png\n")
    monkeypatch.setattr(datasets, "HELD_OUT", tmp_path / "heldout.txt")


def flags(data: Path, out: Path, *more: str) -> list[str]:
    options = {
        "data": data, "out": out, "plan": SMALL, "images": 160, "batch": 8, "log-every": 1,
        "threads": 1, "precision": "float32", "style-batch": 2, "style-every": 3, "style-side": 64,
        "adversarial-from": 0.5, "rate": 0.05,
    }  # fmt: skip
    return [text for name, value in options.items() for text in (f"--{name}", str(value))] + [*more]


def trace(out: Path) -> list[dict[str, Any]]:
    lines = (out / "log.jsonl").read_text("utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def small_net(pooling: Pooling = "avg", padding: Padding = "replicate") -> Any:
    torch.manual_seed(0)
    net: Any = classifier.Classifier(Plan.parse(SMALL), CLASSES, pooling, padding)
    for _ in range(3):  # batch norm learns some statistics
        net(torch.rand(8, 3, 32, 32))
    with torch.no_grad():
        for norm in net.norms.values():
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.3, 0.5)
    return net


def moment(dtype: torch.dtype = torch.float32) -> Moment:
    return Moment(0, Length(8, 8, 8, 8), torch.device("cpu"), dtype)


def test_twenty_steps_repeat_the_stored_trace(data: Path, tmp_path: Path) -> None:
    recipe.main(flags(data, tmp_path / "run"))
    found, wanted = trace(tmp_path / "run"), json.loads(GOLDEN.read_text("utf-8"))
    assert len(found) == len(wanted) == 20
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"top1"}:  # a single picture may fall either way
            assert ours[name] == pytest.approx(theirs[name], rel=5e-3), (name, ours["images"])

    encoder = Encoder.load(tmp_path / "run" / "encoder.safetensors", pooling="avg")
    assert encoder.layers == Plan.parse(SMALL).layers
    metadata = load_weights(tmp_path / "run" / "encoder.safetensors").metadata
    assert metadata["pooling"] == "avg"
    assert metadata["padding"] == "replicate"
    assert json.loads(metadata["recipe"])["images"] == 160
    assert 0 <= float(metadata["top1"]) <= 1


def test_a_run_can_be_stopped_and_resumed(data: Path, tmp_path: Path) -> None:
    recipe.main(flags(data, tmp_path / "whole"))
    recipe.main(flags(data, tmp_path / "parts", "--time", "0"))
    assert len(trace(tmp_path / "parts")) == 1
    recipe.main(flags(data, tmp_path / "parts", "--resume"))
    assert trace(tmp_path / "parts") == trace(tmp_path / "whole")
    whole, parts = (
        load_weights(tmp_path / name / "encoder.safetensors").tensors for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_warm_start_goes_on_from_a_weight_file(data: Path, tmp_path: Path) -> None:
    recipe.main(flags(data, tmp_path / "first"))
    file = tmp_path / "first" / "encoder.safetensors"
    more = ("--warm-start", str(file), "--head-first", "1", "--images", "8")
    recipe.main(flags(data, tmp_path / "second", *more))
    before = load_weights(file).tensors
    after = load_weights(tmp_path / "second" / "encoder.safetensors").tensors
    for key in before:  # only the head has learnt: the rest is as it was, but for rounding
        assert torch.allclose(before[key], after[key], rtol=0.02, atol=0.01), key


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("padding", ["zero", "replicate", "reflect"])
def test_export_keeps_the_features_and_makes_their_means_one(
    tmp_path: Path, pooling: Any, padding: Any
) -> None:
    net = small_net(pooling, padding).eval()
    photos = [torch.rand(1, 3, 40, 48) for _ in range(3)]
    options = recipe.Options(plan=SMALL, pooling=pooling, padding=padding)
    recipe.export(net, options, photos, tmp_path / "e.safetensors", top1="0.5")
    encoder = Encoder.load(tmp_path / "e.safetensors", pooling=pooling, padding=padding)
    means = dict.fromkeys(encoder.layers, 0.0)
    for photo in photos:
        ours, theirs = net.features(photo), encoder(photo, encoder.layers)
        for layer in encoder.layers:
            means[layer] += float(theirs[layer].mean()) / len(photos)
            a, b = ours[layer].flatten(), theirs[layer].flatten()
            assert F.cosine_similarity(a, b, dim=0) > 0.9999, layer
    assert list(means.values()) == pytest.approx([1.0] * len(means), rel=2e-3)


@torch.no_grad()
def test_warm_start_has_the_features_of_its_file() -> None:
    source = classifier.fold(small_net().eval())
    x = torch.rand(64, 3, 32, 32)
    net: Any = classifier.Classifier(Plan.parse(SMALL), CLASSES, "avg", "replicate")
    classifier.warm_start(net, source, x)
    wanted = Encoder(Plan.parse(SMALL), source, pooling="avg")(x, net.plan.layers)
    for training in (True, False):
        found = net.train(training).features(x)
        for layer in net.plan.layers:
            a, b = found[layer].flatten(), wanted[layer].flatten()
            assert F.cosine_similarity(a, b, dim=0) > 0.9999, (layer, training)
        assert float(net.norms["relu1_1"].weight.mean()) == pytest.approx(1, abs=0.2)


def test_misleading_raises_the_loss_within_its_bounds() -> None:
    net = small_net()
    net.dropout.p = 0.0
    x, y = torch.rand(8, 3, 32, 32), torch.arange(8) % CLASSES
    statistics = net.norms["relu1_1"].running_mean.clone()
    moved = recipe.mislead(net, x, y, 0.03, moment())
    assert float((moved - x).abs().max()) <= 0.03 + 1e-6
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    assert torch.equal(statistics, net.norms["relu1_1"].running_mean)
    assert all(p.grad is None for p in net.parameters())
    noise = (x + 0.03 * torch.randn_like(x).sign()).clamp(0, 1)
    with torch.no_grad():
        assert F.cross_entropy(net(moved), y) > F.cross_entropy(net(noise), y)


@torch.no_grad()
def test_style_loss_is_low_where_parts_belong_together() -> None:
    torch.manual_seed(0)
    net = small_net()
    styles = torch.stack(
        [torch.tensor(pictures.painting(128, 64, seed=s)).permute(2, 0, 1) / 255 for s in range(6)]
    )
    alike = recipe.style_loss(net, styles, 48, 0.03, moment())
    halves = torch.cat((styles[..., :64], styles.roll(1, 0)[..., 64:]), 3)
    unlike = recipe.style_loss(net, halves, 48, 0.03, moment())
    assert 0 < float(alike) < float(unlike)


def test_parts_lie_left_and_right() -> None:
    x = torch.arange(100.0).expand(5, 3, 60, 100)
    left, right = recipe.parts_of(x, 40)
    assert left.shape == right.shape == (5, 3, 40, 40)
    assert float(left.max()) < 50 <= float(right.min())


def test_disturbances_stay_pictures_and_are_small() -> None:
    torch.manual_seed(0)
    x = torch.rand(64, 3, 16, 16) * 0.2 + 0.4
    changed = recipe.disturb(x)
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    change = (changed - x).square().mean((1, 2, 3)).sqrt()
    assert float(change.min()) > 0.01
    assert float(change.max()) < 0.15


@pytest.mark.parametrize("side", [40, 64])
def test_augmented_pictures_keep_to_the_range(side: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(16, 3, 64, 64)
    y = recipe.augment(x, side, 0.6)
    assert y.shape == (16, 3, side, side)
    assert float(y.min()) >= 0
    assert float(y.max()) <= 1
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_a_crop_of_all_is_the_picture_or_its_mirror() -> None:
    x = F.interpolate(torch.rand(8, 3, 8, 8), (64, 64), mode="bilinear") * 0.5 + 0.25
    y = recipe.augment(x, 64, 1.0)

    def centred(z: Tensor) -> Tensor:
        flat = z.mean(1).flatten(1)
        return F.normalize(flat - flat.mean(1, keepdim=True))

    straight, mirrored = ((centred(y) * centred(z)).sum(1) for z in (x, x.flip(3)))
    assert float(torch.maximum(straight, mirrored).min()) > 0.7
    assert bool((straight > mirrored).any())
    assert bool((straight < mirrored).any())


def save_jpeg(path: Path, pixels: pictures.Array) -> None:
    """As well as JPEG can."""
    Image.fromarray(pixels).save(path, quality=100, subsampling=0)


def test_both_layouts_give_the_same_pictures(data: Path, tmp_path: Path) -> None:
    public = tmp_path / "data" / "tiny-imagenet-200"
    annotations = []
    (public / "val" / "images").mkdir(parents=True)
    for label in range(CLASSES):
        folder = public / "train" / f"n{label}" / "images"
        folder.mkdir(parents=True)
        for number in range(EACH):
            save_jpeg(folder / f"n{label}_{number}.JPEG", tile(label, number))
        for number in range(3):
            name = f"val_{3 * label + number}.JPEG"
            save_jpeg(public / "val" / "images" / name, tile(label, number))
            annotations.append(f"{name}\tn{label}\t0\t0\t62\t62\n")
    (public / "val" / "val_annotations.txt").write_text("".join(annotations))
    for split in ("train", "val"):
        ours = datasets.tiny_imagenet(data, split, tmp_path / "a")
        theirs = datasets.tiny_imagenet(tmp_path / "data", split, tmp_path / "b")
        assert ours.pixels.shape == theirs.pixels.shape
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert np.abs(ours.pixels.astype(int) - theirs.pixels).mean() < 2  # JPEG's own loss


def test_held_out_pictures_are_left_out(data: Path, tmp_path: Path) -> None:
    styles = datasets.style_pictures(data, tmp_path)
    assert styles.pixels.shape == (2, 256, 256, 3)
    assert datasets.style_pictures(data, tmp_path).labels.tolist() == styles.labels.tolist()


def test_data_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImpastoError, match="has no tiny-imagenet-200; download"):
        datasets.tiny_imagenet(tmp_path, "train", tmp_path)


def test_the_held_out_list_is_that_of_the_card() -> None:
    names = Path(datasets.__file__).with_name("heldout.txt").read_text("utf-8").split()
    assert len(set(names)) == 300
    assert sum(name.startswith("textures/") for name in names) == 200
    assert sum(name.startswith("paintings/monet/") for name in names) == 100


def regenerate() -> None:
    """Writes the stored trace anew."""
    with tempfile.TemporaryDirectory() as folder:
        data = draw_data(Path(folder) / "data")
        held = Path(folder) / "heldout.txt"
        held.write_text("textures/1.png\n")
        datasets.HELD_OUT = held  # type: ignore[misc]
        recipe.main(flags(data, Path(folder) / "run"))
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(trace(Path(folder) / "run"), indent=1) + "\n", "utf-8")


# --- Blending -------------------------------------------------------------------------------------


def test_a_blend_is_the_mean_of_weights_and_normalised(data: Path, tmp_path: Path) -> None:
    recipe.main(flags(data, tmp_path / "first"))
    first = tmp_path / "first" / "encoder.safetensors"
    more = ("--warm-start", str(first), "--seed", "1")
    recipe.main(flags(data, tmp_path / "second", *more))
    second = tmp_path / "second" / "encoder.safetensors"
    out = tmp_path / "blend.safetensors"
    blend.main(["--data", str(data), "--out", str(out), f"{first}:0.25", f"{second}:0.75"])
    made, a, b = (load_weights(path) for path in (out, first, second))
    for name, tensor in made.tensors.items():
        mean = 0.25 * a.tensors[name] + 0.75 * b.tensors[name]
        factor = float((tensor * mean).sum() / mean.square().sum())  # normalising is one factor
        if name.endswith("weight"):
            assert torch.allclose(tensor, factor * mean, rtol=0.02, atol=0.005), name
    assert made.metadata["blend"] == "0.25 encoder.safetensors, 0.75 encoder.safetensors"
    assert made.metadata["pooling"] == "avg"
    x = torch.cat(recipe.calibration(datasets.style_pictures(data, tmp_path / "cache"), NONE))
    features = Encoder.load(out, pooling="avg")(x, Plan.parse(SMALL).layers)
    for layer, found in features.items():
        assert found.mean() == pytest.approx(1, rel=0.02), layer


def test_a_blend_of_one_is_the_file_itself(data: Path, tmp_path: Path) -> None:
    recipe.main(flags(data, tmp_path / "run"))
    path, out = tmp_path / "run" / "encoder.safetensors", tmp_path / "out.safetensors"
    blend.main(["--data", str(data), "--out", str(out), f"{path}:1"])
    made, given = load_weights(out).tensors, load_weights(path).tensors
    for name in given:
        assert torch.allclose(made[name], given[name], rtol=5e-3, atol=1e-3), name


def test_a_blend_refuses_what_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Weights({"conv1_1.weight": torch.ones(2, 3, 3, 3)}, {})
    other = Weights({"conv1_1.weight": torch.ones(4, 3, 3, 3)}, {})
    with pytest.raises(SettingsError, match="add up to 1"):
        blend.blend([(one, 0.5), (one, 0.6)])
    with pytest.raises(SettingsError, match=r"conv1_1\.weight is not of one shape"):
        blend.blend([(one, 0.5), (other, 0.5)])
    named = [Weights(one.tensors, dict.fromkeys(blend.ENCODER, pool)) for pool in ("avg", "max")]
    with pytest.raises(SettingsError, match="agree on plan, and it is avg, max"):
        blend.blend([(weights, 0.5) for weights in named])
    with pytest.raises(SettingsError, match="write FILE:SHARE"):
        blend.parse("file")
    with pytest.raises(SystemExit):
        blend.main(["--out", str(tmp_path / "out.safetensors"), "slim-1:1"])
    assert "say where with --data" in capsys.readouterr().err
    assert blend.parse("a:b.safetensors:0.8") == (Path("a:b.safetensors"), 0.8)


if __name__ == "__main__":
    regenerate()
