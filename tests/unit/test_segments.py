"""How a text is cut into SMS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.segments import GSM7, UCS2, segments


@pytest.mark.parametrize(
    ("text", "alphabet", "parts", "left"),
    [
        ("", GSM7, 1, 160),
        ("a" * 160, GSM7, 1, 0),
        ("a" * 161, GSM7, 2, 2 * 153 - 161),
        ("a" * 306, GSM7, 2, 0),
        ("a" * 307, GSM7, 3, 152),
        ("ÄÖÜäöüßàé§ñ@£", GSM7, 1, 147),  # all of them in the alphabet
        ("€" * 80, GSM7, 1, 0),  # two septets each
        ("€" * 81, GSM7, 2, 153 - 2 * 5),  # 76 in a part: the 77th would be cut in the middle
        ("[]{}~|^\\\f", GSM7, 1, 142),
        ("ç", UCS2, 1, 69),  # only the large one is in the alphabet
        ("“quoted”", UCS2, 1, 62),
        ("发" * 70, UCS2, 1, 0),
        ("发" * 71, UCS2, 2, 2 * 67 - 71),
        ("😀" * 35, UCS2, 1, 0),
        ("😀" * 36, UCS2, 2, 67 - 6),  # 33 in a part, one unit stays empty
    ],
)
def test_a_text_is_counted_as_networks_count(text: str, alphabet: str, parts: int, left: int) -> None:
    cut = segments(text)

    assert (cut.alphabet, len(cut.parts), cut.left) == (alphabet, parts, left)


def test_what_forces_the_short_alphabet_is_named_once() -> None:
    assert segments("Grüße, 李娜 “李”").foreign == ("李", "娜", "“", "”")


@given(st.text(max_size=700))
def test_nothing_is_lost_or_split(text: str) -> None:
    cut = segments(text)

    assert "".join(cut.parts) == text
    assert all(part for part in cut.parts) or text == ""
    assert 0 <= cut.left <= cut.room
