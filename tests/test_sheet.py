from __future__ import annotations

import numpy as np
from PIL import ImageFont

from impasto.images import Picture
from impasto.sheet import INK, MARGIN, contact_sheet
from pictures import Array, painting, photo, transparency


def dark(pixels: Array) -> bool:
    """Whether something is written there: ink on white."""
    return bool((np.abs(pixels.astype(int) - INK).max(axis=-1) < 40).any())


def test_plain_sheet_is_pictures_and_margins() -> None:
    a, b, c = photo(30, 20), painting(30, 20), photo(30, 20, seed=3)
    sheet = contact_sheet([[Picture(a), Picture(b)], [Picture(c)]]).pixels
    assert sheet.shape == (2 * 20 + 3 * MARGIN, 2 * 30 + 3 * MARGIN, 3)
    expected = np.full_like(sheet, 255)
    expected[MARGIN : MARGIN + 20, MARGIN : MARGIN + 30] = a
    expected[MARGIN : MARGIN + 20, 2 * MARGIN + 30 : 2 * MARGIN + 60] = b
    expected[2 * MARGIN + 20 : 2 * MARGIN + 40, MARGIN : MARGIN + 30] = c
    assert np.array_equal(sheet, expected)


def test_pictures_of_different_sizes_share_one_grid() -> None:
    small, large = photo(10, 12), photo(40, 24)
    sheet = contact_sheet([[Picture(small), Picture(large)]]).pixels
    assert sheet.shape == (24 + 2 * MARGIN, 80 + 3 * MARGIN, 3)
    assert np.array_equal(sheet[MARGIN : MARGIN + 12, MARGIN : MARGIN + 10], small)
    left = 2 * MARGIN + 40
    assert np.array_equal(sheet[MARGIN : MARGIN + 24, left : left + 40], large)


def test_rows_are_as_high_as_their_pictures() -> None:
    low, high = photo(30, 12), photo(30, 24)
    sheet = contact_sheet([[Picture(low)], [Picture(high)], [Picture(low)]]).pixels
    assert sheet.shape == (48 + 4 * MARGIN, 30 + 2 * MARGIN, 3)
    tops = (MARGIN, 12 + 2 * MARGIN, 36 + 3 * MARGIN)
    for top, pixels in zip(tops, (low, high, low), strict=True):
        assert np.array_equal(sheet[top : top + len(pixels), MARGIN : MARGIN + 30], pixels)


def test_transparency_shows_white() -> None:
    alpha = transparency(40, 32)
    sheet = contact_sheet([[Picture(photo(), alpha)]]).pixels
    cell = sheet[MARGIN : MARGIN + 32, MARGIN : MARGIN + 40]
    share = alpha[..., None] / 255
    assert np.abs(cell - (photo() * share + 255 * (1 - share))).max() <= 1


def test_captions_stand_above_their_columns_and_leave_the_cells_alone() -> None:
    cells = [photo(60, 40), painting(60, 40)]
    sheet = contact_sheet([[Picture(cell) for cell in cells]], columns=["relu1_1", ""]).pixels
    height, width, _ = sheet.shape
    top = height - MARGIN - 40
    assert top > MARGIN  # there is a line for them
    pitch = (width - MARGIN) // 2
    for number, cell in enumerate(cells):
        left = MARGIN + number * pitch
        assert np.array_equal(sheet[top : top + 40, left : left + 60], cell)
        assert dark(sheet[:top, left : left + 60]) is (number == 0)
    other = contact_sheet([[Picture(cell) for cell in cells]], columns=["relu5_2", ""]).pixels
    assert other.shape == sheet.shape
    assert not np.array_equal(other[:top], sheet[:top])
    assert np.array_equal(other[top:], sheet[top:])


def test_captions_stay_apart_and_on_the_sheet() -> None:
    """A caption wider than its cell widens the columns."""
    tiny = Picture(photo(12, 12))
    names = ["a very long caption"] * 3
    sheet = contact_sheet([[tiny] * 3], columns=names).pixels
    font = ImageFont.load_default(11)
    longest = font.getbbox(names[0])[2]
    assert sheet.shape[1] >= 3 * longest
    border = np.concatenate((sheet[:, :2], sheet[:, -2:]), axis=1)
    assert (border == 255).all()
    # White from top to bottom of the captions' line, between one and the next.
    line = sheet[: MARGIN + 11]
    gaps = (line == 255).all(axis=(0, 2))
    pitch = (sheet.shape[1] - MARGIN) // 3
    assert gaps[pitch : pitch + MARGIN].any()


def test_captions_of_rows_stand_to_the_left() -> None:
    cells = [photo(), painting(40, 32)]
    sheet = contact_sheet([[Picture(cell)] for cell in cells], rows=["content", "style"]).pixels
    height, width, _ = sheet.shape
    left = width - MARGIN - 40
    assert left > MARGIN
    for number, cell in enumerate(cells):
        top = MARGIN + number * (32 + MARGIN)
        assert np.array_equal(sheet[top : top + 32, left : left + 40], cell)
        assert dark(sheet[top : top + 32, :left])
    assert height == 2 * 32 + 3 * MARGIN
