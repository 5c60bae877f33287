"""HTTP/1.1 connections, each held to a deadline. `channels.http` is what providers use.

`http.client` speaks the protocol. What it does not do is done here: a total deadline over many reads (a peer
that sends one byte a second never meets a socket timeout), an answer of bounded size with all its headers,
and telling a connection lost before the whole request was out from one lost after it. urllib3 would add
neither, costs twice the CPU, and its loggers name URLs.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import select
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from channels._addresses import Address, Origin, Resolver, resolve, system_resolver
from channels.contract import Deadline
from channels.provider_options import Secret

CONNECT_SECONDS: Final = 5.0
"""How long one address may take to accept a connection, or to shake hands in TLS."""
MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer's body that are read."""
_MAX_HEAD: Final = 128 * 1024
"""Bytes that an answer may have around its body: headers, chunk sizes, trailers, interim answers."""


class Failure(Exception):
    """The exchange ended short of an answer. Private to this module's users.

    Args:
        word: where it ended; `channels.http` has the tables of what that means.
    """

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer as it came: header names in lower case; no body where it could not be read to its end."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """What goes out. Its parts are private: a path may be a secret."""

    method: str
    target: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)


# --- sockets that keep a deadline -------------------------------------------------------------------


class _Timed:
    """Gives each step what is left of the deadline: a timeout alone begins anew with every byte.

    It is mixed into two socket classes, whose methods mypy cannot see from here: hence the ignores.
    """

    deadline: Deadline
    budget: int
    """Bytes that may still be read."""

    def _hurry(self) -> None:
        self.settimeout(self.deadline.remaining())  # type: ignore[attr-defined]

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._hurry()
        count: int = super().recv_into(*args, **kwargs)  # type: ignore[misc]
        self.budget -= count
        if self.budget < 0:
            raise ConnectionError("the answer is too long")
        return count

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._hurry()
        sent: int = super().send(*args, **kwargs)  # type: ignore[misc]
        return sent

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self._hurry()
        super().sendall(*args, **kwargs)  # type: ignore[misc]


class _Plain(_Timed, socket.socket):
    pass


class _Tls(_Timed, ssl.SSLSocket):
    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        """What SSLSocket looks with, before the handshake, where the peer has gone: it would leave it open."""
        try:
            return super().recv(*args, **kwargs)
        except OSError:
            self.close()
            raise


@functools.cache
def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """TLS 1.2 or later, with certificates that lead to a root of the system or of `ca_file` (PEM).

    Raises:
        OSError: the file cannot be read (ssl.SSLError is one too).
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = _Tls
    return context


# --- connecting -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dialer:
    """Opens connections.

    Args:
        tls: for https; without it, there is none.
        resolver: finds addresses.
        proxy: an HTTP proxy's URL, which https goes through by CONNECT.
        permits: whether all of a host's addresses may be connected to. It is asked once, and the connection
            goes to what it was asked about: a second lookup could answer otherwise.
    """

    tls: ssl.SSLContext | None
    resolver: Resolver = system_resolver
    proxy: Secret | None = None
    permits: Callable[[Sequence[Address]], bool] = lambda _: True

    def open(self, origin: Origin, deadline: Deadline) -> Connection:
        """A connection that is ready for a request.

        Raises:
            Failure: there is none. Nothing was sent.
        """
        proxy = None if self.proxy is None else urlsplit(self.proxy.reveal())
        if proxy is None:
            sock: socket.socket = self._connect(origin.host, origin.port, deadline)
        else:
            sock = self._connect(proxy.hostname or "", proxy.port or 80, deadline)
        opened = False
        try:
            if proxy is not None:
                _tunnel(sock, origin, deadline, _credentials(proxy.username, proxy.password))
            if origin.tls:
                assert self.tls is not None
                sock = _secure(self.tls, sock, origin.host, deadline)
            opened = True
        finally:
            if not opened:
                sock.close()
        return Connection(sock, origin)

    def _connect(self, host: str, port: int, deadline: Deadline) -> _Plain:
        try:
            found = resolve(self.resolver, host, port, max(-deadline.overdue(), 0.001))
        except OSError:
            found = []
        if not found:
            raise Failure("resolve")
        if not self.permits(found):
            raise Failure("forbidden")
        word = "connect"
        for tried, address in enumerate(found):
            sock = _Plain(socket.AF_INET if address.version == 4 else socket.AF_INET6)  # noqa: PLR2004
            try:
                # A silent address leaves time for the ones after it.
                sock.settimeout(min(CONNECT_SECONDS, deadline.remaining() / (len(found) - tried)))
                sock.connect((str(address), port))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                word = "connect-timeout" if isinstance(error, TimeoutError) else "connect"
                sock.close()
            else:
                sock.deadline, sock.budget = deadline, _MAX_HEAD
                return sock
        raise Failure(word)


