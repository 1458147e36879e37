"""What `impasto gan data` and `train` do with their arguments: check, run, report, save."""

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from impasto.desk import DONE, INTERRUPTED
from impasto.errors import ImpastoError, SettingsError
from impasto.gan.settings import GanSettings, ScoreSettings, make_gan_settings
from impasto.images import check_output_path, save_image
from impasto.seeds import derive_seed
from impasto.terminal import Reporter, duration

if TYPE_CHECKING:
    from impasto.gan.pictures import Pictures
    from impasto.gan.run import GanProgress
    from impasto.parallel import World

__all__ = ["run_data", "run_train"]

LINE_EVERY: Final = 10.0
"""Seconds between two lines of progress when the output is no terminal."""


def run_data(
    folders: Sequence[str], sheet: str | None, settings: GanSettings, overwrite: bool, quiet: bool
) -> int:
    """`impasto gan data`."""
    from impasto.gan.collection import Found, Report, find, survey, thumbnails
    from impasto.gan.pictures import Box, Views, boxes

    if sheet is not None:
        check_output_path(sheet)
        if not Path(sheet).parent.is_dir():
            raise ImpastoError(f"cannot write {sheet}: there is no folder {Path(sheet).parent}")
        if Path(sheet).exists() and not overwrite:
            raise ImpastoError(f"{sheet} is there already; --overwrite replaces it")
    views = Views(settings.size, settings.crop, settings.tile, settings.crops)

    def cut(one: Found) -> list[Box]:
        return boxes(one.size, views, derive_seed(settings.seed, "crops", one.sha256))

    paths = find(folders)
    report: Report | None = None
    with Reporter(quiet) as reporter:
        reporter.begin("reading")
        for number, found in enumerate(survey(paths, max_pixels=settings.max_pixels), 1):
            if isinstance(found, Report):
                report = found
            else:
                reporter.show(number / len(paths), f"{number} of {len(paths)}")
    assert report is not None
    lines = report.lines()
    if report.found:
        different = {one.sha256: one for one in report.found}.values()
        squares = sum(len(cut(one)) for one in different)
        lines.append(
            f"squares of {settings.size} px: {squares:,}, a part of them held out by train"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    if sheet is not None:
        cutting = settings.tile or settings.crops
        shown = thumbnails(report, cut if cutting else None, max_pixels=settings.max_pixels)
        save_image(shown, sheet)
        sys.stdout.write(f"{sheet}\n")
    return DONE


# --- train ----------------------------------------------------------------------------------------


def run_train(
    folders: Sequence[str],
    out: str,
    options: dict[str, Any],
    *,
    passes: float | None,
    seconds: float | None,
    resume: bool,
    dry_run: bool,
    cache: str | None,
    quiet: bool,
    warm_start: str | None = None,
    tune_gamma: bool = False,
) -> int:
    """`impasto gan train`."""
    began = time.monotonic()
    if passes is not None and "images" in options:
        raise SettingsError("--passes and --images are two ways to say the same; give one")
    if passes is not None and not 0 < passes < 1e6:
        raise SettingsError(f"--passes is {passes}; it is a number above 0")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{out} is a file; -o takes the folder of the run")

    import torch

    from impasto.compute import choose_device, keep_memory, memory_errors, threads
    from impasto.gan.run import train_gan
    from impasto.parallel import join

    keep_memory()
    device = choose_device(make_gan_settings({"device": options.get("device", "auto")}).device)
    with join(device) as world, Reporter(quiet or not world.first, every=LINE_EVERY) as reporter:
        if resume:
            options = {**_remembered(folder, world), **options}
        gpu = device.type != "cpu"
        settings = make_gan_settings(options, gpu=gpu)
        pictures = _prepared(folders, settings, cache, reporter)
        if passes is not None:
            images = max(settings.batch, round(passes * len(pictures.train)))
            settings = make_gan_settings({**options, "images": images}, gpu=gpu)
        if dry_run:
            world.portion(settings.batch)
            if world.first:
                with threads(settings.threads), memory_errors("such networks and batches"):
                    _tell(settings, pictures)
            return DONE
        if tune_gamma and not (resume and folder.is_dir() and any(folder.glob("checkpoint-*"))):
            settings = _tuned(pictures, settings, world, reporter)
        needs = memory_errors("such networks and batches")
        with _polite(world.first) as asked, threads(settings.threads), needs:
            late = _late(began, seconds)
            steps = train_gan(
                pictures,
                settings,
                folder,
                resume=resume,
                world=world,
                stop=lambda: asked() or late(),
                warm_start=warm_start,
            )
            reporter.begin("learning")
            last: GanProgress | None = None
            for last in steps:
                for note in last.notes:
                    reporter.say(note)
                if last.scores:
                    reporter.say(_scored(last))
                reporter.show(last.done, _state(last))
        reporter.end()
        assert last is not None
        del torch
        if asked():
            reporter.say(f"stopped after {last.seen} pictures; --resume goes on")
            return INTERRUPTED
        if last.seen < last.total:
            reporter.say(f"time is up after {last.seen} of {last.total} pictures; --resume goes on")
        if world.first and not quiet:
            sys.stdout.write(f"{out}\n")
        return DONE


def _tuned(
    pictures: "Pictures", settings: GanSettings, world: "World", reporter: Reporter
) -> GanSettings:
    """The settings with the weight of R1 and R2 that learns best."""
    from impasto.compute import threads
    from impasto.gan.tune import tune_gamma

    if world.size > 1:
        raise SettingsError("--tune-gamma is for one process; tune first, then give --gamma to all")
    reporter.begin("trying weights of R1 and R2")
    with threads(settings.threads):
        work = tune_gamma(pictures, settings)
        while True:
            try:
                tried = next(work)
            except StopIteration as end:
                tuned: GanSettings = end.value
                break
            told = ",".join(f"{g:g}" for g in tried.gamma)
            if tried.kid is not None:
                reporter.say(f"gamma {told}: KID {tried.kid:.3f} after {tried.seen:,} pictures")
            reporter.show(tried.done, f"gamma {told}, {tried.seen:,} pictures")
    reporter.say(f"going on with gamma {','.join(f'{g:g}' for g in tuned.gamma)}")
    return tuned


def _remembered(folder: Path, world: "World") -> dict[str, Any]:
    """The settings of the run in a folder, as the first process finds them; none if there is none.

    So the same command may be given again and again until the run is done.
    """
    from impasto.checkpoints import checkpoints
    from impasto.gan.generator import load_run

    found: dict[str, Any] = {}
    if world.first and checkpoints(folder):
        found = load_run(folder, best=False).settings.options()
    shared: dict[str, Any] = json.loads(world.share(json.dumps(found).encode()))
    return shared


def _prepared(
    folders: Sequence[str], settings: GanSettings, cache: str | None, reporter: Reporter
) -> "Pictures":
    """The pictures, decoded once."""
    from impasto.gan.cache import prepare
    from impasto.gan.collection import find
    from impasto.gan.pictures import Views

    paths = find(folders)
    views = Views(settings.size, settings.crop, settings.tile, settings.crops)
    work = prepare(
        paths,
        views,
        cache=Path(cache) if cache else None,
        seed=settings.seed,
        held_out=settings.held_out,
        least_held=ScoreSettings().real,
        max_pixels=settings.max_pixels,
    )
    reporter.begin("reading")
    while True:
        try:
            step = next(work)
        except StopIteration as end:
            pictures: Pictures = end.value
            return pictures
        reporter.show(step.done / step.total, f"{step.done} of {step.total}")


def _state(progress: "GanProgress") -> str:
    """A line of progress."""
    parts = [f"{progress.seen:,} of {progress.total:,} pictures"]
    if progress.rate:
        parts.append(f"{progress.rate:.0f}/s")
    names = {
        "discriminator": "D",
        "generator": "G",
        "on_real": "D(real)",
        "on_generated": "D(made)",
    }
    parts += [
        f"{short} {progress.metrics[name]:.2f}"
        for name, short in names.items()
        if name in progress.metrics
    ]
    if math.isfinite(progress.seconds_left):
        parts.append(f"{duration(progress.seconds_left)} left")
    return " · ".join(parts)


def _scored(progress: "GanProgress") -> str:
    scores = progress.scores
    assert scores is not None
    return (
        f"after {scores['images']:,} pictures: KID {scores['kid']:.3f} "
        f"({scores['kid_low']:.3f} to {scores['kid_high']:.3f}), density {scores['density']:.2f}, "
        f"coverage {scores['coverage']:.2f}"
    )


def _tell(settings: GanSettings, pictures: "Pictures") -> None:
    """What `--dry-run` says: settings, sizes, memory, time."""
    import torch

    from impasto.compute import choose_device, choose_dtype
    from impasto.gan.networks import count_parameters
    from impasto.gan.style_recipe import make_recipe
    from impasto.trainer import Length, Moment

    device = choose_device(settings.device)
    recipe = make_recipe(settings, pictures, device)
    numbers = [count_parameters(net) for net in (recipe.generator, recipe.discriminator)]
    length = Length(settings.images, settings.batch, settings.batch, settings.batch)
    dtype = choose_dtype(device, settings.precision)
    # What is not done in every step is done once in so many.
    cycle = max(settings.recipe.critic_steps, settings.penalty_every)
    times = []
    for turn in range(3):  # the first one warms up
        begin = time.perf_counter()
        for step in range(turn * cycle, (turn + 1) * cycle):
            torch.manual_seed(step)
            recipe.step(Moment(step * settings.batch, length, device, dtype))
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) / cycle)
    steps = math.ceil(settings.images / settings.batch)
    lines = [f"{name} = {value}" for name, value in settings.options().items()]
    lines += [f"{name} = {value}" for name, value in vars(settings.recipe).items()]
    state = sum(numbers) * 4 * 3 + (numbers[0] * 4 if settings.ema else 0)
    lines += [
        f"pictures = {len(pictures.train)} to learn from, {len(pictures.held)} held out",
        f"generator = {numbers[0]:,} parameters",
        f"discriminator = {numbers[1]:,} parameters",
        f"weights and optimisers = {state / 1e6:.0f} MB",
        f"memory = {_peak() / 1e6:.0f} MB",
        f"steps = {steps:,}, about {duration(steps * min(times[1:]))} on {device} in "
        f"{str(dtype).removeprefix('torch.')}, and some seconds more for each snapshot's scores",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _peak() -> int:
    """The most memory that this process has had, or its GPU, bytes."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return 0
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _late(began: float, seconds: float | None) -> Callable[[], bool]:
    """Whether the time is up."""
    return lambda: seconds is not None and time.monotonic() - began > seconds


@contextmanager
def _polite(speaks: bool) -> Iterator[Callable[[], bool]]:
    """While Ctrl-C, or a request to end, waits for the step at hand; a second one does not.

    Args:
        speaks: whether this process says so.
    """
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        if number == signal.SIGINT and speaks:
            os.write(2, b"\nfinishing the step; again to stop at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
