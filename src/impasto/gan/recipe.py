"""One step of the classic GAN's training, and everything in it that has a state.

That of the style-based networks, in `style_recipe`, is made of the same parts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from impasto.average import Average
from impasto.gan.augment import augment, draw
from impasto.gan.losses import LOSSES, gradient_penalty, zero_centred_penalty
from impasto.gan.networks import Discriminator, GeneratorNet
from impasto.gan.pictures import Pictures
from impasto.gan.settings import GanSettings
from impasto.gan.style import StyleDiscriminator, StyleGenerator
from impasto.parallel import ALONE, World, synchronise_norms
from impasto.seeds import derive_seed
from impasto.shuffle import Shuffle
from impasto.trainer import Moment, Part

__all__ = [
    "AnyDiscriminator",
    "AnyGenerator",
    "GanRecipe",
    "Pace",
    "frozen",
    "latents",
    "make_discriminator",
    "make_generator",
    "spread",
]

AnyGenerator = GeneratorNet | StyleGenerator
AnyDiscriminator = Discriminator | StyleDiscriminator


def make_generator(settings: GanSettings) -> AnyGenerator:
    """The generator of these settings, with fresh weights from torch's global generator."""
    if settings.arch == "style":
        return StyleGenerator(settings.size, settings.latent, settings.channels, settings.mapping)
    return GeneratorNet(settings.size, settings.latent, settings.width)


def make_discriminator(settings: GanSettings) -> AnyDiscriminator:
    """The discriminator of these settings, with fresh weights from torch's global generator."""
    if settings.arch == "style":
        return StyleDiscriminator(settings.size, settings.channels)
    return Discriminator(settings.size, settings.width, settings.recipe.norm)


