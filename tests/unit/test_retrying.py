"""The verdict on an attempt: every error in every situation."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
from celery.utils.time import get_exponential_backoff_interval
from hypothesis import given
from hypothesis import strategies as st

from channels import contract
from channels.contract import (
    AddressInvalid,
    Capability,
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
from notify_tasks.event_type import DEFAULT_EXPIRY, HOLD, RESEND
from notify_tasks.retrying import (
    BACKOFF,
    BACKOFF_MAX,
    KEY_WINDOW,
    LONG,
    LONGEST_RETRY_AFTER,
    LOST_MESSAGE_MARGIN,
    MISCONFIGURED_WAIT,
    OUTCOMES,
    SCHEDULES,
    SHORT,
    Situation,
    Verdict,
    decide,
    key_forgotten,
    lost,
    outcome_of,
    short_wait,
)
from notify_tasks.states import FINAL, UNKNOWN_ENDS, State, may_move

ERRORS = tuple(OUTCOMES)
DAY = 24 * 3600.0


def in_(
    attempts: int = 1,
    *,
    unknown: bool = False,
    capability: Capability = Capability.OPAQUE,
    on_doubt: str = RESEND,
    other: bool = False,
    lifetime: float = DAY,
    age: float = 0.0,
    alternatives: bool = False,
) -> Situation:
    return Situation(
        attempts=attempts,
        max_attempts=8,
        unknown=unknown,
        capability=capability,
        on_doubt=on_doubt,
        other_provider=other,
        lifetime=lifetime,
        age=age,
        alternatives=alternatives,
    )


def situations() -> Iterator[Situation]:
    """Every combination that the rules can tell apart."""
    for attempts, unknown, capability, on_doubt, other, lifetime, age in product(
        (1, SHORT, SHORT + 1, 7, 8, 9),
        (False, True),
        Capability,
        (HOLD, RESEND),
        (False, True),
        (-1.0, 0.0, 30.0, 5 * DAY),
        (0.0, KEY_WINDOW + 1),
    ):
        yield in_(
            attempts,
            unknown=unknown,
            capability=capability,
            on_doubt=on_doubt,
            other=other,
            lifetime=lifetime,
            age=age if unknown else 0.0,
        )


CASES = [
    (cls("code", retry_after=wait), it)
    for cls, wait, it in product(ERRORS, (None, 0.0, 45.0, 7 * DAY), situations())
]


def test_every_error_of_the_contract_has_an_outcome_of_its_own() -> None:
    classes = {
        it
        for _, it in inspect.getmembers(contract, inspect.isclass)
        if issubclass(it, ChannelError) and it is not ChannelError
    }
    assert set(ERRORS) == classes
    assert len(set(OUTCOMES.values())) == len(OUTCOMES)


# --- what holds in every case -------------------------------------------------------------------------


def test_while_an_outcome_is_unknown_there_are_no_false_ends_and_no_other_provider() -> None:
    for error, situation in CASES:
        verdict = decide(error, situation)
        if situation.unknown or verdict.unknown:
            assert verdict.state in {State.RETRYING, State.IN_DOUBT}, (error, situation)
        if verdict.state in FINAL and situation.unknown:
            assert verdict.state in UNKNOWN_ENDS


def test_only_an_uncertain_attempt_is_unknown() -> None:
    for error, situation in CASES:
        assert decide(error, situation).unknown == isinstance(error, Uncertain)


def test_nothing_is_in_doubt_that_was_surely_not_accepted() -> None:
    for error, situation in CASES:
        if not situation.unknown and not isinstance(error, Uncertain):
            assert decide(error, situation).state is not State.IN_DOUBT


def test_every_verdict_is_a_legal_move_of_a_delivery_that_is_being_sent() -> None:
    for error, situation in CASES:
        assert may_move(State.SENDING, decide(error, situation).state)


def test_throttling_our_own_mistakes_and_a_hand_over_of_what_one_cannot_carry_use_no_attempt() -> None:
    for error, situation in CASES:
        verdict = decide(error, situation)
        handed = isinstance(error, Unroutable) and verdict.state is State.QUEUED
        assert verdict.counted != (isinstance(error, Throttled | Misconfigured) or handed)


def test_spent_attempts_end_it() -> None:
    for error, situation in CASES:
        verdict = decide(error, situation)
        if situation.attempts >= situation.max_attempts and verdict.counted:
            assert verdict.state in FINAL, (error, situation)


def test_no_retry_is_planned_for_after_the_expiry() -> None:
    for error, situation in CASES:
        verdict = decide(error, situation)
        if verdict.state is State.RETRYING:
            assert situation.lifetime > 0
            assert (verdict.delay or 0.0) < situation.lifetime


def test_a_wait_is_finite_never_zero_and_as_long_as_the_provider_asked() -> None:
    for error, situation in CASES:
        verdict = decide(error, situation)
        if verdict.state is not State.RETRYING:
            continue
        if verdict.delay is None:  # Celery draws it
            assert situation.attempts <= SHORT
            continue
        assert math.isfinite(verdict.delay)
        assert 1.0 <= verdict.delay <= LONGEST_RETRY_AFTER
        if isinstance(error, Throttled | TryLater | Unavailable) and error.retry_after is not None:
            assert verdict.delay >= min(error.retry_after, LONGEST_RETRY_AFTER)


def test_an_address_is_suppressed_for_its_own_fault_alone() -> None:
    for error, situation in CASES:
        reason = {AddressInvalid: "address_invalid", OptedOut: "opted_out"}.get(type(error))
        assert decide(error, situation).suppress == reason


# --- each error ---------------------------------------------------------------------------------------


def test_a_throttled_delivery_waits_as_long_as_it_is_told() -> None:
    assert decide(Throttled("429", retry_after=7), in_()) == Verdict(
        State.RETRYING, "throttled", 7, counted=False
    )
    assert decide(Throttled("429"), in_()).delay == 30
    assert decide(Throttled("429", retry_after=9 * DAY), in_(lifetime=9 * DAY)).delay == DAY
    assert decide(Throttled("429", retry_after=120), in_(lifetime=60)).state is State.EXPIRED


def test_a_provider_that_says_retry_at_once_is_not_asked_in_a_hot_loop() -> None:
    for zero in (0.0, 0.001, -3.0):
        assert decide(Throttled("429", retry_after=zero), in_()).delay == 1.0
        assert decide(TryLater("503", retry_after=zero), in_()).delay == 1.0


def test_one_that_is_down_hands_over_to_the_next_at_once() -> None:
    assert decide(Unavailable("connect"), in_(other=True)) == Verdict(State.QUEUED, "unavailable")
    alone = decide(Unavailable("connect"), in_())
    assert (alone.state, alone.delay) == (State.RETRYING, None)
    assert decide(Unavailable("connect"), in_(other=True, unknown=True)).state is State.RETRYING
    assert decide(Unavailable("connect"), in_(8, other=True)) == Verdict(State.FAILED, "retries_spent")


def test_a_misconfigured_one_hands_over_or_waits_and_uses_no_attempt() -> None:
    assert decide(Misconfigured("401"), in_(other=True)) == Verdict(
        State.QUEUED, "misconfigured", counted=False
    )
    assert decide(Misconfigured("401"), in_(9)) == Verdict(
        State.RETRYING, "misconfigured", MISCONFIGURED_WAIT, counted=False
    )


def test_what_one_provider_cannot_carry_goes_to_another_or_fails() -> None:
    error = Unroutable("21408")
    assert decide(error, in_(other=True)) == Verdict(State.QUEUED, "unroutable", counted=False)
    assert decide(error, in_()) == Verdict(State.FAILED, "21408")
    assert decide(error, in_(other=True, unknown=True)) == Verdict(State.IN_DOUBT, "21408")
    # The other one is down for the moment: wait for it, and not for ever.
    waiting = decide(error, in_(alternatives=True))
    assert (waiting.state, waiting.reason, waiting.counted) == (State.RETRYING, "unroutable", True)
    assert decide(error, in_(8, alternatives=True)) == Verdict(State.FAILED, "retries_spent")


def test_a_refusal_fails_and_says_the_providers_code() -> None:
    assert decide(Refused("554"), in_(other=True)) == Verdict(State.FAILED, "554")
    assert decide(Refused("554"), in_(unknown=True)) == Verdict(State.IN_DOUBT, "554")


def test_a_dead_address_fails_and_an_opt_out_is_suppressed() -> None:
    assert decide(AddressInvalid("550"), in_()) == Verdict(State.FAILED, "550", suppress="address_invalid")
    assert decide(OptedOut("21610"), in_()) == Verdict(State.SUPPRESSED, "21610", suppress="opted_out")


@pytest.mark.parametrize(
    ("capability", "on_doubt", "state"),
    [
        (Capability.OPAQUE, HOLD, State.IN_DOUBT),
        (Capability.OPAQUE, RESEND, State.RETRYING),
        (Capability.IDEMPOTENT, HOLD, State.RETRYING),
        (Capability.IDEMPOTENT, RESEND, State.RETRYING),
        (Capability.QUERYABLE, HOLD, State.RETRYING),
        (Capability.QUERYABLE, RESEND, State.RETRYING),
    ],
)
def test_a_lost_answer_is_cleared_up_where_it_can_be(
    capability: Capability, on_doubt: str, state: State
) -> None:
    situation = in_(capability=capability, on_doubt=on_doubt)
    assert decide(Uncertain("reset"), situation).state is state
    assert lost(situation).state is state
    assert lost(situation).reason == "lease_expired"


def test_a_key_is_trusted_for_a_day_and_no_longer() -> None:
    young = in_(unknown=True, capability=Capability.IDEMPOTENT, age=KEY_WINDOW - 1)
    old = in_(unknown=True, capability=Capability.IDEMPOTENT, age=KEY_WINDOW + 1)
    assert decide(Uncertain("reset"), young).state is State.RETRYING
    for error in (Uncertain("reset"), TryLater("503"), Unavailable("connect")):
        assert decide(error, old) == Verdict(
            State.IN_DOUBT, decide(error, old).reason, unknown=isinstance(error, Uncertain)
        )


def test_waits_grow_from_short_ones_to_hourly_ones() -> None:
    waits = [decide(TryLater("450"), in_(n, lifetime=9 * DAY)).delay for n in range(1, 8)]
    assert waits == [None] * SHORT + list(LONG[: 7 - SHORT])
    assert list(LONG) == sorted(LONG)
    assert LONG[0] > BACKOFF_MAX


def test_a_provider_may_ask_for_more_patience_than_ours() -> None:
    assert decide(TryLater("503", retry_after=90), in_()).delay == 90
    assert decide(TryLater("503", retry_after=5), in_(6)).delay == LONG[1]


def test_the_row_of_a_short_retry_waits_longer_than_celery_ever_does() -> None:
    assert LOST_MESSAGE_MARGIN > BACKOFF_MAX + 10


# --- short waits --------------------------------------------------------------------------------------


@given(st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_a_short_wait_is_drawn_as_celery_draws_it(attempts: int, draw: float) -> None:
    longest = get_exponential_backoff_interval(
        factor=BACKOFF, retries=attempts - 1, maximum=BACKOFF_MAX, full_jitter=False
    )
    wait = short_wait(attempts, draw)
    assert 0 <= wait <= longest
    assert short_wait(attempts, 1.0) == longest


# --- names of outcomes --------------------------------------------------------------------------------


def test_a_subclass_keeps_its_parents_name_and_a_stranger_counts_as_uncertain() -> None:
    class Greylisted(TryLater):
        """A provider's own kind."""

    class Strange(ChannelError):
        """Of no known kind."""

    assert outcome_of(Greylisted("450")) == "try_later"
    assert outcome_of(Strange("?")) == "uncertain"
    assert decide(Strange("?"), in_(on_doubt=HOLD)).state is State.IN_DOUBT


