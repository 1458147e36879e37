"""Animations read and written: what is shown, for how long, how often; what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, GifImagePlugin, Image

from impasto.animation import (
    ANIMATED_SUFFIXES,
    Animation,
    animated_suffix,
    open_animation,
    save_animation,
)
from impasto.convert import convert
from impasto.decode import Decoded
from impasto.errors import ImageError, ImpastoError
from impasto.images import Picture, open_image, read_record, save_image
from pictures import Array, photo, psnr, save

every_kind = pytest.mark.parametrize("suffix", ANIMATED_SUFFIXES)

CLEAR, BACK, OVER = 1, 2, 1  # of an animated PNG: what is done after a frame, and how it is laid


def drawn(count: int = 4, width: int = 40, height: int = 32) -> list[Array]:
    return [photo(width, height, seed) for seed in range(count)]


def pictures(frames: Sequence[Array]) -> list[Picture]:
    return [Picture(frame) for frame in frames]


def seen(path: Path, **options: Any) -> list[Array]:
    """The frames, (H, W, 4)."""
    return [rgba(picture) for picture in open_animation(path, **options).frames]


def rgba(picture: Picture) -> Array:
    alpha = picture.alpha
    opaque = np.full(picture.pixels.shape[:2], 255, np.uint8)
    return np.dstack((picture.pixels, opaque if alpha is None else alpha))


# --- files made by hand


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    at, found = 8, []
    while at < len(png):
        (size,) = struct.unpack_from(">L", png, at)
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def joined(parts: Sequence[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def stored(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


class Part:
    """A frame of an animated PNG: the PNG of a part, where it goes, and how."""

    def __init__(
        self,
        png: bytes,
        at: tuple[int, int] = (0, 0),
        delay: tuple[int, int] = (1, 10),
        after: int = 0,
        blend: int = 0,
    ) -> None:
        self.chunks = chunks(png)
        size = struct.unpack(">LL", self.chunks[0][1][:8])
        self.control = struct.pack(">LLLLHHBB", *size, *at, *delay, after, blend)
        self.data = b"".join(data for kind, data in self.chunks if kind == b"IDAT")


def apng(
    parts: Sequence[Part], *, loops: int = 0, default: bytes | None = None, count: int | None = None
) -> bytes:
    """An animated PNG; `default` is a picture that is no frame."""
    first = chunks(default) if default else parts[0].chunks
    head = [part for part in first if part[0] not in (b"IDAT", b"IEND")]
    number = len(parts) if count is None else count
    made = [head[0], (b"acTL", struct.pack(">LL", number, loops)), *head[1:]]
    made += [part for part in first if part[0] == b"IDAT"] if default else []
    order = 0
    for place, part in enumerate(parts):
        made.append((b"fcTL", struct.pack(">L", order) + part.control))
        order += 1
        if place == 0 and not default:
            made.append((b"IDAT", part.data))
            continue
        half = len(part.data) // 2
        for piece in (part.data[:half], part.data[half:]):
            made.append((b"fdAT", struct.pack(">L", order) + piece))
            order += 1
    return joined([*made, (b"IEND", b"")])


def gif(
    parts: Sequence[tuple[Array, tuple[int, int], int]],
    size: tuple[int, int] = (8, 6),
    *,
    clear: int | None = 3,
) -> bytes:
    """A GIF of palette indices, each at its place, and what is done after it (1 to 3)."""
    palette = [255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9]
    data = b"GIF89a" + struct.pack("<HHBBB", *size, 0xF1, 0, 0) + bytes(palette)
    for index, at, after in parts:
        image = Image.fromarray(index)
        image.putpalette(palette)
        told: dict[str, Any] = {"duration": 70, "disposal": after}
        if clear is not None:
            told["transparency"] = clear
        data += b"".join(GifImagePlugin.getdata(image, at, **told))
    return data + b";"


def flat(level: int, width: int = 8, height: int = 6) -> Array:
    return np.full((height, width), level, np.uint8)


# --- there and back


@every_kind
def test_what_is_written_is_read(suffix: str, tmp_path: Path) -> None:
    frames = drawn()
    path = tmp_path / f"a{suffix.upper()}"
    given = Animation(pictures(frames), (50, 120, 40, 2000), 3)
    assert save_animation(given, path) == []
    found = open_animation(path)
    assert found.durations == given.durations
    assert found.loops == 3
    made = list(found.frames)
    assert len(made) == 4
    for picture, frame in zip(made, frames, strict=True):
        assert picture.alpha is None
        assert psnr(picture.pixels, frame) > (99 if suffix == ".png" else 26)
    assert animated_suffix(path) == suffix
    assert found.first.size == (40, 32)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert {picture.sha256 for picture in made} == {digest}
    assert {picture.source for picture in made} == {str(path)}
    again = list(found.frames)  # as often as one likes
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(made, again, strict=True))


@every_kind
def test_the_first_frame_is_that_of_a_still_picture(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    save_animation(Animation(pictures(drawn()), (100,) * 4), path)
    still, first = open_image(path), open_animation(path).first
    assert np.array_equal(still.pixels, first.pixels)
    assert still.sha256 == first.sha256
    assert still.source == first.source


@every_kind
@pytest.mark.parametrize("loops", [0, 1, 2, 65_535])
def test_loops(suffix: str, loops: int, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    save_animation(Animation(pictures(drawn(2)), (50, 50), loops), path)
    assert open_animation(path).loops == loops


@every_kind
def test_equal_pictures_give_equal_files(suffix: str, tmp_path: Path) -> None:
    for name in "ab":
        save_animation(Animation(pictures(drawn()), (100,) * 4), tmp_path / (name + suffix))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@every_kind
def test_transparency(suffix: str, tmp_path: Path) -> None:
    frames = []
    for step in range(3):  # a disc that moves: what it leaves is transparent again
        y, x = np.mgrid[:32, :40]
        away = np.hypot(x - 12 - 6 * step, y - 16)
        frames.append(Picture(photo(), np.clip((10 - away) * 60, 0, 255).astype(np.uint8)))
    path = tmp_path / f"a{suffix}"
    notes = save_animation(Animation(frames, (80,) * 3), path)
    assert bool(notes) == (suffix == ".gif")
    for made, frame in zip(seen(path), frames, strict=True):
        assert frame.alpha is not None
        alpha = frame.alpha
        if suffix == ".gif":
            assert "half transparency" in notes[0]
            alpha = np.where(alpha < 128, 0, 255).astype(np.uint8)
        assert np.array_equal(made[..., 3], alpha)
        opaque = alpha == 255
        assert psnr(made[opaque][:, :3], frame.pixels[opaque]) > 24


def test_some_frames_are_transparent_and_some_are_not(tmp_path: Path) -> None:
    clear = Picture(photo(), np.zeros((32, 40), np.uint8))
    for suffix in ANIMATED_SUFFIXES:
        path = tmp_path / f"a{suffix}"
        save_animation(Animation([Picture(photo()), clear, Picture(photo())], (80,) * 3), path)
        assert [frame[..., 3].max() for frame in seen(path)] == [255, 0, 255]


@every_kind
@pytest.mark.parametrize("record", ['{"record": 1}', '{"näme": "жук ☕"}', "x" * 70_000])
def test_the_record(suffix: str, record: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    moving = Animation(pictures(drawn(2)), (50, 50))
    save_animation(moving, path, record=record)
    assert read_record(path) == record
    save_animation(moving, path, record=record, metadata=False)
    assert read_record(path) is None
    assert b"impasto" not in path.read_bytes()
    save_animation(moving, path)
    assert read_record(path) is None


def test_a_comment_of_another_is_no_record(tmp_path: Path) -> None:
    for comment in (b"made by hand\n{}", b"impasto film", b"impasto 0.1"):
        Image.new("L", (4, 4)).save(tmp_path / "a.gif", comment=comment)
        assert read_record(tmp_path / "a.gif") is None


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_profile_and_exif_are_there(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Ada"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    frames = [Picture(frame, exif=exif.tobytes()) for frame in drawn(2)]
    path = tmp_path / f"a{suffix}"
    save_image(frames[0], tmp_path / f"still{suffix}")
    with Image.open(tmp_path / f"still{suffix}") as still:
        profile = still.info["icc_profile"]
    for gps in (False, True):
        save_animation(Animation(frames, (50, 50)), path, record="{}", gps=gps)
        with Image.open(path) as image:
            assert image.n_frames == 2  # type: ignore[attr-defined]
            assert image.info["icc_profile"] == profile
            tags = image.getexif()
            assert tags[ExifTags.Base.Artist] == "Ada"
            assert bool(tags.get_ifd(ExifTags.IFD.GPSInfo)) == gps
        assert open_animation(path).first.exif
    save_animation(Animation(frames, (50, 50)), path, metadata=False)
    assert open_animation(path).first.exif is None


def test_frames_that_are_the_same(tmp_path: Path) -> None:
    """What is seen, and when, stays; WebP and PNG make one frame of them."""
    frames = pictures([photo(seed=1), photo(seed=1), photo(seed=2)])
    for suffix in ANIMATED_SUFFIXES:
        path = tmp_path / f"a{suffix}"
        save_animation(Animation(frames, (50, 70, 90)), path)
        assert open_animation(path).durations == ((50, 70, 90) if suffix == ".gif" else (120, 90))


@every_kind
def test_one_frame(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    save_animation(Animation(pictures(drawn(1)), (70,)), path, record="{}")
    assert animated_suffix(path) is None
    assert read_record(path) == "{}"
    assert len(seen(path)) == 1
    assert np.array_equal(seen(path)[0][..., :3], open_image(path).pixels)


def test_durations_that_a_format_cannot_hold(tmp_path: Path) -> None:
    for suffix, wanted in ((".png", 1_235_000), (".webp", 1_234_567), (".gif", 655_350)):
        path = tmp_path / f"a{suffix}"
        save_animation(Animation(pictures(drawn(2)), (1_234_567, 80)), path)
        assert open_animation(path).durations == (wanted, 80)


# --- what is in a file, and what is seen of it


@pytest.mark.parametrize(
    ("stored_ms", "shown"), [(0, 100), (10, 100), (20, 20), (70, 70), (65_000, 65_000)]
)
def test_no_duration_is_what_browsers_make_of_it(
    stored_ms: int, shown: int, tmp_path: Path
) -> None:
    images = [Image.fromarray(frame) for frame in drawn(3)]
    for suffix in ANIMATED_SUFFIXES:
        path = tmp_path / f"a{suffix}"
        images[0].save(path, save_all=True, append_images=images[1:], duration=stored_ms, loop=0)
        assert open_animation(path).durations == (shown,) * 3


RED, GREEN, BLUE, NOTHING = [255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], 0


@pytest.mark.parametrize(
    ("after", "left"), [(1, GREEN), (2, NOTHING), (3, RED)], ids=["stays", "cleared", "restored"]
)
def test_gif_of_parts(after: int, left: list[int] | int, tmp_path: Path) -> None:
    parts = [(flat(0), (0, 0), 1), (flat(1, 3, 2), (2, 1), after), (flat(2, 2, 2), (6, 4), 1)]
    path = tmp_path / "a.gif"
    path.write_bytes(gif(parts))
    first, second, third = seen(path)
    assert (first == RED).all()
    assert (second[1:3, 2:5] == GREEN).all()
    assert (second[3:] == RED).all()
    assert (third[4:, 6:] == BLUE).all()
    if left == NOTHING:
        assert (third[1:3, 2:5, 3] == 0).all()
    else:
        assert (third[1:3, 2:5] == left).all()
    assert (third[3, :6] == RED).all()


def test_gif_frame_beyond_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(gif([(flat(0), (0, 0), 1), (flat(1), (5, 4), 1), (flat(2, 2, 2), (0, 0), 1)]))
    frames = seen(path)
    assert {frame.shape for frame in frames} == {(6, 8, 4)}
    assert (frames[1][4:, 5:] == GREEN).all()
    assert (frames[1][:4] == RED).all()
    assert (frames[2][:2, :2] == BLUE).all()


def test_gif_without_loops_is_played_once(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(gif([(flat(0), (0, 0), 1), (flat(1), (0, 0), 1)]))
    assert open_animation(path).loops == 1
    assert open_animation(path).durations == (70, 70)


def test_png_of_parts(tmp_path: Path) -> None:
    whole = stored(Image.new("RGBA", (8, 6), (255, 0, 0, 255)))
    part = stored(Image.new("RGBA", (3, 2), (0, 255, 0, 255)))
    half = stored(Image.new("RGBA", (2, 2), (0, 0, 255, 51)))
    path = tmp_path / "a.png"
    for after, left in ((0, GREEN), (CLEAR, [0] * 4), (BACK, RED)):
        parts = [
            Part(whole, delay=(1, 4)),
            Part(part, (2, 1), delay=(3, 0), after=after),
            Part(half, (6, 4), delay=(0, 7), blend=OVER),
            Part(half, (0, 4)),
        ]
        path.write_bytes(apng(parts, loops=5))
        first, second, third, fourth = seen(path)
        assert (first == RED).all()
        assert (second[1:3, 2:5] == GREEN).all()
        assert (third[1:3, 2:5] == left).all()
        assert (third[4:, 6:] == [204, 0, 51, 255]).all()  # a fifth of the blue over red
        assert (fourth[4:, :2] == [0, 0, 255, 51]).all()  # in its place
        found = open_animation(path)
        assert found.durations == (250, 30, 100, 100)
        assert found.loops == 5


def test_half_transparent_on_nothing_is_what_it_was(tmp_path: Path) -> None:
    empty = stored(Image.new("RGBA", (8, 6), (0, 0, 0, 0)))
    soft = stored(Image.new("RGBA", (8, 6), (10, 200, 30, 100)))
    path = tmp_path / "a.png"
    path.write_bytes(apng([Part(empty), Part(soft, blend=OVER), Part(soft, blend=OVER)]))
    _, once, twice = seen(path)
    assert (once == [10, 200, 30, 100]).all()
    assert (twice[..., 3] == 100 + round(155 * 100 / 255)).all()
    assert np.abs(twice[..., :3].astype(int) - [10, 200, 30]).max() <= 1


def test_first_frame_that_would_be_restored(tmp_path: Path) -> None:
    red, part = (stored(Image.new("RGB", size, "red")) for size in ((8, 6), (2, 2)))
    path = tmp_path / "a.png"
    path.write_bytes(apng([Part(red, after=BACK), Part(part, (1, 1))]))
    assert seen(path)[1][..., 3].sum() == 4 * 255


def test_default_picture_that_is_no_frame(tmp_path: Path) -> None:
    frames = drawn(3)
    path = tmp_path / "a.png"
    parts = [Part(stored(Image.fromarray(frame))) for frame in frames[1:]]
    path.write_bytes(apng(parts, default=stored(Image.fromarray(frames[0]))))
    made = seen(path)
    assert len(made) == 2
    assert np.array_equal(made[0][..., :3], frames[1])
    assert np.array_equal(made[1][..., :3], frames[2])
    assert np.array_equal(open_image(path).pixels, frames[0])
    assert animated_suffix(path) == ".png"
    path.write_bytes(apng(parts[:1], default=stored(Image.fromarray(frames[0]))))
    assert animated_suffix(path) is None  # nothing moves


def test_png_with_a_palette_and_its_transparency(tmp_path: Path) -> None:
    def indexed(level: int, size: tuple[int, int]) -> bytes:
        image = Image.new("P", size, level)
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
        return stored(image, transparency=bytes([255, 255, 51, 0]))

    path = tmp_path / "a.png"
    parts = [Part(indexed(0, (8, 6))), *(Part(indexed(i, (2, 2)), blend=OVER) for i in (2, 3))]
    path.write_bytes(apng(parts))
    first, second, third = seen(path)
    assert (first == RED).all()
    assert (second[:2, :2] == [204, 0, 51, 255]).all()
    assert np.array_equal(second, third)


def test_png_of_16_bit(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65_535, 8 * 6).astype(np.uint16).reshape(6, 8)
    greys = [stored(Image.fromarray(level)) for level in (ramp, ramp[::-1].copy())]
    path = tmp_path / "a.png"
    path.write_bytes(apng([Part(grey) for grey in greys]))
    for made, level in zip(seen(path), (ramp, ramp[::-1]), strict=True):
        assert np.abs(made[..., 0] - level / 257).max() <= 0.5

    def deep(pixels: list[tuple[int, int, int]]) -> bytes:
        rows = b"\0" + b"".join(struct.pack(">HHH", *pixel) for pixel in pixels)
        header = struct.pack(">LLBBBBB", len(pixels), 1, 16, 2, 0, 0, 0)
        key = struct.pack(">HHH", 0x1234, 0, 0xFFFF)
        parts = [(b"IHDR", header), (b"tRNS", key), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
        return joined(parts)

    key, close = (0x1234, 0, 0xFFFF), (0x1235, 0, 0xFFFF)  # one of them is transparent
    path.write_bytes(apng([Part(deep([key, close])), Part(deep([close, key]))]))
    assert [frame[0, :, 3].tolist() for frame in seen(path)] == [[0, 255], [255, 0]]


def test_png_that_lies_on_its_side(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    frames = [Image.fromarray(frame) for frame in drawn(2)]
    path = tmp_path / "a.png"
    path.write_bytes(apng([Part(stored(frame, exif=exif)) for frame in frames]))
    made = seen(path)
    for found, frame in zip(made, frames, strict=True):
        assert np.array_equal(found[..., :3], np.rot90(np.asarray(frame), -1))
    assert np.array_equal(made[0][..., :3], open_image(path).pixels)


# --- what cannot be


@every_kind
def test_a_file_that_is_cut_off(suffix: str, tmp_path: Path) -> None:
    whole = tmp_path / f"whole{suffix}"
    save_animation(Animation(pictures(drawn()), (100,) * 4), whole)
    data, path = whole.read_bytes(), tmp_path / f"cut{suffix}"
    for share in (0.05, 0.3, 0.55, 0.8, 0.97):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ImageError, match=f"^cannot read .*cut{suffix}: the file is") as error:
            open_animation(path)
        assert "\n" not in str(error.value)


@every_kind
def test_every_byte_is_read_or_refused(suffix: str, tmp_path: Path) -> None:
    whole = tmp_path / f"whole{suffix}"
    save_animation(Animation(pictures(drawn(2, 9, 7)), (100,) * 2), whole)
    rng, data = np.random.default_rng(0), whole.read_bytes()
    path = tmp_path / f"a{suffix}"
    for _ in range(150):
        damaged = bytearray(data)
        damaged[rng.integers(12, len(data))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            frames = seen(path, max_pixels=100_000)
        except ImageError:
            continue
        assert len({frame.shape for frame in frames}) == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda parts: apng(parts, count=3), "3 frames are announced, 2 are there"),
        (
            lambda parts: apng(parts).replace(
                chunk(b"fcTL", struct.pack(">L", 1) + parts[1].control),
                chunk(b"fcTL", struct.pack(">L", 7) + parts[1].control),
            ),
            "its frames are out of order",
        ),
        (
            lambda parts: apng([parts[0], Part(stored(Image.new("RGB", (8, 6))), (1, 0))]),
            "a frame reaches beyond the picture",
        ),
    ],
)
def test_png_frames_that_do_not_fit(change: Any, why: str, tmp_path: Path) -> None:
    parts = [Part(stored(Image.new("RGB", (8, 6), color))) for color in ("red", "blue")]
    path = tmp_path / "a.png"
    path.write_bytes(change(parts))
    with pytest.raises(ImageError, match=why):
        open_animation(path)


@every_kind
def test_the_limit_is_for_all_frames(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    save_animation(Animation(pictures(drawn()), (100,) * 4), path)
    assert len(open_animation(path, max_pixels=4 * 40 * 32).durations) == 4
    with pytest.raises(ImageError, match=r"frames of 40 × 32 px have more than .* altogether"):
        open_animation(path, max_pixels=4 * 40 * 32 - 1)
    with pytest.raises(ImageError, match=r"max.megapixels"):
        open_animation(path, max_pixels=40)


def test_too_many_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impasto.animation.MOST_FRAMES", 3)
    path = tmp_path / "a.gif"
    save_animation(Animation(pictures(drawn(4)), (100,) * 4), path)
    with pytest.raises(ImageError, match="it has more than 3 frames"):
        open_animation(path)


def test_what_is_no_animation(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.tif", "a.bmp"):
        save(tmp_path / name, photo())
        assert animated_suffix(tmp_path / name) is None
        with pytest.raises(ImageError, match="it is no GIF, WebP or PNG"):
            open_animation(tmp_path / name)
    for name in ("a.png", "a.gif", "a.webp"):
        save(tmp_path / name, photo())
        assert animated_suffix(tmp_path / name) is None
        assert len(seen(tmp_path / name)) == 1
    for reading in (open_animation, animated_suffix):
        with pytest.raises(ImageError, match=r"cannot read .*none\.gif: no such file"):
            reading(tmp_path / "none.gif")
    (tmp_path / "odd.gif").write_bytes(b"GIF89a and no more")
    with pytest.raises(ImageError, match="truncated or damaged"):
        animated_suffix(tmp_path / "odd.gif")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    moving = Animation(pictures(drawn(2)), (50, 50))
    with pytest.raises(ImageError, match=r"use one of \.gif, \.webp, \.png"):
        save_animation(moving, tmp_path / "a.jpg")
    with pytest.raises(ImpastoError, match="does not exist"):
        save_animation(moving, tmp_path / "none" / "a.gif")
    uneven = Animation([Picture(photo()), Picture(photo(9, 9))], (50, 50))
    with pytest.raises(ImageError, match="one size"):
        save_animation(uneven, tmp_path / "a.gif")
    with pytest.raises(ImageError, match="each has a duration"):
        save_animation(Animation(pictures(drawn(3)), (50, 50)), tmp_path / "a.gif")
    wide = [Picture(np.zeros((1, 17_000, 3), np.uint8))] * 2
    with pytest.raises(ImageError, match=r"WEBP holds at most 16383 px a side; use \.png$"):
        save_animation(Animation(wide, (50, 50)), tmp_path / "a.webp")
    for durations, loops in (((), 0), ((50, 0), 0), ((50,), -1)):
        with pytest.raises(ImageError):
            Animation([], durations, loops)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(where: Path, data: bytes) -> int:
        where.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    for suffix in ANIMATED_SUFFIXES:
        path = tmp_path / f"a{suffix}"
        with path.open("wb") as file:
            file.write(b"old")
        with pytest.raises(ImpastoError, match="the disk is full"):
            save_animation(Animation(pictures(drawn(2)), (50, 50)), path)
        assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 3


def test_frames_wait_until_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.gif"
    save_animation(Animation(pictures(drawn()), (100,) * 4), path)
    made = open_animation(path)
    path.unlink()  # it is in memory
    converted: list[Decoded] = []

    def counted(decoded: Decoded) -> Any:
        converted.append(decoded)
        return convert(decoded)

    monkeypatch.setattr("impasto.animation.convert", counted)
    for number, _ in enumerate(made.frames, 1):
        assert len(converted) == number


def test_no_torch(tmp_path: Path) -> None:
    save_animation(Animation(pictures(drawn(2)), (50, 50)), tmp_path / "a.gif")
    code = (
        "import sys, impasto.animation as a\n"
        f"moving = a.open_animation({json.dumps(str(tmp_path / 'a.gif'))})\n"
        f"a.save_animation(moving, {json.dumps(str(tmp_path / 'b.webp'))})\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
