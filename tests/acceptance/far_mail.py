"""The sandbox's SMTP far end within a test's own process, with the mails that it took."""

from __future__ import annotations

import asyncio
import email
import email.policy
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

from notify_tasks.sandbox.kept import Kept
from notify_tasks.sandbox.ready import Ready
from notify_tasks.sandbox.server import SandboxServer


@dataclass(frozen=True, slots=True)
class FarMail:
    """A running far end."""

    ready: Ready
    kept: Kept

    def to(self, address: str) -> list[EmailMessage]:
        """The mails that this address got."""
        return [
            email.message_from_bytes(arrival.raw, policy=email.policy.default)  # type: ignore[misc]
            for _, arrival in self.kept.newest()
            if arrival.to == address
        ]


@contextmanager
def far_mail(directory: Path) -> Iterator[FarMail]:
    """Run one, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    kept = Kept()
    server = SandboxServer(directory, kept=kept)
    try:
        ready = asyncio.run_coroutine_threadsafe(server.start(os.getpid()), loop).result(30)
        yield FarMail(ready, kept)
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
