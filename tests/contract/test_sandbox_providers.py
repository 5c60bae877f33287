"""What every sandbox provider promises, against the real far end in its own process."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
import time
import traceback
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from channels._http_outcomes import parse_retry_after
from channels._sandbox import QueryableSandbox
from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    ChannelError,
    ChatContent,
    Content,
    DataContent,
    Deadline,
    EmailContent,
    Message,
    Misconfigured,
    Provider,
    Queryable,
    Refused,
    TextContent,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from channels.loader import load, names
from notify_tasks.routing import CHANNELS
from notify_tasks.sandbox import LoggedRequest, Sandbox, sandbox_process

SECRET = "one-time code 493817"
CONTENTS: dict[str, Content] = {
    "email": EmailContent(subject="Hello", text=SECRET),
    "sms": TextContent(SECRET),
    "push": DataContent({"title": SECRET}),
    "webpush": DataContent({"title": SECRET}),
    "inapp": DataContent({"title": SECRET}),
    "webhook": DataContent({"title": SECRET}),
    "chat": ChatContent(f"*{SECRET}*"),
}
KINDS = [kind.value for kind in Capability]
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def far_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_process(tmp_path_factory.mktemp("sandbox"), seed=7) as running:
        yield running


@pytest.fixture
def sandbox(far_end: Sandbox) -> Sandbox:
    far_end.clear_modes()
    return far_end


@pytest.fixture
def provider(sandbox: Sandbox) -> Iterator[Callable[..., Provider]]:
    """Build a sandbox provider, as the fleet does."""
    built: list[Provider] = []

    def build(kind: str = "opaque", channel: str = "sms", **options: object) -> Provider:
        options = {"url": sandbox.http_url, "kind": kind} | options
        built.append(load(f"{channel}.sandbox", f"{channel}-main", options))
        return built[-1]

    yield build
    for each in built:
        each.close()


def a_message(
    channel: str = "sms", address: str = "+491701234567", content: Content | None = None
) -> Message:
    return Message(
        delivery_id=str(uuid.uuid4()),
        idempotency_key=str(uuid.uuid4()),
        channel=channel,
        event_type="order.shipped",
        address=address,
        content=content or CONTENTS[channel],
    )


def seen(sandbox: Sandbox, message: Message) -> list[LoggedRequest]:
    return [each for each in sandbox.requests() if each.idempotency_key == message.idempotency_key]


def failure_of(provider: Provider, message: Message, deadline: Deadline | None = None) -> ChannelError:
    with pytest.raises(ChannelError) as caught:
        provider.send(message, deadline or Deadline(10))
    return caught.value


# --- taken ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", CHANNELS)
def test_each_channel_hands_its_message_over(
    channel: str, sandbox: Sandbox, provider: Callable[..., Provider]
) -> None:
    message = a_message(channel)

    accepted = provider(channel=channel).send(message, Deadline(10))

    [request] = seen(sandbox, message)
    assert request.accepted
    assert (request.channel, request.delivery_id, request.to) == (
        channel,
        message.delivery_id,
        message.address,
    )
    assert accepted == Accepted(request.id, "202")


def test_there_is_a_sandbox_for_every_channel() -> None:
    assert {f"{channel}.sandbox" for channel in CHANNELS} <= set(names())


def test_the_same_key_twice_has_one_effect_where_the_provider_knows_keys(
    sandbox: Sandbox, provider: Callable[..., Provider]
) -> None:
    message, idempotent = a_message(), provider("idempotent")

    first, second = (idempotent.send(message, Deadline(10)) for _ in range(2))

    assert first == second
    assert [request.accepted for request in seen(sandbox, message)] == [True, False]


def test_the_same_key_twice_has_two_effects_at_an_opaque_provider(
    sandbox: Sandbox, provider: Callable[..., Provider]
) -> None:
    message, opaque = a_message(), provider("opaque")

    first, second = (opaque.send(message, Deadline(10)) for _ in range(2))

    assert first != second
    assert [request.accepted for request in seen(sandbox, message)] == [True, True]
    assert not isinstance(opaque, Queryable)


def test_a_queryable_provider_tells_what_became_of_a_lost_answer(
    sandbox: Sandbox, provider: Callable[..., Provider]
) -> None:
    lost, never = a_message(), a_message()
    queryable = provider("queryable")
    assert isinstance(queryable, QueryableSandbox)
    sandbox.set_mode("sms", "accept_then_reset", times=1)

    assert isinstance(failure_of(queryable, lost), Uncertain)

    assert queryable.find(lost, Deadline(10)) == Accepted(seen(sandbox, lost)[0].id, "200")
    assert queryable.find(never, Deadline(10)) is None


@pytest.mark.parametrize(
    ("mode", "outcome"),
    [
        ("accept_then_reset", TryLater),
        ("accept_then_hang", TryLater),
        ("500", TryLater),
        ("401", Misconfigured),
        ("429", Throttled),
        ("503", Unavailable),
    ],
)
def test_a_question_without_an_answer_never_passes_for_a_no(
    mode: str, outcome: type[ChannelError], sandbox: Sandbox, provider: Callable[..., Provider]
) -> None:
    queryable = provider("queryable")
    assert isinstance(queryable, QueryableSandbox)
    sandbox.set_mode("sms", mode, on="find")

    with pytest.raises(outcome):
        queryable.find(a_message(), Deadline(0.5 if mode == "accept_then_hang" else 10))


# --- refused ----------------------------------------------------------------------------------------

ANSWERS: list[tuple[str, str | None, type[ChannelError], type[ChannelError]]] = [
    # status, Retry-After, at a provider that knows keys, at an opaque one
    ("redirect", None, Misconfigured, Misconfigured),
    ("304", None, Misconfigured, Misconfigured),
    ("400", None, Refused, Refused),
    ("401", None, Misconfigured, Misconfigured),
    ("403", None, Misconfigured, Misconfigured),
    ("404", None, AddressInvalid, AddressInvalid),
    ("408", None, TryLater, TryLater),
    ("410", None, AddressInvalid, AddressInvalid),
    ("413", None, Refused, Refused),
    ("422", None, Refused, Refused),
    ("425", None, TryLater, TryLater),
    ("429", None, Throttled, Throttled),
    ("500", None, TryLater, Uncertain),
    ("502", None, TryLater, Uncertain),
    ("504", None, TryLater, Uncertain),
    ("503", None, Unavailable, Unavailable),
    ("503", "30", TryLater, TryLater),
    ("503", "soon", Unavailable, Unavailable),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("mode", "retry_after", "keyed", "opaque"), ANSWERS)
def test_a_status_says_what_to_do_next(
    mode: str,
    retry_after: str | None,
    keyed: type[ChannelError],
    opaque: type[ChannelError],
    kind: str,
    sandbox: Sandbox,
    provider: Callable[..., Provider],
) -> None:
    message = a_message()
    sandbox.set_mode("sms", mode, **({"retry_after": retry_after} if retry_after else {}))

    failure = failure_of(provider(kind), message)

    assert type(failure) is (opaque if kind == "opaque" else keyed)
    assert failure.code == ("307" if mode == "redirect" else mode)
    [request] = seen(sandbox, message)
    assert not request.accepted
    assert all(each.action != "invalid" for each in sandbox.requests())  # no redirect was followed


def test_the_asked_wait_is_surfaced_and_not_slept(
    sandbox: Sandbox, provider: Callable[..., Provider]
) -> None:
    sandbox.set_mode("sms", "429", retry_after=3600)
    deadline = Deadline(5)

    failure = failure_of(provider(), message := a_message(), deadline)

    assert failure.retry_after == 3600
    assert deadline.overdue() < 0
    assert len(seen(sandbox, message)) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("17", 17),
        ("1.5", 1.5),
        (format_datetime(NOW + timedelta(minutes=2), usegmt=True), 120),
        (format_datetime(NOW - timedelta(minutes=2), usegmt=True), 0),
        ("Mon, 23 Nov 2026 12:00:30 -0000", 30),
        (format_datetime(NOW + timedelta(days=900), usegmt=True), 86_400),
        ("86401", 86_400),
        ("9" * 500, 86_400),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("1e3", None),
        ("Mon, 99 Nov 2026 12:00:00 GMT", None),
    ],
)
def test_a_retry_after_is_seconds_or_a_date_and_never_more_than_a_day(
    header: str | None, seconds: float | None
) -> None:
    assert parse_retry_after(header, NOW) == seconds


# --- lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["accept_then_hang", "hang_before_accept", "slow", "drip"])
def test_a_provider_that_does_not_answer_gets_one_request_and_the_deadline(
    mode: str, sandbox: Sandbox, provider: Callable[..., Provider]
) -> None:
    sandbox.set_mode("sms", mode, delay=0.2 if mode == "drip" else 60)
    deadline = Deadline(0.6)

    failure = failure_of(provider(), message := a_message(), deadline)

    assert type(failure) is Uncertain
    assert 0 <= deadline.overdue() < 10
    until(lambda: seen(sandbox, message))
    assert len(seen(sandbox, message)) == 1


def test_an_answer_that_begins_to_drip_too_late_for_its_end_is_still_a_yes(
    sandbox: Sandbox, provider: Callable[..., Provider]
) -> None:
    # Its head is through after about 0.1 s, its last byte after 0.2 s.
    sandbox.set_mode("sms", "drip", delay=0.001)
    message = a_message()
    got = provider().send(message, Deadline(5))

    assert got == Accepted(seen(sandbox, message)[0].id, "202")


def test_a_reset_after_the_request_leaves_it_uncertain(
    sandbox: Sandbox, provider: Callable[..., Provider]
) -> None:
    sandbox.set_mode("sms", "accept_then_reset")

    failure = failure_of(provider(), message := a_message())

    assert (type(failure), failure.code) == (Uncertain, "connection-lost")
    assert [request.accepted for request in seen(sandbox, message)] == [True]


@pytest.mark.parametrize(
    "mode", ["garbage_json", "no_id", "truncated", "wrong_length", "big_body", "gzip_bomb"]
)
def test_a_yes_that_cannot_be_read_is_a_yes_without_an_id(
    mode: str, sandbox: Sandbox, provider: Callable[..., Provider]
) -> None:
    sandbox.set_mode("sms", mode, times=1)
    sender, message, next_one = provider(), a_message(), a_message()

    assert sender.send(message, Deadline(10)) == Accepted(None, "202 unreadable")

    assert [request.accepted for request in seen(sandbox, message)] == [True]
    assert sender.send(next_one, Deadline(10)).provider_message_id == seen(sandbox, next_one)[0].id


@pytest.mark.parametrize("mode", ["big_body", "gzip_bomb"])
def test_a_huge_answer_is_neither_read_nor_unpacked(
    mode: str, sandbox: Sandbox, provider: Callable[..., Provider]
) -> None:
    sandbox.set_mode("sms", mode)
    sender = provider()

    tracemalloc.start()
    try:
        sender.send(a_message(), Deadline(10))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2 * 1024 * 1024


def test_a_watchdog_can_cut_a_call(sandbox: Sandbox, provider: Callable[..., Provider]) -> None:
    sandbox.set_mode("sms", "accept_then_hang")
    message, deadline, sender = a_message(), Deadline(60), provider()

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(failure_of, sender, message, deadline)
        until(lambda: seen(sandbox, message))
        assert deadline.cut()
        failure = call.result(timeout=10)

    assert type(failure) is Uncertain


# --- not sent ---------------------------------------------------------------------------------------


def test_a_closed_port_is_surely_not_accepted(sandbox: Sandbox, provider: Callable[..., Provider]) -> None:
    sender = provider()
    sender.send(a_message(), Deadline(10))  # so that a pooled connection is there to mislead
    sandbox.set_mode("sms", "refuse")

    failure = failure_of(sender, message := a_message())
    sandbox.clear_modes()

    assert (type(failure), failure.code) == (Unavailable, "connect")
    assert seen(sandbox, message) == []
    assert sender.send(message, Deadline(10)).code == "202"


def test_a_connection_that_nobody_takes_is_surely_not_accepted(provider: Callable[..., Provider]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, fill_backlog(deaf):
        deadline = Deadline(0.5)

        failure = failure_of(provider(url=f"http://127.0.0.1:{deaf.getsockname()[1]}"), a_message(), deadline)

    assert (type(failure), failure.code) == (Unavailable, "connect-timeout")
    assert deadline.overdue() < 10


def test_without_time_left_nothing_is_sent(sandbox: Sandbox, provider: Callable[..., Provider]) -> None:
    failure = failure_of(provider(), message := a_message(), Deadline(0))

    assert (type(failure), failure.code) == (TryLater, "deadline")
    assert seen(sandbox, message) == []


def test_when_every_connection_is_busy_the_next_call_waits_no_longer_than_its_deadline(
    sandbox: Sandbox, provider: Callable[..., Provider]
) -> None:
    sandbox.set_mode("sms", "accept_then_hang", times=1)
    sender, first, second = provider(connections=1), a_message(), a_message()
    deadline = Deadline(60)

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(failure_of, sender, first, deadline)
        until(lambda: seen(sandbox, first))
        failure = failure_of(sender, second, Deadline(0.3))
        deadline.cut()
        call.result(timeout=10)

    assert (type(failure), failure.code) == (TryLater, "pool")
    assert seen(sandbox, second) == []


# --- economy and privacy ----------------------------------------------------------------------------


def test_sends_share_the_pooled_connections(sandbox: Sandbox, provider: Callable[..., Provider]) -> None:
    sender, messages = provider(connections=4), [a_message() for _ in range(60)]

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda message: sender.send(message, Deadline(20)), messages))

    keys = {message.idempotency_key for message in messages}
    requests_seen = [each for each in sandbox.requests() if each.idempotency_key in keys]
    assert len(requests_seen) == 60
    assert len({each.connection for each in requests_seen}) <= 4


def test_a_closed_provider_opens_again(provider: Callable[..., Provider]) -> None:
    sender = provider()
    sender.close()

    assert sender.send(a_message(), Deadline(10)).code == "202"


@pytest.mark.parametrize(
    "mode", ["ok", "400", "accept_then_reset", "accept_then_hang", "garbage_json", "refuse"]
)
def test_nothing_private_is_told(
    mode: str, sandbox: Sandbox, provider: Callable[..., Provider], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sandbox.set_mode("sms", mode)
    sender, message = provider(), a_message()
    told = [repr(sender), repr(message)]

    if mode in {"ok", "garbage_json"}:
        told.append(repr(sender.send(message, Deadline(10))))
    else:
        failure = failure_of(sender, message, Deadline(0.5))
        told += [str(failure), repr(failure), "".join(traceback.format_exception(failure))]
        assert failure.__cause__ is None
        assert failure.__context__ is None  # it would hold the request, with its body

    for text in (*told, caplog.text):
        assert message.address not in text
        assert "493817" not in text


# --- what cannot be sent or configured --------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "content"),
    [
        ("sms", DataContent({"a": 1})),
        ("push", TextContent("text")),
        ("email", ChatContent("text")),
        ("push", DataContent({"a": float("nan")})),
        ("push", DataContent({"a": object()})),
    ],
)
def test_content_that_the_channel_cannot_carry_is_refused(
    channel: str, content: Content, sandbox: Sandbox, provider: Callable[..., Provider]
) -> None:
    failure = failure_of(provider(channel=channel), message := a_message(channel, content=content))

    assert (type(failure), failure.code) == (Refused, "content")
    assert seen(sandbox, message) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "url"),
        ({"url": "https://127.0.0.1:1"}, "url"),
        ({"url": "http://user:pass@127.0.0.1:1"}, "url"),
        ({"url": "http://127.0.0.1:1/path"}, "url"),
        ({"url": "http://[::1"}, "url"),
        ({"url": "http://127.0.0.1:99999"}, "url"),
        ({"url": "http://127.0.0.1:1", "kind": "magic"}, "kind"),
        ({"url": "http://127.0.0.1:1", "connections": 0}, "connections"),
        ({"url": "http://127.0.0.1:1", "colour": "red"}, "colour"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(Misconfigured, match=named) as caught:
        load("sms.sandbox", "sms-main", options)

    assert "sms-main" in str(caught.value)
    assert "pass@" not in str(caught.value)


# --- the inbox --------------------------------------------------------------------------------------


class MemoryInbox:
    """The smallest inbox there can be; the fleet's own is tested where it is."""

    def __init__(self) -> None:
        self.messages: dict[str, Message] = {}

    def put(self, message: Message) -> bool:
        return self.messages.setdefault(message.delivery_id, message) is message


