"""`notify gateway`."""

from __future__ import annotations

import argparse
import logging
import sys

from notify_tasks import settings
from notify_tasks.cli.context import find_fleet
from notify_tasks.errors import NotHere
from notify_tasks.gateway.app import application
from notify_tasks.gateway.parts import opened
from notify_tasks.gateway.serving import listen, serve
from notify_tasks.supervising import end_with_parent

FORMAT = "[%(asctime)s: %(levelname)s] %(message)s"


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format=FORMAT, stream=sys.stderr)
    find_fleet()
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
        serve(
            application(parts), sock, lambda: logger.info("ready: http://%s:%d/hooks/<provider>", shown, port)
        )
    return 0
