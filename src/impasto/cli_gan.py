"""`impasto gan`: learn to paint from a folder of paintings, and paint new ones.

Nothing here imports torch; the commands do, once nothing is wrong with their arguments.
"""

from typing import Annotated, Any, Final

import typer

from impasto.gan.settings import (
    GanSettings,
    make_gan_settings,
    parse_augment,
    parse_count,
    parse_time,
)

__all__ = ["app"]

app = typer.Typer(
    rich_markup_mode=None,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Learn to paint from a folder of paintings, and paint new pictures.",
)

DEFAULT: Final = GanSettings()

Folders = Annotated[
    list[str], typer.Argument(metavar="FOLDER...", help="Folders of pictures, or pictures.")
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or an exported file.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Tell nothing but errors.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of every draw.")]
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


@app.command()
def train(
    folders: Annotated[
        list[str], typer.Argument(metavar="FOLDER...", help="Folders of paintings, or pictures.")
    ],
    out: Annotated[str, _out("RUN", "Folder of the run.")],
    arch: Annotated[str | None, _flag("--arch", "dcgan", "The networks", "dcgan")] = None,
    size: Annotated[
        int | None, _flag("--size", "64|128", "Side of the pictures, px", DEFAULT.size)
    ] = None,
    loss: Annotated[
        str | None, _flag("--loss", "bce|wgan-gp|hinge|relativistic", "The loss", DEFAULT.loss)
    ] = None,
    batch: Annotated[int | None, _flag("--batch", "N", "Pictures per step", DEFAULT.batch)] = None,
    images: Annotated[
        str | None, _flag("--images", "N", "Training pictures to see, as 150k", "500k")
    ] = None,
    passes: Annotated[
        float | None, _flag("--passes", "N", "Passes over the pictures, instead of --images")
    ] = None,
    time: Annotated[
        str | None, _flag("--time", "2h", "Stop after that long; --resume goes on")
    ] = None,
    lr: Annotated[float | None, _flag("--lr", "RATE", "Adam's rate", "as the loss's paper")] = None,
    ema: Annotated[
        str | None, _flag("--ema", "N", "Half-life of the generator's average, pictures", "none")
    ] = None,
    augment: Annotated[
        str | None,
        _flag("--augment", "LIST", "color,translation,cutout, all or none", "none"),
    ] = None,
    tile: Annotated[
        bool, typer.Option("--tile", help="Cut large pictures and scrolls into squares.")
    ] = False,
    crops: Annotated[
        int | None, _flag("--crops", "N", "Random squares per picture at several scales", 0)
    ] = None,
    crop: Annotated[
        str | None, _flag("--crop", "centre|random", "Part of a picture that is seen", DEFAULT.crop)
    ] = None,
    no_flip: Annotated[bool, typer.Option("--no-flip", help="Mirror no pictures.")] = False,
    held_out: Annotated[
        float | None,
        _flag("--held-out", "SHARE", "Paintings kept for scores only", DEFAULT.held_out),
    ] = None,
    max_megapixels: Megapixels = None,
    latent: Annotated[
        int | None, _flag("--latent", "N", "Numbers in a latent vector", DEFAULT.latent)
    ] = None,
    width: Annotated[
        int | None, _flag("--width", "N", "Feature maps where the side is largest", DEFAULT.width)
    ] = None,
    seed: Annotated[int | None, _flag("--seed", "N", "Seed of every draw", DEFAULT.seed)] = None,
    device: Annotated[
        str | None, _flag("--device", "auto|cpu|cuda|mps", "Where to compute", DEFAULT.device)
    ] = None,
    precision: Annotated[
        str | None, _flag("--precision", "auto|float32|bfloat16", "In what", DEFAULT.precision)
    ] = None,
    threads: Annotated[int | None, _flag("--threads", "N", "CPU threads", "all")] = None,
    snapshot_every: Annotated[
        str | None, _flag("--snapshot-every", "N", "Pictures between snapshots", "10k")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run, with its own settings.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show settings, sizes and a time estimate; stop.")
    ] = False,
    cache: Cache = None,
    quiet: Quiet = False,
) -> None:
    """Train a GAN on a folder of paintings.

    RUN gets snapshots/ (grids of fixed latents, real beside generated), curves.png, log.jsonl,
    scores.jsonl, the last two checkpoints and the one with the best KID. Stop it in any way;
    --resume goes on. On several GPUs: torchrun --nproc-per-node N -m impasto gan train ...
    """
    options: dict[str, Any] = {
        "arch": arch,
        "size": size,
        "loss": loss,
        "batch": batch,
        "images": None if images is None else parse_count(images),
        "lr": lr,
        "ema": None if ema is None else 0 if ema == "none" else parse_count(ema),
        "augment": None if augment is None else parse_augment(augment),
        "tile": tile or None,
        "crops": crops,
        "crop": crop,
        "flip": False if no_flip else None,
        "held_out": held_out,
        "max_megapixels": max_megapixels,
        "latent": latent,
        "width": width,
        "seed": seed,
        "device": device,
        "precision": precision,
        "threads": threads,
        "snapshot_every": None if snapshot_every is None else parse_count(snapshot_every),
    }
    given = {name: value for name, value in options.items() if value is not None}
    make_gan_settings(given)  # before torch's long import
    seconds = None if time is None else parse_time(time)
    from impasto.gan.commands_learn import run_train

    raise typer.Exit(
        run_train(
            folders,
            out,
            given,
            passes=passes,
            seconds=seconds,
            resume=resume,
            dry_run=dry_run,
            cache=cache,
            quiet=quiet,
        )
    )


@app.command()
def sample(
    run: Run,
    out: Annotated[str, _out("FILE|DIR/", "A sheet, or a folder of single pictures.")],
    count: Annotated[int, _flag("-n", "N", "How many pictures", 64)] = 64,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Paint new pictures: one sheet, or one file each in a folder (OUT ends in /)."""
    from impasto.gan.commands_paint import run_sample

    raise typer.Exit(run_sample(run, out, count, seed, device, overwrite, quiet))


@app.command()
def walk(
    run: Run,
    out: Annotated[str, _out("FILE", ".gif, .webp, .png or .mp4.")],
    seconds: Annotated[float, _flag("--seconds", "S", "Length of the loop", 8)] = 8.0,
    stops: Annotated[int, _flag("--stops", "N", "Pictures that it passes through", 6)] = 6,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Film a smooth loop through the latents."""
    from impasto.gan.commands_paint import run_walk

    raise typer.Exit(run_walk(run, out, seconds, stops, seed, device, overwrite, quiet))


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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write the generator and its card as one file for others."""
    from impasto.gan.commands_paint import run_export

    raise typer.Exit(run_export(run, out, newest, overwrite, quiet))
