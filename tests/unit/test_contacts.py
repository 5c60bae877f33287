"""Contact points: what is taken, in which form it is stored, and what is refused with which reason."""

from __future__ import annotations

import traceback
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from notify_tasks import contacts
from notify_tasks.calls import build_notification
from notify_tasks.contacts import vet
from notify_tasks.errors import InvalidCall
from notify_tasks.notification import Notification, RecipientRef

SUBSCRIPTION = {"endpoint": "https://push.example/x", "keys": {"auth": "a", "p256dh": "p"}, "more": 1}


def call(*to: RecipientRef) -> Notification:
    made = build_notification(
        "test.ping", to="ann", payload={"n": 1}, channels=["sms"], now=datetime.now(UTC)
    )
    return replace(made, to=to)


# --- taken --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "given", "stored"),
    [
        ("email", "ann@example.com", "ann@example.com"),
        ("email", "Ann@EXAMPLE.Com", "Ann@example.com"),  # only the domain is the same in any case
        ("email", "ann@shop.test", "ann@shop.test"),
        ("email", "ann@bücher.example", "ann@bücher.example"),
        ("email", "ann@xn--bcher-kva.example", "ann@bücher.example"),
        ("email", "ann@BÜCHER.example", "ann@bücher.example"),
        ("email", "jürgen@example.com", "jürgen@example.com"),
        ("sms", "+4915112345678", "+4915112345678"),
        ("sms", "+49 (151) 1234-5678", "+4915112345678"),
        ("sms", "+49015112345678", "+4915112345678"),  # people write the trunk's zero, too
        ("sms", "+12025550123", "+12025550123"),  # a country that does not tell mobile from fixed
        ("sms", "+447700900101", "+447700900101"),  # reserved for drama
        ("sms", "+15554290001", "+15554290001"),  # what the sandbox plays
        ("push", "device-1", "device-1"),
        ("webhook", "https://example.com/hooks", "https://example.com/hooks"),
        ("webpush", SUBSCRIPTION, '{"endpoint":"https://push.example/x","keys":{"auth":"a","p256dh":"p"}}'),
        ("chat", "#warehouse", "#warehouse"),
    ],
)
def test_an_address_is_stored_in_its_usual_form(channel: str, given: object, stored: str) -> None:
    assert contacts.contact_point(channel, given, "it") == stored
    assert contacts.contact_point(channel, stored, "it") == stored  # and is so already the next time


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("de", "de"),
        ("zh-hans-cn", "zh-Hans-CN"),
        ("PT-br", "pt-BR"),
        ("zh-Hans-US", "zh-Hans-US"),
        ("es-419", "es-419"),
        ("ca-ES-valencia", "ca-ES-valencia"),
    ],
)
def test_a_locale_is_stored_in_its_usual_case(given: str, stored: str) -> None:
    assert contacts.locale(given, "locale") == stored


def test_a_time_zone_is_taken_by_its_name() -> None:
    for zone in ("Europe/Berlin", "America/Argentina/Buenos_Aires", "UTC"):
        assert contacts.timezone(zone, "timezone") == zone


