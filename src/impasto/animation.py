"""Animations in and out: GIF, WebP and animated PNG, frame by frame.

`open_animation` brings every frame to the state of any `Picture`, one at a time;
`save_animation` writes frames back with their durations, and can store a record with them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from impasto.apng import compose, is_animated, take_apart
from impasto.convert import convert
from impasto.decode import Decoded, explained, identify, load, pillow_guarded, regular_file
from impasto.errors import ImageError
from impasto.files import write_bytes_atomic
from impasto.gif import encode_gif
from impasto.images import MAX_PIXELS, Picture, check_output_path, check_sides, write_encoded
from impasto.metadata import SOFTWARE

if TYPE_CHECKING:
    from PIL import ImageFile

    from impasto.files import StrPath

__all__ = [
    "ANIMATED_SUFFIXES",
    "MOST_FRAMES",
    "Animation",
    "animated_suffix",
    "open_animation",
    "save_animation",
]

ANIMATED_SUFFIXES: Final = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}
"""Suffixes that `save_animation` can write, and their formats; `.png` is an animated PNG."""

MOST_FRAMES: Final = 10_000
"""More frames than this are a quarter of an hour, or an attack."""

_AT_ONCE = 10  # ms: what stands for no longer, browsers show for
_USUAL = 100  # ms
_LONG = 65_535  # the largest number of which a PNG makes durations
_LONGEST_WEBP = (1 << 24) - 1  # ms
_MOST_LOOPS = 65_535
_PNG, _GIF, _RIFF, _WEBP = b"\x89PNG", b"GIF8", b"RIFF", b"WEBP"


@dataclass(frozen=True, eq=False)
class Animation:
    """Frames, and how they follow one another.

    Attributes:
        frames: the pictures, whole ones of one size. Those of a file are read anew each time that
            they are gone through, one after the other, so that few are in memory.
        durations: how long each of them stands, ms, above 0.
        loops: how often they are played; 0 is for ever.

    Raises:
        ImageError: there are no frames, or a number is out of its range.
    """

    frames: Iterable[Picture] = field(repr=False)
    durations: tuple[int, ...]
    loops: int = 0

    def __post_init__(self) -> None:
        if not self.durations:
            raise ImageError("an animation has at least one frame")
        if min(self.durations) <= 0 or self.loops < 0:
            raise ImageError("durations are above 0 ms, and loops are 0 (for ever) or more")

    @property
    def first(self) -> Picture:
        """The first frame."""
        return next(iter(self.frames))


class _Frames:
    """The frames of a file, which is kept in memory as it is.

    Attributes:
        loops: how often they are played; 0 is for ever.

    Args:
        name: the file, as given.
        data: its bytes.
        max_pixels: as for `open_animation`.
    """

    def __init__(self, name: str, data: bytes, max_pixels: int) -> None:
        self._name, self._data, self._max_pixels = name, data, max_pixels
        self._digest = hashlib.sha256(data).hexdigest()
        image = self._identified()
        again = image.info.get("loop")
        self.loops = int(again or 0)
        self._reel = None
        if data.startswith(_PNG):
            self._reel = take_apart(io.BytesIO(data))
            self.loops = self._reel.loops
            with pillow_guarded(max_pixels):
                self._still = load(image)
        elif data.startswith(_GIF) and again != 0:  # how often it is played again, if at all
            self.loops += 1

    def __iter__(self) -> Iterator[Picture]:
        with _explained(self._name):
            for decoded, _ in self.decoded():
                yield Picture(*convert(decoded), decoded.exif, self._name, self._digest)

    def decoded(self) -> Iterator[tuple[Decoded, int]]:
        """Every frame, and for how long it stands, ms, 0 if that is not said.

        A frame is valid until the next one.
        """
        if self._reel:
            images = compose(self._reel, self._max_pixels)
            for image, scene in zip(images, self._reel.scenes, strict=True):
                still = self._still  # where it is said how the whole is turned
                yield Decoded(image, still.orientation, still.exif), scene.duration
            return
        image = self._identified()
        size = image.size
        for number in itertools.count():
            with pillow_guarded(self._max_pixels):
                try:
                    image.seek(number)
                except EOFError:
                    return
                decoded = load(image)
            if image.size != size:  # a frame of a GIF reached beyond the others
                decoded = replace(decoded, image=decoded.image.crop((0, 0, *size)))
            yield decoded, round(image.info.get("duration", 0))

    def _identified(self) -> ImageFile.ImageFile:
        with pillow_guarded(self._max_pixels) as caught:
            return identify(io.BytesIO(self._data), caught, self._max_pixels)


def open_animation(path: StrPath, *, max_pixels: int = MAX_PIXELS) -> Animation:
    """Reads an animated GIF, WebP or PNG, told by its content; a still one has one frame.

    The frames are whole pictures, as they are seen, brought to the same state as by `open_image`.
    All of them are decoded once, so that a damaged one is found here, and again when they are
    gone through.

    Args:
        path: A regular file.
        max_pixels: The most pixels of all frames together, W × H × frames.

    Returns:
        The frames, their durations, and how often they are played. As in browsers, a frame that
        is to stand for 10 ms or less, or that does not say, stands for 100 ms.

    Raises:
        ImageError: The file cannot be read, or is no such file; one line that says why.
    """
    name = os.fspath(path)
    with _explained(name):
        with regular_file(path, max_pixels) as file:
            data = file.read()
        if not _can_be_animated(data[:12]):
            raise ImageError(
                f"cannot read {name} as an animation: it is no GIF, WebP or PNG; for a still "
                "picture give OUT another suffix than .gif"
            )
        frames = _Frames(name, data, max_pixels)
        durations: list[int] = []
        for decoded, duration in frames.decoded():
            durations.append(duration if duration > _AT_ONCE else _USUAL)
            _check_extent(name, decoded.image.size, len(durations), max_pixels)
        return Animation(frames, tuple(durations), frames.loops)


def _explained(name: str) -> contextlib.AbstractContextManager[None]:
    return explained(f"cannot read {name}", "the file is truncated or damaged")


def _can_be_animated(start: bytes) -> bool:
    """Whether a file that begins so is a PNG, GIF or WebP."""
    return start[:4] in (_PNG, _GIF) or (start[:4] == _RIFF and start[8:12] == _WEBP)


def _check_extent(name: str, size: tuple[int, int], count: int, max_pixels: int) -> None:
    if count > MOST_FRAMES:
        raise ImageError(f"cannot read {name}: it has more than {MOST_FRAMES} frames; cut it")
    if count * size[0] * size[1] > max_pixels:
        raise ImageError(
            f"cannot read {name}: its frames of {size[0]} × {size[1]} px have more than "
            f"{max_pixels / 1e6:.0f} megapixels altogether; --max-megapixels N (library: "
            "max_pixels=) raises the limit"
        )


def animated_suffix(path: StrPath) -> str | None:
    """The suffix of an animation's kind, told by its content; None if it is a still picture.

    Only as much is read as tells whether there is a second frame.

    Raises:
        ImageError: The file cannot be read so far.
    """
    with _explained(os.fspath(path)), regular_file(path) as file:
        start = file.read(12)
        if not _can_be_animated(start):
            return None
        if start.startswith(_PNG):
            return ".png" if is_animated(file) else None
        file.seek(0)
        with pillow_guarded(MAX_PIXELS) as caught:
            moving = getattr(identify(file, caught, MAX_PIXELS), "is_animated", False)
        return (".gif" if start.startswith(_GIF) else ".webp") if moving else None


def save_animation(
    animation: Animation,
    path: StrPath,
    *,
    record: str | None = None,
    metadata: bool = True,
    gps: bool = False,
) -> list[str]:
    """Writes an animation in the format of the path's suffix, in one step (see `atomic_path`).

    PNG: every pixel as it is. WebP: quality 95. GIF: one palette for all frames, which keeps
    every colour if they have at most 255, and one bit of transparency; durations to 1/100 s.
    PNG and WebP carry the sRGB profile and the EXIF of the first frame, as `save_image` does;
    there, frames that are the same one after the other become one that stands longer.

    Args:
        animation: What to write.
        path: The file; an existing one is replaced. See `ANIMATED_SUFFIXES`.
        record: Text (JSON) that tells what made it; see `read_record`. In a GIF, a comment.
        metadata: False writes no metadata at all, but the profile.
        gps: Whether the place that the EXIF tells is written.

    Returns:
        What the reader of the file should know, one line each: what the format could not keep.

    Raises:
        ImageError: The suffix is unknown, or the frames do not fit the format or one another.
        ImpastoError: The file cannot be written.
    """
    form = check_output_path(path, ANIMATED_SUFFIXES)
    frames = list(animation.frames)
    if len({frame.size for frame in frames}) > 1 or len(frames) != len(animation.durations):
        raise ImageError("the frames of an animation have one size, and each has a duration")
    images = [frame.pil() for frame in frames]
    if form != "GIF":
        return write_encoded(
            frames[0],
            path,
            form,
            record=record,
            metadata=metadata,
            gps=gps,
            save_all=True,
            append_images=images[1:],
            duration=[_storable(each, form) for each in animation.durations],
            loop=min(animation.loops, _MOST_LOOPS),
        )
    check_sides(frames[0].size, path, form, ".png")
    stored = f"{SOFTWARE}\n{record}" if metadata and record is not None else ""
    with explained(f"cannot write {os.fspath(path)}", "the encoder failed"):
        data = encode_gif(
            images,
            animation.durations,
            loops=animation.loops,
            comment=stored.encode(errors="replace"),
        )
    write_bytes_atomic(path, data)
    alphas = [frame.alpha for frame in frames if frame.alpha is not None]
    if any(((alpha > 0) & (alpha < 255)).any() for alpha in alphas):
        return ["GIF has no half transparency: each pixel is all or not at all there"]
    return []


def _storable(duration: int, form: str) -> int:
    """A duration as the format can hold it, ms: a PNG has long ones in whole seconds."""
    if form == "PNG" and duration > _LONG:
        return 1000 * min(round(duration / 1000), _LONG)
    return min(duration, _LONGEST_WEBP)
