"""Receipts: what providers report is verified, kept, and then applied. No Celery, no HTTP.

Whoever takes one in (the gateway, `notify receipts take`) calls `take`, and has then a committed row for each event;
`Waker` tells a worker, and the sweep does so where that is lost. A worker calls `apply`.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

from channels.receipts import Event, Receipt, Reporting, Unreadable
from notify_tasks import contacts, metering
from notify_tasks.broker import Broker, BrokerError
from notify_tasks.errors import InvalidCall
from notify_tasks.messages import Outgoing
from notify_tasks.metrics import OTHER
from notify_tasks.notification import uuid7
from notify_tasks.providers import Configured, Pools
from notify_tasks.routing import RECEIPTS_QUEUE, RECEIPTS_TASK
from notify_tasks.store import receipts as stored
from notify_tasks.store import receipts_seen, sweeps
from notify_tasks.store.database import BadRow, Database, DatabaseError
from notify_tasks.store.receipts import Applied, Kept
from notify_tasks.store.receipts_seen import Raw

logger = logging.getLogger(__name__)

IDS_A_MESSAGE: Final = 200
AGAIN_AFTER: Final = 5.0
"""Seconds without a wake-up after one could not be published: each would wait for Redis, and the sweep does it."""
LOOK: Final = "`notify receipts list` shows them"

_SECRET_QUERY: Final = re.compile(r"((?:^|&)[^=&]*(?:key|secret|sig|token)[^=&]*=)[^&]*", re.IGNORECASE)
_SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})


# --- in -----------------------------------------------------------------------------------------------


@contextmanager
def reporting(pools: Pools, name: str) -> Iterator[tuple[str, Reporting] | None]:
    """A provider that reports back, open for the block, with its channel; None where there is no such one.

    Args:
        pools: the configuration in force.
        name: the provider's, as configured.

    Raises:
        Misconfigured: it cannot be built here: an option is wrong, or a secret is missing.
    """
    # One that is switched off still reports on what it has sent.
    configured: Configured | None = next((it for it in pools.all() if it.name == name), None)
    if configured is None:
        yield None
        return
    with configured.in_use() as provider:
        channel = configured.use.partition(".")[0]
        yield (channel, provider) if isinstance(provider, Reporting) else None


def take(database: Database, name: str, channel: str, provider: Reporting, receipt: Receipt) -> Kept:
    """Verify what came, read it, and commit it: nothing forged is kept, and nothing verified is lost.

    Args:
        database: the store.
        name: of the provider, as configured.
        channel: the provider's.
        provider: the provider itself.
        receipt: as it came.

    Raises:
        Forged: the provider did not send it.
        DatabaseError: it may not have been kept: the provider must send it again.
    """
    provider.verify(receipt)
    raw = pack(receipt)
    try:
        kept = stored.keep(database, name, channel, _read(channel, provider, receipt), raw)
    except Unreadable as error:
        kept = stored.keep_unreadable(database, name, channel, raw, str(error) or "it cannot be read")
        _tell_unreadable(name, kept)
    except BadRow as error:
        kept = stored.keep_unreadable(database, name, channel, raw, f"the database refuses it: {error}")
        _tell_unreadable(name, kept)
    _tell_unknown(name, kept)
    return kept


def _read(channel: str, provider: Reporting, receipt: Receipt) -> list[Event]:
    try:
        return [_usual(channel, event) for event in provider.events(receipt)]
    except Unreadable:
        raise
    except Exception as error:  # noqa: BLE001 - verified, so it is kept whatever is wrong with its reader
        raise Unreadable(f"reading it failed ({type(error).__name__})") from None


def _usual(channel: str, event: Event) -> Event:
    """With its address in the form in which addresses are stored and compared."""
    if event.address is None:
        return event
    try:
        return replace(event, address=contacts.contact_point(channel, event.address, "address"))
    except InvalidCall:
        return event


def _tell_unreadable(name: str, kept: Kept) -> None:
    if not kept.repeated:
        logger.error("a receipt of %s cannot be read and is kept: %s", name, LOOK)


def _tell_unknown(name: str, kept: Kept) -> None:
    if kept.unknown:
        logger.error(
            "receipts of %s with a status that this version does not know: %d (numbers %s); %s",
            name, len(kept.unknown), ", ".join(map(str, kept.unknown[:10])), LOOK,
        )  # fmt: skip


def pack(receipt: Receipt) -> bytes:
    """A receipt as it is stored: a line of JSON, then its body. Without what proves who asked."""
    headers = {name: value for name, value in receipt.headers.items() if name not in _SECRET_HEADERS}
    query = _SECRET_QUERY.sub(r"\1", receipt.query)
    about = {"method": receipt.method, "query": query, "headers": headers}
    return json.dumps(about).encode() + b"\n" + receipt.body


def unpack(raw: bytes) -> Receipt:
    """The reverse of `pack`."""
    line, _, body = raw.partition(b"\n")
    about = json.loads(line)
    return Receipt(about["method"], about["query"], about["headers"], body)


# --- waking -------------------------------------------------------------------------------------------


def messages(ids: Sequence[int]) -> list[Outgoing]:
    """The wake-ups for these receipts."""
    return [
        Outgoing(RECEIPTS_TASK, [some], RECEIPTS_QUEUE, str(uuid7()), argsrepr=f"({len(some)} receipts)")
        for start in range(0, len(ids), IDS_A_MESSAGE)
        for some in [list(ids[start : start + IDS_A_MESSAGE])]
    ]


class Waker:
    """Tells workers of receipts that were kept, at best effort: where that fails, the sweep does it.

    Args:
        broker: the Redis to publish on.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._not_before = 0.0

    def wake(self, ids: Sequence[int]) -> None:
        """Publish these. Safe among threads."""
        if not ids or time.monotonic() < self._not_before:
            return
        try:
            self._broker.publish(messages(ids))
        except BrokerError as error:
            self._not_before = time.monotonic() + AGAIN_AFTER
            logger.warning("receipts not announced (%s): %d; the sweep will", type(error).__name__, len(ids))


