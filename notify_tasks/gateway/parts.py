"""What the gateway's doors need, from the settings: the database, the providers, a way to tell workers."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from notify_tasks.broker import Broker
from notify_tasks.providers import NoInbox, Pools
from notify_tasks.receipts import Waker
from notify_tasks.reloading import Reloader, check_start
from notify_tasks.settings import Settings
from notify_tasks.store import migrate
from notify_tasks.store.database import Database, DatabaseError
from notify_tasks.unsubscribing import Links, links

logger = logging.getLogger(__name__)

CONNECTIONS: Final = 10
WAIT_SECONDS: Final = 3.0
BROKER_SECONDS: Final = 2.0
"""A wake-up stands between a provider and its answer: one that takes longer is the sweep's."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the doors share."""

    database: Database
    pools: Pools
    waker: Waker
    broker_url: str | None = field(default=None, repr=False)
    links: Links | None = None
    """Reads links to unsubscribe; None where no key is set."""


@contextmanager
def opened(settings: Settings) -> Iterator[Parts]:
    """Open them, follow the configuration while the block runs, and let go of them at its end.

    PostgreSQL may be away: the doors say so until it is there.

    Raises:
        NotifyError: a setting or the configuration is wrong, or the schema is older than this version.
    """
    url, broker = settings.need_database_url(), Broker(settings.need_broker_url(), timeout=BROKER_SECONDS)
    configuration = check_start(settings, ())
    try:
        migrate.check(url)
    except DatabaseError as error:
        logger.warning("PostgreSQL is away (%s): until it is there, everything is answered with 503", error)
    database = Database(url, connections=CONNECTIONS, wait=WAIT_SECONDS, name="notify-gateway")
    pools = Pools(configuration, inbox=NoInbox())
    reloader = Reloader(
        settings,
        pools,
        channels=(),
        database=database,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        changed=lambda: None,
    )
    reloader.start()
    try:
        yield Parts(
            database,
            pools,
            Waker(broker),
            settings.broker_url,
            links(settings.secret_key, settings.public_url),
        )
    finally:
        reloader.stop()
        pools.close()
        database.close()
        broker.close()
