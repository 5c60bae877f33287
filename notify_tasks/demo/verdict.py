"""Whether everything ended as it should: rows, attempts and the far end's own log, held against the cast. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from notify_tasks.demo.cast import Call
from notify_tasks.demo.showing import ENDED
from notify_tasks.sandbox import LoggedRequest, effects_by_delivery
from notify_tasks.store.watching import Seen, Tried
from notify_tasks.terminal.looks import counted

OPAQUE_CHANNELS: Final = frozenset({"email", "sms", "push", "webpush", "chat"})
"""Their far end cannot be asked what became of a request."""
UNNAMED: Final = frozenset({"chat"})
"""Most hooks of chat services repeat no id of ours: their posts are counted."""
ARRIVED: Final = frozenset({"sent", "delivered", "undelivered"})
"""States of what a far end took."""
INBOX: Final = "inapp"


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is known at the end.

    Args:
        run: the name before each message id.
        calls: what was asked for.
        called_at: when the producer was told to begin with each act; nothing can be earlier.
        rows: the deliveries.
        tried: their attempts, by delivery.
        requests: what the far end logged in this run.
        known: ids of all deliveries in the database among those that the far end saw.
        killed: ids of the deliveries that the killed worker had in its hands.
    """

    run: str
    calls: Sequence[Call]
    called_at: Mapping[int, datetime]
    rows: Sequence[Seen]
    tried: Mapping[str, Tried]
    requests: Sequence[LoggedRequest]
    known: Collection[str]
    killed: Collection[str]


@dataclass(frozen=True, slots=True)
class Check:
    """One sentence, and whether it is as it should be."""

    good: bool
    text: str


def judge(facts: Facts) -> list[Check]:
    """Every check, each as a sentence."""
    effects = effects_by_delivery(facts.requests)
    return [
        _ended(facts),
        _ends(facts),
        *_twice_called(facts, effects),
        _reports(facts),
        *_later(facts),
        _far_end(facts, effects),
        *_repeated(facts, effects),
    ]


def _rows_of(facts: Facts, call: Call) -> list[Seen]:
    message_id = call.message_id(facts.run)
    return [row for row in facts.rows if row.message_id == message_id]


def _ended(facts: Facts) -> Check:
    counts = Counter(row.state for row in facts.rows)
    said = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.most_common())
    missing = [call.message_id(facts.run) for call in facts.calls if not _rows_of(facts, call)]
    waiting = [row.message_id for row in facts.rows if row.state not in ENDED]
    if missing or waiting:
        return Check(good=False, text=f"not everything ended: {', '.join([*missing, *waiting])} ({said})")
    deliveries = counted(sum(row.id is not None for row in facts.rows), "delivery")
    return Check(good=True, text=f"{counted(len(facts.calls), 'notification')}, {deliveries}: {said}")


def _ends(facts: Facts) -> Check:
    wrong = []
    for call in facts.calls:
        rows = _rows_of(facts, call)
        if not call.ends and [row.state for row in rows] != ["rejected"]:
            wrong.append(f"{call.message_id(facts.run)} was not rejected")
        if call.ends and len(rows) != call.deliveries:
            wrong.append(
                f"{call.message_id(facts.run)} has {counted(len(rows), 'delivery')}, not {call.deliveries}"
            )
        wrong += [
            f"{row.message_id} over {row.channel} is {row.state}"
            for row in rows
            if call.ends and not _as_expected(facts, call, row)
        ]
    if wrong:
        return Check(good=False, text=f"ended otherwise than it should: {'; '.join(wrong)}")
    special = [
        f"{row.message_id} {row.state} ({row.code or row.reason})"
        for row in facts.rows
        if row.state in {"failed", "rejected"}
    ]
    return Check(good=True, text=f"each as it should; not sent, with the reason: {', '.join(special)}")


def _as_expected(facts: Facts, call: Call, row: Seen) -> bool:
    if row.state == "in_doubt" and str(row.id) not in facts.killed:
        return False  # only a killed worker leaves a doubt here
    return row.state in call.ends.get(row.channel, ())


def _twice_called(facts: Facts, effects: Counter[str]) -> Iterator[Check]:
    for call in facts.calls:
        if call.twice:
            rows = _rows_of(facts, call)
            seen = sum(effects[str(row.id)] for row in rows)
            good = len(rows) == 1 and seen == 1
            what = (
                "one delivery, one mail"
                if good
                else f"{counted(len(rows), 'delivery')}, {counted(seen, 'mail')}"
            )
            yield Check(good, f"{call.message_id(facts.run)}, called twice with one id: {what}")


