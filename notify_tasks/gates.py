"""The gates before a claim: a closed one moves the due time forward, with no attempt and no sleeping thread.

They are asked before the claim. Only a provider's share is counted when its call begins, so that threads
which ask at the same moment cannot overrun it: the late ones give their claim back.

What waits costs little, however much it is. Who waits for a time (a rate, a recipient's limit) is given that time,
once. Who waits for something to end (an outage, a pause) is given a place in a queue, so that a process looks at a few
of those rows a second, which are its probes; when it has ended, `gatekeeping` brings all of them forward.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from notify_tasks import countries, metering
from notify_tasks.limiting import HIGH, Limiter, Manner
from notify_tasks.providers import Configured, Pools
from notify_tasks.rates import Rate
from notify_tasks.recipient_limits import RecipientLimits, Scope
from notify_tasks.routing import queue_for
from notify_tasks.states import State
from notify_tasks.store.gated import NOT_READY, PAUSED

PAUSES_READ_SECONDS: Final = 2.0
LOOK_AGAIN_SECONDS: Final = 5.0
"""The soonest that something is looked at again which waits for an outage or a pause to end."""
LOOKS_A_SECOND: Final = 10.0
"""So many of those rows one process looks at in a second, whatever number waits."""
PROBE_MARGIN: Final = 10.0
"""Seconds beyond its timeout after which a probe of a provider has ended, whatever became of it."""
SHARE_FLOOR: Final = 1.0
SHARE_FULL: Final = "provider_share_full"
RATE: Final = "rate:"
"""Begins the reason of what waits for its turn in a provider's rate; the provider's name follows."""
LIMITED: Final = "recipient_limit"
"""The reason of what waits, or has ended, because its recipient gets no more messages for now."""
COUNTRY: Final = "country_not_allowed"
LONGEST_INTERVAL: Final = 5.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to pass: a delivery that waits, or one that a call is about to become."""

    delivery_id: str
    tenant: str
    event_type: str
    channel: str
    lane: str
    provider: str | None = None
    unknown: bool = False
    sandbox: bool = False
    waited_for: str | None = None
    """Why it was held before."""
    address: str = field(default="", repr=False)
    limits: tuple[Rate, ...] = ()
    """How often its type may write to one recipient."""
    lifetime: float = float("inf")
    """Seconds until it expires."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Wait so many seconds, for this reason; or, with `ends`, end: it can never start."""

    wait: float
    reason: str
    ends: State | None = None


