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
    rows: list[list[Span | str]] = [
        [bold(it.name), _capabilities(it), _receipts(it), it.summary] for it in found
    ]
    stdout().table(["use", "a lost answer", "receipts", "what it is"], rows)
    out = stdout()
    out.say()
    out.say(
        [dim("idempotent: repeated with one effect; queryable: can be asked; opaque: nothing can be learnt")]
    )
    out.say([dim("receipts: whether it reports what became of its messages, once its options say how")])
    return 0


def markdown(found: tuple[Described, ...]) -> str:
    """The table of the README; the sandboxes share a line."""
    lines = ["| `use` | what it is | a lost answer | receipts |", "|---|---|---|---|"]
    lines += [
        f"| `{it.name}` | {it.summary} | {_capabilities(it)} | {_receipts(it)} |"
        for it in found
        if not it.name.endswith(".sandbox")
    ]
    sandboxes = [it for it in found if it.name.endswith(".sandbox")]
    if sandboxes:
        lines.append(
            "| `<channel>.sandbox` | the sandbox's far end, for every channel | "
            f"{_capabilities(sandboxes[0])}, by `kind` | {_receipts(sandboxes[0])} |"
        )
    return "\n".join(lines)


def _receipts(it: Described) -> str:
    return "yes" if it.receipts else "no"


def _capabilities(it: Described) -> str:
    return " or ".join(it.capabilities)
