"""The painter in the package, as it is shipped: it paints, walks, mixes and finds, offline."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.files import sha256_file
from impasto.gan.builtin import painter_path, painters
from impasto.gan.generator import Generator
from impasto.images import read_record
from impasto.weights import MODELS
from pictures import SMALL, Program, load

NAME = "builtin:landscapes"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.fixture(scope="module")
def painter() -> Generator:
    return Generator.load(NAME)


def apart(one: Any, other: Any) -> float:
    """The mean absolute difference, of 255."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


# --- The file -------------------------------------------------------------------------------------


def test_its_card_names_its_bytes_and_all_are_small() -> None:
    path = painter_path(NAME)
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert sha256_file(path) in card
    assert sum(file.stat().st_size for file in painters().values()) < 16e6
    assert path.parent == MODELS


def test_every_number_in_it_is_fp16_and_finite() -> None:
    from safetensors.torch import load_file

    tensors = load_file(painter_path(NAME))
    assert all(bool(each.isfinite().all()) for each in tensors.values())
    assert {each.dtype for each in tensors.values()} == {torch.float16}


# --- What it paints -------------------------------------------------------------------------------


def test_seeds_are_pictures_of_their_own(painter: Generator) -> None:
    made = painter.sample(64, seed=0)
    assert made.dtype == torch.float32
    assert made.shape[:2] == (64, 3)
    assert made.min() >= 0
    assert made.max() <= 1
    small = torch.nn.functional.avg_pool2d(made, made.shape[-1] // 16).flatten(1)
    distances = torch.pdist(small) / small.shape[1] ** 0.5
    assert distances.min() > 0.02  # no two alike: not collapsed
    assert distances.mean() > 0.1
    again = painter.sample(64, seed=0)
    assert torch.equal(made, again)


def test_its_tints_are_those_of_ink_on_silk(painter: Generator) -> None:
    made = painter.sample(128, seed=1)
    red, green, blue = made.mean((0, 2, 3)).tolist()
    assert 0.25 < blue < green < red < 0.75  # old silk and paper are warm and neither dark nor pale
    saturation = made.amax(1) - made.amin(1)
    assert saturation.mean() < 0.35
    assert made.mean((1, 2, 3)).std() > 0.1  # some on dark silk, some on light paper


def test_it_paints_what_it_painted_when_it_was_shipped(painter: Generator) -> None:
    golden = load(Path(__file__).parent / "golden" / "landscapes-1-7.png")
    made = Generator.load("builtin:landscapes-1").sample(1, seed=7)[0].permute(1, 2, 0) * 255
    assert apart(made.round(), golden) < 0.1  # rounding depends on the machine
    assert np.abs(made.round().numpy() - golden).max() <= 2


def test_its_pictures_have_fine_detail(painter: Generator) -> None:
    made = painter.sample(64, seed=3)
    detail = made - torch.nn.functional.interpolate(
        torch.nn.functional.avg_pool2d(made, 4), scale_factor=4
    )
    lively = detail.square().mean((1, 2, 3)).sqrt()
    assert 0.02 < lively.median() < 0.12


def test_truncation_draws_pictures_nearer_to_one_another(painter: Generator) -> None:
    whole, half, none = (painter.sample(32, seed=2, truncation=t) for t in (1.0, 0.5, 0.0))
    assert half.std(0).mean() < 0.9 * whole.std(0).mean()
    assert none.std(0).mean() < 1e-5


# --- The commands ---------------------------------------------------------------------------------


def test_sixteen_are_painted(run: Program, painter: Generator) -> None:
    run.good("gan", "sample", NAME, "-n", "16", "-o", "new.png", "--seed", "7")
    side = painter.net.side
    assert load(run.folder / "new.png").shape == (4 * side + 6, 4 * side + 6, 3)
    record = json.loads(read_record(run.folder / "new.png") or "")
    assert record["seed"] == 7


def test_a_walk_is_smooth_and_closed(run: Program) -> None:
    run.good("gan", "walk", NAME, "-o", "walk.webp", "--seconds", "1", "--stops", "2")
    with Image.open(run.folder / "walk.webp") as film:
        frames = []
        for number in range(getattr(film, "n_frames", 1)):
            film.seek(number)
            frames.append(np.asarray(film.convert("RGB")))
    steps = [apart(a, b) for a, b in zip(frames, [*frames[1:], frames[0]], strict=True)]
    farthest = max(apart(frames[0], frame) for frame in frames)
    assert len(frames) > 12
    assert 0 < max(steps) < 0.6 * farthest


def test_two_are_mixed(run: Program, painter: Generator) -> None:
    run.good("gan", "mix", NAME, "7", "12", "-o", "mix.png")
    strip, side = load(run.folder / "mix.png"), painter.net.side
    cells = [strip[:, i : i + side] for i in range(0, strip.shape[1], side + 2)]
    assert len(cells) == len(painter.style_net.sides) + 1
    # B first; the more of it is A's coarse side, the farther from A.
    from_a = [apart(cell, cells[-1]) for cell in cells]
    assert from_a[0] > from_a[1] > 0
    assert from_a[-1] == 0
    assert apart(cells[0], cells[1]) > 0


def test_what_it_painted_is_found_again(run: Program) -> None:
    run.good("gan", "sample", NAME, "-n", "1", "-o", "seen.png", "--seed", "4")
    run.good("gan", "project", NAME, "seen.png", "-o", "found.png", "--steps", "60")
    run.good("gan", "sample", NAME, "-n", "1", "-o", "other.png", "--seed", "5")
    seen, found, other = (load(run.folder / f"{n}.png") for n in ("seen", "found", "other"))
    assert apart(seen, found) < 0.4 * apart(seen, other)
    run.good("gan", "sample", NAME, "--latent", "found.png", "-n", "1", "-o", "again.png")
    assert np.array_equal(load(run.folder / "again.png"), found)


def test_one_is_a_style(run: Program) -> None:
    style = f"gan:{NAME}?seed=7"
    run.good("transfer", "photo.png", style, "-o", "slow.png", *SMALL)
    run.good("transfer", "photo.png", style, "-o", "fast.png", "--method", "fast")
    photo = load(run.folder / "photo.png")
    for name in ("slow", "fast"):
        made = load(run.folder / f"{name}.png")
        assert made.shape == photo.shape
        assert not np.array_equal(made, photo)


def test_it_is_listed_and_sound(run: Program) -> None:
    name = painter_path(NAME).stem
    listed = next(li for li in run.good("weights", "list").out.splitlines() if li.startswith(name))
    assert "landscapes" in listed.removeprefix(name)
    assert f"{name} is sound" in run.good("weights", "verify", name).out
