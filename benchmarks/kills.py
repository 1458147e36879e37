"""Kills a GAN's training at random instants, goes on each time, and compares what is left.

    python benchmarks/kills.py [--kills 20] [--seed 0] [--folder KEPT]

A small GAN (32 px, one thread, float32) is trained through the command line on pictures that are
drawn here: once in peace, and once with SIGKILLs, each followed by --resume. There are three kinds
of kills, in random order but for the first; the `seed` fixes the kinds and the shares below, and
the clock does the rest:

- *reading*: while pictures are decoded, which only happens before the cache is made;
- *write*: from a random instant on, as soon as a file is being written in the run's folder;
- *any*: at a random share of the process's expected life: its start, the pictures that are its fair
  share of what is to do, and a snapshot. It comes where it comes: while torch is being imported,
  while a checkpoint is read, most often in steps or snapshots.

A process is stopped (SIGSTOP), looked at, and then killed. After each kill:

- every checkpoint in the folder can be loaded, and the newest is no older than the one before;
- the work that is lost, from the newest checkpoint to the last line of the log, is no more than
  what lies between two snapshots;
- the killed process had gone on from the newest checkpoint: a trainer cuts its log back to where it
  begins, and the lines that it writes anew have other times, so all lines up to that checkpoint
  must be there to the letter.

At the end, beside the run in peace: the tensors of the newest and of the best checkpoint bit by
bit; the log but for the times; the scores and every other file byte by byte; and no temporary file
left in the run's folder or in the cache.
"""

import argparse
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from impasto.checkpoints import checkpoints, load_checkpoint
from impasto.errors import ImpastoError, RunError
from impasto.files import lock

BATCH: Final = 16
LINE: Final = 10 * BATCH
"""Pictures from one line of the log to the next."""

EVERY: Final = 80 * LINE
IMAGES: Final = 4 * EVERY
OPTIONS: Final = (
    *("--arch", "dcgan", "--size", "32", "--batch", str(BATCH), "--width", "8", "--latent", "16"),
    *("--images", str(IMAGES), "--snapshot-every", str(EVERY)),
    *("--device", "cpu", "--precision", "float32", "--threads", "1"),
)
PATIENCE: Final = 900.0
"""After so long a process hangs, s."""

Kind = Literal["reading", "write", "any"]


class TroubleError(Exception):
    """A process ended as it should not, or not at all."""


@dataclass(frozen=True)
class Pace:
    """How long the run in peace took, s.

    Attributes:
        start: until it began to read.
        reading: from there until all was read.
        total: all of it.
        snapshot: the longest snapshot, which is the first: it looks at the real pictures too.
    """

    start: float
    reading: float
    total: float
    snapshot: float

    def life(self, seen: int, kills: int) -> float:
        """What a process that goes on from `seen` can expect, with so many kills yet to come."""
        left = (self.total - self.start - self.reading) * (1 - seen / IMAGES)
        fair = min(1.6 * (left / (kills + 1) + self.snapshot), 0.9 * left)
        return self.start + fair


@dataclass(frozen=True)
class Kill:
    """What a kill met.

    Attributes:
        kind: of kill.
        after: how long the process had lived, s.
        phase: what it was doing.
        logged: pictures in the last line of the log.
        seen: those of the newest checkpoint that can be loaded; -1 for none.
        lost: those that this process had learnt from and the next one learns from again.
        checkpoints: how many there are.
        troubles: what should not be.
    """

    kind: Kind
    after: float
    phase: str
    logged: int
    seen: int
    lost: int
    checkpoints: int
    troubles: tuple[str, ...]


def _held(path: Path) -> bool:
    """Whether a process holds the lock on a path."""
    try:
        with lock(path):
            return False
    except ImpastoError:
        return True


