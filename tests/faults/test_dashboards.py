"""Dashboards and alerts over a fleet under load: a real Prometheus scrapes it, every query shows something."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from deploy.dashboards import CHOSEN, dashboards, filled, panels, queries
from support.ports import free_port

from notify_tasks import settings
from notify_tasks.demo import stage as demo
from notify_tasks.demo.stage import Stage, open_stage
from notify_tasks.errors import MaybeAccepted, NotAccepted
from notify_tasks.producer import send_notification
from notify_tasks.supervising import Spec

pytestmark = pytest.mark.long

log = logging.getLogger(__name__)
PROMETHEUS = Path(__file__).parents[2] / "deploy/prometheus"
SECOND = "1s"
"""Between two looks, instead of ten: the queries are the same, and there is something to see sooner."""

RATE = {"NOTIFY_PROVIDERS__SMTP_MAIN__RATE": "3/s"}
"""So little that some have to wait."""
MEMORY = "256mb"
BROKEN = "sendgrid"


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A server that scrapes the fleet."""

    url: str

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression, now."""
        words = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{words}", timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success", expression
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def firing(self) -> set[str]:
        """The alerts that fire."""
        return {it["metric"]["alertname"] for it in self.ask('ALERTS{alertstate="firing"}')}


def rewritten(targets: Mapping[str, Mapping[str, int]], port: int) -> dict[str, Any]:
    """The repository's prometheus.yml, with the ports of this machine.

    Args:
        targets: by job, by service: the port.
        port: Prometheus' own.
    """
    found: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    found["global"] |= {"scrape_interval": SECOND, "scrape_timeout": SECOND, "evaluation_interval": SECOND}
    ports = {**targets, "prometheus": {"prometheus": port}}
    for job in found["scrape_configs"]:
        for key in ("dns_sd_configs", "relabel_configs", "static_configs"):
            job.pop(key, None)
        job["static_configs"] = [
            {"targets": [f"127.0.0.1:{each}"], "labels": {"service": service}}
            for service, each in ports[job["job_name"]].items()
        ]
    return found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, dict[str, dict[str, int]]]]:
    """The demo's fleet, each of whose workers tells its metrics, and an exporter."""
    directory = tmp_path_factory.mktemp("dashboards")
    ports: dict[str, int] = {}
    doors: dict[str, int] = {}
    specs_of = demo.specs

    def with_metrics(*arguments: Any) -> list[Spec]:
        made = []
        for spec in specs_of(*arguments):
            if "worker" in spec.command:
                ports[spec.name] = free_port()
                more = {"NOTIFY_METRICS_PORT": str(ports[spec.name]), **RATE}
                made.append(replace(spec, environment={**spec.environment, **more}))
            else:
                if spec.name == "gateway":
                    doors["gateway"] = int(spec.command[-1])
                made.append(spec)
        return made

    patch = pytest.MonkeyPatch()
    patch.setattr(demo, "specs", with_metrics)
    patch.setattr(demo, "GATEWAY_PORT", 0)  # other tests may start a demo at the same moment
    patch.setattr(demo, "FLOWER_PORT", 0)
    with ExitStack() as stack:
        stack.callback(patch.undo)
        stage = stack.enter_context(
            open_stage(directory, lambda line: log.info("%s", line), lambda _: None, lambda *_: None)
        )
        exporter = free_port()
        entry = "import sys; from notify_tasks.cli import main; sys.exit(main())"
        command = (sys.executable, "-c", entry, "exporter", "--port", str(exporter))
        stage.supervisor.start(Spec("exporter", command))
        with redis.Redis.from_url(stage.redis.url) as client:
            client.config_set("maxmemory", MEMORY)  # the share of it that is used can be told
        settings.reset()
        settings.configure(broker_url=stage.redis.url, database_url=stage.postgres.url)
        stack.callback(settings.reset)
        yield (
            stage,
            {"notify-worker": ports, "notify-gateway": doors, "notify-exporter": {"exporter": exporter}},
        )


