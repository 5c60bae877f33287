"""WeCom (Enterprise WeChat): a group's robot (developer.work.weixin.qq.com: group robots, global error codes).

`POST /cgi-bin/webhook/send?key=...`. WeCom answers 200 whatever happens, and says in `errcode` what did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from notify_tasks.sandbox import credentials
from notify_tasks.sandbox.log import OPAQUE, LoggedRequest
from notify_tasks.sandbox.wires._bodies import json_object, one
from notify_tasks.sandbox.wires._rooms import room_of
from notify_tasks.sandbox.wires.wire import DEAD_ADDRESS, WRONG_KEY, Reading, Reply, Request

_LONGEST: Final[Mapping[str, int]] = {"text": 2048, "markdown": 4096, "markdown_v2": 4096}
"""Bytes of the content of each type that has one."""
_OTHERS: Final = frozenset(("image", "news", "file", "voice", "template_card"))


def _says(code: int, words: str) -> Reply:
    return Reply(200, {"errcode": code, "errmsg": words}, invalid=code != 0)


_UNKNOWN: Final = _says(93000, "invalid webhook url")
_REFUSALS: Final[Mapping[str, Reply]] = {
    WRONG_KEY: _UNKNOWN,
    DEAD_ADDRESS: _says(93008, "the robot is in no group"),
    "throttled": _says(45009, "api freq out of limit"),
    "40058": _says(40058, "invalid Request Parameter"),
    "93004": _says(93004, "the robot is disabled"),
    "busy": _says(-1, "system busy"),
}


class WeCom:
    """One robot in many rooms."""

    name: Final = "wecom"
    channel: Final = "chat"
    kind: Final = OPAQUE
    modes: Final[Mapping[str, str]] = {
        WRONG_KEY: "errcode 93000: knows no such URL",
        DEAD_ADDRESS: "errcode 93008: the robot is in no group",
        "throttled": "errcode 45009: more than 20 posts a minute",
        "40058": "a post that it cannot read",
        "93004": "the robot is switched off",
        "busy": "errcode -1",
    }
    words: Final[Mapping[str, str]] = {
        "bounce": DEAD_ADDRESS,
        "throttle": "throttled",
        "reject": "40058",
        "flaky": "busy",
    }

    def takes(self, request: Request) -> bool:
        return request.path == "/cgi-bin/webhook/send"

    def reading(self, request: Request) -> Reading | Reply:
        room = room_of(one(request, "key"), credentials.WECOM_KEY)
        if room is None:
            return _UNKNOWN
        post = json_object(request.body)
        if request.method != "POST" or post is None:
            return _says(47001, "data format error")
        return _unfit(post) or Reading(to=room)

    def accepted(self, request: Request, taken: LoggedRequest) -> Reply:  # noqa: ARG002 - it gives no ids
        return _says(0, "ok")

    def refused(self, request: Request, mode: str) -> Reply:  # noqa: ARG002 - a no is the same for all
        return _REFUSALS.get(mode) or Reply(int(mode))


def _unfit(post: Mapping[str, Any]) -> Reply | None:
    kind = str(post.get("msgtype"))
    if kind in _OTHERS:
        return None if isinstance(post.get(kind), dict) else _REFUSALS["40058"]
    if kind not in _LONGEST:
        return _says(40008, "invalid message type")
    part = post.get(kind)
    content = part.get("content") if isinstance(part, dict) else None
    if not isinstance(content, str) or not content:
        return _says(44004, "empty content")
    return None if len(content.encode()) <= _LONGEST[kind] else _says(45002, "content size out of limit")


WIRE: Final = WeCom()
