"""The payload that a preview is rendered with: what its author writes, and payloads that show a template's edges."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from notify_tasks.rendering import LoadedType
from notify_tasks.templating import folder
from notify_tasks.templating.errors import PayloadInvalid

MAX_BYTES: Final = 64 * 1024
"""As much as a call takes."""
LONGEST_TEXT: Final = 240
"""Characters of a long value at most, where the schema allows more."""
LONGEST_LIST: Final = 25
LONGEST_NUMBER: Final = 9
"""Digits."""

_WORDS: Final = (
    "Maximiliane-Theodora von und zu Hohenlohe-Waldenburg Rindfleischetikettierungsueberwachungsaufgaben "
    "and Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch in one long line "
)
"""Words of every length, some without a place to break: what makes a layout overflow."""
_PATH: Final = "a-path-without-a-place-to-break/"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with what was written.

    Args:
        where: `line 3, column 7`, or the field: `payload.items[0].name`.
        problem: what is wrong there.
        line: from 1, where it is not JSON.
    """

    where: str
    problem: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """A field that the schema declares.

    Args:
        path: from the payload: `items[].name`.
        kind: what it is: `string`, `integer`.
        required: whether its object is refused without it.
        about: its description.
    """

    path: str
    kind: str
    required: bool
    about: str


@dataclass(frozen=True, slots=True)
class Written:
    """A payload as it was written. `value` is None where it cannot be used; `faults` says why."""

    value: dict[str, Any] | None
    faults: tuple[Fault, ...] = ()


def read(text: str, loaded: LoadedType) -> Written:
    """Read a payload and hold it against the type's schema.

    Args:
        text: JSON.
        loaded: the type.
    """
    if len(text.encode(errors="replace")) > MAX_BYTES:
        return Written(
            None, (Fault("payload", f"is larger than {MAX_BYTES // 1024} KiB, and no call takes it"),)
        )
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        return Written(None, (Fault(where, f"not JSON: {error.msg}", error.lineno),))
    except (ValueError, RecursionError):
        return Written(None, (Fault("payload", "not JSON: a number is too long, or it is nested too deep"),))
    if not isinstance(value, dict):
        return Written(None, (Fault("payload", "is no JSON object: write { ... }", 1),))
    faults = tuple(Fault(it.path, it.problem) for it in loaded.schema.problems(value))
    return Written(None if faults else value, faults)


def as_text(value: dict[str, Any]) -> str:
    """A payload as its author would write it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def fields(loaded: LoadedType) -> tuple[Field, ...]:
    """The fields of the type's schema, in its order, as far as plain `properties` and `items` tell."""
    policy = tomllib.loads(loaded.files.own[folder.POLICY_FILE])
    return tuple(_fields(policy.get("payload", {}), ""))


def _fields(schema: Any, path: str) -> Iterator[Field]:
    if not isinstance(schema, dict):
        return
    for name, inner in schema.get("properties", {}).items():
        at = f"{path}.{name}" if path else name
        if isinstance(inner, dict):
            kind = inner.get("type", "any")
            kind = " or ".join(kind) if isinstance(kind, list) else str(kind)
            yield Field(at, kind, name in schema.get("required", ()), str(inner.get("description", "")))
            yield from _fields(inner, at)
            yield from _fields(inner.get("items"), f"{at}[]")


def required_only(loaded: LoadedType, example: dict[str, Any]) -> dict[str, Any]:
    """The example without what the schema does not demand."""
    return loaded.schema.minimal(example) or example


def long_values(loaded: LoadedType, example: dict[str, Any]) -> dict[str, Any]:
    """The example with every value as long as the schema lets it be, within reason.

    The schema is asked, not read: a longer value that it refuses is made shorter until it fits. Lists grow by
    entries of the example as they are: a screen of long ones would say no more.
    """
    value = json.loads(json.dumps(example))
    for holder, key in list(_leaves(value)):
        _lengthen(loaded, value, holder, key)
    for (holder, key), (short, _) in zip(list(_lists(value)), list(_lists(example)), strict=True):
        _grow(loaded, value, holder, key, short[key])
    return value  # type: ignore[no-any-return]  # it was an object before


def _leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where every text and number stands."""
    for key, inner in _entries(value):
        if isinstance(inner, (dict, list)):
            yield from _leaves(inner)
        elif isinstance(inner, (str, int)) and not isinstance(inner, bool):
            yield value, key


def _lists(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in _entries(value):
        if isinstance(inner, list) and inner:
            yield value, key
        elif isinstance(inner, dict):
            yield from _lists(inner)


def _entries(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, dict) else list(enumerate(value))


def _lengthen(loaded: LoadedType, value: dict[str, Any], holder: Any, key: Any) -> None:
    known = holder[key]
    if isinstance(known, int):
        _largest(loaded, value, holder, key, lambda digits: max(known, 10**digits - 1), LONGEST_NUMBER)
    elif "://" in known:
        _largest(loaded, value, holder, key, lambda size: _cut(f"{known}/", _PATH, size), LONGEST_TEXT)
    else:
        _largest(loaded, value, holder, key, lambda size: _cut(f"{known} ", _WORDS, size), LONGEST_TEXT)


def _grow(loaded: LoadedType, value: dict[str, Any], holder: Any, key: Any, more: list[Any]) -> None:
    entries = holder[key]
    _largest(loaded, value, holder, key, lambda size: (entries + more * size)[:size], LONGEST_LIST)


def _cut(known: str, filler: str, size: int) -> str:
    """`known` and enough of the filler for `size` characters; it is never cut itself."""
    return (known + filler * (size // len(filler) + 1))[: max(size, len(known))].rstrip()


def _largest(
    loaded: LoadedType,
    value: dict[str, Any],
    holder: Any,
    key: Any,
    make: Callable[[int], Any],
    most: int,
) -> None:
    """Put the largest thing that the schema takes at this place; leave what stands there if it takes none."""
    best, low, high = holder[key], 1, most
    while low <= high:
        size = most if high == most and low == 1 else (low + high) // 2  # mostly the schema has no bound
        holder[key] = made = make(size)
        if _fits(loaded, value):
            best, low = made, size + 1
        else:
            high = size - 1
    holder[key] = best


def _fits(loaded: LoadedType, value: dict[str, Any]) -> bool:
    try:
        loaded.check_payload(value)
    except PayloadInvalid:
        return False
    return True
