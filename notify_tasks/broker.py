"""Publishing to Redis: Celery messages that stock workers run, with their ledger entries, in one transaction.

Celery's own way out costs three times as much CPU, cannot send the ledger entry with the message, and waits
without end for a Redis that is frozen.

A publish ends within its timeout, and says what is known then::

    BrokerError
    ├── Refused      Redis said no, and nothing was published: mend the cause
    ├── Unreachable  no connection, and nothing was published
    └── Unanswered   sent, but the answer did not come: published or not
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.retry import Retry

from notify_tasks import redis_place
from notify_tasks.errors import NotConfigured, NotifyError
from notify_tasks.idle import Idle, open_by
from notify_tasks.messages import Outgoing, Raw, build
from notify_tasks.routing import LEDGER_BUCKET_SECONDS

__all__ = ["Broker", "BrokerError", "Outgoing", "Raw", "Refused", "Unanswered", "Unreachable"]

KEPT_CONNECTIONS: Final = 32
CLOCK_SECONDS: Final = 60.0
"""So long a connection's idea of Redis's clock is trusted."""

_ANSWERS: Final = (
    redis_errors.ResponseError,
    redis_errors.AuthenticationError,
    redis_errors.BusyLoadingError,
)


class BrokerError(NotifyError):
    """A message may not have been published. The text shows codes and places, never contents."""


class Refused(BrokerError):
    """Redis said no. Nothing was published."""


class Unreachable(BrokerError):
    """There was no connection. Nothing was published."""


class Unanswered(BrokerError):
    """The messages were sent and the answer was not received: they are published, or not."""


class Broker:
    """A Redis that messages are published to. Safe among threads and after a fork.

    Args:
        url: `redis://`, `rediss://` (certificates are verified unless the URL says `ssl_cert_reqs=none`),
            `unix:///path?db=0`; kombu's `redis+socket:///path?virtual_host=0` as well.
        timeout: seconds that a publish may take, with all its connecting.

    Raises:
        NotConfigured: the URL is wrong.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._sentinels = redis_place.sentinels(url)
        self._class, self._options = _connection_options(url)
        self._timeout = timeout
        self._idle: Idle[_Link] = Idle(KEPT_CONNECTIONS, inherited=_Link.close)
        where = self._options
        self.place = str(where.get("path") or f"{where.get('host', 'localhost')}:{where.get('port', 6379)}")
        if self._sentinels is not None:
            self.place = f"the primary {self._sentinels.master}"
        """Host and port, or path: fit to be shown."""

    def __repr__(self) -> str:
        return f"Broker({self.place!r})"

    def publish(self, messages: Sequence[Outgoing], *, deadline: float | None = None) -> None:
        """Publish messages and their ledger entries: all of them or none, each entry before its message.

        Args:
            messages: at least one.
            deadline: on the monotonic clock; the default is `timeout` from now.

        Raises:
            Refused, Unreachable, Unanswered: see the module.
        """
        ends = time.monotonic() + self._timeout if deadline is None else deadline
        link = self._reusable()
        if link is None:
            return self._publish(self._connected(ends), messages, ends)
        try:
            return self._publish(link, messages, ends)
        except (Unreachable, Unanswered) as error:
            if not link.cut_off or time.monotonic() >= ends:
                raise
            first = error
        # Most likely the connection had died in its sleep. What is published twice does no harm.
        try:
            return self._publish(self._connected(ends), messages, ends)
        except (Refused, Unreachable):
            if isinstance(first, Unanswered):
                raise first from None
            raise

    def close(self) -> None:
        """Close the connections that wait. The broker may be used again."""
        while (link := self._idle.take()) is not None:
            link.close()

    def _publish(self, link: _Link, messages: Sequence[Outgoing], ends: float) -> None:
        try:
            bucket = link.bucket(ends) if any(message.ledger_field for message in messages) else 0
            built = [build(message, bucket) for message in messages]
            link.transaction([command for each in built for command in each.commands], ends)
        except Refused:
            if self._sentinels is None:
                self._give_back(link)
            else:
                link.close()  # it may be the primary no more
            raise
        except BaseException:
            link.close()
            raise
        self._give_back(link)
        # Tracing tools open a span before and close it after: the last one first.
        for each in reversed(built):
            each.published()

    def _reusable(self) -> _Link | None:
        while (link := self._idle.take()) is not None:
            if link.sound():
                return link
            link.close()
        return None

    def _give_back(self, link: _Link) -> None:
        if not self._idle.give(link):
            link.close()

    def _connected(self, ends: float) -> _Link:
        left = ends - time.monotonic()
        try:
            connection = open_by(ends, lambda: self._connect(max(left, 0.001)), _disconnect)
        except (TimeoutError, redis_errors.TimeoutError):
            raise Unreachable(f"Redis at {self.place} gave no answer in time") from None
        except _ANSWERS as error:
            raise Refused(f"Redis at {self.place} {_refusal(error)}") from None
        except (redis_errors.RedisError, OSError) as error:
            raise Unreachable(f"Redis at {self.place} cannot be reached: {_cause(error)}") from None
        return _Link(connection, self.place)

    def _connect(self, seconds: float) -> Connection:
        options = dict(self._options)
        if self._sentinels is not None:
            options["host"], options["port"] = redis_place.primary(self._sentinels, seconds)
        connection = self._class(
            **options,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            protocol=2,  # no HELLO: AUTH and SELECT alone, in every version
            retry=Retry(NoBackoff(), 0),  # its retries know nothing of our deadline
        )
        try:
            connection.connect()  # type: ignore[no-untyped-call]  # redis-py types a part of itself
        except BaseException:
            connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        return connection


