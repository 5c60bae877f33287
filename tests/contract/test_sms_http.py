"""What `sms.http` promises beside the conformance suite: any gateway's request, and nothing that slips into it."""

from __future__ import annotations

import base64
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    ChannelError,
    Deadline,
    Message,
    Misconfigured,
    Provider,
    Refused,
    TextContent,
)
from channels.http import Options
from channels.loader import load
from channels.sms._gateway import Template
from tests.contract.conformance import a_message, dump
from tests.contract.http_peer import HttpPeer, Reply

NUMBER = "+491701234567"
SECRET = "key-{to}-9f8b7c6d"
TEXT = 'Zoë said "{to}" & {{more}}: 日本 +1\n\\'
SMALL: dict[str, Any] = {"path": "/send", "body": {"to": "{to}", "text": "{text}"}}


@pytest.fixture
def peer() -> Iterator[HttpPeer]:
    with HttpPeer(Reply(200, {"id": "m-1"})) as running:
        yield running


Build = Callable[..., Provider]


@pytest.fixture
def build(peer: HttpPeer) -> Iterator[Build]:
    """Build the provider, aimed at the peer; an option of None is left out."""
    built: list[Provider] = []

    def make(**changes: Any) -> Provider:
        options = {"url": peer.url, **SMALL, **changes}
        built.append(load("sms.http", "gw", {k: v for k, v in options.items() if v is not None}))
        return built[-1]

    yield make
    for each in built:
        each.close()


def an_sms(text: str = TEXT) -> Message:
    return a_message("sms", NUMBER, TextContent(text))


# --- the request ------------------------------------------------------------------------------------


def test_a_table_becomes_json_and_what_is_put_in_is_not_looked_at_again(peer: HttpPeer, build: Build) -> None:
    message = an_sms()
    body = {
        "messages": [{"to": ["{to_digits}"], "text": "{text}", "ref": "{id}/{key}"}],
        "auth": {"key": "{token}"},
        "literal": "{{to}}",
        "flash": False,
        "priority": 1,
    }

    accepted = build(body=body, secrets={"token": SECRET}, id="id").send(message, Deadline(10))

    (seen,) = peer.requests
    assert accepted == Accepted("m-1", "200")
    assert (seen.method, seen.target) == ("POST", "/send")
    assert seen.headers["content-type"] == "application/json"
    assert json.loads(seen.body) == {
        "messages": [
            {
                "to": [NUMBER[1:]],
                "text": TEXT,
                "ref": f"{message.delivery_id}/{message.idempotency_key}",
            }
        ],
        "auth": {"key": SECRET},
        "literal": "{to}",
        "flash": False,
        "priority": 1,
    }


def test_a_table_becomes_a_form(peer: HttpPeer, build: Build) -> None:
    body = {"to": "{to}", "text": "{text}", "unicode": True, "ttl": 600}

    build(body=body, format="form", method="PUT").send(an_sms(), Deadline(10))

    (seen,) = peer.requests
    assert seen.method == "PUT"
    assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
    fields = parse_qs(seen.body.decode("ascii"), strict_parsing=True)
    assert fields == {"to": [NUMBER], "text": [TEXT], "unicode": ["true"], "ttl": ["600"]}


def test_a_gateway_without_a_body_gets_all_in_the_path(peer: HttpPeer, build: Build) -> None:
    path = "/api/{token}/sms?to={to}&text={text}&v=1"

    build(path=path, body=None, method="GET", secrets={"token": "a/b?c"}).send(an_sms(), Deadline(10))

    (seen,) = peer.requests
    parts = urlsplit(seen.target)
    assert (seen.method, seen.body, parts.path) == ("GET", b"", "/api/a%2Fb%3Fc/sms")
    assert parse_qsl(parts.query, strict_parsing=True) == [("to", NUMBER), ("text", TEXT), ("v", "1")]


def test_headers_carry_secrets_and_ids(peer: HttpPeer, build: Build) -> None:
    message = an_sms()
    headers = {"Authorization": "Bearer {token}", "Idempotency-Key": "{key}", "X-Version": "2"}

    provider = build(headers=headers, secrets={"token": SECRET}, idempotent=True)
    provider.send(message, Deadline(10))

    (seen,) = peer.requests
    assert provider.capability is Capability.IDEMPOTENT
    assert seen.headers["authorization"] == f"Bearer {SECRET}"
    assert seen.headers["idempotency-key"] == message.idempotency_key
    assert seen.headers["x-version"] == "2"


def test_http_has_a_login_of_its_own(peer: HttpPeer, build: Build) -> None:
    build(basic_auth="shop:s3cret:x").send(an_sms(), Deadline(10))

    kind, _, value = peer.requests[0].headers["authorization"].partition(" ")
    assert (kind, base64.b64decode(value)) == ("Basic", b"shop:s3cret:x")


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("{}to "), max_size=8), st.text(st.sampled_from("{}to "), max_size=8))
def test_a_value_cannot_open_a_place(before: str, value: str) -> None:
    escaped = before.replace("{", "{{").replace("}", "}}")
    template = Template(Options("sms.http", "gw", {}, ()), "body", f"{escaped}{{to}}", frozenset({"to"}))

    assert template.fill({"to": value}) == before + value


@pytest.mark.parametrize("address", ["", "491701234567", "+49 170", "+491701234567&x=1"])
def test_what_is_no_number_is_not_sent(address: str, peer: HttpPeer, build: Build) -> None:
    with pytest.raises(AddressInvalid):
        build().send(replace(an_sms(), address=address), Deadline(10))

    assert peer.connections == 0


