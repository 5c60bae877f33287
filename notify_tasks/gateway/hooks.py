"""`/hooks/<provider>`: what providers report. Verified, then committed, then answered; applied by a worker.

    204  kept, or known already; 200 where a provider wants to read something (its `receipt_answer`, JSON)
    403  forged: nothing is kept
    404  no provider of this name reports back
    413  larger than a mebibyte; of a mail that came back (message/rfc822), which may be, the beginning is kept
    503  PostgreSQL is away, or the provider's secret is missing: send it again (RFC 9110, section 15.6.4)

No log line has an address, a body, a query or a name that a stranger chose.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from channels.contract import ChannelError
from channels.receipts import Forged, Receipt
from notify_tasks import receipts
from notify_tasks.gateway.parts import Parts
from notify_tasks.receipts import Refusals
from notify_tasks.store.database import DatabaseError

logger = logging.getLogger(__name__)

MAX_BODY: Final = 2**20
"""Bytes. SendGrid's batches, the largest there are, stay below 768 KiB."""
MAX_READ: Final = 8 * MAX_BODY
BODY_SECONDS: Final = 15.0
"""A body that takes longer is given up: a provider sends it in one go."""
AT_ONCE: Final = 8
"""Requests that use PostgreSQL at the same time; further ones wait for their turn."""
RETRY_AFTER: Final = "30"


class _TooLarge(Exception):
    pass


class Hooks:
    """The door for receipts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._refusals = Refusals(parts.database)
        self._limiter: anyio.CapacityLimiter | None = None

    def routes(self) -> Sequence[BaseRoute]:
        """Its routes."""
        return [
            Route("/hooks/{provider}", self._hook, methods=["POST"]),
            Route("/hooks/{provider}", self._not_so, methods=["GET", "HEAD", "PUT", "PATCH", "DELETE"]),
        ]

    async def _not_so(self, _request: Request) -> Response:
        hint = "this door takes what a provider reports, by POST\n"
        return PlainTextResponse(hint, 405, headers={"Allow": "POST"})

    async def _hook(self, request: Request) -> Response:
        try:
            body = await asyncio.wait_for(_bounded(request), BODY_SECONDS)
        except _TooLarge:
            # Perhaps not all of it was read: the connection cannot be used again.
            return PlainTextResponse("larger than 1 MiB\n", 413, headers={"Connection": "close"})
        except TimeoutError:
            return PlainTextResponse("the body did not come\n", 408, headers={"Connection": "close"})
        except ClientDisconnect:
            return Response(status_code=400)
        receipt = Receipt(request.method, _query(request), _headers(request), body)
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(AT_ONCE)
        name = request.path_params["provider"]
        return await anyio.to_thread.run_sync(self._taken, name, receipt, limiter=self._limiter)

    def _taken(self, name: str, receipt: Receipt) -> Response:
        try:
            with receipts.reporting(self._parts.pools, name) as opened:
                if opened is None:
                    return PlainTextResponse("not found\n", 404)
                channel, provider = opened
                kept = receipts.take(self._parts.database, name, channel, provider, receipt)
        except Exception as error:  # noqa: BLE001 - each is answered by its kind
            return self._not_taken(name, error)
        self._parts.waker.wake(kept.new)
        answer: bytes | None = getattr(provider, "receipt_answer", None)
        if answer is not None:  # without these words it would tell everything again
            return Response(answer, media_type="application/json")
        return Response(status_code=204)

    def _not_taken(self, name: str, error: Exception) -> Response:
        """The answer for an error at a provider that there is. Its words may be private: none is logged."""
        match error:
            case Forged():
                self._refusals.count(name, error.code)
                return PlainTextResponse("refused\n", 403)
            case DatabaseError():
                logger.warning("a receipt of %s was not taken: %s", name, error)
            case ChannelError():
                logger.error(
                    "no receipt of %s can be taken (%s): type `notify config check`", name, error.code
                )
            case _:
                logger.error("a receipt of %s could not be verified (%s)", name, type(error).__name__)
                return PlainTextResponse("this failed; send it again\n", 500)
        return _later()


def _later() -> Response:
    return PlainTextResponse("not now; send it again\n", 503, headers={"Retry-After": RETRY_AFTER})


async def _bounded(request: Request) -> bytes:
    """The body as it came; of a mail its first mebibyte, which has the report and not the attachments of ours.

    One that is too large is read on for a while, and forgotten: whoever sends it reads no answer before its end.

    Raises:
        _TooLarge: it says so, or is.
    """
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > MAX_READ:
        raise _TooLarge
    parts, size = [], 0
    async for part in request.stream():
        if size < MAX_BODY:
            parts.append(part)
        size += len(part)
        if size > MAX_READ:
            raise _TooLarge
    mail = request.headers.get("content-type", "").lower().startswith("message/rfc822")
    if size > MAX_BODY and not mail:
        raise _TooLarge
    return b"".join(parts)[:MAX_BODY]


def _query(request: Request) -> str:
    raw: bytes = request.scope["query_string"]
    return raw.decode("latin-1")


def _headers(request: Request) -> dict[str, str]:
    """Names in lower case; a repeated one joined as lists are (RFC 9110, section 5.3)."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
