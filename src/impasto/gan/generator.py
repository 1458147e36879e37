"""A trained generator: loads from a run or an exported file, and paints."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from impasto.checkpoints import newest, unpack
from impasto.errors import RunError, SettingsError, WeightsError
from impasto.files import StrPath, atomic_path, os_reason
from impasto.foreign import Weights, write_weights
from impasto.gan.builtin import BUILTIN, KIND, painter_path
from impasto.gan.networks import GeneratorNet
from impasto.gan.recipe import (
    AnyDiscriminator,
    AnyGenerator,
    latents,
    make_discriminator,
    make_generator,
)
from impasto.gan.settings import GanSettings, make_gan_settings
from impasto.gan.style import StyleGenerator

__all__ = ["BEST", "Generator", "load_run"]

BEST: Final = "best.safetensors"
"""The checkpoint with the best scores, in a run's folder."""

BATCH: Final = 64


@dataclass(frozen=True)
class Run:
    """What is in the checkpoint of a run.

    Attributes:
        settings: of the run; where it was computed is not known.
        seen: training pictures seen.
        parts: the states of its parts.
        notes: what is to be told, one line each.
    """

    settings: GanSettings
    seen: int
    parts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def generator(self, *, average: bool = True) -> AnyGenerator:
        """The generator that paints: the average, where there is one and it is wanted."""
        net = make_generator(self.settings)
        self._fill(net, "average" if average and "average" in self.parts else "generator")
        return net.eval().requires_grad_(False)

    def discriminator(self) -> AnyDiscriminator:
        """The discriminator."""
        net = make_discriminator(self.settings)
        self._fill(net, "discriminator")
        return net.eval().requires_grad_(False)

    def _fill(self, net: nn.Module, name: str) -> None:
        try:
            net.load_state_dict(self.parts[name])
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise RunError(f"the run's {name} is damaged: {error}") from None


def load_run(folder: StrPath, *, best: bool = True) -> Run:
    """The checkpoint of a run, without a lock: it may be in training.

    Args:
        folder: of the run.
        best: whether to take the one with the best scores, where there is one, or the newest.

    Raises:
        RunError: there is none that can be read.
    """
    if Path(folder).is_file() or str(folder).startswith(BUILTIN):
        raise RunError(f"{folder} is a file; name the folder of a run")
    path = Path(folder) / BEST
    notes: tuple[str, ...] = ()
    state: Any = None
    if best and path.exists():
        try:
            state = unpack(path.read_bytes())
        except (OSError, ValueError):
            notes = (f"warning: {path} is damaged; using the newest checkpoint",)
    if state is None:
        data, more = newest(Path(folder))
        state, notes = unpack(data), notes + more
    try:
        config = {**state["config"], **state.get("remember", {})}
        known = GanSettings.__dataclass_fields__
        values = {name: config[name] for name in known if name in config}
        if not isinstance(state["parts"], dict):
            raise TypeError("it has no parts")
        settings = make_gan_settings(values)
        return Run(settings, state["seen"], state["parts"], notes)
    except (KeyError, TypeError, SettingsError) as error:
        raise RunError(f"{folder} is no run of impasto gan train: {error}") from None


