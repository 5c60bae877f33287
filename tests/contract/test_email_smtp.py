"""What `email.smtp` promises, against a scripted relay and a real one."""

from __future__ import annotations

import email
import email.policy
import logging
import re
import socket
import ssl
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.contract import (
    AddressInvalid,
    Capability,
    ChannelError,
    Deadline,
    EmailContent,
    Message,
    Misconfigured,
    Provider,
    Refused,
    TextContent,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from channels.email import _smtp_pool
from channels.email._mime import Letterhead, mailbox
from channels.email._smtp_pool import Phase
from channels.email.smtp import TABLE, SmtpProvider, build, classify
from channels.loader import load
from tests.contract.smtp_peers import DROP, HANG, Drip, Script, ScriptedRelay, real_relay

ADDRESS = "bob.secret@example.com"
BODY = "one-time code 493817"
SENDER = "Shop <shop@example.com>"
LOGIN = "fleet:p%C3%A4%40ss%3Aw%C3%B6rd@"  # fleet, pä@ss:wörd


def mail(**changes: Any) -> Message:
    given: dict[str, Any] = {
        "delivery_id": "01J8ZQ5V7M-d1",
        "idempotency_key": "key-1",
        "channel": "email",
        "event_type": "order.shipped",
        "address": ADDRESS,
        "content": EmailContent(subject="Your order", text=BODY, html=f"<p>{BODY}</p>"),
    }
    return Message(**{**given, **changes})


def content(subject: str = "Your order", text: str = BODY, html: str | None = None) -> EmailContent:
    return EmailContent(subject=subject, text=text, html=html)


Factory = Callable[..., SmtpProvider]


@pytest.fixture
def provider() -> Iterator[Factory]:
    """Builds providers for a port of this machine, without TLS unless told otherwise."""
    built = []

    def make(port: int, scheme: str = "smtp+plain", login: str = "", **options: Any) -> SmtpProvider:
        options = {"url": f"{scheme}://{login}127.0.0.1:{port}", "sender": SENDER, **options}
        built.append(build("smtp-main", options))
        return built[-1]

    yield make
    for each in built:
        each.close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("smtp-ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_tls(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def parsed(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def body_of(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    assert part is not None
    text = part.get_content()
    assert isinstance(text, str)
    return text.replace("\r\n", "\n")


# --- the good path, with a real server --------------------------------------------------------------


def test_a_mail_goes_through_starttls_with_auth_and_reads_as_it_was_written(
    provider: Factory, authority: trustme.CA, ca_file: str
) -> None:
    text = "Grüße, Zoë!\n\n.\n..two dots\n.dot first\nlast line without end"
    html = "<p>日本語, naïve &amp; «quoted»</p>\n" * 40
    subject = "Ihre Bestellung 日本語: Größe 42 ist unterwegs, und der Betreff ist länger als eine Zeile"
    with real_relay(server_tls(authority), login=True) as relay:
        sender = '"Größe, GmbH" <shop@bücher.example>'
        smtp = provider(
            relay.port, "smtp", LOGIN, ca_file=ca_file, sender=sender, reply_to="Help <help@example.com>"
        )

        accepted = smtp.send(mail(content=content(subject, text, html)), Deadline(5))

    (taken,) = relay.taken
    assert relay.logins == [(b"fleet", "pä@ss:wörd".encode())]
    assert (accepted.code, accepted.provider_message_id) == ("250 2.0.0", "4F3B2C1D")
    assert (taken.sender, taken.recipients) == ("shop@xn--bcher-kva.example", [ADDRESS])
    got = parsed(taken.content)
    assert got["Subject"] == subject
    assert got["From"].addresses[0].display_name == "Größe, GmbH"
    assert (got["To"], got["Reply-To"]) == (ADDRESS, "Help <help@example.com>")
    assert got["Message-ID"] == "<01J8ZQ5V7M-d1@xn--bcher-kva.example>"
    assert got["X-Notify-Delivery"] == "01J8ZQ5V7M-d1"
    assert got["Auto-Submitted"] == "auto-generated"
    assert abs(got["Date"].datetime.timestamp() - time.time()) < 60
    assert got.get_content_type() == "multipart/alternative"
    assert body_of(got, "plain") == text
    assert body_of(got, "html") == html


def test_a_mail_goes_through_implicit_tls_with_auth(
    provider: Factory, authority: trustme.CA, ca_file: str
) -> None:
    with real_relay(server_tls(authority), implicit=True, login=True) as relay:
        provider(relay.port, "smtps", LOGIN, ca_file=ca_file).send(mail(), Deadline(5))
    assert len(relay.taken) == 1
    assert relay.logins == [(b"fleet", "pä@ss:wörd".encode())]


def test_the_provider_is_found_by_name_and_opens_no_connection_until_it_sends() -> None:
    with ScriptedRelay() as relay:
        options = {"url": f"smtp+plain://127.0.0.1:{relay.port}", "sender": SENDER}
        loaded = load("email.smtp", "smtp-main", options)
        assert isinstance(loaded, Provider)
        assert loaded.capability is Capability.OPAQUE
        assert relay.conversations == []


def test_auth_login_serves_where_plain_is_not_offered(provider: Factory) -> None:
    login = {"AUTH": "334 VXNlcm5hbWU6", "ZMXLZXQ=": "334 UGFzc3dvcmQ6", "CHC=": "235 2.7.0 ok"}
    with ScriptedRelay(login, offers=["AUTH LOGIN"]) as relay:
        provider(relay.port, login="fleet:pw@").send(mail(), Deadline(5))
        assert relay.conversations[0].commands[1:4] == ["AUTH LOGIN", "ZmxlZXQ=", "cHc="]
        assert len(relay.mails) == 1


def test_ehlo_names_this_machine_without_asking_dns(
    provider: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stall(*_: object) -> str:
        raise AssertionError("asked DNS for a name")

    monkeypatch.setattr(socket, "getfqdn", stall)
    monkeypatch.setattr(socket, "gethostbyname", stall)
    monkeypatch.setattr(socket, "gethostname", lambda: "3f2a9c")
    with ScriptedRelay() as relay:
        provider(relay.port).send(mail(), Deadline(5))
        provider(relay.port, local_hostname="fleet.example.com").send(mail(), Deadline(5))
        assert [each.commands[0] for each in relay.conversations] == [
            "ehlo [127.0.0.1]",
            "ehlo fleet.example.com",
        ]


# --- which answer is which error --------------------------------------------------------------------

SAYS = f"<{ADDRESS}>: {BODY}"  # relays quote addresses, and some quote the message

ROWS: list[tuple[Script, type[ChannelError], str]] = [
    # banner and EHLO
    ({"connect": f"421 4.3.2 closing {SAYS}"}, Unavailable, "421 4.3.2"),
    ({"connect": f"421 4.7.0 too many connections {SAYS}"}, Throttled, "421 4.7.0"),
    ({"connect": f"554 5.7.1 go away {SAYS}"}, Misconfigured, "554 5.7.1"),
    ({"connect": DROP}, Unavailable, "dropped"),
    ({"connect": "HTTP/1.1 400 Bad Request"}, Unavailable, "protocol"),
    ({"connect": b"220-" + b"x" * 70_000}, Unavailable, "overlong"),
    ({"connect": b"220-x\r\n" * 12_000}, Unavailable, "overlong"),
    ({"EHLO": DROP}, Unavailable, "dropped"),
    ({"EHLO": f"421 4.3.0 {SAYS}"}, Unavailable, "421"),
    ({"EHLO": f"502 what is EHLO {SAYS}"}, Misconfigured, "502"),
    # AUTH
    ({"AUTH": f"535 5.7.8 bad credentials {SAYS}"}, Misconfigured, "535 5.7.8"),
    ({"AUTH": f"534 5.7.9 too weak {SAYS}"}, Misconfigured, "534 5.7.9"),
    ({"AUTH": f"530 5.7.0 STARTTLS first {SAYS}"}, Misconfigured, "530 5.7.0"),
    ({"AUTH": f"538 5.7.11 {SAYS}"}, Misconfigured, "538 5.7.11"),
    ({"AUTH": f"454 4.7.0 temporary authentication failure {SAYS}"}, Unavailable, "454 4.7.0"),
    ({"AUTH": f"421 4.3.0 {SAYS}"}, Unavailable, "421 4.3.0"),
    ({"AUTH": DROP}, Unavailable, "dropped"),
    # MAIL
    ({"MAIL": DROP}, TryLater, "dropped"),
    ({"MAIL": f"421 4.7.0 slow down {SAYS}"}, Throttled, "421 4.7.0"),
    ({"MAIL": f"421 4.3.2 shutting down {SAYS}"}, TryLater, "421 4.3.2"),
    ({"MAIL": f"450 4.7.1 rate limit for {SAYS}"}, Throttled, "450 4.7.1"),
    ({"MAIL": f"451 4.3.0 {SAYS}"}, TryLater, "451 4.3.0"),
    ({"MAIL": f"550 5.7.1 {SAYS}"}, Misconfigured, "550 5.7.1"),
    ({"MAIL": f"550 5.1.8 {SAYS}"}, Misconfigured, "550 5.1.8"),
    ({"MAIL": f"553 not your address {SAYS}"}, Misconfigured, "553"),
    ({"MAIL": f"530 5.7.0 authenticate {SAYS}"}, Misconfigured, "530 5.7.0"),
    ({"MAIL": f"552 5.3.4 too big {SAYS}"}, Refused, "552 5.3.4"),
    ({"MAIL": f"552 too big {SAYS}"}, Refused, "552"),
    # RCPT, to be tried again
    ({"RCPT": DROP}, TryLater, "dropped"),
    ({"RCPT": f"421 4.7.0 {SAYS}"}, Throttled, "421 4.7.0"),
    ({"RCPT": f"450 4.7.1 too many messages {SAYS}"}, Throttled, "450 4.7.1"),
    ({"RCPT": f"451 4.7.28 unusual rate of mail {SAYS}"}, Throttled, "451 4.7.28"),
    ({"RCPT": f"452 4.2.2 over quota {SAYS}"}, TryLater, "452 4.2.2"),
    ({"RCPT": f"452 4.5.3 too many recipients {SAYS}"}, TryLater, "452 4.5.3"),
    ({"RCPT": f"450 4.1.2 no DNS just now {SAYS}"}, TryLater, "450 4.1.2"),
    # RCPT, the address is at fault
    *(
        ({"RCPT": f"{code} {enhanced} {SAYS}"}, AddressInvalid, f"{code} {enhanced}")
        for code, enhanced in [
            (550, "5.1.1"),
            (550, "5.1.2"),
            (553, "5.1.3"),
            (551, "5.1.6"),
            (550, "5.1.10"),
            (550, "5.2.1"),
            (550, "5.4.4"),
        ]
    ),
    ({"RCPT": f"550-5.1.1 The account\r\n550 5.1.1 does not exist {SAYS}"}, AddressInvalid, "550 5.1.1"),
    ({"RCPT": f"550 #5.1.1 no mailbox {SAYS}"}, AddressInvalid, "550 5.1.1"),
    ({"RCPT": f"550 No such user here {SAYS}"}, AddressInvalid, "550"),
    ({"RCPT": f"550 User unknown {SAYS}"}, AddressInvalid, "550"),
    ({"RCPT": f"550 {SAYS} does not exist"}, AddressInvalid, "550"),
    # RCPT, the message is at fault
    ({"RCPT": f"550 no {SAYS}"}, Refused, "550"),
    ({"RCPT": "550 <no-such.user.unknown@example.com> is refused"}, Refused, "550"),
    ({"RCPT": f"552 5.2.2 mailbox full {SAYS}"}, Refused, "552 5.2.2"),
    ({"RCPT": f"552 mailbox full {SAYS}"}, Refused, "552"),
    ({"RCPT": f"550 5.7.1 looks like spam {SAYS}"}, Refused, "550 5.7.1"),
    ({"RCPT": f"550 5.7.26 fails DMARC {SAYS}"}, Refused, "550 5.7.26"),
    ({"RCPT": f"554 5.7.1 listed at a block list {SAYS}"}, Refused, "554 5.7.1"),
    ({"RCPT": "554 5.7.1 <relay.not.allowed@example.com>: spam"}, Refused, "554 5.7.1"),
    ({"RCPT": f"550 5.4.1 Recipient address rejected: access denied {SAYS}"}, Refused, "550 5.4.1"),
    # RCPT, we are at fault
    ({"RCPT": f"550 5.4.1 {SAYS}"}, Misconfigured, "550 5.4.1"),
    ({"RCPT": f"554 5.7.1 {SAYS}: Relay access denied"}, Misconfigured, "554 5.7.1"),
    ({"RCPT": f"550 5.7.1 Unable to relay {SAYS}"}, Misconfigured, "550 5.7.1"),
    ({"RCPT": f"550 relaying denied {SAYS}"}, Misconfigured, "550"),
    ({"RCPT": f"553 5.7.1 {SAYS}: Sender address rejected: not owned"}, Misconfigured, "553 5.7.1"),
    ({"RCPT": f"550 5.1.8 {SAYS}: no such sender domain"}, Misconfigured, "550 5.1.8"),
    ({"RCPT": f"530 5.7.0 authenticate {SAYS}"}, Misconfigured, "530 5.7.0"),
    ({"RCPT": f"503 5.5.1 need MAIL first {SAYS}"}, TryLater, "503 5.5.1"),
    # DATA, before the message
    ({"DATA": DROP}, TryLater, "dropped"),
    ({"DATA": f"421 4.7.0 {SAYS}"}, Throttled, "421 4.7.0"),
    ({"DATA": f"451 4.3.0 {SAYS}"}, TryLater, "451 4.3.0"),
    ({"DATA": f"554 5.7.1 policy {SAYS}"}, Refused, "554 5.7.1"),
    ({"DATA": f"250 odd {SAYS}"}, TryLater, "250"),
    ({"DATA": f"{SAYS}"}, TryLater, "protocol"),
    # after the final dot
    ({"message": f"421 4.7.0 {SAYS}"}, TryLater, "421 4.7.0"),
    ({"message": f"451 4.3.0 {SAYS}"}, TryLater, "451 4.3.0"),
    ({"message": f"452 4.3.1 {SAYS}"}, TryLater, "452 4.3.1"),
    ({"message": f"554 5.7.1 spam {SAYS}"}, Refused, "554 5.7.1"),
    ({"message": f"552 5.3.4 {SAYS}"}, Refused, "552 5.3.4"),
    ({"message": f"550 5.6.0 {SAYS}"}, Refused, "550 5.6.0"),
    ({"message": f"550 5.1.1 {SAYS}"}, Refused, "550 5.1.1"),
    ({"message": DROP}, Uncertain, "dropped"),
    ({"message": b"250"}, Uncertain, "deadline"),
    ({"message": b"250-" + b"x" * 70_000}, Uncertain, "overlong"),
    ({"message": f"garbage {SAYS}"}, Uncertain, "protocol"),
    ({"message": f"354 what {SAYS}"}, Uncertain, "354"),
]


@pytest.mark.parametrize(
    ("script", "error", "code"), ROWS, ids=[f"{next(iter(s))}-{c}-{e.__name__}" for s, e, c in ROWS]
)
def test_each_answer_is_the_error_that_says_what_to_do_next(
    provider: Factory,
    caplog: pytest.LogCaptureFixture,
    script: Script,
    error: type[ChannelError],
    code: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    with ScriptedRelay(script, offers=["AUTH PLAIN", "SIZE"]) as relay:
        smtp = provider(relay.port, login="fleet:hunter22@")
        with pytest.raises(ChannelError) as caught:
            smtp.send(mail(), Deadline(0.3 if code == "deadline" else 5))

        assert type(caught.value) is error
        assert caught.value.code == code
        assert caught.value.detail
        assert len(relay.conversations) == 1, "a fresh connection is not tried again inside one attempt"
        assert relay.verbs.count("DATA") == (1 if "message" in script or "DATA" in script else 0)
        assert len(relay.mails) == (1 if "message" in script else 0)
    assert_private(caught.value, caplog.text)


def assert_private(error: ChannelError, logged: str = "") -> None:
    """Neither what the message holds, nor what the relay quoted of it, nor a credential."""
    chain = "".join(traceback.format_exception_only(error))
    shown = f"{error!s} {error!r} {error.args} {chain} {logged}"
    secrets = (ADDRESS, "bob.secret", BODY, "493817", "hunter22", "fleet", "ZmxlZXQ", "AGZsZWV0")
    assert [each for each in secrets if each in shown] == []
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        ("450 4.2.0 Greylisted", 300),
        ("451 4.7.1 Greylisting in action", 300),
        ("450 4.2.0 come back", 300),
        ("451 4.7.1 come back", 300),
        ("451 4.3.5 grey-listed", 300),
        ("450 4.1.2 come back", None),
    ],
)
def test_a_greylisting_relay_is_given_five_minutes(
    provider: Factory, reply: str, seconds: float | None
) -> None:
    with ScriptedRelay({"RCPT": reply}) as relay, pytest.raises(TryLater) as caught:
        provider(relay.port).send(mail(), Deadline(5))
    assert caught.value.retry_after == seconds


def test_a_refused_connection_and_an_unknown_host_are_unavailable(provider: Factory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unavailable) as refused:
        provider(port).send(mail(), Deadline(5))
    assert refused.value.code == "connect"
    with pytest.raises(Unavailable) as unknown:
        provider(0, url="smtp://relay.invalid").send(mail(), Deadline(30))
    assert unknown.value.code == "resolve"


def test_a_relay_that_takes_no_mail_in_time_is_unavailable(provider: Factory) -> None:
    with ScriptedRelay({"connect": HANG}) as relay, pytest.raises(Unavailable) as caught:
        provider(relay.port).send(mail(), Deadline(0.2))
    assert caught.value.code == "deadline"


@given(
    phase=st.sampled_from(Phase),
    code=st.just(0) | st.integers(200, 599) | st.sampled_from(["dropped", "deadline", "overlong"]),
    enhanced=st.none() | st.from_regex(r"[245]\.\d{1,3}\.\d{1,3}", fullmatch=True),
    text=st.text(),
)
def test_every_answer_has_a_row(phase: Phase, code: int | str, enhanced: str | None, text: str) -> None:
    error = classify(phase, code, enhanced, text)
    # Only what was sent can be in doubt, and it is, unless the relay said no.
    if isinstance(error, Uncertain):
        assert phase is Phase.BODY
    if phase is Phase.BODY and not (isinstance(code, int) and 400 <= code <= 599):
        assert isinstance(error, Uncertain)


def test_no_row_of_the_table_is_hidden_by_an_earlier_one() -> None:
    # Each row is the answer to something: seen by walking the scripts above and the words of failures.
    words = "resolve connect dropped deadline overlong busy starttls certificate tls injected mechanism"
    met = {
        classify(phase, word).detail for phase in Phase for word in [*words.split(), "plaintext", "smtputf8"]
    }
    for script, _, _ in ROWS:
        step, reply = next(iter(script.items()))
        phase = {"connect": Phase.CONNECT, "EHLO": Phase.HELLO, "message": Phase.BODY}.get(step)
        if isinstance(reply, str):
            match = re.match(r"(\d{3})[ -]#?([245]\.\d+\.\d+)?", reply)
            code, enhanced = (int(match[1]), match[2]) if match else (0, None)
            met.add(classify(phase or Phase(step), code, enhanced, reply[4:]).detail)
    met.add(classify(Phase.RCPT, 451, "4.7.1", "come back").detail)
    met.add(classify(Phase.BODY, 451, "4.7.1", "greylisted").detail)
    details = {re.sub(r" \(at .*\)$", "", each) for each in met}
    assert [rule.detail for rule in TABLE if rule.detail not in details] == []


# --- lost answers, time, and the one free reconnect -------------------------------------------------


def test_a_lost_answer_after_the_dot_is_in_doubt_and_the_message_went_out_once(provider: Factory) -> None:
    with ScriptedRelay({"message": ["250 ok", DROP]}, {}) as relay:
        smtp = provider(relay.port)
        smtp.send(mail(delivery_id="d-1"), Deadline(5))

        # The connection is a pooled one: yet this drop must not be taken for a stale connection.
        with pytest.raises(Uncertain):
            smtp.send(mail(delivery_id="d-2"), Deadline(5))

        assert relay.verbs.count("DATA") == 2
        assert [parsed(each)["X-Notify-Delivery"] for each in relay.mails] == ["d-1", "d-2"]
        assert len(relay.conversations) == 1


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
def test_a_stale_pooled_connection_costs_one_free_reconnect(provider: Factory, step: str) -> None:
    good = {"MAIL": "250 ok", "RCPT": "250 ok", "DATA": "354 go"}
    with ScriptedRelay({step: [good[step], DROP]}, {}) as relay:
        smtp = provider(relay.port)
        smtp.send(mail(delivery_id="d-1"), Deadline(5))

        smtp.send(mail(delivery_id="d-2"), Deadline(5))

        assert [parsed(each)["X-Notify-Delivery"] for each in relay.mails] == ["d-1", "d-2"]
        assert len(relay.conversations) == 2


def test_a_goodbye_that_waited_on_a_pooled_connection_costs_one_free_reconnect(provider: Factory) -> None:
    with ScriptedRelay({"MAIL": ["250 ok", "421 4.4.2 idle for too long"]}, {}) as relay:
        smtp = provider(relay.port)
        smtp.send(mail(), Deadline(5))
        smtp.send(mail(), Deadline(5))
        assert len(relay.mails) == 2


def test_the_free_reconnect_is_one(provider: Factory) -> None:
    with ScriptedRelay({"MAIL": ["250 ok", DROP]}, {"MAIL": DROP}) as relay:
        smtp = provider(relay.port)
        smtp.send(mail(), Deadline(5))
        with pytest.raises(TryLater):
            smtp.send(mail(), Deadline(5))
        assert len(relay.conversations) == 2


def test_a_deadline_already_past_reaches_nobody(provider: Factory) -> None:
    with ScriptedRelay() as relay:
        with pytest.raises(TryLater) as caught:
            provider(relay.port).send(mail(), Deadline(0))
        assert caught.value.code == "deadline"
        assert relay.conversations == []


def test_a_process_stopped_past_its_deadline_at_data_sends_no_message(provider: Factory) -> None:
    deadline = Deadline(30)

    def wake_up_late() -> str:
        deadline._ends = time.monotonic() - 10
        return "354 go ahead"

    with ScriptedRelay({"DATA": wake_up_late}) as relay:
        with pytest.raises(TryLater) as caught:
            provider(relay.port).send(mail(), deadline)
        assert caught.value.code == "deadline"
        relay.until(lambda: relay.conversations[0].ended)
        assert (relay.mails, relay.conversations[0].loose) == ([], b"")


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ({"connect": Drip("220 relay.test ESMTP", 0.05)}, Unavailable),
        ({"EHLO": Drip("250 relay.test", 0.05)}, Unavailable),
        ({"MAIL": Drip("250 2.1.0 sender ok", 0.05)}, TryLater),
        ({"DATA": Drip("354 start mail input", 0.05)}, TryLater),
        ({"message": Drip("250 2.0.0 Ok: queued", 0.05)}, Uncertain),
        ({"message": HANG}, Uncertain),
        ({"body": HANG}, TryLater),  # a large one: its final dot was never handed over
    ],
)
def test_a_dribbling_or_silent_relay_is_left_at_the_deadline(
    provider: Factory, script: Script, error: type[ChannelError]
) -> None:
    large = mail(content=content(text="x" * 8_000_000)) if "body" in script else mail()
    with ScriptedRelay(script) as relay:
        with pytest.raises(error) as caught:
            provider(relay.port).send(large, Deadline(0.4 if "body" not in script else 1.5))
        assert caught.value.code == "deadline"
        assert relay.mails == ([] if "message" not in script else relay.mails[:1])


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ({"connect": Drip("220 " + "x" * 600, 0.05)}, Unavailable),
        ({"MAIL": Drip("250 " + "x" * 600, 0.05)}, TryLater),
        ({"message": Drip("250 " + "x" * 600, 0.05)}, Uncertain),
        ({"handshake": HANG}, Unavailable),
    ],
)
def test_a_watchdog_can_cut_a_call_that_a_dribbling_relay_keeps_alive(
    provider: Factory, authority: trustme.CA, ca_file: str, script: Script, error: type[ChannelError]
) -> None:
    deadline = Deadline(60)
    tls = server_tls(authority) if "handshake" in script else None
    with ScriptedRelay(script, tls=tls, implicit=True) as relay, ThreadPoolExecutor(1) as threads:
        smtp = provider(relay.port, "smtps" if tls else "smtp+plain", ca_file=ca_file)
        sending = threads.submit(smtp.send, mail(), deadline)
        # when the relay is in the middle of its answer, or the handshake has begun
        relay.until(lambda: bool(relay.conversations and relay.conversations[0].drips > 2) or tls is not None)
        ends = time.monotonic() + 5
        while deadline._cut is None and time.monotonic() < ends:
            time.sleep(0.005)
        assert deadline.cut()
        with pytest.raises(error) as caught:
            sending.result(20)
        assert caught.value.code == "deadline"


