"""deploy/systemd: systemd finds nothing wrong, and every ExecStart runs here as its unit says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from deploy.compose import ROOT
from support.ports import free_port

from notify_tasks.embedded import Server, postgres_server, redis_server
from notify_tasks.routing import ALL_QUEUES

UNITS = ROOT / "deploy/systemd"
COMMON = UNITS / "notify-.service.d/10-fleet.conf"
NEWER = ("RestartSteps", "RestartMaxDelaySec")
"""Keys of systemd 254, which an older one skips with a remark."""
EXPOSURE = "20"
"""Tenths: `systemd-analyze security` calls up to 4.0 OK."""

Section = dict[str, list[str]]


def read(*files: Path, instance: str = "") -> dict[str, Section]:
    """A unit and its drop-ins, by section and key; the specifiers that the units use are filled in."""
    found: dict[str, Section] = {}
    for file in files:
        section: Section = {}
        for line in file.read_text().replace("\\\n", " ").splitlines():
            if heading := re.fullmatch(r"\[(\w+)\]", line):
                section = found.setdefault(heading[1], {})
            elif line and not line.startswith("#"):
                key, _, value = line.partition("=")
                filled = re.sub(r"%(.)", lambda it: {"i": instance, "%": "%"}[it[1]], value)
                section.setdefault(key, []).append(filled)
    return found


def services() -> list[str]:
    """Every service that the target starts."""
    return " ".join(read(UNITS / "notify.target")["Unit"]["Wants"]).split()


def unit(service: str) -> dict[str, Section]:
    name, _, instance = service.removesuffix(".service").partition("@")
    return read(UNITS / f"{name}{'@' if instance else ''}.service", COMMON, instance=instance)


def command(service: str) -> list[str]:
    (line,) = unit(service)["Service"]["ExecStart"]
    return [
        word.replace("/opt/notify/.venv/bin/python", sys.executable).replace("/opt/notify", str(ROOT))
        for word in shlex.split(line)
    ]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with this checkout's paths, as /etc/systemd/system would hold them."""
    here = tmp_path / "system"
    shutil.copytree(UNITS, here)
    for file in (*here.glob("*.service"), here / COMMON.relative_to(UNITS)):
        text = file.read_text().replace("/opt/notify/.venv/bin/python", sys.executable)
        file.write_text(text.replace("/opt/notify", str(ROOT)))
    return here


