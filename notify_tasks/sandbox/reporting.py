"""Sends what providers tell later: receipts of messages, what people answer, mails that come back.

A report is posted in a thread of its own pool, and again a few times while the door fails or cannot be reached, as
providers do (they take hours for it, this takes seconds). What waits is bounded; what does not get through is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import http.client
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlsplit

from notify_tasks.sandbox.bouncing import BOUNCES, Mail, bounce, comes_back
from notify_tasks.sandbox.log import LoggedRequest
from notify_tasks.sandbox.modes import SMTP, Modes
from notify_tasks.sandbox.reports import Call, Plan, Reporting, Sent
from notify_tasks.sandbox.wires.finding import wires
from notify_tasks.sandbox.wires.wire import OPTED_OUT, Reading, Request, Wire

TRIES: Final = 6
FIRST_WAIT: Final = 0.5
"""Seconds before the second try; each further wait is twice as long."""
TIMEOUT: Final = 15.0
"""Seconds that the door may take for one report: Twilio's."""
MOST_WAITING: Final = 10_000
_THREADS: Final = 8
_OK, _FAILED = 300, 500
_MOST_READ: Final = 64 * 1024
_STOPS: Final = frozenset(
    {"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT", "TD", "T"}
)
_STARTS: Final = frozenset({"START", "UNSTOP", "YES"})


HOOKS: Final[Mapping[str, str]] = {SMTP: "smtp-main"}
"""What `notify.dev.toml` calls a provider, where that is not the target's own name."""
SOON: Final = 0.5
"""Seconds after a message was taken until its receipt comes, where a gateway is named."""


class PlanError(ValueError):
    """A plan that cannot be set; the text names the field and what it may be."""


@functools.cache
def _tls() -> ssl.SSLContext:
    """One for all reports: reading every certificate of this machine takes tens of milliseconds."""
    return ssl.create_default_context()


def targets() -> dict[str, Mapping[str, str]]:
    """Every target that reports, with its outcomes."""
    found = {name: wire.outcomes for name, wire in wires().items() if isinstance(wire, Reporting)}
    return {SMTP: BOUNCES, **found}


def _first_plan(target: str, hooks: str | None) -> Plan:
    return Plan() if hooks is None else Plan(url=f"{hooks}/{HOOKS.get(target, target)}", delay=SOON)


def parse_plan(target: str, values: object, now: Plan) -> Plan:
    """Read a plan as the control API gets it: what it does not name stays as it is.

    Args:
        target: `smtp` or a wire that reports.
        values: the fields to change.
        now: the plan so far.

    Raises:
        PlanError: the target, a field or a value is wrong.
    """
    known = targets()
    if target not in known:
        raise PlanError(f"{target!r} does not report; those who do are {', '.join(known)}")
    fields = {each.name: each for each in dataclasses.fields(Plan)}
    if not isinstance(values, dict):
        raise PlanError('the plan is not an object; send {"url": "http://..."}')
    if unknown := sorted(set(values) - set(fields)):
        raise PlanError(f"unknown fields {', '.join(unknown)}; a plan has {', '.join(fields)}")
    for name, value in values.items():
        if not _fits(name, value):
            raise PlanError(
                f"{name} is not what it should be; it is one as {getattr(Plan(), name)!r}, or a text"
            )
    plan = dataclasses.replace(now, **values)
    if plan.outcome not in known[target]:
        raise PlanError(f"outcome {plan.outcome!r} is not one of {target}'s: {', '.join(known[target])}")
    if plan.url is not None and (
        urlsplit(plan.url).scheme not in {"http", "https"} or not urlsplit(plan.url).hostname
    ):
        raise PlanError("url is no address of a door; write http://HOST:PORT/PATH")
    return plan


def _fits(name: str, value: object) -> bool:
    if name in {"url", "code"}:
        return value is None or isinstance(value, str)
    if name == "outcome":
        return isinstance(value, str)
    if name == "delay":
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 3600  # noqa: PLR2004
    return isinstance(value, bool)


