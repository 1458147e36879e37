"""What `impasto gan` does with its arguments: check, run, report, save. Gives the exit code."""

import dataclasses
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

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from impasto.batch import is_folder
from impasto.errors import ImpastoError, RunError, SettingsError, one_line
from impasto.gan.settings import GanSettings, ScoreSettings, make_gan_settings
from impasto.images import check_output_path, open_image, save_image
from impasto.terminal import Reporter, duration

if TYPE_CHECKING:
    from impasto.gan.pictures import Pictures
    from impasto.gan.run import GanProgress

__all__ = [
    "run_data",
    "run_export",
    "run_judge",
    "run_sample",
    "run_score",
    "run_train",
    "run_walk",
]

DONE, FAILED, INTERRUPTED = 0, 2, 130

WALK_RATE: Final = 20
"""Frames a second of a walk."""

WALK_SIDE: Final = 256
"""Small pictures are enlarged to this for a film, px."""


class _Bar:
    """How far something is, on standard error: one line that changes, or plain ones in a pipe."""

    def __init__(self, quiet: bool, every: float = 10.0) -> None:
        self.quiet, self._every, self._said = quiet, every, -math.inf
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars: Progress | None = None
        if not quiet and self._console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[state]}", markup=False),
                console=self._console,
                transient=True,
            )
            self._task = self._bars.add_task("", total=1.0, state="")
            self._bars.start()

    def show(self, title: str, done: float, state: str) -> None:
        """The state now."""
        if self._bars:
            self._bars.update(self._task, description=title, completed=done, state=state)
        elif time.monotonic() - self._said >= self._every:
            self._said = time.monotonic()
            self.say(f"{title}: {state}")

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self.quiet:
            self._console.print(one_line(text), markup=False, emoji=False)

    def close(self) -> None:
        """The bar goes."""
        if self._bars:
            self._bars.stop()
            self._bars = None

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- data -----------------------------------------------------------------------------------------


def run_data(folders: Sequence[str], sheet: str | None, settings: GanSettings, quiet: bool) -> int:
    """`impasto gan data`."""
    from impasto.gan.collection import Report, find, survey

    if sheet is not None:
        check_output_path(sheet)
    paths = find(folders)
    with _Bar(quiet) as bar:
        report: Report | None = None
        for number, found in enumerate(survey(paths), 1):
            if isinstance(found, Report):
                report = found
            else:
                bar.show("reading", number / max(1, len(paths)), f"{number} of {len(paths)}")
    assert report is not None
    for line in report.lines():
        sys.stdout.write(line + "\n")
    if sheet is not None and report.found:
        from impasto.gan.collection import thumbnails

        save_image(thumbnails(report), sheet)
        sys.stdout.write(f"{sheet}\n")
    del settings
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

    from impasto.compute import choose_device, keep_memory, threads
    from impasto.gan.generator import load_run
    from impasto.gan.run import train_gan
    from impasto.parallel import join

    if resume:
        run = load_run(folder, best=False)
        options = {**run.settings.identity(), **options}
    settings = make_gan_settings(options)
    keep_memory()
    device = choose_device(settings.device)
    with join(device) as world, _Bar(quiet or not world.first) as bar:
        pictures = _prepared(folders, settings, cache, bar)
        if passes is not None:
            images = max(settings.batch, round(passes * len(pictures.train)))
            settings = make_gan_settings({**options, "images": images})
        if dry_run:
            if world.first:
                _tell(settings, pictures)
            return DONE
        with _polite() as asked, threads(settings.threads):
            late = _late(began, seconds)
            steps = train_gan(
                pictures,
                settings,
                folder,
                resume=resume,
                world=world,
                stop=lambda: asked() or late(),
            )
            last: GanProgress | None = None
            for last in steps:
                for note in last.notes:
                    bar.say(note)
                if last.scores:
                    bar.say(_scored(last))
                bar.show("learning", last.done, _state(last))
        bar.close()
        assert last is not None
        del torch
        if asked():
            bar.say(f"stopped after {last.seen} pictures; --resume goes on")
            return INTERRUPTED
        if last.seen < last.total:
            bar.say(f"time is up after {last.seen} of {last.total} pictures; --resume goes on")
        if world.first and not quiet:
            sys.stdout.write(f"{out}\n")
        return DONE


