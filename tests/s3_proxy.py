"""A way to an S3 server on loopback on which requests meet with accidents.

with S3Proxy("http://127.0.0.1:5000") as proxy:
    proxy.faults = lambda request: "reset" if request.number % 7 == 0 else None
    ...                                     # speak to proxy.url
"""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple, Self
from urllib.parse import urlsplit

Fault = Literal["error 500", "reset", "slow", "lost answer"]
"""Refused; cut off; answered in drops; done, and then cut off before it is answered."""

SLOW_PARTS, SLOW_PAUSE_S = 10, 0.05
ANSWERS = ("ETag", "Content-Type", "Content-Range", "Last-Modified")


class S3Request(NamedTuple):
    """What a fault is chosen by."""

    number: int
    """Requests before this one."""
    method: str
    path: str


class S3Proxy:
    """Forwards requests, except where `faults` names what shall go wrong with one."""

    def __init__(self, upstream: str, port: int = 0) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.faults: Callable[[S3Request], Fault | None] = lambda _: None
        self.met: list[Fault] = []
        """The accidents so far."""
        self.counted = 0
        """Requests so far."""
        self.carried = 0
        """Bytes of bodies so far, either way."""
        self.latency_s = 0.0
        """Time that each request waits, alongside others."""
        self.bytes_per_s: float | None = None
        """Bandwidth that all requests share, bodies of both directions together."""
        self._line_free_at = 0.0
        self._counting = threading.Lock()
        self._server = _Server(("127.0.0.1", port), self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault_of(self, method: str, path: str) -> Fault | None:
        """Count a request and say what goes wrong with it."""
        with self._counting:
            fault = self.faults(S3Request(self.counted, method, path))
            self.counted += 1
            if fault is not None:
                self.met.append(fault)
        return fault

    def carry(self, num_bytes: int) -> None:
        """Wait as long as a body takes on the line, behind those that are on it already."""
        with self._counting:
            self.carried += num_bytes
            if self.bytes_per_s is None:
                return
            now = time.monotonic()
            self._line_free_at = max(self._line_free_at, now) + num_bytes / self.bytes_per_s
            wait_s = self._line_free_at - now
        time.sleep(wait_s)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], proxy: S3Proxy) -> None:
        super().__init__(address, _Handler)
        self.proxy = proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet: clients that were cut off cut us off."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.proxy.fault_of(self.command, self.path)
        time.sleep(self.server.proxy.latency_s)
        self.server.proxy.carry(len(body))
        if fault == "reset":
            return self._cut_off()
        if fault == "error 500":
            return self._answer(500, {}, b"")
        connection = http.client.HTTPConnection(self.server.proxy.upstream, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers))
        found = connection.getresponse()
        content = found.read()
        connection.close()
        if fault == "lost answer":
            return self._cut_off()
        self.server.proxy.carry(len(content))
        headers = {name: found.headers[name] for name in ANSWERS if name in found.headers}
        if self.command == "HEAD":
            headers["Content-Length"] = found.headers.get("Content-Length", "0")
        self._answer(found.status, headers, content, slowly=fault == "slow")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward  # noqa: N815

    def _answer(
        self, status: int, headers: dict[str, str], content: bytes, *, slowly: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        step = -(-len(content) // SLOW_PARTS) if slowly else len(content)
        for start in range(0, len(content), max(1, step)):
            self.wfile.write(content[start : start + step])
            if slowly:
                self.wfile.flush()
                time.sleep(SLOW_PAUSE_S)

    def _cut_off(self) -> None:
        """Reset the connection, as a server does that dies."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""
