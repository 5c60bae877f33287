"""Our providers, as the sandbox's own variables build them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from channels.contract import (
    Accepted,
    ChannelError,
    Content,
    Deadline,
    EmailContent,
    Message,
    Provider,
    TextContent,
)
from channels.loader import load
from notify_tasks.sandbox import LoggedRequest, Sandbox
from tests.contract.conformance import a_message

MAIL = EmailContent("Your code", "It is 493817.", "<p>It is 493817.</p>")
TEXT = TextContent("one-time code 493817")
NUMBER = "+491701234567"
CHINESE = "+8613900001234"
ADDRESS = "zoe@customer.example"


def options(sandbox: Sandbox, use: str, **changes: Any) -> dict[str, Any]:
    """What `notify.toml` says of a provider that is aimed at the sandbox; an option of None is left out."""
    said = sandbox.environment
    own: Mapping[str, Mapping[str, Any]] = {
        "sms.twilio": {
            "account_sid": said["SANDBOX_TWILIO_ACCOUNT_SID"],
            "auth_token": said["SANDBOX_TWILIO_AUTH_TOKEN"],
            "from": "+15005550006",
        },
        "sms.aliyun": {
            "access_key_id": said["SANDBOX_ALIYUN_ACCESS_KEY_ID"],
            "access_key_secret": said["SANDBOX_ALIYUN_ACCESS_KEY_SECRET"],
            "sign_name": "示例商店",
            "templates": {"order.shipped": {"code": "SMS_154950909", "text": "one-time code ${code}"}},
        },
        "email.sendgrid": {
            "api_key": said["SANDBOX_SENDGRID_API_KEY"],
            "sender": "Shop <hello@shop.example>",
        },
    }
    common = {"url": said["SANDBOX_URL"], "ca_file": said["SANDBOX_CA_FILE"]}
    return {
        name: value for name, value in {**common, **own.get(use, {}), **changes}.items() if value is not None
    }


@contextmanager
def provider(sandbox: Sandbox, use: str, **changes: Any) -> Iterator[Provider]:
    """One of our providers, aimed at the sandbox."""
    built = load(use, "main", options(sandbox, use, **changes))
    try:
        yield built
    finally:
        built.close()


def message(use: str, to: str | None = None) -> Message:
    """A message for a provider."""
    content: Content = MAIL if use.startswith("email.") else TEXT
    usual = {"sms.twilio": NUMBER, "sms.aliyun": CHINESE}.get(use, ADDRESS)
    return replace(a_message(use.partition(".")[0], to or usual, content))


def outcome(built: Provider, sent: Message, seconds: float = 10) -> Accepted | ChannelError:
    """What becomes of a message."""
    try:
        return built.send(sent, Deadline(seconds))
    except ChannelError as error:
        return error


def last(sandbox: Sandbox) -> LoggedRequest:
    """The newest line of the log."""
    return sandbox.requests()[-1]
