"""What commands write on a terminal."""

from __future__ import annotations

import io

import pytest

from notify_tasks.terminal.output import Output, Span


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "10")
    return Terminal()


def written(terminal: Terminal) -> list[str]:
    return [line.rstrip() for line in terminal.getvalue().splitlines()]


def test_a_long_line_goes_on_below_where_its_last_piece_begins(narrow: Terminal) -> None:
    line = ["   12 s  ", Span("sent", "sent"), "  the provider took it after two attempts 大家好"]
    Output(narrow, {"NO_COLOR": "1", "TERM": "xterm"}).say(line, wrap=True)
    assert written(narrow) == [
        "   12 s  sent  the provider took it",
        "               after two attempts 大家好",
    ]


@pytest.mark.parametrize("line", ["short", "x" * 60, ["y" * 30, "long words that go on and on"]])
def test_no_letter_is_lost(narrow: Terminal, line: str | list[str]) -> None:
    Output(narrow, {"NO_COLOR": "1", "TERM": "xterm"}).say(line, wrap=True)
    said = "".join(written(narrow)).replace(" ", "")
    assert said == "".join(line).replace(" ", "")
    assert all(len(each) <= 40 for each in written(narrow))


def test_a_command_stays_whole(narrow: Terminal) -> None:
    command = "notify send order.shipped --to user-42 --payload '{}' --wait"
    Output(narrow, {"NO_COLOR": "1", "TERM": "xterm"}).say(command)
    assert written(narrow) == [command]
