"""Feishu and Lark: a group's custom robot (open.feishu.cn: custom bot usage guide).

`POST /open-apis/bot/v2/hook/{token}`, signed by `timestamp` (seconds) and `sign` in the body. Feishu says in `code`
what happened, with 200 as a rule.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from notify_tasks.sandbox import credentials
from notify_tasks.sandbox.log import OPAQUE, LoggedRequest
from notify_tasks.sandbox.wires._bodies import json_object
from notify_tasks.sandbox.wires._rooms import is_signed, keyword_of, room_of
from notify_tasks.sandbox.wires.wire import DEAD_ADDRESS, WRONG_KEY, Reading, Reply, Request

MAX_BODY: Final = 20 * 1024
"""Bytes of a request."""
_HOUR: Final = 3600
_HOOK: Final = "/open-apis/bot/v2/hook/"
_FIELDS: Final[Mapping[str, str]] = {
    "text": "text",
    "post": "post",
    "image": "image_key",
    "share_chat": "share_chat_id",
}
"""What the content of each type must have; a card stands beside it."""


def _says(code: int, words: str, status: int = 200) -> Reply:
    return Reply(status, {"code": code, "msg": words, "data": {}}, invalid=True)


_UNREADABLE: Final = _says(9499, "Bad Request")
_NO_SIGN: Final = _says(19021, "sign match fail, or the timestamp is an hour off")
_UNKNOWN: Final = _says(19001, "incoming webhook access token invalid")
_REFUSALS: Final[Mapping[str, Reply]] = {
    WRONG_KEY: _UNKNOWN,
    DEAD_ADDRESS: _UNKNOWN,
    "throttled": _says(11232, "frequency limited"),
    "9499": _UNREADABLE,
    "19021": _NO_SIGN,
    "19022": _says(19022, "Ip Not Allowed"),
    "19024": _says(19024, "Key Words Not Found"),
    "429": _says(99991400, "request trigger frequency limit", 429),
}


class Feishu:
    """One robot in many rooms."""

    name: Final = "feishu"
    channel: Final = "chat"
    kind: Final = OPAQUE
    modes: Final[Mapping[str, str]] = {
        WRONG_KEY: "code 19001: knows no such robot",
        DEAD_ADDRESS: "code 19001: the robot went with its group",
        "throttled": "code 11232: more than 100 posts a minute, or 5 a second",
        "9499": "a post that it cannot read",
        "19021": "the signature or the clock is wrong",
        "19022": "an IP address that it does not know",
        "19024": "none of the robot's keywords",
    }
    words: Final[Mapping[str, str]] = {"bounce": DEAD_ADDRESS, "throttle": "throttled", "reject": "9499"}

    def takes(self, request: Request) -> bool:
        return request.path.startswith(_HOOK)

    def reading(self, request: Request) -> Reading | Reply:
        room = room_of(request.path.removeprefix(_HOOK).rstrip("/"), credentials.FEISHU_TOKEN)
        if room is None:
            return _UNKNOWN
        post = json_object(request.body)
        if request.method != "POST" or post is None or len(request.body) > MAX_BODY or not _is_post(post):
            return _UNREADABLE
        return _insecure(post, room, request.body) or Reading(to=room)

    def accepted(self, request: Request, taken: LoggedRequest) -> Reply:  # noqa: ARG002 - a yes is the same for all
        body = {"StatusCode": 0, "StatusMessage": "success", "code": 0, "data": {}, "msg": "success"}
        return Reply(200, body, {"X-Tt-Logid": taken.id or ""})

    def refused(self, request: Request, mode: str) -> Reply:  # noqa: ARG002 - a no is the same for all
        return _REFUSALS.get(mode) or Reply(int(mode))


def _is_post(post: Mapping[str, Any]) -> bool:
    kind, content = str(post.get("msg_type")), post.get("content")
    if kind == "interactive":
        return bool(post.get("card"))
    return kind in _FIELDS and isinstance(content, dict) and bool(content.get(_FIELDS[kind]))


def _insecure(post: Mapping[str, Any], room: str, body: bytes) -> Reply | None:
    """What the robot's security settings have against a post."""
    keyword = keyword_of(room)
    if keyword is not None:
        return None if keyword in body.decode("utf-8", "replace") else _REFUSALS["19024"]
    timestamp = str(post.get("timestamp", ""))
    timely = timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 13  # noqa: PLR2004 - seconds
    if not timely or abs(time.time() - int(timestamp)) > _HOUR:
        return _NO_SIGN
    # The key is the timestamp with the secret, and nothing is signed with it: so Feishu has it.
    key = f"{timestamp}\n{credentials.FEISHU_SECRET}"
    return None if is_signed(str(post.get("sign", "")), key, "") else _NO_SIGN


WIRE: Final = Feishu()
