"""`impasto gan`: learn to paint from a folder of paintings, and paint new ones.

Nothing here imports torch; the commands do, once nothing is wrong with their arguments.
"""

from typing import Annotated, Any, Final

import typer

from impasto.cli_gan_train import train
from impasto.errors import SettingsError
from impasto.gan.settings import make_gan_settings

__all__ = ["app"]

app = typer.Typer(
    rich_markup_mode=None,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Learn to paint from a folder of paintings, and paint new pictures.",
)

DEFAULT: Final = make_gan_settings({})


def _checked_seed(seed: int) -> int:
    """A seed, within the bounds that it has wherever one is written."""
    if not 0 <= seed < 10**18:
        raise SettingsError(f"--seed is {seed}; it is a number from 0 on, of 18 digits at most")
    return seed


Folders = Annotated[
    list[str], typer.Argument(metavar="FOLDER...", help="Folders of pictures, or pictures.")
]
Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Folder of a run, an exported file, or builtin:NAME."),
]
Truncation = Annotated[
    float,
    typer.Option(
        "--truncation", metavar="0..2", help="How far from the mean picture (style).", min=0, max=2
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Tell nothing but errors.")]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", help="Seed of every draw.", callback=_checked_seed)
]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda|mps", help="Where to compute.")
]
Megapixels = Annotated[
    float | None,
    typer.Option("--max-megapixels", metavar="N", help="Largest picture to read.", min=0.001),
]
Cache = Annotated[
    str | None,
    typer.Option("--cache", metavar="FOLDER", help="Where decoded pictures are kept."),
]


def _out(metavar: str, text: str) -> Any:
    return typer.Option("-o", "--out", metavar=metavar, help=text, show_default=False)


def _flag(name: str, metavar: str, text: str, shown: object = None) -> Any:
    help = f"{text}  [default: {shown}]" if shown is not None else text
    return typer.Option(name, metavar=metavar, help=help, show_default=False)


@app.callback()
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def data(
    folders: Folders,
    sheet: Annotated[str | None, _flag("--sheet", "FILE", "Write a sheet of thumbnails.")] = None,
    size: Annotated[int, _flag("--size", "PX", "Side of training pictures", 64)] = DEFAULT.size,
    tile: Annotated[
        bool, typer.Option("--tile", help="Count squares as train would cut them.")
    ] = False,
    crops: Annotated[int, _flag("--crops", "N", "Count N random squares per picture", 0)] = 0,
    max_megapixels: Megapixels = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Say what is in folders: how many pictures, their sizes, duplicates, what cannot be used."""
    from impasto.gan.commands_learn import run_data

    options: dict[str, Any] = {"size": size, "tile": tile, "crops": crops}
    options["max_megapixels"] = max_megapixels or 0.0
    raise typer.Exit(run_data(folders, sheet, make_gan_settings(options), overwrite, quiet))


app.command()(train)


@app.command()
def sample(
    run: Run,
    out: Annotated[str, _out("FILE|DIR/", "A sheet, or a folder of single pictures.")],
    count: Annotated[int | None, _flag("-n", "N", "How many pictures", 64)] = None,
    seed: Seed = 0,
    truncation: Truncation = 1.0,
    latent: Annotated[
        str | None, _flag("--latent", "FILE", "Paint what gan project or gan mix found, again")
    ] = None,
    repaint: Annotated[
        str | None, _flag("--repaint", "PICTURE", "Enlarge them, with the strokes of a painting")
    ] = None,
    size: Annotated[int | None, _flag("--size", "PX", "Side of what is repainted", 1024)] = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Paint new pictures: one sheet, or one file each in a folder (OUT ends in /)."""
    from impasto.gan.commands_paint import SampleOptions, run_sample

    options = SampleOptions(
        count=count,
        seed=seed,
        truncation=truncation,
        latent=latent,
        repaint=repaint,
        size=size,
    )
    raise typer.Exit(run_sample(run, out, options, device, overwrite, quiet))


@app.command()
def mix(
    run: Run,
    one: Annotated[str, typer.Argument(metavar="A", help="A seed, or a picture by gan project.")],
    other: Annotated[str, typer.Argument(metavar="B", help="Likewise.")],
    out: Annotated[str, _out("FILE", "A strip from B to A; with --at a single picture.")],
    at: Annotated[
        int | None, _flag("--at", "PX", "A decides below so many px, B from there on: 8, 16, ...")
    ] = None,
    truncation: Truncation = 1.0,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Mix two pictures: the composition of A with the colours and strokes of B (style)."""
    from impasto.gan.commands_style import run_mix

    raise typer.Exit(run_mix(run, one, other, out, at, truncation, device, overwrite, quiet))


@app.command()
def project(
    run: Run,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The picture to look for.")],
    out: Annotated[str, _out("FILE", "What was found, with its latent inside.")],
    steps: Annotated[int, _flag("--steps", "N", "Steps of the search", 300)] = 300,
    seed: Seed = 0,
    device: Device = "auto",
    max_megapixels: Megapixels = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Find a picture's latent: what the generator paints most like it (style)."""
    from impasto.gan.commands_style import run_project

    raise typer.Exit(
        run_project(run, image, out, steps, seed, device, max_megapixels, overwrite, quiet)
    )


@app.command()
def walk(
    run: Run,
    out: Annotated[str, _out("FILE", ".gif, .webp, .png or .mp4.")],
    seconds: Annotated[float, _flag("--seconds", "S", "Length of the loop", 8)] = 8.0,
    stops: Annotated[int, _flag("--stops", "N", "Pictures that it passes through", 6)] = 6,
    seed: Seed = 0,
    truncation: Truncation = 1.0,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Film a smooth loop through the latents."""
    from impasto.gan.commands_paint import run_walk

    raise typer.Exit(run_walk(run, out, seconds, stops, seed, truncation, device, overwrite, quiet))


@app.command()
def judge(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Pictures to judge.")],
    device: Device = "auto",
    max_megapixels: Megapixels = None,
) -> None:
    """Say how real the run's discriminator takes pictures to be."""
    from impasto.gan.commands_paint import run_judge

    raise typer.Exit(run_judge(run, images, device, max_megapixels))


@app.command()
def score(
    run: Run,
    folders: Folders,
    count: Annotated[int, _flag("-n", "N", "Pictures to paint", 1000)] = 1000,
    seed: Seed = 0,
    device: Device = "auto",
    cache: Cache = None,
    max_megapixels: Megapixels = None,
    quiet: Quiet = False,
) -> None:
    """Score a generator against paintings: KID, density and coverage on our own features."""
    from impasto.gan.commands_paint import run_score

    raise typer.Exit(run_score(run, folders, count, seed, device, cache, max_megapixels, quiet))


@app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run.")],
    out: Annotated[str, _out("FILE", "Ends in .safetensors.")],
    newest: Annotated[
        bool, typer.Option("--newest", help="The newest checkpoint, not the best.")
    ] = False,
    half: Annotated[
        bool, typer.Option("--half", help="Weights in float16: half the size.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write the generator and its card as one file for others."""
    from impasto.gan.commands_paint import run_export

    raise typer.Exit(run_export(run, out, newest, half, overwrite, quiet))
