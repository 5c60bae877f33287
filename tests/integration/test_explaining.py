"""Why someone did, or did not, get something, and what would become of a call: on a real database, in sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import notify_tasks
from channels.contract import Accepted, AddressInvalid, Throttled
from notify_tasks import LocalTime, api_connections, people, preferences, suppressions
from notify_tasks.errors import InvalidCall, NotHere
from notify_tasks.producer import send_notification
from notify_tasks.simulating import Simulation
from notify_tasks.states import State
from notify_tasks.store import cancelling, digests, intakes, reading, replaying, sweeps
from notify_tasks.store.database import DatabaseAway
from notify_tasks.store.rescheduling import reschedule
from tests.integration.core_shop import Shop, shop, write_type
from tests.integration.core_world import World, call, world

PHONE = "+4915112345678"
OTHER = "+4915198765432"
CANARY = "canary-4711"
_CONFIGURATION = """
[providers.a]
use = "sms.sandbox"
[channels.sms]
pool = ["a"]
"""


@pytest.fixture
def it(database: str, tmp_path: Path) -> Iterator[World]:
    (tmp_path / "notify.toml").write_text(_CONFIGURATION)
    (tmp_path / "types").mkdir()
    notify_tasks.configure(
        database_url=database, templates=str(tmp_path / "types"), config_file=str(tmp_path / "notify.toml")
    )
    with world(database) as opened:
        yield opened
    api_connections.close()
    notify_tasks.settings.reset()


@pytest.fixture
def fleet(it: World, tmp_path: Path) -> Iterator[Shop]:
    """A worker's parts, and two people."""
    with shop(tmp_path, it.db) as opened:
        people.upsert("ann", sms=PHONE, timezone="Europe/Berlin")
        people.upsert("bob", sms=OTHER)
        yield opened


def to_ann(message_id: str = "m-1", **options: Any) -> Any:
    return call(message_id, **({"to": "ann", "payload": {"n": 1}} | options))


def told(message_id: str = "m-1") -> str:
    """The text, which shows no address and nothing of a payload."""
    found = notify_tasks.explain(message_id)
    assert found is not None
    shown = found.text + json.dumps(found.as_json())
    for private in (PHONE, OTHER, "ann@example.com", CANARY):
        assert private not in shown
    return found.text


def now_it_is(text: str) -> str:
    return text.rpartition("Now ")[2]


# --- one call -------------------------------------------------------------------------------------------


def test_what_was_sent_tells_of_its_attempt(fleet: Shop) -> None:
    fleet.scripts["a"].will(Accepted("p-1", "202"))
    fleet.send(to_ann(source="shop", payload={"n": 1, "secret": CANARY}))

    text = told()

    assert text.startswith("m-1 (test.ping)\n  It was called for at ")
    assert "by shop, and accepted at" in text
    assert "- sms to ann (+49…78)" in text
    assert "It was planned to be sent at once." in text
    assert "Attempt 1 via a ended at" in text
    assert "the provider took it (202)." in text
    assert now_it_is(text) == "it is sent: the provider has it, and has reported no arrival."


def test_retries_and_refusals_tell_what_the_provider_said_without_its_addresses(
    fleet: Shop, it: World
) -> None:
    fleet.scripts["a"].will(
        Throttled("429", "slow down", retry_after=60.0),
        AddressInvalid("5.1.1", f"no such user ann@example.com at {PHONE}"),
    )
    fleet.send(to_ann())
    id_ = it.rows("SELECT id FROM notify.delivery")[0]["id"]
    assert "Now it waits to be tried again until" in told()
    assert "because the provider asked to slow down" in now_it_is(told())
    it.shift(id_, due_at=-1, not_before=-1)
    sweeps.take_due(it.db, limit=1)
    fleet.deliver(id_)

    text = told()

    assert "the provider asked to slow down (429, slow down)." in text
    assert (
        "the provider says that the address is dead (5.1.1, no such user an…@example.com at +49…78)." in text
    )
    assert "The address is suppressed since" in text
    assert "by provider: the provider reported that the address is dead." in text
    assert now_it_is(text) == "it is failed, with the code 5.1.1, and nothing more is sent."


@pytest.mark.parametrize("by", ["ann", "bob@example.com"])
def test_a_preference_tells_which_version_set_by_whom_and_when(fleet: Shop, by: str) -> None:
    # Given somebody who switched the category off in their second version, and something else in the third,
    preferences.update("ann", categories={"test": {"email": "off"}}, changed_by="somebody")
    preferences.update("ann", categories={"test": {"sms": "off"}}, changed_by=by)
    preferences.update("ann", categories={"other": {"sms": "off"}}, changed_by="somebody else")
    fleet.take(to_ann())

    text = told()

    who = "bo…@example.com" if "@" in by else by
    assert (
        "It was planned not to be sent, because the recipient does not want this category on this channel."
        in text
    )
    assert f"The category test is switched off for them on sms, as set by {who} at " in text
    assert "(version 2 of their preferences)." in text


