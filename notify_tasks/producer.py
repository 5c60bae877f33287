"""`send_notification`, as a producer calls it: a Celery task whose work is done by the fleet.

It belongs to a Celery app of its own, which is never the current one, reads no configuration of the host's
and opens no connection. A call is checked, stamped with its message id, and kept, before it returns.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Never, NoReturn, Protocol, Unpack

from celery import Celery, Task
from celery.app.registry import TaskRegistry
from celery.loaders.base import BaseLoader

from notify_tasks import settings, trace_context
from notify_tasks.calls import Call, build_notification
from notify_tasks.celery_options import map_options, refuse, trace_of
from notify_tasks.errors import InvalidCall, MaybeAccepted, NotHere
from notify_tasks.keeping import Keeper
from notify_tasks.notification import Notification
from notify_tasks.results import NotificationResult
from notify_tasks.routing import SEND_TASK

if TYPE_CHECKING:
    from celery.backends.base import DisabledBackend
    from celery.canvas import Signature

    from notify_tasks.simulating import Simulation

ASYNC_THREADS: Final = 64
"""Calls of `adelay` that can wait for a frozen server at the same time in one process."""
ASYNC_GRACE: Final = 0.25
"""Seconds past its budget after which `adelay` stops waiting for its thread."""

_ELSEWHERE: Final = (
    "send_notification runs in the fleet's workers and not here. Call send_notification.delay() with the "
    "same arguments; in a test, take the fixture notify_tasks.testing.outbox"
)


# --- the app ----------------------------------------------------------------------------------------


class _NoConfiguration(BaseLoader):
    """Reads nothing: CELERY_CONFIG_MODULE is the host's."""

    def read_configuration(self, env: str = "") -> dict[str, Any]:  # noqa: ARG002 - Celery's signature
        return {}


class _ProducerApp(Celery):
    """An app that only names the task. It has no broker: calls go their own way."""

    def producer_or_acquire(self, producer: Any = None) -> Any:
        # A group asks the app of its first task. A host's own task in it must go by the host's app, so it is
        # given no producer of ours.
        return nullcontext(producer)

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:  # type: ignore[override]
        if name == SEND_TASK:  # a signature that came as a dict
            return send_notification.apply_async(args, kwargs, **options)
        raise NotHere(f"{name} is not the fleet's to run. Send single notifications, or a group of them")

    def _get_backend(self) -> DisabledBackend:
        from celery.backends.base import DisabledBackend  # noqa: PLC0415 - only groups and chords ask for it

        class NoBackend(DisabledBackend):
            def ensure_chords_allowed(self) -> NoReturn:
                refuse("chord")

        return NoBackend(app=self)

    @property
    def control(self) -> NoReturn:
        raise NotHere("a producer does not steer the fleet's workers. Call cancel() on each result")


_registry: Final = TaskRegistry()
app: Final = _ProducerApp(
    "notify_tasks",
    loader=_NoConfiguration,
    tasks=_registry,  # type: ignore[arg-type]  # Celery takes a registry as it is
    fixups=[],  # Django's would change sys.path and close the host's connections
    set_as_current=False,
)


# --- the task ---------------------------------------------------------------------------------------


