"""What `sms.aliyun` makes of SmsReport and SmsUp. Aliyun signs nothing: the URL's token is all there is."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.contract import Deadline, Misconfigured
from channels.loader import load
from channels.receipts import Event, Fate, Forged, Receipt, Reporting, Standing, Unreadable
from channels.sms.aliyun import Aliyun
from tests.contract.conformance import dump
from tests.contract.http_peer import HttpPeer
from tests.contract.providers import sms_aliyun
from tests.contract.receipt_attacks import (
    CANARY,
    a_receipt,
    bits_flipped,
    characters_changed,
    is_refused,
    noise,
    read,
)

TOKEN = "x9-Kq3v8d1n5s7w9y2c4f6h"
OLD_TOKEN = "p0o9i8u7y6t5r4e3w2q1"
DELIVERY = "0193b1f2-7c1d-7e3a-9f00-5a1b2c3d4e5f"
PHONE = "13900031337"


def provider(**changes: Any) -> Aliyun:
    options = {
        "access_key_id": sms_aliyun.KEY_ID,
        "access_key_secret": sms_aliyun.KEY,
        "sign_name": "示例商店",
        "templates": {"order.shipped": {"code": "SMS_154950910", "text": "one-time code ${code}"}},
        "callback_token": TOKEN,
        **changes,
    }
    built = load("sms.aliyun", "cn", {name: each for name, each in options.items() if each is not None})
    assert isinstance(built, Aliyun)
    return built


def a_report(code: object, *, success: object, **fields: Any) -> dict[str, Any]:
    """As the reference of SmsReport has it."""
    return {
        "phone_number": PHONE,
        "send_time": "2017-01-01 00:00:00",
        "report_time": "2017-01-01 08:00:05",
        "success": success,
        "err_code": code,
        "err_msg": f"{PHONE} ...",
        "sms_size": "1",
        "biz_id": "900619746936498440^0",
        "out_id": DELIVERY,
        **fields,
    }


def a_text(content: str, **fields: Any) -> dict[str, Any]:
    """As the reference of SmsUp has it."""
    return {
        "phone_number": PHONE,
        "content": content,
        "send_time": "2017-09-01 00:00:00",
        "dest_code": "1234",
        "sequence_id": "1234567890",
        **fields,
    }


def pushed(*entries: Mapping[str, Any], query: str = f"token={TOKEN}") -> Receipt:
    body = json.dumps(entries, ensure_ascii=False).encode()
    return a_receipt(body, query, Content_Type="application/json;charset=UTF-8")


def only(entry: Mapping[str, Any]) -> Event:
    (event,) = provider().events(pushed(entry))
    return event


@pytest.mark.parametrize(
    ("success", "code", "fate", "standing", "known"),
    [
        (True, "DELIVERED", Fate.DELIVERED, None, "yes"),
        (True, "DELIVRD", Fate.DELIVERED, None, "yes"),
        ("true", "DELIVERED", Fate.DELIVERED, None, "yes"),
        (True, "NEW:WORD", Fate.DELIVERED, None, "yes"),
        (False, "MK:0001", Fate.UNDELIVERED, Standing.INVALID, "yes"),
        (False, "isv.MOBILE_NUMBER_ILLEGAL", Fate.UNDELIVERED, Standing.INVALID, "yes"),
        (False, "DB:0101", Fate.UNDELIVERED, Standing.INVALID, "yes"),
        (False, "MK:0010", Fate.UNDELIVERED, None, "yes"),
        (False, "UNDELIV", Fate.UNDELIVERED, None, "yes"),
        (False, "EXPIRED", Fate.UNDELIVERED, None, "yes"),
        (False, "REJECTD", Fate.UNDELIVERED, None, "yes"),
        (False, "MBBLACK", Fate.UNDELIVERED, None, "yes"),
        (False, "-43", Fate.UNDELIVERED, None, "yes"),
        (False, "TELEPORTED", Fate.UNDELIVERED, None, "no"),
        (False, None, Fate.UNDELIVERED, None, "no"),
        (None, "DELIVERED", None, None, "no"),
        ("maybe", "DELIVERED", None, None, "no"),
        (1, "DELIVERED", None, None, "no"),
    ],
)
def test_success_says_the_fate_and_the_code_whether_the_number_is_at_fault(
    success: object, code: object, fate: Fate | None, standing: Standing | None, known: str
) -> None:
    event = only(a_report(code, success=success))

    assert (event.fate, event.standing, event.known) == (fate, standing, known == "yes")
    assert event.code == (code or "?")
    assert (event.delivery_id, event.provider_message_id) == (DELIVERY, "900619746936498440^0")
    assert event.at == datetime(2017, 1, 1, 0, 0, 5, tzinfo=UTC)  # their clock is Beijing's
    assert event.address is None


def test_the_out_id_that_send_gives_comes_back() -> None:
    with HttpPeer(sms_aliyun.answer("OK")) as peer:
        sending = provider(url=peer.url)
        message = replace(sms_aliyun.message(peer), delivery_id=str(uuid.uuid4()))
        accepted = sending.send(message, Deadline(10))
        sending.close()
    (out_id,) = parse_qs(urlsplit(peer.requests[0].target).query)["OutId"]

    (event,) = sending.events(pushed(a_report("DELIVERED", success=True, out_id=out_id)))

    assert event.delivery_id == message.delivery_id
    assert event.provider_message_id == accepted.provider_message_id


@pytest.mark.parametrize("content", ["T", "td", " TD ", "退订", "退订。", "TD!"])
def test_a_stop_is_of_the_number_it_came_from(content: str) -> None:
    event = only(a_text(content))

    assert (event.standing, event.address) == (Standing.OPTED_OUT, "+86" + PHONE)
    assert (event.fate, event.delivery_id, event.known) == (None, None, True)
    assert event.at == datetime(2017, 8, 31, 16, tzinfo=UTC)
    assert [only(a_text(content, phone_number=f"{form}{PHONE}")).address for form in ("86", "+86")] == [
        "+86" + PHONE
    ] * 2


@pytest.mark.parametrize("content", ["", "内容", "TDX", "not TD", "R"])
def test_any_other_text_says_nothing(content: str) -> None:
    assert list(provider().events(pushed(a_text(content)))) == []


def test_a_batch_is_told_in_its_order_and_again_with_the_same_ids() -> None:
    entries = [
        a_report("MK:0010", success=False),
        a_text("hello"),
        a_report("DELIVERED", success=True),
        a_text("TD"),
    ]
    events = provider().events(pushed(*entries))

    assert [each.fate for each in events] == [Fate.UNDELIVERED, Fate.DELIVERED, None]
    assert [each.id for each in events] == [each.id for each in provider().events(pushed(*entries))]
    assert len({each.id for each in events}) == 3


@pytest.mark.parametrize("body", [b"", b"{", b"7", b"[7]", b"[[]]", b"[" * 50_000, b"\xff"])
def test_what_is_no_batch_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        provider().events(a_receipt(body))


def test_aliyun_is_answered_as_it_wants() -> None:
    assert json.loads(provider().receipt_answer)["code"] == 0


# --- who sent it ------------------------------------------------------------------------------------


def test_the_urls_token_lets_in() -> None:
    provider().verify(pushed())
    provider().verify(pushed(query=f"tenant=a&token={TOKEN}&x="))


def test_no_other_query_lets_in() -> None:
    right, verify = f"token={TOKEN}", provider().verify
    changed = {*characters_changed(right), *(each.decode("latin-1") for each in bits_flipped(right.encode()))}

    for each in changed - {right}:
        assert is_refused(verify, pushed(query=each)), each
    for each in (
        "",
        "token=",
        f"token={TOKEN}&token={TOKEN}",
        f"token=x&token={TOKEN}",
        TOKEN,
        "token=\ud800",
    ):
        assert is_refused(verify, pushed(query=each)), each


def test_both_tokens_hold_while_one_replaces_the_other() -> None:
    both = provider(callback_token=[TOKEN, OLD_TOKEN])

    for token in (TOKEN, OLD_TOKEN):
        both.verify(pushed(query=f"token={token}"))
    assert is_refused(provider().verify, pushed(query=f"token={OLD_TOKEN}"))


def test_without_a_token_nobody_is_let_in() -> None:
    with pytest.raises(Forged, match="set callback_token"):
        provider(callback_token=None).verify(pushed(query="token="))
    with pytest.raises(Misconfigured, match="callback_token"):
        provider(callback_token="")


# --- whatever comes ---------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(noise)
def test_noise_is_refused_and_unreadable(receipt: Receipt) -> None:
    assert is_refused(provider().verify, receipt)
    read(provider(), receipt)


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(["x"]), st.just({"a": {}})
)
names = st.sampled_from(sorted({*a_report(None, success=None), *a_text("")}))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(names, values), max_size=3))
def test_odd_entries_are_events(entries: list[dict[str, Any]]) -> None:
    for event in provider().events(a_receipt(json.dumps(entries).encode())):
        assert 0 < len(event.id) <= 200
        assert event.code


def test_it_tells_no_number_and_no_token() -> None:
    reporting = provider(callback_token=[TOKEN, OLD_TOKEN])
    receipt = pushed(a_text("TD"), a_report(CANARY[1:], success=False), query=f"token={TOKEN}x")
    events = reporting.events(receipt)

    assert isinstance(reporting, Reporting)
    with pytest.raises(Forged) as caught:
        reporting.verify(receipt)
    told = repr(events) + repr(receipt) + repr(caught.value) + dump(reporting)
    assert events[1].code == "?"  # what may be a number is not shown as a code
    for private in (PHONE, CANARY[1:], TOKEN, OLD_TOKEN):
        assert private not in told
