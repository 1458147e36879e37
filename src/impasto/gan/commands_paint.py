"""What `impasto gan` does with a trained run: paint, film, judge, score, export."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from impasto.batch import is_folder
from impasto.desk import DONE, FAILED
from impasto.errors import ImpastoError, RunError, SettingsError
from impasto.gan.settings import ScoreSettings, make_gan_settings
from impasto.images import MAX_PIXELS, check_output_path, check_sides, save_image
from impasto.terminal import Reporter

if TYPE_CHECKING:
    from torch import Tensor

    from impasto.gan.generator import Generator
    from impasto.images import Picture
    from impasto.sources import Source

__all__ = [
    "SampleOptions",
    "check_free",
    "device_of",
    "run_export",
    "run_judge",
    "run_sample",
    "run_score",
    "run_walk",
    "tell_notes",
]

WALK_RATE: Final = 20
"""Frames a second of a walk."""

WALK_SIDE: Final = 256
"""Small pictures are enlarged to this for a film, px."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """What `impasto gan sample` is asked for.

    Attributes:
        count: how many pictures; None for what is usual.
        seed: of the latents.
        truncation: see `impasto.gan.generator.Generator.sample`.
        latent: a picture whose latent is painted again, instead of new ones; None for new ones.
        repaint: PICTURE that gives them its strokes; None to leave them as they are.
        size: side of what is repainted, px; None for what is usual.
    """

    count: int | None = None
    seed: int = 0
    truncation: float = 1.0
    latent: str | None = None
    repaint: str | None = None
    size: int | None = None

    @property
    def pictures(self) -> int:
        """How many pictures are painted."""
        usual = 64 if self.latent is None else 1
        return usual if self.count is None else self.count

    @property
    def side(self) -> int:
        """Side of what is repainted, px."""
        return 1024 if self.size is None else self.size

    def check(self, single: bool) -> None:
        """That it can be done, before the work.

        Args:
            single: whether one file is to be written.
        """
        if not 1 <= self.pictures <= 1_000_000:
            raise SettingsError(f"-n is {self.count}; it is a number from 1 to 1000000")
        if self.latent is not None and self.pictures != 1:
            raise SettingsError(f"-n is {self.count}, but a latent is one picture; leave -n out")
        if self.repaint is None:
            if self.size is not None:
                raise SettingsError("--size is for --repaint; leave it out")
            return
        if not 64 <= self.side <= 8192:
            raise SettingsError(f"--size is {self.size}; it is a number from 64 to 8192, in px")
        if single and self.pictures > 1:
            raise SettingsError(
                "a sheet cannot be repainted; add -n 1, or write to a folder (-o DIR/)"
            )


def run_sample(
    run: str, out: str, options: SampleOptions, device: str, overwrite: bool, quiet: bool
) -> int:
    """`impasto gan sample`."""
    single = not is_folder(out)
    options.check(single)
    if single:
        check_output_path(out)
        check_free(Path(out), overwrite)
    style = None if options.repaint is None else _alone(options.repaint).open()
    from impasto.compute import memory_errors
    from impasto.gan.generator import BATCH, Generator
    from impasto.gan.sheets import grid, tiles
    from impasto.images import Picture

    generator = Generator.load(run, device=device_of(device))
    count = options.pictures
    if single and count > 1:
        _check_sheet(out, count, generator.side)
    with Reporter(quiet) as reporter, memory_errors("so many pictures; write them to a folder"):
        tell_notes(generator, reporter)
        paint = _painter(generator, options)
        reporter.begin("painting")
        finish = _finish(options, style, device, reporter)
        if single:
            made = []
            for i in range(0, count, BATCH):
                made += tiles(paint(i, min(i + BATCH, count)))
                reporter.show(len(made) / count, f"{len(made)} of {count}")
            picture = finish(Picture(made[0])) if count == 1 else grid(made)
            save_image(picture, out, record=_record(generator, options))
            reporter.result(Path(out), "")
            return DONE
        folder = Path(out)
        digits = len(str(count - 1))
        paths = [folder / f"{i:0{digits}}.png" for i in range(count)]
        for path in paths if folder.exists() else ():
            check_free(path, overwrite)
        for i, path in enumerate(paths):
            picture = finish(Picture(tiles(paint(i, i + 1))[0]))
            folder.mkdir(parents=True, exist_ok=True)  # not before there is something to put in
            save_image(picture, path, record=_record(generator, options, i))
            reporter.show((i + 1) / count, f"{i + 1} of {count}")
        reporter.result(folder, f"{count} pictures")
    return DONE


def _check_sheet(out: str, count: int, side: int) -> None:
    """That a sheet of so many pictures can be written, before they are painted."""
    from impasto.gan.sheets import GAP

    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    w, h = (number * (side + GAP) - GAP for number in (columns, rows))
    check_sides((w, h), out, check_output_path(out), ".png, or a folder (-o DIR/)")
    if w * h > MAX_PIXELS:
        raise SettingsError(
            f"a sheet of {count} pictures has {w} × {h} px, and that is too large; write them to "
            "a folder (-o DIR/)"
        )


def _alone(style: str) -> "Source":
    """What a picture is repainted with; it must have no weight and no mask."""
    from impasto.sources import parse_style

    found = parse_style(style)
    if found.weight != 1 or found.mask is not None:
        raise SettingsError("--repaint takes a style without a weight and a mask")
    return found.source


def _painter(generator: "Generator", options: SampleOptions) -> Callable[[int, int], "Tensor"]:
    """What paints the pictures from one number to before another."""
    truncation = options.truncation
    if options.latent is not None:
        from impasto.gan.commands_style import read_styles

        w = read_styles(Path(options.latent), generator, truncation)
        return lambda first, last: generator.paint_styles(w[first:last])
    if truncation != 1:
        _ = generator.style_net  # says so where there is none
    from impasto.gan.recipe import latents

    z = latents(options.pictures, generator.net.latent, options.seed)
    return lambda first, last: generator.paint(z[first:last], truncation=truncation)


def _finish(
    options: SampleOptions, style: "Picture | None", device: str, reporter: Reporter
) -> Callable[["Picture"], "Picture"]:
    """What is done to each picture."""
    if style is None:
        return lambda picture: picture
    from impasto.gan.commands_style import repainted

    return lambda picture: repainted(picture, style, options.side, device, options.seed, reporter)


def run_walk(
    run: str,
    out: str,
    seconds: float,
    stops: int,
    seed: int,
    truncation: float,
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
    check_free(Path(out), overwrite)
    from PIL import Image

    from impasto.gan.generator import Generator
    from impasto.gan.sheets import tiles

    generator = Generator.load(run, device=device_of(device))
    count = max(2, round(seconds * WALK_RATE))
    factor = max(1, WALK_SIDE // generator.side)
    side = generator.side * factor
    frames = []
    with Reporter(quiet) as reporter:
        tell_notes(generator, reporter)
        reporter.begin("painting")
        walk = generator.walk(count, stops=stops, seed=seed, truncation=truncation)
        for number, x in enumerate(walk, 1):
            image = Image.fromarray(tiles(x)[0])
            frames.append(image.resize((side, side), Image.Resampling.BICUBIC))
            reporter.show(number / count, f"{number} of {count}")
        write_frames(out, frames, [1000 // WALK_RATE] * count)
        reporter.result(Path(out), "")
    return DONE


def run_judge(run: str, images: Sequence[str], device: str, megapixels: float | None) -> int:
    """`impasto gan judge`: the discriminator's probability that a picture is real."""
    import torch

    from impasto.gan.generator import load_run
    from impasto.pyramid import cover
    from impasto.sources import find_photos

    found = load_run(run)
    target = device_of(device)
    net = found.discriminator().to(target)
    side = found.settings.size
    limit = make_gan_settings({"max_megapixels": megapixels or 0.0}).max_pixels
    failed = False
    with Reporter() as reporter:
        for note in found.notes:
            reporter.say(note)
        for source in find_photos(images, missing_too=len(images) > 1):
            try:
                x = cover(source.open(max_pixels=limit).over_white().tensor(), (side, side))
            except ImpastoError as error:
                reporter.error(error)
                failed = True
                continue
            with torch.inference_mode():
                logit = net((x * 2 - 1).to(target))
            if found.settings.loss == "bce":
                told = f"{logit.sigmoid().item():.3f}"
            else:
                told = (
                    f"{logit.item():+.3f} (a score of --loss {found.settings.loss}, no probability)"
                )
            reporter.result(Path(source.text), told)
    return FAILED if failed else DONE


