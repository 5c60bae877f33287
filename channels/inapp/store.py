"""`inapp.store`: messages go into the fleet's own inbox, which readers then open.

| what happens | outcome |
|---|---|
| stored, or there already | Accepted, code `stored`, the delivery id as the provider's id |
| the content is not data | Refused |
| the store fails | its own exception: whether the database is away is for the fleet to judge |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from channels._options import refuse_unknown
from channels.contract import (
    Accepted,
    Capability,
    DataContent,
    Deadline,
    Inbox,
    Message,
    Misconfigured,
    Refused,
    TryLater,
)


class InboxProvider:
    """Stores messages, each delivery once.

    Args:
        inbox: the store.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    @property
    def capability(self) -> Capability:
        return Capability.IDEMPOTENT

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Put one message into the inbox.

        Raises:
            Refused: the content is not data.
            TryLater: the deadline had passed before the message was stored.
        """
        if not isinstance(message.content, DataContent):
            raise Refused("content", f"the inbox carries DataContent, not {type(message.content).__name__}")
        if deadline.overdue() >= 0:
            raise TryLater("deadline", "no time was left to store; raise the provider's timeout")
        self._inbox.put(message)
        return Accepted(message.delivery_id, "stored")

    def close(self) -> None:
        """Nothing is held open here: the store is the fleet's."""


def build(name: str, options: Mapping[str, Any]) -> InboxProvider:
    """Build the provider.

    Args:
        name: of the provider in the configuration.
        options: `inbox`: a `channels.contract.Inbox`, which the fleet hands in. There are no others.

    Raises:
        Misconfigured: the inbox is missing, or there is another option.
    """
    refuse_unknown(name, "inapp.store", set(options) - {"inbox"}, ())
    inbox: Inbox | None = options.get("inbox")
    if inbox is None or not callable(getattr(inbox, "put", None)):
        raise Misconfigured(
            "inbox", f"{name}: inapp.store works inside the fleet only, which hands its inbox in"
        )
    return InboxProvider(inbox)
