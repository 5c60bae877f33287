"""The SMTP far end: a real submission server (STARTTLS, AUTH) that can be told to misbehave.

It logs each transaction once, when it is refused or at its end, once for each recipient, and each failed
login. The delivery's id is read from the header X-Notify-Delivery.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import ssl
from datetime import UTC, datetime
from email.parser import BytesHeaderParser
from typing import Final

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from notify_tasks.sandbox.bouncing import Mail
from notify_tasks.sandbox.kept import Arrival, Kept
from notify_tasks.sandbox.log import OPAQUE, Effects, Incoming
from notify_tasks.sandbox.modes import OK, Mode, Modes
from notify_tasks.sandbox.modes import SMTP as TARGET
from notify_tasks.sandbox.reporting import Reporter

DELIVERY_HEADER: Final = "X-Notify-Delivery"
USER: Final = "sandbox"
PASSWORD: Final = "sandbox-password"  # noqa: S105 - public on purpose: it guards nothing but a test server
_FOREVER: Final = 24 * 3600.0

logging.getLogger("mail.log").setLevel(logging.ERROR)  # it would print the recipients


class _Transaction(Envelope):
    """One mail on its way, and the mode that it meets."""

    mode: Mode = OK


class _Connection(SMTP):
    """One SMTP connection.

    Args:
        end: the far end that it belongs to.
        number: its serial number.
        context: the TLS context that STARTTLS uses.
    """

    def __init__(self, end: SmtpEnd, number: int, context: ssl.SSLContext) -> None:
        super().__init__(
            end,
            hostname="sandbox.localhost",  # else it asks the DNS for one, for each connection
            ident="notify-tasks sandbox",
            enable_SMTPUTF8=True,
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=end.authenticate,
        )
        self.end = end
        self.number = number
        self.gone = asyncio.Event()

    def _create_envelope(self) -> Envelope:
        return _Transaction()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.end.open.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.end.open.discard(self)
        self.gone.set()
        super().connection_lost(error)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - aiosmtpd finds it by this name
        transaction = self.envelope
        if isinstance(transaction, _Transaction) and transaction.mode.name == "drop_before_data":
            for address in transaction.rcpt_tos:
                self.end.log(self, transaction, address, code=None)
            await self.abort()
        await super().smtp_DATA(arg)

    async def abort(self) -> None:
        """Cut the connection, and wait for aiosmtpd to cancel this task for it."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()
        await asyncio.sleep(_FOREVER)


