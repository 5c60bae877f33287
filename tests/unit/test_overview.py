"""What `notify top` and `notify doctor` say of what they have seen."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest

from notify_tasks import doctor_servers
from notify_tasks.cli import board
from notify_tasks.findings import Health
from notify_tasks.overview import Channel, Overview, Provider, Queue
from notify_tasks.store.pausing import COUNTED, Pause
from notify_tasks.terminal.output import Output

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
SEEN = Overview(
    at=NOW,
    redis="no answer (ConnectionError) for 12 s",
    postgres=None,
    queues=[
        Queue("notify.email", 120, 8, 42.0, 2),
        Queue("notify.sms.bulk", 7, 0, None, 0),
        Queue("notify.chat", 0, 0, None, 0),
    ],
    channels=[Channel("email", 12.34, 0.5, {"queued": 128, "held": 3}, 42.0, 2, 5)],
    providers=[
        Provider("smtp-main", "email.smtp", "50/s", 12.3, ""),
        Provider("sendgrid", "email.sendgrid", "", 0.0, "calls fail: 500, says 2"),
    ],
    pauses=[Pause("type", "order.shipped", "incident 7", "ann@desk", NOW, COUNTED, 0)],
    accepted=15.0,
    about=1_204_338,
    facts={"beat_age": 2.0, "sweep_age": None, "parked": 1},
    workers=3,
    memory=0.8,
)


def drawn(width: int, height: int, seen: Overview = SEEN) -> str:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    out = Output(stream, {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": str(width), "LINES": str(height)})
    out.console.size = (width, height)  # type: ignore[assignment]
    out.console.print(board.drawn(seen, out, 1.0))
    return stream.getvalue()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (124, 36), (200, 60)])
def test_the_board_shows_what_is_wrong_with_the_command_that_helps(width: int, height: int) -> None:
    text = drawn(width, height)
    for words in (
        "Redis: no answer (ConnectionError) for 12 s",
        "type order.shipped is paused",
        "10000+ held",
        "2 deliveries in doubt: `notify in-doubt list`",
        "5 deliveries failed",
        "1 message parked: `notify parked`",
        "notify.email",
        "nobody",
        "left out",
        "sweep never",
    ):
        assert words in " ".join(text.split()), (words, text)


def test_plain_lines_have_everything_that_is_in_use() -> None:
    lines = list(board.lines(SEEN))
    assert lines[:3] == [
        "at 2030-01-31T12:00:00+00:00",
        "redis no answer (ConnectionError) for 12 s",
        "postgres answers",
    ]
    assert "queue notify.email depth 120 taken 8 oldest 42 s consumers 2" in lines
    assert not any("notify.chat" in line for line in lines)
    assert "provider sendgrid email.sendgrid sent 0.0/s calls fail: 500, says 2" in lines
    assert "provider smtp-main email.smtp sent 12.3/s limit 50/s works" in lines


def test_machines_get_an_object() -> None:
    found = json.loads(json.dumps(board.plain(SEEN)))
    assert found["states"] == {"queued": 128, "sending": 0, "retrying": 0, "held": 3}
    assert found["pauses"][0]["since"] == NOW.isoformat()


@pytest.mark.parametrize(
    ("facts", "health"),
    [
        ({"redis_version": "6.0.16"}, Health.BAD),
        ({"redis_version": "6.2.14"}, Health.GOOD),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.0"}, Health.BAD),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, Health.GOOD),
        ({"redis_version": "unstable"}, Health.GOOD),
    ],
)
def test_a_server_that_is_too_old_is_told(facts: dict[str, str], health: Health) -> None:
    (finding,) = doctor_servers._versions(facts)
    assert finding.health is health
    assert bool(finding.remedy) == (health is Health.BAD)


@pytest.mark.parametrize(
    ("ahead", "within", "said"),
    [
        (0.5, 0.0, []),
        (-3.0, 0.1, ["its clock is 3.0 s behind this machine's"]),
        (75.0, 0.1, ["its clock is 1 min 15 s ahead of this machine's"]),
        (3.0, 2.0, []),
    ],
)
def test_a_clock_that_differs_is_told_unless_asking_took_as_long(
    ahead: float, within: float, said: list[str]
) -> None:
    assert [it.text for it in doctor_servers.clocks("redis", ahead, within)] == said


def test_little_memory_left_is_told_from_seventy_per_cent_on() -> None:
    facts = {"aof_enabled": 1, "maxmemory": 100}
    assert list(doctor_servers._keeping(facts | {"used_memory": 69})) == []
    (finding,) = doctor_servers._keeping(facts | {"used_memory": 70})
    assert finding.text.startswith("70% of its memory is used")
