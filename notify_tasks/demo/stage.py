"""The demo's stage: servers, far end, workers, beat, gateway and Flower, all on free ports of this machine."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from notify_tasks import routing
from notify_tasks.demo.running import ENV_FILE, DemoError, owned, write_environment
from notify_tasks.embedded import Server, postgres_server, redis_server
from notify_tasks.sandbox import Sandbox, sandbox_process
from notify_tasks.store.database import Database
from notify_tasks.store.migrate import migrate
from notify_tasks.supervising import Spec, Supervisor, celery_spec, worker_spec
from notify_tasks.terminal.output import Line, bold

TIMEOUT_SECONDS: Final = 5
"""Of a provider's call; a lease is 30 s longer."""
THREADS: Final = 8
FEW_THREADS: Final = 8
"""Of the worker that is killed: half as many mails of one provider at most are in its hands."""
START_WITHIN: Final = 90.0
LOOK_EVERY: Final = 0.1
FLOWER_PORT: Final = 5555
FLOWER_USER: Final = "demo"
DATABASE_FILE: Final = "database.url"
"""In the far end's folder: its page, which starts together with the database, finds that by it."""

ENVIRONMENT: Final = "dev"
"""The demo runs on the repository's own configuration for development, in which the sandbox plays every provider."""
CRASHED: Final = ("SMTP_MAIN", "SENDGRID")
"""Providers of the worker that is killed: what it has in its hands waits for the end of a lease, so calls are short."""
GATEWAY_PORT: Final = 8080

GATEWAY: Final = "import sys; from notify_tasks.cli import main; sys.exit(main())"
"""`notify`, by this interpreter, wherever its script is."""

# A lane is a queue. One worker has the high lane of every stage, so that nothing can make it wait; normal and
# bulk share a worker here, to spare a small machine another process.
WORKERS: Final[Mapping[str, tuple[str, ...]]] = {
    "intake": (routing.INTAKE,),
    "email": ("email",),
    "phone": ("sms", "push", "webpush"),
    "inbox": ("inapp", "webhook", "chat"),
}


@dataclass(frozen=True, slots=True)
class Flower:
    """Where Flower is, and who may look."""

    url: str
    user: str
    password: str = field(repr=False)


@dataclass(slots=True)
class Stage:
    """What runs.

    Args:
        up_seconds: how long it took, without the making of a new database.
    """

    directory: Path
    root: Path
    redis: Server
    postgres: Server
    sandbox: Sandbox
    supervisor: Supervisor
    database: Database
    flower: Flower
    environment: dict[str, str] = field(repr=False)
    up_seconds: float = 0.0

    @property
    def lease_seconds(self) -> float:
        """How long a delivery waits for a worker that is gone."""
        return TIMEOUT_SECONDS + 30.0

    def worker_name(self, name: str) -> str:
        """A worker as its attempts name it."""
        return f"{socket.gethostname()}:{self.supervisor.pid(name)}"


def specs(flower: Flower, gateway: str) -> list[Spec]:
    """Every process to supervise.

    Args:
        flower: where it is to be.
        gateway: the URL of the door for receipts.
    """
    everyday = (routing.NORMAL, "bulk")
    high = [routing.queue_for(stage, "high") for stage in routing.STAGES]
    secret = {
        "FLOWER_ADDRESS": "127.0.0.1",
        "FLOWER_PORT": flower.url.rpartition(":")[2],
        "FLOWER_USER": flower.user,
        "FLOWER_PASSWORD": flower.password,  # not an argument: everybody can read those
    }
    return [
        *(
            worker_spec(
                name,
                [routing.queue_for(stage, lane) for stage in stages for lane in everyday],
                threads=FEW_THREADS if name == "email" else THREADS,
            )
            for name, stages in WORKERS.items()
        ),
        worker_spec("high", high, threads=THREADS),
        worker_spec("maint", [routing.MAINT_QUEUE, routing.RECEIPTS_QUEUE], threads=2),
        celery_spec("beat", "beat", "--loglevel", "INFO"),
        Spec("gateway", (sys.executable, "-c", GATEWAY, "gateway", "--port", gateway.rpartition(":")[2])),
        celery_spec("flower", "flower", environment=secret),
    ]


