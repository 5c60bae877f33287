"""Pools of providers: who is called first, who steps in, and what a wrong configuration is told."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.contract import Capability, Misconfigured
from notify_tasks import providers as providers_module
from notify_tasks.errors import NotConfigured
from notify_tasks.providers import (
    DEFAULT_TIMEOUT,
    FAILURES_TO_OPEN,
    LEASE_MARGIN,
    OPEN_SECONDS,
    Breaker,
    Pools,
)

SMS = {"use": "sms.sandbox", "url": "http://127.0.0.1:1"}


def pools(*pool: Any, sandbox: str | None = None, **providers: Any) -> Pools:
    """A configuration of one channel, sms."""
    named = dict.fromkeys(("a", "b", "c"), SMS) | providers
    channel: dict[str, Any] = {"pool": list(pool) or ["a"]}
    if sandbox is not None:
        channel["sandbox"] = sandbox
    return Pools({"providers": named, "channels": {"sms": channel}}, source="notify.toml")


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
    first = Counter(names(pools("a", "b"), str(n))[0] for n in range(2_000))
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
    assert Pools({}).longest_lease() == DEFAULT_TIMEOUT + LEASE_MARGIN


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
    wrong = pools("a", a={"use": "sms.nobody"}).get("a")
    assert wrong is not None
    assert wrong.capability is Capability.OPAQUE
    with pytest.raises(Misconfigured, match=r"sms\.sandbox"):
        wrong.provider()


def test_a_provider_is_built_once_and_may_be_closed() -> None:
    found = pools("a")
    a = found.get("a")
    assert a is not None
    assert a.provider() is a.provider()
    found.close()


# --- secrets ------------------------------------------------------------------------------------------


def test_secrets_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "url"
    secret.write_text("http://127.0.0.1:2\n")
    monkeypatch.setenv("SMS_URL_FILE", str(secret))
    options = {"url": "env:SMS_URL", "kind": "opaque"}

    assert providers_module._resolve("a", options) == {"url": "http://127.0.0.1:2", "kind": "opaque"}
    monkeypatch.setenv("SMS_URL", "http://127.0.0.1:3")
    assert providers_module._resolve("a", options)["url"] == "http://127.0.0.1:3"


def test_a_missing_secret_is_named_and_never_shown() -> None:
    a = pools("a", a=SMS | {"url": "env:SMS_URL"}).get("a")
    assert a is not None
    with pytest.raises(Misconfigured, match=r"providers\.a\.url needs the variable SMS_URL"):
        a.provider()


def test_a_secret_file_that_cannot_be_read_is_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMS_URL_FILE", "/nowhere/at/all")
    a = pools("a", a=SMS | {"url": "env:SMS_URL"}).get("a")
    assert a is not None
    with pytest.raises(Misconfigured, match="SMS_URL_FILE"):
        a.provider()
    assert a.capability is Capability.OPAQUE


def test_options_never_show() -> None:
    found = pools("a", a=SMS | {"token": "hunter2"})
    assert "hunter2" not in repr(found.get("a"))


# --- wrong configurations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "names_it"),
    [
        ({"providers": {"a": {}}}, r"providers\.a\.use"),
        ({"providers": {"a": {"use": 5}}}, r"providers\.a\.use"),
        ({"providers": {"a": {"use": "sandbox"}}}, r"providers\.a\.use"),
        ({"providers": {"a": "sms.sandbox"}}, r"providers\.a"),
        ({"providers": {"a": SMS | {"timeout": 0}}}, r"providers\.a\.timeout"),
        ({"providers": {"a": SMS | {"timeout": 61}}}, r"providers\.a\.timeout"),
        ({"providers": {"a": SMS | {"timeout": "10s"}}}, r"providers\.a\.timeout"),
        ({"providers": {"a": SMS | {"timeout": True}}}, r"providers\.a\.timeout"),
        ({"providers": {"a": SMS | {"rate": "50/s"}}}, r"providers\.a\.rate"),
        ({"providers": {"a": SMS}, "channels": {"fax": {"pool": ["a"]}}}, r"channels\.fax"),
        ({"providers": {"a": SMS}, "channels": {"sms": {}}}, r"channels\.sms\.pool"),
        ({"providers": {"a": SMS}, "channels": {"sms": {"pool": "a"}}}, r"channels\.sms\.pool"),
        ({"providers": {"a": SMS}, "channels": {"sms": ["a"]}}, r"channels\.sms"),
        ({"providers": {"a": SMS}, "channels": {"sms": {"pool": ["b"]}}}, "'b'"),
        ({"providers": {"a": SMS}, "channels": {"sms": {"pool": [5]}}}, r"channels\.sms\.pool"),
        ({"providers": {"a": SMS}, "channels": {"sms": {"pool": ["a", "a"]}}}, "'a'"),
        ({"providers": {"a": SMS}, "channels": {"sms": {"pool": ["a"], "sandbox": "b"}}}, "'b'"),
        *(
            (
                {
                    "providers": {"a": SMS},
                    "channels": {"sms": {"pool": [{"provider": "a", "weight": weight}]}},
                },
                r"channels\.sms\.pool.*weight",
            )
            for weight in (-1, "much", None, float("nan"), float("inf"), True)
        ),
        ({"providers": 5}, "providers"),
        ({"channels": []}, "channels"),
    ],
)
def test_a_wrong_configuration_is_refused_and_the_key_is_named(
    document: dict[str, Any], names_it: str
) -> None:
    with pytest.raises(NotConfigured, match=names_it) as refused:
        Pools(document, source="here.toml")
    assert str(refused.value).startswith("here.toml: ")


def test_a_file_that_is_missing_or_no_toml_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="NOTIFY_CONFIG"):
        Pools.read(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("providers = [")
    with pytest.raises(NotConfigured, match=r"bad\.toml"):
        Pools.read(tmp_path / "bad.toml")


def test_the_shipped_configuration_can_be_read() -> None:
    found = Pools.read(Path(__file__).parents[2] / "notify.toml")
    assert [it.name for it in found.candidates("email", "any")] == ["smtp-main"]
