"""Runs the gateway until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Generator
from typing import Final

import uvicorn
from starlette.applications import Starlette

from notify_tasks.health import EVERY_SECONDS

MAX_CONNECTIONS: Final = 500
"""Further ones are answered with 503."""
KEEP_ALIVE_SECONDS: Final = 30
STOP_SECONDS: Final = 10
"""What has begun gets so long to end."""


BEAT_TICKS: Final = round(EVERY_SECONDS * 10)
"""uvicorn's loop ticks ten times a second."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, up: Callable[[], None], beat: Callable[[], None]) -> None:
        super().__init__(config)
        self._up = up
        self._beat = beat

    async def on_tick(self, counter: int) -> bool:
        """On the loop that answers: a sign of life."""
        if counter % BEAT_TICKS == 0:
            self._beat()
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Ended by a signal, this process has ended well: uvicorn's own way is to raise the signal again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on.

    Args:
        host: the address to listen on.
        port: the port; 0 for a free one.

    Raises:
        OSError: it cannot be had.
    """
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def serve(
    app: Starlette,
    sock: socket.socket,
    up: Callable[[], None] = lambda: None,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Serve until a signal ends it. The main thread only.

    Args:
        app: the application.
        sock: from `listen`; it is closed at the end.
        up: called when it answers.
        beat: called every few seconds on the loop that answers.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # a query string is private
        log_level="warning",
        lifespan="off",
        ws="none",
        proxy_headers=False,  # nothing here believes who a caller says to be
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    with sock:
        asyncio.run(_Server(config, up, beat).serve([sock]))
