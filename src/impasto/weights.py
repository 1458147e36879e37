"""Weight files: where they lie, what they hold, and whether they are what they say.

A weight file is a safetensors file with string metadata. Files are versioned by name
(`slim-v0.safetensors`, `slim-1.safetensors`, ...) and never overwritten; whatever was made with
one remembers its SHA-256.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from impasto.errors import WeightsError
from impasto.files import sha256_file

__all__ = ["MODELS", "WeightFile", "bundled", "check_sha256", "load_weights", "weights_path"]

MODELS: Final = Path(__file__).with_name("models")
"""The folder of the networks that we trained and ship."""


@dataclass(frozen=True)
class WeightFile:
    """What a weight file holds.

    Attributes:
        name: its file name without the suffix, such as `slim-v0`.
        path: where it lies.
        sha256: of the file's bytes, 64 hex digits.
        tensors: the weights, as float32 on the CPU.
        metadata: the strings stored with them.
    """

    name: str
    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    def triple(self, key: str) -> tuple[float, float, float]:
        """Three numbers of the metadata, as in `0.485,0.456,0.406`."""
        try:
            a, b, c = (float(part) for part in self.metadata[key].split(","))
        except (KeyError, ValueError):
            raise WeightsError(f"{self.path} does not say its {key!r} in three numbers") from None
        return a, b, c


def bundled() -> dict[str, Path]:
    """The networks in the package, by name, oldest first within a family."""
    return {path.stem: path for path in sorted(MODELS.glob("*.safetensors"), key=_version)}


def weights_path(name: str | Path) -> Path:
    """The file of an encoder's name: a bundled one, a family (its newest), or a path.

    Raises:
        WeightsError: there is none; the message names those there are.
    """
    text = str(name)
    if text.endswith(".safetensors") or "/" in text or "\\" in text:
        path = Path(text)
        if not path.is_file():
            raise WeightsError(f"there is no weight file {path}")
        return path
    files = bundled()
    if text in files:
        return files[text]
    family = [path for stem, path in files.items() if stem.rpartition("-")[0] == text]
    if not family:
        known = sorted({stem.rpartition("-")[0] for stem in files} | files.keys())
        raise WeightsError(
            f"there is no encoder {text!r}; there are {', '.join(known)}, "
            "or give the path of a .safetensors file"
        )
    return family[-1]


def load_weights(name: str | Path) -> WeightFile:
    """Reads the weight file of this name or path.

    Raises:
        WeightsError: it is missing, damaged, or says no plan.
    """
    from safetensors import SafetensorError, safe_open

    path = weights_path(name)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key).to(torch.float32) for key in file.keys()}  # noqa: SIM118 — not a dict
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read the weight file {path}: {error}") from None
    if "plan" not in metadata:
        raise WeightsError(f"{path} is no encoder: its metadata has no 'plan'")
    return WeightFile(path.stem, path, sha256_file(path), tensors, metadata)


def check_sha256(what: str, wanted: str, found: str) -> None:
    """Raises WeightsError if something was made with other weights than those at hand.

    Args:
        what: what was made with them, for the message.
        wanted: the SHA-256 that it remembers.
        found: that of the weights at hand.
    """
    if wanted != found:
        raise WeightsError(
            f"{what} was made with weights of SHA-256 {wanted[:12]}…, but those at hand have "
            f"{found[:12]}…; install the version of impasto that made it, or make it anew"
        )


def _version(path: Path) -> tuple[str, int, int]:
    """A sort key: family, then v0 (the trial version) before 1, 2, 10."""
    family, _, version = path.stem.rpartition("-")
    number = re.sub(r"\D", "", version)
    return family, 0 if version.startswith("v") else 1, int(number or 0)
