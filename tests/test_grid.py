"""`impasto grid` and `impasto recolor`, and transfers with masks: what is made, told and redone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import impasto
import pictures
from impasto import commands_grid
from impasto.commands_grid import parse_vary
from impasto.errors import ImpastoError, SettingsError
from impasto.flags import FLAGS
from impasto.grid_plan import GridPlan, plan_grid
from impasto.images import open_image, read_record
from impasto.inputs import Style
from impasto.jobs import grid as grid_job
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


def files(run: Program) -> dict[Path, bytes]:
    """Everything in the folder, so that a test can tell whether it was touched."""
    return {path: path.read_bytes() for path in sorted(run.folder.rglob("*")) if path.is_file()}


def everywhere(sheet: pictures.Array, picture: pictures.Array) -> list[tuple[int, int]]:
    """Where on a sheet a picture lies: (y, x) of its corners, px."""
    h, w = picture.shape[:2]
    return [
        (y, x)
        for y in range(sheet.shape[0] - h + 1)
        for x in range(sheet.shape[1] - w + 1)
        if np.array_equal(sheet[y, x : x + w], picture[0])
        and np.array_equal(sheet[y : y + h, x : x + w], picture)
    ]


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
        (("transfer", ["a"], ["s"], {"strength": 0.3}, {}), "0.3; give a list of values"),
        (("transfer", ["a"], ["s"], {"colors": "style"}, {}), "'style'; give a list of values"),
        (("reconstruct", ["a"], [], {"layers": [[], []]}, {}), "layers is empty"),
        (
            ("transfer", ["a"], ["s"], {"style_layers": [{"relu1_1": "x"}]}, {}),
            "the weight of relu1_1 in style_layers is 'x'",
        ),
        (("texture", [], ["s"], {"init": ["noise", "content"]}, {}), "init is 'content'; in a"),
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
    assert parse_vary(['init=noise,a+b.png, "c,d.png"', "style-weight=1e+1"], parsers) == {
        "init": ["noise", "a+b.png", "c,d.png"],
        "style_weight": [10.0],
    }
    for text, message in (
        ("strength", "write strength=0.3,0.6,0.9"),
        ("strength=", "write strength=0.3,0.6,0.9"),
        ("strenth=1", "no setting 'strenth' to vary"),
        ("steps=1,few", "'few' is no value of steps"),
        ("init=noise,,style", "'' is no value of init"),
        ("colors=style\r,content", "cannot understand --vary with"),
    ):
        with pytest.raises(SettingsError, match=message):
            parse_vary([text], parsers)
    with pytest.raises(SettingsError, match="varies twice"):
        parse_vary(["seed=1", "seed=2"], parsers)


def test_names_of_files_fit_a_file_system() -> None:
    photos = [letter * 80 for letter in "写真絵"]
    plan = plan_grid("transfer", photos, ["夏" * 80, "冬" * 80], {}, {})
    names = [cell.name for cell in plan.cells]
    assert len(set(names)) == 6
    assert max(len(name.encode()) for name in names) <= 230
    assert all(name.startswith(photo[:60]) for name, photo in zip(names[::2], photos, strict=True))


def test_pictures_are_read_once_and_a_start_is_one_of_them() -> None:
    seen: list[str] = []

    def read(given: str) -> impasto.Picture:
        seen.append(given)
        return impasto.Picture(pictures.photo())

    vary: dict[str, Any] = {"init": ["noise", "i.png"], "strength": [0.2, 0.4]}
    plan = plan_grid("transfer", ["a.png"], ["s.png", "t.png"], vary, {}).opened(read)
    assert sorted(seen) == ["a.png", "i.png", "s.png", "t.png"]
    from_noise = [cell.options["init"] == "noise" for cell in plan.cells]
    assert from_noise == [True, True, False, False] * 2
    assert plan.axes[1].labels == ("init noise", "init i.png")


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
    assert len(everywhere(sheet, head)) == 1  # the style stands at the head of its column
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
        if begun == 3:  # the first was to get ready
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
        (("-s", "style.png", "--cell", "3"), "cell is 3; it is a whole number of px from 16"),
        (("-s", "style.png", "--no-metadata"), "leave out --no-metadata"),
        (("-s", "style.png", "--out-size", "9x9"), "transfer has no --out-size"),
        (("-s", "style.png", "--vary", "layers=relu1_1"), "transfer has no --layers"),
        (
            ("-s", "style.png", "--content-layers", "relu1_1", "--vary", "content-layers=relu2_2"),
            "--content-layers is given, and varies too",
        ),
        (
            ("-s", "style.png", "--preview", "sheet-cells/seed=1.png", "--vary", "seed=1,2"),
            "no folder sheet-cells",
        ),
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


@pytest.mark.parametrize(
    ("photo", "flags", "sheet", "told"),
    [
        ("photo.png", ("--init", "made.png"), "made.png", "made.png"),
        ("photo.png", ("--vary", "init=made.png,noise"), "made.png", "made.png"),
        ("photo.png", ("--init", "u-cells/seed=1.png"), "u.png", "u-cells/seed=1.png"),
        ("u-cells/seed=1.png", (), "u.png", "u-cells/seed=1.png"),
        ("u-cells/seed=2.png", (), "u.png", "u-cells/seed=2.png"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_no_input_is_replaced(
    here: Program,
    photo: str,
    flags: tuple[str, ...],
    sheet: str,
    told: str,
    more: tuple[str, ...],
) -> None:
    here.good("transfer", "photo.png", "style.png", "-o", "made.png", *QUICK)
    (here.folder / "u-cells").mkdir()
    (here.folder / "made.png").rename(here.folder / "u-cells" / "seed=1.png")
    (here.folder / "u-cells" / "seed=2.png").write_bytes((here.folder / "photo.png").read_bytes())
    (here.folder / "made.png").write_bytes((here.folder / "u-cells" / "seed=1.png").read_bytes())
    before = files(here)
    vary = ("--vary", "seed=1,2") if sheet == "u.png" else ()
    message = here.bad("grid", photo, "-s", "style.png", *vary, *flags, "-o", sheet, *QUICK, *more)
    assert f"{told} is an input too; choose another name" in message
    assert files(here) == before


def test_a_sheet_that_starts_from_pictures_goes_on(here: Program) -> None:
    for flags in (
        ("--init", "other.png", "--vary", "seed=1,2"),
        ("--vary", "init=noise,other.png"),
    ):
        name = f"{len(flags)}.png"
        command = ("grid", "photo.png", "-s", "style.png", *flags, "-o", name, *QUICK)
        assert "2 painted" in here.good(*command).err
        assert "0 painted, 2 there already" in here.good(*command).err
    assert (here.folder / "2-cells" / "init=other.png").exists()
    here.good("redo", "2-cells/init=other.png", "-o", "again.png")
    cell = load(here.folder / "2-cells" / "init=other.png")
    assert np.array_equal(load(here.folder / "again.png"), cell)
    for job, flag in (("texture", ("-s", "style.png")), ("reconstruct", ("photo.png",))):
        command = ("grid", "--job", job, *flag, "--init", "other.png", "--vary", "seed=1,2",
                   "--steps", "2", "--threads", "1", "-o", f"{job}.png",
                   "--out-size" if job == "texture" else "--size", "40")  # fmt: skip
        here.good(*command)
        assert "0 painted, 2 there already" in here.good(*command).err
    pictures.save(here.folder / "large.png", pictures.photo(80, 60))
    assert "--max-megapixels" in here.bad(
        "grid", "photo.png", "-s", "style.png", "--init", "large.png", "--max-megapixels", "0.003",
        "-o", "sheet.png", *QUICK
    )  # fmt: skip


def test_a_comma_in_the_name_of_a_start(here: Program) -> None:
    (here.folder / "other.png").rename(here.folder / "a,b+c.png")
    here.good("grid", "photo.png", "-s", "style.png", "--vary", 'init=noise,"a,b+c.png"',
              "-o", "sheet.png", *QUICK)  # fmt: skip
    assert cells(here) == ["init=a-b+c.png", "init=noise.png"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--vary", "content-layers=relu2_2,relu9_9"), "has no layer 'relu9_9'"),
        (("--vary", "style-layers=relu2_2,relu2_2+relu9_9"), "has no layer 'relu9_9'"),
        (("--vary", "encoder=slim,nope"), "there is no encoder 'nope'"),
        (("--vary", "init=noise,nothere.png"), "cannot read nothere.png"),
        (("--vary", "init=noise,style.txt"), "cannot read style.txt"),
        (("--vary", "device=cpu,mps"), "no mps device"),
        (("--vary", "strength=0.2,0.6,0.5"), "strength=0.5.png is there and is another result"),
    ],
)
def test_nothing_is_painted_before_all_is_known_to_be_well(
    here: Program, flags: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    (here.folder / "style.txt").write_text("no picture", encoding="utf-8")
    if "strength" in flags[1]:
        here.good("transfer", "photo.png", "style.png", "--strength", "0.5", "-o", "other.png",
                  "--size", "32", "--steps", "2", "--overwrite")  # fmt: skip
        (here.folder / "sheet-cells").mkdir()
        (here.folder / "other.png").rename(here.folder / "sheet-cells" / "strength=0.5.png")
    before, there = files(here), sorted(here.folder.iterdir())
    assert message in here.bad(
        "grid", "photo.png", "-s", "style.png", *flags, "-o", "sheet.png", *QUICK
    )
    assert files(here) == before
    assert sorted(here.folder.iterdir()) == there


def test_what_is_in_the_place_of_the_cells(here: Program) -> None:
    command = ("grid", "photo.png", "-s", "style.png", "--vary", "seed=1,2", "-o", "sheet.png",
               *QUICK)  # fmt: skip
    (here.folder / "sheet-cells").write_bytes(b"")
    assert "there is a file of that name" in here.bad(*command)
    (here.folder / "sheet-cells").unlink()
    (here.folder / "sheet-cells" / "seed=2.png").mkdir(parents=True)
    assert "seed=2.png: there is a folder of that name; move it" in here.bad(*command)
    assert cells(here) == ["seed=2.png"]
    (here.folder / "sheet-cells" / "seed=2.png").rmdir()
    assert "another file of this run" in here.bad(*command, "--preview", "sheet-cells/seed=2.png")
    assert cells(here) == []


def test_a_photo_with_a_long_name_in_other_letters(here: Program) -> None:
    for letter, number in (("写", 1), ("真", 2)):
        pictures.save(here.folder / f"{letter * 80}.png", pictures.photo(40, 32, number))
    here.good("grid", *(f"{letter * 80}.png" for letter in "写真"), "-s", "style.png",
              "-s", "second.png", "-o", "sheet.png", *QUICK)  # fmt: skip
    assert len(cells(here)) == 4


def test_the_flags_of_all_three_jobs(here: Program) -> None:
    here.good("grid", "--job", "texture", "-s", "style.png", "--out-size", "40x32", "--steps", "2",
              "--threads", "1", "--vary", "seed=1,2", "-o", "sheet.png")  # fmt: skip
    assert load(here.folder / "sheet-cells" / "seed=1.png").shape == (32, 40, 3)
    here.good("grid", "photo.png", "--job", "reconstruct", "--layers", "relu1_1", "--vary",
              "seed=1,2", "-o", "layers.png", *QUICK)  # fmt: skip
    record = json.loads(read_record(here.folder / "layers-cells" / "seed=1.png") or "")
    assert record["settings"]["layers"] == ["relu1_1"]
    assert "texture has no --size; impasto texture --help" in here.bad(
        "grid", "--job", "texture", "-s", "style.png", "--size", "40", "-o", "no.png"
    )
    told = " ".join(here.good("grid", "--help").out.split())
    assert "[default: transfer: 300 steps; texture: 400 steps; reconstruct: 150 steps]" in told
    assert "[default: texture: 512x512 px]" in told
    assert "[default: transfer: fast; texture, reconstruct: noise]" in told
    assert "Seed of every random draw [default: 0]" in told


def test_rows_have_their_photos_and_styles_beside_them(here: Program) -> None:
    here.good("grid", "photo.png", "other.png", "-s", "style.png", "-s", "second.png",
              "--vary", "strength=0.3,0.6,0.9", "-o", "sheet.png", *QUICK)  # fmt: skip
    sheet = load(here.folder / "sheet.png")
    for name in ("photo.png", "other.png", "style.png", "second.png"):
        assert len(everywhere(sheet, load(here.folder / name))) == 2, name


def test_large_cells_are_kept_small_and_read_whatever_the_limit(
    here: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []
    sizes: list[int] = []
    sheet = GridPlan.sheet

    def reading(path: Path, *, max_pixels: int = 0) -> impasto.Picture:
        limits.append(max_pixels)
        return open_image(path, max_pixels=max_pixels)

    def composing(self: GridPlan, made: Any, **more: Any) -> impasto.Picture:
        sizes.extend(max(picture.size) for picture in made)
        return sheet(self, made, **more)

    monkeypatch.setattr(commands_grid, "open_image", reading)
    monkeypatch.setattr(GridPlan, "sheet", composing)
    command = ("grid", "photo.png", "-s", "style.png", "--vary", "seed=1,2", "-o", "sheet.png",
               "--cell", "16", *QUICK)  # fmt: skip
    here.good(*command)
    here.good(*command)  # this time they are there
    assert limits == [sys.maxsize] * 4
    impasto.grid("photo.png", "style.png", {"seed": [1, 2]}, cell=16, size=40, steps=2, threads=1)
    assert sizes == [16] * 6


@pytest.mark.parametrize(
    "flags",
    [
        ("-s", "style.png", "--strength", "7"),
        ("-s", "style.png", "--vary", "strength=7,8"),
        ("-s", "style.png", "--job", "paint"),
        (),
    ],
)
def test_a_slip_is_told_without_torch(here: Program, flags: tuple[str, ...]) -> None:
    done = process("grid", "photo.png", *flags, "-o", "o.png", code=TORCH_LOADED, cwd=here.folder)
    assert (done.code, done.out) == (2, "loaded False\n"), done.err


# --- the library ----------------------------------------------------------------------------------


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


def test_the_library_takes_one_picture_as_well_as_several(here: Program) -> None:
    seen: list[str] = []
    given: tuple[Any, ...] = ("photo.png", Path("photo.png"), impasto.Picture(pictures.photo()))
    sheets = [
        impasto.grid(photo, "style.png", size=40, steps=2, threads=1).pixels for photo in given
    ]
    assert np.array_equal(sheets[0], sheets[1])
    assert np.array_equal(sheets[0], sheets[2])
    impasto.grid(
        [Path("photo.png"), "other.png"],
        open_image("style.png"),
        {"init": ["noise", Path("second.png")]},
        on_cell=lambda cell, result: seen.append(cell.name),
        size=40, steps=2, threads=1,
    )  # fmt: skip
    assert seen == [
        "photo-init=noise", "photo-init=second", "other-init=noise", "other-init=second"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        (("photo.png", "style.png"), {"cell": 0}, "cell is 0"),
        (("photo.png", "style.png"), {"cell": -5}, "cell is -5"),
        (("photo.png", "style.png"), {"cell": 2.5}, "cell is 2.5"),
        (("photo.png", "style.png", {"strength": 0.3}), {}, "0.3; give a list of values"),
        (("photo.png", [Style("style.png", mask="left.png"), "second.png"]), {}, "is alone"),
        (("photo.png", Style("style.png")), {}, "is alone"),
        (("photo.png", [("style.png", 0.5)]), {}, "is alone"),
        (("photo.png", ("style.png", 0.5)), {}, "a float is no picture"),
        (("photo.png", ["style.png", "nowhere.png"]), {}, "cannot read nowhere.png"),
        (("photo.png", "style.png", {"content_layers": ["relu2_2", "relu9_9"]}), {}, "relu9_9"),
        (("photo.png", "style.png", {"encoder": ["slim", "nope"]}), {}, "no encoder 'nope'"),
        (("photo.png", "style.png", {"init": ["noise", 3]}), {}, "a int is no picture"),
    ],
)
def test_the_library_paints_nothing_before_all_is_known_to_be_well(
    here: Program,
    arguments: tuple[Any, ...],
    more: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[object] = []
    monkeypatch.setattr(grid_job, "drive", begun.append)
    with pytest.raises(ImpastoError, match=message):
        impasto.grid(*arguments, **{"size": 40, "steps": 2, "threads": 1} | more)
    assert begun == []


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
        (("-s", "style.png@left.png:0.7"), "write STYLE:0.7@left.png"),
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
