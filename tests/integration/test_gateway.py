"""The door for receipts, as a provider finds it: a real gateway, a real worker, PostgreSQL and Redis that go away."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from faults.fleet import CONFIG, ROOT, RunningFleet, running_fleet
from support.ports import free_port

from notify_tasks.broker import Broker
from notify_tasks.messages import Outgoing
from notify_tasks.notification import uuid7
from notify_tasks.routing import MAINT_QUEUE, RECEIPTS_QUEUE, RECEIPTS_TASK, SWEEP_TASK
from notify_tasks.states import State
from notify_tasks.store.database import Database
from notify_tasks.supervising import Spec, worker_spec
from tests.integration.core_world import PHONE, World, until
from tests.integration.gateway_app import SECRET_VARIABLE, signature

SECRET = "a-secret-of-the-provider"
LAUNCHER = Path(__file__).with_name("gateway_app.py")
PROVIDER = """
[providers.{name}]
use = "sms.sandbox"
url = "env:SANDBOX_HTTP_URL"
secret = "env:REPORTING_SECRET"
{more}
"""
NEEDLES = (PHONE, SECRET, "private", "e-forged", "strangers-name")
"""What no log may have."""


@dataclass(slots=True)
class Answer:
    """What the gateway said."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Door:
    """The gateway with its fleet."""

    fleet: RunningFleet
    it: World
    port: int
    config: Path

    def ask(
        self, path: str, body: bytes = b"", method: str = "POST", headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, got, response.read())
        finally:
            connection.close()

    def report(
        self, *events: dict[str, Any], name: str = "reporting", query: str = "", body: bytes | None = None
    ) -> Answer:
        """A receipt as the provider sends it."""
        said = json.dumps(events).encode() if body is None else body
        signed = {"X-Signature": signature(SECRET, query, said), "Content-Type": "application/json"}
        return self.ask(f"/hooks/{name}{'?' if query else ''}{query}", said, headers=signed)

    def sent(self) -> uuid.UUID:
        one = self.it.claimed()
        self.it.record(one, "accepted", State.SENT)
        return one.id

    def rows(self, event_id: str) -> list[dict[str, Any]]:
        return self.it.rows("SELECT * FROM notify.receipt WHERE event_id = %s", event_id)

    def wait_state(self, id_: uuid.UUID, state: str) -> None:
        until(lambda: self.it.state(id_) == state, f"the delivery is {state}", 30)

    def log(self, name: str = "gateway") -> str:
        return self.fleet.supervisor.log_path(name).read_text()

    def start(self, *words: str, stdin: bytes) -> subprocess.Popen[bytes]:
        """A command beside others."""
        with self.log_of("command").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(LAUNCHER), *words],
                cwd=ROOT, env=self.fleet.environment, stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        assert process.stdin
        process.stdin.write(stdin)
        process.stdin.close()
        return process

    def log_of(self, name: str) -> Path:
        return self.config.with_name(f"{name}.log")

    def notify(self, *words: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, str(LAUNCHER), *words],
            cwd=ROOT,
            env=self.fleet.environment | environment,
            input=stdin,
            capture_output=True,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )


def gateway_spec(port: int) -> Spec:
    return Spec("gateway", (sys.executable, str(LAUNCHER), "gateway", "--port", str(port)))


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    directory = tmp_path_factory.mktemp("gateway")
    config = directory / "with-reporting.toml"
    named = [PROVIDER.format(name=name, more="") for name in ("reporting", "reporting-answered")]
    off = PROVIDER.format(name="reporting-off", more="enabled = false")
    config.write_text(CONFIG + "".join(named) + off)
    environment = {"NOTIFY_CONFIG": str(config), SECRET_VARIABLE: SECRET}
    port = free_port()
    worker = worker_spec("worker", [MAINT_QUEUE, RECEIPTS_QUEUE], threads=2)
    with running_fleet(directory, [worker], environment=environment) as fleet:
        fleet.supervisor.start(gateway_spec(port))
        db = Database(fleet.postgres.url, connections=3, name="test")
        made = Door(fleet, World(db, fleet.postgres.url), port, config)
        until(lambda: "ready: http://127.0.0.1:" in made.log(), "the gateway is ready", 30)
        yield made
        db.close()
        assert fleet.supervisor.end("gateway") == 0
        assert fleet.supervisor.restarts("gateway") == 0
        for name in ("gateway", "worker"):
            assert not [needle for needle in NEEDLES if needle in made.log(name)], name


