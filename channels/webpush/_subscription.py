"""A browser's push subscription, read from its address."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from channels._addresses import split_url
from channels.contract import AddressInvalid

_REMEDY: Final = "let the browser subscribe again"
_KEY_BYTES: Final = 65
_AUTH_BYTES: Final = 16
_UNCOMPRESSED: Final = 4


@dataclass(frozen=True, slots=True)
class Subscription:
    """Where a browser's push service takes messages, and the keys that only the browser can read them with.

    Args:
        endpoint: the push service's URL, a secret of this browser's.
        host: of the endpoint.
        audience: the endpoint's origin, as a VAPID token names it (RFC 8292, section 2).
        p256dh: the browser's public key, base64url.
        auth: the secret that it shares with us, base64url.
    """

    endpoint: str = field(repr=False)
    host: str = field(repr=False)
    audience: str = field(repr=False)
    p256dh: str = field(repr=False)
    auth: str = field(repr=False)


def read(address: str) -> Subscription:
    """Read a `PushSubscription.toJSON()` (W3C Push API) and check its keys (RFC 8291, section 2).

    Raises:
        AddressInvalid: nobody could send to it.
    """
    found = _parsed(address)
    keys = found.get("keys")
    if not isinstance(found.get("endpoint"), str) or not isinstance(keys, Mapping):
        raise AddressInvalid("subscription", f"this is no push subscription; {_REMEDY}")
    public, auth = _decoded(keys.get("p256dh")), _decoded(keys.get("auth"))
    if auth is None or len(auth) != _AUTH_BYTES:
        raise AddressInvalid("subscription", f"the subscription's keys.auth is not 16 bytes; {_REMEDY}")
    if public is None or not _is_point(public):
        raise AddressInvalid("subscription", f"the subscription's keys.p256dh is no key of P-256; {_REMEDY}")
    try:
        origin, _ = split_url(found["endpoint"])
    except ValueError:
        origin = None
    if origin is None:
        raise AddressInvalid("subscription", f"the subscription's endpoint is no URL; {_REMEDY}")
    return Subscription(
        found["endpoint"],
        origin.host,
        f"{origin.scheme}://{origin.authority}",
        _encoded(public),
        _encoded(auth),
    )


def _parsed(address: str) -> Mapping[str, Any]:
    try:
        found = json.loads(address)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _decoded(value: object) -> bytes | None:
    """Base64url, also where somebody has stored it with padding or in the other alphabet."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9+/_-]{1,200}={0,2}", value):
        return None
    plain = value.rstrip("=")
    try:
        return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))  # takes either alphabet
    except (binascii.Error, ValueError):
        return None


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _is_point(raw: bytes) -> bool:
    """Whether these bytes are an uncompressed point of the curve: any others would fail while encrypting."""
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - for those who send

    if len(raw) != _KEY_BYTES or raw[0] != _UNCOMPRESSED:
        return False
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
    except ValueError:
        return False
    return True
