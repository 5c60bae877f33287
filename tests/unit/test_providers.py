"""Pools of providers: who is called first, who steps in, and what a wrong configuration is told."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.contract import Capability, Misconfigured
from notify_tasks import providers as providers_module
from notify_tasks.breaker import FAILURES_TO_OPEN, OPEN_SECONDS, Breaker
from notify_tasks.configuration.model import DEFAULT_TIMEOUT
from notify_tasks.configuration.origins import BadConfiguration
from notify_tasks.providers import LEASE_MARGIN, Pools

SMS = {"use": "sms.sandbox", "url": "http://127.0.0.1:1"}


def pools(*pool: Any, sandbox: str | None = None, **providers: Any) -> Pools:
    """A configuration of one channel, sms."""
    named = dict.fromkeys(("a", "b", "c"), SMS) | providers
    channel: dict[str, Any] = {"pool": list(pool) or ["a"]}
    if sandbox is not None:
        channel["sandbox"] = sandbox
    return Pools({"providers": named, "channels": {"sms": channel}})


def weighted(**weights: float) -> list[dict[str, Any]]:
    return [{"provider": name, "weight": weight} for name, weight in weights.items()]


def names(found: Pools, delivery: str, **options: Any) -> list[str]:
    return [it.name for it in found.candidates("sms", delivery, **options)]


# --- the choice ---------------------------------------------------------------------------------------


def test_weights_share_out_the_first_choice_and_order_is_the_fallback() -> None:
    found = pools(*weighted(a=70, b=20, c=10))
    choices = [names(found, str(uuid.UUID(int=n))) for n in range(10_000)]

    first = Counter(it[0] for it in choices)
    assert 6_700 < first["a"] < 7_300
    assert 1_700 < first["b"] < 2_300
    assert 700 < first["c"] < 1_300
    assert {tuple(it) for it in choices} == {("a", "b", "c"), ("b", "a", "c"), ("c", "a", "b")}


def test_every_process_makes_the_same_choice() -> None:
    here, there = pools(*weighted(a=50, b=50)), pools(*weighted(a=50, b=50))
    for n in range(200):
        assert names(here, str(n)) == names(there, str(n))


def test_a_weight_of_zero_is_a_reserve() -> None:
    found = pools(*weighted(a=1, b=0))
    assert {tuple(names(found, str(n))) for n in range(200)} == {("a", "b")}


def test_a_pool_of_zeros_alone_goes_by_its_order() -> None:
    assert names(pools(*weighted(b=0, a=0)), "any") == ["b", "a"]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=3), st.text(max_size=10))
def test_whatever_the_weights_each_member_is_a_candidate_once(weights: list[float], delivery: str) -> None:
    found = pools(*weighted(**dict(zip("abc", weights, strict=False))))
    assert sorted(names(found, delivery)) == sorted("abc"[: len(weights)])


def test_names_alone_have_equal_weights() -> None:
    found = pools("a", "b")
    first = Counter(names(found, str(n))[0] for n in range(2_000))
    assert 800 < first["a"] < 1_200


def test_sandboxed_calls_have_a_provider_of_their_own_or_none() -> None:
    assert names(pools("a", "b", sandbox="c"), "any", sandbox=True) == ["c"]
    assert names(pools("a", "b"), "any", sandbox=True) == []
    assert pools("a").candidates("email", "any") == []


def test_a_process_knows_the_providers_of_its_channels() -> None:
    found = pools("b", "a", sandbox="c")
    assert [it.name for it in found.of_channels(("sms", "email"))] == ["a", "b", "c"]
    assert found.of_channels(("email",)) == []


# --- the breaker --------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_failures_in_a_row_leave_a_provider_out_for_a_while(clock: list[float]) -> None:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.failure()
    assert breaker.closed()
    breaker.failure()
    assert not breaker.closed()

    clock[0] += OPEN_SECONDS - 0.1
    assert not breaker.closed()
    clock[0] += 0.2
    assert breaker.closed()


def test_after_its_time_one_failure_is_enough_and_one_success_heals(clock: list[float]) -> None:
    breaker = Breaker()
    breaker.failure(at_once=True)
    clock[0] += OPEN_SECONDS
    breaker.success()
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.failure()
    assert breaker.closed()

    breaker.failure()
    clock[0] += OPEN_SECONDS
    assert breaker.closed()
    breaker.failure()
    assert not breaker.closed()


def test_a_misconfigured_provider_is_out_at_once(clock: list[float]) -> None:
    breaker = Breaker()
    breaker.failure(at_once=True)
    assert not breaker.closed()


# --- leases and what a provider is ----------------------------------------------------------------------


def test_a_lease_outlives_its_call() -> None:
    found = pools("a", b=SMS | {"timeout": 25})
    a, b = found.get("a"), found.get("b")
    assert a is not None
    assert b is not None
    assert (a.timeout, a.lease) == (DEFAULT_TIMEOUT, DEFAULT_TIMEOUT + LEASE_MARGIN)
    assert LEASE_MARGIN == 30
    assert found.longest_lease() == b.lease == 55


def test_what_can_be_cleared_up_is_known_by_name() -> None:
    found = pools(
        "a",
        a=SMS | {"kind": "idempotent"},
        b=SMS | {"kind": "queryable"},
        c=SMS | {"kind": "opaque"},
        wrong=SMS | {"kind": "?"},
    )
    assert found.knowable() == ["a", "b"]


def test_a_provider_that_cannot_be_built_counts_as_opaque_and_says_why_when_it_is_called() -> None:
    wrong = pools("a", a=SMS | {"colour": "red"}).get("a")
    assert wrong is not None
    assert wrong.capability is Capability.OPAQUE
    with pytest.raises(Misconfigured, match=r"providers\.a\.colour: is no option of sms\.sandbox\. It has "):
        wrong.provider()


def test_a_provider_is_built_once_and_may_be_closed() -> None:
    found = pools("a")
    a = found.get("a")
    assert a is not None
    assert a.provider() is a.provider()
    found.close()


# --- a new configuration --------------------------------------------------------------------------------


class Line:
    """A provider that was built: whether it is open, and how many calls are in it."""

    capability = Capability.OPAQUE
    built: ClassVar[list[Line]] = []

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.closed = False
        Line.built.append(self)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[Line]:
    """What `providers` builds from now on, instead of SDKs' connections."""
    Line.built = []
    monkeypatch.setattr(providers_module, "load", lambda _use, _name, options: Line(dict(options)))
    return Line.built


