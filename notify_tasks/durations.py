"""Spans of time as configuration writes them: seconds as a number, or a number with its unit. Pure."""

from __future__ import annotations

import math
import re
from difflib import get_close_matches
from typing import Final

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WORDS: Final = {
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
}
_FORM: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
EXAMPLES: Final = '10, "10s", "500ms" or "15m"'


def parse(value: object) -> float:
    """Read a span of time.

    Args:
        value: `10` and `"10"` are seconds; `"500ms"`, `"10s"`, `"15m"`, `"2h"`, `"1d"`.

    Returns:
        Seconds, 0 or more.

    Raises:
        ValueError: it is none; the text says what is wrong, and what to write.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value < math.inf:
            raise ValueError(f"{value} is no span of time. Write seconds: {EXAMPLES}")
        return float(value)
    found = _FORM.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f"{_shown(value)} is no span of time. Write seconds, or a number and its unit: {EXAMPLES}"
        )
    word = found[2].lower() or "s"
    if word not in _WORDS:
        near = get_close_matches(word, _WORDS, n=1, cutoff=0.75)
        meant = f'Did you mean "{found[1]}{_WORDS[near[0]]}"?' if near else "Write ms, s, m, h or d"
        raise ValueError(f"{found[2]!r} is no unit of time. {meant}")
    return float(found[1]) * _UNITS[_WORDS[word]]


def text(seconds: float) -> str:
    """A span of time as configuration writes it: `10s`, `15m`, `500ms`."""
    if seconds and seconds == round(seconds, 3):
        for unit in ("d", "h", "m", "s"):
            if seconds % _UNITS[unit] == 0:
                return f"{seconds / _UNITS[unit]:g}{unit}"
        if seconds < 1:
            return f"{seconds * 1000:g}ms"
    return f"{seconds:g}s"


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str | bool | None) else f"a {type(value).__name__}"
