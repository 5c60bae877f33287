"""The sandbox's wires as others find them: the providers' official SDKs, and plain HTTP by their documentation."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import pytest
from alibabacloud_dysmsapi20170525.client import Client as Dysms
from alibabacloud_dysmsapi20170525.models import SendSmsRequest
from alibabacloud_tea_openapi.utils_models import Config
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client as TwilioClient

from notify_tasks.sandbox import Sandbox, sandbox_process
from tests.support.wired import ADDRESS, NUMBER, last

FROM = "+15005550006"


@pytest.fixture(scope="module")
def far_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_process(tmp_path_factory.mktemp("sandbox"), seed=7) as running:
        yield running


@pytest.fixture
def sandbox(far_end: Sandbox) -> Sandbox:
    far_end.clear_modes()
    return far_end


def asked(
    sandbox: Sandbox, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.ready.http_port, timeout=10)
    try:
        connection.request(method, target, body, headers or {})
        response = connection.getresponse()
        raw = response.read()
        return response.status, dict(response.getheaders()), json.loads(raw) if raw else None
    finally:
        connection.close()


# --- Twilio's SDK ---------------------------------------------------------------------------------------


class Aimed(TwilioHttpClient):  # type: ignore[misc]
    """The SDK's own client, which calls another host: what it offers for that."""

    def __init__(self, origin: str) -> None:
        super().__init__(timeout=5)
        self.origin = origin

    def request(self, method: str, url: str, **rest: Any) -> Any:
        return super().request(method, url.replace("https://api.twilio.com", self.origin), **rest)


def twilio(sandbox: Sandbox, token: str | None = None) -> TwilioClient:
    said = sandbox.environment
    key = token or said["SANDBOX_TWILIO_AUTH_TOKEN"]
    return TwilioClient(said["SANDBOX_TWILIO_ACCOUNT_SID"], key, http_client=Aimed(sandbox.http_url))


def test_twilios_sdk_reads_the_message(sandbox: Sandbox) -> None:
    sent = twilio(sandbox).messages.create(
        to=NUMBER, from_=FROM, body="hello", status_callback="http://127.0.0.1:9/hooks/twilio?delivery_id=d-7"
    )

    assert sent.sid is not None
    assert (sent.sid[:2], len(sent.sid)) == ("SM", 34)
    assert (sent.status, sent.to, sent.from_, sent.body, sent.num_segments) == (
        "queued",
        NUMBER,
        FROM,
        "hello",
        "1",
    )
    assert sent.date_created is not None
    assert abs(datetime.now(UTC) - sent.date_created) < timedelta(minutes=1)
    assert last(sandbox).delivery_id == "d-7"


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"to": "12", "from_": FROM, "body": "x"}, 400, 21211),
        ({"to": NUMBER, "from_": FROM, "body": "x" * 1601}, 400, 21617),
        ({"to": NUMBER, "from_": FROM}, 400, 21602),
        ({"to": NUMBER, "body": "x"}, 400, 21603),
        ({"to": NUMBER, "from_": "+15005550001", "body": "x"}, 400, 21212),
        ({"to": NUMBER, "messaging_service_sid": "MG1", "body": "x"}, 400, 21701),
        ({"to": "+15005550004", "from_": FROM, "body": "x"}, 400, 21610),
    ],
)
def test_twilios_sdk_is_told_what_is_wrong(
    sandbox: Sandbox, fields: dict[str, str], status: int, code: int
) -> None:
    with pytest.raises(TwilioRestException) as refused:
        twilio(sandbox).messages.create(**fields)

    assert (refused.value.status, refused.value.code) == (status, code)
    assert not last(sandbox).accepted


def test_twilios_sdk_is_told_of_a_wrong_key_and_an_unknown_account(sandbox: Sandbox) -> None:
    with pytest.raises(TwilioRestException) as refused:
        twilio(sandbox, "0" * 32).messages.create(to=NUMBER, from_=FROM, body="x")
    assert (refused.value.status, refused.value.code) == (401, 20003)

    client = twilio(sandbox)
    with pytest.raises(TwilioRestException) as missing:
        client.api.v2010.accounts("AC" + "0" * 32).messages.create(to=NUMBER, from_=FROM, body="x")
    assert (missing.value.status, missing.value.code) == (404, 20404)


# --- Alibaba Cloud's SDK --------------------------------------------------------------------------------


def dysms(sandbox: Sandbox, **changes: str) -> Dysms:
    said = sandbox.environment
    given = {
        "access_key_id": said["SANDBOX_ALIYUN_ACCESS_KEY_ID"],
        "access_key_secret": said["SANDBOX_ALIYUN_ACCESS_KEY_SECRET"],
        "endpoint": f"127.0.0.1:{sandbox.ready.http_port}",
        "protocol": "HTTP",
        **changes,
    }
    return Dysms(Config(**given))


