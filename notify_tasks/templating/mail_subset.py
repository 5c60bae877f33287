"""The part of HTML and CSS that mail clients show, and what stands outside of it in a type's files.

Gmail takes out `<style>` rules it does not know and clips a mail at 102 KB, Outlook for Windows draws with Word,
and none of them runs scripts or sends forms (caniemail.com has the tables). What is listed here shows well, or is
left out without harm (`border-radius` in Word), in Gmail, Outlook, Apple Mail, Yahoo and Thunderbird. Everything else
is a finding of `notify templates check`: the type is still sent, since the finding may be meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Final

from notify_tasks.templating.errors import Problem

CLIPPED: Final = 100 * 1024
"""Bytes of HTML. Gmail cuts a mail at 102 KB, the foot with its way out included."""

TAGS: Final = frozenset(
    (
        *("html", "head", "meta", "title", "style", "body", "div", "span", "p", "br", "hr", "a", "img"),
        *(
            "table",
            "thead",
            "tbody",
            "tfoot",
            "tr",
            "td",
            "th",
            "caption",
            "center",
            "blockquote",
            "pre",
            "code",
        ),
        *(
            "h1",
            "h2",
            "h3",
            "h4",
            "ul",
            "ol",
            "li",
            "b",
            "strong",
            "i",
            "em",
            "u",
            "s",
            "small",
            "sub",
            "sup",
        ),
    )
)
PROPERTIES: Final = frozenset(
    (
        *("background-color", "color", "color-scheme", "direction", "display", "height", "letter-spacing"),
        *("line-height", "list-style", "list-style-type", "max-height", "max-width", "min-width", "opacity"),
        *("overflow", "overflow-wrap", "table-layout", "text-align", "text-decoration", "text-indent"),
        *(
            "text-transform",
            "vertical-align",
            "white-space",
            "width",
            "word-break",
            "word-spacing",
            "word-wrap",
        ),
        *("caption-side", "empty-cells", "hyphens", "-webkit-text-size-adjust", "-ms-text-size-adjust"),
    )
)
_FAMILIES: Final = ("border", "font", "margin", "mso-", "padding")
"""Whole families: `border-left-color`, `padding-top`, Word's own `mso-`."""
_NOT_IN_FAMILIES: Final = frozenset(
    ("border-image", "border-inline", "border-block", "font-variation-settings")
)
DISPLAYS: Final = frozenset(
    ("block", "inline", "inline-block", "none", "table", "table-row", "table-cell", "list-item")
)

_LINK: Final = "Write a link or a button that leads to a page with it"
_TAG_REMEDIES: Final = {
    "script": "Take it out: no mail client runs scripts",
    **dict.fromkeys(("form", "input", "button", "select", "textarea", "label"), _LINK),
    **dict.fromkeys(("iframe", "video", "audio", "object", "embed", "canvas"), _LINK),
    "svg": 'Use an <img> with alt="..." and width, or words',
    "link": "Put the rules into _layout/mail.css: nothing is fetched while rendering",
    **dict.fromkeys(
        ("section", "article", "header", "footer", "main", "nav", "aside"), "Use a table or a <div>"
    ),
}
_PROPERTY_REMEDIES: Final = {
    **dict.fromkeys(("float", "position", "top", "left", "right", "bottom"), "Use table cells and padding"),
    **dict.fromkeys(("flex", "grid", "gap", "columns", "column-count"), "Use a table: one cell a column"),
    **dict.fromkeys(("align-items", "justify-content"), "Use align and valign of a table cell"),
    **dict.fromkeys(("animation", "transition", "transform"), "Take it out: mails stand still"),
    **dict.fromkeys(("background", "background-image"), "Use background-color: many readers load no images"),
    "box-shadow": "Use a border: Outlook and Gmail draw no shadows",
}

