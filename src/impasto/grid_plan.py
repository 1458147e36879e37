"""What a sheet of `impasto grid` consists of. Nothing here reads a picture or imports torch."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np

from impasto.errors import SettingsError
from impasto.images import Picture
from impasto.settings import (
    STARTS,
    ReconstructSettings,
    Settings,
    TextureSettings,
    TransferSettings,
    make_settings,
)
from impasto.sheet import contact_sheet, thumbnail

__all__ = [
    "CELL",
    "Axis",
    "Cell",
    "GridPlan",
    "Kind",
    "Values",
    "check_cell",
    "is_start",
    "kind_of",
    "plan_grid",
]


class Kind(NamedTuple):
    """What a grid has to know of a job.

    Attributes:
        settings: its settings.
        takes: `photo`, `style` or both.
        starts: what `init` can be beside a picture.
    """

    settings: type[Settings]
    takes: tuple[str, ...]
    starts: tuple[str, ...]


KINDS: Final[Mapping[str, Kind]] = {
    "transfer": Kind(TransferSettings, ("photo", "style"), STARTS["transfer"]),
    "texture": Kind(TextureSettings, ("style",), STARTS["texture"]),
    "reconstruct": Kind(ReconstructSettings, ("photo",), STARTS["reconstruct"]),
}

Values = Sequence[Any] | Mapping[str, Any]
"""Values of a setting; or what each is called on the sheet, and the value."""

MOST: Final = 1000
"""Cells of a sheet, at most."""

CELL: Final = 320
"""Long side of a picture on the sheet, px, at most."""

LETTERS: Final = 100
"""Letters in the name of a cell's file, at most."""

BYTES: Final = 200
"""The same in bytes: file systems allow 255, and the suffix and a number are still to come."""


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
        """Whether the values are photos or styles."""
        return self.name in ("photo", "style")


@dataclass(frozen=True)
class Cell:
    """One picture of the sheet.

    Attributes:
        row, column: where it is, from 0.
        photo, style: what it is made from, as it was given, or read once the plan is `opened`;
            None where the job takes none.
        options: the settings that it has.
        name: for its file, without a suffix; no two cells have the same.
    """

    row: int
    column: int
    photo: Any
    style: Any
    options: Mapping[str, Any]
    name: str


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

    def opened(self, read: Callable[[Any], Picture]) -> "GridPlan":
        """The same plan with every photo, style and picture to start from read, each once.

        Args:
            read: makes a `Picture` of what was given as one.
        """
        known: dict[int, Picture] = {}

        def picture(given: Any) -> Picture:
            if id(given) not in known:
                known[id(given)] = read(given)
            return known[id(given)]

        def cell(each: Cell) -> Cell:
            init = each.options.get("init", "noise")
            return replace(
                each,
                photo=None if each.photo is None else picture(each.photo),
                style=None if each.style is None else picture(each.style),
                options=each.options if is_start(init) else {**each.options, "init": picture(init)},
            )

        axes = (
            replace(axis, values=tuple(map(picture, axis.values))) if axis.pictures else axis
            for axis in self.axes
        )
        return replace(self, axes=tuple(axes), cells=tuple(map(cell, self.cells)))

    def sheet(self, made: Sequence[Picture], *, cell: int = CELL) -> Picture:
        """The sheet of an opened plan.

        Photos and styles that change stand at the head of their column, or to the left of every
        row that they belong to. Where only one of them changes and all is one row, the other
        stands to the left of it.

        Args:
            made: the pictures of all cells, in their order; `cell` px are enough.
            cell: long side of a picture on the sheet, px, at most.
        """
        across = len(self.columns.values)
        small = [thumbnail(picture, cell) for picture in made]
        rows = [small[at : at + across] for at in range(0, len(small), across)]
        labels = [
            ", ".join(names) for names in itertools.product(*(a.labels for a in self.axes[:-1]))
        ]
        captions = list(self.columns.labels)
        beside = self._beside(cell, len(rows))
        rows = [[*heads, *row] for heads, row in zip(beside, rows, strict=True)]
        corner = len(beside[0])
        captions = [""] * corner + captions
        if self.columns.pictures:
            blank = [Picture(np.full((1, 1, 3), 255, np.uint8))] * corner
            rows = [[*blank, *(thumbnail(value, cell) for value in self.columns.values)], *rows]
            labels = ["", *labels] if any(labels) else []
        return contact_sheet(
            rows,
            columns=captions if any(captions) else (),
            rows=labels if any(labels) else (),
        )

    def _beside(self, cell: int, rows: int) -> list[list[Picture]]:
        """The pictures to the left of each row."""
        heads = [
            [thumbnail(value, cell) if axis.pictures else None for value in axis.values]
            for axis in self.axes[:-1]
        ]
        beside = [[head for head in row if head] for row in itertools.product(*heads)]
        other = self.cells[0].photo if self.columns.name == "style" else self.cells[0].style
        if self.columns.pictures and rows == 1 and other is not None:
            return [[thumbnail(other, cell)]]
        return beside


