"""What an outcome over HTTP means for a message: pure functions and their tables.

They hold for any provider that has no codes of its own. A 2xx whose body cannot be read is an acceptance
without an id: the provider has said yes.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import requests
import urllib3.exceptions as wire

from channels.contract import (
    AddressInvalid,
    Capability,
    ChannelError,
    Misconfigured,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)

LONGEST_RETRY_AFTER: Final = 24 * 3600.0

_UNTRUSTED: Final = "its certificate is not trusted; check the CA"
_BAD_URL: Final = "the provider's url is malformed; correct it"
_REFUSED: Final = "it refused the connection or cannot be reached"
_SLOW: Final = "it did not accept a connection in time"
_BUSY: Final = "all of our connections were busy; raise the option connections"
# The first that fits holds: to urllib3, a refused connection is a kind of ConnectTimeoutError.
_TRANSPORT: Final[tuple[tuple[type[BaseException], type[ChannelError], str, str], ...]] = (
    (ssl.SSLCertVerificationError, Misconfigured, "certificate", _UNTRUSTED),
    (requests.exceptions.InvalidURL, Misconfigured, "url", _BAD_URL),
    (requests.exceptions.MissingSchema, Misconfigured, "url", _BAD_URL),
    (requests.exceptions.InvalidSchema, Misconfigured, "url", _BAD_URL),
    (wire.NameResolutionError, Unavailable, "resolve", "its host name does not resolve"),
    (wire.NewConnectionError, Unavailable, "connect", _REFUSED),
    (wire.ConnectTimeoutError, Unavailable, "connect-timeout", _SLOW),
    (requests.exceptions.ConnectTimeout, Unavailable, "connect-timeout", _SLOW),
    (wire.EmptyPoolError, TryLater, "pool", _BUSY),
    (wire.ReadTimeoutError, Uncertain, "timeout", "the request was sent and no answer came in time"),
)
_LOST: Final = (Uncertain, "connection-lost", "the connection ended after the request was sent")

_STATUSES: Final[Mapping[int, tuple[type[ChannelError], str]]] = {
    401: (Misconfigured, "the provider refused our credentials; check them"),
    403: (Misconfigured, "the provider does not allow this account to send; check its rights"),
    404: (AddressInvalid, "the provider does not know the address"),
    408: (TryLater, "the provider did not get the whole request in time"),
    410: (AddressInvalid, "the provider says that the address is gone"),
    413: (Refused, "the message is too long for the provider; shorten it"),
    425: (TryLater, "the provider does not take the request yet"),
    429: (Throttled, "the provider asks us to slow down"),
}


def _links(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it wraps, as requests and urllib3 do: first argument, reason, cause."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        link = waiting.pop(0)
        if isinstance(link, BaseException) and link not in seen:
            seen.append(link)
            yield link
            waiting += [*link.args[:1], getattr(link, "reason", None), link.__cause__]


def transport_error(error: BaseException) -> ChannelError:
    """What an exception of `requests` or urllib3 means for a message.

    Whatever is not surely from before the request was sent leaves it `Uncertain`. The result has no text of
    the exception, which may hold the URL, the address or the body.
    """
    links = list(_links(error))
    for known, outcome, code, detail in _TRANSPORT:
        if any(isinstance(link, known) for link in links):
            return outcome(code, detail)
    outcome, code, detail = _LOST
    return outcome(code, detail)


def status_error(status: int, retry_after: float | None, capability: Capability) -> ChannelError | None:
    """What an HTTP status means for a message; None where it was taken (2xx).

    Args:
        status: of the answer.
        retry_after: seconds from its Retry-After header, None where it had none that can be used.
        capability: an error of the server (500, 502, 504) may hide an acceptance. A repetition is harmless
            where the provider knows the key; where it does not, the message is `Uncertain`.
    """
    outcome: type[ChannelError]
    if 200 <= status < 300:  # noqa: PLR2004 - the classes of RFC 9110, section 15
        return None
    if status in _STATUSES:
        outcome, detail = _STATUSES[status]
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
