"""Chat posts: Markdown becomes each service's own form, and what a payload says stays text in all of them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from channels.chat._lookalikes import defused, lookalike
from channels.chat._markdown import Line, Run, lines_of, read, title_of
from channels.chat.slack import mrkdwn
from channels.contract import ChatContent, Deadline, Message, Refused, TextContent
from channels.loader import load
from notify_tasks.rendering import Catalog
from tests.contract.conformance import a_message, adapter_of
from tests.contract.http_peer import HttpPeer

FIVE = ("chat.dingtalk", "chat.feishu", "chat.slack", "chat.teams", "chat.wecom")
HOSTILE = (
    '<!channel> <!everyone> <@U0123ABCD> <#C0123|x> @all @everyone @here <at user_id="all"></at> <at>Bob</at> '
    "[bank](https://evil.example) <https://evil.example|bank> ![x](https://evil.example/p.png) "
    "<a href='https://evil.example'>bank</a> **b** *i* _u_ ~s~ `c` # h > q &lt;!channel&gt; \\ ]( |"
)
words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"))).map(lambda it: it.strip())
texts = (
    st.one_of(
        words,
        st.lists(words, max_size=4).map(" ".join),
        st.text("<>@!#&*_~`[]()\\|:;-+.=1a /", max_size=40),
    )
    .map(lambda it: " ".join(it.split()))
    .filter(bool)
)


@pytest.fixture(scope="module")
def escape(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A value, as our templates write it into a chat post."""
    root: Path = tmp_path_factory.mktemp("templates")
    folder = root / "order.shipped"
    folder.mkdir()
    (folder / "notification.toml").write_text('channels = ["chat"]\n')
    (folder / "chat.md").write_text("{{ payload.a }}")
    loaded = Catalog(root).get("order.shipped")
    assert loaded is not None

    def rendered(value: str) -> str:
        content = loaded.render("chat", {"a": value}, None, recipient={"id": "user-42"}).content
        assert isinstance(content, ChatContent)
        return content.markdown.removesuffix("\n")

    return rendered


def posted(use: str, markdown: str) -> Mapping[str, Any]:
    """What the far end of a provider gets for a post."""
    adapter = adapter_of(use)
    with HttpPeer(adapter.takes) as peer:
        provider = load(use, "the-provider", adapter.options(peer))
        message = adapter.message(peer)
        told = a_message("chat", message.address, ChatContent(markdown))
        provider.send(told, Deadline(10))
        provider.close()
        (seen,) = peer.requests
    assert seen.headers["content-type"] == "application/json; charset=utf-8"
    found = json.loads(seen.body)
    assert isinstance(found, dict)
    return found


# --- reading ------------------------------------------------------------------------------------------


def test_a_post_is_read_line_by_line() -> None:
    found = read(
        "# Order *9*\n\n"
        "is ~~on~~ its **way**\nto [you **now**](https://shop.example/t?a=1&b=2)\n\n"
        "> first\n>\n> second\n\n"
        "- one\n- two\n    1. in `here`\n    2. there\n\n"
        "---\n\n```\nfirst *line*\n\nlast\n```\n"
    )

    url = "https://shop.example/t?a=1&b=2"
    assert found == (
        Line((Run("Order ", bold=True), Run("9", bold=True, italic=True))),
        Line(),
        Line((Run("is "), Run("on", struck=True), Run(" its "), Run("way", bold=True))),
        Line((Run("to "), Run("you ", url=url), Run("now", bold=True, url=url))),
        Line(),
        Line((Run("first"),), quote=True),
        Line(quote=True),
        Line((Run("second"),), quote=True),
        Line(),
        Line((Run("one"),), marker="• "),
        Line((Run("two"),), marker="• "),
        Line((Run("in "), Run("here", code=True)), marker="    1. "),
        Line((Run("there"),), marker="    2. "),
        Line(),
        Line((Run("———"),)),
        Line(),
        Line((Run("first *line*", code=True),)),
        Line(),
        Line((Run("last", code=True),)),
    )


@pytest.mark.parametrize(
    "url", ["https://a.example/x", "http://a.example", "mailto:a@b.example", "tel:+49151"]
)
def test_a_link_of_a_known_kind_is_kept(url: str) -> None:
    assert read(f"[there]({url})") == (Line((Run("there", url=url),)),)


@pytest.mark.parametrize(
    "url", ["slack://channel?id=1", "ftp://a.example/x", "//a.example", "/path", "dingtalk://x"]
)
def test_a_link_of_another_kind_is_text(url: str) -> None:
    assert read(f"[there]({url})") == (Line((Run("there"),)),)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd"])
def test_a_dangerous_link_is_none(url: str) -> None:
    assert not any(run.url for line in read(f"[there]({url})") for run in line.runs)