# --- a schedule of its own ----------------------------------------------------------------------------


def test_a_webhook_waits_for_seconds_then_for_hours() -> None:
    waits = [
        decide(TryLater("500"), replace(in_(attempts), channel="webhook")).delay for attempts in range(1, 12)
    ]
    assert waits == [5, 300, 1800, 7200, 18000, 36000, 36000, None, None, None, None]  # 8 attempts, then none
    assert decide(TryLater("500"), replace(in_(12), channel="webhook", max_attempts=20)).delay == 36000
    assert decide(TryLater("500"), in_(1)).delay is None  # other channels' short waits are drawn
    assert sum(SCHEDULES["webhook"]) < DEFAULT_EXPIRY


def test_its_schedule_holds_in_doubt_too_and_gives_way_to_what_the_endpoint_asks() -> None:
    webhook = replace(in_(3, capability=Capability.IDEMPOTENT), channel="webhook")
    assert decide(Uncertain("timeout"), webhook) == Verdict(State.RETRYING, "timeout", 1800, unknown=True)
    assert decide(TryLater("503", retry_after=7000), webhook).delay == 7000
    assert decide(TryLater("503", retry_after=3), webhook).delay == 1800
    assert decide(Throttled("429", retry_after=3), webhook).delay == 3


def test_a_type_bounds_the_schedule() -> None:
    webhook = replace(in_(3), channel="webhook")
    assert decide(TryLater("500"), replace(webhook, max_attempts=3)).state is State.FAILED
    assert decide(TryLater("500"), replace(webhook, lifetime=1800.0)).state is State.EXPIRED


def test_a_webhook_is_sent_again_under_its_id_however_late() -> None:
    late = in_(7, unknown=True, capability=Capability.IDEMPOTENT, age=KEY_WINDOW + 1)
    assert decide(TryLater("500"), late).state is State.IN_DOUBT
    assert decide(TryLater("500"), replace(late, channel="webhook")).state is State.RETRYING
    assert key_forgotten(Capability.IDEMPOTENT, KEY_WINDOW + 1)
    assert not key_forgotten(Capability.IDEMPOTENT, KEY_WINDOW + 1, "webhook")
