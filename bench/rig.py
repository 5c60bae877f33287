"""The servers, the provider's far end, and the workers that are measured: all in a directory that is removed."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import redis

from bench import noop
from notify_tasks import settings
from notify_tasks.embedded import Server, postgres_server, redis_server
from notify_tasks.routing import queue_for
from notify_tasks.sandbox.process import Sandbox, sandbox_process
from notify_tasks.store.migrate import migrate
from notify_tasks.supervising import Supervisor, worker_spec

ROOT: Final = Path(__file__).parents[1]
LOOKS: Final = 4
LOOK_SECONDS: Final = 0.05
CONFIG: Final = """
[providers.far]
use = "sms.sandbox"
url = "env:SANDBOX_HTTP_URL"
kind = "idempotent"
timeout = 10
[providers.inbox]
use = "inapp.store"
[channels.sms]
pool = ["far"]
[channels.inapp]
pool = ["inbox"]
"""


def wait_until(what: str, condition: Callable[[], bool], *, seconds: float, every: float = 0.05) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it did not come true in time.
    """
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(
                f"{what}: not within {seconds:.0f} s; run again on a quieter machine, or see the logs"
            )
        time.sleep(every)


@dataclass(slots=True)
class Workers:
    """Some processes of one kind that serve one queue; stopped except while they are measured."""

    names: list[str]
    queue: str
    client: redis.Redis
    """On the Redis database that holds the queue."""
    supervisor: Supervisor

    def pids(self) -> list[int]:
        """The process ids."""
        return [self.supervisor.pid(name) for name in self.names]

    def freeze(self) -> None:
        """SIGSTOP, and wait until Redis has nobody left who waits for a message: it would still be handed over."""
        for name in self.names:
            self.supervisor.signal(name, signal.SIGSTOP)
        wait_until("stopped workers let go of Redis", self._nobody_waits, seconds=30)

    def thaw(self) -> None:
        """SIGCONT."""
        for name in self.names:
            self.supervisor.signal(name, signal.SIGCONT)

    def left(self) -> int:
        """Messages that are queued or not acknowledged."""
        pipe = self.client.pipeline(transaction=False)
        pipe.llen(self.queue)
        pipe.hlen("unacked")
        return sum(pipe.execute())

    def drain(self, *, seconds: float) -> float:
        """Wait until nothing is left, and return when that was (`time.perf_counter`).

        Between popping a message and registering it Celery has it in neither place: one look is not enough.
        """
        ends = time.monotonic() + seconds
        since, looks = 0.0, 0
        while looks < LOOKS:
            if time.monotonic() > ends:
                raise TimeoutError(
                    f"{self.queue} was not drained within {seconds:.0f} s; see the workers' logs"
                )
            time.sleep(LOOK_SECONDS)
            now = time.perf_counter()
            if self.left():
                looks = 0
            else:
                since = since if looks else now
                looks += 1
        return since

    def _nobody_waits(self) -> bool:
        facts: dict[str, int] = self.client.info("clients")
        return facts["blocked_clients"] == 0


@dataclass(slots=True)
class Rig:
    """What a benchmark works with."""

    redis: Server
    postgres: Server
    sandbox: Sandbox
    supervisor: Supervisor
    noop_url: str

    def start(
        self, name: str, queue: str, *, processes: int, threads: int, app: str = "notify_tasks"
    ) -> Workers:
        """Start workers, with the same command line for the fleet and for the baseline."""
        names = [f"{name}-{n}" for n in range(1, processes + 1)]
        for one in names:
            self.supervisor.start(worker_spec(one, [queue], threads=threads, app=app))
        wait_until(f"start of {name}", lambda: all(self._ready(one) for one in names), seconds=60)
        url = self.noop_url if app != "notify_tasks" else self.redis.url
        return Workers(names, queue, redis.Redis.from_url(url), self.supervisor)

    def rows(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """Ask PostgreSQL."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            return connection.execute(statement, parameters).fetchall()

    def execute(self, statement: str, *parameters: object) -> None:
        """Run a statement that returns nothing."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(statement, parameters or None)

    def _ready(self, name: str) -> bool:
        log = self.supervisor.log_path(name).read_text(errors="replace")
        if self.supervisor.restarts(name):
            raise RuntimeError(f"worker {name} ended while it started; it wrote:\n{log[-2000:]}")
        return " ready." in log


SMS_QUEUE: Final = queue_for("sms")
INAPP_QUEUE: Final = queue_for("inapp")


@contextmanager
def running_rig(seed: int) -> Iterator[Rig]:
    """Start the servers and the far end on free ports; stop everything at the end.

    Args:
        seed: of the far end.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="notify-bench-")))
        store = stack.enter_context(redis_server(directory / "redis", use_environment=False))
        postgres = stack.enter_context(
            postgres_server(directory / "postgres", durable=True, use_environment=False)
        )
        migrate(postgres.url)
        sandbox = stack.enter_context(sandbox_process(directory / "sandbox", seed=seed))
        config = directory / "notify.toml"
        config.write_text(CONFIG)
        noop_url = store.url.removesuffix("/0") + "/1"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFY_")}
        environment = {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "NOTIFY_BROKER_URL": store.url,
            "NOTIFY_DATABASE_URL": postgres.url,
            "NOTIFY_CONFIG": str(config),
            "NOTIFY_TEMPLATES": str(ROOT / "templates"),
            **sandbox.ready.environment,
            noop.URL_VARIABLE: noop_url,
        }
        supervisor = stack.enter_context(Supervisor(directory / "logs", environment, cwd=ROOT))
        settings.reset()
        settings.configure(broker_url=store.url, database_url=postgres.url)
        stack.callback(settings.reset)
        noop.app.conf.update(broker_url=noop_url)
        stack.callback(noop.app.close)
        yield Rig(store, postgres, sandbox, supervisor, noop_url)
