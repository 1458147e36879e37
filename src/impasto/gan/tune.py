"""The weight of R1 and R2 for some paintings: three values, each tried for a short while."""

import dataclasses
import time
from collections.abc import Generator as Steps
from dataclasses import dataclass
from typing import Final

import torch

from impasto.compute import choose_device, choose_dtype
from impasto.errors import SettingsError
from impasto.gan.pictures import Pictures
from impasto.gan.run import trained
from impasto.gan.scores import Judge
from impasto.gan.settings import GanSettings, ScoreSettings
from impasto.gan.style_recipe import make_recipe
from impasto.seeds import derive_seed
from impasto.trainer import Length, Moment

__all__ = ["FACTORS", "Tried", "tune_gamma"]

FACTORS: Final = (0.25, 1.0, 4.0)
"""What γ is multiplied by, first and last."""


@dataclass(frozen=True)
class Tried:
    """How a trial goes.

    Attributes:
        gamma: its weights, first and last.
        seen: training pictures so far.
        done: the share of all trials that is behind, 0 to 1.
        kid: of what has been learnt, once the trial is over.
    """

    gamma: tuple[float, float]
    seen: int
    done: float
    kid: float | None = None


def tune_gamma(
    pictures: Pictures,
    settings: GanSettings,
    *,
    seconds: float = 60.0,
    images: int = 0,
    scoring: ScoreSettings = ScoreSettings(),  # noqa: B008 — frozen
) -> Steps[Tried, None, GanSettings]:
    """Trains with three weights of R1 and R2 from the same start, and keeps that of the best KID.

    The second and third trial see as many pictures as the first. The clock only says how many
    these are; a run with the settings that come out repeats itself as any other does.

    Args:
        pictures: what is learnt from, and what is held out.
        settings: of a style-based GAN.
        seconds: for each trial.
        images: pictures for each trial, instead.
        scoring: how they are scored.

    Yields:
        `Tried`, after every step and at the end of every trial.

    Returns:
        The settings with the best γ.

    Raises:
        SettingsError: it is no style-based GAN, or there is too little to score by.
    """
    if settings.arch != "style":
        raise SettingsError("--tune-gamma is for --arch style; leave it out")
    judge = Judge(*pictures.reference(scoring.real))
    device = choose_device(settings.device)
    dtype = choose_dtype(device, settings.precision)
    length = Length(settings.images, settings.batch, settings.batch, settings.images)
    best, least = settings, float("inf")
    for number, factor in enumerate(FACTORS):
        gamma = (settings.gamma[0] * factor, settings.gamma[1] * factor)
        trial = dataclasses.replace(settings, gamma=gamma)
        recipe = make_recipe(trial, pictures, device)
        begin, seen, share = time.monotonic(), 0, 0.0
        while share < 1:
            torch.manual_seed(derive_seed(settings.seed, "step", seen))
            recipe.step(Moment(seen, length, device, dtype))
            seen += settings.batch
            share = seen / images if images else (time.monotonic() - begin) / seconds
            yield Tried(gamma, seen, (number + min(1.0, share)) / len(FACTORS))
        images = seen
        painted = trained(recipe, seen).sample(scoring.generated, seed=scoring.seed + 1)
        kid = judge.score(painted, seed=scoring.seed).kid
        if kid < least:
            best, least = trial, kid
        yield Tried(gamma, seen, (number + 1) / len(FACTORS), kid)
    return best
