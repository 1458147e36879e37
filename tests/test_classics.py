"""The classic networks: fetched once, kept, checked, and found where others have put them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import platformdirs
import pytest
import torch

from impasto import classics, download
from impasto.classics import (
    CLASSICS,
    Classic,
    check_classic,
    fetch,
    find_originals,
    prepare,
    torch_hub_folder,
    weights_folder,
)
from impasto.download import Checksum, part_of
from impasto.encoder import Encoder
from impasto.errors import ImpastoError, WeightsError
from impasto.files import lock
from impasto.weights import load_weights, weights_path
from layouts import TINY, kernels, state_dict, write_keras, write_torchvision
from mirror import Fault, Mirror, mirror


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of our own and one of torch's, both empty; no pauses, no proxy."""
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small files in the layouts of the published ones, by the name of the classic."""
    folder = tmp_path_factory.mktemp("published")
    weights = kernels(TINY)
    keras = write_keras(folder / "k.h5", weights).read_bytes()
    torchvision = write_torchvision(folder / "t.pth", state_dict(weights)).read_bytes()
    return {"vgg19": keras, "vgg19-tv": torchvision}


@pytest.fixture
def server(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """Where `vgg19` comes from; its file is a small one."""
    with mirror(files["vgg19"], "keras/vgg19_notop.h5") as served:
        publish(monkeypatch, "vgg19", served)
        yield served


@pytest.fixture
def tv_server(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """Where `vgg19-tv` comes from."""
    with mirror(files["vgg19-tv"], "models/vgg19.pth") as served:
        publish(monkeypatch, "vgg19-tv", served)
        yield served


def publish(monkeypatch: pytest.MonkeyPatch, name: str, served: Mirror) -> None:
    """Lets a classic come from this server."""
    algorithm = CLASSICS[name].checksum.algorithm
    digits = hashlib.new(algorithm, served.data).hexdigest()
    checksum = Checksum(algorithm, digits[: len(CLASSICS[name].checksum.digits)])
    changed = dataclasses.replace(CLASSICS[name], url=served.url, checksum=checksum)
    monkeypatch.setitem(cast(dict[str, Classic], CLASSICS), name, changed)


def run(name: str, **options: Any) -> list[str]:
    """Fetches a classic; the stages that it goes through."""
    return list(dict.fromkeys(progress.stage for progress in fetch(CLASSICS[name], **options)))


def refused(name: str, **options: Any) -> str:
    with pytest.raises(ImpastoError) as caught:
        run(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_cache() -> set[str]:
    """What lies in the cache, but for lock files."""
    return {path.name for path in weights_folder().iterdir() if path.suffix != ".lock"}


CONVERTED = {"vgg19.safetensors", "vgg19.safetensors.sha256"}

# What is published


def test_the_published_files() -> None:
    assert list(CLASSICS) == ["vgg16", "vgg16-tv", "vgg19", "vgg19-tv"]
    keras = "https://storage.googleapis.com/tensorflow/keras-applications"
    rest = "weights_tf_dim_ordering_tf_kernels_notop.h5"
    torchvision = "https://download.pytorch.org/models"
    assert {name: (c.url, *c.checksum) for name, c in CLASSICS.items()} == {
        "vgg16": (f"{keras}/vgg16/vgg16_{rest}", "md5", "6d6bbae143d832006294945121d1f1fc"),
        "vgg19": (f"{keras}/vgg19/vgg19_{rest}", "md5", "253f8cb515780f3b799900260a226db6"),
        "vgg16-tv": (f"{torchvision}/vgg16-397923af.pth", "sha256", "397923af"),
        "vgg19-tv": (f"{torchvision}/vgg19-dcbb9e9d.pth", "sha256", "dcbb9e9d"),
    }
    assert CLASSICS["vgg19-tv"].original == weights_folder() / "vgg19-dcbb9e9d.pth"


def test_the_cache_is_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights_folder() == tmp_path / "cache" / "weights"
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("IMPASTO_CACHE")
        else:
            monkeypatch.setenv("IMPASTO_CACHE", value)
        assert weights_folder().parent == Path(platformdirs.user_cache_dir("impasto", False))


@pytest.mark.parametrize(
    ("home", "cache", "folder"),
    [
        ("/t", "/c", "/t/hub/checkpoints"),
        (None, "/c", "/c/torch/hub/checkpoints"),
        (None, None, "~/.cache/torch/hub/checkpoints"),
        ("~/t", None, "~/t/hub/checkpoints"),
    ],
)
def test_torch_s_cache_is_where_torch_has_it(
    home: str | None, cache: str | None, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TORCH_HOME", home), ("XDG_CACHE_HOME", cache)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert torch_hub_folder() == Path(folder).expanduser()
    assert torch_hub_folder() == Path(torch.hub.get_dir()) / "checkpoints"


# Fetching


def test_a_classic_is_fetched_converted_and_kept(server: Mirror, tmp_path: Path) -> None:
    classic = CLASSICS["vgg19"]
    assert run("vgg19") == ["downloading", "checking", "converting"]
    assert in_cache() == CONVERTED
    line = classic.record.read_text()
    assert line == f"{hashlib.sha256(classic.path.read_bytes()).hexdigest()}  vgg19.safetensors\n"
    assert weights_path("vgg19") == classic.path
    file = load_weights("vgg19")
    assert (file.name, file.sha256) == ("vgg19", line.split()[0])
    assert file.metadata["source"] == server.url
    assert file.metadata["source_checksum"] == f"md5:{hashlib.md5(server.data).hexdigest()}"
    direct = tmp_path / "mine.h5"
    direct.write_bytes(server.data)
    for name, tensor in load_weights(direct).tensors.items():
        assert torch.equal(file.tensors[name], tensor)
    assert Encoder.load("vgg19").plan == Encoder.load(direct).plan


def test_what_is_here_is_not_fetched_again(server: Mirror) -> None:
    run("vgg19")
    before = CLASSICS["vgg19"].path.read_bytes()
    assert run("vgg19") == []
    assert len(server.requests) == 1
    CLASSICS["vgg19"].path.unlink()
    run("vgg19")
    assert CLASSICS["vgg19"].path.read_bytes() == before  # the same bytes every time


@pytest.mark.parametrize("harm", ["changed", "cut", "unrecorded"])
def test_what_is_damaged_is_fetched_again(server: Mirror, harm: str) -> None:
    classic = CLASSICS["vgg19"]
    run("vgg19")
    good = classic.path.read_bytes()
    if harm == "unrecorded":
        classic.record.unlink()
    else:
        classic.path.write_bytes(good[:-4] + b"\0\0\0\0" if harm == "changed" else good[:-4])
    with pytest.raises(WeightsError, match=r"impasto weights fetch vgg19") as caught:
        load_weights("vgg19")
    assert str(classic.path) in str(caught.value)
    run("vgg19")
    assert classic.path.read_bytes() == good
    check_classic(classic)


def test_a_mirror_is_held_to_the_same_checksum(server: Mirror) -> None:
    with mirror(server.data, "elsewhere") as other:
        run("vgg19", url=other.url)
        assert len(other.requests) == 1
    assert server.requests == []
    assert load_weights("vgg19").metadata["source"] == server.url
    CLASSICS["vgg19"].path.unlink()
    with mirror(server.data[:-1], "elsewhere") as other:
        assert "MD5" in refused("vgg19", url=other.url)


def test_a_download_that_died_goes_on(server: Mirror) -> None:
    classic = CLASSICS["vgg19"]
    server.faults = [Fault(dies_after=1000)] * download.ATTEMPTS
    assert "kept" in refused("vgg19")
    assert in_cache() == {part_of(classic.original).name}
    run("vgg19")
    assert server.ranges[-1] == f"bytes={1000 * download.ATTEMPTS}-"
    assert in_cache() == CONVERTED


def test_offline_it_says_where_the_file_belongs(server: Mirror) -> None:
    classic = CLASSICS["vgg19"]
    message = refused("vgg19", url="http://127.0.0.1:9/x.h5")
    assert "http://127.0.0.1:9/x.h5" in message
    assert str(classic.original) in message
    classic.original.write_bytes(server.data)
    load_weights("vgg19")
    assert in_cache() == CONVERTED


def test_without_h5py_nothing_is_downloaded(
    server: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install h5py" in refused("vgg19")
    assert server.requests == []


def test_a_full_disk_while_converting_keeps_the_original(
    server: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(classics, "write_weights", full)
        assert "the disk is full" in refused("vgg19")
    assert in_cache() == {"vgg19_notop.h5"}
    assert run("vgg19") == ["converting"]


def test_a_file_where_the_cache_should_be(tmp_path: Path, server: Mirror) -> None:
    (tmp_path / "cache").write_text("not a folder")
    assert "IMPASTO_CACHE" in refused("vgg19")


# What is here already


def test_without_the_weights_the_line_says_what_to_do() -> None:
    for name, size in (("vgg19", "80 MB"), ("vgg16", "59 MB"), ("vgg19-tv", "575 MB")):
        with pytest.raises(WeightsError) as caught:
            load_weights(name)
        message = str(caught.value)
        for words in (f"impasto weights fetch {name}", size, "--encoder slim", "offline"):
            assert words in message
        with pytest.raises(WeightsError, match="weights fetch"):
            weights_path(name)
    assert not weights_folder().exists()


def test_a_file_put_by_hand_is_converted_by_the_first_use(server: Mirror) -> None:
    weights_folder().mkdir(parents=True)
    CLASSICS["vgg19"].original.write_bytes(server.data)
    assert Encoder.load("vgg19").name == "vgg19"
    assert in_cache() == CONVERTED
    assert server.requests == []


def test_another_file_put_by_hand_is_refused_and_left(server: Mirror) -> None:
    weights_folder().mkdir(parents=True)
    original = CLASSICS["vgg19"].original
    original.write_bytes(server.data[:-1])
    with pytest.raises(WeightsError) as caught:
        load_weights("vgg19")
    sums = hashlib.md5(server.data[:-1]).hexdigest(), hashlib.md5(server.data).hexdigest()
    for words in (str(original), *sums, "MD5", "remove it"):
        assert words in str(caught.value)
    assert original.read_bytes() == server.data[:-1]
    run("vgg19")
    assert in_cache() == CONVERTED


def test_torch_s_own_download_is_used_and_left(tv_server: Mirror) -> None:
    theirs = torch_hub_folder() / "vgg19.pth"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(tv_server.data)
    assert find_originals(CLASSICS["vgg19-tv"]) == [theirs]
    assert run("vgg19-tv") == ["converting"]
    assert tv_server.requests == []
    assert theirs.read_bytes() == tv_server.data
    CLASSICS["vgg19-tv"].path.unlink()
    load_weights("vgg19-tv")
    assert theirs.read_bytes() == tv_server.data


def test_a_damaged_download_of_torch_s_is_left_and_another_fetched(tv_server: Mirror) -> None:
    theirs = torch_hub_folder() / "vgg19.pth"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"half a file")
    with pytest.raises(WeightsError, match="SHA-256"):
        prepare(CLASSICS["vgg19-tv"])
    run("vgg19-tv")
    assert len(tv_server.requests) == 1
    assert theirs.read_bytes() == b"half a file"
    assert load_weights("vgg19-tv").metadata["mean"] == "0.485,0.456,0.406"


def test_of_two_files_the_sound_one_is_used(tv_server: Mirror) -> None:
    theirs = torch_hub_folder() / "vgg19.pth"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(tv_server.data)
    weights_folder().mkdir(parents=True)
    CLASSICS["vgg19-tv"].original.write_bytes(b"something else")
    load_weights("vgg19-tv")
    assert tv_server.requests == []
    assert CLASSICS["vgg19-tv"].original.read_bytes() == b"something else"


# Several at once

WORKER = """
import dataclasses, sys
from impasto import classics
from impasto.download import Checksum

