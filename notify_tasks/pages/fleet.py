"""What the fleet's database knows of what arrived: whose it is, how it stands, its timeline, the in-app inbox.

The far end shows messages without any of this, so nothing here may stop it: a database that is not named, not there
yet or away is a sentence on the page.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from notify_tasks import settings
from notify_tasks.errors import NotifyError
from notify_tasks.sandbox.kept import Arrival, Kept
from notify_tasks.states import FINAL
from notify_tasks.store import arrived, statuses
from notify_tasks.store.arrived import InboxMessage, Linked
from notify_tasks.store.database import Database, DatabaseError
from notify_tasks.store.statuses import Status

LOOK_EVERY: Final = 1.0
LOOK_SOON: Final = 0.15
"""After something arrived: its delivery moves right now."""
MOST_ASKED: Final = 500
"""Deliveries in one question; the newest that have not ended."""
REPORTED_WITHIN: Final = timedelta(minutes=10)
"""So long a delivery that was sent is asked for again: most receipts are there by then."""
MOST_OPEN: Final = 16
"""Timelines that are watched."""
MOST_LINKS: Final = 12_000
UNSET: Final = "unset"
COMING: Final = "coming"
AWAY: Final = "away"
UP: Final = "up"


@dataclass(slots=True)
class Changes:
    """What one look found."""

    arrived: bool = False
    states: list[str] = field(default_factory=list)
    """Ids of arrivals whose delivery has moved."""
    timelines: list[str] = field(default_factory=list)
    """Message ids of which there is something new to tell."""

    def __bool__(self) -> bool:
        return self.arrived or bool(self.states or self.timelines)


class Fleet:
    """The fleet behind a far end, as far as its database tells.

    Args:
        kept: what arrived; in-app messages are added to it.
    """

    def __init__(self, kept: Kept) -> None:
        self.state = UNSET
        self.problem = ""
        self.links: dict[str, Linked] = {}
        self._kept = kept
        self._database: Database | None = None
        self._begun = time.monotonic()
        self._since: datetime | None = None
        self._pulses: OrderedDict[tuple[str, str], tuple[Any, ...]] = OrderedDict()
        self._looking = asyncio.Lock()
        self._opening = threading.Lock()

    def of(self, arrival: Arrival) -> Linked | None:
        """The delivery of an arrival, where it is known."""
        return self.links.get(arrival.delivery_id or "")

    def forget(self) -> None:
        """In-app messages from before now are of no more interest."""
        self._begun = time.monotonic()
        self._since = None
        self.links.clear()

    async def look(self) -> Changes:
        """Ask the database once. It never raises: `state` and `problem` tell how it went."""
        async with self._looking:
            arrivals: dict[str, list[str]] = {}
            recent = datetime.now(UTC) - REPORTED_WITHIN
            young: set[str] = set()
            for _, arrival in self._kept.newest():
                if arrival.delivery_id and _is_uuid(arrival.delivery_id):
                    arrivals.setdefault(arrival.delivery_id, []).append(arrival.id)
                    if arrival.at > recent:
                        young.add(arrival.delivery_id)
            asked = [id_ for id_ in arrivals if self._is_unsettled(id_, young)][:MOST_ASKED]
            changes = Changes()
            try:
                items, links = await asyncio.to_thread(self._look, asked, changes)
            except (
                NotifyError
            ) as error:  # a file with the address that is not written yet, or settings to mend
                self.state, self.problem = COMING, str(error)
                return changes
            except DatabaseError as error:
                self.state, self.problem = AWAY, str(error)
                return changes
        for link in links:
            if self.links.get(link.delivery_id) != link:
                self.links[link.delivery_id] = link
                changes.states += arrivals.get(link.delivery_id, [])
        for item in items:
            self._take(item, changes)
        if len(self.links) > MOST_LINKS:
            there = {arrival.delivery_id for _, arrival in self._kept.newest()}
            self.links = {id_: link for id_, link in self.links.items() if id_ in there}
        return changes

    async def timeline(self, arrival: Arrival) -> Status | None:
        """The notification that an arrival belongs to, and watch it from now on. None where it is not known.

        Raises:
            DatabaseError: the database is away.
        """
        link = self.of(arrival)
        if link is None or self._database is None:
            return None
        status = await asyncio.to_thread(self._status, self._database, link)
        for it in status.deliveries if status else ():
            known = self.links.get(str(it.id))
            if known is not None:  # this is newer than what was asked for last
                self.links[str(it.id)] = replace(known, state=it.state)
        return status

    async def close(self) -> None:
        """Let go of the database."""
        if self._database is not None:
            await asyncio.to_thread(self._database.close)

    def _is_unsettled(self, delivery_id: str, young: AbstractSet[str]) -> bool:
        # What was sent may be followed by a receipt; a late one shows in an open timeline, which has its own pulse.
        known = self.links.get(delivery_id)
        return known is None or known.state not in FINAL or (known.state == "sent" and delivery_id in young)

    def _take(self, item: InboxMessage, changes: Changes) -> None:
        id_ = f"inapp-{item.delivery_id}"
        if self._kept.get(id_) is not None:
            return
        changes.arrived = True
        self._kept.add(
            Arrival(
                id=id_,
                at=item.created_at.astimezone(UTC),
                channel="inapp",
                protocol="database",
                to=item.recipient_id,
                raw=json.dumps(item.data, ensure_ascii=False).encode(),
                delivery_id=item.delivery_id,
                code="stored",
            )
        )

    # --- in a thread of their own ---------------------------------------------------------------------

    def _look(self, asked: list[str], changes: Changes) -> tuple[list[InboxMessage], list[Linked]]:
        database = self._open()
        if database is None:
            self.state = UNSET
            return [], []
        if self._since is None:
            self._since = arrived.moments_ago(database, time.monotonic() - self._begun)
        items = arrived.inbox(database, self._since)
        for tenant in {tenant for tenant, _ in self._pulses}:
            self._feel(database, tenant, changes)
        moved = [link.delivery_id for link in self.links.values() if link.message_id in changes.timelines]
        links = arrived.linked(database, [*asked, *moved]) if asked or moved else []
        self.state, self.problem = UP, ""
        return items, links

    def _open(self) -> Database | None:
        with self._opening:  # a look that took too long may still be at it
            if self._database is None:
                settings.reset()  # the file that names the database may have come since
                url = settings.get().database_url
                if url is not None:
                    self._database = Database(url, connections=2, wait=3.0, name="notify-page")
            return self._database

    def _feel(self, database: Database, tenant: str, changes: Changes) -> None:
        ids = [message_id for of, message_id in self._pulses if of == tenant]
        for message_id, pulse in arrived.pulse(database, tenant, ids).items():
            if self._pulses.get((tenant, message_id)) != pulse:
                self._pulses[tenant, message_id] = pulse
                changes.timelines.append(message_id)

    def _status(self, database: Database, link: Linked) -> Status | None:
        key = (link.tenant, link.message_id)
        self._pulses[key] = arrived.pulse(database, link.tenant, [link.message_id]).get(link.message_id, ())
        self._pulses.move_to_end(key)
        while len(self._pulses) > MOST_OPEN:
            self._pulses.popitem(last=False)
        delivery = uuid.UUID(link.delivery_id)
        for status in statuses.read(database, link.message_id, tenant=link.tenant).notifications:
            if any(it.id == delivery for it in status.deliveries):
                return status
        return None


async def watch(
    fleet: Fleet, woken: asyncio.Event, watched: Callable[[], bool], tell: Callable[[Changes], None]
) -> None:
    """Look again and again while somebody watches, soon after something arrived; runs until it is cancelled.

    Args:
        fleet: what to look at.
        woken: set where something arrived.
        watched: whether anybody has the page open.
        tell: called with what was found.
    """
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY):
                await woken.wait()
                woken.clear()
                await asyncio.sleep(LOOK_SOON)
        if watched():
            before = (fleet.state, fleet.problem)
            changes = await fleet.look()
            if changes or before != (fleet.state, fleet.problem):
                tell(changes)


def _is_uuid(text: str) -> bool:
    with suppress(ValueError):
        return str(uuid.UUID(text)) == text.lower()
    return False