def repository() -> Path:
    """The folder with `celeryconfig.py`, `channels` and `templates`.

    Raises:
        DemoError: there is none: only the wheel is installed, which is the producer's half.
    """
    here = Path(__file__).parents[2]
    for folder in (here, Path.cwd()):
        if all((folder / name).exists() for name in ("celeryconfig.py", "channels/contract.py", "templates")):
            return folder
    raise DemoError("the demo needs the whole repository: clone it, go into its folder and type `make demo`")


@contextmanager
def open_stage(
    directory: Path,
    tell: Callable[[Line], None],
    waiting: Callable[[str], None],
    on_restart: Callable[[str, int], None],
    *,
    own_servers: bool = True,
) -> Iterator[Stage]:
    """Start everything, and stop it in order at the end.

    Args:
        directory: takes data, logs and passwords.
        tell: called with one line for each step.
        waiting: called again and again with what is awaited.
        on_restart: called from another thread with a process that ended and was started again, and its status.
        own_servers: False takes the servers that the environment names.

    Raises:
        DemoError: something does not start; the text says where to look.
    """
    root = repository()
    with ExitStack() as stack:
        stack.enter_context(owned(directory))
        new = own_servers and not (directory / "postgres/data").exists()
        begun = time.monotonic()
        gateway = f"http://127.0.0.1:{_port(GATEWAY_PORT)}"
        redis, postgres, sandbox = _servers(stack, directory, f"{gateway}/hooks", own_servers=own_servers)
        tell(f"servers: {_shown('Valkey', redis)}, {_shown('PostgreSQL', postgres)}")
        tell(
            f"far end of every provider: SMTP on 127.0.0.1:{sandbox.ready.smtp_port}, "
            f"HTTPS on 127.0.0.1:{sandbox.ready.https_port}"
        )
        tell([bold(f"see what arrives: open {sandbox.ready.page_url}")])
        applied = migrate(postgres.url)
        tell(f"schema: {len(applied)} applied" if applied else "schema: up to date")
        _tell_page(directory, postgres)
        stack.callback(_page_file(directory).unlink, missing_ok=True)
        if new:  # making a database is no part of coming up
            begun = time.monotonic()
        flower = Flower(f"http://127.0.0.1:{_port(FLOWER_PORT)}", FLOWER_USER, secrets.token_urlsafe(9))
        settings = _settings(root, redis, postgres, sandbox)
        environment = {**_inherited(), **settings, "PYTHONPATH": str(root)}
        logs = directory / "logs"
        _forget(logs)
        supervisor = stack.enter_context(Supervisor(logs, environment, cwd=root, on_restart=on_restart))
        wanted = specs(flower, gateway)
        for spec in wanted:
            supervisor.start(spec)
        tell(f"{len(wanted)} processes: {', '.join(spec.name for spec in wanted)}")
        _wait_until_ready(supervisor, [spec.name for spec in wanted], flower, waiting)
        database = Database(postgres.url, connections=3, name="notify-demo")
        stack.callback(database.close)
        stage = Stage(
            directory, root, redis, postgres, sandbox, supervisor, database, flower, environment,
            time.monotonic() - begun,
        )  # fmt: skip
        remarks = (
            f"The demo's environment; gone when it ends. For a shell: set -a; . {directory / ENV_FILE}; set +a\n"
            f"Flower: {flower.url}, user {flower.user}, password {flower.password}"
        )
        write_environment(directory, settings, remarks)
        stack.callback((directory / ENV_FILE).unlink, missing_ok=True)
        yield stage


# --- servers ------------------------------------------------------------------------------------------


