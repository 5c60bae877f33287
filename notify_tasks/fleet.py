"""What one worker process holds: connections, configuration, and the parts that work with them."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import redis

from channels.contract import DataContent, Message
from notify_tasks import redis_place, unsubscribing
from notify_tasks.alarm import Alarm
from notify_tasks.broker import Broker, BrokerError, Outgoing
from notify_tasks.configuration.model import Configuration
from notify_tasks.delivery import Deliverer
from notify_tasks.escalating import Escalator
from notify_tasks.gatekeeping import Keeper
from notify_tasks.gates import RATE, Gates
from notify_tasks.intake import Intake
from notify_tasks.ledger import Ledger
from notify_tasks.limiting import Limiter, spacing
from notify_tasks.messages import shown
from notify_tasks.notification import uuid7
from notify_tasks.parked import Parking
from notify_tasks.providers import Pools
from notify_tasks.rates import Rate
from notify_tasks.receipts import Waker
from notify_tasks.recipient_limits import RecipientLimits
from notify_tasks.reloading import Reloader, load
from notify_tasks.rendering import Catalog
from notify_tasks.routing import DELIVER_TASK, MARKER_TASK, inbox_topic, queue_for
from notify_tasks.settings import Settings
from notify_tasks.store import deliveries, gated, inbox, sweeps
from notify_tasks.store.database import Database, DatabaseAway, DatabaseError
from notify_tasks.store.sweeps import Wake
from notify_tasks.stored_files import StoredFiles
from notify_tasks.sweeping import Publishing, Sweeper
from notify_tasks.watchdog import Watchdog
from notify_tasks.webhooks import Webhooks

logger = logging.getLogger(__name__)

IDS_A_MESSAGE: Final = 200
BROKER_SECONDS: Final = 5.0
LATECOMERS: Final = (2.5, 8.0)
"""Seconds after a change of a rate: a process that had not read it yet may have given a time by the old one."""


class InboxStore:
    """The in-app inbox: the row, and after its commit a word to live readers, who then fetch it."""

    def __init__(self, database: Database, client: redis.Redis) -> None:
        self._database = database
        self._redis = client

    def put(self, message: Message) -> bool:
        """Store the message once. Live readers are told at best effort: Redis forgets what nobody hears."""
        assert isinstance(message.content, DataContent)
        new = inbox.put(
            self._database,
            delivery_id=message.delivery_id,
            tenant=message.tenant,
            recipient_id=message.address,
            event_type=message.event_type,
            data=message.content.data,
        )
        try:
            self._redis.publish(inbox_topic(message.tenant, message.address), message.delivery_id)
        except redis.RedisError:
            logger.info("no live reader was told of an in-app message: Redis is away")
        return new


class Publisher:
    """Publishes wake-ups and markers at best effort: what does not arrive, the sweep finds."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def wake(self, wakes: Sequence[Wake]) -> None:
        """Publish deliveries on their queues, up to 200 ids a message."""
        by_queue: dict[str, list[Wake]] = {}
        for wake in wakes:
            by_queue.setdefault(queue_for(wake.channel, wake.lane), []).append(wake)
        self._publish(
            [
                deliver_message(queue, some[start : start + IDS_A_MESSAGE])
                for queue, some in by_queue.items()
                for start in range(0, len(some), IDS_A_MESSAGE)
            ]
        )

    def later(self, wake: Wake, seconds: float) -> None:
        """Publish one delivery with a short countdown."""
        self._publish([deliver_message(queue_for(wake.channel, wake.lane), [wake], countdown=seconds)])

    def mark(self, markers: Sequence[tuple[str, int]]) -> None:
        """Publish markers."""
        self._publish(
            [
                Outgoing(MARKER_TASK, [queue, n], queue, str(uuid7()), argsrepr=f"{queue} {n}")
                for queue, n in markers
            ]
        )

    def _publish(self, messages: list[Outgoing]) -> None:
        if not messages:
            return
        try:
            self._broker.publish(messages)
        except BrokerError as error:
            logger.warning(
                "%d messages not published (%s): the sweep will", len(messages), type(error).__name__
            )


def deliver_message(queue: str, wakes: Sequence[Wake], *, countdown: float | None = None) -> Outgoing:
    """A wake-up. A single delivery's id is also its Celery task id, and its message id the root's."""
    first = wakes[0]
    single = len(wakes) == 1
    return Outgoing(
        DELIVER_TASK,
        [[str(wake.id) for wake in wakes]],
        queue,
        str(first.id) if single else str(uuid7()),
        root_id=first.message_id or None if single else None,
        argsrepr=shown(first.event_type, first.message_id, first.channel)
        if single
        else f"({len(wakes)} deliveries)",
        eta=None if countdown is None else datetime.now(UTC) + timedelta(seconds=countdown),
    )


