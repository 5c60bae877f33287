"""What `sms.http` makes of a gateway's reports, as its configuration describes them."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.contract import Deadline, Misconfigured, TextContent
from channels.loader import load
from channels.receipts import Event, Fate, Forged, Receipt, Reporting, Standing, Unreadable
from channels.sms.http import Gateway
from tests.contract.conformance import a_message, dump
from tests.contract.http_peer import HttpPeer, Reply
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

TOKEN = "x9-Kq3v8d1n5s7w9y2c4f6h"
SECRET = "p0o9i8u7y6t5r4e3w2q1"
DELIVERY = "0193b1f2-7c1d-7e3a-9f00-5a1b2c3d4e5f"
HEADER = "x-acme-signature"
STATUSES = {
    "ACCEPTED": "accepted",
    "SENT": "sent",
    "DELIVERED": "delivered",
    "READ": "read",
    "LOST": "undelivered",
    "DEAD": "undelivered address-invalid",
    "STOP": "opted-out",
    "START": "opted-in",
    "SPAM": "complained",
    "6": "undelivered",
}
NESTED: dict[str, Any] = {
    "list": "results",
    "id": "reference",
    "message_id": "messageId",
    "status": "status.name",
    "address": "to",
    "token": TOKEN,
    "statuses": STATUSES,
}
FLAT: dict[str, Any] = {"id": "ref", "status": "state", "token": TOKEN, "statuses": STATUSES}


def provider(receipts: object = None, **changes: Any) -> Gateway:
    options = {
        "url": "https://gateway.acme.example",
        "path": "/v2/messages",
        "body": {"to": "{to}", "text": "{text}", "reference": "{id}"},
        "receipts": receipts,
        **changes,
    }
    built = load("sms.http", "acme", {name: each for name, each in options.items() if each is not None})
    assert isinstance(built, Gateway)
    return built


def reports(*entries: Mapping[str, Any], query: str = f"token={TOKEN}") -> Receipt:
    return a_receipt(json.dumps({"results": entries}).encode(), query)


def a_report(status: object, **fields: Any) -> dict[str, Any]:
    return {
        "messageId": "m-1",
        "reference": DELIVERY,
        "to": CANARY[1:],
        "status": {"id": 5, "name": status},
        **fields,
    }


def only(receipt: Receipt, receipts: Mapping[str, Any] = NESTED) -> Event:
    reading = provider(receipts)
    reading.verify(receipt)
    (event,) = reading.events(receipt)
    return event


@pytest.mark.parametrize(
    ("status", "fate", "standing"),
    [
        ("ACCEPTED", Fate.ACCEPTED, None),
        ("SENT", Fate.SENT, None),
        ("DELIVERED", Fate.DELIVERED, None),
        ("READ", Fate.READ, None),
        ("LOST", Fate.UNDELIVERED, None),
        ("DEAD", Fate.UNDELIVERED, Standing.INVALID),
        ("STOP", None, Standing.OPTED_OUT),
        ("START", None, Standing.OPTED_IN),
        ("SPAM", None, Standing.COMPLAINED),
        (6, Fate.UNDELIVERED, None),
    ],
)
def test_a_status_is_what_the_table_says(
    status: object, fate: Fate | None, standing: Standing | None
) -> None:
    event = only(reports(a_report(status)))

    assert (event.fate, event.standing, event.known, event.code) == (fate, standing, True, str(status))
    assert (event.delivery_id, event.provider_message_id, event.address) == (DELIVERY, "m-1", CANARY)


@pytest.mark.parametrize("status", ["TELEPORTED", "delivered", "", None, True, ["DELIVERED"], {"a": 1}])
def test_any_other_status_is_kept_and_not_known(status: object) -> None:
    event = only(reports(a_report(status)))

    assert (event.fate, event.standing, event.known) == (None, None, False)
    assert event.delivery_id == DELIVERY


def test_a_report_may_be_the_body_or_an_array() -> None:
    entry = {"ref": DELIVERY, "state": "SENT"}
    for body in (entry, [entry]):
        assert only(a_receipt(json.dumps(body).encode(), f"token={TOKEN}"), FLAT).fate is Fate.SENT


def test_a_report_may_be_a_form_or_a_query() -> None:
    said = urlencode({"ref": DELIVERY, "state": "SENT"})

    form = only(a_receipt(said.encode(), f"token={TOKEN}"), {**FLAT, "format": "form"})
    query = only(a_receipt(b"", f"{said}&token={TOKEN}"), {**FLAT, "format": "query"})

    for event in (form, query):
        assert (event.fate, event.delivery_id) == (Fate.SENT, DELIVERY)


def test_our_id_may_come_back_in_the_urls_query() -> None:
    receipt = a_receipt(b'{"state": "SENT"}', f"token={TOKEN}&ours={DELIVERY}")

    assert only(receipt, {**FLAT, "id": "query.ours"}).delivery_id == DELIVERY


def test_the_id_that_send_gives_comes_back() -> None:
    message = replace(a_message("sms", CANARY, TextContent("hello")), delivery_id=str(uuid.uuid4()))
    with HttpPeer(Reply(200, {})) as peer:
        sending = provider(NESTED, url=peer.url)
        sending.send(message, Deadline(10))
        sending.close()
    reference = json.loads(peer.requests[0].body)["reference"]

    assert only(reports(a_report("DELIVERED", reference=reference))).delivery_id == message.delivery_id


def test_a_report_that_is_told_again_has_the_same_id_and_another_one_has_another() -> None:
    first, again, later = (only(reports(a_report(each))) for each in ("SENT", "SENT", "DELIVERED"))

    assert first.id == again.id != later.id


# --- who sent it ------------------------------------------------------------------------------------


def test_no_other_query_lets_in() -> None:
    right, verify = f"token={TOKEN}", provider(NESTED).verify
    changed = {*characters_changed(right), *(each.decode("latin-1") for each in bits_flipped(right.encode()))}

    verify(reports(query=right))
    for each in changed - {right}:
        assert is_refused(verify, reports(query=each)), each
    for each in ("", "token=", f"{right}&{right}", TOKEN):
        assert is_refused(verify, reports(query=each)), each


def signing() -> dict[str, Any]:
    rest = {name: each for name, each in NESTED.items() if name != "token"}
    return {**rest, "signature": "X-Acme-Signature", "secret": SECRET}


@pytest.mark.parametrize("form", ["hex", "base64", "prefixed"])
def test_no_other_signature_or_body_lets_in(form: str) -> None:
    verify, plain = provider(signing()).verify, reports(a_report("SENT"), query="")
    raw = hmac.new(SECRET.encode(), plain.body, hashlib.sha256)
    value = {
        "hex": raw.hexdigest(),
        "base64": b64encode(raw.digest()).decode(),
        "prefixed": f"sha256={raw.hexdigest()}",
    }[form]
    good = with_header(plain, HEADER, value)
    verify(good)

    changed = {*characters_changed(value), *(each.decode("latin-1") for each in bits_flipped(value.encode()))}
    for each in changed - {value}:
        assert is_refused(verify, with_header(good, HEADER, each)), each
    for body in bits_flipped(good.body):
        assert is_refused(verify, replace(good, body=body))
    for odd in (None, "", "é", "\ud800"):
        assert is_refused(verify, with_header(good, HEADER, odd))


def test_without_the_option_nothing_is_believed() -> None:
    with pytest.raises(Forged, match="the option receipts is missing"):
        provider().verify(reports())
    with pytest.raises(Unreadable, match="the option receipts is missing"):
        provider().events(reports())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"status": None}, "receipts.status is missing"),
        ({"id": None, "address": None}, "receipts.id is missing"),
        ({"statuses": None}, "receipts.statuses is no table"),
        ({"statuses": {}}, "receipts.statuses is no table"),
        ({"statuses": {"A": "arrived"}}, "one fate, one standing"),
        ({"statuses": {"A": "sent delivered"}}, "one fate, one standing"),
        ({"statuses": {"A": 7}}, "one fate, one standing"),
        ({"token": None}, "receipts.token or receipts.signature"),
        ({"signature": "X-A", "secret": SECRET}, "receipts.token or receipts.signature"),
        ({"token": None, "signature": "X-A"}, "receipts.secret and receipts.signature go together"),
        ({"token": None, "secret": SECRET}, "receipts.secret and receipts.signature go together"),
        ({"token": None, "secret": SECRET, "signature": "X A"}, "receipts.signature is no header"),
        ({"format": "xml"}, "receipts.format"),
        ({"path": "x"}, "receipts.path is no option"),
        ({"status": "a..b"}, "receipts.status is no path"),
    ],
)
def test_a_table_that_is_wrong_is_refused_at_once(changes: dict[str, Any], sentence: str) -> None:
    table = {name: each for name, each in {**NESTED, **changes}.items() if each is not None}
    with pytest.raises(Misconfigured, match=sentence) as caught:
        provider(table)
    assert SECRET not in str(caught.value)
    with pytest.raises(Misconfigured, match="receipts is no table"):
        provider("yes")


# --- whatever comes ---------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(noise, st.sampled_from([NESTED, signing(), {**FLAT, "format": "form"}, {**FLAT, "format": "query"}]))
def test_noise_is_refused_and_unreadable(receipt: Receipt, table: dict[str, Any]) -> None:
    assert is_refused(provider(table).verify, receipt)
    for event in read(provider(table), receipt) or []:
        assert not event.known


@pytest.mark.parametrize(
    "body", [b"", b"{", b"7", b'{"results": 7}', b'{"results": [7]}', b"[" * 50_000, b"[]"]
)
def test_what_is_no_batch_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        provider(NESTED).events(a_receipt(body))


def test_it_tells_no_number_and_no_secret() -> None:
    receipt = reports(a_report(CANARY[1:]))
    told = ""
    for table in (NESTED, signing()):
        reporting = provider(table)
        assert isinstance(reporting, Reporting)
        with pytest.raises(Forged) as caught:
            reporting.verify(replace(receipt, query=f"token={TOKEN}x"))
        told += repr(reporting.events(receipt)) + repr(receipt) + repr(caught.value) + dump(reporting)
    for private in (CANARY[1:], TOKEN, SECRET):
        assert private not in told
