"""Reads receipts: what a provider's `verify` and `events` have in common. Pure; what cannot be read is `Unreadable`.

Nothing here raises anything but `Unreadable` and `Forged`, whatever the bytes: a receipt comes from outside.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

from channels.receipts import Receipt, Unreadable

MAX_EVENTS: Final = 10_000
"""In one receipt: more than any provider's batch."""
_MAX_FIELDS: Final = 200
_DELIVERY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_CODE: Final = re.compile(r"-?[0-9]{1,6}|[0-9]\.[0-9]{1,3}\.[0-9]{1,3}|[A-Za-z_][\w.:-]{0,60}", re.ASCII)
_PLAIN: Final = re.compile(r"[\x21-\x7e]{1,200}", re.ASCII)
_NUMBER: Final = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
_LONGEST_ADDRESS: Final = 320  # octets of both parts and the @ (RFC 3696, section 3)
_LAST_SECOND: Final = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


def same(given: str, right: str) -> bool:
    """Whether two texts are the same; how long that takes says nothing of where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "backslashreplace"), right.encode())


# --- bodies -----------------------------------------------------------------------------------------


def form(text: str | bytes) -> list[tuple[str, str]]:
    """The pairs of a form or of a query, decoded.

    Raises:
        Unreadable: it is none: not UTF-8, a field without `=`, or too many of them. Leniently read, two bodies
            could say the same to a signature.
    """
    if not text:
        return []
    try:
        raw = text.decode("ascii") if isinstance(text, bytes) else text
        return parse_qsl(
            raw, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        problem = "it is no form in UTF-8"
    raise Unreadable(problem)


def fields(receipt: Receipt) -> dict[str, str]:
    """The fields of a form in the body; of a repeated one the last.

    Raises:
        Unreadable: there is none.
    """
    return dict(form(receipt.body))


def query(receipt: Receipt) -> dict[str, str]:
    """The fields of the query; of a repeated one the last. Empty where it cannot be read."""
    try:
        return dict(form(receipt.query))
    except Unreadable:
        return {}


def parsed_json(receipt: Receipt) -> Any:
    """The JSON in the body.

    Raises:
        Unreadable: it is none.
    """
    try:
        return json.loads(receipt.body)
    except (ValueError, RecursionError):
        problem = "it is no JSON"
    raise Unreadable(problem)


def objects(found: Any) -> list[Mapping[str, Any]]:
    """What a batch in JSON has: an array of objects, or one object alone.

    Raises:
        Unreadable: it is neither, or too long.
    """
    listed = [found] if isinstance(found, Mapping) else found
    if not isinstance(listed, list) or len(listed) > MAX_EVENTS:
        raise Unreadable("it is no array of events")
    if not all(isinstance(each, Mapping) for each in listed):
        raise Unreadable("it has an event that is no object")
    return listed


# --- values -----------------------------------------------------------------------------------------


def code_of(value: object) -> str:
    """A provider's word or number as it came; `?` where it is none that may be shown: it could be an address."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if _CODE.fullmatch(text) else "?"


def word(value: object) -> str:
    """A text to look up in a table: without spaces around it, in lower case. Empty where a value is none."""
    return value.strip().casefold() if isinstance(value, str) else ""


def delivery_of(value: object) -> str | None:
    """Our delivery's id, where a value is one."""
    return value if isinstance(value, str) and _DELIVERY.fullmatch(value) else None


def theirs(value: object) -> str | None:
    """A provider's id of a message, where a value is one that can be kept."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if _PLAIN.fullmatch(text) else None


def number(value: object) -> str | None:
    """A phone number in E.164, where a value is one."""
    return value if isinstance(value, str) and _NUMBER.fullmatch(value) else None


def mail_address(value: object) -> str | None:
    """An address of mail, where a value may be one: it is for looking up, and no mail goes there because of it."""
    sound = isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_ADDRESS and "@" in value
    return str(value) if sound else None


def moment(value: object) -> datetime | None:
    """A time in UTC from seconds since 1970, where a value is one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LAST_SECOND:
        return None
    return datetime.fromtimestamp(value, UTC)


def clock(value: object, offset: timedelta = timedelta()) -> datetime | None:
    """A time in UTC from `2017-01-01 00:00:00`, where a value is one.

    Args:
        value: what may be one.
        offset: by which their clock is ahead of UTC.
    """
    try:
        return datetime.strptime(str(value), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) - offset
    except (ValueError, OverflowError):
        return None


def event_id(*parts: object) -> str:
    """An id that is the same for the same parts: the parts themselves where they are short and plain, else a digest."""
    text = ":".join(str(each) for each in parts)
    return text if _PLAIN.fullmatch(text) else digest(text)


def digest(*parts: object) -> str:
    """32 hexadecimal digits for some values that must not be shown, or are too long."""
    told = "\0".join(str(each) for each in parts).encode("utf-8", "backslashreplace")
    return hashlib.sha256(told).hexdigest()[:32]


def digest_of(entry: Mapping[str, Any]) -> str:
    """The same for an object of a batch that has no id.

    Raises:
        Unreadable: it is nested too deeply.
    """
    try:
        return digest(json.dumps(entry, sort_keys=True))
    except RecursionError:
        problem = "it is nested too deeply"
    raise Unreadable(problem)


def any_of(checks: Iterable[bool]) -> bool:
    """Whether one holds; all are asked, so that the time says nothing of which."""
    return sum(checks) > 0
