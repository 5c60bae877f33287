"""Finds a provider by its name: `email.smtp` is `channels/email/smtp.py`. There is no list to edit."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from channels.contract import Misconfigured, Provider


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
