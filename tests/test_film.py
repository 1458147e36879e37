from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from PIL import Image

import impasto
from impasto import ImpastoError, Picture, film
from impasto.film import FILM_SUFFIXES, FIRST_HOLD, LAST_HOLD, Film
from impasto.progress import Progress, Result, drive
from pictures import Array, painting, photo, psnr

every_kind = pytest.mark.parametrize("suffix", FILM_SUFFIXES)
STILLS = (".gif", ".webp", ".png")


def unused() -> Result:
    raise AssertionError("nobody asked for the result")


def progress(step: int, steps: int, picture: Callable[[], Picture]) -> Progress:
    scale = 1 + 2 * step // (steps + 1)
    return Progress(
        job="transfer",
        scale=scale,
        scales=2,
        size=(48 * scale, 32 * scale),  # the film must not care
        step=step,
        steps=steps,
        loss=1 / step,
        parts={"style": 1 / step},
        done=step / steps,
        seconds=float(step),
        note=None,
        _picture=picture,
        _result=unused,
    )


def scene(step: int, steps: int, width: int = 96, height: int = 64) -> Array:
    """A bar that moves down over a photo."""
    pixels = photo(width, height)
    top = (height - 8) * (step - 1) // max(1, steps - 1)
    pixels[top : top + 8] = (250, 120, 20)
    return pixels


