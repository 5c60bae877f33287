"""What each command does."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import redis

from notify_tasks import settings
from notify_tasks.cli.checking import examine
from notify_tasks.demo.running import DIRECTORY, read_environment
from notify_tasks.errors import InvalidCall, NotConfigured, NotifyError
from notify_tasks.store import parking, recipients, statuses
from notify_tasks.store.cancelling import cancel
from notify_tasks.store.database import Database, DatabaseError
from notify_tasks.store.migrate import migrate
from notify_tasks.terminal import timeline
from notify_tasks.terminal.looks import counted
from notify_tasks.terminal.output import Span, dim, stderr, stdout

USAGE_ERRORS: Final = (InvalidCall, argparse.ArgumentError)
ERRORS: Final = (NotifyError, DatabaseError, redis.RedisError, OSError)


def run(given: argparse.Namespace) -> int:
    """Run the command that was given."""
    if given.command not in {"demo", "sandbox", "templates"}:
        _find_demo()
    return COMMANDS[given.command](given)


def _find_demo() -> None:
    """Where nothing is configured and a demo runs here, that is what is meant."""
    if os.environ.get("NOTIFY_BROKER_URL") or os.environ.get("NOTIFY_DATABASE_URL"):
        return
    found = read_environment(Path(DIRECTORY))
    if found:
        os.environ.update(found)
        settings.reset()
        stderr().say(dim(f"talking to the demo that runs in {DIRECTORY}").text)


@contextmanager
def _store() -> Iterator[Database]:
    database = Database(settings.get().need_database_url(), connections=2, name="notify-cli")
    try:
        yield database
    finally:
        database.close()


def _demo(given: argparse.Namespace) -> int:
    from notify_tasks.demo import story  # noqa: PLC0415 - the whole fleet comes with it

    output = stdout()
    return story.run(Path(given.directory), output, stay=output.terminal and not given.once)


def _json(text: str, field: str) -> Any:
    source = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
    try:
        return json.loads(source)
    except ValueError as error:
        raise InvalidCall(field, f"not JSON ({error})", "Quote it for the shell, or write @file") from None


def _send(given: argparse.Namespace) -> int:
    from notify_tasks.producer import send_notification  # noqa: PLC0415 - Celery comes with it

    options: dict[str, Any] = {
        "channels": given.channels,
        "priority": given.priority,
        "locale": given.locale,
        "message_id": given.message_id,
    }
    if given.at:
        try:
            options["at"] = datetime.fromisoformat(given.at)
        except ValueError:
            raise InvalidCall("--at", "not a time", "Write it as 2026-12-24T18:00:00+01:00") from None
    to = _json(given.to, "--to") if given.to.startswith(("{", "[")) else given.to
    result = send_notification.delay(
        given.type,
        to=to,
        payload=_json(given.payload, "--payload"),
        tenant=given.tenant,
        **{name: value for name, value in options.items() if value is not None},
    )
    output = stdout()
    output.say(result.message_id)
    stderr().say(f"accepted; see what becomes of it: notify status {result.message_id}")
    return 0


def _status(given: argparse.Namespace) -> int:
    with _store() as database:
        found = statuses.read(database, given.id, tenant=given.tenant)
    if given.json:
        sys.stdout.write(json.dumps(asdict(found), default=str, indent=2) + "\n")
        return 0 if found.notifications else 1
    output = stdout()
    if not found.notifications and found.kept_since is None and found.cancelled_at is None:
        stderr().say(
            f"nothing is known of {given.id}: it still waits in the queue notify.intake (see `notify doctor`), it was "
            "sent to another database, or under another --tenant"
        )
        return 1
    for line in timeline.lines(found, datetime.now(UTC)):
        output.say(line)
    return 0


def _cancel(given: argparse.Namespace) -> int:
    with _store() as database:
        done = cancel(database, given.tenant, given.id)
    if done.before_intake:
        stdout().say("cancelled before any worker had seen it: it will not be sent")
    else:
        stdout().say(
            f"{counted(done.cancelled, 'delivery')} stopped, {done.too_late} too late, "
            f"{done.stopped_before} had ended before"
        )
    return 0 if done.complete else 1


def _replay(given: argparse.Namespace) -> int:
    from notify_tasks.broker import Broker  # noqa: PLC0415 - one command needs it
    from notify_tasks.fleet import Publisher  # noqa: PLC0415
    from notify_tasks.store.replaying import replay  # noqa: PLC0415

    with _store() as database:
        done = replay(database, given.id, tenant=given.tenant)
    if not done.wakes and not done.calls:
        stderr().say(f"nothing of {given.id} can be replayed: see `notify status {given.id}`")
        return 1
    broker = Broker(settings.get().need_broker_url(), timeout=5)
    Publisher(broker).wake(done.wakes)
    broker.close()
    stdout().say(f"{counted(len(done.wakes), 'delivery')} and {counted(done.calls, 'rejected call')} go again")
    return 0


def _parked(given: argparse.Namespace) -> int:
    output = stdout()
    with _store() as database:
        if given.replay is not None:
            return _replay_parked(database, given.replay)
        rows = parking.parked(database)
    if not rows:
        output.say("nothing is parked")
        return 0
    output.table(
        ("number", "parked", "queue", "reason", "bytes", "replayed"),
        [
            (
                str(row.id),
                f"{row.parked_at:%F %T}",
                row.queue,
                Span(row.reason, "parked"),
                str(row.size),
                f"{row.replayed_at:%F %T}" if row.replayed_at else "",
            )
            for row in rows
        ],
    )
    output.say(dim("put one back on its queue: notify parked --replay NUMBER").text)
    return 0


def _replay_parked(database: Database, number: int) -> int:
    found = parking.take(database, number)
    if found is None:
        raise InvalidCall("--replay", f"there is no parked message {number}", "See `notify parked`")
    queue, raw = found
    client = redis.Redis.from_url(settings.get().need_broker_url(), socket_timeout=5)
    client.lpush(queue, raw)
    client.close()
    stdout().say(f"message {number} is back on {queue}")
    return 0


def _recipients(given: argparse.Namespace) -> int:
    addresses = {
        channel: value
        for channel in ("email", "sms", "push", "webhook", "chat")
        if (value := getattr(given, channel)) is not None
    }
    with _store() as database:
        recipients.upsert(
            database, given.id, addresses, tenant=given.tenant, locale=given.locale, timezone=given.timezone
        )
    stdout().say(f"{given.id} is stored, with {counted(len(addresses), 'address', 'addresses')}")
    return 0


def _templates(given: argparse.Namespace) -> int:
    from notify_tasks import templates_check  # noqa: PLC0415 - the template engine comes with it
    from notify_tasks.rendering import Catalog  # noqa: PLC0415

    root = Path(settings.get().templates)
    output = stdout()
    if given.action == "list":
        for name in Catalog(root).names():
            output.say(name)
        return 0
    if given.action == "preview":
        if given.type is None:
            raise InvalidCall("type", "missing", f"Name one of {', '.join(Catalog(root).names())}")
        shown = templates_check.preview(root, given.type, given.channel, given.locale)
        for channel, parts in shown["channels"].items():
            output.say([Span(channel, "bold"), f"  ({parts['locale']})"])
            for part, value in parts.items():
                if part != "locale":
                    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
                    output.say(dim(part).text)
                    output.say("\n".join(f"  {line}" for line in text.splitlines()))
        return 0
    problems = templates_check.check(root, given.type)
    for problem in problems:
        output.say([Span("✖ ", "failed"), str(problem)])
    if not problems:
        output.say([Span("✔ ", "sent"), f"{counted(len(Catalog(root).names()), 'type')} in order"])
    return 1 if problems else 0


def _migrate(_: argparse.Namespace) -> int:
    done = migrate(settings.get().need_database_url(), tell=stdout().say)
    stdout().say(f"{counted(len(done), 'migration')} applied" if done else "the schema is up to date")
    return 0


def _doctor(_: argparse.Namespace) -> int:
    output, wrong = stdout(), 0
    for finding in examine():
        wrong += not finding.good
        output.say([Span("✔ " if finding.good else "✖ ", "sent" if finding.good else "failed"), finding.text])
        if finding.remedy:
            output.say(f"    {finding.remedy}")
    output.say()
    output.say("all is well" if not wrong else f"{counted(wrong, 'thing')} to mend")
    return 1 if wrong else 0


def _sandbox(given: argparse.Namespace) -> int:
    from notify_tasks.sandbox.process import start_sandbox  # noqa: PLC0415 - one command needs it

    far = start_sandbox(Path(given.directory))
    stdout().say(f"SMTP {far.smtp_url}  HTTP {far.http_url}  log {far.log_path}; Ctrl-C ends it")
    try:
        far.wait()
    except KeyboardInterrupt:
        pass
    finally:
        far.stop()
    return 0


COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "demo": _demo,
    "send": _send,
    "status": _status,
    "cancel": _cancel,
    "replay": _replay,
    "parked": _parked,
    "recipients": _recipients,
    "templates": _templates,
    "migrate": _migrate,
    "doctor": _doctor,
    "sandbox": _sandbox,
}

__all__ = ["ERRORS", "USAGE_ERRORS", "NotConfigured", "run"]