class SmtpEnd:
    """The handler of all SMTP connections.

    Args:
        effects: takes and logs.
        modes: how to behave.
        context: what STARTTLS uses.
        wrong_context: what it uses in the mode `bad_certificate`.
        reporter: sends mails back.
        kept: takes what arrives; None keeps no contents.
    """

    def __init__(
        self,
        effects: Effects,
        modes: Modes,
        context: ssl.SSLContext,
        wrong_context: ssl.SSLContext,
        reporter: Reporter,
        kept: Kept | None,
    ) -> None:
        self.open: set[_Connection] = set()
        self._effects = effects
        self._modes = modes
        self._context = context
        self._wrong_context = wrong_context
        self._reporter = reporter
        self._kept = kept

    def connection(self) -> SMTP:
        """The protocol object of a new connection."""
        wrong = self._modes.draw(TARGET, "connect").name == "bad_certificate"
        context = self._wrong_context if wrong else self._context
        return _Connection(self, self._effects.next_connection(), context)

    async def drop(self) -> None:
        """Cut the open connections. Returns when they are cut."""
        dropped = list(self.open)
        for each in dropped:
            if isinstance(each.transport, asyncio.Transport):
                each.transport.abort()
        # One that is cut in the middle of its TLS handshake may never tell.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                for each in dropped:
                    await each.gone.wait()

    def log(
        self,
        server: _Connection,
        transaction: _Transaction,
        address: str | None,
        *,
        code: str | None,
        accept: bool = False,
    ) -> str | None:
        """Log what becomes of a transaction for one recipient. Returns the id of its effect, if any."""
        content = transaction.original_content or b""
        head = content.partition(b"\r\n\r\n")[0]  # the parser would split a large mail into all its lines
        incoming = Incoming(
            protocol="smtp",
            action="send",
            connection=server.number,
            channel="email",
            kind=OPAQUE,
            delivery_id=BytesHeaderParser().parsebytes(head)[DELIVERY_HEADER],
            to=address,
            size=len(content),
        )
        taken = self._effects.record(incoming, accept=accept, code=code, mode=transaction.mode.name)
        if self._kept is not None and taken.accepted:
            self._kept.add(
                Arrival(
                    id=taken.id or "",
                    at=taken.at,
                    channel="email",
                    protocol="smtp",
                    to=address or "",
                    raw=content,
                    delivery_id=taken.delivery_id,
                    code=code,
                    mode=taken.mode,
                    again=taken.duplicate_of_key,
                )
            )
        return taken.id

    def authenticate(
        self, server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: object
    ) -> AuthResult:
        """Check a login: aiosmtpd's authenticator."""
        mode = self._modes.draw(TARGET, "auth")
        right = isinstance(data, LoginPassword) and hmac.compare_digest(
            b"%b\0%b" % data, f"{USER}\0{PASSWORD}".encode()
        )
        if right and mode.name != "535":
            return AuthResult(success=True, auth_data=data)
        number = server.number if isinstance(server, _Connection) else 0
        incoming = Incoming(protocol="smtp", action="auth", connection=number, channel="email", kind=OPAQUE)
        self._effects.record(incoming, accept=False, code="535", mode=mode.name)
        return AuthResult(success=False, handled=False)

    # --- aiosmtpd's hooks, found by their names -------------------------------------------------------

    async def handle_MAIL(  # noqa: N802
        self,
        server: _Connection,
        _session: Session,
        envelope: _Transaction,
        address: str,
        options: list[str],
    ) -> str:
        envelope.mode = self._modes.draw(TARGET)
        if envelope.mode.name == "421":
            self.log(server, envelope, None, code="421")
            await self._goodbye(server)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Ok"

    async def handle_RCPT(  # noqa: N802
        self,
        server: _Connection,
        _session: Session,
        envelope: _Transaction,
        address: str,
        options: list[str],
    ) -> str:
        envelope.mode = self._modes.of_address(TARGET, address) or envelope.mode
        refusals = {
            "421": "421 4.7.0 Too many messages, slow down",
            "450": "450 4.2.0 Greylisted, try again later",
            "550": "550 5.1.1 No such user here",
        }
        refusal = refusals.get(envelope.mode.name)
        if refusal is not None:
            self.log(server, envelope, address, code=envelope.mode.name)
            if envelope.mode.name == "421":
                await self._goodbye(server)
            return refusal
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 Ok"

    async def handle_DATA(  # noqa: N802
        self, server: _Connection, _session: Session, envelope: _Transaction
    ) -> str:
        mode = envelope.mode.name
        if mode == "554":
            for address in envelope.rcpt_tos:
                self.log(server, envelope, address, code="554")
            return "554 5.7.1 Refused by policy"
        code = None if mode in {"drop_after_dot", "hang_after_dot"} else "250"
        taken = [self.log(server, envelope, address, code=code, accept=True) for address in envelope.rcpt_tos]
        for address, effect in zip(envelope.rcpt_tos, taken, strict=True):
            sender = (envelope.mail_from or "").strip("<>")  # nobody is `<>` here
            content = envelope.original_content or b""
            await self._reporter.bounced(Mail(effect or "", datetime.now(UTC), sender, address, content))
        if mode == "drop_after_dot":
            await server.abort()
        if mode == "hang_after_dot":
            await asyncio.sleep(_FOREVER)
        if mode == "slow":
            await asyncio.sleep(envelope.mode.delay)
        return f"250 2.0.0 Ok: queued as {taken[0]}"

    async def _goodbye(self, server: _Connection) -> None:
        """Reply 421 and close, as RFC 5321 section 3.8 wants it. Ends with the task being cancelled."""
        await server.push("421 4.7.0 Too many messages, slow down")
        if isinstance(server.transport, asyncio.Transport):
            server.transport.close()
        await asyncio.sleep(_FOREVER)
