"""firebase-admin on our own HTTP client: its messages and credentials, none of its network.

What the SDK would do by itself, measured: a second request after a timeout or a reset (a second push on the
phone), ten more over minutes where a connection ends without TLS's goodbye, four more after a 503 with seven
seconds of sleep, one more after a 429 as late as Retry-After says, two more after each 401, redirects followed
with the key; google-auth sleeps between tries for a token, and asks a server of Google's about regions from a
thread of its own. So requests' adapters are taken out of the SDK's session and one of ours is put in, and the
token is fetched here.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from http import HTTPStatus
from types import ModuleType
from typing import Any, Final, NamedTuple

from channels.contract import (
    Capability,
    ChannelError,
    Deadline,
    Misconfigured,
    Refused,
    TryLater,
    Uncertain,
)
from channels.http import Answer, Client, Secret

_SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
_EARLY: Final = 60.0
"""Seconds before its end at which a token is not used any more: a request takes time, and clocks differ."""
_OURS: Final = frozenset({"accept-encoding", "connection", "content-length", "host", "transfer-encoding"})
"""Headers that the client sets."""

Judge = Callable[[Answer], ChannelError | None]
Compose = Callable[[ModuleType], Any]
"""Makes a `firebase_admin.messaging.Message`, given that module."""


@dataclass(frozen=True, slots=True)
class Account:
    """A service account, and how its server and FCM are reached.

    Args:
        document: the JSON of the account.
        project: the id of the Firebase project that it sends for.
        fcm: sends messages.
        tokens: asks for access tokens.
        token_target: path and query of the token endpoint.
    """

    document: Secret
    project: str
    fcm: Client
    tokens: Client
    token_target: str = field(repr=False)


class Session:
    """Sends composed messages to FCM, one request for each. The SDK is loaded by the first, or by `prewarm`.

    Args:
        account: whose messages they are.
        judge: what an answer means; None where it says yes.
    """

    def __init__(self, account: Account, judge: Judge) -> None:
        self._account = account
        self._judge = judge
        self._tokens = _Tokens(account)
        self._loading = threading.Lock()
        self._sdk: Callable[[], _Sdk] | None = (
            None  # in a closure: a dump of attributes does not look into it
        )

    def prewarm(self) -> None:
        """Load the SDK now: it costs as much CPU as a thousand messages, which the first one does not pay then."""
        self._loaded()

    def send(self, compose: Compose, deadline: Deadline) -> str:
        """Send one message, and return the name that FCM gave it.

        Raises:
            ChannelError: it was not taken, or nobody knows.
        """
        if deadline.overdue() >= 0:
            raise TryLater("deadline", "no time was left to send; raise the provider's timeout")
        call: _Call | None = None
        problem = ""
        try:
            sdk = self._loaded()
            composed = compose(sdk.messaging)  # first: what cannot be sent needs no token
            call = _Call(deadline, self._tokens.current(deadline))
            with sdk.calls.sending(call):
                return str(sdk.service.send(composed))
        except Misconfigured:  # a 401 for another reason, Apple's key say, leaves the token good
            if call is not None and call.status == HTTPStatus.UNAUTHORIZED:
                self._tokens.forget(call.token)
            raise
        except ChannelError:
            raise
        except Exception as error:  # noqa: BLE001 - the SDK's own: its text, and what it holds, quote the message
            problem = type(error).__name__
        raise _not_ours(problem, sent=call is not None and call.sent)

    def _loaded(self) -> _Sdk:
        with self._loading:
            if self._sdk is None:
                opened = _open(self._account.project, self._account.fcm, self._judge)
                self._sdk = lambda: opened
            return self._sdk()


def _not_ours(problem: str, *, sent: bool) -> ChannelError:
    """What an exception of the SDK's means."""
    if sent:
        return Uncertain("sdk", f"firebase-admin cannot read what FCM answered ({problem}); update it")
    if problem == "ValueError":
        return Refused(
            "content", "firebase-admin does not take content.data; correct the template of push.json"
        )
    return Misconfigured(
        "sdk", f"firebase-admin made no request ({problem}); install the version of the extra"
    )


# --- access tokens ------------------------------------------------------------------------------------


class _Token(NamedTuple):
    secret: Secret
    ends: float


