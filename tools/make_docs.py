"""Makes the pictures of README and docs with the program itself, from free photos.

    python tools/make_docs.py [--out docs/images] [--only NAME]

The photos come from scikit-image (`pip install -e ".[pictures]"`): the astronaut that impasto
ships, and Chelsea the cat, a cup of coffee and a rocket, all in the public domain or CC0.
"""

import argparse
import functools
import importlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

import impasto
from impasto.images import Picture
from impasto.inputs import StyleLike
from impasto.presets import PRESETS
from impasto.sheet import contact_sheet
from impasto.sources import samples

CELL = 400
INSET = 112
PHOTO = "sample:astronaut"
BLEND: list[StyleLike] = [("sample:marbling", 1.0), ("sample:inkwash", 1.0)]


def painted(photo: str | Image.Image, style: str | list[StyleLike]) -> Image.Image:
    """A transfer with the default settings."""
    return impasto.transfer(photo, style).image.pil()


def fitted(image: Image.Image, size: tuple[int, int] = (CELL, CELL)) -> Image.Image:
    """The image within a cell."""
    image = image.copy()
    image.thumbnail(size, Image.Resampling.LANCZOS)
    return image


def with_inset(image: Image.Image, *styles: str) -> Image.Image:
    """The image as a cell, with its styles in the lower left corner."""
    image = fitted(image)
    for i, style in enumerate(styles):
        small = fitted(sample(style), (INSET, INSET))
        framed = Image.new("RGB", (small.width + 6, small.height + 6), "white")
        framed.paste(small, (3, 3))
        at = (8 + i * (framed.width + 6), image.height - framed.height - 8)
        image.paste(framed, at)
    return image


def sample(name: str) -> Image.Image:
    """A picture of the package."""
    return impasto.open_image(samples()[name]).pil()


def rows(cells: list[Image.Image], columns: int, gap: int = 8) -> Image.Image:
    """Cells side by side on white."""
    w, h = max(cell.width for cell in cells), max(cell.height for cell in cells)
    lines = -(-len(cells) // columns)
    size = (columns * (w + gap) - gap, lines * (h + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    for i, cell in enumerate(cells):
        sheet.paste(cell, (i % columns * (w + gap), i // columns * (h + gap)))
    return sheet


def transfers() -> Image.Image:
    """One photo in every style of the package, and in two at once."""
    cells = [fitted(sample("astronaut"))]
    for style in ("strokes", "stainedglass", "woodcut", "inkwash", "pointillism", "marbling"):
        cells.append(with_inset(painted(PHOTO, f"sample:{style}"), style))
    cells.append(with_inset(painted(PHOTO, BLEND), "marbling", "inkwash"))
    return rows(cells, 4)


def photos() -> Image.Image:
    """Three more photos, before and after."""
    data = importlib.import_module("skimage.data")
    cells = []
    for name, style in (("chelsea", "strokes"), ("coffee", "stainedglass"), ("rocket", "woodcut")):
        photo = Image.fromarray(getattr(data, name)())
        cells.append((fitted(photo), with_inset(painted(photo, f"sample:{style}"), style)))
    return rows([pair[i] for i in (0, 1) for pair in cells], 3)


def texture() -> Image.Image:
    """Textures, each beside the style that it was made from."""
    cells = []
    for style in ("strokes", "stainedglass"):
        made = impasto.texture(f"sample:{style}", out_size=(512, 512)).image.pil()
        cells += [fitted(sample(style)), fitted(made)]
    return rows(cells, 4)


def layers() -> Image.Image:
    """What each layer keeps of a photo."""
    picture: Picture = impasto.reconstruct(PHOTO).image
    return picture.pil()


@functools.cache
def by_recipe(preset: str) -> Image.Image:
    """The photo in the style of the strokes after a preset, on the network of the package."""
    made = impasto.transfer(PHOTO, "sample:strokes", preset=preset, encoder="slim")
    return made.image.pil()


def recipes() -> Image.Image:
    """One photo and one style after every preset."""
    cells = {"photo and style": with_inset(sample("astronaut"), "strokes")}
    cells |= {name: fitted(by_recipe(name)) for name in PRESETS}
    named = [(name, Picture.from_pil(cell)) for name, cell in cells.items()]
    lines = [named[i : i + 4] for i in range(0, len(named), 4)]
    sheets = [contact_sheet([[p for _, p in line]], columns=[n for n, _ in line]) for line in lines]
    return rows([sheet.pil() for sheet in sheets], 1, gap=0)


SHEETS: dict[str, Callable[[], Image.Image]] = {
    "transfers": transfers,
    "photos": photos,
    "texture": texture,
    "layers": layers,
    "recipes": recipes,
    **{f"recipe-{name}": functools.partial(by_recipe, name) for name in PRESETS},
}
"""What makes each file; `--only` takes one of these names, or how several of them begin."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", help=", ".join(SHEETS) + "; recipe means all of that")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    chosen = [name for name in SHEETS if not given.only or name.startswith(given.only)]
    if not chosen:
        parser.error(f"there is no {given.only}")
    for name in chosen:
        path = given.out / f"{name}.jpg"
        SHEETS[name]().save(path, quality=88, optimize=True)
        print(f"{path}  {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
