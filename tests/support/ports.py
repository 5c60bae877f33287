"""Ports for servers that cannot choose one themselves."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from typing import Final

PORTS: Final = range(10_000, 15_000)
"""Below the ports of outgoing connections, which take one at any time, and of the embedded servers."""


def free_port() -> int:
    """A port that nobody holds now."""
    for port in random.SystemRandom().sample(PORTS, 50):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no free port between {PORTS.start} and {PORTS.stop}; stop what holds them")