def _servers(
    stack: ExitStack, directory: Path, hooks: str, *, own_servers: bool
) -> tuple[Server, Server, Sandbox]:
    """Start the three at the same time. Whatever fails, what has started is stopped by the stack."""
    page = _page_file(directory)
    page.unlink(missing_ok=True)  # of a demo that was killed
    environment = {**_inherited(), "NOTIFY_DATABASE_URL_FILE": str(page.absolute())}
    wanted: list[AbstractContextManager[Any]] = [
        sandbox_process(directory / "sandbox", page=True, environment=environment, hooks=hooks),
        postgres_server(directory, use_environment=not own_servers),
        redis_server(directory, use_environment=not own_servers),
    ]
    with ThreadPoolExecutor(len(wanted)) as threads:
        starting = [threads.submit(it.__enter__) for it in wanted]
    problems = [future.exception() for future in starting]
    for it, problem in zip(wanted, problems, strict=True):
        if problem is None:
            stack.push(it)
    for problem in problems:
        if isinstance(problem, RuntimeError):
            raise DemoError(str(problem)) from None
        if problem is not None:
            raise problem
    sandbox, postgres, redis = (future.result() for future in starting)
    return redis, postgres, sandbox


def _page_file(directory: Path) -> Path:
    return directory / "sandbox" / DATABASE_FILE


def _tell_page(directory: Path, postgres: Server) -> None:
    """Name the database to the far end's page. The file holds a password, as the environment file does."""
    path = _page_file(directory)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(postgres.url)
    draft.rename(path)


def _shown(name: str, server: Server) -> str:
    return f"{name} of your environment" if server.port is None else f"{name} on 127.0.0.1:{server.port}"


def _settings(root: Path, redis: Server, postgres: Server, sandbox: Sandbox) -> dict[str, str]:
    return {
        "NOTIFY_BROKER_URL": redis.url,
        "NOTIFY_DATABASE_URL": postgres.url,
        "NOTIFY_ENV": ENVIRONMENT,
        "NOTIFY_CONFIG": str(root / "notify.toml"),
        "NOTIFY_TEMPLATES": str(root / "templates"),
        **{f"NOTIFY_PROVIDERS__{name}__TIMEOUT": str(TIMEOUT_SECONDS) for name in CRASHED},
        **sandbox.environment,
    }


def _inherited() -> dict[str, str]:
    """The environment without settings that are meant for another fleet, another app or another Flower."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NOTIFY_", "FLOWER_", "CELERY_"))
    }


def _forget(logs: Path) -> None:
    for old in logs.glob("*.log"):
        old.unlink()


def _port(wished: int) -> int:
    for port in (wished, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            number: int = probe.getsockname()[1]
            return number
    raise DemoError("there is no free port on 127.0.0.1; end what holds them")


# --- coming up ----------------------------------------------------------------------------------------


def _wait_until_ready(
    supervisor: Supervisor, names: Sequence[str], flower: Flower, waiting: Callable[[str], None]
) -> None:
    missing = list(names)
    deadline = time.monotonic() + START_WITHIN
    while missing := [name for name in missing if not _is_ready(supervisor, name, flower)]:
        for name in missing:
            if supervisor.restarts(name) > 1 or time.monotonic() > deadline:
                log = supervisor.log_path(name)
                raise DemoError(
                    f"{name} does not start. Mend what its log says ({log}) and try again:\n{_tail(log)}"
                )
        waiting(f"waiting for {', '.join(missing)}")
        time.sleep(LOOK_EVERY)


_SIGNS: Final = {"beat": b"beat: Starting...", "gateway": b"ready: http"}


def _is_ready(supervisor: Supervisor, name: str, flower: Flower) -> bool:
    """Whether a process says so: most in their logs, Flower by answering."""
    if name == "flower":
        return _answers(flower)
    with suppress(OSError):
        return _SIGNS.get(name, b" ready.") in supervisor.log_path(name).read_bytes()
    return False


def _answers(flower: Flower) -> bool:
    connection = HTTPConnection(flower.url.removeprefix("http://"), timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 401  # noqa: PLR2004 - it asks for its password
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _tail(log: Path, lines: int = 6) -> str:
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return "(no log)"


def ended_by(status: int) -> str:
    """How a process ended, in words."""
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
