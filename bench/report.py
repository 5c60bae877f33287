"""One table: figure, baseline, ratio, goal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_BEGUN: Final = time.monotonic()


@dataclass(frozen=True, slots=True)
class Line:
    """One figure beside its baseline.

    Args:
        goal: the ratio that is wanted; None for a line that only informs.
        least: True where the ratio shall be at least the goal, False where at most.
    """

    name: str
    figure: float
    baseline: float
    unit: str
    goal: float | None = None
    least: bool = True

    @property
    def ratio(self) -> float:
        """Figure over baseline."""
        return self.figure / self.baseline if self.baseline else float("inf")

    @property
    def met(self) -> bool:
        """Whether the goal is reached; an informing line has none to miss."""
        if self.goal is None:
            return True
        return self.ratio >= self.goal if self.least else self.ratio <= self.goal


def progress(text: str) -> None:
    """Say what is being done, on standard error: the table alone goes to standard output."""
    print(f"{time.monotonic() - _BEGUN:6.1f} s  {text}", file=sys.stderr, flush=True)


def table(lines: Sequence[Line]) -> str:
    """The table as text."""
    rows = [("what", "figure", "baseline", "unit", "ratio", "goal", "")]
    for line in lines:
        goal = "" if line.goal is None else f"{'>=' if line.least else '<='} {line.goal:g}x"
        verdict = "" if line.goal is None else ("met" if line.met else "SHORT")
        rows.append(
            (
                line.name,
                _number(line.figure),
                _number(line.baseline),
                line.unit,
                f"{line.ratio:.2f}x",
                goal,
                verdict,
            )
        )
    return columns(rows)


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as aligned text: the first column to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _number(value: float) -> str:
    return f"{value:,.0f}"
