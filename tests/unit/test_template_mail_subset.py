"""What mail clients do not show is found before anybody is sent it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from notify_tasks.rendering import Catalog
from notify_tasks.templates_check import check
from notify_tasks.templating.errors import Problem
from notify_tasks.templating.mail_subset import findings

NAME = "order.shipped"
MAIL = {
    "notification.toml": 'channels = ["email"]\n',
    "example.json": "{}",
    "email.subject.txt": "Order",
    "email.txt": "Order",
}


def write(root: Path, files: Mapping[str, str]) -> Path:
    for path, text in files.items():
        target = root / path if path.startswith("_layout/") else root / NAME / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return root


def found(source: str, file: str = "email.html") -> list[Problem]:
    return list(findings(file, file, source))


@pytest.mark.parametrize(
    ("line", "problem", "remedy"),
    [
        ("<script>1</script>", "<script>", "no mail client runs scripts"),
        ('<form action="https://a.example/">', "<form>", "a link or a button"),
        ("<input>", "<input>", "a link or a button"),
        ("<video></video>", "<video>", "a link or a button"),
        ("<svg></svg>", "<svg>", "<img>"),
        ("<section>", "<section>", "a table or a <div>"),
        ("<blink>", "<blink>", "<p>"),
        ('<p onclick="go()">', "onclick", "no client runs scripts"),
        ('<td background="https://a.example/a.png">', "a background image", "bgcolor"),
        ('<img src="https://a.example/a.png" width="20">', "no alt text", 'alt="..."'),
        ('<img src="https://a.example/a.png" alt="Logo">', "no width", 'width="..."'),
        ('<img src="data:image/png;base64,AA" alt="" width="1">', "data: images", "on a web server"),
        ('<p style="display: flex">', "display: flex", "Use a table"),
        ('<p style="position: absolute">', "position", "table cells"),
        ('<p style="float: left; color: red">', "float", "table cells"),
        ('<p style="background: url(https://a.example/a.png)">', "background", "background-color"),
        ('<p style="color: var(--ink)">', "var() in color", "the value itself"),
        ("<style>p { grid-template-columns: 1fr }</style>", "grid-template-columns", "one cell a column"),
        ("<style>p { animation: a 1s }</style>", "animation", "stand still"),
        ("<style>p { box-shadow: 0 0 1px }</style>", "box-shadow", "border"),
        ("<style>@font-face { font-family: A }</style>", "@font-face", "@media"),
        ("<style>p { width: calc(1px + 1px) }</style>", "calc() in width", "the value itself"),
    ],
)
def test_what_clients_do_not_show_is_found_with_its_line(line: str, problem: str, remedy: str) -> None:
    (one,) = found(f"<p>one</p>\n{{# a comment\n<script> #}}\n{line}\n<p>two</p>")
    assert one.line == 4
    assert problem in one.problem
    assert remedy in one.remedy


@pytest.mark.parametrize(
    "line",
    [
        '<table role="presentation" width="100%"><tr><td align="left"><b>a</b></td></tr></table>',
        '<img src="https://a.example/a.png" alt="Logo" width="20">',
        '<img src="{{ payload.url | link }}" alt="" width="{{ payload.width }}">',
        '<p style="color: red !important; mso-hide: all; padding: 0 4px; border-left: 1px solid #000000">',
        "<style>@media (max-width: 480px) { p { display: block !important } } /* position: absolute */</style>",
        "<!--[if mso]><v:rect><![endif]-->",
        '<a href="https://a.example/?position=absolute&display=flex">display: flex</a>',
        "{% if payload.a < 3 %}<p>a</p>{% endif %}",
    ],
)
def test_what_clients_show_is_no_finding(line: str) -> None:
    assert found(line) == []


def test_a_style_sheet_is_read_too() -> None:
    (one,) = found("p { color: red; }\n/* display:\n flex */\ntd {\n  gap: 4px;\n}\n", "mail.css")
    assert (one.line, one.problem) == (5, "mail clients do not know the property gap")


def test_the_check_finds_it_in_types_partials_and_layout_and_sends_all_the_same(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            **MAIL,
            "email.html": '{% include "_part.html" %}{% include "_layout/frame.html" %}\n<p style="gap: 1px">a</p>',
            "_part.html": "<nav>a</nav>",
            "_layout/frame.html": "<p>\n<aside>a</aside></p>",
            "_layout/mail.css": "p { float: left }",
        },
    )
    problems = check(root)
    assert {(it.file, it.line) for it in problems} == {
        (f"{NAME}/email.html", 2),
        (f"{NAME}/_part.html", 1),
        ("_layout/frame.html", 2),
        ("_layout/mail.css", 1),
    }
    loaded = Catalog(root).get(NAME)
    assert loaded is not None
    loaded.render("email", {}, None, recipient={})


def test_a_mail_that_gmail_would_clip_is_found(tmp_path: Path) -> None:
    schema = '[payload]\nrequired = ["n"]\nproperties.n = { type = "integer" }\n'
    files = {
        **MAIL,
        "notification.toml": MAIL["notification.toml"] + schema,
        "email.html": "<p>{% for a in range(payload.n) %}" + "a" * 200 + "{% endfor %}</p>",
        "example.json": '{"n": 10}',
    }
    assert check(write(tmp_path, files)) == []
    write(tmp_path, {"examples/long.json": '{"n": 900}'})
    (one,) = check(tmp_path)
    assert one.file == f"{NAME}/email.html"
    assert one.problem == "the mail grows beyond 100 KiB with examples/long.json"
