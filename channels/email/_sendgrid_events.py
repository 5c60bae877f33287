"""What SendGrid reports: its Signed Event Webhook (twilio.com/docs/sendgrid/for-developers/tracking-events/event).

The signature is ECDSA on P-256 with SHA-256, over a timestamp and the raw body. It is checked with `cryptography`, and
not with SendGrid's own package, which would bring an HTTP client beside it; and it is believed for ten minutes only.
"""

from __future__ import annotations

import importlib.util
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from channels._receipt_reading import (
    code_of,
    delivery_of,
    digest_of,
    event_id,
    mail_address,
    moment,
    objects,
    parsed_json,
    theirs,
    word,
)
from channels.provider_options import Options
from channels.receipts import Event, Fate, Forged, Receipt, Standing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

FRESH: Final = 600.0
"""Seconds by which a timestamp may be off our clock, either way."""
_REMEDY: Final = "webhook_key; copy the verification key of the Signed Event Webhook from SendGrid's settings"
_NO_HEADER: Final = (
    "X-Twilio-Email-Event-Webhook-Signature or -Timestamp is missing; switch the Signed Event Webhook on"
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one kind of event says, and our sentence about it."""

    fate: Fate | None
    standing: Standing | None = None
    detail: str = ""


_DEAD: Final = Meaning(Fate.UNDELIVERED, Standing.INVALID, "the address is dead")
_LOST: Final = Meaning(Fate.UNDELIVERED, None, "it bounced, which is not the address's fault")
EVENTS: Final[Mapping[str, Meaning]] = {
    "processed": Meaning(Fate.ACCEPTED),
    "deferred": Meaning(Fate.ACCEPTED, None, "the other side puts it off; SendGrid tries again for 72 hours"),
    "delivered": Meaning(Fate.DELIVERED),
    "open": Meaning(Fate.READ),
    "click": Meaning(Fate.READ),
    "spamreport": Meaning(Fate.DELIVERED, Standing.COMPLAINED, "the person called it spam"),
    "unsubscribe": Meaning(Fate.DELIVERED, Standing.OPTED_OUT, "the person unsubscribed"),
    "group_unsubscribe": Meaning(Fate.DELIVERED, Standing.OPTED_OUT, "the person unsubscribed from a group"),
    "group_resubscribe": Meaning(Fate.DELIVERED, Standing.OPTED_IN, "the person subscribed to a group again"),
}
"""`event`; `bounce` and `dropped` have tables of their own."""
BLOCKED: Final = Meaning(
    Fate.UNDELIVERED, None, "the other side blocked it; look at its content and our reputation"
)
CLASSIFICATIONS: Final[Mapping[str, Meaning]] = {
    "invalid address": _DEAD,
    "mailbox unavailable": _LOST,
    "technical": _LOST,
    "technical failure": _LOST,
    "content": _LOST,
    "reputation": _LOST,
    "frequency or volume too high": _LOST,
}
"""`bounce_classification` of a `bounce` whose `status` is not one of `DEAD_STATUS`."""
DEAD_STATUS: Final = re.compile(r"5\.(1\.([1236]|10)|2\.1|4\.4)", re.ASCII)
"""Of a bounce (RFC 3463): no such mailbox or domain, as in the table of `email.smtp`."""
UNCLEAR_STATUS: Final = re.compile(r"5\.[01]\.[0-9]{1,3}", re.ASCII)
"""Says that it was the address, or nothing: SendGrid put the address on its list of bounces, and so do we."""
DROPPED: Final[Mapping[str, Meaning]] = {
    "bounced address": Meaning(Fate.UNDELIVERED, Standing.INVALID, "SendGrid saw the address bounce before"),
    "invalid": _DEAD,
    "unsubscribed address": Meaning(Fate.UNDELIVERED, Standing.OPTED_OUT, "the person had unsubscribed"),
    "spam reporting address": Meaning(Fate.UNDELIVERED, Standing.COMPLAINED, "the person had called us spam"),
}
"""`reason` of a `dropped`; with any other, SendGrid did not send it, and the address is not at fault."""
_WITH_STATUS: Final = frozenset({"bounce", "deferred", "dropped"})
_STATUS: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", re.ASCII)
_UNSENT: Final = Meaning(Fate.UNDELIVERED, None, "SendGrid did not send it; its Activity page says why")


# --- who sent it ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signer:
    """Says whether SendGrid signed a receipt.

    Args:
        keys: public halves: the one in use, and the other one while they change. None: nothing is believed.
    """

    keys: tuple[EllipticCurvePublicKey, ...] = field(repr=False)

    def verify(self, receipt: Receipt, now: float | None = None) -> None:
        """Return if SendGrid sent it.

        Args:
            receipt: that came in.
            now: seconds since 1970; None for this machine's clock.

        Raises:
            Forged: it did not, or not within the last ten minutes.
        """
        if not self.keys:
            raise Forged("unconfigured", f"nothing proves a receipt without the option {_REMEDY}")
        given = receipt.header("x-twilio-email-event-webhook-signature")
        at = receipt.header("x-twilio-email-event-webhook-timestamp")
        if not given or not at:
            raise Forged("missing_header", _NO_HEADER)
        raw = _canonical(given)
        if raw is None or re.fullmatch(r"[0-9]{1,12}", at, re.ASCII) is None:
            raise Forged("signature", "signature or timestamp are malformed; look for what changes headers")
        if not any(_signed(key, raw, at.encode() + receipt.body) for key in self.keys):
            raise Forged("signature", f"the signature is not that of {_REMEDY}")
        if abs(int(at) - (time.time() if now is None else now)) > FRESH:
            raise Forged("timestamp", f"it was signed more than {FRESH:.0f} s away; set this machine's clock")


def read_keys(given: Options, value: object) -> tuple[EllipticCurvePublicKey, ...]:
    """The option `webhook_key`: one key, or two while one replaces the other.

    Raises:
        Misconfigured: there is something else, or `cryptography` is not installed.
    """
    if value is None:
        return ()
    if importlib.util.find_spec("cryptography") is None:
        raise given.wrong(
            "webhook_key", "needs the package cryptography; type pip install 'notify-tasks[worker]'"
        )
    keys = tuple(_key(each.reveal()) for each in given.secrets("webhook_key"))
    if None in keys:
        raise given.wrong("webhook_key", f"is no public key of P-256 in base64: {_REMEDY}")
    return tuple(key for key in keys if key is not None)


def _key(text: str) -> EllipticCurvePublicKey | None:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - only who has the option needs it
    from cryptography.hazmat.primitives.asymmetric.ec import (  # noqa: PLC0415
        SECP256R1,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415

    try:
        key = load_der_public_key(b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1) else None


def _canonical(text: str) -> bytes | None:
    """The bytes of a base64 text that has no second way of being written: its last letter may hide bits."""
    try:
        raw = b64decode(text, validate=True)
    except ValueError:
        return None
    return raw if b64encode(raw).decode() == text else None


def _signed(key: EllipticCurvePublicKey, raw: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    try:
        key.verify(raw, signed, ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


# --- what it says -----------------------------------------------------------------------------------


def events(receipt: Receipt) -> Sequence[Event]:
    """What a verified receipt says.

    Raises:
        Unreadable: it is no JSON array of objects.
    """
    return [_event(each) for each in objects(parsed_json(receipt))]


def _event(entry: Mapping[str, Any]) -> Event:
    kind = entry.get("event")
    meaning = _meaning(kind, entry)
    status = word(entry.get("status"))
    tells = word(kind) in _WITH_STATUS and _STATUS.fullmatch(status)
    detail = "SendGrid has a new event, or one about our account; look at its console"
    return Event(
        id=event_id(theirs(entry.get("sg_event_id")) or digest_of(entry)),
        code=status if tells else code_of(kind),
        fate=meaning.fate if meaning else None,
        standing=meaning.standing if meaning else None,
        known=meaning is not None,
        delivery_id=delivery_of(entry.get("delivery_id")),
        provider_message_id=_message_id(entry.get("sg_message_id")),
        address=mail_address(entry.get("email")),
        at=moment(entry.get("timestamp")),
        detail=meaning.detail if meaning else detail,
    )


def _meaning(kind: object, entry: Mapping[str, Any]) -> Meaning | None:
    if kind == "bounce":
        return _bounce(entry)
    if kind == "dropped":
        return DROPPED.get(word(entry.get("reason")), _UNSENT)
    if kind == "open" and entry.get("sg_machine_open") is True:
        return Meaning(Fate.DELIVERED, None, "a machine opened it ahead of the person")
    return EVENTS.get(kind) if isinstance(kind, str) else None


def _bounce(entry: Mapping[str, Any]) -> Meaning:
    if entry.get("type") == "blocked":
        return BLOCKED
    status = word(entry.get("status"))
    if DEAD_STATUS.fullmatch(status):
        return _DEAD
    classified = CLASSIFICATIONS.get(word(entry.get("bounce_classification")))
    if classified is not None:
        return classified
    return _DEAD if not status or UNCLEAR_STATUS.fullmatch(status) else _LOST


def _message_id(value: object) -> str | None:
    """The X-Message-Id that Mail Send answered: an event writes the way through SendGrid's machines behind it."""
    found = theirs(value)
    return re.split(r"\.(?:filter|recvd)", found)[0] or None if found else None