def test_a_cut_while_the_connection_turns_to_tls_is_heard(
    provider: Factory, authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline = Deadline(10)
    wrap = ssl.SSLContext.wrap_socket

    def wrap_and_cut(*args: Any, **kwargs: Any) -> ssl.SSLSocket:
        tls = wrap(*args, **kwargs)
        assert deadline.cut()  # finds the socket that has just been emptied
        return tls

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrap_and_cut)
    with ScriptedRelay({"handshake": HANG}, tls=server_tls(authority), implicit=True) as relay:
        with pytest.raises(Unavailable) as caught:
            provider(relay.port, "smtps", ca_file=ca_file).send(mail(), deadline)
        assert (caught.value.code, deadline.overdue() < 0) == ("deadline", True)


# --- the pool ---------------------------------------------------------------------------------------


def test_many_threads_share_no_more_connections_than_the_pool_has(provider: Factory) -> None:
    with ScriptedRelay() as relay:
        smtp = provider(relay.port, connections=3)
        with ThreadPoolExecutor(8) as threads:
            ids = [f"d-{n}" for n in range(60)]
            list(threads.map(lambda each: smtp.send(mail(delivery_id=each), Deadline(20)), ids))
        assert relay.most_at_once <= 3
        assert len(relay.conversations) <= 3
        assert sorted(parsed(each)["X-Notify-Delivery"] for each in relay.mails) == sorted(ids)
        assert all(each.verbs().count("RCPT") == len(each.mails) for each in relay.conversations)


