"""`impasto gan`: what the commands write and say, where, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pictures
from impasto.checkpoints import checkpoints
from impasto.gan.generator import Generator
from impasto.gan.networks import GeneratorNet
from impasto.gan.run import train_gan
from impasto.gan.settings import ScoreSettings, make_gan_settings
from impasto.images import read_record
from pictures import SMALL, Program, load
from test_cli import INTERRUPTIBLE, SRC, TORCH_LOADED, process

TINY = [
    *("--arch", "dcgan", "--size", "32", "--width", "4", "--latent", "8", "--batch", "8"),
    *("--threads", "1", "--device", "cpu", "--precision", "float32", "--snapshot-every", "80"),
]
COMMANDS = ("data", "train", "sample", "walk", "judge", "score", "export")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with forty paintings, and a run that has learnt from them for 160 pictures."""
    folder = tmp_path_factory.mktemp("gan")
    (folder / "paintings").mkdir()
    for number in range(40):
        drawn = pictures.painting(48, 40, seed=number)
        pictures.save(folder / "paintings" / f"{number}.png", drawn)
    done = process(
        "gan",
        "train",
        folder / "paintings",
        "-o",
        folder / "run",
        "--images",
        "160",
        "--cache",
        folder / "cache",
        *TINY,
    )
    assert done.code == 0, done.err
    assert done.out == f"{folder / 'run'}\n"
    return folder