class Copied(bytes):  # in the place of the conversion, which needs torch
    metadata = {}
    def _replace(self, metadata):
        return self

classics.READERS = {".h5": lambda path: Copied(path.read_bytes())}
classics.write_weights = lambda path, copied: path.write_bytes(copied)
vgg19 = dataclasses.replace(
    classics.CLASSICS["vgg19"], url=sys.argv[1], checksum=Checksum("md5", sys.argv[2])
)
print("ready", flush=True)
input()
for progress in classics.fetch(vgg19):
    print(progress.stage, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="select on pipes")
def test_two_processes_at_once_download_once(server: Mirror) -> None:
    gate = threading.Event()
    server.faults = [Fault(gate=gate)]
    command = [sys.executable, "-c", WORKER, server.url, CLASSICS["vgg19"].checksum.digits]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0) as one,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0) as other,
    ):
        try:
            for each in (
                one,
                other,
            ):  # on a busy machine imports may outlast the download's patience
                assert each.stdout is not None
                assert each.stdout.readline() == b"ready\n"
            for each in (one, other):
                assert each.stdin is not None
                each.stdin.write(b"\n")
            assert one.stdout is not None
            assert other.stdout is not None
            first, _, _ = select.select([one.stdout, other.stdout], [], [], 60)
            assert first[0].readline() == b"waiting\n"
            gate.set()
            told = sorted([*one.communicate(timeout=60), *other.communicate(timeout=60)], key=str)
        finally:
            one.kill()
            other.kill()
    assert (one.returncode, other.returncode) == (0, 0)
    stages = [list(dict.fromkeys(text.decode().split())) for text in told if text]
    assert stages == [["downloading", "checking", "converting"]]
    assert len(server.requests) == 1
    assert in_cache() == CONVERTED
    assert CLASSICS["vgg19"].path.read_bytes() == server.data


def test_one_that_waits_says_so(server: Mirror) -> None:
    weights_folder().mkdir(parents=True)
    steps = fetch(CLASSICS["vgg19"])
    with lock(CLASSICS["vgg19"].path):
        assert next(steps).stage == "waiting"
    assert next(steps).stage == "downloading"


def test_one_that_is_given_up_lets_the_next_in(server: Mirror) -> None:
    steps = fetch(CLASSICS["vgg19"])
    next(steps)
    with pytest.raises(ImpastoError), lock(CLASSICS["vgg19"].path):
        pass
    del steps
    run("vgg19")
    assert in_cache() == CONVERTED
