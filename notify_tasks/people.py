"""Recipients, for services that know their people: store, look up, list and erase them.

    from notify_tasks import people

    people.upsert("user-42", email="ann@example.com", sms="+4915112345678", locale="de", timezone="Europe/Berlin")
    people.upsert("user-42", sms=None)                     # no SMS any more; everything else stays
    people.get("user-42").addresses["email"]               # ("ann@example.com",)
    people.get("user-42").points[0].verified_at            # what is known of each address
    page = people.find(prefix="user-", channel="push")     # 100 at a time: page.people, page.next
    people.erase("user-42")

Needs the extra `[worker]`, whose libraries know which addresses can be, and the setting `database_url`. Each function
is one transaction and may be run again after an error. Importing opens nothing; a process opens up to four connections
when it first calls one of these, and lets go of them after a minute without use. `DatabaseAway` means that nobody knows
whether the transaction took effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict, Unpack

from notify_tasks.errors import InvalidCall, NotHere
from notify_tasks.notification import DEFAULT_TENANT
from notify_tasks.recipients import Subscription, meant, safe_name, text
from notify_tasks.recipients import tenant as whole_tenant

_LIBRARIES: Final = frozenset({"babel", "email_validator", "phonenumbers", "psycopg", "psycopg_pool"})

try:
    from notify_tasks import contacts
    from notify_tasks.api_connections import close, database
    from notify_tasks.store import erasing, recipients
    from notify_tasks.store.database import DatabaseAway
    from notify_tasks.store.erasing import Erased
    from notify_tasks.store.recipients import ContactPoint, Page, Person
except ModuleNotFoundError as error:
    if error.name not in _LIBRARIES:
        raise
    raise NotHere(
        f"storing recipients needs {error.name}, which is not installed here. Install it: "
        "pip install 'notify-tasks[worker]', or use `notify recipients` where it is"
    ) from None

__all__ = [
    "ContactPoint",
    "DatabaseAway",
    "Erased",
    "Fields",
    "Page",
    "Person",
    "close",
    "erase",
    "find",
    "get",
    "upsert",
    "would_erase",
]

MAX_ADDRESSES: Final = 20
"""Of one person on one channel: a notification goes to each of them."""
MAX_PAGE: Final = 1000

Addresses = str | Sequence[str] | None
"""One address, several, or None for none any more."""


class Fields(TypedDict, total=False):
    """What `upsert` takes. What is not named stays as it is; None removes it."""

    email: Addresses
    sms: Addresses
    """Phone numbers with their country code: `+4915112345678`."""
    phone: Addresses
    """The same as `sms`."""
    push: Addresses
    webpush: Subscription | str | Sequence[Subscription | str] | None
    """Subscriptions as a browser's `PushSubscription.toJSON()` gives them, or that as JSON."""
    webhook: Addresses
    chat: Addresses
    locale: str | None
    """A language tag (BCP 47): `de`, `zh-Hans-CN`."""
    timezone: str | None
    """A name of the IANA time zone database: `Europe/Berlin`."""


_FIELDS: Final = (*contacts.CHANNELS, "phone", "locale", "timezone")
_MEANT: Final = {
    "language": "locale",
    "mail": "email",
    "mobile": "sms",
    "tel": "sms",
    "token": "push",
    "tz": "timezone",
}


def upsert(
    id: str,  # noqa: A002 - what it is called everywhere
    *,
    tenant: str = DEFAULT_TENANT,
    **fields: Unpack[Fields],
) -> Person:
    """Store a recipient, or change one.

    Addresses are checked and stored in their usual form: the domain of an e-mail address in lower case, a phone number
    in E.164. The addresses given for a channel are all it has from then on; one that stays keeps what is known of it:
    that it is verified (`verification`), when the device was seen (`devices`).

    Args:
        id: the id that producers use, 1 to 200 characters.
        tenant: whose it is.
        **fields: see `Fields`.

    Returns:
        the recipient as it is stored now.

    Raises:
        InvalidCall: a field is wrong: which, what is wrong with it, and what to write. Nothing was stored.
        NotConfigured: no database is set.
        DatabaseAway: it cannot be used now.
    """
    about, addresses = _checked(dict(fields))
    who, whose = text(id, "id"), whole_tenant(tenant)
    return recipients.upsert(
        database(),
        who,
        addresses,
        tenant=whose,
        locale=about.get("locale", recipients.KEEP),
        timezone=about.get("timezone", recipients.KEEP),
    )


