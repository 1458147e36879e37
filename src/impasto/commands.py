"""What the commands do with their arguments: check, run, report, save.

Everything that can be found wrong without torch is found before it is imported.
"""

import json
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto.batch import Task, check_output, is_folder, plan, verdict
from impasto.errors import ImpastoError, SettingsError
from impasto.images import MAX_PIXELS, Picture, open_image, save_image
from impasto.progress import Progress, Result, drive
from impasto.records import read_settings
from impasto.settings import (
    ReconstructSettings,
    TextureSettings,
    TransferSettings,
    make_settings,
)
from impasto.sources import Source, StyleSource, find_photos, parse_style, resolve
from impasto.terminal import JsonLog, Preview, Reporter

if TYPE_CHECKING:
    from impasto.cli import Common
    from impasto.jobs.transfer import Painter

__all__ = ["run_reconstruct", "run_texture", "run_transfer"]

DONE, FAILED, INTERRUPTED = 0, 2, 130
INIT_WORDS = ("content", "noise", "style")

Options = dict[str, Any]
Steps = Generator[Progress, None, Result]


def run_transfer(
    photos: Sequence[str],
    styles: Sequence[str] | None,
    out: str,
    form: str | None,
    options: Options,
    common: "Common",
) -> int:
    """`impasto transfer`. Returns the exit code."""
    if not styles:
        if len(photos) != 2:
            raise SettingsError(
                f"without -s give exactly two pictures, photo and style, not {len(photos)}; "
                "or name each style with -s"
            )
        photos, styles = photos[:1], photos[1:]
    make_settings(TransferSettings, options)
    sources = [_unmasked(parse_style(text)) for text in styles]
    found = find_photos(photos, missing_too=len(photos) > 1)
    several = len(photos) > 1 or any(Path(text).is_dir() for text in photos)
    tasks = plan(found, out, form=form, several=several)
    batch = is_folder(out)
    inputs = [task.photo.path for task in tasks] + [style.source.path for style in sources]
    inputs += _init_path(options)
    for task in tasks:
        check_output(task.out, inputs, make_folder=batch)
    if not batch:
        _check_replaceable(tasks[0].out, common)

    with _Desk(common, inputs, [task.out for task in tasks]) as desk:
        opened = [(desk.open(style.source), style.weight) for style in sources]
        options = desk.open_init(options)
        photo = None if batch else desk.open(tasks[0].photo)  # before torch's long import
        desk.begin("getting ready" if photo is None else f"painting {tasks[0].photo.path.name}")
        from impasto.jobs.transfer import Painter

        painter = Painter(opened, **options)
        if batch:
            _make_folder(Path(out))
        if photo is not None:
            return desk.run(painter.iter(photo), tasks[0].out, photo=photo, painter=painter)
        return _run_batch(desk, painter, tasks)


def run_texture(styles: Sequence[str], out: str, options: Options, common: "Common") -> int:
    """`impasto texture`. Returns the exit code."""
    make_settings(TextureSettings, options)
    if options.get("init") == "content":
        raise SettingsError("texture has no content; --init can be noise, style or a picture")
    sources = [_unmasked(parse_style(text)) for text in styles]
    inputs = [style.source.path for style in sources] + _init_path(options)
    check_output(Path(out), inputs)
    _check_replaceable(Path(out), common)
    with _Desk(common, inputs, [Path(out)]) as desk:
        opened = [(desk.open(style.source), style.weight) for style in sources]
        options = desk.open_init(options)
        desk.begin(f"texture of {sources[0].source.path.name}")
        from impasto.jobs.texture import iter_texture

        return desk.run(iter_texture(opened, **options), Path(out))


def run_reconstruct(image: str, out: str, options: Options, common: "Common") -> int:
    """`impasto reconstruct`. Returns the exit code."""
    make_settings(ReconstructSettings, options)
    if options.get("init") in ("content", "style"):
        raise SettingsError("reconstruct starts from noise or a picture; write --init noise")
    source = resolve(image)
    inputs = [source.path, *_init_path(options)]
    check_output(Path(out), inputs)
    _check_replaceable(Path(out), common)
    with _Desk(common, inputs, [Path(out)]) as desk:
        picture = desk.open(source)
        options = desk.open_init(options)
        desk.begin(f"looking at {source.path.name}")
        from impasto.jobs.reconstruct import iter_reconstruct

        return desk.run(iter_reconstruct(picture, **options), Path(out))


