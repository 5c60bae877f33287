"""A worker's parts without Celery, on real databases, with types of the test's own and providers that do as told.

The providers are scripted in this process, because what is tested needs exact moments: a lease that ends during a
call, an answer that comes after another worker's. How real far ends behave is the contract tests' matter.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from channels.contract import Accepted, Capability, ChannelError, Deadline, Message
from notify_tasks.delivery import Deliverer
from notify_tasks.gates import Gates
from notify_tasks.intake import Intake
from notify_tasks.judging import Taken
from notify_tasks.notification import Notification
from notify_tasks.outcomes import Outcome
from notify_tasks.providers import Configured, Pools
from notify_tasks.rendering import Catalog
from notify_tasks.routing import queue_for
from notify_tasks.store import deliveries
from notify_tasks.store.database import Database, DatabaseAway
from notify_tasks.store.sweeps import Wake
from notify_tasks.watchdog import Watchdog
from tests.integration.core_world import World

_POLICY = """
category = "test"
channels = ["sms", "push"]
lane = "{lane}"
expires = "1h"
on_doubt = "{on_doubt}"

[payload]
type = "object"
required = ["n"]
[payload.properties]
n = {{ type = "integer" }}
"""


def write_type(root: Path, name: str, *, lane: str = "normal", on_doubt: str = "resend") -> Path:
    """A type's folder that goes over sms and push."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "notification.toml").write_text(_POLICY.format(lane=lane, on_doubt=on_doubt))
    (folder / "example.json").write_text('{"n": 1}')
    (folder / "sms.txt").write_text(
        "Ping {{ payload.n }}{% if payload.n == 13 %}{{ payload.missing }}{% endif %}"
    )
    (folder / "push.json").write_text('{"title": "Ping {{ payload.n }}"}')
    return folder


Act = Accepted | ChannelError | Exception | Callable[[Message, Deadline], Accepted]


@dataclass(slots=True)
class Script:
    """A provider that answers as it was told, and accepts when it was told nothing."""

    kind: Capability = Capability.OPAQUE
    acts: deque[Act] = field(default_factory=deque)
    sent: list[Message] = field(default_factory=list)
    """Every request that it saw, accepted or not."""
    accepted: list[str] = field(default_factory=list)
    """Idempotency keys of the requests it accepted, in their order."""
    asked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def will(self, *acts: Act) -> None:
        """Play these next."""
        self.acts.extend(acts)

    @property
    def capability(self) -> Capability:
        return self.kind

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        with self.lock:
            self.sent.append(message)
            act = self.acts.popleft() if self.acts else Accepted(f"p-{len(self.sent)}", "202")
        if isinstance(act, Exception):
            raise act
        answer = act if isinstance(act, Accepted) else act(message, deadline)
        with self.lock:
            self.accepted.append(message.idempotency_key)
        return answer

    def close(self) -> None:
        """There is nothing to close."""


class Queryable(Script):
    """A scripted provider that can be asked."""

    def find(self, message: Message, deadline: Deadline) -> Accepted | None:
        deadline.remaining()
        self.asked += 1
        return Accepted("found", "200") if message.idempotency_key in self.accepted else None


@dataclass(slots=True)
class Shop:
    """A worker's parts. `wakes` has what was to be published, `aways` each report of an absent database."""

    types: Path
    pools: Pools
    gates: Gates
    deliverer: Deliverer
    intake: Intake
    scripts: dict[str, Script]
    wakes: list[Wake]
    aways: list[DatabaseAway]

    def provider(self, name: str) -> Configured:
        """A configured provider."""
        found = self.pools.get(name)
        assert found is not None
        return found

    def take(self, notification: Notification, queue: str | None = None) -> Taken:
        """Accept a call that came on its queue."""
        return self.intake.take(
            notification,
            queue=queue
            or queue_for(
                notification.channels[0]
                if notification.channels and len(notification.channels) == 1
                else "intake"
            ),
        )

    def send(self, notification: Notification) -> Outcome:
        """Accept a call in one hop and perform it."""
        taken = self.take(notification)
        assert taken.claimed is not None, taken
        return self.deliverer.go_on(self.deliverer.perform(taken.claimed, asked=taken.asked))

    def deliver(self, id_: Any) -> Outcome | None:
        """What a wake-up does; None where nothing waits."""
        waiting = self.deliverer.read([id_])
        return self.deliverer.deliver(waiting[0]) if waiting else None


@contextmanager
def shop(
    root: Path,
    db: Database,
    *,
    kinds: Iterable[Capability] = (Capability.OPAQUE,),
    threads: int = 8,
    unknown_type_wait: float = 900.0,
    worker: str = "worker-1",
    timeout: float = 10.0,
    channel: str = "sms",
) -> Iterator[Shop]:
    """Open a worker's parts.

    Args:
        root: takes the types; `test.ping` is there.
        db: the worker's database.
        kinds: one provider for each, in fallback order: `a`, `b`, ...
        threads: of the process.
        unknown_type_wait: as the setting.
        worker: its name.
        timeout: of each provider, in seconds.
        channel: which the providers carry.
    """
    types = root / "types"
    if not (types / "test.ping").is_dir():
        write_type(types, "test.ping")
    scripts = {
        name: (Queryable if kind is Capability.QUERYABLE else Script)(kind)
        for name, kind in zip("abcdef", kinds, strict=False)
    }
    pool = [{"provider": name, "weight": 0 if index else 1} for index, name in enumerate(scripts)]
    pools = Pools(
        {
            "providers": {name: {"use": f"{channel}.sandbox", "timeout": timeout} for name in scripts},
            "channels": {channel: {"pool": pool}},
        }
    )
    for name, script in scripts.items():
        configured = pools.get(name)
        assert configured is not None
        configured._held.built = script
    wakes: list[Wake] = []
    aways: list[DatabaseAway] = []

    def wake(more: Sequence[Wake]) -> None:
        wakes.extend(more)

    gates = Gates(pools, threads=threads, channels=("sms", "push"), pauses=lambda: deliveries.read_pauses(db))
    catalog = Catalog(types, recheck=0.0)
    deliverer = Deliverer(
        database=db,
        pools=pools,
        catalog=catalog,
        gates=gates,
        watchdog=Watchdog(lambda: None),
        worker=worker,
        away=aways.append,
    )
    intake = Intake(
        database=db,
        catalog=catalog,
        gates=gates,
        wake=wake,
        unknown_type_wait=unknown_type_wait,
        worker=worker,
        run_again=deliverer.until_written,
    )
    yield Shop(types, pools, gates, deliverer, intake, scripts, wakes, aways)
    pools.close()


def stopped_for(seconds: float) -> float:
    """The monotonic time of a claim that was asked for before the process stood still for so long."""
    return time.monotonic() - seconds


def one_row(it: World) -> dict[str, Any]:
    """The only delivery."""
    (row,) = it.rows("SELECT * FROM notify.delivery")
    return row
