"""A loopback HTTP server that misbehaves as a test prescribes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from select import select
from threading import Event, Thread
from time import monotonic
from typing import Literal

__all__ = ["Answer", "FaultyServer", "Request", "Step"]


@dataclass(frozen=True)
class Step:
    """The answer to one request: status line and headers, body, ending.

    ``status=None`` sends no status line and no headers. The true Content-Length is declared
    unless ``headers`` holds another one, or None for no such header. ``repeat`` sends the body
    that many times. ``drip`` is the pause, in seconds, before each ``piece`` bytes of the body.
    The ending closes the connection, resets it, or is silent until the client hangs up.
    """

    body: bytes = b""
    status: int | None = 200
    headers: Mapping[str, str | None] = field(default_factory=dict)
    repeat: int = 1
    drip: float = 0.0
    piece: int = 1
    ending: Literal["close", "reset", "silence"] = "close"

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it is sent."""
        # In pieces, so that ``sent`` counts what was sent before the client hung up.
        size = self.piece if self.drip else 65_536
        for _ in range(self.repeat):
            for start in range(0, len(self.body), size):
                yield self.body[start : start + size]


@dataclass
class Request:
    """A request, and the number of bytes of the body that the server could send.

    ``hung_up`` tells whether the client closed the connection while the server was silent.
    """

    path: str
    headers: Mapping[str, str]
    method: str = "GET"
    sent: int = 0
    hung_up: bool = False


# A step may depend on the request, for instance on Range.
Answer = Step | Callable[[Request], Step]


class FaultyServer(ThreadingHTTPServer):
    """Answer the n-th request with the n-th step, and further requests with status 418.

    With ``forever`` the last step answers all further requests instead. HEAD is always refused.

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
    request_queue_size = 64  # many clients at once

    def __init__(self, *steps: Answer, forever: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.steps = steps
        self.forever = forever
        self.requests: list[Request] = []
        self.closing = Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._turn = count()
        self._connections: list[socket.socket] = []
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.005})

    def __enter__(self) -> FaultyServer:
        """Start serving."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving, and wait until all answers have ended."""
        self.closing.set()
        self.shutdown()
        self._thread.join()
        for connection in self._connections:
            with suppress(OSError):  # closed long ago
                connection.shutdown(socket.SHUT_WR)
        self.server_close()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection, and record it."""
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def next_answer(self) -> Answer:
        """Return the answer to the next request."""
        turn = next(self._turn)
        if self.forever:
            turn = min(turn, len(self.steps) - 1)
        return self.steps[turn] if turn < len(self.steps) else Step(status=418)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A client that does not read, or that waits for every dripping byte, must not block the suite.
    timeout = 10
    longest_answer = 60.0
    server: FaultyServer

    def do_GET(self) -> None:
        request = Request(self.path, dict(self.headers))
        self.server.requests.append(request)
        answer = self.server.next_answer()
        step = answer if isinstance(answer, Step) else answer(request)
        self.close_connection = True
        self._end = monotonic() + self.longest_answer
        # A client that hangs up is not an error here: request.sent tells how far it got.
        with suppress(ConnectionError):
            self._send_head(step)
            for piece in step.pieces():
                if step.drip and self._is_over(step.drip):
                    return
                self.wfile.write(piece)
                request.sent += len(piece)
            if step.ending == "silence":
                request.hung_up = self._is_left()
        if step.ending == "reset":
            self._reset(step)

    def do_HEAD(self) -> None:
        self.server.requests.append(Request(self.path, dict(self.headers), "HEAD"))
        self.close_connection = True
        self._send_head(Step(status=405, headers={"Allow": "GET"}))

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

    def _is_over(self, pause: float = 0.0) -> bool:
        return self.server.closing.wait(pause) or monotonic() > self._end

    def _is_left(self) -> bool:
        """Return whether the client hangs up before the server closes."""
        while not select([self.connection], [], [], 0.01)[0]:
            if self._is_over():
                return False
        return self.connection.recv(1) == b""

    def _reset(self, step: Step) -> None:
        if step.body:
            self.server.closing.wait(0.05)  # a reset drops bytes that have not arrived
        # Closing a socket with a linger time of 0 sends a reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the output of the tests clean."""
