"""A collector of traces that is away, or takes and never answers, costs a process its spans and nothing else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.ports import free_port

ROOT = Path(__file__).parents[2]
SPANS = 5_000
WORK = f"""
import time
from notify_tasks import logs, tracing
logs.configure("worker-1@host")
tracing.start("worker-1@host")
slowest = 0.0
for n in range({SPANS}):
    began = time.perf_counter()
    with tracing.span("notify.deliver", delivery_id=n):
        pass
    slowest = max(slowest, time.perf_counter() - began)
began = time.perf_counter()
tracing.stop()
print(slowest, time.perf_counter() - began)
"""


@pytest.mark.parametrize("kind", ["refuses", "hangs"])
def test_a_collector_that_is_away_blocks_nothing_and_is_told_of_seldom(kind: str) -> None:
    with socket.socket() as silent:
        if kind == "hangs":
            silent.bind(("127.0.0.1", 0))
            silent.listen(8)  # connections are taken by the kernel, and nobody reads them
            port = silent.getsockname()[1]
        else:
            port = free_port()
        environment = {
            **os.environ,
            "NOTIFY_LOG_FORMAT": "json",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        done = subprocess.run(
            [sys.executable, "-c", WORK],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

    slowest, stopping = map(float, done.stdout.split())
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert slowest < 2.5, "a span has waited for the collector"  # one export takes three seconds at least
    assert stopping < 10
    assert (kind == "refuses") <= len(said) <= 6, done.stderr  # who hangs has not failed yet
    assert all(line["logger"].startswith("opentelemetry") for line in said)


def test_switched_on_without_the_extra_says_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; from notify_tasks import tracing; tracing.start('it')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "NOTIFY_TRACING": "true"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "pip install 'notify-tasks[tracing]', or set NOTIFY_TRACING=false" in done.stderr
