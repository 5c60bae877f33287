"""What each worker process says of the configuration that it has in force."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from notify_tasks.store.database import Database, storable

KEPT_DAYS: Final = 1


@dataclass(frozen=True, slots=True)
class Report:
    """One process's word.

    Args:
        worker: `host:pid`, as its attempts name it.
        version: of the files in force.
        files: their paths.
        age: seconds for which it has been in force.
        problem: why a newer file is not in force; None where there is none.
        problem_age: seconds since that was found.
        queues: those that it takes messages from.
    """

    worker: str
    version: str
    files: str
    age: float
    problem: str | None = None
    problem_age: float | None = None
    queues: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reported:
    """A process's last word. Times are in UTC.

    Args:
        silent: seconds since it was said.
    """

    worker: str
    version: str
    files: str
    since: datetime
    problem: str | None
    problem_since: datetime | None
    silent: float


_PUT = """
WITH gone AS (
    DELETE FROM notify.configuration_report
     WHERE seen_at < now() - make_interval(days => %(days)s) AND worker <> %(worker)s)
INSERT INTO notify.configuration_report AS r (worker, version, files, since, problem, problem_since, queues)
VALUES (%(worker)s, %(version)s, %(files)s, now() - make_interval(secs => %(age)s), %(problem)s,
        now() - make_interval(secs => %(problem_age)s), %(queues)s)
ON CONFLICT (worker) DO UPDATE
   SET version = excluded.version, files = excluded.files, since = excluded.since, problem = excluded.problem,
       problem_since = excluded.problem_since, queues = excluded.queues, seen_at = now()
"""


def put(database: Database, report: Report) -> None:
    """Store a report in place of the process's last one; those of a day ago are forgotten."""
    database.rows(
        _PUT,
        {
            "days": KEPT_DAYS,
            "worker": report.worker,
            "version": report.version,
            "files": report.files,
            "age": report.age,
            "problem": storable(report.problem),
            "problem_age": report.problem_age,
            "queues": list(report.queues),
        },
    )


def forget(database: Database, worker: str) -> None:
    """The process ends."""
    database.rows("DELETE FROM notify.configuration_report WHERE worker = %s", (worker,))


_RECENT = """
SELECT worker, version, files, since, problem, problem_since,
       extract(epoch FROM now() - seen_at)::float8 AS silent
  FROM notify.configuration_report WHERE seen_at > now() - make_interval(secs => %s) ORDER BY worker
"""


def recent(database: Database, seconds: float) -> list[Reported]:
    """What was reported within so many seconds."""
    return [Reported(**row) for row in database.rows(_RECENT, (seconds,))]
