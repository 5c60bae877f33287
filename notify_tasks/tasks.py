"""The Celery tasks, and the only place where a retry decision becomes a Celery retry. They are thin.

What a task returns or raises is shown: in the worker's log, in its events, and so in Flower. It is made of ids, codes
and names of ours; a provider's own words, which may quote an address, stay in PostgreSQL for `notify status`.
"""

from __future__ import annotations

import random
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from celery import Task
from celery.exceptions import Reject, TaskPredicate

from channels.contract import ChannelError
from notify_tasks import log_context, metering, retention, retrying
from notify_tasks import receipts as work
from notify_tasks.celery import app, away, fleet
from notify_tasks.errors import WireError
from notify_tasks.messages import Outgoing, build
from notify_tasks.notification import Notification
from notify_tasks.outcomes import Outcome, describe
from notify_tasks.routing import (
    DELIVER_TASK,
    LEDGER_HEADER,
    MARKER_TASK,
    PURGE_TASK,
    RECEIPTS_TASK,
    SEND_TASK,
    SENT_AT_HEADER,
    SWEEP_TASK,
    stage_and_lane,
)
from notify_tasks.states import State
from notify_tasks.store import sweeps
from notify_tasks.store.database import BadRow, DatabaseAway, DatabaseError
from notify_tasks.store.deliveries import Waiting
from notify_tasks.store.sweeps import Wake

MESSAGE_SECONDS: Final = 5.0
"""A message with many ids works for so long, then wakes the rest again: a worker can be stopped and stays fair."""
PAUSE_SECONDS: Final = 5.0
PURGE_EXPIRES: Final = 1800
"""Seconds: what waits for so long is the next hour's."""
FRAMES: Final = 6
LEAST_COUNTDOWN: Final = 1.0


class DeliveryFailed(Exception):
    """A delivery ended as `failed`: shown in Flower as FAILURE with its code."""


