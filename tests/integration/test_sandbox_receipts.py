"""What the sandbox's providers tell later: to a door of the test's, judged by what the providers themselves ship."""

from __future__ import annotations

import base64
import json
import smtplib
import socket
import ssl
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message as Mail
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from twilio.request_validator import RequestValidator

from channels.contract import Accepted, OptedOut, Provider, Uncertain
from channels.receipts import Fate, Forged, Receipt, Reporting, Standing
from notify_tasks.sandbox import Sandbox, sandbox_process
from tests.support.door import Door, Posted, open_door, until
from tests.support.wired import NUMBER, message, outcome, provider


@pytest.fixture(scope="module")
def far_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_process(tmp_path_factory.mktemp("sandbox"), seed=7) as running:
        yield running


@pytest.fixture
def sandbox(far_end: Sandbox) -> Sandbox:
    far_end.clear_modes()
    far_end.clear_receipts()
    return far_end


@pytest.fixture(scope="module")
def the_door() -> Iterator[Door]:
    with open_door() as opened:
        yield opened


@pytest.fixture
def door(the_door: Door) -> Door:
    the_door.clear()
    return the_door


@pytest.fixture
def twilio(sandbox: Sandbox, door: Door) -> Iterator[Provider]:
    with provider(sandbox, "sms.twilio", status_callback=f"{door.origin}/hooks/twilio") as built:
        yield built


@pytest.fixture
def sendgrid(sandbox: Sandbox) -> Iterator[Provider]:
    key = sandbox.environment["SANDBOX_SENDGRID_WEBHOOK_KEY"]
    with provider(sandbox, "email.sendgrid", webhook_key=key) as built:
        yield built


def receipt(posted: Posted) -> Receipt:
    """As it comes through our own door."""
    return Receipt(method="POST", query=urlsplit(posted.url).query, headers=posted.headers, body=posted.body)


def reporting(built: Provider) -> Reporting:
    assert isinstance(built, Reporting)
    return built


# --- Twilio ---------------------------------------------------------------------------------------------


def said(posted: Posted) -> dict[str, str]:
    return dict(parse_qsl(posted.body.decode(), keep_blank_values=True))


def statuses(posts: list[Posted]) -> list[str]:
    return [said(each)["MessageStatus"] for each in posts]


def believed(sandbox: Sandbox, posted: Posted) -> bool:
    validator = RequestValidator(sandbox.environment["SANDBOX_TWILIO_AUTH_TOKEN"])
    return bool(validator.validate(posted.url, said(posted), posted.headers["x-twilio-signature"]))


def test_twilio_tells_that_a_message_was_delivered(sandbox: Sandbox, door: Door, twilio: Provider) -> None:
    sent = message("sms.twilio")

    taken = outcome(twilio, sent)

    posts = door.wait(2)
    assert isinstance(taken, Accepted)
    assert statuses(posts) == ["sent", "delivered"]
    for each in posts:
        assert believed(sandbox, each)
        assert f"delivery_id={sent.delivery_id}" in each.url
        assert said(each)["MessageSid"] == taken.provider_message_id
        assert said(each)["To"] == sent.address
        assert "ErrorCode" not in said(each)
        reporting(twilio).verify(receipt(each))
    [event] = reporting(twilio).events(receipt(posts[1]))
    assert (event.fate, event.delivery_id) == (Fate.DELIVERED, sent.delivery_id)


def test_twilio_tells_of_every_step_with_a_messaging_service(sandbox: Sandbox, door: Door) -> None:
    changes = {"from": None, "messaging_service_sid": "MG" + "0" * 32}
    url = f"{door.origin}/hooks/twilio?tenant=a"
    with provider(sandbox, "sms.twilio", status_callback=url, **changes) as built:
        outcome(built, message("sms.twilio"))

    posts = door.wait(3)
    assert statuses(posts) == ["queued", "sent", "delivered"]
    assert all(believed(sandbox, each) and "tenant=a&delivery_id=" in each.url for each in posts)


def test_a_number_or_a_plan_asks_twilio_not_to_deliver(
    sandbox: Sandbox, door: Door, twilio: Provider
) -> None:
    outcome(twilio, message("sms.twilio", "+15556051234"))
    assert [said(each).get("ErrorCode") for each in door.wait(2)] == [None, "30005"]

    door.clear()
    sandbox.plan_receipts("twilio", outcome="failed", code="30007")
    outcome(twilio, message("sms.twilio"))
    [told] = door.wait(1)
    assert (said(told)["MessageStatus"], said(told)["ErrorCode"]) == ("failed", "30007")


