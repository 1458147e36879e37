"""The generators in the package: what `builtin:NAME` means. Nothing here imports torch."""

from pathlib import Path
from typing import Final

from impasto.errors import WeightsError
from impasto.files import StrPath
from impasto.weights import bundled, kind_of

__all__ = ["BUILTIN", "KIND", "name_of", "painter_path", "painters"]

BUILTIN: Final = "builtin:"
"""How the name of a generator in the package begins."""

KIND: Final = "impasto generator"
"""What a generator's file says it is, in its metadata."""


def painters() -> dict[str, Path]:
    """The generators in the package by name, oldest first within a family."""
    return {stem: path for stem, path in bundled().items() if kind_of(path) == KIND}


def painter_path(name: StrPath) -> Path:
    """The folder or file that is meant: a path, or `builtin:NAME`, the newest of that family.

    Raises:
        WeightsError: there is no such generator in the package.
    """
    text = str(name)
    if not text.startswith(BUILTIN):
        return Path(name)
    wanted, here = text.removeprefix(BUILTIN), painters()
    family = [path for stem, path in here.items() if wanted in (stem, stem.rpartition("-")[0])]
    if family:
        return family[-1]
    if not here:
        raise WeightsError(
            f"there is no {text}: no painter comes with this version; train one with "
            "impasto gan train, and name its run or a file that impasto gan export wrote"
        )
    names = sorted({stem.rpartition("-")[0] for stem in here})
    raise WeightsError(f"there is no {text}; there are {', '.join(BUILTIN + n for n in names)}")


def name_of(path: Path) -> str:
    """What `painter_path` takes for the same one again: `builtin:landscapes-1`, or the path."""
    return f"{BUILTIN}{path.stem}" if path in painters().values() else str(path)
