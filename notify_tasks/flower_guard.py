"""A door before Flower: nothing is answered to who has not said who they are. Loaded by Flower's process alone.

Flower leaves some of its paths open whatever its settings: `/metrics`, `/healthcheck`, its static files, pages that are
not there. Here the question comes before the path: without the password everything is 401. With a login elsewhere
(FLOWER_AUTH) the way there must stay open: then the login, its files and its end are, and the two are not exposed.
"""

from __future__ import annotations

import hmac
import os
from base64 import b64decode
from collections.abc import Sequence
from typing import Any, Final

from flower.app import Flower
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.web import RequestHandler

from notify_tasks import health_server
from notify_tasks.health import EVERY_SECONDS, Pulse
from notify_tasks.settings import Settings

NOT_EXPOSED: Final = ("/metrics", "/healthcheck")


class Refused(RequestHandler):
    """Says only that a password is needed."""

    def check_xsrf_cookie(self) -> None:
        """The password comes first."""

    def prepare(self) -> None:
        self.set_status(401)
        self.set_header("WWW-Authenticate", 'Basic realm="flower"')
        self.set_header("Cache-Control", "no-store")
        self.finish("a user and a password are needed\n")


def install(options: Any) -> None:
    """Put the door before every Flower application of this process.

    Args:
        options: Flower's, as they are in force.
    """
    accounts = [account.encode() for account in options.basic_auth or ()]
    find = Flower.find_handler
    prefix = f"/{options.url_prefix.strip('/')}" if options.url_prefix else ""

    def find_behind_the_door(self: Flower, request: HTTPServerRequest, **given: Any) -> Any:
        allowed = (
            _knows(request, accounts) if accounts else request.path.removeprefix(prefix) not in NOT_EXPOSED
        )
        if not allowed:
            return self.get_handler_delegate(request, Refused)
        return find(self, request, **given)

    Flower.find_handler = find_behind_the_door


def _knows(request: HTTPServerRequest, accounts: Sequence[bytes]) -> bool:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    try:
        said = b64decode(given.strip(), validate=True) if kind.lower() == "basic" else b""
    except ValueError:
        return False
    found = [hmac.compare_digest(account, said) for account in accounts]  # all of them, whichever fits
    return any(found)


def live(current: Settings) -> None:
    """Give signs of life from Flower's own loop, and answer for them on NOTIFY_HEALTH_PORT.

    Args:
        current: names the port and the broker.

    Raises:
        NotConfigured: the port cannot be had.
    """
    pulse = Pulse(os.environ, asked=current.health_port is not None)
    if not pulse.wanted:
        return

    def beat() -> None:
        pulse.beat("showing")

    IOLoop.current().add_callback(beat)
    PeriodicCallback(beat, EVERY_SECONDS * 1000).start()
    broker = health_server.of_broker(current.need_broker_url())
    health_server.serve(
        "flower", [health_server.of_pulse(pulse), health_server.of_start(pulse), broker], current
    )
