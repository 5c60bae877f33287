"""An operator at a running fleet: the kill switch, replays of many, doubts, and what `notify top` shows of it."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest
from faults.fleet import RunningFleet, beat, running_fleet, workers

from notify_tasks import send_notification, settings
from notify_tasks.cli import main
from notify_tasks.gates import PAUSES_READ_SECONDS
from notify_tasks.routing import PURGE_TASK

NOTIFY = Path(sys.executable).with_name("notify")
PHONE = "+4915112345678"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    with (
        running_fleet(tmp_path_factory.mktemp("operating"), [*workers(threads=4), beat()]) as running,
        pytest.MonkeyPatch.context() as here,
    ):
        for name, value in running.environment.items():
            here.setenv(name, value)
        yield running


def notify(*words: str, status: int = 0) -> str:
    """Type a command; what it said."""
    settings.reset()
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        ended = main(words)
    assert ended == status, (words, out.getvalue(), err.getvalue())
    return out.getvalue() + err.getvalue()


def send(count: int, event_type: str = "fault.ping", **options: object) -> list[str]:
    given = {"to": {"sms": PHONE}, "payload": {"n": 1}} | options
    return [send_notification.delay(event_type, **given).message_id for _ in range(count)]  # type: ignore[arg-type]


def accepted(fleet: RunningFleet) -> list[str]:
    """Ids of the deliveries that the far end has taken, each as often as it has."""
    return [it.delivery_id for it in fleet.sandbox.requests() if it.accepted and it.delivery_id]


def wait_sent(fleet: RunningFleet, ids: list[str]) -> None:
    """Until each of these calls has its one delivery, and that is sent; and nothing else is under way."""
    asked = "SELECT count(*) FROM notify.delivery WHERE state = 'sent' AND message_id = ANY(%s)"
    fleet.wait("they are sent", lambda: fleet.rows(asked, ids) == [(len(ids),)], 60)
    fleet.wait("nothing is under way", lambda: fleet.unfinished() == 0, 60)


def states(fleet: RunningFleet) -> dict[str, int]:
    return {
        str(state): int(str(n))
        for state, n in fleet.rows("SELECT state, count(*) FROM notify.delivery GROUP BY 1")
    }


def test_a_pause_in_mid_run_holds_everything_and_loses_nothing(fleet: RunningFleet) -> None:
    # Given calls under way over one hop and over two,
    before = [*send(30), *send(30, to={"sms": PHONE, "chat": "room"})]
    fleet.wait("some are sent", lambda: len(accepted(fleet)) >= 10, 60)

    # when their type is paused,
    said = notify("pause", "--type", "fault.ping", "--reason", "incident 7")
    assert "type fault.ping is paused" in said
    time.sleep(2 * PAUSES_READ_SECONDS)  # by then every worker knows
    fleet.wait("what was being sent is sent", lambda: "sending" not in states(fleet), 60)
    gone = len(accepted(fleet))

    # then nothing more goes out, of what was under way or of what comes meanwhile,
    meanwhile = [*send(20), *send(5, priority="high")]
    fleet.wait("all are planned", lambda: fleet.known() == len(before) + len(meanwhile), 60)
    fleet.wait("all is held", lambda: not set(states(fleet)) - {"held", "queued", "sent"}, 60)
    assert len(accepted(fleet)) == gone
    assert states(fleet).get("held", 0) >= 20
    assert re.search(r"type +fault\.ping .*\d+ .* incident 7", notify("pause", "--list"))
    assert "◷ pauses      type fault.ping since" in notify("doctor")
    assert re.search(r"paused type fault\.ping .* \d+ held: incident 7", notify("top", "--once"))
    assert len(accepted(fleet)) == gone

    # and when it is resumed, each arrives once.
    assert "go within seconds" in notify("resume", "--type", "fault.ping")
    fleet.wait("all end", lambda: fleet.unfinished() == 0, 60)
    assert states(fleet) == {"sent": 30 + 60 + 25}
    assert len(accepted(fleet)) == len(set(accepted(fleet))) == 30 + 60 + 25


def test_what_failed_is_sent_again_by_a_filter_once(fleet: RunningFleet) -> None:
    # Given deliveries that failed and some that were sent,
    ids = send(12)
    wait_sent(fleet, ids)
    fleet.rows("UPDATE notify.delivery SET state = 'failed' WHERE message_id = ANY(%s) RETURNING id", ids)
    taken = len(accepted(fleet))

    # when the operator looks first, then nothing is sent; without a yes neither.
    words = ("replay", "--where", "type=fault.ping channel=sms since=1h")
    dry = notify(*words, "--dry-run")
    assert re.search(r"12 +✖ failed +fault\.ping +sms +far-sms", dry)
    assert "12 deliveries would be sent again" in dry
    assert "replay: there is no terminal to ask" in notify(*words, status=2)
    assert "Did you mean channel?" in notify("replay", "--where", "chanel=sms", status=2)
    assert "notify in-doubt resolve" in notify("replay", "--where", "state=in_doubt", status=2)
    assert fleet.unfinished() == 0

    # when it is meant, then each goes out again, once.
    assert "12 deliveries queued again" in notify(*words, "--yes")
    assert "nothing to replay" in notify(*words, "--yes", status=1)
    fleet.wait("they are sent", lambda: fleet.unfinished() == 0, 60)
    assert len(accepted(fleet)) == taken + 12


def test_what_expired_is_sent_again_only_with_a_new_expiry(fleet: RunningFleet) -> None:
    ids = send(3)
    wait_sent(fleet, ids)
    fleet.rows("UPDATE notify.delivery SET state = 'expired' WHERE message_id = ANY(%s) RETURNING id", ids)
    words = ("replay", "--where", "state=expired", "--yes")
    assert "--expires: 3 deliveries of them expired" in notify(*words, status=2)
    assert "3 deliveries queued again" in notify(*words, "--expires", "2h")


def test_doubts_are_listed_shown_and_settled(fleet: RunningFleet) -> None:
    # Given two deliveries of which nobody knows,
    ids = send(2)
    wait_sent(fleet, ids)
    rows = fleet.rows(
        "UPDATE notify.delivery SET state = 'in_doubt', unknown = 1 WHERE message_id = ANY(%s) RETURNING id",
        ids,
    )
    first, second = (str(row[0]) for row in rows)
    listed = notify("in-doubt", "list")
    assert first in listed
    assert PHONE not in listed
    assert first in notify("in-doubt", "show", first)

    # when one is settled by its id and the other by a filter, then they are, and who did it is kept.
    assert "no terminal to ask" in notify(
        "in-doubt", "resolve", "--where", "channel=sms", "--as", "sent", "--why", "x", status=2
    )
    assert "settled as sent" in notify("in-doubt", "resolve", first, "--as", "sent", "--why", "seen")
    resend = ("in-doubt", "resolve", "--where", "provider=far-*", "--as", "resend", "--why", "lost", "--yes")
    assert "1 delivery settled as failed, and queued again" in notify(*resend)
    fleet.wait("it is sent", lambda: fleet.unfinished() == 0, 60)
    assert "nothing is in doubt" in notify("in-doubt", "list")
    by = fleet.rows(
        "SELECT detail FROM notify.status_event WHERE code = 'operator' AND delivery_id = %s", second
    )
    assert re.fullmatch(r"resend by \S+@\S+: lost", str(by[0][0]))


def test_old_content_goes_by_the_tick_of_beat_and_by_hand(fleet: RunningFleet) -> None:
    # Given old notifications, when the hourly task runs in the fleet, then their content goes.
    wait_sent(fleet, send(2))
    fleet.rows("UPDATE notify.notification SET accepted_at = accepted_at - interval '8 days' RETURNING id")
    fleet.rows("UPDATE notify.delivery SET updated_at = updated_at - interval '8 days' RETURNING id")
    would = notify("purge", "--dry-run")
    assert re.search(r"\d+ notifications would be blanked", would)
    publish = f"from notify_tasks.celery import app; app.send_task({PURGE_TASK!r})"
    subprocess.run([sys.executable, "-c", publish], env=fleet.environment, check=True, timeout=60)

    def blank() -> bool:
        return fleet.rows("SELECT count(*) FROM notify.notification WHERE purged_at IS NULL") == [(0,)]

    fleet.wait("their content goes", blank, 60)
    assert fleet.rows("SELECT count(*) FROM notify.delivery WHERE address <> ''") == [(0,)]
    assert "nothing is too old" in notify("purge", "--yes")


def test_top_shows_the_fleet_to_machines(fleet: RunningFleet) -> None:
    send(3)
    seen = json.loads(notify("top", "--json"))
    assert (seen["redis"], seen["postgres"]) == (None, None)
    sms = next(it for it in seen["queues"] if it["name"] == "notify.sms")
    assert sms["consumers"] == 2
    assert {it["name"] for it in seen["channels"]} >= {"sms", "email"}
    assert {it["name"]: it["trouble"] for it in seen["providers"]}["far-sms"] == ""
    assert seen["facts"]["beat_age"] < 60


def test_top_on_a_terminal_goes_on_without_redis_and_ends_with_q(fleet: RunningFleet) -> None:
    with terminal(fleet, "top") as screen:
        screen.wait_for("accepted")
        screen.wait_for("notify.sms")
        # when Redis stops, that is shown, and it goes on,
        fleet.redis.kill(signal.SIGKILL)
        screen.wait_for("Redis: no answer")
        # and once it is back, that is, too.
        fleet.redis.start()
        screen.wait_for("accepted", absent="Redis: no answer")
        screen.press("q")
        assert screen.ended() == 0


class Screen:
    """A command on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], number: int) -> None:
        self._process = process
        self._number = number
        self.text = ""

    def read(self, seconds: float) -> None:
        ready, _, _ = select.select([self._number], [], [], seconds)
        if ready:
            with suppress(OSError):  # it has ended, and its terminal with it
                self.text += os.read(self._number, 65536).decode(errors="replace")

    def wait_for(self, word: str, absent: str = "\0") -> None:
        """Until a screen that is drawn from now on has a word, and does not have another."""
        self.text = ""
        deadline = time.monotonic() + 60
        while True:
            frames = self.text.split("\x1b[H")[1:-1]
            if any(word in frame and absent not in frame for frame in frames):
                return
            assert time.monotonic() < deadline, f"{word!r} is not to be seen in {self.text[-3000:]!r}"
            self.read(0.5)

    def press(self, key: str) -> None:
        os.write(self._number, key.encode())

    def ended(self) -> int:
        deadline = time.monotonic() + 30
        while self._process.poll() is None:
            assert time.monotonic() < deadline
            self.read(0.1)
        return self._process.returncode


@contextmanager
def terminal(fleet: RunningFleet, *words: str) -> Iterator[Screen]:
    """Type a command on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [NOTIFY, *words],
        env=fleet.environment | {"TERM": "xterm-256color", "COLUMNS": "140", "LINES": "45"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Screen(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
