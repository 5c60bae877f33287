"""Celery's options become ours, or are refused with what to write instead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from notify_tasks.celery_options import map_options
from notify_tasks.errors import InvalidCall

AT = datetime(2030, 1, 31, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({"eta": AT}, {"at": AT}),
        ({"countdown": 10}, {"at": timedelta(seconds=10)}),
        ({"countdown": 0}, {}),
        ({"expires": 60}, {"expires": 60}),
        ({"expires": AT}, {"expires": AT}),
        ({"task_id": "id-1"}, {"message_id": "id-1"}),
        ({"priority": "high"}, {"priority": "high"}),
        ({"serializer": "json", "link": None, "link_error": []}, {}),
        ({"group_id": "g", "group_index": 1, "root_id": "r", "parent_id": "p", "reply_to": "x"}, {}),
        ({"add_to_parent": False, "producer": object(), "retry": False, "ignore_result": True}, {}),
        ({"stamped_headers": ["colour"], "colour": "red"}, {}),
    ],
)
def test_what_has_a_meaning_here_is_mapped(options: dict[str, Any], call: dict[str, Any]) -> None:
    assert map_options({}, options) == (call, {})


@pytest.mark.parametrize(
    ("options", "field", "remedy"),
    [
        ({"queue": "notify.email"}, "queue", "channels"),
        ({"routing_key": "a"}, "routing_key", "channels"),
        ({"exchange": "a"}, "exchange", "channels"),
        ({"link": {"task": "a"}}, "link", "inside the task"),
        ({"link_error": {"task": "a"}}, "link_error", "notify status"),
        ({"chord": {"task": "a"}}, "chord", "inside the task"),
        ({"chain": [{"task": "a"}]}, "chain", "inside the task"),
        ({"connection": object()}, "connection", "configure"),
        ({"serializer": "pickle"}, "serializer", "Leave it out"),
        ({"compression": "gzip"}, "compression", "Leave it out"),
        ({"time_limit": 5}, "time_limit", "expires"),
        ({"countdown": -1}, "countdown", "0 or more"),
        ({"countdown": "5"}, "countdown", "0 or more"),
        ({"eta": AT, "countdown": 5}, "eta", "one of them"),
        ({"headers": ["a"]}, "headers", "value"),
        ({"contdown": 5}, "contdown", "countdown?"),
        ({"channels": ["email"]}, "channels", "kwargs"),
    ],
)
def test_what_has_none_is_refused(options: dict[str, Any], field: str, remedy: str) -> None:
    with pytest.raises(InvalidCall) as refused:
        map_options({}, options)

    assert refused.value.field == field
    assert remedy in refused.value.remedy


@pytest.mark.parametrize(
    ("call", "options"),
    [
        ({"at": AT}, {"countdown": 5}),
        ({"message_id": "a"}, {"task_id": "b"}),
        ({"expires": 5}, {"expires": 6}),
    ],
)
def test_an_option_that_contradicts_the_call_is_refused(
    call: dict[str, Any], options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidCall, match="Keep one of"):
        map_options(call, options)


def test_an_option_that_repeats_the_call_is_fine() -> None:
    assert map_options({"message_id": "a"}, {"task_id": "a"})[0] == {"message_id": "a"}


def test_headers_of_the_caller_are_handed_on() -> None:
    assert map_options({}, {"headers": {"traceparent": "00-1"}}) == ({}, {"traceparent": "00-1"})
