"""Painting in one pass, beside the networks and the optimiser that it is measured against.

    python -m benchmarks.fast speed [FILE] [--runs 9]
    python -m benchmarks.fast quality FILE --data FOLDER [--curves JSON] [--steps 20] [--long 200]
    python -m benchmarks.fast start [--plot PNG]
    python -m benchmarks.fast memory FILE

FILE is a weight file of ours; without one, `speed` takes random weights, which are as fast.

- `speed`: one picture without reading or writing files, with the style encoded and with a new one,
  beside two networks as they were published, with random weights and as many threads: the image
  transformation network of Johnson et al. 2016 (supplement, table 1: one style each), and AdaIN
  (Huang & Belongie 2017, section 6: VGG-19 up to relu4_1 and its mirror). Medians; ratios.
- `quality`: the optimiser's default objective at 512 px on one scale, for eight photos in eight
  styles, over that of the photo itself. Beside it, the lowest that the optimiser has found after
  some evaluations; JSON keeps its losses from one run to the next. Without FILE, only those.
- `start`: the loss that the optimiser ends with after so many steps, from the photo and from what
  the network made of it; default settings, our styles on free photos. `--plot` draws it.
- `memory`: the peak of a process that paints 0.25, 1, 10 and 100 megapixels, less that of one that
  only loads them.
"""

import argparse
import importlib
import itertools
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import impasto
from impasto.encoder import Encoder
from impasto.fast.network import FastNetwork
from impasto.fast.style import FastStyle
from impasto.images import Picture
from impasto.objectives import ContentTerm, Region, Styles, StyleTerm, make_objective
from impasto.pyramid import cover
from impasto.settings import TransferSettings

HELD_OUT = Path("training/heldout.txt")


