"""The alarm: what is due is woken to the moment, and what is far ahead is left to the sweep."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from notify_tasks.alarm import HORIZON, Alarm
from notify_tasks.store.database import DatabaseAway


class Woken:
    def __init__(self, *problems: Exception) -> None:
        self.at: list[float] = []
        self.once = threading.Event()
        self._problems = list(problems)

    def __call__(self) -> None:
        if self._problems:
            raise self._problems.pop(0)
        self.at.append(time.monotonic())
        self.once.set()


@pytest.fixture
def woken() -> Woken:
    return Woken()


@pytest.fixture
def alarm(woken: Woken) -> Iterator[Alarm]:
    made = Alarm(woken)
    yield made
    made.stop()


def test_it_rings_when_the_time_has_come_and_not_before(alarm: Alarm, woken: Woken) -> None:
    due = time.monotonic() + 0.6
    alarm.after(0.6)
    assert woken.once.wait(10)
    assert woken.at[0] >= due


def test_what_is_due_together_is_woken_together(alarm: Alarm, woken: Woken) -> None:
    for _ in range(100):
        alarm.after(0.3)
    assert woken.once.wait(10)
    alarm.after(0.5)
    woken.once.clear()
    assert woken.once.wait(10)
    assert len(woken.at) <= 3  # two times, one of them perhaps across two looks


def test_what_is_far_ahead_costs_nothing(alarm: Alarm) -> None:
    before = threading.active_count()
    alarm.after(HORIZON + 1)
    assert threading.active_count() == before


def test_a_database_that_is_away_does_not_end_it() -> None:
    woken = Woken(DatabaseAway("08006", "it is away"))
    alarm = Alarm(woken)
    alarm.after(0.0)
    alarm.after(1.0)
    assert woken.once.wait(10)
    alarm.stop()
