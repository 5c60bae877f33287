"""What a producer asks for, as frozen values, and its versioned wire form.

The wire form (the *envelope*) is JSON. Version 1 has these keys; those that are empty are left out::

    v message_id hash event_type timestamp source tenant to[] payload
    channels[] priority at expires locale cancel_key sandbox trace

Version 2 has `attachments[]` besides, and is written only where there are some: a worker that knows nothing of them
parks such a call, where it can be put back, instead of sending half of it. Version 3 has `at_local`, and is written
only where there is one, for the same reason: a worker that does not know it would send at once. Version 4 has
`digest`, likewise; `off` needs none, since it is what a worker does that does not know it.

Times are RFC 3339 in UTC. `hash` is the canonical hash of the call (`body_hash`).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from notify_tasks import attachments
from notify_tasks.attachments import Attached
from notify_tasks.digesting import OFF, When
from notify_tasks.errors import InvalidCall, WireError
from notify_tasks.local_time import LocalTime

WIRE_VERSION: Final = 1
WIRE_VERSION_ATTACHMENTS: Final = 2
WIRE_VERSION_LOCAL_TIME: Final = 3
WIRE_VERSION_DIGEST: Final = 4
MAX_PAYLOAD_BYTES: Final = 64 * 1024
MAX_RECIPIENTS: Final = 100
MAX_MESSAGE_ID: Final = 128
DEFAULT_TENANT: Final = "default"
EVERY_TENANT: Final = "*"
"""Whose is what holds for all tenants, such as a stop said to a number that they share. No tenant is called so."""


def uuid7() -> uuid.UUID:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then random bits."""
    stamp = time.time_ns() // 1_000_000
    raw = bytearray(stamp.to_bytes(6, "big") + os.urandom(10))
    raw[6] = 0x70 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    return uuid.UUID(bytes=bytes(raw))


def canonical(value: object) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8. Two equal calls give the same bytes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def body_hash(body: Mapping[str, Any]) -> str:
    """The hash that tells a repetition from a conflict: 32 hexadecimal digits.

    Args:
        body: the call without message id, timestamp and trace. A relative time (`countdown=10`) is hashed
            as it was written, so that the repetition of a call is the same call.
    """
    return hashlib.sha256(canonical(body)).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class RecipientRef:
    """One entry of `to`: a known id, bare addresses, or an id with addresses to store."""

    id: str | None = None
    addresses: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Address by channel, as given in the call."""
    locale: str | None = None
    timezone: str | None = None

    def to_wire(self) -> dict[str, Any]:
        wire: dict[str, Any] = dict(self.addresses)
        for key in ("id", "locale", "timezone"):
            if (value := getattr(self, key)) is not None:
                wire[key] = value
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> RecipientRef:
        rest = dict(wire)
        return cls(
            id=rest.pop("id", None),
            locale=rest.pop("locale", None),
            timezone=rest.pop("timezone", None),
            addresses=rest,
        )


@dataclass(frozen=True, slots=True)
class Notification:
    """One accepted call. Values only; nothing here knows brokers or databases."""

    message_id: str
    event_type: str
    timestamp: datetime
    to: tuple[RecipientRef, ...] = field(repr=False)
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)
    hash: str = ""
    tenant: str = DEFAULT_TENANT
    source: str | None = None
    channels: tuple[str, ...] | None = None
    priority: str | None = None
    at: datetime | None = None
    expires: datetime | None = None
    locale: str | None = None
    cancel_key: str | None = None
    sandbox: bool = False
    trace: Mapping[str, str] | None = None
    attachments: tuple[Attached, ...] = field(default=(), repr=False)
    at_local: LocalTime | None = None
    """Not before, on each recipient's own clock; then there is no `at`."""
    digest: str | None = None
    """When it is to be gathered and sent (`digesting`), or `off`; None for whatever its type says."""

    def not_before(self, timezone: str | None) -> datetime | None:
        """When it may go to a recipient of this zone at the earliest, in UTC; None for at once."""
        return self.at if self.at_local is None else self.at_local.instant(timezone)

    @property
    def _version(self) -> int:
        if self.digest not in (None, OFF):
            return WIRE_VERSION_DIGEST
        if self.at_local is not None:
            return WIRE_VERSION_LOCAL_TIME
        return WIRE_VERSION_ATTACHMENTS if self.attachments else WIRE_VERSION

    def to_wire(self) -> dict[str, Any]:
        """The envelope, in the lowest version that can hold it."""
        wire: dict[str, Any] = {
            "v": self._version,
            "message_id": self.message_id,
            "hash": self.hash,
            "event_type": self.event_type,
            "timestamp": self.timestamp.isoformat(),
            "tenant": self.tenant,
            "to": [ref.to_wire() for ref in self.to],
            "payload": dict(self.payload),
        }
        for key in ("source", "priority", "locale", "cancel_key", "digest"):
            if (value := getattr(self, key)) is not None:
                wire[key] = value
        if self.channels is not None:
            wire["channels"] = list(self.channels)
        for key in ("at", "expires"):
            if (moment := getattr(self, key)) is not None:
                wire[key] = moment.isoformat()
        if self.at_local is not None:
            wire["at_local"] = str(self.at_local)
        if self.sandbox:
            wire["sandbox"] = True
        if self.trace:
            wire["trace"] = dict(self.trace)
        if self.attachments:
            wire["attachments"] = [each.to_wire() for each in self.attachments]
        return wire

    @classmethod
    def from_wire(cls, wire: object) -> Notification:
        """Read an envelope.

        Raises:
            WireError: it is not one, or of a version this code does not know. The text never shows its
                content.
        """
        if not isinstance(wire, dict):
            raise WireError(f"the envelope is a {type(wire).__name__}, not an object")
        version = wire.get("v")
        if not isinstance(version, int) or not WIRE_VERSION <= version <= WIRE_VERSION_DIGEST:
            said = version if isinstance(version, int) else f"of type {type(version).__name__}"
            raise WireError(
                f"the envelope has version {said}; "
                f"this worker reads versions {WIRE_VERSION} to {WIRE_VERSION_DIGEST}"
            )
        try:
            to = wire["to"]
            if not isinstance(to, list) or not to:
                raise WireError("the envelope's 'to' is not a list of recipients")
            channels = wire.get("channels")
            return cls(
                message_id=_text(wire, "message_id", MAX_MESSAGE_ID),
                hash=_text(wire, "hash", 64),
                event_type=_text(wire, "event_type", 200),
                timestamp=_moment(wire["timestamp"]),
                tenant=_tenant(wire),
                to=tuple(_recipient(entry) for entry in to),
                payload=_object(wire, "payload"),
                source=_optional_text(wire, "source"),
                channels=None if channels is None else _names(channels),
                priority=_optional_text(wire, "priority"),
                at=None if wire.get("at") is None else _moment(wire["at"]),
                expires=None if wire.get("expires") is None else _moment(wire["expires"]),
                locale=_optional_text(wire, "locale"),
                cancel_key=_optional_text(wire, "cancel_key"),
                sandbox=bool(wire.get("sandbox", False)),
                trace=_object(wire, "trace") or None,
                attachments=_attachments(wire, version),
                at_local=_local_time(wire, version),
                digest=_digest(wire),
            )
        except KeyError as error:
            raise WireError(f"the envelope has no {error.args[0]!r}") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise WireError(f"the envelope has a value of the wrong form ({type(error).__name__})") from None


