"""What a far end keeps of what arrived: the newest, within limits."""

from __future__ import annotations

from datetime import UTC, datetime

from notify_tasks.sandbox.kept import Arrival, Kept


def arrival(n: int, size: int = 10) -> Arrival:
    return Arrival(
        id=f"sms-{n}",
        at=datetime.now(UTC),
        channel="sms",
        protocol="http",
        to="+447700900101",
        raw=b"x" * size,
    )


def ids(kept: Kept) -> list[str]:
    return [each.id for _, each in kept.newest()]


def test_the_oldest_go_when_there_are_too_many() -> None:
    kept = Kept(most=3)
    for n in range(5):
        kept.add(arrival(n))

    assert ids(kept) == ["sms-4", "sms-3", "sms-2"]
    assert (len(kept), kept.dropped, kept.last) == (3, 2, 5)
    assert kept.get("sms-1") is None
    assert [n for n, _ in kept.newest(after=4)] == [5]


def test_the_oldest_go_when_they_are_too_large_but_one_always_stays() -> None:
    kept = Kept(most_bytes=100)
    for n in range(4):
        kept.add(arrival(n, size=40))
    assert ids(kept) == ["sms-3", "sms-2"]

    kept.add(arrival(9, size=1000))
    assert ids(kept) == ["sms-9"]


def test_one_that_is_there_is_not_added_again_and_every_change_is_told() -> None:
    kept, told = Kept(), []
    kept.watch = lambda: told.append(len(kept))

    kept.add(arrival(1))
    kept.add(arrival(1))
    kept.clear()

    assert told == [1, 0]
    assert kept.last == 1  # numbers go on, so that nobody takes a new message for an old one


def test_no_repr_shows_what_is_private() -> None:
    shown = repr(arrival(1))

    assert "+447700900101" not in shown
    assert "xxx" not in shown
