"""Hostile payloads and hostile templates: nothing breaks out, nothing runs away, nothing is fetched."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
import urllib.request
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import css_inline
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from channels.contract import ChatContent, DataContent, EmailContent
from notify_tasks import rendering
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


# --- escaping ------------------------------------------------------------------------------------------

PAGE = """<html><head><style>p { color: red } a:hover { color: blue }</style></head><body>
<p title="{{ payload.a }}">{{ payload.a }}</p>
<a href="{{ payload.url | link }}">{{ payload.a ~ "!" }}</a>
{% for entry in payload.list %}<li>{{ entry | upper }}</li>{% endfor %}
{{ [payload.a, payload.a] | join(", ") }} {{ payload.a | replace("a", "b") }} {{ payload.a | truncate(20) }}
</body></html>"""


class _Dom(HTMLParser):
    """The tags of a page with the names of their attributes, in order, and its links."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.links: list[str] = []
        self.words = ""
        self.comments = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(sorted(name for name, _ in attrs))))
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.words += data

    def handle_comment(self, data: str) -> None:  # noqa: ARG002
        self.comments += 1


def _page(loaded: LoadedType, text: str, url: str = "https://example.com/") -> _Dom:
    payload = {"a": text, "url": url, "list": [text]}
    content = render(loaded, "email", payload).content
    assert isinstance(content, EmailContent)
    return _Dom(str(content.html))


@quick
@given(st.text(max_size=60) | st.text(alphabet="<>\"'&/=!-;` ax\n\x00", max_size=60))
@example("<script>alert(1)</script>")
@example('" onmouseover="alert(1)')
@example("' autofocus onfocus='alert(1)")
@example("</p></body><img src=x onerror=alert(1)>")
@example("<!--<style>@import url(http://127.0.0.1/)</style>-->")
@example("{{ payload }}{% raw %}")
@example("<\x00script>alert(1)</scr\x00ipt>")
@example("&lt;b&gt; &#60;b&#62;")
def test_a_hostile_value_adds_no_tag_and_no_attribute_to_a_mail(tmp_path: Path, text: str) -> None:
    loaded = load(tmp_path, {**MAIL, "email.html": PAGE})
    tame, hostile = _page(loaded, "tame"), _page(loaded, text)
    assert hostile.tags == tame.tags
    assert hostile.comments == tame.comments
    assert hostile.links == tame.links


def test_a_hostile_value_is_shown_as_it_is(tmp_path: Path) -> None:
    loaded = load(tmp_path, {**MAIL, "email.html": "<p>{{ payload.a }}</p>"})
    assert '<b a="1">&amp;' in _page(loaded, '<b a="1">&amp;').words


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        " javascript:alert(1)",
        "java\nscript:alert(1)",
        "\x01javascript:alert(1)",
        "data:text/html,<script>1</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "//evil.example.com/",
        "/relative",
        "https://",
        "https:evil",
        "https://shop.example.com@evil.example.com/",
        "https://evil.example.com/ onclick=alert(1)",
        "http://[::1",
        "",
    ],
)
def test_a_link_that_is_no_plain_address_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(RenderError) as caught:
        _page(load(tmp_path, {**MAIL, "email.html": PAGE}), "tame", url)
    assert caught.value.code == "unsafe-link"


@pytest.mark.parametrize(
    ("url", "href"),
    [
        ("https://example.com/a?b=1&c=%20#d", "https://example.com/a?b=1&c=%20#d"),
        ('https://example.com/"><script>', "https://example.com/%22%3E%3Cscript%3E"),
        ("https://example.com/ü", "https://example.com/%C3%BC"),
        ("mailto:help@example.com", "mailto:help@example.com"),
        ("tel:+4930123", "tel:+4930123"),
    ],
)
def test_a_plain_link_arrives_whole(tmp_path: Path, url: str, href: str) -> None:
    assert _page(load(tmp_path, {**MAIL, "email.html": PAGE}), "tame", url).links == [href]


NOTE = """{"title": "Hello {{ payload.a }}", "n": 1,
"whole": {{ payload.a | tojson }}, "all": {{ payload.all | tojson }}}"""


@quick
@given(st.text(max_size=60) | st.text(alphabet='"\\{}[]:, \n\t\x00u0', max_size=60))
@example('", "admin": "yes')
@example("\\")
@example("\u2028</script>")
def test_a_hostile_value_stays_inside_its_json_string(tmp_path: Path, text: str) -> None:
    loaded = load(tmp_path, only("push", "push.json", NOTE))
    content = render(loaded, "push", {"a": text, "all": {text: [text, 1, True, None]}}).content
    assert isinstance(content, DataContent)
    assert content.data == {
        "title": f"Hello {text}",
        "n": 1,
        "whole": text,
        "all": {text: [text, 1, True, None]},
    }
    assert json.loads(json.dumps(content.data)) == content.data


