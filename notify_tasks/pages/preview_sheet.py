"""What the preview shows of a type: every channel in every locale, where each comes from, and what is wrong."""

from __future__ import annotations

import difflib
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final
from zoneinfo import available_timezones

from channels.contract import ChatContent, EmailContent, TextContent
from channels.segments import segments
from notify_tasks.pages import preview_files, preview_looks, preview_payload
from notify_tasks.pages.mails import Mail
from notify_tasks.pages.preview_payload import Fault, Written
from notify_tasks.pages.preview_values import Asked, Cell, Column, Row, Sheet
from notify_tasks.rendering import Catalog, LoadedType, Rendered
from notify_tasks.templates_check import (
    SAMPLE_ATTACHMENTS,
    SAMPLE_RECIPIENT,
    SAMPLE_TIMEZONE,
    check,
    examples,
)
from notify_tasks.templating import folder
from notify_tasks.templating.errors import BrokenType, Problem, RenderError

TITLES: Final[Mapping[str, str]] = {
    "email": "Mail",
    "sms": "SMS",
    "push": "Push",
    "webpush": "Web push",
    "inapp": "In-app",
    "webhook": "Webhook",
    "chat": "Chat",
}
"""Channels as people call them."""
KEPT_MAILS: Final = 300
"""Mails that a frame can still ask for: more than two editors' worth of a type with many locales."""
KEPT_CELLS: Final = 1000


