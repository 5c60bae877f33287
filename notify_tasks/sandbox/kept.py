"""What arrived, with its contents, for the page that shows it: the newest of it, in memory, gone with the process.

The log is something else: it is kept, it has every request, and it has no contents.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

MOST_MESSAGES: Final = 5000
MOST_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One message that a person would have got.

    Args:
        id: of the effect (`sms-12`); an in-app message's is `inapp-` and its delivery.
        at: when it came, UTC.
        channel: `email`, `sms` and so on.
        protocol: `smtp`, `http`, the wire that took it (`twilio`), or `database` for what never crosses one.
        to: the recipient's address, or a person's id where the channel has no addresses.
        raw: as it came: the mail, or the body of the request; opened, where it came encrypted or not in the body.
        headers: of the HTTP request; a mail has its own in `raw`.
        delivery_id: the fleet's, where the sender told it.
        code: what was answered; None where the sender got no answer.
        mode: what the far end played.
        again: this delivery had arrived before.
    """

    id: str
    at: datetime
    channel: str
    protocol: str
    to: str = field(repr=False)
    raw: bytes = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    delivery_id: str | None = None
    code: str | None = None
    mode: str = "ok"
    again: bool = False


class Kept:
    """The newest arrivals.

    Args:
        most: so many at most.
        most_bytes: of contents, so many at most.
    """

    def __init__(self, most: int = MOST_MESSAGES, most_bytes: int = MOST_BYTES) -> None:
        self.most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._arrivals: OrderedDict[str, tuple[int, Arrival]] = OrderedDict()
        self._n = 0
        self.dropped = 0
        self.watch: Callable[[], None] = lambda: None
        """Called after each change."""

    def add(self, arrival: Arrival) -> None:
        """Keep one, and let go of the oldest where there are too many. One that is there already stays as it is."""
        if arrival.id in self._arrivals:
            return
        self._n += 1
        self._arrivals[arrival.id] = (self._n, arrival)
        self._bytes += len(arrival.raw)
        while len(self._arrivals) > self.most or (self._bytes > self._most_bytes and len(self._arrivals) > 1):
            _, (_, oldest) = self._arrivals.popitem(last=False)
            self._bytes -= len(oldest.raw)
            self.dropped += 1
        self.watch()

    def clear(self) -> None:
        """Let go of all."""
        self._arrivals.clear()
        self._bytes = 0
        self.dropped = 0
        self.watch()

    def get(self, id_: str) -> Arrival | None:
        found = self._arrivals.get(id_)
        return found[1] if found else None

    @property
    def last(self) -> int:
        """The number of the newest one; it counts from 1, and on after `clear`."""
        return self._n

    def newest(self, after: int = 0) -> Iterator[tuple[int, Arrival]]:
        """Number and arrival, the newest first, down to the one after number `after`."""
        for number, arrival in reversed(self._arrivals.values()):
            if number <= after:
                return
            yield number, arrival

    def __len__(self) -> int:
        return len(self._arrivals)
