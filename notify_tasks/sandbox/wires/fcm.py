"""Firebase Cloud Messaging: Google's token endpoint, and `messages:send` of the HTTP v1 API.

* `POST /token`: a service account's signed JWT for an access token (RFC 7523; developers.google.com, "Using OAuth 2.0
  for Server to Server Applications"). A no is a 400 with `error` and `error_description` (RFC 6749, section 5.2).
* `POST /v1/projects/{project}/messages:send`: a message to one token (the reference of `projects.messages`). A no is a
  `google.rpc.Status`, with an `FcmError` or the fields that are wrong among its details (firebase.google.com, "REST
  error codes for the HTTP v1 API").

It sends to tokens alone: topics and conditions have no phone that the sandbox could show.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from notify_tasks.sandbox import credentials
from notify_tasks.sandbox.log import OPAQUE, LoggedRequest
from notify_tasks.sandbox.wires._bodies import claims, json_object
from notify_tasks.sandbox.wires.wire import DEAD_ADDRESS, WRONG_KEY, Reading, Reply, Request

MAX_PAYLOAD: Final = 4096
"""Bytes of the keys and values of `notification` and `data` together."""
_TOKEN_SECONDS: Final = 3600
_SKEW_SECONDS: Final = 300
_MAX_TTL: Final = 2_419_200
_SCOPES: Final = frozenset(
    {"https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"}
)
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_GOOGLES: Final = "https://oauth2.googleapis.com/token"
_SEND: Final = re.compile(r"/v1/projects/([^/]+)/messages:send")
_DEVICE_TOKEN: Final = re.compile(r"[A-Za-z0-9_:.-]{1,4096}")
_RESERVED: Final = re.compile(r"from|message_type|(?:google|gcm)(?:\..*)?", re.DOTALL)

# --- the message ----------------------------------------------------------------------------------------

_MESSAGE: Final = frozenset(
    (
        "android",
        "apns",
        "condition",
        "data",
        "fcm_options",
        "name",
        "notification",
        "token",
        "topic",
        "webpush",
    )
)
_PARTS: Final[Mapping[str, frozenset[str]]] = {
    "notification": frozenset(("title", "body", "image")),
    "android": frozenset(
        (
            *("collapse_key", "priority", "ttl", "restricted_package_name", "data", "notification"),
            *("fcm_options", "direct_boot_ok", "bandwidth_constrained_ok", "restricted_satellite_ok"),
        )
    ),
    "apns": frozenset(("headers", "payload", "fcm_options", "live_activity_token")),
    "webpush": frozenset(("headers", "data", "notification", "fcm_options")),
    "fcm_options": frozenset(("analytics_label",)),
}
_PRIORITIES: Final = frozenset(("HIGH", "NORMAL"))


def _snake(name: str) -> str:
    """JSON names of protocol buffers may be written either way."""
    return re.sub(r"(?<=[a-z0-9])[A-Z]", lambda found: "_" + found[0].lower(), name)


def _snaked(part: Mapping[str, Any]) -> dict[str, Any]:
    return {_snake(name): value for name, value in part.items()}


def _violations(message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each field that does not fit the reference, and why."""
    yield from _unknown("message", message, _MESSAGE)
    for name, known in _PARTS.items():
        part = message.get(name)
        where = f"message.{name}"
        if isinstance(part, dict):
            yield from _unknown(where, _snaked(part), known)
        elif part is not None:
            yield where, f"Invalid value at '{where}' (type.googleapis.com/google.protobuf.Message)"
    yield from _texts("message.notification", message.get("notification"))
    yield from _data("message.data", message.get("data"))
    android = message.get("android")
    if isinstance(android, dict):
        yield from _android(_snaked(android))


def _unknown(where: str, part: Mapping[str, Any], known: frozenset[str]) -> Iterator[tuple[str, str]]:
    for name in part:
        if name not in known:
            yield where, f"Unknown name {name!r} at {where!r}"


def _texts(where: str, part: object) -> Iterator[tuple[str, str]]:
    for name, value in part.items() if isinstance(part, dict) else ():
        if not isinstance(value, str):
            yield f"{where}.{name}", f"Invalid value at '{where}.{name}' (TYPE_STRING)"


def _data(where: str, data: object) -> Iterator[tuple[str, str]]:
    if data is None:
        return
    if not isinstance(data, dict):
        yield where, f"Invalid value at '{where}' (type.googleapis.com/google.protobuf.Map)"
        return
    for place, (name, value) in enumerate(data.items()):
        if not isinstance(value, str):
            yield f"{where}[{place}].value", f"Invalid value at '{where}[{place}].value' (TYPE_STRING)"
        if _RESERVED.fullmatch(name):
            yield where, f"Invalid data payload key: {name}"


