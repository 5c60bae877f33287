"""`notify send`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from notify_tasks.attachments import MAX_CONTENT_BYTES
from notify_tasks.cli.context import database, find_fleet
from notify_tasks.errors import InvalidCall
from notify_tasks.local_time import LocalTime
from notify_tasks.terminal.output import dim, stderr, stdout

if TYPE_CHECKING:
    from notify_tasks.store.statuses import Found

_SPAN: Final = re.compile(r"\+([0-9]+(?:\.[0-9]+)?)([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PAIR: Final = re.compile(r"[a-z_]+=")
LOOK_EVERY: Final = 0.2


def run(options: argparse.Namespace) -> int:
    """Send, print the message id, and wait if asked to."""
    call = call_of(options)
    find_fleet()
    from notify_tasks import send_notification  # noqa: PLC0415 - Celery, which checks that fail do without

    result = send_notification.delay(options.event_type, **call)
    stdout().say(result.id)
    sys.stdout.flush()
    if options.wait is None:
        stderr().say([dim(f"kept; type `notify status {result.id}` to see what becomes of it")])
        return 0
    return _wait(result.id, options)


def call_of(options: argparse.Namespace) -> dict[str, Any]:
    """The keywords of the call as it is typed.

    Raises:
        InvalidCall: one of them cannot be read.
    """
    to = [recipient(text) for text in options.to]
    return {
        "to": to[0] if len(to) == 1 else to,
        "payload": payload(options.payload),
        "message_id": options.id,
        "source": options.source,
        "tenant": options.tenant,
        "channels": options.channel,
        "priority": options.priority,
        "at": at(options),
        "expires": moment("--expires", options.expires),
        "locale": options.locale,
        "cancel_key": options.cancel_key,
        "digest": options.digest,
        "attachments": attachments(options.attach, options.attach_stored),
    }


def recipient(text: str) -> str | dict[str, Any]:
    """A recipient as it is typed: an id, `email=ann@example.com,locale=de`, or a JSON object.

    Raises:
        InvalidCall: it is none of them.
    """
    if text.startswith("{"):
        found = _json("--to", text)
        if not isinstance(found, dict):
            raise InvalidCall(
                "--to", "it is not a JSON object", 'Write --to \'{"email": "ann@example.com"}\''
            )
        return found
    if _PAIR.match(text):
        pairs = (pair.partition("=") for pair in text.split(","))
        return {key.strip(): value.strip() for key, _, value in pairs}
    for sign, key in (("@", "email"), ("+", "sms")):
        if sign in text:
            raise InvalidCall(
                "--to", "it looks like an address, and a bare word is an id", f"Write --to {key}=ADDRESS"
            )
    return text


def payload(text: str | None) -> Any:
    """The payload as it is typed: JSON, `@FILE`, or `-` for standard input.

    Raises:
        InvalidCall: it cannot be read.
    """
    if text is None:
        return None
    if text == "-":
        return _json("--payload", sys.stdin.read())
    if text.startswith("@"):
        try:
            return _json("--payload", Path(text[1:]).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            why = f"the file {text[1:]} cannot be read ({type(error).__name__})"
            raise InvalidCall("--payload", why, "Name a text file with JSON") from None
    return _json("--payload", text)


def attachments(files: Sequence[str] | None, stored: Sequence[str] | None) -> list[dict[str, Any]] | None:
    """The attachments as they are typed: files of this machine, and paths under the fleet's folder.

    Raises:
        InvalidCall: a file cannot be read, or is too large for a call.
    """
    found: list[dict[str, Any]] = [{"name": Path(file).name, "content": _bytes(file)} for file in files or ()]
    found += [{"name": path.rpartition("/")[2], "file": path} for path in stored or ()]
    return found or None


def _bytes(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_CONTENT_BYTES + 1)
    except OSError as error:
        why = f"the file {path} cannot be read ({type(error).__name__})"
        raise InvalidCall("--attach", why, "Name a file that you may read") from None
    if len(content) > MAX_CONTENT_BYTES:
        raise InvalidCall(
            "--attach",
            f"the file {path} has more than the {MAX_CONTENT_BYTES} bytes of a call",
            "Put it under the fleet's folder NOTIFY_ATTACHMENTS and write --attach-stored PATH",
        )
    return content


def at(options: argparse.Namespace) -> datetime | timedelta | LocalTime | None:
    """The time for which it is called, as it is typed: `--at`, or `--at-local`.

    Raises:
        InvalidCall: it cannot be read, or both are given.
    """
    if options.at_local is None:
        return moment("--at", options.at)
    if options.at is not None:
        raise InvalidCall("--at-local", "--at is given as well", "Keep one of them")
    return LocalTime.parse(options.at_local, "--at-local")


def moment(option: str, text: str | None) -> datetime | timedelta | None:
    """A time as it is typed: with a zone, or a span from now.

    Raises:
        InvalidCall: it is neither.
    """
    if text is None:
        return None
    if span := _SPAN.fullmatch(text):
        return timedelta(**{_UNITS[span[2]]: float(span[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidCall(
            option, "it is not a time", f"Write {option} 2030-01-31T09:00+01:00, or {option} +10m"
        ) from None
    if found.tzinfo is None:
        raise InvalidCall(option, "the time has no zone", f"Write {option} {text}+01:00, or Z for UTC")
    return found


def _json(option: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        remedy = f"Write {option} '{{\"order_id\": 981}}', with the quotes"
        raise InvalidCall(option, f"it is not JSON{where}", remedy) from None


def _wait(message_id: str, options: argparse.Namespace) -> int:
    from notify_tasks.store import statuses  # noqa: PLC0415 - only where it waits
    from notify_tasks.terminal.timeline import lines  # noqa: PLC0415 - as above

    ends = time.monotonic() + options.wait
    with database() as store:
        while True:
            found = statuses.read(store, message_id, tenant=options.tenant)
            if _ended(found) or time.monotonic() > ends:
                break
            time.sleep(LOOK_EVERY)
    errors = stderr()
    for line in lines(found, datetime.now(UTC)):
        errors.say(line)
    if not _ended(found):
        errors.say(f"not ended within {options.wait:g} s; type `notify status {message_id}` later")
        return 1
    states = {it.state for status in found.notifications for it in status.deliveries}
    return 0 if states and states <= {"sent", "delivered"} else 1


def _ended(found: Found) -> bool:
    from notify_tasks.states import FINAL  # noqa: PLC0415 - as above

    return bool(found.notifications) and all(
        it.state in FINAL for status in found.notifications for it in status.deliveries
    )