def _text(wire: Mapping[str, Any], key: str, longest: int) -> str:
    value = wire[key]
    if not isinstance(value, str) or not value or len(value) > longest:
        raise WireError(f"the envelope's {key!r} is not a text of 1 to {longest} characters")
    return value


def _tenant(wire: Mapping[str, Any]) -> str:
    """Whose it is. `*` is every tenant's name for what holds for all of them, and so nobody's."""
    tenant = _text(wire, "tenant", 200)
    if tenant == EVERY_TENANT:
        raise WireError("the envelope's 'tenant' is '*', which is no tenant's name")
    return tenant


def _optional_text(wire: Mapping[str, Any], key: str) -> str | None:
    return None if wire.get(key) is None else _text(wire, key, 200)


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise WireError("the envelope's 'channels' is not a list of names")
    return tuple(value)


def _object(wire: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = wire.get(key, {})
    if not isinstance(value, dict):
        raise WireError(f"the envelope's {key!r} is not an object")
    return value


def _attachments(wire: Mapping[str, Any], version: int) -> tuple[Attached, ...]:
    if version == WIRE_VERSION or (version >= WIRE_VERSION_LOCAL_TIME and "attachments" not in wire):
        return ()
    return attachments.from_wire(wire["attachments"])


def _local_time(wire: Mapping[str, Any], version: int) -> LocalTime | None:
    if version < WIRE_VERSION_LOCAL_TIME or wire.get("at_local") is None:
        return None
    try:
        return LocalTime.parse(wire["at_local"])
    except InvalidCall:
        raise WireError("the envelope's 'at_local' is not a local time") from None


def _digest(wire: Mapping[str, Any]) -> str | None:
    value = _optional_text(wire, "digest")
    if value is None or value == OFF:
        return value
    try:
        return str(When.parse(value))
    except ValueError:
        raise WireError("the envelope's 'digest' does not say when") from None


def _recipient(entry: object) -> RecipientRef:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise WireError("a recipient in the envelope's 'to' is not an object of texts")
    return RecipientRef.from_wire(entry)


def _moment(value: object) -> datetime:
    if not isinstance(value, str):
        raise WireError("a time of the envelope is not a text")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise WireError("a time of the envelope has no zone")
    return moment.astimezone(UTC)
