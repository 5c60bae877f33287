"""The worker's Celery app: `celery -A notify_tasks worker -Q notify.email`.

A worker refuses to start on what it cannot work with, and says what to type.
"""

from __future__ import annotations

import logging
import os
import threading
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import click
import redis
from celery import Celery, signals

from notify_tasks import (
    consuming,
    flower_settings,
    logs,
    metering,
    pulse,
    redis_place,
    routing,
    settings,
    supervising,
    task_context,
    transport,
)
from notify_tasks.alarm import Alarm
from notify_tasks.configuration.model import Configuration
from notify_tasks.errors import NotConfigured, NotifyError
from notify_tasks.fleet import Fleet, open_fleet
from notify_tasks.listening import Listener
from notify_tasks.reloading import check_start
from notify_tasks.store import migrate, reachable
from notify_tasks.store.database import DatabaseAway, DatabaseError
from notify_tasks.sweeping import Guard
from notify_tasks.worker_metrics import WorkerMetrics

logger = logging.getLogger(__name__)

try:
    settings.get()
except NotConfigured as _error:  # here, because within Celery's own loading it would be lost in a traceback
    raise SystemExit(f"notify_tasks: {_error}") from None

app = Celery("notify_tasks", include=["notify_tasks.tasks"])
app.config_from_object("celeryconfig")
transport.install(app)
consumption: Final = consuming.Consumption()
consumption.install(app)
pulse.install(app, consumption, lambda: _probe_if_open())  # noqa: PLW0108 - it is made below
_metrics: Final = WorkerMetrics(consumption)
task_context.install(app)


supervising.end_with_parent()

_lock: Final = threading.Lock()
_fleets: Final[dict[int, Fleet]] = {}
_aways: Final[dict[int, consuming.Away]] = {}
_threads: int = 1
_channels: tuple[str, ...] = ()
_configuration: Configuration | None = None
"""As it was when this worker started: a child that is forked later begins with it, whatever is in the file then."""
_background: list[Alarm | Guard | Listener] = []


def fleet() -> Fleet:
    """What this process holds. A forked child opens its own."""
    pid = os.getpid()
    found = _fleets.get(pid)
    if found is None:
        with _lock:
            found = _fleets.get(pid)
            if found is None:
                found = open_fleet(
                    settings.get(),
                    threads=_threads,
                    channels=_channels,
                    away=lambda error: away().report(error),
                    give_up=lambda: consuming.exit_soon(consumption, EXIT_HUNG, grace=GRACE_SECONDS),
                    configuration=_configuration,
                )
                _fleets[pid] = found
                metering.know_types(found.catalog.names)
                found.reloader.start()
                found.keeper.start()
    return found


GRACE_SECONDS: Final = 20.0
"""Other threads get so long to end when the process gives up a hung one."""
EXIT_HUNG: Final = 70
"""Exit status of a process that could not end a provider's call (EX_SOFTWARE of sysexits)."""


def _probe() -> None:
    fleet().database.probe()


def _probe_if_open() -> None:
    """For who asks from outside: before the worker is ready, nothing is opened on their account."""
    found = _fleets.get(os.getpid())
    if found is None:
        raise LookupError("it is starting")
    found.database.probe()


def away() -> consuming.Away:
    """Stops fetching while PostgreSQL is away, and begins again when it answers."""
    pid = os.getpid()
    if pid not in _aways:
        _aways[pid] = consuming.Away(consumption, _probe, name="PostgreSQL")
    return _aways[pid]


@signals.celeryd_init.connect
def _on_command(options: Any = None, **_: Any) -> None:
    """Say of a mistyped queue which one was meant, before Celery shows a traceback."""
    wanted = (options or {}).get("queues") or []
    for name in wanted.split(",") if isinstance(wanted, str) else wanted:
        if name not in routing.ALL_QUEUES:
            near = get_close_matches(name, routing.ALL_QUEUES, n=1)
            remedy = f"did you mean {near[0]}" if near else f"there are {', '.join(routing.ALL_QUEUES)}"
            raise SystemExit(f"notify_tasks: there is no queue {name}; {remedy}")


@signals.beat_init.connect
def _on_beat(**_: Any) -> None:
    try:
        settings.get().need_broker_url()
    except NotConfigured as error:
        raise SystemExit(f"notify_tasks: {error}") from None


