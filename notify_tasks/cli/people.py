"""`notify recipients add | show | list | verify | erase`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from notify_tasks import people, verification
from notify_tasks.cli.context import find_fleet
from notify_tasks.contacts import CHANNELS
from notify_tasks.errors import InvalidCall
from notify_tasks.notification import DEFAULT_TENANT
from notify_tasks.people import ContactPoint, Erased, Person
from notify_tasks.recipients import meant
from notify_tasks.store.statuses import shortened
from notify_tasks.terminal.looks import clock, counted
from notify_tasks.terminal.output import bold, dim, stderr, stdout

REMOVABLE: Final = (*CHANNELS, "locale", "timezone")
NOTHING: Final = "\N{EN DASH}"


@contextmanager
def _fleet() -> Iterator[None]:
    find_fleet()
    try:
        yield
    finally:
        people.close()


def add(options: argparse.Namespace) -> int:
    """Store a recipient, or change one."""
    fields: dict[str, Any] = {name: getattr(options, name) for name in REMOVABLE}
    fields = {name: value for name, value in fields.items() if value is not None}
    for name in options.remove or ():
        if name not in REMOVABLE:
            raise InvalidCall(
                "--remove", "there is no such field", meant(name, dict.fromkeys(REMOVABLE), {"phone": "sms"})
            )
        if name in fields:
            raise InvalidCall("--remove", f"--{name} is given as well", "Keep one of them")
        fields[name] = None
    with _fleet():
        try:
            person = people.upsert(options.id, tenant=options.tenant, **fields)
        except InvalidCall as error:
            raise _as_typed(error, fields) from None
    reached = ", ".join(person.addresses) or "the in-app inbox alone"
    stdout().say(f"{person.id} is stored, to be reached by {reached}")
    return 0


def _as_typed(error: InvalidCall, fields: dict[str, Any]) -> InvalidCall:
    """The error with the option's name: `--email` for `email[0]`, `--email (number 2)` where there are several."""
    name, number, inside = re.fullmatch(r"(\w+)(?:\[(\d+)\])?(.*)", error.field).groups()  # type: ignore[union-attr]
    if name == "id":
        return InvalidCall("ID", error.problem, error.remedy)
    several = isinstance(fields.get(name), list) and len(fields[name]) > 1
    which = f" (number {int(number) + 1})" if several and number else ""
    return InvalidCall(f"--{name}{inside}{which}", error.problem, error.remedy)


def show(options: argparse.Namespace) -> int:
    """Show one recipient."""
    with _fleet():
        person = people.get(options.id, tenant=options.tenant)
    if person is None:
        return _unknown(options)
    if options.json:
        stdout().plain(json.dumps(_plain(person), indent=2, ensure_ascii=False))
        return 0
    out = stdout()
    out.say([bold(person.id), dim(f"  changed {clock(person.updated_at)}")])
    rows = [("locale", person.locale or NOTHING), ("timezone", person.timezone or NOTHING)]
    rows += [(it.channel, masked(it.channel, it.address)) for it in person.points]
    known = ["", "", *(_known(it) for it in person.points)]
    for (name, value), more in zip(rows, known, strict=True):
        out.say([dim(f"  {name:<9}"), f" {value}", dim(f"  {more}" if more else "")])
    return 0


def _known(point: ContactPoint) -> str:
    """What is known of an address besides itself."""
    told = [
        "verified" if point.verified_at is not None else "",
        point.platform or "",
        point.label or "",
        f"seen {clock(point.last_seen_at)}" if point.last_seen_at is not None else "",
    ]
    return ", ".join(each for each in told if each)


def list_(options: argparse.Namespace) -> int:
    """List a page of recipients."""
    with _fleet():
        page = people.find(
            prefix=options.prefix,
            channel=options.channel,
            after=options.after,
            limit=options.limit,
            tenant=options.tenant,
        )
    if options.json:
        for person in page.people:
            stdout().plain(json.dumps(_plain(person), ensure_ascii=False))
    elif page.people:
        rows = [
            (it.id, it.locale or NOTHING, it.timezone or NOTHING, dim(_summary(it))) for it in page.people
        ]
        stdout().table(("id", "locale", "timezone", "addresses"), rows)
    else:
        stdout().say(
            "no recipients" + (" match" if options.prefix or options.channel or options.after else "")
        )
    if page.next is not None:
        stderr().say([dim(f"there are more: add --after {page.next}")])
    return 0


