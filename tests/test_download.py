"""Downloads: resumed, checked, whole or not at all, whatever the server and the disk do."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from impasto import download as download_module
from impasto.download import Checksum, FetchProgress, download, part_of
from impasto.errors import WeightsError
from mirror import Fault, Mirror, mirror

DATA = random.Random(1).randbytes(300_000)
SUM = Checksum("md5", hashlib.md5(DATA).hexdigest())
HALF = len(DATA) // 2


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between connections, and no proxy on the way to this machine."""
    monkeypatch.setattr(download_module, "PAUSE_S", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Mirror]:
    with mirror(DATA) as served:
        yield served


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "file.bin"


def get(server: Mirror, target: Path, checksum: Checksum = SUM) -> list[FetchProgress]:
    return list(download(server.url, target, checksum))


def refused(server: Mirror | str, target: Path, checksum: Checksum = SUM) -> str:
    """The one line that a download ends with; the file is not there."""
    url = server if isinstance(server, str) else server.url
    with pytest.raises(WeightsError) as caught:
        list(download(url, target, checksum))
    assert not target.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leave_part(target: Path, data: bytes) -> None:
    part_of(target).write_bytes(data)


def only(target: Path) -> bool:
    """Whether the file is there, right, and alone in its folder."""
    return target.read_bytes() == DATA and list(target.parent.iterdir()) == [target]


# What goes well


def test_the_file_comes_whole_and_says_how_far_it_is(server: Mirror, target: Path) -> None:
    told = get(server, target)
    assert only(target)
    *coming, last = told
    assert last == FetchProgress("checking", len(DATA), len(DATA))
    assert {(p.stage, p.total) for p in coming} == {("downloading", len(DATA))}
    done = [p.done for p in coming]
    assert done == sorted(set(done))
    assert done[-1] == len(DATA)
    (request,) = server.requests
    assert request["user-agent"].startswith("impasto/")
    assert "range" not in request


def test_a_file_that_is_there_is_replaced(server: Mirror, target: Path) -> None:
    target.write_bytes(b"something older")
    get(server, target)
    assert only(target)


def test_a_server_that_does_not_say_the_length(server: Mirror, target: Path) -> None:
    server.faults = [Fault(no_length=True)]
    assert get(server, target)[0].total is None
    assert only(target)


@pytest.mark.parametrize("digits", [8, 64])
def test_the_first_digits_of_a_sha256(server: Mirror, target: Path, digits: int) -> None:
    get(server, target, Checksum("sha256", hashlib.sha256(DATA).hexdigest()[:digits]))
    assert only(target)


def test_a_proxy_of_the_environment_is_used(
    server: Mirror, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url.rpartition("/")[0])
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it has looked at them already
    list(download("http://far-away.invalid/some.bin", target, SUM))
    assert only(target)
    assert server.requests[0]["path"] == "http://far-away.invalid/some.bin"


# Resuming


def test_what_an_earlier_call_has_left_is_not_asked_for_again(server: Mirror, target: Path) -> None:
    leave_part(target, DATA[:HALF])
    told = get(server, target)
    assert only(target)
    assert server.ranges == [f"bytes={HALF}-"]
    assert HALF < told[0].done <= len(DATA)
    assert told[0].total == len(DATA)


def test_a_part_that_is_the_whole_file_is_only_checked(server: Mirror, target: Path) -> None:
    leave_part(target, DATA)
    assert get(server, target) == [FetchProgress("checking", len(DATA), len(DATA))]
    assert only(target)


def test_an_empty_part_is_no_part(server: Mirror, target: Path) -> None:
    leave_part(target, b"")
    get(server, target)
    assert only(target)
    assert server.ranges == [None]


@pytest.mark.parametrize("length", [HALF, len(DATA), len(DATA) + 5])
def test_a_part_of_another_file_is_given_up(server: Mirror, target: Path, length: int) -> None:
    leave_part(target, b"x" * length)
    get(server, target)
    assert only(target)
    assert server.ranges == [f"bytes={length}-", None]


