"""`sms.aliyun`: SMS by Alibaba Cloud's SendSms (product Dysmsapi, version 2017-05-25), by approved templates.

Aliyun takes no free text: a message is the code of a template that was approved beforehand, and its
parameters. The option `templates` says which template an event type is, and with the approved text beside the
code, the parameters are read out of the rendered `sms.txt`: what a person gets is the text that was rendered,
letter by letter, and the same `sms.txt` serves the other providers of the pool::

    [providers.sms-cn.templates]
    "order.shipped" = { code = "SMS_154950909", text = "订单 ${order} 已发货。" }
    "account.password_reset" = [           # one for each language; the first whose text fits is taken
        { code = "SMS_154950910", text = "请在 ${minutes} 分钟内设置新密码。" },
        { code = "SMS_154950911", text = "Set a new password within ${minutes} minutes." },
    ]
    "invoice.paid" = "SMS_154950912"       # no text: sms.txt is the JSON object of the parameters

A text that fits none is refused before it is sent. `text = "${content}"` puts a whole text into one parameter,
where Aliyun approved such a template. Aliyun puts the signature in front; a rendered `【signature】` is left out.

Aliyun's SDK makes the request and its signature, and this module's connections carry it: the SDK's own follow
redirects and the environment's proxies, have no deadline, and put the number and the code into their errors.

| Aliyun | outcome |
|---|---|
| 2xx with the code OK | Accepted; the id is `BizId` |
| any status with a code of `CODES` or `FAMILIES` | as its row says |
| 2xx with any other code | Refused, with that code |
| 2xx without a code that can be read | Uncertain: such an answer may be a no |
| 401, 403, 404; 3xx | Misconfigured |
| 429; Throttling | Throttled: not processed |
| 503; ServiceUnavailable | Unavailable |
| 500, 502, 504; isp; no answer; a lost connection | Uncertain: SendSms knows no idempotency keys |
| other 4xx | Refused |

Numbers of North America are Unroutable: Aliyun writes no plus, and would take them for Chinese ones.

A recipient's own limit (`isv.BUSINESS_LIMIT_CONTROL`) is Throttled with the time that its text names.

| Aliyun reports | fate | address |
|---|---|---|
| success true | delivered | |
| success false, with an err_code of `STANDINGS` | undelivered | invalid |
| success false, with any other err_code of a carrier | undelivered | |
| success false, with an err_code of no known kind | undelivered; unknown | |
| no success | unknown | |
| a person's text that is T, TD or 退订 | | opted out |
| any other text | no event | |

Receipts need the option `callback_token`; `channels.sms._aliyun_receipts` reads them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from channels._addresses import split_url
from channels._sdk import LazySdk
from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    ChannelError,
    Deadline,
    Message,
    Misconfigured,
    Refused,
    Throttled,
    Unavailable,
    Uncertain,
    Unroutable,
)
from channels.http import CLIENT_OPTIONS, Answer, Client, Meaning, Options, Secret
from channels.receipts import Event, Receipt
from channels.sms import _aliyun_receipts
from channels.sms._aliyun_templates import Templates, fitting, read_templates
from channels.sms._text import MAX_SEGMENTS, checked_text, number_of

_KEYS: Final[Meaning] = (Misconfigured, "Aliyun refuses the access key; check access_key_id and its secret")
_ACCOUNT: Final[Meaning] = (Misconfigured, "the account cannot send; look at its balance and its products")
_NUMBER: Final[Meaning] = (AddressInvalid, "the number is not valid")
_DOUBT: Final[Meaning] = (Uncertain, "Aliyun failed with the message in hand")
_PARAMETERS: Final[Meaning] = (Refused, "Aliyun refuses a parameter of the template; correct sms.txt")

CODES: Final[Mapping[str, Meaning]] = {
    "isv.MOBILE_NUMBER_ILLEGAL": _NUMBER,
    "isv.PHONE_NUMBER_ILLEGAL": _NUMBER,
    "isv.BUSINESS_LIMIT_CONTROL": (Throttled, "this number has had as many SMS as Aliyun allows it"),
    "isv.DAY_LIMIT_CONTROL": (Throttled, "the account's daily limit is reached; raise it in the console"),
    "isv.MONTH_LIMIT_CONTROL": (Throttled, "the account's monthly limit is reached; raise it in the console"),
    "ServiceUnavailable": (Unavailable, "Aliyun is not available"),
    "isv.AMOUNT_NOT_ENOUGH": _ACCOUNT,
    "isv.OUT_OF_SERVICE": _ACCOUNT,
    "isv.PRODUCT_UN_SUBSCRIPT": _ACCOUNT,
    "isv.PRODUCT_UNSUBSCRIBE": _ACCOUNT,
    "isp.RAM_PERMISSION_DENY": (Misconfigured, "the access key may not send SMS; grant it dysms:SendSms"),
    "SignatureDoesNotMatch": _KEYS,
    "isv.SMS_SIGNATURE_ILLEGAL": (Misconfigured, "Aliyun has not approved the signature; check sign_name"),
    "isv.SMS_TEMPLATE_ILLEGAL": (Misconfigured, "Aliyun has not approved the template; check templates"),
    "isv.TEMPLATE_MISSING_PARAMETERS": (Refused, "the template has more parameters; compare sms.txt with it"),
    "isv.INVALID_PARAMETERS": _PARAMETERS,
    "isv.INVALID_JSON_PARAM": _PARAMETERS,
    "isv.PARAM_LENGTH_LIMIT": (Refused, "a parameter is too long for the template; shorten it"),
    "isv.PARAM_NOT_SUPPORT_URL": (Refused, "a parameter has a URL; put the link into the template itself"),
    "isv.BLACK_KEY_CONTROL_LIMIT": (Refused, "a parameter has a word that Aliyun forbids; change it"),
}
"""What a code means (help.aliyun.com: API error codes of SMS). It comes with status 200, too."""
FAMILIES: Final[Mapping[str, Meaning]] = {
    "Throttling": (Throttled, "Aliyun asks us to slow down"),
    "InvalidAccessKeyId.": _KEYS,
    "InvalidTimeStamp.": (Misconfigured, "Aliyun finds our time wrong; set this machine's clock"),
    "isv.ACCOUNT_": _ACCOUNT,
    "isp.": _DOUBT,
}
"""What the codes that begin so mean, where `CODES` does not say."""
WAITS: Final[Mapping[str, float]] = {
    "isv.BUSINESS_LIMIT_CONTROL": 65.0,
    "isv.DAY_LIMIT_CONTROL": 3600.0,
    "isv.MONTH_LIMIT_CONTROL": 86_400.0,
}
"""Seconds to wait. Of a recipient's limit they are those of the shortest one, a message a minute."""
_PERIODS: Final = (("小时", 3600.0), ("hour", 3600.0), ("天", 86_400.0), ("日", 86_400.0), ("day", 86_400.0))

