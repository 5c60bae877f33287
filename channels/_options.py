"""A provider's options: what is said of a wrong one, so that the fleet can name its line in `notify.toml`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from channels.contract import Misconfigured

COMMON = ("use", "timeout", "rate", "enabled")
"""What configuration reads for every provider: a misspelt one arrives among a provider's own options."""


def wrong_option(name: str, option: str, sentence: str) -> Misconfigured:
    """An option is missing, unknown or wrong.

    Args:
        name: of the provider in the configuration.
        option: of the provider.
        sentence: `what is wrong; what to write`, without the option's value, which may be a secret.
    """
    return Misconfigured("option", f"{name}: {option} {sentence}")


def refuse_unknown(name: str, use: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse the first option that the provider does not know, and say which one was meant.

    Args:
        name: of the provider in the configuration.
        use: which provider it is: `email.smtp`.
        given: the names of its options.
        known: those that it knows.

    Raises:
        Misconfigured: one is unknown.
    """
    right = sorted(known)
    for option in sorted(set(given) - set(right)):
        near = difflib.get_close_matches(option, [*right, *COMMON], n=1)
        remedy = (
            f"did you mean {near[0]}?" if near else f"it has {', '.join(right)}" if right else "remove it"
        )
        raise wrong_option(name, option, f"is no option of {use}; {remedy}")
