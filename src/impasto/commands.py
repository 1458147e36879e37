"""What the commands do with their arguments: check, run, report, save.

Everything that can be found wrong without torch is found before it is imported.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from impasto.animation import Animation
from impasto.batch import Task, check_output, is_folder, plan, verdict
from impasto.desk import (
    DONE,
    FAILED,
    INIT_WORDS,
    INTERRUPTED,
    Desk,
    Job,
    Options,
    check_replaceable,
)
from impasto.errors import ImpastoError, SettingsError
from impasto.images import Picture, save_image
from impasto.presets import PRESETS
from impasto.settings import (
    ReconstructSettings,
    Settings,
    TextureSettings,
    TransferSettings,
    make_settings,
)
from impasto.sources import Source, StyleSource, find_photos, parse_style, resolve

if TYPE_CHECKING:
    from impasto.cli import Common
    from impasto.jobs.transfer import Painter

__all__ = ["Extras", "run_recolor", "run_reconstruct", "run_redo", "run_texture", "run_transfer"]


class Extras(NamedTuple):
    """What `transfer` may be given beside photos and styles, as the user wrote it."""

    coarse_from: Sequence[str] = ()
    protect: str | None = None
    regions: str | None = None
    style_regions: Sequence[str] = ()


def run_transfer(
    photos: Sequence[str],
    styles: Sequence[str] | None,
    extras: Extras,
    out: str,
    form: str | None,
    options: Options,
    common: "Common",
) -> int:
    """`impasto transfer`. Returns the exit code."""
    if not styles:
        if len(photos) != 2:
            raise SettingsError(
                f"without -s give exactly two pictures, photo and style, not {len(photos)}; "
                "or name each style with -s"
            )
        photos, styles = photos[:1], photos[1:]
    settings = make_settings(TransferSettings, options)
    sources = [parse_style(text) for text in styles]
    coarse = [_unmasked(parse_style(text)) for text in extras.coarse_from]
    drawings = _Drawings.of(sources, extras)
    found = find_photos(photos, missing_too=len(photos) > 1)
    several = len(photos) > 1 or any(Path(text).is_dir() for text in photos)
    tasks = plan(found, out, form=form, several=several, frames=settings.method == "fast")
    batch = is_folder(out)
    inputs = [task.photo.path for task in tasks]
    inputs += [style.source.path for style in (*sources, *coarse)]
    inputs += [drawing.path for drawing in drawings.all] + _init_path(options)
    for task in tasks:
        check_output(task.out, inputs, make_folder=batch, animated=task.animated)
        if task.animated:
            _check_moving(task.photo.path, common)
    if settings.method == "fast" and common.plot is not None:
        raise SettingsError("--plot shows losses, and method fast has none; leave it out")
    if not batch:
        check_replaceable(tasks[0].out, common)

    outs = [task.out for task in tasks]
    film = None if batch else _film(settings, outs[0])
    with Desk(common, inputs, outs, film=film, steps=settings.steps) as desk:
        opened = drawings.styles(desk, sources)
        strokes = [(desk.open(style.source), style.weight) for style in coarse]
        protect, regions = (
            desk.open(drawing) if drawing else None
            for drawing in (drawings.protect, drawings.regions)
        )
        options = desk.open_init(options)
        photo = None if batch else _open(desk, tasks[0])  # before torch's long import
        desk.begin("getting ready" if photo is None else f"painting {tasks[0].photo.path.name}")
        from impasto.inputs import Style
        from impasto.jobs.transfer import Painter

        painter = Painter(
            [Style(*parts) for parts in opened],
            coarse_from=strokes,
            protect=protect,
            regions=regions,
            **options,
        )
        if batch:
            _make_folder(Path(out))
        if photo is not None:
            return desk.run(_job(desk, painter, tasks[0], photo))
        return _run_batch(desk, painter, tasks)


def run_texture(styles: Sequence[str], out: str, options: Options, common: "Common") -> int:
    """`impasto texture`. Returns the exit code."""
    settings = make_settings(TextureSettings, options)
    if options.get("init") in ("content", "fast"):
        raise SettingsError("texture has no content; --init can be noise, style or a picture")
    sources = [_unmasked(parse_style(text)) for text in styles]
    inputs = [style.source.path for style in sources] + _init_path(options)
    check_output(Path(out), inputs)
    check_replaceable(Path(out), common)
    film = _film(settings, Path(out))
    with Desk(common, inputs, [Path(out)], film=film, steps=settings.steps) as desk:
        opened = [(desk.open(style.source), style.weight) for style in sources]
        options = desk.open_init(options)
        desk.begin(f"texture of {sources[0].source.path.name}")
        from impasto.jobs.texture import iter_texture

        return desk.run(Job(iter_texture(opened, **options), Path(out)))


def run_reconstruct(image: str, out: str, options: Options, common: "Common") -> int:
    """`impasto reconstruct`. Returns the exit code."""
    settings = make_settings(ReconstructSettings, options)
    if options.get("init") in ("content", "style", "fast"):
        raise SettingsError("reconstruct starts from noise or a picture; write --init noise")
    source = resolve(image)
    inputs = [source.path, *_init_path(options)]
    check_output(Path(out), inputs)
    check_replaceable(Path(out), common)
    steps = settings.steps * len(settings.layers)
    film = _film(settings, Path(out))
    with Desk(common, inputs, [Path(out)], film=film, steps=steps) as desk:
        picture = desk.open(source)
        options = desk.open_init(options)
        desk.begin(f"looking at {source.path.name}")
        from impasto.jobs.reconstruct import iter_reconstruct

        return desk.run(Job(iter_reconstruct(picture, **options), Path(out)))


def run_recolor(photo: str, style: str, out: str, method: str, common: "Common") -> int:
    """`impasto recolor`. Returns the exit code."""
    for flag in ("film", "plot", "save_every", "preview", "json"):
        if getattr(common, flag) is not None:
            raise SettingsError(f"--{flag.replace('_', '-')} shows steps; recolor has none")
    sources = [resolve(photo), resolve(style)]
    inputs = [source.path for source in sources]
    check_output(Path(out), inputs)
    check_replaceable(Path(out), common)
    with Desk(common, inputs, [Path(out)]) as desk:
        source, target = (desk.open(each) for each in sources)
        from impasto.jobs.recolor import describe, recolor

        made = recolor(source, target, method=method)
        record = json.dumps(describe(source, target, method))
        metadata, gps = common.metadata, common.keep_gps
        for note in save_image(made, out, record=record, metadata=metadata, gps=gps):
            desk.reporter.say(note)
        desk.reporter.result(Path(out), f"({made.width}×{made.height} px)")
    return DONE


def run_redo(
    result: str,
    out: str,
    content: str | None,
    styles: Sequence[str] | None,
    init: str | None,
    masks: Sequence[str] | None,
    encoder: str | None,
    common: "Common",
) -> int:
    """`impasto redo`. Returns the exit code."""
    from impasto.jobs.redo import is_animated, plan_redo, read_steps

    given = [
        resolve(text).path for text in (content, *(styles or ()), init, *(masks or ())) if text
    ]
    inputs = [resolve(result).path, *given]
    animated = is_animated(result)
    check_output(Path(out), inputs, animated=animated)
    if animated:
        _check_moving(Path(result), common)
    check_replaceable(Path(out), common)
    with Desk(common, inputs, [Path(out)], steps=read_steps(result)) as desk:
        again = plan_redo(
            result,
            content=content,
            styles=styles or (),
            init=init,
            masks=masks or (),
            encoder=encoder,
            max_pixels=desk.max_pixels,
        )
        for warning in again.warnings:
            desk.reporter.say(f"warning: {warning}")
        for picture in again.inputs:  # found by name: these must not be replaced either
            if picture.source:
                check_output(Path(out), [Path(picture.source)], animated=animated)
        desk.begin(f"redoing {Path(result).name}")
        return desk.run(Job(again.steps(), Path(out)))


def _film(settings: Settings, out: Path) -> Path | None:
    """Where the film of a preset goes whose source has one."""
    return out.with_name(f"{out.stem}-film.webp") if PRESETS[settings.preset].film else None


def _check_moving(path: Path, common: "Common") -> None:
    """Refuses what shows a single picture coming into being."""
    for flag in ("film", "plot", "save_every"):
        if getattr(common, flag) is not None:
            raise SettingsError(
                f"--{flag.replace('_', '-')} shows how one picture comes to be; leave it out for "
                f"{path.name}, which is animated"
            )


def _open(desk: Desk, task: Task) -> Picture | Animation:
    """The photo, or all of its frames."""
    return desk.open_animation(task.photo) if task.animated else desk.open(task.photo)


def _asked(painter: "Painter", photo: Picture | Animation) -> dict[str, Any]:
    """The record of painting it, as far as it is known before the work."""
    from impasto.jobs.frames import request

    return painter.request(photo) if isinstance(photo, Picture) else request(painter, photo)


def _job(
    desk: Desk,
    painter: "Painter",
    task: Task,
    photo: Picture | Animation,
    *,
    rescue: bool = True,
) -> Job:
    """The job of painting a photo, or all of its frames."""
    from impasto.jobs.frames import iter_frames

    if isinstance(photo, Animation):
        return Job(iter_frames(painter, photo), task.out, photo.first, painter, rescue)
    if task.kind:
        desk.reporter.say(
            f"{task.photo.path.name} is animated; its first frame is painted "
            "(--method fast, and .gif, .webp or .png as OUT, paint them all)"
        )
    return Job(painter.iter(photo), task.out, photo, painter, rescue)


def _run_batch(desk: Desk, painter: "Painter", tasks: Sequence[Task]) -> int:
    """Paints every photo; a bad one is reported and the rest go on. Returns the exit code."""
    counts = {"painted": 0, "skipped": 0, "left": 0, "failed": 0}
    for number, task in enumerate(tasks, 1):
        try:
            photo = _open(desk, task)
            todo = "paint" if desk.common.overwrite else verdict(task.out, _asked(painter, photo))
            if todo == "skip":
                counts["skipped"] += 1
                desk.reporter.say(f"{task.out} is done already; skipped")
                continue
            if todo == "leave":
                counts["left"] += 1
                desk.reporter.say(
                    f"{task.out} is there and is another result; left as it is "
                    "(--overwrite replaces it)"
                )
                continue
            desk.begin(f"{number}/{len(tasks)} {task.photo.path.name}")
            code = desk.run(_job(desk, painter, task, photo, rescue=False))  # run it again
        except ImpastoError as error:
            counts["failed"] += 1
            desk.fail(error, task.photo)
            continue
        if code == INTERRUPTED:
            return INTERRUPTED
        counts["painted"] += 1
    desk.reporter.end()
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    desk.reporter.say(told)
    return FAILED if counts["failed"] or desk.failed else DONE


def _init_path(options: Options) -> list[Path]:
    """The file of an --init PICTURE."""
    init = options.get("init")
    return [] if init is None or init in INIT_WORDS else [resolve(init).path]


def _mask(path: Path) -> Source:
    """The mask of a style."""
    late = re.fullmatch(r"(.+):(\d+\.?\d*|\.\d+)", str(path))
    if late and not path.exists() and Path(late[1]).exists():
        raise SettingsError(f"a weight goes before the mask: write STYLE:{late[2]}@{late[1]}")
    return resolve(str(path))


class _Drawings(NamedTuple):
    """The masks and maps of a transfer, found but not yet read."""

    masks: Sequence[Source | None]
    maps: Sequence[Source | None]
    protect: Source | None
    regions: Source | None

    @classmethod
    def of(cls, styles: Sequence[StyleSource], extras: Extras) -> "_Drawings":
        """Those of these styles."""
        count = len(extras.style_regions)
        if count not in (0, len(styles)):
            raise SettingsError(
                f"there are {len(styles)} styles and {count} --style-regions; give one for each, "
                "in the same order"
            )
        if bool(count) != (extras.regions is not None):
            raise SettingsError("--regions and --style-regions belong together; give both")
        return cls(
            [_mask(style.mask) if style.mask else None for style in styles],
            [resolve(text) for text in extras.style_regions] or [None] * len(styles),
            resolve(extras.protect) if extras.protect else None,
            resolve(extras.regions) if extras.regions else None,
        )

    @property
    def all(self) -> list[Source]:
        """All there are."""
        every = (*self.masks, *self.maps, self.protect, self.regions)
        return [source for source in every if source]

    def styles(
        self, desk: Desk, styles: Sequence[StyleSource]
    ) -> list[tuple[Picture, float, Picture | None, Picture | None]]:
        """The styles with everything opened: what a `Style` is made of."""
        return [
            (
                desk.open(style.source),
                style.weight,
                desk.open(mask) if mask else None,
                desk.open(regions) if regions else None,
            )
            for style, mask, regions in zip(styles, self.masks, self.maps, strict=True)
        ]


def _unmasked(style: StyleSource) -> StyleSource:
    """The style, which must have no mask."""
    if style.mask is not None:
        raise SettingsError(f"a mask has no place here; leave out @{style.mask}")
    return style


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImpastoError(f"cannot make the folder {folder}: {error.strerror}") from None
