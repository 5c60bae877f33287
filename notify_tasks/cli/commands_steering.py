"""Commands that steer a running fleet and clean up after it. Imports nothing but argparse's kin."""

from __future__ import annotations

import argparse
from typing import Final

from notify_tasks.cli.grammar import Commands, command, group, tenant

FILTER: Final = """\
FILTER is words FIELD=VALUE with spaces between them: state, type, channel, lane, provider, code (of the
last answer), reason, tenant, recipient, message (id), since and until (2h, 3d, or a time with its zone).
One of several values is written with commas, one that begins like it with *: type=order.* code=550,552."""


def where(made: argparse.ArgumentParser) -> None:
    """Add the option that says which deliveries are meant."""
    made.add_argument("--where", action="append", metavar="FILTER", help="which deliveries; may be repeated")


def many(made: argparse.ArgumentParser) -> None:
    """Add the options of a command that changes many rows."""
    made.add_argument("--dry-run", action="store_true", help="say what it would do, and change nothing")
    made.add_argument("--yes", action="store_true", help="do not ask whether it is meant")


def _top(commands: Commands) -> None:
    made = command(
        commands,
        "top",
        "top:run",
        "watch the fleet: queues, rates, states, providers, what is late",
        """\
        Refreshed every second; q or Ctrl-C ends it. Without a terminal, or with --once, one snapshot is written as
        plain lines. It asks little of the database, however large that is: waiting rows are counted up to
        10,000, the number of all deliveries is an estimate, and rates are of the last ten seconds. Redis or PostgreSQL
        away is shown, and does not end it. Exit status of --once and --json: 1 where one of them is away.""",
        """\
          notify top
          notify top --every 5
          notify top --once
          notify top --json | jq '.queues[] | select(.depth > 1000)'""",
    )
    made.add_argument("--once", action="store_true", help="one snapshot as plain lines")
    made.add_argument("--json", action="store_true", help="one snapshot, for machines")
    made.add_argument(
        "--every", type=float, default=1.0, metavar="SECONDS", help="between two looks (default: %(default)s)"
    )
    made.add_argument(
        "--key-prefix",
        default="",
        metavar="TEXT",
        help="what begins every key in that Redis, where Celery's global_keyprefix is set (default: nothing)",
    )


def _pause(commands: Commands) -> None:
    made = command(
        commands,
        "pause",
        "pauses:pause",
        "hold everything of a queue, type or tenant: the kill switch",
        """\
        Every running worker holds it within three seconds, and holds what is accepted meanwhile, too. What is being
        sent at that moment still goes out. Nothing is lost: held deliveries go when it is resumed, unless they expire
        before that.
        QUEUE is a lane's queue (notify.email.bulk), or a channel for all its lanes.""",
        """\
          notify pause --queue email --reason "incident 7: wrong links"
          notify pause --queue notify.sms.bulk --reason "the carrier asks for it"
          notify pause --type order.shipped --reason "template is being mended"
          notify pause --tenant shop-3 --reason "flood"
          notify pause --list""",
    )
    _paused(made)
    made.add_argument("--reason", metavar="TEXT", help="why: shown wherever something waits for it")
    made.add_argument(
        "--unchecked", action="store_true", help="pause a type or tenant that is not known here"
    )
    made.add_argument("--list", action="store_true", help="what is paused, by whom, since when and why")
    made.add_argument("--json", action="store_true", help="with --list, for machines")


def _resume(commands: Commands) -> None:
    made = command(
        commands,
        "resume",
        "pauses:resume",
        "let go what was paused",
        """\
        What was held goes within seconds, the high lane first, a few at the start and then more with every look. Exit
        status 1 where something named is not paused.""",
        """\
          notify resume --queue email
          notify resume --type order.shipped
          notify resume --all""",
    )
    _paused(made)
    made.add_argument("--all", action="store_true", help="everything that is paused")


def _paused(made: argparse.ArgumentParser) -> None:
    for kind in ("queue", "type", "tenant"):
        made.add_argument(f"--{kind}", action="append", metavar="NAME", help=f"this {kind}; may be repeated")


