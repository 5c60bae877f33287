"""`webpush.vapid`: a browser's push service (RFC 8030), encrypted for the browser (RFC 8291), signed (RFC 8292).

| the push service answers | outcome |
|---|---|
| 201, 200, 202 | Accepted; the id is the last part of Location, where it is short enough to keep |
| 404, 410 | AddressInvalid: the subscription is no more |
| 401, 403; 400 `UnauthorizedRegistration` | TryLater, or Misconfigured after five subscriptions in a row |
| any other 4xx, 413 | Refused |
| 408, 425 | TryLater |
| 429 | Throttled |
| 503 | TryLater |
| any other 5xx | Uncertain |
| 3xx | Refused: a redirect could lead anywhere, and would be given our signature |
| no answer in time, a lost connection | Uncertain; a repetition replaces what still waits (`Topic`) |
| refused, no DNS, no valid certificate | TryLater |
| a subscription that is none, or whose keys are none | AddressInvalid |
| a host that is not in `hosts`, http://, a network that is not allowed | Refused |

An endpoint is what a user has sent us, so what it answers never opens the provider's breaker by itself: nothing
is Unavailable. A 401 or 403 may come from a subscription that was made under another key of ours, or from our key
being wrong. One push service that turns down five different subscriptions, and takes none between them, says the
latter.

The payload is the object that `webpush.json` makes, as it is, with our `delivery_id` beside its keys: the service
worker shows it. `tag`, where there is one, is made the `Topic` too, so that a newer message replaces an older one
that still waits; else the delivery's id is. The options give the header `TTL` (`ttl`) and `Urgency` (`urgency`).
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Mapping
from http import HTTPStatus
from types import ModuleType
from typing import Any, Final

from channels._sdk import need
from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    ChannelError,
    DataContent,
    Deadline,
    Message,
    Misconfigured,
    Refused,
    Throttled,
    TryLater,
    Uncertain,
)
from channels.http import SAFE_OPTIONS, Answer, Meaning, Options, SafeClient, Secret, carried, to_json
from channels.webpush._subscription import Subscription, read

STATUSES: Final[Mapping[int, Meaning]] = {
    404: (AddressInvalid, "the push service does not know the subscription"),
    408: (TryLater, "the push service did not get the whole request in time"),
    410: (AddressInvalid, "the push service says that the subscription is gone"),
    413: (Refused, "the message is too long for the push service; shorten content.data"),
    425: (TryLater, "the push service does not take the request yet"),
    429: (Throttled, "the push service asks us to slow down"),
    503: (TryLater, "the push service is not available"),
}
REDIRECT: Final[Meaning] = (Refused, "the push service redirects, which is not followed")
ANY_OTHER_NO: Final[Meaning] = (Refused, "the push service refused the message")
ANY_FAILURE: Final[Meaning] = (Uncertain, "the push service failed with the request in hand")
ONE_DENIED: Final[Meaning] = (
    TryLater,
    "the push service does not take our key for this subscription; let the browser subscribe again",
)
ALL_DENIED: Final[Meaning] = (
    Misconfigured,
    "a push service takes our key for no subscription; look at the options private_key and subject",
)

PUSH_HOSTS: Final = (
    "fcm.googleapis.com",  # Chrome, Edge on Android, Opera, Brave
    "*.push.services.mozilla.com",  # Firefox
    "*.push.apple.com",  # Safari
    "*.notify.windows.com",  # Edge on Windows
)
MAX_PAYLOAD: Final = 3993
"""Bytes before encryption: they make the 4096 that a push service must take (RFC 8291, section 4)."""
MANY: Final = 5
"""Subscriptions of one push service turned down in a row, which say that our key is wrong."""
_MAX_TTL: Final = 28 * 24 * 3600
_LIFE: Final = 12 * 3600
"""Seconds that a signature holds; push services take up to 24 hours (RFC 8292, section 2)."""
_RAW_KEY_BYTES: Final = 32


def build(name: str, options: Mapping[str, Any]) -> VapidProvider:
    """Build the provider.

    Args:
        name: its name in the configuration.
        options: `private_key`, required: of P-256, in PEM or as the 32 bytes in base64url that tools for
            VAPID write. `subject`, required: `mailto:` or `https:`, where a push service finds us. `ttl`:
            seconds that a message is kept for a browser that is away, up to 2419200 (the default is 86400;
            0: now or never). `urgency`: `very-low`, `low`, `normal` (the default) or `high`. `hosts`: of
            the push services, instead of `PUSH_HOSTS`. And those of `channels.http.SAFE_OPTIONS`.

    Raises:
        Misconfigured: an option is missing, wrong or unknown.
    """
    known = (*SAFE_OPTIONS, "hosts", "private_key", "subject", "ttl", "urgency")
    given = Options("webpush.vapid", name, options, known)
    need(given, "pywebpush", extra="webpush")
    key = given.secret_document("private_key")
    if _signing_key(key) is None:
        raise given.wrong("private_key", "is no key of P-256; write its PEM, or its 32 bytes in base64url")
    subject = given.text("subject", write='subject = "mailto:ops@example.com"')
    if not re.fullmatch(
        r"mailto:[\x21-\x7e]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|https://[A-Za-z0-9.-]+", subject
    ):
        raise given.wrong("subject", "is where nobody finds us; write mailto:NAME@DOMAIN or https://DOMAIN")
    headers = {
        "TTL": str(given.whole("ttl", 24 * 3600, least=0, most=_MAX_TTL)),
        "Urgency": given.choice("urgency", ("very-low", "low", "normal", "high"), "normal"),
    }
    client = SafeClient.read(given, hosts=given.texts("hosts") or PUSH_HOSTS)
    return VapidProvider(name, key, subject, client, headers)


class VapidProvider:
    """Sends one message to one browser in one request. Made by `build`.

    Args:
        name: of the provider in the configuration.
        key: signs, and names us to the push service.
        subject: where a push service finds us.
        client: sends.
        headers: `TTL` and `Urgency`, for every message.
    """

    capability = Capability.OPAQUE

    def __init__(
        self, name: str, key: Secret, subject: str, client: SafeClient, headers: Mapping[str, str]
    ) -> None:
        self._name = name
        self._key = key
        self._subject = subject
        self._client = client
        self._headers = headers
        self._denied = _Denied()
        self._loading = threading.Lock()
        self._loaded: tuple[ModuleType, Any] | None = None

    def __repr__(self) -> str:
        return f"<webpush.vapid {self._name!r}>"

    @property
    def application_server_key(self) -> str:
        """The public key in base64url: the page's script gives it to `pushManager.subscribe`."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        key = _signing_key(self._key)
        assert key is not None
        raw: bytes = key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")

    def prewarm(self) -> None:
        """Load pywebpush ahead of the first message: it costs as much CPU as five hundred. No connection."""
        self._sdk()

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one message to the browser's push service. See `Provider.send`; the module has the table."""
        data = carried(message, DataContent).data
        payload = to_json({**data, "delivery_id": message.delivery_id}, where="content.data")
        if len(payload) > MAX_PAYLOAD:
            raise Refused(
                "too-long",
                f"content.data makes {len(payload)} bytes and a web push carries {MAX_PAYLOAD}; shorten it",
            )
        subscription = read(message.address)
        if ":" in subscription.host:
            raise Refused("host", "the subscription's host is an IPv6 address, which no token can name")
        answer = self._push(subscription, payload, _topic(data.get("tag") or message.delivery_id), deadline)
        failure = self._failure(answer, subscription)
        if failure is not None:
            raise failure
        return Accepted(_message_id(answer), str(answer.status))

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _push(self, to: Subscription, payload: bytes, topic: str, deadline: Deadline) -> Answer:
        post = _Post(self._client, deadline)
        problem = ""
        try:
            pywebpush, vapid = self._sdk()
            pywebpush.webpush(
                {"endpoint": to.endpoint, "keys": {"p256dh": to.p256dh, "auth": to.auth}},
                data=payload,
                vapid_private_key=vapid,
                # New for each message: what is signed for one push service would be taken for all after it.
                vapid_claims={"sub": self._subject, "aud": to.audience},
                headers={**self._headers, "Topic": topic, "Content-Type": "application/octet-stream"},
                requests_session=post,
            )
        except ChannelError:
            raise
        except Exception as error:  # noqa: BLE001 - the SDK's own: what it holds quotes the message
            problem = type(error).__name__
        if post.answer is not None:
            return post.answer
        raise Misconfigured("sdk", f"pywebpush made no request ({problem}); install the version of the extra")

    def _failure(self, answer: Answer, to: Subscription) -> ChannelError | None:
        if 200 <= answer.status < 300:  # noqa: PLR2004 - the classes of RFC 9110, section 15
            self._denied.taken(to.host)
            return None
        outcome, detail = _meaning(answer)
        code = str(answer.status)
        if _is_denied(answer):
            outcome, detail = ALL_DENIED if self._denied.many(to) else ONE_DENIED
        return outcome(code, detail, retry_after=answer.retry_after)

    def _sdk(self) -> tuple[ModuleType, Any]:
        with self._loading:
            if self._loaded is None:
                import pywebpush  # noqa: PLC0415 - 0.4 s, and aiohttp with it: for those who send
                from py_vapid import Vapid  # noqa: PLC0415

                self._loaded = pywebpush, Vapid(_signing_key(self._key))
            return self._loaded


