"""`notify providers`."""

from __future__ import annotations

import argparse

from channels.loader import Described, describe
from notify_tasks.terminal.output import Span, bold, dim, stdout


def run(options: argparse.Namespace) -> int:
    """List the providers that there are."""
    found = describe()
    if options.markdown:
        stdout().plain(markdown(found))
        return 0
    rows: list[list[Span | str]] = [[bold(it.name), _capabilities(it), it.summary] for it in found]
    stdout().table(["use", "a lost answer", "what it is"], rows)
    out = stdout()
    out.say()
    out.say(
        [dim("idempotent: repeated with one effect; queryable: can be asked; opaque: nothing can be learnt")]
    )
    return 0


def markdown(found: tuple[Described, ...]) -> str:
    """The table of the README; the sandboxes share a line."""
    lines = ["| `use` | what it is | a lost answer |", "|---|---|---|"]
    lines += [
        f"| `{it.name}` | {it.summary} | {_capabilities(it)} |"
        for it in found
        if not it.name.endswith(".sandbox")
    ]
    sandboxes = [it for it in found if it.name.endswith(".sandbox")]
    if sandboxes:
        lines.append(
            "| `<channel>.sandbox` | the sandbox's far end, for every channel | "
            f"{_capabilities(sandboxes[0])}, by `kind` |"
        )
    return "\n".join(lines)


def _capabilities(it: Described) -> str:
    return " or ".join(it.capabilities)
