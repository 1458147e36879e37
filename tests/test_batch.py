from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import impasto
import impasto.jobs.transfer
from impasto.batch import is_folder
from impasto.errors import ImpastoError
from impasto.images import open_image, save_image
from impasto.records import read_settings
from impasto.terminal import Reporter
from pictures import SMALL, Program, load, painting, photo, save


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    """The program, in a folder with three `photos` of different sizes and `style.png`."""
    (tmp_path / "photos").mkdir()
    save(tmp_path / "photos" / "b.png", photo(44, 33, seed=1))
    save(tmp_path / "photos" / "a.jpg", photo(34, 41, seed=2))
    save(tmp_path / "photos" / "c.bmp", photo(36, 36, seed=3))
    save(tmp_path / "style.png", painting())
    return Program(tmp_path, monkeypatch, capsys)


BATCH = ("transfer", "photos", "-s", "style.png", "-o", "out/", *SMALL)


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file under a folder: its bytes and when it was written, ns."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def one(run: Program) -> Path:
    """Leaves only `photos/b.png`, and gives the file of its result."""
    (run.folder / "photos" / "a.jpg").unlink()
    (run.folder / "photos" / "c.bmp").unlink()
    return run.folder / "out" / "b.png"


# --- which photos, and where to (rules 6 to 9)


def test_folder_of_photos_by_name(run: Program) -> None:
    (run.folder / "photos" / "notes.txt").write_text("no picture")
    (run.folder / "photos" / ".hidden.png").write_bytes(b"")
    (run.folder / "photos" / "inner").mkdir()
    save(run.folder / "photos" / "inner" / "d.png", photo())
    done = run.good(*BATCH)
    assert list(files(run.folder / "out")) == ["a.png", "b.png", "c.png"]
    told = [line.split()[0] for line in done.out.splitlines()]
    assert told == ["out/a.png", "out/b.png", "out/c.png"]
    assert "3 painted" in done.err
    for name, shape in (("a", (41, 34, 3)), ("b", (33, 44, 3)), ("c", (36, 36, 3))):
        assert load(run.folder / "out" / f"{name}.png").shape == shape


def test_result_in_a_batch_is_the_same_as_alone(run: Program) -> None:
    run.good(*BATCH)
    for name in ("a.jpg", "b.png", "c.bmp"):
        run.good("transfer", f"photos/{name}", "style.png", "-o", "alone.png", *SMALL)
        stem = Path(name).stem
        assert (run.folder / "alone.png").read_bytes() == (
            run.folder / "out" / f"{stem}.png"
        ).read_bytes()


def test_photos_and_folders_mixed(run: Program) -> None:
    save(run.folder / "extra.png", photo())
    run.good("transfer", "extra.png", "photos", "-s", "style.png", "-o", "out/", *SMALL)
    assert list(files(run.folder / "out")) == ["a.png", "b.png", "c.png", "extra.png"]


def test_folder_and_style_without_s(run: Program) -> None:
    run.good("transfer", "photos", "style.png", "-o", "out/", *SMALL)
    assert len(files(run.folder / "out")) == 3


def test_folder_out_is_one_or_ends_in_a_separator(run: Program) -> None:
    (run.folder / "there").mkdir()
    one_photo = ("transfer", "photos/b.png", "style.png", *SMALL)
    run.good(*one_photo, "-o", "there")
    run.good(*one_photo, "-o", "made/deep/")
    assert list(files(run.folder / "there")) == ["b.png"]
    assert list(files(run.folder / "made")) == ["deep/b.png"]
    assert is_folder("there")
    assert is_folder("no/such/")
    assert not is_folder("no/such")


@pytest.mark.parametrize(
    "photos", [["photos/b.png", "photos/c.bmp"], ["photos"], ["lonely"]], ids=" ".join
)
@pytest.mark.parametrize("out", ["out", "out.png"])
def test_several_photos_need_a_folder(photos: list[str], out: str, run: Program) -> None:
    (run.folder / "lonely").mkdir()
    save(run.folder / "lonely" / "x.png", photo())
    complaint = run.bad("transfer", *photos, "-s", "style.png", "-o", out, *SMALL)
    assert "folder" in complaint
    assert f"{out}/" in complaint
    assert not (run.folder / out).exists()


@pytest.mark.parametrize(
    ("photos", "names"),
    [
        (["photos", "photos/b.png"], "b.png"),
        (["photos/b.png", "photos/b.png"], "b.png"),
        (["photos", "b.webp"], "b.webp b.png"),
    ],
)
def test_name_clashes_are_found_before_any_work(
    photos: list[str], names: str, run: Program
) -> None:
    save(run.folder / "b.webp", photo())
    before = files(run.folder)
    complaint = run.bad("transfer", *photos, "-s", "style.png", "-o", "out/", *SMALL)
    for name in names.split():
        assert name in complaint
    assert files(run.folder) == before
    assert not (run.folder / "out").exists()


