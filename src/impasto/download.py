"""Downloads that can be trusted: resumed where they stopped, checked, in place in one step.

What has come so far lies in `<path>.part` and outlives a lost connection, Ctrl-C and a full disk;
`<path>` itself appears whole and checked, or not at all. Proxies are those of the environment
(`https_proxy`, ...).
"""

import errno
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from impasto._version import __version__
from impasto.errors import WeightsError
from impasto.files import os_reason

__all__ = ["Checksum", "FetchProgress", "download", "part_of"]

ATTEMPTS: Final = 5
"""Connections that one call makes at most."""

PAUSE_S: Final = 1.0
"""Seconds before the second connection; twice as many before each further one."""

TIMEOUT_S: Final = 30.0
"""Seconds without a byte after which a connection counts as dead."""

CHUNK: Final = 1 << 20


class Checksum(NamedTuple):
    """What a file's bytes must hash to.

    Attributes:
        algorithm: the hash function.
        digits: its value in hexadecimal digits; the first few of them will do.
    """

    algorithm: Literal["md5", "sha256"]
    digits: str

    @property
    def label(self) -> str:
        """The name of the hash function as people write it."""
        return {"md5": "MD5", "sha256": "SHA-256"}[self.algorithm]

    def of(self, path: Path) -> str:
        """The hash of a file, all digits; the file is streamed.

        Raises:
            WeightsError: it cannot be read.
        """
        try:
            with path.open("rb") as file:
                new = lambda: hashlib.new(self.algorithm, usedforsecurity=False)  # noqa: E731
                return hashlib.file_digest(file, new).hexdigest()
        except OSError as error:
            raise WeightsError(f"cannot read {path}: {os_reason(error)}") from None

    def fits(self, found: str) -> bool:
        """Whether a hash as given by `of` is the one that is wanted."""
        return found.startswith(self.digits)


class FetchProgress(NamedTuple):
    """How far a download is.

    Attributes:
        stage: what is being done: `waiting`, `downloading`, `checking` or `converting`.
        done: bytes that are here.
        total: bytes of the whole file; None where the server does not say.
    """

    stage: str
    done: int = 0
    total: int | None = None


class _BrokenError(Exception):
    """A connection that gave less than it should have; another may give the rest."""


class _UnreachableError(Exception):
    """A server that did not give anything."""


def part_of(path: Path) -> Path:
    """Where an unfinished download of `path` lies."""
    return path.with_name(f"{path.name}.part")


def download(url: str, path: Path, checksum: Checksum) -> Iterator[FetchProgress]:
    """Downloads `url` to `path`, going on from what an earlier call has left.

    Only one process may do this for one `path` at a time; hold `files.lock`.

    Args:
        url: an `http` or `https` address.
        path: the file to make. Its folder must exist; a file that is there is replaced.
        checksum: what the file must hash to.

    Yields:
        How far it is, about once per received chunk.

    Raises:
        WeightsError: the server, the connection, the disk or the checksum is at fault; the line
            names `url` and `path`, where the file can also be put by hand.
    """
    if not re.match(r"https?://[^/]", url):
        raise WeightsError(f"{url!r} is no address to download from; it begins with https://")
    part = part_of(path)
    resumed = _size(part) > 0
    yield from _Download(url, path).fill()
    yield FetchProgress("checking", _size(part), _size(part))
    found = checksum.of(part)
    if resumed and not checksum.fits(found):  # what an earlier call left was of another file
        _remove(part)
        yield from _Download(url, path).fill()
        found = checksum.of(part)
    if not checksum.fits(found):
        _remove(part)
        raise WeightsError(
            f"what came from {url} is not the file that was asked for and was removed: its "
            f"{checksum.label} is {found[: len(checksum.digits)]}, not {checksum.digits}; "
            f"try again, or put the right file at {path}"
        )
    with _writing(path):
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)


