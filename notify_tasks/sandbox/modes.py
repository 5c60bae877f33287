"""How the far end can be told to behave: one mode for each target, and addresses that carry their own.

A target is `smtp`, a channel of the HTTP far end, or a wire: a provider's API (`twilio`). `webhook` and `webpush`
are both. A mode has

* `rate`: the share of requests it is played to, drawn from a seeded generator of the target's own;
* `times`: how often it is played before the target is well again;
* `delay`: seconds, for the modes that wait;
* `retry_after`: the text of the Retry-After header: seconds, an HTTP date, or nonsense;
* `on`: `send` (the default) or `find`, for HTTP.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from notify_tasks.routing import CHANNELS
from notify_tasks.sandbox.wires.finding import wires

SMTP: Final = "smtp"
REFUSE: Final = "refuse"
BAD_CERTIFICATE: Final = "bad_certificate"

_BOTH: Final = {
    "ok": "takes the message",
    "slow": "takes the message, answers `delay` seconds later (1 s if not given)",
    REFUSE: "the port is closed: connection refused. For one HTTP target it closes the ports of all of them",
}
HTTP_MODES: Final = _BOTH | {
    "accept_then_reset": "takes the message, then resets the connection",
    "accept_then_hang": "takes the message, never answers",
    "hang_before_accept": "reads the request, never takes or answers it",
    "drip": "takes the message, answers one byte every `delay` seconds (1 s if not given)",
    "garbage_json": "takes the message, says yes with a body that is not JSON",
    "no_id": "takes the message, says yes without an id",
    "truncated": "takes the message, ends its yes in the middle of the body",
    "wrong_length": "takes the message, says yes with a Content-Length that is too small",
    "big_body": "takes the message, says yes with 10 MB",
    "gzip_bomb": "takes the message, says yes with 64 kB that unpack to 64 MB",
    "redirect": "307 to another path of this server, which logs whoever follows",
    BAD_CERTIFICATE: "the HTTPS port, that of all of them, shows a certificate that ca.pem did not sign",
}
SMTP_MODES: Final = _BOTH | {
    "421": "421 4.7.0 to MAIL, then closes",
    "450": "450 4.2.0 to RCPT: greylisted",
    "550": "550 5.1.1 to RCPT: no such user",
    "554": "554 5.7.1 after the dot: policy",
    "535": "535 5.7.8 to AUTH",
    "drop_before_data": "closes at DATA, before its 354",
    "drop_after_dot": "takes the message, closes without a reply",
    "hang_after_dot": "takes the message, never replies",
    BAD_CERTIFICATE: "offers a certificate that ca.pem did not sign",
}
_SMTP_MOMENTS: Final = {"535": "auth", BAD_CERTIFICATE: "connect"}
_OF_PORTS: Final = frozenset({REFUSE, BAD_CERTIFICATE})
_FIND_MODES: Final = frozenset(
    {"ok", "slow", "drip", "redirect", "accept_then_reset", "accept_then_hang", "hang_before_accept"}
)
_STATUS: Final = re.compile(r"[3-5][0-9]{2}")

# What an address can ask for, by the first word of its local part, its last path segment, or itself.
_WORDS: Final[Mapping[str, tuple[str, str]]] = {  # word: (on SMTP, on HTTP)
    "bounce": ("550", "410"),
    "reject": ("554", "400"),
    "flaky": ("450", "503"),
    "throttle": ("421", "429"),
    "slow": ("slow", "slow"),
    "lost": ("drop_after_dot", "accept_then_reset"),
}
# Aliyun, which writes no plus, takes eleven digits for a Chinese number.
_NUMBER: Final = re.compile(r"\+(?:86)?1555([3-5][0-9]{2})[0-9]{4}")


def targets() -> tuple[str, ...]:
    """Everything that has a mode: SMTP, the channels, the wires."""
    return tuple(dict.fromkeys((SMTP, *CHANNELS, *wires())))


def modes_of(target: str) -> Mapping[str, str]:
    """The modes of a target that have a name, and what they do."""
    if target == SMTP:
        return SMTP_MODES
    wire = wires().get(target)
    return HTTP_MODES if wire is None else {**HTTP_MODES, **wire.modes}


class ModeError(ValueError):
    """A mode that cannot be set; the text names the field and what it may be."""


@dataclass(frozen=True, slots=True)
class Mode:
    """How to treat a request."""

    name: str = "ok"
    rate: float = 1.0
    times: int | None = None
    delay: float = 1.0
    retry_after: str | None = None
    on: str = "send"

    @property
    def well(self) -> bool:
        """It does nothing bad, or not any more."""
        return self.name == "ok" or self.times == 0

    @property
    def status(self) -> int | None:
        """The HTTP status, for a mode that is one."""
        return int(self.name) if _STATUS.fullmatch(self.name) else None

    @property
    def of_wire(self) -> bool:
        """A wire plays it: a no in the provider's own words."""
        return self.status is None and self.name not in HTTP_MODES


OK: Final = Mode()
_NO_WORDS: Final[Mapping[str, str]] = MappingProxyType({})


