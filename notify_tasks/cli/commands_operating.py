"""Commands that run the fleet and look after it. Imports nothing but argparse's kin."""

from __future__ import annotations

import argparse
from typing import Final

from notify_tasks.cli.grammar import DIRECTORY, Commands, command, group, tenant


def _demo(commands: Commands) -> None:
    made = command(
        commands,
        "demo",
        "demo:run",
        "run the whole system on this machine and watch it work",
        """\
        Starts Valkey and PostgreSQL (from wheels, on free ports), a far end for every provider, workers, beat, gateway
        and Flower. A producer process sends notifications over every channel, a worker is killed in between, and every
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


def _config(commands: Commands) -> None:
    def show(inner: Commands) -> None:
        made = command(
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
        made = command(
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
        command(inner, "reference", "config:reference", "print the table of every setting, in Markdown")

    text = """\
        notify.toml names providers and pools. Over it lies notify.<env>.toml, where NOTIFY_ENV=<env> is set, and over
        both the environment: NOTIFY_PROVIDERS__SMTP_MAIN__RATE=10/s. Running workers take a change within 5 seconds."""
    group(commands, "config", "show and check the configuration", text, (show, check, reference))


def _migrate(commands: Commands) -> None:
    command(
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
    made = command(
        commands,
        "doctor",
        "checkup:run",
        "say what is wrong, and what to do about it",
        """\
        Looks at Redis (6.2 or newer) or Valkey (7.2 or newer): memory, eviction, append-only file; at PostgreSQL (14 or
        newer), the schema, and clocks; at the configuration (of the files now, and of each running worker), providers,
        templates and schedules; at the sweep, beat, queues that nobody consumes, pauses, what is in doubt, failed or
        parked, and counters. For monitoring: exit status 1 where something is wrong, 0 where there are warnings alone,
        which --strict counts as wrong, too.""",
        """\
          notify doctor
          notify doctor --strict
          notify doctor --json | jq 'select(.health != "good")'""",
    )
    made.add_argument("--strict", action="store_true", help="exit status 1 for a warning as well")
    made.add_argument("--json", action="store_true", help="an object a line, for machines")


def _health(commands: Commands) -> None:
    made = command(
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
          notify health --url http://127.0.0.1:8080/livez""",
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


def _exporter(commands: Commands) -> None:
    made = command(
        commands,
        "exporter",
        "exporter:run",
        "tell Prometheus of the fleet: queues, what is late, totals, the objective",
        """\
        GET /metrics: what belongs to the fleet and to no worker, from Redis and PostgreSQL. It answers within two
        seconds, also while one of them is away or hangs: that is a metric (notify_up), and so is the age of its
        numbers. GET /livez and /readyz say whether it lives and has looked. One is enough; two do no harm.

        What a worker counts it tells itself, by NOTIFY_METRICS_PORT.""",
        """\
          notify exporter
          notify exporter --host 0.0.0.0 --port 9464""",
    )
    made.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: %(default)s)"
    )
    made.add_argument(
        "--port", type=int, default=9464, metavar="PORT", help="0 for a free one (default: %(default)s)"
    )
    made.add_argument(
        "--key-prefix",
        default="",
        metavar="TEXT",
        help="what begins every key in that Redis, where Celery's global_keyprefix is set (default: nothing)",
    )


def _sandbox(commands: Commands) -> None:
    made = command(
        commands,
        "sandbox",
        "far_end:run",
        "run a far end that takes messages, shows them on a page and misbehaves on demand",
        """\
        A real SMTP server (STARTTLS, AUTH), and the APIs of Twilio, SendGrid, Alibaba Cloud, FCM, web push, webhooks
        and the chat services on one HTTPS port, with a page that shows live what arrives. It prints the variables that
        notify.dev.toml reads: none of them is a secret. The page is for developers: it has no password, and listens on
        this machine alone unless --host says otherwise. With NOTIFY_DATABASE_URL it shows timelines and in-app messages
        as well. Every request is written to a log, without contents.

        An address can ask for trouble: bounce@, reject@, flaky@, throttle@, slow@ and lost@ anything, latebounce@ for a
        mail that comes back later. So can a number: +1555SSSxxxx is answered with the status SSS, and +15556NNxxxx is
        taken and then not delivered. With --hooks, providers report back what became of each message.""",
        """\
          notify sandbox
          notify sandbox --hooks http://127.0.0.1:8080/hooks      with `notify gateway` beside it
          notify sandbox --smtp-port 1025 --http-port 8026 --page-port 8025""",
    )
    made.add_argument(
        "--directory", default=f"{DIRECTORY}/sandbox", metavar="DIR", help="log, certificate, accounts"
    )
    made.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: %(default)s)"
    )
    made.add_argument("--name", metavar="HOST", help="by which clients call it (default: the address)")
    made.add_argument(
        "--hooks",
        metavar="URL",
        help="of the fleet's gateway, which receipts go to: http://127.0.0.1:8080/hooks",
    )
    for name in ("smtp", "http", "https", "control"):
        made.add_argument(f"--{name}-port", type=int, default=0, metavar="PORT", help="default: a free one")
    made.add_argument(
        "--page-port", type=int, metavar="PORT", help="default: 8025, or a free one if that is taken"
    )


