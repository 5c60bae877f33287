"""The checks of a call: its arguments become a `Notification`, or an error that names field and remedy. Pure.

What can be known where the call is made is checked here. What only a worker can know (is there such a type,
does the payload fit it, is the recipient known) becomes a `rejected` notification instead.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Final, Required, TypedDict, Unpack

from notify_tasks.attaching import Attachment, as_written, read_attachments
from notify_tasks.call_times import check_zones, read_at, read_moment, refuse_too_late
from notify_tasks.digesting import OFF, When
from notify_tasks.errors import InvalidCall
from notify_tasks.local_time import LocalTime
from notify_tasks.notification import (
    DEFAULT_TENANT,
    MAX_MESSAGE_ID,
    MAX_PAYLOAD_BYTES,
    Notification,
    body_hash,
    canonical,
    uuid7,
)
from notify_tasks.recipients import To, locale, meant, read_recipients, safe_name, text
from notify_tasks.routing import CHANNELS, LANES

MAX_EVENT_TYPE: Final = 200
MAX_DEPTH: Final = 50
"""Lists and objects inside each other in a payload."""
MAX_BITS: Final = 4096
"""Of a whole number; JSON readers do not take longer ones."""


class Options(TypedDict, total=False):
    """What a call may say besides its type and its recipients. Each has a default."""

    payload: Mapping[str, Any] | None
    """What the templates fill in: JSON values, 64 KiB at most."""
    attachments: Sequence[Attachment] | None
    """Files that go with the mail, ten at most; other channels leave them out. Bring the fleet's workers up to date
    before the first call that has some."""
    message_id: str | uuid.UUID | None
    """Repeating a call with its id gives the same notification. The default is a new UUIDv7."""
    source: str | None
    """Who asks: a service's name."""
    tenant: str
    channels: Sequence[str] | None
    """Only these channels; the default is the type's."""
    priority: str | None
    """`high`, `normal` or `bulk`; the default is the type's."""
    at: dt.datetime | dt.timedelta | LocalTime | None
    """Not before: a time with a zone, a span from now, or a `LocalTime` on each recipient's own clock. What has passed
    by up to an hour means now, so that a call can be repeated; a `LocalTime` is refused only where it has passed
    everywhere on earth. Bring the fleet's workers up to date before the first `LocalTime`."""
    expires: dt.datetime | dt.timedelta | float | None
    """Worthless after: a time with a zone, or a span or seconds from now (not from `at`)."""
    digest: str | None
    """Gather it: `hourly`, `daily`, `daily 08:00`, `weekly mon 08:00`, `every 2h`, `after 10m at most 1h`, on each
    recipient's own clock; or `off`, by itself at once. The default is the type's, which must have a [digest]; what a
    person has chosen goes before both. Bring the fleet's workers up to date before the first call that has it."""
    locale: str | None
    """For recipients that have none of their own."""
    cancel_key: str | None
    sandbox: bool
    """Go all the way, but to the sandbox instead of the provider."""


class Call(Options):
    """The keywords of a call."""

    to: Required[To]


