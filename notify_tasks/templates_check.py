"""For whoever writes templates: check them before anybody is sent anything, and look at them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from channels.contract import ChatContent, Content, EmailContent, TextContent
from notify_tasks.digesting import value_at
from notify_tasks.errors import InvalidCall
from notify_tasks.rendering import DEFAULT, Catalog, LoadedType
from notify_tasks.templating import folder, mail_subset
from notify_tasks.templating.errors import BrokenType, PayloadInvalid, Problem, RenderError

SAMPLE_RECIPIENT: Final = "user-42"
WITH_ATTACHMENT: Final = "with an attachment"
SAMPLE_TIMEZONE: Final = "Europe/Berlin"
SAMPLE_ATTACHMENTS: Final = ({"name": "invoice.pdf", "size": 84_213},)

_MISSING_NAME: Final = re.compile(r"[\w.]+ is missing")


def check(root: Path, name: str | None = None) -> list[Problem]:
    """Render every file of every locale, as people will get it.

    Each is rendered with the type's example.json and the payloads in its examples/ folder, for a person known by id
    and for a bare address, with an attachment, and with what the schema lets through as well: the required fields
    alone, each optional field left out, each list empty. What may be missing is missed here and not while sending.

    Args:
        root: the templates folder.
        name: one type; None checks all.

    Returns:
        Every problem, with file, line and remedy. An empty list means that all is well.

    Raises:
        NotConfigured: there is no such folder.
    """
    catalog = Catalog(root)
    if name is not None and name not in catalog.names():
        return [Problem(name, None, "there is no such notification type", _nearest(name, catalog))]
    problems: list[Problem] = []
    for each in catalog.names() if name is None else (name,):
        try:
            loaded = catalog.get(each)
        except BrokenType as broken:
            problems += broken.problems
        else:
            if loaded is not None:
                problems += _check_type(loaded)
                problems += _check_digest(loaded, catalog)
    if name is None:
        problems += _misnamed(root)
    return list(dict.fromkeys(problems))


def preview(root: Path, name: str, channel: str | None = None, locale: str | None = None) -> dict[str, Any]:
    """What a type looks like with its example.json.

    Args:
        root: the templates folder.
        name: the type.
        channel: one channel; None shows every one that has files.
        locale: a person's locale; None shows the default.

    Returns:
        `{"version": ..., "channels": {"email": {"locale": "de", "subject": ..., "text": ..., "html": ...},
        "sms": {"locale": ..., "text": ...}, "chat": {..., "markdown": ...}, "push": {..., "data": {...}}}}`

    Raises:
        InvalidCall: no such type, no files for that channel, or an example that cannot be used.
        BrokenType: its folder is broken.
        RenderError: a template fails with the example.
        NotConfigured: there is no templates folder.
    """
    catalog = Catalog(root)
    loaded = catalog.get(name)
    if loaded is None:
        raise InvalidCall("name", f"there is no notification type {name!r}", _nearest(name, catalog))
    if channel is not None and channel not in loaded.available:
        raise InvalidCall(
            "channel", f"{name} has no files for {channel!r}", f"Write one of: {', '.join(loaded.available)}"
        )
    example = _example(loaded, folder.EXAMPLE_FILE)
    if isinstance(example, Problem):
        raise InvalidCall(example.file, example.problem, example.remedy)
    recipient = _recipient(locale)
    shown: dict[str, Any] = {}
    for each in loaded.available if channel is None else (channel,):
        rendered = loaded.render(each, example, locale, recipient=recipient)
        shown[each] = {"locale": rendered.locale_used, **_shown(rendered.content)}
    return {"version": loaded.policy.version, "channels": shown}


def _shown(content: Content) -> dict[str, Any]:
    match content:
        case EmailContent(subject, text, html):
            return {"subject": subject, "text": text, "html": html}
        case TextContent(text):
            return {"text": text}
        case ChatContent(markdown):
            return {"markdown": markdown}
    return {"data": dict(content.data)}


def _nearest(name: str, catalog: Catalog) -> str:
    names = catalog.names()
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Types are: {', '.join(names)}" if names else f"Add a folder {name} with a {folder.POLICY_FILE}"


def _recipient(locale: str | None) -> Mapping[str, Any]:
    return {"id": SAMPLE_RECIPIENT, "locale": locale, "timezone": SAMPLE_TIMEZONE}


def _misnamed(root: Path) -> Iterator[Problem]:
    """Folders that look like types and are none."""
    for path in sorted(root.iterdir()):
        if not path.is_dir() or path.name.startswith((".", "_")):
            continue
        if not (path / folder.POLICY_FILE).is_file():
            yield Problem(
                path.name, None, f"the folder has no {folder.POLICY_FILE}", "Add it, or take the folder out"
            )
        elif not folder.is_name(path.name):
            remedy = "Use small letters, digits, dots, dashes and underscores: order.shipped"
            yield Problem(path.name, None, "no notification type can have this name", remedy)


def examples(loaded: LoadedType) -> dict[str, dict[str, Any]]:
    """The sample payloads of a type that can be used: `example.json` first, then those in `examples/`.

    Returns:
        path inside the type's folder -> payload. What cannot be read or does not fit the schema is left out; `check`
        says why.
    """
    read = {path: _example(loaded, path) for path in _example_paths(loaded)}
    return {path: payload for path, payload in read.items() if not isinstance(payload, Problem)}


def _example_paths(loaded: LoadedType) -> list[str]:
    return [folder.EXAMPLE_FILE, *(path for path in loaded.files.own if folder.is_example(path))]


@dataclass(frozen=True, slots=True)
class _Case:
    """One payload to render every file with.

    Args:
        words: what is special about it, for the message; empty for the example itself.
        payload: what a producer could send.
        known: whether the person is known by id, with a time zone; a bare address has neither.
        attachments: what goes with the message.
    """

    words: str
    payload: Mapping[str, Any]
    known: bool = False
    attachments: tuple[Mapping[str, Any], ...] = ()


def _check_type(loaded: LoadedType) -> Iterator[Problem]:
    yield from folder.strangers(loaded.files)
    yield from _unshown(loaded)
    read = {path: _example(loaded, path) for path in _example_paths(loaded)}
    yield from (found for found in read.values() if isinstance(found, Problem))
    example = read.pop(folder.EXAMPLE_FILE)
    if isinstance(example, Problem):
        return
    cases = [
        _Case("", example, known=True),
        _Case("for a person named by a bare address", example),
        _Case(WITH_ATTACHMENT, example, known=True, attachments=SAMPLE_ATTACHMENTS),
        *(_Case(f"with {path}", more) for path, more in read.items() if not isinstance(more, Problem)),
        *(_Case(words, payload) for words, payload in loaded.schema.variants(example)),
    ]
    for locale in (DEFAULT, *loaded.locales.values()):
        for part in folder.ALL_PARTS:
            file = part if locale == DEFAULT else f"{locale}/{part}"
            if file in loaded.files.own:
                found = next(filter(None, (_try(loaded, file, locale, case) for case in cases)), None)
                if found is not None:
                    yield found


def _check_digest(loaded: LoadedType, catalog: Catalog) -> Iterator[Problem]:
    """Whether a type's digest can be made of what it gathers."""
    rule = loaded.policy.digest
    if rule is None:
        return
    shown = f"{loaded.policy.name}/{folder.POLICY_FILE}"
    try:
        digest = catalog.get(rule.type)
    except BrokenType:
        return  # told by itself
    if digest is None:
        yield Problem(
            shown, None, f"digest.type: there is no type {rule.type!r}", _nearest(rule.type, catalog)
        )
        return
    gathered = [each for each in rule.channels or loaded.policy.channels if each not in digest.available]
    if gathered:
        have = ", ".join(digest.available)
        yield Problem(
            shown,
            None,
            f"it is gathered on {', '.join(gathered)}, and {rule.type} has no files for that",
            f"Write them, or channels = [...] under [digest] with some of {have}",
        )
    example = _example(loaded, folder.EXAMPLE_FILE)
    if isinstance(example, Problem):
        return
    at = "2030-05-01T08:00:00+00:00"
    event = {"message_id": "example", "event_type": loaded.policy.name, "at": at, "payload": example}
    by = {} if rule.by is None else {"by": value_at(example, rule.by)}
    try:
        digest.check_payload({"count": 1, "since": at, "until": at, "events": [event], **by})
    except PayloadInvalid as error:
        remedy = (
            f"Mend [payload] of {rule.type}: it takes count, since, until, events, and by where there is one"
        )
        yield Problem(shown, None, f"{rule.type} does not take its example.json gathered: {error}", remedy)


