"""`email.smtp`: mail through an SMTP relay (RFC 5321, submission by RFC 6409), in TLS.

Where a conversation ends decides what its end means. Before the message's last piece, the one with the final
dot, is handed over, nothing can have been accepted (RFC 5321 section 4.1.1.10: a relay drops a transaction that is
cut short); from then until the reply to the final dot, it may have been. `TABLE` below is that knowledge, row by
row; the first row that fits is taken.

| a report says, of a mail with a return path (options `bounce_domain`, `bounce_key`) | fate | address |
|---|---|---|
| Action delayed | accepted | |
| Action relayed, expanded | sent | |
| Action delivered | delivered | |
| Action failed, and at RCPT its Status and Diagnostic-Code would be AddressInvalid in `TABLE` | undelivered | invalid |
| Action failed with any other Status: mailbox full, policy, given up | undelivered | |
| Feedback-Type abuse, fraud (RFC 5965) | delivered | complained |
| Feedback-Type opt-out; not-spam | delivered | opted out; nothing |
| any other Action or Feedback-Type; a mail server's letter in no such form | unknown | |
| an answer of a person or a machine: out of office | no event | |

`channels.email._bounces` reads them (RFC 3464).

With the options `dkim_domain`, `dkim_selector` and `dkim_key` each mail is signed (RFC 6376) as the last step before
it goes out; `channels.email._dkim` says how.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    ChannelError,
    Deadline,
    EmailContent,
    Message,
    Misconfigured,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from channels.email import _bounces
from channels.email._mime import Mailbox, mailbox
from channels.email._smtp_options import Relay, Security, Settings, read
from channels.email._smtp_pool import Client, Failure, Phase, Pool, Reply, connect
from channels.receipts import Event, Receipt

# --- what an answer means ---------------------------------------------------------------------------

GREYLIST_SECONDS = 300.0
"""A greylisting relay takes a message that comes again after some minutes (RFC 6647): five are enough."""

_SETUP = (Phase.CONNECT, Phase.HELLO, Phase.TLS, Phase.AUTH)
_GREET = (Phase.CONNECT, Phase.HELLO)
_AUTH = (Phase.AUTH,)
_MAIL = (Phase.MAIL,)
_RCPT = (Phase.RCPT,)
_ENVELOPE = (Phase.MAIL, Phase.RCPT)
_UNSENT = (Phase.MAIL, Phase.RCPT, Phase.DATA)
_BODY = (Phase.BODY,)
_ALL = tuple(Phase)

_LOST = r"dropped|deadline|overlong"
_RATE = r"\brate\b|too (many|fast|much)|throttl|limit (exceeded|reached)|slow down"
_GREY = r"gr[ae]y-?list"
_UNKNOWN = r"unknown|no such user|does not exist"
_RELAY = (
    r"relay(ing)? (access )?(is )?(denied|not|prohibited)"
    r"|(unable|cannot|permitted|allowed|authori[sz]ed|will not|do not|don't) (to )?relay"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: in one of `phases`, an answer that fits `answer` and `says` is an `error`.

    Args:
        phases: where the conversation was.
        answer: fits the whole of `"550 5.1.1"`, `"550"`, `"0"` (not SMTP), or a word where no reply came.
        says: is found in the relay's text, in lower case and without addresses. Empty: whatever it says.
        error: what it means.
        detail: our sentence about it.
        retry_after: seconds to wait, where that is known.
    """

    phases: tuple[Phase, ...]
    answer: str
    says: str
    error: type[ChannelError]
    detail: str
    retry_after: float | None = None


