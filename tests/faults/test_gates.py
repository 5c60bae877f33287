"""What waits behind a closed gate costs next to nothing, holds nobody else up, and flows when the gate opens."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from faults.accounting import Ledgers, send
from faults.backlog import Backlog, backlogged, effects, most_in_a_second, provider

from notify_tasks.breaker import FAILURES_TO_OPEN, OPEN_SECONDS
from notify_tasks.gates import LOOKS_A_SECOND
from notify_tasks.producer import send_notification

log = logging.getLogger(__name__)

PROCESSES = 2
A = provider("a", "{a}", timeout=5)
B = provider("b", "{b}", timeout=5, rate="20/s")
ALONE = A + '[channels.sms]\npool = ["a"]\n'
TWO = A + B + '[channels.sms]\npool = [{ provider = "a", weight = 1 }, { provider = "b", weight = 0 }]\n'


def password_reset(it: Backlog, n: int) -> float:
    """Send one in the high lane by the usual way; returns the seconds until the far end `b` had it."""
    before = {request.delivery_id for request in effects(it.b)}
    begun = time.time()
    result = send_notification.delay(
        "fault.ping", to={"sms": f"+44770090{n:04d}"}, payload={"n": n}, channels=["sms"], priority="high"
    )
    (id_,) = (
        it.fleet.wait(
            "the password reset is stored",
            lambda: bool(it.fleet.rows("SELECT 1 FROM notify.delivery WHERE message_id = %s", result.id)),
            10,
        )
        and it.fleet.rows("SELECT id::text FROM notify.delivery WHERE message_id = %s", result.id)[0]
    )
    it.fleet.wait(
        "the password reset is at b",
        lambda: any(request.delivery_id == id_ for request in effects(it.b)),
        20,
    )
    (request,) = [request for request in effects(it.b) if request.delivery_id == id_]
    assert request.delivery_id not in before
    return request.at.timestamp() - begun


@pytest.mark.parametrize(
    ("count", "seconds"),
    [(3_000, 2), pytest.param(100_000, 60, marks=[pytest.mark.long, pytest.mark.timeout(1800)])],
    ids=["share", "whole"],
)
def test_a_backlog_behind_a_closed_gate_is_left_alone_and_flows_when_it_opens(
    tmp_path: Path, count: int, seconds: float
) -> None:
    with backlogged(tmp_path, ALONE) as it:
        # Given a provider that is down, and everything waiting for it,
        it.a.set_mode("sms", "refuse")
        it.fill(count)
        it.fleet.wait(
            "all of it waits",
            lambda: it.reasons().get("held no_provider_ready", 0) > 0.98 * count,
            30 + count / 300,
        )

        # when time passes,
        before, begun = it.work(2 * count), time.monotonic()
        time.sleep(seconds)
        done = it.work().since(before)
        gone = time.monotonic() - begun

        # then a few rows a second are looked at, and a probe is made now and then.
        looked = LOOKS_A_SECOND * PROCESSES * gone
        probes = PROCESSES * (gone / OPEN_SECONDS + 1)
        log.info("behind an open breaker, %d rows for %.0f s: %s", count, gone, done)
        assert done.updates <= 2.5 * looked + 50, done
        assert done.commits <= 60 * gone + 100, done
        assert done.attempts <= probes, done
        assert before.attempts <= PROCESSES * (FAILURES_TO_OPEN + 8) + 2 * probes + count / 1000

        # When another provider is added, which takes 20 a second, then it all flows there,
        it.reconfigure(TWO)
        added = time.monotonic()
        it.fleet.wait("the first ones are sent", lambda: len(effects(it.b)) > 15, 15)
        assert time.monotonic() - added < 10, "not after the old waits"
        it.fleet.wait(
            "all of it has its turn",
            lambda: it.reasons().get("held rate:b", 0) > 0.9 * count,
            30 + count / 200,
        )
        # and whose turn has not come is left alone, while a password reset goes past all of it.
        before, begun, sent = it.work(3.6 * count), time.monotonic(), it.sent()
        took = []
        while time.monotonic() - begun < seconds:
            took.append(password_reset(it, len(took)))
            time.sleep(0.5)
        done = it.work().since(before)
        went, gone = it.sent() - sent, time.monotonic() - begun
        log.info(
            "behind a rate, %d rows for %.0f s: %s, %d sent, resets %.2f s at most",
            count,
            gone,
            done,
            went,
            max(took),
        )
        assert max(took) < 1.0, took
        assert most_in_a_second(effects(it.b)) <= 20
        # (due, claimed, recorded; and once more for whoever came too late for its turn) by the rate, however many wait.
        assert done.updates <= 12 * 20 * gone + 100, (done, went)
        assert done.attempts <= went + probes + 20, (done, went)

        # When the first provider is back, it flows there at once, and nothing goes twice.
        it.a.clear_modes("sms")
        back = time.monotonic()
        it.fleet.wait("the first ones are sent", lambda: len(effects(it.a)) > 50, 30)
        log.info("flows %.1f s after the provider was back", time.monotonic() - back)
        assert time.monotonic() - back < 2 * OPEN_SECONDS, "not after the old waits"
        enough = 600 if count < 10_000 else 20_000
        it.fleet.wait("it flows", lambda: it.sent() >= enough, 60 + enough / 40)
        log.info("%d of it %.1f s after the provider was back", enough, time.monotonic() - back)
        all_sent = [request.delivery_id for request in (*effects(it.a), *effects(it.b))]
        assert len(all_sent) == len(set(all_sent)) >= enough


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("count", "mode"), [(2_000, "refuse"), (2_000, "500")])
def test_one_of_two_providers_is_down_and_all_goes_through_the_other(
    tmp_path: Path, count: int, mode: str
) -> None:
    shares = (
        provider("a", "{a}", timeout=5)
        + provider("b", "{b}", timeout=5)
        + '[channels.sms]\npool = [{ provider = "a", weight = 70 }, { provider = "b", weight = 30 }]\n'
    )
    with backlogged(tmp_path, shares) as it:
        # Given one of them that takes nothing,
        it.a.set_mode("sms", mode)
        ledgers = Ledgers()
        for n in range(count // 2):
            send(ledgers, n, ("sms",))
        it.fleet.wait("all of it is sent", lambda: it.sent() == count // 2, 150)

        # then all of it has gone through the other, none of it twice,
        assert effects(it.a) == []
        through = effects(it.b)
        assert len(through) == len({request.delivery_id for request in through}) == count // 2

        # and when it is back, the weights are kept again.
        it.a.clear_modes("sms")
        n = count
        while not effects(it.a):
            send(ledgers, n, ("sms",))
            n += 1
            time.sleep(0.1)
        it.fleet.wait("quiet", lambda: it.fleet.unfinished() == 0, 30)
        time.sleep(2 * OPEN_SECONDS)  # the other worker's breaker has had a probe to close it
        send_many = []
        for extra in range(
            count
        ):  # not all at once: whose first choice has no thread free goes to the other one
            send_many.append(send(ledgers, n + 1 + extra, ("sms",)))
            time.sleep(0.01)
        it.fleet.wait("all of it is sent", lambda: it.fleet.unfinished() == 0, 120)
        rows = it.fleet.rows(
            "SELECT provider, count(*) FROM notify.delivery WHERE message_id = ANY(%s) GROUP BY 1", send_many
        )
        share = {str(name): int(str(found)) / count for name, found in rows}
        log.info("%s: %s of %d on return", mode, share, count)
        assert abs(share["a"] - 0.7) < 0.03, share


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("count", "rate"), [(3_000, 50)])
def test_two_workers_keep_a_rate_in_every_second(tmp_path: Path, count: int, rate: int) -> None:
    table = provider("a", "{a}", timeout=5, rate=f"{rate}/s")
    with backlogged(tmp_path, table + '[channels.sms]\npool = ["a"]\n') as it:
        it.fill(count // 2)
        it.fill(count // 2, lane="high")
        begun = time.monotonic()
        it.fleet.wait("all of it is sent", lambda: it.fleet.unfinished() == 0, 4 * count / rate)
        gone = time.monotonic() - begun
        seen = effects(it.a)
        most = most_in_a_second(seen)
        log.info(
            "%d at %d/s: %d in the fullest second, %.1f/s overall", len(seen), rate, most, len(seen) / gone
        )
        assert most <= 1.01 * rate
        assert len(seen) == len({request.delivery_id for request in seen}) == count
