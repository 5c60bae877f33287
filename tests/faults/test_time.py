"""What is due later goes out once, and each event in one digest: with many beats or none, and a Redis that forgets."""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from faults.accounting import Ledgers, account
from faults.fleet import RunningFleet, beat, running_fleet, workers
from faults.test_kills import settle

from notify_tasks import schedules, settings
from notify_tasks.producer import send_notification

NUMBER = "+4915112345678"
MINUTES = 6
"""So many occurrences of each schedule are due at once."""
GATHERED = 5
"""So many events are in a digest."""


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("beats", "away", "count"),
    [
        pytest.param(2, 0, 20, id="two beats"),
        pytest.param(5, 0, 60, id="five beats", marks=pytest.mark.long),
        pytest.param(1, 150, 60, id="a beat away for minutes", marks=pytest.mark.long),
    ],
)
def test_each_occurrence_goes_out_once(tmp_path: Path, beats: int, away: float, count: int) -> None:
    # Given schedules of every minute, calls that are due in an hour, and some that are gathered until then,
    with running_fleet(
        tmp_path,
        [*workers(count=2, channels=["sms"], threads=4), *(beat(n) for n in range(1, beats + 1))],
    ) as fleet:
        settings.configure(intake="postgres", database_url=fleet.postgres.url)
        ledgers = Ledgers()
        try:
            _plan(fleet, ledgers, count)
        finally:
            schedules.close()
        # when every beat is gone while all of that comes due, and Redis forgets what it has,
        names = [name for name in fleet.supervisor.names() if name.startswith("beat")]
        if away:
            for name in names:
                fleet.supervisor.signal(name, signal.SIGSTOP)
        _hours_pass(fleet, ledgers, count)
        fleet.wait(
            "some of it has become calls",
            lambda: fleet.rows("SELECT count(*) > 5 FROM notify.schedule_occurrence") == [(True,)],
            40,
        )
        client = redis.Redis.from_url(fleet.redis.url)
        client.flushall()
        client.close()
        fleet.fault()
        begun = time.monotonic()
        settle(fleet, ledgers, 60)
        fleet.wait("the beat's time away", lambda: time.monotonic() - begun >= away, away + 5)
        for name in names:
            fleet.supervisor.signal(name, signal.SIGCONT if away else signal.SIGKILL)
        before = fleet.rows("SELECT last_at FROM notify.sweep")
        fleet.wait("another sweep", lambda: fleet.rows("SELECT last_at FROM notify.sweep") != before, 60)
        settle(fleet, ledgers, 60)

        # then each of them went out, once, and each event in one digest.
        digests = dict(fleet.rows("SELECT message_id, sent_events FROM notify.digest"))
        assert digests == dict.fromkeys(digests, GATHERED)
        ledgers.accepted |= {str(message_id): ("sms",) for message_id in digests}
        found = account(fleet, ledgers)
        assert found.problems == [], fleet.summary()
        assert found.deliveries == len(ledgers.accepted)
        assert found.states == {"sent": count * (MINUTES + 1) + count // GATHERED, "digested": count}


def _plan(fleet: RunningFleet, ledgers: Ledgers, count: int) -> None:
    for n in range(count):
        schedules.put(
            f"every-minute-{n}",
            "fault.ping",
            cron="* * * * *",
            missed="all",
            to={"sms": NUMBER},
            payload={"n": n},
            channels=["sms"],
        )
        later = send_notification.delay(
            "fault.ping",
            to={"sms": NUMBER},
            payload={"n": n},
            channels=["sms"],
            at=timedelta(minutes=50),
        )
        gathered = send_notification.delay(
            "fault.ping",
            to={"sms": f"{NUMBER[:-2]}{n // GATHERED:02}"},
            payload={"n": n},
            channels=["sms"],
            digest="weekly",
        )
        ledgers.accepted |= {later.id: ("sms",), gathered.id: ("sms",)}
    fleet.wait(
        "the calls are held until their time",
        lambda: fleet.rows("SELECT count(*) FROM notify.delivery WHERE state = 'held'") == [(count * 2,)],
        60,
    )


def _hours_pass(fleet: RunningFleet, ledgers: Ledgers, count: int) -> None:
    """Every time that is stored moves back: the fleet finds what it would find then."""
    last = datetime.now(UTC).replace(second=0, microsecond=0)
    first = last - timedelta(minutes=MINUTES - 1)
    for n in range(count):
        for minute in range(MINUTES):
            ledgers.accepted[f"every-minute-{n}@{first + timedelta(minutes=minute):%Y-%m-%dT%H:%M}Z"] = (
                "sms",
            )
    fleet.rows(
        "UPDATE notify.schedule SET starts_at = %s, next_at = %s, ends_at = %s RETURNING id",
        first - timedelta(minutes=1),
        first,
        last + timedelta(seconds=1),
    )
    fleet.rows(
        "UPDATE notify.delivery SET due_at = now() WHERE state = 'held' AND digest_id IS NULL RETURNING id"
    )
    fleet.rows("UPDATE notify.digest SET due_at = now() RETURNING id")
