"""Everything that a training run needs to go on, in one safetensors file.

A state is a tree of dictionaries, lists, tensors and plain JSON values: what `state_dict` of
modules and optimisers gives. Its tensors become the file's tensors, named by their path in the
tree; the tree itself, with everything that is no tensor, is JSON in the file's metadata. Nothing
in a checkpoint is ever executed.

A run's folder holds the newest two, `checkpoint-000000128000.safetensors` for one after 128,000
pictures. If the newest is damaged, the one before it stands in. Whoever only reads needs no lock:
a file is there as a whole or not at all.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from impasto.errors import ImpastoError, RunError
from impasto.files import StrPath, atomic_path, os_reason

__all__ = [
    "checkpoints",
    "load_checkpoint",
    "newest",
    "pack",
    "save_checkpoint",
    "unpack",
    "write_newest",
]

KEPT: Final = 2

_NAME: Final = re.compile(r"checkpoint-\d{12}\.safetensors")


# --- One file -------------------------------------------------------------------------------------


def pack(state: Any) -> bytes:
    """A state as the bytes of a safetensors file.

    Args:
        state: a tree of dicts (keys: strings or integers), lists, tuples, tensors and JSON values.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(state, "", tensors))
    return save(tensors, {"state": tree, "sha256": _sum(tree, tensors)})


def unpack(data: bytes) -> Any:
    """The state that `pack` was given, its tensors on the CPU.

    Raises:
        ValueError: it is no such state.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        size = int.from_bytes(data[:8], "little")
        metadata, tensors = json.loads(data[8 : 8 + size])["__metadata__"], load(data)
        if metadata["sha256"] != _sum(metadata["state"], tensors):
            raise ValueError("its content is not that of its checksum")
        return _unpack(json.loads(metadata["state"]), tensors)
    except (SafetensorError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def save_checkpoint(path: StrPath, state: Any) -> None:
    """Writes a state in one step: a process killed at any moment leaves the old file or the new.

    Args:
        path: the file; its folder must exist.
        state: as `pack` takes it.

    Raises:
        ImpastoError: the file cannot be written.
    """
    data = pack(state)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def load_checkpoint(path: StrPath) -> Any:
    """The state that `save_checkpoint` wrote, its tensors on the CPU.

    Raises:
        RunError: the file cannot be read or is no checkpoint.
    """
    try:
        return unpack(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is no checkpoint that can be read: {error}") from None


# --- A run's folder -------------------------------------------------------------------------------


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder, the newest last."""
    named = (path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name))
    return sorted(named)


def newest(folder: Path) -> tuple[bytes, tuple[str, ...]]:
    """The newest checkpoint that is whole, and what is to be told about those that are not.

    Raises:
        RunError: there is none.
    """
    notes: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            data = path.read_bytes()
            unpack(data)
        except FileNotFoundError:  # a newer one has come meanwhile
            return newest(folder)
        except (OSError, ValueError):
            notes.append(f"warning: {path} is damaged; going on from the checkpoint before it")
        else:
            return data, tuple(notes)
    if notes:
        raise RunError(f"every checkpoint in {folder} is damaged; start again in another folder")
    raise RunError(f"there is no checkpoint in {folder}; it is no run, or one that never began")


def write_newest(folder: Path, seen: int, state: Any) -> None:
    """Writes the checkpoint after so many pictures, and removes all but the newest two.

    Raises:
        ImpastoError: it cannot be written; what is there stays.
    """
    path = folder / f"checkpoint-{seen:012}.safetensors"
    save_checkpoint(path, state)
    others = [other for other in checkpoints(folder) if other != path]
    # After a fall-back, damaged ones are newer by name: they go first.
    stale = [other for other in others if other.name > path.name]
    older = [other for other in others if other.name < path.name]
    for other in [*stale, *older[: len(older) - (KEPT - 1)]]:
        with suppress(FileNotFoundError):
            try:
                other.unlink()
            except PermissionError as error:
                raise ImpastoError(f"cannot remove {other}: {os_reason(error)}") from error


def _sum(tree: str, tensors: Mapping[str, Tensor]) -> str:
    """A checksum of all that is in a state, hexadecimal; safetensors has none."""
    digest = hashlib.sha256(tree.encode())
    for name in sorted(tensors):
        flat = tensors[name].contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The tree of `value`, whose tensors are put into `tensors` under names that begin so."""
    match value:
        case Tensor():
            data = value.detach()
            tensors[name] = data.cpu().clone(memory_format=torch.contiguous_format)
            if data.ndim == 4 and not data.is_contiguous():
                return {"tensor": name, "channels_last": True}
            return {"tensor": name}
        case dict():
            pairs = [[key, _pack(part, f"{name}/{key}", tensors)] for key, part in value.items()]
            return {"dict": pairs}
        case list() | tuple():
            parts = [_pack(part, f"{name}/{i}", tensors) for i, part in enumerate(value)]
            return {"list" if isinstance(value, list) else "tuple": parts}
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"a checkpoint cannot hold the {type(value).__name__} at {name}")


def _unpack(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The value whose tree this is."""
    match tree:
        case {"tensor": name, **rest}:
            memory = torch.channels_last if rest else torch.contiguous_format
            return tensors[name].contiguous(memory_format=memory)
        case {"dict": pairs}:
            return {key: _unpack(part, tensors) for key, part in pairs}
        case {"list": parts}:
            return [_unpack(part, tensors) for part in parts]
        case {"tuple": parts}:
            return tuple(_unpack(part, tensors) for part in parts)
    return tree
