"""The command line: flags in, pictures out, one line and exit code 2 when something is wrong.

Nothing here computes. The flags of a job are made from its settings: named after them, with their
defaults. torch is imported only once a command has found nothing wrong with its arguments.
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple

import typer

from impasto import cli_gan, cli_weights
from impasto._version import __version__
from impasto.errors import ImpastoError, one_line
from impasto.files import os_reason
from impasto.settings import (
    ReconstructSettings,
    Settings,
    TextureSettings,
    TransferSettings,
    parse_out_size,
    parse_size,
)

FAILED: Final = 2
INTERRUPTED: Final = 130

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Repaints your photos in the style of any painting, on any computer, offline.",
    epilog="A PICTURE is a file or sample:NAME; impasto transfer --help names the samples.",
)
app.add_typer(cli_weights.app, name="weights")
app.add_typer(cli_gan.app, name="gan")


class Flag(NamedTuple):
    """How a setting looks on the command line."""

    type: type
    metavar: str
    help: str
    unit: str = ""
    parse: Callable[[str], Any] | None = None


FLAGS: Final[Mapping[str, Flag]] = {
    "size": Flag(str, "PX|full", "Long side of the working size", "px", parse_size),
    "out_size": Flag(str, "WxH", "Size of the texture", "px", parse_out_size),
    "steps": Flag(int, "N", "Loss-and-gradient evaluations over all scales", "steps"),
    "strength": Flag(
        float, "0..1", "How much of the style: 0 gives the photo back, 1 forgets the photo"
    ),
    "content_weight": Flag(float, "W", "Weight of the content loss"),
    "style_weight": Flag(float, "W", "Weight of the style loss (instead of --strength)"),
    "tv_weight": Flag(float, "W", "Weight of the total variation: higher is smoother"),
    "ripple_weight": Flag(float, "W", "Weight against pixel-sized ripple"),
    "content_layers": Flag(str, "LAYERS", "Where content is compared, as relu4_1=1,relu4_2=0.5"),
    "style_layers": Flag(str, "LAYERS", "Where style is compared, as relu1_1=1,relu2_1=0.8"),
    "style_scale": Flag(float, "0.25..4", "How large the strokes are, beside the original's"),
    "colors": Flag(
        str, "style|content|luminance|histogram|linear", "Whose colours; see docs/control.md"
    ),
    "layers": Flag(str, "LAYERS", "The layers to reconstruct from; several make one sheet"),
    "pooling": Flag(str, "max|avg", "Pooling of the network"),
    "padding": Flag(str, "zero|replicate|reflect", "How the network sees beyond the border"),
    "optimizer": Flag(str, "lbfgs|adam", "The optimiser"),
    "init": Flag(str, "INIT", "What to start from"),
    "scales": Flag(int, "N", "Coarse-to-fine scales; 0 starts at about 128 px", "scales"),
    "encoder": Flag(str, "NAME|PATH", "The network that looks; see impasto weights list"),
    "preset": Flag(str, "NAME", "Settings to begin with; flags beat it; see impasto presets"),
    "seed": Flag(int, "N", "Seed of every random draw"),
    "device": Flag(str, "auto|cpu|cuda|mps", "Where to compute"),
    "precision": Flag(str, "auto|float32|bfloat16", "In what to compute"),
    "threads": Flag(int, "N", "CPU threads; 0 leaves it to torch", "threads"),
}
"""Every flag that sets a setting, in the order of --help."""

NOT_FLAGS: Final = {
    "beta1", "beta2", "clip", "epsilon", "memory", "noise", "normalize", "pixel_range", "rate",
    "rounds", "tv_beta", "tv_reduction",
}  # fmt: skip
"""Settings that only presets and the library set."""


class Common(NamedTuple):
    """The flags of every job that are no settings."""

    preview: str | None
    save_every: int | None
    film: str | None
    plot: str | None
    json: str | None
    quiet: bool
    overwrite: bool
    keep_gps: bool
    metadata: bool
    max_megapixels: float | None


def _shown(value: Any) -> str:
    """A default, written as the flag takes it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={weight:g}" for name, weight in value.items())
    if isinstance(value, tuple):
        return ("x" if isinstance(value[0], int) else ", ").join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _settings_flags(kind: type[Settings]) -> list[inspect.Parameter]:
    """The flags of a job, each with its help, default and unit."""
    defaults = kind()
    flags = []
    for name, flag in FLAGS.items():
        if not hasattr(defaults, name):
            continue
        value = getattr(defaults, name)
        # A strength of None leaves the weights alone, which is what 0.5 does.
        shown = "0.5" if name == "strength" else f"{_shown(value)} {flag.unit}".strip()
        option = typer.Option(
            "--" + name.replace("_", "-"),
            metavar=flag.metavar,
            help=f"{flag.help}  [default: {shown}]",
            show_default=False,
        )
        flags.append(_keyword(name, Annotated[flag.type | None, option], None))
    return flags


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _common_flags() -> list[inspect.Parameter]:
    """The flags of `Common`."""

    def text(metavar: str, flag: str, help: str) -> Any:
        return Annotated[str | None, typer.Option(flag, metavar=metavar, help=help)]

    def switch(flag: str, help: str) -> Any:
        return Annotated[bool, typer.Option(flag, help=help)]

    every = Annotated[
        int | None,
        typer.Option("--save-every", metavar="N", help="Keep every Nth step as OUT-0050.png."),
    ]
    quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Tell nothing but errors.")]
    limit = typer.Option(
        "--max-megapixels",
        metavar="N",
        help="Largest picture to read  [default: 178 megapixels]",
        show_default=False,
    )
    return [
        _keyword("preview", text("FILE", "--preview", "Picture rewritten while it works."), None),
        _keyword("save_every", every, None),
        _keyword("film", text("FILE", "--film", "Film of it: .gif, .webp, .png or .mp4."), None),
        _keyword("plot", text("FILE", "--plot", "Loss curves, as .png, .svg or .pdf."), None),
        _keyword("json", text("LOG", "--json", "Log of every step, one JSON object a line."), None),
        _keyword("quiet", quiet, False),
        _keyword("overwrite", switch("--overwrite", "Replace files that are there."), False),
        _keyword("keep_gps", switch("--keep-gps", "Keep the place in the photo's EXIF."), False),
        _keyword("no_metadata", switch("--no-metadata", "Store no record and no EXIF."), False),
        _keyword("max_megapixels", Annotated[float | None, limit], None),
    ]


