from __future__ import annotations

import dataclasses
import hashlib
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

import impasto
from impasto import cli, images
from impasto.images import SUFFIXES_OUT, read_record
from impasto.presets import PRESETS, Preset
from impasto.pyramid import working_size
from impasto.records import read_settings
from impasto.settings import (
    ReconstructSettings,
    Settings,
    TextureSettings,
    TransferSettings,
)
from impasto.terminal import Reporter
from impasto.weights import bundled, weights_path
from pictures import (
    SMALL,
    UNSMOOTHED_FLAGS,
    Program,
    Run,
    load,
    painting,
    photo,
    save,
    transparency,
)

JOBS: dict[str, type[Settings]] = {
    "transfer": TransferSettings,
    "texture": TextureSettings,
    "reconstruct": ReconstructSettings,
}
CONTRACT = """
    --style --out --format --size --steps --strength --content-weight --style-weight --tv-weight
    --content-layers --style-layers --pooling --optimizer --init --scales --encoder --preset
    --overwrite --seed --device --threads --preview --json --quiet --no-metadata --max-megapixels
"""
SRC = Path(__file__).parents[1] / "src"
PROGRAM = [sys.executable, "-m", "impasto"]

# Ctrl-C does nothing in a process whose parent ignores it, as a shell's background jobs do.
INTERRUPTIBLE = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("impasto", run_name="__main__", alter_sys=True)
"""
TORCH_LOADED = """
import atexit, sys
sys.argv[0] = "impasto"
atexit.register(lambda: print("loaded", "torch" in sys.modules))
from impasto.cli import main
main()
"""


WAITING = """
import atexit, os, sys
sys.argv[0] = "impasto"
atexit.register(lambda: print("spins", os.environ.get("GOMP_SPINCOUNT")))
from impasto.cli import main
main()
"""


def process(*arguments: str | Path, code: str | None = None, **more: Any) -> Run:
    """Runs the program in a process of its own."""
    program = PROGRAM if code is None else [sys.executable, "-c", code]
    done = subprocess.run(
        [*program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC), "PYTHONWARNINGS": "error", "COLUMNS": "80"},
        timeout=200,
        check=False,
        **more,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def paint(run: Program, out: str, *flags: str | Path) -> Path:
    """Paints photo.png in the style of style.png."""
    run.good("transfer", "photo.png", "style.png", "-o", out, *SMALL, *flags)
    return run.folder / out


def record(path: Path) -> dict[str, Any]:
    found = read_settings(path)
    assert found is not None
    return found


# --- help, and what is found wrong before torch is imported


@pytest.mark.parametrize(
    ("said", "spins"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_sleep_soon_unless_somebody_says_otherwise(
    said: dict[str, str], spins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert f"spins {spins}\n" in process("--version", code=WAITING).out


@pytest.mark.parametrize("columns", ["80", "200"])
@pytest.mark.parametrize("job", JOBS)
def test_help_tells_every_default_with_its_unit(
    run: Program, job: str, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    text = " ".join(run.good(job, "--help").out.split())
    defaults = JOBS[job]()
    for name, flag in cli.FLAGS.items():
        option = f"--{name.replace('_', '-')} {flag.metavar} "
        if not hasattr(defaults, name):
            assert option not in text
            continue
        value = getattr(defaults, name)
        if name == "strength":
            value = 0.5
        if name == "out_size":
            value = f"{value[0]}x{value[1]}"
        match = re.search(re.escape(option) + r".*?\[default: (.*?)\]", text)
        assert match, name
        shown, _, unit = match[1].rpartition(" ") if flag.unit else (match[1], "", "")
        assert unit == flag.unit
        if name.endswith("layers"):
            # Written so that it can be copied: broken between layers only, if at all.
            names = list(value)
            assert [part.partition("=")[0].strip() for part in shown.split(",")] == names
        else:
            assert shown == (f"{value:g}" if isinstance(value, float) else str(value))
    for option in ("--out", "--preview", "--json", "--quiet", "--overwrite", "--no-metadata"):
        assert f"{option} " in text
    assert re.search(r"--max-megapixels N .*\[default: 178 megapixels\]", text)
    if job == "transfer":
        assert re.search(r"--format SUFFIX .*\[default: png\]", text)


def test_flags_with_units_have_them() -> None:
    units = {name: flag.unit for name, flag in cli.FLAGS.items() if flag.unit}
    assert units == {
        "size": "px",
        "out_size": "px",
        "steps": "steps",
        "scales": "scales",
        "threads": "threads",
    }


def test_every_setting_is_a_flag_or_left_out_on_purpose() -> None:
    for kind in JOBS.values():
        names = {field.name for field in dataclasses.fields(kind)}
        assert names <= cli.FLAGS.keys() | cli.NOT_FLAGS


def test_contract_of_the_flags(run: Program) -> None:
    text = run.good("transfer", "--help").out
    for flag in CONTRACT.split():
        assert re.search(rf"(?<![-\w]){flag}(?![-\w])", text), flag
    assert "--out-size" in run.good("texture", "--help").out
    assert "--layers" in run.good("reconstruct", "--help").out


def test_without_a_command_it_shows_the_commands(run: Program) -> None:
    text = run.good().out
    for job in JOBS:
        assert re.search(rf"^\s+{job}\s", text, re.MULTILINE)
    assert run.good("--version").out == f"impasto {impasto.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["transfer", "--help"],
        ["texture", "--help"],
        ["reconstruct", "--help"],
        ["transfer", "photo.png", "style.png", "-o", "out.png", "--steps", "0"],
        ["transfer", "photo.png", "style.png", "-o", "out.xyz"],
        ["transfer", "missing.png", "style.png", "-o", "out.png"],
        ["transfer", "broken.png", "style.png", "-o", "out.png"],
        ["texture", "sample:nothing", "-o", "out.png"],
        ["reconstruct", "broken.png", "-o", "out.png"],
    ],
    ids=" ".join,
)
def test_torch_is_not_imported_for(arguments: list[str], run: Program) -> None:
    (run.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    done = process(*arguments, code=TORCH_LOADED, cwd=run.folder)
    assert done.out.endswith("loaded False\n")
    if "--help" in arguments:
        assert (done.code, done.err) == (0, "")
    else:
        assert done.code == 2
        assert done.complaint
    assert not (run.folder / "out.png").exists()


# --- one line, exit code 2

TO = ("-o", "out.png")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--size", "0"], "size 0 1"),
        (["--size", "large"], "size 'large' px full"),
        (["--size", "-64"], "size '-64' px full"),
        (["--steps", "0"], "steps 0 from 1"),
        (["--steps", "many"], "--steps valid integer"),
        (["--strength", "1.5"], "strength 1.5 0 to 1"),
        (["--strength", "-0.1"], "strength -0.1"),
        (["--strength", "nan"], "strength nan"),
        (["--strength", "0.5", "--style-weight", "3"], "either strength or style_weight"),
        (["--content-weight", "-1"], "content_weight -1 0 or more"),
        (["--style-weight", "inf"], "style_weight inf 0 or more"),
        (["--tv-weight", "x"], "--tv-weight valid"),
        (["--content-layers", ""], "layers relu"),
        (["--style-layers", "relu1_1=much"], "relu1_1 'much' number"),
        (["--style-layers", "relu1_1,relu1_1"], "relu1_1,relu1_1"),
        (["--style-layers", "relu1_1=0"], "style_layers above 0"),
        (["--pooling", "median"], "pooling 'median' max, avg"),
        (["--padding", "none"], "padding 'none' zero, replicate, reflect"),
        (["--optimizer", "sgd"], "optimizer 'sgd' lbfgs, adam"),
        (["--init", "nothing.png"], "nothing.png no such file"),
        (["--init", "sample:nothing"], "'nothing' astronaut"),
        (["--scales", "-1"], "scales -1 from 0"),
        (["--encoder", "vgg99"], "'vgg99' slim .safetensors"),
        (["--encoder", "no/such.safetensors"], "no/such.safetensors"),
        (["--encoder", "text.safetensors"], "text.safetensors"),
        (["--encoder", "hollow.safetensors"], "hollow.safetensors"),
        (["--preset", "baroque"], "'baroque' default"),
        (["--seed", "-1"], "seed -1 from 0"),
        (["--seed", "luck"], "--seed valid integer"),
        (["--device", "tpu"], "device 'tpu' auto, cpu, cuda, mps"),
        (["--precision", "half"], "precision 'half' float32"),
        (["--threads", "-2"], "threads -2 from 0"),
        (["--format", "jpg"], "--format folder"),
        (["--max-megapixels", "0.0001"], "cannot read megapixels --max-megapixels"),
        (["--max-megapixels", "-1"], "megapixels"),
        (["--max-megapixels", "nan"], "megapixels"),
        (["--max-megapixels", "inf"], "megapixels"),
        (["--preview", "no/such/folder.png"], "no/such"),
        (["--preview", "preview.txt"], "preview.txt .png"),
        (["--preview", "style.png"], "style.png input"),
        (["--json", "no/such/log"], "no/such/log"),
        (["--json", "style.png"], "style.png input"),
        (["--json", "out.png"], "out.png"),
        (["--bogus", "1"], "--bogus"),
        (["--style-layers", "relu9_1"], "'relu9_1' relu1_1 relu4_2 relu5_1"),
        (["--content-layers", "conv4_2"], "'conv4_2' relu1_1 relu4_2 relu5_1"),
        (["--content-weight", "0", "--style-weight", "0", *UNSMOOTHED_FLAGS], "weights 0"),
        (["-s", "style.png:0"], "style.png:0 above 0"),
        (["-s", "style.png@mask.png"], "mask"),
        (["-s", "sample:unknown"], "sample:unknown astronaut strokes woodcut"),
        (["-s", "sample:unknown:0.5"], "sample:unknown astronaut strokes woodcut"),
        (["-s", "missing.png"], "missing.png no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_values(flags: list[str], words: str, run: Program) -> None:
    (run.folder / "text.safetensors").write_text("no weights")
    hollow_network(run.folder / "hollow.safetensors")
    pictures = ["photo.png"] if flags[0] == "-s" else ["photo.png", "style.png"]
    before = (run.folder / "style.png").read_bytes()
    complaint = run.bad("transfer", *pictures, *TO, *SMALL[2:], *flags)
    for word in words.split():
        assert word in complaint
    assert not (run.folder / "out.png").exists()
    assert (run.folder / "style.png").read_bytes() == before


def hollow_network(path: Path) -> None:
    """A weight file that says its plan and holds no weights."""
    from safetensors.torch import save_file

    said = {"plan": "32,32", "mean": "0,0,0", "std": "1,1,1"}
    save_file({"other": torch.zeros(1)}, path, said)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["transfer", "photo.png", "-o", "out.png"], "two photo style -s"),
        (["transfer", "photo.png", "style.png", "photo.png", "-o", "out.png"], "two -s 3"),
        (["transfer", "photo.png", "style.png"], "--out"),
        (["transfer", "-o", "out.png"], "PHOTO"),
        (["transfer", "photo.png", "style.png", "-o", "out"], "out suffix .png .jpg"),
        (["transfer", "photo.png", "style.png", "-o", "no/out.png"], "no/out.png folder"),
        (["transfer", "missing.png", "style.png", "-o", "out.png"], "missing.png no such file"),
        (["transfer", "sample:me", "style.png", "-o", "out.png"], "'me' astronaut strokes"),
        (["transfer", "text.png", "style.png", "-o", "out.png"], "cannot read text.png"),
        (["transfer", "photo.png", "text.png", "-o", "out.png"], "cannot read text.png"),
        (["transfer", "photo.png", "empty", "-o", "out.png"], "cannot read empty folder"),
        (["transfer", "empty", "style.png", "-o", "out/"], "no picture empty"),
        (["transfer", "photo.png", "style.png", "-o", "photo.png"], "photo.png input"),
        (["transfer", "photo.png", "style.png", "-o", "style.png", "--overwrite"], "style.png"),
        (["texture", "style.png", "-o", "style.png", "--overwrite"], "style.png input"),
        (["texture", "style.png", "-o", "o.png", "--out-size", "64by48"], "'64by48' 640x480"),
        (["texture", "style.png", "-o", "o.png", "--out-size", "0x48"], "out_size 0"),
        (["texture", "style.png", "-o", "o.png", "--size", "48"], "--size"),
        (["texture", "style.png", "-o", "o.png", "--init", "content"], "noise style"),
        (["texture", "style.png", "-o", "o.png", "--style-layers", "relu7_1"], "relu5_1"),
        (["texture", "-o", "o.png"], "STYLE"),
        (["reconstruct", "photo.png", "-o", "o.png", "--layers", "relu7_1"], "'relu7_1' relu5_1"),
        (["reconstruct", "photo.png", "-o", "o.png", "--layers", ","], "layers relu"),
        (["reconstruct", "photo.png", "-o", "o.png", "--init", "style"], "noise"),
        (["reconstruct", "photo.png", "-o", "photo.png"], "photo.png input"),
        (["reconstruct", "photo.png", "style.png", "-o", "o.png"], "style.png"),
        (["paint", "photo.png"], "paint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments(arguments: list[str], words: str, run: Program) -> None:
    (run.folder / "text.png").write_text("a picture, honestly")
    (run.folder / "empty").mkdir()
    before = {path: path.read_bytes() for path in run.folder.glob("*.png")}
    complaint = run.bad(*arguments)
    for word in words.split():
        assert word in complaint
    assert {path: path.read_bytes() for path in run.folder.glob("*.png")} == before


@pytest.mark.parametrize("flag", ["-o", "--json", "--preview"])
def test_picture_to_start_from_is_an_input_too(flag: str, run: Program) -> None:
    begun = paint(run, "begun.png")
    before = begun.read_bytes()
    out = [] if flag == "-o" else ["-o", "out.png"]
    arguments = ["photo.png", "style.png", "--init", "begun.png", flag, "begun.png", *out]
    run.bad("transfer", *arguments, *SMALL)
    assert begun.read_bytes() == before


def test_memory_running_out_is_one_line(run: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("impasto.jobs.transfer.guided_upsample", fail)
    assert "memory" in run.bad("transfer", "photo.png", "style.png", *TO, *SMALL[2:], "--quiet")


def test_errors_come_as_one_line_from_the_real_program(run: Program) -> None:
    done = process("transfer", "missing.png", "style.png", *TO, cwd=run.folder)
    assert done == Run(2, "", "impasto: cannot read missing.png: no such file\n")


def test_quiet_and_the_real_program(run: Program) -> None:
    arguments = ["transfer", "photo.png", "style.png", *SMALL]
    quiet = process(*arguments, "-o", "quiet.png", "--quiet", cwd=run.folder)
    assert quiet == Run(0, "", "")
    told = process(*arguments, "-o", "told.png", cwd=run.folder)
    assert told.code == 0
    assert told.out.startswith("told.png")
    assert "40×32" in told.out
    assert (run.folder / "quiet.png").read_bytes() == (run.folder / "told.png").read_bytes()


# --- size, transparency, and what is said about them


@pytest.mark.parametrize(
    ("width", "height"), [(41, 67), (67, 41), (20, 20), (1, 1), (1, 90), (8000, 3), (97, 61)]
)
def test_result_has_exactly_the_size_of_the_photo(width: int, height: int, run: Program) -> None:
    save(run.folder / "shape.png", photo(width, height))
    done = run.good("transfer", "shape.png", "style.png", *TO, *SMALL)
    assert load(run.folder / "out.png").shape == (height, width, 3)
    larger = max(width, height) > 40 and max(width, height) > max(working_size((width, height), 40))
    assert ("brought up to" in done.err) is larger
    if larger:
        (line,) = [line for line in done.err.splitlines() if "brought up to" in line]
        assert f"{width}×{height}" in line
        assert "--size" in line


def test_full_size_is_the_size_of_the_photo(run: Program) -> None:
    save(run.folder / "large.png", photo(83, 57))
    arguments = ["transfer", "large.png", "style.png", *SMALL[2:]]
    done = run.good(*arguments, "-o", "full.png", "--size", "full")
    assert "brought up" not in done.err
    assert record(run.folder / "full.png")["working_size"] == [83, 57]
    run.good(*arguments, "-o", "small.png", "--size", "40")
    assert record(run.folder / "small.png")["working_size"] == list(working_size((83, 57), 40))


def test_upright_photo(run: Program) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(run.folder / "phone.jpg", photo(44, 33), exif=exif)
    run.good("transfer", "phone.jpg", "style.png", *TO, *SMALL)
    assert load(run.folder / "out.png").shape == (44, 33, 3)


@pytest.mark.parametrize("out", ["out.png", "out.webp", "out.tif", "out.jpg"])
def test_transparency(out: str, run: Program) -> None:
    alpha = transparency()
    save(run.folder / "glass.png", photo(), alpha)
    done = run.good("transfer", "glass.png", "style.png", "-o", out, *SMALL)
    said = [line for line in done.err.splitlines() if "transparency" in line]
    if out == "out.jpg":
        assert len(said) == 1
        assert "white" in said[0]
        assert load(run.folder / out).shape == (32, 40, 3)
        assert load(run.folder / out)[0, 0].min() > 245  # alpha 0
    else:
        assert not said
        assert np.array_equal(load(run.folder / out)[..., 3], alpha)


def test_transparency_of_a_style_is_white(run: Program) -> None:
    clear, white = painting(), painting()
    clear[:, 24:] = 0
    white[:, 24:] = 255
    alpha = np.full((48, 48), 255, np.uint8)
    alpha[:, 24:] = 0
    save(run.folder / "clear.png", clear, alpha)
    save(run.folder / "white.png", white)
    run.good("transfer", "photo.png", "clear.png", "-o", "a.png", *SMALL)
    run.good("transfer", "photo.png", "white.png", "-o", "b.png", *SMALL)
    assert np.array_equal(load(run.folder / "a.png"), load(run.folder / "b.png"))


# --- every flag does something


def test_no_strength_gives_the_photo_back_exactly(run: Program) -> None:
    save(run.folder / "glass.png", photo(91, 77), transparency(91, 77))
    run.good("transfer", "glass.png", "style.png", *TO, *SMALL, "--strength", "0")
    assert np.array_equal(load(run.folder / "out.png"), load(run.folder / "glass.png"))
    complete, plain = record(run.folder / "out.png"), record(paint(run, "plain.png"))
    assert complete["status"] == "complete"
    assert complete["settings"]["strength"] == 0
    assert complete.keys() == plain.keys()


@pytest.mark.parametrize(
    ("init", "strengths"),
    [("content", ("0", "0.2", "0.5", "0.8")), ("fast", ("0", "0.2", "0.5"))],
)
def test_strength_moves_from_photo_to_style(
    run: Program, init: str, strengths: tuple[str, ...]
) -> None:
    original = load(run.folder / "photo.png").astype(float)
    content = str(TransferSettings().style_weight / 20)  # that ratio, whatever the defaults
    distances = []
    flags = (*UNSMOOTHED_FLAGS, "--content-weight", content)
    for strength in strengths:  # in so few steps one pass goes all the way at 0.5
        out = paint(run, "out.png", *flags, "--init", init, "--strength", strength)
        distances.append(float(np.abs(load(out) - original).mean()))
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert distances[-1] > 1.5 * distances[1]


def test_half_strength_is_the_default(run: Program) -> None:
    half = paint(run, "half.png", "--strength", "0.5")
    assert np.array_equal(load(half), load(paint(run, "default.png")))


@pytest.mark.parametrize(
    ("flag", "value", "stored"),
    [
        ("--size", "50", 50),
        ("--steps", "3", 3),
        ("--strength", "0.75", 0.75),
        ("--content-weight", "0.25", 0.25),
        ("--style-weight", "123", 123.0),
        ("--tv-weight", "2.5", 2.5),
        ("--content-layers", "relu2_2=1,relu3_1=0.5", {"relu2_2": 1.0, "relu3_1": 0.5}),
        ("--style-layers", "relu1_1 = 1, relu2_1", {"relu1_1": 1.0, "relu2_1": 1.0}),
        ("--pooling", "max", "max"),
        ("--padding", "zero", "zero"),
        ("--optimizer", "adam", "adam"),
        ("--init", "noise", "noise"),
        ("--init", "style", "style"),
        ("--init", "start.png", "start.png"),
    ],
)
def test_flag_changes_the_picture(flag: str, value: str, stored: object, run: Program) -> None:
    save(run.folder / "photo.png", photo(60, 48))
    save(run.folder / "start.png", painting(30, 70, seed=5))
    plain, changed = paint(run, "plain.png"), paint(run, "changed.png", flag, value)
    name = flag.removeprefix("--").replace("-", "_")
    assert record(changed)["settings"] == record(plain)["settings"] | {name: stored}
    assert not np.array_equal(load(plain), load(changed))


def test_scales(run: Program) -> None:
    save(run.folder / "photo.png", photo(80, 72))
    flags = ["--size", "80", "--steps", "12"]
    one = paint(run, "1.png", *flags, "--scales", "1")
    two = paint(run, "2.png", *flags, "--scales", "2", "--json", "log")
    assert not np.array_equal(load(one), load(two))
    steps = [line for line in log(run.folder / "log") if line["event"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert {line["scale"] for line in steps} == {1, 2}


def test_explicit_flags_beat_the_preset_which_beats_the_default(
    run: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"tv_weight": 0.5, "pooling": "max", "layers": ("relu1_1",)}
    mine = Preset(summary="", source="", values=changes)
    for module in ("settings", "commands"):
        monkeypatch.setattr(f"impasto.{module}.PRESETS", {**PRESETS, "test": mine})
    settings = record(paint(run, "out.png", "--preset", "test", "--pooling", "avg"))["settings"]
    assert (settings["preset"], settings["tv_weight"], settings["pooling"]) == ("test", 0.5, "avg")
    default = record(paint(run, "default.png", "--preset", "default"))["settings"]
    assert default == record(paint(run, "plain.png"))["settings"]


def test_encoder_by_path(run: Program) -> None:
    mine = run.folder / "mine.safetensors"
    shutil.copy(weights_path("slim"), mine)
    by_name, by_path = paint(run, "a.png"), paint(run, "b.png", "--encoder", mine)
    assert np.array_equal(load(by_name), load(by_path))
    sha256 = hashlib.sha256(mine.read_bytes()).hexdigest()
    assert record(by_path)["encoder"] == {"name": "mine", "sha256": sha256}
    assert record(by_name)["encoder"]["sha256"] == sha256
    assert record(by_name)["encoder"]["name"] in bundled()


@pytest.mark.parametrize("init", ["content", "noise"])
def test_same_seed_same_file(init: str, run: Program) -> None:
    flags = ["--seed", "7", "--init", init]
    first, second = paint(run, "1.png", *flags), paint(run, "2.png", *flags)
    assert first.read_bytes() == second.read_bytes()
    other = paint(run, "3.png", "--seed", "8", "--init", init)
    assert np.array_equal(load(first), load(other)) is (init == "content")


def test_device_precision_and_threads(run: Program) -> None:
    before = torch.get_num_threads()
    for precision in ("float32", "bfloat16"):
        out = paint(run, f"{precision}.png", "--device", "cpu", "--precision", precision)
        found = record(out)
        assert (found["device"], found["dtype"], found["threads"]) == ("cpu", precision, 1)
    assert torch.get_num_threads() == before


def test_device_that_is_not_there(run: Program) -> None:
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    complaint = run.bad("transfer", "photo.png", "style.png", *TO, "--device", missing)
    assert f"there is no {missing} device" in complaint
    assert "use cpu" in complaint


def test_max_megapixels_as_the_message_says(run: Program) -> None:
    save(run.folder / "large.png", photo(1500, 900))
    arguments = ["transfer", "large.png", "style.png", *TO, *SMALL, "--strength", "0"]
    complaint = run.bad(*arguments, "--max-megapixels", "1")
    match = re.search(r"--max-megapixels \d+", complaint)
    assert match
    run.good(*arguments, *match[0].split())


def test_several_styles_blend(run: Program) -> None:
    save(run.folder / "other.png", painting(seed=3))

    def blend(out: str, *styles: str) -> Path:
        named = [text for style in styles for text in ("-s", style)]
        run.good("transfer", "photo.png", *named, "-o", out, *SMALL)
        return run.folder / out

    a, b = blend("a.png", "style.png"), blend("b.png", "other.png")
    both = blend("both.png", "style.png:3", "other.png:1")
    same = blend("same.png", "style.png:0.75", "other.png:0.25")
    assert np.array_equal(load(both), load(same))
    assert not np.array_equal(load(both), load(a))
    assert not np.array_equal(load(both), load(b))
    inputs = record(both)["inputs"]
    assert [(entry["role"], entry["name"]) for entry in inputs] == [
        ("content", "photo.png"),
        ("style", "style.png"),
        ("style", "other.png"),
    ]
    assert [entry["weight"] for entry in inputs[1:]] == [3.0, 1.0]


def test_names_that_look_like_grammar(run: Program) -> None:
    for name in ("photo@2x.png", "a:0.5.png", "sample:x.png"):
        save(run.folder / name, painting(seed=2))
    plain = ["-o", "out.png", *SMALL[2:], "--size", "32"]
    for style, weight in (
        ("photo@2x.png", 1),
        ("a:0.5.png", 1),
        ("a:0.5.png:0.5", 0.5),
        ("./sample:x.png:2", 2),
    ):
        run.good("transfer", "photo.png", "-s", style, *plain)
        (entry,) = [e for e in record(run.folder / "out.png")["inputs"] if e["role"] == "style"]
        assert entry["weight"] == weight
        assert (
            entry["sha256"] == hashlib.sha256((run.folder / "a:0.5.png").read_bytes()).hexdigest()
        )  # all three hold the same picture
    assert "sample" in run.bad("transfer", "photo.png", "sample:x.png", *plain)


# --- what made it


@pytest.mark.parametrize("suffix", SUFFIXES_OUT)
def test_record_is_stored_in_every_format(suffix: str, run: Program) -> None:
    save(run.folder / "begin.png", photo(seed=4))
    out = paint(run, f"out{suffix}", "--seed", "11", "--init", "begin.png", "--json", "log")
    found = record(out)
    assert found["record"] == 1
    assert found["job"] == "transfer"
    assert found["status"] == "complete"
    assert found["settings"].keys() == {f.name for f in dataclasses.fields(TransferSettings)}
    assert found["settings"]["seed"] == 11
    assert found["settings"]["style_weight"] == TransferSettings().style_weight
    assert found["versions"]["impasto"] == impasto.__version__
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"].keys() >= {"numpy", "python"}
    assert found["dtype"] in ("float32", "bfloat16")
    assert found["threads"] == 1
    assert (
        found["encoder"]["sha256"] == hashlib.sha256(weights_path("slim").read_bytes()).hexdigest()
    )
    sums = {(entry["role"], entry["name"]): entry["sha256"] for entry in found["inputs"]}
    assert sums == {
        (role, name): hashlib.sha256((run.folder / name).read_bytes()).hexdigest()
        for role, name in (
            ("content", "photo.png"),
            ("style", "style.png"),
            ("init", "begin.png"),
        )
    }
    assert str(run.folder) not in json.dumps(found)
    assert log(run.folder / "log")[-1]["settings"] == found


def test_record_of_the_other_jobs(run: Program) -> None:
    run.good("texture", "style.png", "-o", "t.png", "--out-size", "40x36", *SMALL[2:])
    run.good("reconstruct", "photo.png", "-o", "r.png", "--layers", "relu1_1", *SMALL)
    for name, job, role in (("t.png", "texture", "style"), ("r.png", "reconstruct", "content")):
        found = record(run.folder / name)
        assert found["job"] == job
        assert found["settings"].keys() == {f.name for f in dataclasses.fields(JOBS[job])}
        assert [entry["role"] for entry in found["inputs"]] == [role]
    assert record(run.folder / "t.png")["settings"]["out_size"] == [40, 36]
    assert record(run.folder / "r.png")["settings"]["layers"] == ["relu1_1"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_no_metadata(suffix: str, run: Program) -> None:
    out = paint(run, f"out{suffix}", "--no-metadata", "--json", "log")
    assert read_record(out) is None
    data = out.read_bytes()
    assert b"photo.png" not in data
    assert b"impasto" not in data
    with_it = paint(run, f"with{suffix}")
    assert np.array_equal(load(out), load(with_it))
    assert log(run.folder / "log")[-1]["settings"] == record(with_it)


def log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_log(run: Program) -> None:
    run.good("transfer", "photo.png", "style.png", *TO, *SMALL, "--json", "log")
    *steps, last = log(run.folder / "log")
    steps = [line for line in steps if line["event"] == "step"]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5]
    for line in steps:
        assert line["loss"] == pytest.approx(sum(line["parts"].values()))
        assert line["parts"].keys() >= {"content", "style"}
    assert [line["seconds"] for line in steps] == sorted(line["seconds"] for line in steps)
    assert last["event"] == "result"
    assert last["output"] == "out.png"
    assert last["partial"] is False
    assert last["settings"] == record(run.folder / "out.png")


def test_log_of_a_sheet_counts_all_layers(run: Program) -> None:
    arguments = ["reconstruct", "photo.png", *TO, "--layers", "relu1_1,relu2_1", "--json", "log"]
    run.good(*arguments, *SMALL)
    first, *steps, last = log(run.folder / "log")
    assert (first["event"], first["output"]) == ("start", "out.png")
    assert [line["step"] for line in steps] == list(range(1, 11))
    assert last["settings"]["steps"] == 10
    assert last["seconds"] >= steps[-1]["seconds"]


def test_preview_has_the_working_size(run: Program) -> None:
    save(run.folder / "photo.png", photo(90, 60))
    paint(run, "out.png", "--preview", "look.png")
    w, h = working_size((90, 60), 40)
    assert load(run.folder / "look.png").shape == (h, w, 3)
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "look.png",
        "out.png",
        "photo.png",
        "style.png",
    ]


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_names_that_are_not_utf8(run: Program) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    save(run.folder / "plain.png", photo())
    try:
        (run.folder / "plain.png").rename(run.folder / name)
    except OSError:
        pytest.skip("this file system takes no such name")
    arguments = ["transfer", name, "style.png", "-o", os.fsdecode(b"\xe9t\xe9.png"), *SMALL]
    done = subprocess.run(
        [*PROGRAM, *arguments, "--json", "log"],
        cwd=run.folder,
        env={**os.environ, "PYTHONPATH": str(SRC), "PYTHONUTF8": "1"},
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0
    assert log(run.folder / "log")[-1]["event"] == "result"


# --- texture and reconstruct


def test_texture(run: Program) -> None:
    done = run.good("texture", "style.png", *TO, "--out-size", "57x35", *SMALL[2:])
    assert load(run.folder / "out.png").shape == (35, 57, 3)
    assert "57×35" in done.out
    run.good("texture", "style.png", "photo.png:0.5", "-o", "b.jpg", "--out-size", "40", *SMALL[2:])
    assert load(run.folder / "b.jpg").shape == (40, 40, 3)


def test_reconstruct(run: Program) -> None:
    save(run.folder / "wide.png", photo(71, 33))
    run.good("reconstruct", "wide.png", "-o", "one.png", "--layers", "relu2_1", *SMALL)
    assert load(run.folder / "one.png").shape == (33, 71, 3)
    run.good("reconstruct", "wide.png", "-o", "two.png", "--layers", "relu1_1,relu2_1", *SMALL)
    height, width, _ = load(run.folder / "two.png").shape
    assert width > 2 * 40
    assert height < width


# --- Ctrl-C


@pytest.mark.skipif(os.name != "posix", reason="SIGINT")
def test_interrupt_leaves_the_best_so_far(run: Program) -> None:
    save(run.folder / "big.png", photo(613, 409))
    arguments = ["transfer", "big.png", "style.png", *TO, "--preview", "look.png"]
    flags = ["--size", "512", "--steps", "5000", "--threads", "1", "--json", "log"]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *arguments, *flags],
        cwd=run.folder,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as work:
        try:
            deadline = time.monotonic() + 120
            while not (run.folder / "look.png").exists():
                assert work.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(0.5)
            work.send_signal(signal.SIGINT)
            out, err = work.communicate(timeout=120)
        finally:
            work.kill()
    assert work.returncode == 130
    assert "Traceback" not in err
    assert out.startswith("out.png")
    assert load(run.folder / "out.png").shape == (409, 613, 3)
    found = record(run.folder / "out.png")
    assert found["status"] == "partial"
    assert 1 <= found["steps"] < 5000
    last = log(run.folder / "log")[-1]
    assert (last["event"], last["partial"]) == ("result", True)


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the third step."""
    watch = Reporter.__call__

    def pressed(self: Reporter, progress: impasto.Progress) -> None:
        watch(self, progress)
        if progress.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Reporter, "__call__", pressed)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    "arguments",
    [
        ["transfer", "photo.png", "style.png", "--size", "40"],
        ["texture", "style.png", "--out-size", "40x32"],
        ["reconstruct", "photo.png", "--layers", "relu2_1", "--size", "40"],
    ],
    ids=lambda value: value[0],
)
def test_interrupt_of_every_job(arguments: list[str], run: Program) -> None:
    before = torch.get_num_threads()
    done = run(*arguments, *TO, "--threads", "1")
    assert done.code == 130
    assert load(run.folder / "out.png").shape == (32, 40, 3)
    found = record(run.folder / "out.png")
    assert (found["status"], found["steps"]) == ("partial", 3)
    assert "stopped early" in done.out
    assert torch.get_num_threads() == before


