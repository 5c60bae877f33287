"""The HTTP far end of the sandbox providers, and the control API.

    POST   /v1/{channel}/messages            take a message: 202 {"id": ...}
    GET    /v1/{channel}/messages?key=...    has it been taken: 200 {"id": ...} or 404
    GET    /control/modes                    every target's mode
    PUT    /control/modes/{target}           {"mode": "429", "rate": 0.2, "retry_after": 2}: see `modes`
    DELETE /control/modes[/{target}]         well again

It writes to the sockets itself, since no HTTP server lets an answer be as wrong as some providers' are.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, urlsplit

from notify_tasks.routing import CHANNELS
from notify_tasks.sandbox.kept import Arrival, Kept
from notify_tasks.sandbox.log import KINDS, QUERYABLE, Effects, Incoming, LoggedRequest
from notify_tasks.sandbox.modes import Mode, ModeError, Modes, parse_mode

MAX_HEAD: Final = 64 * 1024
MAX_BODY: Final = 16 * 1024 * 1024  # a mail with as many attachments as there may be, in base64
BIG_BODY: Final = 10 * 1024 * 1024
BOMB: Final = 64 * 1024 * 1024
_CONTROL: Final = "/control/modes"
_NO_ANSWER: Final = frozenset({"accept_then_reset", "accept_then_hang", "hang_before_accept"})


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    keep_alive: bool


class _BadRequestError(Exception):
    """What came is not HTTP that this server reads."""


async def _read_request(reader: asyncio.StreamReader) -> _Request | None:
    """The next request of a connection, None at its end.

    Raises:
        _BadRequestError: it cannot be read; the connection is of no more use.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise _BadRequestError(f"the headers are longer than {MAX_HEAD} bytes") from None
    line, *fields = head.decode("latin-1").split("\r\n")[:-2]
    try:
        method, target, version = line.split(" ")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)
        }
        length = int(headers.get("content-length", "0"))
    except ValueError:
        raise _BadRequestError("the request line or Content-Length is malformed") from None
    if "transfer-encoding" in headers or not 0 <= length <= MAX_BODY:
        raise _BadRequestError(f"the body needs a Content-Length of at most {MAX_BODY}")
    try:
        body = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None
    url = urlsplit(target)
    keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return _Request(method, url.path, parse_qs(url.query), headers, body, keep)


