"""The breaker of one provider: when it opens, whom it lets through, and what closes it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from channels.contract import (
    AddressInvalid,
    ChannelError,
    Misconfigured,
    OptedOut,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
    Unroutable,
)
from notify_tasks.breaker import FAILURES_TO_OPEN, OPEN_SECONDS, Breaker, judge


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def opened() -> Breaker:
    breaker = Breaker()
    breaker.failure("401", at_once=True)
    return breaker


def test_when_its_time_has_passed_one_caller_of_many_is_the_probe(clock: list[float]) -> None:
    breaker = opened()
    assert not breaker.admit("d-0", 15)
    clock[0] += OPEN_SECONDS
    with ThreadPoolExecutor(8) as threads:
        let_through = sum(threads.map(lambda n: breaker.admit(f"d-{n}", 15), range(100)))
    assert let_through == 1
    assert not breaker.closed(), "others are not told to come"


def test_a_probe_that_works_lets_everybody_through_and_one_that_fails_nobody(clock: list[float]) -> None:
    breaker = opened()
    clock[0] += OPEN_SECONDS
    assert breaker.admit("d-1", 15)
    breaker.failure("401", at_once=True)
    assert not breaker.admit("d-2", 15)

    clock[0] += OPEN_SECONDS
    assert breaker.admit("d-3", 15)
    breaker.success()
    assert all(breaker.admit(f"d-{n}", 15) for n in range(9))


def test_a_probe_that_was_not_made_is_the_next_ones(clock: list[float]) -> None:
    breaker = opened()
    clock[0] += OPEN_SECONDS
    assert breaker.admit("d-1", 15)
    assert breaker.admit("d-1", 15), "it may ask again"
    breaker.abandon("d-2")
    assert not breaker.admit("d-2", 15)
    breaker.abandon("d-1")
    assert breaker.admit("d-2", 15)


def test_a_probe_whose_process_never_came_back_blocks_nobody_for_ever(clock: list[float]) -> None:
    breaker = opened()
    clock[0] += OPEN_SECONDS
    assert breaker.admit("d-1", 15)
    clock[0] += 15
    assert breaker.admit("d-2", 15)


def test_it_says_why_and_since_when(clock: list[float]) -> None:
    breaker = opened()
    begun = clock[0]
    clock[0] += 60
    breaker.failure("403", at_once=True)
    assert breaker.trouble is not None
    assert (breaker.trouble.code, breaker.trouble.since) == ("403", begun)
    breaker.success()
    assert breaker.trouble is None


def test_a_process_that_has_heard_of_trouble_makes_one_call_and_one_that_knows_better_goes_on(
    clock: list[float],
) -> None:
    heard, works = Breaker(), Breaker()
    works.success()
    for breaker in (heard, works):
        breaker.warn()
    assert [heard.admit(f"d-{n}", 15) for n in range(3)] == [True, False, False]
    assert [works.admit(f"d-{n}", 15) for n in range(3)] == [True] * 3
    heard.failure("connect")
    assert heard.trouble is not None, "one failure is enough, where others have failed before"


@pytest.mark.parametrize(
    ("error", "channel", "opens"),
    [
        (Misconfigured("401"), "sms", 1),
        (Unavailable("connect"), "sms", FAILURES_TO_OPEN),
        (Uncertain("timeout"), "sms", FAILURES_TO_OPEN),
        (Uncertain("timeout"), "webhook", None),
        (TryLater("450"), "email", None),
        (TryLater("500"), "email", FAILURES_TO_OPEN),
        (TryLater("500"), "webhook", None),
        (Throttled("429"), "sms", None),
        (Refused("400"), "sms", None),
        (AddressInvalid("410"), "sms", None),
        (OptedOut("21610"), "sms", None),
        (Unroutable("country"), "sms", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_only_what_speaks_of_the_provider_itself_opens_it(
    error: ChannelError, channel: str, opens: int | None
) -> None:
    breaker = Breaker()
    told = [judge(breaker, error, channel=channel, who="d-1") for _ in range(20)]
    assert told.index(True) + 1 == opens if opens else not any(told)
    assert told.count(True) == (1 if opens else 0), "the operator is told once"
    assert breaker.closed() == (opens is None)


@pytest.mark.parametrize(
    ("error", "closes"),
    [
        (Throttled("429"), True),
        (AddressInvalid("410"), True),
        (TryLater("503"), False),
        (Uncertain("timeout"), False),
        (Refused("too-long"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_a_probe_closes_it_only_where_the_provider_has_been_seen_to_work(
    clock: list[float],
    error: ChannelError,
    closes: bool,  # noqa: FBT001 - of the table
) -> None:
    breaker = opened()
    clock[0] += OPEN_SECONDS
    assert breaker.admit("d-1", 15)
    judge(breaker, error, channel="sms", who="d-1")
    assert breaker.open != closes
