"""The line on which each value of a TOML document stands. `tomllib` reads values and forgets their lines.

The document has been read by `tomllib` before, so this follows the grammar of TOML 1.0 without checking it: it
knows where a string, an array or an inline table begins and ends, and nothing of what they mean.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Callable
from typing import Final

from notify_tasks.configuration.origins import Key

_SPACE: Final = re.compile(r"[ \t]*")
_GAP: Final = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_BASIC: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL: Final = re.compile(r"'[^'\n]*'")
_LONG_BASIC: Final = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}', re.DOTALL)
_LONG_LITERAL: Final = re.compile(r"'''.*?'{3,5}", re.DOTALL)
_SCALAR: Final = re.compile(r"[^,\]}#\n]*")
_REST_OF_LINE: Final = re.compile(r"[^\n]*")


def locate(text: str) -> dict[Key, int]:
    """Where every table, key and item of an array stands.

    Args:
        text: a document that `tomllib` reads.

    Returns:
        The line, from 1, of each. A table's is the first that names it. The document itself is the empty key.
    """
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._lines: dict[Key, int] = {(): 1}
        self._arrays: dict[Key, int] = {}
        """How many tables each array of tables has so far."""

    def scan(self) -> dict[Key, int]:
        table: Key = ()
        while True:
            self._skip(_GAP)
            if self._at >= len(self._text):
                return self._lines
            if self._text.startswith("[[", self._at):
                table = self._header("]]", self._another)
            elif self._text[self._at] == "[":
                table = self._header("]", self._inside)
            else:
                self._pair(table)

    # --- tables -----------------------------------------------------------------------------------------

    def _header(self, closing: str, enter: Callable[[Key], Key]) -> Key:
        line = self._line()
        self._at += len(closing)
        *outer, last = self._key()
        self._skip(_SPACE)
        self._at += len(closing)
        table: Key = ()
        for part in outer:
            table = self._inside((*table, part))
            self._note(table, line)
        table = enter((*table, last))
        self._note(table, line)
        return table

    def _inside(self, key: Key) -> Key:
        """A table's key; that of the last one where there is an array of them."""
        return (*key, self._arrays[key] - 1) if key in self._arrays else key

    def _another(self, key: Key) -> Key:
        self._note(key, self._line())
        self._arrays[key] = self._arrays.get(key, 0) + 1
        return self._inside(key)

    # --- keys and values --------------------------------------------------------------------------------

    def _pair(self, table: Key) -> None:
        line = self._line()
        key = table
        for part in self._key():
            key = (*key, part)
            self._note(key, line)
        self._skip(_SPACE)
        self._at += 1  # =
        self._skip(_SPACE)
        self._value(key)

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_SPACE)
            parts.append(self._simple_key())
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _simple_key(self) -> str:
        first = self._text[self._at]
        if first == "'":
            return self._skip(_LITERAL)[1:-1]
        if first == '"':
            quoted = self._skip(_BASIC)
            return str(tomllib.loads(f"k = {quoted}")["k"]) if "\\" in quoted else quoted[1:-1]
        return self._skip(_BARE)

    def _value(self, key: Key) -> None:
        for opening, form in (
            ('"""', _LONG_BASIC), ("'''", _LONG_LITERAL), ('"', _BASIC), ("'", _LITERAL),
        ):  # fmt: skip
            if self._text.startswith(opening, self._at):
                self._skip(form)
                return
        if self._text[self._at] == "[":
            self._array(key)
        elif self._text[self._at] == "{":
            self._inline_table(key)
        else:
            self._skip(_SCALAR)

    def _array(self, key: Key) -> None:
        self._at += 1
        index = 0
        while True:
            self._skip(_GAP)
            if self._text[self._at] == "]":
                break
            self._note((*key, index), self._line())
            self._value((*key, index))
            index += 1
            self._skip(_GAP)
            if self._text[self._at] == ",":
                self._at += 1
        self._at += 1

    def _inline_table(self, key: Key) -> None:
        self._at += 1
        while True:
            self._skip(_GAP)
            if self._text[self._at] == "}":
                break
            self._pair(key)
            self._skip(_GAP)
            if self._text[self._at] == ",":
                self._at += 1
        self._at += 1

    # --- the text ---------------------------------------------------------------------------------------

    def _skip(self, form: re.Pattern[str]) -> str:
        found = form.match(self._text, self._at)
        assert found is not None, f"line {self._line()} is no TOML, or not as expected: {form.pattern}"
        self._at = found.end()
        return found[0]

    def _line(self) -> int:
        return bisect_right(self._line_starts, self._at)

    def _note(self, key: Key, line: int) -> None:
        self._lines.setdefault(key, line)
