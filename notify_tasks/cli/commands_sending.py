"""Commands about notifications: send, status, cancel, replay, parked. Imports nothing but argparse's kin."""

from __future__ import annotations

import argparse
from typing import Final

from notify_tasks.cli import commands_steering
from notify_tasks.cli.grammar import Commands, Parser, command, tenant


def _send(commands: Commands) -> None:
    made = command(
        commands,
        "send",
        "send:run",
        "send a notification, as send_notification.delay() does",
        """\
        Prints the message id, by which `notify status` finds it. The notification is then kept, not yet sent.
        TO is the id of a stored recipient, KEY=VALUE pairs (email, sms, push, webpush, webhook, chat, id, locale,
        timezone) separated by commas, or a JSON object of them.""",
        """\
          notify send order.shipped --to user-42 --payload '{"order_id": 981}'
          notify send order.shipped --to email=ann@example.com,locale=de --payload @order.json
          notify send order.shipped --to user-42 --to user-43 --channel email --payload '{"order_id": 981}'
          notify send invoice.paid --to user-42 --payload @invoice.json --attach invoice-981.pdf
          notify send order.shipped --to user-42 --at +10m --id order-981-shipped --payload @order.json
          id=$(notify send order.shipped --to user-42 --payload @order.json) && notify status "$id" """,
    )
    call(made)
    tenant(made)
    made.add_argument(
        "--wait",
        type=float,
        nargs="?",
        const=60.0,
        metavar="SECONDS",
        help="wait until it has ended (60 s by default) and show its timeline",
    )


def call(made: argparse.ArgumentParser) -> None:
    """What a call says, for whatever makes one or looks at one."""
    made.add_argument("event_type", metavar="TYPE", help="a type that there are templates for: order.shipped")
    made.add_argument("--to", action="append", required=True, metavar="TO", help="recipient; may be repeated")
    made.add_argument(
        "--payload", metavar="JSON", help="what the templates fill in: JSON, @FILE, or - for standard input"
    )
    made.add_argument(
        "--attach",
        action="append",
        metavar="FILE",
        help="attach a small file of this machine (256 KiB in all); may be repeated",
    )
    made.add_argument(
        "--attach-stored",
        action="append",
        metavar="PATH",
        help="attach a file that lies under the fleet's folder NOTIFY_ATTACHMENTS; may be repeated",
    )
    made.add_argument(
        "--channel",
        action="append",
        metavar="NAME",
        help="only this channel; may be repeated (default: the type's)",
    )
    made.add_argument(
        "--at", metavar="TIME", help="not before: 2030-01-31T09:00+01:00, or +90s, +10m, +2h, +1d"
    )
    made.add_argument(
        "--at-local", metavar="TIME", help="not before, on each recipient's own clock: 2030-05-01T08:00"
    )
    made.add_argument("--expires", metavar="TIME", help="worthless after; written as --at")
    made.add_argument(
        "--digest",
        metavar="WHEN",
        help="gather it: hourly, daily, 'daily 08:00', 'weekly mon 08:00'; off: at once",
    )
    made.add_argument(
        "--cancel-key", metavar="KEY", help="what `notify cancel --key KEY` stops together with others"
    )
    made.add_argument(
        "--id", metavar="ID", help="message id: the same id is the same notification (default: new)"
    )
    made.add_argument("--priority", metavar="LANE", help="high, normal or bulk (default: the type's)")
    made.add_argument("--locale", metavar="TAG", help="for recipients without their own: de, zh-Hans")
    made.add_argument(
        "--source", metavar="NAME", default="notify-cli", help="who asks (default: %(default)s)"
    )


def _status(commands: Commands) -> None:
    made = command(
        commands,
        "status",
        "status:run",
        "tell what became of a notification, and what comes next",
        """\
        One line an event: time since acceptance, what happened, to whom, and what was answered. Addresses are
        shortened. Exit status 1 where the id is not known.""",
        """\
          notify status order-981-shipped
          notify status order-981-shipped --json | jq '.notifications[].deliveries[].state'""",
    )
    made.add_argument("id", metavar="ID", help="message id")
    made.add_argument("--json", action="store_true", help="everything, for machines")
    tenant(made)


def _cancel(commands: Commands) -> None:
    made = command(
        commands,
        "cancel",
        "retiming:cancel",
        "stop what has not been sent yet: one, or all under a key",
        """\
        Works before any worker has seen the notification, too. Says what was stopped, and what was too late.
        With --key it is all that was called for, up to now, under this cancel_key. Exit status 1 where something had
        been sent.""",
        """\
          notify cancel order-981-shipped
          notify cancel --key order-981""",
    )
    made.add_argument("id", metavar="ID", nargs="?", help="message id")
    made.add_argument("--key", metavar="KEY", help="everything under this cancel_key")
    tenant(made)


def _replay(commands: Commands) -> None:
    made = command(
        commands,
        "replay",
        "replays:run",
        "send again what ended without being sent, one or many",
        f"""\
        A delivery that failed, expired, was cancelled, suppressed or is in doubt gets a new one, linked to the old,
        once; a rejected notification is planned again. One in doubt may have arrived: a replay may make it two.

        With --where it is done to many, but not to what is in doubt (`notify in-doubt resolve`). It shows what is
        meant, asks, and works in batches; ended in between, it goes on where it was when it is typed again. Without
        state=, those that failed are meant.

        {commands_steering.FILTER.replace(chr(10), chr(10) + " " * 8)}""",
        """\
          notify replay order-981-shipped
          notify replay --where "type=order.shipped channel=email provider=smtp-main code=550 since=2h" --dry-run
          notify replay --where "channel=sms since=1h" --yes
          notify replay --where "state=expired since=3h" --expires 2h""",
    )
    made.add_argument("id", metavar="ID", nargs="?", help="message id")
    commands_steering.where(made)
    made.add_argument(
        "--expires",
        metavar="SPAN",
        help="with --where: worthless after so long, as in 2h (default: as the old ones)",
    )
    commands_steering.many(made)
    tenant(made)


def _parked(commands: Commands) -> None:
    made = command(
        commands,
        "parked",
        "parked:show",
        "list messages that could not be processed, or put one back",
        """\
        A message that no worker can process is parked with its reason: never dropped, never looping. The newest are
        listed. Mend the cause before you put one back, or it is parked again.""",
        """\
          notify parked
          notify parked replay 12""",
    )
    made.add_argument("--all", action="store_true", help="list those put back already, too")
    inner = made.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    again = command(
        inner,
        "replay",
        "parked:replay",
        "put a parked message back on its queue",
        examples="  notify parked replay 12",
    )
    again.add_argument("number", type=int, metavar="NUMBER", help="as `notify parked` shows it")


ADD: Final = {"send": _send, "status": _status, "cancel": _cancel, "replay": _replay, "parked": _parked}
"""By name, what adds a command."""
