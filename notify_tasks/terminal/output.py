"""Where commands write: rich on a terminal, plain lines without one.

Results go to stdout, what is said about them to stderr, so that a result can be piped on.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TextIO

from notify_tasks.terminal import looks

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line. `style` is rich's (`bold`, `dim`), or the name of a state for its colour."""

    text: str
    style: str = ""


Line = str | Iterable[Span | str]


class Output:
    """A stream that may be a terminal.

    Args:
        stream: stdout or stderr.
        environment: NO_COLOR (no-color.org), TERM and COLORFGBG are looked at.
    """

    def __init__(self, stream: TextIO, environment: Mapping[str, str] = os.environ) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no "●" shows "?"
        self._stream = stream
        self._environment = environment
        self.terminal = stream.isatty() and environment.get("TERM") != "dumb"
        self.colours = self.terminal and not environment.get("NO_COLOR")

    @cached_property
    def console(self) -> Console:
        """For what plain lines have no word for: tables and live displays."""
        from rich.console import Console  # noqa: PLC0415 - only where there is a terminal

        return Console(
            file=self._stream, highlight=False, markup=False, emoji=False, no_color=not self.colours
        )

    def say(self, line: Line = "", *, wrap: bool = False) -> None:
        """Write one line.

        Args:
            line: it.
            wrap: break it between words on a narrow terminal, and go on below where its last piece begins; without,
                a command in it can be copied whole.
        """
        spans: list[Span | str] = [line] if isinstance(line, str) else list(line)
        if self.terminal and wrap:
            for each in self._wrapped(spans):
                self.console.print(each, soft_wrap=True)
        elif self.terminal:
            self.console.print(self.text(spans), soft_wrap=True)
        else:
            words = "".join(span if isinstance(span, str) else span.text for span in spans)
            self._stream.write(words.rstrip() + "\n")
            self._stream.flush()

    def _wrapped(self, spans: list[Span | str]) -> Iterator[Text]:
        whole, before = self.text(spans), self.text(spans[:-1])
        last = self.text(spans[-1:]).plain
        hang = before.cell_len + len(last) - len(last.lstrip())
        width = self.console.width
        if hang > width // 2 or whole.cell_len <= width:
            yield from whole.wrap(self.console, width)
            return
        first, *rest = self.text(spans[-1:]).wrap(self.console, width - before.cell_len)
        yield before + first
        for each in rest:
            each.pad_left(hang)
            yield each

    def plain(self, text: str) -> None:
        """Write text as it is, for machines."""
        self._stream.write(f"{text}\n")

    def text(self, line: Line) -> Text:
        """A line as rich takes it."""
        from rich.text import Text  # noqa: PLC0415 - as above

        made = Text()
        for span in [line] if isinstance(line, str) else line:
            if isinstance(span, str):
                made.append(span)
            else:
                style = span.style
                made.append(
                    span.text, looks.colour(style, self._environment) if style in looks.MARKS else style
                )
        return made

    def table(self, head: Iterable[str], rows: Iterable[Iterable[Span | str]]) -> None:
        """Columns with a head."""
        wide: list[list[Span | str]] = [[Span(cell, "dim") for cell in head], *(list(row) for row in rows)]
        texts = [[cell if isinstance(cell, str) else cell.text for cell in row] for row in wide]
        widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
        for row, plain in zip(wide, texts, strict=True):
            line: list[Span | str] = []
            for cell, words, width in zip(row, plain, widths, strict=True):
                line += [cell, " " * (width - len(words) + 2)]
            self.say(line[:-1])


def state(name: str, width: int = 0) -> Span:
    """A state's mark and word, in its colour."""
    return Span(f"{looks.MARKS.get(name, '·')} {looks.word(name)}".ljust(width), name)


def dim(text: str) -> Span:
    """What is less important."""
    return Span(text, "dim")


def bold(text: str) -> Span:
    """What is more important."""
    return Span(text, "bold")


def stdout() -> Output:
    """For results."""
    return Output(sys.stdout)


def stderr() -> Output:
    """For what is said about them, and for errors."""
    return Output(sys.stderr)
