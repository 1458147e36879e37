"""The network that paints in one pass as an ONNX file, for programs without torch."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from impasto.errors import RunError
from impasto.fast.network import STRIDE, FastNetwork
from impasto.fast.style import FastStyle
from impasto.files import StrPath, atomic_path

__all__ = ["OPSET", "export_onnx"]

OPSET: Final = 18
"""The version of ONNX's operators that the file asks for."""

LARGEST: Final = 65_535
"""The longest side that the file takes, px."""


class _Whole(nn.Module):
    """Photo and style to result, whatever their sizes, as `FastStyle.stylize` does it."""

    def __init__(self, network: FastNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, photo: Tensor, style: Tensor) -> Tensor:
        (x, inside), (s, weight) = _padded(photo), _padded(style)
        painted: Tensor = self.network(x, self.network.style(s, weight), inside)
        return painted[..., : photo.shape[-2], : photo.shape[-1]].clamp(0, 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about packages that nobody asked for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _padded(x: Tensor) -> tuple[Tensor, Tensor]:
    """The picture with sides that are multiples of `STRIDE`; 1 where it is, 0 where it was not."""
    H, W = ((side + STRIDE - 1) // STRIDE * STRIDE for side in x.shape[-2:])
    beyond = (0, W - x.shape[-1], 0, H - x.shape[-2])
    return F.pad(x, beyond, mode="replicate"), F.pad(torch.ones_like(x[:, :1]), beyond)


def export_onnx(fast: FastStyle, path: StrPath) -> float:
    """Writes the network: inputs `photo` and `style`, output `painted`, all `(1, 3, H, W)`.

    Heights and widths are free, sRGB in [0, 1], float32. The style is to come at the size at which
    it is to be looked at (see `FastStyle.style`).

    Args:
        fast: the network.
        path: the file; replaced in one step.

    Returns:
        The largest difference between torch and onnxruntime on a picture of another size.

    Raises:
        RunError: the extra `onnx` is not installed.
        ImpastoError: the file cannot be written.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 — torch's exporter needs it, and would say so later
    except ImportError:
        raise RunError('exporting needs three packages more: pip install "impasto[onnx]"') from None
    whole = _Whole(fast.network).eval()
    drawn = torch.Generator().manual_seed(0)
    example = tuple(torch.rand(1, 3, *size, generator=drawn) for size in ((75, 98), (83, 51)))
    names = ("photo_height", "photo_width", "style_height", "style_width")
    a, b, c, d = (Dim(name, min=2, max=LARGEST) for name in names)
    with _quiet():
        program: Any = torch.onnx.export(
            whole,
            example,
            input_names=["photo", "style"],
            output_names=["painted"],
            dynamic_shapes={"photo": {2: a, 3: b}, "style": {2: c, 3: d}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    with atomic_path(Path(path)) as temporary:
        program.save(str(temporary))
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        error = 0.0
        for size in ((75, 98), (64, 141)):
            pair = [torch.rand(1, 3, *size, generator=drawn), example[1]]
            given = dict(zip(("photo", "style"), (x.numpy() for x in pair), strict=True))
            (found,) = session.run(None, given)
            with torch.inference_mode():
                error = max(error, float((torch.from_numpy(found) - whole(*pair)).abs().max()))
    return error