@signals.import_modules.connect
def _on_flower(**_: Any) -> None:
    """Flower announces itself in no other way; it has read its own options by now, and opens its port after this."""
    context = click.get_current_context(silent=True)
    if context is None or context.command.name != "flower":
        return
    # Of the command that runs; they define options by being imported.
    from flower.options import options  # noqa: PLC0415

    from notify_tasks import flower_guard  # noqa: PLC0415

    logs.configure("flower", alone=True)  # tornado has its own handler by now
    try:
        flower_settings.apply(options, os.environ)
        flower_guard.install(options)
        flower_guard.live(settings.get())
    except NotConfigured as error:
        raise SystemExit(f"notify_tasks: {error}") from None


@signals.worker_init.connect
def _on_init(**_: Any) -> None:
    try:
        _check_start()
    except DatabaseAway as error:
        why = reachable.why_away(settings.get().need_database_url()) or str(error)
        raise SystemExit(f"notify_tasks: {why}") from None
    except (NotifyError, DatabaseError) as error:
        raise SystemExit(f"notify_tasks: {error}") from None


@signals.worker_ready.connect
def _on_ready(sender: Any, **_: Any) -> None:
    global _threads  # noqa: PLW0603 - set once, before the first task
    queues = list(app.amqp.queues.consume_from)
    _threads = int(getattr(sender.controller, "concurrency", 0) or 1)
    it = fleet()
    it.reloader.consumes(queues)
    guard = Guard(it.database, it.sweeper)
    guard.start()
    it.announce_rates()
    _background.extend((guard, it.alarm))
    # Beside the first messages, not before them: an SDK may take two seconds to load.
    threading.Thread(target=it.pools.prewarm, args=(_channels,), name="notify-prewarm", daemon=True).start()
    if routing.MAINT_QUEUE in queues:
        listener = Listener(it.database, it.intake)
        listener.start()
        _background.append(listener)


@signals.worker_shutdown.connect
def _on_shutdown(**_: Any) -> None:
    for it in _background:
        it.stop()
    for opened in _fleets.values():
        opened.reloader.stop()
        opened.keeper.stop()
        opened.ledger.flush()


def _check_start() -> None:
    """Everything that would make every message fail later.

    Raises:
        NotifyError: what is wrong and what to do.
    """
    global _channels, _configuration  # noqa: PLW0603 - set once, before children are forked
    _check_channels_package()
    current = settings.get()
    stages = [routing.stage_and_lane(queue)[0] for queue in app.amqp.queues.consume_from]
    _channels = tuple(stage for stage in dict.fromkeys(stages) if stage in routing.CHANNELS)
    _configuration = check_start(current, _channels)
    migrate.check(current.need_database_url())
    _check_redis(current.need_broker_url())
    fleet_of_types = Path(current.templates)
    if not fleet_of_types.is_dir():
        raise NotConfigured(
            f"there is no templates folder at {fleet_of_types}; run from the repository's root or set NOTIFY_TEMPLATES"
        )


def _check_channels_package() -> None:
    import channels  # noqa: PLC0415 - that the right one is found is what is checked

    if (
        not hasattr(channels, "__path__")
        or not (Path(next(iter(channels.__path__))) / "contract.py").is_file()
    ):
        raise NotConfigured(
            f"another package named `channels` is in front of ours ({channels.__file__}); "
            "run the worker from the repository's root with PYTHONPATH=."
        )


def _check_redis(url: str) -> None:
    """Warn about a Redis that forgets: the promise of the default intake is as good as its Redis."""
    client = redis_place.client(url, seconds=5, connect=3)
    try:
        facts: Any = client.info("persistence")
        if not int(facts.get("aof_enabled", 0)):
            logger.warning(
                "Redis has no append-only file: what it forgets on a restart is lost (`appendonly yes`)"
            )
        policy: Any = client.config_get("maxmemory-policy")
        if policy.get("maxmemory-policy", "noeviction") != "noeviction":
            logger.warning("Redis may evict queued messages: set `maxmemory-policy noeviction`")
    except redis.RedisError as error:
        logger.warning("Redis could not be checked (%s); the worker goes on trying", type(error).__name__)
    finally:
        client.close()
