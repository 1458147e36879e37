"""A small web server in this process, whose faults can be ordered."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

CHUNK = 1 << 14


class Fault(NamedTuple):
    """What goes wrong with one answer.

    Attributes:
        status: refuses with this code.
        dies_after: closes the connection after so many bytes.
        resets: ... and does so rudely.
        ignores_range: sends the whole file whatever was asked for.
        shift: sends bytes from so many places further on than was asked for, and says so.
        no_length: does not say how long the file is.
        page: sends a web page.
        pause_s: waits so long before every chunk, s.
        gate: waits for this before the first chunk.
    """

    status: int = 0
    dies_after: int | None = None
    resets: bool = False
    ignores_range: bool = False
    shift: int = 0
    no_length: bool = False
    page: bool = False
    pause_s: float = 0
    gate: threading.Event | None = None


@dataclass
class Mirror:
    """A server of one file, under whatever name it is asked for.

    Attributes:
        data: the file.
        etag: its version.
        faults: of the answers to come, one each; after that all goes well.
        requests: the headers of every request, in lower case, with its address as `path`.
        url: where the file is.
    """

    data: bytes
    etag: str = '"one"'
    faults: list[Fault] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def ranges(self) -> list[str | None]:
        """The ranges that were asked for."""
        return [request.get("range") for request in self.requests]


@contextmanager
def mirror(data: bytes, name: str = "file.bin") -> Iterator[Mirror]:
    """A server of `data` on this machine."""
    served = Mirror(data)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {key.lower(): value for key, value in self.headers.items()}
            served.requests.append({**headers, "path": self.path})
            with suppress(ConnectionError):
                answer(self, served, served.faults.pop(0) if served.faults else Fault())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/{name}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


def answer(handler: BaseHTTPRequestHandler, served: Mirror, fault: Fault) -> None:
    """Answers one request."""
    if fault.status:
        handler.send_error(fault.status)
        return
    data = b"<!DOCTYPE html><p>Please log in" if fault.page else served.data
    start = 0
    wanted = handler.headers.get("Range", "")
    same = handler.headers.get("If-Range") in (None, served.etag)
    if wanted and same and not fault.ignores_range:
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(data):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(data)}")
            handler.end_headers()
            return
        start += fault.shift
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    else:
        handler.send_response(200)
    kind = "text/html; charset=utf-8" if fault.page else "application/octet-stream"
    handler.send_header("Content-Type", kind)
    handler.send_header("ETag", served.etag)
    if not fault.no_length:
        handler.send_header("Content-Length", str(len(data) - start))
    handler.end_headers()
    if fault.gate:
        fault.gate.wait(60)
    end = len(data) if fault.dies_after is None else min(len(data), start + fault.dies_after)
    for place in range(start, end, CHUNK):
        time.sleep(fault.pause_s)
        handler.wfile.write(data[place : min(place + CHUNK, end)])
    if fault.resets:
        time.sleep(0.1)  # a reset throws away what the other side has not read
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.close()
