"""The film of a run: the picture coming into being, as GIF, WebP, animated PNG or MP4."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

from impasto.decode import explained
from impasto.errors import ImageError, ImpastoError
from impasto.files import atomic_path, write_bytes_atomic
from impasto.gif import PALETTE, encode_gif, indexed
from impasto.images import Picture
from impasto.progress import Progress

if TYPE_CHECKING:
    from av.container import OutputContainer

    from impasto.files import StrPath

__all__ = ["FILM_SUFFIXES", "Film", "checked_suffix", "no_other", "write_frames"]

FILM_SUFFIXES: Final = (".gif", ".webp", ".png", ".mp4")
"""What a film's name can end in; `.png` is an animated PNG."""

EASE: Final = 1.5
"""Frame i of F shows step S·(i/F)^EASE: the first steps, which change most, have most frames."""

SLOWEST: Final = 8.0
"""Frames a second, at least: a film of few steps is shorter rather than a row of slides."""

FIRST_HOLD, LAST_HOLD = 400, 1800
"""Milliseconds that the first and the last frame stand."""

_X264: Final = {"crf": "20", "x264-params": "b-adapt=0"}
# B frames chosen by x264 make these films half as large again, for nothing to be seen.

_MARK: Final = "impasto film"
_MARK_WITHIN: Final = 1 << 16  # bytes from either end of a file


class Film:
    """Keeps frames of a run and writes them as an animation that loops.

    It is called with every `Progress`, and asks few of them for their picture. All frames have
    one size: that of the finest scale, at most `side`. In memory are at most `seconds`·`rate`
    of them, 4 bytes a pixel.

    Args:
        path: the file; see `FILM_SUFFIXES`.
        side: limit of the frames' long side, px.
        seconds: how long the film is before its last frame, s; less if there are few steps.
        rate: frames a second.
        marked: whether the file says that it is ours, so that a later run may replace it.

    Raises:
        ImpastoError: the suffix is another, or `.mp4` and PyAV is not installed.
    """

    def __init__(
        self,
        path: StrPath,
        *,
        side: int = 480,
        seconds: float = 6.0,
        rate: float = 20.0,
        marked: bool = True,
    ) -> None:
        self.path = Path(path)
        self.side = side
        self.seconds = seconds
        self.rate = rate
        self.marked = marked
        self._suffix = checked_suffix(self.path)
        self._steps: frozenset[int] = frozenset()
        self._frames: list[Image.Image] = []
        self._shape = (0, 0)  # of the pictures, (W, H)

    def __call__(self, progress: Progress) -> None:
        """Keeps a step, if it is one of the film's."""
        if not self._frames:
            self._steps = self._schedule(progress.steps)
        elif progress.step not in self._steps:
            return
        picture = progress.picture()
        if not self._frames:
            self._shape = picture.size
        self._frames.append(self._frame(picture))

    def save(self, last: Picture | None = None) -> list[str]:
        """Writes what there is so far, in one step; nothing if there is nothing.

        Args:
            last: the result, which becomes the last frame, on white; None if there is none.

        Returns:
            What the user should know, one line each.

        Raises:
            ImpastoError: the file cannot be written.
        """
        frames, notes = list(self._frames), []
        if last is not None:
            if not frames:  # no steps: nothing moves
                self._shape = last.size
            if _alike(last.size, self._shape):
                frames.append(self._frame(last))
            else:
                notes.append("the film ends before the result, which has another shape")
        if frames:
            write_frames(self.path, frames, self._durations(len(frames)), marked=self.marked)
        return notes

    @staticmethod
    def may_replace(path: Path) -> bool:
        """Whether there is no such file, or an empty one, or a film of ours."""
        return no_other(path, _MARK)

    def _schedule(self, steps: int) -> frozenset[int]:
        """The steps that are kept: the first, the last, and ever fewer in between."""
        count = max(2, round(self.seconds * self.rate))
        ways = (i / (count - 1) for i in range(count))
        return frozenset(1 + round((steps - 1) * way**EASE) for way in ways)

    def _frame(self, picture: Picture) -> Image.Image:
        """A picture at the frames' size, on white."""
        scale = min(1.0, self.side / max(self._shape))
        w, h = (max(1, round(length * scale)) for length in self._shape)
        if self._suffix == ".mp4":  # two by two pixels share a colour
            w, h = max(2, w - w % 2), max(2, h - h % 2)
        image = picture.pil()
        image = image.resize((w, h), Image.Resampling.LANCZOS)
        if image.mode == "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", (w, h), "white"), image)
        return image.convert("RGB")

    def _durations(self, count: int) -> list[int]:
        """How long each frame stands, ms; in whole 1/100 s, as GIF has it."""
        rate = min(self.rate, max(SLOWEST, count / self.seconds))
        durations = [10 * max(2, round(100 / rate))] * count
        durations[0], durations[-1] = FIRST_HOLD, LAST_HOLD
        return durations


