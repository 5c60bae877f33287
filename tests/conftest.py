"""Real servers for the tests: one Valkey and one PostgreSQL a session, clean for every test that asks.

`broker` and `database` are what most tests want. A test that stops or kills a server starts its own with
`start_redis` or `start_postgres`. Nothing here ever touches a server that the environment names.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings
from support.databases import Databases, make_cheap

from notify_tasks.embedded import Server, postgres_server, redis_server

ROOT = Path(__file__).parents[1]
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
    # Tests start well over a hundred Pythons. None compiles what another has compiled, whatever the shell says of it.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".pytest_cache" / "bytecode"))
    sys.dont_write_bytecode, sys.pycache_prefix = False, os.environ["PYTHONPYCACHEPREFIX"]


LONGEST_FILES = (
    "faults/test_kills.py",
    "acceptance/test_demo.py",
    "pages/test_sandbox_page.py",
    "acceptance/test_path.py",
    "pages/test_preview.py",
    "acceptance/test_every_provider.py",
    "contract/test_conformance.py",
    "integration/test_delivery.py",
    "deploy/test_health.py",
    "faults/test_gates.py",
    "deploy/test_compose.py",
    "integration/test_gateway.py",
    "acceptance/test_configuration.py",
    "acceptance/test_cli.py",
    "acceptance/test_flower.py",
    "integration/test_transport.py",
    "acceptance/test_by_hand.py",
    "contract/test_push_fcm.py",
    "acceptance/test_new_type.py",
    "integration/test_receipts.py",
    "integration/test_embedded.py",
    "integration/test_consuming.py",
)
"""The files of twenty seconds and more, the longest first. Several processes take tests file by file: the last ones
should be short."""
LONGEST_FOLDERS = (
    "faults",
    "deploy",
    "acceptance",
    "packaging",
    "pages",
    "integration",
    "contract",
    "unit",
)
"""Where the other tests wait the longest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first."""
    places = {file: place for place, file in enumerate(LONGEST_FILES)}

    def place(item: pytest.Item) -> tuple[int, int]:
        file = item.path.relative_to(Path(__file__).parent)
        return places.get(file.as_posix(), len(places)), LONGEST_FOLDERS.index(file.parts[0])

    items.sort(key=place)


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
        make_cheap(server.url)
        yield server.url


@pytest.fixture(scope="session")
def databases(postgres_url: str) -> Iterator[Databases]:
    databases = Databases(postgres_url)
    yield databases
    databases.close()


@pytest.fixture
def database(databases: Databases) -> Iterator[str]:
    """The URL of a fresh database with the present schema."""
    name = databases.take()
    yield databases.url(name)
    databases.give_back(name)


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