API: Final = "https://dysmsapi.aliyuncs.com"
MAX_TEXT: Final = 500
"""Characters of a template's text (AddSmsTemplate, `TemplateContent`), and so about those of an SMS."""
_NOTHING: Final = hashlib.sha256(b"").hexdigest()
_ALGORITHM: Final = "ACS3-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class _Sdk:
    client: Any
    config: Any
    send_sms: Any
    runtime: Any
    request: Any
    tools: Any


def _load() -> _Sdk:
    from alibabacloud_dysmsapi20170525.client import Client as SdkClient  # noqa: PLC0415 - see LazySdk
    from alibabacloud_dysmsapi20170525.models import SendSmsRequest  # noqa: PLC0415
    from alibabacloud_tea_openapi.utils import Utils  # noqa: PLC0415
    from alibabacloud_tea_openapi.utils_models import Config  # noqa: PLC0415
    from darabonba.request import DaraRequest  # noqa: PLC0415
    from darabonba.runtime import RuntimeOptions  # noqa: PLC0415

    return _Sdk(SdkClient, Config, SendSmsRequest, RuntimeOptions, DaraRequest, Utils)


_SDK: Final = LazySdk("alibabacloud_dysmsapi20170525", _load, extra="aliyun")


@dataclass(frozen=True, slots=True)
class _Account:
    """Who sends.

    Args:
        key_id: of the access key.
        key: its secret.
        host: that requests are signed for.
    """

    key_id: Secret
    key: Secret
    host: str


