"""The commands and their options, with help that teaches by examples. Imports nothing but argparse's kin."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from difflib import get_close_matches
from textwrap import dedent, indent
from typing import Any, Final, NoReturn

PROGRAM: Final = "notify"
TENANT: Final = "default"
DIRECTORY: Final = ".notify"
LONGEST_COMMAND: Final = len("recipients")
WIDEST: Final = 110
"""Columns of help at most, however wide the terminal."""

SUMMARY: Final = """\
Send notifications, see what became of them, and look after the fleet that carries them.

The fleet is named by NOTIFY_BROKER_URL (Redis) and NOTIFY_DATABASE_URL (PostgreSQL). Where neither is set and
a demo runs in this folder, the commands speak to the demo.
"""
EXAMPLES: Final = """\
start here:
  notify demo                                          a whole fleet on this machine
  notify send order.shipped --to user-42 --payload '{"order_id": 981}'
  notify status 0192f0c1-7a55-7d51-9c2e-4f0f0c1a7a55   what became of it

Each command has examples: `notify send --help`.
"""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Texts as they are written, and options in one column wide enough for all of them."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=min(shutil.get_terminal_size().columns, WIDEST))
        self._action_max_length = LONGEST_COMMAND + 4  # it forgets that commands are indented twice


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line that say what to type next."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{PROGRAM}: {message}. Type `{self.prog} --help` for how it is written\n")
        raise SystemExit(2)


def build() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog=PROGRAM,
        description=SUMMARY,
        epilog=EXAMPLES,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for add in (
        _demo, _send, _status, _cancel, _replay, _recipients, _parked, _templates, _migrate, _doctor, _sandbox,
    ):  # fmt: skip
        add(commands)
    return parser


def check_name(parser: argparse.ArgumentParser, name: str) -> None:
    """Say of a mistyped command which one was meant."""
    names = next(list(it.choices) for it in parser._actions if isinstance(it.choices, dict))  # noqa: SLF001 - no other way
    if name.startswith("-") or name in names:
        return
    near = get_close_matches(name, names, n=1)
    remedy = f"Did you mean `{PROGRAM} {near[0]}`?" if near else f"There are {', '.join(names)}"
    sys.stderr.write(f"{PROGRAM}: there is no command {name!r}. {remedy}\n")
    raise SystemExit(2)


class _Version(argparse.Action):
    def __call__(self, *_: Any) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - slow, and seldom asked

        try:
            number = version("notify-tasks")
        except PackageNotFoundError:
            number = "of a checkout that is not installed"
        sys.stdout.write(f"notify-tasks {number}\n")
        raise SystemExit(0)


Commands = Any
"""argparse's own class for it is private."""


