"""What the preview is asked for, and what it shows: values that the page is filled with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from notify_tasks.pages.preview_payload import Field, Written
from notify_tasks.templates_check import SAMPLE_TIMEZONE
from notify_tasks.templating.errors import Problem


@dataclass(frozen=True, slots=True)
class Asked:
    """What a page wants to see.

    Args:
        payload: the payload as its author wrote it; None is the example.
        last: the last one that could be used: shown while `payload` cannot.
        hidden: columns that are switched off.
        added: locales that the type has no folder for.
        timezone: the recipient's.
        bare: the recipient is an address given in the call: no id and no time zone are known.
        attachment: a file goes with the message.
    """

    payload: str | None = field(default=None, repr=False)
    last: str | None = field(default=None, repr=False)
    hidden: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    timezone: str = SAMPLE_TIMEZONE
    bare: bool = False
    attachment: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A locale that messages are shown in. `locale` is None for people of whom none is known."""

    key: str
    locale: str | None
    language: str
    shown: bool = True
    added: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """A file that a message is made of.

    Args:
        path: inside the templates folder.
        name: what the page calls it: in its own locale's column the folder goes without saying.
        fallback: the locale has no such file, and this one stands in.
        broken: a problem lies in it.
    """

    path: str
    name: str
    fallback: bool
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """A channel in a locale.

    Args:
        view: what is shown of the message, by the names its channel has in the page; None where it was never
            rendered.
        stale: `view` is of an earlier state of the files: the present one cannot be rendered.
    """

    id: str
    column: Column
    sources: tuple[Source, ...]
    problems: tuple[Problem, ...]
    view: Mapping[str, Any] | None = field(repr=False)
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A channel. `listed` says whether the type sends over it by itself."""

    channel: str
    title: str
    listed: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A type, as the page shows it.

    Args:
        broken: workers go on with an earlier version, or refuse the type: `problems` and those of cells say why.
        problems: those that belong to no cell.
        checked: `problems` and those of cells are all there are; else only what keeps the type from being used is
            known as yet.
        written: the payload that was asked for, with its faults, and those of the time zone.
        fills: payloads to choose from, as text; the first is the type's example.
    """

    name: str
    version: str
    lane: str
    broken: bool
    checked: bool
    problems: tuple[Problem, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    written: Written
    fills: Mapping[str, str] = field(repr=False)
    fields: tuple[Field, ...]

    @property
    def wrong(self) -> int:
        """How many things there are to mend, each counted once."""
        return len({*self.problems, *(it for row in self.rows for cell in row.cells for it in cell.problems)})
