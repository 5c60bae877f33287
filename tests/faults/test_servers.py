"""Redis forgets, beats are two or none, a worker sleeps past its lease."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import redis
from faults.accounting import Ledgers, account, mix, send
from faults.fleet import CHANNELS, RunningFleet, beat, running_fleet, workers
from faults.test_kills import all_done, counter, producing, settle, slow

from notify_tasks import settings


@pytest.mark.timeout(300)
@pytest.mark.long
@pytest.mark.parametrize("count", [200, 1000])
def test_a_redis_that_forgets_everything_costs_seconds(tmp_path: Path, count: int) -> None:
    """FLUSHALL under durable intake, while messages and a marker are in the queues."""
    with running_fleet(tmp_path, [*workers(threads=4), beat()]) as fleet:
        slow(fleet, 0.5)
        settings.configure(intake="postgres")
        ledgers = Ledgers()
        client = redis.Redis.from_url(fleet.redis.url)
        with producing(ledgers, count, every=0.005) as join:
            join()
        fleet.wait(
            "wake-ups and a marker wait in the queues",
            lambda: (
                sum(int(client.llen(f"notify.{channel}")) for channel in CHANNELS) > 0
                and bool(fleet.rows("SELECT 1 FROM notify.marker WHERE ran_at IS NULL"))
            ),
            40,
        )
        client.flushall()
        client.close()
        fleet.fault()
        # the backlog itself takes its time: one and a half deliveries a call, eight at once, half a second each
        settle(fleet, ledgers, 60 + count * 1.5 / 8 * 0.5)

        found = account(fleet, ledgers)
        assert found.problems == [], fleet.summary()
        assert found.states == {"sent": found.deliveries}


@pytest.mark.long
@pytest.mark.timeout(150)
@pytest.mark.parametrize("beats", [0, 2])
def test_the_number_of_beats_does_not_matter(tmp_path: Path, beats: int) -> None:
    """Two beats do no harm; without one, and without a maintenance process, the workers sweep by themselves."""
    specs = [spec for spec in workers() if beats or spec.name != "maint"]
    with running_fleet(tmp_path, [*specs, *(beat(n) for n in range(beats))]) as fleet:
        slow(fleet, 0.5)
        ledgers = Ledgers()
        for n in range(40):
            send(ledgers, n, mix(n))
        fleet.wait("sends are in flight", lambda: _sending(fleet) >= 4, 30)
        fleet.kill("worker-1")
        settle(fleet, ledgers)

        assert all_done(fleet, ledgers)
        found = account(fleet, ledgers)
        assert found.problems == [], fleet.summary()
        assert counter(fleet, "leases_ended") > 0


@pytest.mark.long
@pytest.mark.timeout(150)
def test_a_worker_that_slept_past_its_lease_sends_nothing_again(tmp_path: Path) -> None:
    with running_fleet(tmp_path, [*workers(), beat()]) as fleet:
        slow(fleet, 1.0)
        ledgers = Ledgers()
        for n in range(60):
            send(ledgers, n, mix(n))
        fleet.wait("sends are in flight", lambda: _sending(fleet) >= 6, 30)
        fleet.supervisor.signal("worker-1", signal.SIGSTOP)
        fleet.fault()
        settle(fleet, ledgers)  # the others finish what it held once its leases have ended
        before = fleet.rows("SELECT id, state, fence, provider_message_id FROM notify.delivery ORDER BY id")
        fleet.supervisor.signal("worker-1", signal.SIGCONT)
        fleet.wait("the sleeper has written its results", lambda: _late(fleet) == 0, 30)

        after = fleet.rows("SELECT id, state, fence, provider_message_id FROM notify.delivery ORDER BY id")
        moved = [new for old, new in zip(before, after, strict=True) if old != new]
        # A late answer resolves a doubt and nothing else: sent, or failed where the sleeper had sent nothing.
        assert {row[1] for row in moved} <= {"sent", "failed"}
        assert {row[0] for row in moved} <= {row[0] for row in before if row[1] == "in_doubt"}
        found = account(fleet, ledgers)
        assert found.problems == [], fleet.summary()


def _sending(fleet: RunningFleet) -> int:
    ((n,),) = fleet.rows("SELECT count(*) FROM notify.delivery WHERE state = 'sending'")
    return int(str(n))


def _late(fleet: RunningFleet) -> int:
    """Attempts whose worker has not said how they ended."""
    ((n,),) = fleet.rows("SELECT count(*) FROM notify.attempt WHERE outcome IS NULL OR outcome = 'lost'")
    return int(str(n))
