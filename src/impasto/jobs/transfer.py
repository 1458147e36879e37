"""`transfer`: a photo's content in the style of one or more paintings (Gatys et al. 2016)."""

from collections.abc import Generator, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from impasto.compute import memory_errors
from impasto.images import Picture
from impasto.inputs import PictureLike, StyleLike, as_picture, as_styles
from impasto.jobs.run import Bench, Job, Start, opened_init, run
from impasto.objectives import ContentTerm, Styles, StyleTerm, make_objective
from impasto.options import TransferOptions
from impasto.progress import OnProgress, Progress, Result, drive
from impasto.pyramid import Size, cover, resample_picture, shrink, working_size
from impasto.records import describe_input, make_record
from impasto.settings import TransferSettings, make_settings
from impasto.upsample import guided_upsample

__all__ = ["Painter", "iter_transfer", "transfer"]


class Painter:
    """Styles, network and settings, set up once for any number of photos.

    Args:
        style: one picture, or several, each alone or as `(picture, weight)`.
        **options: as for `transfer`.
    """

    def __init__(
        self,
        style: StyleLike | Sequence[StyleLike],
        **options: Unpack[TransferOptions],
    ) -> None:
        with memory_errors("these styles"):
            self._set_up(as_styles(style), options)

    def _set_up(self, pictures: list[tuple[Picture, float]], options: TransferOptions) -> None:
        self._init = opened_init(options.get("init", "content"), ("content", "noise", "style"))
        if self._init:
            options["init"] = describe_input("init", self._init)["name"] or "picture"
        self.settings = make_settings(TransferSettings, options)
        self.bench = Bench(self.settings)
        self.bench.encoder.check_layers(
            [*self.settings.content_layers, *self.settings.style_layers]
        )
        self._inputs = [
            describe_input("style", picture, weight=weight) for picture, weight in pictures
        ]
        if self._init:
            self._inputs.append(describe_input("init", self._init))
        self._styles = Styles(
            [picture.over_white().tensor() for picture, _ in pictures],
            [weight for _, weight in pictures],
        )

    def request(self, photo: Picture) -> dict[str, Any]:
        """The record of painting this photo, as far as it is known before the work."""
        inputs = [describe_input("content", photo), *self._inputs]
        encoder = self.bench.encoder
        return make_record(
            "transfer", self.settings.record(), inputs, (encoder.name, encoder.sha256)
        )

    def working_size(self, photo: Picture) -> Size:
        """(W, H) at which this photo is worked on, px."""
        size = self.settings.size
        return working_size(photo.size, None if size == "full" else size)

    def iter(self, content: PictureLike) -> Generator[Progress, None, Result]:
        """Paints a photo; yields its progress and returns its result."""
        with memory_errors("this photo"):
            return (yield from self._paint(as_picture(content)))

    def _paint(self, photo: Picture) -> Generator[Progress, None, Result]:
        keep, take = self.settings.weights
        if take == 0 and self.settings.strength is not None:
            return self._unchanged(photo)
        finest = self.working_size(photo)
        small = shrink(photo.over_white(), finest)
        kept = ContentTerm(small.to(self.bench.device), self.settings.content_layers, keep)
        taken = StyleTerm(self._styles, self.settings.style_layers, take, finest)
        levels = self.bench.levels(
            finest,
            lambda encoder, size: make_objective(
                encoder,
                size,
                content=kept,
                style=taken,
                settings=self.settings,
                smoothing=self.settings.smoothing,
            ),
        )

        def finish(painted: Tensor) -> Picture:
            painted = resample_picture(painted, finest)
            pixels = guided_upsample(painted, photo.pixels)
            return Picture(pixels, photo.alpha, photo.exif)  # no longer the file that it came from

        start = Start(self._begin(finest, kept.photo), self.bench)
        job = Job("transfer", self.bench, levels, start, finish, self.request(photo))
        return (yield from run(job))

    def _begin(self, size: Size, photo: Tensor) -> Tensor | None:
        """The picture to start from, at the finest size; None for noise."""
        if self._init is not None:
            return cover(self._init.tensor(), size)
        match self.settings.init:
            case "noise":
                return None
            case "style":
                return cover(self._styles.pictures[0], size)
            case _:
                return photo

    def _unchanged(self, photo: Picture) -> Result:
        """The photo itself: what no strength at all comes to."""
        record = self.request(photo) | {
            "status": "complete",
            "working_size": list(photo.size),
            **self.bench.record(self.settings.threads or torch.get_num_threads()),
            "steps": 0,
            "loss": None,
        }
        return Result(photo, record, [])


def iter_transfer(
    content: PictureLike,
    style: StyleLike | Sequence[StyleLike],
    **options: Unpack[TransferOptions],
) -> Generator[Progress, None, Result]:
    """As `transfer`, step by step: yields a `Progress` after every step, returns the `Result`."""
    return (yield from Painter(style, **options).iter(content))


def transfer(
    content: PictureLike,
    style: StyleLike | Sequence[StyleLike],
    *,
    on_progress: OnProgress | None = None,
    **options: Unpack[TransferOptions],
) -> Result:
    """Repaints a photo in the style of a painting.

    Pictures may be paths, `sample:NAME`, `Picture`s, Pillow images, or float tensors
    `(1, 3, H, W)`, sRGB in [0, 1].

    Args:
        content: the photo.
        style: the painting, or several, each alone or as `(picture, weight)`.
        on_progress: called after every step.
        **options: the attributes of `impasto.settings.TransferSettings`, which has their
            meanings, units and defaults.

    Returns:
        A result whose image has exactly the photo's size, and its transparency.

    Raises:
        ImpastoError: a picture, an option or a file is not as it should be; the message says
            what to do.
    """
    return drive(iter_transfer(content, style, **options), on_progress)
