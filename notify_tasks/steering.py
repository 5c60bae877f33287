"""What a producer can do to calls that it has made, and ask about them. It needs the database; its import does not.

    from notify_tasks import cancel_all, explain, reschedule

    reschedule("order-981-reminder", at=LocalTime(2030, 5, 2, 8, 0))
    cancel_all("order-981")                       # everything that waits under this cancel_key
    print(explain("order-981-shipped").text)

Needs the extra `[postgres]` (`simulate`: `[worker]`) and the setting `database_url`.
"""

from __future__ import annotations

import importlib
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Unpack

from notify_tasks.call_times import read_at
from notify_tasks.calls import Call
from notify_tasks.errors import InvalidCall, NotHere
from notify_tasks.local_time import LocalTime
from notify_tasks.notification import DEFAULT_TENANT
from notify_tasks.recipients import tenant as whole_tenant
from notify_tasks.recipients import text

if TYPE_CHECKING:
    from notify_tasks.explaining import Explanation
    from notify_tasks.simulating import Simulation
    from notify_tasks.store.cancelled_keys import CancelledAll
    from notify_tasks.store.database import Database
    from notify_tasks.store.rescheduling import Rescheduled

PLANNED_SECONDS: Final = 5.0
"""So long a reschedule waits for a worker that is planning the call at this moment."""
LOOK_EVERY: Final = 0.1
SINCE: Final = timedelta(days=2)
MOST: Final = 1000


def reschedule(
    message_id: str, *, at: datetime | timedelta | LocalTime, tenant: str = DEFAULT_TENANT
) -> Rescheduled:
    """Give a call that was to go later another time, for as long as it waits for it.

    What is due already, is being sent, was sent or has ended stays as it is, and the answer says so: nothing is both
    moved and sent. Quiet hours and vacations are asked anew from the new time on, and an expiry that counts from `at`
    moves with it. A call that still waits in the table `intake` gets its new time there. One that no worker has taken
    from Redis cannot be changed: the answer's `where` is then `unknown`; ask again in some seconds, or cancel it (which
    works there, too) and call again under a new message id.

    Args:
        message_id: of the call.
        at: as in the call: a time with a zone, a span from now, or a `LocalTime` on each recipient's clock.
        tenant: whose it is.

    Returns:
        what was moved and what was too late, delivery by delivery.

    Raises:
        InvalidCall: `at` is wrong, or the call, not planned yet, would be worthless before it.
        NotHere: the database's driver is not installed.
        NotConfigured: no database is set.
        DatabaseAway: it cannot be used now; the call may have been moved: repeat it.
    """
    given, whose = text(message_id, "message_id"), whole_tenant(tenant)
    moment, _ = read_at(at, datetime.now(UTC))
    if moment is None:
        raise InvalidCall("at", "no time is given", "Write a time that is still to come")
    stored: Any = _load("store.rescheduling", "rescheduling", "postgres")
    ends = time.monotonic() + PLANNED_SECONDS
    while True:
        done: Rescheduled = stored.reschedule(_database("rescheduling"), given, moment, tenant=whose)
        if done.where != "being_planned" or time.monotonic() > ends:
            return done
        time.sleep(LOOK_EVERY)


def cancel_all(cancel_key: str, *, tenant: str = DEFAULT_TENANT) -> CancelledAll:
    """Cancel everything that waits under a `cancel_key`: each call is sent or cancelled, never both.

    Calls that no worker has planned are stopped as well, in the table `intake` or still in Redis, for 30 days. Which
    ones is decided by each call's own timestamp: those made up to this moment, by this machine's clock where it agrees
    with the database's to within five seconds, else by the database's. A call made after that is not touched. Between
    machines the rule is as good as their clocks agree.

    Args:
        cancel_key: as the calls named it.
        tenant: whose they are.

    Returns:
        how many deliveries were cancelled, were too late (sent, or being sent), or are in doubt.

    Raises:
        InvalidCall: the key is no text of 1 to 200 printable characters.
        NotHere: the database's driver is not installed.
        NotConfigured: no database is set.
        DatabaseAway: it cannot be used now. Some may be cancelled: repeat it, nothing is counted twice.
    """
    key, whose = text(cancel_key, "cancel_key"), whole_tenant(tenant)
    asked = datetime.now(UTC)
    stored: Any = _load("store.cancelled_keys", "cancelling by key", "postgres")
    done: CancelledAll = stored.cancel_all(_database("cancelling by key"), key, tenant=whose, asked=asked)
    return done


