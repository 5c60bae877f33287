"""`chat.dingtalk`: a post by a group's custom robot.

An address is the name of a room, and each room has the URL of its group's robot; a robot whose security is "additional
signature" has a secret too, which signs each request: `rooms.ops = { url = "env:OPS_URL", secret = "env:OPS_SECRET" }`.

DingTalk answers 200 whatever happens, and says in `errcode` what did:

| errcode | outcome |
|---|---|
| 0 | Accepted; DingTalk gives no id, so ours is kept |
| 130101, 90018, 90030, 410100 (20 posts a minute and robot, then silence for ten) | Throttled |
| 310000: no keyword of the robot's, a wrong signature or clock, an IP address that it does not know | Misconfigured |
| 300001, 40035, 400101, 400106: the token is wrong; 400102: the robot is switched off | Misconfigured |
| 400013: the group is dissolved | AddressInvalid |
| 460101: too long; 430101 to 430104: words or links that DingTalk lets nobody post | Refused |
| -1: busy | TryLater |
| any other | Refused |
| no errcode that can be read | Uncertain |

The statuses are those of `channels.http`, should there be one. There is no idempotency key. A robot that refuses us
stops the whole provider, until its room is mended or taken out: give rooms of other owners a provider of their own.
A room whose group is dissolved is suppressed by its name: call its successor otherwise.

The text is DingTalk's Markdown, which documents no escape: marks in a value are replaced by their full-width likeness.
A mention needs an entry under `at`, which is never there. The request has at most 20000 bytes. (open.dingtalk.com:
custom robots, security settings, error codes.)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from channels.chat._lookalikes import linked, lookalike, marked
from channels.chat._markdown import Line, Run, lines_of, paragraphs, title_of, too_long
from channels.chat._rooms import ROOM_OPTIONS, Hook, Rooms, accepted, coded_failure
from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    Deadline,
    Message,
    Misconfigured,
    Refused,
    Throttled,
    TryLater,
)
from channels.http import Meaning, Options, to_json

_SLOWER: Final[Meaning] = (
    Throttled,
    "the robot posts too fast; a rate of 20/min and room keeps it from that",
)
_TOKEN: Final[Meaning] = (Misconfigured, "DingTalk does not know the robot; copy its URL again")
_WORDS: Final[Meaning] = (Refused, "DingTalk lets nobody post these words or links; mend the template")
CODES: Final[Mapping[str, Meaning]] = {
    **dict.fromkeys(("130101", "90018", "90030", "410100"), _SLOWER),
    "310000": (
        Misconfigured,
        "the robot's security settings refuse it; compare its keywords, secret and addresses, and our clock",
    ),
    **dict.fromkeys(("300001", "40035", "400101", "400106"), _TOKEN),
    "400102": (Misconfigured, "the robot is switched off; switch it on in its group"),
    "400013": (AddressInvalid, "the group is dissolved; give the recipient a room of another name"),
    "460101": (Refused, "the post is too long for DingTalk; send less"),
    **dict.fromkeys(("430101", "430102", "430103", "430104"), _WORDS),
    "-1": (TryLater, "DingTalk is busy"),
}

MAX_BODY: Final = 20_000
"""Bytes of a request (errcode 460101 beyond)."""
_TITLE: Final = 64
_HOOK: Final = Hook("chat.dingtalk", "DingTalk", "access_token=", signed=True)


def build(name: str, options: Mapping[str, Any]) -> DingTalk:
    """Build the provider.

    Args:
        name: its name in the configuration.
        options: `rooms`, required: names, and the URLs of their robots, or tables of `url` and `secret`;
            `connections`, `ca_file`, `proxy`.

    Raises:
        Misconfigured: an option is missing, wrong or unknown.
    """
    given = Options("chat.dingtalk", name, options, ROOM_OPTIONS)
    return DingTalk(name, Rooms.read(given, name, options, _HOOK))


class DingTalk:
    """Posts to DingTalk. Made by `build`.

    Args:
        name: of the provider in the configuration.
        rooms: where to.
    """

    capability = Capability.OPAQUE

    def __init__(self, name: str, rooms: Rooms) -> None:
        self._name = name
        self._rooms = rooms

    def __repr__(self) -> str:
        return f"<chat.dingtalk {self._name!r}>"

    def reaches(self, address: str) -> bool:
        """Whether it has a room of this name."""
        return self._rooms.reaches(address)

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one post over. See `Provider.send`; the module has the table."""
        lines = lines_of(message)
        # The title is shown in the list of chats, and is plain text.
        body = to_json(
            {"msgtype": "markdown", "markdown": {"title": title_of(lines, _TITLE), "text": _text(lines)}}
        )
        if len(body) > MAX_BODY:
            raise too_long(len(body), MAX_BODY, "bytes", "DingTalk")
        room = self._rooms.find(message.address)
        query = "" if room.secret is None else signature(room.secret.reveal(), int(time.time() * 1000))
        answer = room.post(body, deadline, query=query)
        failure = coded_failure(answer, "errcode", CODES)
        if failure is not None:
            raise failure
        return accepted(answer, "0", message, "")

    def close(self) -> None:
        """Close the pooled connections."""
        self._rooms.close()


def signature(secret: str, timestamp: int) -> str:
    """What signs a request: `timestamp=...&sign=...` for its query.

    Args:
        secret: the robot's, `SEC...`.
        timestamp: milliseconds since 1970; DingTalk takes none that is an hour off.
    """
    made = hmac.digest(secret.encode(), f"{timestamp}\n{secret}".encode(), hashlib.sha256)
    return urlencode({"timestamp": timestamp, "sign": base64.b64encode(made).decode("ascii")})


# --- DingTalk's Markdown --------------------------------------------------------------------------------


def _text(lines: Sequence[Line]) -> str:
    # Two blanks before a line's end keep the break; an empty line parts paragraphs.
    return "\n\n".join("  \n".join(_row(line) for line in part) for part in paragraphs(lines))


def _row(line: Line) -> str:
    words = "".join(_piece(run, first=place == 0 and not line.marker) for place, run in enumerate(line.runs))
    return ("> " if line.quote else "") + line.marker + words


def _piece(run: Run, *, first: bool) -> str:
    text = lookalike(run.text, first=first)
    if run.url is not None:
        text = linked(text, run.url)
    if run.italic:
        text = marked(text, "*")
    return marked(text, "**") if run.bold else text
