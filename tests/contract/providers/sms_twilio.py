from __future__ import annotations

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
    Unroutable,
)
from tests.contract.conformance import Adapter, Row, TooLong, Unreadable, a_message
from tests.contract.http_peer import HttpPeer, Reply

ACCOUNT = "AC0123456789abcdef0123456789abcdef"
SERVICE = "MG0123456789abcdef0123456789abcdef"
TOKEN = "5d41402abc4b2a76b9719d911017c592"
SID = "SM89abcdef0123456789abcdef01234567"
NUMBER = "+491701234567"


def resource(**changes: Any) -> dict[str, Any]:
    """A message as the public REST API answers it."""
    return {
        "account_sid": ACCOUNT,
        "api_version": "2010-04-01",
        "body": "Sent from your Twilio trial account",
        "date_created": "Thu, 24 Aug 2023 05:01:45 +0000",
        "date_sent": None,
        "date_updated": "Thu, 24 Aug 2023 05:01:45 +0000",
        "direction": "outbound-api",
        "error_code": None,
        "error_message": None,
        "from": None,
        "messaging_service_sid": SERVICE,
        "num_media": "0",
        "num_segments": "0",
        "price": None,
        "price_unit": None,
        "sid": SID,
        "status": "accepted",
        "subresource_uris": {"media": f"/2010-04-01/Accounts/{ACCOUNT}/Messages/{SID}/Media.json"},
        "to": NUMBER,
        "uri": f"/2010-04-01/Accounts/{ACCOUNT}/Messages/{SID}.json",
        **changes,
    }


def refusal(status: int, code: int, **headers: str) -> Reply:
    """An error as the public REST API answers it, with the number in its text."""
    body = {
        "code": code,
        "message": f"The 'To' number {NUMBER} is not what it should be.",
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def options(peer: HttpPeer) -> dict[str, Any]:
    return {
        "url": peer.url,
        "account_sid": ACCOUNT,
        "auth_token": TOKEN,
        "messaging_service_sid": SERVICE,
        "validity_period": 600,
        "status_callback": "https://hooks.shop.example/hooks/twilio?tenant=a",
        "max_segments": 12,
    }


def message(peer: HttpPeer) -> Message:
    return a_message("sms", NUMBER, TextContent("one-time code 493817"))


def of_text(text: str) -> TooLong:
    return TooLong(lambda peer: replace(message(peer), content=TextContent(text)), "content.text")


def rows(status: int, error: type[Any], *codes: int) -> list[Row]:
    return [Row(refusal(status, code), error, str(code)) for code in codes]


ADAPTER = Adapter(
    use="sms.twilio",
    capability=Capability.OPAQUE,
    options=options,
    required=("account_sid", "auth_token", "messaging_service_sid"),
    message=message,
    private=(TOKEN, "493817", NUMBER[1:]),
    takes=Reply(201, resource()),
    accepted=Accepted(SID, "201"),
    rows=(
        Row(refusal(429, 20429, Retry_After="7"), Throttled, "20429", 7),
        *rows(429, Throttled, 14107),
        *rows(400, Throttled, 30022, 30023),
        Row(refusal(400, 63038), Throttled, "63038", 3600),
        Row(Reply(429, headers={"Retry-After": "7"}), Throttled, "429", 7),
        *rows(401, Misconfigured, 20003, 20005, 20006),
        *rows(404, Misconfigured, 20404),
        *rows(403, Misconfigured, 20008),
        *rows(400, Misconfigured, 21606, 21659, 21660, 21212, 21603, 30002, 21608),
        *rows(400, Misconfigured, 21701, 21702, 21703, 21704, 21705),
        *rows(400, Unroutable, 21408, 21612, 30032, 30034, 30035),
        *rows(400, AddressInvalid, 21211, 21614, 21635, 21217, 21421, 30005, 30006),
        *rows(400, OptedOut, 21610),
        *rows(400, Refused, 21602, 21617, 21619, 21620, 30004, 30007),
        *rows(400, TryLater, 30001, 30003, 30008, 30009, 30017, 30036),
        *rows(400, Refused, 21999),  # Twilio adds codes
        *rows(403, Misconfigured, 20998),
        Row(refusal(429, 20997, Retry_After="7"), Throttled, "20997", 7),
        Row(Reply(400), Refused, "400"),
        Row(Reply(401), Misconfigured, "401"),
        Row(Reply(403), Misconfigured, "403"),
        Row(Reply(404), Misconfigured, "404"),
        Row(Reply(408), TryLater, "408"),
        Row(Reply(413), Refused, "413"),
        Row(refusal(500, 20500), Uncertain, "20500"),
        Row(Reply(503), Unavailable, "503"),
        Row(Reply(503, headers={"Retry-After": "7"}), TryLater, "503", 7),
        Row(Reply(302), Misconfigured, "302"),
        Row(Reply(400, {"code": [1], "status": 400}), Refused, "400"),
    ),
    malformed=(
        Unreadable(Reply(201, "not JSON"), Accepted(None, "201 unreadable")),
        Unreadable(Reply(201, {}), Accepted(None, "201 unreadable")),
        Unreadable(Reply(201, ["not an object"]), Accepted(None, "201 unreadable")),
        Unreadable(Reply(201, resource(date_created="yesterday")), Accepted(SID, "201")),
        Unreadable(Reply(201, b"{}", length=99), Accepted(None, "201 unreadable")),
    ),
    too_long=(of_text("x" * 1601), of_text("語" * 805), of_text(" ")),
)