def _unshown(loaded: LoadedType) -> Iterator[Problem]:
    """What mail clients do not show, in the type's own files and in the shared layout."""
    for path, source in loaded.files.own.items():
        if path.endswith((".html", ".css")):
            yield from mail_subset.findings(path, f"{loaded.policy.name}/{path}", source)
    for path, source in loaded.files.layout.items():
        if path.endswith((".html", ".css")):
            yield from mail_subset.findings(path, path, source)


def _try(loaded: LoadedType, file: str, locale: str, case: _Case) -> Problem | None:
    tag = None if locale == DEFAULT else locale
    recipient = _recipient(tag) if case.known else {"id": None, "locale": tag, "timezone": None}
    try:
        rendered = loaded.render_file(file, case.payload, recipient, case.attachments)
    except RenderError as error:
        return _explained(error.problem, case.words)
    if file.endswith(".html") and len(rendered.encode()) > mail_subset.CLIPPED:
        return Problem(
            f"{loaded.policy.name}/{file}",
            None,
            f"the mail grows beyond {mail_subset.CLIPPED // 1024} KiB{case.words and ' ' + case.words}",
            "Show fewer entries: Gmail cuts it there, the foot included",
        )
    return None


def _explained(found: Problem, words: str) -> Problem:
    """A problem that is one of a variant alone, said so that its author knows which."""
    if not words:
        return found
    if words != WITH_ATTACHMENT and _MISSING_NAME.fullmatch(found.problem):
        return _optional(found)
    return Problem(found.file, found.line, f"{found.problem} ({words})", found.remedy)


def _optional(found: Problem) -> Problem:
    field = found.problem.removesuffix(" is missing")
    return Problem(
        found.file,
        found.line,
        f"{field} may be missing: the schema does not demand it",
        f'Write {{% if {field} is defined %}} around it, or {field} | default(""), or list it under required',
    )


def _example(loaded: LoadedType, path: str) -> dict[str, Any] | Problem:
    shown = f"{loaded.policy.name}/{path}"
    source = loaded.files.own.get(path)
    if source is None:
        return Problem(shown, None, "the file is missing", "Add a sample payload: preview and check use it")
    try:
        example = json.loads(source)
    except json.JSONDecodeError as error:
        return Problem(shown, error.lineno, f"not JSON: {error.msg}", "Mend the line")
    if not isinstance(example, dict):
        return Problem(shown, 1, "the example is no JSON object", "Write the payload: { ... }")
    try:
        loaded.check_payload(example)
    except PayloadInvalid as error:
        return Problem(
            shown,
            None,
            f"it does not fit the schema: {error}",
            "Mend the example, or the schema under [payload]",
        )
    return example
