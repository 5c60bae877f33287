"""`/livez`, `/readyz` and `/health` of a process of any kind, on NOTIFY_HEALTH_PORT.

    /livez    200 while it works or rightly waits; 503 where another process in its place would do better
    /readyz   200 while it can do its work now; 503 while something that it needs is away
    /health   the whole story as JSON: {status, process, timestamp, details: {subsystem: {status, said}}};
              503 where /readyz says 503

    status    ok | degraded (works, and something else is wrong) | not_ready | failed

Nobody is asked on the way that could make an answer slow: each subsystem is asked by a thread of its own, and one that
has not answered in time has failed. What is said holds no address and no secret. Without the port there is no server.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import redis

from notify_tasks import health, redis_place
from notify_tasks.errors import NotConfigured
from notify_tasks.health import Judgement, Pulse
from notify_tasks.settings import Settings

BUDGET: Final = 2.0
"""Seconds for all subsystems together."""
FRESH: Final = 1.0
"""Seconds for which an answer is good: however many ask, a server is asked once."""
START_SECONDS: Final = 120.0
"""A process that has given no sign of life yet is not dead for so long."""
OK: Final = 200
UNAVAILABLE: Final = 503


class Need(Enum):
    """What depends on a subsystem."""

    LIVE = "live"
    READY = "ready"
    SHOWN = "shown"


@dataclass(frozen=True, slots=True)
class Check:
    """One subsystem.

    Args:
        name: `database`, `broker`, `loop`.
        ask: says whether it is well. An exception means that it is not, and its kind alone is shown.
        need: what depends on it.
    """

    name: str
    ask: Callable[[], Judgement]
    need: Need = Need.READY


@dataclass(slots=True)
class _Asked:
    began: float = 0.0
    answered: float = 0.0
    judged: Judgement | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Health:
    """Judges a process.

    Args:
        process: its name, as its logs have it.
        checks: its subsystems.
    """

    def __init__(self, process: str, checks: Sequence[Check]) -> None:
        self._process = process
        self._checks = checks
        self._lock = threading.Lock()
        self._asked: dict[str, _Asked] = {}

    def live(self) -> tuple[int, str]:
        """What `/livez` says: an HTTP status, and words."""
        return self._said([it for it in self._checks if it.need is Need.LIVE], "alive")

    def ready(self) -> tuple[int, str]:
        """What `/readyz` says."""
        return self._said([it for it in self._checks if it.need is not Need.SHOWN], "ready")

    def whole(self) -> tuple[int, dict[str, Any]]:
        """What `/health` says: an HTTP status, and the document."""
        judged = self._judge(self._checks)
        ill = {it.need for it in self._checks if not judged[it.name].well}
        status = (
            "failed"
            if Need.LIVE in ill
            else "not_ready"
            if Need.READY in ill
            else "degraded"
            if ill
            else "ok"
        )
        document = {
            "status": status,
            "process": self._process,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "details": {
                name: {"status": "ok" if one.well else "failed", "said": one.said}
                for name, one in judged.items()
            },
        }
        return UNAVAILABLE if status in {"failed", "not_ready"} else OK, document

    def _said(self, checks: Sequence[Check], word: str) -> tuple[int, str]:
        ill = [f"{name}: {it.said}" for name, it in self._judge(checks).items() if not it.well]
        return (UNAVAILABLE, "; ".join(ill)) if ill else (OK, word)

    def _judge(self, checks: Sequence[Check]) -> dict[str, Judgement]:
        ends = time.monotonic() + BUDGET
        asked = {it.name: self._ask(it) for it in checks}
        found = {}
        for name, one in asked.items():
            if one.done.wait(max(0.0, ends - time.monotonic())) and one.judged is not None:
                found[name] = one.judged
            else:
                found[name] = Judgement(
                    well=False, said=f"no answer since {time.monotonic() - one.began:.0f} s"
                )
        return found

    def _ask(self, check: Check) -> _Asked:
        """What is known already, or a question that is under way: never two at once."""
        now = time.monotonic()
        with self._lock:
            last = self._asked.get(check.name)
            if last is not None and (not last.done.is_set() or now - last.answered < FRESH):
                return last
            asked = self._asked[check.name] = _Asked(began=now)
        threading.Thread(
            target=_answer, args=(check, asked), name=f"health-{check.name}", daemon=True
        ).start()
        return asked


def _answer(check: Check, asked: _Asked) -> None:
    try:
        asked.judged = check.ask()
    except Exception as error:  # noqa: BLE001 - whatever it is, the subsystem is not well
        asked.judged = Judgement(well=False, said=type(error).__name__)
    asked.answered = time.monotonic()
    asked.done.set()


# --- what most processes have -----------------------------------------------------------------------


def of_pulse(pulse: Pulse, name: str = "loop") -> Check:
    """The loop that does the work: its last sign of life. It decides whether a process is alive."""
    began = time.monotonic()

    def ask() -> Judgement:
        if pulse.last is None:
            waited = time.monotonic() - began
            return Judgement(
                well=waited < START_SECONDS, said=f"no sign of life yet, {waited:.0f} s after the start"
            )
        return health.judge_sign(pulse.last)

    return Check(name, ask, Need.LIVE)


def of_start(pulse: Pulse) -> Check:
    """Whether it has begun to work at all."""
    return Check(
        "started",
        lambda: Judgement(pulse.last is not None, "yes" if pulse.last is not None else "it is starting"),
    )


def of_broker(url: str, need: Need = Need.READY) -> Check:
    """Redis, by a PING."""
    client = redis_place.client(url, seconds=BUDGET)

    def ask() -> Judgement:
        try:
            client.ping()
        except redis.RedisError as error:
            return Judgement(well=False, said=f"Redis is away ({type(error).__name__})")
        return Judgement(well=True, said="Redis answers")

    return Check("broker", ask, need)


def of_database(probe: Callable[[], object]) -> Check:
    """PostgreSQL.

    Args:
        probe: returns where it answers and can be written; raises otherwise.
    """

    def ask() -> Judgement:
        try:
            probe()
        except Exception as error:  # noqa: BLE001 - the store's errors are not known here
            return Judgement(well=False, said=f"PostgreSQL is away ({type(error).__name__})")
        return Judgement(well=True, said="PostgreSQL answers")

    return Check("database", ask)


# --- the server -------------------------------------------------------------------------------------


def serve(process: str, checks: Sequence[Check], current: Settings) -> HealthServer | None:
    """Serve this process's health until it ends, on a thread; None where no port is set.

    Args:
        process: its name.
        checks: its subsystems.
        current: names the port.

    Raises:
        NotConfigured: the port cannot be had.
    """
    if current.health_port is None:
        return None
    try:
        server = HealthServer(Health(process, checks), current.health_host, current.health_port)
    except OSError as error:
        raise NotConfigured(
            f"NOTIFY_HEALTH_PORT: port {current.health_port} on {current.health_host} cannot be had "
            f"({error.strerror}). Give each process of this machine a port of its own, or none"
        ) from None
    server.start()
    return server


class HealthServer:
    """Answers over HTTP.

    Args:
        judged: the process's health.
        host: the address to listen on.
        port: the port; 0 for a free one.

    Raises:
        OSError: the port cannot be had.
    """

    def __init__(self, judged: Health, host: str, port: int) -> None:
        handler = type("Handler", (_Handler,), {"health": judged})
        self._server = _Server((host, port), handler)
        self.port: int = self._server.server_address[1]
        os.register_at_fork(after_in_child=self._server.socket.close)  # a child would keep the port

    def start(self) -> None:
        """Begin to answer."""
        threading.Thread(target=self._server.serve_forever, name="notify-health", daemon=True).start()

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A probe that hangs up says nothing about this process."""


class _Handler(BaseHTTPRequestHandler):
    health: Health
    timeout = 5.0

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/health":
            status, document = self.health.whole()
            self._send(status, json.dumps(document), "application/json")
            return
        answers: Mapping[str, Callable[[], tuple[int, str]]] = {
            "/livez": self.health.live,
            "/readyz": self.health.ready,
        }
        if path not in answers:
            self._send(404, "there are /livez, /readyz and /health")
            return
        status, words = answers[path]()
        self._send(status, words)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _send(self, status: int, words: str, kind: str = "text/plain; charset=utf-8") -> None:
        body = f"{words}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "notify-tasks"

    def log_message(self, *_: object) -> None:
        """Probes come every few seconds."""


__all__ = [
    "Check",
    "Health",
    "HealthServer",
    "Need",
    "of_broker",
    "of_database",
    "of_pulse",
    "of_start",
    "serve",
]
