"""What a provider shows the conformance suite, `test_conformance.py`, which runs over every file in `channels/*/`.

A new provider `channels/sms/acme.py` needs one file here, `tests/contract/providers/sms_acme.py`, in which
`ADAPTER` says how to build it against an `HttpPeer`, and what that answers::

    def options(peer):
        return {"url": peer.url, "token": TOKEN}

    def message(peer):
        return a_message("sms", "+491701234567", TextContent("one-time code 493817"))

    ADAPTER = Adapter(
        use="sms.acme",
        capability=Capability.OPAQUE,
        options=options,
        required=("token",),
        message=message,
        private=(TOKEN, "493817"),
        takes=Reply(201, {"id": "m-1"}),
        accepted=Accepted("m-1", "201"),
        rows=(
            Row(Reply(400, {"error": "BAD_NUMBER"}), AddressInvalid, "BAD_NUMBER"),
            Row(Reply(401), Misconfigured, "401"),
            ...,  # each row of the provider's table
        ),
        malformed=(Unreadable(Reply(201, "not JSON"), Accepted(None, "201")),),
        too_long=(TooLong(lambda peer: replace(message(peer), content=TextContent("x" * 2000)), "content.text"),),
    )

Then run `pytest tests/contract/test_conformance.py -k sms.acme`. What a provider does beyond that (signatures,
receipts, tokens) is the story of its own test file. A provider that cannot be told where its far end is goes
into `ELSEWHERE`, with the suite that covers it.
"""

from __future__ import annotations

import importlib
import importlib.util
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final

from channels.contract import Accepted, Capability, ChannelError, Content, Message, Unavailable
from tests.contract.http_peer import Answer, HttpPeer, Seen

_SAME_CODE = "the code of sms.sandbox; tests/contract/test_sandbox_providers.py runs each channel's"
ELSEWHERE: Final[Mapping[str, str]] = {
    "chat.apprise": "it opens a connection a message, by requests of its own: tests/contract/test_chat_apprise.py",
    "email.smtp": "it speaks SMTP: tests/contract/test_email_smtp.py",
    "inapp.store": "it has no far end: tests/contract/test_sandbox_providers.py, and the fleet's inbox",
    **{
        f"{channel}.sandbox": _SAME_CODE
        for channel in ("chat", "email", "inapp", "push", "webhook", "webpush")
    },
}
"""Providers without an adapter, and why that is right."""


@dataclass(frozen=True)
class Row:
    """One row of a provider's error table: what the far end answers, and what that is.

    Args:
        code: the provider's own, as the error keeps it.
        retry_after: seconds that the error asks for.
    """

    reply: Answer
    error: type[ChannelError]
    code: str
    retry_after: float | None = None


@dataclass(frozen=True)
class Unreadable:
    """An answer that says yes without saying it well, and what the provider makes of it."""

    reply: Answer
    outcome: Accepted | type[ChannelError]


@dataclass(frozen=True)
class TooLong:
    """A message over one of the provider's limits, and the field that the refusal names."""

    message: Callable[[HttpPeer], Message]
    field: str


@dataclass(frozen=True)
class Adapter:
    """How to hold one provider against its promises.

    Args:
        use: `sms.acme`.
        capability: as the provider has it. After a 500, `OPAQUE` means `Uncertain`, the others `TryLater`.
        options: builds it against this far end.
        required: options that it cannot do without.
        message: one that it takes. A new one each time: `a_message` draws ids.
        private: keys, and words of the message, that must never be told. The address is one in any case.
        takes: what the far end answers to an accepted message.
        accepted: what the provider makes of that; None for the id: see `accepted_for`.
        rows: each row of its table.
        malformed: answers of 2xx that cannot be read.
        too_long: messages over its limits, which never leave.
        down: what a refused connection and a 503 mean. A server of one user's is never `Unavailable`.
        asides: answers by target to what it asks beside its messages, such as a token.
        pooled: whether it has the option `connections`, and keeps to it.
        key_of: finds our idempotency key in a request; `IDEMPOTENT` needs it.
        accepted_for: where what is accepted depends on the message.
    """

    use: str
    capability: Capability
    options: Callable[[HttpPeer], Mapping[str, Any]]
    message: Callable[[HttpPeer], Message]
    private: Sequence[str]
    takes: Answer
    rows: Sequence[Row]
    malformed: Sequence[Unreadable]
    required: Sequence[str] = ()
    accepted: Accepted | None = None
    too_long: Sequence[TooLong] = ()
    down: type[ChannelError] = Unavailable
    asides: Mapping[str, Answer] = field(default_factory=dict)
    pooled: bool = True
    key_of: Callable[[Seen], str | None] | None = None
    accepted_for: Callable[[Message], Accepted] | None = None

    def expected(self, message: Message) -> Accepted:
        """What the provider makes of an accepted message."""
        found = self.accepted_for(message) if self.accepted_for else self.accepted
        assert found is not None, f"{self.use}: say what is accepted, by `accepted` or `accepted_for`"
        return found


def a_message(channel: str, address: str, content: Content) -> Message:
    """A message with ids of its own."""
    return Message(
        delivery_id=str(uuid.uuid4()),
        idempotency_key=str(uuid.uuid4()),
        channel=channel,
        event_type="order.shipped",
        address=address,
        content=content,
    )


def adapter_of(use: str) -> Adapter:
    """The adapter of a provider.

    Raises:
        LookupError: there is none. The text says what to write.
    """
    module = f"tests.contract.providers.{use.replace('.', '_')}"
    if importlib.util.find_spec(module) is None:
        raise LookupError(
            f"{use} has no conformance adapter: write {module.replace('.', '/')}.py with an ADAPTER, as the "
            "docstring of tests/contract/conformance.py shows"
        )
    found = importlib.import_module(module).ADAPTER
    assert isinstance(found, Adapter)
    assert found.use == use, f"{module} is the adapter of {found.use}"
    return found


# --- what an object gives away ----------------------------------------------------------------------


def dump(root: object) -> str:
    """All that a debugger, or a report of an error, shows of an object: reprs and attributes, all the way down."""
    told: list[str] = []
    seen: set[int] = set()
    waiting: list[object] = [root]
    while waiting and len(seen) < 20_000:
        it = waiting.pop()
        if id(it) in seen or isinstance(it, type | ModuleType | FunctionType | MethodType):
            continue
        seen.add(id(it))
        told.append(repr(it))
        waiting += _inside(it)
    return "\n".join(told)


def _inside(it: object) -> list[object]:
    if isinstance(it, Mapping):
        return [*it.keys(), *it.values()]
    if isinstance(it, list | tuple | set | frozenset):
        return list(it)
    inside = list(getattr(it, "__dict__", {}).values())
    for each in type(it).__mro__:
        slots = each.__dict__.get("__slots__", ())
        names = [slots] if isinstance(slots, str) else list(slots)
        private = [f"_{each.__name__.lstrip('_')}{name}" for name in names if name.startswith("__")]
        inside += [getattr(it, name) for name in [*names, *private] if hasattr(it, name)]
    return inside
