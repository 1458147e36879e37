"""`impasto gan` with style-based networks: mixing, projecting, repainting, and `builtin:` names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pictures
import test_gan_style as nets
from impasto import weights
from impasto.errors import WeightsError
from impasto.files import sha256_file
from impasto.gan import project as projecting
from impasto.gan.builtin import painter_path, painters
from impasto.gan.generator import Generator, load_run
from impasto.gan.run import train_gan
from impasto.gan.settings import ScoreSettings
from impasto.gan.tune import tune_gamma
from impasto.images import Picture, read_record
from impasto.sources import Source, parse_style
from pictures import SMALL, Program, load
from test_cli import TORCH_LOADED, process

CARD = {"arch": "style", "size": 32, "latent": 8, "channels": [8, 8, 6, 4], "mapping": 2}
TINY = [
    *("--size", "32", "--channels", "8,6,4,4", "--latent", "8", "--mapping", "2", "--batch", "8"),
    *("--threads", "1", "--device", "cpu", "--precision", "float32", "--snapshot-every", "320"),
]


@pytest.fixture
def here(run: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """The program beside a generator, which is also a bundled one by the name of `landscapes`."""
    painter = Generator(nets.stirred(nets.generator().float()), CARD)
    painter.export(run.folder / "g.safetensors")
    models = run.folder / "models"
    models.mkdir()
    for path in weights.MODELS.iterdir():
        if not path.stem.startswith("landscapes-"):
            (models / path.name).symlink_to(path)
    for version in (1, 2):
        painter.export(models / f"landscapes-{version}.safetensors", half=True)
        digest = sha256_file(models / f"landscapes-{version}.safetensors")
        card = f"# landscapes-{version}: paints Chinese landscapes\n\nSHA-256 {digest}\n"
        (models / f"landscapes-{version}.md").write_text(card)
    monkeypatch.setattr(weights, "MODELS", models)
    quick = ScoreSettings(real=40, generated=20)
    for function in (train_gan, tune_gamma):
        monkeypatch.setitem(function.__kwdefaults__ or {}, "scoring", quick)
    monkeypatch.setitem(tune_gamma.__kwdefaults__ or {}, "images", 16)
    return run


# --- The package ----------------------------------------------------------------------------------


def test_a_bundled_painter_paints(here: Program) -> None:
    assert painter_path("builtin:landscapes").name == "landscapes-2.safetensors"
    assert painter_path("builtin:landscapes-1").name == "landscapes-1.safetensors"
    here.good("gan", "sample", "builtin:landscapes", "-n", "1", "-o", "a.png", "--seed", "4")
    expected = Generator.load("builtin:landscapes").sample(1, seed=4)
    shown = expected[0].mul(255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(load(here.folder / "a.png"), shown)
    style = parse_style("gan:builtin:landscapes?seed=4:0.5")
    assert (style.weight, style.source.stem) == (0.5, "landscapes-2-4")
    assert np.array_equal(style.source.open().pixels, shown)
    here.good("transfer", "photo.png", "gan:builtin:landscapes?seed=4", "-o", "o.png", *SMALL)
    here.good("gan", "walk", "builtin:landscapes", "-o", "w.webp", "--seconds", "0.2")


def test_painters_are_listed_and_verified_and_are_no_encoders(here: Program) -> None:
    told = here.good("weights", "list").out
    assert "landscapes-2" in told
    assert "paints Chinese landscapes" in told
    assert "landscapes-1 is sound" in here.good("weights", "verify", "landscapes-1", "slim-1").out
    assert not {"landscapes", "landscapes-1"} & set(weights.known_names())
    assert {"slim", "slim-1"} <= set(weights.known_names())
    for name in ("landscapes", "g.safetensors"):
        line = here.bad("transfer", "photo.png", "style.png", "-o", "o.png", "--encoder", name)
        assert "paints new pictures and does not look: impasto gan; the encoders are " in line
        assert "slim" in line
    path = here.folder / "models" / "landscapes-1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    done = here("weights", "verify", "landscapes-1")
    assert done.code == 2
    assert "landscapes-1.safetensors is damaged" in done.err


def test_a_painter_that_is_not_there_is_one_line(
    here: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = here.bad("gan", "sample", "builtin:roses", "-o", "a.png")
    assert "there is no builtin:roses; there are builtin:landscapes" in line
    monkeypatch.setattr(weights, "MODELS", here.folder)
    (here.folder / "g.safetensors").unlink()
    assert painters() == {}
    for command in (
        ("gan", "sample", "builtin:landscapes", "-o", "a.png"),
        ("gan", "mix", "builtin:landscapes", "1", "2", "-o", "a.png"),
        ("transfer", "photo.png", "gan:builtin:landscapes?seed=7", "-o", "o.png", *SMALL),
    ):
        assert "no painter comes with this version; train one" in here.bad(*command)
    with pytest.raises(WeightsError, match="no painter"):
        painter_path("builtin:landscapes")


# --- Mixing and projecting ------------------------------------------------------------------------


def test_two_seeds_are_mixed(here: Program) -> None:
    here.good("gan", "mix", "g.safetensors", "3", "5", "-o", "strip.png")
    strip = load(here.folder / "strip.png")
    assert strip.shape == (32, 5 * 34 - 2, 3)  # B, A below 8, 16 and 32 px, A
    for place, seed in ((0, 5), (4, 3)):
        here.good(
            "gan", "sample", "g.safetensors", "-n", "1", "-o", f"{seed}.png", "--seed", str(seed)
        )
        single = load(here.folder / f"{seed}.png")
        assert np.array_equal(strip[:, 34 * place : 34 * place + 32], single)
    here.good("gan", "mix", "g.safetensors", "3", "5", "-o", "one.png", "--at", "16")
    assert np.array_equal(load(here.folder / "one.png"), strip[:, 68:100])
    here.good("gan", "sample", "g.safetensors", "--latent", "one.png", "-o", "again.png", "-n", "1")
    assert np.array_equal(load(here.folder / "again.png"), load(here.folder / "one.png"))
    mean = "gan", "mix", "g.safetensors", "3", "5", "--truncation", "0", "-o"
    here.good(*mean, "mean.png")
    flat = load(here.folder / "mean.png")
    assert np.array_equal(flat[:, :32], flat[:, 68:100])


def test_a_picture_is_found_and_painted_again(here: Program) -> None:
    done = here.good("gan", "project", "g.safetensors", "photo.png", "-o", "found.png",
                     "--steps", "5")  # fmt: skip
    assert done.out.startswith("found.png  unlike by ")
    record = json.loads(read_record(here.folder / "found.png") or "")
    assert (record["job"], record["steps"]) == ("gan project", 5)
    assert record["styles"]["shape"] == [7, 8]
    sample = ("gan", "sample", "g.safetensors", "--latent", "found.png", "-o")
    here.good(*sample, "again.png")
    assert np.array_equal(load(here.folder / "again.png"), load(here.folder / "found.png"))
    here.good(*sample, "mean.png", "--truncation", "0")
    here.good("gan", "sample", "g.safetensors", "-n", "1", "-o", "m.png", "--truncation", "0")
    assert np.array_equal(load(here.folder / "mean.png"), load(here.folder / "m.png"))
    here.good("gan", "mix", "g.safetensors", "found.png", "7", "-o", "mixed.png")
    strip = load(here.folder / "mixed.png")
    assert np.array_equal(strip[:, -32:], load(here.folder / "found.png"))
    here.good("gan", "mix", "g.safetensors", "found.png", "7", "-o", "flat.png", "--at", "8",
              "--truncation", "0")  # fmt: skip
    assert np.array_equal(load(here.folder / "flat.png"), load(here.folder / "m.png"))
    other = here.bad(
        "gan", "sample", "builtin:landscapes-1", "--latent", "photo.png", "-o", "x.png"
    )
    assert "photo.png has no latent in it" in other


def test_ctrl_c_writes_the_best_so_far(here: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    search = projecting.project
    best: list[projecting.Found] = []
    last = 3

    def stopped(*arguments: Any) -> Iterator[projecting.Found]:
        for found in search(*arguments):
            if found.step > last:
                raise KeyboardInterrupt
            best.append(found)
            yield found

    monkeypatch.setattr(projecting, "project", stopped)
    done = here("gan", "project", "g.safetensors", "photo.png", "-o", "found.png")
    assert done.code == 130
    assert done.out.startswith("found.png  unlike by ")
    record = json.loads(read_record(here.folder / "found.png") or "")
    assert (record["step"], record["steps"]) == (3, 300)
    assert torch.equal(projecting.unpack_styles(record["styles"]), best[-1].styles)
    last = 0
    done = here("gan", "project", "g.safetensors", "photo.png", "-o", "none.png")
    assert (done.code, done.out) == (130, "")
    assert not (here.folder / "none.png").exists()


def test_a_sheet_is_painted_part_by_part(here: Program) -> None:
    here.good("gan", "sample", "g.safetensors", "-n", "70", "-o", "s.png", "--seed", "2")
    sheet = load(here.folder / "s.png")
    assert sheet.shape == (8 * 34 - 2, 9 * 34 - 2, 3)
    painted = Generator.load("g.safetensors").sample(70, seed=2).mul(255).permute(0, 2, 3, 1)
    for i in (0, 63, 64, 69):
        top, left = i // 9 * 34, i % 9 * 34
        shown = sheet[top : top + 32, left : left + 32]
        assert np.abs(shown - painted[i].numpy()).max() < 0.51  # but for rounding


def test_a_latent_of_another_generator_is_told(here: Program) -> None:
    Generator(nets.generator().float(), {**CARD, "images": 5}).export(here.folder / "h.safetensors")
    here.good("gan", "mix", "h.safetensors", "1", "2", "-o", "m.png", "--at", "8")
    line = here.bad("gan", "sample", "g.safetensors", "--latent", "m.png", "-o", "x.png")
    assert line.endswith("the latent in m.png is of another generator")


def test_truncation_zero_is_the_mean_picture(here: Program) -> None:
    here.good("gan", "sample", "g.safetensors", "-n", "4", "-o", "s.png", "--truncation", "0")
    sheet = load(here.folder / "s.png")
    assert np.array_equal(sheet[:32, :32], sheet[34:, 34:])
    here.good("gan", "sample", "g.safetensors", "-n", "1", "-o", "t.png", "--truncation", "0.5")
    assert json.loads(read_record(here.folder / "t.png") or "")["truncation"] == 0.5


def test_what_is_painted_gets_the_strokes_of_a_painting(
    here: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    from impasto.jobs import transfer

    asked: dict[str, Any] = {}
    real = transfer.iter_transfer

    def quick(content: Any, style: Any, **options: Any) -> Any:
        asked.update(options, content=content)
        return real(content, style, **{**options, "steps": 2, "scales": 1})

    monkeypatch.setattr(transfer, "iter_transfer", quick)
    sample = ("gan", "sample", "g.safetensors", "--repaint", "style.png", "--size", "96")
    here.good(*sample, "-n", "1", "-o", "big.png", "--seed", "3")
    assert load(here.folder / "big.png").shape == (96, 96, 3)
    assert asked["size"] == 96
    enlarged = torch.from_numpy(asked["content"].pixels).permute(2, 0, 1)[None].float() / 255
    small = torch.nn.functional.avg_pool2d(enlarged, 3)
    painted = Generator.load("g.safetensors").sample(1, seed=3)
    assert (small - painted).abs().mean() < 0.05
    record = json.loads(read_record(here.folder / "big.png") or "")
    assert (record["repaint"], record["size"]) == ("style.png", 96)
    opened: list[Source] = []
    read = Source.open

    def once(source: Source) -> Picture:
        opened.append(source)
        return read(source)

    monkeypatch.setattr(Source, "open", once)
    here.good(*sample, "-n", "2", "-o", "many/")
    assert len(opened) == 1
    assert load(here.folder / "many" / "1.png").shape == (96, 96, 3)
    assert "add -n 1, or write to a folder" in here.bad(*sample, "-o", "sheet.png")


WRONG = [
    (("mix", "g.safetensors", "x", "5", "-o", "m.png"), "x is neither a seed nor a picture"),
    (("mix", "g.safetensors", "1", "5", "-o", "m.png", "--at", "9"), "--at is 9"),
    (("mix", "g.safetensors", "1", "5", "-o", "m.png", "--at", "64"), "the pictures have 32 px"),
    (("mix", "g.safetensors", "1", "5", "-o", "photo.png"), "photo.png is there already"),
    (("mix", "g.safetensors", "1", "photo.png", "-o", "m.png"), "photo.png has no latent"),
    (("project", "g.safetensors", "nowhere.png", "-o", "m.png"), "cannot read nowhere.png"),
    (("project", "g.safetensors", "photo.png", "-o", "m.png", "--steps", "0"), "steps is 0"),
    (("sample", "g.safetensors", "-o", "m.png", "--latent", "no.png"), "cannot read no.png"),
    (("sample", "g.safetensors", "-o", "e/", "--repaint", "no.png"), "cannot read no.png"),
    (("sample", "g.safetensors", "-n", "1", "-o", "m.png", "--repaint", "style.png", "--size", "9"),
     "--size is 9"),
    (("sample", "g.safetensors", "-o", "m.png", "--truncation", "3"), "truncation"),
    (("sample", "g.safetensors", "-n", "2", "-o", "e/", "--repaint", "text.png"), "text.png"),
    (("sample", "g.safetensors", "-n", "2", "-o", "e/", "--latent", "photo.png"),
     "a latent is one picture; leave -n out"),
    (("sample", "g.safetensors", "-o", "e/", "--latent", "photo.png"), "has no latent in it"),
    (("sample", "g.safetensors", "-o", "m.png", "--size", "99"), "--size is for --repaint"),
    (("sample", "g.safetensors", "-n", "1", "-o", "m.png", "--repaint", "style.png:0.3"),
     "--repaint takes a style without a weight and a mask"),
    (("sample", "g.safetensors", "-n", "1", "-o", "m.png", "--repaint", "style.png@photo.png"),
     "--repaint takes a style without a weight and a mask"),
    (("sample", "g.safetensors", "-n", "1000000", "-o", "m.png"),
     "33998 × 33998 px, and that is too large; write them to a folder (-o DIR/)"),
    (("sample", "g.safetensors", "-n", "1000000", "-o", "m.webp"),
     "at most 16383 px a side; use .png, or a folder (-o DIR/)"),
    (("sample", "g.safetensors", "-o", "m.png", "--seed", "1" + 18 * "0"), "18 digits at most"),
    (("walk", "g.safetensors", "-o", "m.gif", "--seed", "1" + 18 * "0"), "18 digits at most"),
    (("project", "g.safetensors", "photo.png", "-o", "m.png", "--seed", "-1"), "--seed is -1"),
    (("mix", "g.safetensors", "1", "1" + 18 * "0", "-o", "m.png"), "is neither a seed nor"),
    (("train", ".", "-o", "r", "--channels", "8,x"), "write one for each side"),
    (("train", ".", "-o", "r", "--channels", "8"), "each for 4, 8, 16, 32, 64 px"),
    (("train", ".", "-o", "r", "--gamma", "high"), "write first and last, as 1,0.1"),
    (("train", ".", "-o", "r", "--loss", "bce"), "for bce add --arch dcgan"),
    (("train", ".", "-o", "r", "--width", "8"), "--width is of --arch dcgan"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda v: " ".join(v)[:60])
def test_what_is_wrong_is_one_line(here: Program, arguments: tuple[str, ...], message: str) -> None:
    (here.folder / "text.png").write_text("no picture")
    before = sorted(here.folder.rglob("*"))
    assert message in here.bad("gan", *arguments)
    assert sorted(here.folder.rglob("*")) == before


def test_a_classic_has_no_styles(here: Program) -> None:
    from impasto.gan.networks import GeneratorNet

    card = {"size": 32, "latent": 8, "width": 4}
    Generator(GeneratorNet(32, 8, 4), card).export(here.folder / "old.safetensors")
    for command in (
        ("mix", "old.safetensors", "1", "2"),
        ("project", "old.safetensors", "photo.png"),
        ("sample", "old.safetensors", "--truncation", "0.7"),
    ):
        assert "only one of --arch style can" in here.bad("gan", *command, "-o", "m.png")
    line = here.bad("gan", "sample", "old.safetensors", "-o", "d/", "--truncation", "0.7")
    assert "only one of --arch style can" in line
    assert not (here.folder / "d").exists()


@pytest.mark.parametrize("command", ["mix", "project"])
def test_help_comes_without_torch(command: str, run: Program) -> None:
    done = process("gan", command, "--help", code=TORCH_LOADED, cwd=run.folder)
    assert done.code == 0
    assert done.out.endswith("loaded False\n")


# --- Training -------------------------------------------------------------------------------------


@pytest.fixture
def paintings(here: Program) -> Path:
    folder = here.folder / "paintings"
    folder.mkdir()
    for number in range(30):
        pictures.save(folder / f"{number}.png", pictures.painting(48, 40, seed=number))
    return folder


def test_a_style_run_is_trained_tuned_resumed_and_grown(here: Program, paintings: Path) -> None:
    del paintings
    train = ("gan", "train", "paintings", "--cache", "cache", *TINY, "-o")
    tuned = here.good(*train, "run", "--images", "320", "--tune-gamma", "--gamma", "2,0.2")
    lines = tuned.err.splitlines()
    told = [line for line in lines if line.startswith("gamma ") and "KID" in line]
    assert [line.split(":")[0] for line in told] == ["gamma 0.5,0.05", "gamma 2,0.2", "gamma 8,0.8"]
    settings = load_run(here.folder / "run").settings
    assert f"going on with gamma {','.join(f'{g:g}' for g in settings.gamma)}" in lines
    more = here.good("gan", "train", "paintings", "--cache", "cache", "-o", "run", "--resume",
                     "--images", "640", "--tune-gamma")  # fmt: skip
    assert "trying" not in more.err
    grown = load_run(here.folder / "run", best=False)
    assert (grown.seen, grown.settings.schedule) == (640, 320)
    assert grown.settings.gamma == settings.gamma
    here.good("gan", "sample", "run", "-n", "2", "-o", "s.png", "--truncation", "0.7")
    here.good("gan", "export", "run", "-o", "e.safetensors", "--half")
    assert Generator.load("e.safetensors").card["images"] in (320, 640)
    judged = here.good("gan", "judge", "run", "photo.png")
    assert "a score of --loss relativistic" in judged.out
    told_dry = here.good(*train, "dry", "--dry-run").out
    assert "channels = (8, 6, 4, 4)" in told_dry
    assert "width" not in told_dry
    large = ("--size", "64", "--channels", "8,6,4,4,4", "--images", "8", "--warm-start", "run")
    here.good(*train, "large", *large)
    assert load_run(here.folder / "large").settings.size == 64
    wrong = here(*train, "other", "--images", "8", "--warm-start", "run", "--latent", "9")
    assert wrong.code == 2
    assert "--channels, --latent and --mapping have to be the same" in wrong.err
