"""Makes the folder of a new notification type: it passes the check, and its comments say what to change."""

from __future__ import annotations

import difflib
import json
import re
import secrets
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from notify_tasks.errors import InvalidCall, NotConfigured
from notify_tasks.routing import CHANNELS
from notify_tasks.templating import folder
from notify_tasks.templating.manner import LANGUAGE, known_locale

SKELETON: Final = Path(__file__).parent / "templating" / "skeleton"
NOTE: Final = " Translate this file: it is a copy of the English one."

_ONE_LANGUAGE: Final = ("webhook",)
"""Channels that machines read."""
_HOLE: Final = re.compile(r"@([a-z]+)@")


def create(
    root: Path, name: str, *, channels: Sequence[str] = ("email",), locales: Sequence[str] = ()
) -> tuple[Path, ...]:
    """Make the folder of a type, whole or not at all: a running fleet never sees half of it.

    Args:
        root: the templates folder.
        name: the type (`order.shipped`).
        channels: those it is sent over; each gets its files.
        locales: folders of translations besides English (`de`, `zh-Hans`, `pt-BR`). German and Chinese get words of
            their own, other languages a copy of the English ones with a note.

    Returns:
        The files, in the order in which to read them.

    Raises:
        InvalidCall: a name that no type can have, a type that exists, an unknown channel or locale, or mails
            without the shared layout.
        NotConfigured: there is no templates folder.
    """
    if not root.is_dir():
        raise NotConfigured(f"there is no templates folder {root}: create it, or name the right one")
    _check_name(root, name)
    _check_channels(root, channels)
    files = dict(_files(name, tuple(dict.fromkeys(channels)), _tags(locales)))
    target = root / name
    # Hidden: no worker takes it for a type until it is moved into place.
    building = root / f".{name}.{secrets.token_hex(4)}"
    try:
        for path, text in files.items():
            (building / path).parent.mkdir(parents=True, exist_ok=True)
            (building / path).write_text(text, encoding="utf-8")
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return tuple(target / path for path in files)


def _check_name(root: Path, name: str) -> None:
    if not folder.is_name(name):
        plain = re.sub(r"[^a-z0-9._-]+", ".", name.strip().lower())
        plain = re.sub(r"([._-])[._-]+", r"\1", plain).strip("._-")
        remedy = f"Write {plain}" if folder.is_name(plain) else "Write it as order.shipped"
        raise InvalidCall(
            "TYPE", "a name is small letters, digits, and single dots, dashes and underscores", remedy
        )
    if (root / name).exists():
        raise InvalidCall("TYPE", f"{root / name} exists already", "Edit its files, or choose another name")


def _check_channels(root: Path, channels: Sequence[str]) -> None:
    if not channels:
        raise InvalidCall("--channels", "no channel is named", "Write --channels email, for example")
    for channel in channels:
        if channel not in CHANNELS:
            near = difflib.get_close_matches(channel, CHANNELS, n=1)
            remedy = f"Did you mean {near[0]!r}?" if near else f"Channels are: {', '.join(CHANNELS)}"
            raise InvalidCall("--channels", f"there is no channel {channel!r}", remedy)
    needed = [
        *(("mail.html", "mail.txt", "mail.css", "parts.html") if "email" in channels else ()),
        *(("brand.txt",) if {"email", "sms"} & set(channels) else ()),
    ]
    missing = [file for file in needed if not (root / folder.LAYOUT / file).is_file()]
    if missing:
        raise InvalidCall(
            "--channels",
            f"mails and text messages use {root / folder.LAYOUT}, which lacks {', '.join(missing)}",
            f"Copy templates/{folder.LAYOUT} of the notify-tasks repository there",
        )


def _tags(locales: Sequence[str]) -> list[str]:
    """The locales as folders are named: `zh_hans` is `zh-Hans`, `pt-br` is `pt-BR`."""
    found: list[str] = []
    for locale in locales:
        known = known_locale(locale)
        tag = str(known).replace("_", "-") if known is not None else ""
        if not tag or tag.lower() != folder.normal_tag(locale):
            remedy = f"Did you mean {tag!r}?" if tag else "Write a language tag: de, zh-Hans, pt-BR"
            raise InvalidCall("--locale", f"there is no locale {locale!r}", remedy)
        if tag == LANGUAGE:
            remedy = "Leave it out, or name a region: en-GB"
            raise InvalidCall("--locale", "the files of the folder itself are English", remedy)
        found.append(tag)
    return list(dict.fromkeys(found))


def _files(name: str, channels: tuple[str, ...], tags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Path inside the folder -> text."""
    words: dict[str, dict[str, str]] = tomllib.loads(_read("words.toml"))
    common = {"name": name, "channels": json.dumps(channels)}
    for file in (folder.POLICY_FILE, folder.EXAMPLE_FILE):
        yield file, _filled(_read(file), common)
    for tag in (LANGUAGE, *tags):
        note = "" if tag in words else NOTE
        holes = {**common, **words.get(tag, words[LANGUAGE]), "lang": tag, "note": note}
        for channel in channels:
            if tag != LANGUAGE and channel in _ONE_LANGUAGE:
                continue
            for part in folder.PARTS[channel]:
                yield part if tag == LANGUAGE else f"{tag}/{part}", _filled(_read(part), holes)


def _filled(text: str, holes: Mapping[str, str]) -> str:
    return _HOLE.sub(lambda hole: holes[hole[1]], text)


def _read(file: str) -> str:
    return (SKELETON / file).read_text(encoding="utf-8")
