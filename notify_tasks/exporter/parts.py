"""A part of the fleet that is looked at on a thread of its own: whoever asks gets the last sample, and its age."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

SHARE: Final = 0.05
"""No more of the time than this is spent on taking one part's samples: a long one is taken seldom."""
NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Sample(Generic[T]):
    """What was found, and when by the monotonic clock.

    Args:
        took: seconds.
    """

    found: T
    at: float
    took: float


class Part(Generic[T]):
    """One part.

    Args:
        name: for logs and metrics.
        look: takes a sample, and raises what `expected` holds where it cannot.
        every: seconds between two looks.
        expected: errors that say that it is away.
        hung_after: seconds after which a look that has not ended says that it is away.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], T],
        *,
        every: float,
        expected: tuple[type[Exception], ...],
        hung_after: float,
    ) -> None:
        self.name = name
        self._look = look
        self._every = every
        self._expected = expected
        self._hung_after = hung_after
        self._changed = threading.Condition()
        self._last: Sample[T] | None = None
        self._up = False
        self._tried_at = NEVER
        self._began = float("inf")
        self._asked = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"notify-look-{name}", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._asked.set()

    @property
    def last(self) -> Sample[T] | None:
        """The last sample; None before the first."""
        return self._last

    @property
    def age(self) -> float:
        """Seconds since the last sample; infinite before the first."""
        last = self._last
        return float("inf") if last is None else time.monotonic() - last.at

    @property
    def tried(self) -> bool:
        """Whether a look has ended, well or not."""
        return self._tried_at != NEVER

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    @property
    def up(self) -> bool:
        """Whether it answers: the last look has worked, and the one that may be under way does not hang."""
        return self._up and time.monotonic() - self._began < self._hung_after

    def ask(self) -> None:
        """Look soon, where the last look is not a moment ago."""
        self._asked.set()

    def wait(self, since: float, until: float) -> None:
        """Wait until a look has ended that began after a moment.

        Args:
            since: the moment, by the monotonic clock.
            until: when to give up, by the same.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._tried_at >= since, max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self._try(began)
            took = time.monotonic() - began
            least = took / SHARE
            self._stop.wait(min(least, 600.0))
            self._asked.wait(max(0.0, self._every - least))
            self._asked.clear()

    def _try(self, began: float) -> None:
        self._began = began
        try:
            found = self._look()
        except self._expected as error:
            if self._up or self._tried_at == NEVER:
                logger.warning("%s does not answer: %s", self.name, type(error).__name__)
            self._up = False
        except Exception:
            self._up = False
            logger.exception("%s could not be looked at", self.name)
        else:
            if not self._up:
                logger.info("%s answers", self.name)
            self._last = Sample(found, time.monotonic(), time.monotonic() - began)
            self._up = True
        self._began = float("inf")
        with self._changed:
            self._tried_at = began
            self._changed.notify_all()
