"""A Redis transport for kombu that never discards a message: what nobody can process is parked.

It keeps kombu's keys and wire format, so stock producers and stock workers share a Redis with it. Where kombu
would end the worker, drop the message or deliver it for ever, the raw bytes go to the Redis list `PARKED_KEY`
with a reason, and the queue goes on with its neighbours:

* an item that is not an envelope of kombu (`Channel`);
* a message that names no known task, or that a worker cannot turn into a call (`ParkingStep`);
* a message that was taken `TAKEN_LIMIT` times and never ended, most likely since it ends the worker (`QoS`).

A message that Redis has handed over and will not take back at the moment (full, read-only, gone) is kept in
memory and tried again. The narrow gap that stays is a process killed between its BRPOP and its next command.

`install(app)` switches it on. It needs Redis 7 or Valkey (script flags).
"""

# ruff: noqa: FBT001, FBT002 - the signatures are kombu's

from __future__ import annotations

import base64
import json
import logging
import weakref
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty
from time import monotonic, time
from typing import Any, ClassVar, Final

import kombu.transport
import redis
from celery import Celery
from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.json import dumps, loads
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from notify_tasks.consuming import ParkingStep, Unreadable, check_envelope, read_envelope
from notify_tasks.routing import PARKED_KEY, TAKEN_HEADER

logger = logging.getLogger(__name__)

TAKEN_LIMIT: Final = 3
"""A message is parked when it was taken this often without an end."""
KEPT_RETRY: Final = 1.0
"""Seconds between two tries to get rid of a message that Redis does not take back."""

# These writes only move what Redis holds already, and an acknowledgement then frees it: refusing them when
# Redis is full would lose the message, or stop the very consumers that empty the queues.
_WRITE_THOUGH_FULL: Final = """#!lua flags=allow-oom
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
"""

# Moves one unacknowledged message unless somebody else has ended it. The push goes first: if Redis refuses
# it, nothing has changed.
_MOVE: Final = """#!lua flags=allow-oom
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
for i = 3, #KEYS do redis.call(ARGV[3], KEYS[i], ARGV[4]) end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""


def install(app: Celery) -> None:
    """Make this process use this transport, and the app's workers park what they cannot run.

    `redis://`, `rediss://` and `sentinel://` URLs, their options and `broker_use_ssl` stay as they are. It replaces
    kombu's aliases in the whole process: a matter for our workers, never for a producer's host application.
    """
    for alias in ("redis", "rediss"):
        kombu.transport.TRANSPORT_ALIASES[alias] = f"{__name__}:Transport"
        kombu.transport._transport_cache.pop(alias, None)  # type: ignore[attr-defined] # noqa: SLF001 - stale
    kombu.transport.TRANSPORT_ALIASES["sentinel"] = f"{__name__}:GuidedTransport"
    kombu.transport._transport_cache.pop("sentinel", None)  # type: ignore[attr-defined] # noqa: SLF001 - as above
    app.steps["consumer"].add(ParkingStep)


def park(to: redis.Redis | stock.Channel, queue: str, raw: bytes, reason: str, detail: str = "") -> None:
    """Put a message that cannot be processed on the parked list.

    To remove it from where it was stays with the caller.

    Args:
        to: a Redis client, or a channel of this transport.
        queue: the queue it came from.
        raw: the queue item, byte for byte. It is private: it goes into the record, never into a log.
        reason: a short constant such as `unknown-version`; operators count by it.
        detail: what an operator needs besides; no content of the message.

    Raises:
        redis.RedisError: it is not parked; the caller still holds the message.
    """
    record = _record(queue, raw, reason, detail)
    if isinstance(to, redis.Redis):
        _write(to, "LPUSH", PARKED_KEY, record)
    else:
        with to.conn_or_acquire() as client:
            _write(client, "LPUSH", PARKED_KEY, record)
    _log_parked(queue, reason, len(raw))


def _record(queue: str, raw: bytes, reason: str, detail: str) -> bytes:
    """The JSON record of a parked message; its fields are `park`'s arguments, `raw` in base64, and when."""
    record = {
        "queue": queue,
        "reason": reason,
        "detail": detail,
        "at": datetime.now(UTC).isoformat(),
        "raw": base64.b64encode(raw).decode(),
    }
    return json.dumps(record).encode()


