"""The recipe of the network that paints in one pass, on drawn pictures and at toy size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import pictures
from impasto.encoder import Encoder
from impasto.errors import ImpastoError
from impasto.fast.style import FastStyle
from impasto.images import Picture
from impasto.objectives import ContentTerm, Region, Styles, StyleTerm, make_objective
from impasto.trainer import Length, Moment
from impasto.weights import read_weights
from training import fast
from training.datasets import style_label, style_pictures
from training.fast import (
    Judge,
    Options,
    Recipe,
    crops,
    flattened,
    in_cells,
    in_few_colors,
    other_colors,
    rate_at,
    relative,
)

TOY = [
    *("--widths", "4,4,8,8", "--batch", "2", "--side", "64", "--late-side", "96"),
    *("--log-every", "2", "--threads", "1", "--precision", "float32"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six drawn pictures in two folders."""
    for i in range(6):
        folder = tmp_path / "data" / ("photos" if i % 2 else "paintings")
        folder.mkdir(parents=True, exist_ok=True)
        drawn = pictures.photo(80, 64, i) if i % 2 else pictures.painting(80, 64, i)
        Image.fromarray(drawn).resize((320, 256)).save(folder / f"{i}.png")
    return tmp_path / "data"


def test_crops_are_parts_of_the_picture() -> None:
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(0, 1, 256), torch.linspace(0, 1, 256), indexing="ij")
    ramp = torch.stack((x, y, 0.5 * (x + y)))[None].repeat(16, 1, 1, 1)
    for turned in (False, True):
        found = crops(ramp, 64, turned=turned)
        assert found.shape == (16, 3, 64, 64)
        assert found.min() >= 0
        assert found.max() <= 1
        # A crop of a plane is a plane: no place is mirrored in, none is outside.
        inner = found[..., 4:-4, 4:-4]
        bend = inner[..., 2:] - 2 * inner[..., 1:-1] + inner[..., :-2]
        assert bend.abs().max() < 2e-3
        spans = (inner.amax((2, 3)) - inner.amin((2, 3)))[:, :2].amax(1)
        assert spans.std() > 0.02  # scales differ
    upright = crops(ramp, 64, turned=False)
    assert (upright[:, 1].diff(dim=2).abs().max()) < 1e-3  # rows stay rows


def test_crops_are_enlarged_no_further_than_said() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 256).view(1, 1, 1, 256).expand(64, 3, 256, 256)
    for enlarged in (1.2, 1.7):
        found = crops(ramp, 64, turned=False, enlarged=enlarged)
        steps = found[..., 1:-1].diff(dim=3).abs().mean((1, 2, 3)) * 255  # px of the picture
        assert 1 / enlarged - 0.01 < steps.min() < 1.15 / enlarged


def test_a_share_of_the_styles_is_drawn(data: Path, tmp_path: Path) -> None:
    folder = data / "drawn"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(pictures.painting(80, 64, i)).save(folder / f"{i}.png")
    found = style_pictures(data, tmp_path)
    (data / "a-folder-of-later").mkdir()
    Image.fromarray(pictures.painting(80, 64)).save(data / "a-folder-of-later" / "1.png")
    assert len(style_pictures(data, tmp_path).labels) == len(found.labels)
    label = style_label(tmp_path, "drawn")
    assert style_label(tmp_path, "a-folder-of-later") is None
    drawn = {int(i) for i in (found.labels == label).nonzero()[0]}
    assert len(drawn) == 2
    with pytest.raises(ImpastoError, match="multiples of 32 px"):
        Recipe(Options(late_side=176), found, torch.device("cpu"), torch.float32)
    options = Options(widths="4,4,8,8", batch=400, drawn=0.5)
    recipe = Recipe(options, found, torch.device("cpu"), torch.float32, label)
    torch.manual_seed(0)
    chosen = recipe._style_indices(0).tolist()
    assert 0.55 < sum(i in drawn for i in chosen) / len(chosen) < 0.7  # with those by chance
    without = Recipe(options, found, torch.device("cpu"), torch.float32)._style_indices(0).tolist()
    assert sum(i in drawn for i in without) == 100


def test_colours_change_in_half_of_the_pictures() -> None:
    torch.manual_seed(1)
    x = Picture(pictures.painting(32, 32)).tensor().repeat(64, 1, 1, 1)
    changed = other_colors(x)
    assert changed.min() >= 0
    assert changed.max() <= 1
    same = sum(bool(torch.equal(a, b)) for a, b in zip(x, changed, strict=True))
    assert 15 < same < 50


def test_flat_styles_have_few_colours_and_hard_edges() -> None:
    torch.manual_seed(2)
    x = Picture(pictures.photo(96, 96)).tensor().repeat(24, 1, 1, 1)
    for change, most in ((in_few_colors, 7), (in_cells, 121)):
        counts = [len(torch.unique(made.flatten(1).T, dim=0)) for made in change(x)]
        assert min(counts) >= 2
        assert max(counts) <= most  # with the outline's
        assert len(set(counts)) > 3


def test_so_many_styles_are_made_flat_as_was_said() -> None:
    torch.manual_seed(3)
    x = Picture(pictures.photo(32, 32)).tensor().repeat(200, 1, 1, 1)
    assert torch.equal(flattened(x, 0.0), x)
    made = flattened(x, 0.4)
    assert made.shape == x.shape
    assert made.min() >= 0
    assert made.max() <= 1
    changed = (made != x).flatten(1).any(1)
    assert 0.25 < changed.float().mean() < 0.55
    assert torch.equal(made[~changed], x[~changed])


