"""Everything that a training run needs to go on, in one safetensors file.

A state is a tree of dictionaries, lists, tensors and plain JSON values: what `state_dict` of
modules and optimisers gives. Its tensors become the file's tensors, named by their path in the
tree; the tree itself, with everything that is no tensor, is JSON in the file's metadata.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impasto.errors import RunError
from impasto.files import StrPath, atomic_path

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(path: StrPath, state: Any) -> None:
    """Writes a state in one step: a process killed at any moment leaves the old file or the new.

    Args:
        path: the file; its folder must exist.
        state: a tree of dicts (keys: strings or integers), lists, tuples, tensors and JSON values.

    Raises:
        ImpastoError: the file cannot be written.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(state, "", tensors))
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"state": tree})


def load_checkpoint(path: StrPath) -> Any:
    """The state that `save_checkpoint` wrote, its tensors on the CPU.

    Raises:
        RunError: the file cannot be read or is no checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(Path(path), framework="pt") as file:
            tree = json.loads((file.metadata() or {})["state"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 — not a dict
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path} is no checkpoint that can be read: {error}") from None
    return _unpack(tree, tensors)


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
