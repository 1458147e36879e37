"""The training loop: it counts, logs, saves, and goes on as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.average import Average
from impasto.checkpoints import checkpoints, load_checkpoint, newest, save_checkpoint, unpack
from impasto.errors import ImpastoError, RunError
from impasto.files import lock
from impasto.seeds import derive_seed
from impasto.shuffle import Shuffle
from impasto.trainer import Length, Moment, Part, Report, train

BATCH = 4


class Toy:
    """A small network with dropout and batch norm, trained with momentum: much that can be lost."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip
        self.net = self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.01)
        self.average = Average(self.net, half_life=10)
        self.shuffle = Shuffle(10, seed=3)
        self.pictures = torch.rand(10, 3, 8, 8)

    @property
    def parts(self) -> dict[str, Part]:
        return {"net": self.net, "optimizer": self.optimizer, "average": self.average}

    def step(self, at: Moment) -> dict[str, Tensor | float]:
        chosen = self.shuffle.indices(at.seen, BATCH)
        x = self.pictures[chosen] + 0.1 * torch.randn(BATCH, 3, 8, 8)
        with at.autocast():
            y = self.net(x)
        loss = F.cross_entropy(y.float(), chosen % 3)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            group["lr"] = 0.01 * (1 - at.done)
        self.optimizer.step()
        self.average.update(self.net, BATCH)
        return {"loss": loss, "done": at.done}


def length(steps: int = 20, log: int = 1, save: int = 1) -> Length:
    return Length(steps * BATCH, BATCH, log * BATCH, save * BATCH, seed=1)


def run(toy: Toy, folder: Path, how_long: Length, count: int = 999, **options: Any) -> list[Report]:
    """Trains until the end, or until as many reports as `count` have come after the first."""
    loop = train(toy.parts, toy.step, how_long, folder, config={"toy": 1}, **options)
    assert next(loop).metrics == {}
    reports = []
    for report in loop:
        reports.append(report)
        if len(reports) == count:
            break
    loop.close()
    return reports


def trace(folder: Path) -> list[dict[str, Any]]:
    """The log without its times."""
    lines = (folder / "log.jsonl").read_text("utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def weights(folder: Path) -> dict[str, Tensor]:
    parts = unpack(newest(folder)[0])["parts"]
    return {**parts["net"], **{f"average.{k}": v for k, v in parts["average"].items()}}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ten_steps_and_ten_more_are_twenty(tmp_path: Path, dtype: torch.dtype) -> None:
    run(Toy(), tmp_path / "whole", length(), dtype=dtype)
    run(Toy(), tmp_path / "halves", length(), count=10, dtype=dtype)
    assert len(trace(tmp_path / "halves")) == 10
    run(Toy(), tmp_path / "halves", length(), resume=True, dtype=dtype)
    assert trace(tmp_path / "whole") == trace(tmp_path / "halves")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "halves"))


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(1)
from test_trainer import Toy, length, run
import test_trainer
toy, steps = Toy(), 0
step = toy.step
def deadly(at):
    if at.seen == 13 * test_trainer.BATCH:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(at)
toy.step = deadly
run(toy, Path(sys.argv[1]), length(save=5))
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX only")
def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    code = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(Path(__file__).parent)]
    killed = subprocess.run(code, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(trace(tmp_path / "killed")) == 13  # further than the checkpoint at 10
    log = tmp_path / "killed" / "log.jsonl"
    log.write_text(log.read_text("utf-8") + '{"images": 56, "lo', "utf-8")  # cut off mid-line

    run(Toy(), tmp_path / "whole", length(save=5))
    resumed = run(Toy(), tmp_path / "killed", length(save=5), resume=True)
    assert resumed[0].seen == 11 * BATCH
    assert trace(tmp_path / "whole") == trace(tmp_path / "killed")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_logs_means_over_the_steps_between(tmp_path: Path) -> None:
    values = iter([1.0, 2.0, 6.0, 5.0, 7.0])

    def step(at: Moment) -> dict[str, float]:
        return {"value": next(values)}

    loop = train({}, step, Length(5, 1, 3, 99), tmp_path, config={})
    assert next(loop) == Report(0, 5, {}, 0.0, saved=True, regular=True)
    assert [(r.seen, r.metrics["value"]) for r in loop] == [(3, 3.0), (5, 6.0)]


def test_the_last_report_comes_when_all_is_saved(tmp_path: Path) -> None:
    toy = Toy()
    for report in train(toy.parts, toy.step, length(3, save=99), tmp_path, config={}):
        if report.seen == report.total:
            assert report.saved
            assert unpack(newest(tmp_path)[0])["seen"] == report.total
    assert run(toy, tmp_path / "b", length(3)) != []
    again = train(toy.parts, toy.step, length(3, save=99), tmp_path, config={}, resume=True)
    assert [(report.seen, report.metrics) for report in again] == [(12, {})]


def test_stopping_saves(tmp_path: Path) -> None:
    run(Toy(), tmp_path, length(save=99), count=3)
    assert unpack(newest(tmp_path)[0])["seen"] == 3 * BATCH


def test_stopping_between_two_lines_of_the_log_loses_nothing(tmp_path: Path) -> None:
    toy, steps = Toy(), iter(range(99))
    how_long = length(12, log=5, save=99)
    run(toy, tmp_path / "halves", how_long, stop=lambda: next(steps) >= 6)
    assert unpack(newest(tmp_path / "halves")[0])["seen"] == 7 * BATCH
    run(Toy(), tmp_path / "halves", how_long, resume=True)
    run(Toy(), tmp_path / "whole", how_long)
    assert trace(tmp_path / "whole") == trace(tmp_path / "halves")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "halves"))


