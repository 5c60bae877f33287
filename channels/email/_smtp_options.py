"""The options of `email.smtp`, read and checked before any connection is opened."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import unquote, urlsplit

from channels._options import refuse_unknown, wrong_option
from channels.contract import Misconfigured
from channels.email import _dkim
from channels.email._mime import Letterhead, Mailbox, domain_name, named_mailbox
from channels.email._return_path import ReturnPath, read_return_path


class Security(StrEnum):
    """How the connection is kept private: the scheme of `url`."""

    STARTTLS = "smtp"
    """STARTTLS is required (RFC 3207)."""
    IMPLICIT = "smtps"
    """TLS from the first byte (RFC 8314)."""
    PLAIN = "smtp+plain"
    """None: for a relay on this machine."""


_DNS_NAME_MAX = 253  # characters (RFC 1035, section 2.3.4, without the length bytes)
_PORTS = {Security.STARTTLS: 587, Security.IMPLICIT: 465, Security.PLAIN: 25}


@dataclass(frozen=True, slots=True)
class Relay:
    """What `url` says."""

    security: Security
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """A provider's options: fields are named as the options are, or say which ones they come from."""

    name: str
    relay: Relay
    """`url`: `smtp://user:password@host:587`, `smtps://...:465` or, on this machine, `smtp+plain://...:25`."""
    sender: str = field(repr=False)
    """The address in MAIL FROM, where there is no `return_path`; the option is `Name <addr>` and gives From too."""
    return_path: ReturnPath | None
    """`bounce_domain` and `bounce_key` (a secret of 16 characters or more; two in a list while one replaces the
    other, the new one first): both, and MAIL FROM is an address of that domain that each mail has to itself (see
    `channels.email._return_path`), or none. The domain's mail server takes all of `bounce+...` and hands it to the
    receipts' door; SPF asks that domain for the relay, and DMARC is content where it lies in that of From."""
    letterhead: Letterhead = field(repr=False)
    """From, Reply-To (`reply_to`, optional) and `message_id_domain` (default: the sender's)."""
    dkim: _dkim.Signer | None
    """`dkim_domain`, `dkim_selector` and `dkim_key`: all of them, and each mail is signed (see
    `channels.email._dkim`), or none, where the relay signs or nobody does. The domain is that of the sender, or
    one above it; the selector names the TXT record `SELECTOR._domainkey.DOMAIN` with the public half of the key;
    the key is in PEM, RSA of 2048 to 4096 bits or Ed25519, which not every receiver verifies yet."""
    tls: ssl.SSLContext | None = field(repr=False)
    """TLS 1.2 or later; certificates must lead to a root of the system or of `ca_file` (PEM, optional).
    None for `smtp+plain://` alone."""
    local_hostname: str | None
    """The name in EHLO. Default: this machine's full name, or None for the connection's own address."""
    connections: int
    """At most, default 10."""
    connection_messages: int
    """Messages over one connection, at most; default 100."""
    connection_seconds: float
    """Age at which a connection takes no further message; default 60."""


def read(name: str, options: Mapping[str, Any]) -> Settings:
    """Read and check the options.

    Raises:
        Misconfigured: an option is missing, wrong or unknown; it names the option and says what to write.
    """
    given = _Reader(name, options)
    relay = given.relay()
    sender = given.named("sender")
    if sender is None:
        raise given.wrong("sender", "is missing; write 'Name <name@example.com>'")
    reply_to = given.named("reply_to")
    return Settings(
        name=name,
        relay=relay,
        sender=sender[1].address,
        return_path=read_return_path(name, options),
        letterhead=Letterhead(
            sender[0], reply_to[0] if reply_to else None, given.domain("message_id_domain", sender[1].domain)
        ),
        dkim=given.dkim(),
        tls=None if relay.security is Security.PLAIN else given.tls(),
        local_hostname=given.hostname(),
        connections=given.whole("connections", 10),
        connection_messages=given.whole("connection_messages", 100),
        connection_seconds=given.number("connection_seconds", 60, 1),
    )


_DKIM = ("dkim_domain", "dkim_selector", "dkim_key")


