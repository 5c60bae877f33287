"""A fleet whose Redis is found by sentinels: its primary dies, and what was asked for is sent all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.fleet import CONFIG, ROOT, workers
from faults.sentinels import Guided, guided_redis, sentinel_binary
from integration.core_world import until
from support.scraping import scrape, total

import notify_tasks
from notify_tasks import MaybeAccepted, NotAccepted, send_notification, settings
from notify_tasks.embedded import Server, postgres_server
from notify_tasks.exporter.serving import serve
from notify_tasks.sandbox.process import Sandbox, start_sandbox
from notify_tasks.store.migrate import migrate
from notify_tasks.supervising import Supervisor

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        sentinel_binary() is None, reason="needs redis-sentinel: apt-get install redis-sentinel"
    ),
]


@pytest.fixture
def guided(tmp_path: Path) -> Iterator[Guided]:
    with guided_redis(tmp_path) as found:
        yield found


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Server]:
    with postgres_server(tmp_path, use_environment=False) as server:
        migrate(server.url)
        yield server


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    found = start_sandbox(tmp_path / "sandbox")
    yield found
    found.stop()


def test_a_new_primary_is_found_and_nothing_is_lost(
    guided: Guided, postgres: Server, sandbox: Sandbox, tmp_path: Path
) -> None:
    # Given a fleet that knows its sentinels, and an exporter,
    config = tmp_path / "notify.toml"
    config.write_text(CONFIG)
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "NOTIFY_BROKER_URL": guided.url,
        "NOTIFY_DATABASE_URL": postgres.url,
        "NOTIFY_CONFIG": str(config),
        "NOTIFY_TEMPLATES": str(ROOT / "tests/faults/templates"),
        **sandbox.ready.environment,
    }
    settings.reset()
    notify_tasks.configure(broker_url=guided.url, database_url=postgres.url)
    exporter, exposed = serve(settings.get(), "127.0.0.1", 0)
    accepted: list[str] = []

    def send(number: int) -> None:
        while number:
            try:
                result = send_notification.delay(
                    "fault.ping", to={"sms": "+4915112345678"}, channels=["sms"], payload={"n": 1}
                )
            except (MaybeAccepted, NotAccepted):
                continue
            accepted.append(result.message_id)
            number -= 1

    def page() -> str:
        return scrape(f"{exposed.url}/metrics")

    with Supervisor(tmp_path / "logs", environment, cwd=ROOT) as supervisor:
        specs = workers()
        for spec in specs:
            supervisor.start(spec)
        send(30)
        until(lambda: total(page(), "notify_deliveries_total", state="sent") == 30, "thirty are sent", 90)
        assert total(page(), "notify_up") == 2

        # when its primary is killed, producers go on as soon as there is another one,
        new = guided.kill_primary()
        send(30)

        # and all that was accepted is sent, by workers that are still the same processes.
        until(lambda: total(page(), "notify_deliveries_total", state="sent") >= 60, "all are sent", 120)
        until(lambda: total(page(), "notify_up") == 2, "the exporter has found it", 60)
        assert guided.client(new).info("replication")["role"] == "master"
        taken = {it.delivery_id for it in sandbox.requests() if it.accepted}
        assert len(taken) >= len(set(accepted)) == 60
        assert [supervisor.restarts(spec.name) for spec in specs] == [0] * len(specs)
    exposed.close()
    exporter.stop()
    settings.reset()
