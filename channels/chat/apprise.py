"""`chat.apprise`: the long tail of chat services, by the library Apprise. With limits, which are stated here.

An address is the name of a room, and each room has a URL of Apprise (`rooms.ops = "env:OPS_DISCORD"`), which names one
target: two targets in one URL could not be told apart when one of them fails.

These services, and no other of Apprise's hundred: `discord`, `gchat`, `gotify` and `gotifys`, `mmost` and `mmosts`,
`ntfy` and `ntfys`, `pover`, `tgram`, `zulip`. Slack, Teams, DingTalk, Feishu and WeCom have providers of their own:
Apprise takes their refusals for acceptances. Matrix and Rocket.Chat log in for each message and repeat by themselves.

| Apprise says | outcome |
|---|---|
| success | Accepted, without an id: Apprise tells none |
| a failure with a status: 429 | Throttled, without the service's Retry-After: Apprise does not tell it |
| 401, 402, 403, 404, 405, 410, 415; 3xx, which is not followed | Misconfigured |
| 413 and any other 4xx | Refused |
| 408, 425 | TryLater |
| 503 | Unavailable |
| 500, 502, 504 | Uncertain |
| a failure to connect, or to find the host | Unavailable |
| a certificate that is not trusted | Misconfigured |
| any other failure, and no end within the call's time | Uncertain |

What Apprise does not do here: repeat (one request a message, or it is stopped), sleep to slow down (that is the
provider's `rate`), follow redirects, split what is too long, read attachments, load plugins of files. What it cannot
do: keep connections (each message opens one), tell what was asked for by a 429, be ended. A call that outlives its
time goes on by itself for a while, and may deliver: so it is Uncertain. `connections` bounds how many run at once,
those included. And Apprise goes through the environment's proxies (`HTTPS_PROXY`), and knows no `ca_file`
(`REQUESTS_CA_BUNDLE`).

A post is sent as plain text, with its links written out; what would begin a mention is broken in two.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import threading
import warnings
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from channels._http_outcomes import status_error
from channels._sdk import remedy
from channels.chat._lookalikes import defused
from channels.chat._markdown import lines_of, too_long
from channels.contract import (
    Accepted,
    Capability,
    ChannelError,
    Deadline,
    Message,
    Misconfigured,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
    Unroutable,
)
from channels.http import Meaning, Options, Secret

SERVICES: Final = frozenset(
    {"discord", "gchat", "gotify", "gotifys", "mmost", "mmosts", "ntfy", "ntfys", "pover", "tgram", "zulip"}
)
OWN: Final[Mapping[str, str]] = {
    **dict.fromkeys(("slack",), "chat.slack"),
    **dict.fromkeys(("msteams", "workflow", "workflows"), "chat.teams"),
    **dict.fromkeys(("dingtalk",), "chat.dingtalk"),
    **dict.fromkeys(("feishu", "lark"), "chat.feishu"),
    **dict.fromkeys(("wecombot",), "chat.wecom"),
}
"""Services of Apprise that have a provider here."""
_BARE: Final = {"gotify": "gotifys", "mmost": "mmosts", "ntfy": "ntfys"}
_SET_HERE: Final = frozenset(
    {"cto", "emojis", "format", "overflow", "redirect", "retry", "rto", "template", "verify", "wait"}
)
"""What a URL may not say: see the limits above."""
_EXAMPLE: Final = 'write rooms.ops = "env:OPS_DISCORD", and discord://... into the variable'

SENTENCES: Final[tuple[tuple[re.Pattern[str], str, Meaning], ...]] = (
    (
        re.compile(r"CERTIFICATE_VERIFY_FAILED"),
        "certificate",
        (Misconfigured, "its certificate is not trusted; see REQUESTS_CA_BUNDLE"),
    ),
    (
        re.compile(r"NewConnectionError|NameResolutionError|ConnectTimeout"),
        "connect",
        (Unavailable, "it has no address now, refused the connection or cannot be reached"),
    ),
)
"""What is known of a failure without a status, by the exception that Apprise quotes in its log."""
_STATUS: Final = re.compile(r"error=([1-5][0-9]{2})")
_CONNECTING: Final = 4.0
"""Seconds for a connection, where the call has as many."""


def build(name: str, options: Mapping[str, Any]) -> Apprise:
    """Build the provider. This loads Apprise, which takes half a second.

    Args:
        name: its name in the configuration.
        options: `rooms`, required: names and URLs of Apprise; `connections`: how many calls run at once (8).

    Raises:
        Misconfigured: an option is missing, wrong or unknown, or Apprise is not installed.
    """
    given = Options("chat.apprise", name, options, ("connections", "rooms"))
    rooms = options.get("rooms")
    if rooms is None:
        raise given.wrong("rooms", f"is missing; {_EXAMPLE}")
    if not isinstance(rooms, Mapping) or not rooms:
        raise given.wrong("rooms", f"is no table of names, or empty; {_EXAMPLE}")
    urls = {str(room): _read_room(given, name, str(room), value) for room, value in rooms.items()}
    return Apprise(name, urls, given.whole("connections", 8, most=1000))


class Apprise:
    """Posts by Apprise. Made by `build`.

    Args:
        name: of the provider in the configuration.
        urls: of the rooms, by name.
        calls: how many run at once.
    """

    capability = Capability.OPAQUE

    def __init__(self, name: str, urls: Mapping[str, Secret], calls: int) -> None:
        self._name = name
        self._url: Callable[[str], Secret | None] = lambda room: urls.get(room)  # noqa: PLW0108 - as in Rooms
        self._free = threading.BoundedSemaphore(calls)

    def __repr__(self) -> str:
        return f"<chat.apprise {self._name!r}>"

    def reaches(self, address: str) -> bool:
        """Whether it has a room of this name."""
        return self._url(address) is not None

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one post over. See `Provider.send`; the module has the table and the limits."""
        lines = lines_of(message)
        body = "\n".join(
            ("> " if line.quote else "") + line.marker + "".join(map(defused, line.runs)) for line in lines
        )
        url = self._url(message.address)
        if url is None:
            raise Unroutable(
                "room", "the address is none of the provider's rooms; add it to rooms, or correct the address"
            )
        service = _service(url)
        if len(body) > service.body_maxlen:
            raise too_long(len(body), service.body_maxlen, "characters", "the service")
        call = self._call(service, body, deadline)
        failure = _failure(call)
        if failure is not None:
            raise failure
        return Accepted(None, "success")

    def close(self) -> None:
        """Nothing is pooled: each message has a connection of its own."""

    def _call(self, service: Any, body: str, deadline: Deadline) -> _Call:
        """Run Apprise beside us, so that its call ends for us when our time does."""
        left = _left(deadline)
        if left is not None and not self._free.acquire(timeout=left):
            raise TryLater("pool", "all calls that may run at once were busy; raise the option connections")
        held, left = left is not None, _left(deadline)
        if left is None:
            if held:
                self._free.release()
            raise TryLater("deadline", "no time was left to send; raise the provider's timeout")
        call = _Call()
        # A little longer than the call: what ends it is our time, and not a read of Apprise's that says no more.
        service.socket_connect_timeout, service.socket_read_timeout = min(left, _CONNECTING), left + 1
        service.throttle = call.ask
        threading.Thread(target=self._run, args=(call, service, body), daemon=True).start()
        with deadline.cutting(call.ended.set):
            call.ended.wait(left)
        return call

    def _run(self, call: _Call, service: Any, body: str) -> None:
        from apprise import NotifyFormat  # noqa: PLC0415 - it is loaded by now

        _heard.set(call.heard)
        try:
            call.success = bool(service.notify(body=body, body_format=NotifyFormat.TEXT)) and not call.stopped
        except Exception:  # noqa: BLE001 - whatever a plugin raises, it says no more than that it failed
            call.success = False
        finally:
            call.ended.set()
            self._free.release()


