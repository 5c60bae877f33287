"""Probes: what is alive, what is ready, and that nothing that hangs makes an answer hang."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from notify_tasks import health_server, settings
from notify_tasks.errors import NotConfigured
from notify_tasks.health import Judgement, Pulse, Sign
from notify_tasks.health_server import Check, Health, HealthServer, Need, of_pulse

WELL, ILL = Judgement(well=True, said="fine"), Judgement(well=False, said="away")


def health(loop: Judgement = WELL, database: Judgement = WELL, extra: Judgement = WELL) -> Health:
    return Health(
        "worker-1@host",
        [
            Check("loop", lambda: loop, Need.LIVE),
            Check("database", lambda: database),
            Check("extra", lambda: extra, Need.SHOWN),
        ],
    )


@pytest.mark.parametrize(
    ("judged", "live", "ready", "whole", "status"),
    [
        (health(), 200, 200, 200, "ok"),
        (health(database=ILL), 200, 503, 503, "not_ready"),
        (health(loop=ILL), 503, 503, 503, "failed"),
        (health(extra=ILL), 200, 200, 200, "degraded"),
    ],
)
def test_each_subsystem_decides_what_depends_on_it(
    judged: Health, live: int, ready: int, whole: int, status: str
) -> None:
    assert (judged.live()[0], judged.ready()[0]) == (live, ready)
    assert (judged.whole()[0], judged.whole()[1]["status"]) == (whole, status)


def test_an_error_counts_as_ill_and_shows_its_kind_alone() -> None:
    def ask() -> Judgement:
        raise ValueError("postgresql://user:password@db")

    assert Health("it", [Check("database", ask)]).ready() == (503, "database: ValueError")


def test_a_subsystem_that_hangs_is_asked_once_and_holds_up_no_answer() -> None:
    asked, let_go = [], threading.Event()

    def hang() -> Judgement:
        asked.append(1)
        let_go.wait(60)
        return WELL

    judged = Health("it", [Check("database", hang), Check("loop", lambda: WELL, Need.LIVE)])
    try:
        for _ in range(2):
            status, said = judged.ready()
            assert status == 503
            assert "database: no answer" in said
            assert judged.live() == (200, "alive")
        assert asked == [1]
    finally:
        let_go.set()
    deadline = time.monotonic() + 30
    while judged.ready()[0] != 200:
        assert time.monotonic() < deadline


def test_a_process_lives_while_it_starts_and_gives_signs_and_not_when_it_is_stuck() -> None:
    pulse = Pulse({}, asked=True)
    checks = [of_pulse(pulse), health_server.of_start(pulse)]
    assert Health("it", checks).live()[0] == 200
    assert Health("it", checks).ready()[0] == 503

    pulse.beat("fetching messages")
    assert Health("it", checks).ready()[0] == 200

    pulse.beat("fetching messages", "all 8 threads have been busy with one task each for 200 s or more")
    assert Health("it", checks).live()[0] == 503

    pulse.last = Sign(os.getpid(), time.monotonic() - 60, "fetching messages")  # its loop hangs since
    status, said = Health("it", checks).live()
    assert status == 503
    assert "gives no sign since 60 s" in said


@pytest.fixture
def server() -> Iterator[HealthServer]:
    made = HealthServer(health(database=ILL), "127.0.0.1", 0)
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/livez", 200, b"alive\n"),
        ("GET", "/livez?verbose", 200, b"alive\n"),
        ("HEAD", "/livez", 200, b""),
        ("GET", "/readyz", 503, b"database: away\n"),
        ("GET", "/", 404, b"there are /livez, /readyz and /health\n"),
        ("POST", "/livez", 501, None),
    ],
)
def test_it_answers_over_http(
    server: HealthServer, method: str, path: str, status: int, body: bytes | None
) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()

    assert answer.status == status
    assert body is None or said == body
    assert "Python" not in str(answer.headers)


def test_a_port_that_is_taken_is_named_with_the_remedy(server: HealthServer) -> None:
    taken = settings.Settings(health_port=server.port, health_host="127.0.0.1")

    with pytest.raises(NotConfigured, match=rf"NOTIFY_HEALTH_PORT: port {server.port} .* a port of its own"):
        health_server.serve("it", [], taken)
    assert health_server.serve("it", [], settings.Settings()) is None
