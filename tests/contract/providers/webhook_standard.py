from __future__ import annotations

from dataclasses import replace
from typing import Any

from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    DataContent,
    Message,
    Refused,
    Throttled,
    TryLater,
)
from tests.contract.conformance import Adapter, Row, TooLong, a_message
from tests.contract.http_peer import HttpPeer, Reply

KEY = "bm90aWZ5LXRhc2tzLXdlYmhvb2stdGVzdC1rZXk="
SECRET = f"whsec_{KEY}"


def options(peer: HttpPeer) -> dict[str, Any]:
    return {
        "secrets": [SECRET],
        "allow_http": True,
        "allowed_private_cidrs": ["127.0.0.0/8"],
        "ports": [peer.port],
        "max_body": 1000,
    }


def message(peer: HttpPeer) -> Message:
    return a_message("webhook", f"{peer.url}/hooks/3b8e17", DataContent({"code": "493817"}))


def accepted(message: Message) -> Accepted:
    return Accepted(message.idempotency_key, "200")


def much(peer: HttpPeer) -> Message:
    return replace(message(peer), content=DataContent({"code": "x" * 1000}))


ADAPTER = Adapter(
    use="webhook.standard",
    capability=Capability.IDEMPOTENT,
    options=options,
    required=("secrets",),
    message=message,
    private=(SECRET, KEY, "493817", "3b8e17"),
    takes=Reply(200),
    accepted_for=accepted,
    rows=(
        Row(Reply(400), TryLater, "400"),
        Row(Reply(401), TryLater, "401"),
        Row(Reply(403), TryLater, "403"),
        Row(Reply(404), TryLater, "404"),
        Row(Reply(408), TryLater, "408"),
        Row(Reply(410), AddressInvalid, "410"),
        Row(Reply(413), Refused, "413"),
        Row(Reply(429, headers={"Retry-After": "7"}), Throttled, "429", 7),
        Row(Reply(429), Throttled, "429"),
        Row(Reply(500), TryLater, "500"),
        Row(Reply(503), TryLater, "503"),
        Row(Reply(503, headers={"Retry-After": "7"}), Throttled, "503", 7),
        Row(Reply(304), Refused, "304"),
    ),
    malformed=(),  # an endpoint's answer has nothing to read
    too_long=(TooLong(much, "content.data"),),
    down=TryLater,
    key_of=lambda seen: seen.headers.get("webhook-id"),
)
