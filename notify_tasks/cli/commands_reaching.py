"""Commands about where notifications go: devices, webhook endpoints. Imports nothing but argparse's kin."""

from __future__ import annotations

import argparse
from typing import Final

from notify_tasks.cli.grammar import Commands, command, group, tenant


def _devices(commands: Commands) -> None:
    def list_(inner: Commands) -> None:
        made = command(
            inner,
            "list",
            "devices:list_",
            "list a person's devices, the one seen last first",
            "Tokens are shortened, but for --json, which writes an object a line.",
            "  notify devices list user-42\n  notify devices list user-42 --json | jq -r .token",
        )
        made.add_argument("id", metavar="ID", help="the id that producers use")
        made.add_argument("--json", action="store_true", help="with whole tokens, for machines")
        tenant(made)

    def add(inner: Commands) -> None:
        made = command(
            inner,
            "add",
            "devices:add",
            "register a device, or note that it was seen now",
            """\
            The person's other devices stay; of more than 20 on a channel the one seen longest ago gives way. A device
            that was another person's is theirs no more. A token that was suppressed as dead is so no more.""",
            """\
              notify devices add user-42 TOKEN --platform android --label "Ann's phone"
              notify devices add user-42 "$(cat subscription.json)" --channel webpush --platform web""",
        )
        _device(made)
        made.add_argument("--platform", metavar="WORD", help="android, ios or web")
        made.add_argument("--label", metavar="TEXT", help="what its owner calls it")
        tenant(made)

    def remove(inner: Commands) -> None:
        made = command(
            inner,
            "remove",
            "devices:remove",
            "remove a device",
            "What waits for it is still sent. Exit status 1 where it is none of this person's.",
            "  notify devices remove user-42 TOKEN",
        )
        _device(made)
        tenant(made)

    def prune(inner: Commands) -> None:
        made = command(
            inner,
            "prune",
            "devices:prune",
            "remove devices that were not seen for long",
            """\
            Run it once a day. FCM forgets a token after 270 days of silence. Devices that no app ever registered stay:
            nobody knows when they were seen.""",
            "  notify devices prune\n  notify devices prune --older-than 60d",
        )
        made.add_argument(
            "--older-than", default="270d", metavar="SPAN", help="a day or more: 60d (default: %(default)s)"
        )
        tenant(made)

    text = """\
        Push goes to each of a person's devices. Apps register themselves by `notify_tasks.devices`; these commands
        are for looking and mending. What a provider calls dead is removed by the fleet itself."""
    group(
        commands, "devices", "list, register and remove people's devices", text, (list_, add, remove, prune)
    )


def _device(made: argparse.ArgumentParser) -> None:
    made.add_argument("id", metavar="ID", help="the id that producers use")
    made.add_argument("token", metavar="TOKEN", help="device token, or PushSubscription as JSON")
    made.add_argument(
        "--channel", default="push", metavar="NAME", help="push or webpush (default: %(default)s)"
    )


def _endpoints(commands: Commands) -> None:
    def list_(inner: Commands) -> None:
        made = command(
            inner,
            "list",
            "endpoints:list_",
            "list webhook endpoints that have secrets of their own, or have failed",
            """\
            A page at a time: the last line says how to get the next one. URLs are shortened, but for --json, which
            writes an object a line.""",
            """\
              notify endpoints list
              notify endpoints list --disabled
              notify endpoints list --json | jq -r 'select(.failing_since != null) | .url'""",
        )
        made.add_argument("--disabled", action="store_true", help="those that get nothing any more")
        made.add_argument("--after", metavar="ID", help="those behind this one")
        made.add_argument(
            "--limit", type=int, default=50, metavar="N", help="how many at most (default: %(default)s)"
        )
        made.add_argument("--json", action="store_true", help="with whole URLs, for machines")
        tenant(made)

    def show(inner: Commands) -> None:
        made = command(
            inner,
            "show",
            "endpoints:show",
            "show one endpoint",
            "Exit status 1 where it is not known.",
            "  notify endpoints show https://example.com/hooks\n  notify endpoints show 3f2a9c01d4b7",
        )
        _endpoint(made)
        made.add_argument("--json", action="store_true", help="with the whole URL, for machines")
        tenant(made)

    def register(inner: Commands) -> None:
        made = command(
            inner,
            "register",
            "endpoints:register",
            "give an endpoint a secret of its own",
            """\
            Prints the secret, alone on standard output and this once: hand it to the endpoint's owner. What is sent
            there is signed with it from now on. Needs NOTIFY_SECRET_KEY, here and at the workers.""",
            "  notify endpoints register https://example.com/hooks",
        )
        made.add_argument("url", metavar="URL", help="exactly as producers and recipients have it")
        tenant(made)

    def rotate(inner: Commands) -> None:
        made = command(
            inner,
            "rotate",
            "endpoints:rotate",
            "give an endpoint a new secret; the old one signs for a day more",
            """\
            Prints the new secret, alone on standard output and this once. Both sign until the old one ends, so its
            owner can change over without a gap. A secret that has leaked is rotated with --keep 0.""",
            "  notify endpoints rotate https://example.com/hooks\n  notify endpoints rotate 3f2a9c01d4b7 --keep 7d",
        )
        _endpoint(made)
        made.add_argument(
            "--keep",
            default="24h",
            metavar="SPAN",
            help="for how long the old one signs (default: %(default)s)",
        )
        tenant(made)

    def disable(inner: Commands) -> None:
        made = command(
            inner,
            "disable",
            "endpoints:disable",
            "send nothing to an endpoint any more",
            "What waits for it ends as suppressed, with the reason endpoint_disabled, when its turn comes.",
            "  notify endpoints disable https://example.com/hooks --reason contract_ended",
        )
        made.add_argument("endpoint", metavar="URL", help="it, or its id in `notify endpoints list`")
        made.add_argument(
            "--reason", default="by_operator", metavar="WORD", help="in a word (default: %(default)s)"
        )
        tenant(made)

    def enable(inner: Commands) -> None:
        made = command(
            inner,
            "enable",
            "endpoints:enable",
            "send to a disabled endpoint again",
            """\
            From the next delivery on; `notify replay` sends what was suppressed meanwhile. One that still answers 410
            is disabled again.""",
            "  notify endpoints enable https://example.com/hooks",
        )
        _endpoint(made)
        tenant(made)

    def reencrypt(inner: Commands) -> None:
        command(
            inner,
            "reencrypt",
            "endpoints:reencrypt",
            "encrypt every stored secret with the first key of NOTIFY_SECRET_KEY",
            """\
            To change the key: put the new one in front of the old one everywhere, run this, take the old one out.
            Secrets of all tenants are written anew; what is sent meanwhile is signed as before.""",
            '  NOTIFY_SECRET_KEY="$NEW $OLD" notify endpoints reencrypt',
        )

    text = """\
        An endpoint with a secret of its own is signed for by that secret, and not by the provider's. One that answers
        410 Gone, or fails for days (NOTIFY_ENDPOINT_FAILING), is disabled. Secrets are stored encrypted."""
    group(
        commands,
        "endpoints",
        "webhook endpoints: secrets, and those that are disabled",
        text,
        (list_, show, register, rotate, disable, enable, reencrypt),
    )


def _endpoint(made: argparse.ArgumentParser) -> None:
    made.add_argument("endpoint", metavar="URL", help="it, or its id in `notify endpoints list`")


ADD: Final = {"devices": _devices, "endpoints": _endpoints}
"""By name, what adds a command."""
