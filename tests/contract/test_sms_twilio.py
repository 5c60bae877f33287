"""What `sms.twilio` promises beside the conformance suite: the request as Twilio reads it, and its own SDK."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from channels._sdk import LazySdk
from channels.contract import (
    Accepted,
    AddressInvalid,
    Deadline,
    Message,
    Misconfigured,
    Provider,
    TextContent,
)
from channels.loader import load
from channels.sms import twilio
from tests.contract.conformance import a_message
from tests.contract.connect_proxy import ConnectProxy, private_ca
from tests.contract.http_peer import HttpPeer, Reply, Seen
from tests.contract.providers.sms_twilio import ACCOUNT, NUMBER, SERVICE, SID, TOKEN, resource

ROOT = Path(__file__).parents[2]
API_KEY = "SK0123456789abcdef0123456789abcdef"
TEXT = "Zoë, 50 % off & more: 日本 +1"
NEEDED: dict[str, Any] = {"account_sid": ACCOUNT, "auth_token": TOKEN, "messaging_service_sid": SERVICE}


@pytest.fixture
def peer() -> Iterator[HttpPeer]:
    with HttpPeer(Reply(201, resource())) as running:
        yield running


Build = Callable[..., Provider]


@pytest.fixture
def build(peer: HttpPeer) -> Iterator[Build]:
    """Build the provider, aimed at the peer; an option of None is left out."""
    built: list[Provider] = []

    def make(**changes: Any) -> Provider:
        options = {"url": peer.url, **NEEDED, **changes}
        built.append(load("sms.twilio", "tw", {k: v for k, v in options.items() if v is not None}))
        return built[-1]

    yield make
    for each in built:
        each.close()


def an_sms(text: str = TEXT) -> Message:
    return a_message("sms", NUMBER, TextContent(text))


def form(seen: Seen) -> dict[str, list[str]]:
    return parse_qs(seen.body.decode("ascii"), strict_parsing=True, keep_blank_values=True)


def login(seen: Seen) -> str:
    kind, _, value = seen.headers["authorization"].partition(" ")
    assert kind == "Basic"
    return base64.b64decode(value).decode()


# --- the request ------------------------------------------------------------------------------------


def test_a_message_is_created_as_the_public_api_says(peer: HttpPeer, build: Build) -> None:
    accepted = build().send(an_sms(), Deadline(10))

    (seen,) = peer.requests
    assert accepted == Accepted(SID, "201")
    assert (seen.method, seen.target) == ("POST", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json")
    assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
    assert login(seen) == f"{ACCOUNT}:{TOKEN}"
    assert form(seen) == {"To": [NUMBER], "Body": [TEXT], "MessagingServiceSid": [SERVICE]}


@pytest.mark.parametrize("sender", ["+15005550006", "70123", "Shop 24"])
def test_it_sends_from_a_number_a_short_code_or_a_name(sender: str, peer: HttpPeer, build: Build) -> None:
    build(**{"messaging_service_sid": None, "from": sender}).send(an_sms(), Deadline(10))

    assert form(peer.requests[0]) == {"To": [NUMBER], "Body": [TEXT], "From": [sender]}


def test_an_api_key_logs_in_for_the_account(peer: HttpPeer, build: Build) -> None:
    build(auth_token=None, api_key=API_KEY, api_secret="the-secret").send(an_sms(), Deadline(10))

    (seen,) = peer.requests
    assert login(seen) == f"{API_KEY}:the-secret"
    assert f"/Accounts/{ACCOUNT}/" in seen.target


def test_the_receipts_url_names_our_delivery(peer: HttpPeer, build: Build) -> None:
    message = an_sms()
    for url in ("https://shop.example/hooks/twilio", "https://shop.example/hooks/twilio?a=1"):
        build(status_callback=url, validity_period=600).send(message, Deadline(10))

    plain, with_query = (form(each) for each in peer.requests)
    mine = f"delivery_id={message.delivery_id}"
    assert plain["StatusCallback"] == [f"https://shop.example/hooks/twilio?{mine}"]
    assert with_query["StatusCallback"] == [f"https://shop.example/hooks/twilio?a=1&{mine}"]
    assert plain["ValidityPeriod"] == ["600"]


def test_the_environment_of_the_sdk_changes_nothing(
    peer: HttpPeer, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_REGION", "TWILIO_EDGE"):
        monkeypatch.setenv(name, "elsewhere")

    build().send(an_sms(), Deadline(10))

    assert login(peer.requests[0]) == f"{ACCOUNT}:{TOKEN}"


@pytest.mark.parametrize(
    "address",
    ["", "491701234567", "+49 170 1234567", "whatsapp:+491701234567", "+491701234567\n", "+0170123456"],
)
def test_what_is_no_number_is_not_sent(address: str, peer: HttpPeer, build: Build) -> None:
    with pytest.raises(AddressInvalid, match=r"write \+, country code, number"):
        build().send(replace(an_sms(), address=address), Deadline(10))

    assert peer.connections == 0


def test_an_sdk_that_makes_no_request_is_told_from_a_lost_answer(
    peer: HttpPeer, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changed:
        def __init__(self, *_: object, **__: object) -> None:
            raise TypeError(f"no such argument for {NUMBER}")

    class Client:
        messages = property(Changed)

    sdk = twilio._Sdk(lambda *_, **__: Client(), None)
    monkeypatch.setattr(twilio, "_SDK", LazySdk("twilio", lambda: sdk, extra="x"))

    with pytest.raises(Misconfigured, match=r"^sdk: Twilio's SDK made no request \(TypeError\)") as caught:
        build().send(an_sms(), Deadline(10))

    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert peer.connections == 0


# --- the SDK ----------------------------------------------------------------------------------------


def python(script: str, **environment: str) -> Any:
    """What a process of its own prints as JSON."""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_sdk_is_imported_when_it_is_needed_and_not_before() -> None:
    options = json.dumps(NEEDED)
    script = f"""
