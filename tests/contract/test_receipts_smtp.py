"""What `email.smtp` makes of the mails that come back: reports of RFC 3464 and RFC 5965, and everything else."""

from __future__ import annotations

import re
import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from email import message_from_bytes
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.contract import Deadline, EmailContent, Message, Misconfigured, Refused
from channels.email._bounces import MAX_READ
from channels.email._return_path import read_return_path
from channels.email.smtp import SmtpProvider
from channels.loader import load
from channels.receipts import Event, Fate, Forged, Receipt, Reporting, Standing, Unreadable
from tests.contract.conformance import a_message, dump
from tests.contract.receipt_attacks import (
    CANARY_MAIL,
    a_receipt,
    bits_flipped,
    characters_changed,
    is_refused,
    noise,
    read,
)
from tests.contract.smtp_peers import ScriptedRelay, real_relay

DOMAIN = "bounces.shop.example"
KEY = "kq3v8d1n5s7w9y2c4f6h"
OLD_KEY = "p0o9i8u7y6t5r4e3w2q1"
DELIVERY = "0193b1f2-7c1d-7e3a-9f00-5a1b2c3d4e5f"
ELSE = "0193b1f2-7c1d-7e3a-9f00-5a1b2c3d4e60"


def provider(**changes: Any) -> SmtpProvider:
    options = {
        "url": "smtp+plain://127.0.0.1:1",
        "sender": "Shop <hello@shop.example>",
        "bounce_domain": DOMAIN,
        "bounce_key": KEY,
        **changes,
    }
    built = load("email.smtp", "relay", {name: each for name, each in options.items() if each is not None})
    assert isinstance(built, SmtpProvider)
    return built


def return_path(delivery_id: str = DELIVERY, key: str = KEY) -> str:
    path = read_return_path("relay", {"bounce_domain": DOMAIN, "bounce_key": key})
    assert path is not None
    return path.address(delivery_id)


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def report(fields: str, *, to: str | None = None, original: str = "", head: str = "") -> Receipt:
    """A report as a mail server writes it, with the fields of one recipient."""
    to = return_path() if to is None else to
    text = f"""\
{head}Return-Path: <>
Delivered-To: {to}
Date: Thu, 07 Jul 1994 17:16:05 -0400
From: Mail Delivery Subsystem <MAILER-DAEMON@mx.customer.example>
Message-Id: <199407072116.RAA14128@mx.customer.example>
To: <{to}>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
 boundary="RAA14128.773615765/mx"
Subject: Returned mail
Auto-Submitted: auto-replied

--RAA14128.773615765/mx

The mail for {CANARY_MAIL} could not be delivered.

--RAA14128.773615765/mx
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.customer.example
Arrival-Date: Thu, 07 Jul 1994 16:00:00 -0400

{fields}
--RAA14128.773615765/mx
Content-Type: message/rfc822

{original}From: Shop <hello@shop.example>
To: {CANARY_MAIL}
Subject: Your order

It left today.
--RAA14128.773615765/mx--
"""
    return a_receipt(crlf(text), Content_Type="message/rfc822")


def recipient(action: str, status: str, diagnostic: str = "") -> str:
    lines = [
        f"Original-Recipient: rfc822; {CANARY_MAIL}",
        f"Final-Recipient: rfc822; {CANARY_MAIL}",
        f"Action: {action}",
        f"Status: {status}",
    ]
    if diagnostic:
        lines.append(f"Diagnostic-Code: {diagnostic}")
    return "\n".join((*lines, "Last-Attempt-Date: Thu, 7 Jul 1994 17:15:49 -0400", ""))


def complaint(kind: str, *, original_from: str | None = None) -> Receipt:
    """A complaint of a feedback loop (RFC 5965, appendix B): it has our return path in a field alone."""
    text = f"""\
From: <abusedesk@customer.example>
Date: Thu, 8 Mar 2005 17:40:36 -0500
Subject: FW: Your order
To: <feedback@shop.example>
Message-Id: <20050308174036.1@customer.example>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report;
 boundary="part1_13d.2e68ed54_boundary"

--part1_13d.2e68ed54_boundary
Content-Type: text/plain; charset="US-ASCII"

This is an email abuse report.

--part1_13d.2e68ed54_boundary
Content-Type: message/feedback-report

Feedback-Type: {kind}
User-Agent: SomeGenerator/1.0
Version: 1
Original-Mail-From: <{original_from or return_path()}>
Original-Rcpt-To: <{CANARY_MAIL}>
Arrival-Date: Thu, 8 Mar 2005 14:00:00 EST

--part1_13d.2e68ed54_boundary
Content-Type: message/rfc822

From: <hello@shop.example>
Subject: Your order

It left today.
--part1_13d.2e68ed54_boundary--
"""
    return a_receipt(crlf(text))


