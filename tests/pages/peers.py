"""Who else is there in the tests of the sandbox page: senders that know nothing of our providers, a server that must
hear nothing, and the arithmetic of colours."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from typing import Any

from notify_tasks.sandbox import Sandbox

_numbers = itertools.count(1)


class Sender:
    """Sends to a far end as providers do."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    def mail(
        self, message: EmailMessage, to: str = "ann@example.com", delivery_id: str | None = None
    ) -> None:
        """One mail, in TLS and with a password, as the far end asks for."""
        ready = self.sandbox.ready
        message["From"] = "Example Shop <hello@shop.example>"
        message["To"] = to
        if delivery_id is not None:
            message["X-Notify-Delivery"] = delivery_id
        with smtplib.SMTP("127.0.0.1", ready.smtp_port, timeout=10, local_hostname="test") as client:
            client.starttls(context=ssl.create_default_context(cafile=self.sandbox.ca_file))
            client.login(ready.smtp_user, ready.smtp_password)
            client.send_message(message, "hello@shop.example", [to])

    def post(
        self, channel: str, to: str, content: dict[str, Any], delivery_id: str | None = None
    ) -> http.client.HTTPResponse:
        """One message of another channel; the answer, read."""
        body = {
            "to": to,
            "capability": "idempotent",
            "content": content,
            "delivery_id": delivery_id or f"d-{next(_numbers)}",
            "idempotency_key": f"key-{next(_numbers)}",
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.sandbox.ready.http_port, timeout=10)
        try:
            connection.request("POST", f"/v1/{channel}/messages", json.dumps(body))
            response = connection.getresponse()
            response.read()
        finally:
            connection.close()
        return response


def letter(subject: str, text: str = "Hello", html: str | None = None) -> EmailMessage:
    """A mail without its addresses."""
    made = EmailMessage()
    made["Subject"] = subject
    made.set_content(text)
    if html is not None:
        made.add_alternative(html, subtype="html")
    return made


class Canary:
    """Somebody else's server, which must hear nothing: no request, and not even a connection."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self.heard: list[bytes] = []
        self.url = f"http://127.0.0.1:{server.getsockname()[1]}"

    def listen(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(0.5)
                try:
                    self.heard.append(peer.recv(4096))
                except OSError:
                    self.heard.append(b"a connection")


@contextmanager
def canary() -> Iterator[Canary]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = Canary(server)
        thread = threading.Thread(target=made.listen)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def tokens(css: str) -> dict[str, tuple[str, str]]:
    """The colours of a style sheet: light and dark, by name."""
    pairs = re.findall(r"--([\w-]+):\s*light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", css)
    return {name: (light, dark) for name, light, dark in pairs}


def contrast(one: str, other: str) -> float:
    """Of two colours, by WCAG 2.2."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
