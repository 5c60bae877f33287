"""What arrived over providers' wires, as the sandbox page reads it: in the channel's terms, and harmless."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify_tasks.pages import posts
from notify_tasks.pages.reading import Reading, haystack, matches, read
from notify_tasks.pages.wired import PROVIDERS
from notify_tasks.routing import CHANNELS
from notify_tasks.sandbox.kept import Arrival
from notify_tasks.sandbox.wires.finding import wires


def arrived(wire: str, body: object, to: str = "ann", headers: dict[str, str] | None = None) -> Arrival:
    raw = (
        body
        if isinstance(body, bytes)
        else body.encode()
        if isinstance(body, str)
        else json.dumps(body).encode()
    )
    channel = {"sendgrid": "email", "twilio": "sms", "aliyun": "sms", "fcm": "push"}.get(wire, wire)
    channel = channel if channel in CHANNELS else "chat"
    told = tuple((headers or {}).items())
    return Arrival(
        id="x-1", at=datetime.now(UTC), channel=channel, protocol=wire, to=to, raw=raw, headers=told
    )


def reading(wire: str, body: object, **more: Any) -> Reading:
    return read(arrived(wire, body, **more))


def test_every_wire_can_be_read() -> None:
    assert set(wires()) <= set(PROVIDERS)


def test_a_twilio_form_is_a_text_message() -> None:
    form = {"To": "+447700900101", "From": "+15005550006", "Body": "Your code is 493817 ✓"}

    found = reading("twilio", urlencode(form))

    assert (found.text, found.sender, found.provider) == ("Your code is 493817 ✓", "+15005550006", "Twilio")
    assert found.segments.alphabet == "UCS-2"
    assert found.request == form


def test_a_template_of_alibaba_cloud_shows_its_values_and_counts_nothing() -> None:
    body = {
        "SignName": "示例",
        "TemplateCode": "SMS_1",
        "TemplateParam": '{"code": "493817"}',
        "OutId": "d-1",
    }

    found = reading("aliyun", body)

    assert found.text == "【示例】SMS_1\ncode: 493817"
    assert ("Template", "SMS_1") in found.facts
    assert not found.whole


def test_a_mail_by_sendgrid_has_all_its_parts() -> None:
    file = {"content": base64.b64encode(b"%PDF").decode(), "filename": "bill.pdf", "type": "application/pdf"}
    body = {
        "personalizations": [
            {"to": [{"email": "bob@example.com"}], "subject": "Not this one"},
            {"to": [{"email": "ann@example.com", "name": "Ann"}]},
        ],
        "from": {"email": "hello@shop.example", "name": "Example Shop"},
        "subject": "Order 981",
        "content": [
            {"type": "text/plain", "value": "It is on its way"},
            {"type": "text/html", "value": "<p>It is on its way</p>"},
        ],
        "headers": {"List-Unsubscribe": "<https://shop.example/u>"},
        "attachments": [file],
    }

    found = reading("sendgrid", body, to="ann@example.com")

    assert found.mail is not None
    assert (found.title, found.mail.text, found.mail.html) == (
        "Order 981",
        "It is on its way",
        "<p>It is on its way</p>",
    )
    assert ("From", "Example Shop <hello@shop.example>") in found.mail.headers
    assert ("List-Unsubscribe", "<https://shop.example/u>") in found.mail.headers
    assert [(it.name, it.kind, it.data) for it in found.mail.attachments] == [
        ("bill.pdf", "application/pdf", b"%PDF")
    ]


def test_a_push_shows_what_the_phone_would() -> None:
    message = {
        "notification": {"title": "Order 981"},
        "data": {"url": "https://a.example"},
        "android": {"ttl": "3600s", "priority": "high"},
    }

    found = reading("fcm", {"message": message})
    of_apple = reading("fcm", {"message": {"apns": {"payload": {"aps": {"alert": {"title": "Hi"}}}}}})

    assert (found.title, found.data["url"]) == ("Order 981", "https://a.example")
    assert found.facts == (("Priority", "high"), ("Kept for", "1 h"))
    assert of_apple.title == "Hi"


def test_a_signed_event_shows_what_it_was_signed_with() -> None:
    headers = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,a v1,b"}

    found = reading("webhook", {"type": "order.shipped", "data": {}}, headers=headers)

    assert found.title == "order.shipped"
    assert [value for name, value in found.facts if name == "Signature"] == ["v1,a", "v1,b"]


def test_a_provider_can_be_searched_for() -> None:
    arrival = arrived("dingtalk", {"msgtype": "text", "text": {"content": "hi"}})

    assert matches(haystack(arrival, read(arrival)), "dingtalk hi")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("*bold* _it_ ~no~ `x*y*`", "<p><b>bold</b> <i>it</i> <s>no</s> <code>x*y*</code></p>"),
        ("a*b*c snake_case_name 2*3*4", "<p>a*b*c snake_case_name 2*3*4</p>"),
        ("*_both_*", "<p><b><i>both</i></b></p>"),
        ("one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"),
        ("> said\nafter", "<blockquote>said</blockquote><p>after</p>"),
        ("```<b>\ncode```", "<pre>&lt;b&gt;\ncode</pre>"),
        ("&lt;b&gt; &amp; <script>", "<p>&lt;b&gt; &amp; script</p>"),
        ("<!channel> <@U1|ann> <#C1|ops>", None),
        ("<javascript:alert(1)|go>", "<p>go</p>"),
        (
            "<https://a.example/?a=1&amp;b=2|go>",
            '<p><a href="https://a.example/?a=1&amp;b=2" target="_blank" rel="noopener noreferrer">go</a></p>',
        ),
    ],
)
def test_mrkdwn_is_drawn_as_slack_has_it(text: str, html: str | None) -> None:
    drawn = posts.slack(text)

    if html is None:
        assert [part.partition("</span>")[0] for part in drawn.split('class="mention">')[1:]] == [
            "@channel",
            "@ann",
            "#ops",
        ]
    else:
        assert drawn == html


def test_blocks_are_read_instead_of_the_text() -> None:
    post = {
        "text": "for a notification",
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": "Order"}},
            {"type": "section", "text": {"type": "mrkdwn", "text": "on its way"}},
        ],
    }

    assert posts.slack_text(post) == "*Order*\non its way"


def test_a_card_is_drawn() -> None:
    card = {
        "type": "AdaptiveCard",
        "body": [
            {"type": "TextBlock", "text": "<Order>", "weight": "Bolder"},
            {"type": "FactSet", "facts": [{"title": "By", "value": "Post"}]},
            {"type": "ColumnSet", "columns": [{"items": [{"type": "TextBlock", "text": "col"}]}]},
        ],
        "actions": [{"type": "Action.OpenUrl", "title": "Open", "url": "https://a.example"}],
    }

    drawn = posts.teams({"attachments": [{"content": card}]})

    assert drawn.startswith("<p><b>&lt;Order&gt;</b></p><p><b>By</b> Post</p><p>col</p>")
    assert 'href="https://a.example"' in drawn


def test_words_cannot_make_a_search_slow() -> None:
    # Each mark begins something that never ends.
    assert posts.slack("*a _b ~c <d `e " * 4000)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                (
                    *(
                        "message",
                        "notification",
                        "data",
                        "android",
                        "apns",
                        "payload",
                        "aps",
                        "alert",
                        "token",
                    ),
                    *("personalizations", "to", "from", "content", "attachments", "headers", "subject"),
                    *("text", "blocks", "fields", "elements", "body", "type", "items", "inlines", "columns"),
                    *("msgtype", "markdown", "msg_type", "post", "card", "zh_cn", "actions", "url", "facts"),
                )
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(sorted(PROVIDERS)), _JSON | st.binary(max_size=60))
def test_whatever_came_there_is_something_to_show(wire: str, body: object) -> None:
    found = reading(wire, body)

    assert found.provider == PROVIDERS[wire]
    assert "<script" not in (found.post or "")
