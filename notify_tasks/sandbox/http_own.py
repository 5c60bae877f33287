"""The far end of the sandbox providers: no provider's API, but every kind of one, for each channel.

POST   /v1/{channel}/messages            take a message: 202 {"id": ...}
GET    /v1/{channel}/messages?key=...    has it been taken: 200 {"id": ...} or 404
"""

from __future__ import annotations

import json
from typing import Final

from notify_tasks.routing import CHANNELS
from notify_tasks.sandbox.http_answers import code_of, say_no, say_yes, to_bytes
from notify_tasks.sandbox.http_reading import Talk
from notify_tasks.sandbox.kept import Arrival, Kept
from notify_tasks.sandbox.log import KINDS, QUERYABLE, Effects, Incoming, LoggedRequest
from notify_tasks.sandbox.modes import Mode, Modes
from notify_tasks.sandbox.wires.wire import DEAD_ADDRESS, OPTED_OUT, WRONG_KEY, Reply, Request

_ACCEPTED: Final = 202
_REDIRECT: Final = 307
_STATUSES: Final = {WRONG_KEY: 401, DEAD_ADDRESS: 410, OPTED_OUT: 403}
"""What a channel answers where it shares the target of a wire, which plays its own."""


class OwnEnd:
    """Answers what no wire takes.

    Args:
        effects: takes and logs.
        modes: how to behave.
        kept: takes what arrives; None keeps no contents.
    """

    def __init__(self, effects: Effects, modes: Modes, kept: Kept | None) -> None:
        self._effects = effects
        self._modes = modes
        self._kept = kept

    @staticmethod
    def takes(request: Request) -> bool:
        """Whether a request is for it, which no wire need be asked then."""
        match request.path.split("/"):
            case ["", "v1", channel, "messages"]:
                return channel in CHANNELS
        return False

    async def answer(self, talk: Talk) -> bool:
        """Answer a request. False where the connection must end."""
        match talk.request.path.split("/"), talk.request.method:
            case ["", "v1", channel, "messages"], "POST" if channel in CHANNELS:
                incoming = _incoming(talk, channel)
                if incoming is not None:
                    return await self._send(talk, incoming)
                problem = f"a message is an object with to and capability ({', '.join(KINDS)})"
                return self._invalid(talk, 400, problem, channel)
            case ["", "v1", channel, "messages"], "GET" if channel in CHANNELS:
                return await self._find(talk, channel)
        problem = "the far end is POST and GET /v1/{channel}/messages, and each provider's own API"
        return self._invalid(talk, 404, problem)

    def _invalid(self, talk: Talk, status: int, problem: str, channel: str | None = None) -> bool:
        size = 0 if channel else len(talk.request.body)
        invalid = Incoming(
            protocol="http", action="invalid", connection=talk.connection, channel=channel, size=size
        )
        self._effects.record(invalid, accept=False, code=str(status), mode="ok")
        talk.writer.write(to_bytes(Reply(status, {"error": problem})))
        return True

    async def _send(self, talk: Talk, incoming: Incoming) -> bool:
        channel = incoming.channel or ""
        mode = self._modes.of_address(channel, incoming.to or "") or self._modes.draw(channel)
        if refuses(mode):
            return await self._refuse(talk, mode, incoming)
        taken = self._effects.record(incoming, accept=True, code=code_of(mode, _ACCEPTED), mode=mode.name)
        if self._kept is not None and taken.accepted:
            self._kept.add(arrival(talk, taken))
        return await say_yes(talk, mode, Reply(_ACCEPTED, {"id": taken.id}))

    async def _find(self, talk: Talk, channel: str) -> bool:
        key = talk.request.query.get("key", [""])[0]
        incoming = Incoming(
            protocol="http",
            action="find",
            connection=talk.connection,
            channel=channel,
            kind=QUERYABLE,
            idempotency_key=key,
        )
        mode = self._modes.draw(channel, "find")
        if refuses(mode):
            return await self._refuse(talk, mode, incoming)
        found = self._effects.find(incoming)
        answer = Reply(200, {"id": found})
        if found is None:
            answer = Reply(404, {"error": "no message was taken with this key"})
        self._effects.record(incoming, accept=False, code=code_of(mode, answer.status), mode=mode.name)
        return await say_yes(talk, mode, answer)

    async def _refuse(self, talk: Talk, mode: Mode, incoming: Incoming) -> bool:
        status = _REDIRECT if mode.name == "redirect" else mode.status or _STATUSES.get(mode.name)
        silent = mode.name == "hang_before_accept"
        status = None if silent else status or 400  # a code of a wire that shares the target
        code = None if status is None else str(status)
        self._effects.record(incoming, accept=False, code=code, mode=mode.name)
        no = None if status is None else Reply(status, {"error": f"the sandbox plays {mode.name}"})
        return await say_no(talk, mode, no)


def refuses(mode: Mode) -> bool:
    """Whether the message is not taken."""
    return mode.status is not None or mode.of_wire or mode.name in {"redirect", "hang_before_accept"}


def arrival(talk: Talk, taken: LoggedRequest, opened: bytes | None = None) -> Arrival:
    """What is kept of a message.

    Args:
        talk: the request.
        taken: as it was logged.
        opened: the message in plain, where it came encrypted.
    """
    return Arrival(
        id=taken.id or "",
        at=taken.at,
        channel=taken.channel or "",
        protocol=taken.protocol,
        to=taken.to or "",
        raw=talk.request.body if opened is None else opened,
        headers=tuple(talk.request.headers.items()),
        delivery_id=taken.delivery_id,
        code=taken.code,
        mode=taken.mode,
        again=taken.duplicate_of_key,
    )


def _incoming(talk: Talk, channel: str) -> Incoming | None:
    """The message in the body, None where it is not one."""
    try:
        body = json.loads(talk.request.body)
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(body, dict)
        or not isinstance(body.get("to"), str)
        or body.get("capability") not in KINDS
    ):
        return None
    key = talk.request.headers.get("idempotency-key", body.get("idempotency_key"))
    delivery_id = body.get("delivery_id")
    return Incoming(
        protocol="http",
        action="send",
        connection=talk.connection,
        channel=channel,
        kind=body["capability"],
        delivery_id=None if delivery_id is None else str(delivery_id),
        idempotency_key=None if key is None else str(key),
        to=body["to"],
        size=len(talk.request.body),
    )
