"""Every option of every job, with the only defaults there are.

The library's keyword arguments, the command line's flags and the stored records are all made from
these dataclasses. A preset is a set of changes to them. Nothing here imports torch.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, TypeVar

from impasto.checks import (
    MAX_SIDE,
    check_choice,
    check_integer,
    check_layers,
    check_number,
    check_scale,
    check_size,
)
from impasto.errors import SettingsError
from impasto.presets import PRESETS

__all__ = [
    "STARTS",
    "ReconstructSettings",
    "Settings",
    "TextureSettings",
    "TransferSettings",
    "make_settings",
    "parse_layers",
    "parse_out_size",
    "parse_size",
]

Pooling = Literal["max", "avg"]
Padding = Literal["zero", "replicate", "reflect"]
Normalization = Literal["sum", "mean", "gatys", "relative", "keras", "fastai"]
Reduction = Literal["mean", "sum"]
Clip = Literal["step", "round", "end"]
Noise = Literal["uniform", "centred", "faint"]
OptimizerName = Literal["lbfgs", "adam"]
Precision = Literal["auto", "float32", "bfloat16"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Method = Literal["optimize", "fast"]
Colors = Literal["style", "content", "luminance", "histogram", "linear"]
Layers = Mapping[str, float]
"""Layer names and their weights, such as {"relu1_1": 1.0}."""

CONTENT_LAYERS: Final[Layers] = MappingProxyType({"relu3_2": 1.0, "relu4_2": 1.0})
STYLE_WEIGHT: Final = 15.0
STARTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "transfer": ("fast", "content", "noise", "style"),
        "texture": ("noise", "style"),
        "reconstruct": ("noise",),
    }
)
"""What `init` can be in each job, beside a picture."""

FAST: Final = frozenset(
    {"method", "size", "strength", "style_scale", "colors", "encoder", "device", "threads"}
)
"""What can be said of a picture that is painted in one pass."""

STYLE_LAYERS: Final[Layers] = MappingProxyType(
    {"relu1_1": 2.0, "relu1_2": 2.0}
    | {f"relu{block}_{i}": 1.0 for block in (2, 3, 4) for i in (1, 2)}
    | {"relu5_1": 1.0}
)
"""Every layer of the bundled network; the first two, before any pooling, carry colour."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every job has.

    Attributes:
        preset: the name of the preset that the other values began with.
        steps: loss-and-gradient evaluations, over all scales.
        scales: coarse-to-fine scales, each half the size of the next; 0 for as many as bring
            the long side to about 128 px.
        optimizer: `lbfgs` or `adam`.
        memory: pairs of differences that L-BFGS remembers.
        rounds: into how many rounds the steps of a scale are divided; each begins with an
            optimiser that remembers nothing.
        clip: when pixels are brought back to [0, 1]: after every `step`, after every `round`, or
            only at the `end`.
        rate: Adam's step size, in units of `pixel_range`.
        beta1: decay of Adam's first moment.
        beta2: decay of Adam's second moment.
        epsilon: of Adam, in loss per unit of `pixel_range`.
        encoder: the name of a network or the path of a weight file.
        pooling: `avg`, as our network was trained and Gatys et al. 2015 advise, or `max`.
        padding: how the network continues the picture beyond its border: `zero`, `replicate`
            or `reflect`.
        normalize: what the losses are divided by; see `impasto.losses`.
        pixel_range: 1 or 255: the unit in which total variation and Adam measure pixels.
        tv_weight: weight of the total variation.
        tv_beta: its exponent β; see `impasto.losses.total_variation`.
        tv_reduction: whether it is a `mean` or a `sum`.
        ripple_weight: weight of the second variation, which keeps down a pixel-sized ripple.
        noise: how a noise start is drawn: `uniform` in [0, 1); `centred`, uniform of the same width
            around what the network takes for zero; `faint`, within 0.025 of 255 of that.
        seed: of every random draw.
        device: `auto` takes CUDA, then MPS, then the CPU.
        precision: of the network; `auto` takes bfloat16 where the hardware has it.
        threads: CPU threads; 0 for as many as torch takes by itself.
    """

    job: ClassVar[str] = ""

    preset: str = "default"
    steps: int = 300
    scales: int = 0
    optimizer: OptimizerName = "lbfgs"
    memory: int = 10
    rounds: int = 1
    clip: Clip = "step"
    rate: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-12
    encoder: str = "slim"
    pooling: Pooling = "avg"
    padding: Padding = "replicate"
    normalize: Normalization = "relative"
    pixel_range: int = 1
    tv_weight: float = 0.0
    tv_beta: float = 2.0
    tv_reduction: Reduction = "mean"
    ripple_weight: float = 5.0
    noise: Noise = "uniform"
    seed: int = 0
    device: DeviceName = "auto"
    precision: Precision = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OptimizerName)
        check_choice("pooling", self.pooling, Pooling)
        check_choice("padding", self.padding, Padding)
        check_choice("normalize", self.normalize, Normalization)
        check_choice("device", self.device, DeviceName)
        check_choice("precision", self.precision, Precision)
        check_choice("tv_reduction", self.tv_reduction, Reduction)
        check_choice("clip", self.clip, Clip)
        check_choice("noise", self.noise, Noise)
        if self.pixel_range not in (1, 255):
            raise SettingsError(f"pixel_range is {self.pixel_range!r}; it can be 1 or 255")
        check_integer("steps", self.steps, 1, 1_000_000)
        check_integer("scales", self.scales, 0, 12)
        check_integer("memory", self.memory, 1, 1000)
        check_integer("rounds", self.rounds, 1, 1_000_000)
        check_integer("threads", self.threads, 0, 1024)
        check_integer("seed", self.seed, 0, 2**63 - 1)
        check_number("rate", self.rate, above=0)
        check_number("epsilon", self.epsilon, above=0)
        for name in ("beta1", "beta2"):
            check_number(name, getattr(self, name))
            if getattr(self, name) >= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; it is a number below 1")
        check_number("tv_weight", self.tv_weight)
        check_number("tv_beta", self.tv_beta)
        if not 1 <= self.tv_beta <= 4:
            raise SettingsError(f"tv_beta is {self.tv_beta}; it goes from 1 to 4")
        check_number("ripple_weight", self.ripple_weight)

    @property
    def tolerates_bfloat16(self) -> bool:
        """Whether bfloat16 was seen to end within 1 % of float32's loss with such settings."""
        return self.normalize == "relative"

    def record(self) -> dict[str, Any]:
        """All values as plain JSON types."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            k: dict(v) if isinstance(v, Mapping) else list(v) if isinstance(v, tuple) else v
            for k, v in values.items()
        }


@dataclass(frozen=True, kw_only=True)
class TransferSettings(Settings):
    """The settings of `transfer`.

    Attributes:
        method: `optimize` minimises the losses, pixel by pixel; `fast` is a network that does it in
            one pass; it has the settings that are about the picture and not about the losses, and
            `encoder` is the network that paints.
        size: long side of the working size, px, or `full` for the photo's own. A photo is never
            enlarged.
        strength: 0 to 1; 0 gives the photo back, 1 ignores its content, 0.5 takes the weights
            as they are. None is 0.5.
        content_weight: weight of the content loss.
        style_weight: weight of the style loss, before `strength` moves it.
        content_layers: where content is compared, with weights relative to each other.
        style_layers: where style is compared, with weights relative to each other.
        style_scale: how large the strokes are, 0.25 to 4: 1 as in the original, relative to the
            picture; a style's file limits how large they can be.
        colors: `style` paints in the style's colours; `content` gives the painting the photo's
            afterwards; `luminance` paints light and dark alone, over the photo's colours;
            `histogram` and `linear` first bring the style's colours to the photo's, one axis of
            colour after another or by mean and covariance.
        init: `fast` for what the network that paints in one pass makes of the photo, `content` for
            the photo itself, `noise`, `style`, or a picture to start from.
    """

    job: ClassVar[str] = "transfer"

    method: Method = "optimize"
    size: int | Literal["full"] = 512
    strength: float | None = None
    content_weight: float = 1.0
    style_weight: float = STYLE_WEIGHT
    content_layers: Layers = field(default_factory=lambda: CONTENT_LAYERS)
    style_layers: Layers = field(default_factory=lambda: STYLE_LAYERS)
    style_scale: float = 1.0
    colors: Colors = "style"
    init: str = "fast"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("method", self.method, Method)
        check_size(self.size)
        check_number("content_weight", self.content_weight)
        check_number("style_weight", self.style_weight)
        check_layers("content_layers", self.content_layers)
        check_layers("style_layers", self.style_layers)
        check_scale(self.style_scale)
        check_choice("colors", self.colors, Colors)
        if self.strength is not None:
            check_number("strength", self.strength)
            if self.strength > 1:
                raise SettingsError(f"strength is {self.strength}; it goes from 0 to 1")

    @property
    def weights(self) -> tuple[float, float]:
        """The weights of content and style once `strength` has moved them.

        The style's weight grows as (s / (1 − s))², so that equal steps of the strength look
        about equally large; from 1 on, only style is left.
        """
        s = 0.5 if self.strength is None else self.strength
        if s >= 1:
            return 0.0, self.style_weight
        return self.content_weight, self.style_weight * (s / (1 - s)) ** 2

    @property
    def effective_strength(self) -> float:
        """The strength that has these weights: 0.5 for the default ones, 1 without content.

        Weights of other losses than the default, relative ones say nothing of it.
        """
        if self.normalize != TransferSettings.normalize:
            return 0.5 if self.strength is None else self.strength
        content, style = self.weights
        if content == 0:
            return 1.0
        ratio = math.sqrt(style / (STYLE_WEIGHT * content))
        return ratio / (1 + ratio)

    @property
    def tolerates_bfloat16(self) -> bool:
        """As for all jobs; but with more style than by default it ends up to 1.3 % higher."""
        content, style = self.weights
        return super().tolerates_bfloat16 and style <= STYLE_WEIGHT * content

    @property
    def smoothing(self) -> float:
        """What the weights against variation and ripple are multiplied by.

        Below a strength of 0.5 they fade with the style, so that a weak one leaves the photo sharp.
        """
        s = 0.5 if self.strength is None else min(self.strength, 0.5)
        return (s / (1 - s)) ** 2


@dataclass(frozen=True, kw_only=True)
class TextureSettings(Settings):
    """The settings of `texture`.

    Attributes:
        out_size: (W, H) of the texture, px.
        style_weight: weight of the style loss, beside those of the variations.
        style_layers: where style is compared, with weights relative to each other.
        style_scale: how large the strokes are, as for `transfer`.
        init: `noise`, `style`, or a picture to start from.
    """

    job: ClassVar[str] = "texture"

    out_size: tuple[int, int] = (512, 512)
    style_weight: float = 1.0
    style_layers: Layers = field(default_factory=lambda: STYLE_LAYERS)
    style_scale: float = 1.0
    steps: int = 400
    init: str = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("style_weight", self.style_weight)
        check_layers("style_layers", self.style_layers)
        check_scale(self.style_scale)
        if not isinstance(self.out_size, tuple | list) or len(self.out_size) != 2:
            raise SettingsError(f"out_size is {self.out_size!r}; it is a width and a height in px")
        for side in self.out_size:
            check_integer("out_size", side, 1, MAX_SIDE)


@dataclass(frozen=True, kw_only=True)
class ReconstructSettings(Settings):
    """The settings of `reconstruct`.

    Attributes:
        size: long side of the working size, px, or `full`.
        layers: the layers to reconstruct from, one picture each.
        init: `noise` or a picture to start from.
    """

    job: ClassVar[str] = "reconstruct"

    size: int | Literal["full"] = 256
    layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    ripple_weight: float = 0.0  # content alone, as the command says
    scales: int = 1
    steps: int = 150
    init: str = "noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size)
        if not self.layers:
            raise SettingsError("layers is empty; name at least one, such as relu3_1")

    @property
    def tolerates_bfloat16(self) -> bool:
        """Never: the loss goes so far down that rounding weighs more than 1 % of it."""
        return False


S = TypeVar("S", bound=Settings)


def make_settings(kind: type[S], options: Mapping[str, Any]) -> S:
    """The settings of a job: an option given beats the preset, which beats the default.

    Args:
        kind: the job's dataclass.
        options: the options given, by name. Layers may be written as on the command line, and
            lists may stand for tuples.

    Raises:
        SettingsError: an option is unknown, out of range or at odds with another.
    """
    names = [f.name for f in dataclasses.fields(kind)]
    for name in options:
        if name not in names:
            raise SettingsError(f"there is no option {name!r}; there are {', '.join(names)}")
    complete = options.keys() >= set(names)  # as a record has them: nothing is left to decide
    if options.get("strength") is not None and "style_weight" in options and not complete:
        raise SettingsError("give either strength or style_weight: strength sets the weight")
    values = _preset_values(kind, options) | dict(options)
    if values.get("method") == "fast" and not complete:
        _check_fast(options)
        values.setdefault("encoder", "fast")
        values.setdefault("init", "content")  # one pass has no other start
    values = {name: value for name, value in values.items() if name in names}
    for name in ("content_layers", "style_layers"):
        if isinstance(values.get(name), str):
            values[name] = parse_layers(values[name])
    for name in ("layers", "out_size"):
        if isinstance(values.get(name), list):
            values[name] = tuple(values[name])
    if isinstance(values.get("layers"), str):
        layers = parse_layers(values["layers"])
        if set(layers.values()) != {1.0}:
            raise SettingsError("the layers to reconstruct from have no weights: each is alone")
        values["layers"] = tuple(layers)
    return kind(**values)


def _check_fast(options: Mapping[str, Any]) -> None:
    """Refuses options that mean nothing where nothing is minimised."""
    for name in options:
        if name not in FAST:
            told = name.replace("_", "-")
            raise SettingsError(
                f"method fast has no {told}, as it minimises nothing; leave {told} out"
            )


def _preset_values(kind: type[Settings], options: Mapping[str, Any]) -> dict[str, Any]:
    """What the preset asked for changes of the defaults, for this job and this network."""
    name = options.get("preset", "default")
    if not isinstance(name, str) or name not in PRESETS:
        raise SettingsError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    encoder = options.get("encoder", PRESETS[name].values.get("encoder", kind.encoder))
    return PRESETS[name].settings(kind.job, slim=is_slim(encoder))


def is_slim(encoder: object) -> bool:
    """Whether an encoder's name means one of our own small networks, in whatever version."""
    return str(encoder) == "slim" or str(encoder).startswith("slim-")


def parse_layers(text: str) -> dict[str, float]:
    """`relu1_1=1,relu2_1=0.8` as a mapping; a layer without a weight has weight 1.

    Raises:
        SettingsError: the text is not of that form, or names a layer twice.
    """
    layers: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = (piece.strip() for piece in part.partition("="))
        if not re.fullmatch(r"\w+", name) or name in layers:
            raise SettingsError(f"cannot understand the layers {text!r}; write relu1_1=1,relu2_1")
        try:
            layers[name] = float(weight or 1)
        except ValueError:
            raise SettingsError(f"the weight of layer {name} is {weight!r}, no number") from None
    return layers


def parse_size(text: str) -> int | Literal["full"]:
    """`512` or `full`."""
    if text == "full":
        return "full"
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise SettingsError(f"the size is {text!r}; give a long side in px, or full")
    return int(text)


def parse_out_size(text: str) -> tuple[int, int]:
    """`640x480`, width by height, or one number for a square."""
    match = re.fullmatch(r"(\d{1,9})(?:[x×](\d{1,9}))?", text.strip(), re.ASCII | re.IGNORECASE)
    if not match:
        raise SettingsError(f"the size is {text!r}; write it as 640x480, width by height in px")
    return int(match[1]), int(match[2] or match[1])