def line(found: Pools, name: str) -> Line:
    configured = found.get(name)
    assert configured is not None
    built = configured.provider()
    assert isinstance(built, Line)
    return built


def test_an_unchanged_provider_keeps_its_connections_and_its_breaker(lines: list[Line]) -> None:
    found = pools("a", "b", "c")
    a = found.get("a")
    assert a is not None
    kept = line(found, "a")
    a.breaker.failure(at_once=True)

    # Given other weights, another rate and timeout for it, and a new provider beside it,
    new = pools(*weighted(a=1, b=9), a=SMS | {"rate": "10/s", "timeout": 3}, d=SMS)
    said = found.reload(new.configuration, ["sms"])

    # then the rest of it is as it was.
    again = found.get("a")
    assert again is not None
    assert line(found, "a") is kept
    assert not kept.closed
    assert not again.breaker.closed()
    assert (str(again.rate), again.timeout) == ("10/s", 3.0)
    assert said == [
        "rate of a none -> 10/s",
        "timeout of a 10s -> 3s",
        "d is new",
        "pool of sms a 1, b 1, c 1 -> a 1, b 9",
    ]


def test_changed_options_build_a_new_provider_and_close_the_old_one(lines: list[Line]) -> None:
    found = pools("a")
    before = line(found, "a")
    broken = found.get("a")
    assert broken is not None
    broken.breaker.failure(at_once=True)

    said = found.reload(pools("a", a=SMS | {"kind": "opaque"}).configuration, ["sms"])

    assert before.closed
    assert line(found, "a").options == {"url": SMS["url"], "kind": "opaque"}
    mended = found.get("a")
    assert mended is not None
    assert mended.breaker.closed()
    assert said == ["kind of a changed"]


