"""Addresses that nothing is sent to any more: listed, added and lifted.

    from notify_tasks import suppressions

    page = suppressions.find(channel="email")              # newest first: page.suppressions, page.next
    suppressions.suppress("sms", "+4915112345678", reason="opted_out")
    suppressions.lift("chat", "ops-room")                  # the next notification goes there again

An address gets here when a provider calls it dead (`address_invalid`), when the person said stop (`opted_out`) or
called a message spam (`complained`), or by `suppress`. It is suppressed on one channel of one tenant, until it is
lifted. What a person said to a number that all tenants send from is stored once, for the tenant `*`, and holds for each
of them. Needs the extra `[worker]`, whose libraries know the usual form of an address, and the setting `database_url`.
Each function is one transaction and may be run again after an error.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Final

from notify_tasks.errors import InvalidCall, NotHere
from notify_tasks.notification import DEFAULT_TENANT, EVERY_TENANT
from notify_tasks.recipients import meant, text

_LIBRARIES: Final = frozenset({"babel", "email_validator", "phonenumbers", "psycopg", "psycopg_pool"})

try:
    from notify_tasks import contacts
    from notify_tasks.api_connections import close, database
    from notify_tasks.store import suppressions as stored
    from notify_tasks.store.database import DatabaseAway
    from notify_tasks.store.suppressions import OPTED_OUT, Page, Suppression
except ModuleNotFoundError as error:
    if error.name not in _LIBRARIES:
        raise
    raise NotHere(
        f"suppressed addresses need {error.name}, which is not installed here. Install it: "
        "pip install 'notify-tasks[worker]', or use `notify suppressions` where it is"
    ) from None

__all__ = ["OPTED_OUT", "DatabaseAway", "Page", "Suppression", "close", "find", "lift", "suppress"]

CHANNELS: Final = (*contacts.CHANNELS, "inapp")
"""The address of the in-app inbox is the recipient's id."""
MAX_PAGE: Final = 1000
MAX_ADDRESS: Final = 4096
"""Characters; the longest that is kept is a push token's."""
BY_OPERATOR: Final = "operator"

_REASON: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MEANT: Final = {"mail": "email", "phone": "sms", "mobile": "sms", "token": "push"}


def find(
    *,
    channel: str | None = None,
    address: str | None = None,
    after: int | None = None,
    limit: int = 100,
    tenant: str = DEFAULT_TENANT,
) -> Page:
    """List suppressed addresses, a page at a time, newest first.

    Args:
        channel: only those of this one.
        address: only this one, however it is spelled; needs its channel.
        after: `next` of the page before; None begins. What is stored meanwhile shifts nothing.
        limit: how many at most, up to 1,000.
        tenant: whose they are; those that hold for every tenant come with them.

    Raises:
        InvalidCall: an argument is wrong: which, and what to write.
        NotConfigured: no database is set.
        DatabaseAway: it cannot be used now.
    """
    whose = text(tenant, "tenant")
    if channel is not None:
        _check_channel(channel)
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidCall("limit", f"{limit} is out of range", f"Write 1 to {MAX_PAGE}")
    if after is not None and not 0 <= after < 2**63:
        raise InvalidCall("after", f"{after} is no number of a list's", "Write the page's `next`")
    if address is None:
        return stored.find(database(), channel=channel, after=after, limit=limit, tenant=whose)
    if channel is None:
        raise InvalidCall("address", "its usual form depends on its channel", "Name the channel as well")
    usual, refused = _usual(channel, address)
    found = stored.at(database(), channel, usual, tenant=whose)
    if found is None:
        found = stored.at(database(), channel, usual, tenant=EVERY_TENANT)
    if found is None and refused is not None:
        raise refused
    return Page((found,) if found and (after is None or found.id < after) else (), None)


def suppress(
    channel: str,
    address: str,
    *,
    reason: str = "by_operator",
    source: str = BY_OPERATOR,
    tenant: str = DEFAULT_TENANT,
) -> Suppression:
    """Send nothing to an address any more. Deliveries that wait for it end as `suppressed` when their turn comes.

    One that is suppressed already keeps its reason, unless the new reason is `opted_out`.

    Args:
        channel: where; other channels of the same person go on.
        address: in any spelling; for `inapp` the recipient's id.
        reason: one word, which lists show. `opted_out` means that the person said stop.
        source: who says so, 1 to 200 characters.
        tenant: whose.

    Returns:
        the suppression as it is stored now.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `find`. An address that nothing can be sent to is refused.
    """
    _check_channel(channel)
    usual, refused = _usual(channel, address)
    if refused is not None:
        raise refused
    return stored.suppress(
        database(),
        channel,
        usual,
        reason=_reason(reason),
        source=text(source, "source"),
        tenant=text(tenant, "tenant"),
    )


def lift(
    channel: str, address: str, *, opted_out: bool = False, tenant: str = DEFAULT_TENANT
) -> Suppression | None:
    """Send to an address again, from the next notification on.

    What was suppressed meanwhile stays unsent: `notify replay` sends a notification again. A provider that still calls
    the address dead has it suppressed again.

    Args:
        channel: where.
        address: in any spelling; for `inapp` the recipient's id.
        opted_out: lift it even where the person said stop. Only they may ask for it: in many countries a message
            after an opt-out is against the law, and carriers and mail services block who sends it.
        tenant: whose.

    Returns:
        what is lifted; None where the address was not suppressed.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `find`. So is an opt-out without `opted_out`, which stands, and
            an address that is suppressed for every tenant, which takes `tenant="*"`.
    """
    _check_channel(channel)
    whose = text(tenant, "tenant")
    usual, refused = _usual(channel, address)
    found, lifted = stored.lift(database(), channel, usual, opted_out=opted_out, tenant=whose)
    if found is None and refused is not None:
        raise refused
    if found is not None and not lifted:
        raise InvalidCall(
            "opted_out",
            "the person said stop, and only they can take that back",
            "Once they have asked for messages again, lift it with opted_out=True",
        )
    if found is None and whose != EVERY_TENANT and stored.at(database(), channel, usual, tenant=EVERY_TENANT):
        raise InvalidCall(
            "tenant",
            "the address is suppressed for every tenant",
            "If they have asked all of them for messages again, lift it with tenant='*'",
        )
    return found


# --- checks -----------------------------------------------------------------------------------------


def _check_channel(channel: str) -> None:
    if channel not in CHANNELS:
        known = dict.fromkeys(CHANNELS)
        raise InvalidCall("channel", "there is no such channel", meant(channel, known, _MEANT))


def _usual(channel: str, address: object) -> tuple[str, InvalidCall | None]:
    """The stored form of an address.

    One that is refused today may have been stored under older checks, so it is looked for as it is written.
    """
    if channel == "inapp":
        return text(address, "address"), None
    try:
        return contacts.contact_point(channel, address, "address"), None
    except InvalidCall as refused:
        if not isinstance(address, str) or not 0 < len(address) <= MAX_ADDRESS or not address.isprintable():
            raise
        return address, refused


def _reason(reason: object) -> str:
    remedy = "Write one word, as in opted_out or address_invalid"
    if not isinstance(reason, str) or not _REASON.fullmatch(reason):
        raise InvalidCall("reason", "it is no word of small letters, digits and underscores", remedy)
    if reason != OPTED_OUT and get_close_matches(reason, [OPTED_OUT], cutoff=0.7):
        raise InvalidCall(
            "reason", "it is nearly opted_out, by which alone an opt-out is known", f"Write {OPTED_OUT}"
        )
    return reason