def _answer(status: int, body: bytes, *headers: tuple[str, str], length: int | None = None) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [
        f"HTTP/1.1 {status} {phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body) if length is None else length}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _json(status: int, value: object, *headers: tuple[str, str]) -> bytes:
    return _answer(status, json.dumps(value).encode(), *headers)


@cache
def _zeros() -> bytes:
    return gzip.compress(b"0" * BOMB)


def _bomb(taken: str) -> bytes:
    # Members of a gzip stream are unpacked one after the other, so that only the ends need packing anew.
    opening = gzip.compress(json.dumps({"id": taken, "padding": ""}).removesuffix('"}').encode())
    return _answer(202, opening + _zeros() + gzip.compress(b'"}'), ("Content-Encoding", "gzip"))


def _too_short(taken: str) -> bytes:
    body = json.dumps({"id": taken}).encode()
    return _answer(202, body, length=len(body) // 2)


_ACCEPTED: Final[Mapping[str, Callable[[str], bytes]]] = {
    "garbage_json": lambda _: _answer(202, b'<html>{"id": accepted'),
    "no_id": lambda _: _json(202, {}),
    "truncated": lambda taken: _json(202, {"id": taken})[:-6],
    "wrong_length": _too_short,
    "big_body": lambda taken: _json(202, {"id": taken, "padding": "0" * BIG_BODY}),
    "gzip_bomb": _bomb,
}


class HttpEnd:
    """Serves the connections of both listeners: the far end's and the control API's.

    Args:
        effects: takes and logs.
        modes: how to behave.
        changed: called after each change of the modes.
        kept: takes what arrives; None keeps no contents.
    """

    def __init__(
        self, effects: Effects, modes: Modes, changed: Callable[[], Awaitable[None]], kept: Kept | None
    ) -> None:
        self._effects = effects
        self._modes = modes
        self._changed = changed
        self._kept = kept
        self._open: dict[asyncio.StreamWriter, bool] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until its end."""
        connection = self._effects.next_connection()
        self._open[writer] = False
        try:
            while request := await _read_request(reader):
                if request.path.startswith("/control/"):
                    self._open[writer] = True
                    writer.write(await self._control(request))
                    keep = True
                else:
                    self._open[writer] = False
                    keep = await self._provide(request, connection, reader, writer)
                await writer.drain()
                if not (keep and request.keep_alive):
                    break
        except _BadRequestError as error:
            self._refuse(
                writer, Incoming(protocol="http", action="invalid", connection=connection), 400, str(error)
            )
        except ConnectionError:
            pass  # the client has left, which is its right
        finally:
            del self._open[writer]
            writer.close()

    async def drop(self, *, control: bool) -> None:
        """Cut the open connections; those that asked for control only if `control`. Returns when they are cut."""
        dropped = [writer for writer, controls in self._open.items() if control or not controls]
        for writer in dropped:
            writer.transport.abort()
        for writer in dropped:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    # --- control ------------------------------------------------------------------------------------

    async def _control(self, request: _Request) -> bytes:
        target = request.path.removeprefix(_CONTROL).removeprefix("/")
        if not request.path.startswith(_CONTROL) or request.method not in {"GET", "PUT", "DELETE"}:
            return _json(404, {"error": f"the control API is GET, PUT and DELETE {_CONTROL}/{{target}}"})
        try:
            if request.method == "PUT":
                self._modes.set(target, parse_mode(target, json.loads(request.body)))
            elif request.method == "DELETE":
                if target:
                    parse_mode(target, {"mode": "ok"})
                self._modes.clear(target or None)
        except ModeError as error:
            return _json(400, {"error": str(error)})
        except ValueError:
            return _json(400, {"error": 'the body is not JSON; send {"mode": "ok"}'})
        if request.method != "GET":
            await self._changed()
        return _json(200, {each: dataclasses.asdict(mode) for each, mode in self._modes.now().items()})

    # --- the far end --------------------------------------------------------------------------------

    async def _provide(
        self, request: _Request, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer a request to a provider. False where the connection must end."""
        match request.path.split("/"), request.method:
            case ["", "v1", channel, "messages"], "POST" if channel in CHANNELS:
                incoming = _incoming(request, channel, connection)
                if incoming is not None:
                    return await self._send(request, incoming, reader, writer)
                problem = f"a message is an object with to and capability ({', '.join(KINDS)})"
                invalid = Incoming(protocol="http", action="invalid", connection=connection, channel=channel)
                return self._refuse(writer, invalid, 400, problem)
            case ["", "v1", channel, "messages"], "GET" if channel in CHANNELS:
                return await self._find(request, channel, connection, reader, writer)
        invalid = Incoming(protocol="http", action="invalid", connection=connection, size=len(request.body))
        return self._refuse(writer, invalid, 404, "the far end is POST and GET /v1/{channel}/messages")

    def _refuse(self, writer: asyncio.StreamWriter, incoming: Incoming, status: int, problem: str) -> bool:
        self._effects.record(incoming, accept=False, code=str(status), mode="ok")
        writer.write(_json(status, {"error": problem}))
        return True

    async def _send(
        self,
        request: _Request,
        incoming: Incoming,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        channel = incoming.channel or ""
        mode = self._modes.of_address(channel, incoming.to or "") or self._modes.draw(channel)
        if _refuses(mode):
            return await self._play_refusal(mode, incoming, reader, writer)
        code = None if mode.name in _NO_ANSWER else "202"
        taken = self._effects.record(incoming, accept=True, code=code, mode=mode.name)
        if self._kept is not None and taken.accepted:
            self._kept.add(_arrival(request, taken))
        return await self._play_acceptance(mode, taken, reader, writer)

    async def _find(
        self,
        request: _Request,
        channel: str,
        connection: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        key = request.query.get("key", [""])[0]
        incoming = Incoming(
            protocol="http",
            action="find",
            connection=connection,
            channel=channel,
            kind=QUERYABLE,
            idempotency_key=key,
        )
        mode = self._modes.draw(channel, "find")
        if _refuses(mode):
            return await self._play_refusal(mode, incoming, reader, writer)
        found = self._effects.find(incoming)
        status = 404 if found is None else 200
        code = None if mode.name in _NO_ANSWER else str(status)
        asked = self._effects.record(incoming, accept=False, code=code, mode=mode.name)
        if found is None:
            answer = _json(404, {"error": "no message was taken with this key"})
        else:
            answer = _json(200, {"id": found})
        return await self._play_acceptance(mode, asked, reader, writer, answer)

    # --- misbehaving --------------------------------------------------------------------------------

    async def _play_refusal(
        self, mode: Mode, incoming: Incoming, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        status = 307 if mode.name == "redirect" else mode.status
        code = None if status is None else str(status)
        self._effects.record(incoming, accept=False, code=code, mode=mode.name)
        if status is None:
            return await _hang(reader)
        headers = [] if mode.retry_after is None else [("Retry-After", mode.retry_after)]
        if mode.name == "redirect":
            headers.append(("Location", "/elsewhere"))
        writer.write(_json(status, {"error": f"the sandbox plays {mode.name}"}, *headers))
        return True

    async def _play_acceptance(
        self,
        mode: Mode,
        taken: LoggedRequest,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: bytes | None = None,
    ) -> bool:
        if mode.name == "accept_then_reset":
            _reset(writer)
            return False
        if mode.name == "accept_then_hang":
            return await _hang(reader)
        shape = _ACCEPTED.get(mode.name)
        if shape is not None:
            answer = shape(taken.id or "")
        elif answer is None:
            answer = _json(202, {"id": taken.id})
        if mode.name == "drip":
            return await _drip(answer, mode.delay, reader, writer)
        if mode.name == "slow":
            await asyncio.sleep(mode.delay)
        writer.write(answer)
        return mode.name != "truncated"


def _refuses(mode: Mode) -> bool:
    return mode.status is not None or mode.name in {"redirect", "hang_before_accept"}


def _incoming(request: _Request, channel: str, connection: int) -> Incoming | None:
    """The message in the body, None where it is not one."""
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(body, dict)
        or not isinstance(body.get("to"), str)
        or body.get("capability") not in KINDS
    ):
        return None
    key = request.headers.get("idempotency-key", body.get("idempotency_key"))
    delivery_id = body.get("delivery_id")
    return Incoming(
        protocol="http",
        action="send",
        connection=connection,
        channel=channel,
        kind=body["capability"],
        delivery_id=None if delivery_id is None else str(delivery_id),
        idempotency_key=None if key is None else str(key),
        to=body["to"],
        size=len(request.body),
    )


def _arrival(request: _Request, taken: LoggedRequest) -> Arrival:
    return Arrival(
        id=taken.id or "",
        at=taken.at,
        channel=taken.channel or "",
        protocol="http",
        to=taken.to or "",
        raw=request.body,
        headers=tuple(request.headers.items()),
        delivery_id=taken.delivery_id,
        code=taken.code,
        mode=taken.mode,
        again=taken.duplicate_of_key,
    )


async def _hang(reader: asyncio.StreamReader) -> bool:
    """Say nothing until the client gives up."""
    while await reader.read(MAX_HEAD):
        pass
    return False


async def _drip(
    answer: bytes, delay: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    for at in range(len(answer)):
        if reader.at_eof():
            return False
        writer.write(answer[at : at + 1])
        await writer.drain()
        await asyncio.sleep(delay)
    return True


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with RST, which discards what the client has not read."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
