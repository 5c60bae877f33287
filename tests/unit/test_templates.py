"""A type's folder: its policy, its payload schema, and what `check` and `preview` tell its author."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notify_tasks.errors import InvalidCall
from notify_tasks.event_type import DEFAULT_ATTEMPTS, DEFAULT_EXPIRY, EventType
from notify_tasks.rendering import BrokenType, Catalog, LoadedType, PayloadInvalid, Problem
from notify_tasks.templates_check import check, examples, preview

NAME = "order.shipped"
CANARY = "canary-4711-secret"
SCHEMA = """
[payload]
type = "object"
required = ["order_id"]
properties.order_id = { type = "integer", minimum = 1 }
properties.carrier = { enum = ["DHL", "UPS"] }
properties.note = { type = "string", maxLength = 30, pattern = "^[a-z]" }
properties.date = { type = "string", format = "date" }
properties.items = { type = "array", maxItems = 3, uniqueItems = true, items = { "$ref" = "#/$defs/item" } }
properties.either = { anyOf = [{ type = "integer" }, { type = "null" }] }
properties.by_person = { type = "object", additionalProperties = { type = "integer" } }
properties.closed = { type = "object", properties = { size = {} }, additionalProperties = false }
[payload."$defs".item]
type = "object"
required = ["name"]
properties.name = { type = ["string", "null"], minLength = 1 }
"""


def write(root: Path, files: Mapping[str, str], name: str = NAME) -> Path:
    for path, text in files.items():
        target = root / path if path.startswith("_layout/") else root / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return root


def load(root: Path, policy: str, **files: str) -> LoadedType:
    sms = {"sms.txt": "a", "notification.toml": policy}
    loaded = Catalog(write(root, {**sms, **files})).get(NAME)
    assert loaded is not None
    return loaded


def problems(root: Path, policy: str, **files: str) -> tuple[Problem, ...]:
    with pytest.raises(BrokenType) as caught:
        load(root, policy, **files)
    assert all(problem.problem and problem.remedy for problem in caught.value.problems)
    return caught.value.problems


# --- policy --------------------------------------------------------------------------------------------


def test_a_policy_says_how_a_type_is_sent(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        'category = "security"\nchannels = ["sms", "push"]\nlane = "high"\nexpires = "10m"\n'
        'on_doubt = "resend"\nattempts = 3\n',
        **{"push.json": "{}"},
    )
    assert loaded.policy == EventType(
        name=NAME,
        version=loaded.policy.version,
        channels=("sms", "push"),
        category="security",
        lane="high",
        expires=600.0,
        on_doubt="resend",
        attempts=3,
    )


def test_what_a_policy_leaves_out_has_a_default(tmp_path: Path) -> None:
    policy = load(tmp_path, 'channels = ["sms"]').policy
    assert (policy.lane, policy.expires, policy.attempts) == ("normal", DEFAULT_EXPIRY, DEFAULT_ATTEMPTS)
    assert policy.on_doubt_for("sms") == "hold"


@pytest.mark.parametrize(
    ("written", "seconds"), [("45s", 45), ("10m", 600), ("2h", 7200), ("3d", 259_200), ("1s", 1)]
)
def test_an_expiry_has_a_unit(tmp_path: Path, written: str, seconds: float) -> None:
    assert load(tmp_path, f'channels = ["sms"]\nexpires = "{written}"').policy.expires == seconds


@pytest.mark.parametrize(
    ("line", "problem", "remedy"),
    [
        ("expires = 10", "expires has no unit", 'expires = "10m"'),
        ('expires = "10"', "expires has no unit", 'expires = "10m"'),
        ("expires = 1.5", "expires has no unit", "units are s, m, h and d"),
        ('expires = "10 minutes"', "expires is not a duration", 'expires = "10m"'),
        ('expires = "0s"', "expires is not a duration", "one number"),
        ('expires = "-5m"', "expires is not a duration", "one number"),
        ("expires = true", "expires", "Write"),
        ("expires = []", "expires is not a duration", "Write"),
        ('lane = "fast"', "lane is none of high, normal, bulk", "lane ="),
        ("lane = 1", "lane is none of", "lane ="),
        ('on_doubt = "ask"', "on_doubt is none of resend, hold", "on_doubt ="),
        ("attempts = 0", "attempts is not a number from 1 to 100", "attempts = 8"),
        ("attempts = true", "attempts is not a number", "attempts = 8"),
        ('attempts = "8"', "attempts is not a number", "attempts = 8"),
        ('category = ""', "category is not a plain word", "orders"),
        ('catgory = "orders"', "unknown key 'catgory'", "'category'"),
        ('expiry = "3d"', "unknown key 'expiry'", "'expires'"),
        ('zzz = "3d"', "unknown key 'zzz'", "Keys are: category, channels"),
        ('digest = "1h"', "digest is not a table", "[digest]"),
        ("throttle = {}", "throttle.limit: it is no limit", '"3/h"'),
        ("steps = []", "steps is not a list of tables", "[[steps]]"),
        ("payload = 1", "payload is not a table", "[payload]"),
        ("payload = { type = 1 }", "payload.type", "2020-12"),
        (
            'payload = { "$schema" = "http://json-schema.org/draft-07/schema#" }',
            "not of draft 2020-12",
            "out",
        ),
        ('payload = { "$ref" = "https://example.com/schema.json" }', "is remote", "$defs"),
        ('payload = { "$ref" = "file:///etc/passwd" }', "is remote", "$defs"),
        ('payload = { "$dynamicRef" = "other.json#x" }', "is remote", "$defs"),
        ('payload = { properties.a = { "$ref" = "#/$defs/gone" } }', "leads nowhere", "[payload.$defs]"),
        ('payload = { requird = ["a"] }', "unknown keyword 'requird'", "'required'"),
        ("payload = { properties.a = { minimun = 1 } }", "unknown keyword 'minimun'", "'minimum'"),
        ('payload = { properties.a = { format = "uri-ish" } }', "'uri-ish' is not checked", "pattern"),
    ],
)
def test_a_wrong_line_of_the_policy_is_named_with_its_remedy(
    tmp_path: Path, line: str, problem: str, remedy: str
) -> None:
    (found,) = problems(tmp_path, f'channels = ["sms"]\n\n{line}\n')
    assert (found.file, found.line) == ("order.shipped/notification.toml", 3)
    assert problem in found.problem
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("policy", "problem", "remedy"),
    [
        ("", "channels is missing", 'channels = ["email"]'),
        ("channels = []", "not a list of channels", 'channels = ["email"]'),
        ('channels = "sms"', "not a list of channels", 'channels = ["email"]'),
        ('channels = ["mail"]', "no channel 'mail'", "'email'"),
        ('channels = ["sms", "sms"]', "a channel twice", "once"),
        ("channels = [1]", "no channel 1", "Channels are"),
        ('channels = ["sms"', "not TOML", "Mend"),
        ('channels = ["sms", "push"]', "lists push, and there is no push.json", "order.shipped/push.json"),
    ],
)
def test_a_type_without_usable_channels_is_broken(
    tmp_path: Path, policy: str, problem: str, remedy: str
) -> None:
    (found,) = problems(tmp_path, policy)
    assert problem in found.problem
    assert remedy in found.remedy


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    policy = 'channels = ["email"]\nlane = "fast"\nattempts = 0\n'
    found = problems(tmp_path, policy, **{"sms.txt": "{{ order_id }}", "de/sms.txt": "{% endif %}"})
    assert [(problem.file, problem.line) for problem in found] == [
        ("order.shipped/notification.toml", 2),
        ("order.shipped/notification.toml", 3),
        ("order.shipped/notification.toml", 1),
        ("order.shipped/notification.toml", 1),
        ("order.shipped/sms.txt", 1),
        ("order.shipped/de/sms.txt", 1),
    ]
    assert "payload.order_id" in found[4].remedy


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"sms.txt": "{{ payload.a | uper }}"}, "No filter named 'uper'. Did you mean 'upper'?"),
        ({"sms.txt": "{{ payloud.a }}"}, "'payloud' here. Did you mean 'payload'?"),
        (
            {"sms.txt": '{% include "_layout/bran.txt" %}', "_layout/brand.txt": ""},
            "mean '_layout/brand.txt'?",
        ),
        ({"sms.txt": "{% include payload.a %}"}, "is computed"),
        ({"de_DE/sms.txt": "a", "de-DE/sms.txt": "a"}, "are one locale"),
        ({"sms.txt": "a" * (256 * 1024 + 1)}, "larger than 256 KiB"),
        ({"push.json": "{% block a %}{}{% endblock %}"}, "blocks, macros and imports"),
    ],
)
def test_a_wrong_template_is_named_with_its_remedy(
    tmp_path: Path, files: dict[str, str], problem: str
) -> None:
    (found,) = problems(tmp_path, 'channels = ["sms"]', **files)
    assert problem in str(found)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"notification.toml": 'channels = ["sms"]', "sms.txt": "a"})
    (tmp_path / NAME / "sms.txt").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(
        BrokenType, match=r"order\.shipped/sms\.txt: the file is not UTF-8\. Save it as UTF-8"
    ):
        Catalog(tmp_path).get(NAME)


# --- payloads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({}, "payload.order_id: is missing"),
        ({"order_id": "981"}, "payload.order_id: is not an integer"),
        ({"order_id": True}, "payload.order_id: is not an integer"),
        ({"order_id": 0}, "payload.order_id: is less than 1"),
        ({"carrier": CANARY}, "payload.carrier: is not one of: DHL, UPS"),
        ({"note": CANARY.upper()}, "payload.note: does not match the pattern ^[a-z]"),
        ({"note": CANARY * 9}, "payload.note: is longer than 30 characters"),
        ({"date": CANARY}, "payload.date: does not have the format date"),
        ({"items": CANARY}, "payload.items: is not a list"),
        ({"items": [{"name": "a"}, {CANARY: 1}]}, "payload.items[1].name: is missing"),
        ({"items": [{"name": 1}]}, "payload.items[0].name: is not a string or null"),
        ({"items": [{"name": "a"}] * 2}, "payload.items: has an entry twice"),
        ({"items": [{"name": str(n)} for n in range(4)]}, "payload.items: has more than 3 entries"),
        ({"either": CANARY}, "payload.either: fits none of the forms"),
        ({"by_person": {CANARY: CANARY}}, "payload.by_person.*: is not an integer"),
        (
            {"closed": {"sise": CANARY}},
            "payload.closed: has a field 'sise' that the type does not know; did you mean",
        ),
        ({"closed": {f"{CANARY}@example.com": 1}}, "payload.closed: has a field that the type does not know"),
    ],
)
def test_a_payload_that_does_not_fit_names_the_field_and_no_value(
    tmp_path: Path, payload: dict[str, Any], said: str
) -> None:
    loaded = load(tmp_path, f'channels = ["sms"]\n{SCHEMA}')
    with pytest.raises(PayloadInvalid) as caught:
        loaded.check_payload(payload if "order_id" in payload or not payload else {"order_id": 1, **payload})
    assert str(caught.value).startswith(said)
    assert CANARY not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert caught.value.__context__ is None


def test_a_payload_that_fits_passes(tmp_path: Path) -> None:
    loaded = load(tmp_path, f'channels = ["sms"]\n{SCHEMA}')
    loaded.check_payload({"order_id": 1, "items": [{"name": None}], "date": "2025-01-31", "unlisted": 1})
    load(tmp_path / "other", 'channels = ["sms"]').check_payload({"anything": [1]})


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(["order_id", "note", "items", "closed", "by_person"]) | st.text(), _json)
)
def test_any_payload_fits_or_is_refused_by_name(tmp_path: Path, payload: dict[str, Any]) -> None:
    loaded = load(tmp_path, f'channels = ["sms"]\n{SCHEMA}')
    try:
        loaded.check_payload(payload)
    except PayloadInvalid as error:
        assert error.path.startswith("payload")  # noqa: PT017 - either end is right


# --- check ---------------------------------------------------------------------------------------------

GOOD = {
    "notification.toml": f'channels = ["sms"]\n{SCHEMA}',
    "sms.txt": "Order {{ payload.order_id }}",
    "example.json": '{"order_id": 981, "note": "fragile"}',
}


def test_a_type_in_order_has_no_problems(tmp_path: Path) -> None:
    assert check(write(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    ("files", "file", "line", "problem", "remedy"),
    [
        ({"de/sms.txt": "a\nb\n{{ payload.ordr }}"}, "de/sms.txt", 3, "payload.ordr is missing", "default"),
        (
            {"de/sms.txt": "a\n{{ payload.note }}"},
            "de/sms.txt",
            2,
            "payload.note may be missing",
            "is defined",
        ),
        ({"email.subject.txt": "a\n\nb"}, "email.subject.txt", None, "line break", "one line"),
        ({"push.json": '{"a": {{ payload.note }}}'}, "push.json", None, "not JSON once rendered", "tojson"),
        ({"push.json": '{"a": "{{ payload.note | link }}"}'}, "push.json", 1, "no plain https", "whole URL"),
        ({"example.json": "{,"}, "example.json", 1, "not JSON", "Mend"),
        ({"example.json": "[]"}, "example.json", 1, "no JSON object", "{ ... }"),
        (
            {"example.json": '{"order_id": "1"}'},
            "example.json",
            None,
            "payload.order_id: is not an integer",
            "Mend",
        ),
        ({"emial.txt": "a"}, "emial.txt", None, "no channel reads this file", "email.txt"),
        ({"german.d/sms.txt": "a"}, "german.d/sms.txt", None, "no channel reads this file", "after a locale"),
        ({"sms.txt": "{{ a"}, "sms.txt", 1, "unexpected end of template", "Mend"),
        ({"notification.toml": "expires = 1"}, "notification.toml", 1, "no unit", '"1m"'),
    ],
)
def test_check_names_file_line_and_remedy(
    tmp_path: Path, files: dict[str, str], file: str, line: int | None, problem: str, remedy: str
) -> None:
    # Given a type with one thing wrong, and a neighbour in order
    write(tmp_path, GOOD, "a.neighbour")
    found = check(write(tmp_path, {**GOOD, **files}))
    # then the first thing said is that one, and none of it is about the neighbour
    assert (found[0].file, found[0].line) == (f"{NAME}/{file}", line)
    assert problem in found[0].problem
    assert remedy in found[0].remedy
    assert all(each.file.startswith(NAME) for each in found)
    assert check(tmp_path, "a.neighbour") == []
    assert check(tmp_path, NAME) == found


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        # One optional field is used where another is there.
        ("{% if payload.note is defined %}{{ payload.date }}{% endif %}", "payload.date may be missing"),
        # A list may be empty, and its entries may lack what is optional.
        (
            "{% if payload.items is defined %}{{ payload.items[0].name }}{% endif %}",
            "with payload.items empty",
        ),
        ("{% for it in payload.items or [] %}{{ it.size }}{% endfor %}", "payload.items may be missing"),
        (
            "{% for it in payload.items | default([]) %}{{ it.size }}{% endfor %}",
            "it.size may be missing: the schema does not demand it",
        ),
        # A person named by a bare address has no id and no zone.
        ("{{ recipient.id }}", r"a value is null \(for a person named by a bare address\)"),
        ("{{ recipient.timezone }}", r"a value is null \(for a person named by a bare address\)"),
        # Attachments may be there, or not.
        ("{{ attachments[0].name }}", "a key or an index in \\[ \\] is missing"),
        ("{% if attachments %}{{ attachments[0].size | money('EUR') }}{% endif %}", "with an attachment"),
        ("{% if attachments %}{{ attachments[0].path }}{% endif %}", "path"),
    ],
)
def test_check_tries_what_else_the_schema_lets_through(tmp_path: Path, template: str, problem: str) -> None:
    example = {
        "order_id": 981,
        "note": "fragile",
        "date": "2026-11-05",
        "items": [{"name": "a", "size": 1}, {"name": "b", "size": 2}],
    }
    files = {**GOOD, "example.json": json.dumps(example), "sms.txt": f"Order {template}"}
    (found, *_) = check(write(tmp_path, files))
    assert (found.file, found.line) == (f"{NAME}/sms.txt", 1)
    assert re.search(problem, found.problem)


def test_more_examples_are_checked_too(tmp_path: Path) -> None:
    files = {
        **GOOD,
        "sms.txt": "{{ payload.order_id }}{% if payload.order_id > 1000 %}{{ payload.big }}{% endif %}",
    }
    assert check(write(tmp_path, files)) == []
    # Given cases of their own in a folder beside the example
    write(tmp_path, {"examples/big.json": '{"order_id": 1001}'})
    (missing,) = check(tmp_path)
    assert (missing.file, missing.line) == (f"{NAME}/sms.txt", 1)
    # and one that does not fit, which is named by itself
    write(tmp_path, {"examples/big.json": '{"order_id": 1}', "examples/wrong.json": '{"order_id": "1"}'})
    (wrong,) = check(tmp_path)
    assert wrong.file == f"{NAME}/examples/wrong.json"
    assert "payload.order_id: is not an integer" in wrong.problem
    loaded = Catalog(tmp_path).get(NAME)
    assert loaded is not None
    assert list(examples(loaded)) == ["example.json", "examples/big.json"]


def test_a_missing_example_is_a_problem(tmp_path: Path) -> None:
    files = {path: text for path, text in GOOD.items() if path != "example.json"}
    (found,) = check(write(tmp_path, files))
    assert str(found) == (
        "order.shipped/example.json: the file is missing. Add a sample payload: preview and check use it"
    )


def test_check_of_an_unknown_type_names_the_nearest(tmp_path: Path) -> None:
    (found,) = check(write(tmp_path, GOOD), "order.shiped")
    assert "order.shipped" in found.remedy


def test_folders_that_cannot_be_types_are_named(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "Order Shipped")
    write(tmp_path, {"sms.txt": "a"}, "half.done")
    write(tmp_path, {"_layout/a.txt": "a"})
    assert [each.file for each in check(tmp_path)] == ["Order Shipped", "half.done"]


# --- preview -------------------------------------------------------------------------------------------


def test_preview_shows_every_channel_in_a_locale(tmp_path: Path) -> None:
    files = {
        **GOOD,
        "de/sms.txt": "Bestellung {{ payload.order_id }}",
        "push.json": '{"n": {{ payload.order_id }}}',
    }
    shown = preview(write(tmp_path, files), NAME, locale="de-AT")
    assert shown["channels"] == {
        "sms": {"locale": "de", "text": "Bestellung 981"},
        "push": {"locale": "default", "data": {"n": 981}},
    }
    assert json.loads(json.dumps(shown)) == shown


def test_preview_shows_one_channel(tmp_path: Path) -> None:
    root = write(
        tmp_path, {**GOOD, "chat.md": "**a**", "email.subject.txt": "a", "email.txt": "b", "email.html": "c"}
    )
    assert preview(root, NAME, "chat")["channels"] == {"chat": {"locale": "default", "markdown": "**a**\n"}}
    assert set(preview(root, NAME, "email")["channels"]["email"]) == {"locale", "subject", "text", "html"}


@pytest.mark.parametrize(
    ("name", "channel", "said"),
    [
        ("order.shiped", None, "Did you mean order.shipped"),
        (NAME, "push", "Write one of: sms"),
        ("a/../b", None, "Types"),
    ],
)
def test_preview_of_what_is_not_there_says_what_is(
    tmp_path: Path, name: str, channel: str | None, said: str
) -> None:
    with pytest.raises(InvalidCall, match=said):
        preview(write(tmp_path, GOOD), name, channel)
