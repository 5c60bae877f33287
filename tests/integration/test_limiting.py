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
from notify_tasks.limiting import BURST, KEPT, Limiter
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
    return limiter.take("smtp-main", rate, lane=lane, waited=waited)


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
    assert granted >= FAST.per_second * BURST  # the burst after a quiet time


def test_who_must_wait_has_a_time_of_its_own_one_interval_after_the_last(limiter: Limiter) -> None:
    rate = Rate.parse("6/min")
    while not take(limiter, rate, "high"):
        pass
    waits = [take(limiter, rate, "high") for _ in range(50)]
    gaps = [later - earlier for earlier, later in pairwise(waits)]
    assert all(9.0 < gap <= 10.0 for gap in gaps), gaps


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


def test_a_broadcast_leaves_a_fifth_to_the_high_lane(limiter: Limiter) -> None:
    rate = Rate.parse("10/s")
    begun = time.monotonic()
    bulk = sum(take(limiter, rate, "bulk") == 0 for _ in range(100))
    gone = time.monotonic() - begun
    whole = rate.per_second * BURST
    assert round(whole * (1 - KEPT)) <= bulk <= (1 - KEPT) * (whole + rate.per_second * gone) + 1
    assert take(limiter, rate, "high") == 0


def test_providers_have_their_own_rates(limiter: Limiter) -> None:
    assert take(limiter, SLOW) == 0
    assert take(limiter, SLOW) > 0
    assert limiter.take("sendgrid", SLOW, lane="normal", waited=False) == 0


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
    assert isinstance(gates.ask(subject), Configured)
    held = gates.ask(subject)
    assert isinstance(held, Closed)
    assert held.reason == "rate:far"
    assert 0 < held.wait <= 0.5
    assert later == [held.wait]  # the alarm is set for it
    time.sleep(held.wait)
    assert isinstance(gates.ask(replace(subject, waited_for=held.reason)), Configured)
