"""`reconstruct`: a picture from what a layer has kept of it (Mahendran & Vedaldi 2015).

The content half of Gatys et al. 2016 on its own (their figure 1): shallow layers give the picture
back almost pixel by pixel, deep ones its objects in free arrangement. Several layers make one
sheet.
"""

import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any, Unpack

from torch import Tensor

from impasto.compute import memory_errors
from impasto.images import Picture
from impasto.inputs import PictureLike, as_picture
from impasto.jobs.run import Bench, Job, Start, opened_init, run
from impasto.objectives import ContentTerm, make_objective
from impasto.options import ReconstructOptions
from impasto.progress import OnProgress, Progress, Result, drive
from impasto.pyramid import cover, resample_picture, shrink, working_size
from impasto.records import describe_input, make_record
from impasto.settings import ReconstructSettings, make_settings
from impasto.sheet import contact_sheet

__all__ = ["iter_reconstruct", "reconstruct"]


def iter_reconstruct(
    image: PictureLike, **options: Unpack[ReconstructOptions]
) -> Generator[Progress, None, Result]:
    """As `reconstruct`, step by step: yields a `Progress` after every step, returns the `Result`.

    The steps of all layers count on: layer 2 of 5 begins after the steps of layer 1.
    """
    with memory_errors("this picture"):
        return (yield from _look(as_picture(image), options))


def _look(picture: Picture, options: ReconstructOptions) -> Generator[Progress, None, Result]:
    begun = opened_init("reconstruct", options.get("init", "noise"))
    if begun:
        options["init"] = describe_input("init", begun)["name"] or "picture"
    settings = make_settings(ReconstructSettings, options)
    bench = Bench(settings)
    bench.encoder.check_layers(settings.layers)
    inputs = [describe_input("content", picture)]
    if begun:
        inputs.append(describe_input("init", begun))
    encoder = (bench.encoder.name, bench.encoder.sha256)
    record = make_record("reconstruct", settings.record(), inputs, encoder)

    finest = working_size(picture.size, None if settings.size == "full" else settings.size)
    target = shrink(picture.over_white(), finest).to(bench.device)
    sheet = len(settings.layers) > 1
    total = len(settings.layers) * settings.steps
    done: list[Result] = []
    entries: list[dict[str, Any]] = []
    began = time.monotonic()

    start = Start(cover(begun.tensor(), finest) if begun else None, bench)

    def finish(x: Tensor) -> Picture:
        return Picture.from_tensor(resample_picture(x, finest if sheet else picture.size))

    def gather(last: Result, before: int, steps: int) -> Result:
        """The result so far: one picture, or a sheet of the layers before and the one at hand."""
        if not sheet:
            return replace(last, image=Picture(last.image.pixels, picture.alpha, picture.exif))
        results = [*done[:before], last]
        captions = list(settings.layers[: len(results)])
        return Result(
            contact_sheet([[result.image for result in results]], columns=captions),
            last.settings | {"steps": steps},
            entries[:steps],
            last.partial or len(results) < len(settings.layers),
        )

    for number, layer in enumerate(settings.layers):
        levels = bench.levels(
            finest,
            lambda encoder, size, layer=layer: make_objective(  # type: ignore[misc]
                encoder,
                size,
                content=ContentTerm(target, {layer: 1.0}, 1.0),
                settings=settings,
            ),
        )
        job = run(Job("reconstruct", bench, levels, start, finish, record))
        while True:
            try:
                progress = next(job)
            except StopIteration as stop:
                result: Result = stop.value
                break
            seconds = time.monotonic() - began
            step = progress.step + number * settings.steps
            told = replace(progress, step=step, seconds=seconds, layer=layer if sheet else None)
            entries.append(told.record())
            yield replace(
                told,
                steps=total,
                done=(progress.done + number) / len(settings.layers),
                _result=lambda progress=progress, number=number, step=step: gather(  # type: ignore[misc]
                    progress.result(), number, step
                ),
            )
        if number == len(settings.layers) - 1:
            return gather(result, number, total)
        done.append(result)
    raise AssertionError("there is at least one layer")


def reconstruct(
    image: PictureLike,
    *,
    on_progress: OnProgress | None = None,
    **options: Unpack[ReconstructOptions],
) -> Result:
    """Finds a picture with the same features as a given one, from noise.

    Args:
        image: the picture.
        on_progress: called after every step.
        **options: the attributes of `impasto.settings.ReconstructSettings`.

    Returns:
        For one layer, a result whose image has exactly the picture's size. For several, a labelled
        sheet of them at the working size.

    Raises:
        ImpastoError: a picture, an option or a file is not as it should be.
    """
    return drive(iter_reconstruct(image, **options), on_progress)
