"""What an outcome over HTTP means for a message: pure functions and their tables.

They hold for any provider that has no codes of its own. A 2xx whose body cannot be read is an acceptance
without an id: the provider has said yes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from channels.contract import (
    Capability,
    ChannelError,
    Misconfigured,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)

Meaning: TypeAlias = tuple[type[ChannelError], str]
"""What a status or a code means: the error, and our sentence about it."""

LONGEST_RETRY_AFTER: Final = 24 * 3600.0

Words: TypeAlias = Mapping[str, Meaning]

# fmt: off
WORDS: Final[Words] = {
    # Surely not sent.
    "resolve": (Unavailable, "its host name has no address now; look at DNS, and at the option url"),
    "connect": (Unavailable, "it refused the connection or cannot be reached"),
    "connect-timeout": (Unavailable, "it did not accept a connection in time"),
    "handshake": (Unavailable, "it broke the TLS handshake off, or was too slow for it"),
    "certificate": (Misconfigured, "its certificate is not trusted; see the option ca_file"),
    "tls": (Misconfigured, "it speaks no TLS, or one older than 1.2; look at the option url"),
    "proxy": (Unavailable, "the proxy gives us no connection to it; look at the option proxy"),
    "proxy-denies": (Misconfigured, "the proxy does not let us through; look at the option proxy"),
    "pool": (TryLater, "all of our connections were busy; raise the option connections"),
    "deadline": (TryLater, "no time was left to send; raise the provider's timeout"),
    "send": (TryLater, "the connection or the time ended before the whole request was out"),
    # Sent, and no answer.
    "timeout": (Uncertain, "the request was sent and no answer came in time"),
    "connection-lost": (Uncertain, "the connection ended after the request was sent"),
    "garbled": (Uncertain, "the request was sent and what came back is no HTTP answer"),
}
# One user's server says nothing of the others': it must not open the provider's breaker, so it is never
# Unavailable or Misconfigured.
WORDS_OF_USERS: Final[Words] = {
    **WORDS,
    "resolve": (TryLater, "the address's host name has no IP address now"),
    "connect": (TryLater, "the address's server refused the connection or cannot be reached"),
    "connect-timeout": (TryLater, "the address's server did not accept a connection in time"),
    "handshake": (TryLater, "the address's server broke the TLS handshake off, or was too slow for it"),
    "certificate": (TryLater, "the certificate of the address's server is not valid"),
    "tls": (TryLater, "the address's server speaks no TLS, or one older than 1.2"),
    # Rules of ours are Refused, not AddressInvalid: a suppression would outlive the rule, or a slip in DNS.
    "forbidden": (Refused, "the address's host is not on the public internet; see allowed_private_cidrs"),
    "http": (Refused, "the address begins with http://; use https://, or set allow_http"),
    "port": (Refused, "the address has a port that is not allowed; use 443, or see the option ports"),
    "host": (Refused, "the address's host is none of those that this provider sends to"),
}
# fmt: on
HARMLESS_WORDS: Final[Words] = {
    word: (TryLater if outcome is Uncertain else outcome, detail) for word, (outcome, detail) in WORDS.items()
}

# --- statuses -----------------------------------------------------------------------------------------

_PATH: Final = "the provider does not serve what we asked for; look at the option url, or update this fleet"
# A path that an API does not know says nothing of a recipient: where 404 means a dead address, the provider's
# own table says so. By mistake it would suppress everybody.
_STATUSES: Final[Mapping[int, Meaning]] = {
    401: (Misconfigured, "the provider refused our credentials; check them"),
    402: (Misconfigured, "the provider wants to be paid first; look at the account"),
    403: (Misconfigured, "the provider does not allow this account to send; check its rights"),
    404: (Misconfigured, _PATH),
    405: (Misconfigured, _PATH),
    408: (TryLater, "the provider did not get the whole request in time"),
    410: (Misconfigured, _PATH),
    413: (Refused, "the message is too long for the provider; shorten it"),
    415: (Misconfigured, _PATH),
    425: (TryLater, "the provider does not take the request yet"),
    429: (Throttled, "the provider asks us to slow down"),
}


def status_error(
    status: int,
    retry_after: float | None,
    capability: Capability,
    own: Mapping[int, Meaning] | None = None,
) -> ChannelError | None:
    """What an HTTP status means for a message; None where it was taken (2xx).

    Args:
        status: of the answer.
        retry_after: seconds from its Retry-After header, None where it had none that can be used.
        capability: an error of the server (500, 502, 504) may hide an acceptance. A repetition is harmless
            where the provider knows the key; where it does not, the message is `Uncertain`.
        own: statuses that mean something else at this provider.
    """
    meanings = {**_STATUSES, **(own or {})}
    outcome: type[ChannelError]
    if status in meanings:
        outcome, detail = meanings[status]
    elif 200 <= status < 300:  # noqa: PLR2004 - the classes of RFC 9110, section 15
        return None
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        outcome = Unavailable if retry_after is None else TryLater
        detail = "the provider is not available"
    elif status >= 500:  # noqa: PLR2004
        outcome = Uncertain if capability is Capability.OPAQUE else TryLater
        detail = "the provider failed with the request in hand"
    elif status >= 400:  # noqa: PLR2004
        outcome, detail = Refused, "the provider refused the message"
    else:
        outcome, detail = Misconfigured, "the provider redirects us, which is not followed; correct its url"
    return outcome(str(status), detail, retry_after=retry_after)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header (RFC 9110, section 10.2.3) asks us to wait.

    Args:
        value: the header: seconds, or an HTTP date. What is neither is ignored.
        now: the time that a date is compared with, in UTC.

    Returns:
        The seconds: 0 for a date that has passed, at most 24 hours however absurd the header; else None.
    """
    if value is None:
        return None
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value.strip()):
        return min(float(value), LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)


# --- answers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What an API answered. Headers and body are private: they may quote addresses."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Their names are in lower case."""
    body: bytes | None = field(default=b"", repr=False)
    """None where it could not be read: too long, packed, broken off or too slow. The status holds all the same."""

    @property
    def retry_after(self) -> float | None:
        """Seconds that the Retry-After header asks for; None where it says nothing."""
        return parse_retry_after(self.headers.get("retry-after"), datetime.now(UTC))

    def text(self) -> str:
        """The body as text; empty where it could not be read."""
        return (self.body or b"").decode("utf-8", "replace")

    def fields(self) -> Mapping[str, Any]:
        """The JSON object in the body; empty where there is none."""
        try:
            found = json.loads(self.body or b"")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def identifier(self, name: str) -> str | None:
        """The provider's id under this name of the JSON object, where it is one that can be kept."""
        return identifier(self.fields().get(name))

    def failure(
        self, capability: Capability, own: Mapping[int, Meaning] | None = None
    ) -> ChannelError | None:
        """What the status means; None where it is 2xx.

        Args:
            capability: the provider's. After an error of the server, `OPAQUE` makes it `Uncertain`.
            own: the provider's own statuses. For the others, see `channels._http_outcomes`.
        """
        return status_error(self.status, self.retry_after, capability, own)

    def refusal(self, code: object, own: Mapping[str, Meaning]) -> ChannelError | None:
        """What a code in the body means by the provider's table; None where the table lacks it."""
        if not isinstance(code, str | int) or str(code) not in own:
            return None
        outcome, detail = own[str(code)]
        return outcome(str(code), detail, retry_after=self.retry_after)


def identifier(value: object) -> str | None:
    """A provider's id fit to be kept: printable ASCII, at most 200 characters; else None."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    return text if re.fullmatch(r"[\x21-\x7e]{1,200}", text) else None
