"""A provider's circuit breaker in one process: it leaves the provider out while its calls cannot work.

It opens after failures in a row, or at once where the provider is misconfigured. Some seconds later it lets one call
through, the probe: that one's answer closes it, or leaves it open for as long again. Being asked to slow down opens
nothing: the provider works.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Final

from channels.contract import (
    AddressInvalid,
    ChannelError,
    Misconfigured,
    OptedOut,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)

OPEN_SECONDS: Final = 5.0
"""How long a provider is left out before a probe: so much later than it works again it is noticed."""
FAILURES_TO_OPEN: Final = 5
NEVER: Final = float("-inf")
SERVER_FAILED: Final = frozenset({"500", "502", "504"})
"""HTTP statuses by which a server says that it is broken (RFC 9110, section 15.6), and not that one message waits."""
USERS_SERVERS: Final = frozenset({"webhook", "webpush", "chat"})
"""Channels whose address names the server that is called: an answer that it loses says nothing of the others."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a provider is left out.

    Args:
        code: of the last failure: the provider's own, or a word of ours.
        misconfigured: nothing can pass until somebody mends it.
        since: the monotonic time of the opening.
        last: that of the last failure.
    """

    code: str
    misconfigured: bool
    since: float
    last: float


@dataclass(slots=True)
class Breaker:
    """Leaves a provider out after failures in a row, or at once when it is misconfigured. Safe among threads."""

    failures: int = 0
    open_until: float = 0.0
    worked_at: float = NEVER
    """The monotonic time of the last call that showed it working."""
    trouble: Trouble | None = None
    """Set while it is open because of calls of this process; told by others, it is open without one."""
    _prober: str | None = None
    _probe_ends: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def open(self) -> bool:
        """Whether it has opened, and no call has shown yet that the provider works."""
        return self.open_until > 0.0

    def closed(self) -> bool:
        """Whether the provider may be called: it works as far as is known, or a probe of it is due."""
        with self._lock:
            return self._free(time.monotonic())

    def admit(self, who: str, seconds: float) -> bool:
        """Ask to call the provider. While the breaker is open one caller at a time is let through, as the probe.

        Args:
            who: the delivery.
            seconds: after which a probe that was never ended counts no more.

        Returns:
            Whether it may; then one of `success`, `failure` or `abandon` must follow.
        """
        with self._lock:
            now = time.monotonic()
            if self.open and self._prober == who and now < self._probe_ends:
                return True
            if not self._free(now):
                return False
            if self.open:
                self._prober, self._probe_ends = who, now + seconds
            return True

    def abandon(self, who: str) -> None:
        """The probe was not made after all: the next one may."""
        with self._lock:
            if self._prober == who:
                self._prober = None

    def success(self) -> None:
        """A call worked, or was refused by a provider that works."""
        with self._lock:
            self.failures = 0
            self.open_until = 0.0
            self.worked_at = time.monotonic()
            self.trouble = self._prober = None

    def failure(self, code: str = "down", *, at_once: bool = False) -> bool:
        """A call found the provider down or misconfigured.

        Args:
            code: of the failure.
            at_once: it is misconfigured: no call can work.

        Returns:
            Whether this opened it, having been closed before.
        """
        with self._lock:
            now = time.monotonic()
            before = self.trouble
            self.failures += 1
            self._prober = None
            if not at_once and self.failures < FAILURES_TO_OPEN and not self.open:
                return False
            self.failures = max(self.failures, FAILURES_TO_OPEN)
            self.open_until = now + OPEN_SECONDS
            self.trouble = Trouble(code, at_once, now if before is None else before.since, now)
            return before is None

    def warn(self) -> None:
        """Other processes leave the provider out: the next call of this one is a probe, unless it knows better."""
        with self._lock:
            now = time.monotonic()
            if not self.open and now - self.worked_at > OPEN_SECONDS:
                self.open_until = now

    def hope(self) -> None:
        """It may work again: the next call is the probe, now."""
        with self._lock:
            if self.open:
                self.open_until = min(self.open_until, time.monotonic())

    def _free(self, now: float) -> bool:
        probing = self._prober is not None and now < self._probe_ends
        return not self.open or (now >= self.open_until and not probing)


def judge(breaker: Breaker, error: ChannelError, *, channel: str, who: str) -> bool:
    """Take what a failed call says of its provider, and not of the one message.

    A refusal says nothing: it may be a rule of ours, kept before anything is sent. So does a wait that is asked for one
    address, unless the call was the probe: an open breaker closes only for a call that shows the provider at work.

    Args:
        breaker: of the provider.
        error: how the call ended.
        channel: of the call.
        who: the delivery.

    Returns:
        Whether the provider is left out from now on.
    """
    misconfigured = isinstance(error, Misconfigured)
    broken = isinstance(error, Uncertain) or (isinstance(error, TryLater) and error.code in SERVER_FAILED)
    if misconfigured or isinstance(error, Unavailable) or (broken and channel not in USERS_SERVERS):
        return breaker.failure(error.code, at_once=misconfigured)
    if breaker.open and isinstance(error, (TryLater, Uncertain)):
        return breaker.failure(error.code)
    if isinstance(error, (Throttled, AddressInvalid, OptedOut)):
        breaker.success()
    else:
        breaker.abandon(who)
    return False