@pytest.mark.parametrize(
    "template",
    [
        "[1]",
        "{",
        '{"a": {{ payload.a }}}',
        '{"a": NaN}',
        '{"a": 1, "a": 2}',
        '"x"',
        "",
        '{"a": 1} {}',
        "[" * 5000,
    ],
)
def test_json_that_is_no_object_is_refused(tmp_path: Path, template: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(load(tmp_path, only("push", "push.json", template)), "push", {"a": CANARY})
    assert caught.value.code == "not-json"
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_hostile_value_begins_no_link_and_no_mention_in_chat(tmp_path: Path) -> None:
    template = "**{{ payload.a }}** [open]({{ payload.url | link }})"
    loaded = load(tmp_path, only("chat", "chat.md", template))
    hostile = {"a": "[x](http://evil) <!channel> @all\n# *b* `c` &lt;", "url": "https://example.com/a_b_(c)"}
    content = render(loaded, "chat", hostile).content
    assert content == ChatContent(
        "**\\[x\\](http://evil) \\<!channel\\> \\@all \\# \\*b\\* \\`c\\` \\&lt;** "
        "[open](https://example.com/a_b_%28c%29)\n"
    )


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
    shown = content.text + (content.html or "")
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
    with pytest.raises((BrokenType, RenderError)) as caught:
        render(load(tmp_path, {**MAIL, "email.txt": template}), "email", {"long": "a" * 60_000})
    if isinstance(caught.value, RenderError):
        assert caught.value.code in ("too-large", "too-long", "template", "unsafe")


def test_a_large_mail_within_the_bounds_is_rendered(tmp_path: Path) -> None:
    template = "{% for row in payload.rows %}{% for cell in row %}<p>{{ cell }}</p>{% endfor %}{% endfor %}"
    loaded = load(tmp_path, {**MAIL, "email.html": template})
    content = render(loaded, "email", {"rows": [["cell"] * 50] * 100}).content
    assert isinstance(content, EmailContent)
    assert str(content.html).count("<p>cell</p>") == 5000


# --- places where escaping is not enough are refused when the type is loaded -------------------------------


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("<p title={{ payload.a }}>", "quotes"),
        ('<p class="b" title = {{ payload.a }}>', "quotes"),
        ('<a href="{{ payload.a }}">', "| link"),
        ("<img src='{{ payload.a | upper }}'>", "| link"),
        ("<p onclick=\"go('{{ payload.a }}')\">", "class"),
        ('<p style="color: {{ payload.a }}">', "class"),
        ("<script>let a = '{{ payload.a }}'</script>", "class"),
        ("<style>p { color: {{ payload.a }} }</style>", "class"),
        ("<style>@import url(http://127.0.0.1/a.css);</style>", "_layout/mail.css"),
        ('<link rel="stylesheet" href="http://127.0.0.1/a.css">', "_layout/mail.css"),
        ("{{ payload.a | safe }}", "always escaped"),
    ],
)
def test_an_unsafe_place_for_a_value_is_refused(tmp_path: Path, line: str, remedy: str) -> None:
    with pytest.raises(BrokenType) as caught:
        load(tmp_path, {**MAIL, "email.html": f"<p>one</p>\n<p>two</p>\n{line}\n"})
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("order.shipped/email.html", 3)
    assert remedy in problem.remedy


# --- nothing is fetched ----------------------------------------------------------------------------------


SERVER = """
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, flush=True)
        body = b"p { color: fetched }"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


class _Canary:
    """A web server that says who comes. In its own process: the inliner lets no other thread run meanwhile."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self._said = self.process.stdout
        self.url = f"http://127.0.0.1:{int(self._said.readline())}/a.css"

    def visits(self) -> int:
        """How many came since the last time; our own visit, the last in the queue, ends the count."""
        with urllib.request.urlopen(self.url.replace("a.css", "end"), timeout=30) as answer:
            answer.read()
        count = 0
        while self._said.readline().strip() != "/end":
            count += 1
        return count


@pytest.fixture
def canary() -> Iterator[_Canary]:
    made = _Canary()
    yield made
    made.process.kill()
    made.process.communicate()


def _fetching(address: str) -> str:
    return (
        f'<html><head><link rel="stylesheet" href="{address}"><link rel=stylesheet href={address}>'
        f"<style>@import url({address}); p {{ background: url({address}) }}</style></head>"
        f'<body><p>a</p><img src="{address}"></body></html>'
    )


def test_inlining_fetches_nothing_from_the_network(canary: _Canary) -> None:
    # Given a canary that does get a visit from an inliner as it comes
    css_inline.inline(_fetching(canary.url))
    assert canary.visits() > 0
    # when ours inlines the same page
    page = rendering._inlined(_fetching(canary.url), "x")
    # then nobody came, and no rule of the fetched sheet is in the mail
    assert canary.visits() == 0
    assert "fetched" not in page


def test_inlining_reads_no_file(tmp_path: Path) -> None:
    sheet = tmp_path / "a.css"
    sheet.write_text("p { color: read-from-disk }")
    assert "read-from-disk" in css_inline.inline(_fetching(sheet.as_uri()))
    assert "read-from-disk" not in rendering._inlined(_fetching(sheet.as_uri()), "x")


def test_styles_are_inlined_and_dark_mode_stays(tmp_path: Path) -> None:
    page = (
        "<html><head><style>p { color: red }\n"
        "@media (prefers-color-scheme: dark) { p { color: white !important } }</style></head><body><p>{{ payload.a }}</p></body></html>"
    )
    content = render(load(tmp_path, {**MAIL, "email.html": page}), "email", {"a": "b"}).content
    assert isinstance(content, EmailContent)
    assert '<p style="color: red;">b</p>' in str(content.html)
    assert "prefers-color-scheme: dark" in str(content.html)
