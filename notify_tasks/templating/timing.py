"""Reads `[digest]` and `[throttle]` of a notification.toml. An error is a ValueError: problem, remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from notify_tasks import digesting
from notify_tasks.digesting import DAILY, DIGEST, HIGHEST_MOST, OVERS, WEEKLY, DigestRule, ThrottleRule, When
from notify_tasks.routing import CHANNELS

T = TypeVar("T")

_TYPE: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_WHEN: Final = ("every", "daily", "weekly", "after")
_DIGEST_KEYS: Final = ("type", *_WHEN, "at_most", "first", "by", "most", "channels")
_THROTTLE_KEYS: Final = ("limit", "over", "by")


class BadTable(ValueError):
    """A table is wrong: problem and remedy."""


def digest(value: object) -> DigestRule:
    """Read `[digest]`.

    Raises:
        BadTable: something in it is wrong.
    """
    table = _table(
        value, "digest", _DIGEST_KEYS, 'Write type = "comment.digest" and every = "1h" under [digest]'
    )
    return DigestRule(
        type=_digest_type(table.get("type")),
        when=_when(table),
        first=_first(table.get("first")),
        by=_by(table, "digest"),
        most=_most(table.get("most")),
        channels=_channels(table.get("channels")),
    )


def throttle(value: object) -> ThrottleRule:
    """Read `[throttle]`.

    Raises:
        BadTable: something in it is wrong.
    """
    table = _table(
        value, "throttle", _THROTTLE_KEYS, 'Write limit = "3/h" and over = "drop" under [throttle]'
    )
    count, seconds = _read("throttle.limit", digesting.limit, table.get("limit"))
    over = table.get("over")
    if over not in OVERS:
        raise BadTable(
            f"throttle.over is none of {', '.join(OVERS)}",
            'Write over = "drop", for example: it says what becomes of those beyond the limit',
        )
    return ThrottleRule(count, seconds, over, _by(table, "throttle"))


def contradictions(values: Mapping[str, Any], name: str) -> list[tuple[str, str, str]]:
    """What in a type's policy does not go together: key, problem, remedy."""
    found = []
    gathers, throttles = values.get("digest"), values.get("throttle")
    if gathers is not None and gathers.type == name:
        found.append(
            ("digest", "digest.type is the type itself", "Name another one, with templates for a digest")
        )
    if gathers is not None and values.get("required"):
        found.append(("digest", "it is required, and gathers, so that it waits", "Take one of them out"))
    if throttles is not None and throttles.over == DIGEST and (gathers is None or gathers.when is None):
        remedy = "Add [digest] with the digest's type, and when it is due"
        found.append(("throttle", 'throttle.over is "digest", and no [digest] says when', remedy))
    if throttles is not None and throttles.over == digesting.HOLD and gathers is not None:
        remedy = 'Write over = "digest", or "drop"'
        found.append(("throttle", 'throttle.over is "hold", and what is gathered waits already', remedy))
    return found


def _table(value: object, name: str, keys: tuple[str, ...], example: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadTable(f"{name} is not a table", example)
    for key in value:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            remedy = f"Did you mean {near[0]!r}?" if near else f"Keys are: {', '.join(keys)}"
            raise BadTable(f"{name} has an unknown key {key!r}", remedy)
    return value


def _read(key: str, reader: Callable[[object], T], value: object) -> T:
    try:
        return reader(value)
    except ValueError as error:
        problem, _, remedy = str(error).partition(". ")
        raise BadTable(f"{key}: {problem}", remedy) from None


def _digest_type(value: object) -> str:
    if not isinstance(value, str) or not _TYPE.fullmatch(value):
        raise BadTable(
            "digest.type names no type",
            'Write type = "comment.digest": a folder with templates for the digest',
        )
    return value


def _when(table: Mapping[str, Any]) -> When | None:
    given = [key for key in _WHEN if key in table]
    if len(given) > 1:
        raise BadTable(
            f"digest says {' and '.join(given)}",
            'Write one of every = "1h", daily = "08:00", weekly = "mon 08:00", and after = "10m" with at_most',
        )
    kind = given[0] if given else None
    if ("at_most" in table) != (kind == "after"):
        raise BadTable(
            "digest.at_most belongs to after, and after needs it",
            'Write after = "10m" and at_most = "1h": it is put off by each item, and goes in any case then',
        )
    if kind == "every":
        return _read("digest.every", lambda text: digesting.every(digesting.span(text)), table[kind])
    if kind == "after":
        silence = _read("digest.after", digesting.span, table[kind])
        cap = _read("digest.at_most", digesting.span, table["at_most"])
        return _read("digest.after", lambda _: digesting.after(silence, cap), None)
    if kind is None:
        return None
    text = table[kind]
    words = f"{kind} {text}" if isinstance(text, str) else kind
    found = _read(f"digest.{kind}", lambda _: When.parse(words), None)
    if found.at is None or (kind == WEEKLY and found.day is None):
        example = 'daily = "08:00"' if kind == DAILY else 'weekly = "mon 08:00"'
        raise BadTable(f"digest.{kind} does not say when", f"Write {example}")
    return found


def _first(value: object) -> bool:
    if value not in (None, "now"):
        raise BadTable(
            'digest.first is not "now"', 'Write first = "now": the first item goes at once; or leave it out'
        )
    return value is not None


def _by(table: Mapping[str, Any], name: str) -> str | None:
    return None if "by" not in table else _read(f"{name}.by", digesting.path, table["by"])


def _channels(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value or any(each not in CHANNELS for each in value):
        raise BadTable(
            "digest.channels is no list of channels",
            f'Write channels = ["email"]; the others go at once. Channels are: {", ".join(CHANNELS)}',
        )
    return tuple(value)


def _most(value: object) -> int:
    if value is None:
        return digesting.DEFAULT_MOST
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= HIGHEST_MOST:
        raise BadTable(
            f"digest.most is not a number from 1 to {HIGHEST_MOST}", "Write most = 500, for example"
        )
    return value
