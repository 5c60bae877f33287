"""What every provider promises: one suite over each file in `channels/*/`. `conformance.py` says how to join."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from channels.contract import (
    Accepted,
    Capability,
    ChannelError,
    ChatContent,
    Deadline,
    Message,
    Misconfigured,
    Provider,
    Refused,
    TextContent,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
    Unroutable,
)
from channels.loader import describe, load, names
from channels.receipts import Forged, Receipt, Reporting
from tests.contract.conformance import ELSEWHERE, Adapter, adapter_of, dump
from tests.contract.http_peer import HANG, RESET, RESET_FIRST, Answer, Drip, HttpPeer, Reply

CONNECTIONS = 4


def there_are() -> list[str]:
    found = []
    for use in names():
        try:
            found.append(adapter_of(use).use)
        except Exception:  # noqa: BLE001 - `test_every_provider_is_covered` tells, and the others go on
            continue
    return found


@pytest.fixture(params=there_are())
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return adapter_of(request.param)


@pytest.fixture
def peer(adapter: Adapter) -> Iterator[HttpPeer]:
    with HttpPeer(adapter.takes) as running:
        running.asides.update(adapter.asides)
        yield running


Build = Callable[..., Provider]


@pytest.fixture
def build(adapter: Adapter, peer: HttpPeer) -> Iterator[Build]:
    """Build the provider, as the fleet does."""
    built: list[Provider] = []

    def make(**changes: object) -> Provider:
        pool = {"connections": CONNECTIONS} if adapter.pooled else {}
        options = {**adapter.options(peer), **pool, **changes}
        built.append(load(adapter.use, "the-provider", {k: v for k, v in options.items() if v is not None}))
        return built[-1]

    yield make
    for each in built:
        each.close()


@pytest.fixture
def provider(build: Build) -> Provider:
    return build()


@pytest.fixture
def message(adapter: Adapter, peer: HttpPeer) -> Message:
    return adapter.message(peer)


def failure_of(provider: Provider, message: Message, deadline: Deadline | None = None) -> ChannelError:
    with pytest.raises(ChannelError) as caught:
        provider.send(message, deadline or Deadline(10))
    return caught.value


def each(part: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test once for each item that an adapter has in `part`."""
    items = [
        pytest.param(use, item, id=f"{use}-{place}")
        for use in there_are()
        for place, item in enumerate(getattr(adapter_of(use), part))
    ]
    return pytest.mark.parametrize(("adapter", "item"), items, indirect=["adapter"])


# --- everyone is here -------------------------------------------------------------------------------


@pytest.mark.parametrize("use", names())
def test_every_provider_is_covered(use: str) -> None:
    if use in ELSEWHERE:
        with pytest.raises(LookupError):  # one or the other
            adapter_of(use)
    else:
        adapter_of(use)


def test_nobody_is_excused_who_is_not_there() -> None:
    assert set(ELSEWHERE) <= set(names())


def test_a_missing_adapter_says_what_to_write() -> None:
    with pytest.raises(LookupError, match=r"write tests/contract/providers/sms_acme\.py with an ADAPTER"):
        adapter_of("sms.acme")


def test_whether_it_reports_back_is_told_without_loading_it(adapter: Adapter, provider: Provider) -> None:
    told = {it.name: it.receipts for it in describe()}

    assert isinstance(provider, Reporting) is told[adapter.use]
    if isinstance(provider, Reporting):
        with pytest.raises(Forged):
            provider.verify(Receipt("POST", "", {}, b""))


# --- taken ------------------------------------------------------------------------------------------


def test_a_message_is_handed_over_in_one_request(
    adapter: Adapter, peer: HttpPeer, provider: Provider, message: Message
) -> None:
    accepted = provider.send(message, Deadline(10))

    assert accepted == adapter.expected(message)
    assert accepted.provider_message_id
    assert len(peer.requests) == 1


def test_it_is_a_provider_of_its_kind(adapter: Adapter, provider: Provider) -> None:
    assert isinstance(provider, Provider)
    assert provider.capability is adapter.capability
    assert adapter.capability is not Capability.IDEMPOTENT or adapter.key_of is not None
    assert hasattr(provider, "find") == (adapter.capability is Capability.QUERYABLE)


