"""What the sandbox page shows, as values: rows of the list, one message, a timeline, how the targets behave."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from notify_tasks.pages.fleet import Fleet
from notify_tasks.pages.reading import Reading, haystack, matches, read
from notify_tasks.routing import CHANNELS
from notify_tasks.sandbox.kept import Arrival, Kept
from notify_tasks.store.arrived import Linked
from notify_tasks.store.statuses import DeliveryStatus, Status
from notify_tasks.terminal.looks import MARKS, duration, word
from notify_tasks.terminal.timeline import Moment, moments, pending, whom

AT_ONCE: Final = 100
"""Rows that are shown at once."""
NAMES: Final = {
    "email": "Mail",
    "sms": "SMS",
    "push": "Push",
    "webpush": "Web push",
    "inapp": "In-app",
    "webhook": "Webhook",
    "chat": "Chat",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list."""

    n: int
    id: str
    channel: str
    name: str
    whom: str = field(repr=False)
    title: str = field(repr=False)
    words: str = field(repr=False)
    at: datetime
    state: str
    mark: str
    word: str
    again: bool
    attachments: int
    unread: bool
    provider: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """A part of the list.

    Args:
        rows: the newest first.
        more: there are older ones.
        found: how many there are, over all parts.
        counts: by channel, over everything that the query finds.
    """

    rows: tuple[Row, ...]
    more: bool
    found: int
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a timeline."""

    state: str
    mark: str
    what: str
    since: str
    at: datetime
    detail: str
    next: bool = False


@dataclass(frozen=True, slots=True)
class Sibling:
    """Another delivery of the same notification; `id` is that of its message, where it has arrived."""

    channel: str
    whom: str
    state: str
    mark: str
    word: str
    id: str | None


@dataclass(frozen=True, slots=True)
class Story:
    """What became of a delivery."""

    status: Status
    delivery: DeliveryStatus
    lines: tuple[Line, ...]
    siblings: tuple[Sibling, ...]
    took: str | None


class Shelf:
    """What arrived, read and searched.

    Args:
        kept: what arrived.
        fleet: what the fleet knows of it.
    """

    def __init__(self, kept: Kept, fleet: Fleet) -> None:
        self.kept = kept
        self.fleet = fleet
        self._readings: dict[str, Reading] = {}
        self._opened: set[str] = set()

    def reading(self, arrival: Arrival) -> Reading:
        """An arrival, read once."""
        found = self._readings.get(arrival.id)
        if found is None:
            if len(self._readings) > 2 * len(self.kept) + AT_ONCE:  # most of them have been let go
                self._readings.clear()
            found = self._readings[arrival.id] = read(arrival)
        return found

    def open(self, arrival: Arrival) -> None:
        """It has been looked at."""
        self._opened.add(arrival.id)

    def clear(self) -> None:
        """Let go of everything."""
        self.kept.clear()
        self.fleet.forget()
        self._readings.clear()
        self._opened.clear()

    def newest(self) -> list[tuple[int, Arrival]]:
        """Everything, the newest first. In-app messages are found some time after they came."""
        return sorted(self.kept.newest(), key=lambda each: (each[1].at, each[0]), reverse=True)

    # --- the list -------------------------------------------------------------------------------------

    def row(self, n: int, arrival: Arrival) -> Row:
        """One line."""
        reading, link = self.reading(arrival), self.fleet.of(arrival)
        state, said = _state(arrival, link)
        return Row(
            n=n,
            id=arrival.id,
            channel=arrival.channel,
            name=NAMES.get(arrival.channel, arrival.channel),
            whom=(link.recipient_id if link else None) or arrival.to,
            title=reading.title or reading.words or "(empty)",
            words=reading.words if reading.title else "",
            at=arrival.at,
            state=state,
            mark=MARKS.get(state, MARKS["sent"]),
            word=said,
            again=arrival.again,
            attachments=reading.attachments,
            unread=arrival.id not in self._opened,
            provider=reading.provider,
        )

    def rows(
        self,
        arrivals: list[tuple[int, Arrival]],
        *,
        query: str = "",
        channel: str = "",
        before: str | None = None,
    ) -> Rows:
        """What a search finds. It may take long with thousands of mails: run it in a thread.

        Args:
            arrivals: `shelf.newest()`, taken on the event loop.
            query: words that must all be there; empty for all.
            channel: only this one; empty for all.
            before: only what stands below the arrival with this id.
        """
        counts: Counter[str] = Counter()
        shown: list[Row] = []
        found = later = 0
        below = before is None
        for n, arrival in arrivals:
            if query and not matches(self._haystack(arrival), query):
                continue
            counts[arrival.channel] += 1
            if channel and arrival.channel != channel:
                continue
            found += 1
            if below is False:
                later += 1
                below = arrival.id == before
            elif len(shown) < AT_ONCE:
                shown.append(self.row(n, arrival))
        return Rows(tuple(shown), found - later > len(shown), found, _in_order(counts))

    def counts(self) -> dict[str, int]:
        """How many there are, by channel."""
        return _in_order(Counter(arrival.channel for _, arrival in self.kept.newest()))

    def _haystack(self, arrival: Arrival) -> str:
        link = self.fleet.of(arrival)
        known = (link.recipient_id, link.event_type, link.message_id, link.state) if link else ()
        return haystack(arrival, self.reading(arrival), *known, NAMES.get(arrival.channel))

    # --- one message ----------------------------------------------------------------------------------

    def view(self, arrival: Arrival) -> dict[str, Any]:
        """What the templates of one message fill in."""
        reading = self.reading(arrival)
        return {
            "arrival": arrival,
            "row": self.row(0, arrival),
            "reading": reading,
            "mail": reading.mail,
            "data": reading.data,
            "pretty": json.dumps(reading.data or reading.request, indent=2, ensure_ascii=False),
            "request": json.dumps(reading.request, indent=2, ensure_ascii=False),
            "segments": reading.segments if arrival.channel == "sms" else None,
        }

    async def story(self, arrival: Arrival) -> Story | None:
        """What became of its delivery; None where the fleet does not know it.

        Raises:
            DatabaseError: the database is away.
        """
        status = await self.fleet.timeline(arrival)
        if status is None:
            return None
        own = next(it for it in status.deliveries if str(it.id) == arrival.delivery_id)
        ended = next((it.at for it in reversed(own.events) if it.kind == own.state), None)
        if ended is None and own.state in {"sent", "delivered"} and own.attempts:
            ended = own.attempts[-1].ended_at
        return Story(
            status,
            own,
            tuple(_lines(status, own)),
            tuple(self._siblings(status, own)),
            None if ended is None else duration(max(0.0, (ended - status.accepted_at).total_seconds())),
        )

    def _siblings(self, status: Status, own: DeliveryStatus) -> Iterator[Sibling]:
        others = {str(it.id) for it in status.deliveries} - {str(own.id)}
        arrived = {it.delivery_id: it.id for _, it in self.kept.newest() if it.delivery_id in others}
        for it in status.deliveries:
            if it.id != own.id:
                yield Sibling(
                    it.channel,
                    it.recipient_id or it.address,
                    it.state,
                    MARKS.get(it.state, "·"),
                    word(it.state),
                    arrived.get(str(it.id)),
                )


def _in_order(counts: Counter[str]) -> dict[str, int]:
    return {each: counts[each] for each in CHANNELS if counts[each]}


def _state(arrival: Arrival, link: Linked | None) -> tuple[str, str]:
    """State and word: the delivery's, or else what the far end did."""
    if link is not None:
        return link.state, word(link.state)
    if arrival.code is None:
        return "in_doubt", "taken, no answer"
    return "taken", "taken"


def _lines(status: Status, own: DeliveryStatus) -> Iterator[Line]:
    """The notification's own moments, and those of one of its deliveries."""
    alone = replace(status, deliveries=[own])
    about = [it for it in moments(status) if not it.whom]
    about += [it for it in moments(alone) if it.whom == whom(own)]
    for moment in sorted(about, key=lambda it: it.at):
        yield _line(status, moment)
    for moment in pending(alone, datetime.now(UTC)):
        yield _line(status, moment, later=True)


def _line(status: Status, moment: Moment, *, later: bool = False) -> Line:
    since = "next" if later else duration(max(0.0, (moment.at - status.accepted_at).total_seconds()))
    return Line(
        moment.state,
        MARKS.get(moment.state, "·"),
        word(moment.what),
        since,
        moment.at,
        moment.detail,
        next=later,
    )
