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
    Unavailable,
    Uncertain,
)
from tests.contract.conformance import Adapter, Row, TooLong, Unreadable, a_message
from tests.contract.http_peer import HttpPeer, Reply

TOKEN = "9a41c2de-77b0-4f2e"
SECRET = "kT2vQx81LmZr"


def options(peer: HttpPeer) -> dict[str, Any]:
    url = f"{peer.url}/open-apis/bot/v2/hook/{TOKEN}"
    return {"rooms": {"ops-room": {"url": url, "secret": SECRET}}}


def message(peer: HttpPeer) -> Message:
    return a_message("chat", "ops-room", ChatContent("Order **493817** is on its way"))


def much(peer: HttpPeer) -> Message:
    return replace(message(peer), content=ChatContent("单" * 6900))


def says(code: int, outcome: type[ChannelError], words: str = "about order 493817", status: int = 200) -> Row:
    return Row(Reply(status, {"code": code, "msg": words, "data": {}}), outcome, str(code))


ADAPTER = Adapter(
    use="chat.feishu",
    capability=Capability.OPAQUE,
    options=options,
    required=("rooms",),
    message=message,
    private=(TOKEN, SECRET, "493817"),
    takes=Reply(
        200,
        {"StatusCode": 0, "StatusMessage": "success", "code": 0, "data": {}, "msg": "success"},
        {"X-Tt-Logid": "20261123A1"},
    ),
    accepted=Accepted("20261123A1", "0"),
    rows=(
        says(11232, Throttled, "frequency limited"),
        says(9499, Throttled, "Too Many Request"),
        says(9499, Refused, "Bad Request"),
        says(9499, Refused, "Bad Request", status=400),
        Row(
            Reply(429, {"code": 99991400, "msg": "request trigger frequency limit"}, {"Retry-After": "52"}),
            Throttled,
            "99991400",
            52,
        ),
        *(says(code, Misconfigured) for code in (19001, 19021, 19022, 19024)),
        says(19001, Misconfigured, "param invalid: incoming webhook access token invalid", status=400),
        says(123456, Refused),
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
        Unreadable(Reply(200, {"code": None}), Uncertain),
        Unreadable(Reply(200, b"{}", length=99), Uncertain),
    ),
    too_long=(TooLong(much, "content.markdown"),),
)
