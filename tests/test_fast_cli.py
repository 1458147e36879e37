"""`impasto transfer --method fast`, with a network of random weights given by its path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import impasto
import pictures
from impasto.fast.network import padded
from impasto.fast.style import FastStyle
from impasto.foreign import Weights, write_weights
from impasto.images import Picture
from impasto.progress import Progress
from impasto.records import read_settings
from pictures import Program
from test_fast import about, network, smooth

FAST = ("--method", "fast", "--encoder", "net.safetensors", "--threads", "1")


@pytest.fixture
def here(run: Program) -> Program:
    """The program in a folder with a network, a second style and masks."""
    net = network()
    state = {name: value for name, value in net.state_dict().items() if name != "noise"}
    write_weights(run.folder / "net.safetensors", Weights(state, about(net)))
    pictures.save(run.folder / "second.png", pictures.painting(40, 56, seed=5))
    left = np.zeros((32, 40, 3), np.uint8)
    left[:, :20] = 255
    pictures.save(run.folder / "left.png", left)
    return run


def test_a_photo_is_painted_recorded_and_redone(here: Program) -> None:
    told = here.good("transfer", "photo.png", "-s", "style.png", "-o", "a.png", *FAST)
    assert "loss" not in told.err
    made = pictures.load(here.folder / "a.png")
    assert made.shape == pictures.load(here.folder / "photo.png").shape
    fast = FastStyle.load(here.folder / "net.safetensors")
    photo, style = (impasto.open_image(here.folder / f"{name}.png") for name in ("photo", "style"))
    expected = fast.stylize(photo, fast.style(style, size=40))
    assert np.abs(made.astype(int) - expected.pixels).max() <= 1
    record = read_settings(here.folder / "a.png")
    assert record
    assert record["settings"]["method"] == "fast"
    assert record["encoder"] == {"name": "net", "sha256": fast.sha256}
    here.good("redo", "a.png", "-o", "b.png", "--encoder", "net.safetensors")
    assert np.array_equal(pictures.load(here.folder / "b.png"), made)


def test_controls_are_those_of_the_optimiser(here: Program) -> None:
    photo = pictures.load(here.folder / "photo.png")

    def made(*flags: str) -> pictures.Array:
        here.good("transfer", "photo.png", "-o", "o.png", "--overwrite", *flags, *FAST)
        here.good("redo", "o.png", "-o", "r.png", "--encoder", "net.safetensors", "--overwrite")
        found = pictures.load(here.folder / "o.png")
        assert np.array_equal(found, pictures.load(here.folder / "r.png"))
        return found

    plain = made("-s", "style.png")
    assert np.array_equal(made("-s", "style.png", "--strength", "0"), photo)
    for flags in (
        ("-s", "style.png", "--strength", "0.2"),
        ("-s", "style.png", "--strength", "0.9"),
        ("-s", "style.png:0.7", "-s", "second.png:0.3"),
        ("-s", "style.png@left.png", "-s", "second.png"),
        ("-s", "style.png", "--coarse-from", "second.png"),
        ("-s", "style.png", "--style-scale", "0.5"),
        ("-s", "style.png", "--size", "32"),
        ("-s", "style.png", "--regions", "left.png", "--style-regions", "left.png"),
        *(("-s", "style.png", "--colors", c) for c in ("content", "luminance", "linear")),
    ):
        assert not np.array_equal(made(*flags), plain), flags
    kept = made("-s", "style.png", "--protect", "left.png")
    assert np.array_equal(kept[:, :20], photo[:, :20])
    halves = made("-s", "style.png@left.png")
    change = np.abs(halves.astype(int) - photo).mean((0, 2))
    assert change[:16].mean() > change[-8:].mean()


def test_a_batch_goes_on_after_a_broken_file(here: Program) -> None:
    folder = here.folder / "photos"
    folder.mkdir()
    for seed, size in enumerate(((33, 20), (1, 1), (50, 41))):
        pictures.save(folder / f"{seed}.png", pictures.photo(*size, seed))
    (folder / "broken.png").write_bytes(b"nothing")
    done = here("transfer", "photos", "-s", "style.png", "-o", "out/", *FAST)
    assert done.code == 2
    assert "broken.png" in done.err
    for seed, size in enumerate(((33, 20), (1, 1), (50, 41))):
        assert pictures.load(here.folder / "out" / f"{seed}.png").shape[:2] == size[::-1]
    again = here("transfer", "photos", "-s", "style.png", "-o", "out/", *FAST)
    assert "3 skipped" in again.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--steps", "9"), "method fast has no steps"),
        (("--preset", "gatys"), "method fast has no preset"),
        (("--tv-weight", "1"), "method fast has no tv-weight"),
        (("--strength", "2"), "strength is 2"),
        (("--encoder", "slim"), "holds no network that paints in one pass"),
        (("--encoder", "missing.safetensors"), "there is no weight file"),
        (("--method", "quick"), "method is 'quick'; it can be optimize, fast"),
    ],
)
def test_what_cannot_be(here: Program, flags: tuple[str, ...], message: str) -> None:
    told = here.bad("transfer", "photo.png", "-s", "style.png", "-o", "o.png", *FAST, *flags)
    assert message in told
    assert not (here.folder / "o.png").exists()


def test_without_a_network_one_is_asked_for(here: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impasto.fast.style.bundled", dict)
    told = here.bad("transfer", "photo.png", "-s", "style.png", "-o", "o.png", "--method", "fast")
    assert "with --encoder PATH" in told


def test_a_network_that_paints_does_not_look(here: Program) -> None:
    told = here.bad(
        "transfer", "photo.png", "-s", "style.png", "-o", "o.png", "--encoder", "net.safetensors"
    )
    assert "net paints in one pass" in told


def test_a_grid_is_painted_in_one_pass_each(here: Program) -> None:
    told = here.good(
        "grid", "photo.png", "-s", "style.png", "-s", "second.png", "-o", "s.png", *FAST
    )
    assert "2 painted" in told.err
    again = here.good(
        "grid", "photo.png", "-s", "style.png", "-s", "second.png", "-o", "s.png", *FAST
    )
    assert "2 there already" in again.err


def test_steps_are_logged_as_json(here: Program) -> None:
    here.good("transfer", "photo.png", "-s", "style.png", "-o", "o.png", "--json", "l.jsonl", *FAST)
    lines = [json.loads(line) for line in Path(here.folder / "l.jsonl").read_text().splitlines()]
    assert lines
    assert all(line.get("loss") is None for line in lines)


def test_the_library_paints_in_one_pass(here: Program) -> None:
    steps: list[Progress] = []
    result = impasto.transfer(
        Picture(pictures.photo(70, 50)),
        Picture(pictures.painting(64, 64)),
        method="fast",
        encoder=str(here.folder / "net.safetensors"),
        on_progress=steps.append,
    )
    assert result.image.size == (70, 50)
    assert steps[-1].done == pytest.approx(1)
    assert steps[-1].loss is None
    assert result.settings["loss"] is None
    assert steps[0].result().settings["status"] == "partial"


def test_the_network_is_exported_for_any_size(here: Program) -> None:
    import onnxruntime

    told = here.good("export", "net.onnx", "--encoder", "net.safetensors")
    assert "from torch" in told.out
    assert not told.err.replace("exporting to net.onnx\n", "")
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    fast = FastStyle.load("net.safetensors")
    for size in ((32, 48), (33, 50), (7, 130)):
        photo, style = smooth(*size), smooth(64, 48, seed=3)
        (found,) = session.run(None, {"photo": photo.numpy(), "style": style.numpy()})
        code = fast.network.style(*padded(style))
        expected = fast.stylize(photo, code)
        assert found.shape == photo.shape
        assert np.abs(found - expected.numpy()).max() < 1e-3
    few = {"photo": smooth(3, 2).numpy(), "style": smooth(2, 4, seed=3).numpy()}  # one position
    expected = fast.stylize(smooth(3, 2), fast.network.style(*padded(smooth(2, 4, seed=3))))
    assert np.abs(session.run(None, few)[0] - expected.numpy()).max() < 1e-3
    assert "net.onnx is there" in here.bad("export", "net.onnx", "--encoder", "net.safetensors")
    assert "has to end in .onnx" in here.bad("export", "net.png")
    assert "holds no network that paints" in here.bad("export", "b.onnx", "--encoder", "slim")
