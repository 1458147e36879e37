"""The classic GAN at 64 px, batch 128, beside the training loop of PyTorch's DCGAN tutorial.

    python benchmarks/gan.py [--steps 20] [--files 5000] [--data FOLDER] [--seconds 150]

The tutorial's loop is written out here as it is known: its nets end in a sigmoid and its loss is
the binary cross-entropy of probabilities; real and generated pictures go through the discriminator
one after the other, each with a backward pass; two plain Adams; a DataLoader with two workers opens
every file with Pillow each time it is seen, brings its short side to 64 px, crops the centre and
mirrors it by chance. Four figures:

1. The losses of the first steps, in float64. Both have our initial weights and see our batches, in
   our order, mirrored as ours are, with our latents; everything else is each one's own, and ours go
   through the trainer of `impasto gan train`. So what differs is the arithmetic: logits or
   probabilities, one backward pass or two, memory formats, Adam fused or not. If it differs by more
   than 1e-4, the exit status is 1. Convolutions in float64 take ten times as long as in float32, so
   batches are smaller here (--loss-batch 128 for those of the classic: some ten minutes).
2. Pictures per second, loading included. The tutorial, ours in float32 and ours in bfloat16 run in
   processes of their own, in turn, a block of steps each, while the others wait; the tutorial's
   workers are stopped between its blocks, so that they load nothing meanwhile. The first block of
   each is not counted. Given are medians over blocks, and over the ratios of neighbours.
3. Seconds to the first batch, from the listing of the files on: the tutorial's; ours when nothing
   is cached, and when all is. The system has just written the files and holds them in memory.
4. The peak memory of the processes of 2 (resident), and of the tutorial's workers.

The files are JPEGs of 512 px, drawn here, or with --data those of a folder; if they are too few,
more are made of them by cutting off some columns.
"""

import argparse
import dataclasses
import itertools
import multiprocessing
import os
import platform
import re
import shlex
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from impasto.compute import choose_dtype, keep_memory
from impasto.gan.cache import prepare
from impasto.gan.collection import find
from impasto.gan.pictures import Pictures, Views
from impasto.gan.recipe import GanRecipe
from impasto.gan.settings import ScoreSettings, make_gan_settings
from impasto.seeds import derive_seed
from impasto.shuffle import Shuffle
from impasto.trainer import Length, train

SETTINGS: Final = make_gan_settings({"arch": "dcgan", "device": "cpu"})
SIDE, BATCH, LATENT, WIDTH = SETTINGS.size, SETTINGS.batch, SETTINGS.latent, SETTINGS.width
TOLERANCE: Final = 1e-4
TARGETS: Final = {"float32": 1.15, "bfloat16": 1.6}
TUTORIAL: Final = "tutorial"

# --- The tutorial ---------------------------------------------------------------------------------


class PictureFiles(Dataset[tuple[Tensor, int]]):
    """Picture files, decoded anew each time, with a label that nobody looks at."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as opened:
            image = opened.convert("RGB")
        w, h = image.size
        size = (SIDE, SIDE * h // w) if w <= h else (SIDE * w // h, SIDE)
        left, top = (round((length - SIDE) / 2) for length in size)
        image = image.resize(size, Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + SIDE, top + SIDE))
        if torch.rand(1) < 0.5:
            image = ImageOps.mirror(image)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return x.sub_(0.5).div_(0.5), 0


def loader(folder: Path) -> DataLoader[tuple[Tensor, int]]:
    """The tutorial's loader."""
    how = multiprocessing.get_all_start_methods()[0]  # the system's, also in a spawned process
    return DataLoader(PictureFiles(folder), BATCH, True, num_workers=2, multiprocessing_context=how)


def tutorial_generator() -> nn.Sequential:
    layers: list[nn.Module] = []
    widths = (LATENT, WIDTH * 8, WIDTH * 4, WIDTH * 2, WIDTH)
    for before, after in itertools.pairwise(widths):
        place = (2, 1) if layers else (1, 0)  # stride, padding
        layers.append(nn.ConvTranspose2d(before, after, 4, *place, bias=False))
        layers += [nn.BatchNorm2d(after), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(WIDTH, 3, 4, 2, 1, bias=False), nn.Tanh())