def job(kind: type[Settings] | None) -> Callable[[Callable[..., int]], Callable[..., None]]:
    """Makes a command of a function that is given its arguments, its settings and `Common`.

    The function returns the exit code. Without settings, it is given no options.
    """

    def decorate(function: Callable[..., int]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())
        arguments = [p for p in own if p.name not in ("options", "common")]
        flags = [*(_settings_flags(kind) if kind else ()), *_common_flags()]

        @functools.wraps(function)
        def command(**values: Any) -> None:
            common = Common(
                **{name: values.pop(name) for name in Common._fields if name != "metadata"},
                metadata=not values.pop("no_metadata"),
            )
            if kind is None:
                raise typer.Exit(function(**values, common=common))
            options = {
                name: flag.parse(value) if flag.parse else value
                for name, flag in FLAGS.items()
                if (value := values.pop(name, None)) is not None
            }
            raise typer.Exit(function(**values, options=options, common=common))

        signature = inspect.Signature([*arguments, *flags])
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        app.command()(command)
        return command

    return decorate


Out = Annotated[
    str, typer.Option("-o", "--out", metavar="OUT", help="File to write.", show_default=False)
]
Style = Annotated[
    list[str] | None,
    typer.Option("-s", "--style", metavar="STYLE", help="PICTURE[:WEIGHT][@MASK]; repeatable."),
]


@job(TransferSettings)
def transfer(
    *,
    photos: Annotated[
        list[str],
        typer.Argument(metavar="PHOTO", help="Photos or folders; without -s: photo and style."),
    ],
    style: Style = None,
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            metavar="OUT",
            help="File, or folder (ends in /) for several photos.",
            show_default=False,
        ),
    ],
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="SUFFIX", help="Format in a folder  [default: png]"),
    ] = None,
    coarse_from: Annotated[
        list[str] | None,
        typer.Option(
            "--coarse-from",
            metavar="STYLE",
            help="Coarse strokes from this one, fine texture from -s.",
        ),
    ] = None,
    protect: Annotated[
        str | None,
        typer.Option("--protect", metavar="MASK", help="What is light in it stays as it is."),
    ] = None,
    regions: Annotated[
        str | None,
        typer.Option("--regions", metavar="MAP", help="Flat colours that say which part is which."),
    ] = None,
    style_regions: Annotated[
        list[str] | None,
        typer.Option("--style-regions", metavar="MAP", help="The same of each style, in order."),
    ] = None,
    options: dict[str, Any],
    common: Common,
) -> int:
    """Repaint photos in the style of a painting.

    With -s every PICTURE before it is a photo; a folder means the pictures in it. Without -s there
    are exactly two: the photo and the style. The result has exactly the photo's size.

    A STYLE is PICTURE[:WEIGHT][@MASK]: -s sky.jpg@sky.png -s ground.jpg paints what is light in
    sky.png in the one style, and the rest in the other.

    In a folder, a result of the same settings and inputs is skipped, an unfinished one is done
    again, and any other file is left alone unless --overwrite says otherwise.

    INIT is content, noise, style or a PICTURE. sample:astronaut is a photo; sample:strokes,
    sample:woodcut, sample:inkwash, sample:stainedglass, sample:pointillism and sample:marbling
    are styles.
    """
    from impasto.commands import Extras, run_transfer

    extras = Extras(coarse_from or (), protect, regions, style_regions or ())
    return run_transfer(photos, style, extras, out, format, options, common)


