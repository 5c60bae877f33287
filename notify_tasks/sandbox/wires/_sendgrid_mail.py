"""Judges the body of SendGrid's Mail Send, as the reference of its fields and errors has it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

_ADDRESS: Final = re.compile(r"[^\s@<>,;:\"()\[\]\\]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+", re.ASCII)
_INVALID: Final = "Does not contain a valid address."
_MOST: Final = 1000
_MOST_CATEGORIES: Final = 10
_LONGEST_CATEGORY: Final = 255
_MOST_ARGUMENTS: Final = 10_000
_RESERVED: Final = frozenset(
    {"x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding"}
    | {"to", "from", "subject", "reply-to", "cc", "bcc"}
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong: SendGrid's sentence, and the field that it names."""

    message: str
    field: str | None


def find_problem(mail: Mapping[str, Any]) -> Problem | None:
    """The first thing that SendGrid refuses; None where it takes the mail."""
    return next(_problems(mail), None)


def _problems(mail: Mapping[str, Any]) -> Iterator[Problem]:
    parts = mail.get("personalizations")
    if not isinstance(parts, list) or not parts:
        yield Problem(
            "The personalizations field is required and must have at least one personalization.",
            "personalizations",
        )
        return
    if len(parts) > _MOST:
        yield Problem(f"There may be at most {_MOST} personalizations.", "personalizations")
    for place, part in enumerate(parts):
        yield from _personalization(part, f"personalizations.{place}")
    if not _is_party(mail.get("from")):
        yield Problem(_INVALID, "from.email")
    if "reply_to" in mail and not _is_party(mail["reply_to"]):
        yield Problem(_INVALID, "reply_to.email")
    template = isinstance(mail.get("template_id"), str)
    if not template and not mail.get("subject") and not all(part.get("subject") for part in parts):
        yield Problem("The subject is required.", "subject")
    if not template or "content" in mail:
        yield from _content(mail.get("content"))
    yield from _attachments(mail.get("attachments", []))
    yield from _extras(mail, "")


def _personalization(part: Any, where: str) -> Iterator[Problem]:
    if not isinstance(part, dict):
        yield Problem("Invalid type. Expected: object.", where)
        return
    if not isinstance(part.get("to"), list) or not part["to"]:
        yield Problem(
            "The to array is required for all personalization objects, and must have at least one email "
            "object with a valid email address.",
            f"{where}.to",
        )
    seen: set[str] = set()
    for name in ("to", "cc", "bcc"):
        for place, party in enumerate(part.get(name) or []):
            if not _is_party(party):
                yield Problem(_INVALID, f"{where}.{name}.{place}.email")
                return
            if party["email"].lower() in seen:
                yield Problem("Each email address must be unique between to, cc, and bcc.", f"{where}.{name}")
            seen.add(party["email"].lower())
    yield from _extras(part, f"{where}.")


def _content(content: Any) -> Iterator[Problem]:
    if not isinstance(content, list) or not content:
        yield Problem("Unless a valid template_id is provided, the content parameter is required.", "content")
        return
    for place, part in enumerate(content):
        for name in ("type", "value"):
            value = part.get(name) if isinstance(part, dict) else None
            if not isinstance(value, str) or not value:
                yield Problem("It must be a string of at least one character.", f"content.{place}.{name}")
                return
    kinds = [part["type"] for part in content]
    order = {"text/plain": 0, "text/html": 1}
    if kinds != sorted(kinds, key=lambda kind: order.get(kind, 2)):
        yield Problem("text/plain must come first, then text/html, then anything else.", "content")


def _attachments(attachments: Any) -> Iterator[Problem]:
    for place, each in enumerate(attachments if isinstance(attachments, list) else [None]):
        for name in ("content", "filename"):
            if not isinstance(each, dict) or not isinstance(each.get(name), str) or not each[name]:
                yield Problem(f"The attachment's {name} is required.", f"attachments.{place}.{name}")
                return
        try:
            base64.b64decode(each["content"], validate=True)
        except binascii.Error:
            yield Problem("The attachment content must be base64 encoded.", f"attachments.{place}.content")


def _extras(mail: Mapping[str, Any], where: str) -> Iterator[Problem]:
    headers = mail.get("headers", {})
    if not isinstance(headers, dict) or any(str(name).lower() in _RESERVED for name in headers):
        yield Problem("It has a reserved header.", f"{where}headers")
    arguments = mail.get("custom_args", {})
    sound = isinstance(arguments, dict) and all(isinstance(each, str) for each in arguments.values())
    if (
        not sound
        or sum(len(f"{name}{value}".encode()) for name, value in arguments.items()) > _MOST_ARGUMENTS
    ):
        yield Problem(f"They are strings of at most {_MOST_ARGUMENTS} bytes.", f"{where}custom_args")
    categories = mail.get("categories", [])
    sound = isinstance(categories, list) and len(categories) <= _MOST_CATEGORIES
    if not sound or any(not isinstance(each, str) or len(each) > _LONGEST_CATEGORY for each in categories):
        yield Problem(f"At most {_MOST_CATEGORIES} of {_LONGEST_CATEGORY} characters.", f"{where}categories")


def _is_party(party: Any) -> bool:
    return (
        isinstance(party, dict)
        and isinstance(party.get("email"), str)
        and bool(_ADDRESS.fullmatch(party["email"]))
    )
