"""What `notify status` and the demo say of a notification, as values."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from notify_tasks.store.statuses import AttemptStatus, DeliveryStatus, Event, Status
from notify_tasks.terminal import looks, timeline
from notify_tasks.terminal.output import Line

T0 = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def attempt(
    number: int, begun: float, ended: float | None, outcome: str | None, **more: str
) -> AttemptStatus:
    return AttemptStatus(
        number=number,
        provider="smtp-main",
        worker="host:12",
        started_at=after(begun),
        ended_at=None if ended is None else after(ended),
        outcome=outcome,
        code=more.get("code"),
        detail=more.get("detail"),
    )


DELIVERY = DeliveryStatus(
    id=uuid.UUID(int=1),
    recipient_id="ana",
    address="an…@example.com",
    channel="email",
    lane="normal",
    state="sent",
    reason=None,
    provider="smtp-main",
    provider_message_id=None,
    template_version="v1",
    attempts_spent=1,
    due_at=None,
    expires_at=None,
    created_at=T0,
    replay_of=None,
)


def status(delivery: DeliveryStatus, **more: object) -> Status:
    base = Status(
        id=uuid.UUID(int=2),
        message_id="m-1",
        event_type="order.shipped",
        state="accepted",
        reason=None,
        detail=None,
        source="shop",
        occurred_at=T0,
        accepted_at=T0,
        plan={},
        deliveries=[delivery],
    )
    return replace(base, **more)


def words(line: Line) -> str:
    return "".join(part if isinstance(part, str) else part.text for part in line).rstrip()


def shown(it: Status, now: float = 60) -> list[str]:
    return [words(line) for line in timeline.timeline(it, after(now))][1:]


def test_a_sent_delivery_is_one_line_with_place_answer_and_duration() -> None:
    sent = replace(
        DELIVERY,
        attempts=[attempt(1, 0.1, 0.2, "accepted", code="250 2.0.0")],
        events=[Event("sent", "250 2.0.0", None, after(0.2))],
    )
    assert shown(status(sent)) == [
        "      0 ms  ✔ accepted               1 delivery: email",
        "    200 ms  ● sent        email ana  attempt 1 via smtp-main: 250 2.0.0, 100 ms",
    ]


def test_what_the_provider_reported_later_is_told_in_its_words_and_ours() -> None:
    reported = replace(
        DELIVERY,
        state="delivered",
        attempts=[attempt(1, 0.1, 0.2, "accepted", code="202")],
        events=[
            Event("sent", "202", None, after(0.2)),
            Event("undelivered", "4.2.2", "the mailbox is full", after(5)),
            Event("delivered", "delivered", None, after(6)),
            Event("read", "open", None, after(9)),
        ],
    )
    assert shown(status(reported))[2:] == [
        "     5.0 s  ✖ undelivered email ana  reported: 4.2.2, the mailbox is full",
        "     6.0 s  ✔ delivered   email ana  reported: delivered",
        "     9.0 s  ✔ read        email ana  reported: open",
    ]


def test_a_doubt_that_a_receipt_resolved_is_told() -> None:
    resolved = replace(
        DELIVERY,
        attempts=[attempt(1, 0.1, 0.2, "uncertain", code="reset")],
        events=[Event("in_doubt", "reset", None, after(0.2)), Event("sent", "queued", None, after(3))],
    )
    assert shown(status(resolved))[2] == "     3.0 s  ● sent        email ana  reported: queued"


def test_a_lost_attempt_tells_who_had_it_and_that_it_is_sent_again() -> None:
    lost = replace(
        DELIVERY,
        attempts=[
            attempt(1, 0.1, 40, "lost", code="lease_expired"),
            attempt(2, 40.5, 41, "accepted", code="250"),
        ],
        events=[
            Event("lease_ended", "lease_expired", None, after(40)),
            Event("sent", "250", None, after(41)),
        ],
    )
    begun, gone, sent = shown(status(lost))[1:]
    assert "sending" in begun
    assert "host:12" in begun
    assert "? lost" in gone
    assert "outcome is unknown, and it is queued again" in gone
    assert "● sent" in sent
    assert "attempt 2" in sent


def test_a_doubt_that_is_held_is_not_called_lost() -> None:
    doubt = replace(
        DELIVERY,
        state="in_doubt",
        attempts=[attempt(1, 0.1, 40, "lost", code="lease_expired")],
        events=[Event("in_doubt", "lease_expired", None, after(40))],
    )
    line = shown(status(doubt))[-1]
    assert "? in doubt" in line
    assert "queued again" not in line


def test_what_comes_next_is_said_with_the_time_left() -> None:
    held = replace(DELIVERY, state="held", reason="scheduled", due_at=after(90), provider=None)
    assert shown(status(held), now=60)[-1].endswith("(in 30 s), scheduled")
    queued = replace(DELIVERY, state="queued")
    assert "waits for a worker on notify.email" in shown(status(queued))[-1]
    retrying = replace(
        DELIVERY,
        state="retrying",
        reason="450",
        due_at=after(70),
        attempts=[attempt(1, 0, 1, "try_later", code="450", detail="greylisted")],
    )
    tried, next_ = shown(status(retrying), now=60)[1:]
    assert "↻ retrying" in tried
    assert "450, greylisted, 1.0 s" in tried
    assert "(in 10 s), 450" in next_


def test_a_rejected_call_says_why() -> None:
    it = status(
        DELIVERY, state="rejected", reason="unknown_recipient", detail="nobody has this id", deliveries=[]
    )
    assert shown(it) == ["      0 ms  ✖ rejected    unknown_recipient: nobody has this id"]


def test_every_state_has_a_mark_and_a_colour_for_both_backgrounds() -> None:
    for name in looks.MARKS:
        dark, light = looks.colour(name, {}), looks.colour(name, {"COLORFGBG": "0;15"})
        assert dark != light
        assert dark.startswith("#")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 ms"),
        (0.0804, "80 ms"),
        (0.9996, "1.0 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (7440, "2 h 4 min"),
        (86400, "1 d"),
        (-5, "-5.0 s"),
    ],
)
def test_durations_have_units(seconds: float, said: str) -> None:
    assert looks.duration(seconds) == said


def test_counts_agree_with_their_nouns() -> None:
    assert looks.counted(1, "delivery") == "1 delivery"
    assert looks.counted(0, "delivery") == "0 deliveries"
    assert looks.counted(2, "mail") == "2 mails"
    assert looks.counted(2, "day") == "2 days"
