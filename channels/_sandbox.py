"""What the sandbox providers of all channels share: a JSON POST to the sandbox's far end.

Which outcome is which error is in `channels._http_outcomes`.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3.exceptions as wire
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from channels._http_outcomes import parse_retry_after, status_error, transport_error
from channels.contract import (
    Accepted,
    Capability,
    ChannelError,
    ChatContent,
    Content,
    DataContent,
    Deadline,
    EmailContent,
    Message,
    Misconfigured,
    Refused,
    TextContent,
    TryLater,
    Uncertain,
)

CONNECT_SECONDS: Final = 5.0
MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer that are read. A provider's answer with an id is a thousandth of that."""

# --- one call's deadline, down to the socket ----------------------------------------------------------


class _Call:
    """The deadline of the call that the current thread makes, and the socket that it holds."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.socket: socket.socket | None = None

    def patience(self) -> float:
        """Seconds left, never quite none: for steps that fail by their own, clearer timeout."""
        return max(-self.deadline.overdue(), 0.001)

    def cut(self) -> None:
        held = self.socket
        if held is not None:
            try:
                held.shutdown(socket.SHUT_RDWR)
            except OSError:
                self.socket = None  # the peer was quicker


_call: ContextVar[_Call] = ContextVar("_call")


@contextmanager
def _calling(deadline: Deadline) -> Iterator[None]:
    call = _Call(deadline)
    token = _call.set(call)
    try:
        with deadline.cutting(call.cut):
            yield
    finally:
        _call.reset(token)


class _Socket(socket.socket):
    """Gives each read only what is left of the deadline: a timeout alone begins anew with every byte."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_call.get().deadline.remaining())
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self.settimeout(_call.get().patience())
        super().sendall(*args, **kwargs)


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        self.timeout = min(CONNECT_SECONDS, _call.get().patience())
        return _Socket(fileno=super()._new_conn().detach())

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        _call.get().socket = self.sock
        super().send(data)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection

    def _get_conn(self, timeout: float | None = None) -> Any:
        del timeout  # requests gives none, and would wait for a free connection for ever
        return super()._get_conn(_call.get().patience())

    def _put_conn(self, conn: Any) -> None:
        if (call := _call.get(None)) is not None:
            call.socket = None  # from here on it may be another call's
        super()._put_conn(conn)


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool}


# --- the provider ---------------------------------------------------------------------------------------

_CONTENTS: Final[Mapping[str, type[Content]]] = {
    "email": EmailContent,
    "sms": TextContent,
    "push": DataContent,
    "webpush": DataContent,
    "inapp": DataContent,
    "webhook": DataContent,
    "chat": ChatContent,
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
        self._url = f"{url.rstrip('/')}/v1/{channel}/messages"
        self._capability = capability
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy or .netrc of the environment is none of the provider's
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update({"User-Agent": "notify-tasks", "Accept-Encoding": "identity"})
        adapter = _Adapter(pool_connections=1, pool_maxsize=connections, max_retries=0, pool_block=True)
        self._session.mount("http://", adapter)

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
        with _calling(deadline):
            response = self._request(
                "POST",
                data=_body(message, self._channel, self._capability),
                headers={"Content-Type": "application/json", "Idempotency-Key": message.idempotency_key},
            )
            return self._judge(response, self._capability)

    def close(self) -> None:
        self._session.close()

    def _request(self, method: str, **arguments: Any) -> requests.Response:
        call = _call.get()
        if call.deadline.overdue() >= 0:
            raise TryLater("deadline", "no time was left to send; raise the provider's timeout")
        try:
            return self._session.request(
                method, self._url, timeout=call.patience(), stream=True, allow_redirects=False, **arguments
            )
        except (requests.RequestException, wire.HTTPError, http.client.HTTPException, OSError) as error:
            failure = transport_error(error)
        raise failure  # outside of the handler, so that it does not carry the request in its context

    def _judge(self, response: requests.Response, capability: Capability) -> Accepted:
        with response:
            found = _message_id(response)  # read in any case: what is read to its end keeps the connection
            status = response.status_code
            wait = parse_retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
        failure = status_error(status, wait, capability)
        if failure is not None:
            raise failure
        return Accepted(found, str(status) if found else f"{status} unreadable")


class QueryableSandbox(SandboxProvider):
    """A sandbox that can be asked what became of a request."""

    def find(self, message: Message, deadline: Deadline) -> Accepted | None:
        """Ask for the acceptance of this message's key.

        Raises:
            ChannelError: there was no clear answer. Whatever it is, it says nothing of the request that was
                asked for. Asking is harmless, so a lost answer is `TryLater`.
        """
        failure: ChannelError
        try:
            with _calling(deadline):
                response = self._request("GET", params={"key": message.idempotency_key})
                if response.status_code == HTTPStatus.NOT_FOUND:  # here the answer "no", not a dead address
                    with response:
                        _message_id(response)
                    return None
                return self._judge(response, Capability.IDEMPOTENT)
        except Uncertain as lost:
            failure = TryLater(lost.code, lost.detail)
        raise failure


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
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise Misconfigured(
            "option", f"{name}: unknown option {unknown[0]!r}; a sandbox has {', '.join(_OPTIONS)}"
        )
    url = options.get("url")
    if not isinstance(url, str) or not _is_origin(url):
        raise Misconfigured("option", f"{name}: url is not the sandbox's http_url; write http://HOST:PORT")
    kind = options.get("kind", Capability.IDEMPOTENT.value)
    if kind not in [each.value for each in Capability]:
        raise Misconfigured(
            "option", f"{name}: kind is not one of {', '.join(each.value for each in Capability)}"
        )
    connections = options.get("connections", 32)
    if isinstance(connections, bool) or not isinstance(connections, int) or connections < 1:
        raise Misconfigured("option", f"{name}: connections is not a number from 1 on")
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


def _message_id(response: requests.Response) -> str | None:
    """The id in an answer, None where it cannot be read. Nothing is unpacked, and 64 KiB are enough."""
    try:
        body = response.raw.read(MAX_ANSWER + 1, decode_content=False)
        answer = json.loads(body) if len(body) <= MAX_ANSWER else None
    except (wire.HTTPError, http.client.HTTPException, OSError, ValueError, RecursionError):
        return None
    found = answer.get("id") if isinstance(answer, dict) else None
    return found if isinstance(found, str) and found else None
