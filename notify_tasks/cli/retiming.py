"""`notify cancel` and `notify reschedule`."""

from __future__ import annotations

import argparse

from notify_tasks import steering
from notify_tasks.cli import steer
from notify_tasks.cli.context import find_fleet
from notify_tasks.cli.send import at
from notify_tasks.errors import InvalidCall
from notify_tasks.meanings import because
from notify_tasks.store.rescheduling import MovedDelivery, Rescheduled
from notify_tasks.terminal.looks import counted
from notify_tasks.terminal.output import dim, state, stderr, stdout
from notify_tasks.wording import when, whom


def cancel(options: argparse.Namespace) -> int:
    """Cancel by message id, or all under a key."""
    if (options.id is None) == (options.key is None):
        what = "nothing is named" if options.id is None else "both an id and --key are given"
        raise InvalidCall("ID", what, "Write notify cancel ID, or notify cancel --key KEY")
    if options.key is None:
        return steer.cancel(options)
    find_fleet()
    done = steering.cancel_all(options.key, tenant=options.tenant)
    parts = [f"{counted(done.cancelled, 'delivery')} cancelled"]
    if done.calls:
        parts.append(f"{counted(done.calls, 'call')} stopped before being planned")
    if done.stopped_before:
        parts.append(f"{done.stopped_before} had ended without being sent")
    if done.too_late:
        parts.append(f"{done.too_late} too late: sent, or being sent")
    if done.in_doubt:
        parts.append(f"{done.in_doubt} in doubt: an attempt may have arrived, and nothing more is sent")
    out = stdout()
    out.say("; ".join(parts))
    stderr().say(
        [
            dim(
                f"what was called for under this key up to {when(done.moment)} and is still on its way to a worker "
                f"will not be sent either, until {when(done.until)}"
            )
        ],
        wrap=True,
    )
    return 0 if done.complete else 1


_ELSEWHERE = {
    "intake": "it waits in the intake table: it is planned for the new time",
    "being_planned": "a worker is planning it at this moment: type it again in half a minute",
    "cancelled": "it was cancelled before any worker had seen it: nothing is sent",
    "rejected": "it was rejected, and nothing is sent: type `notify explain {id}`",
    "unknown": "no worker has seen it. If it is still in Redis, its time cannot be changed there: type it again in "
    "some seconds, or cancel it (`notify cancel {id}` works there, too) and send it again under another id",
}


def reschedule(options: argparse.Namespace) -> int:
    """Give a call another time."""
    moment = at(options)
    if moment is None:
        raise InvalidCall("--at", "no time is given", "Write --at +2h, or --at-local 2030-05-01T08:00")
    find_fleet()
    done = steering.reschedule(options.id, at=moment, tenant=options.tenant)
    out = stdout()
    if done.where != "deliveries":
        said = _ELSEWHERE[done.where].format(id=options.id)
        if done.complete:
            out.say(said, wrap=True)
            return 0
        stderr().say(f"notify: not rescheduled: {said}", wrap=True)
        return 1
    for it in done.deliveries:
        out.say(
            [state(it.state, 11), f" {whom(it.channel, it.recipient_id, it.address)}  ", _said(it)], wrap=True
        )
    out.say(_summary(done))
    return 0 if done.complete else 1


def _said(it: MovedDelivery) -> str:
    if it.moved and it.due_at is None:
        return "goes after the step before it, as before"
    if it.moved and it.due_at is not None:
        why = "" if it.reason == "scheduled" else f", {because(it.reason)}"
        return f"goes at {when(it.due_at)}{why}"
    if it.stays:
        return f"stays{f' at {when(it.before)}' if it.before else ''}, {because(it.reason)}"
    return "too late" + (f", {because(it.reason)}" if it.reason else "")


def _summary(done: Rescheduled) -> str:
    parts = [f"{counted(done.moved, 'delivery')} moved"]
    if done.too_late:
        parts.append(f"{done.too_late} too late: sent, being sent, due already, or ended")
    stays = len(done.deliveries) - done.moved - done.too_late
    if stays:
        parts.append(f"{stays} left at its time")
    return "; ".join(parts)