class _Reader:
    """Reads one option at a time and refuses what is wrong with it, or what nobody reads."""

    _KNOWN = frozenset({
        "url", "sender", "reply_to", "ca_file", "connections", "connection_messages", "connection_seconds",
        "local_hostname", "message_id_domain", "bounce_domain", "bounce_key", *_DKIM,
    })  # fmt: skip

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._name = name
        self._options = options
        refuse_unknown(name, "email.smtp", options, self._KNOWN)

    def wrong(self, option: str, sentence: str) -> Misconfigured:
        return wrong_option(self._name, option, sentence)

    def text(self, option: str, default: str | None = None) -> str | None:
        value = self._options.get(option, default)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise self.wrong(option, "must be a text that is not empty")
        return value

    def number(self, option: str, default: float, least: float) -> float:
        value = self._options.get(option, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
            raise self.wrong(option, f"must be a number, {least:g} or more")
        return value

    def whole(self, option: str, default: int) -> int:
        value = self.number(option, default, 1)
        if not isinstance(value, int):
            raise self.wrong(option, "must be a whole number")
        return value

    def relay(self) -> Relay:
        url = self.text("url")
        if url is None:
            raise self.wrong("url", "is missing; write smtp://user:password@host:587 or smtps://...")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts = urlsplit("")
            port = None
        host = parts.hostname or ""
        if parts.path.strip("/") or parts.query or parts.fragment or not host:
            raise self.wrong(
                "url", "must be smtp://user:password@host:port; percent-encode / ? # @ : % in the password"
            )
        if parts.scheme not in list(Security):
            raise self.wrong(
                "url", "must begin with smtp:// (STARTTLS), smtps:// (TLS at once) or smtp+plain://"
            )
        security = Security(parts.scheme)
        if bool(parts.username) != bool(parts.password):
            raise self.wrong("url", "must have both user and password, or neither")
        address = _ip_address(host)
        ascii_host = host if address else domain_name(host)
        if ascii_host is None:
            raise self.wrong("url", "has a host that is neither a name nor an address")
        if security is Security.PLAIN and not (host == "localhost" or (address and address.is_loopback)):
            raise self.wrong("url", "may be smtp+plain:// for this machine alone; use smtp:// or smtps://")
        user = unquote(parts.username) if parts.username else None
        return Relay(security, ascii_host, port or _PORTS[security], user, unquote(parts.password or ""))

    def named(self, option: str) -> tuple[str, Mailbox] | None:
        text = self.text(option)
        if text is None:
            return None
        try:
            return named_mailbox(text)
        except ValueError as error:
            sentence = f"is {error}; write 'Name <name@example.com>'"
        raise self.wrong(option, sentence)

    def domain(self, option: str, default: str) -> str:
        found = domain_name(self.text(option) or default)
        if found is None:
            raise self.wrong(option, "must be a domain, such as mail.example.com")
        return found

    def dkim(self) -> _dkim.Signer | None:
        given = {option: self.text(option) for option in _DKIM}
        absent = [option for option, value in given.items() if value is None]
        if len(absent) == len(_DKIM):
            return None
        if absent:
            raise self.wrong(absent[0], f"is missing; write all of {', '.join(_DKIM)}, or none of them")
        if not _dkim.installed():
            raise self.wrong(
                "dkim_key",
                "needs the package cryptography; type pip install 'notify-tasks[worker]'",
            )
        domain = self.domain("dkim_domain", "")
        selector = given["dkim_selector"] or ""
        # RFC 6376, section 3.1: labels with dots between them, as in a domain.
        if domain_name(selector) != selector:
            raise self.wrong("dkim_selector", "must be the first part of its DNS record's name, such as s1")
        if len(f"{selector}._domainkey.{domain}") > _DNS_NAME_MAX:
            raise self.wrong("dkim_selector", "is too long for a name in the DNS; take a shorter one")
        try:
            return _dkim.Signer(domain, selector, _dkim.read_key(given["dkim_key"] or ""))
        except ValueError as error:
            sentence = str(error)
        raise self.wrong("dkim_key", sentence)

    def hostname(self) -> str | None:
        text = self.text("local_hostname")
        if text is None:
            # The machine's own name where it is a full one; no question to DNS, which can take seconds.
            own = socket.gethostname()
            return domain_name(own) if "." in own else None
        if not re.fullmatch(r"\[[0-9A-Za-z.:]+\]", text) and domain_name(text) != text:
            raise self.wrong("local_hostname", "must be a host name, or an address in brackets")
        return text

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        ca_file = self.text("ca_file")
        if ca_file is not None:
            try:
                context.load_verify_locations(ca_file)
            except OSError:  # ssl.SSLError is one too
                raise self.wrong("ca_file", "cannot be read as PEM certificates; check the path") from None
        return context


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
