"""`notify explain`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from notify_tasks import steering
from notify_tasks.cli.context import find_fleet
from notify_tasks.cli.send import moment
from notify_tasks.errors import InvalidCall
from notify_tasks.explaining import Explanation
from notify_tasks.terminal.output import bold, dim, stderr, stdout
from notify_tasks.wording import when

NOTHING = """\
notify: nothing is known of {what} (tenant {tenant}){about}. Either
  - no call named them in this time: look further back with --since 30d
  - the call is still in Redis, and no worker of its queue has taken it: type `notify doctor`
  - the call went to another fleet, or belongs to another tenant: add --tenant NAME
  - the call gave a bare address, and no id: ask by its message id"""


def run(options: argparse.Namespace) -> int:
    """Tell why something was sent, or was not."""
    since = _since(options.since)
    find_fleet()
    found: Sequence[Explanation] = ()
    if options.type is None and options.since is None:
        told = steering.explain(options.what, tenant=options.tenant)
        found = () if told is None else (told,)
    if not found:
        found = steering.explain_recipient(
            options.what, event_type=options.type, since=since, limit=options.limit, tenant=options.tenant
        )
    out = stdout()
    if options.json:
        out.plain(json.dumps([it.as_json() for it in found], indent=2, ensure_ascii=False))
        return 0 if found else 1
    if not found:
        about = f" since {when(datetime.now(UTC) - since)}" + (
            f", of the type {options.type}" if options.type else ""
        )
        stderr().say(NOTHING.format(what=options.what, tenant=options.tenant, about=about))
        return 1
    for position, it in enumerate(found):
        if position:
            out.say()
        _show(it)
    if len(found) == options.limit:
        stderr().say([dim(f"the newest {options.limit}; --limit shows more")])
    return 0


def _show(it: Explanation) -> None:
    out = stdout()
    out.say([bold(it.message_id), f"  {it.event_type or ''}"])
    about = ""
    for told in it.sentences:
        if told.about != about:
            about = told.about
            out.say(["  ", bold(about)] if about else "")
        out.say(["    " if about else "  ", told.text], wrap=True)


def _since(text: str | None) -> timedelta:
    if text is None:
        return steering.SINCE
    span = moment("--since", f"+{text.removeprefix('+')}")
    if not isinstance(span, timedelta) or not span:
        raise InvalidCall("--since", "it is not a span", "Write --since 2d, or 90m, 12h")
    return span