def build(name: str, options: Mapping[str, Any]) -> Aliyun:
    """Build the provider.

    Args:
        name: its name in the configuration.
        options: `access_key_id`, `access_key_secret` (of a RAM user that may dysms:SendSms), `sign_name` (the
            approved signature) and `templates` (see above), all required. `max_segments`: SMS that one text
            may make (10). `callback_token`: the secret in the query of the URL that Aliyun's console is given for
            SmsReport and SmsUp, `https://HOST/hooks/NAME?token=...`; two in a list while one replaces the
            other. And those of `channels.http.CLIENT_OPTIONS`; `url` is another far end than
            Aliyun's, or one of its regions.

    Raises:
        Misconfigured: an option is missing, wrong or unknown, or the SDK is not installed.
    """
    known = (
        *CLIENT_OPTIONS,
        *("access_key_id", "access_key_secret", "sign_name", "templates", "max_segments", "callback_token"),
    )
    given = Options("sms.aliyun", name, options, known)
    _SDK.look(given)
    key_id = given.secret("access_key_id")
    if not re.fullmatch(r"[A-Za-z0-9.]{8,128}", key_id.reveal()):
        raise given.wrong("access_key_id", "is no access key's id; copy it from the console")
    tokens = given.secrets("callback_token") if "callback_token" in options else ()
    origin, _ = split_url(given.origin("url", API))
    return Aliyun(
        name,
        _Account(key_id, given.secret("access_key_secret"), origin.authority),
        Client.read(given, API),
        _aliyun_receipts.Gate(tokens),
        sign_name=given.text("sign_name", write='sign_name = "the approved signature"').strip("【】 "),
        templates=read_templates(given, options.get("templates")),
        max_segments=given.whole("max_segments", MAX_SEGMENTS),
    )


