"""`grid`: the same job with different photos, styles and settings, on one labelled sheet."""

from collections.abc import Callable, Generator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from impasto.encoder import Encoder
from impasto.errors import SettingsError
from impasto.grid_plan import CELL, Cell, GridPlan, Values, check_cell, kind_of, plan_grid
from impasto.images import Picture
from impasto.inputs import PictureLike, Style, as_picture
from impasto.jobs.fast import FastMethod
from impasto.jobs.reconstruct import iter_reconstruct
from impasto.jobs.run import Bench
from impasto.jobs.texture import iter_texture
from impasto.jobs.transfer import iter_transfer
from impasto.progress import Progress, Result, drive
from impasto.records import Network, describe_input, make_record
from impasto.settings import TransferSettings, make_settings
from impasto.sheet import thumbnail
from impasto.sources import resolve

__all__ = ["grid", "networks", "request", "steps"]


def networks(plan: GridPlan) -> list[tuple[Network, Network | None]]:
    """Every cell's network, and that which paints its start, if one does.

    Raises:
        ImpastoError: there is no such network or device, or a network has not the layers that are
            asked of it.
    """
    known: dict[tuple[str, str], Encoder] = {}
    found: list[tuple[Network, Network | None]] = []
    for cell in plan.cells:
        settings = make_settings(kind_of(plan.job).settings, _named(cell.options))
        start = None
        if isinstance(settings, TransferSettings):
            if settings.method == "fast":
                found.append((FastMethod(settings, settings.encoder).network, None))
                continue
            if settings.init == "fast":
                start = FastMethod(settings, "fast").network
        asked = (str(settings.encoder), settings.device)
        if asked not in known:
            known[asked] = Bench(settings).encoder
        encoder = known[asked]
        for name in ("content_layers", "style_layers", "layers"):
            encoder.check_layers(getattr(settings, name, ()))
        found.append(((encoder.name, encoder.sha256), start))
    return found


def request(job: str, cell: Cell, network: Network, start: Network | None = None) -> dict[str, Any]:
    """The record of making a cell of an opened plan, as far as it is known before the work.

    Args:
        job: what is done.
        cell: where.
        network: the cell's, as `networks` gives it.
        start: likewise that which paints its start.
    """
    inputs = []
    if cell.photo is not None:
        inputs.append(describe_input("content", cell.photo))
    if cell.style is not None:
        inputs.append(describe_input("style", cell.style, weight=1.0))
    if isinstance(init := cell.options.get("init"), Picture):
        inputs.append(describe_input("init", init.over_white()))
    settings = make_settings(kind_of(job).settings, _named(cell.options))
    return make_record(job, settings.record(), inputs, network, start)


def _named(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with a picture to start from by its name, as a record has it."""
    init = options.get("init")
    if not isinstance(init, Picture):
        return dict(options)
    return {**options, "init": describe_input("init", init.over_white())["name"] or "picture"}


def steps(job: str, cell: Cell) -> Generator[Progress, None, Result]:
    """Makes the picture of a cell of an opened plan, step by step."""
    if job == "transfer":
        return iter_transfer(cell.photo, cell.style, **cell.options)
    if job == "texture":
        return iter_texture(cell.style, **cell.options)
    return iter_reconstruct(cell.photo, **cell.options)


def grid(
    photos: PictureLike | Sequence[PictureLike] = (),
    styles: PictureLike | Sequence[PictureLike] = (),
    vary: Mapping[str, Values] | None = None,
    *,
    job: str = "transfer",
    cell: int = CELL,
    on_cell: Callable[[Cell, Result], object] | None = None,
    **options: Any,
) -> Picture:
    """A labelled sheet of one job with different photos, styles and settings.

    Args:
        photos: one or several; for `transfer` and `reconstruct`.
        styles: one or several, each used alone, so without weights and masks; for `transfer` and
            `texture`.
        vary: settings and the values that they take in turn: a list of them, or a mapping of what
            each is called on the sheet to the value. One value sets it.
        job: `transfer`, `texture` or `reconstruct`.
        cell: long side of a picture on the sheet, 16 to 4096 px, at most.
        on_cell: called with each cell and its result.
        **options: the settings that all cells have.

    Returns:
        The sheet. Several photos, several styles and every setting that varies are its sides, the
        last from column to column.

    Raises:
        ImpastoError: a picture, a setting or a network is not as it should be, which is found
            before the first picture is made; or what the job itself raises.
    """
    check_cell(cell)
    painted_in = _several(styles)
    if any(isinstance(style, Style | tuple) for style in painted_in):
        raise SettingsError("in a grid every style is alone; give pictures, no weights and masks")
    plan = plan_grid(job, _several(photos), painted_in, vary or {}, options, _called)
    plan = plan.opened(as_picture)
    networks(plan)
    made = []
    for each in plan.cells:
        result = drive(steps(job, each))
        if on_cell is not None:
            on_cell(each, result)
        made.append(thumbnail(result.image, cell))
    return plan.sheet(made, cell=cell)


def _several(given: PictureLike | Sequence[PictureLike]) -> Sequence[Any]:
    """The pictures; one alone is a list of one."""
    return given if isinstance(given, Sequence) and not isinstance(given, str) else [given]


def _called(picture: PictureLike) -> str:
    """What a picture is called on the sheet."""
    if isinstance(picture, str):
        return resolve(picture).stem
    path = picture.source if isinstance(picture, Picture) else picture
    return Path(path).stem if isinstance(path, str | PathLike) else "picture"
