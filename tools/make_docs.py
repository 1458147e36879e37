"""Makes the pictures of README and docs with the program itself, from free photos.

    python tools/make_docs.py [--out docs/images] [--only NAME]

The photos come from scikit-image (`pip install -e ".[pictures]"`): the astronaut that impasto
ships, and Chelsea the cat, a cup of coffee and a rocket, all in the public domain or CC0.
"""

import argparse
import dataclasses
import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

import impasto
from impasto.encoder import Encoder
from impasto.images import Picture
from impasto.inputs import PictureLike, StyleLike
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


# --- docs/control.md ------------------------------------------------------------------------------

STYLES = ("strokes", "inkwash", "woodcut")


def control_colors() -> Image.Image:
    """The five ways with colours, in three styles."""
    vary: dict[str, Any] = {"colors": ["style", "content", "luminance", "histogram", "linear"]}
    return impasto.grid([PHOTO], [f"sample:{s}" for s in STYLES], vary, size=384, cell=230).pil()


def control_styles() -> Image.Image:
    """One photo under six paintings."""
    styles = ["strokes", "stainedglass", "woodcut", "inkwash", "pointillism", "marbling"]
    return impasto.grid([PHOTO], [f"sample:{s}" for s in styles], size=384, cell=230).pil()


def control_scale() -> Image.Image:
    """Strokes of five sizes."""
    styles = [f"sample:{s}" for s in ("strokes", "stainedglass", "pointillism")]
    vary: dict[str, Any] = {"style_scale": [0.5, 0.7, 1.0, 1.4, 2.0]}
    return impasto.grid([PHOTO], styles, vary, cell=230).pil()


def control_regions() -> Image.Image:
    """Two styles by a mask, a face that is kept, and coarse strokes with another's texture."""
    left = drawn_mask(lambda draw: draw.rectangle((0, 0, 255, 511), "white"))
    face = drawn_mask(lambda draw: draw.ellipse((125, 10, 320, 250), "white"))
    halves: list[StyleLike] = [impasto.Style("sample:woodcut", mask=left), "sample:pointillism"]
    made = [
        ("a mask and the rest", impasto.transfer(PHOTO, halves)),
        ("a face that is kept", impasto.transfer(PHOTO, "sample:strokes", protect=face)),
        ("strokes", impasto.transfer(PHOTO, "sample:strokes")),
        (
            "coarse from woodcut",
            impasto.transfer(PHOTO, "sample:strokes", coarse_from="sample:woodcut"),
        ),
    ]
    cells = [Picture.from_pil(fitted(result.image.pil(), (300, 300))) for _, result in made]
    return contact_sheet([cells], columns=[name for name, _ in made]).pil()


def drawn_mask(draw: Callable[[ImageDraw.ImageDraw], None]) -> Picture:
    """A mask for the astronaut."""
    image = Image.new("RGB", (512, 512))
    draw(ImageDraw.Draw(image))
    return Picture.from_pil(image)


def control_strength() -> Image.Image:
    """The same strengths at two sizes: a small preview and the large picture."""
    photo = Image.fromarray(importlib.import_module("skimage.data").coffee())
    vary: dict[str, Any] = {"size": [200, 600], "strength": [0.2, 0.35, 0.5, 0.65, 0.8]}
    return impasto.grid([photo], ["sample:strokes"], vary, cell=260).pil()


# --- docs/fast.md ---------------------------------------------------------------------------------


def free_photos() -> list[PictureLike]:
    """The photo of the package and the three from scikit-image."""
    data = importlib.import_module("skimage.data")
    others = [
        dataclasses.replace(Picture.from_pil(Image.fromarray(getattr(data, name)())), source=name)
        for name in ("chelsea", "coffee", "rocket")
    ]
    return [PHOTO, *others]


def fast_gallery() -> Image.Image:
    """Four photos in six styles, each in one pass."""
    styles = [f"sample:{s}" for s in ("strokes", "stainedglass", "woodcut")]
    more = [f"sample:{s}" for s in ("inkwash", "pointillism", "marbling")]
    sheet = impasto.grid(free_photos(), styles + more, method="fast", cell=200)
    return sheet.pil()


def fast_strength() -> Image.Image:
    """One photo, ever more of a style."""
    vary: dict[str, Any] = {"strength": [0.1, 0.3, 0.5, 0.75, 1.0]}
    styles = ["sample:strokes", "sample:inkwash"]
    return impasto.grid([PHOTO], styles, vary, method="fast", cell=260).pil()


def fast_beside() -> Image.Image:
    """In one pass, by the optimiser, and by the optimiser from the photo."""
    ways: dict[str, Any] = {
        "fast": {"method": "fast"},
        "optimize": {},
        "--init content": {"init": "content"},
    }
    cells = [
        [
            Picture.from_pil(fitted(impasto.transfer(photo, style, **way).image.pil(), (400, 400)))
            for way in ways.values()
        ]
        for photo, style in ((PHOTO, "sample:strokes"), (free_photos()[2], "sample:marbling"))
    ]
    return contact_sheet(cells, columns=list(ways)).pil()


# --- docs/layers.md -------------------------------------------------------------------------------


def layers_texture() -> Image.Image:
    """Textures from the first layers of the network, more and more of them."""
    names = Encoder.load("slim").layers
    deepest = [f"relu{block}_1" for block in range(1, 6)]
    firsts = {f"to {name}": ",".join(names[: names.index(name) + 1]) for name in deepest}
    styles = [f"sample:{s}" for s in ("strokes", "stainedglass", "inkwash")]
    vary: dict[str, Any] = {"style_layers": firsts}
    size = (256, 256)
    return impasto.grid((), styles, vary, job="texture", out_size=size, cell=230).pil()


def layers_content() -> Image.Image:
    """A photo reconstructed from each block of the network."""
    cat = Picture.from_pil(Image.fromarray(importlib.import_module("skimage.data").chelsea()))
    photos: list[PictureLike] = [PHOTO, dataclasses.replace(cat, source="chelsea")]
    vary: dict[str, Any] = {"layers": [f"relu{block}_1" for block in range(1, 6)]}
    return impasto.grid(photos, (), vary, job="reconstruct", cell=230).pil()


def layers_balance() -> Image.Image:
    """From all content to all style, by layer of content."""
    vary: dict[str, Any] = {
        "content_layers": ["relu2_2", "relu3_2", "relu4_2", "relu5_1"],
        "strength": [0.1, 0.3, 0.5, 0.7, 0.9, 1.0],
    }
    return impasto.grid([PHOTO], ["sample:strokes"], vary, size=384, init="content", cell=200).pil()


SHEETS: dict[str, Callable[[], Image.Image]] = {
    "transfers": transfers,
    "photos": photos,
    "texture": texture,
    "layers": layers,
    "recipes": recipes,
    "control-colors": control_colors,
    "control-styles": control_styles,
    "control-scale": control_scale,
    "control-regions": control_regions,
    "control-strength": control_strength,
    "fast-gallery": fast_gallery,
    "fast-strength": fast_strength,
    "fast-beside": fast_beside,
    "layers-content": layers_content,
    "layers-texture": layers_texture,
    "layers-balance": layers_balance,
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
