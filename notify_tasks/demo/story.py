"""What happens in the demo, in order: calls, a killed worker, what is due later, recovery, timelines, a verdict."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

from notify_tasks.demo import cast, fast, verdict
from notify_tasks.demo.calling import Producer, producer
from notify_tasks.demo.running import DIRECTORY, ENV_FILE
from notify_tasks.demo.showing import ENDED, Display, display
from notify_tasks.demo.stage import Stage, ended_by, open_stage
from notify_tasks.store import recipients, statuses, watching
from notify_tasks.store.database import DatabaseError
from notify_tasks.store.watching import Seen
from notify_tasks.terminal import timeline
from notify_tasks.terminal.looks import counted, duration
from notify_tasks.terminal.output import Output, Span, bold, dim

VICTIM: Final = "email"
SLOW_SECONDS: Final = 4.0
"""So slow is the mail server while the worker is killed, and less than a call's timeout."""
IN_HAND: Final = 4
LOOK_EVERY: Final = 0.2
ACT_WITHIN: Final = 30.0
INTERRUPTED: Final = 130
"""As a shell reports SIGINT."""
END_WITHIN: Final = 150.0
REPORTS_WITHIN: Final = 20.0
REPORTING: Final = frozenset({"twilio", "sendgrid"})
"""Providers that tell of each message what became of it."""


@dataclass(slots=True)
class Run:
    """One run of the demo.

    Args:
        name: it is before each message id.
        first_request: the far end's log began here.
        killed: deliveries that the killed worker had in its hands, by id.
    """

    name: str
    stage: Stage
    shown: Display
    calls: tuple[cast.Call, ...]
    first_request: int
    victim: str = ""
    killed: dict[str, Seen] = field(default_factory=dict)
    called_at: dict[int, datetime] = field(default_factory=dict)
    rows: list[Seen] = field(default_factory=list)
    later: fast.Later | None = None

    @property
    def message_ids(self) -> list[str]:
        """Every call's, and those of the calls that they became."""
        made = self.later.made if self.later else []
        return [*(call.message_id(self.name) for call in self.calls), *made]


def run(directory: Path, output: Output, *, stay: bool, own_servers: bool = True) -> int:
    """Run the demo.

    Args:
        directory: takes data, logs and passwords; kept for the next run.
        output: where to tell the story.
        stay: keep everything running after the story until Ctrl-C.
        own_servers: False takes the servers that the environment names.

    Returns:
        An exit status: 0 if every notification ended as it should, 130 if it was stopped before that.

    Raises:
        DemoError: something did not start (see `open_stage`).
    """
    output.say([bold("notify demo"), f": the whole system on this machine, in {directory}"])
    shown = display(output)
    status: int | None = None
    try:
        with (
            _stopping(),
            open_stage(
                directory, shown.happening, shown.waiting, _restarted(shown), own_servers=own_servers
            ) as stage,
        ):
            try:
                shown.happening([bold(f"up in {stage.up_seconds:.1f} s")])
                status = _tell(stage, shown, output, stay=stay)
                if stay:
                    _stay(stage, output)
            finally:
                _deaf()
                shown.close()
                output.say([dim("stopping: workers, Flower, far end, servers")])
    except KeyboardInterrupt:
        pass
    finally:
        shown.close()
    output.say([dim(f"stopped; nothing is left running, data and logs stay in {directory}")])
    return INTERRUPTED if status is None else status


def _restarted(shown: Display) -> Callable[[str, int], None]:
    return lambda name, status: shown.happening(
        f"{name} {ended_by(status)}: its supervisor has started another"
    )


# --- the story ------------------------------------------------------------------------------------------