class _Download:
    """What is known about a download from one connection to the next."""

    def __init__(self, url: str, path: Path) -> None:
        self._url = url
        self._path = path
        self._part = part_of(path)
        self._etag = ""  # the server's mark of this version of the file

    def fill(self) -> Iterator[FetchProgress]:
        """Receives what the part lacks, over several connections if it must be."""
        receiving = False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                for progress in self._receive():
                    receiving = True
                    yield progress
                return
            except (_BrokenError, _UnreachableError) as error:
                hopeless = isinstance(error, _UnreachableError) and not receiving
                if hopeless or attempt == ATTEMPTS:
                    raise WeightsError(self._failure(str(error))) from None
            time.sleep(PAUSE_S * 2 ** (attempt - 1))

    def _failure(self, reason: str) -> str:
        """The line for a download that did not come to its end."""
        again = "try again when online"
        if kept := _size(self._part):
            again = f"{kept / 1e6:.1f} MB are kept, and the next try goes on from there"
        by_hand = f"or put that file at {self._path} by hand"
        return f"cannot download {self._url}: {reason}; {again}, {by_hand}"

    def _receive(self) -> Iterator[FetchProgress]:
        """Receives what the part lacks over one connection."""
        start = _size(self._part)
        response = self._open(start)
        if response is None:
            return  # it is all here
        with response:
            done = _first_byte(response)
            if done not in (0, start):
                _remove(self._part)
                raise _BrokenError("the server sent another part of the file than was asked for")
            if response.headers.get_content_type() == "text/html":
                raise _UnreachableError("a web page came in the place of the file")
            etag = response.headers.get("ETag", "")
            self._etag = "" if etag.startswith("W/") else etag
            total = None if response.length is None else done + response.length
            mode = "ab" if done else "wb"
            with _writing(self._part), self._part.open(mode, buffering=0) as file:
                while chunk := _read(response):
                    done += len(chunk)
                    while chunk:
                        chunk = chunk[file.write(chunk) :]
                    yield FetchProgress("downloading", done, total)
        if total is not None and done < total:
            raise _BrokenError(
                f"the connection broke after {done / 1e6:.1f} of {total / 1e6:.1f} MB"
            )

    def _open(self, start: int) -> HTTPResponse | None:
        """The server's answer when asked for the bytes from `start`; None if there are no more."""
        headers = {"User-Agent": f"impasto/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self._etag:
                headers["If-Range"] = self._etag
        try:
            answer: HTTPResponse = urlopen(Request(self._url, headers=headers), timeout=TIMEOUT_S)
            return answer
        except HTTPError as error:
            with error:
                if error.code != 416 or not start:
                    raise _UnreachableError(
                        f"the server says {error.code} {error.reason}"
                    ) from None
                if error.headers.get("Content-Range", "").strip() == f"bytes */{start}":
                    return None
            _remove(self._part)  # longer than the file, so of another one
            raise _BrokenError("the server has a shorter file than what is here") from None
        except (OSError, HTTPException, ValueError) as error:
            raise _UnreachableError(_reason(error)) from None


def _first_byte(response: HTTPResponse) -> int:
    """Where in the file the answer begins; -1 if it does not say so."""
    if response.status != 206:
        return 0
    match = re.match(r"bytes (\d+)-\d+/", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _read(response: HTTPResponse) -> bytes:
    """The next bytes; none at the end, and none where the connection was closed too early."""
    try:
        return response.read1(CHUNK)
    except (OSError, HTTPException, ValueError) as error:
        raise _BrokenError(f"the connection broke: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Why there is no connection, in a few words."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, socket.gaierror):
        return "its name cannot be looked up"
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT_S:.0f} s"
    return os_reason(cause) if isinstance(cause, OSError) else str(cause) or type(cause).__name__


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Says in one line why `path` could not be written."""
    try:
        yield
    except OSError as error:
        told = f"cannot write {path}: {os_reason(error)}"
        if error.errno == errno.ENOSPC:
            told += "; what has come so far is kept: make room, and the next try goes on from there"
        raise WeightsError(told) from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _remove(path: Path) -> None:
    with _writing(path):
        path.unlink(missing_ok=True)
