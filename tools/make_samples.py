"""Makes the bundled sample pictures: one free photo and six original style pictures.

The styles are drawn from fixed seeds with numpy and Pillow alone, so a second run gives the same
bytes. Style transfer looks at local texture statistics, so each picture is covered from edge to
edge with marks of roughly 6 to 40 pixels in a small palette of its own.

Usage: python tools/make_samples.py [--out DIR] [--only NAME]
"""

import argparse
import importlib
import io
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[np.float64]
Rng = np.random.Generator
Ink = int | tuple[int, ...]

SIZE = 640  # the side of a style picture in pixels
MAX_BYTES = 300_000  # of a style picture
SAMPLES = Path(__file__).resolve().parent.parent / "src" / "impasto" / "samples"


def rgb(codes: str) -> Array:
    """Turns "102030 ffeedd" into an array of colours in [0, 1], one per row."""
    return np.array([list(bytes.fromhex(code)) for code in codes.split()], float) / 255


def grid(side: int) -> tuple[Array, Array]:
    """The y and x coordinates of all pixels of a square picture, in [0, 1]."""
    y, x = np.mgrid[0:side, 0:side] / side
    return y, x


def smooth(x: Array, lo: float, hi: float) -> Array:
    """A smooth step from 0 at `lo` to 1 at `hi` (which may be the smaller)."""
    t: Array = np.clip((x - lo) / (hi - lo), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Array, b: Array, t: Array) -> Array:
    """Blends the colours `a` into `b` where the plane `t` goes from 0 to 1."""
    return a + (b - a) * t[..., None]


def ramp(t: Array, colours: Array) -> Array:
    """The colours at `t` in [0, 1] along an evenly spaced gradient."""
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(t, stops, channel) for channel in colours.T], -1)


def noise(rng: Rng, side: int, cell: float, stretch: float = 1, octaves: int = 1) -> Array:
    """Smooth noise of mean 0 and deviation 1.

    The coarsest blobs are `cell` high, as a share of the side, and `stretch` times as long; each
    further octave has half their size and half their strength.
    """
    total: Array = np.zeros((side, side))
    for octave in range(octaves):
        step = cell / 2**octave
        rows, columns = (max(2, round(1 / s)) + 3 for s in (step, step * stretch))
        lattice = Image.fromarray(rng.standard_normal((rows, columns)).astype(np.float32))
        inner = (1, 1, columns - 1, rows - 1)
        layer = lattice.resize((side, side), Image.Resampling.BICUBIC, box=inner)
        total += np.asarray(layer, float) / 2**octave
    total -= total.mean()
    total /= np.sqrt((total**2).mean())
    return total


def blur(plane: Array, sigma: float) -> Array:
    """A Gaussian blur, with the edges mirrored."""
    pad = int(3 * sigma) + 1
    wide = np.pad(plane, pad, mode="reflect")
    fy, fx = np.fft.fftfreq(wide.shape[0])[:, None], np.fft.rfftfreq(wide.shape[1])
    gain = np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))
    done: Array = np.fft.irfft2(np.fft.rfft2(wide) * gain, s=wide.shape)
    return done[pad:-pad, pad:-pad]


def relief(height: Array, depth: float) -> tuple[Array, Array]:
    """Lights a height map from the top left: the diffuse light (1 is flat) and the gloss."""
    dy, dx = np.gradient(height * depth)
    facing = (0.8 + 0.42 * (dx + dy)) / np.sqrt(1 + dx**2 + dy**2)
    return facing / 0.8, np.clip(facing, 0, 1.2) ** 12


def look(field: Array, points: Array) -> Array:
    """Looks up `field` at (x, y) points in [0, 1]."""
    column, row = np.clip((points * len(field)).astype(int), 0, len(field) - 1).T
    found: Array = field[row.T, column.T]
    return found


