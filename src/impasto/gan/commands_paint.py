"""What `impasto gan` does with a trained run: paint, film, judge, score, export."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from impasto.batch import is_folder
from impasto.desk import DONE, FAILED
from impasto.errors import ImpastoError, RunError, SettingsError
from impasto.gan.settings import ScoreSettings, make_gan_settings
from impasto.images import check_output_path, save_image
from impasto.terminal import Reporter

if TYPE_CHECKING:
    from impasto.gan.generator import Generator

__all__ = ["run_export", "run_judge", "run_sample", "run_score", "run_walk"]

WALK_RATE: Final = 20
"""Frames a second of a walk."""

WALK_SIDE: Final = 256
"""Small pictures are enlarged to this for a film, px."""


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
    from impasto.compute import memory_errors
    from impasto.gan.generator import Generator
    from impasto.gan.recipe import latents
    from impasto.gan.sheets import grid, tiles
    from impasto.images import Picture

    generator = Generator.load(run, device=_device(device))
    z = latents(count, generator.net.latent, seed)
    with Reporter(quiet) as reporter, memory_errors("so many pictures; write them to a folder"):
        _tell_notes(generator, reporter)
        reporter.begin("painting")
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
            reporter.show((i + 1) / count, f"{i + 1} of {count}")
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
    with Reporter(quiet) as reporter:
        _tell_notes(generator, reporter)
        reporter.begin("painting")
        for number, x in enumerate(generator.walk(count, stops=stops, seed=seed), 1):
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
    target = _device(device)
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

    generator = Generator.load(run, device=_device(device))
    with Reporter(quiet) as reporter, memory_errors(f"the scores of {count} pictures"):
        _tell_notes(generator, reporter)
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


def run_export(run: str, out: str, newest: bool, overwrite: bool, quiet: bool) -> int:
    """`impasto gan export`."""
    if Path(out).suffix != ".safetensors":
        raise SettingsError(f"{out} has to end in .safetensors")
    if not Path(run).is_dir():
        raise RunError(f"{run} is no folder of a run")
    _free(Path(out), overwrite)
    from impasto.gan.generator import Generator

    with Reporter(quiet) as reporter:
        generator = Generator.load(run, best=not newest)
        _tell_notes(generator, reporter)
        generator.export(out)
        reporter.result(Path(out), "")
    return DONE


def _tell_notes(generator: "Generator", reporter: Reporter) -> None:
    for note in generator.notes:
        reporter.say(note)


def _device(name: str) -> Any:
    from impasto.compute import choose_device

    if name not in ("auto", "cpu", "cuda", "mps"):
        raise SettingsError(f"device is {name!r}; it can be auto, cpu, cuda, mps")
    return choose_device(name)  # type: ignore[arg-type]


def _free(path: Path, overwrite: bool) -> None:
    """That a file may be written, before the work."""
    if not path.parent.is_dir():
        raise ImpastoError(f"cannot write {path}: there is no folder {path.parent}; make it first")
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
