"""`notify devices list | add | remove | prune`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from notify_tasks import devices, durations
from notify_tasks.cli.context import find_fleet
from notify_tasks.cli.people import NOTHING, masked
from notify_tasks.devices import Device
from notify_tasks.errors import InvalidCall
from notify_tasks.notification import DEFAULT_TENANT
from notify_tasks.terminal.looks import clock, counted
from notify_tasks.terminal.output import dim, stderr, stdout


@contextmanager
def _fleet() -> Iterator[None]:
    find_fleet()
    try:
        yield
    except InvalidCall as error:
        raise InvalidCall(_typed(error.field), error.problem, error.remedy) from None
    finally:
        devices.close()


def _typed(field: str) -> str:
    """The option or place of an argument, as it was typed."""
    name, _, inside = field.partition(".")
    shown = {"recipient_id": "ID", "token": "TOKEN", "older_than": "--older-than"}.get(name, f"--{name}")
    return f"{shown}.{inside}" if inside else shown


def list_(options: argparse.Namespace) -> int:
    """List a person's devices."""
    with _fleet():
        found = devices.find(options.id, tenant=options.tenant)
    if options.json:
        for it in found:
            stdout().plain(json.dumps(_plain(it), ensure_ascii=False))
    elif found:
        rows = [
            (
                it.channel,
                masked(it.channel, it.address),
                it.platform or NOTHING,
                it.label or NOTHING,
                dim("never" if it.last_seen_at is None else clock(it.last_seen_at)),
            )
            for it in found
        ]
        stdout().table(("channel", "token", "platform", "label", "seen"), rows)
    else:
        stdout().say("no devices")
    return 0


def add(options: argparse.Namespace) -> int:
    """Register a device."""
    with _fleet():
        it = devices.register(
            options.id,
            options.token,
            channel=options.channel,
            platform=options.platform,
            label=options.label,
            tenant=options.tenant,
        )
    stdout().say(
        f"{masked(it.channel, it.address)} is a device of {it.recipient_id}: {it.channel} goes there"
    )
    return 0


def remove(options: argparse.Namespace) -> int:
    """Remove a device."""
    with _fleet():
        gone = devices.remove(options.id, options.token, channel=options.channel, tenant=options.tenant)
    if gone:
        stdout().say(f"{options.id} has that device no more")
        return 0
    tenant = "" if options.tenant == DEFAULT_TENANT else f" in tenant {options.tenant}"
    stderr().say(
        f"notify: {options.id} has no such device on {options.channel}{tenant}. "
        f"Type `notify devices list {options.id}` for those there are"
    )
    return 1


def prune(options: argparse.Namespace) -> int:
    """Remove the devices that were not seen for long."""
    try:
        seconds = durations.parse(options.older_than)
    except ValueError as error:
        problem, _, remedy = str(error).partition(". ")
        raise InvalidCall("--older-than", problem, remedy) from None
    with _fleet():
        gone = devices.prune(seconds, tenant=options.tenant)
    stdout().say(f"{counted(gone, 'device')} removed")
    return 0


def _plain(it: Device) -> dict[str, Any]:
    return {
        "id": it.recipient_id,
        "tenant": it.tenant,
        "channel": it.channel,
        "token": it.address,
        "platform": it.platform,
        "label": it.label,
        "created_at": it.created_at.isoformat(),
        "last_seen_at": None if it.last_seen_at is None else it.last_seen_at.isoformat(),
    }