class _Link:
    """One connection, and how its Redis's clock stands to ours."""

    def __init__(self, connection: Connection, place: str) -> None:
        self._connection = connection
        self._place = place
        self._ahead: float | None = None
        self._asked = 0.0
        self.cut_off = False
        """The other side ended the connection, as against giving no answer."""

    def sound(self) -> bool:
        """Whether it is open and nothing unasked for has arrived."""
        if self._connection._sock is None:  # noqa: SLF001 - asking a closed one would open it again
            return False
        try:
            return not self._connection.can_read(timeout=0)
        except (redis_errors.RedisError, OSError):
            return False

    def close(self) -> None:
        """Close it. In a forked child only its own end: redis-py looks at the process."""
        _disconnect(self._connection)

    def bucket(self, ends: float) -> int:
        """The ledger bucket of this moment, by Redis's clock.

        Raises:
            Refused, Unreachable: nothing has been sent yet.
        """
        if self._ahead is None or time.monotonic() - self._asked > CLOCK_SECONDS:
            asked = time.monotonic()
            try:
                self._send([("TIME",)], ends)
                seconds, microseconds = cast("list[bytes]", self._read(ends))
            except redis_errors.ResponseError as error:
                raise Refused(f"Redis at {self._place} {_refusal(error)}") from None
            except Unanswered as error:
                raise Unreachable(str(error)) from None
            # Against the monotonic clock: a step of the wall clock does not move it.
            self._asked = time.monotonic()
            self._ahead = int(seconds) + int(microseconds) / 1e6 - (asked + self._asked) / 2
        return int((time.monotonic() + self._ahead) // LEDGER_BUCKET_SECONDS)

    def transaction(self, commands: Sequence[tuple[str, ...]], ends: float) -> None:
        """Run the commands, all or none.

        Raises:
            Refused, Unreachable, Unanswered: see the module.
        """
        # Should the sending fail, EXEC at its end has not left, so nothing runs.
        self._send([("MULTI",), *commands, ("EXEC",)], ends)
        refused: redis_errors.RedisError | None = None
        begun = True
        for number in range(len(commands) + 1):
            try:
                self._read(ends)
            except redis_errors.ResponseError as error:
                refused = refused or error
                begun = begun and number > 0
        try:
            results = cast("list[object] | None", self._read(ends))
        except redis_errors.ExecAbortError as error:
            raise Refused(f"Redis at {self._place} {_refusal(refused or error)}") from None
        except redis_errors.ResponseError as error:
            results = [refused or error]
        if not begun or not results or any(isinstance(result, Exception) for result in results):
            # The transaction ran in part, or its commands ran outside of it.
            first = refused or next((each for each in results or () if isinstance(each, Exception)), None)
            raise Unanswered(f"Redis at {self._place} ran a part of it: {_refusal(first)}")

    def _send(self, commands: Sequence[tuple[str, ...]], ends: float) -> None:
        try:
            self._limit(ends)
            packed = self._connection.pack_commands(commands)  # type: ignore[no-untyped-call]
            self._connection.send_packed_command(packed, check_health=False)  # type: ignore[no-untyped-call]
        except (TimeoutError, redis_errors.TimeoutError):
            raise Unreachable(f"Redis at {self._place} took nothing in time") from None
        except (redis_errors.ConnectionError, OSError) as error:
            self.cut_off = True
            raise Unreachable(f"Redis at {self._place} cannot be reached: {_cause(error)}") from None

    def _read(self, ends: float) -> object:
        try:
            self._limit(ends)
            return self._connection.read_response()
        except (redis_errors.AuthenticationError, redis_errors.BusyLoadingError) as error:
            # redis-py counts these as lost connections. They are answers, and every command gets the same.
            raise Refused(f"Redis at {self._place} {_refusal(error)}") from None
        except (TimeoutError, redis_errors.TimeoutError):
            raise Unanswered(f"Redis at {self._place} gave no answer in time") from None
        except (redis_errors.ConnectionError, redis_errors.InvalidResponse, OSError) as error:
            self.cut_off = True
            raise Unanswered(f"Redis at {self._place} ended the connection: {_cause(error)}") from None

    def _limit(self, ends: float) -> None:
        left = ends - time.monotonic()
        sock = self._connection._sock  # noqa: SLF001 - redis-py has no timeout for a single call
        if left <= 0 or sock is None:
            raise TimeoutError
        sock.settimeout(left)


def _disconnect(connection: Connection) -> None:
    connection.disconnect()  # type: ignore[no-untyped-call]


# --- what Redis says --------------------------------------------------------------------------------

_REFUSALS: Final = {
    "LOADING": "is still loading its data (LOADING): try again when it has",
    "MISCONF": "cannot write to its disk (MISCONF): see its log",
    "NOAUTH": "wants a password (NOAUTH): put it into the broker's URL",
    "NOPERM": (
        "does not let this user do it (NOPERM): give it "
        "~notify.* +ping +client +select +multi +exec +hset +lpush +time"
    ),
    "NOREPLICAS": "has not enough replicas to write (NOREPLICAS): see its settings",
    "OOM": "is out of memory (OOM): let the fleet catch up or raise maxmemory",
    "READONLY": "is a read-only replica (READONLY): name the primary in the broker's URL",
    "WRONGPASS": "does not take this user and password (WRONGPASS): mend the broker's URL",
}
_CODES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (redis_errors.AuthenticationError, "WRONGPASS"),
    (redis_errors.BusyLoadingError, "LOADING"),
    (redis_errors.NoPermissionError, "NOPERM"),
    (redis_errors.OutOfMemoryError, "OOM"),
    (redis_errors.ReadOnlyError, "READONLY"),
)


