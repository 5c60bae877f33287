"""A provider's rate, shared by the whole fleet, by Redis's clock.

Who may not start now is given a place in a queue: the time when its turn comes. It waits there as a row with a due
time, not as a thread. A part of each rate is kept for the high lane, so that a broadcast that uses all of it up
does not delay a password reset.

Redis is a convenience here, not a need: where it does not answer in time, a process takes its own share of the rate.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from notify_tasks import metering, redis_place
from notify_tasks.rates import Rate

KEY: Final = "notify.rate."
KEPT: Final = 0.2
"""The share of each rate that only the high lane may use."""
BURST: Final = 0.25
"""Seconds of its rate that may be taken at once: what the alarm wakes together. Their calls still begin one by one."""
HEADROOM: Final = 0.08
"""A rate is a ceiling, for any second as the provider counts it. Calls do not all take the same time to get there: one
that opens a connection takes a TLS handshake longer. So much less than the rate is used; it covers as much of a second,
80 ms."""
LONGEST_PACE: Final = 0.5
"""Seconds that a call may wait for the one before it to have begun."""
ANSWER_SECONDS: Final = 0.1
REST_SECONDS: Final = 1.0
"""So long a process goes on by itself after Redis did not answer in time."""
HIGH: Final = "high"

_SCRIPT: Final = Path(__file__).with_suffix(".lua").read_text(encoding="utf-8")


class Manner(IntEnum):
    """How a call asks to begin."""

    QUEUE = 0
    """It takes a place in the queue where it may not."""
    WAITED = 1
    """It was given a place before, and its time has come."""
    AT_ONCE = 2
    """Now or not at all: it goes another way, and takes no place."""


def between(rate: Rate) -> float:
    """Seconds between two calls."""
    return rate.interval * (1 + HEADROOM)


def spacing(rate: Rate) -> float:
    """Seconds between two places in the queue of the lanes below high."""
    return between(rate) / (1 - KEPT)


@dataclass(slots=True)
class _Own:
    """One provider's rate as this process sees it when it is alone: the same algorithm, with a share of the rate."""

    processes: int = 1
    tat: float = field(default_factory=time.monotonic)
    tat_rest: float = field(default_factory=time.monotonic)
    tail: float = 0.0
    late: float = 0.0

    def shared(self, processes: int) -> None:
        """Redis answered: so many processes ask, and whoever is alone next begins without a burst."""
        self.processes = processes
        self.tat = self.tat_rest = time.monotonic() + BURST

    def take(self, rate: Rate, *, high: bool, manner: Manner) -> float:
        now = time.monotonic()
        interval = between(rate) * self.processes
        rest = interval / (1 - KEPT)
        self.tat, self.tat_rest = max(now, self.tat), max(now, self.tat_rest)
        wait = self.tat + interval - now - max(BURST, interval)
        if not high:
            wait = max(wait, self.tat_rest + rest - now - max(BURST, rest))
        if wait <= 0:
            self.tat += interval
            self.tat_rest += 0.0 if high else rest
            return 0.0
        if manner is Manner.AT_ONCE:
            return wait
        if manner is Manner.WAITED:
            self.late = max(now + max(wait, interval), self.late + interval)
            return self.late - now
        self.tail = max(now + wait, self.tail + interval)
        return self.tail - now


class Limiter:
    """Keeps providers' rates.

    Args:
        url: of Redis.
        process: this process's name.
        changed: told that a provider's rate is another one, or None. One process of the fleet is told, and gives
            what waits new times.
        patience: seconds that Redis has for an answer.
    """

    def __init__(
        self,
        url: str,
        *,
        process: str,
        changed: Callable[[str, Rate | None], None],
        patience: float = ANSWER_SECONDS,
    ) -> None:
        self._redis = redis_place.client(url, seconds=patience, retry=Retry(NoBackoff(), 0))
        self._script = self._redis.register_script(_SCRIPT)
        self._process = process
        self._changed = changed
        self._lock = threading.Lock()
        self._alone_until = float("-inf")
        self._own: dict[str, _Own] = {}

    def take(self, provider: str, rate: Rate, *, lane: str, manner: Manner) -> float:
        """Ask to begin one call.

        Args:
            provider: its configured name.
            rate: as it is configured now.
            lane: high, normal or bulk.
            manner: what becomes of it where it may not begin.

        Returns:
            0.0 for yes, else the seconds to wait.
        """
        high = lane == HIGH
        if time.monotonic() >= self._alone_until:
            arguments = ["take", f"{between(rate):.9f}", BURST, KEPT, int(high), int(manner), self._process]
            try:
                wait, processes = self._run(provider, arguments)
            except redis.RedisError:
                metering.limiter_alone()
                self._alone_until = time.monotonic() + REST_SECONDS
            else:
                with self._lock:
                    self._of(provider).shared(max(1, int(processes)))
                return float(wait)
        with self._lock:
            return self._of(provider).take(rate, high=high, manner=manner)

    def start(self, provider: str, rate: Rate) -> float | None:
        """Ask when the call may begin that was granted before: others that were granted may be on their way, too.

        Returns:
            Seconds to wait, a fraction of one; None where too many come at once, and it must be asked for again.
        """
        if time.monotonic() < self._alone_until:
            return 0.0  # a process that is alone has been given its own share, with no burst
        try:
            wait = float(self._run(provider, ["start", f"{between(rate):.9f}", LONGEST_PACE]))
        except redis.RedisError:
            self._alone_until = time.monotonic() + REST_SECONDS
            return 0.0
        return None if wait < 0 else wait

    def announce(self, provider: str, rate: Rate | None) -> None:
        """Say what a provider's rate is now: at the start, and after a change of the configuration.

        What waits for its turn was given a time by the old rate; `changed` gives it a new one.
        """
        try:
            other = self._run(provider, ["announce", "0" if rate is None else f"{rate.interval:.9f}"])
        except redis.RedisError:
            return  # the times given stand: late, not lost
        if other:
            self._changed(provider, rate)

    def queue_ends(self, provider: str, rate: Rate, seconds: float) -> None:
        """Say how far ahead the last place is that is given.

        Raises:
            RedisError: Redis does not answer.
        """
        self._run(provider, ["queue", f"{between(rate):.9f}", f"{seconds:.6f}"])

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()

    def _run(self, provider: str, arguments: list[Any]) -> Any:
        key = _key(provider)
        return self._script(keys=[key, f"{key}.processes"], args=arguments)

    def _of(self, provider: str) -> _Own:
        return self._own.setdefault(provider, _Own())


def _key(provider: str) -> str:
    return f"{KEY}{{{provider}}}"  # in braces: both keys are in one slot of a cluster
