"""Twilio, SendGrid and Aliyun as the sandbox plays them: our own providers send to them over TLS."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from channels.contract import (
    Accepted,
    AddressInvalid,
    ChannelError,
    Misconfigured,
    OptedOut,
    Provider,
    Refused,
    Throttled,
    Unavailable,
    Uncertain,
    Unroutable,
)
from notify_tasks.sandbox import Sandbox, sandbox_process
from notify_tasks.sandbox.modes import HTTP_MODES
from notify_tasks.sandbox.wires.finding import wires
from notify_tasks.sandbox.wires.wire import Request
from tests.support.door import until
from tests.support.wired import last, message, outcome, provider

USES = {"sms.twilio": "twilio", "sms.aliyun": "aliyun", "email.sendgrid": "sendgrid"}
CODES = {"sms.twilio": "201", "sms.aliyun": "OK", "email.sendgrid": "202"}
STATUSES = {"sms.twilio": "201", "sms.aliyun": "200", "email.sendgrid": "202"}


@pytest.fixture(scope="module")
def far_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_process(tmp_path_factory.mktemp("sandbox"), seed=7) as running:
        yield running


@pytest.fixture
def sandbox(far_end: Sandbox) -> Sandbox:
    far_end.clear_modes()
    return far_end


@pytest.fixture(scope="module")
def providers(far_end: Sandbox) -> Iterator[dict[str, Provider]]:
    built: dict[str, Provider] = {}
    opened = [(use, provider(far_end, use)) for use in USES]
    for use, each in opened:
        built[use] = each.__enter__()
    yield built
    for _, each in opened:
        each.__exit__(None, None, None)


@pytest.mark.parametrize("use", USES)
def test_a_message_is_taken_and_logged_under_the_wires_name(
    sandbox: Sandbox, providers: dict[str, Provider], use: str
) -> None:
    sent = message(use)

    taken = outcome(providers[use], sent)

    assert isinstance(taken, Accepted)
    assert taken.code == CODES[use]
    assert taken.provider_message_id
    seen = last(sandbox)
    assert (seen.protocol, seen.channel, seen.kind, seen.action) == (
        USES[use],
        sent.channel,
        "opaque",
        "send",
    )
    assert (seen.accepted, seen.code, seen.mode, seen.to) == (True, STATUSES[use], "ok", sent.address)
    if use != "sms.twilio":  # which has the delivery in the callback alone
        assert seen.delivery_id == sent.delivery_id
    assert outcome(providers[use], sent) != taken  # it knows no keys: another one, with an id of its own


WRONG = {
    "sms.twilio": {"auth_token": "0" * 32},
    "sms.aliyun": {"access_key_secret": "0" * 30},
    "email.sendgrid": {"api_key": "SG.wrong.key"},
}


@pytest.mark.parametrize(
    ("use", "code", "status"),
    [
        ("sms.twilio", "20003", "401"),
        ("sms.aliyun", "SignatureDoesNotMatch", "400"),
        ("email.sendgrid", "401", "401"),
    ],
)
def test_a_wrong_key_is_seen_and_nothing_is_sent(sandbox: Sandbox, use: str, code: str, status: str) -> None:
    with provider(sandbox, use, **WRONG[use]) as built:
        refused = outcome(built, message(use))

    assert isinstance(refused, Misconfigured)
    assert refused.code == code
    assert (last(sandbox).action, last(sandbox).accepted, last(sandbox).code) == ("invalid", False, status)


ROWS: list[tuple[str, str, type[ChannelError], str]] = [
    ("sms.twilio", "wrong_key", Misconfigured, "20003"),
    ("sms.twilio", "dead_address", AddressInvalid, "21211"),
    ("sms.twilio", "opted_out", OptedOut, "21610"),
    ("sms.twilio", "21408", Unroutable, "21408"),
    ("sms.twilio", "500", Uncertain, "20500"),
    ("sms.twilio", "503", Unavailable, "20503"),
    ("sms.twilio", "redirect", Misconfigured, "307"),
    ("sms.aliyun", "wrong_key", Misconfigured, "InvalidAccessKeyId.NotFound"),
    ("sms.aliyun", "dead_address", AddressInvalid, "isv.MOBILE_NUMBER_ILLEGAL"),
    ("sms.aliyun", "isv.AMOUNT_NOT_ENOUGH", Misconfigured, "isv.AMOUNT_NOT_ENOUGH"),
    ("sms.aliyun", "isv.BUSINESS_LIMIT_CONTROL", Throttled, "isv.BUSINESS_LIMIT_CONTROL"),
    ("sms.aliyun", "isp.SYSTEM_ERROR", Uncertain, "isp.SYSTEM_ERROR"),
    ("sms.aliyun", "500", Uncertain, "InternalError"),
    ("sms.aliyun", "503", Unavailable, "ServiceUnavailable"),
    ("sms.aliyun", "redirect", Misconfigured, "307"),
    ("email.sendgrid", "wrong_key", Misconfigured, "401"),
    ("email.sendgrid", "dead_address", AddressInvalid, "400"),
    ("email.sendgrid", "unverified_sender", Misconfigured, "403"),
    ("email.sendgrid", "no_credits", Misconfigured, "401"),
    ("email.sendgrid", "413", Refused, "413"),
    ("email.sendgrid", "500", Uncertain, "500"),
    ("email.sendgrid", "503", Unavailable, "503"),
    ("email.sendgrid", "redirect", Misconfigured, "307"),
]


@pytest.mark.parametrize(
    ("use", "mode", "error", "code"), ROWS, ids=lambda it: getattr(it, "__name__", str(it))
)
def test_a_no_comes_in_the_providers_own_words(
    sandbox: Sandbox,
    providers: dict[str, Provider],
    use: str,
    mode: str,
    error: type[ChannelError],
    code: str,
) -> None:
    sandbox.set_mode(USES[use], mode, times=1)

    refused = outcome(providers[use], message(use))

    assert type(refused) is error
    assert code in refused.code
    assert (last(sandbox).accepted, last(sandbox).mode) == (False, mode)
    assert isinstance(outcome(providers[use], message(use)), Accepted)  # once, and well again


@pytest.mark.parametrize("use", USES)
def test_a_429_says_when(sandbox: Sandbox, providers: dict[str, Provider], use: str) -> None:
    sandbox.set_mode(USES[use], "429", retry_after=7)

    refused = outcome(providers[use], message(use))

    assert isinstance(refused, Throttled)
    assert refused.retry_after == 7


def test_sendgrid_tells_by_its_own_header_when_its_limit_ends(
    sandbox: Sandbox, providers: dict[str, Provider]
) -> None:
    sandbox.set_mode("sendgrid", "429")

    refused = outcome(providers["email.sendgrid"], message("email.sendgrid"))

    assert isinstance(refused, Throttled)
    assert refused.retry_after is not None
    assert 0 <= refused.retry_after <= 2


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("mode", "effects"), [("accept_then_hang", 1), ("hang_before_accept", 0), ("accept_then_reset", 1)]
)
def test_a_lost_answer_is_uncertain_after_one_request(
    sandbox: Sandbox, providers: dict[str, Provider], use: str, mode: str, effects: int
) -> None:
    sandbox.set_mode(USES[use], mode)
    before = len(sandbox.requests())

    assert isinstance(outcome(providers[use], message(use), 0.3), Uncertain)

    until(lambda: len(sandbox.requests()) > before)
    [seen] = sandbox.requests()[before:]
    assert (seen.mode, seen.code, int(seen.accepted)) == (mode, None, effects)


UNREADABLE = {"sms.twilio": Accepted, "email.sendgrid": Accepted, "sms.aliyun": Uncertain}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("mode", ["garbage_json", "no_id", "truncated", "big_body", "gzip_bomb"])
def test_a_yes_that_cannot_be_read_is_logged_as_taken(
    sandbox: Sandbox, providers: dict[str, Provider], use: str, mode: str
) -> None:
    sandbox.set_mode(USES[use], mode)

    found = outcome(providers[use], message(use))

    # A bounded reader has the id in the header, or gives up: what it makes of it, its own tests say.
    assert isinstance(found, Accepted | Uncertain)
    if mode in {"garbage_json", "no_id"}:
        assert isinstance(found, UNREADABLE[use])
        assert getattr(found, "provider_message_id", None) is None
    assert (last(sandbox).accepted, last(sandbox).mode) == (True, mode)


def _played(sandbox: Sandbox, mode: str) -> bool:
    return last(sandbox).mode == mode


def test_every_mode_of_http_is_played_by_a_wire(sandbox: Sandbox, providers: dict[str, Provider]) -> None:
    played = set()
    wanted = set(HTTP_MODES) - {"ok", "refuse", "bad_certificate"}  # those are of ports
    for mode in sorted(wanted):
        sandbox.set_mode("sendgrid", mode, times=1, delay=0.001)
        outcome(providers["email.sendgrid"], message("email.sendgrid"), 1)
        until(functools.partial(_played, sandbox, mode))
        played.add(last(sandbox).mode)
        assert sandbox.modes()["sendgrid"]["times"] == 0
    assert played == wanted


NUMBERS: list[tuple[str, str, type[Any]]] = [
    ("sms.twilio", "+15005550001", AddressInvalid),
    ("sms.twilio", "+15005550004", OptedOut),
    ("sms.twilio", "+15005550009", AddressInvalid),
    ("sms.twilio", "+15554291234", Throttled),
    ("sms.twilio", "+15554101234", AddressInvalid),
    ("sms.aliyun", "+8615554291234", Throttled),
    ("sms.aliyun", "+8615554101234", AddressInvalid),
    ("email.sendgrid", "throttle@example.com", Throttled),
    ("email.sendgrid", "reject@example.com", Refused),
    ("email.sendgrid", "lost@example.com", Uncertain),
    ("email.sendgrid", "bounce@example.com", Accepted),  # SendGrid takes it, and tells later
]


@pytest.mark.parametrize(("use", "to", "expected"), NUMBERS, ids=lambda it: getattr(it, "__name__", str(it)))
def test_an_address_asks_for_trouble_by_itself(
    sandbox: Sandbox, providers: dict[str, Provider], use: str, to: str, expected: type[Any]
) -> None:
    assert type(outcome(providers[use], message(use, to))) is expected


def test_one_wires_trouble_is_not_anothers(sandbox: Sandbox, providers: dict[str, Provider]) -> None:
    sandbox.set_mode("twilio", "503")
    sandbox.set_mode("sms", "500")

    assert isinstance(outcome(providers["sms.twilio"], message("sms.twilio")), Unavailable)
    assert isinstance(outcome(providers["sms.aliyun"], message("sms.aliyun")), Accepted)


def test_a_closed_port_is_closed_with_tls_too(sandbox: Sandbox) -> None:
    sandbox.set_mode("aliyun", "refuse")
    with provider(sandbox, "email.sendgrid") as built:
        assert isinstance(outcome(built, message("email.sendgrid")), Unavailable)

        sandbox.clear_modes()
        assert isinstance(outcome(built, message("email.sendgrid")), Accepted)


def test_a_wrong_certificate_stops_the_next_request(sandbox: Sandbox) -> None:
    with provider(sandbox, "email.sendgrid") as built:
        assert isinstance(outcome(built, message("email.sendgrid")), Accepted)
        before = len(sandbox.requests())

        sandbox.set_mode("twilio", "bad_certificate")

        assert isinstance(outcome(built, message("email.sendgrid")), Misconfigured)
        assert len(sandbox.requests()) == before
        sandbox.clear_modes()
        assert isinstance(outcome(built, message("email.sendgrid")), Accepted)


def test_a_client_that_does_not_trust_the_sandbox_sends_nothing(sandbox: Sandbox) -> None:
    before = len(sandbox.requests())
    with provider(sandbox, "email.sendgrid", ca_file=None) as built:
        assert isinstance(outcome(built, message("email.sendgrid")), Misconfigured)
    assert len(sandbox.requests()) == before


PATHS = {
    "aliyun": "/?Action=SendSms",
    "dingtalk": "/robot/send?access_token=x",
    "fcm": "/v1/projects/notify-sandbox/messages:send",
    "feishu": "/open-apis/bot/v2/hook/x",
    "sendgrid": "/v3/mail/send",
    "slack": "/services/T/B/x",
    "teams": "/workflows/x/triggers/manual/paths/invoke?sig=x",
    "twilio": "/2010-04-01/Accounts/AC/Messages.json",
    "webhook": "/webhooks/acme",
    "webpush": "/webpush/ann",
    "wecom": "/cgi-bin/webhook/send?key=x",
}


def test_a_request_is_one_wires_alone() -> None:
    assert set(PATHS) == set(wires())
    for name, target in PATHS.items():
        url = urlsplit(target)
        request = Request("POST", url.path, parse_qs(url.query), {}, b"{}", target, "https://127.0.0.1")
        assert [wire.name for wire in wires().values() if wire.takes(request)] == [name]
    own = Request("POST", "/v1/sms/messages", {}, {}, b"{}", "/v1/sms/messages", "http://127.0.0.1")
    assert not any(wire.takes(own) for wire in wires().values())


def test_a_wrong_mode_is_answered_with_the_right_ones(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match=r"mode '21610' is not one of sendgrid's: .*no_credits"):
        sandbox.set_mode("sendgrid", "21610")
    with pytest.raises(ValueError, match=r"there is no target 'twillio'; it may be smtp, .*twilio"):
        sandbox.set_mode("twillio", "ok")
