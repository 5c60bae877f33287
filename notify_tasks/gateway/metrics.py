"""`/metrics` of the gateway: that it runs, since when, and what it costs. What it takes in is counted from its rows."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route


class Metrics:
    """`process_*` of this process. Nothing private; the proxy in front passes `/hooks/` alone all the same."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)

    def routes(self) -> Sequence[BaseRoute]:
        """Its route."""
        return [Route("/metrics", self._tell)]

    async def _tell(self, _request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