REFUSALS_EVERY: Final = 10.0
FORGED_COUNTER: Final = "receipts_forged"
"""A total, which `notify doctor` shows."""


class Refusals:
    """Counts what is refused at the door, and tells of it: at once, then at most every ten seconds for each reason.

    Whoever sends forged receipts by the thousand gets neither a line nor a write for each.

    Args:
        database: takes the total, at best effort.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._told: dict[tuple[str, str], float] = {}

    def count(self, name: str, code: str) -> None:
        """One of `name`, a provider that there is, was refused for the reason `code`."""
        now, reason = time.monotonic(), (name, code)
        with self._lock:
            self._counts[reason] += 1
            told = self._told.get(reason)
            if told is not None and now - told < REFUSALS_EVERY:
                return
            self._told[reason] = now
            count = self._counts.pop(reason)
        logger.warning("receipts refused for %s (%s): %d", name, code, count)
        with suppress(DatabaseError):
            sweeps.count(self._database, FORGED_COUNTER, count)


# --- applying -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """What became of some receipts.

    Args:
        of: how many were asked for.
        applied: how many have had their effect.
        moved: how many deliveries they have moved.
        waiting: how many are tried again later.
        unmatched: how many were given up: no delivery is theirs.
        refused: how many PostgreSQL refuses.
    """

    of: int
    applied: int = 0
    moved: int = 0
    waiting: int = 0
    unmatched: int = 0
    refused: int = 0

    def __str__(self) -> str:
        names = ("applied", "moved", "waiting", "unmatched", "refused")
        said = ", ".join(f"{name} {value}" for name in names if (value := getattr(self, name)))
        return f"{said or 'nothing to do'} of {self.of}"


def apply(database: Database, ids: Sequence[int]) -> Done:
    """Apply receipts. One that PostgreSQL refuses is put aside; its neighbours are unharmed.

    Raises:
        DatabaseAway: nothing is lost: the sweep comes back to them.
    """
    wanted = list(dict.fromkeys(ids))
    try:
        found, refused = stored.apply(database, wanted), 0
    except BadRow:
        found, refused = [], 0
        for id_ in wanted:
            one = _apply_alone(database, id_)
            refused += one is None
            found += one or []
    _tell_unmatched(found)
    by_state = Counter(it.state for it in found)
    for (provider, state), number in Counter((it.provider, it.state) for it in found).items():
        metering.receipts(provider, state, number)
    if refused:
        metering.receipts(OTHER, "refused", refused)
    return Done(
        of=len(wanted),
        applied=by_state["applied"],
        moved=sum(it.moved is not None for it in found),
        waiting=by_state["waiting"],
        unmatched=by_state["unmatched"],
        refused=refused,
    )


def _apply_alone(database: Database, id_: int) -> list[Applied] | None:
    try:
        return stored.apply(database, [id_])
    except BadRow as error:
        stored.refuse(database, id_, f"the database refuses it: {error}")
        logger.error("receipt %d cannot be applied and is put aside: %s", id_, LOOK)  # noqa: TRY400 - private
        return None


def _tell_unmatched(found: Sequence[Applied]) -> None:
    for name, count in Counter(it.provider for it in found if it.state == "unmatched").items():
        logger.error("receipts of %s about nothing that this fleet has sent: %d; %s", name, count, LOOK)


# --- again --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReadAgain:
    """What reading one receipt again has given.

    Args:
        kept: its events; None where it could not be read.
        problem: why it could not be read again.
    """

    id: int
    kept: Kept | None
    problem: str = ""


def again(database: Database, pools: Pools, ids: Sequence[int]) -> list[ReadAgain]:
    """Read receipts in trouble again, by the tables of this version; unmatched ones look for their delivery anew.

    They were verified when they came. The caller wakes what is new.

    Raises:
        Misconfigured: a provider cannot be built here.
        DatabaseAway: those that are done stay done.
    """
    return [_again(database, pools, found) for found in receipts_seen.read_raw(database, ids)]


def _again(database: Database, pools: Pools, found: Raw) -> ReadAgain:
    if found.state == "unmatched":
        return ReadAgain(found.id, Kept(tuple(receipts_seen.try_anew(database, [found.id]))))
    if found.raw is None:
        return ReadAgain(found.id, None, "what the provider said is not kept any more")
    with reporting(pools, found.provider) as opened:
        if opened is None:
            return ReadAgain(
                found.id, None, f"notify.toml has no provider {found.provider} that reports back"
            )
        channel, provider = opened
        try:
            events = _read(channel, provider, unpack(found.raw))
        except Unreadable as error:
            return ReadAgain(found.id, None, str(error) or "it cannot be read")
    return ReadAgain(found.id, receipts_seen.replace(database, found, events))
