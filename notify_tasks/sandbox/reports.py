"""What a provider's far end tells later: the contract between the wires that report back and `reporting`, which sends.

A `Plan` is how reports are played for one target: `PUT /control/receipts/{target}` sets it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from notify_tasks.sandbox.log import LoggedRequest
from notify_tasks.sandbox.wires.wire import Reading, Request

DELIVERED: Final = "delivered"
"""The outcome that every wire knows, and that is played where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that was taken, and that is reported on."""

    request: Request
    reading: Reading
    taken: LoggedRequest


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a provider's to our door: a POST.

    Args:
        heard: whether a 2xx with this body says that it was taken, for a provider that reads it.
    """

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    heard: Callable[[bytes], bool] = field(default=lambda _: True, repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one target reports.

    Args:
        url: where to, for a provider whose console has it; and where a person's messages to us go. Twilio's receipts
            go where each request says.
        on: whether it reports at all.
        outcome: what becomes of messages, unless their address says: one of the wire's `outcomes`.
        code: the provider's own code of a bad outcome; None for the usual one.
        delay: seconds after the message was taken.
        before_response: the reports are there before the answer is.
        duplicate: each report is sent twice.
        reordered: the last one first.
        forged: signed with a key that is not the account's.
    """

    url: str | None = field(default=None, repr=False)
    on: bool = True
    outcome: str = DELIVERED
    code: str | None = None
    delay: float = 0.0
    before_response: bool = False
    duplicate: bool = False
    reordered: bool = False
    forged: bool = False


@runtime_checkable
class Reporting(Protocol):
    """A wire that reports back."""

    outcomes: Mapping[str, str]
    """What can become of a message, and what that means; `delivered` is one."""

    def outcome_of(self, address: str) -> tuple[str, str | None] | None:
        """The outcome, and perhaps its code, that an address asks for by itself."""

    def reports(self, sent: Sent, outcome: str, code: str | None) -> Sequence[Mapping[str, Any]]:
        """What is told of a message, in the order in which it happens."""

    def calls(self, sent: Sent, reports: Sequence[Mapping[str, Any]], plan: Plan) -> Sequence[Call]:
        """The requests that tell it, signed, or forged where the plan says so. None where nobody wants them."""

    def inbound(self, said: Mapping[str, str], plan: Plan) -> Call | None:
        """The request that tells what a person wrote to us; None for a provider that nobody can answer.

        Args:
            said: `from`, `to` and `body`.
            plan: whose `url` is called, which is not None.
        """
