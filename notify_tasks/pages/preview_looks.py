"""What an inbox shows of a mail before it is opened. Pure."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

SNIPPET: Final = 160
"""Characters of a mail that an inbox may show beside the subject."""
_UNSEEN: Final = frozenset(("head", "style", "script", "title"))
_FILLING: Final = re.compile("[\\s\u00a0\u034f\u200b-\u200d\u2060\ufeff]+")
"""Spaces, and the characters that mails put behind a preheader to keep the body out of sight."""


def inbox_line(html: str | None, text: str) -> str:
    """The words that an inbox shows after the subject: the first of the mail, hidden ones too."""
    words = _FILLING.sub(" ", _words(html) if html else text).strip()
    return words if len(words) <= SNIPPET else f"{words[:SNIPPET].rstrip()}…"


def _words(html: str) -> str:
    reader = _Words()
    reader.feed(html)
    reader.close()
    return " ".join(reader.words)


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - as the base class
        if tag in _UNSEEN:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside and data.strip():
            self.words.append(data)


_IMAGE: Final = re.compile(r"<img\b|\bbackground=|url\(", re.IGNORECASE)


def has_images(html: str) -> bool:
    """Whether it looks different with images off."""
    return _IMAGE.search(html) is not None