class _Tokens:
    """The account's access token: asked for once an hour, by one thread, while the others wait for it."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._asking = threading.Lock()
        self._token: _Token | None = None

    def current(self, deadline: Deadline) -> Secret:
        token = self._token
        if token is not None and token.ends > time.time():
            return token.secret
        if not self._asking.acquire(timeout=max(-deadline.overdue(), 0)):
            raise TryLater("deadline", "Google's token did not come in time; raise the provider's timeout")
        try:
            token = self._token
            if token is None or token.ends <= time.time():
                self._token = token = self._ask(deadline)
            return token.secret
        finally:
            self._asking.release()

    def forget(self, secret: Secret) -> None:
        """FCM does not take this token: the next message brings a new one."""
        token = self._token
        if token is not None and token.secret is secret:
            self._token = None

    def _ask(self, deadline: Deadline) -> _Token:
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
        from google.oauth2 import service_account  # noqa: PLC0415 - heavy: for those who send

        document = json.loads(self._account.document.reveal())
        failed = False
        ends = 0.0
        secret: Any = ""
        try:
            made = service_account.Credentials.from_service_account_info(document, scopes=[_SCOPE])  # type: ignore[no-untyped-call]
            made.refresh(lambda **asked: self._exchange(deadline, **asked))
            secret = made.token
            ends = (
                made.expiry.replace(tzinfo=UTC).timestamp() - _EARLY if made.expiry else time.time() + _EARLY
            )
        except (GoogleAuthError, ValueError, TypeError, OverflowError):
            failed = True
        if failed or not isinstance(secret, str) or not re.fullmatch(r"[\x21-\x7e]+", secret):
            raise TryLater("token", "what came from Google's token endpoint is no token")
        return _Token(Secret(secret), ends)

    def _exchange(
        self, deadline: Deadline, *, headers: Mapping[str, str], body: bytes, **_: object
    ) -> _TokenAnswer:
        """Carry google-auth's one request. It never sees a failure: it would sleep, and ask again."""
        answer = self._account.tokens.request(
            "POST",
            self._account.token_target,
            deadline,
            headers={name: value for name, value in headers.items() if name.lower() not in _OURS},
            body=body,
            harmless=True,  # a second token harms nobody, and no message was sent yet
        )
        failure = _token_failure(answer)
        if failure is not None:
            raise failure
        return _TokenAnswer(answer.status, answer.headers, answer.body or b"")


@dataclass(frozen=True, slots=True)
class _TokenAnswer:
    """As google-auth reads an answer."""

    status: int
    headers: Mapping[str, str]
    data: bytes


_KEY_REFUSED: Final = (
    "Google gives no token for this service account; look at the option credentials, and at this "
    "machine's clock"
)


def _token_failure(answer: Answer) -> ChannelError | None:
    """What the token endpoint's no means (RFC 6749, section 5.2); None where it gave a token."""
    if answer.status == HTTPStatus.OK:
        return None
    if answer.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return Misconfigured(answer.identifier("error") or str(answer.status), _KEY_REFUSED)
    failure = answer.failure(Capability.IDEMPOTENT)
    return failure or TryLater(str(answer.status), "what came from Google's token endpoint is no token")


# --- the SDK ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Call:
    """One message on its way."""

    deadline: Deadline
    token: Secret
    sent: bool = False
    status: int = 0


class _Calls(threading.local):
    """The message that each thread is sending."""

    now: _Call | None = None

    @contextmanager
    def sending(self, call: _Call) -> Iterator[None]:
        self.now = call
        try:
            yield
        finally:
            self.now = None


class _Sdk(NamedTuple):
    messaging: ModuleType
    service: Any
    calls: _Calls


def _open(project: str, client: Client, judge: Judge) -> _Sdk:
    """Load the SDK, and put our client in the place of its own.

    The app is not entered in the SDK's list of apps, which is the process's: two providers never share one,
    and a provider that is built anew leaves none behind.
    """
    import firebase_admin  # noqa: PLC0415 - two thirds of a second of CPU: for those who send
    import requests  # noqa: PLC0415
    from firebase_admin import messaging  # noqa: PLC0415
    from google.auth.credentials import Credentials  # noqa: PLC0415

    calls = _Calls()

    class Bearer(Credentials):
        """Writes the current call's token, and never asks for one."""

        def refresh(self, _request: object) -> None:
            raise AssertionError("tokens are fetched before the SDK is called")

        def before_request(self, _request: object, _method: str, _url: str, headers: dict[str, str]) -> None:
            assert calls.now is not None
            headers["authorization"] = f"Bearer {calls.now.token.reveal()}"

    class Wire(requests.adapters.BaseAdapter):
        """Carries a prepared request by our client, and raises what a no means."""

        def send(self, request: requests.PreparedRequest, *_: object, **__: object) -> requests.Response:
            call = calls.now
            assert call is not None
            headers = {
                name: _text(value) for name, value in request.headers.items() if name.lower() not in _OURS
            }
            body = request.body.encode() if isinstance(request.body, str) else request.body
            call.sent = True
            answer = client.request(
                "POST", request.path_url, call.deadline, headers=headers, body=_bytes(body)
            )
            call.status = answer.status
            failure = judge(answer)
            if failure is not None:
                raise failure
            response = requests.Response()
            response.status_code, response.url, response.request = answer.status, request.url or "", request
            response._content = answer.body or b""  # noqa: SLF001 - as requests' own adapter leaves it
            return response

        def close(self) -> None:
            """Nothing is held here."""

    app = firebase_admin.App("notify-tasks", Bearer(), {"projectId": project})  # type: ignore[no-untyped-call]
    service = messaging._MessagingService(app)  # noqa: SLF001 - what `messaging.send(..., app=...)` calls
    session = service._client.session  # noqa: SLF001 - the one place where its retries can be switched off
    session.trust_env = False  # neither proxies nor ~/.netrc of the environment
    session.adapters.clear()  # all of them: there is one for FCM alone that goes before any other
    session.mount("https://", Wire())
    return _Sdk(messaging, service, calls)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _bytes(body: object) -> bytes:
    assert isinstance(body, bytes)
    return body
