"""Where a request may go: URLs taken apart strictly, and IP addresses that are the public internet's.

The networks below are the special-purpose registries of IANA (RFC 6890 and its successors), written out:
what `ipaddress` calls global differs between Python's versions, and counts multicast, NAT64, 6to4 and
site-local addresses in.
"""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from urllib.parse import quote, urlsplit

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver: TypeAlias = Callable[[str, int], Sequence[str]]
"""Finds the IP addresses of a host, for a port. Raises OSError where it finds none."""

MAX_URL: Final = 2048
"""Characters, as for a recipient's address."""

# --- URLs -------------------------------------------------------------------------------------------

_PORTS: Final = {"https": 443, "http": 80}
_LABEL: Final = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_NAME: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*", re.ASCII)
_NETLOC: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:@]+)(?::[0-9]*)?", re.ASCII)
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
"""A name whose last part is a number is an IPv4 address to some resolvers: 2130706433, 0x7f.1, 127.1."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a server is. The host has no trailing dot, and an IPv6 address no brackets."""

    scheme: str
    host: str = field(repr=False)
    port: int

    @property
    def tls(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """As the Host header names it (RFC 9110, section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def split_url(url: str) -> tuple[Origin, str]:
    """An http or https URL as its origin and the target of a request: path and query, in ASCII.

    Raises:
        ValueError: it is none that anybody could send to. The text says why, without the URL.
    """
    if len(url) > MAX_URL:
        raise ValueError(f"is longer than {MAX_URL} characters")
    # Looked for first: urlsplit drops line breaks and tabs instead of refusing them.
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise ValueError("has a space, a control character or a backslash")
    try:
        parts = urlsplit(url)
        given, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is malformed") from None
    if parts.scheme not in _PORTS:
        raise ValueError("begins with neither https:// nor http://")
    if "@" in parts.netloc:
        raise ValueError("holds a user name or a password")
    if port == 0 or not _NETLOC.fullmatch(parts.netloc):
        raise ValueError("has no host, or a malformed host or port")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        plain = quote(target, safe="/?:@!$&'()*+,;=%-._~[]")
    except UnicodeEncodeError:  # a lone surrogate
        raise ValueError("is malformed") from None
    return Origin(parts.scheme, _host(given), port or _PORTS[parts.scheme]), plain


def _host(given: str) -> str:
    if ":" in given:
        try:
            return str(ipaddress.IPv6Address(given))
        except ValueError:
            raise ValueError("has a malformed IPv6 address") from None
    name = _ascii(given).removesuffix(".")
    if not _NAME.fullmatch(name):
        raise ValueError("has no host, or a malformed one")
    if _NUMBER.fullmatch(name):
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise ValueError("has an IP address that is not written as four plain numbers") from None
    return name


def _ascii(name: str) -> str:
    if name.isascii():
        return name
    import idna  # noqa: PLC0415 - large, and hardly ever needed

    try:
        return idna.encode(name, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        raise ValueError("has a malformed host") from None


# --- IP addresses -----------------------------------------------------------------------------------


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_NOT_PUBLIC: Final = _networks(
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",
    "100.64.0.0/10",  # behind a provider's NAT; metadata of Alibaba Cloud
    "127.0.0.0/8",
    "168.63.129.16/32",  # the host of a machine at Azure, with its metadata
    "169.254.0.0/16",  # link local; metadata of most clouds
    "172.16.0.0/12",
    "192.0.0.0/24",  # protocol assignments; metadata of Oracle Cloud
    "192.0.2.0/24",
    "192.88.99.0/24",  # 6to4 relays, given up
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
    "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
    "2001:db8::/32",
    "3fff::/20",  # documentation
)
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that is handed out: loopback, unique local, link local, site local and multicast lie outside."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: Address, allowed: Iterable[Network] = ()) -> bool:
    """Whether an address is the public internet's, or in an `allowed` network.

    An IPv6 address that carries an IPv4 address (mapped, NAT64, 6to4) is judged by that one.
    """
    inner = _carried(address)
    judged = address if inner is None else inner
    if any(judged.version == each.version and judged in each for each in allowed):
        return True
    if isinstance(judged, ipaddress.IPv6Address) and judged not in _GLOBAL_UNICAST:
        return False
    return not any(judged.version == each.version and judged in each for each in _NOT_PUBLIC)


def _carried(address: Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


# --- names ------------------------------------------------------------------------------------------

_MOST_LOOKUPS: Final = 64
"""Lookups at once. A name server that never answers holds a thread for each, for as long as libc waits."""
_lookups = threading.BoundedSemaphore(_MOST_LOOKUPS)


def system_resolver(host: str, port: int) -> Sequence[str]:
    """Ask the system: /etc/hosts, DNS, what nsswitch.conf says."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


def resolve(resolver: Resolver, host: str, port: int, seconds: float) -> list[Address]:
    """The addresses of a host, each once, in the resolver's order.

    The lookup runs in a thread of its own, because libc can be given no deadline, and the name server of a
    user's domain may be as slow as its owner likes.

    Raises:
        OSError: there are none, or not in time (TimeoutError).
    """
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    answers: queue.SimpleQueue[Sequence[str] | None] = queue.SimpleQueue()
    if not _lookups.acquire(timeout=seconds):
        raise TimeoutError("too many lookups are waiting")

    def look_up() -> None:
        found: Sequence[str] | None = None
        try:
            found = resolver(host, port)
        except (OSError, UnicodeError):
            found = None
        finally:
            _lookups.release()
            answers.put(found)

    threading.Thread(target=look_up, name="notify-lookup", daemon=True).start()
    try:
        found = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("no answer from the name server in time") from None
    if not found:
        raise OSError("no address")
    return [ipaddress.ip_address(each) for each in dict.fromkeys(found)]