class _Desk(ExitStack):
    """The reporter, the preview and the log of one command."""

    def __init__(self, common: "Common", inputs: Sequence[Path], outs: Sequence[Path]) -> None:
        super().__init__()
        self.common = common
        limit = common.max_megapixels
        if limit is not None and not 0 < limit < 1e6:
            raise SettingsError(f"max_megapixels is {limit}; it is a number above 0")
        self.reporter = self.enter_context(Reporter(common.quiet))
        self.preview: Preview | None = None
        self.log: JsonLog | None = None
        pictures = {path.resolve() for path in outs}
        if common.preview:
            preview = Path(common.preview)
            check_output(preview, inputs)
            if preview.resolve() in pictures:
                raise SettingsError(f"{preview} is to hold the result; choose another preview")
            _check_replaceable(preview, common)
            pictures.add(preview.resolve())
            self.preview = Preview(preview, marked=common.metadata)
        if common.json:
            log = Path(common.json)
            if log.resolve() in pictures | {path.resolve() for path in inputs}:
                raise SettingsError(
                    f"{log} is an input or a picture of this run; choose another log"
                )
            if not common.overwrite and not JsonLog.may_replace(log):
                raise SettingsError(
                    f"{log} is there and is no log of impasto's; choose another, or --overwrite it"
                )
            self.log = JsonLog(log)
            self.callback(self.log.close)

    def open(self, source: Source) -> Picture:
        """Reads a picture within the limit that was asked for."""
        limit = self.common.max_megapixels
        pixels = MAX_PIXELS if limit is None else int(limit * 1e6)
        return open_image(source.path, max_pixels=pixels)

    def open_init(self, options: Options) -> Options:
        """The options with an --init PICTURE opened."""
        init = options.get("init")
        if init is None or init in INIT_WORDS:
            return options
        return options | {"init": self.open(resolve(init))}

    def begin(self, title: str) -> None:
        """A job starts; torch is imported if it was not yet."""
        self.reporter.begin(title)
        from impasto.compute import keep_memory

        keep_memory()

    def run(
        self,
        steps: Steps,
        out: Path,
        *,
        painter: "Painter | None" = None,
        photo: Picture | None = None,
    ) -> int:
        """Runs one job and saves its result, or on Ctrl-C the best so far. Returns the code."""
        began = time.monotonic()
        if painter and photo:
            self._say_size(painter, photo)
        if self.log:
            self.log.event("start", photo=photo.source if photo else None, output=out.name)
        latest: Progress | None = None

        def watch(progress: Progress) -> None:
            nonlocal latest
            latest = progress
            self.reporter(progress)
            if self.log:
                self.log(progress)
            if self.preview:
                self.preview(progress)

        try:
            result = drive(steps, watch)
        except KeyboardInterrupt:
            self.reporter.end()
            if latest is not None:
                self._save(latest.result(), out, began)
            return INTERRUPTED
        if self.preview and not result.history:  # no strength, no steps
            self.preview.show(result.image)
        try:
            self._save(result, out, began)
        except KeyboardInterrupt:  # while it was written: it is finished, so write it all the same
            self._save(result, out, began)
            return INTERRUPTED
        return DONE

    def fail(self, error: ImpastoError, photo: Source) -> None:
        """Reports what went wrong with one photo of several."""
        self.reporter.error(error)
        if self.log:
            self.log.event("error", photo=photo.text, message=str(error))

    def _save(self, result: Result, out: Path, began: float) -> None:
        record = (
            json.dumps(result.settings, ensure_ascii=False, allow_nan=False)
            if self.common.metadata
            else None
        )
        notes = save_image(result.image, out, record=record)
        if result.partial and record is None:
            notes.append("without its record a later run cannot tell that this one is unfinished")
        seconds = round(time.monotonic() - began, 3)
        if self.log:
            self.log.event(
                "result", output=out.name, partial=result.partial, seconds=seconds,
                settings=result.settings,
            )  # fmt: skip
        self.reporter.end()
        for note in notes:
            self.reporter.say(note)
        w, h = result.image.size
        how = "stopped early, best so far" if result.partial else f"{seconds:.0f} s"
        self.reporter.result(out, f"({w}×{h} px, {how})")

    def _say_size(self, painter: "Painter", photo: Picture) -> None:
        if painter.settings.strength == 0:
            self.reporter.say("strength 0: the photo as it is")
            return
        w, h = painter.working_size(photo)
        if photo.width > w or photo.height > h:
            self.reporter.say(
                f"working at {w}×{h} px, then brought up to the photo's {photo.width}×"
                f"{photo.height} px (--size {max(photo.size)} or full works larger, and slower)"
            )


def _run_batch(desk: _Desk, painter: "Painter", tasks: Sequence[Task]) -> int:
    """Paints every photo; a bad one is reported and the rest go on. Returns the exit code."""
    counts = {"painted": 0, "skipped": 0, "left": 0, "failed": 0}
    for number, task in enumerate(tasks, 1):
        try:
            photo = desk.open(task.photo)
            todo = "paint" if desk.common.overwrite else verdict(task.out, painter.request(photo))
            if todo == "skip":
                counts["skipped"] += 1
                desk.reporter.say(f"{task.out} is done already; skipped")
                continue
            if todo == "leave":
                counts["left"] += 1
                desk.reporter.say(
                    f"{task.out} is there and is another result; left as it is "
                    "(--overwrite replaces it)"
                )
                continue
            desk.begin(f"{number}/{len(tasks)} {task.photo.path.name}")
            code = desk.run(painter.iter(photo), task.out, painter=painter, photo=photo)
        except ImpastoError as error:
            counts["failed"] += 1
            desk.fail(error, task.photo)
            continue
        if code == INTERRUPTED:
            return INTERRUPTED
        counts["painted"] += 1
    desk.reporter.end()
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    desk.reporter.say(told)
    return FAILED if counts["failed"] else DONE


def _init_path(options: Options) -> list[Path]:
    """The file of an --init PICTURE."""
    init = options.get("init")
    return [] if init is None or init in INIT_WORDS else [resolve(init).path]


def _unmasked(style: StyleSource) -> StyleSource:
    """The style, which must have no mask."""
    if style.mask is not None:
        raise SettingsError(f"masks are not supported yet; leave out @{style.mask}")
    return style


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImpastoError(f"cannot make the folder {folder}: {error.strerror}") from None


def _check_replaceable(out: Path, common: "Common") -> None:
    """A result of ours may be replaced by a newer one; anything else only if asked."""
    if out.exists() and not common.overwrite and read_settings(out) is None:
        raise ImpastoError(
            f"{out} is there and has no record of impasto's in it; choose another name, "
            "or replace it with --overwrite"
        )
