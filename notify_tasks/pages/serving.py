"""The server of the pages: who may ask, what a browser may do with what it gets, and live events.

A page is a tool on a developer's machine, so it listens on loopback unless told otherwise, asks for no password, and
defends itself against other pages of the same browser:

* a Host that is a name of somebody else's is refused (DNS rebinding needs a name: addresses and localhost are safe);
* a write that comes from another origin is refused (Fetch standard, `Origin` and `Sec-Fetch-Site`);
* no inline script runs, nothing is loaded from elsewhere, and no other page may frame it (CSP level 3).

Give Guard's headers no second thought in a route: a header that the route sets itself wins.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
import threading
from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STATIC: Final = Path(__file__).with_name("static")
LOOPBACK: Final = "127.0.0.1"
HEARTBEAT_SECONDS: Final = 15.0
"""A stream says something at least so often, so that a dead connection is noticed."""
_STOP_SECONDS: Final = 2

PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Content-Security-Policy of everything that does not set its own."""
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": PAGE_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
    "Cache-Control": "no-store",  # what is shown are people's messages
}


def framed_policy(*sources: str) -> str:
    """The Content-Security-Policy of a document of somebody else's, shown in a frame of a page.

    It runs no script, sends no form, loads nothing, has an origin of its own, and only our pages may frame it. A
    link in it opens a new tab when it is clicked.

    Args:
        sources: what is let through beside that, as directives: `img-src data:`.
    """
    return "; ".join(
        (
            "sandbox allow-popups allow-popups-to-escape-sandbox",
            "default-src 'none'",
            "style-src 'unsafe-inline'",
            *sources,
            "form-action 'none'",
            "frame-ancestors 'self'",
        )
    )


# --- who may ask ----------------------------------------------------------------------------------------


class Guard:
    """Middleware: refuses foreign hosts and foreign writes, and adds the security headers.

    Args:
        app: what it guards.
        hosts: names that are ours, beside localhost and every IP address.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = self._problem(scope["method"], Headers(scope=scope))
        if problem is not None:
            await PlainTextResponse(f"{problem}\n", 403)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _problem(self, method: str, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return "this page answers to localhost and to IP addresses; open it under one of them"
        if method in {"GET", "HEAD", "OPTIONS"}:
            return None
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if site not in {"same-origin", "none"} or (origin is not None and urlsplit(origin).netloc != host):
            return "another page may not change anything here; do it on the page itself"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._hosts:
            return True
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return False


def application(routes: Sequence[BaseRoute], *, hosts: Iterable[str] = ()) -> Starlette:
    """A page's application: its routes, `/static`, and `Guard` around both.

    Args:
        routes: its routes.
        hosts: as `Guard`'s.
    """
    made = Starlette(
        routes=[*routes, Mount("/static", _Static(directory=STATIC))],
        middleware=[Middleware(Guard, hosts=tuple(hosts))],
    )
    made.state.stopping = asyncio.Event()
    return made


class _Static(StaticFiles):
    """Static files that a browser asks for again after each update, and gets a 304 for."""

    def file_response(self, *args: Any, **kwargs: Any) -> Any:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


# --- live events ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServerSent:
    """One server-sent event (HTML standard, section 9.2).

    Args:
        event: its name, for `addEventListener`.
        data: anything JSON can hold.
    """

    event: str
    data: Any = field(default=None, repr=False)

    def encoded(self) -> bytes:
        return f"event: {self.event}\ndata: {json.dumps(self.data, ensure_ascii=False)}\n\n".encode()


class Hub:
    """Tells many streams that something has changed, without keeping anything for those that are slow.

    A stream looks at what there is, waits for a later version, and looks again: however many changes there were in
    between, it is told once.
    """

    def __init__(self) -> None:
        self.version = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def changed(self) -> None:
        """Something has changed. Call it on the event loop; from a thread, by `loop.call_soon_threadsafe`."""
        self.version += 1
        for each in self._waiting:
            if not each.done():
                each.set_result(None)

    async def wait(self, seen: int) -> int:
        """Wait until there is a version after `seen`, and return it."""
        while self.version == seen:
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
        return self.version


def event_stream(request: Request, source: AsyncIterator[ServerSent]) -> StreamingResponse:
    """Answer with a stream of events, which ends with the browser's tab or with the server.

    Args:
        request: the request, of an `application`.
        source: an async generator; it is closed at the end.
    """
    return StreamingResponse(_streamed(request.app.state.stopping, source), media_type="text/event-stream")


async def _streamed(stopping: asyncio.Event, source: AsyncIterator[ServerSent]) -> AsyncIterator[bytes]:
    over = asyncio.ensure_future(stopping.wait())
    coming = asyncio.ensure_future(anext(source, None))
    try:
        yield b"retry: 1000\n\n"
        while not stopping.is_set():
            await asyncio.wait((over, coming), timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                yield b": still here\n\n"
                continue
            event = coming.result()
            if event is None:
                break
            yield event.encoded()
            coming = asyncio.ensure_future(anext(source, None))
    finally:
        for task in (over, coming):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await coming
        closing = getattr(source, "aclose", None)
        if closing is not None:
            await closing()


# --- the server -----------------------------------------------------------------------------------------


def listen(host: str = LOOPBACK, port: int = 0, *, wished: int | None = None) -> socket.socket:
    """A socket to serve on.

    Args:
        host: the address to listen on.
        port: the port; 0 for a free one.
        wished: instead of `port`: this one if nobody has it, else a free one.

    Raises:
        OSError: the port is taken; the text names it.
    """
    for number in (port,) if wished is None else (wished, 0):
        family, *_, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(address)
        except OSError as error:
            made.close()
            if wished is None or number == 0:
                raise OSError(
                    error.errno, f"port {number} on {host} cannot be had: {error.strerror}; choose another"
                ) from None
            continue
        made.listen(128)  # a second process that wishes for it must not get it as well
        return made
    raise AssertionError("the last port tried either was had or raised")


def url_of(sock: socket.socket) -> str:
    """The address to open in a browser on this machine."""
    host, port = sock.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = LOOPBACK
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # signals belong to whoever runs the page


class PageServer:
    """Serves a page.

    In a running event loop: `await start()`, `await stop()`. Without one, `with PageServer(...)` runs it in a
    thread.

    Args:
        app: an `application`.
        sock: where to listen, from `listen`; it is closed at the end.
    """

    def __init__(self, app: Starlette, sock: socket.socket) -> None:
        self.url = url_of(sock)
        self._app = app
        self._sock = sock
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,  # and no access log: paths of messages are nobody's business
                access_log=False,
                log_level="warning",
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
        )
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Serve on the running loop; returns when it answers."""
        self._task = asyncio.create_task(self._server.serve([self._sock]))
        await self._server.up.wait()

    async def stop(self) -> None:
        """End the streams, answer what is being asked, and close the port."""
        self._app.state.stopping.set()
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._sock.close()

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(started),), name="page")
        self._thread.start()
        started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._thread is not None
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _run(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        try:
            await self.start()
        finally:
            started.set()
        await self._over.wait()
        await self.stop()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the thread, for `call_soon_threadsafe`."""
        if self._loop is None:
            raise RuntimeError("the page does not run in a thread of its own; use `with PageServer(...)`")
        return self._loop
