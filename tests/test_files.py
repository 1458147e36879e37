from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from impasto.errors import ImpastoError
from impasto.files import (
    atomic_path,
    lock,
    os_reason,
    sha256_file,
    write_bytes_atomic,
    write_text_atomic,
)

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")
not_root = pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere"
)


def start(code: str, *args: object) -> subprocess.Popen[str]:
    """A Python process that runs ``code`` and prints "ready" once it is where it should be."""
    source = str(Path(__file__).parents[1] / "src")
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )
    return process


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def test_writes_bytes_and_text(tmp_path: Path) -> None:
    write_bytes_atomic(tmp_path / "a", b"\x00\r\n")
    write_text_atomic(tmp_path / "b", "Öl\n")
    write_text_atomic(tmp_path / "b", "Öl auf Leinwand\n")
    assert (tmp_path / "a").read_bytes() == b"\x00\r\n"
    assert (tmp_path / "b").read_bytes() == "Öl auf Leinwand\n".encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_temporary_is_hidden_in_the_same_folder_with_the_suffix(tmp_path: Path) -> None:
    target = tmp_path / "picture.tar.PNG"
    with atomic_path(target) as first, atomic_path(target) as second:
        assert first != second
        assert first.parent == tmp_path
        assert first.name.startswith(".")
        assert first.suffix == ".PNG"
        assert first.stat().st_size == 0
        assert not target.exists()
    assert target.exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, FileNotFoundError])
def test_an_exception_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("new")
            raise error("of the block")

    with pytest.raises(error, match="of the block"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_block_may_replace_the_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_path(target) as temporary:
        other = tmp_path / "other"
        other.write_text("new")
        other.replace(temporary)
    assert target.read_text() == "new"


@posix
@pytest.mark.parametrize("how", ["os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_killed_process_leaves_the_old_file(tmp_path: Path, how: str) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    code = f"""
import os, signal, sys
from impasto.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half of the n")
    {how}
"""
    with start(code, target) as process:
        assert process.wait(30) != 0
    assert target.read_text() == "old"
    left = [path.name for path in tmp_path.iterdir() if path != target]
    assert all(name.startswith(".") for name in left)


def test_the_data_is_on_disk_before_the_name_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(target.read_text()))
    write_text_atomic(target, "new")
    assert seen == ["old"]
    assert target.read_text() == "new"


@posix
def test_a_new_file_follows_the_umask_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    plain, new, old = (tmp_path / name for name in ("plain", "new", "old"))
    plain.touch()
    old.touch()
    old.chmod(0o640)
    write_bytes_atomic(new, b"")
    write_bytes_atomic(old, b"x")
    assert stat.S_IMODE(new.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert old.read_bytes() == b"x"


@posix
def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.txt"
    link, dangling = tmp_path / "link.txt", tmp_path / "dangling.txt"
    real.write_text("old")
    link.symlink_to(real)
    dangling.symlink_to(tmp_path / "elsewhere" / "new.txt")
    write_text_atomic(link, "new")
    write_text_atomic(dangling, "new")
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert real.read_text() == "new"
    assert (tmp_path / "elsewhere" / "new.txt").read_text() == "new"


@posix
def test_refusals_name_the_file_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for target, reason in [
        (tmp_path / "none" / "a.txt", f"the folder {tmp_path / 'none'} does not exist"),
        (tmp_path / "file" / "a.txt", "a part of its path is a file, not a folder"),
        (tmp_path, "it is a folder"),
        (tmp_path / ("n" * 300 + ".txt"), "the name is too long"),
        (tmp_path / "loop", "a link that leads back to itself"),
        (tmp_path / "pipe", "not a regular file"),
        (Path("/dev/null"), "not a regular file"),
    ]:
        with pytest.raises(ImpastoError) as caught:
            write_bytes_atomic(target, b"")
        assert str(caught.value).startswith(f"cannot write {target}: ")
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "none").exists()
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@posix
@not_root
def test_permission_is_told(tmp_path: Path) -> None:
    protected = tmp_path / "protected"
    protected.write_text("old")
    protected.chmod(0o444)
    with pytest.raises(ImpastoError, match="permission denied"):
        write_bytes_atomic(protected, b"")
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ImpastoError, match="permission denied"):
            write_bytes_atomic(tmp_path / "new", b"")
    finally:
        tmp_path.chmod(0o755)
    assert protected.read_text() == "old"


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"

    def fill() -> None:
        with atomic_path(target):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ImpastoError, match=r"cannot write .*a\.txt: the disk is full"):
        fill()
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_write_that_really_fails_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    code = """
import resource, sys
from impasto.errors import ImpastoError
from impasto.files import write_bytes_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes_atomic(sys.argv[1], bytes(100_000))
except ImpastoError as error:
    print(error)
"""
    with start(code, target) as process:
        output, _ = process.communicate(timeout=30)
    assert output == f"cannot write {target}: the file would be larger than allowed here\n"
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_os_reason_is_plain() -> None:
    assert os_reason(OSError(errno.ENOSPC, "No space left on device")) == "the disk is full"
    assert os_reason(OSError(errno.EIO, "Input/output error")) == "input/output error"
    assert os_reason(OSError("Odd")) == "odd"


def test_sha256_of_a_file(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    with pytest.raises(ImpastoError, match=r"cannot read .*none: no such file"):
        sha256_file(tmp_path / "none")


HOLD = """
import sys, time
from impasto.files import lock
with lock(sys.argv[1]):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_lock_of_another_process_is_refused_and_ends_with_it(tmp_path: Path) -> None:
    thing = tmp_path / "run"
    with start(HOLD, thing) as process:
        try:
            wait_until_ready(process)
            with pytest.raises(ImpastoError) as caught, lock(thing):
                pass
            assert str(caught.value).startswith(f"{thing} is in use by another impasto process")
            begin = time.monotonic()
            with pytest.raises(ImpastoError, match="in use"), lock(thing, timeout=0.3):
                pass
            assert 0.3 <= time.monotonic() - begin < 5
        finally:
            process.kill()
    with lock(thing, timeout=10):
        pass


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    with start(HOLD, tmp_path / "run") as process:
        wait_until_ready(process)
        timer = threading.Timer(0.2, process.send_signal, [signal.SIGTERM])
        timer.start()
        with lock(tmp_path / "run", timeout=None):
            pass
        timer.join()


def test_a_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    thing = tmp_path / "run"
    with pytest.raises(ZeroDivisionError), lock(thing):
        1 / 0  # noqa: B018
    with lock(thing):
        assert (tmp_path / "run.lock").exists()
        with pytest.raises(ImpastoError, match="in use"), lock(thing):
            pass
    with lock(tmp_path / "another"), lock(thing):
        pass


def test_a_lock_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ImpastoError, match=r"cannot lock .*: no such file or folder"):
        lock(tmp_path / "none" / "run").__enter__()
