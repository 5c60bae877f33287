"""`notify endpoints list | show | register | rotate | disable | enable | reencrypt`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from notify_tasks import durations, endpoints
from notify_tasks.cli.context import find_fleet
from notify_tasks.cli.people import NOTHING, masked
from notify_tasks.endpoints import Endpoint
from notify_tasks.errors import InvalidCall
from notify_tasks.notification import DEFAULT_TENANT
from notify_tasks.terminal.looks import clock, counted
from notify_tasks.terminal.output import dim, stderr, stdout


@contextmanager
def _fleet() -> Iterator[None]:
    find_fleet()
    try:
        yield
    except InvalidCall as error:
        name = error.field
        shown = "URL" if name in ("url", "endpoint") else f"--{name}"
        raise InvalidCall(
            shown, error.problem, error.remedy.replace("`rotate`", "`notify endpoints rotate`")
        ) from None
    finally:
        endpoints.close()


def list_(options: argparse.Namespace) -> int:
    """List a page of endpoints."""
    with _fleet():
        page = endpoints.find(
            disabled=options.disabled, after=options.after, limit=options.limit, tenant=options.tenant
        )
    if options.json:
        for it in page.endpoints:
            stdout().plain(json.dumps(_plain(it), ensure_ascii=False))
    elif page.endpoints:
        rows = [
            (it.id, masked("webhook", it.url), "own secret" if it.signed else NOTHING, _how(it))
            for it in page.endpoints
        ]
        stdout().table(("id", "endpoint", "signed with", "state"), rows)
    else:
        narrowed = options.disabled or options.after is not None
        stdout().say("no endpoints" + (" match" if narrowed else ""))
    if page.next is not None:
        stderr().say([dim(f"there are more: add --after {page.next}")])
    return 0


def show(options: argparse.Namespace) -> int:
    """Show one endpoint."""
    with _fleet():
        it = endpoints.get(options.endpoint, tenant=options.tenant)
    if it is None:
        tenant = "" if options.tenant == DEFAULT_TENANT else f" in tenant {options.tenant}"
        stderr().say(
            f"notify: nothing is stored of that endpoint{tenant}: it has no secret of its own, and has not failed"
        )
        return 1
    if options.json:
        stdout().plain(json.dumps(_plain(it), indent=2, ensure_ascii=False))
        return 0
    out = stdout()
    out.say([f"{it.id}  {masked('webhook', it.url)}  ", _how(it)])
    rows = [
        ("signed with", "its own secret" if it.signed else "the provider's secrets"),
        ("old secret", f"signs until {clock(it.previous_until)}" if it.previous_until else NOTHING),
        ("changed", clock(it.updated_at)),
    ]
    for name, value in rows:
        out.say([dim(f"  {name:<12}"), f" {value}"])
    return 0


def register(options: argparse.Namespace) -> int:
    """Give an endpoint a secret of its own, and print it."""
    with _fleet():
        it = endpoints.register(options.url, tenant=options.tenant)
    return _secret(it, "signs what is sent there from now on")


def rotate(options: argparse.Namespace) -> int:
    """Give an endpoint a new secret, and print it."""
    try:
        keep = durations.parse(options.keep)
    except ValueError as error:
        problem, _, remedy = str(error).partition(". ")
        raise InvalidCall("--keep", problem, remedy) from None
    with _fleet():
        it = endpoints.rotate(options.endpoint, keep=keep, tenant=options.tenant)
    until = f"beside the old one until {clock(it.previous_until)}" if it.previous_until else "alone"
    return _secret(it, f"signs {until}")


def _secret(it: Endpoint, what: str) -> int:
    """The secret alone on standard output, so that it can be piped to where it belongs."""
    stderr().say([dim(f"the secret of endpoint {it.id} {what}; it is not shown again:")])
    stdout().plain(it.secret or "")
    return 0


def disable(options: argparse.Namespace) -> int:
    """Send nothing to an endpoint any more."""
    with _fleet():
        it = endpoints.disable(options.endpoint, reason=options.reason, tenant=options.tenant)
    stdout().say(
        f"endpoint {it.id} ({masked('webhook', it.url)}) gets nothing any more: {it.disabled_reason}"
    )
    return 0


def enable(options: argparse.Namespace) -> int:
    """Send to an endpoint again."""
    with _fleet():
        it = endpoints.enable(options.endpoint, tenant=options.tenant)
    out = stdout()
    out.say(f"endpoint {it.id} ({masked('webhook', it.url)}) is sent to again, from the next delivery on")
    out.say([dim("  what was suppressed meanwhile stays unsent: `notify replay ID` sends it")])
    return 0


def reencrypt(_: argparse.Namespace) -> int:
    """Encrypt every secret under the first key."""
    with _fleet():
        count = endpoints.reencrypt()
    stdout().say(f"{counted(count, 'endpoint')}: encrypted under the first key, the others can go")
    return 0


def _how(it: Endpoint) -> str:
    if it.disabled_at is not None:
        return f"disabled since {clock(it.disabled_at)}: {it.disabled_reason}"
    if it.failing_since is not None:
        return f"failing since {clock(it.failing_since)}"
    return "well"


def _plain(it: Endpoint) -> dict[str, Any]:
    times = {
        "previous_until": it.previous_until,
        "failing_since": it.failing_since,
        "disabled_at": it.disabled_at,
        "created_at": it.created_at,
        "updated_at": it.updated_at,
    }
    return {
        "id": it.id,
        "tenant": it.tenant,
        "url": it.url,
        "signed": it.signed,
        "disabled_reason": it.disabled_reason,
        **{name: None if at is None else at.isoformat() for name, at in times.items()},
    }
