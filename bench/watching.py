"""`python -m bench.watching`: what it costs a worker to be watched, by task events, logs and traces. Four minutes.

Single text messages by one hop, the full durable path, one process of eight threads. The variants take turns, each on
a loaded queue while the others are stopped; what counts is the CPU of the worker. What reads along (Flower, a
collector) runs elsewhere and is not in it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import redis

from bench import machine
from bench.report import columns, progress
from bench.rig import SMS_QUEUE, Rig, Workers, running_rig, wait_until
from notify_tasks import send_notification
from notify_tasks.supervising import worker_spec

PAYLOAD: Final = {
    "order_id": 981,
    "carrier": "DHL",
    "tracking_url": "https://track.example.com/parcel?id=JD0146&lang=any",
    "customer_name": "Ana",
}
PHONE: Final = "+447700900101"
LONGEST: Final = 300.0
WARM_UP: Final = 60
CLOSED: Final = "http://127.0.0.1:9"
"""Nobody listens at the port of discard."""


@dataclass(slots=True)
class Variant:
    """One way of being watched."""

    title: str
    workers: Workers
    spent: list[float] = field(default_factory=list)
    """Microseconds of CPU a message, of each run."""


def main() -> int:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(prog="python -m bench.watching", description=__doc__)
    parser.add_argument("--messages", type=int, default=500, help="in each run (default 500)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each variant (default 5)")
    parser.add_argument("--seed", type=int, default=20_261_123, help="of the far end")
    asked = parser.parse_args()
    before = machine.load()
    with running_rig(asked.seed) as rig, _collector() as collected:
        about = machine.describe(rig.redis.url, rig.postgres.url)
        variants = _start(rig, collected)
        for repeat in range(1, asked.repeats + 1):
            for variant in variants:
                spent = _run(rig, variant.workers, asked.messages)
                variant.spent.append(spent)
                progress(f"{repeat}/{asked.repeats} {variant.title}: {spent:,.0f} us a message")
    print("\n".join(about))
    print(
        f"load before {before}, after {machine.load()}; {asked.repeats} repeats of {asked.messages} messages, medians\n"
    )
    print(_table(variants))
    return 0


def _start(rig: Rig, collector: str) -> list[Variant]:
    said: list[tuple[str, tuple[str, ...], Mapping[str, str]]] = [
        ("JSON logs, as in production", (), {}),
        ("plain logs", (), {"NOTIFY_LOG_FORMAT": "plain"}),
        ("no line below ERROR", ("--loglevel", "ERROR"), {}),
        ("JSON logs, task events", ("--task-events",), {}),
        ("JSON logs, traces collected", (), {"OTEL_EXPORTER_OTLP_ENDPOINT": collector}),
        ("JSON logs, collector away", (), {"OTEL_EXPORTER_OTLP_ENDPOINT": CLOSED}),
    ]
    variants = []
    for number, (title, options, variables) in enumerate(said, 1):
        progress(f"start of a worker: {title}")
        name = f"watched-{number}"
        spec = worker_spec(name, [SMS_QUEUE])
        rig.supervisor.start(
            replace(
                spec,
                command=(*spec.command, *options),
                environment={"NOTIFY_LOG_FORMAT": "json", **variables},
            )
        )
        client: redis.Redis = redis.Redis.from_url(rig.redis.url)
        workers = Workers([name], SMS_QUEUE, client, rig.supervisor)
        for _ in range(WARM_UP):
            _send()
        workers.drain(seconds=LONGEST)
        workers.freeze()
        variants.append(Variant(title, workers))
    return variants


def _send() -> None:
    send_notification.delay("order.shipped", to={"phone": PHONE}, channels=["sms"], payload=PAYLOAD)


def _run(rig: Rig, workers: Workers, messages: int) -> float:
    for _ in range(messages):
        _send()
    wait_until("the queue is loaded", lambda: workers.left() >= messages, seconds=60)
    pids = workers.pids()
    before = machine.cpu_seconds(*pids)
    workers.thaw()
    workers.drain(seconds=LONGEST)
    spent = machine.cpu_seconds(*pids) - before
    workers.freeze()
    if any(rig.supervisor.restarts(name) for name in workers.names):
        raise RuntimeError("a worker was started anew during a run; see its log")
    return spent / messages * 1e6


def _table(variants: list[Variant]) -> str:
    base = variants[0].spent
    rows = [("us of worker CPU a message", "median", "min-max", "of production's")]
    for variant in variants:
        median = statistics.median(variant.spent)
        spread = f"{min(variant.spent):,.0f}-{max(variant.spent):,.0f}"
        # Turn by turn: what else the machine does changes from minute to minute.
        ratio = statistics.median(one / other for one, other in zip(variant.spent, base, strict=True))
        rows.append((variant.title, f"{median:,.0f}", spread, f"{ratio:.2f}"))
    return columns(rows)


@contextmanager
def _collector() -> Iterator[str]:
    """Takes traces and forgets them; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    sys.exit(main())
