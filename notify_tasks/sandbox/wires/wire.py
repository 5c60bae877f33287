"""What a wire is: one provider's API as its own documentation describes it, whatever our adapter happens to send.

`HttpEnd` reads the request, logs it, plays the mode and keeps what arrived. A wire says which requests are its own,
what is in them, and how the provider words each answer. A module of this package has `WIRE`, an object like `Wire`;
there is no list to edit. Keys and hooks are those of `notify_tasks.sandbox.credentials`. A wire that reports back is
also a `notify_tasks.sandbox.reports.Reporting`.

What a request meets is decided in this order: `reading` finds it malformed, unsigned or with a wrong key, as the
provider would; the address asks for something by itself (`modes.Modes.of_address`); the target's mode. The target is
the wire's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from notify_tasks.sandbox.log import LoggedRequest

WRONG_KEY: Final = "wrong_key"
"""The mode in which the provider refuses our credentials."""
DEAD_ADDRESS: Final = "dead_address"
"""The mode in which it calls the address dead."""
OPTED_OUT: Final = "opted_out"
"""The mode in which it says that the person opted out; a provider may not know it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Args:
        path: without the query, undecoded.
        query: every value of each name, decoded.
        headers: names in lower case.
        target: path and query as they came, for signatures.
        origin: `http://HOST:PORT` under which it was called.
    """

    method: str
    path: str
    query: Mapping[str, Sequence[str]] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    target: str = field(default="", repr=False)
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    Args:
        body: bytes as they are, or what is written as JSON.
        invalid: it is a no, although its status is below 400: some providers say it in the body alone.
    """

    status: int
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    invalid: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a request that is to send a message says.

    Args:
        to: whom, as `Incoming.to`.
        delivery_id: ours, where the request has it.
        idempotency_key: where the provider knows such keys.
        opened: the message in plain, where it came encrypted (web push) or not in the body: what is kept instead of it.
        callback: the URL that the request wants receipts at.
    """

    to: str = field(repr=False)
    delivery_id: str | None = None
    idempotency_key: str | None = field(default=None, repr=False)
    opened: bytes | None = field(default=None, repr=False)
    callback: str | None = field(default=None, repr=False)


class Wire(Protocol):
    """One provider's API."""

    name: str
    """Also the target of its modes: `twilio`, `sendgrid`, `fcm`, `aliyun`, `webpush`, `webhook`, `slack`..."""
    channel: str
    kind: str
    """`idempotent` or `opaque`, as `notify_tasks.sandbox.log` has them."""
    modes: Mapping[str, str]
    """What it can play beside `modes.HTTP_MODES` and statuses, and what that does: `wrong_key`, `dead_address`, or one
    of its own codes (`21610`)."""
    words: Mapping[str, str]
    """What an address asks for where that is another mode than `modes` has for HTTP: by the whole address
    (`+15005550004`), by its first word (`bounce`, `reject`, `throttle`, `stop`...), or by the mode that it would be
    (`410`, also of a number `+1555410xxxx`). The mode `ok` makes nothing of it."""

    def takes(self, request: Request) -> bool:
        """Whether the request is this provider's, right or wrong.

        Wires do not overlap: paths, hosts or headers tell them apart on one port.
        """

    def reading(self, request: Request) -> Reading | Reply:
        """What the request says, or the provider's answer to one that sends nothing.

        That is a request which is malformed or not allowed, or one at a side door such as a token endpoint: it is
        logged as `invalid`, or below 400 as `side`, unless the reply says `invalid`.
        """

    def accepted(self, request: Request, taken: LoggedRequest) -> Reply:
        """Its yes. `taken.id` is the effect's id; the provider's own id is made from it."""

    def refused(self, request: Request, mode: str) -> Reply:
        """Its no: a status of three digits, or one of `modes`."""
