"""The page on which templates are written: every channel and locale of a type, side by side, as files change.

It renders with what workers render with: the same catalog, sandbox, inlining and limits. The browser gets the whole
page after each change and takes over the parts that differ, so that frames, tabs and scrolling stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from notify_tasks.pages.mails import framed
from notify_tasks.pages.markup import render
from notify_tasks.pages.preview_sheet import Previewer
from notify_tasks.pages.preview_values import Asked, Sheet
from notify_tasks.pages.serving import (
    Hub,
    PageServer,
    ServerSent,
    application,
    event_stream,
    framed_policy,
    listen,
)

log = logging.getLogger(__name__)

PORT: Final = 8026
"""Where the page is where nobody else is."""
LOOK_SECONDS: Final = 0.1
"""Between two looks at the templates folder."""
CHECK_AFTER_SECONDS: Final = 0.3
"""After a change, so that checking everything does not hold up the rendering that its author waits for."""
MAX_REQUEST: Final = 256 * 1024
MAX_LOCALES: Final = 30


class Page:
    """The routes of the preview.

    Args:
        previewer: what it shows.
        hub: told of every change in the folder.
    """

    def __init__(self, previewer: Previewer, hub: Hub) -> None:
        self._previewer = previewer
        self._hub = hub
        root = previewer.root.absolute()
        self._always = {"root": str(root), "root_name": root.name, "digest": _digest}

    def application(self) -> Starlette:
        return application(
            [
                Route("/", self.first),
                Route("/types/{name}", self.type, methods=["GET", "POST"]),
                Route("/mail/{digest}", self.mail),
                Route("/events", self.events),
            ]
        )

    async def first(self, _request: Request) -> Response:
        names = await run_in_threadpool(self._previewer.names)
        if names:
            return RedirectResponse(f"/types/{names[0]}", 302)
        return HTMLResponse(self._html(None, self._hub.version))

    async def type(self, request: Request) -> Response:
        """The page of a type: with its example, or with what the page itself asks for."""
        asked = Asked()
        if request.method == "POST":
            body = await _body(request)
            read = None if body is None else _asked(body)
            if read is None:
                return PlainTextResponse("this is no request of the page: reload it\n", 400)
            asked = read
        name = request.path_params["name"]
        html, found = await run_in_threadpool(self._type, name, asked)
        return HTMLResponse(html, 200 if found else 404)

    def _type(self, name: str, asked: Asked) -> tuple[str, bool]:
        version = self._hub.version  # before the files are read: a change meanwhile is shown by the next one
        sheet = None
        with suppress(OSError):  # its folder goes away just now: the page asks again
            sheet = self._previewer.sheet(name, asked) if name in self._previewer.names() else None
        return self._html(sheet, version, missing=name), sheet is not None

    async def mail(self, request: Request) -> Response:
        found = self._previewer.mail(request.path_params["digest"])
        if found is None:
            return PlainTextResponse("this mail is no longer kept: reload the page\n", 404)
        scheme = "dark" if request.query_params.get("scheme") == "dark" else "light"
        pictures = request.query_params.get("images") != "off"
        # The page measures how high the mail is, for which it must be of its origin; no script runs in it either way.
        policy = framed_policy(*(("img-src data:",) if pictures else ())).replace(
            "sandbox ", "sandbox allow-same-origin ", 1
        )
        return HTMLResponse(
            framed(found, scheme=scheme, pictures=pictures), headers={"Content-Security-Policy": policy}
        )

    async def events(self, request: Request) -> Response:
        return event_stream(request, self._changes())

    async def _changes(self) -> AsyncIterator[ServerSent]:
        seen = self._hub.version
        yield ServerSent("hello", seen)
        while True:
            seen = await self._hub.wait(seen)
            yield ServerSent("change", seen)

    def _html(self, sheet: Sheet | None, version: int, missing: str = "") -> str:
        values = {"sheet": sheet, "missing": missing, "marks": self._previewer.marks()}
        return render("preview.html", **self._always, **values, version=version)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


async def _body(request: Request) -> Any:
    """What the page sent; None where it is too large or no JSON."""
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_REQUEST:
            return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _asked(body: Any) -> Asked | None:
    """What the page asks for; None where it is of another form: only the page itself speaks to this route."""
    if not isinstance(body, dict):
        return None
    values: dict[str, Any] = {key: body[key] for key in _FORMS if body.get(key) is not None}
    if not all(_FORMS[key](value) for key, value in values.items()):
        return None
    values |= {key: tuple(values.get(key, ())) for key in ("hidden", "added")}
    return replace(Asked(), **values)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)


def _is_locales(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_LOCALES and all(isinstance(it, str) for it in value)


_FORMS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "payload": _is_text,
    "last": _is_text,
    "timezone": _is_text,
    "bare": _is_switch,
    "attachment": _is_switch,
    "hidden": _is_locales,
    "added": _is_locales,
}


# --- following the folder -------------------------------------------------------------------------------


class Watcher:
    """Looks at the templates folder, and says when something in it has changed.

    Args:
        previewer: of the folder.
        server: whose loop `hub` lives on.
        hub: what is told.
    """

    def __init__(self, previewer: Previewer, server: PageServer, hub: Hub) -> None:
        self._previewer = previewer
        self._server = server
        self._hub = hub
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="templates", daemon=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def _run(self) -> None:
        seen: dict[str, object] = {}
        while True:
            try:
                now = self._previewer.signatures()
                if now != seen:
                    self._changed([name for name in now if now[name] != seen.get(name)], first=not seen)
                    seen = now
            except (
                OSError
            ) as error:  # a file went away in between: the next look sees the folder as it is then
                log.debug("the templates folder cannot be read just now: %s", type(error).__name__)
            if self._over.wait(LOOK_SECONDS):
                return

    def _tell(self) -> None:
        self._server.loop.call_soon_threadsafe(self._hub.changed)

    def _changed(self, names: list[str], *, first: bool) -> None:
        """Tell at once; then look for everything that is wrong, which takes longer, and tell that too."""
        if not first:
            self._tell()
            self._over.wait(CHECK_AFTER_SECONDS)
        for name in sorted(names, key=self._previewer.is_shown, reverse=True):
            if self._over.is_set():
                return
            before = self._previewer.marks()
            self._previewer.check(name)
            if self._previewer.is_shown(name) or self._previewer.marks() != before:
                self._tell()


@contextmanager
def serving(root: Path, port: int | None = None) -> Iterator[str]:
    """Serve the page until the block ends.

    Args:
        root: the templates folder.
        port: where; None for the usual port, or a free one where that is taken.

    Yields:
        Its address.

    Raises:
        NotConfigured: there is no such folder.
        OSError: the port cannot be had.
    """
    previewer = Previewer(root)
    hub = Hub()
    sock = listen(wished=PORT) if port is None else listen(port=port)
    with (
        PageServer(Page(previewer, hub).application(), sock) as server,
        Watcher(previewer, server, hub).running(),
    ):
        yield server.url
