"""`impasto weights`: what it says, where, and with which exit code."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from impasto import classics, download, weights
from impasto.classics import CLASSICS, torch_hub_folder, weights_folder
from impasto.download import part_of
from layouts import TINY, kernels, write_keras
from mirror import Fault, Mirror, mirror
from pictures import SMALL, Program, photo, save
from test_classics import publish

TORCH_LOADED = """
import atexit, sys
sys.argv[0] = "impasto"
atexit.register(lambda: print("loaded", "torch" in sys.modules))
from impasto.cli import main
main()
"""


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    """The program, with empty caches, no pauses and no proxy."""
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    return Program(folder, monkeypatch, capsys)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """Where `vgg19` comes from; its file is a small one."""
    data = write_keras(tmp_path / "k.h5", kernels(TINY)).read_bytes()
    with mirror(data, "keras/vgg19_notop.h5") as served:
        publish(monkeypatch, "vgg19", served)
        yield served


def rows(run: Program) -> dict[str, str]:
    """What `list` says of each network."""
    lines = run.good("weights", "list").out.splitlines()
    return {name: rest.strip() for name, _, rest in (line.partition(" ") for line in lines)}


# list


def test_list_names_every_network_with_its_terms(run: Program) -> None:
    found = rows(run)
    assert list(found) == [*weights.bundled(), *CLASSICS, "What"]
    assert re.fullmatch(r"here, 3.5 MB +the network that looks +MIT.*", found["slim-1"])
    for name, classic in CLASSICS.items():
        assert found[name].startswith(f"not here, {classic.megabytes} MB")
        assert classic.about in found[name]
        assert found[name].endswith(classic.terms)
    assert str(weights_folder()) in found["What"]
    assert not weights_folder().exists()


def test_list_says_how_far_each_is(run: Program, server: Mirror) -> None:
    weights_folder().mkdir(parents=True)
    part = part_of(CLASSICS["vgg16-tv"].original)
    part.write_bytes(bytes(12_300_000))
    (weights_folder() / CLASSICS["vgg16"].original.name).write_bytes(b"...")
    theirs = torch_hub_folder() / CLASSICS["vgg19-tv"].original.name
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"...")
    run.good("weights", "fetch", "vgg19", "-q")
    found = rows(run)
    assert found["vgg16-tv"].startswith("12.3 of 553 MB here")
    assert found["vgg16"].startswith("here, not yet converted")
    assert found["vgg19-tv"].startswith("here, not yet converted")
    assert found["vgg19"].startswith("here, 0.0 MB")


# fetch


def test_fetch_tells_on_one_side_and_gives_the_path_on_the_other(
    run: Program, server: Mirror
) -> None:
    done = run.good("weights", "fetch", "vgg19")
    assert done.out.startswith(str(CLASSICS["vgg19"].path))
    size = f"0.0 of {len(server.data) / 1e6:.1f} MB"
    lines = done.err.splitlines()
    assert lines[0].startswith("vgg19: downloading")
    assert lines[-1] == "vgg19: converting"
    assert size.split()[-2] in lines[0]
    again = run.good("weights", "fetch", "vgg19")
    assert (again.out, again.err) == (done.out, "")
    assert len(server.requests) == 1


def test_quiet_is_quiet(run: Program, server: Mirror) -> None:
    done = run.good("weights", "fetch", "vgg19", "--quiet")
    assert (done.out, done.err) == ("", "")
    assert CLASSICS["vgg19"].path.exists()


def test_on_a_terminal_there_is_a_bar(
    run: Program, server: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    server.faults = [Fault(pause_s=0.2)]
    err = run.good("weights", "fetch", "vgg19").err
    assert "vgg19: downloading" in err
    assert "━" in err
    assert f"of {len(server.data) / 1e6:.1f} MB" in err


def test_what_was_fetched_paints(run: Program, server: Mirror) -> None:
    save(run.folder / "photo.png", photo())
    picture = ["reconstruct", "photo.png", "-o", "out.png", "--layers", "relu2_1", *SMALL]
    assert "impasto weights fetch vgg19" in run.bad(*picture, "--encoder", "vgg19")
    run.good("weights", "fetch", "vgg19")
    run.good(*picture, "--encoder", "vgg19")
    (run.folder / "mine.h5").write_bytes(server.data)
    run.good(*picture, "--encoder", "mine.h5", "--overwrite")


def test_fetch_from_a_mirror(run: Program, server: Mirror) -> None:
    with mirror(server.data, "elsewhere.h5") as other:
        run.good("weights", "fetch", "vgg19", "--url", other.url)
        assert len(other.requests) == 1
    assert not server.requests


def test_fetch_of_what_comes_with_impasto(run: Program, server: Mirror) -> None:
    done = run.good("weights", "fetch", "slim", "vgg19", "vgg19")
    first, second = done.out.splitlines()
    assert first.startswith(str(weights.weights_path("slim")))
    assert second.startswith(str(CLASSICS["vgg19"].path))


def test_nothing_is_fetched_if_one_name_is_wrong(run: Program, server: Mirror) -> None:
    message = run.bad("weights", "fetch", "vgg19", "vgg99")
    for name in ("'vgg99'", *CLASSICS, "slim"):
        assert name in message
    assert not server.requests


@pytest.mark.parametrize(
    ("fault", "words"),
    [(Fault(status=404), "404"), (Fault(page=True), "web page"), (Fault(dies_after=9), "broke")],
)
def test_a_failed_fetch_is_one_line(run: Program, server: Mirror, fault: Fault, words: str) -> None:
    server.faults = [fault] * download.ATTEMPTS
    done = run("weights", "fetch", "vgg19", "-q")
    assert (done.code, done.out) == (2, "")
    for part in (words, server.url, str(CLASSICS["vgg19"].original)):
        assert part in done.complaint


def test_ctrl_c_keeps_what_has_come(
    run: Program, server: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = download.download

    def pressed(*given: Any) -> Iterator[Any]:
        for progress in real(*given):
            yield progress
            raise KeyboardInterrupt

    monkeypatch.setattr(classics, "download", pressed)
    done = run("weights", "fetch", "vgg19")
    assert done.code == 130
    assert "are kept" in done.err
    assert part_of(CLASSICS["vgg19"].original).stat().st_size > 0


# verify and path


def test_verify_looks_at_all_that_is_here(run: Program, server: Mirror) -> None:
    assert "slim-1 is sound" in run.good("weights", "verify").out
    run.good("weights", "fetch", "vgg19", "-q")
    lines = run.good("weights", "verify").out.splitlines()
    assert [line.partition(" is sound: ")[0] for line in lines] == [*weights.bundled(), "vgg19"]
    assert run.good("weights", "verify", "slim").out.startswith("slim is sound")


def test_verify_finds_what_is_broken(run: Program, server: Mirror) -> None:
    run.good("weights", "fetch", "vgg19", "-q")
    path = CLASSICS["vgg19"].path
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    done = run("weights", "verify")
    assert done.code == 2
    assert "slim-1 is sound" in done.out
    assert "vgg19" not in done.out
    for words in (str(path), "damaged", "impasto weights fetch vgg19"):
        assert words in done.complaint
    run.good("weights", "fetch", "vgg19", "-q")
    run.good("weights", "verify", "vgg19")


def test_verify_of_a_broken_bundled_network(
    run: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(weights.MODELS, tmp_path / "models")
    monkeypatch.setattr(weights, "MODELS", tmp_path / "models")
    (tmp_path / "models" / "slim-1.safetensors").write_bytes(b"")
    assert "install impasto again" in run.bad("weights", "verify", "slim-1")


def test_a_file_called_like_ours_is_not_taken_for_ours(run: Program) -> None:
    shutil.copy(weights.weights_path("slim"), run.folder / "slim-1.safetensors")
    told = run.bad("weights", "verify", "./slim-1.safetensors")
    assert "nothing is known to check slim-1.safetensors against" in told
    assert "comes with" not in run.good("weights", "fetch", "./slim-1.safetensors").out


@pytest.mark.parametrize("command", ["verify", "path"])
def test_names_that_are_not_here(run: Program, command: str) -> None:
    assert "impasto weights fetch vgg16" in run.bad("weights", command, "vgg16")
    assert "'vgg99'" in run.bad("weights", command, "vgg99")


def test_path_is_for_scripts(run: Program, server: Mirror) -> None:
    run.good("weights", "fetch", "vgg19", "-q")
    for name in ("slim", "vgg19"):
        path = Path(run.good("weights", "path", name).out.removesuffix("\n"))
        assert path == weights.weights_path(name)
        assert hashlib.sha256(path.read_bytes()).hexdigest()


# Help and usage


def test_without_a_command_it_shows_the_commands(run: Program) -> None:
    text = run.good("weights").out
    for command in ("list", "fetch", "verify", "path"):
        assert f"  {command} " in text
        assert run.good("weights", command, "--help").out
    assert "weights" in run.good().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], "bogus"),
        (["fetch"], "NAME"),
        (["fetch", "vgg16", "vgg19", "--url", "http://x/"], "--url one NAME"),
        (["fetch", "vgg16", "--url", "ftp://x/y"], "'ftp://x/y' https://"),
        (["fetch", "vgg16", "--loud"], "--loud"),
        (["path"], "NAME"),
        (["path", "vgg16", "vgg19"], "vgg19"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments(run: Program, arguments: list[str], words: str) -> None:
    complaint = run.bad("weights", *arguments)
    for word in words.split():
        assert word in complaint


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["weights"], 0),
        (["weights", "--help"], 0),
        (["weights", "fetch", "--help"], 0),
        (["weights", "list"], 0),
        (["weights", "verify"], 0),
        (["weights", "path", "slim"], 0),
        (["weights", "path", "vgg19"], 2),
        (["weights", "fetch", "vgg99"], 2),
        (["weights", "fetch", "vgg19", "--url", "http://127.0.0.1:9/x"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_torch_is_not_imported_for(arguments: list[str], code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TORCH_LOADED, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "IMPASTO_CACHE": str(tmp_path), "PYTHONWARNINGS": "error"},
        timeout=100,
        check=False,
    )
    assert done.stdout.endswith("loaded False\n")
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == (1 if code else 0)
