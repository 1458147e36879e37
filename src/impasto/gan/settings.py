"""Every option of a GAN's training, with the only defaults there are. Nothing here imports torch.

What depends on the loss (rates, penalties, the discriminator's norm) comes from `RECIPES`: the
figures of the paper that proposed the loss. A value that is given beats them.
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
    "parse_time",
]

Arch = Literal["dcgan"]
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


@dataclass(frozen=True, kw_only=True)
class GanSettings:
    """What makes a training run what it is.

    Attributes:
        arch: the networks: `dcgan`.
        size: side of the pictures, px.
        loss: see `impasto.gan.losses`.
        images: training pictures to see; a picture counts each time it is seen.
        batch: pictures per step, over all processes.
        lr: Adam's rate; 0 for that of the loss's paper.
        ema: after so many pictures, the generator's average has half forgotten; 0 for none.
        augment: differentiable augmentations, in order; none if empty.
        latent: numbers in a latent vector.
        width: feature maps where the side is largest.
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

    arch: Arch = "dcgan"
    size: int = 64
    loss: LossName = "bce"
    images: int = 500_000
    batch: int = 128
    lr: float = 0.0
    ema: int = 0
    augment: tuple[str, ...] = ()
    latent: int = 100
    width: int = 64
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
            ("arch", Arch), ("loss", LossName), ("crop", Crop),
            ("device", DeviceName), ("precision", Precision),
        ):  # fmt: skip
            if getattr(self, name) not in get_args(choices):
                told = ", ".join(get_args(choices))
                raise SettingsError(f"{name} is {getattr(self, name)!r}; it can be {told}")
        for name, low, high in (
            ("images", 1, MAX_IMAGES), ("batch", 2, 65_536), ("ema", 0, MAX_IMAGES),
            ("latent", 1, 65_536), ("width", 1, 4096), ("crops", 0, 10_000),
            ("snapshot_every", 1, MAX_IMAGES), ("seed", 0, 2**63 - 1), ("threads", 0, 4096),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise SettingsError(
                    f"{name} is {value!r}; it is a whole number from {low} to {high}"
                )
        if self.size not in (32, 64, 128, 256):
            raise SettingsError(
                f"size is {self.size!r}; the classic can have 32, 64, 128 or 256 px"
            )
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

    @property
    def max_pixels(self) -> int:
        """The most pixels of a picture."""
        return round(self.max_megapixels * 1e6) or MAX_PIXELS

    @property
    def recipe(self) -> LossRecipe:
        """What the loss's paper says, but for a rate that was given."""
        recipe = RECIPES[self.loss]
        return dataclasses.replace(recipe, lr=self.lr) if self.lr else recipe

    def identity(self) -> dict[str, Any]:
        """What two runs must share to be one: all but how long and where it is computed."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in CHANGEABLE
        }

    def changeable(self) -> dict[str, Any]:
        """The rest: what a run may go on with otherwise."""
        return {name: getattr(self, name) for name in CHANGEABLE}

    def record(self) -> dict[str, Any]:
        """`identity` and what the loss's paper says, as JSON types."""
        augment = list(self.augment)
        recipe = dataclasses.asdict(self.recipe)
        return {**self.identity(), "augment": augment, "recipe": recipe}


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


def make_gan_settings(options: Mapping[str, Any]) -> GanSettings:
    """Settings from options by name.

    Raises:
        SettingsError: a name is unknown, or a value is out of range.
    """
    known = {field.name for field in dataclasses.fields(GanSettings)}
    for name in options:
        if name not in known:
            raise SettingsError(
                f"there is no option {name!r}; there are {', '.join(sorted(known))}"
            )
    return GanSettings(**options)


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
