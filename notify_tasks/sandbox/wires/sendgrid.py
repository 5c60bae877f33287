"""SendGrid: `POST /v3/mail/send` of its v3 API, and the signed Event Webhook.

The request is judged as the reference of Mail Send has it (twilio.com/docs/sendgrid/api-reference/mail-send), with
errors in its lists. A dead address is taken and bounces later, by an event, as there: `bounce@` and `latebounce@`
bounce, `block@` is blocked, `drop@` dropped, `defer@` put off first, `complain@` calls it spam, `unsubscribe@`
unsubscribes, `open@` reads it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from notify_tasks.sandbox import credentials
from notify_tasks.sandbox.log import OPAQUE, LoggedRequest
from notify_tasks.sandbox.reports import DELIVERED, Call, Plan, Sent
from notify_tasks.sandbox.wires._sendgrid_mail import Problem, find_problem
from notify_tasks.sandbox.wires.wire import DEAD_ADDRESS, WRONG_KEY, Reading, Reply, Request

_PATH: Final = "/v3/mail/send"
_MAX_BYTES: Final = 30 * 1000 * 1000
_TO: Final = "personalizations.0.to.0.email"
_BAD_KEY: Final = "The provided authorization grant is invalid, expired, or revoked"

_MODES: Final[Mapping[str, tuple[int, str, str | None]]] = {
    WRONG_KEY: (401, _BAD_KEY, None),
    DEAD_ADDRESS: (400, "Does not contain a valid address.", _TO),
    "no_credits": (401, "Maximum credits exceeded", None),
    "no_scope": (403, "access forbidden", None),
    "unverified_sender": (403, "The from address does not match a verified Sender Identity.", "from"),
}
_OUTCOMES: Final[Mapping[str, tuple[str, str]]] = {  # what happens, in its order: what it means
    DELIVERED: ("processed delivered", "processed, then delivered"),
    "bounced": ("processed bounce", "the address is dead; `code` is the status, 5.1.1"),
    "blocked": ("processed blocked", "the server did not want this mail; `code` is the status, 5.7.1"),
    "dropped": ("dropped", "SendGrid does not try: the address bounced before"),
    "deferred": ("processed deferred delivered", "put off, then delivered"),
    "complained": ("processed delivered spamreport", "delivered, then called spam"),
    "unsubscribed": ("processed delivered unsubscribe", "delivered, then unsubscribed"),
    "opened": ("processed delivered open", "delivered, then opened"),
}
_BY_WORD: Final = {
    **dict.fromkeys(("bounce", "latebounce"), "bounced"),
    "block": "blocked",
    "complain": "complained",
    "defer": "deferred",
    "drop": "dropped",
    "open": "opened",
    "unsubscribe": "unsubscribed",
}


class SendGrid:
    """One account."""

    name: Final = "sendgrid"
    channel: Final = "email"
    kind: Final = OPAQUE
    modes: Final[Mapping[str, str]] = {
        name: f"{status}: {text}" for name, (status, text, _) in _MODES.items()
    }
    words: Final[Mapping[str, str]] = {"bounce": "ok"}
    outcomes: Final[Mapping[str, str]] = {name: means for name, (_, means) in _OUTCOMES.items()}

    def takes(self, request: Request) -> bool:
        return request.path.startswith("/v3/mail/")

    def reading(self, request: Request) -> Reading | Reply:
        denied = _denied(request)
        if denied is not None:
            return denied
        mail = _mail(request)
        problem = Problem("Bad Request", None) if mail is None else find_problem(mail)
        if mail is None or problem is not None:
            assert problem is not None
            return _no(400, problem.message, problem.field)
        first = mail["personalizations"][0]
        delivery = {**mail.get("custom_args", {}), **first.get("custom_args", {})}.get("delivery_id")
        return Reading(to=first["to"][0]["email"], delivery_id=delivery)

    def accepted(self, request: Request, taken: LoggedRequest) -> Reply:  # noqa: ARG002 - every yes is alike
        limits = {"X-RateLimit-Limit": "600", "X-RateLimit-Remaining": "599"}
        return Reply(202, b"", {"X-Message-Id": _id(taken), **limits, "X-RateLimit-Reset": _soon()})

    def refused(self, request: Request, mode: str) -> Reply:  # noqa: ARG002 - every no is alike
        if mode in _MODES:
            return _no(*_MODES[mode])
        if mode == "429":
            empty = {"X-RateLimit-Limit": "600", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": _soon()}
            return Reply(429, _no(429, "too many requests").body, empty)
        return _no(int(mode), "the sandbox plays a SendGrid that says no")

    # --- what is told later ---------------------------------------------------------------------------

    def outcome_of(self, address: str) -> tuple[str, str | None] | None:
        word = address.partition("@")[0].partition("-")[0].partition("+")[0].lower()
        return (_BY_WORD[word], None) if word in _BY_WORD else None

    def reports(self, sent: Sent, outcome: str, code: str | None) -> Sequence[Mapping[str, Any]]:
        mail = _mail(sent.request) or {}
        first = mail["personalizations"][0]
        identity = _id(sent.taken)
        mail_id = {**mail.get("headers", {}), **first.get("headers", {})}.get("Message-ID")
        common = {
            **mail.get("custom_args", {}),
            **first.get("custom_args", {}),
            "email": sent.reading.to,
            "smtp-id": mail_id or f"<{identity}@geopod-ismtpd-1>",
            "category": mail.get("categories", []),
            "sg_message_id": f"{identity}.recvd-5f54b5d587-7s2vx-1-6570",
        }
        return [
            {
                **common,
                "timestamp": int(sent.taken.at.timestamp()) + place,
                "event": "bounce" if happened == "blocked" else happened,
                "sg_event_id": _digest(f"{identity} {happened}"),
                **_details(happened, code),
            }
            for place, happened in enumerate(_OUTCOMES[outcome][0].split())
        ]

    def calls(self, sent: Sent, reports: Sequence[Mapping[str, Any]], plan: Plan) -> Sequence[Call]:  # noqa: ARG002
        if plan.url is None:
            return []
        body = json.dumps(list(reports), separators=(",", ":")).encode() + b"\r\n"
        at = str(int(time.time()))
        key = ec.generate_private_key(ec.SECP256R1()) if plan.forged else credentials.sendgrid_webhook_key()
        made = base64.b64encode(key.sign(at.encode() + body, ec.ECDSA(hashes.SHA256()))).decode("ascii")
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "SendGrid Event API",
            "X-Twilio-Email-Event-Webhook-Signature": made,
            "X-Twilio-Email-Event-Webhook-Timestamp": at,
        }
        return [Call(plan.url, body, headers)]

    def inbound(self, said: Mapping[str, str], plan: Plan) -> Call | None:  # noqa: ARG002 - nobody answers here
        return None


def _denied(request: Request) -> Reply | None:
    """What is wrong with a request before its mail is looked at."""
    wanted = f"Bearer {credentials.SENDGRID_API_KEY}"
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    checks = (
        (
            not hmac.compare_digest(request.headers.get("authorization", "").encode(), wanted.encode()),
            401,
            _BAD_KEY,
        ),
        (request.path != _PATH, 404, "not found"),
        (request.method != "POST", 405, "method not allowed"),
        (kind != "application/json", 415, "Content-Type should be application/json."),
        (len(request.body) >= _MAX_BYTES, 413, "The JSON payload is too large."),
    )
    return next((_no(status, message) for wrong, status, message in checks if wrong), None)


def _mail(request: Request) -> dict[str, Any] | None:
    try:
        found = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _details(happened: str, code: str | None) -> dict[str, Any]:
    """What an event of its kind has beside what all have."""
    ip = {"ip": "127.0.0.1"}
    kinds: dict[str, dict[str, Any]] = {
        "bounce": {
            **ip,
            "type": "bounce",
            "status": code or "5.1.1",
            "reason": f"550 {code or '5.1.1'} no such user",
            "bounce_classification": "Invalid Address",
            "tls": 1,
        },
        "blocked": {
            **ip,
            "type": "blocked",
            "status": code or "5.7.1",
            "reason": f"550 {code or '5.7.1'} refused by policy",
            "bounce_classification": "Reputation",
            "tls": 1,
        },
        "deferred": {**ip, "response": "450 4.2.0 try again later", "attempt": "1", "tls": 1},
        "delivered": {**ip, "response": "250 OK", "tls": 1},
        "dropped": {"reason": "Bounced Address", "status": code or "5.0.0"},
        "open": {**ip, "useragent": "Mozilla/5.0", "sg_content_type": "html", "sg_machine_open": False},
    }
    return kinds.get(happened, {})


def _no(status: int, message: str, field: str | None = None) -> Reply:
    return Reply(status, {"errors": [{"message": message, "field": field, "help": None}]})


def _id(taken: LoggedRequest) -> str:
    return _digest(f"{taken.id} {taken.at.isoformat()}")


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()[:16]).rstrip(b"=").decode("ascii")


def _soon() -> str:
    return str(math.ceil(time.time()) + 1)


WIRE: Final = SendGrid()
