"""Findings of `notify doctor`: what was looked at, how it is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Health(Enum):
    """How a finding is meant."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Args:
        about: what: `redis`, `schema`, `sweep`.
        remedy: what to do; empty where all is well.
    """

    health: Health
    about: str
    text: str
    remedy: str = ""


def good(about: str, text: str) -> Finding:
    """All is well with it."""
    return Finding(Health.GOOD, about, text)


def warning(about: str, text: str, remedy: str) -> Finding:
    """It works, and may hurt one day."""
    return Finding(Health.WARNING, about, text, remedy)


def bad(about: str, text: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(Health.BAD, about, text, remedy)