def trace(angle: Array, starts: Array, length: Array, steps: int) -> Array:
    """Follows a field of angles from each start: paths of shape (starts, steps, 2)."""
    path = [starts]
    for _ in range(steps - 1):
        turn = look(angle, path[-1])
        path.append(path[-1] + np.stack([np.cos(turn), np.sin(turn)], -1) * length[:, None] / steps)
    return np.stack(path, 1)


def sideways(path: Array) -> Array:
    """The unit normals along paths of shape (..., steps, 2)."""
    along = np.gradient(path, axis=-2)
    along /= np.linalg.norm(along, axis=-1, keepdims=True) + 1e-9
    return np.stack([-along[..., 1], along[..., 0]], -1)


def whirl(u: Array, v: Array, cx: float, cy: float, r: float, turn: float) -> tuple[Array, Array]:
    """Twists coordinates around a point, by `turn` radians there and less and less outwards."""
    dx, dy = u - cx, v - cy
    bend = turn * np.exp(-(dx**2 + dy**2) / r**2)
    c, s = np.cos(bend), np.sin(bend)
    return cx + dx * c - dy * s, cy + dx * s + dy * c


def dab(
    rng: Rng,
    draw: ImageDraw.ImageDraw,
    spot: Array,
    long: float,
    short: float,
    angle: float,
    ink: Ink,
) -> None:
    """Touches the canvas with a brush: a tilted, uneven oval around a point, all in pixels."""
    turn = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    reach = rng.uniform(0.82, 1.18, 9)
    a, b = long * reach * np.cos(turn), short * reach * np.sin(turn)
    c, s = np.cos(angle), np.sin(angle)
    draw.polygon(flat(spot + np.stack([a * c - b * s, a * s + b * c], -1)), ink)


def flat(points: Array) -> list[float]:
    """Points as the flat list that `ImageDraw` draws fastest."""
    return [float(value) for value in points.ravel()]


def byte(colour: Array) -> tuple[int, ...]:
    """A colour in [0, 1] as the tuple of bytes that `ImageDraw` takes."""
    return tuple(int(v) for v in np.clip(colour * 255 + 0.5, 0, 255))


def plane(image: Image.Image) -> Array:
    """The pixels of an image in [0, 1]."""
    return np.asarray(image, float) / 255


def picture(pixels: Array, size: int) -> Image.Image:
    """Turns pixels in [0, 1] into an image, shrunk to `size`."""
    image = Image.fromarray(np.clip(pixels * 255 + 0.5, 0, 255).astype(np.uint8))
    return image.resize((size, size), Image.Resampling.LANCZOS)