class Previewer:
    """Renders types as a worker would, and remembers how they looked before they broke. Safe with threads.

    Args:
        root: the templates folder.

    Raises:
        NotConfigured: there is no such folder.
    """

    def __init__(self, root: Path) -> None:
        self.root: Final = root
        self._catalog = Catalog(root, recheck=0.0)
        self._shown = ""
        self._checking = threading.Lock()
        self._checked: dict[str, tuple[object, tuple[Problem, ...]]] = {}
        self._keeping = threading.Lock()
        self._mails: OrderedDict[str, str] = OrderedDict()
        self._good: OrderedDict[tuple[str, ...], Mapping[str, Any]] = OrderedDict()

    def names(self) -> tuple[str, ...]:
        """Every type, broken ones too."""
        return self._catalog.names()

    def signatures(self) -> dict[str, object]:
        """What changes when a file of a type does."""
        return {name: folder.signature(self.root, name) for name in self.names()}

    def check(self, name: str) -> None:
        """Find what `notify templates check` says of a type as it is now. It takes a while with many locales."""
        signature = folder.signature(self.root, name)
        with self._checking:
            known = self._checked.get(name)
            if known is None or known[0] != signature:
                self._checked[name] = (signature, tuple(check(self.root, name)))

    def is_shown(self, name: str) -> bool:
        """Whether this is the type that a page asked for last."""
        return self._shown == name

    def marks(self) -> dict[str, int | None]:
        """How many problems each type was last seen with; None for one that nobody has checked yet."""
        found = {name: self._checked.get(name) for name in self.names()}
        return {name: None if seen is None else len(seen[1]) for name, seen in found.items()}

    def _problems(self, name: str) -> tuple[tuple[Problem, ...], bool]:
        """What is known to be wrong, and whether that is all of it."""
        known = self._checked.get(name)
        if known is not None and known[0] == folder.signature(self.root, name):
            return known[1], True
        return self._catalog.problems(name), False

    def mail(self, digest: str) -> Mail | None:
        """A mail that a sheet has shown."""
        with self._keeping:
            html = self._mails.get(digest)
        return None if html is None else _mail(html)

    def sheet(self, name: str, asked: Asked) -> Sheet | None:
        """Render a type.

        Returns:
            None where there is no such type.
        """
        self._shown = name
        try:
            loaded = self._catalog.get(name)
        except BrokenType as broken:
            problems, checked = self._problems(name)
            return _ruin(self.root, name, problems if checked else broken.problems, asked)
        return None if loaded is None else self._sheet(loaded, asked)

    # --- one that has a version in force -------------------------------------------------------------

    def _sheet(self, loaded: LoadedType, asked: Asked) -> Sheet:
        name = loaded.policy.name
        problems, checked = self._problems(name)
        broken = bool(self._catalog.problems(name))
        written, payload = _payload(loaded, asked)
        columns = preview_files.columns(
            loaded.policy.language, loaded.locales.values(), self._others(name), asked
        )
        this = _Rendering(loaded, payload, asked, problems, broken)
        rows = tuple(
            Row(
                channel,
                TITLES[channel],
                channel in loaded.policy.channels,
                tuple(self._cell(this, channel, column) for column in columns if column.shown),
            )
            for channel in loaded.available
        )
        placed = {problem for row in rows for cell in row.cells for problem in cell.problems}
        return Sheet(
            name=name,
            version=loaded.policy.version,
            lane=loaded.policy.lane,
            broken=broken,
            checked=checked,
            problems=tuple(problem for problem in problems if problem not in placed),
            columns=columns,
            rows=rows,
            written=written,
            fills=_fills(loaded),
            fields=preview_payload.fields(loaded),
        )

    def _cell(self, this: _Rendering, channel: str, column: Column) -> Cell:
        loaded = this.loaded
        name = loaded.policy.name
        files = loaded.files_for(channel, column.locale)
        reach = preview_files.reach(loaded, files.values())
        problems = [problem for problem in this.problems if problem.file in reach]
        key = (name, channel, column.key)
        view: Mapping[str, Any] | None = None
        failed = False
        try:
            rendered = loaded.render(
                channel,
                this.payload,
                column.locale,
                recipient=_person(column, this.asked),
                attachments=SAMPLE_ATTACHMENTS if this.asked.attachment else (),
            )
            view = self._view(rendered)
        except RenderError as error:
            failed = True
            known = ((it.file, it.line) for it in problems)
            if (error.problem.file, error.problem.line) not in known:
                problems.append(error.problem)
        with self._keeping:
            if view is None:
                view = self._good.get(key)
            else:
                _put(self._good, key, view, KEPT_CELLS)
        return Cell(
            id=f"cell-{channel}-{column.key}",
            column=column,
            sources=tuple(preview_files.sources(name, files.values(), column, {it.file for it in problems})),
            problems=tuple(problems),
            view=view,
            stale=view is not None and (failed or (this.broken and bool(problems))),
        )

    def _view(self, rendered: Rendered) -> Mapping[str, Any]:
        match rendered.content:
            case EmailContent(subject, text, html):
                mail = _mail(html)
                return {
                    "subject": subject,
                    "line": preview_looks.inbox_line(html, text),
                    "text": text,
                    "html": html,
                    "mail": None if html is None else self._keep(html),
                    "size": len((html or text).encode()),
                    "images": preview_looks.has_images(html or ""),
                    "remote": mail.remote_pictures,
                }
            case TextContent(text):
                return {"text": text, "segments": segments(text)}
            case ChatContent(markdown):
                return {"text": markdown}
        data = dict(rendered.content.data)
        rest = {key: value for key, value in data.items() if key not in ("title", "body", "action")}
        return {
            "title": data.get("title"),
            "body": data.get("body"),
            "action": data.get("action"),
            "rest": _pretty(rest) if rest else "",
            "json": _pretty(data),
        }

    def _keep(self, html: str) -> str:
        digest = hashlib.sha256(html.encode()).hexdigest()[:24]
        with self._keeping:
            _put(self._mails, digest, html, KEPT_MAILS)
        return digest

    def _others(self, name: str) -> Iterator[str]:
        """Locales that other types have."""
        for other in self.names():
            if other != name:
                for path in sorted((self.root / other).glob("*/")):
                    if preview_files.LOCALE.fullmatch(path.name):
                        yield path.name


@dataclass(frozen=True, slots=True)
class _Rendering:
    """What the cells of a sheet have in common."""

    loaded: LoadedType
    payload: Mapping[str, Any]
    asked: Asked
    problems: tuple[Problem, ...]
    broken: bool


