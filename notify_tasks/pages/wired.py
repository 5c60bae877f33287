"""What arrived over a provider's wire, told in the terms of its channel. Pure.

One function for each wire, found by the arrival's protocol. What comes has been judged by the wire, and may still be
anything where the provider's documentation leaves it open.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs

from markupsafe import Markup

from notify_tasks.pages import posts
from notify_tasks.pages.chats import rendered
from notify_tasks.pages.mails import Attachment, Mail, parse_json
from notify_tasks.sandbox.kept import Arrival
from notify_tasks.terminal.looks import clock, duration

PROVIDERS: Final[Mapping[str, str]] = {
    "aliyun": "Alibaba Cloud",
    "dingtalk": "DingTalk",
    "fcm": "FCM",
    "feishu": "Feishu",
    "sendgrid": "SendGrid",
    "slack": "Slack",
    "teams": "Teams",
    "twilio": "Twilio",
    "webhook": "Signed",
    "webpush": "Web Push",
    "wecom": "WeCom",
}
"""What each wire is called on a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """One message.

    Args:
        text: as it was written; of a chat post in its service's own form.
        content: of push, web push and webhooks: the object that the app, the page or the customer gets.
        post: a chat post, drawn.
        mail: of e-mail.
        sender: whom a phone shows as the sender.
        facts: what else the request says of how it is to be treated: name and value.
        request: the body as an object, to be shown as it came.
        form: what a chat post's text is written in.
        whole: the text is what a person reads, and not only what goes into a template.
    """

    text: str = field(default="", repr=False)
    content: Mapping[str, Any] = field(default_factory=dict, repr=False)
    post: Markup | None = field(default=None, repr=False)
    mail: Mail | None = field(default=None, repr=False)
    sender: str = field(default="", repr=False)
    facts: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    request: Mapping[str, Any] = field(default_factory=dict, repr=False)
    form: str = "Markdown"
    whole: bool = True


def wired(arrival: Arrival) -> Wired | None:
    """What an arrival says; None where it came over no provider's wire."""
    reader = _READERS.get(arrival.protocol)
    return reader(arrival) if reader else None


def form_of(raw: bytes) -> dict[str, str]:
    """A form's fields, the first value of each."""
    found = parse_qs(raw.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0] for name, values in found.items()}


