"""Blends networks that were trained from one another: a share of each weight.

    python -m training.blend --data FOLDER --out FILE ROBUST.safetensors:0.8 CLEAN.safetensors:0.2
    python -m training.blend --out FILE ONE/fast.safetensors:0.5 OTHER/fast.safetensors:0.5

Networks that share the beginning of their training lie in one basin, where the mean of their
weights does well at what either does (Wortsman et al. 2022, arXiv:2109.01903). Adversarial training
makes gradients that paint well and forgets classes; a share of the network from before brings them
back. Encoders have to be normalised, as `training.encoder` exports them, so that sizes agree.

Networks that paint in one pass, from runs with other seeds, are better together than each alone:
what is chance in their steps evens out.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from impasto.encoder import Plan
from impasto.errors import ImpastoError, SettingsError
from impasto.files import atomic_path
from impasto.foreign import Weights, write_weights
from impasto.weights import read_weights, weights_path
from training.classifier import normalise
from training.datasets import style_pictures, tiny_imagenet
from training.encoder import calibration

ENCODER = ("plan", "mean", "std", "pooling", "padding")
FAST = ("kind", "form", "widths", "encoder", "encoder_sha256")
"""What all files of a kind have to agree on, where they name it; the blend takes it over."""


def blend(parts: Sequence[tuple[Weights, float]], kept: Sequence[str] = ENCODER) -> Weights:
    """The weighted mean of weights that have the same names and shapes.

    Raises:
        SettingsError: they differ in shape or in what `kept` names, or the shares do not add up
            to 1.
    """
    first = parts[0][0]
    if abs(sum(share for _, share in parts) - 1) > 1e-6:
        raise SettingsError("the shares of a blend add up to 1")
    for weights, _ in parts:
        for name in first.tensors.keys() | weights.tensors.keys():
            if _shape(weights, name) != _shape(first, name):
                raise SettingsError(f"{name} is not of one shape in all files")
    metadata = {}
    for key in kept:
        named = {weights.metadata[key] for weights, _ in parts if key in weights.metadata}
        if len(named) != 1:
            told = ", ".join(sorted(named)) or "not named by any"
            raise SettingsError(f"the files have to agree on {key}, and it is {told}")
        metadata[key] = named.pop()
    tensors = {}
    for name, tensor in first.tensors.items():
        total = torch.zeros_like(tensor, dtype=torch.float32)
        for weights, share in parts:
            total += share * weights.tensors[name].float()
        tensors[name] = total
    return Weights(tensors, metadata)


def _shape(weights: Weights, name: str) -> tuple[int, ...] | None:
    tensor = weights.tensors.get(name)
    return None if tensor is None else tuple(tensor.shape)


def parse(text: str) -> tuple[Path, float]:
    """A file and its share, written `FILE:0.8`."""
    match = re.fullmatch(r"(.+):(\d+\.?\d*|\.\d+)", text)
    if not match:
        raise SettingsError(f"cannot understand {text!r}; write FILE:SHARE")
    return Path(match[1]), float(match[2])


def main(arguments: Sequence[str] | None = None) -> None:
    """Blends, normalises encoders over the same pictures as their recipe, and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="+", metavar="FILE:SHARE", help="weight files; add up to 1")
    parser.add_argument("--data", type=Path, help="for encoders, as for training.encoder")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--cache", type=Path, help="folder of decoded pictures")
    given = parser.parse_args(arguments)
    try:
        _blend_files([parse(text) for text in given.files], given.data, given.cache, given.out)
    except ImpastoError as error:
        parser.error(str(error))


def _blend_files(
    named: Sequence[tuple[Path, float]], data: Path | None, cache: Path | None, out: Path
) -> None:
    files = [(read_weights(weights_path(path)), share) for path, share in named]
    parts = [(Weights(file.tensors, file.metadata), share) for file, share in files]
    if any(file.metadata.get("kind") == "fast" for file, _ in files):
        mixed = blend(parts, FAST)
        metadata = dict(mixed.metadata) | _history([part for part, _ in parts])
        tensors = mixed.tensors
    else:
        if data is None:
            raise SettingsError("encoders are normalised over pictures; say where with --data")
        mixed = blend(parts)
        metadata = dict(mixed.metadata)
        mean, std = (files[0][0].triple(name) for name in ("mean", "std"))
        tensors = _normalised(mixed, Plan.parse(metadata["plan"], mean=mean, std=std), data, cache)
    metadata["blend"] = ", ".join(f"{share:g} {path.name}" for path, share in named)
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    with atomic_path(out) as temporary:
        write_weights(temporary, Weights(halves, metadata))


def _history(parts: Sequence[Weights]) -> dict[str, str]:
    """The recipes of all, one after the other, and how many pictures they painted."""
    recipes: list[object] = []
    for part in parts:
        recipe = json.loads(part.metadata.get("recipe", "[]"))
        recipes += recipe if isinstance(recipe, list) else [recipe]
    images = sum(int(part.metadata.get("images", 0)) for part in parts)
    return {"recipe": json.dumps(recipes), "images": str(images)}


def _normalised(mixed: Weights, plan: Plan, data: Path, cache: Path | None) -> Mapping[str, Tensor]:
    """An encoder's weights, normalised over the same pictures as its recipe does."""
    with TemporaryDirectory() as folder:
        cache = cache or Path(folder)
        pictures = style_pictures(data, cache)
        if not len(pictures.labels):
            pictures = tiny_imagenet(data, "val", cache)
        photos = calibration(pictures, pictures)
        pooling, padding = mixed.metadata["pooling"], mixed.metadata["padding"]
        return normalise(mixed.tensors, plan, photos, pooling, padding)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
