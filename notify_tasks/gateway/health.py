"""Whether the gateway lives, and whether it can take anything in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from notify_tasks import health_server
from notify_tasks.gateway.parts import Parts
from notify_tasks.health_server import Check, Need

PROCESS = "gateway"


def checks(parts: Parts) -> list[Check]:
    """What the gateway needs: PostgreSQL. Without Redis it takes in what comes, and workers find it a little later."""
    found = [health_server.of_database(parts.database.probe)]
    return (
        found if parts.broker_url is None else [*found, health_server.of_broker(parts.broker_url, Need.SHOWN)]
    )


class Health:
    """`/livez` for who restarts it, `/readyz` for who sends it requests, `/health` for people (see `health_server`)."""

    def __init__(self, parts: Parts) -> None:
        self._health = health_server.Health(PROCESS, checks(parts))

    def routes(self) -> Sequence[BaseRoute]:
        """Its routes."""
        return [
            Route("/livez", self._asked(self._health.live)),
            Route("/readyz", self._asked(self._health.ready)),
            Route("/health", self._whole),
        ]

    @staticmethod
    def _asked(ask: Callable[[], tuple[int, str]]) -> Callable[[Request], object]:
        async def answer(_request: Request) -> Response:
            status, words = await run_in_threadpool(ask)
            return PlainTextResponse(f"{words}\n", status)

        return answer

    async def _whole(self, _request: Request) -> Response:
        status, document = await run_in_threadpool(self._health.whole)
        return JSONResponse(document, status)