def letter(head: str, body: str = "I am away.") -> Receipt:
    return a_receipt(crlf(f"To: <{return_path()}>\nFrom: {CANARY_MAIL}\n{head}\n\n{body}\n"))


def only(receipt: Receipt) -> Event:
    reading = provider()
    reading.verify(receipt)
    (event,) = reading.events(receipt)
    return event


def a_mail(delivery_id: str | None = None) -> Message:
    made = a_message("email", CANARY_MAIL, EmailContent("Your order", "It left today."))
    return replace(made, delivery_id=delivery_id or str(uuid.uuid4()))


# --- the return path --------------------------------------------------------------------------------


def test_a_relay_sees_an_envelope_of_the_mails_own_and_the_same_from() -> None:
    message = a_mail()
    with real_relay() as relay:
        sending = provider(url=f"smtp+plain://127.0.0.1:{relay.port}")
        sending.send(message, Deadline(10))
        sending.close()

    (taken,) = relay.taken
    assert taken.sender == return_path(message.delivery_id)
    local, _, domain = taken.sender.rpartition("@")
    assert re.fullmatch(r"bounce\+[0-9a-f-]{36}\.[a-z2-7]{20}", local)
    assert len(local) == 64  # RFC 5321, section 4.5.3.1.1: that is the most
    assert domain == DOMAIN
    assert message_from_bytes(taken.content)["From"] == "Shop <hello@shop.example>"


def test_without_a_bounce_domain_the_sender_is_the_return_path() -> None:
    with ScriptedRelay() as relay:
        sending = provider(url=f"smtp+plain://127.0.0.1:{relay.port}", bounce_domain=None, bounce_key=None)
        sending.send(a_mail(), Deadline(10))
        sending.close()
        commands = relay.conversations[0].commands

    assert any(each.startswith("MAIL FROM:<hello@shop.example>") for each in commands)


@pytest.mark.parametrize("delivery_id", ["x" * 37, "a.b", "a b", "ä", "", "-x", "x\r\nRCPT TO:<a@b.c>"])
def test_an_id_that_fits_into_no_return_path_is_never_sent(delivery_id: str) -> None:
    with ScriptedRelay() as relay:
        sending = provider(url=f"smtp+plain://127.0.0.1:{relay.port}")
        with pytest.raises(Refused):
            sending.send(replace(a_mail(), delivery_id=delivery_id), Deadline(10))
        assert relay.conversations == []


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"bounce_key": None}, "bounce_key is missing"),
        ({"bounce_domain": None}, "bounce_domain is missing"),
        ({"bounce_domain": "not a domain"}, "bounce_domain is no domain"),
        ({"bounce_domain": 7}, "bounce_domain"),
        ({"bounce_key": "short"}, "bounce_key has fewer than 16 characters"),
        ({"bounce_key": [KEY, "short"]}, "bounce_key has fewer than 16 characters"),
        ({"bounce_key": "env:BOUNCE_KEY"}, "was not read from the environment"),
        ({"bounce_key": []}, "bounce_key is missing"),
    ],
)
def test_the_options_go_together(options: dict[str, Any], option: str) -> None:
    with pytest.raises(Misconfigured, match=option):
        provider(**options)