def test_a_repetition_has_the_same_key(
    adapter: Adapter, peer: HttpPeer, provider: Provider, message: Message
) -> None:
    if adapter.key_of is None:
        pytest.skip("the provider knows no keys")
    for attempt in (1, 2):
        provider.send(replace(message, attempt=attempt), Deadline(10))

    assert [adapter.key_of(seen) for seen in peer.requests] == [message.idempotency_key] * 2


def test_many_threads_share_few_connections(adapter: Adapter, peer: HttpPeer, provider: Provider) -> None:
    messages = [adapter.message(peer) for _ in range(60)]

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda each: provider.send(each, Deadline(20)), messages))

    assert len(peer.requests) == 60
    assert peer.connections <= (CONNECTIONS if adapter.pooled else 12)


def test_a_closed_provider_opens_again(peer: HttpPeer, provider: Provider, message: Message) -> None:
    provider.send(message, Deadline(10))
    provider.close()
    provider.send(message, Deadline(10))

    assert len(peer.requests) == 2


@each("malformed")
def test_a_yes_that_cannot_be_read_is_never_a_no(
    item: object, peer: HttpPeer, provider: Provider, message: Message
) -> None:
    reply, outcome = item.reply, item.outcome  # type: ignore[attr-defined]
    peer.says(reply)

    if isinstance(outcome, Accepted):
        assert provider.send(message, Deadline(10)) == outcome
    else:
        assert outcome is Uncertain
        assert type(failure_of(provider, message)) is outcome
    assert len(peer.requests) == 1


# --- the table --------------------------------------------------------------------------------------


@each("rows")
def test_a_row_of_its_table(
    item: object, adapter: Adapter, peer: HttpPeer, provider: Provider, message: Message
) -> None:
    row = item
    peer.says(row.reply, adapter.takes)  # type: ignore[attr-defined]

    failure = failure_of(provider, message)

    assert (type(failure), failure.code) == (row.error, row.code)  # type: ignore[attr-defined]
    assert failure.retry_after == row.retry_after  # type: ignore[attr-defined]
    assert failure.detail
    assert len(peer.requests) == 1
    provider.send(adapter.message(peer), Deadline(10))  # one no does not spoil the provider