def test_wrong_arguments_make_no_folder(run: Program) -> None:
    save(run.folder / "text.png", photo())
    (run.folder / "text.png").write_text("no picture")
    for flags in (
        ["-s", "style.png", "--style-layers", "relu9_9"],
        ["-s", "style.png", "--format", "gif"],
        ["-s", "style.png", "--json", "no/such/log"],
        ["-s", "text.png"],
    ):
        run.bad("transfer", "photos", "-o", "out/", *SMALL, *flags)
        assert not (run.folder / "out").exists(), flags


@pytest.mark.parametrize("form", ["jpg", ".webp", "TIF"])
def test_format(form: str, run: Program) -> None:
    one(run)
    run.good(*BATCH, "--format", form)
    suffix = "." + form.removeprefix(".").lower()
    (made,) = (run.folder / "out").iterdir()
    assert made.suffix.lower() == suffix
    assert load(made).shape == (33, 44, 3)


def test_results_do_not_replace_photos(run: Program) -> None:
    before = files(run.folder)
    complaint = run.bad("transfer", "photos", "-s", "style.png", "-o", "photos/", *SMALL)
    assert "b.png" in complaint
    assert "input" in complaint
    assert files(run.folder) == before
    run.bad("transfer", "photos", "-s", "style.png", "-o", "photos/", *SMALL, "--overwrite")
    assert files(run.folder) == before


def test_a_style_is_not_replaced_through_a_link(run: Program) -> None:
    one(run)
    (run.folder / "out").mkdir()
    (run.folder / "out" / "b.png").symlink_to(run.folder / "style.png")
    before = files(run.folder)
    assert "input" in run.bad(*BATCH, "--overwrite")
    assert files(run.folder) == before


# --- one bad file (rule 11)


