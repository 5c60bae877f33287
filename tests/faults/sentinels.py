"""A primary with a replica and a sentinel that watches them, on this machine: Valkey, and Debian's redis-sentinel."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from integration.core_world import until
from support.ports import free_port

from notify_tasks.embedded import valkey

PASSWORD = "primary-password"
MASTER = "notify"


def sentinel_binary() -> Path | None:
    """Debian's; None where it is not installed."""
    found = shutil.which("redis-sentinel") or shutil.which("valkey-sentinel")
    return Path(found) if found else None


@dataclass(slots=True)
class Guided:
    """Servers by port; one sentinel."""

    directory: Path
    ports: tuple[int, int]
    sentinel_port: int
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """What `NOTIFY_BROKER_URL` is."""
        return f"sentinel://:{PASSWORD}@127.0.0.1:{self.sentinel_port}/0?master={MASTER}"

    def start(self, port: int, *words: str) -> None:
        """Start a server, and wait until it answers."""
        (self.directory / str(port)).mkdir(exist_ok=True)
        log = (self.directory / f"{port}.log").open("ab")
        with log:
            self.processes[port] = subprocess.Popen(words, stdout=log, stderr=log)
        until(lambda: self.answers(port), f"a server on port {port}", 30)

    def answers(self, port: int) -> bool:
        with suppress(redis.ConnectionError, redis.BusyLoadingError):
            return bool(self.client(port).ping())
        return False

    def client(self, port: int) -> redis.Redis:
        password = None if port == self.sentinel_port else PASSWORD
        return redis.Redis(port=port, password=password, socket_timeout=5, decode_responses=True)

    def primary(self) -> int:
        """Its port, as the sentinel says."""
        told: Any = self.client(self.sentinel_port).execute_command(
            "SENTINEL", "get-master-addr-by-name", MASTER
        )
        return int(told[1])

    def kill_primary(self) -> int:
        """SIGKILL, and wait until the other one has taken over; returns the port of the new one."""
        old = self.primary()
        self.processes[old].send_signal(signal.SIGKILL)
        self.processes[old].wait()
        until(lambda: self.primary() != old, "the sentinel names another primary", 60)
        new = self.primary()
        until(lambda: self.client(new).info("replication")["role"] == "master", "it has taken over", 60)
        return new


@contextmanager
def guided_redis(directory: Path) -> Iterator[Guided]:
    """Start them; stop them at the end."""
    sentinel = sentinel_binary()
    assert sentinel is not None
    guided = Guided(directory, (free_port(), free_port()), free_port())
    try:
        for n, port in enumerate(guided.ports):
            words = [
                *(str(valkey.binary()), "--port", str(port), "--bind", "127.0.0.1"),
                *("--dir", str(directory / str(port)), "--requirepass", PASSWORD, "--primaryauth", PASSWORD),
                *("--appendonly", "yes", "--save", "", "--repl-diskless-sync-delay", "0"),
            ]
            if n:
                words += ["--replicaof", "127.0.0.1", str(guided.ports[0])]
            (directory / str(port)).mkdir()
            guided.start(port, *words)
        replica = guided.client(guided.ports[1])
        until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica follows", 60)
        configuration = directory / "sentinel.conf"
        configuration.write_text(
            f"port {guided.sentinel_port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {guided.ports[0]} 1\n"
            f"sentinel auth-pass {MASTER} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {MASTER} 1000\n"
            f"sentinel failover-timeout {MASTER} 6000\n"
        )
        guided.start(guided.sentinel_port, str(sentinel), str(configuration))
        watch = guided.client(guided.sentinel_port)
        until(
            lambda: watch.execute_command("SENTINEL", "replicas", MASTER),
            "the sentinel knows the replica",
            60,
        )
        yield guided
    finally:
        for process in guided.processes.values():
            process.terminate()
        for process in guided.processes.values():
            process.wait(30)
