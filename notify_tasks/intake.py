"""Intake: dedupe, plan, store, wake. No Celery here.

One commit stores a notification with its deliveries; what is published afterwards may be lost without harm. A call
for one recipient over one named channel takes one hop: its delivery is accepted and claimed in the same statement.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from notify_tasks import contacts, metering, tracing
from notify_tasks.errors import WireError
from notify_tasks.gates import Closed, Gates, Subject
from notify_tasks.judging import Judge, Judged, Taken
from notify_tasks.notification import Notification, uuid7
from notify_tasks.rendering import Catalog
from notify_tasks.routing import INTAKE, stage_and_lane
from notify_tasks.states import State
from notify_tasks.store import accepting, deliveries, intakes, parking
from notify_tasks.store.accepting import Claim, Existing, NewDelivery, NewNotification, Stored
from notify_tasks.store.database import BadRow, Database
from notify_tasks.store.deliveries import Claimed, ClaimRequest
from notify_tasks.store.known import read_context
from notify_tasks.store.sweeps import Wake
from notify_tasks.trace_context import parent_of

logger = logging.getLogger(__name__)

UNKNOWN_TYPE_LOOK_SECONDS: Final = 15.0
CONFLICTS: Final = uuid.UUID("6b1ff1e8-46ac-4f0c-9d0a-5f0f0c1a7a55")
"""Namespace of the ids under which refused conflicts are stored, so that a repeated one is stored once."""


class Intake:
    """Accepts calls.

    Args:
        wake: publishes deliveries on their queues, at best effort.
        unknown_type_wait: seconds for which a call waits for a type that is not there.
        worker: this process's name.
        run_again: runs a statement until the database has answered (the deliverer's).
    """

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        gates: Gates,
        wake: Callable[[Sequence[Wake]], None],
        unknown_type_wait: float,
        worker: str,
        run_again: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._database = database
        self._judge = Judge(catalog, gates, unknown_type_wait)
        self._gates = gates
        self._wake = wake
        self._unknown_type_wait = unknown_type_wait
        self._worker = worker
        self._run_again = run_again

    # --- from a queue -------------------------------------------------------------------------------

    def take(self, notification: Notification, *, queue: str) -> Taken:
        """Accept one call that came as a message on `queue`.

        Raises:
            DatabaseAway: nothing is known to be stored; put the message back.
            BadRow: PostgreSQL refuses the call's data; park it.
        """
        with tracing.span(
            "notify.accept",
            trace=parent_of(notification.trace),
            message_id=notification.message_id,
            event_type=notification.event_type,
        ) as span:
            taken = self._take(notification, queue)
            span.set(outcome=taken.kind, deliveries=taken.deliveries)
            return taken

    def _take(self, notification: Notification, queue: str) -> Taken:
        vetted = contacts.vet(notification)
        context = read_context(self._database, [vetted.notification])
        judged = self._judge.judge(notification, vetted, context, waited=0.0)
        if judged.waits is not None:
            intakes.keep(
                self._database,
                [notification.to_wire()],
                origin="unknown_type",
                wait=min(UNKNOWN_TYPE_LOOK_SECONDS, self._unknown_type_wait),
            )
            metering.taken(notification.event_type, "waiting", judged.waits)
            return Taken(notification, "waiting", judged.waits)
        self._try_one_hop(judged, queue, context.now)
        self._store([judged])
        assert judged.taken is not None
        return judged.taken

    # --- from the table -----------------------------------------------------------------------------

    def drain(self, *, limit: int = 200) -> int:
        """Plan what the intake table keeps. Returns how many rows were taken.

        Raises:
            DatabaseAway: what was taken is due again in half a minute.
        """
        rows = intakes.take(self._database, limit=limit)
        ready: list[tuple[intakes.Kept, Notification]] = []
        for row in rows:
            if row.tries > intakes.TAKES:
                self._park(row, "taken_without_end", f"taken {intakes.TAKES} times without an end")
                continue
            try:
                ready.append((row, Notification.from_wire(row.envelope)))
            except WireError as error:
                self._park(row, "unreadable", str(error))
        if ready:
            try:
                self._drain(ready)
            except BadRow:
                for one in ready:
                    self._drain_one(one)
        return len(rows)

    def _drain_one(self, one: tuple[intakes.Kept, Notification]) -> None:
        try:
            self._drain([one])
        except BadRow as error:
            self._park(one[0], "refused_by_database", str(error))

    def _drain(self, ready: Sequence[tuple[intakes.Kept, Notification]]) -> None:
        began = time.monotonic()
        vetted = [contacts.vet(notification) for _, notification in ready]
        context = read_context(self._database, [it.notification for it in vetted])
        done, later, judged = [], [], []
        for (row, notification), it in zip(ready, vetted, strict=True):
            one = self._judge.judge(notification, it, context, waited=row.waited)
            if one.waits is not None:
                later.append(row)
            else:
                judged.append(one)
                done.append(row)
        if judged:
            self._store(judged)
            self._trace(judged, began)
        intakes.done(self._database, done)
        intakes.later(self._database, later, wait=min(UNKNOWN_TYPE_LOOK_SECONDS, self._unknown_type_wait))

    @staticmethod
    def _trace(judged: Sequence[Judged], began: float) -> None:
        """A span for each of what was taken together, in the trace of its own producer."""
        for one in judged:
            notification, taken = one.notification, one.taken
            with tracing.span(
                "notify.accept",
                trace=parent_of(notification.trace),
                began=began,
                message_id=notification.message_id,
                event_type=notification.event_type,
                outcome=taken.kind if taken else None,
                deliveries=taken.deliveries if taken else None,
            ):
                pass

    def _park(self, row: intakes.Kept, reason: str, detail: str) -> None:
        raw = json.dumps(row.envelope, ensure_ascii=False).encode()
        parking.park(self._database, [parking.Parked("intake", reason, raw, detail, at=row.hash)])
        intakes.done(self._database, [row])

    # --- judging ------------------------------------------------------------------------------------

    def foresee(self, notification: Notification, now: datetime | None = None) -> NewNotification:
        """What `take` would store of a call, with the plan. Nothing is stored, and no type is waited for.

        Args:
            notification: the call.
            now: the instant of the decision, in UTC; None for the present. All else is as it is stored now.

        Raises:
            DatabaseAway: what planning needs to know cannot be read.
        """
        vetted = contacts.vet(notification)
        context = read_context(self._database, [vetted.notification])
        context.now = now or context.now
        judged = self._judge.judge(notification, vetted, context, waited=float("inf"))
        assert judged.item is not None
        return judged.item

    # --- one hop ------------------------------------------------------------------------------------

    def _try_one_hop(self, judged: Judged, queue: str, now: datetime) -> None:
        """Claim with the acceptance, where the message is on the right queue and the gates are open."""
        stage, lane = stage_and_lane(queue)
        item = judged.item
        if stage == INTAKE or item is None or len(item.deliveries) != 1:
            return
        delivery = item.deliveries[0]
        decision = delivery.decision
        if decision.state is not State.QUEUED or (decision.channel, decision.lane) != (stage, lane):
            return
        notification = judged.notification
        answer = self._gates.ask(
            Subject(
                str(delivery.id),
                notification.tenant,
                notification.event_type,
                decision.channel,
                decision.lane,
                sandbox=notification.sandbox,
                address=decision.address,
                limits=judged.limits,
                lifetime=(decision.expires_at - now).total_seconds(),
            )
        )
        if isinstance(answer, Closed) and answer.ends is not None:
            ended = replace(decision, state=answer.ends, reason=answer.reason)
            judged.item = replace(item, deliveries=(replace(delivery, decision=ended),))
            return
        if isinstance(answer, Closed):
            due = now + timedelta(seconds=answer.wait)
            held = replace(decision, state=State.HELD, reason=answer.reason, due_at=due)
            judged.item = replace(item, deliveries=(replace(delivery, decision=held),))
            return
        judged.claim = Claim(uuid7(), answer.name, answer.lease, self._worker)
        judged.one_hop = (answer, decision)
        judged.item = replace(item, deliveries=(replace(delivery, claim=judged.claim),))

    # --- storing ------------------------------------------------------------------------------------

    def _store(self, judged: Sequence[Judged]) -> None:
        items = [one.item for one in judged if one.item is not None]
        asked = time.monotonic()
        claims = any(one.claim for one in judged)

        def store() -> Stored:
            return accepting.accept(self._database, items)

        # With a claim in it the statement is run until its outcome is known: put back instead, the message would
        # find itself accepted and claimed by nobody.
        stored: Stored = self._run_again(store) if claims else store()
        wakes: list[Wake] = []
        conflicts: list[NewNotification] = []
        for one in judged:
            item = one.item
            if item is None:
                continue
            existing = stored.existing.get(item.id)
            if existing is None or existing.notification_id == item.id:
                one.taken = self._accepted(one, item, stored, asked)
                self._remind(it.decision.due_at for it in item.deliveries)
                wakes += [
                    Wake(
                        delivery.id,
                        delivery.decision.channel,
                        delivery.decision.lane,
                        item.notification.message_id,
                        item.notification.event_type,
                    )
                    for delivery in item.deliveries
                    if stored.states.get(delivery.id, delivery.decision.state) == State.QUEUED
                ]
            else:
                one.taken = self._known(one, existing, conflicts)
            _count(one.taken, item)
        self._remind(stored.moments)
        if conflicts:
            accepting.accept(self._database, conflicts)
        self._wake(wakes)

    def _remind(self, moments: Iterable[datetime | None]) -> None:
        """What is due soon is woken to the moment; the sweep would be some seconds late."""
        now = datetime.now(UTC)
        for due in {moment for moment in moments if moment is not None}:
            self._gates.later(max(0.0, (due - now).total_seconds()))

    def _accepted(self, one: Judged, item: NewNotification, stored: Stored, asked: float) -> Taken:
        if item.state != "accepted":
            return Taken(one.notification, "rejected", f"{item.reason}: {item.detail}")
        claimed = None
        delivery = item.deliveries[0] if item.deliveries else None
        if one.claim is not None and delivery is not None and one.one_hop is not None:
            state = stored.states.get(delivery.id)
            if state == State.SENDING:
                claimed = self._claimed(one, item, delivery, one.claim)
            elif state is None:
                claimed = self._still_ours(delivery, one.claim)
            if claimed is None:
                self._gates.given_up(one.claim.provider, str(delivery.id))
        lease = None if one.claim is None else one.claim.lease
        return Taken(one.notification, "accepted", None, len(item.deliveries), claimed, asked, lease)

    def _still_ours(self, delivery: NewDelivery, claim: Claim) -> Claimed | None:
        """What an earlier run of the same statement stored, when its answer was lost, unless its lease has ended."""
        request = ClaimRequest(delivery.id, claim.token, claim.provider, claim.lease, claim.worker)
        found = self._run_again(lambda: deliveries.claim(self._database, [request]))
        return found[0] if found else None

    @staticmethod
    def _claimed(one: Judged, item: NewNotification, delivery: NewDelivery, claim: Claim) -> Claimed:
        notification, decision = one.notification, delivery.decision
        return Claimed(
            id=delivery.id,
            token=claim.token,
            fence=1,
            notification_id=item.id,
            tenant=notification.tenant,
            message_id=notification.message_id,
            event_type=notification.event_type,
            recipient_id=decision.recipient_id,
            channel=decision.channel,
            lane=decision.lane,
            locale=decision.locale,
            timezone=decision.timezone,
            attempts=1,
            max_attempts=decision.max_attempts,
            unknown=0,
            unknown_age=0.0,
            lifetime=(decision.expires_at - (one.now or datetime.now(UTC))).total_seconds(),
            provider=claim.provider,
            on_doubt=decision.on_doubt,
            sandbox=notification.sandbox,
            address=decision.address,
            payload=notification.payload,
            attachments=notification.attachments,
            trace=parent_of(notification.trace),
        )

    @staticmethod
    def _known(one: Judged, existing: Existing, conflicts: list[NewNotification]) -> Taken:
        notification = one.notification
        if existing.cancelled and existing.notification_id is None:
            return Taken(notification, "cancelled", "cancelled before it was accepted")
        if existing.hash == notification.hash:
            return Taken(notification, "repeated")
        detail = (
            f"message id {notification.message_id} was first used with body {existing.hash}, "
            f"and again with body {notification.hash}; use a new id for another body"
        )
        conflicts.append(
            NewNotification(
                id=uuid.uuid5(
                    CONFLICTS, f"{notification.tenant}/{notification.message_id}/{notification.hash}"
                ),
                notification=notification,
                plan={},
                state="rejected",
                reason="conflict",
                detail=detail,
                keyed=False,
            )
        )
        return Taken(notification, "conflict", detail)


def _count(taken: Taken, item: NewNotification) -> None:
    metering.taken(
        taken.notification.event_type, taken.kind, item.reason if taken.kind == "rejected" else None
    )
    if taken.kind != "accepted":
        return
    for delivery in item.deliveries:
        state = delivery.decision.state
        metering.planned(delivery.decision.channel, state, delivery.decision.reason)
    for drop in item.plan.get("dropped", ()):
        metering.planned(drop["channel"], "drop", drop["reason"])
