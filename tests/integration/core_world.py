"""What the tests of the store and of the work on top of it share: calls, deliveries, clocks put forward, and a
TCP proxy that cuts a connection at a chosen moment."""

from __future__ import annotations

import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import psycopg

from notify_tasks import planning
from notify_tasks.calls import build_notification
from notify_tasks.event_type import EventType
from notify_tasks.notification import Notification, uuid7
from notify_tasks.plans import Plan, Profile
from notify_tasks.routing import queue_for
from notify_tasks.states import State
from notify_tasks.store import accepting, deliveries
from notify_tasks.store.accepting import Claim, NewDelivery, NewNotification, Stored
from notify_tasks.store.database import Database
from notify_tasks.store.deliveries import Claimed, ClaimRequest, Result

T = TypeVar("T")

PHONE = "+4915112345678"
LEASE = 40.0
PING = EventType(name="test.ping", version="v1", channels=("sms",), on_doubt="resend")


def until(condition: Callable[[], T], what: str, seconds: float = 30) -> T:
    """Wait until a condition is true, and return what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.01)


def together(count: int, work: Callable[[int], T]) -> list[T]:
    """Run `work(0)` to `work(count - 1)` in threads that start at the same moment."""
    start = threading.Barrier(count)

    def run(n: int) -> T:
        start.wait(30)
        return work(n)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


# --- calls and deliveries -----------------------------------------------------------------------------


def call(message_id: str | None = None, **options: Any) -> Notification:
    """A checked call: one SMS to a bare number unless it says otherwise."""
    given: dict[str, Any] = {
        "event_type": "test.ping",
        "to": {"sms": PHONE},
        "channels": ["sms"],
        "payload": {"n": 1},
    }
    given |= options
    return build_notification(now=datetime.now(UTC), message_id=message_id, **given)


def planned(
    notification: Notification,
    *,
    event_type: EventType = PING,
    profiles: Mapping[str, Profile] | None = None,
    claim: Claim | None = None,
) -> NewNotification:
    """The notification as intake stores it."""
    plan: Plan = planning.plan(notification, event_type, profiles or {}, frozenset(), datetime.now(UTC))
    return NewNotification(
        id=uuid7(),
        notification=notification,
        plan=plan.explained(),
        deliveries=tuple(
            NewDelivery(uuid7(), decision, queue_for(decision.channel, decision.lane), claim)
            for decision in plan.decisions
        ),
    )


def one_claim(provider: str = "a", *, lease: float = LEASE) -> Claim:
    """What makes an accepted delivery start in the same commit."""
    return Claim(uuid7(), provider, lease, "worker-1")


@dataclass(slots=True)
class World:
    """A database with shorthands for what a worker, a sweep and an operator do."""

    db: Database
    url: str
    ids: dict[str, uuid.UUID] = field(default_factory=dict)

    def accept(self, notification: Notification | None = None, **options: Any) -> uuid.UUID:
        """Store a call with one delivery; returns the delivery's id."""
        item = planned(notification or call(), **options)
        stored: Stored = accepting.accept(self.db, [item])
        assert stored.new == {item.id}
        return item.deliveries[0].id

    def claim(self, id_: uuid.UUID, provider: str = "a", *, token: uuid.UUID | None = None) -> Claimed | None:
        """A worker's claim."""
        found = deliveries.claim(self.db, [ClaimRequest(id_, token or uuid7(), provider, LEASE, "worker-1")])
        return found[0] if found else None

    def claimed(self, id_: uuid.UUID | None = None, provider: str = "a", **options: Any) -> Claimed:
        """A delivery that a worker has."""
        found = self.claim(id_ or self.accept(**options), provider)
        assert found is not None
        return found

    def record(self, claimed: Claimed, outcome: str, state: State, **more: Any) -> deliveries.Recorded | None:
        """A worker's result."""
        found = deliveries.record(self.db, [result(claimed, outcome, state, **more)])
        return found[0] if found else None

    def end_lease(self, id_: uuid.UUID, *, knowable: Sequence[str] = ()) -> str:
        """The lease runs out and a sweep ends it; returns the state it ends in."""
        from notify_tasks.store import sweeps  # noqa: PLC0415 - only here

        self.shift(id_, lease_until=-1)
        sweeps.end_leases(self.db, knowable=knowable, limit=1000)
        return self.state(id_)

    def rows(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        """Ask PostgreSQL."""
        return self.db.rows(statement, parameters)

    def row(self, id_: uuid.UUID) -> dict[str, Any]:
        """A delivery's row."""
        return self.rows("SELECT * FROM notify.delivery WHERE id = %s", id_)[0]

    def state(self, id_: uuid.UUID) -> str:
        """A delivery's state."""
        return str(self.row(id_)["state"])

    def attempts(self, id_: uuid.UUID) -> list[dict[str, Any]]:
        """A delivery's attempts, in their order."""
        return self.rows("SELECT * FROM notify.attempt WHERE delivery_id = %s ORDER BY fence, token", id_)

    def events(self, id_: uuid.UUID) -> list[str]:
        """A delivery's (or notification's) status events, in their order."""
        found = self.rows(
            "SELECT kind FROM notify.status_event WHERE delivery_id = %s OR (delivery_id IS NULL AND"
            " notification_id = %s) ORDER BY id",
            id_,
            id_,
        )
        return [row["kind"] for row in found]

    def shift(self, id_: uuid.UUID, **columns: float | None) -> None:
        """Put a delivery's times so many seconds from now: as if the time had passed."""
        for name, seconds in columns.items():
            value = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
            self.rows(f"UPDATE notify.delivery SET {name} = %s WHERE id = %s", value, id_)


def result(claimed: Claimed, outcome: str, state: State, **more: Any) -> Result:
    """An outcome as a worker records it."""
    known: dict[str, Any] = {
        "token": claimed.token,
        "id": claimed.id,
        "fence": claimed.fence,
        "outcome": outcome,
        "state": state,
        "queue": queue_for(claimed.channel, claimed.lane),
    }
    return Result(**(known | more))


@contextmanager
def world(url: str, *, connections: int = 10, wait: float = 5.0) -> Iterator[World]:
    """A world on a database."""
    db = Database(url, connections=connections, wait=wait, name="test")
    try:
        yield World(db, url)
    finally:
        db.close()


def plain(url: str) -> psycopg.Connection[Any]:
    """A connection of the test's own, to hold locks and to look at the server."""
    return psycopg.connect(url, autocommit=True, connect_timeout=5)


def waiting_for_locks(url: str, count: int) -> Callable[[], bool]:
    """Whether so many statements wait for a lock."""

    def look() -> bool:
        with plain(url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock'"
            ).fetchone()
        return row is not None and row[0] >= count

    return look


def wanting(notification: Notification, **changes: Any) -> Notification:
    """A call as it was not checked: what a foreign producer may put into Redis."""
    return replace(notification, **changes)


# --- a network that fails at a chosen moment ------------------------------------------------------------


class Proxy:
    """Carries bytes to PostgreSQL and back, and cuts one connection when told to.

    `lose_question` cuts when a needle is seen on its way to the server, which never gets it. `lose_answer` lets
    it pass, waits for the server's next answer, throws that away and cuts: the statement was committed, and
    nobody was told. `hang_up` lets it pass and cuts the client off at once: the server still works on it.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._armed: list[tuple[str, bytes]] = []
        self.cuts = 0
        port = self._server.getsockname()[1]
        login = self._target.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._target._replace(netloc=f"{login}@127.0.0.1:{port}"))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, how: str, needle: bytes, times: int = 1) -> None:
        """Cut the next connection that carries the needle to the server."""
        with self._lock:
            self._armed += [(how, needle)] * times

    def close(self) -> None:
        self._server.close()
        for each in self._open:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                server = socket.create_connection((self._target.hostname or "", self._target.port or 5432))
            except OSError:
                return
            self._open += [client, server]
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        swallow = False
        try:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data or (swallow and ready is server):
                        return
                    if ready is server:
                        client.sendall(data)
                        continue
                    how = self._matched(data)
                    if how == "lose_question":
                        return
                    server.sendall(data)
                    if how == "hang_up":
                        client.shutdown(socket.SHUT_RDWR)
                        client.close()
                        server.recv(65536)  # the server's end stays open until it has answered
                        return
                    swallow = swallow or how == "lose_answer"
        except (OSError, ValueError):  # ValueError: a socket that the end of the test has closed
            return
        finally:
            client.close()
            server.close()

    def _matched(self, data: bytes) -> str | None:
        with self._lock:
            for armed in self._armed:
                if armed[1] in data:
                    self._armed.remove(armed)
                    self.cuts += 1
                    return armed[0]
        return None


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """A proxy in front of a database."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
