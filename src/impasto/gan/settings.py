"""Every option of a GAN's training, with the only defaults there are. Nothing here imports torch.

What the networks have by default is in `DCGAN`, `STYLE_CPU` and `STYLE_GPU`. What depends on the
classic's loss (rates, penalties, the discriminator's norm) comes from `RECIPES`: the figures of the
paper that proposed the loss. A value that is given beats them.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from impasto.errors import SettingsError
from impasto.images import MAX_PIXELS
from impasto.settings import DeviceName, Precision

__all__ = [
    "RECIPES",
    "GanSettings",
    "LossRecipe",
    "ScoreSettings",
    "check_augment",
    "make_gan_settings",
    "parse_augment",
    "parse_count",
    "parse_gamma",
    "parse_time",
]

Arch = Literal["style", "dcgan"]
AugmentBy = Literal["always", "schedule", "gap"]
LossName = Literal["bce", "wgan-gp", "hinge", "relativistic"]
Crop = Literal["centre", "random"]
NormName = Literal["batch", "layer", "spectral", "none"]

AUGMENTATIONS: Final = ("color", "translation", "cutout")
"""The kinds of augmentation there are, in the order of Zhao et al. 2020."""

CHANGEABLE: Final = ("device", "precision", "threads", "images", "snapshot_every")
"""Settings that a run may go on with otherwise."""

MAX_IMAGES: Final = 10**12


@dataclass(frozen=True)
class LossRecipe:
    """What a loss was proposed with.

    Attributes:
        source: the paper.
        lr: Adam's rate, of both networks.
        beta1, beta2: decays of Adam's moments.
        norm: of the discriminator.
        critic_steps: steps of the discriminator for one of the generator.
        gradient_penalty: weight of the gradient penalty.
        r1, r2: weights of the zero-centred penalties on real and on generated pictures.
    """

    source: str
    lr: float
    beta1: float
    beta2: float
    norm: NormName
    critic_steps: int = 1
    gradient_penalty: float = 0.0
    r1: float = 0.0
    r2: float = 0.0


RECIPES: Final[Mapping[str, LossRecipe]] = MappingProxyType(
    {
        "bce": LossRecipe(
            "Goodfellow et al. 2014; Radford et al. 2016, section 4", 2e-4, 0.5, 0.999, "batch"
        ),
        "wgan-gp": LossRecipe(
            "Gulrajani et al. 2017, algorithm 1",
            1e-4, 0.0, 0.9, "layer", critic_steps=5, gradient_penalty=10.0,
        ),
        "hinge": LossRecipe(
            "Miyato et al. 2018, section 4", 2e-4, 0.0, 0.9, "spectral", critic_steps=5
        ),
        "relativistic": LossRecipe(
            "Jolicoeur-Martineau 2018; penalties as in Huang et al. 2024",
            2e-4, 0.0, 0.99, "none", r1=1.0, r2=1.0,
        ),
    }
)  # fmt: skip
"""The losses and what each paper says beside."""


STYLE: Final = LossRecipe(
    "Huang et al. 2024; equalised rates as in Karras et al. 2020", 2.5e-3, 0.0, 0.9, "none"
)
"""What the style-based networks are trained with at first; see `impasto.gan.style_recipe`."""

DCGAN: Final[Mapping[str, Any]] = MappingProxyType(
    {"loss": "bce", "batch": 128, "ema": 0, "augment": (), "latent": 100, "width": 64}
)
"""The defaults of the classic."""

STYLE_CPU: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "loss": "relativistic", "batch": 16, "ema": 10_000, "augment": AUGMENTATIONS,
        "augment_by": "gap", "latent": 128, "channels": (192, 192, 128, 64, 32, 16, 16),
        "mapping": 4, "mixing": 0.5, "penalty_every": 4,
    }
)  # fmt: skip
"""The defaults of the style-based networks; channels are those of 4 px, 8 px, ... 256 px."""

STYLE_GPU: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "batch": 64, "ema": 20_000, "latent": 256, "penalty_every": 1,
        "channels": (384, 384, 256, 128, 64, 32, 16),
    }
)  # fmt: skip
"""Those that are others on a GPU."""

GAMMAS: Final[Mapping[int, tuple[float, float]]] = MappingProxyType(
    {32: (0.1, 0.01), 64: (0.3, 0.03), 128: (0.6, 0.06), 256: (2.4, 0.24)}
)
"""The weight of R1 and R2 by the side in px, first and last; see docs/gan.md."""

OWN_RANGES: Final[Mapping[str, tuple[tuple[str, int, int], ...]]] = MappingProxyType(
    {
        "dcgan": (("width", 1, 4096),),
        "style": (
            ("mapping", 1, 16), ("penalty_every", 1, 1024), ("schedule", 1, MAX_IMAGES),
        ),
    }
)  # fmt: skip
"""Whole numbers that only these networks have, and their ranges."""

OWN: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "dcgan": frozenset({"width"}),
        "style": frozenset(
            {"augment_by", "channels", "mapping", "mixing", "gamma", "penalty_every", "schedule"}
        ),
    }
)
"""Options that only these networks have."""


@dataclass(frozen=True, kw_only=True)
class GanSettings:
    """What makes a training run what it is; `make_gan_settings` knows the defaults.

    Attributes:
        arch: the networks: `style` or `dcgan`.
        size: side of the pictures, px.
        loss: see `impasto.gan.losses`.
        images: training pictures to see; a picture counts each time it is seen.
        batch: pictures per step, over all processes.
        lr: Adam's rate; 0 for that of the paper.
        ema: after so many pictures, the generator's average has half forgotten; 0 for none.
        augment: differentiable augmentations, in order; none if empty.
        augment_by: of `style`, which share of the pictures is augmented: all of them, `always`; on
            a `schedule`, from none to half; or more as soon as the discriminator takes held-out
            paintings for less real than those it learns from, the `gap`.
        latent: numbers in a latent vector.
        width: of `dcgan`, feature maps where the side is largest.
        channels: of `style`, feature maps at 4 px, 8 px, ... up to `size`.
        mapping: of `style`, layers of the mapping network.
        mixing: of `style`, the share of generated pictures that have two styles in training.
        gamma: of `style`, the weight of R1 and R2, first and last.
        penalty_every: of `style`, in which steps they are taken, at so many times their weight.
        schedule: of `style`, pictures after which what has a first and a last value has its last.
        flip: whether every second picture, by chance, is mirrored.
        crop: the `centre` of a picture, or a `random` part at every sight of it.
        tile: whether large pictures and scrolls are cut into squares.
        crops: squares per picture at several scales, by chance; 0 for none.
        held_out: share of the paintings that is only used for scores.
        max_megapixels: the largest picture to read; 0 for the limit of `impasto.images`.
        snapshot_every: pictures between two snapshots.
        seed: of every random draw.
        device: where to compute.
        precision: of convolutions.
        threads: CPU threads; 0 leaves it to torch.
    """

    arch: Arch
    size: int
    loss: LossName
    images: int
    batch: int
    ema: int
    augment: tuple[str, ...]
    latent: int
    lr: float = 0.0
    augment_by: AugmentBy = "always"
    width: int = 0
    channels: tuple[int, ...] = ()
    mapping: int = 0
    mixing: float = 0.0
    gamma: tuple[float, float] = (0.0, 0.0)
    penalty_every: int = 0
    schedule: int = 0
    flip: bool = True
    crop: Crop = "centre"
    tile: bool = False
    crops: int = 0
    held_out: float = 0.2
    max_megapixels: float = 0.0
    snapshot_every: int = 10_000
    seed: int = 0
    device: DeviceName = "auto"
    precision: Precision = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        for name, choices in (
            ("arch", Arch), ("loss", LossName), ("crop", Crop), ("augment_by", AugmentBy),
            ("device", DeviceName), ("precision", Precision),
        ):  # fmt: skip
            if getattr(self, name) not in get_args(choices):
                told = ", ".join(get_args(choices))
                raise SettingsError(f"{name} is {getattr(self, name)!r}; it can be {told}")
        for name, low, high in (
            ("images", 1, MAX_IMAGES), ("batch", 2, 65_536), ("ema", 0, MAX_IMAGES),
            ("latent", 1, 65_536), ("crops", 0, 10_000),
            ("snapshot_every", 1, MAX_IMAGES), ("seed", 0, 2**63 - 1), ("threads", 0, 4096),
            *OWN_RANGES[self.arch],
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise SettingsError(
                    f"{name} is {value!r}; it is a whole number from {low} to {high}"
                )
        if self.size not in (32, 64, 128, 256):
            raise SettingsError(f"size is {self.size!r}; it can be 32, 64, 128 or 256 px")
        if not 0 <= self.lr < 1 or not math.isfinite(self.lr):
            raise SettingsError(
                f"lr is {self.lr!r}; it is a number below 1, or 0 for that of the loss's paper"
            )
        if not 0.01 <= self.held_out <= 0.9:
            raise SettingsError(f"held_out is {self.held_out!r}; it is a share from 0.01 to 0.9")
        if not 0 <= self.max_megapixels < math.inf:
            raise SettingsError(
                f"max_megapixels is {self.max_megapixels!r}; it is a number above 0"
            )
        check_augment(self.augment)
        if self.arch == "style":
            self._check_style()

    def _check_style(self) -> None:
        if self.loss != "relativistic":
            raise SettingsError(
                f"arch style learns with the relativistic loss; for {self.loss} add --arch dcgan"
            )
        steps = self.size.bit_length() - 2
        if len(self.channels) != steps or not all(1 <= c <= 4096 for c in self.channels):
            told = ", ".join(str(4 << i) for i in range(steps))
            raise SettingsError(
                f"channels is {','.join(map(str, self.channels))!r}; give a number from 1 to 4096 "
                f"each for {told} px"
            )
        if len(self.gamma) != 2 or not all(0 <= g < 1e6 for g in self.gamma):
            raise SettingsError("gamma is two numbers, first and last, from 0 to 1000000, as 1,0.1")
        if not 0 <= self.mixing <= 1:
            raise SettingsError(f"mixing is {self.mixing!r}; it is a share from 0 to 1")

    @property
    def max_pixels(self) -> int:
        """The most pixels of a picture."""
        return round(self.max_megapixels * 1e6) or MAX_PIXELS

    @property
    def recipe(self) -> LossRecipe:
        """What the paper says, but for a rate that was given."""
        recipe = STYLE if self.arch == "style" else RECIPES[self.loss]
        return dataclasses.replace(recipe, lr=self.lr) if self.lr else recipe

    def options(self) -> dict[str, Any]:
        """All options that these networks have, as `make_gan_settings` takes them."""
        others = {name for arch, own in OWN.items() if arch != self.arch for name in own}
        every = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in every.items() if name not in others}

    def identity(self) -> dict[str, Any]:
        """What two runs must share to be one: all but how long and where it is computed."""
        return {name: value for name, value in self.options().items() if name not in CHANGEABLE}

    def changeable(self) -> dict[str, Any]:
        """The rest: what a run may go on with otherwise."""
        return {name: getattr(self, name) for name in CHANGEABLE}

    def record(self) -> dict[str, Any]:
        """`identity` and what the paper says, as JSON types."""
        told = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.identity().items()
        }
        return {**told, "recipe": dataclasses.asdict(self.recipe)}


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How scores are taken; see `impasto.gan.scores`.

    Attributes:
        real: crops of held-out paintings, at least.
        generated: pictures that are painted for it.
        seed: of the bootstrap.
    """

    real: int = 1000
    generated: int = 1000
    seed: int = 0


