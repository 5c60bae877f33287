"""What comes over providers' own APIs, on the sandbox page in a real browser: read, drawn, and harmless."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from integration.wire_clients import LOCAL, ask, send
from support.wired import last, provider

from channels.contract import (
    Accepted,
    Attachment,
    ChatContent,
    Content,
    DataContent,
    EmailContent,
    TextContent,
)
from notify_tasks.sandbox import Sandbox, credentials, sandbox_process

OpenTab = Callable[..., Any]
PUSHED = DataContent({"title": "Order 981", "body": "It is on its way", "url": "https://shop.example/981"})
POST = ChatContent("**Order 981** is on *its* way: [track it](https://shop.example/981)")
MAIL = EmailContent(
    "Order 981",
    "It is on its way.",
    "<h1>On its way</h1>",
    (Attachment("bill.pdf", "application/pdf", b"%PDF-1.7"),),
)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_process(tmp_path_factory.mktemp("sandbox"), page=True, page_port=0) as running:
        yield running


def arrive(sandbox: Sandbox, use: str, to: str, content: Content, **options: Any) -> str:
    """Send one message by one of our providers; the id under which the page has it."""
    with provider(sandbox, use, **options) as built:
        _, outcome = send(built, use.partition(".")[0], to, content)
    assert isinstance(outcome, Accepted), outcome
    return last(sandbox).id or ""


def opened(tab: Any, id_: str) -> Any:
    """The message on the page."""
    tab.evaluate(f"location.hash = '#/message/{id_}'")
    tab.wait_for_selector(f'#message article[data-id="{id_}"]')
    for each in tab.locator("#message [role=tab]").all()[1:]:
        each.click()
        assert tab.locator("#message .panel:visible").count() == 1
    tab.locator("#message [role=tab]").first.click()
    return tab.locator("#message")


def badge(tab: Any, id_: str) -> str:
    text: str = tab.locator(f'.row[data-id="{id_}"] .via').inner_text()
    return text


def test_text_messages_are_read_on_a_phone(sandbox: Sandbox, open_tab: OpenTab) -> None:
    first = arrive(sandbox, "sms.twilio", "+447700900101", TextContent("Your order 981 is on its way"))
    second = arrive(sandbox, "sms.aliyun", "+8613900001234", TextContent("one-time code 493817"))
    tab = open_tab(sandbox.ready.page_url)

    twilio = opened(tab, first)
    assert twilio.locator(".bubble").inner_text() == "Your order 981 is on its way"
    assert twilio.locator(".phone-name").inner_text() == "+15005550006"
    assert "GSM-7" in twilio.locator(".sums").inner_text()
    aliyun = opened(tab, second)
    assert "493817" in aliyun.locator(".bubble").inner_text()
    assert aliyun.locator(".phone-name").inner_text() == "示例商店"
    assert "SMS_154950909" in aliyun.locator(".sums").inner_text()
    assert "GSM-7" not in aliyun.locator(".sums").inner_text(), (
        "its words are not known, so nothing is counted"
    )
    assert (badge(tab, first), badge(tab, second)) == ("Twilio", "Alibaba Cloud")


def test_a_mail_is_read_with_its_parts(sandbox: Sandbox, open_tab: OpenTab) -> None:
    id_ = arrive(sandbox, "email.sendgrid", "ann@example.com", MAIL)
    tab = open_tab(sandbox.ready.page_url)

    mail = opened(tab, id_)

    assert badge(tab, id_) == "SendGrid"
    assert mail.locator("h1").first.inner_text() == "Order 981"
    assert tab.frame_locator(".mail-frame").locator("h1").inner_text() == "On its way"
    assert "It is on its way." in mail.locator("#panel-text").text_content()
    assert "Shop <hello@shop.example>" in mail.locator("#panel-headers").text_content()
    assert "bill.pdf" in mail.locator("#panel-files").text_content()


def test_pushes_are_read_on_a_phone_and_in_a_browser(sandbox: Sandbox, open_tab: OpenTab) -> None:
    account = json.dumps(credentials.fcm_service_account(sandbox.ready.https_url))
    first = arrive(sandbox, "push.fcm", "ann-phone:APA91b", PUSHED, credentials=account)
    vapid = {
        "private_key": sandbox.environment["SANDBOX_VAPID_PRIVATE_KEY"],
        "subject": "mailto:ops@example.com",
    }
    browser = credentials.webpush_subscription(sandbox.ready.https_url, "ann-laptop")
    aimed = {"url": None, "hosts": ["127.0.0.1"], **LOCAL}
    second = arrive(sandbox, "webpush.vapid", browser, PUSHED, **vapid, **aimed)
    tab = open_tab(sandbox.ready.page_url)

    for id_, name in ((first, "FCM"), (second, "Web Push")):
        push = opened(tab, id_)
        assert badge(tab, id_) == name
        assert push.locator(".push-title").inner_text() == "Order 981"
        assert push.locator(".push-text").inner_text() == "It is on its way"
        assert "https://shop.example/981" in push.locator(".sums").inner_text()


def test_posts_are_drawn_as_their_service_would(sandbox: Sandbox, open_tab: OpenTab) -> None:
    tab = open_tab(sandbox.ready.page_url, width=390)
    secrets = {"dingtalk": credentials.DINGTALK_SECRET, "feishu": credentials.FEISHU_SECRET}
    for service, hook in credentials.chat_hooks(sandbox.ready.https_url, "ops").items():
        room = {"url": hook, "secret": secrets[service]} if service in secrets else hook
        id_ = arrive(sandbox, f"chat.{service}", "ops", POST, url=None, rooms={"ops": room})

        post = opened(tab, id_)

        assert post.locator(".markdown").inner_text().strip() == "Order 981 is on its way: track it", service
        assert post.locator(".markdown :is(b, strong)").inner_text() == "Order 981", service
        assert post.locator(".markdown a").get_attribute("href") == "https://shop.example/981", service
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390, f"{service} fits on a phone"


def test_a_hostile_post_stays_text(sandbox: Sandbox, open_tab: OpenTab) -> None:
    # Given posts that no provider of ours would make
    bad = "<img src=x onerror=top.taken=1><javascript:top.taken=2|go> &lt;script>top.taken=3&lt;/script>"
    link = {"type": "Action.OpenUrl", "url": "javascript:top.taken=4"}
    card = {
        "type": "AdaptiveCard",
        "body": [{"type": "RichTextBlock", "inlines": [{"text": bad, "selectAction": link}]}],
    }
    kind = "application/vnd.microsoft.card.adaptive"
    told = {
        "slack": {"text": bad},
        "teams": {"attachments": [{"contentType": kind, "content": card}]},
        "wecom": {"msgtype": "markdown", "markdown": {"content": f"{bad} [go](javascript:top.taken=5)"}},
    }
    tab = open_tab(sandbox.ready.page_url)
    for service, body in told.items():
        answer = ask(credentials.chat_hooks(sandbox.http_url)[service], "POST", json.dumps(body))
        assert answer.status < 300

        # When somebody reads them
        post = opened(tab, last(sandbox).id or "")

        # Then nothing of them is a tag, leads anywhere, or has run
        assert post.locator(".markdown :is(img, script, a)").count() == 0
        assert tab.evaluate("window.taken") is None
