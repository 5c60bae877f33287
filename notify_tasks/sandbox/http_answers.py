"""Answers as bytes, right ones and wrong ones: no HTTP server lets an answer be as wrong as some providers' are."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Final

from notify_tasks.sandbox.http_reading import MAX_HEAD, Talk
from notify_tasks.sandbox.modes import Mode
from notify_tasks.sandbox.wires.wire import Reply

BIG_BODY: Final = 10 * 1024 * 1024
BOMB: Final = 64 * 1024 * 1024
_JSON: Final = "application/json"
_NO_ANSWER: Final = frozenset({"accept_then_reset", "accept_then_hang", "hang_before_accept"})


def to_bytes(reply: Reply, *, length: int | None = None) -> bytes:
    """An answer as it goes over the wire.

    Args:
        reply: what is said.
        length: a Content-Length that is a lie; None for the true one.
    """
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    body = _body(reply)
    given = {name.lower() for name in reply.headers}
    lines = [
        f"HTTP/1.1 {reply.status} {phrase}",
        *([] if "content-type" in given or not body else [f"Content-Type: {_JSON}"]),
        f"Content-Length: {len(body) if length is None else length}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _body(reply: Reply) -> bytes:
    return reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()


# --- a yes that is spoilt -------------------------------------------------------------------------------


def _padded(yes: Reply, padding: str) -> Reply:
    if isinstance(yes.body, dict):
        return Reply(yes.status, {**yes.body, "padding": padding}, yes.headers)
    return Reply(yes.status, _body(yes) + padding.encode(), yes.headers)


@cache
def _zeros() -> bytes:
    return gzip.compress(b"0" * BOMB)


def _bomb(yes: Reply) -> bytes:
    # Members of a gzip stream are unpacked one after the other, so that only the ends need packing anew.
    opening, ending = _body(_padded(yes, "")), b""
    if isinstance(yes.body, dict):
        opening, ending = opening.removesuffix(b'"}'), b'"}'
    packed = gzip.compress(opening) + _zeros() + gzip.compress(ending)
    return to_bytes(Reply(yes.status, packed, {**yes.headers, "Content-Encoding": "gzip"}))


def _truncated(yes: Reply) -> bytes:
    body = _body(yes)
    lost = 6
    return to_bytes(yes)[:-lost] if len(body) > lost else to_bytes(yes, length=len(body) + lost)


def _too_short(yes: Reply) -> bytes:
    body = _body(yes) or b"{}"
    return to_bytes(Reply(yes.status, body, yes.headers), length=len(body) // 2)


# What names the message may be a header as well as a field, so that neither is left.
_SPOILT: Final[Mapping[str, Callable[[Reply], bytes]]] = {
    "garbage_json": lambda yes: to_bytes(Reply(yes.status, b'<html>{"id": accepted')),
    "no_id": lambda yes: to_bytes(Reply(yes.status, {} if isinstance(yes.body, dict) else b"")),
    "truncated": _truncated,
    "wrong_length": _too_short,
    "big_body": lambda yes: to_bytes(_padded(yes, "0" * BIG_BODY)),
    "gzip_bomb": _bomb,
}


# --- how an answer is given -----------------------------------------------------------------------------


def code_of(mode: Mode, status: int) -> str | None:
    """What the log tells as sent: the status, None where the mode sends none."""
    return None if mode.name in _NO_ANSWER else str(status)


async def say_no(talk: Talk, mode: Mode, no: Reply | None) -> bool:
    """Refuse a request. False where the connection must end.

    Args:
        talk: the request.
        mode: what is played; its Retry-After goes with the answer.
        no: the answer; None for none at all.
    """
    if no is None:
        return await _hang(talk)
    headers = dict(no.headers)
    if mode.retry_after is not None:
        headers["Retry-After"] = mode.retry_after
    if mode.name == "redirect":
        headers["Location"] = "/elsewhere"
    talk.writer.write(to_bytes(Reply(no.status, no.body, headers)))
    return True


async def say_yes(talk: Talk, mode: Mode, yes: Reply) -> bool:
    """Answer a request that was taken, as the mode says. False where the connection must end."""
    if mode.name == "accept_then_reset":
        _reset(talk)
        return False
    if mode.name == "accept_then_hang":
        return await _hang(talk)
    spoil = _SPOILT.get(mode.name)
    answer = to_bytes(yes) if spoil is None else spoil(yes)
    if mode.name == "drip":
        return await _drip(talk, answer, mode.delay)
    if mode.name == "slow":
        await asyncio.sleep(mode.delay)
    talk.writer.write(answer)
    return mode.name != "truncated"


async def _hang(talk: Talk) -> bool:
    """Say nothing until the client gives up."""
    while await talk.reader.read(MAX_HEAD):
        pass
    return False


async def _drip(talk: Talk, answer: bytes, delay: float) -> bool:
    for at in range(len(answer)):
        if talk.reader.at_eof():
            return False
        talk.writer.write(answer[at : at + 1])
        await talk.writer.drain()
        await asyncio.sleep(delay)
    return True


def _reset(talk: Talk) -> None:
    """End the connection with RST, which discards what the client has not read."""
    raw: socket.socket = talk.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    talk.writer.transport.abort()
