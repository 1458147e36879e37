"""No file and no disk makes the program fail in another way than with one line that says why."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hostile
import pictures
from hostile import Case
from pictures import Program, Run

if sys.platform != "linux":
    pytest.skip("the limits are those of Linux", allow_module_level=True)

SECONDS, BYTES = 10.0, 2 << 30
"""What a file may cost at most."""

SOURCE = str(Path(__file__).parents[1] / "src")

READER = """
import json, pathlib, resource, sys, time
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
import numpy as np
from impasto.errors import ImageError
from impasto.images import open_image
for line in sys.stdin:
    path, pixels = json.loads(line)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    began = time.monotonic()
    try:
        picture = open_image(path)
        told = {"size": picture.size, "exif": picture.exif is not None}
        shown = picture.pixels if picture.alpha is None else np.dstack(
            (picture.pixels, picture.alpha))
        np.save(pixels, shown[:9000, :9000])
    except ImageError as error:
        told = {"refused": str(error)}
    except BaseException as error:
        told = {"bug": repr(error)}
    told["seconds"] = time.monotonic() - began
    status = pathlib.Path("/proc/self/status").read_text()
    told["peak"] = 1024 * int(status.split("VmHWM:")[1].split()[0])
    assert "torch" not in sys.modules
    print(json.dumps(told), flush=True)
