"""What became of a delivery in one run, for whoever publishes it again or tells of it. No Celery here."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Final

from channels.contract import ChannelError
from notify_tasks.states import FINAL, State

COUNTDOWNS_A_MINUTE: Final = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one delivery in this run.

    Args:
        state: the state it is in now; None where it could not be claimed (done, or another worker has it).
        provider: who was called last.
        code: the provider's code, or the reason.
        retry: the error to retry for by a short Celery countdown, or None.
        countdown: seconds of that countdown where the provider said when; None lets Celery draw it.
    """

    id: uuid.UUID
    state: State | None
    provider: str | None = None
    code: str | None = None
    retry: ChannelError | None = None
    countdown: float | None = None
    attempts: int = 0
    queue: str = ""
    wake: bool = False
    """Queued again: the caller publishes it."""
    message_id: str = ""
    event_type: str = ""
    """For whoever publishes it again; set where `wake` or `retry` is."""


class Countdowns:
    """How many short retries this process has handed to Celery lately.

    Each one is held in some worker's memory until it is due, and many of them shrink that worker's prefetch for good.
    Beyond the limit a due time in the row does the same.
    """

    def __init__(self, limit: int = COUNTDOWNS_A_MINUTE) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._spent: deque[float] = deque()

    def spend(self) -> bool:
        """Whether there is one left in this minute."""
        now = time.monotonic()
        with self._lock:
            while self._spent and now - self._spent[0] > 60:  # noqa: PLR2004 - a minute
                self._spent.popleft()
            if len(self._spent) >= self._limit:
                return False
            self._spent.append(now)
            return True


def describe(outcome: Outcome) -> str:
    """One phrase for the task's row in Flower."""
    match outcome.state:
        case State.SENT:
            return f"sent via {outcome.provider}"
        case None:
            return "nothing to do"
        case State.HELD:
            return f"held: {outcome.code}"
        case state if state in FINAL:
            return f"{state}: {outcome.code}"
        case state:
            return f"{state} after {outcome.code} from {outcome.provider}"