@dataclass(slots=True)
class Fleet:
    """The parts of one process."""

    settings: Settings
    database: Database
    catalog: Catalog
    pools: Pools
    ledger: Ledger
    parking: Parking
    publisher: Publisher
    intake: Intake
    deliverer: Deliverer
    sweeper: Sweeper
    redis: redis.Redis
    limiter: Limiter
    alarm: Alarm
    reloader: Reloader
    recipients: RecipientLimits
    keeper: Keeper

    def reloaded(self) -> None:
        """A new configuration is in force: what it changes for those that wait."""
        self.announce_rates()
        self.keeper.mended()

    def announce_rates(self) -> None:
        """Tell the fleet what this process's configuration says of rates, at the start and after a change of it."""
        try:
            for configured in self.pools.all():
                self.limiter.announce(configured.name, configured.rate)
        except DatabaseError as error:
            logger.warning("what waits for its turn keeps the time that it was given: %s", error)

    def restamp(self, wakes: Sequence[Wake], queue: str) -> None:
        """Wake the rest of a message again: the rows get the marker number first."""
        left = set(deliveries.restamp(self.database, [wake.id for wake in wakes], queue))
        self.publisher.wake([wake for wake in wakes if wake.id in left])

    def close(self) -> None:
        """Let go of everything."""
        self.reloader.stop()
        self.keeper.stop()
        self.ledger.flush()
        self.pools.close()
        self.limiter.close()
        self.recipients.close()
        self.database.close()
        self.redis.close()


def worker_name() -> str:
    """This process, as its attempts name it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def open_fleet(
    settings: Settings,
    *,
    threads: int,
    channels: tuple[str, ...],
    away: Callable[[DatabaseAway], None],
    give_up: Callable[[], None],
    configuration: Configuration | None = None,
) -> Fleet:
    """Open what a worker process needs. No connection is made before it is used.

    Args:
        settings: of the process.
        threads: how many tasks it runs at once.
        channels: the channels it serves.
        away: told when PostgreSQL is away.
        give_up: ends the process when a provider's call cannot be ended.
        configuration: checked before; by default it is read now. A changed file comes in with the reloader.

    Raises:
        NotConfigured: a setting is missing or wrong.
    """
    database = Database(settings.need_database_url(), connections=threads + 4, name="notify-worker")
    client = redis_place.client(
        settings.need_broker_url(), seconds=BROKER_SECONDS, connect=3, health_check_interval=15
    )
    broker = Broker(settings.need_broker_url(), timeout=BROKER_SECONDS)
    publisher = Publisher(broker)
    catalog = Catalog(Path(settings.templates))
    pools = Pools(configuration or load(settings), inbox=InboxStore(database, client))
    ledger = Ledger(client)
    parking = Parking(database, client)
    worker = worker_name()
    alarm = Alarm(lambda: sweeper.ring())  # noqa: PLW0108 - the sweeper is made below

    def respread(provider: str, rate: Rate | None) -> None:
        try:
            waits = sweeps.respread(database, f"{RATE}{provider}", 0.0 if rate is None else spacing(rate))
            if rate is not None:
                limiter.queue_ends(provider, rate, max(waits, default=0.0))
        except (redis.RedisError, DatabaseError) as error:
            logger.warning("what waits for %s keeps its time: %s", provider, type(error).__name__)
        else:
            for wait in waits:
                alarm.after(wait)

    def changed(provider: str, rate: Rate | None) -> None:
        respread(provider, rate)
        for seconds in LATECOMERS:
            timer = threading.Timer(seconds, respread, (provider, rate))
            timer.daemon = True
            timer.start()

    limiter = Limiter(settings.need_broker_url(), process=worker, changed=changed)
    recipients = RecipientLimits(settings.need_broker_url(), key=lambda: gated.limit_key(database))
    gates = Gates(
        pools,
        threads=threads,
        channels=channels,
        pauses=lambda: deliveries.read_pauses(database),
        limiter=limiter,
        recipients=recipients,
        later=alarm.after,
    )
    deliverer = Deliverer(
        database=database,
        pools=pools,
        catalog=catalog,
        gates=gates,
        watchdog=Watchdog(give_up),
        worker=worker,
        away=away,
        files=StoredFiles(settings.attachments),
        webhooks=Webhooks(database, secret_key=settings.secret_key, failing=settings.endpoint_failing),
        links=unsubscribing.links(settings.secret_key, settings.public_url),
    )
    intake = Intake(
        database=database,
        catalog=catalog,
        gates=gates,
        wake=publisher.wake,
        unknown_type_wait=settings.unknown_type_wait,
        worker=worker,
        run_again=deliverer.until_written,
    )
    escalator = Escalator(database=database, catalog=catalog, wake=publisher.wake, later=alarm.after)
    sweeper = Sweeper(
        database=database,
        pools=pools,
        ledger=ledger,
        intake=intake,
        parking=parking,
        publish=Publishing(publisher.wake, publisher.mark, Waker(broker).wake),
        worker=worker,
        later=alarm.after,
        steps=escalator.run,
    )
    reloader = Reloader(
        settings,
        pools,
        channels=channels,
        database=database,
        worker=worker,
        changed=lambda: made.reloaded(),  # noqa: PLW0108 - it is made below
    )
    keeper = Keeper(
        database=database,
        pools=pools,
        gates=gates,
        channels=channels,
        wake=publisher.wake,
        respread=respread,
        worker=worker,
    )
    made = Fleet(
        settings, database, catalog, pools, ledger, parking, publisher, intake, deliverer, sweeper, client,
        limiter, alarm, reloader, recipients, keeper,
    )  # fmt: skip
    return made