def write_frames(
    path: StrPath, frames: Sequence[Image.Image], durations: Sequence[int], *, marked: bool = True
) -> None:
    """Writes frames as an animation that loops, in one step.

    Args:
        path: the file; see `FILM_SUFFIXES`.
        frames: RGB, all of one size, for MP4 of even sides.
        durations: how long each stands, ms; whole 1/100 s, the longer ones multiples of the
            shortest.
        marked: whether the file says that it is ours, so that a later run may replace it.

    Raises:
        ImpastoError: the suffix is another, or the file cannot be written.
    """
    path, frames = Path(path), list(frames)
    suffix = checked_suffix(path)
    failure = f"cannot write {path}"
    if suffix == ".mp4":
        with atomic_path(path) as temporary, explained(failure, "the encoder failed"):
            _write_mp4(temporary, frames, durations, _MARK if marked else None)
        return
    with explained(failure, "the encoder failed"):
        data = _encoded(frames, durations, suffix, _MARK if marked else None)
    write_bytes_atomic(path, data)


def _encoded(
    frames: list[Image.Image], durations: Sequence[int], suffix: str, mark: str | None
) -> bytes:
    """The bytes of a GIF, WebP or animated PNG that loops for ever."""
    if suffix == ".gif":
        return encode_gif(frames, durations, comment=(mark or "").encode())
    options: dict[str, Any] = {"loop": 0, "duration": list(durations)}
    if suffix == ".webp":
        options |= {"format": "WEBP", "quality": 80, "method": 4}
        if mark:
            exif = Image.Exif()
            exif[ExifTags.Base.Software] = mark
            options["exif"] = exif.tobytes()
    else:
        frames, _ = indexed(frames)
        # A frame is laid over what was there.
        options |= {"format": "PNG", "disposal": 0, "blend": 1, "transparency": PALETTE}
        if mark:
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_text("Software", mark)
    buffer = io.BytesIO()
    frames[0].save(buffer, save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


def no_other(path: Path, mark: str) -> bool:
    """Whether there is no such file, or an empty one, or one that bears our mark near its ends."""
    try:
        if path.exists() and not path.is_file():  # nobody may ever write into a pipe
            return True
        with path.open("rb") as file:
            head = file.read(_MARK_WITHIN)
            file.seek(max(0, path.stat().st_size - _MARK_WITHIN))
            return not head or mark.encode() in head + file.read()
    except FileNotFoundError:
        return True
    except OSError:  # the writer will say what is wrong
        return not path.is_file()


def checked_suffix(path: Path) -> str:
    """The suffix of a film, in small letters.

    Raises:
        ImpastoError: a film cannot have it, or not here.
    """
    suffix = path.suffix.lower()
    if suffix not in FILM_SUFFIXES:
        what = f"{path.suffix} is not a suffix a film can have" if suffix else "it has no suffix"
        raise ImageError(f"cannot write {path}: {what}; use one of {', '.join(FILM_SUFFIXES)}")
    if suffix == ".mp4":
        try:
            import av
        except ImportError:
            raise ImpastoError(
                'a film as .mp4 needs PyAV: pip install "impasto[video]"; or name it .webp'
            ) from None
        if "libx264" not in av.codecs_available:
            raise ImpastoError(
                "this PyAV cannot write H.264 (it has no libx264); name the film .webp"
            )
    return suffix


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have one aspect, but for the smaller one's rounding."""
    (w, h), (W, H) = one, other
    return abs(w * H - h * W) <= max(w + h, W + H)


def _write_mp4(
    path: Path, frames: Sequence[Image.Image], durations: Sequence[int], mark: str | None
) -> None:
    """H.264 that browsers play from the first bytes on: 4:2:0, BT.709, constant frame rate."""
    import av

    unit = min(durations)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        if mark:
            container.metadata["comment"] = mark
        _encode(container, frames, [round(duration / unit) for duration in durations], unit)


def _encode(
    container: OutputContainer, frames: Sequence[Image.Image], times: Sequence[int], unit: int
) -> None:
    """Writes each frame as often as `times` says, `unit` ms apart."""
    import av
    from av.video.reformatter import ColorRange, Colorspace

    stream = container.add_stream("libx264", Fraction(1000, unit), options=dict(_X264))
    stream.width, stream.height = frames[0].size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
    context.color_range = ColorRange.MPEG
    for image, count in zip(frames, times, strict=True):
        for _ in range(count):
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            container.mux(stream.encode(frame))
    container.mux(stream.encode())