def test_no_stop_saves_what_is_no_number(tmp_path: Path) -> None:
    toy, steps = Toy(), iter(range(99))

    def stop() -> bool:
        if next(steps) < 6:
            return False
        with torch.no_grad():
            next(toy.net.parameters())[0] = torch.nan
        return True

    reports = run(toy, tmp_path, length(12, log=5, save=5), stop=stop)
    assert reports[-1].seen == 5 * BATCH
    assert unpack(newest(tmp_path)[0])["seen"] == 5 * BATCH
    assert all(bool(tensor.isfinite().all()) for tensor in weights(tmp_path).values())


def test_the_time_for_reports_does_not_count(tmp_path: Path) -> None:
    toy, seconds = Toy(), []
    for report in train(toy.parts, toy.step, length(4), tmp_path, config={}):
        time.sleep(0.2)
        seconds.append(report.seconds)
    assert seconds[-1] < 0.4


def test_the_beginning_is_saved_and_the_last_two(tmp_path: Path) -> None:
    found = []
    for report in train(Toy().parts, Toy().step, length(4), tmp_path, config={}):
        found.append([int(path.stem[-12:]) // BATCH for path in checkpoints(tmp_path)])
        assert report.saved
    assert found == [[0], [0, 1], [1, 2], [2, 3], [3, 4]]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    run(Toy(), tmp_path / "whole", length(6))
    run(Toy(), tmp_path / "a", length(6), count=4)
    last = checkpoints(tmp_path / "a")[-1]
    last.write_bytes(last.read_bytes()[:-7])
    toy = Toy()
    loop = train(toy.parts, toy.step, length(6), tmp_path / "a", config={"toy": 1}, resume=True)
    first = next(loop)
    assert first.seen == 3 * BATCH
    assert f"{last} is damaged" in first.notes[0]
    list(loop)
    assert trace(tmp_path / "whole") == trace(tmp_path / "a")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "a"))
    for path in checkpoints(tmp_path / "a"):
        path.write_bytes(b"")
    with pytest.raises(RunError, match="every checkpoint in"):
        run(Toy(), tmp_path / "a", length(6), resume=True)


def test_a_full_disk_leaves_the_old_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(Toy(), tmp_path, length(9), count=3)
    before = {path: path.read_bytes() for path in checkpoints(tmp_path)}

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ImpastoError, match="the disk is full"):
        run(Toy(), tmp_path, length(9), resume=True)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in checkpoints(tmp_path)} == before
    assert len(run(Toy(), tmp_path, length(9), resume=True)) == 6


def test_goes_back_and_takes_smaller_steps_when_a_loss_is_not_finite(tmp_path: Path) -> None:
    toy = Toy()
    tamed: list[int] = []
    step = toy.step

    def wild(at: Moment) -> dict[str, Tensor | float]:
        metrics = step(at)
        if at.seen == 7 * BATCH and len(tamed) < 2:
            metrics["loss"] = torch.tensor(torch.nan)
        return metrics

    toy.step = wild  # type: ignore[method-assign]
    reports = run(toy, tmp_path / "wild", length(save=4), tame=tamed.append)
    assert tamed == [1, 2]
    notes = [note for report in reports for note in report.notes]
    assert notes == ["loss is nan after 32 pictures: back to the last checkpoint"] * 2
    run(Toy(), tmp_path / "calm", length(save=4))
    assert trace(tmp_path / "calm") == trace(tmp_path / "wild")
    assert same(weights(tmp_path / "calm"), weights(tmp_path / "wild"))


