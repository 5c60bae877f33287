"""The whole way of a notification through a running fleet, and what happens to calls that are wrong."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from faults.fleet import CONFIG, RunningFleet, beat, running_fleet, workers

from notify_tasks import NotificationResult, send_notification
from notify_tasks.store import statuses
from notify_tasks.store.cancelling import cancel
from notify_tasks.store.database import Database
from notify_tasks.supervising import worker_spec
from tests.acceptance.far_mail import FarMail, far_mail

TEMPLATES = Path(__file__).parents[1] / "faults" / "templates"
PHONE = "+4915112345678"
TYPE_WAIT = 5
"""Seconds in which a call waits for its type, and the test must have made it."""
POISON = [
    b"not json",
    b"[1, 2]",
    b'"text"',
    b"3",
    b"{}",
    b"\xff\xfe",
    b'{"body": "e30=", "headers": {}, "properties": {}}',
    json.dumps({"headers": {"task": "nobody.knows", "id": "1"}, "body": "!!", "properties": {}}).encode(),
    b'{"body": 3, "headers": [], "properties": 1}',
    b"",
]


MAIL = """
[providers.far-email]
use = "email.smtp"
url = "env:FAR_SMTP_URL"
ca_file = "{ca_file}"
sender = "Shop <shop@example.com>"
timeout = 10
[channels.email]
pool = ["far-email"]
"""


@pytest.fixture(scope="module")
def mailboxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarMail]:
    """The sandbox's SMTP far end, in this process, so that what it took can be looked at."""
    with far_mail(tmp_path_factory.mktemp("far-mail")) as far:
        yield far


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, mailboxes: FarMail) -> Iterator[RunningFleet]:
    directory = tmp_path_factory.mktemp("path")
    templates = directory / "templates"
    shutil.copytree(TEMPLATES, templates)
    broken = templates / "fault.forgetful"
    shutil.copytree(templates / "fault.ping", broken)
    (broken / "sms.txt").write_text("Ping {{ payload.missing }}\n")
    policy = broken / "notification.toml"
    policy.write_text(
        policy.read_text().replace("additionalProperties = false\n", "additionalProperties = true\n")
    )
    (broken / "example.json").write_text('{"n": 1, "missing": "here"}\n')
    letter = templates / "fault.letter"
    letter.mkdir()
    (letter / "notification.toml").write_text('channels = ["email"]\n[payload]\ntype = "object"\n')
    (letter / "example.json").write_text("{}\n")
    (letter / "email.subject.txt").write_text("A letter\n")
    (letter / "email.txt").write_text("Enclosed: {{ attachments | map(attribute='name') | join(', ') }}\n")
    (directory / "stored").mkdir()
    config = directory / "with-mail.toml"
    config.write_text(CONFIG + MAIL.format(ca_file=mailboxes.ready.ca_file))
    environment = {
        "NOTIFY_TEMPLATES": str(templates),
        "NOTIFY_UNKNOWN_TYPE_WAIT": str(TYPE_WAIT),
        "NOTIFY_ATTACHMENTS": str(directory / "stored"),
        "NOTIFY_CONFIG": str(config),
        "FAR_SMTP_URL": mailboxes.ready.smtp_url,
    }
    mail = worker_spec("worker-mail", ["notify.email"], threads=2)
    with running_fleet(directory, [*workers(), mail, beat()], environment=environment) as running:
        yield running


@pytest.fixture(scope="module")
def store(fleet: RunningFleet) -> Iterator[Database]:
    database = Database(fleet.postgres.url, connections=2)
    yield database
    database.close()


@pytest.fixture(autouse=True)
def _no_worker_dies(fleet: RunningFleet) -> Iterator[None]:
    yield
    restarts = {name: fleet.supervisor.restarts(name) for name in fleet.supervisor.names()}
    assert restarts == dict.fromkeys(restarts, 0)