_CLOSED: Final = {
    "Connection closed by server.": "it was closed",
    "max number of clients reached": "it has as many clients as it takes (maxclients)",
}
"""redis-py's words, which hold nothing private."""


def _refusal(error: Exception | None) -> str:
    """What an error answer means. Its own text is left out: it may quote the command with its arguments."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    first_word = str(error).partition(" ")[0]
    if code in (None, "WRONGPASS") and first_word.isupper() and first_word.isalpha():
        code = first_word
    return _REFUSALS.get(code or "", f"refused it ({code or type(error).__name__}): see its log")


def _cause(error: BaseException | None) -> str:
    """Why a connection failed, in the words of the operating system or of TLS."""
    while error is not None:
        if isinstance(error, OSError):
            said = getattr(error, "verify_message", None) or error.strerror or type(error).__name__
            return str(said)
        if error.__context__ is None:
            return _CLOSED.get(str(error), type(error).__name__)
        error = error.__context__
    return "unknown"


# --- the URL ----------------------------------------------------------------------------------------

_TAKEN: Final = ("host", "port", "path", "db", "username", "password", "client_name")


class _ConnectionClass(Protocol):
    def __call__(self, **options: Any) -> Connection: ...


def _connection_options(url: str) -> tuple[_ConnectionClass, dict[str, Any]]:
    guided = redis_place.sentinels(url)
    if guided is not None:
        return Connection, dict(guided.options)
    try:
        said = parse_url(redis_place.plain(url))  # type: ignore[no-untyped-call]
    except ValueError:
        raise NotConfigured(
            "broker_url: it cannot be read. Write it as in redis://user:password@host:6379/0, "
            "with special characters of the password percent-encoded"
        ) from None
    made = said.pop("connection_class", Connection)
    # What a URL may say about timeouts, retries and pools is left out: the budget of a call rules.
    options = {name: value for name, value in said.items() if name in _TAKEN or name.startswith("ssl_")}
    if made is SSLConnection:
        required = str(options.get("ssl_cert_reqs", "required")).lower().removeprefix("cert_")
        if required not in ("required", "optional", "none"):
            raise NotConfigured("broker_url: ssl_cert_reqs is not known. Write required, optional or none")
        options["ssl_cert_reqs"] = required
    elif made is not UnixDomainSocketConnection:
        options = {name: value for name, value in options.items() if not name.startswith("ssl_")}
    return made, options
