"""`push.fcm`: Firebase Cloud Messaging, HTTP v1, by firebase-admin: Android, and iOS through APNs.

| FCM answers | outcome |
|---|---|
| 200 with a name | Accepted, under that name |
| 200 without one, or not JSON | Uncertain |
| 404 UNREGISTERED | AddressInvalid: the app was removed, or the token replaced |
| 404 alone | Misconfigured: there is no such project, which says nothing of a phone |
| 403 SENDER_ID_MISMATCH | AddressInvalid: the token is another project's |
| 403 alone, 401 | Misconfigured |
| 401 THIRD_PARTY_AUTH_ERROR | TryLater: Apple's key at Firebase is wrong; Android's messages still pass |
| 400 INVALID_ARGUMENT that blames `message.token` alone, or in words and no field | AddressInvalid |
| any other 400 | Refused: the message's fault, and no token's |
| 429 QUOTA_EXCEEDED | Throttled for as long as Retry-After says, or 60 s |
| 500 INTERNAL | TryLater, after 10 s or more |
| 503 UNAVAILABLE | Unavailable, or TryLater where Retry-After says when; after 10 s or more |
| 500 of somebody else's, 502, 504 | Uncertain |
| the token endpoint: 400, 401, 403 | Misconfigured; the code is its own (`invalid_grant`) |
| the token endpoint: anything else but a token | TryLater, Throttled or Unavailable: nothing was sent |
| no answer in time, a lost connection | Uncertain, after one request (`_fcm_session` says why) |

(firebase.google.com/docs/cloud-messaging/error-codes and .../scale-fcm; there is no idempotency key.)

| key of push.json | FCM's message |
|---|---|
| `title`, `body`, `image` | `notification`; without title and body, nothing is shown and the app alone is told |
| `data`: an object | `data`, each value as text: what is no text, as JSON |
| `url`, and any other key | `data` too |
| `tag` | `android.collapse_key`, `android.notification.tag`, `apns-collapse-id`: it replaces what has the same |
| `sound` | `android.notification.sound`, `aps.sound` (`default`: the phone's) |
| `badge`: a whole number | `android.notification.notification_count`, `aps.badge` |
| (the delivery's id) | `data.delivery_id` |
| (option `priority`) | `android.priority`, `apns-priority` |
| (option `ttl`) | `android.ttl`, `apns-expiration` |

Where there is no `tag`, the delivery's id is the notification's tag and `apns-collapse-id`, so that a repetition
replaces what it repeats. It is no `collapse_key`: FCM keeps four of those for a phone that is away, and drops more.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from channels._addresses import split_url
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
from channels.http import CLIENT_OPTIONS, Answer, Client, Meaning, Options, Secret, carried
from channels.push._fcm_message import Handling, compose
from channels.push._fcm_session import Account, Session

CODES: Final[Mapping[str, Meaning]] = {
    "APNS_AUTH_ERROR": (TryLater, "Apple's key at Firebase is missing or wrong; put a good one there"),
    "INTERNAL": (TryLater, "FCM failed with the request in hand"),
    "QUOTA_EXCEEDED": (Throttled, "FCM asks us to slow down; look at the option rate"),
    "SENDER_ID_MISMATCH": (AddressInvalid, "the device token is another Firebase project's"),
    "THIRD_PARTY_AUTH_ERROR": (TryLater, "Apple's key at Firebase is missing or wrong; put a good one there"),
    "UNREGISTERED": (AddressInvalid, "the device token is no more: the app was removed, or has a new one"),
}
STATUSES: Final[Mapping[int, Meaning]] = {
    401: (Misconfigured, "FCM does not take the service account's token; look at the option credentials"),
    403: (Misconfigured, "the service account may not send for this project; give it the right in Firebase"),
    404: (Misconfigured, "FCM knows no such project; look at the options credentials and project"),
}
_TO: Final = "message.token"
_BAD_TOKEN: Final[Meaning] = (AddressInvalid, "FCM says that the device token is none")
_QUOTA_SECONDS: Final = 60.0
"""What FCM asks for after a 429 without Retry-After."""
_LEAST_SECONDS: Final = 10.0
"""What FCM asks for, at least, after an error of its own."""
_MAX_TTL: Final = 28 * 24 * 3600
_FCM_ERROR: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_KEYS: Final = ("client_email", "private_key", "project_id", "token_uri")
_EXAMPLE: Final = "write the JSON of a service account, as the Firebase console gives it"


def build(name: str, options: Mapping[str, Any]) -> FcmProvider:
    """Build the provider.

    Args:
        name: its name in the configuration.
        options: `credentials`, required: the JSON of a service account. `project`: the Firebase project's
            id, where it is not the account's. `priority`: `high` (the default) or `normal`. `ttl`: seconds
            that a message is kept for a phone that is away, up to 2419200 (the default is 86400; 0: now or
            never). And those of `channels.http.CLIENT_OPTIONS`.

    Raises:
        Misconfigured: an option is missing, wrong or unknown.
    """
    known = (*CLIENT_OPTIONS, "credentials", "priority", "project", "ttl")
    given = Options("push.fcm", name, options, known)
    need(given, "firebase_admin", extra="fcm")
    handling = Handling(
        given.choice("priority", ("high", "normal"), "high"),
        given.whole("ttl", 24 * 3600, least=0, most=_MAX_TTL),
    )
    return FcmProvider(name, _account(given), handling)


class FcmProvider:
    """Sends one message to one device in one request. Made by `build`.

    Args:
        name: of the provider in the configuration.
        account: that sends.
        handling: how phones shall treat the messages.
    """

    capability = Capability.OPAQUE

    def __init__(self, name: str, account: Account, handling: Handling) -> None:
        self._name = name
        self._account = account
        self._handling = handling
        self._session = Session(account, judge)

    def __repr__(self) -> str:
        return f"<push.fcm {self._name!r}>"

    def prewarm(self) -> None:
        """Load the SDK ahead of the first message. It opens no connection."""
        self._session.prewarm()

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one message to FCM. See `Provider.send`; the module has the tables."""
        data = carried(message, DataContent).data
        if not re.fullmatch(r"[\x21-\x7e]+", message.address):
            raise AddressInvalid("syntax", "this is no device token; let the app register again")
        named = self._session.send(
            lambda messaging: compose(messaging, message.address, message.delivery_id, data, self._handling),
            deadline,
        )
        return Accepted(named, "200")

    def close(self) -> None:
        """Close the pooled connections."""
        self._account.fcm.close()
        self._account.tokens.close()