def shoot(film: Film, steps: int, *, until: int | None = None, width: int = 96) -> list[int]:
    """Runs the film through a job; gives the steps whose picture it asked for."""
    asked: list[int] = []

    def draw(step: int) -> Picture:
        asked.append(step)
        return Picture(scene(step, steps, width, width * 2 // 3))

    for step in range(1, (until or steps) + 1):
        film(progress(step, steps, lambda step=step: draw(step)))  # type: ignore[misc]
    return asked


def bar(frame: Array) -> int:
    """Where the bar of a scene begins, px from the top."""
    distance = np.abs(frame[:, 40:56].astype(int) - (250, 120, 20)).sum((1, 2))
    return int(np.argmin(np.convolve(distance, np.ones(8), "valid")))


class Reel(NamedTuple):
    """A film as a player sees it."""

    frames: list[Array]
    durations: list[int]  # ms

    @property
    def seconds(self) -> float:
        return sum(self.durations) / 1000


def watch(path: Path) -> Reel:
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            frames = [
                np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                for frame in container.decode(video=0)
            ]
            rate = container.streams.video[0].average_rate
            assert rate
        return Reel(frames, [round(1000 / rate)] * len(frames))
    frames = []
    durations: list[int] = []
    with Image.open(path) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(round(image.info.get("duration", 0)))
    return Reel(frames, durations)


# --- what is filmed


@every_kind
def test_a_film_from_the_first_step_to_the_result(suffix: str, tmp_path: Path) -> None:
    film = Film(tmp_path / f"film{suffix}")
    shoot(film, 300)
    result = photo(96, 64, seed=3)
    assert film.save(Picture(result)) == []
    reel = watch(film.path)
    assert {frame.shape for frame in reel.frames} == {(64, 96, 3)}
    assert 7.5 < reel.seconds < 8.5
    assert psnr(reel.frames[0], scene(1, 300)) > 22
    assert psnr(reel.frames[-1], result) > 22
    held = 36 if suffix == ".mp4" else 1
    tops = [bar(frame) for frame in reel.frames[:-held]]
    assert 50 < len(tops) <= 128  # equal frames may become one that stands longer
    assert tops[0] <= 1
    assert tops[-1] >= 55
    assert np.diff(tops).min() >= -1


@pytest.mark.parametrize("suffix", STILLS)
def test_first_and_last_stand_a_while(suffix: str, tmp_path: Path) -> None:
    film = Film(tmp_path / f"film{suffix}")
    shoot(film, 40)
    film.save(Picture(photo(96, 64, seed=3)))
    durations = watch(film.path).durations
    assert (durations[0], durations[-1]) == (FIRST_HOLD, LAST_HOLD)
    assert set(durations[1:-1]) == {120}


@pytest.mark.parametrize("suffix", STILLS)
def test_it_loops(suffix: str, tmp_path: Path) -> None:
    film = Film(tmp_path / f"film{suffix}")
    shoot(film, 5)
    film.save()
    with Image.open(film.path) as image:
        assert image.info["loop"] == 0


def test_the_first_steps_are_shown_most(tmp_path: Path) -> None:
    asked = shoot(Film(tmp_path / "film.gif"), 300)
    assert asked[:4] == [1, 2, 3, 4]
    assert asked[-1] == 300
    assert 100 < len(asked) <= 120
    gaps = np.diff(asked)
    assert gaps[:20].max() <= 2
    assert 3 <= gaps[-20:].min() <= gaps.max() <= 5


def test_every_step_of_a_short_run(tmp_path: Path) -> None:
    film = Film(tmp_path / "film.png")
    assert shoot(film, 7) == list(range(1, 8))
    film.save(Picture(painting(96, 64)))
    reel = watch(film.path)
    assert len(reel.frames) == 8
    assert set(reel.durations[1:-1]) == {120}  # no row of slides


def test_a_job_of_one_step(tmp_path: Path) -> None:
    film = Film(tmp_path / "film.mp4")
    assert shoot(film, 1) == [1]
    film.save()
    assert psnr(watch(film.path).frames[0], scene(1, 1)) > 25


def test_length_and_rate_can_be_chosen(tmp_path: Path) -> None:
    film = Film(tmp_path / "film.png", seconds=2, rate=10)
    assert len(shoot(film, 500)) == 20
    film.save()
    assert set(watch(film.path).durations[1:-1]) == {100}


# --- the frames


@pytest.mark.parametrize(("suffix", "size"), [(".gif", (101, 67)), (".mp4", (100, 66))])
def test_large_pictures_are_shrunk(suffix: str, size: tuple[int, int], tmp_path: Path) -> None:
    film = Film(tmp_path / f"film{suffix}", side=101)
    shoot(film, 3, width=600)
    assert film.save(Picture(photo(900, 600))) == []
    frames = watch(film.path).frames
    assert {frame.shape[1::-1] for frame in frames} == {size}
    expected = np.array(Image.fromarray(photo(900, 600)).resize(size, Image.Resampling.LANCZOS))
    assert psnr(frames[-1], expected) > 27


def test_small_pictures_stay_small(tmp_path: Path) -> None:
    film = Film(tmp_path / "film.mp4")
    shoot(film, 3, width=33)
    film.save()
    assert watch(film.path).frames[0].shape == (22, 32, 3)


def test_a_strip_can_be_a_film(tmp_path: Path) -> None:
    for suffix in FILM_SUFFIXES:
        film = Film(tmp_path / f"film{suffix}", side=40)
        for step in (1, 2):
            film(progress(step, 2, lambda: Picture(photo(900, 3))))
        film.save()
        assert watch(film.path).frames[0].shape[:2] == ((2, 40) if suffix == ".mp4" else (1, 40))


def test_only_small_frames_are_kept_and_not_too_many(tmp_path: Path) -> None:
    film = Film(tmp_path / "film.gif", side=30)
    pictures: list[weakref.ref[Picture]] = []

    pixels = photo(300, 200)

    def draw() -> Picture:
        picture = Picture(pixels)
        pictures.append(weakref.ref(picture))
        return picture

    for step in range(1, 5001):
        film(progress(step, 5000, draw))
    gc.collect()
    assert 100 < len(pictures) <= 120
    assert not any(picture() for picture in pictures)
    film.save()
    assert watch(film.path).frames[0].shape == (20, 30, 3)


@every_kind
def test_transparent_results_lie_on_white(suffix: str, tmp_path: Path) -> None:
    film = Film(tmp_path / f"film{suffix}")
    shoot(film, 3)
    alpha = np.full((64, 96), 255, np.uint8)
    alpha[:, :48] = 0
    film.save(Picture(np.full((64, 96, 3), (200, 30, 40), np.uint8), alpha))
    last = watch(film.path).frames[-1].astype(int)
    assert last[:, :40].min() > 245
    assert np.abs(last[:, 56:] - (200, 30, 40)).max() < 15


def test_a_result_of_another_shape_is_left_out(tmp_path: Path) -> None:
    film = Film(tmp_path / "film.png")
    shoot(film, 4)
    (note,) = film.save(Picture(photo(300, 64)))
    assert "another shape" in note
    assert psnr(watch(film.path).frames[-1], scene(4, 4)) > 27


@pytest.mark.parametrize("size", [(1000, 667), (1501, 1000), (48, 32)])
def test_rounding_is_not_another_shape(size: tuple[int, int], tmp_path: Path) -> None:
    film = Film(tmp_path / "film.gif")
    shoot(film, 2)
    assert film.save(Picture(photo(*size))) == []


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_the_palette_serves_every_frame_and_what_stands_still_stays(
    suffix: str, tmp_path: Path
) -> None:
    film = Film(tmp_path / f"film{suffix}")
    shoot(film, 40)
    film.save()
    frames = watch(film.path).frames
    assert len(frames) == 40
    for step, frame in enumerate(frames, 1):
        assert psnr(frame, scene(step, 40)) > 27
    for frame in frames[:36]:  # before the bar comes down there
        assert np.array_equal(frame[60:], frames[0][60:])


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_what_stands_still_costs_next_to_nothing(suffix: str, tmp_path: Path) -> None:
    sizes = []
    for steps in (1, 40):
        film = Film(tmp_path / f"film{suffix}")
        for step in range(1, steps + 1):
            pixels = painting(96, 64)
            pixels[0, 0] = pixels[-1, -1] = (6 * step, 0, 0)  # from corner to corner
            film(progress(step, steps, lambda pixels=pixels: Picture(pixels)))  # type: ignore[misc]
        film.save()
        sizes.append(film.path.stat().st_size)
    assert sizes[1] < 2.5 * sizes[0]


def test_pictures_of_one_colour(tmp_path: Path) -> None:
    film = Film(tmp_path / "film.gif")
    flat = Picture(np.full((32, 32, 3), (90, 90, 200), np.uint8))
    for step in (1, 2, 3):
        film(progress(step, 3, lambda: flat))
    film.save(flat)
    reel = watch(film.path)
    assert psnr(reel.frames[-1], flat.pixels) > 30
    assert reel.durations == [0] or reel.seconds > 2


def test_video_that_browsers_play(tmp_path: Path) -> None:
    film = Film(tmp_path / "film.mp4")
    flat = Picture(np.full((64, 96, 3), (30, 160, 90), np.uint8))
    for step in range(1, 13):
        film(progress(step, 12, lambda: flat))
    film.save(flat)
    data = film.path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(film.path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.color_primaries == 1  # BT.709, and so is the matrix:
    assert np.abs(watch(film.path).frames[5].astype(int) - flat.pixels).max() <= 3


# --- writing


@every_kind
def test_what_there_is_can_be_saved_early(suffix: str, tmp_path: Path) -> None:
    film = Film(tmp_path / f"film{suffix}")
    shoot(film, 300, until=40)
    assert film.save() == []
    early = watch(film.path)
    assert psnr(early.frames[-1], scene(40, 300)) > 22
    for step in range(41, 301):
        film(progress(step, 300, lambda step=step: Picture(scene(step, 300))))  # type: ignore[misc]
    film.save(Picture(photo(96, 64)))
    whole = watch(film.path)
    assert whole.seconds > early.seconds + 2
    film.save(Picture(photo(96, 64)))  # again: nothing is used up, nothing added
    assert watch(film.path).durations == whole.durations


@every_kind
def test_a_job_without_steps_is_one_frame(suffix: str, tmp_path: Path) -> None:
    film = Film(tmp_path / f"film{suffix}")
    assert film.save() == []
    assert list(tmp_path.iterdir()) == []
    film.save(Picture(photo(96, 64)))
    assert psnr(watch(film.path).frames[-1], photo(96, 64)) > 25


@pytest.mark.parametrize("suffix", STILLS)  # x264 differs by some bytes now and then
def test_the_same_frames_give_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        film = Film(tmp_path / f"film{suffix}")
        shoot(film, 12)
        film.save()
        written.append(film.path.read_bytes())
    assert written[0] == written[1]


@every_kind
def test_a_failing_write_leaves_the_old_file(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"film{suffix}"
    path.write_bytes(b"old")
    reel = Film(path)
    shoot(reel, 3)

    def fail(where: Path, data: bytes = b"half", *rest: object) -> int:
        with where.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    if suffix == ".mp4":
        monkeypatch.setattr(film, "_write_mp4", lambda where, *rest: fail(where))
    else:
        monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(ImpastoError, match=f"^cannot write .*film{suffix}: the disk is full$"):
        reel.save()
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@every_kind
def test_a_folder_that_is_not_there(suffix: str, tmp_path: Path) -> None:
    film = Film(tmp_path / "no" / f"film{suffix}")
    shoot(film, 2)
    with pytest.raises(ImpastoError, match="cannot write"):
        film.save()


@every_kind
def test_only_films_of_ours_may_be_replaced(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"film{suffix}"
    assert Film.may_replace(path)
    path.write_bytes(b"GIF89a and so on")
    assert not Film.may_replace(path)
    for marked in (True, False):
        film = Film(path, marked=marked)
        shoot(film, 12)
        film.save()
        assert Film.may_replace(path) == marked
    path.write_bytes(b"")
    assert Film.may_replace(path)


# --- before the job


@pytest.mark.parametrize("name", ["film.avi", "film", "film.jpg"])
def test_unknown_suffixes(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImpastoError, match=r"cannot write .* use one of \.gif, \.webp, \.png"):
        Film(tmp_path / name)
    Film(tmp_path / "FILM.GIF")


def test_video_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImpastoError, match=r'pip install "impasto\[video\]"'):
        Film(tmp_path / "film.mp4")
    shoot(Film(tmp_path / "film.webp"), 2)


def test_video_without_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mjpeg"})
    with pytest.raises(ImpastoError, match=r"H\.264"):
        Film(tmp_path / "film.mp4")


# --- a real one


def test_a_film_of_a_real_job(tmp_path: Path, painting: Picture) -> None:
    content = Picture(photo(200, 150))
    film = Film(tmp_path / "film.png")
    job = impasto.iter_transfer(content, painting, size=64, steps=20, scales=2, threads=1)
    result = drive(job, film)
    assert result.image.size == (200, 150)
    assert film.save(result.image) == []
    reel = watch(film.path)
    assert {frame.shape for frame in reel.frames} == {(48, 64, 3)}
    assert 15 <= len(reel.frames) <= 21
    small = np.array(result.image.pil().resize((64, 48), Image.Resampling.LANCZOS))
    assert psnr(reel.frames[-1], small) > 27
    start = np.array(content.pil().resize((64, 48), Image.Resampling.LANCZOS))
    assert psnr(reel.frames[0], start) > psnr(reel.frames[-1], start)
