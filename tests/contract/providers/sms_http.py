from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    Message,
    Misconfigured,
    OptedOut,
    Refused,
    TextContent,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from tests.contract.conformance import Adapter, Row, TooLong, Unreadable, a_message
from tests.contract.http_peer import HttpPeer, Reply, Seen

KEY = "9f8b7c6d5e4f-gateway-key"
LOGIN = "shop:pass{word}"
NUMBER = "+491701234567"


def answer(code: str | int, *, status: int = 200, **headers: str) -> Reply:
    """An answer of this gateway, whose error may come with 200, and repeats the number."""
    body = {"messages": [{"id": "m-1", "to": NUMBER, "status": code, "error-text": f"{NUMBER} is no good"}]}
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def options(peer: HttpPeer) -> dict[str, Any]:
    return {
        "url": peer.url,
        "path": "/v2/messages",
        "body": {
            "to": "{to}",
            "text": "{text}",
            "reference": "{id}",
            "once": "{key}",
            "api_key": "{api_key}",
        },
        "secrets": {"api_key": KEY},
        "basic_auth": LOGIN,
        "idempotent": True,
        "success": [200, 202],
        "id": "messages.0.id",
        "code": "messages.0.status",
        "success_codes": ["0"],
        "errors": {
            "1": "throttled",
            "2": "try-later",
            "3": "unavailable",
            "4": "misconfigured",
            "5": "uncertain",
            "6": "address-invalid",
            "7": "opted-out",
            "REJECTED": "refused",
        },
        "statuses": {"402": "throttled", "409": "opted-out"},
        "max_text": 400,
        "max_segments": 2,
    }


def message(peer: HttpPeer) -> Message:
    return a_message("sms", NUMBER, TextContent("one-time code 493817"))


def of_text(text: str) -> TooLong:
    return TooLong(lambda peer: replace(message(peer), content=TextContent(text)), "content.text")


def key_of(seen: Seen) -> str:
    return str(json.loads(seen.body)["once"])


def both(code: str | int, error: type[Any]) -> list[Row]:
    """A code means the same with 200 as with 400."""
    return [Row(answer(code, status=status), error, str(code)) for status in (200, 400)]


ADAPTER = Adapter(
    use="sms.http",
    capability=Capability.IDEMPOTENT,
    options=options,
    required=("url", "path", "body"),
    message=message,
    private=(KEY, LOGIN, "493817", NUMBER[1:]),
    takes=answer(0),
    accepted=Accepted("m-1", "200"),
    rows=(
        *both(1, Throttled),
        Row(answer("1", status=429, Retry_After="7"), Throttled, "1", 7),
        *both("2", TryLater),
        *both("3", Unavailable),
        *both(4, Misconfigured),
        *both("5", Uncertain),
        *both(6, AddressInvalid),
        *both("7", OptedOut),
        *both("REJECTED", Refused),
        *both(99, Refused),
        *both(-1, Refused),
        Row(answer(NUMBER[1:], status=400), Refused, "400"),  # so long a code may be a person's number
        Row(answer(0, status=201), Uncertain, "201"),
        Row(Reply(402), Throttled, "402"),
        Row(Reply(409), OptedOut, "409"),
        Row(Reply(400), Refused, "400"),
        Row(Reply(401), Misconfigured, "401"),
        Row(Reply(403), Misconfigured, "403"),
        Row(Reply(404), Misconfigured, "404"),
        Row(Reply(408), TryLater, "408"),
        Row(Reply(413), Refused, "413"),
        Row(Reply(429, headers={"Retry-After": "7"}), Throttled, "429", 7),
        Row(answer("GATEWAY_ERROR", status=500), TryLater, "GATEWAY_ERROR"),
        Row(Reply(503), Unavailable, "503"),
        Row(Reply(503, headers={"Retry-After": "7"}), TryLater, "503", 7),
    ),
    malformed=(
        Unreadable(Reply(200, {"messages": [{"status": 0}]}), Accepted(None, "200 unreadable")),
        Unreadable(Reply(200, {"messages": []}), Uncertain),
        Unreadable(Reply(200, {"messages": [{"status": True}]}), Uncertain),
        Unreadable(Reply(200, "not JSON"), Uncertain),
        Unreadable(Reply(200, b"{}", length=99), Uncertain),
    ),
    too_long=(of_text("x" * 401), of_text("語" * 135), of_text("")),
    key_of=key_of,
)