def make_gan_settings(options: Mapping[str, Any], *, gpu: bool = False) -> GanSettings:
    """Settings from options by name, and for the rest the defaults: here, and nowhere else.

    Args:
        options: by name; lists, as JSON has them, are taken for tuples.
        gpu: whether there is a GPU to compute on, which has other defaults.

    Raises:
        SettingsError: a name is unknown or of other networks, or a value is out of range.
    """
    given = {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}
    known = {field.name for field in dataclasses.fields(GanSettings)}
    for name in given:
        if name not in known:
            raise SettingsError(
                f"there is no option {name!r}; there are {', '.join(sorted(known))}"
            )
    arch = given.setdefault("arch", "style")
    for other, own in OWN.items():
        strange = next((name for name in given if name in own), None)
        if strange and arch != other and arch in OWN:
            flag = strange.replace("_", "-")
            raise SettingsError(f"--{flag} is of --arch {other}; leave it out, or change --arch")
    given.setdefault("size", 64)
    given.setdefault("images", 500_000)
    if arch == "dcgan":
        return GanSettings(**{**DCGAN, **given})
    size = given["size"] if isinstance(given["size"], int) else 64
    style: dict[str, Any] = {**STYLE_CPU, **(STYLE_GPU if gpu else {})}
    style["channels"] = style["channels"][: size.bit_length() - 2]
    style["gamma"] = GAMMAS.get(size, (0.0, 0.0))
    style["schedule"] = given["images"]
    return GanSettings(**{**style, **given})


