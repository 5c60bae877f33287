"""The second line of defence: what a log line never shows, whoever wrote it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from notify_tasks import log_context, logs, settings
from notify_tasks.log_privacy import REMOVED, mask


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no mailbox for Zoë.Ray+x@mail.shop.example here", "no mailbox for ***@*** here"),
        ("to +49 (151) 123-45678 failed", "to +*** failed"),
        ("to +4915112345678: 410", "to +***: 410"),
        ("number 4915112345678 is unknown", "number *** is unknown"),
        ("redis://user:hunter2@10.0.0.1:6379/0", "redis://***@10.0.0.1:6379/0"),
        (
            "POST https://hooks.slack.example/services/T0/B0/x8Fz?t=1 failed",
            "POST https://hooks.slack.example/*** failed",
        ),
        ("Authorization: Bearer eyJhbGciOi.J9", "Authorization: ***"),
        ("sent Bearer eyJhbGciOiJ9 along", "sent Bearer *** along"),
        ("api_key='SG.abc' password=hunter2 x=1", "api_key=*** password=*** x=1"),
    ],
)
def test_what_looks_like_an_address_or_a_secret_is_masked(text: str, shown: str) -> None:
    assert mask(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Task notify_tasks.deliver[01a209c6-b618-735b-9a10-057449123456] succeeded in 0.0336008359954576s",
        "DeliveryFailed('550 5.1.1')",
        "2026-11-23T19:04:11.052+00:00",
        "worker-1@vm ready.",
        "no sweep for 10 s: this worker sweeps until another one does",
    ],
)
def test_what_on_call_needs_is_left(text: str) -> None:
    assert mask(text) == text


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What this process's logs write, as JSON; everything is put back afterwards."""
    monkeypatch.setenv("NOTIFY_LOG_FORMAT", "json")
    settings.reset()
    root, out = logging.getLogger(), io.StringIO()
    before = list(root.handlers), root.level
    import sys  # noqa: PLC0415 - for what is put back alone
    import threading  # noqa: PLC0415

    hooks = sys.excepthook, threading.excepthook
    logs.configure("test", stream=out)
    yield out
    logging.captureWarnings(capture=False)
    root.handlers, root.level = before
    sys.excepthook, threading.excepthook = hooks
    log_context.end()
    settings.reset()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_every_line_says_what_is_in_hand_and_nothing_of_what_was_before(written: io.StringIO) -> None:
    logger = logging.getLogger("some.library")
    log_context.begin(task="notify_tasks.deliver", queue="notify.sms")
    log_context.about_message("m-1", "order.shipped", f"00-{'a1' * 16}-{'b2' * 8}-01")
    log_context.about_delivery("d-1", attempt=2, channel="sms", provider="twilio-main")
    logger.warning("one")
    log_context.done_with_delivery()
    logger.warning("two")
    log_context.end()
    logger.warning("three")

    one, two, three = lines(written)
    assert {name: one[name] for name in ("message_id", "delivery_id", "attempt", "provider", "trace_id")} == {
        "message_id": "m-1",
        "delivery_id": "d-1",
        "attempt": 2,
        "provider": "twilio-main",
        "trace_id": "a1" * 16,
    }
    assert (two["queue"], "delivery_id" in two, "trace_id" in two) == ("notify.sms", False, False)
    assert "queue" not in three


def test_a_line_stays_one_line_and_a_traceback_is_masked(written: io.StringIO) -> None:
    logger = logging.getLogger("some.library")
    logger.warning('a "quoted"\n{"level": "critical"}\r\n line of a stranger')
    try:
        int("no mailbox for zoe@shop.example")
    except ValueError:
        logger.exception("it failed")

    stranger, failed = lines(written)
    assert stranger["level"] == "warning"
    assert "test_log_privacy.py" in str(failed["exception"])
    assert "zoe" not in written.getvalue()


def test_values_under_names_of_content_are_refused_and_parts_are_not_shown(written: io.StringIO) -> None:
    log_context.about(
        payload={"order": 1}, address="zoe", recipient="zoe", rest=["zoe"], note="for zoe@shop.example"
    )
    logging.getLogger("some.library").warning("words")

    (line,) = lines(written)
    assert (line["payload"], line["address"], line["recipient"]) == (REMOVED, REMOVED, REMOVED)
    assert (line["rest"], line["note"]) == ("[list]", "for ***@***")


def test_a_library_that_repeats_itself_is_heard_once_a_minute(written: io.StringIO) -> None:
    logger = logging.getLogger("opentelemetry.exporter")
    for _ in range(50):
        logger.error("the collector is away")
    for _ in range(2):
        logging.getLogger("some.library").error("this one is heard each time")

    assert [line["event"] for line in lines(written)].count("the collector is away") == 1
    assert len(lines(written)) == 3
