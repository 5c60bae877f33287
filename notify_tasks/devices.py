"""Devices, for the services that their apps and pages talk to: what push and web push go to.

    from notify_tasks import devices

    devices.register("user-42", token, platform="android", label="Ann's phone")     # at each start of the app
    devices.register("user-42", subscription, channel="webpush")                    # PushSubscription.toJSON()
    devices.find("user-42")                                                         # the one seen last first
    devices.remove("user-42", token)                                                # at log-out
    devices.prune(270 * 86400)                                                      # once a day

A person has up to 20 devices on each of the two channels, and a notification goes to each. One that a provider calls
dead is removed by the worker that hears it. Needs the extra `[worker]` and the setting `database_url`. Each function
but `prune` is one transaction, and each may be run again after an error.
"""

from __future__ import annotations

import math
import re
from typing import Final

from notify_tasks.errors import InvalidCall, NotHere
from notify_tasks.notification import DEFAULT_TENANT
from notify_tasks.recipients import Subscription, meant, text

_LIBRARIES: Final = frozenset({"babel", "email_validator", "phonenumbers", "psycopg", "psycopg_pool"})

try:
    from notify_tasks import contacts
    from notify_tasks.api_connections import close, database
    from notify_tasks.store import devices as stored
    from notify_tasks.store.database import DatabaseAway
    from notify_tasks.store.devices import MAX_DEVICES, Device
except ModuleNotFoundError as error:
    if error.name not in _LIBRARIES:
        raise
    raise NotHere(
        f"storing devices needs {error.name}, which is not installed here. Install it: "
        "pip install 'notify-tasks[worker]', or use `notify devices` where it is"
    ) from None

__all__ = [
    "CHANNELS", "DEAD_AFTER", "MAX_DEVICES", "DatabaseAway", "Device", "close", "find", "prune", "register", "remove",
    "seen",
]  # fmt: skip

CHANNELS: Final = ("push", "webpush")
DAY: Final = 86400
DEAD_AFTER: Final = 270.0 * DAY
"""Seconds: FCM forgets the token of an Android app that was silent for 270 days, and calls it stale after a month
(firebase.google.com/docs/cloud-messaging/manage-tokens). APNs and browsers' push services forget none by its age."""
MAX_LABEL: Final = 100

_PLATFORM: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def register(
    recipient_id: str,
    token: str | Subscription,
    *,
    channel: str = "push",
    platform: str | None = None,
    label: str | None = None,
    tenant: str = DEFAULT_TENANT,
) -> Device:
    """Store a device, or note that it was seen now. The person's other devices stay.

    Call it whenever an app starts or its token changes, for the person who is logged in. A device that was another
    person's is theirs no more. Of more than 20 on a channel the one seen longest ago gives way. The person is stored
    where nobody has this id.

    The token is taken as verified, since its own app told it. If its address was suppressed as dead, it is no more;
    an opt-out stands.

    Args:
        recipient_id: the id that producers use.
        token: of the app, or for `webpush` a browser's subscription, as `PushSubscription.toJSON()` gives it.
        channel: `push` or `webpush`.
        platform: one word: `android`, `ios`, `web`. None keeps what is stored.
        label: what the owner calls it, 1 to 100 characters. None keeps what is stored.
        tenant: whose person.

    Returns:
        the device as it is stored now.

    Raises:
        InvalidCall: an argument is wrong: which, and what to write. Nothing was stored.
        NotConfigured: no database is set.
        DatabaseAway: it cannot be used now.
    """
    who, address = _named(recipient_id, token, channel)
    return stored.register(
        database(),
        who,
        channel,
        address,
        platform=None if platform is None else _platform(platform),
        label=None if label is None else text(label, "label", longest=MAX_LABEL),
        tenant=text(tenant, "tenant"),
    )


def seen(
    recipient_id: str, token: str | Subscription, *, channel: str = "push", tenant: str = DEFAULT_TENANT
) -> bool:
    """Note that a device was seen now.

    Returns:
        False where it is none of this person's: `register` it.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `register`.
    """
    who, address = _named(recipient_id, token, channel)
    return stored.seen(database(), who, channel, address, tenant=text(tenant, "tenant"))


def remove(
    recipient_id: str, token: str | Subscription, *, channel: str = "push", tenant: str = DEFAULT_TENANT
) -> bool:
    """Remove a device, at log-out for example. What waits for it is still sent.

    Returns:
        False where it is none of this person's.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `register`.
    """
    who, address = _named(recipient_id, token, channel)
    return stored.remove(database(), who, channel, address, tenant=text(tenant, "tenant"))


def find(recipient_id: str, *, tenant: str = DEFAULT_TENANT) -> tuple[Device, ...]:
    """A person's devices, the one seen last first.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `register`.
    """
    who = text(recipient_id, "recipient_id")
    return stored.find(database(), who, tenant=text(tenant, "tenant"))


def prune(older_than: float = DEAD_AFTER, *, tenant: str = DEFAULT_TENANT) -> int:
    """Remove the devices that were not seen for so long.

    Those that were never registered stay, since nobody knows when they were seen.

    Args:
        older_than: seconds, a day or more.
        tenant: whose.

    Returns:
        how many are gone.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `register`; after an error some may be gone, so run it again.
    """
    if not DAY <= older_than < math.inf:
        raise InvalidCall(
            "older_than", f"{older_than} seconds is out of range", "Write a day or more: 270 * 86400"
        )
    return stored.prune(database(), older_than, tenant=text(tenant, "tenant"))


# --- checks -----------------------------------------------------------------------------------------


def _named(recipient_id: str, token: object, channel: str) -> tuple[str, str]:
    who = text(recipient_id, "recipient_id")
    if channel not in CHANNELS:
        known = dict.fromkeys(CHANNELS)
        raise InvalidCall(
            "channel", "it has no devices", meant(channel, known, {"web": "webpush", "fcm": "push"})
        )
    return who, contacts.contact_point(channel, token, "token")


def _platform(platform: object) -> str:
    if not isinstance(platform, str) or not _PLATFORM.fullmatch(platform):
        raise InvalidCall(
            "platform", "it is no word of small letters and digits", "Write android, ios or web"
        )
    return platform