def _later(facts: Facts) -> Iterator[Check]:
    for call in facts.calls:
        for row in _rows_of(facts, call) if call.later else ():
            tried = facts.tried.get(str(row.id))
            if tried is None or tried.first_at is None:
                yield Check(good=False, text=f"{row.message_id}, held for later, was never sent")
                continue
            waited = (tried.first_at - facts.called_at[call.act]).total_seconds()
            good = waited >= call.later
            when = f"{'not before' if good else 'before'} its time"
            text = f"{row.message_id}, asked for {call.later:g} s later: sent {when}, after {waited:.1f} s"
            yield Check(good, text)


def _reports(facts: Facts) -> Check:
    """What providers told afterwards."""
    told = Counter(row.state for row in facts.rows if row.state in {"delivered", "undelivered"})
    late = [row for row in facts.rows if row.state == "undelivered"]
    why = ", ".join(f"{row.message_id} ({row.reason or row.code})" for row in late)
    text = f"receipts: {counted(told['delivered'], 'delivery')} confirmed"
    return Check(bool(told["delivered"]), text + (f"; not arrived after all: {why}" if late else ""))


def _far_end(facts: Facts, effects: Counter[str]) -> Check:
    wrong = []
    for row in (it for it in facts.rows if it.channel not in UNNAMED):
        count = effects[str(row.id)]
        tried = facts.tried.get(str(row.id))
        if row.channel == INBOX and row.state == "sent" and not (tried and tried.in_inbox):
            wrong.append(f"{row.message_id} is not in the inbox")
        elif row.channel != INBOX and row.state in ARRIVED and count == 0:
            wrong.append(f"{row.message_id} over {row.channel} is missing")
        elif row.state in {"failed", "rejected"} and count:
            wrong.append(f"{row.message_id} over {row.channel} is {row.state}, yet arrived")
        allowed = 1 + (tried.unknown if tried and row.channel in OPAQUE_CHANNELS else 0)
        if count > allowed:
            wrong.append(f"{row.message_id} over {row.channel} arrived {count} times")
    strangers = sorted(set(effects) - set(facts.known))
    wrong += [f"a message of the unknown delivery {it}" for it in strangers]
    unnamed = [it for it in facts.requests if it.accepted and not it.delivery_id]
    wrong += ["a message without a delivery's id" for it in unnamed if it.channel not in UNNAMED]
    posts = sum(it.accepted and it.channel in UNNAMED for it in facts.requests)
    ours = {str(row.id) for row in facts.rows}
    sent = sum(row.channel in UNNAMED and row.state in ARRIVED for row in facts.rows)
    if posts != sent:
        wrong.append(f"{counted(posts, 'chat post')} for {counted(sent, 'delivery')}")
    if wrong:
        return Check(good=False, text=f"at the far end: {'; '.join(wrong)}")
    named = [it for it in facts.requests if it.accepted and it.channel not in UNNAMED]
    total = posts + sum(it.delivery_id in ours for it in named)
    mails = sum(it.accepted and it.channel == "email" and it.delivery_id in ours for it in facts.requests)
    text = f"the far end took {counted(total, 'message')}, {mails} of them mails: none missing, none unknown"
    return Check(good=True, text=text)


def _repeated(facts: Facts, effects: Counter[str]) -> Iterable[Check]:
    """What arrived twice, said aloud: only what an opaque far end had taken when the worker was killed."""
    twice = [row for row in facts.rows if effects[str(row.id)] > 1]
    doubts = [row for row in facts.rows if row.state == "in_doubt"]
    if not facts.killed:
        return
    good = all(str(row.id) in facts.killed for row in twice)
    names = ", ".join(row.message_id for row in twice) or "none"
    why = "; SMTP cannot be asked what it took, and their type says: send again" if twice else ""
    hands = f"{counted(len(facts.killed), 'delivery')} in the killed worker's hands"
    yield Check(good, f"{hands}; arrived twice{'' if good else ', others too'}: {names}{why}")
    for row in doubts:
        yield Check(good=True, text=f"{row.message_id} is in doubt and not sent again: its type says hold")
