"""`transfer`: a photo's content in the style of one or more paintings (Gatys et al. 2016)."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impasto.composition import Composition, Layout
from impasto.compute import memory_errors
from impasto.errors import SettingsError
from impasto.images import Picture
from impasto.inputs import OpenStyle, PictureLike, StyleLike, as_picture, as_styles
from impasto.jobs.fast import FastMethod
from impasto.jobs.run import Bench, Job, Start, opened_init, run
from impasto.objectives import ContentTerm, StyleTerm, make_objective
from impasto.options import TransferOptions
from impasto.progress import OnProgress, Progress, Result, drive
from impasto.pyramid import Size, cover, resample_picture, working_size
from impasto.records import Network, describe_input, make_record
from impasto.settings import TransferSettings, make_settings
from impasto.upsample import guided_upsample

__all__ = ["Painter", "iter_transfer", "transfer"]


class Painter:
    """Styles, network and settings, set up once for any number of photos.

    Args:
        style: one or several; see `transfer`.
        coarse_from, protect, regions: as for `transfer`.
        **options: as for `transfer`.
    """

    def __init__(
        self,
        style: StyleLike | Sequence[StyleLike],
        *,
        coarse_from: StyleLike | Sequence[StyleLike] = (),
        protect: PictureLike | None = None,
        regions: PictureLike | None = None,
        **options: Unpack[TransferOptions],
    ) -> None:
        with memory_errors("these styles"):
            coarse = as_styles(coarse_from) if not _none(coarse_from) else []
            if any(each.mask or each.regions for each in coarse):
                raise SettingsError(
                    "the coarse strokes are for the whole photo; leave their mask out"
                )
            self._set_up(
                as_styles(style),
                coarse,
                None if protect is None else as_picture(protect),
                None if regions is None else as_picture(regions),
                options,
            )

    def _set_up(
        self,
        styles: list[OpenStyle],
        coarse: list[OpenStyle],
        protect: Picture | None,
        regions: Picture | None,
        options: TransferOptions,
    ) -> None:
        init = opened_init("transfer", options.get("init", TransferSettings.init))
        if init:
            options["init"] = describe_input("init", init)["name"] or "picture"
        self.settings = make_settings(TransferSettings, options)
        self._inputs = _described(styles, coarse, protect, regions)
        if init:
            self._inputs.append(describe_input("init", init))
        self._composition = Composition(
            styles,
            colors=self.settings.colors,
            scale=self.settings.style_scale,
            coarse=coarse,
            protect=protect,
            regions=regions,
        )
        self._method: FastMethod | _Optimizer
        if self.settings.method == "fast":
            self._method = FastMethod(self.settings, self.settings.encoder)
        else:
            self._method = _Optimizer(self.settings, init, self._composition)

    @property
    def networks(self) -> tuple[Network, Network | None]:
        """That which paints or looks, and that which paints the start, if one does."""
        return self._method.network, self._method.start_network

    def request(self, photo: Picture) -> dict[str, Any]:
        """The record of painting this photo, as far as it is known before the work."""
        inputs = [describe_input("content", photo), *self._inputs]
        return make_record("transfer", self.settings.record(), inputs, *self.networks)

    def working_size(self, photo: Picture) -> Size:
        """(W, H) at which this photo is worked on, px."""
        size = self.settings.size
        return working_size(photo.size, None if size == "full" else size)

    def iter(self, content: PictureLike) -> Generator[Progress, None, Result]:
        """Paints a photo; yields its progress and returns its result."""
        with memory_errors("this photo"):
            return (yield from self._paint(as_picture(content)))

    def _paint(self, photo: Picture) -> Generator[Progress, None, Result]:
        if self.settings.weights[1] == 0 and self.settings.strength is not None:
            return self._unchanged(photo)
        layout = self._composition.layout(photo, self.working_size(photo))
        finish = _Finish(photo, layout)
        return (yield from self._method.paint(layout, finish, self.request(photo)))

    def _unchanged(self, photo: Picture) -> Result:
        """The photo itself: what no strength at all comes to."""
        record = self.request(photo) | {
            "status": "complete",
            "working_size": list(photo.size),
            **self._method.bench(),
            "steps": 0,
            "loss": None,
        }
        return Result(photo, record, [])


@dataclass(frozen=True)
class _Finish:
    """What is done to a painting of the working size, so that it is what the user gets."""

    photo: Picture
    layout: Layout

    def __call__(self, painted: Tensor | NDArray[np.uint8]) -> Picture:
        """Brings a tensor, `(1, 3, h, w)`, or pixels, `(h, w, 3)`, to the photo's size and form."""
        photo, layout = self.photo, self.layout
        if isinstance(painted, Tensor) or layout.size != photo.size:
            x = painted if isinstance(painted, Tensor) else Picture(painted).tensor()
            painted = guided_upsample(resample_picture(x, layout.size), photo.pixels)
        pixels = layout.finish(painted)
        return Picture(pixels, photo.alpha, photo.exif)  # no longer the file that it came from


