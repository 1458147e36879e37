"""What `impasto gan mix`, `project` and `sample --repaint` do with their arguments."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from impasto.desk import DONE, INTERRUPTED
from impasto.errors import ImpastoError, SettingsError
from impasto.gan.commands_paint import check_free, device_of, tell_notes
from impasto.images import check_output_path, save_image
from impasto.terminal import Reporter

if TYPE_CHECKING:
    from torch import Tensor

    from impasto.gan.generator import Generator
    from impasto.images import Picture

__all__ = ["read_styles", "repainted", "run_mix", "run_project"]

LATENT: Final = re.compile(r"\d{1,18}", re.ASCII)
"""What is a seed and not a picture."""


def run_mix(
    run: str,
    one: str,
    other: str,
    out: str,
    at: int | None,
    truncation: float,
    device: str,
    overwrite: bool,
    quiet: bool,
) -> int:
    """`impasto gan mix`."""
    check_output_path(out)
    check_free(Path(out), overwrite)
    for text in (one, other):
        _check_latent(text)
    if at is not None and (at < 8 or at & (at - 1)):
        raise SettingsError(f"--at is {at}; it is 8, 16, 32 or another power of two, in px")
    from impasto.gan.generator import Generator
    from impasto.gan.sheets import grid, tiles
    from impasto.images import Picture

    with Reporter(quiet) as reporter:
        generator = Generator.load(run, device=device_of(device))
        tell_notes(generator, reporter)
        net = generator.style_net
        if at is not None and at > net.side:
            raise SettingsError(f"--at is {at}, but the pictures have {net.side} px")
        a, b = (_styles(generator, text, truncation) for text in (one, other))
        places = net.sides[1:] if at is None else [at]
        mixed = [generator.mix(a, b, side) for side in places]
        shown = mixed if at else [b, *mixed, a]
        import torch

        painted = tiles(generator.paint_styles(torch.cat(shown)))
        picture = Picture(painted[0]) if at else grid(painted, len(painted))
        made: dict[str, Any] = {"job": "gan mix", "mixed": [one, other], "at": places}
        if at:
            made["styles"] = _packed(mixed[0])
        save_image(picture, out, record=record_of(generator, **made))
        reporter.result(Path(out), "" if at else f"{one} gives more and more, from {other} on")
    return DONE


def run_project(
    run: str,
    image: str,
    out: str,
    steps: int,
    seed: int,
    device: str,
    megapixels: float | None,
    overwrite: bool,
    quiet: bool,
) -> int:
    """`impasto gan project`."""
    check_output_path(out)
    check_free(Path(out), overwrite)
    from impasto.gan.settings import make_gan_settings
    from impasto.sources import resolve

    limit = make_gan_settings({"max_megapixels": megapixels or 0.0}).max_pixels
    source = resolve(image)
    from impasto.gan.generator import Generator
    from impasto.gan.project import ProjectSettings, project
    from impasto.gan.sheets import tiles
    from impasto.images import Picture
    from impasto.pyramid import cover

    settings = ProjectSettings(steps=steps, seed=seed)
    with Reporter(quiet) as reporter:
        generator = Generator.load(run, device=device_of(device))
        tell_notes(generator, reporter)
        side = generator.style_net.side
        photo = source.open(max_pixels=limit)
        x = cover(photo.over_white().tensor(), (side, side))
        reporter.begin("looking for it")
        found, code = None, DONE
        try:
            for found in project(generator, x, settings):
                reporter.show(found.step / found.steps, f"{found.step} of {found.steps}")
        except KeyboardInterrupt:  # the best so far is written
            reporter.end()
            code = INTERRUPTED
        if found is None:
            return code
        picture = Picture(tiles(generator.paint_styles(found.styles))[0])
        made = {"job": "gan project", "styles": _packed(found.styles), "steps": steps, "seed": seed}
        if found.step < steps:
            made["step"] = found.step
        save_image(picture, out, record=record_of(generator, **made))
        reporter.result(Path(out), f"unlike by {found.loss:.2f} (0 is the picture itself)")
    return code


def read_styles(path: Path, generator: "Generator", truncation: float = 1.0) -> "Tensor":
    """The styles `(1, n, latent)` in the record of a picture by `gan project` or `gan mix --at`.

    Args:
        path: of the picture.
        generator: the one that painted it.
        truncation: how far from the mean; 1 leaves them as they are.

    Raises:
        ImpastoError: there are none, or they are another generator's.
    """
    from impasto.gan.project import unpack_styles
    from impasto.records import read_settings

    if not path.is_file():
        raise ImpastoError(f"cannot read {path}: no such file")
    record = read_settings(path) or {}
    if "styles" not in record:
        raise ImpastoError(
            f"{path} has no latent in it; give one that gan project or gan mix --at has made"
        )
    styles = unpack_styles(record["styles"])
    net = generator.style_net
    if styles.shape[1:] != (net.styles, net.latent) or record.get("weights") != generator.digest:
        raise ImpastoError(f"the latent in {path} is of another generator")
    return net.mapping.truncated(styles.to(generator.device), truncation).cpu()


def repainted(
    picture: "Picture", style: "Picture", size: int, device: str, seed: int, reporter: Reporter
) -> "Picture":
    """A small picture enlarged, with the strokes of a painting.

    It is enlarged smoothly and then repainted as a photo is, at its full size: the content keeps
    what is where, and the texture, which the generator cannot give, comes from the painting.

    Args:
        picture: what was generated.
        style: the painting.
        size: the long side, px.
        device: where to compute.
        seed: of random draws.
        reporter: is told how it goes.
    """
    from impasto.images import Picture
    from impasto.jobs.transfer import iter_transfer
    from impasto.pyramid import resample_picture

    x = resample_picture(picture.tensor(), (size, size))
    options: Any = {"size": size, "strength": 0.6, "seed": seed, "device": device}
    work = iter_transfer(Picture.from_tensor(x), style, **options)
    while True:
        try:
            step = next(work)
        except StopIteration as end:
            return Picture(end.value.image.pixels)
        reporter(step)


def record_of(generator: "Generator", **made: Any) -> str:
    """What made a picture, as JSON."""
    from impasto.records import RECORD_VERSION, versions

    told = {"generator": generator.card, "weights": generator.digest, "versions": versions()}
    return json.dumps({"record": RECORD_VERSION, **made, **told})


def _packed(styles: "Tensor") -> dict[str, Any]:
    from impasto.gan.project import pack_styles

    return pack_styles(styles)


def _check_latent(text: str) -> None:
    """That this is a seed, or a file."""
    if not LATENT.fullmatch(text) and not Path(text).is_file():
        raise SettingsError(
            f"{text} is neither a seed nor a picture; give a number, or what gan project made"
        )


def _styles(generator: "Generator", text: str, truncation: float) -> "Tensor":
    """The styles of a seed, or of a picture's record: `(1, n, latent)`."""
    from impasto.gan.recipe import latents

    if LATENT.fullmatch(text):
        z = latents(1, generator.net.latent, int(text))
        return generator.styles(z, truncation=truncation)
    return read_styles(Path(text), generator, truncation)