@pytest.mark.parametrize(
    "html", ["<b>x</b> <at id=all></at>", "<div>x</div>", "<!-- x -->", "<script>x</script>"]
)
def test_html_is_text(html: str) -> None:
    assert read(html) == (Line((Run(html),)),)


@settings(max_examples=150, deadline=None)
@given(texts)
@example(HOSTILE)
@example("a & b &amp; &#60;!channel&#62;")
def test_a_value_comes_out_as_the_text_that_it_is(escape: Callable[[str], str], value: str) -> None:
    assert read(f"x {escape(value)} x") == (Line((Run(f"x {value} x"),)),)


@settings(max_examples=150, deadline=None)
@given(texts)
@example(HOSTILE)
@example("[x]: https://evil.example")
def test_a_value_alone_on_its_line_is_no_link_and_no_style(escape: Callable[[str], str], value: str) -> None:
    for line in read(escape(value)):
        assert all(replace(run, text="") == Run("") for run in line.runs)


def test_a_title_is_the_first_lines_words_and_is_cut() -> None:
    lines = read("\n\n**Order** 9\n\nmore")

    assert title_of(lines, 50) == "Order 9"
    assert title_of(lines, 6) == "Order…"


@pytest.mark.parametrize("markdown", ["", " \n\n", "&nbsp;"])
def test_a_post_that_says_nothing_is_refused(markdown: str) -> None:
    with pytest.raises(Refused, match=r"content\.markdown says nothing"):
        lines_of(a_message("chat", "ops", ChatContent(markdown)))


def test_a_post_beyond_all_limits_is_not_even_read() -> None:
    with pytest.raises(Refused, match=r"content\.markdown makes 100001 characters"):
        lines_of(a_message("chat", "ops", ChatContent("[" * 100_001)))


def test_reading_writes_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    read("**493817**")
    assert caplog.text == ""


# --- each service's form --------------------------------------------------------------------------------

POST = (
    "**Order \\_9\\_ & co**\n\nby *DHL* to a\\_b\\_c\n\n> so be it\n\n- one\n- two\n\n"
    "[Track (it)](https://shop.example/t_(1)?a=1&b=2) or [write](mailto:a@b.example)"
)


def test_slack_gets_mrkdwn_and_unfolds_nothing() -> None:
    post = posted("chat.slack", POST)

    assert post["text"] == (
        "*Order \uff3f9\uff3f &amp; co*\n\nby _DHL_ to a_b_c\n\n> so be it\n\n• one\n• two\n\n"
        "<https://shop.example/t_(1)?a=1&amp;b=2|Track (it)> or <mailto:a@b.example|write>"
    )
    assert (post["unfurl_links"], post["unfurl_media"], post["link_names"]) == (False, False, False)


def test_teams_gets_a_card_of_text_runs() -> None:
    (attachment,) = posted("chat.teams", POST)["attachments"]
    card = attachment["content"]

    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert (card["type"], card["fallbackText"]) == ("AdaptiveCard", "Order _9_ & co")
    assert card["body"] == [
        row(text("Order _9_ & co", weight="Bolder")),
        row(text("by "), text("DHL", italic=True), text(" to a_b_c")),
        {"type": "Container", "style": "emphasis", "items": [row(text("so be it"))]},
        row(text("• "), text("one")),
        {**row(text("• "), text("two")), "spacing": "None"},
        row(
            text(
                "Track (it)",
                color="Accent",
                selectAction={"type": "Action.OpenUrl", "url": "https://shop.example/t_(1)?a=1&b=2"},
            ),
            text(" or "),
            text("write: a@b.example"),
        ),
    ]


