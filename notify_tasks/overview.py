"""One look at a whole fleet, for `notify top`: what waits where, how fast it goes, and what is wrong.

Redis and PostgreSQL are looked at on threads of their own, so that one that is away, or slow, holds up nothing: the
last word of it stays, with its age. What costs more where more waits is looked at less often.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

import redis

from notify_tasks import redis_place
from notify_tasks.configuration.origins import BadConfiguration
from notify_tasks.exporter import broker
from notify_tasks.providers import CannotBuild, NoInbox, Pools
from notify_tasks.rates import Rate
from notify_tasks.reloading import load
from notify_tasks.routing import ALL_QUEUES, CHANNELS
from notify_tasks.settings import Settings
from notify_tasks.store import gated, pausing, recent, sampling
from notify_tasks.store.database import Database, DatabaseError
from notify_tasks.store.gated import Said
from notify_tasks.store.pausing import Pause
from notify_tasks.store.recent import Happened
from notify_tasks.store.sampling import HEARD_SECONDS, Now, Waiting
from notify_tasks.terminal.looks import duration

T = TypeVar("T")

RATE_SECONDS: Final = 10.0
"""Rates are of so many seconds."""
SILENT_SECONDS: Final = 5.0
WAITING_SHARE: Final = 0.1
SLOWEST_SECONDS: Final = 60.0
OBJECTIVE: Final = 10.0
"""Seconds within which a delivery should be sent."""
CONFIGURATION_EVERY: Final = 10.0
SOCKET_SECONDS: Final = 3
BAD: Final = ("failed", "undelivered", "in_doubt")
WAITS: Final = ("queued", "sending", "retrying", "held")


# --- what there is to see -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue.

    Args:
        depth: messages in it.
        taken: messages that workers hold.
        oldest: seconds for which the oldest has been in it; None where that is not known.
        consumers: worker processes that take from it.
    """

    name: str
    depth: int
    taken: int
    oldest: float | None
    consumers: int


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel.

    Args:
        sent: a second, of the last ten.
        failed: the same of what failed, was undelivered, or came into doubt.
        states: deliveries that wait, by state.
        oldest: seconds by which the one that waits the longest is late; None where nothing waits.
        in_doubt: deliveries of which nobody knows.
        dead: deliveries that failed and were not replayed.
    """

    name: str
    sent: float
    failed: float
    states: Mapping[str, int]
    oldest: float | None
    in_doubt: int
    dead: int


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider.

    Args:
        rate: its limit, as configured; empty for none.
        sent: a second, of the last ten.
        trouble: why workers leave it out, and how many of them do; empty where none does.
    """

    name: str
    use: str
    rate: str
    sent: float
    trouble: str


@dataclass(frozen=True, slots=True)
class Overview:
    """A fleet at a moment.

    Args:
        at: UTC.
        redis: why Redis is not looked at; None where it is.
        postgres: the same of PostgreSQL.
        accepted: notifications a second, of the last ten.
        about: deliveries that are stored; an estimate.
        facts: ages and small numbers, as `sampling.Now.facts` has them.
        workers: processes that have given a sign lately.
        memory: of Redis, from 0 to 1; None where it has no limit.
    """

    at: datetime
    redis: str | None
    postgres: str | None
    queues: Sequence[Queue] = ()
    channels: Sequence[Channel] = ()
    providers: Sequence[Provider] = ()
    pauses: Sequence[Pause] = ()
    accepted: float = 0.0
    about: int = 0
    facts: Mapping[str, float | None] = field(default_factory=dict)
    receipts: Mapping[str, int] = field(default_factory=dict)
    workers: int = 0
    intake: int = 0
    memory: float | None = None

    def states(self) -> dict[str, int]:
        """Deliveries that wait, by state."""
        return {state: sum(it.states.get(state, 0) for it in self.channels) for state in WAITS}


# --- looking --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Small:
    """What is looked at every second."""

    now: Now
    said: list[Said]
    pauses: list[Pause]
    accepted: int
    about: int
    happened: Counter[tuple[str, str, str | None]]


