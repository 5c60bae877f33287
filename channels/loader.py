"""Finds a provider by its name: `email.smtp` is `channels/email/smtp.py`. There is no list to edit."""

from __future__ import annotations

import ast
import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from channels.contract import Capability, Misconfigured, Provider


@dataclass(frozen=True, slots=True)
class Described:
    """What a provider's file says of itself.

    Args:
        name: `email.smtp`.
        summary: the first line of its docstring, without the name.
        capabilities: what can be learnt of a lost answer; more than one where its options decide.
        receipts: whether it reports what became of its messages (`channels.receipts.Reporting`), where its options
            say how.
    """

    name: str
    summary: str
    capabilities: tuple[Capability, ...]
    receipts: bool = False


def names() -> tuple[str, ...]:
    """Every provider there is, as `channel.provider`, sorted."""
    root = Path(__file__).parent
    found = []
    for package in pkgutil.iter_modules([str(root)]):
        if package.ispkg:
            found += [
                f"{package.name}.{module.name}"
                for module in pkgutil.iter_modules([str(root / package.name)])
                if not module.name.startswith("_")
            ]
    return tuple(sorted(found))


def load(use: str, name: str, options: Mapping[str, Any]) -> Provider:
    """Build the provider `use` (`"email.smtp"`) under its configured `name`.

    Raises:
        Misconfigured: there is no such provider (the nearest right names are given), or an option is wrong.
    """
    known = names()
    if use not in known:
        near = difflib.get_close_matches(use, known, n=3, cutoff=0.4) or known
        raise Misconfigured(
            "unknown-provider", f"there is no provider {use!r}; did you mean {', '.join(near)}?"
        )
    module = importlib.import_module(f"channels.{use}")
    built: Provider = module.build(name, options)
    return built


def describe() -> tuple[Described, ...]:
    """Every provider there is, as its file describes it. The files are read and not run, so no SDK is needed."""
    return tuple(_described(name) for name in names())


def _described(name: str) -> Described:
    channel, provider = name.split(".")
    tree = ast.parse((Path(__file__).parent / channel / f"{provider}.py").read_text(encoding="utf-8"))
    first = (ast.get_docstring(tree) or "").partition("\n")[0]
    told = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Capability"
    }
    # Where a file names none, its options do: a sandbox plays each kind.
    found = tuple(it for it in Capability if it.name in told) or tuple(Capability)
    return Described(name, first.partition(": ")[2].rstrip("."), found, any(_reports(it) for it in tree.body))


def _reports(node: ast.stmt) -> bool:
    """Whether a class has `verify` and `events`."""
    if not isinstance(node, ast.ClassDef):
        return False
    return {"verify", "events"} <= {it.name for it in node.body if isinstance(it, ast.FunctionDef)}
