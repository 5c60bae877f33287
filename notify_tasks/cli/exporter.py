"""`notify exporter`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading

from notify_tasks import logs, settings
from notify_tasks.cli.context import find_fleet
from notify_tasks.exporter.serving import serve
from notify_tasks.health import EVERY_SECONDS, Pulse
from notify_tasks.supervising import end_with_parent


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    find_fleet()
    logs.configure("exporter")
    end_with_parent()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    exporter, exposed = serve(settings.get(), options.host, options.port, prefix=options.key_prefix)
    logging.getLogger(__name__).info("ready: metrics on port %d of %s", exposed.port, exposed.host)
    pulse = Pulse(os.environ)
    while not ended.wait(EVERY_SECONDS):
        pulse.beat("answering", None if exporter.live().status == 200 else "a part is not looked at")  # noqa: PLR2004
    exposed.close()
    exporter.stop()
    return 0
