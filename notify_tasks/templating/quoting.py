"""Filters for what strangers wrote: a comment, a title, a name. Shortened, and unable to turn the text around it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final

from notify_tasks.templating.values import MAX_OUTPUT, as_text, budget, too_large

ELLIPSIS: Final = "…"
MAX_LINES: Final = 100

_TURNS: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Bidirectional controls (UAX #9): left open, they turn around whatever follows, our own words included."""
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LOOSE: Final = " ,;:.-\u2013\u2014\uff0c\u3001\uff1b\uff1a\u3002"
"""What reads badly before an ellipsis, in Latin and in Chinese."""
_JOINS: Final = "\u200d"
_SELECTORS: Final = range(0xFE00, 0xFE10)
_TONES: Final = range(0x1F3FB, 0x1F400)


def excerpt(value: object, length: int = 120) -> str:
    """One line of at most `length` characters, cut at a space where one is near, with … where it was cut."""
    return _shorten(" ".join(_clean(value).split()), _bounded(length, MAX_OUTPUT))


def lines(value: object, length: int = 600, most: int = 12) -> list[str]:
    """The lines of a text for a quotation: at most `most`, with `length` characters together; … where it was cut."""
    left, most = _bounded(length, MAX_OUTPUT), _bounded(most, MAX_LINES)
    whole = [line.rstrip() for line in _clean(value).splitlines()]
    whole = [line for number, line in enumerate(whole) if line or (number and whole[number - 1])]
    while whole and not whole[-1]:
        whole.pop()
    found: list[str] = []
    for number, line in enumerate(whole):
        if number == most or left <= 0:
            found[-1] = found[-1].removesuffix(ELLIPSIS) + ELLIPSIS
            break
        found.append(_shorten(line, left))
        left -= max(1, len(line))
    return found


def _clean(value: object) -> str:
    text = as_text(value)
    if len(text) > MAX_OUTPUT:
        raise too_large()
    budget.get().step()
    return _CONTROL.sub("", _TURNS.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def _bounded(number: Any, most: int) -> int:
    return max(1, min(int(number), most))


def _shorten(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    end = max(0, length - len(ELLIPSIS))
    while end > 0 and _is_inside(text, end):
        end -= 1
    cut = text[:end]
    space = cut.rfind(" ")
    if text[end : end + 1] != " " and space >= length * 2 // 3:
        cut = cut[:space]
    return cut.rstrip(_LOOSE) + ELLIPSIS


def _is_inside(text: str, at: int) -> bool:
    """Whether a cut would fall inside what readers see as one character (most of UAX #29)."""
    after = text[at]
    return (
        unicodedata.combining(after) != 0
        or after == _JOINS
        or text[at - 1] == _JOINS
        or ord(after) in _SELECTORS
        or ord(after) in _TONES
    )


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {"excerpt": excerpt, "lines": lines}
