"""A training run: the loop, and what each snapshot leaves in the run's folder.

    RUN/
      checkpoint-*.safetensors   the newest two; everything that is needed to go on
      best.safetensors           the checkpoint with the best KID
      log.jsonl                  losses and the discriminator's outputs, one line every few steps
      scores.jsonl               scores of every snapshot
      snapshots/                 grids of fixed latents, real beside generated
      curves.png                 log and scores as curves, if matplotlib is installed
      film.webp, neighbours.png  at the end

The checkpoint is written first. What a killed run has not drawn or scored is done when it goes on.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image

from impasto.checkpoints import checkpoints
from impasto.compute import choose_device, choose_dtype
from impasto.errors import RunError, SettingsError
from impasto.files import StrPath, write_bytes_atomic, write_text_atomic
from impasto.film import write_frames
from impasto.gan import sheets
from impasto.gan.features import nearest
from impasto.gan.generator import BEST, Generator, Run, load_run
from impasto.gan.pictures import Pictures
from impasto.gan.recipe import GanRecipe, make_generator
from impasto.gan.scores import Judge
from impasto.gan.settings import GanSettings, ScoreSettings
from impasto.gan.style import (
    StyleDiscriminator,
    StyleGenerator,
    grow_discriminator,
    grow_generator,
)
from impasto.gan.style_recipe import make_recipe
from impasto.images import open_image, save_image
from impasto.parallel import ALONE, World
from impasto.trainer import LOG, Length, Report, train

__all__ = ["GanProgress", "train_gan", "trained"]

SCORES: Final = "scores.jsonl"
SNAPSHOTS: Final = "snapshots"
GRID: Final = 64
"""Pictures in a grid."""

LOG_STEPS: Final = 10
"""Steps from one line of the log to the next; where penalties are not in each, steps with one."""

COLLAPSED: Final = 0.1
"""The generated pictures differ from each other by less than this share of what real ones do."""

PERSISTENT: Final = 8
"""Lines of the log after which pictures that are alike are a collapse."""

WINDOW: Final = 20
"""Lines of the log over which the pace is taken."""


@dataclass(frozen=True)
class GanProgress:
    """How a training goes.

    Attributes:
        seen, total: pictures so far, and in all.
        metrics: means since the last report; see the log.
        rate: pictures per second, lately; 0 while it is not known.
        notes: what a user should know, one line each.
        scores: of the snapshot that has just been taken, if there was one.
        files: what has been written for it.
    """

    seen: int
    total: int
    metrics: Mapping[str, float]
    rate: float
    notes: tuple[str, ...] = ()
    scores: Mapping[str, Any] | None = None
    files: tuple[Path, ...] = ()

    @property
    def done(self) -> float:
        """The share of the run that is behind, 0 to 1."""
        return min(1.0, self.seen / self.total)

    @property
    def seconds_left(self) -> float:
        """At this pace; infinite while that is not known, s."""
        return max(0, self.total - self.seen) / self.rate if self.rate else math.inf


def train_gan(
    pictures: Pictures,
    settings: GanSettings,
    folder: Path,
    *,
    resume: bool = False,
    world: World = ALONE,
    stop: Callable[[], bool] = lambda: False,
    scoring: ScoreSettings | None = ScoreSettings(),  # noqa: B008 — frozen
    warm_start: StrPath | None = None,
) -> Iterator[GanProgress]:
    """Trains a GAN until it has seen `settings.images` pictures.

    Args:
        pictures: what it learns from, and what is held out.
        settings: what it is.
        folder: of the run; see the module. A run that is there is only gone on with if `resume`.
        resume: whether to go on.
        world: the processes that train together; only the first draws and scores.
        stop: asked after every step: whether to save and end here.
        scoring: how snapshots are scored; None for no scores.
        warm_start: the folder of a style-based run whose best networks this one begins with; they
            have the same channels, and pictures of this size or less. Not looked at when a run goes
            on.

    Yields:
        `GanProgress`, at the beginning, after every line of the log, and at the end.

    Raises:
        ImpastoError: as `impasto.trainer.train`.
    """
    device = world.device if world.device.type == "cuda" else choose_device(settings.device)
    dtype = choose_dtype(device, settings.precision)
    recipe = make_recipe(settings, pictures, device, world)
    if warm_start is not None and not checkpoints(folder):
        _warm(recipe, load_run(warm_start))
    batch = settings.batch
    length = Length(
        settings.images,
        batch,
        LOG_STEPS * batch * max(1, settings.penalty_every),
        settings.snapshot_every,
        settings.seed,
        fixed=False,
    )
    reports = train(
        recipe.parts,
        recipe.step,
        length,
        folder,
        config={**settings.record(), "pictures": pictures.key},
        remember=settings.changeable(),
        resume=resume,
        device=device,
        dtype=dtype,
        world=world,
        stop=stop,
        tame=recipe.pace.slow_down,
    )
    album = _Album(folder, recipe, pictures, scoring) if world.first else None
    pace, watch = _Pace(), _CollapseWatch()
    with closing(reports):  # so that the folder is free at once, whatever happens
        for report in reports:
            notes = report.notes + watch(report)
            files: list[Path] = []
            scores: Mapping[str, Any] | None = None
            if album and report.regular:
                files, scores, more = album.add(report, finished=report.seen >= settings.images)
                notes += more
            rate = pace(report)
            yield GanProgress(
                report.seen, report.total, report.metrics, rate, notes, scores, tuple(files)
            )


def trained(recipe: GanRecipe, seen: int) -> Generator:
    """A copy of the generator in training that paints, after so many pictures."""
    settings = recipe.settings
    state = recipe.painter.state_dict()
    copy = make_generator(settings)
    copy.load_state_dict({name: tensor.float().cpu() for name, tensor in state.items()})
    return Generator(copy, {"images": seen, **settings.record()}, recipe.device)


def _warm(recipe: GanRecipe, run: Run) -> None:
    """Gives a recipe the networks of a run.

    Raises:
        RunError: they do not fit.
    """
    generator, discriminator = recipe.generator, recipe.discriminator
    if not isinstance(generator, StyleGenerator) or run.settings.arch != "style":
        raise RunError("only a run of --arch style can begin with another, and that one too")
    assert isinstance(discriminator, StyleDiscriminator)
    small, judge = run.generator(average=False), run.discriminator()
    assert isinstance(small, StyleGenerator)
    assert isinstance(judge, StyleDiscriminator)
    grow_generator(generator, small)
    grow_discriminator(discriminator, judge)
    if recipe.average:
        mean, average = run.generator(), recipe.average.module
        assert isinstance(mean, StyleGenerator)
        assert isinstance(average, StyleGenerator)
        average.load_state_dict(generator.state_dict())
        grow_generator(average, mean)


class _Pace:
    """Pictures per second over the last lines of the log, without the time for snapshots."""

    def __init__(self) -> None:
        self._last: list[tuple[int, float]] = []

    def __call__(self, report: Report) -> float:
        self._last = [*self._last[-WINDOW:], (report.seen, report.seconds)]
        (seen, seconds), (now, then) = self._last[0], self._last[-1]
        return (now - seen) / (then - seconds) if then > seconds and now > seen else 0.0


class _CollapseWatch:
    """A warning when all generated pictures are alike, and stay so: once, until they differ again.

    Fresh weights paint the same grey whatever the latent; that passes within some lines of the log.
    """

    def __init__(self) -> None:
        self._lines = 0

    def __call__(self, report: Report) -> tuple[str, ...]:
        spread = report.metrics.get("spread")
        if spread is None:
            return ()
        self._lines = self._lines + 1 if spread < COLLAPSED else 0
        if self._lines != PERSISTENT:
            return ()
        return (
            f"warning: after {report.seen} pictures all that it paints looks alike ({spread:.0%} "
            "of the real ones' variety); try --augment all, another --loss or a smaller --lr",
        )


class _Album:
    """What a run's folder shows of its snapshots."""

    def __init__(
        self, folder: Path, recipe: GanRecipe, pictures: Pictures, scoring: ScoreSettings | None
    ) -> None:
        self.folder, self.recipe, self.pictures, self.scoring = folder, recipe, pictures, scoring
        self._judge: Judge | None = None

    def add(
        self, report: Report, *, finished: bool
    ) -> tuple[list[Path], Mapping[str, Any] | None, tuple[str, ...]]:
        """Draws and scores a snapshot, unless that was done; at the end, film and neighbours."""
        home = self.folder / SNAPSHOTS
        home.mkdir(exist_ok=True)
        made = home / f"{report.seen:012}-grid.png"
        lines = self._forget(report.seen)
        files: list[Path] = []
        done = [line for line in lines if line["images"] == report.seen]
        scores: Mapping[str, Any] | None = done[0] if done else None
        fresh = not made.exists()
        generator = trained(self.recipe, report.seen)
        if fresh:
            painted = sheets.tiles(generator.sample(GRID, seed=self.recipe.settings.seed))
            real = self._training(16)
            sheets.beside(real, painted[:16], home / f"{report.seen:012}-beside.png")
            save_image(sheets.grid(painted), made)  # the last, as it says that all is there
            files.append(made)
        notes: tuple[str, ...] = ()
        if self.scoring and scores is None and report.seen:
            try:
                scores = self._score(generator, report.seen, lines)
            except SettingsError as error:  # a handful of paintings can be learnt, and not judged
                self.scoring = None
                notes = (f"no scores: {error}",)
        if sheets.has_matplotlib() and report.seen:
            log = sheets.read_lines(self.folder / LOG)
            sheets.curves(log, sheets.read_lines(self.folder / SCORES), self.folder / "curves.png")
        if finished:
            files += self._finish(generator)
        return files, scores, notes

    def _training(self, count: int) -> list[Any]:
        """Some training pictures, evenly spread."""
        total = len(self.pictures.train)
        chosen = torch.linspace(0, total - 1, min(count, total)).round().long()
        x = self.pictures.batch(chosen)
        return sheets.tiles((x + 1) / 2)

    def _forget(self, seen: int) -> list[dict[str, Any]]:
        """Removes what a run that went back has of times to come; gives the scores until now."""
        every = sheets.read_lines(self.folder / SCORES)
        lines = [line for line in every if line["images"] <= seen]
        if lines != every:
            self._write_scores(lines)
        for path in (self.folder / SNAPSHOTS).glob("*.png"):
            number = path.name.split("-")[0]
            if number.isdecimal() and int(number) > seen:
                path.unlink(missing_ok=True)
        return lines

    def _write_scores(self, lines: list[dict[str, Any]]) -> None:
        write_text_atomic(self.folder / SCORES, "".join(json.dumps(line) + "\n" for line in lines))

    def _score(
        self, generator: Generator, seen: int, lines: list[dict[str, Any]]
    ) -> Mapping[str, Any]:
        assert self.scoring is not None
        judge = self._judged()
        painted = generator.sample(self.scoring.generated, seed=self.scoring.seed + 1)
        found = judge.score(painted, seed=self.scoring.seed).record()
        line = {"images": seen, **found}
        lines = [*(line for line in lines if line["images"] < seen), line]
        if found["kid"] <= min(line["kid"] for line in lines):
            newest = self.folder / f"checkpoint-{seen:012}.safetensors"
            write_bytes_atomic(self.folder / BEST, newest.read_bytes())
        # The last, as it says that all is there.
        self._write_scores(lines)
        return line

    def _judged(self) -> Judge:
        """A judge, who looks at the real pictures once."""
        if self._judge is None:
            assert self.scoring is not None
            crops, painting = self.pictures.reference(self.scoring.real)
            self._judge = Judge(crops, painting)
        return self._judge

    def _finish(self, generator: Generator) -> list[Path]:
        """The film of the grid, and the nearest training pictures of some samples."""
        grids = sorted((self.folder / SNAPSHOTS).glob("*-grid.png"))
        frames: list[Image.Image] = [sheets.frame(open_image(path)) for path in grids]
        film = self.folder / "film.webp"
        write_frames(film, frames, [200] * (len(frames) - 1) + [2000])
        files = [film]
        if self.scoring:
            files.append(self._neighbours(generator))
        return files

    def _neighbours(self, generator: Generator, count: int = 8, near: int = 4) -> Path:
        painted = generator.sample(count, seed=self.recipe.settings.seed)
        every = torch.arange(len(self.pictures.train))
        judge = self._judged()

        def seen(mirrored: bool) -> torch.Tensor:
            parts = []
            for chosen in torch.split(every, 256):
                x = (self.pictures.batch(chosen) + 1) / 2
                parts.append(judge.features(x.flip(-1) if mirrored else x))
            return torch.cat(parts)

        made, plain, mirrored = judge.features(painted), seen(False), seen(True)
        found, _ = nearest(made, plain, near, mirrored=mirrored)
        rows = []
        for features, row in zip(made, found.tolist(), strict=True):
            pictures = []
            for index in row:
                x = (self.pictures.batch(torch.tensor([index])) + 1) / 2
                turned = (features - mirrored[index]).norm() < (features - plain[index]).norm()
                pictures.append(sheets.tiles(x.flip(-1) if turned else x)[0])
            rows.append(pictures)
        path = self.folder / "neighbours.png"
        sheets.neighbours(sheets.tiles(painted), rows, path)
        return path
