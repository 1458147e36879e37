"""What a command writes beside its result: films, plots, snapshots, EXIF; and what it refuses."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from impasto.errors import ImpastoError, one_line
from impasto.images import save_image
from impasto.optimize import optimize
from impasto.presets import PRESETS
from impasto.records import read_settings
from pictures import SMALL, Program, load, painting, photo, save

TRANSFER = ("transfer", "photo.png", "style.png", "-o", "out.png", *SMALL)


def frames(path: Path) -> int:
    with Image.open(path) as image:
        return int(getattr(image, "n_frames", 1))


# Films and plots


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_a_film_of_every_step(run: Program, suffix: str) -> None:
    done = run.good(*TRANSFER, "--film", f"film.{suffix}")
    assert done.out.splitlines()[1] == f"film.{suffix}  (film)"
    assert 2 <= frames(run.folder / f"film.{suffix}") <= 6  # five steps and the result
    run.good(*TRANSFER, "--film", f"film.{suffix}")  # one of ours is replaced


def test_films_of_the_other_jobs(run: Program) -> None:
    flags = ("--steps", "4", "--threads", "1", "--film", "film.webp")
    run.good("texture", "style.png", "-o", "out.png", "--out-size", "40x36", *flags)
    assert frames(run.folder / "film.webp") >= 4
    layers = ("--size", "40", "--layers", "relu1_1,relu2_1")
    done = run.good("reconstruct", "photo.png", "-o", "sheet.png", *layers, *flags)
    assert frames(run.folder / "film.webp") >= 6
    assert "another shape" in done.err  # the sheet is not a frame
    run.good("redo", "out.png", "-o", "again.png", "--film", "again.webp")
    assert frames(run.folder / "again.webp") >= 4


def test_a_plot(run: Program) -> None:
    done = run.good(*TRANSFER, "--plot", "loss.png")
    assert "loss.png" in done.out
    assert load(run.folder / "loss.png").size > 0
    run.good(*TRANSFER, "--plot", "loss.png")  # one of ours is replaced


def test_the_film_of_a_preset_that_has_one(run: Program) -> None:
    flags = ("--preset", "fastai", "--encoder", "slim")
    run.good(*TRANSFER, *flags)
    assert frames(run.folder / "out-film.webp") >= 2
    run.good(*TRANSFER, *flags)
    (run.folder / "out-film.webp").unlink()
    run.good(*TRANSFER, *flags, "--film", "mine.gif")
    assert not (run.folder / "out-film.webp").exists()
    run.good("transfer", "photo.png", "-s", "style.png", "-o", "all/", *SMALL, *flags)
    assert [path.name for path in (run.folder / "all").iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--film", "film.avi"), ".avi is not a suffix a film can have"),
        (("--film", "film"), "it has no suffix"),
        (("--film", "no/film.gif"), "there is no folder no"),
        (("--film", "out.png"), "out.png is to hold another file of this run"),
        (("--film", "photo.png"), "photo.png is an input too"),
        (("--film", "style.gif"), "style.gif is there and was not made by impasto"),
        (("--plot", "loss.bmp"), ".bmp"),
        (("--plot", "no/loss.png"), "there is no folder no"),
        (("--plot", "style.png"), "style.png is an input too"),
        (("--plot", "l.png", "--film", "l.png"), "l.png is to hold"),
        (("--preview", "l.png", "--film", "l.png"), "l.png is to hold"),
        (("--save-every", "0"), "save_every is 0"),
        (("--save-every", "2", "--preview", "out-0002.png"), "out-0002.png is to hold"),
        (("--save-every", "5"), "out-0005.png is there and has no record"),
    ],
)
def test_what_is_refused_before_the_work(run: Program, flags: tuple[str, ...], told: str) -> None:
    save(run.folder / "style.gif", painting())
    save(run.folder / "out-0005.png", photo())
    before = {path: path.read_bytes() for path in run.folder.iterdir()}
    assert told in run.bad(*TRANSFER, *flags)
    assert {path: path.read_bytes() for path in run.folder.iterdir()} == before


@pytest.mark.parametrize(("flag", "name"), [("--film", "film.gif"), ("--plot", "loss.png")])
@pytest.mark.parametrize("more", [(), ("--overwrite",)], ids=len)
def test_a_pipe_is_no_film(run: Program, flag: str, name: str, more: tuple[str, ...]) -> None:
    os.mkfifo(run.folder / name)
    line = run.bad(*TRANSFER, flag, name, *more)
    assert line == f"impasto: cannot write {name}: it is not a regular file"


@pytest.mark.parametrize(
    "flag", [("--film", "{}.gif"), ("--plot", "{}.png"), ("--json", "{}"), ("--encoder", "{}.pth")]
)
def test_a_name_that_is_too_long(run: Program, flag: tuple[str, str]) -> None:
    line = run.bad(*TRANSFER, flag[0], flag[1].format("a" * 300))
    assert "a" * 300 in line
    assert "standard output" not in line


@pytest.mark.parametrize("flag", [("--film", "f.gif"), ("--plot", "p.png"), ("--save-every", "2")])
def test_for_several_photos_there_is_no_film(run: Program, flag: tuple[str, str]) -> None:
    save(run.folder / "other.png", photo(seed=1))
    line = run.bad("transfer", "photo.png", "other.png", "-s", "style.png", "-o", "all/", *flag)
    assert f"{flag[0]} shows one picture" in line


# Snapshots


def test_snapshots(run: Program) -> None:
    run.good(*TRANSFER, "--save-every", "2")
    names = sorted(path.name for path in run.folder.glob("out-*.png"))
    assert names == ["out-0002.png", "out-0004.png"]
    first = load(run.folder / names[0])
    assert first.shape == (32, 40, 3)
    assert (first != load(run.folder / names[1])).any()
    assert read_settings(run.folder / names[0]) == {"record": 1, "status": "preview"}
    run.good(*TRANSFER, "--save-every", "2")  # ours are replaced
    assert "is a preview" in run.bad("redo", names[0], "-o", "x.png")


# Stopped


def test_ctrl_c_keeps_film_and_plot_too(run: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: Any) -> Any:
        for number, iterate in enumerate(optimize(*arguments)):
            yield iterate
            if number == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr("impasto.jobs.run.optimize", stopped)
    done = run(*TRANSFER, "--film", "film.gif", "--plot", "loss.png")
    assert done.code == 130
    assert "stopped early" in done.out
    assert (read_settings(run.folder / "out.png") or {})["status"] == "partial"
    assert frames(run.folder / "film.gif") >= 2
    assert (run.folder / "loss.png").exists()


# EXIF


def with_exif(run: Program) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Kamera"
    exif[ExifTags.Base.Orientation] = 1
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (48.0, 8.0, 7.0)
    save(run.folder / "photo.jpg", photo(), exif=exif)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_the_photos_exif_comes_along_without_the_place(run: Program, suffix: str) -> None:
    with_exif(run)
    out = run.folder / f"out.{suffix}"
    paint = ("transfer", "photo.jpg", "style.png", "-o", out.name, *SMALL)
    for flags, make, gps in (
        ((), "Kamera", False),
        (("--keep-gps",), "Kamera", True),
        (("--strength", "0"), "Kamera", False),
        (("--no-metadata", "--overwrite"), None, False),
    ):
        run.good(*paint, *flags)
        with Image.open(out) as image:
            found = image.getexif()
            assert found.get(ExifTags.Base.Make) == make
            assert bool(found.get_ifd(ExifTags.IFD.GPSInfo)) == gps
        assert (read_settings(out) is None) == ("--no-metadata" in flags)


def test_a_style_or_a_texture_gives_no_exif(run: Program) -> None:
    with_exif(run)
    run.good("texture", "photo.jpg", "-o", "out.jpg", "--out-size", "40x36", "--steps", "2")
    run.good("transfer", "style.png", "photo.jpg", "-o", "second.jpg", *SMALL)
    for name in ("out.jpg", "second.jpg"):
        with Image.open(run.folder / name) as image:
            assert ExifTags.Base.Make not in image.getexif()


# Presets


def test_the_presets_command(run: Program) -> None:
    lines = run.good("presets").out.splitlines()
    assert lines[0].startswith("default")
    for name in PRESETS:
        assert run.good("presets", name).out.startswith(f"{name}: ")
    assert "there are default, gatys" in run.bad("presets", "nope")


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "default"])
def test_every_preset_runs_offline_on_slim(run: Program, name: str) -> None:
    flags = ("--preset", name, "--encoder", "slim", "--steps", "12", "--json", "log")
    run.good("transfer", "photo.png", "style.png", "-o", "out.png", *SMALL[:2], *flags)
    record = read_settings(run.folder / "out.png")
    assert record is not None
    assert record["settings"]["preset"] == name
    losses = [
        line["loss"]
        for line in map(json.loads, (run.folder / "log").read_text().splitlines())
        if line["event"] == "step"
    ]
    assert min(losses) < losses[0]
    halves = (*flags, "--threads", "1")
    run.good("texture", "style.png", "-o", "texture.png", "--out-size", "40x36", *halves)
    run.good("reconstruct", "photo.png", "-o", "layer.png", "--size", "40", *halves)


# What fails beside a result does not take the result along


def failing(*_: object, **__: object) -> None:
    raise ImpastoError("cannot write that: the disk is full")


@pytest.mark.parametrize(
    ("flags", "place"),
    [
        (("--preview", "look.png"), "impasto.terminal.Preview.__call__"),
        (("--save-every", "2"), "impasto.terminal.Snapshots.__call__"),
        (("--json", "log"), "impasto.terminal.JsonLog.event"),
        (("--film", "film.webp"), "impasto.film.Film.save"),
        (("--plot", "loss.png"), "impasto.plot.plot_losses"),
    ],
)
def test_the_result_is_saved_whatever_fails_beside_it(
    run: Program, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, str], place: str
) -> None:
    monkeypatch.setattr(place, failing)
    done = run(*TRANSFER, *flags)
    assert done.code == 2
    assert done.err.count("the disk is full") == 1  # said once, and given up
    assert (read_settings(run.folder / "out.png") or {})["status"] == "complete"


def test_a_failing_film_does_not_stop_the_plot(
    run: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto.film.Film.save", failing)
    assert run(*TRANSFER, "--film", "f.gif", "--plot", "loss.png").code == 2
    assert (run.folder / "loss.png").exists()


def test_a_batch_goes_on_without_its_log(run: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impasto.terminal.JsonLog.event", failing)
    done = run("transfer", "photo.png", "-s", "style.png", "-o", "all/", *SMALL, "--json", "log")
    assert done.code == 2
    assert "1 painted" in done.err
    assert (run.folder / "all" / "photo.png").exists()


def test_a_result_that_cannot_be_written_is_kept_elsewhere(
    run: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(picture: Any, path: Any, **options: Any) -> list[str]:
        if Path(path).name == "out.png" and Path(path).parent == Path():
            raise ImpastoError(f"cannot write {path}: the disk is full")
        return save_image(picture, path, **options)

    monkeypatch.setattr("impasto.progress.save_image", full)
    monkeypatch.setattr("tempfile.tempdir", str(run.folder))
    line = run(*TRANSFER).err.splitlines()[-1].split("; ")
    assert line[0] == "impasto: cannot write out.png: the disk is full"
    rescued = Path(line[1].removeprefix("the picture is safe in "))
    assert load(rescued).shape == (32, 40, 3)
    assert not (run.folder / "out.png").exists()
    monkeypatch.setattr("tempfile.tempdir", str(run.folder / "nowhere"))
    last = run(*TRANSFER).err.splitlines()[-1]
    assert last == "impasto: cannot write out.png: the disk is full"


def test_too_many_snapshots_are_a_slip(run: Program) -> None:
    line = run.bad(*TRANSFER[:5], "--steps", "1000000", "--save-every", "1")
    assert "1,000,000 pictures" in line


def test_a_message_has_no_control_characters() -> None:
    assert one_line("a\x1b[31mb\nc \t d\x00") == "a�[31mb c d�"
    assert one_line("Größe 512×512 · ½ … 写真.png") == "Größe 512×512 · ½ … 写真.png"