def test_a_provider_that_a_call_uses_is_closed_after_it(lines: list[Line]) -> None:
    found = pools("a", "b")
    a = found.get("a")
    assert a is not None
    with a.in_use() as used:
        assert isinstance(used, Line)
        assert found.reload(pools("b", a=SMS | {"kind": "opaque"}).configuration, ["sms"])
        assert not used.closed
    assert used.closed
    # A thread that had it in its hand, and begins now, gets one that is open, and that is closed after it.
    with a.in_use() as late:
        assert isinstance(late, Line)
        assert late is not used
        assert not late.closed
    assert late.closed


def test_a_provider_that_is_gone_or_switched_off_is_not_found(lines: list[Line]) -> None:
    found = pools("a", "b", "c")
    gone = line(found, "c")
    document = {
        "providers": {"a": SMS, "b": SMS | {"enabled": False}},
        "channels": {"sms": {"pool": ["a", "b"]}},
    }

    said = found.reload(Pools(document).configuration, ["sms"])

    assert gone.closed
    assert found.get("c") is None
    assert found.get("b") is None
    assert {tuple(names(found, str(n))) for n in range(50)} == {("a",)}
    assert [it.name for it in found.all()] == ["a", "b"]
    assert said == ["b switched off", "c is gone", "pool of sms a 1, b 1, c 1 -> a 1, b 1"]


def test_one_that_cannot_be_built_leaves_everything_as_it_was(tmp_path: Path) -> None:
    found = pools("a", "b")
    before, configuration = found.get("a"), found.configuration
    new = pools(
        "a", "b", "wrong", b=SMS | {"rate": "1/s"}, wrong=SMS | {"url": "env:NOWHERE_URL"}
    ).configuration

    with pytest.raises(BadConfiguration, match="NOWHERE_URL"):
        found.reload(new, ["sms"])

    assert found.get("a") is before
    assert found.configuration is configuration
    # A process that does not serve the channel need not have its secrets.
    found.reload(new, ["email"])
    assert str(getattr(found.get("b"), "rate", None)) == "1/s"


def test_a_rotated_secret_builds_the_provider_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[Line]
) -> None:
    secret = tmp_path / "token"
    secret.write_text("hunter1\n")
    monkeypatch.setenv("SMS_TOKEN_FILE", str(secret))
    found = pools("a", a=SMS | {"token": "env:SMS_TOKEN"})
    before = line(found, "a")
    assert before.options["token"] == "hunter1"
    assert found.reload(found.configuration, ["sms"]) == []

    secret.write_text("hunter2\n")
    said = found.reload(found.configuration, ["sms"])

    assert before.closed
    assert line(found, "a").options["token"] == "hunter2"
    assert said == ["a secret of a is another one"]


def test_more_providers_or_fewer_are_noticed(lines: list[Line]) -> None:
    found = pools("a")
    assert not found.several(["sms"])
    found.reload(pools("a", "b").configuration, ["sms"])
    assert found.several(["sms"])
    found.reload(pools("a", "b", b=SMS | {"enabled": False}).configuration, ["sms"])
    assert not found.several(["sms"])


