"""SMTP connections: one held to a deadline and to the phase it is in, and a pool of them.

`smtplib` speaks the protocol. What it does not do is done here: a total deadline over many reads (a peer
that sends one byte a second never meets a socket timeout), replies of bounded size, and telling a connection
lost before DATA from one lost after the final dot, which it reports as the same exception.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import os
import re
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn

from channels.contract import Deadline

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CONNECT_SECONDS = 5.0
"""How long one address of the relay may take to accept a connection."""
IDLE_SECONDS = 25.0
"""How long an unused connection stays open: less than the 30 s after which common relays hang up."""

_CHUNK = 16 * 1024  # bytes between two looks at the deadline: one TLS record
_REPLY_MAX = 64 * 1024  # bytes of one reply, all its lines
_REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:[ -]|\r?\n)")
_ENHANCED = re.compile(r"#?(([245])\.\d{1,3}\.\d{1,3})\b")  # RFC 3463; some relays write a # before it


class Phase(StrEnum):
    """How far a conversation has come: what a lost connection or a refusal means depends on it."""

    CONNECT = "connect"
    HELLO = "EHLO"
    TLS = "TLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    """Until the last piece of the message, which ends with its final dot, is handed to the socket."""
    BODY = "the message"
    """From then until the reply to the final dot: the message may be accepted."""


class Failure(Exception):
    """The conversation ended short of an acceptance. Private to this provider: it carries the relay's text.

    Args:
        phase: where it was.
        code: the reply code, or a word where there was none (`"dropped"`, `"deadline"`, `"certificate"`).
        enhanced: the status code of RFC 3463, where the relay gave one that fits its reply code.
        text: what the relay said, which may quote addresses.
    """

    def __init__(self, phase: Phase, code: int | str, enhanced: str | None = None, text: str = "") -> None:
        super().__init__(phase, code, enhanced)
        self.phase = phase
        self.code = code
        self.enhanced = enhanced
        self.text = text


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply: `code` is 0 where the line was not SMTP."""

    code: int
    enhanced: str | None
    text: str


