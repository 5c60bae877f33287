"""Rooms of chat providers: names that a message is addressed to, hooks that nobody gets to see, and signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from channels.chat import dingtalk, feishu
from channels.contract import ChatContent, Deadline, Message, Misconfigured, Provider, Unroutable
from channels.loader import load
from tests.contract.conformance import a_message, dump
from tests.contract.http_peer import HttpPeer, Reply, Seen

PATHS = {
    "chat.dingtalk": "/robot/send?access_token=3f9b1c77",
    "chat.feishu": "/open-apis/bot/v2/hook/3f9b1c77",
    "chat.slack": "/services/T01/B02/3f9b1c77",
    "chat.teams": "/workflows/6f2c/triggers/manual/paths/invoke?sig=3f9b1c77",
    "chat.wecom": "/cgi-bin/webhook/send?key=3f9b1c77",
}
YES = Reply(200, {"errcode": 0, "code": 0})
SECRET = "SEC5d1f8b90c2e7"

Build = Callable[..., Provider]


@pytest.fixture(params=sorted(PATHS))
def use(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def peer() -> Iterator[HttpPeer]:
    with HttpPeer(YES) as running:
        yield running


@pytest.fixture
def build() -> Iterator[Build]:
    built: list[Provider] = []

    def make(use: str, rooms: Any, **options: Any) -> Provider:
        built.append(load(use, "the-provider", {"rooms": rooms, **options}))
        return built[-1]

    yield make
    for each in built:
        each.close()


def to(room: str) -> Message:
    return a_message("chat", room, ChatContent("Order **9** is on its way"))


# --- names ----------------------------------------------------------------------------------------------


def test_each_room_has_a_hook_of_its_own(use: str, peer: HttpPeer, build: Build) -> None:
    with HttpPeer(YES) as other:
        provider = build(use, {"ops": peer.url + PATHS[use], "sales": f"{other.url}{PATHS[use]}0"})

        provider.send(to("ops"), Deadline(5))
        provider.send(to("sales"), Deadline(5))
        provider.send(to("sales"), Deadline(5))

        assert [seen.target for seen in peer.requests] == [PATHS[use]]
        assert [seen.target for seen in other.requests] == [f"{PATHS[use]}0"] * 2
        assert other.connections == 1


def test_rooms_of_one_server_share_its_connections(use: str, peer: HttpPeer, build: Build) -> None:
    provider = build(use, {"ops": peer.url + PATHS[use], "sales": f"{peer.url}{PATHS[use]}0"})

    for room in ("ops", "sales", "ops"):
        provider.send(to(room), Deadline(5))

    assert (len(peer.requests), peer.connections) == (3, 1)


@pytest.mark.parametrize("room", ["sales", "OPS", "", "https://evil.example/services/x"])
def test_an_unknown_room_is_refused_and_the_name_not_told(
    room: str, use: str, peer: HttpPeer, build: Build
) -> None:
    with pytest.raises(Unroutable, match="add it to rooms") as caught:
        build(use, {"ops": peer.url + PATHS[use]}).send(to(room), Deadline(5))

    assert caught.value.code == "room"
    assert "sales" not in str(caught.value)
    assert peer.connections == 0


def test_neither_names_nor_hooks_are_shown(use: str, peer: HttpPeer, build: Build) -> None:
    provider = build(use, {"ops-room": peer.url + PATHS[use]})

    provider.send(to("ops-room"), Deadline(5))

    assert "3f9b1c77" not in dump(provider)
    assert "ops-room" not in dump(provider)


# --- what is wrong with them ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rooms", "said"),
    [
        ({}, "rooms is no table of names, or empty"),
        ("https://hook.example/x", "rooms is no table of names, or empty"),
        ({"ops": 7}, r"rooms\.ops is no text"),
        ({"ops": "env:OPS_HOOK"}, r"rooms\.ops was not read from the environment"),
        ({"ops": "C0123ABCDEF"}, r"rooms\.ops is no incoming webhook"),
        ({"ops": "https://hook.example/7716/elsewhere"}, r"rooms\.ops is no incoming webhook"),
        ({"ops": {"uri": "https://hook.example/7716"}}, r"rooms\.ops\.uri is no option .* did you mean"),
    ],
)
def test_a_wrong_table_is_named_and_not_told(rooms: Any, said: str, use: str, build: Build) -> None:
    with pytest.raises(Misconfigured, match=f"the-provider: {said}") as caught:
        build(use, rooms)

    assert "7716" not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_a_hook_goes_in_the_clear_to_this_machine_alone(use: str, build: Build) -> None:
    with pytest.raises(Misconfigured, match=r"rooms\.ops may be http:// for this machine alone"):
        build(use, {"ops": "http://hook.example" + PATHS[use]})
    build(use, {"ops": "https://hook.example" + PATHS[use]})


@pytest.mark.parametrize("use", ["chat.slack", "chat.teams", "chat.wecom"])
def test_where_nothing_is_signed_there_is_no_secret(use: str, build: Build) -> None:
    with pytest.raises(Misconfigured, match=r"rooms\.ops\.secret is no option"):
        build(use, {"ops": {"url": "https://hook.example" + PATHS[use], "secret": "x"}})


def test_teams_is_told_our_id(peer: HttpPeer, build: Build) -> None:
    message = to("ops")
    build("chat.teams", {"ops": peer.url + PATHS["chat.teams"]}).send(message, Deadline(5))

    assert peer.requests[0].headers["x-ms-client-tracking-id"] == message.delivery_id


def test_a_workflow_that_is_gone_says_what_to_do(peer: HttpPeer, build: Build) -> None:
    peer.says(Reply(404))

    with pytest.raises(Misconfigured, match="set its new URL"):
        build("chat.teams", {"ops": peer.url + PATHS["chat.teams"]}).send(to("ops"), Deadline(5))


# --- signatures -----------------------------------------------------------------------------------------


def signed(use: str, secret: str, seen: Seen) -> bool:
    """The services' own checks, written from their pages and from nothing of ours."""
    if use == "chat.dingtalk":
        query = parse_qs(urlsplit(seen.target).query, strict_parsing=True)
        stamp, sign = query["timestamp"][0], query["sign"][0]
        made = hmac.new(secret.encode(), f"{stamp}\n{secret}".encode(), hashlib.sha256).digest()
        return abs(int(stamp) - time.time() * 1000) < 60_000 and base64.b64decode(sign) == made
    body = json.loads(seen.body)
    key = "{}\n{}".format(body["timestamp"], secret)
    made = hmac.new(key.encode("utf-8"), digestmod=hashlib.sha256).digest()
    return abs(int(body["timestamp"]) - time.time()) < 60 and base64.b64decode(body["sign"]) == made


