"""How often one person is written to over one channel: exact sliding windows, shared by the fleet through Redis.

Who is over a limit is given a turn, the earliest time that keeps every limit, and waits for it as a row with a due
time. A delivery counts once, from its turn on, however often it is tried. Counters expire by themselves, and are named
by a keyed hash: Redis never holds an address.

Redis is a convenience here, as it is for providers' rates: where it does not answer in time, a process counts what it
sends itself.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from notify_tasks import redis_place
from notify_tasks.limiting import ANSWER_SECONDS, REST_SECONDS
from notify_tasks.rates import Rate

PREFIX: Final = "notify.limit."
REMEMBERED: Final = 20_000
"""Counters at most that a process keeps for the time without Redis."""

_SCRIPT: Final = Path(__file__).with_suffix(".lua").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Scope:
    """What is counted together.

    Args:
        event_type: whose messages; empty for all of the channel.
        limits: each must hold.
    """

    event_type: str
    limits: tuple[Rate, ...]


class _Own:
    """The same count as this process sees it when it is alone."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, dict[str, float]] = OrderedDict()

    def take(
        self, named: Sequence[tuple[str, tuple[Rate, ...]]], delivery_id: str, lifetime: float
    ) -> float | None:
        now = time.monotonic()
        turn = now
        for key, limits in named:
            turns = self._of(key, now - max(limit.seconds for limit in limits))
            if delivery_id in turns:
                turn = max(turn, turns[delivery_id])
                continue
            latest = sorted(turns.values(), reverse=True)
            turn = max([turn, *latest[:1]])
            for limit in limits:
                nth = int(limit.count)
                if len(latest) >= nth:
                    turn = max(turn, latest[nth - 1] + limit.seconds)
        late = turn - now >= lifetime
        for key, _ in named:
            if late:
                self._turns[key].pop(delivery_id, None)
            else:
                self._turns[key].setdefault(delivery_id, turn)
        return None if late else turn - now

    def _of(self, key: str, oldest: float) -> dict[str, float]:
        turns = {id_: at for id_, at in self._turns.pop(key, {}).items() if at > oldest}
        self._turns[key] = turns
        if len(self._turns) > REMEMBERED:
            self._turns.popitem(last=False)
        return turns


class RecipientLimits:
    """Keeps the limits of recipients.

    Args:
        url: of Redis.
        key: reads the key that names the counters; it is asked once, when the first one is needed.
        patience: seconds that Redis has for an answer.
    """

    def __init__(self, url: str, *, key: Callable[[], str], patience: float = ANSWER_SECONDS) -> None:
        self._redis = redis_place.client(url, seconds=patience, retry=Retry(NoBackoff(), 0))
        self._script = self._redis.register_script(_SCRIPT)
        self._read_key = key
        self._key: bytes | None = None
        self._lock = threading.Lock()
        self._alone_until = float("-inf")
        self._own = _Own()

    def take(
        self, recipient: tuple[str, str, str], scopes: Sequence[Scope], *, delivery_id: str, lifetime: float
    ) -> float | None:
        """Ask to write to somebody.

        Args:
            recipient: tenant, channel and address.
            scopes: which limits hold.
            delivery_id: of the message: one that asks again keeps the turn that it was given.
            lifetime: seconds until it expires.

        Returns:
            0.0 for yes; else the seconds until its turn; None where that comes after its end.

        Raises:
            DatabaseError: the key could not be read.
        """
        named = [(self._named(recipient, scope), scope.limits) for scope in scopes]
        if time.monotonic() >= self._alone_until:
            try:
                wait = self._ask(named, delivery_id, lifetime)
            except redis.RedisError:
                self._alone_until = time.monotonic() + REST_SECONDS
            else:
                with self._lock:  # what is known here, too, if Redis goes
                    self._own.take(named, delivery_id, float("inf"))
                return None if wait < 0 else wait
        with self._lock:
            return self._own.take(named, delivery_id, lifetime)

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()

    def _ask(self, named: Sequence[tuple[str, tuple[Rate, ...]]], delivery_id: str, lifetime: float) -> float:
        arguments: list[str | float] = [delivery_id, f"{min(lifetime, 1e9):.6f}"]
        for _, limits in named:
            arguments += [len(limits)]
            for limit in limits:
                arguments += [int(limit.count), f"{limit.seconds:.6f}"]
        return float(self._script(keys=[key for key, _ in named], args=arguments))

    def _named(self, recipient: tuple[str, str, str], scope: Scope) -> str:
        if self._key is None:
            self._key = self._read_key().encode()
        digest = hmac.new(self._key, "\0".join(recipient).encode(), hashlib.sha256).hexdigest()[:32]
        # In braces: all counters of one recipient are in one slot of a cluster.
        return f"{PREFIX}{{{digest}}}{'.' if scope.event_type else ''}{scope.event_type}"
