"""docker-compose.yml: what it says fits the fleet, and every service's command runs here, without containers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
import redis
import yaml
from deploy.compose import FILE, OURS, ROOT, Machine, Missing, Running, interpolate, read, seconds, stop
from support.ports import free_port

from notify_tasks.configuration.model import LONGEST_TIMEOUT
from notify_tasks.embedded import Server, postgres_server, valkey
from notify_tasks.embedded.postgres import binaries
from notify_tasks.routing import ALL_QUEUES
from notify_tasks.sandbox import credentials
from notify_tasks.watchdog import GIVE_UP_AFTER

VARIABLES = {
    "REDIS_PASSWORD": "redis-password",
    "POSTGRES_PASSWORD": "postgres-password",
    "FLOWER_PASSWORD": "flower-password",
    "GRAFANA_PASSWORD": "grafana-password",
}
ENDLESS = ("sandbox", "beat", "flower", "gateway", "worker", "maint", "exporter")
NOT_STARTED_HERE = {
    "grafana": "Debian has no package of it; what it is provisioned with is read by test_grafana.py",
    "prometheus": "Debian's own is started, on the same configuration, by tests/faults/test_dashboards.py",
}
"""Images of others whose commands no test of this file runs, with the reason."""
MAIL = ("account.password_reset", "--to", "email=ana@example.com", "--wait", "30", "--payload")
PAYLOAD = {"reset_url": "https://example.com/r/1", "expires_minutes": 10}


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    return read(VARIABLES)


@pytest.fixture(scope="module")
def ours(file: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in file["services"].items() if service["image"] == OURS}


def queues(service: dict[str, Any]) -> list[str]:
    words = service["command"]
    return words[words.index("--queues") + 1].split(",") if words[0] == "worker" else []


# --- what it says -------------------------------------------------------------------------------------


def test_every_queue_has_a_service_and_every_name_is_a_queue(ours: dict[str, Any]) -> None:
    consumed = [queue for service in ours.values() for queue in queues(service)]

    assert sorted(consumed) == sorted(ALL_QUEUES)  # once each: a queue is scaled by scaling its service
    assert not [
        name
        for name, it in ours.items()
        if queues(it) and ".high" in it["command"][-1] and name != "worker-high"
    ]


def test_workers_can_be_scaled(ours: dict[str, Any]) -> None:
    for name, service in ours.items():
        assert "container_name" not in service
        assert "hostname" not in service
        if service["command"][0] == "worker":
            assert "ports" not in service, name
            node = service["command"][service["command"].index("--hostname") + 1]
            assert node.endswith("@%h"), name  # %h is the container's own id


def test_nothing_is_open_to_other_machines_and_workers_reach_nothing_else(file: dict[str, Any]) -> None:
    published = {name: it["ports"] for name, it in file["services"].items() if "ports" in it}

    assert published == {
        "sandbox": ["127.0.0.1:8025:8025"],
        "gateway": ["127.0.0.1:8080:8080"],
        "flower": ["127.0.0.1:5555:5555"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    assert file["networks"]["fleet"] == {"internal": True}
    assert all(it["networks"] == ["fleet"] for name, it in file["services"].items() if name not in published)


def test_every_process_of_ours_is_confined_watched_and_restarted(ours: dict[str, Any]) -> None:
    for name, service in ours.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["logging"]["options"]["max-size"], name
        if service["command"][0] in ENDLESS:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][:3] == ["CMD", "notify", "health"], name
            assert service["deploy"]["resources"]["limits"]["memory"], name
        else:
            assert service["healthcheck"] == {"disable": True}, name


def test_a_worker_is_given_longer_than_its_longest_call(ours: dict[str, Any]) -> None:
    # Read, not imported: the worker's module makes its app the current one of whoever imports it.
    source = (ROOT / "notify_tasks/celery.py").read_text()
    grace = float(re.search(r"^GRACE_SECONDS: Final = ([\d.]+)", source, re.MULTILINE)[1])  # type: ignore[index]
    longest = LONGEST_TIMEOUT + GIVE_UP_AFTER + grace
    assert all(
        seconds(it["stop_grace_period"]) > longest for it in ours.values() if it["command"][0] == "worker"
    )


def test_what_a_service_waits_for_is_there_and_can_be_waited_for(file: dict[str, Any]) -> None:
    services = file["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert services[other]["healthcheck"].get("test"), (name, other)
            else:
                assert how["condition"] == "service_completed_successfully"
                assert services[other]["command"][0] == "migrate", (name, other)


def test_every_secret_must_be_set_and_the_example_names_them() -> None:
    example = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if re.match(r"\w", line)
    )
    assert {name for name, value in example.items() if not value} == set(VARIABLES)
    assert read(VARIABLES | {"NOTIFY_ENV": example["NOTIFY_ENV"]}) == read(VARIABLES)
    for name in VARIABLES:
        for without in ({**VARIABLES, name: ""}, {k: v for k, v in VARIABLES.items() if k != name}):
            with pytest.raises(Missing, match=rf"{name} is missing a value: set it in \.env"):
                read(without)


def test_no_secret_is_an_argument_and_each_service_knows_those_it_needs(file: dict[str, Any]) -> None:
    needs = {
        name: {word for word in VARIABLES.values() if word in json.dumps(service.get("environment", {}))}
        for name, service in file["services"].items()
    }
    for service in file["services"].values():
        assert not [word for word in VARIABLES.values() if word in json.dumps(service.get("command", []))]
    assert needs["beat-1"] == needs["beat-2"] == {"redis-password"}
    assert needs["flower"] == {"redis-password", "flower-password"}
    assert needs["migrate"] == {"postgres-password"}
    assert needs["exporter"] == {"redis-password", "postgres-password"}
    assert needs["grafana"] == {"grafana-password"}
    assert needs["prometheus"] == set()


def test_what_is_not_ours_is_run_by_a_test_or_listed_with_its_reason(file: dict[str, Any]) -> None:
    others = {name for name, it in file["services"].items() if it["image"] != OURS}
    assert others == {"redis", "postgres", *NOT_STARTED_HERE}


def test_prometheus_asks_every_worker_and_the_exporter_where_they_answer(
    file: dict[str, Any], ours: dict[str, Any]
) -> None:
    configuration = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    jobs = {it["job_name"]: it for it in configuration["scrape_configs"]}
    (found,) = jobs["notify-worker"]["dns_sd_configs"]
    asked = {name for name, it in ours.items() if it["command"][0] == "worker"}
    assert set(found["names"]) == asked
    for name in asked:
        environment = ours[name]["environment"]
        assert (environment["NOTIFY_METRICS_HOST"], int(environment["NOTIFY_METRICS_PORT"])) == (
            "0.0.0.0",
            found["port"],
        )
    (gateway,) = jobs["notify-gateway"]["dns_sd_configs"]
    assert gateway["names"] == ["gateway"]
    assert str(gateway["port"]) == ours["gateway"]["command"][-1]
    command = ours["exporter"]["command"]
    (target,) = jobs["notify-exporter"]["static_configs"][0]["targets"]
    assert target == f"exporter:{command[command.index('--port') + 1]}"


def test_prometheus_and_grafana_are_given_the_files_that_they_read(file: dict[str, Any]) -> None:
    for name in ("prometheus", "grafana"):
        service = file["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        for volume in service["volumes"]:
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), source
                assert mode == ["ro"]
            else:
                assert source in file["volumes"], target
    grafana = file["services"]["grafana"]
    targets = {it.split(":")[1]: it.split(":")[0] for it in grafana["volumes"]}
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (ROOT / targets[str(home.parent)] / home.name).is_file()
    assert grafana["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert grafana["environment"]["GF_USERS_ALLOW_SIGN_UP"] == "false"
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"


def test_the_sandboxes_accounts_are_those_that_it_plays(file: dict[str, Any]) -> None:
    told = credentials.environment(
        Path("/var/lib/notify/sandbox"), "https://sandbox:8027", "http://gateway:8080/hooks"
    )
    for name in ("worker-push", "gateway", "sandbox"):
        assert told.items() <= file["services"][name]["environment"].items()


@pytest.mark.parametrize(
    ("text", "variables", "value"),
    [
        ("a ${A} b", {"A": "1"}, "a 1 b"),
        ("$${A}", {"A": "1"}, "${A}"),
        ("${A:-2}", {"A": ""}, "2"),
        ("${A-2}", {"A": ""}, ""),
        ("${A}", {}, ""),
    ],
)
def test_variables_are_read_as_compose_reads_them(text: str, variables: dict[str, str], value: str) -> None:
    assert interpolate(text, variables) == value


def test_compose_itself_finds_nothing_wrong() -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker's compose plugin is not installed here")
    done = subprocess.run(
        ["docker", "compose", "--file", str(FILE), "config", "--quiet"],
        env={**os.environ, **VARIABLES},
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- what it does -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with postgres_server(tmp_path_factory.mktemp("pg"), durable=False, use_environment=False) as server:
        yield server


@pytest.fixture(scope="module")
def variables(postgres: Server) -> dict[str, str]:
    return {**VARIABLES, "POSTGRES_PASSWORD": str(urlsplit(postgres.url).password)}


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory, file: dict[str, Any]) -> Iterator[int]:
    """The file's own configuration, run by the bundled server; the port and folders alone are the test's."""
    directory = tmp_path_factory.mktemp("valkey")
    settings = directory / "valkey.conf"
    settings.write_text(file["configs"]["valkey"]["content"])
    assert file["services"]["redis"]["command"] == ["valkey-server", "/etc/valkey/valkey.conf"]
    port = free_port()
    here = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen([str(valkey.binary()), str(settings), *here], stdout=log, stderr=log)
    try:
        yield port
    finally:
        server.terminate()
        assert server.wait(30) == 0


def test_redis_is_what_the_fleet_needs(redis_port: int) -> None:
    client = redis.Redis(port=redis_port, password=VARIABLES["REDIS_PASSWORD"])
    deadline = time.monotonic() + 20
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
    assert {name: client.config_get(name)[name] for name in wanted} == wanted
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=redis_port).ping()
    client.close()


def test_postgres_check_tells_a_server_that_is_up_from_one_that_is_not(
    file: dict[str, Any], postgres: Server
) -> None:
    kind, check = file["services"]["postgres"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    environment = {"PATH": f"{binaries()[0]}:/usr/bin:/bin"}

    def asked(port: int | None) -> int:
        return subprocess.run(
            ["sh", "-c", check], env={**environment, "PGPORT": str(port)}, capture_output=True, check=False
        ).returncode

    assert asked(postgres.port) == 0
    assert asked(free_port()) != 0


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, postgres: Server, redis_port: int, variables: dict[str, str]
) -> Machine:
    directory = tmp_path_factory.mktemp("compose")
    ports = {theirs: str(free_port()) for theirs in ("1025", "8025", "8026", "8027", "8080", "5555", "9464")}
    places = {
        "redis:6379": f"127.0.0.1:{redis_port}",
        "postgres:5432": f"127.0.0.1:{postgres.port}",
        "sandbox:1025": f"127.0.0.1:{ports['1025']}",
        "sandbox:8026": f"127.0.0.1:{ports['8026']}",
        "sandbox:8027": f"127.0.0.1:{ports['8027']}",
        "gateway:8080": f"127.0.0.1:{ports['8080']}",
        "0.0.0.0": "127.0.0.1",
        "/var/lib/notify": str(directory / "lib"),
        "/app": str(ROOT),
        **ports,
    }
    return Machine(directory, read(variables)["services"], places)


@pytest.mark.timeout(180)
def test_every_command_of_the_file_runs_is_healthy_sends_and_ends_in_order(machine: Machine) -> None:
    assert machine.run("migrate").returncode == 0

    with ExitStack() as stack:
        sandbox = machine.start("sandbox")
        stack.callback(_kill, sandbox)
        _wait_healthy(sandbox)
        running = [
            machine.start(name)
            for name, service in machine.services.items()
            if service["image"] == OURS
            and service["command"][0] in {"worker", "beat", "flower", "gateway", "exporter"}
        ]
        for it in running:
            stack.callback(_kill, it)
        assert len(running) == 15
        for it in running:
            _wait_healthy(it)

        for port in ("9464", "8080"):
            with urlopen(f"http://127.0.0.1:{machine.places[port]}/metrics", timeout=10) as answer:
                assert b"process_start_time_seconds" in answer.read()

        sent = machine.run("notify", "send", *MAIL, json.dumps(PAYLOAD))
        assert sent.returncode == 0, sent.stdout + sent.stderr + _tail(sandbox)
        assert re.search("via smtp-main: 250|via sendgrid: 202", sent.stderr)

        assert stop(running, 60) == {it.name: 0 for it in running}
        assert stop([sandbox], 30) == {"sandbox": 0}


def _wait_healthy(it: Running, within: float = 90) -> None:
    deadline = time.monotonic() + within
    while not it.healthy():
        assert it.process.poll() is None, f"{it.name} ended with {it.process.returncode}: {_tail(it)}"
        assert time.monotonic() < deadline, f"{it.name} is not healthy: {_tail(it)}"
        time.sleep(0.3)


def _kill(it: Running) -> None:
    """With whatever it has started: its session is its own."""
    with suppress(ProcessLookupError):
        os.killpg(it.process.pid, signal.SIGKILL)
    it.process.wait()


def _tail(it: Running) -> str:
    return Path(it.log).read_text(errors="replace")[-2000:]
