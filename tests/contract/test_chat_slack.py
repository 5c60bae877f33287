"""`chat.slack` beside the conformance suite, which runs it with a token: hooks, and what goes with a post."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from channels.contract import (
    Accepted,
    AddressInvalid,
    ChannelError,
    ChatContent,
    Deadline,
    Message,
    Misconfigured,
    Provider,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from channels.loader import load
from tests.contract.conformance import a_message, dump
from tests.contract.http_peer import HANG, RESET, Answer, HttpPeer, Reply

HOOK = "/services/T0123ABCD/B0123ABCD/XyZ9q8w7e6r5t4"
ROOM = "ops-room"
TOKEN = "xoxb-17653672481-bZ8RXcwCGqXDF5LKQg"
YES = Reply(200, {"ok": True, "ts": "1503435956.000247"})

Build = Callable[..., Provider]


@pytest.fixture
def peer() -> Iterator[HttpPeer]:
    with HttpPeer(Reply(200, "ok", {"x-slack-req-id": "req-81f0"})) as running:
        yield running


@pytest.fixture
def build() -> Iterator[Build]:
    built: list[Provider] = []

    def make(**options: Any) -> Provider:
        built.append(load("chat.slack", "team-chat", options))
        return built[-1]

    yield make
    for each in built:
        each.close()


@pytest.fixture
def by_hook(peer: HttpPeer, build: Build) -> Provider:
    return build(rooms={"ops-room": peer.url + HOOK})


def to(address: str) -> Message:
    return a_message("chat", address, ChatContent("Order **493817** is on its way"))


# --- hooks ----------------------------------------------------------------------------------------------


def test_a_hook_takes_a_post(peer: HttpPeer, by_hook: Provider) -> None:
    assert by_hook.send(to("ops-room"), Deadline(5)) == Accepted("req-81f0", "200")

    (seen,) = peer.requests
    assert (seen.method, seen.target) == ("POST", HOOK)
    assert json.loads(seen.body) == {
        "text": "Order *493817* is on its way",
        "mrkdwn": True,
        "unfurl_links": False,
        "unfurl_media": False,
    }
    assert "authorization" not in seen.headers


def test_a_hook_that_names_no_request_leaves_our_key(peer: HttpPeer, by_hook: Provider) -> None:
    peer.says(Reply(200, "ok"))
    message = to("ops-room")

    assert by_hook.send(message, Deadline(5)) == Accepted(message.idempotency_key, "200")


@pytest.mark.parametrize(
    ("reply", "error", "code", "retry_after"),
    [
        (Reply(429, "rate_limited", {"Retry-After": "1"}), Throttled, "rate_limited", 1),
        (Reply(429, headers={"Retry-After": "30"}), Throttled, "429", 30),
        (Reply(404, "no_service"), Misconfigured, "no_service", None),
        (Reply(404, "no_active_hooks"), Misconfigured, "no_active_hooks", None),
        (Reply(403, "invalid_token"), Misconfigured, "invalid_token", None),
        (Reply(404, "no_team"), Misconfigured, "no_team", None),
        (Reply(403, "team_disabled"), Misconfigured, "team_disabled", None),
        (Reply(401), Misconfigured, "401", None),
        (Reply(403), Misconfigured, "403", None),
        (Reply(404), Misconfigured, "404", None),
        (Reply(410, "channel_is_archived\n"), AddressInvalid, "channel_is_archived", None),
        (Reply(404, "channel_not_found"), AddressInvalid, "channel_not_found", None),
        (Reply(400, "user_not_found"), AddressInvalid, "user_not_found", None),
        (Reply(403, "action_prohibited"), AddressInvalid, "action_prohibited", None),
        (Reply(410), AddressInvalid, "410", None),
        (Reply(400, "invalid_payload"), Refused, "invalid_payload", None),
        (Reply(400, "no_text"), Refused, "no_text", None),
        (Reply(400, "invalid_blocks"), Refused, "invalid_blocks", None),
        (Reply(400, "about 493817"), Refused, "400", None),
        (Reply(413), Refused, "413", None),
        (Reply(500, "rollup_error"), Uncertain, "rollup_error", None),
        (Reply(500), Uncertain, "500", None),
        (Reply(503), Unavailable, "503", None),
        (Reply(503, headers={"Retry-After": "7"}), TryLater, "503", 7),
        (Reply(302, headers={"Location": "http://127.0.0.1/"}), Misconfigured, "302", None),
    ],
)
def test_a_row_of_the_hooks_table(
    reply: Reply,
    error: type[ChannelError],
    code: str,
    retry_after: float | None,
    peer: HttpPeer,
    by_hook: Provider,
) -> None:
    peer.says(reply)

    with pytest.raises(ChannelError) as caught:
        by_hook.send(to("ops-room"), Deadline(5))

    failure = caught.value
    assert (type(failure), failure.code, failure.retry_after) == (error, code, retry_after)
    assert failure.detail
    assert len(peer.requests) == 1


@pytest.mark.parametrize("answer", [Reply(400, f"493817 {HOOK}"), Reply(404, HOOK), HANG, RESET], ids=repr)
def test_a_hook_is_told_to_nobody(
    answer: Answer, peer: HttpPeer, by_hook: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    peer.says(answer)

    with pytest.raises(ChannelError) as caught:
        by_hook.send(to(ROOM), Deadline(0.5))

    told = [dump(by_hook), *traceback.format_exception(caught.value), dump(caught.value.args), caplog.text]
    for private in (HOOK.rpartition("/")[2], "493817", ROOM):
        assert not any(private in each for each in told)


# --- the token ------------------------------------------------------------------------------------------


def test_a_token_posts_into_a_channel(peer: HttpPeer, build: Build) -> None:
    peer.says(YES)
    message = to("C0123ABCDEF")

    assert build(token=TOKEN, url=peer.url).send(message, Deadline(5)) == Accepted("1503435956.000247", "ok")

    (seen,) = peer.requests
    body = json.loads(seen.body)
    assert (seen.target, seen.headers["authorization"]) == ("/api/chat.postMessage", f"Bearer {TOKEN}")
    assert (body["channel"], body["text"]) == ("C0123ABCDEF", "Order *493817* is on its way")
    assert body["metadata"]["event_payload"] == {"delivery_id": message.delivery_id}
    assert body["link_names"] is False


@pytest.mark.parametrize("address", ["U0123ABCDEF", "D0123ABCDEF", "G0123ABCDEF", "#ops", "#über-uns"])
def test_people_and_names_are_addresses_too(address: str, peer: HttpPeer, build: Build) -> None:
    peer.says(YES)
    build(token=TOKEN, url=peer.url).send(to(address), Deadline(5))

    assert json.loads(peer.requests[0].body)["channel"] == address


@pytest.mark.parametrize("address", ["ops", "", "C0123 ABCDEF", "#a b", "#", "c0123abcdef", "@bob", "#a\n"])
def test_what_is_no_conversation_is_refused_before_it_is_sent(
    address: str, peer: HttpPeer, build: Build
) -> None:
    with pytest.raises(Refused, match="no id of a Slack channel"):
        build(token=TOKEN, url=peer.url).send(to(address), Deadline(5))
    assert peer.connections == 0


def test_a_request_throttled_by_its_body_alone_says_how_long(peer: HttpPeer, build: Build) -> None:
    peer.says(Reply(200, {"ok": False, "error": "ratelimited"}, {"Retry-After": "12"}))

    with pytest.raises(Throttled) as caught:
        build(token=TOKEN, url=peer.url).send(to("C0123ABCDEF"), Deadline(5))
    assert (caught.value.code, caught.value.retry_after) == ("ratelimited", 12)


# --- one or the other -----------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["token", "url"])
def test_rooms_and_a_token_are_two_providers(other: str, peer: HttpPeer, build: Build) -> None:
    with pytest.raises(Misconfigured, match=f"team-chat: {other} stands beside rooms"):
        build(rooms={"ops": peer.url + HOOK}, **{other: peer.url})


def test_with_neither_both_are_named(build: Build) -> None:
    with pytest.raises(Misconfigured, match=r"token is missing; .*SLACK_TOKEN.*rooms\.ops"):
        build()


def test_the_post_may_have_as_many_characters_as_slack_shows(peer: HttpPeer, by_hook: Provider) -> None:
    by_hook.send(a_message("chat", "ops-room", ChatContent("é" * 40_000)), Deadline(5))
    with pytest.raises(Refused, match=r"content\.markdown makes 40004 characters and Slack carries 40000"):
        by_hook.send(a_message("chat", "ops-room", ChatContent("é" * 39_999 + r"\&")), Deadline(5))
    assert len(peer.requests) == 1