@pytest.fixture
def here(run: Program, store: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """The program beside links to the paintings and to the run, which is only read."""
    for name in ("paintings", "run", "cache"):
        (run.folder / name).symlink_to(store / name)
    quick = ScoreSettings(real=40, generated=20)
    monkeypatch.setitem(train_gan.__kwdefaults__ or {}, "scoring", quick)
    return run


def train(run: Program, *flags: str, images: str = "160") -> Any:
    return run("gan", "train", "paintings", "-o", "mine", "--cache", "cache",
               "--images", images, *TINY, *flags)  # fmt: skip


# --- before torch is imported ---------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_comes_without_torch(command: tuple[str, ...], run: Program) -> None:
    done = process("gan", *command, "--help", code=TORCH_LOADED, cwd=run.folder)
    assert done.code == 0
    assert done.out.endswith("loaded False\n")
    assert "--help" in done.out
    assert done.err == ""


def test_gan_alone_shows_what_there_is(run: Program) -> None:
    shown = run.good("gan").out
    for command in COMMANDS:
        assert re.search(rf"^ +{command} +\S", shown, re.MULTILINE), command


def test_help_tells_the_defaults_that_are_used(run: Program, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    text = " ".join(run.good("gan", "train", "--help").out.split())
    defaults = make_gan_settings({})
    same = ("arch", "size", "seed", "crop", "held_out", "mixing", "mapping", "augment_by")
    shown = {name: getattr(defaults, name) for name in same}
    classic = make_gan_settings({"arch": "dcgan"})
    shown |= {"loss": classic.loss, "width": classic.width}
    gpu = make_gan_settings({"size": 256}, gpu=True)
    for name in ("batch", "latent", "ema"):
        ours, there, old = (getattr(s, name) or "none" for s in (defaults, gpu, classic))
        shown[name] = f"{ours}, on a GPU {there}, dcgan {old}"
    for name, value in shown.items():
        flag = "--" + name.replace("_", "-")
        assert re.search(rf"{flag} .*?\[default: {value}\]", text), name
    assert defaults.images == 500_000
    assert re.search(r"--images .*?\[default: 500k\]", text)
    assert defaults.snapshot_every == 10_000
    assert re.search(r"--snapshot-every .*?\[default: 10k\]", text)


WRONG = [
    (("train", "paintings"), "--out"),
    (("train", "-o", "r"), "FOLDER"),
    (("train", "paintings", "-o", "r", "--arch", "vae"), "arch is 'vae'; it can be style, dcgan"),
    (("train", "paintings", "-o", "r", "--size", "65"), "size is 65"),
    (("train", "paintings", "-o", "r", "--loss", "mse"), "relativistic"),
    (("train", "paintings", "-o", "r", "--images", "many"), "write 150000, 500k or 1.5M"),
    (("train", "paintings", "-o", "r", "--images", "5", "--passes", "2"), "give one"),
    (("train", "paintings", "-o", "r", "--passes", "-1"), "--passes is -1"),
    (("train", "paintings", "-o", "r", "--time", "soon"), "write 2h, 45m, 90s or 1h30m"),
    (("train", "paintings", "-o", "r", "--lr", "2"), "lr is 2"),
    (("train", "paintings", "-o", "r", "--lr", "nan"), "lr is nan"),
    (("train", "paintings", "-o", "r", "--batch", "1"), "batch is 1"),
    (("train", "paintings", "-o", "r", "--augment", "blur"), "no augmentation 'blur'"),
    (("train", "paintings", "-o", "r", "--ema", "some"), "'some'"),
    (("train", "paintings", "-o", "r", "--crops", "3", "--tile"), "choose one"),
    (("train", "paintings", "-o", "photo.png"), "photo.png is a file"),
    (("train", "nowhere", "-o", "r"), "cannot read nowhere"),
    (("data", "nowhere"), "cannot read nowhere"),
    (("data", "."  , "--sheet", "sheet.xyz"), "xyz"),
    (("sample", "nowhere", "-o", "s.png"), "nowhere"),
    (("sample", "nowhere", "-o", "s.xyz"), "xyz"),
    (("sample", "nowhere", "-o", "s.png", "-n", "0"), "-n is 0"),
    (("sample", "nowhere", "-o", "photo.png"), "photo.png is there already; --overwrite"),
    (("walk", "nowhere", "-o", "w.avi"), "avi"),
    (("walk", "nowhere", "-o", "w.gif", "--seconds", "0"), "--seconds is 0"),
    (("walk", "nowhere", "-o", "w.gif", "--stops", "1"), "--stops is 1"),
    (("score", "nowhere", "paintings", "-n", "3"), "-n is 3"),
    (("walk", "nowhere", "-o", "none/w.gif"), "there is no folder none; make it first"),
    (("export", "nowhere", "-o", "g.pt"), "g.pt has to end in .safetensors"),
    (("export", "nowhere", "-o", "g.safetensors"), "nowhere is no folder of a run"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda v: " ".join(v)[:60])
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    run: Program, arguments: tuple[str, ...], message: str
) -> None:
    (run.folder / "paintings").mkdir()
    before = sorted(run.folder.rglob("*"))
    assert message in run.bad("gan", *arguments)
    assert sorted(run.folder.rglob("*")) == before


def test_a_usage_error_comes_without_torch(run: Program) -> None:
    for flags in (("--size", "65"), ("--time", "soon"), ("--passes", "2", "--images", "9")):
        done = process(*("gan", "train", ".", "-o", "r", *flags), code=TORCH_LOADED, cwd=run.folder)
        assert done.code == 2
        assert done.out == "loaded False\n"


# --- data -----------------------------------------------------------------------------------------


def test_data_says_what_there_is(run: Program) -> None:
    folder = run.folder / "mixed"
    (folder / "deep").mkdir(parents=True)
    scene = pictures.painting(120, 80)
    pictures.save(folder / "a.png", scene)
    pictures.save(folder / "deep" / "copy.tif", scene)
    Image.fromarray(scene).resize((240, 160)).save(folder / "deep" / "large.jpg", quality=80)
    pictures.save(folder / "scroll.png", pictures.painting(400, 50, seed=1))
    pictures.save(folder / "small.png", pictures.painting(20, 20))
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "notes.txt").write_text("no picture")
    told = run.good("gan", "data", folder, "--sheet", "sheet.png").out.splitlines()
    assert told[0] == "4 pictures, 2 paintings"
    assert told[1] == "short side: 50 px at least, 80 px median, 160 px at most"
    assert told[2:6] == [
        "the same pixels, used once: 1 group",
        f"  {folder}/a.png = {folder}/deep/copy.tif",
        "alike, kept together: 1 group",
        f"  {folder}/a.png ~ {folder}/deep/large.jpg",
    ]
    assert told[6] == "not used: 2 files"
    assert "20 × 20 px, less than 32" in told[7]
    assert told[7].startswith(f"  {folder}/small.png: ")
    assert told[8].startswith(f"  {folder}/torn.png: ")
    assert told[9:] == ["squares of 64 px: 3, a part of them held out by train", "sheet.png"]
    assert "is there already" in run.bad("gan", "data", folder, "--sheet", "sheet.png")
    whole = load(run.folder / "sheet.png")
    tiled = run.good("gan", "data", folder, "--tile", "--sheet", "tiles.png", "-q").out
    assert "squares of 64 px: 12," in tiled  # 2 + 2, and 8 of the scroll
    assert load(run.folder / "tiles.png").shape[0] > whole.shape[0]
    crops = run.good("gan", "data", folder, "--crops", "5", "--size", "32").out
    assert "squares of 32 px: 15," in crops


def test_data_of_an_empty_folder(run: Program) -> None:
    (run.folder / "empty").mkdir()
    assert run.good("gan", "data", "empty").out == "0 pictures, 0 paintings\n"
    assert "no picture to show" in run("gan", "data", "empty", "--sheet", "s.png").err
    assert not (run.folder / "s.png").exists()


def test_the_limit_on_a_picture_can_be_raised(run: Program) -> None:
    told = run.good("gan", "data", "photo.png", "--max-megapixels", "0.001").out
    assert "--max-megapixels" in told
    assert told.startswith("0 pictures")
    assert run.good("gan", "data", "photo.png").out.startswith("1 picture,")


# --- train ----------------------------------------------------------------------------------------


def test_a_run_leaves_what_it_says(store: Path) -> None:
    names = {path.name for path in (store / "run").iterdir()}
    assert names == {
        "best.safetensors", "checkpoint-000000000080.safetensors",
        "checkpoint-000000000160.safetensors", "curves.png", "film.webp", "log.jsonl",
        "neighbours.png", "run.lock", "scores.jsonl", "snapshots",
    }  # fmt: skip
    lines = [json.loads(line) for line in (store / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [80, 160]
    for name in ("discriminator", "generator", "on_real", "on_generated", "spread", "seconds"):
        assert all(np.isfinite(line[name]) for line in lines)
    scores = [
        json.loads(line) for line in (store / "run" / "scores.jsonl").read_text().split("\n")[:-1]
    ]
    assert [line["images"] for line in scores] == [80, 160]
    assert all(line["kid_low"] <= line["kid_high"] for line in scores)
    assert scores[0]["real"] == scores[0]["generated"] == 1000
    assert scores[0]["paintings"] > 1
    assert scores[0]["spec"]["layers"]
    for seen in (0, 80, 160):
        for kind in ("grid", "beside"):
            assert (store / "run" / "snapshots" / f"{seen:012}-{kind}.png").exists()
    side = load(store / "run" / "snapshots" / "000000000160-grid.png").shape
    assert side == (8 * 34 - 2, 8 * 34 - 2, 3)
    with Image.open(store / "run" / "film.webp") as film:
        assert film.size == (270, 270)


def test_a_stopped_run_goes_on(here: Program) -> None:
    first = train(here, images="80")
    assert first.code == 0, first.err
    assert "cannot" not in first.err
    refused = train(here)
    assert refused.code == 2
    assert (
        refused.complaint == "impasto: mine holds a run already; resume it, or give another folder"
    )
    more = train(here, "--resume")
    assert more.code == 0, more.err
    assert [path.name for path in checkpoints(here.folder / "mine")] == [
        "checkpoint-000000000080.safetensors", "checkpoint-000000000160.safetensors"
    ]  # fmt: skip
    a, b = (Generator.load(f, best=False).sample(4) for f in (here.folder / "mine", "run"))
    assert torch.equal(a, b)  # the very run that was not stopped


def test_resume_keeps_the_runs_own_settings(here: Program) -> None:
    assert train(here, "--ema", "100", "--augment", "all", images="40").code == 0
    more = ("gan", "train", "paintings", "-o", "mine", "--cache", "cache", "--resume")
    assert here(*more, "--images", "80").code == 0
    assert here(*more).code == 0  # there is nothing more to do
    names = [path.name for path in checkpoints(here.folder / "mine")]
    assert names == ["checkpoint-000000000040.safetensors", "checkpoint-000000000080.safetensors"]
    other = train(here, "--resume", "--seed", "3")
    assert other.code == 2
    assert "the run in mine has" in other.complaint


def test_one_command_can_be_repeated_until_a_run_is_done(here: Program) -> None:
    (here.folder / "mine").mkdir()
    (here.folder / "mine" / ".impasto-0123.safetensors").write_bytes(b"of a killed process")
    for _ in range(2):
        assert train(here, "--resume", images="16").code == 0
    assert checkpoints(here.folder / "mine")[-1].name == "checkpoint-000000000016.safetensors"
    assert not list((here.folder / "mine").glob(".impasto-*"))


def test_other_pictures_are_not_the_same_run(here: Program) -> None:
    assert train(here, images="16").code == 0
    (here.folder / "paintings").unlink()
    (here.folder / "paintings").mkdir()
    for number in range(3):
        pictures.save(here.folder / "paintings" / f"{number}.png", pictures.painting(seed=number))
    done = train(here, "--resume")
    assert done.code == 2
    assert "other pictures" in done.complaint


def test_passes_and_time_limit_a_run(here: Program) -> None:
    squares = int(re.findall(r"pictures = (\d+) to learn from", train(here, "--dry-run").out)[0])
    done = here("gan", "train", "paintings", "-o", "mine", "--cache", "cache", *TINY,
                "--passes", "2")  # fmt: skip
    assert done.code == 0, done.err
    last = checkpoints(here.folder / "mine")[-1]
    assert last.name == f"checkpoint-{-(-2 * squares // 8) * 8:012}.safetensors"
    began = time.monotonic()
    late = here("gan", "train", "paintings", "-o", "late", "--cache", "cache", *TINY,
                "--images", "10M", "--time", "2s")  # fmt: skip
    assert late.code == 0
    assert re.search(r"time is up after \d+ of 10000000 pictures; --resume goes on", late.err)
    assert time.monotonic() - began < 60
    assert checkpoints(here.folder / "late")


def test_a_dry_run_only_tells(here: Program) -> None:
    done = train(here, "--dry-run", "--loss", "wgan-gp", "--ema", "10k", images="160k")
    assert done.code == 0, done.err
    told = dict(line.split(" = ", 1) for line in done.out.splitlines() if " = " in line)
    assert told["loss"] == "wgan-gp"
    assert told["images"] == "160000"
    assert told["ema"] == "10000"
    assert told["critic_steps"] == "5"
    generator, discriminator = re.findall(r"([\d,]+) parameters", done.out)
    net = Generator.load(here.folder / "run").net
    assert int(generator.replace(",", "")) == sum(p.numel() for p in net.parameters())
    assert int(discriminator.replace(",", "")) > 1000
    assert told["steps"].startswith("20,000, about ")
    assert re.search(r"memory.* = \d+ MB", done.out)
    assert not (here.folder / "mine").exists()


def test_pictures_that_are_no_paintings_are_told(run: Program) -> None:
    (run.folder / "one").mkdir()
    pictures.save(run.folder / "one" / "a.png", pictures.painting())
    (run.folder / "one" / "b.png").write_bytes(b"")
    line = run.bad("gan", "train", "one", "-o", "mine", "--cache", "cache", "--images", "9")
    assert "a GAN needs two that show different paintings" in line
    assert not (run.folder / "mine").exists()


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(here: Program, number: signal.Signals) -> None:
    flags = ["--images", "10M", "--cache", "cache", *TINY, "--snapshot-every", "1M"]
    arguments = ["gan", "train", "paintings", "-o", "mine", *flags]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *arguments],
        cwd=here.folder,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as work:
        try:
            deadline = time.monotonic() + 120
            while not (here.folder / "mine" / "log.jsonl").exists():
                assert work.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            work.send_signal(number)
            _, err = work.communicate(timeout=120)
        finally:
            work.kill()
    assert work.returncode == 130
    assert "Traceback" not in err
    found = re.search(r"stopped after (\d+) pictures; --resume goes on", err)
    assert found
    assert checkpoints(here.folder / "mine")[-1].name.endswith(f"{int(found[1]):012}.safetensors")
    again = train(here, "--resume", images=str(int(found[1]) + 8))
    assert again.code == 0, again.err


# --- a run that is there --------------------------------------------------------------------------


def test_samples_are_the_same_in_a_sheet_and_as_files(here: Program) -> None:
    here.good("gan", "sample", "run", "-n", "5", "-o", "sheet.png", "--seed", "7")
    here.good("gan", "sample", "run", "-n", "3", "-o", "new/", "--seed", "7", "-q")
    sheet = load(here.folder / "sheet.png")
    assert sheet.shape == (2 * 34 - 2, 3 * 34 - 2, 3)
    names = sorted(path.name for path in (here.folder / "new").iterdir())
    assert names == ["0.png", "1.png", "2.png"]
    expected = Generator.load("run").sample(3, seed=7).mul(255).round().byte().permute(0, 2, 3, 1)
    for i, name in enumerate(names):
        single = load(here.folder / "new" / name)
        assert np.array_equal(single, expected[i].numpy())
        assert np.array_equal(single, sheet[:32, 34 * i : 34 * i + 32])
    record = json.loads(read_record(here.folder / "new" / "2.png") or "")
    assert (record["job"], record["seed"], record["number"]) == ("gan sample", 7, 2)
    assert record["generator"]["images"] in (80, 160)
    assert "is there already" in here.bad("gan", "sample", "run", "-o", "sheet.png")
    assert "is there already" in here.bad("gan", "sample", "run", "-n", "3", "-o", "new/")
    here.good("gan", "sample", "run", "-o", "sheet.png", "-n", "1", "--overwrite")
    assert load(here.folder / "sheet.png").shape == (32, 32, 3)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_a_walk_is_a_loop(run: Program, suffix: str) -> None:
    torch.manual_seed(0)
    net = GeneratorNet(32, 8, 4)
    for weights in net.parameters():
        torch.nn.init.normal_(weights)  # pictures that differ: equal frames are stored as one
    card = {"size": 32, "latent": 8, "width": 4}
    Generator(net, card).export(run.folder / "g.safetensors")
    out = f"walk{suffix}"
    done = run.good("gan", "walk", "g.safetensors", "-o", out, "--seconds", "1", "--stops", "3")
    assert done.out == f"{out}\n"
    with Image.open(run.folder / out) as film:
        assert film.size == (256, 256)
        assert getattr(film, "n_frames", 1) == 20
        assert film.info.get("loop") == 0


def test_the_discriminator_judges(here: Program) -> None:
    done = here.good("gan", "judge", "run", "photo.png", "paintings/1.png")
    names, numbers = zip(*(line.split("  ") for line in done.out.splitlines()), strict=True)
    assert names == ("photo.png", "paintings/1.png")
    assert all(0 <= float(number) <= 1 for number in numbers)
    (here.folder / "torn.png").write_bytes(b"")
    mixed = here("gan", "judge", "run", "torn.png", "photo.png")
    assert mixed.code == 2
    assert mixed.out == done.out.splitlines()[0] + "\n"
    assert "torn.png: the file is empty" in mixed.err
    assert "folder of a run" in here.bad("gan", "judge", "photo.png", "photo.png")


def test_a_generated_picture_is_judged_too(here: Program) -> None:
    done = here.good("gan", "judge", "run", "gan:run?seed=3")
    assert done.out.startswith("gan:run?seed=3  0.")


def test_a_damaged_run_is_told_when_it_paints(here: Program) -> None:
    shutil.copytree(here.folder / "run", here.folder / "copy")
    best = here.folder / "copy" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-9])
    done = here.good("gan", "sample", "copy", "-n", "2", "-o", "s.png")
    assert "best.safetensors is damaged; using the newest checkpoint" in done.err