class Run:
    """A run's folder, and the processes that train in it."""

    def __init__(self, home: Path, name: str, pictures: Path) -> None:
        self.folder, self.cache = home / name, home / f"{name}-cache"
        self._pictures, self._told = pictures, home / f"{name}.txt"

    def start(self) -> subprocess.Popen[bytes]:
        """A process that trains from the beginning or, if there is a checkpoint, goes on."""
        command = [sys.executable, "-m", "impasto", "gan", "train", str(self._pictures)]
        command += ["-o", str(self.folder), "--cache", str(self.cache), *OPTIONS]
        if checkpoints(self.folder):
            command.append("--resume")
        with self._told.open("wb") as file:
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)

    def log(self) -> list[str]:
        """The whole lines of the log."""
        path = self.folder / "log.jsonl"
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        return [line for line in lines if line.endswith("\n")]

    def has_read(self) -> bool:
        """Whether its cache is made."""
        return any(path.parent.suffix != ".part" for path in self.cache.glob("*/meta.json"))

    def temporary(self) -> set[Path]:
        """Files in the making, or left so."""
        return {*self.folder.rglob(".impasto-*"), *self.cache.rglob(".impasto-*")}

    def states(self) -> tuple[list[Any], list[str]]:
        """What the checkpoints hold, the newest last; and what is wrong with others."""
        whole, wrong = [], []
        for path in checkpoints(self.folder):
            try:
                whole.append(load_checkpoint(path))
            except RunError as error:
                wrong.append(str(error))
        return whole, wrong

    def phase(self, temporary: set[Path], log: list[str]) -> str:
        """What the process, which is stopped, is doing; the arguments are what it had found."""
        writing = sorted(path.suffix for path in self.temporary() - temporary)
        if writing:
            return f"writing a {writing[0]}"
        if any(_held(path.with_suffix("")) for path in self.cache.glob("*.lock")):
            return "reading"
        if not self.folder.exists() or not _held(self.folder / "run"):
            return "starting"
        seen = max((int(path.stem.split("-")[1]) for path in checkpoints(self.folder)), default=0)
        drawn = (self.folder / "snapshots" / f"{seen:012}-grid.png").exists()
        scores = self.folder / "scores.jsonl"
        scored = not seen or (scores.exists() and f'"images": {seen},' in scores.read_text("utf-8"))
        if not (drawn and scored):
            return "snapshot"
        return "training" if {*self.log()} - {*log} else "beginning"

    def fail(self, process: subprocess.Popen[bytes], why: str) -> TroubleError:
        """An error with what the process told last; the process is gone."""
        process.kill()
        process.wait()
        told = self._told.read_text("utf-8", errors="replace").splitlines()
        return TroubleError("\n".join([why, *told[-5:]]))


# --- The two runs ---------------------------------------------------------------------------------


def in_peace(run: Run) -> Pace:
    """Trains without a kill; gives how long that took."""
    begin = time.monotonic()
    process = run.start()
    times: dict[str, float] = {}
    while process.poll() is None:
        now = time.monotonic() - begin
        if run.cache.exists():
            times.setdefault("start", now)
        if run.has_read():
            times.setdefault("read", now)
        if time.monotonic() - begin > PATIENCE:
            raise run.fail(process, "the run in peace does not end")
        time.sleep(0.05)
    if process.returncode:
        raise run.fail(process, f"the run in peace ended with {process.returncode}")
    total = time.monotonic() - begin
    seconds = {json.loads(line)["images"]: json.loads(line)["seconds"] for line in run.log()}
    line = statistics.median(b - a for a, b in zip(seconds.values(), [*seconds.values()][1:]))  # noqa: B905
    gaps = [seconds[seen + LINE] - seconds[seen] - line for seen in range(EVERY, IMAGES, EVERY)]
    return Pace(times["start"], times["read"] - times["start"], total, max(gaps))


