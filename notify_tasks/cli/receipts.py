"""`notify receipts list | take | again`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

from channels.contract import Misconfigured
from channels.receipts import Forged, Receipt
from notify_tasks import receipts, settings
from notify_tasks.broker import Broker
from notify_tasks.cli.context import database, find_fleet
from notify_tasks.errors import NotConfigured, NotifyError
from notify_tasks.providers import NoInbox, Pools
from notify_tasks.receipts import ReadAgain, Waker
from notify_tasks.reloading import load
from notify_tasks.store import receipts_seen
from notify_tasks.store.database import Database, DatabaseError
from notify_tasks.store.receipts import TROUBLE
from notify_tasks.store.receipts_seen import Stored
from notify_tasks.terminal.looks import duration
from notify_tasks.terminal.output import Span, bold, dim, state, stderr, stdout

LONGEST = 60
MAX_MESSAGE = 10 * 2**20
"""Bytes: a bounce brings along what it could not deliver."""
BROKER_SECONDS = 2.0


# --- list -----------------------------------------------------------------------------------------------


def list_(options: argparse.Namespace) -> int:
    """List a page of receipts."""
    with database() as store:
        rows = receipts_seen.find(
            store,
            states=options.state or TROUBLE,
            provider=options.provider,
            before=options.before,
            limit=options.limit + 1,
        )
    shown = rows[: options.limit]
    if options.json:
        for it in shown:
            stdout().plain(json.dumps(_plain(it), ensure_ascii=False))
    elif shown:
        now = datetime.now(UTC)
        head = ("number", "", "since", "provider", "code", "says", "notification", "detail")
        stdout().table(head, [_row(it, now) for it in shown])
    else:
        stdout().say("no receipts" if options.state else "no receipt is in trouble")
    if len(rows) > len(shown) and shown:
        stderr().say([dim(f"there are more: add --before {shown[-1].id}")])
    if not options.json and any(it.state in TROUBLE for it in shown):
        stderr().say([dim("`notify receipts again NUMBER` reads one again, or looks for its delivery anew")])
    return 0


def _row(it: Stored, now: datetime) -> tuple[Span | str, ...]:
    says = ", ".join(word for word in (it.fate, it.standing) if word)
    due = f"again in {duration(max(0.0, (it.due_at - now).total_seconds()))}" if it.state == "waiting" else ""
    detail = " ".join(word for word in (it.detail, due) if word)
    return (
        str(it.id),
        state(it.state),
        f"{duration((now - it.received_at).total_seconds())} ago",
        it.provider,
        (it.code or "")[:LONGEST],
        says,
        it.message_id or "",
        dim(detail[:LONGEST]),
    )


def _plain(it: Stored) -> dict[str, Any]:
    return {
        "number": it.id,
        "provider": it.provider,
        "channel": it.channel,
        "state": it.state,
        "code": it.code,
        "fate": it.fate,
        "standing": it.standing,
        "delivery_id": None if it.delivery_id is None else str(it.delivery_id),
        "message_id": it.message_id,
        "detail": it.detail,
        "tries": it.tries,
        "happened_at": None if it.happened_at is None else it.happened_at.isoformat(),
        "received_at": it.received_at.isoformat(),
        "due_at": it.due_at.isoformat() if it.state in {"new", "waiting"} else None,
        "kept": it.kept,
    }


# --- take -----------------------------------------------------------------------------------------------


def take(options: argparse.Namespace) -> int:
    """Take one from standard input. Whatever is not the message's own fault is a status to try again after."""
    try:
        return _take(options.provider)
    except Forged as error:
        return _said(os.EX_NOPERM, f"refused: {error.code}")
    except DatabaseError as error:
        return _said(os.EX_TEMPFAIL, f"PostgreSQL is away ({error}); it must be sent again")
    except (NotifyError, Misconfigured) as error:
        return _said(os.EX_TEMPFAIL, f"{error}; it must be sent again")
    except Exception as error:  # noqa: BLE001 - a bounce must not bounce; its words may be private
        return _said(os.EX_TEMPFAIL, f"this failed ({type(error).__name__}); it must be sent again")


def _take(name: str) -> int:
    body = sys.stdin.buffer.read(MAX_MESSAGE + 1)
    if len(body) > MAX_MESSAGE:
        return _said(os.EX_DATAERR, "the message is larger than 10 MiB; look at it yourself")
    find_fleet()
    pools = _pools()
    try:
        with receipts.reporting(pools, name) as opened:
            if opened is None:
                remedy = "type `notify config show` for those there are"
                return _said(os.EX_NOUSER, f"no provider {name} reports back; {remedy}")
            channel, provider = opened
            with database() as store:
                kept = receipts.take(store, name, channel, provider, Receipt("PIPE", "", {}, body))
    finally:
        pools.close()
    _wake(list(kept.new))
    return os.EX_OK


def _said(status: int, sentence: str) -> int:
    stderr().say([Span("notify: ", "failed"), sentence])
    return status


# --- again ----------------------------------------------------------------------------------------------


def again(options: argparse.Namespace) -> int:
    """Read some again, and say of each what that gave."""
    with database() as store:
        pools = _pools()
        try:
            done = _again(store, pools, options.numbers)
        except Misconfigured as error:
            raise NotConfigured(str(error)) from None
        finally:
            pools.close()
    _wake([id_ for it in done for id_ in (it.kept.new if it.kept else ())])
    return 0 if len(done) == len(set(options.numbers)) and all(_better(it) for it in done) else 1


def _again(store: Database, pools: Pools, numbers: list[int]) -> list[ReadAgain]:
    done = receipts.again(store, pools, numbers)
    for it in done:
        stdout().say([bold(str(it.id)), f" {_in_words(it)}"])
    for number in sorted(set(numbers) - {it.id for it in done}):
        stderr().say(
            f"notify: no receipt in trouble has the number {number}. Type `notify receipts list` for those there are"
        )
    return done


def _better(it: ReadAgain) -> bool:
    return it.kept is not None and not it.kept.unknown


def _in_words(it: ReadAgain) -> str:
    if it.kept is None:
        return f"is as it was: {it.problem}"
    if it.kept.unknown:
        return "is as it was: its status is still unknown"
    return "is applied now" if it.kept.new else "says nothing new"


# --- both -----------------------------------------------------------------------------------------------


def _pools() -> Pools:
    return Pools(load(settings.get()), inbox=NoInbox())


def _wake(ids: list[int]) -> None:
    """A worker is told where Redis is known; else the sweep does it."""
    url = settings.get().broker_url
    if ids and url is not None:
        broker = Broker(url, timeout=BROKER_SECONDS)
        Waker(broker).wake(ids)
        broker.close()
