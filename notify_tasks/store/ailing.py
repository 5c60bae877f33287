"""What `notify doctor` asks of PostgreSQL itself, and of what has gone wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from notify_tasks.store.database import Database

COUNTED: Final = 10_000
LISTED: Final = 5


@dataclass(frozen=True, slots=True)
class Server:
    """PostgreSQL.

    Args:
        number: its version, as `server_version_num` has it: 150004.
        version: the same for people: `15.4`.
        ahead: seconds by which its clock is ahead of this machine's, give or take `within`.
    """

    number: int
    version: str
    ahead: float
    within: float


_SERVER: Final = """
SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS version,
       extract(epoch FROM clock_timestamp())::float8 AS clock
"""


def server(database: Database) -> Server:
    """Its version and its clock."""
    database.rows("SELECT 1 AS one")  # a connection takes its time
    before = time.time()
    row = database.rows(_SERVER)[0]
    after = time.time()
    version = row["version"].partition(" ")[0]
    return Server(row["number"], version, row["clock"] - (before + after) / 2, (after - before) / 2)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Deliveries that somebody must look at, each counted up to `COUNTED`.

    Args:
        in_doubt: nobody knows of them.
        oldest: seconds for which the oldest has been in doubt; None where none is.
        dead: failed within the hours that were asked for, and not replayed.
    """

    in_doubt: int
    oldest: float | None
    dead: int


_TROUBLE: Final = """
SELECT (SELECT count(*) FROM (SELECT 1 FROM notify.delivery WHERE state = 'in_doubt' LIMIT %(most)s) x)::int
           AS in_doubt,
       (SELECT extract(epoch FROM now() - updated_at)::float8 FROM notify.delivery WHERE state = 'in_doubt'
         ORDER BY updated_at LIMIT 1) AS oldest,
       (SELECT count(*) FROM (
           SELECT 1 FROM notify.delivery d
            WHERE state = 'failed' AND updated_at > now() - make_interval(hours => %(hours)s)
              AND NOT EXISTS (SELECT 1 FROM notify.delivery r WHERE r.replay_of = d.id) LIMIT %(most)s) x)::int AS dead
"""


def trouble(database: Database, *, hours: int) -> Trouble:
    """What is in doubt, and what failed in the last hours."""
    return Trouble(**database.rows(_TROUBLE, {"hours": hours, "most": COUNTED})[0])


@dataclass(frozen=True, slots=True)
class Stuck:
    """A recurring schedule that could not be looked at."""

    tenant: str
    id: str
    problem: str


_STUCK: Final = (
    "SELECT tenant, id, problem FROM notify.schedule WHERE problem IS NOT NULL ORDER BY tenant, id LIMIT %s"
)


def stuck_schedules(database: Database) -> list[Stuck]:
    """Schedules with a problem; a few of them."""
    return [Stuck(**row) for row in database.rows(_STUCK, (LISTED,))]
