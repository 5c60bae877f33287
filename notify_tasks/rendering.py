"""Notification types and their templates: finds, compiles, renders, and picks up changes on disk."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import css_inline

from channels.contract import ChatContent, Content, DataContent, EmailContent, TextContent
from notify_tasks.errors import NotConfigured
from notify_tasks.event_type import EventType
from notify_tasks.templating import folder
from notify_tasks.templating.compiling import Compiler
from notify_tasks.templating.engine import Environment, Sources, run
from notify_tasks.templating.errors import BrokenType, PayloadInvalid, Problem, RenderError
from notify_tasks.templating.manner import manner_for
from notify_tasks.templating.schema import PayloadSchema
from notify_tasks.templating.values import MAX_OUTPUT

__all__ = ["BrokenType", "Catalog", "LoadedType", "PayloadInvalid", "Problem", "RenderError", "Rendered"]

log = logging.getLogger(__name__)

DEFAULT: Final = "default"
"""The locale of the files in the type's folder itself."""
RECHECK: Final = 1.0
"""Seconds between two looks at the files of a type."""

_MODES: Final = {".html": "html", ".json": "json", ".md": "markdown", ".txt": "text"}
_LIKELY_SCRIPT: Final = {
    "zh": "zh-hans",
    "zh-cn": "zh-hans",
    "zh-sg": "zh-hans",
    "zh-hk": "zh-hant",
    "zh-mo": "zh-hant",
    "zh-tw": "zh-hant",
}
"""The script that goes without saying (CLDR, likely subtags): a phone says zh-CN, a folder zh-Hans."""
_BREAKS: Final = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
_INVISIBLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
"""Control characters but for tab and line feed: they say nothing, and XML and SMS choke on them."""

_SMS: Final = str.maketrans(dict.fromkeys("\xa0\u2007\u2009\u202f", " ") | {"\u2212": "-", "\u2011": "-"})
"""Spaces and signs that amounts and times are written with: outside GSM 03.38, one of them halves the segment."""

