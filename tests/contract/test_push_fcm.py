"""What `push.fcm` promises beside the conformance suite: the message, one request, tokens, and the SDK as it is."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

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
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from channels.loader import load
from channels.push import _fcm_session
from channels.push.fcm import FcmProvider
from tests.contract.conformance import a_message
from tests.contract.connect_proxy import ConnectProxy, private_ca
from tests.contract.fcm_far_end import Google, account, error
from tests.contract.fcm_far_end import fcm as code
from tests.contract.http_peer import HANG, RESET, Answer, HttpPeer, Reply

ROOT = Path(__file__).parents[2]
TOKEN = "dZ8:APA91b-device-3b8e17"
ORDER = {
    "title": "Order 981 is on its way",
    "body": "Post is bringing it to you, Zoë.",
    "url": "https://shop.example/orders/981",
    "data": {"order_id": "981"},
}


@pytest.fixture
def google() -> Google:
    return Google()


@pytest.fixture
def peer(google: Google) -> Iterator[HttpPeer]:
    with HttpPeer(google.send) as running:
        running.asides["/token"] = google.token
        yield running


Build = Callable[..., FcmProvider]


@pytest.fixture
def build(peer: HttpPeer) -> Iterator[Build]:
    """Build the provider, aimed at the peer."""
    built: list[FcmProvider] = []

    def make(**changes: Any) -> FcmProvider:
        options = {"url": peer.url, "credentials": account(f"{peer.url}/token"), **changes}
        found = load("push.fcm", "phones", {k: v for k, v in options.items() if v is not None})
        assert isinstance(found, FcmProvider)
        built.append(found)
        return found

    yield make
    for each in built:
        each.close()


def a_push(data: Any = None, **changes: Any) -> Message:
    return replace(a_message("push", TOKEN, DataContent(ORDER if data is None else data)), **changes)


def refusal(provider: FcmProvider, message: Message, deadline: Deadline | None = None) -> ChannelError:
    with pytest.raises(ChannelError) as caught:
        provider.send(message, deadline or Deadline(20))
    return caught.value


# --- the message ------------------------------------------------------------------------------------


def test_a_phone_gets_what_the_template_says(google: Google, build: Build) -> None:
    message = a_push()
    before = int(time.time())

    accepted = build(ttl=600).send(message, Deadline(20))

    assert accepted == Accepted("projects/shop-1/messages/0:1", "200")
    (sent,) = google.messages
    expires = int(sent["apns"]["headers"].pop("apns-expiration"))
    assert before + 600 <= expires <= int(time.time()) + 600
    assert sent == {
        "token": TOKEN,
        "notification": {"title": ORDER["title"], "body": ORDER["body"]},
        "data": {"order_id": "981", "url": ORDER["url"], "delivery_id": message.delivery_id},
        "android": {"priority": "high", "ttl": "600s", "notification": {"tag": message.delivery_id}},
        "apns": {
            "headers": {
                "apns-collapse-id": message.delivery_id,
                "apns-priority": "10",
                "apns-push-type": "alert",
            }
        },
    }


def test_a_tag_replaces_what_has_the_same_and_sound_and_badge_reach_both_kinds_of_phone(
    google: Google, build: Build
) -> None:
    data = {
        "title": "3 comments",
        "tag": "comments",
        "sound": "default",
        "badge": 3,
        "image": "https://i.example/1",
    }

    build(priority="normal", ttl=0).send(a_push(data), Deadline(20))

    (sent,) = google.messages
    assert sent["notification"] == {"title": "3 comments", "image": "https://i.example/1"}
    assert sent["android"] == {
        "collapse_key": "comments",
        "priority": "normal",
        "ttl": "0s",
        "notification": {"tag": "comments", "sound": "default", "notification_count": 3},
    }
    assert sent["apns"]["payload"] == {"aps": {"sound": "default", "badge": 3}}
    assert sent["apns"]["headers"] == {
        "apns-collapse-id": "comments",
        "apns-expiration": "0",
        "apns-priority": "5",
        "apns-push-type": "alert",
    }
    assert set(sent["data"]) == {"delivery_id"}


def test_without_title_and_body_the_app_alone_is_told(google: Google, build: Build) -> None:
    build().send(a_push({"data": {"n": 1, "on": True, "list": [1, "é"], "none": None}}), Deadline(20))

    (sent,) = google.messages
    assert "notification" not in sent
    assert "notification" not in sent["android"]
    assert {**sent["data"], "delivery_id": ""} == {
        "n": "1",
        "on": "true",
        "list": '[1,"é"]',
        "delivery_id": "",
    }
    assert sent["apns"]["payload"] == {"aps": {"content-available": 1}}
    assert (sent["apns"]["headers"]["apns-priority"], sent["apns"]["headers"]["apns-push-type"]) == (
        "5",
        "background",
    )


@pytest.mark.parametrize("tag", ["x" * 65, "Grüße", "two words"], ids=["long", "not ASCII", "a blank"])
def test_a_tag_that_apple_does_not_take_is_hashed(tag: str, google: Google, build: Build) -> None:
    provider = build()
    for _ in range(2):
        provider.send(a_push({"title": "x", "tag": tag}), Deadline(20))

    found = [each["apns"]["headers"]["apns-collapse-id"] for each in google.messages]
    assert found[0] == found[1] != tag
    assert len(found[0]) == 64
    assert google.messages[0]["android"]["notification"]["tag"] == tag


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"title": 1}, "content.data.title"),
        ({"title": "x", "body": ["493817"]}, "content.data.body"),
        ({"title": "x", "image": {}}, "content.data.image"),
        ({"title": "x", "tag": ""}, "content.data.tag"),
        ({"title": "x", "sound": False}, "content.data.sound"),
        ({"title": "x", "badge": "3"}, "content.data.badge"),
        ({"title": "x", "badge": True}, "content.data.badge"),
        ({"title": "x", "badge": -1}, "content.data.badge"),
        ({"title": "x", "data": ["493817"]}, "content.data.data"),
        ({"title": "x", "from": "493817"}, "'from'"),
        ({"title": "x", "data": {"google.c": "1"}}, "'google.c'"),
        ({"title": "x", "data": {"gcm": "1"}}, "'gcm'"),
        ({"title": "x", "data": {"message_type": "1"}}, "'message_type'"),
        ({"title": "x", "data": {"n": float("nan")}}, "content.data"),
        ({"title": "x\ud800"}, "content.data"),
    ],
)
def test_what_fcm_would_not_carry_is_refused_by_its_name(
    data: Any, named: str, peer: HttpPeer, build: Build
) -> None:
    failure = refusal(build(), a_push(data))

    assert type(failure) is Refused
    assert named in failure.detail
    assert "493817" not in str(failure)
    assert peer.connections == 0


def test_the_longest_that_fits_goes_and_one_byte_more_does_not(google: Google, build: Build) -> None:
    provider = build()
    overhead = len(
        json.dumps(
            {"data": {"delivery_id": a_push().delivery_id}, "notification": {"body": ""}},
            separators=(",", ":"),
        )
    )

    provider.send(a_push({"body": "x" * (4096 - overhead)}), Deadline(20))
    failure = refusal(provider, a_push({"body": "x" * (4097 - overhead)}))

    assert len(google.messages) == 1
    assert (type(failure), failure.code) == (Refused, "too-long")
    assert "content.data" in failure.detail
    assert "'body' first" in failure.detail


@pytest.mark.parametrize("address", ["", "two words", "tok\nen", "tökén"])
def test_what_cannot_be_a_device_token_is_not_sent(address: str, peer: HttpPeer, build: Build) -> None:
    assert type(refusal(build(), a_push(address=address))) is AddressInvalid
    assert peer.connections == 0


# --- one request ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error_is"),
    [
        (HANG, Uncertain),
        (RESET, Uncertain),
        (Reply(500, error(500, "INTERNAL")), TryLater),
        (Reply(502), Uncertain),
        (Reply(503, error(503, "UNAVAILABLE")), Unavailable),
        (Reply(503, headers={"Retry-After": "3600"}), TryLater),
        (Reply(429, headers={"Retry-After": "3600"}), Throttled),
        (Reply(401, error(401, "UNAUTHENTICATED")), Misconfigured),
        (Reply(200, "not JSON"), Uncertain),
    ],
    ids=["hang", "reset", "500", "502", "503", "503 later", "429 later", "401", "unreadable"],
)
def test_each_message_is_one_request_and_nobody_sleeps(
    answer: Answer, error_is: type[ChannelError], peer: HttpPeer, google: Google, build: Build
) -> None:
    provider = build()
    provider.send(a_push(), Deadline(20))
    peer.says(answer, google.send)
    deadline = Deadline(2 if answer is HANG else 20)

    failure = refusal(provider, a_push(), deadline)

    assert type(failure) is error_is
    assert len(peer.requests) == 2
    assert google.tokens == 1
    # The SDK alone would have slept half a second for a 503, and an hour for the Retry-After.
    assert deadline.overdue() < (10 if answer is HANG else -10)


def test_the_passwords_in_the_environments_netrc_do_not_replace_the_token(
    google: Google, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    build().send(a_push(), Deadline(20))

    assert len(google.messages) == 1


# --- access tokens ----------------------------------------------------------------------------------


@pytest.fixture
def short_turns() -> Iterator[None]:
    """Threads take turns after ten microseconds, so that what they share by mistake shows."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def test_many_threads_ask_for_one_token_and_send_each_their_own(
    peer: HttpPeer, google: Google, build: Build, short_turns: None
) -> None:
    provider = build(connections=4)
    messages = [a_push(address=f"device-{n}") for n in range(120)]

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda each: provider.send(each, Deadline(20)), messages))

    assert google.tokens == 1
    assert {each["token"] for each in google.messages} == {each.address for each in messages}
    assert peer.connections <= 4