# --- what a report says -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "status", "diagnostic", "fate", "standing"),
    [
        ("failed", "5.1.1", f"smtp; 550 5.1.1 <{CANARY_MAIL}>: unknown", Fate.UNDELIVERED, Standing.INVALID),
        ("failed", "5.1.1", "", Fate.UNDELIVERED, Standing.INVALID),
        ("failed (given up)", "5.1.2 (no such host)", "", Fate.UNDELIVERED, Standing.INVALID),
        ("Failed", "5.1.3", "", Fate.UNDELIVERED, Standing.INVALID),
        ("failed", "5.1.6", "", Fate.UNDELIVERED, Standing.INVALID),
        ("failed", "5.1.10", "", Fate.UNDELIVERED, Standing.INVALID),
        ("failed", "5.2.1", "", Fate.UNDELIVERED, Standing.INVALID),
        ("failed", "5.4.4", "", Fate.UNDELIVERED, Standing.INVALID),
        ("failed", "5.0.0", "smtp; 550 no such user here", Fate.UNDELIVERED, Standing.INVALID),
        ("failed", "5.0.0", "smtp; 550-5.1.1 The account does not exist", Fate.UNDELIVERED, Standing.INVALID),
        ("failed", "5.0.0", "smtp; 550 5.7.1 rejected as spam", Fate.UNDELIVERED, None),
        ("failed", "5.0.0", "smtp; 554 no", Fate.UNDELIVERED, None),
        ("failed", "5.0.0", "x-postfix; user unknown to us", Fate.UNDELIVERED, Standing.INVALID),
        ("failed", "5.2.2", "smtp; 552 5.2.2 mailbox full", Fate.UNDELIVERED, None),
        ("failed", "5.7.1", "smtp; 554 5.7.1 blocked, user unknown to the list", Fate.UNDELIVERED, None),
        ("failed", "5.7.26", "", Fate.UNDELIVERED, None),
        ("failed", "5.6.1", "", Fate.UNDELIVERED, None),
        ("failed", "5.4.1", "smtp; 550 5.4.1 recipient address rejected", Fate.UNDELIVERED, None),
        ("failed", "4.4.7", "smtp; 451 4.4.1 timed out", Fate.UNDELIVERED, None),
        ("failed", "5.0.0", "smtp; 450 user unknown", Fate.UNDELIVERED, None),
        ("failed", "", "", Fate.UNDELIVERED, None),
        ("delayed", "4.4.1", "", Fate.ACCEPTED, None),
        ("delivered", "2.0.0", "", Fate.DELIVERED, None),
        ("relayed", "2.0.0", "", Fate.SENT, None),
        ("expanded", "2.0.0", "", Fate.SENT, None),
        ("", "5.1.1", "", Fate.UNDELIVERED, Standing.INVALID),
        ("", "4.2.2", "", Fate.ACCEPTED, None),
    ],
)  # fmt: skip
def test_a_report_is_judged_as_the_relays_own_answer_would_be(
    action: str, status: str, diagnostic: str, fate: Fate, standing: Standing | None
) -> None:
    event = only(report(recipient(action, status, diagnostic)))

    assert (event.fate, event.standing, event.known) == (fate, standing, True)
    assert event.delivery_id == DELIVERY
    assert event.code == (status.split(maxsplit=1)[0] if status else "failed")
    assert event.at is not None
    assert event.at.isoformat() == "1994-07-07T21:15:49+00:00"


def test_a_new_action_is_kept_and_not_known() -> None:
    event = only(report(recipient("teleported", "2.0.0")))

    assert (event.known, event.fate, event.code) == (False, None, "2.0.0")


@pytest.mark.parametrize(
    ("kind", "standing", "fate"),
    [
        ("abuse", Standing.COMPLAINED, Fate.DELIVERED),
        ("Fraud", Standing.COMPLAINED, Fate.DELIVERED),
        ("opt-out", Standing.OPTED_OUT, Fate.DELIVERED),
        ("not-spam", None, Fate.DELIVERED),
        ("virus", None, None),  # not known
    ],
)
def test_a_complaint_is_of_the_person(kind: str, standing: Standing | None, fate: Fate | None) -> None:
    event = only(complaint(kind))

    assert (event.standing, event.fate, event.known) == (standing, fate, fate is not None)
    assert (event.delivery_id, event.code) == (DELIVERY, kind.lower())


def test_a_report_never_speaks_of_an_address() -> None:
    """Whoever read one mail knows its return path: what they write in the report may be anyone's address."""
    for receipt in (report(recipient("failed", "5.1.1")), complaint("abuse")):
        assert only(receipt).address is None


def test_a_report_that_is_told_again_has_the_same_id_and_another_one_has_another() -> None:
    delayed, failed = (report(recipient(*each)) for each in (("delayed", "4.4.1"), ("failed", "5.4.4")))
    later = replace(delayed, body=delayed.body.replace(b"RAA14128@mx", b"RAA14129@mx"))
    relayed = replace(delayed, body=b"Received: from mx by door; today\r\n" + delayed.body)

    ids = [only(each).id for each in (delayed, failed, later)]
    assert len(set(ids)) == 3
    assert only(relayed).id == ids[0]
    assert all(DELIVERY in each and len(each) <= 200 for each in ids)


def test_each_recipient_of_a_report_is_an_event() -> None:
    receipt = report(recipient("failed", "5.1.1") + "\n" + recipient("delayed", "4.4.1"))

    assert [each.fate for each in provider().events(receipt)] == [Fate.UNDELIVERED, Fate.ACCEPTED]


