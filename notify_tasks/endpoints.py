"""Webhook endpoints, for the services whose customers are called: secrets of their own, and those that are disabled.

    from notify_tasks import endpoints

    made = endpoints.register("https://example.com/hooks")      # made.secret: whsec_..., shown this once
    endpoints.rotate("https://example.com/hooks")               # both secrets sign for 24 hours
    endpoints.find(disabled=True).endpoints                     # who gets nothing any more, and why
    endpoints.enable("https://example.com/hooks")

An endpoint that is not registered is signed for as the provider `webhook.standard` is configured. One that answers 410
Gone is disabled, and so is one that fails for longer than the setting `endpoint_failing`; deliveries to it end as
suppressed, with the reason `endpoint_disabled`.

Needs the extra `[worker]` and the settings `database_url` and, where secrets are made, `secret_key`: they are stored
encrypted. A worker without the key sends nothing to a registered endpoint, and holds it. Each function but `reencrypt`
is one transaction.
"""

from __future__ import annotations

import base64
import math
import re
import secrets
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from notify_tasks import settings
from notify_tasks.errors import InvalidCall, NotConfigured, NotHere
from notify_tasks.notification import DEFAULT_TENANT
from notify_tasks.recipients import text

_LIBRARIES: Final = frozenset(
    {"babel", "cryptography", "email_validator", "phonenumbers", "psycopg", "psycopg_pool"}
)

try:
    from notify_tasks import contacts
    from notify_tasks.api_connections import close, database
    from notify_tasks.secret_box import CannotOpen, SecretBox
    from notify_tasks.store import endpoints as stored
    from notify_tasks.store.database import DatabaseAway
    from notify_tasks.store.endpoints import FAILING, GONE, Endpoint, Page
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in _LIBRARIES:
        raise
    raise NotHere(
        f"webhook endpoints need {missing}, which is not installed here. Install it: "
        "pip install 'notify-tasks[worker]', or use `notify endpoints` where it is"
    ) from None

__all__ = [
    "FAILING", "GONE", "KEEP", "DatabaseAway", "Endpoint", "Page", "close", "disable", "enable", "find", "get",
    "reencrypt", "register", "rotate",
]  # fmt: skip

KEEP: Final = 24 * 3600.0
"""Seconds for which a secret signs beside the one that replaces it."""
LONGEST_KEEP: Final = 30 * 24 * 3600.0
MAX_PAGE: Final = 1000
SECRET_BYTES: Final = 32
"""Standard Webhooks asks for 24 to 64."""

_REASON: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_ID: Final = re.compile(r"[0-9a-f]{12,32}")


def register(url: str, *, tenant: str = DEFAULT_TENANT) -> Endpoint:
    """Give an endpoint a secret of its own, by which all that is sent there is signed from now on.

    Whatever disabled it, or made it count as failing, is forgotten.

    Args:
        url: exactly as producers and recipients have it. Whether its network may be called is judged when it is.
        tenant: whose endpoint.

    Returns:
        it, with its secret: show it to its owner now, since nothing shows it again.

    Raises:
        InvalidCall: an argument is wrong: which, and what to write; or it is registered already, and its secret stays.
        NotConfigured: no database, or no key for secrets, is set.
        DatabaseAway: it cannot be used now. Whether a secret was stored is unknown: `rotate` makes another.
    """
    where, whose = _url(url), text(tenant, "tenant")
    secret = _new_secret()
    found = stored.register(database(), where, _box().close(secret), tenant=whose)
    if found is None:
        raise InvalidCall(
            "url", "it is registered already", "Keep its secret, or make a new one with `rotate`"
        )
    return replace(found, secret=secret)


def rotate(endpoint: str, *, keep: float = KEEP, tenant: str = DEFAULT_TENANT) -> Endpoint:
    """Give an endpoint a new secret. The present one signs beside it for a while, and one before that no more.

    Args:
        endpoint: its URL, or its id.
        keep: seconds for which the present secret signs as well, up to 30 days; 0 where it has leaked.
        tenant: whose endpoint.

    Returns:
        it, with its new secret, which nothing shows again.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `register`. So is an endpoint that is not registered.
    """
    which, whose = _which(endpoint), text(tenant, "tenant")
    if not 0 <= keep <= LONGEST_KEEP or math.isnan(keep):
        raise InvalidCall("keep", f"{keep} seconds is out of range", f"Write 0 to {LONGEST_KEEP:.0f}")
    secret = _new_secret()
    found = stored.rotate(database(), which, _box().close(secret), keep, tenant=whose)
    if found is None:
        raise InvalidCall("endpoint", "it has no secret of its own to replace", "Register it, by its URL")
    return replace(found, secret=secret)


