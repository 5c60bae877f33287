"""How `notify top` looks: tables on a terminal, plain lines without one, an object for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from notify_tasks.overview import OBJECTIVE, WAITS, Channel, Overview, Provider, Queue
from notify_tasks.store.pausing import COUNTED, Pause
from notify_tasks.terminal.looks import NONE, clock, counted, duration, word
from notify_tasks.terminal.output import Line, Output, Span, bold, dim

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

BEAT_LATE: Final = 15.0
"""Seconds: beat ticks every five."""
MEMORY_HIGH: Final = 0.7
LEAST: Final = 3
MOST: Final = 16
"""Rows of a table: the busiest. The plain lines have all."""
TAKEN_LINES: Final = 18
"""Of the screen, by what is always there."""
BESIDE: Final = 112
"""Columns from which on two tables stand side by side."""
ROOMY: Final = 96
PAUSES: Final = 6

Row = Sequence[Span | str]


# --- on a terminal --------------------------------------------------------------------------------------


def drawn(seen: Overview, out: Output, every: float) -> RenderableType:
    """The whole screen, with as many rows as it has room for."""
    from rich.console import Group  # noqa: PLC0415 - only where there is a terminal
    from rich.table import Table  # noqa: PLC0415 - as above

    alarms = list(troubles(seen))
    rows = out.console.height - TAKEN_LINES - len(alarms)
    beside = out.console.width >= BESIDE
    rows = max(LEAST, min(MOST, rows if beside else (rows - 3) // 2))
    queues = _table(out, ("queue", *_QUEUE_HEAD), [_queue(it) for it in _busiest(seen.queues)[:rows]])
    listed = sorted(seen.providers, key=lambda it: (not it.trouble, -it.sent))
    providers = _table(out, ("provider", *_PROVIDER_HEAD), [_provider(it) for it in listed[:rows]])
    if beside:
        both = Table.grid(padding=(0, 4, 0, 0))
        both.add_row(queues, providers)
        tables: list[RenderableType] = [both]
    else:
        tables = [queues, "", providers]
    said = f"every {every:g} s, rates of the last 10 s, totals estimated   "
    return Group(
        out.text(_head(seen)),
        out.text(_vitals(seen)),
        *(out.text(line) for line in alarms),
        "",
        _table(out, ("channel", *_CHANNEL_HEAD), [_channel(it) for it in seen.channels]),
        "",
        *tables,
        "",
        out.text([bold("q"), dim(f" ends it   {said}`notify doctor` says what to do")]),
    )


_CHANNEL_HEAD: Final = (
    "sent/s",
    "failed/s",
    *(word(it) for it in WAITS),
    "late by",
    "in doubt",
    "dead letters",
)
_QUEUE_HEAD: Final = ("depth", "taken", "oldest", "consumers")
_PROVIDER_HEAD: Final = ("as", "sent/s", "limit", "")


def _table(out: Output, head: Sequence[str], rows: Sequence[Row]) -> Table:
    from rich import box  # noqa: PLC0415 - only where there is a terminal
    from rich.table import Table  # noqa: PLC0415 - as above

    padding = 2 if out.console.width >= ROOMY else 1
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        border_style="dim",
        header_style="dim",
        pad_edge=False,
        padding=(0, padding, 0, 0),
    )
    for place, name in enumerate(head):
        text = place == 0 or name in ("as", "")
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(out.text([cell]) for cell in row))
    return table


def _head(seen: Overview) -> Line:
    held = seen.states()
    waits = ", ".join(f"{number} {word(state)}" for state, number in held.items() if number)
    return [
        bold("notify"),
        f"  {clock(seen.at)}  ",
        bold(f"{_rate(seen.accepted)} accepted"),
        f"  {_rate(sum(it.sent for it in seen.channels))} sent",
        dim(f"  {waits or 'nothing waits'}  about {seen.about} deliveries stored"),
    ]


def _vitals(seen: Overview) -> Line:
    beat, sweep = seen.facts.get("beat_age"), seen.facts.get("sweep_age")
    line: list[Span | str] = [dim(f"{counted(seen.workers, 'worker')}   ")]
    for name, age in (("beat", beat), ("sweep", sweep)):
        said = "never" if age is None else f"{duration(age)} ago"
        late = age is None or age > BEAT_LATE
        line.append(Span(f"{name} {said}   ", "failed" if late else "dim"))
    if seen.memory is not None:
        line.append(Span(f"Redis {seen.memory:.0%} full   ", "held" if seen.memory >= MEMORY_HIGH else "dim"))
    digests = int(seen.facts.get("digests_open") or 0)
    line.append(dim(f"{counted(digests, 'digest')} open   {counted(seen.intake, 'call')} not planned yet"))
    return line


def troubles(seen: Overview) -> Iterator[Line]:
    """What somebody should look at, one line each."""
    for name, why in (("Redis", seen.redis), ("PostgreSQL", seen.postgres)):
        if why is not None:
            yield [Span(f"✖ {name}: {why}; what is shown of it is old. Type `notify doctor`", "failed")]
    for pause in seen.pauses[:PAUSES]:
        yield [Span(f"◷ {_paused(pause)}", "held")]
    if len(seen.pauses) > PAUSES:
        yield [
            Span(f"◷ and {counted(len(seen.pauses) - PAUSES, 'pause')} more: `notify pause --list`", "held")
        ]
    if doubts := sum(it.in_doubt for it in seen.channels):
        yield [Span(f"? {counted(doubts, 'delivery')} in doubt: `notify in-doubt list`", "in_doubt")]
    if dead := sum(it.dead for it in seen.channels):
        yield [
            Span(
                f"✖ {counted(dead, 'delivery')} failed: `notify replay --where since=1h --dry-run`", "failed"
            )
        ]
    if parked := int(seen.facts.get("parked") or 0):
        yield [Span(f"✖ {counted(parked, 'message')} parked: `notify parked`", "failed")]


def _paused(pause: Pause) -> str:
    more = "+" if pause.held >= COUNTED else ""
    who = f" by {pause.by}" if pause.by else ""
    held = f"{pause.held}{more} held"
    return f"{pause.kind} {pause.name} is paused since {clock(pause.since)}{who}, {held}: {pause.reason}"


def _busiest(queues: Sequence[Queue]) -> list[Queue]:
    used = [it for it in queues if it.depth or it.taken or it.consumers]
    return sorted(used, key=lambda it: (-it.depth - it.taken, it.name))


def _queue(it: Queue) -> Row:
    nobody = it.depth > 0 and it.consumers == 0
    oldest = NONE if it.oldest is None else duration(it.oldest)
    late = it.oldest is not None and it.oldest > OBJECTIVE
    return (
        it.name,
        _number(it.depth, "queued"),
        _number(it.taken, "sending"),
        Span(oldest, "held" if late else "" if it.depth else "dim"),
        Span("nobody", "failed") if nobody else _number(it.consumers, ""),
    )


def _channel(it: Channel) -> Row:
    late = it.oldest is not None and it.oldest > OBJECTIVE
    oldest = NONE if not it.oldest else duration(it.oldest)
    return (
        it.name,
        Span(f"{it.sent:.1f}", "sent" if it.sent else "dim"),
        Span(f"{it.failed:.1f}", "failed" if it.failed else "dim"),
        *(_number(it.states.get(state, 0), state) for state in WAITS),
        Span(oldest, "held" if late else "dim"),
        _number(it.in_doubt, "in_doubt"),
        _number(it.dead, "failed"),
    )


def _provider(it: Provider) -> Row:
    state = Span(f"✖ left out: {it.trouble}", "failed") if it.trouble else Span("● works", "sent")
    return (
        it.name,
        dim(it.use),
        Span(f"{it.sent:.1f}", "" if it.sent else "dim"),
        it.rate or dim(NONE),
        state,
    )


def _number(number: int, state: str) -> Span:
    return Span(str(number), state if number else "dim")


def _rate(number: float) -> str:
    return f"{number:.1f}/s"


# --- without one ----------------------------------------------------------------------------------------


def lines(seen: Overview) -> Iterator[str]:
    """Everything, a line each, for logs and `grep`."""
    yield f"at {seen.at.isoformat(timespec='seconds')}"
    yield f"redis {seen.redis or 'answers'}"
    yield f"postgres {seen.postgres or 'answers'}"
    ages = ", ".join(
        f"{name} {'never' if (age := seen.facts.get(f'{name}_age')) is None else f'{duration(age)} ago'}"
        for name in ("beat", "sweep")
    )
    yield f"fleet {counted(seen.workers, 'worker')}, {ages}"
    yield f"rates {_rate(seen.accepted)} accepted, {_rate(sum(it.sent for it in seen.channels))} sent"
    yield "states " + ", ".join(f"{number} {state}" for state, number in seen.states().items())
    yield f"stored about {seen.about} deliveries"
    for it in seen.channels:
        waits = " ".join(f"{state} {it.states.get(state, 0)}" for state in WAITS)
        late = "" if it.oldest is None else f" late by {duration(it.oldest)}"
        yield (
            f"channel {it.name} sent {_rate(it.sent)} failed {_rate(it.failed)} {waits}{late}"
            f" in_doubt {it.in_doubt} dead {it.dead}"
        )
    for queue in seen.queues:
        if queue.depth or queue.taken or queue.consumers:
            oldest = "" if queue.oldest is None else f" oldest {duration(queue.oldest)}"
            yield f"queue {queue.name} depth {queue.depth} taken {queue.taken}{oldest} consumers {queue.consumers}"
    for each in seen.providers:
        limit = f" limit {each.rate}" if each.rate else ""
        yield f"provider {each.name} {each.use} sent {_rate(each.sent)}{limit} {each.trouble or 'works'}"
    for pause in seen.pauses:
        yield f"paused {_paused(pause)}"


def plain(seen: Overview) -> dict[str, Any]:
    """Everything, for machines: times in UTC, ages in seconds, rates a second."""
    found = asdict(seen) | {"at": seen.at.isoformat(), "states": seen.states()}
    found["pauses"] = [asdict(it) | {"since": it.since.isoformat()} for it in seen.pauses]
    return found