def _prepared(
    folders: Sequence[str], settings: GanSettings, cache: str | None, bar: _Bar
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
    )
    while True:
        try:
            step = next(work)
        except StopIteration as end:
            pictures: Pictures = end.value
            return pictures
        bar.show("reading", step.done / max(1, step.total), f"{step.done} of {step.total}")


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
    from impasto.gan.recipe import GanRecipe
    from impasto.trainer import Length, Moment

    device = choose_device(settings.device)
    recipe = GanRecipe(settings, pictures, device)
    numbers = [count_parameters(net) for net in (recipe.generator, recipe.discriminator)]
    length = Length(settings.images, settings.batch, settings.batch, settings.batch)
    dtype = choose_dtype(device, settings.precision)
    times = []
    for step in range(3):
        begin = time.perf_counter()
        torch.manual_seed(step)
        recipe.step(Moment(step * settings.batch, length, device, dtype))
        times.append(time.perf_counter() - begin)
    steps = math.ceil(settings.images / settings.batch)
    lines = [f"{name} = {value}" for name, value in dataclasses.asdict(settings).items()]
    lines += [f"{name} = {value}" for name, value in vars(settings.recipe).items()]
    state = sum(numbers) * 4 * 3 + (numbers[0] * 4 if settings.ema else 0)
    lines += [
        f"pictures = {len(pictures.train)} to learn from, {len(pictures.held)} held out",
        f"generator = {numbers[0]:,} parameters, discriminator = {numbers[1]:,}",
        f"weights and optimisers = {state / 1e6:.0f} MB",
        f"memory now = {_peak() / 1e6:.0f} MB",
        f"steps = {steps:,}, about {duration(steps * min(times))} on {device} in "
        f"{str(dtype).removeprefix('torch.')}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _peak() -> int:
    """The most memory that this process has had, bytes."""
    if sys.platform == "win32":
        return 0
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _late(began: float, seconds: float | None) -> Callable[[], bool]:
    """Whether the time is up."""
    return lambda: seconds is not None and time.monotonic() - began > seconds


@contextmanager
def _polite() -> Iterator[Callable[[], bool]]:
    """While Ctrl-C, or a request to end, waits for the step at hand; a second one does not."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        if number == signal.SIGINT:
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


# --- what a run is good for -----------------------------------------------------------------------


def run_sample(
    run: str, out: str, count: int, seed: int, device: str, overwrite: bool, quiet: bool
) -> int:
    """`impasto gan sample`."""
    if not 1 <= count <= 1_000_000:
        raise SettingsError(f"-n is {count}; it is a number from 1 to 1000000")
    single = not is_folder(out)
    if single:
        check_output_path(out)
        _free(Path(out), overwrite)
    from impasto.gan.generator import Generator
    from impasto.gan.recipe import latents
    from impasto.gan.sheets import grid, tiles
    from impasto.images import Picture

    generator = Generator.load(run, device=_device(device))
    z = latents(count, generator.net.latent, seed)
    with _Bar(quiet) as bar, Reporter(quiet) as reporter:
        if single:
            made = tiles(generator.paint(z))
            picture = Picture(made[0]) if count == 1 else grid(made)
            save_image(picture, out, record=_record(generator, seed))
            reporter.result(Path(out), "")
            return DONE
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        digits = len(str(count - 1))
        paths = [folder / f"{i:0{digits}}.png" for i in range(count)]
        for path in paths:
            _free(path, overwrite)
        for i, path in enumerate(paths):
            save_image(
                Picture(tiles(generator.paint(z[i : i + 1]))[0]),
                path,
                record=_record(generator, seed, i),
            )
            bar.show("painting", (i + 1) / count, f"{i + 1} of {count}")
        reporter.result(folder, f"{count} pictures")
    return DONE


def run_walk(
    run: str,
    out: str,
    seconds: float,
    stops: int,
    seed: int,
    device: str,
    overwrite: bool,
    quiet: bool,
) -> int:
    """`impasto gan walk`."""
    if not 0.2 <= seconds <= 600:
        raise SettingsError(f"--seconds is {seconds:g}; it is a number from 0.2 to 600")
    if not 2 <= stops <= 1000:
        raise SettingsError(f"--stops is {stops}; it is a number from 2 to 1000")
    from impasto.film import checked_suffix, write_frames

    checked_suffix(Path(out))
    _free(Path(out), overwrite)
    from PIL import Image

    from impasto.gan.generator import Generator
    from impasto.gan.sheets import tiles

    generator = Generator.load(run, device=_device(device))
    count = max(2, round(seconds * WALK_RATE))
    factor = max(1, WALK_SIDE // generator.side)
    side = generator.side * factor
    frames = []
    with _Bar(quiet) as bar, Reporter(quiet) as reporter:
        for number, x in enumerate(generator.walk(count, stops=stops, seed=seed), 1):
            image = Image.fromarray(tiles(x)[0])
            frames.append(image.resize((side, side), Image.Resampling.BICUBIC))
            bar.show("painting", number / count, f"{number} of {count}")
        write_frames(out, frames, [1000 // WALK_RATE] * count)
        reporter.result(Path(out), "")
    return DONE


def run_judge(run: str, images: Sequence[str], device: str) -> int:
    """`impasto gan judge`: the discriminator's probability that a picture is real."""
    import torch

    from impasto.gan.generator import load_run
    from impasto.pyramid import cover
    from impasto.sources import find_photos

    found = load_run(run)
    target = _device(device)
    net = found.discriminator().to(target)
    side = found.settings.size
    failed = False
    with Reporter() as reporter:
        for note in found.notes:
            reporter.say(note)
        for source in find_photos(images, missing_too=len(images) > 1):
            try:
                x = cover(open_image(source.path).over_white().tensor(), (side, side))
            except ImpastoError as error:
                reporter.error(error)
                failed = True
                continue
            with torch.inference_mode():
                logit = float(net((x * 2 - 1).to(target)))
            if found.settings.loss == "bce":
                told = f"{1 / (1 + math.exp(-logit)):.3f}"
            else:
                told = f"{logit:+.3f} (a score of --loss {found.settings.loss}, no probability)"
            reporter.result(source.path, told)
    return FAILED if failed else DONE


def run_score(
    run: str,
    folders: Sequence[str],
    count: int,
    seed: int,
    device: str,
    cache: str | None,
    quiet: bool,
) -> int:
    """`impasto gan score`."""
    if not 10 <= count <= 50_000:
        raise SettingsError(f"-n is {count}; it is a number from 10 to 50000")
    from impasto.gan.cache import reference_squares
    from impasto.gan.generator import Generator
    from impasto.gan.scores import Judge

    generator = Generator.load(run, device=_device(device))
    with _Bar(quiet) as bar:
        bar.show("reading", 0.0, f"{len(folders)} folders")
        crops, painting = reference_squares(
            folders, generator.side, ScoreSettings().real, cache=Path(cache) if cache else None
        )
        bar.show("looking", 0.3, "real pictures")
        judge = Judge(crops, painting)
        bar.show("painting", 0.6, f"{count} pictures")
        scores = judge.score(generator.sample(count, seed=seed), seed=seed)
    sys.stdout.write(
        f"KID {scores.kid:.4f} ({scores.kid_low:.4f} to {scores.kid_high:.4f}), "
        f"density {scores.density:.3f}, coverage {scores.coverage:.3f}\n"
        f"{scores.generated} generated beside {scores.real} crops of {scores.paintings} paintings; "
        f"{scores.spec.describe()}\n"
    )
    return DONE


def run_export(run: str, out: str, newest: bool, overwrite: bool, quiet: bool) -> int:
    """`impasto gan export`."""
    if Path(out).suffix != ".safetensors":
        raise SettingsError(f"{out} has to end in .safetensors")
    if not Path(run).is_dir():
        raise RunError(f"{run} is no folder of a run")
    _free(Path(out), overwrite)
    from impasto.gan.generator import Generator

    with Reporter(quiet) as reporter:
        Generator.load(run, best=not newest).export(out)
        reporter.result(Path(out), "")
    return DONE


def _device(name: str) -> Any:
    from impasto.compute import choose_device

    if name not in ("auto", "cpu", "cuda", "mps"):
        raise SettingsError(f"device is {name!r}; it can be auto, cpu, cuda, mps")
    return choose_device(name)  # type: ignore[arg-type]


def _free(path: Path, overwrite: bool) -> None:
    """That a file may be written."""
    if path.exists() and not overwrite:
        raise ImpastoError(f"{path} is there already; --overwrite replaces it")


def _record(generator: Any, seed: int, number: int | None = None) -> str:
    """What made a generated picture, as JSON."""
    import json

    from impasto.records import RECORD_VERSION, versions

    made: dict[str, Any] = {"record": RECORD_VERSION, "job": "gan sample", "seed": seed}
    if number is not None:
        made["number"] = number
    return json.dumps({**made, "generator": generator.card, "versions": versions()})
