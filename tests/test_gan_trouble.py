"""What goes wrong while a GAN learns: full disks, two at once, no numbers, collapse, damage."""

from __future__ import annotations

import errno
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import test_gan_train as gan
from impasto.checkpoints import checkpoints, unpack
from impasto.errors import ImpastoError, RunError, WeightsError
from impasto.files import lock
from impasto.gan import recipe
from impasto.gan.generator import BEST, Generator, load_run
from impasto.gan.networks import GeneratorNet
from impasto.gan.pictures import Pictures
from impasto.gan.run import GanProgress, train_gan
from impasto.gan.settings import GanSettings, make_gan_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trouble")
    gan.draw_paintings(folder / "paintings", 40)
    return folder


@pytest.fixture(scope="module")
def paintings(folder: Path) -> Pictures:
    return gan.prepared(folder / "paintings", folder / "cache")


@pytest.fixture(scope="module")
def whole(paintings: Pictures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 160 pictures that nothing has happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    gan.run(paintings, folder, scoring=gan.QUICK)
    return folder


def content(run: Path) -> dict[str, object]:
    """All that a run has left, but for times."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.suffix == ".safetensors":
            tensors = gan.flat(unpack(path.read_bytes())["parts"])
            found[name] = {part: tensor.numpy().tobytes() for part, tensor in tensors.items()}
        elif path.name == "log.jsonl":
            lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            found[name] = [{**line, "seconds": 0} for line in lines]
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def notes(reports: list[GanProgress]) -> list[str]:
    """What was told, but for warnings of pictures that look alike, as fresh weights paint them."""
    return [note for report in reports for note in report.notes if "alike" not in note]


# --- Two at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--resume",)])
def test_a_second_process_is_refused_and_the_first_goes_on(
    folder: Path, paintings: Pictures, whole: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    loop = train_gan(paintings, make_gan_settings(gan.TINY), tmp_path / "run", scoring=gan.QUICK)
    assert next(loop).seen == 0
    program = [sys.executable, "-m", "impasto", "gan", "train", str(folder / "paintings")]
    program += ["-o", str(tmp_path / "run"), "--cache", str(folder / "squares")]
    program += ["--arch", "dcgan", "--size", "32", "--width", "4", "--latent", "8", "--batch", "8"]
    program += ["--quiet", *more]
    second = subprocess.run(program, check=False, capture_output=True, text=True)
    assert second.returncode == 2
    assert second.stdout == ""
    assert second.stderr == (
        f"impasto: {tmp_path / 'run' / 'run'} is in use by another impasto process; "
        "wait for it to end or use another path\n"
    )
    assert [report.seen for report in loop] == [80, 160]
    assert content(tmp_path / "run") == content(whole)


def test_painting_needs_no_lock(paintings: Pictures, tmp_path: Path) -> None:
    loop = train_gan(paintings, make_gan_settings(gan.TINY), tmp_path, scoring=None)
    assert [next(loop).seen, next(loop).seen] == [0, 80]
    with pytest.raises(ImpastoError, match="in use"), lock(tmp_path / "run"):
        pass
    generator = Generator.load(tmp_path)
    assert generator.card["images"] == 80
    assert generator.sample(2).shape == (2, 3, 32, 32)
    assert load_run(tmp_path).discriminator()(torch.zeros(1, 3, 32, 32)).isfinite().all()
    assert [report.seen for report in loop] == [160]


# --- A full disk ----------------------------------------------------------------------------------

WRITTEN = {
    "checkpoint-000000000000.safetensors": -1,
    "checkpoint-000000000080.safetensors": 0,
    "log.jsonl": 0,
    "snapshots/000000000000-grid.png": 0,
    "snapshots/000000000080-beside.png": 80,
    "scores.jsonl": 80,
    "best.safetensors": 80,
    "curves.png": 80,
    "film.webp": 160,
    "neighbours.png": 160,
}
"""What a run writes, and the checkpoint that is there before."""


def fill_disk(patch: pytest.MonkeyPatch, target: Path) -> None:
    """From now on there is no room for this file."""
    replace, opened = os.replace, Path.open

    def full_replace(source: Any, name: Any, **options: Any) -> None:
        if Path(name) == target:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(name))
        replace(source, name, **options)

    def full_open(path: Path, mode: str = "r", *values: Any, **options: Any) -> Any:
        if path == target and "a" in mode:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return opened(path, mode, *values, **options)

    patch.setattr(os, "replace", full_replace)
    patch.setattr(Path, "open", full_open)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_full_disk_at_any_file_spoils_nothing(
    paintings: Pictures, whole: Path, tmp_path: Path, name: str
) -> None:
    if name == "curves.png":
        pytest.importorskip("matplotlib")
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, tmp_path / name)
        with pytest.raises(ImpastoError) as caught:
            gan.run(paintings, tmp_path, scoring=gan.QUICK)
    assert str(caught.value) == f"cannot write {tmp_path / name}: the disk is full"
    left = content(tmp_path)  # which reads all that is there
    assert name not in left
    assert not [other for other in left if Path(other).name.startswith(".")]
    saved = [int(path.stem.removeprefix("checkpoint-")) for path in checkpoints(tmp_path)]
    assert max(saved, default=-1) == WRITTEN[name]

    gan.run(paintings, tmp_path, scoring=gan.QUICK, resume=True)
    assert content(tmp_path) == content(whole)


def test_half_a_checkpoint_is_never_seen(
    paintings: Pictures, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gan.run(paintings, tmp_path, images=80, scoring=gan.QUICK)
    before = {path: path.read_bytes() for path in checkpoints(tmp_path)}
    write = Path.write_bytes

    def half(path: Path, data: bytes) -> int:
        if path.suffix != ".safetensors":
            return write(path, data)
        write(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(ImpastoError) as caught:
        gan.run(paintings, tmp_path, scoring=gan.QUICK, resume=True)
    monkeypatch.undo()
    newest = tmp_path / "checkpoint-000000000160.safetensors"
    assert str(caught.value) == f"cannot write {newest}: the disk is full"
    assert {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")} == {
        **before,
        tmp_path / BEST: (tmp_path / BEST).read_bytes(),
    }
    assert list(tmp_path.glob(".*")) == []
    gan.run(paintings, tmp_path, scoring=gan.QUICK, resume=True)
    assert content(tmp_path) == content(whole)


# --- Numbers that are none ------------------------------------------------------------------------


def spoil(patch: pytest.MonkeyPatch, spoilt: Callable[[int], bool]) -> None:
    """Makes the pictures of some batches no numbers; batch 0 is the first sheet's."""
    batch, count = Pictures.batch, itertools.count()

    def wrapped(self: Pictures, *values: Any, **options: Any) -> Tensor:
        return batch(self, *values, **options) * (torch.nan if spoilt(next(count)) else 1.0)

    patch.setattr(Pictures, "batch", wrapped)


def rates(run: Path) -> set[float]:
    """What both networks were last trained with."""
    parts = gan.state(run)["parts"]
    optimizers = (parts["generator_adam"], parts["discriminator_adam"])
    return {group["lr"] for optimizer in optimizers for group in optimizer["param_groups"]}


@pytest.mark.parametrize(("batches", "scale"), [({5}, 0.5), ({5, 15}, 0.25)])
def test_a_run_goes_back_and_on_as_one_at_a_smaller_rate(
    paintings: Pictures, tmp_path: Path, batches: set[int], scale: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch, batches.__contains__)
        reports = gan.run(paintings, tmp_path / "run")
    told = "discriminator is nan after 80 pictures: back to the last checkpoint"
    assert notes(reports) == [told] * len(batches)
    assert [report.seen for report in reports] == [0] * len(batches) + [0, 80, 160]
    assert rates(tmp_path / "run") == {2e-4 * scale}

    gan.run(paintings, tmp_path / "slow", lr=2e-4 * scale)
    gan.assert_same(tmp_path / "run", tmp_path / "slow")

    gan.run(paintings, tmp_path / "run", images=240, resume=True)  # it stays so
    gan.run(paintings, tmp_path / "slow", lr=2e-4 * scale, images=240, resume=True)
    gan.assert_same(tmp_path / "run", tmp_path / "slow")


def test_a_run_that_never_gets_numbers_ends_and_can_go_on(
    paintings: Pictures, whole: Path, tmp_path: Path
) -> None:
    loop = train_gan(paintings, make_gan_settings(gan.TINY), tmp_path, scoring=gan.QUICK)
    reports: list[GanProgress] = []
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch, lambda batch: batch > 14)
        with pytest.raises(RunError) as caught:
            reports.extend(loop)
    assert str(caught.value) == "discriminator is nan after 160 pictures; train more slowly"
    back = "discriminator is nan after 160 pictures: back to the last checkpoint"
    assert notes(reports) == [back] * 5
    assert gan.state(tmp_path)["seen"] == 80

    gan.run(paintings, tmp_path, scoring=gan.QUICK, resume=True)
    assert content(tmp_path) == content(whole)