def _tell(stage: Stage, shown: Display, output: Output, *, stay: bool) -> int:
    name = f"demo-{secrets.token_hex(2)}"
    requests = stage.sandbox.requests()
    origin = stage.sandbox.https_url
    run_ = Run(name, stage, shown, cast.calls(name, origin), requests[-1].n if requests else 0)
    for person in cast.PEOPLE:
        addresses = person.addresses(origin)
        recipients.upsert(
            stage.database, person.id, addresses, locale=person.locale, timezone=person.timezone
        )
    shown.happening(
        f"{counted(len(cast.PEOPLE), 'recipient')} stored: {', '.join(it.id for it in cast.PEOPLE)}"
    )
    later = run_.later = fast.Later(name, stage, shown.happening, lambda: _look(run_))
    with producer(stage, run_.name, lambda: _look(run_)) as producing:
        stage.sandbox.set_mode("fcm", "429", times=1, retry_after="2")
        _send(run_, producing, 1)
        _until(run_, lambda: _settled(run_, 1), ACT_WITHIN)
        _kill(run_, producing)
        # The killed worker's lease takes its time, and these have none to lose.
        fast.prepare(later)
        _send(run_, producing, fast.ACT)
        fast.act(later)
    finished = _until(run_, lambda: _settled(run_), END_WITHIN)
    _until(run_, lambda: _reported(run_), REPORTS_WITHIN)
    shown.close()
    _timelines(run_, output)
    _explained(later, output)
    checks = [*verdict.judge(_facts(run_)), *fast.judge(later)]
    output.say()
    for check in checks:
        output.say(
            [Span("✔" if check.good else "✖", "sent" if check.good else "failed"), f" {check.text}"],
            wrap=True,
        )
    good = finished and all(check.good for check in checks)
    words = (
        "every notification ended as it should" if good else "something did not end as it should: see ✖ above"
    )
    output.say()
    output.say([Span("✔ " if good else "✖ ", "sent" if good else "failed"), bold(words)])
    _where_to_look(run_, output, stay=stay)
    return 0 if good else 1


def _send(run_: Run, producing: Producer, act: int) -> None:
    """Let the producer send the calls of an act, and watch meanwhile."""
    count = sum(2 if call.twice else 1 for call in run_.calls if call.act == act)
    run_.shown.happening(
        [f"producer (process {producing.pid}): ", bold(f"send_notification.delay(...) {count} times")]
    )
    run_.called_at[act] = datetime.now(UTC)
    seconds = producing.send(act, count, ACT_WITHIN)
    run_.shown.happening(f"producer: {counted(count, 'call')} returned in {duration(seconds)}")


def _kill(run_: Run, producing: Producer) -> None:
    """Act 2: SIGKILL a worker while the mail server has its mails and has not answered."""
    stage, shown = run_.stage, run_.shown
    stage.sandbox.set_mode("smtp", "slow", delay=SLOW_SECONDS)
    shown.happening(
        f"the mail server is slow from now on: it takes a mail and answers {SLOW_SECONDS:g} s later"
    )
    run_.victim = stage.worker_name(VICTIM)
    _send(run_, producing, 2)
    _until(run_, lambda: len(_taken(run_)) >= IN_HAND, SLOW_SECONDS - 1.5)
    pid = stage.supervisor.pid(VICTIM)
    stage.supervisor.signal(VICTIM, signal.SIGKILL)
    stage.sandbox.clear_modes("smtp")
    _look(run_)
    run_.killed = {str(row.id): row for row in _in_hand(run_)}
    shown.happening(
        [
            Span(f"SIGKILL to worker {VICTIM} (process {pid})", "failed"),
            f": it had {counted(len(run_.killed), 'mail')} in its hands, taken by the server and not yet answered",
        ]
    )


def _in_hand(run_: Run) -> list[Seen]:
    return [row for row in run_.rows if row.state == "sending" and row.worker == run_.victim]


def _taken(run_: Run) -> list[Seen]:
    """What the victim has in its hands and the far end has taken."""
    arrived = {it.delivery_id for it in run_.stage.sandbox.requests() if it.accepted}
    return [row for row in _in_hand(run_) if str(row.id) in arrived]


# --- looking --------------------------------------------------------------------------------------------


