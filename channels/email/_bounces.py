"""Reads what comes back by mail: delivery reports (RFC 3464) and complaints (RFC 5965), with the standard library.

A report is the mail itself, as the server of `bounce_domain` got it: POSTed to the door as `message/rfc822`, or piped
to a command. The server that hands it in needs no password: the signature in the return path is the proof
(`channels.email._return_path`). It proves the delivery and nothing else, so the address in an event is always None:
a report speaks of the delivery that its return path names, whatever addresses it has in it.

What has a return path and is no report gives no event: out-of-office answers (RFC 3834), replies, read receipts. A mail
from a server that is neither is an event that nobody knows, and so is seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message as Mail
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Final

from channels._receipt_reading import code_of, digest, event_id
from channels.contract import AddressInvalid, ChannelError, OptedOut
from channels.email._return_path import ReturnPath
from channels.receipts import Event, Fate, Forged, Receipt, Standing, Unreadable

MAX_READ: Final = 256 * 1024
"""Bytes of a report: the returned mail comes last in it, and may be as long as it likes."""
_MOST_PARTS: Final = 40
_MOST_GROUPS: Final = 20
_MOST_HEADERS: Final = 400

ACTIONS: Final[Mapping[str, Fate]] = {
    "failed": Fate.UNDELIVERED,
    "delayed": Fate.ACCEPTED,
    "delivered": Fate.DELIVERED,
    "relayed": Fate.SENT,
    "expanded": Fate.SENT,
}
"""`Action` (RFC 3464, section 2.3.3)."""
CLASSES: Final[Mapping[str, str]] = {"5": "failed", "4": "delayed", "2": "delivered"}
"""What `Status` says by its first digit (RFC 3463) where a server leaves `Action` out."""
FEEDBACK: Final[Mapping[str, tuple[Standing | None, str]]] = {
    "abuse": (Standing.COMPLAINED, "the person called it spam"),
    "fraud": (Standing.COMPLAINED, "the person called it fraud"),
    "opt-out": (Standing.OPTED_OUT, "the person unsubscribed"),
    "not-spam": (None, "the person said that it is no spam"),
}
"""`Feedback-Type` (RFC 5965, section 7.3)."""

_REPLY: Final = re.compile(r"\s*([245][0-9]{2})[ -]#?(5\.[0-9]{1,3}\.[0-9]{1,3})?", re.ASCII)

Judge = Callable[[int, str | None, str], ChannelError]
"""What a server's answer to RCPT means: its reply code, its status, its text."""


def verify(receipt: Receipt, path: ReturnPath | None) -> None:
    """Return if the report is about a mail of ours.

    Raises:
        Forged: it is not, or we cannot know.
    """
    if path is None:
        raise Forged(
            "unconfigured", "nothing proves a bounce without return paths; set bounce_domain and bounce_key"
        )
    mail = _parsed(receipt)
    if mail is None or path.find(_headers(mail)) is None:
        raise Forged(
            "signature",
            "no return path in it is signed with bounce_key; hand over the whole mail, with Delivered-To or To",
        )


def events(receipt: Receipt, path: ReturnPath | None, judge: Judge) -> Sequence[Event]:
    """What a verified report says.

    Args:
        receipt: the mail.
        path: whose return path it has.
        judge: knows what a server's answer says of an address.

    Raises:
        Unreadable: it cannot be read, or its return path cannot be found any more.
    """
    mail = _parsed(receipt)
    delivery_id = path.find(_headers(mail)) if mail is not None and path is not None else None
    if mail is None or delivery_id is None:
        raise Unreadable("it is no mail with a return path of ours")
    try:
        return list(_events(mail, delivery_id, judge))
    except (ValueError, LookupError, TypeError, RecursionError, AttributeError):
        problem = (
            "its parts cannot be read"  # what the standard library raises for odd parts, whichever they are
        )
    raise Unreadable(problem)


def _parsed(receipt: Receipt) -> Mail | None:
    try:
        return message_from_bytes(receipt.body[:MAX_READ])
    except (ValueError, LookupError, TypeError, RecursionError, AttributeError):
        return None


def _parts(mail: Mail) -> Iterator[Mail]:
    return islice(mail.walk(), _MOST_PARTS)


def _headers(mail: Mail) -> Iterator[str]:
    """Every header, that of the report first: Delivered-To, To; then those in the report, and of the mail returned."""
    try:
        for part in _parts(mail):
            for value in islice(part.values(), _MOST_HEADERS):
                yield str(value)
            if part.get_content_type() == "text/rfc822-headers":
                yield str(part.get_payload())
    except (ValueError, LookupError, TypeError, RecursionError, AttributeError):
        return


def _events(mail: Mail, delivery_id: str, judge: Judge) -> Iterator[Event]:
    reports = [part for part in _parts(mail) if part.get_content_type() in _READERS]
    if mail.get_content_type() == "multipart/report" and reports:
        for part in reports:
            yield from _READERS[part.get_content_type()](mail, part, delivery_id, judge)
    elif _from_a_server(mail):
        yield Event(
            id=event_id(delivery_id, "mail", _fingerprint(mail)),
            code="?",
            known=False,
            delivery_id=delivery_id,
            detail="a mail server wrote back, in no form of RFC 3464; read it",
        )


