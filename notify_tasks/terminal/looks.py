"""How states, times and sizes look, the same in every command. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Final

NONE: Final = "\N{EN DASH}"
MARKS: Final[Mapping[str, str]] = {
    "sent": "●",
    "delivered": "✔",
    "accepted": "✔",
    "read": "✔",
    "applied": "✔",
    "queued": "◌",
    "sending": "➜",
    "held": "◷",
    "retrying": "↻",
    "digested": "↻",
    "in_doubt": "?",
    "failed": "✖",
    "undelivered": "✖",
    "rejected": "✖",
    "parked": "✖",
    "unknown": "?",
    "unreadable": "✖",
    "unmatched": "✖",
    "new": "◌",
    "waiting": "◷",
    "suppressed": NONE,
    "cancelled": NONE,
    "expired": NONE,
    "superseded": NONE,
}
"""A state always has its word beside its colour; the mark is for a quick look down a list."""

_GOOD: Final = ("#1a7f4b", "#4cc38a")
_MOVING: Final = ("#2563c9", "#7aa7f7")
_WAITING: Final = ("#8a6100", "#e2b341")
_DOUBT: Final = ("#8b3fc7", "#c79bf2")
_BAD: Final = ("#b3261e", "#f2847c")
_STOPPED: Final = ("#5f6672", "#9aa2af")
_COLOURS: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys(("sent", "delivered", "accepted", "read", "applied"), _GOOD),
    **dict.fromkeys(("queued", "sending", "new"), _MOVING),
    **dict.fromkeys(("held", "retrying", "digested", "waiting"), _WAITING),
    "in_doubt": _DOUBT,
    **dict.fromkeys(
        ("failed", "undelivered", "rejected", "parked", "unreadable", "unmatched", "unknown"), _BAD
    ),
    **dict.fromkeys(("suppressed", "cancelled", "expired", "superseded"), _STOPPED),
}

MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 86400


def colour(state: str, environment: Mapping[str, str] = os.environ) -> str:
    """The colour of a state. Terminals that say so in COLORFGBG have a light background; else it is dark."""
    background = environment.get("COLORFGBG", "").rpartition(";")[2]
    light = background in {"7", "15"}
    pair = _COLOURS.get(state)
    return "default" if pair is None else pair[0 if light else 1]


def word(state: str) -> str:
    """A state as people read it: `in doubt`."""
    return state.replace("_", " ")


def duration(seconds: float) -> str:
    """`80 ms`, `1.3 s`, `42 s`, `3 min 5 s`, `2 h 4 min`, `3 d 2 h`."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.9995:  # noqa: PLR2004 - what still rounds to less than a second
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:  # noqa: PLR2004 - two digits are enough
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    for unit, name, below, small in (
        (DAY, "d", HOUR, "h"),
        (HOUR, "h", MINUTE, "min"),
        (MINUTE, "min", 1, "s"),
    ):
        if whole >= unit:
            count, rest = divmod(whole, unit)
            rest //= below
            return f"{count} {name} {rest} {small}" if rest else f"{count} {name}"
    raise AssertionError("a minute or more was handled above")


def clock(moment: datetime) -> str:
    """A time of day with its zone, and the date where it is another day's: as this machine's clock shows it."""
    local = moment.astimezone()
    today = datetime.now(local.tzinfo).date()
    date = "" if local.date() == today else f"{local:%Y-%m-%d} "
    return f"{date}{local:%H:%M:%S %Z}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 delivery`, `3 deliveries`."""
    if number == 1:
        return f"1 {noun}"
    if plural is None:
        plural = (
            f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:] not in {"ay", "ey", "oy"} else f"{noun}s"
        )
    return f"{number} {plural}"
