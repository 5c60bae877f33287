"""What the far end saw and what it took: an append-only log that tests account against.

One JSON line for every request, on every protocol, written in one `write` before the answer goes out. So
whatever is killed afterwards, and whenever, the log tells what the far end did.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

IDEMPOTENT: Final = "idempotent"
QUERYABLE: Final = "queryable"
OPAQUE: Final = "opaque"
KINDS: Final = (IDEMPOTENT, QUERYABLE, OPAQUE)
"""How a provider treats a repeated idempotency key. Only an idempotent one gives it no second effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One request as it came, before it is judged."""

    protocol: str
    """`smtp`, `http`, or the name of the wire that took it: `twilio`."""
    action: str
    """`send`, `find` (has the provider taken this key?), `side` (a provider's token endpoint), `auth` (a failed SMTP
    login) or `invalid`."""
    connection: int
    """The serial number of the connection, over all protocols."""
    channel: str | None = None
    kind: str | None = None
    delivery_id: str | None = None
    idempotency_key: str | None = None
    to: str | None = field(default=None, repr=False)
    """The recipient's address."""
    size: int = 0
    """Bytes of the body."""

    @property
    def identity(self) -> tuple[str | None, ...] | None:
        """What makes two requests repetitions of each other: the key or, as SMTP has none, the delivery."""
        if self.idempotency_key is not None:
            return (self.channel, self.idempotency_key)
        if self.delivery_id is not None:
            return (self.channel, self.delivery_id, self.to)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest(Incoming):
    """One line of the log: a request and what became of it."""

    n: int
    """Counts the requests from 1, over restarts."""
    at: datetime
    accepted: bool
    """This request had an effect: a person would have got a message for it."""
    duplicate_of_key: bool
    """An earlier request with the same key (SMTP: the same delivery and address) had an effect."""
    id: str | None
    """The id of the effect: the earlier one's where an idempotent provider was asked twice."""
    code: str | None
    """The status or reply sent (`202`, `550`); None where none was."""
    mode: str
    """The mode that was played."""


def read_log(path: str | os.PathLike[str]) -> list[LoggedRequest]:
    """Read a log, also one that is being written: a last line without its end is left out.

    Args:
        path: `requests.jsonl` of a sandbox's directory. A missing file is an empty log.
    """
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    return [_parse(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]


def effects_by_delivery(requests: Iterable[LoggedRequest]) -> Counter[str]:
    """How many effects each delivery had: what `sent` and `DUPLICATES` are counted against."""
    return Counter(request.delivery_id for request in requests if request.accepted and request.delivery_id)


def _parse(line: bytes) -> LoggedRequest:
    values = json.loads(line)
    values["at"] = datetime.fromisoformat(values["at"])
    return LoggedRequest(**values)


class Effects:
    """Takes requests or does not, gives each effect its id, and logs all of them.

    After a restart in the same directory it goes on where the log ends, so a provider still knows the keys
    that it took before it was killed.

    Args:
        path: the log. It is created with the mode 0600, since it holds addresses.

    Raises:
        BlockingIOError: another sandbox writes this log.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise BlockingIOError(f"another sandbox writes {path}; give each its own --directory") from None
        self._cut_torn_line(path)
        self._n = 0
        self._connections = 0
        self._ids: dict[tuple[str | None, ...], str | None] = {}
        self.watch: Callable[[LoggedRequest], None] = lambda _: None
        """Called with each request that is logged."""
        for request in read_log(path):
            self._n = request.n
            self._connections = max(self._connections, request.connection)
            if request.accepted and request.identity:
                self._ids.setdefault(request.identity, request.id)

    def _cut_torn_line(self, path: Path) -> None:
        raw = path.read_bytes()
        if not raw.endswith(b"\n"):
            os.ftruncate(self._fd, raw.rfind(b"\n") + 1)

    def next_connection(self) -> int:
        """The serial number for a new connection."""
        self._connections += 1
        return self._connections

    def find(self, incoming: Incoming) -> str | None:
        """The id of the first effect with this request's key, if there was one."""
        return self._ids.get(incoming.identity) if incoming.identity else None

    def record(
        self,
        incoming: Incoming,
        *,
        accept: bool,
        code: str | Callable[[LoggedRequest], str | None] | None,
        mode: str,
    ) -> LoggedRequest:
        """Log a request, and give it its effect if `accept`. Returns when the line is with the kernel.

        Args:
            incoming: the request.
            accept: the far end takes it; an idempotent one still gives a repeated key no second effect.
            code: the status or reply that follows, None where none will; or what says it, given the request as it
                will be logged.
            mode: the mode that is played.
        """
        self._n += 1
        earlier = self.find(incoming)
        repeated = accept and earlier is not None and incoming.kind == IDEMPOTENT
        new = f"{incoming.channel}-{self._n}" if accept and not repeated else None
        if new is not None and incoming.identity is not None:
            self._ids.setdefault(incoming.identity, new)
        given = {each.name: getattr(incoming, each.name) for each in dataclasses.fields(Incoming)}
        request = LoggedRequest(
            **given,
            n=self._n,
            at=datetime.now(UTC),
            accepted=new is not None,
            duplicate_of_key=earlier is not None and incoming.action == "send",
            id=earlier if repeated else new,
            code=None if callable(code) else code,
            mode=mode,
        )
        if callable(code):
            request = dataclasses.replace(request, code=code(request))
        self._append(request)
        self.watch(request)
        return request

    def _append(self, request: LoggedRequest) -> None:
        values = {each.name: getattr(request, each.name) for each in dataclasses.fields(request)}
        values["at"] = request.at.isoformat()
        line = json.dumps(values, separators=(",", ":")).encode() + b"\n"
        if os.write(self._fd, line) != len(line):
            raise OSError("the log was not written whole; make room on its disk")

    def close(self) -> None:
        os.close(self._fd)
