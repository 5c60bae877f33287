"""The baseline: a stock Celery app with its recommended settings and a task that does nothing."""

from __future__ import annotations

import os
from typing import Any, Final

from celery import Celery

URL_VARIABLE: Final = "BENCH_NOOP_BROKER_URL"
QUEUE: Final = "bench.noop"

app: Final = Celery("noop", broker=os.environ.get(URL_VARIABLE, "redis://127.0.0.1:1/1"))
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    result_backend=None,
    task_default_queue=QUEUE,
    broker_connection_retry_on_startup=True,
)


@app.task(name="bench.noop")
def noop(*_: Any, **__: Any) -> None:
    """Do nothing."""
