"""Preferences in PostgreSQL: changed with versions, read by planning, asked again by accept and claim, erased."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from notify_tasks import people, preferences, settings
from notify_tasks.errors import InvalidCall
from notify_tasks.event_type import EventType
from notify_tasks.notification import uuid7
from notify_tasks.plans import Profile
from notify_tasks.states import State
from notify_tasks.store import replaying, statuses
from notify_tasks.store.accepting import accept
from notify_tasks.store.deliveries import ClaimRequest, claim
from notify_tasks.store.known import read_context
from tests.integration.core_shop import shop
from tests.integration.core_world import PHONE, World, call, one_claim, planned, together, world

NEWS = EventType("test.ping", "v1", ("sms",), category="news", on_doubt="resend")
ANN = {"ann": Profile("ann", {"sms": (PHONE,)})}
OFF = {"news": {"sms": "off"}}


@pytest.fixture
def it(database: str) -> Iterator[World]:
    settings.configure(database_url=database)
    with world(database, connections=20) as opened:
        people.upsert("ann", sms=PHONE, timezone="Europe/Berlin")
        yield opened
    people.close()
    settings.reset()


def to_ann(message_id: str | None = None, **options: Any) -> Any:
    return call(message_id, to="ann", **options)


# --- changed ------------------------------------------------------------------------------------------


def test_choices_are_merged_one_by_one_and_every_version_is_kept(it: World) -> None:
    assert (preferences.get("ann").version, preferences.get("ann").settings) == (0, {})  # type: ignore[union-attr]

    preferences.update("ann", categories={"news": {"sms": "off", "email": "on"}}, changed_by="settings page")
    preferences.update("ann", quiet_hours={"from": "22:00", "to": "07:00", "days": ["sun", "mon"]})
    now = preferences.update("ann", categories={"news": {"sms": None}, "*": {"chat": "off"}})

    assert now.settings == {
        "categories": {"news": {"email": "on"}, "*": {"chat": "off"}},
        "quiet_hours": {"from": "22:00", "to": "07:00", "days": ["mon", "sun"]},
    }
    assert preferences.get("ann") == now
    assert [(each.version, each.changed_by) for each in preferences.history("ann")] == [
        (3, "api"),
        (2, "api"),
        (1, "settings page"),
    ]
    assert preferences.history("ann", before=3, limit=1)[0].settings["categories"]["news"] == {
        "sms": "off",
        "email": "on",
    }


def test_an_order_of_channels_is_merged_category_by_category(it: World) -> None:
    preferences.update("ann", order=["sms", "push"])
    preferences.update(
        "ann", order={"orders": ["email", "sms"]}, quiet_hours={"from": "22:00", "to": "07:00"}
    )
    now = preferences.get("ann")
    assert now is not None
    assert now.settings["order"] == {"*": ["sms", "push"], "orders": ["email", "sms"]}
    assert read_context(it.db, [to_ann()]).profiles["default", "ann"].choices.order_for("orders") == (
        "email",
        "sms",
    )
    assert preferences.update("ann", order={"orders": None, "*": None}).settings.keys() == {"quiet_hours"}
    preferences.update("ann", order=["sms", "push"])
    assert "order" not in preferences.update("ann", order=None).settings
    assert [each.version for each in preferences.history("ann")] == [5, 4, 3, 2, 1]


def test_what_changes_nothing_makes_no_version_and_a_reset_makes_one(it: World) -> None:
    preferences.update("ann", categories=OFF)
    assert preferences.update("ann", categories=OFF).version == 1
    assert preferences.update("ann", quiet_hours=None).version == 1
    assert (preferences.reset("ann").version, preferences.reset("ann").settings) == (2, {})
    assert preferences.update("ann", categories={"news": None}).version == 2


def test_a_change_of_another_version_is_refused(it: World) -> None:
    preferences.update("ann", categories=OFF, if_version=0)
    with pytest.raises(InvalidCall, match="the stored version is 1, not 0"):
        preferences.update("ann", vacation={"until": "2040-01-01T00:00+00:00"}, if_version=0)
    with pytest.raises(InvalidCall, match="the stored version is 1, not 0"):
        preferences.reset("ann", if_version=0)


def test_of_changes_at_once_none_is_lost(it: World) -> None:
    together(8, lambda n: preferences.update("ann", categories={f"c{n}": {"sms": "off"}}))
    found = preferences.get("ann")
    assert found is not None
    assert (found.version, len(found.settings["categories"])) == (8, 8)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"categories": {"news": {"fax": "off"}}}, "names a channel that does not exist"),
        ({"categories": {"news": {"sms": "never"}}}, "neither on nor off"),
        ({"categories": {"News!": {"sms": "off"}}}, "it is no category"),
        ({"categories": {f"c{n}": {"sms": "off"} for n in range(101)}}, "101 are too many"),
        ({"quiet_hours": {"from": "22", "to": "07:00"}}, "quiet_hours.from: it is no time of day"),
        ({"quiet_hours": {"from": "22:00", "to": "22:00"}}, "the same as from"),
        ({"quiet_hours": {"from": "22:00", "to": "07:00", "days": [["mon"]]}}, "they are no days"),
        ({"quiet_hours": {"from": "22:00", "to": "07:00", "timezone": "Mars/Base"}}, "no such time zone"),
        ({"quiet_hours": {"begin": "22:00"}}, "there is no such key"),
        ({"vacation": {"until": "2040-01-01T00:00"}}, "no instant with a zone"),
        ({"vacation": {"until": "1990-01-01T00:00Z"}}, "it is not after from"),
        ({"vacation": {"until": "2040-01-01T00:00Z", "mode": "later"}}, "neither hold nor drop"),
        ({"quiet": {}}, "Did you mean quiet_hours"),
        ({"order": "sms"}, "order: str is not a table"),
        ({"order": ["sms", "fax"]}, "names a channel that does not exist"),
        ({"order": {"orders": ["sms", "sms"]}}, "order.orders: it names a channel twice"),
        ({"order": {"orders": []}}, "it is no list of channels"),
        ({"order": {"Orders!": ["sms"]}}, "it is no category"),
        ({"order": {f"c{n}": ["sms"] for n in range(101)}}, "101 are too many"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_stored(it: World, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidCall, match=said):
        preferences.update("ann", **fields)
    assert preferences.history("ann") == ()


def test_nobody_has_no_preferences(it: World) -> None:
    assert preferences.get("nobody") is None
    with pytest.raises(InvalidCall, match="nobody has this id"):
        preferences.update("nobody", categories=OFF)


def test_erasing_a_person_takes_their_preferences_and_their_history(it: World) -> None:
    preferences.update("ann", categories=OFF)
    people.erase("ann")
    assert it.rows("SELECT 1 FROM notify.preference UNION ALL SELECT 2 FROM notify.preference_change") == []


# --- read with the person -----------------------------------------------------------------------------


def test_planning_reads_them_with_the_person(it: World) -> None:
    preferences.update("ann", categories=OFF, quiet_hours={"from": "22:00", "to": "07:00"})
    notification = to_ann()
    profiles, _ = read_context(it.db, [notification]).of(notification)
    assert not profiles["ann"].choices.wants("news", "sms", default=True)

    item = planned(notification, event_type=NEWS, profiles=profiles)
    assert accept(it.db, [item]).states[item.deliveries[0].id] == "suppressed"
    assert it.row(item.deliveries[0].id)["reason"] == "preference_off"


# --- asked again --------------------------------------------------------------------------------------


@pytest.mark.parametrize("unknown", [0, 1])
def test_what_is_switched_off_between_plan_and_claim_is_not_sent(it: World, unknown: int) -> None:
    id_ = it.accept(to_ann(), event_type=NEWS, profiles=ANN)
    it.rows("UPDATE notify.delivery SET unknown = %s WHERE id = %s", unknown, id_)
    preferences.update("ann", categories=OFF)

    assert it.claim(id_) is None
    assert it.state(id_) == ("in_doubt" if unknown else "suppressed")
    assert it.row(id_)["reason"] == "preference_off"
    assert it.events(id_)[-1] == it.state(id_)


def test_what_is_switched_off_before_one_hop_is_stored_does_not_start(it: World) -> None:
    item = planned(to_ann(), event_type=NEWS, profiles=ANN, claim=one_claim())
    preferences.update("ann", categories={"*": {"*": "off"}})

    stored = accept(it.db, [item])
    assert stored.states == {item.deliveries[0].id: "suppressed"}
    row = it.row(item.deliveries[0].id)
    assert (row["reason"], row["attempts"], row["lease_until"]) == ("preference_off", 0, None)
    assert it.rows("SELECT 1 FROM notify.attempt") == []


def test_an_opt_in_that_is_taken_back_is_not_sent(it: World) -> None:
    opt_in = EventType("test.ping", "v1", ("sms",), category="news", opt_in=True)
    preferences.update("ann", categories={"news": {"sms": "on"}})
    profiles, _ = read_context(it.db, [to_ann()]).of(to_ann())
    stays = it.accept(to_ann(), event_type=opt_in, profiles=profiles)
    goes = it.accept(to_ann(), event_type=opt_in, profiles=profiles)

    assert it.claim(stays) is not None
    preferences.reset("ann")
    assert it.claim(goes) is None
    assert it.row(goes)["reason"] == "preference_off"


def test_what_is_required_is_claimed_whatever_was_chosen(it: World) -> None:
    required = EventType("test.ping", "v1", ("sms",), category="security", required=True)
    preferences.update("ann", categories={"*": {"*": "off"}, "security": {"*": "off"}})
    profiles, _ = read_context(it.db, [to_ann()]).of(to_ann())
    assert it.claim(it.accept(to_ann(), event_type=required, profiles=profiles)) is not None
    item = planned(to_ann(), event_type=required, profiles=profiles, claim=one_claim())
    assert accept(it.db, [item]).states == {item.deliveries[0].id: "sending"}


def test_another_tenants_choices_are_not_asked(it: World) -> None:
    people.upsert("ann", sms=PHONE, tenant="other")
    preferences.update("ann", categories=OFF, tenant="other")
    assert it.claim(it.accept(to_ann(), event_type=NEWS, profiles=ANN)) is not None


def test_a_replay_asks_again(it: World) -> None:
    id_ = it.accept(to_ann("m-1"), event_type=NEWS, profiles=ANN)
    preferences.update("ann", categories=OFF)
    assert it.claim(id_) is None
    (wake,) = replaying.replay(it.db, "m-1").wakes
    assert it.claim(wake.id) is None
    assert it.row(wake.id)["reason"] == "preference_off"


def test_a_call_takes_its_way_with_them_in_it(it: World, tmp_path: Path) -> None:
    preferences.update("ann", categories={"test": {"sms": "off"}})
    with shop(tmp_path, it.db) as desk:
        taken = desk.take(to_ann("m-1"))  # in one hop, as a message on the channel's own queue
        assert (taken.kind, taken.claimed) == ("accepted", None)
        assert desk.wakes == []

        preferences.update("ann", categories={"test": {"sms": "on"}})
        assert desk.send(to_ann("m-2")).state == State.SENT

        later = desk.take(to_ann("m-3"), "notify.intake")
        assert (later.kind, len(desk.wakes)) == ("accepted", 1)
        preferences.update("ann", categories={"test": {"sms": "off"}})
        assert desk.deliver(desk.wakes[0].id) is None or it.state(desk.wakes[0].id) == "suppressed"
        assert len(desk.scripts["a"].sent) == 1
    (status,) = statuses.read(it.db, "m-1").notifications
    assert [(each.state, each.reason) for each in status.deliveries] == [("suppressed", "preference_off")]


def test_what_quiet_hours_hold_is_due_at_their_end(it: World) -> None:
    local = datetime.now(UTC)
    begin, end = (f"{local + timedelta(hours=shift):%H:%M}" for shift in (-1, 1))
    preferences.update("ann", quiet_hours={"from": begin, "to": end, "timezone": "UTC"})
    profiles, _ = read_context(it.db, [to_ann()]).of(to_ann())
    row = it.row(it.accept(to_ann(), event_type=NEWS, profiles=profiles))
    assert (row["state"], row["reason"], f"{row['due_at'].astimezone(UTC):%H:%M:%S}") == (
        State.HELD,
        "quiet_hours",
        f"{end}:00",
    )


def test_nothing_is_claimed_after_an_opt_out_has_returned(it: World) -> None:
    """200 rounds: workers claim while the person says no. Whatever starts after the answer is one too many."""
    rounds = 200
    items = [planned(to_ann(), event_type=NEWS, profiles=ANN) for _ in range(rounds * 4)]
    accept(it.db, items)
    ids = [item.deliveries[0].id for item in items]
    ended = 0
    with ThreadPoolExecutor(5) as pool:
        for n in range(rounds):
            batch = ids[n * 4 : n * 4 + 4]
            claims = [
                pool.submit(claim, it.db, [ClaimRequest(id_, uuid7(), "a", 40.0, "w")]) for id_ in batch[:3]
            ]
            preferences.update("ann", categories=OFF)
            since = it.rows("SELECT clock_timestamp() AS now")[0]["now"]
            claims.append(pool.submit(claim, it.db, [ClaimRequest(batch[3], uuid7(), "a", 40.0, "w")]))
            found = [each.result() for each in claims]
            assert found[3] == []
            started = it.rows(
                "SELECT started_at FROM notify.attempt WHERE delivery_id = ANY(%s) AND started_at > %s",
                batch,
                since,
            )
            assert started == []
            ended += sum(not each for each in found)
            preferences.reset("ann")
    assert ended >= rounds
