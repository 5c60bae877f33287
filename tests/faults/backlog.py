"""A channel with two far ends of its own, a backlog made in the database, and what the database does about it."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from faults.fleet import RunningFleet, beat, running_fleet, workers
from faults.real import option_lines

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


# PostgreSQL's own counts of updates come late, so the test has a count of its own, which no rollback takes back.
_COUNT = """
CREATE SEQUENCE public.updates MINVALUE 0 START 0;
CREATE FUNCTION public.updated() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM nextval('public.updates'); RETURN NULL; END $$;
CREATE TRIGGER updated AFTER UPDATE ON notify.delivery FOR EACH ROW EXECUTE FUNCTION public.updated();
SELECT nextval('public.updates')
"""
_IDLE_SECONDS = 11.0
"""After so long at most a connection that is idle has told the server of its transactions (PostgreSQL: 10 s)."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the database has done so far.

    Args:
        updates: of rows of deliveries.
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

    def reconfigure(self, configuration: str) -> None:
        """Write another configuration, which the workers take within five seconds."""
        self.config.write_text(_aimed(configuration, self.b))

    def reasons(self) -> dict[str, int]:
        """How many deliveries are in each state, for each reason."""
        rows = self.fleet.rows(
            "SELECT state || coalesce(' ' || reason, ''), count(*) FROM notify.delivery GROUP BY 1"
        )
        return {str(name): int(str(count)) for name, count in rows}

    def sent(self) -> int:
        """How many deliveries are sent."""
        return self.reasons().get("sent", 0)

    def due_within(self, seconds: float) -> int:
        """How many deliveries that wait are to be looked at by then."""
        ((count,),) = self.fleet.rows(
            "SELECT count(*) FROM notify.delivery WHERE state = 'held'"
            " AND due_at < now() + make_interval(secs => %s)",
            seconds,
        )
        return int(str(count))

    def work(self, *, settle: bool) -> Work:
        """What has been done until now.

        Args:
            settle: wait until the commits are all counted; without it, theirs is no count to go by.
        """
        if settle:
            time.sleep(_IDLE_SECONDS)
        ((updates, attempts, commits),) = self.fleet.rows(
            "SELECT (SELECT last_value FROM public.updates), (SELECT count(*) FROM notify.attempt),"
            " (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())"
        )
        return Work(int(str(updates)), int(str(attempts)), int(str(commits)))


def fill(fleet: RunningFleet, count: int, lane: str = "normal") -> None:
    """So many SMS that are due now, made in the database."""
    fleet.rows(_FILL + "RETURNING 1", lane, count, lane)


def effects(sandbox: Sandbox, channel: str = "sms") -> list[LoggedRequest]:
    """What a far end took."""
    return [it for it in sandbox.requests() if it.accepted and it.channel == channel]


def most_in_a_second(requests: Sequence[LoggedRequest]) -> int:
    """The most requests that any second has seen, wherever it begins."""
    times = sorted(request.at.timestamp() for request in requests)
    return max((bisect_left(times, at + 1.0) - n for n, at in enumerate(times)), default=0)


def provider(name: str, url: str, **options: str | float) -> str:
    """A provider's table."""
    return f'[providers.{name}]\nuse = "sms.sandbox"\nurl = "{url}"\n{option_lines(options)}'


@contextmanager
def backlogged(directory: Path, configuration: str, *, count: int = 2) -> Iterator[Backlog]:
    """Start a fleet on a configuration, in which `{a}` and `{b}` are the URLs of its two far ends."""
    with sandbox_process(directory / "b") as b:
        config = directory / "backlog.toml"
        config.write_text(_aimed(configuration, b))
        specs = [*workers(count=count), beat()]
        with running_fleet(directory, specs, environment={"NOTIFY_CONFIG": str(config)}) as fleet:
            with psycopg.connect(fleet.postgres.url, autocommit=True) as connection:
                connection.execute(_COUNT)
            yield Backlog(fleet, fleet.sandbox, b, config)


def _aimed(configuration: str, b: Sandbox) -> str:
    return configuration.replace("{a}", "env:SANDBOX_HTTP_URL").replace("{b}", b.http_url)
