"""Commands about what people want. Imports nothing but argparse's kin."""

from __future__ import annotations

import argparse
from typing import Final

from notify_tasks.cli.grammar import Commands, command, group, tenant


def _preferences(commands: Commands) -> None:
    def show(inner: Commands) -> None:
        made = command(
            inner,
            "show",
            "preferences:show",
            "show what a person has chosen",
            "Exit status 1 where nobody has this id.",
            "  notify preferences show user-42\n  notify preferences show user-42 --json | jq .settings",
        )
        _person(made)
        made.add_argument("--json", action="store_true", help="for machines")
        tenant(made)

    def set_(inner: Commands) -> None:
        made = command(
            inner,
            "set",
            "preferences:set_",
            "change what is named, and keep everything else",
            """\
            WHAT is a category, or category:channel; * stands for every one. The most specific choice holds. Types that
            are required ask nobody. What waits and has been switched off is not sent.""",
            """\
              notify preferences set user-42 --off orders:sms --off '*:chat'
              notify preferences set user-42 --daily comments:email
              notify preferences set user-42 --quiet-hours 22:00-07:00 --days mon,tue,wed,thu,sun
              notify preferences set user-42 --vacation 2030-07-01T00:00+02:00/2030-07-15T00:00+02:00 --drop
              notify preferences set user-42 --quiet-hours none --default orders:sms
              notify preferences set user-42 --order sms,push --order orders:email,sms""",
        )
        _person(made)
        made.add_argument("--on", action="append", metavar="WHAT", help="switch it on; may be repeated")
        made.add_argument("--off", action="append", metavar="WHAT", help="switch it off")
        made.add_argument(
            "--daily", action="append", metavar="WHAT", help="gather it, where its types have a digest"
        )
        made.add_argument("--weekly", action="append", metavar="WHAT", help="the same, once a week")
        made.add_argument("--default", action="append", metavar="WHAT", help="take such a choice back")
        made.add_argument("--quiet-hours", metavar="SPAN", help="as in 22:00-07:00; none removes them")
        made.add_argument("--days", metavar="DAYS", help="on which they begin: mon,tue (default: every day)")
        made.add_argument("--timezone", metavar="ZONE", help="of the quiet hours (default: the person's own)")
        made.add_argument(
            "--vacation", metavar="SPAN", help="FROM/UNTIL or UNTIL, with zones; none removes it"
        )
        made.add_argument(
            "--order",
            action="append",
            metavar="CHANNELS",
            help="which to try first: sms,push, or category:sms,push; none instead of channels takes it back",
        )
        made.add_argument("--drop", action="store_true", help="send nothing of what comes in the vacation")
        _version(made)
        tenant(made)

    def reset(inner: Commands) -> None:
        made = command(
            inner,
            "reset",
            "preferences:reset",
            "take every choice of a person back",
            "The types' defaults hold again. The history stays.",
            "  notify preferences reset user-42",
        )
        _person(made)
        _version(made)
        tenant(made)

    def history(inner: Commands) -> None:
        made = command(
            inner,
            "history",
            "preferences:history",
            "list who changed what and when, newest first",
            "",
            "  notify preferences history user-42",
        )
        _person(made)
        made.add_argument(
            "--limit", type=int, default=20, metavar="N", help="how many at most (default: %(default)s)"
        )
        made.add_argument("--json", action="store_true", help="an object a line, for machines")
        tenant(made)

    text = """\
        What a person gets: categories on and off by channel, quiet hours, a vacation. Services change it by
        `notify_tasks.preferences`; these commands are for looking and mending."""
    group(commands, "preferences", "what people want to get, and when", text, (show, set_, reset, history))


def _person(made: argparse.ArgumentParser) -> None:
    made.add_argument("id", metavar="ID", help="the id that producers use")


def _version(made: argparse.ArgumentParser) -> None:
    made.add_argument("--if-version", type=int, metavar="N", help="only where this is the stored version")


ADD: Final = {"preferences": _preferences}
"""By name, what adds a command."""
