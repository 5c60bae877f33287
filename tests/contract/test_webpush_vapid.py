"""What `webpush.vapid` promises beside the conformance suite: what a browser reads, who signed, and where it goes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from channels.contract import (
    Accepted,
    AddressInvalid,
    ChannelError,
    DataContent,
    Deadline,
    Message,
    Misconfigured,
    Prewarmed,
    Refused,
    TryLater,
    Uncertain,
)
from channels.loader import load
from channels.webpush.vapid import MANY, VapidProvider
from tests.contract.conformance import a_message
from tests.contract.http_peer import RESET, HttpPeer, Reply
from tests.contract.providers.webpush_vapid import KEY, PRIVATE_KEY, SERVER_KEY
from tests.contract.push_service import Browser, PushService, b64

ROOT = Path(__file__).parents[2]
COMMENT = {"title": "Zoë mentioned you", "body": "日本 & more", "url": "https://shop.example/c/1"}
HERE: dict[str, Any] = {"hosts": ["127.0.0.1"], "allow_http": True, "allowed_private_cidrs": ["127.0.0.0/8"]}
NEEDED: dict[str, Any] = {"private_key": PRIVATE_KEY, "subject": "mailto:ops@example.com"}


@pytest.fixture
def browser() -> Browser:
    return Browser()


@pytest.fixture
def service() -> PushService:
    return PushService(SERVER_KEY)


@pytest.fixture
def peer(service: PushService) -> Iterator[HttpPeer]:
    with HttpPeer(service) as running:
        yield running


Build = Callable[..., VapidProvider]


@pytest.fixture
def build() -> Iterator[Build]:
    """Build the provider, allowed to send to this machine."""
    built: list[VapidProvider] = []

    def make(**changes: Any) -> VapidProvider:
        options = {**NEEDED, **HERE, "ports": "any", **changes}
        found = load("webpush.vapid", "browsers", {k: v for k, v in options.items() if v is not None})
        assert isinstance(found, VapidProvider)
        built.append(found)
        return found

    yield make
    for each in built:
        each.close()


def a_push(subscription: str, data: Any = None) -> Message:
    return a_message("webpush", subscription, DataContent(COMMENT if data is None else data))


def refusal(provider: VapidProvider, message: Message) -> ChannelError:
    with pytest.raises(ChannelError) as caught:
        provider.send(message, Deadline(20))
    return caught.value


# --- what arrives -----------------------------------------------------------------------------------


def test_a_browser_reads_what_the_template_says(
    peer: HttpPeer, service: PushService, browser: Browser, build: Build
) -> None:
    message = a_push(browser.subscription(f"{peer.url}/push/a"))

    accepted = build(ttl=600, urgency="high").send(message, Deadline(20))

    assert accepted == Accepted("m-1", "201")
    (seen,) = peer.requests
    assert (seen.method, seen.target) == ("POST", "/push/a")
    assert (seen.headers["ttl"], seen.headers["urgency"]) == ("600", "high")
    assert json.loads(browser.read(seen.body)) == {**COMMENT, "delivery_id": message.delivery_id}
    (signed,) = service.signatures
    assert (signed["aud"], signed["sub"]) == (peer.url, "mailto:ops@example.com")
    assert "Zoë".encode() not in seen.body


def test_each_push_service_gets_a_signature_of_its_own(
    peer: HttpPeer, service: PushService, browser: Browser, build: Build
) -> None:
    """One that is reused names the first push service, and the next one turns it down."""
    with HttpPeer(service) as other:
        provider = build()
        for each in (peer, other, peer):
            provider.send(a_push(browser.subscription(f"{each.url}/push/a")), Deadline(20))

        assert [each["aud"] for each in service.signatures] == [peer.url, other.url, peer.url]


def test_a_repetition_replaces_what_still_waits_and_a_tag_replaces_its_like(
    peer: HttpPeer, browser: Browser, build: Build
) -> None:
    provider = build()
    subscription = browser.subscription(f"{peer.url}/push/a")
    first, second = a_push(subscription), a_push(subscription)
    tagged = [a_push(subscription, {"title": text, "tag": "comments on 981 Zoë"}) for text in ("1", "2")]

    for each in (first, replace(first, attempt=2), second, *tagged):
        provider.send(each, Deadline(20))

    topics = [seen.headers["topic"] for seen in peer.requests]
    assert topics[0] == topics[1] != topics[2]
    assert topics[3] == topics[4] not in topics[:3]


def test_a_ttl_of_none_is_now_or_never(peer: HttpPeer, browser: Browser, build: Build) -> None:
    build(ttl=0).send(a_push(browser.subscription(f"{peer.url}/push/a")), Deadline(20))

    assert peer.requests[0].headers["ttl"] == "0"


def test_the_longest_that_fits_fills_a_push_and_one_byte_more_does_not_go(
    peer: HttpPeer, browser: Browser, build: Build
) -> None:
    provider = build()
    message = a_push(browser.subscription(f"{peer.url}/push/a"), {"body": ""})
    room = 3993 - len(json.dumps({"body": "", "delivery_id": message.delivery_id}, separators=(",", ":")))

    provider.send(replace(message, content=DataContent({"body": "x" * room})), Deadline(20))
    failure = refusal(provider, replace(message, content=DataContent({"body": "x" * (room + 1)})))

    assert len(peer.requests[0].body) == 4096
    assert json.loads(browser.read(peer.requests[0].body))["body"] == "x" * room
    assert (type(failure), failure.code) == (Refused, "too-long")
    assert len(peer.requests) == 1


def test_many_threads_encrypt_for_many_browsers(peer: HttpPeer, build: Build) -> None:
    provider = build(connections=4)
    browsers = [Browser() for _ in range(8)]
    messages = [
        a_push(each.subscription(f"{peer.url}/push/{n}"), {"n": n}) for n, each in enumerate(browsers)
    ] * 5

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda each: provider.send(each, Deadline(20)), messages))

    assert len(peer.requests) == 40
    assert peer.connections <= 4
    for seen in peer.requests:
        n = int(seen.target.rpartition("/")[2])
        assert json.loads(browsers[n].read(seen.body))["n"] == n


@pytest.mark.parametrize(
    ("location", "kept"),
    [("/m/abc", "abc"), ("", None), ("/m/", None), (f"/m/{'x' * 201}", None), ("/m/two words", None)],
)
def test_the_messages_own_url_gives_its_id_where_it_can_be_kept(
    location: str, kept: str | None, peer: HttpPeer, browser: Browser, build: Build
) -> None:
    peer.says(Reply(201, headers={"Location": location} if location else {}))

    accepted = build().send(a_push(browser.subscription(f"{peer.url}/push/a")), Deadline(20))

    assert accepted == Accepted(kept, "201")


# --- where it goes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "code"),
    [
        ("https://evil.example/push/a", "host"),
        ("https://fcm.googleapis.com.evil.example/a", "host"),
        ("https://notify.windows.com/a", "host"),
        ("https://evilpush.apple.com/a", "host"),
        ("https://127.0.0.1/a", "host"),
        ("https://[::1]/a", "host"),
        ("http://fcm.googleapis.com/a", "http"),
        ("https://fcm.googleapis.com:22/a", "port"),
    ],
)
def test_only_push_services_are_sent_to(endpoint: str, code: str, browser: Browser, build: Build) -> None:
    provider = build(hosts=None, allow_http=None, ports=None, allowed_private_cidrs=None)

    failure = refusal(provider, a_push(browser.subscription(endpoint)))

    assert (type(failure), failure.code) == (Refused, code)


@pytest.mark.parametrize(
    "host",
    [
        "fcm.googleapis.com",
        "updates.push.services.mozilla.com",
        "web.push.apple.com",
        "wns2-by3p.notify.windows.com",
    ],
)
def test_the_push_services_of_the_browsers_are_known(host: str, browser: Browser, build: Build) -> None:
    """They resolve to this machine here, which is as far as a message gets: to the rule about addresses."""
    provider = build(hosts=None, allowed_private_cidrs=None)
    client = provider._client
    client._dialer = replace(client._dialer, resolver=lambda *_: ["127.0.0.1"])

    failure = refusal(provider, a_push(browser.subscription(f"https://{host}/push/a")))

    assert (type(failure), failure.code) == (Refused, "forbidden")


def test_a_push_host_that_leads_home_is_not_sent_to(peer: HttpPeer, browser: Browser, build: Build) -> None:
    provider = build(allowed_private_cidrs=None)

    failure = refusal(provider, a_push(browser.subscription(f"{peer.url}/push/a")))

    assert (type(failure), failure.code) == (Refused, "forbidden")
    assert peer.connections == 0


def test_a_redirect_is_not_given_our_signature(peer: HttpPeer, browser: Browser, build: Build) -> None:
    with HttpPeer() as canary:
        peer.says(Reply(307, headers={"Location": f"{canary.url}/push/a"}))

        assert type(refusal(build(), a_push(browser.subscription(f"{peer.url}/push/a")))) is Refused
        assert canary.connections == 0


# --- subscriptions ----------------------------------------------------------------------------------


def broken(**keys: Any) -> str:
    found = json.loads(Browser().subscription("https://fcm.googleapis.com/push/a"))
    found["keys"] |= keys
    return json.dumps(found)


OFF_THE_CURVE = b64(b"\x04" + bytes(63) + b"\x01")


@pytest.mark.parametrize(
    "address",
    [
        "3b8e17",
        "[]",
        "{}",
        "[" * 5000,
        json.dumps({"endpoint": "https://fcm.googleapis.com/a"}),
        json.dumps({"endpoint": "https://fcm.googleapis.com/a", "keys": []}),
        json.dumps({"endpoint": 5, "keys": {}}),
        broken(auth=None),
        broken(auth=5),
        broken(auth=""),
        broken(auth=b64(bytes(15))),
        broken(auth="not base64!"),
        broken(p256dh=None),
        broken(p256dh="="),
        broken(p256dh=b64(bytes(65))),
        broken(p256dh=b64(b"\x04" + bytes(32))),
        broken(p256dh=OFF_THE_CURVE),
        Browser().subscription("no url"),
        Browser().subscription("ftp://fcm.googleapis.com/a"),
        Browser().subscription("https://user:3b8e17@fcm.googleapis.com/a"),
    ],
)
def test_a_subscription_that_nobody_could_send_to_is_dead(address: str, build: Build) -> None:
    failure = refusal(build(), a_push(address))

    assert (type(failure), failure.code) == (AddressInvalid, "subscription")
    assert "3b8e17" not in str(failure)
    assert (failure.__cause__, failure.__context__) == (None, None)


def test_keys_stored_with_padding_or_in_the_other_alphabet_are_read(peer: HttpPeer, build: Build) -> None:
    browser = next(each for each in iter(Browser, None) if {"-", "_"} <= set(each.subscription("")))
    found = json.loads(browser.subscription(f"{peer.url}/push/a"))
    for name, key in found["keys"].items():
        found["keys"][name] = key.replace("-", "+").replace("_", "/") + "=" * (-len(key) % 4)

    build().send(a_push(json.dumps(found)), Deadline(20))

    assert json.loads(browser.read(peer.requests[0].body))["title"] == COMMENT["title"]


# --- our key, or theirs -----------------------------------------------------------------------------


def test_one_subscription_of_an_old_key_does_not_stop_the_others(
    peer: HttpPeer, browser: Browser, build: Build
) -> None:
    provider = build()
    peer.says(Reply(403))
    old = a_push(browser.subscription(f"{peer.url}/push/old"))

    found = [type(refusal(provider, old)) for _ in range(MANY * 3)]

    assert set(found) == {TryLater}


def test_when_a_push_service_turns_down_everybody_it_is_our_key(
    peer: HttpPeer, service: PushService, browser: Browser, build: Build
) -> None:
    provider = build()
    peer.says(Reply(403))
    pushes = [a_push(browser.subscription(f"{peer.url}/push/{n}")) for n in range(MANY + 2)]

    found = [type(refusal(provider, each)) for each in pushes]

    assert found == [TryLater] * (MANY - 1) + [Misconfigured] * 3
    peer.says(service)  # the key is mended
    provider.send(pushes[0], Deadline(20))
    peer.says(Reply(401))
    assert type(refusal(provider, pushes[0])) is TryLater


def test_a_push_service_that_takes_some_does_not_accuse_our_key(
    peer: HttpPeer, service: PushService, browser: Browser, build: Build
) -> None:
    provider = build()
    for n in range(MANY * 2):
        peer.says(Reply(403))
        assert type(refusal(provider, a_push(browser.subscription(f"{peer.url}/push/{n}")))) is TryLater
        if n % (MANY - 1) == 0:
            peer.says(service)
            provider.send(a_push(browser.subscription(f"{peer.url}/push/good")), Deadline(20))


def test_a_key_that_is_not_the_subscriptions_is_found_by_a_push_service(
    peer: HttpPeer, browser: Browser, build: Build
) -> None:
    other = b64(bytes(31) + b"\x07")

    failure = refusal(build(private_key=other), a_push(browser.subscription(f"{peer.url}/push/a")))

    assert (type(failure), failure.code) == (TryLater, "403")


def test_the_page_is_told_the_key_to_subscribe_for(build: Build) -> None:
    assert build().application_server_key == SERVER_KEY


# --- options ----------------------------------------------------------------------------------------


def pem(key: Any) -> str:
    return key.private_bytes(  # type: ignore[no-any-return]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@pytest.mark.parametrize(
    "text", [pem(KEY), f"{PRIVATE_KEY}=", f" {PRIVATE_KEY}\n"], ids=["PEM", "padded", "with a line break"]
)
def test_a_key_may_be_written_in_every_way_that_tools_write_it(
    text: str, peer: HttpPeer, service: PushService, browser: Browser, build: Build
) -> None:
    build(private_key=text).send(a_push(browser.subscription(f"{peer.url}/push/a")), Deadline(20))

    assert len(service.signatures) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"private_key": "493817"}, "private_key is no key of P-256"),
        ({"private_key": b64(bytes(32))}, "private_key is no key of P-256"),
        ({"private_key": pem(ec.generate_private_key(ec.SECP384R1()))}, "private_key is no key of P-256"),
        ({"private_key": pem(rsa.generate_private_key(65537, 1024))}, "private_key is no key of P-256"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\n493817"}, "private_key is no key of P-256"),
        ({"subject": "ops@example.com"}, "subject is where nobody finds us"),
        ({"subject": "mailto:493817"}, "subject is where nobody finds us"),
        ({"subject": "https://a/493817"}, "subject is where nobody finds us"),
        ({"ttl": -1}, "ttl is no whole number that fits; write from 0 to 2419200"),
        ({"urgency": "493817"}, "urgency is none of its words; write one of very-low, low, normal, high"),
        ({"hosts": "493817"}, "hosts is no list of texts"),
    ],
)
def test_a_wrong_option_is_named_with_its_remedy_and_not_told(
    options: dict[str, Any], said: str, build: Build
) -> None:
    with pytest.raises(Misconfigured, match=f"browsers: {said}") as caught:
        build(**options)

    assert "493817" not in str(caught.value)
    assert "; write" in caught.value.detail
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


# --- the SDK ----------------------------------------------------------------------------------------


def test_a_missing_sdk_is_named(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(Misconfigured, match="needs the package pywebpush; type pip install"):
        build()


@pytest.mark.parametrize(("sent", "error_is"), [(False, Misconfigured), (True, Uncertain)])
def test_what_pywebpush_raises_by_itself_never_tells_the_message(
    sent: bool,  # noqa: FBT001
    error_is: type[ChannelError],
    peer: HttpPeer,
    browser: Browser,
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pywebpush  # noqa: PLC0415

    def odd(*_: Any, data: bytes, requests_session: Any, **__: Any) -> None:
        if sent:
            requests_session.post(f"{peer.url}/push/a", data=b"", headers={}, timeout=None)
        raise RuntimeError(data)

    monkeypatch.setattr(pywebpush, "webpush", odd)
    peer.says(RESET)

    failure = refusal(build(), a_push(browser.subscription(f"{peer.url}/push/a")))

    assert type(failure) is error_is
    assert "mentioned" not in str(failure)
    assert (failure.__cause__, failure.__context__) == (None, None)


def test_the_sdk_is_loaded_when_it_is_needed_and_not_before(build: Build) -> None:
    assert isinstance(build(), Prewarmed)
    script = """
import json, os, sys
from channels.loader import load
there = lambda: {each for each in ("pywebpush", "py_vapid", "aiohttp", "requests") if each in sys.modules}
import channels.webpush.vapid
assert not there(), there()
provider = load("webpush.vapid", "browsers", json.loads(os.environ["OPTIONS"]))
assert not there(), there()
provider.prewarm()
print(len(there()))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPTIONS": json.dumps(NEEDED)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout.strip() == "4", ran.stderr
