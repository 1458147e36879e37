"""What a command has on its desk while a job runs: the reporter, and every file beside the result.

All that can be wrong about those files is found before the work begins.
"""

import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto.animation import Animation, open_animation
from impasto.batch import check_output
from impasto.errors import ImpastoError, SettingsError
from impasto.images import MAX_PIXELS, Picture
from impasto.progress import Progress, Result, drive
from impasto.records import read_settings
from impasto.settings import STARTS
from impasto.sources import Source, resolve
from impasto.terminal import JsonLog, Preview, Reporter, Snapshots

if TYPE_CHECKING:
    from impasto.cli import Common
    from impasto.film import Film
    from impasto.jobs.transfer import Painter

__all__ = ["DONE", "FAILED", "INIT_WORDS", "INTERRUPTED", "Desk", "Options", "check_replaceable"]

DONE, FAILED, INTERRUPTED = 0, 2, 130
INIT_WORDS = STARTS["transfer"]

MOST_SNAPSHOTS = 10_000
"""More pictures than this of one run are a slip of the keyboard."""

Options = dict[str, Any]
Steps = Generator[Progress, None, Result]


@dataclass
class Job:
    """One run: what it does, where its result goes, and what else is known of it.

    Attributes:
        steps: the work.
        out: the result's file.
        photo: what is painted, if there is one.
        painter: who paints it.
        rescue: whether a result that cannot be written goes to the temporary folder instead.
        began: when, by the monotonic clock, s.
    """

    steps: Steps
    out: Path
    photo: Picture | None = None
    painter: "Painter | None" = None
    rescue: bool = True
    began: float = field(default_factory=time.monotonic)


