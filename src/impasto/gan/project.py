"""A picture's place among the styles: what a generator would have to be told to paint it.

Karras et al. 2020 (arXiv:1912.04958), section 5 and appendix D, find a w whose picture looks like a
given one. We look with the encoder in the package instead of theirs, at pixels too, and give every
convolution a w of its own, as a generator of a few paintings has never seen most pictures.
"""

import base64
import math
from collections.abc import Generator as Steps
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from impasto.encoder import Encoder
from impasto.errors import SettingsError
from impasto.gan.generator import Generator
from impasto.gan.recipe import latents

__all__ = ["Found", "ProjectSettings", "pack_styles", "project", "unpack_styles"]

LAYERS: Final = ("relu1_1", "relu2_1", "relu3_1")
"""What is compared, beside pixels."""


@dataclass(frozen=True, kw_only=True)
class ProjectSettings:
    """How a picture is looked for.

    Attributes:
        steps: of Adam.
        lr: its rate at first, in deviations of w; it falls to 0 on a cosine.
        draws: latents that the start is chosen from.
        pixels: weight of the squared difference of pixels.
        near: weight of the squared distance from the mean of w, in deviations.
        seed: of the draws.
    """

    steps: int = 300
    lr: float = 0.1
    draws: int = 256
    pixels: float = 1.0
    near: float = 0.002
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 100_000:
            raise SettingsError(f"steps is {self.steps}; it is a number from 1 to 100000")
        if not 1 <= self.draws <= 10_000:
            raise SettingsError(f"draws is {self.draws}; it is a number from 1 to 10000")


@dataclass(frozen=True)
class Found:
    """Where the search is.

    Attributes:
        step, steps: so far, and in all.
        loss: of the best styles so far.
        styles: these, `(1, n, latent)`.
    """

    step: int
    steps: int
    loss: float
    styles: Tensor


def project(
    generator: Generator,
    picture: Tensor,
    settings: ProjectSettings = ProjectSettings(),
    encoder: Encoder | None = None,
) -> Steps[Found, None, Found]:
    """Looks for the styles whose picture is most like a given one.

    Args:
        generator: a style-based one.
        picture: `(1, 3, side, side)` of the generator's side, sRGB in [0, 1].
        settings: how.
        encoder: what looks; that of the package if there is none.

    Yields:
        The best so far, after every step.

    Returns:
        The last of these.

    Raises:
        SettingsError: the generator has no styles, or the picture is of another size.
    """
    net = generator.style_net
    if picture.shape != (1, 3, net.side, net.side):
        raise SettingsError(f"a picture for it is (1, 3, {net.side}, {net.side})")
    judge = _Judge(picture.to(generator.device), encoder or Encoder.load(device=generator.device))
    drawn = generator.styles(latents(settings.draws, net.latent, settings.seed))
    drawn = drawn.to(generator.device)
    deviation = drawn[:, 0].std(0).mean().clamp(min=1e-6)
    with torch.no_grad():
        losses = torch.cat(
            [judge(net.synthesis(w), settings.pixels) for w in torch.split(drawn, 32)]
        )
    offset = torch.zeros_like(drawn[:1], requires_grad=True)
    start, mean = drawn[losses.argmin()][None], net.mapping.mean
    adam = torch.optim.Adam([offset], settings.lr, betas=(0.9, 0.99))
    best = Found(0, settings.steps, math.inf, start.cpu())
    for step in range(settings.steps):
        for group in adam.param_groups:
            group["lr"] = settings.lr * (1 + math.cos(math.pi * step / settings.steps)) / 2
        w = start + deviation * offset
        loss = judge(net.synthesis(w), settings.pixels).sum()
        told = loss.item()
        loss = loss + settings.near * ((w - mean) / deviation).square().mean()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        better = told < best.loss
        styles = w.detach().cpu() if better else best.styles
        best = Found(step + 1, settings.steps, min(told, best.loss), styles)
        yield best
        adam.step()
    return best


class _Judge:
    """How unlike a picture others are: relative squared differences of features, and of pixels."""

    def __init__(self, picture: Tensor, encoder: Encoder) -> None:
        self._encoder, self._picture = encoder, picture
        with torch.no_grad():
            self._wanted = encoder(picture, LAYERS)

    def __call__(self, x: Tensor, pixels: float) -> Tensor:
        """The loss of each picture `(N, 3, s, s)` in about [-1, 1]: `(N,)`."""
        x = ((x.float() + 1) / 2).clamp(0, 1)  # as it is shown
        wanted = self._picture
        loss = pixels * (x - wanted).square().mean((1, 2, 3)) / wanted.var().clamp(min=1e-4)
        for layer, features in self._encoder(x, LAYERS).items():
            target = self._wanted[layer]
            energy = target.float().square().mean().clamp(min=1e-12)
            apart = (features.float() - target.float()).square().mean((1, 2, 3)) / energy
            loss = loss + apart / len(LAYERS)
        return loss


def pack_styles(styles: Tensor) -> dict[str, Any]:
    """Styles `(1, n, latent)` as JSON types for a record: float32, little-endian, base64."""
    numbers = styles[0].detach().cpu().float().numpy().astype("<f4")
    return {
        "shape": list(numbers.shape),
        "float32": base64.b64encode(numbers.tobytes()).decode(),
    }


def unpack_styles(packed: Any) -> Tensor:
    """What `pack_styles` was given, on the CPU.

    Raises:
        SettingsError: it is nothing of the kind.
    """
    try:
        rows, columns = packed["shape"]
        numbers = np.frombuffer(base64.b64decode(packed["float32"], validate=True), "<f4")
        whole = all(type(side) is int and side > 0 for side in (rows, columns))
        if whole and numbers.size == rows * columns and np.isfinite(numbers).all():
            return torch.from_numpy(numbers.astype(np.float32).reshape(1, rows, columns))
    except (KeyError, TypeError, ValueError):
        pass
    raise SettingsError("the styles in the record cannot be read")
