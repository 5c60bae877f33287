"""A new configuration comes while deliveries are on their way: none is lost, none is sent twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from channels.contract import Accepted, Capability, Deadline, Message, Uncertain
from notify_tasks.configuration.reading import of_document
from notify_tasks.gates import Closed
from notify_tasks.states import State
from notify_tasks.store.database import Database
from tests.integration.core_shop import Shop, one_row, shop
from tests.integration.core_world import World, call


@pytest.fixture
def it(database: str) -> Iterator[World]:
    db = Database(database, connections=5)
    yield World(db, database)
    db.close()


@pytest.fixture
def two(it: World, tmp_path: Path) -> Iterator[Shop]:
    """A worker with two providers: all goes to `a`, and `b` is its reserve."""
    with shop(tmp_path, it.db, kinds=(Capability.OPAQUE, Capability.OPAQUE)) as opened:
        yield opened


def reload(to: Shop, *, weights: tuple[int, int] = (1, 0), **changes: dict[str, Any]) -> list[str]:
    """Give the shop another configuration: of its providers only timeout, rate and enabled may differ."""
    providers = {name: {"use": "sms.sandbox", "timeout": 10} | changes.get(name, {}) for name in "ab"}
    pool = [{"provider": name, "weight": weight} for name, weight in zip("ab", weights, strict=True)]
    return to.pools.reload(of_document({"providers": providers, "channels": {"sms": {"pool": pool}}}), [])


def test_a_longer_timeout_is_not_used_under_a_lease_that_does_not_cover_it(it: World, two: Shop) -> None:
    # Given a delivery that was claimed for a call of 10 seconds,
    taken = two.take(call(), "notify.sms")
    assert taken.claimed is not None
    assert taken.lease == 40.0

    # when the provider is given 60 seconds before the call begins,
    assert reload(two, a={"timeout": 60}) == ["timeout of a 10s -> 1m"]
    outcome = two.deliverer.perform(taken.claimed, asked=taken.asked, lease=taken.lease)

    # then nothing is sent under the old lease, which would end before the call,
    assert (outcome.state, outcome.code) == (State.QUEUED, "lease_too_short")
    assert two.scripts["a"].sent == []

    # and it is sent under a new one.
    again = two.deliver(taken.claimed.id)
    assert again is not None
    assert again.state is State.SENT
    assert it.row(taken.claimed.id)["attempts"] == 1


def test_a_delivery_in_the_hands_of_a_provider_that_is_switched_off_goes_to_another_at_once(
    it: World, two: Shop
) -> None:
    taken = two.take(call(), "notify.sms")
    assert taken.claimed is not None
    assert taken.claimed.provider == "a"

    assert reload(two, a={"enabled": False}) == ["a switched off"]
    outcome = two.deliverer.perform(taken.claimed, asked=taken.asked, lease=taken.lease)

    assert (outcome.state, one_row(it)["reason"], one_row(it)["attempts"]) == (
        State.QUEUED,
        "provider_gone",
        0,
    )
    again = two.deliver(taken.claimed.id)
    assert again is not None
    assert (again.state, again.provider) == (State.SENT, "b")
    assert two.scripts["a"].sent == []


def test_what_may_have_been_sent_waits_for_its_own_provider_to_be_switched_on(it: World, two: Shop) -> None:
    two.scripts["a"].will(Uncertain("reset"))
    id_ = it.accept()
    two.deliver(id_)
    reload(two, a={"enabled": False})
    it.rows("UPDATE notify.delivery SET not_before = NULL")
    assert getattr(two.deliver(id_), "code", "") == "no_provider_ready"
    assert two.scripts["b"].sent == []

    reload(two)
    it.rows("UPDATE notify.delivery SET state = 'queued', due_at = NULL, not_before = NULL")
    assert getattr(two.deliver(id_), "provider", "") == "a"


def test_a_call_that_runs_ends_well_while_its_provider_goes(it: World, two: Shop) -> None:
    def change(message: Message, deadline: Deadline) -> Accepted:
        del message, deadline
        reload(two, a={"enabled": False}, b={"timeout": 20})
        return Accepted("in time", "202")

    two.scripts["a"].will(change)
    outcome = two.send(call())
    assert (outcome.state, outcome.provider) == (State.SENT, "a")
    assert two.send(call()).provider == "b"


def test_changed_weights_are_those_of_the_next_delivery(two: Shop) -> None:
    assert two.send(call()).provider == "a"
    reload(two, weights=(0, 1))
    assert {two.send(call()).provider for _ in range(5)} == {"b"}


def test_with_a_second_provider_neither_may_have_all_threads(two: Shop) -> None:
    reload(two, b={"enabled": False})
    assert [two.gates.enter("a") for _ in range(8)] == [None] * 8
    for _ in range(8):
        two.gates.leave("a")

    reload(two)
    answers = [two.gates.enter("a") for _ in range(5)]
    assert answers[:4] == [None] * 4
    assert isinstance(answers[4], Closed)
