"""Steps, in time: each later step is judged when it has its turn, and sent, put off or found to be needless.

The sweep drives it, and the alarm, which is told of every turn that this process has set. Nothing here is needed in
Redis, and any number of processes may do it at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from notify_tasks import choices
from notify_tasks.event_type import EventType
from notify_tasks.planning import held_up
from notify_tasks.plans import EXPIRES_FIRST
from notify_tasks.rendering import BrokenType, Catalog
from notify_tasks.states import State
from notify_tasks.store import steps
from notify_tasks.store.database import Database
from notify_tasks.store.steps import Due, Verdict
from notify_tasks.store.sweeps import Wake

logger = logging.getLogger(__name__)

BATCH: Final = 1000
BATCHES: Final = 20
"""Rows at most in one go, and how often in one run: the rest is the next run's."""


def judge(step: Due, policy: EventType | None) -> Verdict:
    """What becomes of a step whose turn has come. Pure.

    Whether its address is suppressed, or its category switched off, is asked by its claim, as for any delivery.

    Args:
        step: it.
        policy: its type's; None where that cannot be read now: then nobody's quiet hours are asked, and sending it says
            what is wrong with the type.
    """
    if step.answered is not None:
        return Verdict(step.id, step.step_at, State.SUPERSEDED, step.answered)
    now = step.now.astimezone(UTC)
    expires_at = step.expires_at or datetime.max.replace(tzinfo=UTC)
    if expires_at <= now:
        return Verdict(step.id, step.step_at, State.EXPIRED, State.EXPIRED)
    until, reason = None, None
    for gate in () if policy is None else held_up(now, policy, choices.read(step.choices), step.timezone):
        until, reason = gate.until, gate.reason
        if until is None:
            return Verdict(step.id, step.step_at, State.SUPPRESSED, reason)
        if until >= expires_at:
            return Verdict(step.id, step.step_at, State.EXPIRED, EXPIRES_FIRST[reason])
    if until is not None:
        return Verdict(step.id, step.step_at, State.HELD, reason, until)
    return Verdict(step.id, step.step_at, State.QUEUED)


class Escalator:
    """Gives steps their turn and judges them.

    Args:
        wake: publishes what is queued, at best effort.
        later: told after how many seconds a step will have its turn.
    """

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        wake: Callable[[Sequence[Wake]], None],
        later: Callable[[float], None],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._wake = wake
        self._later = later

    def run(self) -> int:
        """Take up what has moved and what is due; returns how many steps were queued.

        Raises:
            DatabaseError: PostgreSQL is away; the next run goes on.
        """
        queued = 0
        for _ in range(BATCHES):
            if not steps.anything(self._database):
                break
            advanced = steps.advance(self._database, limit=BATCH)
            for wait in {round(wait, 1) for wait in advanced.waits if wait > 0}:
                self._later(wait)
            queued += self._judge()
        else:
            self._later(0.0)  # there is more
        return queued

    def _judge(self) -> int:
        found = steps.due(self._database, limit=BATCH)
        policies = {name: self._policy(name) for name in {step.event_type for step in found}}
        verdicts = [judge(step, policies[step.event_type]) for step in found]
        wakes = steps.settle(self._database, verdicts)
        for step, verdict in zip(found, verdicts, strict=True):
            if verdict.until is not None:
                self._later((verdict.until - step.now).total_seconds())
        self._wake(wakes)
        return len(wakes)

    def _policy(self, name: str) -> EventType | None:
        try:
            loaded = self._catalog.get(name)
        except BrokenType:
            return None
        return None if loaded is None else loaded.policy