class Client(smtplib.SMTP):
    """One connection to the relay. Every wait ends at `deadline`, every failure is a `Failure`."""

    def __init__(self, sock: socket.socket, local_hostname: str | None, deadline: Deadline) -> None:
        super().__init__(local_hostname=local_hostname or _address_literal(sock))
        self.sock: socket.socket | None = sock
        self.deadline = deadline
        self.phase = Phase.CONNECT
        self.pid = os.getpid()
        self.opened_at = time.monotonic()
        self.used_at = self.opened_at
        self.messages = 0
        self._received = bytearray()

    # --- what smtplib does without a deadline -------------------------------------------------------

    def send(self, s: ReadableBuffer | str) -> None:
        """Write all of `s`; text goes out as UTF-8, of which ASCII is a part."""
        data = memoryview(s.encode() if isinstance(s, str) else s)
        for start in range(0, len(data), _CHUNK):
            try:
                self._socket().sendall(data[start : start + _CHUNK])
            except OSError:
                self._lost()

    def getreply(self) -> tuple[int, bytes]:
        """One reply, of one or many lines; code 0 where it is not SMTP."""
        lines: list[bytes] = []
        left = _REPLY_MAX
        while True:
            line = self._line(left)
            left -= len(line)
            lines.append(line[4:].strip())
            match = _REPLY_LINE.match(line)
            if match is None or line[3:4] != b"-":
                return int(match[1]) if match else 0, b"\n".join(lines)

    def _line(self, limit: int) -> bytes:
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) >= limit:
                self._lost("overlong")
            try:
                data = self._socket().recv(4096)
            except OSError:
                self._lost()
            if not data:
                self._lost()
            self._received += data
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        return line

    def _socket(self) -> socket.socket:
        """The socket, its timeout set to what is left; raises TimeoutError (an OSError) past the deadline."""
        if self.sock is None:
            raise ConnectionError("closed")
        self.sock.settimeout(self.deadline.remaining())
        return self.sock

    def _lost(self, word: str = "dropped") -> NoReturn:
        self.close()
        late = False
        try:
            self.deadline.remaining()
        except TimeoutError:
            late = True
        raise Failure(self.phase, "deadline" if late else word) from None

    # --- the conversation ---------------------------------------------------------------------------

    def step(self, phase: Phase, command: str, expect: str = "2") -> Reply:
        """One command and its reply, whose code must begin with `expect`.

        Raises:
            Failure: another reply, or none.
        """
        self.phase = phase
        self.putcmd(command)
        return self.reply(expect)

    def reply(self, expect: str) -> Reply:
        """The next reply, whose code must begin with `expect`."""
        code, said = self.getreply()
        text = said.decode("utf-8", "replace")
        match = _ENHANCED.match(text)
        enhanced = match[1] if match and match[2] == str(code)[0] else None
        if not str(code).startswith(expect):
            raise Failure(self.phase, code, enhanced, text)
        return Reply(code, enhanced, text)

    def hello(self) -> None:
        """EHLO; there is no HELO behind it, since TLS and AUTH need EHLO."""
        self.phase = Phase.HELLO
        code, said = self.ehlo()
        if code != 250:  # noqa: PLR2004
            raise Failure(self.phase, code, text=said.decode("utf-8", "replace"))

    def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Speak TLS from here on, with a relay that proves to be `host`."""
        self.phase = Phase.TLS
        if self._received:
            # Sent before the handshake, so by anybody: it must not be read as an answer inside TLS.
            raise Failure(Phase.TLS, "injected")
        word = "dropped"
        try:
            sock = self._socket()
            # The handshake comes second, so that `cut` finds the socket it runs on.
            tls = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            self.sock = tls
            # A cut of the last moment met the socket that `wrap_socket` had just emptied, and did nothing.
            self.deadline.remaining()
            tls.do_handshake()
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            pass
        except ssl.SSLCertVerificationError:
            word = "certificate"
        except ssl.SSLError:
            word = "tls"
        except OSError:
            pass
        else:
            return
        if word == "dropped":
            self._lost()
        self.close()
        raise Failure(Phase.TLS, word)

    def authenticate(self, user: str, password: str) -> None:
        """AUTH by the first of PLAIN and LOGIN that is offered, once: relays count failures and lock out."""
        self.phase = Phase.AUTH
        offered = self.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in offered:
            self.step(Phase.AUTH, "AUTH PLAIN " + _base64(f"\0{user}\0{password}"))
        elif "LOGIN" in offered:
            self.step(Phase.AUTH, "AUTH LOGIN", "334")
            self.step(Phase.AUTH, _base64(user), "334")
            self.step(Phase.AUTH, _base64(password))
        else:
            raise Failure(Phase.AUTH, "mechanism")

    def body(self, data: bytes) -> Reply:
        """The message after 354: dots stuffed (RFC 5321 section 4.5.2), then the final dot and its reply.

        Args:
            data: CRLF lines, the last one ended.
        """
        stuffed = data.replace(b"\r\n.", b"\r\n..") + b".\r\n"
        # A large message most likely breaks off on its way, and then it can be sent again without any doubt.
        last = max(len(stuffed) - _CHUNK, 0)
        self.send(memoryview(stuffed)[:last])
        try:
            # A process that was stopped past its deadline wakes here too, and then it must send nothing.
            self.deadline.remaining()
        except TimeoutError:
            self._lost()
        self.phase = Phase.BODY
        self.send(memoryview(stuffed)[last:])
        return self.reply("2")

    def reset(self) -> bool:
        """Forget the refused transaction (RSET). False: the connection is of no more use."""
        try:
            self.step(self.phase, "RSET")
        except Failure:
            return False
        return True

    # --- ends ---------------------------------------------------------------------------------------

    def cut(self) -> None:
        """End what the connection is waiting for. Any thread may call it."""
        if (sock := self.sock) is not None:
            with contextlib.suppress(OSError):
                # SSLSocket.shutdown first forgets its TLS state, so that the other thread's next write
                # could go out in the clear: shut the socket below it.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def farewell(self) -> None:
        """QUIT without waiting for the answer, and close."""
        if self.sock is not None and self.pid == os.getpid():
            with contextlib.suppress(OSError):
                self.sock.settimeout(0.5)
                self.sock.sendall(b"QUIT\r\n")
        self.close()


def connect(host: str, port: int, deadline: Deadline, *, loopback_only: bool) -> socket.socket:
    """A TCP connection to the first address of `host` that accepts one.

    Raises:
        Failure: none did, or `loopback_only` and an address is not of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        found = []
    if not found:
        raise Failure(Phase.CONNECT, "resolve")
    if loopback_only and not all(ipaddress.ip_address(each[4][0]).is_loopback for each in found):
        raise Failure(Phase.CONNECT, "plaintext")
    for tried, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            # A silent address leaves time for the ones after it.
            sock.settimeout(min(CONNECT_SECONDS, deadline.remaining() / (len(found) - tried)))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
        else:
            return sock
    raise Failure(Phase.CONNECT, "connect")