def _in_doubt(commands: Commands) -> None:
    def list_(inner: Commands) -> None:
        made = command(
            inner,
            "list",
            "doubts:list_",
            "list what is in doubt, the longest first",
            FILTER,
            """\
              notify in-doubt list
              notify in-doubt list --where "provider=twilio since=6h"
              notify in-doubt list --json | jq -r .id""",
        )
        where(made)
        made.add_argument(
            "--limit", type=int, default=50, metavar="N", help="how many at most (default: %(default)s)"
        )
        made.add_argument("--json", action="store_true", help="an object a line, for machines")

    def show(inner: Commands) -> None:
        made = command(
            inner,
            "show",
            "doubts:show",
            "tell what was tried, and by which ids the provider knows it",
            examples="  notify in-doubt show 0192f0c1-7a55-7d51-9c2e-4f0f0c1a7a55",
        )
        made.add_argument("id", metavar="ID", help="of the delivery")

    def resolve(inner: Commands) -> None:
        made = command(
            inner,
            "resolve",
            "doubts:resolve",
            "settle what is in doubt",
            f"""\
            sent: it has arrived. failed: it has not, and is not sent again. resend: it has not, and a new delivery is
            made of it, once; where it had arrived after all, it arrives twice. Who did it and why is kept in its
            timeline. Exit status 1 where something was not in doubt.

            {FILTER.replace(chr(10), chr(10) + " " * 12)}""",
            """\
              notify in-doubt resolve 0192f0c1-7a55-7d51-9c2e-4f0f0c1a7a55 --as sent --why "seen in their log"
              notify in-doubt resolve --where "provider=relay since=2h" --as resend --why "it lost them" --dry-run""",
        )
        made.add_argument(
            "ids", nargs="*", metavar="ID", help="of the delivery, as `notify in-doubt list` shows it"
        )
        where(made)
        made.add_argument(
            "--as", dest="word", choices=("sent", "failed", "resend"), required=True, help="what became of it"
        )
        made.add_argument("--why", metavar="TEXT", help="what makes you sure: kept with it")
        many(made)

    text = """\
        A delivery is in doubt where its last call may have reached the provider and nobody knows: the worker ended, or
        the answer did not come, and it cannot be asked. A receipt or a late answer settles it by itself within 72
        hours. What is left is yours: look it up at the provider."""
    group(
        commands, "in-doubt", "list and settle deliveries of which nobody knows", text, (list_, show, resolve)
    )


def _purge(commands: Commands) -> None:
    made = command(
        commands,
        "purge",
        "retention:run",
        "blank old content and delete old rows, now",
        """\
        Workers do the same once an hour. Content (payloads, addresses, attachments, providers' own words) goes
        NOTIFY_CONTENT_KEPT after a notification's last delivery has ended, whole rows NOTIFY_HISTORY_KEPT after it was
        accepted, in-app messages NOTIFY_INBOX_KEPT after they were stored. What is not final is never touched. It
        works in small transactions, so that sends go on; ended in between, it goes on when it is typed again.""",
        """\
          notify purge --dry-run
          notify purge
          NOTIFY_CONTENT_KEPT=1d notify purge --yes""",
    )
    many(made)
    made.add_argument("--json", action="store_true", help="what was done, for machines")


def _erase(commands: Commands) -> None:
    made = command(
        commands,
        "erase",
        "people:erase",
        "erase a recipient and what was sent to them, for good",
        """\
        One transaction: addresses, in-app messages, preferences, and the content of notifications to them alone go;
        what waits for them is cancelled. Ids, states, times and suppressed addresses stay. The same as
        `notify recipients erase`. Exit status 1 where there is nothing of them.""",
        """\
          notify erase user-42 --dry-run
          notify erase user-42
          notify erase user-42 --yes --tenant shop-3""",
    )
    made.add_argument("id", metavar="RECIPIENT", help="the recipient's id")
    many(made)
    tenant(made)


ADD: Final = {
    "top": _top,
    "pause": _pause,
    "resume": _resume,
    "in-doubt": _in_doubt,
    "purge": _purge,
    "erase": _erase,
}
"""By name, what adds a command."""
