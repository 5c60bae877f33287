"""Mails as a page shows them: whatever came, there is something to show, and what could get out is cut."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notify_tasks.pages.mails import Mail, framed, mail_of_request, parse_mail
from notify_tasks.pages.reading import read
from notify_tasks.sandbox.kept import Arrival

BROKEN = [
    b"",
    b"\r\n",
    b"Subject: =?utf-8?B?!!!?=\r\n\r\nHello",
    b"Subject: a\r\nTo: <<<>>>, @@@\r\nDate: yesterday\r\n\r\nHello",
    b"Content-Type: multipart/mixed; boundary=x\r\n\r\nno boundary follows",
    b"Content-Type: text/plain; charset=no-such-charset\r\n\r\nHello \xff",
    b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!not base64!!!",
    b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nHello",
    b"Subject: \xf0\x28\x8c\x28\r\n\r\n\xff\xfe",
]


@pytest.mark.parametrize("raw", BROKEN)
def test_a_broken_mail_is_shown_as_far_as_it_goes(raw: bytes) -> None:
    mail = parse_mail(raw)

    assert isinstance(mail.subject, str)
    assert isinstance(framed(mail, scheme="dark", pictures=True), str)


@given(st.binary(max_size=300))
def test_no_bytes_stop_the_reader(raw: bytes) -> None:
    for protocol, channel in (("smtp", "email"), ("http", "email"), ("http", "sms"), ("http", "webhook")):
        arrival = Arrival(
            id="x-1",
            at=None,
            channel=channel,
            protocol=protocol,
            to="a",
            raw=raw,  # type: ignore[arg-type]
        )
        assert read(arrival).words is not None


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=20),
        lambda it: (
            st.lists(it)
            | st.dictionaries(
                st.sampled_from(
                    ("content", "text", "html", "subject", "markdown", "title", "body", "attachments", "name")
                ),
                it,
            )
        ),
    )
)
@example({"content": {"attachments": 1}})
def test_no_json_stops_the_reader(body: object) -> None:
    raw = json.dumps(body).encode()
    for channel in ("email", "sms", "push", "chat", "webhook", "inapp"):
        arrival = Arrival(id="x-1", at=None, channel=channel, protocol="http", to="a", raw=raw)  # type: ignore[arg-type]
        assert read(arrival).words is not None


@pytest.mark.parametrize(
    "tag",
    [
        "<link rel=preconnect href=//a>",
        "<LINK/rel=x>",
        '<link\n title=">" rel=x>',
        "<base href=//a>",
        "<meta charset=x>",
    ],
)
def test_what_the_policy_does_not_cover_is_cut(tag: str) -> None:
    html = framed(Mail("", "", "", (), None, f"<p>Hello</p>{tag}"), scheme="light", pictures=True)

    body = html[html.index("<p>") :].lower()
    assert not any(f"<{name}" in body for name in ("link", "base", "meta"))


def test_media_queries_are_answered_as_asked_for_and_only_mails_with_dark_colours_turn_dark() -> None:
    both = (
        "<style>@media (prefers-color-scheme: dark) { a } @media (prefers-color-scheme:light) { b }</style>"
    )
    dark = framed(Mail("", "", "", (), None, both), scheme="dark", pictures=True)
    assert "@media (min-width:0) { a }" in dark
    assert "@media (max-width:0) { b }" in dark
    assert "color-scheme:dark" in dark

    plain = framed(Mail("", "", "", (), None, "<p>Hello</p>"), scheme="dark", pictures=True)
    assert "color-scheme:light" in plain


def test_the_attachments_of_a_request_are_read() -> None:
    content = base64.b64encode(b"%PDF").decode()
    body = {
        "content": {
            "subject": "s",
            "text": "t",
            "attachments": [{"name": "a.pdf", "type": "x/y", "content": content}],
        }
    }

    [attachment] = mail_of_request("ann@example.com", body, ()).attachments

    assert (attachment.name, attachment.kind, attachment.data) == ("a.pdf", "x/y", b"%PDF")


def test_remote_pictures_are_counted() -> None:
    html = "<img src='https://a.example/1'><img alt=x src=//a.example/2><p style='background: url(http://a.example/3)'>"
    assert Mail("", "", "", (), None, html + "<img src='cid:logo'>").remote_pictures == 3


@pytest.mark.parametrize("unit", ["<style>", "<", "<img ", "(", "[", "url(", "<link", " cid:", '"cid:'])
def test_no_mail_takes_for_ever(unit: str) -> None:
    """Where a pattern's work grows with the square of the mail, this ends in the suite's timeout."""
    raw = ("Content-Type: text/html\r\n\r\n" + unit * (400_000 // len(unit))).encode()
    mail = parse_mail(raw)
    framed(mail, scheme="dark", pictures=True)
    assert mail.remote_pictures == 0
    read(Arrival(id="x-1", at=None, channel="email", protocol="smtp", to="a", raw=raw))  # type: ignore[arg-type]
    read(
        Arrival(  # type: ignore[arg-type]
            id="x-2",
            at=None,
            channel="chat",
            protocol="http",
            to="a",
            raw=json.dumps({"content": {"markdown": unit * 9999}}).encode(),
        )
    )
