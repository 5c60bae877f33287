"""Chat posts in the services' own forms, drawn as HTML that is safe on our own page: Slack's mrkdwn, cards, posts.

What comes may be anything, and is text until a service's documentation says otherwise. Links open a new tab, pictures
are left out. DingTalk's and WeCom's Markdown is drawn by `chats.rendered`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Final

from markupsafe import Markup, escape

_MOST: Final = 400
"""Characters between two marks: more is no emphasis, and is not searched for its end."""
_DEEPEST: Final = 8
_LONGEST: Final = 40_000
"""Characters of a post to Slack, which cuts off what is longer."""
_WEB: Final = re.compile(r"(?:https?://|mailto:|tel:)[\x21-\x7e]+")
_BREAK: Final = Markup("<br>")
_NOTHING: Final = Markup()


def link(url: object, text: Markup) -> Markup:
    """A link, where the URL is one that may be followed; else its text."""
    if not isinstance(url, str) or not _WEB.fullmatch(url):
        return text
    return Markup('<a href="{}" target="_blank" rel="noopener noreferrer">{}</a>').format(url, text)


def words(post: Markup) -> str:
    """A drawn post as text: a line for each of its own."""
    lines = re.split(r"<br>|</p>|</blockquote>", post)
    return "\n".join(Markup(line).striptags() for line in lines).strip()  # noqa: S704 - drawn by us, and stripped


def _joined(parts: Iterable[Markup], between: Markup = _NOTHING) -> Markup:
    return between.join(parts)


def _dicts(values: object) -> list[dict[str, Any]]:
    return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# --- Slack ------------------------------------------------------------------------------------------------

_CODE_BLOCK: Final = re.compile(r"```(.*?)```", re.DOTALL)
_PIECE: Final = re.compile(
    r"`(?P<code>[^`]+)`"
    r"|<(?P<to>[^<>|]+)(?:\|(?P<label>[^<>]*))?>"
    + "".join(
        rf"|(?<![^\W_])(?<!{mark}){mark}(?=\S)(?P<{name}>[^\n]{{1,{_MOST}}}?)(?<=\S){mark}(?![^\W_])"
        for mark, name in ((r"\*", "b"), ("_", "i"), ("~", "s"))
    )
)


def slack_text(post: Mapping[str, Any]) -> str:
    """The mrkdwn of a post: of its blocks, where it has some, else its `text`."""
    parts = [_block_text(block) for block in _dicts(post.get("blocks"))]
    parts += [str(each.get("text") or each.get("fallback") or "") for each in _dicts(post.get("attachments"))]
    shown = [part for part in parts if part]
    text = str(post.get("text") or "")
    instead = bool(shown) and bool(_dicts(post.get("blocks")))
    return "\n".join(shown if instead else [text, *shown]).strip("\n")[:_LONGEST]


def _block_text(block: Mapping[str, Any]) -> str:
    own = [_dict(block.get("text")), *_dicts(block.get("fields")), *_dicts(block.get("elements"))]
    texts = [str(each["text"]) for each in own if isinstance(each.get("text"), str)]
    if block.get("type") == "header":
        texts = [f"*{text}*" for text in texts]
    return "\n".join(texts)


def slack(text: str) -> Markup:
    """Mrkdwn (docs.slack.dev, formatting message text) as HTML."""
    drawn = Markup()
    for place, part in enumerate(_CODE_BLOCK.split(text)):
        drawn += Markup("<pre>{}</pre>").format(_plain(part)) if place % 2 else _lines(part.strip("\n"))
    return drawn


def _lines(text: str) -> Markup:
    drawn = Markup()
    for quote, group in groupby(text.split("\n"), lambda line: line.startswith((">", "&gt;"))):
        rows = list(group)
        if quote:
            inner = (_inline(re.sub(r"^(?:>|&gt;) ?", "", row)) for row in rows)
            drawn += Markup("<blockquote>{}</blockquote>").format(_joined(inner, _BREAK))
        else:
            for blank, part in groupby(rows, lambda row: not row.strip()):
                if not blank:
                    drawn += Markup("<p>{}</p>").format(_joined(map(_inline, part), _BREAK))
    return drawn


def _inline(text: str) -> Markup:
    drawn, at = Markup(), 0
    for found in _PIECE.finditer(text):
        drawn += _plain(text[at : found.start()])
        at = found.end()
        if found["code"] is not None:
            drawn += Markup("<code>{}</code>").format(_plain(found["code"]))
        elif found["to"] is not None:
            drawn += _reference(found["to"], found["label"])
        else:
            name = found.lastgroup or "b"
            drawn += Markup(f"<{name}>{{}}</{name}>").format(_inline(found[name]))  # noqa: S704 - of a fixed set
    return drawn + _plain(text[at:])


def _reference(to: str, label: str | None) -> Markup:
    """What stands between angles: a link, or somebody who is mentioned."""
    if to[0] in "@#!":
        name = label or to.lstrip("@#!")
        return Markup('<span class="mention">{}{}</span>').format("#" if to[0] == "#" else "@", name)
    return link(_entities(to), _plain(label or to))


def _entities(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _plain(text: str) -> Markup:
    return escape(_entities(text))


# --- Teams ------------------------------------------------------------------------------------------------


def teams(message: Mapping[str, Any]) -> Markup:
    """The adaptive cards of a message (adaptivecards.io, schema 1.4) as HTML."""
    cards = [_dict(each.get("content")) for each in _dicts(message.get("attachments"))]
    drawn = [_items(card.get("body"), 0) + _actions(card.get("actions")) for card in cards]
    text = message.get("text")
    return (Markup("<p>{}</p>").format(text) if isinstance(text, str) and text else Markup()) + _joined(drawn)


def _items(items: object, depth: int) -> Markup:
    return _joined(_element(each, depth) for each in _dicts(items)) if depth < _DEEPEST else Markup()


def _element(it: Mapping[str, Any], depth: int) -> Markup:
    kind = it.get("type")
    tight = Markup(' class="tight"') if it.get("spacing") == "None" else Markup()
    if kind == "TextBlock":
        return Markup("<p{}>{}</p>").format(tight, _run(it))
    if kind == "RichTextBlock":
        inlines = it.get("inlines")
        runs = inlines if isinstance(inlines, list) else []
        drawn = (_run(run) if isinstance(run, dict) else escape(str(run)) for run in runs)
        return Markup("<p{}>{}</p>").format(tight, _joined(drawn))
    if kind == "Container":
        inner = _items(it.get("items"), depth + 1)
        return Markup("<blockquote>{}</blockquote>").format(inner) if it.get("style") == "emphasis" else inner
    if kind == "FactSet":
        facts = (
            Markup("<b>{}</b> {}").format(f.get("title"), f.get("value")) for f in _dicts(it.get("facts"))
        )
        return Markup("<p>{}</p>").format(_joined(facts, _BREAK))
    if kind == "ColumnSet":
        return _joined(_items(each.get("items"), depth + 1) for each in _dicts(it.get("columns")))
    return _actions(it.get("actions")) if kind == "ActionSet" else Markup()


def _run(run: Mapping[str, Any]) -> Markup:
    drawn = escape(str(run.get("text", ""))).replace("\n", _BREAK)
    styles = (
        ("code", run.get("fontType") == "Monospace"),
        ("b", run.get("weight") == "Bolder"),
        ("i", bool(run.get("italic"))),
        ("s", bool(run.get("strikethrough"))),
    )
    return link(_dict(run.get("selectAction")).get("url"), _styled(drawn, styles))


def _styled(drawn: Markup, styles: Iterable[tuple[str, bool]]) -> Markup:
    for tag, wanted in styles:
        if wanted:
            drawn = Markup(f"<{tag}>{{}}</{tag}>").format(drawn)  # noqa: S704 - of a fixed set
    return drawn


def _actions(actions: object) -> Markup:
    drawn = [
        Markup("<p>{}</p>").format(link(each.get("url"), escape(str(each.get("title") or each["url"]))))
        for each in _dicts(actions)
        if each.get("url")
    ]
    return _joined(drawn)


# --- Feishu -----------------------------------------------------------------------------------------------


def feishu(message: Mapping[str, Any]) -> Markup:
    """A text, a post or a card of Feishu's (open.feishu.cn, custom bot usage guide) as HTML."""
    content = _dict(message.get("content"))
    if message.get("msg_type") == "interactive":
        return _feishu_card(_dict(message.get("card")))
    if message.get("msg_type") != "post":
        return Markup("<p>{}</p>").format(escape(str(content.get("text", ""))).replace("\n", _BREAK))
    languages = [each for each in _dict(content.get("post")).values() if isinstance(each, dict)]
    post = languages[0] if languages else {}
    title = Markup("<p><b>{}</b></p>").format(post["title"]) if post.get("title") else Markup()
    rows = post.get("content") if isinstance(post.get("content"), list) else []
    drawn = [_joined(map(_feishu_piece, _dicts(row))) for row in rows or ()]
    parts = groupby(drawn, lambda row: not row.strip())
    return title + _joined(
        Markup("<p>{}</p>").format(_joined(part, _BREAK)) for blank, part in parts if not blank
    )


def _feishu_piece(it: Mapping[str, Any]) -> Markup:
    if it.get("tag") == "at":
        return Markup('<span class="mention">@{}</span>').format(it.get("user_name") or it.get("user_id"))
    style = it.get("style")
    names = style if isinstance(style, list) else []
    wanted = (("b", "bold" in names), ("i", "italic" in names), ("s", "lineThrough" in names))
    return link(it.get("href"), _styled(escape(str(it.get("text", ""))), wanted))


def _feishu_card(card: Mapping[str, Any]) -> Markup:
    title = _dict(_dict(card.get("header")).get("title")).get("content")
    drawn = [Markup("<p><b>{}</b></p>").format(title)] if title else []
    elements = card.get("elements") or _dict(card.get("body")).get("elements")
    for each in _dicts(elements):
        text = each.get("content") or _dict(each.get("text")).get("content")
        if isinstance(text, str):
            drawn.append(Markup("<p>{}</p>").format(text))
    return _joined(drawn)
