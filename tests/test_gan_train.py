"""Training a GAN: the classic's sizes and first steps, runs that stop and go on, what is left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pictures as drawn
from impasto.checkpoints import checkpoints, newest, unpack
from impasto.errors import ImageError, RunError, SettingsError, WeightsError
from impasto.gan.cache import prepare
from impasto.gan.generator import BEST, Generator, load_run
from impasto.gan.networks import Discriminator, GeneratorNet, count_parameters
from impasto.gan.pictures import Pictures, Views
from impasto.gan.recipe import GanRecipe, latents
from impasto.gan.run import GanProgress, train_gan
from impasto.gan.settings import GanSettings, ScoreSettings, make_gan_settings
from impasto.images import Picture, open_image
from impasto.inputs import as_picture
from impasto.seeds import derive_seed
from impasto.sources import parse_style, resolve
from impasto.trainer import Length, Moment

TINY: dict[str, Any] = {
    "arch": "dcgan", "size": 32, "batch": 8, "width": 4, "latent": 8, "images": 160,
    "snapshot_every": 80, "device": "cpu", "precision": "float32", "threads": 1,
}  # fmt: skip
QUICK = ScoreSettings(real=40, generated=20)


def draw_paintings(folder: Path, count: int = 60) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        drawn.save(folder / f"{number}.png", drawn.painting(48, 40, seed=number))
    return folder


def prepared(folder: Path, cache: Path, **views: Any) -> Pictures:
    work = prepare(sorted(folder.iterdir()), Views(32, **views), cache=cache)
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: Pictures = end.value
            return found


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    folder = tmp_path_factory.mktemp("gan")
    return prepared(draw_paintings(folder / "paintings"), folder / "cache")


def run(pictures: Pictures, folder: Path, count: int = 999, **options: Any) -> list[GanProgress]:
    """Trains until the end, or until as many reports as `count` have come after the first."""
    loop_options = {name: options.pop(name) for name in ("resume", "scoring") if name in options}
    settings = make_gan_settings({**TINY, **options})
    reports: list[GanProgress] = []
    loop_options.setdefault("scoring", None)
    loop = train_gan(pictures, settings, folder, stop=lambda: len(reports) > count, **loop_options)
    reports.extend(loop) if count == 999 else [reports.append(r) for r in loop]  # type: ignore[func-returns-value]
    return reports


def state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = unpack(newest(folder)[0])
    return found


def flat(tree: Any, name: str = "") -> dict[str, Tensor]:
    """The tensors of a state by path."""
    if isinstance(tree, Tensor):
        return {name: tree}
    if isinstance(tree, dict):
        return {k: v for key, part in tree.items() for k, v in flat(part, f"{name}/{key}").items()}
    if isinstance(tree, list | tuple):
        return {k: v for i, part in enumerate(tree) for k, v in flat(part, f"{name}/{i}").items()}
    return {}


def assert_same(one: Path, other: Path) -> None:
    a, b = flat(state(one)["parts"]), flat(state(other)["parts"])
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


# --- Networks -------------------------------------------------------------------------------------


def test_the_classic_has_the_tutorials_sizes() -> None:
    generator, discriminator = GeneratorNet(64), Discriminator(64)
    assert count_parameters(generator) == 3_576_704
    assert count_parameters(discriminator) == 2_765_568
    z = torch.randn(2, 100)
    x = generator(z)
    assert x.shape == (2, 3, 64, 64)
    assert x.abs().max() <= 1
    assert discriminator(x).shape == (2,)
    weights = [m.weight for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    deviation = torch.cat([weight.flatten() for weight in weights]).std().item()
    assert deviation == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize("side", [32, 128, 256])
@pytest.mark.parametrize("norm", ["batch", "layer", "spectral", "none"])
def test_other_sides_and_norms(side: int, norm: Any) -> None:
    x = GeneratorNet(side, 4, 2)(torch.randn(2, 4))
    assert x.shape == (2, 3, side, side)
    assert Discriminator(side, 2, norm)(x).shape == (2,)


def test_a_side_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(SettingsError, match="can have 32, 64, 128, 256"):
        GeneratorNet(96)


# --- Steps ----------------------------------------------------------------------------------------


def tutorial_losses(pictures: Pictures, settings: GanSettings, steps: int) -> list[list[float]]:
    """The classic written out plainly, in float64, from the same weights, pictures and latents."""
    recipe = GanRecipe(settings, pictures, dtype=torch.float64)
    generator, discriminator = recipe.generator, recipe.discriminator
    adam = [
        torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (generator, discriminator)
    ]
    losses = []
    order = recipe._order
    for step in range(steps):
        seen = step * settings.batch
        torch.manual_seed(derive_seed(settings.seed, "step", seen))
        source = torch.Generator().manual_seed(derive_seed(settings.seed, "views", seen))
        flips, offsets = pictures.draw(settings.batch, source)
        real = pictures.batch(order.indices(seen, settings.batch), flips=flips, offsets=offsets)
        real = real.double()
        ones, zeros = torch.ones(settings.batch).double(), torch.zeros(settings.batch).double()

        discriminator.zero_grad()
        on_real = F.binary_cross_entropy(torch.sigmoid(discriminator(real)), ones)
        on_real.backward()  # type: ignore[no-untyped-call]
        fake = generator(torch.randn(settings.batch, settings.latent).double())
        on_fake = F.binary_cross_entropy(torch.sigmoid(discriminator(fake.detach())), zeros)
        on_fake.backward()  # type: ignore[no-untyped-call]
        adam[1].step()

        generator.zero_grad()
        deceived = F.binary_cross_entropy(torch.sigmoid(discriminator(fake)), ones)
        deceived.backward()  # type: ignore[no-untyped-call]
        adam[0].step()
        losses.append([on_real.item() + on_fake.item(), deceived.item()])
    return losses


def test_the_first_steps_are_those_of_the_tutorial(paintings: Pictures) -> None:
    settings = make_gan_settings(TINY)
    expected = tutorial_losses(paintings, settings, 8)
    recipe = GanRecipe(settings, paintings, dtype=torch.float64)
    length = Length(settings.images, settings.batch, 8, 8)
    for step, wanted in enumerate(expected):
        seen = step * settings.batch
        torch.manual_seed(derive_seed(settings.seed, "step", seen))
        at = Moment(seen, length, torch.device("cpu"), torch.float64)
        found = recipe.step(at)
        losses = [torch.as_tensor(found[name]).item() for name in ("discriminator", "generator")]
        assert losses == pytest.approx(wanted, abs=1e-8)


@pytest.mark.parametrize("loss", ["bce", "wgan-gp", "hinge", "relativistic"])
@pytest.mark.parametrize("augment", [(), ("color", "translation", "cutout")])
def test_every_loss_trains_and_repeats_itself(
    paintings: Pictures, tmp_path: Path, loss: str, augment: tuple[str, ...]
) -> None:
    options: dict[str, Any] = {"loss": loss, "augment": augment, "ema": 40, "images": 88}
    run(paintings, tmp_path / "a", **options)
    run(paintings, tmp_path / "b", **options)
    assert_same(tmp_path / "a", tmp_path / "b")
    before = GanRecipe(make_gan_settings({**TINY, **options}), paintings).generator.state_dict()
    after = state(tmp_path / "a")["parts"]["generator"]
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_bfloat16_trains(paintings: Pictures, tmp_path: Path) -> None:
    reports = run(paintings, tmp_path, precision="bfloat16")
    assert reports[-1].seen == 160
    weights = state(tmp_path)["parts"]["generator"]
    assert all(t.dtype == torch.float32 for t in weights.values() if t.is_floating_point())


# --- Runs -----------------------------------------------------------------------------------------


def test_a_run_leaves_pictures_scores_and_the_best(paintings: Pictures, tmp_path: Path) -> None:
    reports = run(paintings, tmp_path, scoring=QUICK)
    assert [report.seen for report in reports] == [0, 80, 160]
    names = {path.name for path in (tmp_path / "snapshots").iterdir()}
    for seen in (0, 80, 160):
        assert f"{seen:012}-grid.png" in names
        assert f"{seen:012}-beside.png" in names
    lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [80, 160]
    best = min(lines, key=lambda line: line["kid"])
    assert unpack((tmp_path / BEST).read_bytes())["seen"] == best["images"]
    assert open_image(tmp_path / "film.webp").size[0] > 100
    assert open_image(tmp_path / "neighbours.png").size[0] > 100
    assert len(checkpoints(tmp_path)) == 2


def test_a_run_that_stops_goes_on_as_if_it_had_not(paintings: Pictures, tmp_path: Path) -> None:
    run(paintings, tmp_path / "whole", scoring=QUICK)
    stopped = run(paintings, tmp_path / "parts", count=0, scoring=QUICK)
    assert stopped[-1].seen < 160
    run(paintings, tmp_path / "parts", resume=True, scoring=QUICK)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    for name in ("scores.jsonl", "snapshots/000000000160-grid.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_what_a_killed_run_has_not_drawn_is_drawn(paintings: Pictures, tmp_path: Path) -> None:
    run(paintings, tmp_path, scoring=QUICK)
    grid = tmp_path / "snapshots" / "000000000160-grid.png"
    before = grid.read_bytes()
    grid.unlink()
    (tmp_path / "scores.jsonl").unlink()
    run(paintings, tmp_path, resume=True, scoring=QUICK)
    assert grid.read_bytes() == before
    assert '"images": 160' in (tmp_path / "scores.jsonl").read_text()


def test_a_longer_run_goes_on_from_a_shorter_one(paintings: Pictures, tmp_path: Path) -> None:
    run(paintings, tmp_path / "whole", images=240)
    run(paintings, tmp_path / "parts", images=80)
    run(paintings, tmp_path / "parts", images=240, resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_another_rate_is_another_run(paintings: Pictures, tmp_path: Path) -> None:
    run(paintings, tmp_path, images=80)
    with pytest.raises(RunError, match=r"has lr 0\.0 and not 0\.001"):
        run(paintings, tmp_path, lr=0.001, resume=True)


def test_collapse_is_told(paintings: Pictures, tmp_path: Path) -> None:
    # With hardly a rate, what fresh weights paint stays the same grey whatever the latent.
    reports = run(paintings, tmp_path / "grey", images=1600, lr=1e-9)
    alike = [note for report in reports for note in report.notes if "alike" in note]
    assert len(alike) == 1
    assert "after 640 pictures all that it paints looks alike" in alike[0]
    healthy = run(paintings, tmp_path / "run", images=400)
    assert not [note for report in healthy for note in report.notes]


# --- Generators -----------------------------------------------------------------------------------


def test_samples_are_pictures_and_repeat(paintings: Pictures, tmp_path: Path) -> None:
    run(paintings, tmp_path / "run")
    generator = Generator.load(tmp_path / "run")
    x = generator.sample(3, seed=5)
    assert x.shape == (3, 3, 32, 32)
    assert x.dtype == torch.float32
    assert 0 <= x.min() <= x.max() <= 1
    assert torch.equal(generator.sample(70, seed=5)[:3], x) or torch.allclose(
        generator.sample(70, seed=5)[:3], x, atol=1e-5
    )
    assert not torch.equal(generator.sample(3, seed=6), x)
    generator.export(tmp_path / "g.safetensors")
    again = Generator.load(tmp_path / "g.safetensors")
    assert torch.equal(again.sample(3, seed=5), x)
    assert again.card["images"] == 160
    with pytest.raises(SettingsError, match="at least 1"):
        generator.sample(0)


def test_latents_begin_alike_whatever_their_number() -> None:
    assert torch.equal(latents(3, 8, 1), latents(9, 8, 1)[:3])
    assert abs(float(latents(500, 100, 0).std()) - 1) < 0.02


def test_a_walk_is_smooth_and_closed(paintings: Pictures, tmp_path: Path) -> None:
    run(paintings, tmp_path)
    frames = torch.cat(list(Generator.load(tmp_path).walk(120, stops=3)))
    steps = (frames - frames.roll(1, 0)).abs().mean((1, 2, 3))
    apart = (frames[0] - frames[40]).abs().mean()
    assert steps.max() < apart / 5


@pytest.mark.parametrize("content", [b"", b"nothing", None])
def test_what_is_no_generator_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "g.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"g\.safetensors"):
        Generator.load(path)
    with pytest.raises(RunError, match="no checkpoint"):
        load_run(tmp_path)


def test_a_generated_painting_is_a_source(paintings: Pictures, tmp_path: Path) -> None:
    run(paintings, tmp_path / "run")
    style = parse_style(f"gan:{tmp_path}/run?seed=7:0.5")
    assert (style.weight, style.source.seed) == (0.5, 7)
    found = style.source.open()
    expected = Generator.load(tmp_path / "run").sample(1, seed=7)
    assert np.array_equal(found.pixels, Picture.from_tensor(expected).pixels)
    assert np.array_equal(as_picture(f"gan:{tmp_path}/run?seed=7").pixels, found.pixels)
    assert resolve(f"gan:{tmp_path}/run").seed == 0
    with pytest.raises(SettingsError, match=r"gan:RUN\?seed=7"):
        resolve(f"gan:{tmp_path}/run?sed=7")
    with pytest.raises(ImageError, match="no such file"):
        parse_style("gan:nowhere?seed=7")


# --- Kills ----------------------------------------------------------------------------------------

KILLABLE = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[3]]
import torch
torch.set_num_threads(1)
import test_gan_train as t
pictures = t.prepared(Path(sys.argv[1]), Path(sys.argv[1]).parent / "cache")
print("ready", flush=True)
t.run(pictures, Path(sys.argv[2]), resume=True, images=480, scoring=t.QUICK)
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX only")
def test_random_kills_change_nothing(tmp_path: Path) -> None:
    source = draw_paintings(tmp_path / "paintings")
    pictures = prepared(source, tmp_path / "cache")
    run(pictures, tmp_path / "whole", images=480, scoring=QUICK)
    code = [sys.executable, "-c", KILLABLE, str(source), str(tmp_path / "killed")]
    code.append(str(Path(__file__).parent))
    rng, kills = random.Random(0), 0
    for _ in range(30):
        process = subprocess.Popen(code, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if kills < 3:
            time.sleep(rng.uniform(0.05, 0.8))
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
    assert kills == 3
    assert_same(tmp_path / "whole", tmp_path / "killed")
    for name in ("scores.jsonl", "snapshots/000000000480-grid.png", BEST):
        whole, killed = ((tmp_path / run / name).read_bytes() for run in ("whole", "killed"))
        if name != BEST:  # which also holds how long it took
            assert whole == killed, name
    sheets = [(tmp_path / name / "neighbours.png").read_bytes() for name in ("killed", "whole")]
    assert sheets[0] == sheets[1]
