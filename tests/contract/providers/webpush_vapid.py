from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    DataContent,
    Message,
    Refused,
    Throttled,
    TryLater,
    Uncertain,
)
from tests.contract.conformance import Adapter, Row, TooLong, a_message
from tests.contract.http_peer import HttpPeer, Reply
from tests.contract.push_service import Browser, b64, point

KEY = ec.derive_private_key(0x3B8E17 << 200, ec.SECP256R1())
PRIVATE_KEY = b64(KEY.private_numbers().private_value.to_bytes(32, "big"))
SERVER_KEY = b64(point(KEY))
BROWSER = Browser()
KEYS = json.loads(BROWSER.subscription(""))["keys"]


def options(peer: HttpPeer) -> dict[str, Any]:
    return {
        "private_key": PRIVATE_KEY,
        "subject": "mailto:ops@example.com",
        "hosts": ["127.0.0.1"],
        "allow_http": True,
        "allowed_private_cidrs": ["127.0.0.0/8"],
        "ports": [peer.port],
        "ttl": 600,
        "urgency": "high",
    }


def message(peer: HttpPeer) -> Message:
    subscription = BROWSER.subscription(f"{peer.url}/push/3b8e17")
    return a_message("webpush", subscription, DataContent({"title": "Your code", "body": "493817"}))


def much(peer: HttpPeer) -> Message:
    return replace(message(peer), content=DataContent({"body": "x" * 3993}))


ADAPTER = Adapter(
    use="webpush.vapid",
    capability=Capability.OPAQUE,
    options=options,
    required=("private_key", "subject"),
    message=message,
    private=(PRIVATE_KEY, "493817", "push/3b8e17", KEYS["auth"], KEYS["p256dh"]),
    takes=Reply(201, headers={"Location": "https://push.example/message/m-1"}),
    accepted=Accepted("m-1", "201"),
    rows=(
        Row(Reply(404), AddressInvalid, "404"),
        Row(Reply(410), AddressInvalid, "410"),
        Row(Reply(401), TryLater, "401"),
        Row(Reply(403), TryLater, "403"),
        Row(Reply(400, "<TITLE>UnauthorizedRegistration</TITLE>"), TryLater, "400"),
        Row(Reply(400), Refused, "400"),
        Row(Reply(405), Refused, "405"),
        Row(Reply(408), TryLater, "408"),
        Row(Reply(413), Refused, "413"),
        Row(Reply(425), TryLater, "425"),
        Row(Reply(429, headers={"Retry-After": "7"}), Throttled, "429", 7),
        Row(Reply(429), Throttled, "429"),
        Row(Reply(500), Uncertain, "500"),
        Row(Reply(503), TryLater, "503"),
        Row(Reply(503, headers={"Retry-After": "7"}), TryLater, "503", 7),
        Row(Reply(307), Refused, "307"),
    ),
    malformed=(),  # a push service's answer has nothing to read
    too_long=(TooLong(much, "content.data"),),
    down=TryLater,
)
