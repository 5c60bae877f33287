"""Twilio: `POST /2010-04-01/Accounts/{sid}/Messages.json` of its REST API, status callbacks, what people answer.

The request is the form of the Messages resource (twilio.com/docs/messaging/api/message-resource) under Basic
authentication. Numbers of Twilio's own for tests do what they do there (twilio.com/docs/iam/test-credentials), and
`+15556NNxxxx` is taken and then not delivered, for the reason 300NN.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from email.utils import format_datetime
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from notify_tasks.sandbox import credentials
from notify_tasks.sandbox.log import OPAQUE, LoggedRequest
from notify_tasks.sandbox.reports import DELIVERED, Call, Plan, Sent
from notify_tasks.sandbox.wires.wire import DEAD_ADDRESS, OPTED_OUT, WRONG_KEY, Reading, Reply, Request

_API: Final = "/2010-04-01/"
_MAX_BODY: Final = 1600
_NUMBER: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_SENDER: Final = re.compile(r"\+[1-9][0-9]{6,14}|[0-9]{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 +&_-]{1,11}")
_SERVICE: Final = re.compile(r"MG[0-9a-fA-F]{32}")
_UNDELIVERABLE: Final = re.compile(r"\+15556([0-9]{2})[0-9]{4}")

_CODES: Final[Mapping[str, tuple[int, str]]] = {
    "20003": (401, "Authenticate"),
    "20404": (404, "The requested resource {path} was not found"),
    "20429": (429, "Too Many Requests"),
    "21211": (400, "Invalid 'To' phone number: {to}"),
    "21212": (400, "Invalid 'From' number or sender: {from}"),
    "21408": (400, "No permission to send an SMS to the region of the 'To' number: {to}"),
    "21602": (400, "A message body is required"),
    "21603": (400, "A 'From' or 'MessagingServiceSid' is required"),
    "21604": (400, "A 'To' phone number is required"),
    "21606": (400, "The 'From' number {from} is no message-capable Twilio number for this destination"),
    "21608": (400, "The number {to} is unverified; a trial account cannot send to it"),
    "21609": (400, "The 'StatusCallback' URL is not valid"),
    "21610": (400, "Attempt to send to the unsubscribed recipient {to}"),
    "21611": (429, "The 'From' number {from} has too many messages queued"),
    "21612": (400, "Cannot send with this combination of 'To' ({to}) and 'From' ({from})"),
    "21614": (400, "The 'To' number is not a mobile number: {to}"),
    "21617": (400, "The message body has more than 1600 characters"),
    "21701": (400, "The Messaging Service does not exist"),
    "30034": (400, "The 'From' number is not registered for A2P 10DLC"),
    "63038": (400, "The account's daily number of messages is exceeded"),
}
_ANYBODY: Final = {"to": "…", "from": "…", "path": "…"}
_BY_MODE: Final = {WRONG_KEY: "20003", DEAD_ADDRESS: "21211", OPTED_OUT: "21610", "429": "20429"}
_FROM_WORDS: Final = {"+15005550001": "21212", "+15005550007": "21606", "+15005550008": "21611"}


class Twilio:
    """One account."""

    name: Final = "twilio"
    channel: Final = "sms"
    kind: Final = OPAQUE
    modes: Final[Mapping[str, str]] = {
        WRONG_KEY: "401, 20003: does not know us",
        DEAD_ADDRESS: "400, 21211: the number is none",
        OPTED_OUT: "400, 21610: the person answered STOP",
        **{
            code: f"{status}: {text.format_map(_ANYBODY)}"
            for code, (status, text) in _CODES.items()
            if code != "20429"
        },
    }
    words: Final[Mapping[str, str]] = {
        "+15005550001": "21211",
        "+15005550002": "21612",
        "+15005550003": "21408",
        "+15005550004": "21610",
        "+15005550009": "21614",
        "410": DEAD_ADDRESS,
    }
    outcomes: Final[Mapping[str, str]] = {
        DELIVERED: "sent, then delivered",
        "sent": "sent, and no more is heard: a carrier that tells nothing",
        "undelivered": "sent, then undelivered: 30003 if no `code` is given",
        "failed": "failed: 30008 if no `code` is given",
    }

    def takes(self, request: Request) -> bool:
        return request.path.startswith(_API)

    def reading(self, request: Request) -> Reading | Reply:
        if not _known(request):
            return _no(request, "20003")
        if request.path != f"{_API}Accounts/{credentials.TWILIO_ACCOUNT_SID}/Messages.json":
            return _no(request, "20404")
        if request.method != "POST":
            return Reply(405, _error(20004, 405, "Method not allowed"))
        form = _form(request)
        problem = _problem(form)
        if problem is not None:
            return _no(request, problem)
        callback = form.get("StatusCallback")
        query = parse_qs(urlsplit(callback).query) if callback else {}
        return Reading(
            to=form["To"], delivery_id=next(iter(query.get("delivery_id", ())), None), callback=callback
        )

    def accepted(self, request: Request, taken: LoggedRequest) -> Reply:
        form, sid = _form(request), _sid(taken)
        service = form.get("MessagingServiceSid")
        at = format_datetime(taken.at)
        uri = f"{_API}Accounts/{credentials.TWILIO_ACCOUNT_SID}/Messages/{sid}"
        resource = {
            "account_sid": credentials.TWILIO_ACCOUNT_SID,
            "api_version": "2010-04-01",
            "body": form.get("Body"),
            "date_created": at,
            "date_sent": None,
            "date_updated": at,
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": form.get("From"),
            "messaging_service_sid": service,
            "num_media": "0",
            "num_segments": "0" if service else str(_segments(form.get("Body", ""))),
            "price": None,
            "price_unit": None,
            "sid": sid,
            "status": "accepted" if service else "queued",
            "subresource_uris": {"media": f"{uri}/Media.json"},
            "tags": None,
            "to": form["To"],
            "uri": f"{uri}.json",
        }
        return Reply(201, resource, {"Twilio-Request-Id": f"RQ{sid[2:]}"})

    def refused(self, request: Request, mode: str) -> Reply:
        code = _BY_MODE.get(mode, mode)
        if code in _CODES:
            return _no(request, code)
        status = int(mode)
        return Reply(status, _error(20_000 + status, status, "The sandbox plays a Twilio that says no"))

    # --- what is told later ---------------------------------------------------------------------------

    def outcome_of(self, address: str) -> tuple[str, str | None] | None:
        found = _UNDELIVERABLE.fullmatch(address)
        return None if found is None else ("undelivered", f"300{found[1]}")

    def reports(self, sent: Sent, outcome: str, code: str | None) -> Sequence[Mapping[str, Any]]:
        # There is none for the state in which the answer to the request left the message.
        first = ("queued",) if "MessagingServiceSid" in _form(sent.request) else ()
        ways = {
            DELIVERED: ("sent", "delivered"),
            "sent": ("sent",),
            "undelivered": ("sent", "undelivered"),
            "failed": ("failed",),
        }
        codes = {"undelivered": code or "30003", "failed": code or "30008"}
        return [
            {"MessageStatus": status, **({"ErrorCode": codes[status]} if status in codes else {})}
            for status in (*first, *ways[outcome])
        ]

    def calls(self, sent: Sent, reports: Sequence[Mapping[str, Any]], plan: Plan) -> Sequence[Call]:
        url = sent.reading.callback
        if not url:
            return []
        form, sid = _form(sent.request), _sid(sent.taken)
        made = []
        for report in reports:
            status = report["MessageStatus"]
            fields = {
                "ApiVersion": "2010-04-01",
                "SmsSid": sid,
                "SmsStatus": status,
                "MessageSid": sid,
                "AccountSid": credentials.TWILIO_ACCOUNT_SID,
                "From": form.get("From", credentials.TWILIO_FROM),
                "To": form["To"],
                **report,
            }
            if "MessagingServiceSid" in form:
                fields["MessagingServiceSid"] = form["MessagingServiceSid"]
            if status == "delivered":
                fields["RawDlrDoneDate"] = sent.taken.at.strftime("%y%m%d%H%M")
            made.append(_call(url, fields, f"{sid} {status}", forged=plan.forged))
        return made

    def inbound(self, said: Mapping[str, str], plan: Plan) -> Call | None:
        sid = "SM" + hashlib.sha256(repr(sorted(said.items())).encode()).hexdigest()[:32]
        fields = {
            "ApiVersion": "2010-04-01",
            "SmsMessageSid": sid,
            "SmsSid": sid,
            "SmsStatus": "received",
            "MessageSid": sid,
            "AccountSid": credentials.TWILIO_ACCOUNT_SID,
            "From": said["from"],
            "To": said.get("to", credentials.TWILIO_FROM),
            "Body": said["body"],
            "NumMedia": "0",
            "NumSegments": "1",
        }
        if "opt_out_type" in said:  # a messaging service with Advanced Opt-Out tells it
            fields["OptOutType"] = said["opt_out_type"]
        return _call(plan.url or "", fields, sid, forged=plan.forged)


def signature(token: str, url: str, fields: Mapping[str, str]) -> str:
    """The value of `X-Twilio-Signature` (twilio.com/docs/usage/security): over the URL and the sorted fields."""
    signed = url + "".join(f"{name}{fields[name]}" for name in sorted(fields))
    return base64.b64encode(hmac.digest(token.encode(), signed.encode(), hashlib.sha1)).decode("ascii")


def _call(url: str, fields: Mapping[str, str], about: str, *, forged: bool) -> Call:
    token = "0" * 32 if forged else credentials.TWILIO_AUTH_TOKEN
    headers = {
        "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
        "User-Agent": "TwilioProxy/1.1",
        "X-Twilio-Signature": signature(token, url, fields),
        "I-Twilio-Idempotency-Token": hashlib.sha256(about.encode()).hexdigest()[:32],
    }
    return Call(url, urlencode(fields).encode("ascii"), headers)


def _known(request: Request) -> bool:
    """Whether the request has the account's key."""
    login = f"{credentials.TWILIO_ACCOUNT_SID}:{credentials.TWILIO_AUTH_TOKEN}"
    wanted = "Basic " + base64.b64encode(login.encode()).decode("ascii")
    return hmac.compare_digest(request.headers.get("authorization", "").encode(), wanted.encode())


