"""A far end for HTTP providers: `HttpPeer` answers as it is told, and remembers what it saw."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self, TypeAlias


@dataclass(frozen=True)
class Seen:
    """One request, as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    connection: int
    """Which connection brought it, from 1 on."""


@dataclass(frozen=True)
class Reply:
    """An answer. A body that is neither text nor bytes is written as JSON.

    Args:
        length: what Content-Length says, where that is not the truth.
    """

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None

    def wire(self) -> bytes:
        body = self.body
        if not isinstance(body, bytes):
            body = (body if isinstance(body, str) else json.dumps(body)).encode()
        phrase = HTTPStatus(self.status).phrase if self.status in set(HTTPStatus) else "Said"
        length = len(body) if self.length is None else self.length
        headers = {"Content-Type": "application/json", "Content-Length": str(length), **self.headers}
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass(frozen=True)
class Drip:
    """Send the bytes of an answer one at a time; with `after`, from that byte on."""

    reply: Reply
    seconds: float
    after: int = 0


@dataclass(frozen=True)
class Mishap:
    """What goes wrong instead of an answer."""

    name: str


HANG = Mishap("takes the request and says nothing")
RESET = Mishap("takes the request and resets the connection")
RESET_FIRST = Mishap("resets the connection when it comes")
DEAF = Mishap("does not read the request")

Answer: TypeAlias = Reply | Drip | Mishap | bytes | Callable[[Seen], "Answer"]
"""Bytes are sent as they are, and then the connection is closed."""


class HttpPeer:
    """A server on this machine.

    Args:
        answers: one for each request, in order; the last one serves all further ones.
        tls: it speaks TLS by this.
        handle: takes each connection instead of all this.
        host: an address of this machine.
        port: 0 for a free one.
    """

    def __init__(
        self,
        *answers: Answer,
        tls: ssl.SSLContext | None = None,
        handle: Callable[[socket.socket], None] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._tls = tls
        self._handle = handle
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.requests: list[Seen] = []
        self.asides: dict[str, Answer] = {}
        """Answers by target, for what comes beside the messages (a token, say), and is not in `requests`."""
        self.asked_aside: list[Seen] = []
        self.connections = 0
        self.says(*answers)
        self._listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'http' if tls is None else 'https'}://{host}:{self.port}"

    def says(self, *answers: Answer) -> None:
        """Change what it answers from now on."""
        with self._changed:
            self._answers: list[Answer] = list(answers) or [Reply()]

    def until(self, condition: Callable[[], object], seconds: float = 30) -> None:
        """Wait until something that the peer sees has come true."""
        ends = time.monotonic() + seconds
        with self._changed:
            while not condition():
                left = ends - time.monotonic()
                assert left > 0, "the peer did not see what the test waits for"
                self._changed.wait(left)

    def stop_listening(self) -> None:
        """From now on, a new connection is refused."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def hang_up(self) -> None:
        """End every open connection from this side."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.stop_listening()
        self.hang_up()
        for each in self._threads:
            each.join(30)
            assert not each.is_alive(), "a thread of the peer did not end"

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                self.connections += 1
                number = self.connections
                first = self._answers[0]
                self._changed.notify_all()
            if first is RESET_FIRST:
                _reset(sock)
                continue
            self._open.append(sock)
            self._start(lambda sock=sock, number=number: self._serve(sock, number))  # type: ignore[misc]

    def _serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._handle is not None:
                self._handle(sock)
            else:
                self._talk(sock, number)
        sock.close()

    def _talk(self, sock: socket.socket, number: int) -> None:
        if self._tls is not None:
            self._open.remove(sock)
            sock = self._tls.wrap_socket(sock, server_side=True)
            self._open.append(sock)
        with sock, sock.makefile("rb") as stream:
            if self._answers[0] is DEAF:
                self._stopped.wait()
                return
            while (seen := _read(stream, number)) is not None:
                if not self._say(sock, seen, self._note(seen)):
                    return

    def _note(self, seen: Seen) -> Answer:
        with self._changed:
            aside = self.asides.get(seen.target)
            (self.requests if aside is None else self.asked_aside).append(seen)
            self._changed.notify_all()
            if aside is not None:
                return aside
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def _say(self, sock: socket.socket, seen: Seen, answer: Answer) -> bool:
        """Whether the connection goes on."""
        match answer:
            case Reply():
                sock.sendall(answer.wire())
            case Drip():
                data = answer.reply.wire()
                sock.sendall(data[: answer.after])
                for each in data[answer.after :]:
                    if self._stopped.wait(answer.seconds):
                        break
                    sock.sendall(bytes([each]))
            case bytes():
                sock.sendall(answer)
                return False
            case Mishap():
                if answer is HANG:
                    self._stopped.wait()
                _reset(sock)
                return False
            case _:
                return self._say(sock, seen, answer(seen))
        return answer.length is None if isinstance(answer, Reply) else True


def _read(stream: Any, number: int) -> Seen | None:
    line = stream.readline(65536)
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers = {}
    while (line := stream.readline(65536)) not in {b"\r\n", b""}:
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    length = int(headers.get("content-length", "0"))
    body = stream.read(length)
    return Seen(method, target, headers, body, number) if len(body) == length else None


def _reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(sock, ssl.SSLSocket):
        with contextlib.suppress(OSError):
            sock = socket.socket(fileno=sock.detach())
    sock.close()
