from __future__ import annotations

from dataclasses import replace
from typing import Any

from channels.contract import (
    Accepted,
    Capability,
    ChatContent,
    Message,
    Misconfigured,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from tests.contract.conformance import Adapter, Row, TooLong, a_message
from tests.contract.http_peer import HttpPeer, Reply

SIGNATURE = "Zr8kqJ3wPz5N7tQf2Hc9"


def options(peer: HttpPeer) -> dict[str, Any]:
    path = "/powerautomate/automations/direct/workflows/6f2c/triggers/manual/paths/invoke"
    return {"rooms": {"ops-room": f"{peer.url}{path}?api-version=1&sig={SIGNATURE}"}}


def message(peer: HttpPeer) -> Message:
    return a_message("chat", "ops-room", ChatContent("Order **493817** is on its way"))


def much(peer: HttpPeer) -> Message:
    return replace(message(peer), content=ChatContent("é" * 14 * 1024))


def error(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": "The workflow of 493817 did not take it."}}


ADAPTER = Adapter(
    use="chat.teams",
    capability=Capability.OPAQUE,
    options=options,
    required=("rooms",),
    message=message,
    private=(SIGNATURE, "493817"),
    takes=Reply(202, headers={"x-ms-workflow-run-id": "08584671-run"}),
    accepted=Accepted("08584671-run", "202"),
    rows=(
        Row(Reply(429, headers={"Retry-After": "7"}), Throttled, "429", 7),
        Row(
            Reply(401, error("DirectApiAuthorizationRequired")),
            Misconfigured,
            "DirectApiAuthorizationRequired",
        ),
        Row(Reply(400, error("WorkflowTriggerIsNotEnabled")), Misconfigured, "WorkflowTriggerIsNotEnabled"),
        Row(Reply(404, error("WorkflowNotFound")), Misconfigured, "WorkflowNotFound"),
        Row(Reply(400, error("TriggerInputSchemaMismatch")), Misconfigured, "TriggerInputSchemaMismatch"),
        Row(Reply(401), Misconfigured, "401"),
        Row(Reply(403), Misconfigured, "403"),
        Row(Reply(404, error("SomethingElse")), Misconfigured, "404"),
        Row(Reply(410), Misconfigured, "410"),
        Row(Reply(400, {"error": "not an object"}), Refused, "400"),
        Row(Reply(409), Refused, "409"),
        Row(Reply(413), Refused, "413"),
        Row(Reply(408), TryLater, "408"),
        Row(Reply(500), Uncertain, "500"),
        Row(Reply(502), Uncertain, "502"),
        Row(Reply(503), Unavailable, "503"),
        Row(Reply(503, headers={"Retry-After": "7"}), TryLater, "503", 7),
        Row(Reply(504), Uncertain, "504"),
    ),
    malformed=(),  # an acceptance has nothing to read
    too_long=(TooLong(much, "content.markdown"),),
)