# --- answers ----------------------------------------------------------------------------------------


def judge(answer: Answer) -> ChannelError | None:
    """What FCM's answer means; None where it took the message and named it."""
    if answer.status == HTTPStatus.OK:
        if answer.identifier("name") is None:
            return Uncertain("200", "FCM said yes without naming the message")
        return None
    error = answer.fields().get("error")
    code, violations = _read(error if isinstance(error, dict) else {})
    if answer.status == HTTPStatus.BAD_REQUEST:
        return _bad_request(answer, code, violations)
    known = answer.refusal(code, CODES)
    failure = (
        known
        or answer.failure(Capability.OPAQUE, STATUSES)
        or Uncertain("", "FCM's answer is none of its own")
    )
    wait = failure.retry_after
    if isinstance(failure, Throttled):
        wait = _QUOTA_SECONDS if wait is None else wait
    elif code == "INTERNAL" or answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        wait = max(wait or 0, _LEAST_SECONDS)
    return type(failure)(code or str(answer.status), failure.detail, retry_after=wait)


def _bad_request(answer: Answer, code: str, violations: list[str]) -> ChannelError:
    """A token is dead only where FCM blames it alone: a template's mistake must not cost us every phone."""
    worded = not violations and "not a valid fcm registration token" in answer.text().lower()
    if worded or set(violations) == {_TO}:
        outcome, detail = _BAD_TOKEN
        return outcome(code or "400", detail)
    fields = ", ".join(each for each in violations if re.fullmatch(r"[A-Za-z0-9_.\[\]]{1,80}", each))
    return Refused(
        code or "400", f"FCM does not take the message ({fields or 'no field named'}); correct its template"
    )


def _read(error: Mapping[str, Any]) -> tuple[str, list[str]]:
    """FCM's own code, else Google's for its APIs; and the fields that it does not take."""
    codes: list[object] = []
    violations: list[str] = []
    details = error.get("details")
    for each in details if isinstance(details, list) else []:
        if not isinstance(each, dict):
            continue
        if each.get("@type") == _FCM_ERROR:
            codes.append(each.get("errorCode"))
        found = each.get("fieldViolations")
        violations += [
            str(one.get("field"))
            for one in (found if isinstance(found, list) else [])
            if isinstance(one, dict)
        ]
    for code in [*codes, error.get("status")]:
        if isinstance(code, str) and re.fullmatch(r"[A-Z][A-Z_]{0,49}", code):
            return code, violations
    return "", violations


# --- credentials ------------------------------------------------------------------------------------


def _account(given: Options) -> Account:
    document = given.secret_document("credentials")
    fields = _fields(document)
    missing = [key for key in _KEYS if not isinstance(fields.get(key), str) or not fields[key]]
    if fields.get("type") != "service_account" or missing:
        lacks = f"lacks {', '.join(missing)}" if fields and missing else "is no service account"
        raise given.wrong("credentials", f"{lacks}; {_EXAMPLE}")
    if not _is_key(fields["private_key"]):
        raise given.wrong("credentials", f"has a private_key that cannot be read; {_EXAMPLE}")
    project = given.optional_text("project") or fields["project_id"]
    if not re.fullmatch(r"[a-z0-9.:-]{1,100}", project):
        option = "project" if given.optional_text("project") else "credentials"
        raise given.wrong(option, "has no id of a Firebase project; write it as the console shows it")
    fcm = Client.read(given, "https://fcm.googleapis.com")
    place, target = None, "/"
    with contextlib.suppress(ValueError):
        place, target = split_url(fields["token_uri"])
    if place is None or not (place.tls or _is_this_machine(place.host)):
        raise given.wrong("credentials", f"has a token_uri that is no https:// address; {_EXAMPLE}")
    url = f"{place.scheme}://{place.authority}"
    same = url == given.origin("url", "https://fcm.googleapis.com")
    tokens = (
        fcm
        if same
        else Client(url, connections=2, ca_file=given.ca_file("ca_file"), proxy=given.proxy("proxy"))
    )
    return Account(document, project, fcm, tokens, target)


def _fields(document: Secret) -> dict[str, Any]:
    try:
        found = json.loads(document.reveal())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_key(pem: str) -> bool:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        return False
    return True


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
