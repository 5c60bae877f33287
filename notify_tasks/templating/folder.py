"""Reads a type's folder: its files as one snapshot, and notification.toml as its policy."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from notify_tasks.event_type import HOLD, RESEND, EventType
from notify_tasks.rates import Rate, per_recipient
from notify_tasks.routing import CHANNELS, LANES
from notify_tasks.templating import stepping, timing
from notify_tasks.templating.errors import BrokenType, Problem
from notify_tasks.templating.manner import known_locale
from notify_tasks.templating.schema import BadSchema, PayloadSchema

POLICY_FILE: Final = "notification.toml"
EXAMPLE_FILE: Final = "example.json"
EXAMPLES: Final = "examples"
"""A folder of more sample payloads, for cases of their own: `examples/long-names.json`."""
LAYOUT: Final = "_layout"

PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "email": ("email.subject.txt", "email.txt", "email.html"),
    "sms": ("sms.txt",),
    "push": ("push.json",),
    "webpush": ("webpush.json",),
    "inapp": ("inapp.json",),
    "webhook": ("webhook.json",),
    "chat": ("chat.md",),
}
"""The files of each channel, in the order in which they are rendered."""
OPTIONAL_PARTS: Final = frozenset(("email.html",))
ALL_PARTS: Final = tuple(part for parts in PARTS.values() for part in parts)

MAX_FILE_BYTES: Final = 256 * 1024
MAX_ATTEMPTS: Final = 100

_NAME: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_LOCALE: Final = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*")
_DURATION: Final = re.compile(r"([0-9]{1,6})([smhd])")
_CATEGORY: Final = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TEXT_SUFFIXES: Final = (".txt", ".html", ".md", ".json", ".toml", ".css")
_MAX_DEPTH: Final = 4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The text of a type's folder and of the shared layout, as they were at one moment.

    Args:
        name: the type.
        own: path inside the folder -> text.
        layout: path that begins with `_layout/` -> text.
        version: hash of every file of both, 16 hexadecimal digits.
    """

    name: str
    own: Mapping[str, str]
    layout: Mapping[str, str]
    version: str


def is_name(name: str) -> bool:
    """Whether `name` can be a type's: no path leads out of the templates folder."""
    return _NAME.fullmatch(name) is not None


def signature(root: Path, name: str) -> tuple[object, ...] | None:
    """What changes when a file does: names, times, sizes and inodes. None where there is no such folder.

    It is taken before the files are read, so that a change during the reading is seen by the next look.
    """
    folder = root / name
    if not folder.is_dir():
        return None
    return tuple(
        (part, path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
        for part in (name, LAYOUT)
        for path, stat in _files(root / part)
    )


def read(root: Path, name: str) -> Snapshot:
    """Read a type's folder and the shared layout.

    Raises:
        BrokenType: a file is no UTF-8 text or too large.
    """
    problems: list[Problem] = []
    digest = hashlib.sha256()
    own: dict[str, str] = {}
    layout: dict[str, str] = {}
    for part, texts in ((name, own), (LAYOUT, layout)):
        for path, _ in _files(root / part):
            data = (root / part / path).read_bytes()
            shown = f"{part}/{path}"
            digest.update(f"{'' if texts is own else LAYOUT}\0{path}\0{len(data)}\0".encode())
            digest.update(data)
            if not path.endswith(_TEXT_SUFFIXES):
                continue
            text, problem = _text(data)
            if problem is not None:
                problems.append(Problem(shown, None, *problem))
            texts[path if texts is own else shown] = text
    if problems:
        raise BrokenType(name, problems)
    return Snapshot(name, own, layout, digest.hexdigest()[:16])


def _text(data: bytes) -> tuple[str, tuple[str, str] | None]:
    if len(data) > MAX_FILE_BYTES:
        return "", (
            f"the file is larger than {MAX_FILE_BYTES // 1024} KiB",
            "Move parts of it into _layout, or shorten it",
        )
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError:
        return "", ("the file is not UTF-8", "Save it as UTF-8")


def _files(folder: Path, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, os.stat_result]]:
    """Every file inside, sorted, without hidden ones and editors' copies."""
    if depth > _MAX_DEPTH or not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith((".", "#")) or entry.name.endswith(("~", ".orig")):
            continue
        if entry.is_dir():
            yield from _files(folder / entry.name, f"{prefix}{entry.name}/", depth + 1)
            continue
        if not entry.is_file():
            continue
        try:
            stat = entry.stat()
        except FileNotFoundError:
            continue  # it went away since; the next look sees that
        yield f"{prefix}{entry.name}", stat


# --- locales ------------------------------------------------------------------------------------------


def normal_tag(locale: str) -> str:
    """A locale without its spelling: `de_DE.UTF-8` and `de-de` are both `de-de`."""
    return re.split(r"[.@]", locale, maxsplit=1)[0].replace("_", "-").lower()


