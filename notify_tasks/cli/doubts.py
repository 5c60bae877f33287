"""`notify in-doubt list | show | resolve`."""

from __future__ import annotations

import argparse
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from notify_tasks import filters
from notify_tasks.cli import bulk
from notify_tasks.cli.context import database
from notify_tasks.errors import InvalidCall
from notify_tasks.filters import Filter
from notify_tasks.store import doubts, selecting, statuses
from notify_tasks.store.database import Database
from notify_tasks.store.doubts import OPEN_HOURS, Doubt
from notify_tasks.store.selecting import Place
from notify_tasks.store.statuses import shortened
from notify_tasks.terminal import timeline
from notify_tasks.terminal.looks import HOUR, NONE, counted, duration
from notify_tasks.terminal.output import Span, dim, stderr, stdout

STATES: Final = ("in_doubt",)
BATCH: Final = 200
LIMIT: Final = 1000


def list_(options: argparse.Namespace) -> int:
    """List what is in doubt."""
    wanted = filters.parse(options.where or [], now=bulk.now(), states=STATES)
    with database() as store:
        rows = doubts.find(store, wanted, limit=min(options.limit, LIMIT) + 1)
    shown = rows[: options.limit]
    if options.json:
        for it in shown:
            stdout().plain(json.dumps(_plain(it), ensure_ascii=False))
    elif not shown:
        stdout().say("nothing is in doubt" if not options.where else "nothing of it is in doubt")
    else:
        now = bulk.now()
        head = ("delivery", "for", "type", "channel", "provider", "to", "last answer", "")
        stdout().table(head, [_row(it, now) for it in shown])
    if len(rows) > len(shown):
        stderr().say([dim("there are more: add --limit, or narrow it with --where")])
    if shown and not options.json:
        stderr().say(
            [
                dim(
                    "look it up at the provider, then `notify in-doubt resolve ID --as sent|failed|resend --why TEXT`"
                )
            ]
        )
    return 0


def _row(it: Doubt, now: datetime) -> tuple[Span | str, ...]:
    age = (now - it.since).total_seconds()
    closed = "replayed" if it.replayed else "no receipt settles it now" if age > OPEN_HOURS * HOUR else ""
    return (
        str(it.id),
        duration(max(0.0, age)),
        it.event_type,
        it.channel,
        it.provider or NONE,
        it.recipient_id or shortened(it.address),
        it.code or it.outcome or it.reason or NONE,
        dim(closed),
    )


def _plain(it: Doubt) -> dict[str, Any]:
    return asdict(it) | {"id": str(it.id), "since": it.since.isoformat(), "address": shortened(it.address)}


def show(options: argparse.Namespace) -> int:
    """Show everything that is known of one."""
    id_ = _id(options.id)
    with database() as store:
        found = doubts.read(store, [id_])
        if not found:
            return _unknown(id_)
        status = statuses.read(store, found[0].message_id, tenant=found[0].tenant)
    now = bulk.now()
    for line in timeline.lines(_only(status, id_), now):
        stdout().say(line)
    stdout().say(f"message id at the provider: {_provider_id(status, id_) or 'it gave none'}")
    stdout().say(f"our id, where the provider echoes it: {id_}")
    stderr().say([dim(f"`notify in-doubt resolve {id_} --as sent|failed|resend --why TEXT` settles it")])
    return 0


def _only(found: statuses.Found, id_: uuid.UUID) -> statuses.Found:
    """The notification with this delivery alone."""
    kept = [
        replace(it, deliveries=[each for each in it.deliveries if each.id == id_])
        for it in found.notifications
        if any(each.id == id_ for each in it.deliveries)
    ]
    return replace(found, notifications=kept)


def _provider_id(found: statuses.Found, id_: uuid.UUID) -> str | None:
    return next(
        (each.provider_message_id for it in found.notifications for each in it.deliveries if each.id == id_),
        None,
    )


def resolve(options: argparse.Namespace) -> int:
    """Settle some, by id or by filter."""
    if bool(options.ids) == bool(options.where):
        raise InvalidCall(
            "resolve", "it takes ids or --where", "Write ID, or --where 'provider=NAME since=2h'"
        )
    why = " ".join((options.why or "").split())
    if not why:
        raise InvalidCall(
            "--why", "none is given", 'Write what makes you sure: --why "the provider\'s log has it"'
        )
    word = options.word
    with database() as store:
        if options.ids:
            return _by_id(store, [_id(each) for each in options.ids], word, why)
        return _by_filter(store, options, word, why)


def _by_id(store: Database, ids: Sequence[uuid.UUID], word: str, why: str) -> int:
    done = doubts.resolve(store, ids, word, by=bulk.who(), why=why)
    if done.wakes:
        bulk.Waker()(done.wakes)
    if done.count:
        stdout().say(_told(done.count, word))
    if done.count < len(set(ids)):
        left = counted(len(set(ids)) - done.count, "delivery")
        more = ", replayed before, or without content" if word == "resend" else ""
        stderr().say(f"notify: {left} left alone: not in doubt{more}. Type `notify in-doubt list`")
        return 1
    return 0


def _by_filter(store: Database, options: argparse.Namespace, word: str, why: str) -> int:
    wanted = filters.parse(options.where, now=bulk.now(), states=STATES)
    groups = selecting.groups(store, wanted)
    resend = word == "resend"
    ready = sum(it.count - (it.replayed + it.gone if resend else 0) for it in groups)
    if not ready:
        stdout().say("nothing of it is in doubt" if not groups else "nothing of it can be sent again")
        return 1
    bulk.show(groups)
    if options.dry_run:
        stdout().say(f"{counted(ready, 'delivery')} would be settled as {word}")
        return 0
    warning = " Each may arrive a second time." if resend else ""
    if not bulk.agreed(options, f"This settles {counted(ready, 'delivery')} as {word}.{warning}", "resolve"):
        stderr().say("notify: nothing was settled")
        return 1
    done = _all(store, wanted, word, why, ready)
    stdout().say(_told(done, word))
    return 0


def _all(store: Database, wanted: Filter, word: str, why: str, ready: int) -> int:
    wake, by, done = bulk.Waker(), bulk.who(), 0
    after: Place | None = None
    with bulk.progress("settled", ready) as tell:
        while found := selecting.page(
            store, wanted, STATES[0], after=after, limit=BATCH, replayable=word == "resend"
        ):
            resolved = doubts.resolve(store, [it.id for it in found], word, by=by, why=why)
            wake(resolved.wakes)
            done += resolved.count
            tell(resolved.count)
            after = found[-1]
    return done


def _told(count: int, word: str) -> str:
    ends = {"sent": "sent", "failed": "failed", "resend": "failed, and queued again"}
    return f"{counted(count, 'delivery')} settled as {ends[word]}"


def _id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise InvalidCall("ID", f"{text[:60]!r} is no delivery's id", "Type `notify in-doubt list`") from None


def _unknown(id_: uuid.UUID) -> int:
    stderr().say(f"notify: delivery {id_} is not in doubt. Type `notify in-doubt list`")
    return 1
