"""Microsoft Teams: a workflow that posts cards (learn.microsoft.com: create incoming webhooks with Workflows).

`POST /workflows/{id}/triggers/manual/paths/invoke?api-version=...&sig=...`: 202, with the run's id in a header, or a
status with `error.code`. The `sig` of the URL is its key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from notify_tasks.sandbox import credentials
from notify_tasks.sandbox.log import OPAQUE, LoggedRequest
from notify_tasks.sandbox.wires._bodies import json_object, one
from notify_tasks.sandbox.wires._rooms import room_of
from notify_tasks.sandbox.wires.wire import DEAD_ADDRESS, WRONG_KEY, Reading, Reply, Request

MAX_BODY: Final = 28 * 1024
"""Bytes of a message to Teams, card and all."""
_CARD: Final = "application/vnd.microsoft.card.adaptive"
_PATH: Final = re.compile(
    r"(?:/powerautomate/automations/direct)?/workflows/([^/]+)/triggers/([^/]+)/paths/invoke"
)


def _error(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"error": {"code": code, "message": message}})


def _mismatch(problem: str) -> Reply:
    trigger = "The input body for trigger 'manual' of type 'Request' did not match its schema definition."
    return _error(400, "TriggerInputSchemaMismatch", f"{trigger} Error details: '{problem}'")


_REFUSALS: Final[Mapping[str, Reply]] = {
    WRONG_KEY: _error(401, "AuthenticationFailed", "The authentication credentials are not valid."),
    DEAD_ADDRESS: _error(404, "WorkflowNotFound", "The workflow could not be found."),
    "switched_off": _error(400, "WorkflowTriggerIsNotEnabled", "The workflow's trigger is not enabled."),
    "400": _mismatch("Required properties are missing from object: attachments."),
    "401": _error(
        401,
        "DirectApiAuthorizationRequired",
        "The URL has no signature (sig).",
    ),
    "404": _error(404, "WorkflowNotFound", "The workflow could not be found."),
    "413": _error(413, "RequestEntityTooLarge", f"A message has at most {MAX_BODY} bytes."),
    "429": _error(429, "WorkflowTriggerRequestsThrottled", "The rate of requests is over the limit."),
    "500": _error(500, "InternalServerError", "Encountered internal server error."),
    "502": _error(502, "NoResponse", "The server did not receive a response from an upstream server."),
    "503": _error(503, "ServiceUnavailable", "The service is not available."),
    "504": _error(504, "GatewayTimeout", "The server did not receive a response in time."),
}


class Teams:
    """One workflow in many rooms."""

    name: Final = "teams"
    channel: Final = "chat"
    kind: Final = OPAQUE
    modes: Final[Mapping[str, str]] = {
        WRONG_KEY: "401: the signature in the URL is wrong",
        DEAD_ADDRESS: "404 WorkflowNotFound: the workflow was removed",
        "switched_off": "400 WorkflowTriggerIsNotEnabled: the workflow is switched off",
    }
    words: Final[Mapping[str, str]] = {"bounce": DEAD_ADDRESS}

    def takes(self, request: Request) -> bool:
        return _PATH.fullmatch(request.path) is not None

    def reading(self, request: Request) -> Reading | Reply:
        refusal = _not_allowed(request) or _unfit(request.body)
        if refusal is not None:
            return refusal
        return Reading(
            to=_room(request) or "",
            delivery_id=request.headers.get("x-ms-client-tracking-id"),
        )

    def accepted(self, request: Request, taken: LoggedRequest) -> Reply:
        tracking = request.headers.get("x-ms-client-tracking-id", taken.id or "")
        return Reply(202, b"", {"x-ms-workflow-run-id": taken.id or "", "x-ms-client-tracking-id": tracking})

    def refused(self, request: Request, mode: str) -> Reply:  # noqa: ARG002 - a no is the same for all
        return _REFUSALS.get(mode) or Reply(int(mode))


def _room(request: Request) -> str | None:
    place = _PATH.fullmatch(request.path)
    return room_of(place[1], credentials.TEAMS_WORKFLOW) if place else None


def _not_allowed(request: Request) -> Reply | None:
    if not one(request, "api-version"):
        return _error(400, "MissingApiVersionParameter", "The query parameter api-version is required.")
    if not one(request, "sig"):
        return _REFUSALS["401"]
    if one(request, "sig") != credentials.TEAMS_SIGNATURE:
        return _REFUSALS[WRONG_KEY]
    return _REFUSALS[DEAD_ADDRESS] if _room(request) is None or request.method != "POST" else None


def _unfit(body: bytes) -> Reply | None:
    if len(body) > MAX_BODY:
        return _REFUSALS["413"]
    message = json_object(body)
    if message is None:
        return _error(400, "InvalidRequestContent", "The request content is not valid JSON.")
    cards = message.get("attachments")
    if not isinstance(cards, list) or not cards:
        return _REFUSALS["400"]
    return None if all(_is_card(each) for each in cards) else _mismatch("An attachment is no adaptive card.")


def _is_card(attachment: Any) -> bool:
    if not isinstance(attachment, dict) or attachment.get("contentType") != _CARD:
        return False
    card = attachment.get("content")
    return (
        isinstance(card, dict) and card.get("type") == "AdaptiveCard" and isinstance(card.get("body"), list)
    )


WIRE: Final = Teams()
