"""The far end itself: that what it says it did is what it did, whatever happens to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from notify_tasks.sandbox import Sandbox, effects_by_delivery, read_log, sandbox_process, start_sandbox
from notify_tasks.sandbox.modes import Modes, parse_mode


@pytest.fixture(scope="module")
def far_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with sandbox_process(tmp_path_factory.mktemp("sandbox"), seed=7) as running:
        yield running


@pytest.fixture
def sandbox(far_end: Sandbox) -> Sandbox:
    far_end.clear_modes()
    return far_end


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come about in time"
        time.sleep(0.01)


# --- clients that know nothing of our providers -----------------------------------------------------


def ask(
    sandbox: Sandbox, method: str, path: str, body: object = None, timeout: float = 10
) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.ready.http_port, timeout=timeout)
    try:
        connection.request(method, path, body=json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def post(
    sandbox: Sandbox,
    key: str,
    *,
    to: str = "+491701234567",
    kind: str = "idempotent",
    channel: str = "sms",
    timeout: float = 10,
) -> tuple[int, dict[str, object]]:
    body = {"delivery_id": f"d-{key}", "idempotency_key": key, "to": to, "content": {}, "capability": kind}
    return ask(sandbox, "POST", f"/v1/{channel}/messages", body, timeout)


def mail(
    sandbox: Sandbox,
    delivery_id: str,
    *,
    to: str = "ann@example.com",
    password: str | None = None,
    timeout: float = 10,
) -> None:
    context = ssl.create_default_context(cafile=sandbox.ca_file)
    client = smtplib.SMTP("127.0.0.1", sandbox.ready.smtp_port, timeout=timeout, local_hostname="test")
    try:
        client.starttls(context=context)
        client.login(sandbox.ready.smtp_user, password or sandbox.ready.smtp_password)
        text = f"X-Notify-Delivery: {delivery_id}\r\nSubject: Hello\r\n\r\nHello\r\n"
        client.sendmail("shop@example.com", [to], text)
    finally:
        client.close()


# --- the log ----------------------------------------------------------------------------------------


def test_after_a_kill_the_log_has_every_effect_and_a_new_start_knows_them(tmp_path: Path) -> None:
    with sandbox_process(tmp_path) as first, ThreadPoolExecutor(1) as pool:
        trusted = first.ca_file.read_bytes()
        first.set_mode("sms", "slow", delay=60)
        lost = pool.submit(post, first, "key-1")
        until(first.requests)

        first.kill()

        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            lost.result(timeout=10)

    [effect] = read_log(tmp_path / "requests.jsonl")
    assert (effect.accepted, effect.delivery_id, effect.to) == (True, "d-key-1", "+491701234567")

    with sandbox_process(tmp_path) as second:
        assert post(second, "key-1") == (202, {"id": effect.id})
        assert [(each.n, each.accepted, each.duplicate_of_key) for each in second.requests()] == [
            (1, True, False),
            (2, False, True),
        ]
        assert second.ca_file.read_bytes() == trusted
        assert effects_by_delivery(second.requests()) == {"d-key-1": 1}


def test_a_line_is_there_before_its_answer(sandbox: Sandbox) -> None:
    for number in range(50):
        post(sandbox, f"before-{number}")
        assert sandbox.requests()[-1].idempotency_key == f"before-{number}"


def test_a_torn_last_line_is_left_out_and_cut(tmp_path: Path) -> None:
    with sandbox_process(tmp_path) as first:
        post(first, "whole")
    with first.log_path.open("ab") as log:
        log.write(b'{"n":2,"at"')

    assert [each.n for each in read_log(first.log_path)] == [1]
    with sandbox_process(tmp_path) as second:
        post(second, "next")
        assert [each.n for each in second.requests()] == [1, 2]


def test_no_log_is_an_empty_log(tmp_path: Path) -> None:
    assert read_log(tmp_path / "requests.jsonl") == []


def test_the_log_is_for_its_owner_only(sandbox: Sandbox) -> None:
    assert sandbox.log_path.stat().st_mode & 0o077 == 0


def test_even_nonsense_is_logged(sandbox: Sandbox) -> None:
    before = len(sandbox.requests())

    assert ask(sandbox, "POST", "/v1/sms/messages", {"to": 7})[0] == 400
    assert ask(sandbox, "POST", "/v1/pigeon/messages", {})[0] == 404
    assert ask(sandbox, "GET", "/elsewhere")[0] == 404

    assert [(each.action, each.accepted) for each in sandbox.requests()[before:]] == [("invalid", False)] * 3


def test_a_hundred_connections_at_once(sandbox: Sandbox) -> None:
    sandbox.set_mode("push", "slow", delay=0.3)

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda n: post(sandbox, f"crowd-{n}", channel="push"), range(100)))

    assert [status for status, _ in answers] == [202] * 100
    assert len({str(body["id"]) for _, body in answers}) == 100


# --- its life ---------------------------------------------------------------------------------------


def test_it_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    starter = (
        "import sys, time, pathlib; from notify_tasks.sandbox import start_sandbox\n"
        "print(start_sandbox(pathlib.Path(sys.argv[1])).pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", starter, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        sandbox = psutil.Process(int(process.stdout.readline()))
        assert sandbox.is_running()

        process.kill()

    with contextlib.suppress(psutil.NoSuchProcess):
        try:
            until(lambda: sandbox.status() == psutil.STATUS_ZOMBIE)  # where nobody reaps it, that is its end
        finally:
            sandbox.kill()


def test_it_ends_in_an_orderly_way_on_sigterm(tmp_path: Path) -> None:
    with sandbox_process(tmp_path) as sandbox:
        os.kill(sandbox.pid, signal.SIGTERM)
        assert sandbox._process.wait(30) == 0


def test_two_cannot_write_one_log(tmp_path: Path) -> None:
    with (
        sandbox_process(tmp_path),
        pytest.raises(RuntimeError, match=r"another sandbox writes .*--directory"),
        sandbox_process(tmp_path),
    ):
        pass


# --- modes ------------------------------------------------------------------------------------------


def test_a_mode_lasts_as_often_as_it_was_told(sandbox: Sandbox) -> None:
    sandbox.set_mode("sms", "500", times=2)

    assert [post(sandbox, f"times-{n}")[0] for n in range(3)] == [500, 500, 202]


def test_a_mode_is_one_channels_own(sandbox: Sandbox) -> None:
    sandbox.set_mode("sms", "500")

    assert post(sandbox, "own-1")[0] == 500
    assert post(sandbox, "own-2", channel="push")[0] == 202


def test_the_same_seed_draws_the_same_requests() -> None:
    def drawn(seed: int) -> list[str]:
        modes = Modes(seed)
        modes.set("sms", parse_mode("sms", {"mode": "500", "rate": 0.3}))
        return [modes.draw("sms").name for _ in range(400)]

    assert drawn(7) == drawn(7) != drawn(8)
    assert 60 < drawn(7).count("500") < 180


def test_a_refused_port_comes_back_as_the_same_port(sandbox: Sandbox) -> None:
    sandbox.set_mode("smtp", "refuse")
    sandbox.set_mode("chat", "refuse")

    with pytest.raises(ConnectionRefusedError):
        mail(sandbox, "refused")
    with pytest.raises(ConnectionRefusedError):
        post(sandbox, "refused")
    sandbox.clear_modes("smtp")
    mail(sandbox, "back")
    sandbox.clear_modes()
    assert post(sandbox, "back")[0] == 202


def test_modes_can_be_read_and_set_on_the_http_port_too(sandbox: Sandbox) -> None:
    assert ask(sandbox, "PUT", "/control/modes/sms", {"mode": "429", "retry_after": 3})[0] == 200
    assert sandbox.modes()["sms"]["retry_after"] == "3"
    assert ask(sandbox, "DELETE", "/control/modes/sms")[0] == 200
    assert sandbox.modes()["sms"]["name"] == "ok"


@pytest.mark.parametrize(
    ("target", "mode", "values", "named"),
    [
        ("pigeon", "ok", {}, "smtp, email, sms"),
        ("sms", "explode", {}, "drip"),
        ("smtp", "drip", {}, "drop_after_dot"),
        ("sms", "500", {"rate": 2}, "rate"),
        ("sms", "500", {"times": -1}, "times"),
        ("sms", "500", {"colour": "red"}, "colour"),
        ("sms", "500", {"on": "sending"}, "on is neither"),
        ("sms", "big_body", {"on": "find"}, "big_body"),
        ("sms", "refuse", {"rate": 0.5}, "refuse"),
    ],
)
def test_a_wrong_mode_is_refused_with_the_right_ones(
    target: str, mode: str, values: dict[str, float | str], named: str, sandbox: Sandbox
) -> None:
    with pytest.raises(ValueError, match=named):
        sandbox.set_mode(target, mode, **values)


@pytest.mark.parametrize(
    ("channel", "address", "statuses"),
    [
        ("webhook", "https://example.com/hooks/bounce", [410, 410]),
        ("push", "bounce-device-1", [410, 410]),
        ("push", "bouncer", [202, 202]),
        ("email", "reject+7@example.com", [400, 400]),
        ("chat", "flaky", [503, 202]),
        ("sms", "+15554290001", [429, 429]),
        ("sms", "+15552020001", [202, 202]),
    ],
)
def test_an_address_can_carry_its_own_answer(
    channel: str, address: str, statuses: list[int], sandbox: Sandbox
) -> None:
    assert [post(sandbox, f"{address}-{n}", to=address, channel=channel)[0] for n in range(2)] == statuses


# --- SMTP -------------------------------------------------------------------------------------------

SMTP_MISBEHAVIOUR: list[tuple[str, type[Exception], str | None, int]] = [
    # mode, what smtplib says, the code in the log, effects
    ("421", smtplib.SMTPSenderRefused, "421", 0),
    ("450", smtplib.SMTPRecipientsRefused, "450", 0),
    ("550", smtplib.SMTPRecipientsRefused, "550", 0),
    ("554", smtplib.SMTPDataError, "554", 0),
    ("535", smtplib.SMTPAuthenticationError, "535", 0),
    ("drop_before_data", smtplib.SMTPServerDisconnected, None, 0),
    ("drop_after_dot", smtplib.SMTPServerDisconnected, None, 1),
]


def test_a_mail_is_taken_over_starttls_with_a_login(sandbox: Sandbox) -> None:
    mail(sandbox, "mail-1")

    taken = sandbox.requests()[-1]
    assert (taken.protocol, taken.channel, taken.kind) == ("smtp", "email", "opaque")
    assert (taken.delivery_id, taken.to, taken.accepted, taken.code) == (
        "mail-1",
        "ann@example.com",
        True,
        "250",
    )


def test_a_mail_sent_twice_is_two_effects(sandbox: Sandbox) -> None:
    mail(sandbox, "mail-2")
    mail(sandbox, "mail-2")

    assert effects_by_delivery(sandbox.requests())["mail-2"] == 2
    assert sandbox.requests()[-1].duplicate_of_key


@pytest.mark.parametrize(("mode", "raised", "code", "effects"), SMTP_MISBEHAVIOUR)
def test_smtp_misbehaves_as_told_and_logs_it(
    mode: str, raised: type[Exception], code: str | None, effects: int, sandbox: Sandbox
) -> None:
    sandbox.set_mode("smtp", mode)

    with pytest.raises(raised):
        mail(sandbox, f"mail-{mode}")

    last = sandbox.requests()[-1]
    assert (last.protocol, last.code, int(last.accepted), last.mode) == ("smtp", code, effects, mode)
    sandbox.clear_modes()
    mail(sandbox, f"mail-after-{mode}")


def test_a_mail_server_that_falls_silent_after_the_dot_has_taken_the_mail(sandbox: Sandbox) -> None:
    sandbox.set_mode("smtp", "hang_after_dot")

    with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
        mail(sandbox, "mail-hang", timeout=1)

    assert effects_by_delivery(sandbox.requests())["mail-hang"] == 1


def test_a_slow_mail_server_still_takes_the_mail(sandbox: Sandbox) -> None:
    sandbox.set_mode("smtp", "slow", delay=0.2)

    mail(sandbox, "mail-slow")

    assert effects_by_delivery(sandbox.requests())["mail-slow"] == 1


def test_a_bad_certificate_is_one_that_the_ca_file_does_not_know(sandbox: Sandbox) -> None:
    sandbox.set_mode("smtp", "bad_certificate")

    with pytest.raises(ssl.SSLCertVerificationError):
        mail(sandbox, "never")


def test_a_wrong_password_is_refused_and_logged(sandbox: Sandbox) -> None:
    with pytest.raises(smtplib.SMTPAuthenticationError):
        mail(sandbox, "never", password="wrong")

    assert (sandbox.requests()[-1].action, sandbox.requests()[-1].code) == ("auth", "535")


def test_without_starttls_there_is_neither_login_nor_mail(sandbox: Sandbox) -> None:
    with smtplib.SMTP("127.0.0.1", sandbox.ready.smtp_port, timeout=10, local_hostname="test") as client:
        client.ehlo()

        assert not client.has_extn("auth")
        code, text = client.mail("shop@example.com")

    assert (code, b"STARTTLS" in text) == (530, True)


def test_mail_addresses_can_carry_their_own_answer(sandbox: Sandbox) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused, match=r"5\.1\.1"):
        mail(sandbox, "bounced", to="bounce@example.com")
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="450"):
        mail(sandbox, "greylisted", to="flaky@example.com")
    mail(sandbox, "greylisted", to="flaky@example.com")

    assert effects_by_delivery(sandbox.requests())["greylisted"] == 1


# --- the page -----------------------------------------------------------------------------------------


def test_without_the_page_nothing_of_it_is_loaded_or_kept(tmp_path: Path) -> None:
    seen = (
        "import sys, asyncio; from notify_tasks.sandbox.running import run; from notify_tasks.sandbox.server import *;"
        "server = SandboxServer(__import__('pathlib').Path(sys.argv[1]));"
        "print(server.kept, sorted({'starlette', 'uvicorn', 'jinja2', 'psycopg'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", seen, str(tmp_path)], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "None []\n"

    with sandbox_process(tmp_path) as sandbox:
        assert sandbox.ready.page_url is None


def test_a_page_takes_the_port_that_it_is_given_and_another_one_where_it_may(tmp_path: Path) -> None:
    with sandbox_process(tmp_path / "one", page=True, page_port=0) as first:
        port = urlsplit(first.ready.page_url or "").port
        assert port

        # Given a taken port: whoever insists on it is told, and the far end does not start by halves
        with pytest.raises(RuntimeError, match=f"port {port} on 127.0.0.1 cannot be had.*choose another"):
            start_sandbox(tmp_path / "two", page=True, page_port=port)

        # Whoever only wishes for 8025 gets a free one beside another that has it
        with (
            sandbox_process(tmp_path / "three", page=True) as second,
            sandbox_process(tmp_path / "four", page=True) as third,
        ):
            assert len({it.ready.page_url for it in (first, second, third)}) == 3


def test_contents_reach_neither_the_log_nor_the_output(tmp_path: Path) -> None:
    with sandbox_process(tmp_path, page=True, page_port=0) as sandbox:
        connection = http.client.HTTPConnection("127.0.0.1", sandbox.ready.http_port, timeout=10)
        body = {"to": "+447700900101", "capability": "opaque", "content": {"text": "canary-of-contents"}}
        connection.request("POST", "/v1/sms/messages", json.dumps(body))
        assert connection.getresponse().read()
        connection.close()
        page = http.client.HTTPConnection(urlsplit(sandbox.ready.page_url or "").netloc, timeout=10)
        page.request("GET", "/message/sms-1")
        assert b"canary-of-contents" in page.getresponse().read()
        page.close()

    for file in tmp_path.iterdir():
        assert b"canary-of-contents" not in file.read_bytes(), file
