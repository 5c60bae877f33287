"""What `sms.twilio` makes of Twilio's callbacks. Twilio's SDK is the judge of the signatures."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from channels.contract import Deadline, Misconfigured, TextContent
from channels.loader import load
from channels.receipts import Event, Fate, Forged, Receipt, Reporting, Standing
from channels.sms.twilio import CODES, Twilio
from tests.contract.conformance import a_message, dump
from tests.contract.http_peer import HttpPeer, Reply
from tests.contract.providers.sms_twilio import ACCOUNT, NUMBER, SERVICE, SID, TOKEN, resource
from tests.contract.receipt_attacks import (
    CANARY,
    a_receipt,
    bits_flipped,
    characters_changed,
    is_refused,
    noise,
    read,
    with_header,
)

URL = "https://hooks.shop.example/hooks/twilio"
DELIVERY = "0193b1f2-7c1d-7e3a-9f00-5a1b2c3d4e5f"
QUERY = f"delivery_id={DELIVERY}"
OLD_TOKEN = "0d107d09f5bbe40cade3de5c71e9e9b7"
HEADER = "x-twilio-signature"


def provider(**changes: Any) -> Twilio:
    options = {
        "account_sid": ACCOUNT,
        "auth_token": TOKEN,
        "messaging_service_sid": SERVICE,
        "status_callback": URL,
        **changes,
    }
    built = load("sms.twilio", "tw", {name: each for name, each in options.items() if each is not None})
    assert isinstance(built, Twilio)
    return built


def form(**fields: str) -> dict[str, str]:
    return {"MessageSid": SID, "AccountSid": ACCOUNT, "ApiVersion": "2010-04-01", **fields}


def signed(fields: Mapping[str, str], *, url: str = URL, query: str = QUERY, token: str = TOKEN) -> Receipt:
    """A callback as Twilio sends it, signed by its own SDK."""
    called = f"{url}?{query}" if query else url
    return a_receipt(
        urlencode(fields).encode(),
        query,
        X_Twilio_Signature=RequestValidator(token).compute_signature(called, fields),
        Content_Type="application/x-www-form-urlencoded; charset=UTF-8",
    )


def status(word: str, code: str | None = None) -> dict[str, str]:
    fields = form(MessageStatus=word, SmsStatus=word, To=CANARY, From="+15005550006")
    return fields if code is None else {**fields, "ErrorCode": code}


def text(body: str, **fields: str) -> dict[str, str]:
    return form(Body=body, From=CANARY, To="+15005550006", SmsStatus="received", NumMedia="0", **fields)


def only(receipt: Receipt) -> Event:
    (event,) = provider().events(receipt)
    return event


# --- what a callback says ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "fate"),
    [
        ("accepted", Fate.ACCEPTED),
        ("scheduled", Fate.ACCEPTED),
        ("queued", Fate.ACCEPTED),
        ("sending", Fate.ACCEPTED),
        ("sent", Fate.SENT),
        ("delivered", Fate.DELIVERED),
        ("read", Fate.READ),
        ("undelivered", Fate.UNDELIVERED),
        ("failed", Fate.UNDELIVERED),
        ("canceled", Fate.UNDELIVERED),
    ],
)
def test_a_status_is_a_fate(word: str, fate: Fate) -> None:
    event = only(signed(status(word)))

    assert (event.fate, event.standing, event.known, event.code) == (fate, None, True, word)
    assert (event.id, event.provider_message_id) == (f"{SID}:{word}", SID)
    assert (event.delivery_id, event.address) == (DELIVERY, CANARY)


@pytest.mark.parametrize(
    ("code", "standing"),
    [
        ("30005", Standing.INVALID),
        ("30006", Standing.INVALID),
        ("21614", Standing.INVALID),
        ("21610", Standing.OPTED_OUT),
        ("30003", None),
        ("30007", None),
        ("30008", None),
        ("30002", None),
        ("99999", None),  # Twilio adds codes
    ],
)
def test_an_error_code_says_whether_the_number_is_at_fault(code: str, standing: Standing | None) -> None:
    event = only(signed(status("undelivered", code)))

    assert (event.fate, event.standing, event.known, event.code) == (Fate.UNDELIVERED, standing, True, code)
    assert event.detail == CODES.get(code, (None, ""))[1]


def test_an_error_code_counts_only_where_the_message_was_lost() -> None:
    assert only(signed(status("delivered", "30005"))).standing is None
    assert only(signed(status("undelivered", "0"))).code == "undelivered"


def test_a_new_status_is_kept_and_not_known() -> None:
    event = only(signed(status("teleported")))

    assert (event.fate, event.known, event.code) == (None, False, "teleported")
    assert event.delivery_id == DELIVERY


def test_an_old_callback_without_our_id_names_no_delivery() -> None:
    assert only(signed(status("sent"), query="")).delivery_id is None


@pytest.mark.parametrize(
    "body",
    ["STOP", "stop", " Stop. ", "StopAll", "UNSUBSCRIBE", "Cancel!", "end", "QUIT", "revoke", "OptOut", '"stop"'],
)  # fmt: skip
def test_a_stop_is_of_the_number_it_came_from(body: str) -> None:
    event = only(signed(text(body), query=""))

    assert (event.standing, event.address, event.code) == (Standing.OPTED_OUT, CANARY, "STOP")
    assert (event.fate, event.delivery_id, event.known) == (None, None, True)


@pytest.mark.parametrize("body", ["START", "unstop", " Yes "])
def test_a_start_takes_it_back(body: str) -> None:
    event = only(signed(text(body), query=""))

    assert (event.standing, event.address) == (Standing.OPTED_IN, CANARY)


@pytest.mark.parametrize(
    "body", ["", "please stop writing", "stop it", "yes please", "HELP", "no", "stop\x00"]
)
def test_any_other_text_says_nothing(body: str) -> None:
    assert list(provider().events(signed(text(body), query=""))) == []


def test_twilios_own_reading_of_a_text_comes_first() -> None:
    assert only(signed(text("Arrêt", OptOutType="STOP"))).standing is Standing.OPTED_OUT
    assert only(signed(text("ja", OptOutType="START"))).standing is Standing.OPTED_IN
    assert list(provider().events(signed(text("stop", OptOutType="HELP")))) == []
    odd = only(signed(text("stop", OptOutType="PAUSE")))
    assert (odd.known, odd.standing, odd.code) == (False, None, "PAUSE")


# --- who sent it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("callback", "called"),
    [
        (URL, URL),
        (f"{URL}?tenant=a", URL),
        (URL, "https://hooks.shop.example:443/hooks/twilio"),
        ("https://hooks.shop.example:8443/hooks/twilio", "https://hooks.shop.example:8443/hooks/twilio"),
        ("https://hooks.shop.example:8443/hooks/twilio", "https://hooks.shop.example/hooks/twilio"),
        ("https://hooks.shop.example", "https://hooks.shop.example"),
        ("https://[::1]/hooks", "https://[::1]/hooks"),
    ],
)
def test_what_twilios_sdk_signs_is_believed(callback: str, called: str) -> None:
    query = f"tenant=a&{QUERY}" if "tenant" in callback else QUERY
    fields = {**status("sent"), "Odd": "ü & 日本 = +%", "Empty": ""}

    provider(status_callback=callback).verify(signed(fields, url=called, query=query))


def test_the_url_that_send_gives_is_the_one_that_is_verified() -> None:
    with HttpPeer(Reply(201, resource())) as peer:
        sending = provider(url=peer.url, status_callback=f"{URL}?tenant=a%20b")
        message = replace(a_message("sms", NUMBER, TextContent("hello")), delivery_id=str(uuid.uuid4()))
        sending.send(message, Deadline(10))
        sending.close()
    called = dict(parse_qsl(peer.requests[0].body.decode()))["StatusCallback"]

    base, _, query = called.partition("?")
    receipt = signed(status("delivered"), url=base, query=query)
    sending.verify(receipt)

    assert next(iter(sending.events(receipt))).delivery_id == message.delivery_id


def test_texts_may_come_in_at_another_url() -> None:
    inbound = "https://texts.shop.example/in"
    receipt = signed(text("stop"), url=inbound, query="")

    provider(inbound_url=inbound).verify(receipt)
    provider(inbound_url=inbound).verify(signed(status("sent")))
    assert is_refused(provider().verify, receipt)


def test_both_tokens_hold_while_one_replaces_the_other() -> None:
    both = provider(auth_token_previous=OLD_TOKEN)

    both.verify(signed(status("sent")))
    both.verify(signed(status("sent"), token=OLD_TOKEN))
    assert is_refused(provider().verify, signed(status("sent"), token=OLD_TOKEN))
    with pytest.raises(Misconfigured, match="auth_token_previous is nothing without auth_token"):
        provider(auth_token=None, api_key="SK" + "0" * 32, api_secret="s", auth_token_previous=OLD_TOKEN)


def test_beside_an_api_key_the_token_is_for_receipts_alone() -> None:
    keyed = {"api_key": "SK" + "0" * 32, "api_secret": "the-secret"}

    provider(**keyed).verify(signed(status("sent")))
    with pytest.raises(Forged, match="write auth_token beside it"):
        provider(**keyed, auth_token=None).verify(signed(status("sent")))


def test_without_a_callback_url_nothing_is_believed() -> None:
    with pytest.raises(Forged, match="status_callback is missing"):
        provider(status_callback=None).verify(signed(status("sent")))


@pytest.mark.parametrize("option", ["status_callback", "inbound_url"])
def test_a_public_url_is_https(option: str) -> None:
    with pytest.raises(Misconfigured, match=f"{option} is no https:// URL"):
        provider(**{option: "http://hooks.shop.example/x"})


def test_no_other_signature_is_believed() -> None:
    good = signed(status("delivered", "0"))
    verify = provider().verify
    signature = good.header(HEADER)

    changed = set(characters_changed(signature)) | {
        each.decode("latin-1") for each in bits_flipped(signature.encode())
    }
    assert len(changed) > 200
    for each in changed - {signature}:
        assert is_refused(verify, with_header(good, HEADER, each)), each
    for odd in (None, "", "not base64", "é", "\ud800", "=" * 28):
        assert is_refused(verify, with_header(good, HEADER, odd))


def test_no_other_query_is_believed() -> None:
    good = signed(status("delivered"))
    changed = set(characters_changed(QUERY)) | {
        each.decode("latin-1") for each in bits_flipped(QUERY.encode())
    }

    for each in changed - {QUERY}:
        assert is_refused(provider().verify, replace(good, query=each)), each


def test_no_other_body_is_believed_unless_it_says_the_same() -> None:
    """The signature covers decoded fields: `%2B` and `%2b` are one. A change of what is said is refused."""
    good = signed(status("delivered", "30003"))
    said = sorted(parse_qsl(good.body.decode()))
    text_of = good.body.decode()
    changed = {*bits_flipped(good.body), *(each.encode() for each in characters_changed(text_of))}

    verify, passed = provider().verify, 0
    for each in changed - {good.body}:
        if not is_refused(verify, replace(good, body=each)):
            passed += 1
            assert sorted(parse_qsl(each.decode(), keep_blank_values=True)) == said
    assert passed <= 4


def test_a_body_that_is_no_utf_8_is_not_read_as_if_it_were() -> None:
    good = signed({**status("sent"), "Odd": "\ufffd"})
    provider().verify(good)

    for broken in (b"%FF", b"%80%80", b"\xff", b"\xef\xbf\xbd"):
        assert is_refused(provider().verify, replace(good, body=good.body.replace(b"%EF%BF%BD", broken)))


def test_a_signature_is_for_one_url() -> None:
    for elsewhere in (
        "http://hooks.shop.example/hooks/twilio",
        f"{URL}/",
        "https://hooks.shop.example/hooks/x",
    ):
        assert is_refused(provider().verify, signed(status("sent"), url=elsewhere))


# --- whatever comes ---------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(noise)
def test_noise_is_refused_and_unreadable(receipt: Receipt) -> None:
    noisy = provider()

    assert is_refused(noisy.verify, receipt)
    read(noisy, receipt)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["MessageSid", "MessageStatus", "ErrorCode", "Body", "From", "OptOutType"]), st.text()
    )
)
def test_odd_fields_are_events_or_unreadable(fields: dict[str, str]) -> None:
    receipt = a_receipt(urlencode(fields, errors="replace").encode(), "delivery_id=%00&delivery_id=' OR 1")

    for event in read(provider(), receipt) or []:
        assert len(event.id) <= 200
        assert event.delivery_id is None
        assert len(event.code) <= 61


def test_a_receipt_does_not_wait_for_the_sdk() -> None:
    receipt = signed(status("sent"))
    program = f"""
import sys
from channels.loader import load
from channels.receipts import Receipt
receipt = Receipt("POST", {QUERY!r}, {dict(receipt.headers)!r}, {receipt.body!r})
options = {{"account_sid": {ACCOUNT!r}, "auth_token": {TOKEN!r}, "from": "70123", "status_callback": {URL!r}}}
built = load("sms.twilio", "tw", options)
built.verify(receipt)
assert built.events(receipt)
assert "twilio" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_it_tells_no_address_and_no_token() -> None:
    reporting = provider(auth_token_previous=OLD_TOKEN)
    receipt = signed(status("undelivered", "30005"))
    events = reporting.events(receipt)

    assert isinstance(reporting, Reporting)
    assert events[0].address == CANARY
    told = repr(events) + repr(receipt) + events[0].detail
    with pytest.raises(Forged) as caught:
        reporting.verify(with_header(receipt, HEADER, "x"))
    told += str(caught.value) + repr(caught.value)
    assert CANARY[1:] not in told
    for secret in (TOKEN, OLD_TOKEN):
        assert secret not in told + dump(reporting)