def disable(endpoint: str, *, reason: str = "by_operator", tenant: str = DEFAULT_TENANT) -> Endpoint:
    """Send nothing to an endpoint any more, registered or not.

    Args:
        endpoint: its URL, or the id of one that lists show.
        reason: one word, which lists show.
        tenant: whose endpoint.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `register`.
    """
    which, whose = _which(endpoint), text(tenant, "tenant")
    if not _REASON.fullmatch(text(reason, "reason")):
        raise InvalidCall(
            "reason",
            "it is no word of small letters, digits and underscores",
            "Write one, as in contract_ended",
        )
    found = stored.disable(database(), which, reason, known=_is_id(which), tenant=whose)
    if found is None:
        raise _unknown()
    return found


def enable(endpoint: str, *, tenant: str = DEFAULT_TENANT) -> Endpoint:
    """Send to an endpoint again, from the next delivery on. What was suppressed meanwhile stays unsent.

    Args:
        endpoint: its URL, or its id.
        tenant: whose endpoint.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `register`. So is one that was never disabled nor registered.
    """
    which, whose = _which(endpoint), text(tenant, "tenant")
    found = stored.enable(database(), which, tenant=whose)
    if found is None:
        raise _unknown()
    return found


def get(endpoint: str, *, tenant: str = DEFAULT_TENANT) -> Endpoint | None:
    """An endpoint by its URL or id; None where nothing is stored of it: it is sent to, and has not failed lately.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `register`.
    """
    which, whose = _which(endpoint), text(tenant, "tenant")
    return stored.at(database(), which, tenant=whose)


def find(
    *, disabled: bool = False, after: str | None = None, limit: int = 100, tenant: str = DEFAULT_TENANT
) -> Page:
    """List endpoints that have secrets of their own, or have failed, a page at a time.

    Args:
        disabled: those alone that get nothing any more.
        after: `next` of the page before; None begins. What is stored meanwhile shifts nothing.
        limit: how many at most, up to 1,000.
        tenant: whose.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `register`.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidCall("limit", f"{limit} is out of range", f"Write 1 to {MAX_PAGE}")
    if after is not None and not _is_id(after):
        raise InvalidCall("after", "it is no endpoint's id", "Write the page's `next`")
    return stored.find(database(), disabled=disabled, after=after, limit=limit, tenant=text(tenant, "tenant"))


def reencrypt() -> int:
    """Encrypt the secrets of all tenants under the first key of `secret_key`, so that the others can go.

    Returns:
        how many endpoints it was.

    Raises:
        NotConfigured: no database or key is set, or one that a secret was stored under is missing: put it back.
        DatabaseAway: it cannot be used now; run it again.
    """
    box = _box()
    try:
        return stored.rewrite(database(), box.again)
    except CannotOpen:
        raise NotConfigured(
            "NOTIFY_SECRET_KEY: some secret was stored under a key that is not among these. "
            "Put that key behind the others, and run it again"
        ) from None


# --- checks -----------------------------------------------------------------------------------------


def _url(url: object) -> str:
    where = contacts.contact_point("webhook", url, "url")
    parts = urlsplit(where)
    if "@" in parts.netloc:
        raise InvalidCall("url", "it holds a user's name", "Leave it out: what is sent is signed instead")
    if parts.fragment or where.endswith("#"):
        raise InvalidCall("url", "a fragment is never sent", "Leave out what begins with #")
    return where


def _which(endpoint: object) -> str:
    if isinstance(endpoint, str) and _is_id(endpoint):
        return endpoint
    try:
        return contacts.contact_point("webhook", endpoint, "endpoint")
    except InvalidCall as error:
        raise InvalidCall(error.field, error.problem, f"{error.remedy}, or the id that lists show") from None


def _is_id(which: str) -> bool:
    return _ID.fullmatch(which) is not None


def _unknown() -> InvalidCall:
    return InvalidCall(
        "endpoint", "nothing is stored of it", "Look for it with `find` or `notify endpoints list`"
    )


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode('ascii')}"


def _box() -> SecretBox:
    return SecretBox(settings.get().need_secret_key())