class Aliyun:
    """Sends one SMS in one request. Made by `build`.

    Args:
        name: of the provider in the configuration.
        account: who sends.
        client: carries the requests.
        gate: lets receipts in.
        sign_name: the approved signature.
        templates: the approved templates, by event type.
        max_segments: SMS that one text may make.
    """

    capability = Capability.OPAQUE
    receipt_answer = _aliyun_receipts.ANSWER
    """The body, with status 200, that tells Aliyun that a receipt is kept."""

    def __init__(
        self,
        name: str,
        account: _Account,
        client: Client,
        gate: _aliyun_receipts.Gate,
        *,
        sign_name: str,
        templates: Templates,
        max_segments: int,
    ) -> None:
        self._name = name
        self._account = account
        self._client = client
        self._gate = gate
        self._sign_name = sign_name
        self._templates = templates
        self._max_segments = max_segments

    def __repr__(self) -> str:
        return f"<sms.aliyun {self._name!r}>"

    def prewarm(self) -> None:
        """Import the SDK now, so that the first message does not wait a second and a half for it."""
        _SDK.get()

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one SMS to Aliyun. See `Provider.send`; the module has the table."""
        ahead = f"【{self._sign_name}】"
        text = checked_text(message, most=MAX_TEXT, most_segments=self._max_segments, ahead=ahead)
        code, parameters = fitting(self._templates, message.event_type, text, self._sign_name)
        fields = {
            "phone_numbers": _number(message),
            "sign_name": self._sign_name,
            "template_code": code,
            "template_param": parameters,
            "out_id": message.delivery_id,  # comes back in the receipt
        }
        answer = self._ask(fields, deadline)
        failure = _failure(answer)
        if failure is not None:
            raise failure
        return Accepted(answer.identifier("BizId"), "OK")

    def verify(self, receipt: Receipt) -> None:
        """See `channels.receipts.Reporting`."""
        self._gate.verify(receipt)

    def events(self, receipt: Receipt) -> Sequence[Event]:
        """See `channels.receipts.Reporting`; the module has the table."""
        return _aliyun_receipts.events(receipt)

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _ask(self, fields: Mapping[str, str], deadline: Deadline) -> Answer:
        sdk = _SDK.get()
        wire = _Wire(sdk, self._account, self._client, deadline)
        client = sdk.client(sdk.config(endpoint=self._account.host))
        client.call_api = wire.call_api  # what each of the SDK's methods ends in
        problem = ""
        try:
            client.send_sms_with_options(sdk.send_sms(**fields), sdk.runtime())
        except ChannelError:
            raise
        except Exception as error:  # noqa: BLE001 - what the SDK makes of an answer does not matter: we have it
            problem = type(error).__name__
        if wire.answer is None:
            raise Misconfigured(
                "sdk", f"Aliyun's SDK made no request ({problem}); install the version of the requirements"
            )
        return wire.answer


class _Wire:
    """Carries the SDK's request, for one call: signed by the SDK, over our connections, its answer kept.

    The SDK would keep the key in a client, and send through a session that all clients of a process share.
    """

    def __init__(self, sdk: _Sdk, account: _Account, client: Client, deadline: Deadline) -> None:
        self._sdk = sdk
        self._account = account
        self._client = client
        self._deadline = deadline
        self.answer: Answer | None = None

    def call_api(self, params: Any, request: Any, _runtime: object) -> dict[str, Any]:
        """Send the call that the SDK has put together (signature V3: ACS3-HMAC-SHA256, with an empty body)."""
        headers = self._signed(params, request.query)
        del headers["host"]  # the client sets it
        query = urlencode(request.query, quote_via=quote, safe="~")
        answer = self._client.request(
            params.method, f"{params.pathname}?{query}", self._deadline, headers=headers
        )
        self.answer = answer
        return {"statusCode": answer.status, "headers": dict(answer.headers), "body": dict(answer.fields())}

    def _signed(self, params: Any, query: Mapping[str, str]) -> dict[str, str]:
        tools = self._sdk.tools
        call = self._sdk.request()
        call.method, call.pathname, call.query = params.method, params.pathname, query
        call.headers = {
            "host": self._account.host,
            "x-acs-version": params.version,
            "x-acs-action": params.action,
            "User-Agent": tools.get_user_agent(None),
            "x-acs-date": tools.get_timestamp(),
            "x-acs-signature-nonce": tools.get_nonce(),
            "accept": "application/json",
            "x-acs-content-sha256": _NOTHING,
        }
        key_id, key = self._account.key_id.reveal(), self._account.key.reveal()
        signature = tools.get_authorization(call, _ALGORITHM, _NOTHING, key_id, key)
        return {**call.headers, "Authorization": signature}


def _number(message: Message) -> str:
    """The number as Aliyun writes it: the country's code first, and no plus.

    Raises:
        Unroutable: it would be taken for another one. Eleven digits that begin with a 1 are a mobile number of mainland
            China, and those of North America look the same.
    """
    digits = number_of(message)[1:]
    if digits.startswith("1"):
        raise Unroutable(
            "number",
            "Aliyun would take a North American number for a Chinese one; give the pool another provider",
        )
    return digits


def _failure(answer: Answer) -> ChannelError | None:
    fields = answer.fields()
    code = fields.get("Code", fields.get("code"))
    if not isinstance(code, str) or not re.fullmatch(r"[A-Za-z][\w.-]{1,80}", code):
        code = ""
    yes = 200 <= answer.status < 300  # noqa: PLR2004 - the classes of RFC 9110, section 15
    if code == "OK":
        if yes:
            return None
        code = ""
    meaning = _meaning(code)
    if meaning is not None:
        outcome, detail = meaning
        return outcome(code, detail, retry_after=_wait(code, fields.get("Message"), answer))
    if yes and code:
        return Refused(code, "Aliyun refused the message; its list of API error codes explains this one")
    if yes:
        return Uncertain(str(answer.status), "Aliyun's answer cannot be read: it may be a yes or a no")
    failure = answer.failure(Capability.OPAQUE)
    if failure is None or not code:
        return failure
    return type(failure)(code, failure.detail, retry_after=_wait(code, None, answer))


def _meaning(code: str) -> Meaning | None:
    families = (FAMILIES[each] for each in FAMILIES if code.startswith(each))
    return CODES.get(code) or next(families, None)


def _wait(code: str, text: object, answer: Answer) -> float | None:
    """Seconds to wait: as a header says, or the text of a recipient's limit, or `WAITS`."""
    milliseconds = answer.headers.get("x-acs-retry-after", "")
    if answer.retry_after is not None:
        return answer.retry_after
    if re.fullmatch(r"[0-9]{1,8}", milliseconds):
        return int(milliseconds) / 1000
    if code == "isv.BUSINESS_LIMIT_CONTROL" and isinstance(text, str):
        longer = (seconds for word, seconds in _PERIODS if word in text.lower())
        return next(longer, WAITS[code])
    return WAITS.get(code)
