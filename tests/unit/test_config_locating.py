"""Every value of a TOML document is found on its line, however it is written."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notify_tasks.configuration.locating import locate
from notify_tasks.configuration.origins import Key


def keys_of(value: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every key of a document with its value."""
    yield key, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, each in inner:
        yield from keys_of(each, (*key, part))


DOCUMENT = '''\
# a comment with [brackets] and = signs
title = "x # no comment, [no] table"   # a comment
[a.b]
c.d = [ 1, # one
  "]", { x = 1, y = [2,
  3] },
]
"q.\\u007a" . 'r' = """
many "" lines [[x]]
""""
when = 1979-05-27 07:32:00
empty = []
none = {}

[[f]]
n = 1
[[f.v]]
m = 1
[[f.v]]
m = 2
[[f]]
  [f.w]
  k = \'\'\'a
 b\'\'\'\'
  z = -inf
[a]
last = true'''

LINES: dict[Key, int] = {
    ("title",): 2,
    ("a",): 3,
    ("a", "b"): 3,
    ("a", "b", "c", "d"): 4,
    ("a", "b", "c", "d", 0): 4,
    ("a", "b", "c", "d", 1): 5,
    ("a", "b", "c", "d", 2): 5,
    ("a", "b", "c", "d", 2, "x"): 5,
    ("a", "b", "c", "d", 2, "y"): 5,
    ("a", "b", "c", "d", 2, "y", 0): 5,
    ("a", "b", "c", "d", 2, "y", 1): 6,
    ("a", "b", "q.z", "r"): 8,
    ("a", "b", "when"): 11,
    ("a", "b", "empty"): 12,
    ("a", "b", "none"): 13,
    ("f",): 15,
    ("f", 0): 15,
    ("f", 0, "n"): 16,
    ("f", 0, "v", 0): 17,
    ("f", 0, "v", 1, "m"): 20,
    ("f", 1): 21,
    ("f", 1, "w"): 22,
    ("f", 1, "w", "k"): 23,
    ("f", 1, "w", "z"): 25,
    ("a", "last"): 27,
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_every_way_of_writing_is_followed(newline: str) -> None:
    text = DOCUMENT.replace("\n", newline)
    found = locate(text)
    assert {key: found[key] for key in LINES} == LINES
    assert set(found) == {key for key, _ in keys_of(tomllib.loads(text))}


# --- documents that nobody thought of -------------------------------------------------------------------

WORDS = st.text(st.sampled_from("ab-_.\"'\\#=[]{},\n\t é"), max_size=8)
SCALARS = st.one_of(
    WORDS,
    st.booleans(),
    st.integers(-99, 99),
    st.floats(allow_nan=False),
    st.dates(),
    st.datetimes(),
    st.times(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(WORDS, VALUES, max_size=4)


class Writer:
    """Writes a document in any of TOML's ways, and notes on which line it wrote each value."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.text = ""
        self.lines: dict[Key, int] = {(): 1}

    def document(self, document: dict[str, Any]) -> None:
        self._table((), document)

    def _table(self, key: Key, table: dict[str, Any]) -> None:
        later = []
        for name, value in table.items():
            if (isinstance(value, dict) and self._one_of(3)) or (
                isinstance(value, list)
                and value
                and all(isinstance(it, dict) for it in value)
                and self._one_of(2)
            ):
                later.append((name, value))
            else:
                self._gap()
                self._pair(key, name, value)
                self.text += "\n"
        for name, value in later:
            for index, each in enumerate(value if isinstance(value, list) else [value]):
                self._gap()
                inner: Key = (*key, name, index) if isinstance(value, list) else (*key, name)
                self._note(inner[: len(key) + 1])
                self._note(inner)
                named = ".".join(self._name(str(part)) for part in inner if isinstance(part, str))
                self.text += f"[[{named}]]\n" if isinstance(value, list) else f"[ {named} ] # {named!a}\n"
                self._table(inner, each)

    def _pair(self, key: Key, name: str, value: Any) -> None:
        self._note((*key, name))
        self.text += self._name(name)
        while isinstance(value, dict) and len(value) == 1 and self._one_of(2):  # dotted
            key = (*key, name)
            ((name, value),) = value.items()
            self._note((*key, name))
            self.text += f" . {self._name(name)}"
        self.text += " = "
        self._value((*key, name), value)

    def _value(self, key: Key, value: Any) -> None:
        if isinstance(value, dict):
            self.text += "{"
            for index, (name, each) in enumerate(value.items()):
                self.text += ", " if index else " "
                self._pair(key, name, each)
            self.text += " }"
        elif isinstance(value, list):
            self.text += "["
            for index, each in enumerate(value):
                self._gap()
                self._note((*key, index))
                self._value((*key, index), each)
                self._gap()
                self.text += "," if index < len(value) - 1 or self._one_of(2) else ""
            self._gap()
            self.text += "]"
        else:
            self.text += self._scalar(value)

    def _scalar(self, value: Any) -> str:
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, bool):
            return "true" if value else "false"
        if hasattr(value, "isoformat"):
            return str(value.isoformat()).replace("T", " " if self._one_of(2) else "T")
        return repr(value)

    def _string(self, value: str) -> str:
        ways = [json.dumps(value, ensure_ascii=self._one_of(2))]
        if "'" not in value and "\n" not in value:
            ways.append(f"'{value}'")
        if "'''" not in value and not value.startswith("\n"):
            ways.append(f"'''{value}'''" if not value.endswith("'''") else ways[0])
        escaped = value.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
        if not value.startswith("\n"):
            ways.append(f'"""{escaped}"""')
        ways.append(f'"""\n{escaped}\\\n   """')
        return self._draw(st.sampled_from(ways))

    def _name(self, name: str) -> str:
        if name and name.replace("-", "").replace("_", "").isalnum() and name.isascii():
            return name
        literal = "'" not in name and "\n" not in name and self._one_of(2)
        return f"'{name}'" if literal else json.dumps(name)

    def _gap(self) -> None:
        self.text += self._draw(st.sampled_from(["", "  ", "\n", "\n\n", ' # no = [value] "here\n']))

    def _one_of(self, n: int) -> bool:
        return bool(self._draw(st.integers(1, n)) == 1)

    def _note(self, key: Key) -> None:
        self.lines.setdefault(key, 1 + self.text.count("\n"))


@st.composite
def written(draw: st.DrawFn) -> tuple[str, dict[str, Any], dict[Key, int]]:
    document = draw(DOCUMENTS)
    writer = Writer(draw)
    writer.document(document)
    return writer.text, document, writer.lines


@settings(deadline=None, max_examples=300)
@given(written())
def test_whatever_is_written_is_found_on_its_line(made: tuple[str, dict[str, Any], dict[Key, int]]) -> None:
    text, document, lines = made
    assert tomllib.loads(text) == document
    assert locate(text) == lines
