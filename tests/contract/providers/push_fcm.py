from __future__ import annotations

from dataclasses import replace
from typing import Any

from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    DataContent,
    Message,
    Misconfigured,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from tests.contract.conformance import Adapter, Row, TooLong, Unreadable, a_message
from tests.contract.fcm_far_end import account, error, fcm, pem, violation
from tests.contract.http_peer import HttpPeer, Reply

TOKEN = "dZ8:APA91b-device-3b8e17"
ACCESS = "ya29.c.b0-access-5521"
NAME = "projects/shop-1/messages/0:1500415314455276%31bd1c96"


def options(peer: HttpPeer) -> dict[str, Any]:
    return {"url": peer.url, "credentials": account(f"{peer.url}/token"), "ttl": 600}


def message(peer: HttpPeer) -> Message:
    return a_message("push", TOKEN, DataContent({"title": "Your code", "body": "It is 493817"}))


def much(peer: HttpPeer) -> Message:
    return replace(message(peer), content=DataContent({"title": "Your code", "body": "x" * 4096}))


BAD_TOKEN = "The registration token is not a valid FCM registration token"

ADAPTER = Adapter(
    use="push.fcm",
    capability=Capability.OPAQUE,
    options=options,
    required=("credentials",),
    message=message,
    private=(ACCESS, "493817", pem().splitlines()[3]),
    takes=Reply(200, {"name": NAME}),
    accepted=Accepted(NAME, "200"),
    asides={"/token": Reply(200, {"access_token": ACCESS, "expires_in": 3599, "token_type": "Bearer"})},
    rows=(
        Row(Reply(404, error(404, "NOT_FOUND", "no", fcm("UNREGISTERED"))), AddressInvalid, "UNREGISTERED"),
        Row(Reply(404, error(404, "NOT_FOUND")), Misconfigured, "NOT_FOUND"),
        Row(Reply(404), Misconfigured, "404"),
        Row(
            Reply(403, error(403, "PERMISSION_DENIED", "no", fcm("SENDER_ID_MISMATCH"))),
            AddressInvalid,
            "SENDER_ID_MISMATCH",
        ),
        Row(Reply(403, error(403, "PERMISSION_DENIED")), Misconfigured, "PERMISSION_DENIED"),
        Row(Reply(401, error(401, "UNAUTHENTICATED")), Misconfigured, "UNAUTHENTICATED"),
        Row(
            Reply(401, error(401, "UNAUTHENTICATED", "no", fcm("THIRD_PARTY_AUTH_ERROR"))),
            TryLater,
            "THIRD_PARTY_AUTH_ERROR",
        ),
        Row(
            Reply(401, error(401, "UNAUTHENTICATED", "no", fcm("APNS_AUTH_ERROR"))),
            TryLater,
            "APNS_AUTH_ERROR",
        ),
        Row(
            Reply(400, error(400, "INVALID_ARGUMENT", BAD_TOKEN, fcm("INVALID_ARGUMENT"))),
            AddressInvalid,
            "INVALID_ARGUMENT",
        ),
        Row(
            Reply(400, error(400, "INVALID_ARGUMENT", "no", violation("message.data[0].value"))),
            Refused,
            "INVALID_ARGUMENT",
        ),
        Row(  # what the message says does not outweigh the field that is named
            Reply(400, error(400, "INVALID_ARGUMENT", BAD_TOKEN, violation("message.android.ttl"))),
            Refused,
            "INVALID_ARGUMENT",
        ),
        Row(
            Reply(400, error(400, "INVALID_ARGUMENT", "Message is too big", fcm("INVALID_ARGUMENT"))),
            Refused,
            "INVALID_ARGUMENT",
        ),
        Row(Reply(400), Refused, "400"),
        Row(
            Reply(429, error(429, "RESOURCE_EXHAUSTED", "no", fcm("QUOTA_EXCEEDED")), {"Retry-After": "7"}),
            Throttled,
            "QUOTA_EXCEEDED",
            7,
        ),
        Row(Reply(429, error(429, "RESOURCE_EXHAUSTED")), Throttled, "RESOURCE_EXHAUSTED", 60),
        Row(Reply(429), Throttled, "429", 60),
        Row(Reply(500, error(500, "INTERNAL", "no", fcm("INTERNAL"))), TryLater, "INTERNAL", 10),
        Row(Reply(500), Uncertain, "500"),
        Row(Reply(503, error(503, "UNAVAILABLE", "no", fcm("UNAVAILABLE"))), Unavailable, "UNAVAILABLE", 10),
        Row(
            Reply(503, error(503, "UNAVAILABLE", "no", fcm("UNAVAILABLE")), {"Retry-After": "30"}),
            TryLater,
            "UNAVAILABLE",
            30,
        ),
        Row(Reply(503, headers={"Retry-After": "3"}), TryLater, "503", 10),
        Row(Reply(413), Refused, "413"),
        Row(Reply(204), Uncertain, "204"),
        Row(Reply(404, {"error": ["odd", {"details": 1}]}), Misconfigured, "404"),
        Row(
            Reply(404, {"error": {"details": [1, {"fieldViolations": [2]}], "status": 3}}),
            Misconfigured,
            "404",
        ),
    ),
    malformed=(
        Unreadable(Reply(200, "not JSON"), Uncertain),
        Unreadable(Reply(200, {}), Uncertain),
        Unreadable(Reply(200, b"{}", length=99), Uncertain),
        Unreadable(Reply(200, {"name": ["odd"]}), Uncertain),
    ),
    too_long=(TooLong(much, "content.data"), TooLong(much, "body")),
)
