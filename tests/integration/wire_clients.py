"""How the tests of the sandbox's wires send, look at its page, and read its log."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from channels.contract import Accepted, ChannelError, Content, Message, Provider
from notify_tasks.sandbox import Sandbox
from tests.contract.conformance import a_message
from tests.support.wired import outcome


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


def ask(url: str, method: str, body: bytes | str = b"", headers: Mapping[str, str] | None = None) -> Answer:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, target, body, dict(headers or {}))
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, told, response.read())
    finally:
        connection.close()


def send(
    provider: Provider, channel: str, address: str, content: Content
) -> tuple[Message, Accepted | ChannelError]:
    """Hand one new message to a provider; what it made of the answer."""
    message = a_message(channel, address, content)
    return message, outcome(provider, message)


def shown(sandbox: Sandbox, id_: str | None) -> str:
    """What the page shows of a message, as HTML."""
    answer = ask(f"{sandbox.ready.page_url}/message/{id_}", "GET")
    assert answer.status == 200, answer
    return answer.body.decode()


def row(sandbox: Sandbox, id_: str | None) -> str:
    """The message's row in the page's list, as HTML."""
    html = ask(f"{sandbox.ready.page_url}/", "GET").body.decode()
    return html.partition(f'data-id="{id_}"')[2].partition("</li>")[0]


LOCAL: dict[str, Any] = {"allow_http": True, "allowed_private_cidrs": ["127.0.0.0/8"], "ports": "any"}
"""Options of providers that send to URLs of users: this machine is allowed."""
