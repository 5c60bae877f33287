"""Takes a changed configuration into a running process: the whole of it, or none of it.

The files are looked at every second: `notify.toml`, its overlay, and those that hold secrets. One that is wrong
leaves the last good configuration in force and is logged once. What is in force, and why, is reported to the
database, where `notify doctor` reads it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from notify_tasks.configuration.model import Configuration
from notify_tasks.configuration.origins import BadConfiguration
from notify_tasks.configuration.reading import overlay_of, read, secret_files
from notify_tasks.providers import NoInbox, Pools
from notify_tasks.settings import Settings
from notify_tasks.store import reports
from notify_tasks.store.database import Database, DatabaseError
from notify_tasks.store.reports import Report

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = 1.0
SETTLED_AFTER: Final = 0.2
"""A file that is being written is read when it has been the same for so long."""
REPORT_EVERY: Final = 30.0
HEARD_WITHIN: Final = 3 * REPORT_EVERY
"""A process that has said nothing for longer is gone."""

Seen = tuple[tuple[str, int, int, int] | tuple[str], ...]
"""Each file with its time, size and inode; alone where it cannot be looked at."""


def load(settings: Settings) -> Configuration:
    """The configuration that these settings name.

    Raises:
        BadConfiguration: it has problems.
    """
    return read(Path(settings.config_file), settings.env, os.environ)


class Reloader:
    """Watches the files of one process.

    Args:
        settings: name the files.
        pools: what a new configuration goes into.
        channels: those that this process serves.
        database: takes the reports.
        worker: this process's name.
        changed: called after a new configuration has come into force.
    """

    def __init__(
        self,
        settings: Settings,
        pools: Pools,
        *,
        channels: Sequence[str],
        database: Database,
        worker: str,
        changed: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._pools = pools
        self._channels = channels
        self._database = database
        self._worker = worker
        self._changed = changed
        self._secrets: Sequence[Path] = secret_files(pools.configuration, os.environ)
        self._seen: Seen | None = None
        self._since = time.monotonic()
        self._problem: str | None = None
        self._problem_since = 0.0
        self._report_at = 0.0
        self._queues: tuple[str, ...] = ()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify-configuration", daemon=True)

    @property
    def problem(self) -> str | None:
        """Why the files as they are now are not in force; None where they are."""
        return self._problem

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def consumes(self, queues: Sequence[str]) -> None:
        """Say in the reports, from now on, that this process takes messages from these queues."""
        self._queues = tuple(queues)
        self._report_at = 0.0

    def stop(self) -> None:
        """End, and take the report back."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2)

    def look(self) -> bool:
        """Look at the files once, and take what has changed.

        Returns:
            Whether anything had changed, for good or for bad.
        """
        seen = self._look()
        if seen == self._seen:
            return False
        while not self._stop.wait(SETTLED_AFTER):
            again = self._look()
            if again == seen:
                break
            seen = again
        first, self._seen = self._seen is None, seen
        before = self._pools.configuration.version
        try:
            new = load(self._settings)
            # Looked at before they are read: what changes meanwhile is seen next time.
            self._secrets = secret_files(new, os.environ)
            self._seen = (*seen[: len(self._own_files())], *map(_seen, self._secrets))
            changes = self._pools.reload(new, self._channels)
        except BadConfiguration as error:
            self._keep(error)
        else:
            self._take(new, changes, different=bool(changes) or new.version != before, first=first)
        return True

    def _keep(self, error: BadConfiguration) -> None:
        self._problem, self._problem_since = error.in_one_line, time.monotonic()
        logger.error(
            "configuration %s stays in force, because what the files say now cannot be used: %s",
            self._pools.configuration.version,
            self._problem,
        )

    def _take(self, new: Configuration, changes: list[str], *, different: bool, first: bool) -> None:
        self._problem = None
        if different:
            self._since = time.monotonic()
        if first and not different:
            return
        said = "; ".join(changes) or "nothing in it is different"
        logger.info("configuration %s is in force: %s", new.version, said)
        for surprise in new.warnings:
            logger.warning("%s", surprise)
        if changes:
            self._changed()

    def _own_files(self) -> list[Path]:
        base, env = Path(self._settings.config_file), self._settings.env
        return [base] if env is None else [base, overlay_of(base, env)]

    def _look(self) -> Seen:
        return tuple(_seen(path) for path in (*self._own_files(), *self._secrets))

    # --- reports ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                changed = self.look()
                if changed or time.monotonic() >= self._report_at:
                    self._report()
            except Exception:
                logger.exception("the configuration could not be looked at; the one in force stays")
            self._stop.wait(LOOK_EVERY)
        try:
            reports.forget(self._database, self._worker)
        except DatabaseError as error:
            logger.info("the report of this process stays (%s)", error)

    def _report(self) -> None:
        now = time.monotonic()
        self._report_at = now + REPORT_EVERY  # also where it fails: looking at the files must not wait for it
        configuration = self._pools.configuration
        try:
            reports.put(
                self._database,
                Report(
                    worker=self._worker,
                    version=configuration.version,
                    files=", ".join(str(path.absolute()) for path in configuration.files),
                    age=now - self._since,
                    problem=self._problem,
                    problem_age=None if self._problem is None else now - self._problem_since,
                    queues=self._queues,
                ),
            )
        except DatabaseError as error:
            logger.info("the configuration in force was not reported (%s)", error)


def _seen(path: Path) -> tuple[str, int, int, int] | tuple[str]:
    try:
        found = path.stat()
    except OSError:
        return (str(path),)
    return (str(path), found.st_mtime_ns, found.st_size, found.st_ino)


def check_start(settings: Settings, channels: Sequence[str]) -> Configuration:
    """Refuse to start on a configuration with a problem.

    Args:
        settings: of the process.
        channels: those that it is to serve: only their providers need their secrets here.

    Raises:
        BadConfiguration: with every problem of the files or, where there is none, of these providers.
    """
    configuration = load(settings)
    pools = Pools(configuration, inbox=NoInbox())
    try:
        problems = pools.problems(channels)
    finally:
        pools.close()
    if problems:
        raise BadConfiguration(problems)
    for surprise in configuration.warnings:
        logger.warning("%s", surprise)
    return configuration