# --- Collapse -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "alike"), [(0.0, True), (30.0, False)])
def test_only_a_generator_that_paints_always_the_same_is_warned_of(
    paintings: Pictures, tmp_path: Path, scale: float, alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(settings: GanSettings) -> GeneratorNet:
        net = GeneratorNet(settings.size, settings.latent, settings.width)
        last = net.layers[-2]
        assert isinstance(last, nn.ConvTranspose2d)
        with torch.no_grad():
            last.weight.mul_(scale)
        return net

    monkeypatch.setattr(recipe, "make_generator", make)
    reports = gan.run(paintings, tmp_path, images=800, lr=1e-9)
    expected = ["warning: after 640 pictures all that it paints looks alike"]  # said once
    told = [note.split(" (")[0] for report in reports for note in report.notes]
    assert told == (expected if alike else [])


# --- Damage ---------------------------------------------------------------------------------------


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of a whole run."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


NEWEST = "checkpoint-000000000160.safetensors"


def damage(path: Path) -> str:
    """Cuts a file off, and gives how a warning about it begins."""
    path.write_bytes(path.read_bytes()[:-100])
    return f"warning: {path} is damaged; "


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    paintings: Pictures, whole: Path, run: Path
) -> None:
    told = damage(run / NEWEST) + "going on from the checkpoint before it"
    reports = gan.run(paintings, run, scoring=gan.QUICK, resume=True)
    assert [report.seen for report in reports] == [80, 160]
    assert notes(reports[:1]) == [told]
    assert content(run) == content(whole)