def test_a_pool_in_use_up_to_the_deadline_says_so(provider: Factory) -> None:
    with ScriptedRelay({"message": HANG}) as relay, ThreadPoolExecutor(1) as threads:
        smtp = provider(relay.port, connections=1)
        held = Deadline(30)
        holding = threads.submit(smtp.send, mail(), held)
        relay.until(lambda: bool(relay.mails))

        with pytest.raises(TryLater) as caught:
            smtp.send(mail(), Deadline(0.1))

        assert caught.value.code == "busy"
        assert "connections" in caught.value.detail
        assert held.cut()
        with pytest.raises(Uncertain):
            holding.result(30)


def test_the_connection_used_last_is_used_next(provider: Factory) -> None:
    both = threading.Barrier(2)

    def meet() -> str:
        both.wait(30)
        return "250 ok"

    # given two idle connections
    with ScriptedRelay({"RCPT": [meet, "250 ok"]}) as relay, ThreadPoolExecutor(2) as threads:
        smtp = provider(relay.port)
        list(threads.map(lambda _: smtp.send(mail(), Deadline(5)), range(2)))
        # when five more mails follow one by one
        for _ in range(5):
            smtp.send(mail(), Deadline(5))
        # then one connection took them all
        assert sorted(len(each.mails) for each in relay.conversations) == [1, 6]


