"""Signs of life: a process that is alive but stuck is not well; one that waits for a server is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.fleet import ROOT, RunningFleet, beat, running_fleet, workers

from notify_tasks.health import EVERY_SECONDS, Judgement, Pulse, judge
from notify_tasks.pulse import STUCK_SECONDS, Threads
from notify_tasks.supervising import Spec

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


def wait_for(file: Path, *, well: bool, said: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        judged = judge(file, max_age=MAX_AGE)
        if judged.well == well and said in judged.said:
            return
        assert time.monotonic() < deadline, f"not {said!r} but {judged}"
        time.sleep(0.1)


def with_health(spec: Spec, directory: Path) -> Spec:
    return Spec(spec.name, spec.command, {"NOTIFY_HEALTH_FILE": str(directory / spec.name)})


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


def test_a_process_that_is_stopped_is_not_well_and_recovers(fleet: RunningFleet, run: Path) -> None:
    processes = {"worker-1": "fetching messages", "beat-1": "ticking"}
    for name, doing in processes.items():
        wait_for(run / name, well=True, said=doing)
        assert asked(run / name)[0] == 0

    with stopped(fleet, "worker-1"), stopped(fleet, "beat-1"):
        for name, doing in processes.items():
            wait_for(run / name, well=False, said="gives no sign since")
            status, said = asked(run / name)
            assert status == 1
            assert doing in said  # what it did last

    for name, doing in processes.items():
        wait_for(run / name, well=True, said=doing)
        assert fleet.supervisor.restarts(name) == 0


def test_a_worker_whose_loop_is_blocked_is_not_well_though_its_threads_run(
    fleet: RunningFleet, run: Path
) -> None:
    wait_for(run / "worker-1", well=True, said="fetching messages")
    block = Path(fleet.environment["BLOCK_WHILE"])
    block.touch()
    try:
        wait_for(run / "worker-1", well=False, said="gives no sign since")
    finally:
        block.unlink()
    wait_for(run / "worker-1", well=True, said="fetching messages")


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
    finally:
        fleet.postgres.start()
    wait_for(run / "worker-1", well=True, said="fetching messages")
    assert fleet.supervisor.restarts("worker-1") == 0


def test_a_worker_and_beat_whose_broker_is_away_are_well(fleet: RunningFleet, run: Path) -> None:
    wait_for(run / "worker-1", well=True, said="fetching messages")
    fleet.redis.stop()
    ends = time.monotonic() + MAX_AGE + EVERY_SECONDS
    try:
        wait_for(run / "worker-1", well=True, said="connecting to the broker")
        while time.monotonic() < ends:  # longer than a sign of life may be old
            assert judge(run / "worker-1", max_age=MAX_AGE).well
            assert judge(run / "beat-1", max_age=MAX_AGE).well
            time.sleep(0.5)
    finally:
        fleet.redis.start()
    wait_for(run / "worker-1", well=True, said="fetching messages")


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
        systemd.settimeout(5)
        pulse = Pulse({"NOTIFY_SOCKET": address})
        pulse.beat("fetching messages")
        assert systemd.recv(999).decode().splitlines() == [
            "STATUS=fetching messages",
            "READY=1",
            "WATCHDOG=1",
        ]
        pulse.beat("fetching messages", "all 8 threads hang")
        assert systemd.recv(999).decode().splitlines() == ["STATUS=all 8 threads hang"]