class Pool:
    """At most `size` connections, the one used last taken first, so that a quiet fleet needs few.

    Args:
        size: connections at most, in use and idle.
        messages: messages that one connection carries at most.
        seconds: age at which a connection is not used again.
    """

    def __init__(self, size: int, messages: int, seconds: float) -> None:
        self._slots = threading.BoundedSemaphore(size)
        self._messages = messages
        self._seconds = seconds
        self._lock = threading.Lock()
        self._idle: list[Client] = []  # the longest unused first
        self._closed_at = 0.0
        self._reaper: threading.Timer | None = None

    @contextlib.contextmanager
    def slot(self, deadline: Deadline) -> Iterator[None]:
        """The right to hold one connection: one from `take`, or a new one if `take` gave none or a dead one.

        Raises:
            Failure: all were in use until the deadline, or it had passed.
        """
        word = "deadline"
        with contextlib.suppress(TimeoutError):
            word = "" if self._slots.acquire(timeout=deadline.remaining()) else "busy"
        if word:
            raise Failure(Phase.MAIL, word)
        try:
            yield
        finally:
            self._slots.release()

    def take(self) -> Client | None:
        """The connection used last, or None where a new one is to be opened."""
        self._prune()
        with self._lock:
            return self._idle.pop() if self._idle else None

    def give_back(self, client: Client) -> None:
        """Keep a connection that stands between two transactions, if it is still good for another."""
        client.used_at = time.monotonic()
        if not self._usable(client, client.used_at):
            client.farewell()
            return
        with self._lock:
            self._idle.append(client)
        self._prune()

    def close(self) -> None:
        """Close what is idle now, and what is in use when it comes back."""
        with self._lock:
            self._closed_at = time.monotonic()
            reaper, self._reaper = self._reaper, None
        if reaper is not None:
            reaper.cancel()
        self._prune()

    def _usable(self, client: Client, now: float) -> bool:
        return (
            client.messages < self._messages
            and now - client.opened_at < self._seconds
            and now - client.used_at < IDLE_SECONDS
            and client.opened_at > self._closed_at
            and client.pid == os.getpid()  # after a fork two processes would talk into one conversation
        )

    def _prune(self) -> None:
        """Close what has become unusable, and see to it that this happens without any traffic too."""
        now = time.monotonic()
        with self._lock:
            spent = [each for each in self._idle if not self._usable(each, now)]
            self._idle = [each for each in self._idle if each not in spent]
            if self._idle and self._reaper is None:
                self._reaper = threading.Timer(self._idle[0].used_at + IDLE_SECONDS - now, self._reap)
                self._reaper.daemon = True
                self._reaper.start()
        for client in spent:
            client.farewell()

    def _reap(self) -> None:
        with self._lock:
            self._reaper = None
        self._prune()


def _address_literal(sock: socket.socket) -> str:
    """This end's address as EHLO takes it (RFC 5321 section 4.1.3): known without asking DNS."""
    try:
        address = str(sock.getsockname()[0])
    except OSError:
        address = "127.0.0.1"
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