def _log_parked(queue: str, reason: str, size: int) -> None:
    """Tell the operator, without the message: `size` is its bytes."""
    logger.error("parked a message of queue %s: %s, %d bytes", queue, reason, size)


def _write(client: Any, command: str, key: str, *values: Any) -> None:
    """Run a write of one key, although Redis may be full.

    Raises:
        redis.RedisError: it is not written.
    """
    try:
        client.execute_command(command, key, *values)
    except OutOfMemoryError:
        client.eval(_WRITE_THOUGH_FULL, 1, _prefix(client) + key, command, *values)


def _prefix(client: Any) -> str:
    """What a client of kombu puts before its keys; commands it does not know need it put by hand."""
    return str(getattr(client, "global_keyprefix", ""))


class QoS(stock.QoS):
    """Which messages this process holds: registered in Redis while Redis is full too, and counted when lost.

    Attributes:
        lost: True while what is put back was lost by its holder (visibility timeout, connection gone), so
            that the count of takes without an end goes up; False for an orderly requeue.
    """

    channel: Channel
    lost = False

    def can_consume(self) -> bool:
        # Without queues to consume, a reply still on its way must be read at once: its message is put back.
        return not self.channel._active_queues or super().can_consume()  # noqa: SLF001 - kombu's own subclass

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            try:
                super().append(message, delivery_tag)
            except OutOfMemoryError:
                info = message.delivery_info
                entry = dumps([message._raw, info["exchange"], info["routing_key"]])  # noqa: SLF001
                with self.channel.conn_or_acquire() as client:
                    _write(client, "ZADD", self.unacked_index_key, time(), delivery_tag)
                    _write(client, "HSET", self.unacked_key, delivery_tag, entry)
                virtual.QoS.append(self, message, delivery_tag)
        except Exception as problem:
            self.channel.keep_taken(problem)
            raise
        self.channel.taking = None

    def ack(self, delivery_tag: str) -> None:
        self.forget(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def forget(self, delivery_tag: str) -> None:
        """Remove a message from the unacknowledged; nothing happens if it is not among them."""
        # No MULTI: some servers refuse it when they are full, and an acknowledgement frees memory. The hash
        # goes first: the next restore clears an index entry without a message; the reverse would stay.
        with self.channel.conn_or_acquire() as client:
            pipeline = client.pipeline(transaction=False)
            pipeline.hdel(self.unacked_key, delivery_tag).zrem(self.unacked_index_key, delivery_tag).execute()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if requeue:
            self.restore_by_tag(delivery_tag)  # to the head: a message that is put back keeps its place
            virtual.QoS.ack(self, delivery_tag)
        else:
            self.park(delivery_tag, "rejected")

    def park(self, delivery_tag: str, reason: str, detail: str = "") -> None:
        """Move a message that this process holds to the parked list.

        Raises:
            redis.RedisError: it is not parked, and still unacknowledged.
        """
        with self.channel.conn_or_acquire() as client:
            self._move(client, delivery_tag, "RPUSH", (reason, detail))
        virtual.QoS.ack(self, delivery_tag)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        before, self.lost = self.lost, True
        try:
            super().restore_visible(start, num, interval)
        except ResponseError as problem:  # a full Redis refuses the lock; this must not end the worker
            logger.warning("expired messages are not put back at the moment: %s", type(problem).__name__)
        finally:
            self.lost = before

    def restore_unacked(self, client: Any | None = None) -> None:
        try:
            super().restore_unacked(client)
        except (RedisError, OSError) as problem:
            logger.warning(
                "%d messages cannot be put back now (%s); they return after the visibility timeout",
                len(self._delivered or ()),
                type(problem).__name__,
            )
            if self._delivered is not None:
                self._delivered.clear()

    def restore_by_tag(
        self,
        tag: str,
        client: Any | None = None,
        leftmost: bool = False,
    ) -> None:
        with self.channel.conn_or_acquire(client) as connected:
            self._move(connected, tag, "LPUSH" if leftmost else "RPUSH", None)

    def _move(self, client: Any, tag: str, push: str, why: tuple[str, str] | None) -> None:
        """Take a message out of the unacknowledged: to its queues, or parked if there is a reason why."""
        entry = client.hget(self.unacked_key, tag)
        if entry is None:
            client.zrem(self.unacked_index_key, tag)
            return
        message, queues = self._registered(entry)
        why = why or self._marked_for_another_take(message, queues)
        if message:
            if why:  # whoever replays it starts anew
                message["headers"].pop(TAKEN_HEADER, None)
            raw = dumps(message).encode()
        else:
            raw = entry
        queue = queues[0] if queues else "unknown"
        if why:
            push, keys, form = "LPUSH", [PARKED_KEY], _record(queue, raw, *why)
        else:
            keys, form = [self.channel.key_of(queue, message) for queue in queues], raw
        prefix = _prefix(client)
        names = [prefix + key for key in (self.unacked_key, self.unacked_index_key, *keys)]
        if client.eval(_MOVE, len(names), *names, tag, entry, push, form) and why:
            _log_parked(queue, why[0], len(raw))

    def _registered(self, entry: bytes) -> tuple[dict[str, Any], list[str]]:
        """An unacknowledged message and the queues it goes to; empty if it cannot be read."""
        try:
            message, exchange, routing_key = loads(entry)
            check_envelope(message)
        except (Unreadable, ValueError, TypeError):
            return {}, []
        return message, [queue for queue in self.channel._lookup(exchange, routing_key) if queue]  # noqa: SLF001

    def _marked_for_another_take(self, message: dict[str, Any], queues: list[str]) -> tuple[str, str] | None:
        """Mark a message as delivered again, or say why it must not be."""
        if not message:
            return "bad-envelope", "as registered by another worker"
        headers = message["headers"]
        headers["redelivered"] = message["properties"]["delivery_info"]["redelivered"] = True
        if self.lost:
            before = headers.get(TAKEN_HEADER)
            headers[TAKEN_HEADER] = taken = (before if isinstance(before, int) else 0) + 1
            if taken >= TAKEN_LIMIT:
                return f"taken-{TAKEN_LIMIT}-times", "lost by each worker that took it"
        return None if queues else ("no-queue", "nothing is bound to its exchange and routing key")


class Channel(stock.Channel):
    """A channel that parks what it cannot read and keeps what Redis does not take back."""

    QoS = QoS
    _kept_by_broker: ClassVar[dict[tuple[Any, ...], deque[tuple[str, bytes]]]] = {}
    _consumer_of: ClassVar[dict[tuple[Any, ...], weakref.ref[Channel]]] = {}

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        broker = connection.client
        self._broker = broker.hostname, broker.port, broker.virtual_host
        # Shared by a broker's channels: what this one keeps when its connection dies, the next one takes.
        self._kept = self._kept_by_broker.setdefault(self._broker, deque())
        self._keeping = False
        self._retry_at = 0.0
        self.taking: tuple[str, bytes] | None = None
        super().__init__(connection, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        if not self._kept or self._take_kept():
            super()._brpop_start(timeout)  # type: ignore[misc]

    def _brpop_read(self, **options: Any) -> bool:
        connection = self.client.connection
        try:
            try:
                reply = self.client.parse_response(connection, "BRPOP", **options)
            except self.connection_errors:  # type: ignore[attr-defined]
                connection.disconnect()  # the next poll connects anew
                raise
            if not reply:
                raise Empty
            key, item = reply
            self._take(key.decode(), item)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()  # type: ignore[attr-defined]

    def _take(self, key: str, item: bytes) -> None:
        """Deliver, park, put back or keep one popped item: from here on it is ours to lose."""
        queue = key.rsplit(self.sep, 1)[0]
        transport: Any = self.connection
        if self._closing or queue not in transport._callbacks:  # noqa: SLF001
            self._put_back(key, item)
            return
        self._queue_cycle.rotate(queue)  # type: ignore[attr-defined]
        try:
            envelope = read_envelope(item)
        except Unreadable as problem:
            self._park_or_keep(key, queue, item, problem)
            return
        self.taking = key, item
        try:
            transport._deliver(envelope, queue)  # noqa: SLF001
        finally:
            self.taking = None

    def _park_or_keep(self, key: str, queue: str, item: bytes, problem: Unreadable) -> None:
        try:
            park(self, queue, item, problem.reason, problem.detail)
        except (RedisError, OSError) as refused:
            self._keep(key, item, refused)
            if not isinstance(refused, ResponseError):
                raise  # the connection is gone: the worker reconnects

    def _put_back(self, key: str, item: bytes) -> bool:
        """Put a popped item back to the head of its queue; False if it is kept instead."""
        try:
            with self.conn_or_acquire() as client:
                _write(client, "RPUSH", key, item)
        except (RedisError, OSError) as problem:
            self._keep(key, item, problem)
            return False
        return True

    def _keep(self, key: str, item: bytes, problem: Exception) -> None:
        if not self._keeping:  # said once, not with every try
            logger.error(
                "Redis does not take back a message of %s, %d bytes (%s); kept in memory and tried again",
                key,
                len(item),
                type(problem).__name__,
            )
        self._keeping = True
        self._kept.append((key, item))
        self._retry_at = monotonic() + KEPT_RETRY

    def keep_taken(self, problem: Exception) -> None:
        """Keep the message that is being delivered: it could not be registered as unacknowledged."""
        if self.taking:
            self._keep(*self.taking, problem)
            self.taking = None

    def _take_kept(self) -> bool:
        """Try the kept messages again; whether none is left, so that more may be fetched."""
        if monotonic() < self._retry_at:
            return False
        for _ in range(len(self._kept)):
            if not self.qos.can_consume():
                break
            self._take(*self._kept.popleft())
        self._keeping = bool(self._kept)
        return not self._keeping

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        try:
            check_envelope(message)
        except Unreadable as problem:  # a broadcast has no queue and no owner: nothing to park
            logger.warning("ignored a broadcast of %s: %s", exchange, problem.reason)
            raise Empty from None
        return bool(super()._deliver_fanout_message(message, exchange))  # type: ignore[misc]

    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        # A Celery retry copies the headers of the message that it ends; its own count starts anew.
        headers = {name: value for name, value in (headers or {}).items() if name != TAKEN_HEADER}
        return super().prepare_message(body, priority, content_type, content_encoding, headers, properties)

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        self._consumer_of[self._broker] = weakref.ref(self)
        return super().basic_consume(queue, *args, **kwargs)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        if not self.closed:
            super().basic_ack(delivery_tag, multiple)
        elif successor := self._successor():
            successor.qos.forget(delivery_tag)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not self.closed:
            super().basic_reject(delivery_tag, requeue)
        elif requeue and (successor := self._successor()):
            successor.qos.restore_by_tag(delivery_tag)

    def _successor(self) -> Any:
        """The channel that consumes now, for tasks that end after their connection was lost.

        Their messages are unacknowledged still if Redis was gone, and nothing happens if it had them back.
        """
        reference = self._consumer_of.get(self._broker)
        channel = reference() if reference else None
        return channel if channel and not channel.closed else None

    def key_of(self, queue: str, envelope: dict[str, Any]) -> str:
        """The Redis list of a queue at the message's priority."""
        return str(self._q_for_pri(queue, self._get_message_priority(envelope)))  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close, whatever state the connection is in.

        When kombu's close fails half way, Celery closes the channel again after it has taken its transport
        apart, and the worker ends with an AttributeError.
        """
        if self.closed:
            return
        self._closing = True
        gone = (RedisError, OSError)
        if self._in_poll:
            with suppress(Empty, *gone):
                self._brpop_read()
        for _ in range(len(self._kept)):
            if not self._put_back(*self._kept.popleft()):
                break
        try:
            super().close()
        except gone as problem:
            logger.info("closing a channel without Redis: %s", type(problem).__name__)
            self._disconnect_pools()  # type: ignore[attr-defined]
            self._close_clients()  # type: ignore[attr-defined]
            with suppress(*gone):
                virtual.Channel.close(self)


class Transport(stock.Transport):
    """kombu's Redis transport with our channel."""

    Channel = Channel


class GuidedChannel(Channel, stock.SentinelChannel):
    """Our channel, on the primary that sentinels name."""


class GuidedTransport(Transport):
    """kombu's Sentinel transport with our channel."""

    default_port = 26379
    Channel = GuidedChannel
