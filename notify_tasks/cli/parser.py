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
        _demo, _send, _status, _cancel, _replay, _recipients, _parked, _templates, _config, _migrate, _doctor, _health,
        _sandbox,
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
          notify send invoice.paid --to user-42 --payload @invoice.json --attach invoice-981.pdf
          notify send order.shipped --to user-42 --at +10m --id order-981-shipped --payload @order.json
          id=$(notify send order.shipped --to user-42 --payload @order.json) && notify status "$id" """,
    )
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
            """\
            What is not named stays. The addresses given for a channel are all it has from then on: give an option
            twice for two addresses. Each is checked, and stored in its usual form.""",
            """\
              notify recipients add user-42 --email ann@example.com --sms +4915112345678 --locale de
              notify recipients add user-42 --timezone Europe/Berlin
              notify recipients add user-42 --push TOKEN-OF-PHONE --push TOKEN-OF-TABLET
              notify recipients add user-42 --remove sms --remove chat""",
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
            made.add_argument(f"--{channel}", action="append", metavar="ADDRESS", help=example)
        made.add_argument("--locale", metavar="TAG", help="de, pt-BR, zh-Hans")
        made.add_argument("--timezone", metavar="NAME", help="Europe/Berlin")
        made.add_argument(
            "--remove",
            action="append",
            metavar="FIELD",
            help="a channel, locale or timezone; may be repeated",
        )
        _tenant(made)

    def show(inner: Commands) -> None:
        made = _command(
            inner,
            "show",
            "people:show",
            "show what is stored of a recipient",
            "Addresses are shortened, but for --json. Exit status 1 where the id is not known.",
            "  notify recipients show user-42\n  notify recipients show user-42 --json | jq .addresses.email",
        )
        made.add_argument("id", metavar="ID", help="the id that producers use")
        made.add_argument(
            "--json", action="store_true", help="everything, with whole addresses, for machines"
        )
        _tenant(made)

    def list_(inner: Commands) -> None:
        made = _command(
            inner,
            "list",
            "people:list_",
            "list recipients by their ids",
            """\
            A page at a time: the last line says how to get the next one. Addresses are shortened, but for --json,
            which writes an object a line.""",
            """\
              notify recipients list
              notify recipients list --prefix user- --channel sms --limit 20
              notify recipients list --after user-42
              notify recipients list --json --limit 1000 | jq -r .id""",
        )
        made.add_argument("--prefix", default="", metavar="TEXT", help="those whose ids begin so")
        made.add_argument("--channel", metavar="NAME", help="those with an address there")
        made.add_argument("--after", metavar="ID", help="those behind this one")
        made.add_argument(
            "--limit", type=int, default=50, metavar="N", help="how many at most (default: %(default)s)"
        )
        made.add_argument(
            "--json", action="store_true", help="everything, with whole addresses, for machines"
        )
        _tenant(made)

    def erase(inner: Commands) -> None:
        made = _command(
            inner,
            "erase",
            "people:erase",
            "erase a recipient, and what was sent to them",
            """\
            Stops what waits for the person, and deletes contact points, in-app messages, addresses, and the contents
            of notifications to this person alone. Ids, states and times stay, and so do suppressed addresses, because
            they keep the fleet from writing there again. It cannot be undone: on a terminal it asks first, without
            one it needs --yes. Exit status 1 where nothing is known of the id.""",
            "  notify recipients erase user-42\n  notify recipients erase user-42 --yes",
        )
        made.add_argument("id", metavar="ID", help="the id that producers use")
        made.add_argument("--yes", action="store_true", help="do not ask")
        _tenant(made)

    _group(
        commands,
        "recipients",
        "store, list and erase the people that notifications go to",
        "",
        (add, show, list_, erase),
    )


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
    def new(inner: Commands) -> None:
        made = _command(
            inner,
            "new",
            "types:new",
            "make the folder of a new type",
            """\
            Its files are in order from the start: a payload schema, an example, and each channel's file with comments
            that say what to change. A running fleet finds it within a second.""",
            """\
              notify templates new order.cancelled
              notify templates new order.cancelled --channels email,sms --locale de --locale zh-Hans""",
        )
        made.add_argument("type", metavar="TYPE", help="small letters, digits and dots: order.cancelled")
        made.add_argument(
            "--channels",
            action="append",
            metavar="NAMES",
            help="where it goes, separated by commas (default: email)",
        )
        made.add_argument(
            "--locale",
            action="append",
            metavar="TAG",
            help="a translation besides English: de, zh-Hans; may be repeated",
        )

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
            "preview:run",
            "show types as people will get them",
            """\
            Opens a page with every channel and locale side by side, which follows the files as you edit them. Ctrl-C
            ends it. With --text, --json, --channel or --locale it prints one type instead.""",
            """\
              notify templates preview
              notify templates preview order.shipped --port 8080 --no-browser
              notify templates preview order.shipped --channel email --locale de
              notify templates preview order.shipped --json | jq -r .channels.email.html > mail.html""",
        )
        made.add_argument("type", nargs="?", metavar="TYPE", help="the one to begin with")
        made.add_argument("--port", type=int, metavar="PORT", help="where (default: 8026, or a free one)")
        made.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
        made.add_argument("--text", action="store_true", help="print it as plain text")
        made.add_argument("--json", action="store_true", help="print everything, with HTML, for machines")
        made.add_argument("--channel", metavar="NAME", help="print this channel alone")
        made.add_argument("--locale", metavar="TAG", help="print it for a person's locale: de, zh-Hans-CN")

    def list_(inner: Commands) -> None:
        _command(inner, "list", "types:show", "list the types with their channels, lanes and locales")

    text = "A type is a folder under NOTIFY_TEMPLATES (default: templates)."
    _group(
        commands,
        "templates",
        "make, check, preview and list notification types",
        text,
        (new, check, preview, list_),
    )


def _config(commands: Commands) -> None:
    def show(inner: Commands) -> None:
        made = _command(
            inner,
            "show",
            "config:show",
            "show every value, and the file and line or variable that it comes from",
            "Secrets are masked; of a variable that a provider reads, only whether it is set.",
            "  notify config show\n"
            "  NOTIFY_ENV=prod notify config show\n"
            "  notify config show --json | jq -r '.[] | select(.key | endswith(\".rate\"))'",
        )
        made.add_argument("--json", action="store_true", help="for machines")

    def check(inner: Commands) -> None:
        made = _command(
            inner,
            "check",
            "config:check",
            "say what is wrong with notify.toml, its overlay and their variables",
            """\
            All problems at once, each with file, line and what to write. A worker refuses to start on any of them; a
            running one keeps what it has. Exit status 1 where there is one.""",
            """\
              notify config check
              NOTIFY_ENV=prod notify config check --files-only    before a deployment, where there are no secrets
              notify config check --channel sms                   what a worker of sms needs""",
        )
        made.add_argument(
            "--channel",
            action="append",
            metavar="NAME",
            help="secrets and options of this channel's providers alone; may be repeated (default: every channel's)",
        )
        made.add_argument(
            "--files-only", action="store_true", help="leave out secrets and providers' options"
        )

    def reference(inner: Commands) -> None:
        _command(inner, "reference", "config:reference", "print the table of every setting, in Markdown")

    text = """\
        notify.toml names providers and pools. Over it lies notify.<env>.toml, where NOTIFY_ENV=<env> is set, and over
        both the environment: NOTIFY_PROVIDERS__SMTP_MAIN__RATE=10/s. Running workers take a change within 5 seconds."""
    _group(commands, "config", "show and check the configuration", text, (show, check, reference))


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
        Looks at Redis, PostgreSQL, the schema, the configuration (of the files now, and of each running worker),
        providers, templates, the sweep, queues that nobody consumes, parked messages and counters. Exit status 1 where
        something is wrong.""",
        "  notify doctor",
    )