def test_relative_errors_are_themselves_when_small_and_roots_when_large() -> None:
    small, large = relative(torch.tensor([0.01, 1e4]), torch.tensor(1.0), 0)
    assert float(small) == pytest.approx(0.01, rel=0.01)
    assert float(large) == pytest.approx(2 * 100, rel=0.02)
    assert float(relative(torch.tensor(1.0), torch.tensor(0.0), 100)) < 1  # of a flat picture


def test_the_judge_is_the_optimisers_objective() -> None:
    """With small errors, where roots and squares agree."""
    encoder = Encoder.load("slim")
    judge, settings = Judge(encoder), fast.OBJECTIVE
    photo, style = (torch.rand(1, 3, 64, 64) * 0.2 + 0.4 for _ in range(2))
    x = (photo + 0.01 * torch.randn(1, 3, 64, 64)).clamp(0, 1)
    found = judge.losses(judge.look(x), judge.look(photo), judge.look(style))
    objective = make_objective(
        encoder,
        (64, 64),
        content=ContentTerm(photo, settings.content_layers, 1.0),
        style=StyleTerm([Region(Styles([style], [1.0]))], settings.style_layers, 1.0, (64, 64)),
        settings=settings,
    )
    expected = objective(x)
    assert float(found["content"][0]) == pytest.approx(float(expected["content"]), rel=0.05)
    assert float(found["style"][0]) == pytest.approx(float(expected["style"]), rel=0.1)
    itself = judge.losses(judge.look(x), judge.look(x), judge.look(x))
    assert all(float(loss.abs().max()) < 1e-4 for loss in itself.values())


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [rate_at(done / 100, 1.0, 0.8) for done in range(101)]
    assert 0 < rates[0] < 0.1
    assert rates[1:81] == pytest.approx([1.0] * 80)
    assert rates[90] == pytest.approx(0.5)
    assert rates[-1] == 0
    assert rate_at(1.0, 1.0, 1.0) == 0


def test_linear_layers_learn_more_slowly(data: Path, tmp_path: Path) -> None:
    options = Options(widths="4,4,8,8", batch=2, side=64)
    found = style_pictures(data, tmp_path)
    recipe = Recipe(options, found, torch.device("cpu"), torch.float32)
    before = {name: value.clone() for name, value in recipe.net.named_parameters()}
    length = Length(100, 2, 100, 100)
    for seen in (2, 4, 6):  # layers that begin with 0 hold up those before them
        recipe.step(Moment(seen, length, torch.device("cpu"), torch.float32))
    moved = {
        name: float((value - before[name]).detach().abs().max())
        for name, value in recipe.net.named_parameters()
    }
    groups = [*recipe.muon.param_groups, *recipe.adam.param_groups]
    assert sum(len(group["params"]) for group in groups) == len(before)
    linear = {k: v for k, v in moved.items() if k.startswith("code.") or "gains" in k}
    filters = {k: v for k, v in moved.items() if ".convs." in k and k.endswith("weight")}
    assert min(filters.values()) > 0.3 * options.rate
    assert min(linear.values()) > 0
    matrices = [k for k in linear if before[k].ndim > 1]
    steps = {
        k: float((v - before[k]).detach().square().mean().sqrt())
        for k, v in recipe.net.named_parameters()
    }
    most = 3 * options.rate * options.linear
    assert max(steps[k] for k in matrices) < 0.2 * 1.3 * most  # of Muon; see its `lr`
    assert max(moved[k] for k in linear if k not in matrices) < 1.01 * most
    assert min(steps[k] for k in filters) > 0.2 * 1.3 * most  # so the filters went further


def test_a_run_learns_is_continued_and_can_be_used(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--data", str(data), "--cache", str(tmp_path / "cache"), *TOY, "--images", "48"]
    fast.main([*run, "--out", str(tmp_path / "whole")])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 12
    assert sum(losses[-4:]) < sum(losses[:4])
    fast.main([*run, "--out", str(tmp_path / "parts"), "--time", "0"])
    fast.main([*run, "--out", str(tmp_path / "parts"), "--resume"])
    whole, parts = (tmp_path / name / "fast.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    painter = FastStyle.load(whole)
    made = painter.stylize(
        Picture(pictures.photo(40, 32)), painter.style(Picture(pictures.painting()))
    )
    assert made.size == (40, 32)
    assert sorted(path.name for path in (tmp_path / "whole").glob("sheet-*")) == [
        "sheet-0000048.png"
    ]


def test_a_run_begins_with_an_earlier_network(data: Path, tmp_path: Path) -> None:
    run = ["--data", str(data), "--cache", str(tmp_path / "cache"), *TOY]
    run += ["--images", "2", "--rate", "1e-9"]
    earlier = tmp_path / "first" / "fast.safetensors"
    for name, flags in (
        ("first", ["--seed", "5"]),
        ("warm", ["--warm-start", str(earlier)]),
        ("cold", []),
    ):
        fast.main([*run, "--out", str(tmp_path / name), *flags])
    first, warm, cold = (
        read_weights(tmp_path / name / "fast.safetensors") for name in ("first", "warm", "cold")
    )
    for name, tensor in first.tensors.items():
        assert torch.allclose(warm.tensors[name], tensor, atol=1e-3), name
    assert any(
        not torch.allclose(cold.tensors[name], tensor, atol=1e-3)
        for name, tensor in first.tensors.items()
    )
    recipe = json.loads(warm.metadata["recipe"])
    assert recipe["warm_start"] == "fast.safetensors"
