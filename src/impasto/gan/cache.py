"""Pictures decoded once, cut into squares, and mapped into memory from then on.

The cache is a folder of folders, one for each collection and way to cut it:

    CACHE/
      index.json      the SHA-256 of files that were read before, by path, length and time
      KEY/
        train.npy     uint8 (n, S, S, 3), squares to learn from
        held.npy      the same, of the paintings that are held out
        meta.json     which painting each square is from; which files could not be used
      KEY.part/       one that is being made
      KEY.lock        held by the process that makes it

`KEY` follows from the bytes of the files and from the settings, not from names or order, and so
does what the folder holds. A folder gets its name when all of it is on the disk.

Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

import numpy as np
from PIL import Image

from impasto.classics import weights_folder
from impasto.errors import ImageError, ImpastoError, SettingsError, one_line
from impasto.files import lock, os_reason, sha256_file, sweep, write_text_atomic
from impasto.gan.collection import (
    MIN_SIDE,
    Found,
    Skipped,
    find,
    in_order,
    look,
    paintings,
    reason,
)
from impasto.gan.pictures import Box, Pictures, Views, boxes, closer, hold_out
from impasto.images import MAX_PIXELS, Picture
from impasto.seeds import derive_seed

if TYPE_CHECKING:
    from impasto.files import StrPath
    from impasto.gan.pictures import Numbers, Squares

__all__ = ["Progress", "prepare", "reference_squares"]

FORMAT: Final = 2
"""Of the cache. Another number makes all of it anew."""

ABANDONED_S: Final = 3600.0
"""An index that has been in the making for longer than this belongs to nobody any more, s."""

SETTLED_NS: Final = 2 * 10**9
"""A file that was changed less than this ago could change again and keep its time, ns."""


class Progress(NamedTuple):
    """How far the preparation is.

    Attributes:
        stage: `checking` while files are recognised by their bytes, `reading` while they are
            decoded.
        done: Files of this stage that are done.
        total: Of how many.
        path: The file at hand.
        skipped: The file that has just turned out to be of no use; else None.
    """

    stage: str
    done: int
    total: int
    path: Path
    skipped: Skipped | None = None


def prepare(
    paths: Sequence[StrPath],
    views: Views,
    *,
    cache: StrPath | None = None,
    seed: int = 0,
    held_out: float = 0.2,
    least_held: int = 1,
    max_pixels: int = MAX_PIXELS,
) -> Generator[Progress, None, Pictures]:
    """Decodes pictures and cuts them, unless that was done before.

    Pictures with the same pixels are used once. What is held out is chosen by painting: near
    duplicates are of one painting (see `impasto.gan.collection`). If another process makes the
    same, this one waits for it.

    Args:
        paths: Picture files, as `impasto.gan.collection.find` gives them, in any order.
        views: How to cut.
        cache: The folder that keeps the squares; None for the user's, or `gan-data` in the folder
            that `IMPASTO_CACHE` names.
        seed: Of what is held out, and of random crops.
        held_out: The share of the paintings that is held out, above 0; 1 holds all of them out.
        least_held: If those give less squares than this, each square is cut again and again, a
            little closer and anywhere within it, until there are so many.
        max_pixels: The most pixels of a picture; see `impasto.images.open_image`.

    Yields:
        Where it is, before each file that is recognised and after each that is decoded.

    Returns:
        The squares.

    Raises:
        SettingsError: `held_out` is out of range.
        ImpastoError: There are less than two paintings, a file was changed at the same time, or the
            cache cannot be written.
    """
    if not 0 < held_out <= 1:
        raise SettingsError(f"held_out is {held_out}; it is a share above 0 and at most 1")
    root = weights_folder().with_name("gan-data") if cache is None else Path(cache)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImpastoError(f"cannot make the folder {root}: {os_reason(error)}") from error
    files, unreadable = yield from _recognise([Path(path) for path in paths], root)
    job = _Job(root, files, views, seed, held_out, least_held, max_pixels)
    made = job.open(unreadable)
    if made is None:
        _sweep(root)
        with lock(job.folder, timeout=None):
            made = job.open(unreadable)  # another process may have made it meanwhile
            if made is None:
                yield from job.make()
                made = job.open(unreadable)
    if made is None:
        raise ImpastoError(f"cannot read {job.folder}, which has just been written; try again")
    return made


def reference_squares(
    folders: Sequence[StrPath],
    size: int,
    count: int,
    *,
    cache: StrPath | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Squares, Numbers]:
    """Squares of all pictures in folders, to compare generated ones with.

    Args:
        folders: Where to look; see `impasto.gan.collection.find`.
        size: Side of the squares, px.
        count: How many; see `least_held` of `prepare`.
        cache: As for `prepare`.
        max_pixels: As for `prepare`.

    Returns:
        Pictures, uint8 (n, size, size, 3), and which painting each is of, (n,).

    Raises:
        ImpastoError: As for `prepare`.
    """
    work = prepare(
        find(folders),
        Views(size),
        cache=cache,
        held_out=1,
        least_held=count,
        max_pixels=max_pixels,
    )
    while True:
        try:
            next(work)
        except StopIteration as end:
            made: Pictures = end.value
            return made.reference(count)


# --- files by their bytes -------------------------------------------------------------------------


def _recognise(
    paths: Sequence[Path], root: Path
) -> Generator[Progress, None, tuple[dict[str, Path], list[Skipped]]]:
    """The files by the SHA-256 of their bytes, each content once; and those that cannot be read.

    `index.json` knows the files that have not changed since they were last read. It only saves
    time: it may be missing, be of another time, or be impossible to write.
    """
    index = _read_index(root / "index.json")
    news: dict[str, list[Any]] = {}
    files: dict[str, Path] = {}
    unreadable = []
    now = time.time_ns()
    for number, path in enumerate(paths):
        yield Progress("checking", number, len(paths), path)
        name = str(path.absolute())
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("it is not a regular file")
            stamp = [status.st_size, status.st_mtime_ns]
            known = index.get(name, [])
            digest = known[2] if known[:2] == stamp else sha256_file(path)
        except (OSError, ImpastoError) as error:
            why = os_reason(error) if isinstance(error, OSError) else reason(error, path)
            unreadable.append(Skipped(path, why))
            continue
        if known[:2] != stamp and status.st_mtime_ns < now - SETTLED_NS:
            news[name] = [*stamp, digest]
        files.setdefault(digest, path)
    if news:
        kept = {name: entry for name, entry in index.items() if os.path.lexists(name)}
        with suppress(ImpastoError):
            write_text_atomic(root / "index.json", json.dumps({**kept, **news}))
    return files, unreadable


def _read_index(path: Path) -> dict[str, list[Any]]:
    try:
        index = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(index, dict):
        return {}
    return {
        name: entry for name, entry in index.items() if isinstance(entry, list) and len(entry) == 3
    }


# --- one folder of the cache ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What is asked for, and the folder of the cache that answers it."""

    root: Path
    files: Mapping[str, Path]
    views: Views
    seed: int
    held_out: float
    least_held: int
    max_pixels: int

    @property
    def key(self) -> str:
        """What follows from the content of the files and the settings, 32 hexadecimal digits."""
        asked = {
            "format": FORMAT,
            "views": dataclasses.asdict(self.views),
            "seed": self.seed,
            "held_out": self.held_out,
            "least_held": self.least_held,
            "max_pixels": self.max_pixels,
            "min_side": MIN_SIDE,
            "files": sorted(self.files),
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def folder(self) -> Path:
        """Where the squares are kept."""
        return self.root / self.key

    def open(self, unreadable: Sequence[Skipped]) -> Pictures | None:
        """The squares, if they are there and whole."""
        folder = self.folder
        try:
            meta = json.loads((folder / "meta.json").read_text("utf-8"))
            made = Pictures(
                np.load(folder / "train.npy", mmap_mode="r"),
                np.load(folder / "held.npy", mmap_mode="r"),
                np.array(meta["train"], np.int64),
                np.array(meta["held"], np.int64),
                self.views.size,
                folder.name,
                (*unreadable, *(Skipped(self.files[sha], why) for sha, why in meta["skipped"])),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        whole = len(made.train) == len(made.train_painting)
        return made if whole and len(made.held) == len(made.held_painting) else None

    def make(self) -> Generator[Progress, None, None]:
        """Makes the folder. Whatever happens, it is there whole or not at all."""
        part = self.folder.with_suffix(".part")
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            yield from self._fill(part)
            shutil.rmtree(self.folder, ignore_errors=True)  # there, but not whole
            part.rename(self.folder)
        except OSError as error:
            raise ImpastoError(
                f"cannot write {part}: {os_reason(error)}; another folder can be chosen with "
                "--cache or IMPASTO_CACHE"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _fill(self, part: Path) -> Generator[Progress, None, None]:
        # 1. All squares in one file, in the order of reading: what is held out is not known yet.
        looked: dict[str, _Place] = {}
        skipped: list[tuple[str, str]] = []
        squares = 0
        work = sorted(self.files.items(), key=lambda item: item[1])
        with (part / "squares").open("wb") as file, closing(in_order(self._look, work)) as results:
            for done, ((sha, path), result) in enumerate(zip(work, results, strict=True), 1):
                if isinstance(result, Skipped):
                    skipped.append((sha, result.reason))
                    yield Progress("reading", done, len(work), path, result)
                    continue
                found, pixels = result
                if found.sha256 not in looked:
                    looked[found.sha256] = _Place(found, squares, len(pixels))
                    file.write(pixels.data)
                    squares += len(pixels)
                yield Progress("reading", done, len(work), path)

        # 2. Paintings, in the order of their pixels' digests; which of them are held out.
        places = [looked[digest] for digest in sorted(looked)]
        numbers = paintings([place.found for place in places]).tolist()
        first: dict[int, str] = {}
        for number, place in zip(numbers, places, strict=True):
            first.setdefault(number, place.found.sha256)
        if len(first) < 2:
            raise ImpastoError(
                f"{len(places)} of {len(work)} pictures can be used, and a GAN needs two that show "
                "different paintings; name more folders, or see what impasto gan data says"
            )
        held = hold_out(list(first.values()), self.held_out, self.seed)

        # 3. The squares again, those to learn from and those that are held out, with more of these.
        meta: dict[str, Any] = {"format": FORMAT, "skipped": skipped}
        with (part / "squares").open("rb") as file:
            for name, side in (("train", False), ("held", True)):
                chosen = [
                    (number, place)
                    for number, place in zip(numbers, places, strict=True)
                    if held[number] == side
                ]
                squares = sum(place.count for _, place in chosen)
                copies = max(1, -(-self.least_held // squares)) if side else 1
                meta[name] = [
                    number for number, place in chosen for _ in range(place.count * copies)
                ]
                self._copy(file, [place for _, place in chosen], part / f"{name}.npy", copies)
        (part / "squares").unlink()
        write_text_atomic(part / "meta.json", json.dumps(meta))

    def _look(self, item: tuple[str, Path]) -> tuple[Found, Squares] | Skipped:
        """A picture and its squares, (n, S, S, 3); or that it cannot be used."""
        sha, path = item
        try:
            picture, found = look(path, max_pixels=self.max_pixels)
        except ImageError as error:
            cause = error.__cause__
            if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno):
                raise  # this may go well another time, so it must not be remembered
            return Skipped(path, reason(error, path))
        if picture.sha256 != sha:
            raise ImpastoError(one_line(f"{path} was changed while it was read; start again"))
        cut = boxes(picture.size, self.views, derive_seed(self.seed, "crops", found.sha256))
        return found, _squares(picture, cut, self.views.stored)

    def _copy(self, file: BinaryIO, places: Sequence[_Place], path: Path, copies: int) -> None:
        """Writes squares as an array file: by plain writes, as a map would crash on a full disk.

        Each comes `copies` times, every time but the first a little closer.
        """
        side = self.views.stored
        bytes_each = side * side * 3
        shape = (sum(place.count for place in places) * copies, side, side, 3)
        with path.open("wb") as array:
            np.lib.format.write_array_header_1_0(
                array, {"descr": "|u1", "fortran_order": False, "shape": shape}
            )
            for place in places:
                file.seek(place.start * bytes_each)
                array.write(file.read(place.count * bytes_each))
                if copies > 1:
                    array.write(self._closer(place.found, copies - 1).data)
            array.flush()
            os.fsync(array.fileno())

    def _closer(self, found: Found, count: int) -> Squares:
        """So many squares more for each of a picture's own."""
        picture, again = look(found.path, max_pixels=self.max_pixels)
        if again.sha256 != found.sha256:
            raise ImpastoError(one_line(f"{found.path} was changed while it was read; start again"))
        seed = derive_seed(self.seed, "closer", found.sha256)
        own = boxes(picture.size, self.views, derive_seed(self.seed, "crops", found.sha256))
        cut = [near for i, box in enumerate(own) for near in closer(box, count, seed + i)]
        return _squares(picture, cut, self.views.stored)


@dataclass(frozen=True)
class _Place:
    """A picture, and which squares are its own: `count` from `start`."""

    found: Found
    start: int
    count: int


def _squares(picture: Picture, cut: Sequence[Box], side: int) -> Squares:
    """Parts of a picture, each brought to `side`, antialiased: (n, side, side, 3)."""
    image = Image.fromarray(picture.pixels)
    made = [
        image.resize(
            (side, side),
            Image.Resampling.LANCZOS,
            box=(box.left, box.top, box.left + box.side, box.top + box.side),
            reducing_gap=3.0,
        )
        for box in cut
    ]
    return np.stack([np.asarray(square) for square in made])


def _sweep(root: Path) -> None:
    """Removes what processes that died have left: folders in the making whose lock is free."""
    for part in root.glob("*.part"):
        with suppress(ImpastoError), lock(part.with_suffix("")):
            shutil.rmtree(part, ignore_errors=True)
    sweep(root, older=ABANDONED_S)