class Generator:
    """A trained generator.

    Args:
        net: maps latents `(N, latent)` to pictures in [-1, 1].
        card: what made it, as JSON types.
        device: where it paints.
        notes: what a user should know of its file, one line each.
    """

    def __init__(
        self,
        net: AnyGenerator,
        card: Mapping[str, Any],
        device: torch.device | str = "cpu",
        notes: tuple[str, ...] = (),
    ) -> None:
        self.net = net.eval().requires_grad_(False).to(device)
        self.card = dict(card)
        self.device = torch.device(device)
        self.notes = notes

    @property
    def side(self) -> int:
        """Side of its pictures, px."""
        return self.net.side

    @cached_property
    def digest(self) -> str:
        """Which generator it is: the SHA-256 of its weights as float16, hexadecimal.

        So a run's best checkpoint and what was exported of it are the same one.
        """
        total = hashlib.sha256()
        for name, tensor in sorted(self.net.state_dict().items()):
            if tensor.is_floating_point():
                half = tensor.detach().to("cpu", torch.float16).contiguous()
                total.update(name.encode() + repr(tuple(half.shape)).encode())
                total.update(half.numpy().tobytes())
        return total.hexdigest()

    @classmethod
    def load(
        cls, path: StrPath, *, best: bool = True, device: torch.device | str = "cpu"
    ) -> "Generator":
        """A generator from a run's folder, an exported file, or the package.

        Args:
            path: of the folder or file, or `builtin:NAME`.
            best: of a folder, whether to take the checkpoint with the best scores or the newest.
            device: where it paints.

        Raises:
            WeightsError: the file is missing, damaged or no generator.
            RunError: the folder has no checkpoint.
        """
        path = painter_path(path)
        if path.is_dir():
            run = load_run(path, best=best)
            return cls(run.generator(), _card(run), device, run.notes)
        net, card = _read(path)
        return cls(net, card, device)

    def sample(self, count: int, *, seed: int = 0, truncation: float = 1.0) -> Tensor:
        """New pictures.

        Args:
            count: how many.
            seed: of the latents; picture i is the same whatever the count, but for rounding.
            truncation: how far from the mean picture: 1 as trained, 0 only that, up to 2; see
                `impasto.gan.style.Mapping`.

        Returns:
            float32 `(count, 3, side, side)`, sRGB in [0, 1], on the CPU.

        Raises:
            SettingsError: the count is not above 0, or it is no generator with a truncation.
        """
        if count < 1:
            raise SettingsError(f"the number of pictures is {count}; it is at least 1")
        return self.paint(latents(count, self.net.latent, seed), truncation=truncation)

    @torch.no_grad()
    def paint(self, z: Tensor, *, truncation: float = 1.0) -> Tensor:
        """The pictures of latents `(N, latent)`: float32 `(N, 3, side, side)` in [0, 1]."""
        if isinstance(self.net, StyleGenerator) or truncation != 1:
            return self.paint_styles(self.styles(z, truncation=truncation))
        return torch.cat(
            [_pixels(self.net(part.to(self.device))) for part in torch.split(z, BATCH)]
        )

    @torch.no_grad()
    def styles(self, z: Tensor, *, truncation: float = 1.0) -> Tensor:
        """The styles of latents `(N, latent)`: `(N, n, latent)`, one for each convolution.

        Raises:
            SettingsError: its networks have no styles, or the truncation is out of range.
        """
        net = self.style_net
        if not 0 <= truncation <= 2:
            raise SettingsError(f"truncation is {truncation:g}; it is a number from 0 to 2")
        w = net.mapping.truncated(net.mapping(z.to(self.device)), truncation)
        return net.broadcast(w).cpu()

    @torch.no_grad()
    def paint_styles(self, w: Tensor) -> Tensor:
        """The pictures of styles `(N, n, latent)`: float32 `(N, 3, side, side)` in [0, 1]."""
        net = self.style_net
        painted = [net.synthesis(part.to(self.device)) for part in torch.split(w, BATCH)]
        return torch.cat([_pixels(x) for x in painted])

    @property
    def style_net(self) -> StyleGenerator:
        """Its network.

        Raises:
            SettingsError: it is not a style-based one.
        """
        if not isinstance(self.net, StyleGenerator):
            raise SettingsError(
                "this is a generator of --arch dcgan, which has no styles: only one of --arch "
                "style can truncate, mix and project"
            )
        return self.net

    def mix(self, coarse: Tensor, fine: Tensor, side: int) -> Tensor:
        """The styles of one picture, and from some side on those of another.

        Args:
            coarse: `(N, n, latent)`, for the blocks of less than
            side: px, a power of two from 8; more than that of the pictures changes nothing.
            fine: the same shape, for the blocks from `side` on.

        Returns:
            The same shape.
        """
        first = max(0, 2 * (side.bit_length() - 3) - 1)  # 4 px has one convolution, others two
        return torch.cat((coarse[:, :first], fine[:, first:]), 1)

    def walk(
        self, frames: int, *, stops: int = 6, seed: int = 0, truncation: float = 1.0
    ) -> Iterator[Tensor]:
        """A smooth loop through latents, one picture `(1, 3, side, side)` in [0, 1] at a time.

        Between two stops the latent turns on a great circle, so that it keeps the length that
        latents of N(0, 1) have (White 2016, section 2.1), with no kink at the stops' pace. A
        style-based generator goes straight from style to style.
        """
        marks = latents(stops, self.net.latent, seed)
        styles = None
        if isinstance(self.net, StyleGenerator) or truncation != 1:
            styles = self.styles(marks, truncation=truncation)
        for frame in range(frames):
            place = frame / frames * stops
            i = int(place)
            j, share = (i + 1) % stops, _eased(place - i)
            if styles is None:
                yield self.paint(_turned(marks[i], marks[j], share)[None])
            else:
                yield self.paint_styles(torch.lerp(styles[i], styles[j], share)[None])

    def export(self, path: StrPath, *, half: bool = False) -> None:
        """Writes it as one safetensors file with its card: what others load.

        Args:
            path: of the file.
            half: whether the weights are stored in float16: half the size.

        Raises:
            ImpastoError: the file cannot be written.
        """
        dtype = torch.float16 if half else torch.float32
        tensors = {
            name: tensor.detach().to("cpu", dtype).contiguous()
            for name, tensor in self.net.state_dict().items()
            if tensor.is_floating_point()
        }
        metadata = {"kind": KIND, "card": json.dumps(self.card)}
        with atomic_path(path) as temporary:
            write_weights(temporary, Weights(tensors, metadata))


