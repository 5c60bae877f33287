"""Rates as configuration writes them: `"50/s"` of a provider, `"1/min"` of a recipient. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Self

_UNITS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_WORDS: Final = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("h", "hr", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
}
_FORM: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(?:/|per)\s*([A-Za-z]+)\s*")
MOST_PER_RECIPIENT: Final = 1000
"""Messages that one limit of a recipient may count: each is remembered for its time."""
_EXAMPLE: Final = 'Write calls in a unit of time, s, min, h or d: "50/s", "600/min"'


@dataclass(frozen=True, slots=True)
class Rate:
    """How many calls a provider takes.

    Args:
        count: calls.
        seconds: in so much time.
    """

    count: float
    seconds: float

    @property
    def per_second(self) -> float:
        """Calls a second."""
        return self.count / self.seconds

    @property
    def interval(self) -> float:
        """Seconds between two calls."""
        return self.seconds / self.count

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a rate.

        Args:
            value: `"50/s"`, `"600/min"`, `"10000/d"`.

        Raises:
            ValueError: it is none; the text says what is wrong, and what to write.
        """
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f'{value} has no unit. Write "{value:g}/s" or "{value:g}/min"')  # noqa: TRY004 - one way out
        found = _FORM.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"it is not a rate. {_EXAMPLE}")
        count, word = float(found[1]), found[2].lower()
        if word not in _WORDS:
            near = get_close_matches(word, _WORDS, n=1)
            meant = f'Did you mean "{found[1]}/{_WORDS[near[0]]}"?' if near else _EXAMPLE
            raise ValueError(f"{found[2]!r} is no unit of time. {meant}")
        if not 0 < count < math.inf:
            raise ValueError(
                "a rate of nothing sends nothing. Write enabled = false to switch a provider off"
            )
        return cls(count, _UNITS[_WORDS[word]])

    def __str__(self) -> str:
        unit = next(name for name, seconds in _UNITS.items() if seconds == self.seconds)
        return f"{self.count:g}/{unit}"


def per_recipient(value: object) -> tuple[Rate, ...]:
    """Limits of one recipient, each of which must hold.

    Args:
        value: `["1/min", "5/h", "10/day"]`.

    Raises:
        ValueError: it is none; the text says what is wrong, and what to write.
    """
    if not isinstance(value, list) or not value:
        raise ValueError('it is no list of limits. Write per_recipient = ["1/min", "5/h", "10/day"]')
    found = []
    for each in value:
        rate = Rate.parse(each)
        if rate.count != int(rate.count) or rate.count > MOST_PER_RECIPIENT:
            raise ValueError(
                f"{each!r} counts no messages. Write a whole number up to {MOST_PER_RECIPIENT} and a unit of time"
            )
        found.append(rate)
    return tuple(found)
