"""Weight files: where they lie, what they hold, and whether they are what they say.

A weight file is a safetensors file with string metadata. Those in the package are versioned by name
(`slim-1.safetensors`, `slim-2.safetensors`, ...) and never overwritten; whatever was made with
one remembers its SHA-256. The classic networks are in `classics`, other programs' files in
`foreign`. torch is imported when a file is read, not before.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from impasto.classics import CLASSICS, check_classic, is_file, prepare
from impasto.errors import WeightsError
from impasto.files import os_reason, sha256_file
from impasto.foreign import READERS, Weights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MODELS",
    "SUFFIXES",
    "WeightFile",
    "bundled",
    "check_sha256",
    "kind_of",
    "known_names",
    "load_weights",
    "read_weights",
    "verify",
    "weights_path",
]

SUFFIXES: Final = (".safetensors", *READERS)
"""The kinds of weight files that can be read."""

HEADER: Final = 1 << 24
"""The most bytes of a safetensors file's header that are read."""

MODELS: Final = Path(__file__).with_name("models")
"""The folder of the networks that we trained and ship."""


@dataclass(frozen=True)
class WeightFile:
    """What a weight file holds.

    Attributes:
        name: its file name without the suffix, such as `slim-1`.
        path: where it lies.
        sha256: of the bytes of the file given, 64 hex digits.
        tensors: the weights, as float32 on the CPU.
        metadata: the strings stored with them.
    """

    name: str
    path: Path
    sha256: str
    tensors: Mapping[str, "Tensor"]
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


def kind_of(path: Path) -> str:
    """What a safetensors file says it holds, without torch; empty if it says nothing.

    Encoders say nothing.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            metadata = json.loads(file.read(min(size, HEADER))).get("__metadata__", {})
        return str(metadata.get("kind", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def known_names() -> list[str]:
    """Every name that an encoder can be called by: bundled ones, their families, classics."""
    files = {stem for stem, path in bundled().items() if not kind_of(path)}
    return sorted({stem.rpartition("-")[0] for stem in files} | files | CLASSICS.keys())


def weights_path(name: str | Path) -> Path:
    """The file of an encoder's name: a bundled one, a family (its newest), a classic, or a path.

    Raises:
        WeightsError: there is none; the message names those there are, or how to get it.
    """
    text = str(name)
    if Path(text).suffix.lower() in SUFFIXES or "/" in text or "\\" in text:
        return _existing(Path(text))
    files = bundled()
    if text in files:
        return files[text]
    if family := [path for stem, path in files.items() if stem.rpartition("-")[0] == text]:
        return family[-1]
    if text in CLASSICS:
        if not is_file(CLASSICS[text].path):
            check_classic(CLASSICS[text])  # says how to get it
        return CLASSICS[text].path
    raise WeightsError(
        f"there is no encoder {text!r}; there are {', '.join(known_names())}, "
        "or give the path of a .safetensors, .pth or .h5 file"
    )


def load_weights(name: str | Path) -> WeightFile:
    """Reads the weights of this name or path.

    A classic whose published file is here but was never read before is converted first. A path
    may also lead to a file of torchvision's (`.pth`) or Keras's (`.h5`); see `foreign`.

    Raises:
        WeightsError: they are missing, damaged, or say no plan.
    """
    classic = CLASSICS.get(str(name))
    if classic is not None:
        prepare(classic)
    file = read_weights(weights_path(name), None if classic is None else check_classic(classic))
    if file.metadata.get("kind") == "fast":
        raise WeightsError(f"{file.path.stem} paints in one pass and does not look: --method fast")
    if file.metadata.get("kind") == "impasto generator":
        raise WeightsError(
            f"{file.path.stem} paints new pictures and does not look: impasto gan; the encoders "
            f"are {', '.join(known_names())}"
        )
    if "plan" not in file.metadata:
        raise WeightsError(f"{file.path} is no encoder: its metadata has no 'plan'")
    return file


def read_weights(path: str | Path, sha256: str | None = None) -> WeightFile:
    """Reads a weight file, whatever the network.

    Args:
        path: the file.
        sha256: of its bytes, where it is known already.

    Raises:
        WeightsError: it is missing or damaged.
    """
    path = _existing(Path(path))
    _check_kind(path)
    sha256 = sha256 or sha256_file(path)
    tensors, metadata = READERS.get(path.suffix.lower(), _read)(path)
    return WeightFile(path.stem, path, sha256, tensors, metadata)


def verify(name: str) -> Path:
    """The file of a bundled network or a classic, compared with the SHA-256 that is known of it.

    Raises:
        WeightsError: it is missing or has changed; the message says what to do.
    """
    path = weights_path(name)
    if name in CLASSICS:
        check_classic(CLASSICS[name])
        return path
    if path not in bundled().values():
        raise WeightsError(f"nothing is known to check {path} against")
    card = path.with_suffix(".md")
    found = sha256_file(path)
    if found not in (card.read_text(encoding="utf-8") if is_file(card) else ""):
        raise WeightsError(
            f"{path} is damaged: its SHA-256 {found[:12]}… is not the one in {card.name}; "
            "install impasto again"
        )
    return path


def _existing(path: Path) -> Path:
    """The path, which must lead to a file."""
    if is_file(path):
        return path
    with suppress(OSError):  # a name that the system does not allow
        if path.is_dir():
            raise WeightsError(f"there is no weight file {path}: it is a folder")
    raise WeightsError(f"there is no weight file {path}")


def _check_kind(path: Path) -> None:
    """Refuses other kinds of files, and what a failed download leaves: nothing, or a web page."""
    reason = ""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        reason = os_reason(error)
    else:
        if not head:
            reason = "it is empty"
        elif head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
            reason = "it is a web page"
        elif path.suffix.lower() not in SUFFIXES:
            reason = f"its name ends in none of {', '.join(SUFFIXES)}"
    if reason:
        raise WeightsError(f"cannot read the weight file {path}: {reason}")


def _read(path: Path) -> Weights:
    """The tensors, as float32, and the metadata of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 — not a dict
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read the weight file {path}: {error}") from None
    return Weights(tensors, metadata)


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
