"""`grid`: the same job with different photos, styles and settings, on one labelled sheet."""

import itertools
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from impasto.errors import SettingsError
from impasto.images import Picture
from impasto.inputs import PictureLike, as_picture
from impasto.progress import Progress, Result, drive
from impasto.records import describe_input, make_record
from impasto.settings import (
    ReconstructSettings,
    Settings,
    TextureSettings,
    TransferSettings,
    make_settings,
)
from impasto.sheet import contact_sheet
from impasto.weights import load_weights

__all__ = ["Axis", "Cell", "GridPlan", "grid", "plan_grid"]

KINDS: Final[Mapping[str, type[Settings]]] = {
    kind.job: kind for kind in (TransferSettings, TextureSettings, ReconstructSettings)
}

Values = Sequence[Any] | Mapping[str, Any]
"""Values of a setting; or what each is called on the sheet, and the value."""

MOST: Final = 1000
"""Cells of a sheet, at most."""

CELL: Final = 320
"""Long side of a picture on the sheet, px, at most."""

NAME: Final = 100
"""Letters in the name of a cell's file, at most."""


@dataclass(frozen=True)
class Axis:
    """What changes along a side of the sheet.

    Attributes:
        name: `photo`, `style` or a setting.
        values: one for each row or column.
        labels: what they are called.
    """

    name: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]

    @property
    def pictures(self) -> bool:
        """Whether the values are pictures."""
        return self.name in ("photo", "style")


@dataclass(frozen=True)
class Cell:
    """One picture of the sheet.

    Attributes:
        row, column: where it is, from 0.
        photo, style: what it is made from; None where the job takes none.
        options: the settings that it has.
        name: for its file, without a suffix; no two cells have the same.
    """

    row: int
    column: int
    photo: PictureLike | None
    style: PictureLike | None
    options: Mapping[str, Any]
    name: str

    def request(self, job: str) -> dict[str, Any]:
        """The record of making it, as far as it is known before the work."""
        settings = make_settings(KINDS[job], self.options)
        network = load_weights(settings.encoder)
        inputs = []
        if self.photo is not None:
            inputs.append(describe_input("content", as_picture(self.photo)))
        if self.style is not None:
            inputs.append(describe_input("style", as_picture(self.style), weight=1.0))
        return make_record(job, settings.record(), inputs, (network.name, network.sha256))

    def steps(self, job: str) -> Generator[Progress, None, Result]:
        """Makes the picture, step by step."""
        from impasto.jobs.reconstruct import iter_reconstruct
        from impasto.jobs.texture import iter_texture
        from impasto.jobs.transfer import iter_transfer

        if job == "transfer":
            assert self.photo is not None
            assert self.style is not None
            return iter_transfer(self.photo, self.style, **self.options)
        if job == "texture":
            assert self.style is not None
            return iter_texture(self.style, **self.options)
        assert self.photo is not None
        return iter_reconstruct(self.photo, **self.options)


@dataclass(frozen=True)
class GridPlan:
    """A sheet to be made.

    Attributes:
        job: what is done in every cell.
        axes: what changes, the last from column to column, the others from row to row.
        cells: row by row.
    """

    job: str
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]

    @property
    def columns(self) -> Axis:
        """What changes from column to column."""
        return self.axes[-1] if self.axes else Axis("", (None,), ("",))

    def sheet(self, made: Sequence[Picture], *, cell: int = CELL) -> Picture:
        """The sheet. Photos and styles that change stand at the head of their row or column.

        Args:
            made: the pictures of all cells, in their order.
            cell: long side of a picture on the sheet, px, at most.
        """
        across = len(self.columns.values)
        small = [_fitted(picture, cell) for picture in made]
        rows = [small[at : at + across] for at in range(0, len(small), across)]
        labels = [
            ", ".join(names) for names in itertools.product(*(a.labels for a in self.axes[:-1]))
        ]
        captions = list(self.columns.labels)
        beside = self._beside(cell, len(rows))
        if beside:
            rows = [[head, *row] for head, row in zip(beside, rows, strict=True)]
            captions = ["", *captions]
        if self.columns.pictures:
            heads = [_fitted(as_picture(value), cell) for value in self.columns.values]
            blank = [Picture(np.full((1, 1, 3), 255, np.uint8))] if beside else []
            rows = [[*blank, *heads], *rows]
            labels = ["", *labels] if any(labels) else []
        return contact_sheet(
            rows,
            columns=captions if any(captions) else (),
            rows=labels if any(labels) else (),
        )

    def _beside(self, cell: int, rows: int) -> list[Picture]:
        """The pictures at the left of the rows; none where the rows do not differ by them."""
        if len(self.axes) == 2 and self.axes[0].pictures:
            return [_fitted(as_picture(value), cell) for value in self.axes[0].values]
        other = self.cells[0].photo if self.columns.name == "style" else self.cells[0].style
        if self.columns.pictures and rows == 1 and other is not None:
            return [_fitted(as_picture(other), cell)]
        return []


