"""What logs and traces know of a Celery process and of the task that it runs: hung into Celery's signals.

A task's facts are bound before it and cleared after it, so that Celery's own words about its end carry them, too.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Final

from celery import Celery, signals
from celery.apps import worker as celery_worker

from notify_tasks import log_context, logs, settings, tracing
from notify_tasks.errors import NotConfigured
from notify_tasks.routing import DELIVER_TASK, SEND_TASK

_node: str | None = None
_BESIDE: Final = "celery.redirected"


def install(app: Celery) -> None:
    """Let the app's worker and beat log and trace as the rest of the fleet does. Once per app."""
    signals.celeryd_init.connect(_know_node, weak=False)
    signals.setup_logging.connect(lambda **given: _set_up(app, **given), weak=False)
    signals.task_prerun.connect(_begin, weak=False)
    signals.task_postrun.connect(_end, weak=False)
    for starts in (signals.worker_init, signals.beat_init):
        starts.connect(_start_traces, weak=False)
    for ends in (signals.worker_shutdown, signals.worker_process_shutdown):
        ends.connect(lambda **_: tracing.stop(), weak=False)


def _know_node(sender: Any = None, instance: Any = None, **_: Any) -> None:
    global _node  # noqa: PLW0603 - one node a process
    _node = str(sender)
    logs.configure(_node, level=logging.WARNING)  # for what is said before Celery asks for its logs
    if instance is not None and settings.get().json_logs:
        instance.quiet = True  # its banner is no JSON


def _set_up(app: Celery, loglevel: Any = None, **_: Any) -> None:
    logs.configure(_node or "beat", level=loglevel or logging.INFO)
    # What SDKs print becomes lines as well; the logs themselves go to the stream that there was before.
    app.log.redirect_stdouts_to_logger(logging.getLogger(_BESIDE), loglevel=logging.WARNING)
    if settings.get().json_logs:
        celery_worker.safe_say = _say  # type: ignore[attr-defined] # its stubs leave it out


def _say(words: str, _stream: object = None) -> None:
    """Celery's own way past the logs, from signal handlers: a line of the same form."""
    line = logs.bare_line(_node or "worker", words)
    out = sys.__stderr__
    if out is not None:
        os.write(out.fileno(), line.encode())


# --- tasks ------------------------------------------------------------------------------------------


def _begin(task_id: str | None = None, task: Any = None, **_: Any) -> None:
    request = task.request
    single = task.name == DELIVER_TASK and request.root_id not in {None, task_id}
    message_id = task_id if task.name == SEND_TASK else request.root_id if single else None
    log_context.begin(
        task=task.name,
        task_id=task_id,
        queue=(request.delivery_info or {}).get("routing_key"),
        message_id=message_id,
        delivery_id=task_id if single else None,
    )


def _end(**_: Any) -> None:
    log_context.end()


# --- traces -----------------------------------------------------------------------------------------


def _start_traces(**_: Any) -> None:
    try:
        tracing.start(_node or "beat")
    except NotConfigured as error:
        raise SystemExit(f"notify_tasks: {error}") from None
