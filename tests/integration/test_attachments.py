"""Attachments on real databases: kept once, sent again where the message is, and no burden to anybody else."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from channels.contract import Attachment, EmailContent, Message, TryLater
from notify_tasks import configure, send_notification, settings
from notify_tasks.gates import Subject
from notify_tasks.notification import Notification
from notify_tasks.outcomes import Outcome
from notify_tasks.states import State
from notify_tasks.store import accepting, attachments, intakes, statuses
from notify_tasks.store.database import Database
from notify_tasks.store.known import read_context
from notify_tasks.store.replaying import replay
from notify_tasks.stored_files import StoredFiles
from tests.integration.core_shop import Shop, one_row, shop
from tests.integration.core_world import PHONE, World, call, planned, proxied, world

PDF = bytes(range(256)) * 20
EMAIL = "ann.secret@example.com"
INVOICE = {"name": "invoice-981.pdf", "content": PDF}
TERMS = {"name": "terms.pdf", "file": "terms/2026.pdf"}

_POLICY = """
category = "test"
channels = ["email", "sms"]
[payload]
type = "object"
"""
_LIST = "{% for file in attachments %}[{{ file.name }} {{ file.size or '?' }}]{% endfor %}"


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shared folder of stored files."""
    stored = tmp_path / "stored"
    (stored / "terms").mkdir(parents=True)
    (stored / "terms" / "2026.pdf").write_bytes(b"%PDF terms")
    return stored


@pytest.fixture
def types(tmp_path: Path) -> Path:
    """A type whose mail and whose SMS tell of the attachments."""
    letter = tmp_path / "types" / "test.letter"
    letter.mkdir(parents=True)
    (letter / "notification.toml").write_text(_POLICY)
    (letter / "example.json").write_text("{}")
    (letter / "email.subject.txt").write_text("Your invoice")
    (letter / "email.txt").write_text(f"Enclosed: {_LIST}")
    (letter / "sms.txt").write_text(f"Look into your mail: {_LIST}")
    return tmp_path


@pytest.fixture
def desk(it: World, types: Path, folder: Path) -> Iterator[Shop]:
    with shop(types, it.db, channel="email") as opened:
        opened.deliverer._files = StoredFiles(str(folder))
        yield opened


def letter(message_id: str | None = "m-1", *attached: Any, **options: Any) -> Notification:
    given: dict[str, Any] = {
        "event_type": "test.letter",
        "to": {"email": EMAIL},
        "channels": ["email"],
        "payload": {},
        "attachments": list(attached or (INVOICE, TERMS)),
    }
    return call(message_id, **(given | options))


def content(message: Message) -> EmailContent:
    assert isinstance(message.content, EmailContent)
    return message.content


def sent(desk: Shop) -> list[tuple[Attachment, ...]]:
    return [content(message).attachments for message in desk.scripts["a"].sent]


WHOLE = (
    Attachment("invoice-981.pdf", "application/pdf", PDF),
    Attachment("terms.pdf", "application/pdf", b"%PDF terms"),
)


def stored(it: World) -> list[tuple[int, bytes]]:
    rows = it.rows("SELECT position, content FROM notify.attachment ORDER BY notification_id, position")
    return [(row["position"], row["content"]) for row in rows]


def outcome_of(desk: Shop, id_: uuid.UUID) -> Outcome:
    outcome = desk.deliver(id_)
    assert outcome is not None
    return outcome


# --- sent -----------------------------------------------------------------------------------------------


def test_one_hop_sends_them_without_reading_them_back(
    it: World, desk: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachments, "read", lambda *_: pytest.fail("read what it had in its hands"))

    assert desk.send(letter()).state is State.SENT

    assert sent(desk) == [WHOLE]
    assert stored(it) == [(0, PDF)]


