"""What `impasto grid` does with its arguments.

All that can be wrong about them is found before the first cell is painted, and all but networks,
layers and devices before torch is imported.
"""

import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto.batch import check_output, verdict
from impasto.desk import DONE, FAILED, INTERRUPTED, Desk, Job, Options, check_replaceable
from impasto.errors import ImpastoError, SettingsError
from impasto.files import os_reason
from impasto.grid_plan import GridPlan, check_cell, is_start, kind_of, plan_grid
from impasto.images import open_image, save_image
from impasto.records import SHEET_RECORD
from impasto.sheet import thumbnail
from impasto.sources import Source, find_photos, parse_style, resolve

if TYPE_CHECKING:
    from impasto.cli import Common

__all__ = ["parse_vary", "run_grid"]

LISTS = ("content_layers", "style_layers", "layers")
"""Settings whose values are lists themselves."""


def parse_vary(
    texts: Sequence[str], parsers: Mapping[str, Callable[[str], Any]]
) -> dict[str, list[Any]]:
    """`strength=0.3,0.6` and the like, by the setting's name.

    Layers that belong together are joined by `+`: `content-layers=relu2_2,relu3_1+relu4_1`. A value
    with a comma is written as in a CSV file: `init=noise,"a,b.png"`.

    Args:
        texts: as the user wrote them.
        parsers: what makes a value of each setting's text.

    Raises:
        SettingsError: one cannot be understood.
    """
    found: dict[str, list[Any]] = {}
    for text in texts:
        flag, equals, values = text.partition("=")
        flag = flag.strip().removeprefix("--")
        name = flag.replace("-", "_")
        if not equals or not values.strip():
            raise SettingsError(f"cannot understand --vary {text!r}; write strength=0.3,0.6,0.9")
        if name not in parsers:
            told = ", ".join(sorted(parsers)).replace("_", "-")
            raise SettingsError(f"there is no setting {flag!r} to vary; there are {told}")
        if name in found:
            raise SettingsError(f"{flag} varies twice; give all its values at once")
        found[name] = [
            _value(value.strip(), flag, parsers[name], layers=name in LISTS)
            for value in _split(values)
        ]
    return found


def _split(values: str) -> list[str]:
    """The values between commas."""
    try:
        return next(csv.reader([values], skipinitialspace=True))
    except csv.Error as error:
        raise SettingsError(f"cannot understand --vary with {values!r}: {error}") from None


def _value(text: str, flag: str, parse: Callable[[str], Any], *, layers: bool) -> Any:
    """One value of a setting."""
    try:
        if text:
            return parse(text.replace("+", ",") if layers else text)
    except ValueError:
        pass
    raise SettingsError(f"{text!r} is no value of {flag}")


def run_grid(
    job: str,
    photos: Sequence[str],
    styles: Sequence[str],
    vary: Mapping[str, Sequence[Any]],
    out: str,
    cell: int,
    options: Options,
    common: "Common",
) -> int:
    """`impasto grid`. Returns the exit code."""
    check_cell(cell)
    _check_flags(job, vary, options, common)
    found = find_photos(photos) if photos else []
    sources = [_alone(text) for text in styles]
    if "init" in options:
        options = options | {"init": _start(options["init"])}
    if "init" in vary:
        vary = {**vary, "init": [_start(text) for text in vary["init"]]}
    plan = plan_grid(job, found, sources, vary, options, lambda source: source.stem)

    starts = [options.get("init"), *vary.get("init", ())]
    inputs = [each.path for each in (*found, *sources, *starts) if isinstance(each, Source)]
    sheet = Path(out)
    check_output(sheet, inputs)
    check_replaceable(sheet, common)
    folder = sheet.with_name(f"{sheet.stem}-cells")
    outs = [folder / f"{each.name}.png" for each in plan.cells]
    _check_outputs(folder, outs, inputs)
    with Desk(common, inputs, [sheet, folder, *outs]) as desk:
        return _run_cells(desk, plan.opened(desk.open), outs, sheet, cell)


def _check_flags(
    job: str, vary: Mapping[str, Sequence[Any]], options: Options, common: "Common"
) -> None:
    """Refuses flags that the job does not have, that contradict each other, or fit no grid."""
    settings = kind_of(job).settings()
    for name in (*options, *vary):
        flag = name.replace("_", "-")
        if not hasattr(settings, name):
            raise SettingsError(f"{job} has no --{flag}; impasto {job} --help names what it has")
        if name in options and name in vary:
            raise SettingsError(f"--{flag} is given, and varies too; leave one of them out")
    for beside in ("film", "plot", "save_every"):
        if getattr(common, beside) is not None:
            raise SettingsError(f"--{beside.replace('_', '-')} shows one picture; a grid has many")
    if not common.metadata:
        raise SettingsError(
            "a grid goes on by the records in its pictures; leave out --no-metadata"
        )


def _alone(text: str) -> Source:
    """A style's picture; it must have no weight and no mask."""
    style = parse_style(text)
    if style.weight != 1 or style.mask is not None:
        raise SettingsError("in a grid every style is alone; leave weights and masks out")
    return style.source


def _start(text: str) -> str | Source:
    """What an --init means: one of its words, or a picture."""
    return text if is_start(text) else resolve(text)


def _check_outputs(folder: Path, outs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Refuses cells that cannot be written, or that are inputs."""
    if folder.exists() and not folder.is_dir():
        raise ImpastoError(f"cannot make the folder {folder}: there is a file of that name")
    for out in outs:
        if out.is_dir():
            raise ImpastoError(
                f"cannot write {out}: there is a folder of that name; move it, "
                "or choose another sheet"
            )
        check_output(out, inputs, make_folder=True)


def _run_cells(desk: Desk, plan: GridPlan, outs: Sequence[Path], sheet: Path, cell: int) -> int:
    """Makes every cell that is not there yet, then the sheet. Returns the exit code."""
    desk.begin("getting ready")
    from impasto.jobs.grid import networks, request, steps

    there = [
        not desk.common.overwrite and _is_there(out, request(plan.job, each, *network))
        for each, out, network in zip(plan.cells, outs, networks(plan), strict=True)
    ]
    folder = outs[0].parent
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ImpastoError(f"cannot make the folder {folder}: {os_reason(error)}") from None
    made = []
    for number, (each, out) in enumerate(zip(plan.cells, outs, strict=True)):
        if not there[number]:
            desk.begin(f"{number + 1}/{len(outs)} {each.name}")
            code = desk.run(Job(steps(plan.job, each), out, rescue=False))
            if code == INTERRUPTED:
                desk.reporter.say(f"stopped; the same command goes on with what is in {folder}")
                return INTERRUPTED
        picture = open_image(out, max_pixels=sys.maxsize)  # our own, whatever its size
        made.append(thumbnail(picture, cell))
    save_image(plan.sheet(made, cell=cell), sheet, record=SHEET_RECORD)
    desk.reporter.end()
    told = f"{there.count(False)} painted"
    desk.reporter.say(told + (f", {there.count(True)} there already" if any(there) else ""))
    desk.reporter.result(sheet, f"(sheet; its pictures are in {folder})")
    return FAILED if desk.failed else DONE


def _is_there(out: Path, asked: Mapping[str, Any]) -> bool:
    """Whether a cell is done.

    Args:
        out: its file.
        asked: the record of what it is to be.

    Raises:
        ImpastoError: something else is there.
    """
    state = verdict(out, asked)
    if state == "leave":
        raise ImpastoError(
            f"{out} is there and is another result; choose another sheet, or --overwrite it"
        )
    return state == "skip"
