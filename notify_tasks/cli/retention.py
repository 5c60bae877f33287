"""`notify purge`."""

from __future__ import annotations

import argparse
import json
from typing import Final

from notify_tasks import durations, retention, settings
from notify_tasks.cli import bulk
from notify_tasks.cli.context import database
from notify_tasks.retention import Purged
from notify_tasks.settings import Settings
from notify_tasks.store.purging import PARTS
from notify_tasks.terminal.output import dim, stderr, stdout

WORDS: Final = {
    "content": "notifications blanked: payload, addresses, attachments, providers' own words",
    "rows": "notifications deleted, with their deliveries, attempts and events",
    "inbox": "in-app messages deleted",
    "receipts": "receipts deleted",
    "requests": "receipts' requests deleted",
    "ids": "message ids forgotten",
    "occurrences": "occurrences of schedules forgotten",
    "parked": "parked messages deleted",
    "codes": "codes to prove an address forgotten",
}


def run(options: argparse.Namespace) -> int:
    """Purge now, or say what would go."""
    with database() as store:
        now = settings.get()
        if options.dry_run:
            return _said(retention.count(store, now), options, "would be ")
        stderr().say([dim(_kept(now))])
        if not bulk.agreed(options, "What is older goes for good.", "purge"):
            stderr().say("notify: nothing was purged")
            return 1
        with bulk.progress("rows", None) as tell:
            done = retention.purge(store, now, told=lambda page: tell(page.done))
    if done.busy:
        stderr().say("notify: another process is at it: a worker does this once an hour. Type it again later")
        return 1
    return _said(done, options, "")


def _kept(now: Settings) -> str:
    kept = retention.kept(now)
    times = (kept.content, kept.history, kept.inbox)
    content, history, inbox = (durations.text(seconds) for seconds in times)
    return f"content is kept for {content} after the end, rows for {history}, in-app messages for {inbox}"


def _said(done: Purged, options: argparse.Namespace, would: str) -> int:
    if options.json:
        stdout().plain(json.dumps({part: done.done.get(part, 0) for part in PARTS}))
        return 0
    for part in PARTS:
        if number := done.done.get(part):
            stdout().say(
                f"{number:>10} {WORDS[part].replace('s ', f's {would}', 1) if would else WORDS[part]}"
            )
    if not done.done:
        stdout().say("nothing is too old")
    return 0