def test_by_way_of_intake_they_are_read_where_they_are_sent(it: World, desk: Shop) -> None:
    desk.take(letter(), "notify.intake")

    assert outcome_of(desk, one_row(it)["id"]).state is State.SENT

    assert sent(desk) == [WHOLE]
    text = content(desk.scripts["a"].sent[0]).text
    assert text == f"Enclosed: [invoice-981.pdf {len(PDF)}][terms.pdf 10]\n"


def test_they_are_kept_once_however_many_get_them(it: World, desk: Shop) -> None:
    desk.take(letter(to=[{"email": f"{n}@example.com"} for n in range(5)]), "notify.intake")
    ids = [row["id"] for row in it.rows("SELECT id FROM notify.delivery")]

    assert [outcome_of(desk, id_).state for id_ in ids] == [State.SENT] * 5

    assert sent(desk) == [WHOLE] * 5
    assert stored(it) == [(0, PDF)]


def test_a_retry_and_a_claim_run_again_have_them_too(it: World, desk: Shop, database: str) -> None:
    # Given a first attempt that failed for now,
    desk.scripts["a"].will(TryLater("451"))
    desk.take(letter(), "notify.intake")
    id_ = one_row(it)["id"]
    outcome_of(desk, id_)
    it.shift(id_, not_before=None)

    # when the second one's claim is committed and its answer lost,
    with proxied(database) as proxy, world(proxy.url) as far:
        desk.deliverer._database = far.db
        proxy.arm("lose_answer", b"mine AS (")
        assert outcome_of(desk, id_).state is State.SENT
        desk.deliverer._database = it.db

    # then both carried them.
    assert sent(desk) == [WHOLE, WHOLE]


def test_other_channels_leave_them_out_and_their_templates_know_of_them(
    it: World, types: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachments, "read", lambda *_: pytest.fail("an SMS carries no attachments"))
    with shop(types, it.db, channel="sms") as desk:  # its worker needs no folder of stored files
        desk.take(letter(channels=["sms"], to={"sms": PHONE}), "notify.intake")
        assert outcome_of(desk, one_row(it)["id"]).state is State.SENT

    (message,) = desk.scripts["a"].sent
    told = f"Look into your mail: [invoice-981.pdf {len(PDF)}][terms.pdf ?]"
    assert getattr(message.content, "text", None) == told


def test_a_mail_without_attachments_has_an_empty_list(it: World, desk: Shop) -> None:
    assert (
        desk.send(call(event_type="test.letter", to={"email": EMAIL}, channels=["email"])).state is State.SENT
    )
    assert content(desk.scripts["a"].sent[0]) == EmailContent("Your invoice", "Enclosed:\n")


# --- not sent -------------------------------------------------------------------------------------------


