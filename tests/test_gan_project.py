"""Finding a picture's styles, and trying weights of R1 and R2."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import test_gan_style as nets
import test_gan_style_train as style
import test_gan_train as gan
from impasto.errors import SettingsError
from impasto.gan.generator import Generator
from impasto.gan.networks import GeneratorNet
from impasto.gan.pictures import Pictures
from impasto.gan.project import Found, ProjectSettings, pack_styles, project, unpack_styles
from impasto.gan.recipe import latents
from impasto.gan.settings import GanSettings, ScoreSettings, make_gan_settings
from impasto.gan.tune import Tried, tune_gamma


@pytest.fixture(scope="module")
def painter() -> Generator:
    return Generator(nets.stirred(nets.generator().float()), {})


def found(painter: Generator, picture: Tensor, settings: ProjectSettings) -> list[Found]:
    work, steps = project(painter, picture, settings), []
    while True:
        try:
            steps.append(next(work))
        except StopIteration as end:
            last: Found = end.value
            break
    assert last is steps[-1]
    return steps


def test_what_the_generator_has_painted_is_found(painter: Generator) -> None:
    picture = painter.sample(1, seed=77)
    steps = found(painter, picture, ProjectSettings(steps=60, draws=16, near=0.0))
    assert [step.step for step in steps] == list(range(1, 61))
    losses = [step.loss for step in steps]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.2 * losses[0]
    again = painter.paint_styles(steps[-1].styles)
    apart = (again - picture).square().mean()
    assert apart < 0.1 * (painter.sample(1, seed=0) - picture).square().mean()
    repeated = found(painter, picture, ProjectSettings(steps=3, draws=16, near=0.0))
    assert [step.loss for step in repeated] != losses[:3]  # another length has other rates
    same = found(painter, picture, ProjectSettings(steps=60, draws=16, near=0.0))
    assert torch.equal(same[-1].styles, steps[-1].styles)


def test_the_start_is_the_best_of_those_drawn(painter: Generator) -> None:
    picture = painter.paint(latents(5, 8, 0)[4:])
    (step,) = found(painter, picture, ProjectSettings(steps=1, draws=5))
    assert step.loss == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(step.styles, painter.styles(latents(5, 8, 0)[4:]))


def test_what_cannot_be_looked_for_is_told(painter: Generator) -> None:
    with pytest.raises(SettingsError, match=r"\(1, 3, 32, 32\)"):
        next(project(painter, torch.zeros(1, 3, 16, 16)))
    with pytest.raises(SettingsError, match="only one of --arch style"):
        next(project(Generator(GeneratorNet(32, 8, 4), {}), torch.zeros(1, 3, 32, 32)))
    with pytest.raises(SettingsError, match="steps is 0"):
        ProjectSettings(steps=0)


def test_styles_travel_in_a_record() -> None:
    styles = torch.randn(1, 7, 8)
    packed = pack_styles(styles)
    assert torch.equal(unpack_styles(packed), styles)
    damaged: list[Any] = [None, 3, [], {}, {"shape": [7, 8], "float32": "AAAA"}]
    shapes = (1, [56], [-1, 8], [7, -8], [-7, -8], [8, 8], [7.0, 8], [0, 0], "78", [True, 56])
    damaged += [{**packed, "shape": shape} for shape in shapes]
    damaged += [{**packed, "float32": data} for data in (None, "", "é", "AAA", [1.0])]
    damaged += [{"shape": [0, 8], "float32": ""}]
    for value in (math.nan, math.inf):
        styles[0, 3, 4] = value
        damaged.append(pack_styles(styles))
    for wrong in damaged:
        with pytest.raises(SettingsError) as told:
            unpack_styles(wrong)
        assert str(told.value) == "the styles in the record cannot be read"


# --- Tuning ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    folder = tmp_path_factory.mktemp("tune")
    return gan.prepared(gan.draw_paintings(folder / "paintings", 40), folder / "cache")


def test_the_weight_with_the_best_kid_is_kept(paintings: Pictures) -> None:
    settings = make_gan_settings({**style.TINY, "gamma": (1.0, 0.1)})
    scoring = ScoreSettings(real=40, generated=20)
    work = tune_gamma(paintings, settings, images=32, scoring=scoring)
    tried: list[Tried] = []
    while True:
        try:
            tried.append(next(work))
        except StopIteration as end:
            tuned: GanSettings = end.value
            break
    scores = {step.gamma: step.kid for step in tried if step.kid is not None}
    assert list(scores) == [(0.25, 0.025), (1.0, 0.1), (4.0, 0.4)]
    assert len(set(scores.values())) == 3
    assert scores[tuned.gamma] == min(scores.values())
    assert {step.seen for step in tried if step.kid is not None} == {32}
    assert [step.done for step in tried] == sorted(step.done for step in tried)
    assert tried[-1].done == 1
    assert make_gan_settings({**tuned.options(), "gamma": settings.gamma}) == settings


def test_the_clock_only_counts_the_first_trial(
    paintings: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(1000))
    monkeypatch.setattr("impasto.gan.tune.time.monotonic", lambda: next(now))
    settings = make_gan_settings(style.TINY)
    scoring = ScoreSettings(real=40, generated=20)
    work = tune_gamma(paintings, settings, seconds=3, scoring=scoring)
    assert [step.seen for step in work if step.kid is not None] == [24, 24, 24]


def test_only_style_is_tuned(paintings: Pictures, tmp_path: Path) -> None:
    del tmp_path
    with pytest.raises(SettingsError, match="for --arch style"):
        next(tune_gamma(paintings, make_gan_settings(gan.TINY)))