def ended(fleet: RunningFleet, store: Database, result: NotificationResult) -> statuses.Status:
    """Wait until the newest notification of a call has ended, and return it."""

    def done() -> bool:
        found = statuses.read(store, result.message_id).notifications
        busy = {"held", "queued", "retrying", "sending"}
        return bool(found) and not any(it.state in busy for it in found[-1].deliveries)

    fleet.wait("the call ends", done, 30)
    return statuses.read(store, result.message_id).notifications[-1]


def ping(**options: object) -> NotificationResult:
    return send_notification.delay("fault.ping", **{"to": {"sms": PHONE}, "payload": {"n": 1}} | options)  # type: ignore[arg-type]


def effects(fleet: RunningFleet, status: statuses.Status) -> int:
    ids = {str(it.id) for it in status.deliveries}
    return sum(it.accepted for it in fleet.sandbox.requests() if it.delivery_id in ids)


def test_one_hop_and_two_hops_end_as_sent(fleet: RunningFleet, store: Database) -> None:
    one = ended(fleet, store, ping(channels=["sms"]))
    both = ended(fleet, store, ping(to={"sms": PHONE, "chat": "room"}))

    assert [it.state for it in one.deliveries] == ["sent"]
    assert [(it.channel, it.state) for it in both.deliveries] == [("chat", "sent"), ("sms", "sent")]
    assert [attempt.outcome for attempt in one.deliveries[0].attempts] == ["accepted"]


def test_a_hundred_calls_with_one_id_make_one_delivery(fleet: RunningFleet, store: Database) -> None:
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda _: ping(channels=["sms"], message_id="order-981-shipped"), range(100)))

    status = ended(fleet, store, results[0])
    client = redis.Redis.from_url(fleet.redis.url)
    fleet.wait(
        "all hundred are worked off", lambda: not client.llen("notify.sms") + client.hlen("unacked"), 30
    )
    client.close()
    assert len(status.deliveries) == 1
    assert effects(fleet, status) == 1
    assert len(statuses.read(store, "order-981-shipped").notifications) == 1


def test_the_same_id_with_another_body_is_a_conflict_that_names_both(
    fleet: RunningFleet, store: Database
) -> None:
    first = ended(fleet, store, ping(message_id="used-twice"))
    ping(message_id="used-twice", payload={"n": 2})
    fleet.wait("it is judged", lambda: len(statuses.read(store, "used-twice").notifications) == 2, 30)

    conflict = statuses.read(store, "used-twice").notifications[-1]
    assert (conflict.state, conflict.reason) == ("rejected", "conflict")
    ((one,), (two,)) = fleet.rows(
        "SELECT hash FROM notify.notification WHERE message_id = 'used-twice' ORDER BY accepted_at"
    )
    assert str(one) in str(conflict.detail)
    assert str(two) in str(conflict.detail)
    assert effects(fleet, first) == 1


@pytest.mark.parametrize(
    ("call", "reason", "said"),
    [
        ({"payload": {}}, "payload_invalid", "payload.n"),
        ({"payload": {"n": "one"}}, "payload_invalid", "payload.n"),
        ({"to": "nobody"}, "unknown_recipient", "add it"),
        ({"to": {"email": "ana@example.com"}}, "no_address", "sms"),
        (
            {"channels": ["webhook", "chat"], "to": {"webhook": "https://shop.example/hooks"}},
            "no_template",
            "webhook",
        ),
    ],
)
def test_what_only_a_worker_can_know_is_rejected_with_its_reason(
    fleet: RunningFleet, store: Database, call: dict[str, object], reason: str, said: str
) -> None:
    status = ended(fleet, store, ping(**call))

    assert (status.state, status.reason) == ("rejected", reason)
    assert said in str(status.detail)
    assert status.deliveries == []


