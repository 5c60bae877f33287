"""The gateway's routes, put together."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from notify_tasks.gateway.health import Health
from notify_tasks.gateway.hooks import Hooks
from notify_tasks.gateway.metrics import Metrics
from notify_tasks.gateway.parts import Parts
from notify_tasks.gateway.unsubscribe import Unsubscribe


def application(parts: Parts) -> Starlette:
    """The ASGI application: every door of the gateway.

    Args:
        parts: what the doors need.
    """
    routes: Sequence[BaseRoute] = [
        *Health(parts).routes(),
        *Metrics().routes(),
        *Hooks(parts).routes(),
        *Unsubscribe(parts).routes(),
    ]
    made = Starlette(routes=routes, exception_handlers={Exception: _failed})
    made.router.redirect_slashes = False  # no provider follows one
    return made


async def _failed(_request: Request, _error: Exception) -> Response:
    return PlainTextResponse("this failed; send it again\n", 500)
