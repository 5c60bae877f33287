"""When something that repeats is due: cron expressions and RRULEs, in a named time zone. Pure.

A rule speaks of local wall time, whole minutes of it, and so its occurrences are found there first and become instants
afterwards. Where clocks change:

* a wall time that does not exist (clocks went forward) becomes the first instant after the gap;
* a wall time that exists twice (clocks went back) becomes the first of the two, and only that one;
* wall times that become the same instant are one occurrence.

So a daily 02:30 occurs once on every day of the year, and an hourly rule is silent in the second of two equal hours.
A rule that shall not notice is one in `UTC`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice, takewhile
from typing import Final, Literal
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from dateutil.rrule import rrule, rrulestr

from notify_tasks.errors import InvalidCall

Kind = Literal["cron", "rrule"]
Missed = Literal["once", "all", "skip"]
KINDS: Final = ("cron", "rrule")
MISSED: Final = ("once", "all", "skip")

MISSED_SECONDS: Final = 60.0
"""An occurrence that nobody has taken up so long after its time was missed."""
HORIZON_YEARS: Final = 50
"""A rule that does not occur within so long never does."""
MAX_COUNT: Final = 10_000
"""Of an RRULE's COUNT: each look at such a rule counts from its beginning."""
MAX_INTERVAL: Final = 100_000
MAX_RULE: Final = 500
_MINUTE: Final = timedelta(minutes=1)
_LOOK_BACK: Final = tuple(timedelta(hours=hours) for hours in (2, 48, 24 * 62, 24 * 800, 24 * 3700))

_MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_CRON_FIELDS: Final = 5
_CRON_REMEDY: Final = (
    "Write five fields (minute, hour, day of month, month, day of week), as in '30 8 * * MON-FRI', or one of "
    + ", ".join(_MACROS)
)
_RRULE_REMEDY: Final = "Write one as RFC 5545 has it, as in FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=9;BYMINUTE=30"
_NUMBERS: Final = frozenset(
    {"BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYHOUR", "BYMINUTE", "BYSECOND", "BYSETPOS"}
)
_PARTS: Final = _NUMBERS | {"FREQ", "INTERVAL", "COUNT", "UNTIL", "BYDAY", "WKST"}
_PERIODS: Final = {
    "MINUTELY": timedelta(minutes=1),
    "HOURLY": timedelta(hours=1),
    "DAILY": timedelta(days=1),
    "WEEKLY": timedelta(weeks=1),
}
_WITHIN_A_DAY: Final = ("MINUTELY", "HOURLY", "DAILY")
_FREQUENCIES: Final = ("YEARLY", "MONTHLY", *reversed(_PERIODS))
_UNTIL: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z?")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that has been read (`read`), ready to be asked.

    Args:
        kind: `cron` or `rrule`.
        text: as it was written, but for spaces and case.
        timezone: an IANA name.
        starts: the first minute that may be one, in UTC; an RRULE counts its intervals from there (DTSTART).
        ends: nothing after this instant, in UTC.
    """

    kind: Kind
    text: str
    timezone: str
    starts: datetime
    ends: datetime | None = field(default=None)

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Its occurrences after an instant, in UTC and in order.

        Args:
            instant: with a zone.
        """
        where = ZoneInfo(self.timezone)
        last = instant.astimezone(UTC)
        begin = max(last, self.starts - _MINUTE).astimezone(where).replace(tzinfo=None)
        for wall in self._walls(begin):
            found = to_instant(wall, where)
            if self.ends is not None and found > self.ends:
                return
            if found > last and found >= self.starts:
                last = found
                yield found

    def first_after(self, instant: datetime) -> datetime | None:
        """The next occurrence after an instant, in UTC; None where there is none any more."""
        return next(self.after(instant), None)

    def _walls(self, begin: datetime) -> Iterator[datetime]:
        """Local wall times that match, after one of them, within the horizon."""
        end = begin.replace(year=min(begin.year + HORIZON_YEARS, 9000), day=1)
        found = _cron(self.text, begin) if self.kind == "cron" else self._rrule(begin, end)
        return takewhile(lambda wall: wall < end, found)

    def _rrule(self, begin: datetime, end: datetime) -> Iterator[datetime]:
        parts = _split(self.text)
        first = self.starts.astimezone(ZoneInfo(self.timezone)).replace(tzinfo=None, second=0, microsecond=0)
        until = parts.pop("UNTIL", "")
        latest = _wall_of_until(until, self.timezone) if until else end
        rule = _compiled(_joined(parts), _brought_forward(parts, first, begin))
        for wall in rule.xafter(begin, inc=False):
            if wall > min(latest, end):
                return
            yield wall


