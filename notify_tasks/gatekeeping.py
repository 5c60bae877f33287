"""Opens gates: when what closed them has ended, everything that waits behind them is brought forward.

Each worker process has one keeper, which looks once a second. Where it has seen a provider work again, by a call of its
own, it wakes what waits for a provider of that pool: the high lane first, a few at the start, then more with every
look, and never so many that the queues fill up. A provider that fails again so finds few rows on their way.

It also says in the database which providers this process leaves out, and why: for the operator, and for the other
processes, which then begin with a probe of their own. Whoever sees a provider work again takes back what all have said,
and the others probe it at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from notify_tasks import metering
from notify_tasks.breaker import NEVER, OPEN_SECONDS, Trouble
from notify_tasks.gates import RATE, Gates
from notify_tasks.providers import Configured, Pools
from notify_tasks.rates import Rate
from notify_tasks.store import deliveries, gated
from notify_tasks.store.database import Database, DatabaseError
from notify_tasks.store.gated import LeftOut, Ready
from notify_tasks.store.sweeps import Wake

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = 1.0
BUSY_LOOK_EVERY: Final = 0.25
"""Seconds between two looks while rows are being brought forward."""
FIRST: Final = 200
"""Rows of the first look, which twice as many follow each time."""
MOST: Final = 2000
BACKLOG: Final = 10_000
"""Rows of a channel that may be queued: more are not brought forward before some of them have gone."""
PROVED_SECONDS: Final = 60.0
"""So long after its last good call a provider counts as proved to work."""
HEAR_EVERY: Final = 2.0
REPORT_EVERY: Final = 30.0
HEARD_WITHIN: Final = 1.5 * REPORT_EVERY
FRESH_SECONDS: Final = 3 * OPEN_SECONDS
"""What failed for others within so many seconds is tried with care."""
RESUME_EVERY: Final = 30.0
"""Seconds between two looks at what is paused, where no pause has changed."""
SETTLING: Final = 10.0
"""Seconds after a change of pauses in which every look counts: other processes may still hold by what they knew."""


@dataclass(slots=True)
class _Known:
    """What the keeper has seen of one provider."""

    trouble: Trouble | None = None
    """What was reported."""
    reported_at: float = NEVER
    out_since: float | None = None
    """Since when it has been left out, until a call shows that it works."""


class Keeper:
    """Keeps the gates of one process.

    Args:
        database: the store.
        pools: the configuration.
        gates: of the process: their queues begin anew when what waits is brought forward.
        channels: those that this process serves.
        wake: publishes deliveries on their queues, at best effort.
        respread: gives what waits for a provider's rate new times.
        worker: this process's name.
    """

    def __init__(
        self,
        *,
        database: Database,
        pools: Pools,
        gates: Gates,
        channels: Sequence[str],
        wake: Callable[[Sequence[Wake]], None],
        respread: Callable[[str, Rate], None],
        worker: str,
    ) -> None:
        self._database = database
        self._pools = pools
        self._gates = gates
        self._channels = channels
        self._wake = wake
        self._respread = respread
        self._worker = worker
        self._known: dict[str, _Known] = {}
        self._next: dict[str, int] = {}
        self._returning: dict[tuple[str, str], int] = {}
        self._hear_at = self._hear_pauses_at = self._resume_at = NEVER
        self._pauses: Mapping[tuple[str, str], str] = {}
        self._resuming, self._settled_at = FIRST, NEVER
        self._mended = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, name="notify-gatekeeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and take back what this process has said."""
        self._stop.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(2)

    def mended(self) -> None:
        """A new configuration has come: the next look tries with a few rows whether providers work now."""
        for configured in self._pools.all():
            configured.breaker.hope()
        self._mended = True

    def _run(self) -> None:
        busy = False
        while not self._stop.wait(BUSY_LOOK_EVERY if busy else LOOK_EVERY):
            try:
                busy = self.look()
            except DatabaseError:
                busy = False  # what waits has its due time; the next look may find the database back
            except Exception:
                logger.exception("the gatekeeper met a problem and goes on")
        try:
            gated.withdraw(self._database, self._worker)
        except DatabaseError as error:
            logger.info("what this process said of its providers stays (%s)", error)

    def look(self) -> bool:
        """Look once.

        Returns:
            Whether rows were brought forward, so that it is worth to look again soon.

        Raises:
            DatabaseError: PostgreSQL is away; the next look goes on.
        """
        now = time.monotonic()
        back = self._report(now)
        if now >= self._hear_at:
            self._hear_at = now + HEAR_EVERY
            self._hear()
        mended, self._mended = self._mended, False
        moved = sum(self._release(channel, now, untried=mended) for channel in self._channels)
        moved += sum(self._fill(channel) for channel in self._channels)
        for provider in back:
            moved += self._send(gated.retry_now(self._database, provider, limit=MOST))
            self._returning |= {(provider, channel): FIRST for channel in self._channels}
        moved += sum(self._return(*which, now) for which in list(self._returning))
        return moved + self._resume(now) > 0

    # --- what waits -----------------------------------------------------------------------------------

    def _release(self, channel: str, now: float, *, untried: bool) -> int:
        """Bring forward what waits for a provider of this channel that works. Returns how many rows."""
        pool = self._pools.configuration.pools.get(channel)
        if pool is None:
            return 0
        working = [it for name in pool.names() if (it := self._pools.get(name)) and _works(it, now, untried)]
        names = {it.name for it in working}
        if not names:
            self._next.pop(channel, None)
            return 0
        limit = self._next.get(channel, FIRST)
        queued = gated.backlog(self._database, channel, BACKLOG) if limit > FIRST else 0
        if queued >= BACKLOG:
            return 1
        members = {name for name, _ in pool.members}
        ready = Ready(channel, tuple(sorted(names)), bool(names & members), pool.sandbox in names)
        moved = self._send(gated.release(self._database, ready, limit=limit))
        if moved < limit:
            self._next.pop(channel, None)
        else:
            self._next[channel] = min(2 * limit, MOST)
        if moved:
            self._gates.places.clear()
        return moved

    def _fill(self, channel: str) -> int:
        """Bring forward what waits for a thread, as much as can go until the next look: its times were guesses."""
        room = min(self._gates.room(channel, BUSY_LOOK_EVERY), FIRST)
        return self._send(gated.fill_room(self._database, channel, limit=room)) if room > 0 else 0

    def _return(self, provider: str, channel: str, now: float) -> int:
        """Bring forward what waits for a turn at others, though a provider that works again is its first choice."""
        configured, limit = self._pools.get(provider), self._returning[provider, channel]
        low, high = self._pools.share(channel, provider)
        if configured is None or not _works(configured, now, untried=False) or low == high:
            del self._returning[provider, channel]
            return 0
        if gated.backlog(self._database, channel, BACKLOG) >= BACKLOG:
            return 1
        mates = [name for name in self._pools.configuration.pools[channel].names() if name != provider]
        wakes = gated.return_to(
            self._database, channel, (low, high), reasons=[f"{RATE}{name}" for name in mates], limit=limit
        )
        if len(wakes) < limit:
            del self._returning[provider, channel]
            if wakes or limit > FIRST:
                self._closed_up(mates)
        else:
            self._returning[provider, channel] = min(2 * limit, MOST)
        return self._send(wakes)

    def _closed_up(self, names: Sequence[str]) -> None:
        """Places have become free in the queues of these providers' rates."""
        for name in names:
            configured = self._pools.get(name)
            if configured is not None and configured.rate is not None:
                self._respread(name, configured.rate)

    def _resume(self, now: float) -> int:
        """Bring forward what is not paused any more. Returns how many rows."""
        if now < self._hear_pauses_at:
            return 0
        self._hear_pauses_at = now + HEAR_EVERY
        pauses = deliveries.read_pauses(self._database)
        if pauses != self._pauses:
            self._pauses, self._settled_at = pauses, now + SETTLING
        elif self._settled_at <= now < self._resume_at:
            return 0
        limit = self._resuming
        full = limit > FIRST and any(
            gated.backlog(self._database, channel, BACKLOG) >= BACKLOG for channel in self._channels
        )
        if full:
            self._hear_pauses_at = now
            return 1
        moved = self._send(gated.resume(self._database, self._channels, limit=limit))
        if moved == limit:  # there are more
            self._hear_pauses_at, self._resuming = now, min(2 * limit, MOST)
        else:
            self._resume_at, self._resuming = now + RESUME_EVERY, FIRST
        return moved

    def _send(self, wakes: Sequence[Wake]) -> int:
        self._wake(wakes)
        return len(wakes)

    # --- what is said of providers --------------------------------------------------------------------

    def _report(self, now: float) -> list[str]:
        """Say what has changed. Returns the providers that work again."""
        back = []
        for configured in self._pools.all():
            name, known = configured.name, self._known.setdefault(configured.name, _Known())
            trouble, since = configured.breaker.trouble, known.out_since
            metering.breaker(name, is_open=configured.breaker.open)
            if trouble is None:
                if known.trouble is not None:
                    gated.works(self._database, name)
                    known.trouble = None
            elif trouble != known.trouble or now - known.reported_at > REPORT_EVERY:
                gated.report(
                    self._database,
                    self._worker,
                    LeftOut(
                        name, trouble.code, trouble.misconfigured, now - trouble.since, now - trouble.last
                    ),
                )
                known.trouble, known.reported_at, known.out_since = trouble, now, trouble.since
            # A mended configuration gives it another breaker, which has not seen a call yet.
            if trouble is None and since is not None and configured.breaker.worked_at > since:
                logger.warning("provider %s works again after %.0f s", name, now - since)
                back.append(name)
                known.out_since = None
        for name in [name for name in self._known if name not in self._pools.configuration.providers]:
            del self._known[name]
            gated.works(self._database, name)
        return back

    def _hear(self) -> None:
        """Try with a probe first what others leave out; and what this process does, once another has seen it work."""
        said = gated.said(self._database, HEARD_WITHIN)
        down = {it.provider for it in said if it.worker != self._worker and it.failed < FRESH_SECONDS}
        mine = {it.provider for it in said if it.worker == self._worker}
        for name, known in self._known.items():
            configured = self._pools.get(name)
            if configured is None:
                continue
            if known.trouble is not None and name not in mine:
                configured.breaker.hope()
            elif name in down:
                configured.breaker.warn()


def _works(configured: Configured, now: float, untried: bool) -> bool:  # noqa: FBT001 - one of two questions
    """Whether a call may be made, and would probably work."""
    breaker = configured.breaker
    if untried:
        return breaker.closed()
    return not breaker.open and now - breaker.worked_at < PROVED_SECONDS