def test_quiet_hours_tell_when_and_whose(fleet: Shop, it: World) -> None:
    local = datetime.now(ZoneInfo("Europe/Berlin"))
    begin, end = (f"{local + timedelta(minutes=minutes):%H:%M}" for minutes in (-60, 30))
    preferences.update("ann", quiet_hours={"from": begin, "to": end}, changed_by="ann")
    fleet.take(to_ann())

    text = told()

    assert "because the recipient does not want to be disturbed at this time" in text
    assert f"The recipient's quiet hours are {begin} to {end} (Europe/Berlin), as set by ann at " in text
    assert "(version 1 of their preferences)" in text
    assert now_it_is(text).startswith("it is held until ")
    assert it.rows("SELECT state FROM notify.delivery") == [{"state": "held"}]


def test_a_suppression_tells_which_since_when_and_by_what(fleet: Shop) -> None:
    suppressions.suppress("sms", PHONE, reason="opted_out", source="receipts:twilio-main")
    fleet.take(to_ann())

    text = told()

    assert "because the address is suppressed: nothing is sent to it" in text
    assert "The address is suppressed since 20" in text
    assert "by receipts:twilio-main: the person said stop." in text


def test_a_rejected_call_says_why_and_a_shared_one_whom_it_leaves_out(fleet: Shop) -> None:
    fleet.take(to_ann("bad", payload={"n": CANARY}))
    fleet.take(
        to_ann("half", to=["ann", "nobody", {"id": "eve", "timezone": "Mars/Base", "sms": "+1999999999"}])
    )

    bad, half = told("bad"), told("half")

    assert "and rejected at" in bad
    assert "because the payload does not fit the type (" in bad
    assert "Nothing goes to nobody, because no recipient has this id" in half
    assert "Nothing goes to eve, because the address is not valid" in half
    assert "- sms to ann" in half


def test_cancelled_rescheduled_and_replayed_are_told_in_their_order(fleet: Shop, it: World) -> None:
    fleet.take(to_ann(at=timedelta(hours=1)))
    reschedule(it.db, "m-1", datetime.now(UTC) + timedelta(hours=3))
    cancelling.cancel(it.db, "default", "m-1")
    replaying.replay(it.db, "m-1")

    text = told()

    order = [
        "planned to be held until",
        "given another time at",
        "It was cancelled at",
        "An operator had it sent again",
        "It is a replay of one",
        "Now it waits for a worker",
    ]
    assert [text.index(each) for each in order] == sorted(text.index(each) for each in order)


def test_a_lost_worker_and_a_doubt_are_told(fleet: Shop, it: World) -> None:
    id_ = it.claimed(it.accept(call("m-1"))).id
    it.end_lease(id_)
    cancelling.cancel(it.db, "default", "m-1")

    text = told()

    assert "the worker ended before the answer was written, so the outcome is unknown" in text
    assert "It came into doubt: nobody knows whether it arrived" in text
    assert now_it_is(text).startswith("it is in doubt: a late report settles it")


def test_what_no_worker_has_planned_is_told_and_what_is_not_known_is_none(it: World) -> None:
    intakes.keep(it.db, [call("m-1").to_wire()], origin="unknown_type", wait=60)
    cancelling.cancel(it.db, "default", "m-2")

    assert "not planned yet (there is no type of its name yet)" in told("m-1")
    assert "cancelled at" in told("m-2")
    assert notify_tasks.explain("m-3") is None
    assert notify_tasks.explain("m-1", tenant="other") is None


# --- one person -----------------------------------------------------------------------------------------