def analyze(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed here")
    return subprocess.run(
        ["systemd-analyze", *words],
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{installed}:"},
        text=True,
        capture_output=True,
        check=False,
    )


def test_systemd_finds_nothing_wrong_with_the_units(installed: Path) -> None:
    done = analyze(installed, "verify", "--man=no", *services(), "notify-migrate.service", "notify.target")
    said = [
        line
        for line in done.stderr.splitlines()
        if "notify" in line and not any(f"Unknown key '{key}'" in line for key in NEWER)
        and not any(f"Unknown key name '{key}'" in line for key in NEWER)
    ]  # fmt: skip
    assert (done.returncode, said) == (0, [])


@pytest.mark.parametrize(
    "service",
    [
        "notify-worker@email.service",
        "notify-beat.service",
        "notify-flower.service",
        "notify-gateway.service",
    ],
)
def test_a_service_can_do_little_harm_to_its_machine(installed: Path, service: str) -> None:
    done = analyze(installed, "security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager", service)
    assert done.returncode == 0, done.stdout


def test_the_target_has_a_consumer_for_every_queue() -> None:
    consumed = [
        queue
        for service in services()
        for words in [command(service)]
        if "--queues" in words
        for queue in words[words.index("--queues") + 1].split(",")
    ]
    assert sorted(consumed) == sorted(ALL_QUEUES)


def test_each_service_is_restarted_and_ended_in_order() -> None:
    for service in services():
        settings = unit(service)["Service"]
        assert settings["Restart"] == ["always"], service
        assert settings["KillMode"] == ["mixed"], service
        assert settings["NoNewPrivileges"] == ["yes"], service
        if "worker" in command(service):
            assert int(settings["TimeoutStopSec"][0]) >= 100, service
            assert (settings["Type"], settings["WatchdogSec"]) == (["notify"], ["60"]), service


# --- what they start ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    directory = tmp_path_factory.mktemp("units")
    with (
        redis_server(directory, use_environment=False) as redis,
        postgres_server(directory, durable=False, use_environment=False) as postgres,
    ):
        yield redis, postgres


def environment(service: str, servers: tuple[Server, Server], more: dict[str, str]) -> dict[str, str]:
    """Environment= and the example's EnvironmentFile=, with this test's servers; nothing of the test's own."""
    redis, postgres = servers
    words = shlex.split(" ".join(unit(service)["Service"]["Environment"]).replace("/opt/notify", str(ROOT)))
    example = (UNITS / "notify.env.example").read_text().splitlines()
    words += [word for line in example if line and not line.startswith("#") for word in shlex.split(line)]
    variables = dict(word.split("=", 1) for word in words)
    here = {
        "NOTIFY_BROKER_URL": redis.url,
        "NOTIFY_DATABASE_URL": postgres.url,
        "FLOWER_PASSWORD": "flower-password",
    }
    assert set(here) <= set(variables)
    compiled = {key: os.environ[key] for key in ("PYTHONPYCACHEPREFIX",) if key in os.environ}
    return variables | here | compiled | {"PATH": "/usr/bin:/bin"} | more


@contextmanager
def started(service: str, variables: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        words = [re.sub(r"\$\{(\w+)\}", lambda it: variables[it[1]], word) for word in command(service)]
        process = subprocess.Popen(words, cwd=ROOT, env=variables, stdout=out, stderr=out)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.timeout(180)
def test_every_kind_of_service_starts_says_that_it_is_ready_and_ends_in_order(
    tmp_path: Path, servers: tuple[Server, Server]
) -> None:
    migrated = subprocess.run(
        command("notify-migrate.service"),
        cwd=ROOT,
        env=environment("notify-migrate.service", servers, {}),
        capture_output=True,
        check=False,
    )
    assert migrated.returncode == 0, migrated.stderr
    port, door, teller = free_port(), free_port(), free_port()
    kinds = [
        "notify-worker@email.service",
        "notify-high.service",
        "notify-maint.service",
        "notify-beat.service",
    ]
    with ExitStack() as stack:
        processes = {}
        systemd = {}
        for service in [*kinds, "notify-flower.service", "notify-gateway.service", "notify-exporter.service"]:
            more = {"FLOWER_PORT": str(port), "GATEWAY_PORT": str(door), "EXPORTER_PORT": str(teller)}
            if unit(service)["Service"]["Type"] == ["notify"]:
                (directory,) = unit(service)["Service"]["RuntimeDirectory"]
                systemd[service] = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                systemd[service].bind(str(tmp_path / f"{directory}.socket"))
                systemd[service].settimeout(90)
                more |= {
                    "NOTIFY_SOCKET": str(tmp_path / f"{directory}.socket"),
                    "RUNTIME_DIRECTORY": str(tmp_path / directory),
                }
            log = tmp_path / f"{service}.log"
            processes[service] = stack.enter_context(
                started(service, environment(service, servers, more), log)
            )
        for service, said in systemd.items():
            assert b"READY=1" in said.recv(999), service
            assert b"WATCHDOG=1" in said.recv(999), service
            (directory,) = unit(service)["Service"]["RuntimeDirectory"]
            assert (tmp_path / directory / "health").is_file(), service
        _wait_open(port, tmp_path / "notify-flower.service.log")
        _wait_open(door, tmp_path / "notify-gateway.service.log")
        _wait_open(teller, tmp_path / "notify-exporter.service.log")

        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        assert {service: process.wait(60) for service, process in processes.items()} == dict.fromkeys(
            processes, 0
        )


def _wait_open(port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        else:
            return