class Rates:
    """Counts what has happened in the last seconds.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: int | None = None
        self._seen: deque[tuple[float, list[Happened]]] = deque()

    def look(self, database: Database) -> Counter[tuple[str, str, str | None]]:
        """Read on, and count by kind, channel and provider."""
        now = self._clock()
        self._last, happened = recent.events(database, self._last, seconds=RATE_SECONDS)
        self._seen.append((now, happened))
        while self._seen and self._seen[0][0] <= now - RATE_SECONDS:
            self._seen.popleft()
        total: Counter[tuple[str, str, str | None]] = Counter()
        for _, found in self._seen:
            for it in found:
                total[it.kind, it.channel, it.provider] += it.n
        return total


class _Sampler(Generic[T]):
    """Looks at one thing on a thread of its own, and keeps the last word of it.

    Args:
        look: raises where it is away.
        every: seconds between two looks.
        share: of the time, which looks take at most.
    """

    def __init__(self, look: Callable[[], T], *, every: float, share: float = 1.0) -> None:
        self._look = look
        self._every = every
        self._share = share
        self.last: T | None = None
        self._said_at = time.monotonic()
        self._problem: str | None = "no answer yet"
        self._looked = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Until a look has ended, well or not."""
        self._looked.wait(max(0.0, seconds))

    def problem(self) -> str | None:
        """Why its last word is old, in words; None where it is not."""
        silent = time.monotonic() - self._said_at
        if self._problem is None and silent < SILENT_SECONDS + self._every / self._share:
            return None
        why = self._problem or "no answer"
        return why if self.last is None else f"{why} for {duration(silent)}"

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.last = self._look()
            except (redis.RedisError, DatabaseError) as error:
                self._problem = f"no answer ({type(error).__name__})"
            except Exception as error:  # noqa: BLE001 - whatever it is, it is shown, and looked at again
                self._problem = f"it cannot be looked at ({type(error).__name__})"
            else:
                self._said_at, self._problem = time.monotonic(), None
            self._looked.set()
            took = time.monotonic() - began
            self._stop.wait(max(self._every - took, min(took / self._share - took, SLOWEST_SECONDS)))


