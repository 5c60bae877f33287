"""A whole fleet on this machine, for tests that break it: servers, far end, supervised workers, beat."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from notify_tasks import settings
from notify_tasks.embedded import Server, postgres_server, redis_server
from notify_tasks.routing import MAINT_QUEUE, queue_for
from notify_tasks.sandbox.process import Sandbox, start_sandbox
from notify_tasks.store.migrate import migrate
from notify_tasks.supervising import Spec, Supervisor, celery_spec, worker_spec

ROOT = Path(__file__).parents[2]
CHANNELS = ("sms", "push", "chat")
"""An idempotent, an opaque and a queryable far end, in this order."""
KIND = {"sms": "idempotent", "push": "opaque", "chat": "queryable"}

CONFIG = "\n".join(
    f"""
[providers.far-{channel}]
use = "{channel}.sandbox"
url = "env:SANDBOX_HTTP_URL"
kind = "{kind}"
timeout = 10
[channels.{channel}]
pool = ["far-{channel}"]
"""
    for channel, kind in KIND.items()
)


@dataclass(slots=True)
class RunningFleet:
    """What a fault test works with."""

    redis: Server
    postgres: Server
    sandbox: Sandbox
    supervisor: Supervisor
    directory: Path
    environment: dict[str, str]
    random: random.Random
    faults: list[float] = field(default_factory=list)

    def rows(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """Ask PostgreSQL."""
        with psycopg.connect(self.postgres.url, autocommit=True, connect_timeout=5) as connection:
            return connection.execute(statement, parameters).fetchall()

    def fault(self) -> None:
        """Note that something was broken just now: recovery is counted from the last one."""
        self.faults.append(time.monotonic())

    def kill(self, name: str) -> None:
        """SIGKILL; the supervisor starts another."""
        self.supervisor.signal(name, signal.SIGKILL)
        self.fault()

    def wait_ready(self, seconds: float = 60) -> None:
        """Wait until every process has said that it is ready."""
        said = {
            name: b"beat: Starting" if name.startswith("beat") else b" ready."
            for name in self.supervisor.names()
        }
        deadline = time.monotonic() + seconds
        while missing := [
            name for name, word in said.items() if word not in self.supervisor.log_path(name).read_bytes()
        ]:
            assert time.monotonic() < deadline, (
                f"{', '.join(missing)} did not start; logs in {self.directory}"
            )
            time.sleep(0.1)

    def wait(self, what: str, condition: Callable[[], bool], seconds: float) -> float:
        """Wait for a condition and return how long it took; past the deadline, fail with the states there are."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            try:
                if condition():
                    return time.monotonic() - begun
            except psycopg.OperationalError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"{what}: not within {seconds:.0f} s; {self.summary()}")

    def summary(self) -> str:
        """Deliveries by state, intake rows, ledger entries, counters: what an engineer would ask first."""
        states = self.rows("SELECT state, reason, count(*) FROM notify.delivery GROUP BY 1, 2 ORDER BY 1, 2")
        intake = self.rows("SELECT origin, count(*) FROM notify.intake GROUP BY 1")
        counters = self.rows("SELECT name, value FROM notify.counter")
        return f"deliveries {states}, intake {intake}, counters {counters}; logs in {self.directory}"

    def unfinished(self) -> int:
        """Deliveries that are not in a final state, and calls that are not planned."""
        (row,) = self.rows(
            "SELECT (SELECT count(*) FROM notify.delivery WHERE state IN ('held', 'queued', 'retrying', 'sending'))"
            " + (SELECT count(*) FROM notify.intake)"
        )
        return int(str(row[0]))

    def known(self) -> int:
        """How many message ids have been planned."""
        ((n,),) = self.rows("SELECT count(*) FROM notify.message_key")
        return int(str(n))


def workers(
    app: str = "notify_tasks", *, count: int = 2, threads: int = 8, channels: Sequence[str] = CHANNELS
) -> list[Spec]:
    """Workers that serve every queue of the test, and the maintenance process."""
    queues = [queue_for(stage, lane) for stage in ("intake", *channels) for lane in ("high", "normal")]
    return [
        *(worker_spec(f"worker-{n}", queues, threads=threads, app=app) for n in range(1, count + 1)),
        worker_spec("maint", [MAINT_QUEUE], threads=2, app=app),
    ]


def beat(n: int = 1, app: str = "notify_tasks") -> Spec:
    """A beat. More than one may run."""
    return celery_spec(f"beat-{n}", "beat", "--loglevel", "INFO", app=app)


@contextmanager
def running_fleet(
    directory: Path,
    specs: Sequence[Spec],
    *,
    durable_postgres: bool = False,
    seed: int = 20_261_123,
    environment: dict[str, str] | None = None,
) -> Iterator[RunningFleet]:
    """Start everything, and stop it at the end.

    Args:
        directory: of the test.
        specs: the processes to supervise.
        durable_postgres: fsync on; needed where PostgreSQL itself is crashed.
        seed: of the faults' times and targets; print it, so that a failure can be run again.
        environment: more variables.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(directory / "redis", use_environment=False))
        postgres = stack.enter_context(
            postgres_server(directory / "postgres", durable=durable_postgres, use_environment=False)
        )
        migrate(postgres.url)
        sandbox = start_sandbox(directory / "sandbox", seed=seed)
        stack.callback(sandbox.stop)
        config = directory / "notify.toml"
        config.write_text(CONFIG)
        full = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NOTIFY_BROKER_URL": redis.url,
            "NOTIFY_DATABASE_URL": postgres.url,
            "NOTIFY_CONFIG": str(config),
            "NOTIFY_TEMPLATES": str(Path(__file__).parent / "templates"),
            **sandbox.ready.environment,
            **(environment or {}),
        }
        supervisor = stack.enter_context(Supervisor(directory / "logs", full, cwd=ROOT))
        for spec in specs:
            supervisor.start(spec)
        settings.reset()
        settings.configure(broker_url=redis.url, database_url=postgres.url)
        stack.callback(settings.reset)
        fleet = RunningFleet(redis, postgres, sandbox, supervisor, directory, full, random.Random(seed))
        fleet.wait_ready()
        yield fleet