def parse_count(text: str) -> int:
    """`500k`, `1.5M` or `150000`.

    Raises:
        SettingsError: it is no such number.
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([kM]?)", text.strip(), re.ASCII)
    count = float(match[1]) * {"": 1, "k": 1e3, "M": 1e6}[match[2]] if match else 0.0
    if not 1 <= count <= MAX_IMAGES or count != round(count):
        raise SettingsError(f"the number {text!r} is none; write 150000, 500k or 1.5M")
    return round(count)


def parse_time(text: str) -> float:
    """`2h`, `1h30m`, `45m`, `90s` as seconds.

    Raises:
        SettingsError: it is no such time.
    """
    match = re.fullmatch(
        r"(?:(\d{1,6}(?:\.\d+)?)h)?(?:(\d{1,6}(?:\.\d+)?)m)?(?:(\d{1,9}(?:\.\d+)?)s)?",
        text.strip(),
        re.ASCII,
    )
    parts = [float(part or 0) for part in match.groups()] if match else []
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not seconds > 0:
        raise SettingsError(f"the time {text!r} is none; write 2h, 45m, 90s or 1h30m")
    return seconds


def parse_gamma(text: str) -> tuple[float, float]:
    """`1,0.1`, or one number for both.

    Raises:
        SettingsError: it is no such text.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
        first, last = numbers * 2 if len(numbers) == 1 else numbers
    except ValueError:
        raise SettingsError(f"--gamma {text} is none; write first and last, as 1,0.1") from None
    return first, last


def check_augment(policy: Sequence[str]) -> None:
    """That these are names of augmentations, each once.

    Raises:
        SettingsError: they are not.
    """
    for name in policy:
        if name not in AUGMENTATIONS:
            told = ", ".join(AUGMENTATIONS)
            raise SettingsError(f"there is no augmentation {name!r}; there are {told}")
    if len(set(policy)) < len(policy):
        raise SettingsError(f"an augmentation comes twice in {','.join(policy)}; name each once")


def parse_augment(text: str) -> tuple[str, ...]:
    """`color,translation,cutout`, `all` or `none`.

    Raises:
        SettingsError: a name is unknown, or comes twice.
    """
    if text == "all":
        return AUGMENTATIONS
    if text in ("none", ""):
        return ()
    policy = tuple(part.strip() for part in text.split(","))
    check_augment(policy)
    return policy
