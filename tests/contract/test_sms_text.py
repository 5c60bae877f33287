"""How many SMS a text makes, and what is no text for one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from channels.contract import ChatContent, Refused, TextContent
from channels.segments import GSM7, UCS2, segments
from channels.sms._text import checked_text
from tests.contract.conformance import a_message


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", (GSM7, 0, 1)),
        ("a" * 160, (GSM7, 160, 1)),
        ("a" * 161, (GSM7, 161, 2)),
        ("a" * 306, (GSM7, 306, 2)),
        ("a" * 307, (GSM7, 307, 3)),
        ("€" * 80, (GSM7, 160, 1)),
        ("€" * 81, (GSM7, 162, 2)),
        ("a" * 152 + "€" + "a" * 153, (GSM7, 307, 3)),  # the euro sign is not cut in two
        ("ç" + "a" * 69, (UCS2, 70, 1)),  # GSM-7 has the capital alone
        ("語" * 71, (UCS2, 71, 2)),
        ("語" * 134, (UCS2, 134, 2)),
        ("😀" * 35, (UCS2, 70, 1)),
        ("😀" * 36, (UCS2, 72, 2)),
        ("😀" * 67, (UCS2, 134, 3)),  # 33 emoji in each: the 67th unit would be half of one
    ],
)
def test_a_text_is_counted_as_the_standard_cuts_it(text: str, wanted: tuple[str, int, int]) -> None:
    cut = segments(text)
    assert (cut.alphabet, cut.total, cut.count) == wanted
    assert "".join(cut.parts) == text


def test_a_text_within_the_limits_is_left_as_it_is() -> None:
    message = a_message("sms", "+491701234567", TextContent(" two\nlines "))

    assert checked_text(message, most=11, most_segments=1) == " two\nlines "


Check = Callable[[str], str]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"content\.text is empty"),
        (" \n", r"content\.text is empty"),
        ("a" * 401, r"content\.text has 401 characters and the provider takes 400"),
        ("語" * 135, r"content\.text makes 3 SMS in UCS-2 and 2 are allowed; shorten sms\.txt"),
        ("a\ud83d", r"content\.text has half of a character"),
    ],
)
def test_what_is_no_text_of_an_sms_is_refused_by_the_fields_name(text: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        checked_text(a_message("sms", "+491701234567", TextContent(text)), most=400, most_segments=2)


def test_what_the_provider_puts_in_front_is_counted_once() -> None:
    for text in ("語" * 67, "【店】" + "語" * 67):
        message = a_message("sms", "+8613900001234", TextContent(text))
        assert checked_text(message, most=400, most_segments=1, ahead="【店】") == text
        with pytest.raises(Refused, match="makes 2 SMS"):
            checked_text(message, most=400, most_segments=1, ahead="【商店】")


def test_a_post_for_a_chat_is_no_sms() -> None:
    with pytest.raises(Refused, match="carries TextContent, not ChatContent"):
        checked_text(a_message("sms", "+491701234567", ChatContent("x")), most=9, most_segments=1)
