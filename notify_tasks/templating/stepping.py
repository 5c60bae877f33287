"""Reads `[[steps]]` of a notification.toml."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Final

from notify_tasks.event_type import DELIVERED, READ, Step
from notify_tasks.routing import CHANNELS

_KEYS: Final = ("channel", "channels", "after", "unless")
_UNLESS: Final = (READ, DELIVERED)
_DURATION: Final = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_HEADER: Final = re.compile(r"^\s*\[\[\s*steps\s*\]\]")
_EXAMPLE: Final = 'Write [[steps]] and channel = "push"; then [[steps]], channel = "sms" and after = "10m"'


class BadStep(ValueError):
    """A step is wrong: problem and remedy.

    Args:
        step: which one, from 0.
    """

    def __init__(self, problem: str, remedy: str, step: int = 0) -> None:
        super().__init__(problem, remedy)
        self.step = step


def line_of(source: str, step: int) -> int | None:
    """Where a step, counted from 0, begins in the file; None where it is not written as `[[steps]]`."""
    found = [number for number, line in enumerate(source.splitlines(), 1) if _HEADER.match(line)]
    return found[step] if step < len(found) else None


def steps(value: object) -> tuple[Step, ...]:
    """Read the steps.

    Raises:
        BadStep: the first one that is wrong.
    """
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
        raise BadStep("steps is not a list of tables", _EXAMPLE)
    found: list[Step] = []
    for number, table in enumerate(value):
        try:
            step = _step(table, first=number == 0)
            for before in found:
                _once(step, before)
        except BadStep as bad:
            problem, remedy = bad.args
            raise BadStep(f"steps, the {_nth(number)}: {problem}", remedy, number) from None
        found.append(step)
    if len(found) == 1:
        raise BadStep("steps has one step alone", "Add the next one, or write channels instead")
    return tuple(found)


def contradictions(values: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What in a type's policy does not go together with its steps: key, problem, remedy."""
    found = []
    if values.get("steps") and values.get("channels"):
        found.append(
            ("channels", "channels and steps are both there", "Take channels out: the steps name them")
        )
    if values.get("steps") and values.get("digest"):
        remedy = "Take one of them out: a digest goes over its channels at one time"
        found.append(("digest", "digest and steps are both there", remedy))
    if values.get("steps") and values.get("throttle"):
        remedy = "Take one of them out: what is too much for one step would go by the next"
        found.append(("throttle", "throttle and steps are both there", remedy))
    return found


def _step(table: Mapping[str, Any], *, first: bool) -> Step:
    for key in table:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            remedy = f"Did you mean {near[0]!r}?" if near else f"Keys of a step are: {', '.join(_KEYS)}"
            raise BadStep(
                f"unknown key {key!r}", f"{remedy}. A key of the type stands above the first [[steps]]"
            )
    channels = _channels(table)
    if not first:
        return Step(channels, _after(table.get("after")), _unless(table.get("unless", [])))
    for key in ("after", "unless"):
        if key in table:
            raise BadStep(f"{key} has nothing to wait for", f"Take {key} out: the first step goes at once")
    return Step(channels)


def _channels(table: Mapping[str, Any]) -> tuple[str, ...]:
    if ("channel" in table) == ("channels" in table):
        which = "both channel and channels are there" if "channel" in table else "it names no channel"
        raise BadStep(which, 'Write channel = "push", or channels = ["push", "inapp"]')
    named = table["channels"] if "channels" in table else [table["channel"]]
    if not isinstance(named, list) or not named:
        raise BadStep("channels is not a list of channels", 'Write channels = ["push", "inapp"]')
    for channel in named:
        if channel not in CHANNELS:
            near = difflib.get_close_matches(str(channel), CHANNELS, n=1)
            remedy = f"Did you mean {near[0]!r}?" if near else f"Channels are: {', '.join(CHANNELS)}"
            raise BadStep(f"there is no channel {channel!r}", remedy)
    if len(set(named)) < len(named):
        raise BadStep("it names a channel twice", "Name each one once")
    return tuple(named)


def _once(step: Step, before: Step) -> None:
    for channel in step.channels:
        if channel in before.channels:
            raise BadStep(f"{channel} is in an earlier step already", "Name each channel in one step")


def _after(value: object) -> float:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if value is None:
        raise BadStep("after is missing", 'Write how long after the step before: after = "10m"')
    if found is None or int(found[1]) == 0:
        raise BadStep("after is not a duration", 'Write one number and one unit (s, m, h, d): after = "10m"')
    return float(int(found[1]) * _SECONDS[found[2]])


def _unless(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or any(each not in _UNLESS for each in value):
        raise BadStep(
            "unless is not a list of read and delivered",
            'Write unless = ["read"]; ["delivered"] stops at what the provider reports as delivered as well',
        )
    return tuple(dict.fromkeys(value))


def _nth(number: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
    return words[number] if number < len(words) else f"number {number + 1}"
