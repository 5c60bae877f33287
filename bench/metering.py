"""`python -m bench.metering`: P11, what metrics and structured logs cost a worker. It takes about two minutes.

Single text messages by one hop, the full durable path. One kind of worker counts, is scraped once a second (Prometheus
asks ten times less often) and writes JSON; the other counts nothing and writes plain lines; a third counts and writes
plain lines. They take turns, each on a loaded queue while the others are stopped. Task events, which are off unless
Flower is told to listen, are measured by `bench.watching`.
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import redis

from bench import machine
from bench.report import Line, progress, table
from bench.rig import SMS_QUEUE, Rig, Workers, running_rig
from bench.sending import LONGEST, PAYLOAD, PHONE, WARM_UP, Variant, drain
from notify_tasks import send_notification
from notify_tasks.supervising import worker_spec

GOAL: Final = 0.92
SCRAPE_EVERY: Final = 1.0
KINDS: Final[Mapping[str, Mapping[str, str]]] = {
    "off": {"NOTIFY_LOG_FORMAT": "plain"},
    "metrics": {"NOTIFY_LOG_FORMAT": "plain", "NOTIFY_METRICS_PORT": "auto"},
    "metrics and JSON": {"NOTIFY_LOG_FORMAT": "json", "NOTIFY_METRICS_PORT": "auto"},
}


def main() -> int:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(prog="python -m bench.metering", description=__doc__)
    parser.add_argument("--messages", type=int, default=600, help="in each run (default 600)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each kind (default 5)")
    parser.add_argument("--threads", type=int, default=8, help="of the worker (default 8)")
    parser.add_argument("--seed", type=int, default=20_261_123, help="of the far end")
    asked = parser.parse_args()
    before = machine.load()
    with running_rig(asked.seed) as rig:
        about = machine.describe(rig.redis.url, rig.postgres.url)
        variants = [_start(rig, title, variables, asked.threads) for title, variables in KINDS.items()]
        for repeat in range(1, asked.repeats + 1):
            for variant in variants:
                with _scraped(rig, variant):
                    spent = drain(rig, variant, asked.messages)
                variant.runs.append(spent)
                progress(
                    f"{repeat}/{asked.repeats} {variant.title}: {spent.rate:.0f}/s, {spent.worker:,.0f} us"
                )
    base, *others = variants
    lines = []
    for it in others:
        lines += [
            Line(f"P11 {it.title} / off, rate", it.median("rate"), base.median("rate"), "/s", GOAL),
            Line(
                f"P11 {it.title} / off, CPU of the worker", it.median("worker"), base.median("worker"), "us"
            ),
        ]
    print("\n".join(about))
    print(
        f"load before {before}, after {machine.load()}; {asked.repeats} repeats of {asked.messages} messages, medians\n"
    )
    print(table(lines))
    return 0


def _start(rig: Rig, title: str, variables: Mapping[str, str], threads: int) -> Variant:
    progress(f"start of a worker: {title}")
    name = f"metered-{title.replace(' ', '-')}"
    rig.supervisor.start(replace(worker_spec(name, [SMS_QUEUE], threads=threads), environment=variables))
    client: redis.Redis = redis.Redis.from_url(rig.redis.url)
    variant = Variant(title, Workers([name], SMS_QUEUE, client, rig.supervisor), _put)
    for _ in range(WARM_UP):
        variant.put()
    variant.workers.drain(seconds=LONGEST)
    variant.workers.freeze()
    return variant


def _put() -> None:
    send_notification.delay("order.shipped", to={"phone": PHONE}, channels=["sms"], payload=PAYLOAD)


@contextmanager
def _scraped(rig: Rig, variant: Variant) -> Iterator[None]:
    """Ask for its metrics meanwhile, as Prometheus does."""
    (name,) = variant.workers.names
    found = re.search(r"metrics on port (\d+)", rig.supervisor.log_path(name).read_text(errors="replace"))
    if found is None:
        yield
        return
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(SCRAPE_EVERY):
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/metrics", timeout=60) as answer:
                answer.read()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    yield
    ended.set()


if __name__ == "__main__":
    sys.exit(main())
