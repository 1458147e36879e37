"""One step of the style-based GAN's training, and everything in it that has a state.

The loss and its schedules are those of Huang et al. 2024 (R3GAN, arXiv:2501.05441): pairs of a real
picture and a generated one (section 2.1), R1 and R2 at zero-centred gradients (section 2.2); β₂ and
γ from a first value to a last on a cosine (appendix), and so the rate, to a quarter. Their networks
are others, and their figures too: with equalised rates, Adam's is 2.5e-3 (Karras et al. 2020).

What is done for speed, all of it without a change of what is learnt on average:

- Real and generated pictures go through the discriminator together, in groups that do not mix.
- The generator paints once for both networks.
- R1 and R2 are taken every few steps at so many times their weight (Karras et al. 2020, section
  3.1), then of every second group of pictures, as their second derivatives are dear: in float32
  whatever the precision, at the pictures as the discriminator is shown them.
"""

import math
from typing import Any, Final

import torch
from torch import Tensor

from impasto.gan.losses import zero_centred_penalty
from impasto.gan.pictures import Pictures
from impasto.gan.recipe import GanRecipe, frozen, spread
from impasto.gan.settings import GanSettings
from impasto.gan.style import GROUP, StyleGenerator
from impasto.parallel import ALONE, World
from impasto.seeds import derive_seed
from impasto.shuffle import Shuffle
from impasto.trainer import Moment

__all__ = ["AugmentShare", "StyleRecipe", "cosine", "make_recipe"]

LAST_RATE: Final = 0.25
"""By what Adam's rate is multiplied at the end of the schedule."""

LAST_BETA2: Final = 0.99
"""The decay of Adam's second moment at the end of the schedule."""

LAST_SHARE: Final = 0.5
"""The share of the pictures that are augmented at the end, if that is on a schedule."""

MEAN_DECAY: Final = 0.995
"""What a step leaves of the mean of w."""

AVERAGE_SHARE: Final = 0.05
"""The average has half forgotten after this share of the pictures seen, while that is less."""


def cosine(first: float, last: float, share: float) -> float:
    """From `first` to `last` on half a cosine, at a share of the way, 0 to 1."""
    return last + (first - last) * (1 + math.cos(math.pi * min(1.0, share))) / 2


class AugmentShare:
    """The share of the pictures that are augmented, held by the gap to paintings that are held out.

    Karras et al. 2020 (arXiv:2006.06676), section 3, eq. 1: r_v, how far the discriminator's mean
    output on held-out pictures has gone from that on training pictures (0) to that on generated
    ones (1). It rises when training pictures begin to be known by heart; then more is augmented.

    Attributes:
        value: the share, 0 to 1.
    """

    EVERY: Final = 8
    """Steps between two looks at held-out pictures."""

    LOOKS: Final = 8
    """Looks after which the share changes."""

    TARGET: Final = 0.3
    """The gap that is held."""

    PICTURES: Final = 100_000
    """From 0 to 1 it takes at least so many training pictures."""

    def __init__(self) -> None:
        self.value = 0.0
        self._sums = [0.0, 0.0]  # train - held, train - generated
        self._looks = 0

    def look(self, train: float, held: float, generated: float, pictures: int) -> None:
        """Takes the means of three sets of logits in.

        Args:
            train: of training pictures.
            held: of pictures that are held out.
            generated: of generated ones.
            pictures: training pictures since the last look.
        """
        self._sums = [self._sums[0] + train - held, self._sums[1] + train - generated]
        self._looks += 1
        if self._looks == self.LOOKS:
            gap = self._sums[0] / max(self._sums[1], 1e-6)
            step = math.copysign(self.LOOKS * pictures / self.PICTURES, gap - self.TARGET)
            self.value = min(1.0, max(0.0, self.value + step))
            self._sums, self._looks = [0.0, 0.0], 0

    def state_dict(self) -> dict[str, Any]:
        """Everything."""
        return {"value": self.value, "sums": self._sums, "looks": self._looks}

    def load_state_dict(self, state: Any, /) -> None:
        """Takes a state on."""
        self.value, self._looks = state["value"], state["looks"]
        self._sums = list(state["sums"])


