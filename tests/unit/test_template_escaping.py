"""Hostile payloads: nothing breaks out of its place in a mail, in JSON or in chat, and nothing is fetched."""

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
    """A web server that says who comes. In its own process: the inliner lets no other thread run."""

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
    dark = "@media (prefers-color-scheme: dark) { p { color: white !important } }"
    page = f"<html><head><style>p {{ color: red }} {dark}</style></head><body><p>a</p></body></html>"
    content = render(load(tmp_path, {**MAIL, "email.html": page}), "email", {}).content
    assert isinstance(content, EmailContent)
    assert '<p style="color: red;">a</p>' in str(content.html)
    assert "prefers-color-scheme: dark" in str(content.html)