class SendNotification(Task[..., Any]):
    """The task. `delay`, `apply_async`, `s`, `si` and groups work as with any Celery task."""

    _app = app  # bound on first use, so that importing stays quick
    name = SEND_TASK
    ignore_result = True
    typing = False  # the call's own checks say more

    def delay(self, event_type: str, *misplaced: Never, **call: Unpack[Call]) -> NotificationResult:
        """Send a notification.

        Args:
            event_type: `order.shipped`: what the fleet has templates for.
            *misplaced: nothing; the rest is given by keyword.
            **call: `to`, and any of `notify_tasks.calls.Options`.

        Returns:
            Its `message_id`. The notification is kept, not yet sent.

        Raises:
            InvalidCall: an argument is wrong.
            NotConfigured: a setting is missing.
            NotAccepted: surely not kept; call again once the cause is mended.
            MaybeAccepted: kept or not; call again with `message_id=error.message_id`.
        """
        return self.apply_async((event_type, *misplaced), dict(call))

    def apply_async(  # type: ignore[override]  # any option of Celery's is looked at, not only those it types
        self,
        args: tuple[Any, ...] | list[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> NotificationResult:
        """Send a notification, with Celery's options.

        `eta` and `countdown` become `at`, `expires` becomes `expires`, `task_id` becomes `message_id`. What
        has no meaning here is refused: priority numbers, `queue`, `link`, chords. Raises what `delay` raises.
        """
        notification, headers = _read(args, kwargs, {**options, "task_id": task_id})
        keeper, deadline = _keeper_and_deadline()
        keeper.keep(notification, headers, deadline=deadline)
        return self._result(notification)

    def simulate(self, event_type: str, *, now: datetime | None = None, **call: Unpack[Call]) -> Simulation:
        """Show what would become of a call, without sending or storing anything.

        Recipients, preferences, suppressions, templates and configuration are those of the present; `now` is the
        instant at which the call would be made and planned. Needs the extra `[worker]`, the templates and the setting
        `database_url`.

        Args:
            event_type: `order.shipped`.
            now: an instant with a zone; None for the present.
            **call: as in `delay`.

        Returns:
            each decision with every reason, and all of it in sentences.

        Raises:
            InvalidCall: an argument is wrong.
            NotHere: a part is not installed here; the text says which.
            NotConfigured: a setting is missing.
            DatabaseAway: the database cannot be used now.
        """
        from notify_tasks.steering import simulate  # noqa: PLC0415 - seldom asked for

        return simulate(event_type, now=now, **call)

    async def adelay(self, event_type: str, *misplaced: Never, **call: Unpack[Call]) -> NotificationResult:
        """Send a notification from asyncio, without blocking the event loop.

        Takes and raises what `delay` does, within the same budget. Cancelling it stops the waiting, not the
        call: it may be kept all the same. Pass a `message_id` to be able to repeat it then.
        """
        notification, headers = _read((event_type, *misplaced), dict(call), {})
        keeper, deadline = _keeper_and_deadline()
        keep = functools.partial(
            contextvars.copy_context().run, keeper.keep, notification, headers, deadline=deadline
        )
        kept = asyncio.get_running_loop().run_in_executor(_executor(), keep)
        try:
            await asyncio.wait({kept}, timeout=deadline - time.monotonic() + ASYNC_GRACE)
        except asyncio.CancelledError:
            kept.cancel()  # else its later error would be reported as one that nobody fetched
            raise
        if not kept.done():
            kept.cancel()
            raise MaybeAccepted(notification.message_id, "no thread had ended its call in time")
        kept.result()
        return self._result(notification)

    def within(
        self, connection: object, event_type: str, *misplaced: Never, **call: Unpack[Call]
    ) -> NotificationResult:
        """Send a notification if, and only if, the caller's own database transaction commits.

        Args:
            connection: on the fleet's database, in a transaction: psycopg or another DB-API connection,
                Django's `connection`, SQLAlchemy's Connection or Session.
            event_type: as in `delay`.
            *misplaced: nothing.
            **call: as in `delay`.

        Raises:
            InvalidCall: an argument is wrong, or the connection is asynchronous or commits by itself.
            NotAccepted: the database refuses it. The caller's transaction goes on.
        """
        from notify_tasks.keeping import within  # noqa: PLC0415 - few producers need it

        notification, headers = _read((event_type, *misplaced), dict(call), {})
        if _captor is not None:
            within.open_transaction(connection)
            _captor.keep(notification, headers, deadline=float("inf"))
        else:
            within.keep_within(connection, notification, tell=settings.get().intake_notify)
        return self._result(notification)

    # --- the rest of Celery's task ------------------------------------------------------------------

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Refuse to run here."""
        raise NotHere(_ELSEWHERE)

    run = __call__

    def apply(self, *_: object, **__: object) -> NoReturn:
        """Refuse to run here."""
        raise NotHere(_ELSEWHERE)

    def signature(self, args: Any = None, *rest: Any, **options: Any) -> Signature[Any]:
        """Make a signature. One that names a message id has it as its task id from the start."""
        made = super().signature(args, *rest, **options)
        if (message_id := made.kwargs.get("message_id")) is not None:
            made.options.setdefault("task_id", str(message_id))
        return made

    subtask = signature

    def AsyncResult(self, task_id: str, **_: object) -> NotificationResult:  # noqa: N802 - Celery's name
        """The result of a call that is still to come; groups hand these out before they send."""
        result = NotificationResult(task_id, app=app)
        _prepared[task_id] = result
        return result

    def __reduce__(self) -> str:
        return "send_notification"  # pickled by name: there is one in every process

    def _result(self, notification: Notification) -> NotificationResult:
        result = _prepared.pop(notification.message_id, None)
        if result is None:
            result = NotificationResult(notification.message_id, app=app)
        result.tenant = notification.tenant
        result._cancel = _captor.cancel if _captor is not None else None  # noqa: SLF001 - ours
        return result


send_notification: Final = SendNotification()
_registry.register(send_notification)

_prepared: weakref.WeakValueDictionary[str, NotificationResult] = weakref.WeakValueDictionary()
"""Results that groups hand out before they send."""


# --- how a call is kept -----------------------------------------------------------------------------


class Captor(Keeper, Protocol):
    """Takes calls instead of a server: what tests use."""

    def cancel(self, tenant: str, message_id: str) -> Any:
        """Cancel one of them."""


@dataclass(frozen=True, slots=True)
class _Kept:
    settings: settings.Settings
    keeper: Keeper


_captor: Captor | None = None
_kept: _Kept | None = None
_lock: Final = threading.Lock()
_executors: Final[dict[int, ThreadPoolExecutor]] = {}


@contextmanager
def capturing(captor: Captor) -> Iterator[None]:
    """Inside, calls of the whole process go to `captor`."""
    global _captor  # noqa: PLW0603 - one for the process, as the settings are
    before, _captor = _captor, captor
    try:
        yield
    finally:
        _captor = before


def close() -> None:
    """Close the connections that wait for the next call; that call opens new ones."""
    global _kept
    with _lock:
        before, _kept = _kept, None
    if before is not None:
        before.keeper.close()


atexit.register(close)


def _read(
    args: tuple[Any, ...] | list[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> tuple[Notification, Mapping[str, object]]:
    call, headers = map_options(kwargs or {}, options)
    places = tuple(args or ())
    if not places and "event_type" in call:
        places = (call.pop("event_type"),)
    if len(places) != 1:
        raise InvalidCall(
            "event_type",
            f"{len(places)} arguments are given by position",
            "Give the event type alone by position and the rest by keyword, as in "
            'delay("order.shipped", to="user-42", payload={...}); in a chain, use .si()',
        )
    notification = build_notification(places[0], now=datetime.now(UTC), **call)
    trace = trace_of(headers) or trace_context.current()
    if trace is None:
        return notification, headers
    return replace(notification, trace=trace), {**trace, **headers}


def _keeper_and_deadline() -> tuple[Keeper, float]:
    if _captor is not None:
        return _captor, float("inf")
    current = settings.get()
    kept = _kept
    if kept is None or kept.settings is not current:
        kept = _open(current)
    return kept.keeper, time.monotonic() + current.call_timeout


def _open(current: settings.Settings) -> _Kept:
    global _kept  # noqa: PLW0603 - made by the first call, and again after `configure`
    with _lock:
        before = _kept
        if before is not None and before.settings is current:
            return before
        _kept = _Kept(current, _keeper_for(current))
        if before is not None:
            before.keeper.close()
        return _kept


def _keeper_for(current: settings.Settings) -> Keeper:
    if current.intake == settings.POSTGRES:
        url = current.need_database_url()
        try:
            from notify_tasks.keeping.postgres import PostgresKeeper  # noqa: PLC0415 - an extra's driver
        except ImportError:
            raise NotHere(
                "NOTIFY_INTAKE=postgres needs the PostgreSQL driver. "
                "Install it: pip install 'notify-tasks[postgres]'"
            ) from None
        return PostgresKeeper(url, current.call_timeout, tell=current.intake_notify)
    url = current.need_broker_url()
    from notify_tasks.keeping.redis import RedisKeeper  # noqa: PLC0415 - a third of a second to import

    return RedisKeeper(url, current.call_timeout)


def _executor() -> ThreadPoolExecutor:
    pid = os.getpid()
    found = _executors.get(pid)
    if found is None:
        with _lock:
            found = _executors.get(pid)
            if found is None:
                # Not asyncio's own: its few threads may all be waiting for something else.
                found = ThreadPoolExecutor(ASYNC_THREADS, thread_name_prefix="notify-send")
                _executors[pid] = found
    return found
