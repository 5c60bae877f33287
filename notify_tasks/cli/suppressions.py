"""`notify suppressions list | add | lift`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from notify_tasks import suppressions
from notify_tasks.cli.context import find_fleet
from notify_tasks.cli.people import masked
from notify_tasks.errors import InvalidCall
from notify_tasks.notification import DEFAULT_TENANT, EVERY_TENANT
from notify_tasks.suppressions import OPTED_OUT, Suppression
from notify_tasks.terminal.looks import clock
from notify_tasks.terminal.output import dim, stderr, stdout


@contextmanager
def _fleet() -> Iterator[None]:
    find_fleet()
    try:
        yield
    except InvalidCall as error:
        if error.field == "opted_out":
            remedy = "Once they have asked for messages again, add --opted-out"
            raise InvalidCall("--opted-out", error.problem, remedy) from None
        if error.field == "tenant" and "every" in error.problem:
            remedy = "If they have asked all of them for messages again, add --tenant '*'"
            raise InvalidCall("--tenant", error.problem, remedy) from None
        raise
    finally:
        suppressions.close()


def list_(options: argparse.Namespace) -> int:
    """List a page of suppressed addresses."""
    with _fleet():
        page = suppressions.find(
            channel=options.channel,
            address=options.address,
            after=options.after,
            limit=options.limit,
            tenant=options.tenant,
        )
    if options.json:
        for it in page.suppressions:
            stdout().plain(json.dumps(_plain(it), ensure_ascii=False))
    elif page.suppressions:
        rows = [
            (str(it.id), it.channel, _masked(it), _why(it), it.source, dim(clock(it.created_at)))
            for it in page.suppressions
        ]
        stdout().table(("number", "channel", "address", "reason", "by", "since"), rows)
    else:
        narrowed = options.channel or options.after is not None
        stdout().say("no suppressed addresses" + (" match" if narrowed else ""))
    if page.next is not None:
        stderr().say([dim(f"there are more: add --after {page.next}")])
    return 0


def add(options: argparse.Namespace) -> int:
    """Suppress an address."""
    with _fleet():
        it = suppressions.suppress(
            options.channel, options.address, reason=options.reason, tenant=options.tenant
        )
    stdout().say(f"{_masked(it)} gets no {it.channel} any more: {it.reason}, since {clock(it.created_at)}")
    return 0


def lift(options: argparse.Namespace) -> int:
    """Lift the suppression of an address, and say what that means."""
    with _fleet():
        it = suppressions.lift(
            options.channel, options.address, opted_out=options.opted_out, tenant=options.tenant
        )
    if it is None:
        tenant = "" if options.tenant == DEFAULT_TENANT else f" in tenant {options.tenant}"
        stderr().say(
            f"notify: that address is not suppressed on {options.channel}{tenant}. "
            f"Type `notify suppressions list --channel {options.channel}` for those that are"
        )
        return 1
    out = stdout()
    out.say(f"{_masked(it)} is lifted: the next {it.channel} notification to it goes out again")
    out.say([dim("  what was suppressed meanwhile stays unsent: `notify replay ID` sends it")])
    if it.reason != OPTED_OUT:
        out.say([dim(f"  it was suppressed as {it.reason}: if that is still so, it will be again")])
    return 0


def _masked(it: Suppression) -> str:
    if it.channel == "inapp":  # an id, which every list shows
        return it.address
    try:
        return masked(it.channel, it.address)
    except (ValueError, KeyError, TypeError):  # of another form than today's
        return "…"


def _why(it: Suppression) -> str:
    return f"{it.reason}, for every tenant" if it.tenant == EVERY_TENANT else it.reason


def _plain(it: Suppression) -> dict[str, Any]:
    return {
        "number": it.id,
        "tenant": it.tenant,
        "channel": it.channel,
        "address": it.address,
        "reason": it.reason,
        "source": it.source,
        "created_at": it.created_at.isoformat(),
    }
