"""Digests and throttles as a type's folder and a call write them, and when a digest is due. Pure.

What says when, as it is written:

    every 1h                windows that begin at the person's midnight, and each hour after it
    daily 08:00             at a time of day, on the person's clock
    weekly mon 08:00        at a time of day, once a week
    after 10m at most 1h    when nothing has come for so long, and in any case after so long
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from typing import Any, Final

from notify_tasks.choices import DAYS, instant, zone_of

EVERY: Final = "every"
DAILY: Final = "daily"
WEEKLY: Final = "weekly"
AFTER: Final = "after"
OFF: Final = "off"
DROP: Final = "drop"
DIGEST: Final = "digest"
HOLD: Final = "hold"
OVERS: Final = (DROP, DIGEST, HOLD)

DEFAULT_AT: Final = time(8, 0)
DEFAULT_DAY: Final = 0
"""Monday."""
DEFAULT_MOST: Final = 500
HIGHEST_MOST: Final = 5000
MAX_BYTES: Final = 1024 * 1024
"""Of payloads: a digest that holds so many is due at once."""
SHORTEST: Final = 1.0
LONGEST_WINDOW: Final = 86400.0
LONGEST_WAIT: Final = 31 * 86400.0
MAX_LIMIT: Final = 1_000_000
FORMS: Final = 'hourly, daily, "daily 08:00", "weekly mon 08:00", "every 2h", "after 10m at most 1h" or off'

_UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_SPAN: Final = re.compile(r"([0-9]{1,6}) ?(s|m|min|h|d)")
_CLOCK: Final = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")
_LIMIT: Final = re.compile(r"([0-9]{1,7}) ?/ ?([0-9]{0,6}) ?(s|m|min|h|d)")
_PATH: Final = re.compile(r"(?:payload\.)?([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)")
_MOST_CHANGE: Final = timedelta(hours=3)
"""No clock is put forward or back by more within a day, but where the date line moves."""


@dataclass(frozen=True, slots=True)
class When:
    """When what is gathered goes out.

    Args:
        kind: `every`, `daily`, `weekly` or `after`.
        seconds: of `every` the window's length, of `after` the silence that ends it.
        at_most: of `after`, seconds from the first item.
        day: of `weekly`, 0 for Monday; None for whatever the type says.
        at: of `daily` and `weekly`; None for whatever the type says.
    """

    kind: str
    seconds: float = 0.0
    at_most: float = 0.0
    day: int | None = None
    at: time | None = None

    @classmethod
    def parse(cls, text: str) -> When:
        """Read one; `str` writes it.

        Raises:
            ValueError: it is none; the text says what is wrong, and what to write.
        """
        words = " ".join(text.split())
        match words.split(" ", 1):
            case ["hourly"]:
                return cls(EVERY, 3600.0)
            case ["every", rest]:
                return every(span(rest))
            case ["daily", *rest]:
                return cls(DAILY, at=clock(rest[0]) if rest else None)
            case ["weekly", *rest]:
                return _weekly(rest[0] if rest else "")
            case ["after", rest] if " at most " in rest:
                silence, _, cap = rest.partition(" at most ")
                return after(span(silence), span(cap))
        raise ValueError(f"it does not say when. Write {FORMS}")

    def __str__(self) -> str:
        if self.kind == EVERY:
            return f"every {_written(self.seconds)}"
        if self.kind == AFTER:
            return f"after {_written(self.seconds)} at most {_written(self.at_most)}"
        day = [DAYS[self.day]] if self.day is not None else []
        at = [f"{self.at:%H:%M}"] if self.at is not None else []
        return " ".join([self.kind, *day, *at])

    def filled(self, usual: When) -> When:
        """With the day and the time of day that `usual` has, where it says none itself."""
        if self.kind not in (DAILY, WEEKLY):
            return self
        day = self.day if self.day is not None else usual.day if usual.day is not None else DEFAULT_DAY
        return replace(self, day=day if self.kind == WEEKLY else None, at=self.at or usual.at or DEFAULT_AT)

    def due(self, now: datetime, timezone: str | None) -> datetime:
        """When a digest is due that something joins now, in UTC: always later than `now`.

        A time of day that a clock skips is the moment of the change; of one that comes twice, it is the first.

        Args:
            now: an instant.
            timezone: the person's, an IANA name; UTC where it is not known.
        """
        if self.kind == AFTER:
            return now + timedelta(seconds=self.seconds)
        if self.kind == EVERY:
            return _window_end(now, timezone, self.seconds)
        return _time_of_day(now, timezone, self.at or DEFAULT_AT, self.day if self.kind == WEEKLY else None)

    def cap(self, now: datetime) -> datetime | None:
        """The latest moment for a digest that opens now; None where items do not put it off."""
        return now + timedelta(seconds=self.at_most) if self.kind == AFTER else None


def every(seconds: float) -> When:
    """Windows of one length.

    Raises:
        ValueError: a day has no such windows.
    """
    if not SHORTEST <= seconds <= LONGEST_WINDOW:
        raise ValueError(
            'a window is from a second to a day long. Write every = "1h", or weekly = "mon 08:00"'
        )
    return When(EVERY, seconds)


def after(seconds: float, at_most: float) -> When:
    """A silence that ends it, with its cap.

    Raises:
        ValueError: the cap is not longer than the silence, or one of them is out of range.
    """
    if not SHORTEST <= seconds < at_most <= LONGEST_WAIT:
        raise ValueError(
            'at_most is not longer than after, or longer than 31 days. Write after = "10m" and at_most = "1h"'
        )
    return When(AFTER, seconds, at_most)


def span(text: object) -> float:
    """Seconds of `10m`.

    Raises:
        ValueError: it is no span of time.
    """
    found = _SPAN.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None or int(found[1]) == 0:
        raise ValueError('it is no span of time. Write one number and one unit (s, m, h, d): "10m"')
    return float(int(found[1]) * _UNITS[found[2]])


def clock(text: object) -> time:
    """The time of day of `08:00`.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(text, str) or not _CLOCK.fullmatch(text):
        raise ValueError('it is no time of day. Write it as in "08:00"')
    return time.fromisoformat(text)