@pytest.fixture(scope="module")
def prometheus(
    fleet: tuple[Stage, dict[str, dict[str, int]]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed here (Debian, Ubuntu: apt install prometheus)")
    directory = tmp_path_factory.mktemp("prometheus")
    shutil.copytree(PROMETHEUS / "rules", directory / "rules")
    port = free_port()
    (directory / "prometheus.yml").write_text(yaml.safe_dump(rewritten(fleet[1], port)))
    with (directory / "log").open("wb") as out:
        process = subprocess.Popen(
            [
                "prometheus", f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=out, stderr=out,
        )  # fmt: skip
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait("Prometheus is ready", lambda: _ready(server), 60)
        yield server
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def load(fleet: tuple[Stage, dict[str, dict[str, int]]]) -> Iterator[None]:
    """Calls over several channels, lanes and types, until the module ends."""
    ended = threading.Event()
    thread = threading.Thread(target=_send, args=(ended,), daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join(30)


def _send(ended: threading.Event) -> None:
    order = {"order_id": 981, "carrier": "DHL"}
    reset = {"reset_url": "https://example.com/r/1", "expires_minutes": 10}
    number = 0
    while not ended.wait(0.1):
        number += 1
        mail = f"person-{number}@example.com"
        calls: Sequence[tuple[str, dict[str, str], dict[str, Any], list[str] | None]] = (
            ("order.shipped", {"email": mail, "sms": "+447700900123"}, order, None),
            ("account.password_reset", {"email": mail}, reset, None),
            ("order.shipped", {"email": f"reject-{mail}"}, order, ["email"]),
        )
        event_type, to, payload, channels = calls[number % len(calls)]
        with suppress(MaybeAccepted, NotAccepted):
            send_notification.delay(event_type, to=to, payload=payload, channels=channels)


def wait(what: str, condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


def _ready(server: Prometheus) -> bool:
    with suppress(OSError):
        return bool(server.ask("up"))
    return False


def _all_queries() -> list[tuple[str, str]]:
    chosen = {**CHOSEN, "__rate_interval": "20s"}
    named = dict(queries())
    found = [
        (f"{name}: {panel['title']} {target['refId']}", filled(target["expr"], chosen))
        for name, dashboard in dashboards().items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]
    return [*found, *((where, named[where]) for where in named if ": $" in where)]


@pytest.fixture(scope="module")
def outage(
    prometheus: Prometheus, load: None, fleet: tuple[Stage, dict[str, dict[str, int]]]
) -> Iterator[float]:
    """One of two mail providers answers 500; the time since when."""
    wait(
        "every process answers", lambda: not prometheus.ask("up == 0") and len(prometheus.ask("up")) >= 9, 90
    )
    wait("it is called", lambda: prometheus.ask(f'notify_attempts_total{{provider="{BROKEN}"}}'), 90)
    assert not prometheus.firing() & {"NotifyProviderDown", "NotifyProviderErrors"}
    fleet[0].sandbox.set_mode(BROKEN, "500")
    yield time.monotonic()
    fleet[0].sandbox.clear_modes(BROKEN)


@pytest.mark.timeout(300)
def test_a_provider_that_answers_500_fires_its_alert_within_two_minutes(
    prometheus: Prometheus, outage: float
) -> None:
    left = outage + 120 - time.monotonic()
    wait("the alert", lambda: {"NotifyProviderDown", "NotifyProviderErrors"} & prometheus.firing(), left)
    log.info("%s after %.0f s", prometheus.firing(), time.monotonic() - outage)
    left_out = f'notify_provider_left_out{{provider="{BROKEN}", reason="down"}} > 0'
    wait("the dashboards show it", lambda: prometheus.ask(left_out), 60)


@pytest.mark.timeout(300)
def test_every_query_of_the_dashboards_has_something_to_show(prometheus: Prometheus, outage: float) -> None:
    left = dict(_all_queries())
    deadline = time.monotonic() + 120
    while left and time.monotonic() < deadline:
        left = {where: expr for where, expr in left.items() if not prometheus.ask(expr)}
        time.sleep(1)
    assert not left, "\n".join(f"{where}: {expr}" for where, expr in left.items())


@pytest.mark.timeout(300)
def test_a_provider_that_is_well_again_clears_its_alert(
    prometheus: Prometheus, outage: float, fleet: tuple[Stage, dict[str, dict[str, int]]]
) -> None:
    wait("the alert", lambda: "NotifyProviderDown" in prometheus.firing(), 120)
    fleet[0].sandbox.clear_modes(BROKEN)
    wait("it is over", lambda: "NotifyProviderDown" not in prometheus.firing(), 120)


@pytest.mark.timeout(300)
def test_rules_say_what_they_mean_in_words_and_none_fails(prometheus: Prometheus, outage: float) -> None:
    with urllib.request.urlopen(f"{prometheus.url}/api/v1/rules", timeout=10) as answer:
        groups = json.load(answer)["data"]["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        assert rule["health"] == "ok", (rule["name"], rule.get("lastError"))
        for alert in rule.get("alerts", []):
            said = " ".join(alert["annotations"].values())
            assert not re.search(r"<error|<no value>|\{\{", said), said
