"""Values in templates: filters, what becomes of a value on its way out, and the bounds of one rendering."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import quote, urlsplit

from jinja2 import StrictUndefined, TemplateRuntimeError, pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context, markup_join, str_join

MAX_OUTPUT: Final = 512 * 1024
"""Bytes (and characters) of one rendered part."""
MAX_STEPS: Final = 20_000
"""Loop turns and calls in one part."""
MAX_WORK: Final = 4 * MAX_OUTPUT
"""Characters of all values written while one part renders, inside macros too."""
MAX_RANGE: Final = 1000

JINJA_FILTERS: Final = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "filesizeformat", "first"),
    *("float", "forceescape", "groupby", "int", "items", "last", "length", "list", "lower", "map", "max"),
    *("min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "string", "striptags"),
    *("sum", "title", "trim", "truncate", "unique", "upper", "urlencode"),
)
"""Jinja's filters that cannot make much out of little, and none that switches escaping off."""
_TEXT_FILTERS: Final = (
    *(
        "capitalize",
        "e",
        "escape",
        "forceescape",
        "lower",
        "string",
        "striptags",
        "title",
        "trim",
        "truncate",
    ),
    *("upper", "urlencode"),
)
"""Those that write a value as text: given a macro or a list, they would write Python's words for it."""
_SCHEMES: Final = ("https", "http", "mailto", "tel")
_MARKDOWN: Final = re.compile(r"([\\`*_\[\]<>~|@#&])")


