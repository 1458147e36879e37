"""impasto repaints your photos in the style of any painting, on any computer, offline.

    >>> import impasto
    >>> result = impasto.transfer("sample:astronaut", "sample:strokes", size=256)
    >>> result.save("out.png")

The names below are the public interface; they are loaded when first used, so that
`import impasto` is quick and `open_image` needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from impasto._version import __version__

if TYPE_CHECKING:
    from impasto.encoder import Encoder
    from impasto.errors import ImpastoError
    from impasto.fast.style import FastStyle
    from impasto.gan.generator import Generator
    from impasto.images import Picture, open_image, save_image
    from impasto.inputs import Style
    from impasto.jobs.grid import grid
    from impasto.jobs.recolor import recolor
    from impasto.jobs.reconstruct import iter_reconstruct, reconstruct
    from impasto.jobs.redo import iter_redo, redo
    from impasto.jobs.texture import iter_texture, texture
    from impasto.jobs.transfer import Painter, iter_transfer, transfer
    from impasto.progress import Progress, Result

__all__ = [
    "Encoder",
    "FastStyle",
    "Generator",
    "ImpastoError",
    "Painter",
    "Picture",
    "Progress",
    "Result",
    "Style",
    "__version__",
    "grid",
    "iter_reconstruct",
    "iter_redo",
    "iter_texture",
    "iter_transfer",
    "open_image",
    "recolor",
    "reconstruct",
    "redo",
    "save_image",
    "texture",
    "transfer",
]

_HOMES = {
    "Encoder": "encoder",
    "FastStyle": "fast.style",
    "Generator": "gan.generator",
    "ImpastoError": "errors",
    "Painter": "jobs.transfer",
    "Picture": "images",
    "Progress": "progress",
    "Result": "progress",
    "Style": "inputs",
    "grid": "jobs.grid",
    "iter_reconstruct": "jobs.reconstruct",
    "iter_redo": "jobs.redo",
    "iter_texture": "jobs.texture",
    "iter_transfer": "jobs.transfer",
    "open_image": "images",
    "recolor": "jobs.recolor",
    "reconstruct": "jobs.reconstruct",
    "redo": "jobs.redo",
    "save_image": "images",
    "texture": "jobs.texture",
    "transfer": "jobs.transfer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'impasto' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"impasto.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
