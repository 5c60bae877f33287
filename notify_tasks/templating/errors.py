"""What templates can get wrong, in words for whoever mends them.

::

    NotifyError
    ├── BrokenType       a type's folder cannot be used: every problem with file, line and remedy
    ├── PayloadInvalid   a payload does not fit the type's schema: the field
    └── RenderError      a template could not be rendered with this payload: a permanent failure

Texts name fields, files and lines. They never hold a value of a payload: values may be private.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from notify_tasks.errors import NotifyError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend.

    Args:
        file: path inside the templates folder (`order.shipped/de/email.txt`).
        line: line in that file, from 1; None where the file as a whole is meant.
        problem: what is wrong.
        remedy: what to do next.
    """

    file: str
    line: int | None
    problem: str
    remedy: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{place}: {self.problem}. {self.remedy}"


class BrokenType(NotifyError):
    """A type's folder cannot be used. Other types are not touched by it."""

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"the notification type {name!r} is broken:{lines}")
        self.name = name
        self.problems = tuple(problems)


class PayloadInvalid(NotifyError):
    """A payload does not fit its type's schema.

    Args:
        path: the field (`payload.order_id`, `payload.items[2].name`); a key that the schema does not
            declare shows as `*`, since keys can be private too.
        problem: what is wrong with it (`is not an integer`).
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class RenderError(NotifyError):
    """A template could not be rendered. The same payload and template fail again: this is permanent.

    Args:
        code: a stable word: `missing-value`, `template`, `unsafe`, `unsafe-link`, `too-large`, `too-long`,
            `subject`, `empty`, `not-text`, `not-json`, `css`, `no-files`.
        problem: what is wrong, without any value.
        remedy: what to do next.
        file: path inside the templates folder.
        line: line in that file, from 1, where it is known.
    """

    def __init__(self, code: str, problem: str, remedy: str, file: str, line: int | None = None) -> None:
        self.code = code
        self.problem = Problem(file, line, problem, remedy)
        super().__init__(f"{code}: {self.problem}")

    @property
    def detail(self) -> str:
        """One sentence with file, line and remedy."""
        return str(self.problem)
