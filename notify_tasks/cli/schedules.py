"""`notify schedules add | list | show | pause | resume | remove`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from notify_tasks import durations, schedules
from notify_tasks.cli.context import find_fleet
from notify_tasks.cli.send import moment, payload, recipient
from notify_tasks.errors import InvalidCall
from notify_tasks.notification import DEFAULT_TENANT
from notify_tasks.schedules import Schedule
from notify_tasks.terminal.looks import clock
from notify_tasks.terminal.output import bold, dim, stderr, stdout

NOTHING: Final = "\N{EN DASH}"
SHOWN: Final = 3
_TYPED: Final = {"id": "ID", "event_type": "TYPE", "channels": "--channel", "count": "--next"}


@contextmanager
def _fleet() -> Iterator[None]:
    find_fleet()
    try:
        yield
    except InvalidCall as error:
        name, dot, inside = error.field.partition(".")
        name = name.partition("[")[0]
        typed = error.field if error.field.startswith("-") else _TYPED.get(name, f"--{name}{dot}{inside}")
        problem, remedy = error.problem, error.remedy
        if "`rrule`" in problem or problem == "nothing says when":
            problem = problem.replace("`rrule`", "--rrule")
            remedy = "Write one of --cron '30 8 * * MON-FRI' and --rrule 'FREQ=WEEKLY;BYDAY=MO'"
        raise InvalidCall(typed, problem, remedy) from None
    finally:
        schedules.close()


def add(options: argparse.Namespace) -> int:
    """Store a schedule, and say when it occurs."""
    to = [recipient(text) for text in options.to]
    now = datetime.now(UTC)
    given: dict[str, Any] = {
        "cron": options.cron,
        "rrule": options.rrule,
        "timezone": options.timezone,
        "missed": options.missed,
        "starts": _at("--starts", options.starts, now),
        "ends": _at("--ends", options.ends, now),
        "to": to[0] if len(to) == 1 else to,
        "payload": payload(options.payload),
        "channels": options.channel,
        "expires": _span(options.expires),
        "priority": options.priority,
        "locale": options.locale,
        "source": options.source,
    }
    with _fleet():
        made = schedules.put(options.id, options.event_type, tenant=options.tenant, **given)
    out = stdout()
    out.say(f"{made.id} is stored: {made.event_type} by {made.rule.text}, in {made.rule.timezone}")
    for line in _occurrences(made, SHOWN):
        out.say(line)
    return 0


def _at(option: str, text: str | None, now: datetime) -> datetime | None:
    found = moment(option, text)
    return found if found is None or isinstance(found, datetime) else now + found


def _span(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return durations.parse(text)
    except ValueError as error:
        problem, _, remedy = str(error).partition(". ")
        raise InvalidCall("--expires", problem, remedy) from None


def list_(options: argparse.Namespace) -> int:
    """List a page of schedules."""
    with _fleet():
        page = schedules.find(
            prefix=options.prefix, after=options.after, limit=options.limit, tenant=options.tenant
        )
    if options.json:
        for it in page.schedules:
            stdout().plain(json.dumps(_plain(it), ensure_ascii=False))
    elif page.schedules:
        rows = [
            (it.id, it.event_type, it.rule.text, it.rule.timezone, _next(it), dim(_last(it)))
            for it in page.schedules
        ]
        stdout().table(("id", "type", "rule", "zone", "next", "last"), rows)
    else:
        stdout().say("no schedules" + (" match" if options.prefix or options.after else ""))
    if page.next is not None:
        stderr().say([dim(f"there are more: add --after {page.next}")])
    return 0


def _next(it: Schedule) -> str:
    if it.problem is not None:
        return "has a problem"
    if it.paused_at is not None:
        return "paused"
    return "ended" if it.next_at is None else clock(it.next_at)


def _last(it: Schedule) -> str:
    return NOTHING if it.last_at is None else clock(it.last_at)


def show(options: argparse.Namespace) -> int:
    """Show one schedule and when it occurs."""
    with _fleet():
        found = schedules.get(options.id, tenant=options.tenant)
        if found is None:
            return _unknown(options)
        times = schedules.upcoming(options.id, options.next, tenant=options.tenant)
    out = stdout()
    if options.json:
        document = _plain(found) | {"upcoming": [it.isoformat() for it in times], "call": dict(found.call)}
        out.plain(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    out.say([bold(found.id), f"  {found.event_type}", dim(f"  changed {clock(found.updated_at)}")])
    count = len(found.call["to"])
    rows = [
        ("rule", f"{found.rule.text}  ({found.rule.kind}, in {found.rule.timezone})"),
        ("to", f"{count} recipient{'' if count == 1 else 's'}"),
        ("missed", found.missed),
        (
            "expires",
            NOTHING if found.lifetime is None else f"{durations.text(found.lifetime)} after its time",
        ),
        ("ends", NOTHING if found.rule.ends is None else clock(found.rule.ends)),
        ("last", _last(found) + (f"  {found.last_message_id}" if found.last_message_id else "")),
    ]
    if found.paused_at is not None:
        rows.append(("paused", f"since {clock(found.paused_at)}: `notify schedules resume {found.id}`"))
    if found.problem is not None:
        rows.append(("problem", found.problem))
    for name, value in rows:
        out.say([dim(f"  {name:<8}"), f" {value}"])
    for line in _occurrences(found, options.next):
        out.say(line)
    return 0


def _occurrences(it: Schedule, count: int) -> Iterator[str]:
    where = ZoneInfo(it.rule.timezone)
    times = schedules.following(it, count)
    if not times:
        yield "  it does not occur any more"
    for at in times:
        local = at.astimezone(where)
        also = "" if it.rule.timezone == "UTC" else f"  ({at:%Y-%m-%d %H:%M} UTC)"
        yield f"  {local:%a %Y-%m-%d %H:%M %Z}{also}"


def pause(options: argparse.Namespace) -> int:
    """Let a schedule rest."""
    with _fleet():
        found = schedules.pause(options.id, tenant=options.tenant)
    if found is None or found.paused_at is None:
        return _unknown(options)
    stdout().say(f"{found.id} is paused since {clock(found.paused_at)}")
    return 0


def resume(options: argparse.Namespace) -> int:
    """Let a paused schedule go on."""
    with _fleet():
        found = schedules.resume(options.id, tenant=options.tenant)
    if found is None:
        return _unknown(options)
    stdout().say(f"{found.id} goes on" + ("" if found.next_at is None else f": next {clock(found.next_at)}"))
    return 0


def remove(options: argparse.Namespace) -> int:
    """Remove a schedule."""
    with _fleet():
        if not schedules.remove(options.id, tenant=options.tenant):
            return _unknown(options)
    stdout().say(f"{options.id} is removed")
    return 0


def _unknown(options: argparse.Namespace) -> int:
    tenant = "" if options.tenant == DEFAULT_TENANT else f" in tenant {options.tenant}"
    stderr().say(
        f"notify: no schedule has the id {options.id}{tenant}. Type `notify schedules list` for those there are"
    )
    return 1


def _plain(it: Schedule) -> dict[str, Any]:
    times = {
        "starts": it.rule.starts,
        "ends": it.rule.ends,
        "paused_at": it.paused_at,
        "next_at": it.next_at,
        "last_at": it.last_at,
        "created_at": it.created_at,
        "updated_at": it.updated_at,
    }
    return {
        "id": it.id,
        "tenant": it.tenant,
        "event_type": it.event_type,
        "kind": it.rule.kind,
        "rule": it.rule.text,
        "timezone": it.rule.timezone,
        "missed": it.missed,
        "expires": it.lifetime,
        "problem": it.problem,
        "last_message_id": it.last_message_id,
        **{name: None if at is None else at.isoformat() for name, at in times.items()},
    }