def _weekly(words: str) -> When:
    day, at = None, None
    for word in words.split():
        if word in DAYS and day is None and at is None:
            day = DAYS.index(word)
        elif at is None:
            at = clock(word)
        else:
            raise ValueError('it names more than a day and a time. Write "weekly mon 08:00"')
    return When(WEEKLY, day=day, at=at)


def _written(seconds: float) -> str:
    for unit in ("d", "h", "m"):
        if seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


# --- windows on a clock -------------------------------------------------------------------------------


def _time_of_day(now: datetime, timezone: str | None, at: time, weekday: int | None) -> datetime:
    zone = zone_of(timezone)
    today = now.astimezone(zone).date()
    for days in range(-1, 9):
        day = today + timedelta(days=days)
        if weekday in (None, day.weekday()) and (found := instant(day, at, zone)) > now:
            return found
    raise AssertionError("every week has each of its days")


def _window_end(now: datetime, timezone: str | None, seconds: float) -> datetime:
    """The next moment at which the time since midnight, as the clock shows it, is a multiple of `seconds`."""
    zone = zone_of(timezone)
    local = now.astimezone(zone)
    passed = timedelta(hours=local.hour, minutes=local.minute, seconds=local.second)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    window = timedelta(seconds=seconds)
    end = min(midnight + (passed // window + 1) * window, midnight + timedelta(days=1))
    found = instant(end.date(), end.time(), zone, fold=local.fold)
    if found > now and found.astimezone(zone).utcoffset() == local.utcoffset():
        return found
    # The clock changes before then: whatever it shows after the change counts, what it shows twice as well.
    starts = (midnight, midnight + timedelta(days=1))
    times = (
        each
        for start in starts
        for each in _multiples(start, window)
        if abs(each - local.replace(tzinfo=None)) <= _MOST_CHANGE + window
    )
    both = (instant(each.date(), each.time(), zone, fold=fold) for each in times for fold in (0, 1))
    return min((each for each in both if each > now), default=found)


def _multiples(midnight: datetime, window: timedelta) -> Iterator[datetime]:
    at = midnight
    while at < midnight + timedelta(days=1):
        yield at
        at += window


# --- what a type says ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DigestRule:
    """How a type's notifications are gathered.

    Args:
        type: the digest's own type.
        when: when it is due; None where it is gathered only for whoever asks for it: a call, or a person.
        first: whether the first item goes at once, and what follows is gathered.
        by: a field of the payload: each of its values is gathered by itself.
        most: a digest of so many events is due at once.
        channels: those on which it is gathered; None for all.
    """

    type: str
    when: When | None = None
    first: bool = False
    by: str | None = None
    most: int = DEFAULT_MOST
    channels: tuple[str, ...] | None = None

    def takes(self, channel: str) -> bool:
        """Whether what goes over this channel can be gathered."""
        return self.channels is None or channel in self.channels

    def asked(self, when: str) -> When:
        """When it is due for a person, or a call, that asks for `daily`, say, at the type's own time of day."""
        return When.parse(when).filled(self.when or When(DAILY))


@dataclass(frozen=True, slots=True)
class ThrottleRule:
    """How many of a type's notifications go to one person over one channel.

    Args:
        limit: so many,
        seconds: in each window of so long; they begin at whole multiples of it, in UTC.
        over: what becomes of the others: `drop`, `digest` or `hold`.
        by: a field of the payload: each of its values is counted by itself.
    """

    limit: int
    seconds: float
    over: str
    by: str | None = None

    def __str__(self) -> str:
        window = _written(self.seconds)
        return f"{self.limit}/{window[1:] if window[:-1] == '1' else window}"


def limit(text: object) -> tuple[int, float]:
    """How many in how many seconds: `3/h`, `5/10m`.

    Raises:
        ValueError: it is no such limit.
    """
    found = _LIMIT.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None or not 1 <= int(found[1]) <= MAX_LIMIT or (found[2] and int(found[2]) == 0):
        raise ValueError('it is no limit. Write how many and in which time: "3/h", "5/10m"')
    seconds = int(found[2] or 1) * _UNITS[found[3]]
    if seconds > LONGEST_WAIT:
        raise ValueError('its window is longer than 31 days. Write a shorter one: "100/30d"')
    return int(found[1]), float(seconds)


def path(text: object) -> str:
    """A field of the payload, `post_id` or `post.id`; `payload.` before it says the same.

    Raises:
        ValueError: it is none.
    """
    found = _PATH.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError('it names no field of the payload. Write by = "post_id", or "post.id"')
    return found[1]


def value_at(payload: Mapping[str, Any], where: str | None) -> Any:
    """The payload's value at a dotted path; None where there is none."""
    if where is None:
        return None
    found: Any = payload
    for part in where.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


# --- what a delivery joins, and what counts it ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gathering:
    """The digest that a delivery joins, unless the store says that it opens one and goes by itself.

    Args:
        key: everything that is gathered together has the same.
        type: the digest's own type.
        when: as written.
        due_at: if nothing else changes it.
        cap_at: for one that opens now; None where items do not put it off.
        by: the value that it is gathered by.
        first: whether what opens it goes at once.
        most: events at which it is due at once.
    """

    key: str
    type: str
    when: str
    due_at: datetime
    cap_at: datetime | None
    by: Any = None
    first: bool = False
    most: int = DEFAULT_MOST


@dataclass(frozen=True, slots=True)
class Throttling:
    """The count that a delivery takes its place in.

    Args:
        key: everything that is counted together has the same.
        rule: how many in which time, and what becomes of the others.
    """

    key: str
    rule: ThrottleRule


def key_of(*parts: object) -> str:
    """One short name for what is gathered or counted together."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]
