from __future__ import annotations

from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    Message,
    Misconfigured,
    Refused,
    TextContent,
    Throttled,
    TryLater,
)
from tests.contract.conformance import Adapter, Row, Unreadable, a_message
from tests.contract.http_peer import HttpPeer, Reply


def options(peer: HttpPeer) -> dict[str, str]:
    return {"url": peer.url, "kind": "idempotent"}


def message(peer: HttpPeer) -> Message:
    return a_message("sms", "+491701234567", TextContent("one-time code 493817"))


ADAPTER = Adapter(
    use="sms.sandbox",
    capability=Capability.IDEMPOTENT,
    options=options,
    required=("url",),
    message=message,
    private=("493817",),
    takes=Reply(202, {"id": "m-1"}),
    accepted=Accepted("m-1", "202"),
    rows=(
        Row(Reply(400), Refused, "400"),
        Row(Reply(401), Misconfigured, "401"),
        Row(Reply(403), Misconfigured, "403"),
        Row(Reply(404), AddressInvalid, "404"),
        Row(Reply(408), TryLater, "408"),
        Row(Reply(410), AddressInvalid, "410"),
        Row(Reply(413), Refused, "413"),
        Row(Reply(425), TryLater, "425"),
        Row(Reply(429, headers={"Retry-After": "7"}), Throttled, "429", 7),
        Row(Reply(503, headers={"Retry-After": "7"}), TryLater, "503", 7),
    ),
    malformed=(
        Unreadable(Reply(202, "not JSON"), Accepted(None, "202 unreadable")),
        Unreadable(Reply(202, {}), Accepted(None, "202 unreadable")),
        Unreadable(Reply(202, b"{}", length=99), Accepted(None, "202 unreadable")),
    ),
    key_of=lambda seen: seen.headers.get("idempotency-key"),
)
