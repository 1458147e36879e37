"""Files that try to break a reader of pictures: `python tests/hostile.py FOLDER` makes them all.

Every case is drawn and packed here, down to the bytes where Pillow would not write such a thing.
What has to come of it is worked out from the drawing, never by the reader under test.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, features

Array = np.ndarray[Any, np.dtype[np.uint8]]
Make = Callable[[Path], object]


class Case(NamedTuple):
    """A file and what has to come of it.

    Attributes:
        name: Of the file.
        make: Its bytes, or what makes it at a path.
        pixels: What it shows if it opens, (H, W, 3), or (H, W, 4) with transparency.
        tolerance: How far a level may be off.
        opens: True: it has to; False: it must not; None: it may be refused.
    """

    name: str
    make: bytes | Make
    pixels: Array | None = None
    tolerance: float = 1
    opens: bool | None = True

    def write(self, folder: Path) -> Path:
        """Makes the file."""
        path = folder / self.name
        if isinstance(self.make, bytes):
            path.write_bytes(self.make)
        else:
            self.make(path)
        return path


def refused(name: str, make: bytes | Make) -> Case:
    return Case(name, make, opens=False)


# --- drawings


def drawing(height: int = 24, width: int = 32) -> Array:
    """A smooth picture (H, W, 3) without symmetry, that lossy formats keep well."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 40 + 200 * x / width, 30 + 200 * y / height
    return np.stack((red, green, 255 - (red + green) / 2), axis=-1).astype(np.uint8)


def grey(levels: Sequence[int]) -> Array:
    """One row of greys as it opens, (1, W, 3)."""
    return np.repeat(np.array([levels], np.uint8)[..., None], 3, axis=-1)


def with_alpha(pixels: Array, alpha: Any) -> Array:
    """(H, W, 4)."""
    return np.dstack((pixels, np.broadcast_to(np.array(alpha, np.uint8), pixels.shape[:2])))


UPRIGHT: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
    99: lambda a: a,
}
"""By EXIF orientation, how stored rows become an upright picture."""


def srgb_of_lab(light: float, a: float, b: float) -> Array:
    """The sRGB levels of a CIELAB colour under D50, (3,), by the textbook."""
    y = (light + 16) / 116
    f = np.array([y + a / 500, y, y - b / 200])
    relative = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    to_linear = np.array(  # from XYZ under D50, adapted after Bradford
        [
            [3.1338561, -1.6168667, -0.4906146],
            [-0.9787684, 1.9161415, 0.0334540],
            [0.0719453, -0.2289914, 1.4052427],
        ]
    )
    linear = np.clip(to_linear @ (relative * [0.9642, 1.0, 0.8249]), 0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * coded), np.uint8)


# --- packing by hand


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with its right checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int, color: int, rows: list[bytes], *chunks: tuple[bytes, bytes]
) -> bytes:
    """A PNG written by hand, for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def rgb_png(pixels: Array, *chunks: tuple[bytes, bytes]) -> bytes:
    height, width = pixels.shape[:2]
    return png(width, height, 8, 2, [row.tobytes() for row in pixels], *chunks)


Entry = tuple[int, bytes | Sequence[int | float]]
"""The type of a tag's value, and the value or its bytes."""


def directory(
    entries: dict[int, Entry], offset: int, order: str = "<", following: int = 0
) -> bytes:
    """A TIFF directory that stands at ``offset``, with its longer values behind it."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 10: 8, 11: 4, 12: 8, 13: 4}
    codes = {1: "B", 3: "H", 4: "L", 5: "L", 10: "l", 11: "f", 12: "d", 13: "L"}
    table, values = struct.pack(order + "H", len(entries)), b""
    behind = offset + 2 + 12 * len(entries) + 4
    for tag, (kind, value) in sorted(entries.items()):
        data = (
            value
            if isinstance(value, bytes)
            else struct.pack(f"{order}{len(value)}{codes[kind]}", *value)
        )
        table += struct.pack(order + "HHL", tag, kind, len(data) // sizes[kind])
        if len(data) > 4:
            table += struct.pack(order + "L", behind + len(values))
            values += data + bytes(len(data) % 2)
        else:
            table += data.ljust(4, b"\0")
    return table + struct.pack(order + "L", following) + values


def tiff(
    size: tuple[int, int],
    bits: Sequence[int],
    photometric: int,
    *strips: bytes,
    order: str = "<",
    packed: bool = False,
    tags: Mapping[int, Entry] | None = None,
) -> bytes:
    """A TIFF of one strip, or of one for each colour; ``tags`` come on top."""
    stored = [zlib.compress(strip) if packed else strip for strip in strips]
    stored = [strip + bytes(len(strip) % 2) for strip in stored]
    places = [8 + sum(map(len, stored[:i])) for i in range(len(stored))]
    entries: dict[int, Entry] = {
        256: (4, [size[0]]),
        257: (4, [size[1]]),
        258: (3, bits),
        259: (3, [8 if packed else 1]),
        262: (3, [photometric]),
        273: (4, places),
        277: (3, [len(bits)]),
        278: (4, [size[1]]),
        279: (4, [len(strip) for strip in stored]),
        284: (3, [1 if len(strips) == 1 else 2]),
    }
    entries |= tags or {}
    data = b"".join(stored)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", 8 + len(data))
    return start + data + directory(entries, 8 + len(data), order)


def exif(
    main: dict[int, Entry],
    photo: dict[int, Entry] | None = None,
    gps: dict[int, Entry] | None = None,
    order: str = "<",
    thumbnail: bytes | None = None,
) -> bytes:
    """An EXIF block, without the six bytes before it."""
    entries, behind = dict(main), b""
    end = 8 + len(directory(main | dict.fromkeys((0x8769, 0x8825), (4, [0])), 8, order))
    for tag, inner in ((0x8769, photo or {}), (0x8825, gps or {})):
        entries[tag] = (4, [end + len(behind)])
        behind += directory(inner, end + len(behind), order)
    following = 0
    if thumbnail is not None:
        following = end + len(behind)
        places: dict[int, Entry] = {0x201: (4, [following + 30]), 0x202: (4, [len(thumbnail)])}
        behind += directory(places, following, order) + thumbnail
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", 8)
    return start + directory(entries, 8, order, following) + behind


def bmp(
    size: tuple[int, int], bits: int, data: bytes, *, masks: bytes = b"", kind: int = 0
) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, kind, len(data), 0, 0, 0, 0) + masks
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + data


def icc(space: bytes, pcs: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A version 2 ICC profile of the given tags."""
    offset, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    header = bytearray(128)
    struct.pack_into(">I", header, 0, offset + len(body))
    struct.pack_into(">I4s4s4s", header, 8, 0x02400000, kind, space, pcs)
    header[36:40] = b"acsp"
    struct.pack_into(">3I", header, 68, 0xF6D6, 0x10000, 0xD32D)  # D50
    return bytes(header) + struct.pack(">I", len(tags)) + table + body