def test_a_connection_ends_after_its_share_of_messages(provider: Factory) -> None:
    with ScriptedRelay() as relay:
        smtp = provider(relay.port, connection_messages=2)
        for _ in range(5):
            smtp.send(mail(), Deadline(5))
        assert [len(each.mails) for each in relay.conversations] == [2, 2, 1]
        relay.until(lambda: relay.conversations[1].ended)
        assert relay.conversations[1].verbs()[-1] == "QUIT"


def test_a_connection_ends_at_its_age(provider: Factory) -> None:
    with ScriptedRelay() as relay:
        smtp = provider(relay.port, connection_seconds=60)
        smtp.send(mail(), Deadline(5))
        smtp._pool._idle[0].opened_at -= 61
        smtp.send(mail(), Deadline(5))
        assert [len(each.mails) for each in relay.conversations] == [1, 1]


def test_an_idle_connection_is_closed_without_any_traffic(
    provider: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _smtp_pool.IDLE_SECONDS < 30
    monkeypatch.setattr(_smtp_pool, "IDLE_SECONDS", 0.2)
    with ScriptedRelay() as relay:
        provider(relay.port).send(mail(), Deadline(5))
        relay.until(lambda: relay.conversations[0].ended)
        assert relay.conversations[0].verbs()[-1] == "QUIT"


def test_a_connection_of_another_process_is_left_alone(provider: Factory) -> None:
    with ScriptedRelay() as relay:
        smtp = provider(relay.port)
        smtp.send(mail(), Deadline(5))
        smtp._pool._idle[0].pid -= 1  # as a child sees it after a fork
        smtp.send(mail(), Deadline(5))
        assert [len(each.mails) for each in relay.conversations] == [1, 1]
        relay.until(lambda: relay.conversations[0].ended)
        assert "QUIT" not in relay.conversations[0].verbs()


def test_after_close_the_provider_can_be_used_again(provider: Factory) -> None:
    with ScriptedRelay() as relay:
        smtp = provider(relay.port)
        smtp.send(mail(), Deadline(5))
        smtp.close()
        relay.until(lambda: relay.conversations[0].ended)
        smtp.send(mail(), Deadline(5))
        assert len(relay.mails) == 2


def test_a_connection_is_kept_after_a_refused_recipient_and_dropped_after_any_other_failure(
    provider: Factory,
) -> None:
    scripts: list[Script] = [
        {"RCPT": ["550 5.1.1 no", "250 ok", "450 4.2.1 no", "250 ok"], "message": ["250 ok", "451 4.3.0 no"]},
        {"message": ["554 5.7.1 no", "250 ok"]},
        {},
    ]
    with ScriptedRelay(*scripts) as relay:
        smtp = provider(relay.port)
        outcomes: list[type] = []
        for _ in range(6):
            try:
                outcomes.append(type(smtp.send(mail(), Deadline(5))))
            except ChannelError as error:
                outcomes.append(type(error))
        assert [each.__name__ for each in outcomes] == [
            "AddressInvalid",
            "Accepted",
            "TryLater",
            "TryLater",
            "Refused",
            "Accepted",
        ]
        assert relay.conversations[0].verbs() == (
            [
                "EHLO",
                "MAIL",
                "RCPT",
                "RSET",
                "MAIL",
                "RCPT",
                "DATA",
                "MAIL",
                "RCPT",
                "RSET",
                "MAIL",
                "RCPT",
                "DATA",
            ]
        )
        assert [len(each.mails) for each in relay.conversations] == [2, 1, 1]


# --- TLS and AUTH: never in the clear ---------------------------------------------------------------


def expect_misconfigured(smtp: SmtpProvider, code: str) -> Misconfigured:
    with pytest.raises(Misconfigured) as caught:
        smtp.send(mail(), Deadline(5))
    assert caught.value.code == code
    assert_private(caught.value)
    return caught.value


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_an_untrusted_certificate_stops_everything(
    provider: Factory, authority: trustme.CA, scheme: str
) -> None:
    with ScriptedRelay(offers=["STARTTLS"], tls=server_tls(authority), implicit=scheme == "smtps") as relay:
        expect_misconfigured(provider(relay.port, scheme, LOGIN), "certificate")
        assert set(relay.verbs) <= {"EHLO", "STARTTLS"}


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_certificate_for_another_host_stops_everything(
    provider: Factory, authority: trustme.CA, ca_file: str, scheme: str
) -> None:
    tls = server_tls(authority, "relay.example.com")
    with ScriptedRelay(offers=["STARTTLS"], tls=tls, implicit=scheme == "smtps") as relay:
        expect_misconfigured(provider(relay.port, scheme, LOGIN, ca_file=ca_file), "certificate")
        assert set(relay.verbs) <= {"EHLO", "STARTTLS"}


@pytest.mark.parametrize(
    ("script", "offers", "error", "code"),
    [
        ({}, ["AUTH PLAIN"], Misconfigured, "starttls"),
        ({"STARTTLS": "502 5.5.1 no"}, ["STARTTLS", "AUTH PLAIN"], Misconfigured, "502 5.5.1"),
        ({"STARTTLS": "454 4.7.0 not now"}, ["STARTTLS", "AUTH PLAIN"], Unavailable, "454 4.7.0"),
        ({"STARTTLS": DROP}, ["STARTTLS", "AUTH PLAIN"], Unavailable, "dropped"),
        ({"handshake": DROP}, ["STARTTLS", "AUTH PLAIN"], Unavailable, "dropped"),
        (
            {"STARTTLS": b"220 go\r\n250-relay.test\r\n250 AUTH PLAIN\r\n"},
            ["STARTTLS"],
            Misconfigured,
            "injected",
        ),
    ],
)
def test_without_starttls_nothing_is_said_in_the_clear(
    provider: Factory,
    authority: trustme.CA,
    ca_file: str,
    script: Script,
    offers: Sequence[str],
    error: type[ChannelError],
    code: str,
) -> None:
    with ScriptedRelay(script, offers=offers, tls=server_tls(authority)) as relay:
        with pytest.raises(ChannelError) as caught:
            provider(relay.port, "smtp", LOGIN, ca_file=ca_file).send(mail(), Deadline(5))
        assert (type(caught.value), caught.value.code) == (error, code)
        assert set(relay.verbs) <= {"EHLO", "STARTTLS"}


def test_only_ehlo_and_starttls_are_ever_in_the_clear(
    provider: Factory, authority: trustme.CA, ca_file: str
) -> None:
    with ScriptedRelay(offers=["STARTTLS", "AUTH PLAIN"], tls=server_tls(authority)) as relay:
        provider(relay.port, "smtp", LOGIN, ca_file=ca_file).send(mail(), Deadline(5))
        (conversation,) = relay.conversations
        assert [each.split()[0].upper() for each in conversation.in_clear] == ["EHLO", "STARTTLS"]
        assert conversation.verbs() == ["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL", "RCPT", "DATA"]


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_relay_below_tls_1_2_is_refused(
    provider: Factory, authority: trustme.CA, ca_file: str, scheme: str
) -> None:
    old = server_tls(authority)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old on purpose
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with ScriptedRelay(offers=["STARTTLS"], tls=old, implicit=scheme == "smtps") as relay:
        expect_misconfigured(provider(relay.port, scheme, LOGIN, ca_file=ca_file), "tls")
        assert set(relay.verbs) <= {"EHLO", "STARTTLS"}


def test_tls_on_a_port_without_it_is_misconfigured(provider: Factory, ca_file: str) -> None:
    with ScriptedRelay() as relay:
        expect_misconfigured(provider(relay.port, "smtps", ca_file=ca_file), "tls")


def test_wrong_credentials_are_tried_once(provider: Factory) -> None:
    with ScriptedRelay({"AUTH": "535 5.7.8 no"}, offers=["AUTH LOGIN PLAIN CRAM-MD5"]) as relay:
        expect_misconfigured(provider(relay.port, login="fleet:hunter22@"), "535 5.7.8")
        assert relay.verbs == ["EHLO", "AUTH"]


def test_a_relay_without_a_known_auth_mechanism_is_misconfigured(provider: Factory) -> None:
    with ScriptedRelay(offers=["AUTH GSSAPI"]) as relay:
        expect_misconfigured(provider(relay.port, login="fleet:hunter22@"), "mechanism")
        assert relay.verbs == ["EHLO"]


def test_plaintext_is_for_addresses_of_this_machine_alone(
    provider: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a "localhost" that leads elsewhere
    elsewhere = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 25))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: elsewhere)
    expect_misconfigured(provider(0, url="smtp+plain://localhost"), "plaintext")