def latents(count: int, size: int, seed: int) -> Tensor:
    """Latent vectors `(count, size)` from N(0, 1): the first of them whatever the count."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "latents"))
    return torch.cat([torch.randn(1, size, generator=generator) for _ in range(count)])


class Pace:
    """By what rates are multiplied: 1, and less after a loss was not finite."""

    def __init__(self) -> None:
        self.scale = 1.0

    def slow_down(self, attempt: int) -> None:
        """Halves the rate once per attempt."""
        self.scale *= 0.5**attempt

    def state_dict(self) -> dict[str, Any]:
        """The scale."""
        return {"scale": self.scale}

    def load_state_dict(self, state: Any, /) -> None:
        """Takes a scale on."""
        self.scale = state["scale"]


class GanRecipe:
    """A GAN in training.

    Random numbers are drawn for the whole batch and then shared, so that several processes do
    together what one does alone.

    Args:
        settings: what it is.
        pictures: what it learns from.
        device: where its weights are.
        world: the processes that train together.
        dtype: of its weights.

    Attributes:
        generator, discriminator: the networks in training.
        average: the generator's average, if there is one.
        pace: by what the rates are multiplied.
        parts: everything with a state, for `impasto.trainer.train`.

    Raises:
        RunError: a batch cannot be shared evenly by the processes.
    """

    def __init__(
        self,
        settings: GanSettings,
        pictures: Pictures,
        device: torch.device | str = "cpu",
        world: World = ALONE,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.settings, self.pictures, self.world = settings, pictures, world
        self.device, self.dtype = torch.device(device), dtype
        self._loss, self._recipe = LOSSES[settings.loss], settings.recipe
        self._portion = world.portion(settings.batch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "weights"))
            generator, discriminator = make_generator(settings), make_discriminator(settings)
        self.generator = self._placed(generator)
        self.discriminator = self._placed(discriminator)
        self._optimizers = {
            "generator": self._adam(self.generator),
            "discriminator": self._adam(self.discriminator),
        }
        self.pace = Pace()
        self.average = Average(self.generator, settings.ema) if settings.ema else None
        self.parts: dict[str, Part] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_adam": self._optimizers["generator"],
            "discriminator_adam": self._optimizers["discriminator"],
            "pace": self.pace,
        }
        if self.average:
            self.parts["average"] = self.average
        self._order = Shuffle(len(pictures.train), derive_seed(settings.seed, "order"))

    @property
    def painter(self) -> nn.Module:
        """The generator that paints: the average, where there is one."""
        return self.average.module if self.average else self.generator

    def _placed(self, module: nn.Module) -> nn.Module:
        module = synchronise_norms(module, self.world).to(self.device, self.dtype)
        return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _adam(self, module: nn.Module) -> torch.optim.Adam:
        recipe = self._recipe
        fused = self.device.type in ("cpu", "cuda")
        betas = (recipe.beta1, recipe.beta2)
        return torch.optim.Adam(module.parameters(), recipe.lr, betas, fused=fused)

    def step(self, at: Moment) -> dict[str, Tensor | float]:
        """Trains on one batch: the discriminator, and at its turn the generator."""
        settings, recipe = self.settings, self._recipe
        number = at.seen // settings.batch
        generating = (number + 1) % recipe.critic_steps == 0

        # 1. The batch, real and generated.
        real = self._real(at)
        z = self.world.rows(torch.randn(settings.batch, settings.latent)).to(
            self.device, self.dtype
        )
        self.generator.train()
        with at.autocast(), torch.set_grad_enabled(generating):
            fake = self.generator(z)
        fake = fake.to(self.dtype)

        # 2. The discriminator tells them apart.
        metrics = self._teach_discriminator(at, real, fake.detach())

        # 3. The generator deceives it.
        if generating:
            with frozen(self.discriminator):
                with at.autocast():
                    judged = self._judge(fake, at, "generator")
                    pair = self._judge(real, at, "generator") if self._loss.pairs else None
                loss = self._loss.generator(judged, pair)
                self._descend("generator", loss, at)
            metrics["generator"] = (
                loss * recipe.critic_steps
            )  # so that the mean over steps is right
            if self.average:
                self.average.update(self.generator, settings.batch * recipe.critic_steps)
        if self._portion > 1:
            metrics["spread"] = spread(fake) / spread(real).clamp(min=1e-6)
        return metrics

    def _real(self, at: Moment) -> Tensor:
        """This process's share of the real pictures, `(n, 3, side, side)` in [-1, 1]."""
        settings, rows = self.settings, self.world.rows
        source = torch.Generator().manual_seed(derive_seed(settings.seed, "views", at.seen))
        flips, offsets = self.pictures.draw(settings.batch, source)
        x = self.pictures.batch(
            rows(self._order.indices(at.seen, settings.batch)),
            flips=rows(flips) if settings.flip else None,
            offsets=rows(offsets),
        )
        x = x.to(self.device, self.dtype)
        return x.contiguous(memory_format=torch.channels_last)

    def _teach_discriminator(
        self, at: Moment, real: Tensor, fake: Tensor
    ) -> dict[str, Tensor | float]:
        recipe = self._recipe
        if recipe.r1:
            real = real.clone().requires_grad_()
        if recipe.r2:
            fake = fake.clone().requires_grad_()
        with at.autocast():
            on_real = self._judge(real, at, "real")
            on_fake = self._judge(fake, at, "fake")
        loss = self._loss.discriminator(on_real, on_fake)
        metrics: dict[str, Tensor | float] = {"discriminator": loss}
        shown = torch.sigmoid if self.settings.loss == "bce" else lambda logits: logits
        metrics["on_real"] = shown(on_real.detach()).mean()
        metrics["on_generated"] = shown(on_fake.detach()).mean()
        for weight, logits, x in ((recipe.r1, on_real, real), (recipe.r2, on_fake, fake)):
            if weight:
                loss = loss + weight * zero_centred_penalty(logits, x)
        if recipe.gradient_penalty:
            mix = self.world.rows(torch.rand(self.settings.batch)).to(real)
            with at.autocast():
                penalty = gradient_penalty(self.discriminator, real, fake, mix)
            metrics["penalty"] = penalty
            loss = loss + recipe.gradient_penalty * penalty
        self._descend("discriminator", loss, at)
        return metrics

    def _judge(self, x: Tensor, at: Moment, purpose: str) -> Tensor:
        """The discriminator's logits of pictures, augmented as the settings say."""
        logits: Tensor = self.discriminator(self._augmented(x, at, purpose))
        return logits

    def _augmented(self, x: Tensor, at: Moment, purpose: str, share: float = 1.0) -> Tensor:
        """Pictures as the discriminator is shown them.

        Args:
            x: this process's rows of the batch.
            at: the moment, from which the draws follow, with
            purpose: what they are shown for.
            share: of the pictures that are augmented at all.
        """
        policy = self.settings.augment
        if not policy or not share:
            return x
        source = torch.Generator().manual_seed(
            derive_seed(self.settings.seed, "augment", purpose, at.seen)
        )
        first = self.world.rank * self._portion
        draws = draw(self.settings.batch, self.settings.size, policy, source, "cpu")
        if share < 1:
            chosen = torch.rand(self.settings.batch, generator=source) < share
            draws = draws.only(chosen, self.settings.size)
        return augment(x, draws.rows(first, first + self._portion).to(x.device))

    def _descend(self, name: str, loss: Tensor, at: Moment) -> None:
        optimizer = self._optimizers[name]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        network = self.generator if name == "generator" else self.discriminator
        self.world.mean_gradients(network.parameters())
        rate, betas = self._rates(at)
        for group in optimizer.param_groups:
            group["lr"], group["betas"] = rate * self.pace.scale, betas
        optimizer.step()

    def _rates(self, at: Moment) -> tuple[float, tuple[float, float]]:  # noqa: ARG002
        """Adam's rate and the decays of its moments."""
        return self._recipe.lr, (self._recipe.beta1, self._recipe.beta2)


@torch.no_grad()
def spread(x: Tensor) -> Tensor:
    """How far the pictures of a batch are from each other: their mean standard deviation."""
    return x[..., ::4, ::4].float().std(0).mean()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """While gradients pass through a network and not into it."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
