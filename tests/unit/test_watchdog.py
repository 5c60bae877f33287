"""Calls that outlive their deadline: the socket is cut, and a thread that hangs on costs the process its life."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from channels.contract import Deadline
from notify_tasks import watchdog as watchdog_module
from notify_tasks.watchdog import CUT_AFTER, GIVE_UP_AFTER, Watchdog


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog_module, "CUT_AFTER", 0.2)
    monkeypatch.setattr(watchdog_module, "GIVE_UP_AFTER", 0.5)
    monkeypatch.setattr(watchdog_module, "LOOK_EVERY", 0.02)


@pytest.fixture
def given_up() -> threading.Event:
    return threading.Event()


@pytest.fixture
def watchdog(given_up: threading.Event) -> Watchdog:
    return Watchdog(given_up.set)


@pytest.fixture
def silent_peer() -> Iterator[socket.socket]:
    """A connection whose other end never says anything."""
    ours, theirs = socket.socketpair()
    yield ours
    ours.close()
    theirs.close()


def expired(seconds: float) -> Deadline:
    """A deadline that passed so long ago."""
    return Deadline(-seconds)


def test_the_promised_margins() -> None:
    # A lease outlives its deadline by thirty seconds: what is cut or given up must be over by then.
    assert (CUT_AFTER, GIVE_UP_AFTER) == (5.0, 10.0)


def test_a_read_that_hangs_past_its_deadline_is_woken(
    watchdog: Watchdog,
    silent_peer: socket.socket,
    given_up: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deadline = Deadline(0.1)
    begun = time.monotonic()
    with caplog.at_level(logging.WARNING), watchdog.watching(deadline, "smtp-main"):
        with deadline.cutting(lambda: silent_peer.shutdown(socket.SHUT_RDWR)):
            assert silent_peer.recv(1) == b""  # no timeout of its own: only the cut ends it

    assert time.monotonic() - begun >= 0.3
    assert "smtp-main" in caplog.text
    with pytest.raises(TimeoutError):
        deadline.remaining()
    assert not given_up.is_set()


def test_a_call_within_its_deadline_is_left_alone(watchdog: Watchdog, given_up: threading.Event) -> None:
    deadline = Deadline(30)
    cuts: list[float] = []
    with watchdog.watching(deadline, "smtp-main"), deadline.cutting(lambda: cuts.append(1)):
        time.sleep(0.2)
    assert not cuts
    assert not given_up.is_set()


def test_a_call_that_cannot_be_cut_costs_the_process_once(
    watchdog: Watchdog, given_up: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), watchdog.watching(Deadline(0.01), "sdk-with-hidden-sockets"):
        assert given_up.wait(5)
        given_up.clear()
        assert not given_up.wait(0.3), "a process is ended once"
    assert "sdk-with-hidden-sockets" in caplog.text


def test_a_call_that_ends_after_the_cut_costs_nothing(watchdog: Watchdog, given_up: threading.Event) -> None:
    cut = threading.Event()
    deadline = Deadline(0.01)
    with watchdog.watching(deadline, "smtp-main"), deadline.cutting(cut.set):
        assert cut.wait(5)
    assert not given_up.wait(0.6)


def test_after_a_standstill_of_the_whole_process_a_call_gets_its_time_to_end(
    watchdog: Watchdog, given_up: threading.Event
) -> None:
    # Given a process that was stopped for a minute in the middle of a call,
    cut = threading.Event()
    deadline = expired(60)

    # when it goes on, then the socket is cut first, and giving up waits for what that brings.
    with watchdog.watching(deadline, "smtp-main"), deadline.cutting(cut.set):
        assert cut.wait(5)
        assert not given_up.wait(0.15)


def test_calls_are_watched_each_by_itself(watchdog: Watchdog) -> None:
    cuts: list[str] = []
    late, early = expired(1), Deadline(30)
    with watchdog.watching(late, "a"), late.cutting(lambda: cuts.append("late")):
        with watchdog.watching(early, "b"), early.cutting(lambda: cuts.append("early")):
            limit = time.monotonic() + 5
            while not cuts and time.monotonic() < limit:
                time.sleep(0.01)
    assert cuts == ["late"]


def test_a_cut_that_comes_before_there_is_something_to_cut_is_heard() -> None:
    deadline = Deadline(30)
    assert not deadline.cut()

    cuts: list[int] = []
    with deadline.cutting(lambda: cuts.append(1)):
        assert cuts == [1]