def row(*inlines: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": list(inlines)}


def text(words: str, **style: Any) -> dict[str, Any]:
    return {"type": "TextRun", "text": words, **style}


def test_feishu_gets_a_tree() -> None:
    post = posted("chat.feishu", POST)

    assert post["msg_type"] == "post"
    assert post["content"]["post"]["zh_cn"]["content"] == [
        [leaf("Order _9_ & co", style=["bold"])],
        [leaf(" ")],
        [leaf("by "), leaf("DHL", style=["italic"]), leaf(" to a_b_c")],
        [leaf(" ")],
        [leaf("▎"), leaf("so be it")],
        [leaf(" ")],
        [leaf("• "), leaf("one")],
        [leaf("• "), leaf("two")],
        [leaf(" ")],
        [
            {"tag": "a", "text": "Track (it)", "href": "https://shop.example/t_(1)?a=1&b=2"},
            leaf(" or "),
            leaf("write: a@b.example"),
        ],
    ]


def leaf(words: str, **style: Any) -> dict[str, Any]:
    return {"tag": "text", "text": words, **style}


def test_dingtalk_gets_its_markdown_and_a_title() -> None:
    post = posted("chat.dingtalk", POST)

    assert post == {
        "msgtype": "markdown",
        "markdown": {
            "title": "Order _9_ & co",
            "text": (
                "**Order \uff3f9\uff3f & co**\n\nby *DHL* to a_b_c\n\n> so be it\n\n• one  \n• two\n\n"
                "[Track (it)](https://shop.example/t_%281%29?a=1&b=2) or [write](mailto:a@b.example)"
            ),
        },
    }


def test_wecom_gets_its_markdown() -> None:
    post = posted("chat.wecom", POST)

    assert post == {
        "msgtype": "markdown",
        "markdown": {
            "content": (
                "**Order \uff3f9\uff3f & co**\n\nby DHL to a_b_c\n\n> so be it\n\n• one\n• two\n\n"
                "[Track (it)](https://shop.example/t_%281%29?a=1&b=2) or [write](mailto:a@b.example)"
            )
        },
    }


# --- hostile values -------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(texts)
@example(HOSTILE)
def test_in_slack_a_value_begins_nothing(value: str) -> None:
    written = mrkdwn((Line((Run(f"x {value} x"),)),))

    assert "<" not in written
    assert ">" not in written
    assert re.fullmatch(r"(?:[^&]|&(?:amp|lt|gt);)*", written)
    assert "`" not in written
    if "://" not in value:
        assert not re.search(r"(?<!\w)[*_~](?=\S)", written.replace("\uff3f", ""))


@settings(max_examples=150, deadline=None)
@given(texts)
@example(HOSTILE)
def test_in_dialects_without_escapes_no_mark_is_left(value: str) -> None:
    for written in (lookalike(value), lookalike(value, first=True)):
        assert not set(written) & set("`[]<>\\")
        assert not re.search(r"&#?\w+;", written)
        assert "*" not in written or "://" in value
        assert len(written) == len(value)
    assert not lookalike(value, first=True).lstrip().startswith("#")


@settings(max_examples=150, deadline=None)
@given(texts)
@example(HOSTILE)
def test_in_plain_text_no_mention_begins(value: str) -> None:
    written = defused(Run(value))

    assert not re.search(r"(?<!\w)@\w", written)
    assert not re.search(r"<[^\s\u200b]", written)
    assert "](" not in written
    assert written.replace("\u200b", "") == value.replace("\u200b", "")


@pytest.mark.parametrize("use", FIVE)
def test_no_service_gets_a_mention_or_a_link_from_a_value(use: str, escape: Callable[[str], str]) -> None:
    post = posted(use, f"x {escape(HOSTILE)} x")
    wire = json.dumps(post, ensure_ascii=False)

    match use:
        case "chat.slack":
            assert "<" not in post["text"]
            assert "blocks" not in post
        case "chat.teams":
            (block,) = post["attachments"][0]["content"]["body"]
            assert block == row(text(f"x {HOSTILE} x"))
            assert "entities" not in wire
        case "chat.feishu":
            assert post["content"]["post"]["zh_cn"]["content"] == [[leaf(f"x {HOSTILE} x")]]
        case "chat.dingtalk":
            assert "at" not in post
            assert not set(post["markdown"]["text"]) & set("[]<>*`")
        case _:
            assert not set(post["markdown"]["content"]) & set("[]<>*`")


@pytest.mark.parametrize("use", FIVE)
def test_an_address_in_plain_text_stays_whole(use: str) -> None:
    wire = json.dumps(posted(use, "see https://shop.example/\\_next/a\\_b?x=\\*y\\*"), ensure_ascii=False)

    assert "https://shop.example/_next/a_b?x=*y*" in wire


def test_marks_within_words_find_room_in_slack() -> None:
    assert (
        mrkdwn(read("foo**bar**baz (**bar**) 第**9**单"))
        == "foo\u200b*bar*\u200bbaz (*bar*) 第\u200b*9*\u200b单"
    )


def test_a_backtick_ends_no_code_in_slack() -> None:
    assert mrkdwn((Line((Run("a`b <x>", code=True),)),)) == "`a\u02cbb &lt;x&gt;`"


@pytest.mark.parametrize("use", FIVE)
def test_a_text_for_phones_is_refused(use: str) -> None:
    adapter = adapter_of(use)
    with HttpPeer(adapter.takes) as peer:
        provider = load(use, "the-provider", adapter.options(peer))
        told: Message = a_message("chat", adapter.message(peer).address, TextContent("hello"))
        with pytest.raises(Refused, match="ChatContent"):
            provider.send(told, Deadline(5))
        provider.close()
