"""The demo's verdict: a run as it should be passes, and each broken promise is found."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from notify_tasks.calls import build_notification
from notify_tasks.demo import cast
from notify_tasks.demo.verdict import ARRIVED, Facts, judge
from notify_tasks.routing import CHANNELS
from notify_tasks.sandbox import LoggedRequest
from notify_tasks.store.watching import Seen, Tried

RUN = "demo-1"
ORIGIN = "https://127.0.0.1:8443"
T0 = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def seen(call: cast.Call, channel: str, state: str) -> Seen:
    return Seen(
        message_id=call.message_id(RUN),
        event_type=call.event_type,
        id=uuid.uuid4(),
        recipient_id="ana",
        address="ana@example.com",
        channel=channel,
        lane="normal",
        state=state,
        reason=None,
        unknown=0,
        lease_left=None,
        due_in=None,
        not_before=None,
        number=1,
        provider="sandbox",
        worker="host:1",
        outcome="accepted",
        code="250",
    )


def request(n: int, delivery_id: str | None, channel: str) -> LoggedRequest:
    return LoggedRequest(
        protocol="smtp" if channel == "email" else "http",
        action="send",
        connection=1,
        channel=channel,
        delivery_id=delivery_id,
        n=n,
        at=T0,
        accepted=True,
        duplicate_of_key=False,
        id=f"{channel}-{n}",
        code="250",
        mode="ok",
    )


def as_it_should_be() -> Facts:
    """Everything ended well: the in-doubt one and one repeated mail were in the killed worker's hands."""
    calls = cast.calls(RUN, ORIGIN)
    rows: list[Seen] = []
    for call in calls:
        if not call.ends:
            rows.append(replace(seen(call, "", "rejected"), id=None, reason="unknown_recipient", code=None))
        for channel, ends in call.ends.items():
            state = ends[0] if channel == "sms" else ends[-1]
            rows += [seen(call, channel, state) for _ in range(call.deliveries // len(call.ends))]
    requests = [
        request(n, str(row.id), row.channel)
        for n, row in enumerate(rows)
        if row.id and row.channel != "inapp" and row.state in {*ARRIVED, "in_doubt"}
    ]
    killed = {str(row.id) for row in rows if row.message_id in {f"{RUN}-19", f"{RUN}-20"}}
    again = next(row for row in rows if row.message_id == f"{RUN}-20")
    requests.append(request(99, str(again.id), "email"))
    tried = {
        str(row.id): Tried(
            id=row.id,
            message_id=row.message_id,
            attempts=1,
            unknown=int(str(row.id) in killed),
            first_at=T0 + timedelta(seconds=9),
            in_inbox=row.channel == "inapp",
        )
        for row in rows
        if row.id
    }
    known = {it.delivery_id for it in requests if it.delivery_id}
    return Facts(RUN, calls, {1: T0, 2: T0}, rows, tried, requests, known, killed)


def row(facts: Facts, key: str, channel: str = "email") -> Seen:
    return next(it for it in facts.rows if it.message_id == f"{RUN}-{key}" and it.channel == channel)


def changed(facts: Facts, old: Seen, **changes: object) -> Facts:
    return replace(facts, rows=[replace(it, **changes) if it is old else it for it in facts.rows])


def problems(facts: Facts) -> list[str]:
    return [check.text for check in judge(facts) if not check.good]


def test_the_cast_makes_calls_that_a_producer_may_make() -> None:
    calls = cast.calls(RUN, ORIGIN)
    assert len({call.message_id(RUN) for call in calls}) == len(calls) == 36
    assert {channel for call in calls for channel in call.ends} == set(CHANNELS)
    for call in calls:
        build_notification(
            call.event_type,
            now=T0,
            to=call.to,
            payload=call.payload,
            message_id=call.message_id(RUN),
            channels=call.channels,
            priority=call.priority,
            digest=call.digest,
            cancel_key=call.cancel_key,
        )


def test_a_run_as_it_should_be_has_no_problem() -> None:
    assert problems(as_it_should_be()) == []


def test_what_was_repeated_and_what_is_in_doubt_is_said() -> None:
    said = " ".join(check.text for check in judge(as_it_should_be()))
    assert f"arrived twice: {RUN}-20" in said
    assert f"{RUN}-19 is in doubt and not sent again" in said


def lose(facts: Facts) -> Facts:
    gone = row(facts, "01")
    return replace(facts, requests=[it for it in facts.requests if it.delivery_id != str(gone.id)])


def double(facts: Facts) -> Facts:
    again = request(100, str(row(facts, "01").id), "email")
    return replace(facts, requests=[*facts.requests, again])


def double_the_repeated_call(facts: Facts) -> Facts:
    again = request(100, str(row(facts, "07").id), "email")
    return replace(facts, requests=[*facts.requests, again])


def double_at_an_idempotent_one(facts: Facts) -> Facts:
    target = row(facts, "14", "webhook")
    tried = {**facts.tried, str(target.id): replace(facts.tried[str(target.id)], unknown=1)}
    return replace(facts, tried=tried, requests=[*facts.requests, request(100, str(target.id), "webhook")])


def a_chat_post_too_many(facts: Facts) -> Facts:
    return replace(facts, requests=[*facts.requests, request(100, None, "chat")])


def no_receipt(facts: Facts) -> Facts:
    return replace(
        facts, rows=[replace(it, state="sent") if it.state == "delivered" else it for it in facts.rows]
    )


def a_stranger(facts: Facts) -> Facts:
    return replace(facts, requests=[*facts.requests, request(100, str(uuid.uuid4()), "email")])


def without_an_id(facts: Facts) -> Facts:
    return replace(facts, requests=[*facts.requests, request(100, None, "email")])


def unfinished(facts: Facts) -> Facts:
    return changed(facts, row(facts, "01"), state="queued")


def never_planned(facts: Facts) -> Facts:
    return replace(facts, rows=[it for it in facts.rows if it.message_id != f"{RUN}-12"])


def sent_to_the_bad_address(facts: Facts) -> Facts:
    return changed(facts, row(facts, "06"), state="sent")


def failed_where_it_should_be_sent(facts: Facts) -> Facts:
    return changed(facts, row(facts, "01"), state="failed")


def in_doubt_without_a_kill(facts: Facts) -> Facts:
    return replace(facts, killed={it for it in facts.killed if it != str(row(facts, "19").id)})


def too_early(facts: Facts) -> Facts:
    later = str(row(facts, "04").id)
    early = replace(facts.tried[later], first_at=T0 + timedelta(seconds=3))
    return replace(facts, tried={**facts.tried, later: early})


def not_in_the_inbox(facts: Facts) -> Facts:
    target = str(row(facts, "17", "inapp").id)
    return replace(facts, tried={**facts.tried, target: replace(facts.tried[target], in_inbox=False)})


def accepted_for_nobody(facts: Facts) -> Facts:
    rejected = next(it for it in facts.rows if it.state == "rejected")
    return changed(facts, rejected, state="accepted")


@pytest.mark.parametrize(
    "broken",
    [
        lose,
        double,
        double_the_repeated_call,
        double_at_an_idempotent_one,
        a_chat_post_too_many,
        no_receipt,
        a_stranger,
        without_an_id,
        unfinished,
        never_planned,
        sent_to_the_bad_address,
        failed_where_it_should_be_sent,
        in_doubt_without_a_kill,
        too_early,
        not_in_the_inbox,
        accepted_for_nobody,
    ],
)
def test_a_broken_promise_is_found(broken: Callable[[Facts], Facts]) -> None:
    assert problems(broken(as_it_should_be())) != []
