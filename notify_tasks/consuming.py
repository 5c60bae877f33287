"""What a worker's consumer cannot run, when it must pause, and when its process must end.

* `read_envelope`: whether a queue item is a message at all.
* `ParkingStep`: a message that Celery would log with its content and drop is parked.
* `Consumption`: stops and resumes the fetching of messages, from any thread.
* `Away`: pauses while something the tasks need is away, and resumes by itself.
* `exit_soon`: ends a process that a hung thread makes useless.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final, NoReturn

from celery import Celery, bootsteps
from celery.worker import state
from celery.worker.consumer.tasks import Tasks
from kombu.transport import redis as stock
from kombu.utils.json import loads
from redis.exceptions import ResponseError

logger = logging.getLogger(__name__)

CONFIRM_EVERY: Final = 0.02
"""Seconds between two looks whether the last fetch has come back."""


class Unreadable(Exception):
    """A queue item is not an envelope of kombu."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def read_envelope(item: bytes) -> dict[str, Any]:
    """The envelope in a queue item, checked so far that kombu can build, register and put back the message.

    Raises:
        Unreadable: with the reason and the offending field.
    """
    try:
        envelope = loads(item)
    except Exception as problem:  # noqa: BLE001 - the decoder recurses and calls hooks: anything comes out
        raise Unreadable("not-json", type(problem).__name__) from None
    return check_envelope(envelope)


def check_envelope(envelope: Any) -> dict[str, Any]:
    """As `read_envelope`, for an item that is decoded already."""
    if not isinstance(envelope, dict):
        raise Unreadable("not-an-object", f"a JSON {type(envelope).__name__}")
    properties = _field(envelope, "properties", dict)
    _field(envelope, "headers", dict)
    body = _field(envelope, "body", str)
    for optional in ("content-type", "content-encoding"):
        if envelope.get(optional) is not None:
            _field(envelope, optional, str)
    if not _field(properties, "delivery_tag", str):
        raise Unreadable("bad-envelope", "delivery_tag is empty")
    delivery = _field(properties, "delivery_info", dict)
    exchange, routing_key = _field(delivery, "exchange", str), _field(delivery, "routing_key", str)
    if not exchange and not routing_key:
        raise Unreadable("bad-envelope", "routing_key is empty")
    _check_body(body, properties.get("body_encoding"))
    return envelope


def _field(holder: dict[str, Any], name: str, kind: type[Any]) -> Any:
    if name not in holder:
        raise Unreadable("bad-envelope", f"{name} is missing")
    if not isinstance(holder[name], kind):
        raise Unreadable("bad-envelope", f"{name} is a {type(holder[name]).__name__}, not a {kind.__name__}")
    return holder[name]


def _check_body(body: str, encoding: Any) -> None:
    if not encoding or (isinstance(encoding, str) and encoding.lower() == "utf-8"):
        return
    codec = stock.Channel.codecs.get(encoding) if isinstance(encoding, str) else None
    if codec is None:
        raise Unreadable("bad-body", "body_encoding is neither utf-8 nor base64")
    try:
        codec.decode(body)
    except ValueError:
        raise Unreadable("bad-body", f"body is not {encoding}") from None


