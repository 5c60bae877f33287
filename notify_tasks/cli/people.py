"""`notify recipients add`."""

from __future__ import annotations

import argparse

from notify_tasks.cli.context import database
from notify_tasks.errors import InvalidCall
from notify_tasks.recipients import read_recipients
from notify_tasks.store import recipients
from notify_tasks.terminal.output import stdout

CHANNELS = ("email", "sms", "push", "webpush", "webhook", "chat")


def add(options: argparse.Namespace) -> int:
    """Store a recipient. The checks are those of a call that names one."""
    given = {name: getattr(options, name) for name in (*CHANNELS, "locale", "timezone")}
    try:
        (person,) = read_recipients(
            {"id": options.id, **{name: it for name, it in given.items() if it is not None}}
        )
    except InvalidCall as error:
        field = error.field.removeprefix("to.")
        raise InvalidCall("ID" if field == "id" else f"--{field}", error.problem, error.remedy) from None
    with database() as store:
        recipients.upsert(
            store,
            options.id,
            person.addresses,
            tenant=options.tenant,
            locale=person.locale,
            timezone=person.timezone,
        )
    reached = ", ".join(person.addresses) or "no channel by this call"
    stdout().say(f"{options.id} is stored, to be reached by {reached}")
    return 0
