"""A small HTTP server for a few GET pages that this process can tell of itself: metrics, signs of health.

It asks for no password and tells nothing private. Each answer is made while it is asked for, so a page has to come to
its end by itself.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from notify_tasks.errors import NotConfigured

REQUEST_SECONDS: Final = 5.0
"""Whoever asks has so long to do it."""
MOST_AT_ONCE: Final = 16
"""Further ones are answered with 503."""
PLAIN: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    body: bytes
    type: str = PLAIN
    status: int = HTTPStatus.OK


def words(text: str, status: int = HTTPStatus.OK) -> Page:
    """An answer of one line."""
    return Page(f"{text}\n".encode(), PLAIN, status)


class Exposed:
    """Pages on a port: taken at once, answered from `start` to `close`.

    Args:
        host: the address to listen on.
        port: the port; 0 takes a free one.
        pages: what makes the answer, by path.

    Raises:
        NotConfigured: the port cannot be had.
    """

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]) -> None:
        handler = type("Handler", (_Handler,), {"pages": pages, "room": threading.Semaphore(MOST_AT_ONCE)})
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = type("Server", (ThreadingHTTPServer,), {"address_family": family})
        try:
            self._server: ThreadingHTTPServer = server((host, port), handler)
        except OSError as error:
            raise NotConfigured(
                f"nothing can listen on {host}:{port} ({error.strerror or error}): choose another port or address"
            ) from None
        self.port: int = self._server.server_address[1]
        self.host = host
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="notify-http", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def close(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's socket, which would outlive the parent."""
        self._server.socket.close()


class _Handler(BaseHTTPRequestHandler):
    pages: Mapping[str, Callable[[], Page]]
    room: threading.Semaphore
    timeout = REQUEST_SECONDS
    protocol_version = "HTTP/1.1"
    server_version = "notify"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        self._answer(self._page())

    def _page(self) -> Page:
        make = self.pages.get(self.path.partition("?")[0])
        if make is None:
            return words(f"there is nothing here; there are {', '.join(self.pages)}", HTTPStatus.NOT_FOUND)
        if not self.room.acquire(blocking=False):
            return words("too many ask at once; ask again", HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            return make()
        except Exception as error:  # noqa: BLE001 - one page that fails stops no other
            return words(f"this failed ({type(error).__name__})", HTTPStatus.INTERNAL_SERVER_ERROR)
        finally:
            self.room.release()

    def _answer(self, page: Page) -> None:
        self.send_response(page.status)
        self.send_header("Content-Type", page.type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        self.wfile.write(page.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Nothing: a query string is private."""