def _card(run: Run) -> dict[str, Any]:
    """What a generator's file tells of itself."""
    record = run.settings.record()
    return {"images": run.seen, **record}


def _read(path: Path) -> tuple[AnyGenerator, dict[str, Any]]:
    """The network and the card in a file that `Generator.export` wrote.

    Raises:
        WeightsError: it is no such file, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != KIND:
                raise WeightsError(f"{path} is no generator that impasto gan export has written")
            card = json.loads(metadata["card"])
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 — not a dict
        net = _net(card)
        missing, unknown = net.load_state_dict(tensors, strict=False)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {os_reason(error)}") from None
    except (
        SafetensorError, KeyError, AttributeError, TypeError, ValueError, ArithmeticError,
        RuntimeError, SettingsError,
    ):  # fmt: skip
        raise WeightsError(
            f"{path} is damaged, or no generator that impasto gan export has written"
        ) from None
    if unknown or any(not name.endswith("num_batches_tracked") for name in missing):
        raise WeightsError(f"{path} is damaged: weights are missing, or too many")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise WeightsError(f"{path} is damaged: some of its weights are no finite numbers")
    return net, card


def _net(card: Mapping[str, Any]) -> AnyGenerator:
    """The network that a card tells of, with fresh weights."""
    if card.get("arch") == "style":
        return StyleGenerator(card["size"], card["latent"], card["channels"], card["mapping"])
    return GeneratorNet(card["size"], card["latent"], card["width"])


def _pixels(x: Tensor) -> Tensor:
    """Pictures from [-1, 1] to [0, 1], on the CPU."""
    return x.float().add(1).div_(2).clamp_(0, 1).cpu()


def _eased(share: float) -> float:
    """A share of the way, slower at both ends."""
    return share * share * (3 - 2 * share)


def _turned(a: Tensor, b: Tensor, share: float) -> Tensor:
    """From `a` to `b` on a great circle."""
    cosine = torch.dot(a, b) / (a.norm() * b.norm())
    angle = torch.arccos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
    first, second = torch.sin((1 - share) * angle), torch.sin(share * angle)
    return (first * a + second * b) / torch.sin(angle)
