"""Outgoing HTTP for every provider: `Client` for an API that we configure, `SafeClient` for URLs of users.

How to write a provider. `channels/sms/acme.py` is `sms.acme`; it opens with its table, and reads as one::

    STATUSES = {402: (Misconfigured, "Acme's account is empty; top it up")}  # beside those of every API
    REFUSALS = {"BAD_NUMBER": (AddressInvalid, "Acme says that no such number exists")}

    def build(name, options):
        given = Options("sms.acme", name, options, known=(*CLIENT_OPTIONS, "token"))
        return Acme(name, given.secret("token"), Client.read(given, "https://api.acme.example"))

    class Acme:
        capability = Capability.OPAQUE

        def __init__(self, name, token, client):
            self._name, self._token, self._client = name, token, client

        def send(self, message, deadline):
            text = carried(message, TextContent).text
            answer = self._client.request(
                "POST", "/v1/messages", deadline, body=to_json({"to": message.address, "text": text}),
                headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token.reveal()}"},
            )
            code = answer.fields().get("error")
            failure = answer.refusal(code, REFUSALS) or answer.failure(self.capability, STATUSES)
            if failure is not None:
                raise failure
            return Accepted(answer.identifier("id"), str(answer.status))

        def close(self):
            self._client.close()

Then write `tests/contract/providers/sms_acme.py`; `tests/contract/conformance.py` says how.

What is done here, so that no provider has to:

* one attempt, without retries, redirects, cookies or the environment's proxies; `Retry-After` is told and
  never slept; a `Deadline` holds for the whole call, DNS and dribbling peers included; an answer's size is
  bounded, and what comes packed is not unpacked;
* connections are kept and shared; `request` may be called from many threads;
* what was surely not sent is told apart from an answer that was lost (`Uncertain`). Where a repetition harms
  nobody (a question, a token), `harmless=True` makes the latter `TryLater`;
* no error holds the exception it came from, an address, a body or a key. Keep keys as `Secret`, and reveal
  them in the call alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from channels._addresses import Address, Network, Origin, Resolver, is_public, split_url, system_resolver
from channels._http_outcomes import HARMLESS_WORDS, WORDS, WORDS_OF_USERS, Answer, Meaning, Words
from channels._http_pool import Pool
from channels._http_wire import MAX_ANSWER, Dialer, Failure, Raw, Request, tls_context
from channels.contract import AddressInvalid, Content, Deadline, Message, Refused
from channels.provider_options import Options, Secret

__all__ = [
    "CLIENT_OPTIONS",
    "SAFE_OPTIONS",
    "Answer",
    "Client",
    "Meaning",
    "Options",
    "SafeClient",
    "SafeRules",
    "Secret",
    "carried",
    "to_json",
]

_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})
_DEFAULT_HEADERS: Final = {"User-Agent": "notify-tasks"}
_ContentT = TypeVar("_ContentT", bound=Content)


# --- what goes out ----------------------------------------------------------------------------------


def carried(message: Message, wanted: type[_ContentT]) -> _ContentT:
    """The message's content, which is of the type that the provider carries.

    Raises:
        Refused: it is of another type.
    """
    if not isinstance(message.content, wanted):
        there = type(message.content).__name__
        raise Refused("content", f"the provider carries {wanted.__name__}, not {there}; mend the pool")
    return message.content


def to_json(value: object, *, where: str = "content") -> bytes:
    """JSON in one form for one value: keys sorted, no blanks, UTF-8.

    Args:
        value: what to write.
        where: the field that is named if it cannot be written.

    Raises:
        Refused: it is not JSON.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        return text.encode()
    except (TypeError, ValueError, RecursionError):
        failure = Refused("content", f"{where} cannot be written as JSON; correct its template")
    raise failure


def _request(
    method: str, origin: Origin, target: str, headers: Mapping[str, str] | None, body: bytes | None
) -> Request:
    given = headers or {}
    for name, value in given.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or name.lower() in _OURS:
            raise Refused("header", f"the header {name[:40]!r} is not the provider's to set; leave it out")
        if not re.fullmatch(r"[\t\x20-\x7e]*", value):
            raise Refused("header", f"the header {name} has characters that HTTP does not carry")
    return Request(method, target, {"Host": origin.authority, **_DEFAULT_HEADERS, **given}, body)


def _exchange(
    pool: Pool, dialer: Dialer, origin: Origin, request: Request, deadline: Deadline, words: Words
) -> Answer:
    raw: Raw | None = None
    word = ""
    try:
        with pool.connection(origin, dialer, deadline) as connection:
            raw = connection.exchange(request, deadline, MAX_ANSWER)
    except Failure as failure:
        word = failure.word
    if raw is None:  # raised out here, so that it does not carry the request in its context
        outcome, detail = words[word]
        raise outcome(word, detail)
    return Answer(raw.status, raw.headers, raw.body)


# --- an API of ours ---------------------------------------------------------------------------------

CLIENT_OPTIONS: Final = ("ca_file", "connections", "proxy", "url")
"""The options that `Client.read` reads; name them among the known ones."""


