"""Starts a Redis-compatible server (Valkey) and PostgreSQL for the demo, tests and development.

    with redis_server(".notify") as redis, postgres_server(".notify") as postgres:
        print(redis, postgres)

A URL in the environment wins and starts nothing. Otherwise the binaries that the `embedded` extra brings are
used, then the system's. The servers run as the present user, root or not, on free ports of 127.0.0.1, with a
random password in a file that only this user can read. Data stay in the directory for the next start.

Each server's parent is a small watchdog process that holds a pipe from the starter: when the starter ends,
even by SIGKILL, its servers are stopped in order. Watchdog and server inherit the directory's lock, so it is
free when the last process that could write there is gone, and not before.

Meant for one machine and one developer: for anything else, run your own servers and set the two URLs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from notify_tasks.embedded.files import EmbeddedError
from notify_tasks.embedded.postgres import Postgres
from notify_tasks.embedded.server import DirectoryInUse, Engine, Server
from notify_tasks.embedded.valkey import Valkey

__all__ = ["DirectoryInUse", "EmbeddedError", "Server", "postgres_server", "redis_server"]

BROKER_URL: Final = "NOTIFY_BROKER_URL"
DATABASE_URL: Final = "NOTIFY_DATABASE_URL"


@contextmanager
def redis_server(directory: str | os.PathLike[str], *, use_environment: bool = True) -> Iterator[Server]:
    """Run Valkey (or Redis) while inside.

    It keeps an append-only file, forced to disk once a second, and never evicts (`noeviction`).

    Args:
        directory: its files are kept in `directory/redis`, which is created when missing.
        use_environment: False ignores NOTIFY_BROKER_URL. Tests that flush the server must say so.

    Yields:
        The server. With NOTIFY_BROKER_URL set, that URL and no process.

    Raises:
        EmbeddedError: no binary, no start. `DirectoryInUse` if another server runs on the directory.
    """
    named = os.environ.get(BROKER_URL, "") if use_environment else ""
    with _running(None if named else Valkey(Path(directory)), named) as server:
        yield server


@contextmanager
def postgres_server(
    directory: str | os.PathLike[str], *, durable: bool = True, use_environment: bool = True
) -> Iterator[Server]:
    """Run PostgreSQL while inside, with a user and a database named `notify` and 200 connections.

    Args:
        directory: its files are kept in `directory/postgres`, which is created when missing.
        durable: False leaves out fsync: faster, and safe when the server is killed, not when the machine is.
        use_environment: False ignores NOTIFY_DATABASE_URL. Tests that drop databases must say so.

    Yields:
        The server. With NOTIFY_DATABASE_URL set, that URL and no process.

    Raises:
        EmbeddedError: no binary, no start. `DirectoryInUse` if another server runs on the directory.
    """
    named = os.environ.get(DATABASE_URL, "") if use_environment else ""
    with _running(None if named else Postgres(Path(directory), durable=durable), named) as server:
        yield server


@contextmanager
def _running(engine: Engine | None, url: str) -> Iterator[Server]:
    server = Server(engine, url)
    try:
        if engine is not None:
            server.start()
        yield server
    finally:
        server.stop()
