from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin, features

import hostile
from hostile import (
    UPRIGHT,
    cmyk_of_one_colour,
    drawing,
    linear_grey,
    png,
    srgb_with_red_and_green_swapped,
)
from impasto import convert
from impasto.errors import ImageError, ImpastoError
from impasto.images import (
    MAX_PIXELS,
    SUFFIXES_OUT,
    Picture,
    check_output_path,
    open_image,
    pictures_in,
    read_record,
    save_image,
)

Array = np.ndarray[Any, np.dtype[np.uint8]]
ALL_OUT = sorted(SUFFIXES_OUT)


def saved(path: Path, array: np.ndarray[Any, Any], mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def message(path: Path, **options: Any) -> str:
    """The reason why ``path`` is refused, checked for its form."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ImageError) as refused:
            open_image(path, **options)
    assert not caught
    text = str(refused.value)
    assert text.startswith(f"cannot read {path}: ")
    assert "\n" not in text
    return text.removeprefix(f"cannot read {path}: ")


# Picture


def test_picture_checks_its_arrays() -> None:
    good = drawing()
    for pixels, alpha in [
        (good[..., :2], None),
        (good[0], None),
        (good[:0], None),
        (good.astype(np.float32), None),
        (good, good),
        (good, good[1:, :, 0]),
        (good, good[..., 0].astype(bool)),
        (good.tolist(), None),
    ]:
        with pytest.raises(ImageError):
            Picture(pixels, alpha)
    picture = Picture(good, good[..., 0])
    assert (picture.width, picture.height, picture.size) == (32, 24, (32, 24))
    assert replace(picture, alpha=None, source="x").source == "x"


def test_tensor_and_back() -> None:
    levels = np.arange(256 * 3, dtype=np.uint32).astype(np.uint8).reshape(16, 16, 3)
    levels.flags.writeable = False
    tensor = Picture(levels).tensor()
    assert tensor.shape == (1, 3, 16, 16)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert tensor[0, 1, 2, 3] == np.float32(levels[2, 3, 1]) / np.float32(255)
    for back in (tensor, tensor[0], tensor.double(), tensor.clone().requires_grad_()):
        assert np.array_equal(Picture.from_tensor(back, levels[..., 0]).pixels, levels)
    assert Picture(levels).tensor("meta").device.type == "meta"


def test_from_tensor_clamps_and_rounds_to_nearest() -> None:
    values = torch.tensor([-5.0, 0.49, 0.51, 100.49, 100.51, 254.51, 900.0]) / 255
    picture = Picture.from_tensor(values.expand(3, 1, 7))
    assert picture.pixels[0, :, 0].tolist() == [0, 0, 1, 100, 101, 255, 255]
    assert picture.alpha is None


@pytest.mark.parametrize(
    "tensor",
    [
        torch.full((3, 2, 2), float("nan")),
        torch.full((1, 3, 2, 2), float("inf")),
        torch.zeros(2, 3, 2, 2),
        torch.zeros(4, 2, 2),
        torch.zeros(3, 2),
        torch.zeros(3, 0, 2),
        torch.zeros(3, 2, 2, dtype=torch.uint8),
    ],
)
def test_from_tensor_refuses(tensor: torch.Tensor) -> None:
    with pytest.raises(ImageError):
        Picture.from_tensor(tensor)


def test_from_pil_converts_and_leaves_the_image_alone() -> None:
    ramp = np.array([[0, 257 * 128, 65535]], np.uint16)
    image = Image.fromarray(ramp)
    image.getexif()[ExifTags.Base.Orientation] = 6
    picture = Picture.from_pil(image)
    assert picture.pixels[:, 0].tolist() == [[0] * 3, [128] * 3, [255] * 3]
    assert picture.source is None
    assert picture.sha256 is None
    assert image.getexif()[ExifTags.Base.Orientation] == 6
    assert np.array_equal(np.asarray(image), ramp)
    rgba = np.dstack((drawing(), drawing()[..., 0]))
    again = Picture.from_pil(Picture.from_pil(Image.fromarray(rgba)).pil())
    assert np.array_equal(np.asarray(again.pil()), rgba)
    assert Picture(drawing()).pil().mode == "RGB"
    with pytest.raises(ImageError, match="cannot use the picture: it has no pixels"):
        Picture.from_pil(Image.new("RGB", (0, 4)))


# Reading: formats and modes


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".jpg", ".webp", ".avif", ".gif"])
def test_reads_each_format_and_says_where_it_came_from(tmp_path: Path, suffix: str) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    lossy = suffix in (".jpg", ".webp", ".avif", ".gif")
    options: dict[str, Any] = {"quality": 95} if suffix in (".jpg", ".webp", ".avif") else {}
    path = saved(tmp_path / f"a{suffix}", drawing(), **options)
    picture = open_image(path)
    difference = np.abs(picture.pixels.astype(int) - drawing())
    assert difference.mean() < (6 if lossy else 1e-9)
    assert picture.alpha is None
    assert picture.source == str(path)
    assert picture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", drawing())
    assert np.array_equal(open_image(path.rename(tmp_path / "a.jpg")).pixels, drawing())


def test_first_frame_of_animations_and_of_phone_pictures(tmp_path: Path) -> None:
    first, second = Image.fromarray(drawing()), Image.new("RGB", (32, 24), "red")
    for name, form in [("a.jpg", "MPO"), ("a.webp", "WEBP"), ("a.gif", "GIF"), ("a.tif", "TIFF")]:
        first.copy().save(tmp_path / name, form, save_all=True, append_images=[second.copy()])
        pixels = open_image(tmp_path / name).pixels.astype(int)
        assert np.abs(pixels - drawing()).mean() < 8, form


def test_grey_of_16_bit_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(1, 256)
    for path in (
        saved(tmp_path / "a.png", ramp),
        saved(tmp_path / "a.tif", ramp),
        saved(tmp_path / "big.tif", ramp.astype(">u2")),
        saved(tmp_path / "i.tif", ramp.astype(np.int32)),
    ):
        assert open_image(path).pixels[0].tolist() == [[i] * 3 for i in range(256)], path
    between = saved(tmp_path / "b.png", np.array([[128, 129, 65406, 65407]], np.uint16))
    assert open_image(between).pixels[0, :, 0].tolist() == [0, 1, 254, 255]


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        (np.array([[0, 50_000, 100_000]], np.int32), [0, 128, 255]),
        (np.array([[-100, 0, 155]], np.int32), [0, 100, 255]),
        (np.array([[70_000, 70_000]], np.int32), [0, 0]),
        (np.array([[0, 0.2, 0.5]], np.float32), [0, 51, 128]),
        (np.array([[0, 1.4, 200]], np.float32), [0, 1, 200]),
        (np.array([[-1, 0, 3]], np.float32), [0, 64, 255]),
        (np.array([[np.nan, 0.2, np.inf, -np.inf]], np.float32), [0, 51, 255, 0]),
        (np.array([[np.nan, 0.2, 300, np.inf]], np.float32), [0, 0, 255, 255]),
        (np.array([[np.nan, np.nan]], np.float32), [0, 0]),
    ],
)
def test_grey_of_32_bit(tmp_path: Path, values: Any, levels: list[int]) -> None:
    pixels = open_image(saved(tmp_path / "a.tif", values)).pixels
    assert pixels[0, :, 0].tolist() == levels
    assert (pixels == pixels[..., :1]).all()


def test_colour_of_16_bit_is_scaled(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1, 16, 6, [struct.pack(">4H", 0x1200, 0x80FF, 0xFFFF, 0x3400)]))
    picture = open_image(path)
    assert picture.pixels.tolist() == [[[0x12, 0x80, 0xFF]]]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0x34]]


def test_one_bit_grey_and_palette(tmp_path: Path) -> None:
    bits = np.array([[True, False, True]])
    for name in ("a.png", "a.tif", "a.bmp", "a.gif"):
        path = saved(tmp_path / name, bits)
        assert open_image(path).pixels.tolist() == [[[255] * 3, [0] * 3, [255] * 3]], name
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for name in ("p.png", "p.tif", "p.bmp", "p.gif"):
        image.save(tmp_path / name)
        picture = open_image(tmp_path / name)
        assert picture.pixels.tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]], name
        assert picture.alpha is None


def test_cmyk_without_a_profile(tmp_path: Path) -> None:
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255], [0, 255, 0, 0]]], np.uint8)
    wide = np.repeat(np.repeat(inks, 16, axis=0), 16, axis=1)
    expected = [[255, 255, 255], [0, 255, 255], [0, 0, 0], [255, 0, 255]]
    image = Image.frombytes("CMYK", (64, 16), wide.tobytes())
    for name in ("a.tif", "a.jpg"):
        image.save(tmp_path / name, quality=100) if name == "a.jpg" else image.save(tmp_path / name)
        pixels = open_image(tmp_path / name).pixels[8, 8::16].astype(int)
        assert np.abs(pixels - expected).max() <= 3, name


def test_lab(tmp_path: Path) -> None:
    # L* in 0..255 for 0..100, a* and b* as signed bytes: white, black, and the red of sRGB (D50).
    stored = bytes((255, 0, 0, 0, 0, 0, 138, 81, 70))
    Image.frombytes("LAB", (3, 1), stored).save(tmp_path / "a.tif")
    pixels = open_image(tmp_path / "a.tif").pixels[0].astype(int)
    assert np.abs(pixels - [[255] * 3, [0] * 3, [255, 0, 0]]).max() <= 6


# Reading: transparency


def test_alpha_is_kept_aside(tmp_path: Path) -> None:
    rgba = np.dstack((drawing(), 255 - drawing()[..., 0]))
    for name in ("a.png", "a.tif"):
        picture = open_image(saved(tmp_path / name, rgba))
        assert picture.alpha is not None
        assert np.array_equal(picture.pixels, rgba[..., :3])
        assert np.array_equal(picture.alpha, rgba[..., 3])
    rgba[..., 3] = 255
    assert open_image(saved(tmp_path / "opaque.png", rgba)).alpha is None


def test_grey_with_alpha(tmp_path: Path) -> None:
    image = Image.frombytes("LA", (2, 1), bytes((10, 20, 200, 255)))
    image.save(tmp_path / "a.png")
    picture = open_image(tmp_path / "a.png")
    assert picture.pixels.tolist() == [[[10] * 3, [200] * 3]]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[20, 255]]


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
def test_rare_modes_with_alpha(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (100, 100, 100, 128))
    image.putpixel((1, 0), (200, 200, 200, 255))
    converted = image.convert("LA").convert("La") if mode == "La" else image.convert(mode)
    assert converted.mode == mode
    picture = Picture.from_pil(converted)
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[128, 255]]
    assert np.abs(picture.pixels[0, :, 0].astype(int) - [100, 200]).max() <= 1


def test_transparent_palette_and_colour_keys(tmp_path: Path) -> None:
    palette = bytes((10, 20, 30, 40, 50, 60, 70, 80, 90))
    deep = struct.pack(">3H", 0, 0x8001, 0x8002)
    key = b"\0\1"
    cases: list[tuple[str, int, int, bytes, list[tuple[bytes, bytes]], list[int]]] = [
        ("entries", 8, 3, b"\0\1\2", [(b"PLTE", palette), (b"tRNS", b"\x80\xff ")], [128, 255, 32]),
        ("entry", 8, 3, b"\0\1\2", [(b"PLTE", palette), (b"tRNS", b"\xff\0")], [255, 0, 255]),
        ("grey", 8, 0, b"\0\1\2", [(b"tRNS", key)], [255, 0, 255]),
        ("bit", 1, 0, b"\x40", [(b"tRNS", key)], [255, 0, 255]),
        ("colour", 8, 2, palette, [(b"tRNS", b"\0\x28\0\x32\0\x3c")], [255, 0, 255]),
        ("deep", 16, 0, deep, [(b"tRNS", b"\x80\1")], [255, 0, 255]),
    ]
    for name, depth, color, row, chunks, alpha in cases:
        path = tmp_path / f"{name}.png"
        path.write_bytes(png(3, 1, depth, color, [row], *chunks))
        picture = open_image(path)
        assert picture.alpha is not None, name
        assert picture.alpha.tolist() == [alpha], name
        if color in (2, 3):
            assert picture.pixels.tobytes() == palette, name
    gif = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    gif.putpalette(palette)
    gif.save(tmp_path / "a.gif", transparency=2)
    picture = open_image(tmp_path / "a.gif")
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 255, 0]]


# Reading: orientation, EXIF, ICC


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Maker"
    rgba = np.dstack((drawing(), drawing()[..., 1]))
    stored = rgba[..., :3] if suffix == ".jpg" else rgba
    encoder: dict[str, dict[str, Any]] = {
        ".jpg": {"quality": 100},
        ".webp": {"lossless": True, "exact": True},
    }
    picture = open_image(
        saved(tmp_path / f"a{suffix}", stored, exif=exif, **encoder.get(suffix, {}))
    )
    expected = UPRIGHT[orientation](rgba)
    assert picture.size == expected.shape[1::-1]
    assert np.abs(picture.pixels.astype(int) - expected[..., :3]).max() <= (12 * (suffix == ".jpg"))
    if picture.alpha is not None:
        assert np.array_equal(picture.alpha, expected[..., 3])
    assert picture.exif is not None
    kept = Image.Exif()
    kept.load(picture.exif)
    assert kept[ExifTags.Base.Orientation] == 1
    assert kept[ExifTags.Base.Make] == "Maker"


def test_damaged_exif_leaves_a_good_picture(tmp_path: Path) -> None:
    good = Image.Exif()
    good[ExifTags.Base.Orientation] = 6
    for block in (b"Exif\0\0garbage", good.tobytes()[:-6], b"Exif\0\0MM\0*\xff\xff\xff\xff"):
        picture = open_image(saved(tmp_path / "a.jpg", drawing(), exif=block))
        assert sorted(picture.size) == [24, 32]
        if b"Exif" in block[:4] and good.tobytes()[:14] != block[:14]:
            assert picture.exif == block


def test_icc_profiles(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb_with_red_and_green_swapped()
    plain = open_image(saved(tmp_path / "a.png", drawing(), icc_profile=srgb)).pixels
    assert np.abs(plain.astype(int) - drawing()).max() <= 1
    turned = open_image(saved(tmp_path / "b.png", drawing(), icc_profile=swapped)).pixels
    assert np.abs(turned.astype(int) - drawing()[..., [1, 0, 2]]).max() <= 1
    rgba = np.dstack((drawing(), drawing()[..., 1]))
    with_alpha = open_image(saved(tmp_path / "c.png", rgba, icc_profile=swapped))
    assert np.array_equal(with_alpha.pixels, turned)
    assert with_alpha.alpha is not None
    assert np.array_equal(with_alpha.alpha, rgba[..., 3])


def test_grey_icc_profile(tmp_path: Path) -> None:
    # Linear light: 128 / 255 is sRGB 188.
    greys: list[tuple[str, np.ndarray[Any, Any]]] = [
        ("l.png", np.array([[0, 128, 255]], np.uint8)),
        ("i.png", np.array([[0, 128 * 257, 65535]], np.uint16)),
    ]
    for name, array in greys:
        path = saved(tmp_path / name, array, icc_profile=linear_grey())
        levels = open_image(path).pixels[0].astype(int)
        assert np.abs(levels - [[0] * 3, [188] * 3, [255] * 3]).max() <= 1, name


def test_cmyk_icc_profile(tmp_path: Path) -> None:
    # L* 60, a* +40, b* -20 in every ink; the expected value is Pillow's for that colour.
    profile = cmyk_of_one_colour((153, 168, 108))
    Image.new("CMYK", (8, 8), (200, 10, 30, 0)).save(tmp_path / "a.tif", icc_profile=profile)
    lab = Image.frombytes("LAB", (1, 1), bytes((153, 40, 256 - 20)))
    expected = np.asarray(lab.convert("RGB"))[0, 0].astype(int)
    pixels = open_image(tmp_path / "a.tif").pixels.astype(int)
    assert np.abs(pixels - expected).max() <= 3
    assert np.abs(pixels - [55, 245, 225]).max() > 100  # what it would be without the profile


@pytest.mark.parametrize("profile", ["garbage", "truncated", "grey", "cmyk"])
def test_profiles_that_do_not_fit_are_ignored(tmp_path: Path, profile: str) -> None:
    data = {
        "garbage": b"not a profile" * 20,
        "truncated": srgb_with_red_and_green_swapped()[:300],
        "grey": linear_grey(),
        "cmyk": cmyk_of_one_colour((153, 168, 108)),
    }[profile]
    path = saved(tmp_path / "a.png", drawing(), icc_profile=data)
    assert np.array_equal(open_image(path).pixels, drawing())


@pytest.mark.parametrize("group", ["turned", "deep", "transparent", "palettes"])
def test_large_pictures_are_converted_in_bands(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "_BAND", 1)  # row by row
    for case in hostile.GROUPS[group]():
        if case.opens and case.pixels is not None:
            picture = open_image(case.write(tmp_path))
            shown = np.asarray(picture.pil())
            assert shown.shape == case.pixels.shape, case.name
            assert np.abs(shown.astype(int) - case.pixels).max() <= case.tolerance, case.name


# Reading: refusals


def test_what_is_not_a_picture(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_text("<!doctype html><p>404 Not Found</p>")
    (tmp_path / "stub.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    assert message(tmp_path / "none.jpg") == "no such file"
    assert message(tmp_path) == "it is a folder"
    assert message(tmp_path / "empty.png") == "the file is empty"
    assert message(tmp_path / "page.jpg") == (
        "not a JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF picture"
    )
    assert message(tmp_path / "stub.png") == "the file is truncated or damaged"
    assert message(tmp_path / ("n" * 300)) == "the name is too long"
    with pytest.raises(ImageError, match=r"cannot read a\\x00b\\n: no file can have this name$"):
        open_image("a\0b\n")


@pytest.mark.parametrize("form", ["PPM", "ICO", "TGA", "PCX", "SGI", "EPS", "PDF", "JPEG2000"])
def test_other_formats_are_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(drawing()).save(path, form)
    assert message(path).startswith("not a JPEG, PNG")


@pytest.mark.skipif(os.name != "posix", reason="POSIX only")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert message(tmp_path / "pipe.png") == "not a regular file"
    assert message(Path("/dev/zero")) == "not a regular file"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".gif", ".avif"])
def test_damaged_files(tmp_path: Path, suffix: str) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    noise = np.random.default_rng(0)
    whole = saved(tmp_path / f"a{suffix}", noise.integers(0, 256, (64, 64, 3), np.uint8))
    data = whole.read_bytes()
    path = tmp_path / f"b{suffix}"
    path.write_bytes(data[: len(data) // 2])
    assert message(path).startswith("the file is truncated or damaged")
    refused: list[str] = []
    for _ in range(60):
        broken = np.frombuffer(data, np.uint8).copy()
        broken[noise.integers(0, min(len(data), 400), 4)] = noise.integers(0, 256, 4)
        path.write_bytes(broken[: noise.integers(1, len(data) + 1)].tobytes())
        try:
            open_image(path)
        except ImageError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert not any("\n" in text for text in refused)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("a\nb"), KeyError("k"), EOFError()])
def test_whatever_the_decoder_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    path = saved(tmp_path / "a.tif", drawing(), mode="CMYK")
    for owner, name in [(Image.Image, "convert"), (TiffImagePlugin.TiffImageFile, "load")]:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            why = message(path)
        expected = "not enough memory" if isinstance(error, MemoryError) else "truncated or damaged"
        assert expected in why


def test_a_format_that_pillow_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import WebPImagePlugin

    path = saved(tmp_path / "a.webp", drawing())
    monkeypatch.setattr(WebPImagePlugin, "SUPPORTED", False)
    assert message(path).startswith("this installation of Pillow lacks its format")


def test_the_pixel_limit(tmp_path: Path) -> None:
    assert MAX_PIXELS == 178_956_970
    before = Image.MAX_IMAGE_PIXELS
    path = saved(tmp_path / "a.png", drawing(40, 50))
    assert open_image(path, max_pixels=2000).size == (50, 40)
    assert message(path, max_pixels=1998) == (
        "it has 1 megapixels, more than allowed; "
        "--max-megapixels 1 (library: max_pixels=) raises the limit"
    )
    for name in ("a.jpg", "a.webp", "a.tif", "a.bmp", "a.gif"):
        assert "megapixels" in message(saved(tmp_path / name, drawing(40, 50)), max_pixels=1000)
    heavy = saved(tmp_path / "b.webp", drawing(40, 50))
    assert open_image(heavy, max_pixels=3000).size == (50, 40)
    assert message(heavy, max_pixels=2998) == (
        "a WEBP of 0 megapixels takes more memory than allowed; "
        "--max-megapixels 1 (library: max_pixels=) raises the limit"
    )
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_file_that_is_longer_than_any_such_picture(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", drawing())
    os.truncate(path, 9 << 20)
    assert message(path, max_pixels=1000).startswith("the file has 0.0 GB, more than a picture of")
    assert open_image(path, max_pixels=2_000_000).size == (32, 24)


def test_a_bomb_is_refused_by_its_header_and_a_raised_limit_lets_it_through(
    tmp_path: Path,
) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(20_000, 20_000, 8, 2, [b""]))
    assert "it has 400 megapixels" in message(bomb)
    assert "--max-megapixels 400 " in message(bomb)
    # Past the limit it is decoded, and found to be what it is.
    assert "megapixels" not in message(bomb.with_name("bomb.png"), max_pixels=400_000_000)


def test_a_limit_above_that_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", drawing(40, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert open_image(path).size == (50, 40)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_threads_leave_the_globals_as_they_were(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", drawing(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    before, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    failures: list[Exception] = []

    def read(limit: int) -> None:
        for _ in range(20):
            try:
                open_image(path, max_pixels=limit)
            except ImageError as error:
                if limit >= 768:
                    failures.append(error)

    threads = [threading.Thread(target=read, args=(limit,)) for limit in (700, 768, 10_000) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert before == Image.MAX_IMAGE_PIXELS
    assert list(warnings.filters) == filters


def test_torch_is_not_imported_for_reading_and_writing(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", drawing())
    code = (
        "import sys; from impasto.images import *; picture = open_image(sys.argv[1]); "
        "save_image(picture, sys.argv[1], record='{}'); assert 'torch' not in sys.modules"
    )
    source = str(Path(__file__).parents[1] / "src")
    env = {**os.environ, "PYTHONPATH": source}
    subprocess.run([sys.executable, "-c", code, path], check=True, env=env)


# Writing


@pytest.mark.parametrize("suffix", ALL_OUT)
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    alpha = drawing()[..., 1]
    path = tmp_path / f"a{suffix.upper()}"
    notes = save_image(Picture(drawing(), alpha), path)
    again = open_image(path)
    if SUFFIXES_OUT[suffix] == "JPEG":
        assert notes == ["JPEG has no transparency: laid over white"]
        weight = alpha[..., None] / 255
        expected = drawing() * weight + 255 * (1 - weight)
        assert again.alpha is None
    else:
        assert notes == []
        expected = drawing().astype(float)
        assert again.alpha is not None
        assert np.array_equal(again.alpha, alpha)
    tolerance = {"PNG": 1, "TIFF": 1, "WEBP": 20, "JPEG": 8}[SUFFIXES_OUT[suffix]]
    assert np.abs(again.pixels - expected).max() <= tolerance
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_png_and_tiff_keep_every_level(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for name in ("a.png", "a.tiff"):
        assert save_image(Picture(levels), tmp_path / name) == []
        with Image.open(tmp_path / name) as image:
            assert image.mode == "RGB"
            assert np.array_equal(np.asarray(image), levels)


@pytest.mark.parametrize("suffix", ALL_OUT)
def test_files_carry_srgb_and_nothing_else_and_are_reproducible(
    tmp_path: Path, suffix: str
) -> None:
    picture = Picture(drawing(), source="secret.png")
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    save_image(picture, first)
    save_image(picture, second)
    assert first.read_bytes() == second.read_bytes()
    assert b"secret" not in first.read_bytes()
    with Image.open(first) as image:
        profile = image.info["icc_profile"]
        assert ImageCms.getProfileDescription(io.BytesIO(profile)).startswith("sRGB")
        assert profile[24:36] == bytes(12)
        assert ExifTags.Base.Software not in image.getexif()
        extra = {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "compression"}
        extra |= {"resolution", "loop", "background", "timestamp", "duration", "icc_profile"}
        assert set(image.info) <= extra
    assert read_record(first) is None


@pytest.mark.parametrize("suffix", ALL_OUT)
@pytest.mark.parametrize(
    "record",
    [
        '{"steps": 500}',
        json.dumps({"style": "Сезанн 塞尚 🎨"}, ensure_ascii=False),
        json.dumps({"text": "a ü" * 6_700}, ensure_ascii=False),
        "x" * 20_000,
        "",
    ],
    ids=["short", "unicode", "long unicode", "long", "empty"],
)
def test_record_round_trip(tmp_path: Path, suffix: str, record: str) -> None:
    path = tmp_path / f"a{suffix}"
    assert save_image(Picture(drawing(), drawing()[..., 0]), path, record=record)[1:] == []
    assert read_record(path) == record
    assert open_image(path).size == (32, 24)


def test_record_is_where_other_tools_look(tmp_path: Path) -> None:
    from impasto._version import __version__

    for name in ("a.jpg", "a.webp", "a.tif"):
        save_image(Picture(drawing()), tmp_path / name, record="{ü}")
        with Image.open(tmp_path / name) as image:
            exif = image.getexif()
            assert exif[ExifTags.Base.Software] == f"impasto {__version__}"
            comment = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
            assert comment == b"UNICODE\0" + "{ü}".encode("utf-16le")
    save_image(Picture(drawing()), tmp_path / "a.png", record="{ü}")
    data = (tmp_path / "a.png").read_bytes()
    assert b"iTXtimpasto\0\0\0\0\0" + "{ü}".encode() in data
    assert f"tEXtSoftware\0impasto {__version__}".encode() in data


def test_a_record_that_does_not_fit_is_left_out_and_told(tmp_path: Path) -> None:
    record = "x" * 70_000
    notes = save_image(Picture(drawing()), tmp_path / "a.jpg", record=record)
    assert notes == ["the record is too long for a JPEG: left out"]
    assert read_record(tmp_path / "a.jpg") is None
    for name in ("a.png", "a.webp", "a.tif"):
        assert save_image(Picture(drawing()), tmp_path / name, record=record) == []
        assert read_record(tmp_path / name) == record


def test_a_record_with_a_file_name_that_is_not_unicode(tmp_path: Path) -> None:
    record = json.dumps({"content": os.fsdecode(b"\xff.jpg")}, ensure_ascii=False)
    for suffix in ALL_OUT:
        save_image(Picture(drawing()), tmp_path / f"a{suffix}", record=record)
        assert read_record(tmp_path / f"a{suffix}") == '{"content": "?.jpg"}'


def test_records_of_others_are_not_ours(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = "Camera 1.0"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0hello"
    saved(tmp_path / "camera.jpg", drawing(), exif=exif)
    exif[ExifTags.Base.Software] = "impasto 0"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0\xff\xfe"
    saved(tmp_path / "broken.jpg", drawing(), exif=exif)
    saved(tmp_path / "plain.png", drawing())
    (tmp_path / "page.png").write_text("<html>")
    (tmp_path / "empty.png").touch()
    for path in (*tmp_path.iterdir(), tmp_path):
        assert read_record(path) is None, path
    with pytest.raises(ImageError, match=r"cannot read .*none\.png: no such file"):
        read_record(tmp_path / "none.png")


def test_output_suffixes(tmp_path: Path) -> None:
    for suffix, form in SUFFIXES_OUT.items():
        assert check_output_path(f"some/a{suffix.upper()}") == form
    for name in ("a", "a.gif", "a.png.bak", ".png"):
        with pytest.raises(ImageError) as caught:
            save_image(Picture(drawing()), tmp_path / name)
        assert ".png, .jpg, .jpeg, .webp, .tif, .tiff" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "side"), [("a.webp", 16_384), ("a.jpg", 65_501)])
def test_sides_that_a_format_cannot_hold(
    tmp_path: Path, name: str, side: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ImageError, match=f"{side} × 1 px and .* holds at most {side - 1} px"):
        save_image(Picture(np.zeros((1, side, 3), np.uint8)), tmp_path / name)
    save_image(Picture(np.zeros((side - 1, 1, 3), np.uint8)), tmp_path / name)
    assert open_image(tmp_path / name).size == (1, side - 1)
    assert capfd.readouterr() == ("", "")


def test_an_encoder_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError("encoder error -2\nwhen writing")

    (tmp_path / "a.png").write_text("old")
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(ImageError) as caught:
        save_image(Picture(drawing()), tmp_path / "a.png")
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'a.png'}: the encoder failed (encoder error -2 when writing)"
    )
    assert (tmp_path / "a.png").read_text() == "old"


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ImpastoError, match="does not exist"):
        save_image(Picture(drawing()), tmp_path / "none" / "a.png")


# Writing: the EXIF of the photo

THUMBNAIL = b"\xff\xd8the thumbnail\xff\xd9"
SECRETS = [b"the note", THUMBNAIL, b"the packet", b"the padding"]
"""What must not be in a file; the place only if it is asked for."""

MAIN: dict[int, hostile.Entry] = {
    0x10E: (2, "ein Bäcker, 塞尚".encode() + b"\0"),
    0x10F: (2, b"Maker\0"),
    0x110: (2, b"Model 1\0"),
    0x112: (3, [6]),
    0x11A: (5, [72, 1]),
    0x131: (2, b"Camera 1.0\0"),
    0x132: (2, b"2024:05:06 07:08:09\0"),
    0x14A: (4, [8]),
    0x2BC: (1, b"the packet, with the place"),
    0x4746: (3, [4]),
    0x9C9B: (1, "Titel".encode("utf-16le")),
    0xC4A5: (7, b"the padding"),
}
PHOTO: dict[int, hostile.Entry] = {
    0x829A: (5, [1, 250]),
    0x8825: (4, [8]),  # a pointer where it does not belong
    0x8827: (3, [400]),
    0x9000: (7, b"0232"),
    0x9003: (2, b"2024:05:06 07:08:08\0"),
    0x9204: (10, [-1, 3]),
    0x927C: (7, b"the note: serial number and the place"),
    0x9286: (7, b"ASCII\0\0\0hi"),
    0xA001: (3, [65_535]),
    0xA002: (4, [4000]),
    0xA003: (4, [3000]),
    0xA005: (4, [8]),
    0xA432: (5, [24, 1, 70, 1, 28, 10, 28, 10]),
    0xA434: (2, b"Lens\0"),
    0xEA1C: (7, b"the padding, with the place"),
}
GPS: dict[int, hostile.Entry] = {
    0x1: (2, b"N\0"),
    0x2: (5, [52, 1, 31, 1, 12, 1]),
    0x1B: (7, b"ASCII\0\0\0the place"),
    0xEA1C: (7, b"the padding"),
}
"""What a phone might write, and more: numbers of all types, secrets in every corner."""


def tiff_photo(pixels: Array, order: str) -> bytes:
    """The same tags in a TIFF."""

    def whole(photo: int, gps: int) -> bytes:
        tags = MAIN | {0x8769: (4, [photo]), 0x8825: (4, [gps])}
        return hostile.tiff((32, 24), [8] * 3, 2, pixels.tobytes(), order=order, tags=tags)

    end = len(whole(0, 0))
    photo = hostile.directory(PHOTO, end, order)
    behind = photo + hostile.directory(GPS, end + len(photo), order)
    return whole(end, end + len(photo)) + behind


@pytest.fixture(params=["jpg", "png", "webp", "tif", "tif of the other order"])
def photo(request: pytest.FixtureRequest, tmp_path: Path) -> Picture:
    """A photo with EXIF, read from a file of each format that carries it."""
    pixels, kind = drawing(), str(request.param)
    block = hostile.exif(MAIN, PHOTO, GPS, "<" if kind == "jpg" else ">", THUMBNAIL)
    path = tmp_path / f"photo.{kind[:4].strip()}"
    if kind.startswith("tif"):
        path.write_bytes(tiff_photo(pixels, "<" if kind == "tif" else ">"))
    elif kind == "png":
        path.write_bytes(hostile.rgb_png(pixels, (b"eXIf", block)))
    else:
        Image.fromarray(pixels).save(path, exif=b"Exif\0\0" + block)
    picture = open_image(path)
    path.unlink()
    assert picture.size == (24, 32)
    return picture


def tags_of(path: Path) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
    """The tags of a file as Pillow reads them: main, EXIF, GPS."""
    with Image.open(path) as image:
        exif = image.getexif()
        inner = [dict(exif.get_ifd(tag)) for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)]
        return dict(exif), inner[0], inner[1]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("record", [None, '{"steps": 1}', '{"style": "塞尚"}'])
@pytest.mark.parametrize("gps", [False, True])
def test_exif_is_carried_over(
    photo: Picture, suffix: str, record: str | None, gps: bool, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    assert save_image(photo, path, record=record, gps=gps) == []
    assert read_record(path) == record
    main, inner, place = tags_of(path)
    # Pillow takes texts for Latin-1; the bytes are what was there.
    assert main[0x10E].encode("latin-1").decode() == "ein Bäcker, 塞尚"
    assert (main[0x10F], main[0x110], main[0x112]) == ("Maker", "Model 1", 1)
    assert (main[0x132], main[0x4746]) == ("2024:05:06 07:08:09", 4)
    assert bytes(main[0x9C9B]).decode("utf-16le") == "Titel"
    assert float(inner[0x829A]) == 1 / 250
    assert (inner[0x8827], inner[0x9000], inner[0xA434]) == (400, b"0232", "Lens")
    assert inner[0x9003] == "2024:05:06 07:08:08"
    assert float(inner[0x9204]) == pytest.approx(-1 / 3)
    assert [float(value) for value in inner[0xA432]] == [24, 70, 2.8, 2.8]
    assert (inner[0xA001], inner[0xA002], inner[0xA003]) == (1, 24, 32)
    ours = record is not None and suffix != ".png"
    assert main[0x131].startswith("impasto " if ours else "Camera 1.0")
    assert ours or inner[0x9286] == b"ASCII\0\0\0hi"
    data = path.read_bytes()
    for secret in SECRETS + ([] if gps else [b"the place"]):
        assert secret not in data
    for tag in (0x14A, 0x2BC, 0x8825, 0x927C, 0xA005, 0xC4A5, 0xEA1C):
        assert tag not in inner
        assert tag not in main or tag == 0x8825
    assert (0x8825 in main) == gps
    if gps:
        assert (place[1], [float(value) for value in place[2]]) == ("N", [52, 31, 12])
        assert place.keys() == {1, 2, 0x1B}
    again = open_image(path)
    assert again.size == (24, 32)
    assert save_image(again, tmp_path / f"b{suffix}", record=record, gps=gps) == []
    assert open_image(tmp_path / f"b{suffix}").exif == again.exif


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_no_metadata_is_none_at_all(photo: Picture, suffix: str, tmp_path: Path) -> None:
    bare, without = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    save_image(replace(photo, exif=None), bare)
    assert save_image(photo, without, record="{}", metadata=False, gps=True) == []
    assert without.read_bytes() == bare.read_bytes()
    assert tags_of(without)[0].keys() & {0x10F, 0x112, 0x131, 0x8769, 0x8825} == set()
    with Image.open(without) as image:
        assert image.info["icc_profile"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_equal_pictures_and_records_give_equal_files(suffix: str, tmp_path: Path) -> None:
    blocks = [hostile.exif(MAIN, PHOTO, GPS, order) for order in "<>"]
    files = set()
    for number, block in enumerate((*blocks, b"Exif\0\0" + blocks[0])):
        path = tmp_path / f"{number}{suffix}"
        save_image(Picture(drawing(), exif=block), path, record="{}", gps=True)
        files.add(path.read_bytes())
    assert len(files) == 1  # the byte order of the photo's block does not matter


def test_comment_of_the_photo(tmp_path: Path) -> None:
    big = b"UNICODE\0" + "é塞".encode("utf-16be")
    little = b"UNICODE\0" + "é塞".encode("utf-16le")
    for order, comment in ((">", big), ("<", little)):
        block = hostile.exif(MAIN, {0x9286: (7, comment)}, order=order)
        for suffix in (".png", ".jpg", ".webp", ".tif"):
            path = tmp_path / f"a{suffix}"
            save_image(Picture(drawing(), exif=block), path)
            assert tags_of(path)[1][0x9286] == little  # in the byte order of the new block
            assert read_record(path) is None


@pytest.mark.parametrize("first", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_record_of_the_photo_is_not_the_record_of_the_result(
    first: str, suffix: str, tmp_path: Path
) -> None:
    # The photo was itself painted by impasto.
    block = hostile.exif(MAIN, PHOTO, GPS)
    photo, path = tmp_path / f"photo{first}", tmp_path / f"a{suffix}"
    save_image(Picture(drawing(), exif=block), photo, record='{"old": 1}')
    painted = open_image(photo)
    assert save_image(painted, path) == []
    assert read_record(path) is None
    assert b'"old"' not in path.read_bytes()
    assert tags_of(path)[0][0x10F] == "Maker"
    save_image(painted, path, record='{"new": 1}')
    assert read_record(path) == '{"new": 1}'
    assert b'"old"' not in path.read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_damaged_exif_is_left_out_and_told(suffix: str, tmp_path: Path) -> None:
    path, source = tmp_path / f"a{suffix}", tmp_path / "photo.jpg"
    good = hostile.exif(MAIN, PHOTO, GPS)
    for block in (b"", b"Exif\0\0", b"Exif\0\0garbage", good[:8], good[:4] + b"\xff" * 20):
        picture = Picture(drawing(), exif=block)
        notes = save_image(picture, path, record="{}")
        assert notes == ["the EXIF of the photo is damaged: left out"]
        assert read_record(path) == "{}"
        assert save_image(picture, path, metadata=False) == []
    # Of one that is cut off the readable part remains.
    assert save_image(Picture(drawing(), exif=good[:220]), path) == []
    assert tags_of(path)[0][0x110] == "Model 1"
    assert 0x9003 not in tags_of(path)[1]
    # And it is told of a photo as of a picture.
    Image.fromarray(drawing()).save(source, exif=b"Exif\0\0garbage")
    assert save_image(open_image(source), path) == ["the EXIF of the photo is damaged: left out"]


def test_what_does_not_fit_into_a_jpeg(tmp_path: Path) -> None:
    def exif(text: int) -> bytes:
        return hostile.exif({0x10F: (2, b"Maker\0"), 0x10E: (2, b"x" * text + b"\0")})

    no_exif = "the EXIF of the photo is too long for a JPEG: left out"
    no_record = "the record is too long for a JPEG: left out"
    for text, record, notes, make in [
        (100, 100, [], "Maker"),
        (40_000, 40_000, [no_exif], None),
        (70_000, 40_000, [no_exif], None),
        (100, 70_000, [no_record], "Maker"),
        (70_000, 70_000, [no_exif, no_record], None),
        (70_000, None, [no_exif], None),
        (60_000, None, [], "Maker"),
    ]:
        path, words = tmp_path / "a.jpg", None if record is None else "r" * record
        assert save_image(Picture(drawing(), exif=exif(text)), path, record=words) == notes
        assert read_record(path) == (None if no_record in notes else words)
        assert tags_of(path)[0].get(0x10F) == make
        for name in ("a.png", "a.webp", "a.tif"):  # those hold anything
            assert save_image(Picture(drawing(), exif=exif(text)), tmp_path / name) == []
            assert tags_of(tmp_path / name)[0][0x10F] == "Maker"


def test_a_tag_that_is_longer_than_any_text_is_left_out(tmp_path: Path) -> None:
    block = hostile.exif({0x10E: (2, b"x" * (1 << 20) + b"\0"), 0x10F: (2, b"Maker\0")})
    path = tmp_path / "a.png"
    path.write_bytes(hostile.rgb_png(drawing(), (b"eXIf", block)))
    picture = open_image(path)
    assert picture.exif is not None
    assert len(picture.exif) < 100
    assert save_image(replace(picture, exif=block), path) == []
    assert tags_of(path)[0].keys() == {0x10F}


def test_tags_of_a_wrong_type_do_not_break_the_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    block = hostile.exif(
        {0x10F: (12, [1.5]), 0x110: (2, b"no end"), 0x112: (2, b"six\0"), 0x131: (3, [7]),
         0x132: (4, [1, 2, 3]), 0x4746: (2, b"four\0"), 0x100: (2, b"w\0"), 0x11A: (2, b"ab\0"),
         0x128: (3, [3]), 0x8298: (7, b"me")},
        {0xA002: (2, b"ab\0"), 0x9286: (3, [1, 2, 3]), 0x9000: (12, [1.0])},
    )  # fmt: skip
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        path = tmp_path / f"a{suffix}"
        for record in (None, "{}"):
            assert save_image(Picture(drawing(), exif=block), path, record=record) == []
            assert open_image(path).size == (32, 24)
            assert read_record(path) == record
            main, inner, _ = tags_of(path)
            assert (main[0x110], main[0x112], inner[0xA002]) == ("no end", 1, 32)
    assert capfd.readouterr() == ("", "")


def test_tiff_is_well_formed(tmp_path: Path) -> None:
    path, block = tmp_path / "a.tif", hostile.exif(MAIN, PHOTO, GPS)
    for width in range(1, 9):  # compressed to odd and to even lengths
        pixels = drawing(3, width)
        save_image(Picture(pixels, pixels[..., 0], exif=block), path, record="{}", gps=True)
        data = path.read_bytes()
        places = list(struct.unpack_from("<4xL", data))
        for place in places:
            (count,) = struct.unpack_from("<H", data, place)
            end = place + 2 + 12 * count
            entries = list(struct.iter_unpack("<HHLL", data[place + 2 : end]))
            tags = [entry[0] for entry in entries]
            assert tags == sorted(set(tags))
            assert place % 2 == 0
            assert data[end : end + 4] == bytes(4)
            places += [value for tag, _, _, value in entries if tag in (0x8769, 0x8825)]
        assert len(places) == 3


def test_record_in_the_main_directory_of_a_tiff_is_read_too(tmp_path: Path) -> None:
    # Where Pillow by itself puts it.
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[ExifTags.Base.Software] = "impasto 0.1"
    info[ExifTags.Base.UserComment] = b"ASCII\0\0\0{}"
    info.tagtype[ExifTags.Base.UserComment] = 7
    path = saved(tmp_path / "a.tif", drawing(), tiffinfo=info, compression="tiff_adobe_deflate")
    assert read_record(path) == "{}"


# Folders


def test_pictures_in_a_folder(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.webp", "d.Tiff", "e.jfif", "f.avif", "g.gif", "h.bmp"):
        (tmp_path / name).touch()
    for name in (".hidden.png", "notes.txt", "a.png.lock", "picture"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "inside.png").touch()
    names = [path.name for path in pictures_in(tmp_path)]
    assert names == ["a.png", "b.JPG", "c.webp", "d.Tiff", "e.jfif", "f.avif", "g.gif", "h.bmp"]
    assert pictures_in(tmp_path / "folder.png") == [tmp_path / "folder.png" / "inside.png"]
    with pytest.raises(ImageError, match="no such file or folder"):
        pictures_in(tmp_path / "none")
    with pytest.raises(ImageError, match="not a folder"):
        pictures_in(tmp_path / "a.png")
