"""What the lines of a task are about: bound once, and then on every line of its thread, whoever writes it.

`task_context` begins and clears it around each Celery task; the work says what it has in hand. Ids and words of ours
alone: never an address, a name or a payload.
"""

from __future__ import annotations

from typing import Final

from structlog.contextvars import bind_contextvars, clear_contextvars, unbind_contextvars

from notify_tasks.trace_context import trace_id

_OF_DELIVERY: Final = ("delivery_id", "attempt", "channel", "provider")


def begin(**facts: object) -> None:
    """A task begins: forget what was before.

    Args:
        **facts: by name; None is left out.
    """
    clear_contextvars()
    about(**facts)


def about(**facts: object) -> None:
    """Say more of what is in hand.

    Args:
        **facts: by name; None is left out.
    """
    bind_contextvars(**{name: value for name, value in facts.items() if value is not None})


def about_message(message_id: str, event_type: str, trace: object = None) -> None:
    """A notification is in hand.

    Args:
        message_id: its message id.
        event_type: its type.
        trace: as its envelope has it, or its `traceparent`.
    """
    known = trace_id(trace) if isinstance(trace, dict | str) else None
    about(message_id=message_id, event_type=event_type, trace_id=known)


def about_delivery(delivery_id: object, *, attempt: int, channel: str, provider: str) -> None:
    """A delivery is in hand."""
    about(delivery_id=str(delivery_id), attempt=attempt, channel=channel, provider=provider)


def done_with_delivery() -> None:
    """It was one among others of the same task: the lines that follow are not about it."""
    unbind_contextvars(*_OF_DELIVERY, "message_id", "event_type", "trace_id")


def end() -> None:
    """The task has ended."""
    clear_contextvars()