"""


class Reader:
    """A process that reads one picture after the other under hard limits."""

    def __init__(self, folder: Path, *, seconds: float = SECONDS, most: int = BYTES) -> None:
        self._pixels, self._errors = folder / "pixels.npy", folder / "errors"
        self._seconds, self._most = seconds, most
        self._start()

    def _start(self) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", READER, str(self._most)],
                env={**os.environ, **threads, "PYTHONPATH": SOURCE},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(self._process, self._answers)).start()

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.SimpleQueue[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def __call__(self, path: Path) -> tuple[dict[str, Any], Any]:
        """What it tells of a file, and its pixels; a process that is lost is replaced."""
        self._pixels.unlink(missing_ok=True)
        assert self._process.stdin
        self._process.stdin.write(json.dumps([str(path), str(self._pixels)]) + "\n")
        self._process.stdin.flush()
        try:
            answer = self._answers.get(timeout=self._seconds)
        except queue.Empty:
            answer = f'{{"bug": "took longer than {self._seconds} s"}}'
            self._process.kill()
        errors = self._errors.read_text(errors="replace")
        if not answer or "took" in answer:
            self.close()
            self._start()
        told = json.loads(answer or '{"bug": "the process died"}')
        if errors:
            told["bug"] = f"wrote to standard error: {errors}"
            self._errors.write_bytes(b"")
        return told, np.load(self._pixels) if self._pixels.exists() else None

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    process = Reader(tmp_path_factory.mktemp("reader"))
    yield process
    process.close()


def wrong(case: Case, told: dict[str, Any], pixels: Any) -> str | None:
    """What is not as it has to be with a case; None if all is."""
    if "bug" in told:
        return str(told["bug"])
    if told["seconds"] > SECONDS or told["peak"] > BYTES * 3 // 4:
        return f"{told['seconds']} s, {told['peak'] >> 20} MB"  # nowhere near the limit
    if "refused" in told:
        text = str(told["refused"])
        if case.opens:
            return text
        if len(text.splitlines()) != 1 or not text.startswith("cannot read ") or "memory" in text:
            return f"not the one line: {text!r}"
        return None
    if case.opens is False:
        return "opened"
    if case.pixels is None:
        return None
    if case.pixels.shape != pixels.shape:
        return f"{case.pixels.shape} became {pixels.shape}"
    off = np.abs(case.pixels.astype(int) - pixels).max()
    return None if off <= case.tolerance else f"off by {off}"


@pytest.mark.parametrize("group", hostile.GROUPS)
def test_opens_upright_and_right_or_gives_one_line(
    group: str, reader: Reader, tmp_path: Path
) -> None:
    wrongs, count = [], 0
    for case in hostile.GROUPS[group]():
        path = case.write(tmp_path)
        before = sorted(tmp_path.iterdir())
        told, pixels = reader(path)
        if what := wrong(case, told, pixels):
            wrongs.append(f"{case.name[-60:]!r}: {what}")
        assert sorted(tmp_path.iterdir()) == before
        count += 1
        with contextlib.suppress(OSError):
            path.unlink()
    assert not wrongs, "\n".join(wrongs)
    assert count >= 5


def test_the_limits_are_real(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(hostile.black_bits(8_000))
    for seconds, most, what in ((SECONDS, 300 << 20, "not enough memory"), (0.01, BYTES, "longer")):
        reader = Reader(tmp_path, seconds=seconds, most=most)
        told, pixels = reader(large)
        reader.close()
        assert what in str(told)
        assert pixels is None


# --- the whole program


def program(*arguments: str | Path, folder: Path, before: Sequence[str] = ()) -> Run:
    """Runs `impasto` in a process of its own, within the time that a bad file may take."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "impasto", *map(str, arguments)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": SOURCE,
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",  # half of it, where files may not grow
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def broken_tiff(path: Path) -> None:
    (data,) = (sound.data for sound in hostile.plain() if sound.name == "b.tif")
    path.write_bytes(data[:60] + b"\xff" * 30 + data[90:])


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("page.jpg", lambda path: path.write_text("<p>404"), "not a JPEG"),
        ("two\nlines\x1b[2J.png", lambda path: path.write_text("<p>404"), "not a JPEG"),
        ("-o.png", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "truncated"),
        ("libtiff.tif", broken_tiff, "truncated or damaged"),  # a library with a voice of its own
        ("bomb.png", lambda path: path.write_bytes(hostile.black_bits(20_000)), "400 megapixels"),
        ("pipe.png", os.mkfifo, "not a regular file"),
        ("zero.png", lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    ],
)
def test_program_gives_one_line_and_writes_nothing(
    name: str, make: hostile.Make, why: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    options = ["-o", "out.png", "--size", "32", "--steps", "2"]
    began = time.monotonic()
    done = program("transfer", *options, "--", name, "sample:strokes", folder=tmp_path)
    assert time.monotonic() - began < SECONDS
    assert done.code == 2
    assert why in done.complaint
    assert done.complaint.isprintable()
    assert done.out == ""
    assert list(tmp_path.iterdir()) == [tmp_path / name]


PLAIN = ("--strength", "0", "--threads", "1")
"""The photo as it is: a result without work."""


def test_odd_names_are_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Program(tmp_path, monkeypatch, capsys)
    for name in ("🎨 two\nlines.png", "-o.png", "жанр:0.7@塞.png"):
        before = noise(tmp_path / name, 20).read_bytes()
        run.good("transfer", "-o", f"out{name}", *PLAIN, "--", name, "sample:strokes")
        assert np.array_equal(
            pictures.load(tmp_path / f"out{name}"), pictures.load(tmp_path / name)
        )
        assert (tmp_path / name).read_bytes() == before


def noise(path: Path, side: int) -> Path:
    """A photo whose PNG has some 3 × side² bytes."""
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    return pictures.save(path, pixels)


def test_full_disk_loses_nothing(tmp_path: Path) -> None:
    # A disk of 256 kB in a namespace of its own, in which it lives and dies.
    space = ["unshare", "--user", "--map-root-user", "--mount"]
    with contextlib.suppress(OSError):
        if not subprocess.run([*space, "true"], capture_output=True, check=False).returncode:
            space.append("sh")
    if space[-1] != "sh":
        pytest.skip("no namespaces here")
    for name, side in (("photos/a.png", 100), ("photos/b.png", 400), ("photos/c.png", 110)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        noise(tmp_path / name, side)
    (tmp_path / "out").mkdir()
    script = """
        mount -t tmpfs -o size=256k none out || exit 77
        echo old > out/b.png
        "$@"; echo code $?
        ls -A out; cat out/b.png; stat -c %s out/a.png out/c.png
    """
    inputs = ["transfer", "photos", "-s", "sample:strokes", "-o", "out", "--overwrite", *PLAIN]
    done = program(*inputs, folder=tmp_path, before=[*space, "-c", script, "sh"])
    if done.code == 77:
        pytest.skip("no mounts here")
    *_, code, a, b, c, old, size_a, size_c = done.out.splitlines()
    assert (code, a, b, c, old) == ("code 2", "a.png", "b.png", "c.png", "old")
    assert min(int(size_a), int(size_c)) > 30_000
    complaints = [line for line in done.err.splitlines() if line.startswith("impasto: ")]
    assert complaints == ["impasto: cannot write out/b.png: the disk is full"]
    assert "Traceback" not in done.err


def test_file_that_grows_too_large_keeps_the_old_one(tmp_path: Path) -> None:
    noise(tmp_path / "photo.png", 100)
    (tmp_path / "out.png").write_text("old")
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash"]
    inputs = ["transfer", "photo.png", "sample:strokes", "-o", "out.png", "--overwrite", *PLAIN]
    done = program(*inputs, folder=tmp_path, before=limited)
    assert done.code == 2
    assert "impasto: cannot write out.png: the file would be larger" in done.err
    assert "Traceback" not in done.err
    assert (tmp_path / "out.png").read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.png", "photo.png"]


def test_read_only_folder(tmp_path: Path) -> None:
    # Root may write anywhere, unless it gives that right up.
    meek = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    before = [] if os.geteuid() else meek
    if before and not shutil.which("setpriv"):
        pytest.skip("root, and no setpriv")
    (tmp_path / "photos").mkdir()
    noise(tmp_path / "photos" / "a.png", 40)
    hidden = noise(tmp_path / "photos" / "b.png", 40)
    hidden.chmod(0)
    out = tmp_path / "out"
    out.mkdir()
    inputs = ["transfer", "photos", "-s", "sample:strokes", "-o", "out", *PLAIN]
    out.chmod(0o555)
    try:
        done = program(*inputs, folder=tmp_path, before=before)
    finally:
        out.chmod(0o755)
    assert done.code == 2
    assert [line for line in done.err.splitlines() if line.startswith("impasto: ")] == [
        "impasto: cannot write out/a.png: permission denied",
        "impasto: cannot read photos/b.png: permission denied",
    ]
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_output_is_the_photo_under_another_name(
    link: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Program(tmp_path, monkeypatch, capsys)
    before = noise(tmp_path / "photo.png", 40).read_bytes()
    link(tmp_path / "photo.png", tmp_path / "link.png")
    for flags in (["-o", "link.png"], ["-o", "out.png", "--preview", "link.png"]):
        complaint = run.bad("transfer", "photo.png", "sample:strokes", *flags, "--overwrite")
        assert "link.png is an input too" in complaint
        assert (tmp_path / "photo.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
