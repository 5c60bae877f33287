"""What is watched: Flower for the engineer on call, logs, traces; what they say, and what none of them ever says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from acceptance.watched import (
    CANARIES,
    CANARY,
    PASSWORD,
    PREFORK,
    THREADS,
    TOGETHER,
    Flower,
    Told,
    Watched,
    logs,
    metrics,
    start_flower,
    tell,
    watched_fleet,
)
from faults.fleet import ROOT, RunningFleet
from flower.urls import handlers
from support.collector import Collected

from notify_tasks.errors import NotConfigured
from notify_tasks.flower_settings import apply
from notify_tasks.routing import DELIVER_TASK, SEND_TASK

STATIC = ("/static/css/flower.css", "/favicon.ico", "/robots.txt", "/no/such/page")
"""What tornado serves beside Flower's own table."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched_fleet(tmp_path_factory.mktemp("watched")) as running:
        yield running


@pytest.fixture(scope="module")
def fleet(watched: Watched) -> RunningFleet:
    return watched.fleet


@pytest.fixture(scope="module")
def flower(watched: Watched) -> Flower:
    return watched.flower


@pytest.fixture(scope="module")
def told(watched: Watched) -> Told:
    return tell(watched)


@pytest.mark.timeout(300)  # a thousand notifications
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


def test_nothing_that_flower_shows_or_logs_metrics_and_traces_say_is_personal_or_secret(
    watched: Watched, fleet: RunningFleet, flower: Flower, told: Told
) -> None:
    def refreshed() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(flower.read("/api/workers?refresh=1"))
        return found

    fleet.wait("Flower knows the workers", lambda: all("conf" in it for it in refreshed().values()), 30)
    names = list(refreshed())
    assert len(names) == 3
    columns = {
        f"columns[{n}][data]": name for n, name in enumerate(("name", "uuid", "state", "args", "result"))
    }
    table = {
        "draw": 1,
        "start": 0,
        "length": 5000,
        "search[value]": "",
        "order[0][column]": 0,
        "order[0][dir]": "asc",
    }
    pages = {
        path: flower.read(path)
        for path in (
            *("/", "/workers", "/tasks", "/broker", "/metrics", "/api/tasks?limit=5000", "/api/task/types"),
            *("/api/queues/length", "/api/workers", "/workers?json=1"),
            *(f"/api/workers?workername={name}" for name in names),
            *(f"/worker/{name}" for name in names),
            *(f"/api/task/info/{id_}" for id_ in [*told.alone, *told.ids[:50]]),
            *(
                f"/task/{id_}"
                for id_, row in told.rows.items()
                if row["retried"] or (row["state"] == "FAILURE" and id_ in told.alone)
            ),
            f"/tasks/datatable?{urlencode(table | columns)}",
        )
    }
    traces = b"".join(watched.collector.raw).decode("latin-1")
    secrets = [str(urlsplit(url).password) for url in (fleet.redis.url, fleet.postgres.url)]

    assert told.ids[0] in pages["/api/tasks?limit=5000"]  # a search that finds nothing must be able to find
    assert "redis://" in pages["/broker"]
    assert any("broker_url" in page for page in pages.values())
    counted = {f"metrics of {name}": metrics(name) for name in (THREADS, PREFORK)}
    assert all("far-" in page for page in counted.values())
    assert len(told.ids) == 1000
    assert traces.count("notify.provider") > 600
    for canary in (*CANARIES, *secrets, PASSWORD):
        for where, text in {**pages, **logs(fleet), **counted, "traces": traces}.items():
            at = text.find(canary)
            assert at < 0, f"{where} shows {canary}: {text[max(0, at - 150) : at + 80]}"


def test_without_the_password_everything_is_refused(flower: Flower, told: Told) -> None:
    asked = [path for path, _ in paths()]
    assert {"/metrics", "/healthcheck", "/login/", "/logout"} <= set(asked)
    for path in (*asked, *STATIC):
        for method in ("GET", "POST", "PUT", "OPTIONS"):
            status, body = flower.ask(path, method, known=False)
            assert (status, body) == (401, "a user and a password are needed\n"), (method, path)
    for path in ("/api/tasks", "/metrics", "/static/css/flower.css"):
        assert Flower(flower.port, "another-password").ask(path)[0] == 401
        assert flower.ask(path)[0] == 200


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
        filled = re.sub(r"\(\.[+*]\)", SEND_TASK if "/task/" in pattern else "worker-1@host", pattern)
        yield filled.rstrip("$").replace("/?", "/").replace(".*", "/anything"), handler


