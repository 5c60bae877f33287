"""What `webhook.standard` promises beside the conformance suite: signatures, ids, bytes, and whom it trusts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from channels.contract import (
    Accepted,
    AddressInvalid,
    DataContent,
    Deadline,
    Message,
    Misconfigured,
    Provider,
    Refused,
    TryLater,
    Uncertain,
)
from channels.loader import load
from channels.webhook.standard import endpoint_secret, signatures
from tests.contract.conformance import a_message
from tests.contract.http_peer import RESET, HttpPeer, Reply, Seen

OLD, NEW = (f"whsec_{base64.b64encode(bytes([each]) * 32).decode()}" for each in (1, 2))
DATA = {"type": "order.shipped", "total": "12,50 €", "name": "Zoë 日本", "empty": None, "n": 1.5}


@pytest.fixture
def peer() -> Iterator[HttpPeer]:
    with HttpPeer(Reply(204)) as running:
        yield running


Build = Callable[..., Provider]


@pytest.fixture
def build() -> Iterator[Build]:
    """Build the provider, allowed to send to this machine."""
    built: list[Provider] = []

    def make(**changes: Any) -> Provider:
        here = {"allow_http": True, "allowed_private_cidrs": ["127.0.0.0/8"], "ports": "any"}
        built.append(load("webhook.standard", "hooks", {"secrets": [OLD], **here, **changes}))
        return built[-1]

    yield make
    for each in built:
        each.close()


def delivery(peer: HttpPeer, data: Any = None, path: str = "/hooks/a", **changes: Any) -> Message:
    content = DataContent(DATA if data is None else data)
    return replace(a_message("webhook", peer.url + path, content), **changes)


class BadSignature(Exception):
    """As a receiver says it."""


def verify(secret: str, headers: dict[str, str], body: bytes) -> Any:
    """A receiver's check, written from the text of the specification and from nothing of ours."""
    if abs(time.time() - int(headers["webhook-timestamp"])) > 300:
        raise BadSignature("old")
    signed = headers["webhook-id"].encode() + b"." + headers["webhook-timestamp"].encode() + b"." + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    wanted = hmac.new(key, signed, hashlib.sha256).digest()
    for each in headers["webhook-signature"].split(" "):
        version, _, given = each.partition(",")
        if version == "v1" and hmac.compare_digest(base64.b64decode(given), wanted):
            return json.loads(body)
    raise BadSignature("none fits")


def sent_headers(seen: Seen) -> dict[str, str]:
    return {name: value for name, value in seen.headers.items() if name.startswith("webhook-")}


# --- signatures -------------------------------------------------------------------------------------


def test_a_delivery_arrives_signed_as_it_is_sent(peer: HttpPeer, build: Build) -> None:
    message = delivery(peer, path="/hooks/a?team=1")

    accepted = build().send(message, Deadline(5))

    (seen,) = peer.requests
    assert accepted == Accepted(message.idempotency_key, "204")
    assert (seen.method, seen.target) == ("POST", "/hooks/a?team=1")
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["webhook-id"] == message.idempotency_key
    assert abs(int(seen.headers["webhook-timestamp"]) - time.time()) < 60
    assert verify(OLD, sent_headers(seen), seen.body) == DATA
    with pytest.raises(BadSignature):
        verify(NEW, sent_headers(seen), seen.body)


def test_the_official_library_takes_it(peer: HttpPeer, build: Build) -> None:
    build(secrets=[NEW, OLD]).send(delivery(peer), Deadline(5))

    (seen,) = peer.requests
    for secret in (OLD, NEW):
        assert Webhook(secret).verify(seen.body, sent_headers(seen)) == DATA


@pytest.mark.parametrize("secrets", [[NEW, OLD], f"{NEW} {OLD}"], ids=["list", "one text"])
def test_while_secrets_change_both_receivers_are_served(
    secrets: object, peer: HttpPeer, build: Build
) -> None:
    build(secrets=secrets).send(delivery(peer), Deadline(5))

    (seen,) = peer.requests
    assert seen.headers["webhook-signature"].count("v1,") == 2
    assert verify(OLD, sent_headers(seen), seen.body) == verify(NEW, sent_headers(seen), seen.body) == DATA


