r"""Where pictures come from: one grammar for every place that takes one.

    PICTURE = sample:NAME | gan:RUN[?seed=N] | FILE
    STYLE   = PICTURE[:WEIGHT][@MASK]

`gan:` paints a picture with what `impasto gan train` has learnt; RUN is a run's folder, an exported
file, or `builtin:NAME` for one in the package. Only the prefixes named here are
special. `X:\` is a drive, and a file that is really called `sample:x` is written `./sample:x`. In a
STYLE, PICTURE is the longest prefix that resolves and whose whole rest matches `[:WEIGHT][@MASK]`,
so that `photo@2x.png`, `a:0.5.jpg` and `C:\a.jpg:0.7@D:\m.png` all mean what they say.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from impasto.errors import ImageError, ImpastoError, SettingsError
from impasto.images import MAX_PIXELS, Picture, open_image, pictures_in

__all__ = ["SAMPLES", "Source", "StyleSource", "find_photos", "parse_style", "resolve", "samples"]

SAMPLES: Final = Path(__file__).with_name("samples")
"""The folder of the pictures in the package."""

_REST: Final = re.compile(r"(?::(?P<weight>\d+(?:\.\d*)?|\.\d+))?(?:@(?P<mask>.+))?", re.ASCII)


@dataclass(frozen=True)
class Source:
    """A picture that has been found.

    Attributes:
        text: as the user wrote it.
        path: the file to read; of a generated picture, the run or the generator's file.
        seed: of a generated picture; None for a file.
    """

    text: str
    path: Path
    seed: int | None = None

    @property
    def stem(self) -> str:
        """The name for a result made from it: `photo` of `holiday/photo.jpg`."""
        return self.path.stem if self.seed is None else f"{self.path.stem}-{self.seed}"

    def open(self, *, max_pixels: int = MAX_PIXELS) -> Picture:
        """The picture: read, or painted.

        Raises:
            ImpastoError: it cannot be.
        """
        if self.seed is None:
            return open_image(self.path, max_pixels=max_pixels)
        from impasto.gan.builtin import name_of
        from impasto.gan.generator import Generator  # brings torch

        generator = Generator.load(self.path)
        painted = Picture.from_tensor(generator.sample(1, seed=self.seed))
        # It is known by who painted it: its last bits depend on the machine and its threads.
        made_by = hashlib.sha256(f"{generator.digest} {self.seed}".encode()).hexdigest()
        name = f"gan:{name_of(self.path)}?seed={self.seed}"
        return replace(painted, source=name, sha256=made_by)


@dataclass(frozen=True)
class StyleSource:
    """A style's picture, its weight (> 0), and the file of its mask."""

    source: Source
    weight: float = 1.0
    mask: Path | None = None


def samples() -> dict[str, Path]:
    """The pictures in the package, by name."""
    return {path.stem: path for path in sorted(SAMPLES.glob("*.jpg"))}


def resolve(text: str) -> Source:
    """The file behind PICTURE.

    Raises:
        ImageError: there is none.
    """
    if text.startswith("sample:"):
        name = text.removeprefix("sample:")
        if name not in samples():
            raise ImageError(f"there is no sample {name!r}; there are {', '.join(samples())}")
        return Source(text, samples()[name])
    seed = None
    name = text
    if text.startswith("gan:"):
        name, seed = _generated(text.removeprefix("gan:"))
    path = Path(name) if seed is None else _painter(name)
    try:
        exists = path.exists()
    except (OSError, ValueError):  # a name that the system does not allow
        exists = False
    if not text or not exists:
        raise ImageError(f"cannot read {text}: no such file")
    return Source(text, path, seed)


def _generated(text: str) -> tuple[str, int]:
    """The run and the seed of `RUN?seed=7`; without a seed it is 0."""
    run, mark, rest = text.rpartition("?")
    if not mark:
        return text, 0
    match = re.fullmatch(r"seed=(\d{1,18})", rest, re.ASCII)
    if not match:
        raise SettingsError(f"cannot understand gan:{text}; write gan:RUN?seed=7")
    return run, int(match[1])


def _painter(name: str) -> Path:
    """The run or file of a generator."""
    from impasto.gan.builtin import painter_path

    return painter_path(name)


def parse_style(text: str) -> StyleSource:
    """STYLE = PICTURE[:WEIGHT][@MASK].

    Raises:
        ImageError: no prefix of the text is a picture.
        SettingsError: it has a weight that is not above 0.
    """
    ends = [i for i, letter in enumerate(text) if letter in ":@"]
    for end in [len(text), *reversed(ends)]:
        match = _REST.fullmatch(text, end)
        if not match:
            continue
        try:
            source = resolve(text[:end])
        except ImpastoError:
            continue
        weight = float(match["weight"] or 1)
        if not 0 < weight < 1e30:
            raise SettingsError(f"the weight in {text!r} has to be above 0 and below 1e30")
        return StyleSource(source, weight, Path(match["mask"]) if match["mask"] else None)
    if text.startswith("gan:"):
        resolve(text)  # says what is wrong with it
    if text.startswith("sample:"):
        raise ImageError(f"there is no sample in {text!r}; there are {', '.join(samples())}")
    raise ImageError(f"cannot read {text}: no such file, nor one with :WEIGHT or @MASK after it")


def find_photos(texts: Iterable[str], *, missing_too: bool = False) -> list[Source]:
    """The photos meant by the positional arguments; a folder means the pictures in it, by name.

    Args:
        texts: as the user wrote them.
        missing_too: whether a missing file is kept, to be reported when its turn comes.

    Raises:
        ImageError: there is no such file, or a folder has no picture in it.
    """
    found: list[Source] = []
    for text in texts:
        named = text.startswith(("sample:", "gan:")) or not text
        source = Source(text, Path(text)) if missing_too and not named else resolve(text)
        if source.seed is not None or not source.path.is_dir():
            found.append(source)
            continue
        inside = pictures_in(source.path)
        if not inside:
            raise ImageError(f"there is no picture in the folder {text}")
        found.extend(Source(str(path), path) for path in inside)
    return found