def test_a_token_near_its_end_is_replaced(
    google: Google, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = build()
    provider.send(a_push(), Deadline(20))
    now = time.time()

    monkeypatch.setattr(_fcm_session.time, "time", lambda: now + 3599 - 61)
    provider.send(a_push(), Deadline(20))
    assert google.tokens == 1
    monkeypatch.setattr(_fcm_session.time, "time", lambda: now + 3599 - 59)
    provider.send(a_push(), Deadline(20))

    assert google.tokens == 2


def test_a_token_that_fcm_does_not_take_is_forgotten(peer: HttpPeer, google: Google, build: Build) -> None:
    provider = build()
    provider.send(a_push(), Deadline(20))
    peer.says(Reply(401, error(401, "UNAUTHENTICATED")), google.send)

    assert type(refusal(provider, a_push())) is Misconfigured
    provider.send(a_push(), Deadline(20))

    assert google.tokens == 2


def test_a_wrong_key_of_apples_costs_no_token(peer: HttpPeer, google: Google, build: Build) -> None:
    provider = build()
    apples = Reply(401, error(401, "UNAUTHENTICATED", "no", code("THIRD_PARTY_AUTH_ERROR")))
    peer.says(apples, apples, google.send)

    assert [type(refusal(provider, a_push())) for _ in range(2)] == [TryLater, TryLater]
    provider.send(a_push(), Deadline(20))

    assert google.tokens == 1


@pytest.mark.parametrize(
    ("answer", "error_is", "word", "wait"),
    [
        (
            Reply(400, {"error": "invalid_grant", "error_description": "493817"}),
            Misconfigured,
            "invalid_grant",
            None,
        ),
        (Reply(401, {"error": "invalid_client"}), Misconfigured, "invalid_client", None),
        (Reply(403), Misconfigured, "403", None),
        (Reply(404), Misconfigured, "404", None),
        (Reply(307, headers={"Location": "http://127.0.0.1:9/"}), Misconfigured, "307", None),
        (Reply(429, headers={"Retry-After": "3600"}), Throttled, "429", 3600),
        (Reply(500, {"error": "server_error"}), TryLater, "500", None),
        (Reply(503), Unavailable, "503", None),
        (Reply(200, "not JSON"), TryLater, "token", None),
        (Reply(200, {"expires_in": 3599}), TryLater, "token", None),
        (Reply(200, {"access_token": "a\nb", "expires_in": 3599}), TryLater, "token", None),
        (Reply(200, {"access_token": 5, "expires_in": 3599}), TryLater, "token", None),
        (Reply(200, {"access_token": "a", "expires_in": "soon"}), TryLater, "token", None),
        (Reply(200, ["odd"]), TryLater, "token", None),
        (Reply(204), TryLater, "204", None),
        (HANG, TryLater, "timeout", None),
        (RESET, TryLater, "connection-lost", None),
    ],
)
def test_without_a_token_nothing_is_sent_and_google_is_asked_once(
    answer: Answer,
    error_is: type[ChannelError],
    word: str,
    wait: float | None,
    peer: HttpPeer,
    google: Google,
    build: Build,
) -> None:
    provider = build()
    provider.prewarm()
    peer.asides["/token"] = answer

    failure = refusal(provider, a_push(), Deadline(1 if answer is HANG else 20))

    assert (type(failure), failure.code, failure.retry_after) == (error_is, word, wait)
    assert (failure.__cause__, failure.__context__) == (None, None)
    assert "493817" not in str(failure)
    assert len(peer.asked_aside) == 1
    assert peer.requests == []
    peer.asides["/token"] = google.token
    provider.send(a_push(), Deadline(20))


def test_who_waits_for_anothers_token_keeps_the_deadline(peer: HttpPeer, build: Build) -> None:
    provider = build()
    provider.prewarm()
    peer.asides["/token"] = HANG
    held = Deadline(60)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(refusal, provider, a_push(), held)
        peer.until(lambda: peer.asked_aside)
        deadline = Deadline(0.3)

        failure = refusal(provider, a_push(), deadline)

        assert (type(failure), failure.code) == (TryLater, "deadline")
        assert deadline.overdue() < 10
        assert held.cut()
        assert type(first.result(30)) is TryLater
    assert len(peer.asked_aside) == 1


def test_a_wrong_key_is_the_accounts_fault(peer: HttpPeer, build: Build) -> None:
    failure = refusal(build(credentials=account(f"{peer.url}/token", number=1)), a_push())

    assert (type(failure), failure.code) == (Misconfigured, "invalid_grant")
    assert peer.requests == []


def test_google_is_asked_nothing_else(peer: HttpPeer, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """google-auth by itself asks about regions, from a thread of its own."""
    started: list[str] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        started.append(type(thread).__module__)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)

    build().send(a_push(), Deadline(20))

    assert not [each for each in started if each.startswith("google")]
    assert [each.target for each in peer.asked_aside] == ["/token"]


# --- two of them ------------------------------------------------------------------------------------


def test_two_providers_of_one_process_share_nothing(build: Build) -> None:
    blog = Google("blog-2", number=1)
    with HttpPeer(blog.send) as other:
        other.asides["/token"] = blog.token
        first = build()
        second = build(url=other.url, credentials=account(f"{other.url}/token", "blog-2", number=1))

        accepted = [each.send(a_push(), Deadline(20)).provider_message_id for each in (first, second, first)]
        first.close()
        accepted.append(second.send(a_push(), Deadline(20)).provider_message_id)

    assert accepted == [
        "projects/shop-1/messages/0:1",
        "projects/blog-2/messages/0:1",
        "projects/shop-1/messages/0:2",
        "projects/blog-2/messages/0:2",
    ]
    import firebase_admin  # noqa: PLC0415

    assert firebase_admin._apps == {}  # the SDK's list is the process's, and would grow with each reload


def test_an_account_may_send_for_another_project(peer: HttpPeer, build: Build) -> None:
    blog = Google("blog-2")
    peer.says(blog.send)
    peer.asides["/token"] = blog.token

    accepted = build(project="blog-2").send(a_push(), Deadline(20))

    assert accepted.provider_message_id == "projects/blog-2/messages/0:1"


# --- options ----------------------------------------------------------------------------------------


def changed(**changes: Any) -> str:
    fields = {**json.loads(account("https://oauth2.googleapis.com/token")), **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not None})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"credentials": "493817"}, "credentials is no service account"),
        ({"credentials": "[493817]"}, "credentials is no service account"),
        ({"credentials": "[" * 5000}, "credentials is no service account"),
        ({"credentials": changed(type="authorized_user")}, "credentials is no service account"),
        (
            {"credentials": changed(client_email=None, token_uri=5)},
            "credentials lacks client_email, token_uri",
        ),
        ({"credentials": changed(private_key="493817")}, "credentials has a private_key that cannot be read"),
        ({"credentials": changed(token_uri="http://oauth2.example/493817")}, "credentials has a token_uri"),
        ({"credentials": changed(token_uri="ftp://493817")}, "credentials has a token_uri"),
        ({"credentials": changed(project_id="a/b 493817")}, "credentials has no id of a Firebase project"),
        ({"project": "../493817"}, "project has no id of a Firebase project"),
        ({"ttl": 2419201}, "ttl is no whole number that fits; write from 0 to 2419200"),
        ({"priority": "493817"}, "priority is none of its words; write one of high, normal"),
        ({"url": "http://fcm.example"}, "url may be http:// for this machine alone"),
    ],
)
def test_a_wrong_option_is_named_with_its_remedy_and_not_told(
    options: dict[str, Any], said: str, build: Build
) -> None:
    with pytest.raises(Misconfigured, match=f"phones: {said}") as caught:
        build(**options)

    assert "493817" not in str(caught.value)
    assert "; write" in caught.value.detail
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_a_missing_sdk_is_named(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(Misconfigured, match="needs the package firebase_admin; type pip install"):
        build()


def test_an_sdk_of_another_make_is_the_fleets_fault_and_not_the_messages(
    peer: HttpPeer, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    from firebase_admin import messaging  # noqa: PLC0415

    monkeypatch.delattr(messaging, "_MessagingService")

    failure = refusal(build(), a_push())

    assert (type(failure), failure.code) == (Misconfigured, "sdk")
    assert (failure.__cause__, failure.__context__) == (None, None)
    assert peer.connections == 0


# --- the SDK as it is -------------------------------------------------------------------------------


def python(script: str, **environment: str) -> str:
    """What a process of its own prints."""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_the_sdk_is_loaded_when_it_is_needed_and_not_before(build: Build) -> None:
    assert isinstance(build(), Prewarmed)
    script = """
import os, sys
from channels.loader import load
there = lambda: {each for each in ("firebase_admin", "google.auth", "requests", "httpx") if each in sys.modules}
import channels.push.fcm
assert not there(), there()
provider = load("push.fcm", "phones", {"credentials": os.environ["ACCOUNT"]})
assert not there(), there()
provider.prewarm()
print(len(there()))
"""
    assert python(script, ACCOUNT=account("https://oauth2.googleapis.com/token")) == "4"


THEIRS = """
import json, os
import firebase_admin
from firebase_admin import credentials, exceptions, messaging
certificate = credentials.Certificate(json.loads(os.environ["ACCOUNT"]))
firebase_admin.initialize_app(certificate, {"httpTimeout": float(os.environ["TIMEOUT"])})
message = messaging.Message(data={"order_id": "981"}, notification=messaging.Notification(title="Order 981"))
message.token = os.environ["TOKEN"]
try:
    print(messaging.send(message))
except exceptions.UnavailableError:
    print("unavailable")
"""


def test_the_sdk_as_it_is_and_ours_reach_the_real_address_and_ours_asks_once(
    build: Build, tmp_path: Path
) -> None:
    """Both go through a proxy to fcm.googleapis.com, in TLS; then FCM says nothing any more."""
    private = private_ca(tmp_path, "fcm.googleapis.com", "oauth2.googleapis.com")
    document = account("https://oauth2.googleapis.com/token")
    google = Google(token_uri="https://oauth2.googleapis.com/token")
    with HttpPeer(google.send, tls=private.server) as peer, ConnectProxy(peer.port) as proxy:
        peer.asides["/token"] = google.token
        options = {"credentials": document, "proxy": proxy.url, "ca_file": private.ca_file}
        theirs = {"ACCOUNT": document, "TOKEN": TOKEN, "TIMEOUT": "20"}
        theirs |= {"HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": private.ca_file}
        provider = build(**options, url=None)

        ours = [provider.send(a_push({"title": "Order 981", "data": {"order_id": "981"}}), Deadline(20))
                for _ in range(3)]  # fmt: skip
        assert python(THEIRS, **theirs) == "projects/shop-1/messages/0:4"

        assert [each.provider_message_id for each in ours] == [
            f"projects/shop-1/messages/0:{n}" for n in (1, 2, 3)
        ]
        assert proxy.asked_for[:2] == ["oauth2.googleapis.com:443", "fcm.googleapis.com:443"]
        assert proxy.asked_for.count("fcm.googleapis.com:443") == 2  # ours kept its connection
        mine, reference = peer.requests[0], peer.requests[-1]
        changing = {"accept-encoding", "authorization", "connection", "content-length", "x-goog-api-client"}
        for header in reference.headers.keys() - changing:
            assert mine.headers[header] == reference.headers[header], header
        assert mine.target == reference.target == "/v1/projects/shop-1/messages:send"
        for part in ("notification", "token"):
            assert google.messages[0][part] == google.messages[-1][part]

        peer.says(HANG)
        before = len(peer.requests)
        assert python(THEIRS, **{**theirs, "TIMEOUT": "1"}) == "unavailable"
        assert len(peer.requests) - before == 2  # a second push on the phone
        before = len(peer.requests)
        assert type(refusal(provider, a_push(), Deadline(1))) is Uncertain
        assert len(peer.requests) - before == 1


def test_no_logger_tells_anything(
    peer: HttpPeer, google: Google, build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("google", "google.auth", "google.oauth2", "urllib3", "requests", "httpx", "firebase_admin"):
        caplog.set_level(logging.DEBUG, name)
    provider = build()
    provider.send(a_push(), Deadline(20))
    peer.says(Reply(404, error(404, "NOT_FOUND", TOKEN, code("UNREGISTERED"))))

    refusal(provider, a_push())

    told = " ".join(
        repr(vars(each)) for each in caplog.records
    )  # `extra` too, where google-auth puts requests
    for private in (TOKEN, "Zoë", "ya29", "PRIVATE KEY", "assertion"):
        assert private not in told
