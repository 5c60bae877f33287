"""`notify preferences show | set | reset | history`."""

from __future__ import annotations

import argparse
import getpass
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from notify_tasks import preferences
from notify_tasks.choices import ANY, DAILY, DAYS, DROP, HOLD, OFF, ON, WEEKLY
from notify_tasks.cli.context import find_fleet
from notify_tasks.errors import InvalidCall
from notify_tasks.notification import DEFAULT_TENANT
from notify_tasks.preferences import Version
from notify_tasks.terminal.looks import clock
from notify_tasks.terminal.output import bold, dim, stderr, stdout

NONE: Final = "none"
_TYPED: Final = {
    "recipient_id": "ID",
    "categories": "--on, --off, --daily, --weekly, --default",
    "quiet_hours.from": "--quiet-hours",
    "quiet_hours.to": "--quiet-hours",
    "quiet_hours.days": "--days",
    "quiet_hours.timezone": "--timezone",
    "vacation.from": "--vacation",
    "vacation.until": "--vacation",
    "order": "--order",
    "if_version": "--if-version",
    "limit": "--limit",
}


@contextmanager
def _fleet() -> Iterator[None]:
    find_fleet()
    try:
        yield
    except InvalidCall as error:
        first = error.field.partition(".")[0]
        field = first if first in ("categories", "order") else error.field
        raise InvalidCall(_TYPED.get(field, field), error.problem, error.remedy) from None
    finally:
        preferences.close()


def show(options: argparse.Namespace) -> int:
    """Show what a person has chosen."""
    with _fleet():
        found = preferences.get(options.id, tenant=options.tenant)
    if found is None:
        tenant = "" if options.tenant == DEFAULT_TENANT else f" in tenant {options.tenant}"
        stderr().say(
            f"notify: no recipient has the id {options.id}{tenant}. "
            "Type `notify recipients list` for those there are"
        )
        return 1
    if options.json:
        stdout().plain(json.dumps(_plain(found), indent=2, ensure_ascii=False))
    else:
        _say(found)
    return 0


def set_(options: argparse.Namespace) -> int:
    """Change what a person has chosen."""
    fields = _fields(options)
    if not fields:
        raise InvalidCall("--on", "nothing is to be changed", "Name a change, as in --off orders:sms")
    with _fleet():
        now = preferences.update(
            options.id,
            changed_by=_who(),
            if_version=options.if_version,
            tenant=options.tenant,
            **fields,
        )
    _say(now)
    return 0


def reset(options: argparse.Namespace) -> int:
    """Take every choice of a person back."""
    with _fleet():
        now = preferences.reset(
            options.id, changed_by=_who(), if_version=options.if_version, tenant=options.tenant
        )
    _say(now)
    return 0


def history(options: argparse.Namespace) -> int:
    """List the versions that there were."""
    with _fleet():
        found = preferences.history(options.id, limit=options.limit, tenant=options.tenant)
    if options.json:
        for each in found:
            stdout().plain(json.dumps(_plain(each), ensure_ascii=False))
    elif found:
        rows = [
            (
                str(it.version),
                clock(it.changed_at) if it.changed_at else "",
                it.changed_by,
                _summary(it.settings),
            )
            for it in found
        ]
        stdout().table(("version", "changed", "by", "what holds since"), rows)
    else:
        stdout().say(f"{options.id} has never chosen anything")
    return 0


# --- what was typed -----------------------------------------------------------------------------------


def _who() -> str:
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user id without a name, as containers have
        return f"cli:{os.getuid()}"


def _fields(options: argparse.Namespace) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    categories: dict[str, dict[str, str | None]] = {}
    said_by = (("on", ON), ("off", OFF), ("daily", DAILY), ("weekly", WEEKLY), ("default", None))
    for name, said in said_by:
        for word in getattr(options, name) or ():
            category, _, channel = word.partition(":")
            categories.setdefault(category, {})[channel or ANY] = said
    if categories:
        fields["categories"] = categories
    if options.quiet_hours is not None:
        fields["quiet_hours"] = _quiet_hours(options)
    elif options.days or options.timezone:
        raise InvalidCall("--days", "it says when quiet hours are", "Add --quiet-hours 22:00-07:00")
    if options.vacation is not None:
        fields["vacation"] = _vacation(options)
    elif options.drop:
        raise InvalidCall("--drop", "it says what a vacation does", "Add --vacation FROM/UNTIL")
    if options.order:
        fields["order"] = dict(map(_order, options.order))
    return fields


def _order(word: str) -> tuple[str, list[str] | None]:
    """`sms,push`, `orders:email,sms` or `orders:none`."""
    category, colon, channels = word.rpartition(":")
    return category if colon else ANY, None if channels == NONE else channels.split(",")


def _quiet_hours(options: argparse.Namespace) -> dict[str, Any] | None:
    if options.quiet_hours == NONE:
        return None
    begin, _, end = options.quiet_hours.partition("-")
    wanted: dict[str, Any] = {"from": begin, "to": end}
    if options.days:
        wanted["days"] = options.days.split(",")
    if options.timezone:
        wanted["timezone"] = options.timezone
    return wanted


def _vacation(options: argparse.Namespace) -> dict[str, Any] | None:
    if options.vacation == NONE:
        return None
    begin, slash, until = options.vacation.partition("/")
    wanted = {"from": begin, "until": until} if slash else {"until": begin}
    return wanted | {"mode": DROP if options.drop else HOLD}


# --- how it looks -------------------------------------------------------------------------------------


def _say(it: Version) -> None:
    out = stdout()
    when = f", changed {clock(it.changed_at)} by {it.changed_by}" if it.changed_at else ""
    out.say([bold(it.recipient_id), dim(f"  version {it.version}{when}")])
    for line in _told(it.settings):
        out.say(f"  {line}")


def _told(settings: Mapping[str, Any]) -> list[str]:
    said = [each for ways in settings.get("categories", {}).values() for each in ways.values()]
    width = max(3, *map(len, said)) if said else 0
    told = [
        f"{said:<{width}}  {'every category' if category == ANY else category}"
        f" {'on every channel' if channel == ANY else f'on {channel}'}"
        for category, ways in sorted(settings.get("categories", {}).items(), reverse=True)
        for channel, said in sorted(ways.items(), reverse=True)
    ]
    quiet, away = settings.get("quiet_hours"), settings.get("vacation")
    if quiet:
        days = "" if len(quiet["days"]) == len(DAYS) else f" on {', '.join(quiet['days'])}"
        told.append(
            f"quiet hours {quiet['from']} to {quiet['to']}{days}, {quiet.get('timezone', 'local time')}"
        )
    if away:
        mode = "dropped" if away["mode"] == DROP else "held"
        told.append(f"away from {away['from']} to {away['until']}: what comes is {mode}")
    told += [
        f"tries {', then '.join(channels)}{'' if category == ANY else f' for {category}'}"
        for category, channels in sorted(settings.get("order", {}).items(), reverse=True)
    ]
    return told or ["nothing chosen: the types' defaults hold"]


def _summary(settings: Mapping[str, Any]) -> str:
    return "; ".join(" ".join(line.split()) for line in _told(settings))


def _plain(it: Version) -> dict[str, Any]:
    return {
        "recipient_id": it.recipient_id,
        "tenant": it.tenant,
        "version": it.version,
        "settings": dict(it.settings),
        "changed_by": it.changed_by,
        "changed_at": it.changed_at.isoformat() if it.changed_at else None,
    }