def strokes(rng: Rng, size: int) -> Image.Image:
    """Thick oil paint: bristle strokes follow whirlpools of night blue, ochre and warm light.

    Strokes are laid coarse to fine. Each is a bundle of bristles with colours and heights of their
    own, and the height map is lit from the side at the end so that the paint stands up.
    """
    side = 2 * size
    y, x = grid(side)
    eyes = np.array([[0.24, 0.22], [0.72, 0.32], [0.42, 0.62], [0.88, 0.78], [0.1, 0.86]])
    reach = np.array([0.15, 0.19, 0.13, 0.15, 0.14])
    vx, vy = np.full_like(x, 0.55), 0.35 * np.sin(7 * x + 2)
    glow = 0.17 + 0.19 * noise(rng, side, 0.12, 2.2, 3)
    for spin, (cx, cy), r in zip((1, -1, -1, 1, -1), eyes, reach, strict=True):
        far = np.hypot(x - cx, y - cy)
        pull = 4.5 * spin * np.exp(-((far / r / 1.3) ** 2)) / (far + 0.03)
        vx, vy = vx - (y - cy) * pull, vy + (x - cx) * pull
        rings = 0.5 + 0.5 * np.cos(far / r * 7.5)
        glow += np.exp(-((far / r) ** 2) * 1.1) * (0.35 + 0.75 * rings)
    angle = np.arctan2(vy, vx) + 0.25 * noise(rng, side, 0.1)
    colours = rgb("0c1238 15296e 1c4ba6 2f7dc0 6fb3b8 b98a3a e0972a f7c548 fff4cf")

    canvas = Image.fromarray((ramp(glow, colours) * 200).astype(np.uint8))
    bumps = Image.new("L", (side, side), 90)
    paint, ridge = ImageDraw.Draw(canvas), ImageDraw.Draw(bumps)
    for width, count in ((0.042, 900), (0.030, 1300), (0.021, 1700), (0.013, 900)):
        starts = rng.uniform(-0.04, 1.02, (count, 2))
        paths = trace(angle, starts, width * rng.uniform(2.2, 5.5, count), 13)
        normals = sideways(paths) * width * rng.uniform(0.7, 1.2, (count, 1, 1))
        light = look(glow, paths[:, 6]) + 0.11 * rng.standard_normal(count)
        bristles = max(6, round(width * side / 2.6))
        for path, normal, tone in zip(paths, normals, light, strict=True):
            tint = rng.normal(0, 0.03, 3)
            for offset in rng.permutation(np.linspace(-0.5, 0.5, bristles)):
                round_end = int(9 * offset**2)
                first = round_end // 2 + rng.integers(0, 2)
                last = 13 - round_end - rng.integers(0, 3)
                line = flat((path + normal * (offset + rng.normal(0, 0.03)))[first:last] * side)
                shade = ramp(np.array(tone + rng.normal(0, 0.045)), colours) + tint
                level = 120 + 230 * offset**2 + rng.normal(0, 38)
                paint.line(line, byte(shade), int(rng.integers(3, 6)), "curve")
                ridge.line(line, int(np.clip(level, 5, 250)), 4, "curve")
    light_on, gloss = relief(blur(plane(bumps), 1.4), 7)
    pixels = plane(canvas) * (0.3 + 0.7 * light_on)[..., None] + 0.12 * gloss[..., None]
    return picture(pixels - 0.03, size)


def woodcut(rng: Rng, size: int) -> Image.Image:
    """A colour woodcut of a rough sea: carved lines swell and taper along curling waves.

    Every wave has a crest curve; whirls bend space at its peaks, so that crest and lines curl
    over together. Black key lines follow the depth below the crest, over indigo flats.
    """
    side = 3 * size
    y, x = grid(side)
    cream, black, indigo, pale, red = rgb("f3e6c8 14110f 1f3c78 8fb0b8 d2401f")
    shake = noise(rng, side, 0.02, 2, 2)
    swell = noise(rng, side, 0.09, 1.5, 2)
    grain = noise(rng, side, 0.002, 40)

    def carve(phase: Array, duty: Array) -> Array:
        """Ink of lines, one per unit of `phase`, which cover the share `duty` of the ground."""
        near = np.abs((phase + 0.05 * shake) % 1 - 0.5) * 2
        return smooth(duty - near, -0.06, 0.06)

    sun_y, sun_x = 0.2, 0.66
    far, turn = np.hypot(x - sun_x, y - sun_y), np.arctan2(y - sun_y, x - sun_x)
    rays = carve(turn / (2 * np.pi) * 72, 0.62 - 0.9 * np.abs(far - 0.34) + 0.16 * swell)
    pixels = mix(np.broadcast_to(cream, (side, side, 3)), black, rays * smooth(far, 0.171, 0.173))
    disc = smooth(far, 0.152, 0.15)
    pixels = mix(pixels, red, disc)
    pixels = mix(pixels, cream, disc * carve(y * 46 + 0.2 * swell, 0.30 * (y - 0.12) / 0.1))
    pixels = mix(pixels, black, smooth(np.abs(far - 0.152), 0.005, 0.003))

    for index in range(8):
        near = index / 7
        base, tall, pitch = 0.34 + 0.78 * near, 0.10 + 0.09 * near, 0.30 + 0.16 * near
        start = rng.uniform(0, pitch)
        u, v = x.copy(), y + 0.006 * swell
        for peak in np.arange(start - pitch, 1 + pitch, pitch):
            u, v = whirl(u, v, peak - 0.3 * tall, base - 0.78 * tall, 0.42 * tall, -2.6)
        crest = base - tall * (1 - np.abs(np.sin(np.pi * (u - start) / pitch))) ** 1.3
        depth = (v - crest) / (0.75 + 0.35 * near)
        inside = smooth(depth, -0.001, 0.001)
        colour = red if index == 4 else indigo
        body = mix(np.broadcast_to(cream, pixels.shape), pale, smooth(depth, 0.014, 0.016))
        body = mix(body, colour, smooth(depth + 0.004 * swell, 0.034, 0.036))
        body = mix(body, cream, carve(depth * 42 + 0.5, 0.62 - 4.2 * depth + 0.22 * swell))
        weight = np.minimum(0.10 + 3.2 * depth + 0.24 * swell, 0.82)
        body = mix(body, black, carve(depth * 42, weight))
        body = mix(body, black, smooth(depth, 0.0075, 0.0055))
        pixels = mix(pixels, body, inside)
    worn = smooth(grain + 0.6 * noise(rng, side, 0.003), 2.2, 2.5)
    pixels = mix(pixels, cream, 0.5 * worn) + 0.012 * grain[..., None]
    return picture(pixels, size)