def test_receipts_come_twice_and_in_the_wrong_order(sandbox: Sandbox, door: Door, twilio: Provider) -> None:
    sandbox.plan_receipts("twilio", duplicate=True, reordered=True)

    outcome(twilio, message("sms.twilio"))

    posts = door.wait(4)
    assert statuses(posts) == ["delivered", "delivered", "sent", "sent"]
    assert posts[0].body == posts[1].body


def test_a_forged_receipt_is_signed_by_somebody_else(sandbox: Sandbox, door: Door, twilio: Provider) -> None:
    sandbox.plan_receipts("twilio", forged=True)

    outcome(twilio, message("sms.twilio"))

    [first, _] = door.wait(2)
    assert not believed(sandbox, first)
    with pytest.raises(Forged):
        reporting(twilio).verify(receipt(first))


def test_a_receipt_can_be_there_before_the_answer(sandbox: Sandbox, door: Door, twilio: Provider) -> None:
    sandbox.plan_receipts("twilio", before_response=True, delay=60)

    outcome(twilio, message("sms.twilio"))

    assert len(door.posted) == 2


def test_a_message_whose_answer_is_lost_is_reported_too(
    sandbox: Sandbox, door: Door, twilio: Provider
) -> None:
    sandbox.set_mode("twilio", "accept_then_reset", times=1)

    assert isinstance(outcome(twilio, message("sms.twilio")), Uncertain)

    assert statuses(door.wait(2)) == ["sent", "delivered"]


def test_nothing_is_told_where_nobody_asked(sandbox: Sandbox, door: Door, twilio: Provider) -> None:
    with provider(sandbox, "sms.twilio") as silent:
        outcome(silent, message("sms.twilio"))
    sandbox.plan_receipts("twilio", on=False)
    outcome(twilio, message("sms.twilio"))
    sandbox.set_mode("twilio", "500", times=1)
    outcome(twilio, message("sms.twilio"))
    sandbox.plan_receipts("twilio", on=True)

    last = message("sms.twilio")
    outcome(twilio, last)

    assert all(last.delivery_id in each.url for each in door.wait(2))


def test_a_door_that_fails_is_asked_again_and_one_that_refuses_is_not(
    sandbox: Sandbox, door: Door, twilio: Provider
) -> None:
    before = sandbox.receipts()["twilio"]
    door.fails += [503, 200, 403]  # the first try of `sent`, its second, and `delivered`

    outcome(twilio, message("sms.twilio"))

    posts = door.wait(3)
    assert statuses(posts) == ["sent", "sent", "delivered"]
    assert posts[0].headers["i-twilio-idempotency-token"] == posts[1].headers["i-twilio-idempotency-token"]
    until(lambda: sandbox.receipts()["twilio"]["failed"] == before["failed"] + 1)
    assert sandbox.receipts()["twilio"]["sent"] == before["sent"] + 1


def test_a_person_who_answers_stop_gets_no_more(sandbox: Sandbox, door: Door) -> None:
    url = f"{door.origin}/hooks/twilio"
    sandbox.plan_receipts("twilio", url=url)
    with provider(sandbox, "sms.twilio", inbound_url=url) as built:
        sandbox.say("twilio", NUMBER, "Stop")

        [told] = door.wait(1)
        assert believed(sandbox, told)
        assert (said(told)["From"], said(told)["Body"]) == (NUMBER, "Stop")
        reporting(built).verify(receipt(told))
        [event] = reporting(built).events(receipt(told))
        assert (event.standing, event.address) == (Standing.OPTED_OUT, NUMBER)
        assert isinstance(outcome(built, message("sms.twilio")), OptedOut)

        sandbox.say("twilio", NUMBER, "START")
        assert isinstance(outcome(built, message("sms.twilio")), Accepted)


