"""The settings record: what made a picture, stored in the picture and in the log.

A record is a JSON object. Its `record` is the version of its layout; a change that an older reader
would misunderstand raises it. It holds no time and no path, so that the same run gives the same
file everywhere.
"""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from impasto._version import __version__
from impasto.images import Picture, read_record

__all__ = [
    "RECORD_VERSION",
    "SHEET_RECORD",
    "Network",
    "describe_input",
    "make_record",
    "read_settings",
    "same_request",
    "versions",
]

RECORD_VERSION: Final = 1

Network = tuple[str, str]
"""A network's name and the SHA-256 of its file."""

SHEET_RECORD: Final = json.dumps({"record": RECORD_VERSION, "status": "sheet"})
"""What says that a picture is a sheet of ours, which a later run may replace."""


def describe_input(role: str, picture: Picture, **more: Any) -> dict[str, Any]:
    """What a record says of an input: its role, base name and SHA-256.

    The sum is that of the file; of a generated picture, that of its generator and seed; of any
    other that came from no file, that of its pixels. The name of a generated one is
    `gan:RUN?seed=N`, without the folder that RUN is in.
    """
    name = None
    if picture.source:
        path = picture.source.removeprefix("gan:")
        name = picture.source.removesuffix(path) + Path(path).name
    of_pixels = hashlib.sha256(repr(picture.pixels.shape).encode() + picture.pixels.tobytes())
    if picture.alpha is not None:
        of_pixels.update(picture.alpha.tobytes())
    return {"role": role, "name": name, "sha256": picture.sha256 or of_pixels.hexdigest(), **more}


def make_record(
    job: str,
    settings: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    encoder: Network,
    start: Network | None = None,
) -> dict[str, Any]:
    """The part of a record that is known before the work: what was asked, of what.

    Args:
        job: the command.
        settings: every option.
        inputs: as `describe_input` gives them.
        encoder: the network's name and SHA-256.
        start: the same of the one that painted what it started from; None if none did.
    """
    begun = {} if start is None else {"start": {"name": start[0], "sha256": start[1]}}
    return {
        "record": RECORD_VERSION,
        "job": job,
        # A network given by its path is named without it: records travel with pictures.
        "settings": dict(settings) | {"encoder": Path(settings.get("encoder", "")).name},
        "inputs": [dict(entry) for entry in inputs],
        "encoder": {"name": encoder[0], "sha256": encoder[1]},
        **begun,
        "versions": versions(),
    }


def same_request(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two records asked for the same: the same options, network and input files."""
    return bool(_request(a) == _request(b))


def read_settings(path: Path) -> dict[str, Any] | None:
    """The record inside a picture, or None if it has none that we can read."""
    text = read_record(path)
    try:
        record = json.loads(text or "null")
    except (ValueError, RecursionError):  # or nested without end
        return None
    if not isinstance(record, dict) or record.get("record") != RECORD_VERSION:
        return None
    return record


def _request(record: Mapping[str, Any]) -> Any:
    inputs = record.get("inputs", [])
    anonymous = inputs
    if isinstance(inputs, list):
        anonymous = [
            {k: v for k, v in entry.items() if k != "name"} if isinstance(entry, dict) else entry
            for entry in inputs
        ]
    asked = {key: record.get(key) for key in ("job", "settings", "encoder", "start", "frames")}
    asked["inputs"] = anonymous
    return json.loads(json.dumps(asked))  # tuples and lists are alike in JSON


def versions() -> dict[str, str]:
    """The versions that pixels depend on."""
    import torch

    return {
        "impasto": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
