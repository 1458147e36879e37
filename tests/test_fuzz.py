"""Whatever is done to a header, a picture opens or is refused in one line.

`FUZZ=20000 python -m pytest tests/test_fuzz.py` tries that many, and others each time.
"""

from __future__ import annotations

import os
import struct
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import hostile
from impasto.errors import ImageError
from impasto.images import Picture, open_image, read_record, save_image

EXAMPLES = int(os.environ.get("FUZZ", "0"))
MAX_PIXELS = 1 << 20  # a header that promises more is refused, which says nothing new

INTEGERS = [0, 1, 2, 3, 7, 8, 12, 13, 16, 127, 128, 255, 256, 32_767, 65_535, 2**31 - 1, 2**32 - 1]


def examples(count: int) -> settings:
    """The settings of a test of so many examples."""
    return settings(
        max_examples=EXAMPLES or count,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def sound() -> list[bytes]:
    """Real files of all formats and many kinds, all of them small."""
    files = [plain.data for plain in hostile.plain()]
    for group in ("animated", "turned", "inked", "deep", "transparent", "palettes"):
        cases = [case for case in hostile.GROUPS[group]() if case.opens]
        files += [case.make for case in cases if isinstance(case.make, bytes)][::3]
    image = Image.fromarray(hostile.drawing())
    files.append(hostile.saved(image, "JPEG", progressive=True, comment=b"a comment"))
    files.append(hostile.saved(image, "TIFF", compression="tiff_lzw"))
    files.append(hostile.saved(image, "TIFF", compression="jpeg"))
    files.append(hostile.saved(image.convert("1"), "TIFF", compression="group4"))
    profile = hostile.srgb_with_red_and_green_swapped()
    files.append(hostile.saved(image, "PNG", icc_profile=profile))
    return files


FILES = sound()

edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "xor", "number", "insert", "delete", "double", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
        st.sampled_from(INTEGERS),
    ),
    min_size=1,
    max_size=6,
)
"""Changes: what, where, and with what."""

Edits = Sequence[tuple[str, float, int, int]]