class Reporter:
    """Plans and sends reports, on the sandbox's loop.

    Args:
        modes: learns who opted out.
        hooks: the URL of the fleet's gateway; None where nothing is reported until a plan has a URL.
    """

    def __init__(self, modes: Modes, hooks: str | None = None) -> None:
        self._modes = modes
        self.first = {name: _first_plan(name, hooks) for name in targets()}
        self.plans: dict[str, Plan] = dict(self.first)
        self.sent: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._waiting: set[asyncio.Task[None]] = set()
        self._pool = ThreadPoolExecutor(_THREADS, "sandbox-reports")
        self._open: set[http.client.HTTPConnection] = set()

    async def took(self, wire: Wire, request: Request, reading: Reading, taken: LoggedRequest) -> None:
        """A wire took a message: report what becomes of it. Returns at once, or after `before_response`."""
        if not isinstance(wire, Reporting) or not taken.accepted:
            return
        plan = self.plans[wire.name]
        if not plan.on:
            return
        sent = Sent(request, reading, taken)
        outcome, code = wire.outcome_of(reading.to) or (plan.outcome, plan.code)
        reports = list(wire.reports(sent, outcome, code))
        if plan.reordered:
            reports.reverse()
        if plan.duplicate:
            reports = [each for report in reports for each in (report, report)]
        await self._post(wire.name, lambda: wire.calls(sent, reports, plan), plan)

    async def bounced(self, mail: Mail) -> None:
        """SMTP took a mail: send it back later, where its address or the plan wants that."""
        plan = self.plans[SMTP]
        if plan.on and comes_back(mail, plan):
            await self._post(SMTP, lambda: [bounce(mail, plan)], plan)

    async def say(self, target: str, said: Mapping[str, str]) -> None:
        """Tell what a person wrote, and remember whom that stops or starts.

        Raises:
            PlanError: the target has no answers, or its plan no URL.
        """
        wire = wires().get(target)
        plan = self.plans.get(target, Plan())
        if not isinstance(wire, Reporting) or plan.url is None:
            raise PlanError(
                f"set the url first: PUT /control/receipts/{target}, for a target that people answer"
            )
        call = wire.inbound(said, plan)
        if call is None:
            raise PlanError(f"nobody can answer {target}; choose twilio or aliyun")
        word = said.get("body", "").strip().upper()
        if word in _STOPS and OPTED_OUT in wire.modes:
            self._modes.remember(target, said["from"], OPTED_OUT)
        elif word in _STARTS:
            self._modes.remember(target, said["from"], None)
        await self._post(target, lambda: [call], dataclasses.replace(plan, delay=0.0))

    def told(self) -> dict[str, dict[str, Any]]:
        """Every plan, and how many reports got through, or never did."""
        return {
            name: {**dataclasses.asdict(plan), "sent": self.sent[name], "failed": self.failed[name]}
            for name, plan in self.plans.items()
        }

    async def close(self) -> None:
        """Give up what waits, and cut what is being sent: the process ends with its threads alone."""
        for task in list(self._waiting):
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)

    # --- sending --------------------------------------------------------------------------------------

    async def _post(self, target: str, make: Callable[[], Sequence[Call]], plan: Plan) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self.failed[target] += 1
            return
        task = asyncio.create_task(self._deliver(target, make, 0.0 if plan.before_response else plan.delay))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        if plan.before_response:
            await asyncio.wait([task])

    async def _deliver(self, target: str, make: Callable[[], Sequence[Call]], delay: float) -> None:
        """Post one after the other: what happened later is told later. Signatures have the time of posting."""
        await asyncio.sleep(delay)
        for call in make():
            through = await self._persist(call)
            (self.sent if through else self.failed)[target] += 1

    async def _persist(self, call: Call) -> bool:
        """Post until it is taken, or refused, or was tried often enough."""
        loop = asyncio.get_running_loop()
        wait = FIRST_WAIT
        for left in reversed(range(TRIES)):
            taken = await loop.run_in_executor(self._pool, self._posted, call)
            if taken is not None:
                return taken
            if left:
                await asyncio.sleep(wait)
                wait *= 2
        return False

    def _posted(self, call: Call) -> bool | None:
        """Post once: whether it was taken, None where another try may help. Redirects are not followed."""
        url = urlsplit(call.url)
        host = url.hostname or ""
        connection = (
            http.client.HTTPSConnection(host, url.port, timeout=TIMEOUT, context=_tls())
            if url.scheme == "https"
            else http.client.HTTPConnection(host, url.port, timeout=TIMEOUT)
        )
        self._open.add(connection)
        try:
            target = url.path or "/"
            connection.request(
                "POST", f"{target}?{url.query}" if url.query else target, call.body, dict(call.headers)
            )
            response = connection.getresponse()
            status, body = response.status, response.read(_MOST_READ)
        except (OSError, http.client.HTTPException):
            return None
        finally:
            self._open.discard(connection)
            connection.close()
        if status < _OK:
            return True if call.heard(body) else None
        return None if status >= _FAILED else False
