"""Keeps HTTP connections for the next request: at most so many, none for long, and none that is not sound."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Final

from channels._addresses import Origin
from channels._http_wire import Connection, Dialer, Failure
from channels.contract import Deadline

IDLE_SECONDS: Final = 25.0
"""How long an unused connection is kept: less than the 30 s after which many servers hang up."""


class Pool:
    """At most `size` connections, in use and idle; the one used last is taken first.

    Args:
        size: connections at most.
        idle_seconds: how long an unused one is kept.
    """

    def __init__(self, size: int, idle_seconds: float = IDLE_SECONDS) -> None:
        self._size = size
        self._idle_seconds = idle_seconds
        self._slots = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[tuple[Origin, Connection]] = []  # the longest unused first
        self._held = 0  # connections in use, or being opened
        self._closed_at = 0.0

    @contextlib.contextmanager
    def connection(self, origin: Origin, dialer: Dialer, deadline: Deadline) -> Iterator[Connection]:
        """A connection to the origin: an idle one, or a new one. It is kept afterwards if it is reusable.

        Raises:
            Failure: none could be had. Nothing was sent.
        """
        left = -deadline.overdue()
        if left <= 0:
            raise Failure("deadline")
        if not self._slots.acquire(timeout=left):
            raise Failure("pool")
        connection: Connection | None = None
        started = time.monotonic()
        try:
            connection = self._take(origin)
            try:
                if connection is None:
                    connection = dialer.open(origin, deadline)
                yield connection
            finally:
                self._give_back(origin, connection, started)
        finally:
            self._slots.release()

    def close(self) -> None:
        """Close what is idle now, and what is in use when it comes back."""
        with self._lock:
            self._closed_at = time.monotonic()
            spent, self._idle = self._idle, []
        for _, each in spent:
            each.close()

    def _take(self, origin: Origin) -> Connection | None:
        taken: Connection | None = None
        now = time.monotonic()
        with self._lock:
            spent = [each for each in self._idle if not self._usable(each[1], now)]
            self._idle = [each for each in self._idle if each not in spent]
            for place in range(len(self._idle) - 1, -1, -1):
                if self._idle[place][0] == origin:
                    _, taken = self._idle.pop(place)
                    break
            self._held += 1
            surplus = max(len(self._idle) + self._held - self._size, 0)
            spent += self._idle[:surplus]
            self._idle = self._idle[surplus:]
        for _, each in spent:
            each.close()
        return taken

    def _usable(self, connection: Connection, now: float) -> bool:
        return (
            connection.pid == os.getpid()  # after a fork two processes would talk into one conversation
            and now - connection.used_at < self._idle_seconds
            and connection.alive()
        )

    def _give_back(self, origin: Origin, connection: Connection | None, started: float) -> None:
        keep = False
        with self._lock:
            self._held -= 1
            if connection is not None:
                connection.used_at = time.monotonic()
                keep = connection.reusable and started > self._closed_at
                if keep:
                    self._idle.append((origin, connection))
        if connection is not None and not keep:
            connection.close()
