"""A backlog is not a loss: what waits behind a slow provider is not published again."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from faults.accounting import Ledgers, send
from faults.fleet import CHANNELS, beat, running_fleet, workers
from faults.test_kills import counter, slow


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stopped", [0, 60], ids=["running", "stopped-for-a-minute"])
def test_fifty_thousand_behind_a_slow_provider_are_not_woken_again(tmp_path: Path, stopped: int) -> None:
    with running_fleet(tmp_path, [*workers(), beat()]) as fleet:
        slow(fleet, 1.0)
        ledgers = Ledgers()
        for n in range(25_000):
            send(ledgers, n, (CHANNELS[n % 3],))
        for n in range(8_500):
            send(ledgers, n, None)
        if stopped:
            for name in ("worker-1", "worker-2"):
                fleet.supervisor.signal(name, signal.SIGSTOP)
            time.sleep(stopped)  # the minute is what is tested
            for name in ("worker-1", "worker-2"):
                fleet.supervisor.signal(name, signal.SIGCONT)
        ends = time.monotonic() + 120 - stopped
        while time.monotonic() < ends:
            assert counter(fleet, "rewoken_as_lost") == 0, fleet.summary()
            time.sleep(2)
        assert counter(fleet, "rewoken_as_lost") == 0
        ((markers,),) = fleet.rows("SELECT count(*) FROM notify.marker")
        assert int(str(markers)) > 10, "markers went into the queues meanwhile"
        ((parked,),) = fleet.rows("SELECT count(*) FROM notify.parked_message")
        assert parked == 0