def kinds_of(kills: int, rng: random.Random) -> list[Kind]:
    """The kinds of so many kills: a tenth while reading, a quarter in writes, at least one each."""
    reading, writes = max(1, kills // 10), max(1, kills // 4)
    others: list[Kind] = ["write"] * writes
    others += ["any"] * (kills - reading - writes)
    rng.shuffle(others)
    first: list[Kind] = ["reading"] * reading
    return [*first, *others][:kills]


def kill_once(run: Run, kind: Kind, pace: Pace, left: int, rng: random.Random) -> Kill | None:
    """Starts a process and kills it; None if it ended before."""
    states, _ = run.states()
    seen = states[-1]["seen"] if states else -1
    log = run.log()
    before = run.temporary()
    delay = rng.random() * pace.life(max(0, seen), left)
    if kind == "reading":
        delay = pace.start + rng.random() * pace.reading
    begin = time.monotonic()
    process = run.start()
    while process.poll() is None:
        after = time.monotonic() - begin
        if after > PATIENCE:
            raise run.fail(process, "a process does not end")
        if after >= delay and (kind != "write" or run.temporary() - before):
            break
        time.sleep(0.0002 if kind == "write" and after >= delay else 0.005)
    else:
        if process.returncode:
            raise run.fail(process, f"a process ended with {process.returncode}")
        return None
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    phase = run.phase(before, log)
    process.kill()
    if process.wait() != -signal.SIGKILL:
        return None  # it had just ended
    return look(run, kind, after, phase, seen, log)


def look(run: Run, kind: Kind, after: float, phase: str, before: int, earlier: list[str]) -> Kill:
    """What a kill has left; `before` and `earlier` are where the process began, and its log."""
    states, troubles = run.states()
    seen = states[-1]["seen"] if states else -1
    log = run.log()
    logged = _seen(log[-1]) if log else 0
    lost = logged - max(0, seen) if log != earlier else 0  # nothing learnt, nothing lost
    kept = [line for line in earlier if _seen(line) <= before]
    if before >= 0 and not states:
        troubles.append("no checkpoint can be loaded")
    if seen < before:
        troubles.append(f"the newest checkpoint is of {seen} and was of {before}")
    if lost > EVERY:
        troubles.append(f"{lost} pictures are lost, more than lie between snapshots")
    if log[: len(kept)] != kept:
        troubles.append(f"it had not gone on from {before}: the log before that has changed")
    count = len(checkpoints(run.folder))
    return Kill(kind, after, phase, logged, seen, lost, count, tuple(troubles))


def _seen(line: str) -> int:
    """The pictures seen at a line of the log."""
    return int(json.loads(line)["images"])


def row(number: int | str, kill: Kill) -> str:
    """A line of the table."""
    where = "the start" if kill.seen < 0 else f"{kill.seen:,}"
    told = "; ".join(kill.troubles) or "-"
    return (
        f"{number:>4}  {kill.kind:8}{kill.after:7.1f}  {kill.phase:22}{kill.logged:>7,}"
        f"{where:>11}{kill.lost:>7,}{kill.checkpoints:>13}  {told}"
    )


# --- Comparison -----------------------------------------------------------------------------------


def tensors(tree: Any, name: str = "") -> dict[str, Tensor]:
    """The tensors of a state by path."""
    if isinstance(tree, Tensor):
        return {name: tree}
    if not isinstance(tree, dict | list | tuple):
        return {}
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {k: v for key, part in parts for k, v in tensors(part, f"{name}/{key}").items()}


def differences(one: Path, other: Path) -> list[str]:
    """In what two checkpoints differ, but for the time they took."""
    a, b = load_checkpoint(one), load_checkpoint(other)
    if a["seen"] != b["seen"]:
        return [f"it is of {b['seen']} pictures and not {a['seen']}"]
    ours, theirs = tensors(a["parts"]), tensors(b["parts"])
    if ours.keys() != theirs.keys():
        return ["other tensors"]
    names = [name for name in ours if not torch.equal(*_bits(ours[name], theirs[name]))]
    return [f"{len(names)} of {len(ours)} tensors, {names[0]} first"] if names else []


def _bits(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Two tensors as bytes, so that -0 is not 0 and NaN is NaN."""
    first, second = (x.contiguous().reshape(-1).view(torch.uint8) for x in (one, other))
    return first, second


def compare(peace: Run, killed: Run) -> list[tuple[str, str]]:
    """What was compared at the end, each with what is wrong; nothing if all is well."""
    names = sorted(_files(peace) | _files(killed))
    missing = [name for name in names if name not in _files(killed)]
    both = sorted(_files(peace) & _files(killed))
    more = [f"{name} should not be there" for name in names if name not in _files(peace)]
    weights = [name for name in both if name.endswith(".safetensors")]
    found = [
        ("the same files", "; ".join([f"{name} is missing" for name in missing] + more)),
        *(
            (name, "; ".join(differences(peace.folder / name, killed.folder / name)))
            for name in weights
        ),
        ("log.jsonl but for times", "" if _losses(peace) == _losses(killed) else "it differs"),
    ]
    others = [name for name in both if name not in weights and name != "log.jsonl"]
    unlike = [
        name
        for name in others
        if (peace.folder / name).read_bytes() != (killed.folder / name).read_bytes()
    ]
    if "scores.jsonl" in others:
        found.append(("scores.jsonl", "it differs" if "scores.jsonl" in unlike else ""))
        others.remove("scores.jsonl")
    unlike = [name for name in unlike if name != "scores.jsonl"]
    found.append((f"{len(others)} other files", "; ".join(f"{name} differs" for name in unlike)))
    litter = [*killed.folder.rglob(".impasto-*"), *killed.cache.rglob(".impasto-*")]
    litter += killed.cache.glob("*.part")
    told = [f"{path.relative_to(killed.folder.parent)}" for path in sorted(litter)]
    return [*found, ("no temporary files are left", ", ".join(told))]


def _files(run: Run) -> set[str]:
    """What is in a run's folder, but for temporary files."""
    paths = (path for path in run.folder.rglob("*") if path.is_file())
    return {str(path.relative_to(run.folder)) for path in paths if path.name[0] != "."}


def _losses(run: Run) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in run.log()]
    return [{name: line[name] for name in line if name != "seconds"} for line in lines]


# --- The program ----------------------------------------------------------------------------------


def draw(folder: Path, count: int = 60, side: int = 1600) -> Path:
    """Pictures of soft colours, no two alike, large enough for reading to take a while."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        colours = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(colours).resize((side, side), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:03}.jpg", quality=90)
    return folder


def trial(home: Path, kills: int, seed: int) -> bool:
    """Both runs and their comparison, printed; gives whether all is well."""
    begin = time.monotonic()
    pictures = draw(home / "pictures")
    peace, killed = Run(home, "peace", pictures), Run(home, "killed", pictures)
    pace = in_peace(peace)
    print(
        f"in peace: {IMAGES:,} pictures, a snapshot every {EVERY:,}, in {pace.total:.0f} s "
        f"(start {pace.start:.1f} s, reading {pace.reading:.1f} s, a snapshot up to "
        f"{pace.snapshot:.1f} s)\n\n"
        "kill  kind      after  phase                  logged  goes on at   lost  checkpoints  "
        "wrong",
        flush=True,
    )
    rng = random.Random(seed)
    done: list[Kill] = []
    for number, kind in enumerate(kinds_of(kills, rng), 1):
        kill = kill_once(killed, kind, pace, kills - number, rng)
        if kill is None:
            break
        done.append(kill)
        print(row(number, kill), flush=True)
    last = killed.start()
    if last.wait(PATIENCE):
        raise killed.fail(last, f"the last process ended with {last.returncode}")
    phases: dict[str, int] = {}
    for kill in done:
        phases[kill.phase] = phases.get(kill.phase, 0) + 1
    print("\nphases: " + ", ".join(f"{name} {count}" for name, count in sorted(phases.items())))
    checks = compare(peace, killed)
    for name, wrong in checks:
        print(f"{'BAD ' if wrong else 'good'}  {name}{': ' + wrong if wrong else ''}")
    well = not any(wrong for _, wrong in checks) and not any(kill.troubles for kill in done)
    if len(done) < kills:
        print(f"BAD   the run ended after {len(done)} of {kills} kills; try another --seed")
        well = False
    print(
        f"\nverdict: {'nothing is lost' if well else 'SOMETHING IS WRONG'} after {len(done)} kills "
        f"({time.monotonic() - begin:.0f} s in all)"
    )
    return well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the kinds and instants of kills")
    parser.add_argument("--folder", type=Path, help="a new folder, kept; else a temporary one")
    given = parser.parse_args()
    if os.name != "posix":
        sys.exit("this needs SIGSTOP and SIGKILL")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}; {' '.join(sys.argv)}",
        flush=True,
    )
    try:
        if given.folder:
            sys.exit(not trial(given.folder, given.kills, given.seed))
        with tempfile.TemporaryDirectory() as name:
            sys.exit(not trial(Path(name), given.kills, given.seed))
    except TroubleError as error:
        sys.exit(f"verdict: SOMETHING IS WRONG: {error}")


if __name__ == "__main__":
    main()
