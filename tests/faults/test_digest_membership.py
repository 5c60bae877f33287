"""Processes that gather and flush are killed at random moments, and every event is in exactly one digest."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from notify_tasks.store import digests, intakes, recipients
from notify_tasks.store.database import Database
from tests.faults.gatherer import LATER
from tests.integration.core_shop import Shop, shop
from tests.integration.core_world import call
from tests.integration.test_digests import DIGEST, GATHERS, POST, write

PEOPLE = 7
ROOT = Path(__file__).parents[2]


@contextmanager
def nursery(url: str, root: Path) -> Iterator[subprocess.Popen[str]]:
    """Forks processes that gather, and ends with all of them."""
    command = [sys.executable, "-m", "tests.faults.gatherer", url, str(root)]
    started = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield started
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.communicate()


def one_more(started: subprocess.Popen[str]) -> int:
    assert started.stdin is not None
    assert started.stdout is not None
    started.stdin.write("\n")
    started.stdin.flush()
    return int(started.stdout.readline())


def half_a_minute_passes(database: Database) -> None:
    """What a killed process had taken is there for others."""
    database.rows("UPDATE notify.intake SET due_at = now(), tries = 0 WHERE tries > 0")


def finish(desk: Shop, database: Database) -> None:
    half_a_minute_passes(database)
    while desk.intake.drain() or digests.flush(database, limit=500, now=LATER).digests:
        pass


FIRST = 'first = "now"\n'


@pytest.mark.parametrize(
    ("kills", "first"),
    [
        (12, FIRST),
        pytest.param(300, FIRST, marks=pytest.mark.long),
        pytest.param(300, "", marks=pytest.mark.long),
    ],
    ids=["share", "first at once", "all gathered"],
)
@pytest.mark.timeout(400)
def test_kills_put_no_event_into_two_digests_or_none(
    database: str, tmp_path: Path, kills: int, first: str
) -> None:
    dice = random.Random(kills)
    db = Database(database, connections=5)
    with shop(tmp_path, db) as desk, nursery(database, tmp_path) as started:
        write(desk.types, "post.digest", DIGEST)
        write(desk.types, "post.new", POST.format(more=GATHERS + "most = 9\n" + first))
        for n in range(PEOPLE):
            recipients.upsert(db, f"r-{n}", addresses={"sms": [f"+4915112345{600 + n}"]})
        alive = [one_more(started) for _ in range(2)]
        made = 0
        for kill in range(kills):
            batch = [
                call(
                    f"m-{made + n}", event_type="post.new", to=f"r-{dice.randrange(PEOPLE)}", payload={"n": n}
                )
                for n in range(dice.randrange(1, 12))
            ]
            intakes.keep(db, [each.to_wire() for each in batch], origin="producer")
            made += len(batch)
            time.sleep(dice.uniform(0.0, 0.12))  # the moment of the kill is what is drawn
            with suppress(ProcessLookupError):
                os.kill(alive.pop(dice.randrange(2)), signal.SIGKILL)
            alive.append(one_more(started))
            if kill % 3 == 0:
                half_a_minute_passes(db)
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        finish(desk, db)

    rows = db.rows("SELECT payload FROM notify.notification WHERE event_type = 'post.digest'")
    told = Counter(event["message_id"] for row in rows for event in row["payload"]["events"])
    alone = {
        row["message_id"]
        for row in db.rows(
            "SELECT message_id FROM notify.delivery WHERE event_type = 'post.new' AND state <> 'digested'"
        )
    }
    sent = len(rows)
    db.close()
    assert {id_ for id_, times in told.items() if times > 1} == set(), "in two digests"
    assert alone.isdisjoint(told), "by itself and in a digest"
    assert alone | set(told) == {f"m-{n}" for n in range(made)}, "in none"
    assert sent > kills // 4, "it was flushed while processes died"
    assert bool(alone) == bool(first)
