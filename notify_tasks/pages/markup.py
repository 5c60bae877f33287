"""The templates of the pages: Jinja with escaping on, and how times and ids are written."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from notify_tasks.pages import chats
from notify_tasks.terminal.looks import DAY, HOUR, MINUTE, clock

TEMPLATES: Final = Path(__file__).with_name("templates")
_KEY: Final = re.compile(r"^(\s*)(&#34;.*?&#34;:)", re.MULTILINE)
_JUST_NOW: Final = 2
_ID_SHOWN: Final = 13
_KILO: Final = 1024


def render(template: str, **values: Any) -> str:
    """Fill in one template.

    Args:
        template: its path under `templates/`.
        values: what it needs; a missing one is an error.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "ago": ago,
        "moment": moment,
        "short": short,
        "size": size,
        "keys": keys,
        "markdown": chats.rendered,
    }
    return made


def ago(at: datetime) -> str:
    """`now`, `12 s ago`, `3 min ago`, `2 h ago`, `4 d ago`: as `times.js` writes it."""
    seconds = int((datetime.now(UTC) - at).total_seconds())
    if seconds < _JUST_NOW:
        return "now"
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= unit:
            return f"{seconds // unit} {name} ago"
    return f"{seconds} s ago"


def moment(at: datetime, *, relative: bool = True) -> Markup:
    """A time: relative, with the absolute one where the pointer rests. `times.js` keeps it up to date."""
    shown = ago(at) if relative else clock(at)
    kind = "relative" if relative else "absolute"
    return Markup('<time datetime="{}" data-time="{}" title="{}">{}</time>').format(
        at.isoformat(), kind, clock(at), shown
    )


def keys(json: str) -> Markup:
    """Indented JSON with its keys marked."""
    return Markup(_KEY.sub(r'\1<span class="k">\2</span>', str(escape(json))))  # noqa: S704 - escaped just now


def short(id_: str) -> str:
    """The beginning and the end of a long id, by which people tell ids apart."""
    return id_ if len(id_) <= _ID_SHOWN else f"{id_[:8]}…{id_[-4:]}"


def size(count: int) -> str:
    """Bytes as `312 B`, `4.2 kB`, `1.3 MB`."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < _KILO or unit == "MB":
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"  # noqa: PLR2004
        amount /= _KILO
    raise AssertionError("the last unit takes all")
