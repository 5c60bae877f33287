"""What `sms.aliyun` promises beside the conformance suite: approved templates, signatures, and its own SDK."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels._sdk import LazySdk
from channels.contract import (
    Accepted,
    AddressInvalid,
    Deadline,
    Message,
    Misconfigured,
    Provider,
    TextContent,
    Unroutable,
)
from channels.http import Options
from channels.loader import load
from channels.sms import aliyun
from channels.sms._aliyun_templates import fitting, read_templates
from tests.contract.conformance import a_message
from tests.contract.connect_proxy import ConnectProxy, private_ca
from tests.contract.http_peer import HttpPeer, Reply, Seen
from tests.contract.providers.sms_aliyun import BIZ_ID, KEY, KEY_ID, NUMBER, answer

ROOT = Path(__file__).parents[2]
SIGN = "示例商店"
TEMPLATES: dict[str, Any] = {
    "order.shipped": [
        {"code": "SMS_1001", "text": "订单 ${order} 已发货。查看物流 ${link}"},
        {"code": "SMS_1002", "text": "Order ${order} is on its way."},
    ],
    "comment.mentioned": "SMS_1003",
    "invoice.paid": {"code": "SMS_1004", "text": "${content}"},
    "system.test": {"code": "SMS_1005", "text": "This is a test."},
}
NEEDED = {"access_key_id": KEY_ID, "access_key_secret": KEY, "sign_name": SIGN, "templates": TEMPLATES}


@pytest.fixture
def peer() -> Iterator[HttpPeer]:
    with HttpPeer(answer("OK")) as running:
        yield running


Build = Callable[..., Provider]


@pytest.fixture
def build(peer: HttpPeer) -> Iterator[Build]:
    """Build the provider, aimed at the peer; an option of None is left out."""
    built: list[Provider] = []

    def make(**changes: Any) -> Provider:
        options = {"url": peer.url, **NEEDED, **changes}
        built.append(load("sms.aliyun", "cn", {k: v for k, v in options.items() if v is not None}))
        return built[-1]

    yield make
    for each in built:
        each.close()


def an_sms(text: str, event_type: str = "order.shipped") -> Message:
    return replace(a_message("sms", NUMBER, TextContent(text)), event_type=event_type)


def query(seen: Seen) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(seen.target).query, keep_blank_values=True, strict_parsing=True))


class BadSignature(Exception):
    """As the far end says it."""


def verify(seen: Seen, secret: str) -> None:
    """Aliyun's check, written from its description of signature V3 and from nothing of ours or of the SDK's."""
    found = re.fullmatch(
        r"ACS3-HMAC-SHA256 Credential=([^,]+),SignedHeaders=([^,]+),Signature=([0-9a-f]{64})",
        seen.headers["authorization"],
    )
    assert found is not None
    names = found[2].split(";")
    assert names == sorted(names)
    assert {"host", "x-acs-action", "x-acs-content-sha256", "x-acs-date"} <= set(names)
    assert seen.headers["x-acs-content-sha256"] == hashlib.sha256(seen.body).hexdigest()
    parts = urlsplit(seen.target)
    pairs = sorted(parse_qsl(parts.query, keep_blank_values=True))
    canonical = "\n".join(
        [
            seen.method,
            quote(parts.path, safe="/-_.~"),
            "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs),
            "".join(f"{name}:{seen.headers[name].strip()}\n" for name in names),
            ";".join(names),
            seen.headers["x-acs-content-sha256"],
        ]
    )
    signed = "ACS3-HMAC-SHA256\n" + hashlib.sha256(canonical.encode()).hexdigest()
    if not hmac.compare_digest(hmac.new(secret.encode(), signed.encode(), "sha256").hexdigest(), found[3]):
        raise BadSignature(canonical)


# --- the request ------------------------------------------------------------------------------------


def test_a_message_is_sent_as_the_public_api_says(peer: HttpPeer, build: Build) -> None:
    message = an_sms("Order 4711/~ä is on its way.")

    accepted = build().send(message, Deadline(20))

    (seen,) = peer.requests
    assert accepted == Accepted(BIZ_ID, "OK")
    assert (seen.method, urlsplit(seen.target).path, seen.body) == ("POST", "/", b"")
    assert (seen.headers["x-acs-action"], seen.headers["x-acs-version"]) == ("SendSms", "2017-05-25")
    asked = query(seen)
    assert json.loads(asked.pop("TemplateParam")) == {"order": "4711/~ä"}
    assert asked == {
        "PhoneNumbers": NUMBER[1:],
        "SignName": SIGN,
        "TemplateCode": "SMS_1002",
        "OutId": message.delivery_id,
    }


def test_each_request_is_signed_with_a_time_and_a_nonce_of_its_own(peer: HttpPeer, build: Build) -> None:
    provider, message = build(), an_sms("订单 4711 已发货。查看物流 a+b c&d=e*f'g(h)!")
    for attempt in (1, 2):
        provider.send(replace(message, attempt=attempt), Deadline(20))

    for seen in peer.requests:
        verify(seen, KEY)
        with pytest.raises(BadSignature):
            verify(seen, KEY + "x")
        with pytest.raises(BadSignature):
            verify(replace(seen, target=seen.target.replace("SMS_1001", "SMS_1002")), KEY)
        stamp = datetime.strptime(seen.headers["x-acs-date"], "%Y-%m-%dT%H:%M:%S%z")
        assert abs((datetime.now(UTC) - stamp).total_seconds()) < 60
    assert len({seen.headers["x-acs-signature-nonce"] for seen in peer.requests}) == 2


@pytest.mark.parametrize("address", ["", "8613900001234", "+86 139", "+8613900001234,+8613900001235"])
def test_what_is_no_number_is_not_sent(address: str, peer: HttpPeer, build: Build) -> None:
    with pytest.raises(AddressInvalid, match=r"write \+, country code, number"):
        build().send(replace(an_sms("Order 1 is on its way."), address=address), Deadline(10))

    assert peer.connections == 0


# --- templates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event_type", "text", "code", "parameters"),
    [
        ("order.shipped", "Order 4711 is on its way.", "SMS_1002", {"order": "4711"}),
        ("order.shipped", "Order 4711 is on its way.\n", "SMS_1002", {"order": "4711"}),
        ("order.shipped", "订单 4711 已发货。查看物流 x.cn", "SMS_1001", {"order": "4711", "link": "x.cn"}),
        (
            "order.shipped",
            f"【{SIGN}】订单 4711 已发货。查看物流 x.cn",
            "SMS_1001",
            {"order": "4711", "link": "x.cn"},
        ),
        ("comment.mentioned", '{"name": "王芳", "where": ""}', "SMS_1003", {"name": "王芳", "where": ""}),
        (
            "invoice.paid",
            'We have "12,50 €" of yours.',
            "SMS_1004",
            {"content": 'We have "12,50 €" of yours.'},
        ),
        ("system.test", "This is a test.", "SMS_1005", {}),
    ],
)
def test_a_rendered_text_becomes_a_template_and_its_parameters(
    event_type: str, text: str, code: str, parameters: dict[str, str], peer: HttpPeer, build: Build
) -> None:
    build().send(an_sms(text, event_type), Deadline(20))

    asked = query(peer.requests[0])
    assert asked["TemplateCode"] == code
    assert json.loads(asked["TemplateParam"]) == parameters


@pytest.mark.parametrize(
    ("event_type", "text", "says"),
    [
        ("order.shipped", "Order  is on its way.", r"content\.text is none of the approved texts"),
        ("order.shipped", "Order 1 is on its way. Hurry.", r"content\.text is none of the approved texts"),
        ("order.shipped", "订单  已发货。查看物流 x.cn", r"content\.text is none of the approved texts"),
        ("order.shipped", "订单 4711 已发货。查看物流 ", r"content\.text is none of the approved texts"),
        ("comment.mentioned", "Wang mentioned you", r"content\.text is not the JSON object of texts"),
        ("comment.mentioned", '{"name": 1}', r"content\.text is not the JSON object of texts"),
        ("comment.mentioned", '{"a b": "1"}', r"content\.text is not the JSON object of texts"),
        ("comment.mentioned", '["a"]', r"content\.text is not the JSON object of texts"),
        ("system.test", "This is a test!", r"content\.text is none of the approved texts"),
        ("account.password_reset", "x", r"templates has no approved template for account\.password_reset"),
    ],
)
def test_what_no_template_says_is_refused_before_it_is_sent(
    event_type: str, text: str, says: str, peer: HttpPeer, build: Build
) -> None:
    with pytest.raises(Unroutable, match=says) as caught:
        build().send(an_sms(text, event_type), Deadline(20))

    assert text not in str(caught.value) or text == "x"
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert peer.connections == 0


WORDS = st.text(st.sampled_from("ab .{}$的"), min_size=1, max_size=6)
PIECES = st.text(st.sampled_from("ab .}$的"), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=4), st.lists(WORDS, min_size=4, max_size=4))
def test_the_person_gets_the_text_that_was_rendered(pieces: list[str], values: list[str]) -> None:
    """However the values and the words around them look alike: put back together, they are the text."""
    names = [f"v{place}" for place in range(len(pieces))]
    approved = (
        "Hi " + "".join(f"{piece}${{{name}}}" for piece, name in zip(pieces, names, strict=True)) + "end"
    )
    text = "Hi " + "".join(f"{piece}{value}" for piece, value in zip(pieces, values, strict=False)) + "end"
    templates = read_templates(
        Options("sms.aliyun", "cn", {}, ()), {"a.b": {"code": "SMS_1", "text": approved}}
    )

    code, parameters = fitting(templates, "a.b", text, "sign")

    filled = re.sub(r"\$\{(v[0-9])\}", lambda found: json.loads(parameters)[found[1]], approved)
    assert (code, filled) == ("SMS_1", text)


# --- the SDK ----------------------------------------------------------------------------------------


def python(script: str, **environment: str) -> Any:
    """What a process of its own prints as JSON."""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_sdk_is_imported_when_it_is_needed_and_not_before() -> None:
    options = json.dumps(NEEDED)
    script = f"""
