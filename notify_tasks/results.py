"""What a call returns: its message id, in the form of a Celery result.

Results are off. What became of a notification is a matter of minutes or days, of several recipients and
channels, and it is kept in PostgreSQL, not in a result backend.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from celery.result import AsyncResult
from vine import promise

from notify_tasks import settings
from notify_tasks.errors import InvalidCall, MaybeCancelled, NotHere
from notify_tasks.idle import open_by
from notify_tasks.local_time import LocalTime

if TYPE_CHECKING:
    from celery import Celery

    from notify_tasks.store.cancelling import Cancelled
    from notify_tasks.store.rescheduling import Rescheduled


class NotificationResult(AsyncResult[Any]):
    """The receipt of a call. Its id is the message id, which is also the Celery task id.

    Args:
        id: the message id.
        tenant: whose notification it is; None until the call is made, as in a group that was only prepared.
        app: the Celery app that groups look for.
        cancel: used by `cancel` instead of the database; what a test's outbox puts here.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name for it
        *,
        tenant: str | None = None,
        app: Celery | None = None,
        cancel: Callable[[str, str], Cancelled] | None = None,
    ) -> None:
        # Without AsyncResult's own: it would open a result backend for each call.
        self.id = id
        self.tenant = tenant
        self.app = app  # type: ignore[assignment]  # only groups ask for it
        self.parent = None
        self.backend = None  # type: ignore[assignment]  # results are off
        self._cache = None
        self._cancel = cancel

    @property
    def message_id(self) -> str:
        """The id that names this notification everywhere."""
        return self.id

    def cancel(self) -> Cancelled:
        """Cancel what has not been sent, whether a worker has seen the notification or not.

        Needs the extra `[postgres]` and the setting `database_url`. Ends within the setting `call_timeout`.

        Returns:
            What was stopped and what was too late to stop.

        Raises:
            NotHere: this process cannot ask the database; the text says who can.
            MaybeCancelled: the database gave no answer.
        """
        if self.tenant is None:
            raise InvalidCall("cancel", "this notification has not been sent yet", "Send it first")
        if self._cancel is not None:
            return self._cancel(self.tenant, self.id)
        return _cancel(self.tenant, self.id)

    def reschedule(self, at: datetime | timedelta | LocalTime) -> Rescheduled:
        """Give it another time, for as long as it waits for the one it has. See `notify_tasks.reschedule`.

        Args:
            at: as in the call: a time with a zone, a span from now, or a `LocalTime` on each recipient's clock.

        Returns:
            what was moved and what was too late, delivery by delivery.

        Raises:
            InvalidCall: it has not been sent yet, or `at` is wrong.
            NotHere, NotConfigured: this process cannot ask the database.
            DatabaseAway: it cannot be used now; repeat it.
        """
        if self.tenant is None:
            raise InvalidCall("reschedule", "this notification has not been sent yet", "Send it first")
        from notify_tasks.steering import reschedule  # noqa: PLC0415 - seldom asked for

        return reschedule(self.id, at=at, tenant=self.tenant)

    def _elsewhere(self, what: str) -> NoReturn:
        raise NotHere(
            f"{what} is not here: results are off, because a notification's state is kept in PostgreSQL. "
            f"Ask for it with `notify status {self.id}`"
        )

    # --- what Celery's result would ask its backend for -----------------------------------------------

    def get(self, *_: object, **__: object) -> NoReturn:
        """Say where the outcome is."""
        self._elsewhere("the outcome")

    wait = get

    def _get_task_meta(self) -> NoReturn:
        # Behind state, status, result, ready, successful, failed, children, traceback and the like.
        self._elsewhere("the state")

    def exists(self) -> NoReturn:
        """Say where the state is."""
        self._elsewhere("the state")

    def forget(self) -> None:
        """Do nothing: there is nothing to forget."""

    def revoke(self, *_: object, **__: object) -> NoReturn:
        """Refuse: Celery's revoke would drop the message without a trace."""
        raise NotHere("a notification is not revoked, which would leave no trace. Call cancel()")

    revoke_by_stamped_headers = revoke

    @property
    def supports_native_join(self) -> bool:
        """No: there is no backend that could wait for several."""
        return False

    def then(self, *_: object, **__: object) -> promise:
        """Take a callback that is never called. Groups hang one on each of their results."""
        return promise()

    def __copy__(self) -> NotificationResult:
        return NotificationResult(self.id, tenant=self.tenant, app=self.app, cancel=self._cancel)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.id, self.tenant)

    def __del__(self) -> None:
        """Nothing to let go of."""


def _restored(id_: str, tenant: str | None) -> NotificationResult:
    return NotificationResult(id_, tenant=tenant)


def _cancel(tenant: str, message_id: str) -> Cancelled:
    current = settings.get()
    if current.database_url is None:
        raise NotHere(
            "cancelling needs the fleet's database, and none is set here. Set NOTIFY_DATABASE_URL (with the "
            f"extra: pip install 'notify-tasks[postgres]'), or run `notify cancel {message_id}` where it is"
        )
    try:
        from notify_tasks.store.cancelling import cancel  # noqa: PLC0415 - a producer does without psycopg
        from notify_tasks.store.database import Database, DatabaseError  # noqa: PLC0415 - as above
    except ImportError:
        raise NotHere(
            "cancelling needs the PostgreSQL driver. Install it: pip install 'notify-tasks[postgres]'"
        ) from None
    database_url, seconds = current.database_url, current.call_timeout

    def run() -> Cancelled:
        database = Database(database_url, connections=1, wait=seconds, name="notify-producer")
        try:
            return cancel(database, tenant, message_id)
        finally:
            database.close()

    try:
        return open_by(time.monotonic() + seconds, run, lambda _: None)
    except TimeoutError:
        why = "the database gave no answer in time"
    except DatabaseError as error:
        why = str(error)
    raise MaybeCancelled(message_id, why)