def run_score(
    run: str,
    folders: Sequence[str],
    count: int,
    seed: int,
    device: str,
    cache: str | None,
    megapixels: float | None,
    quiet: bool,
) -> int:
    """`impasto gan score`."""
    if not 10 <= count <= 10_000:  # the scores hold matrices of count² numbers
        raise SettingsError(f"-n is {count}; it is a number from 10 to 10000")
    from impasto.compute import memory_errors
    from impasto.gan.cache import reference_squares
    from impasto.gan.generator import Generator
    from impasto.gan.scores import Judge

    generator = Generator.load(run, device=device_of(device))
    with Reporter(quiet) as reporter, memory_errors(f"the scores of {count} pictures"):
        tell_notes(generator, reporter)
        reporter.begin("scoring")
        reporter.show(0.0, "reading")
        crops, painting = reference_squares(
            folders,
            generator.side,
            ScoreSettings().real,
            cache=Path(cache) if cache else None,
            max_pixels=make_gan_settings({"max_megapixels": megapixels or 0.0}).max_pixels,
        )
        reporter.show(0.3, "looking at real pictures")
        judge = Judge(crops, painting)
        reporter.show(0.6, f"painting {count} pictures")
        scores = judge.score(generator.sample(count, seed=seed), seed=seed)
    sys.stdout.write(
        f"KID {scores.kid:.4f} ({scores.kid_low:.4f} to {scores.kid_high:.4f}), "
        f"density {scores.density:.3f}, coverage {scores.coverage:.3f}\n"
        f"{scores.generated} generated beside {scores.real} crops of {scores.paintings} paintings; "
        f"{scores.spec.describe()}\n"
    )
    return DONE


