"""Mails with attachments: what `email.smtp` sends is what any mail program reads, byte for byte."""

from __future__ import annotations

import email
import email.policy
import hashlib
import random
import re
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.contract import Attachment, ChannelError, Deadline, EmailContent, Message, Refused, TryLater
from channels.email._mime import Letterhead, mailbox
from channels.email.smtp import SmtpProvider, build
from channels.loader import load
from notify_tasks.attachments import MAX_SENT_BYTES, name_fault
from notify_tasks.sandbox import sandbox_process
from tests.contract.smtp_peers import DROP, ScriptedRelay, real_relay

LETTERHEAD = Letterhead("Shop <shop@example.com>", None, "example.com")
NASTY = bytes(range(256)) * 40 + b"\r\n.\r\n..\n\r\r\n--=_boundary--\r\n"
PDF = Attachment("invoice-981.pdf", "application/pdf", NASTY)


def mail(*attachments: Attachment, html: str | None = "<p>Hello</p>") -> Message:
    return Message(
        delivery_id="01J8ZQ5V7M-d1",
        idempotency_key="key-1",
        channel="email",
        event_type="invoice.paid",
        address="bob@example.com",
        content=EmailContent("Your invoice", "Hello\n", html, attachments),
    )


def composed(message: Message) -> bytes:
    assert isinstance(message.content, EmailContent)
    return LETTERHEAD.compose(message, message.content, mailbox(message.address))