def get(
    id: str,  # noqa: A002 - as above
    *,
    tenant: str = DEFAULT_TENANT,
) -> Person | None:
    """A recipient; None where there is none of this id.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `upsert`.
    """
    who, whose = text(id, "id"), text(tenant, "tenant")
    return recipients.get(database(), who, tenant=whose)


def find(
    *,
    prefix: str = "",
    channel: str | None = None,
    after: str | None = None,
    limit: int = 100,
    tenant: str = DEFAULT_TENANT,
) -> Page:
    """List recipients, a page at a time, in the order of their ids' bytes.

    Args:
        prefix: how their ids begin.
        channel: only those with an address there.
        after: `next` of the page before; None begins. What is stored meanwhile shifts nothing.
        limit: how many at most, up to 1,000.
        tenant: whose they are.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `upsert`.
    """
    if channel is not None and channel not in contacts.CHANNELS:
        known = dict.fromkeys(contacts.CHANNELS)
        raise InvalidCall("channel", "no addresses are kept for it", meant(channel, known, {"phone": "sms"}))
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidCall("limit", f"{limit} is out of range", f"Write 1 to {MAX_PAGE}")
    return recipients.find(
        database(),
        prefix=text(prefix, "prefix") if prefix else "",
        channel=channel,
        after=text(after, "after") if after else "",
        limit=limit,
        tenant=text(tenant, "tenant"),
    )


def erase(
    id: str,  # noqa: A002 - as above
    *,
    tenant: str = DEFAULT_TENANT,
) -> Erased:
    """Erase a recipient: who they are, and what they were sent.

    In one transaction: deliveries that wait are cancelled (`recipient_erased`); contact points, in-app messages,
    addresses, recurring schedules for this person alone, and payloads and attachments of notifications to them alone
    are gone. Ids, states, times and hashes stay, and suppressed addresses do, because they keep the fleet from writing
    there again. So do webhook endpoints that are registered or disabled (`endpoints`), which belong to the tenant.

    What a worker is sending at this moment is sent; erase again where `being_sent` says so. Calls that are still in
    Redis are planned when they are taken, and store the person again where they bring addresses with the id: let the
    producers stop first. Calls to a bare address name nobody and stay until they are too old to be kept.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `upsert`.
    """
    who, whose = text(id, "id"), text(tenant, "tenant")
    return erasing.erase(database(), who, tenant=whose)


def would_erase(
    id: str,  # noqa: A002 - as above
    *,
    tenant: str = DEFAULT_TENANT,
) -> Erased:
    """What `erase` would do now; nothing is erased.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `upsert`.
    """
    who, whose = text(id, "id"), text(tenant, "tenant")
    return erasing.look(database(), who, tenant=whose)


# --- checks -----------------------------------------------------------------------------------------


def _checked(fields: Mapping[str, Any]) -> tuple[dict[str, str | None], dict[str, list[str]]]:
    about: dict[str, str | None] = {}
    addresses: dict[str, list[str]] = {}
    for position, (name, value) in enumerate(fields.items()):
        if name not in _FIELDS:
            known = dict.fromkeys(_FIELDS)
            raise InvalidCall(safe_name(name, position), "there is no such field", meant(name, known, _MEANT))
        if name in ("locale", "timezone"):
            check = contacts.locale if name == "locale" else contacts.timezone
            about[name] = None if value is None else check(value, name)
            continue
        channel = "sms" if name == "phone" else name
        if channel in addresses:
            raise InvalidCall(name, "sms and phone are the same thing", "Keep one of them")
        addresses[channel] = _addresses(channel, value, name)
    return about, addresses


def _addresses(channel: str, value: object, field: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        return [contacts.contact_point(channel, value, field)]
    if len(value) > MAX_ADDRESSES:
        raise InvalidCall(
            field,
            f"{len(value)} addresses are too many",
            f"Keep {MAX_ADDRESSES} of them: each gets every message",
        )
    return [contacts.contact_point(channel, one, f"{field}[{index}]") for index, one in enumerate(value)]
