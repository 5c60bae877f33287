"""Slack: incoming webhooks, and `chat.postMessage` (docs.slack.dev has a page of each).

* `POST /services/TSANDBOX/BSANDBOX/{token}`, the body in JSON or as `payload=` of a form: `ok` in plain text, or the
  error's word with a status.
* `POST /api/chat.postMessage` with a bot's token: 200 with `"ok": true`, or with `"ok": false` and the error's word;
  429 where there are too many.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from notify_tasks.sandbox import credentials
from notify_tasks.sandbox.log import OPAQUE, LoggedRequest
from notify_tasks.sandbox.wires._bodies import json_object, plain
from notify_tasks.sandbox.wires._rooms import room_of
from notify_tasks.sandbox.wires.wire import DEAD_ADDRESS, WRONG_KEY, Reading, Reply, Request

_API: Final = "/api/chat.postMessage"
_HOOKS: Final = "/services/"
_TEAM: Final = credentials.SLACK_HOOK_PATH.split("/")[2]
_APP, _TOKEN = credentials.SLACK_HOOK_PATH.rsplit("/", 1)
_STATUSES: Final[Mapping[str, int]] = {
    "invalid_payload": 400,
    "no_text": 400,
    "action_prohibited": 403,
    "invalid_token": 403,
    "channel_not_found": 404,
    "no_service": 404,
    "no_team": 404,
    "channel_is_archived": 410,
    "rate_limited": 429,
    "rollup_error": 500,
}
"""What a hook says, and with which status."""
_OF_STATUS: Final[Mapping[str, str]] = {
    "400": "invalid_payload",
    "403": "invalid_token",
    "404": "no_service",
    "410": "channel_is_archived",
    "429": "rate_limited",
    "500": "rollup_error",
    DEAD_ADDRESS: "channel_is_archived",
    WRONG_KEY: "no_service",
}
_API_ERRORS: Final[Mapping[str, str]] = {
    "400": "invalid_arguments",
    DEAD_ADDRESS: "channel_not_found",
    WRONG_KEY: "invalid_auth",
}


def _hook_says(word: str) -> Reply:
    return plain(_STATUSES.get(word, 400), word)


def _api_says(error: str, status: int = 200) -> Reply:
    return Reply(status, {"ok": False, "error": error}, invalid=True)


class Slack:
    """One workspace with one app."""

    name: Final = "slack"
    channel: Final = "chat"
    kind: Final = OPAQUE
    modes: Final[Mapping[str, str]] = {
        WRONG_KEY: "knows the hook no more (no_service), or not the token (invalid_auth)",
        DEAD_ADDRESS: "the channel is archived or gone",
        "not_in_channel": "the app was not invited into the channel",
        "action_prohibited": "an administrator forbids it",
    }
    words: Final[Mapping[str, str]] = {"bounce": DEAD_ADDRESS}

    def takes(self, request: Request) -> bool:
        return request.path.startswith(_HOOKS) or request.path == _API

    def reading(self, request: Request) -> Reading | Reply:
        return _read_call(request) if request.path == _API else _read_hook(request)

    def accepted(self, request: Request, taken: LoggedRequest) -> Reply:
        if request.path != _API:
            return plain(200, "ok", {"x-slack-req-id": taken.id or ""})
        post = _posted(request) or {}
        stamp = f"{int(taken.at.timestamp())}.{taken.n % 1_000_000:06d}"
        message = {"type": "message", "text": post.get("text", ""), "ts": stamp}
        return Reply(200, {"ok": True, "channel": post.get("channel"), "ts": stamp, "message": message})

    def refused(self, request: Request, mode: str) -> Reply:
        if request.path != _API:
            word = _OF_STATUS.get(mode, mode)
            return plain(int(mode), "") if word.isdecimal() else _hook_says(word)
        if mode == "429":
            return _api_says("ratelimited", 429)
        error = _API_ERRORS.get(mode, mode)
        return Reply(int(error)) if error.isdecimal() else _api_says(error)


# --- incoming webhooks --------------------------------------------------------------------------------------


def _read_hook(request: Request) -> Reading | Reply:
    app, _, token = request.path.rpartition("/")
    room = room_of(token, _TOKEN)
    if app != _APP or room is None:
        return _hook_says("no_service" if f"/{_TEAM}/" in request.path else "no_team")
    post = _posted(request)
    if request.method != "POST" or post is None:
        return _hook_says("invalid_payload")
    return Reading(to=room) if _says_something(post) else _hook_says("no_text")


# --- chat.postMessage ---------------------------------------------------------------------------------------


def _read_call(request: Request) -> Reading | Reply:
    post = _posted(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token if scheme.lower() == "bearer" else str((post or {}).get("token", ""))
    problem = _call_problem(post, token)
    if problem or post is None:
        return _api_says(problem)
    return Reading(to=str(post["channel"]).removeprefix("#"), delivery_id=_delivery_id(post))


def _call_problem(post: Mapping[str, Any] | None, token: str) -> str:
    if not token:
        return "not_authed"
    if token != credentials.SLACK_TOKEN:
        return "invalid_auth"
    if post is None:
        return "invalid_json"
    if not isinstance(post.get("channel"), str) or not post["channel"]:
        return "channel_not_found"
    return "" if _says_something(post) else "no_text"


def _delivery_id(post: Mapping[str, Any]) -> str | None:
    """Ours, in the metadata that an app may add to its posts."""
    metadata = post.get("metadata")
    payload = metadata.get("event_payload") if isinstance(metadata, dict) else None
    found = payload.get("delivery_id") if isinstance(payload, dict) else None
    return found if isinstance(found, str) else None


# --- both -----------------------------------------------------------------------------------------------------


def _posted(request: Request) -> dict[str, Any] | None:
    """The post in a body, which may be JSON or a form."""
    if "x-www-form-urlencoded" not in request.headers.get("content-type", ""):
        return json_object(request.body)
    form = {name: values[0] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
    return json_object(form["payload"].encode()) if "payload" in form else dict(form)


def _says_something(post: Mapping[str, Any]) -> bool:
    return any(post.get(part) for part in ("text", "blocks", "attachments"))


WIRE: Final = Slack()
