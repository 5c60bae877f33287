"""Hostile templates: nothing gets out of the sandbox, and nothing runs away."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels.contract import EmailContent
from notify_tasks.rendering import BrokenType, Catalog, LoadedType, Rendered, RenderError

NAME = "order.shipped"
MAIL = {
    "notification.toml": 'channels = ["email"]\n',
    "email.subject.txt": "Order",
    "email.txt": "Order",
}
CANARY = "canary-4711-secret"

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def load(root: Path, files: Mapping[str, str]) -> LoadedType:
    """Write a type's folder and load it; a path that begins with _layout/ goes beside it."""
    for path, text in files.items():
        target = root / path if path.startswith("_layout/") else root / NAME / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    loaded = Catalog(root).get(NAME)
    assert loaded is not None
    return loaded


def only(channel: str, part: str, template: str, **more: str) -> dict[str, str]:
    return {"notification.toml": f'channels = ["{channel}"]\n', part: template, **more}


def render(loaded: LoadedType, channel: str, payload: Mapping[str, Any]) -> Rendered:
    return loaded.render(channel, payload, None, recipient={"id": "user-42"})


# --- the sandbox ---------------------------------------------------------------------------------------

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ payload['__cla' ~ 'ss__'].__init__ }}",
    "{{ payload.text[payload.dunder] }}",
    "{{ payload.text | attr('__class__') }}",
    "{{ payload.list | map(attribute='__class__') | join }}",
    "{{ payload.list | map('attr', '__class__') | list }}",
    "{{ payload.list | groupby('__class__') }}",
    "{{ payload.list | sort(attribute='__class__') }}",
    "{{ payload.list | sum(attribute='__class__') }}",
    "{{ payload.list | selectattr('__class__') | list | tojson }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(payload) }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{{ ('{0.__class__}' | format)(1) }}",
    "{{ '%s' % payload }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ self.__init__.__globals__ }}",
    "{{ range.__globals__ }}",
    "{{ loop.__class__ }}",
    "{% for a in payload.list %}{{ loop._iterable }}{{ loop.__class__ }}{% endfor %}",
    "{% for a in payload.list %}{{ loop.cycle.__func__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}",
    "{% macro m() %}{{ caller.__class__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m() %}{{ varargs.__class__ }}{% endmacro %}{{ m() }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ joiner }}{{ namespace }}{{ dict }}",
    "{{ request }}{{ config }}{{ environment }}{{ context }}",
    "{{ payload.update({'a': 1}) }}",
    "{{ payload.list.append(1) }}",
    "{{ payload.list.__len__() }}",
    "{{ payload.text.encode() }}",
    "{{ payload.__class__ }}",
    "{{ recipient.__class__.__name__ }}",
    "{{ payload.gone.__class__ }}",
    "{{ (payload.gone | default(payload)).__class__ }}",
    "{{ payload.text | safe }}",
    "{{ payload.text | xmlattr }}",
    "{% autoescape false %}{{ payload.text }}{% endautoescape %}",
    "{% include '../../etc/passwd' %}",
    "{% include '/etc/passwd' %}",
    "{% include payload.text %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends payload.text %}",
    "{% set payload.text = 1 %}{{ payload.text }}",
    "{% set x = payload.__setitem__ %}{{ x }}",
    # Nothing inside has a text either: it would show addresses in memory.
    "{{ range }}",
    "{{ range ~ payload.text }}",
    "{{ [range, self] | join }}",
    "{{ payload.list | join(range) }}",
    "{{ range | string }}{{ self | upper }}",
    "{{ [range] | map('lower') | list | first }}",
    "{% macro m() %}{% endmacro %}{{ m | truncate(99) }}",
    "{% for a in payload.list %}{{ loop | urlencode }}{% endfor %}",
    "{{ range | replace('a', 'b') }}",
    "{{ 'abc' | replace('a', range) }}",
    "{{ payload | string }}",
    "{{ payload.list | map('upper') }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_no_known_escape_gets_out_of_the_sandbox(tmp_path: Path, template: str) -> None:
    payload = {"text": "a", "dunder": "__class__", "list": ["a", {"b": 1}]}
    files = {**MAIL, "email.html": template}
    with pytest.raises((BrokenType, RenderError)) as caught:
        render(load(tmp_path, files), "email", payload)
    assert payload == {"text": "a", "dunder": "__class__", "list": ["a", {"b": 1}]}
    problems = caught.value.problems if isinstance(caught.value, BrokenType) else [caught.value.problem]
    assert all(problem.remedy and problem.file.startswith(NAME) for problem in problems)


