"""Flower for the engineer on call: what its rows say, what it never says, and that it changes nothing."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from faults.fleet import ROOT, RunningFleet, beat, running_fleet, workers
from flower.urls import handlers
from support.ports import free_port

from notify_tasks import send_notification
from notify_tasks.errors import NotConfigured
from notify_tasks.flower_settings import apply
from notify_tasks.routing import DELIVER_TASK, SEND_TASK
from notify_tasks.supervising import celery_spec

PASSWORD = "flowers-own-password"
CANARY = "zqcanary"
"""Part of every body, payload value, room and id that must stay private."""
GOOD_NUMBERS, DEAD_NUMBERS, REFUSED_NUMBERS = "+491511987", "+1555410", "+1555400"
CANARIES = [CANARY, *(number[1:] for number in (GOOD_NUMBERS, DEAD_NUMBERS, REFUSED_NUMBERS))]
CALLS = 200
TOGETHER = [f"{DEAD_NUMBERS}{n}" for n in (2000, 2001)]
ALONE = (1000, 1002, 1003, 1006)
RETRIED = 41
"""One more than the calls that go to a chat in one hop: some `deliver` is retried, whoever comes first."""
ENDED = ("SUCCESS", "FAILURE")
TEMPLATES = Path(__file__).parents[1] / "faults" / "templates"
OPEN = ("/metrics", "/healthcheck", "/static/", "/login", "/logout", ".*")
"""Flower leaves these open, as it documents: numbers by worker and task name, a word, files of its own."""


@dataclass(slots=True)
class Flower:
    """Flower as a browser or a script sees it."""

    port: int
    password: str = field(default=PASSWORD, repr=False)

    def ask(self, path: str, method: str = "GET", *, known: bool = True) -> tuple[int, str]:
        """The status and the body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        token = base64.b64encode(f"oncall:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {token}"} if known else {}
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()

    def read(self, path: str) -> str:
        """The body of what is there."""
        status, body = self.ask(path)
        assert status == 200, (path, status, body[:500])
        return body

    def rows(self) -> dict[str, dict[str, Any]]:
        """Every task row by task id."""
        found: dict[str, dict[str, Any]] = json.loads(self.read("/api/tasks"))
        return found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    directory = tmp_path_factory.mktemp("flower")
    private = directory / "templates" / "fault.private"
    shutil.copytree(TEMPLATES / "fault.ping", private)
    policy = private / "notification.toml"
    policy.write_text(policy.read_text() + '[payload.properties.word]\ntype = "string"\n')
    (private / "sms.txt").write_text(f"{CANARY}-body {{{{ payload.n }}}} {{{{ payload.word }}}}\n")
    (private / "chat.md").write_text(f"{CANARY}-body {{{{ payload.n }}}} {{{{ payload.word }}}}\n")
    (private / "example.json").write_text('{"n": 1, "word": "one"}\n')
    environment = {"NOTIFY_TEMPLATES": str(directory / "templates")}
    with running_fleet(directory, [*workers(count=1), beat()], environment=environment) as running:
        yield running


@pytest.fixture(scope="module")
def flower(fleet: RunningFleet) -> Flower:
    port = free_port()
    fleet.supervisor.start(
        celery_spec("flower", "flower", environment={"FLOWER_PASSWORD": PASSWORD, "FLOWER_PORT": str(port)})
    )
    flower = Flower(port)

    def answers() -> bool:
        try:
            return flower.ask("/healthcheck", known=False)[0] == 200
        except OSError:
            return False

    fleet.wait("Flower answers", answers, 30)
    deadline = time.monotonic() + 30
    while not flower.rows():  # it switches the workers' events on every five seconds
        assert time.monotonic() < deadline, "no task shows up in Flower"
        send_notification.delay(
            "fault.private", to={"sms": f"{GOOD_NUMBERS}0000"}, payload={"n": 0, "word": CANARY}
        )
        time.sleep(0.5)
    return flower


@dataclass(frozen=True, slots=True)
class Told:
    """What a test may rely on after all calls have ended."""

    rows: dict[str, dict[str, Any]]
    ids: list[str]
    alone: list[str]


