"""Animations painted frame by frame, with a network of random weights given by its path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import impasto
import pictures
from impasto.animation import Animation, open_animation, save_animation
from impasto.foreign import Weights, write_weights
from impasto.images import Picture
from impasto.jobs.frames import AnimatedResult, iter_frames
from impasto.jobs.redo import redo
from impasto.jobs.transfer import Painter
from impasto.progress import Progress, drive
from impasto.records import read_settings
from impasto.terminal import Reporter
from pictures import Array, Program, photo, save
from test_fast import about, network

NET = ("--encoder", "net.safetensors")
FAST = ("--method", "fast", *NET, "--threads", "1")
STYLE = ("-s", "style.png")
DURATIONS = (50, 120, 70, 400)


@pytest.fixture
def here(run: Program) -> Program:
    """The program in a folder with a network and `anim.png`, `anim.gif` and `anim.webp`."""
    net = network()
    state = {name: value for name, value in net.state_dict().items() if name != "noise"}
    write_weights(run.folder / "net.safetensors", Weights(state, about(net)))
    for suffix in ("png", "gif", "webp"):
        save_animation(moving(), run.folder / f"anim.{suffix}")
    return run


def moving(alpha: Array | None = None) -> Animation:
    frames = [Picture(photo(40, 32, seed), alpha) for seed in range(4)]
    return Animation(frames, DURATIONS, 3)


def frames(path: Path | str) -> list[Picture]:
    return list(open_animation(path).frames)


def record(path: Path | str) -> dict[str, Any]:
    found = read_settings(Path(path))
    assert found
    return found


def same(a: list[Picture], b: list[Picture]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(one.pixels, other.pixels) for one, other in zip(a, b, strict=True)
    )


def pressed_after(monkeypatch: pytest.MonkeyPatch, frame: int) -> None:
    """Ctrl-C at the first step of a frame."""
    watch = Reporter.__call__

    def pressed(self: Reporter, progress: Progress) -> None:
        watch(self, progress)
        if progress.frame and progress.frame[0] == frame:
            raise KeyboardInterrupt

    monkeypatch.setattr(Reporter, "__call__", pressed)


# --- one animation


@pytest.mark.parametrize("form", ["gif", "webp", "png"])
def test_all_frames_are_painted(here: Program, form: str) -> None:
    told = here.good("transfer", f"anim.{form}", *STYLE, "-o", f"out.{form}", *FAST)
    assert "(40×32 px, 4 frames," in told.out
    assert told.err == f"painting anim.{form}\n"
    made, given = open_animation(f"out.{form}"), open_animation(f"anim.{form}")
    assert made.durations == given.durations == DURATIONS
    assert made.loops == given.loops == 3
    painted = list(made.frames)
    assert {picture.size for picture in painted} == {(40, 32)}
    assert not same(painted, frames(f"anim.{form}"))


def test_each_frame_is_what_a_still_picture_would_be(here: Program) -> None:
    here.good("transfer", "anim.png", *STYLE, "-o", "out.png", *FAST)
    for number, (made, given) in enumerate(zip(frames("out.png"), frames("anim.png"), strict=True)):
        save(here.folder / f"{number}.png", given.pixels)
        here.good("transfer", f"{number}.png", *STYLE, "-o", "still.png", *FAST, "--overwrite")
        assert np.array_equal(pictures.load(here.folder / "still.png"), made.pixels)


@pytest.mark.parametrize("out", ["out.gif", "out.webp", "out.png"])
def test_from_one_kind_to_another(here: Program, out: str) -> None:
    here.good("transfer", "anim.webp", *STYLE, "-o", out, *FAST)
    assert open_animation(out).durations == DURATIONS
    assert open_animation(out).loops == 3


def test_the_record(here: Program) -> None:
    for out in ("out.gif", "out.webp", "out.png"):
        here.good("transfer", "anim.gif", *STYLE, "-o", out, *FAST)
        found = record(out)
        assert found["frames"] == 4
        assert found["status"] == "complete"
        assert found["settings"]["method"] == "fast"
        assert found["inputs"][0] == {
            "role": "content",
            "name": "anim.gif",
            "sha256": open_animation("anim.gif").first.sha256,
        }
        here.good("transfer", "anim.gif", *STYLE, "-o", out, *FAST)  # one of ours is replaced
    here.good("transfer", "anim.gif", *STYLE, "-o", "none.gif", *FAST, "--no-metadata")
    assert read_settings(here.folder / "none.gif") is None


def test_no_strength_gives_the_frames_back(here: Program) -> None:
    told = here.good("transfer", "anim.png", *STYLE, "-o", "out.png", *FAST, "--strength", "0")
    assert "strength 0" in told.err
    assert same(frames("out.png"), frames("anim.png"))
    assert open_animation("out.png").durations == DURATIONS
    assert record("out.png")["frames"] == 4


def test_transparency_stays(here: Program) -> None:
    alpha = pictures.transparency()
    save_animation(moving(alpha), here.folder / "clear.png")
    for suffix in ("png", "webp", "gif"):
        told = here.good("transfer", "clear.png", *STYLE, "-o", f"out.{suffix}", *FAST)
        assert ("half transparency" in told.err) == (suffix == "gif")
        kept = np.where(alpha < 128, 0, 255) if suffix == "gif" else alpha
        for picture in frames(f"out.{suffix}"):
            assert picture.alpha is not None
            assert np.array_equal(picture.alpha, kept)


def test_controls_are_those_of_pictures(here: Program) -> None:
    save(here.folder / "second.png", pictures.painting(40, 56, seed=5))
    left = np.zeros((32, 40, 3), np.uint8)
    left[:, :20] = 255
    save(here.folder / "left.png", left)
    for flags in (
        (*STYLE, "-s", "second.png:0.3", "--colors", "luminance"),
        ("-s", "style.png@left.png", "-s", "second.png", "--strength", "0.8", "--size", "32"),
        (*STYLE, "--protect", "left.png"),
    ):
        here.good("transfer", "anim.png", "-o", "out.png", *FAST, "--overwrite", *flags)
        here.good("redo", "out.png", "-o", "again.png", *NET, "--overwrite")
        assert same(frames("again.png"), frames("out.png"))
    for made, given in zip(frames("out.png"), frames("anim.png"), strict=True):
        assert np.array_equal(made.pixels[:, :20], given.pixels[:, :20])


# --- where not all frames are painted


@pytest.mark.parametrize("out", ["out.jpg", "out.tif"])
def test_what_holds_no_animation_gets_the_first_frame(here: Program, out: str) -> None:
    told = here.good("transfer", "anim.png", *STYLE, "-o", out, *FAST)
    (note,) = [line for line in told.err.splitlines() if "animated" in line]
    assert note == (
        "anim.png is animated; its first frame is painted "
        "(--method fast, and .gif, .webp or .png as OUT, paint them all)"
    )
    assert "frames" not in record(out)
    assert pictures.load(here.folder / out).shape == (32, 40, 3)


def test_the_optimiser_paints_the_first_frame(here: Program) -> None:
    told = here.good("transfer", "anim.webp", *STYLE, "-o", "out.png", *pictures.SMALL)
    assert "anim.webp is animated; its first frame is painted" in told.err
    assert len(frames("out.png")) == 1
    line = here.bad("transfer", "anim.webp", *STYLE, "-o", "out.gif", *pictures.SMALL)
    assert "anim.webp is animated: add --method fast" in line


def test_a_still_picture_becomes_a_gif_of_one_frame(here: Program) -> None:
    Image.fromarray(photo()).save(here.folder / "still.gif")
    for name in ("photo.png", "still.gif"):
        here.good("transfer", name, *STYLE, "-o", "out.gif", *FAST, "--overwrite")
        assert len(open_animation(here.folder / "out.gif").durations) == 1
    told = here.good("transfer", "still.gif", *STYLE, "-o", "out/", *FAST)
    assert "animated" not in told.err
    assert [path.name for path in (here.folder / "out").iterdir()] == ["still.png"]


@pytest.mark.parametrize(
    "flags", [("--film", "f.gif"), ("--save-every", "2"), ("--plot", "p.png")], ids=" ".join
)
def test_what_shows_a_single_picture_is_refused(here: Program, flags: tuple[str, ...]) -> None:
    for command in (
        ("transfer", "anim.gif", *STYLE, "-o", "out.gif", *FAST),
        ("redo", "made.gif", "-o", "out.gif", *NET),
    ):
        if command[0] == "redo":
            here.good("transfer", "anim.gif", *STYLE, "-o", "made.gif", *FAST)
        line = here.bad(*command, *flags)
        assert f"{flags[0]} shows how one picture comes to be; leave it out" in line
        assert not (here.folder / "out.gif").exists()


# --- beside the result


def test_progress_counts_all_frames(here: Program) -> None:
    here.good(
        "transfer", "anim.gif", *STYLE, "-o", "o.gif", *FAST, "--json", "l", "--preview", "p.png"
    )
    lines = [json.loads(line) for line in Path("l").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    assert sorted({line["frame"] for line in steps}) == [1, 2, 3, 4]
    assert lines[-1]["event"] == "result"
    assert lines[-1]["settings"] == record("o.gif")
    assert lines[-1]["settings"]["steps"] == len(steps)
    assert pictures.load(here.folder / "p.png").shape == (32, 40, 3)


def test_lines_of_progress(here: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impasto.terminal.LINE_EVERY", 0)
    monkeypatch.setattr(Reporter.__init__, "__kwdefaults__", {"every": 0})
    told = here.good("transfer", "anim.gif", *STYLE, "-o", "o.gif", *FAST)
    lines = told.err.splitlines()
    assert lines[0] == "painting anim.gif"
    assert lines[1].startswith("  frame 1/4 · 40×32 · ")
    assert lines[-1] == "  frame 4/4 · 40×32 · finishing"


# --- stopped


@pytest.mark.parametrize("form", ["gif", "webp", "png"])
def test_ctrl_c_keeps_the_frames_that_are_done(
    here: Program, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    command = ("transfer", "anim.png", *STYLE, "-o", f"out.{form}", *FAST)
    here.good(*command)
    whole = frames(f"out.{form}")
    with monkeypatch.context() as patch:
        pressed_after(patch, 4)
        stopped = here(*command, "--overwrite")
    assert stopped.code == 130
    assert "3 frames, stopped early" in stopped.out
    made = open_animation(f"out.{form}")
    assert made.durations == DURATIONS[:3]
    assert made.loops == 3
    if form == "png":
        assert same(list(made.frames), whole[:3])
    assert record(f"out.{form}")["status"] == "partial"
    assert record(f"out.{form}")["frames"] == 3
    here.good("redo", f"out.{form}", "-o", f"again.{form}", *NET)
    assert Path(f"again.{form}").read_bytes() == Path(f"out.{form}").read_bytes()


def test_ctrl_c_between_two_frames(here: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    paint, begun = Painter.iter, 0

    def pressed(self: Painter, content: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun == 3:
            raise KeyboardInterrupt
        return paint(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Painter, "iter", pressed)
        assert here("transfer", "anim.gif", *STYLE, "-o", "out.png", *FAST).code == 130
    assert open_animation("out.png").durations == DURATIONS[:2]
    here.good("transfer", "anim.gif", *STYLE, "-o", "whole.png", *FAST)
    assert same(frames("out.png"), frames("whole.png")[:2])
    here.good("redo", "out.png", "-o", "again.png", *NET)
    assert Path("again.png").read_bytes() == Path("out.png").read_bytes()


def test_ctrl_c_before_a_frame_is_done(here: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        pressed_after(patch, 1)
        assert here("transfer", "anim.gif", *STYLE, "-o", "out.gif", *FAST).code == 130
    assert len(frames("out.gif")) == 1
    assert record("out.gif")["status"] == "partial"


# --- folders


def test_a_folder(here: Program) -> None:
    folder = here.folder / "photos"
    folder.mkdir()
    for name in ("a.gif", "b.webp", "c.png"):
        (here.folder / f"anim{name[1:]}").rename(folder / name)
    save(folder / "still.png", photo(33, 20))
    (folder / "cut.gif").write_bytes((folder / "a.gif").read_bytes()[:-150])
    (folder / "broken.gif").write_bytes(b"GIF89a and no more")
    (folder / "nothing.webp").write_bytes(b"nothing")
    batch = ("transfer", "photos", *STYLE, "-o", "out/", *FAST)
    done = here(*batch)
    assert done.code == 2
    complaints = [line for line in done.err.splitlines() if line.startswith("impasto: ")]
    assert [line.split(":")[1].split("/")[1] for line in complaints] == [
        "broken.gif",
        "cut.gif",
        "nothing.webp",
    ]
    assert "4 painted, 3 failed" in done.err
    names = ["a.gif", "b.webp", "c.png", "still.png"]
    assert sorted(path.name for path in (here.folder / "out").iterdir()) == names
    assert [len(frames(here.folder / "out" / name)) for name in names] == [4, 4, 4, 1]
    before = {path: path.read_bytes() for path in (here.folder / "out").iterdir()}
    again = here(*batch)
    assert "4 skipped, 3 failed" in again.err
    assert {path: path.read_bytes() for path in (here.folder / "out").iterdir()} == before
    other = here(*batch, "--strength", "0.9")
    assert "4 left, 3 failed" in other.err
    assert {path: path.read_bytes() for path in (here.folder / "out").iterdir()} == before


def test_format_in_a_folder(here: Program) -> None:
    here.good("transfer", "anim.gif", *STYLE, "-o", "a/", *FAST, "--format", "WEBP")
    assert open_animation("a/anim.webp").durations == DURATIONS
    here.good("transfer", "anim.webp", *STYLE, "-o", "b/", *FAST, "--format", "gif")
    assert open_animation("b/anim.gif").durations == DURATIONS
    told = here.good("transfer", "anim.gif", *STYLE, "-o", "c/", *FAST, "--format", "jpg")
    assert "its first frame is painted" in told.err
    assert pictures.load(here.folder / "c" / "anim.jpg").shape == (32, 40, 3)
    pictures.save(here.folder / "still.jpg", photo())
    told = here("transfer", "anim.gif", "still.jpg", *STYLE, "-o", "e/", *FAST, "--format", "gif")
    assert told.code == 2
    assert "it is no GIF, WebP or PNG; for a still picture give OUT another suffix" in told.err
    assert [path.name for path in (here.folder / "e").iterdir()] == ["anim.gif"]
    line = here.bad("transfer", "anim.gif", *STYLE, "-o", "d/", "--format", "gif")
    assert "the format is 'gif'; it can be png" in line
    assert not (here.folder / "d").exists()


def test_a_partial_animation_is_done_again(here: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ("transfer", "anim.gif", *STYLE, "-o", "out/", *FAST)
    with monkeypatch.context() as patch:
        pressed_after(patch, 3)
        assert here(*batch).code == 130
    assert len(frames("out/anim.gif")) == 2
    assert "1 painted" in here.good(*batch).err
    assert len(frames("out/anim.gif")) == 4
    assert "1 skipped" in here.good(*batch).err


def test_a_picture_of_the_first_frame_is_another_result(here: Program) -> None:
    """As an earlier version of impasto left it."""
    batch = ("transfer", "anim.png", *STYLE, "-o", "out/", *FAST)
    here.good(*batch)
    found = record("out/anim.png")
    del found["frames"]
    first = frames("out/anim.png")[0]
    impasto.save_image(first, here.folder / "out" / "anim.png", record=json.dumps(found))
    assert "1 left" in here.good(*batch).err


def test_results_are_not_the_photos(here: Program) -> None:
    before = Path("anim.gif").read_bytes()
    line = here.bad("transfer", "anim.gif", *STYLE, "-o", "./", *FAST, "--overwrite")
    assert "anim.gif is an input too" in line
    assert Path("anim.gif").read_bytes() == before


# --- what is wrong is said before the work


def test_a_later_frame_that_cannot_be_read(here: Program) -> None:
    data = Path("anim.gif").read_bytes()
    Path("cut.gif").write_bytes(data[:-200])
    line = here.bad("transfer", "cut.gif", *STYLE, "-o", "out.gif", *FAST)
    assert "cannot read cut.gif: the file is truncated or damaged" in line
    assert not Path("out.gif").exists()


def test_the_limit_is_for_all_frames(here: Program) -> None:
    flags = (*STYLE, "-o", "out.gif", *FAST, "--max-megapixels")
    line = here.bad("transfer", "anim.gif", *flags, "0.005")
    assert "its frames of 40 × 32 px have more than" in line
    assert "--max-megapixels N" in line
    here.good("transfer", "anim.gif", *flags, "0.0052")


def test_other_files_are_not_replaced(here: Program) -> None:
    Path("out.gif").write_bytes(Path("anim.gif").read_bytes())
    line = here.bad("transfer", "anim.webp", *STYLE, "-o", "out.gif", *FAST)
    assert "out.gif is there and has no record of impasto's in it" in line


# --- redo


@pytest.mark.parametrize("form", ["gif", "webp", "png"])
def test_redo_paints_all_frames_again(here: Program, form: str) -> None:
    here.good("transfer", "anim.webp", *STYLE, "-o", f"out.{form}", *FAST)
    here.good("redo", f"out.{form}", "-o", f"again.{form}", *NET)
    assert Path(f"again.{form}").read_bytes() == Path(f"out.{form}").read_bytes()
    result = redo(f"out.{form}", encoder="net.safetensors")
    assert isinstance(result, AnimatedResult)
    assert result.animation.durations == DURATIONS


def test_redo_of_an_animation_is_one(here: Program) -> None:
    here.good("transfer", "anim.webp", *STYLE, "-o", "out.gif", *FAST)
    line = here.bad("redo", "out.gif", "-o", "again.jpg", *NET)
    assert "use one of .gif, .webp, .png" in line
    Path("anim.webp").unlink()
    line = here.bad("redo", "out.gif", "-o", "again.gif", *NET)
    assert "cannot find the content picture anim.webp" in line
    line = here.bad("redo", "out.gif", "-o", "again.gif", *NET, "--content", "anim.gif")
    assert "anim.gif is not the content picture" in line


# --- the library


def test_the_library(here: Program) -> None:
    painter = Painter("style.png", method="fast", encoder="net.safetensors", threads=1)
    given = open_animation("anim.png")
    steps: list[Progress] = []
    partial: list[AnimatedResult] = []

    def watch(progress: Progress) -> None:
        steps.append(progress)
        result = progress.result()
        assert isinstance(result, AnimatedResult)
        partial.append(result)

    result = drive(iter_frames(painter, given), watch)
    assert isinstance(result, AnimatedResult)
    assert [step.frame for step in steps[:1] + steps[-1:]] == [(1, 4), (4, 4)]
    shares = [step.done for step in steps]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert [step.step for step in steps] == list(range(1, len(steps) + 1))
    assert {step.steps for step in steps} == {len(steps)}
    assert all(step.picture().size == (40, 32) for step in steps)
    assert {each.partial for each in partial} == {True}
    assert {each.settings["status"] for each in partial} == {"partial"}
    assert [len(each.animation.durations) for each in partial] == sorted(
        len(each.animation.durations) for each in partial
    )
    assert not result.partial
    assert result.settings["frames"] == 4
    assert np.array_equal(result.image.pixels, result.animation.first.pixels)
    assert result.animation.durations == given.durations
    assert result.animation.loops == given.loops
    result.save("out.png")
    assert same(frames("out.png"), list(result.animation.frames))


def test_the_optimiser_can_paint_frames_too(here: Program) -> None:
    painter = Painter("style.png", size=32, steps=3, threads=1)
    given = Animation([Picture(photo(40, 32, seed)) for seed in (1, 2)], (50, 60))
    result = drive(iter_frames(painter, given))
    assert isinstance(result, AnimatedResult)
    assert result.settings["steps"] == 6
    assert [entry["frame"] for entry in result.history] == [1, 1, 1, 2, 2, 2]
    still = drive(painter.iter(given.first))
    assert np.array_equal(still.image.pixels, result.image.pixels)
