"""What a call is told at once: which argument is wrong, and what to write instead."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify_tasks.calls import build_notification
from notify_tasks.errors import InvalidCall
from notify_tasks.notification import MAX_PAYLOAD_BYTES, Notification

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
SUBSCRIPTION = {
    "endpoint": "https://push.example.com/send/1",
    "expirationTime": None,
    "keys": {"p256dh": "BPubKey", "auth": "secret"},
}


class Colour(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Order:
    id: int = 1


def call(event_type: object = "order.shipped", **keywords: Any) -> Notification:
    keywords.setdefault("to", "user-42")
    return build_notification(event_type, now=NOW, **keywords)


def refusal(event_type: object = "order.shipped", **keywords: Any) -> InvalidCall:
    with pytest.raises(InvalidCall) as refused:
        call(event_type, **keywords)
    return refused.value


# --- what is taken ----------------------------------------------------------------------------------


def test_a_plain_call_needs_a_type_and_a_recipient() -> None:
    notification = call()

    assert notification.event_type == "order.shipped"
    assert [ref.id for ref in notification.to] == ["user-42"]
    assert notification.tenant == "default"
    assert notification.timestamp == NOW
    assert uuid.UUID(notification.message_id).version == 7


def test_a_call_with_everything() -> None:
    notification = call(
        to=[
            "user-42",
            {"email": "ann@example.com", "locale": "de", "timezone": "Europe/Berlin"},
            {"id": "user-43", "phone": "+4915112345678", "webpush": SUBSCRIPTION},
        ],
        payload={"order_id": 981, "lines": ({"sku": "a"}, None), "word": Word.RED},
        message_id="order-981",
        source="shop",
        tenant="acme",
        channels=["email", "sms"],
        priority="high",
        at=datetime(2030, 1, 31, 11, tzinfo=ZoneInfo("Europe/Berlin")),
        expires=timedelta(hours=2),
        locale="pt-BR",
        cancel_key="order-981",
        sandbox=True,
    )

    assert Notification.from_wire(json.loads(json.dumps(notification.to_wire()))) == notification
    assert notification.at == NOW + timedelta(hours=1)
    assert notification.expires == NOW + timedelta(hours=2)
    assert notification.payload == {"order_id": 981, "lines": [{"sku": "a"}, None], "word": "red"}
    assert notification.to[2].addresses["sms"] == "+4915112345678"
    assert json.loads(notification.to[2].addresses["webpush"]) == {
        "endpoint": SUBSCRIPTION["endpoint"],
        "keys": SUBSCRIPTION["keys"],
    }


def test_what_the_caller_changes_afterwards_changes_nothing() -> None:
    payload = {"lines": [1]}
    notification = call(payload=payload)

    payload["lines"].append(2)

    assert notification.payload == {"lines": [1]}


def test_a_subscription_as_text_is_the_same_as_one_as_dict() -> None:
    as_dict = call(to={"webpush": SUBSCRIPTION})
    as_text = call(to={"webpush": json.dumps(SUBSCRIPTION)})

    assert as_dict.to == as_text.to


def test_a_uuid_is_a_message_id() -> None:
    id_ = uuid.uuid4()
    assert call(message_id=id_).message_id == str(id_)


@pytest.mark.parametrize(
    "address", ["ann@example.com", "a.b+c@mail.example.co.uk", "jürgen@müller.example", "root@localhost"]
)
def test_ordinary_mail_addresses_pass(address: str) -> None:
    assert call(to={"email": address}).to[0].addresses == {"email": address}


# --- the hash ---------------------------------------------------------------------------------------


def test_a_repeated_call_has_the_same_hash_though_its_relative_times_moved() -> None:
    first = build_notification("a.b", now=NOW, to="u", at=timedelta(seconds=10), expires=60)
    second = build_notification("a.b", now=LATER, to="u", at=timedelta(seconds=10), expires=60)

    assert first.hash == second.hash
    assert first.at != second.at


def test_a_span_may_be_written_as_seconds_or_as_timedelta() -> None:
    assert call(expires=60).hash == call(expires=timedelta(minutes=1)).hash


def test_the_message_id_is_no_part_of_the_hash() -> None:
    assert call(message_id="a").hash == call(message_id="b").hash


@pytest.mark.parametrize(
    "other",
    [
        {"to": "user-43"},
        {"payload": {"a": 1}},
        {"source": "shop"},
        {"channels": ["email"]},
        {"priority": "high"},
        {"at": LATER},
        {"expires": 60},
        {"locale": "de"},
        {"cancel_key": "k"},
        {"sandbox": True},
        {"tenant": "acme"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_body_has_another_hash(other: dict[str, Any]) -> None:
    assert call(**other).hash != call().hash


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "field", "remedy"),
    [
        ({"to": "ann@example.com"}, "to", 'to={"email": ...}'),
        ({"to": "+4915112345678"}, "to", 'to={"sms": ...}'),
        ({"to": ["user-1", "ann@example.com"]}, "to[1]", '{"email": ...}'),
        ({"to": None}, "to", 'to="user-42"'),
        ({"to": 42}, "to", 'to="user-42"'),
        ({"to": []}, "to", 'to="user-42"'),
        ({"to": ""}, "to", "1 to 200 characters"),
        ({"to": {}}, "to", 'to="user-42"'),
        ({"to": {"locale": "de"}}, "to", 'to="user-42"'),
        ({"to": [f"user-{n}" for n in range(101)]}, "to", "each 100"),
        ({"to": {"emial": "ann@example.com"}}, "to.emial", "email?"),
        ({"to": {"inapp": "user-42"}}, "to.inapp", "id?"),
        ({"to": ["u", {"mail": "ann@example.com"}]}, "to[1].mail", "email?"),
        ({"to": {"email": "Ann <ann@example.com>"}}, "to.email", "ann@example.com"),
        ({"to": {"email": "a@b.example, c@d.example"}}, "to.email", "one address"),
        ({"to": {"email": "ann@example.com\r\nBcc: x@y.example"}}, "to.email", "Leave such"),
        ({"to": {"email": "ann@@example.com"}}, "to.email", "one address"),
        ({"to": {"email": f"{'a' * 65}@example.com"}}, "to.email", "one address"),
        ({"to": {"email": f"ann@{'a.' * 130}example"}}, "to.email", "1 to 254"),
        ({"to": {"email": None}}, "to.email", "Write a text"),
        ({"to": {"sms": "0151 12345678"}}, "to.sms", "+4915112345678"),
        ({"to": {"sms": "+123456"}}, "to.sms", "+4915112345678"),
        ({"to": {"sms": "+1234567890123456"}}, "to.sms", "+4915112345678"),
        ({"to": {"sms": "+4915112345678", "phone": "+4915112345678"}}, "to.phone", "one of them"),
        ({"to": {"webhook": "ftp://example.com/"}}, "to.webhook", "https://"),
        ({"to": {"webhook": "https://"}}, "to.webhook", "https://"),
        ({"to": {"webhook": "https://example.com:port/"}}, "to.webhook", "https://"),
        ({"to": {"webpush": "{"}}, "to.webpush", "PushSubscription"),
        ({"to": {"webpush": {"endpoint": "https://x.example/"}}}, "to.webpush.keys", "PushSubscription"),
        (
            {"to": {"webpush": {**SUBSCRIPTION, "endpoint": "http://x.example/"}}},
            "to.webpush.endpoint",
            "https://",
        ),
        ({"to": {"push": "two words"}}, "to.push", "as the device gave it"),
        ({"to": {"id": "u", "locale": "de_DE"}}, "to.locale", "pt-BR"),
        ({"to": {"id": "u", "timezone": "CET+1 h"}}, "to.timezone", "Europe/Berlin"),
        ({"payload": [1]}, "payload", '{"order_id": 981}'),
        ({"payload": "a"}, "payload", '{"order_id": 981}'),
        ({"payload": {"order": {"total": decimal.Decimal(1)}}}, "payload.order.total", "str or float"),
        ({"payload": {"days": [{}, {"day": date(2030, 1, 1)}]}}, "payload.days[1].day", "isoformat"),
        ({"payload": {"id": uuid.uuid4()}}, "payload.id", "Use str"),
        ({"payload": {"tags": {"a"}}}, "payload.tags", "list"),
        ({"payload": {"raw": b"a"}}, "payload.raw", "base64"),
        ({"payload": {"colour": Colour.RED}}, "payload.colour", "value"),
        ({"payload": {"order": Order()}}, "payload.order", "asdict"),
        ({"payload": {"f": object()}}, "payload.f", "list or dict"),
        ({"payload": {"f": float("nan")}}, "payload.f", "None"),
        ({"payload": {"f": float("inf")}}, "payload.f", "None"),
        ({"payload": {"n": 10**5000}}, "payload.n", "str"),
        ({"payload": {"t": "a\x00b"}}, "payload.t", "Leave it out"),
        ({"payload": {"t": "a\ud800b"}}, "payload.t", "Decode"),
        ({"payload": {"a": {1: "x"}}}, "payload.a.[key 1]", "as the key"),
        ({"payload": {"a": "x" * (100 * 1024)}}, "payload", "ids or links"),
        ({"message_id": ""}, "message_id", "order-981-shipped"),
        ({"message_id": "with space"}, "message_id", "order-981-shipped"),
        ({"message_id": "a" * 129}, "message_id", "order-981-shipped"),
        ({"message_id": 5}, "message_id", "order-981-shipped"),
        ({"source": "a\nb"}, "source", "Leave such"),
        ({"tenant": "a/b"}, "tenant", "letters"),
        ({"channels": "email"}, "channels", 'channels=["email"]'),
        ({"channels": []}, "channels", "leave it out"),
        ({"channels": ["emial"]}, "channels[0]", "email?"),
        ({"channels": ["email", "email"]}, "channels[1]", "once"),
        ({"priority": 3}, "priority", "high, normal, bulk"),
        ({"priority": "urgent"}, "priority", "high, normal, bulk"),
        ({"at": datetime(2030, 1, 31, 9)}, "at", "tzinfo="),  # noqa: DTZ001 - that is the mistake
        ({"at": 60}, "at", "timedelta"),
        ({"at": "2030-01-31"}, "at", "datetime"),
        ({"at": timedelta(seconds=-1)}, "at", "0 or more"),
        ({"expires": datetime(2030, 1, 31, 9)}, "expires", "tzinfo="),  # noqa: DTZ001 - as above
        ({"expires": True}, "expires", "seconds"),
        ({"expires": float("nan")}, "expires", "0 or more"),
        ({"expires": NOW}, "expires", "still to come"),
        ({"expires": 0}, "expires", "still to come"),
        ({"at": LATER, "expires": 60}, "expires", "from the call"),
        ({"expires": 1e30}, "expires", "fewer"),
        ({"digest": "sometimes"}, "digest", "weekly mon 08:00"),
        ({"digest": "daily 8:00"}, "digest", "08:00"),
        ({"digest": 7}, "digest", "hourly"),
        ({"digest": "daily", "at": LATER}, "digest", "Keep one of them"),
        ({"locale": "English please"}, "locale", "pt-BR"),
        ({"sandbox": 1}, "sandbox", "True or False"),
        ({"paylod": {}}, "paylod", "payload?"),
        ({"countdown": 5}, "countdown", "at?"),
        ({"recipients": []}, "recipients", "to?"),
        ({"nonsense": 1}, "nonsense", "There are to, payload"),
        ({"event_type": "Order Shipped"}, "event_type", "order.shipped"),
        ({"event_type": "../etc"}, "event_type", "order.shipped"),
        ({"event_type": "_layout"}, "event_type", "order.shipped"),
        ({"event_type": None}, "event_type", "Write a text"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_argument_is_named_with_its_remedy(keywords: dict[str, Any], field: str, remedy: str) -> None:
    error = refusal(**keywords)

    assert error.field == field
    assert remedy in error.remedy
    assert str(error) == f"{field}: {error.problem}. {error.remedy}"


def test_a_digest_is_kept_as_it_is_meant() -> None:
    assert call(digest="hourly").digest == "every 1h"
    assert call(digest=" weekly  mon 08:00").digest == "weekly mon 08:00"
    assert call(digest="off", at=LATER).digest == "off"
    assert call(digest="daily").hash != call().hash


def test_a_payload_within_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless

    assert "levels deep" in refusal(payload=endless).problem


def test_the_largest_payload_passes_and_one_byte_more_does_not() -> None:
    room = MAX_PAYLOAD_BYTES - len('{"a":""}')

    assert call(payload={"a": "x" * room})
    assert refusal(payload={"a": "x" * (room + 1)}).field == "payload"


# --- what is never shown ----------------------------------------------------------------------------

CANARY = "canary@private.example"


@pytest.mark.parametrize(
    "keywords",
    [
        {"to": CANARY},
        {"to": [CANARY]},
        {"to": {CANARY: "x"}},
        {"to": {"email": f"<{CANARY}>"}},
        {"to": {"sms": CANARY}},
        {"to": {"push": f"{CANARY} x"}},
        {"to": {"webhook": CANARY}},
        {"to": {"webpush": CANARY}},
        {"to": {"webpush": {"endpoint": CANARY, "keys": {}}}},
        {"payload": {"a": {CANARY: object()}}},
        {"payload": {"a": CANARY + "\x00"}},
        {"payload": CANARY},
        {"message_id": f"{CANARY} {CANARY}"},
        {"source": CANARY + "\n"},
        {"tenant": CANARY},
        {"channels": [CANARY]},
        {"priority": CANARY},
        {"at": CANARY},
        {"locale": CANARY},
        {"cancel_key": CANARY + "\n"},
        {"event_type": CANARY},
    ],
)
def test_no_refusal_shows_what_was_given(keywords: dict[str, Any]) -> None:
    error = refusal(**keywords)

    for shown in _chain(error):
        assert CANARY not in str(shown)
        assert CANARY not in repr(shown)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


# --- anything at all --------------------------------------------------------------------------------

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(alphabet=st.characters())
    | st.binary()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.decimals()
    | st.uuids()
    | st.timedeltas(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.sampled_from(["to", "payload", "message_id", "channels", "at", "expires", "priority", "locale"]),
        anything,
    )
)
def test_whatever_is_given_is_taken_or_refused_and_nothing_else_happens(given_: dict[str, Any]) -> None:
    try:
        notification = call(**given_)
    except InvalidCall:
        return
    wire = json.dumps(notification.to_wire(), allow_nan=False)
    assert Notification.from_wire(json.loads(wire)).hash == notification.hash
    assert wire.encode()
