"""Commands about what comes in from outside: the gateway, receipts. Imports nothing but argparse's kin."""

from __future__ import annotations

from typing import Final

from notify_tasks.cli.grammar import Commands, command, group


def _gateway(commands: Commands) -> None:
    made = command(
        commands,
        "gateway",
        "gateway:run",
        "take in what providers report, over HTTP",
        """\
        POST /hooks/<provider>, by the provider's name in notify.toml, takes that provider's receipts: the signature is
        verified, each event is committed, and a worker of notify.receipts applies it. 204: kept. 403: forged. 404: no
        such provider, or one that reports nothing. 503: PostgreSQL is away, and the provider sends it again. GET
        /livez and /readyz say whether it lives, and whether PostgreSQL is there.

        It speaks plain HTTP: put a proxy with TLS in front of it, and give each provider its public URL. It reads
        notify.toml as workers do, takes a change within 5 seconds, and needs the secrets of those that report.""",
        """\
          notify gateway
          notify gateway --host 0.0.0.0 --port 8080""",
    )
    made.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: %(default)s)"
    )
    made.add_argument(
        "--port", type=int, default=8080, metavar="PORT", help="0 for a free one (default: %(default)s)"
    )


def _receipts(commands: Commands) -> None:
    def list_(inner: Commands) -> None:
        made = command(
            inner,
            "list",
            "receipts:list_",
            "list receipts, the newest first",
            """\
            Without --state, those that somebody must look at. unknown: its status is not in the provider's table.
            unreadable: nothing of it could be read. unmatched: it is about nothing that this fleet has sent. One that
            names a delivery is waiting for 72 hours before that is sure. No address is shown.""",
            """\
              notify receipts list
              notify receipts list --state waiting --provider twilio-main
              notify receipts list --state applied --limit 200 --json""",
        )
        made.add_argument(
            "--state",
            action="append",
            metavar="WORD",
            choices=("new", "waiting", "applied", "unmatched", "unknown", "unreadable"),
            help="new, waiting, applied, unmatched, unknown, unreadable; may be repeated",
        )
        made.add_argument("--provider", metavar="NAME", help="those of this one")
        made.add_argument("--before", type=int, metavar="NUMBER", help="those before this one")
        made.add_argument(
            "--limit", type=int, default=50, metavar="N", help="how many at most (default: %(default)s)"
        )
        made.add_argument("--json", action="store_true", help="an object a line, for machines")

    def take(inner: Commands) -> None:
        made = command(
            inner,
            "take",
            "receipts:take",
            "take one from standard input: a mail server's bounces",
            """\
            For a pipe alias: the message on standard input is verified, kept and applied as if it had come in through
            the gateway. Exit statuses are those of sysexits(3), so that the mail server does what is right: 0 kept,
            75 PostgreSQL is away or the configuration is broken (it tries again), 77 forged, 65 larger than 10 MiB,
            67 no provider of this name reports back.""",
            """\
              notify receipts take smtp-main < bounce.eml
              bounces: "|cd /opt/notify && .venv/bin/notify receipts take smtp-main"    in /etc/aliases""",
        )
        made.add_argument("provider", metavar="PROVIDER", help="its name in notify.toml")

    def again(inner: Commands) -> None:
        made = command(
            inner,
            "again",
            "receipts:again",
            "read receipts again, or look for their deliveries anew",
            """\
            For those that are unknown or unreadable, after an update whose tables know more; an unmatched one looks
            for its delivery for another 72 hours. Exit status 1 where one is as it was.""",
            """\
              notify receipts again 17 18
              notify receipts list --state unknown --json | jq .number | xargs notify receipts again""",
        )
        made.add_argument(
            "numbers", type=int, nargs="+", metavar="NUMBER", help="as `notify receipts list` shows it"
        )

    text = """\
        What providers report of what they took: that it arrived, that it did not, that the person said stop. Each event
        is kept first, and applied then."""
    group(
        commands, "receipts", "list, take in and read again what providers report", text, (list_, take, again)
    )


ADD: Final = {"gateway": _gateway, "receipts": _receipts}
"""By name, what adds a command."""
