"""Alibaba Cloud SMS: `SendSms` of Dysmsapi 2017-05-25, SmsReport, SmsUp.

The signature is judged by the description of signature V3 (ACS3-HMAC-SHA256; alibabacloud.com, "V3 request structure
and signature"), and every field by that of SendSms. What is wrong with a message is told with status 200 and a code,
what is wrong with a call with 400 and more. Eleven digits are a number of the Chinese mainland, as its documentation
says, and so is what begins with 86; anything else begins with its country's code.

A number `+8615556NNxxxx` is taken and then not delivered.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote

from notify_tasks.sandbox import credentials
from notify_tasks.sandbox.log import OPAQUE, LoggedRequest
from notify_tasks.sandbox.reports import DELIVERED, Call, Plan, Sent
from notify_tasks.sandbox.wires.wire import DEAD_ADDRESS, WRONG_KEY, Reading, Reply, Request

_ALGORITHM: Final = "ACS3-HMAC-SHA256"
_AUTHORIZATION: Final = re.compile(
    rf"{_ALGORITHM} Credential=([^,]*), ?SignedHeaders=([^,]*), ?Signature=([0-9a-f]*)"
)
_VERSION: Final = "2017-05-25"
_TOLERANCE: Final = 15 * 60
_MOST_NONCES: Final = 100_000
_MOST_NUMBERS: Final = 1000
_LONGEST_OUT_ID: Final = 256
_UNDELIVERABLE: Final = re.compile(r"\+(?:86)?15556[0-9]{6}")
_CHINA_TIME: Final = timedelta(hours=8)

_CALL: Final[Mapping[str, tuple[int, str]]] = {  # what is wrong with a call
    "InvalidAccessKeyId.NotFound": (404, "Specified access key is not found."),
    "InvalidAction.NotFound": (404, "Specified api is not found, please check your url and method."),
    "InvalidTimeStamp.Expired": (400, "Specified time stamp or date value is expired."),
    "InvalidTimeStamp.Format": (400, "Specified time stamp or date value is not well formatted."),
    "InvalidVersion": (400, "Specified parameter Version is not valid."),
    "MissingAccessKeyId": (400, "AccessKeyId is mandatory for this action."),
    "MissingPhoneNumbers": (400, "PhoneNumbers is mandatory for this action."),
    "MissingSignName": (400, "SignName is mandatory for this action."),
    "MissingTemplateCode": (400, "TemplateCode is mandatory for this action."),
    "ServiceUnavailable": (503, "The request has failed due to a temporary failure of the server."),
    "SignatureDoesNotMatch": (400, "Specified signature does not match our calculation."),
    "SignatureNonceUsed": (400, "Specified signature nonce was used already."),
    "Throttling.User": (400, "Request was denied due to user flow control."),
}
_MESSAGE: Final[Mapping[str, str]] = {  # what is wrong with a message
    "isp.RAM_PERMISSION_DENY": "RAM权限DENY",
    "isp.SYSTEM_ERROR": "系统错误",
    "isv.ACCOUNT_ABNORMAL": "账户异常",
    "isv.AMOUNT_NOT_ENOUGH": "账户余额不足",
    "isv.BLACK_KEY_CONTROL_LIMIT": "黑名单管控",
    "isv.BUSINESS_LIMIT_CONTROL": "触发分钟级流控Permits:1",
    "isv.DAY_LIMIT_CONTROL": "触发日发送限额",
    "isv.INVALID_JSON_PARAM": "JSON参数不合法",
    "isv.INVALID_PARAMETERS": "参数异常",
    "isv.MOBILE_NUMBER_ILLEGAL": "非法手机号",
    "isv.OUT_OF_SERVICE": "业务停机",
    "isv.PARAM_LENGTH_LIMIT": "参数超出长度限制",
    "isv.PARAM_NOT_SUPPORT_URL": "不支持URL",
    "isv.SMS_SIGNATURE_ILLEGAL": "短信签名不合法",
    "isv.SMS_TEMPLATE_ILLEGAL": "短信模版不合法",
    "isv.TEMPLATE_MISSING_PARAMETERS": "模版缺少变量",
}
_BY_MODE: Final = {
    WRONG_KEY: "InvalidAccessKeyId.NotFound",
    DEAD_ADDRESS: "isv.MOBILE_NUMBER_ILLEGAL",
    "503": "ServiceUnavailable",
}


class Aliyun:
    """One account, whose every signature and template is approved."""

    name: Final = "aliyun"
    channel: Final = "sms"
    kind: Final = OPAQUE
    modes: Final[Mapping[str, str]] = {
        WRONG_KEY: "404, InvalidAccessKeyId.NotFound: does not know us",
        DEAD_ADDRESS: "200, isv.MOBILE_NUMBER_ILLEGAL: the number is none",
        **{code: f"{status}: {text}" for code, (status, text) in _CALL.items()},
        **{code: f"200: {text}" for code, text in _MESSAGE.items()},
    }
    words: Final[Mapping[str, str]] = {"410": DEAD_ADDRESS}
    outcomes: Final[Mapping[str, str]] = {
        DELIVERED: "the phone has it",
        "undelivered": "it did not arrive: MK:0001, no such subscriber, if no `code` is given",
    }

    def __init__(self) -> None:
        self._nonces: OrderedDict[str, None] = OrderedDict()

    def takes(self, request: Request) -> bool:
        rpc = request.path == "/" and "Action" in request.query
        return rpc or "x-acs-action" in request.headers or "x-acs-version" in request.headers

    def reading(self, request: Request) -> Reading | Reply:
        fields = _fields(request)
        problem = self._denied(request) or _unfit(fields)
        if problem is not None:
            return _no(request, problem)
        to = ",".join(_e164(each) for each in fields["PhoneNumbers"].split(","))
        return Reading(
            to=to,
            delivery_id=fields.get("OutId") or None,
            opened=json.dumps(fields, ensure_ascii=False).encode(),
        )

    def accepted(self, request: Request, taken: LoggedRequest) -> Reply:
        return _reply(request, 200, {"Code": "OK", "Message": "OK", "BizId": _biz_id(taken)})

    def refused(self, request: Request, mode: str) -> Reply:
        code = _BY_MODE.get(mode, mode)
        if code in _CALL or code in _MESSAGE:
            return _no(request, code)
        named = {"429": "Throttling.User", "500": "InternalError"}.get(mode, f"Sandbox.{mode}")
        said = {"Code": named, "Message": "The sandbox plays an Aliyun that says no."}
        return _reply(request, int(mode), said)

    # --- what is told later ---------------------------------------------------------------------------

    def outcome_of(self, address: str) -> tuple[str, str | None] | None:
        return ("undelivered", None) if _UNDELIVERABLE.fullmatch(address) else None

    def reports(self, sent: Sent, outcome: str, code: str | None) -> Sequence[Mapping[str, Any]]:
        fields = _fields(sent.request)
        good = outcome == DELIVERED
        return [
            {
                "phone_number": number,
                "send_time": _china(sent.taken.at),
                "report_time": _china(datetime.now(UTC)),
                "success": good,
                "err_code": "DELIVERED" if good else code or "MK:0001",
                "err_msg": "用户接收成功" if good else "未送达",
                "sms_size": "1",
                "biz_id": _biz_id(sent.taken),
                "out_id": fields.get("OutId", ""),
            }
            for number in fields["PhoneNumbers"].split(",")
        ]

    def calls(self, sent: Sent, reports: Sequence[Mapping[str, Any]], plan: Plan) -> Sequence[Call]:  # noqa: ARG002
        if plan.url is None:
            return []
        return [_call(plan, reports)]

    def inbound(self, said: Mapping[str, str], plan: Plan) -> Call | None:
        now = datetime.now(UTC)
        up = {
            "phone_number": said["from"].removeprefix("+86"),
            "send_time": _china(now),
            "content": said["body"],
            "sign_name": said.get("to", "沙箱"),
            "dest_code": "10690000",
            "sequence_id": int(now.timestamp() * 1000),
        }
        return _call(plan, [up])

    # --- signatures -----------------------------------------------------------------------------------

    def _denied(self, request: Request) -> str | None:
        """The code of what is wrong with a call's head; None where it may come in."""
        headers = request.headers
        found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if found is None or not found[1]:
            return "MissingAccessKeyId"
        if found[1] != credentials.ALIYUN_ACCESS_KEY_ID:
            return "InvalidAccessKeyId.NotFound"
        if not _signed(request, found[2].split(";"), found[3]):
            return "SignatureDoesNotMatch"
        if headers.get("x-acs-version") != _VERSION:
            return "InvalidVersion"
        if headers.get("x-acs-action") != "SendSms":
            return "InvalidAction.NotFound"
        return _stale(headers.get("x-acs-date", "")) or self._repeated(
            headers.get("x-acs-signature-nonce", "")
        )

    def _repeated(self, nonce: str) -> str | None:
        if not nonce or nonce in self._nonces:
            return "SignatureNonceUsed"
        self._nonces[nonce] = None
        while len(self._nonces) > _MOST_NONCES:
            self._nonces.popitem(last=False)
        return None