def _until(run_: Run, condition: Callable[[], bool], seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        _look(run_)
        if condition():
            return True
        time.sleep(LOOK_EVERY)
    return False


def _look(run_: Run) -> None:
    with suppress(DatabaseError):  # shown anew at the next look
        run_.rows = watching.seen(run_.stage.database, run_.message_ids)
    abouts = {call.message_id(run_.name): call.about for call in run_.calls}
    run_.shown.update(run_.rows, abouts, awaited(run_))


def _settled(run_: Run, act: int | None = None) -> bool:
    """Whether every call of an act, or of all, has ended; what is held for later may still wait in an act."""
    for call in run_.calls:
        if act is not None and (call.act != act or call.later):
            continue
        rows = [row for row in run_.rows if row.message_id == call.message_id(run_.name)]
        if len(rows) < max(1, call.deliveries) or any(row.state not in ENDED for row in rows):
            return False
    return True


def _reported(run_: Run) -> bool:
    """Whether everything is reported on that will be."""
    ends = {call.message_id(run_.name): call.ends for call in run_.calls}
    return not any(
        row.state == "sent"
        and (
            row.provider in REPORTING
            or "sent" not in ends.get(row.message_id, {}).get(row.channel, ("sent",))
        )
        for row in run_.rows
    )


def awaited(run_: Run) -> str:
    """What the demo waits for, in words."""
    parts = []
    orphans = [row for row in run_.rows if str(row.id) in run_.killed and row.state == "sending"]
    orphans = [row for row in orphans if row.worker == run_.victim]
    if orphans:
        left = max(row.lease_left or 0.0 for row in orphans)
        what = f"the lease of {counted(len(orphans), 'delivery')} to end"
        parts.append(
            f"{what}, {left:.0f} s left" if left > 0 else f"the sweep to end {counted(len(orphans), 'lease')}"
        )
    for state, text in (
        ("sending", "{} being sent"),
        ("queued", "{} in a queue"),
        ("retrying", "{} until its next try"),
        ("held", "{} held until its time"),
    ):
        rows = [row for row in run_.rows if row.state == state and row not in orphans]
        if rows:
            left = max((row.due_in or 0.0 for row in rows), default=0.0)
            due = f" ({duration(max(0.0, left))} left)" if state == "held" else ""
            parts.append(text.format(counted(len(rows), "delivery")) + due)
    reports = [row for row in run_.rows if row.state == "sent" and row.provider in REPORTING]
    if reports and not parts:
        parts.append(f"the receipts of {counted(len(reports), 'delivery')}")
    unplanned = sum(
        call.message_id(run_.name) not in {row.message_id for row in run_.rows}
        for call in run_.calls
        if call.act in run_.called_at
    )
    if unplanned:
        parts.append(f"{counted(unplanned, 'call')} on the way to a worker")
    return f"waiting for {'; '.join(parts)}" if parts else ""


def _facts(run_: Run) -> verdict.Facts:
    stage = run_.stage
    requests = [it for it in stage.sandbox.requests() if it.n > run_.first_request]
    seen = sorted({it.delivery_id for it in requests if it.delivery_id})
    return verdict.Facts(
        run=run_.name,
        calls=run_.calls,
        called_at=run_.called_at,
        rows=run_.rows,
        tried={str(it.id): it for it in watching.tried(stage.database, run_.message_ids)},
        requests=requests,
        known=watching.known(stage.database, seen),
        killed=run_.killed,
    )


# --- the end ----------------------------------------------------------------------------------------------


def _timelines(run_: Run, output: Output) -> None:
    now = datetime.now(UTC)
    for call in run_.calls:
        if call.act == fast.ACT:
            continue
        found = statuses.read(run_.stage.database, call.message_id(run_.name))
        output.say()
        if call.about:
            output.say([dim(f"# {call.about}")])
        for line in timeline.lines(found, now):
            output.say(line, wrap=True)


def _explained(later: fast.Later, output: Output) -> None:
    output.say()
    output.say(
        [
            bold("What happened later"),
            dim(f", on a clock that ran {duration(later.passed)} ahead: notify explain"),
        ]
    )
    for about, told in fast.explained(later):
        output.say()
        output.say([dim(f"# {about}")])
        for line in told.splitlines():
            output.say(line, wrap=True)


def _where_to_look(run_: Run, output: Output, *, stay: bool) -> None:
    stage = run_.stage
    if stay:
        output.say([bold(f"  page      {stage.sandbox.ready.page_url}"), "  what arrived, live: open it"])
        if stage.directory != Path(DIRECTORY):  # else commands find it by themselves
            output.say(f"  first     set -a; . {stage.directory / ENV_FILE}; set +a")
        output.say(f"  status    notify status {run_.calls[-1].message_id(run_.name)}")
        output.say("""  send      notify send order.shipped --to ana --payload '{"order_id": 981}'""")
        output.say(
            f"  Flower    {stage.flower.url}  user {stage.flower.user}, password {stage.flower.password}"
        )
    output.say(f"  far end   {stage.sandbox.log_path}, one line a request")
    output.say(f"  logs      {stage.supervisor.log_path('*')}")
    if not stay:
        output.say("  to look around in Flower and with `notify status`, type `notify demo` on a terminal")


def _stay(stage: Stage, output: Output) -> None:
    output.say()
    output.say([bold("everything runs on until Ctrl-C"), f"; {len(stage.supervisor.names())} processes"])
    while True:
        time.sleep(1)


# --- being stopped ----------------------------------------------------------------------------------------

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _stopping() -> Iterator[None]:
    """Inside, Ctrl-C, SIGTERM and a closed terminal all stop the demo in order."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        _deaf()
        raise KeyboardInterrupt

    before: Sequence[tuple[signal.Signals, object]] = [(it, signal.signal(it, interrupt)) for it in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)  # type: ignore[arg-type]  # what `signal` returned


def _deaf() -> None:
    """From here on everything is stopping already: a second Ctrl-C must not leave half of it running."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