class Desk(ExitStack):
    """The reporter, and the files beside the results of one command.

    Args:
        common: the flags.
        inputs: the files that are read.
        outs: the results' files.
        film: where a film goes if no flag says; None for no film.
        steps: how many steps a job has.

    Raises:
        ImpastoError: a file beside the result cannot be written, or is there and not ours.
    """

    def __init__(
        self,
        common: "Common",
        inputs: Sequence[Path],
        outs: Sequence[Path],
        *,
        film: Path | None = None,
        steps: int = 0,
    ) -> None:
        super().__init__()
        self.common = common
        limit = common.max_megapixels
        if limit is not None and not 0 < limit < 1e6:
            raise SettingsError(f"max_megapixels is {limit}; it is a number above 0")
        self.reporter = self.enter_context(Reporter(common.quiet))
        self._inputs = list(inputs)
        self._given_up: list[object] = []
        self._taken = {path.resolve() for path in outs}
        preview = self._beside(common.preview)
        self.preview = Preview(preview, marked=common.metadata) if preview else None
        self._plot = self._checked_plot(outs)
        self.film = self._new_film(outs, film)
        self.snapshots = self._new_snapshots(outs, steps)
        self.log = self._new_log()

    @property
    def failed(self) -> bool:
        """Whether something beside a result could not be written."""
        return bool(self._given_up)

    def open(self, source: Source) -> Picture:
        """Reads a picture within the limit that was asked for."""
        return source.open(max_pixels=self.max_pixels)

    def open_animation(self, source: Source) -> Animation:
        """Reads an animation, all frames of which are within that limit."""
        return open_animation(source.path, max_pixels=self.max_pixels)

    @property
    def max_pixels(self) -> int:
        """The largest picture to read, W × H."""
        limit = self.common.max_megapixels
        return MAX_PIXELS if limit is None else int(limit * 1e6)

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

    def run(self, job: Job) -> int:
        """Runs one job and saves its result, or on Ctrl-C the best so far. Returns the code."""
        if job.painter and job.photo:
            self._say_size(job.painter, job.photo)
        photo = job.photo.source if job.photo else None
        self._log("start", photo=photo, output=job.out.name)
        latest: Progress | None = None
        history: list[dict[str, Any]] = []

        def watch(progress: Progress) -> None:
            nonlocal latest
            latest = progress
            history.append(progress.record())
            self.reporter(progress)
            for consumer in (self.log, self.preview, self.snapshots, self.film):
                if consumer and consumer not in self._given_up:
                    with self._may_fail(consumer):
                        consumer(progress)

        try:
            result = drive(job.steps, watch)
        except KeyboardInterrupt:
            self.reporter.end()
            if latest is not None:
                self._save(latest.result(), job)
                self._save_extras(None, history)
            return INTERRUPTED
        if self.preview and not result.history:  # no strength, no steps
            with self._may_fail(self.preview):
                self.preview.show(result.image)
        try:
            self._save(result, job)
        except KeyboardInterrupt:  # while it was written: it is finished, so write it all the same
            self._save(result, job)
            self._save_extras(result, history)
            return INTERRUPTED
        self._save_extras(result, history)
        return FAILED if self.failed else DONE

    @contextmanager
    def _may_fail(self, consumer: object) -> Iterator[None]:
        """What is beside the result may fail: that is said once, and the work goes on."""
        try:
            yield
        except ImpastoError as error:
            self._given_up.append(consumer)
            self.reporter.error(error)

    def fail(self, error: ImpastoError, photo: Source) -> None:
        """Reports what went wrong with one photo of several."""
        self.reporter.error(error)
        self._log("error", photo=photo.text, message=str(error))

    def _log(self, event: str, **values: Any) -> None:
        if self.log and self.log not in self._given_up:
            with self._may_fail(self.log):
                self.log.event(event, **values)

    def _beside(self, name: str | None) -> Path | None:
        """The path of a picture beside the result, checked."""
        if not name:
            return None
        path = Path(name)
        check_output(path, self._inputs)
        self._take(path)
        check_replaceable(path, self.common)
        return path

    def _take(self, path: Path) -> None:
        """Refuses a path that another file of this run has."""
        if path.resolve() in self._taken:
            raise SettingsError(f"{path} is to hold another file of this run; choose another name")
        self._taken.add(path.resolve())

    def _checked_plot(self, outs: Sequence[Path]) -> Path | None:
        name = self.common.plot
        if name is None:
            return None
        from impasto.plot import check_plot, may_replace

        _one_only("--plot", outs)
        path = Path(name)
        check_plot(path)
        self._check_new(path, ours=may_replace(path))
        return path

    def _new_film(self, outs: Sequence[Path], default: Path | None) -> "Film | None":
        path = Path(self.common.film) if self.common.film else default
        if path is None:
            return None
        from impasto.film import Film

        _one_only("--film", outs)
        film = Film(path, marked=self.common.metadata)
        self._check_new(path, ours=Film.may_replace(path))
        return film

    def _new_snapshots(self, outs: Sequence[Path], steps: int) -> Snapshots | None:
        every = self.common.save_every
        if every is None:
            return None
        if every < 1:
            raise SettingsError(f"save_every is {every}; it is a number of steps, 1 or more")
        _one_only("--save-every", outs)
        if steps // every > MOST_SNAPSHOTS:
            raise SettingsError(
                f"save_every is {every}, which makes {steps // every:,} pictures; choose more steps"
            )
        snapshots = Snapshots(outs[0], every, marked=self.common.metadata)
        for path in snapshots.paths(steps):
            self._take(path)
            check_replaceable(path, self.common)
        return snapshots

    def _new_log(self) -> JsonLog | None:
        if not self.common.json:
            return None
        path = Path(self.common.json)
        if path.resolve() in self._taken | {each.resolve() for each in self._inputs}:
            raise SettingsError(f"{path} is an input or a picture of this run; choose another log")
        if not self.common.overwrite and not JsonLog.may_replace(path):
            raise SettingsError(
                f"{path} is there and is no log of impasto's; choose another, or --overwrite it"
            )
        log = JsonLog(path)
        self.callback(log.close)
        return log

    def _check_new(self, path: Path, *, ours: bool) -> None:
        """Refuses a film or plot that cannot be written or would replace something foreign."""
        if not path.parent.is_dir():
            raise ImpastoError(
                f"cannot write {path}: there is no folder {path.parent}; make it first"
            )
        if path.is_dir():
            raise ImpastoError(f"cannot write {path}: it is a folder; name a file in it")
        if path.exists() and not path.is_file():
            raise ImpastoError(f"cannot write {path}: it is not a regular file")
        if any(path.exists() and each.exists() and path.samefile(each) for each in self._inputs):
            raise SettingsError(f"{path} is an input too; choose another name")
        self._take(path)
        if not ours and not self.common.overwrite:
            raise ImpastoError(
                f"{path} is there and was not made by impasto; choose another name, "
                "or replace it with --overwrite"
            )

    def _save(self, result: Result, job: Job) -> None:
        metadata, gps = self.common.metadata, self.common.keep_gps
        try:
            notes = result.save(job.out, metadata=metadata, gps=gps)
        except ImpastoError as error:
            where = _rescued(result, job.out) if job.rescue else ""
            raise ImpastoError(f"{error}{where}") from error
        if result.partial and not metadata:
            notes.append("without its record a later run cannot tell that this one is unfinished")
        seconds = round(time.monotonic() - job.began, 3)
        self._log(
            "result",
            output=job.out.name,
            partial=result.partial,
            seconds=seconds,
            settings=result.settings,
        )
        self.reporter.end()
        for note in notes:
            self.reporter.say(note)
        w, h = result.image.size
        how = "stopped early, best so far" if result.partial else f"{seconds:.0f} s"
        frames = result.settings.get("frames")
        of = f", {frames} frames" if frames else ""
        self.reporter.result(job.out, f"({w}×{h} px{of}, {how})")

    def _save_extras(self, result: Result | None, history: Sequence[dict[str, Any]]) -> None:
        """Writes the film and the plot, once the result itself is safe."""
        if self.film and self.film not in self._given_up:
            with self._may_fail(self.film):
                for note in self.film.save(result.image if result else None):
                    self.reporter.say(note)
                self.reporter.result(self.film.path, "(film)")
        if self._plot:
            from impasto.plot import plot_losses

            with self._may_fail(self._plot):
                plot_losses(history, self._plot, marked=self.common.metadata)
                self.reporter.result(self._plot, "(losses)")

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


def _rescued(result: Result, out: Path) -> str:
    """Where a picture lies now that could not be written where it should, for the message."""
    try:
        path = Path(tempfile.mkdtemp(prefix="impasto-")) / f"{out.stem}.png"
        result.save(path)
    except (OSError, ImpastoError):
        return ""
    return f"; the picture is safe in {path}"


def check_replaceable(out: Path, common: "Common") -> None:
    """A result of ours may be replaced by a newer one; anything else only if asked."""
    if out.exists() and not common.overwrite and read_settings(out) is None:
        raise ImpastoError(
            f"{out} is there and has no record of impasto's in it; choose another name, "
            "or replace it with --overwrite"
        )


def _one_only(flag: str, outs: Sequence[Path]) -> None:
    if len(outs) > 1:
        raise SettingsError(f"{flag} shows one picture; leave it out for several photos")