def locale_folders(snapshot: Snapshot) -> dict[str, str]:
    """Normal tag -> name of the locale's folder (`zh-hans` -> `zh-Hans`).

    Raises:
        BrokenType: two folders are one locale.
    """
    folders: dict[str, str] = {}
    for path in snapshot.own:
        folder, slash, _ = path.partition("/")
        if not slash or _LOCALE.fullmatch(folder) is None:
            continue
        if folders.setdefault(normal_tag(folder), folder) != folder:
            problem = f"the folders {folders[normal_tag(folder)]!r} and {folder!r} are one locale"
            raise BrokenType(
                snapshot.name,
                [Problem(f"{snapshot.name}/{folder}", None, problem, "Move the files into one of them")],
            )
    return folders


def is_example(path: str) -> bool:
    """Whether a path inside a type's folder is one of its additional sample payloads."""
    folder, _, file = path.rpartition("/")
    return folder == EXAMPLES and file.endswith(".json")


def strangers(snapshot: Snapshot) -> Iterator[Problem]:
    """Files that no channel reads: harmless, and often a misspelled name."""
    for path in snapshot.own:
        folder, _, file = path.rpartition("/")
        if file in (*ALL_PARTS, "README.md") and (not folder or _LOCALE.fullmatch(folder)):
            continue
        if file.startswith("_") or path in (POLICY_FILE, EXAMPLE_FILE) or is_example(path):
            continue
        near = difflib.get_close_matches(file, ALL_PARTS, n=1)
        if folder and not _LOCALE.fullmatch(folder):
            remedy = (
                "Name the folder after a locale (de, zh-Hans), or begin the file's name with _: a partial"
            )
        else:
            remedy = (
                f"Did you mean {near[0]}?" if near else "Take it out, or begin its name with _: a partial"
            )
        yield Problem(f"{snapshot.name}/{path}", None, "no channel reads this file", remedy)


# --- notification.toml --------------------------------------------------------------------------------


class _Bad(ValueError):
    """A value of notification.toml is wrong: problem and remedy."""


def policy(snapshot: Snapshot) -> tuple[EventType, PayloadSchema]:
    """Read notification.toml.

    Raises:
        BrokenType: every problem in it, and every channel it lists without files.
    """
    shown = f"{snapshot.name}/{POLICY_FILE}"
    source = snapshot.own.get(POLICY_FILE)
    if source is None:
        raise BrokenType(
            snapshot.name, [Problem(shown, None, "the file is missing", 'Add it, with channels = ["email"]')]
        )
    try:
        table = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        problem = Problem(shown, int(found[1]) if found else None, f"not TOML: {error}", "Mend the line")
        raise BrokenType(snapshot.name, [problem]) from None
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    for key, value in table.items():
        try:
            values[key] = _read_key(key, value)
        except (_Bad, BadSchema, timing.BadTable) as bad:
            problems.append(Problem(shown, _line_of(source, key), *bad.args))
        except stepping.BadStep as bad:
            problems.append(
                Problem(shown, stepping.line_of(source, bad.step) or _line_of(source, key), *bad.args)
            )
    if "channels" not in table and "steps" not in table:
        problems.append(Problem(shown, None, "channels is missing", 'Write channels = ["email"]'))
    if values.get("required"):
        problems += _not_required(shown, source, values)
    problems += [
        Problem(shown, _line_of(source, key), problem, remedy)
        for key, problem, remedy in (
            *timing.contradictions(values, snapshot.name),
            *stepping.contradictions(values),
        )
    ]
    problems += _without_files(snapshot, source, values)
    if problems:
        raise BrokenType(snapshot.name, problems)
    schema = values.pop("payload", None) or PayloadSchema({})
    if "steps" in values:
        values["channels"] = tuple(channel for step in values["steps"] for channel in step.channels)
    values["per_recipient"] = values.pop("limit", ())
    values["opt_in"] = values.pop("preferences", False)
    values["ignores_quiet_hours"] = values.pop("quiet_hours", None) == "ignore"
    return EventType(name=snapshot.name, version=snapshot.version, **values), schema


def _not_required(shown: str, source: str, values: Mapping[str, Any]) -> Iterator[Problem]:
    """What contradicts `required = true`."""
    for key, why in (
        ("preferences", "it is required, and off by default, which nobody could change"),
        ("unsubscribe", "it is required, and has a link to unsubscribe, which would do nothing"),
    ):
        if values.get(key):
            yield Problem(shown, _line_of(source, key), why, "Take one of them out")


def _without_files(snapshot: Snapshot, source: str, values: Mapping[str, Any]) -> Iterator[Problem]:
    """Channels that the policy names, and that have no files."""
    line = _line_of(source, "channels")
    named = [("channels lists", "channels", line, channel) for channel in values.get("channels", ())]
    for number, step in enumerate(values.get("steps", ())):
        line = stepping.line_of(source, number) or _line_of(source, "steps")
        named += [("steps has", "steps", line, channel) for channel in step.channels]
    for said, key, line, channel in named:
        for part in PARTS[channel]:
            if part not in snapshot.own and part not in OPTIONAL_PARTS:
                yield Problem(
                    f"{snapshot.name}/{POLICY_FILE}",
                    line,
                    f"{said} {channel}, and there is no {part}",
                    f"Write {snapshot.name}/{part}, or take {channel} out of {key}",
                )