@job(TransferSettings)
def grid(
    *,
    photos: Annotated[
        list[str] | None, typer.Argument(metavar="PHOTO...", help="Photos or folders.")
    ] = None,
    style: Annotated[
        list[str] | None,
        typer.Option("-s", "--style", metavar="PICTURE", help="A style; repeat for all."),
    ] = None,
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="OUT", help="The sheet.", show_default=False)
    ],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary", metavar="NAME=A,B,C", help="A setting and its values; repeat for more."
        ),
    ] = None,
    job: Annotated[
        str, typer.Option("--job", metavar="transfer|texture|reconstruct", help="What is done.")
    ] = "transfer",
    cell: Annotated[
        int, typer.Option("--cell", metavar="PX", help="Long side of a picture on the sheet.")
    ] = 320,
    options: dict[str, Any],
    common: Common,
) -> int:
    """Compare: photos, styles and settings on one labelled sheet.

    Several photos, several styles and every --vary are sides of the sheet, each style alone:
    impasto grid photo.jpg -s a.jpg -s b.jpg --vary strength=0.3,0.6,0.9 -o sheet.png. Layers that
    belong together are joined by +, as in --vary content-layers=relu2_2,relu3_1+relu4_1.

    The single pictures are kept in OUT-cells; the same command goes on where it was stopped, and
    each of them can be redone.
    """
    from impasto.commands_grid import parse_vary, run_grid

    parsers = {name: flag.parse or flag.type for name, flag in FLAGS.items()}
    varied = parse_vary(vary or (), parsers)
    return run_grid(job, photos or (), style or (), varied, out, cell, options, common)


@job(TextureSettings)
def texture(
    *,
    style: Annotated[list[str], typer.Argument(metavar="STYLE", help="PICTURE[:WEIGHT].")],
    out: Out,
    options: dict[str, Any],
    common: Common,
) -> int:
    """Paint a texture that has a painting's style, from noise.

    STYLE is PICTURE[:WEIGHT]; several are blended. INIT is noise, style or a PICTURE.
    """
    from impasto.commands import run_texture

    return run_texture(style, out, options, common)


@job(ReconstructSettings)
def reconstruct(
    *,
    image: Annotated[str, typer.Argument(metavar="PICTURE", help="The picture to look at.")],
    out: Out,
    options: dict[str, Any],
    common: Common,
) -> int:
    """Show what the network's layers keep of a picture.

    Several LAYERS make one labelled sheet. INIT is noise or a PICTURE.
    """
    from impasto.commands import run_reconstruct

    return run_reconstruct(image, out, options, common)


@job(None)
def redo(
    *,
    result: Annotated[str, typer.Argument(metavar="RESULT", help="A picture that impasto made.")],
    out: Out,
    content: Annotated[
        str | None, typer.Option("--content", metavar="FILE", help="The photo it was made from.")
    ] = None,
    style: Annotated[
        list[str] | None, typer.Option("--style", metavar="FILE", help="The style; repeat for all.")
    ] = None,
    init: Annotated[
        str | None, typer.Option("--init", metavar="FILE", help="The picture it started from.")
    ] = None,
    mask: Annotated[
        list[str] | None, typer.Option("--mask", metavar="FILE", help="A mask or map; repeatable.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", metavar="PATH", help="The network's weight file.")
    ] = None,
    common: Common,
) -> int:
    """Make a result again from the settings stored inside it.

    The pictures that it was made from are looked for beside it, here and among the samples, and
    have to be the very files. On the same machine and versions the pixels come out the same.
    """
    from impasto.commands import run_redo

    return run_redo(result, out, content, style, init, mask, encoder, common)


@app.command()
def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show every figure of this one.")
    ] = None,
) -> None:
    """List the presets, or show one with all its figures."""
    from impasto.recipes import describe, overview

    typer.echo(overview() if name is None else describe(name))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"impasto {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """The program `impasto`. Exits with 0, with 2 if anything failed, with 130 on Ctrl-C."""
    try:
        code = app(standalone_mode=False)
    except (typer.TyperException, ImpastoError) as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        if text:
            _fail(text)
        sys.exit(FAILED)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except MemoryError:
        _fail("not enough memory; choose a smaller --size, or close other programs")
        sys.exit(FAILED)
    except OSError as error:
        if error.filename is not None:  # a name that the system does not allow, for one
            _fail(f"cannot use {os.fsdecode(error.filename)}: {os_reason(error)}")
            sys.exit(FAILED)
        # Our own output: a full disk, a pipe that nobody reads any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            _fail(f"cannot write to standard output: {error.strerror}")
        sys.exit(FAILED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"impasto: {one_line(text)}\n")