def test_seeds_as_photos_have_names_of_their_own(here: Program) -> None:
    here.good(
        "transfer", "gan:run?seed=1", "gan:run?seed=2", "-s", "style.png", "-o", "out/", *SMALL
    )
    assert sorted(path.name for path in (here.folder / "out").iterdir()) == [
        "run-1.png",
        "run-2.png",
    ]
    assert "write gan:RUN?seed=7" in here.bad(
        "transfer", "photo.png", "gan:run?seed=x", "-o", "o.png"
    )


def test_a_world_without_torchrun_is_this_process_alone(
    here: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    assert train(here, images="8").code == 0


def test_scores_of_a_folder(here: Program) -> None:
    done = here.good("gan", "score", "run", "paintings", "-n", "20", "--cache", "cache")
    first, second = done.out.splitlines()
    number = r"-?\d+\.\d+"
    assert re.fullmatch(
        rf"KID {number} \({number} to {number}\), density {number}, coverage {number}", first
    )
    assert second.startswith("20 generated beside 1000 crops of 40 paintings; mean of relu2_1")
    again = here.good("gan", "score", "run", "paintings", "-n", "20", "--cache", "cache")
    assert again.out == done.out


def test_an_exported_generator_is_all_that_others_need(here: Program) -> None:
    here.good("gan", "export", "run", "-o", "g.safetensors")
    assert "is there already" in here.bad("gan", "export", "run", "-o", "g.safetensors")
    here.good("gan", "export", "run", "-o", "newest.safetensors", "--newest")
    for name, best in (("g", True), ("newest", False)):
        exported = Generator.load(f"{name}.safetensors")
        assert torch.equal(
            exported.sample(3, seed=1), Generator.load("run", best=best).sample(3, seed=1)
        )
        assert exported.card["loss"] == "bce"
    here.good("gan", "sample", "g.safetensors", "-o", "new.png", "-n", "2")
    assert "g.safetensors is a file" in here.bad("gan", "judge", "g.safetensors", "photo.png")


def test_a_generated_painting_is_a_style(here: Program) -> None:
    here.good("transfer", "photo.png", "gan:run?seed=7", "-o", "out.png", *SMALL)
    here.good("redo", "out.png", "-o", "again.png")
    assert np.array_equal(load(here.folder / "out.png"), load(here.folder / "again.png"))
    assert load(here.folder / "out.png").shape == load(here.folder / "photo.png").shape