_NAMES: Final = dict.fromkeys(("to", *Options.__annotations__))
_MEANT: Final = {
    "address": "to",
    "args": "payload",
    "attach": "attachments",
    "attachment": "attachments",
    "channel": "channels",
    "context": "payload",
    "countdown": "at",
    "data": "payload",
    "delay": "at",
    "email": "to",
    "eta": "at",
    "files": "attachments",
    "id": "message_id",
    "idempotency_key": "message_id",
    "kwargs": "payload",
    "lane": "priority",
    "language": "locale",
    "params": "payload",
    "recipient": "to",
    "recipients": "to",
    "send_at": "at",
    "task_id": "message_id",
    "ttl": "expires",
    "user": "to",
    "user_id": "to",
}
_EVENT_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)*")
_MESSAGE_ID: Final = re.compile(rf"[!-~]{{1,{MAX_MESSAGE_ID}}}")
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def build_notification(event_type: object, *, now: dt.datetime, **call: Unpack[Call]) -> Notification:
    """Check a call and make its notification.

    Args:
        event_type: `order.shipped`.
        now: the present, in UTC; relative times count from it, and it is the notification's timestamp.
        **call: `to`, and any of `Options`.

    Raises:
        InvalidCall: an argument is wrong: which one, what is wrong with it, and what to write instead.
    """
    given: dict[str, Any] = dict(call)
    _refuse_unknown(given)
    if given.get("to") is None:
        raise InvalidCall("to", "nobody is named", 'Write to="user-42" or to={"email": "ann@example.com"}')
    at, at_as_written = read_at(given.get("at"), now)
    expires, expires_as_written = read_moment("expires", given.get("expires"), now)
    refuse_too_late(at, expires, now)
    to = read_recipients(given["to"])
    if isinstance(at, LocalTime):
        check_zones(to)
    fields: dict[str, Any] = {
        "event_type": _event_type(event_type),
        "tenant": _tenant(given.get("tenant")),
        "to": to,
        "payload": _payload(given.get("payload")),
        "attachments": read_attachments(given.get("attachments")),
        "source": _optional(given, "source"),
        "channels": _channels(given.get("channels")),
        "priority": _priority(given.get("priority")),
        "locale": None if given.get("locale") is None else locale(given["locale"], "locale"),
        "cancel_key": _optional(given, "cancel_key"),
        "sandbox": _sandbox(given.get("sandbox")),
        "digest": _digest(given.get("digest"), at),
    }
    written = {
        **fields,
        "attachments": as_written(given.get("attachments"), fields["attachments"]),
        "to": [recipient.to_wire() for recipient in fields["to"]],
        "at": at_as_written,
        "expires": expires_as_written,
    }
    return Notification(
        message_id=_message_id(given.get("message_id")),
        timestamp=now,
        at=None if isinstance(at, LocalTime) else at,
        at_local=at if isinstance(at, LocalTime) else None,
        expires=expires,
        hash=_hash(written),
        **fields,
    )


def _hash(written: Mapping[str, Any]) -> str:
    # Empty fields are left out, so that an option added later does not change the hash of calls without it.
    body = {name: value for name, value in written.items() if value not in (None, False)}
    return body_hash(body)


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in _NAMES:
            raise InvalidCall(name, "there is no such option", meant(name, _NAMES, _MEANT))


# --- single options ---------------------------------------------------------------------------------


def _event_type(value: object) -> str:
    name = text(value, "event_type", longest=MAX_EVENT_TYPE)
    if not _EVENT_TYPE.fullmatch(name):
        raise InvalidCall(
            "event_type",
            "it is not the name of a type",
            "Write small letters, digits, - and _ in parts that dots separate, as in order.shipped",
        )
    return name


def _message_id(value: object) -> str:
    if value is None:
        return str(uuid7())
    if isinstance(value, uuid.UUID):
        return str(value)
    if not isinstance(value, str) or not _MESSAGE_ID.fullmatch(value):
        raise InvalidCall(
            "message_id",
            f"it is not a text of 1 to {MAX_MESSAGE_ID} printable ASCII characters without spaces",
            "Write an id of your own, as in order-981-shipped, or leave it out",
        )
    return str.__str__(value)


def _tenant(value: object) -> str:
    if value is None:
        return DEFAULT_TENANT
    if not isinstance(value, str) or not _TENANT.fullmatch(value):
        raise InvalidCall(
            "tenant",
            "it is not the name of a tenant",
            "Write 1 to 200 letters, digits, dots, - and _, beginning with a letter or digit",
        )
    return str.__str__(value)