def _command(
    commands: Commands, name: str, run: str, short: str, text: str = "", examples: str = ""
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=short,
        description=f"{short[0].upper()}{short[1:]}.\n\n{dedent(text)}".strip(),
        epilog="examples:\n" + indent(dedent(examples).rstrip(), "  ") if examples else None,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    made.set_defaults(run=run)
    return made


def _group(
    commands: Commands, name: str, short: str, text: str, adders: tuple[Callable[[Commands], None], ...]
) -> None:
    made = _command(commands, name, "", short, text)
    inner = made.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for add in adders:
        add(inner)


def _tenant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tenant", default=TENANT, metavar="NAME", help="whose it is (default: %(default)s)")


# --- one function a command -----------------------------------------------------------------------------


def _demo(commands: Commands) -> None:
    made = _command(
        commands,
        "demo",
        "demo:run",
        "run the whole system on this machine and watch it work",
        """\
        Starts Valkey and PostgreSQL (from wheels, on free ports), a far end that takes the messages, workers, beat
        and Flower. A producer process sends two dozen notifications, a worker is killed in between, and every
        notification's timeline is shown. On a terminal everything runs on until Ctrl-C; `notify send` and the other
        commands, typed in the same folder, speak to it meanwhile.

        Exit status 0 means: every notification ended as it should.""",
        """\
          notify demo
          notify demo --once              stop everything at the end, as without a terminal
          notify demo --directory /tmp/d  keep data and logs elsewhere""",
    )
    made.add_argument(
        "--once", action="store_true", help="stop at the end instead of running on until Ctrl-C"
    )
    made.add_argument(
        "--directory",
        default=DIRECTORY,
        metavar="DIR",
        help="data, logs and passwords (default: %(default)s)",
    )
    made.add_argument(
        "--use-environment",
        action="store_true",
        help="use the servers that NOTIFY_BROKER_URL and NOTIFY_DATABASE_URL name, which must be for trying only",
    )


def _send(commands: Commands) -> None:
    made = _command(
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
          notify send order.shipped --to user-42 --at +10m --id order-981-shipped --payload @order.json
          id=$(notify send order.shipped --to user-42 --payload @order.json) && notify status "$id" """,
    )
    made.add_argument("event_type", metavar="TYPE", help="a type that there are templates for: order.shipped")
    made.add_argument("--to", action="append", required=True, metavar="TO", help="recipient; may be repeated")
    made.add_argument(
        "--payload", metavar="JSON", help="what the templates fill in: JSON, @FILE, or - for standard input"
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
    made.add_argument("--expires", metavar="TIME", help="worthless after; written as --at")
    made.add_argument(
        "--id", metavar="ID", help="message id: the same id is the same notification (default: new)"
    )
    made.add_argument("--priority", metavar="LANE", help="high, normal or bulk (default: the type's)")
    made.add_argument("--locale", metavar="TAG", help="for recipients without their own: de, zh-Hans")
    made.add_argument(
        "--source", metavar="NAME", default="notify-cli", help="who asks (default: %(default)s)"
    )
    _tenant(made)
    made.add_argument(
        "--wait",
        type=float,
        nargs="?",
        const=60.0,
        metavar="SECONDS",
        help="wait until it has ended (60 s by default) and show its timeline",
    )


def _status(commands: Commands) -> None:
    made = _command(
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
    _tenant(made)


def _cancel(commands: Commands) -> None:
    made = _command(
        commands,
        "cancel",
        "steer:cancel",
        "stop what has not been sent yet",
        """\
        Works before any worker has seen the notification, too. Says what was stopped, and what was too late.
        Exit status 1 where something had been sent.""",
        "  notify cancel order-981-shipped",
    )
    made.add_argument("id", metavar="ID", help="message id")
    _tenant(made)


def _replay(commands: Commands) -> None:
    made = _command(
        commands,
        "replay",
        "steer:replay",
        "send again what ended without being sent",
        """\
        A delivery that failed, expired, was cancelled, suppressed or is in doubt gets a new one, linked to the old;
        a rejected notification is planned again. One in doubt may have arrived: a replay may make it two.""",
        "  notify replay order-981-shipped",
    )
    made.add_argument("id", metavar="ID", help="message id")
    _tenant(made)


def _recipients(commands: Commands) -> None:
    def add(inner: Commands) -> None:
        made = _command(
            inner,
            "add",
            "people:add",
            "store a recipient, or change one",
            "An address replaces those that the recipient had on the same channel; what is not named stays.",
            "  notify recipients add user-42 --email ann@example.com --sms +4915112345678 --locale de",
        )
        made.add_argument("id", metavar="ID", help="the id that producers use")
        for channel, example in (
            ("email", "ann@example.com"),
            ("sms", "+4915112345678"),
            ("push", "device token"),
            ("webpush", "PushSubscription as JSON"),
            ("webhook", "https://example.com/notifications"),
            ("chat", "room or member"),
        ):
            made.add_argument(f"--{channel}", metavar="ADDRESS", help=example)
        made.add_argument("--locale", metavar="TAG", help="de, pt-BR, zh-Hans")
        made.add_argument("--timezone", metavar="NAME", help="Europe/Berlin")
        _tenant(made)

    _group(commands, "recipients", "store the people that notifications go to", "", (add,))


def _parked(commands: Commands) -> None:
    made = _command(
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
    inner = made.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    again = _command(
        inner,
        "replay",
        "parked:replay",
        "put a parked message back on its queue",
        examples="  notify parked replay 12",
    )
    again.add_argument("number", type=int, metavar="NUMBER", help="as `notify parked` shows it")


def _templates(commands: Commands) -> None:
    def check(inner: Commands) -> None:
        made = _command(
            inner,
            "check",
            "types:check",
            "render every file of every type with its example",
            "Says file, line and remedy of each problem. Exit status 1 where there is one.",
            "  notify templates check\n  notify templates check order.shipped",
        )
        made.add_argument("type", nargs="?", metavar="TYPE", help="only this one")

    def preview(inner: Commands) -> None:
        made = _command(
            inner,
            "preview",
            "types:preview",
            "show a type as people will get it",
            "",
            "  notify templates preview order.shipped\n"
            "  notify templates preview order.shipped --channel email --locale de\n"
            "  notify templates preview order.shipped --json | jq -r .channels.email.html > mail.html",
        )
        made.add_argument("type", metavar="TYPE")
        made.add_argument("--channel", metavar="NAME", help="only this one")
        made.add_argument("--locale", metavar="TAG", help="a person's: de, zh-Hans-CN")
        made.add_argument("--json", action="store_true", help="everything, with HTML, for machines")

    def list_(inner: Commands) -> None:
        _command(inner, "list", "types:show", "list the types with their channels, lanes and locales")

    text = "A type is a folder under NOTIFY_TEMPLATES (default: templates)."
    _group(commands, "templates", "check, preview and list notification types", text, (check, preview, list_))


def _migrate(commands: Commands) -> None:
    _command(
        commands,
        "migrate",
        "steer:migrate",
        "bring the database to this version's schema",
        """\
        Forward only, one transaction a step, safe to run twice at once. Migrate first, then replace the workers:
        they run on a schema that is one step newer than theirs.""",
        "  notify migrate",
    )


def _doctor(commands: Commands) -> None:
    _command(
        commands,
        "doctor",
        "checkup:run",
        "say what is wrong, and what to do about it",
        """\
        Looks at Redis, PostgreSQL, the schema, providers, templates, the sweep, queues that nobody consumes, parked
        messages and counters. Exit status 1 where something is wrong.""",
        "  notify doctor",
    )


def _sandbox(commands: Commands) -> None:
    made = _command(
        commands,
        "sandbox",
        "far_end:run",
        "run a far end that takes messages and misbehaves on demand",
        """\
        A real SMTP server (STARTTLS, AUTH) and an HTTP far end for the sandbox providers. It writes every request to
        a log. An address can ask for trouble: bounce@, reject@, flaky@, throttle@, slow@ and lost@ anything.""",
        """\
          notify sandbox
          notify sandbox --smtp-port 1025 --http-port 8025""",
    )
    made.add_argument(
        "--directory", default=f"{DIRECTORY}/sandbox", metavar="DIR", help="log and certificate"
    )
    for name in ("smtp", "http", "control"):
        made.add_argument(f"--{name}-port", type=int, default=0, metavar="PORT", help="default: a free one")
