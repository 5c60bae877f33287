"""Commands about recurring schedules. Imports nothing but argparse's kin."""

from __future__ import annotations

import argparse
from typing import Final

from notify_tasks.cli.grammar import Commands, command, group, tenant


def _schedules(commands: Commands) -> None:
    text = """\
        A schedule makes the same call again and again, on the minute, in a named time zone. Where clocks change, a time
        that is left out becomes the first minute after it, and a time that comes twice counts once."""
    adders = (_add, _list, _show, _pause, _resume, _remove)
    group(commands, "schedules", "calls that are made again and again", text, adders)


def _add(inner: Commands) -> None:
    made = command(
        inner,
        "add",
        "schedules:add",
        "store a schedule, or replace the one of this id",
        """\
        Needs --cron or --rrule. Prints the next occurrences. Adding the same again changes no times; another rule holds
        for what is to come.""",
        """\
          notify schedules add weekly-report report.weekly --cron '30 8 * * MON' --timezone Europe/Berlin --to user-42
          notify schedules add rent rent.due --rrule 'FREQ=MONTHLY;BYMONTHDAY=-1;BYHOUR=9;BYMINUTE=0' --to user-42
          notify schedules add digest-mail mail.digest --cron @daily --to user-42 --missed skip --expires 6h""",
    )
    _id(made)
    made.add_argument("event_type", metavar="TYPE", help="a type that there are templates for: report.weekly")
    made.add_argument(
        "--cron", metavar="RULE", help="minute, hour, day of month, month, day of week; or @daily and its kin"
    )
    made.add_argument(
        "--rrule", metavar="RULE", help="RFC 5545, as in FREQ=WEEKLY;BYDAY=MO;BYHOUR=9;BYMINUTE=0"
    )
    made.add_argument(
        "--timezone",
        metavar="NAME",
        default="UTC",
        help="whose clock counts: Europe/Berlin (default: %(default)s)",
    )
    made.add_argument(
        "--missed",
        metavar="POLICY",
        default="once",
        help="what goes out of what was missed: once (the latest), all, or skip (none) (default: %(default)s)",
    )
    made.add_argument("--starts", metavar="TIME", help="nothing before: 2030-01-31T09:00+01:00, or +1d")
    made.add_argument("--ends", metavar="TIME", help="nothing after; written as --starts")
    made.add_argument(
        "--to",
        action="append",
        required=True,
        metavar="TO",
        help="recipient, as in `notify send`; may be repeated",
    )
    made.add_argument("--payload", metavar="JSON", help="JSON, @FILE, or - for standard input")
    made.add_argument("--channel", action="append", metavar="NAME", help="only this channel; may be repeated")
    made.add_argument("--expires", metavar="SPAN", help="each call is worthless so long after its time: 6h")
    made.add_argument("--priority", metavar="LANE", help="high, normal or bulk (default: the type's)")
    made.add_argument("--locale", metavar="TAG", help="for recipients without their own: de, zh-Hans")
    made.add_argument(
        "--source", metavar="NAME", default="notify-cli", help="who asks (default: %(default)s)"
    )
    tenant(made)


def _list(inner: Commands) -> None:
    made = command(
        inner,
        "list",
        "schedules:list_",
        "list schedules, with their next occurrence",
        "A page at a time, in the order of their ids. With --json, an object a line.",
        "  notify schedules list\n  notify schedules list --prefix report- --json | jq -r .next_at",
    )
    made.add_argument("--prefix", default="", metavar="TEXT", help="how their ids begin")
    made.add_argument("--after", metavar="ID", help="the page after this id")
    made.add_argument("--limit", type=int, default=100, metavar="N", help="at most (default: %(default)s)")
    made.add_argument("--json", action="store_true", help="everything, for machines")
    tenant(made)


def _show(inner: Commands) -> None:
    made = command(
        inner,
        "show",
        "schedules:show",
        "show one schedule and its next occurrences",
        "In its own zone and in UTC. Exit status 1 where it is not known.",
        "  notify schedules show weekly-report\n  notify schedules show weekly-report --next 20",
    )
    _id(made)
    made.add_argument(
        "--next", type=int, default=5, metavar="N", help="how many occurrences (default: %(default)s)"
    )
    made.add_argument("--json", action="store_true", help="with its call, for machines")
    tenant(made)


def _pause(inner: Commands) -> None:
    made = command(
        inner,
        "pause",
        "schedules:pause",
        "let a schedule rest",
        "Calls that it has made go their way: `notify cancel` stops them.",
        "  notify schedules pause weekly-report",
    )
    _id(made)
    tenant(made)


def _resume(inner: Commands) -> None:
    made = command(
        inner,
        "resume",
        "schedules:resume",
        "let a paused schedule go on",
        "With what is to come: what fell into the pause does not go out.",
        "  notify schedules resume weekly-report",
    )
    _id(made)
    tenant(made)


def _remove(inner: Commands) -> None:
    made = command(
        inner,
        "remove",
        "schedules:remove",
        "remove a schedule",
        "Calls that it has made go their way: `notify cancel` stops them. Exit status 1 where it is not known.",
        "  notify schedules remove weekly-report",
    )
    _id(made)
    tenant(made)


def _id(made: argparse.ArgumentParser) -> None:
    made.add_argument("id", metavar="ID", help="the schedule's id: letters, digits, dots, - and _")


ADD: Final = {"schedules": _schedules}
"""By name, what adds a command."""