def test_a_variable_that_is_missing_fails_the_delivery_and_names_file_and_line(
    fleet: RunningFleet, store: Database
) -> None:
    result = send_notification.delay("fault.forgetful", to={"sms": PHONE}, payload={"n": 1}, channels=["sms"])
    (delivery,) = ended(fleet, store, result).deliveries

    assert (delivery.state, delivery.reason) == ("failed", "render_failed")
    assert "sms.txt" in str(delivery.attempts[0].detail)


def test_an_unknown_type_waits_and_is_then_rejected(fleet: RunningFleet, store: Database) -> None:
    status = ended(fleet, store, send_notification.delay("no.such.type", to={"sms": PHONE}, payload={}))

    assert (status.state, status.reason) == ("rejected", "unknown_event_type")
    assert status.accepted_at - status.occurred_at >= timedelta(seconds=TYPE_WAIT)


def test_a_type_that_comes_after_its_first_call_is_sent(fleet: RunningFleet, store: Database) -> None:
    result = send_notification.delay("late.type", to={"sms": PHONE}, payload={"n": 1})
    fleet.wait("it waits", lambda: statuses.read(store, result.message_id).kept_since is not None, 30)
    templates = Path(fleet.environment["NOTIFY_TEMPLATES"])
    shutil.copytree(templates / "fault.ping", templates / "late.type")

    (delivery,) = ended(fleet, store, result).deliveries
    assert delivery.state == "sent"