@pytest.fixture(scope="module")
def told(fleet: RunningFleet, flower: Flower) -> Told:
    """Two hundred calls full of canaries, all ended, and their rows in Flower."""
    fleet.sandbox.set_mode("chat", "500", times=RETRIED)
    ids = [call(n) for n in range(CALLS)]
    wait_ended(fleet, ids, 40)
    alone = []
    for n in ALONE:  # with nothing beside them, for which they would be held
        alone.append(call(n))
        wait_ended(fleet, alone)
    at = datetime.now(UTC) + timedelta(seconds=2)
    due: dict[str, Any] = {"payload": {"n": 1, "word": CANARY}, "at": at}
    together = [send_notification.delay("fault.private", to={"sms": it}, **due).id for it in TOGETHER]
    wait_ended(fleet, together)
    failed = fleet.rows("SELECT count(*) FROM notify.delivery WHERE state = 'failed'")
    deadline = time.monotonic() + 30
    while lacking := lacks(flower.rows(), [*ids, *alone], failures=int(str(failed[0][0]))):
        assert time.monotonic() < deadline, f"Flower lacks {lacking}; logs in {fleet.directory}"
        time.sleep(0.2)
    return Told(flower.rows(), ids, alone)


def wait_ended(fleet: RunningFleet, ids: list[str], seconds: float = 20) -> None:
    """Wait until these calls are planned and nothing is on its way."""

    def ended() -> bool:
        planned = fleet.rows("SELECT count(*) FROM notify.message_key WHERE message_id = ANY(%s)", ids)
        return planned == [(len(ids),)] and not fleet.unfinished()

    fleet.wait("the calls end", ended, seconds)


def lacks(rows: dict[str, dict[str, Any]], ids: list[str], *, failures: int) -> list[str]:
    """What Flower does not show yet."""
    found = [
        f"the end of {row['name']} {id_} ({row['state']})"
        for id_, row in rows.items()
        if row["state"] not in ENDED
    ]
    found += [f"a row of {id_}" for id_ in ids if id_ not in rows]
    # What a sweep wakes together is one row: "2 of 5: 400, 410".
    ends = [str(row["exception"]) for row in rows.values() if row["state"] == "FAILURE"]
    shown = sum(int(several[1]) if (several := re.search(r"(\d+) of \d+:", end)) else 1 for end in ends)
    return found if shown == failures else [*found, f"{failures} failures (it shows {shown})"]


def call(n: int) -> str:
    """One of several kinds: fine, to a dead number, refused, retried, wrong in what only a worker sees."""
    payload: dict[str, object] = {"n": n, "word": f"{CANARY}-secret-{n}"}
    number = f"{GOOD_NUMBERS}{n:04}"
    calls: list[dict[str, Any]] = [
        {"to": {"sms": number}, "channels": ["sms"]},
        {"to": {"sms": number, "chat": f"{CANARY}-room-{n}"}},
        {"to": {"sms": f"{DEAD_NUMBERS}{n:04}"}, "channels": ["sms"]},
        {"to": {"sms": f"{REFUSED_NUMBERS}{n:04}", "push": f"{CANARY}-token-{n}"}},
        {"to": {"chat": f"{CANARY}-room-{n}"}, "channels": ["chat"]},
        {"to": {"chat": f"{CANARY}-room-{n}"}, "channels": ["chat"], "priority": "high"},
        {"to": f"{CANARY}-person-{n}"},
        {"to": {"sms": number}, "payload": {"n": f"{CANARY}-number-{n}"}},
        {"to": {"sms": number}, "payload": {"n": n, f"{CANARY}-key": 1}},
        {"to": {"id": f"{CANARY}-id-{n}", "push": f"{CANARY}-token-{n}"}, "channels": ["push"]},
    ]
    return send_notification.delay("fault.private", **({"payload": payload} | calls[n % len(calls)])).id


def test_a_row_says_what_became_of_a_delivery(fleet: RunningFleet, told: Told) -> None:
    sent_id, dead_id, _, unknown_id = told.alone
    sent, dead, unknown = (told.rows[id_] for id_ in (sent_id, dead_id, unknown_id))

    assert (sent["name"], sent["state"], sent["result"]) == (SEND_TASK, "SUCCESS", "'sent via far-sms'")
    assert sent["args"] == f"('fault.private', '{sent_id}', 'sms')"
    assert sent["kwargs"] == "{}"
    assert (dead["state"], dead["exception"]) == ("FAILURE", "DeliveryFailed('410')")
    assert (unknown["state"], unknown["result"]) == ("SUCCESS", "'rejected: unknown_recipient'")