# --- logs ---------------------------------------------------------------------------------------------


def test_every_line_of_every_worker_is_one_json_object_and_says_what_it_is_about(
    fleet: RunningFleet, told: Told
) -> None:
    ends: dict[str, dict[str, Any]] = {}
    for name in (THREADS, PREFORK, "maint"):
        for line in logs(fleet)[name].splitlines():
            said = json.loads(line)
            assert {"timestamp", "level", "event", "process", "pid"} <= said.keys(), line
            if said.get("logger") == "celery.app.trace" and said["task"] in {SEND_TASK, DELIVER_TASK}:
                ends.setdefault(f"{said['task']} {said['task_id']}", said)

    one = ends[f"{SEND_TASK} {told.alone[0]}"]
    assert {
        name: one[name] for name in ("message_id", "attempt", "channel", "provider", "event_type", "queue")
    } == {
        "message_id": told.alone[0],
        "attempt": 1,
        "channel": "sms",
        "provider": "far-sms",
        "event_type": "fault.private",
        "queue": "notify.sms",
    }
    trace, id_ = told.traced["two hops"]
    deliveries = fleet.rows("SELECT id::text, channel FROM notify.delivery WHERE message_id = %s", id_)
    assert len(deliveries) == 2
    for delivery, channel in deliveries:
        end = ends[f"{DELIVER_TASK} {delivery}"]
        assert (end["delivery_id"], end["channel"], end["trace_id"]) == (delivery, channel, trace)
    assert "delivery_id" not in ends[f"{SEND_TASK} {id_}"]  # nothing is left over from the task before


# --- traces -------------------------------------------------------------------------------------------


def test_a_call_is_one_trace_from_its_producer_to_the_provider_whichever_way_it_goes(
    watched: Watched, told: Told
) -> None:
    whole = {"notify.accept", "notify.deliver", "notify.render", "notify.provider"}
    deliveries = {"one hop": 1, "two hops": 2, "by a sweep": 1}
    for kind, (trace, id_) in told.traced.items():

        def spans(name: str, trace: str = trace) -> list[Collected]:
            return [span for span in watched.collector.of(trace) if span.name == name]

        watched.fleet.wait(
            f"the trace of {kind}",
            lambda spans=spans, many=deliveries[kind]: (
                all(spans(name) for name in whole) and len(spans("notify.deliver")) == many
            ),
            30,
        )
        for delivered in spans("notify.deliver"):
            assert delivered.attributes["notify.message_id"] == id_
            assert delivered.attributes["notify.outcome"] == "sent"
            (provider,) = [it for it in spans("notify.provider") if it.parent == delivered.id]
            channel = delivered.attributes["notify.channel"]
            assert provider.attributes == {
                "notify.delivery_id": delivered.attributes["notify.delivery_id"],
                "notify.channel": channel,
                "notify.provider": f"far-{channel}",
                "notify.attempt": 1,
                "notify.outcome": "accepted",
                "notify.code": "202",
            }
            pool = PREFORK if channel in {"push", "chat"} else THREADS
            assert provider.process.partition("@")[0] == pool
            assert bool(delivered.links) == (kind == "by a sweep")  # the trace of the sweep that found it


def test_flower_starts_again_with_the_rows_it_had(watched: Watched, told: Told) -> None:
    watched.fleet.supervisor.end("flower")

    again = start_flower(watched.fleet, watched.fleet.directory, name="flower-again")

    kept = again.rows()
    assert kept[told.alone[0]]["result"] == told.rows[told.alone[0]]["result"] == "'sent via far-sms'"


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
    db: str = "flower"
    persistent: bool = False
    state_save_interval: int = 0


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
    assert (options.persistent, options.db) == (False, "flower")


def test_rows_outlive_a_restart_where_a_place_for_them_is_named(tmp_path: Path) -> None:
    password = {"FLOWER_PASSWORD": "geheimnisvoll"}
    named, unit = Options(db=str(tmp_path / "new" / "rows")), Options()

    apply(named, password)
    apply(unit, password | {"STATE_DIRECTORY": str(tmp_path)})

    assert (named.persistent, Path(named.db).parent.is_dir()) == (True, True)
    assert (unit.persistent, unit.db) == (True, str(tmp_path / "flower"))
    assert named.state_save_interval == unit.state_save_interval > 0
    with pytest.raises(NotConfigured, match="FLOWER_DB: no file can be written in /proc/here"):
        apply(Options(db="/proc/here/rows"), password)