def tutorial_discriminator() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((3, WIDTH, WIDTH * 2, WIDTH * 4, WIDTH * 8)):
        norm = [nn.BatchNorm2d(after)] if layers else []
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), *norm, nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(WIDTH * 8, 1, 4, 1, 0, bias=False), nn.Sigmoid())


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class Tutorial:
    """The tutorial's nets, optimisers and step."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.generator = tutorial_generator().apply(initialise).to(dtype)
        self.discriminator = tutorial_discriminator().apply(initialise).to(dtype)
        self._loss = nn.BCELoss()
        self._adams = [
            torch.optim.Adam(net.parameters(), lr=0.0002, betas=(0.5, 0.999))
            for net in (self.generator, self.discriminator)
        ]

    def step(self, real: Tensor, noise: Tensor | None = None) -> tuple[float, float]:
        """Trains on a batch; gives the losses of the discriminator and of the generator."""
        count = len(real)
        self.discriminator.zero_grad()
        label = torch.full((count,), 1.0, dtype=self.dtype)
        output = self.discriminator(real).view(-1)
        on_real = self._loss(output, label)
        on_real.backward()
        output.mean().item()
        z = torch.randn(count, LATENT, 1, 1, dtype=self.dtype) if noise is None else noise
        fake = self.generator(z)
        output = self.discriminator(fake.detach()).view(-1)
        on_fake = self._loss(output, label.fill_(0.0))
        on_fake.backward()
        output.mean().item()
        self._adams[1].step()

        self.generator.zero_grad()
        output = self.discriminator(fake).view(-1)
        deceived = self._loss(output, label.fill_(1.0))
        deceived.backward()
        output.mean().item()
        self._adams[0].step()
        return (on_real + on_fake).item(), deceived.item()


# --- 1. Losses ------------------------------------------------------------------------------------


def prepared(home: Path) -> Pictures:
    """The pictures as `impasto gan train` prepares them."""
    work = prepare(
        find([home / "pictures"]),
        Views(SIDE),
        cache=home / "cache",
        held_out=SETTINGS.held_out,
        least_held=ScoreSettings().real,
    )
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast(Pictures, end.value)


def batches(pictures: Pictures, steps: int, count: int = BATCH) -> Iterator[list[Tensor]]:
    """The real pictures and the latents of our first steps, drawn as `GanRecipe` draws them."""
    order = Shuffle(len(pictures.train), derive_seed(SETTINGS.seed, "order"))
    for seen in range(0, steps * count, count):
        torch.manual_seed(derive_seed(SETTINGS.seed, "step", seen))
        views = torch.Generator().manual_seed(derive_seed(SETTINGS.seed, "views", seen))
        flips, offsets = pictures.draw(count, views)
        real = pictures.batch(order.indices(seen, count), flips=flips, offsets=offsets)
        yield [real, torch.randn(count, LATENT)]


def compare_losses(pictures: Pictures, steps: int, count: int) -> float:
    """Prints both loops' losses; gives the largest difference."""
    settings, dtype = dataclasses.replace(SETTINGS, batch=count), torch.float64
    recipe, tutorial = GanRecipe(settings, pictures, dtype=dtype), Tutorial(dtype)
    for name in ("generator", "discriminator"):
        ours, theirs = getattr(recipe, name), getattr(tutorial, name)
        theirs.load_state_dict(ours.layers.state_dict())
    fed = ((x.double(), z.double()[..., None, None]) for x, z in batches(pictures, steps, count))
    expected = [tutorial.step(*batch) for batch in fed]
    length = Length(steps * count, count, count, steps * count, settings.seed)
    with tempfile.TemporaryDirectory() as name:
        reports = train(recipe.parts, recipe.step, length, Path(name), config={}, dtype=dtype)
        found = [(x.metrics["discriminator"], x.metrics["generator"]) for x in [*reports][1:]]
    print(f"1. losses, float64, batch {count}: D of the tutorial and ours, G of both")
    for step, (a, b) in enumerate(zip(expected, found, strict=True), 1):
        print(f"   {step:4}{a[0]:14.9f}{b[0]:14.9f}{a[1]:14.9f}{b[1]:14.9f}")
    largest = float(np.abs(np.array(expected) - np.array(found)).max())
    print(f"   largest difference {largest:.1e}; the limit is {TOLERANCE:.0e}\n", flush=True)
    return largest