def _form(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode("utf-8", "replace")))


def _problem(form: Mapping[str, str]) -> str | None:
    """The code of what is wrong with a message; None where Twilio takes it."""
    sender, service, callback = (form.get(each) for each in ("From", "MessagingServiceSid", "StatusCallback"))
    body = form.get("Body", "")
    checks = (
        ("21604", "To" not in form),
        ("21211", not _NUMBER.fullmatch(form.get("To", ""))),
        ("21603", sender is None and service is None),
        ("21701", service is not None and not _SERVICE.fullmatch(service)),
        ("21212", sender is not None and not _SENDER.fullmatch(sender)),
        (_FROM_WORDS.get(sender or "", ""), sender in _FROM_WORDS),
        ("21602", not body and "MediaUrl" not in form and "ContentSid" not in form),
        ("21617", len(body) > _MAX_BODY),
        ("21609", callback is not None and urlsplit(callback).scheme not in {"http", "https"}),
    )
    return next((code for code, wrong in checks if wrong), None)


def _no(request: Request, code: str) -> Reply:
    status, text = _CODES[code]
    form = _form(request)
    said = text.format(path=request.path, to=form.get("To", ""), **{"from": form.get("From", "")})
    return Reply(status, _error(int(code), status, said))


def _error(code: int, status: int, message: str) -> dict[str, Any]:
    more = f"https://www.twilio.com/docs/errors/{code}"
    return {"code": code, "message": message, "more_info": more, "status": status}


def _sid(taken: LoggedRequest) -> str:
    return "SM" + hashlib.sha256(f"{taken.id} {taken.at.isoformat()}".encode()).hexdigest()[:32]


def _segments(body: str) -> int:
    """Roughly: Twilio counts the characters of GSM 03.38, this counts those of ASCII."""
    whole, part = (160, 153) if body.isascii() else (70, 67)
    return 1 if len(body) <= whole else -(-len(body) // part)


WIRE: Final = Twilio()
