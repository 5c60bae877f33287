"""`/u/<token>`: where a person ends what they get, or takes that back. No cookie, no redirect, nothing is logged.

GET   a page with a button; it changes nothing, since mail scanners follow links
POST  `List-Unsubscribe=One-Click` (RFC 8058) switches off at once; `choice=off` and `choice=on` are the buttons
404   the token is not one of ours
503   PostgreSQL is away: try again
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from notify_tasks import choices
from notify_tasks.choices import OFF, ON
from notify_tasks.gateway.parts import Parts
from notify_tasks.gateway.unsubscribe_page import page
from notify_tasks.preferences import BY_LINK, switched
from notify_tasks.store import preferences as stored
from notify_tasks.store.database import DatabaseError
from notify_tasks.unsubscribing import PATH, Link

logger = logging.getLogger(__name__)

MAX_BODY: Final = 8192
BODY_SECONDS: Final = 10.0
AT_ONCE: Final = 4
"""Requests that use PostgreSQL at the same time."""
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}


class Unsubscribe:
    """The door for people who want no more of it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._limiter: anyio.CapacityLimiter | None = None

    def routes(self) -> Sequence[BaseRoute]:
        """Its routes."""
        return [Route(PATH + "{token}", self._answer, methods=["GET", "POST"])]

    async def _answer(self, request: Request) -> Response:
        said: str | None = None
        if request.method == "POST":
            try:
                said = _said(await asyncio.wait_for(_bounded(request), BODY_SECONDS))
            except TimeoutError:
                return Response(status_code=408, headers={"Connection": "close"})
            except ClientDisconnect:
                return Response(status_code=400)
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(AT_ONCE)
        language = request.headers.get("accept-language", "")
        return await anyio.to_thread.run_sync(
            self._answered, request.path_params["token"], said, language, limiter=self._limiter
        )

    def _answered(self, token: str, said: str | None, language: str) -> Response:
        links = self._parts.links
        link = links.read(token) if links is not None else None
        if link is None:
            return HTMLResponse(page("unknown", language), 404, HEADERS)
        try:
            wanted = self._wanted(link, said)
        except DatabaseError as error:
            logger.warning("a link to unsubscribe was not answered: %s", type(error).__name__)
            return HTMLResponse(page("later", language), 503, HEADERS | {"Retry-After": "30"})
        return HTMLResponse(page("on" if wanted else "off", language, link.category), 200, HEADERS)

    def _wanted(self, link: Link, said: str | None) -> bool:
        """Do what was said, and tell what holds. A person who was erased gets nothing whatever they say."""
        database = self._parts.database
        if said is None:
            found = stored.get(database, link.recipient_id, tenant=link.tenant)
        else:
            make = switched(link.category, link.channel, said)
            found = stored.change(database, link.recipient_id, make, by=BY_LINK, tenant=link.tenant).now
        if found is None:
            return False
        return choices.read(found.settings).wants(link.category, link.channel, default=True)


async def _bounded(request: Request) -> bytes:
    """The beginning of the body: it is one short field, and whatever follows is not read into memory."""
    found = b""
    async for part in request.stream():
        found = (found + part)[:MAX_BODY]
    return found


def _said(body: bytes) -> str | None:
    """`off`, `on`, or nothing of either. Mail services send the field as a URL-encoded form or in parts."""
    squeezed = b"".join(body.split())
    one_click = b"List-Unsubscribe=One-Click" in squeezed or b'"List-Unsubscribe"One-Click' in squeezed
    if one_click or squeezed == b"choice=off":
        return OFF
    return ON if squeezed == b"choice=on" else None
