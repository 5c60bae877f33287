"""The gates: who may start now and at whom, and how long the others wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from notify_tasks import gates as gates_module
from notify_tasks.gates import Closed, Gates, Share, Subject
from notify_tasks.providers import Configured, Pools

TWO: dict[str, Any] = {
    "providers": {
        "a": {"use": "sms.sandbox", "url": "http://127.0.0.1:1"},
        "b": {"use": "sms.sandbox", "url": "http://127.0.0.1:1"},
        "trial": {"use": "sms.sandbox", "url": "http://127.0.0.1:1"},
    },
    "channels": {
        "sms": {
            "pool": [{"provider": "a", "weight": 1}, {"provider": "b", "weight": 0}],
            "sandbox": "trial",
        }
    },
}
ONE: dict[str, Any] = {"providers": {"a": TWO["providers"]["a"]}, "channels": {"sms": {"pool": ["a"]}}}
SUBJECT = Subject("d-1", "acme", "order.shipped", "sms", "normal")
TOO_MANY_READS = "pauses are read once in a while, not for every delivery"


class Paused:
    """The table of pauses."""

    def __init__(self) -> None:
        self.now: dict[tuple[str, str], str] = {}
        self.reads = 0

    def __call__(self) -> Mapping[tuple[str, str], str]:
        self.reads += 1
        return dict(self.now)


@pytest.fixture
def paused() -> Paused:
    return Paused()


def gates_for(
    document: Mapping[str, Any], paused: Paused, *, threads: int = 8, channels: tuple[str, ...] = ("sms",)
) -> tuple[Gates, Pools]:
    pools = Pools(document)
    return Gates(pools, threads=threads, channels=channels, pauses=paused), pools


def named(answer: Configured | Closed) -> str:
    assert isinstance(answer, Configured), answer
    return answer.name


def closed(answer: Configured | Closed) -> Closed:
    assert isinstance(answer, Closed), answer
    return answer


def break_(pools: Pools, name: str) -> None:
    found = pools.get(name)
    assert found is not None
    found.breaker.failure(at_once=True)


# --- pauses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", [("queue", "notify.sms"), ("type", "order.shipped"), ("tenant", "acme")], ids=lambda key: key[0]
)
def test_what_is_paused_waits_and_says_why(paused: Paused, key: tuple[str, str]) -> None:
    gates, _ = gates_for(ONE, paused)
    paused.now[key] = "incident 7"

    answer = closed(gates.ask(SUBJECT))

    assert answer.reason == "paused: incident 7"
    assert 5 <= answer.wait <= 30


@pytest.mark.parametrize(
    "key", [("queue", "notify.sms.high"), ("type", "order.paid"), ("tenant", "other"), ("queue", "acme")]
)
def test_a_pause_of_something_else_closes_nothing(paused: Paused, key: tuple[str, str]) -> None:
    gates, _ = gates_for(ONE, paused)
    paused.now[key] = "incident 7"
    assert named(gates.ask(SUBJECT)) == "a"


def test_pauses_are_read_rarely_and_lifted_soon(paused: Paused, monkeypatch: pytest.MonkeyPatch) -> None:
    gates, _ = gates_for(ONE, paused)
    paused.now["tenant", "acme"] = "incident 7"
    for _ in range(100):
        closed(gates.ask(SUBJECT))
    assert paused.reads <= 2, TOO_MANY_READS

    monkeypatch.setattr(gates_module, "PAUSES_READ_SECONDS", 0.0)
    paused.now.clear()
    assert named(gates.ask(SUBJECT)) == "a"


# --- providers ----------------------------------------------------------------------------------------


def test_the_next_provider_steps_in_for_one_that_is_down(paused: Paused) -> None:
    gates, pools = gates_for(TWO, paused)
    assert named(gates.ask(SUBJECT)) == "a"
    break_(pools, "a")
    assert named(gates.ask(SUBJECT)) == "b"
    assert closed(gates.ask(SUBJECT, without=frozenset({"b"}))).reason == "no_provider_ready"


def test_with_everybody_down_it_waits_and_nobody_is_called(paused: Paused) -> None:
    gates, pools = gates_for(TWO, paused)
    break_(pools, "a")
    break_(pools, "b")
    answer = closed(gates.ask(SUBJECT))
    assert (answer.reason, 5 <= answer.wait <= 30) == ("no_provider_ready", True)


def test_a_channel_without_a_pool_waits_for_one(paused: Paused) -> None:
    gates, _ = gates_for(ONE, paused)
    assert closed(gates.ask(replace(SUBJECT, channel="chat"))).reason == "no_provider_ready"


def test_an_unknown_outcome_keeps_its_provider_even_when_that_one_is_down(paused: Paused) -> None:
    gates, pools = gates_for(TWO, paused)
    doubtful = replace(SUBJECT, provider="b", unknown=True)
    assert named(gates.ask(doubtful)) == "b"
    assert not gates.other_ready(doubtful, without=frozenset())

    break_(pools, "b")
    assert closed(gates.ask(doubtful)).reason == "no_provider_ready"
    assert named(gates.ask(replace(doubtful, unknown=False))) == "a"


def test_an_unknown_outcome_at_a_provider_that_is_gone_waits(paused: Paused) -> None:
    gates, _ = gates_for(TWO, paused)
    assert closed(gates.ask(replace(SUBJECT, provider="gone", unknown=True))).reason == "no_provider_ready"


def test_other_ready_sees_only_who_could_be_called_now(paused: Paused) -> None:
    gates, pools = gates_for(TWO, paused)
    assert gates.other_ready(SUBJECT, without=frozenset({"a"}))
    break_(pools, "b")
    assert not gates.other_ready(SUBJECT, without=frozenset({"a"}))


def test_a_sandboxed_call_never_reaches_a_real_provider(paused: Paused) -> None:
    gates, _ = gates_for(TWO, paused)
    assert named(gates.ask(replace(SUBJECT, sandbox=True))) == "trial"
    without, _ = gates_for(ONE, paused)
    assert closed(without.ask(replace(SUBJECT, sandbox=True))).reason == "no_provider_ready"


# --- a provider's share -------------------------------------------------------------------------------


def test_one_provider_gets_half_of_the_threads_and_the_rest_goes_on(paused: Paused) -> None:
    gates, _ = gates_for(TWO, paused, threads=8)
    assert [gates.enter("a") is None for _ in range(5)] == [True] * 4 + [False]

    # The other one's own go on, and what must not wait; the rest waits, or the weights would bend under load.
    assert closed(gates.ask(SUBJECT)).reason == "provider_share_full"
    assert named(gates.ask(SUBJECT, without=frozenset({"a"}))) == "b"
    assert named(gates.ask(replace(SUBJECT, lane="high"))) == "b"
    gates.leave("a")
    assert named(gates.ask(SUBJECT)) == "a"


def test_threads_that_ask_at_once_do_not_overrun_the_share(paused: Paused) -> None:
    gates, _ = gates_for(TWO, paused, threads=8)
    start = threading.Barrier(8)

    def enter(_: int) -> bool:
        gates.ask(SUBJECT)
        start.wait(10)  # all of them have been told that there is room
        return gates.enter("a") is None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(enter, range(8))) == 4


def test_a_process_with_one_provider_gives_it_every_thread(paused: Paused) -> None:
    gates, _ = gates_for(ONE, paused, threads=2)
    assert all(gates.enter("a") is None for _ in range(20))
    assert named(gates.ask(SUBJECT)) == "a"


def test_a_single_thread_is_never_closed_by_its_share(paused: Paused) -> None:
    gates, _ = gates_for(TWO, paused, threads=1)
    assert gates.enter("a") is None
    assert named(gates.ask(SUBJECT)) == "a"


def test_waiting_for_a_place_is_spread_by_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given eight threads whose calls take 0.8 s, so that they end eight at a time: ten a second,
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    share = Share()
    for _ in range(40):
        clock += 0.8
        for _ in range(8):
            share.done()

    # when a hundred deliveries want a place at the same moment,
    slots = [share.slot() for _ in range(100)]

    # then each one comes later than the last one, and the whole takes about ten seconds.
    assert slots == sorted(set(slots))
    assert slots[0] >= 1.0
    assert 5 <= slots[-1] - slots[0] <= 20


def test_a_provider_that_does_nothing_at_all_is_tried_again_within_seconds() -> None:
    share = Share()
    assert max(share.slot() for _ in range(3)) <= 20