class ParkingStep(bootsteps.Step):
    """Makes a worker's consumer park what stock Celery drops: unknown tasks, unreadable bodies, bad calls.

    It also tells the transport when a connection was lost, so that the messages then put back are counted.
    Installed by `transport.install`; on a transport that cannot park it stays out.
    """

    def include_if(self, consumer: Any) -> bool:
        channel = getattr(consumer.conninfo.get_transport_cls(), "Channel", None)
        return hasattr(getattr(channel, "QoS", None), "park")

    def create(self, consumer: Any) -> None:
        self._consumer = consumer
        self._create_handler: Callable[[], Callable[[Any], None]] = consumer.create_task_handler
        self._to_pool: Callable[[Any], None] = consumer.on_task_request
        self._connection_lost: Callable[[Exception], None] = consumer.on_connection_error_after_connected
        self._in_pool: Any = None
        # kombu counts KeyError among them; a message without an id raises one.
        self._connection_errors = tuple(e for e in consumer.connection_errors if e is not KeyError)
        consumer.create_task_handler = self._create_parking_handler
        consumer.on_task_request = self._hand_over
        consumer.on_connection_error_after_connected = self._on_connection_lost
        consumer.on_unknown_message = self._on_unknown_message
        consumer.on_unknown_task = self._on_unknown_task
        consumer.on_invalid_task = self._on_invalid_task
        consumer.on_decode_error = self._on_decode_error

    def _on_unknown_message(self, _body: Any, message: Any) -> None:
        self._park(message, "not-a-task")

    def _on_unknown_task(self, _body: Any, message: Any, _problem: Exception) -> None:
        self._park(message, "unknown-task", str(message.headers.get("task"))[:200])

    def _on_invalid_task(self, _body: Any, message: Any, problem: Exception) -> None:
        self._park(message, "invalid-task", type(problem).__name__)

    def _on_decode_error(self, message: Any, problem: Exception) -> None:
        self._park(message, "unreadable-body", type(problem).__name__)

    def _create_parking_handler(self) -> Callable[[Any], None]:
        handle = self._create_handler()

        def on_task_received(message: Any) -> None:
            self._in_pool = None
            try:
                if misfit := self._misfit(message):
                    self._park(message, "wrong-arguments", misfit)
                else:
                    handle(message)
            except self._connection_errors:
                raise
            except Exception as problem:
                if self._in_pool is message:  # the pool failed, and the worker ends over it: that take counts
                    message.channel.qos.lost = True
                    raise
                self._park(message, "no-call", type(problem).__name__)

        return on_task_received

    def _misfit(self, message: Any) -> str:
        """Why the arguments do not fit the task's signature: Celery would fail the task and acknowledge."""
        task = self._consumer.app.tasks.get(message.headers.get("task"))
        check = getattr(task, "__header__", None)
        if check is None or not task.typing:
            return ""
        try:
            positional, named, _ = message.payload
            positional, named = tuple(positional), dict(named)
        except Exception:  # noqa: BLE001 - no arguments to be seen: Celery's own handler says what is wrong
            return ""
        try:
            check(*positional, **named)
        except TypeError as problem:
            return str(problem)[:200]
        return ""

    def _hand_over(self, request: Any) -> None:
        self._in_pool = request.message
        self._to_pool(request)

    def _park(self, message: Any, reason: str, detail: str = "") -> None:
        tasks = self._consumer.task_consumer
        if tasks is None or message.channel is not tasks.channel:
            logger.warning("ignored a broadcast: %s", reason)  # without a queue or an owner: nothing to park
            return
        try:
            message.channel.qos.park(message.delivery_tag, reason, detail)
        except ResponseError as problem:
            logger.error(  # noqa: TRY400 - a traceback would show the message
                "a message cannot be parked (%s, %s); it returns after the visibility timeout",
                reason,
                type(problem).__name__,
            )

    def _on_connection_lost(self, problem: Exception) -> None:
        connection = self._consumer.connection
        for channel in getattr(getattr(connection, "transport", None), "channels", None) or ():
            channel.qos.lost = True
        self._connection_lost(problem)


