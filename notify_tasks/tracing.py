"""Spans of ours, where traces are switched on; else each of these calls costs a comparison.

    notify.accept    a call is planned and stored
    notify.deliver   a claimed delivery: from its claim to its record
    notify.render    its text
    notify.provider  the provider's call

Attributes are ids, codes and words of the configuration: `message_id`, `delivery_id`, `channel`, `provider`,
`attempt`, `event_type`, `outcome`, `code`, each with `notify.` before it. Nothing personal.

All spans of a notification belong to its producer's trace, whichever way they came: by a message whose headers carry
it, or minutes later by a sweep, from what was stored with the notification. Then the span that found it is linked.
`trace_export` switches it on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from notify_tasks import settings

if TYPE_CHECKING:
    from notify_tasks.trace_export import Export


class Span(Protocol):
    """A span that is open."""

    def set(self, **attributes: object) -> None:
        """Add attributes; None is left out."""


class Spans(Protocol):
    """What opens spans."""

    def open(
        self, name: str, trace: str | None, began: float | None, attributes: dict[str, object]
    ) -> AbstractContextManager[Span]:
        """As `span`."""


class _NoSpan:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def set(self, **attributes: object) -> None:
        """Nothing."""


_NO_SPAN: Final = _NoSpan()
_spans: Spans | None = None
_export: Export | None = None


def wanted(current: settings.Settings, environment: Mapping[str, str]) -> bool:
    """Whether a process sends traces."""
    if current.tracing is not None:
        return current.tracing
    return any(environment.get(f"OTEL_EXPORTER_OTLP_{which}ENDPOINT") for which in ("", "TRACES_"))


def start(process: str) -> None:
    """Send this process's traces, where that is switched on.

    Args:
        process: what the spans say of who made them.

    Raises:
        NotConfigured: it is switched on, and OpenTelemetry is not installed.
    """
    global _export  # noqa: PLW0603 - one for the process
    if _export is None and wanted(settings.get(), os.environ):
        from notify_tasks.trace_export import Export  # noqa: PLC0415 - an extra, loaded where it is used

        _export = Export(process)


def stop() -> None:
    """Send what is left, for two seconds at most, and send no more."""
    global _export
    found, _export = _export, None
    if found is not None:
        found.close()


def switch(spans: Spans | None) -> None:
    """Open spans by these from now on; None opens none."""
    global _spans  # noqa: PLW0603 - one for the process, as OpenTelemetry's provider is
    _spans = spans


def span(
    name: str, *, trace: str | None = None, began: float | None = None, **attributes: object
) -> AbstractContextManager[Span]:
    """Open a span for a block. An exception that leaves the block makes it an error, without its words.

    Args:
        name: of this module's table.
        trace: the `traceparent` that the notification came with; None where there is none.
        began: the monotonic time at which it began; now by default.
        **attributes: without `notify.`; None is left out.
    """
    if _spans is None:
        return _NO_SPAN
    return _spans.open(name, trace, began, attributes)
