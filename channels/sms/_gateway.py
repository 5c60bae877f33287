"""What a gateway's request is made from, and where its answer says what: pure parts of `sms.http`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from channels.contract import (
    AddressInvalid,
    ChannelError,
    Misconfigured,
    OptedOut,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
    Unroutable,
)
from channels.http import Answer, Meaning, Options, Secret

OURS: Final = ("to", "to_digits", "text", "id", "key")
"""What a template may name, beside the provider's own secrets."""
OUTCOMES: Final[Mapping[str, type[ChannelError]]] = {
    "throttled": Throttled,
    "try-later": TryLater,
    "unavailable": Unavailable,
    "misconfigured": Misconfigured,
    "uncertain": Uncertain,
    "unroutable": Unroutable,
    "refused": Refused,
    "address-invalid": AddressInvalid,
    "opted-out": OptedOut,
}
"""The words of the tables `errors` and `statuses`."""
_PLACE: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")
_PATH: Final = re.compile(r"[^\s.]+(\.[^\s.]+)*")


class Template:
    """A text with places such as `{to}`; `{{` and `}}` are braces. What is put in is never looked at again.

    Args:
        given: the provider's options.
        option: that is named if the template is wrong.
        text: the template. It may be a secret, so it is kept as one.
        names: what it may name.

    Raises:
        Misconfigured: it names something else.
    """

    def __init__(self, given: Options, option: str, text: str, names: frozenset[str]) -> None:
        self._text = Secret(text)
        self.uses = frozenset(found[1] for found in _PLACE.finditer(text) if found[1])
        stray = any(found[0] in "{}" for found in _PLACE.finditer(text))
        if stray or not self.uses <= names:
            places = ", ".join(f"{{{each}}}" for each in sorted(names))
            raise given.wrong(
                option, f"has a place that is none of {places}; add it to secrets, or write {{{{ for a brace"
            )

    def fill(self, values: Mapping[str, str], encode: Callable[[str], str] = str) -> str:
        """The text with its places filled.

        Args:
            values: by name.
            encode: makes a value fit to stand in the text.
        """

        def filled(found: re.Match[str]) -> str:
            return encode(values[found[1]]) if found[1] else found[0][0]

        return _PLACE.sub(filled, self._text.reveal())


def compiled(given: Options, option: str, value: Any, names: frozenset[str]) -> Any:
    """A tree of tables and lists with each text in it as a `Template`."""
    if isinstance(value, Mapping):
        return {str(name): compiled(given, option, each, names) for name, each in value.items()}
    if isinstance(value, list):
        return [compiled(given, option, each, names) for each in value]
    if isinstance(value, str):
        return Template(given, option, value, names)
    if value is None or isinstance(value, bool | int | float):
        return value
    raise given.wrong(option, "has a value that is no text, number, switch, list or table; change it")


def filled(tree: Any, values: Mapping[str, str]) -> Any:
    """The tree with its templates filled."""
    if isinstance(tree, Mapping):
        return {name: filled(each, values) for name, each in tree.items()}
    if isinstance(tree, list):
        return [filled(each, values) for each in tree]
    return tree.fill(values) if isinstance(tree, Template) else tree


def used(tree: Any) -> Iterator[str]:
    """What the templates of a tree name."""
    if isinstance(tree, Mapping):
        for each in tree.values():
            yield from used(each)
    elif isinstance(tree, list):
        for each in tree:
            yield from used(each)
    elif isinstance(tree, Template):
        yield from tree.uses


def read_path(given: Options, option: str) -> str | None:
    """A path into a JSON answer, such as `messages.0.id`; None where the option is missing."""
    path = given.optional_text(option)
    if path is not None and not _PATH.fullmatch(path):
        raise given.wrong(option, f'is no path into an answer; write {option} = "messages.0.id"')
    return path


def at(answer: Answer, path: str | None) -> Any:
    """What is at a path in a JSON answer; None where nothing is."""
    if path is None:
        return None
    try:
        found: Any = json.loads(answer.body or b"")
    except (ValueError, RecursionError):
        return None
    return walk(found, path)


def walk(found: Any, path: str) -> Any:
    """What is at a path in a tree of JSON; None where nothing is. An empty path is the tree itself."""
    for step in path.split(".") if path else ():
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list) and re.fullmatch(r"[0-9]{1,4}", step) and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


def read_meanings(given: Options, option: str, table: object) -> dict[str, Meaning]:
    """A table of codes and what they mean: `{ "6" = "address-invalid" }`.

    Raises:
        Misconfigured: it is none, or has a word that is no outcome's.
    """
    if not isinstance(table, Mapping) or not all(each in OUTCOMES for each in map(str, table.values())):
        raise given.wrong(
            option, f'is no table of codes and outcomes; write {{ "6" = "refused" }}: {", ".join(OUTCOMES)}'
        )
    return {
        str(code): (OUTCOMES[word], f"the gateway's answer means {word}, by the option {option}")
        for code, word in table.items()
    }
