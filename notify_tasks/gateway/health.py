"""Whether the gateway lives, and whether it can take anything in."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from notify_tasks.gateway.parts import Parts
from notify_tasks.store.database import DatabaseError


class Health:
    """`/livez` for who restarts it, `/readyz` for who sends it requests: without PostgreSQL it takes nothing in."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> Sequence[BaseRoute]:
        """Its routes."""
        return [Route("/livez", self._live), Route("/readyz", self._ready)]

    async def _live(self, _request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def _ready(self, _request: Request) -> Response:
        try:
            await run_in_threadpool(self._parts.database.probe)
        except DatabaseError:
            return PlainTextResponse("PostgreSQL is away\n", 503)
        return PlainTextResponse("ready\n")