class Johnson(nn.Module):
    """The image transformation network of Johnson et al. 2016, with instance norm."""

    def __init__(self) -> None:
        super().__init__()

        def block(before: int, after: int, side: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.ReflectionPad2d(side // 2),
                nn.Conv2d(before, after, side, stride),
                nn.InstanceNorm2d(after, affine=True),
            )

        self.down = nn.Sequential(
            *(block(3, 32, 9), nn.ReLU(), block(32, 64, 3, 2), nn.ReLU()),
            *(block(64, 128, 3, 2), nn.ReLU()),
        )
        self.residual = nn.ModuleList(
            nn.Sequential(block(128, 128, 3), nn.ReLU(), block(128, 128, 3)) for _ in range(5)
        )
        self.up = nn.Sequential(
            *(nn.Upsample(scale_factor=2), block(128, 64, 3), nn.ReLU()),
            *(nn.Upsample(scale_factor=2), block(64, 32, 3), nn.ReLU()),
            *(nn.ReflectionPad2d(4), nn.Conv2d(32, 3, 9)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 3, H, W)` to the same; sides multiples of 4."""
        x = self.down(x)
        for block in self.residual:
            x = x + block(x)
        result: Tensor = self.up(x)
        return result


class AdaIN(nn.Module):
    """VGG-19 up to relu4_1, its mirror, and moments between (Huang & Belongie 2017)."""

    def __init__(self) -> None:
        super().__init__()
        plan = [(3, 64), (64, 64), None, (64, 128), (128, 128), None, (128, 256)]
        plan += [(256, 256)] * 3 + [None, (256, 512)]
        self.encoder = nn.Sequential(
            *(nn.MaxPool2d(2) if pair is None else self._layer(*pair) for pair in plan)
        )
        self.decoder = nn.Sequential(
            *(
                nn.Upsample(scale_factor=2) if pair is None else self._layer(*reversed(pair))
                for pair in reversed(plan)
            )
        )

    @staticmethod
    def _layer(before: int, after: int) -> nn.Module:
        return nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(before, after, 3), nn.ReLU())

    def style(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and deviations of a style."""
        deviation, mean = torch.std_mean(self.encoder(x), (2, 3), keepdim=True)
        return mean, deviation

    def forward(self, x: Tensor, style: tuple[Tensor, Tensor]) -> Tensor:
        """`(N, 3, H, W)` to the same; sides multiples of 8."""
        features = self.encoder(x)
        deviation, mean = torch.std_mean(features, (2, 3), keepdim=True)
        result: Tensor = self.decoder((features - mean) / (deviation + 1e-5) * style[1] + style[0])
        return result


def seconds(work: Callable[[], object], runs: int) -> float:
    """The median of some runs, after one that does not count."""
    work()
    taken = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def speed(file: Path | None, runs: int) -> None:
    """Prints seconds and ratios at 256, 512 and 1024 px.

    A rival counts with its channels first or last, whichever is quicker on this machine.
    """
    fast = FastStyle.load(file) if file else FastStyle(FastNetwork(Encoder.load("slim")))
    rivals = (Johnson().eval(), AdaIN().eval())
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}")
    with torch.inference_mode():
        for side in (256, 512, 1024):
            x, s = (torch.rand(1, 3, side, side) for _ in range(2))
            last = x.contiguous(memory_format=torch.channels_last)
            code = fast.style(s, size=side)
            ours = seconds(lambda: fast.stylize(last, code), runs)  # noqa: B023
            anew = seconds(lambda: fast.stylize(last, fast.style(s, size=side)), runs)  # noqa: B023
            few = max(3, runs // 3)
            one = any_style = math.inf
            for layout in (torch.contiguous_format, torch.channels_last):
                johnson, adain = (net.to(memory_format=layout) for net in rivals)  # type: ignore[call-overload]
                given = x.contiguous(memory_format=layout)
                known = adain.style(s.contiguous(memory_format=layout))
                one = min(one, seconds(lambda: johnson(given), runs))  # noqa: B023
                any_style = min(any_style, seconds(lambda: adain(given, known), few))  # noqa: B023
            print(
                f"{side} px: {ours:.3f} s with the style encoded, {anew:.3f} s with a new one; "
                f"Johnson {one:.3f} s ({ours / one:.2f}×, {anew / one:.2f}×), "
                f"AdaIN {any_style:.3f} s ({ours / any_style:.2f}×)"
            )


def pairs(data: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Eight photos and eight styles, 512 px: no style was trained on, nor the first four photos."""
    free = importlib.import_module("skimage.data")
    photos = {
        name: Picture(np.ascontiguousarray(getattr(free, name)())).tensor()
        for name in ("astronaut", "coffee", "chelsea", "rocket")
    }
    some = sorted((data / "photos" / "landscapes").iterdir())
    for path in some[:: len(some) // 4][:4]:
        photos[path.stem] = impasto.open_image(path).tensor()
    styles = {
        name: impasto.open_image(f"src/impasto/samples/{name}.jpg").tensor()
        for name in ("strokes", "woodcut", "stainedglass", "inkwash")
    }
    held = HELD_OUT.read_text("utf-8").splitlines()
    for kind in ("paintings/", "textures/"):
        names = [name for name in held if name.startswith(kind)]
        for name in (names[0], names[-1]):
            styles[Path(name).stem] = impasto.open_image(data / name).tensor()
    square = (512, 512)
    return (
        {name: cover(x, square) for name, x in photos.items()},
        {name: cover(x, square) for name, x in styles.items()},
    )


def judge(encoder: Encoder, photo: Tensor, style: Tensor) -> Callable[[Tensor], float]:
    """The optimiser's default objective at 512 px on one scale, for this pair."""
    settings = TransferSettings(scales=1)
    keep, take = settings.weights
    region = Region(Styles([style], [1.0]))
    objective = make_objective(
        encoder,
        (512, 512),
        content=ContentTerm(photo, settings.content_layers, keep),
        style=StyleTerm([region], settings.style_layers, take, (512, 512)),
        settings=settings,
    )

    def judged(x: Tensor) -> float:
        with torch.no_grad():
            return float(sum(objective(x).values()))

    return judged


def curve(photo: Tensor, style: Tensor, steps: int) -> list[float]:
    """The lowest loss that the optimiser has found after each evaluation."""
    run = impasto.transfer(photo, [(style, 1.0)], init="content", scales=1, steps=steps)
    return list(itertools.accumulate((each["loss"] for each in run.history), min))


def quality(file: Path | None, data: Path, steps: int, long: int, curves: Path | None) -> None:
    """Prints, for every pair, the objective over that of the photo, and the medians."""
    fast = FastStyle.load(file) if file else None
    encoder = Encoder.load(TransferSettings().encoder)
    known = json.loads(curves.read_text("utf-8")) if curves and curves.exists() else {}
    photos, styles = pairs(data)
    rows = []
    for photo_name, photo in photos.items():
        for style_name, style in styles.items():
            pair = f"{photo_name} in {style_name}"
            judged = judge(encoder, photo, style)
            start = judged(photo)
            if len(known.get(pair, ())) < long:
                known[pair] = curve(photo, style, long)
                if curves:
                    curves.write_text(json.dumps(known), "utf-8")
            if fast is None:
                continue
            losses = [judged(fast.stylize(photo, fast.style(style)))]
            losses += [known[pair][steps - 1], known[pair][long - 1]]
            rows.append([loss / start for loss in losses])
            print(
                f"{pair}: {rows[-1][0]:.3f} in one pass, {rows[-1][1]:.3f} after {steps} "
                f"evaluations, {rows[-1][2]:.3f} after {long}; the photo {start:.2f}",
                flush=True,
            )
    if rows:
        one, few, many = np.median(rows, axis=0)
        won = sum(row[0] <= row[1] for row in rows)
        print(
            f"median of {len(rows)} pairs, the photo being 1: {one:.3f} in one pass, {few:.3f} "
            f"after {steps} evaluations ({one / few:.2f}×; better in {won}), "
            f"{many:.3f} after {long}"
        )


STEPS = (12, 25, 50, 100, 200, 300)
"""How many evaluations the optimiser is given in `start`."""

TICKS = (1, 1.2, 1.5, 2, 3, 4)
"""Losses that the plot of `start` names."""

STARTED = {
    "astronaut": "strokes",
    "coffee": "inkwash",
    "chelsea": "woodcut",
    "rocket": "stainedglass",
}
"""Photos and the styles that they are painted in there."""


def start(plot: Path | None) -> None:
    """Prints the final loss for both starts, over that of 300 steps from the photo."""
    free = importlib.import_module("skimage.data")
    curves: dict[str, dict[str, list[float]]] = {}
    for name, style in STARTED.items():
        photo = Picture(np.ascontiguousarray(getattr(free, name)()))
        pair = f"{name} in {style}"
        curves[pair] = {}
        for init in ("content", "fast"):
            ended, taken = [], []
            for steps in STEPS:
                began = time.perf_counter()
                made = impasto.transfer(photo, f"sample:{style}", init=init, steps=steps)
                taken.append(time.perf_counter() - began)
                ended.append(made.settings["loss"])
            whole = curves[pair].get("content", ended)[-1]
            curves[pair][init] = ended
            told = ", ".join(
                f"{loss / whole:.3f} ({steps} steps, {seconds:.1f} s)"
                for steps, loss, seconds in zip(STEPS, ended, taken, strict=True)
            )
            print(f"{pair} from {init}: {told}", flush=True)
    ratios = np.median(
        [np.divide(both["fast"], both["content"]) for both in curves.values()], axis=0
    )
    told = ", ".join(f"{r:.3f} ({steps})" for r, steps in zip(ratios, STEPS, strict=True))
    print(f"loss from fast over loss from the photo, medians (steps): {told}")
    if plot:
        draw(curves, plot)


def draw(curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    """The final losses by steps, a panel for each pair."""
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, panels = pyplot.subplots(1, len(curves), figsize=(3.2 * len(curves), 2.9))
    for panel, (pair, both) in zip(panels, curves.items(), strict=True):
        for init, color in (("content", "#7a7a7a"), ("fast", "#c8442e")):
            losses = np.divide(both[init], both["content"][-1])
            panel.plot(STEPS, losses, color=color, marker="o", markersize=3, label=init)
        panel.set(title=pair, xlabel="steps", xscale="log", yscale="log")
        panel.set_xticks(STEPS, labels=[str(steps) for steps in STEPS], fontsize=7)
        panel.minorticks_off()
        panel.set_yticks(TICKS, labels=[f"{tick:g}" for tick in TICKS], fontsize=7)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("final loss; 1: 300 steps from the photo", fontsize=8)
    panels[0].legend(title="start", frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def paint_megapixels(file: Path, megapixels: float, painting: bool) -> None:
    """Paints one picture of noise, or only makes it; prints the peak of this process in MiB."""
    side = round((megapixels * 1e6) ** 0.5)
    drawn = np.random.default_rng(0).integers(0, 256, (side // 8 + 1, side // 8 + 1, 3), np.uint8)
    photo = Picture(np.ascontiguousarray(drawn.repeat(8, 0).repeat(8, 1)[:side, :side]))
    fast = FastStyle.load(file)
    code = fast.style(Picture(photo.pixels[:512, :512].copy()))
    if painting:
        fast.stylize(photo, code)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def memory(file: Path) -> None:
    """Prints the peaks for four sizes, each in a process of its own."""
    for megapixels in (0.25, 1.0, 10.0, 100.0):
        peaks = []
        for what in ("load", "paint"):
            command = [sys.executable, "-m", "benchmarks.fast", what, str(file)]
            command += ["--megapixels", str(megapixels)]
            begin = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks.append(float(done.stdout))
            taken = time.perf_counter() - begin
        print(
            f"{megapixels:g} MP: {peaks[1]:.0f} MiB, {peaks[1] / peaks[0]:.1f}× of loading alone; "
            f"{taken:.0f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["speed", "quality", "start", "memory", "load", "paint"])
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--data", type=Path, help="folder of the pictures that are held out")
    parser.add_argument("--plot", type=Path, help="file of the curves of start")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--long", type=int, default=200)
    parser.add_argument("--curves", type=Path, help="file of the optimiser's losses")
    parser.add_argument("--megapixels", type=float, default=1.0)
    given = parser.parse_args()
    if given.what not in ("speed", "quality", "start") and given.file is None:
        parser.error("give a weight file")
    match given.what:
        case "speed":
            speed(given.file, given.runs)
        case "quality":
            if given.data is None:
                parser.error("give --data")
            quality(given.file, given.data, given.steps, given.long, given.curves)
        case "start":
            start(given.plot)
        case "memory":
            memory(given.file)
        case what:
            paint_megapixels(given.file, given.megapixels, what == "paint")


if __name__ == "__main__":
    main()