@pytest.mark.parametrize(
    "receipt",
    [
        letter("Subject: Out of office\nAuto-Submitted: auto-replied\nReturn-Path: <>"),
        letter("Subject: Re: Your order"),
        letter("Subject: Away\nReturn-Path: <>\nPrecedence: bulk"),
        letter("Subject: Away\nReturn-Path: <>\nX-Autoreply: yes"),
        letter(
            "Return-Path: <>\nMIME-Version: 1.0\n"
            "Content-Type: multipart/report; report-type=disposition-notification; boundary=x",
            "--x\n\nRead.\n--x\nContent-Type: message/disposition-notification\n\n"
            "Disposition: manual-action/a; displayed\n--x--",
        ),
    ],
    ids=["out of office", "a person", "bulk", "autoreply", "read receipt"],
)  # fmt: skip
def test_an_answer_is_no_event(receipt: Receipt) -> None:
    provider().verify(receipt)
    assert list(provider().events(receipt)) == []


def test_a_servers_letter_in_no_form_is_seen() -> None:
    event = only(letter("Return-Path: <>\nSubject: failure notice", "Hi. This is the qmail-send program."))

    assert (event.known, event.fate, event.delivery_id) == (False, None, DELIVERY)


@pytest.mark.parametrize("field", ["Delivered-To", "X-Original-To", "To", "Return-Path", "X-Envelope-To"])
def test_the_return_path_may_stand_in_any_header(field: str) -> None:
    receipt = report(
        recipient("failed", "5.1.1"), to="postmaster@shop.example", head=f"{field}: <{return_path()}>\n"
    )

    assert only(receipt).delivery_id == DELIVERY


def test_the_return_path_may_stand_in_the_mail_that_came_back() -> None:
    original = f"Return-Path: <{return_path()}>\n"
    assert only(report(recipient("failed", "5.1.1"), to="x@shop.example", original=original)).fate

    headers_alone = report(recipient("failed", "5.1.1"), to="x@shop.example", original=original)
    body = headers_alone.body.replace(b"Content-Type: message/rfc822", b"Content-Type: text/rfc822-headers")
    assert only(replace(headers_alone, body=body)).delivery_id == DELIVERY


def test_a_server_may_change_the_case_of_the_local_part() -> None:
    local, _, domain = return_path().partition("@")

    assert only(report(recipient("failed", "5.1.1"), to=f"{local.upper()}@{domain.upper()}")).fate


def test_a_long_mail_that_came_back_changes_nothing() -> None:
    receipt = report(recipient("failed", "5.1.1"))
    long = receipt.body.replace(b"It left today.", b"x" * 75 + b"\r\n" * MAX_READ)

    assert only(replace(receipt, body=long)).fate is Fate.UNDELIVERED


def test_what_lies_far_behind_is_not_read() -> None:
    receipt = report(recipient("failed", "5.1.1"), to="x@shop.example", original=f"X: {return_path()}\n")
    near, far = (receipt.body.replace(b"could not", b"x" * 990 + b"\r\n" * size) for size in (1, MAX_READ))

    assert not is_refused(provider().verify, a_receipt(near))
    assert is_refused(provider().verify, a_receipt(far))


# --- whose it is ------------------------------------------------------------------------------------


def test_no_other_return_path_is_believed() -> None:
    right, verify = return_path(), provider().verify
    local, _, domain = right.rpartition("@")
    changed = {*characters_changed(local), *(each.decode("latin-1") for each in bits_flipped(local.encode()))}
    others = {each for each in changed if each.lower().strip(" =") != local}
    assert len(others) > 400

    for each in others:
        if not each.isascii() or re.search(r"[\x00-\x20]", each):
            continue  # it would stand in no header
        # A prefix is no part of ours: what stands behind it may still be whole.
        believed = not is_refused(verify, letter_to(f"{each}@{domain}"))
        assert not believed or each.lower().endswith(local), each
    for elsewhere in ("shop.example", f"{DOMAIN}.evil.example", f"{DOMAIN}x", "bouncesXshop.example"):
        assert is_refused(verify, letter_to(f"{local}@{elsewhere}"))


def letter_to(address: str) -> Receipt:
    return a_receipt(crlf(f"To: <{address}>\nFrom: a@b.example\n\nhello\n"))


def test_a_return_path_is_of_one_delivery() -> None:
    tag = return_path().partition(".")[2]

    assert is_refused(provider().verify, letter_to(f"bounce+{ELSE}.{tag}"))
    assert is_refused(provider().verify, letter_to(return_path(key=OLD_KEY)))
    # A wrong one beside a right one neither counts nor hinders.
    receipt = report(recipient("failed", "5.1.1"), head=f"X-Original-To: <bounce+{ELSE}.{tag}>\n")
    assert only(receipt).delivery_id == DELIVERY


