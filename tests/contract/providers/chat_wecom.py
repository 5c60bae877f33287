from __future__ import annotations

from dataclasses import replace
from typing import Any

from channels.contract import (
    Accepted,
    Capability,
    ChannelError,
    ChatContent,
    Message,
    Misconfigured,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from tests.contract.conformance import Adapter, Row, TooLong, Unreadable, a_message
from tests.contract.http_peer import HttpPeer, Reply

KEY = "693a91f6-7b1c-4bc4"


def options(peer: HttpPeer) -> dict[str, Any]:
    return {"rooms": {"ops-room": f"{peer.url}/cgi-bin/webhook/send?key={KEY}"}}


def message(peer: HttpPeer) -> Message:
    return a_message("chat", "ops-room", ChatContent("Order **493817** is on its way"))


def accepted(message: Message) -> Accepted:
    return Accepted(message.idempotency_key, "0")


def much(peer: HttpPeer) -> Message:
    return replace(message(peer), content=ChatContent("单" * 1366))


def says(code: int, outcome: type[ChannelError]) -> Row:
    return Row(Reply(200, {"errcode": code, "errmsg": "about order 493817"}), outcome, str(code))


ADAPTER = Adapter(
    use="chat.wecom",
    capability=Capability.OPAQUE,
    options=options,
    required=("rooms",),
    message=message,
    private=(KEY, "493817"),
    takes=Reply(200, {"errcode": 0, "errmsg": "ok"}),
    accepted_for=accepted,
    rows=(
        says(45009, Throttled),
        says(45033, Throttled),
        *(says(code, Misconfigured) for code in (93000, 93004, 93008)),
        *(says(code, Refused) for code in (40058, 40008, 44004, 45002, 123456)),
        says(-1, TryLater),
        Row(Reply(429, headers={"Retry-After": "7"}), Throttled, "429", 7),
        Row(Reply(403), Misconfigured, "403"),
        Row(Reply(404), Misconfigured, "404"),
        Row(Reply(400), Refused, "400"),
        Row(Reply(500), Uncertain, "500"),
        Row(Reply(503), Unavailable, "503"),
    ),
    malformed=(
        Unreadable(Reply(200, "not JSON"), Uncertain),
        Unreadable(Reply(200, {}), Uncertain),
        Unreadable(Reply(200, {"errcode": [0]}), Uncertain),
        Unreadable(Reply(200, b"{}", length=99), Uncertain),
    ),
    too_long=(TooLong(much, "content.markdown"),),
)