def test_what_a_provider_reports_is_in_the_timeline(door: Door) -> None:
    # Given an SMS that a provider took,
    id_ = door.sent()
    # when the provider reports three times that it was delivered, and that it was read,
    for _ in range(3):
        assert door.report({"id": f"{id_}:d", "status": "delivered", "delivery": str(id_)}).status == 204
    assert door.report({"id": f"{id_}:r", "status": "read", "delivery": str(id_)}).status == 204
    # then a worker has it so, once each,
    until(lambda: "read" in door.it.events(id_), "it is read", 20)
    assert door.it.events(id_) == ["sent", "delivered", "read"]
    # and whoever asks is told, with the provider's own word.
    (row,) = door.it.rows("SELECT message_id FROM notify.delivery WHERE id = %s", id_)
    shown = door.notify("status", row["message_id"]).stdout
    assert [line.split()[-1] for line in shown.splitlines() if "✔ delivered" in line or "✔ read" in line] == [
        "delivered", "read",
    ]  # fmt: skip


def test_a_stop_stops_what_waits(door: Door) -> None:
    one = door.it.accept()
    assert door.report({"id": "stop-1", "says": "stop", "address": "+49 151 1234-5678"}).status == 204
    until(lambda: door.it.rows("SELECT 1 AS one FROM notify.suppression"), "it is suppressed", 20)
    assert door.it.claim(one) is None
    assert door.it.state(one) == "suppressed"
    shown = door.notify("suppressions", "list").stdout
    assert "opted_out, for every tenant" in shown
    assert PHONE not in shown
    refused = door.notify("suppressions", "lift", "sms", PHONE, "--opted-out")
    assert "every tenant" in refused.stderr
    assert "--tenant '*'" in refused.stderr
    lifted = door.notify("suppressions", "lift", "sms", PHONE, "--opted-out", "--tenant", "*")
    assert lifted.returncode == 0, lifted.stderr


def test_a_forged_one_is_refused_and_nothing_of_it_is_kept(door: Door) -> None:
    id_ = door.sent()
    said = json.dumps(
        [{"id": "e-forged", "status": "delivered", "delivery": str(id_), "address": PHONE}]
    ).encode()
    right = signature(SECRET, "a=1", said)
    tries = [
        ("/hooks/reporting?a=1", said, {}),
        ("/hooks/reporting?a=1", said, {"X-Signature": "x"}),
        (
            "/hooks/reporting?a=1",
            said,
            {"X-Signature": "0" + right[1:] if right[0] != "0" else "1" + right[1:]},
        ),
        ("/hooks/reporting?a=2", said, {"X-Signature": right}),
        ("/hooks/reporting?a=1", said + b" ", {"X-Signature": right}),
    ]
    for path, body, headers in tries:
        answer = door.ask(path, body, headers=headers)
        assert (answer.status, answer.body) == (403, b"refused\n")
    assert door.rows("e-forged") == []
    assert door.it.state(id_) == "sent"
    assert "receipts refused for reporting (signature): 1" in door.log()


def test_its_query_comes_as_it_was_called(door: Door) -> None:
    query = "to=%2B1&a=b+c&%e4=1&empty="
    assert door.report({"id": "q1", "says": "nothing"}, query=query).status == 204
    assert len(door.rows("q1")) == 1


