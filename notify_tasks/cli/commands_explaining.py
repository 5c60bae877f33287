"""Commands that ask why, and when: simulate, explain, reschedule. Imports nothing but argparse's kin."""

from __future__ import annotations

from typing import Final

from notify_tasks.cli.commands_sending import call
from notify_tasks.cli.grammar import Commands, command, tenant


def _simulate(commands: Commands) -> None:
    made = command(
        commands,
        "simulate",
        "simulate:run",
        "show the plan of a call, without sending anything",
        """\
        Plans the call as a worker would: recipients, preferences, suppressions, templates and configuration are those
        of the present, the instant is --now. Exit status 1 where the call would be rejected.""",
        """\
          notify simulate order.shipped --to user-42 --payload '{"order_id": 981}'
          notify simulate order.shipped --to user-42 --payload @order.json --now 2030-01-31T23:30+01:00
          notify simulate offer.ends --to user-42 --at-local 2030-05-01T08:00 --json""",
    )
    call(made)
    tenant(made)
    made.add_argument(
        "--now", metavar="TIME", help="the instant of the call; written as --at (default: the present)"
    )
    made.add_argument("--json", action="store_true", help="everything, for machines")


def _explain(commands: Commands) -> None:
    made = command(
        commands,
        "explain",
        "explain:run",
        "tell why someone did, or did not, get something",
        """\
        WHAT is a message id, or with --type or --since a recipient's id: then every call to them is told, newest first,
        also those that were rejected, dropped or not planned yet. Addresses are shortened, and nothing of a payload is
        shown: the text can be given to whoever asks. Exit status 1 where nothing is known.""",
        """\
          notify explain order-981-shipped
          notify explain user-42 --type order.shipped --since 2d
          notify explain user-42 --since 30d --json | jq '.[].message_id'""",
    )
    made.add_argument("what", metavar="WHAT", help="message id, or a recipient's id")
    made.add_argument("--type", metavar="TYPE", help="only calls of this type")
    made.add_argument("--since", metavar="SPAN", help="how far back: 90m, 12h, 2d (default: 2d)")
    made.add_argument(
        "--limit", type=int, default=50, metavar="N", help="calls at most (default: %(default)s)"
    )
    made.add_argument("--json", action="store_true", help="everything, for machines")
    tenant(made)


def _reschedule(commands: Commands) -> None:
    made = command(
        commands,
        "reschedule",
        "retiming:reschedule",
        "give what waits for its time another time",
        """\
        Moves what is still held for its time, and says what was too late: nothing is both moved and sent. Quiet hours
        and vacations are asked anew, and an expiry that counts from its time moves with it. Exit status 1 where not
        all of it was moved.""",
        """\
          notify reschedule order-981-reminder --at +2h
          notify reschedule order-981-reminder --at 2030-01-31T09:00+01:00
          notify reschedule order-981-reminder --at-local 2030-05-01T08:00""",
    )
    made.add_argument("id", metavar="ID", help="message id")
    made.add_argument(
        "--at", metavar="TIME", help="the new time: 2030-01-31T09:00+01:00, or +90s, +10m, +2h, +1d"
    )
    made.add_argument(
        "--at-local", metavar="TIME", help="the same on each recipient's own clock: 2030-05-01T08:00"
    )
    tenant(made)


ADD: Final = {"simulate": _simulate, "explain": _explain, "reschedule": _reschedule}
"""By name, what adds a command."""
