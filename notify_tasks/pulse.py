"""When a worker and beat give a sign of life: on the very loops that do the work.

A worker's sign comes from the loop that fetches messages and acknowledges them, so a loop that is blocked or stopped
gives none. Threads are judged apart: where each has been busy with one and the same task for minutes, the worker
says so and counts as stuck. What it cannot mend is no illness: while PostgreSQL or the broker is away it waits, and
a restart would help nobody.

The pools `threads`, `prefork` and `solo` run that loop. gevent and eventlet have none; there the sign says only that
their timers run.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Hashable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any, ClassVar, Final

from celery import Celery, bootsteps, signals
from celery.worker import state
from celery.worker.consumer.tasks import Tasks

from notify_tasks import health_server, settings
from notify_tasks.consuming import Consumption
from notify_tasks.errors import NotConfigured
from notify_tasks.health import EVERY_SECONDS, Judgement, Pulse
from notify_tasks.health_server import Check, Need

logger = logging.getLogger(__name__)

STUCK_SECONDS: Final = 180.0
"""No task works so long on its own: a provider's call ends after 70 s at most, and a message with many ids after
five more. Longer than that, a thread hangs, or waits for a database that the process takes for well."""


LOOKS: Final = 10


class Threads:
    """Notices when every thread hangs.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[Hashable, float] = {}

    def problem(self, active: AbstractSet[Hashable], slots: int) -> str | None:
        """What is wrong with the threads, in words; None while one of them gets on.

        Args:
            active: an identity of each task that runs now.
            slots: how many could run.
        """
        now = self._clock()
        self._since = {task: self._since.get(task, now) for task in active}
        if len(active) < max(slots, 1):
            return None
        stuck = now - max(self._since.values())
        if stuck < STUCK_SECONDS:
            return None
        return f"all {slots} threads have been busy with one task each for {stuck:.0f} s or more"


def install(app: Celery, consumption: Consumption, probe: Callable[[], object]) -> None:
    """Let the app's worker and beat give signs of life, and answer for their health, where somebody asked for it.

    Args:
        app: the app.
        consumption: of its worker.
        probe: raises while PostgreSQL is away or the worker is starting.
    """
    pulse = Pulse(os.environ, asked=settings.get().health_port is not None)
    if not pulse.wanted:
        return
    step = type("PulseStep", (_PulseStep,), {"pulse": pulse, "consumption": consumption})
    app.steps["consumer"].add(step)
    signals.beat_init.connect(lambda sender, **_: _follow_beat(sender, pulse), weak=False)
    of_worker = [_of_fetching(pulse, consumption), health_server.of_database(probe)]
    signals.worker_init.connect(
        lambda sender, **_: _serve(pulse, of_worker, str(sender.hostname)), weak=False
    )
    signals.beat_init.connect(lambda **_: _serve(pulse, [], "beat"), weak=False)


def _serve(pulse: Pulse, more: Sequence[Check], process: str) -> None:
    """Before the first connection is made: a worker that waits for its broker is alive."""
    current = settings.get()
    if current.health_port is None:
        return
    common = [health_server.of_pulse(pulse), health_server.of_start(pulse)]
    try:
        broker = health_server.of_broker(current.need_broker_url())
        health_server.serve(process, [*common, broker, *more], current)
    except NotConfigured as error:
        raise SystemExit(f"notify_tasks: {error}") from None


def _of_fetching(pulse: Pulse, consumption: Consumption) -> Check:
    def ask() -> Judgement:
        reasons = sorted(consumption.reasons)
        said = pulse.last.doing if pulse.last is not None else "it is starting"
        return Judgement(
            well=not reasons, said=f"nothing is fetched: {', '.join(reasons)}" if reasons else said
        )

    return Check("fetching", ask, Need.READY)


class _PulseStep(bootsteps.StartStopStep):
    pulse: ClassVar[Pulse]
    consumption: ClassVar[Consumption]
    requires = (Tasks,)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None
        self._threads = Threads()

    def create(self, consumer: Any) -> None:
        ensure_connected = consumer.ensure_connected

        def ensure(connection: Any) -> Any:
            _beat_while_connecting(connection, self.pulse)
            return ensure_connected(connection)

        consumer.ensure_connected = ensure

    def start(self, consumer: Any) -> None:
        self._beat(consumer)
        self._timer = consumer.timer.call_repeatedly(EVERY_SECONDS, self._beat, (consumer,))

    def stop(self, consumer: Any) -> None:  # noqa: ARG002 - the blueprint's signature
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self, consumer: Any) -> None:
        slots = int(getattr(consumer.controller, "concurrency", 0) or 1)
        active = _active()
        reasons = sorted(self.consumption.reasons)
        problem = self._threads.problem(active, slots)
        if reasons:  # its threads wait for what is away, and so would those of another process
            self.pulse.beat(f"alive and fetches nothing: {', '.join(reasons)}")
        else:
            self.pulse.beat(f"fetching messages; {len(active)} of {slots} threads busy", problem)


def _active() -> AbstractSet[Hashable]:
    """Every task that runs now, told apart from the next one by its start as well."""
    for _ in range(LOOKS):
        with suppress(RuntimeError):  # a thread began or ended one meanwhile
            return {(request.id, request.time_start) for request in state.active_requests}
    return frozenset()  # so busy a set gets on


def _beat_while_connecting(connection: Any, pulse: Pulse) -> None:
    """While a broker is away, Celery waits in one long call, which looks up once a second."""
    ensure = connection.ensure_connection

    def ensure_and_beat(*args: Any, callback: Callable[[], object] | None = None, **kwargs: Any) -> Any:
        def look_up() -> None:
            pulse.beat("connecting to the broker")
            if callback is not None:
                callback()

        if not connection.connected:  # asked before every publish, too
            pulse.beat("connecting to the broker")
        return ensure(*args, callback=look_up, **kwargs)

    connection.ensure_connection = ensure_and_beat


def _follow_beat(service: Any, pulse: Pulse) -> None:
    scheduler = service.scheduler
    tick = scheduler.tick

    def tick_and_beat(*args: Any, **kwargs: Any) -> Any:
        wait = tick(*args, **kwargs)
        pulse.beat("ticking")
        return wait

    _beat_while_connecting(scheduler.connection, pulse)
    scheduler.tick = tick_and_beat
