"""Pictures that show how a training goes: grids, real beside generated, neighbours, curves."""

import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from impasto.files import write_bytes_atomic
from impasto.images import Picture, save_image
from impasto.sheet import contact_sheet

__all__ = ["beside", "curves", "grid", "has_matplotlib", "neighbours", "read_lines", "tiles"]

GAP: Final = 2
"""Pixels between two pictures of a grid."""

_COLORS: Final = ("#d55e00", "#0072b2", "#009e73", "#b0609a")
_FAINT: Final = "#8a8a8a"


def tiles(x: Tensor) -> list[NDArray[np.uint8]]:
    """Pictures `(N, 3, s, s)` in [0, 1] as uint8 arrays `(s, s, 3)`."""
    pixels = (x.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return list(pixels)


def grid(pictures: Sequence[NDArray[np.uint8]], columns: int = 0) -> Picture:
    """Square pictures of one size in rows, as near to a square as can be, on white."""
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = -(-len(pictures) // columns)
    side = pictures[0].shape[0]
    pitch = side + GAP
    sheet = np.full((rows * pitch - GAP, columns * pitch - GAP, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * pitch, number % columns * pitch
        sheet[top : top + side, left : left + side] = picture
    return Picture(sheet)


def beside(
    real: Sequence[NDArray[np.uint8]], generated: Sequence[NDArray[np.uint8]], path: Path
) -> None:
    """Writes a sheet with real pictures on the left and generated ones on the right."""
    sheet = contact_sheet([[grid(real), grid(generated)]], columns=["real", "generated"])
    save_image(sheet, path)


def neighbours(
    generated: Sequence[NDArray[np.uint8]],
    nearest: Sequence[Sequence[NDArray[np.uint8]]],
    path: Path,
) -> None:
    """Writes a sheet: in each row a generated picture, then the training pictures nearest to it."""
    rows = [
        [Picture(made), *(Picture(near) for near in found)]
        for made, found in zip(generated, nearest, strict=True)
    ]
    columns = ["generated", *(f"{i}." for i in range(1, len(nearest[0]) + 1))]
    save_image(contact_sheet(rows, columns=columns), path)


def has_matplotlib() -> bool:
    """Whether curves can be drawn here."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a log, without a last one that was cut off; none if it is not there."""
    found = []
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def curves(log: Sequence[dict[str, Any]], scores: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes the losses, the discriminator's outputs and the scores over the pictures seen."""
    from matplotlib.figure import Figure

    panels = [
        ("losses", log, ("discriminator", "generator")),
        ("the discriminator's mean output", log, ("on_real", "on_generated")),
        ("KID (lower is better)", scores, ("kid",)),
    ]
    panels = [panel for panel in panels if _given(panel[1], panel[2])]
    if not panels:
        return
    figure = Figure(figsize=(8, 2.4 * len(panels)), dpi=120, layout="constrained")
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, lines, names) in zip(all_axes, panels, strict=True):
        axes.set_title(title, loc="left", fontsize="medium")
        for name, color in zip(names, _COLORS, strict=False):
            seen = [line["images"] for line in lines if name in line]
            values = [line[name] for line in lines if name in line]
            marker = "." if len(values) < 30 else ""
            axes.plot(
                seen,
                values,
                color=color,
                linewidth=1.4,
                marker=marker,
                label=name.replace("_", " "),
            )
            if name == "kid":
                low = [line["kid_low"] for line in lines]
                high = [line["kid_high"] for line in lines]
                axes.fill_between(seen, low, high, color=color, alpha=0.2, linewidth=0)
                if min(low) > 0 and max(values) > 10 * min(values):  # a cube: it falls steeply
                    axes.set_yscale("log")
        if len(names) > 1:
            axes.legend(frameon=False, fontsize="small")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_FAINT)
        axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    all_axes[-1].set_xlabel("training pictures seen")
    all_axes[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes_atomic(path, buffer.getvalue())


def _given(lines: Iterable[dict[str, Any]], names: Sequence[str]) -> bool:
    return any(name in line for line in lines for name in names)


def frame(picture: Picture, side: int = 640) -> Image.Image:
    """A grid as a frame of a film: at most `side` px wide, of even sides."""
    image = picture.pil().convert("RGB")
    scale = min(1.0, side / max(image.size))
    w, h = (max(2, round(length * scale) // 2 * 2) for length in image.size)
    return image.resize((w, h), Image.Resampling.LANCZOS)
