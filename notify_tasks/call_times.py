"""The times of a call, checked: when it is to go, and when it is worthless. Pure, but for the time zones' own files."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import Final
from zoneinfo import ZoneInfo

from notify_tasks.errors import InvalidCall
from notify_tasks.local_time import LocalTime
from notify_tasks.notification import RecipientRef

AT_GRACE: Final = dt.timedelta(hours=1)
"""By so much an `at` may have passed when a call is made, or repeated. What is older is a mistake."""


def read_at(value: object, now: dt.datetime) -> tuple[dt.datetime | LocalTime | None, object]:
    """The time of an `at`, and what of it is hashed.

    Args:
        value: a time with a zone, a span from now, or a `LocalTime`.
        now: the present, in UTC.

    Raises:
        InvalidCall: it is none of them, or it has passed.
    """
    remedy = "Write a time that is still to come, or leave it out to send at once"
    if isinstance(value, LocalTime):
        if value.latest <= now:
            raise InvalidCall("at", "this local time has passed everywhere on earth", remedy)
        return value, {"local": str(value)}
    moment, written = read_moment("at", value, now)
    if moment is not None and moment < now - AT_GRACE:
        raise InvalidCall("at", "it has passed already", remedy)
    return moment, written


def read_moment(field: str, value: object, now: dt.datetime) -> tuple[dt.datetime | None, object]:
    """The moment in UTC, and what of it is hashed: a relative time as it was written.

    Args:
        field: the argument that an error names.
        value: a time with a zone, or a span from now; for `expires` seconds, too.
        now: the present, in UTC.

    Raises:
        InvalidCall: it is neither.
    """
    if value is None:
        return None, None
    if isinstance(value, dt.datetime):
        if value.utcoffset() is None:
            raise InvalidCall(
                field,
                "the time has no zone, so it names no moment",
                "Write it with one, as in datetime(2030, 1, 31, 9, 0, tzinfo=ZoneInfo('Europe/Berlin'))",
            )
        try:
            moment = value.astimezone(dt.UTC)
        except OverflowError:
            raise InvalidCall(
                field, "the time is out of range", "Write a time before the year 9999"
            ) from None
        return moment, moment.isoformat()
    seconds = _seconds(field, value)
    try:
        return now + dt.timedelta(seconds=seconds), {"seconds": seconds}
    except OverflowError:
        raise InvalidCall(field, "the span is too long", "Write fewer seconds") from None


def _seconds(field: str, value: object) -> float:
    remedy = "Write a datetime with a zone or a timedelta" + (
        ", or seconds" if field == "expires" else ", or a LocalTime"
    )
    if isinstance(value, dt.timedelta):
        seconds = value.total_seconds()
    elif field == "expires" and isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise InvalidCall(field, f"{type(value).__name__} is not a time", remedy)
    if not math.isfinite(seconds) or seconds < 0:
        raise InvalidCall(field, "the span is not a number of seconds ahead", "Write a span of 0 or more")
    return seconds


def refuse_too_late(
    at: dt.datetime | LocalTime | None, expires: dt.datetime | None, now: dt.datetime
) -> None:
    """Refuse what would be worthless before it is sent. A local time is judged by the first zone on earth.

    Raises:
        InvalidCall: `expires` has passed, or comes before `at`.
    """
    if expires is None:
        return
    if expires <= now:
        raise InvalidCall("expires", "it has passed already", "Write a time that is still to come")
    if isinstance(at, LocalTime) and expires <= at.earliest:
        raise InvalidCall(
            "expires",
            "it comes before `at` does anywhere on earth, so nothing would ever be sent",
            f"Write a time after {at} in each recipient's zone, or leave it out: the type's own counts from `at`",
        )
    if isinstance(at, dt.datetime) and expires <= at:
        raise InvalidCall(
            "expires",
            "it is not after `at`, so nothing would ever be sent",
            "Write a later one; a span counts from the call, not from `at`",
        )


def check_zones(to: Sequence[RecipientRef]) -> None:
    """Refuse time zones that do not exist: a local time would be read on another clock than its author meant.

    A machine without the database of time zones cannot judge, and takes them.

    Raises:
        InvalidCall: one does not exist.
    """
    for index, ref in enumerate(to):
        if ref.timezone is not None and not _is_zone(ref.timezone) and _is_zone("Europe/Berlin"):
            where = "to" if len(to) == 1 else f"to[{index}]"
            raise InvalidCall(
                f"{where}.timezone", "there is no such time zone", "Write it as in Europe/Berlin or UTC"
            )


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # as in `choices.zone_of`
        return False
    return True
