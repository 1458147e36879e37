"""The recipe of the network that paints in one pass, on drawn pictures and at toy size."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import pictures
from impasto.encoder import Encoder
from impasto.errors import ImpastoError
from impasto.fast.network import MOMENTS, FastNetwork, halved
from impasto.fast.style import FastStyle
from impasto.images import Picture
from impasto.losses import second_variation
from impasto.objectives import ContentTerm, Region, Styles, StyleTerm, make_objective
from impasto.parallel import World
from impasto.trainer import Length, Moment
from impasto.weights import read_weights
from training import blend, drawn, fast
from training.augment import (
    crops,
    flattened,
    in_bands,
    in_cells,
    in_few_colors,
    other_colors,
)
from training.datasets import Pictures, chances, style_pictures
from training.fast import Options, Recipe, rate_at
from training.judge import OBJECTIVE, Judge, Seen, relative

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
    for turned in (0.0, 1.0):
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
    upright = crops(ramp, 64)
    assert (upright[:, 1].diff(dim=2).abs().max()) < 1e-3  # rows stay rows
    some = crops(ramp.repeat(8, 1, 1, 1), 64, turned=0.3)[:, 1].diff(dim=2).abs().amax((1, 2))
    assert 0.15 < (some > 1e-3).float().mean() < 0.45


def test_crops_are_enlarged_no_further_than_said() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 256).view(1, 1, 1, 256).expand(64, 3, 256, 256)
    for enlarged in (1.2, 1.7):
        found = crops(ramp, 64, enlarged=enlarged)
        steps = found[..., 1:-1].diff(dim=3).abs().mean((1, 2, 3)) * 255  # px of the picture
        assert 1 / enlarged - 0.01 < steps.min() < 1.15 / enlarged
        assert 2 < steps.max() < 4.05
        found = crops(ramp, 64, enlarged=enlarged, smallest=1.0)
        steps = found[..., 1:-1].diff(dim=3).abs().mean((1, 2, 3)) * 255
        assert 1 / enlarged - 0.01 < steps.min() < 1.15 / enlarged
        assert 0.9 < steps.max() < 1.01
    found = crops(ramp, 64, enlarged=1.0, smallest=2.0)  # more than there can be: as enlarged
    steps = found[..., 1:-1].diff(dim=3).abs().mean((1, 2, 3)) * 255
    assert steps.tolist() == pytest.approx([1.0] * 64, abs=0.01)


def some(*folders: str, labels: list[int]) -> Pictures:
    """Pictures of which only the folders are of interest."""
    pixels = np.zeros((len(labels), 64, 64, 3), np.uint8)
    return Pictures(pixels, np.array(labels, np.int64), folders)


def test_folders_have_shares() -> None:
    found = some(
        *("drawn", "paintings", "paintings/monet", "photos/big", "photos-of-others"),
        labels=[0, 1, 1, 2, 3, 3, 3, 4],
    )
    shares, words = chances("drawn=5,paintings=2, paintings/monet/ =1,photos=2,new=9", found)
    assert shares.tolist() == pytest.approx([5, 1, 1, 1, 2 / 3, 2 / 3, 2 / 3, 0])
    assert words == (
        "50% drawn, 20% paintings, 10% paintings/monet, 20% photos, not there: new, "
        "left out: photos-of-others"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("photos", "cannot read 'photos' in 'photos'; write FOLDER=SHARE"),
        ("", "cannot read ''"),
        ("photos=1,", "cannot read ''"),
        ("photos=x", "cannot read 'photos=x'"),
        ("photos=1=2", "cannot read 'photos=1=2'"),
        ("photos=-1", "cannot read"),
        ("photos=nan", "cannot read"),
        ("photos=inf", "cannot read"),
        ("=1", "cannot read"),
        ("photos=1,photos=2", "each folder once"),
        ("photo=1", "no picture lies in a folder of 'photo=1'; there are photos, art"),
        ("photos=0,drawn=1", "no picture lies in a folder"),
    ],
)
def test_shares_that_mean_nothing_are_told(text: str, told: str) -> None:
    with pytest.raises(ImpastoError, match=re.escape(told)):
        chances(text, some("photos", "art", labels=[0, 1]))


def test_a_step_takes_photos_and_styles_from_where_was_said(data: Path, tmp_path: Path) -> None:
    found = style_pictures(data, tmp_path)
    assert found.folders == ("paintings", "photos")
    (data / "a-folder-of-later").mkdir()
    Image.fromarray(pictures.painting(80, 64)).save(data / "a-folder-of-later" / "1.png")
    assert style_pictures(data, tmp_path).key == found.key  # as they were stored
    assert style_pictures(data, tmp_path / "anew").key != found.key
    taken = []

    class Watched(Pictures):
        def take(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
            x, labels = super().take(indices, device)
            taken.append({self.folders[i] for i in labels.tolist()})
            return x, labels

    watched = Watched(found.pixels, found.labels, found.folders)
    options = Options(
        widths="4,4,8,8", batch=6, side=64, photos="photos=1", styles="paintings=1,photos=0"
    )
    device = torch.device("cpu")
    recipe = Recipe(options, watched, device, torch.float32)
    recipe.step(Moment(6, Length(100, 6, 100, 100), device, torch.float32))
    assert taken == [{"photos"}, {"paintings"}]
    assert recipe.sources == ("photos: 100% photos, left out: paintings; styles: 100% paintings")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--styles", "nowhere=1"], "no picture lies in a folder of 'nowhere=1'"),
        (["--late-side", "80"], "multiples of 32 px"),
        (["--widths", "4,4,8"], "widths are four numbers"),
        (["--cut", "0"], "--cut is a multiple of 32 px, not 0"),
        (["--cut", "300"], "--cut is a multiple of 32 px, not 300"),
        (["--enlarged", "0"], "--enlarged is a number above 0, not 0"),
        (["--enlarged", "nan"], "--enlarged is a number above 0, not nan"),
        (["--pairings", "0"], "--pairings is a number from 1 to --batch, not 0"),
        (["--smallest", "-1"], "--smallest is a number from 0 to 1, not -1"),
        (["--momentum", "1"], "--momentum is a number from 0 to below 1, not 1.0"),
        (["--half-life", "-1"], "--half-life is a number of pictures, not -1"),
        (["--flat", "0.9", "--banded", "0.3"], "--flat and --banded are shares of the styles"),
        (["--smallest", "nan"], "--smallest is a number from 0 to 1, not nan"),
    ],
)
def test_what_cannot_be_trained_ends_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    out = tmp_path / "run"
    run = ["--data", str(data), "--cache", str(tmp_path / "cache"), *TOY, "--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        fast.main([*run, *flags])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_without_pictures_can_get_some(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    cache = ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit):
        fast.main(["--data", str(tmp_path / "empty"), *cache])
    assert "empty has no pictures" in capsys.readouterr().err
    assert len(style_pictures(data, tmp_path / "cache").labels) == 6
    (tmp_path / "cache" / "style.folders.txt").unlink()
    with pytest.raises(ImpastoError, match="give another --cache"):
        style_pictures(data, tmp_path / "cache")


def test_squares_of_each_side_are_kept_beside_each_other(data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    small, large = style_pictures(data, cache), style_pictures(data, cache, 512)
    assert small.pixels.shape == (6, 256, 256, 3)
    assert large.pixels.shape == (6, 512, 512, 3)
    assert large.folders == small.folders
    assert large.labels.tolist() == small.labels.tolist()
    assert style_pictures(data, cache).key == small.key  # the one has not become the other
    assert style_pictures(data, cache, 512).key == large.key
    halves = large.pixels.reshape(6, 256, 2, 256, 2, 3).mean((2, 4))
    assert np.abs(halves - small.pixels).mean() < 2  # the same parts of the same pictures


@pytest.mark.parametrize("side", [32, 128, 192])
def test_a_sheet_shows_its_styles_in_corners(side: int) -> None:
    net = FastNetwork(Encoder.load("slim"), (4, 4, 8, 8))
    found = np.stack([pictures.painting(side, side, i) for i in range(8)])
    shown = fast.sheet(net, Pictures(found, np.zeros(8, np.int64)), torch.device("cpu"))
    assert shown.size == (8 * side, 4 * side)
    corner = side // 4
    small = F.adaptive_avg_pool2d(Picture(found[5]).tensor(), corner)  # of the first, in row 1
    seen = Picture(shown.pixels[side : side + corner, :corner]).tensor()
    assert (seen - small).abs().max() < 1 / 128


def test_a_run_takes_the_squares_and_the_enlargement_that_were_said(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def watched(x: Tensor, side: int, **options: float) -> Tensor:
        taken.append((x.shape[-1], options))
        return crops(x, side, **options)

    monkeypatch.setattr(fast, "crops", watched)
    run = ["--data", str(data), "--cache", str(tmp_path / "cache"), *TOY, "--images", "2"]
    run += ["--out", str(tmp_path / "run"), "--cut", "128"]
    fast.main([*run, "--enlarged", "1.1", "--smallest", "0.7"])
    assert taken == [
        (128, {"enlarged": 1.1, "smallest": 0.7}),
        (128, {"turned": Options().turned, "smallest": 0.7}),
    ]
    assert (tmp_path / "cache" / "style-128.npy").exists()


def test_drawings_are_kept_in_squares_or_whole(tmp_path: Path) -> None:
    run = ["--out", str(tmp_path), "--count", "1", "--only", "woodcut"]
    drawn.main(run)
    drawn.main([*run, "--whole"])
    first = f"woodcut-{drawn.FIRST}"
    squares = [np.asarray(Image.open(tmp_path / f"{first}-{i}.png")) for i in range(4)]
    whole = np.asarray(Image.open(tmp_path / f"{first}.png"))
    assert len(list(tmp_path.iterdir())) == 5
    assert whole.shape == (512, 512, 3)
    rows = [np.concatenate(squares[i : i + 2], 1) for i in (0, 2)]
    assert (np.concatenate(rows) == whole).all()


def test_colours_change_in_a_share_of_the_pictures() -> None:
    torch.manual_seed(1)
    x = Picture(pictures.painting(32, 32)).tensor().repeat(64, 1, 1, 1)
    for share, least, most in ((0.0, 64, 64), (0.5, 15, 50), (0.2, 40, 60)):
        changed = other_colors(x, share)
        assert changed.min() >= 0
        assert changed.max() <= 1
        same = sum(bool(torch.equal(a, b)) for a, b in zip(x, changed, strict=True))
        assert least <= same <= most


def test_flat_styles_have_few_colours_and_hard_edges() -> None:
    torch.manual_seed(2)
    x = Picture(pictures.photo(96, 96)).tensor().repeat(24, 1, 1, 1)
    for change, most in ((in_few_colors, 7), (in_cells, 121)):
        counts = [len(torch.unique(made.flatten(1).T, dim=0)) for made in change(x)]
        assert min(counts) >= 2
        assert max(counts) <= most  # with the outline's
        assert len(set(counts)) > 3


def test_bands_are_as_long_as_the_picture() -> None:
    torch.manual_seed(4)
    x = Picture(pictures.photo(96, 96)).tensor().repeat(40, 1, 1, 1)
    made = in_bands(x)
    assert made.shape == x.shape
    assert made.min() >= 0
    assert made.max() <= 1
    along = torch.stack([made.std(axis).amax((1, 2)) for axis in (2, 3)])
    straight = along.amin(0) < 0.03  # nothing but grain
    assert 8 <= int(straight.sum()) <= 32
    assert int((along.amax(0) > 0.03).sum()) >= 36


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
    banded = (flattened(x, 0.0, 0.4) != x).flatten(1).any(1)
    assert 0.25 < banded.float().mean() < 0.55


def test_relative_errors_of_a_flat_picture_have_a_limit() -> None:
    assert float(relative(torch.tensor(2.0), torch.tensor(4.0), 0)) == 0.5
    assert float(relative(torch.tensor(1.0), torch.tensor(0.0), 100)) == 1.0


def test_the_judge_is_the_optimisers_objective() -> None:
    encoder = Encoder.load("slim")
    judge, settings = Judge(encoder), OBJECTIVE
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


def test_every_pair_counts_as_much_and_the_draft_with_it(data: Path, tmp_path: Path) -> None:
    device = torch.device("cpu")
    options = Options(widths="4,4,8,8", batch=3, side=64, moments=0, identity=0, own=0)
    recipe = Recipe(options, style_pictures(data, tmp_path), device, torch.float32)
    photo = torch.cat([Picture(pictures.photo(64, 64, i)).tensor() for i in (1, 2, 3)])
    drawn = Picture(pictures.painting(64, 64)).tensor().expand(3, -1, -1, -1)
    style = torch.lerp(photo, drawn, torch.tensor([1.0, 0.7, 0.0])[:, None, None, None])
    x = torch.lerp(photo, drawn.flip(3), 0.3) * 1.2 - 0.1
    kept, aims = recipe.judge.look(photo), recipe.judge.look(style)
    expected = 0.0
    for i in range(3):
        shown = x[i : i + 1].clamp(0, 1)
        one = {name: value[i : i + 1] for name, value in kept.items()}
        aim = {name: value[i : i + 1] for name, value in aims.items()}
        losses = recipe.judge.losses(recipe.judge.look(shown), one, aim)
        start = options.style * float(losses["photo"])
        assert i == 2 or fast.LEAST < start < fast.MOST
        factor = fast.USUAL / (start if i < 2 else fast.LEAST)
        ripple = OBJECTIVE.ripple_weight * second_variation(x[i : i + 1])
        whole = losses["content"] + options.style * losses["style"] + ripple
        expected += factor * float(whole) / 3
        expected += options.outside * float((x[i] - shown[0]).square().mean()) / 3
    assert float(recipe._loss(x, kept, aims)[0]) == pytest.approx(expected, rel=1e-3)
    length = Length(100, 3, 100, 100)
    found = recipe.step(Moment(3, length, device, torch.float32))
    loss, painted, draft = (
        float(torch.as_tensor(found[name]).detach()) for name in ("loss", "painted", "draft")
    )
    assert draft > 1
    assert loss == pytest.approx(painted + options.draft * draft, rel=1e-5)


def test_the_draft_is_not_judged_where_that_counts_for_nothing(data: Path, tmp_path: Path) -> None:
    options = Options(widths="4,4,8,8", batch=2, side=64, draft=0, moments=0, identity=0)
    device = torch.device("cpu")
    recipe = Recipe(options, style_pictures(data, tmp_path), device, torch.float32)
    found = recipe.step(Moment(2, Length(100, 2, 100, 100), device, torch.float32))
    assert float(found["draft"]) == 0
    assert float(found["loss"]) == pytest.approx(float(found["painted"]), rel=1e-6)


def test_the_draft_is_compared_at_its_size(data: Path, tmp_path: Path) -> None:
    """Photos of one colour, each of which is a draft of itself: nothing is left to pay."""
    device = torch.device("cpu")
    recipe = Recipe(
        Options(widths="4,4,8,8", batch=2, side=64),
        style_pictures(data, tmp_path),
        device,
        torch.float32,
    )
    x = torch.tensor([0.3, 0.5, 0.7]).view(1, 3, 1, 1).expand(2, 3, 64, 64)
    with torch.no_grad():
        draft, painted = recipe.net.looks(x, recipe.net.style(x))
        again = recipe.net(x, recipe.net.style(x))
    assert draft.shape == (2, 3, 32, 32)
    assert painted.shape == x.shape
    assert torch.equal(painted, again)
    seen = recipe.judge.look(halved(x))
    assert float(recipe._loss(draft, seen, seen)[0]) < 0.01


def test_a_batch_is_paired_as_often_as_was_said(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(widths="4,4,8,8", batch=4, side=64, pairings=2, own=1.0)
    cpu, length = torch.device("cpu"), Length(100, 8, 100, 100)
    recipe = Recipe(options, style_pictures(data, tmp_path), cpu, torch.float32)
    pairs: list[tuple[Seen, Seen, Tensor]] = []

    def learn(
        at: Moment, photos: Seen, styles: Seen, own: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        pairs.append((photos, styles, own))
        found = torch.tensor([1.0, 2.0, 3.0, 6.0]) * len(pairs)
        return {"loss": torch.tensor(float(len(pairs)))}, {"content": found, "identity": found}

    monkeypatch.setattr(recipe, "_learn", learn)
    told = recipe.step(Moment(0, length, cpu, torch.float32))
    assert told == {"loss": 1.5, "content": 6.0, "identity": 3.0}  # own in the first pairing alone
    (photos, styles, own), (again, others, never) = pairs
    assert again is photos
    assert torch.equal(styles.pictures, photos.pictures)
    assert torch.equal(others.pictures, styles.pictures[[2, 3, 0, 1]])
    assert own.all()
    assert not never.any()
    for seen in (styles, others):
        for found, x in ((seen.whole, seen.pictures), (seen.half, halved(seen.pictures))):
            for name, features in recipe.judge.look(x).items():
                assert (found[name] - features).abs().max() < 1e-5

    with torch.no_grad():
        features = recipe.net.encoder.layers(others.pictures, MOMENTS)
        known = recipe.net.describe(others.pictures, features, small=others.half)
        code = recipe.net.describe(others.pictures, features)
    assert (known.deep - code.deep).abs().max() < 1e-5
    for name, aim in code.half.items():
        assert (known.half[name].covariance - aim.covariance).abs().max() < 1e-5


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [rate_at(done / 100, 1.0, 0.8) for done in range(101)]
    assert 0 < rates[0] < 0.1
    assert rates[1:81] == pytest.approx([1.0] * 80)
    assert rates[90] == pytest.approx(0.5)
    assert rates[-1] == 0
    assert rate_at(1.0, 1.0, 1.0) == 0


def test_linear_layers_learn_slowly_but_for_those_that_fit(data: Path, tmp_path: Path) -> None:
    options = Options(widths="4,4,8,8", batch=4, side=64)
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
    # of filters three such steps may undo one another; still they go further than any matrix
    assert min(steps[k] for k in filters) > max(steps[k] for k in matrices)
    fit = 3 * options.rate * options.fit
    assert 0.2 * 1.3 * most < steps["fit.2.weight"] < 0.2 * 1.3 * fit
    assert 0.2 * 1.3 * most < steps["sight.weight"] < 0.2 * 1.3 * fit
    beside = [k for k in steps if ".take_beside." in k]
    assert len(beside) == 2  # of the second look
    for name in beside:
        assert 0.2 * 1.3 * 3 * options.rate < steps[name] < 0.2 * 1.3 * fit
    gates = [k for k in steps if ".gates." in k and k.endswith("weight")]
    assert len(gates) == 16  # of two looks, four blocks and two convolutions
    opened = 3 * options.rate * options.gates
    for name in gates:
        assert 0.2 * 1.3 * 3 * options.rate < steps[name] < 0.2 * 1.3 * opened
    assert min(steps[f"decoders.{look}.narrow.weight"] for look in range(2)) > 0


def test_a_run_is_continued(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--data", str(data), "--cache", str(tmp_path / "cache"), *TOY, "--images", "32"]
    fast.main([*run, "--out", str(tmp_path / "whole")])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len([line for line in lines if "loss" in line]) == 8
    fast.main([*run, "--out", str(tmp_path / "parts"), "--time", "0"])
    fast.main([*run, "--out", str(tmp_path / "parts"), "--resume"])
    whole, parts = (tmp_path / name / "fast.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    assert sorted(path.name for path in (tmp_path / "whole").glob("sheet-*")) == [
        f"sheet-{seen:07d}.png" for seen in (8, 16, 24, 32)
    ]


def test_processes_draw_other_pictures_and_share_their_gradients(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = style_pictures(data, tmp_path / "cache")
    options = Options(widths="4,4,8,8", batch=4, side=64, momentum=0.9, half_life=7)
    recipe = Recipe(options, found, torch.device("cpu"), torch.float32)
    assert recipe.average.half_life == 7
    assert {group["momentum"] for group in recipe.muon.param_groups} == {0.9}
    taken: list[list[int]] = []
    shared: list[float] = []

    class Watched(World):
        def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
            gradients = [p.grad for p in parameters if p.grad is not None]
            shared.append(float(torch.stack([g.norm() for g in gradients]).norm()))

    def take(
        self: Pictures, indices: Tensor, device: torch.device, take: Any = Pictures.take
    ) -> tuple[Tensor, Tensor]:
        taken.append(indices.tolist())
        made: tuple[Tensor, Tensor] = take(self, indices, device)
        return made

    monkeypatch.setattr(Pictures, "take", take)
    for rank in (0, 1):
        torch.manual_seed(5)
        world = Watched(rank, 2)
        at = Moment(0, Length(8, 4, 4, 4), torch.device("cpu"), torch.float32, world)
        recipe.step(at)
    assert [len(indices) for indices in taken] == [2] * 4
    assert taken[:2] != taken[2:]
    assert len(shared) == 2
    assert max(shared) < 1.001  # each process's is cut to a norm of 1 before


def test_two_processes_make_one_network(data: Path, tmp_path: Path) -> None:
    out, logs = tmp_path / "run", tmp_path / "logs"
    options = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    options += ["--redirects", "3", "--log-dir", str(logs), "-m", "training.fast"]
    run = [*TOY, "--data", str(data), "--out", str(out), "--images", "8"]
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, *run],
        check=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    lines = (out / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["images"] for line in lines] == [4, 8]
    assert FastStyle.load(out / "fast.safetensors").style(Picture(pictures.painting()))
    assert sorted(path.name for path in out.glob("sheet-*")) == [
        f"sheet-{seen:07d}.png" for seen in (4, 8)
    ]
    (silent,) = logs.glob("*/attempt_0/1/stdout.log")
    assert not silent.read_text()


def test_a_run_learns_and_can_be_used(data: Path, tmp_path: Path) -> None:
    run = ["--data", str(data), "--cache", str(tmp_path / "cache"), *TOY, "--out", str(tmp_path)]
    fast.main([*run, "--images", "288", "--rate", "5e-4"])
    painter = FastStyle.load(tmp_path / "fast.safetensors")
    options, found = Options(widths="4,4,8,8"), style_pictures(data, tmp_path / "cache")
    recipe = Recipe(options, found, torch.device("cpu"), torch.float32)
    photos = torch.cat([Picture(pictures.photo(64, 64, i)).tensor() for i in (1, 3, 5)])
    styles = torch.cat([Picture(pictures.painting(64, 64, i)).tensor() for i in (0, 2, 4)])
    kept, aims = recipe.judge.look(photos), recipe.judge.look(styles)
    with torch.no_grad():
        first, last = (
            float(recipe._loss(net(photos, net.style(styles)), kept, aims)[0])
            for net in (recipe.net, painter.network)
        )
    assert last < first - 0.3
    made = painter.stylize(
        Picture(pictures.photo(40, 32)), painter.style(Picture(pictures.painting()))
    )
    assert made.size == (40, 32)


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


def test_two_runs_blend_into_one_network(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--data", str(data), "--cache", str(tmp_path / "cache"), *TOY, "--images", "2"]
    paths = []
    for seed in ("1", "2"):
        fast.main([*run, "--out", str(tmp_path / seed), "--seed", seed])
        paths.append(tmp_path / seed / "fast.safetensors")
    out = tmp_path / "both.safetensors"
    blend.main(["--out", str(out), *(f"{path}:0.5" for path in paths)])
    one, two, both = (read_weights(path) for path in (*paths, out))
    for name, tensor in both.tensors.items():
        mean = (one.tensors[name] + two.tensors[name]) / 2
        assert torch.allclose(tensor, mean, rtol=2e-3, atol=1e-4), name
    assert [recipe["seed"] for recipe in json.loads(both.metadata["recipe"])] == [1, 2]
    assert both.metadata["blend"] == "0.5 fast.safetensors, 0.5 fast.safetensors"
    x = Picture(pictures.photo(40, 32))
    fast_style = FastStyle.load(out)
    assert fast_style.stylize(x, fast_style.style(Picture(pictures.painting()))).size == (40, 32)
    with pytest.raises(SystemExit):
        blend.main(["--out", str(tmp_path / "odd.safetensors"), f"{out}:0.5", "slim-1:0.5"])
    assert "is not of one shape" in capsys.readouterr().err
    assert not (tmp_path / "odd.safetensors").exists()
