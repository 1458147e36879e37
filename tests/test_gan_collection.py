"""What lies in folders: found, looked at, compared."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import pictures
from impasto.errors import ImageError
from impasto.gan import collection
from impasto.gan.collection import (
    Found,
    Report,
    Skipped,
    find,
    in_order,
    look,
    paintings,
    spread,
    survey,
    thumbnails,
)
from impasto.gan.pictures import Views, boxes


def report(*paths: Path) -> Report:
    *looked, last = survey(paths)
    assert isinstance(last, Report)
    assert len(looked) == len(paths)
    return last


def scene(width: int = 160, height: int = 120, seed: int = 0) -> pictures.Array:
    """A picture with much in it, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image)


def found(path: Path, pixels: pictures.Array) -> Found:
    return look(pictures.save(path, pixels))[1]


# --- find -----------------------------------------------------------------------------------------


def test_folders_are_searched_to_the_bottom(tmp_path: Path) -> None:
    deep = tmp_path / "b" / "c" / "d"
    deep.mkdir(parents=True)
    for path in (tmp_path / "a.png", deep / "e.JPG", tmp_path / "b" / "f.tif"):
        path.write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("no picture")
    assert find([tmp_path]) == [tmp_path / "a.png", deep / "e.JPG", tmp_path / "b" / "f.tif"]


def test_hidden_files_and_folders_are_left_out_unless_named(tmp_path: Path) -> None:
    hidden = tmp_path / ".thumbnails"
    hidden.mkdir()
    (hidden / "a.png").write_bytes(b"x")
    (tmp_path / "._b.png").write_bytes(b"x")
    assert find([tmp_path]) == []
    assert find([hidden]) == [hidden / "a.png"]


def test_a_file_that_is_named_can_have_any_suffix(tmp_path: Path) -> None:
    path = tmp_path / "scan.data"
    path.write_bytes(b"x")
    assert find([tmp_path]) == []
    assert find([path]) == [path]


