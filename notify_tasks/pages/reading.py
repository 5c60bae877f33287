"""What an arrival says: its title, first words, and what its channel has beside that. Pure.

What comes may be anything, since the far end takes anything: nothing here relies on a field being there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from markupsafe import Markup

from channels.segments import Segments, segments
from notify_tasks.pages import posts
from notify_tasks.pages.mails import Mail, mail_of_request, parse_json, parse_mail
from notify_tasks.pages.wired import PROVIDERS, Wired, wired
from notify_tasks.sandbox.kept import Arrival

FIRST_WORDS: Final = 160
SEARCHED: Final = 200_000
"""Characters of a message that a search looks at."""
_SPACE: Final = re.compile(r"\s+")
_UNSEEN: Final = re.compile(r"<(style|script)\b")
_TAG: Final = re.compile(r"<[^<>]*>")
_MARKDOWN: Final = re.compile(r"[*_`>#]+|\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True, slots=True)
class Reading:
    """An arrival, read.

    Args:
        title: a subject or title; empty where the channel has none.
        words: the first words, on one line.
        text: all of it, as far as a person reads it.
        mail: of an e-mail.
        data: of a push, web push, in-app or webhook message: its object.
        request: the body that came, as an object; empty for what is none.
        provider: whose wire it came over, for people; empty where it was nobody's.
        sender: whom a phone shows as the sender.
        facts: what else the provider was told: name and value.
        post: a chat post, drawn, where it came in its service's own form.
        form: what a chat post's text is written in.
        whole: the text is what a person reads, and not only what goes into a provider's template.
    """

    title: str = field(default="", repr=False)
    words: str = field(default="", repr=False)
    text: str = field(default="", repr=False)
    mail: Mail | None = field(default=None, repr=False)
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    request: Mapping[str, Any] = field(default_factory=dict, repr=False)
    provider: str = ""
    sender: str = field(default="", repr=False)
    facts: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    post: Markup | None = field(default=None, repr=False)
    form: str = "Markdown"
    whole: bool = True

    @property
    def segments(self) -> Segments:
        """The text as SMS."""
        return segments(self.text)

    @property
    def attachments(self) -> int:
        return len(self.mail.attachments) if self.mail else 0


def read(arrival: Arrival) -> Reading:
    """Read an arrival."""
    if arrival.protocol == "smtp":
        return _of_mail(parse_mail(arrival.raw), {})
    if (it := wired(arrival)) is not None:
        return _of_wire(arrival, it)
    request = parse_json(arrival.raw)
    if arrival.channel == "email":
        return _of_mail(mail_of_request(arrival.to, request, arrival.headers), request)
    content = request if arrival.protocol == "database" else request.get("content")
    content = content if isinstance(content, dict) else {}
    if arrival.channel == "sms":
        text = _text(content.get("text"))
        return Reading(words=one_line(text), text=text, request=request)
    if arrival.channel == "chat":
        text = _text(content.get("markdown"))
        words = one_line(_MARKDOWN.sub(lambda found: found[1] or "", text[: FIRST_WORDS * 4]))
        return Reading(words=words, text=text, request=request)
    return _of_data(arrival.channel, content, request)


def haystack(arrival: Arrival, reading: Reading, *known: str | None) -> str:
    """What a search looks through: address, subject, text, ids, channel, and what the fleet knows of it."""
    parts = (
        arrival.to,
        reading.title,
        reading.text[:SEARCHED],
        arrival.delivery_id,
        arrival.channel,
        reading.provider,
        *known,
    )
    return "\n".join(part for part in parts if part).casefold()


def matches(hay: str, query: str) -> bool:
    """Whether every word of a query is in it."""
    return all(word in hay for word in query.casefold().split())


def one_line(text: str) -> str:
    """The first words of a text."""
    return _SPACE.sub(" ", text[: FIRST_WORDS * 2]).strip()[:FIRST_WORDS]


def _of_data(channel: str, content: Mapping[str, Any], request: Mapping[str, Any]) -> Reading:
    """Of push, web push, in-app and webhooks: an object."""
    if channel == "webhook":
        kind = _text(content.get("type") or content.get("event"))
        rest = {name: value for name, value in content.items() if value != kind}
        compact = json.dumps(rest, ensure_ascii=False)
        return Reading(title=kind, words=one_line(compact), text=compact, data=content, request=request)
    title, body = _text(content.get("title")), _text(content.get("body"))
    words = body or ("" if title or not content else json.dumps(content, ensure_ascii=False))
    return Reading(title=title, words=one_line(words), text=body, data=content, request=request)


def _of_wire(arrival: Arrival, it: Wired) -> Reading:
    """Of a provider's wire."""
    if it.mail is not None:
        reading = _of_mail(it.mail, it.request)
    elif it.post is not None:
        reading = Reading(
            words=one_line(posts.words(it.post[: SEARCHED // 10])),
            text=it.text,
            request=it.request,
            post=it.post,
            form=it.form,
        )
    elif it.content or not it.text:
        reading = _of_data(arrival.channel, it.content, it.request)
    else:
        reading = Reading(words=one_line(it.text), text=it.text, request=it.request)
    if arrival.channel == "webpush" and arrival.raw and not it.content:
        reading = replace(reading, words="no JSON, or encrypted for another browser")
    return replace(
        reading, provider=PROVIDERS[arrival.protocol], sender=it.sender, facts=it.facts, whole=it.whole
    )


def _of_mail(mail: Mail, request: Mapping[str, Any]) -> Reading:
    text = mail.text if mail.text is not None else _without_tags(mail.html or "")
    return Reading(title=mail.subject, words=one_line(text), text=text, mail=mail, request=request)


def _without_tags(html: str) -> str:
    """The words of HTML, roughly, for a search. In one pass, whatever was sent to make it slow."""
    html = html[:SEARCHED]
    lower = html.lower()
    kept, at = [], 0
    while found := _UNSEEN.search(lower, at):
        kept.append(html[at : found.start()])
        end = lower.find(f"</{found[1]}", found.end())
        at = len(html) if end < 0 else end
    kept.append(html[at:])
    return _TAG.sub(" ", "".join(kept))


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
