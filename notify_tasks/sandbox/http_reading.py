"""Reads the requests of an HTTP connection, and no more of HTTP than providers' clients use."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlsplit

from notify_tasks.sandbox.wires.wire import Request

MAX_HEAD: Final = 64 * 1024
MAX_BODY: Final = 40 * 1024 * 1024  # more than any provider takes: each says no in its own words


class BadRequestError(Exception):
    """What came is not HTTP that this server reads."""


@dataclass(frozen=True, slots=True)
class Talk:
    """One request, and the connection that its answer goes to.

    Args:
        connection: its serial number.
        keep_alive: the client will ask again.
    """

    request: Request
    connection: int
    keep_alive: bool
    reader: asyncio.StreamReader = field(repr=False)
    writer: asyncio.StreamWriter = field(repr=False)


async def read_talk(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
) -> Talk | None:
    """The next request of a connection, None at its end.

    Raises:
        BadRequestError: it cannot be read; the connection is of no more use.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise BadRequestError(f"the headers are longer than {MAX_HEAD} bytes") from None
    line, *fields = head.decode("latin-1").split("\r\n")[:-2]
    try:
        method, target, version = line.split(" ")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)
        }
        length = int(headers.get("content-length", "0"))
    except ValueError:
        raise BadRequestError("the request line or Content-Length is malformed") from None
    if "transfer-encoding" in headers or not 0 <= length <= MAX_BODY:
        raise BadRequestError(f"the body needs a Content-Length of at most {MAX_BODY}")
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        body = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None
    return Talk(
        _request(method, target, headers, body, tls=writer.get_extra_info("ssl_object") is not None),
        connection,
        version == "HTTP/1.1" and headers.get("connection", "").lower() != "close",
        reader,
        writer,
    )


def _request(method: str, target: str, headers: dict[str, str], body: bytes, *, tls: bool) -> Request:
    url = urlsplit(target)
    return Request(
        method=method,
        path=url.path,
        query=parse_qs(url.query, keep_blank_values=True),
        headers=headers,
        body=body,
        target=target,
        origin=f"{'https' if tls else 'http'}://{headers.get('host', '')}",
    )
