"""Far ends for SMTP: `ScriptedRelay`, which answers as it is told, and `real_relay`, which is aiosmtpd."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

# --- a relay that keeps to a script -----------------------------------------------------------------


@dataclass(frozen=True)
class Drip:
    """Send the reply one byte at a time."""

    reply: str
    seconds: float


class Close:
    """Hang up instead of answering."""


class Silence:
    """Neither answer nor read, until the other side hangs up."""


DROP = Close()
HANG = Silence()

Answer = str | bytes | Drip | Close | Silence | Callable[[], str]
Script = Mapping[str, Answer | Sequence[Answer]]

GOOD: Script = {
    "connect": "220 relay.test ESMTP",
    "STARTTLS": "220 2.0.0 go ahead",
    "AUTH": "235 2.7.0 ok",
    "MAIL": "250 2.1.0 ok",
    "RCPT": "250 2.1.5 ok",
    "DATA": "354 go ahead",
    "message": "250 2.0.0 Ok: queued as 4F3B2C1D",
    "RSET": "250 2.0.0 ok",
    "QUIT": "221 2.0.0 bye",
}


@dataclass
class Conversation:
    """What one connection brought."""

    commands: list[str] = field(default_factory=list)
    in_clear: list[str] = field(default_factory=list)
    """The commands that were not inside TLS."""
    mails: list[bytes] = field(default_factory=list)
    """Messages up to their final dot, dots unstuffed."""
    loose: bytes = b""
    """Bytes of a message whose final dot never came."""
    drips: int = 0
    """Bytes of answers that went out one at a time."""
    ended: bool = False

    def verbs(self) -> list[str]:
        return [each.split(" ", 1)[0].upper() for each in self.commands]


class ScriptedRelay:
    """Answers each command as its script says, and good-naturedly where it says nothing.

    Args:
        scripts: one for each connection, in order; the last one serves all further ones. An answer stands
            under its command, under "connect", or under "message" for the reply to the final dot. A list
            answers one after the other, its last item again and again. "body": HANG stops reading after 354,
            "handshake": DROP or HANG breaks the TLS handshake off.
        offers: the lines of EHLO's answer.
        tls: for STARTTLS, or with `implicit` from the first byte on.
    """

    def __init__(
        self,
        *scripts: Script,
        offers: Sequence[str] = ("SIZE 10000000",),
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
    ) -> None:
        self._scripts = scripts or ({},)
        self._offers = offers
        self._tls = tls
        self._implicit = implicit
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._talks: list[_Talk] = []
        self.conversations: list[Conversation] = []
        self.most_at_once = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for talk in self._talks:
            talk.interrupt()
        for each in self._threads:
            each.join(30)
            assert not each.is_alive(), "the relay's thread did not end"

    @property
    def mails(self) -> list[bytes]:
        return [mail for each in self.conversations for mail in each.mails]

    @property
    def verbs(self) -> list[str]:
        return [verb for each in self.conversations for verb in each.verbs()]

    def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Wait until something that the relay sees has come true."""
        ends = time.monotonic() + seconds
        with self._changed:
            while not condition():
                left = ends - time.monotonic()
                assert left > 0, "the relay did not see what the test waits for"
                self._changed.wait(left)

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(len(self.conversations), len(self._scripts) - 1)]
            conversation = Conversation()
            with self._changed:
                self.conversations.append(conversation)
                self.most_at_once = max(self.most_at_once, sum(not each.ended for each in self.conversations))
                self._changed.notify_all()
            talk = _Talk(connection, {**GOOD, **script}, conversation, self._stopped, self._changed)
            self._talks.append(talk)
            self._start(functools.partial(self._serve, talk, conversation))

    def _serve(self, talk: _Talk, conversation: Conversation) -> None:
        try:
            if self._tls is not None and self._implicit:
                talk.handshake(self._tls)
            talk.answer("connect")
            while talk.command(self._offers, self._tls):
                pass
        except (OSError, _HungUp):
            pass
        finally:
            talk.close()
            with self._changed:
                conversation.ended = True
                self._changed.notify_all()


class _HungUp(Exception):
    """The conversation is over; nothing went wrong."""


