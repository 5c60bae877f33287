"""Asking why and when on the command line: simulate, explain, reschedule, cancel --key, --at-local; as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from notify_tasks.fleet import Fleet
from tests.acceptance.test_cli import PAYLOAD, Notify, notify, servers, worker

__all__ = ["notify", "servers", "worker"]

SEND = ("send", "order.shipped", "--to", "user-42", "--payload", PAYLOAD, "--channel", "inapp")


@pytest.fixture
def person(notify: Notify, servers: None) -> None:
    assert notify("recipients", "add", "user-42", "--timezone", "Europe/Berlin").status == 0


def test_a_simulation_is_a_table_with_sentences_and_sends_nothing(notify: Notify, person: None) -> None:
    call = ("order.shipped", "--to", "user-42", "--payload", PAYLOAD, "--channel", "inapp")

    said = notify("simulate", *call, "--at-local", "2030-05-01T08:00", "--now", "2030-04-30T12:00Z")

    assert said.status == 0
    head, columns, row, *_ = said.out.splitlines()
    assert head.startswith("order.shipped  called for at 2030-04-30 12:00:00 UTC; nothing is sent or stored")
    assert columns.split() == ["to", "channel", "address", "plan", "when", "why"]
    assert row.split() == [
        "user-42", "inapp", "user-42", "◷", "held", "2030-05-01", "06:00:00", "UTC", "local_time,", "scheduled",
    ]  # fmt: skip
    assert (
        "inapp to user-42: It would be held until 2030-05-01 06:00:00 UTC, because the call's time is read"
        in said.out
    )
    assert "1 delivery would go out" in said.out

    made = json.loads(notify("simulate", *call, "--json").out)
    assert (made["state"], made["decisions"][0]["state"]) == ("accepted", "queued")
    bad = notify("simulate", "order.shipped", "--to", "user-42", "--payload", "{}", "--channel", "inapp")
    assert bad.status == 1
    assert "It would be rejected, because the payload does not fit the type" in bad.out


def test_a_call_is_scheduled_on_their_clock_moved_and_explained(
    notify: Notify, person: None, worker: Callable[[], Fleet]
) -> None:
    assert notify(*SEND, "--id", "m-1", "--at-local", "2030-05-01T08:00").status == 0
    early = notify("reschedule", "m-1", "--at-local", "2030-05-02T08:00")
    assert (early.status, early.out) == (0, "it waits in the intake table: it is planned for the new time\n")
    worker()

    moved = notify("reschedule", "m-1", "--at", "2030-05-03T09:30+02:00")
    now = notify("reschedule", "m-1", "--at", "+0s")
    worker()
    late = notify("reschedule", "m-1", "--at", "+1h")

    assert moved.status == 0
    assert "inapp to user-42  goes at 2030-05-03 07:30:00 UTC" in moved.out
    assert moved.out.endswith("1 delivery moved\n")
    worker()
    assert now.status == 0
    assert late.status == 1
    assert "0 deliveries moved; 1 too late: sent, being sent, due already, or ended" in late.out
    unknown = notify("reschedule", "m-9", "--at", "+1h")
    assert unknown.status == 1
    assert "If it is still in Redis, its time cannot be changed there" in unknown.err

    told = notify("explain", "m-1")
    assert told.status == 0
    assert "It was planned to be held until 2030-05-02 06:00:00 UTC" in told.out
    assert "It was given another time at" in told.out
    assert "Now it has arrived." in told.out or "Now it is sent" in told.out


def test_everything_under_a_key_is_cancelled(
    notify: Notify, person: None, worker: Callable[[], Fleet]
) -> None:
    for n in range(3):
        assert notify(*SEND, "--id", f"m-{n}", "--cancel-key", "order-981", "--at", "+1h").status == 0
    worker()
    notify(*SEND, "--id", "m-3", "--cancel-key", "order-981", "--at", "+1h")

    done = notify("cancel", "--key", "order-981")

    assert (done.status, done.out) == (0, "3 deliveries cancelled; 1 call stopped before being planned\n")
    assert "is still on its way to a worker will not be sent either, until" in " ".join(done.err.split())
    assert "It was cancelled at" in notify("explain", "m-0").out
    assert "before any worker had planned it" in notify("explain", "m-3").out
    for wrong in (("cancel",), ("cancel", "m-0", "--key", "order-981")):
        mistake = notify(*wrong)
        assert mistake.status == 2
        assert "Write notify cancel ID, or notify cancel --key KEY" in mistake.err


def test_a_person_is_explained_call_by_call(
    notify: Notify, person: None, worker: Callable[[], Fleet]
) -> None:
    notify(*SEND, "--id", "m-1")
    notify("send", "order.shipped", "--to", "user-42", "--payload", "{}", "--id", "m-2")
    worker()

    told = notify("explain", "user-42", "--type", "order.shipped", "--since", "2d")

    assert told.status == 0
    assert {line for line in told.out.splitlines() if line.startswith("m-")} == {
        "m-1  order.shipped", "m-2  order.shipped",
    }  # fmt: skip
    assert "because the payload does not fit the type" in told.out
    assert {each["message_id"] for each in json.loads(notify("explain", "user-42", "--json").out)} == {
        "m-1",
        "m-2",
    }
    nobody = notify("explain", "user-99")
    assert nobody.status == 1
    assert "nothing is known of user-99 (tenant default) since" in nobody.err
    assert notify("explain", "user-42", "--since", "soon").status == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--at", "2020-01-01T00:00Z"), "at: it has passed already"),
        (("--at-local", "2020-01-01T00:00"), "passed everywhere on earth"),
        (("--at-local", "2030-05-01T08:00+02:00"), "--at-local: a local time has no zone"),
        (("--at-local", "2030-05-01T08:00", "--at", "+1h"), "--at is given as well"),
        (("--at", "+2h", "--expires", "+1h"), "expires: it is not after `at`"),
    ],
)
def test_times_that_cannot_be_are_told_at_once(
    notify: Notify, servers: None, words: tuple[str, ...], said: str
) -> None:
    wrong = notify(*SEND, *words)
    assert wrong.status == 2
    assert said in wrong.err