class Watch:
    """Looks at a fleet, again and again.

    Args:
        settings: of the fleet.
        every: seconds between two looks.
        prefix: what begins every key in Redis (Celery's `global_keyprefix`).

    Raises:
        NotConfigured: Redis or PostgreSQL is not named.
    """

    def __init__(self, settings: Settings, *, every: float = 1.0, prefix: str = "") -> None:
        self._settings = settings
        self._database = Database(
            settings.need_database_url(), connections=2, wait=SOCKET_SECONDS, name="notify-top"
        )
        self._redis = redis_place.client(settings.need_broker_url(), seconds=SOCKET_SECONDS)
        self._rates = Rates()
        self._configured: tuple[float, list[tuple[str, str, str]]] = (float("-inf"), [])
        self._broker = _Sampler(lambda: broker.look(self._redis, prefix), every=every)
        self._small = _Sampler(self._look, every=every)
        self._waiting = _Sampler(
            lambda: sampling.waiting(self._database, objective=OBJECTIVE), every=every, share=WAITING_SHARE
        )
        self._parts: tuple[_Sampler[Any], ...] = (self._broker, self._small, self._waiting)
        for part in self._parts:
            part.start()

    def close(self) -> None:
        """Let go of everything."""
        for part in self._parts:
            part.stop()
        self._redis.close()
        self._database.close()

    def look(self, *, patience: float = 0.0) -> Overview:
        """What the fleet is like.

        Args:
            patience: seconds to wait for a first word of Redis and PostgreSQL.
        """
        until = time.monotonic() + patience
        for part in self._parts:
            part.wait(until - time.monotonic())
        return Overview(
            at=datetime.now(UTC),
            redis=self._broker.problem(),
            postgres=self._small.problem(),
            **self._of_broker(),
            **self._of_database(),
        )

    def _look(self) -> _Small:
        return _Small(
            now=sampling.now(self._database),
            said=gated.said(self._database, HEARD_SECONDS),
            pauses=pausing.listed(self._database),
            accepted=recent.accepted(self._database, seconds=RATE_SECONDS),
            about=recent.about(self._database),
            happened=self._rates.look(self._database),
        )

    def _of_broker(self) -> dict[str, Any]:
        last = self._broker.last
        if last is None:
            return {}
        now, consumers = last, self._consumers()
        used, most = int(now.facts.get("used_memory", 0)), int(now.facts.get("maxmemory", 0))
        queues = [
            Queue(
                name,
                now.depth.get(name, 0),
                now.unacked.get(name, 0),
                now.oldest.get(name),
                consumers.get(name, 0),
            )
            for name in ALL_QUEUES
        ]
        return {"queues": queues, "memory": used / most if most else None}

    def _consumers(self) -> Mapping[str, int]:
        return {} if self._small.last is None else self._small.last.now.consumers

    def _of_database(self) -> dict[str, Any]:
        small, waiting = self._small.last, self._waiting.last
        if small is None:
            return {}
        return {
            "channels": list(_channels(small.happened, waiting)),
            "providers": list(self._providers(small)),
            "pauses": small.pauses,
            "accepted": small.accepted / RATE_SECONDS,
            "about": small.about,
            "facts": small.now.facts,
            "receipts": small.now.receipts,
            "workers": small.now.workers,
            "intake": 0 if waiting is None else waiting.intake,
        }

    def _providers(self, small: _Small) -> Iterator[Provider]:
        sent: Counter[str | None] = Counter()
        for (kind, _, provider), n in small.happened.items():
            sent[provider] += n if kind == "sent" else 0
        words: dict[str, list[Said]] = {}
        for each in small.said:
            words.setdefault(each.provider, []).append(each)
        for name, use, rate in self._configuration():
            yield Provider(name, use, rate, sent[name] / RATE_SECONDS, _trouble(words.get(name, [])))

    def _configuration(self) -> list[tuple[str, str, str]]:
        """The providers that the files name now; those of the last good ones where they are wrong."""
        read_at, found = self._configured
        if time.monotonic() - read_at > CONFIGURATION_EVERY:
            try:
                pools = Pools(load(self._settings), inbox=NoInbox())
                found = [(it.name, it.use, _rate(it.rate)) for it in pools.of_channels(CHANNELS)]
                pools.close()
            except (BadConfiguration, CannotBuild):
                pass
            self._configured = (time.monotonic(), found)
        return found


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return ""
    unit = {1.0: "s", 60.0: "min", 3600.0: "h", 86400.0: "d"}.get(rate.seconds)
    return f"{rate.count:g}/{unit}" if unit else f"{rate.per_second:g}/s"


def _trouble(words: Sequence[Said]) -> str:
    if not words:
        return ""
    codes = ", ".join(sorted({it.code for it in words}))
    why = "refuses our account" if any(it.misconfigured for it in words) else "calls fail"
    return f"{why}: {codes}, says {len(words)}"


def _channels(
    happened: Mapping[tuple[str, str, str | None], int], waiting: Waiting | None
) -> Iterator[Channel]:
    groups = [] if waiting is None else waiting.groups
    troubled = {} if waiting is None else waiting.troubled
    for name in CHANNELS:
        mine = [it for it in groups if it.channel == name]
        states: Counter[str] = Counter()
        for it in mine:
            states[it.state] += it.n
        yield Channel(
            name,
            sum(n for (kind, channel, _), n in happened.items() if channel == name and kind == "sent")
            / RATE_SECONDS,
            sum(n for (kind, channel, _), n in happened.items() if channel == name and kind in BAD)
            / RATE_SECONDS,
            dict(states),
            max((it.oldest for it in mine), default=None),
            troubled.get((name, "in_doubt"), 0),
            troubled.get((name, "failed"), 0),
        )
