"""Which trace a call belongs to, with and without OpenTelemetry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from notify_tasks import trace_context
from notify_tasks.trace_context import parent_of, trace_id

ROOT = Path(__file__).parents[2]
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    "parent",
    [
        None,
        "",
        "hello",
        PARENT.upper(),
        PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        PARENT.replace("00f067aa0ba902b7", "0" * 16),
        "ff" + PARENT[2:],
        PARENT + "x",
        7,
        PARENT + "-" + "y" * 600,
    ],
)
def test_what_is_no_traceparent_is_none(parent: object) -> None:
    assert trace_id({"traceparent": parent}) is None
    assert parent_of({"traceparent": parent}) is None


def test_a_traceparent_is_read() -> None:
    assert trace_id(PARENT) == trace_id({"traceparent": PARENT}) == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert parent_of({"traceparent": PARENT}) == PARENT
    assert trace_id({}) is trace_id(None) is parent_of(None) is None


def test_within_a_span_the_trace_is_that_span_and_outside_there_is_none() -> None:
    assert trace_context.current() is None
    with TracerProvider().get_tracer("host").start_as_current_span("order") as span:
        found = trace_context.current()

    assert found is not None
    context = span.get_span_context()
    assert (
        found["traceparent"] == f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    )


def test_a_producer_without_opentelemetry_loads_none_of_it() -> None:
    code = (
        "import sys; from notify_tasks import trace_context, send_notification; assert trace_context.current() is None;"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'structlog'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
