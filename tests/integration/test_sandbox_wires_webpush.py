"""The sandbox as a push service and its browsers: a message that is signed and sealed for them is opened and shown."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import http_ece
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from integration.wire_clients import LOCAL, ask, row, send, shown
from py_vapid import Vapid
from pywebpush import webpush

from channels.contract import (
    Accepted,
    AddressInvalid,
    ChannelError,
    DataContent,
    Provider,
    Refused,
    Throttled,
    TryLater,
    Uncertain,
)
from channels.loader import load
from notify_tasks.sandbox import Sandbox, credentials, sandbox_process
from tests.support.wired import last

ORDER = {
    "title": "Order 981 is on its way",
    "body": "Post is bringing it to you, Zoë.",
    "url": "https://a.example/9",
}
SENT = DataContent(ORDER)


@pytest.fixture(scope="module")
def far_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_process(tmp_path_factory.mktemp("sandbox"), page=True, page_port=0) as running:
        yield running


@pytest.fixture
def sandbox(far_end: Sandbox) -> Sandbox:
    far_end.clear_modes()
    return far_end


def _browsers(sandbox: Sandbox, key: str) -> Provider:
    options = {"private_key": key, "subject": "mailto:ops@example.com", "hosts": ["127.0.0.1"], **LOCAL}
    return load("webpush.vapid", "browsers", options)


@pytest.fixture(scope="module")
def browsers(far_end: Sandbox) -> Iterator[Provider]:
    found = _browsers(far_end, far_end.ready.environment["SANDBOX_VAPID_PRIVATE_KEY"])
    yield found
    found.close()


def _browser(sandbox: Sandbox, name: str) -> str:
    return credentials.webpush_subscription(sandbox.http_url, name)


def test_a_web_push_is_opened_by_the_browser_and_shown(sandbox: Sandbox, browsers: Provider) -> None:
    message, outcome = send(browsers, "webpush", _browser(sandbox, "ann-laptop"), SENT)

    taken = last(sandbox)
    assert outcome == Accepted(taken.id, "201")
    assert (taken.protocol, taken.kind, taken.accepted, taken.to) == ("webpush", "opaque", True, "ann-laptop")
    assert taken.delivery_id == message.delivery_id
    page = shown(sandbox, taken.id)
    assert f'<p class="push-title">{ORDER["title"]}</p>' in page
    assert ORDER["body"] in page


@pytest.mark.parametrize(
    ("mode", "error", "code", "wait"),
    [
        ("wrong_key", TryLater, "403", None),
        ("dead_address", AddressInvalid, "410", None),
        ("404", AddressInvalid, "404", None),
        ("413", Refused, "413", None),
        ("429", Throttled, "429", 7),
        ("500", Uncertain, "500", None),
        ("503", TryLater, "503", 7),
    ],
)
def test_the_push_service_refuses(
    sandbox: Sandbox, browsers: Provider, mode: str, error: type[ChannelError], code: str, wait: float | None
) -> None:
    sandbox.set_mode("webpush", mode, **({} if wait is None else {"retry_after": wait}))

    _, outcome = send(browsers, "webpush", _browser(sandbox, "ann-laptop"), SENT)

    assert isinstance(outcome, error)
    assert (outcome.code, outcome.retry_after) == (code, wait)
    assert not last(sandbox).accepted


def test_browsers_misbehave_by_their_names(sandbox: Sandbox, browsers: Provider) -> None:
    assert isinstance(send(browsers, "webpush", _browser(sandbox, "bounce-1"), SENT)[1], AddressInvalid)
    throttled = send(browsers, "webpush", _browser(sandbox, "throttle-1"), SENT)[1]
    assert isinstance(throttled, Throttled)
    assert throttled.retry_after == 1


def test_another_key_than_the_one_subscribed_with_is_refused(sandbox: Sandbox) -> None:
    key = ec.derive_private_key(981, ec.SECP256R1()).private_numbers().private_value.to_bytes(32, "big")
    stranger = _browsers(sandbox, base64.urlsafe_b64encode(key).decode())

    _, outcome = send(stranger, "webpush", _browser(sandbox, "ann-laptop"), SENT)

    assert isinstance(outcome, TryLater)
    assert (outcome.code, last(sandbox).action) == ("403", "invalid")
    stranger.close()


@pytest.fixture(scope="module")
def vapid() -> Vapid:
    return Vapid(credentials.vapid_key())


def test_pywebpush_by_itself_is_understood(sandbox: Sandbox, vapid: Vapid) -> None:
    with requests.Session() as session:
        session.trust_env = False
        answer = webpush(
            json.loads(_browser(sandbox, "eve-laptop")),
            data=json.dumps({"title": "From another client"}),
            vapid_private_key=vapid,
            vapid_claims={"sub": "mailto:eve@example.com"},
            ttl=60,
            requests_session=session,
        )

    taken = last(sandbox)
    assert answer.status_code == 201
    assert answer.headers["Location"].startswith(sandbox.http_url)
    assert answer.headers["Location"].endswith(f"/{taken.id}")
    assert "From another client" in shown(sandbox, taken.id)


def _sealed(text: bytes, browser: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """Encrypted for a browser by http_ece."""
    public = (browser or credentials.browser_key()).public_key()
    point = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    sealed: bytes = http_ece.encrypt(
        text,
        private_key=ec.generate_private_key(ec.SECP256R1()),
        dh=point,
        auth_secret=credentials.BROWSER_AUTH,
    )
    return sealed


def _headers(sandbox: Sandbox, vapid: Vapid, **claims: object) -> dict[str, str]:
    said = {
        "sub": "mailto:ops@example.com",
        "aud": sandbox.http_url,
        "exp": int(time.time()) + 3600,
        **claims,
    }
    return {"TTL": "60", "Content-Encoding": "aes128gcm", **vapid.sign(said)}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 201),
        ({"TTL": ""}, 400),
        ({"TTL": "soon"}, 400),
        ({"Topic": "x" * 33}, 400),
        ({"Urgency": "now"}, 400),
        ({"Content-Encoding": "aesgcm"}, 400),
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer x"}, 401),
        ({"Authorization": "vapid t=a.b.c, k=x"}, 403),
        ({"Authorization": f"vapid t=a.b.c, k={credentials.vapid_public_key()}"}, 403),
    ],
)
def test_a_push_needs_what_its_specifications_ask_for(
    sandbox: Sandbox, vapid: Vapid, change: dict[str, str], status: int
) -> None:
    headers = {**_headers(sandbox, vapid), **change}

    answer = ask(f"{sandbox.http_url}/webpush/ann", "POST", _sealed(b"{}"), headers)

    assert answer.status == status
    assert last(sandbox).action == ("send" if status == 201 else "invalid")


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://push.example"},
        {"exp": int(time.time()) - 5},
        {"exp": int(time.time()) + 26 * 3600},
    ],
)
def test_a_signature_holds_for_this_service_and_a_day(
    sandbox: Sandbox, vapid: Vapid, claims: dict[str, object]
) -> None:
    headers = _headers(sandbox, vapid, **claims)

    assert ask(f"{sandbox.http_url}/webpush/ann", "POST", _sealed(b"{}"), headers).status == 403


def test_a_signature_names_the_key_that_the_browser_subscribed_with(sandbox: Sandbox, vapid: Vapid) -> None:
    headers = _headers(sandbox, vapid)
    other = base64.urlsafe_b64encode(b"\x04" + bytes(64)).decode().rstrip("=")
    headers["Authorization"] = headers["Authorization"].replace(credentials.vapid_public_key(), other)

    assert ask(f"{sandbox.http_url}/webpush/ann", "POST", _sealed(b"{}"), headers).status == 403


def test_a_push_has_at_most_4096_bytes(sandbox: Sandbox, vapid: Vapid) -> None:
    headers = _headers(sandbox, vapid)
    url = f"{sandbox.http_url}/webpush/ann"

    assert ask(url, "POST", b"x" * 4097, headers).status == 413
    assert ask(url, "POST", b"x" * 4096, headers).status == 201
    assert ask(url, "GET", headers=headers).status == 405


def test_what_no_browser_can_open_is_taken_and_said_to_be_so(sandbox: Sandbox, vapid: Vapid) -> None:
    sealed = _sealed(b'{"title": "For somebody else"}', ec.generate_private_key(ec.SECP256R1()))

    answer = ask(f"{sandbox.http_url}/webpush/ann", "POST", sealed, _headers(sandbox, vapid))

    taken = last(sandbox)
    assert answer.status == 201
    assert "For somebody else" not in shown(sandbox, taken.id)
    assert "The browser cannot open it" in shown(sandbox, taken.id)
    assert "encrypted for another browser" in row(sandbox, taken.id)
