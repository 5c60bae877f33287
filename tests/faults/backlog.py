"""A channel with two far ends of its own, a backlog made in the database, and what the database does about it."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faults.fleet import RunningFleet, beat, running_fleet, workers

from notify_tasks.sandbox.log import LoggedRequest
from notify_tasks.sandbox.process import Sandbox, sandbox_process

_FILL = """
WITH n AS (
    INSERT INTO notify.notification (id, tenant, message_id, event_type, occurred_at, payload, plan, state, hash)
    SELECT gen_random_uuid(), 'default', %s || '-' || i, 'fault.ping', now(), jsonb_build_object('n', i), '{}',
           'accepted', ''
      FROM generate_series(1, %s) i
    RETURNING id, message_id)
INSERT INTO notify.delivery (id, notification_id, tenant, message_id, event_type, address, channel, lane, state,
                             on_doubt, due_at, expires_at, max_attempts)
SELECT gen_random_uuid(), id, 'default', message_id, 'fault.ping', '+4915112345678', 'sms', %s, 'held', 'hold',
       now(), now() + interval '6 hours', 8
  FROM n
"""


@dataclass(frozen=True, slots=True)
class Work:
    """What the database has done so far.

    Args:
        updates: rows of deliveries that were updated.
        attempts: rows of attempts.
        commits: transactions of whatever kind, most of them a statement each.
    """

    updates: int
    attempts: int
    commits: int

    def since(self, before: Work) -> Work:
        """What was done between the two."""
        return Work(
            self.updates - before.updates, self.attempts - before.attempts, self.commits - before.commits
        )


@dataclass(slots=True)
class Backlog:
    """A fleet whose SMS go to provider `a`, and to `b` where the configuration has one."""

    fleet: RunningFleet
    a: Sandbox
    b: Sandbox
    config: Path

    def fill(self, count: int, lane: str = "normal") -> None:
        """So many deliveries that are due now."""
        self.fleet.rows(_FILL + "RETURNING 1", lane, count, lane)

    def reconfigure(self, configuration: str) -> None:
        """Write another configuration, which the workers take within five seconds."""
        self.config.write_text(configuration.replace("{a}", self.a.http_url).replace("{b}", self.b.http_url))

    def reasons(self) -> dict[str, int]:
        """How many deliveries are in each state, for each reason."""
        rows = self.fleet.rows(
            "SELECT state || coalesce(' ' || reason, ''), count(*) FROM notify.delivery GROUP BY 1"
        )
        return {str(name): int(str(count)) for name, count in rows}

    def sent(self) -> int:
        """How many deliveries are sent."""
        return self.reasons().get("sent", 0)

    def work(self, updates: float = 0) -> Work:
        """What has been done until now.

        Args:
            updates: that there must be; a backend that is idle tells the server late what it has done.
        """
        self.fleet.wait("the server has counted it", lambda: self._work().updates >= updates, 20)
        time.sleep(1.5)
        return self._work()

    def _work(self) -> Work:
        ((updates, commits),) = self.fleet.rows(
            "SELECT (SELECT n_tup_upd FROM pg_stat_user_tables WHERE schemaname = 'notify' AND relname = 'delivery'),"
            " (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())"
        )
        ((attempts,),) = self.fleet.rows("SELECT count(*) FROM notify.attempt")
        return Work(int(str(updates)), int(str(attempts)), int(str(commits)))


def effects(sandbox: Sandbox, channel: str = "sms") -> list[LoggedRequest]:
    """What a far end took."""
    return [it for it in sandbox.requests() if it.accepted and it.channel == channel]


def most_in_a_second(requests: Sequence[LoggedRequest]) -> int:
    """The most requests that any second has seen, wherever it begins."""
    times = sorted(request.at.timestamp() for request in requests)
    return max((bisect_left(times, at + 1.0) - n for n, at in enumerate(times)), default=0)


def provider(name: str, url: str, **options: str | float) -> str:
    """A provider's table."""
    more = "".join(
        f"{key} = {value!r}\n" if isinstance(value, float | int) else f'{key} = "{value}"\n'
        for key, value in options.items()
    )
    return f'[providers.{name}]\nuse = "sms.sandbox"\nurl = "{url}"\n{more}'


@contextmanager
def backlogged(directory: Path, configuration: str, *, count: int = 2) -> Iterator[Backlog]:
    """Start a fleet on a configuration, in which `{a}` and `{b}` are the URLs of its two far ends."""
    directory.mkdir(exist_ok=True)
    with sandbox_process(directory / "a") as a, sandbox_process(directory / "b") as b:
        config = directory / "backlog.toml"
        specs = [*workers(count=count), beat()]
        config.write_text(configuration.replace("{a}", a.http_url).replace("{b}", b.http_url))
        with running_fleet(directory, specs, environment={"NOTIFY_CONFIG": str(config)}) as fleet:
            yield Backlog(fleet, a, b, config)
