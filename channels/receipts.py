"""What providers report later, in one vocabulary: a `Receipt` is one request of theirs, its `Event`s are what it says.

A provider that reports back has `verify` and `events` beside its `send`::

    def verify(self, receipt):          # at the door, before anything is kept
        if not signed_right(receipt.body, receipt.header("x-signature"), self._token.reveal()):
            raise Forged("signature", "the signature is not that of auth_token")

    def events(self, receipt):          # one for each thing that it says
        return [Event(id=f"{sid}:{status}", code=status, fate=STATUSES.get(status), known=status in STATUSES, ...)]

Both are pure: they open no connection and read no clock but to judge a timestamp. `events` loses nothing: what it does
not know is an `Event` with `known=False`, which is kept and shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable


class Fate(StrEnum):
    """What became of a message, from the least to the last that can be known.

    A later one never gives way to one before it, in whatever order they come.
    """

    ACCEPTED = "accepted"
    """The provider has it: queued, processed, put off. The request was not lost."""
    SENT = "sent"
    """It was handed on: to a carrier, to a mail server."""
    UNDELIVERED = "undelivered"
    """It did not arrive, and will not. Some providers still report an arrival after it, which then counts."""
    DELIVERED = "delivered"
    """It arrived."""
    READ = "read"
    """The person opened it, read it or followed a link in it; so it arrived."""


class Standing(StrEnum):
    """What an event says of the address itself, whatever became of the message."""

    INVALID = "address_invalid"
    """It is dead: nothing more is sent to it."""
    OPTED_OUT = "opted_out"
    """The person said stop."""
    COMPLAINED = "complained"
    """The person called a message spam; as good as a stop."""
    OPTED_IN = "opted_in"
    """The person takes a stop back, where the stop had been said in the same way."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One request of a provider's, as it came through our door.

    Args:
        query: of the URL as it was called, undecoded and without its question mark. A provider knows its public URL
            from its own configuration, since a proxy in front of us may have changed the rest.
        headers: names in lower case.
        body: the bytes that a signature covers.
    """

    method: str
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def header(self, name: str) -> str:
        """A header's value; empty where it is missing."""
        return self.headers.get(name.lower(), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that a receipt says.

    Args:
        id: unique with the provider: the same event told again has the same. At most 200 characters.
        code: the provider's own word or number, kept as it came: `delivered`, `30003`, `5.1.1`.
        fate: of the message; None where the event says nothing of it.
        standing: of the address; None where the event says nothing of it.
        known: False for a status that the provider's table does not have.
        delivery_id: ours, which the provider repeats: by it alone a message is found. None where the event is about an
            address and no message, such as a person's STOP.
        provider_message_id: theirs, to be shown.
        address: whose it is.
        at: when it happened, by the provider's clock, in UTC.
        detail: one sentence of ours, without addresses.
    """

    id: str
    code: str
    fate: Fate | None = None
    standing: Standing | None = None
    known: bool = True
    delivery_id: str | None = None
    provider_message_id: str | None = None
    address: str | None = field(default=None, repr=False)
    at: datetime | None = None
    detail: str = ""


class Forged(Exception):
    """A receipt that the provider did not send, or sent too long ago. Nothing of it is kept.

    Args:
        code: a stable word: `signature`, `timestamp`, `missing_header`.
        detail: one sentence with the remedy, without anything of the receipt's.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class Unreadable(Exception):
    """A verified receipt that cannot be read at all. It is kept as it came, and shown.

    Args:
        detail: one sentence, without anything of the receipt's.
    """


@runtime_checkable
class Reporting(Protocol):
    """A provider that reports what became of its messages.

    One that is told more than "taken" by our answer has the bytes of it as `receipt_answer`, too.
    """

    def verify(self, receipt: Receipt) -> None:
        """Return if the provider sent it.

        Raises:
            Forged: it did not, or nothing proves it. A missing or malformed header is no other error.
        """

    def events(self, receipt: Receipt) -> Sequence[Event]:
        """What a verified receipt says, in its order.

        Raises:
            Unreadable: nothing of it can be read.
        """
