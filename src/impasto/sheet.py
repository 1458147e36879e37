"""Labelled contact sheets: pictures in rows and columns, with captions."""

import functools
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from impasto.images import Picture

__all__ = ["contact_sheet", "thumbnail"]

MARGIN: Final = 12
INK: Final = (40, 40, 40)


def contact_sheet(
    pictures: Sequence[Sequence[Picture]],
    *,
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
) -> Picture:
    """Pictures on white: columns as wide as the widest picture, rows as high as their highest.

    Args:
        pictures: the rows.
        columns: captions above the columns, or none.
        rows: captions to the left of the rows, or none.

    Returns:
        The sheet. Captions are set in Pillow's own typeface at a size that fits the cells.
    """
    everything = [picture for row in pictures for picture in row]
    cell_w = max(picture.width for picture in everything)
    heights = [max(picture.height for picture in row) for row in pictures]
    font = _font(max(11, min(28, cell_w // 12)))
    top = _extent(font, columns)[1] + MARGIN if columns else 0
    left = _extent(font, rows)[0] + MARGIN if rows else 0
    column_w = max(cell_w, _extent(font, columns)[0])
    pitch_w = column_w + MARGIN
    inset = (column_w - cell_w) // 2

    across = max(len(row) for row in pictures)
    size = (left + across * pitch_w + MARGIN, top + sum(heights) + (len(heights) + 1) * MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for j, caption in enumerate(columns):
        x = MARGIN + left + j * pitch_w + column_w / 2
        draw.text((x, MARGIN), caption, INK, font, anchor="ma")
    for i, row in enumerate(pictures):
        y = top + sum(heights[:i]) + (i + 1) * MARGIN
        if i < len(rows):
            draw.text((MARGIN, y + heights[i] / 2), rows[i], INK, font, anchor="lm")
        for j, picture in enumerate(row):
            image = picture.pil()
            at = (MARGIN + left + inset + j * pitch_w, y)
            sheet.paste(image, at, image if image.mode == "RGBA" else None)
    return Picture(np.array(sheet))


def thumbnail(picture: Picture, side: int) -> Picture:
    """The picture over white, its long side at most so many px; it is never enlarged."""
    image = picture.over_white().pil()
    image.thumbnail((side, side))
    return Picture(np.array(image))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _extent(
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont, texts: Sequence[str]
) -> tuple[int, int]:
    """The width and height of the largest of these texts, px."""
    boxes = [font.getbbox(text) for text in texts]
    return (
        max((int(box[2]) for box in boxes), default=0),
        max((int(box[3]) for box in boxes), default=0),
    )
