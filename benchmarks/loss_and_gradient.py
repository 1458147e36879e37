"""What one step costs beside its bare convolutions.

A step is the loss of Gatys et al. 2016 (content at relu4_2, style at relu1_1 ... relu5_1) with
total variation, and its gradient to the picture; the weights are random. Bare convolutions are each
layer's forward pass and its gradient to the input, alone, on tensors of the same sizes, dtype and
memory layout. Both are timed in turn, and medians are compared; the peak memory is that of a
process that only does steps.

    python benchmarks/loss_and_gradient.py [--plan vgg19] [--size 512] [--runs 7]
"""

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from impasto.compute import choose_dtype, keep_memory
from impasto.encoder import Encoder
from impasto.objectives import ContentTerm, Region, Styles, StyleTerm, make_objective
from impasto.settings import Padding, Settings

CONTENT = {"relu4_2": 1.0}
SETTINGS = Settings(tv_weight=1.0, ripple_weight=0.0)
STYLE = {f"relu{block}_1": 1.0 for block in range(1, 6)}


def step(plan: str, size: int, dtype: torch.dtype, padding: Padding) -> Callable[[], None]:
    """A function that takes one step."""
    encoder = Encoder.random(plan, dtype=dtype, padding=padding)
    generator = torch.Generator().manual_seed(0)
    photo, style, x = (torch.rand(1, 3, size, size, generator=generator) for _ in range(3))
    objective = make_objective(
        encoder,
        (size, size),
        content=ContentTerm(photo, CONTENT, 1.0),
        style=StyleTerm([Region(Styles([style], [1.0]))], STYLE, 20.0, (size, size)),
        settings=SETTINGS,
    )

    def run() -> None:
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(torch.stack(list(objective(leaf).values())).sum(), leaf)

    return run


def convolutions(plan: str, size: int, dtype: torch.dtype) -> Callable[[], None]:
    """A function that runs every convolution of the plan down to relu5_1, forward and back."""
    encoder = Encoder.random(plan, dtype=dtype)
    depth = encoder.layers.index("relu5_1") + 1
    jobs = []
    for layer, (weight, bias) in zip(encoder.layers[:depth], encoder._convolutions, strict=False):
        side = size // encoder.plan.stride(layer)
        x = torch.rand(1, weight.shape[1], side, side).to(dtype)
        y = torch.rand(1, weight.shape[0], side, side).to(dtype)
        channels_last = torch.channels_last
        jobs.append(
            (
                x.contiguous(memory_format=channels_last),
                y.contiguous(memory_format=channels_last),
                weight,
                bias,
            )
        )

    def run() -> None:
        for x, y, weight, bias in jobs:
            F.conv2d(x, weight, bias, padding=1)
            torch.ops.aten.convolution_backward(
                y, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
            )

    return run


def seconds(run: Callable[[], None]) -> float:
    """How long one call takes, s."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def peak_memory(arguments: list[str]) -> int:
    """Peak memory of a process that only takes steps, MiB."""
    code = [sys.executable, __file__, "--peak", *arguments]
    return int(subprocess.run(code, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plan", default="vgg19", help="vgg19, vgg16 or slim")
    parser.add_argument("--size", type=int, default=512, help="side of the picture, px")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="only this one")
    parser.add_argument("--padding", choices=["zero", "replicate", "reflect"], default="zero")
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    keep_memory()
    native = choose_dtype(torch.device("cpu"), "auto")
    dtypes = list(dict.fromkeys([torch.float32, native]))
    if given.dtype:
        dtypes = [getattr(torch, given.dtype)]
    if given.peak:
        run = step(given.plan, given.size, dtypes[0], given.padding)
        for _ in range(3):
            run()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return

    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}; {given.plan} to relu5_1 at {given.size} px, "
        f"{given.padding} padding; medians of {given.runs}"
    )
    for dtype in dtypes:
        ours = step(given.plan, given.size, dtype, given.padding)
        bare = convolutions(given.plan, given.size, dtype)
        ours()
        bare()
        pairs = [(seconds(ours), seconds(bare)) for _ in range(given.runs)]
        a = statistics.median(pair[0] for pair in pairs)
        b = statistics.median(pair[1] for pair in pairs)
        ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
        name = str(dtype).removeprefix("torch.")
        arguments = f"--plan {given.plan} --size {given.size} --dtype {name}".split()
        memory = peak_memory([*arguments, "--padding", given.padding])
        print(
            f"{name:9} step {a:.3f} s, bare convolutions {b:.3f} s, ratio {ratio:.2f}, "
            f"peak memory {memory} MiB"
        )


if __name__ == "__main__":
    main()