def verify(options: argparse.Namespace) -> int:
    """Take an address as verified."""
    with _fleet():
        try:
            since = verification.mark(options.id, options.channel, options.address, tenant=options.tenant)
        except InvalidCall as error:
            name = {"recipient_id": "ID"}.get(error.field, error.field.upper())
            raise InvalidCall(name, error.problem, error.remedy) from None
    stdout().say(f"that {options.channel} address of {options.id} is verified since {clock(since)}")
    return 0


def erase(options: argparse.Namespace) -> int:
    """Erase a recipient, once it is meant."""
    if options.dry_run:
        return _would_erase(options)
    if not options.yes:
        if not sys.stdin.isatty():
            raise InvalidCall(
                "--yes", "erasing cannot be undone, and there is no terminal to ask", "Add --yes"
            )
        stderr().say(f"This erases {options.id} and what was sent to them. It cannot be undone.")
        sys.stderr.write("Type the id to go on: ")
        sys.stderr.flush()
        if sys.stdin.readline().strip() != options.id:
            stderr().say("notify: that is not the id; nothing was erased")
            return 1
    with _fleet():
        done = people.erase(options.id, tenant=options.tenant)
    if not done.anything:
        return _unknown(options)
    out = stdout()
    out.say(f"{options.id} is erased" if done.known else f"what was left of {options.id} is erased")
    for line in _told(done):
        out.say(f"  {line}")
    if done.being_sent:
        stderr().say([dim("a worker was sending to them: erase again in a minute")])
    return 0


def _would_erase(options: argparse.Namespace) -> int:
    """Say what would go; nothing does."""
    with _fleet():
        found = people.would_erase(options.id, tenant=options.tenant)
    if not found.anything:
        return _unknown(options)
    stdout().say(f"of {options.id}, if it were not --dry-run:")
    for line in _told(found):
        stdout().say(f"  {line}")
    return 0


def _told(done: Erased) -> list[str]:
    told = (
        (done.addresses, counted(done.addresses, "contact point") + " deleted"),
        (done.cancelled, counted(done.cancelled, "delivery") + " cancelled that waited"),
        (done.in_doubt, counted(done.in_doubt, "delivery") + " stopped whose last attempt may have arrived"),
        (done.being_sent, counted(done.being_sent, "delivery") + " being sent now: not stopped"),
        (done.deliveries, "the address blanked in " + counted(done.deliveries, "delivery")),
        (done.notifications, "the content blanked of " + counted(done.notifications, "notification")),
        (done.shared, counted(done.shared, "notification") + " that others got, too: the content stays"),
        (done.inbox, counted(done.inbox, "in-app message") + " deleted"),
        (
            done.calls,
            counted(done.calls, "call") + " not planned, rejected or recurring: the person taken out",
        ),
        (done.parked, counted(done.parked, "parked message") + " deleted"),
        (
            done.parked_unsearched,
            counted(done.parked_unsearched, "parked message")
            + " kept that may name them: look at `notify parked`",
        ),
    )
    return [line for count, line in told if count] + [
        "suppressed addresses stay, so that nobody writes there"
    ]


def _unknown(options: argparse.Namespace) -> int:
    tenant = "" if options.tenant == DEFAULT_TENANT else f" in tenant {options.tenant}"
    stderr().say(
        f"notify: no recipient has the id {options.id}{tenant}. Type `notify recipients list` for those there are"
    )
    return 1


# --- how a recipient looks ----------------------------------------------------------------------------


def masked(channel: str, address: str) -> str:
    """Enough of an address to recognise it, too little to use it."""
    if channel == "webpush":
        address = json.loads(address)["endpoint"]
    if channel in ("webpush", "webhook"):
        return f"{urlsplit(address).hostname}/…"
    return shortened(address)


def _summary(person: Person) -> str:
    parts = []
    for channel, found in person.addresses.items():
        more = f" +{len(found) - 1}" if len(found) > 1 else ""
        parts.append(f"{channel} {masked(channel, found[0])}{more}")
    return ", ".join(parts) or NOTHING


def _plain(person: Person) -> dict[str, Any]:
    return {
        "id": person.id,
        "tenant": person.tenant,
        "locale": person.locale,
        "timezone": person.timezone,
        "addresses": {channel: list(found) for channel, found in person.addresses.items()},
        "points": [_plain_point(it) for it in person.points],
        "created_at": person.created_at.isoformat(),
        "updated_at": person.updated_at.isoformat(),
    }


def _plain_point(point: ContactPoint) -> dict[str, Any]:
    times = {"verified_at": point.verified_at, "last_seen_at": point.last_seen_at}
    return {
        "channel": point.channel,
        "address": point.address,
        "platform": point.platform,
        "label": point.label,
        **{name: None if at is None else at.isoformat() for name, at in times.items()},
    }