# One for all: it is built once, and nothing is ever fetched. At-rules stay, since dark mode is one.
_INLINER: Final = css_inline.CSSInliner(load_remote_stylesheets=False, keep_at_rules=True)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered message.

    Args:
        content: what the channel's provider takes. Private, so it is not in the repr.
        version: of the templates, stored with the delivery.
        locale_used: the folder of the most specific file that was used (`zh-Hans`), or `default`.
    """

    content: Content = field(repr=False)
    version: str
    locale_used: str


class LoadedType:
    """A type whose folder is in order. Immutable, and safe to use from many threads.

    Args:
        root: the templates folder.
        name: the type.

    Raises:
        BrokenType: every problem found in the folder and in the layouts it uses.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.files: Final = folder.read(root, name)
        self.locales: Final = folder.locale_folders(self.files)
        self._sources = Sources(name, {**self.files.own, **self.files.layout})
        self._environments = {mode: Environment(mode, self._sources) for mode in _MODES.values()}
        problems = list(self._compile())
        policy: EventType | None = None
        schema: PayloadSchema | None = None
        try:
            policy, schema = folder.policy(self.files)
        except BrokenType as broken:
            problems = [*broken.problems, *problems]
        if problems or policy is None or schema is None:
            raise BrokenType(name, problems)
        self.policy: Final = policy
        self.schema: Final = schema
        self.available: Final = tuple(
            channel
            for channel, parts in folder.PARTS.items()
            if all(part in self.files.own for part in parts if part not in folder.OPTIONAL_PARTS)
        )
        """Every channel that can be rendered, whether or not the type sends over it by itself."""

    def _compile(self) -> Iterator[Problem]:
        compiler = Compiler(self._sources)
        for locale in ("", *self.locales.values()):
            for part in folder.ALL_PARTS:
                file = f"{locale}/{part}" if locale else part
                if file in self.files.own:
                    yield from compiler.compile(self._environment(part), file)

    def _environment(self, part: str) -> Environment:
        return self._environments[_MODES[Path(part).suffix]]

    def check_payload(self, payload: Mapping[str, Any]) -> None:
        """Check a payload against the type's schema.

        Raises:
            PayloadInvalid: the first field that does not fit, without its value.
        """
        self.schema.check(payload)

    def render(
        self,
        channel: str,
        payload: Mapping[str, Any],
        locale: str | None,
        *,
        recipient: Mapping[str, Any],
        attachments: Sequence[Mapping[str, Any]] = (),
        unsubscribe_url: str | None = None,
    ) -> Rendered:
        """Render a message.

        Args:
            channel: any channel in `available`.
            payload: the notification's, checked before.
            locale: the person's (`de`, `zh_Hans_CN`); the nearest file there is is taken, each by itself.
            recipient: plain values that templates may show (`id`, `locale`, `timezone`), and nothing else. The last
                two also say how dates, times and amounts are written.
            attachments: what goes with the message: `{"name": "invoice.pdf", "size": bytes}` each.
            unsubscribe_url: where the person ends these messages, for a link in them.

        Raises:
            RenderError: permanent for this payload and these templates.
        """
        if channel not in self.available:
            raise RenderError(
                "no-files",
                f"the type has no files for the channel {channel!r}",
                f"Channels it has: {', '.join(self.available)}",
                self.policy.name,
            )
        parts: dict[str, Any] = {}
        deepest = DEFAULT
        chain = list(self._chain(locale))
        for part in folder.PARTS[channel]:
            found = self._nearest(chain, part)
            if found is None:
                continue
            parts[part] = self.render_file(
                found, payload, {"locale": locale, **recipient}, attachments, unsubscribe_url
            )
            used = found.rpartition("/")[0] or DEFAULT
            if deepest == DEFAULT or (used != DEFAULT and chain.index(used) < chain.index(deepest)):
                deepest = used
        return Rendered(_content(channel, parts), self.policy.version, deepest)

    def render_file(
        self,
        file: str,
        payload: Mapping[str, Any],
        recipient: Mapping[str, Any],
        attachments: Sequence[Mapping[str, Any]] = (),
        unsubscribe_url: str | None = None,
    ) -> Any:
        """Render one file (`de/email.html`) as its channel needs it: text, or an object for JSON.

        Raises:
            RenderError: as `render`.
        """
        context = {
            "payload": dict(payload),
            "recipient": dict(recipient),
            "attachments": [dict(entry) for entry in attachments],
            "unsubscribe_url": unsubscribe_url,
        }
        words = file.rpartition("/")[0] or self.policy.language
        text = run(self._environment(file), self._sources, file, context, manner_for(words, recipient))
        return _finish(text, file.rpartition("/")[2], self._sources.shown(file))

    def files_for(self, channel: str, locale: str | None) -> dict[str, str]:
        """Which file each part of a channel comes from, for a person's locale: `{"sms.txt": "de/sms.txt"}`."""
        chain = list(self._chain(locale))
        found = {part: self._nearest(chain, part) for part in folder.PARTS[channel]}
        return {part: file for part, file in found.items() if file is not None}

    def _chain(self, locale: str | None) -> Iterator[str]:
        """The locale folders that fit, the nearest first."""
        tag = folder.normal_tag(locale or "")
        while tag:
            for candidate in (tag, _LIKELY_SCRIPT.get(tag)):
                if candidate in self.locales:
                    yield self.locales[candidate]
            tag = tag.rpartition("-")[0]

    def _nearest(self, chain: list[str], part: str) -> str | None:
        candidates = (*(f"{name}/{part}" for name in chain), part)
        return next((file for file in candidates if file in self.files.own), None)


def _content(channel: str, parts: Mapping[str, Any]) -> Content:
    if channel == "email":
        return EmailContent(parts["email.subject.txt"], parts["email.txt"], parts.get("email.html"))
    (value,) = parts.values()
    if channel == "sms":
        return TextContent(value)
    return ChatContent(value) if channel == "chat" else DataContent(value)


# --- from a rendered text to what a channel takes -------------------------------------------------------


def _finish(text: str, part: str, shown: str) -> Any:
    _check_size(text, shown)
    if part == "email.subject.txt":
        return _subject(text, shown)
    if part.endswith(".json"):
        return _json_object(text, shown)
    text = _INVISIBLE.sub("", text.replace("\r\n", "\n")).strip()
    if not text:
        raise RenderError(
            "empty", "nothing is left of it with this payload", "Write a text for this case too", shown
        )
    if part.endswith(".html"):
        return _inlined(text, shown)
    if part == "sms.txt":
        return text.translate(_SMS)
    # A paragraph that was left out leaves no hole.
    return re.sub(r"\n{3,}", "\n\n", text) + "\n"