# --- refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "given", "problem", "remedy"),
    [
        ("email", "canary", "not an e-mail address", "ann@example.com"),
        ("email", "canary @example.com", "not an e-mail address", "ann@example.com"),
        ("email", "canary@exa mple.com", "not an e-mail address", "ann@example.com"),
        ("email", "canary..x@example.com", "not an e-mail address", "ann@example.com"),
        ("email", "canary@-example.com", "not an e-mail address", "ann@example.com"),
        ("email", "Canary <canary@example.com>", "not an e-mail address", "ann@example.com"),
        ("email", '"canary x"@example.com', "not an e-mail address", "ann@example.com"),
        ("email", "canary@[127.0.0.1]", "not an e-mail address", "ann@example.com"),
        ("email", "canary@example.com\r\nBcc: x@example.com", "not an e-mail address", "ann@example.com"),
        ("email", "canary\ud800@example.com", "not an e-mail address", "ann@example.com"),
        ("email", "canary@" + "x." * 200 + "com", "not an e-mail address", "ann@example.com"),
        ("email", "canary@mail.localhost", "reserved", "that gets mail"),
        ("email", "canary@shop.invalid", "reserved", "that gets mail"),
        ("email", "canary@example", "not a full one", "to its end"),
        ("email", 7, "int is not a text", "Write a text"),
        ("sms", "0151 12345678", "E.164", "+4915112345678"),
        ("sms", "+canary", "E.164", "+4915112345678"),
        ("sms", "+1 800 CANARY9", "E.164", "+4915112345678"),
        ("sms", "+9991234567890", "no country has its country code", "+4915112345678"),
        ("sms", "+491511234", "the country of +49 has no such number", "digit by digit"),
        ("sms", "+44123", "E.164", "+4915112345678"),
        ("sms", "+493012345678", "a fixed line, which gets no SMS", "a mobile number"),
        ("sms", "+442079460123", "a fixed line, which gets no SMS", "a mobile number"),
        ("sms", "+499001234567", "a premium-rate service, which gets no SMS", "a mobile number"),
        ("push", "can ary", "no spaces", "as the device gave it"),
        ("webhook", "ftp://canary.example", "not an https URL", "https://example.com"),
        ("webpush", {"endpoint": "http://canary.example"}, "they are missing", "toJSON"),
        ("chat", "", "out of range", "characters"),
    ],
)
def test_what_nothing_can_be_sent_to_is_refused_with_reason_and_remedy(
    channel: str, given: object, problem: str, remedy: str
) -> None:
    with pytest.raises(InvalidCall) as refused:
        contacts.contact_point(channel, given, "to.it")

    error = refused.value
    assert error.field.startswith("to.it")
    assert problem in error.problem
    assert remedy in error.remedy
    # What an error tracker shows of it has no address.
    assert error.__suppress_context__ or error.__context__ is None
    shown = "".join(traceback.format_exception(error)) + repr(error)
    shown = shown.replace(__file__, "")
    assert "canary" not in shown.lower()
    assert "12345678" not in shown.replace("+4915112345678", "")


@pytest.mark.parametrize(
    ("check", "given", "problem"),
    [
        (contacts.locale, "xx", "no such language"),
        (contacts.locale, "en-XX", "no such language"),
        (contacts.locale, "zh-Xxxx", "no such language"),
        (contacts.locale, "de_DE", "not a language tag"),
        (contacts.timezone, "Europe/Berlinn", "no such time zone"),
        (contacts.timezone, "europe/berlin", "no such time zone"),
        (contacts.timezone, "localtime", "no such time zone"),
        (contacts.timezone, "../../etc/passwd", "not the name of a time zone"),
    ],
)
def test_an_unknown_locale_or_zone_is_refused(check: object, given: str, problem: str) -> None:
    with pytest.raises(InvalidCall, match=problem):
        check(given, "it")  # type: ignore[operator]


# --- the recipients of a call -------------------------------------------------------------------------


def test_a_call_that_is_in_order_is_left_as_it_is() -> None:
    notification = call(RecipientRef("ann"), RecipientRef(None, {"sms": "+4915112345678"}, locale="de"))
    vetted = vet(notification)
    assert vetted.notification is notification
    assert (vetted.refused, vetted.ignored, vetted.explained()) == ({}, (), {})


def test_addresses_of_a_call_get_their_stored_form() -> None:
    vetted = vet(call(RecipientRef("ann", {"email": "a@EXAMPLE.com", "sms": "+49 151 12345678"}, "DE")))
    assert vetted.notification.to == (
        RecipientRef("ann", {"email": "a@example.com", "sms": "+4915112345678"}, "de"),
    )


def test_a_bad_address_refuses_its_recipient_alone() -> None:
    bad = RecipientRef("eve", {"email": "eve@example.com", "sms": "+493012345678"})
    vetted = vet(call(RecipientRef("ann"), bad, RecipientRef(None, {"email": "bob@example.com"})))

    assert list(vetted.refused) == [1]
    assert vetted.refused[1].field == "to[1].sms"
    assert [ref.addresses for ref in vetted.notification.to] == [{}, {}, {"email": "bob@example.com"}]


def test_an_unknown_locale_or_zone_of_a_call_is_left_out_and_stops_nobody() -> None:
    vetted = vet(call(RecipientRef(None, {"email": "a@example.com"}, "tlh", "Mars/Base")))
    assert vetted.refused == {}
    assert vetted.notification.to == (RecipientRef(None, {"email": "a@example.com"}),)
    assert vetted.explained() == {"ignored": [{"to": 0, "field": "locale"}, {"to": 0, "field": "timezone"}]}


def test_a_channel_that_does_not_exist_is_refused_without_its_name() -> None:
    vetted = vet(call(RecipientRef(None, {"canary@example.com": "x"})))
    assert "canary" not in str(vetted.refused[0])
