"""What `email.sendgrid` makes of SendGrid's Event Webhook. A batch that SendGrid published is the judge."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.contract import Deadline, EmailContent, Misconfigured
from channels.email._sendgrid_events import Signer, read_keys
from channels.email.sendgrid import SendGridProvider
from channels.http import Options
from channels.loader import load
from channels.receipts import Event, Fate, Forged, Receipt, Reporting, Standing, Unreadable
from tests.contract.conformance import a_message, dump
from tests.contract.http_peer import HttpPeer, Reply
from tests.contract.receipt_attacks import (
    CANARY_MAIL,
    a_receipt,
    bits_flipped,
    characters_changed,
    is_refused,
    noise,
    read,
    with_header,
)

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"
PRIVATE = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
UNAVAILABLE = {"bounce_classification": "Mailbox Unavailable"}
DELIVERY = "0193b1f2-7c1d-7e3a-9f00-5a1b2c3d4e5f"

# As the tests of SendGrid's own library for Python have it.
PUBLISHED_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1"
    "flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g=="
)
PUBLISHED = a_receipt(
    b'[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address",'
    b'"sg_event_id":"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",'
    b'"sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",'
    b'"smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>","timestamp":1600112492}]\r\n',
    X_Twilio_Email_Event_Webhook_Signature=(
        "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM="
    ),
    X_Twilio_Email_Event_Webhook_Timestamp="1600112502",
)
SIGNED_AT = 1600112502.0


def public(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    raw = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(raw).decode()


def provider(**changes: Any) -> SendGridProvider:
    options = {"api_key": "SG.key", "sender": "shop@shop.example", "webhook_key": public(PRIVATE), **changes}
    built = load("email.sendgrid", "sg", {name: each for name, each in options.items() if each is not None})
    assert isinstance(built, SendGridProvider)
    return built


def published() -> Signer:
    given = Options("email.sendgrid", "sg", {"webhook_key": PUBLISHED_KEY}, ["webhook_key"])
    return Signer(read_keys(given, PUBLISHED_KEY))


def an_event(kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "email": CANARY_MAIL,
        "timestamp": 1513299569,
        "event": kind,
        "sg_event_id": "rbtnWrG1DVDGGGFHFyun0A==",
        "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.000000000000000000000",
        "delivery_id": DELIVERY,
        **fields,
    }


def batch(
    *events: Mapping[str, Any], key: ec.EllipticCurvePrivateKey = PRIVATE, at: float | None = None
) -> Receipt:
    """A batch as SendGrid writes and signs it."""
    body = json.dumps(events, separators=(",", ":")).encode() + b"\r\n"
    stamp = str(int(time.time() if at is None else at))
    raw = key.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return a_receipt(
        body,
        X_Twilio_Email_Event_Webhook_Signature=base64.b64encode(raw).decode(),
        X_Twilio_Email_Event_Webhook_Timestamp=stamp,
    )


def only(entry: Mapping[str, Any]) -> Event:
    (event,) = provider().events(batch(entry))
    return event


# --- what an event says -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields", "fate", "standing", "code"),
    [
        ("processed", {}, Fate.ACCEPTED, None, "processed"),
        ("deferred", {"response": "400 try again later"}, Fate.ACCEPTED, None, "deferred"),
        ("deferred", {"status": "4.2.2"}, Fate.ACCEPTED, None, "4.2.2"),
        ("delivered", {"response": "250 OK"}, Fate.DELIVERED, None, "delivered"),
        ("open", {"sg_machine_open": False}, Fate.READ, None, "open"),
        ("open", {"sg_machine_open": True}, Fate.DELIVERED, None, "open"),
        ("click", {"url": "https://shop.example"}, Fate.READ, None, "click"),
        ("bounce", {"type": "bounce", "status": "5.1.1"}, Fate.UNDELIVERED, Standing.INVALID, "5.1.1"),
        ("bounce", {"type": "bounce", "status": "5.0.0"}, Fate.UNDELIVERED, Standing.INVALID, "5.0.0"),
        ("bounce", {"type": "bounce"}, Fate.UNDELIVERED, Standing.INVALID, "bounce"),
        ("bounce", {"bounce_classification": "Invalid Address"}, Fate.UNDELIVERED, Standing.INVALID, "bounce"),
        ("bounce", {"bounce_classification": "Unclassified"}, Fate.UNDELIVERED, Standing.INVALID, "bounce"),
        ("bounce", {"bounce_classification": "Content"}, Fate.UNDELIVERED, None, "bounce"),
        ("bounce", {"bounce_classification": "Reputation"}, Fate.UNDELIVERED, None, "bounce"),
        ("bounce", {"bounce_classification": "Technical"}, Fate.UNDELIVERED, None, "bounce"),
        ("bounce", {"bounce_classification": "Frequency or Volume Too High"}, Fate.UNDELIVERED, None, "bounce"),
        ("bounce", {**UNAVAILABLE, "status": "5.2.2"}, Fate.UNDELIVERED, None, "5.2.2"),
        ("bounce", {**UNAVAILABLE, "status": "5.2.1"}, Fate.UNDELIVERED, Standing.INVALID, "5.2.1"),
        ("bounce", {"type": "bounce", "status": "5.2.2"}, Fate.UNDELIVERED, None, "5.2.2"),
        ("bounce", {"type": "bounce", "status": "5.7.1"}, Fate.UNDELIVERED, None, "5.7.1"),
        ("bounce", {"type": "blocked", "status": "5.1.1"}, Fate.UNDELIVERED, None, "5.1.1"),
        ("bounce", {"type": "blocked"}, Fate.UNDELIVERED, None, "bounce"),
        ("dropped", {"reason": "Bounced Address"}, Fate.UNDELIVERED, Standing.INVALID, "dropped"),
        ("dropped", {"reason": "Invalid"}, Fate.UNDELIVERED, Standing.INVALID, "dropped"),
        ("dropped", {"reason": "Unsubscribed Address"}, Fate.UNDELIVERED, Standing.OPTED_OUT, "dropped"),
        ("dropped", {"reason": "Spam Reporting Address"}, Fate.UNDELIVERED, Standing.COMPLAINED, "dropped"),
        ("dropped", {"reason": "Spam Content (if Spam Checker app enabled)"}, Fate.UNDELIVERED, None, "dropped"),
        ("dropped", {"reason": "Recipient List over Package Quota"}, Fate.UNDELIVERED, None, "dropped"),
        ("spamreport", {}, Fate.DELIVERED, Standing.COMPLAINED, "spamreport"),
        ("unsubscribe", {}, Fate.DELIVERED, Standing.OPTED_OUT, "unsubscribe"),
        ("group_unsubscribe", {"asm_group_id": 10}, Fate.DELIVERED, Standing.OPTED_OUT, "group_unsubscribe"),
        ("group_resubscribe", {"asm_group_id": 10}, Fate.DELIVERED, Standing.OPTED_IN, "group_resubscribe"),
    ],
)  # fmt: skip
def test_an_event_says_a_fate_and_a_standing(
    kind: str, fields: dict[str, Any], fate: Fate, standing: Standing | None, code: str
) -> None:
    event = only(an_event(kind, **fields))

    assert (event.fate, event.standing, event.code, event.known) == (fate, standing, code, True)
    assert (event.delivery_id, event.address) == (DELIVERY, CANARY_MAIL)
    assert event.provider_message_id == "14c5d75ce93.dfd.64b469"  # as X-Message-Id had it
    assert event.id == "rbtnWrG1DVDGGGFHFyun0A=="
    assert event.at == datetime(2017, 12, 15, 0, 59, 29, tzinfo=UTC)


def test_a_new_event_is_kept_and_not_known() -> None:
    for kind in ("teleported", "account_status_change"):
        event = only(an_event(kind))
        assert (event.known, event.fate, event.standing, event.code) == (False, None, None, kind)


@pytest.mark.parametrize(
    "timestamp", [10**400, -1, 1e300, float("nan"), float("inf"), True, "1513299569", None]
)
def test_a_time_that_is_none_is_left_out(timestamp: object) -> None:
    assert only(an_event("open", timestamp=timestamp)).at is None


@pytest.mark.parametrize(
    "address", ["a\x00@b.c", "a\n@b.c", "\ud800@b.c", "no address", "x" * 320 + "@b.c", 7, None]
)
def test_an_address_that_is_none_is_left_out(address: object) -> None:
    assert only(an_event("spamreport", email=address)).address is None


def test_a_batch_is_told_in_its_order_and_again_with_the_same_ids() -> None:
    entries = [
        an_event("processed", sg_event_id=None),
        an_event("delivered", sg_event_id="b"),
        an_event("open"),
    ]
    events = provider().events(batch(*entries))
    again = provider().events(batch(*entries, at=1))

    assert [each.code for each in events] == ["processed", "delivered", "open"]
    assert [each.id for each in events] == [each.id for each in again]
    assert len({each.id for each in events}) == 3


def test_the_custom_argument_that_send_gives_comes_back() -> None:
    message = replace(
        a_message("email", CANARY_MAIL, EmailContent("Hello", "Hello.")), delivery_id=str(uuid.uuid4())
    )
    with HttpPeer(Reply(202, headers={"X-Message-Id": "14c5d75ce93.dfd.64b469"})) as peer:
        sending = provider(url=peer.url)
        accepted = sending.send(message, Deadline(10))
        sending.close()
    arguments = json.loads(peer.requests[0].body)["custom_args"]

    (event,) = sending.events(batch({**an_event("delivered"), **arguments}))

    assert event.delivery_id == message.delivery_id
    assert event.provider_message_id == accepted.provider_message_id


@pytest.mark.parametrize(
    "body", [b"", b"{", b"7", b'"x"', b"[7]", b"[[]]", b"[" * 50_000, b"\xff", b"9" * 5000]
)
def test_what_is_no_batch_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        provider().events(a_receipt(body))


# --- who sent it ------------------------------------------------------------------------------------


def test_what_sendgrid_signed_is_believed() -> None:
    published().verify(PUBLISHED, SIGNED_AT)

    (event,) = provider().events(PUBLISHED)
    assert (event.fate, event.standing) == (Fate.UNDELIVERED, Standing.INVALID)
    assert event.provider_message_id == "LRzXl_NHStOGhQ4kofSm_A"


def test_no_other_body_is_believed() -> None:
    signer = published()

    def verify(receipt: Receipt) -> None:
        signer.verify(receipt, SIGNED_AT)

    for each in bits_flipped(PUBLISHED.body):
        assert is_refused(verify, replace(PUBLISHED, body=each))
    for each in (PUBLISHED.body.strip(), PUBLISHED.body + b" ", b" " + PUBLISHED.body):
        assert is_refused(verify, replace(PUBLISHED, body=each))


@pytest.mark.parametrize("name", [SIGNATURE, TIMESTAMP])
def test_no_other_header_is_believed(name: str) -> None:
    signer, value = published(), PUBLISHED.header(name)

    def verify(receipt: Receipt) -> None:
        signer.verify(receipt, SIGNED_AT)

    changed = set(characters_changed(value)) | {
        each.decode("latin-1") for each in bits_flipped(value.encode())
    }
    for each in changed - {value}:
        assert is_refused(verify, with_header(PUBLISHED, name, each)), each
    for odd in (None, "", "not base64", "é", "\ud800", "١٦٠٠١١٢٥٠٢", "AAAA", "9" * 40, "-1", "1e9"):
        assert is_refused(verify, with_header(PUBLISHED, name, odd))


@pytest.mark.parametrize("off", [-601.0, 601.0, 86_400.0])
def test_an_old_receipt_is_not_believed(off: float) -> None:
    with pytest.raises(Forged, match="timestamp"):
        published().verify(PUBLISHED, SIGNED_AT + off)
    published().verify(PUBLISHED, SIGNED_AT + 599)
    published().verify(PUBLISHED, SIGNED_AT - 599)


def test_the_clock_is_this_machines() -> None:
    provider().verify(batch(an_event("open")))
    assert is_refused(provider().verify, batch(an_event("open"), at=time.time() - 700))


def test_both_keys_hold_while_one_replaces_the_other() -> None:
    both = provider(webhook_key=[public(PRIVATE), public(OTHER)])

    both.verify(batch(an_event("open")))
    both.verify(batch(an_event("open"), key=OTHER))
    assert is_refused(provider().verify, batch(an_event("open"), key=OTHER))


def test_without_a_key_nothing_is_believed() -> None:
    with pytest.raises(Forged, match="webhook_key; copy"):
        provider(webhook_key=None).verify(batch(an_event("open")))


@pytest.mark.parametrize(
    "key",
    [
        "not base64",
        "AAAA",
        PUBLISHED_KEY[:-8],
        public(ec.generate_private_key(ec.SECP384R1())),
        public(rsa.generate_private_key(65537, 2048)),
        [],
        7,
    ],
)
def test_a_key_that_is_none_is_refused_at_once(key: object) -> None:
    with pytest.raises(Misconfigured, match="webhook_key"):
        provider(webhook_key=key)


# --- whatever comes ---------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(noise)
def test_noise_is_refused_and_unreadable(receipt: Receipt) -> None:
    assert is_refused(provider().verify, receipt)
    read(provider(), receipt)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["bounce", "open"])),
    lambda inside: st.one_of(st.lists(inside, max_size=3), st.dictionaries(st.text(), inside, max_size=3)),
    max_leaves=5,
)  # fmt: skip
names = st.sampled_from(
    ["event", "sg_event_id", "sg_message_id", "email", "timestamp", "reason", "type", "status"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(names, values), max_size=3))
def test_odd_events_are_events(entries: list[dict[str, Any]]) -> None:
    for event in provider().events(a_receipt(json.dumps(entries).encode())):
        assert 0 < len(event.id) <= 200
        assert event.code
        assert event.address is None or event.address.isprintable()


def test_it_tells_no_address_and_no_key() -> None:
    reporting = provider()
    receipt = batch(an_event("bounce", type="bounce", reason=f"550 5.1.1 <{CANARY_MAIL}> unknown"))
    events = reporting.events(receipt)

    assert isinstance(reporting, Reporting)
    with pytest.raises(Forged) as caught:
        reporting.verify(with_header(receipt, TIMESTAMP, "1"))
    told = repr(events) + repr(receipt) + events[0].detail + str(caught.value) + dump(reporting)
    assert "canary" not in told
    assert "SG.key" not in told