def srgb_with_red_and_green_swapped() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"####").replace(b"gXYZ", b"rXYZ").replace(b"####", b"gXYZ")


def linear_grey() -> bytes:
    white = b"XYZ \0\0\0\0" + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    return icc(b"GRAY", b"XYZ ", b"mntr", {b"wtpt": white, b"kTRC": b"curv" + bytes(8)})


def cmyk_of_one_colour(lab: tuple[int, int, int]) -> bytes:
    """A CMYK profile in which every ink gives the same colour: no other path leads there."""
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0))
    table += struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table += bytes(range(256)) * 4 + bytes(lab) * 16 + bytes(range(256)) * 3
    return icc(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table, b"A2B1": table})


def saved(image: Image.Image | Array, form: str, **options: Any) -> bytes:
    """The file that Pillow makes of a picture."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        buffer, form, **options
    )
    return buffer.getvalue()


def fine_jpeg(pixels: Array, **options: Any) -> bytes:
    """A JPEG that is nearly lossless on a smooth picture."""
    return saved(pixels, "JPEG", quality=95, subsampling=0, **options)


# --- plain files of the seven formats


def palette_picture() -> tuple[Image.Image, Array]:
    """A P image of 16 patches without symmetry, and its pixels."""
    colors = np.random.default_rng(3).integers(0, 256, (16, 3), np.uint8)
    y, x = np.mgrid[0:24, 0:32]
    index = (x // 8 + 4 * (y // 6)).astype(np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette(colors.tobytes())
    return image, colors[index]


class Plain(NamedTuple):
    """A sound file."""

    name: str
    data: bytes
    pixels: Array
    tolerance: float


def plain() -> list[Plain]:
    """One sound file of each format; of TIFF two, for it has two readers."""
    pixels = drawing()
    patches, colors = palette_picture()
    found = [
        Plain("a.png", saved(pixels, "PNG"), pixels, 0),
        Plain("a.jpg", fine_jpeg(pixels), pixels, 8),
        Plain("a.webp", saved(pixels, "WEBP", lossless=True), pixels, 0),
        Plain("a.tif", saved(pixels, "TIFF"), pixels, 0),
        Plain("b.tif", saved(pixels, "TIFF", compression="tiff_adobe_deflate"), pixels, 0),
        Plain("a.bmp", saved(pixels, "BMP"), pixels, 0),
        Plain("a.gif", saved(patches, "GIF"), colors, 0),
    ]
    if features.check("avif"):
        found.append(Plain("a.avif", saved(pixels, "AVIF", quality=95), pixels, 12))
    return found


# --- the cases


def damaged() -> Iterator[Case]:
    """Truncated at every tenth, and near the end."""
    for name, data, pixels, tolerance in plain():
        yield Case(f"whole-{name}", data, pixels, tolerance)
        ends = {f"{tenth}-tenths": len(data) * tenth // 10 for tenth in range(1, 10)}
        for word, end in {**ends, "but-1": len(data) - 1, "but-9": len(data) - 9}.items():
            yield Case(f"{word}-{name}", data[:end], pixels, tolerance, opens=None)


def flipped() -> Iterator[Case]:
    """Some bytes changed; only a PNG has checksums that tell of each."""
    rng = np.random.default_rng(0)
    for name, data, pixels, tolerance in plain():
        for turn in range(40):
            array = np.frombuffer(data, np.uint8).copy()
            ends = [len(data), min(len(data), 200)]  # anywhere, or in the header
            places = rng.integers(0, ends[turn % 2], 1 + turn % 3)
            array[places] ^= rng.integers(1, 256, len(places), np.uint8)
            shown = pixels if name == "a.png" else None
            yield Case(f"flipped-{turn}-{name}", array.tobytes(), shown, tolerance, opens=None)


def disguised() -> Iterator[Case]:
    """Other things than the name says."""
    for name, data, pixels, tolerance in plain():
        other = "png" if name != "a.png" else "jpg"
        yield Case(f"{name}.{other}", data, pixels, tolerance)
        yield refused(f"zero{Path(name).suffix}", b"")
        yield refused(f"header-only-{name}", data[:12])
        yield refused(f"zeros-behind-header-{name}", data[:12] + bytes(5000))
    yield refused("page.jpg", b"<!doctype html><title>404</title><p>Not found")
    yield refused("zeros.png", bytes(10_000))
    yield refused("script.gif", b"#!/bin/sh\necho GIF89a\n")
    yield refused("fonts.tif", b"MM" + bytes(range(256)))
    yield refused("postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    yield refused("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>")
    yield refused("old.png", saved(drawing(), "PPM"))


def black_bits(side: int) -> bytes:
    """A PNG of 1 bit, all black: side × side px in few bytes."""
    row = bytes(1 + side // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row * 1000) for _ in range(side // 1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _scans(count: int) -> bytes:
    """A progressive JPEG whose last scan, of nothing, is repeated."""
    data = saved(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * count + data[-2:]


def bombs() -> Iterator[Case]:
    """Small files that would become large ones."""
    side = 20_000
    size = struct.pack(">II", side, side)
    yield refused("bits.png", lambda path: path.write_bytes(black_bits(side)))
    yield refused("header.tif", tiff((side, side), [1], 1, b"1234"))
    yield refused("packed.tif", tiff((side, side), [8] * 3, 2, bytes(99_999), packed=True))
    gif = saved(drawing(), "GIF")
    yield refused("screen.gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:])
    yield refused("frame.gif", b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;")
    yield refused("header.bmp", bmp((side, side), 24, b""))
    jpeg = saved(drawing(), "JPEG")
    start = jpeg.index(b"\xff\xc0") + 5
    yield refused("header.jpg", jpeg[:start] + b"\xff\xff\xff\xff" + jpeg[start + 4 :])
    canvas = struct.pack("<I", 0x10) + (16_383).to_bytes(3, "little") * 2
    webp = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + saved(drawing(), "WEBP")[12:]
    yield refused("canvas.webp", b"RIFF" + struct.pack("<I", len(webp)) + webp)
    if features.check("avif"):
        avif = saved(drawing(), "AVIF")
        start = avif.index(b"ispe") + 8
        yield refused("header.avif", avif[:start] + size + avif[start + 8 :])
    yield refused("scans.jpg", _scans(30_000))
    yield Case("some-scans.jpg", _scans(50), np.full((64, 64, 3), 128, np.uint8), 2)
    whole, end = saved(drawing(), "PNG"), 1 << 40

    def sparse(path: Path) -> None:
        path.write_bytes(whole)
        os.truncate(path, end)

    yield refused("terabyte.png", sparse)


def animated() -> Iterator[Case]:
    """Of several pictures the first counts."""
    patches, colors = palette_picture()
    first, more = Image.fromarray(drawing()), [Image.new("RGB", (32, 24), "red") for _ in range(3)]
    options: dict[str, Any] = {"save_all": True, "append_images": more}
    yield Case("frames.gif", saved(patches, "GIF", **options), colors)
    yield Case("frames.webp", saved(first, "WEBP", lossless=True, **options), drawing())
    yield Case("frames.png", saved(first, "PNG", **options), drawing())
    yield Case("pages.tif", saved(first, "TIFF", **options), drawing())
    yield Case("phone.jpg", saved(first, "MPO", quality=95, **options), drawing(), 12)
    if features.check("avif"):
        yield Case("frames.avif", saved(first, "AVIF", quality=95, **options), drawing(), 12)
    row = bytes((1, 2, 3, 4, 5, 6))
    control = struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 1, 1, 0, 0)
    count = struct.pack(">II", 2**31, 0)
    tricky = png(2, 1, 8, 2, [row], (b"acTL", count), (b"fcTL", control))
    yield Case("small-frame.png", tricky, np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))


def sized() -> Iterator[Case]:
    """Small, long and thin."""
    for height, width in ((1, 1), (1, 3), (3, 8000), (8000, 3)):
        pixels = drawing(height, width)
        yield Case(f"{width}x{height}.png", saved(pixels, "PNG"), pixels)
        yield Case(f"{width}x{height}.tif", saved(pixels, "TIFF"), pixels)
        yield Case(f"{width}x{height}.jpg", fine_jpeg(pixels), pixels, 8)
        yield Case(f"{width}x{height}.webp", saved(pixels, "WEBP", lossless=True), pixels)


def named() -> Iterator[Case]:
    """Names of all kinds, of sound files and of others."""
    names = [
        "жанр 塞尚 صورة.png", "🎨🖼.png", "e\u0301.png", "two\nlines.png", "-o.png", "--help.png",
        " .png", "a:0.7.png", "a@b.png", "back\\slash.png", "bell\a\x1b[31m.png", "\u202egnp.png",
        "%s%n.png", "~.png", "*.png", "n" * 250 + ".png",
    ]  # fmt: skip
    data = saved(drawing(), "PNG")
    for number, name in enumerate(names):
        yield Case(name, data, drawing())
        yield refused(f"{number}{name[-200:]}", b"<p>")


def turned() -> Iterator[Case]:
    """An asymmetric picture under every orientation."""
    pixels = drawing()
    for orientation, upright in UPRIGHT.items():
        block = exif({0x112: (3, [orientation]), 0x10F: (2, b"Maker\0")})
        shown, with_head = upright(pixels), b"Exif\0\0" + block
        name = f"turned-{orientation}"
        yield Case(f"{name}.png", rgb_png(pixels, (b"eXIf", block)), shown, 0)
        yield Case(f"{name}.jpg", fine_jpeg(pixels, exif=with_head), shown, 8)
        yield Case(f"{name}.webp", saved(pixels, "WEBP", lossless=True, exif=block), shown, 0)
        turned_tiff = tiff((32, 24), [8] * 3, 2, pixels.tobytes(), tags={274: (3, [orientation])})
        yield Case(f"{name}.tif", turned_tiff, shown, 0)
        text = f"\nexif\n{len(with_head):8}\n{with_head.hex()}\n".encode()
        old = rgb_png(pixels, (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)))
        yield Case(f"{name}-old.png", old, shown, 0)
        if features.check("avif") and orientation != 99:
            block = with_head if orientation > 1 else b""
            avif = saved(pixels, "AVIF", quality=95, exif=block)
            yield Case(f"{name}.avif", avif, shown, 12)


def inked() -> Iterator[Case]:
    """CMYK and CIELAB, with profile and without."""
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255], [0, 255, 0, 0]]], np.uint8)
    shown = np.array([[[255, 255, 255], [0, 255, 255], [0, 0, 0], [255, 0, 255]]], np.uint8)
    yield Case("cmyk.tif", tiff((4, 1), [8] * 4, 5, inks.tobytes()), shown)
    yield Case("cmyk16.tif", tiff((4, 1), [16] * 4, 5, (inks * np.uint16(257)).tobytes()), shown)
    planes = [inks[..., band].tobytes() for band in range(4)]
    yield Case("cmyk-planes.tif", tiff((4, 1), [8] * 4, 5, *planes), shown)
    wide = Image.fromarray(np.repeat(np.repeat(inks, 16, 0), 16, 1), "CMYK")
    shown_wide = np.repeat(np.repeat(shown, 16, 0), 16, 1)
    for progressive in (False, True):
        jpeg = saved(wide, "JPEG", quality=100, progressive=progressive)
        yield Case(f"cmyk-{progressive}.jpg", jpeg, shown_wide, 4)
    profile = cmyk_of_one_colour((153, 168, 108))  # L* 60, a* +40, b* -20
    ink = Image.new("CMYK", (64, 16), (200, 100, 150, 50))  # LittleCMS keeps paper white
    one = np.broadcast_to(srgb_of_lab(60, 40, -20), (16, 64, 3))
    yield Case("cmyk-profile.jpg", saved(ink, "JPEG", icc_profile=profile), one, 3)
    yield Case("cmyk-profile.tif", saved(ink, "TIFF", icc_profile=profile), one, 3)
    other = linear_grey()
    yield Case("cmyk-grey.tif", saved(wide, "TIFF", icc_profile=other), shown_wide)
    stored = np.array([[[255, 0, 0], [0, 0, 0], [138, 81, 70], [153, 40, 236]]], np.uint8)
    colors = [(100, 0, 0), (0, 0, 0), (138 / 2.55, 81, 70), (60, 40, -20)]
    lab = np.stack([srgb_of_lab(*color) for color in colors])[None]
    yield Case("lab.tif", tiff((4, 1), [8] * 3, 8, stored.tobytes()), lab, 6)
    planes = [stored[..., band].tobytes() for band in range(3)]
    yield Case("lab-planes.tif", tiff((4, 1), [8] * 3, 8, *planes), lab, 6)
    yield Case("lab-packed.tif", tiff((4, 1), [8] * 3, 8, stored.tobytes(), packed=True), lab, 6)


def deep() -> Iterator[Case]:
    """Numbers of other than 8 bit, in both byte orders, packed and not."""
    for order in "<>":
        for packed in (False, True):
            end = f"{ord(order)}-{packed}.tif"
            options: dict[str, Any] = {"order": order, "packed": packed}
            for name, kind, row, levels in _greys(order):
                if order == ">" and name in ("12", "u4"):
                    continue  # Pillow has no such mode
                bits = int(name) if name.isdecimal() else 8 * np.dtype(name[:2]).itemsize
                size, tags = (len(levels), 1), {339: (3, [kind])}
                data = tiff(size, [bits], 1, row, tags=tags, **options)
                yield Case(f"grey-{name}-{end}", data, grey(levels))
            yield from _deep_colours(end, options)
    for number, kind, values in (("u2", 1, [0, 12_850, 65_535]), ("f4", 3, [0, 50 / 255, 1])):
        for packed in (False, True):
            row, bits = np.array(values, number).tobytes(), 8 * np.dtype(number).itemsize
            data = tiff((3, 1), [bits], 0, row, packed=packed, tags={339: (3, [kind])})
            yield Case(f"white-is-0-{number}-{packed}.tif", data, grey([255, 205, 0]))
    for number in ("f2", "f8"):
        row, bits = np.array([0, 1], number).tobytes(), 8 * np.dtype(number).itemsize
        rare = tiff((2, 1), [bits], 1, row, tags={339: (3, [3])})
        yield Case(f"{number}.tif", rare, grey([0, 255]), opens=None)
    ramp = struct.pack(">4H", 0, 0x8000, 0xFFFF, 257)
    yield Case("grey16.png", png(4, 1, 16, 0, [ramp]), grey([0, 128, 255, 1]))
    yield Case("bits.png", png(4, 1, 1, 0, [b"\xa0"]), grey([255, 0, 255, 0]))
    yield Case("grey2.png", png(4, 1, 2, 0, [b"\x1b"]), grey([0, 85, 170, 255]))
    yield Case("grey4.png", png(4, 1, 4, 0, [b"\x01\x8f"]), grey([0, 17, 136, 255]))


def _greys(order: str) -> Iterator[tuple[str, int, bytes, list[int]]]:
    """The bits or the type of numbers, the sample format, a row, and the levels it stands for."""
    yield "1", 1, b"\xa0", [255, 0, 255, 0]
    yield "2", 1, b"\x1b", [0, 85, 170, 255]
    yield "4", 1, b"\x01\x8f", [0, 17, 136, 255]
    yield "12", 1, b"\x00\x03\xe8\x80\x0f\xff", [0, 62, 128, 255]
    numbers: list[tuple[str, int, list[float], list[int]]] = [
        ("u2", 1, [0, 257, 32_896, 65_535], [0, 1, 128, 255]),
        ("u2-dark", 1, [0, 257, 514], [0, 1, 2]),
        ("u4", 1, [0, 2**30, 2**31, 2**32 - 1], [0, 64, 128, 255]),
        ("i1", 2, [-128, 0, 127], [0, 128, 255]),
        ("i2", 2, [-100, 0, 155], [0, 100, 255]),
        ("i4", 2, [0, 10**9, 2 * 10**9], [0, 128, 255]),
        ("f4", 3, [0, 0.2, 1], [0, 51, 255]),
        ("f4-255", 3, [0, 51, 255], [0, 51, 255]),
        ("f4-wide", 3, [-1, 0, 3, 1], [0, 64, 255, 128]),
        ("f4-nan", 3, [np.nan, 0.2, np.inf, -np.inf, 1], [0, 51, 255, 0, 255]),
        ("f4-only-nan", 3, [np.nan, np.nan], [0, 0]),
    ]
    for name, kind, values, levels in numbers:
        yield name, kind, np.array(values, order + name[:2]).tobytes(), levels


def _deep_colours(end: str, options: dict[str, Any]) -> Iterator[Case]:
    """Colours of 16 bit, in one plane and in three; colours that are coarser than the light."""
    rgb = np.array([[[0, 50, 100], [10, 20, 30], [255, 0, 128]]], np.uint8)
    numbers = (rgb * np.uint16(257)).astype(options["order"] + "u2")
    yield Case("rgb16-" + end, tiff((3, 1), [16] * 3, 2, numbers.tobytes(), **options), rgb)
    planes = [numbers[..., band].tobytes() for band in range(3)]
    yield Case("planes16-" + end, tiff((3, 1), [16] * 3, 2, *planes, **options), rgb)
    planes = [rgb[..., band].tobytes() for band in range(3)]
    yield Case("planes8-" + end, tiff((3, 1), [8] * 3, 2, *planes, **options), rgb)
    alpha = np.array([[255, 128, 0]], np.uint8)
    rgba = np.dstack((numbers, alpha * np.uint16(257))).astype(numbers.dtype)
    data = tiff((3, 1), [16] * 4, 2, rgba.tobytes(), tags={338: (3, [2])}, **options)
    yield Case("rgba16-" + end, data, with_alpha(rgb, alpha))
    # Red and green in YCbCr after BT.601, in units of 2 × 2 px: four lights, then the colour.
    units = bytes((76, 76, 76, 76, 85, 255, 150, 150, 150, 150, 44, 21))
    colors = np.repeat(np.array([[[254, 0, 0], [0, 255, 1]]], np.uint8), 2, axis=1)
    data = tiff((4, 2), [8] * 3, 6, units, tags={530: (3, [2, 2])}, **options)
    yield Case("coarse-colour-" + end, data, np.repeat(colors, 2, axis=0), 2)
    lights = bytes((76, 85, 255, 150, 44, 21))
    data = tiff((2, 1), [8] * 3, 6, lights, tags={530: (3, [1, 1])}, **options)
    yield Case("ycbcr-" + end, data, colors[:, ::2], 2)


def transparent() -> Iterator[Case]:
    """Transparency in every form it can be stored in."""
    colors = np.array([[[10, 20, 30], [40, 50, 60], [70, 80, 90]]], np.uint8)
    plte = (b"PLTE", colors.tobytes())
    entries = png(3, 1, 8, 3, [b"\0\1\2"], plte, (b"tRNS", b"\x80\xff "))
    yield Case("entries.png", entries, with_alpha(colors, [128, 255, 32]))
    for depth, row in ((2, b"\x18"), (4, b"\x01\x20"), (8, b"\0\1\2")):
        data = png(3, 1, depth, 3, [row], plte, (b"tRNS", b"\xff\0"))
        yield Case(f"entry-{depth}.png", data, with_alpha(colors, [255, 0, 255]))
    greys: dict[int, tuple[bytes, int, list[int], list[int]]] = {
        1: (b"\xa0", 1, [255, 0, 255], [0, 255, 0]),
        2: (b"\x1b", 2, [0, 85, 170, 255], [255, 255, 0, 255]),
        4: (b"\x01\x8f", 8, [0, 17, 136, 255], [255, 255, 0, 255]),
        8: (b"\0\1\2", 1, [0, 1, 2], [255, 0, 255]),
        16: (struct.pack(">3H", 0, 0x8001, 0x8002), 0x8001, [0, 128, 128], [255, 0, 255]),
    }
    for depth, (row, key, levels, alpha) in greys.items():
        data = png(len(levels), 1, depth, 0, [row], (b"tRNS", struct.pack(">H", key)))
        yield Case(f"grey-key-{depth}.png", data, with_alpha(grey(levels), alpha))
    middle = struct.pack(">3H", 40, 50, 60)
    yield Case("key.png", rgb_png(colors, (b"tRNS", middle)), with_alpha(colors, [255, 0, 255]))
    key16 = np.array([0x1234, 0x5678, 0x9ABC], np.uint16)
    missed = np.array([[0, 1], [1, 256], [0x100, 0]], np.uint16)  # 0: it is the key
    near = (key16 + missed[..., None]).astype(">u2")
    shown = with_alpha((near // 256).astype(np.uint8), 255 * (missed > 0))
    rows = [row.tobytes() for row in near]
    yield Case("key-16.png", png(2, 3, 16, 2, rows, (b"tRNS", near[0, 0].tobytes())), shown)
    pair = np.array([[10, 20], [200, 255]], np.uint8)
    shown = with_alpha(grey([10, 200]), [20, 255])
    yield Case("la.png", png(2, 1, 8, 4, [pair.tobytes()]), shown)
    yield Case("la16.png", png(2, 1, 16, 4, [(pair * np.uint16(257)).tobytes()]), shown)
    yield Case("la.tif", tiff((2, 1), [8] * 2, 1, pair.tobytes(), tags={338: (3, [2])}), shown)
    flat = tiff((2, 1), [8] * 2, 1, pair.tobytes(), tags={338: (3, [0])})
    yield Case("not-alpha.tif", flat, grey([10, 200]))
    soft = np.array([[[64, 32, 16, 128], [0, 100, 255, 255]]], np.uint8)
    shown = with_alpha(np.array([[[128, 64, 32], [0, 100, 255]]], np.uint8), [128, 255])
    multiplied = tiff((2, 1), [8] * 4, 2, soft.tobytes(), tags={338: (3, [1])})
    yield Case("multiplied.tif", multiplied, shown, 2)
    numbers = (soft * np.uint16(257)).tobytes()
    multiplied = tiff((2, 1), [16] * 4, 2, numbers, tags={338: (3, [1])})
    yield Case("multiplied16.tif", multiplied, shown, 2)
    patches, pixels = palette_picture()
    see_through = with_alpha(pixels, np.where(np.asarray(patches) == 5, 0, 255))
    yield Case("a.gif", saved(patches, "GIF", transparency=5), see_through)
    rgba = with_alpha(drawing(), drawing()[..., 1])
    yield Case("rgba.webp", saved(rgba, "WEBP", lossless=True, exact=True), rgba)
    image = Image.fromarray(rgba)
    yield Case("soft.webp", saved(image, "WEBP", quality=95, exact=True), rgba, 20)
    if features.check("avif"):
        yield Case("rgba.avif", saved(image, "AVIF", quality=95), rgba, 12)


def palettes() -> Iterator[Case]:
    """Palettes that are short, missing, or of 8 bit where there should be 16."""
    colors = np.array([[[10, 50, 90], [20, 60, 100], [30, 70, 110], [40, 80, 120]]], np.uint8)
    columns = colors[0].T.reshape(-1)
    for factor in (1, 257):
        data = tiff((4, 1), [2], 3, b"\x1b", tags={320: (3, [int(v) * factor for v in columns])})
        yield Case(f"palette-{factor}.tif", data, colors)
    yield refused("no-palette.png", png(4, 1, 8, 3, [b"\0\1\2\3"]))
    plte = (b"PLTE", colors[0, :2].tobytes())
    beyond = np.concatenate((colors[:, :2], np.zeros((1, 2, 3), np.uint8)), axis=1)
    yield Case("short-palette.png", png(4, 1, 2, 3, [b"\x1b"], plte), beyond, opens=None)
    rows = [(16, struct.pack("<2H", 0x7C00, 0x3E0), b"", 0)]
    masks = struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
    rows.append((16, struct.pack("<2H", 0xF800, 0x7E0), masks, 3))
    rows.append((32, bytes((0, 0, 255, 0, 0, 255, 0, 0)), b"", 0))
    for number, (bits, data, mask, kind) in enumerate(rows):
        shown = np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)
        yield Case(f"{number}.bmp", bmp((2, 1), bits, data, masks=mask, kind=kind), shown)
    rows_up = np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8)
    stored = bytes((255, 0, 0, 0, 0, 0, 255, 0))  # blue, then red
    yield Case("up.bmp", bmp((1, 2), 24, stored), rows_up)
    yield Case("down.bmp", bmp((1, -2), 24, stored), rows_up[::-1])


def texts() -> Iterator[Case]:
    """Texts in a PNG that are bombs, or that have the names of other things."""
    pixels, zeros = drawing(), zlib.compress(bytes(120_000_000), 9)
    parts = [
        (b"zTXt", b"a\0\0" + zeros),
        (b"iTXt", b"a\0\1\0\0\0" + zeros),
        (b"iCCP", b"a\0\0" + zeros),
        (b"tEXt", b"a\0" + bytes(2_000_000)),
    ]
    for number, part in enumerate(parts):
        yield Case(f"bomb-{number}.png", rgb_png(pixels, part), pixels)
    yield Case("bombs.png", rgb_png(pixels, *parts * 20), pixels)
    for number, text in enumerate((b"XML:com.adobe.xmp\0\1\0\0\0", b"Raw profile type exif\0\0")):
        part = ((b"iTXt", b"zTXt")[number], text + zeros)
        yield Case(f"read-bomb-{number}.png", rgb_png(pixels, part), pixels, opens=None)
    behind = rgb_png(pixels)[:-12] + chunk(*parts[0]) + chunk(b"IEND", b"")
    yield Case("bomb-behind.png", behind, pixels)
    for word in (b"transparency", b"bbox", b"interlace", b"icc_profile", b"exif", b"dpi", b"gamma"):
        data = rgb_png(pixels, (b"tEXt", word + b"\0hello"))
        yield Case(f"text-{word.decode()}.png", data, pixels)


def profiles() -> Iterator[Case]:
    """ICC profiles that are broken, for something else, or huge."""
    pixels, swapped = drawing(), srgb_with_red_and_green_swapped()
    huge = swapped + bytes(9_000_000)
    huge = struct.pack(">I", len(huge)) + huge[4:]
    shown = pixels[..., [1, 0, 2]]
    for form in ("PNG", "JPEG", "TIFF", "WEBP"):
        options: dict[str, dict[str, Any]] = {
            "JPEG": {"quality": 95, "subsampling": 0},
            "WEBP": {"lossless": True},
        }
        for name, profile, expected in (
            ("good", swapped, shown),
            ("huge", huge, shown),
            ("garbage", b"not a profile" * 99, pixels),
            ("cut", swapped[:300], pixels),
            ("grey", linear_grey(), pixels),
            ("zeros", bytes(9_000_000), pixels),
            ("long", struct.pack(">I", 2**32 - 1) + swapped[4:], None),
        ):
            data = saved(pixels, form, icc_profile=profile, **options.get(form, {}))
            yield Case(f"{name}.{form.lower()}", data, expected, 10 if form == "JPEG" else 1)
    linear = grey([0, 188, 255])  # 128 / 255 of the light
    part = (b"iCCP", b"a\0\0" + zlib.compress(linear_grey()))
    yield Case("grey.png", png(3, 1, 8, 0, [b"\0\x80\xff"], part), linear)
    yield Case("deep-grey.png", png(3, 1, 16, 0, [b"\0\0\x80\x80\xff\xff"], part), linear)
    yield Case("bits.png", png(4, 1, 1, 0, [b"\xa0"], part), grey([255, 0, 255, 0]))


def circles() -> Iterator[Case]:
    """EXIF and TIFF directories that lead back, overlap, or promise too much."""
    pixels = drawing()
    me: Entry = (4, [8])
    blocks = {
        "self": directory({0x112: (3, [1]), 0x8769: me, 0x8825: me}, 8, following=8),
        "beyond": directory({0x8769: (4, [2**32 - 1]), 0x10F: (2, b"Maker\0")}, 8),
        "cut": directory({0x112: (3, [6]), 0x10F: (2, b"Maker of cameras\0")}, 8)[:9],
        "none": b"",
        "count": b"\xff\xff" + bytes(30),
        "huge-value": struct.pack("<HHHLL", 1, 0x10F, 2, 2**32 - 1, 8),
        "odd-types": directory({0x10F: (12, [1.0]), 0x132: (3, [7] * 9), 0x8769: (2, b"abcd")}, 8),
        "heap": _heap(60_000, 60_000),
    }
    for name, body in blocks.items():
        block = b"II*\0\x08\0\0\0" + body
        if len(block) < 60_000:
            data = fine_jpeg(pixels, exif=b"Exif\0\0" + block)
            yield Case(f"{name}.jpg", data, pixels, 8)
        yield Case(f"{name}.png", rgb_png(pixels, (b"eXIf", block)), pixels)
        yield Case(f"{name}.webp", saved(pixels, "WEBP", lossless=True, exif=block), pixels)
    yield Case("garbage.png", rgb_png(pixels, (b"eXIf", b"garbage")), pixels)
    good = tiff((32, 24), [8] * 3, 2, pixels.tobytes())
    start = struct.unpack("<L", good[4:8])[0]
    following = start + 2 + 12 * 10
    yield Case("ring.tif", good[:following] + good[4:8] + good[following + 4 :], pixels)
    ring = tiff(
        (32, 24), [8] * 3, 2, pixels.tobytes(), tags={330: (13, [start]), 34665: (4, [start])}
    )
    yield Case("rings.tif", ring, pixels)
    yield refused("nowhere.tif", b"II*\0\xff\xff\xff\xff" + bytes(100))
    yield refused("zero.tif", b"II*\0\0\0\0\0" + bytes(100))
    vast: Entry = (4, [2**31 - 1])
    yield refused("vast.tif", tiff((1, 1), [8] * 3, 2, b"abc", tags={256: vast, 257: vast}))
    yield refused("samples.tif", tiff((1, 1), [8], 1, b"a", tags={277: (3, [65_535])}))
    for tag in (258, 273, 279, 320, 339):
        data = tiff((32, 24), [8] * 3, 2, pixels.tobytes(), tags={320: (3, [1]), 339: (3, [1] * 3)})
        entry = data.index(struct.pack("<HH", tag, 4 if tag in (273, 279) else 3), start)
        counted = data[: entry + 4] + b"\xff\xff\xff\x7f" + data[entry + 8 :]
        yield Case(f"count-{tag}.tif", counted, pixels, opens=None)
    heap = b"II*\0\x08\0\0\0" + _heap(65_535, 1 << 20)
    yield Case("heap.tif", heap, opens=False)


def _heap(count: int, size: int) -> bytes:
    """A directory of ``count`` tags that all have the same ``size`` bytes as their value."""
    place = 8 + 2 + 12 * count + 4
    table = b"".join(struct.pack("<HHLL", tag, 7, size, place) for tag in range(1, count + 1))
    return struct.pack("<H", count) + table + bytes(4) + bytes(size)


def headers() -> Iterator[Case]:
    """Sizes and lengths that cannot be."""
    pixels = drawing()
    for name, (width, height) in {"no-width": (0, 1), "no-height": (1, 0)}.items():
        yield refused(f"{name}.png", png(width, height, 8, 2, [b"abc"]))
        yield refused(f"{name}.bmp", bmp((width, height), 24, b"abcd"))
        yield refused(f"{name}.tif", tiff((width, height), [8] * 3, 2, b"abcd"))
        jpeg = saved(pixels, "JPEG")
        start = jpeg.index(b"\xff\xc0") + 5
        size = struct.pack(">HH", height, width)
        yield refused(f"{name}.jpg", jpeg[:start] + size + jpeg[start + 4 :])
    good = saved(pixels, "PNG")
    for place, name in ((16, "header"), (len(good) - 13, "data"), (len(good) - 1, "end")):
        bad = bytearray(good)
        bad[place] ^= 1
        yield Case(f"crc-{name}.png", bytes(bad), pixels, opens=None if name == "end" else False)
    yield refused("kind.png", png(1, 1, 3, 2, [b"abc"]))
    yield refused("no-data.png", good[:33] + chunk(b"IEND", b""))
    yield refused("length.png", good[:33] + b"\xff\xff\xff\xff" + good[37:])
    yield refused("tall.bmp", bmp((1, 2**31 - 1), 24, b"abcd"))
    yield refused("deep.bmp", bmp((1, -(2**31)), 24, b"abcd"))
    yield refused("left.bmp", bmp((-1, 1), 24, b"abcd"))
    yield refused("no-screen.gif", b"GIF89a\0\0\0\0\0\0\0,\0\0\0\0\0\0\0\0\0\2\2D\1\0;")
    frame = b"GIF89a\2\0\1\0\x80\0\0\1\2\3\4\5\6,\0\0\0\0\0\0\0\0\0\2\2D\1\0;"
    yield Case("no-frame.gif", frame, opens=None)
    webp = saved(pixels, "WEBP", lossless=True)
    for name, length in (("short", 20), ("long", len(webp) + 1000), ("vast", 2**32 - 1)):
        data = webp[:4] + struct.pack("<I", length) + webp[8:]
        yield Case(f"{name}.webp", data, pixels, opens=None)
    twelve = saved(pixels, "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")
    yield refused("twelve-bit.jpg", twelve)


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has to be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _locked(path: Path) -> None:
    path.write_bytes(saved(drawing(), "PNG"))
    path.chmod(0)


def special() -> Iterator[Case]:
    """What is no regular file, or may not be read. POSIX only."""
    yield refused("folder.png", Path.mkdir)
    yield refused("pipe.png", os.mkfifo)
    yield refused("loop.png", _loop)
    yield refused("socket.png", _socket)
    yield refused("zero.png", lambda path: path.symlink_to("/dev/zero"))
    yield refused("random.png", lambda path: path.symlink_to("/dev/urandom"))
    yield refused("nowhere.png", lambda path: path.symlink_to("/no/such/file"))
    if os.geteuid():  # nothing is forbidden to root
        yield refused("locked.png", _locked)


GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    make.__name__: make
    for make in (
        damaged,
        flipped,
        disguised,
        bombs,
        animated,
        sized,
        named,
        turned,
        inked,
        deep,
        transparent,
        palettes,
        texts,
        profiles,
        circles,
        headers,
        special,
    )
}
"""What makes the cases, by name."""


def main(folder: Path) -> None:
    for name, cases in GROUPS.items():
        (folder / name).mkdir(parents=True)
        for case in cases():
            case.write(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