@dataclass
class _Call:
    """One call of Apprise, and what is learnt of it."""

    success: bool | None = None
    """None while it runs."""
    asked: int = 0
    stopped: bool = False
    heard: list[str] = field(default_factory=list, repr=False)
    ended: threading.Event = field(default_factory=threading.Event)

    def ask(self, *_: object, **__: object) -> None:
        """Stands where a plugin slows itself down, before each request: none sleeps, and a second one is stopped."""
        self.asked += 1
        if self.asked > 1:
            self.stopped = True
            raise _OneRequestOnly


class _OneRequestOnly(Exception):
    """Apprise began to repeat by itself."""


def _left(deadline: Deadline) -> float | None:
    try:
        return deadline.remaining()
    except TimeoutError:
        return None


def _failure(call: _Call) -> ChannelError | None:
    if call.success is None:
        return Uncertain("timeout", "the request was sent, or is about to be, and no answer came in time")
    if call.success:
        return None
    words = " ".join(call.heard)
    if call.stopped:
        return Throttled("429", "the service asks us to slow down")  # the one thing that a plugin repeats for
    if found := _STATUS.search(words):
        failure = status_error(int(found[1]), None, Capability.OPAQUE)
        return failure or Uncertain(found[1], "the service answered yes, and Apprise took it for a no")
    for pattern, code, (outcome, detail) in SENTENCES:
        if pattern.search(words):
            return outcome(code, detail)
    return Uncertain("failure", "Apprise says that it failed, and not how")