def parsed(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    defects = [defect for part in message.walk() for defect in part.defects]
    assert defects == []
    return message


def files(message: EmailMessage) -> list[tuple[str | None, str, bytes]]:
    """Name, type and bytes of each attachment, as Python's parser reads them."""
    found = []
    for part in message.iter_attachments():
        assert part.get_content_disposition() == "attachment"
        found.append((part.get_filename(), part.get_content_type(), part.get_payload(decode=True)))
    return found  # type: ignore[return-value]


def test_a_mail_without_attachments_has_the_structure_it_always_had() -> None:
    raw = composed(mail())
    assert b"multipart/mixed" not in raw
    assert parsed(raw).get_content_type() == "multipart/alternative"
    assert parsed(composed(mail(html=None))).get_content_type() == "text/plain"


@pytest.mark.parametrize("html", ["<p>Hello</p>", None])
def test_the_text_stays_readable_beside_the_attachments(html: str | None) -> None:
    got = parsed(composed(mail(PDF, Attachment("notes.txt", "text/plain", b"a note\n"), html=html)))

    assert got.get_content_type() == "multipart/mixed"
    shown, *_ = got.iter_parts()
    assert shown.get_content_type() == ("multipart/alternative" if html else "text/plain")
    body = got.get_body(("plain",))
    assert body is not None
    assert body.get_content().replace("\r\n", "\n").strip() == "Hello"
    assert files(got) == [
        ("invoice-981.pdf", "application/pdf", NASTY),
        ("notes.txt", "text/plain", b"a note\n"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "Rechnung für Jörg.pdf",
        "发票 2026-11.pdf",
        "می‌خواهم.pdf",
        'quote"me.pdf',
        "it's 100% (sure); a=b, c?.pdf",
        "=?utf-8?B?ZXZpbC5leGU=?=.pdf",
        "utf-8''evil.exe",
        "a" * 146 + ".pdf",
        "票" * 81 + ".pdf",
    ],
)
def test_a_name_of_any_script_comes_out_as_it_went_in(name: str) -> None:
    raw = composed(mail(Attachment(name, "application/pdf", b"x")))

    ((got, _, content),) = files(parsed(raw))
    assert (got, content) == (name, b"x")
    assert raw.isascii()
    *_, part = email.message_from_bytes(raw).walk()  # and Python's older parser, which has other code for it
    assert part.get_filename() == name


@given(
    st.text(min_size=1, max_size=150).filter(lambda name: name_fault(name) is None), st.binary(max_size=400)
)
def test_any_name_and_any_bytes_come_out_as_they_went_in(name: str, content: bytes) -> None:
    raw = composed(mail(Attachment(name, "application/octet-stream", content)))

    assert files(parsed(raw)) == [(name, "application/octet-stream", content)]
    assert all(len(line) <= 78 for line in raw.split(b"\r\n"))
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", raw)


def test_lines_are_as_long_as_base64_may_have_them() -> None:
    raw = composed(mail(PDF))
    lines = raw.split(b"\r\n\r\n")[-1].split(b"\r\n--")[0].split(b"\r\n")
    assert {len(line) for line in lines[:-1]} == {76}


def test_a_text_says_that_it_is_utf_8_where_it_is() -> None:
    utf8 = Attachment("a.csv", "text/csv", "größe;1\r\n".encode())
    latin = Attachment("b.csv", "text/csv", "größe;1\r\n".encode("latin-1"))
    one, other = parsed(composed(mail(utf8, latin))).iter_attachments()

    assert (one.get_content_charset(), one.get_payload(decode=True)) == ("utf-8", utf8.content)
    assert (other.get_content_charset(), other.get_payload(decode=True)) == (None, latin.content)


@pytest.mark.parametrize(
    ("attachment", "says"),
    [
        (Attachment("a.pdf", "application/pdf\r\nBcc: eve@example.com", b""), "media type"),
        (Attachment("a.pdf", "multipart/mixed", b""), "media type"),
        (Attachment("a.pdf", "Message/rfc822", b""), "media type"),
        (Attachment("a.pdf", "", b""), "media type"),
        (Attachment("\ud800.pdf", "application/pdf", b""), "half a character"),
    ],
)
def test_what_cannot_stand_in_a_header_is_refused(attachment: Attachment, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        composed(mail(attachment))
    assert refused.value.code == "header"
    assert refused.value.__context__ is None


@pytest.mark.parametrize("name", ["a\r\nBcc: eve@example.com", "a\nb", "a\x00b", "a\u2028b", "a\x85b"])
def test_a_name_cannot_carry_a_second_header(name: str) -> None:
    raw = composed(mail(Attachment(name, "application/pdf", b"")))
    got = parsed(raw)
    assert got["Bcc"] is None
    assert all(part["Bcc"] is None for part in got.walk())
    assert b"\r\nBcc" not in raw


# --- sizes ----------------------------------------------------------------------------------------------


def opened(port: int) -> SmtpProvider:
    return build("smtp-main", {"url": f"smtp+plain://127.0.0.1:{port}", "sender": "Shop <shop@example.com>"})


def test_a_mail_larger_than_the_relay_takes_is_refused_before_it_is_offered() -> None:
    with ScriptedRelay(offers=("SIZE 5000",)) as relay:
        smtp = opened(relay.port)
        with pytest.raises(Refused) as refused:
            smtp.send(mail(PDF), Deadline(5))
        # and the next one, which fits, goes over the same connection.
        smtp.send(mail(Attachment("a.pdf", "application/pdf", b"small")), Deadline(5))
        smtp.close()

        assert refused.value.code == "size"
        assert "make the message smaller" in refused.value.detail
        (talk,) = relay.conversations
        assert [verb for verb in talk.verbs() if verb == "MAIL"] == ["MAIL"]
        assert len(talk.mails) == 1


@pytest.mark.parametrize("offer", ["SIZE", "SIZE 0", "SIZE lots", "PIPELINING"])
def test_a_relay_that_names_no_limit_is_asked(offer: str) -> None:
    with ScriptedRelay(offers=(offer,)) as relay:
        smtp = opened(relay.port)
        smtp.send(mail(PDF), Deadline(5))
        smtp.close()
        assert len(relay.conversations[0].mails) == 1


def test_a_relay_that_says_only_then_that_it_is_too_large_refuses_it_too() -> None:
    with ScriptedRelay({"MAIL": "552 5.3.4 message size exceeds fixed limit"}, offers=("SIZE 0",)) as relay:
        smtp = opened(relay.port)
        with pytest.raises(ChannelError) as refused:
            smtp.send(mail(PDF), Deadline(5))
        smtp.close()
    assert isinstance(refused.value, Refused)


def test_the_largest_mail_there_is_arrives_whole() -> None:
    content = random.Random(981).randbytes(MAX_SENT_BYTES)
    with real_relay() as relay:
        smtp = opened(relay.port)
        smtp.send(mail(Attachment("large.bin", "application/octet-stream", content)), Deadline(30))
        smtp.close()
    ((_, _, got),) = files(parsed(relay.taken[0].content))
    assert hashlib.sha256(got).digest() == hashlib.sha256(content).digest()


def test_a_large_mail_that_breaks_off_on_its_way_leaves_no_doubt() -> None:
    large = Attachment("large.bin", "application/octet-stream", bytes(MAX_SENT_BYTES))
    with ScriptedRelay({"body": DROP}, offers=("SIZE",)) as relay:
        smtp = opened(relay.port)
        with pytest.raises(TryLater) as failed:
            smtp.send(mail(large), Deadline(5))
        smtp.close()
        assert failed.value.code == "dropped"
        assert relay.mails == []


def test_the_sandbox_takes_the_largest_mail_there_is(tmp_path: Path) -> None:
    with sandbox_process(tmp_path) as sandbox:
        smtp = build(
            "smtp-sandbox",
            {
                "url": sandbox.smtp_url,
                "ca_file": str(sandbox.ca_file),
                "sender": "Shop <shop@example.com>",
            },
        )
        large = Attachment("large.bin", "application/octet-stream", bytes(MAX_SENT_BYTES))
        smtp.send(mail(large), Deadline(30))
        smtp.close()
        (request,) = sandbox.requests()
    assert (request.accepted, request.delivery_id) == (True, "01J8ZQ5V7M-d1")
    assert request.size > MAX_SENT_BYTES * 4 / 3


def test_the_sandbox_takes_it_over_http_too(tmp_path: Path) -> None:
    with sandbox_process(tmp_path) as sandbox:
        provider = load("email.sandbox", "sandbox", {"url": sandbox.http_url})
        large = Attachment("large.bin", "application/octet-stream", bytes(MAX_SENT_BYTES))
        provider.send(mail(large), Deadline(30))
        provider.close()
        (request,) = sandbox.requests()
    assert request.accepted
    assert request.size > MAX_SENT_BYTES * 4 / 3
