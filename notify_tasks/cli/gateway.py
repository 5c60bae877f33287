"""`notify gateway`."""

from __future__ import annotations

import argparse
import logging
import os

from notify_tasks import health_server, logs, settings, tracing
from notify_tasks.cli.context import find_fleet
from notify_tasks.errors import NotHere
from notify_tasks.gateway.app import application
from notify_tasks.gateway.health import PROCESS, checks
from notify_tasks.gateway.parts import opened
from notify_tasks.gateway.serving import listen, serve
from notify_tasks.health import Pulse
from notify_tasks.supervising import end_with_parent


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    find_fleet()
    logs.configure("gateway")
    tracing.start("gateway")
    end_with_parent()
    with opened(settings.get()) as parts:
        try:
            sock = listen(options.host, options.port)
        except OSError as error:
            place = f"port {options.port} on {options.host}"
            raise NotHere(f"{place} cannot be had ({error.strerror}); choose another with --port") from None
        host, port = sock.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        logger = logging.getLogger(__name__)
        pulse = Pulse(os.environ)
        health_server.serve(PROCESS, [health_server.of_pulse(pulse), *checks(parts)], settings.get())
        serve(
            application(parts),
            sock,
            lambda: logger.info("ready: http://%s:%d/hooks/<provider>", shown, port),
            lambda: pulse.beat("answering"),
        )
    tracing.stop()
    return 0