def _payload(loaded: LoadedType, asked: Asked) -> tuple[Written, Mapping[str, Any]]:
    """What was written, and the payload to show: that, or the last that could be used, or the example."""
    example = examples(loaded).get(folder.EXAMPLE_FILE, {})
    written = Written(example) if asked.payload is None else preview_payload.read(asked.payload, loaded)
    if asked.timezone not in _zones():
        near = difflib.get_close_matches(asked.timezone, _zones(), n=1)
        remedy = f"did you mean {near[0]}?" if near else f"write one such as {SAMPLE_TIMEZONE}"
        written = replace(written, faults=(*written.faults, Fault("time zone", f"is not known: {remedy}")))
    if written.value is not None:
        return written, written.value
    last = None if asked.last is None else preview_payload.read(asked.last, loaded).value
    return written, example if last is None else last


@lru_cache(maxsize=16)
def _fills(loaded: LoadedType) -> dict[str, str]:
    """Payloads to choose from: name -> text."""
    own = loaded.files.own
    value = examples(loaded).get(folder.EXAMPLE_FILE, {})
    fills = {"Example": own.get(folder.EXAMPLE_FILE, "{}").rstrip()}
    fills |= {Path(path).stem: own[path].rstrip() for path in own if folder.is_example(path)}
    if value:
        fills["Required only"] = preview_payload.as_text(preview_payload.required_only(loaded, value))
        fills["Long values"] = preview_payload.as_text(preview_payload.long_values(loaded, value))
    return fills


def _person(column: Column, asked: Asked) -> Mapping[str, Any]:
    if asked.bare:
        return {"id": None, "locale": column.locale, "timezone": None}
    known = asked.timezone in _zones()
    return {
        "id": SAMPLE_RECIPIENT,
        "locale": column.locale,
        "timezone": asked.timezone if known else SAMPLE_TIMEZONE,
    }


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())  # it reads the whole folder of them each time


def _put(kept: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)


# --- a type that was never in order -----------------------------------------------------------------------


def _ruin(root: Path, name: str, problems: tuple[Problem, ...], asked: Asked) -> Sheet:
    """A type that has never been in order since the preview began: its files and their problems."""
    try:
        snapshot = folder.read(root, name)
        locales = list(folder.locale_folders(snapshot).values())
    except (BrokenType, OSError):
        snapshot, locales = folder.Snapshot(name, {}, {}, ""), []
    columns = preview_files.columns("", locales, (), asked)
    rows = tuple(
        Row(
            channel,
            TITLES[channel],
            listed=True,  # what its policy says cannot be known
            cells=tuple(_ruined(snapshot, channel, column, problems) for column in columns if column.shown),
        )
        for channel, parts in folder.PARTS.items()
        if any(part in snapshot.own for part in parts)
    )
    placed = {problem for row in rows for cell in row.cells for problem in cell.problems}
    return Sheet(
        name=name,
        version="",
        lane="",
        broken=True,
        checked=True,
        problems=tuple(problem for problem in problems if problem not in placed),
        columns=columns,
        rows=rows,
        written=Written({}),
        fills={"Example": snapshot.own.get(folder.EXAMPLE_FILE, "{}").rstrip()},
        fields=(),
    )


def _ruined(snapshot: folder.Snapshot, channel: str, column: Column, problems: Iterable[Problem]) -> Cell:
    found = (preview_files.found(snapshot, column, part) for part in folder.PARTS[channel])
    files = [file for file in found if file is not None]
    own = tuple(it for it in problems if it.file in {f"{snapshot.name}/{file}" for file in files})
    sources = tuple(preview_files.sources(snapshot.name, files, column, {it.file for it in own}))
    return Cell(f"cell-{channel}-{column.key}", column, sources, own, None)


def _mail(html: str | None) -> Mail:
    return Mail(subject="", sender="", to="", headers=(), text=None, html=html)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