def _health(commands: Commands) -> None:
    made = _command(
        commands,
        "health",
        "health:run",
        "say whether one process is well: for containers and probes",
        """\
        A worker and beat write a sign of life every few seconds into the file that NOTIFY_HEALTH_FILE names; Flower
        and the sandbox answer over HTTP. One that is alive but stuck is not well; one that waits for PostgreSQL or
        Redis is. Exit status 1 where it is not well, with the reason.""",
        """\
          notify health
          notify health --file /run/notify/health --max-age 60
          notify health --url http://127.0.0.1:5555/healthcheck""",
    )
    made.add_argument("--file", metavar="FILE", help="sign of life (default: NOTIFY_HEALTH_FILE)")
    made.add_argument(
        "--max-age",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="an older sign is none (default: %(default)s)",
    )
    made.add_argument("--url", metavar="URL", help="ask over HTTP instead; well is an answer of 200")


def _sandbox(commands: Commands) -> None:
    made = _command(
        commands,
        "sandbox",
        "far_end:run",
        "run a far end that takes messages, shows them on a page and misbehaves on demand",
        """\
        A real SMTP server (STARTTLS, AUTH) and an HTTP far end for the sandbox providers, with a page that shows live
        what arrives. The page is for developers: it has no password, and listens on this machine alone unless --host
        says otherwise. With NOTIFY_DATABASE_URL it shows timelines and in-app messages as well. Every request is
        written to a log, without contents.

        An address can ask for trouble: bounce@, reject@, flaky@, throttle@, slow@ and lost@ anything.""",
        """\
          notify sandbox
          notify sandbox --smtp-port 1025 --http-port 8026 --page-port 8025""",
    )
    made.add_argument(
        "--directory", default=f"{DIRECTORY}/sandbox", metavar="DIR", help="log and certificate"
    )
    made.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: %(default)s)"
    )
    for name in ("smtp", "http", "control"):
        made.add_argument(f"--{name}-port", type=int, default=0, metavar="PORT", help="default: a free one")
    made.add_argument(
        "--page-port", type=int, metavar="PORT", help="default: 8025, or a free one if that is taken"
    )
