"""Words that sentences about notifications are made of: whom, when, for how long, and what a plan says. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from notify_tasks import meanings
from notify_tasks.meanings import because
from notify_tasks.store.statuses import shortened

_MAIL: Final = re.compile(r"[^\s<>()\[\]\",;:'=]+@[A-Za-z0-9.-]+")
_SAY_IT_ALL: Final = ("unknown_recipient", "no_address")
_NUMBER: Final = re.compile(r"\+\d[\d ()./-]{5,}\d")


def whom(channel: str, recipient_id: str | None, address: str) -> str:
    """`email to user-42 (an…@example.com)`; the address is shortened already."""
    if recipient_id is None:
        return f"{channel} to {address or 'an address that was erased'}"
    return f"{channel} to {recipient_id}" + (f" ({address})" if address and address != recipient_id else "")


def when(moment: datetime) -> str:
    """`2030-05-01 08:00:03 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(seconds: float) -> str:
    """`10 minutes`, `1 hour`, `36 hours`."""
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g} {name}" + ("" if seconds == unit else "s")
    return f"{seconds:g} seconds"


def scrubbed(text: str | None) -> str:
    """A text that came from outside, with every address in it shortened."""
    if not text:
        return ""
    text = _MAIL.sub(lambda found: shortened(found[0]), text)
    return _NUMBER.sub(lambda found: shortened(re.sub(r"[ ()./-]", "", found[0])), text)


def detailed(left_out: Mapping[str, Any]) -> str:
    """What a plan says besides of a recipient that it has left out, in brackets, where the reason does not say it."""
    if left_out["reason"] in _SAY_IT_ALL or not left_out.get("detail"):
        return ""
    return f" ({scrubbed(left_out['detail'])})"


def times(count: int) -> str:
    """`once`, `twice`, `3 times`."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def of_plan(planned: Mapping[str, Any]) -> str:
    """A decision of a plan, as it is stored, as a sentence."""
    codes = list(planned.get("reasons") or ([planned["reason"]] if planned.get("reason") else []))
    clauses = ", and ".join(
        [because(codes[0]), *(meanings.known(code) or f"({code})" for code in codes[1:])] if codes else []
    )
    why = f", {clauses}" if clauses else ""
    zone = f" (time zone {planned['timezone']})" if planned.get("timezone") else ""
    expires = datetime.fromisoformat(planned["expires_at"])
    more = "".join(f" {told}" for told in _parts(planned))
    if planned["state"] == "held":
        due = planned.get("due_at")
        until = f" until {when(datetime.fromisoformat(due))}" if due else ""
        return f"It was planned to be held{until}{why}{zone}.{more} It is worthless after {when(expires)}."
    if planned["state"] == "queued":
        return f"It was planned to be sent at once{why}{zone}.{more} It is worthless after {when(expires)}."
    return f"It was planned not to be sent{why}{zone}.{more}"


def _parts(planned: Mapping[str, Any]) -> Iterator[str]:
    """What a plan says of digests, limits and steps."""
    digest, throttle = planned.get("digest"), planned.get("throttle")
    if digest is not None:
        due = when(datetime.fromisoformat(digest["due_at"]))
        how = f"{digest['when']}, due at {due}"
        if digest.get("first"):
            yield f"As the first for its digest ({how}) it goes by itself."
        else:
            yield f"It is gathered into a digest of the type {digest['type']} ({how})."
    if throttle is not None:
        place = throttle.get("place")
        counted = f"it is number {place}" if place else "it comes after as many as that"
        yield f"The type allows {throttle['limit']} to one person: {counted}."
    if "behind" in planned:
        unless = f", unless it is {' or '.join(planned['unless'])}" if planned.get("unless") else ""
        behind = " or ".join(dict.fromkeys(planned["behind"]))
        yield (
            f"It is a later step: it goes {span(planned['after'])} after {behind} was sent, or at once if that "
            f"could not be sent{unless}."
        )