def test_the_asked_wait_is_told_and_not_slept(peer: HttpPeer, provider: Provider, message: Message) -> None:
    peer.says(Reply(429, headers={"Retry-After": "3600"}))
    deadline = Deadline(5)

    failure = failure_of(provider, message, deadline)

    assert (type(failure), failure.retry_after) == (Throttled, 3600)
    assert deadline.overdue() < 0
    assert len(peer.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_failing_server_is_asked_once(
    status: int, adapter: Adapter, peer: HttpPeer, provider: Provider, message: Message
) -> None:
    peer.says(Reply(status, "<html>sorry</html>"))
    doubt = Uncertain if adapter.capability is Capability.OPAQUE else TryLater

    failure = failure_of(provider, message)

    assert type(failure) is (adapter.down if status == 503 else doubt)
    assert len(peer.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(
    status: int, peer: HttpPeer, provider: Provider, message: Message
) -> None:
    with HttpPeer() as canary:
        peer.says(Reply(status, headers={"Location": canary.url}))

        assert type(failure_of(provider, message)) in {Misconfigured, Refused}
        assert canary.connections == 0
        assert len(peer.requests) == 1


# --- lost, and never sent ---------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [HANG, Drip(Reply(200), 0.05)], ids=["hang", "drip"])
def test_a_provider_that_does_not_answer_gets_one_request_and_the_deadline(
    answer: Answer, adapter: Adapter, peer: HttpPeer, provider: Provider, message: Message
) -> None:
    provider.send(adapter.message(peer), Deadline(20))  # what it loads and opens first is not this story
    peer.says(answer)
    deadline = Deadline(0.5)

    assert type(failure_of(provider, message, deadline)) is Uncertain

    assert 0 <= deadline.overdue() < 10
    assert len(peer.requests) == 2


def test_a_reset_after_the_request_leaves_it_uncertain(
    peer: HttpPeer, provider: Provider, message: Message
) -> None:
    peer.says(RESET)

    assert type(failure_of(provider, message)) is Uncertain
    assert len(peer.requests) == 1


def test_a_reset_before_the_request_was_read_is_neither_yes_nor_no(
    peer: HttpPeer, provider: Provider, message: Message
) -> None:
    peer.says(RESET_FIRST)

    assert type(failure_of(provider, message)) in {Uncertain, TryLater, Unavailable}
    assert peer.requests == []


def test_a_refused_connection_is_surely_not_accepted(
    adapter: Adapter, peer: HttpPeer, provider: Provider, message: Message
) -> None:
    peer.stop_listening()

    assert type(failure_of(provider, message)) is adapter.down


def test_without_time_left_nothing_is_sent(peer: HttpPeer, provider: Provider, message: Message) -> None:
    assert type(failure_of(provider, message, Deadline(0))) is TryLater
    assert peer.connections == 0


@each("too_long")
def test_what_is_too_long_is_refused_before_it_is_sent(
    item: object, peer: HttpPeer, provider: Provider
) -> None:
    failure = failure_of(provider, item.message(peer))  # type: ignore[attr-defined]

    assert type(failure) in {Refused, Unroutable}  # the latter where a provider takes approved texts alone
    assert item.field in failure.detail  # type: ignore[attr-defined]
    assert peer.connections == 0


def test_content_of_another_channel_is_refused(peer: HttpPeer, provider: Provider, message: Message) -> None:
    other = ChatContent("x") if isinstance(message.content, TextContent) else TextContent("x")

    assert type(failure_of(provider, replace(message, content=other))) is Refused
    assert peer.connections == 0


def test_the_environments_proxies_are_ignored(
    peer: HttpPeer, build: Build, message: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpPeer() as canary:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, canary.url)

        build().send(message, Deadline(10))

        assert canary.connections == 0


# --- nothing private --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        None,
        Reply(400),
        Reply(401),
        Reply(429),
        Reply(500, "no"),
        Reply(200, "not JSON"),
        HANG,
        RESET,
        b"what?\r\n\r\n",
    ],
    ids=["taken", "400", "401", "429", "500", "unreadable", "hang", "reset", "garbled"],
)
def test_nothing_private_is_told(
    answer: Answer | None,
    adapter: Adapter,
    peer: HttpPeer,
    build: Build,
    message: Message,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = [message.address, *adapter.private]
    provider = build()
    told = [dump(provider), repr(provider.send(message, Deadline(20)))]
    if answer is not None:
        peer.says(replace(answer, body=" ".join(secrets)) if isinstance(answer, Reply) else answer)

    failure: ChannelError | None = None
    try:
        told.append(repr(provider.send(message, Deadline(0.5))))
    except ChannelError as error:
        failure = error
    if failure is not None:
        # Either would hold the request, with its body.
        assert (failure.__cause__, failure.__context__) == (None, None)
        told += [str(failure), repr(failure), *traceback.format_exception(failure), dump(failure.args)]

    assert len(peer.requests) == 2
    told += [dump(provider), repr(message), caplog.text]
    for secret in secrets:
        assert not any(secret in text for text in told)


# --- options ----------------------------------------------------------------------------------------


def test_a_misspelt_option_gets_the_right_one(adapter: Adapter, peer: HttpPeer, build: Build) -> None:
    for option in adapter.options(peer):
        with pytest.raises(Misconfigured, match="did you mean") as caught:
            build(**{f"{option}x": "something-493817"})
        assert option in caught.value.detail
        assert "the-provider" in caught.value.detail
        assert "493817" not in str(caught.value)


def test_each_required_option_is_asked_for(adapter: Adapter, build: Build) -> None:
    for option in adapter.required:
        with pytest.raises(Misconfigured, match=f"the-provider: {option} "):
            build(**{option: None})


def test_an_option_of_the_wrong_type_is_named_and_not_told(
    adapter: Adapter, peer: HttpPeer, build: Build
) -> None:
    for option in adapter.options(peer):
        with pytest.raises(Misconfigured, match=option) as caught:
            build(**{option: {"a": "table-493817"}})
        assert "493817" not in str(caught.value)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_to_build_opens_no_connection(peer: HttpPeer, provider: Provider) -> None:
    assert repr(provider)
    assert peer.connections == 0
