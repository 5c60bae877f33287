from __future__ import annotations

from dataclasses import replace
from typing import Any

from channels.contract import (
    Accepted,
    AddressInvalid,
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

TOKEN = "3f9b1c77d0e84a6f"
SECRET = "SEC5d1f8b90c2e7"


def options(peer: HttpPeer) -> dict[str, Any]:
    return {"rooms": {"ops-room": {"url": f"{peer.url}/robot/send?access_token={TOKEN}", "secret": SECRET}}}


def message(peer: HttpPeer) -> Message:
    return a_message("chat", "ops-room", ChatContent("Order **493817** is on its way"))


def accepted(message: Message) -> Accepted:
    return Accepted(message.idempotency_key, "0")


def much(peer: HttpPeer) -> Message:
    return replace(message(peer), content=ChatContent("单" * 6700))


def says(code: int, outcome: type[ChannelError]) -> Row:
    return Row(Reply(200, {"errcode": code, "errmsg": "about order 493817"}), outcome, str(code))


ADAPTER = Adapter(
    use="chat.dingtalk",
    capability=Capability.OPAQUE,
    options=options,
    required=("rooms",),
    message=message,
    private=(TOKEN, SECRET, "493817"),
    takes=Reply(200, {"errcode": 0, "errmsg": "ok"}),
    accepted_for=accepted,
    rows=(
        *(says(code, Throttled) for code in (130101, 90018, 90030, 410100)),
        *(says(code, Misconfigured) for code in (310000, 300001, 40035, 400101, 400102, 400106)),
        says(400013, AddressInvalid),
        *(says(code, Refused) for code in (460101, 430101, 430102, 430103, 430104, 123456)),
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
        Unreadable(Reply(200, {"errcode": False}), Uncertain),
        Unreadable(Reply(200, {"errcode": "order 493817"}), Uncertain),
        Unreadable(Reply(200, b"{}", length=99), Uncertain),
    ),
    too_long=(TooLong(much, "content.markdown"),),
)