class Consumption:
    """Stops and resumes the fetching of messages in this process.

    Everybody who pauses names a reason of their own; messages are fetched again when the last reason is
    withdrawn. A pause outlives lost connections, and remote control answers meanwhile. Tasks that run go on,
    and so do countdowns that this process holds.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reasons: set[str] = set()
        self._stopped = True  # nothing is fetched
        self._consumer: Any = None
        self._consume: Callable[[], None] = lambda: None
        self._loop_thread = 0

    def install(self, app: Celery) -> None:
        """Let the app's worker be paused. Once per app, before its worker starts."""
        app.steps["consumer"].add(type("ConsumptionStep", (_ConsumptionStep,), {"consumption": self}))

    @property
    def reasons(self) -> frozenset[str]:
        """Why messages are not fetched; empty while they are."""
        with self._changed:
            return frozenset(self._reasons)

    def pause(self, reason: str, timeout: float = 5.0) -> bool:
        """Stop fetching messages and wait until it has stopped. What was on its way goes back to its queue.

        Args:
            reason: resuming takes the same one. Pausing twice with it changes nothing.
            timeout: seconds to wait. On the consumer's own thread (a solo pool's tasks) nothing waits.

        Returns:
            Whether nothing is fetched any more; if not, it still stops as soon as the consumer gets to it.
        """
        self.request_pause(reason)
        return self.wait_paused(timeout)

    def request_pause(self, reason: str) -> None:
        """As `pause`, without waiting."""
        with self._changed:
            self._reasons.add(reason)
        self._soon(self._apply)

    def wait_paused(self, timeout: float) -> bool:
        """Wait until nothing is fetched any more, or the pause is over.

        Args:
            timeout: seconds.

        Returns:
            False if neither came in time.
        """
        if threading.get_ident() == self._loop_thread:
            return True  # `request_pause` has done it; waiting here would stop the loop that goes on
        with self._changed:
            return self._changed.wait_for(lambda: self._stopped or not self._reasons, timeout)

    def resume(self, reason: str) -> None:
        """Withdraw a reason; with the last one, messages are fetched again. Without that reason, nothing."""
        with self._changed:
            self._reasons.discard(reason)
            self._changed.notify_all()
        self._soon(self._apply)

    def settle(self, timeout: float) -> bool:
        """Wait until the consumer's thread has done what it was given so far, such as acknowledgements.

        Args:
            timeout: seconds.

        Returns:
            False if it did not get to it in time.
        """
        deadline = time.monotonic() + timeout
        for _ in range(2):  # callbacks given together run in any order: the second round comes after all
            done = threading.Event()
            self._soon(done.set)
            if not done.wait(max(0.0, deadline - time.monotonic())):
                return False
        return True

    def _soon(self, callback: Callable[[], None]) -> None:
        consumer = self._consumer
        if consumer is None or threading.get_ident() == self._loop_thread:
            callback()
        else:
            consumer.call_soon(callback)

    def _attach(self, consumer: Any) -> None:
        """Take over a consumer that has just connected, before it consumes."""
        tasks = consumer.task_consumer
        consume = tasks.consume

        def consume_unless_paused(no_ack: bool | None = None) -> None:  # noqa: FBT001 - kombu's signature
            with self._changed:
                if self._reasons:
                    return
                self._stopped = False
            consume(no_ack)

        tasks.consume = consume_unless_paused
        self._loop_thread = threading.get_ident()
        self._consume = consume_unless_paused
        self._consumer = consumer

    def _detach(self) -> None:
        with self._changed:
            self._consumer, self._consume = None, lambda: None
            self._stopped = True
            self._changed.notify_all()

    def _apply(self) -> None:
        """On the consumer's thread: make it do what the reasons say."""
        consumer = self._consumer
        tasks = consumer.task_consumer if consumer else None
        if tasks is None:
            return  # between two connections; the next one asks before it consumes
        if self.reasons:
            tasks.cancel()
            self._confirm()
        else:
            self._consume()

    def _confirm(self) -> None:
        consumer = self._consumer
        tasks = consumer.task_consumer if consumer else None
        if tasks is not None and getattr(tasks.channel, "_in_poll", None):  # a BRPOP lasts up to a second
            consumer.timer.call_after(CONFIRM_EVERY, self._confirm)
            return
        with self._changed:
            if self._reasons:
                self._stopped = True
                self._changed.notify_all()