# fmt: off
TABLE = (
    # No answer.
    Rule(_SETUP, r"resolve", "", Unavailable, "the relay's host name has no address; check url"),
    Rule(_SETUP, r"connect", "", Unavailable, "the relay takes no connection; check host and port in url"),
    Rule(_SETUP, _LOST, "", Unavailable, "the relay broke off, or was too slow, before any mail was offered"),
    Rule(_UNSENT, r"busy", "", TryLater, "every connection was in use; raise connections or lower the rate"),
    Rule(_UNSENT, _LOST, "", TryLater, "the connection or the time ended before the message was sent"),
    Rule(_BODY, _LOST, "", Uncertain, "the message was sent and the relay's answer did not come"),
    # What we ask of a connection.
    Rule(_SETUP, r"starttls", "", Misconfigured, "the relay offers no STARTTLS; try smtps:// (TLS at once)"),
    Rule(_SETUP, r"certificate", "", Misconfigured, "the relay's certificate is not valid; see ca_file"),
    Rule(_SETUP, r"tls", "", Misconfigured, "no TLS on this port, or one older than 1.2; see the relay"),
    Rule(_SETUP, r"injected", "", Misconfigured, "the relay sent text ahead of the TLS handshake; update it"),
    Rule(_SETUP, r"mechanism", "", Misconfigured, "the relay offers no AUTH PLAIN or LOGIN; mend url"),
    Rule(_SETUP, r"plaintext", "", Misconfigured, "smtp+plain:// is for this machine alone; use smtps://"),
    # The relay before any mail.
    Rule(_GREET, r"421 4\.7\.0", "", Throttled, "the relay asks for fewer connections"),
    Rule(_SETUP, r"4\d\d( 4\.7\.\d+)?", _RATE, Throttled, "the relay asks for fewer connections"),
    Rule(_AUTH, r"5.*", "", Misconfigured, "the relay does not take our user and password; mend url"),
    Rule(_SETUP, r"4.*", "", Unavailable, "the relay is out of service for now"),
    Rule(_SETUP, r"5.*", "", Misconfigured, "the relay refuses to serve us; ask its operator why"),
    Rule(_SETUP, r".*", "", Unavailable, "what answers is no SMTP relay; check host and port in url"),
    # Slow down, come back.
    Rule(_UNSENT, r"421 4\.7\.0", "", Throttled, "the relay asks for a lower rate"),
    Rule(_ALL, r"4.*", _GREY, TryLater, "greylisted", GREYLIST_SECONDS),
    Rule(_UNSENT, r"(421|45[014])( 4\.7\.\d+)?", _RATE, Throttled, "the relay asks for a lower rate"),
    Rule(_RCPT, r"45[01] 4\.(2\.0|7\.1)", "", TryLater, "greylisted", GREYLIST_SECONDS),
    Rule(_UNSENT, r"4.*", "", TryLater, "the relay cannot take it now"),
    # The sender, also where the relay keeps its answer until RCPT.
    Rule(_ENVELOPE, r"smtputf8|55\d 5\.6\.7", "", AddressInvalid, "the relay takes ASCII addresses alone"),
    Rule(_MAIL, r"size|552.*|5\d\d 5\.3\.4", "", Refused, "too large for the relay; make the message smaller"),
    Rule(_MAIL, r"5.*", "", Misconfigured, "the relay does not let us send as this sender; mend sender"),
    Rule(_UNSENT, r"530.*", "", Misconfigured, "the relay wants TLS or AUTH first; mend url"),
    Rule(_RCPT, r"5\d\d 5\.1\.[78]", "", Misconfigured, "the relay does not take our sender; mend sender"),
    Rule(_RCPT, r"5.*", r"sender address rejected", Misconfigured, "the relay does not take our sender"),
    # The recipient.
    Rule(_RCPT, r"5\d\d 5\.(1\.([1236]|10)|2\.1|4\.4)", "", AddressInvalid, "no such mailbox or domain"),
    Rule(_RCPT, r"55[013]", _UNKNOWN, AddressInvalid, "no such mailbox"),
    Rule(_RCPT, r"552.*|5\d\d 5\.2\.2", "", Refused, "the mailbox is full"),
    Rule(_RCPT, r"55[014]( 5\.(4\.1|7\.\d+))?", _RELAY, Misconfigured, "the relay does not relay for us"),
    # A directory that hides its mailboxes says so of one unknown recipient: that must not stop the fleet.
    Rule(_RCPT, r"550 5\.4\.1", r"recipient address rejected", Refused, "the recipient's side denies access"),
    Rule(_RCPT, r"550 5\.4\.1", "", Misconfigured, "the relay does not relay for us"),
    Rule(_UNSENT, r"503.*", "", TryLater, "the relay lost its place in the conversation"),
    # Policy, spam, block lists (5.7.x) and every other final no: not the address's fault.
    Rule(_UNSENT, r"5.*", "", Refused, "the relay will not take this message"),
    Rule(_UNSENT, r".*", "", TryLater, "the relay's answer cannot be read"),
    # After the final dot: a reply says whether it was taken; anything else does not.
    Rule(_BODY, r"4.*", "", TryLater, "the relay could not take it after all"),
    Rule(_BODY, r"5.*", "", Refused, "the relay will not take this message"),
    Rule(_BODY, r".*", "", Uncertain, "the message was sent and the relay's answer cannot be read"),
)
# fmt: on