# --- the library --------------------------------------------------------------------------------------


def _read_room(given: Options, name: str, room: str, value: object) -> Secret:
    option = f"rooms.{room}"
    url = Options("chat.apprise", name, {option: value}, (option,)).secret(option)
    problem = _problem(url.reveal()) or _problem_of(_service(url))
    if problem:
        raise given.wrong(option, problem)
    return url


def _problem_of(service: Any) -> str:
    """What is wrong with Apprise's object for a URL; empty where nothing is."""
    if service is None:
        return "is no URL that Apprise can read; see its page about the service"
    # Without a target, Telegram's plugin would ask who wrote to the bot last.
    if len(service) != 1 or getattr(service, "detect_owner", False):
        return "does not name one target; give each target a room of its own"
    return ""


def _problem(url: str) -> str:
    """What is wrong with a URL, as far as it is ours to say; empty where nothing is."""
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname or ""
    except ValueError:
        return "is no URL; see Apprise's page about the service"
    if scheme in OWN:
        return f"is of a service with a provider of its own; use {OWN[scheme]}"
    if scheme not in SERVICES:
        return f"begins with none of the services that are allowed: {', '.join(sorted(SERVICES))}"
    if scheme in _BARE and host not in {"127.0.0.1", "localhost"}:
        return f"would send its key in the clear; write {_BARE[scheme]}://"
    if said := sorted({key.lower() for key, _ in parse_qsl(parts.query, keep_blank_values=True)} & _SET_HERE):
        return f"sets {said[0]}, which is set here; leave it out"
    return ""


@cache
def _library() -> ModuleType:
    """Apprise with all its plugins."""
    if importlib.util.find_spec("apprise") is None:
        raise Misconfigured("missing", f"Apprise is not installed; {remedy('apprise')}")
    _quieten()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of modules that Python 3.13 drops: Apprise knows
        import apprise  # noqa: PLC0415 - large, and only for a fleet that uses it

        apprise.Apprise.instantiate("discord://")  # loads the plugins; the URL is none
    return apprise


def _service(url: Secret) -> Any:
    """Apprise's object for a URL; None where it knows no such thing. One for each call: it keeps state."""
    apprise = _library()
    asset = apprise.AppriseAsset(
        app_id="notify-tasks",
        app_desc="",
        app_url="",
        async_mode=False,
        default_service_retry=0,
        http_redirects=False,
        image_url_logo=None,  # else each post bids the service to fetch a picture from Apprise's own site
        image_url_mask=None,
    )
    return apprise.Apprise.instantiate(url.reveal(), asset=asset)


_heard: ContextVar[list[str] | None] = ContextVar("apprise_heard", default=None)


def _overhear(record: logging.LogRecord) -> bool:
    """Keep what Apprise says of our call, and let nobody else have it: it writes keys and messages down."""
    heard = _heard.get()
    if heard is not None:
        heard.append(record.getMessage())
    return False


def _is_others(_: logging.LogRecord) -> bool:
    """Whether a line was not written in a call of ours: urllib3 writes paths down, and some are keys."""
    return _heard.get() is None


def _quieten() -> None:
    logger = logging.getLogger("apprise")
    logger.addFilter(_overhear)
    logger.setLevel(logging.DEBUG)
    for name in ("urllib3.connection", "urllib3.connectionpool"):
        logging.getLogger(name).addFilter(_is_others)