def plan_grid(
    job: str,
    photos: Sequence[PictureLike],
    styles: Sequence[PictureLike],
    vary: Mapping[str, Values],
    options: Mapping[str, Any],
    label: Callable[[Any], str] = str,
) -> GridPlan:
    """What a sheet consists of. Several photos or styles are axes, like every setting that varies.

    Args:
        job: `transfer`, `texture` or `reconstruct`.
        photos: for `transfer` and `reconstruct`.
        styles: for `transfer` and `texture`; each is used alone.
        vary: settings of the job and the values that they take in turn, or what each is to be
            called and the value. One value sets it.
        options: the settings that all cells have.
        label: what a picture is called.

    Raises:
        SettingsError: a setting is unknown or out of range, pictures are missing or out of place,
            or there are too many cells.
    """
    if job not in KINDS:
        raise SettingsError(f"job is {job!r}; it can be {', '.join(KINDS)}")
    for what, given, jobs in (
        ("photo", photos, ("transfer", "reconstruct")),
        ("style", styles, ("transfer", "texture")),
    ):
        if bool(given) != (job in jobs):
            needs = "needs at least one" if job in jobs else "takes no"
            raise SettingsError(f"a grid of {job} {needs} {what}")
    both = vary.keys() & options.keys()
    if both:
        raise SettingsError(f"{min(both)} is given, and varies too; leave one of them out")
    if any(len(values) == 0 for values in vary.values()):
        raise SettingsError("a setting varies over no values; give at least one")
    axes = [
        Axis(name, tuple(given), tuple(map(label, given)))
        for name, given in (("photo", photos), ("style", styles))
        if len(given) > 1
    ]
    axes += [_axis(name, values) for name, values in vary.items()]
    fixed = {**options, **{axis.name: axis.values[0] for axis in axes if len(axis.values) == 1}}
    axes = [axis for axis in axes if len(axis.values) > 1]
    total = np.prod([len(axis.values) for axis in axes], dtype=int)
    if total > MOST:
        raise SettingsError(f"that makes {total} pictures, more than {MOST}; vary less")
    cells: list[Cell] = []
    names: set[str] = set()
    across = len(axes[-1].values) if axes else 1
    for number, places in enumerate(itertools.product(*(range(len(a.values)) for a in axes))):
        chosen = {axis.name: axis.values[i] for axis, i in zip(axes, places, strict=True)}
        told = [axis.labels[i] for axis, i in zip(axes, places, strict=True)] or [job]
        name = _file_name(told, names)
        names.add(name.casefold())
        photo = chosen.pop("photo", photos[0] if photos else None)
        style = chosen.pop("style", styles[0] if styles else None)
        settings = {**fixed, **chosen}
        make_settings(KINDS[job], settings)  # what is wrong is found before the first cell
        cells.append(Cell(number // across, number % across, photo, style, settings, name))
    return GridPlan(job, tuple(axes), tuple(cells))


def grid(
    photos: Sequence[PictureLike] = (),
    styles: Sequence[PictureLike] = (),
    vary: Mapping[str, Values] | None = None,
    *,
    job: str = "transfer",
    cell: int = CELL,
    on_cell: Callable[[Cell, Result], object] | None = None,
    **options: Any,
) -> Picture:
    """A labelled sheet of one job with different photos, styles and settings.

    Args:
        photos: as for `plan_grid`, and so the next three.
        styles: each is used alone.
        vary: settings and the values that they take in turn.
        job: `transfer`, `texture` or `reconstruct`.
        cell: long side of a picture on the sheet, px, at most.
        on_cell: called with each cell and its result.
        **options: the settings that all cells have.

    Raises:
        ImpastoError: as for `plan_grid` and the job.
    """
    plan = plan_grid(job, photos, styles, vary or {}, options, _called)
    made = []
    for each in plan.cells:
        result = drive(each.steps(job))
        if on_cell is not None:
            on_cell(each, result)
        made.append(result.image)
    return plan.sheet(made, cell=cell)


def _axis(name: str, values: Values) -> Axis:
    """The axis of a setting."""
    if isinstance(values, Mapping):
        return Axis(name, tuple(values.values()), tuple(values))
    labels = (f"{name.replace('_', '-')} {_told(value)}" for value in values)
    return Axis(name, tuple(values), tuple(labels))


def _called(picture: PictureLike) -> str:
    """What a picture is called on the sheet."""
    source = picture.source if isinstance(picture, Picture) else picture
    text = str(source) if isinstance(source, str) else ""
    return re.sub(r"\.\w{1,5}$", "", text.rpartition("/")[2].removeprefix("sample:")) or "picture"


def _told(value: Any) -> str:
    """A value, as short as the command line takes it."""
    if isinstance(value, Mapping):
        return "+".join(name if w == 1 else f"{name}={w:g}" for name, w in value.items())
    if isinstance(value, list | tuple):
        return ("x" if isinstance(value[0], int) else "+").join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value).replace(",", "+")


def _file_name(labels: Sequence[str], taken: set[str]) -> str:
    """A name for a file from the labels of a cell."""
    plain = (
        re.sub(r"[^\w.=+-]+", "-", "-".join(labels).replace(" ", "="))[:NAME].strip("-.") or "cell"
    )
    name, number = plain, 2
    while name.casefold() in taken:
        name, number = f"{plain}-{number}", number + 1
    return name


def _fitted(picture: Picture, side: int) -> Picture:
    """A picture of at most so many px, over white."""
    image = picture.over_white().pil()
    image.thumbnail((side, side))
    return Picture(np.array(image))
