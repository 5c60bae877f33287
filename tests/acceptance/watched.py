"""A fleet that is watched in every way at once, and a thousand notifications full of what must stay private."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from faults.fleet import ROOT, RunningFleet, beat, running_fleet
from opentelemetry.sdk.trace import TracerProvider
from support.collector import Collector, open_collector
from support.ports import free_port

from notify_tasks import send_notification
from notify_tasks.routing import MAINT_QUEUE, queue_for
from notify_tasks.supervising import Spec, celery_spec, worker_spec

PASSWORD: Final = "flowers-own-password"
PREFIX: Final = "/flower"
CANARY: Final = "zqcanary"
"""Part of every body, payload value, room, mail address and id that must stay private."""
GOOD_NUMBERS, DEAD_NUMBERS, REFUSED_NUMBERS = "+491511987", "+1555410", "+1555400"
CANARIES = [CANARY, *(number[1:] for number in (GOOD_NUMBERS, DEAD_NUMBERS, REFUSED_NUMBERS))]
CALLS = 1000
TOGETHER = [f"{DEAD_NUMBERS}{n}" for n in (2000, 2001)]
ALONE = (6000, 6002, 6003, 6006)
ENDED = ("SUCCESS", "FAILURE")
TEMPLATES = ROOT / "tests/faults/templates"
CHANNELS = ("sms", "push", "chat", "email", "webhook")
BODY = f"{CANARY}-body {{{{ payload.n }}}} {{{{ payload.word }}}}\n"
THREADS, PREFORK = "worker-1", "worker-2"
METRICS = {THREADS: free_port(), PREFORK: free_port()}


@dataclass(slots=True)
class Flower:
    """Flower as a browser or a script sees it, behind its prefix."""

    port: int
    password: str = field(default=PASSWORD, repr=False)

    def ask(self, path: str, method: str = "GET", *, known: bool = True) -> tuple[int, str]:
        """The status and the body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        token = base64.b64encode(f"oncall:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {token}"} if known else {}
        try:
            connection.request(method, PREFIX + path, headers=headers)
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


@dataclass(frozen=True, slots=True)
class Watched:
    """The fleet and who watches it."""

    fleet: RunningFleet
    collector: Collector
    flower: Flower


@dataclass(frozen=True, slots=True)
class Told:
    """What a test may rely on after all calls have ended."""

    rows: dict[str, dict[str, Any]]
    ids: list[str]
    alone: list[str]
    traced: dict[str, tuple[str, str]]
    """By kind: the trace of a call and its message id."""


def specs() -> list[Spec]:
    """One worker on threads and one on prefork, which share the channels; maintenance; beat."""
    queues = {
        name: [queue_for(stage, lane) for stage in stages for lane in ("high", "normal")]
        for name, stages in ((THREADS, ("intake", "sms", "email", "webhook")), (PREFORK, ("push", "chat")))
    }
    threads, prefork = (
        worker_spec(name, queues[name], threads=n) for name, n in ((THREADS, 8), (PREFORK, 2))
    )
    return [
        Spec(THREADS, threads.command, {"NOTIFY_METRICS_PORT": str(METRICS[THREADS])}),
        Spec(
            PREFORK,
            tuple("prefork" if word == "threads" else word for word in prefork.command),
            {"NOTIFY_METRICS_PORT": str(METRICS[PREFORK])},
        ),
        worker_spec("maint", [MAINT_QUEUE], threads=2),
        beat(),
    ]


@contextmanager
def watched_fleet(directory: Path) -> Iterator[Watched]:
    """Start it: JSON logs, traces to a collector of the test, Flower behind a prefix."""
    private = directory / "templates" / "fault.private"
    shutil.copytree(TEMPLATES / "fault.ping", private)
    policy = private / "notification.toml"
    policy.write_text(
        policy.read_text().replace('"chat"]', '"chat", "email", "webhook"]')
        + '[payload.properties.word]\ntype = "string"\n'
    )
    for name in ("sms.txt", "chat.md", "email.txt", "email.html", "email.subject.txt"):
        (private / name).write_text(BODY)
    (private / "webhook.json").write_text(json.dumps({"said": BODY.strip()}))
    (private / "example.json").write_text('{"n": 1, "word": "one"}\n')
    config = directory / "watched.toml"
    config.write_text(
        "".join(
            f'[providers.far-{channel}]\nuse = "{channel}.sandbox"\nurl = "env:SANDBOX_HTTP_URL"\n'
            f'kind = "idempotent"\ntimeout = 10\n[channels.{channel}]\npool = ["far-{channel}"]\n'
            for channel in CHANNELS
        )
    )
    with ExitStack() as stack:
        collector = stack.enter_context(open_collector())
        environment = {
            "NOTIFY_TEMPLATES": str(directory / "templates"),
            "NOTIFY_CONFIG": str(config),
            "NOTIFY_LOG_FORMAT": "json",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            "OTEL_BSP_MAX_QUEUE_SIZE": "20000",
        }
        fleet = stack.enter_context(running_fleet(directory, specs(), environment=environment))
        flower = start_flower(fleet, directory)
        _wait_rows(flower)
        yield Watched(fleet, collector, flower)


