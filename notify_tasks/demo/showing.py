"""What one sees while the demo runs: a live table on a terminal, a line for each change without one."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from notify_tasks.states import FINAL
from notify_tasks.store.statuses import shortened
from notify_tasks.store.watching import Seen
from notify_tasks.terminal.looks import counted, duration
from notify_tasks.terminal.output import Line, Output, Span, bold, dim, state

if TYPE_CHECKING:
    from rich.table import Table

QUIET_SECONDS: Final = 1.8
"""Without a terminal something is said at least so often."""
WIDTHS: Final = (11, 14, 7, 22, 15)
"""Columns for state, whom, channel, type and provider; the last two only on a wide terminal."""
WIDE: Final = 100
ENDED: Final = frozenset({*FINAL, "rejected"})


class Display(Protocol):
    """Where the demo tells its story."""

    def happening(self, line: Line) -> None:
        """Something worth a line of its own. Safe to call from any thread."""

    def waiting(self, words: str) -> None:
        """What is awaited, while there is nothing else to see."""

    def update(self, rows: Sequence[Seen], abouts: Mapping[str, str], awaited: str) -> None:
        """The deliveries as they are now, why each call is in the demo, and what is awaited."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def display(output: Output) -> Display:
    """The display that fits."""
    return _Live(output) if output.terminal else _Plain(output)


def stamped(begun: float, line: Line) -> list[Span | str]:
    """A line with the seconds since the beginning before it."""
    spans = [line] if isinstance(line, str) else list(line)
    return [dim(f"{time.monotonic() - begun:6.1f} s  "), *spans]


@dataclass(frozen=True, slots=True)
class Cells:
    """One delivery in words."""

    mark: Span
    whom: str
    channel: str
    kind: str
    place: str
    why: Span


def cells(seen: Seen, about: str) -> Cells:
    """State, whom, over which channel, what, where, why.

    Args:
        seen: the delivery.
        about: what its call is in the demo for.
    """
    why = []
    if seen.provider is not None:
        answer = seen.code if seen.outcome != "lost" else "worker gone, outcome unknown"
        why.append(f"attempt {seen.number}" + (f": {answer}" if answer else ""))
    elif seen.reason is not None:
        why.append(seen.reason)
    wait = seen.not_before if seen.state == "retrying" else seen.due_in if seen.state == "held" else None
    if wait is not None and wait > 0:
        why.append(f"again in {duration(wait)}" if seen.state == "retrying" else f"for {duration(wait)}")
    if about and seen.state != "sending":
        why.append(f"({about})")
    return Cells(
        state(seen.state, 11),
        seen.recipient_id or (shortened(seen.address) if seen.address else "nobody"),
        seen.channel or "-",
        seen.event_type,
        seen.provider or "",
        dim(", ".join(why)),
    )


class _Plain:
    def __init__(self, output: Output) -> None:
        self._output = output
        self._begun = self._said = time.monotonic()
        self._before: dict[object, tuple[object, ...]] = {}
        self._lock = threading.Lock()

    def happening(self, line: Line) -> None:
        with self._lock:
            self._output.say(stamped(self._begun, line))
            self._said = time.monotonic()

    def update(self, rows: Sequence[Seen], abouts: Mapping[str, str], awaited: str) -> None:
        for seen in rows:
            what = (seen.state, seen.number, seen.outcome)
            key = seen.id or seen.message_id
            if self._before.get(key) != what:
                self._before[key] = what
                it = cells(seen, abouts.get(seen.message_id, ""))
                words = f" {it.whom:<17} {it.channel:<7}  {it.kind:<22}  {it.place:<15}  "
                self.happening([it.mark, words, it.why])
        self.waiting(awaited)

    def waiting(self, words: str) -> None:
        if words and time.monotonic() - self._said > QUIET_SECONDS:
            self.happening(words)

    def close(self) -> None:
        pass


class _Live:
    """A table of the deliveries that changed last, as many as fit, with what is awaited below."""

    def __init__(self, output: Output) -> None:
        from rich.live import Live  # noqa: PLC0415 - only on a terminal

        self._output = output
        self._begun = time.monotonic()
        self._changed: dict[object, tuple[float, tuple[object, ...]]] = {}
        # It draws when told to, and not from a thread of its own: a worker that is killed needs the processor.
        self._live = Live(console=output.console, auto_refresh=False, transient=True)
        self._live.start()

    def happening(self, line: Line) -> None:
        self._output.console.print(self._output.text(stamped(self._begun, line)), soft_wrap=True)

    def waiting(self, words: str) -> None:
        line = self._output.text(stamped(self._begun, words))
        line.no_wrap = True
        self._live.update(line, refresh=True)

    def update(self, rows: Sequence[Seen], abouts: Mapping[str, str], awaited: str) -> None:
        now = time.monotonic()
        for seen in rows:
            what = (seen.state, seen.number, seen.outcome)
            key = seen.id or seen.message_id
            if key not in self._changed or self._changed[key][1] != what:
                self._changed[key] = (now, what)
        latest = sorted(rows, key=lambda seen: self._changed[seen.id or seen.message_id][0])
        self._live.update(self._table(latest, abouts, awaited), refresh=True)

    def _table(self, rows: Sequence[Seen], abouts: Mapping[str, str], awaited: str) -> Table:
        from rich.table import Table  # noqa: PLC0415 - only on a terminal

        output = self._output
        height = max(4, output.console.size.height - 6)
        deliveries = [seen for seen in rows if seen.id is not None]
        ended = sum(seen.state in ENDED for seen in deliveries)
        table = Table(
            box=None,
            padding=(0, 2, 0, 0),
            title=output.text(
                [bold(f"{ended} of {counted(len(deliveries), 'delivery')} ended"), dim(_totals(rows))]
            ),
            title_justify="left",
            caption=output.text(stamped(self._begun, awaited)),
            caption_justify="left",
            show_header=False,
        )
        wide = output.console.size.width >= WIDE
        for width in WIDTHS if wide else WIDTHS[:3]:
            table.add_column(no_wrap=True, overflow="ellipsis", min_width=width, max_width=width)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for seen in rows[-height:]:
            it = cells(seen, abouts.get(seen.message_id, ""))
            shown = [it.mark, it.whom, it.channel, *((it.kind, it.place) if wide else ()), it.why]
            table.add_row(*(output.text([cell]) for cell in shown))
        return table

    def close(self) -> None:
        self._live.stop()


def _totals(rows: Sequence[Seen]) -> str:
    counts: dict[str, int] = {}
    for seen in rows:
        counts[seen.state] = counts.get(seen.state, 0) + 1
    return "".join(f"  {name} {count}" for name, count in sorted(counts.items()))