# --- the answer -------------------------------------------------------------------------------------


def test_where_nothing_is_said_of_answers_the_status_is_enough(peer: HttpPeer, build: Build) -> None:
    peer.says(Reply(202, "OK 4711"), Reply(202, {"id": "m-1"}), Reply(422))
    provider = build()

    assert provider.send(an_sms(), Deadline(10)) == Accepted(None, "202")
    assert provider.send(an_sms(), Deadline(10)) == Accepted(None, "202")
    with pytest.raises(Refused, match=r"^422: "):
        provider.send(an_sms(), Deadline(10))


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ([{"id": 17}], "17"),
        ([{"id": "x" * 201}], None),
        ([{"id": "a b"}], None),
        ([{"id": {"a": 1}}], None),
        ([], None),
        ({"0": {"id": "by name"}}, None),
        ({"0": {"id": "named"}}, "named"),
    ],
)
def test_an_id_is_looked_for_at_its_path(
    body: object, found: str | None, peer: HttpPeer, build: Build
) -> None:
    peer.says(Reply(200, body))

    accepted = build(id="0.id").send(an_sms(), Deadline(10))

    assert accepted == Accepted(found, "200" if found else "200 unreadable")


def test_a_secret_in_a_header_is_told_by_nothing(
    peer: HttpPeer, build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider = build(
        headers={"Authorization": "Bearer 9f8b7c6d-direct", "X-Key": "{token}"}, secrets={"token": SECRET}
    )
    peer.says(Reply(400, {"error": f"{SECRET} {NUMBER}"}))

    with pytest.raises(ChannelError) as caught:
        provider.send(an_sms(), Deadline(10))

    told = [dump(provider), caplog.text, *traceback.format_exception(caught.value), repr(caught.value)]
    assert not any(secret in each for secret in ("9f8b7c6d", NUMBER[1:]) for each in told)


# --- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"url": None}, "url is missing"),
        ({"url": "https://gateway.example/v2"}, "url is not the address of a server"),
        ({"path": None}, "path is missing"),
        ({"path": "send"}, "path is no path of a request"),
        ({"path": "/send it"}, "path is no path of a request"),
        ({"path": "/{who}"}, "path has a place that is none of {id}, {key}, {text}, {to}, {to_digits}"),
        ({"method": "DELETE"}, "method is none of its words; write one of POST, PUT, GET"),
        ({"method": "GET"}, "body does not go with GET"),
        ({"body": None}, "body and path lack the number or the text"),
        ({"body": {"to": "{to}"}}, "body and path lack the number or the text"),
        ({"body": {"to": "+1555", "text": "{text}"}}, "body and path lack the number or the text"),
        ({"body": "{text}"}, "body is no table"),
        ({"body": {"to": "{to}", "text": "{text"}}, "body has a place that is none of"),
        ({"body": {"to": "{to}", "text": "{text}", "at": b"x"}}, "body has a value that is no text"),
        ({"format": "xml"}, "format is none of its words"),
        ({"format": "form", "body": {"to": ["{to}"], "text": "{text}"}}, "body has a table or a list inside"),
        ({"headers": {"Host": "x"}}, "headers has a name that is none, or that is set for it"),
        ({"headers": {"Content-Type": "x"}}, "headers has a name"),
        ({"headers": {"A b": "x"}}, "headers has a name"),
        ({"headers": {"A": "x\r\nB: y"}}, "headers has characters that no header carries in A"),
        ({"headers": {"A": "{text}"}}, "headers has a place that is none of"),
        ({"headers": {"A": 1}}, "headers is no table of texts"),
        ({"headers": {"authorization": "x"}, "basic_auth": "a:b"}, "basic_auth is one login too many"),
        ({"secrets": {"token": SECRET}}, "secrets has token, which is used nowhere"),
        ({"secrets": {"to": SECRET}}, "secrets has a name that no place can have"),
        ({"secrets": {"token": SECRET + "\n"}}, "secrets has no text of printable ASCII for token"),
        ({"secrets": [SECRET]}, "secrets is no table"),
        ({"idempotent": True}, "idempotent needs the place {key}"),
        ({"success": [404]}, "success is no list of statuses of a yes"),
        ({"code": "status"}, "success_codes is missing beside code"),
        ({"success_codes": ["0"]}, "code is missing"),
        ({"errors": {"1": "refused"}}, "code is missing"),
        ({"code": "a b", "success_codes": ["0"]}, "code is no path into an answer"),
        ({"code": "c", "success_codes": ["0"], "errors": {"1": "bad"}}, "errors is no table of codes"),
        ({"code": "c", "success_codes": ["0"], "errors": {"0": "refused"}}, "errors has 0, which is one of"),
        ({"statuses": {"200": "refused"}}, "statuses has a key that is no status of a no"),
        ({"id": ""}, "id is no text, or empty"),
        ({"max_text": 0}, "max_text"),
        ({"max_segments": 0}, "max_segments"),
        ({"template": "x"}, "template is no option of sms.http"),
    ],
)
def test_a_wrong_option_is_named_with_the_remedy(changes: dict[str, Any], named: str, build: Build) -> None:
    with pytest.raises(Misconfigured, match=re.escape(f"gw: {named}")) as caught:
        build(**changes)

    assert "9f8b7c6d" not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