def _signed(request: Request, names: list[str], given: str) -> bool:
    """Whether the signature is the key's, over everything that must be signed."""
    headers = request.headers
    needed = {"host", *(name for name in headers if name.startswith("x-acs-"))}
    digest = hashlib.sha256(request.body).hexdigest()
    if not needed <= set(names) or headers.get("x-acs-content-sha256") != digest:
        return False
    pairs = sorted((name, value) for name, values in request.query.items() for value in values)
    canonical = "\n".join(
        (
            request.method,
            quote(unquote(request.path), safe="/-_.~"),
            "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in pairs),
            "".join(f"{name}:{headers.get(name, '').strip()}\n" for name in sorted(names)),
            ";".join(sorted(names)),
            digest,
        )
    )
    text = f"{_ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    wanted = hmac.digest(credentials.ALIYUN_ACCESS_KEY_SECRET.encode(), text.encode(), hashlib.sha256).hex()
    return hmac.compare_digest(wanted, given)


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def _stale(date: str) -> str | None:
    try:
        at = datetime.strptime(date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return "InvalidTimeStamp.Format"
    return "InvalidTimeStamp.Expired" if abs(time.time() - at) > _TOLERANCE else None


# --- messages ---------------------------------------------------------------------------------------------


def _fields(request: Request) -> dict[str, str]:
    """The parameters, which stand in the query or in a form."""
    form = dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
    return {**{name: values[0] for name, values in request.query.items()}, **form}


def _unfit(fields: Mapping[str, str]) -> str | None:
    """The code of what is wrong with a message; None where it is taken."""
    for name in ("PhoneNumbers", "SignName", "TemplateCode"):
        if not fields.get(name):
            return f"Missing{name}"
    numbers = fields["PhoneNumbers"].split(",")
    checks = (
        ("isv.MOBILE_NUMBER_ILLEGAL", len(numbers) > _MOST_NUMBERS or not all(map(_e164, numbers))),
        ("isv.SMS_TEMPLATE_ILLEGAL", not re.fullmatch(r"SMS_[0-9]+", fields["TemplateCode"])),
        ("isv.INVALID_JSON_PARAM", not _are_parameters(fields.get("TemplateParam", ""))),
        ("isv.INVALID_PARAMETERS", len(fields.get("OutId", "").encode()) > _LONGEST_OUT_ID),
    )
    return next((code for code, wrong in checks if wrong), None)


def _are_parameters(text: str) -> bool:
    """Whether these are a template's: an object of strings, or nothing."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and all(isinstance(each, str) for each in found.values())


def _e164(number: str) -> str:
    """A number as everybody else writes it; empty where it is none."""
    domestic = re.fullmatch(r"(?:\+86|0086|86|\+)?(1[3-9][0-9]{9})", number)
    if domestic:
        return f"+86{domestic[1]}"
    return f"+{number}" if re.fullmatch(r"[1-9][0-9]{6,14}", number) else ""


# --- answers ----------------------------------------------------------------------------------------------


def _no(request: Request, code: str) -> Reply:
    if code in _MESSAGE:
        return _reply(request, 200, {"Code": code, "Message": _MESSAGE[code]})
    status, text = _CALL[code]
    return _reply(request, status, {"Code": code, "Message": text})


def _reply(request: Request, status: int, body: Mapping[str, str]) -> Reply:
    known = str(uuid.uuid4()).upper()
    whole = {**body, "RequestId": known}
    if status != 200:  # noqa: PLR2004 - the gateway's errors, which have more fields than the product's
        host = request.headers.get("host", "")
        whole |= {"HostId": host, "Recommend": f"https://api.aliyun.com/troubleshoot?q={body['Code']}"}
    return Reply(status, whole, {"x-acs-request-id": known}, invalid=body["Code"] != "OK")


def _biz_id(taken: LoggedRequest) -> str:
    digits = int(hashlib.sha256(f"{taken.id} {taken.at.isoformat()}".encode()).hexdigest()[:14], 16)
    return f"{digits:018d}^0"


def _call(plan: Plan, items: Sequence[Mapping[str, Any]]) -> Call:
    """A push; it counts as taken where the answer's code is 0. Nothing is signed: a forger does not know the query."""
    url = plan.url or ""
    body = json.dumps(list(items), ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json;charset=utf-8"}
    return Call(url.partition("?")[0] if plan.forged else url, body, headers, _heard)


def _heard(body: bytes) -> bool:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("code") == 0


def _china(at: datetime) -> str:
    return (at + _CHINA_TIME).strftime("%Y-%m-%d %H:%M:%S")


WIRE: Final = Aliyun()
