"""A push service for browsers (RFC 8030) that its browsers have subscribed at with the sandbox's key (RFC 8292).

`POST /webpush/{browser}` takes a message. Every name is a browser; `credentials.webpush_subscription` makes its
subscription. A push service cannot read what it takes, and so it takes what no browser could open, too; but the sandbox
is the browser as well, and keeps what it opens (RFC 8291).

| the request | answer |
|---|---|
| no `TTL`, or none that is a number; a `Topic` or an `Urgency` that is none | 400 |
| a text in another coding than aes128gcm | 400 |
| no `Authorization`, or of another scheme | 401 |
| a token that is not signed, not for this service, over, or good for more than 24 hours; another key | 403 |
| a body of more than 4096 bytes | 413 |
| another method | 405 |
| any other | 201, with the message's own URL in `Location` |
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from notify_tasks.sandbox import credentials
from notify_tasks.sandbox.log import OPAQUE, LoggedRequest
from notify_tasks.sandbox.wires._bodies import claims, decoded, json_object
from notify_tasks.sandbox.wires._opening import opened
from notify_tasks.sandbox.wires.wire import DEAD_ADDRESS, WRONG_KEY, Reading, Reply, Request

MAX_BODY: Final = 4096
"""Bytes that every push service must take (RFC 8030, section 7.2); this one takes no more."""
_DAY: Final = 24 * 3600
_SIGNATURE_BYTES: Final = 64
_URGENCIES: Final = frozenset(("very-low", "low", "normal", "high"))
_SAYS: Final[Mapping[int, str]] = {
    400: "the request is malformed",
    401: "the subscription wants a VAPID signature",
    403: "the VAPID signature is not one of the key that the browser subscribed with",
    404: "there is no such subscription",
    405: "a push is a POST",
    410: "the subscription is gone",
    413: f"the message has more than {MAX_BODY} bytes",
    429: "too many messages",
    500: "the push service failed",
    503: "the push service is not available",
}


def _no(status: int, message: str = "") -> Reply:
    return Reply(status, {"code": status, "message": message or _SAYS.get(status, f"it is a {status}")})


class WebPush:
    """One push service and all its browsers."""

    name: Final = "webpush"
    channel: Final = "webpush"
    kind: Final = OPAQUE
    modes: Final[Mapping[str, str]] = {
        WRONG_KEY: "403: our key is not the one that the browser subscribed with",
        DEAD_ADDRESS: "410: the subscription is gone",
    }
    words: Final[Mapping[str, str]] = {"bounce": DEAD_ADDRESS}

    def takes(self, request: Request) -> bool:
        return request.path.startswith(credentials.WEBPUSH_PATH)

    def reading(self, request: Request) -> Reading | Reply:
        refusal = _malformed(request) or _unsigned(request)
        if refusal is not None:
            return refusal
        text = (
            opened(request.body, credentials.browser_key(), credentials.BROWSER_AUTH) if request.body else b""
        )
        said = (json_object(text) if text else None) or {}
        delivery_id = said.get("delivery_id")
        return Reading(
            to=request.path.removeprefix(credentials.WEBPUSH_PATH),
            delivery_id=delivery_id if isinstance(delivery_id, str) else None,
            opened=text,
        )

    def accepted(self, request: Request, taken: LoggedRequest) -> Reply:
        kept = {"TTL": request.headers["ttl"]}
        return Reply(201, b"", {"Location": f"{request.origin}/webpush-messages/{taken.id}", **kept})

    def refused(self, request: Request, mode: str) -> Reply:  # noqa: ARG002 - a no is the same for all
        return _no({WRONG_KEY: 403, DEAD_ADDRESS: 410}.get(mode) or int(mode))


def _malformed(request: Request) -> Reply | None:
    if request.method != "POST":
        return _no(405)
    if not request.path.removeprefix(credentials.WEBPUSH_PATH):
        return _no(404)
    if len(request.body) > MAX_BODY:
        return _no(413)
    problem = _problem(request.headers, text=bool(request.body))
    return _no(400, problem) if problem else None


def _problem(headers: Mapping[str, str], *, text: bool) -> str:
    """What is wrong with the headers of a message; `text`: it has one."""
    if not re.fullmatch(r"[0-9]{1,10}", headers.get("ttl", "")):
        return "the header TTL, in seconds, is missing or no number (RFC 8030, section 5.2)"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", headers.get("topic", "none")):
        return "a Topic has up to 32 characters of base64url (RFC 8030, section 5.4)"
    if headers.get("urgency", "normal") not in _URGENCIES:
        return f"an Urgency is one of {', '.join(sorted(_URGENCIES))} (RFC 8030, section 5.3)"
    if text and headers.get("content-encoding") != "aes128gcm":
        return "Content-Encoding is not aes128gcm (RFC 8291, section 4)"
    return ""


# --- who sends (RFC 8292) -----------------------------------------------------------------------------------


def _unsigned(request: Request) -> Reply | None:
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "vapid":
        return _no(401)
    given = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if given.get("k", "").rstrip("=") != credentials.vapid_public_key():
        return _no(403)
    found = claims(given.get("t", ""), "ES256", _verify)
    if found is None:
        return _no(403, "the VAPID token is not signed by its key, or is none (RFC 8292, section 2)")
    return _untimely(found, request.origin)


def _untimely(found: Mapping[str, Any], origin: str) -> Reply | None:
    ends, now = found.get("exp"), time.time()
    if found.get("aud") != origin:
        return _no(403, f"the VAPID token is not for {origin} (RFC 8292, section 2)")
    if not isinstance(ends, int | float) or not now < ends <= now + _DAY:
        return _no(403, "the VAPID token is over, or good for more than 24 hours (RFC 8292, section 2)")
    return None


def _verify(signature: bytes, signed: bytes) -> None:
    if len(signature) != _SIGNATURE_BYTES:
        raise ValueError("this is no signature of ES256")
    half = _SIGNATURE_BYTES // 2
    pair = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
    point = decoded(credentials.vapid_public_key())
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    key.verify(pair, signed, ec.ECDSA(hashes.SHA256()))


WIRE: Final = WebPush()
