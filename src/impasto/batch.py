"""Which photo becomes which file, and what to do about files that are there already."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from impasto.animation import ANIMATED_SUFFIXES, animated_suffix
from impasto.errors import ImageError, ImpastoError, SettingsError
from impasto.images import SUFFIXES_OUT, check_output_path
from impasto.records import read_settings, same_request
from impasto.sources import Source

__all__ = ["Task", "check_output", "is_folder", "plan", "verdict"]


@dataclass(frozen=True)
class Task:
    """A photo and the file that its result goes to.

    Attributes:
        photo: what is painted.
        out: the file.
        kind: the suffix of an animation of this kind, if the photo is one; else None.
        animated: whether all of its frames are painted; else the first alone.
    """

    photo: Source
    out: Path
    kind: str | None = None
    animated: bool = False


def is_folder(out: str) -> bool:
    """Whether OUT means a folder: it is one, or ends in a separator."""
    separators = tuple(filter(None, ("/", os.sep, os.altsep)))
    return out.endswith(separators) or Path(out).is_dir()


def plan(
    photos: Sequence[Source],
    out: str,
    *,
    form: str | None = None,
    several: bool = False,
    frames: bool = False,
) -> list[Task]:
    """Gives every photo its result's file.

    Args:
        photos: at least one.
        out: OUT as the user wrote it.
        form: suffix of results in a folder, such as `jpg`; if None, `png`, or that of an
            animation.
        several: whether OUT has to be a folder, even for one photo.
        frames: whether all frames of an animation are painted, if its result can have them.

    Raises:
        ImpastoError: OUT does not fit, or two results would have the same name.
    """
    if not is_folder(out):
        if several or len(photos) > 1:
            raise SettingsError(
                f"several photos need a folder to go to; write {out}/ (with the slash) "
                "to have it made"
            )
        if form is not None:
            raise SettingsError("--format is for a folder; a file's own suffix says its format")
        return [_task(photos[0], Path(out), frames)]
    if Path(out).exists() and not Path(out).is_dir():
        raise SettingsError(f"{out} is to be a folder, but there is a file of that name")
    suffix = "." + (form or "png").lower().removeprefix(".")
    suffixes = {**SUFFIXES_OUT, **(ANIMATED_SUFFIXES if frames else {})}
    if suffix not in suffixes:
        known = ", ".join(known.removeprefix(".") for known in suffixes)
        raise SettingsError(f"the format is {form!r}; it can be {known}")
    tasks = []
    for photo in photos:
        task = _task(photo, Path(out) / f"{photo.stem}{suffix}", frames)
        if task.kind and frames and form is None:
            task = replace(task, out=task.out.with_suffix(task.kind), animated=True)
        tasks.append(task)
    taken: dict[str, Source] = {}
    for task in tasks:
        other = taken.setdefault(os.path.normcase(task.out), task.photo)
        if other is not task.photo:
            raise SettingsError(
                f"{other.text} and {task.photo.text} would both become {task.out.name}; "
                "rename one, or give them folders of their own"
            )
    return tasks


def _task(photo: Source, out: Path, frames: bool) -> Task:
    """The task, with what is known of the photo as an animation."""
    suffix = out.suffix.lower()
    can = frames and suffix in ANIMATED_SUFFIXES
    try:
        kind = None if photo.seed is not None else animated_suffix(photo.path)
    except ImageError:  # reported in its turn
        return Task(photo, out, animated=can)
    if kind and suffix == ".gif" and not frames:
        raise SettingsError(
            f"{photo.path.name} is animated: add --method fast, which paints all of its frames, "
            "or give another suffix for the first one"
        )
    return Task(photo, out, kind, can and (kind is not None or suffix == ".gif"))


def check_output(
    out: Path, inputs: Iterable[Path], *, make_folder: bool = False, animated: bool = False
) -> None:
    """Refuses a file that cannot be written, or that is one of the inputs.

    Args:
        out: the file.
        inputs: those that are read.
        make_folder: whether its folder is made if it is not there.
        animated: whether it is to hold an animation.

    Raises:
        ImpastoError: saying which.
    """
    if out.is_dir():
        raise ImageError(f"cannot write {out}: it is a folder; name a file in it")
    check_output_path(out, ANIMATED_SUFFIXES if animated else SUFFIXES_OUT)
    if not out.parent.is_dir() and not make_folder:
        raise ImageError(f"cannot write {out}: there is no folder {out.parent}; make it first")
    for path in inputs:
        if out.exists() and path.exists() and out.samefile(path):
            raise ImpastoError(f"{out} is an input too; choose another name for the result")


def verdict(out: Path, request: Mapping[str, Any]) -> Literal["paint", "skip", "leave"]:
    """What to do about a result of a batch: what is there decides.

    Nothing or an unfinished result: paint. The result of the same settings and inputs: skip.
    Anything else: leave.

    Args:
        out: the result's file.
        request: the record of what is asked now.
    """
    if not out.exists():
        return "paint"
    record = read_settings(out)
    if record is None:
        return "leave"
    if record.get("status") == "partial":
        return "paint"
    return "skip" if same_request(record, request) else "leave"