def _from_a_server(mail: Mail) -> bool:
    """Whether a mail that is no report may be a bounce all the same, and neither a person's nor a machine's answer."""
    answered = str(mail.get("Auto-Submitted", "no")).strip().lower().startswith("auto-replied")
    vacation = any(name in mail for name in ("X-Autoreply", "X-Autorespond", "X-Auto-Response-Suppress"))
    bulk = str(mail.get("Precedence", "")).strip().lower() in {"auto_reply", "bulk", "list"}
    read = str(mail.get_param("report-type")).lower() == "disposition-notification"
    sender = str(mail.get("From", "")).lower()
    by_a_server = str(mail.get("Return-Path", "")).strip() == "<>" or "mailer-daemon" in sender
    return by_a_server and not (answered or vacation or bulk or read)


# --- delivery reports -------------------------------------------------------------------------------


def _delivery_status(mail: Mail, part: Mail, delivery_id: str, judge: Judge) -> Iterator[Event]:
    """One event for each recipient of `message/delivery-status`: the first group of fields is about the report."""
    groups = part.get_payload()
    found = [each for each in groups if isinstance(each, Mail)] if isinstance(groups, list) else []
    told = False
    for group in found[1 : 1 + _MOST_GROUPS]:
        if "Action" in group or "Status" in group:
            told = True
            yield _recipient(mail, found[0], group, delivery_id, judge)
    if not told:
        raise ValueError("no recipient")


def _recipient(mail: Mail, about: Mail, group: Mail, delivery_id: str, judge: Judge) -> Event:
    status = _status_of(group)
    action = _word(group, "Action") or CLASSES.get(status[:1], "")
    fate = ACTIONS.get(action)
    standing, detail = None, "" if fate else "the report has an Action that RFC 3464 does not"
    if fate is Fate.UNDELIVERED:
        standing, detail = _judged(status, str(group.get("Diagnostic-Code", "")), judge)
    return Event(
        id=event_id(delivery_id, action or "-", status or "-", _fingerprint(mail, about, group)),
        code=status or code_of(action),
        fate=fate,
        standing=standing,
        known=fate is not None,
        delivery_id=delivery_id,
        at=_date(group.get("Last-Attempt-Date"))
        or _date(about.get("Arrival-Date"))
        or _date(mail.get("Date")),
        detail=detail,
    )


def _judged(status: str, diagnostic: str, judge: Judge) -> tuple[Standing | None, str]:
    """What the answer would have meant to ourselves, at RCPT."""
    kind, _, text = diagnostic.partition(";")
    reply = _REPLY.match(text) if kind.strip().lower() == "smtp" else None
    code = int(reply[1]) if reply else 550
    if status.startswith("4") or code < 500:  # noqa: PLR2004 - a permanent no: RFC 5321, section 4.2.1
        return None, "the server gave up after trying for some time"
    if status.endswith(".0.0"):  # says nothing, and some servers write it beside an answer that does
        status = (reply[2] or "") if reply else ""
    outcome = judge(code, status or None, text)
    if isinstance(outcome, AddressInvalid):
        return Standing.INVALID, "no such mailbox or domain"
    return (Standing.OPTED_OUT if isinstance(outcome, OptedOut) else None), "the other side did not take it"


def _status_of(group: Mail) -> str:
    found = re.search(r"\b[245]\.[0-9]{1,3}\.[0-9]{1,3}\b", str(group.get("Status", "")), re.ASCII)
    return found[0] if found else ""


# --- complaints -------------------------------------------------------------------------------------


def _feedback(mail: Mail, part: Mail, delivery_id: str, _judge: Judge) -> Iterator[Event]:
    inside = part.get_payload()
    group = inside[0] if isinstance(inside, list) and inside else part
    if not isinstance(group, Mail):
        raise TypeError("no fields")
    kind = _word(group, "Feedback-Type")
    standing, detail = FEEDBACK.get(
        kind, (None, "the report has a Feedback-Type that the table FEEDBACK lacks")
    )
    yield Event(
        id=event_id(delivery_id, "feedback", _fingerprint(mail, group)),
        code=code_of(kind),
        fate=Fate.DELIVERED if kind in FEEDBACK else None,  # whoever complains has it
        standing=standing,
        known=kind in FEEDBACK,
        delivery_id=delivery_id,
        at=_date(group.get("Arrival-Date")) or _date(mail.get("Date")),
        detail=detail,
    )


_READERS: Final[Mapping[str, Callable[[Mail, Mail, str, Judge], Iterator[Event]]]] = {
    "message/delivery-status": _delivery_status,
    "message/global-delivery-status": _delivery_status,
    "message/feedback-report": _feedback,
}


# --- fields -----------------------------------------------------------------------------------------


def _word(group: Mail, name: str) -> str:
    """A field's first word: a comment in brackets may follow."""
    found = re.match(r"\s*([A-Za-z-]+)", str(group.get(name, "")), re.ASCII)
    return found[1].lower() if found else ""


def _fingerprint(mail: Mail, *groups: Mail) -> str:
    """The same for a report that is told again, and another one for each report."""
    named = [str(mail.get("Message-ID", "")).strip()]
    fields = ("Reporting-MTA", "Final-Recipient", "Status", "Feedback-Type", "Arrival-Date")
    return digest(*named, *(str(group.get(name, "")).strip() for group in groups for name in fields))[:20]


def _date(value: object) -> datetime | None:
    try:
        found = parsedate_to_datetime(str(value))
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