def _android(android: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    ttl = android.get("ttl")
    if ttl is not None:
        sound = isinstance(ttl, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?s", ttl)
        if not sound or float(ttl[:-1]) > _MAX_TTL:
            yield (
                "message.android.ttl",
                "Invalid value at 'message.android.ttl' (Field 'ttl', Illegal duration)",
            )
    priority = android.get("priority")
    if priority is not None and str(priority).upper() not in _PRIORITIES:
        yield "message.android.priority", "Invalid value at 'message.android.priority' (TYPE_ENUM)"
    yield from _data("message.android.data", android.get("data"))


def _size(message: Mapping[str, Any]) -> int:
    parts = [message.get("notification") or {}, message.get("data") or {}]
    return sum(
        len(name.encode()) + len(str(value).encode()) for part in parts for name, value in part.items()
    )


# --- errors ---------------------------------------------------------------------------------------------

_FCM_ERROR: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST: Final = "type.googleapis.com/google.rpc.BadRequest"
_CREDENTIALS: Final = "The request has no valid OAuth 2 access token."
_BAD_TOKEN: Final = "The registration token is not a valid FCM registration token"  # noqa: S105 - a sentence


def _error(status: int, word: str, message: str, *details: Mapping[str, Any]) -> Reply:
    found: dict[str, Any] = {"code": status, "message": message, "status": word}
    return Reply(status, {"error": found | ({"details": list(details)} if details else {})})


def _fcm(code: str) -> dict[str, str]:
    return {"@type": _FCM_ERROR, "errorCode": code}


def _violated(field: str, description: str) -> Reply:
    violation = {"@type": _BAD_REQUEST, "fieldViolations": [{"field": field, "description": description}]}
    return _error(400, "INVALID_ARGUMENT", description, violation)


def _front(status: int) -> Reply:
    """What Google's front end says by itself: a page."""
    page = f"<!DOCTYPE html>\n<html lang=en>\n<title>Error {status}</title>\n"
    return Reply(status, page.encode(), {"Content-Type": "text/html; charset=UTF-8"})


_REFUSALS: Final[Mapping[str, Reply]] = {
    WRONG_KEY: _error(401, "UNAUTHENTICATED", _CREDENTIALS),
    DEAD_ADDRESS: _error(404, "NOT_FOUND", "Requested entity was not found.", _fcm("UNREGISTERED")),
    "SENDER_ID_MISMATCH": _error(403, "PERMISSION_DENIED", "SenderId mismatch", _fcm("SENDER_ID_MISMATCH")),
    "THIRD_PARTY_AUTH_ERROR": _error(
        401, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service", _fcm("THIRD_PARTY_AUTH_ERROR")
    ),
    "bad_token": _error(400, "INVALID_ARGUMENT", _BAD_TOKEN, _fcm("INVALID_ARGUMENT")),
    "400": _violated("message.data[0].value", "Invalid value at 'message.data[0].value' (TYPE_STRING), 12"),
    "401": _error(401, "UNAUTHENTICATED", _CREDENTIALS),
    "403": _error(403, "PERMISSION_DENIED", "The caller does not have permission"),
    "404": _error(404, "NOT_FOUND", "Requested entity was not found."),
    "429": _error(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric.", _fcm("QUOTA_EXCEEDED")),
    "500": _error(500, "INTERNAL", "Internal error encountered.", _fcm("INTERNAL")),
    "503": _error(503, "UNAVAILABLE", "The service is currently unavailable.", _fcm("UNAVAILABLE")),
}


# --- access tokens --------------------------------------------------------------------------------------


def _access_token(ends: int) -> str:
    # What it says is signed by the sandbox alone, so that one that starts anew knows those of before.
    made = hmac.digest(b"notify-tasks sandbox: fcm access", str(ends).encode(), hashlib.sha256)
    return f"ya29.sandbox.{ends}.{made.hex()[:32]}"


def _is_access_token(text: str) -> bool:
    ends = text.removeprefix("ya29.sandbox.").partition(".")[0]
    return (
        ends.isascii()
        and ends.isdecimal()
        and len(ends) <= 12  # noqa: PLR2004 - digits of seconds since 1970, with room
        and hmac.compare_digest(text.encode(), _access_token(int(ends)).encode())
        and int(ends) > time.time()
    )


def _denied(description: str, error: str = "invalid_grant") -> Reply:
    return Reply(400, {"error": error, "error_description": description})


def _token(request: Request) -> Reply:
    """Answer one who asks for an access token."""
    form = parse_qs(request.body.decode("utf-8", "replace"))
    if form.get("grant_type") != [_GRANT]:
        return _denied(f"Invalid grant_type: {form.get('grant_type', [''])[0]}", "unsupported_grant_type")
    public = credentials.fcm_key().public_key()
    found = claims(
        form.get("assertion", [""])[0],
        "RS256",
        lambda signature, signed: public.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256()),
    )
    if found is None:
        return _denied("Invalid JWT Signature.")
    if problem := _problem(found, request.origin + credentials.FCM_TOKEN_PATH):
        return problem
    ends = int(time.time()) + _TOKEN_SECONDS
    return Reply(
        200, {"access_token": _access_token(ends), "expires_in": _TOKEN_SECONDS - 1, "token_type": "Bearer"}
    )


def _problem(found: Mapping[str, Any], audience: str) -> Reply | None:
    """What is wrong with the claims of an assertion that is signed well."""
    if found.get("iss") != credentials.FCM_CLIENT_EMAIL:
        return _denied("Invalid grant: account not found")
    if found.get("aud") not in {audience, _GOOGLES}:
        return _denied(f"Invalid JWT: Failed audience check. The right audience is {audience}")
    begins, ends, now = found.get("iat"), found.get("exp"), time.time()
    timely = (
        isinstance(begins, int)
        and isinstance(ends, int)
        and begins <= now + _SKEW_SECONDS
        and now - _SKEW_SECONDS < ends <= begins + _TOKEN_SECONDS
    )
    if not timely:
        return _denied(
            "Invalid JWT: iat and exp of the token are not now and within 60 minutes; look at the clock."
        )
    if not _SCOPES & set(str(found.get("scope", "")).split()):
        return _denied("No scope of the assertion allows to send messages.", "invalid_scope")
    return None


# --- the wire -------------------------------------------------------------------------------------------


class Fcm:
    """Google's two servers."""

    name: Final = "fcm"
    channel: Final = "push"
    kind: Final = OPAQUE
    modes: Final[Mapping[str, str]] = {
        WRONG_KEY: "401 UNAUTHENTICATED: does not take the access token",
        DEAD_ADDRESS: "404 UNREGISTERED: the app was removed, or has another token",
        "SENDER_ID_MISMATCH": "403: the token is another project's",
        "THIRD_PARTY_AUTH_ERROR": "401: Apple's key at Firebase is missing or wrong",
        "bad_token": "400 INVALID_ARGUMENT: the token is none",
    }
    words: Final[Mapping[str, str]] = {"bounce": DEAD_ADDRESS}

    def takes(self, request: Request) -> bool:
        return request.path == credentials.FCM_TOKEN_PATH or request.path.startswith("/v1/projects/")

    def reading(self, request: Request) -> Reading | Reply:
        if request.method != "POST":
            return _front(404)
        if request.path == credentials.FCM_TOKEN_PATH:
            return _token(request)
        place = _SEND.fullmatch(request.path)
        if place is None:
            return _front(404)
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not _is_access_token(bearer.strip()):
            return _REFUSALS[WRONG_KEY]
        if place[1] != credentials.FCM_PROJECT:
            return _REFUSALS["403"]
        return _read(request.body)

    def accepted(self, request: Request, taken: LoggedRequest) -> Reply:
        return Reply(200, {"name": f"{_project(request)}/messages/{taken.id}"})

    def refused(self, request: Request, mode: str) -> Reply:  # noqa: ARG002 - a no is the same for all
        return _REFUSALS.get(mode) or _front(int(mode))


def _project(request: Request) -> str:
    return request.path.removeprefix("/v1/").removesuffix("/messages:send")


def _read(body: bytes) -> Reading | Reply:
    request = json_object(body) or {}
    given = request.get("message")
    if not isinstance(given, dict):
        return _violated("message", "A request is an object with a message.")
    message = _snaked(given)
    refusal = _unfit(message)
    if refusal is not None:
        return refusal
    if request.get("validate_only", request.get("validateOnly")):
        return Reply(200, {"name": f"projects/{credentials.FCM_PROJECT}/messages/fake_message_id"})
    return Reading(to=message["token"], delivery_id=(message.get("data") or {}).get("delivery_id"))


def _unfit(message: Mapping[str, Any]) -> Reply | None:
    for field, description in _violations(message):
        return _violated(field, description)
    token = message.get("token")
    if not token or message.get("topic") or message.get("condition"):
        return _violated("message", "Recipient of the message is not set, or is no token.")
    if not isinstance(token, str) or not _DEVICE_TOKEN.fullmatch(token):
        return _REFUSALS["bad_token"]
    if _size(message) > MAX_PAYLOAD:
        return _violated("message", f"Android message is too big: more than {MAX_PAYLOAD} bytes")
    return None


WIRE: Final = Fcm()
