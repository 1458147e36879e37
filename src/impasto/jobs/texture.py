"""`texture`: new texture from a style alone (Gatys et al. 2015, "Texture Synthesis Using CNNs")."""

from collections.abc import Generator, Sequence
from typing import Unpack

from torch import Tensor

from impasto.compute import memory_errors
from impasto.errors import SettingsError
from impasto.images import Picture
from impasto.inputs import OpenStyle, StyleLike, as_styles
from impasto.jobs.run import Bench, Job, Start, opened_init, run
from impasto.objectives import Region, Styles, StyleTerm, make_objective
from impasto.options import TextureOptions
from impasto.progress import OnProgress, Progress, Result, drive
from impasto.pyramid import cover, resample_picture, working_size
from impasto.records import describe_input, make_record
from impasto.settings import TextureSettings, make_settings

__all__ = ["iter_texture", "texture"]


def iter_texture(
    style: StyleLike | Sequence[StyleLike], **options: Unpack[TextureOptions]
) -> Generator[Progress, None, Result]:
    """As `texture`, step by step: yields a `Progress` after every step, returns the `Result`."""
    with memory_errors("this texture"):
        return (yield from _paint(as_styles(style), options))


def _paint(given: list[OpenStyle], options: TextureOptions) -> Generator[Progress, None, Result]:
    begun = opened_init("texture", options.get("init", "noise"))
    if begun:
        options["init"] = describe_input("init", begun)["name"] or "picture"
    if any(each.mask or each.regions for each in given):
        raise SettingsError("a texture is of one piece; leave its masks out")
    settings = make_settings(TextureSettings, options)
    bench = Bench(settings)
    bench.encoder.check_layers(settings.style_layers)
    inputs = [describe_input("style", each.picture, weight=each.weight) for each in given]
    if begun:
        inputs.append(describe_input("init", begun))

    styles = Styles(
        [each.picture.over_white().tensor() for each in given],
        [each.weight for each in given],
        scale=settings.style_scale,
    )
    finest = working_size(settings.out_size, None)
    levels = bench.levels(
        finest,
        lambda encoder, size: make_objective(
            encoder,
            size,
            style=StyleTerm([Region(styles)], settings.style_layers, settings.style_weight, finest),
            settings=settings,
        ),
    )

    first = begun.tensor() if begun else styles.pictures[0] if settings.init == "style" else None
    start = Start(None if first is None else cover(first, finest), bench)

    def finish(painted: Tensor) -> Picture:
        return Picture.from_tensor(resample_picture(painted, settings.out_size))

    encoder = (bench.encoder.name, bench.encoder.sha256)
    record = make_record("texture", settings.record(), inputs, encoder)
    return (yield from run(Job("texture", bench, levels, start, finish, record)))


def texture(
    style: StyleLike | Sequence[StyleLike],
    *,
    on_progress: OnProgress | None = None,
    **options: Unpack[TextureOptions],
) -> Result:
    """Paints a texture that has a style's Gram matrices, from noise.

    Args:
        style: the painting, or several, each alone or as `(picture, weight)`.
        on_progress: called after every step.
        **options: the attributes of `impasto.settings.TextureSettings`.

    Returns:
        A result whose image has exactly the size `out_size`.

    Raises:
        ImpastoError: a picture, an option or a file is not as it should be.
    """
    return drive(iter_texture(style, **options), on_progress)
