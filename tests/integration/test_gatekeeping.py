"""What waits behind a closed gate is brought forward when the gate opens: all of it, soon, the urgent first."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from channels.contract import Capability, Misconfigured, Unavailable
from notify_tasks import gatekeeping
from notify_tasks.breaker import FAILURES_TO_OPEN
from notify_tasks.configuration.reading import of_document
from notify_tasks.doctor import Finding, _left_out
from notify_tasks.gatekeeping import Keeper
from notify_tasks.rates import Rate
from notify_tasks.states import State
from notify_tasks.store import deliveries, gated
from notify_tasks.store.database import Database, Row
from notify_tasks.store.sweeps import Wake
from tests.integration.core_shop import Shop, shop
from tests.integration.core_world import World, call, world

OPAQUE = Capability.OPAQUE


class Counting(Database):
    """Counts the statements that change deliveries."""

    def __init__(self, url: str) -> None:
        super().__init__(url, connections=4)
        self.updates = 0

    def rows(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        self.updates += "UPDATE notify.delivery" in statement
        return super().rows(statement, parameters)


@dataclass(slots=True)
class Kept:
    """A worker with its gatekeeper."""

    desk: Shop
    keeper: Keeper
    woken: list[Wake] = field(default_factory=list)
    respread: list[str] = field(default_factory=list)

    def look(self, times: int = 1) -> list[uuid.UUID]:
        """So many looks; returns what they have woken."""
        before = len(self.woken)
        for _ in range(times):
            self.keeper._hear_at = self.keeper._hear_pauses_at = 0.0  # as if two seconds had passed
            self.keeper.look()
        return [wake.id for wake in self.woken[before:]]


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database) as made:
        yield made


@pytest.fixture
def worker(it: World, tmp_path: Path) -> Callable[..., Kept]:
    """Open a worker with providers `a` and `b`; `a` is the first choice."""

    def open_(name: str = "worker-1", *, db: Database | None = None) -> Kept:
        desk = opened.enter_context(shop(tmp_path, db or it.db, kinds=(OPAQUE, OPAQUE), worker=name))

        def respread(provider: str, _rate: Rate) -> None:
            kept.respread.append(provider)

        keeper = Keeper(
            database=db or it.db,
            pools=desk.pools,
            gates=desk.gates,
            channels=("sms",),
            wake=lambda wakes: kept.woken.extend(wakes),  # noqa: PLW0108 - it is made below
            respread=respread,
            worker=name,
        )
        kept = Kept(desk, keeper)
        return kept

    from contextlib import ExitStack  # noqa: PLC0415 - only here

    with ExitStack() as opened:
        yield open_


def down(kept: Kept, *names: str) -> None:
    for name in names:
        kept.desk.provider(name).breaker.failure("connect", at_once=True)


def back(kept: Kept, *names: str) -> None:
    for name in names:
        kept.desk.provider(name).breaker.success()


def waiting(it: World, kept: Kept, count: int = 1, **options: Any) -> list[uuid.UUID]:
    """So many deliveries that are held because no provider is ready."""
    ids = [it.accept(call(**options)) for _ in range(count)]
    for id_ in ids:
        outcome = kept.desk.deliver(id_)
        assert outcome is not None
        assert outcome.code == "no_provider_ready"
    return ids


def test_what_one_message_has_to_hold_is_one_statement(it: World, worker: Callable[..., Kept]) -> None:
    db = Counting(it.url)
    kept = worker(db=db)
    down(kept, "a", "b")
    ids = [it.accept() for _ in range(50)]
    waits = kept.desk.deliverer.read(ids)
    db.updates = 0
    holds = kept.desk.deliverer.holds()
    for one in waits:
        assert kept.desk.deliverer.deliver(one, holds=holds).state is State.HELD
    holds.write()
    assert db.updates == 1
    db.close()
    times = it.rows("SELECT due_at FROM notify.delivery WHERE state = 'held' ORDER BY due_at")
    assert len(times) == 50
    assert len({row["due_at"] for row in times}) == 50, "spread, each at its own place"
    assert it.rows("SELECT 1 FROM notify.attempt") == []


def test_nothing_is_brought_forward_before_a_provider_has_been_seen_to_work(
    it: World, worker: Callable[..., Kept]
) -> None:
    kept = worker()
    down(kept, "a", "b")
    waiting(it, kept, 3)
    assert kept.look(3) == []


def test_it_flows_when_one_provider_works_again_the_high_lane_first(
    it: World, worker: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatekeeping, "FIRST", 2)
    kept = worker()
    down(kept, "a", "b")
    bulk = waiting(it, kept, 5)
    high = waiting(it, kept, 2, priority="high")
    back(kept, "b")

    first = kept.look()
    assert set(first) == set(high), "a few at first, the most urgent ones"
    assert {it.state(id_) for id_ in high} == {"queued"}
    assert len(kept.look()) == 4, "then more with every look"
    assert set(kept.look(2)) | set(first) <= {*bulk, *high}
    assert {it.state(id_) for id_ in bulk} == {"queued"}


def test_a_provider_that_fails_again_stops_it(
    it: World, worker: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatekeeping, "FIRST", 2)
    kept = worker()
    down(kept, "a", "b")
    waiting(it, kept, 9)
    back(kept, "a")
    kept.look()
    down(kept, "a")
    assert kept.look(3) == []


def test_the_queues_are_not_filled_beyond_what_they_can_take(
    it: World, worker: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatekeeping, "FIRST", 2)
    monkeypatch.setattr(gatekeeping, "BACKLOG", 4)
    kept = worker()
    down(kept, "a", "b")
    waiting(it, kept, 12)
    back(kept, "a")
    assert len(kept.look(10)) == 6  # two, then four; nobody takes them from the queue
    it.rows("UPDATE notify.delivery SET state = 'sent' WHERE state = 'queued'")
    assert len(kept.look(10)) > 0


def test_what_may_have_been_sent_waits_for_its_own_provider(it: World, worker: Callable[..., Kept]) -> None:
    kept = worker()
    down(kept, "a", "b")
    (doubtful,) = waiting(it, kept)
    it.rows("UPDATE notify.delivery SET unknown = 1, provider = 'a'")
    back(kept, "b")
    assert kept.look(3) == []
    back(kept, "a")
    assert kept.look() == [doubtful]


def test_what_had_found_it_down_and_waits_to_retry_does_not_wait_on(
    it: World, worker: Callable[..., Kept]
) -> None:
    # Given a delivery that met the wrong key, and so was told to wait for a minute,
    kept = worker()
    down(kept, "b")
    kept.desk.scripts["a"].will(Misconfigured("401"))
    id_ = it.accept()
    kept.desk.deliver(id_)
    assert (it.state(id_), it.row(id_)["attempts"]) == ("retrying", 0)
    kept.look()

    # when a call shows that the key is right, then it goes now.
    back(kept, "a")
    assert kept.look() == [id_]
    outcome = kept.desk.deliver(id_)
    assert outcome is not None
    assert outcome.state is State.SENT


def test_a_configuration_that_mends_it_is_tried_at_once(it: World, worker: Callable[..., Kept]) -> None:
    kept = worker()
    down(kept, "a", "b")
    ids = waiting(it, kept, 3)
    kept.look()
    providers = {name: {"use": "sms.sandbox", "timeout": 10, "url": "http://127.0.0.1:2"} for name in "ab"}
    kept.desk.pools.reload(of_document({"providers": providers, "channels": {"sms": {"pool": ["a"]}}}), [])
    kept.keeper.mended()
    assert set(kept.look()) == set(ids)


def test_what_is_paused_is_brought_forward_when_the_pause_ends(
    it: World, worker: Callable[..., Kept]
) -> None:
    kept = worker()
    it.rows("INSERT INTO notify.pause (kind, name, reason) VALUES ('type', 'test.ping', 'incident 7')")
    ids = [it.accept() for _ in range(3)]
    for id_ in ids:
        kept.desk.deliver(id_)
    assert {it.row(id_)["reason"] for id_ in ids} == {"paused: incident 7"}
    assert kept.look(2) == []
    it.rows("DELETE FROM notify.pause")
    assert set(kept.look()) == set(ids)


def test_what_another_process_has_held_since_the_pause_ended_is_brought_forward_too(
    it: World, worker: Callable[..., Kept]
) -> None:
    # Given a pause that has ended, as this process knows,
    kept = worker()
    it.rows("INSERT INTO notify.pause (kind, name, reason) VALUES ('type', 'test.ping', 'incident 7')")
    kept.look()
    it.rows("DELETE FROM notify.pause")
    kept.look()
    # when another one, which does not know yet, holds a delivery, then that does not wait for its due time.
    id_ = it.accept()
    deliveries.hold(it.db, [(id_, 600.0, "paused: incident 7")])
    assert kept.look() == [id_]


def test_of_what_was_paused_the_high_lane_goes_first_and_another_channels_is_left_to_its_workers(
    it: World,
) -> None:
    ids = {lane: it.accept() for lane in ("bulk", "normal", "high")}
    for lane, id_ in ids.items():
        it.rows("UPDATE notify.delivery SET lane = %s WHERE id = %s", lane, id_)
    deliveries.hold(it.db, [(id_, 600.0, "paused: x") for id_ in ids.values()])
    assert gated.resume(it.db, ["email"], limit=9) == []
    assert [wake.lane for wake in gated.resume(it.db, ["sms"], limit=1)] == ["high"]
    assert len(gated.resume(it.db, ["sms", "email"], limit=9)) == 2


def test_what_waits_for_a_substitutes_rate_goes_back_to_its_first_choice(
    it: World, worker: Callable[..., Kept]
) -> None:
    # Given deliveries that have far turns at `b`, because `a` was down,
    kept = worker()
    down(kept, "a")
    kept.look()
    ids = [it.accept() for _ in range(3)]
    it.rows(
        "UPDATE notify.delivery SET state = 'held', reason = 'rate:b', due_at = now() + interval '1 hour'"
    )
    providers: dict[str, Any] = {name: {"use": "sms.sandbox", "timeout": 10} for name in "ab"}
    providers["b"]["rate"] = "1/h"
    pool = [{"provider": "a", "weight": 1}, {"provider": "b", "weight": 0}]
    kept.desk.pools.reload(of_document({"providers": providers, "channels": {"sms": {"pool": pool}}}), [])
    assert kept.look(2) == []

    # when `a` works again, then they go there, and those behind them move up.
    back(kept, "a")
    assert set(kept.look()) == set(ids)
    assert kept.respread == ["b"]


def test_what_waits_for_a_thread_goes_when_there_is_one_and_not_after_a_guess(
    it: World, worker: Callable[..., Kept]
) -> None:
    # Given a provider with all its threads busy, and thirty told to come one after another,
    kept = worker()
    down(kept, "b")
    for _ in range(4):
        assert kept.desk.gates.enter("a") is None
    ids = [it.accept() for _ in range(30)]
    for id_ in ids:
        outcome = kept.desk.deliver(id_)
        assert outcome is not None
        assert outcome.code == "provider_share_full"
    assert kept.look() == []

    # when the threads are free, then no more are woken than can go.
    for _ in range(4):
        kept.desk.gates.leave("a")
    assert 1 <= len(kept.look()) < 30


# --- what processes tell each other, and the operator -----------------------------------------------------


def findings(it: World) -> list[Finding]:
    return list(_left_out(it.db))


def test_the_operator_is_told_which_provider_since_when_and_why(
    it: World, worker: Callable[..., Kept], caplog: pytest.LogCaptureFixture
) -> None:
    kept = worker()
    kept.desk.scripts["a"].will(Misconfigured("401"))
    kept.desk.send(call())
    assert kept.desk.send(call()).provider == "b", "the other one takes over"
    assert caplog.text.count("provider a is misconfigured: 401") == 1
    kept.look()
    (finding,) = findings(it)
    assert finding.text.startswith("a refuses our account since ")
    assert "(401), says worker worker-1" in finding.text
    assert "providers.a" in finding.remedy

    back(kept, "a")
    kept.look()
    assert findings(it) == []
    assert "provider a works again" in caplog.text


def test_each_workers_word_is_heard_and_taken_back(it: World, worker: Callable[..., Kept]) -> None:
    one, two = worker("worker-1"), worker("worker-2")
    for kept in (one, two):
        down(kept, "b")
        kept.look()
    (finding,) = findings(it)
    assert "each of 2 workers" in finding.text

    # One of them sees it work: the other one makes a call now, and not after the old wait.
    assert not two.desk.provider("b").breaker.closed()
    back(one, "b")
    one.look()
    two.look()
    assert two.desk.provider("b").breaker.closed()
    assert findings(it) == []


def test_a_process_that_starts_into_an_outage_makes_one_call_and_not_five(
    it: World, worker: Callable[..., Kept]
) -> None:
    old, new = worker("worker-1"), worker("worker-2")
    down(old, "a")
    old.look()
    new.look(2)
    new.desk.scripts["a"].will(*[Unavailable("connect")] * FAILURES_TO_OPEN)
    for _ in range(4):
        assert new.desk.send(call()).provider == "b"
    assert len(new.desk.scripts["a"].sent) == 1


def test_a_process_that_ends_takes_its_word_back(it: World, worker: Callable[..., Kept]) -> None:
    kept = worker()
    down(kept, "a")
    kept.keeper.start()
    deadline = time.monotonic() + 10
    while not gated.said(it.db, 60):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    kept.keeper.stop()
    assert gated.said(it.db, 60) == []