def test_a_delivery_has_its_id_and_stands_under_its_message(fleet: RunningFleet, told: Told) -> None:
    deliveries = fleet.rows(
        "SELECT id::text, channel, state, reason FROM notify.delivery WHERE message_id = %s", told.alone[2]
    )
    assert {state for _, _, state, _ in deliveries} == {"sent", "failed"}
    for id_, channel, state, _ in deliveries:
        row = told.rows[str(id_)]
        assert (row["name"], row["root_id"]) == (DELIVER_TASK, told.alone[2])
        assert row["args"] == f"('fault.private', '{told.alone[2]}', '{channel}')"
        shown = {"sent": ("SUCCESS", None), "failed": ("FAILURE", "DeliveryFailed('400')")}
        assert (row["state"], row["exception"]) == shown[str(state)]


def test_deliveries_that_were_woken_together_are_one_row_which_shows_their_failures(told: Told) -> None:
    several = [row for row in told.rows.values() if row["args"] == f"({len(TOGETHER)} deliveries)"]

    assert ("FAILURE", "DeliveryFailed('2 of 2: 410')") in [
        (row["state"], row["exception"]) for row in several
    ]


def test_a_retried_delivery_keeps_its_name_and_says_why(told: Told, flower: Flower) -> None:
    retried = [row for row in told.rows.values() if row["retried"]]
    assert retried
    for row in retried:
        details = json.loads(flower.read(f"/api/task/info/{row['uuid']}"))
        assert re.fullmatch(r"\('fault\.private', '[0-9a-f-]{36}', 'chat'\)", details["args"])
        assert details["root_id"] in told.ids
        assert "TryLater" in details["exception"]
        assert details["state"] == "SUCCESS"


def test_nothing_that_flower_shows_or_the_logs_say_is_personal_or_secret(
    fleet: RunningFleet, flower: Flower, told: Told
) -> None:
    def refreshed() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(flower.read("/api/workers?refresh=1"))
        return found

    fleet.wait("Flower knows the workers", lambda: all("conf" in it for it in refreshed().values()), 20)
    names = list(refreshed())
    assert len(names) == 2
    columns = {
        f"columns[{n}][data]": name for n, name in enumerate(("name", "uuid", "state", "args", "result"))
    }
    table = {
        "draw": 1,
        "start": 0,
        "length": 1000,
        "search[value]": "",
        "order[0][column]": 0,
        "order[0][dir]": "asc",
    }
    pages = {
        path: flower.read(path)
        for path in (
            *("/", "/workers", "/tasks", "/broker", "/metrics", "/api/tasks?limit=1000", "/api/task/types"),
            *("/api/queues/length", "/api/workers", "/workers?json=1"),
            *(f"/api/workers?workername={name}" for name in names),
            *(f"/worker/{name}" for name in names),
            *(f"/api/task/info/{id_}" for id_ in told.rows),
            *(
                f"/task/{id_}"
                for id_, row in told.rows.items()
                if row["retried"] or row["state"] == "FAILURE"
            ),
            f"/tasks/datatable?{urlencode(table | columns)}",
        )
    }
    logs = {log.name: log.read_text(errors="replace") for log in (fleet.directory / "logs").glob("*.log")}
    secrets = [str(urlsplit(url).password) for url in (fleet.redis.url, fleet.postgres.url)]

    assert told.ids[0] in pages["/api/tasks?limit=1000"]  # a search that finds nothing must be able to find
    assert "redis://" in pages["/broker"]
    assert any("broker_url" in page for page in pages.values())
    for canary in (*CANARIES, *secrets, PASSWORD):
        for where, text in {**pages, **logs}.items():
            at = text.find(canary)
            assert at < 0, f"{where} shows {canary}: {text[max(0, at - 150) : at + 80]}"


