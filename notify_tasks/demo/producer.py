"""The demo's producer, a process of its own: `python -m notify_tasks.demo.producer RUN`.

It does what any producer does and knows nothing of the fleet but the broker's URL; and the far end's, where the
demo's customers have their endpoints. An act's number on a line
of stdin makes it send that act; it says in one line of JSON what became of each call, and ends with its stdin.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta

from notify_tasks import InvalidCall, MaybeAccepted, NotAccepted, send_notification
from notify_tasks.demo.cast import Call, calls

PAUSE_SECONDS = 0.08
"""Between two calls, so that one can watch."""
TRIES = 5


def send(call: Call, run: str) -> None:
    """Make one call; where nobody knows whether it was accepted, repeat it with its id."""
    for tries_left in reversed(range(TRIES)):
        try:
            send_notification.delay(
                call.event_type,
                to=call.to,
                payload=call.payload,
                message_id=call.message_id(run),
                source="demo-shop",
                channels=call.channels,
                priority=call.priority,
                at=timedelta(seconds=call.later, hours=call.hours) if call.later or call.hours else None,
                digest=call.digest,
                cancel_key=call.cancel_key and f"{run}-{call.cancel_key}",
                attachments=list(call.attachments) or None,
            )
        except (MaybeAccepted, NotAccepted):
            if not tries_left:
                raise
            time.sleep(0.2)
        else:
            return


def main(run: str) -> int:
    """Send act after act."""
    for line in sys.stdin:
        for call in calls(run, os.environ["SANDBOX_URL"]):
            if call.act != int(line):
                continue
            for _ in range(2 if call.twice else 1):
                begun = time.monotonic()
                said: dict[str, object] = {"key": call.key}
                try:
                    send(call, run)
                except (InvalidCall, MaybeAccepted, NotAccepted) as error:
                    said["error"] = str(error)
                said["seconds"] = time.monotonic() - begun
                sys.stdout.write(json.dumps(said) + "\n")
                sys.stdout.flush()
                time.sleep(PAUSE_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
