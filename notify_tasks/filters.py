"""Which deliveries an operator means: `state=failed type=order.* channel=email code=550 since=2h`. Pure.

A filter is words `field=value`, with spaces between them. Each narrows it further; several values with commas between
them widen it. A value that ends in `*` stands for all that begin like it. A value with a space is quoted, as in a
shell: `reason="paused: incident 7"`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Final

from notify_tasks import durations
from notify_tasks.errors import InvalidCall
from notify_tasks.routing import CHANNELS, LANES

OPTION: Final = "--where"
FIELDS: Final = (
    *("state", "type", "channel", "lane", "provider", "code", "reason"),
    *("tenant", "recipient", "message", "since", "until"),
)
_MEANT: Final = {
    "event_type": "type",
    "status": "state",
    "error": "code",
    "queue": "channel",
    "priority": "lane",
    "user": "recipient",
    "to": "recipient",
    "id": "message",
    "message_id": "message",
    "after": "since",
    "from": "since",
    "before": "until",
}
_TIMES: Final = ("since", "until")
EXAMPLE: Final = "state=failed type=order.shipped channel=email code=550 since=2h"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries are meant.

    Args:
        words: by field, its values as they were written; no value of a field means all.
        since: those that ended then or later, UTC.
        until: those that ended before it, UTC.
    """

    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None

    def of(self, name: str) -> tuple[str, ...]:
        """The values of one field; none where it is not narrowed."""
        return self.words.get(name, ())


def parse(
    given: Sequence[str], *, now: datetime, states: Sequence[str], refused: Mapping[str, str] | None = None
) -> Filter:
    """Read a filter.

    Args:
        given: texts of one or more words.
        now: the present, from which `since=2h` is counted.
        states: those that may be named; the first is meant where none is.
        refused: states that may not, each with what to do instead.

    Raises:
        InvalidCall: a word is wrong: which field, what is wrong, and the nearest right one.
    """
    words: dict[str, tuple[str, ...]] = {}
    times: dict[str, datetime] = {}
    for text in given:
        for word in _split(text):
            name, values = _word(word)
            if name in words or name in times:
                raise InvalidCall(
                    f"{OPTION} {name}", "it is given twice", f"Write {name}=one,other for either of two"
                )
            if name in _TIMES:
                times[name] = _moment(name, word.partition("=")[2], now)
            else:
                words[name] = values
    words.setdefault("state", (states[0],))
    for state in words["state"]:
        if refused and state in refused:
            raise InvalidCall(f"{OPTION} state", f"{state} is not meant here", refused[state])
    for name, known in (("state", states), ("channel", CHANNELS), ("lane", LANES)):
        for value in words.get(name, ()):
            if value not in known:
                raise InvalidCall(
                    f"{OPTION} {name}", f"there is no {name} {value!r} here", _near(value, known)
                )
    return Filter(words, **times)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        raise InvalidCall(OPTION, "a quotation is not closed", f"Write it as in {EXAMPLE}") from None


def _word(word: str) -> tuple[str, tuple[str, ...]]:
    name, equals, value = word.partition("=")
    if name not in FIELDS:
        meant = _MEANT.get(name)
        remedy = f"Did you mean {meant}?" if meant else _near(name, FIELDS)
        raise InvalidCall(OPTION, f"there is no field {name!r}", remedy)
    values = tuple(each for each in value.split(",") if each)
    if not equals or not values:
        raise InvalidCall(f"{OPTION} {name}", "no value follows", f"Write {name}=VALUE, as in {EXAMPLE}")
    return name, values


def _moment(name: str, value: str, now: datetime) -> datetime:
    try:
        return now - timedelta(seconds=durations.parse(value))
    except ValueError as error:
        said = error
    except OverflowError:
        raise InvalidCall(f"{OPTION} {name}", "it is too long ago", "Write it as in 30d") from None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise InvalidCall(
            f"{OPTION} {name}", f"{said}".partition(". ")[0], "Write 2h, 3d, or 2030-01-31T09:00+01:00"
        ) from None
    if moment.tzinfo is None:
        raise InvalidCall(
            f"{OPTION} {name}", "the time has no zone", f"Write {value}Z for UTC, or {value}+01:00"
        )
    return moment.astimezone(UTC)


def _near(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}"
