"""The sandbox as Google: what our provider and others' clients push is taken, or refused in FCM's words."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt, jwt
from google.auth.transport.requests import Request
from google.oauth2 import service_account
from integration.wire_clients import ask, row, send, shown

from channels.contract import (
    Accepted,
    AddressInvalid,
    ChannelError,
    DataContent,
    Misconfigured,
    Provider,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
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


@pytest.fixture(scope="module")
def account(far_end: Sandbox) -> dict[str, Any]:
    """The service account that the sandbox gives, as the console would."""
    found: dict[str, Any] = json.loads(
        Path(far_end.ready.environment["SANDBOX_FCM_CREDENTIALS_FILE"]).read_text()
    )
    return found


@pytest.fixture(scope="module")
def phones(far_end: Sandbox, account: dict[str, Any]) -> Iterator[Provider]:
    found = _phones(far_end, account)
    yield found
    found.close()


def _phones(sandbox: Sandbox, account: dict[str, Any]) -> Provider:
    options = {"url": sandbox.ready.https_url, "ca_file": sandbox.ready.ca_file}
    return load("push.fcm", "phones", {**options, "credentials": json.dumps(account)})


@pytest.fixture(scope="module")
def bearer(far_end: Sandbox, account: dict[str, Any]) -> str:
    """An access token, as Google's own library asks for one."""
    scopes = ["https://www.googleapis.com/auth/firebase.messaging"]
    made = service_account.Credentials.from_service_account_info(account, scopes=scopes)  # type: ignore[no-untyped-call]
    with requests.Session() as session:
        session.trust_env = False
        session.verify = far_end.ready.ca_file
        made.refresh(Request(session))  # type: ignore[no-untyped-call]
    return f"Bearer {made.token}"


def test_a_push_is_taken_named_and_shown_on_a_phone(sandbox: Sandbox, phones: Provider) -> None:
    message, outcome = send(phones, "push", "ann-phone:APA91b", SENT)

    taken = last(sandbox)
    assert outcome == Accepted(f"projects/notify-sandbox/messages/{taken.id}", "200")
    assert (taken.protocol, taken.channel, taken.kind, taken.accepted) == ("fcm", "push", "opaque", True)
    assert (taken.delivery_id, taken.to) == (message.delivery_id, "ann-phone:APA91b")
    page = shown(sandbox, taken.id)
    assert f'<p class="push-title">{ORDER["title"]}</p>' in page
    assert ORDER["body"] in page
    assert ORDER["url"] in page
    assert '<span class="badge">FCM</span>' in row(sandbox, taken.id)


@pytest.mark.parametrize(
    ("mode", "error", "code", "wait"),
    [
        ("wrong_key", Misconfigured, "UNAUTHENTICATED", None),
        ("dead_address", AddressInvalid, "UNREGISTERED", None),
        ("bad_token", AddressInvalid, "INVALID_ARGUMENT", None),
        ("SENDER_ID_MISMATCH", AddressInvalid, "SENDER_ID_MISMATCH", None),
        ("THIRD_PARTY_AUTH_ERROR", TryLater, "THIRD_PARTY_AUTH_ERROR", None),
        ("400", Refused, "INVALID_ARGUMENT", None),
        ("403", Misconfigured, "PERMISSION_DENIED", None),
        ("429", Throttled, "QUOTA_EXCEEDED", 33),
        ("500", TryLater, "INTERNAL", 33),
        ("502", Uncertain, "502", 33),
        ("503", TryLater, "UNAVAILABLE", 33),
    ],
)
def test_fcm_refuses_in_its_own_words(
    sandbox: Sandbox, phones: Provider, mode: str, error: type[ChannelError], code: str, wait: float | None
) -> None:
    sandbox.set_mode("fcm", mode, **({} if wait is None else {"retry_after": wait}))

    _, outcome = send(phones, "push", "ann-phone:APA91b", SENT)

    assert isinstance(outcome, error)
    assert (outcome.code, outcome.retry_after) == (code, wait)
    assert (last(sandbox).accepted, last(sandbox).mode) == (False, mode)


def test_fcm_without_retry_after_is_down(sandbox: Sandbox, phones: Provider) -> None:
    sandbox.set_mode("fcm", "503")

    assert isinstance(send(phones, "push", "ann-phone", SENT)[1], Unavailable)


@pytest.mark.parametrize(
    ("token", "error", "code"),
    [
        ("bounce-phone", AddressInvalid, "UNREGISTERED"),
        ("reject-phone", Refused, "INVALID_ARGUMENT"),
        ("throttle-phone", Throttled, "QUOTA_EXCEEDED"),
        ("lost-phone", Uncertain, "connection-lost"),
        ("no!token", AddressInvalid, "INVALID_ARGUMENT"),
    ],
)
def test_phones_misbehave_by_their_names(
    sandbox: Sandbox, phones: Provider, token: str, error: type[ChannelError], code: str
) -> None:
    _, outcome = send(phones, "push", token, SENT)

    assert isinstance(outcome, error)
    assert outcome.code == code


def test_an_account_with_another_key_gets_no_token(sandbox: Sandbox, account: dict[str, Any]) -> None:
    forged = {**account, "private_key": _pem(rsa.generate_private_key(65537, 2048))}
    stranger = _phones(sandbox, forged)
    before = len(sandbox.requests())

    _, outcome = send(stranger, "push", "ann-phone:APA91b", SENT)

    assert isinstance(outcome, Misconfigured)
    assert outcome.code == "invalid_grant"
    assert [it.action for it in sandbox.requests()[before:]] == ["invalid"]
    stranger.close()


