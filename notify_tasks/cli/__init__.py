"""`notify`: the command line. Each command's module is loaded when it is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

USAGE: Final = 2
EXAMPLES: Final = """examples:
  notify demo                          the whole system on this machine, with a worker killed on the way
  notify send order.shipped --to ana --payload '{"order_id": 981}'
  notify status 01a207c7-16fd-71c8     what was decided, tried and answered, and what comes next
  notify doctor                        what is wrong, and what to do about it

Commands look for NOTIFY_BROKER_URL and NOTIFY_DATABASE_URL; where neither is set, for a demo that runs in .notify."""


def parser() -> argparse.ArgumentParser:
    """Every command with its options and an example."""
    top = argparse.ArgumentParser(
        prog="notify",
        description="Sends notifications once, and says what became of them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", metavar="command", required=True)

    demo = _add(commands, "demo", "run the whole system here and watch it work", "notify demo --once")
    demo.add_argument("--once", action="store_true", help="stop everything at the end, even on a terminal")
    demo.add_argument("--directory", default=".notify", help="data, logs and passwords (default: %(default)s)")

    send = _add(commands, "send", "send one notification", "notify send order.shipped --to ana --channel email")
    send.add_argument("type", help="the event type: a folder under templates/")
    send.add_argument("--to", required=True, help='a known id, or JSON such as {"email": "ana@example.com"}')
    send.add_argument("--payload", default="{}", help="JSON, or @file (default: %(default)s)")
    send.add_argument("--channel", action="append", dest="channels", help="may be repeated (default: the type's)")
    send.add_argument("--priority", help="high, normal or bulk (default: the type's lane)")
    send.add_argument("--at", help="not before: 2026-12-24T18:00:00+01:00")
    send.add_argument("--locale", help="de, zh-Hans (default: the recipient's)")
    send.add_argument("--id", dest="message_id", help="message id; a repeated one is sent once")

    status = _add(commands, "status", "tell what became of a message", "notify status ID --json")
    status.add_argument("id", help="the message id that the call returned")
    status.add_argument("--json", action="store_true", help="for machines")
    cancel = _add(commands, "cancel", "stop what has not been sent yet", "notify cancel ID")
    cancel.add_argument("id", help="the message id")
    replay = _add(commands, "replay", "send again what ended without being sent", "notify replay ID")
    replay.add_argument("id", help="the message id")
    for one in (send, status, cancel, replay):
        one.add_argument("--tenant", default="default", help="(default: %(default)s)")

    parked = _add(commands, "parked", "list messages that nobody could process", "notify parked --replay 7")
    parked.add_argument("--replay", type=int, metavar="N", help="put number N back on its queue")

    person = _add(
        commands, "recipients", "store a person's addresses", "notify recipients ana --email ana@example.com"
    )
    person.add_argument("id", help="the recipient's id")
    for channel in ("email", "sms", "push", "webhook", "chat"):
        person.add_argument(f"--{channel}", help=f"replaces the address for {channel}")
    person.add_argument("--locale", help="de, zh-Hans")
    person.add_argument("--timezone", help="Europe/Berlin")
    person.add_argument("--tenant", default="default", help="(default: %(default)s)")

    templates = _add(commands, "templates", "list, check and preview types", "notify templates check")
    templates.add_argument("action", choices=("list", "check", "preview"), help="what to do")
    templates.add_argument("type", nargs="?", help="one type (default: all; preview needs one)")
    templates.add_argument("--channel", help="preview one channel")
    templates.add_argument("--locale", help="preview in de, zh-Hans")

    _add(commands, "migrate", "bring the database to this version's schema", "notify migrate")
    _add(commands, "doctor", "look for what is wrong and say what to do", "notify doctor")
    sandbox = _add(commands, "sandbox", "run a far end of the wire by itself", "notify sandbox --directory /tmp/far")
    sandbox.add_argument("--directory", default=".notify/sandbox", help="log and certificates (default: %(default)s)")
    return top


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    about: str,
    example: str,
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}.", epilog=f"example: {example}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when it worked, 1 when it did not, 2 when the command itself was wrong.
    """
    given = parser().parse_args(arguments)
    from notify_tasks.cli import commands  # noqa: PLC0415 - `--help` needs none of it

    try:
        return commands.run(given)
    except KeyboardInterrupt:
        return 130
    except commands.USAGE_ERRORS as error:
        sys.stderr.write(f"notify: {error}\n")
        return USAGE
    except commands.ERRORS as error:
        sys.stderr.write(f"notify: {error}\n")
        return 1