def test_interrupt_before_the_first_step_writes_nothing(
    run: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("impasto.jobs.transfer.Bench", pressed)
    done = run("transfer", "photo.png", "style.png", *TO, *SMALL)
    assert done.code == 130
    assert not (run.folder / "out.png").exists()


# --- files that are there already


def test_foreign_file_is_left_alone(run: Program) -> None:
    save(run.folder / "out.png", painting(seed=9))
    before = (run.folder / "out.png").read_bytes()
    arguments = ["transfer", "photo.png", "style.png", *TO, *SMALL]
    complaint = run.bad(*arguments)
    assert "--overwrite" in complaint
    assert (run.folder / "out.png").read_bytes() == before
    run.good(*arguments, "--overwrite")
    assert record(run.folder / "out.png")["job"] == "transfer"
    run.good(*arguments)  # ours: replaced without asking
    for job, picture in (("texture", "style.png"), ("reconstruct", "photo.png")):
        save(run.folder / "other.png", painting(seed=9))
        assert "--overwrite" in run.bad(job, picture, "-o", "other.png", *SMALL[2:])
        assert (run.folder / "other.png").read_bytes() == before


def test_failure_leaves_the_old_file(run: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    out = paint(run, "out.png")
    before = out.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    done = run("transfer", "photo.png", "style.png", *TO, *SMALL, "--seed", "5")
    assert done.code == 2
    assert "disk is full" in done.err
    assert out.read_bytes() == before


def test_foreign_files_are_not_taken_for_log_or_preview(run: Program) -> None:
    for name, flag in (("mine.png", "--preview"), ("mine.txt", "--json")):
        mine = run.folder / name
        if flag == "--preview":
            save(mine, photo())
        else:
            mine.write_text("dear diary")
        before = mine.read_bytes()
        message = run.bad("transfer", "photo.png", "style.png", *TO, *SMALL, flag, name)
        assert "overwrite" in message
        assert mine.read_bytes() == before
        run.good("transfer", "photo.png", "style.png", *TO, *SMALL, flag, name, "--overwrite")
        run.good("transfer", "photo.png", "style.png", *TO, *SMALL, flag, name)  # ours by now


def test_log_cannot_be_the_result_under_another_spelling(run: Program) -> None:
    (run.folder / "sub").mkdir()
    run.bad("transfer", "photo.png", "style.png", *TO, *SMALL, "--json", "sub/../out.png")


def test_interrupt_while_saving_still_saves(run: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupted_once(*given: object, **options: object) -> list[str]:
        calls.append(given)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return images.save_image(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("impasto.progress.save_image", interrupted_once)
    code = run("transfer", "photo.png", "style.png", *TO, *SMALL).code
    assert code == 130
    assert record(run.folder / "out.png")["status"] == "complete"


def test_nobody_reads_the_output(run: Program) -> None:
    command = f"{sys.executable} -m impasto transfer photo.png style.png -o out.png --size 48"
    done = subprocess.run(
        ["bash", "-c", f"{command} --steps 3 -q >&-; echo $?; {command} --steps 3 | true; "
         "echo ${PIPESTATUS[0]}"],
        cwd=run.folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "0"]
    assert "Traceback" not in done.stderr


def test_a_missing_photo_among_several_is_reported_and_the_rest_painted(run: Program) -> None:
    arguments = ["transfer", "photo.png", "missing.png", "-s", "style.png", "-o", "out/", *SMALL]
    done = run(*arguments)
    assert done.code == 2
    assert "cannot read missing.png: no such file" in done.err
    assert (run.folder / "out" / "photo.png").exists()