def inkwash(rng: Rng, size: int) -> Image.Image:
    """Ink on rice paper: misty ridges in wet washes, dry-brush folds, dabs of leaves, one seal.

    Ink is a density that adds up. Washes darken at their wet edge, and the dry brush only touches
    the tops of the paper's grain.
    """
    side = 2 * size
    y, _ = grid(side)
    tooth = noise(rng, side, 0.004) + 0.6 * noise(rng, side, 0.012, 1, 2)
    streaks = noise(rng, side, 0.035, 9, 3) + 0.5 * noise(rng, side, 0.1, 2, 2)
    ink = 0.17 * smooth(streaks + 0.1 * tooth, 0.4, 1.9)

    def wet(mask: Array, spread: float) -> Array:
        """Lets a mask bleed: soft inside, with a dark rim where the water stopped."""
        edge = blur(mask, spread) + 0.10 * tooth * blur(mask, 2 * spread)
        inner = smooth(edge, 0.25, 0.65)
        return inner * (0.6 + 0.8 * (1 - smooth(blur(mask, 2.5 * spread), 0.4, 0.95)))

    for near in np.linspace(0, 1, 7):
        line = noise(rng, side, 0.24, 1, 6)[side // 2]
        top = 0.17 + 0.72 * near - (0.08 - 0.025 * near) * line
        depth = np.clip(y - top + 0.003 * noise(rng, side, 0.02, 1, 2), -1, 1)
        body = smooth(depth, 0, 0.004)
        below = np.clip(depth, 0, 1)
        pools = smooth(noise(rng, side, 0.07, 0.7, 4), 0.15, 0.3)
        bloom = pools * (1 - pools) * 4
        wash = np.exp(-below / (0.05 + 0.04 * near)) * (0.65 + 0.9 * pools + 0.5 * bloom)
        ink *= 1 - 0.92 * body
        ink += (0.22 + 0.68 * near) * body * (wash + 1.1 * np.exp(-below / 0.004))

        slope = np.gradient(blur(np.tile(top, (3, 1)), 8)[1]) * side
        fall = np.pi / 2 - 0.75 * np.tanh(1.5 * slope)
        angle = np.broadcast_to(fall, (side, side)) + 0.3 * noise(rng, side, 0.05)
        brush, leaf = Image.new("L", (side, side)), Image.new("L", (side, side))
        folds, dabs = ImageDraw.Draw(brush), ImageDraw.Draw(leaf)
        starts = rng.uniform(0, 1, (760, 2))
        starts[:, 1] = top[(starts[:, 0] * side).astype(int)] + 0.11 * rng.random(760) ** 1.3
        paths = trace(angle, starts, rng.uniform(0.02, 0.1, 760), 10)
        for path, normal in zip(paths, sideways(paths), strict=True):
            for offset in rng.uniform(-0.004, 0.004, 4):
                last, dark = int(rng.integers(4, 11)), int(rng.integers(110, 255))
                folds.line(
                    flat((path + normal * offset)[:last] * side), dark, int(rng.integers(1, 4))
                )

        grove = noise(rng, side, 0.1, 1, 3)[0]
        touches: list[tuple[Array, float]] = []
        for cx in rng.uniform(0, 0.999, 520):
            if grove[int(cx * side)] + rng.normal(0, 0.4) > 0.35:
                spot = np.array([cx, top[int(cx * side)] + rng.exponential(0.016) - 0.005])
                touches.append((spot, rng.uniform(0.003, 0.0085) * (0.7 + 0.5 * near)))
        for cx in rng.uniform(0.02, 0.98, int(2 + 9 * near)):
            foot = np.array([cx, top[int(cx * side)] + 0.012])
            up = np.array([rng.normal(0, 0.12), -1]) * rng.uniform(0.04, 0.07) * (0.7 + near)
            dabs.line(flat(np.array([foot, foot + up]) * side), 230, 4)
            for level in np.repeat(np.linspace(0.25, 1.02, 8), 5):
                reach = 0.42 * up[1] * (1.12 - level) * rng.uniform(-1, 1)
                touches.append(
                    (foot + up * level + [reach, 0.16 * abs(reach)], 0.004 + 0.0035 * near)
                )
        for spot, long in touches:
            ellipse = side * spot, side * long, side * long * 0.42
            dab(rng, dabs, *ellipse, rng.normal(0, 0.22), int(rng.integers(110, 255)))
        dry = blur(plane(brush), 0.7) * smooth(tooth, -1.7, 0.6)
        ink += (0.3 + 0.75 * near) * dry * body
        ink += (0.25 + 0.95 * near) * wet(plane(leaf), 1.8)
    fibre = smooth(noise(rng, side, 0.004, 14) + noise(rng, side, 0.05), 1.8, 3)
    paper = rgb("f2e8d3")[0] * (1 + 0.018 * tooth - 0.05 * fibre)[..., None]
    ink = np.clip(ink * (1 + 0.13 * tooth), 0, None)
    pixels = paper * np.exp(-ink[..., None] * np.array([1.95, 1.9, 1.78]))
    return picture(seal(rng, pixels, tooth), size)


def seal(rng: Rng, pixels: Array, tooth: Array) -> Array:
    """Stamps a red seal with an invented sign into the upper left."""
    side = len(pixels)
    sign = (0x7FF, 0x461, 0x777, 0x477, 0x5E1, 0x47F, 0x7E1, 0x46D, 0x56D, 0x461, 0x7FF)
    rows = np.array([[code >> bit & 1 for bit in range(10, -1, -1)] for code in sign], float)
    unit = side // 130
    stamp = np.zeros((side, side))
    stamp[9 * unit : 20 * unit, 10 * unit : 21 * unit] = np.kron(rows, np.ones((unit, unit)))
    worn = smooth(tooth + 0.5 * noise(rng, side, 0.02), -2.1, -1.0)
    return mix(pixels, rgb("c02a1c")[0], blur(stamp, 1.6) * (0.25 + 0.7 * worn))


def stainedglass(rng: Rng, size: int) -> Image.Image:
    """Leaded glass: jewel-coloured cells, cut by great circles, in dark lead with a highlight.

    The cells are a relaxed Voronoi diagram on bent coordinates. Each pane has its own colour,
    streaks and seeds, and glows in the middle.
    """
    side = 2 * size
    sites = 230
    y, x = grid(side)
    bx = x + 0.013 * noise(rng, side, 0.16)
    by = y + 0.013 * noise(rng, side, 0.16)
    points = rng.uniform(-0.05, 1.05, (sites, 2))
    gy, gx = (g * 1.1 - 0.05 for g in grid(150))
    weight = 1 + 3 * (noise(rng, 150, 0.35) > 0.3)
    for _ in range(7):
        d2 = (gx[..., None] - points[:, 0]) ** 2 + (gy[..., None] - points[:, 1]) ** 2
        owner = d2.argmin(-1)
        mass = np.bincount(owner.ravel(), weight.ravel(), sites) + 1e-9
        for axis, g in enumerate((gx, gy)):
            points[:, axis] = np.bincount(owner.ravel(), (weight * g).ravel(), sites) / mass

    first, second = np.full((2, side, side), np.inf)
    own, other = np.zeros((2, side, side), int)
    for index, (px, py) in enumerate(points):
        d = (bx - px) ** 2 + (by - py) ** 2
        best, better = d < first, d < second
        second = np.where(best, first, np.where(better, d, second))
        other = np.where(best, own, np.where(better, index, other))
        first, own = np.where(best, d, first), np.where(best, index, own)
    apart = np.linalg.norm(points[own] - points[other], axis=-1) + 1e-9
    edge = (second - first) / (2 * apart)

    family = np.zeros((side, side), int)
    for cx, cy, r in ((0.30, 0.33, 0.25), (0.78, 0.62, 0.29), (0.36, 0.86, 0.2), (0.86, 0.1, 0.19)):
        away = np.hypot(x - cx, y - cy)
        for bit, ring in enumerate((r, 0.55 * r)):
            edge = np.minimum(edge, 0.75 * np.abs(away - ring))
            family = np.where(away < ring, 1 + bit, family)
    families = (
        rgb("10309a 0b57c4 1a8ad0 0f7f7a 0a7d45 2fa84f 3a1f8a"),
        rgb("b80f22 d8262a ea5a1c f08c1a 8c0f3c c41a5a f6b52a"),
        rgb("ffc928 ffe98a f7a41c fff6d0 ee6a1c ffd84d fff0b8"),
    )
    pane = own * 3 + family
    pick = rng.integers(0, 7, 3 * sites)
    tints = np.stack([families[index % 3][pick[index]] for index in range(3 * sites)])
    tints = tints * rng.uniform(0.78, 1.05, (3 * sites, 1))
    mottle = noise(rng, side, 0.03, 3, 4), noise(rng, side, 0.09, 0.35, 5)
    streak = np.where(rng.random(3 * sites)[pane] < 0.5, *mottle)
    seeds = smooth(noise(rng, side, 0.006), 2.3, 3)
    glow = np.clip(0.55 + 0.75 * smooth(edge, 0, 0.04) + 0.17 * streak + 0.5 * seeds, 0.2, 2)
    pixels = tints[pane] ** (1.15 / glow[..., None]) * np.sqrt(glow)[..., None]
    pixels += 0.10 * (np.clip(glow - 1.1, 0, 1) ** 1.2)[..., None]

    width = 0.0052 * (1 + 0.22 * noise(rng, side, 0.12))
    across = np.clip(edge / width, 0, 1)
    came = blur(np.sqrt(1 - across**2), 1.2) + 0.03 * noise(rng, side, 0.008)
    light_on, gloss = relief(came, 5)
    metal = rgb("1c1b20")[0] * np.clip(light_on, 0.3, 2)[..., None] + 0.42 * gloss[..., None]
    pixels *= (1 - 0.45 * smooth(edge, 0.014, 0.004))[..., None]
    return picture(mix(pixels, metal, smooth(edge - width, 0.0006, -0.0006)), size)


def pointillism(rng: Rng, size: int) -> Image.Image:
    """Divisionist dabs: a sunny river valley where every colour stands beside its opposite.

    Three layers of oval dabs, coarse to fine, over a dark underpainting. Most dabs take the local
    colour, some a neighbour of it, and some its complement.
    """
    side = 2 * size
    y, x = grid(side)
    sun = np.hypot(x - 0.7, y - 0.17)
    sky = np.clip(sun / 0.8 + 0.045 * np.sin(sun * 60) + 0.05 * noise(rng, side, 0.1, 3, 2), 0, 1)
    scene = ramp(sky, rgb("fff0a0 ffc83c f59a4a e8839a a98ad6 6f8fe0 4a7fd6 3a63c4 2f4fae"))
    scene = mix(scene, rgb("fff4b4")[0] * 1.06, smooth(sun, 0.078, 0.07))

    def land(line: Array, tones: str, cell: float) -> Array:
        """Paints the ground below a line, mottled with the given colours."""
        tint = ramp(0.5 + 0.28 * noise(rng, side, cell, 3, 2), rgb(tones))
        return mix(scene, tint, smooth(y - line, 0, 0.004))

    roll = noise(rng, side, 0.35, 1, 3)[side // 3]
    scene = land(0.37 + 0.025 * roll, "4a3f9c 7a5cc0 b07ac8 5a7fd0", 0.08)
    scene = land(0.46 + 0.02 * roll[::-1], "1f6f6a 3fa05a 9cc03a 2a7a9c", 0.07)
    scene = land(0.53 + 0.01 * np.sin(x * 9), "1c4fa8 2f86d0 6fc0e0 ffd27a f59a4a", 0.04)
    scene = land(0.69 - 0.10 * x + 0.02 * roll, "e0701c f5a52a ffd84a f7b83a c8503a", 0.06)
    scene = land(0.83 + 0.05 * x - 0.02 * roll, "1f7a4a 5aae3a b8cc3a 2a5fa0 7a3f9c", 0.05)
    leaves = rgb("1f1a5c 243a8a 1d6460 3f8f3e b4c23a f0d850")
    for cx, foot, tall in (
        (0.08, 0.82, 0.7),
        (0.2, 0.77, 0.5),
        (0.31, 0.73, 0.4),
        (0.93, 0.7, 0.5),
    ):
        up = np.clip((foot - y) / tall, 0, 1)
        wide = 0.13 * tall**0.5 * up**0.35 * (1 - up) ** 0.75
        tree = smooth(np.abs(x - cx + 0.003 * noise(rng, side, 0.03)) - wide, 0.002, -0.002)
        lit = 0.42 + 0.12 * noise(rng, side, 0.03, 1, 2) + 0.42 * (x - cx) / (wide + 0.01)
        shadow = smooth(np.abs(y - foot - 0.15 * (cx - x)), 0.016, 0.006) * (x < cx)
        scene = mix(scene, rgb("4a3fa8")[0], 0.8 * shadow)
        scene = mix(scene, ramp(lit, leaves), tree)

    canvas = Image.fromarray((scene * 90 + rgb("2a2050") * 60).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    swirl = np.arctan2(y - 0.17, x - 0.7) + np.pi / 2
    lie = np.where(y < 0.37, swirl, 0.25 * roll) + 0.35 * noise(rng, side, 0.1)
    for radius, count, shade in ((0.0092, 8000, 0.7), (0.0074, 8500, 0.88), (0.0066, 6500, 1.04)):
        cells = int(count**0.5) + 1
        lattice = np.stack(np.meshgrid(*[np.arange(cells)] * 2), -1).reshape(-1, 2)
        spots = rng.permutation((lattice + rng.uniform(-0.1, 1.1, lattice.shape)) / cells)
        colours = look(scene, spots + rng.normal(0, 0.006, spots.shape))
        grey = colours.mean(-1, keepdims=True)
        chance = rng.random((len(spots), 1))
        opposite = grey + 0.9 * (grey - colours)
        shifted = np.roll(colours, 1, -1) * 0.35 + colours * 0.65
        colours = np.where(chance < 0.12, opposite, np.where(chance < 0.32, shifted, colours))
        colours = grey + (colours - grey) * 1.1 + rng.normal(0, 0.04, colours.shape)
        colours = colours * shade + rng.normal(0, 0.045, grey.shape)
        turn = look(lie, spots) + rng.normal(0, 0.25, len(spots))
        for spot, colour, angle in zip(spots, colours, turn, strict=True):
            long = side * radius * rng.uniform(0.8, 1.25)
            short = long * rng.uniform(0.5, 0.9)
            dab(rng, draw, side * spot, long, short, angle, byte(colour))
    weave = noise(rng, side, 0.003, 3) + noise(rng, side, 0.003, 1 / 3)
    return picture(plane(canvas) * (1 + 0.022 * weave)[..., None], size)


def marbling(rng: Rng, size: int) -> Image.Image:
    """Marbled paper: drops of colour float on a bath and are drawn out with combs and whirls.

    Each pixel is followed backwards through the whirls and combs to the bath, then from the last
    drop to the first: a drop either holds the pixel, or had pushed it outwards.
    """
    side = 3 * size
    v, u = grid(side)
    colours = rgb("2b1440 e8336d ff8fa3 fbf1dc 12908e 0d5560 a5cf3c fbf1dc ff6a3d")
    for cx, cy, r, turn in ((0.3, 0.3, 0.16, 2.2), (0.74, 0.68, 0.19, -2.6), (0.8, 0.16, 0.1, 2)):
        u, v = whirl(u, v, cx, cy, r, turn)

    def tines(across: Array, pitch: float) -> Array:
        """How far a comb of this pitch drags the bath, per unit of its stroke."""
        away = np.abs((across / pitch) % 1 - 0.5) * pitch
        return 0.2 * pitch / (0.2 * pitch + away)

    u = u - 0.05 * tines(v + 0.01 * np.sin(9 * u), 0.05)
    v = v - 0.10 * tines(u, 0.11)
    v = v + 0.10 * tines(u + 0.055, 0.11)
    u, v = u.ravel(), v.ravel()

    pixels = np.broadcast_to(colours[0], (side * side, 3)).copy()
    floating = np.arange(side * side)
    for index in range(620):
        cx, cy = rng.uniform(-0.15, 1.15, 2)
        r = 0.012 + 0.055 * rng.random() ** 1.5
        dx, dy = u - cx, v - cy
        square = dx**2 + dy**2
        out = square > r**2
        pixels[floating[~out]] = colours[(index * 4 + int(rng.integers(0, 2))) % len(colours)]
        shrink = np.sqrt(1 - r**2 / square[out])
        u, v, floating = cx + dx[out] * shrink, cy + dy[out] * shrink, floating[out]
    image = pixels.reshape(side, side, 3)
    fleck = 0.02 * noise(rng, side, 0.004) + 0.02 * noise(rng, side, 0.05, 1, 4)
    return picture(image * (1 + fleck)[..., None], size)


STYLES: dict[str, Callable[[Rng, int], Image.Image]] = {
    style.__name__: style
    for style in (strokes, woodcut, inkwash, stainedglass, pointillism, marbling)
}


def astronaut() -> bytes:
    """The portrait of Eileen Collins (NASA, public domain), as scikit-image ships it."""
    data = importlib.import_module("skimage.data")
    return jpeg(Image.fromarray(data.astronaut()), 95)


def jpeg(image: Image.Image, quality: int) -> bytes:
    """Encodes a picture without chroma subsampling."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def render(name: str) -> bytes:
    """Draws a style and encodes it with the best quality that fits."""
    image = STYLES[name](np.random.default_rng(zlib.crc32(name.encode())), SIZE)
    tries = (jpeg(image, quality) for quality in range(92, 50, -2))
    return next(data for data in tries if len(data) < MAX_BYTES)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Makes the bundled sample pictures.")
    parser.add_argument("--out", type=Path, default=SAMPLES, metavar="DIR")
    parser.add_argument("--only", choices=["astronaut", *STYLES], metavar="NAME")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in [options.only] if options.only else ["astronaut", *STYLES]:
        data = astronaut() if name == "astronaut" else render(name)
        (options.out / f"{name}.jpg").write_bytes(data)
        print(f"{name}.jpg: {len(data):,} bytes")


if __name__ == "__main__":
    main()
