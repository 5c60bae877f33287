"""Steps: what waits has its turn in time, is sent where it is needed, and is needless where somebody has read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from channels.receipts import Event, Fate
from notify_tasks import inbox, people, preferences, settings
from notify_tasks.escalating import Escalator
from notify_tasks.event_type import EventType, Step
from notify_tasks.plans import Profile
from notify_tasks.rendering import Catalog
from notify_tasks.states import FINAL, State
from notify_tasks.store import (
    accepting,
    cancelling,
    erasing,
    receipts,
    replaying,
    rescheduling,
    steps,
    sweeps,
)
from notify_tasks.store import inbox as items
from notify_tasks.store.deliveries import Claimed
from notify_tasks.store.steps import Verdict
from notify_tasks.store.sweeps import Wake
from tests.integration import core_shop
from tests.integration.core_world import PHONE, World, call, planned, together, world

AFTER = 600.0
READ = Step(("sms",), AFTER, ("read",))
PUSHED = EventType("test.steps", "v1", ("push", "sms"), on_doubt="resend", steps=(Step(("push",)), READ))
SHOWN = replace(PUSHED, channels=("push", "inapp", "sms"), steps=(Step(("push", "inapp")), READ))
THREE = replace(
    PUSHED,
    channels=("push", "sms", "email"),
    steps=(Step(("push",)), READ, Step(("email",), 3600.0, ("delivered",))),
)
ANN = Profile("ann", {"push": ("token-1",), "sms": (PHONE,), "email": ("ann@example.com",)})
POLICY = """
[[steps]]
channels = ["push", "inapp"]
[[steps]]
channel = "sms"
after = "10m"
unless = ["read"]
"""


@dataclass(slots=True)
class Steps:
    """A world with a type that has steps, and what a sweep does with them."""

    it: World
    escalator: Escalator
    woken: list[Wake]
    later: list[float]

    def accept(
        self, event_type: EventType = PUSHED, *, person: Profile = ANN, **options: Any
    ) -> dict[str, uuid.UUID]:
        """Store a call to Ann; the ids of its deliveries by channel, `push` and `push-2` for two devices."""
        notification = call(event_type=event_type.name, to="ann", channels=None, **options)
        item = planned(notification, event_type=event_type, profiles={"ann": person})
        accepting.accept(self.it.db, [item])
        found: dict[str, uuid.UUID] = {}
        for each in item.deliveries:
            channel = each.decision.channel
            found[channel if channel not in found else f"{channel}-2"] = each.id
        self.it.ids = found
        return found

    def send(self, id_: uuid.UUID) -> Claimed:
        """A worker sends a delivery."""
        claimed = self.it.claimed(id_)
        self.it.record(claimed, "accepted", State.SENT)
        return claimed

    def fail(self, id_: uuid.UUID) -> None:
        """A worker finds that a delivery can never be sent."""
        self.it.record(self.it.claimed(id_), "refused", State.FAILED)

    def show(self, id_: uuid.UUID) -> None:
        """A worker shows an in-app message."""
        claimed = self.it.claimed(id_)
        items.put(
            self.it.db,
            delivery_id=str(id_),
            tenant="default",
            recipient_id="ann",
            event_type="test.steps",
            data={},
        )
        self.it.record(claimed, "accepted", State.SENT)

    def run(self) -> int:
        """What a sweep does."""
        return self.escalator.run()

    def turn(self, id_: uuid.UUID) -> float | None:
        """Seconds until a step has its turn."""
        at = self.it.row(id_)["step_at"]
        return None if at is None else (at - datetime.now(UTC)).total_seconds()

    def has_its_turn(self, id_: uuid.UUID) -> None:
        """As if the time had passed."""
        assert self.turn(id_) is not None
        self.it.shift(id_, step_at=-1)
        self.run()

    def end(self, id_: uuid.UUID) -> tuple[str, str | None]:
        """State and reason."""
        row = self.it.row(id_)
        return row["state"], row["reason"]

    def report(self, fate: Fate, of: uuid.UUID, channel: str = "push") -> None:
        """What a provider says later."""
        event = Event(id=str(uuid.uuid4()), code=fate, fate=fate, delivery_id=str(of))
        receipts.apply(self.it.db, receipts.keep(self.it.db, "a", channel, [event], b"{}").new)


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        yield opened


@pytest.fixture
def shop(it: World, database: str, tmp_path: Path) -> Iterator[Steps]:
    settings.configure(database_url=database)
    folder = tmp_path / "test.steps"
    folder.mkdir()
    (folder / "notification.toml").write_text('category = "alerts"\n' + POLICY)
    (folder / "sms.txt").write_text("Ping")
    (folder / "push.json").write_text('{"title": "Ping"}')
    (folder / "inapp.json").write_text('{"title": "Ping"}')
    people.upsert("ann", sms=PHONE, email="ann@example.com", timezone="Europe/Berlin")
    woken: list[Wake] = []
    later: list[float] = []
    escalator = Escalator(database=it.db, catalog=Catalog(tmp_path), wake=woken.extend, later=later.append)
    yield Steps(it, escalator, woken, later)
    inbox.close()
    people.close()
    settings.reset()


# --- its turn -----------------------------------------------------------------------------------------


def test_a_later_step_has_its_turn_so_long_after_the_first_was_sent(shop: Steps) -> None:
    # Given a push, and an SMS that waits for it,
    ids = shop.accept()
    assert shop.end(ids["push"]) == ("queued", None)
    assert shop.end(ids["sms"]) == ("held", "step")
    assert shop.run() == 0
    assert shop.turn(ids["sms"]) is None

    # when the push is sent, the SMS has its turn in ten minutes, and the alarm is told,
    shop.send(ids["push"])
    assert shop.run() == 0
    assert shop.turn(ids["sms"]) == pytest.approx(AFTER, abs=120)
    assert shop.later == [pytest.approx(AFTER, abs=120)]
    assert sweeps.take_due(shop.it.db, limit=10) == []

    # and then it is queued and woken once, whoever looks.
    shop.it.shift(ids["sms"], step_at=-1)
    assert sweeps.take_due(shop.it.db, limit=10) == []  # as a worker of an older version would do it
    assert sum(together(4, lambda _: shop.run())) == 1
    assert [wake.id for wake in shop.woken] == [ids["sms"]]
    assert shop.end(ids["sms"]) == ("queued", None)
    shop.send(ids["sms"])
    assert shop.it.rows("SELECT * FROM notify.step_moved") == []


def test_what_could_not_be_sent_is_followed_at_once(shop: Steps) -> None:
    ids = shop.accept()
    shop.fail(ids["push"])
    assert shop.run() == 1
    assert shop.end(ids["sms"]) == ("queued", None)


def test_of_several_devices_one_that_takes_it_is_enough(shop: Steps) -> None:
    two = replace(ANN, addresses={**ANN.addresses, "push": ("token-1", "token-2")})
    # Given two devices, of which one is gone,
    ids = shop.accept(person=two)
    shop.fail(ids["push"])
    shop.run()
    assert shop.turn(ids["sms"]) is None  # the other may take it yet
    # when the other takes it, the SMS waits from then on,
    shop.send(ids["push-2"])
    shop.run()
    assert shop.turn(ids["sms"]) == pytest.approx(AFTER, abs=120)
    # until it is told that nothing arrived there either: then it goes at once.
    shop.report(Fate.UNDELIVERED, ids["push-2"])
    assert shop.run() == 1

    # Given that both are gone at the same moment, the SMS goes at once as well.
    ids = shop.accept(person=two)
    claims = [shop.it.claimed(ids["push"]), shop.it.claimed(ids["push-2"])]

    def refuse(n: int) -> None:
        shop.it.record(claims[n], "refused", State.FAILED)
        shop.run()

    together(2, refuse)
    shop.run()
    assert shop.end(ids["sms"])[0] == "queued"


def test_a_doubt_counts_as_sent(shop: Steps) -> None:
    ids = shop.accept()
    shop.it.record(shop.it.claimed(ids["push"]), "uncertain", State.IN_DOUBT, unknown=True)
    shop.run()
    assert shop.turn(ids["sms"]) == pytest.approx(AFTER, abs=120)


def test_an_address_suppressed_between_plan_and_commit_is_followed_at_once(shop: Steps) -> None:
    shop.it.rows(
        "INSERT INTO notify.suppression (tenant, channel, address, reason, source)"
        " VALUES ('default', 'push', 'token-1', 'address_invalid', 'test'), ('default', 'sms', %s, 'manual', 'test')",
        PHONE,
    )
    ids = shop.accept(THREE)
    assert shop.end(ids["push"]) == ("suppressed", "address_suppressed")
    assert shop.end(ids["sms"]) == ("held", "step")  # it is asked when it has its turn
    assert shop.run() == 1
    assert shop.it.claim(ids["sms"]) is None
    assert shop.end(ids["sms"]) == ("suppressed", "address_suppressed")
    assert shop.run() == 1
    assert shop.end(ids["email"]) == ("queued", None)


def test_three_steps_go_one_after_another(shop: Steps) -> None:
    ids = shop.accept(THREE)
    shop.send(ids["push"])
    shop.run()
    assert shop.turn(ids["email"]) is None
    shop.has_its_turn(ids["sms"])
    shop.send(ids["sms"])
    shop.run()
    assert shop.turn(ids["email"]) == pytest.approx(3600, abs=120)
    # What was delivered by any of those before stops it.
    shop.report(Fate.DELIVERED, ids["sms"], channel="sms")
    shop.has_its_turn(ids["email"])
    assert shop.end(ids["email"]) == ("superseded", "delivered")


def test_a_needless_step_leaves_the_next_one_its_own_condition(shop: Steps) -> None:
    late = replace(
        THREE, steps=(Step(("push",)), Step(("sms",), AFTER, ("delivered",)), Step(("email",), 900.0))
    )
    ids = shop.accept(late)
    shop.send(ids["push"])
    shop.run()
    shop.report(Fate.DELIVERED, ids["push"])
    shop.has_its_turn(ids["sms"])
    assert shop.end(ids["sms"]) == ("superseded", "delivered")
    assert shop.turn(ids["email"]) == pytest.approx(900, abs=120)
    shop.has_its_turn(ids["email"])
    assert shop.end(ids["email"]) == ("queued", None)


# --- needless -----------------------------------------------------------------------------------------


def test_what_was_read_in_the_inbox_stops_it(shop: Steps) -> None:
    ids = shop.accept(SHOWN)
    shop.send(ids["push"])
    shop.show(ids["inapp"])
    shop.run()
    inbox.mark_read("ann", None)
    assert shop.end(ids["sms"]) == ("held", "step")  # the condition is asked when it has its turn
    shop.has_its_turn(ids["sms"])
    assert shop.end(ids["sms"]) == ("superseded", "read")
    assert shop.it.events(ids["sms"]) == ["superseded"]
    assert shop.woken == []
    assert replaying.replay(shop.it.db, shop.it.row(ids["sms"])["message_id"]).wakes == []


def test_what_a_receipt_says_stops_what_it_may_stop(shop: Steps) -> None:
    # Given two calls, of which one is delivered and the other opened,
    delivered = shop.accept()
    opened = shop.accept()
    for ids, fate in ((delivered, Fate.DELIVERED), (opened, Fate.READ)):
        shop.send(ids["push"])
        shop.run()
        shop.report(fate, ids["push"])
        shop.has_its_turn(ids["sms"])
    # an SMS that goes unless it was read goes after the first, and not after the second.
    assert shop.end(delivered["sms"]) == ("queued", None)
    assert shop.end(opened["sms"]) == ("superseded", "read")


def test_what_an_app_says_was_opened_stops_it(shop: Steps) -> None:
    ids = shop.accept()
    assert inbox.mark_opened("ann", [str(ids["push"])]) == 0  # nobody has sent it
    shop.send(ids["push"])
    shop.run()
    assert inbox.mark_opened("bob", [str(ids["push"])]) == 0
    assert shop.it.events(ids["push"]) == ["sent"]
    assert sum(together(4, lambda _: inbox.mark_opened("ann", [str(ids["push"])]))) == 1
    assert shop.it.events(ids["push"]) == ["sent", "delivered", "read"]
    shop.has_its_turn(ids["sms"])
    assert shop.end(ids["sms"]) == ("superseded", "read")

    # Opened while its worker still waits for an answer, it is sent whatever becomes of that.
    ids = shop.accept()
    claimed = shop.it.claimed(ids["push"])
    assert inbox.mark_opened("ann", [str(ids["push"])]) == 1
    shop.it.record(claimed, "uncertain", State.IN_DOUBT, unknown=True)
    assert shop.end(ids["push"])[0] == "sent"
    shop.run()
    shop.has_its_turn(ids["sms"])
    assert shop.end(ids["sms"]) == ("superseded", "read")


def test_what_was_read_of_a_replay_stops_it_as_well(shop: Steps) -> None:
    ids = shop.accept()
    shop.it.record(shop.it.claimed(ids["push"]), "uncertain", State.IN_DOUBT, unknown=True)
    shop.run()
    (again,) = replaying.replay(shop.it.db, shop.it.row(ids["push"])["message_id"]).wakes
    shop.send(again.id)
    shop.run()
    assert shop.turn(ids["sms"]) == pytest.approx(AFTER, abs=120)  # a doubt counts as sent
    inbox.mark_opened("ann", [str(again.id)])
    shop.has_its_turn(ids["sms"])
    assert shop.end(ids["sms"]) == ("superseded", "read")


def test_what_is_read_while_it_waits_for_a_worker_stops_it_as_well(shop: Steps) -> None:
    ids = shop.accept(SHOWN)
    shop.send(ids["push"])
    shop.show(ids["inapp"])
    shop.run()
    shop.has_its_turn(ids["sms"])
    inbox.mark_read("ann", None)
    assert shop.it.claim(ids["sms"]) is None
    assert shop.end(ids["sms"]) == ("superseded", "read")


def test_it_is_sent_or_needless_and_never_both(shop: Steps) -> None:
    # Given many messages that are read, judged and claimed at the same time,
    all_ids = []
    for n in range(24):
        ids = shop.accept(SHOWN, message_id=f"m-{n}")
        shop.send(ids["push"])
        shop.show(ids["inapp"])
        all_ids.append(ids)
    shop.run()
    shop.it.rows("UPDATE notify.delivery SET step_at = now() WHERE step_at IS NOT NULL")

    def work(n: int) -> list[uuid.UUID]:
        if n == 0:
            for ids in all_ids:
                inbox.mark_read("ann", [str(ids["inapp"])])
            return []
        if n == 1:
            shop.run()
            return []
        return [ids["sms"] for _ in range(3) for ids in reversed(all_ids) if shop.it.claim(ids["sms"])]

    claimed = [id_ for found in together(4, work) for id_ in found]
    shop.run()

    for ids in all_ids:
        state, _ = shop.end(ids["sms"])
        if state == "queued":  # nobody claimed it before it was read
            assert shop.it.claim(ids["sms"]) is None
            state, _ = shop.end(ids["sms"])
        assert state == ("sending" if ids["sms"] in claimed else "superseded")
        assert len(shop.it.attempts(ids["sms"])) == claimed.count(ids["sms"])


# --- stopped ------------------------------------------------------------------------------------------


def test_a_cancel_takes_what_waits_with_it(shop: Steps) -> None:
    for sent in (False, True):
        ids = shop.accept()
        if sent:
            shop.send(ids["push"])
            shop.run()
        done = cancelling.cancel(shop.it.db, "default", shop.it.row(ids["sms"])["message_id"])
        assert (done.cancelled, done.complete) == (1 if sent else 2, not sent)
        assert shop.end(ids["sms"]) == ("cancelled", "cancelled")
        shop.it.shift(ids["sms"], step_at=-1)
        assert shop.run() == 0
        assert shop.end(ids["sms"]) == ("cancelled", "cancelled")


def test_who_is_erased_gets_no_later_step(shop: Steps) -> None:
    ids = shop.accept()
    claimed = shop.it.claimed(ids["push"])
    erasing.erase(shop.it.db, "ann")
    shop.it.record(claimed, "accepted", State.SENT)  # a worker had it
    assert shop.run() == 0
    assert shop.end(ids["sms"]) == ("cancelled", "recipient_erased")
    assert shop.it.row(ids["sms"])["address"] == ""


def test_a_later_step_is_worthless_so_much_later_as_it_waits(shop: Steps) -> None:
    # Given a type that says how long a message is worth something, its SMS has ten minutes more than its push,
    ids = shop.accept()
    assert shop.it.row(ids["sms"])["expires_at"] is None
    shop.send(ids["push"])
    shop.run()
    lead = shop.it.row(ids["push"])["expires_at"]
    assert shop.it.row(ids["sms"])["expires_at"] == lead + timedelta(seconds=AFTER)
    # and a push that went at the last moment is still followed by it.
    shop.it.shift(ids["sms"], expires_at=20)
    shop.has_its_turn(ids["sms"])
    assert shop.end(ids["sms"]) == ("queued", None)

    # A push that nobody could send in time is followed at once,
    ids = shop.accept()
    shop.it.shift(ids["push"], expires_at=-1)
    assert sweeps.expire(shop.it.db, limit=10) == 1
    assert shop.run() == 1

    # but nothing is sent after the time at which the call itself says that it is worthless.
    end = datetime.now(UTC) + timedelta(hours=1)
    ids = shop.accept(expires=end)
    shop.send(shop.accept(expires=end)["push"])
    shop.run()
    assert {shop.it.row(id_)["expires_at"] for id_ in (*ids.values(), *shop.it.ids.values())} == {end}
    for channel in ("push", "sms"):
        shop.it.shift(ids[channel], expires_at=-1)
    assert sweeps.expire(shop.it.db, limit=10) == 2
    assert shop.run() == 0
    assert shop.end(ids["sms"]) == ("expired", "expired")


def test_a_call_that_is_moved_takes_its_later_steps_along(shop: Steps) -> None:
    soon, later = (datetime.now(UTC) + timedelta(hours=hours) for hours in (1, 24 * 30))
    ids = shop.accept(at=soon)
    moved = rescheduling.reschedule(shop.it.db, shop.it.row(ids["sms"])["message_id"], later)
    assert (moved.complete, moved.moved) == (True, 2)
    assert shop.it.row(ids["push"])["due_at"] == later
    assert shop.end(ids["sms"]) == ("held", "step")
    assert shop.it.row(ids["sms"])["expires_at"] is None  # it has one when it has its turn


# --- what the person wants now ------------------------------------------------------------------------


def quiet_now() -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "from": f"{now - timedelta(hours=2):%H:%M}",
        "to": f"{now + timedelta(hours=2):%H:%M}",
        "timezone": "UTC",
    }


def test_quiet_hours_put_it_off_and_it_is_asked_again_when_they_end(shop: Steps) -> None:
    # Given two people's worth of steps, and a person who has set quiet hours since they were planned,
    night = shop.accept(SHOWN)
    other = shop.accept()
    preferences.update("ann", quiet_hours=quiet_now())
    for ids in (night, other):
        shop.send(ids["push"])
    shop.show(night["inapp"])
    shop.run()
    # when the SMS have their turn, they wait for the end of them, out of reach of everything else,
    shop.has_its_turn(night["sms"])
    shop.has_its_turn(other["sms"])
    assert shop.end(night["sms"]) == ("held", "quiet_hours")
    assert 3000 < (shop.turn(night["sms"]) or 0) <= 7200
    assert shop.it.row(night["sms"])["due_at"] is None
    # and the one that was read in the night is needless in the morning.
    inbox.mark_read("ann", None)
    preferences.update("ann", quiet_hours=None)
    shop.has_its_turn(night["sms"])
    shop.has_its_turn(other["sms"])
    assert shop.end(night["sms"]) == ("superseded", "read")
    assert shop.end(other["sms"]) == ("queued", None)


def test_of_two_that_judge_the_same_step_the_first_one_does_it(shop: Steps) -> None:
    ids = shop.accept()
    shop.send(ids["push"])
    shop.run()
    shop.it.shift(ids["sms"], step_at=-1)
    (due,) = steps.due(shop.it.db, limit=10)
    until = datetime.now(UTC) + timedelta(hours=1)
    assert steps.settle(shop.it.db, [Verdict(due.id, due.step_at, "held", "quiet_hours", until)]) == []
    assert steps.settle(shop.it.db, [Verdict(due.id, due.step_at, "queued")]) == []
    assert shop.end(ids["sms"]) == ("held", "quiet_hours")


def test_a_vacation_and_a_category_switched_off_are_asked_when_it_has_its_turn(shop: Steps) -> None:
    away = {"until": datetime.now(UTC) + timedelta(days=7), "mode": "drop"}
    dropped = shop.accept(replace(PUSHED, category="alerts"))
    shop.fail(dropped["push"])
    preferences.update("ann", vacation=away)  # type: ignore[arg-type]
    assert shop.run() == 0
    assert shop.end(dropped["sms"]) == ("suppressed", "vacation")

    preferences.update("ann", vacation=None, categories={"alerts": {"sms": "off"}})
    off = shop.accept(replace(PUSHED, category="alerts"))
    assert shop.end(off["sms"]) == ("held", "step")
    shop.fail(off["push"])
    assert shop.run() == 1
    assert shop.it.claim(off["sms"]) is None
    assert shop.end(off["sms"]) == ("suppressed", "preference_off")


# --- beside others ------------------------------------------------------------------------------------


def test_what_has_no_steps_leaves_no_note(shop: Steps) -> None:
    plain = replace(PUSHED, steps=())
    ids = shop.accept(plain)
    shop.send(ids["push"])
    shop.report(Fate.DELIVERED, ids["push"])
    shop.fail(ids["sms"])
    assert shop.it.rows("SELECT * FROM notify.step_moved") == []


def test_steps_results_receipts_cancels_and_erasing_at_once_end_and_do_not_deadlock(shop: Steps) -> None:
    # Given many messages of three steps on two devices,
    two = replace(ANN, addresses={**ANN.addresses, "push": ("token-1", "token-2")})
    many = [shop.accept(THREE, person=two, message_id=f"m-{n}") for n in range(30)]
    claims = [[shop.it.claimed(ids["push"]), shop.it.claimed(ids["push-2"])] for ids in many]

    def work(n: int) -> None:
        if n < 2:  # two workers write results, many in one statement would be the same
            for pair in claims if n else reversed(claims):
                shop.it.record(pair[n], "accepted" if n else "refused", State.SENT if n else State.FAILED)
        elif n == 2:
            events = [
                Event(id=f"e-{k}", code="x", fate=Fate.UNDELIVERED, delivery_id=str(ids["push-2"]))
                for k, ids in enumerate(many)
            ]
            receipts.apply(shop.it.db, receipts.keep(shop.it.db, "a", "push", events, b"{}").new)
        elif n == 3:
            for k in range(0, 30, 3):
                cancelling.cancel(shop.it.db, "default", f"m-{k}")
        elif n < 6:
            for _ in range(10):
                shop.run()
        else:
            erasing.erase(shop.it.db, "ann")

    # when everything happens to them at the same time,
    together(7, work)
    for _ in range(3):
        shop.run()
    sweeps.end_leases(shop.it.db, knowable=(), limit=100)

    # then PostgreSQL had to end nothing, and nothing waits for what will never come.
    found = shop.it.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert found == [{"deadlocks": 0}]
    left = shop.it.rows(
        "SELECT d.state FROM notify.delivery d WHERE d.state = 'held' AND d.step_at IS NULL AND d.due_at IS NULL"
        " AND EXISTS (SELECT 1 FROM notify.delivery b WHERE b.notification_id = d.notification_id"
        " AND b.step = d.step - 1 GROUP BY b.step HAVING bool_and(b.state = ANY(%s)))",
        [str(state) for state in FINAL],
    )
    assert left == []


def test_a_worker_that_sends_a_first_step_tells_the_alarm(it: World, tmp_path: Path) -> None:
    # Given a worker's parts, and a type with steps,
    with core_shop.shop(tmp_path, it.db, channel="push") as desk:
        later: list[float] = []
        desk.gates.later = later.append
        folder = core_shop.write_type(desk.types, "test.steps")
        (folder / "notification.toml").write_text(POLICY.replace(', "inapp"', ""))
        person = {"push": "token-1", "sms": PHONE}
        desk.take(call("m-1", event_type="test.steps", to=person, channels=None), "notify.intake")
        desk.take(call("m-2", to={"push": "token-1"}, channels=["push"]), "notify.intake")
        # when it sends what nothing waits for, it tells nobody, and else that there is something to do now.
        assert [wake.channel for wake in desk.wakes] == ["push", "push"]
        desk.deliver(desk.wakes[1].id)
        assert later == []
        desk.deliver(desk.wakes[0].id)
        assert later == [0.0]
