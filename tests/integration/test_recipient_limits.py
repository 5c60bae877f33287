"""How often one person is written to: exact, shared by the fleet, and never at the cost of their address."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from itertools import count
from os import kill
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest
import redis

from notify_tasks.configuration.reading import of_document
from notify_tasks.embedded import Server
from notify_tasks.notification import Notification
from notify_tasks.rates import Rate
from notify_tasks.recipient_limits import PREFIX, RecipientLimits, Scope
from notify_tasks.states import State
from notify_tasks.store import gated, statuses
from notify_tasks.terminal.timeline import explained
from tests.integration.core_shop import Shop, shop
from tests.integration.core_world import PHONE, World, call, world

ANN = ("acme", "sms", PHONE)
NEVER_ENDS = 1e9
ids = count(1)


@pytest.fixture
def opened(broker: str) -> Iterator[Callable[[], RecipientLimits]]:
    """Limits as one process of the fleet has them."""
    with ExitStack() as stack:

        def one(url: str = broker, patience: float = 10.0) -> RecipientLimits:
            made = RecipientLimits(url, key=lambda: "a key", patience=patience)
            stack.callback(made.close)
            return made

        yield one


def take(
    limits: RecipientLimits,
    *rates: Rate,
    whom: tuple[str, str, str] = ANN,
    lifetime: float = NEVER_ENDS,
    event_type: str = "",
) -> float | None:
    scopes = [Scope(event_type, rates)]
    return limits.take(whom, scopes, delivery_id=f"d-{next(ids)}", lifetime=lifetime)


# --- the counting ---------------------------------------------------------------------------------------


def test_each_limit_holds_in_any_window_and_each_one_more_has_a_later_turn(
    opened: Callable[[], RecipientLimits],
) -> None:
    limits = opened()
    waits = [take(limits, Rate(1, 60), Rate(3, 3600)) for _ in range(6)]
    known = [wait for wait in waits if wait is not None]
    assert [round(wait) for wait in known] == [0, 60, 120, 3600, 3660, 3720]


def test_processes_count_together(opened: Callable[[], RecipientLimits]) -> None:
    four = [opened() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda n: take(four[n % 4], Rate(10, 3600)), range(40)))
    assert sum(wait == 0 for wait in found) == 10


def test_whoever_asks_again_keeps_its_turn_and_is_counted_once(opened: Callable[[], RecipientLimits]) -> None:
    limits, scopes = opened(), [Scope("", (Rate(1, 0.4),))]

    def ask(delivery_id: str) -> float | None:
        return limits.take(ANN, scopes, delivery_id=delivery_id, lifetime=NEVER_ENDS)

    assert ask("first") == 0
    waits = [ask("second") for _ in range(3)]
    assert all(0.2 < (wait or 0) <= 0.4 for wait in waits)
    time.sleep(0.45)
    assert ask("second") == 0
    assert 0.2 < (ask("third") or 0) <= 0.4, "asking four times has cost nobody else a turn"


def test_a_turn_after_the_end_is_none_and_takes_no_place(opened: Callable[[], RecipientLimits]) -> None:
    limits, hourly = opened(), Rate(1, 3600)
    assert take(limits, hourly) == 0
    assert [take(limits, hourly, lifetime=600) for _ in range(5)] == [None] * 5
    assert round(take(limits, hourly) or 0, -1) == 3600


def test_others_have_limits_of_their_own(opened: Callable[[], RecipientLimits]) -> None:
    limits, once = opened(), Rate(1, 3600)
    assert take(limits, once) == 0
    for whom in (("acme", "sms", "+4915187654321"), ("acme", "chat", PHONE), ("other", "sms", PHONE)):
        assert take(limits, once, whom=whom) == 0
    assert take(limits, once, event_type="login.code") == 0
    assert take(limits, once, event_type="login.code") != 0


def test_redis_gets_no_address_and_forgets_by_itself(
    opened: Callable[[], RecipientLimits], broker: str
) -> None:
    take(opened(), Rate(3, 60))
    with redis.Redis.from_url(broker) as client:
        (key,) = client.keys(f"{PREFIX}*")
        assert 50 < client.ttl(key) <= 62
        seen = key + b"".join(client.zrange(key, 0, -1))
    other = RecipientLimits(broker, key=lambda: "another key")
    take(other, Rate(3, 60))
    other.close()
    with redis.Redis.from_url(broker) as client:
        assert len(client.keys(f"{PREFIX}*")) == 2, "without the key the name cannot be found"
    assert PHONE.encode() not in seen
    assert PHONE[1:].encode() not in seen


def test_a_redis_that_does_not_answer_costs_a_tenth_of_a_second_and_a_process_counts_alone(
    opened: Callable[..., RecipientLimits], start_redis: Callable[[], Server]
) -> None:
    server = start_redis()
    limits, hourly = opened(server.url, patience=0.1), Rate(3, 3600)
    while take(limits, hourly) is None:  # the first answer may be slow on a busy machine
        pass
    kill(server.pid or 0, SIGSTOP)
    try:
        begun = time.monotonic()
        later = [take(limits, hourly) for _ in range(4)]
        gone = time.monotonic() - begun
    finally:
        kill(server.pid or 0, SIGCONT)
    assert [round(wait or 0, -2) for wait in later] == [0, 0, 3600, 3600]
    assert gone < 10  # a stopped server answers never


# --- in the worker --------------------------------------------------------------------------------------


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database) as made:
        yield made


@pytest.fixture
def desk(it: World, tmp_path: Path, broker: str) -> Iterator[Shop]:
    """A worker whose SMS go to one number once a minute."""
    limits = RecipientLimits(broker, key=lambda: gated.limit_key(it.db), patience=10)
    with shop(tmp_path, it.db) as made:
        made.gates._recipients = limits
        once(made)
        yield made
    limits.close()


def once(desk: Shop, **more: object) -> None:
    """Give it a configuration with a limit."""
    channel = {"pool": [{"provider": "a", "weight": 1}], "per_recipient": ["1/min"], **more}
    desk.pools.reload(
        of_document(
            {"providers": {"a": {"use": "sms.sandbox", "timeout": 10}}, "channels": {"sms": channel}}
        ),
        [],
    )


def state_of(it: World, notification: Notification) -> tuple[str, str | None, float | None]:
    (row,) = it.rows(
        "SELECT state, reason, extract(epoch FROM due_at - now())::float8 AS wait FROM notify.delivery"
        " WHERE message_id = %s",
        notification.message_id,
    )
    return row["state"], row["reason"], row["wait"]


def test_one_hop_what_is_beyond_the_limit_waits_its_turn_without_an_attempt(it: World, desk: Shop) -> None:
    desk.send(call())
    second = call()
    assert desk.take(second, "notify.sms").claimed is None
    state, reason, wait = state_of(it, second)
    assert (state, reason) == ("held", "recipient_limit")
    assert 50 < (wait or 0) <= 60
    assert len(it.rows("SELECT 1 FROM notify.attempt")) == 1
    assert "per_recipient" in explained(reason)


def test_a_stored_one_waits_too_and_goes_when_its_turn_has_come(it: World, desk: Shop, broker: str) -> None:
    desk.send(call())
    id_ = it.accept()
    outcome = desk.deliver(id_)
    assert outcome is not None
    assert (outcome.state, outcome.code) == (State.HELD, "recipient_limit")

    with redis.Redis.from_url(broker) as client:  # a minute later
        for key in client.keys(f"{PREFIX}*"):
            for member, score in client.zrange(key, 0, -1, withscores=True):
                client.zadd(key, {member: score - 61})
    it.rows("UPDATE notify.delivery SET state = 'queued', due_at = NULL WHERE id = %s", id_)
    outcome = desk.deliver(id_)
    assert outcome is not None
    assert outcome.state is State.SENT


@pytest.mark.parametrize("hop", ["one", "two"])
def test_whose_turn_comes_after_its_end_expires_now_and_says_why(it: World, desk: Shop, hop: str) -> None:
    desk.send(call())
    short = call()
    short = call(expires=short.timestamp + timedelta(seconds=20))
    if hop == "one":
        assert desk.take(short, "notify.sms").claimed is None
    else:
        outcome = desk.deliver(it.accept(short))
        assert outcome is not None
        assert (outcome.state, outcome.code) == (State.EXPIRED, "recipient_limit")
    assert state_of(it, short)[:2] == ("expired", "recipient_limit")
    (found,) = statuses.read(it.db, short.message_id).notifications
    (delivery,) = found.deliveries
    assert [(event.kind, event.code) for event in delivery.events] == [("expired", "recipient_limit")]


def test_a_retry_is_not_counted_again(it: World, desk: Shop) -> None:
    from channels.contract import TryLater  # noqa: PLC0415 - only here

    desk.scripts["a"].will(TryLater("450"))
    outcome = desk.send(call())
    assert outcome.state is State.RETRYING
    again = desk.deliver(outcome.id)
    assert again is not None
    assert again.state is State.SENT


def test_a_types_own_limit_counts_that_type_alone(it: World, desk: Shop) -> None:
    policy = desk.types / "test.ping" / "notification.toml"
    once(desk, per_recipient=["100/min"])
    policy.write_text(
        policy.read_text().replace("[payload]", '[limit]\nper_recipient = ["1/h"]\n[payload]', 1)
    )
    assert desk.send(call()).state is State.SENT
    assert desk.take(call(), "notify.sms").claimed is None
    (row,) = it.rows("SELECT reason FROM notify.delivery WHERE state = 'held'")
    assert row["reason"] == "recipient_limit"


def test_sandboxed_calls_reach_nobody_and_are_not_counted(it: World, desk: Shop) -> None:
    once(desk, sandbox="a")
    for _ in range(3):
        assert desk.send(call(sandbox=True)).state is State.SENT
    assert desk.send(call()).state is State.SENT


# --- countries ------------------------------------------------------------------------------------------


def test_a_number_of_another_country_is_refused_with_the_remedy(it: World, desk: Shop) -> None:
    once(desk, countries=["AT", "US"])
    notification = call()
    taken = desk.take(notification, "notify.sms")
    assert taken.kind == "rejected"
    (found,) = statuses.read(it.db, notification.message_id).notifications
    assert (found.state, found.reason) == ("rejected", "country_not_allowed")
    assert found.detail == (
        "the number is of DE, and channels.sms.countries has AT, US; add its country there, or use another "
        "number or channel"
    )
    assert PHONE not in str(found.plan)


def test_the_other_channels_of_a_call_go_on(it: World, desk: Shop) -> None:
    once(desk, countries=["AT"])
    both = call(to={"sms": PHONE, "push": "token-1"}, channels=["sms", "push"])
    assert desk.take(both, "notify.intake").deliveries == 1
    (found,) = statuses.read(it.db, both.message_id).notifications
    assert found.plan["dropped"] == [{"to": 0, "channel": "sms", "reason": "country_not_allowed"}]


def test_a_list_that_is_tightened_holds_for_what_waits_already(it: World, desk: Shop) -> None:
    id_ = it.accept()
    once(desk, countries=["AT"])
    outcome = desk.deliver(id_)
    assert outcome is not None
    assert (outcome.state, outcome.code) == (State.SUPPRESSED, "country_not_allowed")
    assert (it.state(id_), it.attempts(id_), it.events(id_)) == ("suppressed", [], ["suppressed"])
    assert "channels.sms.countries" in explained(outcome.code)


def test_numbers_of_fiction_are_no_countrys(it: World, desk: Shop) -> None:
    fiction = {"to": {"sms": "+15550001234"}}
    assert desk.send(call(**fiction)).state is State.SENT
    once(desk, countries=["US"], sandbox="a")
    assert desk.take(call(**fiction), "notify.sms").kind == "rejected"
    assert desk.send(call(sandbox=True, **fiction)).state is State.SENT
