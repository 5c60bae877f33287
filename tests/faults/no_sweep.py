"""A broken fleet: nobody sweeps. The suite must report losses."""

from notify_tasks.celery import app
from notify_tasks.sweeping import Guard, Sweeper, Swept

Sweeper.sweep = lambda _self: Swept()  # type: ignore[method-assign]
Guard.start = lambda _self: None  # type: ignore[method-assign]

__all__ = ["app"]
