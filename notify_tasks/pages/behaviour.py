"""How the targets of a far end behave, and the modes that a page offers for each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from notify_tasks.pages.wired import PROVIDERS
from notify_tasks.sandbox.log import LoggedRequest
from notify_tasks.sandbox.modes import REFUSE, SMTP, Mode, modes_of
from notify_tasks.sandbox.server import SandboxServer
from notify_tasks.sandbox.wires.finding import wires

SLOW_SECONDS: Final = 3.0
NAMES: Final = {
    SMTP: "Mail (SMTP)",
    "sms": "SMS",
    "push": "Push",
    "webpush": "Web push",
    "webhook": "Webhook",
    "chat": "Chat",
    "email": "Mail (HTTP)",
    "inapp": "In-app (HTTP)",
}
"""Targets that are no provider's, in the order in which a page shows them; each channel's providers follow it."""
USUAL: Final = tuple(name for name in NAMES if name not in {"email", "inapp"})
"""The two others are shown where something was sent to them, or when they misbehave."""
_SMTP: Final = ("ok", "slow", "421", "450", REFUSE, "drop_after_dot")
_HTTP: Final = ("ok", "slow", "429", "503", REFUSE, "accept_then_reset")
_WORDS: Final = {"drop_after_dot": "drop", "accept_then_reset": "drop"}
_MEANT: Final = {
    "429": "429 Too Many Requests, Retry-After 2 s: asks to slow down",
    "503": "503 Service Unavailable: down, or busy",
    "400": "400 Bad Request: will never take this message",
    "410": "410 Gone: this address is dead",
    "401": "401 Unauthorized: does not know us",
    "500": "500 Internal Server Error",
}
_MORE_STATUSES: Final = ("400", "401", "410", "500")


@dataclass(frozen=True, slots=True)
class Choice:
    """One mode that can be chosen: its name, a short word, and what it does."""

    mode: str
    word: str
    means: str


@dataclass(frozen=True, slots=True)
class Target:
    """One target as it behaves now.

    Args:
        channel: whose picture stands beside it.
        provider: it is one provider's API, and stands below its channel.
        mode: its name; `ok` where it is well again.
        times: how often it will still be played; None for always.
        choices: the usual modes.
        more: the others.
        taken: requests that had an effect.
        refused: requests that were not taken.
    """

    name: str
    label: str
    channel: str
    provider: bool
    mode: str
    word: str
    means: str
    times: int | None
    choices: tuple[Choice, ...]
    more: tuple[Choice, ...]
    taken: int
    refused: int

    @property
    def well(self) -> bool:
        return self.mode == "ok"


class Behaviour:
    """What a page says of the far end.

    Args:
        server: the far end, started.
    """

    def __init__(self, server: SandboxServer) -> None:
        self._server = server
        self.taken: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def count(self, request: LoggedRequest) -> None:
        """Count a request that the far end has logged."""
        if request.action in {"find", "side"}:
            return
        own = request.protocol == SMTP or request.protocol in wires()
        target = request.protocol if own else request.channel or ""
        if request.accepted:
            self.taken[target] += 1
        elif not request.duplicate_of_key:
            self.refused[target] += 1

    def targets(self) -> list[Target]:
        """Every target that is of interest."""
        now = self._server.modes.now()
        found = []
        for name in _in_order():
            mode = now[name]
            shown = name in USUAL or name in wires()
            if shown or not mode.well or self.taken[name] or self.refused[name]:
                found.append(self._target(name, mode))
        return found

    def _target(self, name: str, mode: Mode) -> Target:
        played = "ok" if mode.well else mode.name
        known = modes_of(name)
        usual = _SMTP if name == SMTP else _HTTP
        names = [
            *usual,
            *(each for each in (*known, *(() if name == SMTP else _MORE_STATUSES)) if each not in usual),
        ]
        choices = [
            Choice(each, _WORDS.get(each, each.replace("_", " ")), _means(name, each)) for each in names
        ]
        word = _WORDS.get(played, played.replace("_", " "))
        return Target(
            name=name,
            label=NAMES.get(name) or PROVIDERS.get(name, name),
            channel=name if name in NAMES else wires()[name].channel,
            provider=name not in NAMES,
            mode=played,
            word=word,
            means=_means(name, played),
            times=mode.times if not mode.well else None,
            choices=tuple(choices[: len(usual)]),
            more=tuple(choices[len(usual) :]),
            taken=self.taken[name],
            refused=self.refused[name],
        )


def _in_order() -> list[str]:
    """Every target: each channel, and the providers that carry it."""
    names: list[str] = []
    for name in NAMES:
        names.append(name)
        channel = "email" if name == SMTP else name
        names += [it.name for it in wires().values() if it.channel == channel]
    return list(dict.fromkeys(names))


def mode_of(choice: str, *, once: bool) -> dict[str, Any]:
    """A mode as the control API takes it, for what was chosen on a page.

    Args:
        choice: its name.
        once: play it to the next request only. A closed port stays closed: nobody would know whose request it met.
    """
    values: dict[str, Any] = {"mode": choice}
    if once and choice not in {"ok", REFUSE}:
        values["times"] = 1
    if choice == "slow":
        values["delay"] = SLOW_SECONDS
    if choice == "429":
        values["retry_after"] = "2"
    return values


def _means(target: str, mode: str) -> str:
    means = modes_of(target).get(mode) or _MEANT.get(mode) or f"answers {mode}"
    return means.replace("`delay` seconds later (1 s if not given)", f"{SLOW_SECONDS:g} s later")