class Places:
    """A queue of times to look again: each caller's is a moment after the last one's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}

    def next(self, queue: str) -> float:
        """Seconds until the next free place of this queue."""
        now = time.monotonic()
        with self._lock:
            place = max(now + LOOK_AGAIN_SECONDS, self._last.get(queue, 0.0) + 1 / LOOKS_A_SECOND)
            self._last[queue] = place
        return place - now

    def clear(self) -> None:
        """Begin anew: what waited is brought forward."""
        with self._lock:
            self._last.clear()


@dataclass(slots=True)
class Share:
    """How much of this process one provider uses, and how fast it gets things done."""

    running: int = 0
    interval: float = 1.0
    """Seconds between the ends of two calls, averaged. (An averaged rate would run away: calls that end
    together are thousands a second.)"""
    next_slot: float = 0.0
    _last: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """A call begins. Time in which there was none says nothing of how fast it is."""
        if self.running == 0:
            self._last = time.monotonic()
        self.running += 1

    def done(self) -> None:
        """A call ended: follow the rate."""
        now = time.monotonic()
        since, self._last = min(now - self._last, LONGEST_INTERVAL), now
        self.interval += 0.1 * (since - self.interval)

    def slot(self) -> float:
        """Seconds until a place may be free, each caller a later one: the waiting is spread by the rate."""
        now = time.monotonic()
        self.next_slot = max(now + SHARE_FLOOR, self.next_slot + self.interval)
        return self.next_slot - now


class Gates:
    """Decides whether a delivery may start now, and at which provider.

    Args:
        pools: the configuration.
        threads: how many deliveries this process runs at once.
        channels: the channels it serves. Where they have more than one provider, none may use more than half
            of the threads, so that a slow one leaves room for the others.
        pauses: reads what is paused.
        limiter: keeps the providers' rates; without one, none is kept.
        recipients: keeps the limits of each recipient; without one, none is kept.
        later: told after how many seconds something may pass that may not pass now; callers with a due time of
            their own may tell it, too.
    """

    def __init__(
        self,
        pools: Pools,
        *,
        threads: int,
        channels: tuple[str, ...],
        pauses: Callable[[], Mapping[tuple[str, str], str]],
        limiter: Limiter | None = None,
        recipients: RecipientLimits | None = None,
        later: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._pools = pools
        self._lock = threading.Lock()
        self._shares: dict[str, Share] = {}
        self._threads = threads
        self._channels = channels
        self._limiter = limiter
        self._recipients = recipients
        self.later = later
        self.places = Places()
        self._read_pauses = pauses
        self._pauses: Mapping[tuple[str, str], str] = {}
        self._pauses_at = float("-inf")

    def ask(self, subject: Subject, *, without: frozenset[str] = frozenset()) -> Configured | Closed:
        """The provider to call now, or how long to wait.

        A provider that is named may be one whose breaker lets this delivery alone through: whoever does not call it
        after all says so with `given_up`.

        Args:
            subject: the delivery.
            without: providers that have failed for it in this run already.
        """
        answer = self._barred(subject) or self._choose(subject, without)
        if isinstance(answer, Closed):
            metering.gate_closed(subject.channel, answer.reason)
        if isinstance(answer, Closed) and answer.ends is None:
            self.later(answer.wait)
        return answer

    def room(self, channel: str, seconds: float) -> int:
        """How many calls of a channel could begin within so many seconds at providers that have room now.

        Returns:
            0 where no provider has a share of the threads alone: then nothing waits for one.
        """
        limit, pool = self._limit, self._pools.configuration.pools.get(channel)
        if limit is None or pool is None:
            return 0
        names = [name for name in pool.names() if (it := self._pools.get(name)) and not it.breaker.open]
        with self._lock:
            shares = [self._share(name) for name in names]
            return sum(
                limit - it.running + int(seconds / max(it.interval, 0.001))
                for it in shares
                if it.running < limit
            )

    def given_up(self, provider: str, delivery_id: str) -> None:
        """This delivery does not call the provider now: if it was to be its probe, another one may be."""
        configured = self._pools.get(provider)
        if configured is not None:
            configured.breaker.abandon(delivery_id)

    def countries(self, channel: str, *, sandbox: bool) -> frozenset[str] | None:
        """The only countries whose numbers may be written to; None for all. A sandboxed call reaches nobody's."""
        return None if sandbox else self._pools.rules(channel).countries

    def _barred(self, subject: Subject) -> Closed | None:
        """What closes every way."""
        reason = self._paused(subject)
        if reason is not None:
            return Closed(self.places.next(PAUSED), f"{PAUSED}{reason}")
        return Closed(0.0, COUNTRY, State.SUPPRESSED) if self._abroad(subject) else None

    def _choose(self, subject: Subject, without: frozenset[str]) -> Configured | Closed:
        candidates = self._candidates(subject)
        ready = [it for it in candidates if it.name not in without and it.breaker.closed()]
        if not ready:
            return Closed(self.places.next(subject.channel), NOT_READY)
        limited = self._recipient(subject)
        if limited is not None:
            return limited
        first, urgent = ready[0], subject.lane == HIGH and len(ready) > 1
        for it in ready:
            # Another than the first choice is called where it can be at once: nobody queues up for a substitute.
            queue = it is first and not urgent
            if queue and not self._has_room(it.name):
                break  # it is well and busy: a substitute now would bend the weights
            answer = self._own_gates(it, subject, queue=queue)
            if isinstance(answer, Configured) or (answer is not None and queue):
                return answer
        if urgent and (answer := self._own_gates(first, subject, queue=True)) is not None:
            return answer
        if not first.breaker.closed():  # others have taken its probe meanwhile
            return Closed(self.places.next(subject.channel), NOT_READY)
        with self._lock:
            return Closed(self._share(first.name).slot(), SHARE_FULL)

    def _own_gates(self, it: Configured, subject: Subject, *, queue: bool) -> Configured | Closed | None:
        """Ask one provider's own gates: its share, its breaker, its rate. None where it has no room."""
        if not self._has_room(it.name) or not it.breaker.admit(
            subject.delivery_id, it.timeout + PROBE_MARGIN
        ):
            return None
        closed = self._rate(it, subject, queue=queue)
        if closed is not None:
            it.breaker.abandon(subject.delivery_id)
        return closed or it

    def _candidates(self, subject: Subject) -> list[Configured]:
        if subject.unknown and subject.provider is not None:
            # An attempt's outcome is unknown: only its own provider can know the key.
            own = self._pools.get(subject.provider)
            return [own] if own is not None else []
        return self._of_pool(subject)

    def _of_pool(self, subject: Subject) -> list[Configured]:
        return self._pools.candidates(
            subject.channel, subject.delivery_id, sandbox=subject.sandbox, address=subject.address
        )

    def _abroad(self, subject: Subject) -> bool:
        """Whether its number is of a country that a new configuration does not allow any more."""
        allowed = self.countries(subject.channel, sandbox=subject.sandbox)
        return allowed is not None and countries.of_number(subject.address) not in allowed

    def _recipient(self, subject: Subject) -> Closed | None:
        if self._recipients is None or subject.sandbox or not subject.address:
            return None
        of_channel = self._pools.rules(subject.channel).per_recipient
        scopes = [Scope("", of_channel)] if of_channel else []
        scopes += [Scope(subject.event_type, subject.limits)] if subject.limits else []
        if not scopes:
            return None
        wait = self._recipients.take(
            (subject.tenant, subject.channel, subject.address),
            scopes,
            delivery_id=subject.delivery_id,
            lifetime=subject.lifetime,
        )
        if wait is None:
            return Closed(0.0, LIMITED, State.EXPIRED)
        return Closed(wait, LIMITED) if wait > 0 else None

    def _rate(self, configured: Configured, subject: Subject, *, queue: bool) -> Closed | None:
        if configured.rate is None or self._limiter is None:
            return None
        reason = f"{RATE}{configured.name}"
        manner = Manner.WAITED if subject.waited_for == reason else Manner.QUEUE if queue else Manner.AT_ONCE
        wait = self._limiter.take(configured.name, configured.rate, lane=subject.lane, manner=manner)
        if wait <= 0:
            return None
        if manner is not Manner.AT_ONCE:
            metering.limited(configured.name, wait)
        return Closed(wait, reason)

    def other_ready(self, subject: Subject, *, without: frozenset[str]) -> bool:
        """Whether another provider of the pool could be called at once."""
        if subject.unknown:
            return False
        candidates = self._of_pool(subject)
        return any(it.name not in without and it.breaker.closed() for it in candidates)

    def alternatives(self, subject: Subject, *, without: frozenset[str]) -> bool:
        """Whether the pool has another provider at all, ready or not."""
        if subject.unknown:
            return False
        candidates = self._of_pool(subject)
        return any(it.name not in without for it in candidates)

    def enter(self, provider: str) -> Closed | None:
        """A call at this provider begins, and `leave` must follow.

        Returns:
            None, or how long to wait where others have filled its share meanwhile: then nothing has begun.
        """
        closed = self._take_room(provider) or self._pace(provider)
        if closed is not None:
            self.later(closed.wait)
        return closed

    def _take_room(self, provider: str) -> Closed | None:
        with self._lock:
            share = self._share(provider)
            limit = self._limit
            if limit is None or share.running < limit:
                share.begin()
                return None
            return Closed(share.slot(), SHARE_FULL)

    def _pace(self, provider: str) -> Closed | None:
        """Wait the fraction of a second by which calls that took their time on the way here must stay apart."""
        configured = self._pools.get(provider)
        if configured is None or configured.rate is None or self._limiter is None:
            return None
        wait = self._limiter.start(provider, configured.rate)
        if wait is None:
            self.leave(provider)
            return Closed(SHARE_FLOOR, f"{RATE}{provider}")
        time.sleep(wait)
        return None

    def leave(self, provider: str) -> None:
        """It ended."""
        with self._lock:
            share = self._share(provider)
            share.running -= 1
            share.done()

    @property
    def _limit(self) -> int | None:
        """How many calls one provider may have at once. Asked each time: a new configuration may add one."""
        if self._threads > 1 and self._pools.several(self._channels):
            return max(1, self._threads // 2)
        return None

    def _share(self, name: str) -> Share:
        return self._shares.setdefault(name, Share())

    def _has_room(self, name: str) -> bool:
        limit = self._limit
        if limit is None:
            return True
        with self._lock:
            return self._share(name).running < limit

    def _paused(self, subject: Subject) -> str | None:
        now = time.monotonic()
        if now - self._pauses_at > PAUSES_READ_SECONDS:
            self._pauses = self._read_pauses()
            self._pauses_at = now  # not before they are read: what is not known may not pass
        if not self._pauses:
            return None
        for key in (
            ("queue", queue_for(subject.channel, subject.lane)),
            ("type", subject.event_type),
            ("tenant", subject.tenant),
        ):
            if key in self._pauses:
                return self._pauses[key]
        return None