def an_sms(**changes: str) -> SendSmsRequest:
    usual = {
        "phone_numbers": "13900001234",
        "sign_name": "示例商店",
        "template_code": "SMS_154950909",
        "template_param": '{"code":"49 38+17*~"}',
        "out_id": "d-8",
    }
    return SendSmsRequest(**{**usual, **changes})


def test_alibabas_sdk_signs_and_is_believed(sandbox: Sandbox) -> None:
    answer = dysms(sandbox).send_sms(an_sms())

    assert (answer.status_code, answer.body.code, answer.body.message) == (200, "OK", "OK")
    assert answer.body.biz_id.endswith("^0")
    assert answer.body.request_id
    assert (last(sandbox).delivery_id, last(sandbox).to) == ("d-8", "+8613900001234")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"phone_numbers": "12"}, "isv.MOBILE_NUMBER_ILLEGAL"),
        ({"template_code": "welcome"}, "isv.SMS_TEMPLATE_ILLEGAL"),
        ({"template_param": '{"code":1}'}, "isv.INVALID_JSON_PARAM"),
    ],
)
def test_alibabas_sdk_gets_a_no_with_status_200(sandbox: Sandbox, changes: dict[str, str], code: str) -> None:
    answer = dysms(sandbox).send_sms(an_sms(**changes))

    assert (answer.status_code, answer.body.code, answer.body.biz_id) == (200, code, None)
    assert (last(sandbox).accepted, last(sandbox).action) == (False, "invalid")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"access_key_secret": "0" * 30}, "SignatureDoesNotMatch"),
        ({"access_key_id": "SOMEBODYELSE"}, "InvalidAccessKeyId.NotFound"),
    ],
)
def test_alibabas_sdk_is_told_of_a_wrong_key(sandbox: Sandbox, changes: dict[str, str], code: str) -> None:
    with pytest.raises(Exception, match=code.replace(".", r"\.")):
        dysms(sandbox, **changes).send_sms(an_sms())


