"""Workers die at random, PostgreSQL crashes, and every notification still ends in exactly one state, once."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from faults.accounting import Ledgers, account, mix, send
from faults.fleet import CHANNELS, KIND, RunningFleet, beat, running_fleet, workers
from support.scraping import scrape, total

from notify_tasks.broker import Broker
from notify_tasks.exporter.serving import serve
from notify_tasks.fleet import Publisher
from notify_tasks.settings import Settings
from notify_tasks.store.sweeps import Wake

RECOVERY_SECONDS = 60
"""A promise: after the last fault, the last notification is done within a minute."""


def slow(fleet: RunningFleet, delay: float) -> None:
    """Every far end takes so many seconds."""
    for channel in CHANNELS:
        fleet.sandbox.set_mode(channel, "slow", delay=delay)


def counter(fleet: RunningFleet, name: str) -> int:
    """A total of the fleet's."""
    ((value,),) = fleet.rows("SELECT coalesce(max(value), 0) FROM notify.counter WHERE name = %s", name)
    return int(str(value))


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


@dataclass(frozen=True, slots=True)
class Stage:
    """A fleet, and what its client knows. The tests that break it do so one after another."""

    fleet: RunningFleet
    ledgers: Ledgers

    def in_doubt(self) -> Counter[str]:
        """How many deliveries of each kind of far end are in doubt."""
        rows = self.fleet.rows(
            "SELECT channel, count(*) FROM notify.delivery WHERE state = 'in_doubt' GROUP BY 1"
        )
        return Counter({KIND[str(channel)]: int(str(count)) for channel, count in rows})

    def restarts(self) -> dict[str, int]:
        """How often each process was started again."""
        return {name: self.fleet.supervisor.restarts(name) for name in self.fleet.supervisor.names()}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    # Its PostgreSQL is crashed.
    with running_fleet(
        tmp_path_factory.mktemp("fleet"), [*workers(), beat()], durable_postgres=True
    ) as fleet:
        yield Stage(fleet, Ledgers())


@pytest.fixture
def stage(shared: Stage) -> Stage:
    """The fleet at rest, with slow far ends; what ends by itself has ended."""
    shared.fleet.faults.clear()
    slow(shared.fleet, 0.1)
    return shared


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("count", "terms"), [(120, 3), pytest.param(600, 10, marks=pytest.mark.long)], ids=["share", "whole"]
)
def test_a_rolling_restart_leaves_nothing_in_doubt(stage: Stage, count: int, terms: int) -> None:
    fleet, ledgers = stage.fleet, stage.ledgers
    leases = counter(fleet, "leases_ended")
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
    assert counter(fleet, "leases_ended") == leases


@pytest.mark.timeout(120)
def test_a_wake_up_published_twice_sends_once(stage: Stage) -> None:
    send_and_double(stage.fleet, stage.ledgers)

    assert account(stage.fleet, stage.ledgers).problems == []


@pytest.mark.timeout(200)
@pytest.mark.parametrize("count", [160, pytest.param(1000, marks=pytest.mark.long)], ids=["share", "whole"])
def test_postgresql_crashes_twice(stage: Stage, count: int) -> None:
    fleet, ledgers, restarts = stage.fleet, stage.ledgers, stage.restarts()
    with producing(ledgers, count, every=8 / count) as join:
        for _ in range(2):
            time.sleep(3)
            fleet.postgres.restart("immediate")
            fleet.fault()
        join()
    settle(fleet, ledgers)

    found = account(fleet, ledgers)
    assert found.problems == [], fleet.summary()
    assert found.in_doubt["idempotent"] == found.in_doubt["queryable"] == 0
    assert stage.restarts() == restarts, "a worker died of a database that was away"


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("count", "kills"), [(200, 6), pytest.param(1000, 25, marks=pytest.mark.long)], ids=["share", "whole"]
)
def test_sigkills_lose_and_double_nothing(stage: Stage, count: int, kills: int) -> None:
    fleet, ledgers = stage.fleet, stage.ledgers
    accepted, before = len(ledgers.accepted), stage.in_doubt()
    with producing(ledgers, count, every=kills * 1.0 / count) as join:
        for _ in range(kills):
            time.sleep(fleet.random.uniform(0.4, 1.6))
            fleet.kill(fleet.random.choice(["worker-1", "worker-2", "worker-1", "worker-2", "maint"]))
        join()
    settle(fleet, ledgers)

    found = account(fleet, ledgers)
    assert len(ledgers.accepted) == accepted + count
    assert found.problems == [], fleet.summary()
    assert found.in_doubt["idempotent"] == found.in_doubt["queryable"] == 0
    in_flight = kills * 8  # at each kill at most the threads of one worker
    assert found.in_doubt["opaque"] - before["opaque"] <= in_flight


@pytest.mark.timeout(120)
def test_totals_agree_with_the_far_end_after_all_of_that(stage: Stage) -> None:
    """What `notify exporter` tells is counted from rows: no process that was killed has taken a number with it."""
    fleet = stage.fleet
    settings = Settings(broker_url=fleet.redis.url, database_url=fleet.postgres.url)
    exporter, exposed = serve(settings, "127.0.0.1", 0)
    try:
        doubts = {
            str(id_) for (id_,) in fleet.rows("SELECT id FROM notify.delivery WHERE state = 'in_doubt'")
        }
        took = Counter(
            it.channel
            for it in fleet.sandbox.requests()
            if it.accepted and it.action == "send" and it.delivery_id not in doubts
        )

        def told() -> dict[str, float]:
            page = scrape(f"http://127.0.0.1:{exposed.port}/metrics")
            return {it: total(page, "notify_deliveries_total", channel=it, state="sent") for it in took}

        assert len(took) == len(CHANNELS)
        fleet.wait("the exporter has counted all of it", lambda: told() == dict(took), 60)
    finally:
        exposed.close()
        exporter.stop()


# --- the suite itself must fail on a broken fleet ------------------------------------------------------


@pytest.mark.timeout(120)
def test_without_the_fence_the_suite_reports_duplicates(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": _with_tests()}
    with running_fleet(tmp_path, [*workers("faults.no_fence"), beat()], environment=environment) as fleet:
        ledgers = Ledgers()
        send_and_double(fleet, ledgers)

        found = account(fleet, ledgers)
        assert any(problem.startswith("I2 sent twice") for problem in found.problems), found


@pytest.mark.timeout(180)
def test_without_the_sweep_the_suite_reports_losses(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": _with_tests()}
    with running_fleet(tmp_path, workers("faults.no_sweep"), environment=environment) as fleet:
        slow(fleet, 1.0)
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


def send_and_double(fleet: RunningFleet, ledgers: Ledgers) -> None:
    """Forty notifications through intake, and then every wake-up once more, as a broker may do."""
    for n in range(40):
        send(ledgers, n, None)
    settle(fleet, ledgers)
    _double_every_wake_up(fleet)


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