class _Optimizer:
    """The optimiser, set up once for any number of photos.

    Attributes:
        network: the name and the SHA-256 of the network that looks.
        start_network: the same of the one that paints the start; None if no network does.

    Args:
        settings: what was asked.
        init: the picture to start from, if it is one of its own.
        composition: whose first style may be the start.
    """

    def __init__(
        self, settings: TransferSettings, init: Picture | None, composition: Composition
    ) -> None:
        self.settings, self._init, self._composition = settings, init, composition
        self._bench = Bench(settings)
        encoder = self._bench.encoder
        encoder.check_layers([*settings.content_layers, *settings.style_layers])
        self.network = (encoder.name, encoder.sha256)
        own = init is None and settings.init == "fast"
        self._beginner = FastMethod(settings, "fast") if own else None
        self.start_network = self._beginner.network if self._beginner else None

    def bench(self) -> dict[str, Any]:
        """What a record says of where it was painted."""
        return self._bench.record(self.settings.threads or torch.get_num_threads())

    def paint(
        self,
        layout: Layout,
        finish: Callable[[Tensor], Picture],
        record: dict[str, Any],
    ) -> Generator[Progress, None, Result]:
        """Paints what was laid out; yields its progress and returns its result.

        Args:
            layout: the photo and its parts.
            finish: brings the tensor to the size and form that the user gets.
            record: the settings record so far.
        """
        size = layout.size
        keep, take = self.settings.weights
        content = layout.content.to(self._bench.device)
        kept = ContentTerm(content, self.settings.content_layers, keep)
        taken = StyleTerm(layout.regions, self.settings.style_layers, take, size)
        levels = self._bench.levels(
            size,
            lambda encoder, level: make_objective(
                encoder,
                level,
                content=kept,
                style=taken,
                settings=self.settings,
                smoothing=self.settings.smoothing,
            ),
        )
        start = Start(self._begin(layout, kept.photo), self._bench)
        job = Job("transfer", self._bench, levels, start, finish, record, layout.notes)
        return (yield from run(job))

    def _begin(self, layout: Layout, photo: Tensor) -> Tensor | None:
        """The picture to start from, at the finest size; None for noise."""
        size = layout.size
        if self._init is not None:
            return cover(self._init.tensor(), size)
        if self._beginner:
            return self._beginner.picture(layout)
        match self.settings.init:
            case "noise":
                return None
            case "style":
                return cover(self._composition.first, size)
            case _:
                return photo


def _none(given: StyleLike | Sequence[StyleLike]) -> bool:
    """Whether these are no styles at all."""
    return isinstance(given, list | tuple) and not given


def _described(
    styles: Sequence[OpenStyle],
    coarse: Sequence[OpenStyle],
    protect: Picture | None,
    regions: Picture | None,
) -> list[dict[str, Any]]:
    """What a record says of all that has to do with styles; `of` is the place of a mask's style."""
    described = [describe_input("style", style.picture, weight=style.weight) for style in styles]
    for number, style in enumerate(styles):
        for role, drawing in (("mask", style.mask), ("style-regions", style.regions)):
            if drawing:
                described.append(describe_input(role, drawing, of=number))
    described += [describe_input("coarse", each.picture, weight=each.weight) for each in coarse]
    for role, drawing in (("protect", protect), ("regions", regions)):
        if drawing:
            described.append(describe_input(role, drawing))
    return described


def iter_transfer(
    content: PictureLike,
    style: StyleLike | Sequence[StyleLike],
    *,
    coarse_from: StyleLike | Sequence[StyleLike] = (),
    protect: PictureLike | None = None,
    regions: PictureLike | None = None,
    **options: Unpack[TransferOptions],
) -> Generator[Progress, None, Result]:
    """As `transfer`, step by step: yields a `Progress` after every step, returns the `Result`."""
    painter = Painter(style, coarse_from=coarse_from, protect=protect, regions=regions, **options)
    return (yield from painter.iter(content))


def transfer(
    content: PictureLike,
    style: StyleLike | Sequence[StyleLike],
    *,
    coarse_from: StyleLike | Sequence[StyleLike] = (),
    protect: PictureLike | None = None,
    regions: PictureLike | None = None,
    on_progress: OnProgress | None = None,
    **options: Unpack[TransferOptions],
) -> Result:
    """Repaints a photo in the style of a painting.

    Pictures may be paths, `sample:NAME`, `Picture`s, Pillow images, or float tensors
    `(1, 3, H, W)`, sRGB in [0, 1].

    Args:
        content: the photo.
        style: the painting, or several, each alone, as `(picture, weight)`, or as a `Style`, which
            may have a mask: what is light in it is painted in this style.
        coarse_from: a painting, or several, that the coarse strokes are taken from; fine texture
            and colour stay those of `style`.
        protect: a mask: what is light in it stays as it is in the photo, with a soft edge outside.
        regions: instead of masks, a map of the photo in flat colours; every style has a map of its
            own in the same ones, and is painted where they agree.
        on_progress: called after every step.
        **options: the attributes of `impasto.settings.TransferSettings`, which has their
            meanings, units and defaults.

    Returns:
        A result whose image has exactly the photo's size, and its transparency.

    Raises:
        ImpastoError: a picture, an option or a file is not as it should be; the message says
            what to do.
    """
    steps = iter_transfer(
        content, style, coarse_from=coarse_from, protect=protect, regions=regions, **options
    )
    return drive(steps, on_progress)
