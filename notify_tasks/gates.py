"""The gates before a claim: a closed one moves the due time forward, with no attempt and no sleeping thread.

They are asked before the claim. Only a provider's share is counted when its call begins, so that threads
which ask at the same moment cannot overrun it: the late ones give their claim back.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from notify_tasks.limiting import Limiter
from notify_tasks.providers import Configured, Pools
from notify_tasks.routing import queue_for

PAUSE_SECONDS: Final = 15.0
PAUSES_READ_SECONDS: Final = 2.0
NO_PROVIDER_SECONDS: Final = 15.0
SHARE_FLOOR: Final = 1.0
SHARE_FULL: Final = "provider_share_full"
RATE: Final = "rate:"
"""Begins the reason of what waits for its turn in a provider's rate; the provider's name follows."""
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


@dataclass(frozen=True, slots=True)
class Closed:
    """Wait so many seconds, for this reason."""

    wait: float
    reason: str


@dataclass(slots=True)
class Share:
    """How much of this process one provider uses, and how fast it gets things done."""

    running: int = 0
    interval: float = 1.0
    """Seconds between the ends of two calls, averaged. (An averaged rate would run away: calls that end
    together are thousands a second.)"""
    next_slot: float = 0.0
    _last: float = field(default_factory=time.monotonic)

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
        later: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._pools = pools
        self._lock = threading.Lock()
        self._shares: dict[str, Share] = {}
        self._threads = threads
        self._channels = channels
        self._limiter = limiter
        self.later = later
        self._read_pauses = pauses
        self._pauses: Mapping[tuple[str, str], str] = {}
        self._pauses_at = float("-inf")

    def ask(self, subject: Subject, *, without: frozenset[str] = frozenset()) -> Configured | Closed:
        """The provider to call now, or how long to wait.

        Args:
            subject: the delivery.
            without: providers that have failed for it in this run already.
        """
        answer = self._choose(subject, without)
        if isinstance(answer, Configured) and answer.rate is not None and self._limiter is not None:
            reason = f"{RATE}{answer.name}"
            waited = subject.waited_for == reason
            wait = self._limiter.take(answer.name, answer.rate, lane=subject.lane, waited=waited)
            answer = Closed(wait, reason) if wait > 0 else answer
        if isinstance(answer, Closed):
            self.later(answer.wait)
        return answer

    def _choose(self, subject: Subject, without: frozenset[str]) -> Configured | Closed:
        reason = self._paused(subject)
        if reason is not None:
            return Closed(PAUSE_SECONDS * random.uniform(0.5, 1.5), f"paused: {reason}")  # noqa: S311 - a spread
        if subject.unknown and subject.provider is not None:
            # An attempt's outcome is unknown: only its own provider can know the key.
            own = self._pools.get(subject.provider)
            candidates = [own] if own is not None else []
        else:
            candidates = self._pools.candidates(subject.channel, subject.delivery_id, sandbox=subject.sandbox)
        ready = [it for it in candidates if it.name not in without and it.breaker.closed()]
        if not ready:
            return Closed(NO_PROVIDER_SECONDS * random.uniform(0.8, 1.2), "no_provider_ready")  # noqa: S311
        for configured in ready:
            if self._has_room(configured.name):
                return configured
        with self._lock:
            return Closed(self._share(ready[0].name).slot(), SHARE_FULL)

    def other_ready(self, subject: Subject, *, without: frozenset[str]) -> bool:
        """Whether another provider of the pool could be called at once."""
        if subject.unknown:
            return False
        candidates = self._pools.candidates(subject.channel, subject.delivery_id, sandbox=subject.sandbox)
        return any(it.name not in without and it.breaker.closed() for it in candidates)

    def alternatives(self, subject: Subject, *, without: frozenset[str]) -> bool:
        """Whether the pool has another provider at all, ready or not."""
        if subject.unknown:
            return False
        candidates = self._pools.candidates(subject.channel, subject.delivery_id, sandbox=subject.sandbox)
        return any(it.name not in without for it in candidates)

    def enter(self, provider: str) -> Closed | None:
        """A call at this provider begins, and `leave` must follow.

        Returns:
            None, or how long to wait where others have filled its share meanwhile: then nothing has begun.
        """
        with self._lock:
            share = self._share(provider)
            limit = self._limit
            if limit is None or share.running < limit:
                share.running += 1
                return None
            closed = Closed(share.slot(), SHARE_FULL)
        self.later(closed.wait)
        return closed

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
            self._pauses_at = now
            self._pauses = self._read_pauses()
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
