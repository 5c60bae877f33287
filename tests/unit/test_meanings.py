"""Every reason that the fleet can write has a sentence: whoever adds one is told here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from channels.receipts import Fate, Standing
from notify_tasks import (
    explaining,
    gates,
    gathering,
    meanings,
    planning,
    plans,
    retrying,
    states,
    stored_files,
    webhooks,
)
from notify_tasks.store import doubts, erasing, gated

ROOT = Path(__file__).parents[2] / "notify_tasks"
CODE = re.compile(r"[a-z]+(_[a-z]+)*")

NO_REASONS = {"inapp", "webhook", "rate", "paused", "drop", "hold", "off", "high"}
"""Channels, lanes, what is done about too many, and the beginnings of reasons, which are looked at by themselves."""
MODULES = (planning, plans, gathering, gates, gated, webhooks, stored_files, erasing)
"""Modules whose constants of one word are reasons."""
BUILT_BY = (
    "Dropped",
    "Rejection",
    "Closed",
    "Verdict",
    "_reject",
    "_release",
    "Refused",
    "TryLater",
    "Uncertain",
)
"""What takes a reason as an argument."""
IN_SQL = re.compile(
    r"(?:reason|code)\s*=\s*'([a-z_]+)'|THEN '([a-z]+_[a-z_]+)'|'(lease_expired|expired|cancelled|operator)'"
)


def constants() -> Iterator[str]:
    for module in MODULES:
        for name, value in vars(module).items():
            if name.isupper() and not name.startswith("_"):
                values = value.values() if isinstance(value, dict) else [value]
                yield from (each for each in values if isinstance(each, str) and CODE.fullmatch(each))


def arguments() -> Iterator[str]:
    """Texts given where a reason belongs, all over the workers' half."""
    for path in sorted(ROOT.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in BUILT_BY:
                given = [
                    *node.args,
                    *(each.value for each in node.keywords if each.arg in ("reason", "code")),
                ]
                yield from (
                    each.value
                    for each in given
                    if isinstance(each, ast.Constant)
                    and isinstance(each.value, str)
                    and CODE.fullmatch(each.value)
                )


def of_sql() -> Iterator[str]:
    for path in sorted((ROOT / "store").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and "notify.delivery" in node.value
            ):
                for found in IN_SQL.finditer(node.value):
                    yield next(filter(None, found.groups()))


@cache
def reasons() -> set[str]:
    found = {*constants(), *arguments(), *of_sql(), doubts.OPERATOR}
    kinds = {*states.State, *states.NotificationState, "lease_ended"}
    return {
        each for each in found if each not in NO_REASONS and (each not in kinds or each in meanings.MEANINGS)
    }


def test_the_collection_finds_what_is_known_to_be_there() -> None:
    """Else a rename would make the test below pass for nothing."""
    assert {
        "quiet_hours", "expires_in_vacation", "throttled", "no_provider_ready", "recipient_limit", "payload_invalid",
        "no_template", "lease_expired", "recipient_erased", "preference_off", "render_failed", "retries_spent",
        "provider_gone", "endpoint_disabled", "unknown_recipient", "attachment_missing", "step", "digest",
    } <= reasons()  # fmt: skip


def test_each_reason_has_a_sentence() -> None:
    missing = sorted(code for code in reasons() if not meanings.known(code))
    assert not missing, f"say in notify_tasks/meanings.py what these mean: {missing}"


def test_each_outcome_standing_and_kind_of_event_has_a_sentence() -> None:
    assert {*retrying.OUTCOMES.values(), "accepted", "released", "lost"} == set(meanings.ATTEMPTED)
    assert set(Standing) == set(meanings.STANDING)
    kinds = ({*states.FINAL, *states.NotificationState, *Fate} - {"accepted"}) | {
        "lease_ended", "replayed", "rescheduled",
    }  # fmt: skip
    assert kinds <= set(explaining._HAPPENED)


def test_every_clause_goes_on_after_because() -> None:
    for code, clause in {**meanings.MEANINGS, **meanings.ATTEMPTED, **meanings.STANDING}.items():
        assert not clause.endswith("."), code
        assert clause[0].islower(), code
        assert "  " not in clause, code


def test_reasons_that_go_on_are_known_by_their_beginning_and_others_are_shown() -> None:
    assert meanings.because("rate:smtp-main") == "because it waits for its turn in the provider's rate"
    assert meanings.because("paused: budget") == "because an operator has paused it"
    assert meanings.because("5.1.1") == "with the code 5.1.1"
    assert meanings.known(None) is None
