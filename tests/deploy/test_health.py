"""Signs of life: a process that is alive but stuck is not well; one that waits for a server is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path

import pytest
from faults.fleet import ROOT, RunningFleet, beat, running_fleet, workers
from support.ports import free_port

from notify_tasks.health import EVERY_SECONDS, Judgement, Pulse, judge
from notify_tasks.pulse import STUCK_SECONDS, Threads
from notify_tasks.supervising import Spec

PORTS = {"worker-1": free_port(), "beat-1": free_port()}
MAX_AGE = EVERY_SECONDS + 4
"""Short, so that an illness shows soon; a tick of beat is due every five seconds."""


def notify(*words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command line, typed."""
    typed = [sys.executable, "-c", "from notify_tasks.cli import main; raise SystemExit(main())", *words]
    return subprocess.run(
        typed, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=30, check=False
    )


def asked(file: Path) -> tuple[int, str]:
    """What `notify health` says."""
    done = notify("health", "--file", str(file), "--max-age", str(MAX_AGE))
    return done.returncode, done.stdout + done.stderr


def wait_for(file: Path, *, well: bool, said: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        judged = judge(file, max_age=MAX_AGE)
        if judged.well == well and said in judged.said:
            return
        assert time.monotonic() < deadline, f"not {said!r} but {judged}"
        time.sleep(0.1)


def with_health(spec: Spec, directory: Path) -> Spec:
    told = {
        "NOTIFY_HEALTH_FILE": str(directory / spec.name),
        "NOTIFY_HEALTH_PORT": str(PORTS[spec.name]),
        "NOTIFY_HEALTH_HOST": "127.0.0.1",
    }
    return Spec(spec.name, spec.command, told)


def probe(name: str, path: str) -> tuple[int, str]:
    """What a process answers to a probe."""
    connection = HTTPConnection("127.0.0.1", PORTS[name], timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def wait_probe(name: str, path: str, *, status: int, said: str = "", seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        answer = probe(name, path)
        if answer[0] == status and said in answer[1]:
            return
        assert time.monotonic() < deadline, f"not {status} {said!r} but {answer}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    directory = tmp_path_factory.mktemp("health")
    specs = [
        with_health(spec, directory / "run") for spec in [*workers("deploy.blocked", count=1)[:1], beat()]
    ]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "BLOCK_WHILE": str(directory / "block")}
    with running_fleet(directory, specs, environment=environment) as running:
        yield running


@pytest.fixture
def run(fleet: RunningFleet) -> Path:
    return fleet.directory / "run"


@contextmanager
def stopped(fleet: RunningFleet, name: str) -> Iterator[None]:
    fleet.supervisor.signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        fleet.supervisor.signal(name, signal.SIGCONT)


def test_a_probe_is_told_whether_a_process_lives_and_whether_it_is_ready(fleet: RunningFleet) -> None:
    for name in PORTS:
        wait_probe(name, "/readyz", status=200)
        assert probe(name, "/livez") == (200, "alive\n")
        status, body = probe(name, "/health")
        whole = json.loads(body)
        assert (status, whole["status"]) == (200, "ok")
        assert datetime.fromisoformat(whole["timestamp"]).utcoffset() == timedelta(0)
        assert probe(name, "/etc/passwd")[0] == 404
    details = json.loads(probe("worker-1", "/health")[1])["details"]
    assert list(details) == ["loop", "started", "broker", "fetching", "database"]


def test_a_stopped_beat_and_a_worker_whose_loop_is_blocked_are_not_well_and_recover(
    fleet: RunningFleet, run: Path
) -> None:
    processes = {"worker-1": "fetching messages", "beat-1": "ticking"}
    for name, doing in processes.items():
        wait_for(run / name, well=True, said=doing)
        assert asked(run / name)[0] == 0

    block = Path(fleet.environment["BLOCK_WHILE"])
    block.touch()  # the worker's threads run on
    try:
        with stopped(fleet, "beat-1"):
            for name, doing in processes.items():
                wait_for(run / name, well=False, said="gives no sign since")
                status, said = asked(run / name)
                assert status == 1
                assert doing in said  # what it did last
    finally:
        block.unlink()

    for name, doing in processes.items():
        wait_for(run / name, well=True, said=doing)
        assert fleet.supervisor.restarts(name) == 0


def test_a_worker_whose_database_is_away_is_well_and_says_what_it_waits_for(
    fleet: RunningFleet, run: Path
) -> None:
    wait_for(run / "worker-1", well=True, said="fetching messages")
    fleet.postgres.stop()
    try:
        ping = ("fault.ping", "--to", "sms=+4915112345678", "--payload", '{"n": 1}', "--channel", "sms")
        assert notify("send", *ping, environment=fleet.environment).returncode == 0
        wait_for(run / "worker-1", well=True, said="fetches nothing: PostgreSQL away")
        assert asked(run / "worker-1")[0] == 0
        wait_probe("worker-1", "/readyz", status=503, said="database: PostgreSQL is away")
        assert probe("worker-1", "/livez") == (200, "alive\n")
        status, body = probe("worker-1", "/health")
        whole = json.loads(body)
        assert (status, whole["status"], whole["details"]["broker"]["status"]) == (503, "not_ready", "ok")
        assert whole["details"]["fetching"]["said"] == "nothing is fetched: PostgreSQL away"
        assert fleet.postgres.url.rpartition("@")[2] not in body
    finally:
        fleet.postgres.start()
    wait_for(run / "worker-1", well=True, said="fetching messages")
    wait_probe("worker-1", "/readyz", status=200)
    assert fleet.supervisor.restarts("worker-1") == 0


def test_a_worker_and_beat_whose_broker_is_away_are_well(fleet: RunningFleet, run: Path) -> None:
    wait_for(run / "worker-1", well=True, said="fetching messages")
    fleet.redis.stop()
    ends = time.monotonic() + MAX_AGE + 1
    try:
        wait_for(run / "worker-1", well=True, said="connecting to the broker")
        while time.monotonic() < ends:  # longer than a sign of life may be old
            assert judge(run / "worker-1", max_age=MAX_AGE).well
            assert judge(run / "beat-1", max_age=MAX_AGE).well
            time.sleep(0.5)
        for name in PORTS:
            wait_probe(name, "/readyz", status=503, said="broker: Redis is away")
            assert probe(name, "/livez") == (200, "alive\n")
    finally:
        fleet.redis.start()
    wait_for(run / "worker-1", well=True, said="fetching messages")
    for name in PORTS:
        wait_probe(name, "/readyz", status=200)


def test_a_process_that_has_ended_is_not_well(tmp_path: Path) -> None:
    file = tmp_path / "health"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    Pulse({"NOTIFY_HEALTH_FILE": str(file)}).beat("fetching messages")
    assert judge(file).well
    file.write_text(file.read_text().replace(str(os.getpid()), str(ended.pid)))

    assert judge(file) == Judgement(
        well=False, said=f"process {ended.pid} has ended; it was fetching messages"
    )


@pytest.mark.parametrize("content", [None, "", "[]", '{"pid": 1}', "\x00"])
def test_no_sign_or_a_broken_one_is_not_well(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "health"
    if content is not None:
        file.write_text(content)

    status, said = asked(file)

    assert status == 1
    assert str(file) in said


def test_without_a_file_the_command_says_what_to_name() -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("NOTIFY_", "RUNTIME_"))}
    done = notify("health", environment=bare)

    assert done.returncode == 1
    assert "NOTIFY_HEALTH_FILE" in done.stderr
    assert "Traceback" not in done.stderr


def test_threads_that_all_hang_are_noticed_and_one_that_gets_on_is_enough() -> None:
    now = 0.0
    threads = Threads(clock=lambda: now)
    assert threads.problem({"a", "b"}, 2) is None

    now = STUCK_SECONDS + 1
    assert threads.problem({"a", "c"}, 2) is None  # one of the two is new
    now += STUCK_SECONDS - 1
    assert threads.problem({"a", "c"}, 2) is None
    now += 2
    assert threads.problem({"a"}, 2) is None  # a thread is free
    threads.problem({"a", "d"}, 2)
    now += STUCK_SECONDS
    assert "all 2 threads" in str(threads.problem({"a", "d"}, 2))


def test_systemd_is_told_that_a_process_is_ready_and_whether_it_is_well(tmp_path: Path) -> None:
    import socket  # noqa: PLC0415 - this test alone listens

    address = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(30)
        pulse = Pulse({"NOTIFY_SOCKET": address})
        pulse.beat("fetching messages")
        assert systemd.recv(999).decode().splitlines() == [
            "STATUS=fetching messages",
            "READY=1",
            "WATCHDOG=1",
        ]
        pulse.beat("fetching messages", "all 8 threads hang")
        assert systemd.recv(999).decode().splitlines() == ["STATUS=all 8 threads hang"]