class _Talk:
    def __init__(
        self,
        sock: socket.socket,
        script: Script,
        conversation: Conversation,
        stopped: threading.Event,
        changed: threading.Condition,
    ) -> None:
        self._sock = sock
        self._sock.settimeout(0.05)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._script = script
        self._used: dict[str, int] = {}
        self._conversation = conversation
        self._stopped = stopped
        self._changed = changed
        self._received = b""

    def interrupt(self) -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()

    def handshake(self, context: ssl.SSLContext) -> None:
        if (planned := self._script.get("handshake")) is not None:
            self._say(planned)
        self._sock.settimeout(30)
        self._sock = context.wrap_socket(self._sock, server_side=True)
        self._sock.settimeout(0.05)

    def command(self, offers: Sequence[str], tls: ssl.SSLContext | None) -> bool:
        line = self._until(b"\r\n").decode()
        verb = line.split(" ", 1)[0].upper()
        with self._changed:
            self._conversation.commands.append(line)
            if not isinstance(self._sock, ssl.SSLSocket):
                self._conversation.in_clear.append(line)
            self._changed.notify_all()
        if verb == "EHLO" and "EHLO" not in self._script:
            self._say("\r\n".join(["250-relay.test", *(f"250-{each}" for each in offers), "250 HELP"]))
        else:
            said = self.answer(verb)
            if verb == "STARTTLS" and said.startswith("220") and tls is not None:
                self.handshake(tls)
            if verb == "DATA" and said.startswith("354"):
                self._message()
        return verb != "QUIT"

    def _message(self) -> None:
        if (planned := self._script.get("body")) is not None:
            self._say(planned)
        try:
            mail = self._until(b"\r\n.\r\n")
        except _HungUp:
            self._conversation.loose = self._received
            raise
        with self._changed:
            self._conversation.mails.append((mail + b"\r\n").replace(b"\r\n..", b"\r\n."))
            self._changed.notify_all()
        self.answer("message")

    def answer(self, step: str) -> str:
        planned = self._script.get(step, "500 5.5.1 what?")
        if isinstance(planned, Sequence) and not isinstance(planned, (str, bytes)):
            turn = self._used.get(step, 0)
            self._used[step] = turn + 1
            planned = planned[min(turn, len(planned) - 1)]
        return self._say(planned)

    def _say(self, planned: object) -> str:
        if isinstance(planned, Close):
            raise _HungUp
        if isinstance(planned, Silence):
            while not self._stopped.wait(0.02):
                if self._other_side_left():
                    break
            raise _HungUp
        if isinstance(planned, Drip):
            for each in f"{planned.reply}\r\n".encode():
                self._send(bytes([each]))
                with self._changed:
                    self._conversation.drips += 1
                    self._changed.notify_all()
                if self._stopped.wait(planned.seconds):
                    raise _HungUp
            return planned.reply
        if isinstance(planned, bytes):
            self._send(planned)
            return planned.decode("latin-1")
        said = planned() if callable(planned) else str(planned)
        self._send(f"{said}\r\n".encode())
        return said

    def _send(self, data: bytes) -> None:
        self._sock.settimeout(30)
        self._sock.sendall(data)
        self._sock.settimeout(0.05)

    def _other_side_left(self) -> bool:
        try:
            return not self._sock.recv(1, 0 if isinstance(self._sock, ssl.SSLSocket) else socket.MSG_PEEK)
        except TimeoutError:
            return False

    def _until(self, end: bytes) -> bytes:
        while end not in self._received:
            if self._stopped.is_set():
                raise _HungUp
            try:
                data = self._sock.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                data = b""
            if not data:
                raise _HungUp
            self._received += data
        found, _, self._received = self._received.partition(end)
        return found


# --- a real one -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """One message and its envelope."""

    sender: str
    recipients: list[str]
    content: bytes
    smtputf8: bool


@dataclass
class RealRelay:
    """An aiosmtpd server on a port of its own, and what it took."""

    port: int = 0
    taken: list[Taken] = field(default_factory=list)
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        sender = envelope.mail_from or ""
        self.taken.append(Taken(sender, envelope.rcpt_tos, envelope.content, smtputf8=envelope.smtp_utf8))
        return "250 2.0.0 Ok: queued as 4F3B2C1D"

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: object
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=(data.login, data.password) == (b"fleet", "pä@ss:wörd".encode()))


@contextlib.contextmanager
def real_relay(
    tls: ssl.SSLContext | None = None, *, implicit: bool = False, login: bool = False
) -> Iterator[RealRelay]:
    """Run one. With `tls` it requires STARTTLS, or (`implicit`) speaks TLS at once; with `login`, AUTH."""
    relay = RealRelay()
    loop = asyncio.new_event_loop()
    starttls = tls if tls is not None and not implicit else None

    open_ones: set[SMTP] = set()

    class Server(SMTP):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            open_ones.add(self)
            super().connection_made(transport)

        def connection_lost(self, error: Exception | None) -> None:
            open_ones.discard(self)
            super().connection_lost(error)

    def protocol() -> SMTP:
        return Server(
            relay,
            hostname="relay.test",
            ident="relay",
            enable_SMTPUTF8=True,
            tls_context=starttls,
            require_starttls=starttls is not None,
            # aiosmtpd knows only of TLS that it started itself: elsewhere it may offer AUTH, not require it.
            auth_required=login and starttls is not None,
            auth_require_tls=starttls is not None,
            authenticator=relay.authenticate if login else None,
            loop=loop,
        )

    server = loop.run_until_complete(
        loop.create_server(protocol, "127.0.0.1", 0, ssl=tls if implicit else None)
    )
    relay.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield relay
    finally:

        async def stop() -> None:
            server.close()
            await server.wait_closed()
            while open_ones:
                for each in open_ones:
                    if isinstance(each.transport, asyncio.WriteTransport):
                        each.transport.abort()
                await asyncio.sleep(0.005)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