import json, sys
from channels.loader import load
there = lambda: sorted(each for each in sys.modules if each.split(".")[0] in ("twilio", "requests", "urllib3"))
provider = load("sms.twilio", "tw", json.loads({options!r}))
built = there()
provider.prewarm()
warm = there()
print(json.dumps([built, "twilio.rest.api.v2010.account.message" in warm]))
"""
    assert python(script) == [[], True]


def test_a_missing_sdk_is_named_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twilio, "_SDK", LazySdk("twilio_is_not_there", twilio._load, extra="x"))

    with pytest.raises(
        Misconfigured, match=r"tw: use needs the package twilio_is_not_there; type pip install"
    ):
        load("sms.twilio", "tw", NEEDED)


def test_the_sdk_as_it_is_sends_the_same_through_a_proxy_to_the_real_address(tmp_path: Path) -> None:
    """Our HTTP client in the SDK against the SDK's own: the same request, at the real host, in TLS."""
    private = private_ca(tmp_path, "api.twilio.com")
    script = """
import json, os
from twilio.rest import Client
sid, token, to, text, service = json.loads(os.environ["ARGUMENTS"])
made = Client(sid, token).messages.create(to=to, body=text, messaging_service_sid=service)
print(json.dumps(made.sid))
"""
    arguments = json.dumps([ACCOUNT, TOKEN, NUMBER, TEXT, SERVICE])
    with HttpPeer(Reply(201, resource()), tls=private.server) as peer, ConnectProxy(peer.port) as proxy:
        provider = load(
            "sms.twilio", "tw", {**NEEDED, "proxy": proxy.url, "ca_file": private.ca_file, "connections": 4}
        )
        accepted = [provider.send(an_sms(), Deadline(20)) for _ in range(3)]
        provider.close()
        theirs = python(
            script, ARGUMENTS=arguments, HTTPS_PROXY=proxy.url, REQUESTS_CA_BUNDLE=private.ca_file
        )

    assert theirs == SID
    assert accepted == [Accepted(SID, "201")] * 3
    assert proxy.asked_for == ["api.twilio.com:443"] * 2  # ours kept its connection
    mine, reference = peer.requests[0], peer.requests[-1]
    assert (mine.method, mine.target, mine.body) == (reference.method, reference.target, reference.body)
    for header in reference.headers.keys() - {"accept-encoding", "connection"}:
        assert mine.headers[header] == reference.headers[header], header


def test_without_the_private_ca_nothing_is_sent(tmp_path: Path) -> None:
    private = private_ca(tmp_path, "api.twilio.com")
    with HttpPeer(Reply(201, resource()), tls=private.server) as peer, ConnectProxy(peer.port) as proxy:
        provider = load("sms.twilio", "tw", {**NEEDED, "proxy": proxy.url})

        with pytest.raises(Misconfigured, match=r"^certificate: "):
            provider.send(an_sms(), Deadline(20))

        assert peer.requests == []


# --- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"account_sid": "AC12"}, "account_sid is no SID of its kind; write AC and 32 hexadecimal digits"),
        ({"messaging_service_sid": ACCOUNT}, "messaging_service_sid is no SID of its kind; write MG"),
        ({"messaging_service_sid": None}, "messaging_service_sid is missing; write .* or from"),
        ({"from": "+15005550006"}, "from is one sender too many"),
        ({"messaging_service_sid": None, "from": "The whole shop"}, "from is no sender"),
        ({"messaging_service_sid": None, "from": "+1 500"}, "from is no sender"),
        ({"auth_token": None}, "auth_token is missing"),
        ({"api_key": API_KEY}, "api_secret is missing"),
        ({"api_secret": "the-secret"}, "api_key is missing"),
        ({"validity_period": 0}, "validity_period is no whole number that fits; write from 1 to 36000"),
        ({"validity_period": 36_001}, "validity_period"),
        ({"status_callback": "http://shop.example/hooks"}, "status_callback is no https:// URL"),
        ({"status_callback": "https://shop.example/hooks#part"}, "status_callback"),
        ({"status_callback": "/hooks"}, "status_callback"),
        ({"max_segments": 0}, "max_segments"),
        ({"url": "http://api.twilio.com"}, "url may be http:// for this machine alone"),
        ({"sender": "+15005550006"}, "sender is no option of sms.twilio"),
    ],
)
def test_a_wrong_option_is_named_with_the_remedy(changes: dict[str, Any], named: str, build: Build) -> None:
    with pytest.raises(Misconfigured, match=f"tw: {named}") as caught:
        build(**changes)

    assert TOKEN not in str(caught.value)


def test_a_far_end_on_this_machine_may_get_the_receipts_url(build: Build) -> None:
    assert build(status_callback="http://127.0.0.1:8025/hooks/twilio")
