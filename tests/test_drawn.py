"""More pictures of the bundled styles, drawn for recipes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.make_samples import STYLES
from training import drawn


def test_drawings_become_squares_and_are_made_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--out", str(tmp_path / "drawn"), "--only", "pointillism"]
    drawn.main([*flags, "--count", "1"])
    squares = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in squares] == [f"pointillism-1000-{i}.png" for i in range(4)]
    pixels = [np.asarray(Image.open(path)) for path in squares]
    assert {each.shape for each in pixels} == {(256, 256, 3)}
    whole = STYLES["pointillism"](np.random.default_rng(1000), 512)
    top, bottom = np.hstack(pixels[:2]), np.hstack(pixels[2:])
    assert np.array_equal(np.vstack([top, bottom]), np.asarray(whole))
    times = [path.stat().st_mtime_ns for path in squares]
    drawn.main([*flags, "--count", "2"])
    assert [path.stat().st_mtime_ns for path in squares] == times
    assert len(list((tmp_path / "drawn").iterdir())) == 8
    assert capsys.readouterr().out.split() == ["pointillism-1000", "pointillism-1001"]
