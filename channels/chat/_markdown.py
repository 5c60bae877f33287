"""A chat post in Markdown, read into lines of styled text: no service is left to parse what a payload says.

Our templates escape every value, so that in Markdown a value is text. The services' dialects escape otherwise,
or not at all: each provider writes these lines in its own form, where a value is text again.

A link keeps its address where that is an https, http, mailto or tel one; its label stays in any case. A line
break in a paragraph is one in the post: people who write chat templates mean it so.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from channels.contract import ChatContent, Message, Refused
from channels.http import carried

MAX_MARKDOWN: Final = 100_000
"""Characters of a post that are read at all: more than any service carries."""

logging.getLogger("markdown_it").setLevel(logging.INFO)  # below, it notes every rule that it tries
_PARSER: Final = MarkdownIt("commonmark", {"html": False}).enable("strikethrough")
_PARSER.parse("> 1. *x* `y`")  # compiles its rules, which is not safe in many threads at once
BARE_URL: Final = re.compile(r"(https?://[^\s<>]+)")
"""An address in plain text, which services make a link of: it is whole, or it leads nowhere."""
_URL: Final = re.compile(r"(?:https?://|mailto:|tel:)[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Run:
    """Text of one style, without line breaks."""

    text: str
    bold: bool = False
    italic: bool = False
    struck: bool = False
    code: bool = False
    url: str | None = None

    @property
    def web(self) -> str | None:
        """The link, where it is one of the web."""
        return self.url if self.url and self.url.startswith("http") else None

    @property
    def words(self) -> str:
        """The text, and what it leads to where that is an e-mail address or a phone number."""
        if self.url is None or self.web is not None:
            return self.text
        address = self.url.partition(":")[2]
        return self.text if self.text == address else f"{self.text}: {address}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a post; an empty one parts two paragraphs."""

    runs: tuple[Run, ...] = ()
    quote: bool = False
    marker: str = ""
    """What a list's entry begins with, with its indentation."""

    @property
    def text(self) -> str:
        """Its words alone."""
        return self.marker + "".join(run.text for run in self.runs)


def lines_of(message: Message) -> tuple[Line, ...]:
    """The lines of a message.

    Raises:
        Refused: it is no chat post, it says nothing, or it is longer than any service carries.
    """
    markdown = carried(message, ChatContent).markdown
    if len(markdown) > MAX_MARKDOWN:
        raise too_long(len(markdown), MAX_MARKDOWN, "characters", "any chat service")
    lines = read(markdown)
    if not any(line.text.strip() for line in lines):
        raise Refused("empty", "content.markdown says nothing; mend the template")
    return lines


def too_long(found: int, most: int, unit: str, service: str) -> Refused:
    """The refusal of a post over a service's limit."""
    return Refused(
        "too-long",
        f"content.markdown makes {found} {unit} and {service} carries {most}; send less, with a link to the rest",
    )


def read(markdown: str) -> tuple[Line, ...]:
    """Markdown (CommonMark, with `~~`) as lines, without empty ones at either end."""
    reader = _Reader()
    for token in _PARSER.parse(markdown):
        reader.take(token)
    return tuple(reader.lines)


def title_of(lines: Sequence[Line], longest: int) -> str:
    """The words of the first line, cut to so many characters: what a list of chats shows."""
    title = next(line.text.strip() for line in lines if line.text.strip())
    return title if len(title) <= longest else title[: longest - 1].rstrip() + "…"


def paragraphs(lines: Iterable[Line]) -> list[list[Line]]:
    """The lines between the empty ones."""
    return [list(group) for blank, group in groupby(lines, lambda line: not line.runs) if not blank]


class _Reader:
    """Turns block tokens into lines."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._quotes = 0
        self._lists: list[int | None] = []  # the number of the next entry; None for bullets
        self._marker = ""
        self._bold = False
        self._in_list = False  # an entry of the outermost list has been written

    def take(self, token: Token) -> None:
        match token.type:
            case "blockquote_open" | "blockquote_close":
                self._quotes += token.nesting
            case "bullet_list_open" | "ordered_list_open":
                first = None if token.type.startswith("bullet") else int(token.attrs.get("start", 1))
                self._lists.append(first)
            case "bullet_list_close" | "ordered_list_close":
                self._lists.pop()
                self._in_list, self._marker = bool(self._lists), ""
            case "list_item_open":
                self._marker = self._next_marker()
            case "heading_open" | "heading_close":
                self._bold = token.nesting > 0
            case "inline":
                self._write(_runs(token.children or [], bold=self._bold))
            case "fence" | "code_block":
                text = token.content.removesuffix("\n")
                self._write([[Run(each, code=True)] if each else [] for each in text.split("\n")])
            case "hr":
                self._write([[Run("———")]])

    def _next_marker(self) -> str:
        indent = "    " * (len(self._lists) - 1)
        number = self._lists[-1]
        if number is None:
            return f"{indent}• "
        self._lists[-1] = number + 1
        return f"{indent}{number}. "

    def _write(self, rows: list[list[Run]]) -> None:
        quote = self._quotes > 0
        if self.lines and not self._in_list:
            self.lines.append(Line((), quote=quote and self.lines[-1].quote))
        for row in rows:
            self.lines.append(Line(tuple(row), quote, self._marker))
            self._marker = " " * len(self._marker) if self._lists else ""
        self._marker = ""
        self._in_list = bool(self._lists)


def _runs(tokens: Iterable[Token], *, bold: bool) -> list[list[Run]]:
    """The rows of a paragraph, each with its runs."""
    rows: list[list[Run]] = [[]]
    style = Run("", bold=bold)
    depth = {"strong": int(bold), "em": 0, "s": 0}
    for token in tokens:
        kind = token.type.removesuffix("_open").removesuffix("_close")
        if kind in depth:
            depth[kind] += token.nesting
            style = replace(style, bold=depth["strong"] > 0, italic=depth["em"] > 0, struck=depth["s"] > 0)
        elif kind == "link":
            style = replace(style, url=_url(token.attrs.get("href")) if token.nesting > 0 else None)
        elif kind == "image":
            link = _url(token.attrs.get("src"))
            _add(rows[-1], replace(style, text=token.content or link or "", url=link))
        elif kind in {"softbreak", "hardbreak"}:
            rows.append([])
        else:
            _add(rows[-1], replace(style, text=token.content, code=kind == "code_inline"))
    return rows


def _add(row: list[Run], run: Run) -> None:
    if not run.text:
        return
    if row and replace(row[-1], text=run.text) == run:
        run = replace(run, text=row.pop().text + run.text)
    row.append(run)


def _url(value: object) -> str | None:
    return value if isinstance(value, str) and _URL.fullmatch(value) else None
