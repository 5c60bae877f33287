"""What the sandbox providers of all channels share: a JSON POST to the sandbox's far end.

Which outcome is which error is in `channels._http_outcomes`.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from channels._options import refuse_unknown, wrong_option
from channels.contract import (
    Accepted,
    AddressInvalid,
    Attachment,
    Capability,
    ChatContent,
    Content,
    DataContent,
    Deadline,
    EmailContent,
    Message,
    Refused,
    TextContent,
)
from channels.http import Answer, Client, Meaning

_CONTENTS: Final[Mapping[str, type[Content]]] = {
    "email": EmailContent,
    "sms": TextContent,
    "push": DataContent,
    "webpush": DataContent,
    "inapp": DataContent,
    "webhook": DataContent,
    "chat": ChatContent,
}
_STATUSES: Final[Mapping[int, Meaning]] = {
    404: (AddressInvalid, "the provider does not know the address"),
    410: (AddressInvalid, "the provider says that the address is gone"),
}
_OPTIONS: Final = ("url", "kind", "connections")


class SandboxProvider:
    """Sends one channel's messages to the sandbox.

    Args:
        channel: `sms` and so on.
        name: of the provider in the configuration.
        url: of the HTTP far end.
        capability: how the far end shall treat a repeated key, and so what can be learnt of a lost answer.
        connections: how many it may hold open.
    """

    def __init__(self, channel: str, name: str, url: str, capability: Capability, connections: int) -> None:
        self._channel = channel
        self._name = name
        self._target = f"/v1/{channel}/messages"
        self._capability = capability
        self._client = Client(url, connections=connections)

    def __repr__(self) -> str:
        return f"<{self._channel}.sandbox {self._name!r}, {self._capability}>"

    @property
    def capability(self) -> Capability:
        return self._capability

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one message over in one POST.

        Raises:
            ChannelError: as the tables of this module say.
        """
        answer = self._client.request(
            "POST",
            self._target,
            deadline,
            body=_body(message, self._channel, self._capability),
            headers={"Content-Type": "application/json", "Idempotency-Key": message.idempotency_key},
        )
        if (failure := answer.failure(self._capability, _STATUSES)) is not None:
            raise failure
        return _accepted(answer)

    def close(self) -> None:
        self._client.close()


class QueryableSandbox(SandboxProvider):
    """A sandbox that can be asked what became of a request."""

    def find(self, message: Message, deadline: Deadline) -> Accepted | None:
        """Ask for the acceptance of this message's key.

        Raises:
            ChannelError: there was no clear answer. Whatever it is, it says nothing of the request that was
                asked for. Asking is harmless, so a lost answer is `TryLater`.
        """
        query = urlencode({"key": message.idempotency_key})
        answer = self._client.request("GET", f"{self._target}?{query}", deadline, harmless=True)
        if answer.status == HTTPStatus.NOT_FOUND:  # here the answer "no", not a dead address
            return None
        failure = answer.failure(Capability.IDEMPOTENT, _STATUSES)
        if failure is not None:
            raise failure
        return _accepted(answer)


def _accepted(answer: Answer) -> Accepted:
    found = answer.identifier("id")
    return Accepted(found, str(answer.status) if found else f"{answer.status} unreadable")


def build(channel: str, name: str, options: Mapping[str, Any]) -> SandboxProvider:
    """Build a channel's sandbox provider.

    Args:
        channel: `sms` and so on.
        name: of the provider in the configuration.
        options: `url` of the sandbox's HTTP far end (`http://127.0.0.1:8025`); `kind`: `idempotent` (the
            default), `queryable` or `opaque`; `connections`: how many to hold open at most (32).

    Raises:
        Misconfigured: an option is missing, unknown or wrong.
    """
    refuse_unknown(name, f"{channel}.sandbox", options, _OPTIONS)
    url = options.get("url")
    if not isinstance(url, str) or not _is_origin(url):
        raise wrong_option(name, "url", "is not the address of the sandbox; write http://HOST:PORT")
    kind = options.get("kind", Capability.IDEMPOTENT.value)
    if kind not in [each.value for each in Capability]:
        kinds = ", ".join(each.value for each in Capability)
        raise wrong_option(name, "kind", f"is none that the sandbox can be; write one of {kinds}")
    connections = options.get("connections", 32)
    if isinstance(connections, bool) or not isinstance(connections, int) or connections < 1:
        raise wrong_option(name, "connections", "is no whole number from 1 on; write 32, say")
    capability = Capability(kind)
    made = QueryableSandbox if capability is Capability.QUERYABLE else SandboxProvider
    return made(channel, name, url, capability, connections)


def _is_origin(url: str) -> bool:
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    bare = parts._replace(scheme="", netloc="").geturl() in {"", "/"}
    return parts.scheme == "http" and named and bare and "@" not in parts.netloc


def _body(message: Message, channel: str, capability: Capability) -> bytes:
    wanted = _CONTENTS[channel]
    if not isinstance(message.content, wanted):
        raise Refused("content", f"{channel} carries {wanted.__name__}, not {type(message.content).__name__}")
    fields = dataclasses.fields(message.content)
    content = {each.name: getattr(message.content, each.name) for each in fields}
    if isinstance(message.content, EmailContent):
        content["attachments"] = [_attachment(each) for each in message.content.attachments]
    body = {
        "delivery_id": message.delivery_id,
        "idempotency_key": message.idempotency_key,
        "to": message.address,
        "content": content["data"] if wanted is DataContent else content,
        "capability": capability.value,
    }
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError):
        failure = Refused("content", "the rendered content is not JSON; correct its template")
    raise failure


def _attachment(attachment: Attachment) -> dict[str, str]:
    return {
        "name": attachment.name,
        "type": attachment.type,
        "content": base64.b64encode(attachment.content).decode(),
    }
