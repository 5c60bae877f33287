"""A chat post's Markdown as HTML that is safe on our own page."""

from __future__ import annotations

from functools import cache

from markdown_it import MarkdownIt
from markupsafe import Markup


def rendered(markdown: str) -> Markup:
    """Markdown (CommonMark) as HTML: raw HTML stays text, pictures are left out, links open a new tab."""
    return Markup(_renderer().render(markdown))  # noqa: S704 - made by a renderer that lets no HTML through


@cache
def _renderer() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "breaks": True}).disable("image")
    made.add_render_rule("link_open", _link)
    return made


def _link(self, tokens, index, options, environment):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    del environment
    tokens[index].attrSet("target", "_blank")
    tokens[index].attrSet("rel", "noopener noreferrer")
    return self.renderToken(tokens, index, options, {})
