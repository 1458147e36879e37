"""Training a GAN in two processes: the steps of one, one writer, and clear words when one dies."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import test_gan_train as gan
from impasto.checkpoints import checkpoints, load_checkpoint, save_checkpoint
from impasto.errors import RunError
from impasto.gan.pictures import Pictures
from impasto.gan.run import GanProgress, train_gan
from impasto.gan.settings import ScoreSettings, make_gan_settings
from impasto.gan.style_recipe import make_recipe
from impasto.parallel import ALONE, World, join, synchronise_norms
from impasto.seeds import derive_seed
from impasto.trainer import Length, Moment

pytestmark = pytest.mark.skipif(os.name != "posix", reason="torchrun and signals of POSIX")

CPU = torch.device("cpu")
STEPS = 20
SETUPS: dict[str, dict[str, Any]] = {
    "bce": {},
    "augmented": {"augment": ("color", "translation", "cutout"), "ema": 40},
    "wgan-gp": {"loss": "wgan-gp"},
    "hinge": {"loss": "hinge"},
    "relativistic": {"loss": "relativistic"},
    "one picture each": {"batch": 2},
    "style": {
        "arch": "style",
        "batch": 16,
        "channels": (8, 6, 4, 4),
        "mapping": 2,
        "ema": 40,
        "penalty_every": 2,
        "gamma": (1.0, 0.1),
        "augment": ("color", "translation", "cutout"),
        "width": None,
        "images": 320,
    },
}
GONE = (
    "another process of this run has ended; its own message says why. "
    "Start them all again with --resume"
)


# --- What both processes do -----------------------------------------------------------------------


def trace(
    pictures: Pictures,
    world: World,
    options: dict[str, Any],
    weights: torch.dtype = torch.float64,
    dtype: torch.dtype = torch.float64,
) -> tuple[list[list[float]], dict[str, Any]]:
    """The losses of every step, and what is left after the last."""
    given = {**gan.TINY, **options}
    settings = make_gan_settings({name: given[name] for name in given if given[name] is not None})
    recipe = make_recipe(settings, pictures, CPU, world, weights)
    length = Length(settings.images, settings.batch, 80, 80)
    losses = []
    for step in range(STEPS):
        seen = step * settings.batch
        torch.manual_seed(derive_seed(settings.seed, "step", seen))
        metrics = recipe.step(Moment(seen, length, CPU, dtype, world))
        names = ("discriminator", "generator", "penalty")
        found = [torch.as_tensor(metrics[name]).item() for name in names if name in metrics]
        losses.append(world.mean(found))
        assert all(torch.as_tensor(value).isfinite() for value in metrics.values())
    return losses, {name: part.state_dict() for name, part in recipe.parts.items()}


def twice_differentiated(world: World) -> dict[str, Tensor]:
    """The gradient of a penalty on gradients, through a batch norm: by its weights and pictures."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh()).double()
    x = world.rows(torch.randn(6, 3, 5, 5, dtype=torch.float64)).requires_grad_()
    net = nn.Sequential(*synchronise_norms(net, world).children())
    (slope,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    slope.square().sum().backward()  # type: ignore[no-untyped-call]
    world.mean_gradients(net.parameters())
    assert x.grad is not None
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {"x": x.grad, **gradients}


def halved(world: World) -> dict[str, Tensor]:
    """What a batch norm makes of bfloat16, some of it far from 0, and its statistics."""
    torch.manual_seed(0)
    (norm,) = synchronise_norms(nn.Sequential(nn.BatchNorm2d(3)), world).children()
    x = torch.randn(64, 3, 8, 8) + torch.tensor([0.0, 1.0, 10.0]).view(1, 3, 1, 1)
    found = {"y": norm(world.rows(x).bfloat16()).detach()}
    return {**found, **norm.state_dict()}


@contextmanager
def written(folder: Path) -> Iterator[list[str]]:
    """What this process opens to write, makes, moves or removes in a folder."""
    found: list[str] = []
    watching = True

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if not watching or event not in ("open", "os.mkdir", "os.rename", "os.remove"):
            return
        reads = event == "open" and not values[2] & (os.O_WRONLY | os.O_RDWR)
        if not reads and str(values[0]).startswith(str(folder)):
            found.append(f"{event} {values[0]}")

    sys.addaudithook(hook)
    yield found
    watching = False


def train(
    pictures: Pictures,
    folder: Path,
    world: World,
    scoring: ScoreSettings | None = None,
    **options: Any,
) -> tuple[list[GanProgress], list[str]]:
    """A run that only the first process knows the folder of; what is told, and what is written."""
    settings = make_gan_settings({**gan.TINY, **options})
    home = folder if world.first else folder / "nobody" / "run"
    with written(folder) as files:
        loop = train_gan(pictures, settings, home, world=world, resume=True, scoring=scoring)
        return list(loop), files


def spoilt(batch: Callable[..., Tensor], call: int) -> Callable[..., Tensor]:
    """`Pictures.batch` whose pictures of one call are not numbers."""
    calls = 0

    def wrapped(*values: Any, **options: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return batch(*values, **options) * (torch.nan if calls == call else 1.0)

    return wrapped


def work(paintings: Path, out: Path) -> None:
    """All that is looked at here of two processes without a death; each writes what it found."""
    pictures = gan.prepared(paintings, out.parent / "cache", crop="random")
    batch = Pictures.batch
    asked: list[list[int]] = []

    def noted(self: Pictures, indices: Tensor, **options: Any) -> Tensor:
        asked.append(indices.tolist())
        return batch(self, indices, **options)

    with join(CPU) as world:
        found: dict[str, Any] = {"traces": {}}
        left: dict[str, Any] = {}
        for name, options in SETUPS.items():
            found["traces"][name], left[name] = trace(pictures, world, options)
        Pictures.batch = noted  # type: ignore[method-assign]
        found["mixed"], _ = trace(pictures, world, {}, torch.float32, torch.bfloat16)
        found["asked"] = asked
        Pictures.batch = batch  # type: ignore[method-assign]
        left["twice"], left["halved"] = twice_differentiated(world), halved(world)

        reports, files = train(pictures, out / "whole", world, gan.QUICK)
        found["whole"] = [[report.seen, *report.notes] for report in reports]
        found["files"] = files
        train(pictures, out / "parts", world, images=80)
        train(pictures, out / "parts", world)

        if not world.first:
            Pictures.batch = spoilt(batch, 5)  # type: ignore[method-assign]
        reports, _ = train(pictures, out / "spoilt", world, images=80)
        found["spoilt"] = [note for report in reports for note in report.notes]
        Pictures.batch = batch  # type: ignore[method-assign]

        # The second leaves without a word while the first is in a backward pass.
        save_checkpoint(out / f"left-{world.rank}", left)
        (out / f"found-{world.rank}.json").write_text(json.dumps(found))
        norm = synchronise_norms(nn.Sequential(nn.BatchNorm2d(3)), world)
        y = norm(torch.rand(2, 3, 4, 4, requires_grad=True))
        world.agree(True)
        if not world.first:
            os._exit(0)
        told = "nothing"
        try:
            y.square().sum().backward()
        except (RunError, RuntimeError) as error:
            told = f"{type(error).__name__}: {error}"
        (out / "gone").write_text(told)
        group = weakref.ref(dist.group.WORLD)
    gc.collect()
    (out / "left").write_text("" if group() is None else "the group")


WORKER = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
import torch
torch.set_num_threads(1)
import test_gan_parallel as t
t.work(Path(sys.argv[2]), Path(sys.argv[3]))
"""


def torchrun(logs: Path, *program: object) -> subprocess.Popen[str]:
    """Two processes; what they say goes to files."""
    options = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    options += ["--redirects", "3", "--log-dir", str(logs)]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, *map(str, program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def said(logs: Path, rank: int) -> str:
    """What a process has said on standard error."""
    (path,) = logs.glob(f"*/attempt_0/{rank}/stderr.log")
    return path.read_text()


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gan.draw_paintings(tmp_path_factory.mktemp("parallel") / "paintings", 36)


@pytest.fixture(scope="module")
def both(paintings: Path) -> tuple[Path, list[dict[str, Any]]]:
    """What two processes have left and found."""
    out = paintings.parent / "both"
    out.mkdir()
    (out / "worker.py").write_text(WORKER)
    run = torchrun(out / "logs", out / "worker.py", Path(__file__).parent, paintings, out)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors + said(out / "logs", 0) + said(out / "logs", 1)
    return out, [json.loads((out / f"found-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def pictures(paintings: Path) -> Pictures:
    return gan.prepared(paintings, paintings.parent / "cache", crop="random")


# --- Two do what one does -------------------------------------------------------------------------

Both = tuple[Path, list[dict[str, Any]]]


@pytest.mark.parametrize("name", SETUPS)
def test_two_processes_take_the_steps_of_one(both: Both, pictures: Pictures, name: str) -> None:
    out, found = both
    expected, left = trace(pictures, ALONE, SETUPS[name])
    assert len(expected) == STEPS
    assert found[0]["traces"][name] == found[1]["traces"][name]
    for here, there in zip(expected, found[0]["traces"][name], strict=True):
        assert there == pytest.approx(here, abs=1e-4)
    first, second = (load_checkpoint(out / f"left-{rank}")[name] for rank in (0, 1))
    alone, one, other = gan.flat(left), gan.flat(first), gan.flat(second)
    assert alone.keys() == one.keys() == other.keys()
    for part, tensor in one.items():
        assert torch.equal(tensor, other[part]), part
        torch.testing.assert_close(tensor, alone[part], rtol=1e-4, atol=1e-6)


def test_in_mixed_precision_too(both: Both, pictures: Pictures) -> None:
    expected, _ = trace(pictures, ALONE, {}, torch.float32, torch.bfloat16)
    for here, there in zip(expected, both[1][0]["mixed"], strict=True):
        assert there == pytest.approx(here, abs=0.05)


def test_a_shared_batch_norm_is_differentiable_twice(both: Both) -> None:
    alone = twice_differentiated(ALONE)
    one, other = (load_checkpoint(both[0] / f"left-{rank}")["twice"] for rank in (0, 1))
    torch.testing.assert_close(torch.cat((one.pop("x"), other.pop("x"))), alone.pop("x"))
    for name, gradient in alone.items():
        torch.testing.assert_close(one[name] * 2, gradient)  # a mean there, of a sum over pictures
        torch.testing.assert_close(other[name], one[name])


def test_a_shared_batch_norm_sums_in_float32(both: Both) -> None:
    alone = halved(ALONE)
    one, other = (load_checkpoint(both[0] / f"left-{rank}")["halved"] for rank in (0, 1))
    assert one["y"].dtype == torch.bfloat16
    y = torch.cat((one.pop("y"), other.pop("y")))
    torch.testing.assert_close(y, alone.pop("y"), rtol=0.01, atol=0.01)
    for name, statistic in alone.items():
        torch.testing.assert_close(one[name], statistic, rtol=1e-5, atol=1e-6)
        assert torch.equal(one[name], other[name])


def test_no_picture_is_seen_twice_in_a_pass(both: Both, pictures: Pictures) -> None:
    one, other = (found["asked"] for found in both[1])
    assert {len(part) for part in one + other} == {4}
    order = [index for parts in zip(one, other, strict=True) for part in parts for index in part]
    count = len(pictures.train)
    assert count % gan.TINY["batch"]  # a pass ends within a batch
    passes = [order[start : start + count] for start in range(0, len(order) - count + 1, count)]
    assert len(passes) >= 3
    for seen in passes:
        assert sorted(seen) == list(range(count))


def test_a_run_of_two_processes_goes_on_as_if_it_had_not_stopped(both: Both) -> None:
    out, found = both
    assert [report[0] for report in found[0]["whole"]] == [0, 80, 160]
    assert found[0]["whole"] == found[1]["whole"]
    gan.assert_same(out / "whole", out / "parts")


def test_only_the_first_process_writes(both: Both) -> None:
    out, found = both
    assert found[1]["files"] == []
    assert not (out / "whole" / "nobody").exists()
    for name in ("log.jsonl", ".safetensors", ".png", "scores.jsonl"):
        assert any(f"{out}/whole" in line for line in found[0]["files"]), name


def test_all_go_back_if_a_loss_is_not_finite_in_one(both: Both) -> None:
    out, found = both
    notes = [[note for note in one["spoilt"] if "warning" not in note] for one in found]
    assert notes[0] == notes[1]
    assert notes[0] == ["discriminator is nan after 80 pictures: back to the last checkpoint"]
    assert gan.state(out / "spoilt")["seen"] == 80
    assert gan.state(out / "spoilt")["parts"]["pace"] == {"scale": 0.5}


def test_a_batch_that_cannot_be_shared_is_refused(pictures: Pictures, tmp_path: Path) -> None:
    settings = make_gan_settings({**gan.TINY, "batch": 9})
    wanted = "9 pictures cannot be shared by 2 processes; choose a --batch that can"
    for rank in (0, 1):
        loop = train_gan(pictures, settings, tmp_path / "run", world=World(rank, 2))
        with pytest.raises(RunError) as caught:
            next(iter(loop))
        assert str(caught.value) == wanted
    assert not (tmp_path / "run").exists()


# --- Deaths ---------------------------------------------------------------------------------------

PROGRAM = """
import os, sys
from pathlib import Path
Path(sys.argv.pop(1), "pid-" + os.environ.get("RANK", "alone")).write_text(str(os.getpid()))
from impasto.gan.run import train_gan
train_gan.__kwdefaults__["scoring"] = None
from impasto.cli import main
main()
"""
OPTIONS = [
    *(
        "--arch",
        "dcgan",
        "--size",
        "32",
        "--width",
        "4",
        "--latent",
        "8",
        "--batch",
        "8",
        "--threads",
        "1",
    ),
    *("--device", "cpu", "--precision", "float32", "--snapshot-every", "80"),
]


def seen(run: Path) -> int:
    """What the newest checkpoint has seen; -1 if there is none."""
    found = checkpoints(run)
    return int(found[-1].stem.removeprefix("checkpoint-")) if found else -1


@contextmanager
def training(paintings: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Two processes that train without end, once their second checkpoint is there."""
    (folder / "program.py").write_text(PROGRAM)
    command = ["gan", "train", str(paintings), "-o", str(folder / "run")]
    command += ["--cache", str(paintings.parent / "squares"), *OPTIONS]
    program = [str(folder / "program.py"), str(folder), *command]
    launcher = torchrun(folder / "logs", *program, "--images", "10000000")
    deadline = time.monotonic() + 100
    try:
        while seen(folder / "run") < 80:
            assert launcher.poll() is None, launcher.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield launcher, [sys.executable, *program]
    finally:
        if launcher.poll() is None:
            launcher.terminate()  # and it ends the two
        launcher.communicate(timeout=60)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_dead_process_ends_the_run_which_can_go_on(
    paintings: Path, tmp_path: Path, rank: int
) -> None:
    with training(paintings, tmp_path) as (launcher, command):
        os.kill(int((tmp_path / f"pid-{rank}").read_text()), signal.SIGKILL)
        launcher.communicate(timeout=60)
        assert launcher.returncode != 0

    told = said(tmp_path / "logs", 1 - rank)
    assert [line for line in told.splitlines() if "impasto: " in line] == [f"impasto: {GONE}"]
    assert "Traceback" not in told
    assert "impasto: " not in said(tmp_path / "logs", rank)

    before = seen(tmp_path / "run")
    assert before >= 80
    more = [*command, "--resume", "--images", str(before + 8)]
    done = subprocess.run(more, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert gan.state(tmp_path / "run")["seen"] == before + 8


def test_stopping_the_launcher_saves(paintings: Path, tmp_path: Path) -> None:
    with training(paintings, tmp_path) as (launcher, _):
        launcher.send_signal(signal.SIGTERM)
        launcher.communicate(timeout=60)
    stopped = seen(tmp_path / "run")
    wanted = f"stopped after {stopped} pictures; --resume goes on"
    assert wanted in said(tmp_path / "logs", 0).splitlines()
    assert "stopped" not in said(tmp_path / "logs", 1)
    assert gan.state(tmp_path / "run")["seen"] == stopped


def test_who_is_left_alone_in_a_backward_pass_is_told(both: Both) -> None:
    assert (both[0] / "gone").read_text() == f"RunError: {GONE}"


def test_nothing_of_the_group_is_left_to_crash_the_end_of_the_program(both: Both) -> None:
    assert (both[0] / "left").read_text() == ""
