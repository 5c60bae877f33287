"""A delivery's way through a worker: gates -> claim -> render -> send -> record. No Celery here.

The order is what keeps the promises. The claim is committed before anything is sent, so that no request can exist
without its attempt row. No database connection is held during the call. The result is written until it is there.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from channels.contract import (
    Accepted,
    Capability,
    ChannelError,
    Content,
    Deadline,
    Message,
    Misconfigured,
    Provider,
    Queryable,
    Uncertain,
    Unroutable,
)
from notify_tasks import log_context, metering, retrying, tracing
from notify_tasks.breaker import judge
from notify_tasks.composing import compose, limits
from notify_tasks.gates import Closed, Gates, Subject
from notify_tasks.holding import Holds
from notify_tasks.notification import uuid7
from notify_tasks.outcomes import Countdowns, Outcome
from notify_tasks.providers import Configured, Pools
from notify_tasks.rendering import Catalog
from notify_tasks.routing import queue_for
from notify_tasks.states import FINAL, State
from notify_tasks.store import attachments as kept
from notify_tasks.store import deliveries
from notify_tasks.store.database import Database, DatabaseAway
from notify_tasks.store.deliveries import Claimed, ClaimRequest, Result, Waiting
from notify_tasks.stored_files import StoredFiles
from notify_tasks.unsubscribing import Links
from notify_tasks.watchdog import Watchdog
from notify_tasks.webhooks import DISABLED, Webhooks

logger = logging.getLogger(__name__)

T = TypeVar("T")

AWAY_RETRY_SECONDS: Final = 0.5
SEND_MARGIN: Final = 1.0
"""Seconds of the lease that must be left over the call's deadline when the call begins."""
RELEASED: Final = "released"


