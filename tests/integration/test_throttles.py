"""Throttles on a real PostgreSQL: so many in a window, counted in the commit that accepts them, and what is over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from notify_tasks.notification import Notification
from notify_tasks.store import digests, intakes, preferences, recipients
from tests.integration.core_shop import Shop, shop
from tests.integration.core_world import PHONE, World, call, together, world
from tests.integration.test_digests import DIGEST, GATHERS, POST, calls, events, flush, write

DAY = 86400.0


def throttled(limit: str, over: str, more: str = "") -> str:
    return POST.format(more=f'{more}\n[throttle]\nlimit = "{limit}"\nover = "{over}"\n')


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        recipients.upsert(opened.db, "ann", addresses={"sms": [PHONE]})
        yield opened


@pytest.fixture
def desk(it: World, tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path, it.db) as opened:
        write(opened.types, "post.digest", DIGEST)
        write(opened.types, "post.new", throttled("2/d", "drop"))
        yield opened


def made(n: int, **options: Any) -> Notification:
    return call(f"m-{n}", **{"event_type": "post.new", "to": "ann", "payload": {"n": n}, **options})


def post(desk: Shop, n: int, queue: str = "notify.intake", **options: Any) -> str:
    return desk.take(made(n, **options), queue).kind


def states(it: World) -> list[tuple[str, str | None]]:
    rows = it.rows("SELECT state, reason FROM notify.delivery ORDER BY message_id, created_at")
    return [(row["state"], row["reason"]) for row in rows]


def test_what_is_over_is_dropped_and_says_so(it: World, desk: Shop) -> None:
    for n in range(4):
        post(desk, n)
    assert states(it) == [("queued", None)] * 2 + [("suppressed", "throttled")] * 2
    assert (
        it.rows("SELECT kind, code FROM notify.status_event")
        == [{"kind": "suppressed", "code": "throttled"}] * 2
    )
    plans = it.rows("SELECT plan FROM notify.notification ORDER BY message_id")
    assert [row["plan"]["decisions"][0]["throttle"] for row in plans] == [
        {"limit": "2/d", "place": 1},
        {"limit": "2/d", "place": 2},
        {"limit": "2/d", "over": "drop"},
        {"limit": "2/d", "over": "drop"},
    ]
    # The next window counts anew.
    it.rows("UPDATE notify.throttle SET window_start = window_start - interval '1 d'")
    post(desk, 5)
    assert states(it)[-1] == ("queued", None)


def test_a_call_that_would_be_sent_with_its_acceptance_is_counted_all_the_same(it: World, desk: Shop) -> None:
    taken = [desk.take(made(n), "notify.sms") for n in range(3)]
    assert [one.claimed is not None for one in taken] == [True, True, False]
    assert states(it) == [("sending", None)] * 2 + [("suppressed", "throttled")]


def test_repetitions_are_not_counted_and_a_batch_counts_each(it: World, desk: Shop) -> None:
    assert [post(desk, 1), post(desk, 1), post(desk, 1)] == ["accepted", "repeated", "repeated"]
    intakes.keep(it.db, [made(n).to_wire() for n in (1, 2, 3)], origin="producer")
    desk.intake.drain()
    assert it.rows("SELECT used FROM notify.throttle") == [{"used": 3}]
    assert states(it) == [("queued", None), ("queued", None), ("suppressed", "throttled")]


def test_at_once_from_many_threads_no_more_pass_than_the_limit(it: World, desk: Shop) -> None:
    write(desk.types, "post.new", throttled("5/d", "drop"))
    together(16, lambda n: post(desk, n))
    assert sorted(states(it)) == [("queued", None)] * 5 + [("suppressed", "throttled")] * 11


def test_what_is_over_is_held_for_its_place_in_the_next_windows(it: World, desk: Shop) -> None:
    write(desk.types, "post.new", throttled("2/7d", "hold").replace('expires = "1d"', 'expires = "100d"'))
    week = timedelta(days=7)
    for n in range(7):
        post(desk, n)
    (row,) = it.rows("SELECT window_start FROM notify.throttle")
    dues = [row["due_at"] for row in it.rows("SELECT due_at FROM notify.delivery ORDER BY message_id")]
    weeks = [None if due is None else (due - row["window_start"]) / week for due in dues]
    assert weeks == [None, None, 1, 1, 2, 2, 3]
    assert set(states(it)) == {("queued", None), ("held", "throttled")}
    # A week later, the places that were given away are not given again.
    it.rows("UPDATE notify.throttle SET window_start = window_start - interval '7 d'")
    post(desk, 8)
    (held,) = it.rows("SELECT due_at FROM notify.delivery WHERE message_id = 'm-8'")
    (row,) = it.rows("SELECT window_start FROM notify.throttle")
    assert (held["due_at"] - row["window_start"]) / week == 2
    # After a while without any, they are forgotten.
    it.rows("UPDATE notify.throttle SET window_start = window_start - interval '70 d'")
    post(desk, 9)
    assert states(it)[-1] == ("queued", None)


def test_a_place_in_quiet_hours_waits_for_their_end(it: World, desk: Shop) -> None:
    write(desk.types, "post.new", throttled("1/d", "hold").replace('expires = "1d"', 'expires = "10d"'))
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    quiet = {"from": "00:00", "to": "03:00", "days": days, "timezone": "UTC"}
    preferences.change(it.db, "ann", lambda _: {"quiet_hours": quiet}, by="test")
    for n in range(2):
        post(desk, n)
    (row,) = it.rows("SELECT due_at, reason FROM notify.delivery WHERE message_id = 'm-1'")
    assert row == {"due_at": midnight + timedelta(hours=3), "reason": "quiet_hours"}


def test_a_flood_takes_no_places_after_its_expiry(it: World, desk: Shop) -> None:
    write(desk.types, "post.new", throttled("1/12h", "hold"))
    for n in range(12):
        post(desk, n)
    assert {("expired", "expires_in_throttle"), ("held", "throttled")} < set(states(it))
    (row,) = it.rows("SELECT used, places FROM notify.throttle")
    assert row["used"] <= row["places"] + 1
    # In a day from then, one that comes finds a place before long.
    it.rows("UPDATE notify.throttle SET window_start = window_start - interval '3 d'")
    post(desk, 99)
    assert states(it)[-1] == ("queued", None)


def test_what_is_over_is_gathered(it: World, desk: Shop) -> None:
    write(desk.types, "post.new", throttled("2/d", "digest", GATHERS))
    for n in range(5):
        post(desk, n)
    assert states(it) == [("queued", None)] * 2 + [("held", "digest")] * 3
    (row,) = it.rows("SELECT plan FROM notify.notification WHERE message_id = 'm-4'")
    assert row["plan"]["decisions"][0]["reasons"] == ["throttled", "digest"]
    flush(it)
    assert [events(one) for one in calls(it)] == [[4, 3, 2]]


def test_each_person_channel_and_value_is_counted_by_itself(it: World, desk: Shop) -> None:
    write(desk.types, "post.new", throttled("1/d", 'drop"\nby = "payload.room'))
    recipients.upsert(it.db, "ann", addresses={"push": ["t-1", "t-2"]})
    for n, room in enumerate(("a", "a", "b")):
        post(desk, n, channels=["push"], payload={"room": room})
    post(desk, 3, channels=["sms"], payload={"room": "a"})
    post(desk, 4, channels=["sms"], to={"sms": "+4915112345999"}, payload={"room": "a"})
    # Two devices of one person take one place.
    assert states(it) == [
        *[("queued", None)] * 2,
        *[("suppressed", "throttled")] * 2,
        *[("queued", None)] * 4,
    ]


def test_what_is_not_sent_anyway_takes_no_place(it: World, desk: Shop) -> None:
    preferences.change(it.db, "ann", lambda _: {"categories": {"posts": {"sms": "off"}}}, by="test")
    post(desk, 1)
    assert it.rows("SELECT * FROM notify.throttle") == []


def test_a_look_at_it_changes_nothing_and_old_windows_are_forgotten(it: World, desk: Shop) -> None:
    for n in range(3):
        post(desk, n)
    (row,) = it.rows("SELECT key FROM notify.throttle")
    use = digests.used(it.db, [row["key"], "other"])[row["key"]]
    assert (use.limit, use.seconds, use.used) == (2, DAY, 2)
    assert use.next_at > datetime.now(UTC)
    assert digests.prune(it.db) == 0
    it.rows("UPDATE notify.throttle SET ends_at = now()")
    assert digests.prune(it.db) == 1
