"""Rates as configuration writes them."""

from __future__ import annotations

import pytest

from notify_tasks.rates import Rate


@pytest.mark.parametrize(
    ("text", "per_second", "shown"),
    [
        ("50/s", 50, "50/s"),
        (" 0.5 / s ", 0.5, "0.5/s"),
        ("600/min", 10, "600/min"),
        ("600/m", 10, "600/min"),
        ("3600 per hour", 1, "3600/h"),
        ("86400/DAY", 1, "86400/d"),
    ],
)
def test_a_rate_is_calls_in_a_unit_of_time(text: str, per_second: float, shown: str) -> None:
    rate = Rate.parse(text)
    assert rate.per_second == per_second
    assert rate.interval == 1 / per_second
    assert str(rate) == shown
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (50, '50 has no unit. Write "50/s"'),
        (True, "it is not a rate"),
        ("50", "it is not a rate"),
        ("fast", "it is not a rate"),
        ("50/ss", "Did you mean"),
        ("50/fortnight", "'fortnight' is no unit of time"),
        ("-1/s", "it is not a rate"),
        ("0/s", "enabled = false"),
        (None, "it is not a rate"),
    ],
)
def test_what_is_no_rate_says_what_to_write(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Rate.parse(value)