def test_without_the_password_everything_is_refused_but_what_flower_documents_as_open(
    flower: Flower, told: Told
) -> None:
    refused = 0
    for path, _ in paths():
        for method in ("GET", "POST"):
            status, body = flower.ask(path, method, known=False)
            assert status in {401, 405}, (method, path, status)
            assert not any(canary in body for canary in CANARIES)
            refused += status == 401
    assert refused >= len(list(paths()))
    assert Flower(flower.port, "another-password").ask("/api/tasks")[0] == 401
    assert flower.ask("/healthcheck", known=False) == (200, "OK")
    for path in ("/metrics", "/login", "/logout", "/static/css/flower.css", "/no/such/page"):
        body = flower.ask(path, known=False)[1]
        assert not any(private in body for private in (*CANARIES, *told.ids, PASSWORD)), path


def test_nothing_can_be_changed_from_flower(fleet: RunningFleet, flower: Flower, told: Told) -> None:
    calls = [path for path, handler in paths() if "post" in vars(handler) and path.startswith("/api/")]
    assert len(calls) >= 14

    for path in calls:
        status, said = flower.ask(path, "POST")
        assert (status, said) == (403, "Read only mode is enabled"), path

    assert {name: fleet.supervisor.restarts(name) for name in fleet.supervisor.names()} == dict.fromkeys(
        fleet.supervisor.names(), 0
    )


def paths() -> Iterator[tuple[str, type]]:
    """Every path that Flower serves with a worker or task filled in, as its own table has them."""
    for entry in handlers:
        pattern, handler = (
            (entry.regex.pattern, entry.handler_class) if hasattr(entry, "regex") else (entry[0], entry[1])
        )
        if not pattern.startswith(OPEN):
            filled = re.sub(r"\(\.[+*]\)", SEND_TASK if "/task/" in pattern else "worker-1@host", pattern)
            yield filled.rstrip("$"), handler


BROKEN = f"""
import traceback
from notify_tasks.celery import app
from notify_tasks.tasks import Shown

@app.task(base=Shown)
def broken(address):
    try:
        {{}}[address]
    except KeyError as error:
        raise ValueError(f"no such address: {{address}}") from error

try:
    broken("{CANARY}@example.com")
except Exception:
    traceback.print_exc()
"""


def test_a_fault_of_ours_is_shown_by_its_kind_and_place_without_its_words() -> None:
    """In a process of its own: the worker's module makes its app the current one."""
    done = subprocess.run(
        [sys.executable, "-c", BROKEN], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "notify_tasks.tasks.Unexpected: ValueError at <string>:11 < tasks.py:" in done.stderr
    assert CANARY not in done.stderr


# --- settings -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Options:
    """Flower's options, as far as they matter here."""

    read_only: bool = False
    debug: bool = True
    basic_auth: list[str] | None = None
    auth: str = ""
    address: str = ""
    unix_socket: str = ""
    max_tasks: int = 100_000
    tasks_columns: str = "name,uuid,state,received,runtime,worker"


@pytest.mark.parametrize(
    ("options", "variables", "said"),
    [
        (Options(), {}, "needs a password"),
        (Options(), {"FLOWER_PASSWORD": ""}, "needs a password"),
        (Options(), {"FLOWER_PASSWORD": "short"}, "protects nothing"),
        (Options(), {"FLOWER_PASSWORD": "geheimnisvoll-grün"}, "ASCII"),
        (Options(), {"FLOWER_PASSWORD_FILE": "/nowhere/at/all"}, "cannot be read"),
        (Options(basic_auth=["oncall:"]), {}, "protects nothing"),
        (Options(basic_auth=["oncall"]), {}, "protects nothing"),
    ],
)
def test_flower_does_not_start_without_a_password_that_protects(
    options: Options, variables: dict[str, str], said: str
) -> None:
    with pytest.raises(NotConfigured, match=said):
        apply(options, variables)


def test_what_is_set_for_flower_is_kept_and_it_is_read_only_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from-a-file\n")
    options = Options(address="0.0.0.0", max_tasks=5)

    apply(options, {"FLOWER_PASSWORD_FILE": str(file), "FLOWER_USER": "ana"})

    assert options.basic_auth == ["ana:from-a-file"]
    assert (options.read_only, options.debug) == (True, False)
    assert (options.address, options.max_tasks) == ("0.0.0.0", 5)
    assert Options().address == ""