_ADDRESSES = re.compile(r"<[^>]*>|\S*@\S*")


def classify(phase: Phase, code: int | str, enhanced: str | None = None, text: str = "") -> ChannelError:
    """What an answer of the relay means.

    Args:
        phase: where the conversation was.
        code: the reply code; 0 for a line that is not SMTP; a word of `Failure` where no reply came.
        enhanced: the status code of RFC 3463, where one was given.
        text: what the relay said. It is matched, never repeated: it may quote addresses.
    """
    answer = f"{code} {enhanced}" if enhanced else str(code)
    # An address such as relay@example.com must not speak for the relay.
    said = _ADDRESSES.sub(" ", text[:2000]).lower()
    for rule in TABLE:
        if phase in rule.phases and re.fullmatch(rule.answer, answer) and re.search(rule.says, said):
            shown = answer if code != 0 else "protocol"
            return rule.error(shown, f"{rule.detail} (at {phase})", retry_after=rule.retry_after)
    raise AssertionError("the table has a last row for each phase: give the new phase one")


# --- sending ----------------------------------------------------------------------------------------


def build(name: str, options: Mapping[str, Any]) -> SmtpProvider:
    """Build the provider.

    Args:
        name: its name in the configuration.
        options: see `channels.email._smtp_options.Settings`; `url` and `sender` are required.

    Raises:
        Misconfigured: an option is missing, wrong or unknown.
    """
    with _alone():
        return SmtpProvider(read(name, options))


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let an error go out without the ones it came from: those quote addresses and credentials."""
    try:
        yield
    except ChannelError as error:
        error.__cause__ = error.__context__ = None
        raise


_CLOSING = 421
# As Postfix, Exim and Amazon SES say it: with it the relay's log, or its events, can be searched.
_QUEUE_ID = re.compile(
    r"(?:\bqueued as |\bid=)([\w.-]{4,100})|^Ok ([0-9a-f-]{30,100})\b", re.ASCII | re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Envelope:
    """Who MAIL FROM and RCPT TO name."""

    sender: str = field(repr=False)
    to: Mailbox = field(repr=False)


class SmtpProvider:
    """Mail through one relay, over pooled connections, one recipient a transaction. Made by `build`."""

    capability = Capability.OPAQUE

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = Pool(settings.connections, settings.connection_messages, settings.connection_seconds)

    def __repr__(self) -> str:
        return f"SmtpProvider({self._settings.name!r})"

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one mail to the relay. See `Provider.send`; `TABLE` says which answer is which error."""
        with _alone():
            if not isinstance(message.content, EmailContent):
                raise Refused("content", "email.smtp carries EmailContent; put it in an email pool")
            to = mailbox(message.address)
            path = self._settings.return_path
            sender = self._settings.sender if path is None else path.address(message.delivery_id)
            data = self._settings.letterhead.compose(message, message.content, to)
            if self._settings.dkim is not None:
                data = self._settings.dkim.sign(data, int(time.time()))
            try:
                reply = self._deliver(_Envelope(sender, to), data, deadline)
            except Failure as failure:
                raise classify(failure.phase, failure.code, failure.enhanced, failure.text) from None
        match = _QUEUE_ID.search(reply.text)
        code = f"{reply.code} {reply.enhanced}" if reply.enhanced else str(reply.code)
        return Accepted((match[1] or match[2]) if match else None, code)

    def verify(self, receipt: Receipt) -> None:
        """See `channels.receipts.Reporting`: a report of any server, with a return path of ours."""
        _bounces.verify(receipt, self._settings.return_path)

    def events(self, receipt: Receipt) -> Sequence[Event]:
        """See `channels.receipts.Reporting`; the module has the table."""
        return _bounces.events(
            receipt,
            self._settings.return_path,
            lambda code, status, text: classify(Phase.RCPT, code, status, text),
        )

    def close(self) -> None:
        """Close the pooled connections."""
        self._pool.close()

    def _deliver(self, envelope: _Envelope, data: bytes, deadline: Deadline) -> Reply:
        with self._pool.slot(deadline):
            client = self._pool.take()
            if client is not None:
                try:
                    return self._transact(client, envelope, data, deadline)
                except Failure as failure:
                    if not _was_stale(failure):
                        raise
            return self._transact(self._open(deadline), envelope, data, deadline)

    def _open(self, deadline: Deadline) -> Client:
        """A connection that is ready for MAIL."""
        relay = self._settings.relay
        sock = connect(relay.host, relay.port, deadline, loopback_only=relay.security is Security.PLAIN)
        client = Client(sock, self._settings.local_hostname, deadline)
        ready = False
        try:
            with deadline.cutting(client.cut):
                self._prepare(client, relay)
            ready = True
        finally:
            if not ready:
                client.close()
        return client

    def _prepare(self, client: Client, relay: Relay) -> None:
        tls = self._settings.tls
        if relay.security is Security.IMPLICIT:
            assert tls is not None
            client.secure(tls, relay.host)
        client.reply("220")
        client.hello()
        if relay.security is Security.STARTTLS:
            if not client.has_extn("starttls"):
                raise Failure(Phase.TLS, "starttls")
            client.step(Phase.TLS, "STARTTLS", "220")
            assert tls is not None
            client.secure(tls, relay.host)
            client.hello()
        if relay.user is not None:
            client.authenticate(relay.user, relay.password)

    def _transact(self, client: Client, envelope: _Envelope, data: bytes, deadline: Deadline) -> Reply:
        """One mail to one recipient. Keeps the connection only if it surely stands between two mails."""
        client.deadline = deadline
        client.messages += 1
        clean = False
        try:
            with deadline.cutting(client.cut):
                try:
                    reply = self._converse(client, envelope, data)
                    clean = True
                except Failure as failure:
                    clean = _left_open(failure) and client.reset()
                    raise
        finally:
            if clean:
                self._pool.give_back(client)
            else:
                client.close()
        return reply

    def _converse(self, client: Client, envelope: _Envelope, data: bytes) -> Reply:
        options = ""
        if not envelope.to.ascii:
            if not client.has_extn("smtputf8"):
                raise Failure(Phase.MAIL, "smtputf8")
            options = " SMTPUTF8 BODY=8BITMIME"
        if client.has_extn("size"):
            limit = client.esmtp_features["size"].strip()
            if limit.isdecimal() and 0 < int(limit) < len(data):  # RFC 1870: 0 and none at all say nothing
                raise Failure(Phase.MAIL, "size")
            options += f" SIZE={len(data)}"
        client.step(Phase.MAIL, f"MAIL FROM:<{envelope.sender}>{options}")
        client.step(Phase.RCPT, f"RCPT TO:<{envelope.to.address}>")
        client.step(Phase.DATA, "DATA", "354")
        return client.body(data)


def _was_stale(failure: Failure) -> bool:
    """A pooled connection that the relay had given up: nothing was sent, so a new one is free to try."""
    if failure.code == "dropped":
        return failure.phase in _UNSENT
    return failure.code == _CLOSING and failure.phase is Phase.MAIL  # said while the connection lay idle


def _left_open(failure: Failure) -> bool:
    """A clear no to the envelope: the connection is good for the next mail."""
    if isinstance(failure.code, str):
        return failure.code in {"smtputf8", "size"}  # found before MAIL
    return failure.phase in _ENVELOPE and failure.code >= 400 and failure.code != _CLOSING  # noqa: PLR2004
