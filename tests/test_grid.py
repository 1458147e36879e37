"""`impasto grid` and `impasto recolor`, and transfers with masks: what is made, told and redone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import impasto
import pictures
from impasto.commands_grid import parse_vary
from impasto.errors import SettingsError
from impasto.flags import FLAGS
from impasto.images import open_image, read_record
from impasto.jobs.grid import plan_grid
from impasto.terminal import Reporter
from pictures import SMALL, Program, load
from test_cli import TORCH_LOADED, process

QUICK = ("--size", "40", "--steps", "2", "--threads", "1")


@pytest.fixture
def here(run: Program) -> Program:
    """Two photos, two styles and a mask, white on the left."""
    pictures.save(run.folder / "other.png", pictures.photo(48, 32))
    pictures.save(run.folder / "second.png", pictures.painting(48, 48, seed=2))
    mask = np.zeros((32, 40, 3), np.uint8)
    mask[:, :20] = 255
    pictures.save(run.folder / "left.png", mask)
    return run


def cells(run: Program) -> list[str]:
    return sorted(path.name for path in (run.folder / "sheet-cells").iterdir())


# --- the plan -------------------------------------------------------------------------------------


def test_the_last_axis_goes_across_and_the_others_down() -> None:
    vary: dict[str, Any] = {"strength": [0.2, 0.8], "colors": ["style", "content", "linear"]}
    plan = plan_grid("transfer", ["a.png"], ["s.png", "t.png"], vary, {"steps": 3})
    assert [axis.name for axis in plan.axes] == ["style", "strength", "colors"]
    assert plan.columns.labels == ("colors style", "colors content", "colors linear")
    assert [(cell.row, cell.column) for cell in plan.cells] == [
        (row, column) for row in range(4) for column in range(3)
    ]
    last = plan.cells[-1]
    assert (last.photo, last.style) == ("a.png", "t.png")
    assert last.options == {"steps": 3, "strength": 0.8, "colors": "linear"}
    assert last.name == "t.png-strength=0.8-colors=linear"
    assert len({cell.name for cell in plan.cells}) == 12


def test_one_value_sets_and_is_no_axis() -> None:
    plan = plan_grid("texture", [], ["s.png"], {"out_size": [(40, 30)], "seed": [1, 2]}, {})
    assert [axis.name for axis in plan.axes] == ["seed"]
    assert all(cell.options["out_size"] == (40, 30) for cell in plan.cells)
    alone = plan_grid("texture", [], ["s.png"], {}, {})
    assert [cell.name for cell in alone.cells] == ["texture"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("transfer", [], ["s"], {}, {}), "a grid of transfer needs at least one photo"),
        (("texture", ["a"], ["s"], {}, {}), "a grid of texture takes no photo"),
        (("reconstruct", ["a"], ["s"], {}, {}), "a grid of reconstruct takes no style"),
        (("paint", ["a"], ["s"], {}, {}), "job is 'paint'"),
        (
            ("transfer", ["a"], ["s"], {"seed": [1, 2]}, {"seed": 3}),
            "seed is given, and varies too",
        ),
        (("transfer", ["a"], ["s"], {"seed": []}, {}), "over no values"),
        (("transfer", ["a"], ["s"], {"seed": range(2000)}, {}), "2000 pictures, more than 1000"),
        (("transfer", ["a"], ["s"], {"strength": [0.1, 7]}, {}), "strength is 7"),
        (("texture", [], ["s"], {"strength": [0.1]}, {}), "no option 'strength'"),
    ],
)
def test_a_plan_that_makes_no_sense(arguments: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        plan_grid(*arguments)


def test_values_are_read_as_flags_are() -> None:
    parsers = {name: flag.parse or flag.type for name, flag in FLAGS.items()}
    found = parse_vary(
        ["strength=0.3, 0.6", "--content-layers=relu2_2,relu3_1=2+relu4_1", "size=full,64"], parsers
    )
    assert found == {
        "strength": [0.3, 0.6],
        "content_layers": ["relu2_2", "relu3_1=2,relu4_1"],
        "size": ["full", 64],
    }
    for text, message in (
        ("strength", "write strength=0.3,0.6,0.9"),
        ("strength=", "write strength=0.3,0.6,0.9"),
        ("strenth=1", "no setting 'strenth' to vary"),
        ("steps=1,few", "'few' is no value of steps"),
    ):
        with pytest.raises(SettingsError, match=message):
            parse_vary([text], parsers)
    with pytest.raises(SettingsError, match="varies twice"):
        parse_vary(["seed=1", "seed=2"], parsers)


# --- the command ----------------------------------------------------------------------------------


def test_a_sheet_of_photos_and_styles(here: Program) -> None:
    done = here.good("grid", "photo.png", "other.png", "-s", "style.png", "-s", "second.png",
                     "-o", "sheet.png", *QUICK)  # fmt: skip
    assert done.out.splitlines()[-1] == "sheet.png  (sheet; its pictures are in sheet-cells)"
    assert "4 painted" in done.err
    assert cells(here) == [
        "other-second.png", "other-style.png", "photo-second.png", "photo-style.png"
    ]  # fmt: skip
    assert load(here.folder / "sheet-cells" / "other-style.png").shape == (32, 48, 3)
    sheet = load(here.folder / "sheet.png")
    head = load(here.folder / "style.png")
    found = [
        (y, x)
        for y in range(sheet.shape[0] - 47)
        for x in range(sheet.shape[1] - 47)
        if np.array_equal(sheet[y, x : x + 48], head[0])
        and np.array_equal(sheet[y : y + 48, x : x + 48], head)
    ]
    assert len(found) == 1  # the style stands at the head of its column
    again = here.good("redo", "sheet-cells/photo-style.png", "-o", "again.png")
    assert again.code == 0
    cell = load(here.folder / "sheet-cells" / "photo-style.png")
    assert np.array_equal(load(here.folder / "again.png"), cell)
    assert "redo the pictures in sheet-cells" in here.bad("redo", "sheet.png", "-o", "no.png")


def test_a_sheet_that_was_stopped_goes_on(here: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("grid", "photo.png", "-s", "style.png", "--vary", "strength=0.3,0.5,0.7",
               "-o", "sheet.png", *QUICK)  # fmt: skip
    watch, begun = Reporter.begin, 0

    def pressed(self: Reporter, title: str) -> None:
        nonlocal begun
        begun += 1
        watch(self, title)

    press = Reporter.__call__

    def stop(self: Reporter, progress: impasto.Progress) -> None:
        press(self, progress)
        if begun == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "begin", pressed)
        patch.setattr(Reporter, "__call__", stop)
        first = here(*command)
    assert first.code == 130
    assert "the same command goes on with what is in sheet-cells" in first.err
    assert not (here.folder / "sheet.png").exists()
    kept = (here.folder / "sheet-cells" / "strength=0.3.png").read_bytes()
    second = here.good(*command)
    assert "2 painted, 1 there already" in second.err
    assert (here.folder / "sheet-cells" / "strength=0.3.png").read_bytes() == kept
    assert "0 painted, 3 there already" in here.good(*command).err
    other = here("grid", "photo.png", "-s", "second.png", "--vary", "strength=0.3,0.5,0.7",
                 "-o", "sheet.png", *QUICK)  # fmt: skip
    assert other.code == 2
    assert "is another result; choose another sheet, or --overwrite it" in other.err


def test_grids_of_the_two_halves(here: Program) -> None:
    here.good("grid", "--job", "texture", "-s", "style.png", "--vary", "out-size=40x32",
              "--vary", "style-layers=relu1_1,relu1_1+relu2_1", "--vary", "steps=2",
              "--vary", "threads=1", "-o", "sheet.png")  # fmt: skip
    names = cells(here)
    assert names == ["style-layers=relu1_1+relu2_1.png", "style-layers=relu1_1.png"]
    record = json.loads(read_record(here.folder / "sheet-cells" / names[0]) or "")
    assert record["settings"]["style_layers"] == {"relu1_1": 1.0, "relu2_1": 1.0}
    here.good("grid", "photo.png", "--job", "reconstruct", "--vary", "layers=relu1_1,relu3_1",
              "--size", "40", "--steps", "2", "--threads", "1", "-o", "layers.png")  # fmt: skip
    assert len(list((here.folder / "layers-cells").iterdir())) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("-s", "style.png:2"), "leave weights and masks out"),
        (("-s", "style.png", "--film", "f.webp"), "--film shows one picture"),
        (("-s", "style.png", "--cell", "3"), "--cell is 3"),
        (("-s", "style.png", "--job", "paint"), "job is 'paint'"),
        (("-s", "missing.png"), "missing.png"),
        (("-s", "style.png", "--vary", "seed"), "write strength=0.3,0.6,0.9"),
        ((), "needs at least one style"),
    ],
)
def test_a_grid_that_cannot_be(here: Program, flags: tuple[str, ...], message: str) -> None:
    before = sorted(here.folder.iterdir())
    assert message in here.bad("grid", "photo.png", "-o", "sheet.png", *flags)
    assert sorted(here.folder.iterdir()) == before


def test_the_library_makes_sheets() -> None:
    photo, styles = pictures.photo(40, 32), [pictures.painting(40, 40, seed=s) for s in (1, 2)]
    seen: list[str] = []
    sheet = impasto.grid(
        [impasto.Picture(photo)],
        [impasto.Picture(style) for style in styles],
        on_cell=lambda cell, result: seen.append(cell.name),
        cell=40, size=40, steps=2, threads=1,
    )  # fmt: skip
    assert sheet.width > 3 * 40
    assert seen == ["picture", "picture-2"]


# --- recolor --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear", "histogram"])
def test_a_photo_takes_on_colours(here: Program, method: str) -> None:
    here.good("recolor", "photo.png", "style.png", "-o", "out.png", "--method", method)
    before, after, style = (load(here.folder / n) for n in ("photo.png", "out.png", "style.png"))
    assert after.shape == before.shape
    away = np.abs(before.mean((0, 1)) - style.mean((0, 1))).max()
    assert np.abs(after.mean((0, 1)) - style.mean((0, 1))).max() < 0.5 * away
    here.good("recolor", "photo.png", "photo.png", "-o", "same.png", "--method", method)
    assert np.array_equal(load(here.folder / "same.png"), before)
    assert json.loads(read_record(here.folder / "out.png") or "")["settings"] == {"method": method}
    assert "run that again" in here.bad("redo", "out.png", "-o", "no.png")


def test_recolouring_keeps_transparency_and_refuses_what_it_cannot(here: Program) -> None:
    clear = Path("clear.png")
    alpha = np.full((32, 40), 255, np.uint8)
    alpha[:8] = 0
    impasto.save_image(impasto.Picture(pictures.photo(), alpha), clear)
    here.good("recolor", "clear.png", "style.png", "-o", "out.png")
    kept = open_image("out.png").alpha
    assert kept is not None
    assert np.array_equal(kept, alpha)
    assert "method is 'exact'" in here.bad(
        "recolor", "photo.png", "style.png", "-o", "o.png", "--method", "exact"
    )
    assert "recolor has none" in here.bad(
        "recolor", "photo.png", "style.png", "-o", "o.png", "--film", "f.gif"
    )
    assert "missing.png" in here.bad("recolor", "missing.png", "style.png", "-o", "o.png")


# --- masks on the command line --------------------------------------------------------------------


def test_masks_protection_and_coarse_strokes_are_redone(here: Program) -> None:
    here.good("transfer", "photo.png", "-s", "style.png@left.png", "-s", "second.png",
              "--coarse-from", "other.png", "--protect", "left.png", "--colors", "linear",
              "--style-scale", "0.7", "-o", "out.png", *SMALL)  # fmt: skip
    out = load(here.folder / "out.png")
    assert np.array_equal(out[:, :20], load(here.folder / "photo.png")[:, :20])
    here.good("redo", "out.png", "-o", "again.png")
    assert np.array_equal(load(here.folder / "again.png"), out)
    (here.folder / "left.png").rename(here.folder / "renamed.png")
    assert "give it with --mask FILE" in here.bad("redo", "out.png", "-o", "no.png")
    here.good("redo", "out.png", "-o", "third.png", "--mask", "renamed.png")
    assert np.array_equal(load(here.folder / "third.png"), out)


def test_maps_on_the_command_line(here: Program) -> None:
    right = 255 - load(here.folder / "left.png")
    pictures.save(here.folder / "right.png", right)
    here.good("transfer", "photo.png", "-s", "style.png", "--regions", "left.png",
              "--style-regions", "right.png", "-o", "out.png", *SMALL)  # fmt: skip
    here.good("redo", "out.png", "-o", "again.png")
    assert np.array_equal(load(here.folder / "again.png"), load(here.folder / "out.png"))


def test_a_mask_of_another_shape_is_told(here: Program) -> None:
    pictures.save(here.folder / "square.png", np.full((20, 20, 3), 255, np.uint8))
    done = here.good("transfer", "photo.png", "-s", "style.png@square.png", "-o", "o.png", *SMALL)
    assert "square.png has 20×20 px, the photo 40×32: resized, its sides by different" in done.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("-s", "style.png@black.png"), "black.png is empty"),
        (("-s", "style.png", "--protect", "black.png"), "black.png is empty"),
        (("-s", "style.png@nowhere.png"), "nowhere.png"),
        (("-s", "style.png", "--regions", "left.png"), "belong together"),
        (("-s", "style.png", "--style-regions", "left.png"), "belong together"),
        (("-s", "style.png", "-s", "second.png", "--regions", "left.png", "--style-regions",
          "left.png"), "2 styles and 1 --style-regions"),
        (("-s", "style.png", "--coarse-from", "second.png@left.png"), "a mask has no place here"),
        (("-s", "style.png", "--colors", "mine"), "colors is 'mine'"),
        (("-s", "style.png", "--style-scale", "9"), "style_scale is 9"),
    ],
)  # fmt: skip
def test_masks_that_cannot_be(here: Program, flags: tuple[str, ...], message: str) -> None:
    pictures.save(here.folder / "black.png", np.zeros((32, 40, 3), np.uint8))
    assert message in here.bad("transfer", "photo.png", "-o", "o.png", *flags, *SMALL)
    assert not (here.folder / "o.png").exists()


@pytest.mark.parametrize("command", ["grid", "recolor"])
def test_help_comes_without_torch(here: Program, command: str) -> None:
    done = process(command, "--help", code=TORCH_LOADED, cwd=here.folder)
    assert done.out.endswith("loaded False\n")
    wrong = process(
        command, "missing.png", "x.png", "-o", "o.png", code=TORCH_LOADED, cwd=here.folder
    )
    assert (wrong.code, wrong.out) == (2, "loaded False\n")