def _optional(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    return None if value is None else text(value, name)


def _sandbox(value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise InvalidCall(
            "sandbox", f"{type(value).__name__} is neither True nor False", "Write True or False"
        )
    return bool(value)


def _digest(value: object, at: object) -> str | None:
    if value is None:
        return None
    try:
        found = OFF if value == OFF else str(When.parse(value if isinstance(value, str) else ""))
    except ValueError as error:
        problem, _, remedy = str(error).partition(". ")
        raise InvalidCall("digest", problem, remedy) from None
    if at is not None and found != OFF:
        raise InvalidCall(
            "digest",
            "digest and at together: each of them says when it goes",
            'Keep one of them; digest="off" goes with at',
        )
    return found


def _priority(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, int | float):
        raise InvalidCall(
            "priority",
            "a number has no meaning here: lanes are queues of their own, not numbers",
            f"Write one of {', '.join(LANES)}",
        )
    if value not in LANES:
        raise InvalidCall("priority", "there is no such lane", f"Write one of {', '.join(LANES)}")
    return str(value)


def _channels(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise InvalidCall(
            "channels", f"{type(value).__name__} is not a list", 'Write a list, as in channels=["email"]'
        )
    if not value:
        raise InvalidCall(
            "channels", "the list is empty", "Name a channel, or leave it out for the type's own"
        )
    for index, name in enumerate(value):
        if name not in CHANNELS:
            raise InvalidCall(
                f"channels[{index}]", "there is no such channel", meant(name, dict.fromkeys(CHANNELS), {})
            )
        if name in value[:index]:
            raise InvalidCall(f"channels[{index}]", f"{name} is named twice", "Name it once")
    return tuple(str.__str__(name) for name in value)


# --- payload ----------------------------------------------------------------------------------------


class _Bad(Exception):
    """What is wrong with one value; its path is gathered on the way out."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.path = ""


_REMEDIES: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    ((decimal.Decimal,), "Use str or float"),
    ((dt.datetime, dt.date, dt.time), "Use its isoformat()"),
    ((dt.timedelta,), "Use its total_seconds()"),
    ((uuid.UUID,), "Use str"),
    ((enum.Enum,), "Use its value"),
    ((bytes, bytearray, memoryview), "Use a text, such as base64; a file goes into attachments"),
    ((set, frozenset), "Use a list"),
)


def _payload(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidCall(
            "payload", f"{type(value).__name__} is not a dict", 'Write a dict, as in {"order_id": 981}'
        )
    try:
        payload = _object(value, 1)
    except _Bad as bad:
        raise InvalidCall(f"payload{bad.path}", bad.problem, bad.remedy) from None
    size = len(canonical(payload))
    if size > MAX_PAYLOAD_BYTES:
        raise InvalidCall(
            "payload",
            f"{size} bytes of JSON are more than {MAX_PAYLOAD_BYTES}",
            "Send ids or links instead of contents",
        )
    return payload


def _object(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for position, (key, inner) in enumerate(value.items()):
        try:
            plain[_key(key)] = _plain(inner, depth)
        except _Bad as bad:
            bad.path = f".{safe_name(key, position)}{bad.path}"
            raise
    return plain


def _array(value: Sequence[Any], depth: int) -> list[Any]:
    plain: list[Any] = []
    for index, inner in enumerate(value):
        try:
            plain.append(_plain(inner, depth))
        except _Bad as bad:
            bad.path = f"[{index}]{bad.path}"
            raise
    return plain


def _plain(value: object, depth: int) -> Any:
    """A copy of the value made of JSON's own types alone."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return _number(value)
    if depth >= MAX_DEPTH:
        raise _Bad(f"it is more than {MAX_DEPTH} levels deep", "Use a flatter payload")
    if isinstance(value, dict):
        return _object(value, depth + 1)
    if isinstance(value, list | tuple):
        return _array(value, depth + 1)
    raise _Bad(f"{type(value).__name__} is not a JSON value", _remedy_for(value))


def _remedy_for(value: object) -> str:
    for kinds, remedy in _REMEDIES:
        if isinstance(value, kinds):
            return remedy
    if is_dataclass(value):
        return "Use dataclasses.asdict"
    return "Use a text, number, bool, None, list or dict"


def _text(value: str) -> str:
    if "\x00" in value:
        raise _Bad("the text has a NUL character, which PostgreSQL cannot store", "Leave it out")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Bad("the text has half of a surrogate pair", "Decode the text as it was encoded") from None
    return str.__str__(value)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise _Bad(f"{type(key).__name__} is not a JSON key", "Use a text as the key")
    return _text(key)


def _number(value: float) -> float:
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise _Bad("the number is too long for JSON readers", "Use str")
        return int(value)
    if not math.isfinite(value):
        raise _Bad("NaN and infinity are not JSON numbers", "Use None")
    return float(value)