# --- 2. and 4. Speed and memory -------------------------------------------------------------------


def tutorial_blocks(home: Path, block: int) -> Iterator[int]:
    """Trains for a block of steps at each `next`, which gives the number of pictures."""
    tutorial = Tutorial()
    source = itertools.chain.from_iterable(itertools.repeat(loader(home / "pictures")))  # epochs
    try:
        while True:
            _signal_workers(signal.SIGCONT)
            count = 0
            for _ in range(block):
                real, _label = next(source)
                tutorial.step(real)
                count += len(real)
            _signal_workers(signal.SIGSTOP)
            yield count
    finally:
        _signal_workers(signal.SIGCONT)


def _signal_workers(number: signal.Signals) -> None:
    for worker in multiprocessing.active_children():
        os.kill(cast(int, worker.pid), number)


def our_blocks(home: Path, block: int, precision: str) -> Iterator[int]:
    """The same with our trainer, which writes a line of its log after each block."""
    keep_memory()
    recipe = GanRecipe(SETTINGS, prepared(home))
    length = Length(10**9, BATCH, block * BATCH, 10**9)
    folder, dtype = home / precision, getattr(torch, precision)
    for report in train(recipe.parts, recipe.step, length, folder, config={}, dtype=dtype):
        if report.metrics:
            yield block * BATCH


def contest(name: str, home: Path, block: int, pipe: Any) -> None:
    """What a process that is measured does: a block each time it is told to go on."""
    ours = name != TUTORIAL
    blocks = our_blocks(home, block, name) if ours else tutorial_blocks(home, block)
    next(blocks)
    pipe.send("ready")
    while pipe.recv():
        begin = time.perf_counter()
        count = next(blocks)
        pipe.send(count / (time.perf_counter() - begin))
    workers = [str(worker.pid) for worker in multiprocessing.active_children()]
    pipe.send([peak_memory(process) for process in ("self", *workers)])
    cast(Any, blocks).close()