# --- the message ------------------------------------------------------------------------------------


def test_message_id_is_the_same_at_every_attempt(provider: Factory) -> None:
    with ScriptedRelay({"message": ["451 4.3.0 no"]}, {}) as relay:
        smtp = provider(relay.port, message_id_domain="mail.example.org")
        with pytest.raises(TryLater):
            smtp.send(mail(), Deadline(5))
        smtp.send(mail(attempt=2), Deadline(5))
        assert [parsed(each)["Message-ID"] for each in relay.mails] == [
            "<01J8ZQ5V7M-d1@mail.example.org>"
        ] * 2


@pytest.mark.parametrize(
    "text",
    [
        "x" * 5_000,
        "ü" * 5_000,
        ".\n..\n...\n.x\n",
        "a\n.\n",
        "trailing blanks \t \n end \t",
        "tabs\tand = signs =3D =\n",
        "\n\n\n",
        "",
        "bell \x07, null \x00, escape \x1b",
        "From the first word\n--=_boundary\n",
        "🎉" * 300,
    ],
)
def test_a_body_reads_as_it_was_written(provider: Factory, text: str) -> None:
    with real_relay() as relay:
        provider(relay.port).send(mail(content=content(text=text, html=f"<pre>{text}</pre>")), Deadline(5))
        provider(relay.port).send(mail(content=content(text=text)), Deadline(5))
    for taken in relay.taken:
        got = parsed(taken.content)
        assert (
            body_of(got, "plain").removesuffix("\n" if got.get_content_type() == "text/plain" else "") == text
        )
        assert_well_formed(taken.content)
    assert body_of(parsed(relay.taken[0].content), "html") == f"<pre>{text}</pre>"


