"""Where a value comes from, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from notify_tasks.errors import NotConfigured

Key = tuple[str | int, ...]
"""The way to a value: `("channels", "email", "pool", 0, "weight")`."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A place that an operator can go to.

    Args:
        source: a file's path, or the name of a variable.
        line: of the file, from 1; None for a variable, and for a file as a whole.
    """

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


DEFAULT: Final = Origin("default")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. It never holds a secret.

    Args:
        origin: where it stands.
        key: the value's name, `providers.smtp-main.timeout`; empty for a file as a whole.
        what: what is wrong, without the key.
        remedy: what to do next.
    """

    origin: Origin
    key: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.about}. {self.remedy}"

    @property
    def about(self) -> str:
        """What is wrong, with its key."""
        return f"{self.key}: {self.what}" if self.key else self.what


class BadConfiguration(NotConfigured):
    """The configuration cannot be used.

    Args:
        problems: all of them.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = tuple(problems)
        said = [str(problem) for problem in self.problems]
        head = f"the configuration has {len(said)} problems:\n  "
        super().__init__(said[0] if len(said) == 1 else head + "\n  ".join(said))

    @property
    def in_one_line(self) -> str:
        """All of them, for a log."""
        return " / ".join(str(problem) for problem in self.problems)


def dotted(key: Key) -> str:
    """A key as people write it: `channels.email.pool[0].weight`, its items counted from 0."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(word: str, known: Iterable[str], *, example: str = "{}") -> str:
    """What to do about a name that does not exist: the right one that is nearest, or else all there are.

    Args:
        word: as it was written.
        known: the right ones.
        example: how the right one is written, `{}` in its place.
    """
    names = sorted(known)
    folded = {name.lower().replace("-", "_"): name for name in names}
    near = get_close_matches(word.lower().replace("-", "_"), folded, n=1)
    if near:
        return f"Did you mean {example.format(folded[near[0]])}?"
    return f"There are {', '.join(names)}" if names else "There are none yet"