def test_a_damaged_best_gives_way_to_the_newest_and_that_to_the_one_before(run: Path) -> None:
    best = load_run(run)
    assert best.notes == ()
    told = damage(run / BEST) + "using the newest checkpoint"
    found = load_run(run)
    assert (found.seen, found.notes) == (160, (told,))
    assert Generator.load(run).card["images"] == 160

    more = damage(run / NEWEST) + "going on from the checkpoint before it"
    found = load_run(run)
    assert (found.seen, found.notes) == (80, (told, more))
    assert Generator.load(run, best=False).card["images"] == 80

    for path in checkpoints(run):
        damage(path)
    with pytest.raises(RunError, match=r"every checkpoint in .* is damaged"):
        Generator.load(run)


def test_a_bit_that_has_flipped_is_damage(run: Path) -> None:
    data = bytearray((run / NEWEST).read_bytes())
    data[-5000] ^= 1
    (run / NEWEST).write_bytes(data)
    found = load_run(run, best=False)
    assert found.seen == 80
    assert "is damaged" in found.notes[0]
    assert Generator.load(run, best=False).notes == found.notes


def test_a_copy_of_a_checkpoint_is_left_alone(paintings: Pictures, run: Path) -> None:
    for name in ("checkpoint-keep.safetensors", "checkpoint-000000000160 (copy).safetensors"):
        shutil.copy(run / "checkpoint-000000000080.safetensors", run / name)
    reports = gan.run(paintings, run, resume=True, images=240)
    assert [report.seen for report in reports] == [160, 240]
    assert (run / "checkpoint-keep.safetensors").exists()
    assert (run / "checkpoint-000000000160 (copy).safetensors").exists()


@dataclass
class Payload:
    """Makes a folder when it is unpickled."""

    mark: str

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_no_pickle_is_ever_read(
    paintings: Pictures, whole: Path, run: Path, kind: str, tmp_path: Path
) -> None:
    mark, bad = tmp_path / "mark", tmp_path / "bad.pt"
    state = {"config": Payload(str(mark)), "seen": 160, "parts": {}}
    if kind == "plain":
        bad.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, bad, _use_new_zipfile_serialization=kind == "zip")
        torch.load(bad, weights_only=False)
        mark.rmdir()  # so it does what it is meant to do, where pickles are read

    with pytest.raises(WeightsError, match="damaged, or no generator"):
        Generator.load(bad)
    shutil.copy(bad, run / BEST)
    shutil.copy(bad, run / NEWEST)
    assert load_run(run).seen == 80
    reports = gan.run(paintings, run, resume=True)
    assert "is damaged" in notes(reports)[0]
    gan.assert_same(run, whole)
    for path in checkpoints(run):
        shutil.copy(bad, path)
    with pytest.raises(RunError, match=r"every checkpoint in .* is damaged"):
        gan.run(paintings, run, resume=True)
    assert not mark.exists()


@pytest.mark.parametrize("tree", ["[" * 100_000, '{"dict": 5}', "5", "{}", "["])
def test_a_state_that_is_no_tree_of_ours_is_damage(run: Path, tree: str) -> None:
    for path in (run / BEST, *checkpoints(run)):
        save_file({"x": torch.zeros(1)}, path, {"state": tree})
    with pytest.raises(RunError):
        Generator.load(run)
