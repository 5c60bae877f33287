"""The Celery tasks, and the only place where a retry decision becomes a Celery retry. They are thin."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from celery.exceptions import Reject

from channels.contract import ChannelError
from notify_tasks import retrying
from notify_tasks.celery import app, away, fleet
from notify_tasks.delivery import Outcome, describe
from notify_tasks.errors import WireError
from notify_tasks.messages import Outgoing, build
from notify_tasks.notification import Notification
from notify_tasks.routing import DELIVER_TASK, LEDGER_HEADER, MARKER_TASK, SEND_TASK, SWEEP_TASK
from notify_tasks.states import State
from notify_tasks.store import sweeps
from notify_tasks.store.database import BadRow, DatabaseAway, DatabaseError

MESSAGE_SECONDS: Final = 5.0
"""A message with many ids works for so long, then wakes the rest again: a worker can be stopped and stays fair."""
PAUSE_SECONDS: Final = 5.0


class DeliveryFailed(Exception):
    """A delivery ended as `failed`: shown in Flower as FAILURE with its code."""


@contextmanager
def put_back_if_away() -> Iterator[None]:
    """PostgreSQL away: stop fetching first, then put the message back, so that it does not come at once again."""
    try:
        yield
    except DatabaseAway as error:
        away().report(error)
        away().wait_paused(PAUSE_SECONDS)
        raise Reject(type(error).__name__, requeue=True) from None


@app.task(bind=True, name=SEND_TASK, throws=(DeliveryFailed,), max_retries=None)
def send_notification(self: Any, *args: Any, **kwargs: Any) -> str:
    """Accept one call; where it is one hop to its recipient, send it too."""
    request = self.request
    queue = request.delivery_info["routing_key"]
    try:
        notification = Notification.from_wire(args[0] if len(args) == 1 and not kwargs else None)
    except WireError as error:
        with put_back_if_away():
            _park(request, queue, args, kwargs, "unreadable_envelope", str(error))
        return f"parked: {error}"
    with put_back_if_away():
        try:
            taken = fleet().intake.take(notification, queue=queue)
        except BadRow as error:
            _park(request, queue, args, kwargs, "refused_by_database", str(error))
            return f"parked: {error}"
    _forget(request)
    if taken.claimed is None:
        return taken.kind if taken.detail is None else f"{taken.kind}: {taken.detail}"
    deliverer = fleet().deliverer
    with put_back_if_away():
        outcome = deliverer.go_on(deliverer.perform(taken.claimed, asked=taken.asked))
    _publish_again(outcome)
    return _ended(outcome)


@app.task(
    bind=True,
    name=DELIVER_TASK,
    throws=(DeliveryFailed, ChannelError),
    max_retries=None,
    autoretry_for=(ChannelError,),
    retry_backoff=retrying.BACKOFF,
    retry_backoff_max=retrying.BACKOFF_MAX,
    retry_jitter=True,
)
def deliver(self: Any, ids: Any = None, *args: Any, **kwargs: Any) -> str:
    """Look at these deliveries, and send those that wait."""
    queue = self.request.delivery_info["routing_key"]
    try:
        wanted = [uuid.UUID(id_) for id_ in ids]
        if args or kwargs or not wanted:
            raise ValueError("not a list of ids alone")  # noqa: TRY301 - one way out for what cannot be read
    except (TypeError, ValueError, AttributeError):
        with put_back_if_away():
            _park(self.request, queue, (ids, *args), kwargs, "unreadable_wake_up", "its ids cannot be read")
        return "parked: its ids cannot be read"
    with put_back_if_away():
        waiting = fleet().deliverer.read(wanted)
        if len(wanted) == 1:
            return _deliver_one(self, fleet().deliverer.deliver(waiting[0])) if waiting else "nothing to do"
        started = time.monotonic()
        done = 0
        for it in waiting:
            if done and time.monotonic() - started > MESSAGE_SECONDS:
                fleet().restamp([rest.id for rest in waiting[done:]], queue)
                break
            _publish_again(fleet().deliverer.deliver(it))
            done += 1
        return f"{done} of {len(wanted)} deliveries"


def _deliver_one(task: Any, outcome: Outcome) -> str:
    if outcome.retry is not None:
        if outcome.countdown is not None:
            raise task.retry(exc=outcome.retry, countdown=outcome.countdown)
        raise outcome.retry
    if outcome.wake:
        fleet().restamp([outcome.id], outcome.queue)
    return _ended(outcome)


def _publish_again(outcome: Outcome) -> None:
    """A retry or a release of one delivery among others, or of one hop: it goes on as `deliver([id])`."""
    if outcome.wake:
        fleet().restamp([outcome.id], outcome.queue)
    elif outcome.retry is not None:
        seconds = outcome.countdown
        if seconds is None:
            seconds = retrying.short_wait(outcome.attempts, random.random())  # noqa: S311 - a spread
        fleet().publisher.later(outcome.queue, outcome.id, seconds)


def _ended(outcome: Outcome) -> str:
    if outcome.state is State.FAILED:
        raise DeliveryFailed(outcome.code or "failed")
    return describe(outcome)


@app.task(name=MARKER_TASK, ignore_result=True)
def marker(queue: str, n: int) -> None:
    """A marker has come through its queue."""
    with put_back_if_away():
        sweeps.marker_ran(fleet().database, queue, n)


@app.task(name=SWEEP_TASK, ignore_result=True)
def sweep() -> str:
    """One sweep. PostgreSQL away ends it: the next tick is the retry."""
    try:
        return str(fleet().sweeper.sweep())
    except DatabaseError as error:
        return f"not swept: {error}"


def _forget(request: Any) -> None:
    """Whoever accepts a message removes its ledger entry."""
    place = (request.headers or {}).get(LEDGER_HEADER) or request.get(LEDGER_HEADER)
    if isinstance(place, (list, tuple)) and len(place) == 2:  # noqa: PLR2004 - key and field
        fleet().ledger.forget(str(place[0]), str(place[1]))


def _park(
    request: Any, queue: str, args: Sequence[Any], kwargs: dict[str, Any], reason: str, detail: str
) -> None:
    """Keep the message as the queue item it was, so that it can be put back as it is."""
    message = Outgoing(request.task, [*args, *([kwargs] if kwargs else [])], queue, str(request.id))
    raw = build(message, bucket=0).commands[-1][-1].encode()
    fleet().parking.park(queue, raw, reason, detail, at=str(request.id))
    _forget(request)