class Deliverer:
    """Sends deliveries.

    Args:
        worker: this process's name, kept with its attempts.
        away: told when the database is away; it stops the process from fetching more.
        files: stored attachments; None where this process has no folder of them.
        webhooks: knows endpoints' own secrets; without it every webhook is signed as its provider is configured.
        links: makes links to unsubscribe; None where no key is set.
    """

    def __init__(  # noqa: PLR0913 - one for each part that it works with
        self,
        *,
        database: Database,
        pools: Pools,
        catalog: Catalog,
        gates: Gates,
        watchdog: Watchdog,
        worker: str,
        away: Callable[[DatabaseAway], None],
        files: StoredFiles | None = None,
        webhooks: Webhooks | None = None,
        links: Links | None = None,
    ) -> None:
        self._database = database
        self._pools = pools
        self._catalog = catalog
        self._gates = gates
        self._watchdog = watchdog
        self._worker = worker
        self._away = away
        self._files = files or StoredFiles(None)
        self._webhooks = webhooks or Webhooks(None)
        self._links = links
        self._stopping = threading.Event()
        self._countdowns = Countdowns()

    @property
    def worker(self) -> str:
        """This process's name."""
        return self._worker

    @property
    def gates(self) -> Gates:
        """The gates of this process."""
        return self._gates

    # --- deliveries that are stored -----------------------------------------------------------------

    def read(self, ids: Sequence[uuid.UUID]) -> list[Waiting]:
        """Those that may be claimed now, in one statement for the whole message.

        Raises:
            DatabaseAway: the message must be put back.
        """
        return deliveries.read_waiting(self._database, ids)

    def deliver(
        self, waiting: Waiting, *, tried: frozenset[str] = frozenset(), holds: Holds | None = None
    ) -> Outcome:
        """One stored delivery: ask the gates, claim, send; go on to the next provider where that is the verdict.

        Args:
            waiting: it.
            tried: providers that have failed for it in this run already.
            holds: takes it where a gate is closed; its owner writes it down. Without one that is done here.

        Raises:
            DatabaseAway: before the claim, so that nothing is lost by putting the message back.
        """
        while True:
            subject = Subject(
                str(waiting.id),
                waiting.tenant,
                waiting.event_type,
                waiting.channel,
                waiting.lane,
                waiting.provider,
                waiting.unknown > 0,
                waiting.sandbox,
                waiting.reason,
                waiting.address,
                limits(self._catalog, waiting.event_type),
                waiting.lifetime,
            )
            chosen = self._gates.ask(subject, without=tried)
            if isinstance(chosen, Closed):
                return self._closed(waiting, chosen, holds)
            asked = time.monotonic()
            claimed = self._claim(waiting.id, chosen)
            if claimed is None:
                self._gates.given_up(chosen.name, str(waiting.id))
                return Outcome(waiting.id, None)
            outcome = self.perform(claimed, asked=asked, lease=chosen.lease, tried=tried)
            if outcome.state is not State.QUEUED or outcome.wake:
                return outcome
            tried |= {chosen.name}

    def _closed(self, waiting: Waiting, closed: Closed, holds: Holds | None) -> Outcome:
        if closed.ends is not None:
            metering.became(waiting.channel, waiting.event_type, closed.ends)
            ended = deliveries.end(self._database, waiting.id, closed.ends, closed.reason)
            return Outcome(waiting.id, State(ended) if ended else None, code=closed.reason)
        metering.became(waiting.channel, waiting.event_type, State.HELD)
        mine = Holds(self._database) if holds is None else holds
        mine.add(waiting.id, closed.wait, closed.reason)
        if holds is None:
            mine.write()
        return Outcome(waiting.id, State.HELD, code=closed.reason)

    def holds(self) -> Holds:
        """What takes the deliveries of one message that have to wait, to write them down together."""
        return Holds(self._database)

    def go_on(self, outcome: Outcome) -> Outcome:
        """Where the verdict on a delivery claimed elsewhere was `the next provider, now`: do that."""
        if outcome.state is not State.QUEUED or outcome.wake:
            return outcome
        waiting = self.read([outcome.id])
        return self.deliver(waiting[0], tried=frozenset({outcome.provider or ""})) if waiting else outcome

    def _claim(self, id_: uuid.UUID, chosen: Configured) -> Claimed | None:
        """Claim, and where the commit's outcome is unknown run the same claim again with its token."""
        request = ClaimRequest(id_, uuid7(), chosen.name, chosen.lease, self._worker)
        runs = 0

        def run() -> list[Claimed]:
            nonlocal runs
            runs += 1
            return deliveries.claim(self._database, [request])

        found = self.until_written(run)
        if not found and runs > 1:
            # The first run may have been committed while this one waited for its lock: a new statement sees it.
            found = self.until_written(run)
        return found[0] if found else None

    # --- deliveries that are claimed ----------------------------------------------------------------

    def perform(
        self,
        claimed: Claimed,
        *,
        asked: float,
        lease: float | None = None,
        tried: frozenset[str] = frozenset(),
    ) -> Outcome:
        """Render, send and record one claimed delivery, which may be its provider's probe.

        Args:
            claimed: it.
            asked: the monotonic time just before the claim was sent, from which its lease is counted here.
            lease: seconds of it, where a new configuration may have given the provider another timeout since.
            tried: providers that have failed for it in this run already.
        """
        log_context.about_message(claimed.message_id, claimed.event_type, claimed.trace)
        log_context.about_delivery(
            claimed.id, attempt=claimed.fence, channel=claimed.channel, provider=claimed.provider
        )
        with tracing.span(
            "notify.deliver",
            trace=claimed.trace,
            began=asked,
            message_id=claimed.message_id,
            delivery_id=claimed.id,
            event_type=claimed.event_type,
            channel=claimed.channel,
            provider=claimed.provider,
            attempt=claimed.fence,
        ) as span:
            outcome = self._perform(claimed, asked, lease, tried)
            span.set(outcome=outcome.state, code=outcome.code)
            return outcome

    def _perform(  # noqa: PLR0911 - one way out for each thing that can happen to a call
        self, claimed: Claimed, asked: float, lease: float | None, tried: frozenset[str]
    ) -> Outcome:
        configured = self._pools.get(claimed.provider)
        if configured is None:
            # A new configuration has taken it away meanwhile. Where it may have the message, only it can say so.
            due = retrying.MISCONFIGURED_WAIT if claimed.unknown else None
            return self._release(claimed, "provider_gone", due=due)
        lease_ends = asked + (configured.lease if lease is None else lease)
        endpoint = self.until_written(lambda: self._webhooks.look(claimed))
        if endpoint.blocked is not None:
            return self._blocked(claimed, endpoint.blocked)
        began = metering.now()
        try:
            rendered = self._composed(claimed)
        except ChannelError as error:
            configured.breaker.abandon(str(claimed.id))
            return self._failed(claimed, configured, error, tried, version=None)
        metering.rendered(claimed.channel, began)
        content, version = rendered
        message = Message(
            delivery_id=str(claimed.id),
            idempotency_key=str(claimed.id),
            channel=claimed.channel,
            event_type=claimed.event_type,
            address=claimed.address,
            content=content,
            tenant=claimed.tenant,
            attempt=claimed.fence,
            recipient_id=claimed.recipient_id,
            secrets=endpoint.secrets,
        )
        if claimed.unknown and retrying.key_forgotten(
            configured.capability, claimed.unknown_age, claimed.channel
        ):
            return self._release(claimed, "key_window_passed", state=State.IN_DOUBT)
        # The deadline begins before the look at the lease: a process stopped in between finds one of them passed.
        deadline = Deadline(configured.timeout)
        if time.monotonic() + configured.timeout + SEND_MARGIN > lease_ends:
            # Stopped, or waiting for the database, so long that another worker may soon have this delivery.
            return self._release(claimed, "lease_too_short")
        full = self._gates.enter(configured.name)
        if full is not None:
            return self._release(claimed, full.reason, due=full.wait)
        began = metering.now()
        try:
            with self._watchdog.watching(deadline, configured.name):
                accepted = self._call(configured, message, deadline, unknown=claimed.unknown > 0)
        except ChannelError as error:
            self._judge(configured, error, claimed)
            return self._failed(claimed, configured, error, tried, version=version)
        except Exception as error:  # noqa: BLE001 - a provider's bug must not lose the message: it may have been sent
            # Its name alone: the traceback could show an address.
            logger.error(  # noqa: TRY400
                "provider %s raised %s, which it should not", configured.name, type(error).__name__
            )
            surprise = Uncertain("provider_bug", type(error).__name__)
            self._judge(configured, surprise, claimed)
            return self._failed(claimed, configured, surprise, tried, version=version)
        finally:
            self._gates.leave(configured.name)
            metering.called(claimed.channel, configured.name, began)
        configured.breaker.success()
        state = self._record(
            Result(
                token=claimed.token,
                id=claimed.id,
                fence=claimed.fence,
                outcome="accepted",
                state=State.SENT,
                code=accepted.code or None,
                provider_message_id=accepted.provider_message_id,
                template_version=version,
            ),
            claimed,
        )
        self.until_written(lambda: self._webhooks.took(claimed, endpoint))
        return Outcome(claimed.id, state, configured.name, accepted.code)

    def _call(
        self, configured: Configured, message: Message, deadline: Deadline, *, unknown: bool
    ) -> Accepted:
        with (
            tracing.span(
                "notify.provider",
                delivery_id=message.delivery_id,
                channel=message.channel,
                provider=configured.name,
                attempt=message.attempt,
            ) as span,
            configured.in_use() as provider,
        ):
            try:
                accepted = self._send(provider, message, deadline, unknown=unknown)
            except ChannelError as error:
                span.set(outcome=retrying.outcome_of(error), code=error.code)
                raise
            span.set(outcome="accepted", code=accepted.code or None)
            return accepted

    @staticmethod
    def _send(provider: Provider, message: Message, deadline: Deadline, *, unknown: bool) -> Accepted:
        if unknown and provider.capability is Capability.QUERYABLE and isinstance(provider, Queryable):
            found = provider.find(message, deadline)
            if found is not None:
                return found
        return provider.send(message, deadline)

    def _composed(self, claimed: Claimed) -> tuple[Content, str]:
        with tracing.span(
            "notify.render", delivery_id=claimed.id, channel=claimed.channel, event_type=claimed.event_type
        ):
            return compose(
                self._catalog,
                claimed,
                lambda: self.until_written(lambda: kept.read(self._database, claimed.notification_id)),
                self._files,
                self._links,
            )

    # --- what did not work --------------------------------------------------------------------------

    @staticmethod
    def _judge(configured: Configured, error: ChannelError, claimed: Claimed) -> None:
        """What a failed call says of its provider, and of no one message."""
        if judge(configured.breaker, error, channel=claimed.channel, who=str(claimed.id)):
            why = "misconfigured" if isinstance(error, Misconfigured) else "down"
            metering.breaker_opened(configured.name, why)
            logger.error("provider %s is %s: %s; it is left out", configured.name, why, error.code)

    def _failed(
        self,
        claimed: Claimed,
        configured: Configured,
        error: ChannelError,
        tried: frozenset[str],
        *,
        version: str | None,
    ) -> Outcome:
        subject = Subject(
            str(claimed.id),
            claimed.tenant,
            claimed.event_type,
            claimed.channel,
            claimed.lane,
            claimed.provider,
            claimed.unknown > 0,
            claimed.sandbox,
            address=claimed.address,
        )
        verdict = retrying.decide(
            error,
            retrying.Situation(
                attempts=claimed.attempts,
                max_attempts=claimed.max_attempts,
                unknown=claimed.unknown > 0,
                capability=configured.capability,
                on_doubt=claimed.on_doubt,
                other_provider=self._gates.other_ready(subject, without=tried | {configured.name}),
                channel=claimed.channel,
                alternatives=isinstance(error, Unroutable)
                and self._gates.alternatives(subject, without=tried | {configured.name}),
                lifetime=claimed.lifetime,
                age=claimed.unknown_age,
            ),
        )
        # A short wait is Celery's. It draws the countdown after this commit, so the row waits well past the longest.
        short = (
            verdict.state is State.RETRYING
            and (verdict.delay is None or verdict.delay <= retrying.BACKOFF_MAX)
            and self._countdowns.spend()
        )
        delay = verdict.delay
        if delay is None and verdict.state is State.RETRYING and not short:
            delay = retrying.short_wait(claimed.attempts, random.random())  # noqa: S311 - a spread
        state = self._record(
            Result(
                token=claimed.token,
                id=claimed.id,
                fence=claimed.fence,
                outcome=retrying.outcome_of(error),
                state=verdict.state,
                code=error.code[:100],
                detail=error.detail[:500] or None,
                reason=verdict.reason,
                unknown=verdict.unknown,
                counted=verdict.counted,
                due=retrying.LOST_MESSAGE_MARGIN if short else delay,
                not_before=delay,
                queue=queue_for(claimed.channel, claimed.lane),
                suppress=self._webhooks.suppression(claimed, verdict.suppress),
                template_version=version,
            ),
            claimed,
        )
        if version is not None:  # else nothing was sent
            self.until_written(lambda: self._webhooks.failed(claimed, error))
        retry = short and state is State.RETRYING
        return Outcome(
            claimed.id,
            state,
            configured.name,
            error.code,
            retry=error if retry else None,
            countdown=delay if retry else None,
            attempts=claimed.attempts,
            queue=queue_for(claimed.channel, claimed.lane),
            message_id=claimed.message_id,
            event_type=claimed.event_type,
        )

    def _blocked(self, claimed: Claimed, why: str) -> Outcome:
        """A webhook's endpoint may not be sent to."""
        if why == DISABLED:
            return self._release(claimed, why, state=State.SUPPRESSED)
        return self._release(
            claimed, why, due=retrying.MISCONFIGURED_WAIT, outcome=retrying.OUTCOMES[Misconfigured]
        )

    def _release(
        self,
        claimed: Claimed,
        code: str,
        *,
        due: float | None = None,
        state: State | None = None,
        outcome: str = RELEASED,
    ) -> Outcome:
        """Put a claimed delivery back, or into another state: nothing was sent."""
        self._gates.given_up(claimed.provider, str(claimed.id))
        now = self._record(
            Result(
                token=claimed.token,
                id=claimed.id,
                fence=claimed.fence,
                outcome=outcome,
                state=state or (State.QUEUED if due is None else State.HELD),
                code=code,
                reason=code,
                counted=False,
                due=due,
                queue=queue_for(claimed.channel, claimed.lane),
            ),
            claimed,
        )
        queue = queue_for(claimed.channel, claimed.lane)
        return Outcome(
            claimed.id,
            now,
            claimed.provider,
            code,
            queue=queue,
            wake=now is State.QUEUED,
            message_id=claimed.message_id,
            event_type=claimed.event_type,
        )

    # --- writing ------------------------------------------------------------------------------------

    def _record(self, result: Result, claimed: Claimed) -> State | None:
        """Write a result. Returns the delivery's state; None where it is another worker's, or waits for one."""
        recorded = self.until_written(lambda: deliveries.record(self._database, [result]))
        metering.attempted(claimed.channel, claimed.provider, claimed.event_type, result.outcome)
        if not recorded:  # written by a run whose answer was lost
            metering.became(claimed.channel, claimed.event_type, result.state)
            return State(result.state)
        state = State(recorded[0].state)
        if recorded[0].leads and state in FINAL:
            self._gates.later(0.0)  # the step that waits for it has its time now, or goes at once
        if recorded[0].applied:
            metering.became(claimed.channel, claimed.event_type, state)
            return state
        metering.fenced(claimed.channel)
        logger.warning("the result of delivery %s came after its lease had ended", result.id)
        return state if state in FINAL else None

    def until_written(self, write: Callable[[], T]) -> T:
        """Run a statement until the database has answered. It must be one that may be run again.

        The thread waits here for a database that is away; the process has stopped fetching meanwhile.
        """
        while True:
            try:
                return write()
            except DatabaseAway as error:
                self._away(error)
                self._stopping.wait(AWAY_RETRY_SECONDS)