def peak_memory(process: str) -> int:
    """The most memory that a process has had, resident, MiB; 0 if this is not Linux."""
    # Not `ru_maxrss`, which counts what a process had before it became another program.
    status = Path("/proc", process, "status")
    found = re.search(r"VmHWM:\s*(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) // 1024 if found else 0


def compare_speed(home: Path, block: int, seconds: float) -> dict[str, list[int]]:
    """Prints pictures per second; gives the peak memory of each, and of its workers, MiB."""
    has_bfloat16 = choose_dtype(torch.device("cpu"), "auto") is torch.bfloat16
    names = [TUTORIAL, "float32", "bfloat16"][: 3 if has_bfloat16 else 2]
    fresh = multiprocessing.get_context("spawn")
    pipes: dict[str, Any] = {}
    processes = []
    for name in names:
        pipes[name], other = fresh.Pipe()
        processes.append(fresh.Process(target=contest, args=(name, home, block, other)))
        processes[-1].start()
        other.close()
        pipes[name].recv()
    rates: dict[str, list[float]] = {name: [] for name in names}
    begin = time.monotonic()
    while len(rates[names[-1]]) < 3 or time.monotonic() - begin < seconds:
        for name, pipe in pipes.items():
            pipe.send(True)
            rates[name].append(pipe.recv())
    memory = {}
    for name, pipe in pipes.items():
        pipe.send(False)
        memory[name] = pipe.recv()
    for process in processes:
        process.join()

    print(f"2. pictures/s, medians of {len(rates[TUTORIAL])} blocks of {block} steps")
    print(f"   {TUTORIAL:10}{statistics.median(rates[TUTORIAL]):8.1f}")
    for name in names[1:]:
        ratios = [mine / theirs for mine, theirs in zip(rates[name], rates[TUTORIAL], strict=True)]
        ratio, target = statistics.median(ratios), TARGETS[name]
        print(
            f"   {name:10}{statistics.median(rates[name]):8.1f}, ratio {ratio:.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}), target {target:.2f}: "
            f"{'reached' if ratio >= target else 'MISSED'}"
        )
    if not has_bfloat16:
        print("   bfloat16: this processor does not compute in it")
    return memory


# --- 3. The first batch ---------------------------------------------------------------------------


def first_batches(home: Path) -> list[float]:
    """Seconds to the first batch: the tutorial's, ours the first time, and the second."""
    begin = time.perf_counter()
    source = iter(loader(home / "pictures"))
    next(source)
    seconds = [time.perf_counter() - begin]
    del source
    for _ in range(2):
        begin = time.perf_counter()
        next(batches(prepared(home), 1))
        seconds.append(time.perf_counter() - begin)
    return seconds


def draw_files(folder: Path, count: int, side: int = 512) -> None:
    """Different JPEGs: parts of one large canvas of soft colours and grain."""
    rng = np.random.default_rng(0)
    noise = (Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)) for n in (40, 1024))
    soft, grain = (each.resize((2048, 2048), Image.Resampling.BICUBIC) for each in noise)
    pixels = np.asarray(Image.blend(soft, grain, 0.2))
    for number in range(count):
        left, top = rng.integers(2048 - side, size=2)
        part = pixels[top : top + side, left : left + side, rng.permutation(3)]
        Image.fromarray(np.ascontiguousarray(part)).save(folder / f"{number:05}.jpg", quality=90)


def collect_files(folder: Path, count: int, data: Path) -> None:
    """Links to a folder's pictures; if they are too few, also cut copies."""
    sources = find([data]) or sys.exit(f"{data} holds no pictures")
    for number in range(count):
        source, again = sources[number % len(sources)], number // len(sources)
        path = folder / f"{number:05}{'.jpg' if again else source.suffix}"
        if not again:
            path.symlink_to(source.resolve())
            continue
        with Image.open(source) as opened:
            image = opened.convert("RGB")
        image.crop((again % (image.width // 2), 0, *image.size)).save(path, quality=90)


# --- The program ----------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=20, help="whose losses are compared")
    parser.add_argument("--loss-batch", type=int, default=32, help="pictures in each of those")
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--data", type=Path, help="a folder of pictures, instead of drawn ones")
    parser.add_argument("--seconds", type=float, default=150, help="of the measurement of speed")
    parser.add_argument("--block", type=int, default=5, help="steps at a time")
    given = parser.parse_args()
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    print(f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores; ", end="")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(shlex.join(["python", *sys.argv]), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "pictures").mkdir()
        if given.data:
            collect_files(home / "pictures", given.files, given.data)
        else:
            draw_files(home / "pictures", given.files)
        time.sleep(2.5)  # the cache does not trust the times of files that are younger than 2 s
        theirs, first, second = first_batches(home)
        largest = compare_losses(prepared(home), given.steps, given.loss_batch)
        memory = compare_speed(home, given.block, given.seconds)
    print(
        f"\n3. seconds to the first batch of {given.files:,} files\n"
        f"   {TUTORIAL} {theirs:.2f}, ours {first:.2f} the first time, {second:.2f} the second\n\n"
        "4. peak memory, MiB"
    )
    for name, (own, *workers) in memory.items():
        print(f"   {name:10}{own:6}{', its workers ' if workers else ''}{str(workers)[1:-1]}")
    sys.exit(largest > TOLERANCE)


if __name__ == "__main__":
    main()
