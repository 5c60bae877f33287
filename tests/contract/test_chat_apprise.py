"""`chat.apprise`: the library's own ways (throttle, repeats, redirects, logs, endless calls) are kept off a message.

The conformance suite cannot run it: Apprise opens a connection a message, and follows the environment's proxies.
Its promises of outcomes, deadlines and silence are held here instead.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

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
from channels.loader import load
from tests.contract.conformance import a_message, dump
from tests.contract.http_peer import HANG, RESET, RESET_FIRST, Answer, Drip, HttpPeer, Reply

apprise = pytest.importorskip("apprise", reason="Apprise is not installed")

TOKEN = "tok4711tok4711"
ROOM = "ops-room"
Build = Callable[..., Provider]


@pytest.fixture
def peer() -> Iterator[HttpPeer]:
    with HttpPeer(Reply(200, {"id": 7})) as running:
        yield running


@pytest.fixture
def build(peer: HttpPeer) -> Iterator[Build]:
    built: list[Provider] = []

    def make(url: str | None = None, **options: Any) -> Provider:
        url = url or f"gotify://127.0.0.1:{peer.port}/{TOKEN}"
        built.append(load("chat.apprise", "long-tail", {"rooms": {ROOM: url}, **options}))
        return built[-1]

    yield make
    for each in built:
        each.close()


@pytest.fixture
def provider(build: Build) -> Provider:
    return build()


def message(markdown: str = "Order **493817** is on its way") -> Message:
    return a_message("chat", ROOM, ChatContent(markdown))


def failure_of(
    provider: Provider, deadline: Deadline | None = None, told: Message | None = None
) -> ChannelError:
    with pytest.raises(ChannelError) as caught:
        provider.send(told or message(), deadline or Deadline(5))
    return caught.value


# --- taken ----------------------------------------------------------------------------------------------


def test_a_post_is_handed_over_in_one_request(peer: HttpPeer, provider: Provider) -> None:
    assert provider.send(message(), Deadline(5)) == Accepted(None, "success")

    (seen,) = peer.requests
    assert (seen.method, seen.target, seen.headers["x-gotify-key"]) == ("POST", "/message", TOKEN)
    assert json.loads(seen.body)["message"] == "Order 493817 is on its way"
    assert provider.capability is Capability.OPAQUE


@pytest.mark.parametrize("url", ["ntfy://127.0.0.1:{}/topic", "mmost://127.0.0.1:{}/" + TOKEN])
def test_other_services_take_it_too(url: str, peer: HttpPeer, build: Build) -> None:
    build(url.format(peer.port)).send(message(), Deadline(5))

    (seen,) = peer.requests
    assert b"Order 493817 is on its way" in seen.body
    assert b"github" not in seen.body  # no picture from Apprise's own site


def test_a_mention_is_broken_and_a_link_is_written_out(peer: HttpPeer, provider: Provider) -> None:
    provider.send(
        message(r"hi \@all \<!channel\> a@b.example \[x\](y) [Track](https://shop.example/a_b)"), Deadline(5)
    )

    assert json.loads(peer.requests[0].body)["message"] == (
        "hi @\u200ball <\u200b!channel> a@b.example [x]\u200b(y) Track: https://shop.example/a_b"
    )


def test_many_threads_send_at_once_and_nobody_is_slowed_down(peer: HttpPeer, build: Build) -> None:
    provider = build(f"ntfy://127.0.0.1:{peer.port}/topic")  # Apprise would wait 5.5 s between two of them

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: provider.send(message(), Deadline(5)), range(40)))

    assert len(peer.requests) == 40


# --- the table ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Refused),
        (401, Misconfigured),
        (402, Misconfigured),
        (403, Misconfigured),
        (404, Misconfigured),
        (405, Misconfigured),
        (408, TryLater),
        (409, Refused),
        (410, Misconfigured),
        (413, Refused),
        (415, Misconfigured),
        (425, TryLater),
        (429, Throttled),
        (500, Uncertain),
        (502, Uncertain),
        (503, Unavailable),
        (504, Uncertain),
    ],
)
def test_a_row_of_its_table(
    status: int, error: type[ChannelError], peer: HttpPeer, provider: Provider
) -> None:
    peer.says(Reply(status, headers={"Retry-After": "3600"}), Reply(200))

    failure = failure_of(provider)

    assert (type(failure), failure.code, failure.retry_after) == (error, str(status), None)
    assert len(peer.requests) == 1
    provider.send(message(), Deadline(5))  # one no does not spoil the provider


def test_ntfys_own_code_is_read_by_its_status(peer: HttpPeer, build: Build) -> None:
    peer.says(Reply(429, {"code": 42901, "http": 429, "error": "limit reached: too many requests"}))

    failure = failure_of(build(f"ntfy://127.0.0.1:{peer.port}/topic"))

    assert (type(failure), failure.code) == (Throttled, "429")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status: int, peer: HttpPeer, provider: Provider) -> None:
    with HttpPeer() as canary:
        peer.says(Reply(status, headers={"Location": canary.url}))

        assert type(failure_of(provider)) is Misconfigured
        assert (canary.connections, len(peer.requests)) == (0, 1)


def test_a_plugin_that_repeats_by_itself_is_stopped(
    peer: HttpPeer, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apprise.plugins.discord import NotifyDiscord  # noqa: PLC0415 - after the check that it is there

    monkeypatch.setattr(NotifyDiscord, "notify_url", f"{peer.url}/api/webhooks")
    later = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 3600)}
    peer.says(Reply(429, headers=later))
    deadline = Deadline(5)

    failure = failure_of(build(f"discord://4711/{TOKEN}"), deadline)

    assert (type(failure), failure.code) == (Throttled, "429")
    assert len(peer.requests) == 1
    assert deadline.overdue() < 0  # nobody slept for the hour


def test_a_refused_connection_is_surely_not_accepted(peer: HttpPeer, provider: Provider) -> None:
    peer.stop_listening()

    failure = failure_of(provider)

    assert (type(failure), failure.code) == (Unavailable, "connect")


@pytest.mark.parametrize("answer", [RESET, b"what?\r\n\r\n"], ids=["reset", "garbled"])
def test_a_lost_answer_is_uncertain(answer: Answer, peer: HttpPeer, provider: Provider) -> None:
    peer.says(answer)

    failure = failure_of(provider)

    assert (type(failure), failure.code) == (Uncertain, "failure")
    assert len(peer.requests) == 1


def test_a_reset_before_the_request_was_read_is_neither_yes_nor_no(
    peer: HttpPeer, provider: Provider
) -> None:
    peer.says(RESET_FIRST)

    assert type(failure_of(provider)) in {Uncertain, Unavailable}
    assert peer.requests == []


# --- time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [HANG, Drip(Reply(200), 0.05)], ids=["hang", "drip"])
def test_the_deadline_holds_though_apprise_cannot_be_ended(
    answer: Answer, peer: HttpPeer, provider: Provider
) -> None:
    peer.says(answer)
    deadline = Deadline(0.5)

    failure = failure_of(provider, deadline)

    assert (type(failure), failure.code) == (Uncertain, "timeout")
    assert 0 <= deadline.overdue() < 10
    assert len(peer.requests) == 1


def test_a_call_can_be_cut(peer: HttpPeer, provider: Provider) -> None:
    peer.says(HANG)
    deadline = Deadline(30)

    def cut() -> None:
        peer.until(lambda: peer.requests)
        deadline.cut()  # it may be a moment too early to find something to cut, and is heard then, too

    cutter = threading.Thread(target=cut)
    cutter.start()
    assert type(failure_of(provider, deadline)) is Uncertain
    cutter.join()
    assert deadline.overdue() < 0


def test_calls_that_go_on_by_themselves_are_bounded(peer: HttpPeer, build: Build) -> None:
    provider = build(connections=2)
    peer.says(Drip(Reply(200), 0.05))
    for _ in range(2):
        assert failure_of(provider, Deadline(0.2)).code == "timeout"

    failure = failure_of(provider, Deadline(0.2))

    assert (type(failure), failure.code) == (TryLater, "pool")
    assert len(peer.requests) == 2


def test_without_time_left_nothing_is_sent(peer: HttpPeer, provider: Provider) -> None:
    failure = failure_of(provider, Deadline(0))

    assert (type(failure), failure.code) == (TryLater, "deadline")
    assert peer.connections == 0


# --- limits ---------------------------------------------------------------------------------------------


def test_what_is_too_long_is_refused_and_not_split(peer: HttpPeer, build: Build) -> None:
    provider = build(f"mmost://127.0.0.1:{peer.port}/{TOKEN}")
    provider.send(message("x" * 4000), Deadline(5))

    failure = failure_of(provider, told=message("x" * 4001))

    assert type(failure) is Refused
    assert "content.markdown makes 4001 characters and the service carries 4000" in failure.detail
    assert len(peer.requests) == 1


def test_a_text_for_phones_is_refused(peer: HttpPeer, provider: Provider) -> None:
    assert type(failure_of(provider, told=replace(message(), content=TextContent("x")))) is Refused
    assert peer.connections == 0


def test_an_unknown_room_is_refused(peer: HttpPeer, provider: Provider) -> None:
    failure = failure_of(provider, told=replace(message(), address="elsewhere"))

    assert (type(failure), failure.code) == (Unroutable, "room")
    assert "elsewhere" not in str(failure)
    assert peer.connections == 0


# --- nothing private --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [Reply(200), Reply(400, f"493817 {TOKEN}"), Reply(429), HANG, RESET, b"what?\r\n\r\n"],
    ids=["taken", "400", "429", "hang", "reset", "garbled"],
)
@pytest.mark.parametrize("url", ["gotify://127.0.0.1:{}/", "mmost://127.0.0.1:{}/"])
def test_nothing_private_is_told(
    url: str, answer: Answer, peer: HttpPeer, build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider = build(url.format(peer.port) + TOKEN)
    peer.says(answer)
    told = [repr(provider), dump(provider)]
    failure: ChannelError | None = None

    try:
        provider.send(message(), Deadline(0.5))
    except ChannelError as error:
        failure = error
    if failure is not None:
        assert (failure.__cause__, failure.__context__) == (None, None)
        told += [str(failure), *traceback.format_exception(failure), dump(failure.args)]
    told += [dump(provider), caplog.text]

    assert len(peer.requests) == 1
    for private in (TOKEN, ROOM, "493817"):
        assert not any(private in each for each in told)


def test_what_others_log_of_their_requests_stays(caplog: pytest.LogCaptureFixture, build: Build) -> None:
    build()
    caplog.set_level(logging.DEBUG)

    logging.getLogger("urllib3.connectionpool").debug("a line of theirs")

    assert "a line of theirs" in caplog.text


# --- options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (7, "is no text"),
        (f"slack://{TOKEN}/x/y", "use chat.slack"),
        (f"msteams://{TOKEN}/x/y", "use chat.teams"),
        (f"workflows://host/{TOKEN}/x", "use chat.teams"),
        (f"dingtalk://{TOKEN}", "use chat.dingtalk"),
        (f"feishu://{TOKEN}", "use chat.feishu"),
        (f"lark://{TOKEN}", "use chat.feishu"),
        (f"wecombot://{TOKEN}", "use chat.wecom"),
        (f"json://host/{TOKEN}", "none of the services that are allowed"),
        (f"file:///etc/{TOKEN}", "none of the services that are allowed"),
        (f"matrix://host/{TOKEN}", "none of the services that are allowed"),
        (f"https://discord.com/api/webhooks/1/{TOKEN}", "none of the services that are allowed"),
        (f"[{TOKEN}", "none of the services that are allowed"),
        (f"discord://[{TOKEN}", "is no URL"),
        (f"gotify://push.example/{TOKEN}", "in the clear; write gotifys://"),
        (f"ntfy://{TOKEN}", "in the clear; write ntfys://"),
        (f"gotifys://push.example/{TOKEN}?retry=3", "sets retry, which is set here"),
        (f"gotifys://push.example/{TOKEN}?Verify=no", "sets verify, which is set here"),
        (f"gotifys://push.example/{TOKEN}?redirect=yes", "sets redirect, which is set here"),
        (f"discord://4711/{TOKEN}?template=/etc/passwd", "sets template, which is set here"),
        (f"mmosts://chat.example/{TOKEN}?to=a,b", "does not name one target"),
        (f"tgram://123456789:{TOKEN}abcdefghijklmnopqrstu/1/2", "does not name one target"),
        (f"tgram://123456789:{TOKEN}abcdefghijklmnopqrstu", "does not name one target"),
        ("pover://4711", "is no URL that Apprise can read"),
    ],
)
def test_a_url_that_is_not_for_it_is_refused_and_not_told(url: Any, said: str, build: Build) -> None:
    with pytest.raises(Misconfigured, match=rf"long-tail: rooms\.{ROOM} .*{said}") as caught:
        build(url)

    assert TOKEN not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize(
    "url",
    [
        f"discord://4711/{TOKEN}",
        f"gchat://space/{TOKEN}/{TOKEN}",
        f"gotifys://push.example/{TOKEN}",
        f"mmosts://chat.example/{TOKEN}",
        "ntfys://a-topic",
        "pover://uuuuuuuuuuuuuuuuuuuuuuuuuuuuuu@aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        f"tgram://123456789:{TOKEN}abcdefghijklmnopqrstu/1",
        "zulip://bot@org/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/stream",
    ],
)
def test_each_service_of_the_list_can_be_built(url: str, build: Build) -> None:
    assert TOKEN not in repr(build(url))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rooms": None}, "rooms is missing"),
        ({"rooms": {}}, "rooms is no table of names, or empty"),
        ({"rooms": "x"}, "rooms is no table of names, or empty"),
        ({"roomsx": {}}, "roomsx is no option .* did you mean rooms"),
        ({"connections": 0}, "connections is no whole number"),
        ({"ca_file": "/x"}, "ca_file is no option"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], said: str, build: Build) -> None:
    with pytest.raises(Misconfigured, match=f"long-tail: {said}"):
        build(**options)


def test_to_build_opens_no_connection(peer: HttpPeer, build: Build) -> None:
    build()
    assert peer.connections == 0