def assert_well_formed(raw: bytes) -> None:
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", raw), "a bare CR or LF"
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998


def test_a_relay_that_limits_size_is_told_the_size_before_the_message(provider: Factory) -> None:
    with ScriptedRelay(offers=["SIZE 1000"]) as relay:
        provider(relay.port).send(mail(), Deadline(5))
        told = relay.conversations[0].commands[1]
        assert told == f"MAIL FROM:<shop@example.com> SIZE={len(relay.mails[0])}"


def test_a_dot_at_the_start_of_a_line_is_stuffed_and_no_line_is_long(provider: Factory) -> None:
    with ScriptedRelay() as relay:
        text = "\n".join("." * n for n in range(200)) + "\n" + "word " * 1000
        provider(relay.port).send(mail(content=content(text=text)), Deadline(5))
        assert len(relay.mails) == 1
        assert body_of(parsed(relay.mails[0]), "plain") == text + "\n"
        assert_well_formed(relay.mails[0])


LETTERHEAD = Letterhead("Shop <shop@example.com>", None, "example.com")
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)


@settings(max_examples=200, deadline=None)
@given(
    subject=st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=300),
    text=unicode_text,
    html=st.none() | unicode_text,
)
def test_any_unicode_survives_the_way(subject: str, text: str, html: str | None) -> None:
    given_mail = mail()
    raw = LETTERHEAD.compose(given_mail, content(subject, text, html), mailbox(ADDRESS))
    got = email.message_from_bytes(raw)  # the plain parser: headers stay as they are on the wire
    words = email.header.make_header(email.header.decode_header(str(got["Subject"])))
    assert str(words) == subject.strip()
    wanted = text.replace("\r\n", "\n").replace("\r", "\n")
    got_text = body_of(parsed(raw), "plain")
    assert got_text == wanted if html is not None else got_text.rstrip("\n") == wanted.rstrip("\n")
    assert_well_formed(raw)