def signed(sandbox: Sandbox, query: dict[str, str], **headers: str) -> tuple[str, dict[str, str]]:
    """A call as the description of signature V3 has it, written without a look at the sandbox's judgement."""
    said = sandbox.environment
    sent = {
        "host": f"127.0.0.1:{sandbox.ready.http_port}",
        "x-acs-action": "SendSms",
        "x-acs-content-sha256": hashlib.sha256(b"").hexdigest(),
        "x-acs-date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": uuid4().hex,
        "x-acs-version": "2017-05-25",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    canonical_query = urlencode(sorted(query.items()), quote_via=quote, safe="~")
    names = ";".join(sorted(sent))
    lines = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
    canonical = f"POST\n/\n{canonical_query}\n{lines}\n{names}\n{sent['x-acs-content-sha256']}"
    text = "ACS3-HMAC-SHA256\n" + hashlib.sha256(canonical.encode()).hexdigest()
    made = hmac.new(said["SANDBOX_ALIYUN_ACCESS_KEY_SECRET"].encode(), text.encode(), "sha256").hexdigest()
    key = said["SANDBOX_ALIYUN_ACCESS_KEY_ID"]
    sent["Authorization"] = f"ACS3-HMAC-SHA256 Credential={key},SignedHeaders={names},Signature={made}"
    return f"/?{canonical_query}", sent


SMS = {"PhoneNumbers": "13900001234", "SignName": "店", "TemplateCode": "SMS_1", "TemplateParam": "{}"}


def test_a_signature_holds_for_one_call_within_a_quarter_of_an_hour(sandbox: Sandbox) -> None:
    target, headers = signed(sandbox, SMS)
    assert asked(sandbox, "POST", target, headers=headers)[2]["Code"] == "OK"
    assert asked(sandbox, "POST", target, headers=headers)[2]["Code"] == "SignatureNonceUsed"

    target, headers = signed(sandbox, SMS)
    shuffled = "/?" + "&".join(reversed(target.removeprefix("/?").split("&")))
    assert asked(sandbox, "POST", shuffled, headers=headers)[2]["Code"] == "OK"  # what is signed is sorted

    target, headers = signed(sandbox, SMS, x_acs_date="2020-01-01T00:00:00Z")
    assert asked(sandbox, "POST", target, headers=headers)[2]["Code"] == "InvalidTimeStamp.Expired"

    target, headers = signed(sandbox, SMS)
    other = target.replace("13900001234", "13900009999")
    status, _, said = asked(sandbox, "POST", other, headers=headers)
    assert (status, said["Code"]) == (400, "SignatureDoesNotMatch")


def test_a_call_without_what_it_needs_is_refused(sandbox: Sandbox) -> None:
    for missing in ("PhoneNumbers", "SignName", "TemplateCode"):
        target, headers = signed(sandbox, {name: value for name, value in SMS.items() if name != missing})
        status, _, said = asked(sandbox, "POST", target, headers=headers)
        assert (status, said["Code"]) == (400, f"Missing{missing}")
    assert asked(sandbox, "POST", "/?Action=SendSms")[2]["Code"] == "MissingAccessKeyId"


# --- SendGrid's API -------------------------------------------------------------------------------------


def mail(**changes: Any) -> dict[str, Any]:
    return {
        "personalizations": [{"to": [{"email": ADDRESS}]}],
        "from": {"email": "hello@shop.example", "name": "Shop"},
        "subject": "Hello",
        "content": [{"type": "text/plain", "value": "hi"}, {"type": "text/html", "value": "<p>hi</p>"}],
        "custom_args": {"delivery_id": "d-9"},
        **changes,
    }


def posted(
    sandbox: Sandbox, body: object, **headers: str
) -> tuple[int, dict[str, str], list[tuple[str, str | None]]]:
    key = sandbox.environment["SANDBOX_SENDGRID_API_KEY"]
    sent = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, told, answer = asked(sandbox, "POST", "/v3/mail/send", raw, sent)
    return status, told, [(each["field"], each["message"]) for each in (answer or {}).get("errors", ())]


def test_sendgrid_takes_a_mail_with_an_empty_answer(sandbox: Sandbox) -> None:
    status, headers, errors = posted(sandbox, mail())

    assert (status, errors, headers["Content-Length"]) == (202, [], "0")
    assert headers["X-Message-Id"]
    assert "Content-Type" not in headers
    assert int(headers["X-RateLimit-Remaining"]) > 0
    assert (last(sandbox).delivery_id, last(sandbox).to) == ("d-9", ADDRESS)


FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"personalizations": []}, "personalizations"),
    ({"personalizations": [{}]}, "personalizations.0.to"),
    ({"personalizations": [{"to": [{"email": "zoe"}]}]}, "personalizations.0.to.0.email"),
    (
        {"personalizations": [{"to": [{"email": "a@b.example"}, {"email": "A@b.example"}]}]},
        "personalizations.0.to",
    ),
    ({"from": {"name": "Shop"}}, "from.email"),
    ({"reply_to": {"email": "x"}}, "reply_to.email"),
    ({"subject": ""}, "subject"),
    ({"content": []}, "content"),
    ({"content": [{"type": "text/plain", "value": ""}]}, "content.0.value"),
    ({"content": [{"type": "text/html", "value": "a"}, {"type": "text/plain", "value": "a"}]}, "content"),
    ({"attachments": [{"content": "not base64!", "filename": "a"}]}, "attachments.0.content"),
    ({"custom_args": {"n": 1}}, "custom_args"),
    ({"headers": {"To": "x"}}, "headers"),
    ({"categories": ["x" * 256]}, "categories"),
]


@pytest.mark.parametrize(("changes", "field"), FIELDS, ids=lambda it: it if isinstance(it, str) else "")
def test_sendgrid_names_the_field_that_is_wrong(
    sandbox: Sandbox, changes: dict[str, Any], field: str
) -> None:
    status, _, errors = posted(sandbox, mail(**changes))

    assert status == 400
    assert errors[0][0] == field
    assert not last(sandbox).accepted


def test_sendgrid_refuses_what_is_no_request_of_its_own(sandbox: Sandbox) -> None:
    assert posted(sandbox, b"{")[0] == 400
    assert posted(sandbox, mail(), **{"Content-Type": "text/plain"})[0] == 415
    assert posted(sandbox, mail(), Authorization="Bearer SG.x")[0] == 401
    film = base64.b64encode(bytes(23_000_000)).decode()
    assert posted(sandbox, mail(attachments=[{"content": film, "filename": "film.mp4"}]))[0] == 413
    assert asked(sandbox, "GET", "/v3/mail/batch")[0] == 401


def test_a_redirect_leads_to_where_nothing_is_taken(sandbox: Sandbox) -> None:
    sandbox.set_mode("sendgrid", "redirect", times=1)

    status, headers, _ = posted(sandbox, mail())

    assert (status, headers["Location"], last(sandbox).accepted) == (307, "/elsewhere", False)
    assert asked(sandbox, "POST", headers["Location"])[0] == 404
    assert last(sandbox).action == "invalid"
