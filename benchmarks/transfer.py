"""`impasto transfer` as it comes, as a whole process: time, first preview, peak memory.

The ratio compares the seconds with the budget of 60 s on two cores that the defaults have to keep.
With --precisions it paints in float32 and in bfloat16 instead and compares the final losses, both
evaluated in float32: bfloat16 is only worth its speed while they agree to 1 %.

With --together two of them share the cores, with threads that wait as the program lets them, and as
OpenMP does by itself; the ratios are over the seconds of one alone.

    python benchmarks/transfer.py [--size 512] [--runs 3] [--precisions | --together]
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUDGET = 60.0
"""Seconds on two cores at 512 px."""

OPENMP_SPINS = "300000"
"""What GNU's OpenMP takes where nothing is said, GOMP_SPINCOUNT in its manual."""


def once(size: int, folder: Path) -> tuple[float, float]:
    """Seconds of one run, and until its first preview."""
    preview = folder / "preview.png"
    preview.unlink(missing_ok=True)
    command = [
        *(sys.executable, "-m", "impasto", "transfer", "sample:astronaut", "sample:strokes"),
        *("-o", str(folder / "out.png"), "--size", str(size), "--preview", str(preview), "-q"),
    ]
    begin = time.perf_counter()
    process = subprocess.Popen(command)
    first = None
    while process.poll() is None:
        if first is None and preview.exists():
            first = time.perf_counter() - begin
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"impasto transfer ended with {process.returncode}")
    total = time.perf_counter() - begin
    return total, first if first is not None else total


def compare_precisions(size: int) -> None:
    """The final losses of float32 and bfloat16, both evaluated in float32, style by style."""
    import impasto
    from impasto.jobs.run import Bench
    from impasto.objectives import ContentTerm, Region, Styles, StyleTerm, make_objective
    from impasto.settings import TransferSettings

    settings = TransferSettings(size=size)
    judge = Bench(settings).judge
    photo = impasto.open_image("src/impasto/samples/astronaut.jpg").tensor()
    for path in sorted(Path("src/impasto/samples").glob("*.jpg")):
        if path.stem == "astronaut":
            continue
        keep, take = settings.weights
        style = Styles([impasto.open_image(path).tensor()], [1.0])
        objective = make_objective(
            judge,
            (size, size),
            content=ContentTerm(photo, settings.content_layers, keep),
            style=StyleTerm([Region(style)], settings.style_layers, take, (size, size)),
            settings=settings,
        )
        losses = []
        for precision in ("float32", "bfloat16"):
            result = impasto.transfer(photo, path, size=size, precision=precision)
            losses.append(sum(map(float, objective(result.image.tensor()).values())))
        ratio = losses[1] / losses[0]
        print(
            f"{path.stem:14} loss {losses[0]:.4f} in float32, {losses[1]:.4f} in bfloat16, "
            f"ratio {ratio:.4f}",
            flush=True,
        )


def compare_together(size: int, runs: int) -> None:
    """One alone and two at once, by the ways to wait."""
    ways = {"as the program waits": {}, "as OpenMP does": {"GOMP_SPINCOUNT": OPENMP_SPINS}}
    waits = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    inherited = {name: value for name, value in os.environ.items() if name not in waits}
    for name, variables in ways.items():
        medians = []
        for count in (1, 2):
            seconds = []
            for _ in range(runs):
                begin = time.perf_counter()
                command = [sys.executable, "-m", "impasto", "transfer", "sample:astronaut"]
                command += ["sample:strokes", "--size", str(size), "--steps", "30", "-q"]
                with tempfile.TemporaryDirectory() as folder:
                    started = [
                        subprocess.Popen(
                            [*command, "-o", f"{folder}/{i}.png"], env={**inherited, **variables}
                        )
                        for i in range(count)
                    ]
                    if any(process.wait() for process in started):
                        sys.exit("impasto transfer failed")
                seconds.append(time.perf_counter() - begin)
            medians.append(statistics.median(seconds))
        alone, two = medians
        print(
            f"{name}: {alone:.1f} s alone, {two:.1f} s for two at once ({two / alone:.2f}×)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=512, help="working size, px")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--precisions", action="store_true", help="compare the final losses")
    parser.add_argument("--together", action="store_true", help="two at once, by ways to wait")
    given = parser.parse_args()
    if given.together:
        compare_together(given.size, given.runs)
        return
    if given.precisions:
        compare_precisions(given.size)
        return
    with tempfile.TemporaryDirectory() as name:
        runs = [once(given.size, Path(name)) for _ in range(given.runs)]
    total = statistics.median(run[0] for run in runs)
    first = statistics.median(run[1] for run in runs)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(
        f"{platform.machine()}; medians of {given.runs} at {given.size} px: "
        f"{total:.1f} s ({total / BUDGET:.2f} of the budget of {BUDGET:.0f} s), "
        f"first preview after {first:.1f} s, peak memory {peak} MiB"
    )


if __name__ == "__main__":
    main()
