"""The control API: how the far end behaves, and what it tells later.

GET    /control/modes                    every target's mode
PUT    /control/modes/{target}           {"mode": "429", "rate": 0.2, "retry_after": 2}: see `modes`
DELETE /control/modes[/{target}]         well again

GET    /control/receipts                 every plan, with counts of what got through
PUT    /control/receipts/{target}        {"url": "http://...", "outcome": "undelivered"}: see `reports.Plan`
DELETE /control/receipts[/{target}]      as at the start
POST   /control/inbound                  {"target": "twilio", "from": "+1...", "body": "STOP"}: a person answers
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from notify_tasks.sandbox.modes import ModeError, Modes, parse_mode
from notify_tasks.sandbox.reporting import PlanError, Reporter, parse_plan
from notify_tasks.sandbox.reports import Plan
from notify_tasks.sandbox.wires.wire import Reply, Request

_MODES: Final = "modes"
_RECEIPTS: Final = "receipts"
_INBOUND: Final = "inbound"
_METHODS: Final = frozenset({"GET", "PUT", "DELETE"})
_USAGE: Final = (
    "the control API is GET, PUT and DELETE /control/modes/{target} and /control/receipts/{target}, "
    "and POST /control/inbound"
)


class Control:
    """Answers control requests.

    Args:
        modes: how to behave.
        reporter: what to tell later.
        changed: called after each change of the modes.
    """

    def __init__(self, modes: Modes, reporter: Reporter, changed: Callable[[], Awaitable[None]]) -> None:
        self._modes = modes
        self._reporter = reporter
        self._changed = changed

    async def answer(self, request: Request) -> Reply:
        """Do what a request asks for."""
        _, _, room, *rest = request.path.split("/")
        target = "/".join(rest)
        try:
            if room == _MODES and request.method in _METHODS:
                return await self._mode(request, target)
            if room == _RECEIPTS and request.method in _METHODS:
                return self._plan(request, target)
            if (room, request.method, target) == (_INBOUND, "POST", ""):
                return await self._inbound(request)
        except (ModeError, PlanError) as error:
            return Reply(400, {"error": str(error)})
        except ValueError:
            return Reply(400, {"error": 'the body is not JSON; send {"mode": "ok"}'})
        return Reply(404, {"error": _USAGE})

    async def _mode(self, request: Request, target: str) -> Reply:
        if request.method == "PUT":
            self._modes.set(target, parse_mode(target, json.loads(request.body)))
        elif request.method == "DELETE":
            if target:
                parse_mode(target, {"mode": "ok"})
            self._modes.clear(target or None)
        if request.method != "GET":
            await self._changed()
        return Reply(200, {each: dataclasses.asdict(mode) for each, mode in self._modes.now().items()})

    def _plan(self, request: Request, target: str) -> Reply:
        plans = self._reporter.plans
        if request.method == "PUT":
            plans[target] = parse_plan(target, json.loads(request.body), plans.get(target, Plan()))
        elif request.method == "DELETE":
            for each in [target] if target else list(plans):
                plans[each] = parse_plan(each, {}, self._reporter.first.get(each, Plan()))
        return Reply(200, self._reporter.told())

    async def _inbound(self, request: Request) -> Reply:
        values: Any = json.loads(request.body)
        sound = isinstance(values, dict) and all(isinstance(each, str) for each in values.values())
        if not sound or not values.get("from") or "body" not in values:
            raise PlanError('what a person says is {"target": "twilio", "from": "+15550100", "body": "STOP"}')
        await self._reporter.say(values.pop("target", "twilio"), values)
        return Reply(202, {})
