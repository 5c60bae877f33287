"""The layers of a configuration: files, then the environment, one over the other. Every value keeps its origin."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from notify_tasks.configuration import secrets
from notify_tasks.configuration.locating import locate
from notify_tasks.configuration.origins import BadConfiguration, Key, Origin, Problem, nearest

PREFIX: Final = "NOTIFY_"
SEPARATOR: Final = "__"
TABLES: Final[Mapping[str, Sequence[str]]] = {
    "providers": ("use", "timeout", "rate", "enabled"),
    "channels": ("pool", "sandbox", "per_recipient", "countries"),
}
"""The tables of the file, and the keys that every entry of them may have."""

_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_TWICE: Final = re.compile(r"Cannot declare \((.*)\) twice")
_QUOTED: Final = re.compile(r"""'([^']*)'|"([^"]*)\"""")


@dataclass(slots=True)
class Layers:
    """What has been laid down so far.

    Args:
        values: the merged document.
        origins: where each table, key and item stands.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, Origin] = field(default_factory=dict)

    def lay(self, values: Mapping[str, Any], origins: Mapping[Key, Origin]) -> None:
        """Put a layer on top. Tables are merged at every depth; anything else, lists too, is replaced."""
        self._merge((), self.values, values, origins)

    def _merge(
        self, key: Key, below: dict[str, Any], above: Mapping[str, Any], origins: Mapping[Key, Origin]
    ) -> None:
        for name, value in above.items():
            inner = (*key, name)
            if isinstance(value, dict) and isinstance(below.get(name), dict):
                self._merge(inner, below[name], value, origins)
                continue
            below[name] = copy.deepcopy(value)
            depth = len(inner)
            self.origins = {k: it for k, it in self.origins.items() if k[:depth] != inner}
            self.origins |= {k: it for k, it in origins.items() if k[:depth] == inner}

    def origin(self, key: Key) -> Origin:
        """Where a key stands, or else the nearest table around it."""
        while key and key not in self.origins:
            key = key[:-1]
        return self.origins[key]


# --- files ----------------------------------------------------------------------------------------------


def read_file(path: Path) -> tuple[dict[str, Any], dict[Key, Origin], bytes]:
    """Read one file.

    Returns:
        Its values, where they stand, and its bytes.

    Raises:
        BadConfiguration: it cannot be read, or is no TOML.
        FileNotFoundError: there is none.
    """
    source = str(path)
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")  # some editors begin a file with a mark
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        problem = f"it cannot be read ({type(error).__name__})"
        remedy = "Make it a text file in UTF-8 that this process may read"
        raise BadConfiguration([Problem(Origin(source), "", problem, remedy)]) from None
    try:
        values = tomllib.loads(text)
        lines = locate(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfiguration([_no_toml(source, text, str(error))]) from None
    except RecursionError:
        deep = Problem(Origin(source), "", "its values are nested too deeply", "Write them flat")
        raise BadConfiguration([deep]) from None
    return values, {key: Origin(source, line) for key, line in lines.items()}, raw


def _no_toml(source: str, text: str, said: str) -> Problem:
    """A mistake of syntax. What stands on the line is not repeated: it may be a secret."""
    place = _PLACE.search(said)
    said = _PLACE.sub("", said)
    last = max(1, len(text.rstrip().splitlines()))
    line = int(place[1]) if place and place[1] else last
    if twice := _TWICE.match(said):
        names = [one or other for one, other in _QUOTED.findall(twice[1])]
        what = f"the table [{'.'.join(names)}] is there twice"
        return Problem(Origin(source, line), "", what, "Write it once, with all its keys")
    if said == "Cannot overwrite a value":
        return Problem(Origin(source, line), "", "this key is there twice", "Write it once")
    if "Duplicate inline table key" in said:
        return Problem(Origin(source, line), "", "a key is twice in this inline table", "Write it once")
    where = "here" if place and place[1] else "here, at the end of the file"
    if said.startswith("Invalid value"):
        remedy = 'Put a text in quotes: "text"; numbers, true and false go without'
    else:
        remedy = f"Mend this line, or the one before it ({said[:1].lower()}{said[1:]})"
    return Problem(Origin(source, line), "", f"no TOML {where}", remedy)


# --- environment ----------------------------------------------------------------------------------------


def from_environment(
    values: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[dict[str, Any], dict[Key, Origin], list[Problem]]:
    """The layer of the environment: `NOTIFY_PROVIDERS__SMTP_MAIN__RATE=10/s`.

    Names are in upper case, with `_` for every other character, and belong to a provider or channel that a file
    names. An empty variable counts as unset.

    Args:
        values: of the files.
        environment: the variables.

    Returns:
        Its values, their origins, and what is wrong with a variable.
    """
    layer: dict[str, Any] = {}
    origins: dict[Key, Origin] = {}
    problems: list[Problem] = []
    for variable, text in _overrides(environment):
        try:
            key = _key(variable, values)
        except _Unknown as unknown:
            problems.append(Problem(Origin(variable), "", unknown.what, unknown.remedy))
            continue
        origin = Origin(variable)
        value = text if secrets.has_secret_name(key) else parsed(text)
        table = layer
        for depth, part in enumerate(key[:-1], start=1):
            origins.setdefault(key[:depth], origin)
            table = table.setdefault(str(part), {})
        table[str(key[-1])] = value
        origins |= dict.fromkeys(_keys(key, value), origin)
    return layer, origins, problems


def parsed(text: str) -> Any:
    """A variable's text as a TOML value, or as it is where it is none: `10`, `true`, `["a"]`, `10/s`."""
    try:
        found = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return found["value"] if list(found) == ["value"] else text


class _Unknown(Exception):
    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def _overrides(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for variable, text in sorted(environment.items()):
        if variable.startswith(PREFIX) and SEPARATOR in variable and text:
            yield variable, text


def _key(variable: str, values: Mapping[str, Any]) -> Key:
    table, *rest = variable.removeprefix(PREFIX).split(SEPARATOR)
    known = [_upper(name) for name in TABLES]
    if table not in known:
        raise _Unknown("there is no such table", nearest(table, known, example=f"{PREFIX}{{}}{SEPARATOR}..."))
    table = table.lower()
    if len(rest) < 2 or not all(rest):  # noqa: PLR2004 - a name and a key
        example = f"{PREFIX}{table.upper()}{SEPARATOR}<NAME>{SEPARATOR}{_upper(TABLES[table][1])}"
        raise _Unknown("it names no key", f"Write {example}")
    entries = values.get(table)
    entries = entries if isinstance(entries, dict) else {}
    found = [name for name in entries if _upper(name) == rest[0]]
    if len(found) > 1:
        raise _Unknown(f"it may mean {' or '.join(found)}", "Rename one of them in the file")
    if not found:
        near = nearest(rest[0], map(_upper, entries))
        raise _Unknown(f"no file has {table}.{rest[0].lower()}", near)
    key: Key = (table, found[0])
    here = entries[found[0]]
    for part in rest[1:]:
        there = [name for name in here if _upper(name) == part] if isinstance(here, dict) else []
        key = (*key, there[0] if there else part.lower())
        here = here.get(there[0]) if there else None
    return key


def _keys(key: Key, value: Any) -> Iterator[Key]:
    yield key
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, each in inner:
        yield from _keys((*key, part), each)


def _upper(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())