def test_the_inbox_provider_stores_a_message_once() -> None:
    inbox, message = MemoryInbox(), a_message("inapp")
    store = load("inapp.store", "inbox", {"inbox": inbox})

    answers = {store.send(message, Deadline(5)) for _ in range(2)}

    assert answers == {Accepted(message.delivery_id, "stored")}
    assert inbox.messages == {message.delivery_id: message}
    assert store.capability is Capability.IDEMPOTENT


def test_the_inbox_provider_takes_data_only_and_only_in_time() -> None:
    inbox = MemoryInbox()
    store = load("inapp.store", "inbox", {"inbox": inbox})

    assert type(failure_of(store, a_message("sms"))) is Refused
    assert type(failure_of(store, a_message("inapp"), Deadline(0))) is TryLater
    assert inbox.messages == {}


@pytest.mark.parametrize(
    "options", [{}, {"inbox": None}, {"inbox": object()}, {"inbox": MemoryInbox(), "url": ""}]
)
def test_the_inbox_provider_needs_the_fleets_inbox_and_nothing_else(options: dict[str, object]) -> None:
    with pytest.raises(Misconfigured):
        load("inapp.store", "inbox", options)


# --- helpers ----------------------------------------------------------------------------------------


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come about in time"
        threading.Event().wait(0.01)


class fill_backlog:  # noqa: N801 - used like a function
    """Connect to a socket that accepts nothing until its queue is full."""

    def __init__(self, deaf: socket.socket) -> None:
        self._address = deaf.getsockname()
        self._held: list[socket.socket] = []

    def __enter__(self) -> None:
        for _ in itertools.repeat(None, 32):
            held = socket.socket()
            held.settimeout(0.1)
            self._held.append(held)
            try:
                held.connect(self._address)
            except TimeoutError:
                return

    def __exit__(self, *_: object) -> None:
        for held in self._held:
            held.close()