import json, sys
from channels.loader import load
heavy = ("Tea", "aiohttp", "alibabacloud_dysmsapi20170525", "alibabacloud_tea_openapi", "darabonba", "requests")
there = lambda: sorted(set(heavy) & {{each.split(".")[0] for each in sys.modules}})
provider = load("sms.aliyun", "cn", json.loads({options!r}))
built = there()
provider.prewarm()
print(json.dumps([built, "alibabacloud_dysmsapi20170525" in there()]))
"""
    assert python(script) == [[], True]


def test_a_missing_sdk_is_named_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliyun, "_SDK", LazySdk("aliyun_is_not_there", aliyun._load, extra="x"))

    with pytest.raises(
        Misconfigured, match=r"cn: use needs the package aliyun_is_not_there; type pip install"
    ):
        load("sms.aliyun", "cn", NEEDED)


def test_an_sdk_that_makes_no_request_is_told_from_a_lost_answer(
    peer: HttpPeer, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = aliyun._SDK.get()

    def changed(**_: object) -> None:
        raise TypeError(f"no such argument for {NUMBER}")

    monkeypatch.setattr(aliyun, "_SDK", LazySdk("json", lambda: replace(whole, send_sms=changed), extra="x"))

    with pytest.raises(Misconfigured, match=r"^sdk: Aliyun's SDK made no request \(TypeError\)") as caught:
        build().send(an_sms("Order 1 is on its way."), Deadline(10))

    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert peer.connections == 0


def test_debugging_of_the_sdk_tells_nothing(
    peer: HttpPeer, build: Build, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEBUG", "sdk")  # with which it writes each URL and all headers to stderr

    build().send(an_sms("Order 4711 is on its way."), Deadline(20))

    written = "".join(capfd.readouterr())
    assert peer.requests
    assert not any(private in written for private in (NUMBER[1:], KEY, KEY_ID, "4711"))


def test_the_sdk_as_it_is_sends_the_same_through_a_proxy_to_the_real_address(tmp_path: Path) -> None:
    """Our transport of the SDK's request against its own: the same request, at the real host, in TLS."""
    host = "dysmsapi.aliyuncs.com"
    private = private_ca(tmp_path, host)
    message = an_sms("订单 4711/~ä 已发货。查看物流 a+b c&d=e*f'g(h)!")
    script = """
import json, os
from alibabacloud_dysmsapi20170525.client import Client
from alibabacloud_dysmsapi20170525.models import SendSmsRequest
from alibabacloud_tea_openapi.utils_models import Config
key_id, key, ca, endpoint, fields = json.loads(os.environ["ARGUMENTS"])
config = Config(access_key_id=key_id, access_key_secret=key, endpoint=endpoint, ca=ca)
body = Client(config).send_sms(SendSmsRequest(**fields)).body
print(json.dumps([body.code, body.biz_id]))
"""
    with HttpPeer(answer("OK"), tls=private.server) as peer, ConnectProxy(peer.port) as proxy:
        provider = load("sms.aliyun", "cn", {**NEEDED, "proxy": proxy.url, "ca_file": private.ca_file})
        accepted = [provider.send(message, Deadline(30)) for _ in range(3)]
        provider.close()
        asked = query(peer.requests[0])
        fields = {
            "phone_numbers": asked["PhoneNumbers"],
            "sign_name": asked["SignName"],
            "template_code": asked["TemplateCode"],
            "template_param": asked["TemplateParam"],
            "out_id": asked["OutId"],
        }
        arguments = json.dumps([KEY_ID, KEY, private.ca_file, host, fields])
        theirs = python(script, ARGUMENTS=arguments, HTTPS_PROXY=proxy.url)

    assert theirs == ["OK", BIZ_ID]
    assert accepted == [Accepted(BIZ_ID, "OK")] * 3
    tunnels = proxy.asked_for
    assert {each.split(":")[0] for each in tunnels} == {host}
    assert len(tunnels) == 2  # ours kept its connection
    mine, reference = peer.requests[0], peer.requests[-1]
    for seen in (mine, reference):
        assert seen.headers["host"] == host
        verify(seen, KEY)
    assert (mine.method, mine.body, query(mine)) == (reference.method, reference.body, query(reference))
    own = {"x-acs-date", "x-acs-signature-nonce", "authorization", "x-acs-credentials-provider"}
    for header in reference.headers.keys() - own - {"accept-encoding", "connection"}:
        assert mine.headers[header] == reference.headers[header], header