def _check_size(text: str, shown: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = -1  # the exception holds the text: it must not become the context of ours
    if size < 0:
        raise RenderError(
            "not-text", "a value holds half a character (a lone surrogate)", "Send valid Unicode", shown
        )
    if size > MAX_OUTPUT:
        raise RenderError(
            "too-large", f"it grows beyond {MAX_OUTPUT // 1024} KiB", "Show fewer entries", shown
        )


def _subject(text: str, shown: str) -> str:
    subject = text.strip()
    if not subject:
        raise RenderError("subject", "the subject is empty", "Write a subject for this case too", shown)
    if _BREAKS.search(subject):
        raise RenderError(
            "subject",
            "the subject has a line break or a control character",
            "Send the value as one line",
            shown,
        )
    return subject


def _json_object(text: str, shown: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        why = "it is no JSON object"
    except json.JSONDecodeError as error:
        value, why = None, f"not JSON once rendered: {error.msg} (line {error.lineno} of the result)"
    except (ValueError, RecursionError):
        value, why = None, "not JSON once rendered: a name stands twice, a number is none, or it is too deep"
    if isinstance(value, dict):
        return value
    raise RenderError(
        "not-json", why, 'Write "{{ value }}" for text and {{ value | tojson }} for anything else', shown
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a name stands twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _inlined(html: str, shown: str) -> str:
    result: str | None = None
    with suppress(css_inline.InlineError, ValueError):  # the error's text may quote the mail
        result = _INLINER.inline(html)
    if result is None:
        raise RenderError("css", "its styles cannot be inlined", "Mend the rules in its <style>", shown)
    _check_size(result, shown)
    return result


# --- the catalog ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of a type: the version in force, and the problems of the files as they are now."""

    signature: tuple[object, ...]
    looked: float
    loaded: LoadedType | None
    problems: tuple[Problem, ...] = ()


class Catalog:
    """Every type there is. Safe to use from many threads.

    Args:
        root: the templates folder.
        recheck: seconds between two looks at a type's files.

    Raises:
        NotConfigured: there is no such folder.
    """

    def __init__(self, root: Path, *, recheck: float = RECHECK) -> None:
        if not root.is_dir():
            raise NotConfigured(f"there is no templates folder {root}: create it, or name the right one")
        self._root = root
        self._recheck = recheck
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def names(self) -> tuple[str, ...]:
        """Every type, broken ones too, sorted."""
        found = (path.parent.name for path in self._root.glob(f"*/{folder.POLICY_FILE}"))
        return tuple(sorted(name for name in found if folder.is_name(name)))

    def get(self, name: str) -> LoadedType | None:
        """The type in force: the newest version of its folder that is in order. None where there is none.

        Raises:
            BrokenType: its folder is broken, and was never in order while this process ran.
        """
        entry = self._entries.get(name)
        if entry is None or time.monotonic() - entry.looked >= self._recheck:
            entry = self._look(name, entry)
        if entry is None:
            return None
        if entry.loaded is None:
            raise BrokenType(name, entry.problems)
        return entry.loaded

    def problems(self, name: str) -> tuple[Problem, ...]:
        """Why a type's files, as `get` last saw them, are not in force; nothing where they are."""
        entry = self._entries.get(name)
        return () if entry is None else entry.problems

    def _look(self, name: str, known: _Entry | None) -> _Entry | None:
        if not folder.is_name(name):
            return None
        # One thread looks; the others go on with what they have, if they have something.
        if not self._lock.acquire(blocking=known is None):
            return known
        try:
            known = self._entries.get(name)
            if known is not None and time.monotonic() - known.looked < self._recheck:
                return known
            entry = self._reload(name, known)
            if entry is None:
                self._entries.pop(name, None)
            else:
                self._entries[name] = entry
            return entry
        finally:
            self._lock.release()

    def _reload(self, name: str, known: _Entry | None) -> _Entry | None:
        now = time.monotonic()
        signature: tuple[object, ...] = ()
        try:
            found = folder.signature(self._root, name)
            if found is None or (known is None and not (self._root / name / folder.POLICY_FILE).is_file()):
                return None
            signature = found
            if known is not None and known.signature == signature:
                return _Entry(signature, now, known.loaded, known.problems)
            return _Entry(signature, now, LoadedType(self._root, name))
        except BrokenType as broken:
            problems = broken.problems
        except OSError as error:  # a file went away while it was read, or may not be read
            problems = (
                Problem(name, None, f"a file cannot be read ({type(error).__name__})", "Look at its rights"),
            )
        loaded = known.loaded if known else None
        if loaded is not None and known is not None and known.signature != signature:
            log.error(
                "the notification type %s is broken; its last good version %s stays in force: %s",
                *(name, loaded.policy.version, "; ".join(str(problem) for problem in problems)),
            )
        return _Entry(signature, now, loaded, problems)