def read(
    kind: Kind, text: str, timezone: str, *, starts: datetime, ends: datetime | None = None, field: str = ""
) -> Rule:
    """Read a rule and see that it ever occurs.

    Args:
        kind: `cron`: five fields, with names (`MON-FRI`, `JAN`), `L` and `#`, or `@daily` and its kin. A rule with a
            star in one of the day fields needs both to match, else one of them is enough, as Vixie's cron has it.
            `rrule`: RFC 5545, section 3.3.10, without seconds; DTSTART is `starts`.
        text: the rule.
        timezone: an IANA name.
        starts: no occurrence before; with a zone. Seconds are dropped.
        ends: no occurrence after; with a zone.
        field: what an error calls the rule; its kind unless said.

    Raises:
        InvalidCall: the rule or the zone is wrong, or it never occurs: what to write instead.
    """
    named = field or kind
    if not text.strip():
        raise InvalidCall(named, "it is empty", _CRON_REMEDY if kind == "cron" else _RRULE_REMEDY)
    if len(text) > MAX_RULE:
        raise InvalidCall(named, f"it is longer than {MAX_RULE} characters", "Write several schedules")
    _check_zone(timezone)
    plain = _plain_cron(text, named) if kind == "cron" else _plain_rrule(text, named)
    start = starts.astimezone(UTC).replace(second=0, microsecond=0)
    rule = Rule(kind, plain, timezone, start, None if ends is None else ends.astimezone(UTC))
    try:
        first = rule.first_after(start - _MINUTE) if kind == "cron" or _has_days(plain) else None
    except (ValueError, CronSimError, OverflowError):
        first = None
    if first is None:
        raise InvalidCall(
            named,
            f"it never occurs from {start:%Y-%m-%d %H:%M} UTC on"
            + ("" if ends is None else f" until {ends.astimezone(UTC):%Y-%m-%d %H:%M} UTC"),
            "Write days that the calendar has" + ("" if ends is None else ", or a later end"),
        )
    return rule


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done now.

    Args:
        fire: the occurrences that go out, in order, in UTC.
        next_at: the one after them; None where there is none any more.
    """

    fire: tuple[datetime, ...]
    next_at: datetime | None


def due(rule: Rule, next_at: datetime, now: datetime, missed: Missed, *, limit: int) -> Due:
    """Which occurrences go out now, by what is to become of missed ones.

    Args:
        rule: of the schedule.
        next_at: the first occurrence that nobody has taken up; it counts as one whatever the rule says.
        now: the present; not before `next_at`.
        missed: `once`: of all that are due, the latest; `all`: each, the oldest first; `skip`: none that is older
            than `MISSED_SECONDS`.
        limit: occurrences at most; where there are more, `next_at` is the first that is left.
    """
    if missed == "all":
        fire = (next_at, *islice(takewhile(lambda it: it <= now, rule.after(next_at)), limit - 1))
        return Due(fire, rule.first_after(fire[-1]))
    latest = _latest(rule, next_at, now)
    late = (now - latest).total_seconds() >= MISSED_SECONDS
    return Due(() if late and missed == "skip" else (latest,), rule.first_after(max(now, latest)))


def _latest(rule: Rule, next_at: datetime, now: datetime) -> datetime:
    """The last occurrence up to now: looked for from now backwards, since there may be a year of them."""
    for span in (*_LOOK_BACK, now - next_at):
        begin = max(next_at, now - span)
        found = list(takewhile(lambda it: it <= now, rule.after(begin)))
        if found:
            return found[-1]
        if begin == next_at:
            break
    return next_at


def to_instant(wall: datetime, where: ZoneInfo) -> datetime:
    """The instant of a wall time, in UTC: after a gap, at the first of a fold.

    Args:
        wall: local time without a zone.
        where: the zone.
    """
    instant = wall.replace(tzinfo=where, fold=0).astimezone(UTC)
    if instant.astimezone(where).replace(tzinfo=None) == wall:
        return instant
    # In a gap: fold 0 is reckoned by the offset before it, and so lies after it; fold 1 the other way round.
    low, high = wall.replace(tzinfo=where, fold=1).astimezone(UTC), instant
    before = low.astimezone(where).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if middle.astimezone(where).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high


# --- cron -------------------------------------------------------------------------------------------


def _plain_cron(text: str, named: str) -> str:
    plain = " ".join(text.split())
    if plain.startswith("@"):
        if plain.lower() not in _MACROS:
            near = get_close_matches(plain.lower(), _MACROS, n=1)
            remedy = f"Did you mean {near[0]}?" if near else f"There are {', '.join(_MACROS)}"
            raise InvalidCall(named, "there is no such short form", remedy)
        return plain.lower()
    count = len(plain.split(" "))
    if count != _CRON_FIELDS:
        raise InvalidCall(named, f"it has {count} fields", _CRON_REMEDY)
    try:
        CronSim(plain, datetime(2000, 1, 1))  # noqa: DTZ001 - wall time has no zone
    except CronSimError as error:
        if _never(plain):
            return plain
        bad = str(error).removeprefix("Bad ").replace("-", " ")
        raise InvalidCall(named, f"its {bad} is none", _CRON_REMEDY) from None
    return plain.upper()


def _never(text: str) -> bool:
    """Whether each field is right by itself, and only their days never come."""
    minute, hour, day, month, weekday = text.split(" ")
    try:
        CronSim(f"{minute} {hour} {day} * *", datetime(2000, 1, 1))  # noqa: DTZ001 - as above
        CronSim(f"{minute} {hour} * {month} {weekday}", datetime(2000, 1, 1))  # noqa: DTZ001 - as above
    except CronSimError:
        return False
    return True


def _cron(text: str, begin: datetime) -> Iterator[datetime]:
    return iter(CronSim(_MACROS.get(text, text), begin))


# --- RRULE ------------------------------------------------------------------------------------------


def _plain_rrule(text: str, named: str) -> str:
    plain = "".join(text.split()).upper().removeprefix("RRULE:").rstrip(";")
    parts: dict[str, str] = {}
    for part in plain.split(";"):
        name, equals, value = part.partition("=")
        if name in ("DTSTART", "DTEND", "EXDATE", "RDATE") or ":" in part:
            raise InvalidCall(
                named, "it is more than one rule", "Write the rule alone; `starts` is its DTSTART"
            )
        if not equals or not value or name not in _PARTS:
            raise InvalidCall(named, f"{name[:40]!r} is no part of a rule with its value", _RRULE_REMEDY)
        if name in parts:
            raise InvalidCall(named, f"{name} is there twice", "Write it once")
        parts[name] = value
    _check_parts(parts, named)
    return _joined(parts)


def _check_parts(parts: dict[str, str], named: str) -> None:
    frequency = parts.get("FREQ", "")
    if frequency not in _FREQUENCIES:
        problem = "it has no FREQ" if not frequency else f"FREQ={frequency[:20]} is none"
        if frequency == "SECONDLY":
            problem = "FREQ=SECONDLY is more often than once a minute"
        raise InvalidCall(named, problem, f"Write FREQ as one of {', '.join(_FREQUENCIES)}")
    if parts.get("BYSECOND", "0") not in ("0", "00"):
        raise InvalidCall(named, "BYSECOND is finer than a minute", "Leave it out")
    if "BYSETPOS" in parts and frequency in _WITHIN_A_DAY:
        raise InvalidCall(named, f"BYSETPOS says nothing with FREQ={frequency}", "Write BYHOUR and BYMINUTE")
    if "COUNT" in parts and "UNTIL" in parts:
        raise InvalidCall(named, "it has COUNT and UNTIL", "Keep one of them")
    for name, most in (("INTERVAL", MAX_INTERVAL), ("COUNT", MAX_COUNT)):
        value = parts.get(name, "1")
        if not (value.isascii() and value.isdigit() and 1 <= int(value) <= most):
            raise InvalidCall(named, f"{name} is not a number from 1 to {most}", f"Write {name}=1")
    _check_numbers(parts, named)
    _check_together(parts, named)


def _check_together(parts: dict[str, str], named: str) -> None:
    if "UNTIL" in parts and not _UNTIL.fullmatch(parts["UNTIL"]):
        raise InvalidCall(named, "UNTIL is not a time", "Write UNTIL=20301231T230000Z")
    try:
        if "UNTIL" in parts:
            _wall_of_until(parts["UNTIL"], "UTC")
        _compiled(_joined({name: it for name, it in parts.items() if name != "UNTIL"}), datetime(2000, 1, 1))  # noqa: DTZ001 - as above
    except (ValueError, TypeError, KeyError, IndexError):
        raise InvalidCall(named, "its parts do not fit each other", _RRULE_REMEDY) from None


_LIMITS: Final = {
    "BYMONTH": 12, "BYMONTHDAY": 31, "BYYEARDAY": 366, "BYWEEKNO": 53, "BYHOUR": 23, "BYMINUTE": 59, "BYSECOND": 59,
    "BYSETPOS": 366,
}  # fmt: skip
_FROM_ZERO: Final = ("BYHOUR", "BYMINUTE", "BYSECOND")
_FROM_END: Final = ("BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYSETPOS")


def _check_numbers(parts: dict[str, str], named: str) -> None:
    for name in _NUMBERS & parts.keys():
        most = _LIMITS[name]
        for word in parts[name].split(","):
            number = int(word) if re.fullmatch(r"[+-]?[0-9]{1,3}", word) else most + 1
            if name in _FROM_END:
                number = abs(number)
            if not (0 if name in _FROM_ZERO else 1) <= number <= most:
                raise InvalidCall(named, f"{name} has a value that is none", _RRULE_REMEDY)


def _has_days(text: str) -> bool:
    """Whether its days are in the calendar: found out in steps of years, where its own would be minutes."""
    parts = _split(text)
    days: dict[str, str] = {
        name: parts[name] for name in ("BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYDAY") if name in parts
    }
    if parts["FREQ"] not in _WITHIN_A_DAY or not days:
        return True
    probe = _compiled(_joined({"FREQ": "YEARLY", **days}), datetime(2000, 1, 1))  # noqa: DTZ001 - as above
    return next(iter(probe), None) is not None


def _split(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(";"))


def _joined(parts: dict[str, str]) -> str:
    return ";".join(f"{name}={value}" for name, value in parts.items())


@lru_cache(maxsize=256)
def _compiled(text: str, start: datetime) -> rrule:
    return rrulestr(text, dtstart=start)


def _brought_forward(parts: dict[str, str], first: datetime, begin: datetime) -> datetime:
    """A later start from which the same rule has the same occurrences, so that years are not walked through."""
    period = _PERIODS.get(parts["FREQ"])
    if period is None or "COUNT" in parts:
        return first
    step = period * int(parts.get("INTERVAL", "1"))
    return first + step * max(0, (begin - first) // step - 1)


def _wall_of_until(until: str, timezone: str) -> datetime:
    wall = datetime.strptime(until.removesuffix("Z"), "%Y%m%dT%H%M%S")  # noqa: DTZ007 - wall time, or UTC below
    if until.endswith("Z"):
        return wall.replace(tzinfo=UTC).astimezone(ZoneInfo(timezone)).replace(tzinfo=None)
    return wall


# --- zones ------------------------------------------------------------------------------------------


def _check_zone(name: object) -> None:
    known = _zones()
    if isinstance(name, str) and name in known:
        return
    near = get_close_matches(name, known, n=1) if isinstance(name, str) else []
    remedy = (
        f"Did you mean {near[0]}?"
        if near
        else "Write a name of the IANA database, as in Europe/Berlin, or UTC"
    )
    raise InvalidCall("timezone", "there is no such time zone", remedy)


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones()) - {"localtime", "posixrules", "Factory"}