def test_who_is_not_meant_is_told_nothing(door: Door) -> None:
    for path in (
        "/hooks/strangers-name",
        "/hooks/far-sms",
        "/hooks/",
        "/hooks/reporting/",
        "/hooks/reporting/x",
        "/",
    ):
        answer = door.ask(path, b"[]")
        assert (answer.status, len(answer.body) < 20) == (404, True), path
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = door.ask("/hooks/reporting", method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert b"by POST" in door.ask("/hooks/reporting", method="GET").body
    assert "server" not in answer.headers


def test_one_that_is_switched_off_still_reports(door: Door) -> None:
    assert door.report({"id": "off-1", "says": "nothing"}, name="reporting-off").status == 204


def test_a_provider_that_wants_to_read_something_does(door: Door) -> None:
    answer = door.report({"id": "answered-1", "says": "nothing"}, name="reporting-answered")
    assert (answer.status, answer.body) == (200, b'{"code":0}')
    assert answer.headers["content-type"] == "application/json"


def test_a_body_is_bounded(door: Door) -> None:
    largest = b'[{"id": "large", "says": "nothing"}]'.ljust(2**20)
    assert door.report(body=largest).status == 204
    assert len(door.rows("large")) == 1
    assert door.ask("/hooks/reporting", b"x" * (2**20 + 1)).status == 413
    chunks = iter([b"x" * 2**16] * 17)
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
    connection.request(
        "POST", "/hooks/reporting", chunks, {"Transfer-Encoding": "chunked"}, encode_chunked=True
    )
    assert connection.getresponse().status == 413
    connection.close()


def test_whoever_leaves_in_the_middle_harms_nobody(door: Door) -> None:
    for part in (
        b"POST /hooks/reporting HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
        b"POST /ho",
        b"\0\xff",
    ):
        with raw(door.port) as connection:
            connection.sendall(part)
    assert door.ask("/livez", method="GET").body == b"alive\n"


@contextmanager
def raw(port: int) -> Iterator[Any]:
    import socket  # noqa: PLC0415 - only here

    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        yield connection


def test_what_cannot_be_understood_is_kept_seen_and_read_again(door: Door) -> None:
    # Given receipts that are no JSON, have an unknown status, and meet a fault of ours,
    id_ = door.sent()
    novel = {"id": "novel-1", "status": "novel", "delivery": str(id_), "address": PHONE}
    assert door.report(body=b"private nonsense").status == 204
    assert door.report(body=b"private nonsense").status == 204
    assert door.report(novel).status == 204
    assert door.report(body=b"a fault of ours").status == 204
    # then each is there once, in the log by its number, and in the list,
    assert "a receipt of reporting cannot be read and is kept: `notify receipts list`" in door.log()
    assert "receipts of reporting with a status that this version does not know: 1 (numbers" in door.log()
    listed = door.notify("receipts", "list", "--json").stdout
    found = {it["state"] + (it["detail"] or ""): it for it in map(json.loads, listed.splitlines())}
    assert sorted(found) == [
        "unknown", "unreadableit is no JSON", "unreadablereading it failed (KeyError)",
    ]  # fmt: skip
    plain = door.notify("receipts", "list", "--provider", "reporting")
    assert PHONE not in plain.stdout + plain.stderr
    assert "novel" in plain.stdout
    # and a version that knows the status applies it.
    number = str(found["unknown"]["number"])
    assert door.notify("receipts", "again", number).returncode == 1
    newer = door.config.with_name("newer.toml")
    newer.write_text(
        door.config.read_text().replace("[providers.reporting]", "[providers.reporting]\nnewer = true")
    )
    done = door.notify("receipts", "again", number, NOTIFY_CONFIG=str(newer))
    assert (done.returncode, done.stdout) == (0, f"{number} is applied now\n")
    door.wait_state(id_, "delivered")


def test_a_bounce_comes_by_a_pipe(door: Door) -> None:
    id_ = door.sent()
    bounce = json.dumps([{"id": "pipe-1", "status": "undelivered", "delivery": str(id_)}]).encode()
    done = door.notify("receipts", "take", "reporting", stdin=bounce)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    door.wait_state(id_, "undelivered")
    for status, name, stdin, variables in (
        (os.EX_NOPERM, "reporting", b"forged private", {}),
        (os.EX_NOUSER, "strangers-name", b"[]", {}),
        (os.EX_TEMPFAIL, "reporting", b"[]", {"NOTIFY_CONFIG": "nowhere.toml"}),
    ):
        done = door.notify("receipts", "take", name, stdin=stdin, **variables)
        assert done.returncode == status, done.stderr
        assert done.stderr.startswith("notify: ")
        assert "private" not in done.stderr


def test_a_new_provider_of_the_configuration_has_its_door_within_seconds(door: Door) -> None:
    assert door.report(name="reporting-new").status == 404
    door.config.write_text(door.config.read_text() + PROVIDER.format(name="reporting-new", more=""))
    until(lambda: door.report(name="reporting-new").status == 204, "the new provider has a door", 30)
    # and a broken file closes none.
    good = door.config.read_text()
    door.config.write_text(good + "nonsense")
    until(lambda: "stays in force" in door.log(), "the broken file was seen", 30)
    assert door.report({"id": "still", "says": "nothing"}).status == 204
    door.config.write_text(good)


def test_a_wake_up_that_cannot_be_read_is_parked(door: Door) -> None:
    broker = Broker(door.fleet.redis.url, timeout=5)
    for args in (["x"], [["1"]], [[True]], [None], [[1], 2]):
        broker.publish([Outgoing(RECEIPTS_TASK, args, RECEIPTS_QUEUE, str(uuid7()))])
    broker.close()
    parked = "SELECT reason FROM notify.parked_message"
    until(lambda: len(door.it.rows(parked)) == 5, "all are parked", 20)
    assert {row["reason"] for row in door.it.rows(parked)} == {"unreadable_wake_up"}


def test_without_redis_and_after_it_has_forgotten_all_a_receipt_costs_seconds(door: Door) -> None:
    # Given receipts that are committed while nobody can be told of them,
    id_ = door.sent()
    door.fleet.redis.kill(signal.SIGSTOP)
    try:
        assert door.report({"id": "no-redis", "says": "nothing"}).status == 204
        one = {"id": f"{id_}:flush", "status": "delivered", "delivery": str(id_)}
        assert door.report(one).status == 204
    finally:
        door.fleet.redis.kill(signal.SIGCONT)
    assert "receipts not announced" in door.log()
    # and a Redis that comes back empty,
    with redis.Redis.from_url(door.fleet.redis.url) as client:
        client.flushall()
    assert door.rows(f"{id_}:flush")[0]["state"] == "new"
    # when the next sweep comes, once the row is three seconds old,
    door.it.rows("UPDATE notify.receipt SET due_at = now() WHERE state = 'new'")
    broker = Broker(door.fleet.redis.url, timeout=5)
    broker.publish([Outgoing(SWEEP_TASK, [], MAINT_QUEUE, str(uuid7()))])
    broker.close()
    # then it is applied.
    door.wait_state(id_, "delivered")


def test_without_postgresql_the_provider_is_asked_to_come_again(door: Door) -> None:
    assert door.ask("/readyz", method="GET").status == 200
    door.fleet.postgres.stop()
    try:
        piped = door.start("receipts", "take", "reporting", stdin=b'[{"id": "away-2"}]')
        answer = door.report({"id": "away-1", "says": "nothing"})
        assert (answer.status, answer.headers["retry-after"]) == (503, "30")
        assert door.ask("/hooks/reporting", b"[]").status == 403  # nothing is let in that is not verified
        # An answer is good for a second.
        until(lambda: door.ask("/readyz", method="GET").status == 503, "it is not ready", 30)
        assert door.ask("/livez", method="GET").status == 200
        whole = json.loads(door.ask("/health", method="GET").body)
        assert (whole["status"], whole["details"]["broker"]["status"]) == ("not_ready", "ok")
        assert piped.wait(20) == os.EX_TEMPFAIL  # so the mail server keeps the bounce
    finally:
        door.fleet.postgres.start()
    until(lambda: door.report({"id": "away-1", "says": "nothing"}).status == 204, "it is taken", 30)
    door.it.db.probe()  # the test's own connections are new ones
    assert len(door.rows("away-1")) == 1
