"""A rendered `push.json` as a message of FCM's HTTP v1 API. `channels.push.fcm` has the table of its keys."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from channels.contract import Refused
from channels.http import to_json

MAX_PAYLOAD: Final = 4096
"""Bytes of notification and data together (firebase.google.com, "Customize a message", size limits)."""
_MAX_COLLAPSE_ID: Final = 64
"""Bytes of `apns-collapse-id` (developer.apple.com, "Sending notification requests to APNs")."""
_RESERVED: Final = re.compile(r"from|message_type|(?:google|gcm)(?:\..*)?", re.DOTALL)
"""Keys of data that FCM keeps for itself (the reference of `projects.messages`, field `data`)."""
_ELSEWHERE: Final = frozenset({"badge", "body", "data", "image", "sound", "tag", "title"})
"""Keys that do not go into FCM's data."""


@dataclass(frozen=True, slots=True)
class Handling:
    """How phones shall treat a provider's messages.

    Args:
        priority: `high` wakes a sleeping phone, `normal` waits until it wakes.
        ttl: seconds that FCM and APNs keep a message for a phone that is not to be reached.
    """

    priority: str
    ttl: int


def compose(
    messaging: ModuleType, token: str, delivery_id: str, data: Mapping[str, Any], handling: Handling
) -> Any:
    """The message as `firebase_admin.messaging.Message`.

    Raises:
        Refused: a key of the content has a value that FCM does not carry, or all are too much.
    """
    notification = {key: _text(data, key) for key in ("title", "body", "image") if data.get(key) is not None}
    visible = "title" in notification or "body" in notification
    strings = _strings(delivery_id, data)
    _check_size(notification, strings)
    tag, sound, badge = _text(data, "tag"), _text(data, "sound"), _whole(data, "badge")
    message = messaging.Message(
        data=strings,
        notification=messaging.Notification(**notification) if visible else None,
        android=messaging.AndroidConfig(
            collapse_key=tag,
            priority=handling.priority,
            ttl=handling.ttl,
            notification=messaging.AndroidNotification(
                tag=tag or delivery_id, sound=sound, notification_count=badge
            )
            if visible
            else None,
        ),
        apns=messaging.APNSConfig(
            headers=_apns_headers(tag or delivery_id, handling, visible=visible),
            payload=_apns_payload(messaging, sound, badge, visible=visible),
        ),
    )
    message.token = token  # not as an argument: the SDK warns of it there, and has no other way to a device
    return message


def _apns_headers(collapse_id: str, handling: Handling, *, visible: bool) -> dict[str, str]:
    if len(collapse_id) > _MAX_COLLAPSE_ID or not re.fullmatch(r"[\x21-\x7e]+", collapse_id):
        collapse_id = hashlib.sha256(collapse_id.encode("utf-8", "surrogatepass")).hexdigest()
    # Apple delivers what shows nothing at priority 5 alone.
    urgent = visible and handling.priority == "high"
    return {
        "apns-collapse-id": collapse_id,
        "apns-expiration": str(int(time.time()) + handling.ttl) if handling.ttl else "0",
        "apns-priority": "10" if urgent else "5",
        "apns-push-type": "alert" if visible else "background",
    }


def _apns_payload(messaging: ModuleType, sound: str | None, badge: int | None, *, visible: bool) -> Any:
    if visible and sound is None and badge is None:
        return None
    return messaging.APNSPayload(
        messaging.Aps(sound=sound, badge=badge, content_available=None if visible else True)
    )


# --- data -------------------------------------------------------------------------------------------


def _strings(delivery_id: str, data: Mapping[str, Any]) -> dict[str, str]:
    """FCM's data: texts alone."""
    nested = data.get("data")
    if nested is not None and not isinstance(nested, Mapping):
        raise Refused("content", "content.data.data is no object; correct the template of push.json")
    found = {**(nested or {}), **{key: value for key, value in data.items() if key not in _ELSEWHERE}}
    strings = {}
    for key, value in found.items():
        if _RESERVED.fullmatch(key):
            raise Refused(
                "content", f"content.data has the key {key[:40]!r}, which FCM keeps; give it another name"
            )
        if value is not None:
            strings[key] = value if isinstance(value, str) else to_json(value, where="content.data").decode()
    return {**strings, "delivery_id": delivery_id}


def _check_size(notification: Mapping[str, str | None], strings: Mapping[str, str]) -> None:
    size = len(to_json({"data": strings, "notification": notification}, where="content.data"))
    if size > MAX_PAYLOAD:
        parts = {**strings, **notification}
        longest = max(parts, key=lambda key: len((parts[key] or "").encode()))
        raise Refused(
            "too-long",
            f"content.data makes {size} bytes and FCM carries {MAX_PAYLOAD}; shorten it, {longest[:40]!r} first",
        )


def _text(data: Mapping[str, Any], key: str) -> str | None:
    value = data.get(key)
    if value is not None and (not isinstance(value, str) or (key in {"sound", "tag"} and not value)):
        raise Refused("content", f"content.data.{key} is no text; correct the template of push.json")
    return value


def _whole(data: Mapping[str, Any], key: str) -> int | None:
    value = data.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise Refused("content", f"content.data.{key} is no whole number; correct the template of push.json")
    return value