def kind_of(job: str) -> Kind:
    """What a grid has to know of this job.

    Raises:
        SettingsError: there is no such job.
    """
    if job not in KINDS:
        raise SettingsError(f"job is {job!r}; it can be {', '.join(KINDS)}")
    return KINDS[job]


def check_cell(cell: int) -> None:
    """Raises SettingsError unless this is a long side, px, that pictures on a sheet can have."""
    if isinstance(cell, bool) or not isinstance(cell, int) or not 16 <= cell <= 4096:
        raise SettingsError(f"cell is {cell!r}; it is a whole number of px from 16 to 4096")


def is_start(init: object) -> bool:
    """Whether an `init` is one of the words that name a start, and no picture."""
    return isinstance(init, str) and init in KINDS["transfer"].starts


def plan_grid(
    job: str,
    photos: Sequence[Any],
    styles: Sequence[Any],
    vary: Mapping[str, Values],
    options: Mapping[str, Any],
    label: Callable[[Any], str] = str,
) -> GridPlan:
    """What a sheet consists of. Several photos or styles are axes, like every setting that varies.

    Args:
        job: `transfer`, `texture` or `reconstruct`.
        photos: for `transfer` and `reconstruct`; anything that `GridPlan.opened` is to read.
        styles: for `transfer` and `texture`; each is used alone.
        vary: settings of the job and the values that they take in turn, or what each is to be
            called and the value. One value sets it.
        options: the settings that all cells have.
        label: what a picture is called.

    Raises:
        SettingsError: a setting is unknown or out of range, pictures are missing or out of place,
            or there are too many cells.
    """
    kind = kind_of(job)
    for what, given in (("photo", photos), ("style", styles)):
        if bool(given) != (what in kind.takes):
            needs = "needs at least one" if what in kind.takes else "takes no"
            raise SettingsError(f"a grid of {job} {needs} {what}")
    both = vary.keys() & options.keys()
    if both:
        raise SettingsError(f"{min(both)} is given, and varies too; leave one of them out")
    axes = [
        Axis(name, tuple(given), tuple(map(label, given)))
        for name, given in (("photo", photos), ("style", styles))
        if len(given) > 1
    ]
    axes += [_axis(name, values, label) for name, values in vary.items()]
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
        _check_settings(kind, settings)
        cells.append(Cell(number // across, number % across, photo, style, settings, name))
    return GridPlan(job, tuple(axes), tuple(cells))


def _check_settings(kind: Kind, options: Mapping[str, Any]) -> None:
    """Refuses settings that the job cannot have."""
    make_settings(kind.settings, options)
    init = options.get("init", "noise")
    if is_start(init) and init not in kind.starts:
        raise SettingsError(
            f"init is {init!r}; in a grid of {kind.settings.job} it can be "
            f"{', '.join(kind.starts)} or a picture"
        )


def _axis(name: str, values: Values, label: Callable[[Any], str]) -> Axis:
    """The axis of a setting."""
    if isinstance(values, str) or not isinstance(values, Sequence | Mapping):
        raise SettingsError(f"{name} varies over {values!r}; give a list of values")
    if not values:
        raise SettingsError(f"{name} varies over no values; give at least one")
    if isinstance(values, Mapping):
        return Axis(name, tuple(values.values()), tuple(map(str, values)))
    shown = name.replace("_", "-")
    labels = (
        f"{shown} {label(value) if name == 'init' and not is_start(value) else _told(value)}"
        for value in values
    )
    return Axis(name, tuple(values), tuple(labels))


def _told(value: Any) -> str:
    """A value, as short as the command line takes it."""
    if isinstance(value, Mapping):
        return "+".join(name if w == 1 else f"{name}={_told(w)}" for name, w in value.items())
    if isinstance(value, list | tuple):
        return ("x" if all(isinstance(each, int) for each in value) else "+").join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value).replace(",", "+")


def _file_name(labels: Sequence[str], taken: set[str]) -> str:
    """A name for a file from the labels of a cell."""
    plain = re.sub(r"[^\w.=+-]+", "-", "-".join(labels).replace(" ", "="))[:LETTERS]
    plain = plain.encode()[:BYTES].decode(errors="ignore").strip("-.") or "cell"
    name, number = plain, 2
    while name.casefold() in taken:
        name, number = f"{plain}-{number}", number + 1
    return name
