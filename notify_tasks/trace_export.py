"""OpenTelemetry, for processes that send traces: the extra `tracing`, loaded only where it is switched on.

OTEL_EXPORTER_OTLP_ENDPOINT and its kin say where to (OTLP over HTTP; http://localhost:4318 by default), as the
OpenTelemetry specification has them; so do OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES.

A collector that is away costs nothing but its spans: they wait in a queue with an end, a thread of its own sends
them, and what does not fit is dropped. Whatever leaves passes `_clean`: libraries put exceptions' words, URLs and
requests' paths into their spans, and those may be personal.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from notify_tasks import tracing
from notify_tasks.errors import NotConfigured
from notify_tasks.trace_context import PARENT

try:
    from opentelemetry import context as otel_context
    from opentelemetry import trace as otel
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
    from opentelemetry.instrumentation.requests import RequestsInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as _error:
    raise NotConfigured(
        f"NOTIFY_TRACING is on and OpenTelemetry is not installed ({_error.name} is missing). "
        "Install it: pip install 'notify-tasks[tracing]', or set NOTIFY_TRACING=false"
    ) from None

logger = logging.getLogger(__name__)

SERVICE: Final = "notify-tasks"
EXPORT_SECONDS: Final = 3.0
"""For one batch with all its tries, unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise."""
LAST_SECONDS: Final = 2.0
"""What is left when a process ends is sent for so long."""
STATEMENT_LONGEST: Final = 300
"""Characters of a statement's beginning; values are never in it."""

ALLOWED: Final = (
    *("notify.", "messaging.", "celery.action", "celery.hostname", "celery.retries", "celery.state"),
    *(
        "celery.task_name",
        "db.system",
        "db.name",
        "db.namespace",
        "db.operation",
        "http.method",
        "http.status_code",
    ),
    *("http.request.method", "http.response.status_code", "error.type"),
)
"""Attributes that may leave, by how they begin. All others stay."""
STATEMENTS: Final = ("db.statement", "db.query.text")
TYPE_OF_ERROR: Final = "exception.type"


class Export:
    """Sends this process's traces until it is closed.

    Args:
        process: what the spans say of who made them.
    """

    def __init__(self, process: str) -> None:
        resource = Resource.create(
            {
                "service.name": os.environ.get("OTEL_SERVICE_NAME", SERVICE),
                "service.instance.id": f"{process}/{os.getpid()}",
                "notify.process": process,  # a forked child gets another instance id, and keeps this
            }
        )
        # None of its own: it would wait half a minute for a collector that is away.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        timeout = None if "OTEL_EXPORTER_OTLP_TIMEOUT" in os.environ else EXPORT_SECONDS
        self._provider.add_span_processor(BatchSpanProcessor(_Clean(OTLPSpanExporter(timeout=timeout))))
        otel.set_tracer_provider(self._provider)
        for library in (CeleryInstrumentor, PsycopgInstrumentor, RequestsInstrumentor):
            library().instrument(tracer_provider=self._provider)
        # Of each span that does not fit it would make a line; that none arrive is told all the same.
        logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.ERROR)
        tracing.switch(_Spans(otel.get_tracer(SERVICE, tracer_provider=self._provider)))

    def close(self) -> None:
        """Send what is left, for two seconds at most."""
        tracing.switch(None)
        ending = threading.Thread(target=self._provider.shutdown, name="notify-traces-end", daemon=True)
        ending.start()
        ending.join(LAST_SECONDS)


class _Open:
    def __init__(self, span: otel.Span) -> None:
        self._span = span

    def set(self, **attributes: object) -> None:
        for name, value in attributes.items():
            if value is not None:
                self._span.set_attribute(f"notify.{name}", _plain(value))


class _Spans:
    def __init__(self, tracer: otel.Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def open(
        self, name: str, trace: str | None, began: float | None, attributes: dict[str, object]
    ) -> Iterator[_Open]:
        context, links = _place(trace)
        span = self._tracer.start_span(
            name,
            context=context,
            links=links,
            start_time=None if began is None else time.time_ns() - int((time.monotonic() - began) * 1e9),
        )
        opened = _Open(span)
        opened.set(**attributes)
        with otel.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield opened
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(otel.StatusCode.ERROR)
                raise


def _place(trace: str | None) -> tuple[otel_context.Context | None, list[otel.Link]]:
    """Under the span that runs now, where that is of the notification's trace; else in that trace, with a link."""
    now = otel.get_current_span().get_span_context()
    if trace is None:
        return None, []
    stored = TraceContextTextMapPropagator().extract({PARENT: trace}, context=otel_context.Context())
    theirs = otel.get_current_span(stored).get_span_context()
    if not theirs.is_valid or theirs.trace_id == now.trace_id:
        return None, []
    return stored, [otel.Link(now)] if now.is_valid else []


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)


class _Clean(SpanExporter):
    """Hands spans on without what may be personal."""

    def __init__(self, to: SpanExporter) -> None:
        self._to = to

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            return self._to.export([_clean(span) for span in spans if not _alone(span)])
        except Exception as error:  # noqa: BLE001 - the thread that sends must outlive a collector's odd answers
            logger.warning("a batch of %d spans is lost (%s)", len(spans), type(error).__name__)
            return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._to.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._to.force_flush(timeout_millis)


def _alone(span: ReadableSpan) -> bool:
    """A statement of a thread that looks around every few seconds, which belongs to nothing."""
    scope = span.instrumentation_scope
    return span.parent is None and scope is not None and scope.name.endswith(".psycopg")


def _clean(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=dict(_attributes(span.attributes or {})),
        events=[
            Event(it.name, {TYPE_OF_ERROR: kind}, it.timestamp)
            for it in span.events
            if (kind := (it.attributes or {}).get(TYPE_OF_ERROR)) is not None
        ],
        links=[otel.Link(it.context) for it in span.links],
        kind=span.kind,
        status=otel.Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _attributes(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if name in STATEMENTS:
            yield name, " ".join(str(value)[: STATEMENT_LONGEST * 2].split())[:STATEMENT_LONGEST]
        elif name.startswith(ALLOWED):
            yield name, value
