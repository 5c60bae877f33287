"""Act 3 of the demo: what happens later, on a clock that runs fast.

The clock of these calls jumps to the next moment at which something of them is due (`store.passing`). Everything else
is as ever: the sweep finds what is due, workers send it, and each decision is told by `explain`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from notify_tasks import inbox, preferences, schedules, settings
from notify_tasks.demo import cast
from notify_tasks.demo.stage import Stage
from notify_tasks.demo.verdict import Check
from notify_tasks.steering import cancel_all, explain
from notify_tasks.store import passing, statuses
from notify_tasks.store.cancelled_keys import CancelledAll
from notify_tasks.store.passing import Whose
from notify_tasks.store.statuses import DeliveryStatus
from notify_tasks.terminal.looks import counted, duration
from notify_tasks.terminal.output import Line, bold

ACT: Final = 3
READER: Final = "37"
QUIET: Final = "36"
QUIET_PERSON: Final = "noor"
QUIET_HOURS: Final = 7
LOOK_EVERY: Final = 0.2
PLANNED_WITHIN: Final = 20.0
HAPPENS_WITHIN: Final = 40.0
JUMPS: Final = 12


@dataclass(slots=True)
class Later:
    """Act 3 of one run.

    Args:
        run: the name before each message id.
        schedule: the recurring one's id.
        made: ids of the calls that the schedule and the digest have made.
        passed: seconds by which the clock has run ahead.
    """

    run: str
    stage: Stage
    tell: Callable[[Line], None]
    look: Callable[[], None]
    schedule: str = ""
    rested: bool = False
    made: list[str] = field(default_factory=list)
    passed: float = 0.0
    cancelled: CancelledAll | None = None

    @property
    def message_ids(self) -> list[str]:
        """Those of the producer's calls."""
        return [call.message_id(self.run) for call in cast.later_calls()]

    @property
    def whose(self) -> Whose:
        """Whose time passes."""
        return Whose([*self.message_ids, *self.made], [self.schedule] if self.schedule else [])

    def deliveries(self, message_id: str) -> list[DeliveryStatus]:
        """Of one call."""
        found = statuses.read(self.stage.database, message_id).notifications
        return [each for it in found for each in it.deliveries]


def prepare(later: Later) -> None:
    """Before the calls: somebody does not want to be disturbed now, and something is to be told every hour."""
    with _as_producer(later.stage):
        zone = next(it.timezone for it in cast.PEOPLE if it.id == QUIET_PERSON)
        now = datetime.now(ZoneInfo(zone))
        begins, ends = now - timedelta(hours=1), now + timedelta(hours=QUIET_HOURS)
        preferences.update(
            QUIET_PERSON,
            quiet_hours={"from": f"{begins:%H:%M}", "to": f"{ends:%H:%M}", "timezone": zone},
            changed_by="demo",
        )
        later.schedule = f"{later.run}-hourly"
        schedules.put(
            later.schedule,
            cast.SHIPPED,
            cron="0 * * * *",
            timezone="Europe/London",
            to="ana",
            payload=cast.SCHEDULED_PAYLOAD,
            channels=["inapp"],
        )
    later.tell(f"{QUIET_PERSON} wants quiet from {begins:%H:%M} to {ends:%H:%M} in {zone}")


def act(later: Later) -> None:
    """After the calls: cancel one, read one, and let the rest have its time."""
    _wait(later, lambda: all(later.deliveries(it) for it in later.message_ids), PLANNED_WITHIN)
    with _as_producer(later.stage):
        later.cancelled = cancel_all(f"{later.run}-order")
        later.tell(f"cancel_all(...): {counted(later.cancelled.cancelled, 'delivery')} cancelled")
        _read_it(later)
        later.tell(
            [
                bold("what is due later: from here the clock of these calls runs fast"),
                ", from one moment to the next",
            ]
        )
        _let_it_happen(later)
        schedules.remove(later.schedule)


def _read_it(later: Later) -> None:
    """Tom opens the app and reads."""
    message_id = f"{later.run}-{READER}"

    def told() -> list[DeliveryStatus]:
        return [it for it in later.deliveries(message_id) if it.channel == "inapp" and it.state == "sent"]

    _wait(later, lambda: bool(told()), HAPPENS_WITHIN)
    for it in told():
        inbox.mark_read("tom", [str(it.id)])
        later.tell("tom reads in the app that somebody has signed in")


