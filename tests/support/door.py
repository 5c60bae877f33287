"""A door that providers report to: it keeps every POST, and can be told to fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass(frozen=True)
class Posted:
    url: str
    headers: dict[str, str]
    body: bytes


class Door:
    """What came, in its order. Each post is answered with the next status of `fails`, or else with 200.

    A 200 says `{"code": 0}`, as Alibaba Cloud wants to read it, and a 202 says another code.

    Args:
        origin: `http://127.0.0.1:PORT`.
    """

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.posted: list[Posted] = []
        self.fails: list[int] = []

    def wait(self, many: int, seconds: float = 30) -> list[Posted]:
        """The first so many posts, when they are there."""
        until(lambda: len(self.posted) >= many, seconds)
        return self.posted[:many]

    def clear(self) -> None:
        self.posted.clear()
        self.fails.clear()


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for a condition."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come about in time"
        time.sleep(0.005)


@contextmanager
def open_door() -> Iterator[Door]:
    """A door on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = door.fails.pop(0) if door.fails else 200
            door.posted.append(Posted(door.origin + self.path, headers, body))
            answer = {200: b'{"code":0,"msg":"OK"}', 202: b'{"code":1,"msg":"busy"}'}.get(status, b"")
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    door = Door(f"http://127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield door
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
