"""`webhook.standard`: a signed POST to a customer's endpoint, by Standard Webhooks.

The body is the JSON that the type's `webhook.json` makes, in one form, and it is signed as it is sent. The
id in `webhook-id` is the same for every attempt of a delivery, and the timestamp is each attempt's own: a
receiver that keeps the ids it has seen takes a delivery once, and one that looks at the timestamp takes no
old request. (Specification: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md.)

| the endpoint | outcome |
|---|---|
| 2xx | Accepted; the id is our `webhook-id`, under which the receiver knows it |
| 410 | AddressInvalid: the endpoint is switched off, and nothing is sent to it again |
| 413 | Refused |
| 3xx | Refused: a redirect could lead anywhere, so it is not followed |
| 429; 503 with Retry-After | Throttled |
| any other 4xx or 5xx | TryLater: a customer's broken release is mended, or the attempts are spent |
| no answer in time, a lost connection | Uncertain, and sent again under the same id |
| refused, no DNS, no valid certificate | TryLater |
| a URL that is none | AddressInvalid |
| http://, a port or a network that is not allowed | Refused |

One customer's endpoint says nothing of the others', so nothing here is Unavailable or Misconfigured.

A message that brings `secrets` is signed with those, and with none of the provider's: its endpoint is registered.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    ChannelError,
    DataContent,
    Deadline,
    Message,
    Refused,
    Throttled,
    TryLater,
)
from channels.http import SAFE_OPTIONS, Answer, Meaning, Options, SafeClient, Secret, carried, to_json

STATUSES: Final[Mapping[int, Meaning]] = {
    410: (AddressInvalid, "the endpoint says that it is gone; nothing more is sent to it"),
    413: (Refused, "the body is too long for the endpoint; send less of it"),
    429: (Throttled, "the endpoint asks us to slow down"),
}
REDIRECT: Final[Meaning] = (
    Refused,
    "the endpoint redirects, which is not followed; give the address that it redirects to",
)
ANY_OTHER: Final[Meaning] = (TryLater, "the endpoint did not take it")

MAX_BODY: Final = 256 * 1024
"""Bytes, where the option `max_body` says nothing. Receivers take at least this much, as a rule."""
_PREFIX: Final = "whsec_"
_SHORTEST_KEY, _LONGEST_KEY = 24, 64
_EXAMPLE: Final = "write whsec_ and the base64 of 24 to 64 random bytes (openssl rand -base64 32)"


def build(name: str, options: Mapping[str, Any]) -> StandardWebhook:
    """Build the provider.

    Args:
        name: its name in the configuration.
        options: `secrets`, required: one, or two while receivers change from the old one to the new; each
            request is signed with all of them. `sign_for`: `all` (the default: every endpoint has these
            secrets) or `endpoint` (each has its own, see `endpoint_secret`). `max_body`: bytes of a body
            at most (262144). And those of `channels.http.SAFE_OPTIONS`.

    Raises:
        Misconfigured: an option is missing, wrong or unknown.
    """
    known = (*SAFE_OPTIONS, "max_body", "secrets", "sign_for")
    given = Options("webhook.standard", name, options, known)
    secrets = given.secrets("secrets")
    for place, secret in enumerate(secrets):
        if not _is_sound(secret):
            raise given.wrong(f"secrets[{place}]", f"is no secret of Standard Webhooks; {_EXAMPLE}")
    return StandardWebhook(
        name,
        secrets,
        SafeClient.read(given),
        own_secrets=given.choice("sign_for", ("all", "endpoint"), "all") == "endpoint",
        max_body=given.whole("max_body", MAX_BODY, most=16 * 1024 * 1024),
    )


class StandardWebhook:
    """Sends one delivery in one signed POST. Made by `build`.

    Args:
        name: of the provider in the configuration.
        secrets: `whsec_...`, each of which signs.
        client: sends.
        own_secrets: whether each endpoint's secret is made from these.
        max_body: bytes of a body at most.
    """

    capability = Capability.IDEMPOTENT

    def __init__(
        self, name: str, secrets: tuple[Secret, ...], client: SafeClient, *, own_secrets: bool, max_body: int
    ) -> None:
        self._name = name
        self._secrets = secrets
        self._client = client
        self._own_secrets = own_secrets
        self._max_body = max_body

    def __repr__(self) -> str:
        return f"<webhook.standard {self._name!r}>"

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one delivery to its endpoint. See `Provider.send`; the module has the table."""
        body = to_json(carried(message, DataContent).data, where="content.data")
        if len(body) > self._max_body:
            raise Refused(
                "too-long",
                f"content.data makes {len(body)} bytes and a webhook carries {self._max_body}; send less, "
                "with a link to the rest, or raise max_body",
            )
        answer = self._client.request(
            "POST", message.address, deadline, body=body, headers=self._headers(message, body)
        )
        failure = _failure(answer)
        if failure is not None:
            raise failure
        return Accepted(message.idempotency_key, str(answer.status))

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _headers(self, message: Message, body: bytes) -> dict[str, str]:
        timestamp = int(time.time())
        secrets = list(message.secrets) or [each.reveal() for each in self._secrets]
        if self._own_secrets and not message.secrets:
            secrets = [endpoint_secret(each, message.tenant, message.address) for each in secrets]
        return {
            "Content-Type": "application/json",
            "webhook-id": message.idempotency_key,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(secrets, message.idempotency_key, timestamp, body),
        }


def signatures(secrets: list[str], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: a `v1` for each secret, with a space between.

    Args:
        secrets: `whsec_...`.
        webhook_id: as in `webhook-id`.
        timestamp: seconds since 1970, as in `webhook-timestamp`.
        body: the bytes that are sent.
    """
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    made = (hmac.digest(_key(each), signed, hashlib.sha256) for each in secrets)
    return " ".join(f"v1,{base64.b64encode(each).decode('ascii')}" for each in made)


def endpoint_secret(secret: str, tenant: str, url: str) -> str:
    """The secret of one endpoint, where the provider has `sign_for = "endpoint"`: show it to its owner.

    A customer who knows a secret that others are signed for can forge requests to them. This one is made
    from the provider's secret, so that it need not be stored, and does not lead back to it.

    Args:
        secret: the provider's, `whsec_...`.
        tenant: whose endpoint it is.
        url: the endpoint's address, exactly as it is sent to.
    """
    label = f"notify-tasks webhook endpoint\n{tenant}\n{url}".encode()
    return _PREFIX + base64.b64encode(hmac.digest(_key(secret), label, hashlib.sha256)).decode("ascii")


def _failure(answer: Answer) -> ChannelError | None:
    status = answer.status
    if 200 <= status < 300:  # noqa: PLR2004 - the classes of RFC 9110, section 15
        return None
    wait = answer.retry_after
    outcome, detail = STATUSES.get(status, ANY_OTHER)
    if 300 <= status < 400:  # noqa: PLR2004
        outcome, detail = REDIRECT
    elif status == HTTPStatus.SERVICE_UNAVAILABLE and wait is not None:
        outcome, detail = STATUSES[HTTPStatus.TOO_MANY_REQUESTS]
    return outcome(str(status), detail, retry_after=wait)


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)


def _is_sound(secret: Secret) -> bool:
    text = secret.reveal()
    try:
        return text.startswith(_PREFIX) and _SHORTEST_KEY <= len(_key(text)) <= _LONGEST_KEY
    except (binascii.Error, ValueError):
        return False
