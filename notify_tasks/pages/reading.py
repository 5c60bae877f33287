"""What an arrival says: its title, first words, and what its channel has beside that. Pure.

What comes may be anything, since the far end takes anything: nothing here relies on a field being there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from channels.segments import Segments, segments
from notify_tasks.pages.mails import Mail, mail_of_request, parse_json, parse_mail
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
    """

    title: str = field(default="", repr=False)
    words: str = field(default="", repr=False)
    text: str = field(default="", repr=False)
    mail: Mail | None = field(default=None, repr=False)
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    request: Mapping[str, Any] = field(default_factory=dict, repr=False)

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
    if arrival.channel == "webhook":
        kind = _text(content.get("type") or content.get("event"))
        rest = {name: value for name, value in content.items() if value != kind}
        compact = json.dumps(rest, ensure_ascii=False)
        return Reading(title=kind, words=one_line(compact), text=compact, data=content, request=request)
    title, body = _text(content.get("title")), _text(content.get("body"))
    return Reading(title=title, words=one_line(body), text=body, data=content, request=request)


def haystack(arrival: Arrival, reading: Reading, *known: str | None) -> str:
    """What a search looks through: address, subject, text, ids, channel, and what the fleet knows of it."""
    parts = (arrival.to, reading.title, reading.text[:SEARCHED], arrival.delivery_id, arrival.channel, *known)
    return "\n".join(part for part in parts if part).casefold()


def matches(hay: str, query: str) -> bool:
    """Whether every word of a query is in it."""
    return all(word in hay for word in query.casefold().split())


def one_line(text: str) -> str:
    """The first words of a text."""
    return _SPACE.sub(" ", text[: FIRST_WORDS * 2]).strip()[:FIRST_WORDS]


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
