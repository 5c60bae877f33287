from __future__ import annotations

from dataclasses import replace
from typing import Any

from channels.contract import (
    Accepted,
    AddressInvalid,
    Attachment,
    Capability,
    EmailContent,
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

KEY = "SG.3b8e17.k-5521"


def options(peer: HttpPeer) -> dict[str, Any]:
    return {"url": peer.url, "api_key": KEY, "sender": "Shop <hello@shop.example>"}


def message(peer: HttpPeer) -> Message:
    content = EmailContent("Your code", "It is 493817.", "<p>It is 493817.</p>")
    return a_message("email", "zoe@customer.example", content)


def much(peer: HttpPeer) -> Message:
    film = Attachment("film.mp4", "video/mp4", bytes(23_000_000))
    return replace(message(peer), content=EmailContent("Your film", "Here it is.", None, (film,)))


def errors(field: str | None, text: str = "no") -> dict[str, Any]:
    return {"errors": [{"message": text, "field": field, "help": None}]}


ADDRESS = "Does not contain a valid address."

ADAPTER = Adapter(
    use="email.sendgrid",
    capability=Capability.OPAQUE,
    options=options,
    required=("api_key", "sender"),
    message=message,
    private=(KEY, "493817"),
    takes=Reply(202, headers={"X-Message-Id": "14c5d75ce93.dfd.64b469"}),
    accepted=Accepted("14c5d75ce93.dfd.64b469", "202"),
    rows=(
        Row(Reply(400, errors("personalizations.0.to.0.email", ADDRESS)), AddressInvalid, "400"),
        Row(Reply(400, errors("personalizations.0.to")), AddressInvalid, "400"),
        Row(Reply(400, errors(None, ADDRESS)), AddressInvalid, "400"),
        Row(Reply(400, errors("from.email", ADDRESS)), Misconfigured, "400"),
        Row(Reply(400, errors("reply_to.email", ADDRESS)), Misconfigured, "400"),
        Row(Reply(400, errors("personalizations.0.custom_args")), Refused, "400"),
        Row(Reply(400, errors("content.0.value", ADDRESS)), Refused, "400"),
        Row(Reply(400, {"errors": ["odd"]}), Refused, "400"),
        Row(Reply(400), Refused, "400"),
        Row(Reply(401, errors(None, "Maximum credits exceeded")), Misconfigured, "401"),
        Row(Reply(403, errors("from", "not a verified Sender Identity")), Misconfigured, "403"),
        Row(Reply(404), Misconfigured, "404"),
        Row(Reply(405), Misconfigured, "405"),
        Row(Reply(413), Refused, "413"),
        Row(Reply(415), Misconfigured, "415"),
        Row(Reply(429, headers={"Retry-After": "7"}), Throttled, "429", 7),
        Row(Reply(429, headers={"X-RateLimit-Reset": "1"}), Throttled, "429", 0),
        Row(Reply(429, headers={"X-RateLimit-Reset": "99999999999"}), Throttled, "429", 24 * 3600),
        Row(Reply(429, headers={"X-RateLimit-Reset": "soon"}), Throttled, "429"),
        Row(Reply(500), Uncertain, "500"),
        Row(Reply(503), Unavailable, "503"),
        Row(Reply(503, headers={"Retry-After": "7"}), TryLater, "503", 7),
    ),
    malformed=(
        Unreadable(Reply(202), Accepted(None, "202")),
        Unreadable(Reply(202, headers={"X-Message-Id": "two words"}), Accepted(None, "202")),
        Unreadable(Reply(202, b"{}", length=99), Accepted(None, "202")),
    ),
    too_long=(TooLong(much, "content.attachments"),),
)