def edited(data: bytes, changes: Edits, within: int) -> bytes:
    """``data`` with changes in its first bytes."""
    for what, where, value, number in changes:
        at = int(where * min(within, len(data)))
        if what == "set":
            data = data[:at] + bytes([value]) + data[at + 1 :]
        elif what == "xor" and data:
            data = data[:at] + bytes([data[at] ^ (1 << value % 8)]) + data[at + 1 :]
        elif what == "number":
            order, size = "<>"[value % 2], "HL"[value // 2 % 2]
            packed = struct.pack(order + size, number & (0xFFFF if size == "H" else 0xFFFFFFFF))
            data = data[:at] + packed + data[at + len(packed) :]
        elif what == "insert":
            data = data[:at] + bytes([value]) * (number % 40) + data[at:]
        elif what == "delete":
            data = data[:at] + data[at + 1 + value % 16 :]
        elif what == "double":
            data = data[:at] + data[at : at + value] + data[at:]
        elif what == "cut" and value < 40:
            data = data[: at + 1]
    return data


# --- the parts that formats are made of


def png_parts(data: bytes) -> list[bytes]:
    parts, at = [data[:8]], 8
    while at < len(data):
        size = 12 + int.from_bytes(data[at : at + 4])
        parts.append(data[at : at + size])
        at += size
    return parts


def png_part(part: bytes, changes: Edits) -> bytes:
    """A chunk with its kind or its data changed, and its checksum right again."""
    body = edited(part[4:-4], changes, 400)
    return hostile.chunk(body[:4].ljust(4, b"a"), body[4:])


def jpeg_parts(data: bytes) -> list[bytes]:
    parts, at = [data[:2]], 2
    while data[at + 1] != 0xDA:
        size = 2 + int.from_bytes(data[at + 2 : at + 4])
        parts.append(data[at : at + size])
        at += size
    return [*parts, data[at:]]


def jpeg_part(part: bytes, changes: Edits) -> bytes:
    """A segment with its marker or its data changed, and its length right again."""
    body = edited(part[1:2] + part[4:], changes, 400) or b"\xfe"
    return b"\xff" + body[:1] + struct.pack(">H", len(body[1:65_000]) + 2) + body[1:]


def tiff_parts(data: bytes) -> list[bytes]:
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack(order + "L", data[4:8])
    (count,) = struct.unpack(order + "H", data[start : start + 2])
    ends = [start + 2 + 12 * entry for entry in range(count + 1)]
    entries = [data[at : at + 12] for at in ends[:-1]]
    return [data[: ends[0]], *entries, data[ends[-1] :]]


def tiff_part(part: bytes, changes: Edits) -> bytes:
    """An entry with tag, type, count or value changed: its length stays."""
    return edited(part, changes, 12)[:12].ljust(len(part), b"\0")[: len(part)]


Split = Callable[[bytes], list[bytes]]
Change = Callable[[bytes, Edits], bytes]
PARTS: list[tuple[tuple[bytes, ...], Split, Change]] = [
    ((b"\x89PNG",), png_parts, png_part),
    ((b"\xff\xd8\xff",), jpeg_parts, jpeg_part),
    ((b"II*\0", b"MM\0*"), tiff_parts, tiff_part),
]


def rearranged(data: bytes, where: float, how: str, changes: Edits, parts: Any) -> bytes:
    """``data`` with one of its parts changed, doubled, left out or moved."""
    _, split, change = parts
    pieces = split(data)
    at = 1 + int(where * (len(pieces) - 1))
    if how == "change":
        pieces[at] = change(pieces[at], changes)
    elif how == "double":
        pieces.insert(at, pieces[at])
    elif how == "move":
        pieces.insert(1 + int(changes[0][1] * (len(pieces) - 1)), pieces.pop(at))
    else:
        del pieces[at]
    return b"".join(pieces)


# --- the tests


def check(path: Path, data: bytes) -> None:
    """It opens, and is consistent; or is refused in one line. Nothing else happens, and soon."""
    path.write_bytes(data)
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            picture = open_image(path, max_pixels=MAX_PIXELS)
        except ImageError as error:
            text = str(error)
            assert text.startswith(f"cannot read {path}: ")
            assert text.isprintable()
        else:
            assert picture.pixels.shape == (picture.height, picture.width, 3)
            assert picture.width * picture.height <= MAX_PIXELS
            assert picture.alpha is None or picture.alpha.min() < 255
            assert picture.sha256
        assert read_record(path) is None
    assert time.monotonic() - began < 10


def test_bytes_of_any_format(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    @examples(800)
    @given(st.sampled_from(FILES), edits, st.sampled_from([64, 400, 10_000]))
    def run(data: bytes, changes: Edits, within: int) -> None:
        check(tmp_path / "a", edited(data, changes, within))

    run()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("parts", PARTS, ids=["png", "jpeg", "tiff"])
def test_parts(parts: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = [data for data in FILES if data.startswith(parts[0])]
    hows = st.sampled_from(["change", "change", "change", "double", "move", "drop"])
    turns = st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), hows, edits), min_size=1, max_size=3
    )

    @examples(400)
    @given(st.sampled_from(files), turns)
    def run(data: bytes, changes: Any) -> None:
        for where, how, edit in changes:
            try:
                data = rearranged(data, where, how, edit, parts)
            except (IndexError, struct.error):  # the turn before left nothing to split
                break
        check(tmp_path / "a", data)

    run()
    assert capfd.readouterr() == ("", "")


BLOCKS = [
    hostile.exif(
        {0x10E: (2, b"caf\xc3\xa9\0"), 0x10F: (2, b"Maker\0"), 0x112: (3, [6]), 0x131: (2, b"S\0")},
        {0x829A: (5, [1, 100]), 0x9003: (2, b"2024:01:02 03:04:05\0"), 0xA002: (4, [32]),
         0x927C: (7, b"note"), 0x9286: (7, b"ASCII\0\0\0hello")},
        {1: (2, b"N\0"), 2: (5, [1, 1, 2, 1, 3, 1])},
        order,
    )
    for order in "<>"
]  # fmt: skip


def test_exif_that_is_carried_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    hows = st.sampled_from(["bytes", "change", "double", "move", "drop"])

    @examples(150)
    @given(
        st.sampled_from(BLOCKS), hows, st.floats(0, 1, exclude_max=True), edits,
        st.sampled_from([".png", ".jpg", ".webp", ".tif"]), st.sampled_from([None, "{}"]),
    )  # fmt: skip
    def run(block: bytes, how: str, where: float, changes: Edits, form: str, record: Any) -> None:
        if how == "bytes":
            block = edited(block, changes, 10_000)
        else:
            block = rearranged(block, where, how, changes, PARTS[2])
        path = tmp_path / f"a{form}"
        save_image(Picture(pixels, exif=b"Exif\0\0" + block), path, record=record)
        assert read_record(path) == record
        with Image.open(path) as image:
            image.load()
            assert image.getexif().get(0x112, 1) == 1
            assert 0x8825 not in image.getexif()
        again = open_image(path)
        assert again.size == (3, 2)
        twice = tmp_path / f"b{form}"
        save_image(again, twice, record=record)
        assert open_image(twice).exif == again.exif

    run()
    assert capfd.readouterr() == ("", "")