def explain(message_id: str, *, tenant: str = DEFAULT_TENANT) -> Explanation | None:
    """Tell why a notification was sent, or was not, to each of its recipients, in sentences.

    Addresses are shortened, and nothing of the payload is in it.

    Args:
        message_id: of the call.
        tenant: whose it is.

    Returns:
        the sentences; None where nothing is known of the id: it may still be in Redis, or another fleet's.

    Raises:
        NotHere: the database's driver is not installed.
        NotConfigured: no database is set.
        DatabaseAway: it cannot be used now.
    """
    given, whose = text(message_id, "message_id"), whole_tenant(tenant)
    facts: Any = _load("store.facts", "explaining", "postgres")
    found = facts.of_message(_database("explaining"), given, tenant=whose)
    made: Any = _load("explaining", "explaining", "postgres")
    told: Explanation | None = None if found is None else made.explanation(found, datetime.now(UTC))
    return told


def explain_recipient(
    recipient_id: str,
    *,
    event_type: str | None = None,
    since: timedelta | datetime = SINCE,
    limit: int = 50,
    tenant: str = DEFAULT_TENANT,
) -> tuple[Explanation, ...]:
    """Tell why a person did, or did not, get something: an explanation for each call to them, newest first.

    Args:
        recipient_id: the person's id.
        event_type: only calls of this type.
        since: how far back, or from when on, with a zone.
        limit: how many calls at most, up to 1,000.
        tenant: whose the person is.

    Raises:
        InvalidCall: an argument is wrong.
        NotHere: the database's driver is not installed.
        NotConfigured: no database is set.
        DatabaseAway: it cannot be used now.
    """
    given, whose = text(recipient_id, "recipient_id"), whole_tenant(tenant)
    if not 1 <= limit <= MOST:
        raise InvalidCall("limit", f"{limit} is out of range", f"Write 1 to {MOST}")
    now = datetime.now(UTC)
    start = _since(since, now)
    facts: Any = _load("store.facts", "explaining", "postgres")
    found = facts.of_recipient(
        _database("explaining"),
        given,
        event_type=event_type if event_type is None else text(event_type, "event_type"),
        since=start,
        limit=limit,
        tenant=whose,
    )
    made: Any = _load("explaining", "explaining", "postgres")
    return tuple(made.explanation(each, now) for each in found)


def simulate(event_type: str, *, now: datetime | None = None, **call: Unpack[Call]) -> Simulation:
    """Show the plan of a call at an instant, without sending or storing anything.

    See `send_notification.simulate`.
    """
    simulating: Any = _load("simulating", "simulating", "worker")
    made: Simulation = simulating.simulate(event_type, now=now, **call)
    return made


def _since(value: timedelta | datetime, now: datetime) -> datetime:
    if isinstance(value, timedelta) and value > timedelta(0):
        return now - value
    if isinstance(value, datetime) and value.utcoffset() is not None:
        return value
    raise InvalidCall("since", "it is neither a span nor a time with a zone", "Write timedelta(days=2)")


def _database(what: str) -> Database:
    opened: Database = _load("api_connections", what, "postgres").database()
    return opened


def _load(module: str, what: str, extra: str) -> Any:
    """A part of the fleet's half, which a producer alone does without."""
    try:
        return importlib.import_module(f"notify_tasks.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "notify_tasks":
            raise
        raise NotHere(
            f"{what} needs {error.name}, which is not installed here. "
            f"Install it: pip install 'notify-tasks[{extra}]', or use the command `notify` where the fleet is"
        ) from None
