"""The second line of defence: what a log line may hold, whoever wrote it.

The first is that nobody writes an address, a body or a secret into a log. This one masks what slips through all the
same: in the words of a line, in a traceback, in a value. It knows what e-mail addresses, phone numbers, passwords and
tokens look like, and the names under which people are kept. It cannot know a body from any other words, so a value
under a name of content is refused whatever it is, and so is a value that has parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

REMOVED: Final = "[removed]"
LONGEST: Final = 2_000
"""Characters of one value; of a line's words and of a traceback it is four times as much."""
WORDS: Final = ("event", "exception")

_REFUSED: Final = frozenset(
    {
        *(
            "address",
            "addresses",
            "authorization",
            "body",
            "content",
            "contact",
            "cookie",
            "data",
            "email",
            "html",
        ),
        *(
            "kwargs",
            "args",
            "password",
            "payload",
            "phone",
            "recipient",
            "secret",
            "secrets",
            "subject",
            "text",
        ),
        *("to", "token", "tokens", "url"),
    }
)
"""Names of values that no line may have."""
KNOWN: Final = frozenset(
    {
        *(
            "timestamp",
            "level",
            "logger",
            "process",
            "pid",
            "task",
            "task_id",
            "queue",
            "message_id",
            "delivery_id",
        ),
        *(
            "notification_id",
            "trace_id",
            "attempt",
            "channel",
            "provider",
            "event_type",
            "tenant",
            "runtime",
            "lane",
        ),
    }
)
"""Names whose values are ours: ids and words from the configuration, which look like numbers at times."""

_MASKS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    # scheme://user:password@host, and what follows a host: paths of hooks and queries hold tokens
    (re.compile(r"(?<=://)[^\s/@'\"]+@"), "***@"),
    (re.compile(r"\b(https?://[^\s/?#'\"<>)\]]+)[/?#][^\s'\"<>)\]]*"), r"\1/***"),
    (re.compile(r"(?i)\b(bearer|basic|apikey)\s+[\w.~+/=-]{6,}"), r"\1 ***"),
    (
        re.compile(
            r"(?i)\b([\w-]*(?:password|passwd|secret|token|api[_-]?key|authorization|signature))"
            r"(['\"]?\s*[=:]\s*)(?:\"[^\"]*\"|'[^']*'|(?:(?:bearer|basic)\s+)?[^\s,;&'\"})\]]+)"
        ),
        r"\1\2***",
    ),
    (re.compile(r"[\w.!#$%&'+=?^`{|}~-]+@[\w-]+(?:\.[\w-]+)+", re.UNICODE), "***@***"),
    # With a plus: E.164 and how people write it. Without: a run of digits as long as a number with its country.
    (re.compile(r"(?<![\w+])\+\d[\d ().-]{5,18}\d(?!\w)"), "+***"),
    (re.compile(r"(?<![\w.:+-])\d{10,15}(?![\w:-])"), "***"),
)


def mask(text: str) -> str:
    """The text with `***` for what looks like an address, a number, a password or a token."""
    for pattern, instead in _MASKS:
        text = pattern.sub(instead, text)
    return text


def protect(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: refuse what may not be in a line, mask the rest.

    Args:
        event: the line, by name; it is changed.
    """
    for name, value in event.items():
        if name not in KNOWN:
            event[name] = _value(name, value)
    return event


def _value(name: str, value: object) -> object:
    if name.lower() in _REFUSED:
        return REMOVED
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping | list | tuple | set | bytes):
        return f"[{type(value).__name__}]"
    return _cut(mask(str(value)), LONGEST * 4 if name in WORDS else LONGEST)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"