class StyleRecipe(GanRecipe):
    """A style-based GAN in training; see `GanRecipe`.

    Attributes:
        share: of the pictures that are augmented, if the gap says so.
    """

    def __init__(
        self,
        settings: GanSettings,
        pictures: Pictures,
        device: torch.device | str = "cpu",
        world: World = ALONE,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(settings, pictures, device, world, dtype)
        self.share = AugmentShare()
        self.parts["augment"] = self.share
        self._group = math.gcd(self._portion, GROUP)
        self._held = Shuffle(len(pictures.held), derive_seed(settings.seed, "held"))

    @property
    def net(self) -> StyleGenerator:
        """The generator in training."""
        assert isinstance(self.generator, StyleGenerator)
        return self.generator

    def step(self, at: Moment) -> dict[str, Tensor | float]:
        """Trains both networks on one batch."""
        settings = self.settings

        # 1. The batch, real and generated.
        real = self._real(at)
        fake = self._generated(at)
        share = self._share(at)

        # 2. The discriminator tells them apart.
        metrics = self._teach(at, real, fake.detach(), share)

        # 3. The generator deceives it.
        with frozen(self.discriminator):
            with at.autocast(), torch.no_grad():
                pair = self._logits(self._augmented(real, at, "pair", share))
            with at.autocast():
                judged = self._logits(self._augmented(fake, at, "generator", share))
            loss = self._loss.generator(judged, pair)
            self._descend("generator", loss, at)
        metrics["generator"] = loss
        if self.average:
            seen = at.seen + settings.batch
            self.average.half_life = max(1.0, min(settings.ema, AVERAGE_SHARE * seen))
            self.average.update(self.generator, settings.batch)

        # 4. Whether training pictures begin to be known by heart.
        number = at.seen // settings.batch
        if settings.augment_by == "gap" and (number + 1) % AugmentShare.EVERY == 0:
            self._look(at, pair, judged, share)
        if self._portion > 1:
            metrics["spread"] = spread(fake) / spread(real).clamp(min=1e-6)
        metrics["augmented"] = share
        return metrics

    def _generated(self, at: Moment) -> Tensor:
        """This process's share of generated pictures, `(n, 3, side, side)`, with their graph."""
        net, rows, count = self.net, self.world.rows, self.settings.batch

        def drawn(*shape: int) -> Tensor:
            return rows(torch.randn(count, *shape)).to(self.device, self.dtype)

        z, other = drawn(net.latent), drawn(net.latent)
        cross = torch.randint(1, net.styles, (count,))
        cross[torch.rand(count) >= self.settings.mixing] = net.styles
        noises = [drawn(1, side, side) for side in net.noise_sides]
        with at.autocast():
            w, others = net.mapping(torch.cat((z, other))).chunk(2)
            later = torch.arange(net.styles) >= rows(cross)[:, None]  # (n, styles)
            mixed = torch.where(later.to(self.device)[..., None], others[:, None], w[:, None])
            fake = net.synthesis(mixed, noises)
        with torch.no_grad():
            mean = w.mean(0)
            if self.world.size > 1:
                mean = mean.new_tensor(self.world.mean(mean.tolist()))
            net.mapping.mean.lerp_(mean, 1 - MEAN_DECAY)
        return fake.to(self.dtype).contiguous(memory_format=torch.channels_last)

    def _teach(
        self, at: Moment, real: Tensor, fake: Tensor, share: float
    ) -> dict[str, Tensor | float]:
        """A step of the discriminator."""
        every = self.settings.penalty_every
        shown = [
            self._augmented(x, at, purpose, share)
            for x, purpose in ((real, "real"), (fake, "fake"))
        ]
        with at.autocast():
            on_real, on_fake = self._logits(torch.cat(shown)).chunk(2)
        loss = self._loss.discriminator(on_real, on_fake)
        metrics: dict[str, Tensor | float] = {
            "discriminator": loss,
            "on_real": on_real.detach().mean(),
            "on_generated": on_fake.detach().mean(),
        }
        if (at.seen // self.settings.batch + 1) % every == 0:
            x = torch.cat([self._thinned(part) for part in shown]).requires_grad_()
            logits = self._logits(x)
            both = 2 * zero_centred_penalty(logits, x)  # R1 + R2: a mean over both halves, twice
            metrics["penalty"] = both * every  # so that the mean over steps is right
            loss = loss + self._gamma(at) * every * both
        self._descend("discriminator", loss, at)
        return metrics

    def _thinned(self, x: Tensor) -> Tensor:
        """Every second group of pictures, or all of them if that is done in every step."""
        if self.settings.penalty_every == 1:
            return x
        groups = x.view(-1, self._group, *x.shape[1:])[::2].flatten(0, 1)
        return groups.contiguous(memory_format=torch.channels_last)

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(x, self._group)
        return logits

    @torch.no_grad()
    def _look(self, at: Moment, train: Tensor, generated: Tensor, share: float) -> None:
        """Compares logits of training and of generated pictures with those of held-out ones."""
        batch = self.settings.batch
        indices = self._held.indices(at.seen // AugmentShare.EVERY, batch)
        held = self.pictures.batch(self.world.rows(indices), held=True)
        held = held.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        with at.autocast():
            unseen = self._logits(self._augmented(held, at, "held", share))
        means = [x.mean().item() for x in (train, unseen, generated)]
        on_train, on_held, on_made = self.world.mean(means)
        self.share.look(on_train, on_held, on_made, batch * AugmentShare.EVERY)

    def _share(self, at: Moment) -> float:
        """The share of the pictures that are augmented."""
        match self.settings.augment_by:
            case "gap":
                return self.share.value
            case "schedule":
                return cosine(0.0, LAST_SHARE, self._done(at))
            case _:
                return 1.0

    def _gamma(self, at: Moment) -> float:
        """The weight of R1 and R2."""
        return cosine(*self.settings.gamma, self._done(at))

    def _rates(self, at: Moment) -> tuple[float, tuple[float, float]]:
        recipe, done = self._recipe, self._done(at)
        beta2 = cosine(recipe.beta2, LAST_BETA2, done)
        return recipe.lr * cosine(1.0, LAST_RATE, done), (recipe.beta1, beta2)

    def _done(self, at: Moment) -> float:
        """The share of the schedule that is behind."""
        return min(1.0, at.seen / self.settings.schedule)


def make_recipe(
    settings: GanSettings,
    pictures: Pictures,
    device: torch.device | str = "cpu",
    world: World = ALONE,
    dtype: torch.dtype = torch.float32,
) -> GanRecipe:
    """The recipe of these settings; see `GanRecipe`."""
    kind = StyleRecipe if settings.arch == "style" else GanRecipe
    return kind(settings, pictures, device, world, dtype)