@pytest.mark.parametrize("use", ["chat.dingtalk", "chat.feishu"])
def test_a_room_with_a_secret_is_signed_for(use: str, peer: HttpPeer, build: Build) -> None:
    provider = build(use, {"ops": {"url": peer.url + PATHS[use], "secret": SECRET}})

    provider.send(to("ops"), Deadline(5))

    (seen,) = peer.requests
    assert signed(use, SECRET, seen)
    assert not signed(use, "SEC0000", seen)
    assert SECRET not in seen.target
    assert SECRET.encode() not in seen.body
    assert SECRET not in dump(provider)


@pytest.mark.parametrize("use", ["chat.dingtalk", "chat.feishu"])
@pytest.mark.parametrize("written", [lambda url: url, lambda url: {"url": url}], ids=["text", "table"])
def test_a_room_without_a_secret_is_not(
    use: str, written: Callable[[str], Any], peer: HttpPeer, build: Build
) -> None:
    build(use, {"ops": written(peer.url + PATHS[use])}).send(to("ops"), Deadline(5))

    (seen,) = peer.requests
    assert seen.target == PATHS[use]
    assert "sign" not in json.loads(seen.body)


def test_dingtalks_signature_is_one_of_its_query() -> None:
    query = dingtalk.signature("this is secret", 1577262236757)

    made = hmac.new(b"this is secret", b"1577262236757\nthis is secret", hashlib.sha256).digest()
    assert parse_qs(query) == {"timestamp": ["1577262236757"], "sign": [base64.b64encode(made).decode()]}
    assert "+" not in query
    assert "/" not in query


def test_feishus_signature_has_the_time_in_its_key() -> None:
    made = hmac.new(b"1599360473\ndemo", b"", hashlib.sha256).digest()

    assert feishu.signature("demo", 1599360473) == {
        "timestamp": "1599360473",
        "sign": base64.b64encode(made).decode(),
    }
