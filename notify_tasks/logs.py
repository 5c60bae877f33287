"""The logs of every process: one configuration, one place where lines are made.

    NOTIFY_LOG_FORMAT=json     one JSON object a line, also for what Celery, kombu, uvicorn and libraries say
    NOTIFY_LOG_FORMAT=plain    a line for people; in colour on a terminal

Without it NOTIFY_ENV=prod means JSON, everything else plain. Code logs with Python's own `logging`; what a line is
about comes from `log_context`. Whatever a line holds passes `log_privacy` before it is written.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, Final, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter

from notify_tasks import settings
from notify_tasks.log_privacy import KNOWN, protect

Event = MutableMapping[str, Any]

QUIET_SECONDS: Final = 60.0
"""Between two lines of a library that would repeat itself."""
_REPEATING: Final = ("opentelemetry",)
"""Loggers that speak once for each thing that did not work; a collector may be away for a day."""
_LOUD: Final = {"tornado.access": logging.ERROR, "urllib3": logging.ERROR}
"""These write requests' paths, which may hold tokens."""
_FIRST: Final = ("timestamp", "level", "event", "logger", "process", "pid")


def configure(
    process: str, *, level: int | str = logging.INFO, stream: TextIO | None = None, alone: bool = False
) -> None:
    """Send everything that this process logs through one handler. Called again, it replaces its own one.

    Args:
        process: what each line says of who wrote it: `email@host`, `beat`, `gateway`.
        level: the least that is written.
        stream: where to; standard error as it was when Python began by default.
        alone: whether handlers that somebody else has hung in go.
    """
    out = stream or sys.__stderr__ or sys.stderr
    handler = _Handler(out)
    handler.setFormatter(_formatter(process, out))
    handler.addFilter(_Seldom())
    root = logging.getLogger()
    for old in [each for each in root.handlers if alone or isinstance(each, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level or logging.INFO)
    for name, least in _LOUD.items():
        logging.getLogger(name).setLevel(least)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, to be known again."""


class _Seldom(logging.Filter):
    """Lets a line of certain loggers pass once a minute for each place in the code; the others always."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_REPEATING):
            return True
        place, now = (record.pathname, record.lineno), time.monotonic()
        if now - self._last.get(place, -QUIET_SECONDS) < QUIET_SECONDS:
            return False
        self._last[place] = now
        return True


def bare_line(process: str, words: str) -> str:
    """A JSON line made by hand: for signal handlers, in which no lock may be taken.

    Args:
        process: as in `configure`.
        words: of the line; nothing that came from outside.
    """
    said = {"timestamp": _now(), "level": "info", "event": words, "process": process, "pid": os.getpid()}
    return f"{json.dumps(said)}\n"


# --- how a line is made -----------------------------------------------------------------------------


def _formatter(process: str, out: TextIO) -> logging.Formatter:
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.contextvars.merge_contextvars,
        _celery,
    ]
    last: list[Any] = [ProcessorFormatter.remove_processors_meta, _who(process), _exception, protect]
    if settings.get().json_logs:
        last += [_in_order, structlog.processors.JSONRenderer(ensure_ascii=False, default=str)]
    elif out.isatty():
        last += [structlog.dev.ConsoleRenderer(pad_event_to=0)]
    else:
        last += [_plain]
    return ProcessorFormatter(foreign_pre_chain=shared, processors=last)


def _celery(_logger: object, _method: str, event: Event) -> Event:
    """What Celery says of a task beside its words: the consumer's lines come before the task's own context."""
    record = event.get("_record")
    data = getattr(record, "data", None)
    if not isinstance(data, dict) or not str(getattr(record, "name", "")).startswith("celery."):
        return event
    for ours, theirs in (("task", "name"), ("task_id", "id"), ("runtime", "runtime")):
        if isinstance(data.get(theirs), str | float):
            event.setdefault(ours, data[theirs])
    return event


def _who(process: str) -> Callable[[object, str, Event], Event]:
    def add(_logger: object, _method: str, event: Event) -> Event:
        event["timestamp"] = _now()
        event["process"], event["pid"] = process, os.getpid()
        return event

    return add


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"


def _exception(_logger: object, _method: str, event: Event) -> Event:
    found = event.pop("exc_info", None)
    if isinstance(found, tuple) and found[0] is not None:
        event["exception"] = "".join(traceback.format_exception(*found)).rstrip()
    event.pop("stack_info", None)
    return event


def _in_order(_logger: object, _method: str, event: Event) -> Event:
    return {name: event[name] for name in _FIRST if name in event} | dict(event)


def _plain(_logger: object, _method: str, event: Event) -> str:
    """`[2026-11-23 19:04:11,052: INFO/email@host] words  message_id=... channel=email`."""
    said = dict(event)
    moment = str(said.pop("timestamp")).replace("T", " ").replace(".", ",").rstrip("Z")
    head = f"[{moment}: {str(said.pop('level', 'info')).upper()}/{said.pop('process')}] {said.pop('event')}"
    trouble = said.pop("exception", None)
    for name in ("logger", "pid", "task", "task_id", "runtime"):  # the words or the head have them
        said.pop(name, None)
    facts = " ".join(
        f"{name}={said[name]}" for name in (*sorted(KNOWN & said.keys()), *sorted(said.keys() - KNOWN))
    )
    return f"{head}{'  ' if facts else ''}{facts}" + (f"\n{trouble}" if trouble else "")


# --- what nobody caught -----------------------------------------------------------------------------


def where(error: BaseException) -> str:
    """An error's kind and the place that raised it, without its words."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def _uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger(__name__).critical("this process ends: %s", where(error), exc_info=(kind, error, trace))


def _uncaught_in_thread(thrown: threading.ExceptHookArgs) -> None:
    if thrown.exc_value is not None and not isinstance(thrown.exc_value, SystemExit):
        name = thrown.thread.name if thrown.thread is not None else "?"
        logging.getLogger(__name__).error("thread %s has ended: %s", name, where(thrown.exc_value))