def _pem(key: rsa.RSAPrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, *form).decode()


def _claims(sandbox: Sandbox, **changes: object) -> dict[str, object]:
    now = int(time.time())
    return {
        "iss": credentials.FCM_CLIENT_EMAIL,
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": f"{sandbox.http_url}/token",
        "iat": now,
        "exp": now + 3600,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, None),
        ({"aud": "https://oauth2.googleapis.com/token"}, None),
        ({"aud": "https://evil.example/token"}, "invalid_grant"),
        ({"iss": "else@notify-sandbox.iam.gserviceaccount.com"}, "invalid_grant"),
        ({"exp": 1, "iat": 0}, "invalid_grant"),
        ({"exp": int(time.time()) + 7200}, "invalid_grant"),
        ({"scope": "https://www.googleapis.com/auth/drive"}, "invalid_scope"),
    ],
)
def test_a_token_is_given_for_a_sound_assertion_alone(
    sandbox: Sandbox, account: dict[str, Any], changes: dict[str, object], error: str | None
) -> None:
    signer = crypt.RSASigner.from_service_account_info(account)  # type: ignore[no-untyped-call]
    assertion = jwt.encode(signer, _claims(sandbox, **changes)).decode()  # type: ignore[no-untyped-call]

    answer = ask(f"{sandbox.http_url}/token", "POST", _form(assertion))

    told = json.loads(answer.body)
    assert answer.status == (200 if error is None else 400)
    assert told.get("error") == error
    assert last(sandbox).action == ("side" if error is None else "invalid")


def test_an_assertion_that_asks_for_no_signature_is_none(sandbox: Sandbox) -> None:
    parts = [{"alg": "none"}, _claims(sandbox)]
    bare = ".".join(base64.urlsafe_b64encode(json.dumps(it).encode()).decode().rstrip("=") for it in parts)

    answer = ask(f"{sandbox.http_url}/token", "POST", _form(f"{bare}."))

    assert json.loads(answer.body)["error"] == "invalid_grant"


def _form(assertion: str) -> str:
    return urlencode({"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion})


def _post(
    sandbox: Sandbox, bearer: str, message: object, project: str = credentials.FCM_PROJECT
) -> tuple[int, Any]:
    answer = ask(
        f"{sandbox.http_url}/v1/projects/{project}/messages:send",
        "POST",
        json.dumps({"message": message}),
        {"Authorization": bearer, "Content-Type": "application/json"},
    )
    return answer.status, json.loads(answer.body)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"notification": {"title": "to nobody"}}, "message"),
        ({"token": "a", "topic": "news"}, "message"),
        ({"token": "a", "data": {"order": 981}}, "message.data[0].value"),
        ({"token": "a", "data": {"from": "shop"}}, "message.data"),
        ({"token": "a", "notification": {"titel": "a slip"}}, "message.notification"),
        ({"token": "a", "android": {"ttl": "a day"}}, "message.android.ttl"),
        ({"token": "a", "android": {"priority": "urgent"}}, "message.android.priority"),
        ({"token": "a", "notification": {"body": "x" * 4093}}, "message"),
        ("no object", "message"),
    ],
)
def test_fcm_names_the_field_that_is_wrong(
    sandbox: Sandbox, bearer: str, message: object, field: str
) -> None:
    status, told = _post(sandbox, bearer, message)

    assert (status, told["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert told["error"]["details"][0]["fieldViolations"][0]["field"] == field
    assert last(sandbox).action == "invalid"


def test_fcm_takes_what_its_reference_allows(sandbox: Sandbox, bearer: str) -> None:
    whole = {
        "token": "ann-phone:APA91b",
        "notification": {"title": "Hi", "body": "x" * 4000},
        "data": {"delivery_id": "d-1"},
        "android": {"collapseKey": "k", "priority": "HIGH", "ttl": "3.5s", "directBootOk": True},
        "apns": {"headers": {"apns-priority": "10"}, "payload": {"aps": {"badge": 1}}},
        "fcmOptions": {"analyticsLabel": "a"},
    }

    status, told = _post(sandbox, bearer, whole)

    assert status == 200
    assert told == {"name": f"projects/notify-sandbox/messages/{last(sandbox).id}"}
    assert last(sandbox).delivery_id == "d-1"


def test_fcm_sends_for_nobody_else(sandbox: Sandbox, bearer: str) -> None:
    hello = {"token": "a", "notification": {"title": "Hi"}}

    assert _post(sandbox, "Bearer ya29.sandbox.9999999999.0", hello)[0] == 401
    assert _post(sandbox, "", hello)[0] == 401
    assert _post(sandbox, bearer, hello, project="another-shop")[0] == 403
    assert last(sandbox).action == "invalid"


def test_a_push_without_words_says_so_on_the_page(sandbox: Sandbox, bearer: str) -> None:
    _post(sandbox, bearer, {"token": "ann-phone", "data": {"sync": "inbox"}})

    assert "Nothing is shown: the app alone is told" in shown(sandbox, last(sandbox).id)
    assert "sync" in row(sandbox, last(sandbox).id)