# --- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"access_key_id": None}, "access_key_id is missing"),
        ({"access_key_id": "a key"}, "access_key_id is no access key's id"),
        ({"access_key_secret": None}, "access_key_secret is missing"),
        ({"sign_name": None}, "sign_name is missing"),
        ({"templates": None}, "templates is no table with a template for each type"),
        ({"templates": {}}, "templates is no table"),
        ({"templates": {"a.b": "1234"}}, "templates has no code of Aliyun's for 'a.b'"),
        ({"templates": {"a.b": []}}, "templates has no code of Aliyun's for 'a.b'"),
        ({"templates": {"a.b": {"text": "x"}}}, "templates has no code of Aliyun's for 'a.b'"),
        ({"templates": {"a.b": {"code": "SMS_1", "txt": "x"}}}, "templates has a key that is no template's"),
        ({"templates": {"a.b": {"code": "SMS_1", "text": ""}}}, "templates has no text for SMS_1"),
        ({"templates": {"a.b": {"code": "SMS_1", "text": "${a} ${a}"}}}, "templates names a variable twice"),
        ({"templates": {"a.b": {"code": "SMS_1", "text": "${a}${b}"}}}, "templates has nothing between two"),
        ({"max_segments": 0}, "max_segments"),
        ({"url": "http://dysmsapi.aliyuncs.com"}, "url may be http:// for this machine alone"),
        ({"endpoint": "dysmsapi.aliyuncs.com"}, "endpoint is no option of sms.aliyun"),
    ],
)
def test_a_wrong_option_is_named_with_the_remedy(changes: dict[str, Any], named: str, build: Build) -> None:
    with pytest.raises(Misconfigured, match=re.escape(f"cn: {named}")) as caught:
        build(**changes)

    assert KEY not in str(caught.value)


def test_a_signature_may_be_written_with_its_brackets(peer: HttpPeer, build: Build) -> None:
    build(sign_name=f"【{SIGN}】").send(an_sms("Order 1 is on its way."), Deadline(20))

    assert query(peer.requests[0])["SignName"] == SIGN


def test_a_region_is_another_far_end(peer: HttpPeer, build: Build) -> None:
    peer.says(Reply(200, {"Code": "OK", "BizId": "1"}))
    build().send(an_sms("Order 1 is on its way."), Deadline(20))

    (seen,) = peer.requests
    assert seen.headers["host"] == f"127.0.0.1:{peer.port}"
    verify(seen, KEY)
