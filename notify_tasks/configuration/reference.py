"""The table of every setting, from the code that reads them: README's is compared with it by a test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic.fields import FieldInfo

from notify_tasks import durations, settings
from notify_tasks.configuration.layers import PREFIX, SEPARATOR
from notify_tasks.configuration.model import ChannelForm, ProviderForm

_UNITS = {"timeout": 'seconds, or with a unit: `"10s"`', "rate": "calls in s, min, h or d"}


def markdown() -> str:
    """Both tables: the settings, and the keys of `notify.toml`."""
    return "\n".join([
        *_table(("setting", "variable", "default", "meaning", "unit"), _settings()),
        "",
        *_table(("key in `notify.toml`", "variable", "default", "meaning", "unit"), _keys()),
    ])  # fmt: skip


def _settings() -> Iterator[tuple[str, ...]]:
    for each in settings.describe(settings.Settings(), {}):
        default = f"`{each.value}`" if each.value else ""
        yield f"`{each.name}`", f"`{each.variable}`", default, each.meaning, each.unit


def _keys() -> Iterator[tuple[str, ...]]:
    for table, form in (("providers.<name>", ProviderForm), ("channels.<channel>", ChannelForm)):
        for name, field in form.model_fields.items():
            variable = f"{PREFIX}{table.upper().replace('.', SEPARATOR)}{SEPARATOR}{name.upper()}"
            unit = _UNITS.get(name, "")
            yield f"`{table}.{name}`", f"`{variable}`", _default(field), field.description or "", unit


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if field.is_required() or value in (None, ()):
        return "must be there" if field.is_required() else ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{durations.text(value)}`"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    cells = list(head)
    yield f"| {' | '.join(cells)} |"
    yield "|" + "---|" * len(cells)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
