"""Connections that wait for their next use, and opening one within a budget."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Idle(Generic[T]):
    """Open connections that nobody uses now, the last used first.

    Safe among threads. A forked child begins without any: a socket shared with its parent would mix up their
    answers.

    Args:
        keep: how many are kept; what is given back beyond that is closed by its giver.
        inherited: what a forked child does with each that its parent had; it must send nothing.
    """

    def __init__(self, keep: int, *, inherited: Callable[[T], object]) -> None:
        self._keep = keep
        self._inherited = inherited
        self._mine: tuple[int, deque[T]] = (os.getpid(), deque())

    def _here(self) -> deque[T]:
        pid, items = self._mine
        if pid != os.getpid():
            theirs, items = items, deque()
            self._mine = (os.getpid(), items)
            for connection in theirs:
                self._inherited(connection)
        return items

    def take(self) -> T | None:
        """The connection used last, or None where all are in use."""
        try:
            return self._here().pop()
        except IndexError:
            return None

    def give(self, connection: T) -> bool:
        """Keep a connection for its next use. False: there are enough, close it."""
        items = self._here()
        if len(items) >= self._keep:
            return False
        items.append(connection)
        return True


def open_by(deadline: float, connect: Callable[[], T], discard: Callable[[T], None]) -> T:
    """Open a connection, or stop waiting for it at the deadline.

    It is opened in a thread of its own, because neither a name's resolution nor a handshake of several round
    trips can be given one deadline. That costs about a tenth of a millisecond, and only where none is idle.

    Args:
        deadline: on the monotonic clock.
        connect: opens it. Its own timeouts must end it some day.
        discard: closes a connection that came too late.

    Raises:
        TimeoutError: the deadline passed first.
        Exception: what `connect` raised.
    """
    opening = _Opening(connect, discard)
    threading.Thread(target=opening.run, name="notify-connect", daemon=True).start()
    return opening.wait(deadline - time.monotonic())


class _Opening(Generic[T]):
    def __init__(self, connect: Callable[[], T], discard: Callable[[T], None]) -> None:
        self._connect = connect
        self._discard = discard
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._given_up = False
        self._opened: list[T] = []
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            opened = self._connect()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self._error = error
        else:
            with self._lock:
                late = self._given_up
                if not late:
                    self._opened.append(opened)
            if late:
                self._discard(opened)
        self._ended.set()

    def wait(self, seconds: float) -> T:
        try:
            self._ended.wait(max(seconds, 0))
        finally:
            with self._lock:
                self._given_up = True
        if self._opened:
            return self._opened.pop()
        if self._error is not None:
            raise self._error
        raise TimeoutError