def _providers(commands: Commands) -> None:
    made = command(
        commands,
        "providers",
        "providers:run",
        "list the providers that there are",
        """\
        A provider is a file, channels/<channel>/<name>.py, and notify.toml names it with use = "<channel>.<name>".
        What can be learnt of a lost answer decides whether a delivery can end in doubt.""",
        "  notify providers\n  notify config show      which of them are configured, and where",
    )
    made.add_argument("--markdown", action="store_true", help="as the README's table")


def _suppressions(commands: Commands) -> None:
    def list_(inner: Commands) -> None:
        made = command(
            inner,
            "list",
            "suppressions:list_",
            "list suppressed addresses, newest first",
            """\
            A page at a time: the last line says how to get the next one. Addresses are shortened, but for --json,
            which writes an object a line.""",
            """\
              notify suppressions list
              notify suppressions list --channel sms --limit 20
              notify suppressions list --channel email --address ann@example.com
              notify suppressions list --json --limit 1000 | jq -r 'select(.reason == "address_invalid") | .address'""",
        )
        made.add_argument("--channel", metavar="NAME", help="those of this channel")
        made.add_argument("--address", metavar="ADDRESS", help="this one alone; needs --channel")
        made.add_argument("--after", type=int, metavar="NUMBER", help="those behind this one")
        made.add_argument(
            "--limit", type=int, default=50, metavar="N", help="how many at most (default: %(default)s)"
        )
        made.add_argument("--json", action="store_true", help="with whole addresses, for machines")
        tenant(made)

    def add(inner: Commands) -> None:
        made = command(
            inner,
            "add",
            "suppressions:add",
            "send nothing to an address any more",
            """\
            On this channel; the person's others go on. What waits for it ends as suppressed when its turn comes. One
            that is suppressed already keeps its reason, unless the new one is opted_out.""",
            """\
              notify suppressions add email ann@example.com
              notify suppressions add sms +4915112345678 --reason opted_out""",
        )
        _place(made)
        made.add_argument(
            "--reason",
            default="by_operator",
            metavar="WORD",
            help="why, in a word; opted_out: the person said stop (default: %(default)s)",
        )
        tenant(made)

    def lift(inner: Commands) -> None:
        made = command(
            inner,
            "lift",
            "suppressions:lift",
            "send to a suppressed address again",
            """\
            The next notification to it goes out again. What was suppressed meanwhile stays unsent: `notify replay`
            sends it. A provider that still calls the address dead has it suppressed again.

            Where the person said stop, it takes --opted-out, and only they may ask for that: a message after an
            opt-out is against the law in many countries, and carriers and mail services block who sends it. Exit
            status 1 where the address is not suppressed.""",
            """\
              notify suppressions lift chat ops-room
              notify suppressions lift sms +4915112345678 --opted-out""",
        )
        _place(made)
        made.add_argument("--opted-out", action="store_true", help="the person has asked for messages again")
        tenant(made)

    text = """\
        A suppressed address gets nothing on its channel: a provider called it dead, the person said stop, or an
        operator wanted it so. It stays suppressed until it is lifted, and when the recipient is erased, too."""
    group(
        commands,
        "suppressions",
        "list, add and lift addresses that get nothing any more",
        text,
        (list_, add, lift),
    )


def _place(made: argparse.ArgumentParser) -> None:
    made.add_argument("channel", metavar="CHANNEL", help="email, sms, push, webpush, webhook, chat or inapp")
    made.add_argument("address", metavar="ADDRESS", help="in any spelling; for inapp the recipient's id")


ADD: Final = {
    "demo": _demo,
    "config": _config,
    "migrate": _migrate,
    "doctor": _doctor,
    "exporter": _exporter,
    "health": _health,
    "providers": _providers,
    "sandbox": _sandbox,
    "suppressions": _suppressions,
}
"""By name, what adds a command."""
