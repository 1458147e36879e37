"""What `impasto grid` does with its arguments."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto.batch import check_output, verdict
from impasto.desk import DONE, FAILED, INTERRUPTED, Desk, Job, Options, check_replaceable
from impasto.errors import ImpastoError, SettingsError
from impasto.files import os_reason
from impasto.images import Picture, open_image, save_image
from impasto.records import SHEET_RECORD
from impasto.sources import find_photos, parse_style

if TYPE_CHECKING:
    from impasto.cli import Common
    from impasto.jobs.grid import Cell, GridPlan

__all__ = ["parse_vary", "run_grid"]


def parse_vary(
    texts: Sequence[str], parsers: Mapping[str, Callable[[str], Any]]
) -> dict[str, list[Any]]:
    """`strength=0.3,0.6` and the like, by the setting's name.

    A value that is a list itself is written with `+`: `content-layers=relu2_2,relu3_1+relu4_1`.

    Args:
        texts: as the user wrote them.
        parsers: what makes a value of each setting's text.

    Raises:
        SettingsError: one cannot be understood.
    """
    found: dict[str, list[Any]] = {}
    for text in texts:
        flag, equals, values = text.partition("=")
        name = flag.strip().removeprefix("--").replace("-", "_")
        if not equals or not values.strip():
            raise SettingsError(f"cannot understand --vary {text!r}; write strength=0.3,0.6,0.9")
        if name not in parsers:
            told = ", ".join(sorted(parsers)).replace("_", "-")
            raise SettingsError(f"there is no setting {flag.strip()!r} to vary; there are {told}")
        if name in found:
            raise SettingsError(f"{flag.strip()} varies twice; give all its values at once")
        found[name] = []
        for value in values.split(","):
            try:
                found[name].append(parsers[name](value.strip().replace("+", ",")))
            except ValueError:
                raise SettingsError(f"{value.strip()!r} is no value of {flag.strip()}") from None
    return found


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
    if not 16 <= cell <= 4096:
        raise SettingsError(f"--cell is {cell}; it is a number of px from 16 to 4096")
    for flag in ("film", "plot", "save_every"):
        if getattr(common, flag) is not None:
            raise SettingsError(f"--{flag.replace('_', '-')} shows one picture; a grid has many")
    found = find_photos(photos) if photos else []
    taken = [parse_style(text) for text in styles]
    for style in taken:
        if style.weight != 1 or style.mask is not None:
            raise SettingsError("in a grid every style is alone; leave weights and masks out")
    sources = [style.source for style in taken]
    sheet = Path(out)
    inputs = [source.path for source in (*found, *sources)]
    check_output(sheet, inputs)
    check_replaceable(sheet, common)
    folder = sheet.with_name(f"{sheet.stem}-cells")
    with Desk(common, inputs, [sheet]) as desk:
        pictures = [desk.open(source) for source in found], [desk.open(s) for s in sources]
        names = {
            id(picture): source.text.rpartition("/")[2].removeprefix("sample:")
            for opened, listed in zip(pictures, (found, sources), strict=True)
            for picture, source in zip(opened, listed, strict=True)
        }
        from impasto.jobs.grid import plan_grid

        def label(picture: Picture) -> str:
            name = names[id(picture)]
            return Path(name).stem if "." in name else name

        plan = plan_grid(job, *pictures, vary, options, label)
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ImpastoError(f"cannot make the folder {folder}: {os_reason(error)}") from None
        return _run_cells(desk, plan, folder, sheet, cell)


def _run_cells(desk: Desk, plan: "GridPlan", folder: Path, sheet: Path, cell: int) -> int:
    """Makes every cell that is not there yet, then the sheet. Returns the exit code."""
    made, painted = [], 0
    for number, each in enumerate(plan.cells, 1):
        out = folder / f"{each.name}.png"
        if not desk.common.overwrite and _is_there(out, each, plan):
            made.append(open_image(out))
            continue
        desk.begin(f"{number}/{len(plan.cells)} {each.name}")
        code = desk.run(Job(each.steps(plan.job), out, rescue=False))
        if code == INTERRUPTED:
            desk.reporter.say(f"stopped; the same command goes on with what is in {folder}")
            return INTERRUPTED
        painted += 1
        made.append(open_image(out))
    save_image(plan.sheet(made, cell=cell), sheet, record=SHEET_RECORD)
    there = len(made) - painted
    desk.reporter.say(f"{painted} painted" + (f", {there} there already" if there else ""))
    desk.reporter.result(sheet, f"(sheet; its pictures are in {folder})")
    return FAILED if desk.failed else DONE


def _is_there(out: Path, cell: "Cell", plan: "GridPlan") -> bool:
    """Whether a cell is done.

    Raises:
        ImpastoError: something else is there.
    """
    state = verdict(out, cell.request(plan.job))
    if state == "leave":
        raise ImpastoError(
            f"{out} is there and is another result; choose another sheet, or --overwrite it"
        )
    return state == "skip"
