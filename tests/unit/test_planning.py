"""The plan of a call: every recipient and channel gets a decision or a reason, whatever comes in."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify_tasks.event_type import EventType
from notify_tasks.notification import Notification, RecipientRef
from notify_tasks.planning import expiry, plan
from notify_tasks.plans import INAPP, Decision, Plan, Profile
from notify_tasks.routing import CHANNELS, LANES
from notify_tasks.states import State

NOW = datetime(2030, 5, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ORDER = EventType("order.shipped", "v1", ("email", "inapp"), lane="normal", expires=3600, attempts=5)
ANN = Profile("ann", {"email": ("ann@example.com",), "push": ("t-1", "t-2")}, locale="de")


def call(*to: RecipientRef, **options: Any) -> Notification:
    given: dict[str, Any] = {
        "message_id": "m-1",
        "event_type": "order.shipped",
        "timestamp": NOW,
        "to": to or (RecipientRef("ann"),),
    }
    return Notification(**(given | options))


def only(made: Plan) -> Decision:
    (decision,) = made.decisions
    return decision


# --- stories ------------------------------------------------------------------------------------------


def test_a_known_person_gets_the_channels_of_the_type() -> None:
    made = plan(call(), ORDER, {"ann": ANN}, frozenset(), NOW)

    assert [(it.channel, it.address, it.state, it.locale) for it in made.decisions] == [
        ("email", "ann@example.com", State.QUEUED, "de"),
        ("inapp", "ann", State.QUEUED, "de"),
    ]
    assert not made.dropped
    assert not made.rejections


def test_every_device_of_a_person_is_a_delivery() -> None:
    made = plan(call(channels=("push",)), ORDER, {"ann": ANN}, frozenset(), NOW)
    assert [it.address for it in made.decisions] == ["t-1", "t-2"]


def test_an_address_of_the_call_goes_before_the_stored_ones() -> None:
    to = RecipientRef("ann", {"email": "new@example.com", "push": "t-9"})
    made = plan(call(to, channels=("email", "push")), ORDER, {"ann": ANN}, frozenset(), NOW)
    assert [it.address for it in made.decisions] == ["new@example.com", "t-9"]


def test_an_id_that_is_stored_with_this_very_call_is_no_unknown_one() -> None:
    made = plan(call(RecipientRef("bob", {"email": "bob@example.com"})), ORDER, {}, frozenset(), NOW)
    assert [it.channel for it in made.decisions] == ["email", "inapp"]


def test_an_unknown_id_is_rejected_alone() -> None:
    made = plan(call(RecipientRef("nobody"), RecipientRef("ann")), ORDER, {"ann": ANN}, frozenset(), NOW)

    assert [(it.recipient, it.reason) for it in made.rejections] == [(0, "unknown_recipient")]
    assert {it.recipient for it in made.decisions} == {1}


def test_a_channel_without_an_address_is_dropped_and_the_others_go() -> None:
    made = plan(call(channels=("sms", "email")), ORDER, {"ann": ANN}, frozenset(), NOW)

    assert [(it.channel, it.reason) for it in made.dropped] == [("sms", "no_address")]
    assert only(made).channel == "email"


def test_somebody_without_any_address_is_rejected() -> None:
    made = plan(call(channels=("sms",)), ORDER, {"ann": ANN}, frozenset(), NOW)

    assert not made.decisions
    assert [it.reason for it in made.rejections] == ["no_address"]
    assert "sms" in made.rejections[0].detail


def test_the_inbox_belongs_to_an_id_and_not_to_a_bare_address() -> None:
    made = plan(call(RecipientRef(None, {"email": "x@example.com"})), ORDER, {}, frozenset(), NOW)

    assert only(made).channel == "email"
    assert [(it.channel, it.reason) for it in made.dropped] == [("inapp", "no_address")]


def test_one_address_named_twice_gets_one_message() -> None:
    to = (RecipientRef("ann"), RecipientRef(None, {"email": "ann@example.com"}), RecipientRef("ann"))
    made = plan(call(*to, channels=("email",)), ORDER, {"ann": ANN}, frozenset(), NOW)

    assert only(made).recipient == 0
    assert [(it.recipient, it.reason) for it in made.dropped] == [(1, "same_address"), (2, "same_address")]
    assert not made.rejections


def test_a_suppressed_address_is_a_delivery_that_says_so() -> None:
    made = plan(call(channels=("email",)), ORDER, {"ann": ANN}, {("email", "ann@example.com")}, NOW)
    assert (only(made).state, only(made).reason) == (State.SUPPRESSED, "address_suppressed")


def test_suppression_is_by_channel() -> None:
    made = plan(call(channels=("email",)), ORDER, {"ann": ANN}, {("sms", "ann@example.com")}, NOW)
    assert only(made).state is State.QUEUED


def test_a_later_time_holds_and_a_past_one_does_not() -> None:
    later = plan(call(channels=("email",), at=NOW + MINUTE), ORDER, {"ann": ANN}, frozenset(), NOW)
    past = plan(call(channels=("email",), at=NOW - MINUTE), ORDER, {"ann": ANN}, frozenset(), NOW)

    assert (only(later).state, only(later).due_at, only(later).reason) == (
        State.HELD,
        NOW + MINUTE,
        "scheduled",
    )
    assert (only(past).state, only(past).due_at) == (State.QUEUED, None)


def test_the_calls_own_lane_and_locale_go_first() -> None:
    ref = RecipientRef("ann", locale="fr")
    by_call = plan(
        call(ref, channels=("email",), priority="high", locale="en"), ORDER, {"ann": ANN}, frozenset(), NOW
    )
    by_ref = plan(call(ref, channels=("email",)), ORDER, {"ann": ANN}, frozenset(), NOW)

    assert (only(by_call).lane, only(by_call).locale) == ("high", "en")
    assert (only(by_ref).lane, only(by_ref).locale) == ("normal", "fr")


def test_the_zone_is_the_calls_or_the_one_that_is_stored() -> None:
    stored = replace(ANN, timezone="Europe/Berlin")
    moved = RecipientRef("ann", timezone="Asia/Shanghai")
    by_profile = plan(call(channels=("email",)), ORDER, {"ann": stored}, frozenset(), NOW)
    by_call = plan(call(moved, channels=("email",)), ORDER, {"ann": stored}, frozenset(), NOW)

    assert only(by_profile).timezone == "Europe/Berlin"
    assert only(by_call).timezone == "Asia/Shanghai"


@pytest.mark.parametrize(("channel", "on_doubt"), [("sms", "hold"), ("email", "resend"), ("push", "resend")])
def test_an_sms_is_held_in_doubt_and_the_rest_is_sent_again(channel: str, on_doubt: str) -> None:
    assert ORDER.on_doubt_for(channel) == on_doubt
    assert EventType("x", "v", (channel,), on_doubt="resend").on_doubt_for(channel) == "resend"
    assert EventType("x", "v", (channel,), on_doubt="hold").on_doubt_for(channel) == "hold"


# --- expiry -------------------------------------------------------------------------------------------


def test_expiry_counts_from_the_call_so_that_an_outage_before_intake_counts() -> None:
    called = NOW - timedelta(minutes=50)
    assert expiry(call(timestamp=called), ORDER, NOW) == called + timedelta(hours=1)
    late = plan(
        call(timestamp=NOW - timedelta(hours=2), channels=("email",)), ORDER, {"ann": ANN}, frozenset(), NOW
    )
    assert (only(late).state, only(late).reason) == (State.EXPIRED, "expired_before_planning")


def test_a_producers_clock_that_is_ahead_gains_nothing() -> None:
    assert expiry(call(timestamp=NOW + timedelta(days=9)), ORDER, NOW) == NOW + timedelta(hours=1)


def test_a_scheduled_call_expires_after_its_time() -> None:
    assert expiry(call(at=NOW + timedelta(days=2)), ORDER, NOW) == NOW + timedelta(days=2, hours=1)


def test_the_calls_own_expiry_holds() -> None:
    assert expiry(call(expires=NOW + MINUTE, timestamp=NOW - timedelta(days=9)), ORDER, NOW) == NOW + MINUTE


# --- whatever comes in ----------------------------------------------------------------------------------

_ids = st.sampled_from(["ann", "bob", "eve", "nobody"])
_addresses = st.dictionaries(
    st.sampled_from(["email", "sms", "push"]),
    st.sampled_from(["a@example.com", "b@example.com", "+491"]),
    max_size=3,
)
_locales = st.none() | st.sampled_from(["de", "en"])
_refs = st.builds(RecipientRef, st.none() | _ids, _addresses, _locales)
_profiles = st.dictionaries(
    _ids,
    st.dictionaries(
        st.sampled_from(["email", "sms", "push", "webhook"]),
        st.lists(
            st.sampled_from(["a@example.com", "b@example.com", "t-1", "t-2"]), max_size=3, unique=True
        ).map(tuple),
    ),
).map(lambda found: {id_: Profile(id_, addresses) for id_, addresses in found.items()})
_moments = st.none() | st.integers(-10_000, 10_000).map(lambda seconds: NOW + timedelta(seconds=seconds))
_calls = st.builds(
    Notification,
    message_id=st.just("m-1"),
    event_type=st.just("x"),
    timestamp=_moments.map(lambda moment: moment or NOW),
    to=st.lists(_refs, min_size=1, max_size=5).map(tuple),
    channels=st.none() | st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=4, unique=True).map(tuple),
    priority=st.none() | st.sampled_from(LANES),
    at=_moments,
    expires=_moments,
)
_types = st.builds(
    EventType,
    name=st.just("x"),
    version=st.just("v"),
    channels=st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=4, unique=True).map(tuple),
    lane=st.sampled_from(LANES),
    expires=st.floats(1, 100_000),
    on_doubt=st.none() | st.sampled_from(["resend", "hold"]),
    attempts=st.integers(1, 20),
)
_suppressed = st.frozensets(
    st.tuples(st.sampled_from(["email", "sms"]), st.sampled_from(["a@example.com", "b@example.com"]))
)


@given(_calls, _types, _profiles, _suppressed)
def test_whatever_is_asked_for_every_wish_has_an_answer(
    notification: Notification,
    kind: EventType,
    profiles: dict[str, Profile],
    suppressed: frozenset[tuple[str, str]],
) -> None:
    made = plan(notification, kind, profiles, suppressed, NOW)
    channels = notification.channels or kind.channels
    rejected = {it.recipient for it in made.rejections}
    answered = {(it.recipient, it.channel) for it in (*made.decisions, *made.dropped)}

    # Then: every recipient and channel has a delivery or a reason, and a rejected recipient has no delivery,
    for index, ref in enumerate(notification.to):
        assert index in rejected or all((index, channel) in answered for channel in channels)
        known = ref.id in profiles or bool(ref.addresses)
        assert known or index in rejected
    assert rejected.isdisjoint({it.recipient for it in made.decisions})
    assert made.decisions or made.rejections

    # no address is written to twice,
    assert len({(it.channel, it.address) for it in made.decisions}) == len(made.decisions)

    # and each delivery begins where its times and address say.
    for it in made.decisions:
        assert (it.lane, it.max_attempts) == (notification.priority or kind.lane, kind.attempts)
        assert it.expires_at == expiry(notification, kind, NOW)
        assert (it.state is State.SUPPRESSED) == ((it.channel, it.address) in suppressed)
        if it.state is State.SUPPRESSED:
            continue
        late = notification.at is not None and notification.at > NOW and it.expires_at <= notification.at
        assert (it.state is State.EXPIRED) == (it.expires_at <= NOW or late)
        assert (it.state is State.HELD) == (it.due_at is not None)
        if it.due_at is not None:
            assert it.due_at == notification.at
            assert it.due_at > NOW
        assert (it.reason is None) == (it.state is State.QUEUED)
        if it.channel == INAPP:
            assert it.address == notification.to[it.recipient].id


@given(_calls, _types, _profiles, _suppressed)
def test_the_same_inputs_give_the_same_plan_and_it_shows_no_address(
    notification: Notification,
    kind: EventType,
    profiles: dict[str, Profile],
    suppressed: frozenset[tuple[str, str]],
) -> None:
    made = plan(notification, kind, profiles, suppressed, NOW)
    assert made == plan(notification, kind, profiles, suppressed, NOW)

    for shown in (json.dumps(made.explained()), repr(made)):
        assert "@example.com" not in shown
        assert "+491" not in shown


# --- verified addresses alone -------------------------------------------------------------------------

STRICT = replace(ORDER, verified_only=True)
HALF = replace(ANN, unverified=frozenset({("email", "ann@example.com"), ("push", "t-1")}))


def test_a_strict_type_goes_to_verified_addresses_and_says_what_it_left_out() -> None:
    made = plan(call(channels=("email", "push", "inapp")), STRICT, {"ann": HALF}, frozenset(), NOW)

    assert [(it.channel, it.address) for it in made.decisions] == [("push", "t-2"), ("inapp", "ann")]
    assert [(it.channel, it.reason) for it in made.dropped] == [
        ("email", "not_verified"), ("push", "not_verified"),
    ]  # fmt: skip
    assert plan(call(), ORDER, {"ann": HALF}, frozenset(), NOW).decisions[0].address == "ann@example.com"


def test_an_address_of_the_call_passes_a_strict_type() -> None:
    to = RecipientRef("ann", {"email": "ann@example.com"})
    assert (
        only(plan(call(to, channels=("email",)), STRICT, {"ann": HALF}, frozenset(), NOW)).channel == "email"
    )


def test_where_no_address_is_verified_the_reason_is_that() -> None:
    (no,) = plan(call(channels=("email", "sms")), STRICT, {"ann": HALF}, frozenset(), NOW).rejections
    assert no.reason == "not_verified"
    assert "address for email is not verified" in no.detail
    assert "ann@" not in no.detail