def test_who_asks_while_it_changes_gets_the_whole_of_one(lines: list[Line]) -> None:
    """The change comes at the worst moment: when a pool's members are read and its providers are not yet."""
    found = pools("a")
    new = pools("c", b=SMS | {"enabled": False}).configuration
    armed: list[bool] = []
    changed: list[list[str]] = []

    class Changing(tuple[tuple[str, float], ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[tuple[str, float]]:
            if armed:
                armed.clear()
                changed.append(found.reload(new, ["sms"]))
            return super().__iter__()

    old = pools("a", "b").configuration
    members = Changing(old.pools["sms"].members)
    found.reload(replace(old, pools={"sms": replace(old.pools["sms"], members=members)}), [])
    armed.append(True)

    whole = found.candidates("sms", "any")
    assert sorted((it.name, it.enabled) for it in whole) == [("a", True), ("b", True)]
    assert changed
    assert names(found, "any") == ["c"]


# --- secrets ------------------------------------------------------------------------------------------


def test_secrets_come_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[Line]
) -> None:
    secret = tmp_path / "url"
    secret.write_text("http://127.0.0.1:2\n")
    options = {"use": "sms.sandbox", "url": "env:SMS_URL", "more": {"tokens": ["env:A", "b"]}}
    monkeypatch.setenv("A", "a")
    monkeypatch.setenv("SMS_URL_FILE", str(secret))
    assert line(pools("a", a=options), "a").options == {
        "url": "http://127.0.0.1:2",
        "more": {"tokens": ["a", "b"]},
    }
    monkeypatch.delenv("SMS_URL_FILE")
    monkeypatch.setenv("SMS_URL", "http://127.0.0.1:3")
    assert line(pools("a", a=options), "a").options["url"] == "http://127.0.0.1:3"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "the variable SMS_URL is not set. Set SMS_URL, or SMS_URL_FILE"),
        ({"SMS_URL": ""}, "the variable SMS_URL is not set"),
        ({"SMS_URL_FILE": "/nowhere/at/all"}, "the file '/nowhere/at/all' of SMS_URL_FILE cannot be read"),
        ({"SMS_URL_FILE": "/dev/null"}, "cannot be read \\(it is empty\\)"),
        (
            {"SMS_URL": "http://hunter2@x", "SMS_URL_FILE": "/x"},
            "SMS_URL and SMS_URL_FILE are both set. Keep one",
        ),
        ({"SMS_URL": "hunter2"}, r"providers\.a\.url: is not the address.*\(it is what SMS_URL holds\)"),
    ],
)
def test_a_secret_that_is_missing_or_wrong_is_named_and_never_shown(
    environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = pools("a", a=SMS | {"url": "env:SMS_URL"})
    a = found.get("a")
    assert a is not None
    with pytest.raises(Misconfigured, match=said) as refused:
        a.provider()
    assert a.capability is Capability.OPAQUE
    (problem,) = found.problems(["sms"])
    assert problem.key == "providers.a.url"
    assert "hunter2" not in f"{refused.value!r} {problem}"
    assert found.problems(["email"]) == []


def test_options_never_show() -> None:
    found = pools("a", a=SMS | {"token": "hunter2"})
    shown = f"{found.get('a')!r} {found.configuration!r} {found.configuration.providers!r}"
    assert "hunter2" not in shown
    assert "127.0.0.1" not in shown


class Slow:
    """A provider with an SDK, as the pool sees it."""

    capability = Capability.OPAQUE

    def __init__(self) -> None:
        self.warm = 0

    def prewarm(self) -> None:
        self.warm += 1

    def send(self, message: object, deadline: object) -> object:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_a_worker_warms_the_providers_of_its_channels_and_minds_no_broken_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: dict[str, Slow] = {}

    def load(_use: str, name: str, _options: object) -> Slow:
        if name == "broken":
            raise Misconfigured("secret", "it is missing")
        return built.setdefault(name, Slow())

    monkeypatch.setattr(providers_module, "load", load)
    url = {"url": "http://127.0.0.1:1"}
    pools = Pools(
        {
            "providers": {
                "broken": {"use": "sms.sandbox", **url},
                "ours": {"use": "sms.sandbox", **url},
                "others": {"use": "push.sandbox", **url},
            },
            "channels": {"sms": {"pool": ["broken", "ours"]}, "push": {"pool": ["others"]}},
        }
    )
    pools.prewarm(("sms",))
    assert {name: it.warm for name, it in built.items()} == {"ours": 1}