def test_what_can_be_reached_twice_is_found_once(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    picture = inner / "a.png"
    picture.write_bytes(b"x")
    (inner / "b.png").symlink_to(picture)
    (tmp_path / "z").symlink_to(inner)
    assert find([tmp_path, inner, picture, tmp_path]) == [picture]


def test_links_that_loop_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    for name in ("up", "again", "more"):  # 3⁴⁰ ways, if each were followed
        (tmp_path / name).symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    assert find([tmp_path]) == [tmp_path / "a.png"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none: there is no such folder or file$"):
        find([tmp_path / "none"])


# --- looking at files -----------------------------------------------------------------------------


def test_nothing_here_needs_torch() -> None:
    code = "import sys, impasto.gan.cache; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_picture_is_told_by_its_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = pictures.save(tmp_path / "a.jpg", scene(80, 60), exif=exif)
    assert look(path)[1].size == (60, 80)


def test_every_kind_of_file_is_read_or_told_why_not(tmp_path: Path) -> None:
    pixels = scene()
    image = Image.fromarray(pixels)
    deep = np.arange(120 * 160, dtype=np.uint16).reshape(120, 160)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.convert("L").save(tmp_path / "grey.png")
    image.convert("P").save(tmp_path / "palette.png")
    pictures.save(tmp_path / "rgba.png", pixels, pictures.transparency(160, 120))
    image.save(tmp_path / "moving.gif", save_all=True, append_images=[image.rotate(180)] * 3)
    good = find([tmp_path])
    assert [one.path for one in report(*good).found] == good

    whole = (tmp_path / "rgba.png").read_bytes()
    bad = {
        "cut.png": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "text.webp": b"no picture at all",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    pictures.save(tmp_path / "tiny.png", scene(31, 200))
    pictures.save(tmp_path / "vast.png", scene(500, 500))
    paths = [tmp_path / name for name in (*bad, "tiny.png", "vast.png", "gone.png")]
    *_, last = survey([*paths, *good], max_pixels=200_000)
    assert isinstance(last, Report)
    assert len(last.found) == len(good)
    reasons = {skipped.path.name: skipped.reason for skipped in last.skipped}
    assert list(reasons) == [path.name for path in paths]
    assert reasons["empty.jpg"] == "the file is empty"
    assert reasons["tiny.png"] == "it has 31 × 200 px, less than 32 px a side"
    assert "megapixels" in reasons["vast.png"]
    assert reasons["gone.png"] == "no such file"
    assert all("\n" not in reason and "cannot read" not in reason for reason in reasons.values())


def test_of_an_animation_it_is_the_first_frame(tmp_path: Path) -> None:
    first = Image.fromarray(scene()).quantize(64)
    other = Image.fromarray(scene(seed=1)).quantize(64)
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[other])
    first.save(tmp_path / "still.gif")
    assert report(*find([tmp_path])).exact == ((tmp_path / "moving.gif", tmp_path / "still.gif"),)


def test_running_out_of_memory_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    path = pictures.save(tmp_path / "a.png", scene())
    monkeypatch.setattr(collection, "_difference_hash", fail)
    assert report(path).skipped == (Skipped(path, "not enough memory"),)


# --- duplicates -----------------------------------------------------------------------------------


def test_equal_pixels_are_exact_duplicates_whatever_the_file(tmp_path: Path) -> None:
    pixels = scene()
    pictures.save(tmp_path / "a.png", pixels)
    pictures.save(tmp_path / "b.webp", pixels, lossless=True)
    pictures.save(tmp_path / "c.tif", pixels)
    pictures.save(tmp_path / "d.png", pixels, np.full(pixels.shape[:2], 255, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 3
    pictures.save(tmp_path / "e.png", pixels[::-1, ::-1], exif=exif)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pictures.save(tmp_path / "f.png", pixels, icc_profile=profile)
    pictures.save(tmp_path / "g.png", np.ascontiguousarray(pixels.reshape(160, 120, 3)))
    told = report(*find([tmp_path]))
    assert [[path.stem for path in group] for group in told.exact] == [
        ["a", "b", "c", "d", "e", "f"]
    ]
    assert told.near == ()
    assert told.paintings == 2


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer)


def test_altered_copies_are_near_duplicates(tmp_path: Path) -> None:
    image = Image.fromarray(scene(400, 300))
    image.save(tmp_path / "original.png")
    image.resize((200, 150), Image.Resampling.LANCZOS).save(tmp_path / "half.png")
    jpeg(image).save(tmp_path / "jpeg.png")
    image.crop((4, 3, 396, 297)).save(tmp_path / "cut.png")
    lighter = Image.fromarray(np.minimum(np.array(image) * 1.05, 255).astype(np.uint8))
    lighter.save(tmp_path / "lighter.png")
    pictures.save(tmp_path / "other.png", scene(400, 300, seed=1))
    told = report(*find([tmp_path]))
    names = [{path.stem for path in group} for group in told.near]
    assert names == [{"original", "half", "jpeg", "cut", "lighter"}]
    assert told.exact == ()
    assert told.paintings == 2


def test_flat_pictures_are_alike_only_in_like_colours(tmp_path: Path) -> None:
    levels = [0, 60, 62, 120, 255]
    for level in levels:
        pictures.save(tmp_path / f"{level:03}.png", np.full((64, 64, 3), level, np.uint8))
    told = report(*find([tmp_path]))
    assert {one.fingerprint for one in told.found} == {0}
    assert told.near == ((tmp_path / "060.png", tmp_path / "062.png"),)


def test_a_pale_drawing_is_not_like_another(tmp_path: Path) -> None:
    drawings = [240 + scene(seed=seed) // 32 for seed in range(5)]
    each = [found(tmp_path / f"{i}.png", pixels) for i, pixels in enumerate(drawings)]
    difference = np.abs(np.subtract(*(np.array(d, int) for d in drawings[:2]))).mean()
    assert difference < collection.THUMBNAIL_LEVELS
    assert paintings(each).tolist() == [0, 1, 2, 3, 4]


def test_a_mirrored_picture_is_another(tmp_path: Path) -> None:
    each = [found(tmp_path / "a.png", scene()), found(tmp_path / "b.png", scene()[:, ::-1].copy())]
    assert paintings(each).tolist() == [0, 1]


def test_paintings_are_those_of_a_comparison_of_every_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    bases = [scene(64, 64, seed) for seed in range(20)]
    each = []
    for i in range(90):
        noise = rng.normal(0, 6, (64, 64, 3))
        pixels = np.clip(bases[i % 20] * rng.uniform(0.9, 1) + noise, 0, 255).astype(np.uint8)
        each.append(found(tmp_path / f"{i}.png", pixels))

    def alike(a: Found, b: Found) -> bool:
        left, right = (np.frombuffer(one.thumbnail, np.uint8).astype(int) for one in (a, b))
        bits = (a.fingerprint ^ b.fingerprint).bit_count()
        limit = collection.THUMBNAIL_LEVELS
        return bits <= collection.HASH_BITS and float(np.abs(left - right).mean()) <= limit

    group = list(range(len(each)))
    for i in range(len(each)):
        for j in range(i):
            if alike(each[i], each[j]):
                old, new = max(group[i], group[j]), min(group[i], group[j])
                group = [new if number == old else number for number in group]
    expected = [sorted(set(group)).index(number) for number in group]
    assert 20 <= len(set(expected)) < 60
    monkeypatch.setattr(collection, "_BLOCK", 7)
    monkeypatch.setattr(collection, "_PAIRS", 5)
    assert paintings(each).tolist() == expected
    assert paintings([]).tolist() == []


# --- telling --------------------------------------------------------------------------------------


def test_the_report_in_lines(tmp_path: Path) -> None:
    pictures.save(tmp_path / "a.png", scene(100, 50))
    pictures.save(tmp_path / "b.tif", scene(100, 50))
    pictures.save(tmp_path / "c.jpg", scene(100, 50), quality=90)
    pictures.save(tmp_path / "d.png", scene(300, 900, seed=1))
    (tmp_path / "e.png").write_bytes(b"")
    told = report(*find([tmp_path]))
    assert told.sides == (50, 50, 300)
    assert told.lines() == [
        "4 pictures, 2 paintings",
        "short side: 50 px at least, 50 px median, 300 px at most",
        "the same pixels, used once: 1 group",
        f"  {tmp_path}/a.png = {tmp_path}/b.tif",
        "alike, kept together: 1 group",
        f"  {tmp_path}/a.png ~ {tmp_path}/c.jpg",
        "not used: 1 file",
        f"  {tmp_path}/e.png: the file is empty",
    ]


def test_a_long_report_is_cut_and_a_strange_name_harmless(tmp_path: Path) -> None:
    skipped = tuple(Skipped(Path(f"{i}\x1b[31m\n.png"), "torn") for i in range(13))
    lines = Report((), skipped, (), ()).lines()
    assert lines[0] == "0 pictures, 0 paintings"
    assert lines[1] == "not used: 13 files"
    assert lines[2] == "  0\ufffd[31m .png: torn"
    assert lines[-1] == "  and 3 more"
    assert len(lines) == 2 + collection.SHOWN + 1


def test_places_are_spread_evenly() -> None:
    assert spread(3, 101).tolist() == [0, 50, 100]
    assert spread(5, 3).tolist() == [0, 1, 2]
    assert spread(4, 0).tolist() == []
    assert len(set(spread(48, 1000).tolist())) == 48


def test_a_sheet_shows_whole_pictures_in_rows(tmp_path: Path) -> None:
    paths = [
        pictures.save(tmp_path / f"{i}.png", np.full((64, 640, 3), (10 * i, 0, 0), np.uint8))
        for i in range(9)
    ]
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"")
    sheet = thumbnails(report(torn, *paths), count=10)
    pitch = collection.SHEET_CELL + 12
    assert sheet.size == (8 * pitch + 12, 2 * pitch + 12)
    middle = 12 + collection.SHEET_CELL // 2
    assert sheet.pixels[middle, middle].tolist() == [0, 0, 0]
    assert sheet.pixels[middle, middle + 7 * pitch].tolist() == [70, 0, 0]
    assert sheet.pixels[middle + pitch, middle].tolist() == [80, 0, 0]
    assert sheet.pixels[middle - 40, middle].tolist() == [255, 255, 255]
    assert thumbnails(report(*paths), count=2).size == (2 * pitch + 12, pitch + 12)
    gone = report(*paths)
    paths[3].unlink()
    assert thumbnails(gone, count=9).size == (8 * pitch + 12, pitch + 12)
    with pytest.raises(ImageError, match="no picture to show"):
        thumbnails(report(torn))


def test_a_sheet_shows_small_webps(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.webp" for number in range(3)]
    for path in paths:
        pictures.save(path, pictures.painting(40, 40))
    pitch = collection.SHEET_CELL + 12
    assert thumbnails(report(*paths)).size == (3 * pitch + 12, pitch + 12)


def test_a_sheet_of_squares_shows_what_is_cut(tmp_path: Path) -> None:
    scroll = np.zeros((64, 256, 3), np.uint8)
    scroll[:, :, 0] = np.arange(256) // 64 * 60
    path = pictures.save(tmp_path / "scroll.png", scroll)
    views = Views(32, tile=True)
    sheet = thumbnails(report(path), lambda one: boxes(one.size, views, 0))
    middles = [12 + 80 + i * (collection.SHEET_CELL + 12) for i in range(4)]
    assert sheet.pixels[12 + 80, middles, 0].tolist() == [0, 60, 120, 180]


def test_work_comes_back_in_order_and_stops_when_it_is_dropped() -> None:
    assert list(in_order(lambda number: -number, range(50))) == [-n for n in range(50)]
    begun: list[int] = []
    work = in_order(begun.append, range(1000))
    next(work)
    work.close()
    assert len(begun) < 100