def _secure(tls: ssl.SSLContext, sock: socket.socket, host: str, deadline: Deadline) -> socket.socket:
    """Speak TLS from here on, with a server that proves to be `host`."""
    word = "handshake"
    wrapped: ssl.SSLSocket | None = None
    done = False
    try:
        sock.settimeout(min(CONNECT_SECONDS, deadline.remaining()))
        wrapped = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        wrapped.do_handshake()  # by hand: wrap_socket leaves it out, in silence, where the peer has gone
        done = True
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        pass
    except ssl.SSLCertVerificationError:
        word = "certificate"
    except ssl.SSLError:
        word = "tls"
    except (OSError, ValueError):  # ValueError: it was closed meanwhile
        pass
    if wrapped is not None and done:
        return wrapped
    if wrapped is not None:
        wrapped.close()
    raise Failure(word)


def _credentials(user: str | None, password: str | None) -> str:
    if not user:
        return ""
    return b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode("ascii")


def _tunnel(sock: socket.socket, origin: Origin, deadline: Deadline, credentials: str) -> None:
    """Ask a proxy for a connection to the origin (CONNECT: RFC 9110, section 9.3.6)."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    login = f"Proxy-Authorization: Basic {credentials}\r\n" if credentials else ""
    status = 0
    try:
        with deadline.cutting(lambda: _cut(sock)):
            sock.sendall(
                f"CONNECT {host}:{origin.port} HTTP/1.1\r\nHost: {host}:{origin.port}\r\n{login}\r\n".encode()
            )
            answer = http.client.HTTPResponse(sock, method="CONNECT")
            with answer:
                answer.begin()
                status = answer.status
    except (OSError, http.client.HTTPException):
        status = 0
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED}:
        raise Failure("proxy-denies")
    if not 200 <= status < 300:  # noqa: PLR2004 - the classes of RFC 9110, section 15
        raise Failure("proxy")


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # SSLSocket.shutdown first forgets its TLS state, so that the other thread's next write could go out
        # in the clear: shut the socket below it.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


# --- one connection ---------------------------------------------------------------------------------


class Connection:
    """One connection to a server, for one exchange after the other.

    Args:
        sock: connected, and in TLS where the origin says so.
        origin: what it is connected to.
    """

    def __init__(self, sock: socket.socket, origin: Origin) -> None:
        self._sock: Any = sock
        self._http = http.client.HTTPConnection(origin.host, origin.port)
        self._http.auto_open = 0  # or http.client would open another one, unchecked, where this one ended
        self._http.sock = sock
        self.pid = os.getpid()
        self.used_at = time.monotonic()
        self.reusable = False

    def exchange(self, request: Request, deadline: Deadline, most: int) -> Raw:
        """Send a request and read its answer, of which the body has at most `most` bytes.

        Raises:
            Failure: `deadline` and `send`: the request was not sent, or not to its end. Else it was.
        """
        self.reusable = False
        self._sock.deadline, self._sock.budget = deadline, most + _MAX_HEAD
        with deadline.cutting(lambda: _cut(self._sock)):
            whole = self._send(request, deadline)
            response = self._answered(deadline, whole=whole)
            try:
                body = self._body(response, most)
                # http.client closes an answer whose framing is broken as it does one that was read to its end.
                read = body is not None and response.isclosed()
                self.reusable = whole and read and not response.will_close
                headers = {name.lower(): value for name, value in response.getheaders()}
                return Raw(response.status, headers, body)
            finally:
                response.close()

    def _send(self, request: Request, deadline: Deadline) -> bool:
        """Whether the whole request went out. If it did not, there may still be an answer: 413, say."""
        late = False
        try:
            # A process that was stopped past its deadline wakes here too, and then it must send nothing.
            deadline.remaining()
            late = True
            self._http.request(
                request.method, request.target, body=request.body, headers=dict(request.headers)
            )
        except TimeoutError:
            raise Failure("send" if late else "deadline") from None
        except OSError:
            return False
        return True

    def _answered(self, deadline: Deadline, *, whole: bool) -> http.client.HTTPResponse:
        word = "connection-lost"
        try:
            response = self._http.getresponse()
            if response.status >= 200:  # noqa: PLR2004 - an interim answer says nothing yet (RFC 9110, 15.2)
                return response
            word = "garbled"
        except http.client.RemoteDisconnected:
            pass
        except http.client.HTTPException:
            word = "garbled"
        except OSError:
            if deadline.overdue() >= 0:
                word = "timeout"
        raise Failure(word if whole else "send")

    def _body(self, response: http.client.HTTPResponse, most: int) -> bytes | None:
        if response.getheader("Content-Encoding", "identity").lower() != "identity":
            return None  # we asked for none, and what unpacks to gigabytes is small until then
        try:
            body = response.read(most + 1)
        except (OSError, http.client.HTTPException, ValueError):
            return None
        return None if len(body) > most or response.length else body

    def alive(self) -> bool:
        """Whether nothing came since the last answer: an end, or bytes that belong to no request."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self._http.close()
        self._sock.close()  # http.client has let go of it where the server said that it closes