INJECTIONS = [
    "x\r\nBcc: evil@example.net",
    "x\nBcc: evil@example.net",
    "x\rBcc: evil@example.net",
    "x\n",
    "x\r\n\r\nbody",
    "x\x00y",
    "x\x0bBcc: evil@example.net",
    "x\x0cy",
    "x\x85Bcc: evil@example.net",
    "x\u2028Bcc: evil@example.net",
    "x\u2029y",
    "x\x1cy",
    "x\x7fy",
    "half \ud83d of a pair",
]


@pytest.mark.parametrize("subject", INJECTIONS)
def test_a_subject_with_a_line_break_is_refused(provider: Factory, subject: str) -> None:
    with ScriptedRelay() as relay:
        with pytest.raises(Refused) as caught:
            provider(relay.port).send(mail(content=content(subject=subject)), Deadline(5))
        assert caught.value.code == "header"
        assert_private(caught.value)
        assert relay.conversations == []


SMUGGLED = "MAIL FROM:<evil@example.net>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\n\r\nhi\r\n.\r\n"
ENDS = ["\r\n.\r\n", "\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n\x00.\r\n"]


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("=?utf-8?q?x=0D=0ABcc:_evil@example.net?=", "x"),
        ("=?utf-8?b?eA0KQmNjOiBldmlsQGV4YW1wbGUubmV0?= tail", "x"),
        ("a =?utf-8?q?x=0ABcc:_evil@example.net?=", "x"),
        ("Re: =?x?=", "x"),
        ("Bcc: evil@example.net", "Bcc: evil@example.net\n\nx"),
        *(("x", f"x{end}{SMUGGLED}") for end in ENDS),
    ],
)
def test_whatever_the_content_holds_it_is_one_message_to_one_recipient(
    provider: Factory, subject: str, text: str
) -> None:
    with real_relay() as relay:
        provider(relay.port).send(mail(content=content(subject, text, f"<p>{text}</p>")), Deadline(5))
    (taken,) = relay.taken
    assert taken.recipients == [ADDRESS]
    got = email.message_from_bytes(taken.content)
    assert got.keys() == [
        "From", "To", "Subject", "Date", "Message-ID", "X-Notify-Delivery", "Auto-Submitted", "MIME-Version",
        "Content-Type",
    ]  # fmt: skip
    assert str(email.header.make_header(email.header.decode_header(str(got["Subject"])))) == subject
    assert not re.search(rb"^bcc:", taken.content, re.IGNORECASE | re.MULTILINE) or text.startswith("Bcc")


@pytest.mark.parametrize("delivery_id", ["", "a b", "a>\r\nBcc: evil@example.net", "a\n", "<a>", "a@b", "ü"])
def test_a_delivery_id_that_cannot_stand_in_a_header_is_refused(provider: Factory, delivery_id: str) -> None:
    with ScriptedRelay() as relay, pytest.raises(Refused):
        provider(relay.port).send(mail(delivery_id=delivery_id), Deadline(5))
    assert relay.conversations == []


def test_a_body_with_half_a_character_and_a_content_of_another_channel_are_refused(
    provider: Factory,
) -> None:
    for wrong in [content(text="\ud83d"), content(html="\udc80"), TextContent(BODY)]:
        with pytest.raises(Refused) as caught:
            provider(1).send(mail(content=wrong), Deadline(5))
        assert caught.value.code == "content"
        assert_private(caught.value)


# --- addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "envelope"),
    [
        ("bob@example.com", "bob@example.com"),
        ("o'brien+tag/x=y@mail.example.co.uk", "o'brien+tag/x=y@mail.example.co.uk"),
        ('"a..b."@example.com', '"a..b."@example.com'),
        ("bob@bücher.example", "bob@xn--bcher-kva.example"),
        ("bob@straße.example", "bob@xn--strae-oqa.example"),  # not strasse.example: another owner
        ("bob@例え.テスト", "bob@xn--r8jz45g.xn--zckzah"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
    ],
)
def test_a_right_address_is_the_one_recipient(provider: Factory, address: str, envelope: str) -> None:
    with ScriptedRelay() as relay:
        provider(relay.port).send(mail(address=address), Deadline(5))
        commands = relay.conversations[0].commands
        assert [each for each in commands if each.startswith("RCPT")] == [f"RCPT TO:<{envelope}>"]
        assert f"\r\nTo: {envelope}\r\n".encode() in relay.mails[0]


