from __future__ import annotations

from dataclasses import replace

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

TOKEN = "xoxb-17653672481-bZ8RXcwCGqXDF5LKQg"


def options(peer: HttpPeer) -> dict[str, str]:
    return {"token": TOKEN, "url": peer.url}


def message(peer: HttpPeer) -> Message:
    return a_message("chat", "C0123ABCDEF", ChatContent("Order **493817** is on its way"))


def much(peer: HttpPeer) -> Message:
    return replace(message(peer), content=ChatContent("x" * 40_001))


def says(error: str, outcome: type[ChannelError]) -> Row:
    return Row(Reply(200, {"ok": False, "error": error}), outcome, error)


ADAPTER = Adapter(
    use="chat.slack",
    capability=Capability.OPAQUE,
    options=options,
    required=("token",),
    message=message,
    private=(TOKEN, "493817"),
    takes=Reply(200, {"ok": True, "channel": "C0123ABCDEF", "ts": "1503435956.000247"}),
    accepted=Accepted("1503435956.000247", "ok"),
    rows=(
        Row(
            Reply(429, {"ok": False, "error": "ratelimited"}, {"Retry-After": "30"}),
            Throttled,
            "ratelimited",
            30,
        ),
        Row(Reply(429, headers={"Retry-After": "7"}), Throttled, "429", 7),
        says("rate_limited", Throttled),
        says("message_limit_exceeded", Throttled),
        *(
            says(error, Misconfigured)
            for error in (
                *("invalid_auth", "not_authed", "account_inactive", "token_expired", "token_revoked"),
                *("not_allowed_token_type", "two_factor_setup_required"),
                *("missing_scope", "no_permission", "access_denied", "ekm_access_denied"),
                *("team_access_not_granted", "enterprise_is_restricted", "org_login_required"),
                *("deprecated_endpoint", "method_deprecated"),
            )
        ),
        *(
            says(error, AddressInvalid)
            for error in (
                *("channel_not_found", "is_archived", "user_not_found", "user_disabled", "cannot_dm_bot"),
            )
        ),
        *(
            says(error, Refused)
            for error in (
                *("not_in_channel", "restricted_action", "messages_tab_disabled"),
                *("restricted_action_read_only_channel", "restricted_action_thread_only_channel"),
                *("msg_too_long", "no_text", "invalid_arguments", "invalid_json", "an_error_that_is_new"),
            )
        ),
        says("request_timeout", TryLater),
        says("team_added_to_org", TryLater),
        says("service_unavailable", Unavailable),
        says("accesslimited", Unavailable),
        says("fatal_error", Uncertain),
        says("internal_error", Uncertain),
        Row(Reply(401), Misconfigured, "401"),
        Row(Reply(403), Misconfigured, "403"),
        Row(Reply(404), Misconfigured, "404"),
        Row(Reply(413), Refused, "413"),
        Row(Reply(500), Uncertain, "500"),
        Row(Reply(503), Unavailable, "503"),
        Row(Reply(503, headers={"Retry-After": "7"}), TryLater, "503", 7),
    ),
    malformed=(
        Unreadable(Reply(200, "not JSON"), Uncertain),
        Unreadable(Reply(200, {}), Uncertain),
        Unreadable(Reply(200, {"ok": False}), Uncertain),
        Unreadable(Reply(200, {"ok": False, "error": "493817 says: <b>no</b>"}), Uncertain),
        Unreadable(Reply(200, {"ok": True}), Accepted(None, "ok")),
    ),
    too_long=(TooLong(much, "content.markdown"),),
)
