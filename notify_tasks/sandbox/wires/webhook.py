"""A customer's receiver of webhooks, which checks signatures (Standard Webhooks, spec/standard-webhooks.md).

`POST /webhooks/{customer}` takes an event that is signed with the sandbox's secret, within five minutes of its
timestamp, and answers 200; anything else is a 401. A repeated `webhook-id` is answered with 200 and has no second
effect. An endpoint that has secrets of its own is told them, and then takes no other:

    PUT    /webhooks/{customer}   {"secrets": ["whsec_..."]}
    DELETE /webhooks/{customer}   the sandbox's secret again
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from notify_tasks.sandbox import credentials
from notify_tasks.sandbox.log import IDEMPOTENT, LoggedRequest
from notify_tasks.sandbox.wires._bodies import json_object
from notify_tasks.sandbox.wires.wire import DEAD_ADDRESS, WRONG_KEY, Reading, Reply, Request

TOLERANCE_SECONDS: Final = 300
_PREFIX: Final = "whsec_"
_SHORTEST_KEY, _LONGEST_KEY = 24, 64


class Webhook:
    """All customers' endpoints."""

    name: Final = "webhook"
    channel: Final = "webhook"
    kind: Final = IDEMPOTENT
    modes: Final[Mapping[str, str]] = {
        WRONG_KEY: "401: does not take the signature",
        DEAD_ADDRESS: "410: the endpoint is switched off",
    }
    words: Final[Mapping[str, str]] = {"bounce": DEAD_ADDRESS}

    def __init__(self) -> None:
        self._keys: dict[str, tuple[bytes, ...]] = {}

    def takes(self, request: Request) -> bool:
        return request.path.startswith(credentials.WEBHOOK_PATH)

    def reading(self, request: Request) -> Reading | Reply:
        match request.method:
            case "PUT":
                return self._register(request)
            case "DELETE":
                self._keys.pop(request.path, None)
                return Reply(204)
            case "POST":
                keys = self._keys.get(request.path) or (_key(credentials.WEBHOOK_SECRET),)
                problem = _problem(request, keys)
                return _read(request) if problem is None else Reply(401, {"error": problem})
            case _:
                return Reply(405, {"error": "an event is a POST; PUT sets the endpoint's secrets"})

    def accepted(self, request: Request, taken: LoggedRequest) -> Reply:  # noqa: ARG002 - every yes is alike
        return Reply(200, {"received": True})

    def refused(self, request: Request, mode: str) -> Reply:  # noqa: ARG002 - every no is alike
        status = {WRONG_KEY: 401, DEAD_ADDRESS: 410}.get(mode) or int(mode)
        return Reply(status, {"error": "the sandbox plays a receiver that says no"})

    def _register(self, request: Request) -> Reply:
        given = (json_object(request.body) or {}).get("secrets")
        try:
            keys = tuple(_key(each) for each in given) if isinstance(given, list) else ()
        except ValueError:
            keys = ()
        if not keys:
            return Reply(400, {"error": 'send {"secrets": ["whsec_..."]}, each of 24 to 64 bytes in base64'})
        self._keys[request.path] = keys
        return Reply(204)


def _read(request: Request) -> Reading:
    event = request.headers["webhook-id"]
    return Reading(to=request.origin + request.target, delivery_id=event, idempotency_key=event)


def _problem(request: Request, keys: Sequence[bytes]) -> str | None:
    """Why an event is not taken; None where it is signed well."""
    event, timestamp, signatures = (
        request.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
    )
    if not event or not timestamp or not signatures:
        return "the headers webhook-id, webhook-timestamp and webhook-signature are not all there"
    if not re.fullmatch(r"[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return f"webhook-timestamp is no time within {TOLERANCE_SECONDS} seconds"
    signed = f"{event}.{timestamp}.".encode() + request.body
    wanted = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in keys]
    for each in signatures.split():
        version, _, signature = each.partition(",")
        if version == "v1" and any(hmac.compare_digest(signature.encode(), one) for one in wanted):
            return None
    return "no signature in webhook-signature is made with the endpoint's secret"


def _key(secret: Any) -> bytes:
    """The bytes of a secret.

    Raises:
        ValueError: it is none.
    """
    try:
        found = base64.b64decode(str(secret).removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        found = b""
    if not _SHORTEST_KEY <= len(found) <= _LONGEST_KEY:
        raise ValueError("this is no secret of Standard Webhooks")
    return found


WIRE: Final = Webhook()