def test_a_missing_file_fails_the_delivery_with_its_code_and_replay_sends_it_once_it_is_there(
    it: World, desk: Shop, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (folder / "terms" / "2026.pdf").rename(folder / "later.pdf")
    outcome = desk.send(letter())
    assert (outcome.state, outcome.code) == (State.FAILED, "attachment_missing")
    (attempt,) = it.attempts(outcome.id)
    assert (attempt["outcome"], attempt["code"]) == ("refused", "attachment_missing")
    assert attempt["detail"].startswith("attachment 2: there is no such file")
    assert desk.scripts["a"].sent == []

    (folder / "later.pdf").rename(folder / "terms" / "2026.pdf")
    (wake,) = replay(it.db, "m-1").wakes

    assert outcome_of(desk, wake.id).state is State.SENT
    assert sent(desk) == [WHOLE]
    for private in ("invoice-981", "terms", EMAIL, str(folder)):
        assert private not in caplog.text + attempt["detail"]


def test_a_file_that_cannot_be_read_now_is_tried_again(it: World, desk: Shop, folder: Path) -> None:
    folder.rename(folder.with_name("unmounted"))
    outcome = desk.send(letter())
    assert (outcome.state, outcome.code) == (State.RETRYING, "attachment_unreadable")

    folder.with_name("unmounted").rename(folder)
    it.shift(outcome.id, not_before=None)
    assert outcome_of(desk, outcome.id).state is State.SENT
    assert sent(desk) == [WHOLE]


def test_a_link_out_of_the_folder_is_not_sent(it: World, desk: Shop, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"canary")
    (folder / "terms" / "2026.pdf").unlink()
    (folder / "terms" / "2026.pdf").symlink_to(tmp_path / "secret")
    outcome = desk.send(letter())
    assert (outcome.state, outcome.code) == (State.FAILED, "attachment_not_a_file")
    assert desk.scripts["a"].sent == []


def test_bytes_that_a_purge_has_removed_fail_it_and_say_so(it: World, desk: Shop) -> None:
    desk.take(letter(), "notify.intake")
    it.rows("DELETE FROM notify.attachment")
    outcome = outcome_of(desk, one_row(it)["id"])
    assert (outcome.state, outcome.code) == (State.FAILED, "attachment_removed")


def test_they_go_with_their_notification(it: World, desk: Shop) -> None:
    desk.take(letter(), "notify.intake")
    it.rows("DELETE FROM notify.notification")
    assert stored(it) == []


# --- kept -----------------------------------------------------------------------------------------------


def test_the_row_has_names_types_and_sizes_and_the_bytes_stand_elsewhere(it: World, desk: Shop) -> None:
    desk.take(letter(), "notify.intake")

    (row,) = it.rows("SELECT attachments, envelope FROM notify.notification")
    assert row["attachments"] == [
        {"name": "invoice-981.pdf", "type": "application/pdf", "size": len(PDF)},
        {"name": "terms.pdf", "type": "application/pdf", "file": "terms/2026.pdf"},
    ]
    assert row["envelope"] is None
    (status,) = statuses.read(it.db, "m-1").notifications
    assert status.attachments == [
        {"name": "invoice-981.pdf", "type": "application/pdf", "size": len(PDF)},
        {"name": "terms.pdf", "type": "application/pdf", "size": None},
    ]


def test_a_repeated_call_keeps_nothing_twice_and_another_attachment_is_a_conflict(
    it: World, desk: Shop
) -> None:
    first = desk.take(letter(), "notify.intake")
    again = desk.take(letter(), "notify.intake")
    other = desk.take(letter("m-1", {**INVOICE, "content": b"another invoice"}), "notify.intake")

    assert [first.kind, again.kind, other.kind] == ["accepted", "repeated", "conflict"]
    assert stored(it) == [(0, PDF)]


def test_a_commit_whose_answer_was_lost_kept_them_once(it: World, desk: Shop, database: str) -> None:
    with proxied(database) as proxy, world(proxy.url) as far:
        desk.intake._database = far.db
        proxy.arm("lose_answer", b"COMMIT")
        taken = desk.take(letter())
        desk.intake._database = it.db

    assert proxy.cuts == 1
    assert taken.claimed is not None
    assert desk.deliverer.perform(taken.claimed, asked=taken.asked).state is State.SENT
    assert sent(desk) == [WHOLE]
    assert stored(it) == [(0, PDF)]


def test_notifications_of_a_batch_keep_their_own(it: World) -> None:
    items = [
        planned(
            letter(f"m-{n}", {"name": f"{n}.pdf", "content": b"%d" % n}, channels=["sms"], to={"sms": PHONE})
        )
        for n in range(20)
    ]
    plain = planned(call("m-plain"))

    accepting.accept(it.db, [*items, plain])

    assert [attachments.read(it.db, item.id) for item in items] == [{0: b"%d" % n} for n in range(20)]
    assert attachments.read(it.db, plain.id) == {}


def test_a_known_recipient_stored_by_the_call_and_attachments_share_one_commit(it: World, desk: Shop) -> None:
    desk.take(letter(to={"id": "user-42", "email": EMAIL}), "notify.intake")
    context = read_context(it.db, [letter(to="user-42")])
    assert context.profiles["default", "user-42"].addresses == {"email": (EMAIL,)}
    assert stored(it) == [(0, PDF)]


def test_a_rejected_call_keeps_them_in_its_envelope_and_is_planned_again_with_them(
    it: World, desk: Shop
) -> None:
    desk.take(letter(to="user-42"), "notify.intake")
    assert stored(it) == []
    it.rows("INSERT INTO notify.recipient (tenant, id) VALUES ('default', 'user-42')")
    it.rows(
        "INSERT INTO notify.contact_point (tenant, recipient_id, channel, address)"
        " VALUES ('default', 'user-42', 'email', %s)",
        EMAIL,
    )

    assert replay(it.db, "m-1").calls == 1
    desk.intake.drain()

    assert outcome_of(desk, one_row(it)["id"]).state is State.SENT
    assert sent(desk) == [WHOLE]


def test_a_call_that_waits_for_its_type_keeps_them(it: World, desk: Shop) -> None:
    late = letter(event_type="late.type")
    assert desk.take(late, "notify.intake").kind == "waiting"

    it.rows("UPDATE notify.intake SET due_at = now()")
    (kept,) = intakes.take(it.db, limit=10)
    assert Notification.from_wire(kept.envelope).attachments == late.attachments


# --- every way in ---------------------------------------------------------------------------------------


@pytest.fixture
def producer(database: str) -> Iterator[None]:
    settings.reset()
    configure(database_url=database, intake="postgres")
    yield
    settings.reset()


def _within(database: str) -> None:
    with psycopg.connect(database) as connection:
        send_notification.within(
            connection,
            "test.letter",
            to={"email": EMAIL},
            payload={},
            attachments=[{"name": "invoice-981.pdf", "content": PDF}],
        )


def _durable(_: str) -> None:
    send_notification.delay(
        "test.letter",
        to={"email": EMAIL},
        payload={},
        attachments=[{"name": "invoice-981.pdf", "content": PDF}],
    )


@pytest.mark.parametrize("ask", [_within, _durable])
def test_durable_intake_and_the_hosts_transaction_carry_them(
    it: World, desk: Shop, database: str, producer: None, ask: Callable[[str], None]
) -> None:
    ask(database)

    assert desk.intake.drain() == 1

    assert outcome_of(desk, one_row(it)["id"]).state is State.SENT
    assert sent(desk) == [WHOLE[:1]]


# --- nobody else pays -----------------------------------------------------------------------------------


def test_a_call_without_attachments_costs_no_statement_more(
    it: World, desk: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    rows = Database.rows

    def counting(self: Database, statement: str, parameters: Any = ()) -> Any:
        asked.append(statement.partition("(")[0].strip())
        return rows(self, statement, parameters)

    monkeypatch.setattr(Database, "rows", counting)
    monkeypatch.setattr(Database, "transact", lambda *_: pytest.fail("one statement was enough"))
    desk.gates.ask(
        Subject("x", "default", "test.letter", "email", "normal")
    )  # what it reads now and then is read

    asked.clear()
    assert (
        desk.send(call(event_type="test.letter", to={"email": EMAIL}, channels=["email"])).state is State.SENT
    )

    assert len(asked) == 3, asked  # context, acceptance with claim, result
    assert not [statement for statement in asked if "notify.attachment" in statement]


def test_what_a_worker_holds_does_not_show_them(it: World, desk: Shop) -> None:
    taken = desk.take(letter())
    assert taken.claimed is not None
    desk.deliverer.perform(taken.claimed, asked=taken.asked)
    shown = f"{taken!r} {taken.claimed!r} {desk.scripts['a'].sent[0]!r} {WHOLE!r}"
    for private in ("invoice-981", "terms", str(PDF[:8])[2:-1]):
        assert private not in shown