def _facts(*pairs: tuple[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in pairs if value is not None and value != "")


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _texts(values: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that has a text."""
    return next((str(values[name]) for name in names if values.get(name)), "")


# --- SMS ----------------------------------------------------------------------------------------------------


def _twilio(arrival: Arrival) -> Wired:
    form = form_of(arrival.raw)
    return Wired(
        text=form.get("Body", ""),
        sender=_texts(form, "From", "MessagingServiceSid"),
        facts=_facts(("Validity", form.get("ValidityPeriod")), ("Receipts to", form.get("StatusCallback"))),
        request=form,
    )


def _aliyun(arrival: Arrival) -> Wired:
    asked = parse_json(arrival.raw) or form_of(arrival.raw)
    given = {name: value for name, value in asked.items() if value}
    sign, code = _texts(given, "SignName", "From"), _texts(given, "TemplateCode")
    values = _object(_loaded(given.get("TemplateParam")))
    # The words of an approved template are Alibaba Cloud's: what is known here is what goes into them.
    parts = "".join(f"\n{name}: {value}" for name, value in values.items())
    words = _texts(given, "Message", "Content")
    text = words or f"{code}{parts}"
    return Wired(
        text=f"【{sign}】{text}" if sign else text,
        sender=sign,
        facts=_facts(("Template", code), ("Out id", given.get("OutId"))),
        whole=bool(words),
        request=asked,
    )


def _loaded(value: object) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None


# --- mail ---------------------------------------------------------------------------------------------------


def _sendgrid(arrival: Arrival) -> Wired:
    request = parse_json(arrival.raw)
    persons = _objects(request.get("personalizations")) or [{}]
    mine = (it for it in persons if any(to.get("email") == arrival.to for to in _objects(it.get("to"))))
    person = next(mine, persons[0])
    parts = {str(each.get("type")): str(each.get("value") or "") for each in _objects(request.get("content"))}
    subject = _texts(person, "subject") or _texts(request, "subject")
    sender = _mailbox(person.get("from") or request.get("from"))
    headers = {**_object(request.get("headers")), **_object(person.get("headers"))}
    shown = _facts(
        ("From", sender),
        *((name.title(), _mailboxes(person.get(name))) for name in ("to", "cc")),
        ("Reply-To", _mailbox(request.get("reply_to"))),
        ("Subject", subject),
        *headers.items(),
    )
    mail = Mail(
        subject=subject,
        sender=sender,
        to=arrival.to,
        headers=shown,
        text=parts.get("text/plain"),
        html=parts.get("text/html"),
        attachments=tuple(map(_attached, _objects(request.get("attachments")))),
    )
    return Wired(mail=mail, request=request)


def _mailbox(value: object) -> str:
    it = _object(value)
    email, name = str(it.get("email") or ""), it.get("name")
    return f"{name} <{email}>" if name else email


def _mailboxes(values: object) -> str:
    return ", ".join(map(_mailbox, _objects(values)))


def _attached(values: Mapping[str, Any]) -> Attachment:
    try:
        data = base64.b64decode(str(values.get("content") or ""), validate=True)
    except ValueError:
        data = b""
    return Attachment(
        _texts(values, "filename") or "attachment",
        _texts(values, "type") or "application/octet-stream",
        data,
        _texts(values, "content_id") or None,
    )


# --- push, web push, webhooks -----------------------------------------------------------------------------------


def _fcm(arrival: Arrival) -> Wired:
    request = parse_json(arrival.raw)
    message = _object(request.get("message"))
    android, apns = _object(message.get("android")), _object(message.get("apns"))
    alert = _object(_object(apns.get("payload")).get("aps")).get("alert")
    alert = alert if isinstance(alert, dict) else {"body": alert}
    shown = {**alert, **_object(message.get("notification")), **_given(_object(android.get("notification")))}
    content = {**{name: shown[name] for name in ("title", "body", "image") if shown.get(name)}}
    return Wired(
        content={**content, **_object(message.get("data"))},
        facts=_facts(
            ("Priority", android.get("priority")),
            ("Kept for", _kept(str(android.get("ttl") or "").removesuffix("s"))),
            ("Replaces", android.get("collapse_key") or _object(android.get("notification")).get("tag")),
        ),
        request=request,
    )


def _given(android: Mapping[str, Any]) -> dict[str, Any]:
    return {name: android[name] for name in ("title", "body", "image") if android.get(name)}


def _kept(seconds: str) -> str:
    """How long a message waits for a phone or browser that is away."""
    return duration(int(seconds)) if re.fullmatch(r"[0-9]{1,9}", seconds) else ""


def _webpush(arrival: Arrival) -> Wired:
    content = parse_json(arrival.raw)
    headers = dict(arrival.headers)
    declared = _object(content.get("notification"))  # Declarative Web Push puts it there
    return Wired(
        content={**content, **declared},
        facts=_facts(
            ("Urgency", headers.get("urgency")),
            ("Kept for", _kept(headers.get("ttl", ""))),
            ("Topic", headers.get("topic")),
        ),
        request=content,
    )


def _webhook(arrival: Arrival) -> Wired:
    content = parse_json(arrival.raw)
    headers = dict(arrival.headers)
    signatures = headers.get("webhook-signature", "").split()
    return Wired(
        content=content,
        facts=_facts(
            ("Id", headers.get("webhook-id")),
            ("Timestamp", _timestamp(headers.get("webhook-timestamp", ""))),
            *(("Signature", each) for each in signatures),
        ),
        request=content,
    )


def _timestamp(seconds: str) -> str:
    if not re.fullmatch(r"[0-9]{1,10}", seconds):
        return seconds
    return f"{seconds} ({clock(datetime.fromtimestamp(int(seconds), UTC))})"


# --- chat -------------------------------------------------------------------------------------------------------


def _slack(arrival: Arrival) -> Wired:
    request: Mapping[str, Any] = parse_json(arrival.raw)
    if not request:
        form = form_of(arrival.raw)
        request = parse_json(form["payload"].encode()) if "payload" in form else form
    text = posts.slack_text(request)
    return Wired(text=text, post=posts.slack(text), request=request, form="mrkdwn")


def _teams(arrival: Arrival) -> Wired:
    request = parse_json(arrival.raw)
    post = posts.teams(request)
    return Wired(text=posts.words(post), post=post, request=request, form="Text")


def _feishu(arrival: Arrival) -> Wired:
    request = parse_json(arrival.raw)
    post = posts.feishu(request)
    return Wired(text=posts.words(post), post=post, request=request, form="Text")


def _robot(arrival: Arrival) -> Wired:
    """A post of DingTalk's or WeCom's: one part, named by its type."""
    request = parse_json(arrival.raw)
    kind = str(request.get("msgtype"))
    part = _object(request.get(kind))
    text = _texts(part, "text", "content")
    if kind.startswith(("markdown", "actionCard")):
        return Wired(text=text, post=rendered(text), request=request)
    title = _texts(part, "title")
    drawn = Markup("<p>{}</p>").format("\n".join(filter(None, (title, text))))
    return Wired(text=text, post=drawn, request=request, form="Text")


_READERS: Final[Mapping[str, Callable[[Arrival], Wired]]] = {
    "aliyun": _aliyun,
    "dingtalk": _robot,
    "fcm": _fcm,
    "feishu": _feishu,
    "sendgrid": _sendgrid,
    "slack": _slack,
    "teams": _teams,
    "twilio": _twilio,
    "webhook": _webhook,
    "webpush": _webpush,
    "wecom": _robot,
}