def test_both_keys_hold_while_one_replaces_the_other() -> None:
    both = provider(bounce_key=[KEY, OLD_KEY])

    for key in (KEY, OLD_KEY):
        both.verify(letter_to(return_path(key=key)))
    with ScriptedRelay() as relay:
        sending = provider(url=f"smtp+plain://127.0.0.1:{relay.port}", bounce_key=f"{KEY} {OLD_KEY}")
        sending.send(a_mail(DELIVERY), Deadline(10))
        sending.close()
        assert any(return_path() in each for each in relay.conversations[0].commands)


def test_without_return_paths_nothing_is_believed() -> None:
    none = provider(bounce_domain=None, bounce_key=None)

    with pytest.raises(Forged, match="set bounce_domain and bounce_key"):
        none.verify(report(recipient("failed", "5.1.1")))
    with pytest.raises(Unreadable):
        none.events(report(recipient("failed", "5.1.1")))


# --- whatever comes ---------------------------------------------------------------------------------


def nested(kind: str, depth: int) -> bytes:
    head = b"To: <" + return_path().encode() + b">\r\n"
    part = b"Content-Type: " + kind.encode() + b"\r\n\r\n"
    return head + part * depth


@pytest.mark.parametrize(
    "body",
    [
        nested("message/rfc822", 3000),
        nested("multipart/report; boundary=x", 3000),
        nested("multipart/mixed; boundary=x", 1) + b"--x\r\n\r\n" * 50_000,
        (b"To: <" + return_path().encode() + b">\r\n") * 4000,
        b"To: bounce+" * 20_000,
        report("Action: failed\n").body.replace(b"Reporting-MTA: dns; mx.customer.example\r\n", b""),
        report("").body,
        report("\xff: \x00").body,
        report(recipient("failed", "5.1.1")).body.replace(b"boundary", b"boundary*0*"),
        report(recipient("failed", "5.1.1")).body.replace(b"message/delivery-status", b"message/feedback-report"),
        report(recipient("failed", "5.1.1")).body.replace(b"report-type=delivery-status", b"report-type*=x''%ff"),
        complaint("abuse").body.replace(b"message/feedback-report", b"message/delivery-status"),
        b"Content-Type: text/plain; charset=nosuch\r\nContent-Transfer-Encoding: x\r\n\r\n" + return_path().encode(),
    ],
)  # fmt: skip
def test_a_mail_made_to_hurt_is_read_or_not_and_quickly_so(body: bytes) -> None:
    receipt = a_receipt(body)

    is_refused(provider().verify, receipt)
    for event in read(provider(), receipt) or []:
        assert event.delivery_id == DELIVERY


@settings(max_examples=150, deadline=None)
@given(noise)
def test_noise_is_refused_and_unreadable(receipt: Receipt) -> None:
    assert is_refused(provider().verify, receipt)
    assert read(provider(), receipt) is None


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_report_is_read_or_not(data: st.DataObject) -> None:
    raw = bytearray(
        data.draw(st.sampled_from([report(recipient("failed", "5.1.1")).body, complaint("abuse").body]))
    )
    for _ in range(data.draw(st.integers(1, 20))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=6))
        raw = raw or bytearray(b"x")
    receipt = a_receipt(bytes(raw))

    is_refused(provider().verify, receipt)
    for event in read(provider(), receipt) or []:
        assert event.delivery_id == DELIVERY
        assert len(event.id) <= 200
        assert "canary" not in repr(event)


def test_it_tells_no_address_and_no_key() -> None:
    reporting = provider(bounce_key=[KEY, OLD_KEY])
    receipt = report(recipient("failed", "5.1.1", f"smtp; 550 5.1.1 <{CANARY_MAIL}> unknown"))
    events = reporting.events(receipt)

    assert isinstance(reporting, Reporting)
    told = [repr(events), repr(receipt), dump(reporting)]
    for attempt in attempts(reporting):
        try:
            attempt(a_receipt(b"To: x\r\n\r\n" + receipt.body.replace(KEY.encode(), b"")[500:]))
        except (Forged, Unreadable):
            told.append(traceback.format_exc())
    assert len(told) == 5
    for private in ("canary", KEY, OLD_KEY):
        assert private not in "".join(told)


def attempts(reporting: SmtpProvider) -> Iterator[Callable[[Receipt], object]]:
    yield reporting.verify
    yield reporting.events
