"""Safe files: atomic writes, locks between processes, checksums.

Everything that impasto writes goes through `atomic_path`, so that a process that is killed, or a
disk that fills up, leaves the old file or the new one and never half of one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from impasto.errors import ImpastoError

__all__ = [
    "atomic_path",
    "lock",
    "os_reason",
    "sha256_file",
    "sweep",
    "write_bytes_atomic",
    "write_text_atomic",
]

StrPath = str | os.PathLike[str]

_REASONS = {
    errno.EACCES: "permission denied",
    errno.EFBIG: "the file would be larger than allowed here",
    errno.EISDIR: "it is a folder",
    errno.ELOOP: "it is a link that leads back to itself",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOENT: "no such file or folder",
    errno.ENOSPC: "the disk is full",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EPERM: "permission denied",
    errno.EROFS: "the disk is read-only",
}

# What a write can fail with although the file itself was opened well.
_DISK_ERRORS = {errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EROFS}

_TEMPORARY = ".impasto-"  # how the names of temporary files begin

_POLL_S = 0.05  # between two tries for a lock


def os_reason(error: OSError) -> str:
    """The system's reason for ``error`` in a few plain words, without the path."""
    if error.errno in _REASONS:
        return _REASONS[error.errno]
    text = error.strerror or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]


@contextmanager
def atomic_path(target: StrPath) -> Iterator[Path]:
    """Gives a temporary path to write to, which becomes ``target`` when the block ends well.

    The temporary file is empty, hidden, in the folder of ``target`` and ends in the same suffix.
    At the end it is flushed to disk and moved over ``target`` in one step; if the block raises
    anything, it is removed and ``target`` stays as it was. The new file has the permissions of
    the old one, or those of any newly created file. A link is followed: what it points to is
    replaced, the link stays.

    Args:
        target: The file to write. Its folder must exist.

    Yields:
        The path to write to. It may be written in place or replaced.

    Raises:
        ImpastoError: ``target`` cannot be written (no such folder, permission, disk full, ...).
    """
    final, mode = _writable(Path(target))
    temporary = final.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}{final.suffix}")
    try:
        # Created here, exclusively, and not by the block: the system applies the umask for us.
        temporary.touch(exist_ok=False)
        if mode is None:
            mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(final)
    except OSError as error:
        # The block may fail over a file or a connection of its own: that is not ours to tell.
        if error.filename in (temporary, str(temporary)) or error.errno in _DISK_ERRORS:
            raise ImpastoError(f"cannot write {os.fspath(target)}: {os_reason(error)}") from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sweep(folder: Path, *, older: float = 0) -> None:
    """Removes what `atomic_path` could not, since its process was killed.

    It looks in a folder and in those directly in it.

    Args:
        folder: one that no other process writes to, or
        older: than what, s, nobody can still be writing.
    """
    for path in (*folder.glob(f"{_TEMPORARY}*"), *folder.glob(f"*/{_TEMPORARY}*")):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= older:
                path.unlink()


def _writable(target: Path) -> tuple[Path, int | None]:
    """Where a write to ``target`` goes, and the permissions of what is there (None: nothing)."""
    try:
        with suppress(RuntimeError):  # a link that loops: left to stat, which names the reason
            if target.is_symlink():
                target = target.resolve()
        if not target.parent.exists():
            raise ImpastoError(
                f"cannot write {target}: the folder {target.parent} does not exist; create it first"
            )
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target, None
    except OSError as error:
        raise ImpastoError(f"cannot write {target}: {os_reason(error)}") from error
    if stat.S_ISDIR(mode):
        raise ImpastoError(f"cannot write {target}: it is a folder")
    if not stat.S_ISREG(mode):
        # Moving a file over /dev/null would replace the device.
        raise ImpastoError(f"cannot write {target}: it is not a regular file")
    if not os.access(target, os.W_OK):
        raise ImpastoError(f"cannot write {target}: permission denied")
    return target, stat.S_IMODE(mode)


def write_bytes_atomic(path: StrPath, data: bytes) -> None:
    """Writes ``data`` to ``path`` in one step; see `atomic_path` for what is promised.

    Raises:
        ImpastoError: ``path`` cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomic(path: StrPath, data: str) -> None:
    r"""Writes ``data`` to ``path`` as UTF-8, ``\n`` kept as it is; see `atomic_path`.

    Raises:
        ImpastoError: ``path`` cannot be written.
    """
    write_bytes_atomic(path, data.encode("utf-8"))


@contextmanager
def lock(path: StrPath, *, timeout: float | None = 0) -> Iterator[None]:
    """Holds the lock on ``path``: one holder at a time among all processes and threads.

    The lock is on the file ``<path>.lock`` beside ``path`` (which itself may be a folder, or not
    exist yet). It is advisory: only those who ask for it are held back. The system lets it go
    when the process ends, however it ends. The lock file stays, empty: removing it would let two
    processes hold locks on two files of the same name.

    Args:
        path: The thing to lock. Its folder must exist.
        timeout: How long to wait for another holder, in seconds; None waits for ever.

    Raises:
        ImpastoError: Another process has it, or the lock file cannot be made.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        handle = os.open(f"{os.fspath(path)}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ImpastoError(f"cannot lock {os.fspath(path)}: {os_reason(error)}") from error
    try:
        while not _try_lock(handle, path):
            if deadline is not None and time.monotonic() >= deadline:
                raise ImpastoError(
                    f"{os.fspath(path)} is in use by another impasto process; "
                    "wait for it to end or use another path"
                )
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            _unlock(handle)
    finally:
        os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _lock_now(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

    def _unlock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock_now(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(handle: int) -> None:
        # Said aloud and not left to close(): a forked child may hold the same open file.
        fcntl.flock(handle, fcntl.LOCK_UN)


def _try_lock(handle: int, path: StrPath) -> bool:
    """Takes the lock if it is free; False if another has it."""
    try:
        _lock_now(handle)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK):
            return False
        raise ImpastoError(f"cannot lock {os.fspath(path)}: {os_reason(error)}") from error
    return True


def sha256_file(path: StrPath) -> str:
    """The SHA-256 of the file's bytes, 64 hexadecimal digits; the file is streamed.

    Raises:
        ImpastoError: The file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImpastoError(f"cannot read {os.fspath(path)}: {os_reason(error)}") from error
