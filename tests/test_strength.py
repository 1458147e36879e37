"""One strength means the same at every size: a small preview predicts the large picture."""

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.control import Judge, compare_sizes
from impasto.encoder import Encoder
from impasto.images import Picture
from tools.make_samples import strokes


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """Discs before clouds, as rich in detail at every scale as a good photo is.

    The discs are leaves that hide each other, their radii spread as r⁻³, so that there are as many
    edges per px whatever the picture is shrunk to; so are the clouds, of amplitude 1/f.
    """
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    f[0, 0] = 1
    waves = np.stack(
        [np.fft.ifft2(np.fft.fft2(w) / f).real for w in rng.normal(size=(3, *f.shape))]
    )
    waves /= waves.std((1, 2), keepdims=True)
    tints = np.array([[1, 0.7, 0.5], [0.9, -0.2, -0.7], [0.2, -0.5, 0.4]])
    clouds = np.clip(128 + 43 * np.einsum("khw,kc->hwc", waves, tints), 0, 255)
    leaves = Image.new("RGB", (2 * width, 2 * height))
    draw = ImageDraw.Draw(leaves)
    small, large = 4.0, width / 2
    radii = (small**-2 - (small**-2 - large**-2) * rng.random(6000)) ** -0.5
    palette = np.array(
        [[200, 160, 120], [90, 120, 60], [60, 80, 140], [230, 225, 210], [40, 35, 30]]
    )
    for r in radii:
        x, y = rng.uniform(-large, (2 * width + large, 2 * height + large))
        color = np.clip(palette[rng.integers(5)] + rng.normal(0, 12, 3), 0, 255)
        draw.ellipse((x - r, y - r, x + r, y + r), tuple(int(c) for c in color))
    shrunk = np.asarray(leaves.resize((width, height), Image.Resampling.LANCZOS))
    return Image.fromarray((0.65 * shrunk + 0.35 * clouds).round().astype(np.uint8))


def test_strength_means_the_same_at_256_and_768_px() -> None:
    photo = Picture.from_pil(scene(768, 512)).tensor()
    painting = strokes(np.random.default_rng(1), 768)
    preview, large = compare_sizes(Judge(Encoder.load("slim")), photo, painting, (256, 768))
    # content over the photo's energy; Gram and moments over their start
    assert np.all(np.abs(np.divide(large, preview) - 1) < 0.25), (preview, large)
