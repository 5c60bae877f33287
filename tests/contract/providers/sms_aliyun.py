from __future__ import annotations

from dataclasses import replace
from typing import Any

from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    Message,
    Misconfigured,
    Refused,
    TextContent,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from tests.contract.conformance import Adapter, Row, TooLong, Unreadable, a_message
from tests.contract.http_peer import HttpPeer, Reply

KEY_ID = "LTAI5tExampleKeyIdOnly00"
KEY = "kEhR4nExampleSecretOnly0000000"
NUMBER = "+8613900001234"
BIZ_ID = "900619746936498440^0"
REQUEST_ID = "F655A8D5-B967-440B-8683-DAD6FF8DE990"


def answer(code: str, text: str = "", *, status: int = 200, **headers: str) -> Reply:
    """An answer of SendSms as its reference has it; a refusal repeats what it refuses."""
    body = {"Code": code, "Message": text or f"{NUMBER} {{code:493817}}", "RequestId": REQUEST_ID}
    if code == "OK":
        body |= {"Message": "OK", "BizId": BIZ_ID}
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def options(peer: HttpPeer) -> dict[str, Any]:
    return {
        "url": peer.url,
        "access_key_id": KEY_ID,
        "access_key_secret": KEY,
        "sign_name": "示例商店",
        "templates": {
            "order.shipped": [
                {"code": "SMS_154950909", "text": "验证码 ${code}。请勿泄露。"},
                {"code": "SMS_154950910", "text": "one-time code ${code}"},
            ],
            "comment.mentioned": "SMS_154950911",
        },
        "max_segments": 7,
    }


def message(peer: HttpPeer) -> Message:
    return a_message("sms", NUMBER, TextContent("one-time code 493817"))


def other(text: str, **changes: Any) -> TooLong:
    field = changes.pop("field", "content.text")
    return TooLong(lambda peer: replace(message(peer), content=TextContent(text), **changes), field)


def rows(error: type[Any], *codes: str) -> list[Row]:
    """A code comes with status 200 as with 400."""
    return [Row(answer(code, status=status), error, code) for code in codes for status in (200, 400)]


def limited(code: str, text: str, seconds: float) -> Row:
    return Row(answer(code, text), Throttled, code, seconds)


ADAPTER = Adapter(
    use="sms.aliyun",
    capability=Capability.OPAQUE,
    options=options,
    required=("access_key_id", "access_key_secret", "sign_name", "templates"),
    message=message,
    private=(KEY, KEY_ID, "493817", NUMBER[1:]),
    takes=answer("OK"),
    accepted=Accepted(BIZ_ID, "OK"),
    rows=(
        *rows(AddressInvalid, "isv.MOBILE_NUMBER_ILLEGAL", "isv.PHONE_NUMBER_ILLEGAL"),
        limited("isv.BUSINESS_LIMIT_CONTROL", "触发分钟级流控Permits:1", 65),
        limited("isv.BUSINESS_LIMIT_CONTROL", "触发小时级流控Permits:5", 3600),
        limited("isv.BUSINESS_LIMIT_CONTROL", "触发天级流控Permits:10", 86400),
        limited("isv.BUSINESS_LIMIT_CONTROL", "limited", 65),
        limited("isv.DAY_LIMIT_CONTROL", "", 3600),
        limited("isv.MONTH_LIMIT_CONTROL", "", 86400),
        *rows(Throttled, "Throttling", "Throttling.User", "Throttling.Api"),
        Row(answer("Throttling.User", status=429, Retry_After="7"), Throttled, "Throttling.User", 7),
        Row(
            answer("Throttling.User", status=429, x_acs_retry_after="1500"), Throttled, "Throttling.User", 1.5
        ),
        *rows(Unavailable, "ServiceUnavailable"),
        *rows(Uncertain, "isp.SYSTEM_ERROR", "isp.GATEWAY_ERROR", "isp.UNKNOWN"),
        *rows(Misconfigured, "isv.AMOUNT_NOT_ENOUGH", "isv.OUT_OF_SERVICE", "isv.PRODUCT_UN_SUBSCRIPT"),
        *rows(Misconfigured, "isv.ACCOUNT_NOT_EXISTS", "isv.ACCOUNT_ABNORMAL", "isv.PRODUCT_UNSUBSCRIBE"),
        *rows(Misconfigured, "isp.RAM_PERMISSION_DENY", "InvalidAccessKeyId.NotFound"),
        *rows(Misconfigured, "SignatureDoesNotMatch", "InvalidTimeStamp.Expired"),
        *rows(Misconfigured, "isv.SMS_SIGNATURE_ILLEGAL", "isv.SMS_TEMPLATE_ILLEGAL"),
        *rows(Refused, "isv.TEMPLATE_MISSING_PARAMETERS", "isv.INVALID_PARAMETERS", "isv.INVALID_JSON_PARAM"),
        *rows(Refused, "isv.PARAM_LENGTH_LIMIT", "isv.PARAM_NOT_SUPPORT_URL", "isv.BLACK_KEY_CONTROL_LIMIT"),
        *rows(Refused, "isv.SOMETHING_NEW"),
        Row(answer("MissingSignName", status=400), Refused, "MissingSignName"),
        Row(answer("NoPermission", status=403), Misconfigured, "NoPermission"),
        Row(answer("InternalError", status=500), Uncertain, "InternalError"),
        Row(answer("OK", status=500), Uncertain, "500"),
        Row(Reply(400), Refused, "400"),
        Row(Reply(401), Misconfigured, "401"),
        Row(Reply(403), Misconfigured, "403"),
        Row(Reply(404), Misconfigured, "404"),
        Row(Reply(408), TryLater, "408"),
        Row(Reply(413), Refused, "413"),
        Row(Reply(429, headers={"Retry-After": "7"}), Throttled, "429", 7),
        Row(Reply(503), Unavailable, "503"),
        Row(Reply(503, headers={"Retry-After": "7"}), TryLater, "503", 7),
        Row(Reply(302), Misconfigured, "302"),
    ),
    malformed=(
        Unreadable(Reply(200, {"Code": "OK"}), Accepted(None, "OK")),
        Unreadable(Reply(200, {"Code": "OK", "BizId": {"a": 1}}), Accepted(None, "OK")),
        Unreadable(Reply(200, {}), Uncertain),
        Unreadable(Reply(200, {"Code": ["OK"]}), Uncertain),
        Unreadable(Reply(200, "not JSON"), Uncertain),
        Unreadable(Reply(200, b"{}", length=99), Uncertain),
    ),
    too_long=(
        other("one-time code " + "x" * 500),
        other("one-time code " + "語" * 480, event_type="order.shipped"),
        other("another text"),
        other('{"name": 1}', event_type="comment.mentioned"),
        other("not JSON", event_type="comment.mentioned"),
        other("one-time code 1", event_type="invoice.paid", field="templates"),
    ),
)