class _Post:
    """What pywebpush takes for a session of requests: it posts by our client, and keeps the answer."""

    def __init__(self, client: SafeClient, deadline: Deadline) -> None:
        self._client = client
        self._deadline = deadline
        self.answer: Answer | None = None

    def post(self, endpoint: str, *, data: bytes, headers: Mapping[str, str], timeout: object) -> _Done:
        del timeout  # the deadline holds for the whole call
        self.answer = self._client.request("POST", endpoint, self._deadline, headers=dict(headers), body=data)
        return _Done()


class _Done:
    """What pywebpush reads of an answer; what it means is told elsewhere."""

    status_code = 201
    text = ""
    headers: Mapping[str, str] = {}


class _Denied:
    """Which subscriptions each push service turned down since it last took one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts: dict[str, set[bytes]] = {}

    def taken(self, host: str) -> None:
        if host in self._hosts:
            with self._lock:
                self._hosts.pop(host, None)

    def many(self, to: Subscription) -> bool:
        """Note one more; whether there are many now."""
        with self._lock:
            denied = self._hosts.setdefault(to.host, set())
            if len(denied) < MANY:
                denied.add(hashlib.sha256(to.endpoint.encode()).digest())
            return len(denied) >= MANY


# --- answers ----------------------------------------------------------------------------------------


def _meaning(answer: Answer) -> Meaning:
    if answer.status in STATUSES:
        return STATUSES[answer.status]
    if answer.status >= 500:  # noqa: PLR2004 - as above
        return ANY_FAILURE
    return ANY_OTHER_NO if answer.status >= 400 else REDIRECT  # noqa: PLR2004 - as above


def _is_denied(answer: Answer) -> bool:
    """Whether it is our key that the push service does not take."""
    if answer.status == HTTPStatus.BAD_REQUEST:
        return "unauthorizedregistration" in answer.text().lower()
    return answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


def _message_id(answer: Answer) -> str | None:
    """The last part of the message's own URL (RFC 8030, section 5)."""
    last = answer.headers.get("location", "").rpartition("/")[2]
    return last if re.fullmatch(r"[\x21-\x7e]{1,200}", last) else None


def _topic(word: object) -> str:
    """32 characters of base64url, all that a push service must take (RFC 8030, section 5.4)."""
    digest = hashlib.sha256(str(word).encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest[:24]).decode("ascii")


# --- the key ----------------------------------------------------------------------------------------


def _signing_key(key: Secret) -> Any:
    """The private key, of P-256; None where it is none."""
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - for those who send
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    text = key.reveal().strip()
    try:
        if text.startswith("-----BEGIN"):
            found = load_pem_private_key(text.encode(), None)
            sound = isinstance(found, ec.EllipticCurvePrivateKey) and isinstance(found.curve, ec.SECP256R1)
            return found if sound else None
        raw = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), b"-_", validate=True)
        return (
            ec.derive_private_key(int.from_bytes(raw), ec.SECP256R1()) if len(raw) == _RAW_KEY_BYTES else None
        )
    except (ValueError, TypeError):
        return None
