"""Aliyun's approved templates: which one a rendered SMS is, and the parameters that make it. Pure."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from channels.contract import Unroutable
from channels.http import Options

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z][A-Za-z0-9_]*)\}")
_CODE: Final = re.compile(r"SMS_[0-9A-Za-z]{1,40}")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WRITE: Final = 'write "TYPE" = { code = "SMS_1", text = "Your code is ${code}." }'

Templates = Mapping[str, tuple["Template", ...]]


@dataclass(frozen=True, slots=True)
class Template:
    """One approved template.

    Args:
        code: Aliyun's, `SMS_154950909`.
        fixed: the approved text's pieces before, between and after its variables; none where the
            configuration has no text, and the rendered SMS is the JSON object of the parameters.
        names: of the variables between the pieces.
    """

    code: str
    fixed: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def parameters(self, text: str) -> dict[str, str] | None:
        """The parameters with which the template makes this text; None where it cannot.

        Each piece is looked for from left to right, and each variable has at least one character. Where a
        text can be cut in several ways, all of them make the same SMS.
        """
        if not self.names:
            return {} if text == "".join(self.fixed) else None
        first, *between, last = self.fixed
        at, end = len(first), len(text) - len(last)
        if not text.startswith(first) or not text.endswith(last):
            return None
        values = []
        for piece in between:
            found = text.find(piece, at + 1, end)
            if found < 0:
                return None
            values.append(text[at:found])
            at = found + len(piece)
        values.append(text[at:end])
        return dict(zip(self.names, values, strict=True)) if at < end else None


def read_templates(given: Options, templates: object) -> Templates:
    """The option `templates`: one template of each event type, or a list of them.

    Raises:
        Misconfigured: it is missing or wrong.
    """
    if not isinstance(templates, Mapping) or not templates:
        raise given.wrong("templates", f"is no table with a template for each type; {_WRITE}")
    return {str(kind): tuple(_of_type(given, str(kind), each)) for kind, each in templates.items()}


def _of_type(given: Options, kind: str, value: object) -> Iterator[Template]:
    several = value if isinstance(value, list) else [value]
    for each in several or [None]:
        table = {"code": each} if isinstance(each, str) else each
        code = table.get("code") if isinstance(table, Mapping) else None
        if not isinstance(table, Mapping) or not isinstance(code, str) or not _CODE.fullmatch(code):
            raise given.wrong("templates", f"has no code of Aliyun's for {kind[:60]!r}; {_WRITE}")
        if not set(table) <= {"code", "text"}:
            raise given.wrong("templates", f"has a key that is no template's in {kind[:60]!r}; {_WRITE}")
        yield Template(code, *_parts(given, code, table["text"])) if "text" in table else Template(code)


def _parts(given: Options, code: str, text: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not isinstance(text, str) or not text.strip():
        raise given.wrong("templates", f"has no text for {code}; write the approved one, or leave text out")
    pieces = _VARIABLE.split(text.strip())
    fixed, names = tuple(pieces[::2]), tuple(pieces[1::2])
    if len(set(names)) < len(names):
        raise given.wrong(
            "templates", f"names a variable twice in the text of {code}; give each its own name"
        )
    if "" in fixed[1:-1]:
        raise given.wrong(
            "templates", f"has nothing between two variables in the text of {code}; make them one"
        )
    return fixed, names


def fitting(templates: Templates, event_type: str, text: str, sign_name: str) -> tuple[str, str]:
    """The approved template that a rendered SMS is.

    Args:
        templates: by event type.
        event_type: whose `sms.txt` was rendered.
        text: what it says.
        sign_name: that Aliyun puts in front as `【sign_name】`, where the text must not have it twice.

    Returns:
        The template's code, and its parameters as JSON.

    Raises:
        Unroutable: there is none. The sentence names the field.
    """
    known = templates.get(event_type)
    if known is None:
        raise Unroutable(
            "template", f"the option templates has no approved template for {event_type}; add its code"
        )
    body = text.strip().removeprefix(f"【{sign_name}】").strip()
    for each in known:
        parameters = each.parameters(body) if each.fixed else _of_json(body, each.code)
        if parameters is not None:
            return each.code, json.dumps(parameters, ensure_ascii=False, separators=(",", ":"))
    raise Unroutable(
        "template",
        f"content.text is none of the approved texts that the option templates has for {event_type}; "
        "give sms.txt and the approved text the same words",
    )


def _of_json(text: str, code: str) -> dict[str, str]:
    found: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
    sound = isinstance(found, dict) and all(
        _NAME.fullmatch(name) and isinstance(value, str) for name, value in found.items()
    )
    if not sound:
        raise Unroutable(
            "template",
            f"content.text is not the JSON object of texts that {code} takes as parameters; correct sms.txt, "
            "or give the option templates the approved text",
        )
    return dict(found)
