"""What waits behind a closed gate costs next to nothing, holds nobody else up, and flows when the gate opens."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from pathlib import Path

import pytest
from faults.accounting import Ledgers, account, send
from faults.backlog import Backlog, backlogged, effects, fill, most_in_a_second, provider
from faults.fleet import RunningFleet
from faults.real import leaves_out, real_fleet, real_provider
from faults.test_kills import all_done

from notify_tasks.breaker import FAILURES_TO_OPEN, OPEN_SECONDS
from notify_tasks.gates import LOOKS_A_SECOND
from notify_tasks.producer import send_notification

log = logging.getLogger(__name__)

PROCESSES = 2
THREADS = 8
OTHER = {"smtp": "sendgrid", "sendgrid": "smtp"}
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
            30,
        )
        and it.fleet.rows("SELECT id::text FROM notify.delivery WHERE message_id = %s", result.id)[0]
    )
    it.fleet.wait(
        "the password reset is at b",
        lambda: any(request.delivery_id == id_ for request in effects(it.b)),
        30,
    )
    (request,) = [request for request in effects(it.b) if request.delivery_id == id_]
    assert request.delivery_id not in before
    return request.at.timestamp() - begun


@pytest.mark.parametrize(
    ("count", "seconds"),
    [(1_000, 1.5), pytest.param(100_000, 60, marks=[pytest.mark.long, pytest.mark.timeout(1800)])],
    ids=["share", "whole"],
)
def test_a_backlog_behind_a_closed_gate_is_left_alone_and_flows_when_it_opens(
    tmp_path: Path, count: int, seconds: float
) -> None:
    whole = count > 10_000
    with backlogged(tmp_path, ALONE) as it:
        # Given a provider that is down, and everything waiting for it,
        it.a.set_mode("sms", "refuse")
        fill(it.fleet, count)
        it.fleet.wait(
            "all of it waits",
            lambda: it.reasons().get("held no_provider_ready", 0) > 0.98 * count,
            30 + count / 300,
        )

        # when time passes,
        before, begun = it.work(settle=whole), time.monotonic()
        time.sleep(seconds)
        done = it.work(settle=whole).since(before)
        gone = time.monotonic() - begun

        # then a few rows a second are looked at, and a probe is made now and then.
        looked = LOOKS_A_SECOND * PROCESSES * gone
        probes = PROCESSES * (gone / OPEN_SECONDS + 1)
        log.info("behind an open breaker, %d rows for %.0f s: %s", count, gone, done)
        assert done.updates <= 2.5 * looked + 50, done
        assert it.due_within(10) <= 2.5 * LOOKS_A_SECOND * PROCESSES * 10 + 50
        assert not whole or done.commits <= 60 * gone + 100, done
        assert done.attempts <= probes, done
        assert before.attempts <= PROCESSES * (FAILURES_TO_OPEN + THREADS) + 2 * probes + count / 1000

        # When another provider is added, which takes 20 a second, then it all flows there,
        it.reconfigure(TWO)
        added = time.monotonic()
        it.fleet.wait("the first ones are sent", lambda: len(effects(it.b)) > 15, 30)
        assert time.monotonic() - added < 30, "not after the old waits"
        it.fleet.wait(
            "all of it has its turn",
            lambda: it.reasons().get("held rate:b", 0) > 0.9 * (count - it.sent()),
            10 + count / 200,
        )
        # and whose turn has not come is left alone, while a password reset goes past all of it.
        before, begun, sent = it.work(settle=whole), time.monotonic(), it.sent()
        took = []
        while time.monotonic() - begun < seconds:
            took.append(password_reset(it, len(took)))
            time.sleep(0.5)
        done = it.work(settle=whole).since(before)
        went, gone = it.sent() - sent, time.monotonic() - begun
        log.info(
            "behind a rate, %d rows for %.0f s: %s, %d sent, resets %.2f s at most",
            count,
            gone,
            done,
            went,
            max(took),
        )
        assert max(took) < (1.0 if whole else 10.0), (
            took
        )  # of fifty, behind the others; the machine may be busy
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
        enough = min(count, 20_000)
        it.fleet.wait("it flows", lambda: it.sent() >= enough, 0.5 * enough / 20)  # half of the old waits
        log.info("%d of it %.1f s after the provider was back", enough, time.monotonic() - back)
        all_sent = [request.delivery_id for request in (*effects(it.a), *effects(it.b))]
        assert len(all_sent) == len(set(all_sent)) >= enough


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("down", "mode"), [("smtp", "refuse"), ("sendgrid", "503"), ("sendgrid", "500")])
def test_one_of_two_email_providers_is_down_and_all_goes_through_the_other(
    tmp_path: Path, down: str, mode: str
) -> None:
    first, then = 1_000, 3_000  # fewer, and chance alone would be past three points now and then
    pool = 'pool = [{ provider = "smtp", weight = 70 }, { provider = "sendgrid", weight = 30 }]\n'
    tables = real_provider("smtp", timeout=5) + real_provider("sendgrid", timeout=5)
    with real_fleet(tmp_path, f"{tables}[channels.email]\n{pool}", ["email"]) as fleet:
        # Given one of them that takes nothing,
        fleet.sandbox.set_mode(down, mode)
        ledgers = Ledgers()
        begun = time.monotonic()
        ids = [send(ledgers, n, ("email",)) for n in range(first)]
        fleet.wait("all of it ends", lambda: all_done(fleet, ledgers), 120)
        gone = time.monotonic() - begun

        # then all of it has gone through the other, once; but what had met a lost answer is held, as its type says.
        by = ends(fleet, ids)
        log.info("%s %s: %s", down, mode, dict(by))
        assert set(by) <= {("sent", OTHER[down]), ("in_doubt", down)}
        unknown = by["in_doubt", down]
        assert (unknown > 0) == (mode == "500"), "503 and a closed port are a no"
        probes = PROCESSES * (gone / OPEN_SECONDS + 1)
        assert unknown <= PROCESSES * (FAILURES_TO_OPEN + THREADS) + probes, (
            "until breakers open; then probes"
        )
        assert account(fleet, ledgers).problems == []

        # When it is back, and whoever left it out has noticed,
        fleet.sandbox.clear_modes(down)
        n = first
        while leaves_out(fleet, down):
            assert n < 2 * first, "it is left out for ever"
            send(ledgers, n, ("email",))
            n += 1
            time.sleep(0.05)  # a trickle: each may be the probe
        fleet.wait("quiet", lambda: all_done(fleet, ledgers), 30)

        # then the weights are kept again, however much comes at once, and nothing has gone twice.
        begun = time.monotonic()
        ids = [send(ledgers, n + extra, ("email",)) for extra in range(then)]
        fleet.wait("all of it ends", lambda: all_done(fleet, ledgers), 120)
        by = ends(fleet, ids)
        log.info(
            "%s %s: %s on return, %d drawn for smtp, in %.1f s",
            down,
            mode,
            dict(by),
            drawn(fleet, ids, 0.7),
            time.monotonic() - begun,
        )
        assert by["sent", "smtp"] + by["sent", "sendgrid"] == then
        assert by["sent", "smtp"] == pytest.approx(drawn(fleet, ids, 0.7), abs=then / 100), "few substitutes"
        assert abs(by["sent", "smtp"] / then - 0.7) < 0.03
        assert account(fleet, ledgers).problems == []


def ends(fleet: RunningFleet, ids: list[str]) -> Counter[tuple[str, str]]:
    """How many of these ended in which state, at which provider."""
    rows = fleet.rows("SELECT state, provider FROM notify.delivery WHERE message_id = ANY(%s)", ids)
    return Counter((str(state), str(provider)) for state, provider in rows)


def drawn(fleet: RunningFleet, ids: list[str], share: float) -> int:
    """For how many of these the first of the pool's providers is the first choice, as their ids draw it."""
    rows = fleet.rows("SELECT id::text FROM notify.delivery WHERE message_id = ANY(%s)", ids)
    points = [int.from_bytes(hashlib.sha256(str(id_).encode()).digest()[:8]) / 2**64 for (id_,) in rows]
    return sum(point < share for point in points)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("count", "rate"), [(3_000, 50)])
def test_two_workers_keep_twilios_rate_in_every_second(tmp_path: Path, count: int, rate: int) -> None:
    table = real_provider("twilio", timeout=5, rate=f"{rate}/s")
    with real_fleet(tmp_path, table + '[channels.sms]\npool = ["twilio"]\n', ["sms"]) as fleet:
        fleet.sandbox.plan_receipts("twilio", on=False)
        fill(fleet, count // 2)
        fill(fleet, count // 2, lane="high")
        begun = time.monotonic()
        fleet.wait("all of it is sent", lambda: fleet.unfinished() == 0, 4 * count / rate)
        gone = time.monotonic() - begun
        seen = effects(fleet.sandbox)
        most = most_in_a_second(seen)
        log.info(
            "%d at %d/s: %d in the fullest second, %.1f/s overall", len(seen), rate, most, len(seen) / gone
        )
        assert {request.protocol for request in seen} == {"twilio"}
        workers = {str(name) for (name,) in fleet.rows("SELECT DISTINCT worker FROM notify.attempt")}
        assert len(workers) == PROCESSES, "both had their part"
        assert most <= 1.01 * rate
        assert len(seen) == len({request.delivery_id for request in seen}) == count
