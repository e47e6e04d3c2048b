"""A loopback HTTP server that misbehaves exactly as a test tells it to."""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Literal

__all__ = ["FaultyServer", "Request", "Step"]


@dataclass(frozen=True)
class Step:
    """What the server does with one request: status line and headers, the body, the ending.

    ``status=None`` sends no status line and no headers. The true Content-Length is declared
    unless ``headers`` holds another one, or None for no such header. ``repeat`` sends the body
    that many times. The ending closes the connection, resets it, or falls silent until the
    client hangs up.
    """

    body: bytes = b""
    status: int | None = 200
    headers: Mapping[str, str | None] = field(default_factory=dict)
    repeat: int = 1
    ending: Literal["close", "reset", "silence"] = "close"


@dataclass
class Request:
    """What the client asked, the bytes of the body that it let the server send, and its leave.

    ``hung_up`` says whether the client closed the connection on a server that was silent.
    """

    path: str
    headers: Mapping[str, str]
    sent: int = 0
    hung_up: bool = False


class FaultyServer(ThreadingHTTPServer):
    """Answer the n-th request with the n-th step, and those that no step foresees with 418.

    Examples
    --------
    >>> from urllib.request import urlopen
    >>> with FaultyServer(Step(b"hello")) as server:
    ...     urlopen(f"{server.url}/greeting.txt").read()
    b'hello'
    >>> [request.path for request in server.requests]
    ['/greeting.txt']
    """

    # Closing waits for every handler, so that the record is complete afterwards.
    daemon_threads = False

    def __init__(self, *steps: Step) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.steps = deque(steps)
        self.requests: list[Request] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.005})

    def __enter__(self) -> FaultyServer:
        """Start serving."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving and wait for the answers under way."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10  # a client that neither reads nor hangs up must not block the suite
    server: FaultyServer

    def do_GET(self) -> None:
        step = self.server.steps.popleft() if self.server.steps else Step(status=418)
        request = Request(self.path, dict(self.headers))
        self.server.requests.append(request)
        self.close_connection = True
        # A client that hangs up is not an error here: request.sent tells how far it got.
        with suppress(ConnectionError):
            self._send_head(step)
            for _ in range(step.repeat):
                self.wfile.write(step.body)
                request.sent += len(step.body)
            if step.ending == "silence":
                request.hung_up = self.connection.recv(1) == b""
        if step.ending == "reset":
            self._reset()

    def _send_head(self, step: Step) -> None:
        if step.status is None:
            return
        self.send_response_only(step.status)
        length = str(len(step.body) * step.repeat)
        for name, value in {"Content-Length": length, **step.headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def _reset(self) -> None:
        # Closing a socket that lingers for no time drops the connection without a farewell.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the output of the tests clean."""