def test_every_flipped_bit_is_noticed(peer: HttpPeer, build: Build) -> None:
    build().send(delivery(peer, {"a": 1}), Deadline(5))
    (seen,) = peer.requests
    headers = sent_headers(seen)
    mac = base64.b64decode(headers["webhook-signature"].removeprefix("v1,"))
    parts = {
        "webhook-id": headers["webhook-id"].encode(),
        "webhook-timestamp": headers["webhook-timestamp"].encode(),
        "webhook-signature": mac,
        "body": seen.body,
    }
    assert verify(OLD, headers, seen.body) == {"a": 1}

    tried = 0
    for name, original in parts.items():
        for bit in range(len(original) * 8):
            broken = bytearray(original)
            broken[bit // 8] ^= 1 << bit % 8
            changed, body = dict(headers), seen.body
            if name == "body":
                body = bytes(broken)
            elif name == "webhook-signature":
                changed[name] = f"v1,{base64.b64encode(broken).decode()}"
            else:
                changed[name] = broken.decode("latin-1")
            with pytest.raises((BadSignature, ValueError)):
                verify(OLD, changed, body)
            with pytest.raises((WebhookVerificationError, ValueError)):
                Webhook(OLD).verify(body, changed)
            tried += 1
    assert tried == sum(len(each) for each in parts.values()) * 8


@settings(max_examples=200, deadline=None)
@given(
    st.binary(min_size=24, max_size=64),
    st.text("abcdef0123456789-", min_size=1, max_size=40),
    st.integers(10**9, 2 * 10**9),
    st.binary(max_size=200),
)
def test_a_signature_is_the_specifications(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> None:
    secret = f"whsec_{base64.b64encode(key).decode()}"
    mac = hmac.new(key, f"{webhook_id}.{timestamp}.".encode() + body, "sha256").digest()

    assert signatures([secret], webhook_id, timestamp, body) == f"v1,{base64.b64encode(mac).decode()}"


def test_the_specifications_own_example_comes_out() -> None:
    # From its section on signatures.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'

    made = signatures([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)

    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


# --- repetitions ------------------------------------------------------------------------------------


def test_a_repetition_has_the_same_id_and_body_and_a_timestamp_of_its_own(
    peer: HttpPeer, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, message, now = build(), delivery(peer), time.time()
    peer.says(RESET, Reply(503), Reply(200))
    outcomes: list[type[Exception] | None] = []
    for attempt in (1, 2, 3):
        monkeypatch.setattr(time, "time", lambda attempt=attempt: now + 10 * attempt)
        try:
            provider.send(replace(message, attempt=attempt), Deadline(5))
            outcomes.append(None)
        except (Uncertain, TryLater) as error:
            outcomes.append(type(error))
    monkeypatch.undo()

    assert outcomes == [Uncertain, TryLater, None]
    assert {each.headers["webhook-id"] for each in peer.requests} == {message.idempotency_key}
    assert len({each.body for each in peer.requests}) == 1
    stamps = [int(each.headers["webhook-timestamp"]) - int(now) for each in peer.requests]
    assert stamps == [10, 20, 30]
    for each in peer.requests:
        verify(OLD, sent_headers(each), each.body)


# --- a secret for each endpoint ---------------------------------------------------------------------


def test_each_endpoint_can_have_a_secret_of_its_own(peer: HttpPeer, build: Build) -> None:
    provider = build(sign_for="endpoint", secrets=[NEW, OLD])
    mine, yours = delivery(peer, path="/mine"), delivery(peer, path="/yours")
    provider.send(mine, Deadline(5))
    provider.send(yours, Deadline(5))

    for seen, message, other in zip(peer.requests, (mine, yours), (yours, mine), strict=True):
        for secret in (NEW, OLD):
            own = endpoint_secret(secret, message.tenant, message.address)
            assert verify(own, sent_headers(seen), seen.body) == DATA
            for wrong in (
                secret,
                endpoint_secret(secret, other.tenant, other.address),
                endpoint_secret(secret, "another tenant", message.address),
            ):
                with pytest.raises(BadSignature):
                    verify(wrong, sent_headers(seen), seen.body)


# --- bodies -----------------------------------------------------------------------------------------


def test_a_body_has_one_form(peer: HttpPeer, build: Build) -> None:
    provider = build()
    provider.send(delivery(peer, {"b": [1, {"d": 2, "c": "ü"}], "a": 1}), Deadline(5))
    provider.send(delivery(peer, {"a": 1, "b": [1, {"c": "ü", "d": 2}]}), Deadline(5))

    assert {each.body.decode() for each in peer.requests} == {'{"a":1,"b":[1,{"c":"ü","d":2}]}'}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"bytes", "\ud800", {1: 2, "a": 3}])
def test_what_is_not_json_is_refused(value: object, peer: HttpPeer, build: Build) -> None:
    with pytest.raises(Refused, match=r"content\.data") as caught:
        build().send(delivery(peer, {"a": value}), Deadline(5))

    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert peer.connections == 0


def test_a_body_may_be_as_long_as_the_option_says_and_no_longer(peer: HttpPeer, build: Build) -> None:
    provider = build(max_body=100)
    longest = 100 - len('{"a":""}')

    provider.send(delivery(peer, {"a": "x" * longest}), Deadline(5))
    with pytest.raises(Refused, match=r"content\.data makes 101 bytes and a webhook carries 100"):
        provider.send(delivery(peer, {"a": "x" * (longest + 1)}), Deadline(5))

    assert [len(each.body) for each in peer.requests] == [100]


# --- where it sends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "outcome", "code"),
    [
        ("https://127.0.0.1/hook", Refused, "forbidden"),
        ("https://169.254.169.254/latest/meta-data/", Refused, "forbidden"),
        ("https://localhost/hook", Refused, "forbidden"),
        ("https://0x7f.1/hook", AddressInvalid, "url"),
        ("http://hooks.example/", Refused, "http"),
        ("https://hooks.example:6379/", Refused, "port"),
        ("https://user:pass@hooks.example/", AddressInvalid, "url"),
        ("mailto:a@b.example", AddressInvalid, "url"),
    ],
)
def test_by_default_it_sends_to_the_public_internet_alone(
    address: str, outcome: type[Exception], code: str, peer: HttpPeer
) -> None:
    provider = load("webhook.standard", "hooks", {"secrets": [OLD]})

    with pytest.raises(outcome, match=f"^{code}: ") as caught:
        provider.send(replace(delivery(peer), address=address), Deadline(5))

    assert "hooks.example" not in str(caught.value)
    assert "169.254" not in str(caught.value)


def test_a_redirect_comes_with_its_remedy(peer: HttpPeer, build: Build) -> None:
    peer.says(Reply(301, headers={"Location": "https://elsewhere.example/"}))

    with pytest.raises(Refused, match="give the address that it redirects to"):
        build().send(delivery(peer), Deadline(5))


# --- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "secrets is missing"),
        ({"secrets": []}, "secrets is missing"),
        ({"secrets": ""}, "secrets is missing"),
        ({"secrets": [OLD, "whsec_short"]}, r"secrets\[1\]"),
        ({"secrets": [OLD, "env:WEBHOOK_SECRET"]}, r"secrets\[1\] was not read from the environment"),
        ({"secrets": [base64.b64encode(b"x" * 32).decode()]}, "write whsec_ and the base64 of 24 to 64"),
        ({"secrets": [f"whsec_{base64.b64encode(b'x' * 65).decode()}"]}, r"secrets\[0\]"),
        ({"secrets": ["whsec_" + "ü" * 40]}, r"secrets\[0\]"),
        ({"secrets": [OLD + "\n"]}, "line break"),
        ({"secrets": [OLD], "sign_for": "me"}, "sign_for is none of its words; write one of all, endpoint"),
        ({"secrets": [OLD], "max_body": 0}, "max_body"),
        ({"secrets": [OLD], "secret": OLD}, "did you mean secrets?"),
        ({"secrets": [OLD], "ports": [0]}, "ports"),
        ({"secrets": [OLD], "allowed_private_cidrs": ["10.0.0.1/8"]}, "allowed_private_cidrs"),
        ({"secrets": [OLD], "ca_file": "/nowhere.pem"}, "ca_file"),
        ({"secrets": [OLD], "connections": 0}, "connections"),
    ],
)
def test_a_wrong_option_is_named_with_the_remedy(options: dict[str, object], named: str) -> None:
    with pytest.raises(Misconfigured, match=named) as caught:
        load("webhook.standard", "hooks", options)

    assert "hooks: " in str(caught.value)
    assert OLD not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


# --- an endpoint's own secrets ------------------------------------------------------------------------


@pytest.mark.parametrize("sign_for", ["all", "endpoint"])
def test_a_message_with_secrets_is_signed_with_those_alone(
    peer: HttpPeer, build: Build, sign_for: str
) -> None:
    own, before = (f"whsec_{base64.b64encode(bytes([each]) * 32).decode()}" for each in (7, 8))
    message = delivery(peer, secrets=(own, before))

    build(sign_for=sign_for).send(message, Deadline(5))

    (seen,) = peer.requests
    for secret in (own, before):
        assert Webhook(secret).verify(seen.body, sent_headers(seen)) == DATA
    for secret in (OLD, endpoint_secret(OLD, message.tenant, message.address)):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(seen.body, sent_headers(seen))
    assert own not in repr(message)
