"""What a type's folder says about preferences, and what it may not say at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from notify_tasks.event_type import EventType
from notify_tasks.rendering import BrokenType, LoadedType


def policy(root: Path, words: str) -> EventType:
    folder = root / "shop.news"
    folder.mkdir()
    (folder / "notification.toml").write_text(f'channels = ["sms"]\ncategory = "news"\n{words}\n')
    (folder / "sms.txt").write_text("News")
    return LoadedType(root, "shop.news").policy


def said(it: EventType) -> tuple[bool, ...]:
    return it.required, it.opt_in, it.unsubscribe, it.ignores_quiet_hours


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", (False, False, False, False)),
        ("required = true", (True, False, False, False)),
        ('unsubscribe = true\n[preferences]\ndefault = "off"', (False, True, True, False)),
        ('quiet_hours = "ignore"', (False, False, False, True)),
        ('quiet_hours = "hold"\n[preferences]\ndefault = "on"', (False, False, False, False)),
    ],
)
def test_a_type_says_how_it_takes_peoples_choices(
    tmp_path: Path, words: str, found: tuple[bool, ...]
) -> None:
    assert said(policy(tmp_path, words)) == found


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ('required = "yes"', "required is neither true nor false"),
        ("unsubscribe = 1", "unsubscribe is neither true nor false"),
        ('quiet_hours = "skip"', "quiet_hours is none of hold, ignore"),
        ("preferences = true", "preferences is no table with default alone"),
        ('[preferences]\ndefault = "never"', "on or off"),
        ('required = true\n[preferences]\ndefault = "off"', "nobody could change"),
        ("required = true\nunsubscribe = true", "a link to unsubscribe, which would do nothing"),
    ],
)
def test_what_it_cannot_say_is_named_with_its_line(tmp_path: Path, words: str, why: str) -> None:
    with pytest.raises(BrokenType) as broken:
        policy(tmp_path, words)
    (problem,) = broken.value.problems
    assert why in str(problem)
    assert "notification.toml" in str(problem)
    assert problem.line is not None


def test_a_password_reset_asks_nobody() -> None:
    assert LoadedType(Path(__file__).parents[2] / "templates", "account.password_reset").policy.required
