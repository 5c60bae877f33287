"""Rooms: the names that chat messages are addressed to, each with a hook of its own.

Most chat services give each room a URL that anybody may post to who knows it. It is a secret, and so it is no
address that a producer sends: a message's address is the name of a room, and the provider's options say where
that is::

    [providers.team-chat]
    use = "chat.dingtalk"
    rooms.ops = "env:OPS_HOOK"
    rooms.sales = { url = "env:SALES_HOOK", secret = "env:SALES_SECRET" }

A name that is not there is Unroutable: another provider of the pool may have that room, so one pool can serve rooms of
several services. It is not AddressInvalid: a suppression would outlive the room's addition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from channels._addresses import split_url
from channels._http_outcomes import identifier
from channels.contract import (
    Accepted,
    Capability,
    ChannelError,
    Deadline,
    Message,
    Refused,
    Uncertain,
    Unroutable,
)
from channels.http import Answer, Client, Meaning, Options, Secret

ROOM_OPTIONS: Final = ("ca_file", "connections", "proxy", "rooms")
"""The options that `Rooms.read` reads; name them among the known ones."""

_JSON: Final = {"Content-Type": "application/json; charset=utf-8"}
_NUMBER: Final = re.compile(r"-?[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Hook:
    """What a provider asks of its rooms' URLs.

    Args:
        use: the provider: `chat.dingtalk`.
        service: its name for people.
        holds: a part that each URL has.
        signed: whether a room may have a secret to sign with.
    """

    use: str
    service: str
    holds: str
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Room:
    """One room's hook."""

    client: Client
    target: Secret
    secret: Secret | None = None

    def post(
        self, body: bytes, deadline: Deadline, *, query: str = "", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Post JSON to the hook, with `name=value` pairs added to its query."""
        target = self.target.reveal()
        if query:
            target += ("&" if "?" in target else "?") + query
        return self.client.request("POST", target, deadline, body=body, headers={**_JSON, **(headers or {})})


class Rooms:
    """The rooms of a provider. Their names and URLs are in no repr and no dump.

    Args:
        rooms: by name.
    """

    def __init__(self, rooms: Mapping[str, Room]) -> None:
        self._of: Callable[[str], Room | None] = lambda name: rooms.get(name)  # noqa: PLW0108 - a dump looks
        # into a dict's bound method, and not into a closure
        self._clients = tuple({id(room.client): room.client for room in rooms.values()}.values())

    def __repr__(self) -> str:
        return "<rooms>"

    @classmethod
    def read(cls, given: Options, name: str, options: Mapping[str, Any], hook: Hook) -> Self:
        """The rooms that the option `rooms` names, on clients by `connections` (to each server), `ca_file`, `proxy`.

        Args:
            given: the provider's options.
            name: the provider's name in the configuration.
            options: the same, as they came.
            hook: what is asked of each URL.

        Raises:
            Misconfigured: one of them is wrong.
        """
        table = options.get("rooms")
        if table is None:
            raise given.wrong("rooms", 'is missing; write rooms.ops = "env:OPS_HOOK"')
        if not isinstance(table, Mapping) or not table:
            raise given.wrong("rooms", 'is no table of names, or empty; write rooms.ops = "env:OPS_HOOK"')
        connections = given.whole("connections", 32, most=1000)
        ca_file, proxy = given.ca_file("ca_file"), given.proxy("proxy")
        clients: dict[str, Client] = {}
        rooms = {}
        for room, value in table.items():
            origin, target, secret = _read_room(given, name, str(room), value, hook)
            if origin not in clients:
                clients[origin] = Client(origin, connections=connections, ca_file=ca_file, proxy=proxy)
            rooms[str(room)] = Room(clients[origin], target, secret)
        return cls(rooms)

    def reaches(self, address: str) -> bool:
        """Whether there is a room of this name."""
        return self._of(address) is not None

    def find(self, address: str) -> Room:
        """The room of this name.

        Raises:
            Unroutable: there is none.
        """
        room = self._of(address)
        if room is None:
            raise Unroutable(
                "room", "the address is none of the provider's rooms; add it to rooms, or correct the address"
            )
        return room

    def close(self) -> None:
        """Close the pooled connections."""
        for client in self._clients:
            client.close()


def _read_room(
    given: Options, name: str, room: str, value: object, hook: Hook
) -> tuple[str, Secret, Secret | None]:
    option = f"rooms.{room}"
    if not isinstance(value, Mapping):
        inner, url_option = {option: value}, option
    else:
        inner, url_option = {f"{option}.{key}": each for key, each in value.items()}, f"{option}.url"
    known = (url_option, f"{option}.secret") if hook.signed else (url_option,)
    texts = Options(hook.use, name, inner, known)
    url = texts.secret(url_option).reveal()
    try:
        origin, target = split_url(url)
        place = f"{origin.scheme}://{origin.authority}"
    except ValueError:
        place = target = ""
    if not place or hook.holds not in target:
        raise given.wrong(url_option, f"is no incoming webhook of {hook.service}; copy the URL that it shows")
    checked = Options(hook.use, name, {url_option: place}, (url_option,)).origin(url_option, place)
    secret = texts.optional_secret(f"{option}.secret") if hook.signed else None
    return checked, Secret(target), secret


# --- what hooks answer --------------------------------------------------------------------------------


def coded_failure(answer: Answer, name: str, codes: Mapping[str, Meaning]) -> ChannelError | None:
    """What a service means that answers 200 whatever happens, with a number in the body: 0 is a yes.

    Args:
        answer: of the service.
        name: of the number's field.
        codes: the service's table.
    """
    code = answer.fields().get(name)
    failure = answer.refusal(code, codes) or answer.failure(Capability.OPAQUE)
    if failure is not None:
        return failure
    if not isinstance(code, int | str) or not _NUMBER.fullmatch(str(code)):
        return Uncertain("unreadable", "the answer has no code that can be read: neither a yes nor a no")
    if int(code) == 0:
        return None
    return Refused(str(code), "the service refused the message; its own documentation explains the code")


def accepted(answer: Answer, code: str, message: Message, header: str) -> Accepted:
    """An acceptance. A hook gives a message no id: the request's is kept, or our key where it has none either.

    Args:
        answer: of the service.
        code: its own word for yes.
        message: what was accepted.
        header: where the service tells the request's id, in lower case; empty where it tells none.
    """
    return Accepted(identifier(answer.headers.get(header)) or message.idempotency_key, code)