def test_a_person_is_told_of_every_call_that_named_them(fleet: Shop, it: World) -> None:
    # Given calls to ann: one that goes, a rejected one, one that leaves her out, one in the intake table, an old one,
    # one of another type, and one to bob,
    fleet.send(to_ann("sent"))
    fleet.take(to_ann("rejected", payload={"n": "x"}))
    fleet.take(to_ann("left-out", to=["bob", {"id": "ann", "sms": "+1999999999"}]))
    intakes.keep(it.db, [to_ann("kept").to_wire()], origin="producer")
    fleet.take(to_ann("old"))
    it.rows("UPDATE notify.delivery SET created_at = now() - interval '3 days' WHERE message_id = 'old'")
    write_type(fleet.types, "test.pong")
    fleet.take(to_ann("pong", event_type="test.pong"))
    fleet.take(to_ann("bobs", to="bob"))

    found = notify_tasks.explain_recipient("ann")

    # then each of hers is there, newest first, and nothing of bob's.
    assert {each.message_id for each in found} == {"sent", "rejected", "left-out", "kept", "pong"}
    assert {each.message_id for each in notify_tasks.explain_recipient("ann", event_type="test.pong")} == {
        "pong"
    }
    assert "old" in {
        each.message_id for each in notify_tasks.explain_recipient("ann", since=timedelta(days=9))
    }
    assert len(notify_tasks.explain_recipient("ann", limit=2)) == 2
    assert notify_tasks.explain_recipient("ann", tenant="other") == ()
    (left_out,) = (each for each in found if each.message_id == "left-out")
    assert "Nothing goes to ann, because the address is not valid" in left_out.text
    assert "bob" not in left_out.text


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"since": timedelta(0)}, "since"),
        ({"since": "2d"}, "since"),
        ({"tenant": "*"}, "tenant"),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidCall, match=f"^{field}: "):
        notify_tasks.explain_recipient("ann", **options)


# --- what would be --------------------------------------------------------------------------------------


def everything(it: World) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    names = it.rows(
        "SELECT relname FROM pg_class WHERE relnamespace = 'notify'::regnamespace AND relkind = 'r'"
    )
    return {
        row["relname"]: it.rows(f"SELECT t::text AS t FROM notify.{row['relname']} t ORDER BY 1")
        for row in names
    }


def simulate(**options: Any) -> Simulation:
    return send_notification.simulate(
        "test.ping", **({"to": "ann", "channels": ["sms"], "payload": {"n": 1}} | options)
    )


def test_a_simulation_shows_the_plan_of_an_instant_and_changes_nothing(fleet: Shop, it: World) -> None:
    preferences.update("ann", quiet_hours={"from": "22:00", "to": "07:00"}, changed_by="ann")
    before = everything(it)

    day = simulate(now=datetime(2030, 5, 1, 10, tzinfo=UTC))
    night = simulate(now=datetime(2030, 5, 1, 23, tzinfo=UTC), expires=timedelta(hours=12))
    nobody = simulate(to=["nobody", {"id": "new", "sms": OTHER}])
    bad = simulate(payload={"n": "x"})
    local = simulate(at=LocalTime(2030, 5, 2, 8), now=datetime(2030, 5, 1, 10, tzinfo=UTC))

    assert [(it.state, it.reasons, it.due_at) for it in day.decisions] == [("queued", (), None)]
    assert day.decisions[0].address == "+49…78"
    (held,) = night.decisions
    assert (held.state, held.reasons) == ("held", ("quiet_hours",))
    assert held.due_at == datetime(2030, 5, 2, 5, tzinfo=UTC)
    assert (
        "It would be held until 2030-05-02 05:00:00 UTC, because the recipient does not want to be"
        in night.text
    )
    assert [(it.recipient_id, it.reason) for it in nobody.without] == [("nobody", "unknown_recipient")]
    assert (bad.state, bad.reason) == ("rejected", "payload_invalid")
    assert "It would be rejected, because the payload does not fit the type" in bad.text
    assert local.decisions[0].due_at == datetime(2030, 5, 2, 6, tzinfo=UTC)
    assert (
        "because the call's time is read on the recipient's own clock, and the call asked for this time"
        in local.text
    )
    assert everything(it) == before
    assert fleet.scripts["a"].sent == []
    for each in (day, night, nobody):
        assert PHONE not in each.text + json.dumps(each.as_json()) + repr(each)


def test_what_was_simulated_is_what_becomes_of_the_call(fleet: Shop, it: World) -> None:
    foreseen = simulate().decisions[0]
    fleet.take(to_ann())
    (row,) = it.rows("SELECT state, reason, due_at, lane, locale, timezone FROM notify.delivery")
    assert row["state"] in (State.SENDING, State.QUEUED)
    assert (foreseen.lane, foreseen.locale, foreseen.timezone) == (
        row["lane"],
        row["locale"],
        row["timezone"],
    )


def test_an_unknown_type_would_be_rejected(fleet: Shop) -> None:
    made = send_notification.simulate("test.pong", to="ann")
    assert (made.state, made.reason) == ("rejected", "unknown_event_type")
    assert fleet.wakes == []