def parse_mode(target: str, values: object) -> Mode:
    """Read a mode as the control API gets it.

    Raises:
        ModeError: the target, a field or a value is wrong.
    """
    if target not in targets():
        raise ModeError(f"there is no target {target!r}; it may be {', '.join(targets())}")
    if not isinstance(values, dict):
        raise ModeError('the mode is not an object; send {"mode": "429", "retry_after": 2}')
    known = {"mode", "rate", "times", "delay", "retry_after", "on"}
    if unknown := sorted(set(values) - known):
        raise ModeError(f"unknown fields {', '.join(unknown)}; a mode has {', '.join(sorted(known))}")
    mode = Mode(
        name=_name(target, values.get("mode")),
        rate=_number(values, "rate", 1.0, most=1.0),
        times=None if values.get("times") is None else int(_number(values, "times", 1, most=1e9)),
        delay=_number(values, "delay", 1.0, most=3600.0),
        retry_after=None if values.get("retry_after") is None else str(values["retry_after"]),
        on=values.get("on") or "send",
    )
    if mode.on not in {"send", "find"}:
        raise ModeError("on is neither 'send' nor 'find'")
    if mode.on == "find" and mode.status is None and mode.name not in _FIND_MODES:
        raise ModeError(
            f"{mode.name} cannot be played on find; choose {', '.join(sorted(_FIND_MODES))} or a status"
        )
    of_port = mode.name == REFUSE or (mode.name == BAD_CERTIFICATE and target != SMTP)
    if of_port and (mode.times is not None or mode.rate != 1.0):
        done = "closes" if mode.name == REFUSE else "changes"
        raise ModeError(f"{mode.name} {done} the port for everybody: set it without rate and times")
    return dataclasses.replace(mode, on=_SMTP_MOMENTS.get(mode.name, "send")) if target == SMTP else mode


def _name(target: str, name: object) -> str:
    known = modes_of(target)
    statuses = "" if target == SMTP else ", or a status from 300 to 599"
    if isinstance(name, str) and (name in known or (target != SMTP and _STATUS.fullmatch(name))):
        return name
    raise ModeError(f"mode {name!r} is not one of {target}'s: {', '.join(known)}{statuses}")


def _number(values: Mapping[str, Any], field: str, default: float, *, most: float) -> float:
    value = values.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ModeError(f"{field} is not a number from 0 to {most:g}")
    return float(value)


class Modes:
    """The mode of each target, and the draw which requests it meets.

    Args:
        seed: the same seed, the same requests in the same order: the same draws.
    """

    def __init__(self, seed: int) -> None:
        self._draws = {target: random.Random(f"{seed}/{target}") for target in targets()}  # noqa: S311 - not a secret
        self._modes: dict[str, Mode] = dict.fromkeys(targets(), OK)
        self._seen: set[str] = set()
        self._remembered: dict[tuple[str, str], str] = {}
        self.watch: Callable[[], None] = lambda: None
        """Called after each change, also when the `times` of a mode are used up."""

    def set(self, target: str, mode: Mode) -> None:
        self._modes[target] = mode
        self.watch()

    def clear(self, target: str | None = None) -> None:
        """Make one target well again, or all. Its people take their stops back, too."""
        cleared = targets() if target is None else (target,)
        for each in cleared:
            self._modes[each] = OK
        self._remembered = {key: mode for key, mode in self._remembered.items() if key[0] not in cleared}
        self.watch()

    def remember(self, target: str, address: str, mode: str | None) -> None:
        """Play a mode to one address from now on, whatever the target's is; None to forget it."""
        self._remembered.pop((target, address), None)
        if mode is not None:
            self._remembered[target, address] = mode

    def now(self) -> dict[str, Mode]:
        return dict(self._modes)

    def refuses(self, *targets: str) -> bool:
        """Whether one of these targets has its port closed."""
        return any(self._modes[target].name == REFUSE for target in targets)

    def shows_wrong_certificate(self) -> bool:
        """Whether one of the HTTP targets wants that."""
        return any(mode.name == BAD_CERTIFICATE for target, mode in self._modes.items() if target != SMTP)

    def draw(self, target: str, moment: str = "send") -> Mode:
        """The mode that the next request of this target meets, which counts as one of its `times`."""
        mode = self._modes[target]
        ports = _OF_PORTS if target != SMTP else {REFUSE}
        if mode.on != moment or mode.name in {"ok", *ports} or mode.times == 0:
            return OK
        if mode.rate < 1.0 and self._draws[target].random() >= mode.rate:
            return OK
        if mode.times is not None:
            self._modes[target] = dataclasses.replace(mode, times=mode.times - 1)
            self.watch()
        return mode

    def of_address(self, target: str, address: str, words: Mapping[str, str] = _NO_WORDS) -> Mode | None:
        """The mode that an address asks for by itself, if it does.

        `bounce@example.com`, `bounce-7@example.com`, `https://example.com/hooks/bounce` and `bounce-device`
        are dead addresses; `reject`, `flaky` (refused the first time, well from then on), `throttle`, `slow`
        and `lost` work alike. A number `+1555SSSxxxx` is answered with the status `SSS`: 555 is no
        area code.

        Args:
            target: where it was sent to.
            address: whom to.
            words: what a wire makes of them: see `wires.wire.Wire`.
        """
        if remembered := self._remembered.get((target, address)):
            return Mode(remembered)
        segment = address.rstrip("/").rpartition("/")[2].partition("@")[0]
        word = re.split(r"[^a-z]", segment, maxsplit=1)[0]
        if target != SMTP and (number := _NUMBER.fullmatch(address)):
            name = number[1]
        else:
            name = _WORDS.get(word, ("", ""))[0 if target == SMTP else 1]
        name = words.get(address) or words.get(word) or words.get(name, name)
        if name in {"", "ok"} or (word == "flaky" and not self._first(target, address)):
            return None
        return Mode(name, retry_after="1" if word and name in {"429", "503"} else None)

    def _first(self, target: str, address: str) -> bool:
        """Whether this address was not seen before."""
        known = f"{target} {address}" in self._seen
        self._seen.add(f"{target} {address}")
        return not known
