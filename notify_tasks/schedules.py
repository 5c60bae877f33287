"""Recurring schedules: calls that are made again and again, on the minute, in a named time zone.

    from notify_tasks import schedules

    schedules.put("weekly-report", "report.weekly", cron="30 8 * * MON", timezone="Europe/Berlin", to="user-42")
    schedules.put("rent", "rent.due", rrule="FREQ=MONTHLY;BYMONTHDAY=-1;BYHOUR=9;BYMINUTE=0", timezone="Europe/Berlin",
                  to="user-42", payload={"flat": 3}, missed="all")
    schedules.upcoming("rent", 3)                 # three datetimes in UTC
    schedules.pause("rent")
    schedules.resume("rent")                      # with what is to come; what was due meanwhile does not go out
    page = schedules.find(prefix="report-")       # 100 at a time: page.schedules, page.next
    schedules.remove("rent")

Each occurrence is one call, made within seconds of its time by whichever worker sweeps, with the message id
`weekly-report@2026-11-23T07:30Z`: `notify status`, `cancel` and `replay` know it by that. How the clock changes of a
zone are kept is said in `recurrence`.

Needs the extra `[worker]` and the setting `database_url`. Each function is one transaction and may be run again after
an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, TypedDict, Unpack, cast

from notify_tasks.errors import InvalidCall, NotHere
from notify_tasks.notification import DEFAULT_TENANT
from notify_tasks.recipients import To, meant, safe_name, text
from notify_tasks.recipients import tenant as whole_tenant

_LIBRARIES: Final = frozenset({"cronsim", "dateutil", "psycopg", "psycopg_pool"})

try:
    from notify_tasks import recurrence
    from notify_tasks.api_connections import close, database
    from notify_tasks.calls import build_notification
    from notify_tasks.recurrence import MISSED, Kind
    from notify_tasks.store import schedules as stored
    from notify_tasks.store.database import DatabaseAway
    from notify_tasks.store.schedules import NewSchedule, Page, Schedule
except ModuleNotFoundError as error:
    if error.name not in _LIBRARIES:
        raise
    raise NotHere(
        f"recurring schedules need {error.name}, which is not installed here. Install it: "
        "pip install 'notify-tasks[worker]', or use `notify schedules` where it is"
    ) from None

__all__ = [
    "Call",
    "DatabaseAway",
    "Page",
    "Schedule",
    "close",
    "find",
    "get",
    "pause",
    "put",
    "remove",
    "resume",
    "upcoming",
]

MAX_PAGE: Final = 1000
MAX_UPCOMING: Final = 1000
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OF_EACH: Final = ("message_id", "timestamp", "expires")


class Call(TypedDict, total=False):
    """What `put` takes besides: its rule, and the call that each occurrence makes.

    Exactly one of `cron` and `rrule`. The call's fields mean what they mean in `send_notification.delay`.
    """

    cron: str
    """Five fields, as in `30 8 * * MON-FRI`, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`."""
    rrule: str
    """RFC 5545, as in `FREQ=WEEKLY;INTERVAL=2;BYDAY=MO;BYHOUR=9;BYMINUTE=0`; it counts from `starts`."""
    timezone: str
    """An IANA name; the default is UTC."""
    missed: str
    """What becomes of occurrences that nobody took up within a minute of their time, because the fleet stood still:
    `once` (the default): the latest one goes out; `all`: each of them; `skip`: none."""
    starts: datetime | None
    """Nothing before; with a zone. The default is now, or what a schedule with the same rule and zone has."""
    ends: datetime | None
    """Nothing after; with a zone."""
    to: To
    payload: Mapping[str, Any] | None
    channels: list[str] | None
    priority: str | None
    expires: timedelta | float | None
    """A span, or seconds, from each occurrence."""
    digest: str | None
    locale: str | None
    source: str | None
    cancel_key: str | None
    sandbox: bool


_OWN: Final = ("cron", "rrule", "timezone", "missed", "starts", "ends")
_NAMES: Final = tuple(Call.__annotations__)
_MEANT: Final = {"tz": "timezone", "zone": "timezone", "until": "ends", "rule": "cron", "ttl": "expires"}
_NOT_HERE: Final = {
    "at": ("each occurrence has its own time", "Leave it out; `starts` says from when on"),
    "message_id": ("each occurrence has its own", "Leave it out; the schedule's id is in each of them"),
    "attachments": ("a recurring call carries none", "Put a link into the payload"),
}


def put(
    id: str,  # noqa: A002 - what it is called everywhere
    event_type: str,
    *,
    tenant: str = DEFAULT_TENANT,
    **call: Unpack[Call],
) -> Schedule:
    """Store a schedule, or replace the one of this id as a whole; a paused one stays paused.

    Storing the same again, as at each start of a service, changes nothing of its times. Another rule holds for what is
    to come; what was due at this moment goes out first, as the schedule was.

    Args:
        id: 1 to 100 letters, digits, dots, - and _.
        event_type: `report.weekly`.
        tenant: whose it is.
        **call: see `Call`.

    Returns:
        the schedule as it is stored now.

    Raises:
        InvalidCall: a field is wrong: which, what is wrong with it, and what to write. Nothing was stored.
        NotConfigured: no database is set.
        DatabaseAway: it cannot be used now.
    """
    given = dict(call)
    _refuse_unknown(given)
    kind, rule = _which_rule(given)
    missed = given.get("missed") or "once"
    if missed not in MISSED:
        raise InvalidCall("missed", "there is no such policy", f"Write one of {', '.join(MISSED)}")
    now = datetime.now(UTC)
    starts, ends = (_moment(name, given.get(name)) for name in ("starts", "ends"))
    zone = cast("str", given.get("timezone") or "UTC")
    read = recurrence.read(kind, rule, zone, starts=starts or now, ends=ends)
    lifetime = _lifetime(given.get("expires"))
    of_call = {name: value for name, value in given.items() if name not in (*_OWN, "expires")}
    built = build_notification(event_type, now=now, **cast("Any", of_call), tenant=whole_tenant(tenant))
    envelope = {name: value for name, value in built.to_wire().items() if name not in _OF_EACH}
    new = NewSchedule(
        id=_id(id),
        tenant=built.tenant,
        kind=kind,
        rule=read.text,
        timezone=zone,
        missed=missed,
        lifetime=lifetime,
        starts=starts,
        ends=ends,
        envelope=envelope,
    )
    return stored.put(database(), new)


def get(
    id: str,  # noqa: A002 - as above
    *,
    tenant: str = DEFAULT_TENANT,
) -> Schedule | None:
    """A schedule; None where there is none of this id.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `put`.
    """
    return stored.get(database(), text(id, "id"), tenant=text(tenant, "tenant"))


def find(
    *, prefix: str = "", after: str | None = None, limit: int = 100, tenant: str = DEFAULT_TENANT
) -> Page:
    """List schedules, a page at a time, in the order of their ids' bytes.

    Args:
        prefix: how their ids begin.
        after: `next` of the page before; None begins.
        limit: how many at most, up to 1,000.
        tenant: whose they are.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `put`.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidCall("limit", f"{limit} is out of range", f"Write 1 to {MAX_PAGE}")
    return stored.find(
        database(),
        prefix=text(prefix, "prefix") if prefix else "",
        after=text(after, "after") if after else "",
        limit=limit,
        tenant=text(tenant, "tenant"),
    )


def pause(
    id: str,  # noqa: A002 - as above
    *,
    tenant: str = DEFAULT_TENANT,
) -> Schedule | None:
    """Let a schedule rest: what is due and not yet taken up does not go out. None where there is none of this id.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `put`.
    """
    return stored.pause(database(), text(id, "id"), tenant=text(tenant, "tenant"))


def resume(
    id: str,  # noqa: A002 - as above
    *,
    tenant: str = DEFAULT_TENANT,
) -> Schedule | None:
    """Let a paused schedule go on with its next occurrence. What fell into the pause is not missed and does not go out.

    Returns:
        the schedule; None where there is none of this id.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `put`.
    """
    return stored.resume(database(), text(id, "id"), tenant=text(tenant, "tenant"))


def remove(
    id: str,  # noqa: A002 - as above
    *,
    tenant: str = DEFAULT_TENANT,
) -> bool:
    """Remove a schedule. Calls that it has made go their way; `notify cancel` stops them.

    Returns:
        whether there was one of this id.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `put`.
    """
    return stored.remove(database(), text(id, "id"), tenant=text(tenant, "tenant"))


def upcoming(
    id: str,  # noqa: A002 - as above
    count: int = 5,
    *,
    tenant: str = DEFAULT_TENANT,
) -> tuple[datetime, ...]:
    """The next occurrences of a schedule, in UTC, whether it is paused or not; fewer where it ends, or is not there.

    Args:
        id: the schedule's.
        count: how many, up to 1,000.
        tenant: whose it is.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `put`.
    """
    if not 1 <= count <= MAX_UPCOMING:
        raise InvalidCall("count", f"{count} is out of range", f"Write 1 to {MAX_UPCOMING}")
    found = get(id, tenant=tenant)
    return () if found is None else following(found, count)


def following(schedule: Schedule, count: int) -> tuple[datetime, ...]:
    """The next occurrences of a schedule that has been read, in UTC.

    Args:
        schedule: as `get` returned it.
        count: how many at most.
    """
    if schedule.next_at is None:
        return ()
    if schedule.paused_at is not None:
        return tuple(islice(schedule.rule.after(datetime.now(UTC)), count))
    return (schedule.next_at, *islice(schedule.rule.after(schedule.next_at), count - 1))


# --- checks -----------------------------------------------------------------------------------------


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    for position, name in enumerate(given):
        if name in _NOT_HERE:
            raise InvalidCall(name, *_NOT_HERE[name])
        if name not in _NAMES:
            known = dict.fromkeys(_NAMES)
            raise InvalidCall(safe_name(name, position), "there is no such field", meant(name, known, _MEANT))


def _which_rule(given: Mapping[str, Any]) -> tuple[Kind, str]:
    cron, rrule = given.get("cron"), given.get("rrule")
    if (cron is None) == (rrule is None):
        problem = "nothing says when" if cron is None else "it is given, and `rrule` is as well"
        raise InvalidCall(
            "cron", problem, 'Write one of cron="30 8 * * MON-FRI" and rrule="FREQ=WEEKLY;BYDAY=MO"'
        )
    kind: Kind = "rrule" if cron is None else "cron"
    return kind, text(given[kind], kind, longest=recurrence.MAX_RULE)


def _moment(name: str, value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidCall(
            name,
            "it is not a time with a zone",
            "Write one, as in datetime(2030, 1, 31, 9, 0, tzinfo=ZoneInfo('Europe/Berlin'))",
        )
    return value


def _lifetime(value: object) -> float | None:
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e9:  # noqa: PLR2004 - 30 years
        raise InvalidCall(
            "expires",
            "it is not a span from each occurrence",
            "Write a timedelta or seconds, as in timedelta(hours=2)",
        )
    return float(seconds)


def _id(value: object) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InvalidCall(
            "id",
            "it is not the id of a schedule",
            "Write 1 to 100 letters, digits, dots, - and _, beginning with a letter or digit",
        )
    return value
