"""`impasto weights`: which networks there are, and getting, checking and finding them.

Nothing here imports torch; only the conversion of what was fetched does.
"""

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Final, Self

import typer

from impasto.errors import ImpastoError, SettingsError

if TYPE_CHECKING:
    from impasto.classics import Classic
    from impasto.download import FetchProgress
    from impasto.terminal import Reporter

__all__ = ["app"]

FAILED: Final = 2

app = typer.Typer(
    rich_markup_mode=None,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="List, fetch and verify the networks that look.",
)

Names = Annotated[list[str], typer.Argument(metavar="NAME", help="As impasto weights list says.")]


@app.callback()
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_networks() -> None:
    """List the networks, where they are, and their terms."""
    from impasto.classics import CLASSICS, weights_folder
    from impasto.weights import bundled

    rows = [
        (name, f"here, {_megabytes(_size(path))}", _title(path), "MIT, as impasto")
        for name, path in bundled().items()
    ]
    rows += [(c.name, _place(c), c.about, c.terms) for c in CLASSICS.values()]
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    for row in rows:
        line = "".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        typer.echo(line.rstrip())
    typer.echo(f"What is fetched lies in {weights_folder()}")


@app.command()
def fetch(
    names: Names,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="Mirror to fetch from; the checksum stays."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Tell nothing but errors.")] = False,
) -> None:
    """Download networks, check them, and make them ready.

    A download that stopped half-way goes on where it stopped.
    """
    from impasto.classics import CLASSICS
    from impasto.terminal import Reporter
    from impasto.weights import bundled, weights_path

    names = list(dict.fromkeys(names))
    if url is not None and len(names) > 1:
        raise SettingsError("--url is the address of one network; give one NAME with it")
    here = {name: weights_path(name) for name in names if name not in CLASSICS}
    with Reporter(quiet) as reporter:
        for name in names:
            if name in here:
                ours = here[name] in bundled().values()
                reporter.result(here[name], "(comes with impasto)" if ours else "(is here)")
            else:
                _fetch(CLASSICS[name], url, reporter)


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="The default is all that are here.")
    ] = None,
) -> None:
    """Compare networks with the checksums that are known of them."""
    from impasto.classics import CLASSICS, is_file
    from impasto.terminal import Reporter
    from impasto.weights import bundled
    from impasto.weights import verify as check

    here = [*bundled(), *(c.name for c in CLASSICS.values() if is_file(c.path))]
    broken = False
    with Reporter() as reporter:
        for name in dict.fromkeys(names or here):
            try:
                typer.echo(f"{name} is sound: {check(name)}")
            except ImpastoError as error:
                broken = True
                reporter.error(error)
    raise typer.Exit(FAILED if broken else 0)


@app.command()
def path(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Print where the file of a network lies."""
    from impasto.weights import weights_path

    typer.echo(str(weights_path(name)))


def _fetch(classic: "Classic", url: str | None, reporter: "Reporter") -> None:
    """Fetches one network and tells how it goes."""
    from impasto.classics import fetch

    try:
        with _Teller(classic.name, reporter) as tell:
            for progress in fetch(classic, url=url):
                tell(progress)
    except KeyboardInterrupt:
        if kept := _kept(classic):
            reporter.say(f"stopped; {_megabytes(kept)} are kept, the next try goes on from there")
        raise
    reporter.result(classic.path, f"({classic.name}, {_megabytes(_size(classic.path))})")


class _Teller:
    """Tells how a fetch goes: with a bar on a terminal, with a line now and then elsewhere."""

    def __init__(self, name: str, reporter: "Reporter") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, highlight=False)
        self._name = name
        self._reporter = reporter
        self._stage = ""
        self._said = 0.0
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=reporter.quiet or not console.is_terminal,
        )

    def __call__(self, progress: "FetchProgress") -> None:
        """Tells how far it is."""
        state = _megabytes(progress.done) if progress.done else ""
        if progress.total:
            state = f"{progress.done / 1e6:.1f} of {_megabytes(progress.total)}"
        begins = progress.stage != self._stage
        self._stage = progress.stage
        if self._bars.disable:
            self._say(state, begins)
        elif begins:  # a task of its own, so that what was here already counts as no speed
            for task in self._bars.task_ids:
                self._bars.remove_task(task)
            title = f"{self._name}: {progress.stage}"
            self._bars.add_task(title, completed=progress.done, total=progress.total, state=state)
        else:
            (task,) = self._bars.task_ids
            self._bars.update(task, completed=progress.done, total=progress.total, state=state)

    def _say(self, state: str, begins: bool) -> None:
        from impasto.terminal import LINE_EVERY

        if begins or time.monotonic() - self._said >= LINE_EVERY:
            self._said = time.monotonic()
            self._reporter.say(f"{self._name}: {self._stage} {state}".rstrip())

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()


def _place(classic: "Classic") -> str:
    """Whether a classic is here, and how large it is."""
    from impasto.classics import find_originals, is_file

    if is_file(classic.path):
        return f"here, {_megabytes(_size(classic.path))}"
    if find_originals(classic):
        return "here, not yet converted"
    if kept := _kept(classic):
        return f"{kept / 1e6:.1f} of {classic.megabytes} MB here"
    return f"not here, {classic.megabytes} MB"


def _kept(classic: "Classic") -> int:
    """How much of an unfinished download is here, bytes."""
    from impasto.classics import is_file
    from impasto.download import part_of

    part = part_of(classic.original)
    return _size(part) if is_file(part) else 0


def _title(path: Path) -> str:
    """What the card of a bundled network calls it."""
    try:
        first, _, _ = path.with_suffix(".md").read_text(encoding="utf-8").partition("\n")
    except OSError:
        return ""
    return first.rpartition(": ")[2]


def _size(path: Path) -> int:
    return path.stat().st_size


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
