"""Which locales a type is shown in, and which files each message of it comes from. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from babel import Locale, UnknownLocaleError

from notify_tasks.pages.preview_values import Asked, Column, Source
from notify_tasks.rendering import DEFAULT, LoadedType
from notify_tasks.templating import folder

LOCALE: Final = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}")
_USES: Final = re.compile(r"{%[-+]?\s*(?:extends|include|import|from)\s+[\"']([^\"']+)[\"']")


def columns(words: str, own: Iterable[str], others: Iterable[str], asked: Asked) -> tuple[Column, ...]:
    """The default, the type's own locales, those of its neighbours (switched off), and those asked for."""
    made = {DEFAULT: Column(DEFAULT, None, language(words), DEFAULT not in asked.hidden)}
    for locale in own:
        made[locale] = Column(locale, locale, language(locale), locale not in asked.hidden)
    for locale in (*others, *asked.added):
        if locale not in made and LOCALE.fullmatch(locale):
            shown = locale in asked.added and locale not in asked.hidden
            made[locale] = Column(locale, locale, language(locale), shown, added=True)
    if not any(column.shown for column in made.values()):
        made[DEFAULT] = replace(made[DEFAULT], shown=True)
    return tuple(made.values())


def language(locale: str) -> str:
    """A locale's name in English (CLDR); empty where it has none."""
    try:
        return Locale.parse(folder.normal_tag(locale), sep="-").get_display_name("en") or ""
    except (UnknownLocaleError, ValueError):
        return ""


def sources(name: str, files: Iterable[str], column: Column, broken: set[str]) -> Iterator[Source]:
    """The files that a message of a type is made of, as its column shows them."""
    for file in files:
        place = folder.normal_tag(file.rpartition("/")[0])
        fallback = column.locale is not None and place != folder.normal_tag(column.locale)
        path = f"{name}/{file}"
        yield Source(path, file if fallback else file.rpartition("/")[2], fallback, path in broken)


def found(snapshot: folder.Snapshot, column: Column, part: str) -> str | None:
    """The file of a part in a type that could not be loaded: its locale's own, or the default."""
    candidates = (part,) if column.locale is None else (f"{column.locale}/{part}", part)
    return next((file for file in candidates if file in snapshot.own), None)


def reach(loaded: LoadedType, files: Iterable[str]) -> set[str]:
    """The files, and all that they include or extend, as problems name them."""
    texts = {**loaded.files.own, **loaded.files.layout}
    todo, seen = list(files), set[str]()
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += _USES.findall(texts.get(file, ""))
    name = loaded.policy.name
    return {file if file.startswith(f"{folder.LAYOUT}/") else f"{name}/{file}" for file in seen}
