"""What a provider is: the messages it carries, what it answers, and how it fails.

Errors are named by what to do next, never by how the provider happened to word it::

    ChannelError
    ├── Throttled       the provider asks us to slow down     -> same provider, later, no attempt used
    ├── TryLater        surely not accepted                   -> retry with backoff
    ├── Unavailable     down                                  -> breaker, next provider now
    ├── Unroutable      this provider cannot carry this one   -> next provider now, breaker alone; else failed
    ├── Misconfigured   auth, billing, sender, template       -> breaker at once, no attempt used
    ├── Uncertain       may have been accepted                -> on_doubt, or same key where idempotent
    ├── Refused         this message will never be accepted   -> failed
    ├── AddressInvalid  this address is dead                  -> failed, suppress the address
    └── OptedOut        the person said stop                  -> suppressed, record it

A provider is one module with a function `build(name, options)`; see `Provider`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable


class Capability(StrEnum):
    """What can be learnt of a request whose answer was lost."""

    IDEMPOTENT = "idempotent"
    """A repeated request with the same idempotency key has one effect."""
    QUERYABLE = "queryable"
    """The provider can be asked whether it took a request: it has `find`."""
    OPAQUE = "opaque"
    """Nothing can be learnt: a lost answer leaves the delivery in doubt."""


# --- contents, one type a channel -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with a mail."""

    name: str = field(repr=False)
    """Without folders, and without characters that cannot be seen."""
    type: str
    """Its media type, without parameters: `application/pdf`."""
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EmailContent:
    """A rendered mail. The subject has no line breaks; `html` may be missing, `text` may not.

    A provider that cannot carry attachments refuses a mail that has some: a mail without them is another mail.
    """

    subject: str
    text: str
    html: str | None = None
    attachments: tuple[Attachment, ...] = ()
    unsubscribe: str | None = field(default=None, repr=False)
    """An https URL that ends these mails for this person by one POST (RFC 8058): where there is one, it is written."""


@dataclass(frozen=True, slots=True)
class TextContent:
    """A rendered short text: SMS."""

    text: str


@dataclass(frozen=True, slots=True)
class ChatContent:
    """A rendered chat post in Markdown."""

    markdown: str


@dataclass(frozen=True, slots=True)
class DataContent:
    """A rendered JSON object: push, web push, in-app and webhooks."""

    data: Mapping[str, Any]


Content = EmailContent | TextContent | ChatContent | DataContent


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery, ready to be handed to a provider.

    `address`, `recipient_id` and `content` are private: they are left out of the repr, and no provider
    may put them into a log line or an exception.
    """

    delivery_id: str
    """Our id of the delivery. It travels wherever the provider can echo it."""
    idempotency_key: str
    """The same for every repetition of a request whose outcome is unknown."""
    channel: str
    event_type: str
    address: str = field(repr=False)
    content: Content = field(repr=False)
    tenant: str = "default"
    attempt: int = 1
    recipient_id: str | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What this message is signed with, the newest first, where its address has secrets of its own (webhooks)."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the message. `code` is its own answer (`"250"`, `"202"`), kept as it came."""

    provider_message_id: str | None = None
    code: str = ""


# --- errors -----------------------------------------------------------------------------------------


class ChannelError(Exception):
    """A provider did not take the message.

    Args:
        code: the provider's own code or, where it gave none, a stable word of ours (`"connect"`).
        detail: one sentence without addresses, bodies or secrets.
        retry_after: seconds the provider asked us to wait, where it did.
    """

    def __init__(self, code: str, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else self.code


class Throttled(ChannelError):
    """The provider asks us to slow down."""


class TryLater(ChannelError):
    """Surely not accepted; the same request may work later."""


class Unavailable(ChannelError):
    """The provider is down; surely not accepted."""


class Unroutable(ChannelError):
    """This provider cannot carry this message, though it works: another one of the pool may."""


class Misconfigured(ChannelError):
    """Our account, credentials, sender or template is wrong: no message can pass until it is mended."""


class Uncertain(ChannelError):
    """The request was sent and the answer lost: it may have been accepted."""


class Refused(ChannelError):
    """This message will never be accepted."""


class AddressInvalid(ChannelError):
    """This address is dead."""


class OptedOut(ChannelError):
    """The person said stop."""


# --- deadlines --------------------------------------------------------------------------------------


class Deadline:
    """The end of one whole provider call, however many round trips it takes.

    A provider asks `remaining()` before each round trip and gives it to the socket as its timeout. While
    it holds a socket it names a way to cut it with `cutting`, so that a watchdog can end a call that a
    dribbling peer keeps alive.

    Args:
        seconds: how long the call may take, from now.
    """

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._cut: Callable[[], None] | None = None
        self._was_cut = False

    def overdue(self) -> float:
        """Seconds past the end; negative while there is time."""
        return time.monotonic() - self._ends

    def remaining(self) -> float:
        """Seconds left, for the next socket timeout.

        Raises:
            TimeoutError: none are left. The caller knows in which phase it is and so what that means.
        """
        left = self._ends - time.monotonic()
        if left <= 0 or self._was_cut:
            raise TimeoutError("the deadline of the call has passed")
        return left

    @contextmanager
    def cutting(self, cut: Callable[[], None]) -> Iterator[None]:
        """While inside, `cut` ends the provider's socket (shutdown, not close: close does not wake a read)."""
        with self._lock:
            self._cut = cut
            if self._was_cut:  # a moment ago, when there was nothing yet to cut
                cut()
        try:
            yield
        finally:
            with self._lock:
                self._cut = None

    def cut(self) -> bool:
        """Cut the socket that the call holds. True where there was one to cut."""
        with self._lock:
            self._was_cut = True
            if self._cut is None:
                return False
            self._cut()
            return True


# --- providers --------------------------------------------------------------------------------------


@runtime_checkable
class Provider(Protocol):
    """One configured way of carrying a channel.

    A module `channels/<channel>/<provider>.py` has a function
    `build(name: str, options: Mapping[str, Any]) -> Provider`. `options` is the provider's table of the
    configuration with secrets already read (without `use`, `timeout` and `rate`, which are the fleet's). It
    raises `Misconfigured` naming the wrong option and the remedy, and opens no connection.
    """

    @property
    def capability(self) -> Capability:
        """What can be learnt of a lost answer."""

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one message over, in one attempt: no retries inside, no sleeping.

        Safe to call from many threads at once.

        Raises:
            ChannelError: the message was not taken, or `Uncertain`.
        """

    def close(self) -> None:
        """Close what is pooled. The provider may be used again afterwards."""


@runtime_checkable
class Queryable(Protocol):
    """A provider that can be asked what became of a request."""

    def find(self, message: Message, deadline: Deadline) -> Accepted | None:
        """The acceptance of the request with this idempotency key, or None where there was none."""


@runtime_checkable
class Prewarmed(Protocol):
    """A provider with something slow to load, such as an SDK."""

    def prewarm(self) -> None:
        """Load it ahead of the first message. It opens no connection."""


@runtime_checkable
class Selective(Protocol):
    """A provider that knows the addresses it can reach: a pool passes over it for all others, without a call."""

    def reaches(self, address: str) -> bool:
        """Whether it has this address. It opens no connection."""


class Inbox(Protocol):
    """Where the in-app channel puts its messages: the fleet's store, handed in from outside."""

    def put(self, message: Message) -> bool:
        """Store the message once (by delivery id) and tell live readers. False if it was there already."""
