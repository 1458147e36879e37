"""The network that paints in one pass as an ONNX file, for programs without torch."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.export import Dim

from impasto.errors import RunError
from impasto.fast.network import FastNetwork, padded
from impasto.fast.style import FastStyle
from impasto.files import StrPath, atomic_path
from impasto.images import open_image
from impasto.pyramid import cover
from impasto.sources import samples

__all__ = ["OPSET", "export_onnx"]

OPSET: Final = 18
"""The version of ONNX's operators that the file asks for."""

LARGEST: Final = 65_535
"""The longest side that the file takes, px."""


MOST: Final = 1e-3
"""How far the file may differ from torch, in [0, 1]."""


class _Whole(nn.Module):
    """Photo and style to result, whatever their sizes, as `FastStyle.stylize` does it."""

    def __init__(self, network: FastNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, photo: Tensor, style: Tensor) -> Tensor:
        (x, inside), (s, weight) = padded(photo), padded(style)
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


def export_onnx(fast: FastStyle, path: StrPath) -> float:
    """Writes the network: inputs `photo` and `style`, output `painted`, all `(1, 3, H, W)`.

    Heights and widths are free, sRGB in [0, 1], float32. The style is to come at the size at which
    it is to be looked at (see `FastStyle.style`).

    Args:
        fast: the network.
        path: the file; replaced in one step.

    Returns:
        The largest difference between torch and onnxruntime, in [0, 1], on noise, on a few pixels,
        and on a photo and a flat sky in two styles.

    Raises:
        RunError: the extra `onnx` is not installed, or the file differs by more than `MOST`.
        ImpastoError: the file cannot be written.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 — torch's exporter needs it, and would say so later
    except ImportError:
        raise RunError('exporting needs two packages more: pip install "impasto[onnx]"') from None
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
        error = max(_difference(session, whole, *pair) for pair in _pairs(example))
        if not error <= MOST:
            raise RunError(
                f"the exported network differs from torch by {error:.2g}, more than {MOST:g}, and "
                "was not kept; is the weight file damaged?"
            )
    return error


def _pairs(example: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    """Photos and styles to compare with: noise of other sizes, a few pixels, those of the package.

    Noise is harmless; what is flat, in a photo or in a style, has features whose spread is nearly
    0 in many directions, where rounding shows. Of few pixels there is one position, without any.
    """
    yield torch.rand(1, 3, 64, 141, generator=torch.Generator().manual_seed(1)), example[1]
    yield torch.full((1, 3, 3, 2), 0.6), torch.full((1, 3, 2, 2), 0.3)
    photo = cover(open_image(samples()["astronaut"]).tensor(), (512, 512))
    sky = torch.linspace(0.9, 0.3, 512).view(1, 1, 512, 1).expand(1, 3, 512, 512)
    for name in ("woodcut", "stainedglass"):
        style = cover(open_image(samples()[name]).tensor(), (384, 512))
        yield photo, style
        yield sky, style


def _difference(session: Any, whole: nn.Module, photo: Tensor, style: Tensor) -> float:
    """The largest difference between the file and the network; infinite where one is not finite."""
    pair = {"photo": photo.contiguous().numpy(), "style": style.contiguous().numpy()}
    (found,) = session.run(None, pair)
    with torch.inference_mode():
        difference = (torch.from_numpy(found) - whole(photo, style)).abs().max()
    return float(difference.nan_to_num(nan=torch.inf))
