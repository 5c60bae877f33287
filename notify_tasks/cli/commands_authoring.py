"""Commands about people and templates. Imports nothing but argparse's kin."""

from __future__ import annotations

from typing import Final

from notify_tasks.cli.grammar import Commands, command, group, tenant


def _recipients(commands: Commands) -> None:
    def add(inner: Commands) -> None:
        made = command(
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
        tenant(made)

    def show(inner: Commands) -> None:
        made = command(
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
        tenant(made)

    def list_(inner: Commands) -> None:
        made = command(
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
        tenant(made)

    def erase(inner: Commands) -> None:
        made = command(
            inner,
            "erase",
            "people:erase",
            "erase a recipient, and what was sent to them",
            """\
            Stops what waits for the person, and deletes contact points, in-app messages, addresses, and the contents
            of notifications to this person alone. Ids, states and times stay, and so do suppressed addresses, because
            they keep the fleet from writing there again. It cannot be undone: on a terminal it asks first, without
            one it needs --yes. Exit status 1 where nothing is known of the id.""",
            """\
              notify recipients erase user-42 --dry-run
              notify recipients erase user-42
              notify recipients erase user-42 --yes""",
        )
        made.add_argument("id", metavar="ID", help="the id that producers use")
        made.add_argument("--dry-run", action="store_true", help="say what would go, and erase nothing")
        made.add_argument("--yes", action="store_true", help="do not ask")
        tenant(made)

    def verify(inner: Commands) -> None:
        made = command(
            inner,
            "verify",
            "people:verify",
            "take a stored address as verified, on your word",
            """\
            Types with verified_only = true go to verified addresses alone. Services let people prove an address by a
            code (`notify_tasks.verification`); this is for those that were proved otherwise.""",
            "  notify recipients verify user-42 email ann@example.com",
        )
        made.add_argument("id", metavar="ID", help="the id that producers use")
        made.add_argument("channel", metavar="CHANNEL", help="email, sms, push, webpush, webhook or chat")
        made.add_argument("address", metavar="ADDRESS", help="in any spelling")
        tenant(made)

    group(
        commands,
        "recipients",
        "store, list, verify and erase the people that notifications go to",
        "",
        (add, show, list_, verify, erase),
    )


def _templates(commands: Commands) -> None:
    def new(inner: Commands) -> None:
        made = command(
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
        made = command(
            inner,
            "check",
            "types:check",
            "render every file of every type with its example",
            "Says file, line and remedy of each problem. Exit status 1 where there is one.",
            "  notify templates check\n  notify templates check order.shipped",
        )
        made.add_argument("type", nargs="?", metavar="TYPE", help="only this one")

    def preview(inner: Commands) -> None:
        made = command(
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
        command(inner, "list", "types:show", "list the types with their channels, lanes and locales")

    text = "A type is a folder under NOTIFY_TEMPLATES (default: templates)."
    group(
        commands,
        "templates",
        "make, check, preview and list notification types",
        text,
        (new, check, preview, list_),
    )


ADD: Final = {"recipients": _recipients, "templates": _templates}
"""By name, what adds a command."""
