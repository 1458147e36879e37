"""What lies in folders: which pictures, what is wrong with some, and what is there twice.

Two pictures of one painting must not be parted into what is learned from and what is held out. So
pictures are compared in two ways:

- The SHA-256 of their pixels. The same picture in two formats that lose nothing has the same.
- How alike they look. A *difference hash* has 64 bits: whether each of 8×8 cells is lighter than
  the cell to its right. A *thumbnail* has 16×16 px. Two pictures are near duplicates if at most
  `HASH_BITS` bits of their hashes differ, and if their thumbnails, of 256 levels, differ by at most
  `THUMBNAIL_LEVELS` on average.

Neither is enough alone. Flat pictures of whatever colour have the same hash; two pale drawings have
nearly the same thumbnail.

Both limits were chosen on 2,210 paintings, photos and textures. Of their copies, these shares were
found: JPEG at quality 30, 99.8 %; half the size, 100 %; cut by 1 % on each side, 98 %; by 2 %,
91 %; 5 % lighter, 99.9 %. Of the 2.4 million pairs of two of them, three were found: two that are
the same picture, and two dark pieces of leather. With the hash alone it would be 488, with the
thumbnails alone 145. Among 100,000 photos of 64 px there were 24 groups; 23 were right, the other
were three nails on white. What stays apart is another photo of the same painting in other colours,
a mirrored copy (unless the picture is symmetrical), and a copy that was cut by much.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from PIL import Image, ImageOps

from impasto.errors import ImageError, one_line
from impasto.files import os_reason
from impasto.images import MAX_PIXELS, Picture, open_image, pictures_in
from impasto.sheet import contact_sheet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from impasto.files import StrPath
    from impasto.gan.pictures import Box

__all__ = [
    "MIN_SIDE",
    "Found",
    "Report",
    "Skipped",
    "find",
    "in_order",
    "look",
    "paintings",
    "reason",
    "spread",
    "survey",
    "thumbnails",
]

MIN_SIDE: Final = 32
"""A picture with a shorter side than this is not used, px."""

HASH_BITS: Final = 10
THUMBNAIL_LEVELS: Final = 10
"""The most by which near duplicates differ; see the module."""

THUMBNAIL: Final = 16
SHEET_CELL: Final = 160
SHEET_COLUMNS: Final = 8
SHOWN: Final = 10
"""Lines of a report under one heading, at most."""

_BLOCK = 256  # pictures that are compared with all others at a time
_PAIRS = 8192  # pairs whose thumbnails are compared at a time

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Found:
    """A picture that can be used.

    Attributes:
        path: Its file.
        size: (W, H), upright, px.
        sha256: Of its size and its pixels, upright, in sRGB, over white: hexadecimal.
        fingerprint: Its difference hash, 64 bits.
        thumbnail: 16×16 px of 3 bytes, row by row.
    """

    path: Path
    size: tuple[int, int]
    sha256: str
    fingerprint: int
    thumbnail: bytes = field(repr=False)


@dataclass(frozen=True)
class Skipped:
    """A file that cannot be used, and why, in one line."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Report:
    """What there is.

    Attributes:
        found: The pictures that can be used.
        skipped: The files that cannot.
        exact: Groups of files with the same pixels.
        near: Groups of files that look alike; of exact duplicates, only the first is named.
    """

    found: tuple[Found, ...]
    skipped: tuple[Skipped, ...]
    exact: tuple[tuple[Path, ...], ...]
    near: tuple[tuple[Path, ...], ...]

    @classmethod
    def of(cls, looked: Iterable[Found | Skipped]) -> Report:
        """The report on files that were looked at."""
        everything = list(looked)
        found = tuple(one for one in everything if isinstance(one, Found))
        copies: dict[str, list[Found]] = {}
        for one in found:
            copies.setdefault(one.sha256, []).append(one)
        different = [same[0] for same in copies.values()]
        alike: dict[int, list[Path]] = {}
        for one, number in zip(different, paintings(different).tolist(), strict=True):
            alike.setdefault(number, []).append(one.path)
        return cls(
            found,
            tuple(one for one in everything if isinstance(one, Skipped)),
            tuple(tuple(one.path for one in same) for same in copies.values() if len(same) > 1),
            tuple(tuple(paths) for paths in alike.values() if len(paths) > 1),
        )

    @property
    def paintings(self) -> int:
        """How many there are when duplicates, exact or near, count once."""
        copies = sum(len(group) - 1 for group in self.exact + self.near)
        return len(self.found) - copies

    @property
    def sides(self) -> tuple[int, int, int]:
        """The smallest, the median and the largest short side of the pictures, px; 0 if none."""
        sides = sorted(min(one.size) for one in self.found)
        return (sides[0], sides[len(sides) // 2], sides[-1]) if sides else (0, 0, 0)

    def lines(self) -> list[str]:
        """The report for a reader."""
        least, median, most = self.sides
        lines = [f"{_count(len(self.found), 'picture')}, {_count(self.paintings, 'painting')}"]
        if self.found:
            lines.append(f"short side: {least} px at least, {median} px median, {most} px at most")
        for title, sign, groups in (
            ("the same pixels, used once", " = ", self.exact),
            ("alike, kept together", " ~ ", self.near),
        ):
            if groups:
                lines.append(f"{title}: {_count(len(groups), 'group')}")
                lines += _first(sign.join(map(os.fspath, group)) for group in groups)
        if self.skipped:
            lines.append(f"not used: {_count(len(self.skipped), 'file')}")
            lines += _first(f"{skipped.path}: {skipped.reason}" for skipped in self.skipped)
        return lines


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _first(lines: Iterable[str]) -> list[str]:
    """The first of these lines, indented, and how many more there are."""
    every = [f"  {one_line(line)}" for line in lines]
    more = len(every) - SHOWN
    return every if more <= 0 else [*every[:SHOWN], f"  and {more:,} more"]


def find(folders: Sequence[StrPath]) -> list[Path]:
    """The picture files in folders and in the folders in them, by their suffix, sorted.

    Hidden files and folders are left out, unless they are named themselves. Links are followed; a
    file that can be reached in several ways is found once, and so is what a folder holds.

    Args:
        folders: Folders, or files, whose suffix then does not matter.

    Raises:
        ImageError: One is not there, or a folder cannot be read.
    """
    found: list[Path] = []
    visited: set[Path] = set()
    for path in map(Path, folders):
        try:
            if path.is_dir():
                found += _walk(path, visited)
            elif path.is_file():
                found.append(path)
            else:
                raise ImageError(one_line(f"cannot read {path}: there is no such folder or file"))
        except OSError as error:
            raise ImageError(one_line(f"cannot read {path}: {os_reason(error)}")) from error
    once: dict[Path, Path] = {}
    for path in sorted(found):
        once.setdefault(path.resolve(), path)
    return list(once.values())


def _walk(top: Path, visited: set[Path]) -> Iterator[Path]:
    """The pictures under a folder; a folder that was visited, by whatever way, is passed over."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        real = folder.resolve()
        if real not in visited:
            visited.add(real)
            yield from pictures_in(folder)
            waiting += sorted(
                path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir()
            )


def look(
    path: Path, *, min_side: int = MIN_SIDE, max_pixels: int = MAX_PIXELS
) -> tuple[Picture, Found]:
    """Reads a picture, over white where it is transparent, and tells what it is.

    Of an animated picture it is the first frame.

    Raises:
        ImageError: It cannot be read, or a side has less than `min_side` px.
    """
    try:
        picture = open_image(path, max_pixels=max_pixels).over_white()
        if min(picture.size) < min_side:
            raise ImageError(
                f"cannot read {path}: it has {picture.width} × {picture.height} px, "
                f"less than {min_side} px a side"
            )
        digest = hashlib.sha256(f"{picture.width} {picture.height}\n".encode())
        digest.update(np.ascontiguousarray(picture.pixels).data)
        image = Image.fromarray(picture.pixels)
        box, side = Image.Resampling.BOX, (THUMBNAIL, THUMBNAIL)
        return picture, Found(
            path,
            picture.size,
            digest.hexdigest(),
            _difference_hash(image),
            image.resize(side, box).tobytes(),
        )
    except MemoryError as error:
        raise ImageError(f"cannot read {path}: not enough memory") from error


def _difference_hash(image: Image.Image) -> int:
    """Whether each of 8×8 cells is lighter than its right neighbour, row by row, 64 bits."""
    cells = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX))
    return int.from_bytes(np.packbits(cells[:, :-1] > cells[:, 1:]).tobytes(), "big")


def reason(error: Exception, path: Path) -> str:
    """Why a file cannot be used, in one line that does not name it."""
    return one_line(str(error).removeprefix(f"cannot read {path}: "))


def survey(
    paths: Sequence[Path], *, min_side: int = MIN_SIDE, max_pixels: int = MAX_PIXELS
) -> Iterator[Found | Skipped | Report]:
    """Looks at every file: one that cannot be used is told as such, and is no error.

    Args:
        paths: The files, as `find` gives them.
        min_side: The shortest side that a picture may have, px.
        max_pixels: The most pixels; see `impasto.images.open_image`.

    Yields:
        What each file is, in order, and at the end the report.
    """

    def looked(path: Path) -> Found | Skipped:
        try:
            return look(path, min_side=min_side, max_pixels=max_pixels)[1]
        except ImageError as error:
            return Skipped(path, reason(error, path))

    everything = []
    for one in in_order(looked, paths):
        everything.append(one)
        yield one
    yield Report.of(everything)


def in_order(work: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """What `work` makes of each item, in order, a few of them at a time in threads.

    More than a few threads bring nothing: pictures are decoded one at a time (see
    `impasto.decode.pillow_guarded`), and only what is done with them goes side by side.
    """
    workers = min(4, os.cpu_count() or 1)
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def paintings(found: Sequence[Found]) -> NDArray[np.int64]:
    """Which painting each picture shows, `(n,)`: duplicates, exact or near, have one number.

    What is alike goes together, and what is alike with either of them. Paintings are numbered from
    0 in the order in which they come first.
    """
    first = list(range(len(found)))  # a picture of the same painting that comes before, or itself

    def root(index: int) -> int:
        while first[index] != index:
            first[index] = first[first[index]]
            index = first[index]
        return index

    for pairs in _alike(found):
        for a, b in pairs.tolist():
            a, b = sorted((root(a), root(b)))
            first[b] = a
    roots = np.array([root(index) for index in range(len(found))], np.int64)
    numbers: NDArray[np.int64] = np.unique(roots, return_inverse=True)[1].astype(np.int64)
    return numbers


def _alike(found: Sequence[Found]) -> Iterator[NDArray[np.int64]]:
    """The pairs of near duplicates, `(m, 2)` at a time, each once.

    The mean levels of two thumbnails differ at most as the thumbnails do on average. So pictures
    are sorted by that mean, and each is compared only with those that follow within the limit.
    Hashes are compared as vectors of ±1: their product is 64 less twice the bits that differ.
    """
    if not found:
        return
    codes = np.array([one.fingerprint for one in found], ">u8").view(np.uint8).reshape(-1, 8)
    signs = np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1
    pixels = np.frombuffer(b"".join(one.thumbnail for one in found), np.uint8)
    pixels = pixels.reshape(len(found), -1)
    means = pixels.mean(axis=1)
    order = np.argsort(means, kind="stable")
    means, signs, pixels = means[order], signs[order], pixels[order]
    ends = np.searchsorted(means, means + THUMBNAIL_LEVELS, side="right")
    for start in range(0, len(found), _BLOCK):
        stop = min(start + _BLOCK, len(found))
        products = signs[start:stop] @ signs[start : ends[stop - 1]].T
        a, b = np.nonzero(products >= 64 - 2 * HASH_BITS)
        a, b = a[b > a] + start, b[b > a] + start
        for at in range(0, len(a), _PAIRS):
            pair = np.stack((a[at : at + _PAIRS], b[at : at + _PAIRS]))
            left, right = pixels[pair].astype(np.int16)
            close = np.abs(left - right).mean(axis=1) <= THUMBNAIL_LEVELS
            yield order[pair[:, close].T]


def spread(count: int, total: int) -> NDArray[np.int64]:
    """Places of at most `count` things among `total`, evenly spread, in order."""
    places: NDArray[Any] = np.linspace(0, max(0, total - 1), min(count, total))
    return places.round().astype(np.int64)


def thumbnails(
    report: Report,
    cut: Callable[[Found], Sequence[Box]] | None = None,
    count: int = 48,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """A sheet of pictures, evenly spread over all there are, each in a cell of 160 px.

    Args:
        report: On the pictures; those that cannot be read any more are left out.
        cut: Gives the squares of a picture, to show these; None to show it whole.
        count: The most that are shown.
        max_pixels: As for `survey`, which made the report.

    Raises:
        ImageError: There is none that can be shown.
    """
    parts: list[tuple[Path, Box | None]] = []
    for one in report.found:
        parts += [(one.path, box) for box in cut(one)] if cut else [(one.path, None)]
    cells = []
    for place in spread(count, len(parts)).tolist():
        path, box = parts[place]
        try:
            image = open_image(path, max_pixels=max_pixels).over_white().pil()
        except ImageError:
            continue
        if box:
            left, top, side = box
            image = image.crop((left, top, left + side, top + side))
        fitted = ImageOps.pad(image, (SHEET_CELL, SHEET_CELL), color="white")
        cells.append(Picture(np.array(fitted)))
    if not cells:
        raise ImageError("there is no picture to show; name folders that hold some")
    rows = [cells[at : at + SHEET_COLUMNS] for at in range(0, len(cells), SHEET_COLUMNS)]
    return contact_sheet(rows)