def start_flower(fleet: RunningFleet, directory: Path, name: str = "flower") -> Flower:
    """Start it, and wait until it answers."""
    port = free_port()
    variables = {
        "FLOWER_PASSWORD": PASSWORD,
        "FLOWER_PORT": str(port),
        "FLOWER_URL_PREFIX": PREFIX.strip("/"),
        "FLOWER_DB": str(directory / "flower" / "rows"),
    }
    fleet.supervisor.start(celery_spec(name, "flower", environment=variables))
    flower = Flower(port)

    def answers() -> bool:
        try:
            return flower.ask("/", known=False)[0] == 401
        except OSError:
            return False

    fleet.wait("Flower answers", answers, 60)
    return flower


def _wait_rows(flower: Flower) -> None:
    deadline = time.monotonic() + 30
    while not flower.rows():  # it switches the workers' events on every five seconds
        assert time.monotonic() < deadline, "no task shows up in Flower"
        send_notification.delay(
            "fault.private", to={"sms": f"{GOOD_NUMBERS}0000"}, payload={"n": 0, "word": CANARY}
        )
        time.sleep(0.5)


# --- what is sent -------------------------------------------------------------------------------------


def tell(watched: Watched) -> Told:
    """A thousand calls full of canaries, all ended, and their rows in Flower."""
    fleet, flower = watched.fleet, watched.flower
    fleet.sandbox.set_mode("chat", "500", rate=0.2, times=60)
    ids = [call(n) for n in range(CALLS)]
    wait_ended(fleet, ids, 100)
    fleet.sandbox.clear_modes()
    alone = []
    for n in ALONE:  # with nothing beside them, for which they would be held
        alone.append(call(n))
        wait_ended(fleet, alone)
    at = datetime.now(UTC) + timedelta(seconds=2)
    due: dict[str, Any] = {"payload": {"n": 1, "word": CANARY}, "at": at}
    together = [send_notification.delay("fault.private", to={"sms": it}, **due).id for it in TOGETHER]
    traced = {
        "one hop": _traced(to={"sms": f"{GOOD_NUMBERS}9000"}, channels=["sms"]),
        "two hops": _traced(to={"sms": f"{GOOD_NUMBERS}9001", "push": f"{CANARY}-token"}),
        "by a sweep": _traced(to={"chat": f"{CANARY}-room"}, channels=["chat"], at=at),
    }
    wait_ended(fleet, [*together, *(id_ for _, id_ in traced.values())])
    failed = fleet.rows("SELECT count(*) FROM notify.delivery WHERE state = 'failed'")
    deadline = time.monotonic() + 60
    while lacking := lacks(flower.rows(), [*ids, *alone], failures=int(str(failed[0][0]))):
        assert time.monotonic() < deadline, f"Flower lacks {lacking[:20]}; logs in {fleet.directory}"
        time.sleep(0.5)
    return Told(flower.rows(), ids, alone, traced)


def _traced(**call: Any) -> tuple[str, str]:
    """A call within a span of a host that has OpenTelemetry: the trace and the message id."""
    with TracerProvider().get_tracer("host").start_as_current_span("order placed") as span:
        made = send_notification.delay("fault.private", payload={"n": 1, "word": CANARY}, **call)
    return f"{span.get_span_context().trace_id:032x}", made.id


def wait_ended(fleet: RunningFleet, ids: list[str], seconds: float = 30) -> None:
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
    # What a sweep wakes together is one row: "2 of 5: 400, 410". Where a delivery was held before it failed, its row
    # has the exception under SUCCESS: in Celery's order of states that one outranks a failure.
    ends = [end for row in rows.values() if (end := str(row["exception"])).startswith("DeliveryFailed")]
    shown = sum(int(several[1]) if (several := re.search(r"(\d+) of \d+:", end)) else 1 for end in ends)
    return found if shown == failures else [*found, f"{failures} failures (it shows {shown})"]


def call(n: int) -> str:
    """One of several kinds: fine, to a dead number, refused, retried, wrong in what only a worker sees."""
    payload: dict[str, object] = {"n": n, "word": f"{CANARY}-secret-{n}"}
    number, mail = f"{GOOD_NUMBERS}{n:04}", f"{CANARY}-{n}@shop.example"
    hook = f"https://hooks.shop.example/{CANARY}-{n}?token={CANARY}-key"
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
        {"to": {"email": mail}, "channels": ["email"]},
        {"to": {"webhook": hook}, "channels": ["webhook"]},
    ]
    kind = n % len(calls) if n < CALLS else n % 1000
    return send_notification.delay("fault.private", **({"payload": payload} | calls[kind])).id


def metrics(worker: str) -> str:
    """What a worker counts."""
    connection = HTTPConnection("127.0.0.1", METRICS[worker], timeout=30)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def logs(fleet: RunningFleet) -> dict[str, str]:
    """What each process has written."""
    return {log.stem: log.read_text(errors="replace") for log in (fleet.directory / "logs").glob("*.log")}
