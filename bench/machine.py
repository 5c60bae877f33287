"""What is read from the machine: CPU time of process trees, load, versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import psutil
import psycopg
import redis


def cpu_seconds(*roots: int) -> float:
    """User and system time of these process trees, with that of children which have ended."""
    total = 0.0
    for root in roots:
        try:
            tree = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for process in tree:
            try:
                total += sum(process.cpu_times()[:4])
            except psutil.NoSuchProcess:
                continue
    return total


def thread_seconds(roots: Iterable[int]) -> tuple[float, float]:
    """CPU time of the main threads of these processes, and of all their other threads."""
    main = others = 0.0
    for root in roots:
        for thread in psutil.Process(root).threads():
            spent = thread.user_time + thread.system_time
            if thread.id == root:
                main += spent
            else:
                others += spent
    return main, others


def load() -> str:
    """The load averages of 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def describe(redis_url: str, postgres_url: str) -> list[str]:
    """The machine and the versions of what takes part, as lines."""
    client: redis.Redis = redis.Redis.from_url(redis_url)
    facts: dict[str, object] = client.info("server")
    persistence = client.config_get("appendfsync")
    client.close()
    with psycopg.connect(postgres_url) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()
            for name in ("server_version", "fsync", "synchronous_commit")
        }
    postgres = {name: row[0] if row else "?" for name, row in shown.items()}
    store = (
        f"Valkey {facts['valkey_version']}"
        if "valkey_version" in facts
        else f"Redis {facts['redis_version']}"
    )
    libraries = ", ".join(f"{name} {version(name)}" for name in ("celery", "kombu", "redis", "psycopg"))
    return [
        f"{os.cpu_count()} CPUs ({_model()}), Python {platform.python_version()}, {libraries}",
        (
            f"{store} (append-only file, {', '.join(str(value) for value in persistence.values())}), "
            f"PostgreSQL {postgres['server_version']} (fsync {postgres['fsync']}, "
            f"synchronous_commit {postgres['synchronous_commit']})"
        ),
    ]


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown model"
    )
