"""P13: kept connections against a connection for each message, by mail and by HTTP, over TLS."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.far_end import FarEnd, running_far_end
from bench.report import Line, progress
from channels.contract import Deadline, EmailContent, Message, Provider
from channels.loader import load

GOALS: Final = {"SMTP": 2.5, "HTTP": 3.0}
CHUNK: Final = 20
CALL_SECONDS: Final = 30.0
TEXT: Final = "Your order has been shipped and will arrive soon.\n" * 60
HTML: Final = "<p>Your order has been shipped and will arrive soon.</p>\n" * 60


def measure(*, messages: int, repeats: int) -> list[Line]:
    """Send through one thread, in turns: with the pool, and with its connections closed after every message.

    Args:
        messages: of each kind in each run.
        repeats: runs of each kind.
    """
    progress(f"P13: {messages} messages of each kind, {repeats} times")
    lines = []
    with (
        tempfile.TemporaryDirectory(prefix="notify-bench-") as directory,
        running_far_end(Path(directory)) as far,
    ):
        for name, provider in _providers(far).items():
            lines += _compare(name, provider, messages, repeats)
            provider.close()
    return lines


def _providers(far: FarEnd) -> dict[str, Provider]:
    sender = "Example Shop <hello@shop.example>"
    smtp = {"url": far.smtp_url, "sender": sender, "ca_file": far.ca_file, "connection_messages": 10_000}
    http = {"url": far.https_url, "sender": sender, "ca_file": far.ca_file, "api_key": "SG.bench"}
    return {"SMTP": load("email.smtp", "bench", smtp), "HTTP": load("email.sendgrid", "bench", http)}


def _compare(name: str, provider: Provider, messages: int, repeats: int) -> list[Line]:
    number = 0

    def send() -> None:
        nonlocal number
        number += 1
        provider.send(_message(number), Deadline(CALL_SECONDS))

    def alone() -> None:
        send()
        provider.close()

    kinds: dict[str, Callable[[], None]] = {"kept": send, "new": alone}
    wall: dict[str, list[float]] = {kind: [] for kind in kinds}
    cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(max(repeats, messages * repeats // CHUNK)):
        for kind, run in kinds.items():
            send()  # the first of a chunk may open a connection, which is not what is compared
            before, cpu_before = time.perf_counter(), time.thread_time()
            for _ in range(CHUNK):
                run()
            wall[kind].append((time.perf_counter() - before) / CHUNK)
            cpu[kind].append((time.thread_time() - cpu_before) / CHUNK)
    rate = {kind: 1 / statistics.median(times) for kind, times in wall.items()}
    spent = {kind: statistics.median(times) * 1e6 for kind, times in cpu.items()}
    how = "SMTP with STARTTLS and AUTH" if name == "SMTP" else "HTTPS"
    return [
        Line(f"P13 {how}, kept connection, messages", rate["kept"], rate["new"], "/s", GOALS[name]),
        Line(f"P13 {how}, client CPU a message", spent["kept"], spent["new"], "us", least=False),
    ]


def _message(number: int) -> Message:
    id_ = f"00000000-0000-7000-8000-{number:012d}"
    content = EmailContent("Your order is on its way", TEXT, HTML)
    return Message(id_, id_, "email", "order.shipped", "ana@example.com", content)
