"""Verification: a person proves that an address is theirs, by a code that was sent there.

    from notify_tasks import send_notification, verification

    code = verification.begin("user-42", "sms", "+4915112345678")
    send_notification.delay("account.verify", to={"sms": "+4915112345678"}, payload={"code": code})
    ...
    verification.confirm("user-42", "sms", "+4915112345678", typed)      # True: the address is verified

The code goes out by a type of the service's own, to the address in the call. A service that has proof of its own calls
`mark`. A type with `verified_only = true` then goes to verified addresses alone. An address stays verified for as long
as it stays stored; push tokens that are registered (`devices`) are verified by that.

Needs the extra `[worker]` and the setting `database_url`. Each function is one transaction.
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import Final

from notify_tasks.errors import InvalidCall, NotHere
from notify_tasks.notification import DEFAULT_TENANT
from notify_tasks.recipients import meant, text

_LIBRARIES: Final = frozenset({"babel", "email_validator", "phonenumbers", "psycopg", "psycopg_pool"})

try:
    from notify_tasks import contacts
    from notify_tasks.api_connections import close, database
    from notify_tasks.store import verifications as stored
    from notify_tasks.store.database import DatabaseAway
    from notify_tasks.store.verifications import BEGINS, SECONDS, TRIES, Point
except ModuleNotFoundError as error:
    if error.name not in _LIBRARIES:
        raise
    raise NotHere(
        f"verifying addresses needs {error.name}, which is not installed here. Install it: "
        "pip install 'notify-tasks[worker]', or use `notify recipients verify` where it is"
    ) from None

__all__ = ["BEGINS", "SECONDS", "TRIES", "DatabaseAway", "begin", "close", "confirm", "mark"]

DIGITS: Final = 6


def begin(recipient_id: str, channel: str, address: str, *, tenant: str = DEFAULT_TENANT) -> str:
    """Make a code that proves a stored address. The caller sends it there, and keeps it nowhere else.

    It is good for 10 minutes and 5 tries, and takes the place of an older one. Nothing but its hash is stored.

    Args:
        recipient_id: the id that producers use.
        channel: of the address.
        address: in any spelling; stored before (`people.upsert`, `notify recipients add`).
        tenant: whose recipient.

    Returns:
        six digits, the first may be 0.

    Raises:
        InvalidCall: an argument is wrong: which, and what to do. So is the fourth code for one address within 10
            minutes, whoever asked for the others: a person is not to be flooded, and a code not to be guessed.
        NotConfigured: no database is set.
        DatabaseAway: it cannot be used now.
    """
    point = _point(recipient_id, channel, address, tenant)
    code = f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"
    try:
        stored.begin(database(), point, code)
    except stored.Unknown:
        raise _unknown() from None
    except stored.TooMany:
        raise InvalidCall(
            "address",
            f"{BEGINS} codes were made for it within {SECONDS // 60} minutes",
            "Wait for some minutes, and ask the person to look for the codes that were sent",
        ) from None
    return code


def confirm(
    recipient_id: str, channel: str, address: str, code: str, *, tenant: str = DEFAULT_TENANT
) -> bool:
    """Try a code. The right one is used up by it.

    Args:
        recipient_id: as given to `begin`, like the next two.
        channel: of the address.
        address: in any spelling.
        code: as the person typed it; spaces and hyphens are left out.
        tenant: whose recipient.

    Returns:
        True: the address is verified now. False: the code is wrong, too old, used up, or its tries are spent; the
        answer does not say which.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `begin`. After `DatabaseAway` the try may be spent.
    """
    point = _point(recipient_id, channel, address, tenant)
    if not isinstance(code, str):
        raise InvalidCall("code", f"{type(code).__name__} is not a text", "Write the six digits as a text")
    typed = re.sub(r"[\s-]", "", code)
    if not re.fullmatch(rf"[0-9]{{{DIGITS}}}", typed, re.ASCII):
        return False  # which spends no try: it cannot be the code
    return stored.confirm(database(), point, typed)


def mark(recipient_id: str, channel: str, address: str, *, tenant: str = DEFAULT_TENANT) -> datetime:
    """Verify a stored address on the caller's word: a log-in by a link in a mail, or a contract, is proof as well.

    Returns:
        since when it is verified: now, in UTC.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `begin`.
    """
    point = _point(recipient_id, channel, address, tenant)
    try:
        return stored.mark(database(), point)
    except stored.Unknown:
        raise _unknown() from None


def _point(recipient_id: str, channel: str, address: object, tenant: str) -> Point:
    if channel not in contacts.CHANNELS:
        known = dict.fromkeys(contacts.CHANNELS)
        raise InvalidCall("channel", "no addresses are kept for it", meant(channel, known, {"phone": "sms"}))
    return Point(
        text(tenant, "tenant"),
        text(recipient_id, "recipient_id"),
        channel,
        contacts.contact_point(channel, address, "address"),
    )


def _unknown() -> InvalidCall:
    return InvalidCall(
        "address",
        "it is not stored for this recipient",
        "Store it first: people.upsert(id, ...) or `notify recipients add`",
    )
