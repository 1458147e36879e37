"""Blends encoders that were trained from one another: a share of each weight.

    python -m training.blend --data FOLDER --out FILE ROBUST.safetensors:0.8 CLEAN.safetensors:0.2

Networks that share the beginning of their training lie in one basin, where the mean of their
weights does well at what either does (Wortsman et al. 2022, arXiv:2109.01903). Adversarial training
makes gradients that paint well and forgets classes; a share of the network from before brings them
back. All have to be normalised, as `training.encoder` exports them, so that their sizes agree.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from impasto.encoder import Plan
from impasto.errors import SettingsError
from impasto.files import atomic_path
from impasto.foreign import Weights, write_weights
from impasto.weights import load_weights
from training.classifier import normalise
from training.datasets import style_pictures, tiny_imagenet
from training.encoder import calibration

KEPT = ("plan", "mean", "std", "pooling", "padding")
"""What the blend takes over from the first file."""


def blend(parts: Sequence[tuple[Weights, float]]) -> Weights:
    """The weighted mean of weights that have the same names and shapes.

    Raises:
        SettingsError: they differ in shape, or the shares do not add up to 1.
    """
    first = parts[0][0]
    if abs(sum(share for _, share in parts) - 1) > 1e-6:
        raise SettingsError("the shares of a blend add up to 1")
    tensors = {}
    for name, tensor in first.tensors.items():
        found = [weights.tensors.get(name) for weights, _ in parts]
        if any(other is None or other.shape != tensor.shape for other in found):
            raise SettingsError(f"{name} is not of one shape in all files")
        shares = [share for _, share in parts]
        pairs = zip(found, shares, strict=True)
        tensors[name] = sum(share * other.float() for other, share in pairs if other is not None)
    metadata = {key: first.metadata[key] for key in KEPT if key in first.metadata}
    return Weights(tensors, metadata)  # type: ignore[arg-type]


def parse(text: str) -> tuple[Path, float]:
    """A file and its share, written `FILE:0.8`."""
    match = re.fullmatch(r"(.+):(\d*\.?\d+)", text)
    if not match:
        raise SettingsError(f"cannot understand {text!r}; write FILE:SHARE")
    return Path(match[1]), float(match[2])


def main(arguments: Sequence[str] | None = None) -> None:
    """Blends, normalises over the same pictures as the recipe, and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="+", metavar="FILE:SHARE", help="weight files; add up to 1")
    parser.add_argument("--data", type=Path, required=True, help="as for training.encoder")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--cache", type=Path, help="folder of decoded pictures")
    given = parser.parse_args(arguments)
    named = [parse(text) for text in given.files]
    loaded = [(load_weights(path), share) for path, share in named]
    mixed = blend([(Weights(dict(w.tensors), dict(w.metadata)), share) for w, share in loaded])
    with TemporaryDirectory() as folder:
        cache = given.cache or Path(folder)
        photos = calibration(
            style_pictures(given.data, cache), tiny_imagenet(given.data, "val", cache)
        )
        metadata = dict(mixed.metadata)
        pooling, padding = (
            metadata.setdefault("pooling", "avg"),
            metadata.setdefault("padding", "zero"),
        )
        plan = Plan.parse(metadata["plan"])
        tensors = normalise(mixed.tensors, plan, photos, pooling, padding)  # type: ignore[arg-type]
    metadata["blend"] = ", ".join(f"{share:g} {path.name}" for path, share in named)
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    with atomic_path(given.out) as temporary:
        write_weights(temporary, Weights(halves, metadata))


if __name__ == "__main__":
    main()
