"""`chat.feishu`: a post by a group's custom robot, in Feishu or in Lark.

An address is the name of a room, and each room has the URL of its group's robot; a robot that checks signatures has a
secret too: `rooms.ops = { url = "env:OPS_URL", secret = "env:OPS_SECRET" }`. Lark's robots differ in the URL alone.

Feishu says in `code` what happened, with 200 as a rule:

| code | outcome |
|---|---|
| 0 | Accepted; the id is that of the request |
| 11232, 99991400; 9499 where `msg` speaks of too many requests (5 a second and 100 a minute for a robot) | Throttled |
| 19001: the robot is gone; 19021: signature, clock; 19022: IP address; 19024: no keyword of its own | Misconfigured |
| 9499: a request that it cannot read; any other | Refused |
| no code that can be read | Uncertain |

The statuses are those of `channels.http`. A robot's hook has no idempotency key. A robot that refuses us stops the
whole provider, until its room is mended or taken out: give rooms of other owners a provider of their own.

The post is a tree of texts and links, in which Feishu looks for no markup: a value mentions nobody and links nowhere.
The request has at most 20 KiB. (open.feishu.cn: custom bot usage guide.)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from channels.chat._markdown import Line, Run, lines_of, too_long
from channels.chat._rooms import ROOM_OPTIONS, Hook, Rooms, accepted, coded_failure
from channels.contract import (
    Accepted,
    Capability,
    ChannelError,
    Deadline,
    Message,
    Misconfigured,
    Refused,
    Throttled,
)
from channels.http import Answer, Meaning, Options, to_json

_SLOWER: Final[Meaning] = (
    Throttled,
    "the robot posts too fast; a rate of 100/min and room keeps it from that",
)
CODES: Final[Mapping[str, Meaning]] = {
    "11232": _SLOWER,
    "99991400": _SLOWER,
    "19001": (Misconfigured, "Feishu does not know the robot; copy its URL again"),
    "19021": (Misconfigured, "the robot refuses the signature; compare its secret, and our clock"),
    "19022": (Misconfigured, "the robot refuses our IP address; add it to its list"),
    "19024": (
        Misconfigured,
        "the post has none of the robot's keywords; put one into the template, or drop them",
    ),
    "9499": (Refused, "Feishu cannot read the post; mend the template, or update this fleet"),
}
_TOO_MANY: Final = {**CODES, "9499": _SLOWER}

MAX_BODY: Final = 20 * 1024
"""Bytes of a request."""
_HOOK: Final = Hook("chat.feishu", "Feishu", "/bot/v2/hook/", signed=True)


def build(name: str, options: Mapping[str, Any]) -> Feishu:
    """Build the provider.

    Args:
        name: its name in the configuration.
        options: `rooms`, required: names, and the URLs of their robots, or tables of `url` and `secret`;
            `connections`, `ca_file`, `proxy`.

    Raises:
        Misconfigured: an option is missing, wrong or unknown.
    """
    given = Options("chat.feishu", name, options, ROOM_OPTIONS)
    return Feishu(name, Rooms.read(given, name, options, _HOOK))


class Feishu:
    """Posts to Feishu or Lark. Made by `build`.

    Args:
        name: of the provider in the configuration.
        rooms: where to.
    """

    capability = Capability.OPAQUE

    def __init__(self, name: str, rooms: Rooms) -> None:
        self._name = name
        self._rooms = rooms

    def __repr__(self) -> str:
        return f"<chat.feishu {self._name!r}>"

    def reaches(self, address: str) -> bool:
        """Whether it has a room of this name."""
        return self._rooms.reaches(address)

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one post over. See `Provider.send`; the module has the table."""
        rows = [_row(line) for line in lines_of(message)]
        # One language is enough: it is shown to readers of any.
        post: dict[str, Any] = {"msg_type": "post", "content": {"post": {"zh_cn": {"content": rows}}}}
        room = self._rooms.find(message.address)
        if room.secret is not None:
            post |= signature(room.secret.reveal(), int(time.time()))
        body = to_json(post)
        if len(body) > MAX_BODY:
            raise too_long(len(body), MAX_BODY, "bytes", "Feishu")
        answer = room.post(body, deadline)
        failure = _failure(answer)
        if failure is not None:
            raise failure
        return accepted(answer, "0", message, "x-tt-logid")

    def close(self) -> None:
        """Close the pooled connections."""
        self._rooms.close()


def _failure(answer: Answer) -> ChannelError | None:
    words = str(answer.fields().get("msg", "")).lower()
    return coded_failure(answer, "code", _TOO_MANY if "too many request" in words else CODES)


def signature(secret: str, timestamp: int) -> dict[str, str]:
    """What signs a request: the fields `timestamp` and `sign` of its body.

    Args:
        secret: the robot's.
        timestamp: seconds since 1970; Feishu takes none that is an hour off.
    """
    # The key is the timestamp with the secret, and what is signed is empty: so Feishu has it.
    made = hmac.digest(f"{timestamp}\n{secret}".encode(), b"", hashlib.sha256)
    return {"timestamp": str(timestamp), "sign": base64.b64encode(made).decode("ascii")}


# --- the tree -------------------------------------------------------------------------------------------


def _row(line: Line) -> Sequence[dict[str, Any]]:
    start = ("▎" if line.quote else "") + line.marker
    runs = [_element(run) for run in line.runs]
    return [{"tag": "text", "text": start or " "}, *runs] if start or not runs else runs


def _element(run: Run) -> dict[str, Any]:
    element: dict[str, Any] = {"tag": "text", "text": run.words}
    if run.web is not None:
        element |= {"tag": "a", "href": run.web}
    styles = (("bold", run.bold), ("italic", run.italic), ("lineThrough", run.struck))
    if style := [name for name, wanted in styles if wanted]:
        element["style"] = style
    return element