_HOLES: Final = re.compile(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
_COMMENTS: Final = re.compile(r"/\*.*?\*/", re.DOTALL)
_DECLARATION: Final = re.compile(r"(?P<name>-{0,2}[a-zA-Z][\w-]*)\s*:\s*(?P<value>[^;{}]+)(?=[;}]|$)")
_AT_RULE: Final = re.compile(r"@([\w-]+)")
_BLOCK: Final = re.compile(r"\{([^{}]*)\}")
_BAD_VALUE: Final = re.compile(r"\b(var|calc|url|env|min|max|clamp)\(", re.IGNORECASE)


def findings(path: str, shown: str, source: str) -> Iterator[Problem]:
    """What mail clients may not show.

    Args:
        path: the file's name, which says whether it is HTML or CSS.
        shown: its path inside the templates folder.
        source: its text, with Jinja in it.
    """
    plain = _without_jinja(source)
    if path.endswith(".css"):
        found = _sheet(plain, 1)
    else:
        page = _Page(plain)
        found = iter(page.found)
    for line, problem, remedy in found:
        yield Problem(shown, line, problem, remedy)


def _without_jinja(source: str) -> str:
    """The source with each Jinja tag gone, its lines kept; a value becomes an x, so that an attribute has one."""

    def hole(match: re.Match[str]) -> str:
        lines = "\n" * match[0].count("\n")
        return ("x" if match[0].startswith("{{") else " ") + lines

    return _HOLES.sub(hole, source)


_Finding = tuple[int, str, str]


class _Page(HTMLParser):
    """Collects what is wrong with tags, attributes, styles and images."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[_Finding] = []
        self._in_style = False
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        line = self.getpos()[0]
        self._in_style = tag == "style"
        if tag not in TAGS:
            remedy = _TAG_REMEDIES.get(tag, "Use a table, <div>, <p> or <span>")
            self.found.append((line, f"mail clients do not show <{tag}>", remedy))
        given = {name: value or "" for name, value in attrs}
        for name, value in given.items():
            if name.startswith("on"):
                self.found.append(
                    (line, f"mail clients take {name} out", "Take it out: no client runs scripts")
                )
            elif name == "style":
                self.found += _rules(value, line)
            elif name == "background":
                self.found.append((line, "not every mail client shows a background image", _image()))
        if tag == "img":
            self._image(given, line)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = self._in_style and tag != "style"

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.found += _sheet(data, self.getpos()[0])

    def _image(self, given: dict[str, str], line: int) -> None:
        if "alt" not in given:
            remedy = 'Write alt="..." with its words, or alt="" for decoration: many readers load no images'
            self.found.append((line, "an image has no alt text", remedy))
        if "width" not in given:
            self.found.append(
                (line, "an image has no width", 'Write width="..." in pixels: Outlook shows it full size')
            )
        if given.get("src", "").lower().startswith("data:"):
            self.found.append(
                (line, "Gmail shows no data: images", "Put the image on a web server, or use words")
            )


def _image() -> str:
    return "Use bgcolor, or background-color in _layout/mail.css"


def _sheet(text: str, first: int) -> Iterator[_Finding]:
    text = _COMMENTS.sub(lambda match: "\n" * match[0].count("\n"), text)
    for rule in _AT_RULE.finditer(text):
        if rule[1] not in ("media", "charset"):
            line = first + text.count("\n", 0, rule.start())
            yield line, f"mail clients ignore @{rule[1]}", "Take it out: only @media is known widely"
    for block in _BLOCK.finditer(text):
        yield from _rules(block[1], first + text.count("\n", 0, block.start(1)))


def _rules(text: str, first: int) -> Iterator[_Finding]:
    for declaration in _DECLARATION.finditer(text):
        name, value = declaration["name"].lower(), declaration["value"].strip().lower()
        line = first + text.count("\n", 0, declaration.start())
        if not _is_known(name):
            root = name.removeprefix("-webkit-").removeprefix("-moz-")
            remedy = _PROPERTY_REMEDIES.get(root) or _PROPERTY_REMEDIES.get(root.partition("-")[0])
            yield line, f"mail clients do not know the property {name}", remedy or "Take it out"
        elif name == "display" and value.removesuffix("!important").strip() not in DISPLAYS:
            yield line, f"mail clients do not know display: {value}", "Use a table: one cell a column"
        elif bad := _BAD_VALUE.search(value):
            yield line, f"mail clients do not know {bad[1].lower()}() in {name}", "Write the value itself"


def _is_known(name: str) -> bool:
    if name in PROPERTIES:
        return True
    return name.startswith(_FAMILIES) and not name.startswith(tuple(_NOT_IN_FAMILIES))