def _line_of(source: str, key: str) -> int | None:
    pattern = re.compile(rf'^\s*(?:\[\[?\s*)?"?{re.escape(key)}"?\s*[=.\]]')
    return next((number for number, line in enumerate(source.splitlines(), 1) if pattern.match(line)), None)


def _read_key(key: str, value: object) -> object:
    reader = _READERS.get(key)
    if reader is None:
        near = difflib.get_close_matches(key, _READERS, n=1)
        raise _Bad(
            f"unknown key {key!r}",
            f"Did you mean {near[0]!r}?" if near else f"Keys are: {', '.join(_READERS)}",
        )
    return reader(value)


def _category(value: object) -> str:
    if not isinstance(value, str) or _CATEGORY.fullmatch(value) is None:
        raise _Bad("category is not a plain word", 'Write it in small letters: category = "orders"')
    return value


def _channels(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise _Bad("channels is not a list of channels", 'Write channels = ["email"]')
    for channel in value:
        if channel not in CHANNELS:
            near = difflib.get_close_matches(str(channel), CHANNELS, n=1)
            remedy = f"Did you mean {near[0]!r}?" if near else f"Channels are: {', '.join(CHANNELS)}"
            raise _Bad(f"channels: there is no channel {channel!r}", remedy)
    if len(set(value)) < len(value):
        raise _Bad("channels names a channel twice", "Name each one once")
    return tuple(value)


def _one_of(key: str, choices: tuple[str, ...]) -> Callable[[object], str]:
    def read_choice(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _Bad(f"{key} is none of {', '.join(choices)}", f'Write {key} = "{choices[0]}", for example')
        return value

    return read_choice


def _duration(value: object) -> float:
    """Seconds of `"10m"`."""
    if isinstance(value, (int, float)) or (isinstance(value, str) and value.isdecimal()):
        raise _Bad("expires has no unit", f'Write expires = "{value}m"; units are s, m, h and d')
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found[1]) == 0:
        raise _Bad("expires is not a duration", 'Write one number and one unit (s, m, h, d): expires = "10m"')
    return float(int(found[1]) * _SECONDS[found[2]])


def _attempts(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_ATTEMPTS:
        raise _Bad(f"attempts is not a number from 1 to {MAX_ATTEMPTS}", "Write attempts = 8, for example")
    return value


def _language(value: object) -> str:
    if not isinstance(value, str) or _LOCALE.fullmatch(value) is None or known_locale(value) is None:
        raise _Bad("language is no language tag", 'Write language = "en", or "de", or "zh-Hans"')
    return value


def _switch(key: str) -> Callable[[object], bool]:
    def read_switch(value: object) -> bool:
        if not isinstance(value, bool):
            raise _Bad(f"{key} is neither true nor false", f"Write {key} = true")
        return value

    return read_switch


def _opt_in(value: object) -> bool:
    if not isinstance(value, dict) or set(value) != {"default"} or value["default"] not in ("on", "off"):
        raise _Bad(
            "preferences is no table with default alone, on or off",
            'Write default = "off" under [preferences]: only people who have switched it on get it',
        )
    return bool(value["default"] == "off")


def _limit(value: object) -> tuple[Rate, ...]:
    if not isinstance(value, dict) or set(value) != {"per_recipient"}:
        raise _Bad(
            "limit is no table with per_recipient alone", 'Write per_recipient = ["1/min"] under [limit]'
        )
    try:
        return per_recipient(value["per_recipient"])
    except ValueError as error:
        what, _, remedy = str(error).partition(". ")
        raise _Bad(f"limit.per_recipient: {what}", remedy) from None


def _payload(value: object) -> PayloadSchema:
    if not isinstance(value, dict):
        raise _Bad("payload is not a table", "Write the JSON Schema under [payload]")
    return PayloadSchema(value)


_READERS: Final[Mapping[str, Callable[[object], object]]] = {
    "category": _category,
    "channels": _channels,
    "lane": _one_of("lane", LANES),
    "expires": _duration,
    "on_doubt": _one_of("on_doubt", (RESEND, HOLD)),
    "attempts": _attempts,
    "language": _language,
    "verified_only": _switch("verified_only"),
    "required": _switch("required"),
    "unsubscribe": _switch("unsubscribe"),
    "quiet_hours": _one_of("quiet_hours", ("hold", "ignore")),
    "preferences": _opt_in,
    "limit": _limit,
    "digest": timing.digest,
    "throttle": timing.throttle,
    "steps": stepping.steps,
    "payload": _payload,
}
