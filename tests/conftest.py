"""Real servers for the tests: one Valkey and one PostgreSQL a session, clean for every test that asks.

`broker` and `database` are what most tests want. A test that stops or kills a server starts its own with
`start_redis` or `start_postgres`. Nothing here ever touches a server that the environment names.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis
from hypothesis import HealthCheck, settings

from notify_tasks.embedded import Server, postgres_server, redis_server

_numbers = itertools.count(1)

# How fast examples are drawn on a busy machine says nothing about what is tested.
settings.register_profile("notify", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("notify")


def pytest_configure() -> None:
    """Keep the developer's own configuration, with its real servers and providers, out of the tests."""
    for name in [name for name in os.environ if name.startswith("NOTIFY_")]:
        del os.environ[name]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As a shell starts what runs in its background: every process of a test would inherit it, and ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST_FIRST = ("faults", "deploy", "acceptance", "packaging", "pages", "integration", "contract", "unit")
"""Where tests wait the longest. Several processes take them file by file, and the last one should have a short file."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first."""
    items.sort(key=lambda item: LONGEST_FIRST.index(item.path.relative_to(Path(__file__).parent).parts[0]))


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("servers"), use_environment=False) as server:
        yield server.url


@pytest.fixture
def broker(redis_url: str) -> str:
    """The URL of an empty Redis."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL with an empty database; for the schema, ask for `database`."""
    with postgres_server(tmp_path_factory.mktemp("servers"), durable=False, use_environment=False) as server:
        yield server.url


@pytest.fixture(scope="session")
def _migrated(postgres_url: str) -> str:
    from notify_tasks.store.migrate import migrate  # noqa: PLC0415 - tests without a database do without it

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
    migrate(_named(postgres_url, "migrated"))
    return "migrated"


@pytest.fixture
def database(postgres_url: str, _migrated: str) -> Iterator[str]:
    """The URL of a fresh database with the present schema, dropped after the test."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {_migrated}")
        yield _named(postgres_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """Start a Redis that belongs to the test, which may kill, freeze or restart it."""
    with ExitStack() as servers:
        yield lambda: servers.enter_context(
            redis_server(tmp_path / f"redis-{next(_numbers)}", use_environment=False)
        )


@pytest.fixture
def start_postgres(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """Start a PostgreSQL that belongs to the test, with an empty database: the test migrates it."""
    with ExitStack() as servers:
        yield lambda: servers.enter_context(
            postgres_server(tmp_path / f"postgres-{next(_numbers)}", durable=False, use_environment=False)
        )


def _named(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))