@pytest.mark.parametrize(
    "address",
    [
        "", "bob", "@example.com", "bob@", "bob@@example.com", "a@b@example.com", "bob@example.com ",
        " bob@example.com", "bob @example.com", "bob@example.com\n", "bob\r\n@example.com",
        "bob@example.com\r\nRCPT TO:<evil@example.net>", "bob@example.com> SIZE=1",
        "bob@example.com SIZE=1", "bob@example.com,eve@example.com", "bob@example.com;eve@example.com",
        "bob@example.com, eve@example.com", "Bob <bob@example.com>", "<bob@example.com>",
        "bob(comment)@example.com", '"a b"@example.com', '"a> SIZE=1"@example.com', '"a\\"b"@example.com',
        "a..b@example.com", ".a@example.com", "a.@example.com", "bob@-example.com", "bob@example-.com",
        "bob@exa_mple.com", "bob@example..com", "bob@.example.com", "bob@example.com.", "bob@[192.0.2.1]",
        "bob@" + "a" * 64 + ".com", "b" * 65 + "@example.com", "bob@" + "a.b" * 85 + ".com",
        "bob\x00@example.com", "bob\u2028@example.com", "bo\u202eb@example.com", "bob\u00a0x@example.com",
        "bob@exam\u0000ple.com", "bob@ex ample.com", "bob@\ud800.com", "\ud800@example.com",
    ],
)  # fmt: skip
def test_anything_but_one_address_is_invalid_and_reaches_nobody(provider: Factory, address: str) -> None:
    with ScriptedRelay() as relay:
        with pytest.raises(AddressInvalid) as caught:
            provider(relay.port).send(mail(address=address), Deadline(5))
        assert caught.value.code == "syntax"
        assert address not in str(caught.value) or not address
        assert_private(caught.value)
        assert relay.conversations == []


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"[^@]{0,8}@[^@]{0,20}", fullmatch=True))
def test_no_address_that_passes_can_carry_a_second_command(address: str) -> None:
    try:
        checked = mailbox(address)
    except AddressInvalid:
        return
    assert not re.search(r"[\s<>,;:()\x00-\x1f\x7f]", checked.address)
    assert checked.address.count("@") == 1
    assert checked.domain.isascii()


def test_a_local_part_beyond_ascii_needs_smtputf8(provider: Factory) -> None:
    address = "zoë@example.com"
    with real_relay() as relay:
        provider(relay.port).send(mail(address=address), Deadline(5))
    (taken,) = relay.taken
    assert (taken.recipients, taken.smtputf8) == ([address], True)
    assert f"To: {address}\r\n".encode() in taken.content

    with ScriptedRelay() as bare:
        smtp = provider(bare.port)
        with pytest.raises(AddressInvalid) as caught:
            smtp.send(mail(address=address), Deadline(5))
        assert caught.value.code == "smtputf8"
        smtp.send(mail(), Deadline(5))
        assert len(bare.conversations) == 1, "the connection is still good"
        assert bare.verbs.count("MAIL") == 1


# --- options ----------------------------------------------------------------------------------------

RIGHT: dict[str, Any] = {"url": "smtp://fleet:hunter22@relay.example.com", "sender": SENDER}


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ("url", None), ("url", ""), ("url", 25), ("url", "relay.example.com:587"),
        ("url", "http://fleet:hunter22@relay.example.com"), ("url", "smtp://fleet:hunter22@"),
        ("url", "smtp://fleet:hunter22@relay.example.com:99999"), ("url", "smtp://fleet:hunter22@relay.example.com:x"),
        ("url", "smtp://fleet:hunter22@relay.example.com/x"), ("url", "smtp://fleet:hunter22#@relay.example.com"),
        ("url", "smtp://fleet@relay.example.com"), ("url", "smtp://fleet:hunter22@relay_.example.com"),
        ("url", "smtp://fleet:hunter22@[::1"), ("url", "smtp+plain://relay.example.com"),
        ("url", "smtp+plain://192.0.2.1"), ("url", "smtp+plain://[::ffff:192.0.2.1]"),
        ("sender", None), ("sender", ""), ("sender", "Shop"), ("sender", "a@example.com, b@example.com"),
        ("sender", "Shop <shop@example.com>\r\nBcc: evil@example.net"), ("sender", "zoë@example.com"),
        ("reply_to", "nobody"), ("reply_to", ["a@example.com"]),
        ("ca_file", "/nowhere/ca.pem"), ("ca_file", __file__),
        ("connections", 0), ("connections", "10"), ("connections", True), ("connections", 1.5),
        ("connection_messages", -1), ("connection_seconds", 0), ("connection_seconds", float("nan")),
        ("local_hostname", "a b"), ("local_hostname", "x\r\nMAIL"), ("message_id_domain", "a b"),
        ("timout", 10),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named_with_its_remedy(option: str, changed: object) -> None:
    options = {**RIGHT, option: changed}
    if changed is None:
        del options[option]
    with pytest.raises(Misconfigured) as caught:
        build("smtp-main", options)
    assert caught.value.detail.startswith(f"smtp-main: {option} ")
    assert_private(caught.value)


def test_right_options_build_and_show_no_secret(ca_file: str) -> None:
    options = {
        **RIGHT,
        "reply_to": '"Help, Desk" <help@example.com>',
        "ca_file": ca_file,
        "connections": 4,
        "connection_messages": 20,
        "connection_seconds": 30.5,
        "local_hostname": "[192.0.2.1]",
        "message_id_domain": "mail.example.com",
    }
    for url in ["smtp://relay.example.com", "smtps://fleet:hunter22@[2001:db8::1]:465", "smtp+plain://[::1]:2525",
                "smtp+plain://localhost", RIGHT["url"]]:  # fmt: skip
        smtp = build("smtp-main", {**options, "url": url})
        shown = f"{smtp!r} {smtp} {smtp._settings!r} {smtp._settings.relay!r}"
        assert "hunter22" not in shown
        assert "fleet" not in shown