class _ConsumptionStep(bootsteps.StartStopStep):
    consumption: ClassVar[Consumption]
    requires = (Tasks,)

    def start(self, consumer: Any) -> None:
        self.consumption._attach(consumer)  # noqa: SLF001 - the two are one thing

    def stop(self, consumer: Any) -> None:  # noqa: ARG002 - the blueprint's signature
        self.consumption._detach()  # noqa: SLF001


class Away:
    """Pauses consumption while something that every task needs is away, and resumes when it is back.

    In a task:

        except DatabaseAway as problem:
            away.report(problem)
            away.wait_paused(5)
            raise Reject(requeue=True) from None

    The message goes back to its queue after fetching has stopped, so nobody here takes it again at once.

    Args:
        consumption: what to pause.
        probe: returns when the thing is back, raises while it is away; called on a thread of its own, so give
            it a timeout of its own.
        name: the thing's name, for logs and as the reason of the pause.
        first: seconds from the report to the first probe; doubled after each failure.
        most: seconds between two probes at most.
    """

    def __init__(
        self,
        consumption: Consumption,
        probe: Callable[[], object],
        *,
        name: str = "database",
        first: float = 0.5,
        most: float = 2.0,
    ) -> None:
        self._consumption = consumption
        self._probe = probe
        self._name = name
        self._reason = f"{name} away"
        self._first = first
        self._most = most
        self._lock = threading.Lock()
        self._watched = False

    @property
    def watched(self) -> bool:
        """Whether it was reported away and has not been seen back."""
        with self._lock:
            return self._watched

    def report(self, exception: BaseException) -> None:
        """Say that it is away. The first report pauses and starts to probe; returns at once."""
        with self._lock:
            if self._watched:
                return
            self._watched = True
        logger.warning("%s is away (%s); no messages are fetched", self._name, type(exception).__name__)
        self._consumption.request_pause(self._reason)
        threading.Thread(target=self._watch, name=f"watch {self._name}", daemon=True).start()

    def wait_paused(self, timeout: float) -> bool:
        """Wait until nothing is fetched any more, or it is back.

        Args:
            timeout: seconds.

        Returns:
            False if neither came in time.
        """
        return self._consumption.wait_paused(timeout)

    def _watch(self) -> None:
        interval, begun = self._first, time.monotonic()
        while True:
            time.sleep(interval)
            try:
                self._probe()
            except Exception:  # noqa: BLE001 - whatever it raises, it is not back
                interval = min(2 * interval, self._most)
            else:
                break
        with self._lock:  # a report waits here, so that it cannot fall between the two
            self._consumption.resume(self._reason)
            self._watched = False
        logger.warning("%s is back after %.1f s", self._name, time.monotonic() - begun)


_leaving = threading.Lock()


def exit_soon(consumption: Consumption, code: int, *, grace: float, hung: int = 1) -> None:
    """End this process without its hung threads: stop fetching, let the others end, then `os._exit`.

    Returns at once; the first call counts. Messages of the threads given up stay unacknowledged: they return
    after the visibility timeout. A supervisor starts the next process.

    Args:
        consumption: this process's.
        code: the exit code.
        grace: seconds that the other threads have; they have their own deadlines.
        hung: how many threads are given up.
    """
    if _leaving.acquire(blocking=False):
        arguments = consumption, code, grace, hung
        threading.Thread(target=_leave, args=arguments, name="leave", daemon=True).start()


def _leave(consumption: Consumption, code: int, grace: float, hung: int) -> NoReturn:
    logger.critical("%d hung: this process exits with code %d within %.0f s", hung, code, grace)
    deadline = time.monotonic() + grace
    consumption.pause("process exits", grace)
    while len(state.active_requests) > hung and time.monotonic() < deadline:
        time.sleep(0.05)
    consumption.settle(min(1.0, max(0.1, deadline - time.monotonic())))
    os._exit(code)