class Refusal(TemplateRuntimeError):
    """A template did what it may not: code, problem and remedy, without any value."""

    def __init__(self, code: str, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.code = code
        self.problem = problem
        self.remedy = remedy


class Budget:
    """What is left for one part. Loops, calls and values written all draw on it."""

    __slots__ = ("steps", "work")

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.work = MAX_WORK

    def step(self, count: int = 1) -> None:
        """Count loop turns or calls."""
        self.steps -= count
        if self.steps < 0:
            raise Refusal("too-long", f"the template takes more than {MAX_STEPS} steps", "Loop over less")

    def write(self, characters: int) -> None:
        """Count characters of values written."""
        self.work -= characters
        if self.work < 0:
            raise too_large()


budget: ContextVar[Budget] = ContextVar("notify_tasks_render_budget")


def too_large() -> Refusal:
    """The refusal of anything that grows out of bounds."""
    return Refusal(
        "too-large",
        f"it grows beyond {MAX_OUTPUT // 1024} KiB",
        "Show fewer entries, with a slice such as [:20]",
    )


class Missing(StrictUndefined):
    """StrictUndefined whose message names what the template says, never what a payload says."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        return self._undefined_hint or f"{self._undefined_name} is missing"


class _Whole(str):
    """Text that is escaped already for the kind of file it goes into."""

    __slots__ = ()


# --- filters and globals ------------------------------------------------------------------------------


def _bounded(iterable: Iterable[Any]) -> Iterable[Any]:
    """What every `{% for %}` runs over: each turn is counted."""
    left = budget.get()
    if isinstance(iterable, (list, tuple, dict, str, range)):
        left.step(len(iterable))
        return iterable
    return _counted(iterable, left)


def _counted(iterable: Iterable[Any], left: Budget) -> Iterator[Any]:
    for entry in iterable:
        left.step()
        yield entry


def bounded_range(*bounds: int) -> range:
    """`range`, as templates see it."""
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise Refusal("too-long", f"range() is longer than {MAX_RANGE}", "Loop over less")
    return numbers


def _round(value: float, digits: int = 0) -> float:
    return round(float(value), max(0, min(int(digits), 12)))


def _replace(text: object, old: object, new: object) -> str:
    source, old, new = as_text(text), as_text(old), as_text(new)
    if len(source) + source.count(old) * len(new) > MAX_OUTPUT:
        raise too_large()
    return source.replace(old, new)


def _is_plain_url(text: str) -> bool:
    """Whether a known scheme, a host where one belongs, no user name, no space and no control character."""
    try:
        url = urlsplit(text)
    except ValueError:
        return False
    if url.scheme not in _SCHEMES or any(character <= " " or character == "\x7f" for character in text):
        return False
    return url.scheme not in ("https", "http") or (bool(url.netloc) and "@" not in url.netloc)


def _link(value: object) -> str:
    """A URL that is safe to click on; what RFC 3986 does not allow in one is percent-encoded."""
    text = as_text(value)
    if not _is_plain_url(text):
        raise Refusal(
            "unsafe-link",
            "a link is no plain https, http, mailto or tel address",
            "Send a whole URL without spaces and user names; demand it in the schema with pattern = '^https://'",
        )
    return quote(text, safe=":/?#[]@!$&'*+,;=%~-._")


def _tojson(value: object) -> _Whole:
    if isinstance(value, StrictUndefined):
        str(value)  # raises, with the name
    return _Whole(json.dumps(value, ensure_ascii=False, allow_nan=False))


def filters_for(mode: str) -> dict[str, Callable[..., Any]]:
    """The filters that are ours, for one kind of file."""
    paste = markup_join if mode == "html" else str_join

    def concat(values: Iterable[Any], separator: object = "") -> str:
        pieces: list[Any] = []
        size = 0
        for value in values:
            pieces += [separator, value] if pieces and separator != "" else [value]
            size += len(as_text(value)) + len(as_text(separator))
            if size > MAX_OUTPUT:
                raise too_large()
        return paste(pieces)

    def markdown_link(value: object) -> str:
        return _Whole(_link(value))

    own: dict[str, Callable[..., Any]] = {"bounded": _bounded, "concat": concat, "join": concat}
    own |= {"round": _round, "replace": _replace, "link": markdown_link if mode == "markdown" else _link}
    own |= {name: _of_text(FILTERS[name]) for name in _TEXT_FILTERS}
    if mode == "json":
        own["tojson"] = _tojson
    return own


def _of_text(jinja: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja's, for text alone. Some are handed the context first; `wraps` keeps that mark."""
    place = 1 if hasattr(jinja, "jinja_pass_arg") else 0

    @functools.wraps(jinja)
    def checked(*args: Any, **kwargs: Any) -> Any:
        as_text(args[place])
        return jinja(*args, **kwargs)

    return checked


def finalizer_for(mode: str) -> Callable[[Context, Any], Any]:
    """What every `{{ value }}` passes through on its way out.

    `pass_context` also keeps Jinja from running it, and all before it, while it compiles.
    """

    @pass_context
    def finalize(_context: Context, value: Any) -> Any:
        if isinstance(value, str):
            budget.get().write(len(value))
            return value if isinstance(value, _Whole) else escape(value)
        if isinstance(value, bool) and mode == "json":
            return json.dumps(value)
        return as_text(value)

    escape = _ESCAPES.get(mode, _unchanged)
    return finalize


def _unchanged(text: str) -> str:
    return text  # HTML is escaped by Jinja itself, which knows what is markup already


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _in_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


_ESCAPES: Final[Mapping[str, Callable[[str], str]]] = {"json": _in_json, "markdown": _in_markdown}


def as_text(value: object) -> str:
    """A value as text. Only text and numbers have one; a missing value says its name."""
    if isinstance(value, (str, StrictUndefined)) or (
        isinstance(value, (int, float)) and not isinstance(value, bool)
    ):
        return str(value)
    raise Refusal("template", *_no_text(value))


def _no_text(value: object) -> tuple[str, str]:
    if value is None:
        return "a value is null", 'Write {% if %} around it, or | default("", true)'
    if isinstance(value, bool):
        return "a value is true or false, which is no text", "Write {% if %} around the words"
    if isinstance(value, (Mapping, list, tuple)):
        return (
            "a value is a list or an object, which is no text",
            "Loop over it; in JSON files write | tojson",
        )
    return "this is no text", 'Write | join(", ") after filters such as map; call a macro with ()'
