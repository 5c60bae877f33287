"""Text for dialects of Markdown that have no escape to rely on (DingTalk, WeCom, Apprise's long tail).

DingTalk and WeCom document a few marks and no backslash. A mark in a value is therefore replaced by its
full-width likeness, which fonts of both draw as a bracket or a star, and no parser takes for one.
"""

from __future__ import annotations

import re
from typing import Final

from channels.chat._markdown import BARE_URL, Run

_LIKE: Final = str.maketrans("*`[]<>\\", "＊｀［］＜＞＼")  # noqa: RUF001 - that they look alike is the point
_IN_URL: Final = str.maketrans("`[]<>\\", "｀［］＜＞＼")  # noqa: RUF001
_EDGE: Final = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_ENTITY: Final = re.compile(r"&(?=#?\w+;)")
_NUMBER_SIGNS: Final = re.compile(r"^\s*#+")
_MENTION: Final = re.compile(r"(?<!\w)@(?=\S)|<(?=\S)|\](?=\()")
_HALT: Final = "\u200b"


def lookalike(text: str, *, first: bool = False) -> str:
    """Text in which no mark of Markdown or HTML is left.

    Args:
        text: without line breaks.
        first: whether it begins a line, where `#` makes a heading.
    """
    # Every second part is an address. Its strokes and stars stay: it would lead elsewhere without them.
    parts = BARE_URL.split(text)
    plain = "".join(
        part.translate(_IN_URL) if place % 2 else _EDGE.sub("＿", part.translate(_LIKE))  # noqa: RUF001
        for place, part in enumerate(parts)
    )
    plain = _ENTITY.sub("＆", plain)  # noqa: RUF001
    return _NUMBER_SIGNS.sub(lambda found: found[0].replace("#", "＃"), plain) if first else plain  # noqa: RUF001


def linked(text: str, url: str) -> str:
    """A link of Markdown around text that is written already."""
    return f"[{text}]({url.replace('(', '%28').replace(')', '%29')})"


def marked(text: str, mark: str) -> str:
    """Text between two marks, with the blanks at its ends outside: `** x**` is no bold text."""
    inner = text.strip()
    if not inner:
        return text
    start = text.index(inner)
    return f"{text[:start]}{mark}{inner}{mark}{text[start + len(inner) :]}"


def defused(run: Run) -> str:
    """A run as plain text, in which no mention, no tag and no link with another label can begin.

    What would begin one (`@all`, `<!channel>`, `](`) gets a character without width behind its first mark.
    An e-mail address stays as it is.
    """
    text = _MENTION.sub(lambda found: found[0] + _HALT, run.words)
    return text if run.web in {None, run.text} else f"{text}: {run.web}"
