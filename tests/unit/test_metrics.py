"""The names of metrics, and what their labels may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from support.scraping import promtool, series, undeclared, values_of

from notify_tasks import gates, metering, metrics, planning
from notify_tasks.exporter import families
from notify_tasks.exporter.broker import BrokerNow
from notify_tasks.metrics import ALL, FLEET, OTHER, Kind
from notify_tasks.routing import ALL_QUEUES, CHANNELS, LANES
from notify_tasks.states import FINAL
from notify_tasks.store import gated
from notify_tasks.store.sampling import Group, Now, Waiting
from notify_tasks.store.tallying import Delays, Punctual, Tally, Totals

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture
def meter() -> Iterator[metering.Meter]:
    metering.know_types(lambda: ("order.shipped",))
    yield metering.start()
    metering.stop()
    metering.know_types(tuple)


def observe(text: str, event_type: str = "order.shipped", channel: str = "sms") -> None:
    """One of everything that a worker counts, with this text wherever something could come from outside."""
    metering.taken(event_type, "rejected", text)
    metering.planned(channel, text, text)
    metering.attempted(channel, "smtp-main", event_type, "accepted")
    metering.became(channel, event_type, text)
    metering.fenced(channel)
    metering.rendered(channel, metering.now())
    metering.called(channel, "smtp-main", metering.now())
    metering.waited(text, 1.0)
    metering.waited("notify.sms", text)
    metering.gate_closed(channel, text)
    metering.limited("smtp-main", 2.0)
    metering.limiter_alone()
    metering.breaker_opened("smtp-main", "down")
    metering.breaker("smtp-main", is_open=True)
    metering.receipts("smtp-main", "applied", 2)
    metering.swept(metering.now(), {"due": 2, "expired": 0})


def shown(meter: metering.Meter) -> str:
    return generate_latest(meter.registry).decode()


def test_names_follow_the_conventions() -> None:
    assert len({each.name for each in ALL}) == len(ALL)
    for each in ALL:
        assert re.fullmatch(r"notify_[a-z0-9_]*[a-z0-9]", each.name)
        assert each.name.endswith("_total") == (each.kind is Kind.COUNTER), each.name
        assert (each.kind is Kind.HISTOGRAM) == bool(each.buckets), each.name
        assert each.kind is not Kind.HISTOGRAM or each.unit == "seconds", each.name
        assert not {"tenant", "host", "instance", "job", "id", "le"} & set(each.labels), each.name
        assert each.help.endswith("."), each.name
    assert metrics.OBJECTIVE_SECONDS in metrics.DELAY  # else the histogram cannot tell of it


def test_promtool_has_nothing_to_say_of_all_that_a_worker_counts(meter: metering.Meter) -> None:
    observe("held")

    assert promtool(shown(meter)) == ""
    assert undeclared(shown(meter)) == set()
    names = {name.removesuffix("_bucket") for name, _ in series(shown(meter))}
    assert {each.name for each in metrics.COUNTED} <= names


def fleet() -> str:
    """Everything that the exporter can tell, with what a hostile producer has left in the rows."""
    registry = CollectorRegistry()
    now = Now(
        {},
        {"new": 1},
        {("smtp-main", True): 2},
        {"type": 1},
        {"notify.sms": 2},
        2,
        0,
        1,
        {"notify.sms": 4.0},
        {},
    )
    waiting = Waiting([Group("sms", "normal", "queued", 2, 3.0, 1)], {("sms", "failed"): 2}, 1)
    totals = Totals(
        [Tally("sms", f"made.up{n}", "sent", 1) for n in range(3 * families.TYPES)]
        + [Tally("", "order.shipped", "rejected", 4)],
        [Delays(state, "sms", "normal", {1.0: 3, float("inf"): 1}, 99.0) for state in ("sent", "delivered")],
        {"5m": [Punctual("normal", 4, 3)], "1h": []},
        1.0,
    )
    broker = BrokerNow(
        dict.fromkeys(ALL_QUEUES, 1), {"notify.sms": 3.0}, {}, 0.0, 0, 0, {"used_memory": 1, "maxmemory": 0}
    )

    class All:
        def collect(self) -> Iterator[object]:
            yield from families.of_broker(broker)
            yield from families.of_now(now)
            yield from families.of_waiting(waiting)
            yield from families.of_totals(totals, waiting)

    registry.register(All())  # type: ignore[arg-type]
    return generate_latest(registry).decode()


def test_promtool_has_nothing_to_say_of_all_that_the_exporter_tells() -> None:
    text = fleet()

    assert promtool(text) == ""
    assert undeclared(text) == set()
    told = {re.sub("_(bucket|count|sum)$", "", name) for name, _ in series(text)}
    own = {"notify_up", "notify_sample_age_seconds", "notify_sample_seconds"}
    assert {each.name for each in FLEET} - told <= own | {
        # before the first sweep and tick there is no age; a fact that Redis does not tell is no number
        *(
            "notify_sweep_age_seconds",
            "notify_beat_age_seconds",
            "notify_redis_aof_enabled",
            "notify_redis_clients",
        )
    }
    assert len(values_of(text, "type")) == families.TYPES + 1  # and `other`
    assert values_of(text, "lane") <= set(LANES)
    assert values_of(text, "channel") <= set(CHANNELS)
    key = ("notify_slo_in_time_ratio", (("window", "5m"),))
    assert series(text)[key] == 3 / 5  # one of the four was late, and one still waits
    counts = [value for (name, has), value in series(text).items() if name.endswith("to_sent_seconds_bucket")]
    assert sorted(counts) == counts
    assert counts[-1] == 4


@settings(max_examples=20)
@given(st.text(), st.text(), st.text())
def test_labels_are_bounded_whatever_comes_in(text: str, event_type: str, channel: str) -> None:
    metering.know_types(lambda: ("order.shipped",))
    found = metering.start()
    try:
        observe(text, event_type, channel)
        page = shown(found)
    finally:
        metering.stop()
    assert values_of(page, "type") <= {"order.shipped", OTHER}
    assert values_of(page, "channel") <= {*CHANNELS, OTHER}
    assert values_of(page, "queue") <= {*ALL_QUEUES, OTHER}
    assert values_of(page, "reason") | values_of(page, "gate") <= {*metrics.REASONS, OTHER, "", "down"}
    assert values_of(page, "state") <= {*map(str, FINAL), "held", "queued", "retrying", "sending", OTHER}
    assert values_of(page, "decision") <= {"send", "hold", "digest", "drop"}


def test_every_reason_of_a_plan_and_a_gate_has_its_own_value() -> None:
    said = [
        value
        for name, value in vars(planning).items()
        if name.isupper() and isinstance(value, str) and name not in ("INAPP", "DROP")
    ]
    said += [*planning.EXPIRES_FIRST.values(), "same_address", "address_invalid", "unknown_recipient"]
    said += [f"{gates.RATE}smtp-main", gates.SHARE_FULL, gates.LIMITED, gates.COUNTRY, gated.NOT_READY]
    said += [f"{gated.PAUSED}by Ana at three o'clock"]

    assert [each for each in said if metrics.reason(each) == OTHER] == []
    assert metrics.reason(f"{gates.RATE}smtp-main") == "rate"
    assert metrics.reason(f"{gated.PAUSED}by Ana") == "paused"


def test_nothing_is_counted_before_somebody_asks_for_it() -> None:
    metering.stop()
    observe("scheduled")  # and nothing fails


def test_the_documentation_has_the_tables_of_the_code() -> None:
    found = re.search(r"<!-- metrics -->\n(.*?)\n<!-- end -->", DOCS.read_text(), re.DOTALL)
    assert found
    assert found[1] == metrics.markdown(), "paste what `metrics.markdown()` returns"