@pytest.mark.parametrize("flags", [[], ["--quiet"]])
def test_bad_file_is_reported_and_the_rest_painted(flags: list[str], run: Program) -> None:
    (run.folder / "photos" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (run.folder / "photos" / "aa.jpg").write_text("no picture")
    done = run(*BATCH, "--json", "log", *flags)
    assert done.code == 2
    complaints = [line for line in done.err.splitlines() if line.startswith("impasto: ")]
    assert [line.split(":")[1] for line in complaints] == [
        " cannot read photos/aa.jpg",
        " cannot read photos/b.png",
    ]
    assert "Traceback" not in done.err
    assert list(files(run.folder / "out")) == ["a.png", "c.png"]
    lines = [json.loads(line) for line in (run.folder / "log").read_text().splitlines()]
    ends = [
        (line["event"], line.get("output"))
        for line in lines
        if line["event"] in ("result", "error")
    ]
    assert ends == [("result", "a.png"), ("error", None), ("error", None), ("result", "c.png")]
    if flags:
        assert done.out == ""
        assert done.err.splitlines() == complaints
    else:
        assert "2 painted, 2 failed" in done.err


def test_log_says_which_photo_a_step_belongs_to(run: Program) -> None:
    run.good(*BATCH, "--json", "log")
    lines = [json.loads(line) for line in (run.folder / "log").read_text().splitlines()]
    starts = [line for line in lines if line["event"] == "start"]
    assert [Path(line["photo"]).name for line in starts] == ["a.jpg", "b.png", "c.bmp"]
    assert [line["event"] for line in lines[:2]] == ["start", "step"]


# --- what is there already (rule 10)


def test_second_run_skips_everything(run: Program) -> None:
    run.good(*BATCH)
    before = files(run.folder / "out")
    done = run.good(*BATCH)
    assert files(run.folder / "out") == before
    assert done.out == ""
    assert done.err.count("skipped") == 4  # each, and the sum
    assert "3 skipped" in done.err


def test_second_run_does_what_is_missing(run: Program) -> None:
    run.good(*BATCH)
    before = files(run.folder / "out")
    (run.folder / "out" / "b.png").unlink()
    done = run.good(*BATCH)
    after = files(run.folder / "out")
    assert "1 painted, 2 skipped" in done.err
    assert after["b.png"][0] == before["b.png"][0]
    assert {k: v for k, v in after.items() if k != "b.png"} == {
        k: v for k, v in before.items() if k != "b.png"
    }


def test_other_settings_leave_it_and_overwrite_does_not(run: Program) -> None:
    out = one(run)
    run.good(*BATCH)
    before = files(run.folder / "out")
    done = run.good(*BATCH, "--style-weight", "77")
    assert files(run.folder / "out") == before
    assert "1 left" in done.err
    assert "out/b.png" in done.err
    assert "--overwrite" in done.err
    run.good(*BATCH, "--style-weight", "77", "--overwrite")
    found = read_settings(out)
    assert found
    assert found["settings"]["style_weight"] == 77


@pytest.mark.parametrize("change", ["photo", "style", "weight", "init"])
def test_other_inputs_leave_it(change: str, run: Program) -> None:
    one(run)
    save(run.folder / "init.png", photo(seed=8))
    run.good(*BATCH, "--init", "init.png")
    before = files(run.folder / "out")
    style = "style.png"
    match change:
        case "photo":
            save(run.folder / "photos" / "b.png", photo(44, 33, seed=9))
        case "style":
            save(run.folder / "style.png", painting(seed=9))
        case "init":
            save(run.folder / "init.png", photo(seed=9))
        case _:
            # One style alone has the same share whatever its weight; its record says it all the
            # same, and two of them differ.
            style = "style.png:2"
    again = ["-s", style, "-o", "out/", *SMALL, "--init", "init.png"]
    done = run.good("transfer", "photos", *again)
    assert files(run.folder / "out") == before
    assert "1 left" in done.err


def test_renamed_inputs_are_the_same_request(run: Program) -> None:
    one(run)
    run.good(*BATCH)
    (run.folder / "style.png").rename(run.folder / "other.png")
    (run.folder / "photos").rename(run.folder / "album")
    done = run.good("transfer", "album", "-s", "other.png", "-o", "out/", *SMALL)
    assert "1 skipped" in done.err


def test_partial_result_is_done_again(run: Program) -> None:
    out = one(run)
    run.good(*BATCH)
    complete = out.read_bytes()
    found = read_settings(out)
    assert found
    picture = open_image(out)
    for changes in ({}, {"settings": found["settings"] | {"seed": 99}}):
        save_image(picture, out, record=json.dumps(found | {"status": "partial"} | changes))
        assert "1 painted" in run.good(*BATCH).err
        assert out.read_bytes() == complete


def test_result_without_a_record_is_left(run: Program) -> None:
    one(run)
    run.good(*BATCH, "--no-metadata")
    before = files(run.folder / "out")
    for flags in (["--no-metadata"], []):
        done = run.good(*BATCH, *flags)
        assert "1 left" in done.err
        assert files(run.folder / "out") == before


@pytest.mark.parametrize(
    "found",
    [None, "not JSON", "[]", "{}", '{"record": 999, "status": "partial"}', '{"record": 1}'],
)
def test_foreign_files_are_left(found: str | None, run: Program) -> None:
    out = one(run)
    out.parent.mkdir()
    if found is None:
        out.write_text("not even a picture")
    else:
        save_image(open_image(run.folder / "style.png"), out, record=found)
    before = files(out.parent)
    assert "1 left" in run.good(*BATCH).err
    assert files(out.parent) == before


def test_interrupt_stops_the_batch_and_the_next_run_goes_on(
    run: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.good(*BATCH)
    complete = {name: data for name, (data, _) in files(run.folder / "out").items()}
    for path in (run.folder / "out").iterdir():
        path.unlink()
    watch, seen = Reporter.__call__, 0

    def pressed(self: Reporter, progress: impasto.Progress) -> None:
        nonlocal seen
        watch(self, progress)
        seen += 1
        if seen == 8:  # 5 steps each: the third one of the second photo
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "__call__", pressed)
        assert run(*BATCH).code == 130
    assert list(files(run.folder / "out")) == ["a.png", "b.png"]
    found = read_settings(run.folder / "out" / "b.png")
    assert found
    assert found["status"] == "partial"
    done = run.good(*BATCH)
    assert "2 painted, 1 skipped" in done.err
    assert {name: data for name, (data, _) in files(run.folder / "out").items()} == complete


# --- once for all


def test_network_and_styles_are_loaded_once(run: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, int] = {"painters": 0, "networks": 0}
    opened: list[str] = []
    painter, load_encoder, read = (
        impasto.jobs.transfer.Painter.__init__,
        impasto.Encoder.load,
        open_image,
    )

    def count_painter(self: impasto.Painter, *args: Any, **options: Any) -> None:
        counts["painters"] += 1
        painter(self, *args, **options)

    def count_network(*args: Any, **options: Any) -> impasto.Encoder:
        counts["networks"] += 1
        return load_encoder(*args, **options)

    def count_picture(path: Path, **options: Any) -> impasto.Picture:
        opened.append(Path(path).name)
        return read(path, **options)

    monkeypatch.setattr(impasto.jobs.transfer.Painter, "__init__", count_painter)
    monkeypatch.setattr(impasto.Encoder, "load", count_network)
    monkeypatch.setattr("impasto.sources.open_image", count_picture)
    run.good(*BATCH)
    assert counts["painters"] == 1
    assert counts["networks"] in (2, 3)  # of the start and of losses; again in float32 if need be
    assert opened == ["style.png", "a.jpg", "b.png", "c.bmp"]


def test_painter_of_the_library(run: Program) -> None:
    painter = impasto.Painter("style.png", size=40, steps=3, threads=1)
    with pytest.raises(ImpastoError, match=r"nothing\.png"):
        next(painter.iter("nothing.png"))
    first = impasto.transfer("photos/b.png", "style.png", size=40, steps=3, threads=1)
    for _ in range(2):  # what it did before changes nothing
        steps = painter.iter("photos/b.png")
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                result: impasto.Result = stop.value
                break
        assert (result.image.pixels == first.image.pixels).all()
        assert result.settings == first.settings
