"""What `email.sendgrid` promises beside the conformance suite: the request as Mail Send of the v3 API reads it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from channels.contract import (
    Accepted,
    AddressInvalid,
    Attachment,
    ChannelError,
    Deadline,
    EmailContent,
    Message,
    Misconfigured,
    Provider,
    Refused,
    Throttled,
)
from channels.loader import load
from tests.contract.conformance import a_message
from tests.contract.connect_proxy import ConnectProxy, private_ca
from tests.contract.http_peer import HttpPeer, Reply, Seen
from tests.contract.providers.email_sendgrid import KEY

NEEDED = {"api_key": KEY, "sender": "Shop <hello@shop.example>"}
INVOICE = Attachment("Rechnung März.pdf", "application/pdf", bytes(range(256)) * 40)
MAIL = EmailContent(
    "Invoice 7: bezahlt für März", "Paid: 12,50 €\nThank you, Zoë.", "<p>Paid: 12,50 €</p>", (INVOICE,)
)
WANTED = {
    "attachments", "categories", "content", "custom_args", "from", "headers", "personalizations", "reply_to", "subject",
}  # fmt: skip
RESERVED = {
    "x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding", "to", "from",
    "subject", "reply-to", "cc", "bcc",
}  # fmt: skip


def mail_send(seen: Seen) -> Reply:
    """Take what the reference of Mail Send describes, and refuse anything else by its field."""
    if (seen.method, seen.target) != ("POST", "/v3/mail/send"):
        return Reply(404)
    if seen.headers.get("authorization") != f"Bearer {KEY}":
        return Reply(401, {"errors": [{"message": "The authorization grant is invalid", "field": None}]})
    if seen.headers.get("content-type") != "application/json":
        return Reply(415)
    wrong = wrong_fields(json.loads(seen.body))
    if wrong:
        return Reply(400, {"errors": [{"message": "no", "field": each, "help": None} for each in wrong]})
    return Reply(202, headers={"X-Message-Id": "14c5d75ce93.dfd.64b469"})


def wrong_fields(mail: dict[str, Any]) -> list[str]:
    types = [each["type"] for each in mail["content"]]
    arguments = mail["custom_args"]
    headers = mail.get("headers", {})
    sound = {
        "content": types in (["text/plain"], ["text/plain", "text/html"]),
        "content.0.value": all(each["value"] for each in mail["content"]),
        "custom_args": all(isinstance(each, str) for each in arguments.values())
        and len(json.dumps(arguments)) < 10_000,
        "categories": all(1 <= len(each) <= 255 for each in mail["categories"]),
        "headers": not RESERVED & {each.lower() for each in headers}
        and all(isinstance(each, str) and each.isascii() for each in headers.values()),
    }
    return [*(mail.keys() - WANTED), *(field for field, good in sound.items() if not good)]


@pytest.fixture
def peer() -> Iterator[HttpPeer]:
    with HttpPeer(mail_send) as running:
        yield running


Build = Callable[..., Provider]


@pytest.fixture
def build(peer: HttpPeer) -> Iterator[Build]:
    """Build the provider, aimed at the peer; an option of None is left out."""
    built: list[Provider] = []

    def make(**changes: Any) -> Provider:
        options = {"url": peer.url, **NEEDED, **changes}
        built.append(load("email.sendgrid", "mails", {k: v for k, v in options.items() if v is not None}))
        return built[-1]

    yield make
    for each in built:
        each.close()


def a_mail(content: EmailContent = MAIL, to: str = "zoe@customer.example") -> Message:
    return a_message("email", to, content)


def refusal(provider: Provider, message: Message) -> ChannelError:
    with pytest.raises(ChannelError) as caught:
        provider.send(message, Deadline(20))
    return caught.value


def sent(peer: HttpPeer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(peer.requests[-1].body)
    return found


# --- the mail ---------------------------------------------------------------------------------------


def test_a_mail_arrives_whole_with_our_id_and_its_type(peer: HttpPeer, build: Build) -> None:
    message = a_mail()

    accepted = build(reply_to="Help <help@shop.example>").send(message, Deadline(20))

    assert accepted == Accepted("14c5d75ce93.dfd.64b469", "202")
    mail = sent(peer)
    (attached,) = mail.pop("attachments")
    assert base64.b64decode(attached.pop("content"), validate=True) == INVOICE.content
    assert attached == {
        "disposition": "attachment",
        "filename": "Rechnung März.pdf",
        "type": "application/pdf",
    }
    assert mail == {
        "from": {"email": "hello@shop.example", "name": "Shop"},
        "reply_to": {"email": "help@shop.example", "name": "Help"},
        "personalizations": [{"to": [{"email": "zoe@customer.example"}]}],
        "subject": "Invoice 7: bezahlt für März",
        "content": [
            {"type": "text/plain", "value": "Paid: 12,50 €\nThank you, Zoë."},
            {"type": "text/html", "value": "<p>Paid: 12,50 €</p>"},
        ],
        "categories": ["order.shipped"],
        "custom_args": {"delivery_id": message.delivery_id},
        "headers": {
            "Auto-Submitted": "auto-generated",
            "Message-ID": f"<{message.delivery_id}@shop.example>",
            "X-Notify-Delivery": message.delivery_id,
        },
    }


def test_a_mail_of_text_alone_has_neither_html_nor_attachments(peer: HttpPeer, build: Build) -> None:
    build().send(a_mail(EmailContent("Hello", "Text.")), Deadline(20))

    mail = sent(peer)
    assert mail["content"] == [{"type": "text/plain", "value": "Text."}]
    assert not {"attachments", "reply_to"} & mail.keys()


def test_a_repetition_is_the_same_mail_to_its_reader(peer: HttpPeer, build: Build) -> None:
    message = a_mail()
    provider = build(message_id_domain="mail.shop.example")

    for attempt in (1, 2):
        provider.send(replace(message, attempt=attempt), Deadline(20))

    first, second = (json.loads(seen.body) for seen in peer.requests)
    assert first == second
    assert first["headers"]["Message-ID"] == f"<{message.delivery_id}@mail.shop.example>"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("hello@shop.example", {"email": "hello@shop.example"}),
        ("Zoë's Shop <hello@shop.example>", {"email": "hello@shop.example", "name": "Zoë's Shop"}),
        ('"Shop, Inc." <hello@shop.example>', {"email": "hello@shop.example", "name": "Shop, Inc."}),
        ("Shop <hello@straße.example>", {"email": "hello@xn--strae-oqa.example", "name": "Shop"}),
    ],
)
def test_a_sender_is_written_as_for_smtp(
    written: str, read: dict[str, str], peer: HttpPeer, build: Build
) -> None:
    build(sender=written).send(a_mail(), Deadline(20))

    assert sent(peer)["from"] == read


@pytest.mark.parametrize(
    "to", ["", "zoe", "a@b.example, c@d.example", "zoe@b.example\n", "Zoë <zoe@b.example>", "zoë@b.example"]
)
def test_what_is_not_one_ascii_address_is_dead(to: str, peer: HttpPeer, build: Build) -> None:
    assert type(refusal(build(), a_mail(to=to))) is AddressInvalid
    assert peer.connections == 0


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (replace(MAIL, subject="Hi\r\nBcc: all@evil.example"), "content.subject"),
        (replace(MAIL, subject=" "), "content.subject"),
        (replace(MAIL, text=""), "content.text"),
        (replace(MAIL, text="half \ud800"), "content"),
        (replace(MAIL, attachments=(replace(INVOICE, type="text/plain; a=b"),)), "media type"),
        (replace(MAIL, attachments=(replace(INVOICE, type="text/plain\r\n"),)), "media type"),
        (replace(MAIL, attachments=(replace(INVOICE, name="a\r\nb.pdf"),)), "name of an attachment"),
    ],
)
def test_what_sendgrid_would_refuse_is_refused_by_its_name(
    content: EmailContent, named: str, peer: HttpPeer, build: Build
) -> None:
    failure = refusal(build(), a_mail(content))

    assert type(failure) is Refused
    assert named in failure.detail
    assert "evil" not in str(failure)
    assert (failure.__cause__, failure.__context__) == (None, None)
    assert peer.connections == 0


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (EmailContent("Much", "x" * 30_000_000), "content.text"),
        (EmailContent("Much", "x", "x" * 30_000_000), "content.html"),
    ],
)
def test_what_is_too_long_is_named(content: EmailContent, named: str, peer: HttpPeer, build: Build) -> None:
    failure = refusal(build(), a_mail(content))

    assert (type(failure), failure.code) == (Refused, "too-long")
    assert f"shorten {named}" in failure.detail
    assert peer.connections == 0


def test_a_large_attachment_goes(peer: HttpPeer, build: Build) -> None:
    film = Attachment("film.mp4", "video/mp4", bytes(15_000_000))

    build().send(a_mail(replace(MAIL, attachments=(film,))), Deadline(30))

    assert len(peer.requests[0].body) > 20_000_000


def test_an_id_that_would_break_a_header_is_refused(peer: HttpPeer, build: Build) -> None:
    message = replace(a_mail(), delivery_id="a>\r\nBcc: all@evil.example")

    assert type(refusal(build(), message)) is Refused
    assert peer.connections == 0


# --- answers ----------------------------------------------------------------------------------------


def test_a_wrong_key_is_the_accounts_fault(build: Build) -> None:
    failure = refusal(build(api_key="SG.other"), a_mail())

    assert (type(failure), failure.code) == (Misconfigured, "401")


def test_a_limit_is_waited_for_until_it_begins_anew(peer: HttpPeer, build: Build) -> None:
    reset = int(time.time()) + 40
    peer.says(Reply(429, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)}))

    failure = refusal(build(), a_mail())

    assert type(failure) is Throttled
    assert failure.retry_after is not None
    assert reset - time.time() - 1 < failure.retry_after <= 40


def test_a_refusal_names_the_field_and_not_what_was_in_it(peer: HttpPeer, build: Build) -> None:
    text = "zoe@customer.example is odd"
    errors = [{"message": text, "field": "content.0.value"}, {"message": text, "field": text}]
    peer.says(Reply(400, {"errors": errors}))

    failure = refusal(build(), a_mail())

    assert type(failure) is Refused
    assert "(content.0.value)" in failure.detail
    assert "zoe" not in str(failure)


def test_our_sender_is_never_taken_for_a_dead_recipient(peer: HttpPeer, build: Build) -> None:
    message = "Does not contain a valid address."
    errors = [
        {"message": message, "field": "from.email"},
        {"message": message, "field": "personalizations.0.to"},
    ]
    peer.says(Reply(400, {"errors": errors}))

    assert type(refusal(build(), a_mail())) is Misconfigured


# --- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sender": "493817"}, "sender is not an address"),
        ({"sender": "a@b.example, c@d.example"}, "sender is not exactly one address"),
        ({"sender": "Zoë <zoë@shop.example>"}, "sender is not an address"),
        ({"reply_to": "493817"}, "reply_to is not an address"),
        ({"api_key": "493817\n"}, "api_key has characters that no header carries"),
        ({"api_key": "env:SENDGRID_API_KEY"}, "api_key was not read from the environment"),
        ({"message_id_domain": "493817 x"}, "message_id_domain is no domain"),
        ({"url": "http://api.example"}, "url may be http:// for this machine alone"),
    ],
)
def test_a_wrong_option_is_named_with_its_remedy_and_not_told(
    options: dict[str, Any], said: str, build: Build
) -> None:
    with pytest.raises(Misconfigured, match=f"mails: {said}") as caught:
        build(**options)

    assert "493817" not in str(caught.value)
    assert "; " in caught.value.detail
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


# --- the real address -------------------------------------------------------------------------------


def test_it_reaches_the_real_address_in_tls_and_keeps_its_connection(tmp_path: Path, build: Build) -> None:
    private = private_ca(tmp_path, "api.sendgrid.com")
    with HttpPeer(mail_send, tls=private.server) as far, ConnectProxy(far.port) as proxy:
        provider = build(url=None, proxy=proxy.url, ca_file=private.ca_file)

        for _ in range(3):
            provider.send(a_mail(), Deadline(20))

        assert proxy.asked_for == ["api.sendgrid.com:443"]
        assert [seen.headers["host"] for seen in far.requests] == ["api.sendgrid.com"] * 3