_names = st.sampled_from(
    [
        "payload",
        "recipient",
        "range",
        "self",
        "loop",
        "m",
        "''",
        "1",
        "[1]",
        "{'a': 1}",
        "payload.list",
        "(1).real",
    ]
)
_steps = st.sampled_from(
    [
        *(
            ".__class__",
            ".__globals__",
            ".__mro__",
            ".__subclasses__",
            ".__init__",
            ".__self__",
            ".format",
            ".a",
        ),
        *("['__class__']", "[0]", "[-1]", "['a']", "()", "(1)", "('{0.__class__}')", " | first", " | list"),
        *(
            " | map(attribute='__class__')",
            " | string",
            " | join",
            " | tojson",
            " | default(payload)",
            " | items",
        ),
        *(" ~ payload.a", " + [1]", " | dictsort", ".cycle", ".items", " | unique", " | last"),
    ]
)


@settings(parent=quick, max_examples=150)
@given(_names, st.lists(_steps, min_size=1, max_size=6), st.sampled_from(["html", "txt"]))
def test_no_expression_shows_anything_of_python(
    tmp_path: Path, name: str, steps: list[str], kind: str
) -> None:
    template = (
        f"{{% macro m() %}}{{% endmacro %}}{{% for a in [1] %}}{{{{ {name}{''.join(steps)} }}}}{{% endfor %}}"
    )
    try:
        content = render(
            load(tmp_path, {**MAIL, f"email.{kind}": template}), "email", {"a": "b", "list": ["c"]}
        ).content
    except (BrokenType, RenderError):
        return
    assert isinstance(content, EmailContent)
    # The text of the template itself may be there; nothing that was looked up may.
    shown = (content.text + (content.html or "")).replace("{0.__class__}", "")
    for word in ("class", "function", "object at", "method", "module", "builtin", "jinja", "__"):
        assert word not in shown


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 1000000000 * ['a'] }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ 'a\nb' | indent(1000000000) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ 1.5 | round(1000000000) }}{{ range(1000000000) | list | length }}",
        "{{ lipsum(1000000) }}",
        "{% for a in range(1000000000) %}a{% endfor %}",
        "{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}",
        "{% for a in range(1000) %}{% for b in range(1000) %}{% set c = a %}{% endfor %}{% endfor %}x",
        "{% for a in range(1000) %}{{ payload.long }}{% endfor %}",
        "{{ range(1000) | join(payload.long) }}",
        "{{ payload.long | replace('a', payload.long) }}",
        "{% set a = payload.long ~ payload.long ~ payload.long %}{% set a = a ~ a ~ a ~ a %}{{ a ~ a ~ a }}",
        "{% set a = payload.long * 20 %}{% set a = a + a %}{{ a }}",
        "{% set a %}{{ payload.long }}{{ payload.long }}{% endset %}" * 2
        + "{% set b %}{{ a }}{{ a }}{{ a }}{{ a }}{{ a }}{{ a }}{{ a }}{{ a }}{{ a }}{% endset %}{{ b }}",
        "{% macro f(s) %}{{ s }}{{ s }}{% endmacro %}{{ " + "f(" * 30 + "'aaaa'" + ")" * 30 + " }}",
        "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(40) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{% include 'email.txt' %}",
        "{% for a in [[]] recursive %}{{ loop([a]) }}{% endfor %}",
    ],
)
def test_no_template_runs_away(tmp_path: Path, template: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((BrokenType, RenderError)) as caught:
            render(load(tmp_path, {**MAIL, "email.txt": template}), "email", {"long": "a" * 60_000})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if isinstance(caught.value, RenderError):
        assert caught.value.code in ("too-large", "too-long", "template", "unsafe")
    # It is refused before it has grown, not after.
    assert peak < 16 * 1024 * 1024


def test_a_large_mail_within_the_bounds_is_rendered(tmp_path: Path) -> None:
    template = "{% for row in payload.rows %}{% for cell in row %}<p>{{ cell }}</p>{% endfor %}{% endfor %}"
    loaded = load(tmp_path, {**MAIL, "email.html": template})
    content = render(loaded, "email", {"rows": [["cell"] * 50] * 100}).content
    assert isinstance(content, EmailContent)
    assert str(content.html).count("<p>cell</p>") == 5000