def test_the_database_itself_refuses_a_change(it: World) -> None:
    only = reading.ReadOnly(it.db)
    with pytest.raises(DatabaseAway, match="25006"):
        only.rows("INSERT INTO notify.counter (name) VALUES ('x')")
    assert only.rows("SELECT 1 AS one") == [{"one": 1}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"now": datetime(2030, 5, 1)}, "^now: .*zone"),  # noqa: DTZ001 - that is the mistake
        ({"to": None}, "^to: "),
        ({"nonsense": 1}, "^nonsense: "),
    ],
)
def test_a_simulation_checks_the_call(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidCall, match=said):
        simulate(**options)


def test_without_the_workers_half_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib  # noqa: PLC0415 - only here

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name, name="jinja2")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(NotHere, match=r"jinja2.*notify-tasks\[worker\]"):
        simulate()


# --- digests, throttles, steps --------------------------------------------------------------------------

_NEW = """
category = "posts"
channels = ["sms"]
expires = "1d"
[digest]
type = "post.digest"
every = "1h"
[payload]
type = "object"
"""
_LIMITED = """
category = "posts"
channels = ["sms"]
[throttle]
limit = "1/d"
over = "drop"
[payload]
type = "object"
"""
_STEPS = """
category = "test"
expires = "1d"
[payload]
type = "object"
[[steps]]
channels = ["push"]
[[steps]]
channel = "sms"
after = "10m"
unless = ["read"]
"""


def a_type(fleet: Shop, name: str, policy: str) -> None:
    folder = fleet.types / name
    folder.mkdir()
    (folder / "notification.toml").write_text(policy)
    (folder / "example.json").write_text("{}")
    (folder / "sms.txt").write_text("Hello")
    (folder / "push.json").write_text('{"title": "Hello"}')


def test_what_is_gathered_tells_of_its_digest_and_the_digest_of_what_is_in_it(fleet: Shop, it: World) -> None:
    for name in ("post.new", "post.digest"):
        a_type(fleet, name, _NEW if name == "post.new" else _LIMITED.replace('"1/d"', '"9/d"'))
    fleet.take(to_ann("m-1", event_type="post.new"), "notify.intake")
    fleet.take(to_ann("m-2", event_type="post.new"), "notify.intake")
    waiting = told("m-1")
    foreseen = send_notification.simulate("post.new", to="ann", channels=["sms"])

    assert "It was planned to be held until" in waiting
    assert "because it is gathered, and goes out with a digest" in waiting
    assert "It is gathered into a digest of the type post.digest (every 1h, due at " in waiting
    assert "Now it waits for its digest, with 2 in it, due at " in waiting
    assert foreseen.decisions[0].reasons == ("digest",)
    assert "into a digest of the type post.digest" in foreseen.text

    digests.flush(it.db, limit=10, now=datetime(2100, 1, 1, tzinfo=UTC))
    fleet.intake.drain()

    done = told("m-1")
    digest_id = done.partition("It went out in a digest at ")[2].partition(": ")[2].partition(".")[0]
    assert digest_id.startswith("digest-")
    assert "Now it is part of that digest" in done
    assert "It is a digest of m-2, m-1." in told(digest_id)


def test_what_is_too_many_tells_of_the_limit_and_so_does_a_simulation(fleet: Shop, it: World) -> None:
    a_type(fleet, "post.few", _LIMITED)
    before = send_notification.simulate("post.few", to="ann", channels=["sms"])
    fleet.take(to_ann("m-1", event_type="post.few"))
    stored = everything(it)
    after = send_notification.simulate("post.few", to="ann", channels=["sms"])
    assert everything(it) == stored
    fleet.take(to_ann("m-2", event_type="post.few"))

    assert (before.decisions[0].state, after.decisions[0].state) == ("queued", "suppressed")
    assert "it is number 1" in before.text
    assert (
        "It would not be sent, because the recipient has had as many of this type as it allows" in after.text
    )
    assert "The type allows 1/d to one person: it comes after as many as that." in told("m-2")
    assert now_it_is(told("m-2")).startswith("it is suppressed, because the recipient has had as many")


def test_a_later_step_tells_what_it_waits_for(fleet: Shop) -> None:
    a_type(fleet, "test.steps", _STEPS)
    people.upsert("cem", sms=PHONE, push="token-of-cem")
    fleet.take(call("m-1", event_type="test.steps", to="cem", channels=None), "notify.intake")

    text = told()

    said = "It goes 10 minutes after push was sent, or at once if that could not be sent, unless it is read."
    assert f"It is a later step: {said[0].lower()}{said[1:]}" in text
    assert "Now it is held, because it waits for what becomes of the step before it." in text
    foreseen = send_notification.simulate("test.steps", to="cem")
    assert [(it.channel, it.state, it.reasons) for it in foreseen.decisions] == [
        ("push", "queued", ()), ("sms", "held", ("step",)),
    ]  # fmt: skip
    assert "10 minutes after push was sent" in foreseen.text
