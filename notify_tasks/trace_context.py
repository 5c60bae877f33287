"""Which trace a call belongs to, as W3C Trace Context writes it (www.w3.org/TR/trace-context).

A producer that has OpenTelemetry running hands its trace on with each call; one that has not loads nothing of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, Final

PARENT: Final = "traceparent"
STATE: Final = "tracestate"
_PARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)
_LONGEST: Final = 512
"""Characters of a `tracestate` that must be handed on (section 3.3.1.5)."""


def current() -> dict[str, str] | None:
    """The trace that the calling code runs in; None without one, and where OpenTelemetry is not loaded."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    try:
        context = api.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        found = {PARENT: f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"}
        state = context.trace_state.to_header() if context.trace_state else ""
    except Exception:  # noqa: BLE001 - a half-loaded or foreign tracer must not cost a notification
        return None
    return found | {STATE: state} if 0 < len(state) <= _LONGEST else found


def trace_id(trace: Mapping[str, object] | str | None) -> str | None:
    """The trace's id, 32 hexadecimal digits; None where there is no valid `traceparent`.

    Args:
        trace: as an envelope has it, or the `traceparent` alone.
    """
    parent = trace.get(PARENT) if isinstance(trace, Mapping) else trace
    found = _PARENT.fullmatch(parent) if isinstance(parent, str) and len(parent) <= _LONGEST else None
    return None if found is None else found.group(1)


def parent_of(trace: Mapping[str, object] | None) -> str | None:
    """The valid `traceparent` of an envelope's trace, to be stored; None without one."""
    parent = (trace or {}).get(PARENT)
    return str(parent) if trace_id(trace) is not None else None