def test_a_door_that_hangs_does_not_keep_the_sandbox_alive(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, sandbox_process(tmp_path) as running:
        sandbox_url = f"http://127.0.0.1:{silent.getsockname()[1]}/hooks/sendgrid"
        running.plan_receipts("sendgrid", url=sandbox_url)
        with provider(running, "email.sendgrid") as built:
            outcome(built, message("email.sendgrid"))
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(100).startswith(b"POST /hooks/sendgrid")
            running.stop()
            assert running.wait() == 0  # by itself: whoever waits for it in vain kills it


# --- SendGrid -------------------------------------------------------------------------------------------


def signed(sandbox: Sandbox, posted: Posted) -> bool:
    """SendGrid's own recipe: ECDSA over the timestamp and the raw body."""
    key = load_der_public_key(base64.b64decode(sandbox.environment["SANDBOX_SENDGRID_WEBHOOK_KEY"]))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    at = posted.headers["x-twilio-email-event-webhook-timestamp"]
    given = base64.b64decode(posted.headers["x-twilio-email-event-webhook-signature"])
    try:
        key.verify(given, at.encode() + posted.body, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def listed(posted: Posted) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(posted.body)
    return found


def test_sendgrid_tells_in_a_signed_batch(sandbox: Sandbox, door: Door, sendgrid: Provider) -> None:
    sandbox.plan_receipts("sendgrid", url=f"{door.origin}/hooks/sendgrid")
    sent = message("email.sendgrid")

    taken = outcome(sendgrid, sent)

    [batch] = door.wait(1)
    assert isinstance(taken, Accepted)
    assert signed(sandbox, batch)
    assert [each["event"] for each in listed(batch)] == ["processed", "delivered"]
    for each in listed(batch):
        assert (each["delivery_id"], each["email"]) == (sent.delivery_id, sent.address)
        assert each["sg_message_id"].startswith(f"{taken.provider_message_id}.")
    assert len({each["sg_event_id"] for each in listed(batch)}) == 2
    reporting(sendgrid).verify(receipt(batch))
    assert [each.fate for each in reporting(sendgrid).events(receipt(batch))][-1] is Fate.DELIVERED


@pytest.mark.parametrize(
    ("to", "happened", "standing"),
    [
        ("bounce@example.com", ["processed", "bounce"], Standing.INVALID),
        ("block@example.com", ["processed", "bounce"], None),
        ("drop@example.com", ["dropped"], Standing.INVALID),
        ("complain@example.com", ["processed", "delivered", "spamreport"], Standing.COMPLAINED),
        ("unsubscribe@example.com", ["processed", "delivered", "unsubscribe"], Standing.OPTED_OUT),
        ("open@example.com", ["processed", "delivered", "open"], None),
    ],
)
def test_an_address_asks_sendgrid_for_its_fate(
    sandbox: Sandbox, door: Door, sendgrid: Provider, to: str, happened: list[str], standing: Standing | None
) -> None:
    sandbox.plan_receipts("sendgrid", url=f"{door.origin}/hooks/sendgrid")

    assert isinstance(outcome(sendgrid, message("email.sendgrid", to)), Accepted)

    [batch] = door.wait(1)
    assert [each["event"] for each in listed(batch)] == happened
    events = reporting(sendgrid).events(receipt(batch))
    assert all(each.known for each in events)
    assert events[-1].standing is standing


def test_sendgrids_forged_batch_is_not_believed(sandbox: Sandbox, door: Door, sendgrid: Provider) -> None:
    sandbox.plan_receipts("sendgrid", url=f"{door.origin}/hooks/sendgrid", forged=True)

    outcome(sendgrid, message("email.sendgrid"))

    [batch] = door.wait(1)
    assert not signed(sandbox, batch)
    with pytest.raises(Forged):
        reporting(sendgrid).verify(receipt(batch))


# --- Alibaba Cloud --------------------------------------------------------------------------------------


def test_aliyun_pushes_reports_and_answers(sandbox: Sandbox, door: Door) -> None:
    sandbox.plan_receipts("aliyun", url=f"{door.origin}/hooks/aliyun?token=t-1")
    door.fails += [202]
    with provider(sandbox, "sms.aliyun", callback_token="t-1") as built:
        sent = message("sms.aliyun")
        taken = outcome(built, sent)
        [first, second] = door.wait(2)  # what says no `{"code": 0}` is told again
        assert isinstance(taken, Accepted)
        assert first.body == second.body
        [report] = listed(first)
        assert (report["success"], report["err_code"]) == (True, "DELIVERED")
        assert (report["out_id"], report["biz_id"]) == (sent.delivery_id, taken.provider_message_id)
        reporting(built).verify(receipt(first))
        assert [each.fate for each in reporting(built).events(receipt(first))] == [Fate.DELIVERED]

        door.clear()
        outcome(built, message("sms.aliyun", "+8615556011234"))
        [event] = reporting(built).events(receipt(door.wait(1)[0]))
        assert (event.fate, event.code, event.known) == (Fate.UNDELIVERED, "MK:0001", True)

        sandbox.plan_receipts("aliyun", forged=True)
        door.clear()
        outcome(built, message("sms.aliyun"))
        with pytest.raises(Forged):
            reporting(built).verify(receipt(door.wait(1)[0]))


# --- mail that comes back -------------------------------------------------------------------------------


def mailed(sandbox: Sandbox, to: str, sender: str = "bounce+d1.x9@b.shop.example") -> None:
    context = ssl.create_default_context(cafile=sandbox.ca_file)
    with smtplib.SMTP("127.0.0.1", sandbox.ready.smtp_port, timeout=10, local_hostname="test") as client:
        client.starttls(context=context)
        client.login(sandbox.ready.smtp_user, sandbox.ready.smtp_password)
        client.sendmail(sender, [to], f"Subject: Hello\r\nX-Notify-Delivery: d1\r\nTo: {to}\r\n\r\nHello\r\n")


def report_of(posted: Posted, kind: str) -> tuple[Mail, Mail]:
    """A report, and its last group of fields for programs."""
    assert posted.headers["content-type"] == "message/rfc822"
    mail = message_from_bytes(posted.body)
    assert (mail.get_content_type(), mail.get_param("report-type")) == ("multipart/report", kind)
    parts: Any = mail.get_payload()
    assert [each.get_content_type() for each in parts] == [
        "text/plain",
        f"message/{kind}",
        "text/rfc822-headers",
    ]
    assert "X-Notify-Delivery: d1" in str(parts[2].get_payload())
    return mail, parts[1].get_payload()[-1]


def test_a_mail_comes_back_to_its_envelopes_sender(sandbox: Sandbox, door: Door) -> None:
    sandbox.plan_receipts("smtp", url=f"{door.origin}/hooks/mail")

    mailed(sandbox, "ann@example.com")  # arrives
    mailed(sandbox, "latebounce-3@example.com", sender="")  # nobody wants it back
    mailed(sandbox, "latebounce@example.com")

    mail, fields = report_of(door.wait(1)[0], "delivery-status")
    assert mail["To"] == "bounce+d1.x9@b.shop.example"
    assert mail["Return-Path"] == "<>"
    assert (fields["Final-Recipient"], fields["Action"]) == ("rfc822; latebounce@example.com", "failed")
    assert (fields["Status"], fields["Diagnostic-Code"]) == ("5.1.1", "smtp; 550 5.1.1 No such user here")
    assert len(door.posted) == 1


def test_a_plan_says_why_mail_comes_back(sandbox: Sandbox, door: Door) -> None:
    sandbox.plan_receipts("smtp", url=f"{door.origin}/hooks/mail", outcome="bounced", code="5.2.2")
    mailed(sandbox, "ann@example.com")
    assert report_of(door.wait(1)[0], "delivery-status")[1]["Status"] == "5.2.2"

    door.clear()
    sandbox.plan_receipts("smtp", outcome="delivered")
    mailed(sandbox, "complain@example.com")
    _, fields = report_of(door.wait(1)[0], "feedback-report")
    assert (fields["Feedback-Type"], fields["Original-Rcpt-To"]) == ("abuse", "<complain@example.com>")

    door.clear()
    sandbox.plan_receipts("smtp", forged=True)
    mailed(sandbox, "latebounce@example.com")
    assert b"bounce+d1.x9" not in door.wait(1)[0].body


def test_our_own_reader_believes_the_report(sandbox: Sandbox, door: Door) -> None:
    sandbox.plan_receipts("smtp", url=f"{door.origin}/hooks/mail")
    aimed = {
        "url": sandbox.environment["SANDBOX_SMTP_URL"],
        "sender": "Shop <hello@shop.example>",
        "bounce_domain": "b.shop.example",
        "bounce_key": "0123456789abcdef",
    }
    with provider(sandbox, "email.smtp", **aimed) as built:
        sent = message("email.smtp", "latebounce@example.com")
        assert isinstance(outcome(built, sent), Accepted)

        come = receipt(door.wait(1)[0])
        reporting(built).verify(come)
        [event] = reporting(built).events(come)
        assert (event.fate, event.standing) == (Fate.UNDELIVERED, Standing.INVALID)
        assert event.delivery_id == sent.delivery_id

        sandbox.plan_receipts("smtp", forged=True)
        door.clear()
        outcome(built, message("email.smtp", "latebounce@example.com"))
        with pytest.raises(Forged):
            reporting(built).verify(receipt(door.wait(1)[0]))


# --- the control API ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "values", "sentence"),
    [
        ("slack", {"on": True}, r"'slack' does not report; those who do are smtp, aliyun, sendgrid, twilio"),
        (
            "twilio",
            {"outcome": "lost"},
            r"outcome 'lost' is not one of twilio's: delivered, sent, undelivered, fail",
        ),
        ("twilio", {"forgd": True}, r"unknown fields forgd; a plan has url, on, outcome"),
        ("sendgrid", {"url": "hooks"}, r"url is no address of a door; write http://HOST:PORT/PATH"),
        ("sendgrid", {"delay": -1}, r"delay is not what it should be"),
    ],
)
def test_a_wrong_plan_is_answered_with_the_right_ones(
    sandbox: Sandbox, target: str, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        sandbox.plan_receipts(target, **values)


def test_nobody_answers_before_there_is_a_door(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="set the url first"):
        sandbox.say("twilio", NUMBER, "STOP")