def test_poison_in_the_queues_is_parked_and_its_neighbours_are_sent(
    fleet: RunningFleet, store: Database
) -> None:
    client = redis.Redis.from_url(fleet.redis.url)
    results = []
    for n in range(50):
        results.append(ping(channels=["sms"], payload={"n": n}))
        if n % 5 == 0:
            client.lpush(("notify.sms", "notify.intake")[n % 2], POISON[n // 5])
    client.close()

    fleet.wait(
        "all ten are parked",
        lambda: fleet.rows("SELECT count(*) FROM notify.parked_message") == [(len(POISON),)],
        30,
    )
    assert all(ended(fleet, store, result).deliveries[0].state == "sent" for result in results)
    reasons = [str(reason) for (reason,) in fleet.rows("SELECT reason FROM notify.parked_message")]
    assert all(reasons)


def test_at_holds_until_then(fleet: RunningFleet, store: Database) -> None:
    at = datetime.now(UTC) + timedelta(seconds=4)
    (delivery,) = ended(fleet, store, ping(at=at)).deliveries

    assert delivery.state == "sent"
    assert delivery.attempts[0].started_at >= at


def test_a_cancel_says_what_it_did(fleet: RunningFleet, store: Database) -> None:
    held = ping(at=datetime.now(UTC) + timedelta(hours=1))
    fleet.wait("it is held", lambda: bool(statuses.read(store, held.message_id).notifications), 30)
    assert held.cancel().cancelled == 1
    assert ended(fleet, store, held).deliveries[0].state == "cancelled"

    sent = ping()
    status = ended(fleet, store, sent)
    assert sent.cancel().too_late == 1
    assert effects(fleet, status) == 1


def test_a_cancel_that_is_first_wins(fleet: RunningFleet, store: Database) -> None:

    assert cancel(store, "default", "cancelled-before").before_intake
    ping(message_id="cancelled-before")
    later = ping()
    ended(fleet, store, later)

    found = statuses.read(store, "cancelled-before")
    assert found.notifications == []
    assert found.cancelled_at is not None


def test_a_call_on_another_lane_is_sent_all_the_same(fleet: RunningFleet, store: Database) -> None:
    (delivery,) = ended(fleet, store, ping(priority="high", channels=["sms"])).deliveries

    assert (delivery.lane, delivery.state) == ("high", "sent")


def test_a_dead_address_fails_and_is_suppressed(fleet: RunningFleet, store: Database) -> None:
    fleet.sandbox.set_mode("sms", "410", times=1)
    dead = {"to": {"sms": "+4915199999999"}, "channels": ["sms"]}
    (first,) = ended(fleet, store, ping(**dead)).deliveries
    (second,) = ended(fleet, store, ping(**dead)).deliveries

    assert first.state == "failed"
    assert (second.state, second.reason) == ("suppressed", "address_suppressed")


def test_a_provider_that_asks_for_patience_gets_it(fleet: RunningFleet, store: Database) -> None:
    fleet.sandbox.set_mode("sms", "429", times=1, retry_after=2)
    (delivery,) = ended(fleet, store, ping(channels=["sms"])).deliveries

    assert [attempt.outcome for attempt in delivery.attempts] == ["throttled", "accepted"]
    waited = delivery.attempts[1].started_at - delivery.attempts[0].started_at
    assert waited >= timedelta(seconds=2)
    assert delivery.attempts_spent == 1


def test_a_passing_fault_is_retried_by_celery(fleet: RunningFleet, store: Database) -> None:
    fleet.sandbox.set_mode("sms", "500", times=1)
    (delivery,) = ended(fleet, store, ping(channels=["sms"])).deliveries

    assert [attempt.outcome for attempt in delivery.attempts] == ["try_later", "accepted"]
    assert delivery.state == "sent"


@pytest.mark.parametrize("channels", [["email"], None], ids=["one hop", "by way of intake"])
def test_attachments_arrive_byte_for_byte_under_their_names(
    fleet: RunningFleet, store: Database, mailboxes: FarMail, channels: list[str] | None
) -> None:
    # Given an invoice in the call, as large as may be, and terms that lie in the shared folder,
    invoice = random.Random(981).randbytes(256 * 1024)
    terms = random.Random(982).randbytes(3 * 1024 * 1024)
    (fleet.directory / "stored" / "terms.bin").write_bytes(terms)
    address = "ann@example.com" if channels else "bob@example.com"

    # when both are sent,
    result = send_notification.delay(
        "fault.letter",
        to={"email": address},
        channels=channels,
        attachments=[
            {"name": "Rechnung für 张伟.pdf", "content": invoice},
            {"name": "terms.pdf", "file": "terms.bin"},
        ],
    )
    (delivery,) = ended(fleet, store, result).deliveries

    # then they are in the mail as they were,
    assert delivery.state == "sent", delivery
    (mail,) = mailboxes.to(address)
    digests = {
        part.get_filename(): hashlib.sha256(part.get_payload(decode=True)).hexdigest()  # type: ignore[arg-type]
        for part in mail.iter_attachments()
    }
    assert digests == {
        "Rechnung für 张伟.pdf": hashlib.sha256(invoice).hexdigest(),
        "terms.pdf": hashlib.sha256(terms).hexdigest(),
    }
    text = mail.get_body(("plain",))
    assert text is not None
    assert text.get_content().strip() == "Enclosed: Rechnung für 张伟.pdf, terms.pdf"

    # and no worker has written their names, or where they lie, into its log.
    logs = b"".join(path.read_bytes() for path in (fleet.directory / "logs").iterdir())
    for private in ("Rechnung", "terms.pdf", "terms.bin"):
        assert private.encode() not in logs


def test_a_stored_attachment_outside_of_the_folder_is_never_sent(
    fleet: RunningFleet, store: Database, mailboxes: FarMail
) -> None:
    (fleet.directory / "secret.bin").write_bytes(b"canary")
    (fleet.directory / "stored" / "way-out").symlink_to(fleet.directory)
    result = send_notification.delay(
        "fault.letter",
        to={"email": "eve@example.com"},
        attachments=[{"name": "secret.bin", "file": "way-out/secret.bin"}],
    )
    (delivery,) = ended(fleet, store, result).deliveries

    assert (delivery.state, delivery.attempts[-1].code) == ("failed", "attachment_not_a_file")
    assert mailboxes.to("eve@example.com") == []
