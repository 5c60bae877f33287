"""`chat.wecom`: a post by a group's robot in WeCom (Enterprise WeChat).

An address is the name of a room, and each room has the URL of its group's robot (`rooms.ops = "env:OPS_ROBOT"`).

WeCom answers 200 whatever happens, and says in `errcode` what did:

| errcode | outcome |
|---|---|
| 0 | Accepted; WeCom gives no id, so ours is kept |
| 45009 (20 posts a minute and robot), 45033 (too many at once) | Throttled |
| 93000: the URL is wrong; 93004: the robot is switched off; 93008: it is in no group | Misconfigured |
| 40058, 40008, 44004, 45002 (what it cannot read, or too long), and any other | Refused |
| -1: busy | TryLater |
| no errcode that can be read | Uncertain |

The statuses are those of `channels.http`, should there be one. There is no idempotency key. A robot that refuses us
stops the whole provider, until its room is mended or taken out: give rooms of other owners a provider of their own.

The text is WeCom's Markdown (bold, links, code and quotes), which documents no escape, and in which `<@name>` mentions
a person: marks in a value are replaced by their full-width likeness. The text has at most 4096 bytes.
(developer.work.weixin.qq.com: group robots, global error codes.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from channels.chat._lookalikes import linked, lookalike, marked
from channels.chat._markdown import Line, Run, lines_of, too_long
from channels.chat._rooms import ROOM_OPTIONS, Hook, Rooms, accepted, coded_failure
from channels.contract import (
    Accepted,
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
_UNFIT: Final[Meaning] = (Refused, "WeCom cannot take the post; mend the template, or update this fleet")
CODES: Final[Mapping[str, Meaning]] = {
    **dict.fromkeys(("45009", "45033"), _SLOWER),
    "93000": (Misconfigured, "WeCom does not know the robot; copy its URL again"),
    "93004": (Misconfigured, "the robot is switched off; switch it on in its group"),
    "93008": (Misconfigured, "the robot is in no group; add it to one, or make a new one"),
    **dict.fromkeys(("40058", "40008", "44004", "45002"), _UNFIT),
    "-1": (TryLater, "WeCom is busy"),
}

MAX_TEXT: Final = 4096
"""Bytes of `markdown.content`."""
_HOOK: Final = Hook("chat.wecom", "WeCom", "key=")


def build(name: str, options: Mapping[str, Any]) -> WeCom:
    """Build the provider.

    Args:
        name: its name in the configuration.
        options: `rooms`, required: names and the URLs of their robots; `connections`, `ca_file`, `proxy`.

    Raises:
        Misconfigured: an option is missing, wrong or unknown.
    """
    given = Options("chat.wecom", name, options, ROOM_OPTIONS)
    return WeCom(name, Rooms.read(given, name, options, _HOOK))


class WeCom:
    """Posts to WeCom. Made by `build`.

    Args:
        name: of the provider in the configuration.
        rooms: where to.
    """

    capability = Capability.OPAQUE

    def __init__(self, name: str, rooms: Rooms) -> None:
        self._name = name
        self._rooms = rooms

    def __repr__(self) -> str:
        return f"<chat.wecom {self._name!r}>"

    def reaches(self, address: str) -> bool:
        """Whether it has a room of this name."""
        return self._rooms.reaches(address)

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one post over. See `Provider.send`; the module has the table."""
        text = _text(lines_of(message))
        length = len(text.encode())
        if length > MAX_TEXT:
            raise too_long(length, MAX_TEXT, "bytes", "WeCom")
        body = to_json({"msgtype": "markdown", "markdown": {"content": text}})
        answer = self._rooms.find(message.address).post(body, deadline)
        failure = coded_failure(answer, "errcode", CODES)
        if failure is not None:
            raise failure
        return accepted(answer, "0", message, "")

    def close(self) -> None:
        """Close the pooled connections."""
        self._rooms.close()


# --- WeCom's Markdown -----------------------------------------------------------------------------------


def _text(lines: Sequence[Line]) -> str:
    return "\n".join(_row(line) for line in lines)


def _row(line: Line) -> str:
    words = "".join(_piece(run, first=place == 0 and not line.marker) for place, run in enumerate(line.runs))
    return ("> " if line.quote else "") + line.marker + words


def _piece(run: Run, *, first: bool) -> str:
    text = lookalike(run.text, first=first)
    if run.code:
        return f"`{text}`"
    if run.url is not None:
        text = linked(text, run.url)
    return marked(text, "**") if run.bold else text
