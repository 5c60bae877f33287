"""The envelope: what goes in comes out, and nothing that is no envelope gets past."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify_tasks.errors import WireError
from notify_tasks.notification import Notification, RecipientRef, body_hash, uuid7

SIMPLE = Notification(
    message_id="id-1",
    event_type="order.shipped",
    timestamp=datetime(2030, 1, 31, 9, tzinfo=UTC),
    to=(RecipientRef(id="user-42"),),
    hash="0" * 32,
)

texts = st.text(min_size=1, max_size=20)
moments = st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
recipients = st.builds(
    RecipientRef,
    id=st.none() | texts,
    addresses=st.dictionaries(st.sampled_from(["email", "sms", "push", "webhook", "chat"]), texts),
    locale=st.none() | st.sampled_from(["de", "zh-Hans-CN"]),
    timezone=st.none() | st.just("Europe/Berlin"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
notifications = st.builds(
    Notification,
    message_id=texts,
    event_type=texts,
    timestamp=moments,
    to=st.lists(recipients, min_size=1, max_size=3).map(tuple),
    payload=st.dictionaries(texts, json_values, max_size=3),
    hash=texts,
    tenant=texts,
    source=st.none() | texts,
    channels=st.none() | st.lists(texts, min_size=1, max_size=3).map(tuple),
    priority=st.none() | st.sampled_from(["high", "normal", "bulk"]),
    at=st.none() | moments,
    expires=st.none() | moments,
    locale=st.none() | texts,
    cancel_key=st.none() | texts,
    sandbox=st.booleans(),
    trace=st.none() | st.just({"traceparent": "00-1-1-01"}),
)


@given(notifications)
def test_a_notification_survives_its_way_over_the_wire(notification: Notification) -> None:
    wire = json.loads(json.dumps(notification.to_wire()))

    assert Notification.from_wire(wire) == notification


@given(notifications, st.sampled_from(sorted(SIMPLE.to_wire())), json_values)
def test_a_changed_envelope_is_read_or_refused_and_never_anything_else(
    notification: Notification, key: str, value: Any
) -> None:
    wire = {**notification.to_wire(), key: value}

    try:
        read = Notification.from_wire(wire)
    except WireError:
        return
    assert isinstance(read.message_id, str)


@pytest.mark.parametrize(
    "key", ["source", "priority", "locale", "cancel_key", "trace", "channels", "to", "payload"]
)
@pytest.mark.parametrize("value", [5, ["a", 1], {"a": {"b": 1}}.keys(), "a" * 1000])
def test_a_field_of_the_wrong_form_is_refused(key: str, value: object) -> None:
    with pytest.raises(WireError, match=key):
        Notification.from_wire({**SIMPLE.to_wire(), key: value})


@pytest.mark.parametrize("key", ["message_id", "hash", "event_type", "timestamp", "tenant", "to"])
def test_a_missing_field_is_named(key: str) -> None:
    wire = SIMPLE.to_wire()
    del wire[key]

    with pytest.raises(WireError, match=key):
        Notification.from_wire(wire)


@pytest.mark.parametrize("version", [99, None, "1", {"canary": "ann@example.com"}])
def test_another_version_is_refused_without_showing_what_it_is(version: object) -> None:
    with pytest.raises(WireError, match="version") as refused:
        Notification.from_wire({**SIMPLE.to_wire(), "v": version})

    assert "canary" not in str(refused.value)


def test_a_time_at_the_edge_of_the_calendar_is_refused_not_a_crash() -> None:
    with pytest.raises(WireError):
        Notification.from_wire({**SIMPLE.to_wire(), "at": "0001-01-01T00:00:00+14:00"})


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(WireError, match="zone"):
        Notification.from_wire({**SIMPLE.to_wire(), "at": "2030-01-31T09:00:00"})


def test_times_come_out_in_utc() -> None:
    berlin = datetime(2030, 1, 31, 10, tzinfo=timezone(timedelta(hours=1)))

    read = Notification.from_wire(replace(SIMPLE, at=berlin).to_wire())

    assert read.at == berlin
    assert read.at is not None
    assert read.at.tzinfo is UTC


def test_the_repr_shows_neither_recipients_nor_payload() -> None:
    private = replace(
        SIMPLE, to=(RecipientRef(addresses={"email": "ann@example.com"}),), payload={"code": "canary-123"}
    )

    shown = repr(private) + repr(private.to)

    assert "ann@example.com" not in shown
    assert "canary-123" not in shown


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert body_hash({"a": 1, "b": {"c": 2, "d": 3}}) == body_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert body_hash({"a": 1}) != body_hash({"a": "1"})


def test_ids_are_version_7_and_rise_with_time() -> None:
    ids = [uuid7() for _ in range(100)]

    assert {each.version for each in ids} == {7}
    assert len(set(ids)) == 100
    milliseconds = [each.int >> 80 for each in ids]
    assert milliseconds == sorted(milliseconds)


# --- digests ------------------------------------------------------------------------------------------


def test_a_call_with_a_digest_has_a_version_of_its_own_and_off_has_none() -> None:
    gathered = replace(SIMPLE, digest="weekly mon 08:00")
    assert gathered.to_wire()["v"] == 4
    assert Notification.from_wire(json.loads(json.dumps(gathered.to_wire()))) == gathered
    alone = replace(SIMPLE, digest="off")
    assert alone.to_wire() == {**SIMPLE.to_wire(), "digest": "off"}
    assert Notification.from_wire(alone.to_wire()).digest == "off"
    with pytest.raises(WireError, match="'digest' does not say when"):
        Notification.from_wire({**gathered.to_wire(), "digest": "now and then"})
