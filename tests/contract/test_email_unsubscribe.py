"""List-Unsubscribe: what `email.smtp` and `email.sendgrid` write, and that no URL becomes a second header."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.contract import Deadline, EmailContent, Message, Provider, Refused
from channels.email._mime import Letterhead, mailbox
from channels.loader import load
from tests.contract.conformance import a_message
from tests.contract.http_peer import HttpPeer, Reply
from tests.contract.smtp_peers import ScriptedRelay, real_relay

URL = "https://mail.example.com/u/Zm9v-token_493817?l=a,b"
SHORT = EmailContent("Your order", "It left today.\n", "<p>It left today.</p>")


def mail(content: EmailContent = SHORT) -> Message:
    return a_message("email", "bob@customer.example", content)


@contextlib.contextmanager
def smtp(port: int) -> Iterator[Provider]:
    options = {"url": f"smtp+plain://127.0.0.1:{port}", "sender": "shop@example.com"}
    with contextlib.closing(load("email.smtp", "smtp-main", options)) as built:
        yield built


@contextlib.contextmanager
def sendgrid() -> Iterator[tuple[Provider, HttpPeer]]:
    with HttpPeer(lambda _: Reply(202)) as peer:
        options = {"url": peer.url, "api_key": "SG.k", "sender": "shop@example.com"}
        with contextlib.closing(load("email.sendgrid", "mails", options)) as built:
            yield built, peer


def test_a_mail_with_a_url_is_unsubscribed_from_in_one_click() -> None:
    content = replace(SHORT, unsubscribe=URL)
    with real_relay() as relay, smtp(relay.port) as sender:
        sender.send(mail(content), Deadline(10))
    with sendgrid() as (other, peer):
        other.send(mail(content), Deadline(10))

    head = relay.taken[0].content.split(b"\r\n\r\n", 1)[0].decode().split("\r\n")
    assert f"List-Unsubscribe: <{URL}>" in head
    assert "List-Unsubscribe-Post: List-Unsubscribe=One-Click" in head
    headers = json.loads(peer.requests[0].body)["headers"]
    assert headers["List-Unsubscribe"] == f"<{URL}>"
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_a_mail_without_a_url_has_neither_header() -> None:
    with real_relay() as relay, smtp(relay.port) as sender:
        sender.send(mail(), Deadline(10))
    with sendgrid() as (other, peer):
        other.send(mail(), Deadline(10))

    assert b"list-unsubscribe" not in relay.taken[0].content.lower()
    assert b"list-unsubscribe" not in peer.requests[0].body.lower()


BAD_URLS = [
    "https://a.example/token-5521\r\nBcc: eve@evil.example",
    "https://a.example/token-5521\nBcc: eve@evil.example",
    "https://a.example/token-5521\n",
    "https://a.example/token-5521\r",
    "https://a.example/token-5521>, <mailto:eve@evil.example",
    "https://a.example/token-5521>",
    "https://a.example/<token-5521",
    "https://a.example/token-5521 x",
    "https://a.example/token-5521\t",
    "https://a.example/token-5521\x00",
    "https://a.example/token-5521\u2028",
    "https://a.example/token-5521ü",
    "https://a.example/token-5521\ud800",
    'https://a.example/token-5521"',
    "https://a.example/token-5521\\",
    "https://a.example/token-5521#here",
    "https://user:token-5521@a.example/",
    "http://a.example/token-5521",
    "mailto:token-5521@a.example",
    "javascript:token-5521",
    "https:///token-5521",
    "https://größe.example/token-5521",
    "//a.example/token-5521",
    "https://a.example/" + "token-5521" * 100,
    "",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_no_url_becomes_a_second_header(url: str) -> None:
    message = mail(replace(SHORT, unsubscribe=url))
    with ScriptedRelay() as relay, smtp(relay.port) as own, sendgrid() as (other, peer):
        for sender in (own, other):
            with pytest.raises(Refused, match=r"content\.unsubscribe is no https:// URL .*mend") as caught:
                sender.send(message, Deadline(10))
            assert "token-5521" not in "".join(traceback.format_exception(caught.value))
        assert relay.mails == []
        assert peer.requests == []


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters() | st.sampled_from("\r\n <>:,-")))
def test_any_url_is_refused_or_stands_in_one_line(end: str) -> None:
    url = f"https://a.example/{end}"
    try:
        content = replace(SHORT, unsubscribe=url)
        raw = Letterhead("shop@example.com", None, "example.com").compose(
            mail(content), content, mailbox("bob@customer.example")
        )
    except Refused:
        return
    head = raw.split(b"\r\n\r\n", 1)[0].decode("ascii")
    assert f"\r\nList-Unsubscribe: <{url}>\r\nList-Unsubscribe-Post: " in head


def test_the_url_is_not_shown() -> None:
    assert "token_493817" not in repr(replace(SHORT, unsubscribe=URL))
