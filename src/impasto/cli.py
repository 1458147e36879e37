"""The command line: flags in, pictures out, one line and exit code 2 when something is wrong.

Nothing here computes. torch is imported only once a command has found nothing wrong with its
arguments.
"""

import functools
import os
import sys
from typing import Annotated, Any, Final

import typer

from impasto import cli_gan, cli_weights
from impasto._version import __version__
from impasto.errors import ImpastoError, SettingsError, one_line
from impasto.files import os_reason
from impasto.flags import FLAGS, NOT_FLAGS, Common, command_of
from impasto.settings import ReconstructSettings, TextureSettings, TransferSettings

__all__ = ["FLAGS", "NOT_FLAGS", "Common", "app", "main"]

FAILED: Final = 2
INTERRUPTED: Final = 130

SPINS: Final = "3000"
"""How often a thread looks whether others are done before it sleeps. OpenMP's own 300,000 keep two
programs at once from getting anywhere on the same cores (benchmarks/transfer.py --together)."""

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

job = functools.partial(command_of, app)

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

    With --method fast, an animated GIF, WebP or PNG is painted frame by frame if OUT can be one.

    In a folder, a result of the same settings and inputs is skipped, an unfinished one is done
    again, and any other file is left alone unless --overwrite says otherwise.

    INIT is fast, content, noise, style or a PICTURE. sample:astronaut is a photo; sample:strokes,
    sample:woodcut, sample:inkwash, sample:stainedglass, sample:pointillism and sample:marbling
    are styles.
    """
    from impasto.commands import Extras, run_transfer

    extras = Extras(coarse_from or (), protect, regions, style_regions or ())
    return run_transfer(photos, style, extras, out, format, options, common)


@job(TransferSettings, TextureSettings, ReconstructSettings)
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
    belong together are joined by +, as in --vary content-layers=relu2_2,relu3_1+relu4_1; a
    file name with a comma goes in double quotes, as in --vary 'init=noise,"a,b.png"'.

    The flags are those of all three jobs; a default that is not the same for all names its jobs.

    The single pictures are kept in OUT-cells; the same command goes on where it was stopped, and
    each of them can be redone.
    """
    from impasto.commands_grid import parse_vary, run_grid

    parsers = {name: flag.parse or flag.type for name, flag in FLAGS.items()}
    varied = parse_vary(vary or (), parsers)
    return run_grid(job, photos or (), style or (), varied, out, cell, options, common)


@job()
def recolor(
    *,
    photo: Annotated[str, typer.Argument(metavar="PHOTO", help="The photo to recolour.")],
    style: Annotated[str, typer.Argument(metavar="STYLE", help="Whose colours it gets.")],
    out: Out,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="linear|histogram",
            help="By mean and covariance, or one axis of colour after another.",
        ),
    ] = "linear",
    common: Common,
) -> int:
    """Give a photo the colours of a painting, and nothing else of it."""
    from impasto.commands import run_recolor

    if method not in ("linear", "histogram"):
        raise SettingsError(f"method is {method!r}; it can be linear, histogram")
    return run_recolor(photo, style, out, method, common)


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


@job()
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


@app.command()
def export(
    out: Annotated[str, typer.Argument(metavar="OUT.onnx", help="File to write.")],
    encoder: Annotated[
        str,
        typer.Option("--encoder", metavar="NAME|PATH", help="The network that paints in one pass."),
    ] = "fast",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Tell nothing but errors.")] = False,
) -> None:
    """Write the network of --method fast as an ONNX file, for programs without torch.

    It takes a photo and a style of any size and gives the painted photo, each float32 (1, 3, H, W),
    sRGB from 0 to 1.
    """
    from impasto.commands_export import run_export

    raise typer.Exit(run_export(out, encoder, overwrite, quiet))


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
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # is read when torch is loaded
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
