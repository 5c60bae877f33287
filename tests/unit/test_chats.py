"""A chat post's Markdown on our own page."""

from __future__ import annotations

import pytest

from notify_tasks.pages.chats import rendered


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("**bold** and `code`", "<p><strong>bold</strong> and <code>code</code></p>\n"),
        ("<b>tag</b>", "<p>&lt;b&gt;tag&lt;/b&gt;</p>\n"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>\n"),
        ("[go](javascript:alert(1))", "<p>[go](javascript:alert(1))</p>\n"),
        (
            "[go](https://a.example)",
            '<p><a href="https://a.example" target="_blank" rel="noopener noreferrer">go</a></p>\n',
        ),
        (
            '[go](https://a.example "x\\" onclick=\\"y")',
            (
                '<p><a href="https://a.example" title="x&quot; onclick=&quot;y" target="_blank"'
                ' rel="noopener noreferrer">go</a></p>\n'
            ),
        ),
    ],
)
def test_markdown_is_rendered_and_html_stays_text(markdown: str, html: str) -> None:
    assert rendered(markdown) == html


def test_pictures_are_not_loaded() -> None:
    assert "<img" not in rendered("![logo](https://a.example/logo.png)")
