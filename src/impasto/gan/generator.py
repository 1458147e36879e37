"""A trained generator: loads from a run or an exported file, and paints."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from impasto.checkpoints import newest, unpack
from impasto.errors import RunError, SettingsError, WeightsError
from impasto.files import StrPath, atomic_path, os_reason
from impasto.foreign import Weights, write_weights
from impasto.gan.networks import Discriminator, GeneratorNet
from impasto.gan.recipe import latents
from impasto.gan.settings import GanSettings

__all__ = ["BEST", "Generator", "load_run"]

BEST: Final = "best.safetensors"
"""The checkpoint with the best scores, in a run's folder."""

KIND: Final = "impasto generator"
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

    def generator(self) -> GeneratorNet:
        """The generator that paints: the average, where there is one."""
        net = GeneratorNet(self.settings.size, self.settings.latent, self.settings.width)
        self._fill(net, "average" if "average" in self.parts else "generator")
        return net.eval().requires_grad_(False)

    def discriminator(self) -> Discriminator:
        """The discriminator."""
        settings = self.settings
        net = Discriminator(settings.size, settings.width, settings.recipe.norm)
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
    if Path(folder).is_file():
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
        values["augment"] = tuple(values["augment"])
        if not isinstance(state["parts"], dict):
            raise TypeError("it has no parts")
        settings = GanSettings(**values)
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
        net: GeneratorNet,
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

    @classmethod
    def load(
        cls, path: StrPath, *, best: bool = True, device: torch.device | str = "cpu"
    ) -> "Generator":
        """A generator from a run's folder or an exported file.

        Args:
            path: of the folder or file.
            best: of a folder, whether to take the checkpoint with the best scores or the newest.
            device: where it paints.

        Raises:
            WeightsError: the file is missing, damaged or no generator.
            RunError: the folder has no checkpoint.
        """
        path = Path(path)
        if path.is_dir():
            run = load_run(path, best=best)
            return cls(run.generator(), _card(run), device, run.notes)
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("kind") != KIND:
                    raise WeightsError(
                        f"{path} is no generator that impasto gan export has written"
                    )
                card = json.loads(metadata["card"])
                tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 — not a dict
            net = GeneratorNet(card["size"], card["latent"], card["width"])
            net.load_state_dict(tensors, strict=False)
            missing = set(net.state_dict()) - set(tensors)
            missing = {name for name in missing if not name.endswith("num_batches_tracked")}
            if missing:
                raise WeightsError(f"{path} is damaged: {min(missing)} is missing")
        except OSError as error:
            raise WeightsError(f"cannot read {path}: {os_reason(error)}") from None
        except (
            SafetensorError, KeyError, TypeError, ValueError, RuntimeError, SettingsError
        ) as error:  # fmt: skip
            raise WeightsError(f"{path} is damaged, or no generator: {error}") from None
        return cls(net, card, device)

    def sample(self, count: int, *, seed: int = 0) -> Tensor:
        """New pictures.

        Args:
            count: how many.
            seed: of the latents; picture i is the same whatever the count.

        Returns:
            float32 `(count, 3, side, side)`, sRGB in [0, 1], on the CPU.

        Raises:
            SettingsError: the count is not above 0.
        """
        if count < 1:
            raise SettingsError(f"the number of pictures is {count}; it is at least 1")
        return self.paint(latents(count, self.net.latent, seed))

    @torch.no_grad()
    def paint(self, z: Tensor) -> Tensor:
        """The pictures of latents `(N, latent)`: float32 `(N, 3, side, side)` in [0, 1]."""
        painted = [
            self.net(part.to(self.device)).float().add_(1).div_(2).clamp_(0, 1).cpu()
            for part in torch.split(z, BATCH)
        ]
        return torch.cat(painted)

    def walk(self, frames: int, *, stops: int = 6, seed: int = 0) -> Iterator[Tensor]:
        """A smooth loop through latents, one picture `(1, 3, side, side)` in [0, 1] at a time.

        Between two stops the latent turns on a great circle, so that it keeps the length that
        latents of N(0, 1) have (White 2016, section 2.1), with no kink at the stops' pace.
        """
        marks = latents(stops, self.net.latent, seed)
        for frame in range(frames):
            place = frame / frames * stops
            i = int(place)
            yield self.paint(_turned(marks[i], marks[(i + 1) % stops], place - i)[None])

    def export(self, path: StrPath) -> None:
        """Writes it as one safetensors file with its card: what others load.

        Raises:
            ImpastoError: the file cannot be written.
        """
        tensors = {
            name: tensor.detach().cpu().contiguous()
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


def _turned(a: Tensor, b: Tensor, share: float) -> Tensor:
    """From `a` to `b` on a great circle; the pace eases in and out at the ends."""
    eased = share * share * (3 - 2 * share)
    cosine = torch.dot(a, b) / (a.norm() * b.norm())
    angle = torch.arccos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
    first, second = torch.sin((1 - eased) * angle), torch.sin(eased * angle)
    return (first * a + second * b) / torch.sin(angle)
