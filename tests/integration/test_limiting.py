"""A provider's rate, shared by the fleet through a real Redis, and what holds when Redis does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from os import kill
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest
import redis

from notify_tasks.embedded import Server
from notify_tasks.gates import Closed, Gates, Subject
from notify_tasks.limiting import BURST, HEADROOM, KEPT, LONGEST_PACE, Limiter, Manner, between
from notify_tasks.providers import Configured, Pools
from notify_tasks.rates import Rate

FAST = Rate.parse("200/s")
SLOW = Rate.parse("1/h")


@contextmanager
def limiters(
    url: str,
    count: int = 1,
    changed: Callable[[str, Rate | None], None] = lambda _provider, _rate: None,
    *,
    patience: float = 10.0,  # a busy machine is not what is tested
) -> Iterator[list[Limiter]]:
    """One for each process of a fleet."""
    with ExitStack() as stack:
        made = [Limiter(url, process=f"host:{n}", changed=changed, patience=patience) for n in range(count)]
        for limiter in made:
            stack.callback(limiter.close)
        yield made


@pytest.fixture
def limiter(broker: str) -> Iterator[Limiter]:
    with limiters(broker) as (one,):
        yield one


def take(limiter: Limiter, rate: Rate = FAST, lane: str = "normal", *, waited: bool = False) -> float:
    return limiter.take("smtp-main", rate, lane=lane, manner=Manner.WAITED if waited else Manner.QUEUE)


def test_processes_share_one_rate(broker: str) -> None:
    with limiters(broker, 4) as four, redis.Redis.from_url(broker) as client:

        def ask(one: Limiter) -> int:
            return sum(take(one, lane="high") == 0 for _ in range(300))

        seconds, micros = client.time()
        begun = seconds + micros / 1e6
        with ThreadPoolExecutor(4) as threads:
            granted = sum(threads.map(ask, four))
        seconds, micros = client.time()
        gone = seconds + micros / 1e6 - begun
    assert granted <= FAST.per_second * (gone + BURST) + 1
    assert granted >= int(FAST.per_second * BURST / (1 + HEADROOM))  # the burst after a quiet time


def test_who_must_wait_has_a_time_of_its_own_one_interval_after_the_last(limiter: Limiter) -> None:
    rate = Rate.parse("6/min")
    while not take(limiter, rate, "high"):
        pass
    waits = [take(limiter, rate, "high") for _ in range(50)]
    gaps = [later - earlier for earlier, later in pairwise(waits)]
    longest = between(rate) + 0.001
    assert all(longest - 1 < gap <= longest for gap in gaps), gaps


def test_whoever_waited_goes_before_those_who_come(limiter: Limiter) -> None:
    rate = Rate.parse("10/s")
    while not take(limiter, rate):
        pass
    first, _second = take(limiter, rate), take(limiter, rate)
    time.sleep(first)
    assert take(limiter, rate) > 0  # there is room, and others wait for it
    assert take(limiter, rate, waited=True) == 0


def test_who_waited_and_finds_no_room_is_not_sent_to_the_end(limiter: Limiter) -> None:
    while not take(limiter, SLOW):
        pass
    last = max(take(limiter, SLOW) for _ in range(20))
    assert 0 < take(limiter, SLOW, waited=True) < last / 10


def test_calls_that_were_granted_together_begin_one_after_another(broker: str) -> None:
    rate = Rate.parse("50/s")
    with limiters(broker, 2) as two:
        waits = [two[n % 2].start("smtp-main", rate) for n in range(8)]
        known = [wait for wait in waits if wait is not None]
        assert len(known) == 8
        assert known[-1] > 6 * rate.interval
        assert max(known) <= LONGEST_PACE
        many = [two[n % 2].start("smtp-main", rate) for n in range(40)]
    assert many[-1] is None, "nobody sleeps for longer"


def test_those_who_are_late_come_one_after_another(limiter: Limiter) -> None:
    rate = Rate.parse("6/min")
    while not take(limiter, rate, "high"):
        pass
    waits = [take(limiter, rate, "high", waited=True) for _ in range(10)]
    assert all(9.0 < later - earlier < 11.0 for earlier, later in pairwise(waits)), waits


def test_who_can_go_another_way_takes_no_place(limiter: Limiter) -> None:
    while not take(limiter, SLOW):
        pass
    asked = [limiter.take("smtp-main", SLOW, lane="normal", manner=Manner.AT_ONCE) for _ in range(20)]
    assert min(asked) > 0
    assert take(limiter, SLOW) < 3 * 3600 / (1 - KEPT)  # nobody is in the queue


def test_a_broadcast_leaves_a_fifth_to_the_high_lane(limiter: Limiter) -> None:
    rate = Rate.parse("10/s")
    begun = time.monotonic()
    bulk = sum(take(limiter, rate, "bulk") == 0 for _ in range(100))
    gone = time.monotonic() - begun
    assert bulk <= (1 - KEPT) * rate.per_second * (gone + BURST) + 1
    assert take(limiter, rate, "high") <= rate.interval * (1 + HEADROOM)
    assert take(limiter, rate, "bulk") > 5


def test_providers_have_their_own_rates(limiter: Limiter) -> None:
    assert take(limiter, SLOW) == 0
    assert take(limiter, SLOW) > 0
    assert limiter.take("sendgrid", SLOW, lane="normal", manner=Manner.QUEUE) == 0


@pytest.mark.parametrize("how", ["frozen", "gone"])
def test_without_redis_a_process_takes_its_share(start_redis: Callable[[], Server], how: str) -> None:
    server = start_redis()
    rate = Rate.parse("100/s")
    with limiters(server.url, 4, patience=2.0) as four:
        for one in four:
            take(one, rate, "high")
        begun = time.monotonic()
        take(four[0], rate, "high")  # learns that there are four
        if how == "frozen":
            kill(server.pid or 0, SIGSTOP)
        else:
            server.kill(SIGKILL)
        try:
            granted = 0
            while granted < 10:
                assert time.monotonic() - begun < 20
                granted += take(four[0], rate, "high") == 0
            gone = time.monotonic() - begun
        finally:
            if how == "frozen":
                kill(server.pid or 0, SIGCONT)
    assert granted <= rate.per_second / 4 * gone + 1


def test_one_process_is_told_of_a_change(broker: str) -> None:
    told: list[tuple[str, Rate | None]] = []
    with limiters(broker, 3, lambda provider, rate: told.append((provider, rate))) as three:
        for rate in ("10/s", "10/s", "40/s", "5/s"):
            for one in three:
                one.announce("smtp-main", Rate.parse(rate))
        for one in three:
            one.announce("smtp-main", None)
    assert told == [
        ("smtp-main", Rate.parse("40/s")),
        ("smtp-main", Rate.parse("5/s")),
        ("smtp-main", None),
    ]


def test_a_place_given_by_a_rate_that_is_gone_delays_nobody(broker: str) -> None:
    faster = Rate.parse("3600/h")
    with limiters(broker) as (one,):
        one.announce("smtp-main", SLOW)
        while not take(one, SLOW):
            pass
        last = max(take(one, SLOW) for _ in range(9))
        assert last > 3600
        one.announce("smtp-main", faster)
        one.queue_ends("smtp-main", faster, 10.0)  # ten are still waiting
        assert 10 < take(one, faster) < 13


def test_a_process_that_has_not_read_the_new_rate_uses_up_no_more_than_it(broker: str) -> None:
    faster = Rate.parse("10/s")
    with limiters(broker) as (one,):
        one.announce("smtp-main", SLOW)
        one.announce("smtp-main", faster)
        while not take(one, SLOW, "high", waited=True):  # it still counts an hour for each call
            pass
        one.queue_ends("smtp-main", faster, 0.0)
        begun = time.monotonic()
        while take(one, faster, "high", waited=True):
            assert time.monotonic() - begun < 20
            time.sleep(0.05)


def test_a_restarted_redis_knows_no_script_and_goes_on(start_redis: Callable[[], Server]) -> None:
    server = start_redis()
    with limiters(server.url) as (one,):
        assert take(one, SLOW) == 0
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
            client.script_flush()
        assert take(one, SLOW) == 0
        assert take(one, SLOW) > 0


def test_the_gates_hold_what_exceeds_the_rate_and_say_for_whom_it_waits(limiter: Limiter) -> None:
    pools = Pools(
        {
            "providers": {"far": {"use": "sms.sandbox", "url": "http://127.0.0.1:1", "rate": "2/s"}},
            "channels": {"sms": {"pool": ["far"]}},
        }
    )
    later: list[float] = []
    gates = Gates(pools, threads=1, channels=("sms",), pauses=dict, limiter=limiter, later=later.append)
    subject = Subject("d-1", "acme", "order.shipped", "sms", "high")
    assert isinstance(gates.ask(subject), Configured)
    held = gates.ask(subject)
    assert isinstance(held, Closed)
    assert held.reason == "rate:far"
    assert 0 < held.wait <= 0.5 * (1 + HEADROOM)
    assert later == [held.wait]  # the alarm is set for it
    time.sleep(held.wait)
    assert isinstance(gates.ask(replace(subject, waited_for=held.reason)), Configured)


def two(**rates: str) -> Pools:
    """`a` is the first choice and `b` its substitute."""
    return Pools(
        {
            "providers": {
                name: {"use": "sms.sandbox", "url": "http://127.0.0.1:1", "rate": rates.get(name, "1000/s")}
                for name in "ab"
            },
            "channels": {
                "sms": {"pool": [{"provider": "a", "weight": 1}, {"provider": "b", "weight": 0}]},
            },
        }
    )


def asked(gates: Gates, lane: str) -> str:
    """Where the next one goes, or what it waits for."""
    answer = gates.ask(Subject("d-1", "acme", "order.shipped", "sms", lane))
    return answer.name if isinstance(answer, Configured) else answer.reason


def test_what_waits_for_its_first_choices_rate_keeps_the_weights_and_what_is_urgent_goes_elsewhere(
    limiter: Limiter,
) -> None:
    gates = Gates(two(a="1/h", b="1/h"), threads=1, channels=("sms",), pauses=dict, limiter=limiter)
    assert [asked(gates, "normal") for _ in range(3)] == ["a", "rate:a", "rate:a"]
    assert [asked(gates, "high") for _ in range(2)] == ["b", "rate:a"]


def test_nobody_queues_up_for_a_substitute(limiter: Limiter) -> None:
    # Given all of the first choice's threads busy, and something that must not wait for them,
    gates = Gates(two(b="1/h"), threads=2, channels=("sms",), pauses=dict, limiter=limiter)
    assert asked(gates, "normal") == "a"
    assert gates.enter("a") is None
    # then its substitute is called where it can be now, and nobody waits an hour for it.
    assert [asked(gates, "high") for _ in range(2)] == ["b", "provider_share_full"]


def test_a_process_that_still_goes_by_the_old_rate_holds_up_nobody(limiter: Limiter) -> None:
    """It may read the new configuration seconds later, and begins a call meanwhile."""
    fast = Rate.parse("100/s")
    assert fast is not None
    limiter.announce("smtp-main", fast)
    assert limiter.start("smtp-main", SLOW) == 0.0

    assert limiter.start("smtp-main", fast) == 0.0