class Unexpected(Exception):
    """A fault of ours: its kind and where it was raised, without its words and values, which may be personal."""

    def __init__(self, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
        super().__init__(f"{type(error).__name__} at {where}")


class Shown(Task):  # type: ignore[type-arg] # Celery's own is generic for type checkers alone
    """A task whose events say nothing personal, when it is retried and when it breaks, too."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.run(*args, **kwargs)
        except (TaskPredicate, DeliveryFailed, ChannelError):
            raise
        except Exception as error:  # noqa: BLE001 - shown as what it is, less its words
            raise Unexpected(error) from None

    def retry(self, *args: Any, countdown: float | None = None, **options: Any) -> Any:
        """Not at once: Celery tells of a retry after it has published it, and Flower shows what it hears last."""
        options["countdown"] = max(countdown or 0.0, LEAST_COUNTDOWN)
        return super().retry(*args, **options)

    def signature_from_request(self, request: Any = None, *args: Any, **options: Any) -> Any:
        """The next try is shown as this one was."""
        shown = getattr(request or self.request, "argsrepr", None)
        if shown:
            options.setdefault("argsrepr", shown)
        return super().signature_from_request(request, *args, **options)


@contextmanager
def put_back_if_away() -> Iterator[None]:
    """PostgreSQL away: stop fetching first, then put the message back, so that it does not come at once again."""
    try:
        yield
    except DatabaseAway as error:
        away().report(error)
        away().wait_paused(PAUSE_SECONDS)
        raise Reject(type(error).__name__, requeue=True) from None


@app.task(bind=True, base=Shown, name=SEND_TASK, throws=(DeliveryFailed,), max_retries=None)
def send_notification(self: Any, *args: Any, **kwargs: Any) -> str:
    """Accept one call; where it is one hop to its recipient, send it too."""
    request = self.request
    queue = request.delivery_info["routing_key"]
    _waited(request, queue)
    try:
        notification = Notification.from_wire(args[0] if len(args) == 1 and not kwargs else None)
    except WireError as error:
        with put_back_if_away():
            _park(request, queue, args, kwargs, "unreadable_envelope", str(error))
        return "parked: unreadable_envelope"
    log_context.about_message(notification.message_id, notification.event_type, notification.trace)
    with put_back_if_away():
        try:
            taken = fleet().intake.take(notification, queue=queue)
        except BadRow as error:
            _park(request, queue, args, kwargs, "refused_by_database", str(error))
            return "parked: refused_by_database"
    _forget(request)
    if taken.claimed is None:
        # A reason, without the sentence after it: that may name a payload's field or a recipient.
        return (
            f"rejected: {(taken.detail or '').partition(':')[0]}" if taken.kind == "rejected" else taken.kind
        )
    deliverer = fleet().deliverer
    with put_back_if_away():
        outcome = deliverer.go_on(deliverer.perform(taken.claimed, asked=taken.asked, lease=taken.lease))
    _publish_again(outcome)
    return _ended(outcome)


@app.task(
    bind=True,
    base=Shown,
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
    _waited(self.request, queue)
    try:
        wanted = [uuid.UUID(id_) for id_ in ids]
        if args or kwargs or not wanted:
            raise ValueError("not a list of ids alone")  # noqa: TRY301 - one way out for what cannot be read
    except (TypeError, ValueError, AttributeError):
        with put_back_if_away():
            _park(self.request, queue, (ids, *args), kwargs, "unreadable_wake_up", "its ids cannot be read")
        return "parked: unreadable_wake_up"
    with put_back_if_away():
        waiting = fleet().deliverer.read(wanted)
        if len(wanted) == 1:
            return _deliver_one(self, fleet().deliverer.deliver(waiting[0])) if waiting else "nothing to do"
        return _deliver_several(waiting, len(wanted), queue)


def _deliver_several(waiting: Sequence[Waiting], of: int, queue: str) -> str:
    """One after another, each with an end of its own. The row shows a failure where there was one."""
    started = time.monotonic()
    done = 0
    failed: list[str] = []
    holds = fleet().deliverer.holds()
    for it in waiting:
        holds.write_old()
        if done and time.monotonic() - started > MESSAGE_SECONDS:
            rest = waiting[done:]
            fleet().restamp(
                [Wake(it.id, it.channel, it.lane, it.message_id, it.event_type) for it in rest], queue
            )
            break
        outcome = fleet().deliverer.deliver(it, holds=holds)
        _publish_again(outcome)
        log_context.done_with_delivery()
        done += 1
        if outcome.state is State.FAILED:
            failed.append(outcome.code or "failed")
    holds.write()
    if failed:
        raise DeliveryFailed(f"{len(failed)} of {done}: {', '.join(sorted(set(failed)))}")
    return f"{done} of {of} deliveries"


def _deliver_one(task: Any, outcome: Outcome) -> str:
    if outcome.retry is not None:
        # Made anew: without the provider's words, and without what led to it.
        error = type(outcome.retry)(outcome.retry.code)
        if outcome.countdown is not None:
            raise task.retry(exc=error, countdown=outcome.countdown)
        raise error
    if outcome.wake:
        fleet().restamp([_wake(outcome)], outcome.queue)
    return _ended(outcome)


def _wake(outcome: Outcome) -> Wake:
    channel, lane = stage_and_lane(outcome.queue)
    return Wake(outcome.id, channel, lane, outcome.message_id, outcome.event_type)


def _publish_again(outcome: Outcome) -> None:
    """A retry or a release of one delivery among others, or of one hop: it goes on as `deliver([id])`."""
    if outcome.wake:
        fleet().restamp([_wake(outcome)], outcome.queue)
    elif outcome.retry is not None:
        seconds = outcome.countdown
        if seconds is None:
            seconds = retrying.short_wait(outcome.attempts, random.random())  # noqa: S311 - a spread
        fleet().publisher.later(_wake(outcome), seconds)


def _ended(outcome: Outcome) -> str:
    if outcome.state is State.FAILED:
        raise DeliveryFailed(outcome.code or "failed")
    return describe(outcome)


@app.task(base=Shown, name=MARKER_TASK, ignore_result=True)
def marker(queue: str, n: int) -> None:
    """A marker has come through its queue."""
    with put_back_if_away():
        sweeps.marker_ran(fleet().database, queue, n)


@app.task(bind=True, base=Shown, name=RECEIPTS_TASK, ignore_result=True)
def receipts(self: Any, ids: Any = None, *args: Any, **kwargs: Any) -> str:
    """Apply what providers have reported; each is a row."""
    if args or kwargs or not isinstance(ids, list) or not all(type(id_) is int for id_ in ids):
        with put_back_if_away():
            queue = self.request.delivery_info["routing_key"]
            _park(self.request, queue, (ids, *args), kwargs, "unreadable_wake_up", "its ids cannot be read")
        return "parked: unreadable_wake_up"
    with put_back_if_away():
        return str(work.apply(fleet().database, ids))


@app.task(base=Shown, name=SWEEP_TASK, ignore_result=True)
def sweep() -> str:
    """One sweep. PostgreSQL away ends it: the next tick is the retry."""
    try:
        sweeps.ticked(fleet().database)
        return str(fleet().sweeper.sweep())
    except DatabaseError as error:
        return f"not swept: {error}"


@app.task(base=Shown, name=PURGE_TASK, ignore_result=True)
def purge() -> str:
    """A few seconds of retention, and again until nothing is too old: sweeps on the same queue come in between."""
    try:
        done = retention.purge(fleet().database, fleet().settings, seconds=retention.SLICE_SECONDS)
    except DatabaseError as error:
        return f"not purged: {error}"
    if done.more:
        with suppress(Exception):  # a broker that is away: the next hour goes on
            purge.apply_async(expires=PURGE_EXPIRES)
    return str(done)


def _waited(request: Any, queue: str) -> None:
    """Count the wait in the queue. A countdown is none."""
    if request.eta is None:
        metering.waited(queue, request.get(SENT_AT_HEADER))


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