def run_export(run: str, out: str, newest: bool, half: bool, overwrite: bool, quiet: bool) -> int:
    """`impasto gan export`."""
    if Path(out).suffix != ".safetensors":
        raise SettingsError(f"{out} has to end in .safetensors")
    if not Path(run).is_dir():
        raise RunError(f"{run} is no folder of a run")
    check_free(Path(out), overwrite)
    from impasto.gan.generator import Generator

    with Reporter(quiet) as reporter:
        generator = Generator.load(run, best=not newest)
        tell_notes(generator, reporter)
        generator.export(out, half=half)
        reporter.result(Path(out), "")
    return DONE


def tell_notes(generator: "Generator", reporter: Reporter) -> None:
    """Says what a user should know of a generator's file."""
    for note in generator.notes:
        reporter.say(note)


def device_of(name: str) -> Any:
    """The device of this name."""
    from impasto.compute import choose_device

    if name not in ("auto", "cpu", "cuda", "mps"):
        raise SettingsError(f"device is {name!r}; it can be auto, cpu, cuda, mps")
    return choose_device(name)  # type: ignore[arg-type]


def check_free(path: Path, overwrite: bool) -> None:
    """That a file may be written, before the work."""
    if not path.parent.is_dir():
        raise ImpastoError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    if path.exists() and not overwrite:
        raise ImpastoError(f"{path} is there already; --overwrite replaces it")


def _record(generator: "Generator", options: SampleOptions, number: int | None = None) -> str:
    """What made a generated picture, as JSON."""
    from impasto.gan.commands_style import record_of

    made: dict[str, Any] = {"job": "gan sample", "seed": options.seed}
    if number is not None:
        made["number"] = number
    if options.truncation != 1:
        made["truncation"] = options.truncation
    if options.latent is not None:
        made["latent"] = Path(options.latent).name
    if options.repaint is not None:
        made |= {"repaint": Path(options.repaint).name, "size": options.side}
    return record_of(generator, **made)
