"""The flags of the command line, made from the settings: named after them, with their defaults."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import typer

from impasto.settings import Settings, parse_out_size, parse_size

__all__ = ["FLAGS", "NOT_FLAGS", "Common", "Flag", "command_of"]


class Flag(NamedTuple):
    """How a setting looks on the command line."""

    type: type
    metavar: str
    help: str
    unit: str = ""
    parse: Callable[[str], Any] | None = None


FLAGS: Final[Mapping[str, Flag]] = {
    "method": Flag(str, "optimize|fast", "Pixel by pixel, or a network in one pass"),
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


def _default(name: str, unit: str, kinds: Sequence[type[Settings]]) -> str:
    """The default of a flag; where several jobs do not all have the same one, that of each."""
    jobs: dict[str, list[str]] = {}
    for kind in kinds:
        if hasattr(defaults := kind(), name):
            # A strength of None leaves the weights alone, which is what 0.5 does.
            value = 0.5 if name == "strength" else getattr(defaults, name)
            jobs.setdefault(f"{_shown(value)} {unit}".strip(), []).append(kind.job)
    if list(jobs.values()) == [[kind.job for kind in kinds]]:
        return next(iter(jobs))
    return "; ".join(f"{', '.join(those)}: {shown}" for shown, those in jobs.items())


def _settings_flags(kinds: Sequence[type[Settings]]) -> list[inspect.Parameter]:
    """The flags of one job or several, each with its help, default and unit."""
    flags = []
    for name, flag in FLAGS.items():
        if not any(hasattr(kind(), name) for kind in kinds):
            continue
        option = typer.Option(
            "--" + name.replace("_", "-"),
            metavar=flag.metavar,
            help=f"{flag.help}  [default: {_default(name, flag.unit, kinds)}]",
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


def command_of(
    app: typer.Typer, *kinds: type[Settings]
) -> Callable[[Callable[..., int]], Callable[..., None]]:
    """Makes a command of a function that is given its arguments, its settings and `Common`.

    The function returns the exit code. Without settings, it is given no options.

    Args:
        app: the program that gets it, under the function's name.
        *kinds: its settings; of several jobs, if it can do them all.
    """

    def decorate(function: Callable[..., int]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())
        arguments = [p for p in own if p.name not in ("options", "common")]
        flags = [*_settings_flags(kinds), *_common_flags()]

        @functools.wraps(function)
        def command(**values: Any) -> None:
            common = Common(
                **{name: values.pop(name) for name in Common._fields if name != "metadata"},
                metadata=not values.pop("no_metadata"),
            )
            if not kinds:
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
