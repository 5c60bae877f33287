"""DingTalk: a group's custom robot (open.dingtalk.com: custom robots, security settings, error codes).

`POST /robot/send?access_token=...&timestamp=...&sign=...`, timestamp in milliseconds. DingTalk answers 200 whatever
happens, and says in `errcode` what did.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from notify_tasks.sandbox import credentials
from notify_tasks.sandbox.log import OPAQUE, LoggedRequest
from notify_tasks.sandbox.wires._bodies import json_object, one
from notify_tasks.sandbox.wires._rooms import is_signed, keyword_of, room_of
from notify_tasks.sandbox.wires.wire import DEAD_ADDRESS, WRONG_KEY, Reading, Reply, Request

MAX_BODY: Final = 20_000
"""Bytes of a request."""
_HOUR: Final = 3600
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("content",),
    "markdown": ("title", "text"),
    "link": ("title", "text", "messageUrl"),
    "actionCard": ("title", "text"),
    "feedCard": ("links",),
}
"""What each type of message must have."""


def _says(code: int, words: str) -> Reply:
    return Reply(200, {"errcode": code, "errmsg": words}, invalid=code != 0)


_UNKNOWN: Final = _says(300001, "token is not exist")
_REFUSALS: Final[Mapping[str, Reply]] = {
    WRONG_KEY: _UNKNOWN,
    DEAD_ADDRESS: _says(400013, "the group is dissolved"),
    "throttled": _says(130101, "send too fast, exceed 20 times per minute"),
    "310000": _says(310000, "sign not match"),
    "400102": _says(400102, "the robot is disabled"),
    "430104": _says(430104, "the message has improper content"),
    "busy": _says(-1, "system error"),
}


class DingTalk:
    """One robot in many rooms."""

    name: Final = "dingtalk"
    channel: Final = "chat"
    kind: Final = OPAQUE
    modes: Final[Mapping[str, str]] = {
        WRONG_KEY: "errcode 300001: knows no such robot",
        DEAD_ADDRESS: "errcode 400013: the group is dissolved",
        "throttled": "errcode 130101: more than 20 posts a minute",
        "310000": "the robot's security settings refuse the post",
        "400102": "the robot is switched off",
        "430104": "words that DingTalk lets nobody post",
        "busy": "errcode -1",
    }
    words: Final[Mapping[str, str]] = {
        "bounce": DEAD_ADDRESS,
        "throttle": "throttled",
        "reject": "430104",
        "flaky": "busy",
    }

    def takes(self, request: Request) -> bool:
        return request.path == "/robot/send"

    def reading(self, request: Request) -> Reading | Reply:
        room = room_of(one(request, "access_token"), credentials.DINGTALK_TOKEN)
        if room is None:
            return _UNKNOWN
        post = json_object(request.body)
        if request.method != "POST" or post is None:
            return _says(40035, "missing parameter: json")
        problem = _unfit(post, len(request.body)) or _insecure(request, room)
        return problem or Reading(to=room)

    def accepted(self, request: Request, taken: LoggedRequest) -> Reply:  # noqa: ARG002 - it gives no ids
        return _says(0, "ok")

    def refused(self, request: Request, mode: str) -> Reply:  # noqa: ARG002 - a no is the same for all
        return _REFUSALS.get(mode) or Reply(int(mode))


def _unfit(post: Mapping[str, Any], size: int) -> Reply | None:
    kind = str(post.get("msgtype"))
    if kind not in _FIELDS:
        return _says(400105, "unsupported msgtype")
    part = post.get(kind)
    missing = [name for name in _FIELDS[kind] if not isinstance(part, dict) or not part.get(name)]
    if missing:
        return _says(40035, f"missing parameter: {kind}.{missing[0]}")
    return _says(460101, "message too long, exceed 20000 bytes") if size > MAX_BODY else None


def _insecure(request: Request, room: str) -> Reply | None:
    """What the robot's security settings have against a request."""
    keyword = keyword_of(room)
    if keyword is not None:
        there = keyword in request.body.decode("utf-8", "replace")
        return None if there else _says(310000, "keywords not in content")
    timestamp = one(request, "timestamp")
    timely = timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 16  # noqa: PLR2004 - milliseconds
    if not timely or abs(time.time() - int(timestamp) / 1000) > _HOUR:
        return _says(310000, "invalid timestamp")
    secret = credentials.DINGTALK_SECRET
    signed = is_signed(one(request, "sign"), secret, f"{timestamp}\n{secret}")
    return None if signed else _says(310000, "sign not match")


WIRE: Final = DingTalk()
