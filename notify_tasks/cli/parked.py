"""`notify parked list`, `notify parked replay`."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from notify_tasks import redis_place, settings
from notify_tasks.cli.context import database
from notify_tasks.errors import NotHere
from notify_tasks.store import parking
from notify_tasks.terminal.looks import duration
from notify_tasks.terminal.output import Span, dim, state, stderr, stdout

LONGEST = 60


def show(options: argparse.Namespace) -> int:
    """List parked messages, without their content."""
    with database() as store:
        rows = parking.parked(store)
    rows = [row for row in rows if options.all or row.replayed_at is None]
    if not rows:
        stdout().say("nothing is parked")
        return 0
    now = datetime.now(UTC)
    stdout().table(
        ("number", "", "since", "queue", "size", "reason", "detail"),
        [
            (
                str(row.id),
                state("parked") if row.replayed_at is None else Span("◌ put back", "queued"),
                f"{duration((now - row.parked_at).total_seconds())} ago",
                row.queue,
                f"{row.size} B",
                row.reason,
                dim((row.detail or "")[:LONGEST]),
            )
            for row in rows
        ],
    )
    stderr().say([dim("mend the cause, then type `notify parked replay NUMBER`")])
    return 0


def replay(options: argparse.Namespace) -> int:
    """Put one back."""
    import redis  # noqa: PLC0415 - a third of a second to import, and listing does without

    from notify_tasks.parked import Parking  # noqa: PLC0415 - as above

    with database() as store:
        client = redis_place.client(settings.get().need_broker_url(), seconds=5)
        try:
            queue = Parking(store, client).put_back(options.number)
        except redis.RedisError as error:
            why = f"Redis does not take it ({type(error).__name__}), and it stays parked"
            raise NotHere(f"{why}; type `notify doctor`") from None
        finally:
            client.close()
    if queue is None:
        stderr().say(f"notify: no parked message has the number {options.number}. Type `notify parked list`")
        return 1
    stdout().say(f"put back on {queue}")
    return 0