@pytest.mark.parametrize("fault", [Fault(ignores_range=True), Fault(shift=7), Fault(shift=-HALF)])
def test_a_server_that_does_ranges_its_own_way(server: Mirror, target: Path, fault: Fault) -> None:
    leave_part(target, DATA[:HALF])
    server.faults = [fault]
    get(server, target)
    assert only(target)


@pytest.mark.parametrize("resets", [False, True])
def test_a_connection_that_dies_is_followed_by_another(
    server: Mirror, target: Path, resets: bool
) -> None:
    server.faults = [Fault(dies_after=100_000, resets=resets), Fault(dies_after=50_000)]
    get(server, target)
    assert only(target)
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert [request.get("if-range") for request in server.requests] == [None, '"one"', '"one"']


def test_a_file_that_changes_on_the_server_is_begun_anew(server: Mirror, target: Path) -> None:
    server.faults = [Fault(dies_after=100_000)]
    old, server.data = server.data, bytes(200_000)
    steps = download(server.url, target, SUM)
    for progress in steps:
        if progress.done == 100_000:
            server.data, server.etag = old, '"two"'
    assert only(target)


def test_a_wrong_range_in_the_middle_costs_what_had_come(server: Mirror, target: Path) -> None:
    server.faults = [Fault(dies_after=100_000), Fault(shift=7)]
    get(server, target)
    assert only(target)
    assert server.ranges == [None, "bytes=100000-", None]


def test_a_refusal_in_the_middle_is_waited_for(server: Mirror, target: Path) -> None:
    server.faults = [Fault(dies_after=100_000), Fault(status=503), Fault(status=503)]
    get(server, target)
    assert only(target)
    assert server.ranges == [None, *["bytes=100000-"] * 3]


def test_a_silent_connection_counts_as_dead(
    server: Mirror, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "TIMEOUT_S", 0.5)
    server.faults = [Fault(gate=threading.Event())]
    get(server, target)
    assert only(target)
    assert len(server.requests) == 2


def test_the_pauses_grow(server: Mirror, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download_module, "PAUSE_S", 1.0)
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.faults = [Fault(dies_after=10)] * 3
    get(server, target)
    assert [pause for pause in pauses if pause] == [1.0, 2.0, 4.0]


def test_a_download_that_nobody_goes_on_with_is_kept(server: Mirror, target: Path) -> None:
    steps = download(server.url, target, SUM)
    first = next(steps)
    assert isinstance(steps, Generator)
    steps.close()  # as Ctrl-C does
    assert not target.exists()
    assert part_of(target).read_bytes() == DATA[: first.done]
    get(server, target)
    assert only(target)


# What does not go well


def test_a_connection_that_always_dies(server: Mirror, target: Path) -> None:
    server.faults = [Fault(dies_after=20_000)] * download_module.ATTEMPTS
    message = refused(server, target)
    assert len(server.requests) == download_module.ATTEMPTS
    for words in ("broke", "0.1 of 0.3 MB", "0.1 MB are kept", server.url, str(target)):
        assert words in message
    get(server, target)
    assert only(target)
    assert server.ranges[-1] == f"bytes={20_000 * download_module.ATTEMPTS}-"


def test_a_wrong_sum_is_told_with_both_and_nothing_is_left(server: Mirror, target: Path) -> None:
    server.data = DATA[:-1] + b"?"
    message = refused(server, target)
    for words in (SUM.digits, hashlib.md5(server.data).hexdigest(), "MD5", str(target)):
        assert words in message
    assert list(target.parent.iterdir()) == []
    assert len(server.requests) == 1


def test_a_file_cut_short_on_the_server(server: Mirror, target: Path) -> None:
    server.data = DATA[:-1]
    assert SUM.digits in refused(server, target)
    assert list(target.parent.iterdir()) == []


def test_a_wrong_sum_of_eight_digits_is_told_in_eight(server: Mirror, target: Path) -> None:
    message = refused(server, target, Checksum("sha256", "00000000"))
    assert f"{hashlib.sha256(DATA).hexdigest()[:8]}, not 00000000" in message


