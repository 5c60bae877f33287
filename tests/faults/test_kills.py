"""Workers die at random, and every notification still ends in exactly one state, once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from faults.accounting import Ledgers, account, mix, send
from faults.fleet import CHANNELS, RunningFleet, beat, running_fleet, workers

from notify_tasks.broker import Broker
from notify_tasks.fleet import Publisher
from notify_tasks.store.sweeps import Wake

RECOVERY_SECONDS = 60
"""A promise: after the last fault, the last notification is done within a minute."""


@contextmanager
def producing(ledgers: Ledgers, count: int, *, every: float) -> Iterator[Callable[[], None]]:
    """Send `count` notifications from a thread, one every so many seconds; yields a function that waits for it."""
    problems: list[BaseException] = []
    stop = threading.Event()

    def run() -> None:
        try:
            for n in range(count):
                send(ledgers, n, mix(n))
                if stop.wait(every):
                    return
        except BaseException as error:  # noqa: BLE001 - told by `join`
            problems.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join() -> None:
        thread.join(120)
        assert not problems, problems
        assert not thread.is_alive(), "the producer did not finish"

    try:
        yield join
    finally:
        stop.set()
        thread.join(10)


def all_done(fleet: RunningFleet, ledgers: Ledgers) -> bool:
    """Every accepted call is planned, and every delivery has ended."""
    return fleet.known() >= len(ledgers.accepted) and fleet.unfinished() == 0


def settle(fleet: RunningFleet, ledgers: Ledgers, seconds: float = RECOVERY_SECONDS) -> None:
    """Wait until everything has ended, counted from the last fault."""
    since = time.monotonic() - (fleet.faults[-1] if fleet.faults else time.monotonic())
    fleet.wait("every notification ends", lambda: all_done(fleet, ledgers), max(1.0, seconds - since))


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("count", "kills"), [(240, 8), pytest.param(1000, 25, marks=pytest.mark.long)], ids=["share", "whole"]
)
def test_sigkills_lose_and_double_nothing(tmp_path: Path, count: int, kills: int) -> None:
    specs = [*workers(), beat()]
    with running_fleet(tmp_path, specs) as fleet:
        for channel in CHANNELS:
            fleet.sandbox.set_mode(channel, "slow", delay=0.1)
        ledgers = Ledgers()
        with producing(ledgers, count, every=kills * 1.0 / count) as join:
            for _ in range(kills):
                time.sleep(fleet.random.uniform(0.4, 1.6))
                fleet.kill(fleet.random.choice(["worker-1", "worker-2", "worker-1", "worker-2", "maint"]))
            join()
        settle(fleet, ledgers)

        found = account(fleet, ledgers)
        assert len(ledgers.accepted) == count
        assert found.problems == [], fleet.summary()
        assert found.in_doubt["idempotent"] == found.in_doubt["queryable"] == 0
        in_flight = kills * 8  # at each kill at most the threads of one worker
        assert found.in_doubt["opaque"] <= in_flight


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("count", "terms"), [(160, 4), pytest.param(600, 10, marks=pytest.mark.long)], ids=["share", "whole"]
)
def test_a_rolling_restart_leaves_nothing_in_doubt(tmp_path: Path, count: int, terms: int) -> None:
    with running_fleet(tmp_path, [*workers(), beat()]) as fleet:
        for channel in CHANNELS:
            fleet.sandbox.set_mode(channel, "slow", delay=0.1)
        ledgers = Ledgers()
        with producing(ledgers, count, every=terms * 1.0 / count) as join:
            for n in range(terms):
                time.sleep(1.5)
                fleet.supervisor.signal(("worker-1", "worker-2")[n % 2], signal.SIGTERM)
                fleet.fault()
            join()
        settle(fleet, ledgers)

        found = account(fleet, ledgers)
        assert found.problems == [], fleet.summary()
        assert found.states == {"sent": found.deliveries}
        ((leases,),) = fleet.rows(
            "SELECT coalesce(max(value), 0) FROM notify.counter WHERE name = 'leases_ended'"
        )
        assert leases == 0


@pytest.mark.timeout(120)
def test_a_wake_up_published_twice_sends_once(tmp_path: Path) -> None:
    with running_fleet(tmp_path, [*workers(), beat()]) as fleet:
        found = account(fleet, _sent_and_doubled(fleet))
        assert found.problems == []


# --- the suite itself must fail on a broken fleet ------------------------------------------------------


@pytest.mark.timeout(120)
def test_without_the_fence_the_suite_reports_duplicates(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": _with_tests()}
    with running_fleet(tmp_path, [*workers("faults.no_fence"), beat()], environment=environment) as fleet:
        found = account(fleet, _sent_and_doubled(fleet))
        assert any(problem.startswith("I2 sent twice") for problem in found.problems), found


@pytest.mark.timeout(180)
def test_without_the_sweep_the_suite_reports_losses(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": _with_tests()}
    with running_fleet(tmp_path, workers("faults.no_sweep"), environment=environment) as fleet:
        for channel in CHANNELS:
            fleet.sandbox.set_mode(channel, "slow", delay=1.0)
        ledgers = Ledgers()
        for n in range(40):
            send(ledgers, n, mix(n))
        fleet.wait("sends are in flight", lambda: _in_flight(fleet) >= 8, 30)
        for name in ("worker-1", "worker-2"):
            fleet.kill(name)
        fleet.wait("the replacements do the rest", lambda: _stands_still(fleet, seconds=6), 60)

        found = account(fleet, ledgers)
        assert any(problem.startswith("I1 lost") for problem in found.problems), found


def _in_flight(fleet: RunningFleet) -> int:
    ((n,),) = fleet.rows("SELECT count(*) FROM notify.delivery WHERE state = 'sending'")
    return int(str(n))


def _stands_still(fleet: RunningFleet, *, seconds: float) -> bool:
    """Whether no delivery was stored or moved for so long. There is nothing else to wait for where nothing comes."""
    ((still,),) = fleet.rows(
        "SELECT max(updated_at) < now() - make_interval(secs => %s) FROM notify.delivery", seconds
    )
    return bool(still)


def _with_tests() -> str:
    root = Path(__file__).parents[2]
    return f"{root}:{root / 'tests'}"


def _sent_and_doubled(fleet: RunningFleet) -> Ledgers:
    """Forty notifications through intake, and then every wake-up once more, as a broker may do."""
    ledgers = Ledgers()
    for n in range(40):
        send(ledgers, n, None)
    settle(fleet, ledgers, 30)
    _double_every_wake_up(fleet)
    return ledgers


def _double_every_wake_up(fleet: RunningFleet) -> None:
    rows = fleet.rows("SELECT id, channel, lane FROM notify.delivery")
    broker = Broker(fleet.redis.url, timeout=5)
    ran = len(fleet.sandbox.requests())
    Publisher(broker).wake([Wake(*row) for row in rows])  # type: ignore[arg-type]
    broker.close()
    client = redis.Redis.from_url(fleet.redis.url)
    fleet.wait(
        "the doubled wake-ups are worked off",
        lambda: (
            not any(client.llen(f"notify.{channel}") for channel in CHANNELS) and not client.hlen("unacked")
        ),
        30,
    )
    client.close()
    assert len(fleet.sandbox.requests()) >= ran