def _let_it_happen(later: Later) -> None:
    """Jump to the next moment, and wait until what is due then has happened; again, until nothing is left."""
    for _ in range(JUMPS):
        if not _wait(later, lambda: _idle(later), HAPPENS_WITHIN):
            return  # something does not end: the verdict says what
        seconds = passing.next_moment(later.stage.database, later.whose)
        if seconds is None:
            return
        if seconds <= 0:
            continue
        seconds = math.ceil(seconds)  # so that the clock shows whole ones
        passing.let_pass(later.stage.database, seconds, later.whose)
        later.passed += seconds
        later.tell([bold(f"the clock jumps {duration(seconds)} ahead"), f": {_when(later)} have passed"])


def _when(later: Later) -> str:
    return duration(later.passed)


def _idle(later: Later) -> bool:
    _children(later)
    seconds = passing.next_moment(later.stage.database, later.whose)
    return seconds is None or seconds > 0


def _children(later: Later) -> None:
    """Calls that the schedule and the digest have made. One of the schedule's is enough to see."""
    later.made = passing.offspring(later.stage.database, later.whose)
    if not later.rested and any(it.startswith(later.schedule) for it in later.made):
        schedules.pause(later.schedule)
        later.rested = True


def _wait(later: Later, condition: Callable[[], bool], seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        later.look()
        if condition():
            return True
        time.sleep(LOOK_EVERY)
    return False


@contextmanager
def _as_producer(stage: Stage) -> Iterator[None]:
    """Inside, this process calls the API as a service with the extra `[postgres]` would."""
    settings.configure(broker_url=stage.redis.url, database_url=stage.postgres.url)
    try:
        yield
    finally:
        settings.reset()


# --- the end ----------------------------------------------------------------------------------------------


def explained(later: Later) -> Iterator[tuple[str, str]]:
    """Each call of the act, and those that they became: why it is in the demo, and why it was sent or was not."""
    with _as_producer(later.stage):
        for call in cast.later_calls():
            told = explain(call.message_id(later.run))
            yield call.about, told.text if told else f"{call.message_id(later.run)}: nothing is known of it"
        for message_id in later.made:
            told = explain(message_id)
            about = "made by the schedule" if message_id.startswith(later.schedule) else "the digest"
            yield about, told.text if told else f"{message_id}: nothing is known of it"


def judge(later: Later) -> Iterator[Check]:
    """Whether everything was sent at its time, or not at all."""
    yield _at_its_time(later, "31", timedelta(hours=2), "asked for 2 h later")
    yield _at_its_time(later, QUIET, timedelta(hours=QUIET_HOURS, minutes=-2), "held by quiet hours")
    done = later.cancelled
    cancelled = [
        it for it in later.deliveries(f"{later.run}-32") if it.state == "cancelled" and not it.attempts
    ]
    good = done is not None and done.cancelled == len(cancelled) == 1 and done.complete
    yield Check(good, f"cancelled by its key: {counted(len(cancelled), 'delivery')}, and nothing was sent")
    yield _digest(later)
    yield _steps(later)
    ours = [it for it in later.made if it.startswith(f"{later.schedule}@")]
    sent = [it for each in ours for it in later.deliveries(each) if it.state == "sent"]
    yield Check(
        len(ours) == len(sent) == 1,
        f"every hour: {counted(len(sent), 'occurrence')} sent once, {', '.join(ours)}",
    )


def _at_its_time(later: Later, key: str, wait: timedelta, what: str) -> Check:
    message_id = f"{later.run}-{key}"
    for call in statuses.read(later.stage.database, message_id).notifications:
        for attempt in (each for it in call.deliveries for each in it.attempts[:1]):
            waited = attempt.started_at - call.occurred_at
            return Check(
                waited >= wait, f"{message_id}, {what}: sent after {duration(waited.total_seconds())}"
            )
    return Check(good=False, text=f"{message_id}, {what}: was never sent")


def _digest(later: Later) -> Check:
    gathered = [
        it
        for call in cast.later_calls()
        if call.digest
        for it in later.deliveries(call.message_id(later.run))
        if it.state == "digested"
    ]
    digests = [it for it in later.made if it.startswith("digest-")]
    sent = [it for each in digests for it in later.deliveries(each) if it.state in {"sent", "delivered"}]
    good = len(gathered) == cast.EVENTS and len(digests) == len(sent) == 1
    return Check(
        good, f"{counted(len(gathered), 'comment')} in {counted(len(sent), 'mail')}: {', '.join(digests)}"
    )


def _steps(later: Later) -> Check:
    states = {
        key: {it.channel: it.state for it in later.deliveries(f"{later.run}-{key}")} for key in (READER, "38")
    }
    good = states[READER].get("sms") == "superseded" and states["38"].get("sms") in {"sent", "delivered"}
    return Check(good, "read in the app: no SMS; not read: an SMS after 10 min")
