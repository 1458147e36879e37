"""Draws more pictures of the six bundled styles, for recipes to learn from.

    python -m training.drawn --out DATA/drawn [--count 22] [--whole]

The programs are those of the samples, with other seeds: so a network sees hard edges and marks of
every kind, and never the samples themselves. Each drawing of 512 px becomes four squares of 256 px,
or is kept whole.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from impasto.files import atomic_path
from tools.make_samples import STYLES
from training.datasets import STYLE_SIDE

FIRST: Final = 1000
"""The first seed; those of the samples are sums of their names (`zlib.crc32`)."""

SIDE: Final = 2 * STYLE_SIDE
"""Of a drawing, px."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws what is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the squares")
    parser.add_argument("--count", type=int, default=22, help="drawings of each style")
    parser.add_argument("--whole", action="store_true", help="keep drawings of 512 px as they are")
    parser.add_argument("--only", choices=sorted(STYLES), nargs="+", default=sorted(STYLES))
    given = parser.parse_args(arguments)
    side = SIDE if given.whole else STYLE_SIDE
    given.out.mkdir(parents=True, exist_ok=True)
    for seed in range(FIRST, FIRST + given.count):
        for name in given.only:
            corners = [(x, y) for y in range(0, SIDE, side) for x in range(0, SIDE, side)]
            ends = [""] if given.whole else [f"-{i}" for i in range(len(corners))]
            paths = [given.out / f"{name}-{seed}{end}.png" for end in ends]
            if all(path.exists() for path in paths):
                continue
            drawing = STYLES[name](np.random.default_rng(seed), SIDE)
            for path, (x, y) in zip(paths, corners, strict=True):
                with atomic_path(path) as temporary:
                    drawing.crop((x, y, x + side, y + side)).save(temporary, format="PNG")
            print(f"{name}-{seed}", flush=True)


if __name__ == "__main__":
    main()