class Client:
    """Requests to one configured server.

    Args:
        url: `https://HOST[:PORT]`. Keys travel to it, so `http://` is for tests and this machine.
        connections: how many are open at most, in use and idle.
        ca_file: PEM of the roots to trust instead of the system's.
        proxy: the URL of an HTTP proxy, which https goes through by CONNECT.
        resolver: finds the server's IP addresses.

    Raises:
        ValueError: the URL is malformed.
        OSError: `ca_file` cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int = 32,
        ca_file: str | None = None,
        proxy: Secret | None = None,
        resolver: Resolver = system_resolver,
    ) -> None:
        self._origin, _ = split_url(url)
        self._dialer = Dialer(tls_context(ca_file) if self._origin.tls else None, resolver, proxy)
        self._pool = Pool(connections)

    @classmethod
    def read(cls, given: Options, url: str) -> Self:
        """A client by the options `url`, `connections`, `ca_file` and `proxy`.

        Args:
            given: the provider's options.
            url: of the API, where the option says nothing else.

        Raises:
            Misconfigured: one of them is wrong.
        """
        return cls(
            given.origin("url", url),
            connections=given.whole("connections", 32, most=1000),
            ca_file=given.ca_file("ca_file"),
            proxy=given.proxy("proxy"),
        )

    def request(
        self,
        method: str,
        target: str,
        deadline: Deadline,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        harmless: bool = False,
    ) -> Answer:
        """Make one request, and return its answer whatever its status.

        Args:
            method: `POST`, say.
            target: path and query, percent-encoded.
            deadline: of the whole call.
            headers: `Host`, lengths and encodings are set here.
            body: sent as it is.
            harmless: that a repetition harms nobody; then a lost answer is `TryLater`.

        Raises:
            ChannelError: there is no answer.
        """
        if not re.fullmatch(r"/[\x21-\x7e]*", target):
            raise Refused("target", "the request's path has characters that HTTP does not carry; encode them")
        request = _request(method, self._origin, target, headers, body)
        words = HARMLESS_WORDS if harmless else WORDS
        return _exchange(self._pool, self._dialer, self._origin, request, deadline, words)

    def close(self) -> None:
        """Close what is pooled; the client may be used again."""
        self._pool.close()


# --- URLs of users ----------------------------------------------------------------------------------

SAFE_OPTIONS: Final = ("allow_http", "allowed_private_cidrs", "ca_file", "connections", "ports")
"""The options that `SafeClient.read` reads; name them among the known ones."""


@dataclass(frozen=True, slots=True)
class SafeRules:
    """Which addresses a `SafeClient` sends to.

    Args:
        private: networks that are allowed though they are not the public internet's.
        http: whether `http://` is allowed.
        ports: that are allowed; None: all.
        hosts: that are allowed, as `push.example.com` or `*.push.example.com`; none named: all.
    """

    private: tuple[Network, ...] = ()
    http: bool = False
    ports: tuple[int, ...] | None = (443, 8443)
    hosts: tuple[str, ...] = ()

    def broken_by(self, origin: Origin) -> str:
        """The word of the rule that an origin breaks; empty where it breaks none."""
        if not origin.tls and not self.http:
            return "http"
        if self.ports is not None and origin.port not in self.ports:
            return "port"
        if self.hosts and not any(_fits(origin.host, each) for each in self.hosts):
            return "host"
        return ""

    def permit(self, found: Sequence[Address]) -> bool:
        """Whether each address of a host may be connected to: one that is not spoils the host."""
        return all(is_public(each, self.private) for each in found)


def _place(url: str) -> tuple[Origin, str]:
    try:
        return split_url(url)
    except ValueError as error:
        problem = str(error)
    raise AddressInvalid("url", f"the address {problem}; ask its owner for another")


def _fits(host: str, pattern: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


class SafeClient:
    """Requests to URLs that users supply: webhooks, web push. They cannot be aimed at what is ours.

    A host name is looked up once for a connection, every address it has is checked, and the connection goes
    to a checked address: a name server that answers otherwise a moment later changes nothing (DNS rebinding).
    TLS proves the name in the URL. There is no proxy: it would do the lookup.

    A URL that cannot be sent to by anybody is `AddressInvalid`; one that our rules forbid is `Refused`; what
    may be better tomorrow is `TryLater`. Nothing here says that the provider is down: other URLs are others'.

    Args:
        rules: which addresses are allowed.
        connections: how many are open at most, in use and idle, to all servers together.
        ca_file: PEM of the roots to trust instead of the system's.
        resolver: finds a host's IP addresses.

    Raises:
        OSError: `ca_file` cannot be read.
    """

    def __init__(
        self,
        rules: SafeRules | None = None,
        *,
        connections: int = 32,
        ca_file: str | None = None,
        resolver: Resolver = system_resolver,
    ) -> None:
        self._rules = rules or SafeRules()
        self._dialer = Dialer(tls_context(ca_file), resolver, permits=self._rules.permit)
        self._pool = Pool(connections)

    @classmethod
    def read(cls, given: Options, *, hosts: Sequence[str] = ()) -> Self:
        """A client by the options `allow_http`, `allowed_private_cidrs`, `ports`, `connections`, `ca_file`.

        Args:
            given: the provider's options.
            hosts: see `SafeRules`.

        Raises:
            Misconfigured: one of them is wrong.
        """
        rules = SafeRules(
            given.networks("allowed_private_cidrs"),
            given.flag("allow_http"),
            given.ports("ports", (443, 8443)),
            tuple(hosts),
        )
        connections = given.whole("connections", 32, most=1000)
        return cls(rules, connections=connections, ca_file=given.ca_file("ca_file"))

    def request(
        self,
        method: str,
        url: str,
        deadline: Deadline,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Make one request, and return its answer whatever its status: a redirect is not followed.

        Args: as those of `Client.request`; `url` is the user's.

        Raises:
            ChannelError: there is no answer.
        """
        origin, target = _place(url)
        if word := self._rules.broken_by(origin):
            outcome, detail = WORDS_OF_USERS[word]
            raise outcome(word, detail)
        request = _request(method, origin, target, headers, body)
        return _exchange(self._pool, self._dialer, origin, request, deadline, WORDS_OF_USERS)

    def close(self) -> None:
        """Close what is pooled; the client may be used again."""
        self._pool.close()