@pytest.mark.parametrize("status", [403, 404, 416, 500, 503])
def test_a_server_that_refuses(server: Mirror, target: Path, status: int) -> None:
    server.faults = [Fault(status=status)]
    message = refused(server, target)
    for words in (str(status), server.url, str(target)):
        assert words in message
    assert len(server.requests) == 1


def test_a_refusal_leaves_the_part(server: Mirror, target: Path) -> None:
    leave_part(target, DATA[:HALF])
    server.faults = [Fault(status=404)]
    assert "0.1 MB are kept" in refused(server, target)
    assert part_of(target).read_bytes() == DATA[:HALF]


def test_a_web_page_is_not_taken_for_the_file(server: Mirror, target: Path) -> None:
    server.faults = [Fault(page=True)]
    assert "a web page came" in refused(server, target)
    assert list(target.parent.iterdir()) == []


def test_nobody_listens(target: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file.bin"
        message = refused(url, target)
    for words in ("refused", url, str(target), "by hand"):
        assert words in message


def test_no_name_server(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    url = "https://storage.googleapis.com/file.bin"
    message = refused(url, target)
    for words in ("cannot be looked up", url, str(target), "when online", "by hand"):
        assert words in message


@pytest.mark.parametrize(
    "url",
    [
        "", "nonsense", "file:///etc/passwd", "ftp://host/file", "https://", "http://[::1",
        "http://ho st/file", "http://host/a b", "http://h\u00f6st\u2028/\u00e4", "http://host:x/",
    ],
)  # fmt: skip
def test_what_is_no_address(url: str, target: Path) -> None:
    refused(url, target)
    assert list(target.parent.iterdir()) == []


# The disk


class FullDisk(io.FileIO):
    """A file on a disk with room for so many bytes, which takes a few at a time."""

    room = 0

    def write(self, data: Any) -> int:
        left = self.room - self.tell()
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data[: min(left, 7000)])


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> type[FullDisk]:
    """A disk on which every part has room for 100,000 bytes."""
    real = Path.open

    def opened(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode in ("ab", "wb") and path.suffix == ".part":
            return FullDisk(path, mode)
        return real(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(FullDisk, "room", 100_000)
    return FullDisk


def test_a_full_disk_keeps_what_has_come(
    server: Mirror, target: Path, full_disk: type[FullDisk]
) -> None:
    message = refused(server, target)
    assert "the disk is full" in message
    assert "kept" in message
    assert part_of(target).read_bytes() == DATA[:100_000]
    full_disk.room = 10**9
    get(server, target)
    assert only(target)
    assert server.ranges == [None, "bytes=100000-"]


def test_a_folder_that_does_not_exist(server: Mirror, tmp_path: Path) -> None:
    assert "no such file or folder" in refused(server, tmp_path / "nowhere" / "file.bin")


def test_a_folder_in_the_file_s_place(server: Mirror, target: Path) -> None:
    target.mkdir()
    with pytest.raises(WeightsError, match="cannot write"):
        get(server, target)
    assert part_of(target).read_bytes() == DATA


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_folder_one_may_not_write_to(server: Mirror, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    try:
        assert "permission denied" in refused(server, tmp_path / "file.bin")
    finally:
        tmp_path.chmod(0o700)


# Processes


PROGRAM = """
import sys
from pathlib import Path
from impasto.download import Checksum, download
for _ in download(sys.argv[1], Path(sys.argv[2]), Checksum("md5", sys.argv[3])):
    pass
"""


def test_a_killed_process_is_gone_on_from(server: Mirror, target: Path) -> None:
    server.faults = [Fault(pause_s=0.05)]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url, str(target), SUM.digits]
    ) as work:
        try:
            for _ in itertools.repeat(None, 2000):
                if part_of(target).exists() and part_of(target).stat().st_size >= 60_000:
                    break
                assert work.poll() is None
                time.sleep(0.01)
            work.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        finally:
            work.kill()
    assert not target.exists()
    kept = part_of(target).read_bytes()
    assert 60_000 <= len(kept) < len(DATA)
    assert kept == DATA[: len(kept)]
    get(server, target)
    assert only(target)
    assert server.ranges == [None, f"bytes={len(kept)}-"]
