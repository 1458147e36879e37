"""`impasto gan train`: its flags. Nothing here imports torch before they are checked."""

from typing import Annotated, Any

import typer

from impasto.errors import SettingsError
from impasto.gan.settings import (
    DCGAN,
    GAMMAS,
    STYLE_CPU,
    STYLE_GPU,
    make_gan_settings,
    parse_augment,
    parse_count,
    parse_gamma,
    parse_time,
)

__all__ = ["train"]

_DEFAULT = make_gan_settings({})
_GAMMAS = ", ".join(f"{first:g},{last:g} at {s} px" for s, (first, last) in GAMMAS.items())
_CLASSIC = make_gan_settings({"arch": "dcgan"})


def _flag(name: str, metavar: str, text: str, shown: object = None) -> Any:
    help = f"{text}  [default: {shown}]" if shown is not None else text
    return typer.Option(name, metavar=metavar, help=help, show_default=False)


def _shown(name: str) -> str:
    """The default of an option that depends on the networks and on the machine."""
    cpu, gpu, classic = (_text(part.get(name)) for part in (STYLE_CPU, STYLE_GPU, DCGAN))
    parts = [cpu] if gpu in ("", cpu) else [cpu, f"on a GPU {gpu}"]
    return ", ".join(parts + ([f"dcgan {classic}"] if classic not in ("", cpu) else []))


def _text(value: object) -> str:
    if value is None:
        return ""
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value or "none")


def train(
    folders: Annotated[
        list[str], typer.Argument(metavar="FOLDER...", help="Folders of paintings, or pictures.")
    ],
    out: Annotated[
        str,
        typer.Option("-o", "--out", metavar="RUN", help="Folder of the run.", show_default=False),
    ],
    arch: Annotated[
        str | None, _flag("--arch", "style|dcgan", "The networks", _DEFAULT.arch)
    ] = None,
    size: Annotated[
        int | None, _flag("--size", "64|128|256", "Side of the pictures, px", _DEFAULT.size)
    ] = None,
    images: Annotated[
        str | None, _flag("--images", "N", "Training pictures to see, as 150k", "500k")
    ] = None,
    passes: Annotated[
        float | None, _flag("--passes", "N", "Passes over the pictures, instead of --images")
    ] = None,
    time: Annotated[
        str | None, _flag("--time", "2h", "Stop after that long; --resume goes on")
    ] = None,
    warm_start: Annotated[
        str | None,
        _flag("--warm-start", "RUN", "Begin with the networks of a style run of this size or less"),
    ] = None,
    tune_gamma: Annotated[
        bool,
        typer.Option("--tune-gamma", help="Try three weights of R1 and R2 first; keep the best."),
    ] = False,
    batch: Annotated[
        int | None, _flag("--batch", "N", "Pictures per step", _shown("batch"))
    ] = None,
    loss: Annotated[
        str | None,
        _flag("--loss", "bce|wgan-gp|hinge|relativistic", "The loss of dcgan", _CLASSIC.loss),
    ] = None,
    lr: Annotated[float | None, _flag("--lr", "RATE", "Adam's rate", "as the paper")] = None,
    ema: Annotated[
        str | None,
        _flag("--ema", "N", "Half-life of the generator's average, pictures", _shown("ema")),
    ] = None,
    augment: Annotated[
        str | None,
        _flag("--augment", "LIST", "color,translation,cutout, all or none", _shown("augment")),
    ] = None,
    augment_by: Annotated[
        str | None,
        _flag(
            "--augment-by",
            "always|schedule|gap",
            "What share of pictures (style)",
            _DEFAULT.augment_by,
        ),
    ] = None,
    gamma: Annotated[
        str | None,
        _flag(
            "--gamma",
            "G,G",
            "Weight of R1 and R2, first and last (style)",
            _GAMMAS,
        ),
    ] = None,
    penalty_every: Annotated[
        int | None,
        _flag(
            "--penalty-every",
            "N",
            "Steps from one R1 and R2 to the next (style)",
            _shown("penalty_every"),
        ),
    ] = None,
    mixing: Annotated[
        float | None,
        _flag("--mixing", "SHARE", "Pictures of two styles in training (style)", _DEFAULT.mixing),
    ] = None,
    schedule: Annotated[
        str | None,
        _flag(
            "--schedule",
            "N",
            "Pictures until rate, gamma and so on have their last value",
            "--images",
        ),
    ] = None,
    tile: Annotated[
        bool, typer.Option("--tile", help="Cut large pictures and scrolls into squares.")
    ] = False,
    crops: Annotated[
        int | None, _flag("--crops", "N", "Random squares per picture at several scales", 0)
    ] = None,
    crop: Annotated[
        str | None,
        _flag("--crop", "centre|random", "Part of a picture that is seen", _DEFAULT.crop),
    ] = None,
    no_flip: Annotated[bool, typer.Option("--no-flip", help="Mirror no pictures.")] = False,
    held_out: Annotated[
        float | None,
        _flag("--held-out", "SHARE", "Paintings kept for scores only", _DEFAULT.held_out),
    ] = None,
    max_megapixels: Annotated[
        float | None,
        typer.Option("--max-megapixels", metavar="N", help="Largest picture to read.", min=0.001),
    ] = None,
    latent: Annotated[
        int | None, _flag("--latent", "N", "Numbers in a latent vector", _shown("latent"))
    ] = None,
    channels: Annotated[
        str | None,
        _flag("--channels", "N,N,...", "Feature maps at 4, 8, ... px (style)", _shown("channels")),
    ] = None,
    mapping: Annotated[
        int | None, _flag("--mapping", "N", "Layers of the mapping (style)", _DEFAULT.mapping)
    ] = None,
    width: Annotated[
        int | None,
        _flag("--width", "N", "Feature maps where the side is largest (dcgan)", _CLASSIC.width),
    ] = None,
    seed: Annotated[int | None, _flag("--seed", "N", "Seed of every draw", _DEFAULT.seed)] = None,
    device: Annotated[
        str | None, _flag("--device", "auto|cpu|cuda|mps", "Where to compute", _DEFAULT.device)
    ] = None,
    precision: Annotated[
        str | None, _flag("--precision", "auto|float32|bfloat16", "In what", _DEFAULT.precision)
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
    cache: Annotated[
        str | None,
        typer.Option("--cache", metavar="FOLDER", help="Where decoded pictures are kept."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Tell nothing but errors.")] = False,
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
        "augment_by": augment_by,
        "gamma": None if gamma is None else parse_gamma(gamma),
        "penalty_every": penalty_every,
        "mixing": mixing,
        "schedule": None if schedule is None else parse_count(schedule),
        "tile": tile or None,
        "crops": crops,
        "crop": crop,
        "flip": False if no_flip else None,
        "held_out": held_out,
        "max_megapixels": max_megapixels,
        "latent": latent,
        "channels": None if channels is None else _channels(channels),
        "mapping": mapping,
        "width": width,
        "seed": seed,
        "device": device,
        "precision": precision,
        "threads": threads,
        "snapshot_every": None if snapshot_every is None else parse_count(snapshot_every),
    }
    given = {name: value for name, value in options.items() if value is not None}
    if not resume:  # of a run that goes on, the networks are not known yet
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
            warm_start=warm_start,
            tune_gamma=tune_gamma,
        )
    )


def _channels(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(
            f"--channels {text} are no numbers; write one for each side, as {_shown('channels')}"
        ) from None
