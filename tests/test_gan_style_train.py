"""Training the style-based networks: a step by hand, schedules, lazy penalties, runs that go on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import test_gan_train as gan
from impasto.checkpoints import checkpoints
from impasto.errors import RunError, SettingsError
from impasto.gan.augment import augment, draw
from impasto.gan.cache import prepare
from impasto.gan.generator import Generator, load_run
from impasto.gan.pictures import Pictures, Views
from impasto.gan.recipe import GanRecipe
from impasto.gan.run import GanProgress, train_gan
from impasto.gan.settings import GanSettings, make_gan_settings
from impasto.gan.style import StyleGenerator
from impasto.gan.style_recipe import AugmentShare, StyleRecipe, cosine, make_recipe
from impasto.parallel import World
from impasto.seeds import derive_seed
from impasto.trainer import Length, Moment

TINY: dict[str, Any] = {
    "size": 32, "batch": 8, "channels": (8, 6, 4, 4), "latent": 8, "mapping": 2, "images": 320,
    "snapshot_every": 160, "ema": 100, "device": "cpu", "precision": "float32", "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    folder = tmp_path_factory.mktemp("style")
    return gan.prepared(gan.draw_paintings(folder / "paintings", 40), folder / "cache")


def run(pictures: Pictures, folder: Path, count: int = 999, **options: Any) -> list[GanProgress]:
    """Trains until the end, or until as many reports as `count` have come after the first."""
    loop = {name: options.pop(name) for name in ("resume", "warm_start") if name in options}
    reports: list[GanProgress] = []
    for report in train_gan(
        pictures, make_gan_settings({**TINY, **options}), folder, scoring=None,
        stop=lambda: len(reports) > count, **loop,
    ):  # fmt: skip
        reports.append(report)
    return reports


def moment(settings: GanSettings, step: int, dtype: torch.dtype = torch.float64) -> Moment:
    length = Length(settings.images, settings.batch, 8, 8)
    return Moment(step * settings.batch, length, torch.device("cpu"), dtype)


# --- Settings -------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_machine() -> None:
    cpu, gpu = make_gan_settings({}), make_gan_settings({}, gpu=True)
    assert (cpu.arch, cpu.loss, cpu.size) == ("style", "relativistic", 64)
    assert cpu.channels == (192, 192, 128, 64, 32)
    assert gpu.channels == (384, 384, 256, 128, 64)
    assert (cpu.batch, gpu.batch, cpu.latent, gpu.latent) == (16, 64, 128, 256)
    assert (cpu.penalty_every, gpu.penalty_every) == (4, 1)
    assert cpu.gamma == (0.3, 0.03)
    larger = make_gan_settings({"size": 128})
    assert larger.gamma == (0.6, 0.06)
    assert larger.channels[:5] == cpu.channels  # so that it can begin with the smaller one
    assert cpu.schedule == cpu.images
    recipe = cpu.recipe
    assert (recipe.lr, recipe.beta1, recipe.beta2) == (2.5e-3, 0.0, 0.9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "bce"}, "for bce add --arch dcgan"),
        ({"width": 64}, "--width is of --arch dcgan"),
        ({"arch": "dcgan", "channels": (1,)}, "--channels is of --arch style"),
        ({"channels": (8, 8)}, "each for 4, 8, 16, 32, 64 px"),
        ({"gamma": (1.0, -1.0)}, "as 1,0.1"),
        ({"mixing": 1.5}, "mixing is 1.5"),
        ({"penalty_every": 0}, "penalty_every is 0"),
        ({"augment_by": "never"}, "it can be always, schedule, gap"),
        ({"size": 48}, "it can be 32, 64, 128 or 256 px"),
    ],
)
def test_what_is_wrong_with_settings_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_gan_settings(options)


def test_settings_come_back_from_their_record_and_options() -> None:
    for options in (TINY, {"arch": "dcgan"}):
        settings = make_gan_settings(options)
        assert make_gan_settings(settings.options()) == settings
        told = {k: v for k, v in settings.record().items() if k != "recipe"}
        assert make_gan_settings({**told, **settings.changeable()}) == settings
    assert "channels" not in make_gan_settings({"arch": "dcgan"}).record()
    assert "width" not in make_gan_settings({}).record()


# --- One step -------------------------------------------------------------------------------------


def by_hand(recipe: StyleRecipe, at: Moment, share: float) -> tuple[list[float], list[Tensor]]:
    """The losses of a step, and the discriminator's gradients, written out plainly."""
    settings, net, judge = recipe.settings, recipe.net, recipe.discriminator
    batch, n = settings.batch, settings.batch // 2
    torch.manual_seed(derive_seed(settings.seed, "step", at.seen))
    real = recipe._real(at)
    z, other = torch.randn(batch, 8), torch.randn(batch, 8)
    cross = torch.randint(1, net.styles, (batch,))
    single = torch.rand(batch) >= settings.mixing
    noises = [torch.randn(batch, 1, s, s).double() for s in net.noise_sides]
    w, more = net.mapping(z.double()), net.mapping(other.double())
    mixed = net.broadcast(w).clone()
    for i in range(batch):
        if not single[i]:
            mixed[i, cross[i] :] = more[i]
    fake = net.synthesis(mixed, noises)

    def shown(x: Tensor, purpose: str) -> Tensor:
        source = torch.Generator().manual_seed(derive_seed(0, "augment", purpose, at.seen))
        draws = draw(batch, 32, settings.augment, source)
        chosen = torch.rand(batch, generator=source) < share
        return torch.where(chosen.view(-1, 1, 1, 1), augment(x, draws), x) if share else x

    x, y = shown(real, "real"), shown(fake.detach(), "fake")
    loss = F.softplus(judge(y) - judge(x)).mean()
    told = loss.item()
    if (at.seen // batch + 1) % settings.penalty_every == 0:
        done = at.seen / settings.schedule
        gamma = 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2
        penalty = torch.zeros((), dtype=torch.float64)
        for pictures in (x, y):  # R1 and R2, of Mescheder et al. 2018: γ/2 E‖∇D‖²
            half = pictures[:n].detach().requires_grad_()  # the first of two groups of four
            (slope,) = torch.autograd.grad(judge(half).sum(), half, create_graph=True)
            penalty = penalty + slope.square().sum((1, 2, 3)).mean() / 2
        loss = loss + gamma * settings.penalty_every * penalty
    gradients = torch.autograd.grad(loss, list(judge.parameters()))
    return [told], list(gradients)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_discriminators_steps_are_those_of_the_paper(paintings: Pictures, share: float) -> None:
    settings = make_gan_settings({**TINY, "gamma": (1.0, 0.1)})
    recipe = StyleRecipe(settings, paintings, dtype=torch.float64)
    recipe.share.value = share
    for step in range(5):
        at = moment(settings, step)
        (told,), gradients = by_hand(recipe, at, share)
        torch.manual_seed(derive_seed(settings.seed, "step", at.seen))
        metrics = recipe.step(at)
        assert torch.as_tensor(metrics["discriminator"]).item() == pytest.approx(told)
        assert ("penalty" in metrics) == (step == 3)
        for parameter, expected in zip(recipe.discriminator.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, expected)


def test_rates_and_weights_follow_a_cosine(paintings: Pictures) -> None:
    assert [cosine(2.0, 1.0, share) for share in (0, 0.5, 1, 3)] == [2, 1.5, 1, 1]
    settings = make_gan_settings({**TINY, "gamma": (1.0, 0.1), "schedule": 800})
    recipe = StyleRecipe(settings, paintings)
    first, last = moment(settings, 0), moment(settings, 500)
    assert recipe._rates(first) == (2.5e-3, (0.0, 0.9))
    rate, betas = recipe._rates(last)
    assert rate == pytest.approx(2.5e-3 / 4)
    assert betas == pytest.approx((0.0, 0.99))
    assert (recipe._gamma(first), recipe._gamma(last)) == pytest.approx((1.0, 0.1))
    assert recipe._gamma(moment(settings, 50)) == pytest.approx(0.55)
    recipe.step(last)
    groups = recipe._optimizers["generator"].param_groups
    assert groups[0]["lr"] == pytest.approx(2.5e-3 / 4)
    assert groups[0]["betas"] == pytest.approx((0.0, 0.99))


def test_the_mean_of_w_is_followed(paintings: Pictures) -> None:
    settings = make_gan_settings(TINY)
    recipe = StyleRecipe(settings, paintings)
    torch.manual_seed(5)
    recipe.step(moment(settings, 0, torch.float32))
    torch.manual_seed(5)
    fresh = StyleRecipe(settings, paintings).net
    assert isinstance(fresh, StyleGenerator)
    w = fresh.mapping(torch.randn(8, 8))
    torch.testing.assert_close(recipe.net.mapping.mean, 0.005 * w.mean(0))


def test_the_penalty_is_computed_in_float32(paintings: Pictures) -> None:
    settings = make_gan_settings({**TINY, "penalty_every": 1})
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        recipe = StyleRecipe(settings, paintings)
        torch.manual_seed(0)
        metrics = recipe.step(moment(settings, 0, dtype))
        found[dtype] = torch.as_tensor(metrics["penalty"]).item()
    # Fresh networks: only the generated pictures were rounded on their way.
    assert found[torch.bfloat16] == pytest.approx(found[torch.float32], rel=0.01)


# --- The share of augmented pictures --------------------------------------------------------------


def test_more_is_augmented_once_training_pictures_are_known() -> None:
    share = AugmentShare()
    for _ in range(16):
        share.look(train=1.0, held=0.2, generated=-1.0, pictures=128)  # a gap of 0.4
    assert share.value == pytest.approx(2 * 8 * 128 / 100_000)
    state = share.state_dict()
    for _ in range(8):
        share.look(train=1.0, held=0.9, generated=-1.0, pictures=128)
    assert share.value == pytest.approx(8 * 128 / 100_000)
    for _ in range(800):
        share.look(train=1.0, held=1.0, generated=-1.0, pictures=128)
    assert share.value == 0
    share.load_state_dict(state)
    assert share.value == pytest.approx(2 * 8 * 128 / 100_000)


@pytest.mark.parametrize(
    ("rule", "seen", "expected"),
    [("always", 0, 1.0), ("schedule", 0, 0.0), ("schedule", 320, 0.5), ("gap", 320, 0.0)],
)
def test_what_share_is_augmented(
    paintings: Pictures, rule: str, seen: int, expected: float
) -> None:
    settings = make_gan_settings({**TINY, "augment_by": rule})
    recipe = StyleRecipe(settings, paintings)
    assert recipe._share(moment(settings, seen // 8)) == pytest.approx(expected)


def test_pictures_that_are_not_chosen_stay(paintings: Pictures) -> None:
    x = paintings.batch(torch.arange(6))
    draws = draw(6, 32, ("color", "translation", "cutout"), torch.Generator().manual_seed(0))
    chosen = torch.tensor([True, False, False, True, True, False])
    found = augment(x, draws.only(chosen, 32))
    torch.testing.assert_close(found[~chosen], x[~chosen])
    assert torch.equal(found[chosen], augment(x, draws)[chosen])


# --- Runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["gap", "schedule"])
def test_a_run_that_stops_goes_on_as_if_it_had_not(
    paintings: Pictures, tmp_path: Path, rule: str
) -> None:
    whole = run(paintings, tmp_path / "whole", augment_by=rule, images=960)
    assert [report.seen for report in whole] == [0, 320, 640, 960]
    assert {"penalty", "augmented", "spread"} <= whole[1].metrics.keys()
    stopped = run(paintings, tmp_path / "parts", count=1, augment_by=rule, images=960)
    assert stopped[-1].seen < 960
    run(paintings, tmp_path / "parts", augment_by=rule, images=960, resume=True)
    gan.assert_same(tmp_path / "whole", tmp_path / "parts")


def test_a_longer_run_keeps_its_schedule(paintings: Pictures, tmp_path: Path) -> None:
    run(paintings, tmp_path)
    kept = load_run(tmp_path, best=False).settings
    assert kept.schedule == 320
    run(paintings, tmp_path, images=640, schedule=kept.schedule, resume=True)
    assert load_run(tmp_path, best=False).seen == 640


def test_bfloat16_trains_and_a_generator_is_left(paintings: Pictures, tmp_path: Path) -> None:
    run(paintings, tmp_path / "run", precision="bfloat16")
    painter = Generator.load(tmp_path / "run")
    x = painter.sample(3, seed=5)
    assert x.shape == (3, 3, 32, 32)
    assert torch.allclose(painter.sample(9, seed=5)[:3], x, atol=1e-5)
    painter.export(tmp_path / "g.safetensors")
    painter.export(tmp_path / "half.safetensors", half=True)
    again, half = (Generator.load(tmp_path / f"{name}.safetensors") for name in ("g", "half"))
    assert torch.equal(again.sample(3, seed=5), x)
    assert (half.sample(3, seed=5) - x).abs().max() < 0.02
    assert again.card["channels"] == [8, 6, 4, 4]
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "g")]
    assert sizes[0] < 0.7 * sizes[1]
    frames = torch.cat(list(painter.walk(60, stops=3, truncation=0.8)))
    steps = (frames - frames.roll(1, 0)).abs().mean((1, 2, 3))
    assert steps.max() < (frames[0] - frames[20]).abs().mean() / 4


def test_a_larger_run_begins_with_a_smaller_one(paintings: Pictures, tmp_path: Path) -> None:
    run(paintings, tmp_path / "small")
    folder = gan.draw_paintings(tmp_path / "paintings", 10)
    work = prepare(sorted(folder.iterdir()), Views(64), cache=tmp_path / "cache")
    larger = _returned(work)
    options: dict[str, Any] = {
        "size": 64,
        "channels": (8, 6, 4, 4, 4),
        "images": 8,
        "snapshot_every": 8,
    }
    run(larger, tmp_path / "large", warm_start=tmp_path / "small", **options)
    first = tmp_path / "large" / "checkpoint-000000000000.safetensors"
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / first.name).write_bytes(first.read_bytes())
    small, large = (Generator.load(tmp_path / name) for name in ("small", "first"))
    z = torch.randn(2, 8)
    doubled = F.interpolate(small.net(z), scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(large.net(z), doubled, atol=1e-5, rtol=1e-4)
    gan.run(paintings, tmp_path / "classic", images=16)
    with pytest.raises(RunError, match="only a run of --arch style"):
        run(larger, tmp_path / "other", warm_start=tmp_path / "classic", **options)
    assert not checkpoints(tmp_path / "other")


def _returned(work: Any) -> Pictures:
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: Pictures = end.value
            return found


def test_recipes_by_name(paintings: Pictures) -> None:
    assert type(make_recipe(make_gan_settings(gan.TINY), paintings)) is GanRecipe
    assert type(make_recipe(make_gan_settings(TINY), paintings)) is StyleRecipe
    with pytest.raises(RunError, match="cannot be shared"):
        make_recipe(make_gan_settings({**TINY, "batch": 9}), paintings, world=World(0, 2))
