"""What a caller can be told.

The tree::

    NotifyError
    ├── InvalidCall      the call itself is wrong: the field and the remedy
    ├── NotConfigured    a setting is missing or wrong: its name and what to write
    ├── NotAccepted      surely not accepted: call again once the cause is mended
    ├── MaybeAccepted    nobody knows: call again with the same message id
    ├── MaybeCancelled   nobody knows: cancel again
    ├── NotHere          this cannot be done from here: where it can
    ├── WireError        an envelope that this version cannot read
    └── SchemaError      the database's schema and this code do not fit
"""

from __future__ import annotations


class NotifyError(Exception):
    """Base of everything this package raises on purpose."""


class InvalidCall(NotifyError, ValueError):
    """An argument is wrong.

    Args:
        field: the argument, with a path inside it (`payload.order.total`).
        problem: what is wrong with it.
        remedy: what to write instead.
    """

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem}. {remedy}")
        self.field = field
        self.problem = problem
        self.remedy = remedy


class NotConfigured(NotifyError):
    """A setting is missing or wrong."""


class NotAccepted(NotifyError):
    """The notification was surely not accepted. Repeat the call once the cause is mended."""

    def __init__(self, message_id: str, why: str) -> None:
        super().__init__(f"notification {message_id} was not accepted: {why}")
        self.message_id = message_id


class MaybeAccepted(NotifyError):
    """The notification may have been accepted or not: the answer did not come within the budget.

    Repeat the call with `message_id=error.message_id`. If the first call did get through, the second one
    changes nothing.
    """

    def __init__(self, message_id: str, why: str) -> None:
        super().__init__(
            f"no answer whether notification {message_id} was accepted ({why}); "
            f"repeat the call with message_id={message_id!r}: it is sent once either way"
        )
        self.message_id = message_id


class MaybeCancelled(NotifyError):
    """The cancel may have taken effect or not. Cancelling again does no harm and gives the answer."""

    def __init__(self, message_id: str, why: str) -> None:
        super().__init__(
            f"no answer whether notification {message_id} was cancelled ({why}); cancel it again"
        )
        self.message_id = message_id


class NotHere(NotifyError):
    """This cannot be done from here; the text names where it can."""


class WireError(NotifyError):
    """An envelope that this version cannot read: its reason, never its content."""


class SchemaError(NotifyError):
    """The database's schema and this code do not fit."""