def test_gives_up_after_five_attempts(tmp_path: Path) -> None:
    tamed: list[int] = []
    loop = train(
        {}, lambda at: {"loss": torch.inf}, length(2), tmp_path, config={}, tame=tamed.append
    )
    with pytest.raises(RunError, match="loss is inf after 4 pictures"):
        list(loop)
    assert tamed == [1, 2, 3, 4, 5]


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    toy = Toy()
    step = toy.step

    def broken(at: Moment) -> dict[str, Tensor | float]:
        metrics = step(at)
        if at.seen == 2 * BATCH:
            with torch.no_grad():
                next(toy.net.parameters()).fill_(torch.inf)
        return metrics

    toy.step = broken  # type: ignore[method-assign]
    with pytest.raises(RunError, match="a number in the net is not finite after 12 pictures"):
        run(toy, tmp_path, length(9))
    assert unpack(newest(tmp_path)[0])["seen"] == 2 * BATCH


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    run(Toy(), tmp_path / "a", length(2))
    run(Toy(), tmp_path / "b", Length(2 * BATCH, BATCH, BATCH, BATCH, seed=2))
    assert trace(tmp_path / "a") != trace(tmp_path / "b")


def test_refuses_to_write_over_a_run(tmp_path: Path) -> None:
    run(Toy(), tmp_path, length(2))
    with pytest.raises(RunError, match="holds a run already; resume it"):
        run(Toy(), tmp_path, length(2))


def test_refuses_to_go_on_with_another_configuration(tmp_path: Path) -> None:
    run(Toy(), tmp_path, length(4), count=2)
    with pytest.raises(RunError, match=r"has total 16 and not 80"):
        run(Toy(), tmp_path, length(20), resume=True)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with lock(tmp_path / "run"), pytest.raises(ImpastoError, match="in use"):
        run(Toy(), tmp_path, length(2))


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    loop = train({}, lambda at: {"loss": torch.tensor(torch.nan)}, length(2), tmp_path, config={})
    next(loop)
    with pytest.raises(RunError, match="loss is nan after 4 pictures"):
        next(loop)
    assert unpack(newest(tmp_path)[0])["seen"] == 0


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImpastoError, match="cannot make the folder"):
        run(Toy(), tmp_path / "file" / "run", length(2))


def test_checkpoints_give_back_what_they_were_given(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    state: dict[str, Any] = {
        "numbers": [1, 2.5, None, True, "x", float("inf")],
        "pair": (0.9, 0.999),
        "state": {0: {"step": torch.tensor(3.0)}, 1: {}},
        "last": torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "turned": torch.arange(6).view(2, 3).T,
        "bytes": torch.tensor([1, 255], dtype=torch.uint8),
        "a": shared,
        "b": shared,
    }
    save_checkpoint(tmp_path / "c.safetensors", state)
    found = load_checkpoint(tmp_path / "c.safetensors")
    assert found.keys() == state.keys()
    for key in ("numbers", "pair"):
        assert found[key] == state[key]
    assert found["state"][0]["step"] == 3
    assert found["state"][1] == {}
    for key in ("last", "turned", "bytes", "a", "b"):
        assert torch.equal(found[key], state[key])
        assert found[key].dtype == state[key].dtype
    assert found["last"].is_contiguous(memory_format=torch.channels_last)


def test_a_checkpoint_holds_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot hold the object at /x/0"):
        save_checkpoint(tmp_path / "c", {"x": [object()]})


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_broken_checkpoint_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "c.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=r"c\.safetensors is no checkpoint"):
        load_checkpoint(path)


def test_a_pass_sees_every_picture_once() -> None:
    shuffle = Shuffle(10, seed=0)
    seen = torch.cat([shuffle.indices(k * 4, 4) for k in range(5)])
    for part in (seen[:10], seen[10:]):
        assert sorted(part.tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    assert torch.equal(Shuffle(10, seed=0).indices(8, 4), seen[8:12])
    many = Shuffle(2, seed=0).indices(2, 5000)  # a batch of thousands of passes
    assert many.bincount().tolist() == [2500, 2500]


def test_an_average_halves_the_old_in_its_half_life() -> None:
    module = nn.Linear(1, 1)
    nn.init.zeros_(module.weight)
    average = Average(module, half_life=100)
    nn.init.ones_(module.weight)
    average.update(module, 100)
    assert average.module.state_dict()["weight"].item() == pytest.approx(0.5)
    average.update(module, 50)
    assert average.module.state_dict()["weight"].item() == pytest.approx(1 - 0.5 * 0.5**0.5)


def test_seeds_follow_from_their_values() -> None:
    assert derive_seed(1, "step", 2) == derive_seed(1, "step", 2)
    assert len({derive_seed(1, 2), derive_seed(12), derive_seed(2, 1)}) == 3
    assert 0 <= derive_seed(0) < 2**63
